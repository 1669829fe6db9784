//! Pictures and timestamps that pass between the stages.

use std::{fmt, sync::Arc};

use crate::error::EngineError;

/// A running time or a duration, in nanoseconds.
pub type Nanos = u64;

/// One second in [`Nanos`].
pub const SECOND: Nanos = 1_000_000_000;

/// Longest side of a picture, in pixels: twice what 16K video needs, and short enough that no stage's sums overflow.
pub const MAX_SIDE: u32 = 65_535;

/// Something at a running time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timed<T> {
    /// Running time in nanoseconds.
    pub pts: Nanos,
    /// What is at that time.
    pub item: T,
}

impl<T> Timed<T> {
    /// Puts `item` at `pts`.
    pub fn new(pts: Nanos, item: T) -> Self {
        Self { pts, item }
    }
}

/// An 8-bit RGB picture, rows tightly packed, top row first. Cloning copies a pointer, not pixels.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    width: u32,
    height: u32,
    /// Exactly `width * height * 3` bytes, both sides at least 1: every reader relies on it.
    data: Arc<[u8]>,
}

impl Frame {
    /// A picture from `width * height * 3` bytes of packed RGB.
    ///
    /// # Errors
    /// [`EngineError::BadSize`] for a side of zero or above [`MAX_SIDE`], [`EngineError::BadLength`] for any other number of bytes.
    pub fn new(width: u32, height: u32, data: impl Into<Arc<[u8]>>) -> Result<Self, EngineError> {
        let data = data.into();
        let needed = packed_len(width, height)?;
        if data.len() != needed {
            return Err(EngineError::BadLength { needed, got: data.len() });
        }
        Ok(Self { width, height, data })
    }

    /// A picture from rows that start `stride` bytes apart, as video buffers hold them. The last row need not
    /// be padded.
    ///
    /// # Errors
    /// [`EngineError::BadSize`] for a side of zero or above [`MAX_SIDE`], [`EngineError::BadLength`] if `stride` is shorter than a row
    /// or `data` shorter than the rows.
    pub fn from_strided(width: u32, height: u32, stride: usize, data: &[u8]) -> Result<Self, EngineError> {
        let packed = packed_len(width, height)?;
        let row = width as usize * 3;
        let needed = strided_len(height, stride, row)?;
        if data.len() < needed {
            return Err(EngineError::BadLength { needed, got: data.len() });
        }
        if stride == row {
            return Ok(Self { width, height, data: data[..packed].into() });
        }
        let mut out = Vec::with_capacity(packed);
        for line in data.chunks(stride).take(height as usize) {
            out.extend_from_slice(&line[..row]);
        }
        Ok(Self { width, height, data: out.into() })
    }

    /// A picture of one colour.
    ///
    /// # Errors
    /// [`EngineError::BadSize`] for a side of zero or above [`MAX_SIDE`].
    pub fn filled(width: u32, height: u32, rgb: [u8; 3]) -> Result<Self, EngineError> {
        let len = packed_len(width, height)?;
        let data: Vec<u8> = rgb.iter().copied().cycle().take(len).collect();
        Ok(Self { width, height, data: data.into() })
    }

    /// For pictures whose size and length are right by construction.
    pub(crate) fn from_parts(width: u32, height: u32, data: Vec<u8>) -> Self {
        debug_assert_eq!(data.len(), width as usize * height as usize * 3);
        Self { width, height, data: data.into() }
    }

    /// Width in pixels, at least 1.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels, at least 1.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// All bytes: rows from the top, three bytes (R, G, B) a pixel.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The bytes themselves, shared.
    pub fn shared(&self) -> Arc<[u8]> {
        self.data.clone()
    }

    /// Rows from the top, `width * 3` bytes each.
    pub fn rows(&self) -> std::slice::ChunksExact<'_, u8> {
        self.data.chunks_exact(self.width as usize * 3)
    }

    /// The colour at column `x` of row `y`, or `None` outside the picture.
    pub fn pixel(&self, x: u32, y: u32) -> Option<[u8; 3]> {
        if x >= self.width || y >= self.height {
            return None;
        }
        let at = (y as usize * self.width as usize + x as usize) * 3;
        Some([self.data[at], self.data[at + 1], self.data[at + 2]])
    }

    /// Writes the picture into rows that start `stride` bytes apart; bytes between rows are left alone.
    ///
    /// # Errors
    /// [`EngineError::BadLength`] if `stride` is shorter than a row or `out` shorter than the rows.
    pub fn copy_to_strided(&self, out: &mut [u8], stride: usize) -> Result<(), EngineError> {
        let row = self.width as usize * 3;
        let needed = strided_len(self.height, stride, row)?;
        if out.len() < needed {
            return Err(EngineError::BadLength { needed, got: out.len() });
        }
        for (line, from) in out.chunks_mut(stride).zip(self.rows()) {
            line[..row].copy_from_slice(from);
        }
        Ok(())
    }
}

/// Pictures are large: only the size is worth a log line.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({}x{})", self.width, self.height)
    }
}

/// Pixels of a picture of this size, if it is a possible one.
pub(crate) fn area(width: u32, height: u32) -> Result<usize, EngineError> {
    let possible = |side: u32| (1..=MAX_SIDE).contains(&side);
    if !(possible(width) && possible(height)) {
        return Err(EngineError::BadSize { width, height });
    }
    Ok(width as usize * height as usize)
}

/// Bytes of a packed RGB picture of this size.
fn packed_len(width: u32, height: u32) -> Result<usize, EngineError> {
    area(width, height).map(|n| n * 3)
}

/// Bytes from the first byte of the first row to the last byte of the last.
fn strided_len(height: u32, stride: usize, row: usize) -> Result<usize, EngineError> {
    if stride < row {
        return Err(EngineError::BadLength { needed: row, got: stride });
    }
    stride
        .checked_mul(height as usize - 1)
        .and_then(|n| n.checked_add(row))
        .ok_or(EngineError::BadLength { needed: usize::MAX, got: stride })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_lengths_and_sizes_are_refused() {
        assert_eq!(Frame::new(2, 2, vec![0; 11]), Err(EngineError::BadLength { needed: 12, got: 11 }));
        assert_eq!(Frame::new(0, 2, vec![]), Err(EngineError::BadSize { width: 0, height: 2 }));
        assert!(Frame::new(u32::MAX, u32::MAX, vec![]).is_err());
        assert!(Frame::from_strided(2, 2, 5, &[0; 12]).is_err());
        assert!(Frame::from_strided(2, 2, usize::MAX, &[0; 12]).is_err());
    }

    #[test]
    fn strides_come_and_go() {
        let padded = [1, 2, 3, 4, 5, 6, 0, 0, 7, 8, 9, 10, 11, 12];
        let frame = Frame::from_strided(2, 2, 8, &padded).unwrap();
        assert_eq!(frame.data(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(frame.pixel(1, 1), Some([10, 11, 12]));
        assert_eq!(frame.pixel(2, 0), None);
        let mut out = [0; 14];
        frame.copy_to_strided(&mut out, 8).unwrap();
        assert_eq!(out, padded);
    }
}
