//! Digests of the files that a spec names.

use std::path::{Path, PathBuf};

use crate::{
    error::Result,
    experiment::ResolvedSpec,
    manifest,
    plan::{Outside, OutsideDigests},
    store::Digests,
    vocabulary::Source,
};

/// Whether a folder already has the inner shape, so that it needs no import.
pub fn is_manifest_folder(path: &Path) -> bool {
    path.join(manifest::FILE).is_file()
}

/// What the importer of CAMUS reads beside a folder of patients: the lists of the official split, and
/// the phantom's mark.
fn beside(root: &Path) -> Vec<PathBuf> {
    let Some(parent) = root.parent() else { return Vec::new() };
    let lists = ["training", "validation", "testing"].map(|part| format!("subgroup_{part}.txt"));
    let mut files: Vec<PathBuf> = lists.iter().map(|name| parent.join(name)).collect();
    files.extend(lists.iter().map(|name| parent.join("database_split").join(name)));
    files.push(parent.join(crate::data::phantom::MARKER));
    files.retain(|file| file.is_file());
    files
}

/// Reads (or remembers) the digests of data and weights.
pub fn outside_digests(spec: &ResolvedSpec, digests: &Digests) -> Result<OutsideDigests> {
    let mut found = OutsideDigests::default();
    if let Some(root) = &spec.data.root {
        found.data_is_manifest =
            matches!(spec.data.source, Source::Folder | Source::Camus) && is_manifest_folder(root);
        let mut digest = digests.outside(root)?;
        if spec.data.source == Source::Camus && !found.data_is_manifest {
            for file in beside(root) {
                digest += &digests.file(&file)?;
            }
        }
        found.data = Some(digest);
    }
    if let Some(task) = &spec.tasks.classification {
        for model in &task.models {
            let Some(path) = task.weights_of(*model) else { continue };
            let weights = Outside { role: "weights".into(), digest: digests.outside(&path)?, path };
            found.classification_weights.insert(*model, weights);
        }
    }
    if let Some(measure) = &spec.measure
        && !measure.extractor.weights.as_os_str().is_empty()
    {
        found.extractor_weights = Some(digests.outside(&measure.extractor.weights)?);
    }
    if !spec.report.published.as_os_str().is_empty() {
        found.published = Some(digests.outside(&spec.report.published)?);
    }
    for generator in spec.generators.values() {
        let base = PathBuf::from(&generator.source.base);
        // A generator's name comes before a folder's.
        let base_is_folder = !spec.generators.contains_key(&generator.source.base);
        for path in [&generator.source.pipeline, &generator.source.controlnet, &generator.source.folder]
            .into_iter()
            .chain(base_is_folder.then_some(&base))
            .filter(|path| !path.as_os_str().is_empty())
        {
            found.folders.insert(path.clone(), digests.outside(path)?);
        }
    }
    digests.save();
    Ok(found)
}
