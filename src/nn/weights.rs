//! Loads files of tensors into networks, by the names that the upstream library gives the tensors.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use tch::{Device, Kind, Tensor, nn::VarStore};

use super::tensor_file::TensorFile;
use crate::error::{Error, Result};

/// The usual cause of a fault in keys or shapes.
const ANOTHER: &str =
    "the file holds another network: name a checkpoint of this one, with its library's own names";

/// Copies the file's tensors into the network's variables. Every variable must be there with its
/// shape, but for those that `optional` names; keys that the network lacks are refused but for
/// BatchNorm's counters, which nothing here uses. Returns what there is to say of the file: which part of a trainer's
/// checkpoint was taken.
pub fn load(vs: &VarStore, file: &Path, optional: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    load_named(vs, &[file.to_owned()], own_name, optional)
}

/// Of every key but BatchNorm's counters.
fn own_name(key: &str) -> Option<String> {
    (!key.ends_with("num_batches_tracked")).then(|| key.to_owned())
}

/// Variables that are only compared with a file's header, in a type of half the bytes.
pub fn shapes_only() -> VarStore {
    let mut vs = VarStore::new(Device::Cpu);
    vs.set_kind(Kind::Half);
    vs
}

/// That [`load`] would load the file, as far as its header shows. Reads no tensor.
///
/// # Errors
/// As [`load`].
pub fn check(vs: &VarStore, file: &Path, optional: impl Fn(&str) -> bool) -> Result<()> {
    match_names(vs, &[file.to_owned()], own_name, optional).map(|_| ())
}

/// [`load`] for tensors that lie in one file or in several (shards), under names that `rename` makes into
/// the network's: None leaves a tensor out. Every header is checked before the first tensor is read; then
/// one tensor at a time is in memory beside the network. A tensor is converted to its variable's type and
/// device.
///
/// # Errors
/// A file is damaged; a variable is missing, there twice, or of another shape or type; a name is none of
/// the network's.
pub fn load_named(
    vs: &VarStore,
    files: &[PathBuf],
    rename: impl Fn(&str) -> Option<String>,
    optional: impl Fn(&str) -> bool,
) -> Result<Vec<String>> {
    let MatchedWeights { opened, mut copies } = match_names(vs, files, rename, optional)?;
    // In the order in which they lie on disk.
    copies.sort_by_key(|&(f, e, _)| (f, e));
    for (f, e, variable) in copies {
        let tensor = opened[f].read(&opened[f].entries()[e])?;
        tch::no_grad(|| variable.shallow_clone().f_copy_(&tensor))?;
    }
    Ok(opened.iter().filter_map(note).collect())
}

/// [`check`] for the files and names of [`load_named`].
///
/// # Errors
/// As [`load_named`].
pub fn check_named(
    vs: &VarStore,
    files: &[PathBuf],
    rename: impl Fn(&str) -> Option<String>,
    optional: impl Fn(&str) -> bool,
) -> Result<()> {
    match_names(vs, files, rename, optional).map(|_| ())
}

/// Files whose headers fit a network.
struct MatchedWeights {
    opened: Vec<TensorFile>,
    /// File, entry in it, and the variable that it goes into.
    copies: Vec<(usize, usize, Tensor)>,
}

fn match_names(
    vs: &VarStore,
    files: &[PathBuf],
    rename: impl Fn(&str) -> Option<String>,
    optional: impl Fn(&str) -> bool,
) -> Result<MatchedWeights> {
    let mut opened = Vec::with_capacity(files.len());
    for file in files {
        opened.push(TensorFile::open(file)?);
    }
    // Variable name to (file, entry).
    let mut found: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (f, file) in opened.iter().enumerate() {
        for (e, entry) in file.entries().iter().enumerate() {
            let Some(name) = rename(&entry.name) else { continue };
            if let Some((other_f, other_e)) = found.insert(name, (f, e)) {
                let other = &opened[other_f];
                let there = format!("{} ({})", other.entries()[other_e].name, other.path().display());
                return Err(Error::input(format!("the file holds {} twice, also as {there}", entry.name))
                    .at(file.path())
                    .help("remove the files of one of the two checkpoints"));
            }
        }
    }
    let variables: BTreeMap<String, Tensor> = vs.variables().into_iter().collect();
    // Of several files none is the one where a tensor is missing.
    let place = match files {
        [file] => file.as_path(),
        _ => files.first().and_then(|f| f.parent()).unwrap_or(Path::new("")),
    };
    let mut copies = Vec::with_capacity(variables.len());
    for (name, variable) in &variables {
        let Some(&(f, e)) = found.get(name) else {
            if optional(name) {
                continue;
            }
            return Err(Error::input(format!("{name} is missing")).at(place).help(ANOTHER));
        };
        let entry = &opened[f].entries()[e];
        let renamed =
            if entry.name == *name { String::new() } else { format!(" (in the file: {})", entry.name) };
        let at = |e: Error| e.at(opened[f].path()).help(ANOTHER);
        if entry.shape != variable.size() {
            if optional(name) {
                continue;
            }
            return Err(at(Error::input(format!(
                "{name}{renamed} has the shape {:?}, the network needs {:?}",
                entry.shape,
                variable.size()
            ))));
        }
        if is_float(entry.kind) != is_float(variable.kind()) {
            return Err(at(Error::input(format!(
                "{name}{renamed} has the type {:?}, the network needs {:?}",
                entry.kind,
                variable.kind()
            ))));
        }
        copies.push((f, e, variable.shallow_clone()));
    }
    for (name, &(f, e)) in &found {
        if !variables.contains_key(name) && !optional(name) {
            let file = &opened[f];
            return Err(Error::input(format!("{} is no variable of this network", file.entries()[e].name))
                .at(file.path())
                .help(ANOTHER));
        }
    }
    Ok(MatchedWeights { opened, copies })
}

fn note(file: &TensorFile) -> Option<String> {
    file.note().map(|note| format!("{}: {note}", file.path().display()))
}

fn is_float(kind: Kind) -> bool {
    matches!(kind, Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16)
}
