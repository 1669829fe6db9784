//! The single checks, each a function from this machine to findings.

use std::{env, fs, path::Path};

use keyframed_models::{ModelDir, device};

use super::{Finding, camera, service};
use crate::{
    animate::{EMBEDDED_MODEL, avatars},
    cli::models,
};

/// Everything, most basic first.
pub fn all(thorough: bool) -> Vec<Finding> {
    let mut findings = vec![processor(), memory(), libtorch(), model(thorough)];
    findings.extend(gstreamer());
    findings.extend([camera::check(), pipewire(), obs(), service::unit(), service::socket()]);
    findings
}

/// The vector units that decide how fast networks run here.
fn processor() -> Finding {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or_default();
    let has = |name: &str| flags.split_whitespace().any(|flag| flag == name);
    let known = ["avx2", "avx512f", "avx512_bf16", "amx_bf16"];
    let present: Vec<_> = known.into_iter().filter(|name| has(name)).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let found = format!(
        "{threads} threads, {}",
        if present.is_empty() { "no AVX2".into() } else { present.join(" ") }
    );
    if has("avx2") {
        Finding::ok("processor", found)
    } else {
        Finding::without(
            "processor",
            found,
            "networks run several times slower without AVX2; use another machine if you can",
        )
    }
}

/// The embedded model needs about 1 GiB.
fn memory() -> Finding {
    const NEEDED_KIB: u64 = 1536 * 1024;
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let available = available.and_then(|text| text.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    match available {
        Some(kib) if kib < NEEDED_KIB => Finding::without(
            "memory",
            format!("{} MiB available", kib / 1024),
            "close other programs: 1.5 GiB should be free",
        ),
        Some(kib) => Finding::ok("memory", format!("{} MiB available", kib / 1024)),
        None => Finding::without("memory", "the kernel does not tell", "make sure that 1.5 GiB are free"),
    }
}

/// The program would not have started without libtorch; what matters is where networks can run.
fn libtorch() -> Finding {
    let what = "libtorch";
    match device::cuda_devices() {
        0 => Finding::ok(what, format!("on the processor, {} threads", tch::get_num_threads())),
        n => Finding::ok(what, format!("{n} CUDA device(s) (--device cuda)")),
    }
}

/// The embedded model: there, complete, and if `thorough` undamaged.
fn model(thorough: bool) -> Finding {
    let what = "embedded model";
    let remedy =
        "restore models/mini from the release or the repository (KEYFRAMED_MODELS names other folders)";
    let model = match ModelDir::find(EMBEDDED_MODEL) {
        Ok(model) => model,
        Err(error) => return Finding::missing(what, error.to_string(), remedy),
    };
    let problems = if thorough { models::problems(&model) } else { Vec::new() };
    let avatars = avatars(&model);
    match problems.first() {
        Some(problem) => Finding::missing(what, problem.as_str(), remedy),
        None if avatars.is_empty() => Finding::without(what, "no avatars beside it", remedy),
        None => Finding::ok(what, format!("{}, avatars {}", model.dir().display(), avatars.join(", "))),
    }
}

/// Elements by what they are for, and the Debian package that brings them.
struct Need {
    what: &'static str,
    /// One of these is enough.
    any_of: &'static [&'static str],
    package: &'static str,
    required: bool,
}

const fn need(
    what: &'static str,
    any_of: &'static [&'static str],
    package: &'static str,
    required: bool,
) -> Need {
    Need { what, any_of, package, required }
}

const NEEDS: [Need; 17] = [
    need("reading files", &["decodebin"], "gstreamer1.0-plugins-base", true),
    need("converting video", &["videoconvert"], "gstreamer1.0-plugins-base", true),
    need("scaling video", &["videoscale"], "gstreamer1.0-plugins-base", true),
    need("reading MP4", &["qtdemux"], "gstreamer1.0-plugins-good", true),
    need("writing MP4", &["mp4mux"], "gstreamer1.0-plugins-good", true),
    need("parsing H.264", &["h264parse"], "gstreamer1.0-plugins-bad", true),
    need("decoding H.264", &["avdec_h264", "openh264dec", "vah264dec"], "gstreamer1.0-libav", true),
    need("encoding video", &["x264enc", "openh264enc", "avenc_mpeg4"], "gstreamer1.0-plugins-ugly", true),
    need("streaming MPEG-TS", &["mpegtsmux"], "gstreamer1.0-plugins-bad", false),
    need("streaming over UDP", &["udpsink"], "gstreamer1.0-plugins-good", false),
    need("streaming over SRT", &["srtsink"], "gstreamer1.0-plugins-bad", false),
    need("streaming over RTMP", &["rtmp2sink", "rtmpsink"], "gstreamer1.0-plugins-bad", false),
    need("cameras and loopback cameras", &["v4l2sink"], "gstreamer1.0-plugins-good", false),
    need("publishing over RTSP", &["rtspclientsink"], "gstreamer1.0-rtsp", false),
    need("shared memory", &["shmsink"], "gstreamer1.0-plugins-bad", false),
    need("a window", &["glimagesink", "xvimagesink", "ximagesink", "waylandsink"], "gstreamer1.0-x", false),
    need("PipeWire video", &["pipewiresink"], "gstreamer1.0-pipewire", false),
];

fn gstreamer() -> Vec<Finding> {
    if let Err(error) = crate::cli::init_gstreamer() {
        let remedy = "install GStreamer 1.22 or newer: script/bootstrap does";
        return vec![Finding::missing("GStreamer", format!("{error:#}"), remedy)];
    }
    let (major, minor, micro, _) = gst::version();
    let version = format!("{major}.{minor}.{micro}");
    let mut findings = vec![if (major, minor) >= (1, 22) {
        Finding::ok("GStreamer", version)
    } else {
        Finding::missing(
            "GStreamer",
            version,
            "1.22 or newer is needed: Debian 12, Ubuntu 24.04 or later have it",
        )
    }];
    findings.extend(NEEDS.iter().map(|need| {
        let found = need.any_of.iter().find(|name| gst::ElementFactory::find(name).is_some());
        let remedy = || format!("apt-get install {}", need.package);
        match found {
            Some(name) => Finding::ok(need.what, *name),
            None if need.required => {
                Finding::missing(need.what, format!("no {}", need.any_of.join(", ")), remedy())
            }
            None => Finding::without(need.what, format!("no {}", need.any_of.join(", ")), remedy()),
        }
    }));
    findings
}

/// A running PipeWire takes pictures as a camera without any kernel module.
fn pipewire() -> Finding {
    let what = "PipeWire";
    let socket = env::var_os("XDG_RUNTIME_DIR").map(|dir| Path::new(&dir).join("pipewire-0"));
    match socket.filter(|socket| socket.exists()) {
        Some(socket) => Finding::ok(what, socket.display().to_string()),
        None => Finding::without(
            what,
            "not running for this user",
            "log into a desktop session, or start pipewire and wireplumber",
        ),
    }
}

fn obs() -> Finding {
    let found = env::var_os("PATH")
        .and_then(|path| env::split_paths(&path).map(|dir| dir.join("obs")).find(|p| p.is_file()));
    match found {
        Some(path) => Finding::ok("OBS Studio", path.display().to_string()),
        None => Finding::without(
            "OBS Studio",
            "not installed here",
            "apt-get install obs-studio, or use one on another machine",
        ),
    }
}
