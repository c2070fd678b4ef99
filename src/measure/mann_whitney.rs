//! The one-sided Mann-Whitney U test: are the values of one sample smaller than those of another?

use serde::Serialize;

use crate::error::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MannWhitney {
    /// Pairs in which the first sample's value is the *larger* one, ties for half: SciPy's statistic.
    pub u: f64,
    /// Standardised, continuity corrected; positive where the first sample's values are the smaller ones. NaN
    /// where all values are equal.
    pub z: f64,
    /// That U, or a smaller one, is seen where the samples are of one distribution: normal approximation, with
    /// the correction for ties. 1 where all values are equal.
    pub p: f64,
    /// Common-language effect size (area under the ROC curve): the share of pairs in which the first sample's
    /// value is the *smaller* one, ties for half. 0.5: no difference.
    pub effect: f64,
    pub n_first: u64,
    pub n_second: u64,
}

/// Tests `first` < `second`, as `scipy.stats.mannwhitneyu(first, second, alternative="less",
/// method="asymptotic")`. Values may be infinite.
///
/// # Errors
/// A sample is empty or has a NaN.
pub fn less(first: &[f64], second: &[f64]) -> Result<MannWhitney> {
    if first.is_empty() || second.is_empty() || first.iter().chain(second).any(|v| v.is_nan()) {
        return Err(Error::input(format!("a rank test of {} and {} values", first.len(), second.len()))
            .help("it needs values in both samples, and no NaN"));
    }
    let mut all: Vec<(f64, bool)> =
        first.iter().map(|&v| (v, true)).chain(second.iter().map(|&v| (v, false))).collect();
    all.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    // == and not the bits: 0 and -0 are tied.
    let (mut ranks, mut ties, mut before) = (0.0, 0.0, 0.0);
    for tied in all.chunk_by(|a, b| a.0 == b.0) {
        let t = tied.len() as f64;
        ranks += tied.iter().filter(|(_, is_first)| *is_first).count() as f64 * (before + (t + 1.0) / 2.0);
        ties += t * t * t - t;
        before += t;
    }
    let (n1, n2) = (first.len() as f64, second.len() as f64);
    let (n, pairs) = (n1 + n2, n1 * n2);
    let u = ranks - n1 * (n1 + 1.0) / 2.0;
    let variance = pairs / 12.0 * ((n + 1.0) - ties / (n * (n - 1.0)));
    let z = if variance > 0.0 { (pairs - u - pairs / 2.0 - 0.5) / variance.sqrt() } else { f64::NAN };
    let p = if z.is_nan() { 1.0 } else { 0.5 * libm::erfc(z / std::f64::consts::SQRT_2) };
    let effect = (pairs - u) / pairs;
    Ok(MannWhitney { u, z, p, effect, n_first: first.len() as u64, n_second: second.len() as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_ties_and_equal_values() {
        let below = less(&[1.0, 2.0, 3.0], &[4.0, 5.0]).unwrap();
        assert!(below.u == 0.0 && below.effect == 1.0 && below.z > 0.0 && below.p < 0.1);
        let above = less(&[4.0, 5.0], &[1.0, 2.0, 3.0]).unwrap();
        assert!(above.u == 6.0 && above.effect == 0.0 && above.p > 0.9);
        let tied = less(&[1.0, 2.0], &[2.0, 1.0]).unwrap();
        assert!(tied.effect == 0.5 && tied.u == 2.0);
        let equal = less(&[0.0, 0.0], &[-0.0]).unwrap();
        assert!(equal.p == 1.0 && equal.z.is_nan() && equal.effect == 0.5);
        assert!(less(&[], &[1.0]).is_err() && less(&[f64::NAN], &[1.0]).is_err());
    }
}
