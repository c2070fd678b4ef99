//! Which files of a network's folder hold its weights: diffusers 0.42.1 (utils/constants.py,
//! models/model_loading_utils.py), transformers 5.23.0 (modeling_utils.py).
//!
//! | | one file | shards, by an index |
//! |---|---|---|
//! | | `STEM.safetensors` | `STEM.safetensors.index.json` |
//! | variant `fp16` | `STEM.fp16.safetensors` | `STEM.safetensors.index.fp16.json`, once `STEM.safetensors.fp16.index.json` |
//!
//! STEM is `diffusion_pytorch_model` in diffusers, `model` in transformers.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::file_names::{is_plain, stem};
use crate::{
    error::{AtPath, Error, Result},
    nn::weights::PICKLED,
};

/// The safetensors files in `dir`, sorted.
pub(super) fn find(dir: &Path, library: &str, variant: Option<&str>) -> Result<Vec<PathBuf>> {
    let names = names(dir)?;
    let stem = stem(library);
    if let Some(found) = of_variant(dir, &names, stem, variant)? {
        return Ok(found);
    }
    let variants = variants(&names, stem);
    let listed = variants.iter().copied().collect::<Vec<_>>().join(", ");
    match (variant, variants.len()) {
        (Some(variant), n) => {
            Err(Error::input(format!("the folder has no weights of the variant `{variant}`"))
                .at(dir)
                .help(if n > 0 { format!("it has: {listed}") } else { "leave the variant out".to_owned() }))
        }
        (None, 0) => Err(nothing(dir, &names, stem)),
        (None, 1) => {
            let only = variants.first().copied();
            of_variant(dir, &names, stem, only)?.ok_or_else(|| nothing(dir, &names, stem))
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

/// As upstream looks: an index first, then one file.
fn of_variant(
    dir: &Path,
    names: &BTreeSet<String>,
    stem: &str,
    variant: Option<&str>,
) -> Result<Option<Vec<PathBuf>>> {
    let (indices, single) = match variant {
        None => (vec![format!("{stem}.safetensors.index.json")], format!("{stem}.safetensors")),
        Some(v) => (
            vec![format!("{stem}.safetensors.index.{v}.json"), format!("{stem}.safetensors.{v}.index.json")],
            format!("{stem}.{v}.safetensors"),
        ),
    };
    if let Some(index) = indices.iter().find(|index| names.contains(*index)) {
        return shards(dir, &dir.join(index)).map(Some);
    }
    Ok(names.contains(&single).then(|| vec![dir.join(single)]))
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn shards(dir: &Path, file: &Path) -> Result<Vec<PathBuf>> {
    let text = std::fs::read_to_string(file).at_path(file, "cannot read the index of the weights")?;
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
        if !is_plain(shard) || !shard.ends_with(".safetensors") {
            return Err(Error::input(format!(
                "`weight_map` names {shard:?}, no safetensors file of this folder"
            ))
            .at(file)
            .help("shards lie beside their index; pickled ones are not read"));
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
fn variants<'a>(names: &'a BTreeSet<String>, stem: &str) -> BTreeSet<&'a str> {
    let of = |name: &'a str| {
        let rest = name.strip_prefix(stem)?;
        let whole = |prefix: &str, suffix: &str| rest.strip_prefix(prefix)?.strip_suffix(suffix);
        let variant = whole(".safetensors.index.", ".json")
            .or_else(|| whole(".safetensors.", ".index.json"))
            .or_else(|| whole(".", ".safetensors"))?;
        // A shard of a variant is `STEM.fp16-00001-of-00002.safetensors`: its index speaks for it.
        (!variant.is_empty() && !variant.contains(['.', '-'])).then_some(variant)
    };
    names.iter().filter_map(|name| of(name)).collect()
}

/// The error where no safetensors file was found.
fn nothing(dir: &Path, names: &BTreeSet<String>, stem: &str) -> Error {
    let pickled = |name: &&String| PICKLED.iter().any(|p| name.ends_with(&format!(".{p}")));
    let Some(file) = names.iter().find(pickled) else {
        let sharded = names.iter().any(|n| n.starts_with(stem) && n.ends_with(".safetensors"));
        return Error::input(format!("the folder has no weights: no {stem}.safetensors")).at(dir).help(
            match sharded {
                true => {
                    format!("shards need their index, {stem}.safetensors.index.json: copy the folder again")
                }
                false => "copy the folder again, weights included".to_owned(),
            },
        );
    };
    let path = dir.join(file);
    let help = if names.iter().any(|n| n.ends_with(".bin.index.json")) {
        "convert it once in Python, with its class in diffusers or transformers: \
         CLASS.from_pretrained(DIR, use_safetensors=False).save_pretrained(DIR)"
            .to_owned()
    } else {
        let to = dir.join(format!("{stem}.safetensors"));
        format!(
            "convert it once in Python: import torch; from safetensors.torch import save_file; \
             save_file({{k: v.clone().contiguous() for k, v in torch.load({path:?}, map_location=\"cpu\", \
             weights_only=True).items()}}, {to:?}, metadata={{\"format\": \"pt\"}})"
        )
    };
    Error::input("pickled weights are not read: they can run code").at(path).help(help)
}
