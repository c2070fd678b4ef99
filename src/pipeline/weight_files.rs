//! Which files of a network's folder hold its weights: diffusers 0.42.1 (utils/constants.py,
//! models/model_loading_utils.py), transformers 5.23.0 (modeling_utils.py).
//!
//! | | one file | shards, by an index |
//! |---|---|---|
//! | | `STEM.safetensors` | `STEM.safetensors.index.json` |
//! | variant `fp16` | `STEM.fp16.safetensors` | `STEM.safetensors.index.fp16.json`, once `STEM.safetensors.fp16.index.json` |
//!
//! STEM is `diffusion_pytorch_model` in diffusers, `model` in transformers. Older folders have `.bin` in place of
//! `.safetensors`, checkpoints of PyTorch; STEM is then `pytorch_model` in transformers.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::file_names::{checkpoint_stem, is_plain, stem};
use crate::{
    error::{AtPath, Error, Result},
    plain_file,
    vocabulary::CHECKPOINT_ENDINGS,
};

/// How the files of one format are called.
#[derive(Clone, Copy)]
struct WeightNames {
    stem: &'static str,
    ending: &'static str,
}

/// The files in `dir` that hold the weights, sorted; safetensors where there are both.
pub(super) fn find(dir: &Path, library: &str, variant: Option<&str>) -> Result<Vec<PathBuf>> {
    let names = names(dir)?;
    let formats = [
        WeightNames { stem: stem(library), ending: "safetensors" },
        WeightNames { stem: checkpoint_stem(library), ending: "bin" },
    ];
    if let Some(found) = first_format(dir, &names, formats, variant)? {
        return Ok(found);
    }
    let variants: BTreeSet<&str> = formats.iter().flat_map(|format| variants(&names, *format)).collect();
    let listed = variants.iter().copied().collect::<Vec<_>>().join(", ");
    match (variant, variants.len()) {
        (Some(variant), n) => {
            Err(Error::input(format!("the folder has no weights of the variant `{variant}`"))
                .at(dir)
                .help(if n > 0 { format!("it has: {listed}") } else { "leave the variant out".to_owned() }))
        }
        (None, 0) => Err(nothing(dir, &names, formats)),
        (None, 1) => {
            let only = variants.first().copied();
            first_format(dir, &names, formats, only)?.ok_or_else(|| nothing(dir, &names, formats))
        }
        (None, _) => Err(Error::input(format!("the folder has weights of several variants only: {listed}"))
            .at(dir)
            .help("name one of them")),
    }
}

fn names(dir: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(dir).at_path(dir, "cannot look into the folder")? {
        let entry = entry.at_path(dir, "cannot look into the folder")?;
        names.insert(entry.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

fn first_format(
    dir: &Path,
    names: &BTreeSet<String>,
    formats: [WeightNames; 2],
    variant: Option<&str>,
) -> Result<Option<Vec<PathBuf>>> {
    for format in formats {
        if let Some(found) = of_variant(dir, names, format, variant)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// As upstream looks: an index first, then one file.
fn of_variant(
    dir: &Path,
    names: &BTreeSet<String>,
    format: WeightNames,
    variant: Option<&str>,
) -> Result<Option<Vec<PathBuf>>> {
    let WeightNames { stem, ending } = format;
    let (indices, single) = match variant {
        None => (vec![format!("{stem}.{ending}.index.json")], format!("{stem}.{ending}")),
        Some(v) => (
            vec![format!("{stem}.{ending}.index.{v}.json"), format!("{stem}.{ending}.{v}.index.json")],
            format!("{stem}.{v}.{ending}"),
        ),
    };
    if let Some(index) = indices.iter().find(|index| names.contains(*index)) {
        return shards(dir, &dir.join(index), ending).map(Some);
    }
    Ok(names.contains(&single).then(|| vec![dir.join(single)]))
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn shards(dir: &Path, file: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let text = plain_file::read_to_string(file).at_path(file, "cannot read the index of the weights")?;
    let index: Index = serde_json::from_str(&text).map_err(|e| {
        Error::input(format!("not an index of weights: {e}"))
            .at_line(file, e.line() as u64)
            .help("copy the folder again")
    })?;
    let shards: BTreeSet<&str> = index.weight_map.values().map(String::as_str).collect();
    if shards.is_empty() {
        return Err(Error::input("the index names no weights").at(file).help("copy the folder again"));
    }
    for shard in &shards {
        if !is_plain(shard) || !shard.ends_with(&format!(".{ending}")) {
            return Err(Error::input(format!(
                "`weight_map` names {shard:?}, no .{ending} file of this folder"
            ))
            .at(file)
            .help("shards lie beside their index, in its format: copy the folder again"));
        }
        if !dir.join(shard).is_file() {
            return Err(Error::input(format!("the shard {shard} is not there, though the index names it"))
                .at(file)
                .help("copy the folder again"));
        }
    }
    Ok(shards.into_iter().map(|shard| dir.join(shard)).collect())
}

/// The variants that the names speak of.
fn variants(names: &BTreeSet<String>, format: WeightNames) -> Vec<&str> {
    let WeightNames { stem, ending } = format;
    names.iter().filter_map(|name| variant(name.strip_prefix(stem)?, ending)).collect()
}

/// The variant of a file, of whose name the stem is gone.
fn variant<'a>(rest: &'a str, ending: &str) -> Option<&'a str> {
    let file = rest.strip_prefix('.').and_then(|rest| rest.strip_suffix(ending)?.strip_suffix('.'));
    let index = rest.strip_prefix('.').and_then(|rest| {
        let rest = rest.strip_prefix(ending)?.strip_prefix('.')?.strip_suffix(".json")?;
        rest.strip_prefix("index.").or_else(|| rest.strip_suffix(".index"))
    });
    // A shard of a variant is `STEM.fp16-00001-of-00002.safetensors`: its index speaks for it.
    index.or(file).filter(|variant| !variant.is_empty() && !variant.contains(['.', '-']))
}

/// The error where no weights were found.
fn nothing(dir: &Path, names: &BTreeSet<String>, formats: [WeightNames; 2]) -> Error {
    let files = formats.map(|WeightNames { stem, ending }| format!("{stem}.{ending}"));
    let [safetensors, checkpoint] = &files;
    let problem = format!("the folder has no weights: no {safetensors} and no {checkpoint}");
    let shard = |WeightNames { stem, ending }: &WeightNames| {
        names.iter().any(|name| name.starts_with(stem) && name.ends_with(&format!(".{ending}")))
    };
    let renamed =
        names.iter().find(|name| CHECKPOINT_ENDINGS.iter().any(|end| name.ends_with(&format!(".{end}"))));
    let help = match (formats.iter().find(|format| shard(format)), renamed) {
        (Some(WeightNames { stem, ending }), _) => {
            format!("shards need their index, {stem}.{ending}.index.json: copy the folder again")
        }
        (None, Some(other)) => format!("if {other} holds them, rename it to {checkpoint}"),
        (None, None) => "copy the folder again, weights included".to_owned(),
    };
    Error::input(problem).at(dir).help(help)
}
