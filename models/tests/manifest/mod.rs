//! Sources with the names and shapes of published weight files, which take no memory.

#![allow(dead_code, reason = "each test program uses its own part of these helpers")]

use keyframed_models::{Result, Source, Vars};
use serde_json::Value;
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

/// The tensors that a manifest lists, each name behind `prefix`, all a view of one zero.
pub fn listed(shapes: &Value, prefix: &str) -> BTreeMap<String, Tensor> {
    let zero = Tensor::zeros([] as [i64; 0], (Kind::Float, Device::Cpu));
    let entries = shapes.as_object().expect("a manifest lists its tensors by name").iter();
    entries
        .map(|(name, shape)| {
            let shape: Vec<i64> = serde_json::from_value(shape.clone()).expect("a shape is a list");
            (format!("{prefix}{name}"), zero.expand(shape, false))
        })
        .collect()
}

/// Fails unless the network that `build` makes asks for exactly these tensors.
#[track_caller]
pub fn assert_fits<T>(shapes: BTreeMap<String, Tensor>, build: impl Fn(&Vars) -> Result<T>) {
    assert!(!shapes.is_empty());
    let weights = Source::loaded("manifest", shapes, Device::Cpu, Kind::Float);
    build(&weights.root()).unwrap_or_else(|e| panic!("{e}"));
    weights.finish().unwrap_or_else(|e| panic!("{e}"));
}
