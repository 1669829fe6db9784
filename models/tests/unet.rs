//! The U-Net against the original's numbers (`goldens/README.md`: `unet3d_io`, `lora_*_io` bases).

mod common;

use common::{assert_close, config, goldens, source_of, tensors};
use keyframed_models::{UNet, UNetConfig, nn::embeddings::Timesteps};
use std::path::Path;
use tch::Tensor;

const TOLERANCE: f64 = 2e-5;

fn unet(folder: &Path, name: &str) -> UNet {
    let config: UNetConfig = serde_json::from_value(config(name)).expect("a published configuration");
    let files = match config.use_motion_module {
        true => vec![folder.join("unet2d_weights.safetensors"), folder.join("motion_weights.safetensors")],
        false => vec![folder.join("unet2d_weights.safetensors")],
    };
    let source = source_of(&files);
    let unet = UNet::new(&source.root(), &config).expect("weights that fit");
    source.finish().expect("no tensor left over");
    unet
}

fn at(t: i64) -> Tensor {
    Tensor::from_slice(&[t])
}

#[test]
fn time_embedding() {
    let Some(folder) = goldens() else { return };
    let io = tensors(&folder.join("unet3d_io.safetensors"));
    let steps = Timesteps { channels: io["time_proj.out"].size()[1], flip_sin_to_cos: true, freq_shift: 0.0 };
    assert_close(&steps.forward(&io["time_proj.t"]), &io["time_proj.out"], TOLERANCE);
}

#[test]
fn plain_forwards() {
    let Some(folder) = goldens() else { return };
    let io = tensors(&folder.join("unet3d_io.safetensors"));
    let unet = unet(&folder, "unet3d");
    for t in [1, 501, 981] {
        let out = unet.forward(&io["plain.sample"], &at(t), &io["encoder_hidden_states"], None, None).unwrap();
        assert_close(&out, &io[&format!("plain.t{t}.out")], TOLERANCE);
    }
}
