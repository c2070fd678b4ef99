//! Training curves over optimizer steps and over epochs.

use std::collections::BTreeMap;

use super::{
    Figure, ReportInput, TaskModel,
    axes::{Frame, Key, Look, MOST_SERIES, columns, legend, looks, reading, title_height},
    scene::{DOUBLE, Point, Scene},
};
use crate::{
    aggregate::stats,
    results::CurvePoint,
    vocabulary::{Direction, Metric, Split, Structure, Task},
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

/// A panel has no room for more points; neighbours are averaged.
const MOST_POINTS: usize = 100;

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
            label: format!("{} (validation){}", metric.label(), reading(metric.direction())),
            split: Split::Val,
            metric,
            structure,
        }));
    }
    for (split, title, words) in
        [(Split::Train, "Training loss", "training"), (Split::Val, "Validation loss", "validation")]
    {
        let label = format!("{} ({words}){}", Metric::Loss.label(), reading(Metric::Loss.direction()));
        panels.push(CurvePanel { title, label, split, metric: Metric::Loss, structure: "" });
    }
    panels
}

impl CurvePanel {
    fn has(&self, point: &CurvePoint) -> bool {
        point.split == self.split && point.metric == self.metric && point.structure == self.structure
    }

    fn is_loss(&self) -> bool {
        self.metric == Metric::Loss
    }
}

/// None where the task and model have no curves.
pub(crate) fn figure(input: &ReportInput, of: &TaskModel<'_>, axis: Axis) -> Option<Figure> {
    let points: Vec<&CurvePoint> =
        input.curves.iter().filter(|p| p.task == of.task && p.model == of.model).collect();
    let panels: Vec<CurvePanel> =
        panels(of.task).into_iter().filter(|panel| points.iter().any(|p| panel.has(p))).collect();
    let arms: Vec<(usize, &str)> = of
        .arms
        .iter()
        .enumerate()
        .filter(|(_, arm)| points.iter().any(|p| p.arm == **arm))
        .map(|(i, arm)| (i, arm.as_str()))
        .collect();
    if panels.is_empty() {
        return None;
    }
    let is_by_arm = arms.len() > MOST_SERIES;
    let chosen = arms.iter().map(|(_, arm)| chosen(input, of, arm, axis)).collect();
    let plot = ConvergencePlot { panels, arms, chosen, points, axis };
    let (scene, is_cut) = if is_by_arm { plot.by_arm() } else { plot.by_measure() };
    let seeds = of.seed_counts(input);
    let over = if axis == Axis::Steps { "optimizer steps" } else { "epochs" };
    let score = if of.task == Task::Segmentation { "Dice" } else { "Accuracy" };
    let mut caption = format!("{score} on the validation patients, and losses, over {over}. ");
    caption += &match is_by_arm {
        true => format!("One panel per arm. Line: mean over seeds ({seeds})."),
        false => format!("Line: mean over seeds ({seeds}); band: from the lowest to the highest seed."),
    };
    let select = input.models.iter().find(|m| m.cell.task == of.task && m.cell.model == of.model);
    if let Some(model) = select {
        caption += &format!(
            " Marker: where the tested checkpoints were chosen (mean over seeds; by {} on the validation patients).",
            model.selection_label()
        );
    }
    if axis == Axis::Epochs {
        caption += " An epoch of a larger arm has more steps: compare arms over steps.";
    }
    if is_cut {
        caption += " Vertical axes are cut: the first epochs lie outside.";
    }
    let end = if axis == Axis::Steps { "steps" } else { "epochs" };
    Some(Figure {
        name: of.file(&format!("convergence_{end}")),
        title: of.title(&format!("convergence over {over}")),
        caption,
        scene,
        narrow: None,
        head: None,
    })
}

struct ConvergencePlot<'a> {
    panels: Vec<CurvePanel>,
    /// Places in the report, and names.
    arms: Vec<(usize, &'a str)>,
    /// Where each arm's checkpoints were chosen.
    chosen: Vec<Option<f64>>,
    points: Vec<&'a CurvePoint>,
    axis: Axis,
}

impl ConvergencePlot<'_> {
    fn curve(&self, panel: &CurvePanel, arm: &str) -> Vec<At> {
        let points: Vec<&CurvePoint> =
            self.points.iter().copied().filter(|p| p.arm == arm && panel.has(p)).collect();
        over_seeds(&points, self.axis)
    }

    /// The range and the label of the horizontal axis.
    fn x(&self) -> ((f64, f64), &'static str) {
        let x = |p: &&CurvePoint| if self.axis == Axis::Steps { p.step as f64 } else { p.epoch };
        let last = self.points.iter().map(x).fold(1.0, f64::max);
        ((0.0, last * 1.02), if self.axis == Axis::Steps { "Optimizer step" } else { "Epoch" })
    }

    fn draw_line(&self, scene: &mut Scene, frame: &Frame, curve: &[At], look: Look) {
        let line: Vec<Point> = curve.iter().filter(|a| !a.mean.is_nan()).map(|a| (a.x, a.mean)).collect();
        frame.curve(scene, &line, look, 1.2);
    }

    fn draw_chosen(&self, scene: &mut Scene, frame: &Frame, curve: &[At], arm: usize, look: Look) {
        let Some(x) = self.chosen[arm] else { return };
        let Some(y) = interpolated(curve, x) else { return };
        let at = (frame.at_x(x), frame.at_y(y));
        if (frame.top..=frame.bottom()).contains(&at.1) {
            look.draw_marker(scene, at, 2.8);
        }
    }

    /// A panel per measure, a line per arm; and whether axes are cut.
    fn by_measure(&self) -> (Scene, bool) {
        let looks = looks(&self.arms.iter().map(|arm| arm.0).collect::<Vec<_>>());
        let names: Vec<_> =
            self.arms.iter().zip(&looks).map(|(arm, look)| (arm.1.to_owned(), *look)).collect();
        let across = self.panels.len().min(3);
        let places = columns(DOUBLE, across, 48.0);
        let head = legend(None, (0.0, 0.0), DOUBLE - 46.0, &names, Key::Line) + 22.0;
        let (high, step) = (118.0, 118.0 + 54.0);
        let rows = self.panels.len().div_ceil(across);
        let mut scene = Scene::new(DOUBLE, head + rows as f64 * step - 18.0);
        legend(Some(&mut scene), (42.0, 3.0), DOUBLE - 46.0, &names, Key::Line);
        let ((first, last), label) = self.x();
        let mut is_cut = false;
        for (i, panel) in self.panels.iter().enumerate() {
            let curves: Vec<Vec<At>> = self.arms.iter().map(|arm| self.curve(panel, arm.1)).collect();
            let (y, cut) = y_range(&curves, panel.is_loss(), !panel.is_loss());
            is_cut |= cut;
            let (left, width) = places[i % across];
            let top = head + (i / across) as f64 * step;
            let frame = Frame { left, top, width, height: high, x: (first, last), y };
            frame.draw_y(&mut scene, &panel.label);
            frame.draw_x(&mut scene, label);
            frame.title(&mut scene, panel.title);
            for (curve, look) in curves.iter().zip(&looks) {
                let band: Vec<(f64, f64, f64)> = curve.iter().map(|a| (a.x, a.low, a.high)).collect();
                frame.band(&mut scene, &band, look.color);
            }
            for (curve, look) in curves.iter().zip(&looks) {
                self.draw_line(&mut scene, &frame, curve, *look);
            }
            if panel.split == Split::Val {
                for (arm, (curve, look)) in curves.iter().zip(&looks).enumerate() {
                    self.draw_chosen(&mut scene, &frame, curve, arm, *look);
                }
            }
        }
        (scene, is_cut)
    }

    /// A panel per arm, a line per measure: first the scores, then the losses; and whether axes are cut.
    fn by_arm(&self) -> (Scene, bool) {
        const ACROSS: usize = 4;
        let looks = looks(&(0..self.panels.len()).collect::<Vec<_>>());
        let series: Vec<(&CurvePanel, Look)> = self.panels.iter().zip(looks).collect();
        let names: Vec<(String, Look)> =
            series.iter().map(|(panel, look)| (panel.title.to_owned(), *look)).collect();
        let places = columns(DOUBLE, ACROSS, 40.0);
        let width = places[0].1;
        let titles = title_height(self.arms.iter().map(|arm| arm.1), width);
        let (high, step) = (74.0, 74.0 + titles + 32.0);
        let blocks: Vec<Vec<&(&CurvePanel, Look)>> = [false, true]
            .map(|is_loss| series.iter().filter(|s| s.0.is_loss() == is_loss).collect::<Vec<_>>())
            .into_iter()
            .filter(|block| !block.is_empty())
            .collect();
        let rows = self.arms.len().div_ceil(ACROSS);
        let head = legend(None, (0.0, 0.0), DOUBLE - 46.0, &names, Key::Line) + 10.0;
        let block_height = rows as f64 * step + 22.0;
        let mut scene = Scene::new(DOUBLE, head + blocks.len() as f64 * block_height);
        legend(Some(&mut scene), (40.0, 3.0), DOUBLE - 46.0, &names, Key::Line);
        let ((first, last), label) = self.x();
        let mut is_cut = false;
        for (b, block) in blocks.iter().enumerate() {
            let curves = |arm: &str| block.iter().map(|s| self.curve(s.0, arm)).collect::<Vec<_>>();
            let all: Vec<Vec<At>> = self.arms.iter().flat_map(|arm| curves(arm.1)).collect();
            let falling = block[0].0.is_loss();
            let (y, cut) = y_range(&all, falling, !falling);
            is_cut |= cut;
            let up = if falling { Direction::Lower } else { Direction::Higher };
            let y_label = format!("{}{}", block[0].0.metric.label(), reading(up));
            for (i, (_, arm)) in self.arms.iter().enumerate() {
                let top = head + b as f64 * block_height + (i / ACROSS) as f64 * step + titles + 12.0;
                let (left, width) = places[i % ACROSS];
                let frame = Frame { left, top, width, height: high, x: (first, last), y };
                frame.draw_y(&mut scene, if i % ACROSS == 0 { &y_label } else { "" });
                frame.draw_x(&mut scene, if i + ACROSS >= self.arms.len() { label } else { "" });
                frame.title(&mut scene, arm);
                for (s, curve) in block.iter().zip(curves(arm)) {
                    self.draw_line(&mut scene, &frame, &curve, s.1);
                    if s.0.split == Split::Val {
                        self.draw_chosen(&mut scene, &frame, &curve, i, s.1);
                    }
                }
            }
        }
        (scene, is_cut)
    }
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
