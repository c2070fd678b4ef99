//! A tokenizer's folder: vocabulary, merges and special tokens, put together in the order in which
//! transformers 5.23.0 does (tokenization_utils_base.py, tokenization_utils_tokenizers.py).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::{
    AddedToken,
    models::bpe::{Merges, Vocab},
};

use super::special;
use crate::{
    error::{AtPath, Error, Result},
    nn::config::Config,
    plain_file,
};

/// What a tokenizer is built from.
pub(super) struct TokenizerFiles {
    pub vocab: Vocab,
    pub merges: Merges,
    /// In the order in which they are added.
    pub added: Vec<AddedToken>,
    pub bos: String,
    pub eos: String,
    pub unk: String,
    pub pad: String,
    pub max_length: usize,
    /// The file of the vocabulary.
    pub place: PathBuf,
}

/// Stable Diffusion's, where the folder does not say: without it, upstream would not pad at all.
const MAX_LENGTH: usize = 77;

const COPY_AGAIN: &str = "copy the folder again";

impl TokenizerFiles {
    pub fn read(dir: &Path) -> Result<Self> {
        let whole = dir.join("tokenizer.json");
        let (vocab, merges, mut listed, place) = match whole.is_file() {
            true => whole_file(whole)?,
            false => two_files(dir)?,
        };
        let config = settings(dir)?;
        let mut named = SpecialTokens::default();
        named.read(&config)?;
        // Newer configurations list every added token themselves; else the older files do.
        let decoder: Option<Map<String, Value>> = config.get("added_tokens_decoder", None)?;
        if let Some(decoder) = decoder {
            listed.clear();
            for (id, token) in decoder {
                let id = id.parse::<u64>().map_err(|_| {
                    Error::input(format!("`added_tokens_decoder` has the id {id:?}")).at(config.file())
                })?;
                listed.insert(id, added_token(token, config.file())?);
            }
        } else {
            let map = dir.join("special_tokens_map.json");
            if map.is_file() {
                let map = Config::read(&map)?;
                named.read(&map)?;
                no_others(&map)?;
                map.finish()?;
            }
            // tokenizer.json's tokens take the place of these.
            for (id, token) in added_tokens(&dir.join("added_tokens.json"), &named)? {
                listed.entry(id).or_insert(token);
            }
        }
        let max_length = max_length(&config)?;
        check_settings(&config)?;
        let added = named.added(&listed);
        let text = |token: &Option<AddedToken>, default: &str| {
            token.as_ref().map_or_else(|| default.to_owned(), |t| t.content.clone())
        };
        Ok(Self {
            vocab,
            merges,
            added,
            bos: text(&named.bos, START),
            eos: text(&named.eos, END),
            unk: text(&named.unk, END),
            pad: text(&named.pad, END),
            max_length,
            place,
        })
    }
}

type TokenizerParts = (Vocab, Merges, BTreeMap<u64, AddedToken>, PathBuf);

#[derive(Deserialize)]
struct TokenizerJson {
    model: Model,
    #[serde(default)]
    added_tokens: Vec<ListedToken>,
    #[serde(default)]
    truncation: Option<SideSetting>,
    #[serde(default)]
    padding: Option<SideSetting>,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: BTreeMap<String, u32>,
    merges: Vec<Merge>,
}

/// `"a b"` of old, `["a", "b"]` since tokenizers 0.20.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Line(String),
    Pair(String, String),
}

#[derive(Deserialize)]
struct ListedToken {
    id: u64,
    #[serde(flatten)]
    token: Value,
}

#[derive(Deserialize)]
struct SideSetting {
    direction: String,
}

/// `tokenizer.json`.
fn whole_file(file: PathBuf) -> Result<TokenizerParts> {
    let whole: TokenizerJson = json(&file)?;
    if whole.model.kind.as_deref().unwrap_or("BPE") != "BPE" {
        let kind = whole.model.kind.unwrap_or_default();
        return Err(Error::input(format!("the tokenizer is of the type {kind:?}"))
            .at(&file)
            .help("CLIP's is BPE: name a Stable Diffusion 1.x or 2.x folder"));
    }
    for (what, direction) in [("truncation", &whole.truncation), ("padding", &whole.padding)] {
        if let Some(SideSetting { direction }) = direction.as_ref().filter(|d| d.direction != "Right") {
            return Err(Error::input(format!("`{what}` has the direction {direction:?}"))
                .at(&file)
                .help("supported: \"Right\""));
        }
    }
    let pair = |merge: Merge| match merge {
        Merge::Pair(a, b) => Some((a, b)),
        Merge::Line(line) => pair_of(&line),
    };
    let merges = whole.model.merges.into_iter().map(pair).collect::<Option<Merges>>().ok_or_else(|| {
        Error::input("`merges` has an entry that is not two tokens").at(&file).help(COPY_AGAIN)
    })?;
    let mut listed = BTreeMap::new();
    for entry in whole.added_tokens {
        listed.insert(entry.id, added_token(entry.token, &file)?);
    }
    let vocab: Vocab = whole.model.vocab.into_iter().collect();
    for (a, b) in &merges {
        check_merge(&vocab, a, b).map_err(|e| e.at(&file))?;
    }
    Ok((vocab, merges, listed, file))
}

/// `vocab.json` and `merges.txt`.
fn two_files(dir: &Path) -> Result<TokenizerParts> {
    let (file, merges_file) = (dir.join("vocab.json"), dir.join("merges.txt"));
    for (there, missing) in [(&file, &merges_file), (&merges_file, &file)] {
        if !missing.is_file() {
            let what = if there.is_file() { "half a tokenizer" } else { "no tokenizer" };
            return Err(Error::input(format!("{what}: the folder has no {}", name(missing)))
                .at(dir)
                .help("a tokenizer's folder holds tokenizer.json, or vocab.json and merges.txt"));
        }
    }
    let vocab: BTreeMap<String, u32> = json(&file)?;
    let vocab: Vocab = vocab.into_iter().collect();
    let text = plain_file::read_to_string(&merges_file).at_path(&merges_file, "cannot read the merges")?;
    let mut merges = Merges::new();
    for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.starts_with("#version")) {
        let (a, b) = pair_of(line).ok_or_else(|| {
            Error::input(format!("{line:?} is not two tokens")).at_line(&merges_file, number).help(COPY_AGAIN)
        })?;
        check_merge(&vocab, &a, &b).map_err(|e| e.at_line(&merges_file, number))?;
        merges.push((a, b));
    }
    Ok((vocab, merges, BTreeMap::new(), file))
}

fn name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn json<T: serde::de::DeserializeOwned>(file: &Path) -> Result<T> {
    let text = plain_file::read_to_string(file).at_path(file, "cannot read the tokenizer")?;
    serde_json::from_str(&text).map_err(|e| {
        Error::input(format!("not CLIP's tokenizer: {e}")).at_line(file, e.line() as u64).help(COPY_AGAIN)
    })
}

fn pair_of(line: &str) -> Option<(String, String)> {
    let mut tokens = line.split(' ');
    match (tokens.next(), tokens.next(), tokens.next()) {
        (Some(a), Some(b), None) => Some((a.to_owned(), b.to_owned())),
        _ => None,
    }
}

/// The crate relies on it that both tokens and what they make are in the vocabulary.
fn check_merge(vocab: &Vocab, a: &str, b: &str) -> Result<()> {
    let merged = format!("{a}{b}");
    match [a, b, &merged].into_iter().find(|token| !vocab.contains_key(*token)) {
        Some(token) => Err(Error::input(format!("the merge {a:?} {b:?} needs {token:?}, which is no token"))
            .help("vocabulary and merges are of different tokenizers: copy the folder again")),
        None => Ok(()),
    }
}

/// `tokenizer_config.json`; an empty one where there is none.
fn settings(dir: &Path) -> Result<Config> {
    let file = dir.join("tokenizer_config.json");
    match file.is_file() {
        true => Config::read(&file),
        false => Config::parse("{}", &file),
    }
}

fn max_length(config: &Config) -> Result<usize> {
    // The library's own mark for "none given" is 1e30.
    let given = match config.get::<Option<f64>>("model_max_length", None)? {
        Some(length) => Some(length),
        None => config.get("max_len", None)?,
    };
    match given.filter(|&length| length <= 1e20) {
        None => Ok(MAX_LENGTH),
        Some(length) if (2.0..=1e6).contains(&length) && length.fract() == 0.0 => Ok(length as usize),
        Some(_) => Err(config.unsupported("model_max_length", "a whole number from 2 on; 77 is CLIP's")),
    }
}

/// Refuses what would change the ids and is not supported; the rest is bookkeeping, or has no effect on
/// CLIP's tokenizer in transformers 5.
fn check_settings(config: &Config) -> Result<()> {
    config.only("padding_side", &["right"])?;
    config.only("truncation_side", &["right"])?;
    config.only("split_special_tokens", &[Value::from(false), Value::Null])?;
    no_others(config)?;
    config.ignore(&[
        "add_bos_token",
        "add_eos_token",
        "add_prefix_space",
        "auto_map",
        "backend",
        "chat_template",
        "clean_up_tokenization_spaces",
        "do_lower_case",
        "errors",
        "init_inputs",
        "is_local",
        "legacy",
        "local_files_only",
        "max_length",
        "model_input_names",
        "name_or_path",
        "pad_to_multiple_of",
        "pad_token_type_id",
        "processor_class",
        "return_tensors",
        "special_tokens_map_file",
        "stride",
        "tokenizer_class",
        "tokenizer_file",
        "trim_offsets",
        "truncation_strategy",
        "use_fast",
        "verbose",
    ]);
    config.finish()
}

/// Special tokens without a role are not supported, only an empty list of them.
fn no_others(config: &Config) -> Result<()> {
    for key in ["additional_special_tokens", "extra_special_tokens"] {
        let value: Value = config.get(key, Value::Null)?;
        let empty = match &value {
            Value::Array(tokens) => tokens.is_empty(),
            Value::Object(tokens) => tokens.is_empty(),
            other => other.is_null(),
        };
        if !empty {
            return Err(config.unsupported(key, "supported: none, or an empty list"));
        }
    }
    Ok(())
}

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";

/// The special tokens that have a role.
#[derive(Default)]
struct SpecialTokens {
    bos: Option<AddedToken>,
    eos: Option<AddedToken>,
    unk: Option<AddedToken>,
    sep: Option<AddedToken>,
    pad: Option<AddedToken>,
    cls: Option<AddedToken>,
    mask: Option<AddedToken>,
    /// The fields above that were given by their text alone.
    bare: Vec<&'static str>,
}

impl SpecialTokens {
    /// In upstream's order.
    fn fields(&mut self) -> [(&'static str, &mut Option<AddedToken>); 7] {
        [
            ("bos_token", &mut self.bos),
            ("eos_token", &mut self.eos),
            ("unk_token", &mut self.unk),
            ("sep_token", &mut self.sep),
            ("pad_token", &mut self.pad),
            ("cls_token", &mut self.cls),
            ("mask_token", &mut self.mask),
        ]
    }

    /// Takes what `config` names; later files overrule earlier ones.
    fn read(&mut self, config: &Config) -> Result<()> {
        let mut bare = std::mem::take(&mut self.bare);
        for (key, field) in self.fields() {
            let token = match config.get(key, Value::Null)? {
                Value::Null => continue,
                Value::String(text) => {
                    bare.push(key);
                    special(&text)
                }
                mut token => {
                    bare.retain(|k| *k != key);
                    if let Value::Object(properties) = &mut token {
                        properties.insert("special".to_owned(), true.into());
                    }
                    added_token(token, config.file())?
                }
            };
            *field = Some(token);
        }
        self.bare = bare;
        Ok(())
    }

    /// Every token that is added to the vocabulary's own, in upstream's order: a later one of the same
    /// text replaces the earlier one's properties.
    fn added(&mut self, listed: &BTreeMap<u64, AddedToken>) -> Vec<AddedToken> {
        let bare = std::mem::take(&mut self.bare);
        let mut roles = Vec::new();
        for (key, field) in self.fields() {
            let default = match key {
                "bos_token" => Some(special(START)),
                "eos_token" | "unk_token" | "pad_token" => Some(special(END)),
                _ => None,
            };
            let is_bare = field.is_none() || bare.contains(&key);
            roles.extend(field.clone().or(default).map(|token| (token, is_bare)));
        }
        let mut added: Vec<AddedToken> = listed.values().cloned().collect();
        for token in &mut added {
            token.special |= roles.iter().any(|(role, _)| role.content == token.content);
        }
        let listed = added.len();
        let mut seen: Vec<&(AddedToken, bool)> = Vec::new();
        for role in &roles {
            let in_list = added[..listed].iter().any(|t| t.content == role.0.content);
            if !in_list && !seen.contains(&role) {
                seen.push(role);
            }
        }
        added.extend(seen.into_iter().map(|(token, _)| token.clone()));
        added
    }
}

/// A token with its properties, as Python's `AddedToken(**token)` takes them.
fn added_token(token: Value, file: &Path) -> Result<AddedToken> {
    #[derive(Deserialize)]
    struct Given {
        content: String,
        #[serde(default)]
        single_word: bool,
        #[serde(default)]
        lstrip: bool,
        #[serde(default)]
        rstrip: bool,
        normalized: Option<bool>,
        #[serde(default)]
        special: bool,
    }
    let text = token.to_string();
    let given: Given = serde_json::from_value(token)
        .map_err(|e| Error::input(format!("{text} is no token: {e}")).at(file).help(COPY_AGAIN))?;
    Ok(AddedToken {
        content: given.content,
        single_word: given.single_word,
        lstrip: given.lstrip,
        rstrip: given.rstrip,
        normalized: given.normalized.unwrap_or(!given.special),
        special: given.special,
    })
}

/// `added_tokens.json` of old: text to id.
fn added_tokens(file: &Path, named: &SpecialTokens) -> Result<BTreeMap<u64, AddedToken>> {
    if !file.is_file() {
        return Ok(BTreeMap::new());
    }
    let tokens: BTreeMap<String, u64> = json(file)?;
    let roles = [&named.bos, &named.eos, &named.unk, &named.sep, &named.pad, &named.cls, &named.mask];
    let with_role = |text: &str| roles.into_iter().flatten().any(|role| role.content == text);
    Ok(tokens.into_iter().map(|(text, id)| (id, AddedToken::from(&text, with_role(&text)))).collect())
}
