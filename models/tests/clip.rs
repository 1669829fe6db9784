//! The CLIP text encoder against transformers' numbers, and its keys at full size.

mod common;
mod manifest;

use common::{assert_close, config, goldens_with, json, manifests, source, tensors};
use keyframed_models::clip::{ClipText, ClipTextConfig};
use manifest::{assert_fits, listed};
use tch::{Device, Kind, Tensor};

const SINGLE: f64 = 2e-5;

#[test]
fn text_encoder_computes_what_the_original_computes() {
    let Some(folder) = goldens_with(&["clip_weights", "clip_io"]) else { return };
    let weights = source(&folder.join("clip_weights.safetensors"));
    let config: ClipTextConfig = serde_json::from_value(config("clip")).unwrap();
    let clip = ClipText::new(&weights.root(), &config).unwrap();
    weights.finish().unwrap();
    let io = tensors(&folder.join("clip_io.safetensors"));
    let ids = &io["input_ids"];
    tch::no_grad(|| {
        let states = clip.hidden_states(ids).unwrap();
        assert_close(&states[0], &io["embeddings_out"], SINGLE);
        assert_close(&states[1], &io["hidden_state_layer0_out"], SINGLE);
        assert_close(states.last().unwrap(), &io["last_layer_out_before_final_layer_norm"], SINGLE);
        assert_close(&clip.forward(ids).unwrap(), &io["last_hidden_state"], SINGLE);
    });
    assert_eq!(config.empty_prompt(), ids.narrow(0, 0, 1));
    let unknown = Tensor::full([1, 3], config.vocab_size, (Kind::Int64, Device::Cpu));
    assert!(clip.forward(&unknown).is_err());
    let long = Tensor::zeros([1, config.max_position_embeddings + 1], (Kind::Int64, Device::Cpu));
    assert!(clip.forward(&long).is_err());
}

#[test]
fn full_size_text_encoder_asks_for_exactly_the_published_tensors() {
    let Some(folder) = manifests() else { return };
    let shapes = listed(&json(&folder.join("clip_vit_l14_text.json"))["tensors"], "");
    let build = |vars: &keyframed_models::Vars| ClipText::new(vars, &ClipTextConfig::default());
    assert_fits(shapes, build);
    let mut older = listed(&json(&folder.join("clip_vit_l14_text.json"))["tensors"], "");
    let ids = Tensor::arange(77, (Kind::Int64, Device::Cpu)).unsqueeze(0);
    older.insert("text_model.embeddings.position_ids".into(), ids);
    assert_fits(older, build);
}
