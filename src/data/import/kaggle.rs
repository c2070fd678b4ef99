//! The Kaggle copy of CAMUS that DiffEcho starts from: one HDF5 file of 450 people.
//!
//! Data sets `train 2ch ED frames`, `train 2ch ED masks`, … of shape (people, height, width, 1).
//! The first 50 people validate, the others train, as in DiffEcho's `image_saver.py`; there is no
//! test set. A person's name is their row (`patient0000`), which is not CAMUS's own number.

use std::{path::Path, sync::Arc};

use hdf5_metno::{Dataset, File};

use super::{AcquisitionFiles, FoundAcquisition, bare_row, diffecho::classes_of_grey, layout};
use crate::data::staging::ImageAndMask;
use crate::error::{Error, Result};
use crate::picture::Picture;
use crate::{
    data::split::DIFFECHO_VALIDATION,
    vocabulary::{MASK_CLASSES, Phase, Source, Split, View},
};

/// One data set, as bytes: `count` pictures of `width` x `height`.
struct Stack {
    count: usize,
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Stack {
    fn picture(&self, i: usize) -> Result<Picture> {
        let n = self.width * self.height;
        let pixels =
            self.pixels.get(i * n..(i + 1) * n).ok_or_else(|| Error::failure("a picture is missing"))?;
        Ok(Picture { width: self.width, height: self.height, pixels: pixels.to_vec() })
    }
}

pub fn find(src: &Path) -> Result<Vec<FoundAcquisition<'_>>> {
    // Otherwise the library prints its own stack.
    hdf5_metno::silence_errors(true);
    let file = File::open(src).map_err(|e| {
        Error::input(format!("not a readable HDF5 file: {e}")).at(src).help(layout(Source::KaggleH5))
    })?;
    let mut found = Vec::new();
    let mut people = None;
    for view in View::ALL {
        for phase in Phase::ALL {
            let key = |what: &str| {
                let view = view.as_str().to_lowercase();
                format!("train {view} {phase} {what}")
            };
            let frames = Arc::new(read(&file, &key("frames"), image_bytes).map_err(|e| e.at(src))?);
            let masks = Arc::new(read(&file, &key("masks"), mask_bytes).map_err(|e| e.at(src))?);
            let shape = |s: &Stack| (s.count, s.width, s.height);
            if shape(&frames) != shape(&masks) || *people.get_or_insert(frames.count) != frames.count {
                return Err(Error::input(format!(
                    "`{}` has {} pictures of {} x {}, `{}` {} of {} x {}, other data sets {}",
                    key("frames"),
                    frames.count,
                    frames.width,
                    frames.height,
                    key("masks"),
                    masks.count,
                    masks.width,
                    masks.height,
                    people.unwrap_or_default(),
                ))
                .at(src)
                .help("every data set holds the same people, and frames and masks one size"));
            }
            for i in 0..frames.count {
                let mut row = bare_row(format!("patient{i:04}"), view, phase);
                row.split = Some(if i < DIFFECHO_VALIDATION { Split::Val } else { Split::Train });
                let (frames, masks) = (frames.clone(), masks.clone());
                let load = move || {
                    Ok(ImageAndMask {
                        image: frames.picture(i)?,
                        mask: Some(masks.picture(i)?),
                        spacing: None,
                    })
                };
                let files = AcquisitionFiles { row, image: vec![src.to_owned()], mask: Vec::new() };
                found.push(FoundAcquisition { files, load: Box::new(load) });
            }
        }
    }
    Ok(found)
}

fn read(file: &File, key: &str, to_bytes: fn(&[f32], usize) -> Result<Vec<u8>>) -> Result<Stack> {
    let wrong = |e: hdf5_metno::Error| Error::input(format!("`{key}`: {e}"));
    let data: Dataset = file.dataset(key).map_err(|e| {
        Error::input(format!("the data set `{key}` is missing: {e}")).help(layout(Source::KaggleH5))
    })?;
    let (count, height, width) = match data.shape()[..] {
        [n, h, w] | [n, h, w, 1] if n > 0 && h > 0 && w > 0 => (n, h, w),
        ref other => {
            return Err(Error::input(format!("`{key}` has shape {other:?}, not (people, height, width, 1)")));
        }
    };
    // f32 holds every byte, class and 0..1 grey that there is.
    let values: Vec<f32> = data.read_raw().map_err(wrong)?;
    let pixels = to_bytes(&values, width).map_err(|e| e.context(format!("`{key}`")))?;
    Ok(Stack { count, width, height, pixels })
}

/// Grey of 0..1 (a whole data set of it) or of 0..255.
fn image_bytes(values: &[f32], width: usize) -> Result<Vec<u8>> {
    let unit = values.iter().all(|&v| v <= 1.0);
    let scale = if unit { 255.0 } else { 1.0 };
    let bytes = values.iter().map(|v| (v * scale).round());
    let outside = |v: f32| !(0.0..=255.0).contains(&v);
    match bytes.clone().position(outside) {
        Some(at) => Err(Error::input(format!(
            "grey {} at number {at} (row of {width}); images are 0 to 1 or 0 to 255",
            values[at]
        ))),
        None => Ok(bytes.map(|v| v as u8).collect()),
    }
}

/// Classes 0..3, or their grey 0/85/170/255.
fn mask_bytes(values: &[f32], width: usize) -> Result<Vec<u8>> {
    if let Some(at) = values.iter().position(|v| v.fract() != 0.0 || !(0.0..=255.0).contains(v)) {
        return Err(Error::input(format!("the mask holds {} at number {at}", values[at]))
            .help("a mask holds classes 0 to 3, or grey 0, 85, 170, 255"));
    }
    let pixels: Vec<u8> = values.iter().map(|&v| v as u8).collect();
    if pixels.iter().all(|&v| usize::from(v) < MASK_CLASSES) {
        return Ok(pixels);
    }
    let height = pixels.len() / width.max(1);
    Ok(classes_of_grey(&Picture { width, height, pixels })?.pixels)
}
