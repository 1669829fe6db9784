//! The loop that every stage shares: schedule, optimiser, averages, checkpoint, curves.

use crate::{
    checkpoint,
    optim::{Optimizer, Rates},
    plot::Curve,
};
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use keyframed_models::torch_ext::use_threads;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Instant,
};
use tch::Tensor;

/// A named figure of a step, for curves and the progress line.
pub type Figure = (&'static str, f64);

/// What differs between stages.
pub trait Stage {
    /// Name of files and curves.
    fn name(&self) -> &'static str;
    /// Trainable tensors by key.
    fn params(&self) -> BTreeMap<String, Tensor>;
    /// Step sizes.
    fn rates(&self) -> Rates;
    /// The loss of one fresh batch; `progress` runs from 0 to 1. Randomness comes from `rng` alone, and only parameters
    /// are written to (their gradients, by the backward pass): several threads call this at once.
    ///
    /// # Errors
    /// A network refused its input.
    fn loss(&self, rng: &mut ChaCha8Rng, progress: f64) -> Result<(Tensor, Vec<Figure>)>;
    /// Draws what the network does now; called with the averaged weights in place.
    ///
    /// # Errors
    /// The picture cannot be made or written.
    fn sheet(&self, path: &Path) -> Result<Vec<Figure>>;
}

/// Keys at a network's edge, which AdamW moves.
fn edge(name: &str) -> bool {
    ["conv_in.", "conv_out.", "time_embedding", "quant_conv", "text", "lora_", "output_conv"]
        .iter()
        .any(|part| name.contains(part))
}

/// A stage that several threads take losses of.
struct Shared<'a>(&'a dyn Stage);

impl<'a> Shared<'a> {
    /// A method, so that closures hold all of it and not the reference within.
    fn get(&self) -> &'a dyn Stage {
        self.0
    }
}

// SAFETY: `Stage::loss` takes `&self`. libtorch reads a tensor from several threads at once safely; what backward passes
// write are the parameters' gradients, each behind the lock of its `AccumulateGrad` node.
unsafe impl Sync for Shared<'_> {}

/// One stage on its way from nothing to its budget.
pub struct Trainer {
    optimizer: Optimizer,
    params: BTreeMap<String, Tensor>,
    average: BTreeMap<String, Tensor>,
    curve: Curve,
    steps: u64,
    seconds: f64,
    dir: PathBuf,
    seed: u64,
    shards: usize,
}

impl Trainer {
    /// Starts `stage`, or continues it from its checkpoint in `dir`. Each step draws `shards` batches, one a thread.
    ///
    /// # Errors
    /// A checkpoint exists and cannot be read.
    pub fn new(stage: &dyn Stage, dir: &Path, seed: u64, shards: usize) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let params = stage.params();
        let average = params.iter().map(|(k, t)| (k.clone(), t.detach().copy())).collect();
        let mut trainer = Self {
            optimizer: Optimizer::new(&params, stage.rates(), edge),
            params,
            average,
            curve: Curve::default(),
            steps: 0,
            seconds: 0.0,
            dir: dir.to_owned(),
            seed,
            shards: shards.max(1),
        };
        let file = trainer.file(stage);
        if file.exists() {
            trainer.restore(&file)?;
        }
        Ok(trainer)
    }

    fn file(&self, stage: &dyn Stage) -> PathBuf {
        self.dir.join(format!("{}.ckpt", stage.name()))
    }

    fn restore(&mut self, file: &Path) -> Result<()> {
        let all = checkpoint::read(file)?;
        copy_into(&self.params, &checkpoint::below(&all, "model"));
        copy_into(&self.average, &checkpoint::below(&all, "average"));
        self.optimizer.restore(&checkpoint::below(&all, "optimizer"));
        let clock = all.get("clock").with_context(|| format!("{} has no clock", file.display()))?;
        self.steps = clock.double_value(&[0]) as u64;
        self.seconds = clock.double_value(&[1]);
        Ok(())
    }

    fn save(&self, file: &Path) -> Result<()> {
        let mut all = vec![("clock".to_owned(), Tensor::from_slice(&[self.steps as f64, self.seconds]))];
        let mut put = |prefix: &str, tensors: &BTreeMap<String, Tensor>| {
            all.extend(tensors.iter().map(|(k, t)| (format!("{prefix}.{k}"), t.shallow_clone())));
        };
        put("model", &self.params);
        put("average", &self.average);
        all.extend(self.optimizer.state().into_iter().map(|(k, t)| (format!("optimizer.{k}"), t)));
        checkpoint::write(file, &all)
    }

    /// Trains until the stage has had `minutes` in all.
    ///
    /// # Errors
    /// A step fails, or a file cannot be written.
    pub fn run(&mut self, stage: &dyn Stage, minutes: f64) -> Result<()> {
        let file = self.file(stage);
        let bar = ProgressBar::new((minutes * 60.0) as u64);
        bar.set_style(ProgressStyle::with_template("{prefix} {wide_bar} {percent}% {msg} left {eta}")?);
        bar.set_prefix(stage.name());
        let (mut last, mut saved, mut drawn) = (Instant::now(), self.seconds, self.seconds);
        while self.seconds < minutes * 60.0 {
            let progress = self.seconds / (minutes * 60.0);
            let figures = self.step(stage, progress)?;
            self.seconds += last.elapsed().as_secs_f64();
            last = Instant::now();
            self.curve.push(self.seconds / 60.0, &figures);
            if self.steps.is_multiple_of(20) {
                bar.set_position(self.seconds as u64);
                bar.set_message(self.line());
                if !console_is_terminal() && self.steps.is_multiple_of(100) {
                    eprintln!("{} {:.1} min {}", stage.name(), self.seconds / 60.0, self.line());
                }
            }
            if self.seconds - saved > 120.0 {
                saved = self.seconds;
                self.save(&file)?;
            }
            if self.seconds - drawn > 300.0 {
                drawn = self.seconds;
                self.draw(stage)?;
                last = Instant::now();
            }
        }
        self.save(&file)?;
        let figures = self.draw(stage)?;
        bar.finish_with_message(self.line());
        eprintln!("{}: {} steps in {:.1} min, {figures:?}", stage.name(), self.steps, self.seconds / 60.0);
        Ok(())
    }

    fn step(&mut self, stage: &dyn Stage, progress: f64) -> Result<Vec<Figure>> {
        self.optimizer.zero_grad();
        let mut figures = self.backward(stage, progress)?;
        let norm = self.optimizer.clip(1.0);
        if norm.is_finite() {
            self.optimizer.step(rate_factor(self.steps, progress));
        }
        self.steps += 1;
        let keep = ((1 + self.steps) as f64 / (20 + self.steps) as f64).min(0.999);
        tch::no_grad(|| {
            for (name, average) in &mut self.average {
                let _ = average.lerp_(&self.params[name], 1.0 - keep);
            }
        });
        figures.push(("gradient", norm));
        Ok(figures)
    }

    /// Gradients of the mean over all shards' batches, and the mean of their figures.
    fn backward(&self, stage: &dyn Stage, progress: f64) -> Result<Vec<Figure>> {
        let (seed, steps, shards) = (self.seed, self.steps, self.shards);
        let threads = (tch::get_num_threads() as usize / shards).max(1);
        let stage = Shared(stage);
        let shard = |index: usize| {
            // A stream of its own: a resumed run sees the batches that an unbroken one would.
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(steps * shards as u64 + index as u64 + 1);
            use_threads(threads);
            let (loss, figures) = stage.get().loss(&mut rng, progress)?;
            (loss / shards as f64).backward();
            Ok(figures)
        };
        if shards == 1 {
            return shard(0);
        }
        let parts: Result<Vec<Vec<Figure>>> = std::thread::scope(|scope| {
            let shard = &shard;
            let threads: Vec<_> = (0..shards).map(|index| scope.spawn(move || shard(index))).collect();
            threads
                .into_iter()
                .map(|t| t.join().unwrap_or_else(|why| std::panic::resume_unwind(why)))
                .collect()
        });
        let parts = parts?;
        let mean = |i: usize| parts.iter().map(|part| part[i].1).sum::<f64>() / parts.len() as f64;
        Ok(parts[0].iter().enumerate().map(|(i, figure)| (figure.0, mean(i))).collect())
    }

    fn line(&self) -> String {
        format!("step {} {}", self.steps, self.curve.latest(100))
    }

    /// Evaluation sheet and curve, with the averaged weights in place.
    fn draw(&mut self, stage: &dyn Stage) -> Result<Vec<Figure>> {
        let own: BTreeMap<String, Tensor> =
            self.params.iter().map(|(k, t)| (k.clone(), t.detach().copy())).collect();
        copy_into(&self.params, &self.average);
        let figures = tch::no_grad(|| stage.sheet(&self.dir.join(format!("{}.png", stage.name()))));
        copy_into(&self.params, &own);
        self.curve.draw(&self.dir.join(format!("{}-curve.png", stage.name())))?;
        figures
    }

    /// Steps and seconds so far.
    pub fn spent(&self) -> (u64, f64) {
        (self.steps, self.seconds)
    }

    /// Puts the averaged weights in place for good (the end of a stage).
    pub fn settle(&mut self) {
        copy_into(&self.params, &self.average);
    }
}

fn console_is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr())
}

/// Warm-up, a plateau, then a cosine to nearly nothing.
fn rate_factor(step: u64, progress: f64) -> f64 {
    let warm = ((step + 1) as f64 / 60.0).min(1.0);
    let fall =
        if progress < 0.3 { 1.0 } else { 0.5 + 0.5 * (std::f64::consts::PI * (progress - 0.3) / 0.7).cos() };
    warm * fall.max(0.01)
}

fn copy_into(to: &BTreeMap<String, Tensor>, from: &BTreeMap<String, Tensor>) {
    tch::no_grad(|| {
        for (name, tensor) in to {
            if let Some(value) = from.get(name) {
                tensor.shallow_clone().copy_(value);
            }
        }
    });
}
