//! Digests of the files that a spec names.

use std::path::Path;

use crate::{
    error::Result,
    manifest,
    plan::OutsideDigests,
    spec::{ResolvedSpec, Source},
    store::Digests,
};

/// Whether a folder already has the inner shape, so that it needs no import.
pub fn is_manifest_folder(path: &Path) -> bool {
    path.join(manifest::FILE).is_file()
}

/// Reads (or remembers) the digests of data and weights.
pub fn outside_digests(spec: &ResolvedSpec, digests: &Digests) -> Result<OutsideDigests> {
    let mut found = OutsideDigests::default();
    if let Some(root) = &spec.data.root {
        found.data = Some(digests.outside(root)?);
        found.data_is_manifest =
            matches!(spec.data.source, Source::Folder | Source::Camus) && is_manifest_folder(root);
    }
    if let Some(task) = &spec.tasks.classification
        && !task.weights.as_os_str().is_empty()
    {
        found.classification_weights = Some(digests.outside(&task.weights)?);
    }
    digests.save();
    Ok(found)
}
