//! Picture files from anywhere: opened without blocking, decoded within limits that are checked before memory is
//! taken.
use std::{
    fs::File,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use image::{
    DynamicImage, ImageDecoder, ImageError, ImageReader, Limits,
    error::{DecodingError, ImageFormatHint},
};
use rustix::fs::{Mode, OFlags};

/// Longest side of a picture, in pixels.
const LONGEST_SIDE: u32 = 16384;
/// Most memory that the pixels of a picture may take: more than any camera's.
const MOST_BYTES: u64 = 1 << 30;

/// Opens a regular file. Anything else, such as a pipe that nobody writes to, is an error at once.
///
/// # Errors
/// If it cannot be opened, or is no regular file.
pub fn open(path: &Path) -> io::Result<File> {
    // Without NONBLOCK opening a pipe waits for its writer.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    regular(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// The file, if it is a regular one.
///
/// # Errors
/// If it is none.
pub fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"))
}

/// Decodes a picture, upright.
///
/// # Errors
/// If it is none, is damaged, or is larger than anybody needs.
pub fn decode(file: File) -> Result<DynamicImage, ImageError> {
    // Decoders are other projects' code, and some panic on damaged files (a PNG's palette of 49 bytes).
    catch_unwind(AssertUnwindSafe(|| decoded(file))).unwrap_or_else(|_| {
        let reason = "it is damaged in a way that its decoder does not foresee";
        Err(ImageError::Decoding(DecodingError::new(ImageFormatHint::Unknown, reason)))
    })
}

fn decoded(file: File) -> Result<DynamicImage, ImageError> {
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(LONGEST_SIDE), Some(LONGEST_SIDE));
    limits.max_alloc = Some(MOST_BYTES);
    let mut reader = ImageReader::new(io::BufReader::new(file)).with_guessed_format()?;
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    limits.check_dimensions(width, height)?;
    // The decoder keeps to the limits itself; what it decodes into is not its own.
    limits.reserve(decoder.total_bytes())?;
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image)
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    /// The head of a PNG that claims to be so large.
    fn claim(path: &Path, width: u32, height: u32) {
        image::RgbImage::new(1, 1).save(path).unwrap();
        let mut bytes = fs::read(path).unwrap();
        bytes[16..20].copy_from_slice(&width.to_be_bytes());
        bytes[20..24].copy_from_slice(&height.to_be_bytes());
        let sum = crc(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&sum.to_be_bytes());
        fs::write(path, bytes).unwrap();
    }

    /// The checksum of PNG's chunks.
    fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
                if sum & 1 == 1 { 0xedb8_8320 ^ (sum >> 1) } else { sum >> 1 }
            })
        })
    }

    #[test]
    fn claims_of_enormous_sizes_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("claims.png");
        for (width, height) in [(16385, 1), (1, 16385), (60_000, 60_000), (u32::MAX, 1)] {
            claim(&path, width, height);
            let refused = decode(open(&path).unwrap()).unwrap_err();
            assert!(matches!(refused, ImageError::Limits(_) | ImageError::Decoding(_)), "{refused:?}");
        }
        // Both sides are allowed, the whole is not, with an alpha channel.
        image::RgbaImage::new(1, 1).save(&path).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[16..24].copy_from_slice(&[0, 0, 0x40, 0, 0, 0, 0x40, 0]);
        // 16 bits a channel.
        bytes[24] = 16;
        let sum = crc(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&sum.to_be_bytes());
        fs::write(&path, bytes).unwrap();
        let refused = decode(open(&path).unwrap()).unwrap_err();
        assert!(matches!(refused, ImageError::Limits(_)), "{refused:?}");
        claim(&path, 1, 1);
        assert_eq!(decode(open(&path).unwrap()).unwrap().width(), 1);
    }

    #[test]
    fn a_decoder_that_panics_is_an_error() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus-seed/picture");
        let refused = decode(open(&seeds.join("palette-of-49-bytes.png")).unwrap()).unwrap_err();
        assert!(refused.to_string().contains("damaged"), "{refused}");
    }

    #[test]
    fn a_pipe_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe.png");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert_eq!(open(&path).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert!(open(dir.path()).is_err() && open(Path::new("/dev/null")).is_err());
    }
}
