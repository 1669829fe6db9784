use std::sync::atomic::AtomicU64;

use keyframed_control::types::{MaxQuality, Params};
use keyframed_engine::Rate;
use tokio::sync::broadcast;

use super::*;
use crate::{
    config::resolved::{Animation as Config, Video},
    daemon::{clock::Base, relay::Relay, slate},
};

fn plan(model: &str) -> Plan {
    let params = Params {
        lambda: 0.01,
        window_frames: 12,
        target_key_rate_hz: 0.0,
        steps: None,
        guidance_scale: None,
        lora_scale: None,
        context_frames: None,
        seed: 0,
        latency_ms: 500,
        max_quality: MaxQuality::Crossfade,
    };
    let config = Config {
        model: model.into(),
        device: "cpu".into(),
        dtype: "f32".into(),
        context_mode: "recompute".into(),
        schedule: "sequential".into(),
        prompt: String::new(),
        reference: None,
        params,
    };
    Plan::of(&config, params, Video { width: 64, height: 64, rate: Rate::new(25, 1).unwrap() })
}

/// A stage on its way to an animation from this plan.
fn stage(wanted: Plan) -> (Stage, mpsc::Receiver<Note>) {
    gst::init().unwrap();
    gstkeyframed::plugin_register_static().unwrap();
    let (base, telemetry) = (Base::start(), broadcast::Sender::new(10));
    let slate = slate::draw(None, wanted.video);
    // Its thread ends at once: nobody looks at the output.
    let (relay, _) = Relay::start(base, wanted.video, slate, Duration::from_secs(1)).unwrap();
    let (notes, on_notes) = mpsc::channel(100);
    let events = Events::new(Instant::now(), telemetry.clone());
    let feed = Feed::new(base, relay.clone());
    let around = Surroundings { base, relay, telemetry, key_frames: Arc::new(AtomicU64::new(0)) };
    let pictures = Pictures::start(notes.clone()).unwrap();
    (Stage::new(around, feed, events, notes, pictures, wanted), on_notes)
}

/// Does what the supervisor does with the next note.
async fn step(stage: &mut Stage, notes: &mut mpsc::Receiver<Note>) {
    match notes.recv().await {
        Some(Note::Animation(generation, said)) => stage.said(generation, said),
        Some(Note::AnimationDue(generation)) => stage.due(generation),
        Some(Note::AnimationStarted(result)) => stage.started(*result),
        _ => {}
    }
}

async fn until(stage: &mut Stage, notes: &mut mpsc::Receiver<Note>, reached: impl Fn(&Stage) -> bool + Send) {
    while !reached(stage) {
        step(stage, notes).await;
    }
}

fn tries(stage: &Stage, model: &str) -> bool {
    matches!(&stage.phase, Phase::Starting(tried) if tried.config.model == model)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_mended_is_tried_at_once() {
    let (mut stage, mut notes) = stage(plan("/no/such/model"));
    until(&mut stage, &mut notes, |stage| stage.told.is_some()).await;
    // Pauses of 1 and 2 seconds are over, and one of 4 begins.
    until(&mut stage, &mut notes, |stage| stage.generation == 4).await;
    let began = Instant::now();
    stage.set(plan("/another"));
    until(&mut stage, &mut notes, |stage| tries(stage, "/another")).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    // While that is being tried, something else is wanted: the failure of what was tried is nobody's business.
    stage.told = None;
    stage.set(plan("/a third"));
    until(&mut stage, &mut notes, |stage| tries(stage, "/a third")).await;
    assert_eq!(stage.told, None);
    // A reference, too, may be what was missing.
    until(&mut stage, &mut notes, |stage| matches!(stage.phase, Phase::Waiting(_))).await;
    stage.backoff.after(Duration::ZERO);
    stage.backoff.after(Duration::ZERO);
    stage.restart(Duration::from_secs(3600));
    stage.note_reference(stage.generation, "/some.png".into());
    until(&mut stage, &mut notes, |stage| matches!(stage.phase, Phase::Starting(_))).await;
    assert!(!stage.stop(Instant::now()).await, "it is being started");
}

#[tokio::test]
async fn only_time_with_the_model_counts_as_a_good_run() {
    let (mut stage, _notes) = stage(plan("/none"));
    let long = Duration::from_secs(60);
    // As if loading had taken a minute: that is no success.
    stage.fail("one".into());
    stage.fail("two".into());
    assert_eq!(stage.backoff.clone().after(Duration::ZERO), Duration::from_secs(4));
    stage.loaded = Instant::now().checked_sub(long);
    stage.fail("three".into());
    assert_eq!(stage.backoff.clone().after(Duration::ZERO), Duration::from_secs(2), "it began anew");
    assert_eq!(stage.loaded, None);
}
