//! Fresh networks as the trainer makes them: no effect at first, gradients everywhere.

use keyframed_models::{
    AppearanceEncoder, ControlNet, ControlNetConfig, Fusion, Reference, Source, UNet, UNetConfig,
    unet::{BlockType, Heads},
};
use tch::{Device, Kind, Tensor};

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

/// Two levels, the wider without attention: unlike any published network.
fn small() -> UNetConfig {
    UNetConfig {
        block_out_channels: vec![32, 64],
        down_block_types: vec![BlockType::Plain, BlockType::Attention],
        up_block_types: vec![BlockType::Attention, BlockType::Plain],
        layers_per_block: 1,
        norm_num_groups: 8,
        cross_attention_dim: 16,
        attention_head_dim: Heads::Same(4),
        use_motion_module: true,
        motion_module_mid_block: true,
        ..UNetConfig::default()
    }
}

fn networks(sources: &[Source; 3]) -> (UNet, ControlNet, AppearanceEncoder) {
    let config = small();
    let widths = vec![8, 16, 24];
    let steered =
        ControlNetConfig { unet: small(), conditioning_embedding_out_channels: widths, ..Default::default() };
    (
        UNet::new(&sources[0].root(), &config).unwrap(),
        ControlNet::new(&sources[1].root(), &steered).unwrap(),
        AppearanceEncoder::new(&sources[2].root(), &config, Fusion::Full).unwrap(),
    )
}

fn fresh() -> [Source; 3] {
    tch::manual_seed(7);
    [Source::fresh(Device::Cpu), Source::fresh(Device::Cpu), Source::fresh(Device::Cpu)]
}

/// Gives the tensors that start at zero some values.
fn shake(source: &Source) {
    tch::no_grad(|| {
        for tensor in source.tensors().values_mut().filter(|t| t.requires_grad()) {
            let _ = tensor.g_add_(&(Tensor::randn_like(tensor) * 0.05));
        }
    });
}

fn batch(samples: i64, frames: i64) -> (Tensor, Tensor, Tensor, Tensor) {
    let sample = Tensor::randn([samples, 4, frames, 12, 8], FLOAT);
    let t = Tensor::randint(1000, [samples], (Kind::Int64, Device::Cpu));
    let text = Tensor::randn([samples, 5, 16], FLOAT);
    (sample, t, text, Tensor::rand([samples * frames, 3, 48, 32], FLOAT))
}

#[test]
fn fresh_controlnet_and_unet_have_no_effect() {
    let sources = fresh();
    let (unet, controlnet, _) = networks(&sources);
    let (sample, t, text, pose) = batch(2, 1);
    let embedded = controlnet.embed_condition(&pose).unwrap();
    assert_eq!(controlnet.factor(), 4);
    let frames = sample.squeeze_dim(2);
    let residuals = controlnet.forward(&frames, &t, &text, &embedded, 1.0).unwrap();
    assert!(residuals.down.iter().chain([&residuals.mid]).all(|r| r.abs().max().double_value(&[]) == 0.0));
    let out = unet.forward(&sample, &t, &text, Some(&residuals), None).unwrap();
    assert_eq!(out.size(), sample.size());
    assert_eq!(out.abs().max().double_value(&[]), 0.0);
}

#[test]
fn gradients_reach_every_tensor() {
    let sources = fresh();
    let (unet, controlnet, encoder) = networks(&sources);
    sources.iter().for_each(shake);
    let (samples, frames) = (2, 3);
    let (sample, t, text, pose) = batch(samples, frames);
    let bank = encoder.forward(&Tensor::randn([samples, 4, 12, 8], FLOAT), &t, &text).unwrap();
    let rows = |x: &Tensor| x.repeat_interleave_self_int(frames, 0, None);
    let flat = sample.transpose(1, 2).flatten(0, 1);
    let embedded = controlnet.embed_condition(&pose).unwrap();
    let residuals = controlnet.forward(&flat, &rows(&t), &rows(&text), &embedded, 1.0).unwrap();
    let out = unet.forward(&sample, &t, &text, Some(&residuals), Some(&Reference::hidden(&bank))).unwrap();
    out.square().mean(Kind::Float).backward();
    for (source, network) in sources.iter().zip(["unet", "controlnet", "appearance"]) {
        for (name, tensor) in source.tensors().iter().filter(|(_, t)| t.requires_grad()) {
            let grad = tensor.grad();
            assert!(grad.defined(), "{network}: {name} has no gradient");
            assert!(grad.abs().max().double_value(&[]) > 0.0, "{network}: the gradient of {name} is zero");
        }
    }
}

/// A position table is kept with the weights but not trained.
#[test]
fn position_tables_are_constant() {
    let sources = fresh();
    networks(&sources);
    let tables: Vec<_> =
        sources[0].tensors().into_iter().filter(|(name, _)| name.ends_with("pos_encoder.pe")).collect();
    // Two attentions in each of: one module a layer on the way down, one in the middle, two on each way up.
    assert_eq!(tables.len(), 2 * (2 + 1 + 4));
    for (_, table) in &tables {
        assert!(!table.requires_grad());
        assert_eq!(table.double_value(&[0, 0, 1]), 1.0);
        assert!((table.double_value(&[0, 3, 0]) - 3f64.sin()).abs() < 1e-6);
    }
}

/// What one sample of a training batch sees of its reference is its own row.
#[test]
fn bank_rows_belong_to_samples() {
    let sources = fresh();
    let (unet, _, encoder) = networks(&sources);
    sources.iter().for_each(shake);
    let (sample, t, text, _) = batch(2, 2);
    let bank = encoder.forward(&Tensor::randn([2, 4, 12, 8], FLOAT), &t, &text).unwrap();
    let both = unet.forward(&sample, &t, &text, None, Some(&Reference::hidden(&bank))).unwrap();
    for row in 0..2 {
        let pick = |x: &Tensor| x.narrow(0, row, 1);
        let own = bank.rows(row, 1);
        let reference = Reference::hidden(&own);
        let one = unet.forward(&pick(&sample), &pick(&t), &pick(&text), None, Some(&reference)).unwrap();
        let difference = (pick(&both) - one).abs().max().double_value(&[]);
        assert!(difference < 1e-5, "row {row}: {difference}");
    }
}

/// Saved weights load again; a checkpoint may leave the position tables out, but not change their size.
#[test]
fn saved_weights_load_with_or_without_tables() {
    let sources = fresh();
    networks(&sources);
    let load = |tensors| {
        let source = Source::loaded("weights", tensors, Device::Cpu, Kind::Float);
        UNet::new(&source.root(), &small()).and_then(|_| source.finish()).map_err(|e| e.to_string())
    };
    let all = sources[0].tensors();
    let table = all.keys().find(|name| name.ends_with(".pe")).unwrap().clone();
    assert_eq!(load(sources[0].tensors()), Ok(()));
    let mut without = sources[0].tensors();
    without.retain(|name, _| !name.ends_with(".pe"));
    assert_eq!(load(without), Ok(()));
    let mut longer = sources[0].tensors();
    longer.insert(table.clone(), Tensor::zeros([1, 32, 64], FLOAT));
    let message = load(longer).unwrap_err();
    assert!(message.contains(&table) && message.contains("[1, 32, 64]"), "{message}");
    let mut missing = sources[0].tensors();
    missing.remove("conv_in.weight");
    assert!(load(missing).unwrap_err().contains("`conv_in.weight` is missing"));
}
