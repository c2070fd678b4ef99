//! From the store to where people look.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::error::{AtPath, Result};

/// Folders of a report that hold nothing but what was drawn.
const DRAWN: [&str; 2] = ["figures", "tables"];

/// What reports of earlier versions had, which would now be taken for this one's.
const EARLIER: &str = "measurements.csv";

/// Copies a report into the folder `to`. A file that is the same is not written; what an earlier
/// report left in `figures/` and `tables/` goes away; other files of the user's stay.
pub fn publish(artifact: &Path, to: &Path) -> Result<()> {
    let mut kept = BTreeSet::new();
    for folder in ["", DRAWN[0], DRAWN[1]] {
        let (from, into) = (artifact.join(folder), to.join(folder));
        if !from.is_dir() {
            continue;
        }
        fs::create_dir_all(&into).at_path(&into, "cannot make the report's folder")?;
        for file in files(&from)? {
            let Some(name) = file.file_name().filter(|name| *name != crate::store::RECORD) else { continue };
            let target = into.join(name);
            let bytes = fs::read(&file).at_path(&file, "cannot read")?;
            if fs::read(&target).ok().as_deref() != Some(bytes.as_slice()) {
                fs::write(&target, bytes).at_path(&target, "cannot write the report")?;
            }
            kept.insert(target);
        }
    }
    let mut stale = vec![to.join(EARLIER)];
    for folder in DRAWN.map(|folder| to.join(folder)).iter().filter(|folder| folder.is_dir()) {
        stale.extend(files(folder)?.into_iter().filter(|file| !kept.contains(file)));
    }
    for stale in stale {
        // Another process that publishes the same report may have been faster.
        match fs::remove_file(&stale) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            other => other.at_path(&stale, "cannot remove")?,
        }
    }
    Ok(())
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).at_path(dir, "cannot read the folder")?;
    Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_drawn_before_goes_and_what_the_user_wrote_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a"), dir.path().join("b"));
        for path in ["a/figures", "b/figures"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        fs::write(from.join("index.html"), "new").unwrap();
        fs::write(from.join("record.json"), "{}").unwrap();
        fs::write(from.join("figures/x.svg"), "x").unwrap();
        fs::write(to.join("figures/old.svg"), "old").unwrap();
        fs::write(to.join("notes.md"), "mine").unwrap();
        fs::write(to.join("measurements.csv"), "old").unwrap();
        publish(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("index.html")).unwrap(), "new");
        assert!(to.join("figures/x.svg").exists() && to.join("notes.md").exists());
        assert!(!to.join("measurements.csv").exists());
        assert!(!to.join("figures/old.svg").exists() && !to.join("record.json").exists());
    }
}
