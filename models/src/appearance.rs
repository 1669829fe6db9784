//! The appearance encoder (`magicanimate/models/appearance_encoder.py`): a 2-D
//! U-Net that ends inside its last attention, for its features alone count.

use crate::{
    device::entering,
    error::{ModelError, Result},
    nn::{Pass, UpBlock},
    reference::{Bank, Features, Fusion, Recorder},
    unet::{Entry, UNetConfig, check_conditions},
    vars::Vars,
};
use tch::{Kind, Tensor};

/// Turns a reference picture's latents into a [`Bank`].
#[derive(Debug)]
pub struct AppearanceEncoder {
    config: UNetConfig,
    fusion: Fusion,
    entry: Entry,
    up_blocks: Vec<UpBlock>,
    kind: Kind,
}

impl AppearanceEncoder {
    /// Keys as published, which lack everything behind the last attention's first norm.
    ///
    /// # Errors
    /// [`ModelError::Config`], or as [`Vars::get`].
    pub fn new(vars: &Vars, config: &UNetConfig, fusion: Fusion) -> Result<Self> {
        let config = config.without_motion();
        config.check(true)?;
        let Some(last) = config.up_block_types.iter().rposition(|kind| kind.has_attention()) else {
            let reason = "appearance encoder configuration: no entry of `up_block_types` has attention";
            return Err(ModelError::Config(reason.to_owned()));
        };
        let up = |index| {
            let at = vars / "up_blocks" / index;
            if index == last {
                UpBlock::truncated(&at, &config, index)
            } else {
                UpBlock::new(&at, &config, index)
            }
        };
        let (entry, up_blocks) = (Entry::new(vars, &config)?, (0..=last).map(up).collect::<Result<_>>()?);
        Ok(Self { config, fusion, entry, up_blocks, kind: vars.kind() })
    }

    /// What it was built from.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// Features of clean scaled reference `latents` `[b, in, h, w]` at `timestep` (`[]`, `[1]`
    /// or `[b]`, the U-Net's own) under `text` `[1 or b, n, d]`.
    ///
    /// # Errors
    /// [`ModelError::Input`] for shapes that do not fit together.
    pub fn forward(&self, latents: &Tensor, timestep: &Tensor, text: &Tensor) -> Result<Bank> {
        let (size, expected) = (latents.size(), self.config.in_channels);
        if size.len() != 4 || size[1] != expected || size.contains(&0) {
            return Err(ModelError::Input(format!(
                "reference latents of shape {size:?}, needed: [b, {expected}, h, w]"
            )));
        }
        let timestep = check_conditions(timestep, text, size[0], self.config.cross_attention_dim)?;
        let time = self.entry.time_embedding.forward(&timestep).silu();
        let recorder = Recorder::new(self.fusion);
        let pass =
            Pass { frames: 1, pooled: false, memory: None, time, text, features: Features::Write(&recorder) };
        self.run(latents, &pass);
        drop(pass);
        Ok(recorder.into_bank())
    }

    fn run(&self, latents: &Tensor, pass: &Pass) {
        let mut x = self.entry.conv_in.forward(&entering(latents, self.kind));
        let mut skips = vec![x.shallow_clone()];
        for block in &self.entry.down_blocks {
            x = block.forward(x, &mut skips, pass);
        }
        x = self.entry.mid_block.forward(&x, pass);
        for block in &self.up_blocks {
            x = block.forward(x, &mut skips, pass);
        }
    }
}
