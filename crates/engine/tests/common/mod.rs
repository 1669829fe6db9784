//! What several tests need. Each test program uses a part of it.
#![allow(dead_code)]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use keyframed_engine::Frame;

/// Distances between the poses of a real clip, as `examples/mse_table.rs` measured them.
pub struct Table {
    pub name: &'static str,
    /// `rows[i][d]` is the MSE between frames i and i - 1 - d.
    rows: Vec<Vec<f64>>,
}

impl Table {
    /// Most frames between two poses in a table.
    pub const LAGS: usize = 16;

    pub fn all() -> [Self; 3] {
        [
            Self::parse("dancing2", include_str!("../data/dancing2.mse")),
            Self::parse("demo4", include_str!("../data/demo4.mse")),
            Self::parse("running", include_str!("../data/running.mse")),
        ]
    }

    fn parse(name: &'static str, text: &str) -> Self {
        let number = |n: &str| n.parse::<f64>().expect("a number") / 1e6;
        Self { name, rows: text.lines().map(|l| l.split_whitespace().map(number).collect()).collect() }
    }

    pub fn frames(&self) -> usize {
        self.rows.len()
    }

    pub fn mse(&self, a: usize, b: usize) -> f64 {
        match (a.max(b), a.abs_diff(b)) {
            (_, 0) => 0.0,
            (later, apart) => self.rows[later][apart - 1],
        }
    }

    /// Frame number `i` of an endless stream that plays the clip forwards and backwards.
    pub fn looped(&self, i: usize) -> usize {
        let (n, i) = (self.frames(), i % (2 * self.frames() - 2));
        if i < n { i } else { 2 * n - 2 - i }
    }
}

/// The folder with the real clips, or `None` with a word why not.
pub fn shared() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let folder = std::env::var_os("KEYFRAMED_SHARED").map_or_else(beside, PathBuf::from);
    if folder.join("driving").is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: no folder driving/ in {} (set KEYFRAMED_SHARED)", folder.display());
    None
}

/// Whether ffmpeg can be run; says so if not.
pub fn ffmpeg_exists() -> bool {
    let found = Command::new("ffmpeg").arg("-version").output().is_ok_and(|o| o.status.success());
    if !found {
        eprintln!("skipped: ffmpeg cannot be run");
    }
    found
}

/// Runs ffmpeg and returns what it wrote to stdout.
pub fn ffmpeg(args: &[&str]) -> Vec<u8> {
    let out =
        Command::new("ffmpeg").args(["-v", "error", "-nostdin"]).args(args).output().expect("ffmpeg runs");
    assert!(out.status.success(), "ffmpeg {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// All frames of a 512×512 video file.
pub fn decode(path: &Path) -> Vec<Frame> {
    let raw = ffmpeg(&["-i", path.to_str().expect("UTF-8"), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]);
    raw.chunks_exact(512 * 512 * 3).map(|data| Frame::new(512, 512, data).expect("a frame")).collect()
}
