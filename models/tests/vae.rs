//! The autoencoders against the original implementations' numbers, and their
//! keys and shapes at full size.

mod common;
mod manifest;

use common::{assert_close, config, goldens_with, json, manifests, source, tensors};
use keyframed_models::{
    Source, Vars,
    nn::GroupNorm,
    taesd::{AutoencoderTiny, AutoencoderTinyConfig},
    vae::{AutoencoderKl, AutoencoderKlConfig, NORM_EPS, VaeAttention, VaeResnet},
};
use manifest::{assert_fits, listed};
use tch::{Device, Kind, Tensor};

const SINGLE: f64 = 2e-5;

fn kl_config() -> AutoencoderKlConfig {
    serde_json::from_value(config("vae")).unwrap()
}

#[test]
fn autoencoder_kl_encodes_and_decodes_as_the_original() {
    let Some(folder) = goldens_with(&["vae_weights", "vae_io"]) else { return };
    let weights = source(&folder.join("vae_weights.safetensors"));
    let vae = AutoencoderKl::new(&weights.root(), &kl_config()).unwrap();
    weights.finish().unwrap();
    let io = tensors(&folder.join("vae_io.safetensors"));
    let scale = vae.config().scaling_factor;
    tch::no_grad(|| {
        let moments = vae.encode_moments(&io["image"]);
        assert_close(&moments.moments, &io["moments"], SINGLE);
        assert_close(&moments.mean, &io["mean"], SINGLE);
        assert_close(&moments.mean, &io["mode"], SINGLE);
        assert_close(&moments.logvar, &io["logvar"], SINGLE);
        assert_close(&moments.std(), &io["std"], SINGLE);
        assert_close(&moments.sample(&io["sample_noise"]), &io["sample"], SINGLE);
        assert_close(&(&moments.mean * scale), &io["encoded_scaled"], SINGLE);
        assert_close(&vae.decode(&io["latents_in"]), &io["decoded"], SINGLE);
        let rescaled = vae.decode(&(&io["latents_in"] * scale / scale));
        assert_close(&rescaled, &io["decoded_from_scaled_latents"], SINGLE);
    });
}

/// Inputs of std 1e-3: a wrong epsilon changes each answer by a fifth or more.
#[test]
fn autoencoder_norms_use_the_originals_epsilon() {
    let Some(folder) = goldens_with(&["vae_weights", "norm_eps_probe"]) else { return };
    let weights = source(&folder.join("vae_weights.safetensors"));
    let probe = tensors(&folder.join("norm_eps_probe.safetensors"));
    let config = kl_config();
    let (groups, input) = (config.norm_num_groups, &probe["vae.input"]);
    let width = *config.block_out_channels.last().unwrap();
    let encoder = weights.root() / "encoder";
    let relative = |out: Tensor, name: &str| {
        let wanted = &probe[&format!("vae.encoder.{name}.out")];
        let scale = wanted.abs().max().double_value(&[]);
        assert_close(&(out / scale), &(wanted / scale), SINGLE);
    };
    tch::no_grad(|| {
        let mid = &encoder / "mid_block";
        let resnet = VaeResnet::new(&(&mid / "resnets.0"), width, width, groups).unwrap();
        relative(resnet.forward(input), "mid_block.resnets.0");
        let attention = VaeAttention::new(&(&mid / "attentions.0"), width, groups).unwrap();
        relative(attention.forward(input), "mid_block.attentions.0");
        let norm = GroupNorm::new(&(&encoder / "conv_norm_out"), groups, width, NORM_EPS).unwrap();
        relative(norm.forward(input), "conv_norm_out");
    });
}

#[test]
fn autoencoder_tiny_encodes_and_decodes_as_the_original() {
    let Some(folder) = goldens_with(&["taesd_weights", "taesd_io"]) else { return };
    let weights = source(&folder.join("taesd_weights.safetensors"));
    let config: AutoencoderTinyConfig = serde_json::from_value(config("taesd")).unwrap();
    let vae = AutoencoderTiny::new(&weights.root(), &config).unwrap();
    weights.finish().unwrap();
    let io = tensors(&folder.join("taesd_io.safetensors"));
    tch::no_grad(|| {
        let encoded = vae.encode(&io["image"]);
        assert_close(&encoded, &io["encoded"], SINGLE);
        assert_close(&vae.decode(&io["latents_in"]), &io["decoded"], SINGLE);
        assert_close(&vae.decode(&io["latents_in_big"]), &io["decoded_big"], SINGLE);
        let stored = vae.scale_latents(&encoded);
        assert_close(&stored, &io["scale_latents(encoded)"], SINGLE);
        let back = &io["unscale_latents(scale_latents(encoded))"];
        assert_close(&vae.unscale_latents(&stored), back, SINGLE);
    });
}

/// The original's two files hold the same weights under other names.
#[test]
fn autoencoder_tiny_reads_the_originals_key_names() {
    let Some(folder) = goldens_with(&["taesd_weights", "taesd_io"]) else { return };
    let file = folder.join("taesd_weights.safetensors");
    let renamed = tensors(&file).into_iter().map(|(name, tensor)| {
        let (net, rest) = name.split_once(".layers.").unwrap();
        let (index, rest) = rest.split_once('.').unwrap();
        let index = index.parse::<usize>().unwrap() + usize::from(net == "decoder");
        (format!("taesd_{net}.{index}.{rest}"), tensor)
    });
    let weights = Source::loaded(&file, renamed.collect(), Device::Cpu, Kind::Float);
    let config: AutoencoderTinyConfig = serde_json::from_value(config("taesd")).unwrap();
    let vae = AutoencoderTiny::new(&weights.root(), &config).unwrap();
    weights.finish().unwrap();
    let io = tensors(&folder.join("taesd_io.safetensors"));
    tch::no_grad(|| assert_close(&vae.decode(&io["latents_in"]), &io["decoded"], SINGLE));
}

#[test]
fn full_size_autoencoders_ask_for_exactly_the_published_tensors() {
    let Some(folder) = manifests() else { return };
    for name in ["sd_vae_old_names.json", "sd_vae_new_names.json"] {
        let shapes = listed(&json(&folder.join(name))["tensors"], "");
        assert_fits(shapes, |vars| AutoencoderKl::new(vars, &AutoencoderKlConfig::default()));
    }
    let tiny = |vars: &Vars| AutoencoderTiny::new(vars, &AutoencoderTinyConfig::default());
    assert_fits(listed(&json(&folder.join("taesd_diffusers_names.json"))["tensors"], ""), tiny);
    let original = json(&folder.join("taesd_original_names.json"));
    let mut both = listed(&original["taesd_encoder"], "taesd_encoder.");
    both.extend(listed(&original["taesd_decoder"], "taesd_decoder."));
    assert_fits(both, tiny);
}

#[test]
fn autoencoder_is_trainable_at_other_widths() {
    let config =
        AutoencoderKlConfig { block_out_channels: vec![8, 16], norm_num_groups: 4, ..Default::default() };
    assert_eq!(config.downscale(), 2);
    let weights = Source::fresh(Device::Cpu);
    let vae = AutoencoderKl::new(&weights.root(), &config).unwrap();
    let image = Tensor::rand([1, 3, 16, 24], (Kind::Float, Device::Cpu)) * 2.0 - 1.0;
    let moments = vae.encode_moments(&image);
    assert_eq!(moments.mean.size(), [1, 4, 8, 12]);
    let loss = (vae.decode(&moments.mean) - &image).square().mean(None) + moments.kl() * 1e-6;
    loss.backward();
    for (name, tensor) in weights.tensors() {
        assert!(tensor.grad().defined(), "{name} has no gradient");
    }
}

#[test]
fn impossible_configurations_are_refused() {
    let weights = Source::fresh(Device::Cpu);
    let bad = [
        AutoencoderKlConfig { act_fn: "gelu".into(), ..Default::default() },
        AutoencoderKlConfig { block_out_channels: vec![], ..Default::default() },
        AutoencoderKlConfig { block_out_channels: vec![33], ..Default::default() },
        AutoencoderKlConfig { norm_num_groups: 0, ..Default::default() },
        AutoencoderKlConfig { scaling_factor: 0.0, ..Default::default() },
    ];
    for config in bad {
        assert!(AutoencoderKl::new(&weights.root(), &config).is_err(), "{config:?}");
    }
    let bad = AutoencoderTinyConfig { num_encoder_blocks: vec![1], ..Default::default() };
    assert!(AutoencoderTiny::new(&weights.root(), &bad).is_err());
}

/// The decoder alone has other widths and fewer blocks; its keys stay where they are.
#[test]
fn a_decoder_may_be_smaller_than_its_encoder() {
    let whole = AutoencoderKlConfig {
        block_out_channels: vec![8, 16],
        norm_num_groups: 4,
        layers_per_block: 1,
        ..Default::default()
    };
    let small = AutoencoderKlConfig {
        up_block_out_channels: Some(vec![4, 8]),
        layers_per_up_block: Some(0),
        ..whole.clone()
    };
    let asked = |config: &AutoencoderKlConfig| {
        let source = Source::fresh(Device::Cpu);
        let network = AutoencoderKl::new(&source.root(), config).unwrap();
        (network, source.tensors())
    };
    let ((_, all), (network, fewer)) = (asked(&whole), asked(&small));
    for (key, tensor) in &fewer {
        let other = all[key].size();
        assert!(!key.starts_with("encoder.") || other == tensor.size(), "{key}");
    }
    assert!(fewer.len() < all.len() && !fewer.contains_key("decoder.up_blocks.0.resnets.1.conv1.weight"));
    assert_eq!(fewer["decoder.up_blocks.1.resnets.0.conv1.weight"].size(), [4, 8, 3, 3]);
    let picture = network.decode(&Tensor::zeros([1, 4, 6, 4], (Kind::Float, Device::Cpu)));
    assert_eq!(picture.size(), [1, 3, 12, 8]);
    let wrong = AutoencoderKlConfig { up_block_out_channels: Some(vec![4]), ..whole };
    let source = Source::fresh(Device::Cpu);
    let said = AutoencoderKl::new(&source.root(), &wrong).unwrap_err().to_string();
    assert!(said.contains("as many levels"), "{said}");
}
