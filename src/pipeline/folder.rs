//! Folders as diffusers writes them: `model_index.json` names the parts, each part is a folder with its
//! configuration and its weights (diffusers 0.42.1: pipelines/pipeline_loading_utils.py,
//! models/modeling_utils.py, utils/hub_utils.py; transformers 5.23.0).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};
use tch::nn::VarStore;

use super::{
    file_names::{CONFIG, INDEX, SCHEDULER_CONFIG, is_plain},
    weight_files,
};
use crate::{
    error::{AtPath, Error, Result},
    nn::{config::Config, weights},
    plain_file,
};

/// Parts that sampling needs nothing of.
pub(super) const NOT_NEEDED: [&str; 3] = ["safety_checker", "feature_extractor", "image_encoder"];

const COPY_AGAIN: &str = "copy the folder again";

/// A pipeline's folder.
#[derive(Debug)]
pub struct PipelineFolder {
    dir: PathBuf,
    class: String,
    /// By name; None for a part that `model_index.json` has as `[null, null]`.
    parts: BTreeMap<String, Option<PipelinePart>>,
}

impl PipelineFolder {
    /// Reads `model_index.json`, and nothing else.
    ///
    /// # Errors
    /// `dir` is no pipeline's folder, or the index holds a value that is not supported.
    pub fn open(dir: &Path) -> Result<Self> {
        let index = dir.join(INDEX);
        if !index.is_file() {
            return Err(no_pipeline(dir));
        }
        let map = read_index(&index)?;
        let Some(class) = map.get("_class_name").and_then(Value::as_str) else {
            return Err(Error::input("`_class_name` is not the name of a pipeline").at(&index).help(
                "pipelines that bring their own Python code are not supported; name a stock pipeline's folder",
            ));
        };
        let mut parts = BTreeMap::new();
        for (name, value) in &map {
            if name.starts_with('_') || name == "requires_safety_checker" {
                continue;
            }
            let refused = || {
                Error::input(format!("`{name}` = {value} is not supported"))
                    .at(&index)
                    .help("a part is [\"library\", \"class\"], or [null, null] where there is none")
            };
            let part = match value.as_array().map(Vec::as_slice) {
                Some([Value::Null, Value::Null]) => None,
                Some([Value::String(library), Value::String(class)]) if is_plain(name) => {
                    Some(PipelinePart { dir: dir.join(name), library: library.clone(), class: class.clone() })
                }
                _ => return Err(refused()),
            };
            parts.insert(name.clone(), part);
        }
        Ok(Self { dir: dir.to_owned(), class: class.to_owned(), parts })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The Python class: `StableDiffusionPipeline`, `DDPMPipeline`, …
    pub fn class(&self) -> &str {
        &self.class
    }

    /// Every part that the index names, sorted by name; None where it has `[null, null]`.
    pub fn parts(&self) -> impl Iterator<Item = (&str, Option<&PipelinePart>)> {
        self.parts.iter().map(|(name, part)| (name.as_str(), part.as_ref()))
    }

    /// Whether the folder has a part of this name. A part that is given as null it has not.
    pub fn has(&self, name: &str) -> bool {
        matches!(self.parts.get(name), Some(Some(_)))
    }

    /// The part of this name.
    ///
    /// # Errors
    /// The index does not name it, or its folder is not there.
    pub fn part(&self, name: &str) -> Result<&PipelinePart> {
        let Some(Some(part)) = self.parts.get(name) else {
            return Err(Error::input(format!("the pipeline has no part `{name}`"))
                .at(self.dir.join(INDEX))
                .help(format!("its class is {}; is it the right folder?", self.class)));
        };
        match part.dir.is_dir() {
            true => Ok(part),
            false => Err(Error::input(format!(
                "the folder is not there, though {INDEX} names it as a {}",
                part.class
            ))
            .at(&part.dir)
            .help(COPY_AGAIN)),
        }
    }

    /// Refuses a part that is none of `known`, so that none is left out unseen: a second text encoder, for
    /// instance. A safety checker and what belongs to it are not needed, and passed over.
    pub fn only_parts(&self, known: &[&str]) -> Result<()> {
        let odd = self.parts.iter().find(|(name, part)| {
            part.is_some() && !known.contains(&name.as_str()) && !NOT_NEEDED.contains(&name.as_str())
        });
        match odd {
            Some((name, _)) => Err(Error::input(format!("the part `{name}` is not supported"))
                .at(self.dir.join(INDEX))
                .help(format!("supported: {}", known.join(", ")))),
            None => Ok(()),
        }
    }
}

/// One part of a pipeline, or a network that lies in a folder of its own (a ControlNet).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelinePart {
    dir: PathBuf,
    library: String,
    class: String,
}

impl PipelinePart {
    /// A part by its folder alone: its class is what its configuration says.
    ///
    /// # Errors
    /// The folder holds no configuration, or one that does not name a class.
    pub fn open(dir: &Path) -> Result<Self> {
        if dir.join(INDEX).is_file() {
            return Err(Error::input("a whole pipeline's folder, where one network's is needed")
                .at(dir)
                .help("name the folder of one of its parts, DIR/controlnet for instance"));
        }
        let Some(file) = [CONFIG, SCHEDULER_CONFIG].map(|f| dir.join(f)).into_iter().find(|f| f.is_file())
        else {
            return Err(no_config(dir, CONFIG));
        };
        let config = Config::read(&file)?;
        let architectures: Option<Vec<String>> = config.get("architectures", None)?;
        let of_transformers = architectures.and_then(|names| names.into_iter().next());
        let (library, class) = match (config.class(), of_transformers) {
            (Some(class), _) => ("diffusers", class.to_owned()),
            (None, Some(class)) => ("transformers", class),
            (None, None) => {
                return Err(Error::input(
                    "neither `_class_name` nor `architectures` says what network this is",
                )
                .at(&file)
                .help("name a folder that diffusers or transformers wrote"));
            }
        };
        Ok(Self { dir: dir.to_owned(), library: library.to_owned(), class })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// `diffusers` or `transformers`, as a rule.
    pub fn library(&self) -> &str {
        &self.library
    }

    /// The Python class: `UNet2DModel`, `CLIPTokenizer`, …
    pub fn class(&self) -> &str {
        &self.class
    }

    /// Refuses any class but the `supported` ones.
    pub fn expect_class(&self, supported: &[&str]) -> Result<()> {
        if supported.contains(&self.class.as_str()) {
            return Ok(());
        }
        Err(Error::input(format!("the class {} is not supported here", self.class))
            .at(&self.dir)
            .help(format!("supported: {}", supported.join(", "))))
    }

    /// Its configuration: `scheduler_config.json` of a scheduler, `config.json` of a network.
    ///
    /// # Errors
    /// The file is not there, is damaged, or is a network's of another class.
    pub fn config(&self) -> Result<Config> {
        let scheduler = self.class.ends_with("Scheduler");
        let name = if scheduler { SCHEDULER_CONFIG } else { CONFIG };
        let file = self.dir.join(name);
        if !file.is_file() {
            return Err(no_config(&self.dir, name));
        }
        let config = Config::read(&file)?;
        match config.class().filter(|class| !scheduler && *class != self.class) {
            Some(class) => Err(Error::input(format!("a {class}, where {INDEX} names a {}", self.class))
                .at(&file)
                .help(COPY_AGAIN)),
            None => Ok(config),
        }
    }

    /// The files that hold its weights: one, or all shards; safetensors before PyTorch's `.bin`. `variant` picks those
    /// of `save_pretrained(variant=…)`; without one a variant is taken only where there is nothing else.
    ///
    /// # Errors
    /// There are none, or a shard is missing.
    pub fn weight_files(&self, variant: Option<&str>) -> Result<Vec<PathBuf>> {
        weight_files::find(&self.dir, &self.library, variant)
    }

    /// Loads its weights into the network that was built in `vs`. Every key must be there and none more;
    /// attention layers may have their names of old (`query`, `key`, `value`, `proj_attn`), a text encoder
    /// its keys with or without `text_model.`. Values are converted to each variable's type and device.
    ///
    /// # Errors
    /// Those of [`PipelinePart::weight_files`] and of [`weights::load_named`].
    pub fn load_weights(&self, vs: &VarStore, variant: Option<&str>) -> Result<()> {
        weights::load_named(vs, &self.weight_files(variant)?, renaming(vs), |_| false).map(|_| ())
    }

    /// That [`PipelinePart::load_weights`] would load them, as far as the files' headers show.
    ///
    /// # Errors
    /// As [`PipelinePart::load_weights`].
    pub fn check_weights(&self, vs: &VarStore, variant: Option<&str>) -> Result<()> {
        weights::check_named(vs, &self.weight_files(variant)?, renaming(vs), |_| false)
    }
}

/// [`variable_name`] among the variables of `vs`.
fn renaming(vs: &VarStore) -> impl Fn(&str) -> Option<String> {
    let known: BTreeSet<String> = vs.variables().into_keys().collect();
    move |key| variable_name(key, |name| known.contains(name))
}

/// The variable that a checkpoint's key means; None for a buffer that upstream computes anew.
fn variable_name(key: &str, known: impl Fn(&str) -> bool) -> Option<String> {
    if known(key) {
        return Some(key.to_owned());
    }
    if let Some(name) = [format!("text_model.{key}"), new_attention_name(key)].into_iter().find(|n| known(n))
    {
        return Some(name);
    }
    let buffer = key == "embeddings.position_ids" || key.ends_with(".embeddings.position_ids");
    (!buffer).then(|| key.to_owned())
}

/// Attention layers before diffusers 0.15 called their projections otherwise.
fn new_attention_name(key: &str) -> String {
    let mut parts: Vec<&str> = key.split('.').collect();
    if let [.., layer, _] = parts.as_mut_slice() {
        *layer = match *layer {
            "query" => "to_q",
            "key" => "to_k",
            "value" => "to_v",
            "proj_attn" => "to_out.0",
            other => other,
        };
    }
    parts.join(".")
}

fn read_index(file: &Path) -> Result<Map<String, Value>> {
    let text = plain_file::read_to_string(file).at_path(file, "cannot read the pipeline's index")?;
    serde_json::from_str(&text).map_err(|e| {
        Error::input(format!("not a JSON object: {e}")).at_line(file, e.line() as u64).help(COPY_AGAIN)
    })
}

fn no_config(dir: &Path, name: &str) -> Error {
    if !dir.is_dir() {
        return Error::input("no such folder").at(dir).help("name a folder that diffusers wrote");
    }
    Error::input(format!("the folder has no {name}")).at(dir).help(COPY_AGAIN)
}

fn no_pipeline(dir: &Path) -> Error {
    if dir.is_file() {
        return Error::input("a file, where a diffusers folder is needed").at(dir).help(
            "convert a single-file checkpoint once in Python: \
             diffusers.StableDiffusionPipeline.from_single_file(FILE).save_pretrained(DIR)",
        );
    }
    if !dir.is_dir() {
        return Error::input("no such folder").at(dir).help("name a folder that diffusers wrote");
    }
    let part = [CONFIG, SCHEDULER_CONFIG].iter().any(|f| dir.join(f).is_file());
    Error::input(format!("the folder has no {INDEX}")).at(dir).help(match part {
        true => "this is one part of a pipeline: name the folder that it lies in",
        false => "name a pipeline's folder, as diffusers' save_pretrained writes it",
    })
}
