//! LoRA merging against diffusers' and peft's numbers.

mod common;
mod manifest;

use common::{assert_close, config, goldens_with, json, manifests, metadata, source_of, tensors};
use keyframed_models::{
    Source, UNet, UNetConfig,
    checkpoint::{Lora, WeightFile},
};
use manifest::listed;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use tch::{Device, Kind, Tensor};

const SINGLE: f64 = 2e-5;

type Map = BTreeMap<String, Tensor>;

fn lora_of(tensors: Map) -> Lora {
    let metadata = BTreeMap::new();
    Lora::from_weights(WeightFile { file: "lora".into(), tensors, metadata }).unwrap()
}

fn merged(folder: &Path, lora: &Lora, scale: f64) -> Map {
    let mut weights = tensors(&folder.join("unet2d_weights.safetensors"));
    lora.merge_into(&mut weights, scale).unwrap();
    weights
}

/// The file with the alphas that the mixed case states per module.
fn mixed_alphas(folder: &Path) -> Map {
    let mut tensors = tensors(&folder.join("lora_kohya.safetensors"));
    let map = json(&folder.join("lora_map.json"));
    for (module, facts) in map["keymap"].as_object().unwrap() {
        let alpha = facts["alpha_in_mixed_case"].as_f64().unwrap();
        tensors.insert(format!("{module}.alpha"), Tensor::from(alpha as f32));
    }
    tensors
}

/// Compares every stored merged weight of `case`; returns how many there are.
fn compare(weights: &Map, io: &Map, case: &str) -> usize {
    let wanted = io.iter().filter_map(|(name, tensor)| Some((name.strip_prefix(case)?, tensor)));
    wanted.inspect(|(key, tensor)| assert_close(&weights[*key], tensor, 1e-6)).count()
}

fn unet2d(weights: Map) -> UNet {
    let config: UNetConfig = serde_json::from_value(config("unet2d")).unwrap();
    let source = Source::loaded("merged", weights, Device::Cpu, Kind::Float);
    let unet = UNet::new(&source.root(), &config).unwrap();
    source.finish().unwrap();
    unet
}

#[test]
fn merged_weights_and_outputs_are_the_originals() {
    let Some(folder) = goldens_with(&["lora_merge_io", "lora_kohya", "lora_map.json", "unet2d_weights"])
    else {
        return;
    };
    let io_file = folder.join("lora_merge_io.safetensors");
    let io = tensors(&io_file);
    let timestep = metadata(&io_file)["timestep"].as_i64().unwrap();
    let file = Lora::read(&folder.join("lora_kohya.safetensors")).unwrap();
    let mixed = lora_of(mixed_alphas(&folder));
    let cases = [(&file, 1.0, "scale1.0"), (&file, 0.7, "scale0.7"), (&mixed, 1.0, "mixed_alpha")];
    for (lora, scale, case) in cases {
        let weights = merged(&folder, lora, scale);
        assert!(compare(&weights, &io, &format!("merged_{case}.")) > 0, "{case}");
        let unet = unet2d(weights);
        let sample = io["unet2d.sample"].unsqueeze(2);
        let text = &io["unet2d.encoder_hidden_states"];
        let out = tch::no_grad(|| unet.forward(&sample, &Tensor::from(timestep), text, None, None)).unwrap();
        assert_close(&out.squeeze_dim(2), &io[&format!("unet2d.t{timestep}.out_lora_{case}")], SINGLE);
    }
}

#[test]
fn every_merged_weight_has_the_originals_checksum() {
    let Some(folder) = goldens_with(&["lora_kohya", "lora_map.json", "unet2d_weights"]) else { return };
    let map = json(&folder.join("lora_map.json"));
    let file = Lora::read(&folder.join("lora_kohya.safetensors")).unwrap();
    let cases = [("checksums_scale1", file), ("checksums_mixed_alpha", lora_of(mixed_alphas(&folder)))];
    let before = tensors(&folder.join("unet2d_weights.safetensors"));
    for (name, lora) in cases {
        let weights = merged(&folder, &lora, 1.0);
        let sums = map[name].as_object().unwrap();
        assert_eq!(sums.len(), lora.len());
        for (key, tensor) in &weights {
            let Some(sum) = sums.get(key) else {
                assert_eq!(tensor, &before[key], "{key} is no target");
                continue;
            };
            let tensor = tensor.to_kind(Kind::Double);
            let l2 = tensor.square().sum(Kind::Double).sqrt().double_value(&[]);
            let wanted = sum["l2"].as_f64().unwrap();
            assert!((l2 - wanted).abs() <= 1e-6 * wanted.max(1.0), "{name} {key}: {l2} {wanted}");
            let total = tensor.sum(Kind::Double).double_value(&[]);
            let wanted = sum["sum"].as_f64().unwrap();
            assert!((total - wanted).abs() <= 1e-5 * wanted.abs().max(l2), "{name} {key}: {total} {wanted}");
        }
    }
}

#[test]
fn lora_acts_the_same_in_the_3d_unet() {
    let Some(folder) = goldens_with(&["lora_unet3d_io", "lora_kohya", "unet2d_weights", "motion_weights"])
    else {
        return;
    };
    let io_file = folder.join("lora_unet3d_io.safetensors");
    let io = tensors(&io_file);
    let t = metadata(&io_file)["timestep"].as_i64().unwrap();
    let timestep = Tensor::from(t);
    let config: UNetConfig = serde_json::from_value(config("unet3d")).unwrap();
    let files: Vec<PathBuf> =
        ["unet2d_weights.safetensors", "motion_weights.safetensors"].map(|name| folder.join(name)).into();
    let lora = Lora::read(&folder.join("lora_kohya.safetensors")).unwrap();
    for (scale, case) in [(0.0, "base"), (1.0, "lora_scale1.0"), (0.7, "lora_scale0.7")] {
        let mut weights = source_of(&files).tensors();
        lora.merge_into(&mut weights, scale).unwrap();
        let source = Source::loaded("merged", weights, Device::Cpu, Kind::Float);
        let unet = UNet::new(&source.root(), &config).unwrap();
        let (sample, text) = (&io["sample"], &io["encoder_hidden_states"]);
        let out = tch::no_grad(|| unet.forward(sample, &timestep, text, None, None)).unwrap();
        assert_close(&out, &io[&format!("t{t}.out_{case}")], SINGLE);
    }
}

/// The same updates under the names that peft and diffusers give them.
#[test]
fn other_spellings_merge_alike() {
    let Some(folder) = goldens_with(&["lora_kohya", "lora_map.json", "unet2d_weights"]) else { return };
    let map = json(&folder.join("lora_map.json"));
    let kohya = tensors(&folder.join("lora_kohya.safetensors"));
    let wanted =
        merged(&folder, &lora_of(kohya.iter().map(|(k, t)| (k.clone(), t.shallow_clone())).collect()), 1.0);
    let spellings: [(&str, &str, &str); 4] = [
        ("unet.", ".lora_A.weight", ".lora_B.weight"),
        ("base_model.model.", ".lora_A.default.weight", ".lora_B.default.weight"),
        ("unet.", ".lora.down.weight", ".lora.up.weight"),
        ("", ".lora_A.weight", ".lora_B.weight"),
    ];
    for (prefix, down, up) in spellings {
        let mut renamed = Map::new();
        for (module, facts) in map["keymap"].as_object().unwrap() {
            let path = facts["target"].as_str().unwrap().strip_suffix(".weight").unwrap();
            let endings = [(".lora_down.weight", down), (".lora_up.weight", up), (".alpha", ".alpha")];
            for (from, to) in endings {
                renamed
                    .insert(format!("{prefix}{path}{to}"), kohya[&format!("{module}{from}")].shallow_clone());
            }
        }
        let found = merged(&folder, &lora_of(renamed), 1.0);
        assert!(found.iter().all(|(key, tensor)| *tensor == wanted[key]), "{prefix}*{down}");
    }
}

#[test]
fn old_attention_processors_and_stored_alphas_are_understood() {
    let options = (Kind::Float, Device::Cpu);
    let (down, up) = (Tensor::randn([2, 3], options), Tensor::randn([4, 2], options));
    let network = || Map::from([("mid.attn1.to_out.0.weight".to_owned(), Tensor::zeros([4, 3], options))]);
    let names = ["unet.mid.attn1.processor.to_out_lora", "unet.mid.attn1.to_out.0.lora"];
    for (name, alpha) in names.into_iter().zip([None, Some(6.0)]) {
        let tensors = Map::from([
            (format!("{name}.down.weight"), down.shallow_clone()),
            (format!("{name}.up.weight"), up.shallow_clone()),
        ]);
        let entry =
            |a| ("lora_adapter_metadata".to_owned(), format!("{{\"unet.r\": 2, \"unet.lora_alpha\": {a}}}"));
        let metadata = alpha.map(entry).into_iter().collect();
        let lora = Lora::from_weights(WeightFile { file: "lora".into(), tensors, metadata }).unwrap();
        let mut weights = network();
        lora.merge_into(&mut weights, 0.5).unwrap();
        let wanted = up.matmul(&down) * (0.5 * alpha.unwrap_or(2.0) / 2.0);
        assert_close(&weights["mid.attn1.to_out.0.weight"], &wanted, 1e-6);
    }
}

#[test]
fn the_published_lcm_lora_finds_every_target() {
    let Some(folder) = manifests() else { return };
    let list = json(&folder.join("lcm_lora_sdv1_5.json"));
    let lora = lora_of(listed(&list["tensors"], ""));
    assert_eq!(lora.len() as u64, list["n_modules"].as_u64().unwrap());
    // Shapes are those of the real network; its weights are views of one zero.
    let targets = list["key_to_unet_weight"].as_object().unwrap();
    for name in ["sd15_unet2d.json", "magicanimate_unet3d.json"] {
        let weights = listed(&json(&folder.join(name))["tensors"], "");
        let found = lora
            .targets(&weights.iter().map(|(key, t)| (key.clone(), t.shallow_clone().into())).collect())
            .unwrap();
        assert_eq!(found.len(), targets.len());
        for (module, key) in &found {
            assert_eq!(key, targets[&format!("lora_unet_{module}")].as_str().unwrap(), "{name}");
        }
    }
}

#[test]
fn files_that_do_not_fit_are_refused_and_change_nothing() {
    let options = (Kind::Float, Device::Cpu);
    let matrix = |shape: [i64; 2]| Tensor::ones(shape, options);
    let network = || Map::from([("a.b.weight".to_owned(), Tensor::zeros([4, 3], options))]);
    let refuse = |entries: &[(&str, Tensor)], word: &str| {
        let tensors = entries.iter().map(|(k, t)| ((*k).to_owned(), t.shallow_clone())).collect();
        let weights = WeightFile { file: "odd.safetensors".into(), tensors, metadata: BTreeMap::new() };
        let mut target = network();
        let error = Lora::from_weights(weights).and_then(|l| l.merge_into(&mut target, 1.0)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("odd.safetensors") && text.contains(word), "{text}");
        assert_eq!(target["a.b.weight"], network()["a.b.weight"]);
    };
    let (down, up) = ("lora_unet_a_b.lora_down.weight", "lora_unet_a_b.lora_up.weight");
    refuse(&[(down, matrix([2, 3]))], "only one");
    refuse(&[(down, matrix([2, 5])), (up, matrix([4, 2]))], "shapes");
    refuse(&[(down, matrix([2, 3])), (up, matrix([4, 1]))], "shapes");
    refuse(&[(down, Tensor::from(1f32)), (up, matrix([4, 2]))], "shapes");
    refuse(
        &[("lora_unet_c.lora_down.weight", matrix([2, 3])), ("lora_unet_c.lora_up.weight", matrix([4, 2]))],
        "does not exist",
    );
    refuse(&[("lora_unet_a_b.dora_scale", matrix([1, 4]))], "dora_scale");
    refuse(&[("lora_unet_a_b.alpha", matrix([1, 4]))], "one number");
}
