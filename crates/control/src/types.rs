//! What methods take and return, and what telemetry carries. Field names are those on the wire; units are in them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// State of a part that can be lost and comes back: a source or an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PartState {
    /// Being opened for the first time.
    Starting,
    /// Frames flow.
    Running,
    /// Failed or silent; it is tried again.
    Lost,
}

/// A source or an output, as `status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PartStatus {
    /// Name in the configuration.
    pub name: String,
    /// Kind in the configuration, such as `srt-listener`.
    pub kind: String,
    /// What it does.
    pub state: PartState,
    /// Frames taken from or given to it since it was configured.
    pub frames: u64,
    /// Frames it was too slow for (outputs).
    pub dropped: u64,
    /// Times it was opened again.
    pub restarts: u64,
    /// Why it failed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// What is on the outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Showing {
    /// The animation.
    Live,
    /// The last frame: paused, or the source was just lost, or a part restarts.
    Held,
    /// The slate: nothing to show.
    Slate,
}

/// Result of `status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Of the daemon.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Seconds since the start.
    pub uptime_secs: f64,
    /// Name of the running pipeline.
    pub pipeline: String,
    /// Model in use.
    pub model: String,
    /// Whether the model is loaded.
    pub loaded: bool,
    /// Reference picture in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Whether generating is paused.
    pub paused: bool,
    /// What the outputs carry.
    pub showing: Showing,
    /// The running pipeline's source.
    pub source: PartStatus,
    /// All outputs.
    pub outputs: Vec<PartStatus>,
    /// Figures.
    pub stats: Stats,
}

/// Counters since the start and figures of the last second: `status`, and telemetry topic `stats`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Stats {
    /// Seconds since the daemon's start.
    pub uptime_secs: f64,
    /// Pose frames received.
    pub frames_in: u64,
    /// Frames sent to the outputs.
    pub frames_out: u64,
    /// Key poses selected.
    pub key_poses: u64,
    /// Key frames generated.
    pub key_frames: u64,
    /// In-betweens by rung.
    pub in_betweens: InBetweens,
    /// Output frames that repeat a picture.
    pub repeated: u64,
    /// Stalls: output frames in front of which ticks were missed, and frames that left a tick or more late.
    pub late: u64,
    /// Key poses and output ticks given up.
    pub dropped: u64,
    /// Key frames that could not be made.
    pub failed: u64,
    /// Output frames a second over the last second.
    pub output_rate_hz: f64,
    /// Pose frames a second over the last second.
    pub input_rate_hz: f64,
    /// Share of pose frames that became key poses, over the last second.
    pub key_ratio: f64,
    /// λ in force.
    pub lambda: f64,
    /// Rung of the quality ladder in force: film, warp, crossfade, repeat.
    pub rung: String,
    /// Time that the last key frame took, milliseconds.
    pub generate_ms: f64,
    /// From a pose's arrival to the output frame that shows it, milliseconds, of the last 1,024 frames; `None` before
    /// the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<Percentiles>,
    /// Frames waiting now, by queue: `poses`, and one for each output by its name.
    pub queue_frames: BTreeMap<String, u64>,
    /// Age of the oldest frame waiting, by queue, milliseconds.
    pub queue_age_ms: BTreeMap<String, f64>,
}

/// In-betweens by rung.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InBetweens {
    /// By FILM.
    pub film: u64,
    /// By flow warp.
    pub warp: u64,
    /// By cross-fade.
    pub crossfade: u64,
}

/// Of a time, milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
}

/// Severity of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// For the record.
    Info,
    /// Something was lost or refused; the stream goes on.
    Warning,
    /// Something does not work until somebody mends it.
    Error,
}

/// Telemetry topic `event`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Seconds since the daemon's start.
    pub uptime_secs: f64,
    /// How bad.
    pub level: Level,
    /// What happened, for programs: `source-lost`, `output-failed`, `params-changed` …
    pub kind: String,
    /// Part it happened to, such as `output obs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// One sentence for people.
    pub message: String,
}

/// Telemetry topic `keyframe`: one for each key frame generated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Keyframe {
    /// Running time of its pose, seconds since the daemon's start.
    pub pose_secs: f64,
    /// Time from the pose's arrival to the key frame, milliseconds.
    pub latency_ms: f64,
    /// Key frames so far.
    pub count: u64,
}

/// Parameters that change between two frames: result of `params.get`. `None` stands for the model's default.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Params {
    /// Threshold on the mean squared error between pose frames.
    pub lambda: f64,
    /// Most pose frames between key poses.
    pub window_frames: u32,
    /// Key frames a second that λ is steered to; 0: fixed λ.
    pub target_key_rate_hz: f64,
    /// Denoising steps.
    pub steps: Option<u32>,
    /// Classifier-free guidance; 1 or less: no second pass.
    pub guidance_scale: Option<f64>,
    /// Share of the LoRA in the weights.
    pub lora_scale: Option<f64>,
    /// Key frames that a new one sees.
    pub context_frames: Option<u32>,
    /// Of the noise.
    pub seed: u64,
    /// How far the output stays behind the poses, milliseconds.
    pub latency_ms: u64,
    /// Best rung of the quality ladder: film, warp, crossfade, repeat.
    pub max_quality: MaxQuality,
}

/// Best rung of the quality ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MaxQuality {
    /// The network.
    Film,
    /// Flow warp at half size.
    Warp,
    /// Cross-fade.
    Crossfade,
    /// Repeat the key frame.
    Repeat,
}

/// A picture that `reference.set` takes: in `reference.list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reference {
    /// What `{"name": …}` takes.
    pub name: String,
    /// File.
    pub path: String,
    /// Whether it is the one in force.
    pub current: bool,
}

/// A configured pipeline: in `pipeline.list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PipelineInfo {
    /// What `pipeline.switch` takes.
    pub name: String,
    /// Its source.
    pub source: String,
    /// Its model.
    pub model: String,
    /// Whether it is the one that runs.
    pub current: bool,
}

/// Result of `snapshot`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// What it shows.
    pub showing: Showing,
    /// The picture: PNG, base64.
    pub png_base64: String,
}

/// Result of `reload`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reloaded {
    /// Parts that were started, stopped or started anew, such as `output obs`.
    pub restarted: Vec<String>,
    /// Parts that took the change while running, such as `params`.
    pub applied: Vec<String>,
    /// Changes that take effect with the daemon's next start, such as `control`.
    pub deferred: Vec<String>,
}
