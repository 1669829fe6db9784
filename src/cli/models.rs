//! `keyframed models`: what is installed, and whether it is sound.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::bail;
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use keyframed_models::{
    ModelDir,
    checkpoint::{self, Progress},
};
use tch::Kind;

use super::print;
use crate::animate::avatars;

/// Options of `keyframed models`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the installed models and where they lie
    List,
    /// Compare checksums and tensor shapes of models
    Verify {
        /// Directories or names of installed models [default: all installed]
        #[arg(value_name = "MODEL")]
        models: Vec<String>,
    },
    /// Build a full-size model out of the published files (docs/models.md)
    Import(Import),
}

/// Options of `keyframed models import`.
#[derive(Debug, clap::Args)]
struct Import {
    /// Folder of the new model; its last part is the model's name
    #[arg(value_name = "DEST")]
    to: PathBuf,
    /// Stable Diffusion 1.5 in diffusers' layout
    #[arg(long, value_name = "DIR")]
    sd15: PathBuf,
    /// MagicAnimate's folder: appearance_encoder, densepose_controlnet, temporal_attention
    #[arg(long, value_name = "DIR")]
    magicanimate: PathBuf,
    /// An autoencoder instead of Stable Diffusion's own, such as sd-vae-ft-mse
    #[arg(long, value_name = "DIR", conflicts_with = "taesd")]
    vae: Option<PathBuf>,
    /// TAESD instead of an autoencoder: diffusers' file or folder, or that of taesd_encoder and taesd_decoder
    #[arg(long, value_name = "PATH")]
    taesd: Option<PathBuf>,
    /// LCM-LoRA, for few steps
    #[arg(long, value_name = "FILE")]
    lcm_lora: Option<PathBuf>,
    /// FILM, as TorchScript or safetensors
    #[arg(long, value_name = "FILE")]
    film: Option<PathBuf>,
    /// Number format of the new files
    #[arg(long, value_name = "T", default_value = "f16", value_parser = ["f16", "bf16", "f32"])]
    dtype: String,
}

impl Args {
    /// Carries out the subcommand; fails if a model is damaged.
    ///
    /// # Errors
    /// If there is no model at all, or a name is unknown.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::List => list(),
            Command::Verify { models } => verify(&models),
            Command::Import(import) => import.run(),
        }
    }
}

impl Import {
    fn run(self) -> anyhow::Result<ExitCode> {
        let kind = match self.dtype.as_str() {
            "f32" => Kind::Float,
            "bf16" => Kind::BFloat16,
            _ => Kind::Half,
        };
        let parts = checkpoint::Parts {
            sd15: self.sd15,
            magicanimate: self.magicanimate,
            vae: self.vae,
            taesd: self.taesd,
            lcm_lora: self.lcm_lora,
            film: self.film,
            kind,
        };
        let bar = ProgressBar::hidden();
        bar.set_style(ProgressStyle::with_template(
            "{wide_bar} {decimal_bytes} of {decimal_total_bytes}, left {eta}",
        )?);
        let model = checkpoint::import(&parts, &self.to, |progress| match progress {
            Progress::Said(line) => bar.suspend(|| drop(print(&format!("{line}\n")))),
            Progress::Written(done, total) => {
                if bar.length() != Some(total) {
                    bar.set_length(total);
                    bar.set_draw_target(ProgressDrawTarget::stderr());
                }
                bar.set_position(done);
            }
        })?;
        bar.finish_and_clear();
        print(&format!("{}: ready; `keyframed animate --model` takes it\n", model.dir().display()))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn list() -> anyhow::Result<ExitCode> {
    let installed = checkpoint::list();
    if installed.is_empty() {
        bail!("no model is installed; looked in {}", places());
    }
    let mut text = String::new();
    let mut broken = false;
    for found in &installed {
        match &found.model {
            Ok(model) => describe(&mut text, &found.name, model),
            Err(error) => {
                broken = true;
                let _ = writeln!(text, "{}  cannot be used: {error}", found.name);
            }
        }
        let _ = writeln!(text, "    {}", found.dir.display());
    }
    print(&text)?;
    Ok(if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn describe(text: &mut String, name: &str, model: &ModelDir) {
    let manifest = model.manifest();
    let bytes: u64 = manifest.files.values().flat_map(|files| files.entries()).map(|file| file.size).sum();
    let (size, defaults) = (manifest.image, &manifest.defaults);
    let _ = writeln!(
        text,
        "{name}  {} (family {}), {}x{} pixels, {} steps, {:.1} MiB, {}",
        manifest.name,
        manifest.family,
        size.width,
        size.height,
        defaults.steps,
        bytes as f64 / f64::from(1 << 20),
        manifest.licence
    );
    if !manifest.description.is_empty() {
        let _ = writeln!(text, "    {}", manifest.description);
    }
    let avatars = avatars(model);
    if !avatars.is_empty() {
        let _ = writeln!(text, "    avatars: {}", avatars.join(", "));
    }
}

fn verify(names: &[String]) -> anyhow::Result<ExitCode> {
    let models: Vec<_> = if names.is_empty() {
        checkpoint::list().into_iter().map(|found| (found.name, found.model)).collect()
    } else {
        names.iter().map(|name| (name.clone(), ModelDir::find(name))).collect()
    };
    if models.is_empty() {
        bail!("no model is installed; looked in {}", places());
    }
    let mut sound = true;
    for (name, model) in models {
        let problems = match model {
            Ok(model) => problems(&model),
            Err(error) => vec![error.to_string()],
        };
        sound &= problems.is_empty();
        match problems.as_slice() {
            [] => print(&format!("{name}: sound\n"))?,
            problems => problems.iter().try_for_each(|problem| print(&format!("{name}: {problem}\n")))?,
        }
    }
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is wrong with a model: checksums, and whether its tensors are those that the networks ask for.
pub fn problems(model: &ModelDir) -> Vec<String> {
    let begun = |file: &Path| tracing::info!("reading {}", file.display());
    model.verify(begun).iter().map(ToString::to_string).collect()
}

fn places() -> String {
    let places: Vec<_> = checkpoint::search_path().iter().map(|place| place.display().to_string()).collect();
    places.join(", ")
}
