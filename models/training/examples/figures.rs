//! Looks at the synthetic figures: contact sheet, avatars, comparison with real clips, speed.
//!
//!     cargo run --release -p keyframed-train --example figures -- --rig rig.safetensors sheet sheet.png
#![allow(clippy::print_stdout)]

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use keyframed_train::synth::{
    Camera, GALLERY, Person, Pose, Rig, degrade, render, report, sheet, write_avatars,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

#[derive(Parser)]
#[command(about = "Looks at the synthetic figures")]
struct Args {
    /// Rig made by synth/export_rig.py.
    #[arg(long, default_value = "rig.safetensors")]
    rig: PathBuf,
    /// Seed of people and poses.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes a contact sheet: gallery, then reference, labels, pictures.
    Sheet { path: PathBuf },
    /// Writes the gallery's reference pictures as NAME.png.
    Avatars {
        folder: PathBuf,
        #[arg(long, default_value_t = 256)]
        size: usize,
    },
    /// Compares labels with those of real DensePose clips (needs ffmpeg).
    Report { clips: Vec<PathBuf> },
    /// Measures the renderer on one thread.
    Speed,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let path = Rig::default_path().unwrap_or(args.rig);
    let rig = Rig::load(&path)?;
    match args.command {
        Command::Sheet { path } => sheet(&rig, &path, args.seed),
        Command::Avatars { folder, size } => {
            std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
            write_avatars(&rig, &folder, size)?;
            println!("{} avatars in {}", GALLERY.len(), folder.display());
            Ok(())
        }
        Command::Report { clips } => {
            println!("{}", report(&rig, &clips, args.seed)?);
            Ok(())
        }
        Command::Speed => {
            speed(&rig, args.seed);
            Ok(())
        }
    }
}

fn speed(rig: &Rig, seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let count = 200;
    let start = Instant::now();
    let shots = (0..count).map(|index| {
        let person = Person::random(&mut rng);
        render(rig, &person, index, &Pose::random(&mut rng), &Camera::random(&mut rng), 256)
    });
    let shots: Vec<_> = shots.collect();
    println!("{:.0} pictures with labels a second", count as f64 / start.elapsed().as_secs_f64());
    let start = Instant::now();
    for shot in &shots {
        std::hint::black_box(degrade(&shot.labels, 0.7, &mut rng));
    }
    println!("{:.0} label maps worsened a second", count as f64 / start.elapsed().as_secs_f64());
}
