//! The steps of several key frames as one batch give what they give one after the other.

mod common;
mod tiny;

use common::assert_close;
use keyframed_engine::{Frame, KeyframeGenerator};
use keyframed_models::{
    LcmGenerator, ModelDir, PipelinedGenerator, Placement, ProjectedBank, Schedule, Settings, Stack,
    checkpoint::Role, generator::Sampling, scheduler,
};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;
use tiny::Tiny;

/// A model whose frames do not see each other.
fn uncoupled() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut tiny = Tiny::new(dir.path());
    tiny.manifest.networks.unet.insert("use_motion_module".into(), false.into());
    tiny.manifest.networks.unet.insert("norm_per_frame".into(), true.into());
    let spatial = ModelDir::load(dir.path()).unwrap().tensors(Role::Unet).unwrap();
    tiny.put(Role::Unet, spatial.into_iter().filter(|(name, _)| !name.contains("motion_modules")).collect());
    tiny.write();
    dir
}

fn coupled() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    Tiny::new(dir.path());
    dir
}

fn picture(seed: u32) -> Frame {
    let data: Vec<u8> = (0..32 * 16 * 3).map(|i| ((i * 7 + seed * 31) % 256) as u8).collect();
    Frame::new(32, 16, data).unwrap()
}

fn sequential(dir: &TempDir, settings: &Settings) -> LcmGenerator {
    LcmGenerator::new(&ModelDir::load(dir.path()).unwrap(), settings.clone(), Placement::default()).unwrap()
}

fn pipelined(dir: &TempDir, settings: &Settings) -> PipelinedGenerator {
    PipelinedGenerator::new(sequential(dir, settings)).unwrap()
}

fn settings(dir: &TempDir) -> Settings {
    Settings { steps: 4, context_frames: 0, ..Settings::of(&ModelDir::load(dir.path()).unwrap()) }
}

/// Nothing but the order of sums may differ: at most one level, which a value between two may round to.
#[track_caller]
fn assert_same(a: &Frame, b: &Frame) {
    let most = a.data().iter().zip(b.data()).map(|(&a, &b)| a.abs_diff(b)).max();
    assert!(most <= Some(1), "{most:?} levels");
}

/// Network by network, before anything is rounded to pictures.
#[test]
fn rows_at_different_steps_do_not_see_each_other() {
    for dir in [uncoupled(), coupled()] {
        let dir = ModelDir::load(dir.path()).unwrap();
        let place = Placement::default().resolve(0).unwrap();
        let _running = place.enter();
        let stack = Stack::load(&dir, 1.0, "", place).unwrap();
        let scheduler = scheduler::build(&dir.manifest().scheduler, 4).unwrap();
        let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        let reference = random(&[1, 4, 8, 16]);
        let bank = |&t: &i64| stack.unet.project(&stack.features(&reference, t).unwrap()).unwrap();
        let banks: Vec<ProjectedBank> = scheduler.timesteps().iter().map(bank).collect();
        let latents = random(&[4, 4, 1, 8, 16]);
        let embedded = stack.controlnet.embed_condition(&random(&[4, 3, 16, 32]).sigmoid()).unwrap();
        let all = ProjectedBank::joined(&banks.iter().collect::<Vec<_>>()).unwrap();
        let t = Tensor::from_slice(scheduler.timesteps());
        for guidance in [1.0, 3.0] {
            let together = stack.rows(&latents, &t, &embedded, &all, guidance).unwrap();
            for row in 0..4 {
                let sampling = Sampling {
                    stack: &stack,
                    scheduler: scheduler.as_ref(),
                    banks: &banks,
                    begun: None,
                    embedded: &embedded.narrow(0, row, 1),
                    windows: &[vec![0]],
                    guidance,
                    controlnet_scale: 1.0,
                };
                let own = latents.narrow(0, row, 1);
                let alone = sampling.join(&sampling.predict(&own, row as usize, None).unwrap());
                assert_close(&together.narrow(0, row, 1), &alone, 1e-4);
            }
        }
    }
}

#[test]
fn key_frames_are_the_sequential_ones_in_their_order() {
    for dir in [uncoupled(), coupled()] {
        for guidance_scale in [1.0, 2.0] {
            let settings = Settings { guidance_scale, ..settings(&dir) };
            let (mut one, mut many) = (sequential(&dir, &settings), pipelined(&dir, &settings));
            one.set_reference(&picture(99)).unwrap();
            many.set_reference(&picture(99)).unwrap();
            let wanted: Vec<Frame> = (0..7).map(|n| one.generate(&picture(n), 0).unwrap()).collect();
            assert_ne!(wanted[0], wanted[1]);
            let mut made = vec![];
            for n in 0..7u32 {
                let finished = many.push(&picture(n), u64::from(n) * 40).unwrap();
                // Four steps: the one of three calls before.
                assert_eq!(
                    finished.as_ref().map(|made| made.pts),
                    n.checked_sub(3).map(|n| u64::from(n) * 40)
                );
                made.extend(finished);
            }
            assert_eq!((made.len(), many.pending()), (4, 3));
            while let Some(finished) = many.finish().unwrap() {
                made.push(finished);
            }
            assert_eq!((made.len(), many.pending()), (7, 0));
            for (n, (made, wanted)) in made.iter().zip(&wanted).enumerate() {
                assert_eq!(made.pts, n as u64 * 40);
                assert_same(&made.frame, wanted);
            }
        }
    }
}

#[test]
fn a_pause_in_between_changes_nothing() {
    let dir = uncoupled();
    let mut one = sequential(&dir, &settings(&dir));
    one.set_reference(&picture(99)).unwrap();
    let mut many = pipelined(&dir, &settings(&dir));
    many.set_reference(&picture(99)).unwrap();
    // One alone, then one that is finished while the next has made a step only, so that steps are left out between.
    assert_eq!(many.push(&picture(0), 0).unwrap(), None);
    assert_same(&many.finish().unwrap().unwrap().frame, &one.generate(&picture(0), 0).unwrap());
    assert_eq!(many.finish().unwrap(), None);
    for n in 1..3 {
        assert_eq!(many.push(&picture(n), 0).unwrap(), None);
    }
    assert_same(&many.finish().unwrap().unwrap().frame, &one.generate(&picture(1), 0).unwrap());
    assert_same(&many.push(&picture(3), 0).unwrap().unwrap().frame, &one.generate(&picture(2), 0).unwrap());
    assert_same(&many.finish().unwrap().unwrap().frame, &one.generate(&picture(3), 0).unwrap());
    // A flush forgets.
    many.push(&picture(4), 0).unwrap();
    many.reset();
    assert_eq!((many.finish().unwrap(), many.pending()), (None, 0));
}

#[test]
fn what_does_not_go_together_is_refused() {
    let dir = coupled();
    let seeing = Settings { context_frames: 2, ..settings(&dir) };
    let refusal = PipelinedGenerator::new(sequential(&dir, &seeing)).err().unwrap().to_string();
    assert!(refusal.contains("context_frames to 0") && refusal.contains("sequential"), "{refusal}");
    let mut many = pipelined(&dir, &settings(&dir));
    assert!(many.push(&picture(0), 0).is_err(), "no reference yet");
    assert_eq!(many.pending(), 0);
    many.set_reference(&picture(99)).unwrap();
    assert!(many.set(seeing).is_err());
    many.push(&picture(0), 0).unwrap();
    let other = Settings { steps: 2, ..settings(&dir) };
    assert!(many.set(other.clone()).is_err() && many.set_reference(&picture(5)).is_err());
    while many.finish().unwrap().is_some() {}
    many.set(other.clone()).unwrap();
    many.set_reference(&picture(5)).unwrap();
    assert_eq!(many.push(&picture(1), 0).unwrap(), None);
    let made = many.push(&picture(2), 0).unwrap().unwrap();
    let mut one = sequential(&dir, &other);
    one.set_reference(&picture(5)).unwrap();
    assert_same(&made.frame, &one.generate(&picture(1), 0).unwrap());
    // Where no frame sees another, whatever the model's default says.
    let free = uncoupled();
    pipelined(&free, &Settings { context_frames: 2, ..settings(&free) });
}

#[test]
fn names_are_read_and_written() {
    for name in ["sequential", "pipelined"] {
        assert_eq!(name.parse::<Schedule>().unwrap().to_string(), name);
    }
    assert!("batched".parse::<Schedule>().unwrap_err().to_string().contains("sequential and pipelined"));
}

/// What a CUDA graph runs on: the pose and the context in buffers that stay.
#[test]
fn fixed_buffers_change_nothing() {
    let dir = coupled();
    for context_frames in [0, 2] {
        let start = Settings { context_frames, ..settings(&dir) };
        let run = |graphs: bool| {
            let mut generator = sequential(&dir, &start);
            generator.use_graphs(graphs);
            generator.set_reference(&picture(99)).unwrap();
            let animate = |generator: &mut LcmGenerator, poses: std::ops::Range<u32>| -> Vec<Frame> {
                poses.map(|n| generator.generate(&picture(n), 0).unwrap()).collect()
            };
            let mut made = animate(&mut generator, 0..4);
            generator.set(Settings { seed: 3, ..start.clone() }).unwrap();
            made.extend(animate(&mut generator, 6..9));
            generator.set_reference(&picture(5)).unwrap();
            made.extend(animate(&mut generator, 11..14));
            generator.reset();
            made.extend(animate(&mut generator, 16..18));
            generator.set(Settings { context_frames: 1, ..start.clone() }).unwrap();
            made.extend(animate(&mut generator, 20..23));
            assert!(!generator.replays(), "there is no graph on a processor");
            made
        };
        let (plain, buffered) = (run(false), run(true));
        assert!(plain == buffered);
    }
}
