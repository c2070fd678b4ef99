//! How soon an arm gets where it ends: steps and epochs until a validation curve first has 95 % of a score.

use std::collections::BTreeMap;

use super::stats::{self, PatientValue};
use crate::results::CurvePoint;

/// This share of the final score is to be reached.
pub const SHARE: f64 = 0.95;
/// A bootstrap of fewer seeds than these would have but a few distinct means: their range is given.
const SEEDS_TO_RESAMPLE: usize = 3;

/// Where a curve first has a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reached {
    pub steps: f64,
    pub epochs: f64,
    /// At the first point already: the true place may be earlier.
    pub at_first: bool,
}

/// The first place at which the line through points (steps, epochs, value) has `target`, which rises towards
/// good: interpolated between the last point below and the first that is not. NaN values are left out. None:
/// it never gets there.
pub fn first_reached(curve: &[(u64, f64, f64)], target: f64) -> Option<Reached> {
    let mut before: Option<(f64, f64, f64)> = None;
    for (steps, epochs, value) in curve.iter().filter(|p| !p.2.is_nan()).map(|p| (p.0 as f64, p.1, p.2)) {
        if value >= target {
            return Some(match before {
                None => Reached { steps, epochs, at_first: true },
                Some((s, e, v)) => {
                    let t = (target - v) / (value - v);
                    Reached { steps: s + t * (steps - s), epochs: e + t * (epochs - e), at_first: false }
                }
            });
        }
        before = Some((steps, epochs, value));
    }
    None
}

/// A number over seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OverSeeds {
    pub mean: f64,
    /// Sample standard deviation; None with one seed.
    pub sd: Option<f64>,
    /// 95 % bootstrap interval over seeds; of two seeds their range; None with one.
    pub interval: Option<(f64, f64)>,
}

impl OverSeeds {
    fn of(values: &[f64]) -> Self {
        let summary = stats::summary(values);
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let interval = match values.len() {
            0 | 1 => None,
            n if n < SEEDS_TO_RESAMPLE => Some((low, high)),
            _ => stats::bootstrap(&values.iter().map(|v| PatientValue::of(&[*v])).collect::<Vec<_>>()),
        };
        Self { mean: summary.mean, sd: (values.len() > 1).then_some(summary.sd), interval }
    }
}

/// How soon an arm's seeds reach a score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    pub target: f64,
    pub seeds: u64,
    /// Seeds that reach it. A seed that does not counts with its last step: where there is one, [`Self::steps`]
    /// and [`Self::epochs`] are lower bounds of the mean.
    pub reached: u64,
    /// Seeds that have it at their first validation already.
    pub at_first: u64,
    pub steps: OverSeeds,
    pub epochs: OverSeeds,
}

/// An arm's convergence by one score.
#[derive(Debug, Clone, PartialEq)]
pub struct Convergence {
    pub arm: String,
    pub model: String,
    /// The score at the last validation.
    pub last: OverSeeds,
    /// To [`SHARE`] of its own final score (mean over seeds): how long it goes on improving. An arm that ends
    /// badly is soon there.
    pub own: Speed,
    /// To [`SHARE`] of its baseline's final score, a target that arms have in common: what "converges faster"
    /// must mean. With the baseline's name; a baseline has its own.
    pub common: (String, Speed),
}

type Curves<'a> = BTreeMap<Option<u64>, Vec<(u64, f64, f64)>>;

/// Convergence by validation points of one metric (higher is better) and structure, arm by arm and model by
/// model in order of appearance. `baseline` names the arm that an arm is measured by; None: itself.
pub fn convergence<'a>(
    points: impl Iterator<Item = &'a CurvePoint>,
    baseline: impl Fn(&str) -> Option<String>,
) -> Vec<Convergence> {
    let mut arms: Vec<(&str, &str, Curves)> = Vec::new();
    for point in points {
        let is = |a: &(&str, &str, Curves)| a.0 == point.arm && a.1 == point.model;
        let at = arms.iter().position(is).unwrap_or_else(|| {
            arms.push((&point.arm, &point.model, Curves::new()));
            arms.len() - 1
        });
        arms[at].2.entry(point.seed).or_default().push((point.step, point.epoch, point.value));
    }
    for curve in arms.iter_mut().flat_map(|arm| arm.2.values_mut()) {
        curve.sort_by_key(|p| p.0);
        curve.retain(|p| !p.2.is_nan());
    }
    // A seed without a single value has no curve; an arm without a curve has no row.
    arms.iter_mut().for_each(|arm| arm.2.retain(|_, curve| !curve.is_empty()));
    arms.retain(|arm| !arm.2.is_empty());
    let finals = |curves: &Curves| {
        OverSeeds::of(&curves.values().filter_map(|c| Some(c.last()?.2)).collect::<Vec<_>>())
    };
    arms.iter()
        .map(|(arm, model, curves)| {
            let last = finals(curves);
            let of = |name: String| {
                let (_, _, curves) = arms.iter().find(|a| a.0 == name && a.1 == *model)?;
                Some((name, SHARE * finals(curves).mean))
            };
            let own = SHARE * last.mean;
            let (name, target) = baseline(arm).and_then(of).unwrap_or(((*arm).to_owned(), own));
            Convergence {
                arm: (*arm).to_owned(),
                model: (*model).to_owned(),
                last,
                own: speed(curves, own),
                common: (name, speed(curves, target)),
            }
        })
        .collect()
}

fn speed(curves: &Curves, target: f64) -> Speed {
    let each: Vec<(Option<Reached>, (f64, f64))> = curves
        .values()
        .map(|curve| {
            let end = curve.last().map_or((f64::NAN, f64::NAN), |p| (p.0 as f64, p.1));
            let reached = first_reached(curve, target);
            (reached, reached.map_or(end, |r| (r.steps, r.epochs)))
        })
        .collect();
    let count = |is: fn(&Reached) -> bool| each.iter().filter_map(|e| e.0).filter(is).count() as u64;
    Speed {
        target,
        seeds: each.len() as u64,
        reached: count(|_| true),
        at_first: count(|r| r.at_first),
        steps: OverSeeds::of(&each.iter().map(|e| e.1.0).collect::<Vec<_>>()),
        epochs: OverSeeds::of(&each.iter().map(|e| e.1.1).collect::<Vec<_>>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_two_points_the_place_is_interpolated() {
        let curve = [(10, 1.0, 0.2), (20, 2.0, f64::NAN), (30, 3.0, 0.6), (40, 4.0, 0.5), (50, 5.0, 0.9)];
        let at = |target| first_reached(&curve, target).map(|r| (r.steps, r.epochs, r.at_first));
        assert_eq!(at(0.4), Some((20.0, 2.0, false)));
        assert_eq!(at(0.6), Some((30.0, 3.0, false)));
        assert_eq!(at(0.7), Some((45.0, 4.5, false)));
        assert_eq!(at(0.1), Some((10.0, 1.0, true)));
        assert_eq!(at(0.95), None);
        assert_eq!(first_reached(&[], 0.5), None);
    }

    fn curve(arm: &str, seed: u64, steps: u64, values: &[f64]) -> Vec<CurvePoint> {
        let point = |(i, value): (usize, &f64)| CurvePoint {
            arm: arm.into(),
            seed: Some(seed),
            epoch: i as f64 + 1.0,
            step: steps * (i as u64 + 1),
            value: *value,
            ..Default::default()
        };
        values.iter().enumerate().map(point).collect()
    }

    #[test]
    fn the_common_target_is_the_baselines_and_who_misses_it_is_counted() {
        let points = [
            curve("real", 0, 10, &[0.0, 0.76, 0.78, 0.8]),
            curve("real", 1, 10, &[0.38, 0.76, 0.8, 0.8]),
            curve("more", 0, 20, &[0.76, 0.8, 0.9, 1.0]),
            curve("poor", 0, 10, &[0.1, 0.3, 0.4, 0.4]),
            curve("poor", 1, 10, &[0.1, 0.3, 0.8, 0.4]),
            curve("none", 0, 10, &[f64::NAN]),
        ]
        .concat();
        let found = convergence(points.iter(), |arm| (arm != "real").then(|| "real".to_owned()));
        assert_eq!(found.iter().map(|c| c.arm.as_str()).collect::<Vec<_>>(), ["real", "more", "poor"]);
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");

        let real = &found[0];
        near(real.own.target, 0.76);
        near(real.own.steps.mean, 20.0);
        assert_eq!((real.own.reached, real.own.seeds, real.own.steps.interval), (2, 2, Some((20.0, 20.0))));
        assert_eq!(real.common, ("real".to_owned(), real.own));

        let more = &found[1];
        near(more.own.steps.mean, 70.0); // 0.95 of 1.0, half way from the third point to the last
        near(more.own.epochs.mean, 3.5);
        near(more.common.1.target, 0.76);
        near(more.common.1.steps.mean, 20.0);
        assert_eq!((more.common.1.at_first, more.common.1.steps.interval), (1, None));

        // One seed passes the target on its way, the other ends below: a lower bound, and the count says so.
        let poor = &found[2].common.1;
        assert_eq!((poor.reached, poor.seeds), (1, 2));
        near(poor.steps.mean, (20.0 + 10.0 * (0.76 - 0.3) / 0.5 + 40.0) / 2.0);
        near(found[2].last.mean, 0.4);
    }

    #[test]
    fn three_seeds_have_a_bootstrap_interval() {
        let over = OverSeeds::of(&[10.0, 20.0, 60.0]);
        let (low, high) = over.interval.unwrap();
        assert!(over.mean == 30.0 && low == 10.0 && high == 60.0);
        assert!(convergence([].into_iter(), |_| None).is_empty());
    }
}
