//! Confusion matrices, one panel per arm.

use super::{
    Figure, ReportInput, TaskModel,
    axes::{NORMAL, SMALL, TITLE_LINE, columns, outline, title_height},
    scene::{Anchor, DOUBLE, INK, Rgb, SINGLE, Scene, Text, WHITE, wrapped},
};
use crate::{results::Measurement, vocabulary::Metric};

/// Classes by name, and counts `[truth][predicted]` summed over seeds.
type Matrix = (Vec<String>, Vec<Vec<f64>>);

fn matrix(rows: &[&Measurement]) -> Matrix {
    let pairs: Vec<(&str, &str, f64)> = rows
        .iter()
        .filter_map(|r| r.structure.split_once(" as ").map(|(truth, predicted)| (truth, predicted, r.value)))
        .collect();
    let mut classes: Vec<String> = Vec::new();
    for name in pairs.iter().flat_map(|p| [p.0, p.1]) {
        if !classes.iter().any(|c| c == name) {
            classes.push(name.to_owned());
        }
    }
    classes.sort();
    let place = |name: &str| classes.iter().position(|c| c == name);
    let mut counts = vec![vec![0.0; classes.len()]; classes.len()];
    for (truth, predicted, value) in pairs {
        if let (Some(i), Some(j)) = (place(truth), place(predicted))
            && value.is_finite()
        {
            counts[i][j] += value;
        }
    }
    (classes, counts)
}

/// White to Okabe and Ito's blue.
fn shade(fraction: f64) -> Rgb {
    let mix = |to: u8| (255.0 + (f64::from(to) - 255.0) * fraction.clamp(0.0, 1.0)).round() as u8;
    (mix(0), mix(90), mix(150))
}

/// WCAG 2's relative luminance, 0 to 1.
fn luminance(color: Rgb) -> f64 {
    let linear = |v: u8| {
        let v = f64::from(v) / 255.0;
        if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * linear(color.0) + 0.7152 * linear(color.1) + 0.0722 * linear(color.2)
}

/// None where the model has no confusion rows.
pub(crate) fn figure(input: &ReportInput, rows: &[Measurement], of: &TaskModel<'_>) -> Option<Figure> {
    let split = crate::aggregate::reported_split(rows, of.task)?;
    let panels: Vec<(&String, Matrix)> = of
        .arms
        .iter()
        .filter_map(|arm| {
            let rows: Vec<&Measurement> = rows
                .iter()
                .filter(|r| {
                    r.task == of.task
                        && r.model == of.model
                        && r.arm == *arm
                        && r.split == split
                        && r.metric == Metric::Confusion
                        && r.seed.is_some()
                })
                .collect();
            let matrix = matrix(&rows);
            (!matrix.0.is_empty()).then_some((arm, matrix))
        })
        .collect();
    let classes = panels.iter().map(|(_, (classes, _))| classes.len()).max()?;
    let longest = panels
        .iter()
        .flat_map(|(_, (classes, _))| classes)
        .map(|name| super::scene::text_width(name, SMALL, false))
        .fold(0.0, f64::max);
    let gap = longest + 26.0;
    let across = (if classes > 2 { 2 } else { 3 }).min(panels.len());
    let width = if panels.len() == 1 { SINGLE } else { DOUBLE };
    let places =
        if panels.len() == 1 { vec![(gap, SINGLE - gap - 20.0)] } else { columns(DOUBLE, across, gap) };
    let side = (places[0].1 / classes as f64).min(46.0);
    let titles = title_height(panels.iter().map(|(arm, _)| arm.as_str()), places[0].1);
    let step = side * classes as f64 + titles + 58.0;
    let mut scene = Scene::new(width, step * panels.len().div_ceil(across) as f64);
    for (i, (arm, (classes, counts))) in panels.iter().enumerate() {
        let (left, room) = places[i % across];
        let top = (i / across) as f64 * step + titles + 24.0;
        for (above, line) in wrapped(arm, NORMAL, true, room).into_iter().rev().enumerate() {
            let at = (left, top - 7.0 - above as f64 * TITLE_LINE);
            scene.add(Text::new(at, line, NORMAL, Anchor::Start).bold());
        }
        let across = side * classes.len() as f64;
        scene.add(
            Text::new((left - longest - 12.0, top + across / 2.0), "Truth", NORMAL, Anchor::Middle).upright(),
        );
        scene.text((left + across / 2.0, top + across + 22.0), "Predicted", NORMAL, Anchor::Middle);
        for (t, truth) in classes.iter().enumerate() {
            let y = top + t as f64 * side;
            scene.text((left - 4.0, y + side / 2.0 + 0.36 * SMALL), truth, SMALL, Anchor::End);
            scene.text((left + (t as f64 + 0.5) * side, top + across + 10.0), truth, SMALL, Anchor::Middle);
            let total: f64 = counts[t].iter().sum();
            for (p, count) in counts[t].iter().enumerate() {
                let x = left + p as f64 * side;
                let fraction = if total > 0.0 { count / total } else { 0.0 };
                scene.rect((x, y), (side, side), shade(fraction), 1.0);
                let paper = luminance(shade(fraction));
                // WCAG's contrast ratio, whichever of the two is higher.
                let white = (luminance(WHITE) + 0.05) / (paper + 0.05);
                let dark = (paper + 0.05) / (luminance(INK) + 0.05);
                let color = if white > dark { WHITE } else { INK };
                let middle = (x + side / 2.0, y + side / 2.0);
                let percent =
                    if total > 0.0 { format!("{:.1} %", 100.0 * fraction) } else { "–".to_owned() };
                let number =
                    Text::new((middle.0, middle.1 - 1.0), format!("{count:.0}"), NORMAL, Anchor::Middle);
                scene.add(number.color(color).bold());
                scene.add(Text::new((middle.0, middle.1 + 9.0), percent, SMALL, Anchor::Middle).color(color));
            }
        }
        outline(&mut scene, (left, top), (across, across), INK, 0.6);
    }
    let caption = format!(
        "Images of the {split} patients, summed over seeds ({}), with the percentage of the row (of the images that truly are of the class).",
        of.seed_counts(input)
    );
    Some(Figure {
        name: of.file("confusion"),
        title: of.title("confusion matrix"),
        caption,
        scene,
        narrow: None,
        head: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_on_every_shade_can_be_read() {
        for i in 0..=100 {
            let paper = luminance(shade(f64::from(i) / 100.0)) + 0.05;
            let best = ((luminance(WHITE) + 0.05) / paper).max(paper / (luminance(INK) + 0.05));
            assert!(best > 4.0, "{i} % has a contrast of {best}");
        }
    }

    #[test]
    fn counts_are_summed_by_truth_and_prediction() {
        let row =
            |structure: &str, value| Measurement { structure: structure.into(), value, ..Default::default() };
        let rows =
            [row("ES as ED", 2.0), row("ED as ED", 5.0), row("ED as ED", 4.0), row("ED as ES", f64::NAN)];
        let (classes, counts) = matrix(&rows.iter().collect::<Vec<_>>());
        assert_eq!(classes, ["ED", "ES"]);
        assert_eq!(counts, [[9.0, 0.0], [2.0, 0.0]]);
    }
}
