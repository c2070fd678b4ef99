//! `training_patients.txt`: the patients whose images a pipeline was trained on, one per line.
//!
//! It lies beside the parts of a pipeline that was trained here. A pipeline must not make images for an
//! arm that tests on one of these patients.

use std::{collections::BTreeSet, path::Path};

use crate::error::{AtPath, Result};

const FILE: &str = "training_patients.txt";

/// The training patients of a pipeline, or of a part of one (whose list is in the folder above it). Empty where
/// no list exists, as for a stock pipeline.
pub fn read(folder: &Path) -> Result<BTreeSet<String>> {
    let folders = [Some(folder), folder.parent()].into_iter().flatten();
    let Some(file) = folders.map(|folder| folder.join(FILE)).find(|file| file.is_file()) else {
        return Ok(BTreeSet::new());
    };
    let text = std::fs::read_to_string(&file).at_path(&file, "cannot read")?;
    Ok(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// Writes the list of a pipeline: `patients`, and those of the pipeline that its training started from.
pub fn write<'a>(
    pipeline: &Path,
    base: Option<&Path>,
    patients: impl IntoIterator<Item = &'a str>,
) -> Result<()> {
    let mut all = base.map(read).transpose()?.unwrap_or_default();
    all.extend(patients.into_iter().map(str::to_owned));
    let lines: String = all.iter().map(|patient| format!("{patient}\n")).collect();
    let file = pipeline.join(FILE);
    std::fs::write(&file, lines).at_path(&file, "cannot write")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_pipeline_has_the_list_of_the_whole() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), None, ["p2", "p1", "p2"]).unwrap();
        for folder in [dir.path().to_owned(), dir.path().join("controlnet"), dir.path().join("2ch_ed")] {
            assert_eq!(read(&folder).unwrap().into_iter().collect::<Vec<_>>(), ["p1", "p2"], "{folder:?}");
        }
        assert!(read(&dir.path().join("a/b")).unwrap().is_empty());
    }

    #[test]
    fn a_pipeline_knows_the_patients_of_its_base() {
        let dir = tempfile::tempdir().unwrap();
        let (base, tuned) = (dir.path().join("base"), dir.path().join("tuned"));
        for folder in [&base, &tuned] {
            std::fs::create_dir(folder).unwrap();
        }
        write(&base, None, ["p1"]).unwrap();
        write(&tuned, Some(&base), ["p2"]).unwrap();
        assert_eq!(read(&tuned).unwrap().into_iter().collect::<Vec<_>>(), ["p1", "p2"]);
    }
}
