//! What networks that were trained on real images see in synthetic ones: from one row per image to one row per class
//! and one overall.

use super::{group, is_image, rows::mean_of_structures, stats};
use crate::{
    error::Result,
    results::Measurement,
    vocabulary::{Metric, Statistic, View},
};

/// Sums up what a judging stage measured. A synthetic image has no patient, so `patient` is empty everywhere:
///
/// * `dice` per structure (and `mean`, as of real images), of each view and phase and over all, with
///   `dice_sd` over images; `hd95` likewise, with `hd95_failures`, the structures that were not found;
/// * `accuracy` of each view and phase, over all (with its interval), `view_accuracy` where the classes
///   tell the view, and the confusion matrix.
pub fn judged(measured: &[Measurement]) -> Result<Vec<Measurement>> {
    let mut rows: Vec<Measurement> = measured
        .iter()
        .filter(|r| r.patient.is_empty())
        .filter(|r| {
            use Statistic::{Ci95High, Ci95Low, Mean};
            r.metric == Metric::Confusion
                || [Mean, Ci95Low, Ci95High].iter().any(|s| r.metric == Metric::Accuracy.with(*s))
        })
        .cloned()
        .collect();
    rows.extend(view_accuracy(&rows));
    let of = |metric: Metric| measured.iter().filter(move |r| is_image(r) && r.metric == metric);
    let means = mean_of_structures(measured, Metric::Dice)?;
    let dice: Vec<&Measurement> = of(Metric::Dice).chain(&means).collect();
    let means = mean_of_structures(measured, Metric::Hd95)?;
    let hd95: Vec<&Measurement> = of(Metric::Hd95).chain(&means).collect();
    let correct: Vec<&Measurement> = of(Metric::Correct).collect();
    for (images, metric, keys, sd) in [
        (&dice, Metric::Dice, &["structure"][..], true),
        (&dice, Metric::Dice, &["structure", "view", "phase"][..], false),
        (&hd95, Metric::Hd95, &["structure"][..], true),
        (&correct, Metric::Accuracy, &["view", "phase"][..], false),
    ] {
        for of_group in group(images, keys)? {
            let first = images[of_group[0]];
            let summary = stats::summary(&of_group.iter().map(|&i| images[i].value).collect::<Vec<_>>());
            let keep =
                |key: &str, value: &str| if keys.contains(&key) { value.to_owned() } else { String::new() };
            let row = |statistic: Statistic, value: f64| Measurement {
                patient: String::new(),
                view: keep("view", &first.view),
                phase: keep("phase", &first.phase),
                metric: metric.with(statistic),
                value,
                n: Some(summary.n),
                ..first.clone()
            };
            rows.push(row(Statistic::Mean, summary.mean));
            if sd {
                rows.push(row(Statistic::Sd, summary.sd));
            }
            if metric.counts_failures() {
                let unit = "images".to_owned();
                let failures = row(Statistic::Failures, summary.undefined as f64);
                rows.push(Measurement { unit, n: Some(of_group.len() as u64), ..failures });
            }
        }
    }
    Ok(rows)
}

/// Whether the predicted class (`2CH ED as 4CH ES`) is of the right view, whatever the phase.
fn view_accuracy(rows: &[Measurement]) -> Option<Measurement> {
    let view = |class: &str| class.split(' ').next().and_then(|word| word.parse::<View>().ok());
    let (mut right, mut all) = (0.0, 0.0);
    for row in rows.iter().filter(|r| r.metric == Metric::Confusion) {
        let (truth, predicted) = row.structure.split_once(" as ")?;
        let (truth, predicted) = (view(truth)?, view(predicted)?);
        all += row.value;
        right += if truth == predicted { row.value } else { 0.0 };
    }
    let first = rows.iter().find(|r| r.metric == Metric::Confusion)?;
    Some(Measurement {
        structure: String::new(),
        metric: Metric::ViewAccuracy.into(),
        value: right / all,
        unit: String::new(),
        n: Some(all as u64),
        ..first.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(i: usize, phase: &str, structure: &str, metric: &str, value: f64) -> Measurement {
        Measurement {
            split: "train".into(),
            patient: format!("synthetic-{i:05}"),
            view: "2CH".into(),
            phase: phase.into(),
            structure: structure.into(),
            metric: metric.into(),
            value,
            n: Some(1),
            ..Default::default()
        }
    }

    fn find<'a>(rows: &'a [Measurement], phase: &str, structure: &str, metric: &str) -> &'a Measurement {
        let fits = |r: &&Measurement| r.phase == phase && r.structure == structure && r.metric == metric;
        let found: Vec<&Measurement> = rows.iter().filter(fits).collect();
        assert_eq!(found.len(), 1, "{phase} {structure} {metric}");
        found[0]
    }

    #[test]
    fn dice_over_all_and_per_class_leaves_the_undefined_out() {
        let rows = judged(&[
            image(0, "ED", "endo", "dice", 0.8),
            image(0, "ED", "myo", "dice", 0.6),
            image(0, "ED", "la", "dice", f64::NAN),
            image(1, "ES", "endo", "dice", 0.4),
            image(1, "ES", "myo", "dice", 0.4),
            image(1, "ES", "endo", "hd", 3.0),
            image(0, "ED", "endo", "hd95", 4.0),
            image(0, "ED", "myo", "hd95", f64::NAN),
            image(1, "ES", "endo", "hd95", 5.0),
            image(1, "ES", "myo", "hd95", 9.0),
        ])
        .unwrap();
        let mean = find(&rows, "", "mean", "dice");
        assert!((mean.value - 0.55).abs() < 1e-12 && mean.n == Some(2), "{mean:?}");
        assert!((find(&rows, "", "mean", "dice_sd").value - 0.045f64.sqrt()).abs() < 1e-12);
        assert!((find(&rows, "ED", "mean", "dice").value - 0.7).abs() < 1e-12);
        assert_eq!(find(&rows, "", "la", "dice").n, Some(0));
        assert!(rows.iter().all(|r| r.patient.is_empty() && r.metric != "hd"));
        // (4 + 7) / 2: of the first image the one structure that was found.
        assert_eq!(find(&rows, "", "mean", "hd95").value, 5.5);
        let failures = find(&rows, "", "myo", "hd95_failures");
        assert_eq!((failures.value, failures.n), (1.0, Some(2)));
    }

    #[test]
    fn the_view_can_be_right_where_the_label_is_not() {
        let over_all = |structure: &str, metric: &str, value: f64| Measurement {
            structure: structure.into(),
            metric: metric.into(),
            value,
            n: Some(4),
            ..Default::default()
        };
        let rows = judged(&[
            image(0, "ED", "", "correct", 1.0),
            image(1, "ED", "", "correct", 0.0),
            image(2, "ES", "", "correct", 0.0),
            image(0, "ED", "2CH ED", "probability", 0.7),
            over_all("", "accuracy", 0.25),
            over_all("", "f1", 0.2),
            over_all("2CH ED as 2CH ED", "confusion", 1.0),
            over_all("2CH ED as 2CH ES", "confusion", 2.0),
            over_all("2CH ED as 4CH ED", "confusion", 1.0),
        ])
        .unwrap();
        let view = find(&rows, "", "", "view_accuracy");
        assert_eq!((view.value, view.n), (0.75, Some(4)));
        assert_eq!(find(&rows, "", "", "accuracy").value, 0.25);
        assert_eq!(
            (find(&rows, "ED", "", "accuracy").value, find(&rows, "ES", "", "accuracy").value),
            (0.5, 0.0)
        );
        assert!(rows.iter().all(|r| r.metric != "f1" && r.metric != "probability"));
        // A classifier of phases says nothing of the view.
        let phases = judged(&[over_all("ED as ES", "confusion", 1.0)]).unwrap();
        assert!(phases.iter().all(|r| r.metric != "view_accuracy"));
    }
}
