//! From TOML text to [`ExperimentSpec`]: strict, with the line and the nearest name in every error.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{
    ExperimentSpec, ResolvedSpec,
    origin::{Origin, line_of, nearest},
    resolve::{Resolution, resolve_in},
};
use crate::error::{AtPath, Error, Result};

/// Reads, checks and resolves a spec file with `--set KEY=VALUE` overrides. `bf16`: whether the device has instructions for
/// it, which decides what `precision = "auto"` means.
///
/// # Errors
/// The file cannot be read, it is no spec, or a file or folder that it names is missing.
pub fn load(file: &Path, sets: &[String], bf16: bool) -> Result<ResolvedSpec> {
    let Resolution { spec, missing } = load_with_missing(file, sets, bf16)?;
    Error::all(missing).map(|()| spec)
}

/// [`load`], with what is missing beside the spec.
///
/// # Errors
/// The file cannot be read, or it is no spec.
pub fn load_with_missing(file: &Path, sets: &[String], bf16: bool) -> Result<Resolution> {
    let text = std::fs::read_to_string(file)
        .at_path(file, "cannot read the spec")
        .map_err(|e| e.help("the folder experiments/ has examples"))?;
    let mut spec = parse(&text, file, sets)?;
    if let Some(home) = std::env::home_dir() {
        expand_home(&mut spec, &home);
    }
    let folder_name = file.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    resolve_in(spec, &folder_name, &Origin { file, text: &text, sets }, bf16)
}

/// Puts the home folder in place of a leading `~` in every path of a spec, as a shell would.
fn expand_home(spec: &mut ExperimentSpec, home: &Path) {
    let expand = |path: &mut PathBuf| {
        if let Ok(rest) = path.strip_prefix("~") {
            *path = home.join(rest);
        }
    };
    let classification = spec.tasks.classification.as_mut().and_then(|task| task.weights.as_mut());
    let extractor = spec.measure.as_mut().and_then(|measure| measure.extractor.as_mut()?.weights.as_mut());
    let paths = [spec.data.root.as_mut(), spec.report.published.as_mut(), classification, extractor];
    paths.into_iter().flatten().for_each(expand);
    for generator in spec.generators.values_mut() {
        let folders = [&mut generator.pipeline, &mut generator.controlnet, &mut generator.folder];
        folders.into_iter().flatten().for_each(expand);
        if let Some(base) = &mut generator.base
            && let Ok(rest) = Path::new(base.as_str()).strip_prefix("~")
        {
            *base = home.join(rest).to_string_lossy().into_owned();
        }
    }
}

/// The typed spec with overrides; `file` is named in errors.
pub fn parse(text: &str, file: &Path, sets: &[String]) -> Result<ExperimentSpec> {
    let spec: ExperimentSpec = toml::from_str(text).map_err(|e| typed_error(&e, text, file))?;
    if sets.is_empty() {
        return Ok(spec);
    }
    let mut table: toml::Table = toml::from_str(text).map_err(|e| typed_error(&e, text, file))?;
    for set in sets {
        apply(&mut table, set)?;
        // One at a time, so that the error names the override that is wrong.
        ExperimentSpec::deserialize(table.clone())
            .map_err(|e| typed_wrongly(e.message()).at(format!("--set {set}")))?;
    }
    ExperimentSpec::deserialize(table).map_err(|e| typed_wrongly(e.message()).at(file))
}

fn apply(table: &mut toml::Table, set: &str) -> Result<()> {
    let place = format!("--set {set}");
    let bad =
        |problem: String| Error::input(problem).at(&place).help("write --set tasks.segmentation.epochs=20");
    let (key, value) = set.split_once('=').ok_or_else(|| bad("expected KEY=VALUE".into()))?;
    // A bare word is a string, so that quotes need not be quoted twice.
    let value: toml::Value = format!("v = {}", value.trim())
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| toml::Value::String(value.trim().to_owned()));
    let parts: Vec<&str> = key.trim().split('.').collect();
    let mut root = toml::Value::Table(std::mem::take(table));
    let outcome = insert(&mut root, &parts, value).map_err(bad);
    if let toml::Value::Table(whole) = root {
        *table = whole;
    }
    outcome
}

/// Walks to the last part of the key (making tables on the way) and puts the value there.
fn insert(here: &mut toml::Value, parts: &[&str], value: toml::Value) -> Result<(), String> {
    let Some((&part, rest)) = parts.split_first().filter(|(part, _)| !part.is_empty()) else {
        return Err("the key is empty".into());
    };
    let slot = match here {
        toml::Value::Table(table) => {
            table.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()))
        }
        toml::Value::Array(items) => part
            .parse::<usize>()
            .ok()
            .and_then(|i| items.get_mut(i))
            .ok_or_else(|| format!("the list has no item `{part}` (the first is 0)"))?,
        _ => return Err(format!("the spec has no table to set `{part}` in")),
    };
    if rest.is_empty() {
        *slot = value;
        return Ok(());
    }
    insert(slot, rest, value)
}

fn one_line(message: &str) -> String {
    message.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

fn typed_error(error: &toml::de::Error, text: &str, file: &Path) -> Error {
    let line = error.span().map_or(1, |span| line_of(text, span));
    typed_wrongly(error.message()).at_line(file, line)
}

/// What serde says, with Rust's types put into words, and what to do about it.
///
/// serde says: unknown field `epoks`, expected one of `epochs`, … (or unknown variant); invalid type:
/// string "three", expected usize (or invalid value). What else there is, is TOML's syntax.
fn typed_wrongly(message: &str) -> Error {
    let message = one_line(message);
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if let (true, Some((found, known))) = (message.starts_with("unknown"), names.split_first()) {
        let problem = message.split(", expected").next().unwrap_or(&message);
        return Error::input(problem).help(match nearest(found, known.iter().copied()) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("the known keys are {}", known.join(", ")),
        });
    }
    if let (true, Some(field)) = (message.starts_with("missing field"), names.first()) {
        return Error::input(format!("`{field}` is missing")).help(format!("write {field} = … there"));
    }
    let Some((problem, expected)) =
        message.rsplit_once(", expected ").filter(|_| message.starts_with("invalid"))
    else {
        return Error::input(message).help("this is not TOML: https://toml.io shows how it is written");
    };
    let expected = match expected {
        "usize" | "u16" | "u32" | "u64" => "a whole number, not below 0",
        "i16" | "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "a sequence" => "a list, such as [1, 2]",
        one if one.starts_with("struct ") => "a table: { KEY = VALUE, … }, or [NAME] with its keys below",
        other => other,
    };
    Error::input(problem).help(format!("write {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tilde_is_the_home_folder() {
        let text = "[data]\nroot = \"~/camus\"\n[generators.a]\nmode = \"text\"\nbase = \"~/sd\"\n[generators.b]\nmode = \"external\"\nfolder = \"~\"\n[report]\npublished = \"a/~/b\"\n";
        let mut spec = parse(text, Path::new("s.toml"), &[]).unwrap();
        expand_home(&mut spec, Path::new("/home/me"));
        assert_eq!(spec.data.root, Some("/home/me/camus".into()));
        assert_eq!(spec.generators["a"].base.as_deref(), Some("/home/me/sd"));
        assert_eq!(spec.generators["b"].folder.as_deref(), Some(Path::new("/home/me")));
        assert_eq!(spec.report.published, Some("a/~/b".into()));
    }
}
