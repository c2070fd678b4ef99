//! Training curves over optimizer steps and over epochs.

use std::collections::BTreeMap;

use super::{
    Figure, ReportInput, TaskModel,
    axes::{Frame, Key, columns, legend, look},
    scene::{DOUBLE, Point, Scene},
};
use crate::{
    aggregate::stats,
    results::CurvePoint,
    vocabulary::{Metric, Split, Structure, Task},
};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Axis {
    Steps,
    Epochs,
}

/// Mean, lowest and highest over seeds at one x; the seeds that have a value there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct At {
    pub x: f64,
    pub mean: f64,
    pub low: f64,
    pub high: f64,
}

/// More points than a panel has dots serve nobody: then neighbours are averaged.
const MOST_POINTS: usize = 400;

/// One arm's curve over its seeds. Several values of one seed at one x are averaged first; NaN is left out.
pub(super) fn over_seeds(points: &[&CurvePoint], axis: Axis) -> Vec<At> {
    let mut values: BTreeMap<u64, BTreeMap<Option<u64>, Vec<f64>>> = BTreeMap::new();
    // Epochs in thousandths: whole numbers can be sorted and met again.
    let parts = if axis == Axis::Steps { 1.0 } else { 1000.0 };
    let of = |p: &CurvePoint| if axis == Axis::Steps { p.step } else { (p.epoch * parts).round() as u64 };
    let distinct = points.iter().map(|p| of(p)).collect::<std::collections::BTreeSet<_>>();
    let bin = distinct.len().div_ceil(MOST_POINTS);
    let place: BTreeMap<u64, u64> = distinct
        .iter()
        .copied()
        .collect::<Vec<_>>()
        .chunks(bin.max(1))
        .flat_map(|chunk| chunk.iter().map(|x| (*x, chunk[chunk.len() / 2])))
        .collect();
    for point in points {
        let x = place.get(&of(point)).copied().unwrap_or_default();
        values.entry(x).or_default().entry(point.seed).or_default().push(point.value);
    }
    values
        .into_iter()
        .map(|(x, seeds)| {
            let per_seed: Vec<f64> =
                seeds.values().map(|v| stats::mean(v)).filter(|v| v.is_finite()).collect();
            let (low, high) = per_seed
                .iter()
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)));
            let defined = !per_seed.is_empty();
            At {
                x: x as f64 / parts,
                mean: stats::mean(&per_seed),
                low: if defined { low } else { f64::NAN },
                high: if defined { high } else { f64::NAN },
            }
        })
        .collect()
}

/// The y range of a panel, and whether it hides a part of the curves.
///
/// The first epochs are far from where the curves end; where they would take more than half of the
/// height, the axis is cut so that the last seven eighths of the points fill it.
pub(super) fn y_range(curves: &[Vec<At>], falling: bool, unit_interval: bool) -> ((f64, f64), bool) {
    let mut means: Vec<f64> = curves.iter().flatten().map(|a| a.mean).filter(|v| v.is_finite()).collect();
    means.sort_by(f64::total_cmp);
    let ends = |f: fn(&At) -> f64| curves.iter().flatten().map(f).filter(|v| v.is_finite());
    let mut low = ends(|a| a.low).fold(f64::INFINITY, f64::min);
    let mut high = ends(|a| a.high).fold(f64::NEG_INFINITY, f64::max);
    if !(low.is_finite() && high.is_finite()) {
        return ((0.0, 1.0), false);
    }
    let (full, mut cut) = (high - low, false);
    if falling {
        let most = stats::quantile(&means, 0.875);
        if most - low < 0.5 * full {
            high = most + 0.1 * (most - low);
            cut = true;
        }
    } else {
        let most = stats::quantile(&means, 0.125);
        if high - most < 0.5 * full {
            low = most - 0.1 * (high - most);
            cut = true;
        }
    }
    let pad = if high > low { 0.06 * (high - low) } else { 0.05 * high.abs().max(0.02) };
    (low, high) = (low - pad, high + pad);
    if unit_interval {
        (low, high) = (low.max(0.0), high.min(1.0));
    } else if falling && low < 0.0 {
        low = 0.0;
    }
    ((low, high.max(low + 1e-6)), cut)
}

fn interpolated(curve: &[At], x: f64) -> Option<f64> {
    let known: Vec<&At> = curve.iter().filter(|a| a.mean.is_finite()).collect();
    let after = known.iter().position(|a| a.x >= x);
    match after {
        None => known.last().map(|a| a.mean),
        Some(0) => known.first().map(|a| a.mean),
        Some(i) => {
            let (a, b) = (known[i - 1], known[i]);
            Some(a.mean + (b.mean - a.mean) * (x - a.x) / (b.x - a.x))
        }
    }
}

struct CurvePanel {
    title: &'static str,
    label: String,
    split: Split,
    metric: Metric,
    structure: &'static str,
}

fn panels(task: Task) -> Vec<CurvePanel> {
    let mut panels = Vec::new();
    if let Some((metric, _)) = task.selection() {
        let structures: &[&'static str] = match task {
            Task::Segmentation => {
                &const {
                    [
                        Structure::MEAN,
                        Structure::Endo.as_str(),
                        Structure::Myo.as_str(),
                        Structure::La.as_str(),
                    ]
                }
            }
            _ => &[""],
        };
        panels.extend(structures.iter().map(|&structure| CurvePanel {
            title: match structure {
                "" => metric.label(),
                Structure::MEAN => "Mean of structures",
                structure => Structure::label_of(structure),
            },
            label: format!("{} (validation)", metric.label()),
            split: Split::Val,
            metric,
            structure,
        }));
    }
    for (split, title, words) in
        [(Split::Train, "Training loss", "training"), (Split::Val, "Validation loss", "validation")]
    {
        let label = format!("{} ({words})", Metric::Loss.label());
        panels.push(CurvePanel { title, label, split, metric: Metric::Loss, structure: "" });
    }
    panels
}

/// None where the task and model have no curves.
pub(crate) fn figure(input: &ReportInput, of: &TaskModel<'_>, axis: Axis) -> Option<Figure> {
    let curves: Vec<&CurvePoint> =
        input.curves.iter().filter(|p| p.task == of.task && p.model == of.model).collect();
    let present = |panel: &CurvePanel| {
        curves
            .iter()
            .any(|p| p.split == panel.split && p.metric == panel.metric && p.structure == panel.structure)
    };
    let panels: Vec<CurvePanel> = panels(of.task).into_iter().filter(|panel| present(panel)).collect();
    if panels.is_empty() {
        return None;
    }
    let arms: Vec<(usize, &str)> = of
        .arms
        .iter()
        .enumerate()
        .filter(|(_, arm)| curves.iter().any(|p| p.arm == **arm))
        .map(|(i, arm)| (i, arm.as_str()))
        .collect();
    let across = panels.len().min(3);
    let places = columns(DOUBLE, across, 42.0);
    let names: Vec<_> = arms.iter().map(|(i, arm)| ((*arm).to_owned(), look(*i))).collect();
    let head = legend(None, (0.0, 0.0), DOUBLE - 46.0, &names, Key::Line) + 22.0;
    let (high, step) = (118.0, 118.0 + 54.0);
    let rows = panels.len().div_ceil(across);
    let mut scene = Scene::new(DOUBLE, head + rows as f64 * step - 18.0);
    legend(Some(&mut scene), (42.0, 3.0), DOUBLE - 46.0, &names, Key::Line);

    let last =
        curves.iter().map(|p| if axis == Axis::Steps { p.step as f64 } else { p.epoch }).fold(1.0, f64::max);
    let mut any_cut = false;
    for (i, panel) in panels.iter().enumerate() {
        let of_arm = |arm: &str| -> Vec<At> {
            let points: Vec<&CurvePoint> = curves
                .iter()
                .copied()
                .filter(|p| {
                    p.arm == arm
                        && p.split == panel.split
                        && p.metric == panel.metric
                        && p.structure == panel.structure
                })
                .collect();
            over_seeds(&points, axis)
        };
        let series: Vec<(usize, &str, Vec<At>)> =
            arms.iter().map(|(i, arm)| (*i, *arm, of_arm(arm))).collect();
        let all: Vec<Vec<At>> = series.iter().map(|s| s.2.clone()).collect();
        let falling = panel.metric == Metric::Loss;
        let (y, cut) = y_range(&all, falling, !falling);
        any_cut |= cut;
        let (left, width) = places[i % across];
        let top = head + (i / across) as f64 * step;
        let frame = Frame { left, top, width, height: high, x: (0.0, last * 1.02), y };
        frame.draw_y(&mut scene, &panel.label);
        frame.draw_x(&mut scene, if axis == Axis::Steps { "Optimizer step" } else { "Epoch" });
        frame.title(&mut scene, panel.title);
        for (i, _, curve) in &series {
            let band: Vec<(f64, f64, f64)> = curve.iter().map(|a| (a.x, a.low, a.high)).collect();
            frame.band(&mut scene, &band, look(*i).color);
        }
        for (i, _, curve) in &series {
            let line: Vec<Point> = curve.iter().filter(|a| !a.mean.is_nan()).map(|a| (a.x, a.mean)).collect();
            frame.curve(&mut scene, &line, look(*i), 1.2);
        }
        if panel.split == Split::Val {
            for (i, arm, curve) in &series {
                let Some(x) = chosen(input, of, arm, axis) else { continue };
                let Some(y) = interpolated(curve, x) else { continue };
                let at = (frame.at_x(x), frame.at_y(y));
                if (frame.top..=frame.bottom()).contains(&at.1) {
                    look(*i).draw_marker(&mut scene, at, 2.8);
                }
            }
        }
    }
    let seeds = of.seed_counts(input);
    let over = if axis == Axis::Steps { "optimizer steps" } else { "epochs" };
    let select = input.models.iter().find(|m| m.cell.task == of.task && m.cell.model == of.model);
    let mut caption = format!(
        "{} over {over}. Line: mean over seeds ({seeds}); band: from the lowest to the highest seed.",
        if of.task == Task::Segmentation {
            "Dice on the validation patients, and losses,"
        } else {
            "Accuracy on the validation patients, and losses,"
        }
    );
    if let Some(model) = select {
        caption += &format!(
            " Marker: where the tested checkpoints were chosen (mean over seeds; by {} on the validation patients).",
            model.selection_label()
        );
    }
    if axis == Axis::Epochs {
        caption += " An epoch of a larger arm has more steps: compare arms over steps.";
    }
    if any_cut {
        caption += " Vertical axes are cut: the first epochs lie outside.";
    }
    let end = if axis == Axis::Steps { "steps" } else { "epochs" };
    Some(Figure {
        name: of.file(&format!("convergence_{end}")),
        title: of.title(&format!("convergence over {over}")),
        caption,
        scene,
        narrow: None,
    })
}

/// The mean over seeds of the step (or epoch) of the chosen checkpoints.
fn chosen(input: &ReportInput, of: &TaskModel<'_>, arm: &str, axis: Axis) -> Option<f64> {
    let best: Vec<f64> = input
        .models
        .iter()
        .filter(|m| m.cell.task == of.task && m.cell.model == of.model && m.cell.arm == arm)
        .map(|m| if axis == Axis::Steps { m.summary.best_step as f64 } else { m.summary.best_epoch })
        .collect();
    let mean = stats::mean(&best);
    mean.is_finite().then_some(mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(step: u64, seed: u64, value: f64) -> CurvePoint {
        CurvePoint { step, epoch: step.div_ceil(10) as f64, seed: Some(seed), value, ..Default::default() }
    }

    #[test]
    fn mean_and_range_over_seeds_leave_nan_out() {
        let points = [point(10, 0, 0.2), point(10, 1, 0.4), point(20, 0, f64::NAN), point(20, 1, 0.6)];
        let points: Vec<&CurvePoint> = points.iter().collect();
        let curve = over_seeds(&points, Axis::Steps);
        assert!((curve[0].mean - 0.3).abs() < 1e-12);
        assert_eq!((curve[0].low, curve[0].high), (0.2, 0.4));
        assert_eq!((curve[1].mean, curve[1].low, curve[1].high), (0.6, 0.6, 0.6));
        assert_eq!(interpolated(&curve, 15.0).map(|v| (v * 1e6).round()), Some(450_000.0));
        assert_eq!(interpolated(&curve, 99.0), Some(0.6));
        assert_eq!(interpolated(&[], 1.0), None);
    }

    #[test]
    fn several_values_of_one_epoch_are_one_value_of_its_seed() {
        let points = [point(1, 0, 1.0), point(2, 0, 3.0), point(2, 1, 4.0)];
        let points: Vec<&CurvePoint> = points.iter().collect();
        let curve = over_seeds(&points, Axis::Epochs);
        assert_eq!((curve.len(), curve[0].mean, curve[0].low), (1, 3.0, 2.0));
        let many: Vec<CurvePoint> = (0..5000).map(|i| point(i, 0, 1.0)).collect();
        assert!(over_seeds(&many.iter().collect::<Vec<_>>(), Axis::Steps).len() <= MOST_POINTS);
    }

    #[test]
    fn the_axis_is_cut_only_where_the_start_would_take_half() {
        let curve = |values: &[f64]| {
            vec![values.iter().map(|&v| At { x: 0.0, mean: v, low: v, high: v }).collect::<Vec<_>>()]
        };
        let plateau: Vec<f64> =
            std::iter::once(0.1).chain((0..20).map(|i| 0.85 + 0.002 * f64::from(i))).collect();
        let ((low, high), cut) = y_range(&curve(&plateau), false, true);
        assert!(cut && low > 0.8 && high < 0.9);
        let ((low, _), cut) = y_range(&curve(&[0.1, 0.3, 0.5, 0.7, 0.9]), false, true);
        assert!(!cut && low < 0.1);
        assert_eq!(y_range(&curve(&[f64::NAN]), false, true), ((0.0, 1.0), false));
        let ((low, high), _) = y_range(&curve(&[1.0, 1.0]), false, true);
        assert!(low < 1.0 && high >= 1.0);
    }
}
