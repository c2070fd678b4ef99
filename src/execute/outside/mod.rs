//! Digests of the user's files that a spec names.
//!
//! A digest covers what the stages read, by its meaning, and nothing else: a README beside the data, a cache of
//! thumbnails or changed line ends must not retrain anything. A broken data set still has a digest, so that a
//! plan can be shown; the stage that reads the data set reports what is wrong with it.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::{
    data::import::{self, AcquisitionFiles},
    error::{Error, Result},
    experiment::{Data, ResolvedSpec},
    manifest::{self, Manifest, Row},
    pipeline::{files_read::files_read, training_patients},
    plan::{Outside, OutsideDigests},
    samples::class_folder,
    store::Digests,
    vocabulary::{Label, Source},
};

mod faults;
#[cfg(test)]
mod tests;

pub(super) use faults::faults;

/// Whether a folder already has the inner shape, so that it needs no import.
pub fn is_manifest_folder(path: &Path) -> bool {
    path.join(manifest::FILE).is_file()
}

/// The data set's folder, where it has the inner shape already.
pub(super) fn manifest_root(data: &Data) -> Option<&Path> {
    data.root.as_deref().filter(|root| data.source.may_be_manifest() && is_manifest_folder(root))
}

/// Reads (or remembers) the digests of data and weights.
///
/// # Errors
/// A file or folder that the spec names does not exist.
pub fn outside_digests(spec: &ResolvedSpec, digests: &Digests) -> Result<OutsideDigests> {
    let mut found = OutsideDigests::default();
    if let Some(root) = &spec.data.root {
        found.data_is_manifest = manifest_root(&spec.data).is_some();
        found.data = Some(match found.data_is_manifest {
            true => manifest_digest(root, digests)?,
            false => source_digest(spec.data.source, root, digests)?,
        });
    }
    if let Some(task) = &spec.tasks.classification {
        for model in &task.models {
            let Some(path) = task.weights_of(*model) else { continue };
            let weights = Outside { role: "weights".into(), digest: file_digest(&path, digests)?, path };
            found.classification_weights.insert(*model, weights);
        }
    }
    if let Some(measure) = &spec.measure
        && !measure.extractor.weights.as_os_str().is_empty()
    {
        found.extractor_weights = Some(file_digest(&measure.extractor.weights, digests)?);
    }
    if !spec.report.published.as_os_str().is_empty() {
        found.published = Some(file_digest(&spec.report.published, digests)?);
    }
    for generator in spec.generators.values() {
        let base = PathBuf::from(&generator.source.base);
        // A generator's name comes before a folder's.
        let base_is_folder = !spec.generators.contains_key(&generator.source.base);
        for path in [&generator.source.pipeline, &generator.source.controlnet]
            .into_iter()
            .chain(base_is_folder.then_some(&base))
            .filter(|path| !path.as_os_str().is_empty())
        {
            found.folders.insert(path.clone(), pipeline_digest(path, digests)?);
        }
        let folder = &generator.source.folder;
        if !folder.as_os_str().is_empty() {
            found.folders.insert(folder.clone(), manifest_digest(folder, digests)?);
            let rows = Manifest::read(folder).map(|manifest| manifest.rows).unwrap_or_default();
            if rows.iter().any(|row| row.mask.is_some()) {
                found.masked.insert(folder.clone());
            }
        }
    }
    digests.save();
    Ok(found)
}

fn check_exists(path: &Path) -> Result<()> {
    match path.exists() {
        true => Ok(()),
        false => Err(Error::input("this file or folder does not exist")
            .at(path)
            .help("paths in a spec are relative to the working folder")),
    }
}

fn file_digest(path: &Path, digests: &Digests) -> Result<String> {
    check_exists(path)?;
    Ok(contents(&[path.to_owned()], digests))
}

/// A folder with a manifest: its rows in their order (randomness is derived from an image's row number), with the
/// contents of the files that they name. Preparing gives every file a new name, so the old ones do not count.
fn manifest_digest(root: &Path, digests: &Digests) -> Result<String> {
    check_exists(root)?;
    Ok(data_digest(root, listed(root), digests))
}

/// The files of a folder with a manifest.
fn listed(root: &Path) -> Result<Vec<AcquisitionFiles>> {
    let manifest = Manifest::read(root)?;
    let files = |row: &Row| AcquisitionFiles {
        image: vec![manifest.image_path(row)],
        mask: manifest.mask_path(row).into_iter().collect(),
        row: row.clone(),
    };
    Ok(manifest.rows.iter().map(files).collect())
}

/// A data set that has to be imported: what its importer finds. A list of the official split, or a
/// patient's data, counts by the values that end in the rows.
fn source_digest(source: Source, root: &Path, digests: &Digests) -> Result<String> {
    check_exists(root)?;
    // Its pictures lie in one file, which takes long to decode.
    if source == Source::KaggleH5 {
        return file_digest(root, digests);
    }
    Ok(data_digest(root, import::source_files(source, root), digests))
}

fn data_digest(root: &Path, listed: Result<Vec<AcquisitionFiles>>, digests: &Digests) -> String {
    let acquisitions = match listed {
        Ok(acquisitions) => acquisitions,
        // The stage that reads it fails with the same error; once it is mended, it is another data set.
        Err(error) => return blake3::hash(format!("broken: {error}").as_bytes()).to_hex().to_string(),
    };
    let rows = acquisitions
        .into_par_iter()
        .map(|AcquisitionFiles { row, image, mask }| Row {
            image: contents(&image, digests).into(),
            mask: (!mask.is_empty()).then(|| contents(&mask, digests).into()),
            ..row
        })
        .collect();
    // As a table, which has one form whatever the original's columns, quotes and line ends were.
    let table = Manifest { root: PathBuf::new(), rows }.to_csv();
    let phantom = manifest::is_phantom(root);
    blake3::hash(format!("phantom: {phantom}\n{table}").as_bytes()).to_hex().to_string()
}

/// A pipeline (or one for each class, or a ControlNet): the files that loading reads, and its training
/// patients.
fn pipeline_digest(folder: &Path, digests: &Digests) -> Result<String> {
    if !folder.is_dir() {
        return file_digest(folder, digests);
    }
    let classes = (0..Label::ViewPhase.classes().len()).map(|class| folder.join(class_folder(class)));
    let files: Vec<PathBuf> =
        std::iter::once(folder.to_owned()).chain(classes).flat_map(|dir| files_read(&dir)).collect();
    let lines: Vec<String> = files
        .par_iter()
        .map(|file| {
            let name = file.strip_prefix(folder).unwrap_or(file).display();
            format!("{name}\0{}\n", contents(std::slice::from_ref(file), digests))
        })
        .collect();
    let patients = match training_patients::read(folder) {
        Ok(patients) => patients.into_iter().map(|patient| format!("{patient}\n")).collect(),
        Err(error) => format!("broken: {error}"),
    };
    let text = format!("{}\n{patients}", lines.concat());
    Ok(blake3::hash(text.as_bytes()).to_hex().to_string())
}

/// The digests of files that belong together. A file that cannot be read has none; the stage that needs it
/// reports why.
fn contents(files: &[PathBuf], digests: &Digests) -> String {
    let digest = |file: &PathBuf| digests.file(file).unwrap_or_else(|_| "unreadable".to_owned());
    files.iter().map(digest).collect::<Vec<_>>().join("+")
}
