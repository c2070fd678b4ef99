//! Everything that is measured of a predicted mask against the true one: one list for folders of masks and for
//! trained networks.

use super::{iou, surface_distance::surface_distance};
use crate::{
    dice,
    error::Result,
    vocabulary::{Metric, Structure},
};

/// A value of one structure of a pair of masks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MaskScore {
    pub structure: Structure,
    pub metric: Metric,
    /// NaN where it is undefined ([`Metric::undefined`]).
    pub value: f64,
}

/// Two masks of class indices of one image, `width` pixels wide.
#[derive(Debug, Clone, Copy)]
pub struct MaskPair<'a> {
    pub truth: &'a [u8],
    pub prediction: &'a [u8],
    pub width: usize,
    /// Size of a pixel (x, y), in the unit of the distances.
    pub spacing: (f64, f64),
}

/// The scores of a pair, structure by structure. Of a structure that neither mask has there are no distances.
///
/// # Errors
/// The masks have different numbers of pixels, or not whole rows.
pub fn mask_scores(pair: &MaskPair) -> Result<Vec<MaskScore>> {
    let &MaskPair { truth, prediction, width, spacing } = pair;
    let (dice, iou) = (dice::per_structure(truth, prediction)?, iou::per_structure(truth, prediction)?);
    let mut scores = Vec::new();
    for ((structure, dice), iou) in Structure::ALL.into_iter().zip(dice).zip(iou) {
        let mut add = |metric, value| scores.push(MaskScore { structure, metric, value });
        add(Metric::Dice, dice);
        add(Metric::Iou, iou);
        let distances = match surface_distance(truth, prediction, width, structure, spacing)? {
            Ok(d) => [d.hd95, d.hd, d.assd],
            Err(missing) if missing.is_failure() => [f64::NAN; 3],
            Err(_) => continue,
        };
        [Metric::Hd95, Metric::Hd, Metric::Assd].into_iter().zip(distances).for_each(|(m, d)| add(m, d));
    }
    Ok(scores)
}
