//! The networks of one model, loaded and ready to denoise.

use crate::{
    allocator::give_back,
    appearance::AppearanceEncoder,
    autoencoder::{Autoencoder, AutoencoderConfig},
    checkpoint::{MANIFEST, ModelDir, Role, network},
    clip::{ClipText, ClipTextConfig},
    controlnet::{ControlNet, ControlNetConfig, ControlNetResiduals},
    device::Place,
    error::{ModelError, Result},
    nn::Memory,
    reference::{Bank, ProjectedBank, Reference},
    tokenizer::ClipTokenizer,
    unet::{Begun, UNet, UNetConfig},
    vars::Source,
};
use std::{ops::Deref, path::Path, sync::Arc};
use tch::{Device, Kind, Tensor};
use tracing::warn;

/// The autoencoder, for any number of threads at once: settings never change it.
#[derive(Debug, Clone)]
pub struct SharedAutoencoder(Arc<Autoencoder>);

// SAFETY: libtorch's tensors may be read by several threads at once, which is all that encoding and decoding do with
// the weights; behind the `Arc` only the layouts of packed kernels change, under a lock, and whichever thread drops the last handle frees them alone.
unsafe impl Send for SharedAutoencoder {}

impl From<Autoencoder> for SharedAutoencoder {
    #[expect(clippy::arc_with_non_send_sync, reason = "sent to other threads in the wrapper only")]
    fn from(vae: Autoencoder) -> Self {
        Self(Arc::new(vae))
    }
}

impl Deref for SharedAutoencoder {
    type Target = Autoencoder;

    fn deref(&self) -> &Autoencoder {
        &self.0
    }
}

/// What the prompts say, as the text encoder's hidden states `[1, n, d]`.
#[derive(Debug)]
pub struct Text {
    /// Of the prompt.
    pub conditional: Tensor,
    /// Of the negative prompt, which guidance moves away from.
    pub unconditional: Tensor,
}

/// The networks of one model.
#[derive(Debug)]
pub struct Stack {
    /// Pictures to latents and back.
    pub vae: SharedAutoencoder,
    /// The denoising network.
    pub unet: UNet,
    /// Reads poses.
    pub controlnet: ControlNet,
    /// Reads the reference.
    pub appearance: AppearanceEncoder,
    /// What the prompts say.
    pub text: Text,
    /// Where all tensors are.
    pub device: Device,
}

impl Stack {
    /// Loads every network of `dir`; unused or missing tensors are errors.
    ///
    /// # Errors
    /// Whatever is wrong with the files, naming file and tensor, and a prompt that this model cannot take.
    pub fn load(dir: &ModelDir, lora_scale: f64, prompt: &str, place: Place) -> Result<Self> {
        let (manifest, device, kind) = (dir.manifest(), place.device, place.kind());
        let config: UNetConfig = dir.network("unet", &manifest.networks.unet)?;
        let unet = load_unet(dir, lora_scale, place)?;
        give_back();
        let source = dir.source(Role::Vae, device, kind)?.packed(place.packs());
        let vae = Autoencoder::new(&source.root(), &vae_of(dir)?)?;
        source.finish()?;
        give_back();
        let source = dir.source(Role::Controlnet, device, kind)?.packed(place.packs());
        let network: ControlNetConfig = dir.network("controlnet", &manifest.networks.controlnet)?;
        let controlnet = ControlNet::new(&source.root(), &network)?;
        source.finish()?;
        give_back();
        let source = dir.source(Role::Appearance, device, kind)?.packed(place.packs());
        let network = match &manifest.networks.appearance {
            Some(table) => dir.network("appearance", table)?,
            None => config.clone(),
        };
        let appearance = AppearanceEncoder::new(&source.root(), &network, manifest.fusion_blocks)?;
        source.finish()?;
        give_back();
        let text = load_text(dir, prompt, place)?;
        check_fit(dir, &vae, &controlnet, &unet)?;
        Ok(Self { vae: vae.into(), unet, controlnet, appearance, text, device })
    }

    /// Whether frames of one window influence each other at all.
    pub fn couples_frames(&self) -> bool {
        couples_frames(self.unet.config())
    }

    /// What the conditional half reads of the reference at timestep `t`: features
    /// of its clean scaled `latents` `[1, c, h, w]` under the prompt, to be
    /// projected with [`UNet::project`]. The unconditional half reads none.
    ///
    /// # Errors
    /// [`ModelError::Input`] for latents of another shape.
    pub fn features(&self, latents: &Tensor, t: i64) -> Result<Bank> {
        self.features_under(&self.text.conditional, latents, t)
    }

    /// The same under another text.
    pub(crate) fn features_under(&self, text: &Tensor, latents: &Tensor, t: i64) -> Result<Bank> {
        self.appearance.forward(latents, &self.timestep(t), text)
    }

    /// What the poses (`embedded` `[f, c, h, w]`) add to noisy `latents`
    /// `[1, c, f, h, w]`: one row per frame, the same for both halves.
    ///
    /// # Errors
    /// [`ModelError::Input`] for shapes that do not fit together.
    pub fn residuals(
        &self,
        latents: &Tensor,
        t: i64,
        embedded: &Tensor,
        scale: f64,
    ) -> Result<ControlNetResiduals> {
        let frames = latents.squeeze_dim(0).transpose(0, 1);
        self.controlnet.forward(&frames, &self.timestep(t), &self.text.conditional, embedded, scale)
    }

    /// The U-Net's answers to `latents` `[1, c, f, h, w]`, which stand behind the frames in
    /// `memory`: the conditional one alone, or `[unconditional, conditional]` if `guided`.
    ///
    /// # Errors
    /// [`ModelError::Input`] for shapes that do not fit together.
    pub fn predict(
        &self,
        latents: &Tensor,
        t: i64,
        residuals: &ControlNetResiduals,
        bank: &ProjectedBank,
        guided: bool,
        memory: Option<&Memory>,
    ) -> Result<Tensor> {
        let (t, bank) = (self.timestep(t), Reference::projected(bank));
        let Text { conditional, unconditional } = &self.text;
        if !guided {
            return self.unet.forward_after(latents, &t, conditional, Some(residuals), Some(&bank), memory);
        }
        let latents = Tensor::cat(&[latents, latents], 0);
        let text = Tensor::cat(&[unconditional, conditional], 0);
        self.unet.forward_after(&latents, &t, &text, Some(residuals), Some(&bank.after(1)), memory)
    }

    /// What [`Stack::predict`] does before a pose comes in, without guidance and memory.
    ///
    /// # Errors
    /// As [`Stack::predict`].
    pub fn begin(&self, latents: &Tensor, t: i64, bank: &ProjectedBank) -> Result<Begun> {
        let bank = Reference::projected(bank);
        self.unet.begin(latents, &self.timestep(t), &self.text.conditional, Some(&bank))
    }

    /// The rest of it.
    ///
    /// # Errors
    /// As [`Stack::predict`].
    pub fn predict_from(
        &self,
        begun: &Begun,
        t: i64,
        residuals: &ControlNetResiduals,
        bank: &ProjectedBank,
    ) -> Result<Tensor> {
        let (t, bank) = (self.timestep(t), Reference::projected(bank));
        self.unet.forward_from(begun, &t, &self.text.conditional, Some(residuals), Some(&bank))
    }

    fn timestep(&self, t: i64) -> Tensor {
        // Filled where it is needed: nothing is copied to the device, which a CUDA graph could not note.
        Tensor::full([1], t, (Kind::Int64, self.device))
    }
}

/// Whether the networks that `dir` describes fit each other, found out without their weights.
///
/// # Errors
/// [`ModelError::BadFile`] saying what does not.
pub(crate) fn fits(dir: &ModelDir) -> Result<()> {
    let networks = &dir.manifest().networks;
    let (vae, controlnet, unet) = (Source::recording(), Source::recording(), Source::recording());
    let vae = Autoencoder::new(&vae.root(), &vae_of(dir)?)?;
    let config: ControlNetConfig = dir.network("controlnet", &networks.controlnet)?;
    let controlnet = ControlNet::new(&controlnet.root(), &config)?;
    let config: UNetConfig = dir.network("unet", &networks.unet)?;
    check_fit(dir, &vae, &controlnet, &UNet::new(&unet.root(), &config)?)?;
    if dir.has(Role::TextEmbedding) {
        stored_text(dir, Place::like_cuda(Kind::Float, 1)).map(drop)
    } else {
        check_tokenizer(dir)
    }
}

/// Without a tokenizer a model takes no prompt, but works.
fn check_tokenizer(dir: &ModelDir) -> Result<()> {
    if !dir.has(Role::Tokenizer) {
        return Ok(());
    }
    let table = dir.manifest().networks.text_encoder.clone().unwrap_or_default();
    ClipTokenizer::of(dir)?.check(dir.dir(), &dir.network("text_encoder", &table)?)
}

/// The networks must fit each other; each only knows itself.
fn check_fit(dir: &ModelDir, vae: &Autoencoder, controlnet: &ControlNet, unet: &UNet) -> Result<()> {
    let (factor, image) = (vae.downscale(), dir.manifest().image);
    let fits = |side: u32| i64::from(side) % factor == 0;
    let reason = if controlnet.factor() != factor {
        format!(
            "the ControlNet shrinks poses {} times, the autoencoder pictures {factor} times",
            controlnet.factor()
        )
    } else if !fits(image.width) || !fits(image.height) {
        format!("image {}x{} must have sides in multiples of {factor}", image.width, image.height)
    } else if vae_of(dir)?.latent_channels() != unet.config().in_channels {
        "the autoencoder's latent_channels are not the U-Net's in_channels".to_owned()
    } else {
        return Ok(());
    };
    Err(ModelError::BadFile { file: dir.dir().to_owned(), reason })
}

/// Whether frames of one window influence each other in such a U-Net.
pub(crate) fn couples_frames(config: &UNetConfig) -> bool {
    config.use_motion_module || !config.norm_per_frame
}

/// The U-Net of `dir` with `lora_scale` of its LoRA.
///
/// # Errors
/// As [`Stack::load`].
pub fn load_unet(dir: &ModelDir, lora_scale: f64, place: Place) -> Result<UNet> {
    let config: UNetConfig = dir.network("unet", &dir.manifest().networks.unet)?;
    let source = dir.unet(lora_scale, place.device, place.kind())?.packed(place.packs());
    let unet = UNet::new(&source.root(), &config)?;
    source.finish()?;
    Ok(unet)
}

/// The configuration of whichever autoencoder `table` of the manifest `file` names.
pub(crate) fn vae_config(file: &Path, table: &toml::Table) -> Result<AutoencoderConfig> {
    match table.get("_class_name").and_then(toml::Value::as_str) {
        None | Some("AutoencoderKL") => network(file, "vae", table).map(AutoencoderConfig::Kl),
        Some("AutoencoderTiny") => network(file, "vae", table).map(AutoencoderConfig::Tiny),
        Some(other) => Err(ModelError::BadFile {
            file: file.to_owned(),
            reason: format!("networks.vae: `{other}` is no autoencoder that is known"),
        }),
    }
}

fn vae_of(dir: &ModelDir) -> Result<AutoencoderConfig> {
    vae_config(&dir.dir().join(MANIFEST), &dir.manifest().networks.vae)
}

/// Whether the model takes `prompt`: the empty one always.
///
/// # Errors
/// [`ModelError::Config`] saying why not.
pub fn check_prompt(dir: &ModelDir, prompt: &str) -> Result<()> {
    let name = &dir.manifest().name;
    let reason = if prompt.trim().is_empty() {
        return Ok(());
    } else if dir.has(Role::TextEmbedding) {
        "its text is stored with it; leave the prompt empty, or use a model with a text encoder"
    } else if !dir.has(Role::Tokenizer) {
        "it has no tokenizer; leave the prompt empty, or import the model again from a folder with `tokenizer`"
    } else {
        return Ok(());
    };
    Err(ModelError::Config(format!("the model {name} takes no prompt: {reason}")))
}

/// The stored embedding, or else `prompt` and the empty one through the text encoder.
pub(crate) fn load_text(dir: &ModelDir, prompt: &str, place: Place) -> Result<Text> {
    check_prompt(dir, prompt)?;
    if dir.has(Role::TextEmbedding) { stored_text(dir, place) } else { encoded_text(dir, prompt, place) }
}

fn encoded_text(dir: &ModelDir, prompt: &str, place: Place) -> Result<Text> {
    let table = dir.manifest().networks.text_encoder.clone().unwrap_or_default();
    let config: ClipTextConfig = dir.network("text_encoder", &table)?;
    let tokens = match prompt.trim() {
        "" => None,
        prompt => Some(tokens_of(dir, prompt, config.max_position_embeddings)?),
    };
    let source = dir.source(Role::TextEncoder, place.device, Kind::Float)?;
    let clip = ClipText::new(&source.root(), &config)?;
    source.finish()?;
    let encoded =
        |ids: &Tensor| -> Result<Tensor> { Ok(tch::no_grad(|| clip.forward(ids))?.to_kind(place.kind())) };
    let unconditional = encoded(&config.empty_prompt())?;
    let conditional = tokens.as_ref().map(encoded).transpose()?;
    let conditional = conditional.unwrap_or_else(|| unconditional.shallow_clone());
    Ok(Text { conditional, unconditional })
}

fn tokens_of(dir: &ModelDir, prompt: &str, length: i64) -> Result<Tensor> {
    let tokens = ClipTokenizer::of(dir)?.encode(prompt, usize::try_from(length).unwrap_or(0))?;
    if !tokens.cut.is_empty() {
        warn!("the prompt is longer than {length} tokens, its end is not used: {:?}", tokens.cut);
    }
    Ok(tokens.tensor())
}

fn stored_text(dir: &ModelDir, place: Place) -> Result<Text> {
    let tensors = dir.tensors(Role::TextEmbedding)?;
    let width = dir.network::<UNetConfig>("unet", &dir.manifest().networks.unet)?.cross_attention_dim;
    let named = |name: &str| {
        let tensor = tensors.get(name)?;
        let fits = matches!(*tensor.size(), [1, n, d] if n > 0 && d == width);
        fits.then(|| tensor.to_device(place.device).to_kind(place.kind()))
    };
    let Some(conditional) = named("conditional") else {
        let reason = format!("text_embedding: tensor `conditional` of shape [1, n, {width}] is missing");
        return Err(ModelError::BadFile { file: dir.dir().to_owned(), reason });
    };
    let unconditional = named("unconditional").unwrap_or_else(|| conditional.shallow_clone());
    Ok(Text { conditional, unconditional })
}
