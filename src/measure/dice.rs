//! Dice similarity per cardiac structure.

use std::{fmt, str::FromStr};

use crate::error::Result;

/// What is measured in a mask of class indices (0 background, 1 left-ventricle endocardium,
/// 2 myocardium, 3 left atrium).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Structure {
    /// Class 1, the cavity.
    Endo,
    /// Class 2, the ring.
    Myo,
    /// Classes 1 and 2: what CAMUS calls the epicardium.
    Epi,
    /// Class 3, the left atrium.
    La,
}

impl Structure {
    pub const ALL: [Self; 4] = [Self::Endo, Self::Myo, Self::Epi, Self::La];
    /// The structures that are one class each: a mean over structures is over these, so that no
    /// pixel counts twice.
    pub const CLASSES: [Self; 3] = [Self::Endo, Self::Myo, Self::La];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Endo => "endo",
            Self::Myo => "myo",
            Self::Epi => "epi",
            Self::La => "la",
        }
    }

    /// Whether a pixel of this class belongs to the structure.
    pub fn contains(self, class: u8) -> bool {
        match self {
            Self::Endo => class == 1,
            Self::Myo => class == 2,
            Self::Epi => class == 1 || class == 2,
            Self::La => class == 3,
        }
    }

    /// The structure's own mask, pixel by pixel.
    pub fn mask(self, classes: &[u8]) -> Vec<bool> {
        classes.iter().map(|&class| self.contains(class)).collect()
    }
}

impl fmt::Display for Structure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Structure {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| format!("expected one of endo, myo, epi, la, found {text:?}"))
    }
}

/// Dice of each structure, in the order of [`Structure::ALL`]: 2 |T and P| / (|T| + |P|).
///
/// As MONAI's `compute_dice(ignore_empty=True)`: NaN where the truth lacks the structure (whatever
/// the prediction says), 0 where only the prediction lacks it.
///
/// # Errors
/// When the two masks have not the same number of pixels.
pub fn per_structure(truth: &[u8], prediction: &[u8]) -> Result<[f64; 4]> {
    super::same_size(truth, prediction)?;
    // Pixels per (class in the truth, class in the prediction); 4 stands for whatever is no class.
    let mut joint = [[0u64; 5]; 5];
    for (&t, &p) in truth.iter().zip(prediction) {
        joint[usize::from(t.min(4))][usize::from(p.min(4))] += 1;
    }
    Ok(Structure::ALL.map(|structure| {
        let (mut both, mut in_truth, mut in_prediction) = (0, 0, 0);
        for (t, row) in (0u8..).zip(&joint) {
            for (p, &count) in (0u8..).zip(row) {
                let (t, p) = (structure.contains(t), structure.contains(p));
                in_truth += if t { count } else { 0 };
                in_prediction += if p { count } else { 0 };
                both += if t && p { count } else { 0 };
            }
        }
        if in_truth == 0 { f64::NAN } else { 2.0 * both as f64 / (in_truth + in_prediction) as f64 }
    }))
}

/// Dice of one structure; see [`per_structure`].
pub fn dice(truth: &[u8], prediction: &[u8], structure: Structure) -> Result<f64> {
    Ok(per_structure(truth, prediction)?[structure as usize])
}

/// Mean over endocardium, myocardium and atrium of what [`per_structure`] gives, NaN left out;
/// NaN where none is there. (`epi` is made of two of them and stays out.)
pub fn mean(per_structure: &[f64; 4]) -> f64 {
    super::summary(Structure::CLASSES.map(|s| per_structure[s as usize])).mean
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

    #[test]
    fn names_are_read_back() {
        for s in Structure::ALL {
            assert_eq!(s.as_str().parse(), Ok(s));
            assert_eq!(Structure::ALL[s as usize], s);
        }
        assert!("epicardium".parse::<Structure>().is_err());
    }
}
