//! H.264 for live viewers: no frame waits for a later one.

use keyframed_engine::SECOND;

use crate::{
    config::resolved::{Encoder, Video},
    media::element::{exists, filter, make_with},
};

/// From raw video to parsed H.264.
///
/// # Errors
/// If neither encoder is installed.
pub fn h264(encoder: Encoder, video: Video) -> anyhow::Result<Vec<gst::Element>> {
    // 4:2:0 is what players decode; left to itself x264 keeps RGB's 4:4:4. BT.709 is what they assume where a stream
    // does not say, and ours says it too.
    let caps = gst_video::VideoCapsBuilder::new()
        .format(gst_video::VideoFormat::I420)
        .field("colorimetry", "bt709")
        .build();
    // In front of every intra frame: who joins late needs it.
    let parser = make_with("h264parse", &[("config-interval", "-1")])?;
    Ok(vec![filter(&caps)?, element(encoder, video)?, parser])
}

fn element(encoder: Encoder, video: Video) -> anyhow::Result<gst::Element> {
    let interval = key_frames(encoder, video).to_string();
    let kbps = encoder.bitrate_kbps;
    if exists("x264enc") || !exists("openh264enc") {
        return make_with(
            "x264enc",
            &[
                ("tune", "zerolatency"),
                // What two cores do beside generating.
                ("speed-preset", "superfast"),
                ("bitrate", &kbps.to_string()),
                ("key-int-max", &interval),
                ("bframes", "0"),
            ],
        );
    }
    tracing::warn!(
        "x264enc is not installed, encoding with openh264enc (for x264: gstreamer1.0-plugins-ugly)"
    );
    make_with(
        "openh264enc",
        &[
            ("bitrate", &u64::from(kbps).saturating_mul(1000).min(i32::MAX as u64).to_string()),
            ("gop-size", &interval),
            ("complexity", "low"),
        ],
    )
}

/// Frames from one intra frame to the next.
fn key_frames(encoder: Encoder, video: Video) -> u64 {
    let nanos = u64::try_from(encoder.key_interval.as_nanos()).unwrap_or(SECOND);
    (nanos / video.rate.period().max(1)).clamp(1, 10_000)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use keyframed_engine::Rate;

    use super::*;

    #[test]
    fn the_interval_is_in_time() {
        let rate = Rate::new(25, 1).unwrap();
        let video = Video { width: 64, height: 64, rate };
        let encoder = |ms| Encoder { bitrate_kbps: 1000, key_interval: Duration::from_millis(ms) };
        assert_eq!([0, 1000, 2000, u64::MAX].map(|ms| key_frames(encoder(ms), video)), [1, 25, 50, 25]);
    }
}
