//! How well a measurement agrees with a reference over patients: correlation, bias, limits of agreement (Bland and
//! Altman 1986) and mean absolute error.

use std::collections::{BTreeMap, BTreeSet};

use super::stats;

/// Limits of agreement lie this many standard deviations on either side of the bias.
pub const LIMITS: f64 = 1.96;

/// Fewer pairs than this have no correlation: two points always lie on a line.
const FEWEST_CORRELATED: usize = 3;

/// A figure of [`Agreement`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgreementFigure {
    /// Pearson's correlation. NaN under three pairs, and where one of the two does not vary.
    Correlation,
    /// The mean of value minus reference.
    Bias,
    /// The bias minus and plus 1.96 sample standard deviations of the differences. NaN under two pairs.
    LowerLimit,
    UpperLimit,
    /// The mean of |value − reference|.
    MeanAbsoluteError,
}

impl AgreementFigure {
    pub const ALL: [Self; 5] =
        [Self::Correlation, Self::Bias, Self::LowerLimit, Self::UpperLimit, Self::MeanAbsoluteError];

    /// The head of its column.
    pub fn label(self) -> &'static str {
        match self {
            Self::Correlation => "r",
            Self::Bias => "Bias",
            Self::LowerLimit => "Lower limit",
            Self::UpperLimit => "Upper limit",
            Self::MeanAbsoluteError => "Mean absolute error",
        }
    }
}

/// The figures of pairs (value, reference), in the order of [`AgreementFigure::ALL`].
pub fn agreement(pairs: &[(f64, f64)]) -> [f64; 5] {
    let differences: Vec<f64> = pairs.iter().map(|(value, reference)| value - reference).collect();
    let stats::Summary { mean: bias, sd, .. } = stats::summary(&differences);
    let sizes: Vec<f64> = differences.iter().map(|d| d.abs()).collect();
    [correlation(pairs), bias, bias - LIMITS * sd, bias + LIMITS * sd, stats::mean(&sizes)]
}

fn correlation(pairs: &[(f64, f64)]) -> f64 {
    if pairs.len() < FEWEST_CORRELATED {
        return f64::NAN;
    }
    let n = pairs.len() as f64;
    let sum = pairs.iter().fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (x, y) in pairs.iter().map(|(x, y)| (x - sum.0 / n, y - sum.1 / n)) {
        xx += x * x;
        yy += y * y;
        xy += x * y;
    }
    if xx > 0.0 && yy > 0.0 { (xy / (xx.sqrt() * yy.sqrt())).clamp(-1.0, 1.0) } else { f64::NAN }
}

/// A figure over seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AgreementEstimate {
    /// The mean over seeds of each seed's figure over patients.
    pub value: f64,
    /// Sample standard deviation over seeds; None with one seed.
    pub sd: Option<f64>,
    /// 95 % bootstrap interval over patients.
    pub interval: Option<(f64, f64)>,
}

/// A measurement of patients against its reference, with one or several seeds.
#[derive(Debug, Clone, PartialEq)]
pub struct AgreementSummary {
    figures: [AgreementEstimate; 5],
    /// Patients with a pair under at least one seed.
    pub patients: u64,
    pub seeds: u64,
    /// Pairs (patient and seed) of which one value does not exist.
    pub undefined: u64,
}

/// One patient's value and reference with one seed. NaN where it does not exist.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PatientPair<'a> {
    pub patient: &'a str,
    pub seed: Option<u64>,
    pub value: f64,
    pub reference: f64,
}

impl PatientPair<'_> {
    pub fn is_defined(&self) -> bool {
        !(self.value.is_nan() || self.reference.is_nan())
    }
}

impl AgreementSummary {
    /// None without a defined pair.
    pub fn of(pairs: &[PatientPair]) -> Option<Self> {
        let defined = || pairs.iter().filter(|pair| pair.is_defined());
        let patients: Vec<&str> =
            defined().map(|pair| pair.patient).collect::<BTreeSet<_>>().into_iter().collect();
        if patients.is_empty() {
            return None;
        }
        // By seed, the pair of each patient in the order of `patients`.
        let mut seeds: BTreeMap<Option<u64>, Vec<Option<(f64, f64)>>> = BTreeMap::new();
        for pair in defined() {
            let of_seed = seeds.entry(pair.seed).or_insert_with(|| vec![None; patients.len()]);
            if let Ok(i) = patients.binary_search(&pair.patient) {
                of_seed[i] = Some((pair.value, pair.reference));
            }
        }
        let seeds: Vec<_> = seeds.into_values().collect();
        let all: Vec<usize> = (0..patients.len()).collect();
        let whole: Vec<[f64; 5]> = seeds.iter().map(|seed| drawn(seed, &all)).collect();
        let intervals = intervals(&seeds, stats::resamples(patients.len()));
        let figures = std::array::from_fn(|i| {
            let over_seeds = stats::summary(&whole.iter().map(|figures| figures[i]).collect::<Vec<_>>());
            AgreementEstimate {
                value: over_seeds.mean,
                sd: (over_seeds.n > 1).then_some(over_seeds.sd),
                interval: intervals[i].filter(|_| patients.len() > 1 && !over_seeds.mean.is_nan()),
            }
        });
        Some(Self {
            figures,
            patients: patients.len() as u64,
            seeds: seeds.len() as u64,
            undefined: (pairs.len() - defined().count()) as u64,
        })
    }

    pub fn get(&self, figure: AgreementFigure) -> AgreementEstimate {
        self.figures[AgreementFigure::ALL.iter().position(|f| *f == figure).unwrap_or_default()]
    }
}

/// The figures of one seed's drawn patients.
fn drawn(seed: &[Option<(f64, f64)>], patients: &[usize]) -> [f64; 5] {
    agreement(&patients.iter().filter_map(|i| seed[*i]).collect::<Vec<_>>())
}

/// From the 2.5th to the 97.5th percentile of each figure over the resamples, which are given by the indices of their
/// patients. All seeds see the same draw, and a draw's figure is the mean over seeds. A draw without a figure is left out.
fn intervals(
    seeds: &[Vec<Option<(f64, f64)>>],
    resamples: impl Iterator<Item = Vec<usize>>,
) -> [Option<(f64, f64)>; 5] {
    let mut found: [Vec<f64>; 5] = Default::default();
    for patients in resamples {
        let of_seeds: Vec<[f64; 5]> = seeds.iter().map(|seed| drawn(seed, &patients)).collect();
        for (i, values) in found.iter_mut().enumerate() {
            let mean = stats::mean(&of_seeds.iter().map(|figures| figures[i]).collect::<Vec<_>>());
            values.extend(Some(mean).filter(|mean| !mean.is_nan()));
        }
    }
    found.map(|mut values| {
        values.sort_by(f64::total_cmp);
        let ends = (stats::quantile(&values, 0.025), stats::quantile(&values, 0.975));
        (!values.is_empty()).then_some(ends)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by `tests/golden/make_aggregate.py` (NumPy, SciPy).
    fn golden() -> Vec<serde_json::Value> {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/golden/aggregate.json")).unwrap();
        golden["agreement"].as_array().unwrap().clone()
    }

    fn numbers(value: &serde_json::Value) -> Vec<f64> {
        value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    }

    #[test]
    fn figures_and_intervals_equal_numpys() {
        let mut biased = 0;
        for case in golden() {
            let pairs: Vec<(f64, f64)> =
                numbers(&case["value"]).into_iter().zip(numbers(&case["reference"])).collect();
            let found = agreement(&pairs);
            for (found, expected) in found.iter().zip(numbers(&case["figures"])) {
                assert!((found - expected).abs() < 1e-12 * (1.0 + expected.abs()), "{found} {expected}");
            }
            // With the deviation of the population (n) the limits are others.
            biased += i32::from((found[2] - case["lower_of_population"].as_f64().unwrap()).abs() > 1e-3);
            let resamples = case["resamples"].as_array().unwrap().iter().map(|draw| {
                draw.as_array().unwrap().iter().map(|i| i.as_u64().unwrap() as usize).collect::<Vec<_>>()
            });
            let seed: Vec<Option<(f64, f64)>> = pairs.into_iter().map(Some).collect();
            let ends = case["intervals"].as_array().unwrap().iter().map(numbers);
            for (found, expected) in intervals(&[seed], resamples).into_iter().zip(ends) {
                let (low, high) = found.unwrap();
                let near = |a: f64, b: f64| (a - b).abs() < 1e-10;
                assert!(near(low, expected[0]) && near(high, expected[1]), "{low} {high} {expected:?}");
            }
        }
        assert!(biased > 0);
    }

    fn pair(patient: &str, seed: u64, value: f64, reference: f64) -> PatientPair<'_> {
        PatientPair { patient, seed: Some(seed), value, reference }
    }

    #[test]
    fn figures_are_averaged_over_seeds_and_what_is_undefined_is_counted() {
        let nan = f64::NAN;
        let pairs = [
            pair("a", 0, 51.0, 50.0),
            pair("b", 0, 62.0, 60.0),
            pair("c", 0, 43.0, 40.0),
            pair("a", 1, 47.0, 50.0),
            pair("b", 1, nan, 60.0),
            pair("c", 1, 39.0, 40.0),
            pair("d", 0, 39.0, nan),
        ];
        let found = AgreementSummary::of(&pairs).unwrap();
        assert_eq!((found.patients, found.seeds, found.undefined), (3, 2, 2));
        let bias = found.get(AgreementFigure::Bias);
        assert_eq!((bias.value, bias.sd), (0.0, Some(8f64.sqrt())), "2 and -2");
        assert_eq!(found.get(AgreementFigure::MeanAbsoluteError).value, 2.0);
        // The second seed has two pairs: no correlation.
        let r = found.get(AgreementFigure::Correlation);
        assert!(r.value > 0.99 && r.sd.is_none(), "{r:?}");
        assert!(bias.interval.is_some_and(|(low, high)| low <= 0.0 && high >= 0.0), "{bias:?}");
        assert_eq!(AgreementSummary::of(&pairs[6..]), None);
        let one = AgreementSummary::of(&pairs[..1]).unwrap();
        assert_eq!(
            one.get(AgreementFigure::Bias),
            AgreementEstimate { value: 1.0, sd: None, interval: None }
        );
        assert!(one.get(AgreementFigure::LowerLimit).value.is_nan());
    }

    #[test]
    fn no_correlation_where_nothing_varies() {
        assert!(agreement(&[(1.0, 2.0), (1.0, 3.0), (1.0, 4.0)])[0].is_nan());
        assert!((agreement(&[(1.0, 2.0), (2.0, 4.0), (3.0, 6.0)])[0] - 1.0).abs() < 1e-12);
        assert!(agreement(&[])[1].is_nan());
    }
}
