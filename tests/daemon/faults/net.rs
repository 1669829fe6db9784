//! A stream of poses over UDP, as it goes wrong on networks and at the other end.

use std::sync::atomic::AtomicI64;

use super::*;

/// Ticks a second of the timestamps in MPEG-TS.
const TICKS: i64 = 90_000;
const HOUR: i64 = 3600;

const SMALL: &str = "width=64,height=64,framerate=15/1";
const LARGE: &str = "width=320,height=180,framerate=30/1";

/// What is sent usually: H.264, 4:2:0.
const H264: &str = "videoconvert ! video/x-raw,format=I420 ! x264enc tune=zerolatency speed-preset=ultrafast \
                    key-int-max=15 ! h264parse config-interval=-1";
/// The same codec with colour in full, which other decoders' outputs and other parameter sets belong to.
const H264_444: &str = "videoconvert ! video/x-raw,format=Y444 ! x264enc tune=zerolatency speed-preset=ultrafast \
                        key-int-max=15 ! video/x-h264,profile=high-4:4:4 ! h264parse config-interval=-1";
const H265: &str = "videoconvert ! video/x-raw,format=I420 ! x265enc tune=zerolatency speed-preset=ultrafast \
                    key-int-max=15 ! h265parse config-interval=-1";
const MPEG4: &str = "videoconvert ! video/x-raw,format=I420 ! avenc_mpeg4 gop-size=15 bitrate=500000 ! \
                     mpeg4videoparse config-interval=1";

/// Somebody who sends.
struct Sender {
    pipeline: gst::Pipeline,
    /// How far its timestamps are moved, and the last one that went out: both in ticks.
    clock: Arc<[AtomicI64; 2]>,
}

impl Sender {
    fn start(port: u16, caps: &str, encoder: &str) -> Self {
        let line = format!(
            "denseposetestsrc is-live=true ! video/x-raw,format=RGB,{caps} ! {encoder} ! mpegtsmux alignment=7 ! \
             identity name=net ! udpsink host=127.0.0.1 port={port} sync=false"
        );
        let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
        let clock = Arc::<[AtomicI64; 2]>::default();
        let moved = clock.clone();
        // Behind the muxer, so that nothing of the sender's smooths the jump.
        let net = pipeline.by_name("net").unwrap().static_pad("src").unwrap();
        net.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let buffer = info.buffer_mut().unwrap().make_mut();
            let mut packets = buffer.map_writable().unwrap();
            for packet in packets.chunks_exact_mut(188) {
                if let Some(pts) = shift(packet, moved[0].load(Ordering::Relaxed)) {
                    moved[1].store(pts, Ordering::Relaxed);
                }
            }
            gst::PadProbeReturn::Ok
        });
        pipeline.set_state(gst::State::Playing).unwrap();
        Self { pipeline, clock }
    }

    fn lose(&self, share: f32) {
        self.pipeline.by_name("net").unwrap().set_property("drop-probability", share);
    }

    /// From now on all timestamps are those of this much later.
    fn set_clock(&self, seconds: i64) {
        self.clock[0].store(seconds * TICKS, Ordering::Relaxed);
    }

    /// What is tried is the daemon: nobody who sends nothing passes.
    #[track_caller]
    fn assert_sends(&self, name: &str) {
        let errors = self.pipeline.bus().unwrap().pop_filtered(&[gst::MessageType::Error]);
        assert!(errors.is_none() && self.sent() > 0, "{name}: the sender sends nothing: {errors:?}");
    }

    /// The last picture's timestamp as it was sent, in seconds.
    fn sent(&self) -> i64 {
        self.clock[1].load(Ordering::Relaxed) / TICKS
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// Moves all times in a packet of MPEG-TS by so many ticks, and returns the picture's new one if one begins here.
fn shift(packet: &mut [u8], by: i64) -> Option<i64> {
    assert_eq!(packet[0], 0x47, "not on the grid of packets");
    let (begins, fields) = (packet[1] & 0x40 != 0, packet[3] >> 4 & 3);
    let mut payload = 4;
    if fields & 2 != 0 {
        payload = 5 + usize::from(packet[4]);
        if packet[4] > 0 && packet[5] & 0x10 != 0 {
            // The clock's 33 bits, one in the fifth byte.
            let pcr = &mut packet[6..11];
            let old = pcr[..4].iter().fold(0, |bits, &byte| bits << 8 | i64::from(byte)) << 1
                | i64::from(pcr[4] >> 7);
            let new = wrapped(old + by);
            pcr[..4].copy_from_slice(&((new >> 1) as u32).to_be_bytes());
            pcr[4] = pcr[4] & 0x7f | ((new & 1) << 7) as u8;
        }
    }
    if !begins || fields & 1 == 0 || packet[payload..payload + 3] != [0, 0, 1] {
        return None;
    }
    let flags = packet[payload + 7];
    let mut at = |at: usize| {
        let time = &mut packet[payload + at..payload + at + 5];
        let byte = |n: usize| i64::from(time[n]);
        let old =
            (byte(0) & 0xe) << 29 | byte(1) << 22 | (byte(2) & 0xfe) << 14 | byte(3) << 7 | byte(4) >> 1;
        let new = wrapped(old + by);
        time[0] = time[0] & 0xf1 | (new >> 29 & 0xe) as u8;
        time[1] = (new >> 22) as u8;
        time[2] = (new >> 14 & 0xfe) as u8 | 1;
        time[3] = (new >> 7) as u8;
        time[4] = (new << 1 & 0xfe) as u8 | 1;
        new
    };
    if flags & 0x40 != 0 {
        at(14);
    }
    (flags & 0x80 != 0).then(|| at(9))
}

fn wrapped(ticks: i64) -> i64 {
    ticks & ((1 << 33) - 1)
}

/// The one that sends now: an older one ends before the next begins.
struct Now(u16, Option<Sender>);

impl Now {
    fn change(&mut self, caps: &str, encoder: &str) {
        self.1 = None;
        self.1 = Some(Sender::start(self.0, caps, encoder));
    }

    fn get(&self) -> &Sender {
        self.1.as_ref().unwrap()
    }
}

/// A daemon that listens, and who sends to it.
fn listening() -> (OnAir, Now) {
    let (bench, port) = (bench(), free_udp_port());
    let source = format!(
        "[sources.net]\nkind = \"udp\"\nport = {port}\ntimeout_ms = 2000\nretry_min_ms = 100\nretry_max_ms = 500\n\n\
         [pipelines.net]\nsource = \"net\"\n\n"
    );
    let head = base(&bench, "cpu");
    let sender = Now(port, Some(Sender::start(port, SMALL, H264)));
    (OnAir::start(bench, &head, &source), sender)
}

/// It is still animated when all that was sent before must be through.
fn stays(on_air: &OnAir) {
    more_frames(&on_air.daemon, "viewer", 3 * RATE);
    on_air.animated();
}

#[test]
fn a_stream_that_goes_wrong() {
    let _alone = alone();
    let (on_air, mut sender) = listening();
    let wait = |seconds| more_frames(&on_air.daemon, "viewer", seconds * RATE);
    on_air.survives("a tenth of the packets lost", || {
        sender.get().lose(0.1);
        wait(5);
        sender.get().lose(0.0);
    });
    on_air.survives("the sender paused", || {
        sender.get().pipeline.set_state(gst::State::Paused).unwrap();
        wait(4);
        sender.get().pipeline.set_state(gst::State::Playing).unwrap();
    });
    on_air.survives("random bytes in its place", || {
        sender.1 = None;
        let (socket, mut seed) = (UdpSocket::bind("127.0.0.1:0").unwrap(), 1u64);
        for _ in 0..2000 {
            let bytes: Vec<u8> = std::iter::repeat_with(|| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (seed >> 56) as u8
            })
            .take(1316)
            .collect();
            let _ = socket.send_to(&bytes, ("127.0.0.1", sender.0));
            thread::sleep(Duration::from_millis(1));
        }
        sender.change(SMALL, H264);
    });
    on_air.survives("gone, and there again", || {
        sender.1 = None;
        wait(4);
        sender.change(SMALL, H264);
    });
    on_air.end();
}

#[test]
fn a_stream_of_another_format() {
    let _alone = alone();
    let (on_air, mut sender) = listening();
    let formats = [
        ("another size and rate", LARGE, H264),
        ("H.264 4:4:4", SMALL, H264_444),
        ("H.265", SMALL, H265),
        ("MPEG-4 part 2", LARGE, MPEG4),
        ("H.264 4:2:0 again", SMALL, H264),
    ];
    for (name, caps, encoder) in formats {
        on_air.survives(name, || {
            sender.change(caps, encoder);
        });
        stays(&on_air);
        sender.get().assert_sends(name);
    }
    on_air.end();
}

#[test]
fn a_stream_whose_timestamps_jump() {
    let _alone = alone();
    let (on_air, sender) = listening();
    for (name, clock, jump) in
        [("an hour ahead", HOUR, HOUR), ("and an hour back", 0, -HOUR), ("another hour back", -HOUR, -HOUR)]
    {
        let before = sender.get().sent();
        on_air.survives(&format!("its timestamps jump {name}"), || {
            sender.get().set_clock(clock);
        });
        stays(&on_air);
        let jumped = sender.get().sent() - before;
        assert!((jumped - jump).abs() < 60, "{name}: the stream as sent jumps by {jumped} s");
    }
    on_air.end();
}

/// Somebody who calls a listener; what is sent is of any container.
struct Caller(gst::Pipeline);

impl Caller {
    fn start(port: u16, encoder: &str) -> Self {
        let line = format!(
            "denseposetestsrc is-live=true ! video/x-raw,format=RGB,{SMALL} ! videoconvert ! {encoder} ! \
             srtsink uri=srt://127.0.0.1:{port}?mode=caller latency=60 sync=false"
        );
        let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        Self(pipeline)
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let _ = self.0.set_state(gst::State::Null);
    }
}

/// Codecs that MPEG-TS does not take.
#[test]
fn a_caller_of_another_format() {
    let _alone = alone();
    let (bench, port) = (bench(), free_udp_port());
    let source = format!(
        "[sources.net]\nkind = \"srt-listener\"\nport = {port}\nlatency_ms = 60\ntimeout_ms = 2000\n\
         retry_min_ms = 100\nretry_max_ms = 500\n\n[pipelines.net]\nsource = \"net\"\n\n"
    );
    let head = base(&bench, "cpu");
    let h264 = format!("{H264} ! mpegtsmux alignment=7");
    let callers = [
        ("VP8 in Matroska", "vp8enc deadline=1 keyframe-max-dist=15 ! matroskamux streamable=true"),
        ("Motion JPEG 4:2:2 in Matroska", "video/x-raw,format=Y42B ! jpegenc ! matroskamux streamable=true"),
        ("H.264 in MPEG-TS again", h264.as_str()),
    ];
    let mut caller = Some(Caller::start(port, &h264));
    let on_air = OnAir::start(bench, &head, &source);
    for (name, encoder) in callers {
        on_air.survives(name, || {
            drop(caller.take());
            // It has heard of that: until it listens again nobody is taken.
            on_air.daemon.wait("lost source", |status| status["source"]["state"] == "lost");
            caller = Some(Caller::start(port, encoder));
        });
        stays(&on_air);
    }
    drop(caller);
    on_air.end();
}
