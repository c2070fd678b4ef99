//! The ejection fraction by predicted masks against that by reference masks: a scatter plot and a Bland-Altman plot, one
//! panel per arm, and one for the reference masks against what is recorded.

use super::{
    Figure, TaskModel,
    axes::{BEHIND, Frame, Key, LEVEL, NAMED, REAL, SMALL, columns, legend, title_height},
    scene::{Anchor, DOUBLE, MUTED, SINGLE, Scene, Text, WHITE, text_width},
};
use crate::{
    aggregate::{
        agreement::{AgreementFigure, AgreementSummary, LIMITS, PatientPair},
        number, plural,
        ventricle::{FLOOR, VentricleFigure, VentricleRows},
    },
    results::Measurement,
};

/// One arm, or the reference masks.
struct AgreementPanel<'a> {
    name: &'a str,
    pairs: Vec<PatientPair<'a>>,
    summary: AgreementSummary,
}

impl<'a> AgreementPanel<'a> {
    /// None without a defined pair.
    fn of(name: &'a str, pairs: Vec<PatientPair<'a>>) -> Option<Self> {
        let summary = AgreementSummary::of(&pairs)?;
        Some(Self { name, pairs: pairs.into_iter().filter(PatientPair::is_defined).collect(), summary })
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum AgreementPlot {
    Scatter,
    BlandAltman,
}

/// Empty where the model has no ejection fraction.
pub(super) fn figures(rows: &[Measurement], of: &TaskModel<'_>) -> Vec<Figure> {
    let Some(values) = VentricleRows::of(rows) else { return Vec::new() };
    let figure = VentricleFigure::EF;
    let arms: Vec<AgreementPanel> = of
        .arms
        .iter()
        .filter_map(|arm| AgreementPanel::of(arm, values.predicted(figure, arm, of.model)))
        .collect();
    if arms.is_empty() {
        return Vec::new();
    }
    let n = super::n_of(arms.iter().map(|p| p.summary.patients), arms.iter().map(|p| p.summary.seeds));
    let panels: Vec<AgreementPanel> =
        AgreementPanel::of(FLOOR, values.floor(figure)).into_iter().chain(arms).collect();
    let undefined: u64 = panels.iter().map(|panel| panel.summary.undefined).sum();
    let left_out = match undefined {
        0 => String::new(),
        n => format!(
            " Not shown: {} (arm, seed and patient) that do not exist. The table counts them.",
            plural(n, "pair", "pairs")
        ),
    };
    let floor = match panels[0].name == FLOOR {
        true => {
            " The first panel shows the reference masks against the recorded EF: the error that remains with perfect masks."
        }
        false => "",
    };
    let split = &values.split;
    [AgreementPlot::Scatter, AgreementPlot::BlandAltman]
        .into_iter()
        .map(|plot| {
            let (name, title, reading) = match plot {
                AgreementPlot::Scatter => (
                    "ef_scatter",
                    "ejection fraction by predicted and by reference masks",
                    "EF by the predicted over EF by the reference masks".to_owned(),
                ),
                AgreementPlot::BlandAltman => (
                    "ef_bland_altman",
                    "agreement of the ejection fraction (Bland-Altman)",
                    format!(
                        "EF by the predicted minus EF by the reference masks, over the mean of both. Lines: bias, and limits of agreement (bias ± {LIMITS} standard deviations; means over seeds)"
                    ),
                ),
            };
            let caption = format!(
                "{reading}, {split} patients ({n}). Point: one patient with one seed.{floor} r: Pearson's correlation. MAE: mean absolute error in percentage points.{left_out}"
            );
            Figure {
                name: of.file(name),
                title: of.title(title),
                caption,
                scene: draw(plot, &panels, &n, DOUBLE),
                narrow: Some(draw(plot, &panels, &n, SINGLE)),
                head: None,
            }
        })
        .collect()
}

/// Where a pair stands.
fn place(plot: AgreementPlot, pair: &PatientPair) -> (f64, f64) {
    match plot {
        AgreementPlot::Scatter => (pair.reference, pair.value),
        AgreementPlot::BlandAltman => ((pair.value + pair.reference) / 2.0, pair.value - pair.reference),
    }
}

/// From the lowest to the highest value, with some room.
fn range(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let known = values.filter(|value| value.is_finite());
    let (low, high) = (known.clone().fold(f64::INFINITY, f64::min), known.fold(f64::NEG_INFINITY, f64::max));
    let room = (0.05 * (high - low)).max(1.0);
    (low - room, high + room)
}

fn draw(plot: AgreementPlot, panels: &[AgreementPanel], n: &str, page: f64) -> Scene {
    let across = if page < DOUBLE { 2 } else { 3 }.min(panels.len().max(2));
    let gap = 40.0;
    let places = columns(page, across, gap);
    let side = if plot == AgreementPlot::Scatter { places[0].1 } else { 0.8 * places[0].1 };
    let titles = title_height(panels.iter().map(|p| p.name), places[0].1);
    let names = match plot {
        AgreementPlot::Scatter => vec![("equal".to_owned(), BEHIND)],
        AgreementPlot::BlandAltman => {
            vec![("bias".to_owned(), REAL), ("limits of agreement".to_owned(), LEVEL)]
        }
    };
    let head = legend(None, (0.0, 0.0), page - gap - 4.0, &names, Key::Line) + 30.0;
    let step = side + titles + 40.0;
    let mut scene = Scene::new(page, head + panels.len().div_ceil(across) as f64 * step);
    legend(Some(&mut scene), (gap, 3.0), page - gap - 4.0, &names, Key::Line);
    scene.add(Text::new((page - 8.0, head - 17.0), n, SMALL, Anchor::End).color(MUTED));
    let points = || panels.iter().flat_map(|p| &p.pairs).map(|pair| place(plot, pair));
    let (x, y) = match plot {
        AgreementPlot::Scatter => {
            let both = range(points().flat_map(|at| [at.0, at.1]).collect::<Vec<_>>().into_iter());
            (both, both)
        }
        AgreementPlot::BlandAltman => {
            let limits = panels.iter().flat_map(|p| {
                [AgreementFigure::LowerLimit, AgreementFigure::UpperLimit].map(|f| p.summary.get(f).value)
            });
            let (low, high) = range(points().map(|at| at.1).chain(limits).chain([0.0]));
            // Room for the numbers above.
            (range(points().map(|at| at.0)), (low, high + 0.14 * (high - low)))
        }
    };
    let (label_x, label_y) = match plot {
        AgreementPlot::Scatter => ("EF by reference (%)", "EF by prediction (%)"),
        AgreementPlot::BlandAltman => ("Mean of both (%)", "Difference (points)"),
    };
    for (i, (panel, (left, width))) in panels.iter().zip(places.into_iter().cycle()).enumerate() {
        let top = head + titles + (i / across) as f64 * step;
        let frame = Frame { left, top, width, height: side, x, y };
        frame.draw_y(&mut scene, if i % across == 0 { label_y } else { "" });
        frame.draw_x(&mut scene, if i + across >= panels.len() { label_x } else { "" });
        frame.title(&mut scene, panel.name);
        let of = |figure| panel.summary.get(figure).value;
        match plot {
            AgreementPlot::Scatter => frame.curve(&mut scene, &[(x.0, x.0), (x.1, x.1)], BEHIND, 0.9),
            AgreementPlot::BlandAltman => {
                let level = |value: f64| [(x.0, value), (x.1, value)];
                frame.curve(&mut scene, &level(0.0), BEHIND, 0.6);
                for figure in [AgreementFigure::LowerLimit, AgreementFigure::UpperLimit] {
                    frame.curve(&mut scene, &level(of(figure)), LEVEL, 0.8);
                }
            }
        }
        for (x, y) in panel.pairs.iter().map(|pair| place(plot, pair)) {
            scene.circle((frame.at_x(x), frame.at_y(y)), 1.3, NAMED.color);
        }
        let words = match plot {
            AgreementPlot::Scatter => format!(
                "r {}, MAE {}",
                number(of(AgreementFigure::Correlation), 2),
                number(of(AgreementFigure::MeanAbsoluteError), 1)
            ),
            AgreementPlot::BlandAltman => {
                let bias = of(AgreementFigure::Bias);
                frame.curve(&mut scene, &[(x.0, bias), (x.1, bias)], REAL, 0.9);
                format!(
                    "{} [{}, {}]",
                    number(bias, 1),
                    number(of(AgreementFigure::LowerLimit), 1),
                    number(of(AgreementFigure::UpperLimit), 1)
                )
            }
        };
        scene.rect((left + 1.0, top), (text_width(&words, SMALL, false) + 4.0, SMALL + 3.0), WHITE, 1.0);
        scene.add(Text::new((left + 3.0, top + SMALL + 1.0), words, SMALL, Anchor::Start).color(MUTED));
    }
    scene
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        report::{fake, scene::Shape},
        vocabulary::{Metric, Task},
    };

    fn drawn(rows: &[Measurement], arms: &[String]) -> Vec<Figure> {
        figures(rows, &TaskModel { task: Task::Segmentation, model: "monai-unet", several: false, arms })
    }

    #[test]
    fn a_panel_for_the_floor_and_for_each_arm() {
        let input = fake::input(&fake::FakeShape { seeds: 2, ..Default::default() });
        let arms: Vec<String> = input.meta.arms.iter().map(|arm| arm.name.clone()).collect();
        let found = drawn(&input.measurements, &arms);
        let names: Vec<&str> = found.iter().map(|f| f.name.as_str()).collect();
        assert_eq!(names, ["segmentation_ef_scatter", "segmentation_ef_bland_altman"]);
        for figure in &found {
            let circles = figure.scene.shapes.iter().filter(|s| matches!(s, Shape::Circle { .. })).count();
            // 39 patients of 40, once for the floor and with two seeds for three arms; one prediction fails.
            assert_eq!(circles, 39 + 3 * 2 * 39 - 1);
            assert!(figure.caption.contains("n = 39 patients, 2 seeds"), "{}", figure.caption);
            assert!(figure.caption.contains("Not shown: 8 pairs"), "{}", figure.caption);
            let text = format!("{:?}", figure.scene.shapes);
            assert!(text.contains("\"reference masks against\"") && text.contains("\"real 25 %\""), "{text}");
        }
        let mut rows = input.measurements.clone();
        rows.retain(|row| row.metric != Metric::EfRecorded);
        assert!(!format!("{:?}", drawn(&rows, &arms)[0].scene.shapes).contains("reference masks against"));
        rows.retain(|row| row.metric != Metric::Ef);
        assert!(drawn(&rows, &arms).is_empty());
    }
}
