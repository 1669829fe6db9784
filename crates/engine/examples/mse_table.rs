//! Measures a clip's poses against each other, as stage 1 does: one line a frame, the MSE in millionths against the
//! frame 1, 2, … before it. `tests/data/*.mse` were made by it:
//!
//! ```text
//! ffmpeg -v error -i CLIP -f rawvideo -pix_fmt rgb24 - | cargo run --example mse_table -- WIDTH HEIGHT LAGS
//! ```

use std::{
    error::Error,
    io::{ErrorKind, Read, Write, stdin, stdout},
};

use keyframed_engine::{Frame, Thumbnail};

fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers = std::env::args().skip(1).map(|a| a.parse::<u32>());
    let mut number = || numbers.next().ok_or("usage: mse_table WIDTH HEIGHT LAGS < RAW_RGB");
    let (width, height, lags) = (number()??, number()??, number()??);
    let mut buffer = vec![0; width as usize * height as usize * 3];
    let (mut input, mut output) = (stdin().lock(), stdout().lock());
    let mut seen: Vec<Thumbnail> = Vec::new();
    loop {
        match input.read_exact(&mut buffer) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(e) => return Err(e.into()),
        }
        let pose = Thumbnail::new(&Frame::new(width, height, buffer.as_slice())?);
        let line: Vec<String> =
            seen.iter().rev().take(lags as usize).map(|p| format!("{:.0}", p.mse(&pose) * 1e6)).collect();
        writeln!(output, "{}", line.join(" "))?;
        seen.push(pose);
    }
}
