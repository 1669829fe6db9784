//! The command line of `keyframed-train`.

use crate::{
    checkpoint, compare,
    config::Recipe,
    data::Pool,
    eval, export, personal,
    stages::{
        denoise::DenoiseStage,
        encode::{self, Latents},
        film::FilmStage,
        lcm::LcmStage,
        motion::MotionStage,
        vae::VaeStage,
    },
    synth::{self, Rig},
    trainer::{Stage, Trainer},
};
use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use keyframed_models::{allocator::tune_allocator, checkpoint::ModelDir};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fmt::Display,
    io::Write,
    path::{Path, PathBuf},
};
use tch::Tensor;

/// Makes models for keyframed.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the stages of a recipe, or continues them from their checkpoints.
    Run {
        /// The recipe, for example models/training/mini.toml.
        recipe: PathBuf,
        /// Rig made by synth/export_rig.py.
        #[arg(long, env = "KEYFRAMED_RIG")]
        rig: PathBuf,
        /// Folder of checkpoints, curves and sheets.
        #[arg(long, default_value = "out/training")]
        out: PathBuf,
        /// Only this stage.
        #[arg(long)]
        stage: Option<StageName>,
        /// Threads of libtorch.
        #[arg(long)]
        threads: Option<i32>,
    },
    /// Puts the stages' weights together as a model directory.
    Export {
        /// The recipe that the stages ran.
        recipe: PathBuf,
        /// Rig made by synth/export_rig.py.
        #[arg(long, env = "KEYFRAMED_RIG")]
        rig: PathBuf,
        /// Folder of the stages' files.
        #[arg(long, default_value = "out/training")]
        from: PathBuf,
        /// The model directory to write.
        #[arg(long)]
        to: PathBuf,
        /// The model's name.
        #[arg(long, default_value = "mini")]
        name: String,
    },
    /// Measures a model directory on people, poses and motions that no training saw.
    Eval {
        /// The model directory.
        model: PathBuf,
        /// Rig made by synth/export_rig.py.
        #[arg(long, env = "KEYFRAMED_RIG")]
        rig: PathBuf,
        /// Folder of sheets and curves.
        #[arg(long, default_value = "out/eval")]
        out: PathBuf,
        /// Folder of DensePose clips of real people (*.mp4).
        #[arg(long)]
        driving: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Adapts a model to one person, from a minute or two of video and what DensePose sees in it.
    Personal {
        /// Video of the person.
        #[arg(long)]
        rgb: PathBuf,
        /// The same video as DensePose sees it, in viridis colours.
        #[arg(long)]
        densepose: PathBuf,
        /// Folder of the new model; its last part is the model's name.
        #[arg(long)]
        out: PathBuf,
        /// The model to start from: a name or a directory.
        #[arg(long, default_value = "mini")]
        model: String,
        /// How long to train.
        #[arg(long, default_value_t = 40.0)]
        minutes: f64,
        /// Seed of batches and noise.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// FasterVD's comparison on rendered clips: 25 steps, 4 steps, 4 steps and FILM; in time and quality.
    #[command(name = "fastervd")]
    FasterVd {
        /// The model: a name or a directory.
        #[arg(long, default_value = "mini")]
        model: String,
        /// Rig made by synth/export_rig.py.
        #[arg(long, env = "KEYFRAMED_RIG")]
        rig: PathBuf,
        /// Avatars, each in a motion of its own.
        #[arg(long, default_value_t = 4)]
        avatars: usize,
        /// Frames of each clip, at 25 a second.
        #[arg(long, default_value_t = 48)]
        frames: usize,
        /// PNG to write: pose, truth, then (a) to (e).
        #[arg(long)]
        sheet: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Cached against recomputed context over rendered clips: how far they differ, and what the cache saves.
    Context {
        /// A model with motion modules: a name or a directory.
        #[arg(long)]
        model: String,
        /// Rig made by synth/export_rig.py.
        #[arg(long, env = "KEYFRAMED_RIG")]
        rig: PathBuf,
        /// Key frames that a new one sees.
        #[arg(long, default_value_t = 7)]
        context_frames: usize,
        /// Avatars, each in a motion of its own.
        #[arg(long, default_value_t = 2)]
        avatars: usize,
        /// Frames of each clip, at 25 a second.
        #[arg(long, default_value_t = 48)]
        frames: usize,
        /// Only the key poses that stage 1 selects become key frames, not every frame.
        #[arg(long)]
        selected: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Compares the labels that training sees with those of real clips: framing, areas, borders, specks, flicker.
    Labels {
        /// Rig made by synth/export_rig.py.
        #[arg(long, env = "KEYFRAMED_RIG")]
        rig: PathBuf,
        /// Folder of DensePose clips of real people (*.mp4).
        #[arg(long)]
        driving: PathBuf,
        /// Seed of the random people.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Draws a sheet of figures: pose, labels and people as the renderer makes them.
    Figures {
        /// Rig made by synth/export_rig.py.
        #[arg(long, env = "KEYFRAMED_RIG")]
        rig: PathBuf,
        /// PNG to write.
        #[arg(long, default_value = "out/figures.png")]
        out: PathBuf,
        /// Seed of the random people.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum StageName {
    /// Autoencoder.
    Vae,
    /// U-Net, ControlNet and appearance encoder.
    Denoise,
    /// Attention over time, if the recipe has it.
    Motion,
    /// Consistency distillation into an LCM-LoRA.
    Lcm,
    /// The autoencoder's decoder alone, further.
    Decoder,
    /// Frame interpolation.
    Film,
}

/// Entry point.
///
/// # Errors
/// Whatever stopped the command.
pub fn main() -> Result<()> {
    let command = Args::parse().command;
    tune_allocator();
    match command {
        Command::Run { recipe, rig, out, stage, threads } => {
            if let Some(threads) = threads {
                tch::set_num_threads(threads);
            }
            let recipe = Recipe::load(&recipe)?;
            let rig = Rig::load(&rig)?;
            run(&recipe, &rig, &out, stage)
        }
        Command::Export { recipe, rig, from, to, name } => {
            export::model_dir(&Recipe::load(&recipe)?, &Rig::load(&rig)?, &from, &to, &name)
        }
        Command::Eval { model, rig, out, driving, json } => {
            std::fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
            let plan = eval::Plan {
                sheet: &out.join("sheet.png"),
                driving: driving.as_deref(),
                driving_sheet: &out.join("driving.png"),
                faces: &out.join("faces.png"),
                trade_off: &out.join("trade-off.svg"),
            };
            print(&eval::run(&ModelDir::load(&model)?, &Rig::load(&rig)?, &plan)?, json)
        }
        Command::Personal { rgb, densepose, out, model, minutes, seed, json } => {
            ensure!(minutes > 0.0 && minutes.is_finite(), "--minutes must be more than 0");
            let name = out.file_name().context("--out needs a name")?.to_string_lossy().into_owned();
            let plan = personal::Plan { rgb, densepose, out, name, minutes, seed };
            print(&personal::run(&ModelDir::find(&model)?, &plan)?, json)
        }
        Command::FasterVd { model, rig, avatars, frames, sheet, json } => {
            let (model, rig) = (ModelDir::find(&model)?, Rig::load(&rig)?);
            print(&compare::fastervd::run(&model, &rig, avatars, frames, sheet.as_deref())?, json)
        }
        Command::Context { model, rig, context_frames, avatars, frames, selected, json } => {
            let (model, rig) = (ModelDir::find(&model)?, Rig::load(&rig)?);
            let plan = compare::context::Plan { avatars, frames, context_frames, selected };
            print(&compare::context::run(&model, &rig, plan)?, json)
        }
        Command::Labels { rig, driving, seed } => {
            let clips = eval::clips(&driving)?;
            let table = synth::report(&Rig::load(&rig)?, &clips, seed)?;
            Ok(std::io::stdout().write_all(table.as_bytes())?)
        }
        Command::Figures { rig, out, seed } => synth::sheet(&Rig::load(&rig)?, &out, seed),
    }
}

/// For people, or for programs.
fn print(report: &(impl Display + Serialize), json: bool) -> Result<()> {
    let text = if json { serde_json::to_string_pretty(report)? + "\n" } else { report.to_string() };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn run(recipe: &Recipe, rig: &Rig, out: &Path, only: Option<StageName>) -> Result<()> {
    let wanted = |stage: StageName| only.is_none_or(|name| name == stage);
    if wanted(StageName::Film) && only.is_some() {
        return train_film(recipe, rig, out);
    }
    if wanted(StageName::Motion) && only.is_some() {
        ensure!(recipe.motion.is_some(), "the recipe has no [motion]");
        return train_motion(recipe, rig, out);
    }
    let pool = Pool::render(rig, recipe);
    if wanted(StageName::Vae) {
        train_vae(recipe, &pool, out)?;
    }
    if wanted(StageName::Denoise) {
        train_denoise(recipe, &pool, out)?;
    }
    if wanted(StageName::Motion) {
        train_motion(recipe, rig, out)?;
    }
    if wanted(StageName::Lcm) {
        train_lcm(recipe, &pool, out)?;
    }
    if wanted(StageName::Decoder) {
        train_decoder(recipe, &pool, out)?;
    }
    if wanted(StageName::Film) {
        train_film(recipe, rig, out)?;
    }
    Ok(())
}

fn train_vae(recipe: &Recipe, pool: &Pool, out: &Path) -> Result<()> {
    let stage = VaeStage::new(&recipe.vae, pool)?;
    let mut trainer = Trainer::new(&stage, out, recipe.seed, recipe.shards)?;
    trainer.run(&stage, recipe.vae.minutes)?;
    trainer.settle();
    let mut weights = stage.params();
    let scaling = recipe.vae.network.scaling_factor;
    let (mean, deviation) = encode::statistics(stage.network(), pool)?;
    encode::normalise(&mut weights, &mean, &deviation, scaling)?;
    checkpoint::write(&out.join("vae.safetensors"), &listed(&weights))
}

fn train_decoder(recipe: &Recipe, pool: &Pool, out: &Path) -> Result<()> {
    let file = out.join("vae.safetensors");
    let stage = VaeStage::decoder(&recipe.vae, pool, &file).context("stage `vae` comes first")?;
    let mut trainer = Trainer::new(&stage, out, recipe.seed + 1, recipe.shards)?;
    trainer.run(&stage, recipe.vae.decoder_minutes)?;
    trainer.settle();
    checkpoint::write(&file, &listed(&stage.weights()))
}

fn train_denoise(recipe: &Recipe, pool: &Pool, out: &Path) -> Result<()> {
    let config = &recipe.vae.network;
    let vae = encode::load(&out.join("vae.safetensors"), config).context("stage `vae` comes first")?;
    let latents = Latents::of(&vae, pool, config.scaling_factor);
    let stage = DenoiseStage::new(&recipe.denoise, pool, &latents, &vae, config.scaling_factor)?;
    let mut trainer = Trainer::new(&stage, out, recipe.seed, recipe.shards)?;
    trainer.run(&stage, recipe.denoise.minutes)
}

fn train_motion(recipe: &Recipe, rig: &Rig, out: &Path) -> Result<()> {
    let Some(motion) = &recipe.motion else { return Ok(()) };
    let vae = encode::load(&out.join("vae.safetensors"), &recipe.vae.network);
    let vae = vae.context("stage `vae` comes first")?;
    let stage = MotionStage::new(recipe, motion, rig, out, &vae)?;
    let mut trainer = Trainer::new(&stage, out, recipe.seed, recipe.shards)?;
    trainer.run(&stage, motion.minutes)
}

fn train_lcm(recipe: &Recipe, pool: &Pool, out: &Path) -> Result<()> {
    let config = &recipe.vae.network;
    let vae = encode::load(&out.join("vae.safetensors"), config).context("stage `vae` comes first")?;
    let latents = Latents::of(&vae, pool, config.scaling_factor);
    let stage = LcmStage::new(recipe, out, pool, &latents, &vae)?;
    let mut trainer = Trainer::new(&stage, out, recipe.seed, recipe.shards)?;
    trainer.run(&stage, recipe.lcm.minutes)
}

fn train_film(recipe: &Recipe, rig: &Rig, out: &Path) -> Result<()> {
    let stage = FilmStage::new(recipe, rig)?;
    let mut trainer = Trainer::new(&stage, out, recipe.seed, recipe.shards)?;
    trainer.run(&stage, recipe.film.minutes)
}

fn listed(tensors: &BTreeMap<String, Tensor>) -> Vec<(String, Tensor)> {
    tensors.iter().map(|(k, t)| (k.clone(), t.shallow_clone())).collect()
}
