//! CLIP's tokenizer: a prompt to the token ids that the text encoder reads.
//!
//! The steps and the pattern are those of transformers' `CLIPTokenizerFast`.

use crate::{
    checkpoint::{ModelDir, Role},
    clip::ClipTextConfig,
    error::{ModelError, Result},
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};
use tch::Tensor;
use tokenizers::{
    AddedToken, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer,
    models::bpe::BPE,
    normalizers::{Lowercase, NFC, Replace, Sequence, replace::ReplacePattern},
    pre_tokenizers::{
        byte_level::ByteLevel,
        sequence::Sequence as Steps,
        split::{Split, SplitPattern},
    },
};

/// Names of the two files, in a published folder and in a model directory.
pub const FILES: [&str; 2] = ["vocab.json", "merges.txt"];

const START: &str = "<|startoftext|>";
/// Also the padding, and what stands for unknown characters.
const END: &str = "<|endoftext|>";
/// What belongs together before merging: English endings, letters, single digits, runs of other marks.
const WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Pieces of words, and in which order they are merged.
#[derive(Debug)]
pub struct ClipTokenizer {
    tokenizer: Tokenizer,
    start: i64,
    end: i64,
}

/// A prompt as token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// As many as were asked for: the start token, the prompt, and the end token up to the last place.
    pub ids: Vec<i64>,
    /// The rest of the prompt that found no place; empty if all of it did.
    pub cut: String,
}

impl Tokens {
    /// The ids as `[1, n]`.
    pub fn tensor(&self) -> Tensor {
        Tensor::from_slice(&self.ids).unsqueeze(0)
    }
}

impl ClipTokenizer {
    /// The tokenizer of a model directory, checksums compared.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it has none, or as [`ClipTokenizer::new`].
    pub fn of(model: &ModelDir) -> Result<Self> {
        let [vocabulary, merges] = <[(PathBuf, Vec<u8>); 2]>::try_from(model.bytes(Role::Tokenizer)?)
            .map_err(|files| {
                let reason =
                    format!("files: `tokenizer` names {} files, not {}", files.len(), FILES.join(" and "));
                ModelError::BadFile { file: model.dir().to_owned(), reason }
            })?;
        Self::new((&vocabulary.0, &vocabulary.1), (&merges.0, &merges.1))
    }

    /// From the contents of `vocab.json` and `merges.txt`, each with its path for messages.
    ///
    /// # Errors
    /// [`ModelError::BadFile`] if they are something else or do not belong together.
    pub fn new(vocabulary: (&Path, &[u8]), merges: (&Path, &[u8])) -> Result<Self> {
        let bad = |file: &Path, reason: String| ModelError::BadFile { file: file.to_owned(), reason };
        let ids: HashMap<String, u32> = serde_json::from_slice(vocabulary.1)
            .map_err(|e| bad(vocabulary.0, format!("is no vocabulary of a tokenizer: {e}")))?;
        let special = |token: &str| {
            let id = ids.get(token).copied().map(i64::from);
            id.ok_or_else(|| bad(vocabulary.0, format!("has no {token}: it is not CLIP's vocabulary")))
        };
        let (start, end) = (special(START)?, special(END)?);
        let pairs = pairs(merges.1).map_err(|reason| bad(merges.0, reason))?;
        let bpe = BPE::builder()
            .vocab_and_merges(ids.into_iter().collect::<tokenizers::models::bpe::Vocab>(), pairs)
            .unk_token(END.into())
            .end_of_word_suffix("</w>".into())
            .build();
        let bpe =
            bpe.map_err(|e| bad(merges.0, format!("does not belong to {}: {e}", vocabulary.0.display())))?;
        let tokenizer = assembled(bpe).map_err(|e| bad(merges.0, e.to_string()))?;
        Ok(Self { tokenizer, start, end })
    }

    /// Whether the text encoder knows every token, and has the start and end where this has them.
    ///
    /// # Errors
    /// [`ModelError::BadFile`] naming `file`.
    pub fn check(&self, file: &Path, encoder: &ClipTextConfig) -> Result<()> {
        let (size, wanted) = (self.tokenizer.get_vocab_size(true), encoder.vocab_size);
        let ends = (self.start, self.end) == (wanted - 2, wanted - 1);
        if i64::try_from(size) == Ok(wanted) && ends {
            return Ok(());
        }
        let reason = format!(
            "its {size} tokens, {START} at {} and {END} at {}, are not those of a text encoder of {wanted} tokens",
            self.start, self.end
        );
        Err(ModelError::BadFile { file: file.to_owned(), reason })
    }

    /// The prompt in `length` tokens, start and end included: what is longer is cut, the rest padded.
    ///
    /// # Errors
    /// [`ModelError::Input`] if the tokenizer fails.
    pub fn encode(&self, prompt: &str, length: usize) -> Result<Tokens> {
        let failed = |e: tokenizers::Error| ModelError::Input(format!("the prompt cannot be tokenized: {e}"));
        let encoding = self.tokenizer.encode(prompt, false).map_err(failed)?;
        let room = length.saturating_sub(2);
        let cut = encoding.get_offsets().get(room).and_then(|&(from, _)| prompt.get(from..)).unwrap_or("");
        let own = encoding.get_ids().iter().take(room).map(|&id| i64::from(id));
        let mut ids: Vec<i64> = std::iter::once(self.start).chain(own).collect();
        ids.resize(length, self.end);
        Ok(Tokens { ids, cut: cut.trim().to_owned() })
    }
}

/// One pair a line, behind a line that names the version.
fn pairs(merges: &[u8]) -> Result<Vec<(String, String)>, String> {
    let text = std::str::from_utf8(merges).map_err(|e| format!("is no list of merges: {e}"))?;
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.starts_with("#version") && !line.is_empty());
    let pair = |(at, line): (usize, &str)| {
        let pair = line.split_once(' ').filter(|(_, second)| !second.contains(' '));
        let pair = pair.map(|(first, second)| (first.to_owned(), second.trim_end().to_owned()));
        pair.ok_or_else(|| format!("line {}: not two pieces of words", at + 1))
    };
    lines.map(pair).collect()
}

/// Normalisation, words, bytes as characters, merging.
fn assembled(bpe: BPE) -> tokenizers::Result<Tokenizer> {
    let mut tokenizer = Tokenizer::new(bpe);
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ")?;
    let normalizers: [NormalizerWrapper; 3] = [NFC.into(), spaces.into(), Lowercase.into()];
    tokenizer.with_normalizer(Some(Sequence::new(normalizers.into())));
    let words = Split::new(SplitPattern::Regex(WORDS.into()), SplitDelimiterBehavior::Removed, true)?;
    let bytes = ByteLevel::default().add_prefix_space(false);
    let steps: [PreTokenizerWrapper; 2] = [words.into(), bytes.into()];
    tokenizer.with_pre_tokenizer(Some(Steps::new(steps.into())));
    // Written out in a prompt, in small or large letters, they are what they are, not text.
    tokenizer.add_special_tokens(&[START, END].map(|token| AddedToken::from(token, true).normalized(true)));
    Ok(tokenizer)
}
