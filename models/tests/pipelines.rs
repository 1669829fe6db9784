//! Whole denoising runs against the original pipeline's numbers, through the
//! step functions that the streaming generator uses.

mod common;

use common::{assert_close, goldens_with, json, manifests, metadata, parsed, source, tensors, unet};
use keyframed_models::{
    AppearanceEncoder, ControlNet, Fusion, ProjectedBank, Stack,
    autoencoder::{Autoencoder, AutoencoderConfig},
    generator::{Sampling, context_windows},
    scheduler::{Scheduler, SchedulerConfig, build},
    stack::Text,
};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};
use tch::{Device, Kind, Tensor};

const PIPELINE: f64 = 1e-4;
const SINGLE: f64 = 2e-5;

fn stack(folder: &Path, text: &Tensor) -> Stack {
    let vae = source(&folder.join("vae_weights.safetensors"));
    let controlnet = source(&folder.join("controlnet_weights.safetensors"));
    let appearance = source(&folder.join("appearance_weights.safetensors"));
    Stack {
        vae: Autoencoder::new(&vae.root(), &AutoencoderConfig::Kl(parsed("vae"))).unwrap().into(),
        unet: unet(folder, &parsed("unet3d")),
        controlnet: ControlNet::new(&controlnet.root(), &parsed("controlnet")).unwrap(),
        // The original's pipeline always pairs the middle and the way up.
        appearance: AppearanceEncoder::new(&appearance.root(), &parsed("appearance_encoder"), Fusion::Midup)
            .unwrap(),
        text: Text { unconditional: text.narrow(0, 0, 1), conditional: text.narrow(0, 1, 1) },
        device: Device::Cpu,
    }
}

fn scheduler(facts: &BTreeMap<String, Value>) -> Box<dyn Scheduler> {
    let mut config = facts["scheduler_config"].clone();
    config["_class_name"] = facts["scheduler"].clone();
    let config: SchedulerConfig = serde_json::from_value(config).unwrap();
    build(&config, facts["steps"].as_u64().unwrap() as usize).unwrap()
}

fn windows(facts: &BTreeMap<String, Value>, frames: i64) -> Vec<Vec<i64>> {
    let number = |name: &str| facts[name].as_u64().unwrap() as usize;
    let windows = context_windows(frames as usize, number("context_frames"), number("context_overlap"));
    assert_eq!(serde_json::to_value(&windows).unwrap(), facts["unet_windows"]);
    windows
}

struct Case {
    facts: BTreeMap<String, Value>,
    io: BTreeMap<String, Tensor>,
    guidance: f64,
}

impl Case {
    fn new(folder: &Path, name: &str) -> Self {
        let file = folder.join(format!("{name}.safetensors"));
        let (facts, io) = (metadata(&file), tensors(&file));
        // The file without guidance states the scale of its sibling.
        let alone = facts.contains_key("note");
        let guidance = if alone { 1.0 } else { facts["guidance_scale"].as_f64().unwrap() };
        Self { facts, io, guidance }
    }

    fn step(&self, index: usize, name: &str) -> Option<&Tensor> {
        self.io.get(&format!("step{index}.{name}"))
    }

    /// The raw answers, whole or per window; both halves are the same without guidance.
    fn compare_raw(&self, index: usize, raw: &[Tensor]) {
        for (window, answer) in raw.iter().enumerate() {
            let wanted =
                self.step(index, "unet_out").or(self.step(index, &format!("unet_out.window{window}")));
            let wanted = wanted.expect("a stored answer");
            let rows = answer.size()[0];
            assert_close(answer, &wanted.narrow(0, wanted.size()[0] - rows, rows), PIPELINE);
        }
    }

    fn run(&self, folder: &Path) {
        let io = &self.io;
        let stack = stack(folder, &io["encoder_hidden_states"]);
        let scheduler = scheduler(&self.facts);
        assert_eq!(Tensor::from_slice(scheduler.timesteps()), io["timesteps"]);
        let picture = io["ref_image_u8"].to_kind(Kind::Float) / 127.5 - 1.0;
        let reference = stack.vae.encode(&picture).unwrap();
        assert_close(&reference, &io["ref_latents"], SINGLE);
        let bank = |&t: &i64| stack.unet.project(&stack.features(&reference, t).unwrap()).unwrap();
        let banks: Vec<ProjectedBank> = scheduler.timesteps().iter().map(bank).collect();
        let poses = io["controlnet_cond_u8"].to_kind(Kind::Float) / 255.0;
        let embedded = stack.controlnet.embed_condition(&poses).unwrap();
        let mut latents = &io["init_latents"] * scheduler.init_noise_sigma();
        let sampling = Sampling {
            stack: &stack,
            scheduler: scheduler.as_ref(),
            banks: &banks,
            begun: None,
            embedded: &embedded,
            windows: &windows(&self.facts, latents.size()[2]),
            guidance: self.guidance,
            controlnet_scale: self.facts["conditioning_scale"].as_f64().unwrap(),
        };
        for index in 0..scheduler.timesteps().len() {
            let raw = sampling.predict(&latents, index, None).unwrap();
            self.compare_raw(index, &raw);
            assert_close(&sampling.join(&raw), self.step(index, "guided").unwrap(), PIPELINE);
            let step = sampling.step(&latents, index, self.step(index, "noise")).unwrap();
            let denoised = self.step(index, "denoised").or(self.step(index, "pred_original_sample"));
            assert_close(&step.denoised, denoised.unwrap(), PIPELINE);
            assert_close(&step.prev, self.step(index, "latents_out").unwrap(), PIPELINE);
            latents = step.prev;
        }
        assert_close(&latents, &io["final_latents"], PIPELINE);
        let wanted = &io["decoded_raw"];
        let frames = latents.squeeze_dim(0).transpose(0, 1).narrow(0, 0, wanted.size()[0]);
        assert_close(&stack.vae.decode(&frames), wanted, PIPELINE);
    }
}

fn check(name: &str) {
    let networks =
        ["vae_weights", "unet2d_weights", "motion_weights", "controlnet_weights", "appearance_weights"];
    let files: Vec<&str> = networks.into_iter().chain([name]).collect();
    let Some(folder) = goldens_with(&files) else { return };
    tch::no_grad(|| Case::new(&folder, name).run(&folder));
}

#[test]
fn pipeline_ddim() {
    check("pipeline_ddim");
}

#[test]
fn pipeline_ddim_windowed() {
    check("pipeline_ddim_windowed");
}

#[test]
fn pipeline_lcm_cfg() {
    check("pipeline_lcm_cfg");
}

#[test]
fn pipeline_lcm_nocfg() {
    check("pipeline_lcm_nocfg");
}

#[test]
fn windows_are_those_of_the_original() {
    let Some(folder) = manifests() else { return };
    let cases = json(&folder.join("context_windows.json"));
    let cases = cases["cases"].as_object().unwrap();
    assert!(!cases.is_empty());
    for (name, wanted) in cases {
        let number = |word: &str| -> usize {
            let part = name.split('_').find_map(|part| part.strip_prefix(word));
            part.and_then(|n| n.parse().ok()).expect("a number in the case's name")
        };
        assert_eq!(number("stride"), 1);
        let found = context_windows(number("frames"), number("ctx"), number("overlap"));
        assert_eq!(serde_json::to_value(found).unwrap(), *wanted, "{name}");
    }
}
