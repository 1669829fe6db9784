//! Stage 1 on the real clips, where they and ffmpeg are at hand.

mod common;

use keyframed_engine::{
    Decision, Frame, Labels, Palette, SECOND, SelectConfig, Selector, Thumbnail,
    pose::{LABELS, NOT_DENSEPOSE, off_palette_share},
};

const CLIPS: [&str; 3] = ["dancing2", "demo4", "running"];

fn clips() -> Option<Vec<(&'static str, Vec<Frame>)>> {
    let folder = common::shared()?;
    if !common::ffmpeg_exists() {
        return None;
    }
    let clip = |name| (name, common::decode(&folder.join("driving").join(format!("{name}.mp4"))));
    Some(CLIPS.map(clip).into())
}

/// Share of frames that become key poses.
fn key_ratio(clip: &[Frame], config: SelectConfig) -> f64 {
    let mut selector = Selector::new(config).unwrap();
    for (i, frame) in (0..).zip(clip) {
        selector.push(frame, i * SECOND / 25);
    }
    selector.finish();
    selector.stats().key_ratio()
}

/// The design's figures. Its own measurement scaled the pictures otherwise, which is worth up to two frames a clip.
#[test]
fn lambda_keeps_the_shares_of_frames_that_it_should() {
    let Some(clips) = clips() else { return };
    for (lambda, low, high) in [(0.005, 0.54, 0.98), (0.01, 0.30, 0.55), (0.02, 0.11, 0.34)] {
        for (name, clip) in &clips {
            let config = SelectConfig { lambda, window: 1000, ..Default::default() };
            let (ratio, slack) = (key_ratio(clip, config), 2.0 / clip.len() as f64);
            eprintln!("{name}: λ = {lambda} keeps {:.0} %", ratio * 100.0);
            assert!((low - slack..=high + slack).contains(&ratio), "{name}: λ = {lambda} keeps {ratio}");
        }
    }
}

#[test]
fn the_recorded_distances_are_those_of_the_clips() {
    let Some(clips) = clips() else { return };
    for (table, (name, clip)) in common::Table::all().iter().zip(&clips) {
        assert_eq!((table.name, table.frames()), (*name, clip.len()));
        let thumbnails: Vec<Thumbnail> = clip.iter().map(Thumbnail::new).collect();
        for i in 1..clip.len() {
            let (got, want) = (thumbnails[i].mse(&thumbnails[i - 1]), table.mse(i, i - 1));
            // Decoders and converters may round otherwise.
            assert!((got - want).abs() < 1e-4 + want / 50.0, "{name}, frame {i}: {got}, recorded {want}");
        }
    }
}

#[test]
fn real_clips_are_densepose_and_have_few_false_labels() {
    let Some(clips) = clips() else { return };
    for (name, clip) in &clips {
        let share = clip.iter().map(off_palette_share).fold(0.0, f64::max);
        assert!(share < NOT_DENSEPOSE / 5.0, "{name}: {share} off the palette");
        for frame in clip.iter().step_by(20) {
            let labels = Labels::from_frame(frame);
            // A true part of these close-ups is thick somewhere; specks of a label that is nowhere else are false.
            let mut counts = [0usize; LABELS];
            labels.data().iter().for_each(|&l| counts[l as usize] += 1);
            let specks: usize = counts.iter().filter(|&&n| n < 60).sum();
            assert!(specks < 300, "{name}: {specks} pixels in specks, {counts:?}");
            // Reading the redrawn picture changes nothing more.
            assert_eq!(Labels::from_frame(&labels.colours(Palette::Viridis)), labels);
        }
    }
}

/// What the default `still_epsilon` is for: an encoder's own noise on a still picture generates nothing.
#[test]
fn a_still_clip_stays_still_through_an_encoder() {
    let Some(clips) = clips() else { return };
    let picture = tempfile::Builder::new().suffix(".ppm").tempfile().unwrap();
    let header = b"P6 512 512 255\n".as_slice();
    std::fs::write(picture.path(), [header, clips[0].1[0].data()].concat()).unwrap();
    let video = tempfile::Builder::new().suffix(".mp4").tempfile().unwrap();
    let [from, to] = [&picture, &video].map(|f| f.path().to_str().unwrap().to_owned());
    let encode = "-frames:v 60 -r 25 -c:v libx264 -g 10 -pix_fmt yuv420p -y".split(' ');
    let args: Vec<&str> =
        ["-loop", "1", "-i", &from].into_iter().chain(encode).chain([to.as_str()]).collect();
    common::ffmpeg(&args);
    let still = common::decode(video.path());
    assert_eq!(still.len(), 60);
    let mut selector = Selector::new(SelectConfig { window: 12, ..Default::default() }).unwrap();
    let decisions: Vec<Decision> = (0..).zip(&still).map(|(i, f)| selector.push(f, i)).collect();
    selector.finish();
    let stats = selector.stats();
    assert_eq!(stats.keys(), 1, "{decisions:?}");
    assert_eq!(stats.held, 5);
}

#[test]
fn a_target_rate_is_reached_on_real_pictures() {
    let Some(clips) = clips() else { return };
    for (name, clip) in &clips {
        let thumbnails: Vec<Thumbnail> = clip.iter().map(Thumbnail::new).collect();
        let mut selector =
            Selector::new(SelectConfig { window: 12, target_key_rate: 5.0, ..Default::default() }).unwrap();
        let there_and_back = thumbnails.iter().chain(thumbnails.iter().rev());
        for (i, t) in (0..500).zip(there_and_back.cycle()) {
            selector.push_thumbnail(t.clone(), i * SECOND / 25);
        }
        let rate = selector.stats().keys() as f64 / 20.0;
        assert!((rate - 5.0).abs() < 0.75, "{name}: {rate} key poses a second");
    }
}
