//! Box plots per structure, arms side by side.

use std::collections::BTreeMap;

use super::{
    Figure, ReportInput, TaskModel,
    axes::{Frame, Key, NORMAL, SMALL, legend, look, note, outline},
    scene::{Anchor, DOUBLE, INK, Scene, Text},
};
use crate::{
    aggregate::{BoxStats, box_stats, is_image, stats},
    results::Measurement,
    vocabulary::{Metric, Structure},
};

/// One value per image: the mean over its seeds that are defined.
fn per_image(rows: &[&Measurement]) -> Vec<f64> {
    let mut images: BTreeMap<(&str, &str, &str), Vec<f64>> = BTreeMap::new();
    for row in rows {
        images.entry((&row.patient, &row.view, &row.phase)).or_default().push(row.value);
    }
    images.values().map(|values| stats::mean(values)).collect()
}

/// None where no image of the reported split has the metric.
pub(crate) fn figure(
    input: &ReportInput,
    rows: &[Measurement],
    of: &TaskModel<'_>,
    metric: Metric,
) -> Option<Figure> {
    let split = crate::aggregate::reported_split(rows, of.task)?;
    let rows: Vec<&Measurement> = rows
        .iter()
        .filter(|r| {
            r.task == of.task && r.model == of.model && r.split == split && r.metric == metric && is_image(r)
        })
        .collect();
    let arms: Vec<(usize, &String)> =
        of.arms.iter().enumerate().filter(|(_, arm)| rows.iter().any(|r| r.arm == **arm)).collect();
    let structures: Vec<&str> = Structure::ALL
        .map(Structure::as_str)
        .into_iter()
        .filter(|s| rows.iter().any(|r| r.structure == *s))
        .collect();
    if structures.is_empty() || arms.is_empty() {
        return None;
    }
    let boxes: Vec<Vec<Option<BoxStats>>> = structures
        .iter()
        .map(|s| {
            arms.iter()
                .map(|(_, arm)| {
                    let rows: Vec<&Measurement> =
                        rows.iter().copied().filter(|r| r.structure == *s && r.arm == **arm).collect();
                    box_stats(&per_image(&rows))
                })
                .collect()
        })
        .collect();
    let names: Vec<_> = arms.iter().map(|(i, arm)| ((*arm).clone(), look(*i))).collect();
    let head = legend(None, (0.0, 0.0), DOUBLE - 50.0, &names, Key::Box) + 12.0;
    let mut scene = Scene::new(DOUBLE, head + 190.0 + 34.0);
    legend(Some(&mut scene), (46.0, 3.0), DOUBLE - 50.0, &names, Key::Box);

    let all = || boxes.iter().flatten().flatten();
    let lows = all().map(|b| b.outliers.first().copied().unwrap_or(b.whiskers.0).min(b.whiskers.0));
    let highs = all().map(|b| b.outliers.last().copied().unwrap_or(b.whiskers.1).max(b.whiskers.1));
    let (low, high) = (lows.fold(f64::INFINITY, f64::min), highs.fold(f64::NEG_INFINITY, f64::max));
    let unit = rows.iter().map(|r| r.unit.as_str()).find(|u| !u.is_empty()).unwrap_or_default();
    let y = if !(low.is_finite() && high.is_finite()) {
        (0.0, 1.0)
    } else if !metric.is_distance() {
        ((low - 0.03).max(0.0), (high + 0.02).min(1.0).max(low + 0.01))
    } else {
        (0.0, if high > 0.0 { high * 1.04 } else { 1.0 })
    };
    let frame = Frame {
        left: 46.0,
        top: head,
        width: DOUBLE - 50.0,
        height: 190.0,
        x: (0.0, structures.len() as f64),
        y,
    };
    let label = metric.label();
    frame.draw_y(
        &mut scene,
        &if unit.is_empty() { format!("{label} ({split})") } else { format!("{label} in {unit} ({split})") },
    );
    scene.line(vec![(frame.left, frame.bottom()), (frame.left + frame.width, frame.bottom())], INK, 0.6, &[]);
    let group = frame.width / structures.len() as f64;
    let pitch = (group * 0.86 / arms.len() as f64).min(34.0);
    let mut undefined = 0;
    for (g, structure) in structures.iter().enumerate() {
        let middle = frame.left + (g as f64 + 0.5) * group;
        let counts: Vec<u64> = boxes[g].iter().flatten().map(|b| b.n).collect();
        let (fewest, most) = (counts.iter().min().copied(), counts.iter().max().copied());
        let n = match (fewest, most) {
            (Some(a), Some(b)) if a != b => format!("n = {a} to {b}"),
            (Some(a), _) => format!("n = {a}"),
            _ => "n = 0".to_owned(),
        };
        scene.text((middle, frame.bottom() + 12.0), Structure::label_of(structure), NORMAL, Anchor::Middle);
        note(&mut scene, (middle, frame.bottom() + 22.0), &n);
        for (a, stats) in boxes[g].iter().enumerate() {
            let x = middle + (a as f64 - (arms.len() as f64 - 1.0) / 2.0) * pitch;
            let Some(stats) = stats else {
                scene.add(Text::new((x, frame.bottom() - 4.0), "–", SMALL, Anchor::Middle));
                continue;
            };
            undefined += stats.undefined;
            draw(&mut scene, &frame, x, pitch, stats, look(arms[a].0));
        }
    }
    let seeds = of.seed_counts(input);
    let mut caption = format!(
        "{label}{} per image on the {split} patients, each image's value averaged over seeds ({seeds}); arms from left to right as in the legend. Line in the box: median; box: quartiles; whiskers: the last value within 1.5 interquartile ranges of the box; points: images beyond; marker: mean; n: images.",
        if unit.is_empty() { String::new() } else { format!(" in {unit}") },
    );
    if undefined > 0 {
        caption += &format!(
            " {undefined} values (image and arm) are undefined, a structure being missing under every seed, and are not shown."
        );
    }
    Some(Figure {
        name: of.file(&format!("{metric}_boxes")),
        title: of.title(&format!("{label} per structure")),
        caption,
        scene,
        narrow: None,
    })
}

fn draw(scene: &mut Scene, frame: &Frame, x: f64, pitch: f64, stats: &BoxStats, look: super::axes::Look) {
    let half = (pitch * 0.36).min(10.0);
    let y = |v: f64| frame.at_y(v);
    for (end, near) in [(stats.whiskers.0, stats.q1), (stats.whiskers.1, stats.q3)] {
        scene.line(vec![(x, y(end)), (x, y(near))], look.color, 0.8, &[]);
        scene.line(vec![(x - half * 0.5, y(end)), (x + half * 0.5, y(end))], look.color, 0.8, &[]);
    }
    let (top, size) = ((x - half, y(stats.q3)), (2.0 * half, y(stats.q1) - y(stats.q3)));
    scene.rect(top, size, super::scene::WHITE, 1.0);
    scene.rect(top, size, look.color, 0.35);
    outline(scene, top, size, look.color, 0.9);
    scene.line(vec![(x - half, y(stats.median)), (x + half, y(stats.median))], INK, 1.3, &[]);
    for outlier in &stats.outliers {
        scene.circle((x, y(*outlier)), 1.0, look.color);
    }
    look.draw_marker(scene, (x, y(stats.mean)), (half * 0.28).clamp(1.2, 2.2));
}
