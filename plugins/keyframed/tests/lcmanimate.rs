//! `lcmanimate` with a small random model of the same structure as the real ones.
mod common;
#[path = "../../../models/tests/tiny/mod.rs"]
mod tiny;

use std::{
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use common::{bytes, fields, flat, init, messages, params, rgb};
use gst::prelude::*;
use gst_check::Harness;
use keyframed_models::checkpoint::Role;
use tempfile::TempDir;
use tiny::Tiny;

const SOURCE: &str = include_str!("../src/lcmanimate/imp.rs");
const MS: gst::ClockTime = gst::ClockTime::from_mseconds(1);

/// A folder of models with one, `mini`, that has two avatars.
fn models() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mini = dir.path().join("mini");
    fs::create_dir_all(mini.join("avatars")).unwrap();
    Tiny::new(&mini);
    picture(&mini.join("avatars/anna.png"), [200, 30, 30]);
    picture(&mini.join("avatars/bert.png"), [30, 30, 200]);
    dir
}

/// A picture that is not flat, or normalisation would take its colour away.
fn picture(path: &Path, colour: [u8; 3]) {
    let shade = |x, y| image::Rgb(colour.map(|c| c.wrapping_add(((x * 7 + y * 3) % 50) as u8)));
    image::RgbImage::from_fn(24, 24, shade).save(path).unwrap();
}

struct Fixture {
    /// Kept until the end.
    _models: TempDir,
    element: gst::Element,
    bus: gst::Bus,
    h: Harness,
}

/// The element, not started, that uses the model in a folder.
fn element(models: &TempDir) -> gst::Element {
    init();
    gst::ElementFactory::make("lcmanimate")
        .property("model", models.path().join("mini").to_str().unwrap())
        .property("device", "cpu")
        .property_from_str("dtype", "f32")
        .build()
        .unwrap()
}

impl Fixture {
    fn new(live: bool, configure: impl FnOnce(&gst::Element)) -> Self {
        Self::of(models(), live, configure)
    }

    fn of(models: TempDir, live: bool, configure: impl FnOnce(&gst::Element)) -> Self {
        let element = element(&models);
        configure(&element);
        let bus = gst::Bus::new();
        element.set_bus(Some(&bus));
        // The harness starts it at once.
        let mut h = Harness::with_element(&element, Some("sink"), Some("src"));
        h.set_live(live);
        h.set_src_caps_str(&rgb(32, 16, "25/1"));
        Self { _models: models, element, bus, h }
    }

    fn pose(&mut self, n: u64) {
        self.h.push(pose(n)).unwrap();
    }

    fn stat(&self, field: &str) -> u64 {
        self.element.property::<gst::Structure>("stats").get::<u64>(field).unwrap()
    }

    /// Key frames of the poses 0 to 2.
    fn film(&mut self) -> Vec<Vec<u8>> {
        (0..3)
            .map(|n| {
                self.pose(n);
                bytes(&self.h.pull().unwrap())
            })
            .collect()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.element.set_bus(None);
    }
}

/// A torso that moves to the right, at 40 ms a frame.
fn pose(n: u64) -> gst::Buffer {
    pose_at(n, n)
}

/// The torso of pose `n` at the time of another.
fn pose_at(n: u64, time: u64) -> gst::Buffer {
    let colours = keyframed_engine::Palette::Viridis.colours();
    let mut buffer = flat(32, 16, colours[0], time * 40, 40);
    let buffer_ref = buffer.get_mut().unwrap();
    buffer_ref.set_offset(time);
    let mut map = buffer_ref.map_writable().unwrap();
    let left = 4 + n as usize % 20;
    for y in 3..13 {
        for x in left..left + 8 {
            map[(y * 32 + x) * 3..][..3].copy_from_slice(&colours[2]);
        }
    }
    drop(map);
    buffer
}

#[test]
fn offline_makes_a_key_frame_of_every_key_pose() {
    let mut f = Fixture::new(false, |_| {});
    for n in 0..5 {
        f.pose(n);
    }
    assert!(f.h.push_event(gst::event::Gap::builder(200 * MS).duration(40 * MS).build()));
    assert!(f.h.push_event(gst::event::Eos::new()));
    for n in 0..5 {
        let frame = f.h.pull().unwrap();
        assert_eq!((frame.pts(), frame.duration()), (Some(40 * n * MS), Some(40 * MS)));
        assert_eq!(frame.size(), 32 * 16 * 3);
    }
    use gst::EventType as T;
    let events: Vec<_> = (0..5).map(|_| f.h.pull_event().unwrap().type_()).collect();
    assert_eq!(events, [T::StreamStart, T::Caps, T::Segment, T::Gap, T::Eos]);
    let caps = f.h.sinkpad().unwrap().current_caps().unwrap();
    let info = gst_video::VideoInfo::from_caps(&caps).unwrap();
    assert_eq!((info.width(), info.height(), info.fps()), (32, 16, gst::Fraction::new(25, 1)));
    assert_eq!((f.stat("in"), f.stat("generated"), f.stat("dropped"), f.stat("failed")), (5, 5, 0, 0));
    assert!(f.stat("busy-time") > 0);
}

#[test]
fn runs_repeat_and_seed_and_reference_matter() {
    let film = |seed: u64, reference: Option<&str>| {
        let mut f = Fixture::new(false, |e| {
            e.set_property("seed", seed);
            e.set_property("reference", reference);
        });
        f.film()
    };
    let first = film(1, None);
    assert_ne!(first[0], first[1], "the pose matters");
    assert_eq!(first, film(1, None));
    assert_eq!(first, film(1, Some("anna")), "the first avatar is the default");
    assert_ne!(first, film(2, None));
    assert_ne!(first, film(1, Some("bert")));
}

#[test]
fn properties_show_the_models_defaults_once_it_is_open() {
    let models = models();
    let element = element(&models);
    assert_eq!(element.property::<u32>("steps"), 0);
    element.set_state(gst::State::Paused).unwrap();
    assert_eq!(element.property::<u32>("steps"), 2);
    assert_eq!(element.property::<f64>("guidance-scale"), 1.);
    assert_eq!(element.property::<i32>("context-frames"), 2);
    element.set_property("steps", 1u32);
    assert_eq!(element.property::<u32>("steps"), 1);
    element.set_state(gst::State::Null).unwrap();
}

/// The error that comes when the element starts.
#[track_caller]
fn refusal(configure: impl FnOnce(&gst::Element)) -> String {
    let models = models();
    let element = element(&models);
    configure(&element);
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    assert!(element.set_state(gst::State::Paused).is_err());
    let errors = messages(&bus, gst::MessageType::Error);
    element.set_state(gst::State::Null).unwrap();
    element.set_bus(None);
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].clone()
}

#[test]
fn a_prompt_is_refused_by_a_model_that_takes_none() {
    let text = refusal(|e| e.set_property("prompt", "a dancer"));
    assert!(text.contains("Tiny takes no prompt"), "{text}");
    let models = models();
    let element = element(&models);
    element.set_property("prompt", None::<&str>);
    assert_eq!(element.property::<String>("prompt"), "");
}

#[test]
fn missing_and_broken_files_are_named_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let broken = dir.path().join("broken.png");
    fs::write(&broken, b"\x89PNG\r\n\x1a\n and no more").unwrap();
    let text = refusal(|e| e.set_property("reference", "/nowhere/face.png"));
    assert!(text.contains("/nowhere/face.png"), "{text}");
    let text = refusal(|e| e.set_property("reference", broken.to_str().unwrap()));
    assert!(text.contains("broken.png"), "{text}");
    let text = refusal(|e| e.set_property("model", "/nowhere/model"));
    assert!(text.contains("/nowhere/model"), "{text}");
    let text = refusal(|e| e.set_property("model", "nosuchmodel"));
    assert!(text.contains("nosuchmodel"), "{text}");
}

#[test]
fn what_only_loading_shows_is_an_error_on_the_bus() {
    // A damaged file of the right size passes the start, not the checksum.
    let models = models();
    let file = models.path().join("mini/unet.safetensors");
    let mut data = fs::read(&file).unwrap();
    let last = data.len() - 1;
    data[last] ^= 1;
    fs::write(&file, data).unwrap();
    let mut f = Fixture::of(models, false, |_| {});
    let _ = f.h.push(pose(0));
    let error =
        f.bus.timed_pop_filtered(gst::ClockTime::from_seconds(30), &[gst::MessageType::Error]).unwrap();
    let gst::MessageView::Error(error) = error.view() else { unreachable!() };
    assert!(error.error().to_string().contains("unet.safetensors"), "{}", error.error());
    // Upstream is told, too.
    let flow = (1..100).find_map(|n| f.h.push(pose(n)).err());
    assert_eq!(flow, Some(gst::FlowError::Error));

    let mut f = Fixture::new(false, |e| e.set_property("device", "toaster"));
    let _ = f.h.push(pose(0));
    let error =
        f.bus.timed_pop_filtered(gst::ClockTime::from_seconds(30), &[gst::MessageType::Error]).unwrap();
    let gst::MessageView::Error(error) = error.view() else { unreachable!() };
    assert!(error.error().to_string().contains("toaster"), "{}", error.error());
}

#[test]
fn loading_tells_its_progress() {
    let mut f = Fixture::new(false, |_| {});
    f.pose(0);
    f.h.pull().unwrap();
    let progress = messages(&f.bus, gst::MessageType::Progress);
    assert_eq!(progress.len(), 2, "{progress:?}");
    assert!(progress[0].starts_with("Start load-model: Loading the model"), "{progress:?}");
    assert!(progress[1].starts_with("Complete load-model"), "{progress:?}");
}

#[test]
fn the_reference_changes_while_running_or_stays() {
    let mut f = Fixture::new(false, |e| e.set_property("context-frames", 0i32));
    f.pose(0);
    let anna = bytes(&f.h.pull().unwrap());
    f.element.set_property("reference", "bert");
    f.pose(0);
    let bert = bytes(&f.h.pull().unwrap());
    assert_ne!(anna, bert);
    f.element.set_property("reference", "/nowhere.png");
    let warnings = messages(&f.bus, gst::MessageType::Warning);
    assert!(warnings.len() == 1 && warnings[0].contains("/nowhere.png"), "{warnings:?}");
    assert_eq!(f.element.property::<Option<String>>("reference").as_deref(), Some("bert"));
    f.pose(0);
    assert_eq!(bytes(&f.h.pull().unwrap()), bert, "the old one stays");
    let in_force = f.element.property::<gst::Structure>("stats").get::<String>("reference").unwrap();
    assert!(in_force.ends_with("bert.png"), "{in_force}");
}

#[test]
fn settings_change_between_key_frames() {
    let mut f = Fixture::new(false, |e| e.set_property("context-frames", 0i32));
    f.pose(0);
    let two = bytes(&f.h.pull().unwrap());
    f.element.set_property("steps", 1u32);
    f.pose(0);
    let one = bytes(&f.h.pull().unwrap());
    assert_ne!(one, two);
    f.element.set_property("steps", 0u32);
    f.pose(0);
    assert_eq!(bytes(&f.h.pull().unwrap()), two, "0 is the model's default again");
}

/// Lets the task stop where it sends its first key frame: waits until it is there, and goes on when dropped.
fn hold_first(pad: &gst::Pad) -> (Receiver<()>, SyncSender<()>) {
    let (arrived, here) = sync_channel(1);
    let (go, gone) = sync_channel::<()>(1);
    let gone = Mutex::new(gone);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let _ = arrived.send(());
        let _ = gone.lock().unwrap().recv();
        gst::PadProbeReturn::Remove
    });
    (here, go)
}

/// Waits for what another thread brings about.
#[track_caller]
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !is() {
        assert!(start.elapsed().as_secs() < 100, "waited too long: {what}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

impl Fixture {
    /// While the task is held where it sends pose 0, lets the maker begin pose `n`: then it waits, since its key frame
    /// waits for the task, and the next pose waits for both.
    fn fill(&mut self, n: u64) {
        let busy = self.stat("busy-time");
        self.h.push(pose_at(0, n)).unwrap();
        until("the next key frame is begun", || self.stat("busy-time") > busy);
    }
}

#[test]
fn an_event_keeps_its_place_among_poses() {
    // What the settings give, one after the other.
    let plain = |steps: u32, seed: u64| {
        let mut f = Fixture::new(false, |e| {
            e.set_property("context-frames", 0i32);
            e.set_property("steps", steps);
            e.set_property("seed", seed);
        });
        f.pose(0);
        bytes(&f.h.pull().unwrap())
    };
    let (old, new) = (plain(2, 0), plain(1, 5));
    for leaky in ["false", "true"] {
        let mut f = Fixture::new(false, |e| {
            e.set_property("context-frames", 0i32);
            e.set_property_from_str("leaky", leaky);
        });
        let src = f.element.static_pad("src").unwrap();
        let seen = common::watch(&src);
        let (here, go) = hold_first(&src);
        f.pose(0);
        here.recv().unwrap();
        f.fill(1);
        // Both threads are busy; this pose waits, and the event behind it.
        f.h.push(pose_at(0, 2)).unwrap();
        let event = fields().field("steps", 1u32).field("seed", 5u64).field("lambda", "unknown here");
        assert!(f.h.push_event(params(event)));
        assert_eq!(f.element.property::<u32>("steps"), 2, "not yet");
        // Leaky, the next pose takes the place of the one that waits. Otherwise it would wait itself.
        if leaky == "true" {
            f.h.push(pose_at(0, 3)).unwrap();
            drop(go);
        } else {
            drop(go);
            f.h.push(pose_at(0, 3)).unwrap();
        }
        assert!(f.h.push_event(gst::event::Eos::new()));
        let mut out = Vec::new();
        while let Ok(Some(buffer)) = f.h.pull_until_eos() {
            out.push((buffer.pts().unwrap().mseconds(), bytes(&buffer)));
        }
        let seen = seen.lock().unwrap().clone();
        let mut want = vec![(0, old.clone()), (40, old.clone()), (80, old.clone()), (120, new.clone())];
        if leaky == "true" {
            assert_eq!(seen, [Some(0), Some(40), None, Some(120)]);
            want.remove(2);
            assert!(out == want, "the newer pose is of after the event");
        } else {
            assert_eq!(seen, [Some(0), Some(40), Some(80), None, Some(120)]);
            assert!(out == want);
        }
        assert_eq!((f.element.property::<u32>("steps"), f.element.property::<u64>("seed")), (1, 5));
    }
}

#[test]
fn events_that_wait_for_the_maker_do_not_pile_up() {
    let mut f = Fixture::new(false, |e| {
        e.set_property("context-frames", 0i32);
        e.set_property_from_str("leaky", "true");
    });
    let src = f.element.static_pad("src").unwrap();
    let seen = common::watch(&src);
    let (here, go) = hold_first(&src);
    f.pose(0);
    here.recv().unwrap();
    f.fill(1);
    // As while a model loads: poses come, and somebody turns a knob.
    for n in 2..200 {
        f.h.push(pose_at(0, n)).unwrap();
        assert!(f.h.push_event(params(fields().field("seed", n))));
        assert!(f.h.push_event(params(fields().field("steps", 1u32))));
    }
    assert!(f.h.push_event(params(fields().field("seed", 1u64).field("steps", 51u32))));
    drop(go);
    assert!(f.h.push_event(gst::event::Eos::new()));
    while let Ok(Some(_)) = f.h.pull_until_eos() {}
    let last = 40 * 199;
    assert_eq!(*seen.lock().unwrap(), [Some(0), Some(40), None, Some(last), None, None]);
    assert_eq!((f.element.property::<u32>("steps"), f.element.property::<u64>("seed")), (1, 199));
    let warnings = messages(&f.bus, gst::MessageType::Warning);
    assert!(warnings.len() == 1 && warnings[0].contains("steps must be"), "{warnings:?}");
}

#[test]
fn an_event_with_a_bad_field_changes_nothing() {
    let mut f = Fixture::new(false, |_| {});
    let seen = common::watch(&f.element.static_pad("src").unwrap());
    f.pose(0);
    assert!(f.h.push_event(params(fields().field("seed", 7u64).field("steps", 51u32))));
    assert!(f.h.push_event(params(fields().field("seed", 7u64).field("context-frames", 2u32))));
    f.pose(1);
    for _ in 0..2 {
        f.h.pull().unwrap();
    }
    let warnings = messages(&f.bus, gst::MessageType::Warning);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("steps must be 0 to 50, not 51"), "{warnings:?}");
    assert!(warnings[1].contains("context-frames must be of type gint, not guint"), "{warnings:?}");
    assert_eq!((f.element.property::<u64>("seed"), f.element.property::<u32>("steps")), (0, 2));
    assert_eq!(*seen.lock().unwrap(), [Some(0), None, None, Some(40)]);
}

#[test]
fn any_size_of_pose_and_new_sizes_in_between() {
    let mut f = Fixture::new(false, |_| {});
    f.pose(0);
    for (n, (width, height)) in [(64, 64), (4, 100), (300, 8)].into_iter().enumerate() {
        f.h.set_src_caps_str(&rgb(width, height, "25/1"));
        f.h.push(flat(width as usize, height as usize, [68, 1, 84], 40 * (n as u64 + 1), 40)).unwrap();
    }
    for _ in 0..4 {
        assert_eq!(f.h.pull().unwrap().size(), 32 * 16 * 3);
    }
}

#[test]
fn live_replaces_the_waiting_pose_and_keeps_the_last() {
    let mut f = Fixture::new(true, |_| {});
    for n in 0..60 {
        f.pose(n);
    }
    assert!(f.h.push_event(gst::event::Eos::new()));
    let mut out = Vec::new();
    while let Ok(Some(buffer)) = f.h.pull_until_eos() {
        out.push(buffer.pts().unwrap() / (40 * MS).nseconds());
    }
    assert!(out.is_sorted() && out.len() < 60, "{out:?}");
    assert_eq!(out.last().map(|pts| pts.nseconds()), Some(59), "the newest is never dropped");
    assert_eq!(f.stat("dropped") + f.stat("generated"), 60);
}

#[test]
fn leaky_can_be_forced_either_way() {
    for (live, leaky) in [(true, "false"), (false, "true")] {
        let mut f = Fixture::new(live, |e| e.set_property_from_str("leaky", leaky));
        for n in 0..40 {
            f.pose(n);
        }
        assert!(f.h.push_event(gst::event::Eos::new()));
        while let Ok(Some(_)) = f.h.pull_until_eos() {}
        assert_eq!(f.stat("dropped") > 0, leaky == "true", "live {live}, leaky {leaky}");
    }
}

#[test]
fn latency_is_measured_and_declared() {
    let mut f = Fixture::new(true, |_| {});
    f.h.set_upstream_latency(40 * MS);
    assert_eq!(f.h.query_latency(), Some(40 * MS), "nothing is known yet");
    for n in 0..4 {
        f.pose(n);
        f.h.pull().unwrap();
    }
    // The message is posted before the buffer leaves.
    assert!(!messages(&f.bus, gst::MessageType::Latency).is_empty());
    let declared = f.stat("latency");
    assert!(declared > 0 && f.stat("last-time") < declared * 100);
    assert_eq!(f.h.query_latency(), Some(40 * MS + gst::ClockTime::from_nseconds(declared)));
}

/// What upstream is told of how often key poses may come, nanoseconds.
fn told(h: &mut Harness) -> Vec<u64> {
    let events = std::iter::from_fn(|| h.try_pull_upstream_event());
    events
        .filter_map(|event| match event.view() {
            gst::EventView::CustomUpstream(event) => {
                event.structure().filter(|s| s.name() == "keyframed-load")?.get("key-interval").ok()
            }
            _ => None,
        })
        .collect()
}

#[test]
fn upstream_is_told_how_often_key_poses_may_come() {
    for live in [true, false] {
        let mut f = Fixture::new(live, |_| {});
        for n in 0..8 {
            f.pose(n);
            f.h.pull().unwrap();
        }
        let told = told(&mut f.h);
        // Not the first, which waits for what is rare; offline nothing is held back.
        assert_eq!(told.is_empty(), !live, "{told:?}");
        let busy = f.stat("busy-time");
        assert!(told.iter().all(|&every| every > 0 && every < 2 * busy), "{told:?} of {busy}");
    }
}

#[test]
fn flush_forgets_the_context_and_goes_on() {
    let mut f = Fixture::new(false, |_| {});
    let first = f.film();
    assert!(f.h.push_event(gst::event::FlushStart::new()));
    assert_eq!(f.h.push(pose(3)), Err(gst::FlowError::Flushing));
    assert!(f.h.push_event(gst::event::FlushStop::builder(true).build()));
    assert!(f.h.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new())));
    assert_eq!(f.film(), first);
}

/// Buffers by timestamp in milliseconds, GAPs likewise, other events by type.
fn order(pad: &gst::Pad) -> Arc<Mutex<Vec<String>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let text = match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => format!("frame {}", buffer.pts().unwrap().mseconds()),
            Some(gst::PadProbeData::Event(event)) => match event.view() {
                gst::EventView::Gap(gap) => format!("gap {}", gap.get().0.mseconds()),
                gst::EventView::CustomDownstream(event) => {
                    let structure = event.structure().unwrap();
                    format!("{} {:?}", structure.name(), structure.get::<u64>("seed").ok())
                }
                _ => format!("{:?}", event.type_()),
            },
            _ => return gst::PadProbeReturn::Ok,
        };
        sink.lock().unwrap().push(text);
        gst::PadProbeReturn::Ok
    });
    seen
}

#[test]
fn everything_leaves_in_the_order_in_which_it_came() {
    let plain: Vec<_> = (0..6u64)
        .map(|seed| {
            let mut f = Fixture::new(false, |e| {
                e.set_property("context-frames", 0i32);
                e.set_property("seed", seed);
            });
            f.pose(0);
            bytes(&f.h.pull().unwrap())
        })
        .collect();
    let mut f = Fixture::new(false, |e| e.set_property("context-frames", 0i32));
    let seen = order(&f.element.static_pad("src").unwrap());
    let mut want: Vec<String> = ["StreamStart", "Caps", "Segment"].map(Into::into).into();
    for n in 0..6u64 {
        assert!(f.h.push_event(params(fields().field("seed", n))));
        f.h.push(pose_at(0, 2 * n)).unwrap();
        let gap = (2 * n + 1) * 40;
        assert!(f.h.push_event(gst::event::Gap::builder(gap * MS).duration(40 * MS).build()));
        let other = gst::Structure::builder("unknown-here").field("seed", n).build();
        assert!(f.h.push_event(gst::event::CustomDownstream::new(other)));
        let more = [
            format!("keyframed-params Some({n})"),
            format!("frame {}", n * 80),
            format!("gap {gap}"),
            format!("unknown-here Some({n})"),
        ];
        want.extend(more);
    }
    assert!(f.h.push_event(gst::event::Eos::new()));
    want.push("Eos".into());
    let mut frames = Vec::new();
    while let Ok(Some(buffer)) = f.h.pull_until_eos() {
        frames.push(bytes(&buffer));
    }
    assert_eq!(*seen.lock().unwrap(), want);
    assert!(frames == plain, "each with the settings of its place");
}

#[test]
fn frames_made_in_halves_are_those_made_in_one() {
    // Pulled one by one, each is finished before the next is begun.
    let one_by_one = Fixture::new(false, |_| {}).film();
    let mut f = Fixture::new(false, |_| {});
    for n in 0..3 {
        f.pose(n);
    }
    let overlapped: Vec<_> = (0..3).map(|_| bytes(&f.h.pull().unwrap())).collect();
    assert!(overlapped == one_by_one);
}

/// Lets pushing wait on a pad until the probe is removed, or the pad flushes or is switched off.
fn block(pad: &gst::Pad) -> (Receiver<()>, gst::PadProbeId) {
    let (arrived, here) = sync_channel(1);
    let probe = pad.add_probe(gst::PadProbeType::BLOCK | gst::PadProbeType::BUFFER, move |_, _| {
        let _ = arrived.try_send(());
        gst::PadProbeReturn::Ok
    });
    (here, probe.unwrap())
}

/// A call that must return. It runs on a thread of its own, so that one that does not fails the test.
#[track_caller]
fn returns<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, is_done) = sync_channel(1);
    let run = move || done.send(call());
    std::thread::Builder::new().name("returns".into()).spawn(run).unwrap();
    is_done.recv_timeout(std::time::Duration::from_secs(100)).expect("it hangs")
}

/// The element with pose 0 being pushed, pose 1 begun and waiting for that, and pose 2 waiting for the maker, which
/// waits for room.
fn stuffed(leaky: &str) -> (Fixture, gst::PadProbeId) {
    let mut f = Fixture::new(false, |e| e.set_property_from_str("leaky", leaky));
    let (here, probe) = block(&f.element.static_pad("src").unwrap());
    f.pose(0);
    here.recv().unwrap();
    f.fill(1);
    f.pose(2);
    (f, probe)
}

#[test]
fn the_age_of_what_waits_is_told() {
    let (f, probe) = stuffed("true");
    let age = f.stat("waiting-age");
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert!(age > 0 && f.stat("waiting-age") >= age + 20_000_000);
    f.element.static_pad("src").unwrap().remove_probe(probe);
    while f.stat("generated") < 3 {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    assert_eq!(f.stat("waiting-age"), 0);
}

#[test]
fn stop_while_both_threads_wait() {
    for leaky in ["false", "true"] {
        let (mut f, _) = stuffed(leaky);
        let element = f.element.clone();
        returns(move || element.set_state(gst::State::Null)).unwrap();
        assert_eq!(f.h.push(pose(3)), Err(gst::FlowError::Flushing));
        assert!(messages(&f.bus, gst::MessageType::Error).is_empty());
    }
}

#[test]
fn stop_frees_upstream_while_both_threads_wait() {
    let (mut f, _) = stuffed("false");
    let element = f.element.clone();
    // This one waits for the place of pose 2.
    let pushing = std::thread::Builder::new().name("upstream".into());
    let (pushed, is_pushed) = sync_channel(1);
    let upstream = move || pushed.send(f.h.push(pose(3)).map(|_| ()).err());
    let upstream = pushing.spawn(upstream).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(50));
    returns(move || element.set_state(gst::State::Null)).unwrap();
    let flow = is_pushed.recv_timeout(std::time::Duration::from_secs(100)).expect("upstream hangs");
    assert_eq!(flow, Some(gst::FlowError::Flushing));
    upstream.join().unwrap().unwrap();
}

#[test]
fn stop_while_a_first_half_is_made() {
    let mut f = Fixture::new(false, |e| e.set_property("steps", 50u32));
    for n in 0..2 {
        f.pose(n);
        until("the model is there", || {
            f.element.property::<gst::Structure>("stats").get::<bool>("loaded").unwrap()
        });
        // Somewhere within fifty steps, or after them.
        std::thread::sleep(std::time::Duration::from_millis(30 * n));
    }
    let element = f.element.clone();
    returns(move || element.set_state(gst::State::Null)).unwrap();
    assert!(messages(&f.bus, gst::MessageType::Error).is_empty());
}

#[test]
fn flush_while_both_threads_wait() {
    let first = Fixture::new(false, |_| {}).film();
    for leaky in ["false", "true"] {
        let (mut f, probe) = stuffed(leaky);
        let src = f.element.static_pad("src").unwrap();
        assert!(f.h.push_event(gst::event::FlushStart::new()));
        assert_eq!(f.h.push(pose(3)), Err(gst::FlowError::Flushing));
        src.remove_probe(probe);
        assert!(f.h.push_event(gst::event::FlushStop::builder(true).build()));
        let seen = common::watch(&src);
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        assert!(f.h.push_event(gst::event::Segment::new(&segment)));
        assert!(f.film() == first, "nothing of before the flush comes, or is seen by what comes");
        assert_eq!(*seen.lock().unwrap(), [Some(0), Some(40), Some(80)]);
    }
}

#[test]
fn a_flush_at_any_time_leaves_a_clean_start() {
    let first = Fixture::new(false, |_| {}).film();
    let mut f = Fixture::new(false, |_| {});
    for wait_ms in [0, 1, 3, 7, 12, 20, 33, 50] {
        for n in 5..8 {
            f.pose(n);
        }
        std::thread::sleep(std::time::Duration::from_millis(wait_ms));
        assert!(f.h.push_event(gst::event::FlushStart::new()));
        while f.h.try_pull().is_some() {}
        assert!(f.h.push_event(gst::event::FlushStop::builder(true).build()));
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        assert!(f.h.push_event(gst::event::Segment::new(&segment)));
        assert!(f.film() == first, "flushed after {wait_ms} ms");
    }
}

#[test]
fn errors_of_downstream_reach_upstream() {
    let mut f = Fixture::new(false, |_| {});
    f.pose(0);
    f.h.pull().unwrap();
    let src = f.element.static_pad("src").unwrap();
    src.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        info.flow_res = Err(gst::FlowError::Eos);
        gst::PadProbeReturn::Handled
    });
    let flow = (1..100).find_map(|n| f.h.push(pose(n)).err());
    assert_eq!(flow, Some(gst::FlowError::Eos));
    // No key frame is finished for nobody.
    until("the maker has seen it", || f.h.push(pose(100)) == Err(gst::FlowError::Eos));
    assert!(f.stat("generated") <= 2, "{}", f.stat("generated"));
}

/// A model whose pictures cannot be decoded: the first halves of key frames succeed.
fn undecodable() -> TempDir {
    let models = models();
    let mini = models.path().join("mini");
    let mut vae = keyframed_models::ModelDir::load(&mini).unwrap().tensors(Role::Vae).unwrap();
    let _ = vae.get_mut("decoder.conv_out.weight").unwrap().fill_(3e38);
    let mut tiny = Tiny::new(&mini);
    tiny.put(Role::Vae, vae);
    tiny.write();
    models
}

#[test]
fn a_second_half_that_fails_is_a_key_frame_that_fails() {
    let mut f = Fixture::of(undecodable(), false, |_| {});
    let flow = (0..100).find_map(|n| f.h.push(pose(n)).err());
    assert_eq!(flow, Some(gst::FlowError::Error));
    let errors = messages(&f.bus, gst::MessageType::Error);
    assert!(errors.len() == 1 && errors[0].contains("no finite numbers"), "{errors:?}");

    let mut f = Fixture::of(undecodable(), true, |_| {});
    for n in 0..7 {
        let failed = f.stat("failed");
        f.pose(n);
        until("it has failed", || f.stat("failed") > failed);
    }
    f.pose(7);
    until("upstream hears of it", || f.h.push(pose(8)) == Err(gst::FlowError::Error));
    assert_eq!((f.stat("failed"), f.stat("generated")), (8, 0), "live it goes on for a while");
    let posted = f.bus.iter_filtered(&[gst::MessageType::Warning, gst::MessageType::Error]);
    let posted: Vec<_> = posted.map(|message| message.type_()).collect();
    assert_eq!(posted, [gst::MessageType::Warning, gst::MessageType::Error]);
}

#[test]
fn flush_while_loading_and_stop_while_loading() {
    let mut f = Fixture::new(false, |_| {});
    f.pose(0);
    assert!(f.h.push_event(gst::event::FlushStart::new()));
    assert!(f.h.push_event(gst::event::FlushStop::builder(true).build()));
    assert!(f.h.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new())));
    f.pose(7);
    assert_eq!(f.h.pull().unwrap().pts(), Some(280 * MS));
    let mut f = Fixture::new(false, |_| {});
    f.pose(0);
    f.element.set_state(gst::State::Null).unwrap();
}

#[test]
fn the_element_starts_again() {
    let mut f = Fixture::new(false, |_| {});
    let first = f.film();
    f.element.set_state(gst::State::Null).unwrap();
    f.element.set_state(gst::State::Playing).unwrap();
    assert_eq!(f.stat("in"), 0);
    f.h.set_src_caps_str(&rgb(32, 16, "25/1"));
    assert!(f.h.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new())));
    assert_eq!(f.film(), first);
}

#[test]
fn poses_without_timestamps_are_an_error() {
    let mut f = Fixture::new(false, |_| {});
    let mut buffer = pose(0);
    buffer.get_mut().unwrap().set_pts(gst::ClockTime::NONE);
    assert_eq!(f.h.push(buffer), Err(gst::FlowError::Error));
    assert!(messages(&f.bus, gst::MessageType::Error)[0].contains("timestamps"));
}

#[test]
fn documented_lines_run() {
    let models = models();
    common::check_documented_lines_with(SOURCE, &[("KEYFRAMED_MODELS", models.path())]);
}

/// Four steps of key frames that do not see each other, as one batch.
fn pipelined(e: &gst::Element) {
    four_steps(e);
    e.set_property_from_str("schedule", "pipelined");
}

fn four_steps(e: &gst::Element) {
    e.set_property("steps", 4u32);
    e.set_property("context-frames", 0i32);
}

/// Batches add up in another order: one level is allowed.
#[track_caller]
fn assert_same(made: &[u8], wanted: &[u8]) {
    assert_eq!(made.len(), wanted.len());
    let worst = made.iter().zip(wanted).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(worst <= Some(1), "off by {worst:?}");
}

/// Key frames of the poses `0..count` with `seed`, one after the other.
fn sequential(count: u64, seed: u64) -> Vec<Vec<u8>> {
    let mut f = Fixture::new(false, |e| {
        four_steps(e);
        e.set_property("seed", seed);
    });
    let made = (0..count).map(|n| {
        f.pose(n);
        bytes(&f.h.pull().unwrap())
    });
    made.collect()
}

/// Pulls the next key frame: it must be that of pose `n` and look as wanted.
#[track_caller]
fn assert_next(f: &mut Fixture, n: u64, wanted: &[u8]) {
    let frame = f.h.pull().unwrap();
    assert_eq!((frame.pts(), frame.duration(), frame.offset()), (Some(40 * n * MS), Some(40 * MS), n));
    assert_same(&bytes(&frame), wanted);
}

#[test]
fn pipelined_key_frames_come_three_poses_later_and_before_a_hold() {
    let wanted = sequential(6, 0);
    assert_ne!(wanted[0], wanted[1]);
    let mut f = Fixture::new(false, pipelined);
    let seen = common::watch(&f.element.static_pad("src").unwrap());
    for n in 0..3 {
        f.pose(n);
    }
    f.pose(3);
    assert_next(&mut f, 0, &wanted[0]);
    f.pose(4);
    assert_next(&mut f, 1, &wanted[1]);
    assert!(f.h.push_event(gst::event::Gap::builder(200 * MS).duration(40 * MS).build()));
    for n in 2..5 {
        assert_next(&mut f, n, &wanted[n as usize]);
    }
    f.pose(5);
    assert!(f.h.push_event(params(fields().field("lambda", 0.1))));
    assert_next(&mut f, 5, &wanted[5]);
    assert!(f.h.push_event(gst::event::Eos::new()));
    assert!(f.h.pull_until_eos().unwrap().is_none());
    let frames = |range: std::ops::Range<u64>| range.map(|n| Some(40 * n)).collect::<Vec<_>>();
    assert_eq!(*seen.lock().unwrap(), [frames(0..6), vec![None]].concat());
    assert_eq!((f.stat("in"), f.stat("generated"), f.stat("dropped"), f.stat("failed")), (6, 6, 0, 0));
}

#[test]
fn pipelined_key_frames_are_finished_before_something_changes() {
    let (old, new) = (sequential(4, 0), sequential(4, 5));
    assert_ne!(old[2], new[2]);
    let mut f = Fixture::new(false, pipelined);
    f.pose(0);
    f.pose(1);
    assert!(f.h.push_event(params(fields().field("seed", 5u64))));
    for n in 0..2 {
        assert_next(&mut f, n, &old[n as usize]);
    }
    let busy = f.stat("busy-time");
    f.pose(2);
    until("it is taken", || f.stat("busy-time") > busy);
    f.element.set_property("reference", "bert");
    f.pose(3);
    assert_next(&mut f, 2, &new[2]);
    assert!(f.h.push_event(gst::event::Eos::new()));
    let bert = f.h.pull_until_eos().unwrap().unwrap();
    assert_eq!(bert.pts(), Some(120 * MS));
    assert_ne!(bytes(&bert), new[3]);
}

#[test]
fn a_flush_drops_pipelined_key_frames() {
    let wanted = sequential(4, 0);
    let mut f = Fixture::new(false, pipelined);
    for n in 0..4 {
        f.pose(n);
    }
    assert_next(&mut f, 0, &wanted[0]);
    let segment = f.element.static_pad("sink").unwrap().sticky_event::<gst::event::Segment>(0).unwrap();
    assert!(f.h.push_event(gst::event::FlushStart::new()));
    assert!(f.h.push_event(gst::event::FlushStop::new(true)));
    assert!(f.h.push_event(segment.into()));
    f.pose(3);
    assert!(f.h.push_event(gst::event::Eos::new()));
    assert_next(&mut f, 3, &wanted[3]);
    assert!(f.h.pull_until_eos().unwrap().is_none());
    assert_eq!((f.stat("in"), f.stat("generated"), f.stat("dropped")), (5, 2, 3));
}

#[test]
fn the_latency_of_pipelined_key_frames_includes_their_wait() {
    let mut f = Fixture::new(true, |e| {
        pipelined(e);
        e.set_property_from_str("leaky", "false");
    });
    // Those that came before the first key frame was there tell nothing.
    for n in 0..12 {
        std::thread::sleep(std::time::Duration::from_millis(50));
        f.pose(n);
        if n >= 3 {
            f.h.pull().unwrap();
        }
    }
    assert!(f.stat("latency") >= 150_000_000, "{}", f.stat("latency"));
}

#[test]
fn models_whose_key_frames_see_earlier_ones_are_not_pipelined() {
    let text = refusal(|e| e.set_property_from_str("schedule", "pipelined"));
    assert!(text.contains("schedule pipelined") && text.contains("context_frames to 0"), "{text}");
}
