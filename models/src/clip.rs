//! The CLIP text encoder: token ids to the hidden states that cross-attention reads.
//!
//! Structure and keys follow transformers' `CLIPTextModel`
//! (`models/clip/modeling_clip.py`), the text encoder of Stable Diffusion 1.5.

use crate::{
    checkpoint::limits,
    error::{ModelError, Result},
    nn::{LayerNorm, Linear},
    vars::{Init, Vars},
};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// The published `config.json` of the text encoder; unknown names are ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipTextConfig {
    /// Width of the hidden states.
    pub hidden_size: i64,
    /// Attention heads.
    pub num_attention_heads: i64,
    /// Transformer layers.
    pub num_hidden_layers: i64,
    /// Width within the feed-forward part.
    pub intermediate_size: i64,
    /// Number of token ids.
    pub vocab_size: i64,
    /// Length of the token sequence.
    pub max_position_embeddings: i64,
    /// `quick_gelu` or `gelu`.
    pub hidden_act: String,
    /// Epsilon of the layer normalisations.
    pub layer_norm_eps: f64,
}

impl Default for ClipTextConfig {
    /// clip-vit-large-patch14, as in Stable Diffusion 1.5.
    fn default() -> Self {
        Self {
            hidden_size: 768,
            num_attention_heads: 12,
            num_hidden_layers: 12,
            intermediate_size: 3072,
            vocab_size: 49408,
            max_position_embeddings: 77,
            hidden_act: "quick_gelu".into(),
            layer_norm_eps: 1e-5,
        }
    }
}

impl ClipTextConfig {
    fn check(&self) -> Result<()> {
        let sizes = [
            self.hidden_size,
            self.num_attention_heads,
            self.num_hidden_layers,
            self.intermediate_size,
            self.vocab_size,
            self.max_position_embeddings,
        ];
        if sizes.iter().any(|&n| n < 1) || self.hidden_size % self.num_attention_heads != 0 {
            let reason = "clip: sizes must be positive and hidden_size a multiple of num_attention_heads";
            return Err(ModelError::Config(reason.into()));
        }
        if self.num_hidden_layers > limits::TEXT_LAYERS {
            let reason = format!("clip: num_hidden_layers must be 1..{}", limits::TEXT_LAYERS);
            return Err(ModelError::Config(reason));
        }
        Activation::named(&self.hidden_act).map(drop)
    }

    /// Token ids of the empty prompt, `[1, max_position_embeddings]`: the start
    /// token, then the end token, which is also the padding. They are the last
    /// two of the vocabulary.
    pub fn empty_prompt(&self) -> Tensor {
        let mut ids = vec![self.vocab_size - 1; self.max_position_embeddings.max(1) as usize];
        ids[0] = self.vocab_size - 2;
        Tensor::from_slice(&ids).unsqueeze(0)
    }
}

#[derive(Debug, Clone, Copy)]
enum Activation {
    QuickGelu,
    Gelu,
}

impl Activation {
    fn named(name: &str) -> Result<Self> {
        match name {
            "quick_gelu" => Ok(Self::QuickGelu),
            "gelu" => Ok(Self::Gelu),
            other => Err(ModelError::Config(format!("clip: hidden_act `{other}` is not known"))),
        }
    }

    fn forward(self, x: &Tensor) -> Tensor {
        match self {
            Self::QuickGelu => x * (x * 1.702).sigmoid(),
            Self::Gelu => x.gelu("none"),
        }
    }
}

/// Causal self-attention and a feed-forward part, each behind its norm, with residuals.
#[derive(Debug)]
struct Layer {
    norm1: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: i64,
    activation: Activation,
}

impl Layer {
    fn new(vars: &Vars, config: &ClipTextConfig) -> Result<Self> {
        let (width, inner, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let attention = vars / "self_attn";
        let linear = |name: &str| Linear::new(&(&attention / name), width, width);
        Ok(Self {
            norm1: LayerNorm::new(&(vars / "layer_norm1"), width, eps)?,
            query: linear("q_proj")?,
            key: linear("k_proj")?,
            value: linear("v_proj")?,
            out: linear("out_proj")?,
            norm2: LayerNorm::new(&(vars / "layer_norm2"), width, eps)?,
            fc1: Linear::new(&(vars / "mlp.fc1"), width, inner)?,
            fc2: Linear::new(&(vars / "mlp.fc2"), inner, width)?,
            heads: config.num_attention_heads,
            activation: Activation::named(&config.hidden_act)?,
        })
    }

    fn attend(&self, x: &Tensor) -> Tensor {
        let size = x.size();
        let (batch, tokens, width) = (size[0], size[1], size[2]);
        let split = |linear: &Linear| {
            linear.forward(x).view([batch, tokens, self.heads, width / self.heads]).transpose(1, 2)
        };
        let (q, k, v) = (split(&self.query), split(&self.key), split(&self.value));
        let mixed = Tensor::scaled_dot_product_attention(&q, &k, &v, None::<Tensor>, 0.0, true, None, false);
        self.out.forward(&mixed.transpose(1, 2).reshape([batch, tokens, width]))
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = x + self.attend(&self.norm1.forward(x));
        let inner = self.activation.forward(&self.fc1.forward(&self.norm2.forward(&x)));
        self.fc2.forward(&inner) + x
    }
}

/// The complete text encoder.
#[derive(Debug)]
pub struct ClipText {
    tokens: Tensor,
    positions: Tensor,
    layers: Vec<Layer>,
    norm: LayerNorm,
    config: ClipTextConfig,
}

impl ClipText {
    /// Keys below `text_model`; a stored `position_ids` is ignored.
    ///
    /// # Errors
    /// [`ModelError::Config`], or as [`Vars::get`].
    pub fn new(vars: &Vars, config: &ClipTextConfig) -> Result<Self> {
        config.check()?;
        let model = vars / "text_model";
        let (width, length) = (config.hidden_size, config.max_position_embeddings);
        let embeddings = &model / "embeddings";
        if embeddings.has("position_ids") {
            let _ = embeddings.get("position_ids", &[1, length], Init::Const(0.0))?;
        }
        let table =
            |name: &str, rows: i64| (&embeddings / name).get("weight", &[rows, width], Init::Normal(0.02));
        let layers = (0..config.num_hidden_layers)
            .map(|i| Layer::new(&(&model / "encoder.layers" / i), config))
            .collect::<Result<_>>()?;
        Ok(Self {
            tokens: table("token_embedding", config.vocab_size)?,
            positions: table("position_embedding", length)?,
            layers,
            norm: LayerNorm::new(&(&model / "final_layer_norm"), width, config.layer_norm_eps)?,
            config: config.clone(),
        })
    }

    /// The configuration it was built with.
    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// Token ids `[b, n]` (int64) → hidden states `[b, n, hidden_size]` after the final norm.
    ///
    /// # Errors
    /// [`ModelError::Config`] for too long sequences or ids outside the vocabulary.
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let hidden = self.hidden_states(ids)?;
        let last = hidden.last().map_or_else(|| ids.shallow_clone(), Tensor::shallow_clone);
        Ok(self.norm.forward(&last))
    }

    /// The embeddings and every layer's output, before the final norm.
    ///
    /// # Errors
    /// As [`ClipText::forward`].
    pub fn hidden_states(&self, ids: &Tensor) -> Result<Vec<Tensor>> {
        self.check(ids)?;
        let positions = self.positions.narrow(0, 0, ids.size()[1]);
        let ids = ids.to_device(self.tokens.device());
        let mut states = vec![Tensor::embedding(&self.tokens, &ids, -1, false, false) + positions];
        for layer in &self.layers {
            states.extend(states.last().map(|x| layer.forward(x)));
        }
        Ok(states)
    }

    fn check(&self, ids: &Tensor) -> Result<()> {
        let (size, longest, vocabulary) =
            (ids.size(), self.config.max_position_embeddings, self.config.vocab_size);
        let fits =
            ids.kind() == Kind::Int64 && matches!(*size, [b, n] if b > 0 && (1..=longest).contains(&n));
        let known = fits && ids.min().int64_value(&[]) >= 0 && ids.max().int64_value(&[]) < vocabulary;
        if !known {
            let reason = format!(
                "clip: token ids must be int64 [batch, 1..{longest}] below {vocabulary}, not {size:?}"
            );
            return Err(ModelError::Config(reason));
        }
        Ok(())
    }
}
