//! Of several images made for each mask, the one that agrees best with it.

use super::StageContext;
use crate::{
    data, dice,
    error::{AtPath, Error, Result},
    experiment::Segmentation,
    manifest::{DATA, Manifest},
    measure::held_out,
    results::Selection,
    samples::{MaskReading, Samples},
    train,
    vocabulary::{Split, Structure},
};

/// Keeps one of each `candidates` images that follow each other in the manifest, by the mean Dice of the network's mask
/// with the control mask; of equal ones the first.
pub(super) fn select(context: &StageContext, settings: &Segmentation, candidates: usize) -> Result<()> {
    let mut manifest = context.manifest()?;
    let seen = Manifest::read(context.artifact("seen")?.join(DATA))?;
    let samples = Samples::read(&seen, Split::Train, None, Some(MaskReading::RIGHT))?;
    if samples.len() != manifest.rows.len() || !samples.len().is_multiple_of(candidates) {
        return Err(Error::failure(format!("{} images are no sets of {candidates}", samples.len())));
    }
    let bar = context.progress.bar(samples.len() as u64, &context.stage.label, "images");
    let network = context.artifact("network")?.join(train::WEIGHTS);
    let masks = held_out::masks(settings, &network, &samples, context.device, &bar)?;
    let scores = masks
        .iter()
        .enumerate()
        .map(|(i, mask)| mean_dice(samples.mask(i), &mask.pixels))
        .collect::<Result<Vec<f64>>>()?;
    let kept: Vec<usize> =
        scores.chunks(candidates).enumerate().map(|(i, set)| i * candidates + best(set)).collect();
    let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len().max(1) as f64;
    let selection = Selection {
        kept: kept.len(),
        dropped: scores.len() - kept.len(),
        dice_of_kept: mean(&kept.iter().map(|&i| scores[i]).collect::<Vec<_>>()),
        dice_of_all: mean(&scores),
    };
    manifest.rows = kept.iter().map(|&i| manifest.rows[i].clone()).collect();
    let to = context.out.join(DATA);
    std::fs::create_dir_all(&to).at_path(&to, "cannot make the folder")?;
    data::prepare::copy(&manifest, &to, &|_, _| {})?;
    selection.write(&context.out)
}

/// Over the structures that the mask has; 1 if it has none.
fn mean_dice(truth: &[u8], prediction: &[u8]) -> Result<f64> {
    let of = dice::per_structure(truth, prediction)?;
    let structures = Structure::CLASSES.map(|structure| of[structure as usize]);
    let defined: Vec<f64> = structures.into_iter().filter(|dice| !dice.is_nan()).collect();
    Ok(if defined.is_empty() { 1.0 } else { defined.iter().sum::<f64>() / defined.len() as f64 })
}

/// The place of the greatest score, the first of equal ones.
fn best(scores: &[f64]) -> usize {
    (0..scores.len()).rev().max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_best_is_kept() {
        assert_eq!(best(&[0.2, 0.9, 0.9, 0.1]), 1);
        assert_eq!(best(&[0.5]), 0);
    }

    #[test]
    fn structures_that_a_mask_lacks_do_not_count() {
        // Endocardium found by half, no myocardium, an atrium that is missed.
        let truth = [1, 1, 0, 3];
        let prediction = [1, 0, 0, 0];
        assert!((mean_dice(&truth, &prediction).unwrap() - (2.0 / 3.0) / 2.0).abs() < 1e-12);
        assert_eq!(mean_dice(&[0; 4], &[0; 4]).unwrap(), 1.0);
    }
}
