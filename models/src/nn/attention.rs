//! Attention over the tokens of a frame (`magicanimate/models/attention.py`).

use super::{Conv2d, GroupNorm, LayerNorm, Linear, Pass};
use crate::{error::Result, reference::Features, vars::Vars};
use tch::Tensor;

/// Multi-head attention: `to_q`, `to_k`, `to_v` without bias, `to_out.0` with.
#[derive(Debug)]
pub struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: i64,
}

/// Keys and values, each `[rows, heads, tokens, channels per head]`.
#[derive(Debug)]
pub struct KeysValues {
    /// Keys.
    pub keys: Tensor,
    /// Values.
    pub values: Tensor,
}

impl KeysValues {
    /// Every row `times` times, neighbours equal.
    fn repeated(&self, times: i64) -> Self {
        let repeat = |t: &Tensor| t.repeat_interleave_self_int(times, 0, None);
        Self { keys: repeat(&self.keys), values: repeat(&self.values) }
    }

    /// Both sums; `other` may have one row for all.
    pub(crate) fn plus(&self, other: &Self) -> Self {
        Self { keys: &self.keys + &other.keys, values: &self.values + &other.values }
    }

    /// `count` rows from `first` on.
    pub(crate) fn rows(&self, first: i64, count: i64) -> Self {
        Self { keys: self.keys.narrow(0, first, count), values: self.values.narrow(0, first, count) }
    }

    /// These tokens, then the other's.
    fn followed_by(&self, other: &Self) -> Self {
        let join = |a: &Tensor, b: &Tensor| Tensor::cat(&[a, &b.to_kind(a.kind())], 2);
        Self { keys: join(&self.keys, &other.keys), values: join(&self.values, &other.values) }
    }
}

impl Attention {
    /// `context`: width of what keys and values are made of (`channels` for self-attention).
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn new(vars: &Vars, channels: i64, context: i64, inner: i64, heads: i64) -> Result<Self> {
        Ok(Self {
            to_q: Linear::with(&(vars / "to_q"), channels, inner, false)?,
            to_k: Linear::with(&(vars / "to_k"), context, inner, false)?,
            to_v: Linear::with(&(vars / "to_v"), context, inner, false)?,
            to_out: Linear::new(&(vars / "to_out" / 0), inner, channels)?,
            heads,
        })
    }

    /// `[rows, tokens, channels]` → `[rows, heads, tokens, channels / heads]`.
    fn split(&self, x: &Tensor) -> Tensor {
        let (rows, tokens, channels) = x.size3().unwrap_or_default();
        x.view([rows, tokens, self.heads, channels / self.heads]).transpose(1, 2)
    }

    /// Queries of `[rows, tokens, channels]`.
    fn queries(&self, x: &Tensor) -> Tensor {
        self.split(&self.to_q.forward(x))
    }

    /// Keys and values of `[rows, tokens, context]`.
    pub fn keys_values(&self, x: &Tensor) -> KeysValues {
        KeysValues { keys: self.split(&self.to_k.forward(x)), values: self.split(&self.to_v.forward(x)) }
    }

    /// Queries `[rows, heads, n, d]` on keys and values → `[rows, n, channels]`, before `to_out`.
    fn attend(queries: &Tensor, from: &KeysValues) -> Tensor {
        let KeysValues { keys, values } = from;
        let out = Tensor::scaled_dot_product_attention(
            queries,
            keys,
            values,
            None::<&Tensor>,
            0.0,
            false,
            None,
            false,
        );
        out.transpose(1, 2).flatten(2, 3)
    }

    /// `x` `[rows, n, channels]` attends to `context` `[rows, m, context]`.
    pub fn forward(&self, x: &Tensor, context: &Tensor) -> Tensor {
        self.read(x, &self.keys_values(context))
    }

    /// `x` `[rows, n, channels]` attends to keys and values.
    pub fn read(&self, x: &Tensor, from: &KeysValues) -> Tensor {
        if from.keys.size()[2] == 1 {
            // One key takes all the weight: no need to look at the queries.
            let out = from.values.transpose(1, 2).flatten(2, 3);
            return self.to_out.forward(&out).expand_as(x);
        }
        self.to_out.forward(&Self::attend(&self.queries(x), from))
    }

    /// Self-attention in which the samples from `first_sample` on also see the
    /// reference's tokens `extra` (one row per such sample, or one for all).
    ///
    /// `x` is `[samples·frames, n, channels]`. The earlier samples are the
    /// unconditional half under guidance, which the original recomputes plainly.
    fn with_reference(&self, x: &Tensor, extra: &KeysValues, first_sample: i64, frames: i64) -> Tensor {
        let (queries, own) = (self.queries(x), self.keys_values(x));
        let (plain, rows) = (first_sample * frames, x.size()[0]);
        let reading = rows - plain;
        let extra = extra.repeated(reading / extra.keys.size()[0]);
        let read =
            Self::attend(&queries.narrow(0, plain, reading), &own.rows(plain, reading).followed_by(&extra));
        if plain == 0 {
            return self.to_out.forward(&read);
        }
        let unread = Self::attend(&queries.narrow(0, 0, plain), &own.rows(0, plain));
        self.to_out.forward(&Tensor::cat(&[unread, read], 0))
    }
}

/// GEGLU feed-forward: the projection's second half is the gate, exact GELU.
#[derive(Debug)]
pub struct FeedForward {
    proj: Linear,
    out: Linear,
}

impl FeedForward {
    /// Keys `net.0.proj` and `net.2`, inner width 4 × `channels`.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn new(vars: &Vars, channels: i64) -> Result<Self> {
        let inner = 4 * channels;
        Ok(Self {
            proj: Linear::new(&(vars / "net" / 0 / "proj"), channels, 2 * inner)?,
            out: Linear::new(&(vars / "net" / 2), inner, channels)?,
        })
    }

    /// `[…, channels]` → same.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let halves = self.proj.forward(x).chunk(2, -1);
        self.out.forward(&(&halves[0] * halves[1].gelu("none")))
    }
}

/// Sizes that all spatial transformers of one network share.
#[derive(Debug, Clone, Copy)]
pub struct TransformerSizes {
    /// Groups of the norm at the entry.
    pub groups: i64,
    /// Width of the text embedding.
    pub text: i64,
}

/// Self-attention, cross-attention to the text, feed-forward.
#[derive(Debug)]
struct TransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
}

impl TransformerBlock {
    fn new(vars: &Vars, channels: i64, heads: i64, text: i64) -> Result<Self> {
        Ok(Self {
            norm1: LayerNorm::new(&(vars / "norm1"), channels, 1e-5)?,
            attn1: Attention::new(&(vars / "attn1"), channels, channels, channels, heads)?,
            norm2: LayerNorm::new(&(vars / "norm2"), channels, 1e-5)?,
            attn2: Attention::new(&(vars / "attn2"), channels, text, channels, heads)?,
            norm3: LayerNorm::new(&(vars / "norm3"), channels, 1e-5)?,
            ff: FeedForward::new(&(vars / "ff"), channels)?,
        })
    }

    /// `[b·f, tokens, channels]` → same.
    fn forward(&self, x: &Tensor, name: &str, pass: &Pass) -> Tensor {
        let x = x + self.self_attention(&self.norm1.forward(x), name, pass);
        let x = &x + self.cross_attention(&x, pass);
        &x + self.ff.forward(&self.norm3.forward(&x))
    }

    fn self_attention(&self, x: &Tensor, name: &str, pass: &Pass) -> Tensor {
        match &pass.features {
            Features::Off => self.attn1.forward(x, x),
            Features::Write(recorder) => {
                recorder.note(name, x);
                self.attn1.forward(x, x)
            }
            Features::Read(reading) => match reading.tokens(name, &self.attn1) {
                Some(extra) => {
                    self.attn1.with_reference(x, extra.as_ref(), reading.first_sample(), pass.frames)
                }
                None => self.attn1.forward(x, x),
            },
        }
    }

    /// All frames of a sample see the same text: they are one long row of queries.
    fn cross_attention(&self, x: &Tensor, pass: &Pass) -> Tensor {
        let (_, _, channels) = x.size3().unwrap_or_default();
        // A single token takes all the weight, whatever the queries are.
        let x = if pass.text.size()[1] == 1 { x.shallow_clone() } else { self.norm2.forward(x) };
        let long = x.view([pass.text.size()[0], -1, channels]);
        self.attn2.forward(&long, pass.text).reshape(x.size())
    }
}

/// Norm, 1×1 in, one transformer block over the pixels, 1×1 out, residual.
#[derive(Debug)]
pub struct SpatialTransformer {
    name: String,
    channels: i64,
    norm: GroupNorm,
    proj_in: Conv2d,
    block: TransformerBlock,
    proj_out: Conv2d,
}

impl SpatialTransformer {
    /// `name` is the path inside the network, by which the reference's features are found.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn new(vars: &Vars, name: &str, channels: i64, heads: i64, sizes: TransformerSizes) -> Result<Self> {
        Ok(Self {
            name: block_name(name),
            channels,
            norm: GroupNorm::new(&(vars / "norm"), sizes.groups, channels, 1e-6)?,
            proj_in: Conv2d::new(&(vars / "proj_in"), channels, channels, 1)?,
            block: TransformerBlock::new(&(vars / "transformer_blocks" / 0), channels, heads, sizes.text)?,
            proj_out: Conv2d::new(&(vars / "proj_out"), channels, channels, 1)?,
        })
    }

    /// Name of the transformer block, as in a [`crate::reference::Bank`].
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its width.
    pub(crate) fn channels(&self) -> i64 {
        self.channels
    }

    /// The self-attention whose keys and values a bank is projected with.
    pub(crate) fn self_attention(&self) -> &Attention {
        &self.block.attn1
    }

    /// `[b·f, channels, h, w]` → same.
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Tensor {
        let tokens = to_tokens(&self.proj_in.forward(&self.norm.forward(x)));
        let tokens = self.block.forward(&tokens, &self.name, pass);
        self.proj_out.forward_plus(&tokens.transpose(1, 2).reshape(x.size()), x)
    }
}

/// The appearance encoder's last transformer: it ends where its bank is taken.
#[derive(Debug)]
pub struct TruncatedTransformer {
    name: String,
    norm: GroupNorm,
    proj_in: Conv2d,
    norm1: LayerNorm,
}

impl TruncatedTransformer {
    /// As [`SpatialTransformer::new`], asking only for the keys that the bank needs.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn new(vars: &Vars, name: &str, channels: i64, groups: i64) -> Result<Self> {
        let norm1 = vars / "transformer_blocks" / 0 / "norm1";
        Ok(Self {
            name: block_name(name),
            norm: GroupNorm::new(&(vars / "norm"), groups, channels, 1e-6)?,
            proj_in: Conv2d::new(&(vars / "proj_in"), channels, channels, 1)?,
            norm1: LayerNorm::new(&norm1, channels, 1e-5)?,
        })
    }

    /// Notes the features of `[b, channels, h, w]`.
    pub fn note(&self, x: &Tensor, pass: &Pass) {
        if let Features::Write(recorder) = &pass.features {
            let tokens = to_tokens(&self.proj_in.forward(&self.norm.forward(x)));
            recorder.note(&self.name, &self.norm1.forward(&tokens));
        }
    }
}

fn block_name(transformer: &str) -> String {
    format!("{transformer}.transformer_blocks.0")
}

/// `[n, c, h, w]` → `[n, h·w, c]`.
fn to_tokens(x: &Tensor) -> Tensor {
    x.flatten(2, 3).transpose(1, 2).contiguous()
}
