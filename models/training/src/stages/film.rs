//! Stage `film`: frame interpolation on rendered triplets of one figure in motion.

use crate::{
    config::{self, Recipe},
    data,
    optim::Rates,
    plot,
    stages::psnr,
    synth::{Camera, Motion, Person, Rig, render},
    trainer::{Figure, Stage},
};
use anyhow::Result;
use keyframed_models::{
    Source,
    film::{Between, Film, FilmConfig},
    torch_ext::CpuAutocast,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{collections::BTreeMap, path::Path};
use tch::{Device, IndexOp, Kind, Tensor};

/// Two frames, one between them, and its time.
struct Triplet {
    first: Vec<u8>,
    between: Vec<u8>,
    last: Vec<u8>,
    labels: Vec<u8>,
    time: f64,
}

/// Share of [`decibels`] in the loss: at 28 dB its gradient is as large as that of the mean error.
const DECIBELS: f64 = 0.02;

/// FILM in training.
pub struct FilmStage<'a> {
    recipe: &'a config::Film,
    rig: &'a Rig,
    size: usize,
    source: Source,
    network: Film,
}

impl<'a> FilmStage<'a> {
    /// A fresh network.
    ///
    /// # Errors
    /// The configuration describes no network.
    pub fn new(recipe: &'a Recipe, rig: &'a Rig) -> Result<Self> {
        let source = Source::fresh(Device::Cpu);
        let network = Film::new(&source.root(), &recipe.film.network)?;
        tch::no_grad(|| start_as_cross_fade(&source.tensors(), &recipe.film.network));
        Ok(Self { recipe: &recipe.film, rig, size: recipe.size, source, network })
    }

    /// Key frames 80 to 400 ms apart, as the selector spaces them.
    fn triplet(&self, rng: &mut ChaCha8Rng) -> Triplet {
        let person = if rng.random_bool(0.4) {
            Person::gallery(rng.random_range(0..data::GALLERY))
        } else {
            Person::random(rng)
        };
        let motion = Motion::random(rng);
        let camera = Camera::random(rng);
        let shape = rng.random_range(0..self.rig.shapes());
        let (start, gap) = (rng.random_range(0.0..10.0), rng.random_range(0.08..0.4));
        let time = if rng.random_bool(0.5) { 0.5 } else { rng.random_range(0.1..0.9) };
        let at = |t: f64| render(self.rig, &person, shape, &motion.pose(t as f32), &camera, self.size);
        let (first, between, last) = (at(start), at(start + gap * time), at(start + gap));
        Triplet { first: first.rgb, between: between.rgb, last: last.rgb, labels: between.labels, time }
    }

    fn crop(&self, labels: &[u8], rng: &mut ChaCha8Rng) -> (i64, i64) {
        let (size, crop) = (self.size, self.recipe.crop);
        let inside: Vec<usize> = (0..labels.len()).step_by(11).filter(|&i| labels[i] > 0).collect();
        let at = if inside.is_empty() { size * size / 2 } else { *data::pick(&inside, rng) };
        let mut place =
            |centre: usize| centre.saturating_sub(rng.random_range(0..crop)).min(size - crop) as i64;
        (place(at % size), place(at / size))
    }
}

/// Lets the decoder's last step begin as the mean of both warped pictures, and training with what a cross-fade of
/// them reaches: its first filters carry the pictures' colours through unchanged (leaky ReLUs leave values above 0 as
/// they are), which as a rule takes long to learn and is never exact. Narrower networks start at random.
fn start_as_cross_fade(weights: &BTreeMap<String, Tensor>, config: &FilmConfig) {
    let filters = config.filters;
    let Some(last) = config.fusion_pyramid_levels.checked_sub(2).filter(|_| filters >= 6) else { return };
    let weight = |name: &str| weights[&format!("fuse.{name}.weight")].shallow_clone();
    let (first, second) = (weight(&format!("convs.{last}.1.0")), weight(&format!("convs.{last}.2.0")));
    let output = weight("output_conv");
    for name in [format!("convs.{last}.1.0"), format!("convs.{last}.2.0"), "output_conv".to_owned()] {
        let bias = &weights[&format!("fuse.{name}.bias")];
        let _ = bias.narrow(0, 0, bias.size()[0].min(6)).zero_();
    }
    for colours in [first.narrow(0, 0, 6), second.narrow(0, 0, 6), output.shallow_clone()] {
        let _ = colours.shallow_clone().zero_();
    }
    for channel in 0..6 {
        // The decoder reads a picture, its features, the other picture, its features.
        let source = channel % 3 + channel / 3 * (3 + filters);
        let _ = first.i((channel, source, 1, 1)).fill_(1.0);
        let _ = second.i((channel, channel, 1, 1)).fill_(1.0);
        let _ = output.i((channel % 3, channel, 0, 0)).fill_(0.5);
    }
}

/// Each picture, warped to the middle, should already be the truth: this teaches the flow.
fn warp_loss(between: &Between, truth: &Tensor, weight: &Tensor) -> Tensor {
    let side = |warped: &Tensor| ((warped.to_kind(Kind::Float) - truth).abs() * weight).mean(Kind::Float);
    side(&between.warped0) + side(&between.warped1)
}

/// Mean logarithm of each pair's squared error: pairs that hardly move count as much as others, though a cross-fade of
/// them is right to a thousandth, and nothing else would make the network reproduce them.
fn decibels(squared: &Tensor) -> Tensor {
    let pairs = squared.mean_dim([1i64, 2, 3].as_slice(), false, Kind::Float);
    (pairs + 1e-6).log().mean(Kind::Float)
}

/// RGB bytes as `[1, 3, size, size]` in [0, 1], which is what FILM takes.
fn unit(rgb: &[u8], size: usize) -> Tensor {
    data::picture_tensor(rgb, size) * 0.5 + 0.5
}

impl Stage for FilmStage<'_> {
    fn name(&self) -> &'static str {
        "film"
    }

    fn params(&self) -> BTreeMap<String, Tensor> {
        self.source.tensors()
    }

    fn rates(&self) -> Rates {
        Rates { muon: self.recipe.muon_lr, adam: self.recipe.adam_lr, weight_decay: 0.0 }
    }

    fn loss(&self, rng: &mut ChaCha8Rng, _progress: f64) -> Result<(Tensor, Vec<Figure>)> {
        let (size, crop) = (self.size, self.recipe.crop as i64);
        let mut parts: [Vec<Tensor>; 4] = Default::default();
        let mut times = Vec::new();
        for _ in 0..self.recipe.batch {
            let triplet = self.triplet(rng);
            let (x, y) = self.crop(&triplet.labels, rng);
            let cut = |t: Tensor| t.narrow(2, y, crop).narrow(3, x, crop);
            for (part, rgb) in parts.iter_mut().zip([&triplet.first, &triplet.between, &triplet.last]) {
                part.push(cut(unit(rgb, size)));
            }
            parts[3].push(cut(data::weights(&triplet.labels, size, 0.5, 2.0, 3.0)));
            times.push(triplet.time as f32);
        }
        let [first, truth, last, weight] = parts.map(|list| Tensor::cat(&list, 0).contiguous());
        let time = Tensor::from_slice(&times).view([-1, 1, 1, 1]);
        let between = {
            let _bf16 = self.recipe.bf16.then(CpuAutocast::enter);
            let (x0, x1) = (self.network.pyramid(&first), self.network.pyramid(&last));
            let motion = self.network.motion(&x0, &x1);
            self.network.at_each(&motion, &time)
        };
        let error = between.image.to_kind(Kind::Float) - &truth;
        let across = error.slice(3, 1, None, 1) - error.slice(3, None, -1, 1);
        let down = error.slice(2, 1, None, 1) - error.slice(2, None, -1, 1);
        let loss = (error.abs() * &weight).mean(Kind::Float)
            + (across.abs().mean(Kind::Float) + down.abs().mean(Kind::Float)) * 0.5
            + warp_loss(&between, &truth, &weight) * 0.25
            + decibels(&(error.square() * &weight)) * DECIBELS;
        let fade = (&first * 0.5 + &last * 0.5 - &truth).square().mean(Kind::Float).double_value(&[]);
        let mse = error.square().mean(Kind::Float).double_value(&[]);
        Ok((loss, vec![("psnr", psnr(mse * 4.0)), ("cross-fade", psnr(fade * 4.0))]))
    }

    fn sheet(&self, path: &Path) -> Result<Vec<Figure>> {
        let mut rng = ChaCha8Rng::seed_from_u64(0xF11A);
        let mut rows = Vec::new();
        let (mut film, mut fade) = (0.0, 0.0);
        let count = 6;
        for _ in 0..count {
            let triplet = self.midpoint(&mut rng);
            let (first, truth, last) = (
                unit(&triplet.first, self.size),
                unit(&triplet.between, self.size),
                unit(&triplet.last, self.size),
            );
            let made = self.network.forward(&first, &last, 0.5).clamp(0.0, 1.0);
            let mixed = (&first + &last) * 0.5;
            let score = |t: &Tensor| psnr((t - &truth).square().mean(Kind::Float).double_value(&[]) * 4.0);
            film += score(&made) / f64::from(count);
            fade += score(&mixed) / f64::from(count);
            let show = |t: &Tensor| data::bytes(&(t * 2.0 - 1.0));
            rows.push(vec![triplet.first, triplet.last, triplet.between, show(&made), show(&mixed)]);
        }
        plot::grid(path, &rows, self.size)?;
        Ok(vec![("psnr", film), ("cross-fade", fade)])
    }
}

impl FilmStage<'_> {
    /// A triplet whose truth lies exactly between.
    fn midpoint(&self, rng: &mut ChaCha8Rng) -> Triplet {
        loop {
            let triplet = self.triplet(rng);
            if (triplet.time - 0.5).abs() < 1e-9 {
                return triplet;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Even pictures stay what they are however they are warped.
    #[test]
    fn an_untrained_network_makes_the_mean_of_even_pictures() {
        let config = FilmConfig {
            pyramid_levels: 4,
            fusion_pyramid_levels: 3,
            specialized_levels: 2,
            sub_levels: 3,
            filters: 8,
            flow_convs: vec![1, 1, 1],
            flow_filters: vec![4, 4, 4],
            ..FilmConfig::default()
        };
        let source = Source::fresh(Device::Cpu);
        let network = Film::new(&source.root(), &config).unwrap();
        let even = |colour: [f32; 3]| Tensor::from_slice(&colour).view([1, 3, 1, 1]).repeat([1, 1, 32, 32]);
        let (first, last, mean) = (even([0.2, 0.9, 0.4]), even([0.6, 0.1, 0.4]), even([0.4, 0.5, 0.4]));
        tch::no_grad(|| {
            start_as_cross_fade(&source.tensors(), &config);
            let error = (network.forward(&first, &last, 0.5) - mean).abs().max().double_value(&[]);
            assert!(error < 1e-5, "{error}");
        });
    }
}
