//! Configuration under the published names: `unet/config.json` of Stable Diffusion 1.5
//! and `unet_additional_kwargs` of MagicAnimate's `configs/inference/inference.yaml`.

use crate::{
    checkpoint::limits,
    error::{ModelError, Result},
    nn::MOTION_GROUPS,
};
use serde::{Deserialize, Serialize, Serializer};

/// Configuration of the U-Net and, where the names apply, of the networks derived from it.
///
/// Names that this crate does not know are ignored; known options that it does
/// not implement are refused by [`UNetConfig::check`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UNetConfig {
    /// Channels of the latents that come in.
    pub in_channels: i64,
    /// Channels of the prediction.
    pub out_channels: i64,
    /// Width of each level, widest picture first. Any number of levels.
    pub block_out_channels: Vec<i64>,
    /// One for each level.
    #[serde(serialize_with = "down_names")]
    pub down_block_types: Vec<BlockType>,
    /// One for each level, narrowest picture first.
    #[serde(serialize_with = "up_names")]
    pub up_block_types: Vec<BlockType>,
    /// Resnets per level on the way down; one more on the way up.
    pub layers_per_block: usize,
    /// Groups of all norms but the motion modules'.
    pub norm_num_groups: i64,
    /// Added to the variance in resnets and in the final norm.
    pub norm_eps: f64,
    /// Width of the text embedding.
    pub cross_attention_dim: i64,
    /// Number of heads (the published name is a known misnomer).
    pub attention_head_dim: Heads,
    /// Cosine half of the timestep's sinusoid first.
    pub flip_sin_to_cos: bool,
    /// Subtracted from the number of frequencies of the timestep's sinusoid.
    pub freq_shift: f64,
    /// Temporal attention behind the layers.
    pub use_motion_module: bool,
    /// Downsampling factors (1, 2, 4, …) of the levels that have motion modules.
    pub motion_module_resolutions: Vec<i64>,
    /// Motion modules on the way up only.
    pub motion_module_decoder_only: bool,
    /// A motion module in the middle block.
    pub motion_module_mid_block: bool,
    /// Shape of the motion modules.
    pub motion_module_kwargs: MotionConfig,
    /// Our own: the resnets' norms take each frame's statistics alone. The
    /// original pools them over all frames of a window.
    pub norm_per_frame: bool,
    /// Published options that must keep Stable Diffusion 1.5's values.
    #[serde(flatten)]
    pub fixed: FixedOptions,
}

impl Default for UNetConfig {
    /// Stable Diffusion 1.5, no motion modules.
    fn default() -> Self {
        use BlockType::{Attention, Plain};
        Self {
            in_channels: 4,
            out_channels: 4,
            block_out_channels: vec![320, 640, 1280, 1280],
            down_block_types: vec![Attention, Attention, Attention, Plain],
            up_block_types: vec![Plain, Attention, Attention, Attention],
            layers_per_block: 2,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            cross_attention_dim: 768,
            attention_head_dim: Heads::Same(8),
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            use_motion_module: false,
            motion_module_resolutions: vec![1, 2, 4, 8],
            motion_module_decoder_only: false,
            motion_module_mid_block: false,
            motion_module_kwargs: MotionConfig::default(),
            norm_per_frame: false,
            fixed: FixedOptions::default(),
        }
    }
}

/// Kind of a level. The published 2-D and 3-D names mean the same here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum BlockType {
    /// Resnets with spatial transformers.
    #[serde(
        rename = "CrossAttnDownBlock2D",
        alias = "CrossAttnDownBlock3D",
        alias = "CrossAttnUpBlock2D",
        alias = "CrossAttnUpBlock3D"
    )]
    Attention,
    /// Resnets alone.
    #[serde(rename = "DownBlock2D", alias = "DownBlock3D", alias = "UpBlock2D", alias = "UpBlock3D")]
    Plain,
}

fn down_names<S: Serializer>(types: &[BlockType], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(types.iter().map(|kind| match kind {
        BlockType::Attention => "CrossAttnDownBlock3D",
        BlockType::Plain => "DownBlock3D",
    }))
}

fn up_names<S: Serializer>(types: &[BlockType], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(types.iter().map(|kind| match kind {
        BlockType::Attention => "CrossAttnUpBlock3D",
        BlockType::Plain => "UpBlock3D",
    }))
}

impl BlockType {
    /// Whether the level has spatial transformers.
    pub fn has_attention(self) -> bool {
        self == Self::Attention
    }
}

/// Number of attention heads: one number for all levels, or one for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Heads {
    /// The same everywhere.
    Same(i64),
    /// Level by level, widest picture first.
    PerLevel(Vec<i64>),
}

impl Heads {
    /// Heads of `level`; [`UNetConfig::check`] sees to it that there is one.
    pub fn at(&self, level: usize) -> i64 {
        match self {
            Self::Same(heads) => *heads,
            Self::PerLevel(heads) => heads.get(level).copied().unwrap_or(1),
        }
    }
}

/// `motion_module_kwargs`; the defaults are MagicAnimate's inference settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MotionConfig {
    /// Heads of every temporal attention.
    pub num_attention_heads: i64,
    /// Transformer blocks per module.
    pub num_transformer_block: usize,
    /// One attention for each entry; only `Temporal_Self` is known.
    pub attention_block_types: Vec<String>,
    /// Adds a sinusoid of the frame's position.
    pub temporal_position_encoding: bool,
    /// Frames that the position table covers.
    pub temporal_position_encoding_max_len: i64,
    /// Divides the width inside the module.
    pub temporal_attention_dim_div: i64,
    /// Groups of the module's norm, whatever the U-Net's own are. The original always has 32; networks with widths that
    /// 32 does not divide have others.
    pub norm_num_groups: i64,
}

impl Default for MotionConfig {
    fn default() -> Self {
        Self {
            num_attention_heads: 8,
            num_transformer_block: 1,
            attention_block_types: vec!["Temporal_Self".to_owned(); 2],
            temporal_position_encoding: true,
            temporal_position_encoding_max_len: 24,
            temporal_attention_dim_div: 1,
            norm_num_groups: MOTION_GROUPS,
        }
    }
}

/// Published options of which only the value of Stable Diffusion 1.5 is implemented:
/// read in order to refuse another one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FixedOptions {
    #[serde(skip_serializing_if = "Option::is_none")]
    act_fn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class_embed_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resnet_time_scale_shift: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    motion_module_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    use_linear_projection: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dual_cross_attention: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    center_input_sample: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unet_use_cross_frame_attention: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unet_use_temporal_attention: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    downsample_padding: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mid_block_scale_factor: Option<f64>,
}

impl FixedOptions {
    fn changed(&self) -> Option<&'static str> {
        let text = |value: &Option<String>, known: &str| value.as_deref().is_some_and(|v| v != known);
        let found = [
            ("act_fn", text(&self.act_fn, "silu")),
            ("class_embed_type", self.class_embed_type.is_some()),
            ("resnet_time_scale_shift", text(&self.resnet_time_scale_shift, "default")),
            ("motion_module_type", text(&self.motion_module_type, "Vanilla")),
            ("use_linear_projection", self.use_linear_projection == Some(true)),
            ("dual_cross_attention", self.dual_cross_attention == Some(true)),
            ("center_input_sample", self.center_input_sample == Some(true)),
            ("unet_use_cross_frame_attention", self.unet_use_cross_frame_attention == Some(true)),
            ("unet_use_temporal_attention", self.unet_use_temporal_attention == Some(true)),
            ("downsample_padding", self.downsample_padding.is_some_and(|v| v != 1)),
            ("mid_block_scale_factor", self.mid_block_scale_factor.is_some_and(|v| v != 1.0)),
        ];
        found.iter().find(|(_, refused)| *refused).map(|(name, _)| *name)
    }
}

impl UNetConfig {
    /// Whether a network can be built from this; `up` is false for the ControlNet,
    /// whose file has no way up.
    ///
    /// # Errors
    /// [`ModelError::Config`], naming the option.
    pub fn check(&self, up: bool) -> Result<()> {
        let levels = self.block_out_channels.len();
        let refuse = |reason: String| Err(ModelError::Config(format!("U-Net configuration: {reason}")));
        if let Some(name) = self.fixed.changed() {
            return refuse(format!("this value of `{name}` is not implemented"));
        }
        let layers = 1..=limits::LAYERS as usize;
        if !(1..=limits::LEVELS).contains(&levels) || !layers.contains(&self.layers_per_block) {
            return refuse(format!(
                "`block_out_channels` needs 1..{} entries and `layers_per_block` must be 1..{}",
                limits::LEVELS,
                limits::LAYERS
            ));
        }
        if self.in_channels < 1 || self.out_channels < 1 || self.cross_attention_dim < 1 {
            return refuse("`in_channels`, `out_channels` and `cross_attention_dim` must be positive".into());
        }
        if self.down_block_types.len() != levels {
            return refuse(format!("`down_block_types` needs {levels} entries, one for each level"));
        }
        if up && self.up_block_types.len() != levels {
            return refuse(format!("`up_block_types` needs {levels} entries, one for each level"));
        }
        if matches!(&self.attention_head_dim, Heads::PerLevel(heads) if heads.len() != levels) {
            return refuse(format!("`attention_head_dim` needs {levels} entries or one number"));
        }
        let divides = |by: i64, width: i64| by > 0 && width > 0 && width % by == 0;
        for (level, &width) in self.block_out_channels.iter().enumerate() {
            let heads = self.attention_head_dim.at(level);
            if !divides(self.norm_num_groups, width) || !divides(heads, width) {
                let groups = self.norm_num_groups;
                return refuse(format!(
                    "{width} channels do not split into {groups} groups and {heads} heads"
                ));
            }
        }
        self.motion_module_kwargs.check(&self.motion_widths())
    }

    /// Widths of the levels that have motion modules.
    fn motion_widths(&self) -> Vec<i64> {
        let levels = self.block_out_channels.iter().enumerate();
        let last = self.block_out_channels.last().filter(|_| self.motion_mid());
        levels
            .filter(|(level, _)| self.motion_at(*level))
            .map(|(_, width)| width)
            .chain(last)
            .copied()
            .collect()
    }

    /// Width of the time embedding.
    pub fn time_channels(&self) -> i64 {
        4 * self.block_out_channels.first().copied().unwrap_or_default()
    }

    /// Most frames of one pass, where motion modules with a position table limit them.
    pub fn max_frames(&self) -> Option<i64> {
        let kwargs = &self.motion_module_kwargs;
        (self.use_motion_module && kwargs.temporal_position_encoding)
            .then_some(kwargs.temporal_position_encoding_max_len)
    }

    /// The same network without motion modules.
    pub fn without_motion(&self) -> Self {
        Self { use_motion_module: false, ..self.clone() }
    }

    fn motion_at(&self, level: usize) -> bool {
        self.use_motion_module && self.motion_module_resolutions.contains(&(1 << level))
    }

    pub(crate) fn motion_down(&self, level: usize) -> bool {
        self.motion_at(level) && !self.motion_module_decoder_only
    }

    pub(crate) fn motion_mid(&self) -> bool {
        self.use_motion_module && self.motion_module_mid_block
    }

    pub(crate) fn motion_up(&self, index: usize) -> bool {
        self.motion_at(self.block_out_channels.len() - 1 - index)
    }
}

impl MotionConfig {
    fn check(&self, widths: &[i64]) -> Result<()> {
        let refuse = |reason: String| Err(ModelError::Config(format!("motion module: {reason}")));
        if let Some(kind) = self.attention_block_types.iter().find(|kind| *kind != "Temporal_Self") {
            return refuse(format!("`attention_block_types` has `{kind}`, only `Temporal_Self` is known"));
        }
        let (heads, div) = (self.num_attention_heads, self.temporal_attention_dim_div);
        let groups = self.norm_num_groups;
        if let Some(width) = widths.iter().find(|&width| groups < 1 || width % groups != 0) {
            return refuse(format!("its norm needs multiples of {groups} channels, not {width}"));
        }
        if heads < 1 || div < 1 || widths.iter().any(|width| width % div != 0 || (width / div) % heads != 0) {
            return refuse(format!(
                "widths {widths:?} do not split into {heads} heads after division by {div}"
            ));
        }
        let blocks = self.num_transformer_block.max(self.attention_block_types.len());
        if blocks > limits::LAYERS as usize {
            return refuse(format!("it has {blocks} blocks or attentions, {} are the most", limits::LAYERS));
        }
        let frames = 1..=limits::FRAMES;
        if self.temporal_position_encoding && !frames.contains(&self.temporal_position_encoding_max_len) {
            return refuse(format!("`temporal_position_encoding_max_len` must be 1..{}", limits::FRAMES));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(value: serde_json::Value) -> UNetConfig {
        serde_json::from_value(value).expect("published names")
    }

    #[test]
    fn empty_file_is_stable_diffusion() {
        assert_eq!(parse(json!({})), UNetConfig::default());
        assert!(UNetConfig::default().check(true).is_ok());
    }

    #[test]
    fn written_names_are_read_back() {
        let config = UNetConfig {
            block_out_channels: vec![32, 64],
            down_block_types: vec![BlockType::Plain, BlockType::Attention],
            up_block_types: vec![BlockType::Attention, BlockType::Plain],
            attention_head_dim: Heads::PerLevel(vec![2, 4]),
            use_motion_module: true,
            ..UNetConfig::default()
        };
        let written = serde_json::to_value(&config).expect("plain values");
        assert_eq!(written["up_block_types"], json!(["CrossAttnUpBlock3D", "UpBlock3D"]));
        assert_eq!(parse(written), config);
        assert!(config.check(true).is_ok());
    }

    #[test]
    fn names_and_unknown_fields_of_the_published_files() {
        let config = parse(json!({
            "_class_name": "UNet2DConditionModel", "sample_size": 64, "act_fn": "silu",
            "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
            "block_out_channels": [320, 640],
            "motion_module_type": "Vanilla",
        }));
        assert!(config.check(true).is_ok());
    }

    #[test]
    fn refusals_name_the_option() {
        let refusal = |value| parse(value).check(true).expect_err("not buildable").to_string();
        assert!(refusal(json!({"use_linear_projection": true})).contains("use_linear_projection"));
        assert!(refusal(json!({"block_out_channels": [320, 640]})).contains("down_block_types"));
        assert!(refusal(json!({"block_out_channels": []})).contains("block_out_channels"));
        assert!(refusal(json!({"norm_num_groups": 0})).contains("0 groups"));
        assert!(refusal(json!({"attention_head_dim": [8, 8]})).contains("attention_head_dim"));
        assert!(refusal(json!({"attention_head_dim": 7})).contains("7 heads"));
        let cross = json!({"attention_block_types": ["Temporal_Cross"]});
        let cross = json!({"use_motion_module": true, "motion_module_kwargs": cross});
        assert!(refusal(cross).contains("Temporal_Cross"));
        let narrow = json!({"use_motion_module": true, "norm_num_groups": 8, "attention_head_dim": 1,
            "block_out_channels": [40, 80, 80, 80]});
        assert!(refusal(narrow).contains("multiples of 32"));
    }
}
