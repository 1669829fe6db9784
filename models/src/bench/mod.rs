//! What a model costs on this machine: operations counted, time measured.

mod growth;
mod variant;

use crate::{
    checkpoint::{ModelDir, Role},
    device::{Place, Placement, Work},
    error::{ModelError, Result},
    generator::{FilmInterpolator, LcmGenerator, PipelinedGenerator, Schedule, Settings},
    kernels::{Activation, Packed},
    reference::ProjectedBank,
    stack::Stack,
    torch_cuda,
    torch_ext::operations,
    unet::UNetConfig,
};
use keyframed_engine::{Frame, Interpolator, KeyframeGenerator};
use std::time::{Duration, Instant};
use tch::{Cuda, Device, Kind, Tensor};

pub use growth::{Growth, Point, Ranges, growth};
pub use variant::{resized, with_ddim, with_random_motion};

/// One piece of work, done several times.
#[derive(Debug, Clone)]
pub struct Cost {
    /// What it is.
    pub name: &'static str,
    /// Additions and multiplications of its products, in 10⁹, counted in one run.
    pub gflop: f64,
    /// Half of the runs took at most so long, milliseconds.
    pub median_ms: f64,
    /// 95 of 100 took at most so long.
    pub p95_ms: f64,
    /// Runs.
    pub runs: usize,
}

impl Cost {
    /// 10⁹ operations a second in the median run.
    pub fn gflop_per_s(&self) -> f64 {
        self.gflop / self.median_ms * 1e3
    }
}

/// What [`measure`] found.
#[derive(Debug, Clone)]
pub struct Costs {
    /// The best that convolutions reach here, 10⁹ operations a second, in the number format of the networks.
    pub peak_gflop_per_s: f64,
    /// Networks of the generator, each once: of one denoising step, of a key frame, or of a reference.
    pub networks: Vec<Cost>,
    /// A key frame, from pose picture to picture.
    pub key_frame: Cost,
    /// Bytes of the context ring, full.
    pub context_bytes: usize,
    /// The first in-between of a pair of key frames, and each further one; empty without FILM.
    pub in_betweens: Vec<Cost>,
    /// Threads of one operation of the generator.
    pub threads: usize,
    /// What products are made in: `f32`, `bf16` or `f16`.
    pub dtype: &'static str,
    /// How key frames were made.
    pub way: Way,
    /// Whether they came from a CUDA graph in the end.
    pub replayed: bool,
    /// Most memory on the CUDA device, if there is one.
    pub device_memory: Option<torch_cuda::Memory>,
}

/// How key frames are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// The order of denoising steps.
    pub schedule: Schedule,
    /// Whether CUDA graphs may be used.
    pub graphs: bool,
}

impl Default for Way {
    fn default() -> Self {
        Self { schedule: Schedule::default(), graphs: true }
    }
}

/// Least and most runs of one piece of work.
const RUNS: (usize, usize) = (5, 200);

/// Loads `model` and times everything that makes a key frame and an in-between, each for about `each`, placed as
/// `placement` and made as `way` says.
///
/// # Errors
/// Whatever is wrong with the model, the settings or the device.
pub fn measure(
    model: &ModelDir,
    settings: &Settings,
    placement: impl Fn(Work) -> Placement,
    way: Way,
    each: Duration,
) -> Result<Costs> {
    let (beside, placement) = (placement(Work::InBetweens), placement(Work::KeyFrames));
    let config: UNetConfig = model.network("unet", &model.manifest().networks.unet)?;
    let place = placement.resolve(config.block_out_channels.iter().copied().min().unwrap_or(0))?;
    let timer = Timer { each, least: RUNS.0, device: place.device };
    let peak_gflop_per_s = convolution_peak(place, &timer);
    let networks = networks(model, settings, place, way, &timer)?;
    let KeyFrames { cost: key_frame, context_bytes, replayed } =
        key_frames(model, settings, place, way, &timer)?;
    let in_betweens = match model.has(Role::Film) {
        true => in_betweens(model, beside, &timer)?,
        false => vec![],
    };
    let dtype = match place.product_kind() {
        Kind::BFloat16 => "bf16",
        Kind::Half => "f16",
        _ => "f32",
    };
    let device_memory = match place.device {
        Device::Cuda(index) => torch_cuda::memory(index),
        _ => None,
    };
    let threads = place.threads();
    Ok(Costs {
        peak_gflop_per_s,
        networks,
        key_frame,
        context_bytes,
        in_betweens,
        threads,
        dtype,
        way,
        replayed,
        device_memory,
    })
}

#[derive(Clone, Copy)]
struct Timer {
    /// Runs go on for so long.
    each: Duration,
    /// And until there are so many.
    least: usize,
    device: Device,
}

impl Timer {
    fn once<T>(&self, work: &mut impl FnMut() -> Result<T>) -> Result<f64> {
        let started = Instant::now();
        work()?;
        if let Device::Cuda(index) = self.device {
            Cuda::synchronize(index as i64);
        }
        Ok(started.elapsed().as_secs_f64() * 1e3)
    }

    fn time<T>(&self, name: &'static str, mut work: impl FnMut() -> Result<T>) -> Result<Cost> {
        // The first run prepares what later ones reuse; the second is counted.
        self.once(&mut work)?;
        let (counted, costs) = operations(|| self.once(&mut work));
        counted?;
        let (started, mut times) = (Instant::now(), vec![]);
        while times.len() < self.least || (times.len() < RUNS.1 && started.elapsed() < self.each) {
            times.push(self.once(&mut work)?);
        }
        times.sort_by(f64::total_cmp);
        let rank = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1];
        let gflop = costs.iter().map(|cost| cost.flop).sum::<f64>() / 1e9;
        Ok(Cost { name, gflop, median_ms: rank(50), p95_ms: rank(95), runs: times.len() })
    }
}

/// The best of three sizes that networks of this kind are made of.
fn convolution_peak(place: Place, timer: &Timer) -> f64 {
    let _running = place.enter();
    let rate = |(channels, side, batch): (i64, i64, i64)| {
        let random =
            |shape: [i64; 4]| Tensor::randn(shape, (Kind::Float, place.device)).to_kind(place.kind());
        let x = crate::torch_ext::channels_last(&random([batch, channels, side, side]));
        let w = crate::torch_ext::channels_last(&random([channels, channels, 3, 3]));
        let packed = place.packs().and_then(|kind| Packed::new(&w, 1, 1, kind));
        let convolve = || match &packed {
            Some(packed) => Ok(packed.convolve(&x, None, None, Activation::None)),
            None => Ok(Some(x.conv2d(&w, None::<&Tensor>, [1, 1], [1, 1], [1, 1], 1))),
        };
        timer.time("convolution", convolve).map_or(0.0, |cost| cost.gflop_per_s())
    };
    [(64, 64, 1), (128, 32, 1), (320, 64, 4)].map(rate).into_iter().fold(0.0, f64::max)
}

fn networks(
    model: &ModelDir,
    settings: &Settings,
    place: Place,
    way: Way,
    timer: &Timer,
) -> Result<Vec<Cost>> {
    let _running = place.enter();
    let stack = Stack::load(model, settings.lora_scale, &settings.prompt, place)?;
    let image = model.manifest().image;
    let (h, w, factor) = (i64::from(image.height), i64::from(image.width), stack.vae.downscale());
    let random = |shape: &[i64]| Tensor::randn(shape, (place.kind(), place.device));
    let picture = random(&[1, 3, h, w]);
    let latents = random(&[1, stack.unet.config().in_channels, 1, h / factor, w / factor]);
    let frame = latents.squeeze_dim(2);
    let t = 499;
    let bank = stack.unet.project(&stack.features(&frame, t)?)?;
    let embedded = stack.controlnet.embed_condition(&picture)?;
    let residuals = stack.residuals(&latents, t, &embedded, 1.0)?;
    let guided = settings.guidance_scale > 1.0;
    let mut costs = vec![
        timer.time("pose embedding", || stack.controlnet.embed_condition(&picture))?,
        timer.time("ControlNet", || stack.residuals(&latents, t, &embedded, 1.0))?,
        timer.time("U-Net", || stack.predict(&latents, t, &residuals, &bank, guided, None))?,
        timer.time("VAE decoder", || Ok(stack.vae.decode(&frame)))?,
        timer.time("VAE encoder", || stack.vae.encode(&picture))?,
        timer.time("appearance encoder", || stack.features(&frame, t))?,
    ];
    if way.schedule == Schedule::Pipelined {
        let rows = settings.steps as i64;
        let all = |one: &Tensor| Tensor::cat(&vec![one; settings.steps], 0);
        let (latents, embedded) = (all(&latents), all(&embedded));
        let t = Tensor::full([rows], t, (Kind::Int64, place.device));
        let bank = ProjectedBank::joined(&vec![&bank; settings.steps])?;
        let step = || stack.rows(&latents, &t, &embedded, &bank, settings.guidance_scale);
        costs.push(timer.time("a batch of all steps", step)?);
    }
    Ok(costs)
}

/// A picture that no two numbers share.
fn picture(width: u32, height: u32, n: u32) -> Result<Frame> {
    let value = |i: u32| (i.wrapping_mul(2_654_435_761).wrapping_add(n * 977) >> 24) as u8;
    let data: Vec<u8> = (0..width * height * 3).map(value).collect();
    Frame::new(width, height, data).map_err(|e| ModelError::Input(e.to_string()))
}

struct KeyFrames {
    cost: Cost,
    context_bytes: usize,
    replayed: bool,
}

fn key_frames(
    model: &ModelDir,
    settings: &Settings,
    place: Place,
    way: Way,
    timer: &Timer,
) -> Result<KeyFrames> {
    let generator = LcmGenerator::placed(model, settings.clone(), place)?;
    match way.schedule {
        Schedule::Sequential => sequential(generator, way, timer),
        Schedule::Pipelined => pipelined(generator, timer),
    }
}

fn sequential(mut generator: LcmGenerator, way: Way, timer: &Timer) -> Result<KeyFrames> {
    let failed = |e: keyframed_engine::GenerateError| ModelError::Input(e.to_string());
    let graphs = way.graphs && timer.device.is_cuda();
    generator.use_graphs(false);
    let (width, height) = generator.size();
    generator.set_reference(&picture(width, height, 0)?).map_err(failed)?;
    // With its context full, as it is after the first moments of a stream.
    for n in 1..generator.window() as u32 {
        generator.generate(&picture(width, height, n)?, 0).map_err(failed)?;
    }
    let pose = picture(width, height, 99)?;
    let mut made = || generator.generate(&pose, 0).map_err(failed);
    // What a graph replays cannot be counted.
    let gflop = match graphs {
        true => Some(Timer { each: Duration::ZERO, ..*timer }.time("key frame", &mut made)?.gflop),
        false => None,
    };
    generator.use_graphs(graphs);
    let cost = timer.time("key frame", || generator.generate(&pose, 0).map_err(failed))?;
    let cost = Cost { gflop: gflop.unwrap_or(cost.gflop), ..cost };
    Ok(KeyFrames { cost, context_bytes: generator.context_bytes(), replayed: generator.replays() })
}

/// A call in the middle of a stream: one pose in, one key frame out.
fn pipelined(generator: LcmGenerator, timer: &Timer) -> Result<KeyFrames> {
    let (width, height) = generator.size();
    let mut generator = PipelinedGenerator::new(generator)?;
    generator.set_reference(&picture(width, height, 0)?)?;
    for n in 1..generator.generator().settings().steps as u32 {
        generator.push(&picture(width, height, n)?, 0)?;
    }
    let pose = picture(width, height, 99)?;
    let cost = timer.time("key frame", || generator.push(&pose, 0))?;
    Ok(KeyFrames { cost, context_bytes: 0, replayed: false })
}

fn in_betweens(model: &ModelDir, placement: Placement, timer: &Timer) -> Result<Vec<Cost>> {
    let failed = |e: keyframed_engine::InterpolateError| ModelError::Input(e.to_string());
    let mut film = FilmInterpolator::new(model, placement)?;
    let image = model.manifest().image;
    let frames: Vec<Frame> = (0..3).map(|n| picture(image.width, image.height, n)).collect::<Result<_>>()?;
    let mut n = 0;
    // As key frames follow each other: the second of one pair is the first of the next.
    let first = timer.time("first of a pair", || {
        n += 1;
        film.interpolate(&frames[n % 3], &frames[(n + 1) % 3], 0.5).map_err(failed)
    })?;
    let further =
        timer.time("each further", || film.interpolate(&frames[0], &frames[1], 0.3).map_err(failed))?;
    Ok(vec![first, further])
}
