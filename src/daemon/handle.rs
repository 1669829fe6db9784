//! What the control plane holds of the daemon. One task owns the daemon's state; everybody else sends it commands
//! and watches what it publishes.

use keyframed_control::{
    ErrorObject,
    types::{Event, Keyframe, Params, PipelineInfo, Reference, Reloaded, Snapshot, Stats, Status},
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// Where an answer goes. The receiver may have gone away; that is no error.
pub type Answer<T> = oneshot::Sender<Result<T, ErrorObject>>;

/// A change to [`Params`]: the JSON members of `params.set`, already known to be names of parameters. `null` stands
/// for the model's default.
pub type ParamsPatch = serde_json::Map<String, serde_json::Value>;

/// What the supervisor carries out, one after the other.
#[derive(Debug)]
pub enum Command {
    /// `params.set`: all or none.
    ParamsSet(ParamsPatch, Answer<Params>),
    /// `reference.set`; answered when the picture has been read and checked.
    ReferenceSet(Choice, Answer<Reference>),
    /// `reference.list`.
    ReferenceList(Answer<Vec<Reference>>),
    /// `pipeline.list`.
    PipelineList(Answer<Vec<PipelineInfo>>),
    /// `pipeline.switch`.
    PipelineSwitch(String, Answer<PipelineInfo>),
    /// `pause`.
    Pause(Answer<()>),
    /// `resume`.
    Resume(Answer<()>),
    /// `snapshot`.
    Snapshot(Answer<Snapshot>),
    /// `reload`, and SIGHUP.
    Reload(Answer<Reloaded>),
    /// `shutdown`, and SIGTERM; answered before it begins.
    Shutdown(Answer<()>),
}

/// How `reference.set` names a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// One that `reference.list` shows.
    Name(String),
    /// A file inside the gallery.
    Path(std::path::PathBuf),
}

/// What happens, for telemetry.
#[derive(Debug, Clone)]
pub enum Telemetry {
    /// Once a second.
    Stats(Stats),
    /// Something happened.
    Event(Event),
    /// A key frame was generated.
    Keyframe(Keyframe),
}

/// The daemon as others see it; cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    /// To the supervisor; bounded, so a flood of requests waits in its senders.
    pub commands: mpsc::Sender<Command>,
    /// The newest state: answers `status` without asking the supervisor. Refreshed at least once a second, and
    /// with each change.
    pub status: watch::Receiver<Status>,
    /// The newest parameters: answers `params.get`.
    pub params: watch::Receiver<Params>,
    /// To subscribe to telemetry; slow receivers lose the oldest.
    pub telemetry: broadcast::Sender<Telemetry>,
}
