//! What a run did, as JSON and as a few lines of text.

use std::{
    fs,
    path::Path,
    sync::atomic::Ordering::Relaxed,
};

use anyhow::Context as _;
use gst::prelude::*;
use keyframed_engine::Rate;
use serde::Serialize;

use super::{
    Job,
    input::Clip,
    pipeline::Stages,
    run::{End, Finished},
    seconds,
    watch::Watch,
};
use crate::memory;

/// The report file.
#[derive(Debug, Serialize)]
pub struct Report {
    keyframed: &'static str,
    /// False if the user interrupted the run.
    complete: bool,
    model: String,
    options: Settings,
    input: Input,
    /// What was written.
    pub output: Output,
    counts: Counts,
    /// Share of pose frames that became key poses.
    key_ratio: f64,
    wall_seconds: Wall,
    /// Output frames made a second, the first frame's wait left out.
    frames_per_second: f64,
    peak_memory_bytes: Option<u64>,
}

/// Settings in force, whether chosen or by default.
#[derive(Debug, Serialize)]
struct Settings {
    reference: String,
    steps: String,
    guidance_scale: String,
    lambda: String,
    window: String,
    seed: String,
    device: String,
}

/// The driving clip.
#[derive(Debug, Serialize)]
struct Input {
    path: String,
    width: u32,
    height: u32,
    fps: Option<String>,
    duration_s: f64,
    off_palette_share: f64,
}

/// The video.
#[derive(Debug, Serialize)]
pub struct Output {
    path: String,
    width: u32,
    height: u32,
    fps: String,
    /// Frames in it.
    pub frames: u64,
    duration_s: f64,
    encoder: &'static str,
    /// Size of the file.
    pub bytes: u64,
}

#[derive(Debug, Serialize)]
struct Counts {
    r#in: u64,
    key: u64,
    generated: u64,
    interpolated: u64,
    repeated: u64,
}

#[derive(Debug, Serialize)]
struct Wall {
    to_first_frame: Option<f64>,
    select: Option<f64>,
    generate: Option<f64>,
    interpolate: Option<f64>,
    total: f64,
}
