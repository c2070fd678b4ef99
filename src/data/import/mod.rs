//! Importers: CAMUS and its cousins become one folder with a manifest.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use super::Progress;
use super::phantom::carry_marker;
use super::stage::{Loaded, Staging, write_folder};
use crate::error::{Error, Result};
use crate::manifest::{Manifest, Phase, Row, View};

mod camus;
mod diffecho;
mod folder;
#[cfg(feature = "hdf5")]
mod kaggle;

/// How a data set lies on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// The official release: `database_nifti/patient0001/…nii.gz`, or the older `training/` and
    /// `testing/` with `.mhd` and `.raw`.
    Camus,
    /// The PNG folders that the DiffEcho repository writes.
    Diffecho,
    /// The Kaggle copy that DiffEcho starts from: one HDF5 file. Needs the cargo feature `hdf5`.
    KaggleH5,
    /// A folder with a manifest already.
    Folder,
}

impl Format {
    pub const ALL: [Self; 4] = [Self::Camus, Self::Diffecho, Self::KaggleH5, Self::Folder];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Camus => "camus",
            Self::Diffecho => "diffecho",
            Self::KaggleH5 => "kaggle-h5",
            Self::Folder => "folder",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Format {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|format| format.as_str() == text)
            .ok_or_else(|| format!("expected one of camus, diffecho, kaggle-h5, folder, found {text:?}"))
    }
}

/// One acquisition that an importer found: what is known of it, and how to read it.
struct Item<'a> {
    row: Row,
    load: Box<dyn Fn() -> Result<Loaded> + Send + Sync + 'a>,
}

/// Reads the data set at `src` and writes `to/manifest.csv`, `to/images/NAME.png` and
/// `to/masks/NAME.png` at native size, NAME being `patient0001_2CH_ED`, ordered by patient, view
/// and phase.
///
/// `to` must not exist or be empty. It appears only when it is whole.
///
/// # Errors
/// A layout that is not `format`'s, and any file that cannot be read, is of another size than its
/// mask, or holds values that it may not: each with the file's name.
pub fn import(format: Format, src: &Path, to: &Path, progress: Progress) -> Result<Manifest> {
    if !src.exists() {
        return Err(Error::input("there is no such file or folder").at(src).help(layout(format)));
    }
    let staging = Staging::new(to)?;
    let mut items = match format {
        Format::Camus => camus::find(src)?,
        Format::Diffecho => diffecho::find(src)?,
        Format::KaggleH5 => kaggle_h5(src)?,
        Format::Folder => folder::find(src)?,
    };
    if items.is_empty() {
        return Err(Error::input("no images found").at(src).help(layout(format)));
    }
    items.sort_by(|a, b| {
        (&a.row.patient, a.row.view, a.row.phase).cmp(&(&b.row.patient, b.row.view, b.row.phase))
    });
    let (rows, loads): (Vec<_>, Vec<_>) = items.into_iter().map(|item| (item.row, item.load)).unzip();
    let load = |i: usize, _: &Row| match loads.get(i) {
        Some(load) => load(),
        None => Err(Error::failure("an importer lost a row")),
    };
    let mut manifest = write_folder(staging.folder(), rows, load, progress)?;
    carry_marker(src, staging.folder())?;
    staging.finish()?;
    manifest.root = to.to_owned();
    Ok(manifest)
}

/// What `src` should look like, for error messages.
fn layout(format: Format) -> &'static str {
    match format {
        Format::Camus => {
            "expected the folder that holds database_nifti/patient0001/patient0001_2CH_ED.nii.gz (or the older training/patient0001/patient0001_2CH_ED.mhd)"
        }
        Format::Diffecho => {
            "expected the folder that holds train_frames/ch2_ed_frame_100.png, train_masks/ch2_ed_mask_100.png, valid_frames/ and valid_masks/"
        }
        Format::KaggleH5 => "expected the file subject_based_dataset.hdf5",
        Format::Folder => "expected a folder with manifest.csv",
    }
}

#[cfg(feature = "hdf5")]
fn kaggle_h5(src: &Path) -> Result<Vec<Item<'_>>> {
    kaggle::find(src)
}

#[cfg(not(feature = "hdf5"))]
fn kaggle_h5(src: &Path) -> Result<Vec<Item<'_>>> {
    Err(Error::input("this build of synecho cannot read HDF5")
        .at(src)
        .help("install libhdf5-dev and build with `cargo build --release --features hdf5`"))
}

/// A row of which only patient, view and phase are known.
fn bare_row(patient: impl Into<String>, view: View, phase: Phase) -> Row {
    Row::new(patient, view, phase, PathBuf::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_named_as_on_the_command_line() {
        for format in Format::ALL {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert!("nifti".parse::<Format>().unwrap_err().contains("camus, diffecho, kaggle-h5, folder"));
    }
}
