//! Convergence arm by arm: one panel per arm, with its baseline in grey behind.

use super::{
    Figure, ReportInput, TaskModel,
    axes::{BEHIND, Frame, Key, LEVEL, NAMED, SMALL, columns, legend, reading, title_height},
    comparisons::{converged, is_main_curve},
    convergence::{At, Axis, over_seeds, y_range},
    scene::{Anchor, DOUBLE, MUTED, Point, SINGLE, Scene, Text, WHITE},
};
use crate::{
    aggregate::{
        comparison::baseline_of,
        convergence::{SHARE, Speed},
    },
    results::CurvePoint,
    vocabulary::{Direction, Task},
};

struct ArmPanel {
    arm: String,
    curve: Vec<At>,
    behind: Vec<At>,
    baseline: String,
    /// Of the arm and of its baseline, to the same target.
    speeds: [Speed; 2],
}

/// None where no arm has a baseline.
pub(super) fn figure(input: &ReportInput, of: &TaskModel<'_>) -> Option<Figure> {
    let arms = &input.meta.arms;
    let converged = converged(input, of.task);
    let curve = |arm: &str| {
        let points: Vec<&CurvePoint> = input
            .curves
            .iter()
            .filter(|p| is_main_curve(p, of.task) && p.model == of.model && p.arm == arm)
            .collect();
        over_seeds(&points, Axis::Steps)
    };
    let panels: Vec<ArmPanel> = of
        .arms
        .iter()
        .filter_map(|name| {
            let arm = arms.iter().find(|arm| arm.name == *name)?;
            let baseline = &baseline_of(arms, arm)?.name;
            let speed = |name: &String| {
                let of_model = converged.iter().find(|c| c.arm == *name && c.model == of.model);
                of_model.map(|c| c.common.1)
            };
            Some(ArmPanel {
                arm: name.clone(),
                curve: curve(name),
                behind: curve(baseline),
                baseline: baseline.clone(),
                speeds: [speed(name)?, speed(baseline)?],
            })
        })
        .collect();
    if panels.is_empty() {
        return None;
    }
    let name = if of.task == Task::Segmentation { "Mean Dice" } else { "Accuracy" };
    let label = format!("{name} (validation){}", reading(Direction::Higher));
    let n = of.seed_counts(input);
    let (scene, cut) = draw(&panels, &label, &n, DOUBLE);
    let percent = SHARE * 100.0;
    let baselines = super::distinct(panels.iter().map(|p| p.baseline.as_str())).join(", ");
    let mut caption = format!(
        "{name} on the validation patients over optimizer steps, one panel per arm; grey: its baseline ({baselines}). Line: mean over seeds ({}); band: from the lowest to the highest seed. Dashed: {percent:.0} % of the baseline's final score; marker on it: where the arm reaches it (mean over seeds, only where all of them get there); grey marker: where the baseline does.",
        n,
    );
    if cut {
        caption += " The vertical axes are cut: the first epochs lie outside.";
    }
    Some(Figure {
        name: of.file("convergence_arms"),
        title: of.title("convergence arm by arm"),
        caption,
        scene,
        narrow: Some(draw(&panels, &label, &n, SINGLE).0),
        head: None,
    })
}

/// The same axes in every panel; and whether they are cut.
fn draw(panels: &[ArmPanel], label: &str, n: &str, page: f64) -> (Scene, bool) {
    let across = if page < DOUBLE { 2 } else { 3 };
    let (gap, side) = if page < DOUBLE { (42.0, 72.0) } else { (44.0, 100.0) };
    let places = columns(page, across, gap);
    let titles = title_height(panels.iter().map(|p| p.arm.as_str()), places[0].1);
    let names = [
        (
            format!("baseline ({})", super::distinct(panels.iter().map(|p| p.baseline.as_str())).join(", ")),
            BEHIND,
        ),
        (format!("{:.0} % of its final score", SHARE * 100.0), LEVEL),
    ];
    let head = legend(None, (0.0, 0.0), page - gap - 4.0, &names, Key::Line) + 30.0;
    let step = side + titles + 40.0;
    let mut scene = Scene::new(page, head + panels.len().div_ceil(across) as f64 * step);
    legend(Some(&mut scene), (gap, 3.0), page - gap - 4.0, &names, Key::Line);
    scene.add(Text::new((page - 8.0, head - 17.0), n, SMALL, Anchor::End).color(MUTED));
    let all: Vec<Vec<At>> = panels.iter().flat_map(|p| [p.curve.clone(), p.behind.clone()]).collect();
    let (y, cut) = y_range(&all, false, true);
    let last = all.iter().flatten().map(|a| a.x).fold(1.0, f64::max);
    for (i, (panel, (left, width))) in panels.iter().zip(places.into_iter().cycle()).enumerate() {
        let top = head + titles + (i / across) as f64 * step;
        let frame = Frame { left, top, width, height: side, x: (0.0, last * 1.02), y };
        frame.draw_y(&mut scene, if i % across == 0 { label } else { "" });
        frame.draw_x(&mut scene, if i + across >= panels.len() { "Optimizer step" } else { "" });
        frame.title(&mut scene, &panel.arm);
        let target = panel.speeds[0].target;
        frame.curve(&mut scene, &[(0.0, target), (frame.x.1, target)], LEVEL, 0.7);
        for (curve, look) in [(&panel.behind, BEHIND), (&panel.curve, NAMED)] {
            let band: Vec<(f64, f64, f64)> = curve.iter().map(|a| (a.x, a.low, a.high)).collect();
            frame.band(&mut scene, &band, look.color);
            let line: Vec<Point> = curve.iter().filter(|a| !a.mean.is_nan()).map(|a| (a.x, a.mean)).collect();
            frame.curve(&mut scene, &line, look, 1.2);
        }
        let there = |speed: &Speed| {
            let seen = speed.reached == speed.seeds && (y.0..=y.1).contains(&target);
            seen.then(|| (frame.at_x(speed.steps.mean), frame.at_y(target)))
        };
        let [own, baseline] = &panel.speeds;
        if let Some(at) = there(baseline) {
            scene.circle(at, 3.1, WHITE);
            scene.circle(at, 2.3, BEHIND.color);
        }
        if let Some(at) = there(own) {
            NAMED.draw_marker(&mut scene, at, 2.6);
        }
    }
    (scene, cut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fake;

    #[test]
    fn a_panel_for_each_arm_that_has_a_baseline() {
        let mut input = fake::input(&fake::FakeShape { arms: 4, patients: 2, ..Default::default() });
        let arms: Vec<String> = input.meta.arms.iter().map(|arm| arm.name.clone()).collect();
        let of = TaskModel { task: Task::Segmentation, model: "monai-unet", several: false, arms: &arms };
        let drawn = figure(&input, &of).unwrap();
        let text = format!("{:?}", drawn.scene.shapes);
        assert!(text.contains("\"baseline (real)\"") && text.contains("\"duplicate-real 100 %\""), "{text}");
        assert!(!text.contains("\"real 25 %\"") && text.contains("\"n = 3 seeds\""), "{text}");
        input.meta.arms.retain(|arm| arm.is_real_only());
        assert!(figure(&input, &of).is_none());
    }
}
