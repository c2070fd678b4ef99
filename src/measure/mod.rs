//! What is measured: functions of arrays, and around them [`folder`] (masks in two folders),
//! [`ejection_fraction::folder`] (masks of patients),
//! [`texture::folder`] and [`generators::folders`] (images in folders), [`held_out`] (trained networks on held-out
//! patients) and [`generators`] (sets of images by their features, which an [`extractor`] takes).

mod arrays;
pub mod authenticity;
pub mod classification;
mod distances;
pub mod ejection_fraction;
pub mod extractor;
pub mod folder;
pub mod frechet;
pub mod generators;
pub mod held_out;
pub mod iou;
pub mod kid;
pub mod largest_component;
pub mod mann_whitney;
pub mod mask_scores;
pub mod memorisation;
pub mod mind;
pub mod npz;
pub mod numpy_random;
pub mod prdc;
pub mod surface_distance;
pub mod texture;
pub mod torch_random;
pub mod vendi;

use serde::Serialize;

/// Mean and spread of the values that exist.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ScoreSummary {
    /// How many values are behind the mean: those that are not NaN.
    pub n: usize,
    /// NaN where `n` is 0.
    pub mean: f64,
    /// Sample standard deviation (divided by n - 1); NaN where `n` is below 2.
    pub sd: f64,
}

/// Summarises `values`; NaN (an absent structure) is left out and seen in `n`.
pub fn summary(values: impl IntoIterator<Item = f64>) -> ScoreSummary {
    // Welford's recurrence: one pass, no cancellation.
    let (mut n, mut mean, mut squares) = (0usize, 0.0, 0.0);
    for value in values.into_iter().filter(|v| !v.is_nan()) {
        n += 1;
        let before = value - mean;
        mean += before / n as f64;
        squares += before * (value - mean);
    }
    ScoreSummary {
        n,
        mean: if n > 0 { mean } else { f64::NAN },
        sd: if n > 1 { (squares / (n - 1) as f64).sqrt() } else { f64::NAN },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_leaves_nan_out_and_says_so() {
        let s = summary([1.0, f64::NAN, 2.0, 4.0]);
        assert_eq!(s.n, 3);
        assert!((s.mean - 7.0 / 3.0).abs() < 1e-15 && (s.sd - (7.0f64 / 3.0).sqrt()).abs() < 1e-15);
        let none = summary([f64::NAN]);
        assert!(none.n == 0 && none.mean.is_nan() && none.sd.is_nan());
        assert!(summary([5.0]).sd.is_nan());
    }
}
