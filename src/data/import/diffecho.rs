//! The PNG folders that DiffEcho's `image_saver.py` writes from the Kaggle file:
//! `train_frames/ch2_ed_frame_100.png`, `train_masks/ch2_ed_mask_100.png`, `valid_frames/`,
//! `valid_masks/`.
//!
//! The number is the person's row in the HDF5 file, over both folders (0 to 49 validate, 50 to 449
//! train), so the same number in both is the same person in two splits, and is refused. It is not
//! CAMUS's own patient number.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{AcquisitionFiles, FoundAcquisition, bare_row, layout};
use crate::error::{AtPath, Error, Result};
use crate::picture::Picture;
use crate::vocabulary::{Phase, Split, View};
use crate::{
    data::staging::{ImageAndMask, size_mismatch},
    plain_file::is_named,
    vocabulary::Source,
};

pub fn find(src: &Path) -> Result<Vec<FoundAcquisition<'static>>> {
    let mut splits: BTreeMap<u32, (Split, PathBuf)> = BTreeMap::new();
    let mut found = Vec::new();
    for (split, name) in [(Split::Train, "train"), (Split::Val, "valid")] {
        let frames = src.join(format!("{name}_frames"));
        let masks = src.join(format!("{name}_masks"));
        if !frames.is_dir() {
            return Err(Error::input("this folder does not exist")
                .at(&frames)
                .help(layout(Source::Diffecho)));
        }
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&frames).at_path(&frames, "cannot look into the folder")? {
            let entry = entry.at_path(&frames, "cannot look into the folder")?;
            // `._ch2_ed_frame_100.png` is what a Mac leaves beside a file on a foreign disk.
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            if !hidden && is_named(&entry.path()) {
                files.push(entry.path());
            }
        }
        files.sort();
        for image in files.into_iter().filter(|f| f.extension().is_some_and(|e| e == "png")) {
            let stem = image.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
            let Some((view, phase, number)) = parse_name(stem) else {
                // What no image's name leads to is never opened.
                if !image.is_file() {
                    continue;
                }
                return Err(Error::input("the name is not of the form ch2_ed_frame_100.png")
                    .at(&image)
                    .help("rename the file, or take it out of the folder"));
            };
            let (first, other) = splits.entry(number).or_insert((split, image.clone()));
            if *first != split {
                return Err(Error::input(format!(
                    "number {number} is in two splits: {split} here, {first} in {}",
                    other.display()
                ))
                .at(&image)
                .help(
                    "numbers count people over both folders; if these are two people, renumber one of them",
                ));
            }
            let mask = masks.join(format!("{}.png", stem.replace("frame", "mask")));
            if !is_named(&mask) {
                return Err(Error::input(format!("its mask {} is missing", mask.display()))
                    .at(&image)
                    .help("images and masks come in pairs of the same name: copy the mask again"));
            }
            let mut row = bare_row(format!("patient{number:04}"), view, phase);
            row.split = Some(split);
            let files = AcquisitionFiles { row, image: vec![image.clone()], mask: vec![mask.clone()] };
            found.push(FoundAcquisition { files, load: Box::new(move || load(&image, &mask)) });
        }
    }
    Ok(found)
}

fn parse_name(stem: &str) -> Option<(View, Phase, u32)> {
    let [view, phase, "frame", number] = stem.split('_').collect::<Vec<_>>()[..] else { return None };
    let view = match view {
        "ch2" => View::TwoChamber,
        "ch4" => View::FourChamber,
        _ => return None,
    };
    let phase = match phase {
        "ed" => Phase::Ed,
        "es" => Phase::Es,
        _ => return None,
    };
    Some((view, phase, number.parse().ok()?))
}

fn load(image: &Path, mask: &Path) -> Result<ImageAndMask> {
    let picture = Picture::read(image)?;
    let grey = Picture::read(mask)?;
    if (grey.width, grey.height) != (picture.width, picture.height) {
        return Err(size_mismatch(&picture, &grey).at(mask));
    }
    let classes = classes_of_grey(&grey).map_err(|e| e.at(mask))?;
    Ok(ImageAndMask { image: picture, mask: Some(classes), spacing: None })
}

/// Grey 0, 85, 170, 255 to classes 0, 1, 2, 3. Nothing else: `matplotlib.imsave` scales each mask
/// by its own maximum, so a mask without an atrium arrives as 0, 128, 255, in which 255 would be
/// the myocardium.
pub fn classes_of_grey(grey: &Picture) -> Result<Picture> {
    let mut classes = grey.clone();
    for (i, value) in classes.pixels.iter_mut().enumerate() {
        *value = match *value {
            0 => 0,
            85 => 1,
            170 => 2,
            255 => 3,
            other => {
                return Err(Error::input(format!(
                    "the mask holds grey {other} at x {}, y {}; classes are grey 0, 85, 170 and 255",
                    i % grey.width.max(1),
                    i / grey.width.max(1)
                ))
                .help("masks saved with a grey scale of their own (no atrium: 0, 128, 255) lose their classes: save them with vmin=0, vmax=3"));
            }
        };
    }
    Ok(classes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(parse_name("ch4_es_frame_7"), Some((View::FourChamber, Phase::Es, 7)));
        for bad in ["ch3_es_frame_7", "ch4_es_mask_7", "ch4_es_frame_x", "ch4_es_frame_7_1", ""] {
            assert_eq!(parse_name(bad), None);
        }
    }
}
