//! Intersection over union (Jaccard index) per cardiac structure.

use crate::{dice, error::Result};

/// Intersection over union of each structure, in the order of `Structure::ALL`: |T and P| / |T or P|, from 0 to 1.
/// Where the Dice is D, it is D / (2 - D).
///
/// As MONAI's `compute_iou(ignore_empty=True)`: NaN where the truth lacks the structure (whatever the prediction
/// says), 0 where only the prediction lacks it.
///
/// # Errors
/// The two masks do not have the same number of pixels.
pub fn per_structure(truth: &[u8], prediction: &[u8]) -> Result<[f64; 4]> {
    Ok(dice::counts(truth, prediction)?.map(|pixels| {
        if pixels.truth == 0 {
            return f64::NAN;
        }
        pixels.both as f64 / (pixels.truth + pixels.prediction - pixels.both) as f64
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand_and_its_empty_cases() {
        let truth = [0, 1, 1, 1, 2, 2, 0, 0];
        let prediction = [0, 1, 1, 2, 2, 0, 3, 0];
        let found = per_structure(&truth, &prediction).unwrap();
        assert_eq!(found[..3], [2.0 / 3.0, 1.0 / 3.0, 4.0 / 5.0]);
        assert!(found[3].is_nan(), "the truth has no atrium");
        assert_eq!(per_structure(&prediction, &truth).unwrap()[3], 0.0, "the prediction lacks it");
        assert_eq!(per_structure(&truth, &truth).unwrap()[..3], [1.0; 3]);
        let dice = dice::per_structure(&truth, &prediction).unwrap();
        for (iou, dice) in found.into_iter().zip(dice).take(3) {
            assert!((iou - dice / (2.0 - dice)).abs() < 1e-15);
        }
        assert!(per_structure(&truth, &prediction[1..]).is_err());
    }
}
