//! ControlNet, appearance encoder and the full denoising step against the original's
//! numbers (`controlnet_io`, `appearance_io`, `fullstep_io`; see the goldens' README).

mod common;

use common::{assert_close, error, goldens_with, metadata, parsed, source, tensors, timestep, unet};
use keyframed_models::{AppearanceEncoder, Bank, ControlNet, ControlNetResiduals, Fusion, Reference, UNet};
use std::{collections::BTreeMap, path::Path};
use tch::{Kind, Tensor};

const TOLERANCE: f64 = 2e-5;
/// What the full step reads.
const STEP: [&str; 5] =
    ["fullstep_io", "controlnet_weights", "appearance_weights", "unet2d_weights", "motion_weights"];

fn controlnet(folder: &Path) -> ControlNet {
    let source = source(&folder.join("controlnet_weights.safetensors"));
    let net = ControlNet::new(&source.root(), &parsed("controlnet")).unwrap();
    source.finish().unwrap();
    net
}

fn encoder(folder: &Path, fusion: Fusion) -> AppearanceEncoder {
    let source = source(&folder.join("appearance_weights.safetensors"));
    let encoder = AppearanceEncoder::new(&source.root(), &parsed("appearance_encoder"), fusion).unwrap();
    source.finish().unwrap();
    encoder
}

fn pictures(bytes: &Tensor) -> Tensor {
    bytes.to_kind(Kind::Float) / 255.0
}

#[track_caller]
fn assert_residuals(found: &ControlNetResiduals, io: &BTreeMap<String, Tensor>, prefix: &str) {
    let expected = io.keys().filter(|name| name.starts_with(&format!("{prefix}.down."))).count();
    assert_eq!(found.down.len(), expected);
    for (i, residual) in found.down.iter().enumerate() {
        assert_close(residual, &io[&format!("{prefix}.down.{i:02}")], TOLERANCE);
    }
    assert_close(&found.mid, &io[&format!("{prefix}.mid")], TOLERANCE);
}

#[test]
fn controlnet_residuals() {
    let Some(folder) = goldens_with(&["controlnet_io", "controlnet_weights"]) else { return };
    let file = folder.join("controlnet_io.safetensors");
    let (io, meta, net) = (tensors(&file), metadata(&file), controlnet(&folder));
    let embedded = net.embed_condition(&pictures(&io["controlnet_cond_u8"])).unwrap();
    assert_close(&embedded, &io["cond_embedding_out"], TOLERANCE);
    let (sample, text) = (&io["sample"], &io["encoder_hidden_states"]);
    for (case, values) in meta["cases"].as_object().unwrap() {
        let (t, scale) = (timestep(&values["timestep"]), values["conditioning_scale"].as_f64().unwrap());
        let residuals = net.forward(sample, &t, text, &embedded, scale).unwrap();
        assert_residuals(&residuals, &io, case);
        let half = net.forward(sample, &t, text, &embedded, scale / 2.0).unwrap();
        assert_close(&(half.mid * 2.0), &residuals.mid, TOLERANCE);
    }
}

#[test]
fn appearance_banks() {
    let Some(folder) = goldens_with(&["appearance_io", "appearance_weights"]) else { return };
    let file = folder.join("appearance_io.safetensors");
    let (io, meta) = (tensors(&file), metadata(&file));
    let encoder = encoder(&folder, Fusion::Full);
    for (name, t) in meta["timesteps"].as_object().unwrap() {
        let bank = encoder.forward(&io["sample"], &timestep(t), &io["encoder_hidden_states"]).unwrap();
        let prefix = format!("{name}.bank.");
        let expected: Vec<_> = io.keys().filter_map(|key| key.strip_prefix(&prefix)).collect();
        assert_eq!(bank.blocks().keys().collect::<Vec<_>>(), expected);
        for (block, features) in bank.blocks() {
            assert_close(features, &io[&format!("{prefix}{block}")], TOLERANCE);
        }
    }
}

#[test]
fn fusion_picks_the_originals_blocks() {
    let Some(folder) = goldens_with(&["appearance_io", "appearance_weights", "attention_block_order.json"])
    else {
        return;
    };
    let file = folder.join("appearance_io.safetensors");
    let io = tensors(&file);
    let steps = metadata(&file)["timesteps"].clone();
    let t = timestep(steps.as_object().unwrap().values().next().unwrap());
    let order = common::json(&folder.join("attention_block_order.json"));
    for (fusion, name) in [(Fusion::Midup, "midup"), (Fusion::Full, "full")] {
        let bank = encoder(&folder, fusion).forward(&io["sample"], &t, &io["encoder_hidden_states"]).unwrap();
        let mut expected: Vec<_> =
            order[name]["dfs_order"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
        expected.sort_unstable();
        assert_eq!(bank.blocks().keys().collect::<Vec<_>>(), expected);
    }
}

/// One denoising step under guidance, as the original's pipeline composes it.
struct Step {
    io: BTreeMap<String, Tensor>,
    t: Tensor,
    guidance: f64,
    unet: UNet,
    residuals: ControlNetResiduals,
}

impl Step {
    fn new(folder: &Path) -> Self {
        let file = folder.join("fullstep_io.safetensors");
        let (io, meta, net) = (tensors(&file), metadata(&file), controlnet(folder));
        let t = timestep(&meta["timestep"]);
        let embedded = net.embed_condition(&pictures(&io["controlnet_cond_u8"])).unwrap();
        let frames = io["latents"].transpose(1, 2).flatten(0, 1);
        // It sees the conditional text alone, every frame the same.
        let text = io["encoder_hidden_states"].narrow(0, 1, 1);
        let scale = meta["conditioning_scale"].as_f64().unwrap();
        let residuals = net.forward(&frames, &t, &text, &embedded, scale).unwrap();
        let (guidance, unet) = (meta["guidance_scale"].as_f64().unwrap(), unet(folder, &parsed("unet3d")));
        Self { io, t, guidance, unet, residuals }
    }

    fn bank(&self, folder: &Path, fusion: Fusion) -> Bank {
        let latents = self.io["ref_latents"].repeat([2, 1, 1, 1]);
        encoder(folder, fusion).forward(&latents, &self.t, &self.io["encoder_hidden_states"]).unwrap()
    }

    fn run(&self, controlnet: bool, reference: Option<Reference>) -> Tensor {
        let latents = self.io["latents"].repeat([2, 1, 1, 1, 1]);
        let (text, residuals) = (&self.io["encoder_hidden_states"], controlnet.then_some(&self.residuals));
        self.unet.forward(&latents, &self.t, text, residuals, reference.as_ref()).unwrap()
    }

    #[track_caller]
    fn expect(&self, out: &Tensor, name: &str) {
        assert_close(out, &self.io[&format!("noise_pred.{name}")], TOLERANCE);
    }
}

#[test]
fn full_step_without_reference() {
    let Some(folder) = goldens_with(&STEP) else { return };
    let step = Step::new(&folder);
    assert_residuals(&step.residuals, &step.io, "controlnet");
    step.expect(&step.run(false, None), "no_reference_no_controlnet");
    step.expect(&step.run(true, None), "controlnet_only");
}

#[test]
fn full_step() {
    let Some(folder) = goldens_with(&STEP) else { return };
    let step = Step::new(&folder);
    for (fusion, name) in [(Fusion::Midup, "midup"), (Fusion::Full, "full")] {
        let bank = step.bank(&folder, fusion);
        let out = step.run(true, Some(Reference::hidden(&bank).after(1)));
        step.expect(&out, name);
        if fusion == Fusion::Midup {
            let (uncond, cond) = (out.narrow(0, 0, 1), out.narrow(0, 1, 1));
            step.expect(&(&uncond + (&cond - &uncond) * step.guidance), "guided");
        }
    }
}

/// The original casts the bank to float16 on the way. That moves the result by
/// 4e-5, twice what this test forgives.
#[test]
fn full_step_with_half_precision_bank() {
    let Some(folder) = goldens_with(&STEP) else { return };
    let step = Step::new(&folder);
    let bank = step.bank(&folder, Fusion::Midup).to_kind(Kind::Half).to_kind(Kind::Float);
    let out = step.run(true, Some(Reference::hidden(&bank).after(1)));
    step.expect(&out, "midup_bank_fp16");
}

/// What inference keeps gives the same as what training passes on, whichever rows the bank has.
#[test]
fn projected_bank_equals_hidden() {
    let Some(folder) = goldens_with(&STEP) else { return };
    let step = Step::new(&folder);
    let bank = step.bank(&folder, Fusion::Midup);
    let one_row = bank.rows(1, 1);
    for bank in [&bank, &one_row] {
        let projected = step.unet.project(bank).unwrap();
        step.expect(&step.run(true, Some(Reference::projected(&projected).after(1))), "midup");
        step.expect(&step.run(true, Some(Reference::hidden(bank).after(1))), "midup");
    }
    // Both samples reading the conditional row: the second is the conditional half as before.
    let out = step.run(true, Some(Reference::hidden(&one_row)));
    let expected = &step.io["noise_pred.midup"];
    assert_close(&out.narrow(0, 1, 1), &expected.narrow(0, 1, 1), TOLERANCE);
    assert!(error(&out.narrow(0, 0, 1), &expected.narrow(0, 0, 1)) > 1e-3, "the first half read nothing");
}

#[test]
fn refuses_foreign_banks_and_residuals() {
    let Some(folder) = goldens_with(&STEP) else { return };
    let step = Step::new(&folder);
    let bank = step.bank(&folder, Fusion::Midup);
    let text = &step.io["encoder_hidden_states"];
    let latents = step.io["latents"].repeat([4, 1, 1, 1, 1]);
    let refusal = |residuals: Option<&ControlNetResiduals>, bank: &Bank| {
        let reference = Reference::hidden(bank);
        let text = text.narrow(0, 0, 1);
        step.unet.forward(&latents, &step.t, &text, residuals, Some(&reference)).unwrap_err().to_string()
    };
    assert!(refusal(None, &bank).contains("has 2 rows, 4 samples"));
    let narrow = bank.rows(0, 1).map(|t| t.narrow(2, 0, 8));
    assert!(refusal(None, &narrow).contains("does not fit this U-Net"));
    assert!(step.unet.project(&narrow).unwrap_err().to_string().contains("does not fit"));
    let fitting = bank.rows(0, 1);
    let short = ControlNetResiduals { down: Vec::new(), mid: step.residuals.mid.shallow_clone() };
    assert!(refusal(Some(&short), &fitting).contains("0 ControlNet residuals"));
    // Neither a row per frame nor one per frame of every sample.
    let mid = step.residuals.mid.repeat([4, 1, 1, 1]);
    let mid = mid.narrow(0, 0, mid.size()[0] - 1);
    let down = step.residuals.down.iter().map(Tensor::shallow_clone).collect();
    assert!(
        refusal(Some(&ControlNetResiduals { down, mid }), &fitting).contains("ControlNet residual of shape")
    );
}
