//! FILM against the PyTorch port's numbers, and its keys and shapes at full size.

mod common;
mod manifest;

use common::{assert_close, config, goldens_with, json, manifests, metadata, source, tensors};
use keyframed_models::{
    Source,
    film::{Film, FilmConfig, Flow, PadBox, multi_frame_order, warp},
};
use manifest::{assert_fits, listed};
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

const SINGLE: f64 = 2e-5;

fn assert_flow(flow: &Flow, io: &BTreeMap<String, Tensor>, name: &str) {
    let count = |what: &str| io.keys().filter(|k| k.starts_with(&format!("{name}_{what}."))).count();
    assert_eq!(flow.residuals.len(), count("residual_flow_pyramid"));
    assert_eq!(flow.flows.len(), count("flow_pyramid"));
    for (level, residual) in flow.residuals.iter().enumerate() {
        assert_close(residual, &io[&format!("{name}_residual_flow_pyramid.{level}")], SINGLE);
    }
    for (level, flow) in flow.flows.iter().enumerate() {
        assert_close(flow, &io[&format!("{name}_flow_pyramid.{level}")], SINGLE);
    }
}

#[test]
fn film_computes_what_the_port_computes() {
    let Some(folder) = goldens_with(&["film_weights", "film_io"]) else { return };
    let weights = source(&folder.join("film_weights.safetensors"));
    let config: FilmConfig = serde_json::from_value(config("film")).unwrap();
    let film = Film::new(&weights.root(), &config).unwrap();
    weights.finish().unwrap();
    let io = tensors(&folder.join("film_io.safetensors"));
    tch::no_grad(|| {
        let (x0, x1) = (film.pyramid(&io["x0"]), film.pyramid(&io["x1"]));
        let mut compared = 0;
        for level in 0..config.pyramid_levels {
            for (kind, found) in [("image_pyramid", &x0.images), ("features", &x0.features)] {
                if let Some(wanted) = io.get(&format!("{kind}_x0.{level}")) {
                    assert_close(&found[level], wanted, SINGLE);
                    compared += 1;
                }
            }
        }
        assert!(compared > 0);
        let motion = film.motion(&x0, &x1);
        assert_flow(&motion.forward, &io, "forward");
        assert_flow(&motion.backward, &io, "backward");
        for name in io.keys().filter(|name| name.ends_with(".image") && name.starts_with('t')) {
            let t: f64 = name[1..name.len() - ".image".len()].parse().unwrap();
            assert_close(&film.at(&motion, t).image, &io[name], SINGLE);
        }
        assert_close(&film.forward(&io["x0"], &io["x1"], 0.5), &io["t0.5.image"], SINGLE);
    });
}

#[test]
fn warping_and_padding_follow_the_port() {
    let Some(folder) = goldens_with(&["film_io"]) else { return };
    let file = folder.join("film_io.safetensors");
    let io = tensors(&file);
    assert_close(&warp(&io["warp_test.image"], &io["warp_test.flow"]), &io["warp_test.out"], SINGLE);
    let config: FilmConfig = serde_json::from_value(config("film")).unwrap();
    let (small, large) = (&io["pad_test.in"], &io["pad_test.out"]);
    let (height, width) = (small.size()[2], small.size()[3]);
    let pad = PadBox::new(height, width, config.alignment());
    let found = pad.pad(small);
    assert_close(&found, large, 0.0);
    assert_close(&pad.crop(&found), small, 0.0);
    let region = &metadata(&file)["crop_region_of_pad_test"];
    let wanted: [i64; 4] = serde_json::from_value(region.clone()).unwrap();
    assert_eq!([pad.top, pad.left, pad.top + height, pad.left + width], wanted);
}

#[test]
fn several_frames_are_made_in_the_scripts_order() {
    let Some(folder) = goldens_with(&["film_multiframe_order.json"]) else { return };
    let cases = json(&folder.join("film_multiframe_order.json"));
    for (frames, wanted) in cases.as_object().unwrap() {
        let found = multi_frame_order(frames.parse().unwrap());
        let wanted = wanted.as_array().unwrap();
        assert_eq!(found.len(), wanted.len());
        for (step, wanted) in found.iter().zip(wanted) {
            let place = |name: &str| wanted[name].as_u64().unwrap() as usize;
            assert_eq!((step.left, step.right, step.new), (place("left"), place("right"), place("new")));
            assert_eq!(step.dt, wanted["dt"].as_f64().unwrap() as f32, "{frames} frames: {step:?}");
        }
    }
}

#[test]
fn full_size_film_asks_for_exactly_the_published_tensors() {
    let Some(folder) = manifests() else { return };
    let shapes = listed(&json(&folder.join("film_net_full.json"))["tensors"], "");
    assert_fits(shapes, |vars| Film::new(vars, &FilmConfig::default()));
}

fn small() -> FilmConfig {
    FilmConfig {
        pyramid_levels: 4,
        fusion_pyramid_levels: 3,
        specialized_levels: 2,
        flow_skips: 0,
        sub_levels: 3,
        filters: 4,
        flow_convs: vec![1, 2, 2],
        flow_filters: vec![4, 4, 8],
    }
}

#[test]
fn film_is_trainable_in_every_tensor() {
    let weights = Source::fresh(Device::Cpu);
    let film = Film::new(&weights.root(), &small()).unwrap();
    let options = (Kind::Float, Device::Cpu);
    let (x0, x1) = (Tensor::rand([2, 3, 16, 24], options), Tensor::rand([2, 3, 16, 24], options));
    let (p0, p1) = (film.pyramid(&x0), film.pyramid(&x1));
    let motion = film.motion(&p0, &p1);
    let between = film.at_each(&motion, &Tensor::from_slice(&[0.25f32, 0.75]).view([2, 1, 1, 1]));
    assert_eq!(between.image.size(), x0.size());
    assert_eq!(between.warped0.size(), x0.size());
    between.image.square().mean(None).backward();
    for (name, tensor) in weights.tensors() {
        assert!(tensor.grad().defined(), "{name} has no gradient");
    }
}

/// A scale without a predictor is one whose predictor adds nothing.
#[test]
fn skipped_scales_take_the_flow_of_the_next_coarser_one() {
    let weights = Source::fresh(Device::Cpu);
    let whole = Film::new(&weights.root(), &small()).unwrap();
    let tensors = weights.tensors();
    tch::no_grad(|| {
        for part in ["weight", "bias"] {
            let _ = tensors[&format!("predict_flow._predictors.1._convs.2.0.{part}")].shallow_clone().zero_();
        }
    });
    let skipping = Film::new(&weights.root(), &FilmConfig { flow_skips: 1, ..small() }).unwrap();
    let options = (Kind::Float, Device::Cpu);
    let (x0, x1) = (Tensor::rand([1, 3, 32, 24], options), Tensor::rand([1, 3, 32, 24], options));
    tch::no_grad(|| assert_close(&skipping.forward(&x0, &x1, 0.5), &whole.forward(&x0, &x1, 0.5), SINGLE));
    assert_eq!(weights.tensors().len(), tensors.len(), "the predictors that remain keep their keys");
}

/// The time of each picture of a batch is its own.
#[test]
fn times_of_a_batch_are_independent() {
    let weights = Source::fresh(Device::Cpu);
    let film = Film::new(&weights.root(), &small()).unwrap();
    let options = (Kind::Float, Device::Cpu);
    let (x0, x1) = (Tensor::rand([1, 3, 16, 16], options), Tensor::rand([1, 3, 16, 16], options));
    tch::no_grad(|| {
        let (p0, p1) = (film.pyramid(&x0.repeat([2, 1, 1, 1])), film.pyramid(&x1.repeat([2, 1, 1, 1])));
        let times = Tensor::from_slice(&[0.25f32, 0.75]).view([2, 1, 1, 1]);
        let both = film.at_each(&film.motion(&p0, &p1), &times).image;
        for (i, t) in [0.25, 0.75].into_iter().enumerate() {
            assert_close(&both.narrow(0, i as i64, 1), &film.forward(&x0, &x1, t), SINGLE);
        }
    });
}

#[test]
fn impossible_configurations_are_refused() {
    let weights = Source::fresh(Device::Cpu);
    let bad = [
        FilmConfig { pyramid_levels: 0, ..small() },
        FilmConfig { fusion_pyramid_levels: 5, ..small() },
        FilmConfig { specialized_levels: 4, ..small() },
        FilmConfig { specialized_levels: 1, flow_convs: vec![1, 1], flow_filters: vec![4, 4], ..small() },
        FilmConfig { flow_convs: vec![1], ..small() },
        FilmConfig { filters: 0, ..small() },
        FilmConfig { flow_skips: 3, ..small() },
        FilmConfig { flow_filters: vec![4, 1, 4], ..small() },
    ];
    for config in bad {
        assert!(Film::new(&weights.root(), &config).is_err(), "{config:?}");
    }
}
