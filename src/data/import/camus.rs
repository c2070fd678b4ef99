//! CAMUS as its authors release it: NIfTI, and the older MetaImage.
//!
//! Leclerc et al., "Deep Learning for Segmentation Using an Open Large-Scale Dataset in 2D
//! Echocardiography", IEEE TMI 38(9), 2019.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::{AcquisitionFiles, FoundAcquisition, FoundDataSet, bare_row, layout};
use crate::error::{AtPath, Error, Result};
use crate::vocabulary::{Phase, Quality, Sex, Split, View};
use crate::{
    data::staging::{ImageAndMask, size_mismatch},
    plain_file::is_named,
    scan::{Slice, metaimage, nifti},
    text_file::read_text,
    vocabulary::Source,
};

/// Prefix for the patients of the older `testing/`: that release numbers them from 1 again.
const TESTING_PREFIX: &str = "testing-";

pub fn find(src: &Path) -> Result<FoundDataSet<'static>> {
    let databases = databases(src)?;
    let splits = read_splits(src)?;
    let mut found = Vec::new();
    for Database { folder, testing } in databases {
        for (patient, folder) in patients(&folder)? {
            let info = PatientInfo::read(&folder)?;
            for view in View::ALL {
                for phase in Phase::ALL {
                    let stem = format!("{patient}_{view}_{phase}");
                    let mask = first_file(&folder, &format!("{stem}_gt"));
                    let image = match (first_file(&folder, &stem), &mask) {
                        (Some(image), _) => image,
                        (None, None) => continue,
                        (None, Some(mask)) => {
                            return Err(Error::input(format!(
                                "the image {stem} is missing beside this mask"
                            ))
                            .at(mask)
                            .help("copy the missing file"));
                        }
                    };
                    if mask.is_none() && !testing {
                        return Err(Error::input(format!("the mask {stem}_gt is missing beside this image"))
                            .at(&image)
                            .help(
                                "copy the missing file; only the older release's testing set has no masks",
                            ));
                    }
                    let prefix = if testing { TESTING_PREFIX } else { "" };
                    let mut row = bare_row(format!("{prefix}{patient}"), view, phase);
                    row.split = splits.get(&row.patient).copied();
                    (row.sex, row.age, row.ef) = (info.sex, info.age, info.ef);
                    row.quality = info.quality.get(&view).copied();
                    let files = AcquisitionFiles {
                        row,
                        image: slice_files(&image),
                        mask: mask.iter().flat_map(|mask| slice_files(mask)).collect(),
                    };
                    let load = move || load(&image, mask.as_deref());
                    found.push(FoundAcquisition { files, load: Box::new(load) });
                }
            }
        }
    }
    let known: BTreeSet<&str> =
        found.iter().map(|acquisition| acquisition.files.row.patient.as_str()).collect();
    let warnings = unknown_patients(&splits, &known)?;
    Ok(FoundDataSet { acquisitions: found, warnings })
}

/// Says which patients the lists of the official split name that the data set does not have.
///
/// # Errors
/// The lists name none of the data set's patients: they are of another data set, or write the names otherwise.
fn unknown_patients(splits: &BTreeMap<String, Split>, known: &BTreeSet<&str>) -> Result<Vec<String>> {
    let unknown: Vec<&str> = splits.keys().map(String::as_str).filter(|name| !known.contains(name)).collect();
    if unknown.is_empty() || known.is_empty() {
        return Ok(Vec::new());
    }
    let shown = unknown.iter().take(3).copied().collect::<Vec<_>>().join(", ");
    if unknown.len() == splits.len() {
        return Err(Error::input(format!(
            "the lists subgroup_*.txt name no patient of the data set, but {shown}"
        ))
        .help("each line is the name of a patient's folder, such as patient0001"));
    }
    let more = if unknown.len() > 3 { ", …" } else { "" };
    Ok(vec![format!(
        "the lists subgroup_*.txt name {} patients that the data set does not have: {shown}{more}",
        unknown.len()
    )])
}

struct Database {
    folder: PathBuf,
    testing: bool,
}

/// The folders of patient folders: `src` is one, or holds one or several.
fn databases(src: &Path) -> Result<Vec<Database>> {
    let database = |folder: PathBuf| {
        let testing = folder.file_name().is_some_and(|name| name == "testing");
        Database { folder, testing }
    };
    for names in [&["database_nifti"][..], &["training", "testing"]] {
        let found: Vec<_> =
            names.iter().map(|name| src.join(name)).filter(|f| f.is_dir()).map(database).collect();
        if !found.is_empty() {
            return Ok(found);
        }
    }
    if !src.is_dir() || patients(src)?.is_empty() {
        return Err(Error::input("this is not CAMUS").at(src).help(layout(Source::Camus)));
    }
    Ok(vec![database(src.to_owned())])
}

/// Folders named `patient` and digits, by name.
fn patients(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).at_path(folder, "cannot look into the folder")? {
        let entry = entry.at_path(folder, "cannot look into the folder")?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let number = name.strip_prefix("patient").unwrap_or_default();
        if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) && entry.path().is_dir() {
            found.insert(name, entry.path());
        }
    }
    Ok(found)
}

fn first_file(folder: &Path, stem: &str) -> Option<PathBuf> {
    ["nii.gz", "nii", "mhd", "mha"]
        .iter()
        .map(|extension| folder.join(format!("{stem}.{extension}")))
        // A link that leads nowhere is an image that is missing, as after a copy without what links lead to.
        .find(|file| is_named(file))
}

/// The files that [`read_slice`] reads.
fn slice_files(file: &Path) -> Vec<PathBuf> {
    match file.extension().and_then(|e| e.to_str()) {
        Some("mhd" | "mha") => metaimage::files(file),
        _ => vec![file.to_owned()],
    }
}

fn read_slice(file: &Path) -> Result<Slice> {
    match file.extension().and_then(|e| e.to_str()) {
        Some("mhd" | "mha") => metaimage::read(file),
        _ => nifti::read(file),
    }
}

fn load(image: &Path, mask: Option<&Path>) -> Result<ImageAndMask> {
    let slice = read_slice(image)?;
    let spacing = slice.spacing;
    let picture = slice.to_image().map_err(|e| e.at(image))?;
    let mask = match mask {
        None => None,
        Some(file) => {
            let mask = read_slice(file)?.to_mask().map_err(|e| e.at(file))?;
            if (mask.width, mask.height) != (picture.width, picture.height) {
                return Err(size_mismatch(&picture, &mask).at(file));
            }
            Some(mask)
        }
    };
    Ok(ImageAndMask { image: picture, mask, spacing })
}

/// A patient's data, from `Info_2CH.cfg` and `Info_4CH.cfg`.
#[derive(Debug, Default, PartialEq)]
struct PatientInfo {
    sex: Option<Sex>,
    age: Option<f64>,
    ef: Option<f64>,
    quality: BTreeMap<View, Quality>,
}

impl PatientInfo {
    fn read(folder: &Path) -> Result<Self> {
        let mut info = Self::default();
        for view in View::ALL {
            let file = folder.join(format!("Info_{view}.cfg"));
            if is_named(&file) {
                let text = read_text(&file, "cannot read the patient's data")?;
                info.add(&text, view, &file)?;
            }
        }
        Ok(info)
    }

    /// Reads lines `Key: value`. Keys for which the manifest has no column (ED, ES, NbFrame, FrameRate and
    /// the older release's volumes) are ignored; of two views' values the first counts.
    fn add(&mut self, text: &str, view: View, file: &Path) -> Result<()> {
        for (line, content) in (1..).zip(text.lines()) {
            let Some((key, value)) = content.split_once(':') else { continue };
            let (key, value) = (key.trim(), value.trim());
            if value.is_empty() || ["NA", "N/A", "None", "nan", "NaN"].contains(&value) {
                continue;
            }
            let wrong = |expected: &str| {
                Error::input(format!("{key}: expected {expected}, found {value:?}"))
                    .at_line(file, line)
                    .help("the file is not as CAMUS distributes it: copy it again")
            };
            let number = |low: f64, high: f64| {
                value
                    .parse::<f64>()
                    .ok()
                    .filter(|v| (low..=high).contains(v))
                    .ok_or_else(|| wrong(&format!("a number from {low} to {high}")))
            };
            match key {
                "Sex" => {
                    let sex = value.parse().map_err(|_| wrong("F or M"))?;
                    self.sex.get_or_insert(sex);
                }
                "Age" => {
                    self.age.get_or_insert(number(0.0, 130.0)?);
                }
                "EF" | "LVef" => {
                    self.ef.get_or_insert(number(0.0, 100.0)?);
                }
                "ImageQuality" => {
                    let quality = value.parse().map_err(|_| wrong("Good, Medium or Poor"))?;
                    self.quality.entry(view).or_insert(quality);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The official split, from `subgroup_*.txt` beside the database or in `database_split/`. Empty
/// where there are no such files: a split is never made up here.
fn read_splits(src: &Path) -> Result<BTreeMap<String, Split>> {
    let mut splits: BTreeMap<String, Split> = BTreeMap::new();
    let mut places = vec![src.to_owned(), src.join("database_split")];
    if let Some(parent) = src.parent() {
        places.extend([parent.to_owned(), parent.join("database_split")]);
    }
    let has_lists =
        |place: &PathBuf| LISTS.iter().any(|(name, _)| is_named(&place.join(format!("subgroup_{name}.txt"))));
    let Some(place) = places.into_iter().find(has_lists) else { return Ok(splits) };
    for (name, split) in LISTS {
        let file = place.join(format!("subgroup_{name}.txt"));
        if !is_named(&file) {
            continue;
        }
        let text = read_text(&file, "cannot read the split")?;
        for (line, patient) in (1..).zip(text.lines().map(str::trim)) {
            if patient.is_empty() {
                continue;
            }
            if let Some(other) = splits.insert(patient.to_owned(), split).filter(|&other| other != split) {
                return Err(Error::input(format!(
                    "{patient} is in two splits: {split} here, {other} as well"
                ))
                .at_line(&file, line)
                .help("a patient belongs to one of the subgroup files"));
            }
        }
    }
    Ok(splits)
}

const LISTS: [(&str, Split); 3] =
    [("training", Split::Train), ("validation", Split::Val), ("testing", Split::Test)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cfg_of_both_releases() {
        let mut info = PatientInfo::default();
        let new =
            "ED: 1\nES: 18\nNbFrame: 18\nSex: F\nAge: 56\nImageQuality: Good\nEF: 54\nFrameRate: 48.4\n";
        info.add(new, View::TwoChamber, Path::new("Info_2CH.cfg")).unwrap();
        let old = "ED : 1\nES : 16\nNbFrame : 19\nSex : F\nAge : 56.0\nImageQuality : Medium\nLVedv : 94.6\nLVesv : 43.1\nLVef : 54\n";
        info.add(old, View::FourChamber, Path::new("Info_4CH.cfg")).unwrap();
        assert_eq!(info.sex, Some(Sex::Female));
        assert_eq!((info.age, info.ef), (Some(56.0), Some(54.0)));
        assert_eq!(info.quality[&View::TwoChamber], Quality::Good);
        assert_eq!(info.quality[&View::FourChamber], Quality::Medium);
        let message = PatientInfo::default()
            .add("Sex: M\nAge: old\n", View::TwoChamber, Path::new("Info_2CH.cfg"))
            .unwrap_err()
            .to_string();
        let expected = "Info_2CH.cfg:2: Age: expected a number from 0 to 130, found \"old\"\n  help: ";
        assert!(message.starts_with(expected), "{message}");
    }
}
