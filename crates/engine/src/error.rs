//! What can go wrong in the engine. Libraries return these; programs add context and report once.

use std::error::Error;

use crate::frame::Nanos;

/// A call the engine cannot carry out as given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A picture has a side of zero pixels, or of more than [`MAX_SIDE`](crate::frame::MAX_SIDE).
    #[error("a picture of {width}x{height} pixels is not possible")]
    BadSize {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The bytes given do not hold the picture described.
    #[error("a picture needs {needed} bytes, {got} were given")]
    BadLength {
        /// Bytes that the size and stride ask for.
        needed: usize,
        /// Bytes given.
        got: usize,
    },
    /// A part label above 24.
    #[error("{0} is not a DensePose label (0 is background, 1 to 24 are parts)")]
    BadLabel(u8),
    /// A setting outside its range; the text names it.
    #[error("{0}")]
    BadSetting(String),
    /// A timestamp that does not come after the one before it.
    #[error("time {pts} ns does not come after {last} ns")]
    OutOfOrder {
        /// The offending time.
        pts: Nanos,
        /// The last time accepted.
        last: Nanos,
    },
    /// Input after the end was announced.
    #[error("the stream has already ended")]
    Ended,
}

/// Why stage 2 made no key frame.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// A key pose came before any reference picture.
    #[error("no reference picture has been set")]
    NoReference,
    /// The reference or pose picture cannot be used.
    #[error("unusable picture: {0}")]
    BadPicture(String),
    /// The network or its device failed.
    #[error("key frame generation failed")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

/// Why stage 3 made no in-between.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InterpolateError {
    /// The two key frames differ in size.
    #[error("cannot interpolate between {0}x{1} and {2}x{3} pixels")]
    SizeMismatch(u32, u32, u32, u32),
    /// The time is not strictly between the two key frames.
    #[error("time {0} is not between 0 and 1")]
    BadTime(f32),
    /// The network or its device failed.
    #[error("interpolation failed")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}
