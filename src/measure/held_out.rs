//! What a trained network reaches on held-out patients: rows per image, and over all for
//! classification.

use std::path::Path;

use rayon::prelude::*;
use tch::{Device, Kind, Tensor, nn::VarStore};

use super::{
    classification,
    ejection_fraction::{self, ImageDiscs},
    largest_component,
    mask_scores::{MaskPair, MaskScore, mask_scores},
};
use crate::{
    error::{AtPath, Error, Result},
    experiment::{Classification, Segmentation},
    manifest::Row,
    nn::{forward_mode::ForwardMode, weights},
    picture::Picture,
    progress::Bar,
    results::{self, MEASUREMENTS, Measurement, PREDICTIONS, prediction_name},
    samples::Samples,
    vocabulary::{Backbone, Label, Metric, Statistic},
};

/// Images at a time. It decides speed and memory, not results.
const BATCH: usize = 16;

fn row_of(row: &Row) -> Measurement {
    Measurement {
        split: row.split.map(|s| s.to_string()).unwrap_or_default(),
        patient: row.patient.clone(),
        view: row.view.to_string(),
        phase: row.phase.to_string(),
        n: Some(1),
        ..Measurement::default()
    }
}

/// Images `from..to` as the network takes them: (n, `channels`, size, size), channels last.
fn batch(
    samples: &Samples,
    from: usize,
    to: usize,
    mean: &[f32],
    std: &[f32],
    device: Device,
) -> Result<Tensor> {
    let (pixels, size) = (samples.size * samples.size, samples.size as i64);
    let grey = Tensor::f_from_slice(&samples.images[from * pixels..to * pixels])?
        .to_device(device)
        .view([-1, size, size, 1])
        .to_kind(Kind::Float)
        / 255.0;
    let (mean, std) = (Tensor::from_slice(mean).to_device(device), Tensor::from_slice(std).to_device(device));
    Ok(((grey - mean) / std).permute([0, 3, 1, 2]))
}

/// What the images are that a network segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segmented {
    /// Of patients, who have an ejection fraction.
    Patients,
    /// Synthetic: each image stands alone.
    Synthetic,
}

/// Segments every sample; writes Dice, HD, HD95 and ASSD per image and structure, the ejection fraction per patient, and
/// the masks.
///
/// Distances are in mm where the pixel size is known, in pixels where not. Where only one of truth and
/// prediction has the structure the distance is NaN: a failure, which aggregating counts.
pub fn segmentation(
    settings: &Segmentation,
    network: &Path,
    (samples, segmented): (&Samples, Segmented),
    device: Device,
    out: &Path,
    bar: &Bar,
) -> Result<()> {
    let folder = out.join(PREDICTIONS);
    std::fs::create_dir_all(&folder).at_path(&folder, "cannot make the folder")?;
    let spacings = ejection_fraction::known_spacings(&samples.rows);
    let measured = predict(settings, network, samples, device, bar, &|i, mask| {
        let row = &samples.rows[i];
        mask.write(&folder.join(prediction_name(row)))?;
        let rows = image_rows(row, samples.mask(i), &mask.pixels, samples.size)?;
        Ok((rows, ImageDiscs::new(samples.mask(i), &mask.pixels, samples.size, spacings[i])?))
    })?;
    let (rows, discs): (Vec<Vec<Measurement>>, Vec<ImageDiscs>) = measured.into_iter().unzip();
    let mut rows: Vec<Measurement> = rows.into_iter().flatten().collect();
    if segmented == Segmented::Patients {
        rows.extend(ejection_fraction::measurements(&samples.rows, &discs));
    }
    write(&rows, out)
}

/// Segments every sample: the masks, in their order.
pub fn masks(
    settings: &Segmentation,
    network: &Path,
    samples: &Samples,
    device: Device,
    bar: &Bar,
) -> Result<Vec<Picture>> {
    predict(settings, network, samples, device, bar, &|_, mask| Ok(mask))
}

/// Hands the mask of each sample to `each`; gives what it made of them.
fn predict<T: Send>(
    settings: &Segmentation,
    network: &Path,
    samples: &Samples,
    device: Device,
    bar: &Bar,
    each: &(dyn Fn(usize, Picture) -> Result<T> + Sync),
) -> Result<Vec<T>> {
    let _guard = tch::no_grad_guard();
    let vs = VarStore::new(device);
    let net = settings.model.build(&vs.root(), &settings.channels)?;
    weights::load(&vs, network, |_| false)?;
    let (size, mut all) = (samples.size, Vec::new());
    for from in (0..samples.len()).step_by(BATCH) {
        let to = (from + BATCH).min(samples.len());
        let images = batch(samples, from, to, &[0.5], &[0.5], device)?;
        let mut logits = net.forward(&images, 1)?.swap_remove(0);
        if settings.flip_test {
            let mirrored = net.forward(&images.flip([3]), 1)?.swap_remove(0).flip([3]);
            logits = logits.softmax(1, Kind::Float) + mirrored.softmax(1, Kind::Float);
        }
        let classes: Vec<u8> = logits.argmax(1, false).to_kind(Kind::Uint8).flatten(0, -1).try_into()?;
        let made = (from..to)
            .into_par_iter()
            .zip(classes.par_chunks_exact(size * size))
            .map(|(i, mask)| {
                let mut pixels = mask.to_vec();
                if settings.largest_component {
                    largest_component::keep(&mut pixels, size);
                }
                each(i, Picture { width: size, height: size, pixels })
            })
            .collect::<Result<Vec<_>>>()?;
        all.extend(made);
        bar.inc((to - from) as u64);
    }
    Ok(all)
}

fn image_rows(row: &Row, truth: &[u8], prediction: &[u8], size: usize) -> Result<Vec<Measurement>> {
    let (spacing, unit) = row.spacing().map_or(((1.0, 1.0), "px"), |spacing| (spacing, "mm"));
    let scores = mask_scores(&MaskPair { truth, prediction, width: size, spacing })?;
    let rows = scores.into_iter().map(|MaskScore { structure, metric, value }| Measurement {
        structure: structure.into(),
        metric: metric.into(),
        value,
        unit: if metric.is_distance() { unit.into() } else { String::new() },
        ..row_of(row)
    });
    Ok(rows.collect())
}

/// Classifies every sample; writes the probability of each class and whether it was right per image,
/// and accuracy (with Wilson's interval), macro precision, recall and F1, AUC and the confusion
/// matrix over all. `network`: which it is, and its weights.
pub fn classification(
    settings: &Classification,
    network: (Backbone, &Path),
    channels: [(f32, f32); 3],
    samples: &Samples,
    device: Device,
    out: &Path,
    bar: &Bar,
) -> Result<()> {
    let _guard = tch::no_grad_guard();
    let classes = Label::classes(settings.label);
    let vs = VarStore::new(device);
    let net = network.0.build(&vs.root(), classes.len())?;
    weights::load(&vs, network.1, |_| false)?;
    let (mean, std): (Vec<f32>, Vec<f32>) = channels.into_iter().unzip();
    let mut probabilities: Vec<f64> = Vec::new();
    for from in (0..samples.len()).step_by(BATCH) {
        let to = (from + BATCH).min(samples.len());
        let logits = net.forward_t(&batch(samples, from, to, &mean, &std, device)?, ForwardMode::Eval);
        let p: Vec<f64> = logits.softmax(1, Kind::Double).flatten(0, -1).try_into()?;
        probabilities.extend(p);
        bar.inc((to - from) as u64);
    }
    let truth = samples.labels(settings.label);
    let scores = classification::scores(&truth, &probabilities, classes.len())?;
    let mut rows = Vec::new();
    for ((row, &class), p) in samples.rows.iter().zip(&truth).zip(probabilities.chunks_exact(classes.len())) {
        let (best, _) = p
            .iter()
            .enumerate()
            .fold((0, f64::NEG_INFINITY), |best, (i, &p)| if p > best.1 { (i, p) } else { best });
        let value = f64::from(best == class);
        rows.push(Measurement { metric: Metric::Correct.into(), value, ..row_of(row) });
        for (name, &value) in classes.iter().zip(p) {
            let (structure, metric) = ((*name).into(), Metric::Probability.into());
            rows.push(Measurement { structure, metric, value, ..row_of(row) });
        }
    }
    let split = rows.first().map(|row| row.split.clone()).unwrap_or_default();
    let n = Some(scores.n as u64);
    let over_all = |metric: String, structure: String, value: f64, unit: &str| Measurement {
        split: split.clone(),
        structure,
        metric,
        value,
        unit: unit.into(),
        n,
        ..Measurement::default()
    };
    let (low, high) = classification::wilson(scores.correct(), scores.n as u64);
    for (metric, value) in [
        (Metric::Accuracy.into(), scores.accuracy),
        (Metric::Accuracy.with(Statistic::Ci95Low), low),
        (Metric::Accuracy.with(Statistic::Ci95High), high),
        (Metric::Precision.into(), scores.precision),
        (Metric::Recall.into(), scores.recall),
        (Metric::F1.into(), scores.f1),
        (Metric::Auc.into(), scores.auc),
    ] {
        rows.push(over_all(metric, String::new(), value, ""));
    }
    for (truth, counts) in classes.iter().zip(&scores.confusion) {
        for (predicted, &count) in classes.iter().zip(counts) {
            rows.push(over_all(
                Metric::Confusion.into(),
                format!("{truth} as {predicted}"),
                count as f64,
                "images",
            ));
        }
    }
    write(&rows, out)
}

fn write(rows: &[Measurement], out: &Path) -> Result<()> {
    if rows.is_empty() {
        return Err(Error::failure("there was nothing to measure"));
    }
    let file = out.join(MEASUREMENTS);
    std::fs::write(&file, results::to_csv(rows)?).at_path(&file, "cannot write")
}
