//! Full-size MagicAnimate from the files as they are published, with random weights in them: written, imported, verified,
//! loaded, and one key frame made, with the time and the most memory of each. Checks that a machine can do it before
//! anything is downloaded.
//!
//! `cargo run --release -p keyframed-models --example full_size -- DIR [--device D] [--dtype T] [--size N]
//! [--film FILE] [--taesd PATH]`
//!
//! DIR gets `published/` and `model/`, 13 GB in half precision; a second run finds them there. On a CPU pictures have
//! 256x256 pixels, on a GPU 512x512, unless `--size` says otherwise. FILM's file is imported instead of a random one,
//! TAESD instead of the autoencoder.

#![allow(clippy::print_stdout, reason = "its output is what it measures")]

mod archive;
mod published;

use keyframed_engine::{Frame, KeyframeGenerator};
use keyframed_models::{
    DeviceChoice, DtypeChoice, LcmGenerator, ModelDir, Placement, Settings,
    bench::{self, Costs, Way},
    checkpoint::{ImageSize, import},
};
use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};
use tch::{Device, Kind};

type Failure = Box<dyn Error>;

const USAGE: &str = "usage: full_size DIR [--device D] [--dtype T] [--size N] [--film FILE] [--taesd PATH]";

struct Options {
    dir: PathBuf,
    device: DeviceChoice,
    dtype: DtypeChoice,
    side: Option<u32>,
    film: Option<PathBuf>,
    taesd: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("full_size: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("full_size: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options, Failure> {
    let mut all = Options {
        dir: PathBuf::new(),
        device: DeviceChoice::Auto,
        dtype: DtypeChoice::Auto,
        side: None,
        film: None,
        taesd: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--device" => all.device = value()?.parse()?,
            "--dtype" => all.dtype = value()?.parse()?,
            "--size" => all.side = Some(value()?.parse()?),
            "--film" => all.film = Some(value()?.into()),
            "--taesd" => all.taesd = Some(value()?.into()),
            other if other.starts_with('-') || all.dir != Path::new("") => {
                return Err(format!("unknown argument {other}").into());
            }
            dir => all.dir = dir.into(),
        }
    }
    if all.dir == Path::new("") { Err("DIR is missing".into()) } else { Ok(all) }
}

fn run(options: &Options) -> Result<(), Failure> {
    let (from, to) = (options.dir.join("published"), options.dir.join("model"));
    let placement = Placement { device: options.device, dtype: options.dtype, threads: None };
    let device = placement.resolve(320)?.device;
    println!("{:<24} {:>10} {:>12}", "stage", "seconds", "peak MiB");
    if !from.join("done").exists() {
        stage("write published files", || published::write(&from, Kind::Half))?;
        fs::write(from.join("done"), "")?;
    }
    let mut parts = published::parts(&from, Kind::Half);
    let given = options.film.is_some() || options.taesd.is_some();
    parts.film = options.film.clone().or(parts.film);
    if options.taesd.is_some() {
        (parts.vae, parts.taesd) = (None, options.taesd.clone());
    }
    if given && to.exists() {
        fs::remove_dir_all(&to)?;
    }
    if !to.exists() {
        stage("import", || Ok(import(&parts, &to, |_| ())?))?;
    }
    let model = ModelDir::load(&to)?;
    stage("verify", || match model.verify(|_| ()).first() {
        Some(problem) => Err(problem.to_string().into()),
        None => Ok(()),
    })?;
    let side = options.side.unwrap_or(if device == Device::Cpu { 256 } else { 512 });
    let sized = tempfile::tempdir_in(&options.dir)?;
    let model = bench::resized(&model, ImageSize { width: side, height: side }, &sized.path().join("model"))?;
    key_frame(&model, placement)?;
    let costs =
        bench::measure(&model, &Settings::of(&model), |_| placement, Way::default(), Duration::from_secs(1))?;
    print(&costs);
    Ok(())
}

fn key_frame(model: &ModelDir, placement: Placement) -> Result<(), Failure> {
    let ImageSize { width, height } = model.manifest().image;
    let picture = |n: u32| {
        let value = |i: u32| (i.wrapping_mul(2_654_435_761).wrapping_add(n * 977) >> 24) as u8;
        Frame::new(width, height, (0..width * height * 3).map(value).collect::<Vec<u8>>())
    };
    let mut generator = stage("load", || Ok(LcmGenerator::new(model, Settings::of(model), placement)?))?;
    stage("reference", || Ok(generator.set_reference(&picture(0)?)?))?;
    let made = stage("key frame", || Ok(generator.generate(&picture(1)?, 0)?))?;
    let (low, high) = (made.data().iter().min(), made.data().iter().max());
    if low == high { Err("the key frame is one colour".into()) } else { Ok(()) }
}

/// Does it, and prints how long it took and the most memory that the process had meanwhile.
fn stage<T>(name: &str, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // What earlier stages freed goes back, and the kernel's record of the peak begins anew.
    // SAFETY: gives free memory back to the kernel; the allocator locks itself.
    unsafe { libc::malloc_trim(0) };
    let renewed = fs::write("/proc/self/clear_refs", "5").is_ok();
    let started = Instant::now();
    let made = work()?;
    let (seconds, peak) = (started.elapsed().as_secs_f64(), peak_mib());
    let peak = peak.filter(|_| renewed).map_or("?".to_owned(), |mib| mib.to_string());
    println!("{name:<24} {seconds:>10.1} {peak:>12}");
    Ok(made)
}

fn peak_mib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? / 1024)
}

fn print(costs: &Costs) {
    println!("\n{:<24} {:>10} {:>12}   {} on {} threads", "", "GFLOP", "ms", costs.dtype, costs.threads);
    let all = costs.networks.iter().chain([&costs.key_frame]).chain(&costs.in_betweens);
    for cost in all {
        println!("{:<24} {:>10.1} {:>12.1}", cost.name, cost.gflop, cost.median_ms);
    }
    if let Some(memory) = costs.device_memory {
        println!("{:<24} {memory:?}", "device memory");
    }
}
