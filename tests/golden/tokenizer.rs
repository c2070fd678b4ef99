//! CLIP's tokenizer against transformers 5.23.0, on a vocabulary of its form. Fixtures: make_tokenizer.py.

use std::{collections::BTreeMap, fs, path::Path};

use serde::Deserialize;
use synecho::nn::tokenizer::ClipTokenizer;

use crate::{fixture, json};

#[derive(Deserialize)]
struct Fixture {
    prompts: Vec<String>,
    folders: BTreeMap<String, Expected>,
}

#[derive(Deserialize)]
struct Expected {
    pad: i64,
    /// Of each prompt, without the padding.
    ids: Vec<Vec<i64>>,
    cut: Vec<bool>,
}

const LENGTH: usize = 77;

/// The folder of this name, with the vocabulary that the others share.
fn folder(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let copy = |from: &Path| {
        fs::copy(from, dir.path().join(from.file_name().unwrap())).unwrap();
    };
    for entry in fs::read_dir(fixture("tokenizer").join(name)).unwrap() {
        copy(&entry.unwrap().path());
    }
    if !dir.path().join("tokenizer.json").exists() {
        copy(&fixture("tokenizer/vocab.json"));
        copy(&fixture("tokenizer/merges.txt"));
    }
    dir
}

/// The prompts whose ids are upstream's.
fn equal(tokenizer: &ClipTokenizer, fixture: &Fixture, expected: &Expected) -> Vec<bool> {
    let one = |(prompt, kept): (&String, &Vec<i64>)| {
        let mut ids = kept.clone();
        ids.resize(LENGTH, expected.pad);
        tokenizer.encode(prompt).unwrap().ids == ids
    };
    fixture.prompts.iter().zip(&expected.ids).map(one).collect()
}

#[test]
fn ids_equal_transformers_in_every_layout() {
    let fixture: Fixture = json("tokenizer/ids.json");
    assert_eq!((fixture.prompts.len(), fixture.folders.len()), (220, 6));
    for (name, expected) in &fixture.folders {
        let dir = folder(name);
        let tokenizer = ClipTokenizer::read(dir.path()).unwrap();
        assert_eq!(tokenizer.max_length(), LENGTH);
        let equal = equal(&tokenizer, &fixture, expected);
        for (prompt, equal) in fixture.prompts.iter().zip(&equal) {
            assert!(equal, "{name}: {prompt:?}: {:?}", tokenizer.encode(prompt));
        }
    }
}

#[test]
fn a_cut_prompt_says_what_was_cut() {
    let fixture: Fixture = json("tokenizer/ids.json");
    for (name, expected) in &fixture.folders {
        let tokenizer = ClipTokenizer::read(folder(name).path()).unwrap();
        for (prompt, cut) in fixture.prompts.iter().zip(&expected.cut) {
            let encoded = tokenizer.encode(prompt).unwrap();
            assert_eq!(encoded.cut.is_some(), *cut, "{name}: {prompt:?}");
            let Some(rest) = encoded.cut else { continue };
            assert!(prompt.trim_end().ends_with(&rest), "{prompt:?} {rest:?}");
        }
        let words: Vec<String> = (0..80).map(|i| ["heart", "image"][i % 2].to_owned()).collect();
        let encoded = tokenizer.encode(&words.join(" ")).unwrap();
        assert_eq!(encoded.cut, Some(words[75..].join(" ")), "{name}");
        assert_eq!(tokenizer.encode(&words[..75].join(" ")).unwrap().cut, None, "{name}");
    }
}

/// One folder's settings for another's, and a merge less, are seen.
#[test]
fn wrong_tokenizers_do_not_pass() {
    let fixture: Fixture = json("tokenizer/ids.json");
    let differing = |dir: &Path, of: &str| {
        let tokenizer = ClipTokenizer::read(dir).unwrap();
        equal(&tokenizer, &fixture, &fixture.folders[of]).iter().filter(|equal| !**equal).count()
    };
    for (of, other) in
        [("v5", "sd1"), ("sd1", "v5"), ("sd1", "sd2"), ("bare", "v5"), ("v5", "v5_pad"), ("v5", "v4")]
    {
        assert!(differing(folder(other).path(), of) > 0, "{other} passes for {of}");
    }
    let dir = folder("sd1");
    let merges = dir.path().join("merges.txt");
    let text = fs::read_to_string(&merges).unwrap();
    let without: Vec<&str> =
        text.lines().enumerate().filter(|(i, _)| *i != 20).map(|(_, line)| line).collect();
    fs::write(&merges, without.join("\n")).unwrap();
    assert!(differing(dir.path(), "sd1") > 0);
}

#[test]
fn faults_of_a_folder_are_named() {
    type Fault = fn(&Path);
    let put = |dir: &Path, file: &str, text: &str| fs::write(dir.join(file), text).unwrap();
    let error = |name: &str, fault: &dyn Fn(&Path)| {
        let dir = folder(name);
        fault(dir.path());
        ClipTokenizer::read(dir.path()).err().map(|e| e.to_string()).unwrap_or_default()
    };
    let removed: [(&str, Fault, &str); 3] = [
        ("sd1", |dir| fs::remove_file(dir.join("merges.txt")).unwrap(), "no merges.txt"),
        ("sd1", |dir| fs::remove_file(dir.join("vocab.json")).unwrap(), "no vocab.json"),
        ("v5", |dir| fs::remove_file(dir.join("tokenizer.json")).unwrap(), "no tokenizer"),
    ];
    for (name, fault, says) in removed {
        let error = error(name, &fault);
        assert!(error.contains(says), "{says}: {error}");
    }
    for (name, file, text, says) in [
        ("sd1", "merges.txt", "#version: 0.2\na b c\n", "merges.txt:2"),
        ("sd1", "merges.txt", "#version: 0.2\nqq zz\n", "\"qq\", which is no token"),
        ("sd1", "vocab.json", "{\"a\": ", "vocab.json:1"),
        ("sd1", "vocab.json", "[]", "not CLIP's tokenizer"),
        ("v5", "tokenizer.json", "{}", "not CLIP's tokenizer"),
        ("v5", "tokenizer_config.json", "{\"padding_side\": \"left\"}", "`padding_side` = \"left\""),
        ("v5", "tokenizer_config.json", "{\"model_max_length\": 1}", "`model_max_length`"),
        ("v5", "tokenizer_config.json", "{\"split_special_tokens\": true}", "split_special_tokens"),
        ("v5", "tokenizer_config.json", "{\"odd\": true}", "`odd`"),
        ("bare", "tokenizer_config.json", "{\"extra_special_tokens\": [\"<x>\"]}", "extra_special_tokens"),
    ] {
        let error = error(name, &|dir| put(dir, file, text));
        assert!(error.contains(says) && error.contains("help:"), "{says}: {error}");
    }
}
