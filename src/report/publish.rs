//! From the store to where people look.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    atomic_file::write_atomically,
    error::{AtPath, Error, Result},
    report::{PAGE, generators::GENERATORS},
    vocabulary::Task,
};

/// Folders of a report that hold what was drawn.
const DRAWN: [&str; 2] = ["figures", "tables"];

/// What reports of earlier versions had, which would now be taken for this one's.
const EARLIER: &str = "measurements.csv";

/// In every page of ours.
const MARK: &str = "Synecho report";

/// Copies a report into the folder `to`. A file that is the same is not written; what an earlier
/// report left in `figures/` and `tables/` is removed, recognised by its name; other files stay. `record` is the store's own
/// file in the artifact, which is not published.
///
/// # Errors
/// The folder cannot be written, or holds a page that is no report.
pub fn publish(artifact: &Path, to: &Path, record: &str) -> Result<()> {
    let earlier = is_report(to)?;
    let mut kept = BTreeSet::new();
    for folder in ["", DRAWN[0], DRAWN[1]] {
        let (from, into) = (artifact.join(folder), to.join(folder));
        if !from.is_dir() {
            continue;
        }
        fs::create_dir_all(&into).at_path(&into, "cannot make the report's folder")?;
        for file in files(&from)? {
            let Some(name) = file.file_name().filter(|name| *name != record) else { continue };
            let target = into.join(name);
            let bytes = fs::read(&file).at_path(&file, "cannot read")?;
            if fs::read(&target).ok().as_deref() != Some(bytes.as_slice()) {
                write_atomically(&target, &bytes)?;
            }
            kept.insert(target);
        }
    }
    if !earlier {
        return Ok(());
    }
    let mut stale = vec![to.join(EARLIER)];
    for folder in DRAWN.map(|folder| to.join(folder)).iter().filter(|folder| folder.is_dir()) {
        stale.extend(files(folder)?.into_iter().filter(|file| is_drawn(file) && !kept.contains(file)));
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

/// Whether a report lies in the folder. Known before hours of work as well as after them.
///
/// # Errors
/// It is no folder, or its page is somebody else's.
pub fn is_report(to: &Path) -> Result<bool> {
    if to.exists() && !to.is_dir() {
        return Err(Error::input("is not a folder").at(to).help("name a folder for the report"));
    }
    let page = to.join(PAGE);
    match fs::read(&page) {
        Err(_) => Ok(false),
        Ok(bytes) if String::from_utf8_lossy(&bytes).contains(MARK) => Ok(true),
        Ok(_) => Err(Error::input("this page is no report: it would be written over")
            .at(page)
            .help("name another folder, or move the page away")),
    }
}

/// What the names of figures and tables begin with.
fn sections() -> impl Iterator<Item = &'static str> {
    Task::OF_ARMS.map(Task::as_str).into_iter().chain([GENERATORS])
}

/// Whether reports give a figure or table this name.
pub(super) fn is_drawn(path: &Path) -> bool {
    let (Some(stem), Some(kind)) =
        (path.file_stem().and_then(|s| s.to_str()), path.extension().and_then(|s| s.to_str()))
    else {
        return false;
    };
    let whole = [Task::Classification.as_str(), GENERATORS, "published", "training", "failures"];
    let ours = sections().any(|section| stem.strip_prefix(section).is_some_and(|rest| rest.starts_with('_')))
        || whole.contains(&stem);
    ours && ["svg", "pdf", "png", "md", "csv", "tex"].contains(&kind)
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
        fs::write(from.join("index.html"), "new: Synecho report").unwrap();
        fs::write(from.join("record.json"), "{}").unwrap();
        fs::write(from.join("figures/x.svg"), "x").unwrap();
        fs::write(to.join("figures/segmentation_old.svg"), "old").unwrap();
        fs::write(to.join("figures/my_heart.svg"), "mine").unwrap();
        fs::write(to.join("figures/segmentation.svg"), "mine").unwrap();
        fs::write(to.join("notes.md"), "mine").unwrap();
        fs::write(to.join("index.html"), "old: Synecho report").unwrap();
        fs::write(to.join("measurements.csv"), "old").unwrap();
        publish(&from, &to, "record.json").unwrap();
        assert_eq!(fs::read_to_string(to.join("index.html")).unwrap(), "new: Synecho report");
        assert!(to.join("figures/my_heart.svg").exists() && to.join("figures/segmentation.svg").exists());
        assert!(to.join("figures/x.svg").exists() && to.join("notes.md").exists());
        assert!(!to.join("measurements.csv").exists());
        assert!(!to.join("figures/segmentation_old.svg").exists() && !to.join("record.json").exists());
    }
    #[test]
    fn a_folder_that_is_no_report_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a"), dir.path().join("b"));
        for folder in [&from, &to.join("tables")] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(from.join("index.html"), "new: Synecho report").unwrap();
        for mine in ["tables/training.csv", "measurements.csv"] {
            fs::write(to.join(mine), "mine").unwrap();
        }
        publish(&from, &to, "record.json").unwrap();
        assert!(to.join("tables/training.csv").exists() && to.join("measurements.csv").exists());
        fs::write(to.join("index.html"), "my home page").unwrap();
        let error = publish(&from, &to, "record.json").unwrap_err();
        assert!(error.to_string().contains("index.html: this page is no report"), "{error}");
        assert_eq!(fs::read_to_string(to.join("index.html")).unwrap(), "my home page");
        let file = dir.path().join("a/index.html");
        assert!(publish(&from, &file, "record.json").unwrap_err().to_string().contains("is not a folder"));
    }
}
