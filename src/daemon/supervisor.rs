//! The supervisor: one task that owns the daemon's state. It selects over commands, what parts tell, timers and
//! signals, and never does anything that takes long itself.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use keyframed_control::types::{Params, Showing, Status};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Semaphore, broadcast, mpsc, watch},
    time::{Interval, MissedTickBehavior, interval},
};

use super::{
    animation::Animation,
    apply::Reloads,
    bus,
    feed::Feed,
    gallery::Gallery,
    handle::{Command, Telemetry},
    notify::{self, Notify},
    parts::Parts,
    pictures::{Granted, Pictures},
    relay::Relay,
    report::Report,
    stage::Stage,
};
use crate::{
    config::resolved::Config,
    media::{PipeChange, PipeEvent},
    telemetry::{
        events::{Events, Kind},
        log::LogHandle,
    },
};

/// How long everything may take to end: less than the two seconds that are promised.
const ENDS: Duration = Duration::from_millis(1700);

/// What tasks that the supervisor has started tell it.
pub enum Note {
    /// The bus of the animation of this generation said something.
    Animation(u64, bus::Said),
    /// The animation of this generation may be started.
    AnimationDue(u64),
    /// An animation was started, or could not be.
    AnimationStarted(Box<anyhow::Result<Animation>>),
    /// A source was closed.
    SourceClosed,
    /// An output was closed.
    OutputClosed(String),
    /// A reference was checked and set, or refused.
    Reference(Granted),
    /// A configuration was read, or could not be.
    Config(Box<Result<Config, String>>),
}

/// What the supervisor is made of.
pub struct Supervisor {
    /// As given to `keyframed run`: what is read at a reload.
    pub file: Option<PathBuf>,
    pub log: LogHandle,
    pub config: Config,
    /// Name of the running pipeline.
    pub pipeline: String,
    pub params: Params,
    pub paused: bool,
    pub relay: Relay,
    pub feed: Feed,
    pub parts: Parts,
    pub stage: Stage,
    pub gallery: Gallery,
    pub events: Events,
    pub report: Report,
    pub notify: Notify,
    /// Reads pictures.
    pub pictures: Pictures,
    /// What else takes long for clients, so many at once.
    pub turns: Arc<Semaphore>,
    pub reloads: Reloads,
    pub notes: mpsc::Sender<Note>,
    pub telemetry: broadcast::Sender<Telemetry>,
    pub status_out: watch::Sender<Status>,
    pub params_out: watch::Sender<Params>,
    /// Whether the first frame is out.
    pub ready: bool,
}

/// What the supervisor listens to.
pub struct Ears {
    pub commands: mpsc::Receiver<Command>,
    pub notes: mpsc::Receiver<Note>,
    pub of_sources: mpsc::Receiver<PipeEvent>,
    pub of_outputs: mpsc::Receiver<PipeEvent>,
    pub showing: watch::Receiver<Option<Showing>>,
    pub signals: Signals,
}

/// Signals that the daemon obeys.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// From now on these signals come here.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn listen() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("signals cannot be received");
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    /// Waits for one that asks for the end.
    pub async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl Supervisor {
    /// Runs until the daemon shall end. Clients must be served already.
    pub async fn run(&mut self, ears: &mut Ears) {
        let mut second = every(Duration::from_secs(1));
        let fed = notify::watchdog_interval();
        let mut feeding = every(fed.unwrap_or(Duration::from_secs(3600)));
        loop {
            tokio::select! {
                Some(command) = ears.commands.recv() => match command {
                    Command::Shutdown(answer) => {
                        let _ = answer.send(Ok(()));
                        break;
                    }
                    command => self.carry_out(command),
                },
                Some(note) = ears.notes.recv() => self.take_note(note),
                Some(event) = ears.of_sources.recv() => self.on_source(event),
                Some(event) = ears.of_outputs.recv() => self.on_output(event),
                Ok(()) = ears.showing.changed() => {
                    let showing = *ears.showing.borrow_and_update();
                    if let Some(showing) = showing {
                        self.on_showing(showing);
                    }
                }
                _ = second.tick() => self.tick(),
                _ = feeding.tick(), if fed.is_some() => self.notify.feed(self.relay.counts().frames),
                _ = ears.signals.hangup.recv() => self.begin_reload(None),
                _ = ears.signals.terminate.recv() => break,
                _ = ears.signals.interrupt.recv() => break,
            }
        }
    }

    /// Ends everything at once: recordings are asked to end first. Returns whether nothing runs any more; what cannot
    /// be waited for runs on.
    pub async fn stop(&mut self) -> bool {
        self.notify.stopping();
        self.events.emit(Kind::Stopping, None, "keyframed ends");
        let deadline = Instant::now() + ENDS;
        let parts = self.parts.stop(deadline);
        let stage = self.stage.stop(deadline);
        let (parts, stage) = tokio::join!(parts, stage);
        parts && stage
    }

    /// Tells everybody the newest state.
    pub fn publish(&mut self) {
        let status = self.status();
        self.notify.status(line(&status));
        self.params_out.send_if_modified(|params| std::mem::replace(params, self.params) != self.params);
        self.status_out.send_replace(status);
    }

    fn status(&self) -> Status {
        let figures = self.stage.figures();
        let plan = self.stage.wanted();
        let reference = figures.reference.clone();
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime_secs: self.report.uptime_secs(),
            pipeline: self.pipeline.clone(),
            model: plan.config.model.clone(),
            loaded: figures.loaded,
            reference: reference.or_else(|| Some(plan.reference.as_ref()?.display().to_string())),
            paused: self.paused,
            showing: self.relay.showing().borrow().unwrap_or(Showing::Slate),
            source: self.parts.source_status(),
            outputs: self.parts.output_statuses(),
            stats: self.report.stats(self.feed.received(), &figures, self.relay.counts(), &self.parts),
        }
    }

    fn tick(&mut self) {
        let figures = self.stage.figures();
        self.report.measure(self.feed.received(), &figures, self.relay.counts());
        self.publish();
        // Nobody listening is no error.
        let _ = self.telemetry.send(Telemetry::Stats(self.status_out.borrow().stats.clone()));
    }

    fn take_note(&mut self, note: Note) {
        match note {
            Note::Animation(generation, said) => self.stage.said(generation, said),
            Note::AnimationDue(generation) => self.stage.due(generation),
            Note::AnimationStarted(result) => self.stage.started(*result),
            Note::SourceClosed => self.parts.source_closed(),
            Note::OutputClosed(name) => self.parts.output_closed(&name),
            Note::Reference(granted) => self.reference_set(granted),
            Note::Config(config) => self.end_reload(*config),
        }
        self.publish();
    }

    fn on_source(&mut self, event: PipeEvent) {
        // Whether it is news or not, no poses come.
        let (kind, why) = match event.change {
            PipeChange::Running => (Kind::SourceRunning, "frames come".into()),
            PipeChange::Failed(why) => (Kind::SourceLost, why),
            PipeChange::Stalled => (Kind::SourceLost, "it gives no frames any more".into()),
            PipeChange::Eos => (Kind::SourceLost, "it is over".into()),
            PipeChange::File(_) => return,
        };
        if kind == Kind::SourceLost {
            self.feed.interrupt();
        }
        self.tell(kind, &format!("source {}", event.name), why, event.news);
    }

    fn on_output(&mut self, event: PipeEvent) {
        let (kind, why) = match event.change {
            PipeChange::Running => (Kind::OutputRunning, "frames go out".into()),
            PipeChange::Failed(why) => (Kind::OutputLost, why),
            PipeChange::Stalled => (Kind::OutputLost, "it takes no frames any more".into()),
            PipeChange::Eos => (Kind::OutputLost, "it ended".into()),
            PipeChange::File(file) => (Kind::RecordingFile, format!("recording to {}", file.display())),
        };
        self.tell(kind, &format!("output {}", event.name), why, event.news);
    }

    fn tell(&mut self, kind: Kind, part: &str, message: String, news: bool) {
        if news {
            self.events.emit(kind, Some(part), message);
        }
        self.publish();
    }

    fn on_showing(&mut self, showing: Showing) {
        if !std::mem::replace(&mut self.ready, true) {
            self.events.emit(Kind::Started, None, "the first frame is out");
            self.notify.ready();
        }
        let text = match showing {
            Showing::Live => "the outputs carry the animation",
            Showing::Held => "the outputs carry the last frame",
            Showing::Slate => "the outputs carry the slate",
        };
        self.events.emit(Kind::ShowingChanged, None, text);
        self.publish();
    }
}

/// For `systemctl status`.
fn line(status: &Status) -> String {
    use keyframed_control::types::PartState;
    let showing = match status.showing {
        _ if status.paused => "Paused",
        Showing::Live => "Live",
        Showing::Held => "Last frame held",
        Showing::Slate => "Slate shown",
    };
    let running = status.outputs.iter().filter(|output| output.state == PartState::Running).count();
    let source = match status.source.state {
        PartState::Lost => format!("source {} lost", status.source.name),
        _ => format!("source {}", status.source.name),
    };
    format!("{showing}; {source}; {running} of {} outputs run", status.outputs.len())
}

/// Ticks that do not come in a burst after a stall.
fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
