//! Two samples of the same patients: Wilcoxon's signed-rank test, effect sizes, and Holm's correction.
//! Functions of slices of differences; a NaN is left out.

use super::stats;

/// A comparison is called significant where its adjusted p is below this.
pub const LEVEL: f64 = 0.05;

/// Differences beyond this many are tested by the normal approximation: SciPy's rule.
const EXACT_UP_TO: usize = 50;
/// With ties or zeros the exact distribution is SciPy's permutation test, which goes over all signs up to
/// here (2^13 of them are fewer than its 9999 resamples).
const EXACT_WITH_TIES_UP_TO: usize = 13;

/// What Wilcoxon's signed-rank test says of paired differences.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SignedRank {
    /// Sums of the ranks of the positive and of the negative differences.
    pub positive: f64,
    pub negative: f64,
    /// Two-sided.
    pub p: f64,
    /// From the distribution of all signs; else from the normal approximation.
    pub exact: bool,
    /// Differences, and those of them that are zero.
    pub n: u64,
    pub zeros: u64,
}

impl SignedRank {
    /// The smaller sum of ranks: SciPy's `statistic`.
    pub fn statistic(&self) -> f64 {
        self.positive.min(self.negative)
    }

    /// Matched-pairs rank-biserial correlation: the share of the rank sum that is for the first sample,
    /// less the share that is against it (Kerby 2014). -1 to 1; NaN where every difference is zero.
    pub fn rank_biserial(&self) -> f64 {
        (self.positive - self.negative) / (self.positive + self.negative)
    }
}

/// The two-sided signed-rank test of `scipy.stats.wilcoxon(differences)` (1.17) with its defaults:
///
/// * zeros are left out (`zero_method="wilcox"`), tied sizes share their mean rank;
/// * p is exact for up to 50 differences without ties and zeros, and for up to 13 with them (where SciPy
///   permutes all signs); otherwise from the normal approximation, its variance corrected for ties, without
///   a correction for continuity. The counts of this rule include zeros.
///
/// Where all differences are zero p is 1; SciPy says so for up to 13 of them, and NaN beyond. None without a
/// difference.
pub fn wilcoxon(differences: &[f64]) -> Option<SignedRank> {
    let known: Vec<f64> = differences.iter().copied().filter(|d| !d.is_nan()).collect();
    let mut sizes: Vec<f64> = known.iter().copied().filter(|d| *d != 0.0).collect();
    sizes.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    let (n, zeros) = (known.len(), known.len() - sizes.len());
    let (mut positive, mut negative, mut ties, mut before) = (0.0, 0.0, 0.0, 0);
    // Mean ranks are halves at most, so their doubles are whole.
    let mut doubled = Vec::with_capacity(sizes.len());
    for tied in sizes.chunk_by(|a, b| a.abs() == b.abs()) {
        let t = tied.len();
        let twice = 2 * before + t + 1;
        let above = tied.iter().filter(|d| **d > 0.0).count();
        positive += above as f64 * twice as f64 / 2.0;
        negative += (t - above) as f64 * twice as f64 / 2.0;
        ties += (t * t * t - t) as f64;
        doubled.extend(std::iter::repeat_n(twice, t));
        before += t;
    }
    let untied = ties == 0.0 && zeros == 0;
    let exact = n <= if untied { EXACT_UP_TO } else { EXACT_WITH_TIES_UP_TO };
    let p = if n == 0 {
        return None;
    } else if sizes.is_empty() {
        1.0
    } else if exact {
        exact_p(&doubled, (2.0 * positive) as usize)
    } else {
        let m = sizes.len() as f64;
        let variance = (m * (m + 1.0) * (2.0 * m + 1.0) - ties / 2.0) / 24.0;
        let z = (positive - m * (m + 1.0) / 4.0) / variance.sqrt();
        libm::erfc(z.abs() / std::f64::consts::SQRT_2)
    };
    Some(SignedRank { positive, negative, p, exact, n: n as u64, zeros: zeros as u64 })
}

/// Twice the smaller tail of a rank sum, every sign of every rank being as likely as the other.
fn exact_p(ranks: &[usize], observed: usize) -> f64 {
    let mut chance = vec![0.0; ranks.iter().sum::<usize>() + 1];
    chance[0] = 1.0;
    let mut reached = 0;
    for &rank in ranks {
        reached += rank;
        for sum in (0..=reached).rev() {
            let with = if sum >= rank { chance[sum - rank] } else { 0.0 };
            chance[sum] = 0.5 * (chance[sum] + with);
        }
    }
    let (below, above) = (chance[..=observed].iter().sum::<f64>(), chance[observed..].iter().sum::<f64>());
    (2.0 * f64::min(below, above)).min(1.0)
}

/// Cohen's d of paired samples: the mean difference over the differences' standard deviation (n - 1). NaN
/// under two differences, and where they are all the same.
pub fn cohens_dz(differences: &[f64]) -> f64 {
    let summary = stats::summary(differences);
    if summary.sd > 0.0 { summary.mean / summary.sd } else { f64::NAN }
}

/// Holm's step-down adjusted p-values (1979), in the order of `p`: reject those at most as large as the
/// level, and the chance of any false rejection among all of them is at most the level.
/// `statsmodels.stats.multitest.multipletests(p, method="holm")`.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let (mut adjusted, mut largest) = (vec![0.0; p.len()], 0.0f64);
    for (done, i) in order.into_iter().enumerate() {
        largest = largest.max(p[i] * (p.len() - done) as f64).min(1.0);
        adjusted[i] = largest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::stats::{PatientValue, percentile_interval};

    /// Written by `tests/golden/make_aggregate.py` (SciPy, statsmodels, NumPy).
    fn golden() -> serde_json::Value {
        serde_json::from_str(include_str!("../../tests/golden/aggregate.json")).unwrap()
    }

    fn numbers(value: &serde_json::Value) -> Vec<f64> {
        value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    }

    /// NaN is null in the fixture.
    fn same(value: f64, expected: &serde_json::Value, tolerance: f64) -> bool {
        expected.as_f64().map_or(value.is_nan(), |e| (value - e).abs() <= tolerance)
    }

    #[test]
    fn the_signed_rank_test_equals_scipys() {
        let (mut ways, mut other) = ([0, 0], 0);
        let golden = golden();
        let cases = golden["wilcoxon"].as_array().unwrap();
        for case in cases {
            let differences = numbers(&case["differences"]);
            let test = wilcoxon(&differences).unwrap();
            let name = &case["name"];
            assert!(same(test.statistic(), &case["statistic"], 1e-12), "{name} {test:?}");
            assert!(same(test.rank_biserial(), &case["rank_biserial"], 1e-12), "{name} {test:?}");
            assert!(same(cohens_dz(&differences), &case["dz"], 1e-12), "{name}");
            ways[usize::from(test.exact)] += 1;
            match case["p"].as_f64() {
                Some(p) => assert!((test.p - p).abs() < 1e-10, "{name} {test:?} {p}"),
                None => assert!(test.p == 1.0 && test.zeros == test.n && test.n > 13, "{name} {test:?}"),
            }
            // Zeros ranked with the rest (Pratt 1959), and a correction for continuity, are other tests.
            let pratt = case["pratt"].as_f64().is_some_and(|p| (test.p - p).abs() > 1e-6);
            let corrected = case["corrected"].as_f64().is_some_and(|p| (test.p - p).abs() > 1e-6);
            other += i32::from(pratt) + i32::from(corrected);
        }
        assert!(cases.len() > 20 && ways[0] > 8 && ways[1] > 8 && other > 10, "{ways:?} {other}");
    }

    #[test]
    fn extreme_values_and_absent_ones() {
        assert_eq!(wilcoxon(&[]), None);
        assert_eq!(wilcoxon(&[f64::NAN]), None);
        let test = wilcoxon(&[1.0, f64::NAN, f64::INFINITY, -0.0]).unwrap();
        assert_eq!((test.n, test.zeros, test.positive, test.negative), (3, 1, 3.0, 0.0));
        assert_eq!(wilcoxon(&[0.0, 0.0]).unwrap().p, 1.0);
        // Five patients cannot be significant at 0.05, whatever they say.
        assert_eq!(wilcoxon(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap().p, 0.0625);
        assert!(cohens_dz(&[1.0, 1.0]).is_nan() && cohens_dz(&[1.0]).is_nan());
    }

    #[test]
    fn holm_equals_statsmodels() {
        let golden = golden();
        let mut bonferroni_differs = 0;
        for case in golden["holm"].as_array().unwrap() {
            let (p, expected) = (numbers(&case["p"]), numbers(&case["holm"]));
            for ((p_i, adjusted), expected) in p.iter().zip(holm(&p)).zip(expected) {
                assert!((adjusted - expected).abs() < 1e-12, "{p:?}");
                bonferroni_differs += i32::from((p_i * p.len() as f64).min(1.0) - adjusted > 1e-6);
            }
        }
        assert!(bonferroni_differs > 5);
        assert!(holm(&[]).is_empty());
    }

    #[test]
    fn the_paired_bootstrap_equals_scipys_on_the_same_resamples() {
        let golden = golden();
        for case in golden["paired_bootstrap"].as_array().unwrap() {
            let patients: Vec<PatientValue> =
                numbers(&case["differences"]).into_iter().map(|d| PatientValue::of(&[d])).collect();
            let resamples = case["resamples"].as_array().unwrap().iter().map(|draw| {
                draw.as_array().unwrap().iter().map(|i| i.as_u64().unwrap() as usize).collect::<Vec<_>>()
            });
            let (low, high) = percentile_interval(&patients, resamples);
            assert!(same(low, &case["low"], 1e-12) && same(high, &case["high"], 1e-12), "{low} {high}");
        }
    }
}
