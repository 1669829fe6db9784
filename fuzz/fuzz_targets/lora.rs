//! A LoRA's keys, shapes and header, merged into a small network.
#![no_main]

use std::{
    collections::BTreeMap,
    path::PathBuf,
};

use keyframed_models::checkpoint::{Lora, WeightFile};
use libfuzzer_sys::fuzz_target;
use tch::{Device, Kind, Tensor};

/// A tensor of a file: its name in pieces, so that the ones that mean something are met, and its shape.
#[derive(Debug, arbitrary::Arbitrary)]
struct Entry<'a> {
    prefix: u8,
    module: u8,
    ending: u8,
    other: &'a str,
    shape: [u8; 3],
    dims: u8,
}

#[derive(Debug, arbitrary::Arbitrary)]
struct Input<'a> {
    entries: Vec<Entry<'a>>,
    header: Option<&'a str>,
    lora_alpha: Option<f64>,
    scale: f64,
}

const PREFIXES: [&str; 7] = ["", "lora_unet_", "unet.", "base_model.model.unet.", "base_model.model.", "lora_te_", "text_encoder."];
const MODULES: [&str; 7] = ["mid.attn.to_q", "mid_attn_to_q", "mid.attn.processor.to_q", "to_out", "to_out.0", "conv", "a.b"];
const ENDINGS: [&str; 12] = [
    "", ".lora_down.weight", ".lora_up.weight", ".alpha", ".lora_A.weight", ".lora_B.weight", ".lora_A.default.weight",
    ".lora_B.default.weight", ".lora.down.weight", ".lora.up.weight", "_lora.down.weight", "_lora.up.weight",
];

fn pick<'a>(from: &[&'a str], number: u8) -> &'a str {
    from[usize::from(number) % from.len()]
}

impl Entry<'_> {
    fn tensor(&self) -> (String, Tensor) {
        let parts = [pick(&PREFIXES, self.prefix), pick(&MODULES, self.module), self.other, pick(&ENDINGS, self.ending)];
        let shape: Vec<i64> = self.shape.iter().take(usize::from(self.dims % 4)).map(|&n| i64::from(n % 9)).collect();
        (parts.concat(), Tensor::ones(shape.as_slice(), (Kind::Float, Device::Cpu)))
    }
}

fn network() -> BTreeMap<String, Tensor> {
    let shapes: [(&str, &[i64]); 6] = [
        ("mid.attn.to_q.weight", &[4, 8]),
        ("to_out.0.weight", &[8, 4]),
        ("conv.weight", &[4, 2, 3, 3]),
        ("a.b.weight", &[3, 3]),
        ("a_b.weight", &[3, 3]),
        ("a.b.bias", &[3]),
    ];
    shapes.iter().map(|(name, shape)| ((*name).to_owned(), Tensor::zeros(*shape, (Kind::Float, Device::Cpu)))).collect()
}

fuzz_target!(|input: Input| {
    let mut metadata = BTreeMap::new();
    let alpha = input.lora_alpha.map(|alpha| format!("{{\"unet.lora_alpha\": {alpha}}}"));
    if let Some(text) = input.header.map(str::to_owned).or(alpha) {
        metadata.insert("lora_adapter_metadata".to_owned(), text);
    }
    let tensors = input.entries.iter().take(12).map(Entry::tensor).collect();
    let Ok(lora) = Lora::from_weights(WeightFile { file: PathBuf::from("fuzz"), tensors, metadata }) else { return };
    let mut weights = network();
    let before: Vec<_> = weights.iter().map(|(name, tensor)| (name.clone(), tensor.size())).collect();
    let merged = lora.merge_into(&mut weights, input.scale);
    let after: Vec<_> = weights.iter().map(|(name, tensor)| (name.clone(), tensor.size())).collect();
    assert!(before == after);
    if merged.is_err() {
        assert!(weights.values().all(|tensor| tensor.abs().sum(Kind::Float).double_value(&[]) == 0.0));
    }
});
