//! Importers: CAMUS and its cousins become one folder with a manifest.

use std::path::{Path, PathBuf};

use super::ImageProgress;
use super::phantom::carry_marker;
use super::staging::{ImageAndMask, Staging, write_folder};
use crate::error::{Error, Result};
use crate::{
    manifest::{Manifest, Row},
    vocabulary::{Phase, Source, View},
};

mod camus;
mod diffecho;
mod folder;
#[cfg(feature = "hdf5")]
mod kaggle;

/// One acquisition that an importer found, and the files that it will be read from.
pub struct AcquisitionFiles {
    /// What is known before the files are read. The manifest's paths are not, but in a folder that has one.
    pub row: Row,
    pub image: Vec<PathBuf>,
    /// Empty: there is none.
    pub mask: Vec<PathBuf>,
}

struct FoundAcquisition<'a> {
    files: AcquisitionFiles,
    load: Box<dyn Fn() -> Result<ImageAndMask> + Send + Sync + 'a>,
}

/// What an importer found, and what a user should know about it.
struct FoundDataSet<'a> {
    acquisitions: Vec<FoundAcquisition<'a>>,
    warnings: Vec<String>,
}

/// An imported data set.
#[derive(Debug)]
pub struct Imported {
    pub manifest: Manifest,
    /// Sentences for the user.
    pub warnings: Vec<String>,
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
pub fn import(format: Source, src: &Path, to: &Path, progress: ImageProgress) -> Result<Imported> {
    check_exists(format, src)?;
    let staging = Staging::new(to)?;
    let FoundDataSet { acquisitions, warnings } = find(format, src)?;
    let rows = acquisitions.iter().map(|acquisition| acquisition.files.row.clone()).collect();
    let load = |i: usize, row: &Row| {
        let acquisition = acquisitions.get(i).ok_or_else(|| Error::failure("an importer lost a row"))?;
        let loaded = (acquisition.load)()?;
        // What a generator made is taken as it is, however dull.
        if row.generator.is_none() {
            let checked = loaded.image.check_span();
            checked.map_err(|e| acquisition.files.image.first().map_or(e.clone(), |file| e.at(file)))?;
        }
        Ok(loaded)
    };
    let mut manifest = write_folder(staging.folder(), rows, load, progress)?;
    carry_marker(src, staging.folder())?;
    staging.finish()?;
    manifest.root = to.to_owned();
    Ok(Imported { manifest, warnings })
}

/// What [`import`] would read of the data set at `src`, in the order of the manifest that it would write: each
/// image's row and files. Other files decide nothing but whether the data set is a phantom.
///
/// # Errors
/// As [`import`], but that images and masks are not opened.
pub fn source_files(format: Source, src: &Path) -> Result<Vec<AcquisitionFiles>> {
    check_exists(format, src)?;
    Ok(find(format, src)?.acquisitions.into_iter().map(|acquisition| acquisition.files).collect())
}

fn check_exists(format: Source, src: &Path) -> Result<()> {
    match src.exists() {
        true => Ok(()),
        false => Err(Error::input("this file or folder does not exist").at(src).help(layout(format))),
    }
}

/// By patient, view and phase.
fn find(format: Source, src: &Path) -> Result<FoundDataSet<'_>> {
    let whole = |acquisitions| FoundDataSet { acquisitions, warnings: Vec::new() };
    let mut found = match format {
        // The phantom is drawn in CAMUS's layout.
        Source::Camus | Source::Phantom => camus::find(src)?,
        Source::Diffecho => whole(diffecho::find(src)?),
        Source::KaggleH5 => whole(kaggle_h5(src)?),
        Source::Folder => whole(folder::find(src)?),
    };
    if found.acquisitions.is_empty() {
        return Err(Error::input("no images found").at(src).help(layout(format)));
    }
    let order = |a: &Row, b: &Row| (&a.patient, a.view, a.phase).cmp(&(&b.patient, b.view, b.phase));
    found.acquisitions.sort_by(|a, b| order(&a.files.row, &b.files.row));
    Ok(found)
}

/// What `src` should look like, for error messages.
fn layout(format: Source) -> &'static str {
    match format {
        Source::Camus | Source::Phantom => {
            "expected the folder that holds database_nifti/patient0001/patient0001_2CH_ED.nii.gz (or the older training/patient0001/patient0001_2CH_ED.mhd)"
        }
        Source::Diffecho => {
            "expected the folder that holds train_frames/ch2_ed_frame_100.png, train_masks/ch2_ed_mask_100.png, valid_frames/ and valid_masks/"
        }
        Source::KaggleH5 => "expected the file subject_based_dataset.hdf5",
        Source::Folder => "expected a folder with manifest.csv",
    }
}

#[cfg(feature = "hdf5")]
fn kaggle_h5(src: &Path) -> Result<Vec<FoundAcquisition<'_>>> {
    kaggle::find(src)
}

#[cfg(not(feature = "hdf5"))]
fn kaggle_h5(src: &Path) -> Result<Vec<FoundAcquisition<'_>>> {
    Err(Error::input("this build of synecho cannot read HDF5")
        .at(src)
        .help("install libhdf5-dev and build with `cargo build --release --features hdf5`"))
}

/// A row with a patient, a view and a phase only.
fn bare_row(patient: impl Into<String>, view: View, phase: Phase) -> Row {
    Row::new(patient, view, phase, PathBuf::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_named_as_on_the_command_line() {
        for format in Source::ALL {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert!("nifti".parse::<Source>().unwrap_err().contains("camus, diffecho, kaggle-h5, folder"));
    }
}
