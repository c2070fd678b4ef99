//! Training and validation loss over steps, one panel per generator. What a generator predicts, and in which space,
//! decides the height of its loss, so two generators have no common axis.

use super::{Figure, ReportInput, ReportedGenerator, span};
use crate::{
    report::{
        axes::{Frame, NAMED, NORMAL, columns, reading, title_height},
        convergence::{At, Axis, over_seeds, y_range},
        scene::{Anchor, DOUBLE, INK, Point, Scene, text_width},
    },
    results::CurvePoint,
    vocabulary::{Metric, Split, Task},
};

/// How the two splits are drawn.
const SPLITS: [(Split, &str, &[f64]); 2] =
    [(Split::Train, "Training", &[1.5, 1.5]), (Split::Val, "Validation", &[])];
/// A curve of no more points than this shows them.
const MOST_MARKED: usize = 40;

/// None where no generator was trained.
pub(super) fn figure(input: &ReportInput) -> Option<Figure> {
    let curve = |g: &ReportedGenerator, split: Split| -> Vec<At> {
        let points: Vec<&CurvePoint> = input
            .curves
            .iter()
            .filter(|p| {
                p.task == Task::Generation && p.arm == g.name && p.split == split && p.metric == Metric::Loss
            })
            .collect();
        over_seeds(&points, Axis::Steps)
    };
    let panels: Vec<(&ReportedGenerator, [Vec<At>; 2])> = input
        .generators
        .iter()
        .map(|g| (g, SPLITS.map(|(split, ..)| curve(g, split))))
        .filter(|(_, curves)| curves.iter().any(|curve| !curve.is_empty()))
        .collect();
    if panels.is_empty() {
        return None;
    }
    let across = panels.len().min(3);
    let places = columns(DOUBLE, across.max(2), 48.0);
    let titles = title_height(panels.iter().map(|(g, _)| g.name.as_str()), places[0].1);
    let (head, high, step) = (34.0 + titles, 118.0, 118.0 + titles + 54.0);
    let rows = panels.len().div_ceil(across);
    let mut scene = Scene::new(DOUBLE, head + rows as f64 * step - 18.0);
    let n = span(panels.iter().filter_map(|(g, _)| Some(g.summary.as_ref()?.val_images)));
    let mut x = places[0].0;
    for (split, name, dash) in SPLITS {
        let x0 = x;
        scene.line(vec![(x0, 9.0), (x0 + 22.0, 9.0)], INK, width(split), dash);
        if split == Split::Val {
            scene.circle((x0 + 11.0, 9.0), 1.8, INK);
        }
        let name = if split == Split::Val { format!("{name} (n = {n} images)") } else { name.to_owned() };
        x += 26.0 + text_width(&name, NORMAL, false) + 16.0;
        scene.text((x0 + 26.0, 9.0 + 0.36 * NORMAL), name, NORMAL, Anchor::Start);
    }
    let mut any_cut = false;
    for (place, (generator, curves)) in panels.iter().enumerate() {
        let (left, wide) = places[place % across];
        let top = head + (place / across) as f64 * step;
        let (y, cut) = y_range(curves, true, false);
        any_cut |= cut;
        let last = curves.iter().flatten().map(|a| a.x).fold(1.0, f64::max);
        let frame = Frame { left, top, width: wide, height: high, x: (0.0, last * 1.02), y };
        let label = format!("Loss (mean square error){}", reading(Metric::Loss.direction()));
        frame.draw_y(&mut scene, if place % across == 0 { &label } else { "" });
        frame.draw_x(&mut scene, "Optimizer step");
        frame.title(&mut scene, &generator.name);
        for ((split, _, dash), curve) in SPLITS.into_iter().zip(curves) {
            let look = NAMED.dashed(dash);
            let line: Vec<Point> = curve.iter().map(|a| (a.x, a.mean)).collect();
            frame.curve(&mut scene, &line, look, width(split));
            if split == Split::Val && line.len() <= MOST_MARKED {
                let seen = line.iter().filter(|p| (y.0..=y.1).contains(&p.1));
                seen.for_each(|p| scene.circle((frame.at_x(p.0), frame.at_y(p.1)), 1.8, look.color));
            }
        }
    }
    let mut caption = format!(
        "Mean square error of what the network predicts (noise or velocity). Training: mean over the steps since the previous point, with the weights in training. Validation: the averaged weights, on {n} images of validation patients with the same noise at every point. Compare the losses of two generators only if they have the same prediction, noise schedule and image space."
    );
    if panels.iter().any(|(g, _)| g.own_models) {
        caption += " Where each class has a model of its own: the mean over classes.";
    }
    if any_cut {
        caption += " Vertical axes are cut: the first steps lie outside.";
    }
    Some(Figure {
        name: "generators_loss".to_owned(),
        title: "Generators: loss over optimizer steps".to_owned(),
        caption,
        scene,
        narrow: None,
        head: None,
    })
}

fn width(split: Split) -> f64 {
    if split == Split::Val { 1.3 } else { 0.9 }
}
