//! A time that can be read off a picture: what a viewer's screenshot shows tells how old it is.
//!
//! # Format
//!
//! The lowest 3/32 of the picture are 3 rows of 16 cells, black (0) and white (1). In a picture of W × H pixels, cell
//! `c` (0 to 15) of row `r` (0 to 2) covers x from `W·c/16` to `W·(c+1)/16` and y from `H·(29+r)/32` to
//! `H·(30+r)/32`, rounded down. Read in rows from the top and from the left they are 48 bits, the highest bit of each
//! number first:
//!
//! | bits | hold |
//! |---|---|
//! | 0 to 31 | milliseconds of `CLOCK_MONOTONIC`, modulo 2³², when the pose that the picture shows arrived |
//! | 32 to 39 | CRC-8 of those four bytes, highest first: polynomial 0x07, start 0 |
//! | 40 to 47 | 0xA5 |
//!
//! A cell is read as white where the mean brightness of its middle half (in both directions) is 128 or more. Any
//! program on the same machine compares it with its own monotonic clock. A picture that shows no pose (the slate) has
//! no strip.

/// Cells in a row.
const COLUMNS: usize = 16;

/// Rows of cells.
const ROWS: usize = 3;

/// Rows that would fill the picture.
const ROWS_OF_PICTURE: usize = 32;

/// The last 8 bits.
const MARK: u8 = 0xA5;

/// An RGB picture's shape in memory.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// Bytes from one row to the next.
    pub stride: usize,
}

impl Shape {
    /// The cell's pixels: x from, to, y from, to.
    fn cell(self, index: usize) -> [usize; 4] {
        let (row, column) = (ROWS_OF_PICTURE - ROWS + index / COLUMNS, index % COLUMNS);
        [
            self.width * column / COLUMNS,
            self.width * (column + 1) / COLUMNS,
            self.height * row / ROWS_OF_PICTURE,
            self.height * (row + 1) / ROWS_OF_PICTURE,
        ]
    }
}

/// Draws `millis` into a picture.
pub fn draw(rgb: &mut [u8], shape: Shape, millis: u32) {
    let code = encode(millis);
    for index in 0..ROWS * COLUMNS {
        let [left, right, top, bottom] = shape.cell(index);
        let level = if code >> (ROWS * COLUMNS - 1 - index) & 1 == 1 { 255 } else { 0 };
        for y in top..bottom {
            let row = y * shape.stride;
            if let Some(pixels) = rgb.get_mut(row + 3 * left..row + 3 * right) {
                pixels.fill(level);
            }
        }
    }
}

/// Reads a picture's time; `None` if it has none that is whole.
#[cfg(test)]
pub fn read(rgb: &[u8], shape: Shape) -> Option<u32> {
    let code = (0..ROWS * COLUMNS).try_fold(0u64, |code, index| {
        let [left, right, top, bottom] = shape.cell(index);
        let (margin_x, margin_y) = ((right - left) / 4, (bottom - top) / 4);
        let mut sum = 0usize;
        let mut count = 0usize;
        for y in top + margin_y..bottom - margin_y {
            let row =
                rgb.get(y * shape.stride + 3 * (left + margin_x)..y * shape.stride + 3 * (right - margin_x))?;
            sum += row.iter().map(|&level| usize::from(level)).sum::<usize>();
            count += row.len();
        }
        Some(code << 1 | u64::from(sum >= 128 * count.max(1)))
    })?;
    let millis = u32::try_from(code >> 16).ok()?;
    (encode(millis) == code).then_some(millis)
}

/// Milliseconds that a monotonic time is coded as.
pub fn millis(monotonic: gst::ClockTime) -> u32 {
    // Modulo 2³².
    (monotonic.mseconds() & u64::from(u32::MAX)) as u32
}

fn encode(millis: u32) -> u64 {
    u64::from(millis) << 16 | u64::from(crc8(millis.to_be_bytes())) << 8 | u64::from(MARK)
}

fn crc8(bytes: [u8; 4]) -> u8 {
    bytes.into_iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ byte, |crc, _| if crc & 0x80 == 0 { crc << 1 } else { crc << 1 ^ 0x07 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: usize, height: usize) -> (Vec<u8>, Shape) {
        let stride = (3 * width).next_multiple_of(4);
        (vec![90; stride * height], Shape { width, height, stride })
    }

    #[test]
    fn comes_back() {
        for (width, height) in [(256, 256), (512, 512), (1280, 720), (250, 130)] {
            for time in [0, 1, 0x8000_0001, 123_456_789, u32::MAX] {
                let (mut rgb, shape) = picture(width, height);
                draw(&mut rgb, shape, time);
                assert_eq!(read(&rgb, shape), Some(time), "{width}x{height}");
            }
        }
    }

    #[test]
    fn known_code() {
        // CRC-8 of "\0\0\0\x01" with polynomial 0x07.
        assert_eq!(encode(1), 0x0000_0001_07a5);
        assert_eq!(crc8(*b"1234"), 0xc2);
    }

    #[test]
    fn survives_noise_and_low_contrast() {
        let (mut rgb, shape) = picture(256, 256);
        draw(&mut rgb, shape, 77_777);
        for (n, level) in rgb.iter_mut().enumerate() {
            *level = 70 + *level / 3 + (n * 31 % 41) as u8;
        }
        assert_eq!(read(&rgb, shape), Some(77_777));
    }

    #[test]
    fn what_is_no_time_is_not_read() {
        let (mut rgb, shape) = picture(256, 256);
        assert_eq!(read(&rgb, shape), None);
        draw(&mut rgb, shape, 77_777);
        // One wrong cell.
        let [left, right, top, bottom] = shape.cell(20);
        for y in top..bottom {
            rgb[y * shape.stride + 3 * left..y * shape.stride + 3 * right]
                .iter_mut()
                .for_each(|level| *level ^= 255);
        }
        assert_eq!(read(&rgb, shape), None);
        assert_eq!(read(&rgb[..1000], shape), None);
    }
}
