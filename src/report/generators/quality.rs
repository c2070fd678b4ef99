//! What the images of a generator were worth while it was trained: one panel per measure, one line per generator.

use super::{Figure, ReportInput, ReportedGenerator, span};
use crate::{
    report::{
        axes::{Frame, Key, Look, MOST_SERIES, columns, legend, looks, reading},
        convergence::{At, Axis, over_seeds, y_range},
        scene::{DOUBLE, Point, Scene},
    },
    results::CurvePoint,
    vocabulary::{GeneratorCheckpoint, Metric, Split, Task},
};

const PANEL_HEIGHT: f64 = 118.0;

/// None where nothing was measured on the way.
pub(super) fn figure(input: &ReportInput) -> Option<Figure> {
    let curve = |generator: &ReportedGenerator, metric: Metric| -> Vec<At> {
        let of = |p: &&CurvePoint| {
            p.task == Task::Generation
                && p.arm == generator.name
                && p.split == Split::Val
                && p.metric == metric
        };
        let mut points: Vec<At> =
            over_seeds(&input.curves.iter().filter(of).collect::<Vec<_>>(), Axis::Steps);
        for at in &mut points {
            [&mut at.mean, &mut at.low, &mut at.high].into_iter().for_each(|value| *value *= metric.scale());
        }
        points
    };
    let metrics: Vec<Metric> = GeneratorCheckpoint::ALL
        .into_iter()
        .filter_map(GeneratorCheckpoint::metric)
        .filter(|metric| input.generators.iter().any(|g| !curve(g, *metric).is_empty()))
        .collect();
    let generators: Vec<&ReportedGenerator> = input
        .generators
        .iter()
        .filter(|g| metrics.iter().any(|metric| !curve(g, *metric).is_empty()))
        .collect();
    if generators.is_empty() {
        return None;
    }
    let groups = generators.chunks(MOST_SERIES).map(|group| {
        let looks = looks(&(0..group.len()).collect::<Vec<_>>());
        let names: Vec<(String, Look)> = group.iter().map(|g| g.name.clone()).zip(looks).collect();
        let head = legend(None, (0.0, 0.0), DOUBLE - 46.0, &names, Key::Line) + 22.0;
        (group, names, head)
    });
    let groups: Vec<_> = groups.collect();
    let places = columns(DOUBLE, metrics.len().max(2), 48.0);
    let height: f64 = groups.iter().map(|(.., head)| head + PANEL_HEIGHT + 54.0).sum();
    let mut scene = Scene::new(DOUBLE, height - 18.0);
    let (mut top, mut is_cut) = (0.0, false);
    for (group, names, head) in &groups {
        legend(Some(&mut scene), (42.0, top + 3.0), DOUBLE - 46.0, names, Key::Line);
        for (metric, (left, width)) in metrics.iter().zip(&places) {
            let curves: Vec<Vec<At>> = group.iter().map(|g| curve(g, *metric)).collect();
            let (y, cut) = y_range(&curves, !metric.higher_is_better(), metric.higher_is_better());
            is_cut |= cut;
            let last = curves.iter().flatten().map(|at| at.x).fold(1.0, f64::max);
            let frame = Frame {
                left: *left,
                top: top + head,
                width: *width,
                height: PANEL_HEIGHT,
                x: (0.0, last * 1.04),
                y,
            };
            frame.draw_y(&mut scene, &format!("{}{}", label(*metric), reading(metric.direction())));
            frame.draw_x(&mut scene, "Optimizer step");
            for ((generator, curve), (_, look)) in group.iter().zip(&curves).zip(names) {
                let line: Vec<Point> =
                    curve.iter().filter(|at| !at.mean.is_nan()).map(|at| (at.x, at.mean)).collect();
                frame.curve(&mut scene, &line, *look, 1.2);
                let chosen = generator.summary.as_ref().and_then(|summary| summary.best_step);
                let point = line.iter().find(|point| Some(point.0 as u64) == chosen);
                if let Some(point) = point.filter(|point| (y.0..=y.1).contains(&point.1)) {
                    look.draw_marker(&mut scene, (frame.at_x(point.0), frame.at_y(point.1)), 2.8);
                }
            }
        }
        top += head + PANEL_HEIGHT + 54.0;
    }
    let n = span(generators.iter().filter_map(|g| g.summary.as_ref()?.quality_images));
    let mut caption = format!(
        "Measured on {n} images at a time, made with the averaged weights of the step and the same noise at every point. KID: distance from the training images, in features of a network trained on them; 0 means equal. Right view, and Dice with the control masks: what networks trained on real images see. So few images show a trend, not a level: the tables above use all images."
    );
    if generators.iter().any(|g| g.summary.as_ref().is_some_and(|summary| summary.best_step.is_some())) {
        caption += " Marker: the weights that were chosen.";
    }
    if is_cut {
        caption += " Vertical axes are cut: the first steps lie outside.";
    }
    Some(Figure {
        name: "generators_quality".to_owned(),
        title: "Generators: quality over optimizer steps".to_owned(),
        caption,
        scene,
        narrow: None,
        head: None,
    })
}

fn label(metric: Metric) -> &'static str {
    if metric == Metric::Dice { "Dice with the mask" } else { metric.label() }
}
