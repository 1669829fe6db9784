//! Reference attention: what the appearance encoder hands to the U-Net.
//!
//! The features of a block are its first LayerNorm's output. The U-Net's block of
//! the same name appends them to the keys and values of its self-attention
//! (`magicanimate/models/mutual_self_attention.py`; pairing by name equals the
//! original's pairing by sorted width).

use crate::{
    error::{ModelError, Result},
    nn::{Attention, KeysValues},
};
use serde::{Deserialize, Serialize};
use std::{cell::RefCell, collections::BTreeMap};
use tch::{Kind, Tensor};

/// Which blocks hand features over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fusion {
    /// The middle block and the way up: what the original's pipeline always uses.
    #[default]
    Midup,
    /// Every block.
    Full,
}

impl Fusion {
    fn takes(self, name: &str) -> bool {
        self == Self::Full || !name.starts_with("down_blocks.")
    }
}

/// Features of a reference at one timestep, by block name, each `[rows, tokens, channels]`.
#[derive(Debug, Default)]
pub struct Bank {
    blocks: BTreeMap<String, Tensor>,
}

impl Bank {
    /// Features by block name.
    pub fn new(blocks: BTreeMap<String, Tensor>) -> Self {
        Self { blocks }
    }

    /// Features by block name.
    pub fn blocks(&self) -> &BTreeMap<String, Tensor> {
        &self.blocks
    }

    /// The same features after `f`, which may pick rows or cast but not change tokens or channels.
    pub fn map(&self, f: impl Fn(&Tensor) -> Tensor) -> Self {
        Self { blocks: self.blocks.iter().map(|(name, t)| (name.clone(), f(t))).collect() }
    }

    /// The same features in another dtype (the original hands them over in float16).
    pub fn to_kind(&self, kind: Kind) -> Self {
        self.map(|t| t.to_kind(kind))
    }

    /// `count` rows from `first` on.
    pub fn rows(&self, first: i64, count: i64) -> Self {
        self.map(|t| t.narrow(0, first, count))
    }
}

/// A bank already multiplied with the U-Net's key and value weights
/// (see [`crate::UNet::project`]): what inference keeps per reference and timestep.
#[derive(Debug, Default)]
pub struct ProjectedBank {
    blocks: BTreeMap<String, KeysValues>,
}

impl ProjectedBank {
    pub(crate) fn new(blocks: BTreeMap<String, KeysValues>) -> Self {
        Self { blocks }
    }

    /// Keys and values by block name.
    pub fn blocks(&self) -> &BTreeMap<String, KeysValues> {
        &self.blocks
    }

    /// The rows of several banks of one network, in this order: each sample of a batch reads its own.
    ///
    /// # Errors
    /// [`ModelError::Input`] if the banks have different blocks.
    pub fn joined(banks: &[&Self]) -> Result<Self> {
        let Some((first, others)) = banks.split_first() else { return Ok(Self::default()) };
        if others.iter().any(|bank| !bank.blocks.keys().eq(first.blocks.keys())) {
            return Err(ModelError::Input("reference banks of different networks cannot be joined".into()));
        }
        let block = |name: &String| {
            let all = || banks.iter().filter_map(|bank| bank.blocks.get(name));
            let keys: Vec<&Tensor> = all().map(|tokens| &tokens.keys).collect();
            let values: Vec<&Tensor> = all().map(|tokens| &tokens.values).collect();
            KeysValues { keys: Tensor::cat(&keys, 0), values: Tensor::cat(&values, 0) }
        };
        Ok(Self::new(first.blocks.keys().map(|name| (name.clone(), block(name))).collect()))
    }
}

#[derive(Debug, Clone, Copy)]
enum Form<'a> {
    Hidden(&'a Bank),
    Projected(&'a ProjectedBank),
}

/// A bank and the samples of a batch that read it.
///
/// The bank has one row for all reading samples, one row for each reading
/// sample, or one row for each sample of the batch.
#[derive(Debug, Clone, Copy)]
pub struct Reference<'a> {
    form: Form<'a>,
    first_sample: i64,
}

impl<'a> Reference<'a> {
    /// Features as the encoder made them: gradients flow back into the encoder.
    pub fn hidden(bank: &'a Bank) -> Self {
        Self { form: Form::Hidden(bank), first_sample: 0 }
    }

    /// Keys and values computed beforehand.
    pub fn projected(bank: &'a ProjectedBank) -> Self {
        Self { form: Form::Projected(bank), first_sample: 0 }
    }

    /// The first `samples` of the batch do not see the reference. Under guidance
    /// this is the unconditional half: the original discards its result with the
    /// bank and computes it again with plain self-attention.
    pub fn after(self, samples: i64) -> Self {
        Self { first_sample: samples.max(0), ..self }
    }

    fn sizes(&self) -> Vec<(&'a str, [i64; 2])> {
        match self.form {
            Form::Hidden(bank) => {
                bank.blocks.iter().map(|(name, t)| (name.as_str(), rows_and_width(t))).collect()
            }
            Form::Projected(bank) => bank
                .blocks
                .iter()
                .map(|(name, tokens)| {
                    let size = tokens.keys.size();
                    (name.as_str(), [size[0], size[1] * size[3]])
                })
                .collect(),
        }
    }

    /// Checks the bank against a batch and the network's blocks (`width` by name).
    pub(crate) fn reading(
        self,
        samples: i64,
        width: impl Fn(&str) -> Option<i64>,
    ) -> Result<Option<Reading<'a>>> {
        let readers = samples - self.first_sample;
        if readers <= 0 {
            return Ok(None);
        }
        let mut skip = 0;
        for (name, [rows, channels]) in self.sizes() {
            if width(name) != Some(channels) {
                let reason = format!("the reference bank's block `{name}` with {channels} channels");
                return Err(ModelError::Input(format!("{reason} does not fit this U-Net")));
            }
            if rows != 1 && rows != readers && rows != samples {
                return Err(ModelError::Input(format!(
                    "the reference bank has {rows} rows, {readers} samples of a batch of {samples} read it"
                )));
            }
            skip = if rows == samples { self.first_sample } else { 0 };
        }
        Ok(Some(Reading { form: self.form, first_sample: self.first_sample, skip, readers }))
    }
}

/// Of `[rows, tokens, channels]`; a width that fits nothing for another shape.
fn rows_and_width(features: &Tensor) -> [i64; 2] {
    match features.size()[..] {
        [rows, _, channels] => [rows, channels],
        _ => [0, 0],
    }
}

/// A checked [`Reference`].
#[derive(Debug)]
pub struct Reading<'a> {
    form: Form<'a>,
    first_sample: i64,
    /// Rows of the bank that belong to samples that do not read.
    skip: i64,
    readers: i64,
}

/// Keys and values that were kept, or just made.
pub(crate) enum Tokens<'a> {
    Kept(&'a KeysValues),
    Made(KeysValues),
}

impl AsRef<KeysValues> for Tokens<'_> {
    fn as_ref(&self) -> &KeysValues {
        match self {
            Self::Kept(tokens) => tokens,
            Self::Made(tokens) => tokens,
        }
    }
}

impl Reading<'_> {
    pub(crate) fn first_sample(&self) -> i64 {
        self.first_sample
    }

    /// The reference's keys and values for block `name`, if the bank has any.
    pub(crate) fn tokens(&self, name: &str, attention: &Attention) -> Option<Tokens<'_>> {
        match self.form {
            Form::Hidden(bank) => {
                let features = bank.blocks.get(name)?;
                let rows = features.size()[0] - self.skip;
                Some(Tokens::Made(attention.keys_values(&features.narrow(0, self.skip, rows))))
            }
            Form::Projected(bank) => {
                let kept = bank.blocks.get(name)?;
                Some(match self.skip {
                    0 => Tokens::Kept(kept),
                    skip => Tokens::Made(kept.rows(skip, self.readers)),
                })
            }
        }
    }
}

/// Collects features while the appearance encoder runs.
#[derive(Debug)]
pub struct Recorder {
    fusion: Fusion,
    blocks: RefCell<BTreeMap<String, Tensor>>,
}

impl Recorder {
    pub(crate) fn new(fusion: Fusion) -> Self {
        Self { fusion, blocks: RefCell::default() }
    }

    /// Keeps `features` of block `name` if the fusion wants them.
    pub(crate) fn note(&self, name: &str, features: &Tensor) {
        if self.fusion.takes(name) {
            self.blocks.borrow_mut().insert(name.to_owned(), features.shallow_clone());
        }
    }

    pub(crate) fn into_bank(self) -> Bank {
        Bank { blocks: self.blocks.into_inner() }
    }
}

/// What self-attention does with a reference during one pass.
#[derive(Debug, Default)]
pub enum Features<'a> {
    /// Nothing.
    #[default]
    Off,
    /// The appearance encoder hands its features over.
    Write(&'a Recorder),
    /// The U-Net attends to them.
    Read(Reading<'a>),
}
