//! CLIP's byte-pair tokenizer: `CLIPTokenizer` of transformers (models/clip/tokenization_clip.py, 5.23.0)
//! on the same `tokenizers` crate that Python's is made of.
//!
//! Only vocabulary, merges and special tokens come from the files; how text is normalized and split is
//! fixed, as it is there, whatever `tokenizer.json` says.

mod files;
mod learn;

pub use learn::learn;

use std::path::Path;

use tokenizers::{
    AddedToken, SplitDelimiterBehavior, Tokenizer,
    models::bpe::BPE,
    normalizers::{Lowercase, NFC, NormalizerWrapper, Replace, Sequence, replace::ReplacePattern},
    pre_tokenizers::{
        PreTokenizerWrapper,
        byte_level::ByteLevel,
        sequence::Sequence as Splits,
        split::{Split, SplitPattern},
    },
};

use self::files::TokenizerFiles;
use crate::error::{Error, Result};

/// What the text is cut into before byte pairs are merged.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// A prompt in token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Start token, the prompt's tokens, end token, padding: as many as the tokenizer's `max_length`.
    pub ids: Vec<i64>,
    /// The end of the prompt, where there was no room for it: what the model will not see.
    pub cut: Option<String>,
}

/// Text to token ids.
pub struct ClipTokenizer {
    inner: Tokenizer,
    max_length: usize,
    bos: u32,
    eos: u32,
    pad: u32,
}

impl ClipTokenizer {
    /// Reads a tokenizer's folder: `tokenizer.json` alone (transformers 5) or `vocab.json` and `merges.txt`
    /// (before), with `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` where
    /// there are any. As in transformers, `tokenizer.json` comes first where both are there.
    ///
    /// # Errors
    /// A file is missing, damaged, or holds a value that is not supported.
    pub fn read(dir: &Path) -> Result<Self> {
        let files = TokenizerFiles::read(dir)?;
        let place = files.place.clone();
        let failed = |e: tokenizers::Error| {
            Error::input(format!("not CLIP's tokenizer: {e}")).at(&place).help("copy the folder again")
        };
        let bpe = BPE::builder()
            .vocab_and_merges(files.vocab, files.merges)
            .continuing_subword_prefix(String::new())
            .end_of_word_suffix("</w>".to_owned())
            .unk_token(files.unk.clone())
            .build()
            .map_err(failed)?;
        let mut inner = Tokenizer::new(bpe);
        inner.with_normalizer(Some(normalizer().map_err(failed)?)).map_err(failed)?;
        inner.with_pre_tokenizer(Some(pre_tokenizer().map_err(failed)?));
        inner.add_tokens(files.added).map_err(failed)?;
        let id = |role: &str, token: &str| {
            inner.token_to_id(token).ok_or_else(|| {
                Error::input(format!("the {role} token {token:?} is not in the vocabulary"))
                    .at(&place)
                    .help("copy the folder again")
            })
        };
        let (bos, eos, pad) = (id("start", &files.bos)?, id("end", &files.eos)?, id("padding", &files.pad)?);
        Ok(Self { inner, max_length: files.max_length, bos, eos, pad })
    }

    /// How many ids [`ClipTokenizer::encode`] gives: 77 for Stable Diffusion.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Ids are below this.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The end token's id.
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// The ids of a prompt, as `CLIPTokenizer(prompt, padding="max_length", truncation=True)` gives them,
    /// and what was cut off.
    ///
    /// # Errors
    /// The tokenizer's vocabulary lacks a byte of the prompt.
    pub fn encode(&self, prompt: &str) -> Result<Encoded> {
        let encoding = self
            .inner
            .encode(prompt, false)
            .map_err(|e| Error::failure(format!("cannot turn the prompt into tokens: {e}")))?;
        let (tokens, room) = (encoding.get_ids(), self.max_length - 2);
        let kept = &tokens[..tokens.len().min(room)];
        let mut ids = Vec::with_capacity(self.max_length);
        ids.push(self.bos.into());
        ids.extend(kept.iter().map(|&id| i64::from(id)));
        ids.push(self.eos.into());
        ids.resize(self.max_length, self.pad.into());
        let cut = encoding.get_offsets().get(room).map(|&(start, _)| {
            let start = (start..=prompt.len()).find(|&i| prompt.is_char_boundary(i));
            prompt[start.unwrap_or(prompt.len())..].trim().to_owned()
        });
        Ok(Encoded { ids, cut })
    }
}

fn normalizer() -> Result<Sequence, tokenizers::Error> {
    Ok(Sequence::new(vec![
        NormalizerWrapper::NFC(NFC),
        NormalizerWrapper::Replace(Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ")?),
        NormalizerWrapper::Lowercase(Lowercase),
    ]))
}

fn pre_tokenizer() -> Result<Splits, tokenizers::Error> {
    let words = SplitPattern::Regex(WORDS.to_owned());
    Ok(Splits::new(vec![
        PreTokenizerWrapper::Split(Split::new(words, SplitDelimiterBehavior::Removed, true)?),
        // It splits once more, by GPT-2's own expression, as upstream's default does.
        PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true)),
    ]))
}

/// A special token that the files name by its text alone.
fn special(content: &str) -> AddedToken {
    AddedToken::from(content, true)
}
