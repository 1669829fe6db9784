//! The context ring: a new frame alone on what earlier ones left, against the whole window.

mod common;
mod tiny;

use common::{assert_close, error, goldens, metadata, parsed, tensors, timestep, unet};
use keyframed_engine::{Frame, KeyframeGenerator, Unfinished};
use keyframed_models::{
    AppearanceEncoder, Bank, ContextMode, ControlNet, ControlNetResiduals, Fusion, LcmGenerator, ModelDir,
    ModelError, Placement, Reference, Settings, Source, UNet, UNetConfig, nn::FrameStates, nn::Memory,
};
use tch::{Device, Kind, Tensor};
use tiny::Tiny;

/// Of one denoising step, as the original's numbers are compared.
const STEP: f64 = 1e-4;

/// What frames are made under besides the text: a reference for all, a pose for each.
type Under<'a> = Option<(&'a Bank, &'a ControlNetResiduals)>;

/// Every frame of the window alone on the states of those before it, which the whole window left.
fn compare(unet: &UNet, sample: &Tensor, t: &Tensor, text: &Tensor, under: Under) {
    let reference = under.map(|(bank, _)| Reference::hidden(bank));
    let reference = reference.as_ref();
    let run = |first: i64, count: i64, memory: &Memory| {
        let part = |tensor: &Tensor| tensor.narrow(0, first, count);
        let poses = under.map(|(_, whole)| ControlNetResiduals {
            down: whole.down.iter().map(part).collect(),
            mid: part(&whole.mid),
        });
        let frames = sample.narrow(2, first, count);
        unet.forward_after(&frames, t, text, poses.as_ref(), reference, Some(memory)).unwrap()
    };
    let frames = sample.size()[2];
    let plain = unet.forward(sample, t, text, under.map(|(_, poses)| poses), reference).unwrap();
    let empty = Memory::after([]);
    assert_close(&run(0, frames, &empty), &plain, STEP);
    let states = empty.into_states(frames).unwrap();
    assert_eq!(states.len(), frames);
    // The last frame sees exactly what it saw in the window, in one piece or frame by frame.
    let context = states.narrow(0, frames - 1);
    let ring: Vec<FrameStates> = (0..frames - 1).map(|i| states.narrow(i, 1)).collect();
    for memory in [Memory::after([&context]), Memory::after(&ring)] {
        let alone = run(frames - 1, 1, &memory);
        assert_close(&alone, &plain.narrow(2, frames - 1, 1), STEP);
        let left = memory.into_states(1).unwrap();
        let own = states.narrow(frames - 1, 1);
        assert_eq!((left.len(), left.bytes()), (1, own.bytes()));
    }
    // So do the last two together.
    let context = states.narrow(0, frames - 2);
    assert_close(&run(frames - 2, 2, &Memory::after([&context])), &plain.narrow(2, frames - 2, 2), STEP);
    // And it matters: without its context, or with it in the wrong order, a frame comes out otherwise.
    let backwards: Vec<&FrameStates> = ring.iter().rev().collect();
    for wrong in [Memory::after([]), Memory::after(backwards)] {
        assert!(error(&run(frames - 1, 1, &wrong), &plain.narrow(2, frames - 1, 1)) > 1e-3);
    }
}

#[test]
fn one_step_is_the_windows_in_the_originals_network() {
    let Some(folder) = goldens() else { return };
    let file = folder.join("unet3d_io.safetensors");
    let (io, cases) = (tensors(&file), &metadata(&file)["cases"]);
    let t = timestep(&cases["plain"]["timesteps"][0]);
    let config: UNetConfig = parsed("unet3d");
    for config in [UNetConfig { norm_per_frame: true, ..config.clone() }, config] {
        let unet = unet(&folder, &config);
        tch::no_grad(|| compare(&unet, &io["plain.sample"], &t, &io["encoder_hidden_states"], None));
    }
}

/// A network over random tensors, the same every time.
fn over_random<N>(seed: u64, build: impl Fn(&Source) -> N) -> N {
    let fresh = Source::fresh(Device::Cpu);
    build(&fresh);
    let source = Source::loaded("random", tiny::random(&fresh, seed), Device::Cpu, Kind::Float);
    build(&source.packed(Some(Kind::Float)))
}

/// With a reference and poses, in small networks that need no files.
#[test]
fn one_step_is_the_windows_under_a_reference_and_poses() {
    let dir = tempfile::tempdir().unwrap();
    let networks = Tiny::new(dir.path()).manifest.networks.clone();
    let config: UNetConfig = toml::Value::Table(networks.unet).try_into().unwrap();
    let controlnet = toml::Value::Table(networks.controlnet).try_into().unwrap();
    let t = Tensor::from_slice(&[501i64]);
    // Values of a fixed pattern, none of them large.
    let filled = |size: &[i64]| {
        let count: i64 = size.iter().product();
        (Tensor::arange(count, (Kind::Float, Device::Cpu)) * 0.7).sin().view(size)
    };
    let (sample, text) = (filled(&[1, 4, 4, 8, 16]), filled(&[1, 3, 12]));
    tch::no_grad(|| {
        let poses = over_random(2, |source| ControlNet::new(&source.root(), &controlnet).unwrap());
        let frames = sample.squeeze_dim(0).transpose(0, 1).contiguous();
        let embedded = poses.embed_condition(&filled(&[4, 3, 16, 32])).unwrap();
        let residuals = poses.forward(&frames, &t, &text, &embedded, 1.0).unwrap();
        let build = |source: &Source| AppearanceEncoder::new(&source.root(), &config, Fusion::Midup).unwrap();
        let bank = over_random(3, build).forward(&filled(&[1, 4, 8, 16]), &t, &text).unwrap();
        for norm_per_frame in [true, false] {
            let config = UNetConfig { norm_per_frame, ..config.clone() };
            let unet = over_random(1, |source| UNet::new(&source.root(), &config).unwrap());
            compare(&unet, &sample, &t, &text, Some((&bank, &residuals)));
            compare(&unet, &sample, &t, &text, None);
        }
    });
}

#[test]
fn another_networks_context_is_refused() {
    let Some(folder) = goldens() else { return };
    let io = tensors(&folder.join("unet3d_io.safetensors"));
    let (sample, text) = (&io["plain.sample"], &io["encoder_hidden_states"]);
    let (t, config): (_, UNetConfig) = (Tensor::from_slice(&[501i64]), parsed("unet3d"));
    let unet = unet(&folder, &config);
    tch::no_grad(|| {
        let run = |sample: &Tensor, memory: Memory| {
            let made = unet.forward_after(sample, &t, text, None, None, Some(&memory));
            made.and_then(|_| memory.into_states(sample.size()[2]))
        };
        let states = run(sample, Memory::after([])).unwrap();
        // Latents of another size, and a window longer than the position table.
        let small = sample.narrow(3, 0, sample.size()[3] / 2);
        assert!(matches!(run(&small, Memory::after([&states])), Err(ModelError::Input(_))));
        let most = config.max_frames().unwrap();
        let many = std::iter::repeat_n(&states, (most / states.len() + 1) as usize);
        assert!(matches!(run(sample, Memory::after(many)), Err(ModelError::Input(_))));
    });
}

fn picture(seed: u32) -> Frame {
    let data: Vec<u8> = (0..32 * 16 * 3).map(|i| ((i * 7 + seed * 31) % 256) as u8).collect();
    Frame::new(32, 16, data).unwrap()
}

fn generator(dir: &tempfile::TempDir, settings: Settings) -> LcmGenerator {
    LcmGenerator::new(&ModelDir::load(dir.path()).unwrap(), settings, Placement::default()).unwrap()
}

fn cached(dir: &tempfile::TempDir, context_frames: usize) -> Settings {
    let settings = Settings::of(&ModelDir::load(dir.path()).unwrap());
    Settings { context_mode: ContextMode::Cache, context_frames, ..settings }
}

fn animate(generator: &mut LcmGenerator, poses: impl IntoIterator<Item = u32>) -> Vec<Frame> {
    poses.into_iter().map(|seed| generator.generate(&picture(seed), 0).unwrap()).collect()
}

#[test]
fn the_ring_wraps_and_holds_no_more_than_its_frames() {
    let dir = tempfile::tempdir().unwrap();
    Tiny::new(dir.path());
    for context_frames in [0, 1, 2, 5, 23] {
        let mut generator = generator(&dir, cached(&dir, context_frames));
        generator.set_reference(&picture(99)).unwrap();
        let mut bytes = vec![];
        for seed in 0..context_frames as u32 + 3 {
            animate(&mut generator, [seed]);
            bytes.push(generator.context_bytes());
        }
        let full = bytes[context_frames.saturating_sub(1)];
        assert!(bytes[context_frames..].iter().all(|&b| b == full || context_frames == 0), "{bytes:?}");
        assert_eq!(full == 0, context_frames == 0);
        // A key frame depends on its place in the sequence, if there is any context.
        let again = animate(&mut generator, [7, 7]);
        assert_eq!(again[0] == again[1], context_frames == 0);
    }
    let many = Settings { context_frames: 24, ..cached(&dir, 0) };
    assert!(generator(&dir, cached(&dir, 0)).set(many).is_err(), "the position table has 24 places");
}

/// A full ring gives up its oldest frame for the newest: it is then as one that had room and was cut to the newest.
#[test]
fn the_oldest_frame_is_the_one_replaced() {
    let dir = tempfile::tempdir().unwrap();
    Tiny::new(dir.path());
    for frames in [1, 3] {
        // Fills the ring, lets `newest` come with room for `room` frames, cuts it to `kept`, and makes one more.
        let next = |newest: u32, room: usize, kept: usize| {
            let mut generator = generator(&dir, cached(&dir, frames));
            generator.set_reference(&picture(99)).unwrap();
            animate(&mut generator, 0..frames as u32);
            generator.set(cached(&dir, room)).unwrap();
            animate(&mut generator, [newest]);
            generator.set(cached(&dir, kept)).unwrap();
            animate(&mut generator, [8])
        };
        let wrapped = next(30, frames, frames);
        assert_eq!(wrapped, next(30, frames + 1, frames), "{frames}: what is left are the newest, in order");
        assert_ne!(wrapped, next(30, frames + 1, frames + 1), "{frames}: the oldest is seen no more");
        assert_ne!(wrapped, next(31, frames, frames), "{frames}: the newest is");
    }
}

/// As after a start: with the new setting from the beginning.
#[test]
fn changes_leave_the_ring_consistent() {
    let dir = tempfile::tempdir().unwrap();
    Tiny::new(dir.path());
    let start = cached(&dir, 2);
    let fresh = |settings: Settings, reference: u32| {
        let mut generator = generator(&dir, settings);
        generator.set_reference(&picture(reference)).unwrap();
        animate(&mut generator, 0..4)
    };
    let mut generator = generator(&dir, start.clone());
    generator.set_reference(&picture(99)).unwrap();
    let first = animate(&mut generator, 0..4);
    assert_eq!(fresh(start.clone(), 99), first, "the same every time");
    generator.reset();
    assert_eq!(animate(&mut generator, 0..4), first, "a stream restarts");
    generator.set_reference(&picture(5)).unwrap();
    assert_eq!(animate(&mut generator, 0..4), fresh(start.clone(), 5), "a new reference");
    generator.set_reference(&picture(99)).unwrap();
    animate(&mut generator, 0..2);
    for changed in [
        Settings { seed: 4, ..start.clone() },
        Settings { steps: 3, ..start.clone() },
        Settings { guidance_scale: 2.0, ..start.clone() },
        Settings { context_mode: ContextMode::Recompute, ..start.clone() },
        start.clone(),
    ] {
        generator.set(changed.clone()).unwrap();
        assert_eq!(animate(&mut generator, 0..4), fresh(changed.clone(), 99), "{changed:?}");
    }
    // A longer or shorter context goes on from what is there.
    generator.set(Settings { context_frames: 1, ..start.clone() }).unwrap();
    let shorter = generator.context_bytes();
    animate(&mut generator, 0..4);
    assert_eq!(generator.context_bytes(), shorter);
    generator.set(Settings { context_frames: 4, ..start }).unwrap();
    animate(&mut generator, 0..4);
    assert_eq!(generator.context_bytes(), 4 * shorter);
}

/// Key frames are finished on other threads, later ones first, and the generator has changed or is gone by then.
#[test]
fn the_next_may_begin_before_the_last_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    Tiny::new(dir.path());
    for settings in [
        cached(&dir, 2),
        Settings { context_mode: ContextMode::Recompute, ..cached(&dir, 2) },
        cached(&dir, 0),
    ] {
        let other = Settings { seed: 9, steps: 1, ..settings.clone() };
        let start = || {
            let mut generator = generator(&dir, settings.clone());
            generator.set_reference(&picture(99)).unwrap();
            generator
        };
        let mut sequential = start();
        let mut made = animate(&mut sequential, 0..4);
        sequential.reset();
        made.extend(animate(&mut sequential, 4..6));
        sequential.set(other.clone()).unwrap();
        made.extend(animate(&mut sequential, 6..8));
        sequential.set_reference(&picture(5)).unwrap();
        made.extend(animate(&mut sequential, 8..10));

        let mut overlapped = start();
        let begin = |poses: std::ops::Range<u32>, generator: &mut LcmGenerator| {
            poses.map(|seed| generator.begin(&picture(seed), 0).unwrap()).collect::<Vec<_>>()
        };
        let mut unfinished = begin(0..4, &mut overlapped);
        overlapped.reset();
        unfinished.extend(begin(4..6, &mut overlapped));
        overlapped.set(other).unwrap();
        unfinished.extend(begin(6..8, &mut overlapped));
        overlapped.set_reference(&picture(5)).unwrap();
        // From here on one is finished while the next is begun.
        let finish = |half: Unfinished| {
            let run = move || half.finish().unwrap();
            std::thread::Builder::new().name("finish".into()).spawn(run).unwrap()
        };
        let mut running: Vec<_> = unfinished.into_iter().rev().map(finish).collect();
        running.reverse();
        for seed in 8..10 {
            running.push(finish(overlapped.begin(&picture(seed), 0).unwrap()));
        }
        drop(overlapped);
        let finished: Vec<Frame> = running.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(finished == made, "{settings:?}");
    }
}

/// Where only one frame is in the context both modes see the same, so nothing but arithmetic differs.
#[test]
fn whole_sequences_begin_alike_in_both_modes() {
    let dir = tempfile::tempdir().unwrap();
    Tiny::new(dir.path());
    let run = |context_mode| {
        let mut generator = generator(&dir, Settings { context_mode, ..cached(&dir, 2) });
        generator.set_reference(&picture(99)).unwrap();
        animate(&mut generator, 0..3)
    };
    let (cache, recompute) = (run(ContextMode::Cache), run(ContextMode::Recompute));
    assert_eq!(cache[0], recompute[0]);
    assert_ne!(cache[2], recompute[2], "in a window earlier frames see later ones");
}

#[test]
fn states_take_the_room_that_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let mut tiny = Tiny::new(dir.path());
    tiny.manifest.networks.unet.insert("norm_per_frame".into(), true.into());
    tiny.write();
    let mut generator = generator(&dir, cached(&dir, 1));
    generator.set_reference(&picture(99)).unwrap();
    animate(&mut generator, [0]);
    // Latents 8×16 and 4×8 in two levels of 32 channels: one motion module down and two up at each level,
    // two attentions in a module, keys and values, two steps, four bytes.
    let values = [8 * 16, 4 * 8].map(|pixels| pixels * 32 * 3 * 2 * 2 * 2 * 4).iter().sum::<usize>();
    let kept = (4 + 32) * 8 * 16 * 4;
    assert_eq!(generator.context_bytes(), values + kept);
}
