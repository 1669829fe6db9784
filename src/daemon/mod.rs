//! The daemon: `keyframed run`.
//!
//! ```text
//! source pipeline ─► feed ─► animation pipeline ─► relay ─► output pipelines
//!   media            feed.rs   animation.rs        relay.rs   media
//! ```
//!
//! Frames pass from thread to thread on this line, and nothing on it waits for the [`supervisor`], which owns
//! everything else.

mod animation;
mod apply;
mod bus;
pub mod clock;
mod commands;
mod feed;
mod figures;
pub mod gallery;
pub mod handle;
pub mod nice;
mod notify;
mod params;
mod parts;
mod pictures;
mod relay;
mod reload;
mod report;
mod slate;
mod snapshot;
mod stage;
mod supervisor;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use keyframed_control::types::{Stats, Status};
use tokio::{
    sync::{Semaphore, broadcast, mpsc, watch},
    task::{JoinSet, spawn_blocking},
};

use self::{
    animation::{Plan, Surroundings},
    clock::Base,
    feed::Feed,
    gallery::Gallery,
    handle::Handle,
    parts::{Around, Parts},
    pictures::{Pictures, make_slate},
    relay::{Relay, Running},
    report::Report,
    stage::Stage,
    supervisor::{Ears, Signals, Supervisor},
};
use crate::{
    config::{self, resolved::Config},
    control,
    telemetry::{events::Events, log::LogHandle, metrics},
};

/// Commands that wait; more wait in their senders.
const COMMANDS: usize = 64;
/// Messages from tasks and parts that wait.
const NOTES: usize = 256;
/// Telemetry that waits for slow receivers.
const TELEMETRY: usize = 1024;

/// For the last answers to clients, when everything else has ended.
const FAREWELL: Duration = Duration::from_millis(100);

/// For clients' snapshots and lists, so many at once.
const TURNS: usize = 2;

/// Runs the daemon until a signal or a client ends it. `prepare` makes everything ready; `file` is what a reload
/// reads. Returns whether everything has ended; if not, the process should leave without waiting for what still runs.
///
/// # Errors
/// What keeps it from starting.
pub fn run(
    prepare: impl FnOnce() -> anyhow::Result<(Config, LogHandle)> + Send + 'static,
    file: Option<PathBuf>,
) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("supervisor")
        .enable_all()
        .build()
        .context("the daemon's threads cannot be started")?;
    let ended = runtime.block_on(prepare_and_serve(prepare, file));
    // What still runs, runs on; waiting is over.
    runtime.shutdown_background();
    ended
}

async fn prepare_and_serve(
    prepare: impl FnOnce() -> anyhow::Result<(Config, LogHandle)> + Send + 'static,
    file: Option<PathBuf>,
) -> anyhow::Result<bool> {
    // First of all: from now on a signal ends it in an orderly way.
    let mut signals = Signals::listen()?;
    let preparing = spawn_blocking(move || {
        let (config, log) = prepare()?;
        let slate = first_slate(&config);
        anyhow::Ok((config, log, slate))
    });
    tokio::select! {
        prepared = preparing => {
            let (config, log, slate) = prepared.context("getting ready panicked")??;
            serve(config, file, log, slate, signals).await
        }
        // Nothing has begun yet that would have to be ended.
        () = signals.end() => Ok(false),
    }
}

/// The slate until a reference is chosen.
fn first_slate(config: &Config) -> gst::Buffer {
    let animation = config.pipelines.get(&config.pipeline).map(|pipeline| &pipeline.animation);
    let own = |animation: &config::resolved::Animation| Gallery::new(&[], &animation.model).models_own();
    let reference = animation.and_then(|animation| animation.reference.clone().or_else(|| own(animation)));
    let (slate, trouble) = make_slate(&config.slate, reference.as_deref(), config.video);
    if let Some(why) = trouble {
        tracing::warn!("{why}");
    }
    slate
}

async fn serve(
    config: Config,
    file: Option<PathBuf>,
    log: LogHandle,
    slate: gst::Buffer,
    signals: Signals,
) -> anyhow::Result<bool> {
    // Whoever cannot listen says so before anything has started.
    let sockets = control::bind(&config.control)?;
    let exporter = config.metrics.map(metrics::bind).transpose()?;
    let (mut supervisor, mut ears, handle, relay) = build(config, file, log, slate, signals)?;

    let (end, ended) = watch::channel(false);
    let mut services = JoinSet::new();
    services.spawn(told(sockets.serve(handle.clone(), until(ended.clone()))));
    if let Some(exporter) = exporter {
        services.spawn(told(exporter.serve(handle, until(ended))));
    }
    supervisor.run(&mut ears).await;
    // The answer to `shutdown` goes out while the outputs end.
    let _ = end.send(true);
    let all_ended = supervisor.stop().await;
    drop(relay);
    let in_time = tokio::time::timeout(FAREWELL, services.join_all()).await.is_ok();
    Ok(all_ended && in_time)
}

/// A service that fails is missed by its clients, not by the stream.
async fn told(service: impl Future<Output = anyhow::Result<()>>) {
    if let Err(error) = service.await {
        tracing::error!("{error:#}");
    }
}

/// Waits for the end.
async fn until(mut ended: watch::Receiver<bool>) {
    // The sender is dropped only after that.
    let _ = ended.wait_for(|ended| *ended).await;
}

/// Starts all parts.
fn build(
    config: Config,
    file: Option<PathBuf>,
    log: LogHandle,
    slate: gst::Buffer,
    signals: Signals,
) -> anyhow::Result<(Supervisor, Ears, Handle, Running)> {
    let name = config.pipeline.clone();
    let pipeline = config.pipelines.get(&name).context("the configuration names no pipeline")?.clone();
    let source = config.sources.get(&pipeline.source).context("the pipeline names no source")?.clone();
    let (base, started) = (Base::start(), Instant::now());
    let params = pipeline.animation.params;
    let wanted = Plan::of(&pipeline.animation, params, config.video);

    let telemetry = broadcast::Sender::new(TELEMETRY);
    let events = Events::new(started, telemetry.clone());
    let (notes, on_notes) = mpsc::channel(NOTES);
    let (of_sources, on_sources) = mpsc::channel(NOTES);
    let (of_outputs, on_outputs) = mpsc::channel(NOTES);
    let (commands, on_commands) = mpsc::channel(COMMANDS);

    let (relay, running) = Relay::start(base, config.video, slate, config.slate.after)?;
    let feed = Feed::new(base, relay.clone());
    let surroundings = Surroundings {
        base,
        relay: relay.clone(),
        telemetry: telemetry.clone(),
        key_frames: Arc::new(AtomicU64::new(0)),
    };
    let around = Around {
        base,
        relay: relay.clone(),
        feed: feed.clone(),
        events: events.clone(),
        notes: notes.clone(),
        of_sources,
        of_outputs,
    };
    let pictures = Pictures::start(notes.clone())?;
    let stage =
        Stage::new(surroundings, feed.clone(), events.clone(), notes.clone(), pictures.clone(), wanted);
    let parts = Parts::start(around, config.video, (pipeline.source.clone(), source), config.outputs.clone());
    let report = Report::new(started);
    let status = Status {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        uptime_secs: 0.0,
        pipeline: name.clone(),
        model: pipeline.animation.model.clone(),
        loaded: false,
        reference: None,
        paused: false,
        showing: keyframed_control::types::Showing::Slate,
        source: parts.source_status(),
        outputs: parts.output_statuses(),
        stats: Stats::default(),
    };
    let (status_out, status) = watch::channel(status);
    let (params_out, params_in) = watch::channel(params);
    let handle = Handle { commands, status, params: params_in, telemetry: telemetry.clone() };
    let mut showing = relay.showing();
    // The first frame may be out already.
    showing.mark_changed();
    let ears = Ears {
        commands: on_commands,
        notes: on_notes,
        of_sources: on_sources,
        of_outputs: on_outputs,
        showing,
        signals,
    };
    let gallery = Gallery::new(&config.gallery, &pipeline.animation.model);
    let supervisor = Supervisor {
        file,
        log,
        config,
        pipeline: name,
        params,
        paused: false,
        relay,
        feed,
        parts,
        stage,
        gallery,
        events,
        report,
        notify: Default::default(),
        pictures,
        turns: Arc::new(Semaphore::new(TURNS)),
        reloads: Default::default(),
        notes,
        telemetry,
        status_out,
        params_out,
        ready: false,
    };
    Ok((supervisor, ears, handle, running))
}
