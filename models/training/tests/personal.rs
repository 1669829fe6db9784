//! `keyframed-train personal` on a rendered pair of videos, encoded as users' ones are.

use std::path::Path;

use gst::prelude::*;
use keyframed_engine::pose::{Labels, Palette};
use keyframed_models::checkpoint::{ModelDir, Role};
use keyframed_train::{
    personal::{self, Plan},
    synth::{Action, Camera, Framing, Motion, Person, Rig, render},
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Encodes RGB frames of `size`×`size`.
fn encode(frames: &[Vec<u8>], size: usize, rate: i32, to: &Path) {
    gst::init().unwrap();
    let launch = format!(
        "appsrc name=in format=time caps=video/x-raw,format=RGB,width={size},height={size},framerate={rate}/1 ! \
         videoconvert ! x264enc tune=zerolatency ! mp4mux ! filesink location={}",
        to.display()
    );
    let pipeline = gst::parse::launch(&launch).unwrap().downcast::<gst::Pipeline>().unwrap();
    let source = pipeline.by_name("in").unwrap().downcast::<gst_app::AppSrc>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    for (i, frame) in frames.iter().enumerate() {
        let mut buffer = gst::Buffer::from_slice(frame.clone());
        let at = |i: usize| gst::ClockTime::from_nseconds(i as u64 * 1_000_000_000 / rate as u64);
        let buffer_mut = buffer.get_mut().unwrap();
        buffer_mut.set_pts(at(i));
        buffer_mut.set_duration(at(i + 1) - at(i));
        source.push_buffer(buffer).unwrap();
    }
    source.end_of_stream().unwrap();
    let bus = pipeline.bus().unwrap();
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = bus.timed_pop_filtered(gst::ClockTime::from_seconds(60), &kinds).unwrap();
    assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
    pipeline.set_state(gst::State::Null).unwrap();
}

/// Seconds of a walk and a dance, at 24 pictures a second; poses at 12, half as large.
fn pair(rig: &Rig, seconds: usize, folder: &Path) -> Plan {
    let mut rng = ChaCha8Rng::seed_from_u64(0x0117);
    let (person, camera) = (Person::random(&mut rng), Camera::reference(Framing::Full, &mut rng));
    let motion = Motion::new(Action::Dance, 7);
    let (mut pictures, mut poses) = (Vec::new(), Vec::new());
    for i in 0..24 * seconds {
        let pose = motion.pose(i as f32 / 24.0);
        pictures.push(render(rig, &person, 3, &pose, &camera, 320).rgb);
        if i % 2 == 0 {
            let labels = render(rig, &person, 3, &pose, &camera, 160).labels;
            poses.push(Labels::new(160, 160, labels).unwrap().colours(Palette::Viridis).data().to_vec());
        }
    }
    let (rgb, densepose) = (folder.join("me.mp4"), folder.join("me_dp.mp4"));
    encode(&pictures, 320, 24, &rgb);
    encode(&poses, 160, 12, &densepose);
    Plan { rgb, densepose, out: folder.join("me"), name: "me".into(), minutes: 0.2, seed: 1 }
}

#[test]
fn a_minute_of_footage_makes_a_model_that_loads() {
    let Some(rig) = Rig::default_path().filter(|p| p.exists()).map(|p| Rig::load(&p).unwrap()) else {
        eprintln!("skipped: KEYFRAMED_RIG names no file; models/training/synth/export_rig.py makes one");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let plan = pair(&rig, 8, folder.path());
    let mini = ModelDir::load(Path::new(env!("CARGO_MANIFEST_DIR")).join("../mini")).unwrap();
    let report = personal::run(&mini, &plan).unwrap();
    // 96 poses, the last fifth of which is held out.
    assert_eq!((report.trained_on, report.judged), (77, 19));
    assert!(report.after.psnr > report.before.psnr, "{report}");
    let made = ModelDir::load(&plan.out).unwrap();
    assert_eq!(made.manifest().name, "me");
    assert!(made.verify(|_| ()).is_empty() && made.has(Role::Film));
    assert!(plan.out.join("avatars/me.png").exists() && report.sheet.exists());
    let files = std::fs::read_dir(&plan.out).unwrap().count();
    assert!(files < 12, "working files are gone");

    let swapped = Plan {
        rgb: plan.densepose.clone(),
        densepose: plan.rgb.clone(),
        out: folder.path().join("x"),
        ..plan
    };
    let said = personal::run(&mini, &swapped).unwrap_err().to_string();
    assert!(said.contains("does not look like DensePose"), "{said}");
}
