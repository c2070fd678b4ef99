//! Dice similarity per cardiac structure: what checkpoints are chosen by, and what is measured.

use crate::{
    error::{Error, Result},
    vocabulary::Structure,
};

/// Dice of each structure, in the order of [`Structure::ALL`]: 2 |T and P| / (|T| + |P|).
///
/// As MONAI's `compute_dice(ignore_empty=True)`: NaN where the truth lacks the structure (whatever
/// the prediction says), 0 where only the prediction lacks it.
///
/// # Errors
/// When the two masks have not the same number of pixels.
pub fn per_structure(truth: &[u8], prediction: &[u8]) -> Result<[f64; 4]> {
    Ok(counts(truth, prediction)?.map(|pixels| {
        if pixels.truth == 0 {
            return f64::NAN;
        }
        2.0 * pixels.both as f64 / (pixels.truth + pixels.prediction) as f64
    }))
}

/// Pixels of a structure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PixelCounts {
    pub truth: u64,
    pub prediction: u64,
    /// In the truth and in the prediction.
    pub both: u64,
}

/// The pixels of each structure, in the order of [`Structure::ALL`].
///
/// # Errors
/// The two masks do not have the same number of pixels.
pub(crate) fn counts(truth: &[u8], prediction: &[u8]) -> Result<[PixelCounts; 4]> {
    same_size(truth, prediction)?;
    // Pixels per (class in the truth, class in the prediction); 4 stands for whatever is no class.
    let mut joint = [[0u64; 5]; 5];
    for (&t, &p) in truth.iter().zip(prediction) {
        joint[usize::from(t.min(4))][usize::from(p.min(4))] += 1;
    }
    Ok(Structure::ALL.map(|structure| {
        let mut pixels = PixelCounts { truth: 0, prediction: 0, both: 0 };
        for (t, row) in (0u8..).zip(&joint) {
            for (p, &count) in (0u8..).zip(row) {
                let (t, p) = (structure.contains(t), structure.contains(p));
                pixels.truth += if t { count } else { 0 };
                pixels.prediction += if p { count } else { 0 };
                pixels.both += if t && p { count } else { 0 };
            }
        }
        pixels
    }))
}

/// Two masks that are compared have the same number of pixels.
pub(crate) fn same_size<T, U>(truth: &[T], prediction: &[U]) -> Result<()> {
    if truth.len() == prediction.len() {
        return Ok(());
    }
    Err(Error::input(format!("the truth has {} pixels, the prediction {}", truth.len(), prediction.len()))
        .help("truth and prediction must have the same width and height"))
}

/// Dice of one structure; see [`per_structure`].
pub fn dice(truth: &[u8], prediction: &[u8], structure: Structure) -> Result<f64> {
    Ok(per_structure(truth, prediction)?[structure as usize])
}

/// Mean over endocardium, myocardium and atrium of what [`per_structure`] gives, NaN left out;
/// NaN where none is there. (`epi` is made of two of them and stays out.)
pub fn mean(per_structure: &[f64; 4]) -> f64 {
    // Welford's recurrence: one pass, no cancellation.
    let (mut n, mut mean) = (0, 0.0);
    for value in Structure::CLASSES.map(|s| per_structure[s as usize]).into_iter().filter(|v| !v.is_nan()) {
        n += 1;
        mean += (value - mean) / f64::from(n);
    }
    if n > 0 { mean } else { f64::NAN }
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;
    use crate::random;

    fn noise(seed: u64, n: usize) -> Vec<u8> {
        let mut rng = random::rng(seed, "dice", &[]);
        (0..n).map(|_| rng.random_range(0..4)).collect()
    }

    #[test]
    fn by_hand_and_its_empty_cases() {
        let truth = [0, 1, 1, 1, 2, 2, 0, 0];
        let prediction = [0, 1, 1, 2, 2, 0, 3, 0];
        let d = per_structure(&truth, &prediction).unwrap();
        assert_eq!(d[0], 2.0 * 2.0 / 5.0);
        assert_eq!(d[1], 2.0 * 1.0 / 4.0);
        assert_eq!(d[2], 2.0 * 4.0 / 9.0);
        assert!(d[3].is_nan(), "the truth has no atrium");
        assert_eq!(dice(&prediction, &truth, Structure::La).unwrap(), 0.0, "the prediction lacks it");
        assert_eq!(mean(&d), (0.8 + 0.5) / 2.0);
        assert!(per_structure(&truth, &prediction[1..]).is_err());
    }

    #[test]
    fn symmetric_one_for_itself_and_blind_to_order() {
        for seed in 0..8 {
            let (a, b) = (noise(seed, 400), noise(seed + 100, 400));
            let there = per_structure(&a, &b).unwrap();
            assert_eq!(there, per_structure(&b, &a).unwrap());
            assert_eq!(per_structure(&a, &a).unwrap(), [1.0; 4]);
            let flip = |m: &[u8]| m.iter().rev().copied().collect::<Vec<_>>();
            assert_eq!(there, per_structure(&flip(&a), &flip(&b)).unwrap());
            assert!(there.iter().all(|d| (0.0..1.0).contains(d)));
        }
    }
}
