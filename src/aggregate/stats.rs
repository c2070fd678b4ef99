//! Arithmetic on slices: means, quantiles, boxes, and the bootstrap over patients.
//! An absent value is NaN: left out, and counted.

use rand::Rng;
use statrs::statistics::Statistics;

use crate::random;

/// Resamples behind every bootstrap interval.
pub const RESAMPLES: usize = 2000;

/// Mean and spread of the defined values of a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// NaN where no value is defined.
    pub mean: f64,
    /// With n - 1; NaN under two values.
    pub sd: f64,
    /// Defined values.
    pub n: u64,
    /// NaN values, left out of the mean.
    pub undefined: u64,
}

/// Mean, sample standard deviation, and how many values are defined and not.
pub fn summary(values: &[f64]) -> Summary {
    let defined = defined(values);
    Summary {
        mean: if defined.is_empty() { f64::NAN } else { defined.iter().mean() },
        sd: if defined.len() < 2 { f64::NAN } else { defined.iter().std_dev() },
        n: defined.len() as u64,
        undefined: (values.len() - defined.len()) as u64,
    }
}

/// The mean of the defined values; NaN where there is none.
pub fn mean(values: &[f64]) -> f64 {
    summary(values).mean
}

fn defined(values: &[f64]) -> Vec<f64> {
    values.iter().copied().filter(|v| !v.is_nan()).collect()
}

/// The quantile `q` (0 to 1) of values in rising order, interpolated linearly between the two nearest
/// (type 7 of Hyndman and Fan 1996, NumPy's default). NaN for an empty slice.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = q.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (at.floor() as usize, at.ceil() as usize);
    let (a, b) = (sorted[below.min(last)], sorted[above.min(last)]);
    // Equal neighbours are returned as they are (also where both are infinite).
    if a == b { a } else { a + (b - a) * (at - below as f64) }
}

/// What one patient adds to a mean over images: the mean of its defined values, and how many they are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PatientValue {
    pub mean: f64,
    /// Images; need not be whole where seeds were averaged.
    pub weight: f64,
}

impl PatientValue {
    pub fn of(values: &[f64]) -> Self {
        let summary = summary(values);
        Self { mean: summary.mean, weight: summary.n as f64 }
    }
}

/// The percentile bootstrap's 95 % interval of the mean over images, patients being what is drawn with
/// replacement ([`RESAMPLES`] times), since one patient's images are not independent observations.
///
/// The draws depend only on the number of patients, so two arms that were tested on the same patients
/// see the same resamples. None under two patients with a defined value.
pub fn bootstrap(patients: &[PatientValue]) -> Option<(f64, f64)> {
    let known: Vec<PatientValue> =
        patients.iter().copied().filter(|p| p.weight > 0.0 && !p.mean.is_nan()).collect();
    if known.len() < 2 {
        return None;
    }
    Some(percentile_interval(&known, resamples(known.len())))
}

/// [`RESAMPLES`] draws of `n` from `n` with replacement, as indices: the same for the same `n`.
pub(super) fn resamples(n: usize) -> impl Iterator<Item = Vec<usize>> {
    let mut rng = random::rng(0, "bootstrap over patients", &[n as u64]);
    (0..RESAMPLES).map(move |_| (0..n).map(|_| rng.random_range(0..n)).collect())
}

/// From the 2.5th to the 97.5th percentile of the mean over images of each resample, which is given by the
/// indices of its patients. With one value a patient: `scipy.stats.bootstrap(…, method="percentile")`.
pub fn percentile_interval(
    patients: &[PatientValue],
    resamples: impl Iterator<Item = Vec<usize>>,
) -> (f64, f64) {
    let mut means: Vec<f64> = resamples
        .map(|drawn| {
            let (mut sum, mut weight) = (0.0, 0.0);
            for patient in drawn.into_iter().map(|i| patients[i]) {
                sum += patient.mean * patient.weight;
                weight += patient.weight;
            }
            sum / weight
        })
        .collect();
    means.sort_by(f64::total_cmp);
    (quantile(&means, 0.025), quantile(&means, 0.975))
}

/// What a box plot shows of the defined values.
#[derive(Debug, Clone, PartialEq)]
pub struct BoxStats {
    pub n: u64,
    pub undefined: u64,
    pub mean: f64,
    pub q1: f64,
    pub median: f64,
    pub q3: f64,
    /// The lowest and highest value within 1.5 interquartile ranges of the box.
    pub whiskers: (f64, f64),
    /// Values beyond the whiskers, in rising order.
    pub outliers: Vec<f64>,
}

/// None where no value is finite (an infinite value counts as undefined).
pub fn box_stats(values: &[f64]) -> Option<BoxStats> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let (q1, median, q3) = (quantile(&sorted, 0.25), quantile(&sorted, 0.5), quantile(&sorted, 0.75));
    let reach = 1.5 * (q3 - q1);
    let inside = |v: &f64| (q1 - reach..=q3 + reach).contains(v);
    Some(BoxStats {
        n: sorted.len() as u64,
        undefined: (values.len() - sorted.len()) as u64,
        mean: mean(&sorted),
        q1,
        median,
        q3,
        whiskers: (*sorted.iter().find(|v| inside(v))?, *sorted.iter().rfind(|v| inside(v))?),
        outliers: sorted.iter().copied().filter(|v| !inside(v)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by `tests/golden/make_aggregate.py` (NumPy and SciPy).
    const GOLDEN: &str = include_str!("../../tests/golden/aggregate.json");

    fn numbers(value: &serde_json::Value) -> Vec<f64> {
        value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap_or(f64::NAN)).collect()
    }

    #[test]
    fn quantiles_mean_and_sd_equal_numpy() {
        let golden: serde_json::Value = serde_json::from_str(GOLDEN).unwrap();
        for case in golden["samples"].as_array().unwrap() {
            let mut values = numbers(&case["values"]);
            let summary = summary(&values);
            assert!((summary.mean - case["nanmean"].as_f64().unwrap()).abs() < 1e-12);
            assert!((summary.sd - case["nanstd"].as_f64().unwrap()).abs() < 1e-12);
            assert_eq!(summary.undefined, case["undefined"].as_u64().unwrap());
            values.retain(|v| !v.is_nan());
            values.sort_by(f64::total_cmp);
            for (q, expected) in numbers(&golden["quantiles"]).into_iter().zip(numbers(&case["percentiles"]))
            {
                assert!((quantile(&values, q) - expected).abs() < 1e-12, "{q}");
            }
        }
    }

    #[test]
    fn the_bootstrap_agrees_with_numpys() {
        let golden: serde_json::Value = serde_json::from_str(GOLDEN).unwrap();
        let case = &golden["bootstrap"];
        let patients: Vec<PatientValue> = case["patients"]
            .as_array()
            .unwrap()
            .iter()
            .map(|images| PatientValue::of(&numbers(images)))
            .collect();
        let (low, high) = bootstrap(&patients).unwrap();
        let (expected_low, expected_high) = (case["low"].as_f64().unwrap(), case["high"].as_f64().unwrap());
        // 2000 resamples against 200000: the ends of the interval differ by chance by about 2 % of its width.
        let width = expected_high - expected_low;
        assert!((low - expected_low).abs() < 0.06 * width, "{low} {expected_low}");
        assert!((high - expected_high).abs() < 0.06 * width, "{high} {expected_high}");
        // An interval over images, as if they were independent, is narrower: the test can tell the two.
        let images = case["over_images_width"].as_f64().unwrap();
        assert!(images < 0.8 * width);
        assert_eq!(bootstrap(&patients), bootstrap(&patients));
    }

    #[test]
    fn nothing_to_resample_is_no_interval() {
        let one = PatientValue::of(&[0.5, 0.7]);
        let none = PatientValue::of(&[f64::NAN]);
        assert_eq!(bootstrap(&[]), None);
        assert_eq!(bootstrap(&[one, none]), None);
        assert_eq!(bootstrap(&[one, one]), Some((0.6, 0.6)));
        assert!(quantile(&[], 0.5).is_nan());
        assert!(summary(&[]).mean.is_nan() && summary(&[1.0]).sd.is_nan());
    }

    #[test]
    fn whiskers_end_at_values_and_outliers_are_beyond_them() {
        let stats = box_stats(&[1.0, 2.0, 3.0, 4.0, 100.0, f64::NAN]).unwrap();
        assert_eq!((stats.q1, stats.median, stats.q3), (2.0, 3.0, 4.0));
        assert_eq!(stats.whiskers, (1.0, 4.0));
        assert_eq!(stats.outliers, [100.0]);
        assert_eq!((stats.n, stats.undefined), (5, 1));
        assert_eq!(box_stats(&[f64::NAN]), None);
    }
}
