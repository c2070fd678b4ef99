//! How well classes are told apart: accuracy, macro precision, recall and F1, AUC, confusion matrix.

use serde::Serialize;

use crate::error::{Error, Result};

/// Scores of one classifier on `n` images.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scores {
    /// Images behind every figure.
    pub n: usize,
    /// NaN where `n` is 0, as all the others.
    pub accuracy: f64,
    /// Macro mean over the classes that occur in truth or prediction (scikit-learn's default
    /// `labels`); a class that is never predicted has precision 0 (`zero_division=0`).
    pub precision: f64,
    /// Macro mean likewise; a class that never occurs in the truth has recall 0.
    pub recall: f64,
    /// Macro mean of the classes' F1.
    pub f1: f64,
    /// Area under the ROC curve: for two classes that of class 1, for more the macro mean of one
    /// class against the rest. NaN where a class is absent from the truth.
    pub auc: f64,
    /// `confusion[truth][predicted]`, in images.
    pub confusion: Vec<Vec<u64>>,
}

impl Scores {
    /// Images classified rightly.
    pub fn correct(&self) -> u64 {
        self.confusion.iter().enumerate().filter_map(|(class, row)| row.get(class)).sum()
    }
}

/// Scores from the true class of each image and its predicted probabilities.
///
/// `probabilities` holds `truth.len()` rows of `classes` values. The predicted class is the most
/// probable one, the first of equals. Equal to scikit-learn 1.9's `accuracy_score`,
/// `precision_score`, `recall_score`, `f1_score` (macro, `zero_division=0`), `roc_auc_score`
/// (`multi_class="ovr"`) and `confusion_matrix`.
///
/// # Errors
/// When sizes do not fit, a class is out of range, or a probability is NaN (a network that diverged).
pub fn scores(truth: &[usize], probabilities: &[f64], classes: usize) -> Result<Scores> {
    let n = truth.len();
    if classes < 2 || probabilities.len() != n * classes {
        return Err(Error::failure(format!(
            "{} probabilities do not fit {n} images of {classes} classes",
            probabilities.len()
        )));
    }
    if let Some(at) = truth.iter().position(|&class| class >= classes) {
        return Err(Error::failure(format!("image {at} has class {}, of {classes} classes", truth[at])));
    }
    if let Some(at) = probabilities.iter().position(|p| p.is_nan()) {
        return Err(Error::failure(format!("image {} has a probability that is NaN", at / classes))
            .help("the network has diverged: lower the learning rate"));
    }
    let mut confusion = vec![vec![0u64; classes]; classes];
    for (&class, row) in truth.iter().zip(probabilities.chunks_exact(classes)) {
        confusion[class][argmax(row)] += 1;
    }

    // Per class that occurs: precision, recall, F1.
    let ratio = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    let mut sums = [0.0; 3];
    let mut occurring = 0;
    for class in 0..classes {
        let hits = confusion[class][class];
        let in_truth: u64 = confusion[class].iter().sum();
        let predicted: u64 = confusion.iter().map(|row| row[class]).sum();
        if in_truth + predicted == 0 {
            continue;
        }
        occurring += 1;
        sums[0] += ratio(hits, predicted);
        sums[1] += ratio(hits, in_truth);
        sums[2] += ratio(2 * hits, in_truth + predicted);
    }
    let macro_mean = |sum: f64| if occurring == 0 { f64::NAN } else { sum / f64::from(occurring) };

    let against_rest = |class: usize| {
        let positive: Vec<bool> = truth.iter().map(|&t| t == class).collect();
        let score: Vec<f64> = probabilities.iter().skip(class).step_by(classes).copied().collect();
        auc(&positive, &score)
    };
    let auc = if classes == 2 {
        against_rest(1)
    } else {
        (0..classes).map(against_rest).sum::<f64>() / classes as f64
    };
    let correct: u64 = (0..classes).map(|class| confusion[class][class]).sum();
    Ok(Scores {
        n,
        accuracy: if n == 0 { f64::NAN } else { ratio(correct, n as u64) },
        precision: macro_mean(sums[0]),
        recall: macro_mean(sums[1]),
        f1: macro_mean(sums[2]),
        auc,
        confusion,
    })
}

/// The index of the greatest value, the first of equals.
fn argmax(row: &[f64]) -> usize {
    let mut best = 0;
    for (i, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = i;
        }
    }
    best
}

/// Area under the ROC curve: the probability that a positive image scores above a negative one, a tie
/// counting half (Mann and Whitney's U over the number of pairs). NaN where one of the two is absent.
pub fn auc(positive: &[bool], score: &[f64]) -> f64 {
    let mut order: Vec<(f64, bool)> = score.iter().copied().zip(positive.iter().copied()).collect();
    order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let (mut wins, mut negatives, mut positives) = (0.0, 0u64, 0u64);
    // `==`, not the sort's total order: 0 and -0 tie, and stand side by side.
    for tied in order.chunk_by(|a, b| a.0 == b.0) {
        let here = tied.iter().filter(|(_, positive)| *positive).count() as u64;
        let others = tied.len() as u64 - here;
        wins += here as f64 * (negatives as f64 + 0.5 * others as f64);
        negatives += others;
        positives += here;
    }
    wins / (positives as f64 * negatives as f64)
}

/// Wilson's 95 % score interval of a proportion such as an accuracy, as statsmodels'
/// `proportion_confint(method="wilson")`. NaN where `n` is 0.
pub fn wilson(successes: u64, n: u64) -> (f64, f64) {
    /// The normal distribution's 97.5th percentile.
    const Z: f64 = 1.959_963_984_540_054;
    // The ends of a proportion of 0 or 1 are exact; rounding would leave them a hair inside.
    let (none, all) = (successes == 0 && n > 0, successes == n && n > 0);
    let (p, n) = (successes as f64 / n as f64, n as f64);
    let denominator = 1.0 + Z * Z / n;
    let centre = (p + Z * Z / (2.0 * n)) / denominator;
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt() / denominator;
    (if none { 0.0 } else { centre - half }, if all { 1.0 } else { centre + half })
}

#[cfg(test)]
mod tests {
    use rand::{Rng, seq::SliceRandom};

    use super::*;
    use crate::random;

    #[test]
    fn by_hand() {
        let truth = [0, 0, 1, 1, 1];
        let p1 = [0.2, 0.6, 0.6, 0.9, 0.4];
        let probabilities: Vec<f64> = p1.iter().flat_map(|&p| [1.0 - p, p]).collect();
        let s = scores(&truth, &probabilities, 2).unwrap();
        assert_eq!((s.n, s.correct(), s.accuracy), (5, 3, 0.6));
        assert_eq!(s.confusion, [[1, 1], [1, 2]]);
        assert!((s.precision - (0.5 + 2.0 / 3.0) / 2.0).abs() < 1e-15);
        assert!((s.recall - (0.5 + 2.0 / 3.0) / 2.0).abs() < 1e-15);
        // Six pairs: four won, one tied, one lost.
        assert!((s.auc - 4.5 / 6.0).abs() < 1e-15);
    }

    #[test]
    fn what_cannot_be_scored_is_nan_or_an_error() {
        let none = scores(&[], &[], 3).unwrap();
        assert!(none.n == 0 && none.accuracy.is_nan() && none.f1.is_nan() && none.auc.is_nan());
        assert!(scores(&[1, 1], &[0.1, 0.9, 0.9, 0.1], 2).unwrap().auc.is_nan());
        assert!(scores(&[0], &[0.5], 2).is_err());
        assert!(scores(&[2], &[0.5, 0.5], 2).is_err());
        assert!(scores(&[0], &[f64::NAN, 0.5], 2).unwrap_err().to_string().contains("image 0"));
        assert!(wilson(0, 0).0.is_nan());
    }

    #[test]
    fn the_order_of_images_does_not_matter() {
        let mut rng = random::rng(1, "classification", &[]);
        let mut images: Vec<(usize, [f64; 3])> = (0..60)
            .map(|_| {
                let class = rng.random_range(0..3);
                // Tenths, so that there are ties.
                let p = [0; 3].map(|_| f64::from(rng.random_range(1..10u8)) / 10.0);
                (class, p)
            })
            .collect();
        let score = |images: &[(usize, [f64; 3])]| {
            let truth: Vec<usize> = images.iter().map(|i| i.0).collect();
            let p: Vec<f64> = images.iter().flat_map(|i| i.1).collect();
            scores(&truth, &p, 3).unwrap()
        };
        let first = score(&images);
        assert!((0.2..0.8).contains(&first.auc));
        for _ in 0..5 {
            images.shuffle(&mut rng);
            assert_eq!(score(&images), first);
        }
    }

    #[test]
    fn wilson_stays_inside_and_holds_the_proportion() {
        for n in [1u64, 5, 40, 1000] {
            for k in [0, n / 3, n] {
                let (low, high) = wilson(k, n);
                let p = k as f64 / n as f64;
                assert!((0.0..=p).contains(&low) && high <= 1.0 && high >= p && low < high, "{k}/{n}");
            }
        }
    }
}
