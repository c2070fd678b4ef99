//! Writes folders that diffusers' `from_pretrained` loads (0.42.1). Each part is made beside its place
//! and renamed into it; `model_index.json` comes last, so that a folder without it is no pipeline.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};
use tch::{Tensor, nn::VarStore};

use super::file_names::{CONFIG, INDEX, SCHEDULER_CONFIG, TOKENIZER_FILES, is_plain, stem};
use crate::{
    atomic_file::write_atomically,
    error::{AtPath, Error, Result},
    nn::tensor_file,
};

/// The version of diffusers whose form the folders have.
const DIFFUSERS_VERSION: &str = "0.42.1";

/// A network's variables by their names, sorted: what [`write_part`] takes.
pub fn named(vs: &VarStore) -> Vec<(String, Tensor)> {
    let mut named: Vec<_> = vs.variables().into_iter().collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    named
}

/// Writes a network: `config.json` and its weights, each tensor with the type that it has. The
/// configuration names the class: `_class_name` (diffusers) or `architectures` (transformers).
///
/// # Errors
/// `dir` is there already, or cannot be written.
pub fn write_part(dir: &Path, config: &Value, tensors: &[(String, Tensor)]) -> Result<()> {
    let library = library(config).map_err(|e| e.at(dir))?;
    let partial = PartialFolder::new(dir)?;
    write_config(&partial.dir.join(CONFIG), config)?;
    tensor_file::write(&partial.dir.join(format!("{}.safetensors", stem(library))), tensors)?;
    partial.finish()
}

/// Writes a scheduler: `scheduler_config.json`. The strings `"Infinity"`, `"-Infinity"` and `"NaN"` are
/// written as the numbers that Python takes them for.
///
/// # Errors
/// `dir` is there already, or cannot be written.
pub fn write_scheduler(dir: &Path, config: &Value) -> Result<()> {
    library(config).map_err(|e| e.at(dir))?;
    let partial = PartialFolder::new(dir)?;
    write_config(&partial.dir.join(SCHEDULER_CONFIG), config)?;
    partial.finish()
}

/// Copies the files of the tokenizer in the folder `from`.
///
/// # Errors
/// `from` holds none of them; `dir` is there already, or cannot be written.
pub fn write_tokenizer(dir: &Path, from: &Path) -> Result<()> {
    let files: Vec<&str> = TOKENIZER_FILES.into_iter().filter(|file| from.join(file).is_file()).collect();
    if files.is_empty() {
        return Err(Error::input("no tokenizer in this folder").at(from).help("name a tokenizer's folder"));
    }
    let partial = PartialFolder::new(dir)?;
    for file in files {
        let bytes = fs::read(from.join(file)).at_path(from.join(file), "cannot read the tokenizer")?;
        write_file(&partial.dir.join(file), &bytes)?;
    }
    partial.finish()
}

/// Writes `model_index.json`, to be called when every part is in its place: the pipeline's class, and of
/// each part its name with its library and class, or None where the pipeline goes without it.
///
/// # Errors
/// A part's folder is not there, or the file cannot be written.
pub fn write_model_index(dir: &Path, class: &str, parts: &[(&str, Option<(&str, &str)>)]) -> Result<()> {
    let mut index = Map::new();
    index.insert("_class_name".to_owned(), class.into());
    index.insert("_diffusers_version".to_owned(), DIFFUSERS_VERSION.into());
    for (name, part) in parts {
        let place = dir.join(name);
        if part.is_some() && !(is_plain(name) && place.is_dir()) {
            return Err(Error::failure(format!("{INDEX} cannot name a part that is not there")).at(place));
        }
        let value = part.map_or(json!([null, null]), |(library, class)| json!([library, class]));
        index.insert((*name).to_owned(), value);
        if *name == "safety_checker" {
            index.insert("requires_safety_checker".to_owned(), part.is_some().into());
        }
    }
    write_atomically(&dir.join(INDEX), python_json(&index).as_bytes())
}

/// `diffusers` or `transformers`, by what the configuration names its class with.
fn library(config: &Value) -> Result<&'static str> {
    match (config.get("_class_name"), config.get("architectures")) {
        (Some(_), _) => Ok("diffusers"),
        (None, Some(_)) => Ok("transformers"),
        (None, None) => Err(Error::failure("a configuration without `_class_name` or `architectures`")),
    }
}

fn write_config(file: &Path, config: &Value) -> Result<()> {
    let mut map = config.as_object().cloned().unwrap_or_default();
    if map.contains_key("_class_name") && !map.contains_key("_diffusers_version") {
        map.insert("_diffusers_version".to_owned(), DIFFUSERS_VERSION.into());
    }
    write_file(file, python_json(&map).as_bytes())
}

/// JSON as Python writes it: sorted by key, and numbers that JSON does not have by their names.
fn python_json(map: &Map<String, Value>) -> String {
    let lines: Vec<String> = map
        .iter()
        .map(|(key, value)| match value.as_str() {
            Some(number @ ("Infinity" | "-Infinity" | "NaN")) => {
                format!("  {}: {number}", Value::from(key.as_str()))
            }
            _ => format!("  {}: {value}", Value::from(key.as_str())),
        })
        .collect();
    format!("{{\n{}\n}}\n", lines.join(",\n"))
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = fs::File::create(path).at_path(path, "cannot write")?;
    file.write_all(bytes).and_then(|()| file.sync_all()).at_path(path, "cannot write")
}

/// A folder on its way to its place; removed where it does not get there.
struct PartialFolder {
    dir: PathBuf,
    to: PathBuf,
    done: bool,
}

impl PartialFolder {
    fn new(to: &Path) -> Result<Self> {
        if to.exists() {
            return Err(Error::input("the folder exists already")
                .at(to)
                .help("name another folder, or remove this one first"));
        }
        let name = to
            .file_name()
            .ok_or_else(|| Error::input("this names no folder").at(to).help("name the folder to make"))?;
        let dir = to.with_file_name(format!(".{}.partial-{}", name.to_string_lossy(), std::process::id()));
        if dir.exists() {
            // Left behind by a killed process that had the same id.
            fs::remove_dir_all(&dir).at_path(&dir, "cannot remove the old folder")?;
        }
        fs::create_dir_all(&dir).at_path(&dir, "cannot make the folder")?;
        Ok(Self { dir, to: to.to_owned(), done: false })
    }

    fn finish(mut self) -> Result<()> {
        fs::rename(&self.dir, &self.to).at_path(&self.to, "cannot put the folder in its place")?;
        self.done = true;
        Ok(())
    }
}

impl Drop for PartialFolder {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}
