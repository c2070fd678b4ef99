//! Tidy results: a row a value. What measuring writes, and what aggregating and reporting read.

use std::{
    ffi::OsStr,
    io::{Read, Write},
    path::Path,
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde::{Deserialize, Serialize};

use crate::{
    error::{AtPath, Error, Result},
    manifest::Row,
};

/// Files of an artifact that later stages and reports read.
///
/// Of a training: its curves and its summary.
pub const CURVES: &str = "curves.csv";
pub const SUMMARY: &str = "summary.json";
/// Of a measuring stage: its rows; the folder of predicted masks; the nearest pairs of synthetic and training images.
pub const MEASUREMENTS: &str = "measurements.csv";
pub const PREDICTIONS: &str = "predictions";
pub const NEAREST: &str = "nearest.csv";
/// Of selecting among candidates: what it did.
pub const SELECTION: &str = "selection.json";

/// A predicted mask is named as its (prepared) image, whose name is safe and unique.
pub fn prediction_name(row: &Row) -> &OsStr {
    row.image.file_name().unwrap_or_default()
}

/// One value. A column that does not apply is empty; `patient` empty means over all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    pub experiment: String,
    /// `segmentation`, `classification` or `generation`.
    pub task: String,
    pub arm: String,
    pub model: String,
    pub seed: Option<u64>,
    pub split: String,
    pub patient: String,
    pub view: String,
    pub phase: String,
    /// `endo`, `myo`, `epi`, `la`, `mean`; for classification a class, or `ED as ES` (truth as predicted);
    /// for texture an octave by its wavelengths, `2-4 px`; for distances of generators the extractor.
    pub structure: String,
    pub metric: String,
    /// NaN where undefined.
    pub value: f64,
    /// `mm`, `px`, `images`, …; empty for a pure number.
    pub unit: String,
    /// How many values (images) are behind this one.
    pub n: Option<u64>,
}

/// One point of a training curve.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    pub experiment: String,
    pub task: String,
    pub arm: String,
    pub model: String,
    pub seed: Option<u64>,
    pub split: String,
    /// Optimizer steps done.
    pub step: u64,
    /// Epochs done, in parts of one where validation does not wait for their ends.
    pub epoch: f64,
    pub structure: String,
    pub metric: String,
    pub value: f64,
}

/// What a trained network is, for the reader of its results.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainSummary {
    /// The chosen checkpoint: optimizer steps and epochs done, its value of `select_metric` on the
    /// validation images (NaN, and the last epoch, where none was ever defined).
    pub best_step: u64,
    pub best_epoch: f64,
    pub best_value: Option<f64>,
    pub select_metric: String,
    pub parameters: u64,
    pub trainable: u64,
    pub train_images: u64,
    /// How many of them are synthetic.
    #[serde(default)]
    pub synthetic_images: u64,
    pub train_patients: u64,
    pub val_images: u64,
    pub val_patients: u64,
    pub epochs: f64,
    pub steps: u64,
    pub precision: String,
}

/// What a trained generator is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GeneratorSummary {
    /// `unconditional`, `text`, `text+segmentation`.
    pub mode: String,
    /// Of all networks, and of those that were trained; of one class where each has its own.
    pub parameters: u64,
    pub trainable: u64,
    pub train_images: u64,
    pub train_patients: u64,
    /// Behind each point of the validation curve; where each class has a model of its own, of all together.
    #[serde(default)]
    pub val_images: u64,
    pub steps: u64,
    /// Images behind one step.
    pub batch: u64,
    pub image_size: u64,
    pub precision: String,
    /// Images behind each measurement on the way; none if nothing was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality_images: Option<u64>,
    /// The step of the weights, if they were chosen by those measurements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_step: Option<u64>,
}

/// A synthetic image and the training image that it is nearest to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NearestPair {
    /// What the distance is of: an extractor's features, or `pixels`.
    pub by: String,
    /// Names of the images ([`crate::manifest::Row::name`]).
    pub synthetic: String,
    pub training: String,
    pub distance: f64,
}

/// What selecting the best of several images of each mask did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Selection {
    pub kept: usize,
    pub dropped: usize,
    /// Mean Dice of a segmentation network's masks with the control masks, 0 to 1: over the images that were kept, and over
    /// all candidates.
    pub dice_of_kept: f64,
    pub dice_of_all: f64,
}

impl Selection {
    /// # Errors
    /// The file is missing or damaged.
    pub fn read(artifact: &Path) -> Result<Self> {
        let file = artifact.join(SELECTION);
        let text = std::fs::read_to_string(&file).at_path(&file, "cannot read")?;
        serde_json::from_str(&text).map_err(|e| Error::failure(format!("not a selection: {e}")).at(&file))
    }

    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, artifact: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| Error::failure(format!("cannot write the selection: {e}")))?;
        let file = artifact.join(SELECTION);
        std::fs::write(&file, text).at_path(&file, "cannot write")
    }
}

/// Octaves of spatial frequency that texture is measured in, by their wavelengths, from the finest.
pub const OCTAVES: [&str; 4] = ["2-4 px", "4-8 px", "8-16 px", "16-32 px"];

/// What a ratio of texture should lie within.
pub const GOOD_TEXTURE: (f64, f64) = (0.5, 2.0);

/// A setting's name as a spec writes it.
pub fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

/// Rows as CSV with a header line (also for no rows at all).
pub fn to_csv<T: Serialize + Default>(rows: &[T]) -> Result<String> {
    let fail = |e: csv::Error| Error::failure(format!("cannot write CSV: {e}"));
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.serialize(row).map_err(fail)?;
    }
    let bytes = writer.into_inner().map_err(|e| Error::failure(format!("cannot write CSV: {e}")))?;
    if rows.is_empty() {
        let head = to_csv(&[T::default()])?;
        return Ok(head.lines().next().map(|l| format!("{l}\n")).unwrap_or_default());
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads what [`to_csv`] wrote.
pub fn read_csv<T: for<'de> Deserialize<'de>>(file: &Path) -> Result<Vec<T>> {
    let text = std::fs::read_to_string(file).at_path(file, "cannot read the table")?;
    parse_csv(&text, file)
}

/// As [`read_csv`], from text; `file` is named in errors.
pub fn parse_csv<T: for<'de> Deserialize<'de>>(text: &str, file: &Path) -> Result<Vec<T>> {
    csv::Reader::from_reader(text.as_bytes()).deserialize().collect::<Result<Vec<T>, csv::Error>>().map_err(
        |e| {
            let line = e.position().map_or(1, csv::Position::line);
            Error::input(format!("not a table of results: {e}")).at_line(file, line)
        },
    )
}

/// As [`to_csv`], gzipped. The same rows give the same bytes: no time and no name is in the header.
pub fn to_csv_gz<T: Serialize + Default>(rows: &[T]) -> Result<Vec<u8>> {
    let fail = |e: std::io::Error| Error::failure(format!("cannot compress a table: {e}"));
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(to_csv(rows)?.as_bytes()).map_err(fail)?;
    encoder.finish().map_err(fail)
}

/// Reads what [`to_csv_gz`] wrote.
pub fn read_csv_gz<T: for<'de> Deserialize<'de>>(file: &Path) -> Result<Vec<T>> {
    let packed = std::fs::read(file).at_path(file, "cannot read the table")?;
    let mut text = String::new();
    GzDecoder::new(packed.as_slice())
        .read_to_string(&mut text)
        .map_err(|e| Error::input(format!("not a gzipped table: {e}")).at(file))?;
    parse_csv(&text, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_and_empty_survive_the_round_trip() {
        let rows = [Measurement {
            task: "segmentation".into(),
            metric: "hd".into(),
            value: f64::NAN,
            seed: None,
            n: Some(3),
            ..Default::default()
        }];
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("m.csv");
        std::fs::write(&file, to_csv(&rows).unwrap()).unwrap();
        let back: Vec<Measurement> = read_csv(&file).unwrap();
        assert!(back[0].value.is_nan() && back[0].seed.is_none() && back[0].n == Some(3));
        assert_eq!(to_csv::<Measurement>(&[]).unwrap().lines().count(), 1);

        let packed = to_csv_gz(&rows).unwrap();
        assert_eq!(packed, to_csv_gz(&rows).unwrap());
        std::fs::write(&file, &packed).unwrap();
        let back: Vec<Measurement> = read_csv_gz(&file).unwrap();
        assert_eq!((back.len(), back[0].n), (1, Some(3)));
        std::fs::write(&file, &packed[..packed.len() - 9]).unwrap();
        let error = read_csv_gz::<Measurement>(&file).unwrap_err().to_string();
        assert!(error.contains("not a gzipped table") && error.contains("m.csv"), "{error}");
    }
}
