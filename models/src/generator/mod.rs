//! Stage 2 on libtorch: key frames by latent consistency sampling.

mod film;
mod graph;
mod noise;
mod picture;
mod pipelined;
mod sampling;
mod windows;

use crate::{
    checkpoint::{ImageSize, ModelDir},
    device::{Place, Placement},
    error::{ModelError, Result},
    nn::{FrameStates, Memory},
    reference::ProjectedBank,
    registry,
    scheduler::{self, Scheduler},
    stack::{self, SharedAutoencoder, Stack, Text},
    unet::{Begun, UNet, UNetConfig},
};
use graph::Graphs;
use keyframed_engine::{Frame, GenerateError, KeyframeGenerator, Nanos, Unfinished};
use std::collections::VecDeque;
use tch::{Kind, Tensor};

pub use film::FilmInterpolator;
pub use pipelined::{Made, PipelinedGenerator, Schedule};
pub use sampling::Sampling;
pub use windows::context_windows;

/// How a key frame takes the ones before it into account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContextMode {
    /// Keeps what each key frame left at every step, so that a new one costs one frame whatever the context.
    #[default]
    Cache,
    /// As MagicAnimate does: noises the context again and runs the whole window.
    Recompute,
}

/// What a user can set. [`Settings::of`] starts from the model's own defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Denoising steps.
    pub steps: usize,
    /// Guidance; 1 or less runs the conditional prediction alone, in half the time.
    pub guidance_scale: f64,
    /// Share of the LoRA.
    pub lora_scale: f64,
    /// What the text encoder reads; the empty one is what MagicAnimate was published with.
    pub prompt: String,
    /// Seed of the noise, which is the same for every key frame: flicker is not injected.
    pub seed: u64,
    /// Key frames that a new one sees through temporal attention.
    pub context_frames: usize,
    /// How it sees them.
    pub context_mode: ContextMode,
}

impl Settings {
    /// The defaults of a model.
    pub fn of(model: &ModelDir) -> Self {
        let defaults = &model.manifest().defaults;
        Self {
            steps: defaults.steps,
            guidance_scale: defaults.guidance_scale,
            lora_scale: defaults.lora_scale,
            prompt: String::new(),
            seed: 0,
            context_frames: defaults.context_frames,
            context_mode: ContextMode::default(),
        }
    }

    fn check(&self, stack: &Stack) -> Result<()> {
        if !self.guidance_scale.is_finite() || !self.lora_scale.is_finite() {
            return Err(ModelError::Config("guidance_scale and lora_scale must be numbers".into()));
        }
        match stack.unet.config().max_frames() {
            Some(most) if self.context_frames as i64 >= most => {
                let most = most - 1;
                Err(ModelError::Config(format!("context_frames must be 0..{most} for this model")))
            }
            _ => Ok(()),
        }
    }
}

/// A key frame that later ones see.
#[derive(Debug)]
struct Context {
    /// Clean latents, `[1, c, 1, h, w]`.
    latents: Tensor,
    /// Its pose, embedded: `[1, c, h, w]`.
    embedded: Tensor,
    /// What it left at each step; empty in [`ContextMode::Recompute`].
    states: Vec<FrameStates>,
}

/// A reference picture's latents and what the U-Net reads of it.
struct ReferenceState {
    latents: Tensor,
    /// One per timestep of the sampler.
    banks: Vec<ProjectedBank>,
    /// What is the same in the first step of every key frame, if frames are generated one by one.
    begun: Option<Begun>,
}

/// Turns key poses into key frames.
///
/// With context frames, each key frame is denoised as the last one of a window. In
/// [`ContextMode::Recompute`] the earlier frames' latents are noised again to each
/// step's level, the whole window runs through the networks, and the prediction for
/// the new frame is used. In [`ContextMode::Cache`] the new frame runs alone, on
/// what the earlier ones left at the same step when they were new.
pub struct LcmGenerator {
    model: ModelDir,
    place: Place,
    stack: Stack,
    settings: Settings,
    scheduler: Box<dyn Scheduler>,
    /// First the initial noise, then that of each step that adds some.
    noise: Vec<Tensor>,
    reference: Option<ReferenceState>,
    /// Oldest first, at most [`LcmGenerator::window`] − 1.
    context: VecDeque<Context>,
    graphs: Graphs,
}

impl LcmGenerator {
    /// Loads a model. Takes as long as reading its files.
    ///
    /// # Errors
    /// Whatever is wrong with the files, the settings or the device.
    pub fn new(model: &ModelDir, settings: Settings, placement: Placement) -> Result<Self> {
        let config: UNetConfig = model.network("unet", &model.manifest().networks.unet)?;
        let place = placement.resolve(config.block_out_channels.iter().copied().min().unwrap_or(0))?;
        Self::placed(model, settings, place)
    }

    /// As [`LcmGenerator::new`], at a place that was checked already.
    ///
    /// # Errors
    /// Whatever is wrong with the files or the settings.
    pub fn placed(model: &ModelDir, settings: Settings, place: Place) -> Result<Self> {
        let scheduler = sampler(model, settings.steps)?;
        let _running = place.enter();
        let stack = registry::build(model, settings.lora_scale, &settings.prompt, place)?;
        settings.check(&stack)?;
        let (model, noise, context) = (model.clone(), Vec::new(), VecDeque::new());
        let graphs = Graphs::new(place.device.is_cuda());
        let mut made =
            Self { model, place, stack, settings, scheduler, noise, reference: None, context, graphs };
        made.noise = made.drawn();
        Ok(made)
    }

    /// The model.
    pub fn model(&self) -> &ModelDir {
        &self.model
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Width and height of the key frames.
    pub fn size(&self) -> (u32, u32) {
        let ImageSize { width, height } = self.model.manifest().image;
        (width, height)
    }

    /// Whether the work of a key frame is noted once and then replayed as one CUDA graph, where the context is full
    /// and cached: so it is on CUDA devices unless this says otherwise. What cannot be noted is done as before.
    ///
    /// On the processor nothing is noted, but the same fixed buffers are used: tests compare that.
    pub fn use_graphs(&mut self, wanted: bool) {
        self.graphs = Graphs::new(wanted);
    }

    /// Whether key frames come from a CUDA graph now.
    pub fn replays(&self) -> bool {
        self.graphs.are_replayed()
    }

    /// Changes settings between two key frames. Steps cost a new reference bank, so does a prompt, for which the text
    /// encoder is loaded again; the LoRA's share costs loading the U-Net again; the rest costs nothing.
    ///
    /// # Errors
    /// Whatever is wrong with them; the old ones then stay in force.
    pub fn set(&mut self, settings: Settings) -> Result<()> {
        settings.check(&self.stack)?;
        let _running = self.place.enter();
        let scheduler = sampler(&self.model, settings.steps)?;
        let unet = match settings.lora_scale == self.settings.lora_scale {
            true => None,
            false => Some(stack::load_unet(&self.model, settings.lora_scale, self.place)?),
        };
        let text = match settings.prompt == self.settings.prompt {
            true => None,
            false => Some(stack::load_text(&self.model, &settings.prompt, self.place)?),
        };
        let same_steps = scheduler.timesteps() == self.scheduler.timesteps();
        if unet.is_some() || text.is_some() || !same_steps {
            let unet = unet.as_ref().unwrap_or(&self.stack.unet);
            let reader = Reader { stack: &self.stack, unet, text: text.as_ref().unwrap_or(&self.stack.text) };
            if let Some(reference) = &mut self.reference {
                reference.banks = reader.banks(scheduler.as_ref(), &reference.latents)?;
            }
        }
        // Nothing can fail from here on.
        self.graphs.forget();
        if let Some(reference) = &mut self.reference {
            reference.begun = None;
        }
        if let Some(unet) = unet {
            self.stack.unet = unet;
        }
        if let Some(text) = text {
            self.stack.text = text;
        }
        if !self.same_states(&settings) {
            self.context.clear();
        }
        let same_noise = same_steps && settings.seed == self.settings.seed;
        self.scheduler = scheduler;
        self.settings = settings;
        if !same_noise {
            self.noise = self.drawn();
        }
        self.trim();
        Ok(())
    }

    /// Frames that the networks see together, the new one included.
    pub fn window(&self) -> usize {
        if self.stack.couples_frames() { self.settings.context_frames + 1 } else { 1 }
    }

    /// Whether what the context left is of use under other settings.
    fn same_states(&self, settings: &Settings) -> bool {
        let of = |s: &Settings| {
            let kind = (s.context_mode, s.steps, s.seed, s.guidance_scale > 1.0);
            (kind, s.lora_scale, s.prompt.clone())
        };
        settings.context_mode == ContextMode::Recompute && self.settings.context_mode == settings.context_mode
            || of(settings) == of(&self.settings)
    }

    /// Bytes that the context holds.
    pub fn context_bytes(&self) -> usize {
        let size = |t: &Tensor| t.numel() * t.kind().elt_size_in_bytes();
        let states = |c: &Context| c.states.iter().map(FrameStates::bytes).sum::<usize>();
        self.context.iter().map(|c| size(&c.latents) + size(&c.embedded) + states(c)).sum()
    }

    fn drawn(&self) -> Vec<Tensor> {
        let (factor, ImageSize { width, height }) = (self.stack.vae.downscale(), self.model.manifest().image);
        let channels = self.stack.unet.config().in_channels;
        let shape = [1, channels, 1, i64::from(height) / factor, i64::from(width) / factor];
        let renewed =
            (0..self.scheduler.timesteps().len()).filter(|&i| self.scheduler.needs_noise(i)).count();
        noise::noise(self.settings.seed, 1 + renewed, shape, self.place.device)
    }

    fn trim(&mut self) {
        let kept = self.window() - 1;
        while self.context.len() > kept {
            self.context.pop_front();
        }
    }

    fn refer(&mut self, picture: &Frame) -> Result<()> {
        let _running = self.place.enter();
        let image = picture::reference(picture, self.model.manifest().image, self.place.device)?;
        let latents = self.stack.vae.encode(&image)?.to_kind(Kind::Float);
        let Stack { unet, text, .. } = &self.stack;
        let reader = Reader { stack: &self.stack, unet, text };
        let banks = reader.banks(self.scheduler.as_ref(), &latents)?;
        self.reference = Some(ReferenceState { latents, banks, begun: None });
        self.context.clear();
        self.graphs.forget();
        Ok(())
    }

    /// Clean latents of one new frame, which later ones will see.
    fn animate(&mut self, pose: &Frame) -> Result<Tensor, GenerateError> {
        let _running = self.place.enter();
        self.begin_once().map_err(failed)?;
        let reference = self.reference.as_ref().ok_or(GenerateError::NoReference)?;
        let manifest = self.model.manifest();
        let pose = picture::pose(pose, manifest.pose, manifest.image, self.place.device).map_err(failed)?;
        // Taken out so that it can change while the rest is read.
        let mut graphs = std::mem::take(&mut self.graphs);
        let made = graphs.new_frame(self, &pose, reference);
        self.graphs = graphs;
        let made = made.map_err(failed)?;
        let latents = made.latents.shallow_clone();
        if !is_finite(&latents) {
            // Whatever it was may have come from the context: the next key frame begins without.
            self.context.clear();
            let reason = "the key frame's latents have values that are no finite numbers";
            return Err(failed(ModelError::Input(reason.into())));
        }
        self.context.push_back(made);
        self.trim();
        Ok(latents)
    }

    /// Without context and guidance, every key frame's first step begins with the same noise on the way down: done
    /// once.
    fn begin_once(&mut self) -> Result<()> {
        let alone = self.window() == 1 && self.settings.guidance_scale <= 1.0;
        let (Some(reference), true) = (&mut self.reference, alone) else { return Ok(()) };
        if let (None, Some(bank)) = (&reference.begun, reference.banks.first()) {
            let noise = &self.noise[0] * self.scheduler.init_noise_sigma();
            reference.begun = Some(self.stack.begin(&noise, self.scheduler.timesteps()[0], bank)?);
        }
        Ok(())
    }

    /// One new frame of the pose picture `[1, 3, h, w]`, behind those in `context`.
    fn new_frame<'a>(
        &self,
        pose: &Tensor,
        context: impl Iterator<Item = &'a Context> + Clone,
        reference: &ReferenceState,
    ) -> Result<Context> {
        let embedded = self.stack.controlnet.embed_condition(pose)?;
        let (latents, states) = self.denoise(&embedded, context, reference)?;
        Ok(Context { latents, embedded, states })
    }

    /// Clean latents `[1, c, 1, h, w]` of one new frame, and what it leaves at each step.
    fn denoise<'a>(
        &self,
        embedded: &Tensor,
        context: impl Iterator<Item = &'a Context> + Clone,
        reference: &ReferenceState,
    ) -> Result<(Tensor, Vec<FrameStates>)> {
        let cached = self.settings.context_mode == ContextMode::Cache && self.window() > 1;
        let together = context.clone().filter(|_| !cached);
        let poses: Vec<&Tensor> = together.map(|c| &c.embedded).chain([embedded]).collect();
        let (poses, frames) = (Tensor::cat(&poses, 0), poses.len() as i64);
        let windows = [(0..frames).collect()];
        let sampling = Sampling {
            stack: &self.stack,
            scheduler: self.scheduler.as_ref(),
            banks: &reference.banks,
            begun: reference.begun.as_ref(),
            embedded: &poses,
            windows: &windows,
            guidance: self.settings.guidance_scale,
            controlnet_scale: 1.0,
        };
        let (mut new, mut states) = (&self.noise[0] * self.scheduler.init_noise_sigma(), vec![]);
        for index in 0..self.scheduler.timesteps().len() {
            let window =
                if cached { new.shallow_clone() } else { self.noised_window(&new, context.clone(), index) };
            let before = context.clone().filter_map(|c| c.states.get(index));
            let memory = cached.then(|| Memory::after(before));
            let raw = sampling.predict(&window, index, memory.as_ref())?;
            states.extend(memory.map(|memory| memory.into_states(1)).transpose()?);
            let answer = sampling.join(&raw).narrow(2, frames - 1, 1);
            let step =
                self.scheduler.step(&answer.to_kind(Kind::Float), index, &new, self.noise.get(index + 1))?;
            new = step.prev;
        }
        Ok((new, states))
    }

    /// The context's clean latents with this step's noise, then the new frame's.
    fn noised_window<'a>(
        &self,
        new: &Tensor,
        context: impl Iterator<Item = &'a Context>,
        index: usize,
    ) -> Tensor {
        // What a context frame looked like when it was itself at this step.
        let noise = self.noise.get(index).unwrap_or(&self.noise[0]);
        let t = Tensor::from_slice(&[self.scheduler.timesteps()[index]]);
        let schedule = self.scheduler.schedule();
        let noised = context.map(|c| schedule.add_noise(&c.latents, noise, &t));
        let all: Vec<Tensor> = noised.chain([new.shallow_clone()]).collect();
        Tensor::cat(&all, 2)
    }
}

/// Whatever reads the reference; its U-Net and text may be those that the stack is about to have.
struct Reader<'a> {
    stack: &'a Stack,
    unet: &'a UNet,
    text: &'a Text,
}

impl Reader<'_> {
    /// The reference at every timestep of the sampler.
    fn banks(&self, scheduler: &dyn Scheduler, latents: &Tensor) -> Result<Vec<ProjectedBank>> {
        let text = &self.text.conditional;
        let bank = |&t: &i64| self.unet.project(&self.stack.features_under(text, latents, t)?);
        scheduler.timesteps().iter().map(bank).collect()
    }
}

/// The model's sampler with `steps` steps: at its own timesteps if it names as many.
pub(crate) fn sampler(model: &ModelDir, steps: usize) -> Result<Box<dyn Scheduler>> {
    let manifest = model.manifest();
    match &manifest.defaults.timesteps {
        Some(timesteps) if timesteps.len() == steps => {
            scheduler::build_at(&manifest.scheduler, timesteps.clone())
        }
        _ => scheduler::build(&manifest.scheduler, steps),
    }
}

impl KeyframeGenerator for LcmGenerator {
    fn set_reference(&mut self, reference: &Frame) -> Result<(), GenerateError> {
        self.refer(reference).map_err(failed)
    }

    /// Up to clean latents; decoding them is the second half.
    fn begin(&mut self, pose: &Frame, _pts: Nanos) -> Result<Unfinished, GenerateError> {
        let latents = self.animate(pose)?;
        let (vae, place) = (self.stack.vae.clone(), self.place.beside());
        Ok(Unfinished::new(move || picture_of(&vae, place, &latents).map_err(failed)))
    }

    /// Both halves on all threads.
    fn generate(&mut self, pose: &Frame, _pts: Nanos) -> Result<Frame, GenerateError> {
        let latents = self.animate(pose)?;
        picture_of(&self.stack.vae, self.place, &latents).map_err(failed)
    }

    fn reset(&mut self) {
        self.context.clear();
    }
}

fn is_finite(values: &Tensor) -> bool {
    values.isfinite().all().int64_value(&[]) == 1
}

/// The picture of clean latents `[1, c, 1, h, w]`.
fn picture_of(vae: &SharedAutoencoder, place: Place, latents: &Tensor) -> Result<Frame> {
    let _running = place.enter();
    let image = vae.decode(&latents.squeeze_dim(2)).to_kind(Kind::Float);
    if !is_finite(&image) {
        return Err(ModelError::Input("the decoded picture has values that are no finite numbers".into()));
    }
    picture::frame(&(image / 2.0 + 0.5))
}

fn failed(error: ModelError) -> GenerateError {
    GenerateError::Failed(Box::new(error))
}
