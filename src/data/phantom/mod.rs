//! A stand-in for CAMUS, for whoever does not have it: simulated apical views with their masks, in
//! CAMUS's official layout, so that the importer is always exercised. These are not patients.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use rand::seq::SliceRandom;
use rayon::prelude::*;

use super::{ImageProgress, staging::Staging};
use crate::error::{AtPath, Error, Result};
use crate::experiment::Phantom;
use crate::manifest::{PHANTOM_MARKER, is_phantom};
use crate::picture::Picture;
use crate::random;
use crate::scan::nifti;
use crate::vocabulary::{Phase, Split, View};

pub mod anatomy;
mod ultrasound;

use anatomy::{Heart, Patient};

const MARKER_TEXT: &str = "# A phantom: these are not patients

Every image here was simulated by `synecho data phantom`: the hearts are drawn at random, the speckle
is computed. The folder has the layout of CAMUS, so that it is imported in the same way. Results on it
show that a pipeline works; they say nothing about echocardiograms of people.
";

/// Carries the marker along when a phantom is imported or prepared.
pub fn carry_marker(from: &Path, to: &Path) -> Result<()> {
    if is_phantom(from) {
        let marker = to.join(PHANTOM_MARKER);
        std::fs::write(&marker, MARKER_TEXT).at_path(&marker, "cannot write")?;
    }
    Ok(())
}

/// Writes `database_nifti/patient0001/patient0001_2CH_ED.nii.gz` and so on, `Info_2CH.cfg`,
/// `database_split/subgroup_*.txt` and the marker into `to`, which must not exist or be empty.
///
/// The same spec gives the same bytes; patient i is the same in a larger phantom of the same seed.
pub fn write(spec: &Phantom, to: &Path, progress: ImageProgress) -> Result<()> {
    let &Phantom { patients, size, seed } = spec;
    if patients == 0 || patients > 9999 {
        return Err(Error::input(format!("a phantom of {patients} patients")).help("1 to 9999 are possible"));
    }
    if !(32..=2048).contains(&size) {
        return Err(Error::input(format!("a phantom of {size} pixels")).help("32 to 2048 are possible"));
    }
    let staging = Staging::new(to)?;
    let root = staging.folder();
    let marker = root.join(PHANTOM_MARKER);
    std::fs::write(&marker, MARKER_TEXT).at_path(&marker, "cannot write")?;
    let done = AtomicUsize::new(0);
    progress(0, patients);
    (1..=patients as u64).into_par_iter().try_for_each(|number| -> Result<()> {
        write_patient(root, seed, number, size)?;
        progress(done.fetch_add(1, Ordering::Relaxed) + 1, patients);
        Ok(())
    })?;
    let folder = root.join("database_split");
    std::fs::create_dir_all(&folder).at_path(&folder, "cannot make the folder")?;
    for (split, names) in split(patients, seed) {
        let name = match split {
            Split::Train => "training",
            Split::Val => "validation",
            Split::Test => "testing",
        };
        let file = folder.join(format!("subgroup_{name}.txt"));
        std::fs::write(&file, names.join("\n") + "\n").at_path(&file, "cannot write")?;
    }
    staging.finish()
}

fn patient_name(number: u64) -> String {
    format!("patient{number:04}")
}

/// One image and its mask.
pub fn acquisition(patient: &Patient, heart: &Heart, spec: &Phantom, number: u64) -> (Picture, Picture) {
    let image = ultrasound::render(patient, heart, spec.seed, number, spec.size);
    let mut mask = Picture::new(image.width, image.height);
    for (i, class) in mask.pixels.iter_mut().enumerate() {
        let (x, y) = ultrasound::position(patient, spec.size, i % image.width, i / image.width);
        *class = heart.class(x, y);
    }
    (image, mask)
}

fn write_patient(root: &Path, seed: u64, number: u64, size: usize) -> Result<()> {
    let patient = Patient::draw(seed, number);
    let name = patient_name(number);
    let folder = root.join("database_nifti").join(&name);
    std::fs::create_dir_all(&folder).at_path(&folder, "cannot make the folder")?;
    let spec = Phantom { patients: 1, size, seed };
    for view in View::ALL {
        for phase in Phase::ALL {
            let (image, mask) = acquisition(&patient, &patient.heart(view, phase), &spec, number);
            for (picture, suffix) in [(image, ""), (mask, "_gt")] {
                let file = folder.join(format!("{name}_{view}_{phase}{suffix}.nii.gz"));
                let bytes = nifti::encode_gz(&picture, patient.depth / size as f64, "synecho phantom")?;
                std::fs::write(&file, bytes).at_path(&file, "cannot write")?;
            }
        }
        let frames = 14 + number % 9;
        let text = format!(
            "ED: 1\nES: {frames}\nNbFrame: {frames}\nSex: {}\nAge: {}\nImageQuality: {}\nEF: {:.0}\nFrameRate: 50.0\n",
            patient.sex,
            patient.age,
            patient.quality,
            100.0 * patient.ef,
        );
        let file = folder.join(format!("Info_{view}.cfg"));
        std::fs::write(&file, text).at_path(&file, "cannot write")?;
    }
    Ok(())
}

/// 60, 20 and 20 % of the patients, drawn; from three patients on no part is empty. From 100
/// patients on 80, 10 and 10 %, as in CAMUS.
fn split(patients: usize, seed: u64) -> BTreeMap<Split, Vec<String>> {
    let mut numbers: Vec<u64> = (1..=patients as u64).collect();
    numbers.shuffle(&mut random::rng(seed, "phantom-split", &[]));
    let share = if patients >= 100 { 0.1 } else { 0.2 };
    let part = ((patients as f64 * share).round() as usize).max(usize::from(patients >= 3));
    let mut parts: BTreeMap<Split, Vec<String>> =
        Split::ALL.iter().map(|&split| (split, Vec::new())).collect();
    for (i, number) in numbers.into_iter().enumerate() {
        let split = if i < part {
            Split::Test
        } else if i < 2 * part {
            Split::Val
        } else {
            Split::Train
        };
        parts.entry(split).or_default().push(patient_name(number));
    }
    parts.values_mut().for_each(|names| names.sort());
    parts
}
