//! Writing a data folder: all of it beside its place first, then one rename.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use rayon::prelude::*;

use super::ImageProgress;
use crate::error::{AtPath, Error, Result};
use crate::manifest::{Manifest, Row};
use crate::picture::Picture;

/// What one acquisition's files held.
pub struct ImageAndMask {
    pub image: Picture,
    pub mask: Option<Picture>,
    /// Pixel width and height in mm.
    pub spacing: Option<(f64, f64)>,
}

/// A folder that becomes `to` when it is whole, and goes away when it does not get there.
pub struct Staging {
    folder: PathBuf,
    to: PathBuf,
    done: bool,
}

impl Staging {
    /// Refuses a `to` that holds anything.
    pub fn new(to: &Path) -> Result<Self> {
        if to.exists() {
            let mut entries = std::fs::read_dir(to).at_path(to, "cannot look into the folder")?;
            if entries.next().is_some() {
                return Err(Error::input("the folder exists and is not empty")
                    .at(to)
                    .help("name another folder, or remove this one first"));
            }
        }
        let name = to
            .file_name()
            .ok_or_else(|| Error::input("this names no folder").at(to).help("name the folder to make"))?;
        let parent = to.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).at_path(parent, "cannot make the folder")?;
        let folder = parent.join(format!(".{}.partial-{}", name.to_string_lossy(), std::process::id()));
        if folder.exists() {
            // Left behind by a killed process that had the same id.
            std::fs::remove_dir_all(&folder).at_path(&folder, "cannot remove the old folder")?;
        }
        std::fs::create_dir(&folder).at_path(&folder, "cannot make the folder")?;
        Ok(Self { folder, to: to.to_owned(), done: false })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn finish(mut self) -> Result<()> {
        if self.to.exists() {
            std::fs::remove_dir(&self.to).at_path(&self.to, "cannot replace the folder")?;
        }
        std::fs::rename(&self.folder, &self.to).at_path(&self.to, "cannot put the folder in its place")?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.done {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

struct WrittenImage {
    masked: bool,
    spacing: Option<(f64, f64)>,
}

/// Writes `images/NAME.png`, `masks/NAME.png` and the manifest into an existing folder.
///
/// `load` is called once for each row, from worker threads. The rows' paths and spacing are filled
/// in here; of several errors the one of the first row is returned.
pub fn write_folder(
    root: &Path,
    mut rows: Vec<Row>,
    load: impl Fn(usize, &Row) -> Result<ImageAndMask> + Sync,
    progress: ImageProgress,
) -> Result<Manifest> {
    for part in ["images", "masks"] {
        let folder = root.join(part);
        std::fs::create_dir_all(&folder).at_path(&folder, "cannot make the folder")?;
    }
    let names = file_names(&rows);
    let total = rows.len();
    let done = AtomicUsize::new(0);
    progress(0, total);
    let results: Vec<Result<WrittenImage>> = rows
        .par_iter()
        .zip(&names)
        .enumerate()
        .map(|(i, (row, name))| {
            let ImageAndMask { image, mask, spacing } = load(i, row)?;
            image.write(&root.join("images").join(name))?;
            if let Some(mask) = &mask {
                if (mask.width, mask.height) != (image.width, image.height) {
                    return Err(size_mismatch(&image, mask).context(row.name()));
                }
                mask.write(&root.join("masks").join(name))?;
            }
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            Ok(WrittenImage { masked: mask.is_some(), spacing })
        })
        .collect();
    for ((row, name), result) in rows.iter_mut().zip(&names).zip(results) {
        let WrittenImage { masked, spacing } = result?;
        row.image = Path::new("images").join(name);
        row.mask = masked.then(|| Path::new("masks").join(name));
        (row.spacing_x, row.spacing_y) = spacing.unzip();
    }
    let manifest = Manifest { root: root.to_owned(), rows };
    manifest.write()?;
    Ok(manifest)
}

pub fn size_mismatch(image: &Picture, mask: &Picture) -> Error {
    Error::input(format!(
        "the image is {} x {} and its mask {} x {}",
        image.width, image.height, mask.width, mask.height
    ))
    .help("an image and its mask have the same size; is it the mask of another image?")
}

/// `patient0001_2CH_ED.png`; a second one of the same name (synthetic sets) gets `_2`, and so on.
fn file_names(rows: &[Row]) -> Vec<String> {
    // A patient's name may hold anything; a file's name may not.
    let safe = |c: char| if c == '/' || c == '\\' || c.is_control() { '-' } else { c };
    let names: Vec<String> = rows.iter().map(|row| row.name().chars().map(safe).collect()).collect();
    let mut taken: HashSet<String> = names.iter().cloned().collect();
    let mut count: HashMap<&str, usize> = HashMap::new();
    names
        .iter()
        .map(|name| {
            let count = count.entry(name).or_insert(0);
            *count += 1;
            if *count == 1 {
                return format!("{name}.png");
            }
            let mut unique = format!("{name}_{count}");
            while !taken.insert(unique.clone()) {
                *count += 1;
                unique = format!("{name}_{count}");
            }
            format!("{unique}.png")
        })
        .collect()
}
