//! A small vocabulary of CLIP's form for a text encoder that is trained from scratch.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Map, json};
use tokenizers::{
    OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, pre_tokenizers::byte_level::ByteLevel,
};

use super::pre_tokenizer;
use crate::error::{AtPath, Error, Result};

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";

/// Byte pairs are merged until each word of `texts` is one token, or this many times.
const MOST_MERGES: usize = 2000;

/// Writes `vocab.json`, `merges.txt` and the configuration into the existing folder `dir`, by byte-pair
/// encoding (Sennrich et al. 2016) of `texts`, for prompts of at most `max_length` tokens. Other texts
/// can be read too, byte by byte.
///
/// # Errors
/// The folder cannot be written.
pub fn learn(texts: &[String], max_length: i64, dir: &Path) -> Result<()> {
    let merges = merges(words(texts)?);
    let mut alphabet: Vec<String> = ByteLevel::alphabet().into_iter().map(String::from).collect();
    alphabet.sort();
    let ends: Vec<String> = alphabet.iter().map(|c| format!("{c}</w>")).collect();
    let merged = merges.iter().map(|(a, b)| format!("{a}{b}"));
    let tokens = alphabet.into_iter().chain(ends).chain(merged);
    let mut vocab = Map::new();
    for token in tokens.chain([START.to_owned(), END.to_owned()]) {
        let id = vocab.len();
        vocab.entry(token).or_insert(id.into());
    }
    let lines: Vec<String> = merges.iter().map(|(a, b)| format!("{a} {b}\n")).collect();
    let config = json!({
        "tokenizer_class": "CLIPTokenizer", "model_max_length": max_length, "bos_token": START,
        "eos_token": END, "unk_token": END, "pad_token": END,
    });
    let special = json!({ "bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END });
    for (name, text) in [
        ("vocab.json", serde_json::Value::Object(vocab).to_string()),
        ("merges.txt", format!("#version: 0.2\n{}", lines.concat())),
        ("tokenizer_config.json", config.to_string()),
        ("special_tokens_map.json", special.to_string()),
    ] {
        std::fs::write(dir.join(name), text).at_path(dir.join(name), "cannot write the tokenizer")?;
    }
    Ok(())
}

/// How often each word stands in the texts, as its symbols.
fn words(texts: &[String]) -> Result<BTreeMap<Vec<String>, usize>> {
    let failed = |e: tokenizers::Error| Error::failure(format!("cannot split a prompt: {e}"));
    let splitter = pre_tokenizer().map_err(failed)?;
    let mut words = BTreeMap::new();
    for text in texts {
        let mut split = PreTokenizedString::from(text.to_lowercase());
        splitter.pre_tokenize(&mut split).map_err(failed)?;
        for (word, _, _) in split.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
            let mut symbols: Vec<String> = word.chars().map(String::from).collect();
            if let Some(last) = symbols.last_mut() {
                last.push_str("</w>");
                *words.entry(symbols).or_insert(0) += 1;
            }
        }
    }
    Ok(words)
}

/// The most frequent pair, again and again; of equals the first by name.
fn merges(words: BTreeMap<Vec<String>, usize>) -> Vec<(String, String)> {
    let mut words: Vec<(Vec<String>, usize)> = words.into_iter().collect();
    let mut merges = Vec::new();
    while merges.len() < MOST_MERGES {
        let mut pairs: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for (word, count) in &words {
            for pair in word.windows(2) {
                *pairs.entry((&pair[0], &pair[1])).or_insert(0) += count;
            }
        }
        let best = pairs.into_iter().max_by(|a, b| a.1.cmp(&b.1).then(b.0.cmp(&a.0)));
        let Some(((a, b), _)) = best else { break };
        let (a, b) = (a.to_owned(), b.to_owned());
        for (word, _) in &mut words {
            let mut i = 0;
            while i + 1 < word.len() {
                if word[i] == a && word[i + 1] == b {
                    let second = word.remove(i + 1);
                    word[i].push_str(&second);
                }
                i += 1;
            }
        }
        merges.push((a, b));
    }
    merges
}

#[cfg(test)]
mod tests {
    use super::{super::ClipTokenizer, *};

    #[test]
    fn a_learned_word_is_one_token_and_another_is_read_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let texts = ["two-chamber view, ed".to_owned(), "four-chamber view, es".to_owned()];
        learn(&texts, 16, dir.path()).unwrap();
        let tokenizer = ClipTokenizer::read(dir.path()).unwrap();
        assert_eq!(tokenizer.max_length(), 16);
        let length = |text: &str| {
            let ids = tokenizer.encode(text).unwrap().ids;
            ids.iter().position(|&id| id == ids[15]).unwrap()
        };
        // Start, two, -, chamber, view, comma, ed; the end token is the padding.
        assert_eq!(length("Two-chamber view, ED"), 7);
        assert_eq!(length("four"), 2);
        assert!(length("fours") > 2);
        assert_ne!(tokenizer.encode("ed").unwrap().ids, tokenizer.encode("es").unwrap().ids);
    }
}
