//! The U-Net against the original's numbers
//! (`unet3d_io`, `norm_eps_probe` and the bases of `lora_*_io`; see the goldens' README).

mod common;

use common::{assert_close, goldens_with, metadata, parsed, source_of, tensors, timestep, unet};
use keyframed_models::{
    Source, UNetConfig,
    nn::{
        GroupNorm, MotionModule, Pass, ResnetBlock, ResnetSizes, SpatialTransformer, TimeEmbedding,
        Timesteps, TransformerSizes,
    },
    reference::Features,
};
use std::{collections::BTreeMap, path::Path};
use tch::{Device, Kind, Tensor};

const TOLERANCE: f64 = 2e-5;
/// What most tests here read.
const PLAIN: [&str; 3] = ["unet3d_io", "unet2d_weights", "motion_weights"];

/// The timestep at which more than the answer is stored.
fn probed(io: &BTreeMap<String, Tensor>) -> i64 {
    let case = |name: &str| name.strip_prefix("plain.t")?.strip_suffix(".out_motion_off")?.parse().ok();
    io.keys().find_map(|name| case(name)).expect("an answer without motion")
}

fn steps(config: &UNetConfig) -> Timesteps {
    Timesteps {
        channels: config.block_out_channels[0],
        flip_sin_to_cos: config.flip_sin_to_cos,
        freq_shift: config.freq_shift,
    }
}

fn weights(folder: &Path) -> Source {
    source_of(&[folder.join("unet2d_weights.safetensors"), folder.join("motion_weights.safetensors")])
}

/// `[b, c, f, h, w]` → `[b·f, c, h, w]`.
fn frames(video: &Tensor) -> Tensor {
    video.transpose(1, 2).flatten(0, 1)
}

#[test]
fn time_embedding() {
    let Some(folder) = goldens_with(&PLAIN) else { return };
    let (io, config) = (tensors(&folder.join("unet3d_io.safetensors")), parsed::<UNetConfig>("unet3d"));
    let (t, source) = (&io["time_proj.t"], weights(&folder));
    assert_close(&steps(&config).forward(t), &io["time_proj.out"], TOLERANCE);
    let vars = source.root() / "time_embedding";
    let embedding = TimeEmbedding::new(&vars, steps(&config), config.time_channels()).unwrap();
    assert_close(&embedding.forward(t), &io["time_embedding.out"], TOLERANCE);
}

#[test]
fn plain_forwards() {
    let Some(folder) = goldens_with(&PLAIN) else { return };
    let file = folder.join("unet3d_io.safetensors");
    let (io, cases) = (tensors(&file), &metadata(&file)["cases"]);
    let unet = unet(&folder, &parsed("unet3d"));
    for t in cases["plain"]["timesteps"].as_array().unwrap() {
        let (sample, text) = (&io["plain.sample"], &io["encoder_hidden_states"]);
        let out = unet.forward(sample, &timestep(t), text, None, None).unwrap();
        assert_close(&out, &io[&format!("plain.t{t}.out")], TOLERANCE);
    }
}

#[test]
fn other_shapes() {
    let Some(folder) = goldens_with(&PLAIN) else { return };
    let file = folder.join("unet3d_io.safetensors");
    let (io, meta) = (tensors(&file), metadata(&file));
    let unet = unet(&folder, &parsed("unet3d"));
    for (case, values) in meta["cases"].as_object().unwrap().iter().filter(|(case, _)| *case != "plain") {
        let get = |name: &str| &io[&format!("{case}.{name}")];
        let (t, text) = (timestep(&values["timestep"]), get("encoder_hidden_states"));
        let out = unet.forward(get("sample"), &t, text, None, None).unwrap();
        assert_close(&out, get("out"), TOLERANCE);
    }
}

/// Samples of a batch do not influence each other, and may have timesteps of their own.
#[test]
fn batch_equals_single_samples() {
    let Some(folder) = goldens_with(&PLAIN) else { return };
    let io = tensors(&folder.join("unet3d_io.safetensors"));
    let unet = unet(&folder, &parsed("unet3d"));
    let (sample, text) = (&io["batch2.sample"], &io["batch2.encoder_hidden_states"]);
    let t = Tensor::from_slice(&[901.0f32, 33.0]);
    let both = unet.forward(sample, &t, text, None, None).unwrap();
    for row in 0..2 {
        let pick = |x: &Tensor| x.narrow(0, row, 1);
        let one = unet.forward(&pick(sample), &t.get(row), &pick(text), None, None).unwrap();
        assert_close(&pick(&both), &one, TOLERANCE);
    }
}

#[test]
fn motion_off_still_pools_norms() {
    let Some(folder) = goldens_with(&PLAIN) else { return };
    let io = tensors(&folder.join("unet3d_io.safetensors"));
    let config = parsed::<UNetConfig>("unet3d").without_motion();
    let (at, text) = (probed(&io), &io["encoder_hidden_states"]);
    let t = Tensor::from_slice(&[at]);
    let out = unet(&folder, &config).forward(&io["plain.sample"], &t, text, None, None).unwrap();
    assert_close(&out, &io[&format!("plain.t{at}.out_motion_off")], TOLERANCE);
    let per_frame = UNetConfig { norm_per_frame: true, ..config };
    let other = unet(&folder, &per_frame).forward(&io["plain.sample"], &t, text, None, None).unwrap();
    assert!(common::error(&other, &out) > 1e-3, "norm_per_frame has no effect");
}

/// With per-frame norms and no motion a window is its frames one by one.
#[test]
fn per_frame_norms_separate_frames() {
    let Some(folder) = goldens_with(&PLAIN) else { return };
    let io = tensors(&folder.join("unet3d_io.safetensors"));
    let config = UNetConfig { norm_per_frame: true, ..parsed::<UNetConfig>("unet3d").without_motion() };
    let unet = unet(&folder, &config);
    let (t, text, sample) =
        (Tensor::from_slice(&[probed(&io)]), &io["encoder_hidden_states"], &io["plain.sample"]);
    let window = unet.forward(sample, &t, text, None, None).unwrap();
    let last = sample.size()[2] - 1;
    let one = unet.forward(&sample.narrow(2, last, 1), &t, text, None, None).unwrap();
    assert_close(&window.narrow(2, last, 1), &one, TOLERANCE);
}

#[test]
fn motion_modules() {
    let Some(folder) = goldens_with(&PLAIN) else { return };
    let file = folder.join("unet3d_io.safetensors");
    let (io, meta, source) = (tensors(&file), metadata(&file), weights(&folder));
    let kwargs = parsed::<UNetConfig>("unet3d").motion_module_kwargs;
    for name in meta["motion_modules_captured"].as_array().unwrap() {
        let name = name.as_str().unwrap();
        let part = |end: &str| &io[&format!("plain.t{}.{name}.{end}", probed(&io))];
        let (x, expected) = (part("in"), part("out"));
        let module = MotionModule::new(&(source.root() / name), x.size()[1], &kwargs).unwrap();
        assert_close(&module.forward(&frames(x), x.size()[2], None), &frames(expected), TOLERANCE);
    }
}

/// Inputs of tiny variance: a wrong eps in any norm changes these by 20 % or more.
#[test]
fn norm_eps() {
    let Some(folder) = goldens_with(&["norm_eps_probe", "unet2d_weights", "motion_weights"]) else { return };
    let io: BTreeMap<_, _> = tensors(&folder.join("norm_eps_probe.safetensors"));
    let (source, config) = (weights(&folder), parsed::<UNetConfig>("unet3d"));
    let (x, groups, eps) = (&io["unet.input"], config.norm_num_groups, config.norm_eps);
    let (channels, window) = (x.size()[1], x.size()[2]);
    let text = &io["unet.encoder_hidden_states"];
    let pass = Pass {
        frames: window,
        pooled: true,
        memory: None,
        time: io["unet.temb"].silu(),
        text,
        features: Features::Off,
    };
    let expect =
        |name: &str, out: Tensor| assert_close(&out, &frames(&io[&format!("unet.{name}.out")]), 2e-5);
    let (x, root, level) = (frames(x), source.root(), source.root() / "down_blocks" / 0);

    let sizes = ResnetSizes { time: config.time_channels(), groups, eps };
    let resnet = ResnetBlock::new(&(&level / "resnets" / 0), channels, channels, sizes).unwrap();
    expect("down_blocks.0.resnets.0", resnet.forward(&x, &pass));
    let sizes = TransformerSizes { groups, text: config.cross_attention_dim };
    let at = &level / "attentions" / 0;
    let attention =
        SpatialTransformer::new(&at, "", channels, config.attention_head_dim.at(0), sizes).unwrap();
    expect("down_blocks.0.attentions.0", attention.forward(&x, &pass));
    let at = &level / "motion_modules" / 0;
    let motion = MotionModule::new(&at, channels, &config.motion_module_kwargs).unwrap();
    expect("down_blocks.0.motion_modules.0", motion.forward(&x, window, None));
    let norm = GroupNorm::new(&(&root / "conv_norm_out"), groups, channels, eps).unwrap();
    expect("conv_norm_out", norm.forward_pooled(&x, window, None));
}

#[test]
fn without_lora() {
    let Some(folder) = goldens_with(&["lora_merge_io", "lora_unet3d_io", "unet2d_weights", "motion_weights"])
    else {
        return;
    };
    let file = folder.join("lora_merge_io.safetensors");
    let (io, t) = (tensors(&file), &metadata(&file)["timestep"]);
    let unet2d = unet(&folder, &parsed("unet2d"));
    let (sample, text) = (io["unet2d.sample"].unsqueeze(2), &io["unet2d.encoder_hidden_states"]);
    let out = unet2d.forward(&sample, &timestep(t), text, None, None).unwrap();
    assert_close(&out.squeeze_dim(2), &io[&format!("unet2d.t{t}.out_base")], TOLERANCE);

    let file = folder.join("lora_unet3d_io.safetensors");
    let (io, t) = (tensors(&file), &metadata(&file)["timestep"]);
    let text = &io["encoder_hidden_states"];
    let out =
        unet(&folder, &parsed("unet3d")).forward(&io["sample"], &timestep(t), text, None, None).unwrap();
    assert_close(&out, &io[&format!("t{t}.out_base")], TOLERANCE);
}

#[test]
fn refuses_what_does_not_fit() {
    let Some(folder) = goldens_with(&["unet2d_weights", "motion_weights"]) else { return };
    let config = parsed::<UNetConfig>("unet3d");
    let unet = unet(&folder, &config);
    let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Float, Device::Cpu));
    let refusal = |sample: &[i64], t: &[i64], text: &[i64]| {
        unet.forward(&zeros(sample), &zeros(t), &zeros(text), None, None).unwrap_err().to_string()
    };
    let (width, limit) = (config.cross_attention_dim, config.max_frames().unwrap());
    let (text, c) = ([1, 3, width], config.in_channels);
    assert!(refusal(&[1, c, limit + 1, 8, 8], &[1], &text).contains(&format!("position table has {limit}")));
    let wider = format!("{} latent channels", c + 1);
    assert!(refusal(&[1, c + 1, 1, 8, 8], &[1], &text).contains(&wider));
    assert!(refusal(&[1, c, 8, 8], &[1], &text).contains("[b, c, f, h, w]"));
    assert!(refusal(&[1, c, 0, 8, 8], &[1], &text).contains("[b, c, f, h, w]"));
    assert!(refusal(&[1, c, 1, 8, 8], &[2], &text).contains("timesteps of shape [2]"));
    assert!(refusal(&[1, c, 1, 8, 8], &[1], &[1, 3, width + 1]).contains("text embedding"));
    assert!(refusal(&[3, c, 1, 8, 8], &[1], &[2, 3, width]).contains("text embedding"));
}
