//! From rows per image to rows per patient, over all, and over seeds.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    group,
    stats::{self, PatientValue},
    structure_rank,
};
use crate::{
    error::Result,
    results::{CurvePoint, Measurement},
    vocabulary::{Metric, Split, Statistic, Structure, Task, Undefined},
};

/// A row of one image, not of a patient or over all.
pub(crate) fn is_image(row: &Measurement) -> bool {
    !(row.patient.is_empty() || row.view.is_empty() && row.phase.is_empty())
}

/// The metric of a row, where it has one value for each image or patient.
fn averaged_metric(row: &Measurement) -> Option<Metric> {
    Metric::ALL.into_iter().find(|metric| metric.is_averaged() && row.metric == *metric)
}

/// A row that was measured on one image, or on one patient by a metric of patients. By another metric a row of a patient is
/// the mean over its images.
pub(crate) fn is_observation(row: &Measurement) -> bool {
    is_image(row) || !row.patient.is_empty() && averaged_metric(row).is_some_and(Metric::is_of_patients)
}

fn averaged(row: &Measurement) -> bool {
    averaged_metric(row).is_some() && is_observation(row)
}

/// An arm's value of one metric over its seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The mean over seeds of each seed's mean over images.
    pub mean: f64,
    /// Sample standard deviation over seeds; None with one seed.
    pub sd: Option<f64>,
    /// 95 % bootstrap interval over patients, each patient's values averaged over seeds first.
    pub interval: Option<(f64, f64)>,
    pub seeds: u64,
    pub patients: u64,
    /// Different images with a value under at least one seed; of a metric of patients, the patients.
    pub images: u64,
    /// Values (image x seed) that are defined, and that are not.
    pub defined: u64,
    pub undefined: u64,
}

/// Sums the rows of one (task, arm, model, split, structure, metric) up over images and seeds.
pub fn estimate(rows: &[&Measurement]) -> Estimate {
    let mut seeds: BTreeMap<Option<u64>, Vec<f64>> = BTreeMap::new();
    let mut patients: BTreeMap<&str, BTreeMap<Option<u64>, Vec<f64>>> = BTreeMap::new();
    let mut images: BTreeSet<(&str, &str, &str)> = BTreeSet::new();
    for row in rows.iter().filter(|row| averaged(row)) {
        seeds.entry(row.seed).or_default().push(row.value);
        patients.entry(&row.patient).or_default().entry(row.seed).or_default().push(row.value);
        if !row.value.is_nan() {
            images.insert((&row.patient, &row.view, &row.phase));
        }
    }
    let per_seed: Vec<f64> = seeds.values().map(|values| stats::mean(values)).collect();
    let over_seeds = stats::summary(&per_seed);
    let per_patient: Vec<PatientValue> = patients
        .values()
        .map(|seeds| {
            let values: Vec<PatientValue> = seeds.values().map(|v| PatientValue::of(v)).collect();
            PatientValue {
                mean: stats::mean(&values.iter().map(|v| v.mean).collect::<Vec<_>>()),
                weight: stats::mean(&values.iter().map(|v| v.weight).collect::<Vec<_>>()),
            }
        })
        .collect();
    let all = stats::summary(&seeds.into_values().flatten().collect::<Vec<_>>());
    Estimate {
        mean: over_seeds.mean,
        sd: (over_seeds.n > 1).then_some(over_seeds.sd),
        interval: stats::bootstrap(&per_patient),
        seeds: per_seed.len() as u64,
        patients: per_patient.iter().filter(|p| p.weight > 0.0).count() as u64,
        images: images.len() as u64,
        defined: all.n,
        undefined: all.undefined,
    }
}

/// Rows that pick one (task, arm, model, split, structure, metric) out of many.
pub struct Means<'a> {
    groups: HashMap<[String; 6], Vec<&'a Measurement>>,
}

impl<'a> Means<'a> {
    pub fn new(rows: &'a [Measurement]) -> Self {
        let mut groups: HashMap<[String; 6], Vec<&Measurement>> = HashMap::new();
        for row in rows.iter().filter(|row| averaged(row)) {
            let key = [&row.task, &row.arm, &row.model, &row.split, &row.structure, &row.metric];
            groups.entry(key.map(String::clone)).or_default().push(row);
        }
        Self { groups }
    }

    /// The rows per image of `[task, arm, model, split, structure, metric]`.
    pub fn images(&self, key: [&str; 6]) -> &[&'a Measurement] {
        let key = key.map(str::to_owned);
        self.groups.get(&key).map(Vec::as_slice).unwrap_or_default()
    }

    /// None where there are no rows.
    pub fn estimate(&self, key: [&str; 6]) -> Option<Estimate> {
        let rows = self.images(key);
        (!rows.is_empty()).then(|| estimate(rows))
    }
}

/// Mean, deviation over seeds and number of seeds of a metric that the measuring stage gives over all
/// images (`patient` empty), such as `f1`.
pub fn overall_mean(rows: &[&Measurement]) -> (f64, Option<f64>, u64) {
    let values: Vec<f64> =
        rows.iter().filter(|r| r.patient.is_empty() && r.seed.is_some()).map(|r| r.value).collect();
    let summary = stats::summary(&values);
    (summary.mean, (summary.n > 1).then_some(summary.sd), summary.n)
}

/// The split that results are reported on: `test` where there is one, else `val`, else what there is.
pub fn reported_split(rows: &[Measurement], task: Task) -> Option<String> {
    let splits: BTreeSet<&str> = rows.iter().filter(|r| r.task == task).map(|r| r.split.as_str()).collect();
    let preferred = [Split::Test, Split::Val].map(Split::as_str).into_iter().find(|s| splits.contains(s));
    preferred.or(splits.first().copied()).map(str::to_owned)
}

/// The tidy table behind a report. To the measured rows it adds, for every metric of images or patients:
///
/// * of overlaps such as Dice, the mean over each image's defined structures (endo, myo, la), as structure `mean`;
/// * each patient's mean over its images (`view` and `phase` empty, `n` images);
/// * per seed, over all (`patient` empty): the mean over images (`n` images with a value), `…_sd` over
///   images, `…_ci95_low` and `…_ci95_high` (bootstrap over `n` patients), and `…_failures` for distances;
/// * over seeds (`seed` empty): the mean of the seeds' means, `…_seed_sd` (`n` seeds), `…_ci95_low`, `…_ci95_high`.
///
/// A row that the measuring stage gave itself is kept and not made again. The order does not depend on
/// the order of the input, but for arms and models, which keep theirs.
pub fn measurements_table(measured: &[Measurement]) -> Result<Vec<Measurement>> {
    let mut table: Vec<Measurement> = measured.to_vec();
    let key = |r: &Measurement| {
        [&r.task, &r.arm, &r.model, &r.split, &r.patient, &r.view, &r.phase, &r.structure, &r.metric]
            .map(String::clone)
    };
    let mut known: BTreeSet<_> = measured.iter().map(|r| (key(r), r.seed)).collect();
    let mut add = |table: &mut Vec<Measurement>, row: Measurement| {
        if known.insert((key(&row), row.seed)) {
            table.push(row);
        }
    };

    let overlaps = Metric::ALL.into_iter().filter(|metric| metric.undefined() == Undefined::TruthLacksIt);
    for metric in overlaps {
        mean_of_structures(measured, metric)?.into_iter().for_each(|row| add(&mut table, row));
    }
    let images: Vec<Measurement> = table.iter().filter(|r| averaged(r)).cloned().collect();
    let images: Vec<&Measurement> = images.iter().collect();
    let pick = |rows: &[usize]| -> Vec<&Measurement> { rows.iter().map(|&i| images[i]).collect() };
    const GROUP: [&str; 6] = ["task", "arm", "model", "split", "structure", "metric"];

    for rows in group(&images, &[&GROUP[..], &["seed", "patient"]].concat())? {
        let rows = pick(&rows);
        let value = PatientValue::of(&rows.iter().map(|r| r.value).collect::<Vec<_>>());
        let overall = Measurement { view: String::new(), phase: String::new(), ..rows[0].clone() };
        add(&mut table, Measurement { value: value.mean, n: Some(value.weight as u64), ..overall });
    }
    for (over_seeds, keys) in [(false, [&GROUP[..], &["seed"]].concat()), (true, GROUP.to_vec())] {
        for rows in group(&images, &keys)? {
            let rows = pick(&rows);
            let estimate = estimate(&rows);
            let of = |statistic: Statistic, value: f64, n: u64| Measurement {
                seed: if over_seeds { None } else { rows[0].seed },
                patient: String::new(),
                view: String::new(),
                phase: String::new(),
                metric: format!("{}{}", rows[0].metric, statistic.suffix()),
                value,
                n: Some(n),
                ..rows[0].clone()
            };
            add(&mut table, of(Statistic::Mean, estimate.mean, estimate.defined));
            if over_seeds {
                add(&mut table, of(Statistic::SeedSd, estimate.sd.unwrap_or(f64::NAN), estimate.seeds));
            } else {
                let values: Vec<f64> = rows.iter().map(|r| r.value).collect();
                add(&mut table, of(Statistic::Sd, stats::summary(&values).sd, estimate.defined));
                if averaged_metric(rows[0]).is_some_and(Metric::counts_failures) {
                    let failures = of(Statistic::Failures, estimate.undefined as f64, rows.len() as u64);
                    add(&mut table, Measurement { unit: "images".into(), ..failures });
                }
            }
            let (low, high) = estimate.interval.unwrap_or((f64::NAN, f64::NAN));
            add(&mut table, of(Statistic::Ci95Low, low, estimate.patients));
            add(&mut table, of(Statistic::Ci95High, high, estimate.patients));
        }
    }
    sort(&mut table);
    Ok(table)
}

/// The mean over each image's structures.
pub(super) fn mean_of_structures(measured: &[Measurement], metric: Metric) -> Result<Vec<Measurement>> {
    let parts: Vec<&Measurement> = measured
        .iter()
        .filter(|r| is_image(r) && r.metric == metric && Structure::is_class(&r.structure))
        .collect();
    let groups = group(&parts, &["task", "arm", "model", "seed", "split", "patient", "view", "phase"])?;
    Ok(groups
        .iter()
        .map(|rows| {
            let values: Vec<f64> = rows.iter().map(|&i| parts[i].value).collect();
            Measurement {
                structure: Structure::MEAN.into(),
                value: stats::mean(&values),
                ..parts[rows[0]].clone()
            }
        })
        .collect())
}

/// Tasks by name, arms and models as they first appear; then seed, split, level (images, patients,
/// over all), patient, view, phase, structure, metric. Rows over seeds come last in their arm.
fn sort(table: &mut [Measurement]) {
    let mut order: HashMap<(String, String), usize> = HashMap::new();
    for row in table.iter() {
        let next = order.len();
        order.entry((row.arm.clone(), row.model.clone())).or_insert(next);
    }
    let rank = |r: &Measurement| order.get(&(r.arm.clone(), r.model.clone())).copied();
    table.sort_by_cached_key(|r| {
        let level = if is_image(r) { 0 } else { 1 + u8::from(r.patient.is_empty()) };
        let (structure, name) = structure_rank(&r.structure);
        let place = [&r.split, &r.patient, &r.view, &r.phase].map(String::clone);
        (
            r.task.clone(),
            rank(r),
            (r.seed.is_none(), r.seed),
            level,
            place,
            (structure, name.to_owned(), r.metric.clone()),
        )
    });
}

/// Curves by task, arm and model (as they first appear), seed, split, metric, structure and step.
pub fn sorted_curves(points: &[CurvePoint]) -> Vec<CurvePoint> {
    let mut order: HashMap<(&str, &str), usize> = HashMap::new();
    for point in points {
        let next = order.len();
        order.entry((&point.arm, &point.model)).or_insert(next);
    }
    let mut sorted = points.to_vec();
    sorted.sort_by_cached_key(|p| {
        let (structure, name) = structure_rank(&p.structure);
        (
            p.task.clone(),
            order.get(&(p.arm.as_str(), p.model.as_str())).copied(),
            p.seed,
            p.split.clone(),
            p.metric.clone(),
            (structure, name.to_owned()),
            p.step,
        )
    });
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(
        arm: &str,
        seed: u64,
        patient: &str,
        phase: &str,
        structure: &str,
        metric: &str,
        value: f64,
    ) -> Measurement {
        Measurement {
            experiment: "e".into(),
            task: "segmentation".into(),
            arm: arm.into(),
            model: "unet".into(),
            seed: Some(seed),
            split: "test".into(),
            patient: patient.into(),
            view: "2CH".into(),
            phase: phase.into(),
            structure: structure.into(),
            metric: metric.into(),
            value,
            unit: if metric == "dice" { String::new() } else { "mm".into() },
            n: Some(1),
        }
    }

    fn find<'a>(
        table: &'a [Measurement],
        seed: Option<u64>,
        patient: &str,
        s: &str,
        metric: &str,
    ) -> &'a Measurement {
        let mut found = table.iter().filter(|r| {
            r.seed == seed
                && r.patient == patient
                && r.view.is_empty()
                && r.structure == s
                && r.metric == metric
        });
        let first = found.next().unwrap_or_else(|| panic!("no row {seed:?} {patient:?} {s} {metric}"));
        assert!(found.next().is_none(), "two rows {patient} {s} {metric}");
        first
    }

    #[test]
    fn by_hand() {
        let nan = f64::NAN;
        let measured = [
            row("real", 0, "p1", "ED", "endo", "dice", 0.8),
            row("real", 0, "p1", "ES", "endo", "dice", 0.6),
            row("real", 0, "p2", "ED", "endo", "dice", 1.0),
            row("real", 0, "p1", "ED", "myo", "dice", 0.4),
            row("real", 0, "p1", "ED", "la", "dice", nan),
            row("real", 0, "p1", "ED", "epi", "dice", 0.0),
            row("real", 1, "p1", "ED", "endo", "dice", 0.6),
            row("real", 1, "p1", "ES", "endo", "dice", 0.6),
            row("real", 1, "p2", "ED", "endo", "dice", 0.6),
            row("real", 0, "p1", "ED", "endo", "hd", nan),
            row("real", 0, "p1", "ES", "endo", "hd", 5.0),
        ];
        let table = measurements_table(&measured).unwrap();
        let value = |seed, patient, s, metric| {
            let r = find(&table, seed, patient, s, metric);
            (r.value, r.n.unwrap())
        };
        let near = |(a, n): (f64, u64), b: f64, m: u64| assert!((a - b).abs() < 1e-12 && n == m, "{a} {n}");
        near(value(Some(0), "p1", "endo", "dice"), 0.7, 2);
        near(value(Some(0), "", "endo", "dice"), 0.8, 3);
        near(value(Some(0), "", "endo", "dice_sd"), 0.2, 3);
        near(value(Some(1), "", "endo", "dice"), 0.6, 3);
        near(value(None, "", "endo", "dice"), 0.7, 6);
        near(value(None, "", "endo", "dice_seed_sd"), 0.02f64.sqrt(), 2);
        near(value(Some(0), "", "endo", "hd"), 5.0, 1);
        near(value(Some(0), "", "endo", "hd_failures"), 1.0, 2);
        // The mean leaves out the absent atrium and the overlapping epicardium.
        let mean = table.iter().find(|r| r.structure == "mean" && r.seed == Some(0) && r.phase == "ED");
        assert!((mean.unwrap().value - 0.6).abs() < 1e-12);
        // An atrium that is never there is NaN with n = 0, not 0.
        let la = find(&table, Some(0), "", "la", "dice");
        assert!(la.value.is_nan() && la.n == Some(0));
        // Two patients: the interval spans from one patient's mean to the other's.
        near(value(Some(0), "", "endo", "dice_ci95_low"), 0.7, 2);
        near(value(Some(0), "", "endo", "dice_ci95_high"), 1.0, 2);
    }

    #[test]
    fn done_again_it_adds_nothing_and_shuffled_input_gives_the_same() {
        let mut measured = Vec::new();
        for seed in 0..2 {
            for p in 0..5 {
                for s in ["endo", "myo", "la"] {
                    let value = 0.8 + 0.01 * p as f64 + 0.003 * seed as f64;
                    measured.push(row("real", seed, &format!("p{p}"), "ED", s, "dice", value));
                }
            }
        }
        let once = measurements_table(&measured).unwrap();
        assert_eq!(measurements_table(&once).unwrap(), once);
        measured.reverse();
        assert_eq!(measurements_table(&measured).unwrap(), once);
        assert!(measurements_table(&[]).unwrap().is_empty());
    }

    #[test]
    fn a_row_that_was_measured_is_not_made_again() {
        let mut given = row("real", 0, "", "", "endo", "hd_failures", 7.0);
        given.view.clear();
        let table = measurements_table(&[row("real", 0, "p1", "ED", "endo", "hd", f64::NAN), given]).unwrap();
        assert_eq!(find(&table, Some(0), "", "endo", "hd_failures").value, 7.0);
    }

    #[test]
    fn one_seed_has_no_spread() {
        let rows = [row("a", 0, "p1", "ED", "la", "dice", 0.5), row("a", 0, "p2", "ED", "la", "dice", 0.7)];
        let estimate = estimate(&rows.iter().collect::<Vec<_>>());
        assert_eq!((estimate.sd, estimate.seeds, estimate.patients), (None, 1, 2));
        assert_eq!(estimate.interval, Some((0.5, 0.7)));
    }

    #[test]
    fn curves_are_sorted_by_step() {
        let point = |step, seed| CurvePoint { step, seed: Some(seed), ..Default::default() };
        let sorted = sorted_curves(&[point(3, 1), point(1, 1), point(2, 0)]);
        assert_eq!(sorted.iter().map(|p| p.step).collect::<Vec<_>>(), [2, 1, 3]);
    }
}
