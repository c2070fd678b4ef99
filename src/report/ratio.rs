//! A score over the ratio of synthetic to real images, one line per generator.

use std::collections::BTreeMap;

use super::{
    Figure, ReportInput, TaskModel,
    axes::{
        CONTROL, Frame, Key, Look, MOST_SERIES, NAMED, REAL, SMALL, columns, legend, look, reading,
        title_height,
    },
    scene::{Anchor, DOUBLE, MUTED, Point, SINGLE, Scene, Text},
};
use crate::{
    aggregate::{self, ArmInfo, Score, is_image, stats},
    results::Measurement,
    vocabulary::{Metric, Structure},
};

/// What controls are called: images that are there already, once more.
const REPEATED: &str = "duplicate-real";

/// One arm's score.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RatioPoint {
    /// The generator, or [`REPEATED`]; empty for real images only.
    pub series: String,
    pub ratio: f64,
    pub mean: f64,
    /// 95 % interval over patients.
    pub low: f64,
    pub high: f64,
    /// One mean a seed.
    pub seeds: Vec<f64>,
    /// Patients.
    pub n: u64,
}

/// The arms with one share of the real patients.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RatioPanel {
    /// The only generator of the panel, where they are too many for one.
    pub generator: Option<String>,
    pub real_fraction: f64,
    pub real: Option<RatioPoint>,
    pub points: Vec<RatioPoint>,
}

impl RatioPanel {
    fn all(&self) -> impl Iterator<Item = &RatioPoint> + Clone {
        self.points.iter().chain(&self.real)
    }
}

fn point(
    rows: &[Measurement],
    of: &TaskModel<'_>,
    score: &Score,
    split: &str,
    arm: &ArmInfo,
) -> Option<RatioPoint> {
    let estimate = score.estimate(rows, split, &arm.name, of.model)?;
    let structure = if score.structures.is_empty() { None } else { Some(Structure::MEAN) };
    let rows = rows
        .iter()
        .filter(|r| r.task == of.task && r.model == of.model && r.arm == arm.name && r.split == split)
        .filter(|r| r.metric == score.metric && is_image(r) && structure.is_none_or(|s| r.structure == s));
    let mut seeds: BTreeMap<Option<u64>, Vec<f64>> = BTreeMap::new();
    rows.for_each(|row| seeds.entry(row.seed).or_default().push(row.value));
    let (low, high) = estimate.interval.unwrap_or((f64::NAN, f64::NAN));
    Some(RatioPoint {
        series: arm
            .synthetic
            .clone()
            .unwrap_or_else(|| if arm.control { REPEATED.into() } else { String::new() }),
        ratio: arm.ratio.unwrap_or(0.0),
        mean: estimate.mean,
        low,
        high,
        seeds: seeds.values().map(|values| stats::mean(values)).filter(|v| v.is_finite()).collect(),
        n: estimate.patients,
    })
}

/// None where no two arms have different ratios.
pub(super) fn figure(
    input: &ReportInput,
    rows: &[Measurement],
    of: &TaskModel<'_>,
    score: &Score,
) -> Option<Figure> {
    let split = aggregate::reported_split(rows, of.task)?;
    let arms = &input.meta.arms;
    let mut fractions: Vec<f64> = Vec::new();
    let varied =
        |arm: &&ArmInfo| !arm.is_real_only() && !arm.replaces_real && arm.ratio.is_some_and(|r| r > 0.0);
    for arm in arms.iter().filter(varied).filter(|arm| arm.synthetic.is_some()) {
        if !fractions.contains(&arm.real_fraction) {
            fractions.push(arm.real_fraction);
        }
    }
    let panels: Vec<RatioPanel> = fractions
        .into_iter()
        .map(|real_fraction| {
            let same = || arms.iter().filter(|arm| arm.real_fraction == real_fraction);
            let score_of = |arm: &ArmInfo| point(rows, of, score, &split, arm);
            RatioPanel {
                generator: None,
                real_fraction,
                real: same().find(|arm| arm.is_real_only()).and_then(score_of),
                points: same().filter(varied).filter_map(score_of).collect(),
            }
        })
        .filter(|panel| !panel.points.is_empty())
        .collect();
    let panels = by_generator(panels);
    let mut ratios = panels.iter().flat_map(|panel| &panel.points).map(|point| point.ratio);
    let first = ratios.next()?;
    if ratios.all(|ratio| ratio == first) {
        return None;
    }
    let name = if score.structures.is_empty() { "Accuracy" } else { "Mean Dice" };
    let label = format!("{name} ({split}){}", reading(score.metric.direction()));
    let all = || panels.iter().flat_map(RatioPanel::all);
    let n = super::n_of(all().map(|p| p.n), all().map(|p| p.seeds.len() as u64));
    let caption = format!(
        "{name} on the {split} patients ({n}) over added images per real one (logarithmic). Line across: real images only. Dashed: as many copies of real images ({REPEATED}), where there are such arms. Only what a generator gains over copies comes from what its images show. Marker: mean over seeds. Bar and band: 95 % bootstrap interval over patients. Small points: single seeds. Arms whose intervals overlap may still differ on the same patients: see the tests in the table of comparisons."
    );
    let what =
        if score.metric == Metric::Correct { "ratio".into() } else { format!("{}_ratio", score.metric) };
    Some(Figure {
        name: of.file(&what),
        title: of.title(&format!(
            "{} over the ratio of synthetic images",
            name.to_lowercase().replace("dice", "Dice")
        )),
        caption,
        scene: draw(&panels, &label, &n, DOUBLE),
        narrow: Some(draw(&panels, &label, &n, SINGLE)),
        head: None,
    })
}

/// (controls, generators), each by first appearance.
fn names(panels: &[RatioPanel]) -> (Vec<String>, Vec<String>) {
    let names = super::distinct(panels.iter().flat_map(|p| &p.points).map(|p| p.series.as_str()));
    names.into_iter().partition(|name| name == REPEATED)
}

/// A panel for each generator, where they are too many for one.
fn by_generator(panels: Vec<RatioPanel>) -> Vec<RatioPanel> {
    let (_, generators) = names(&panels);
    if generators.len() <= MOST_SERIES {
        return panels;
    }
    let of = |panel: &RatioPanel, name: &String| RatioPanel {
        generator: Some(name.clone()),
        points: panel.points.iter().filter(|p| p.series == *name || p.series == REPEATED).cloned().collect(),
        ..panel.clone()
    };
    let split = panels.iter().flat_map(|panel| generators.iter().map(move |name| of(panel, name)));
    split.filter(|panel| panel.points.iter().any(|p| p.series != REPEATED)).collect()
}

/// Generators by first appearance, then the control.
fn series(panels: &[RatioPanel]) -> Vec<(String, Look)> {
    let (controls, generators) = names(panels);
    let is_split = panels.iter().any(|panel| panel.generator.is_some());
    let look_of = |i: usize| if is_split { NAMED } else { look(i) };
    let generators = generators.into_iter().enumerate().map(|(i, name)| (name, look_of(i)));
    generators.chain(controls.into_iter().map(|name| (name, CONTROL))).collect()
}

/// `0.25`, `2`.
fn ratio_label(ratio: f64) -> String {
    let text = format!("{ratio:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn draw(panels: &[RatioPanel], label: &str, n: &str, page: f64) -> Scene {
    let series = series(panels);
    let mut names: Vec<(String, Look)> = Vec::new();
    if panels.iter().any(|panel| panel.real.is_some()) {
        names.push(("real images only".to_owned(), REAL));
    }
    // A generator with a panel of its own is named there.
    let is_split = panels.iter().any(|panel| panel.generator.is_some());
    names.extend(series.iter().filter(|(name, _)| !is_split || name == REPEATED).cloned());
    let across = if page < DOUBLE { 1 } else { panels.len().clamp(1, 3) };
    let gap = 44.0;
    let title = |panel: &RatioPanel| panel.generator.clone().unwrap_or_default();
    let titles: Vec<String> = panels.iter().map(title).collect();
    let width = columns(page, across, gap)[0].1;
    let above = if is_split { 10.0 + title_height(titles.iter().map(String::as_str), width) } else { 0.0 };
    let head = legend(None, (0.0, 0.0), page - gap - 4.0, &names, Key::Line) + 22.0 + above;
    let (high, step) = if page < DOUBLE { (130.0, 184.0 + above) } else { (150.0, 204.0 + above) };
    let mut scene = Scene::new(page, head + panels.len().div_ceil(across) as f64 * step - 18.0);
    legend(Some(&mut scene), (gap, 3.0), page - gap - 4.0, &names, Key::Line);

    let ends = |f: fn(f64, f64) -> f64, start: f64| {
        let values = panels
            .iter()
            .flat_map(RatioPanel::all)
            .flat_map(|p| p.seeds.iter().copied().chain([p.mean, p.low, p.high]));
        values.filter(|v| v.is_finite()).fold(start, f)
    };
    let (low, top_value) = (ends(f64::min, f64::INFINITY), ends(f64::max, f64::NEG_INFINITY));
    let pad = (0.07 * (top_value - low)).max(0.005);
    let y = ((low - pad).max(0.0), (top_value + pad).min(1.0).max(low + 0.005));
    let mut ratios: Vec<f64> = panels.iter().flat_map(|p| &p.points).map(|p| p.ratio).collect();
    ratios.sort_by(f64::total_cmp);
    ratios.dedup();
    let (first, last) = (ratios[0].log2(), ratios[ratios.len() - 1].log2());
    let room = (0.1 * (last - first)).max(0.4);
    for (i, (panel, (left, width))) in
        panels.iter().zip(columns(page, across, gap).into_iter().cycle()).enumerate()
    {
        let top = head + (i / across) as f64 * step;
        let frame = Frame { left, top, width, height: high, x: (first - room, last + room), y };
        frame.draw_y(&mut scene, if i % across == 0 { label } else { "" });
        let ticks = ratios.iter().map(|r| (r.log2(), ratio_label(*r))).collect();
        frame.draw_x_at(&mut scene, "Added images per real image", ticks);
        let share = if panel.real_fraction == 1.0 && panels.len() == 1 {
            n.to_owned()
        } else {
            format!("{} % of the real patients; {n}", ratio_label(100.0 * panel.real_fraction))
        };
        scene.add(Text::new((left + width, top - 5.0), share, SMALL, Anchor::End).color(MUTED));
        if let Some(name) = &panel.generator {
            Frame { top: top - 10.0, ..frame }.title(&mut scene, name);
        }
        if let Some(real) = &panel.real {
            let across = [frame.x.0, frame.x.1];
            frame.band(&mut scene, &across.map(|x| (x, real.low, real.high)), REAL.color);
            frame.curve(&mut scene, &across.map(|x| (x, real.mean)), REAL, 1.2);
            for seed in &real.seeds {
                scene.circle((left + 3.0, frame.at_y(*seed)), 1.0, REAL.color);
            }
        }
        let pitch = (width / ratios.len() as f64 * 0.5 / series.len() as f64).min(9.0);
        // Side by side where several have the same ratio.
        let shift = |ratio: f64, name: &str| {
            let here = |other: &&(String, Look)| {
                panel.points.iter().any(|p| p.ratio == ratio && p.series == other.0)
            };
            let present: Vec<&(String, Look)> = series.iter().filter(here).collect();
            let place = present.iter().position(|other| other.0 == name).unwrap_or_default();
            (place as f64 - (present.len() as f64 - 1.0) / 2.0) * pitch
        };
        for (name, look) in &series {
            let at =
                |ratio: f64, value: f64| (frame.at_x(ratio.log2()) + shift(ratio, name), frame.at_y(value));
            let mut of: Vec<&RatioPoint> = panel.points.iter().filter(|p| p.series == *name).collect();
            of.sort_by(|a, b| a.ratio.total_cmp(&b.ratio));
            let line: Vec<Point> = of.iter().map(|p| at(p.ratio, p.mean)).collect();
            scene.line(line, look.color, 1.2, look.dash);
            for p in of {
                if p.low.is_finite() {
                    scene.line(vec![at(p.ratio, p.low), at(p.ratio, p.high)], look.color, 0.8, &[]);
                    for end in [p.low, p.high].map(|v| at(p.ratio, v)) {
                        scene.line(vec![(end.0 - 1.5, end.1), (end.0 + 1.5, end.1)], look.color, 0.8, &[]);
                    }
                }
                for seed in &p.seeds {
                    let (x, y) = at(p.ratio, *seed);
                    scene.circle((x + 3.2, y), 0.9, look.color);
                }
                look.draw_marker(&mut scene, at(p.ratio, p.mean), 2.6);
            }
        }
    }
    scene
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fake;
    use crate::vocabulary::Task;

    #[test]
    fn a_panel_for_each_share_of_the_real_patients() {
        let mut input =
            fake::input(&fake::FakeShape { arms: 10, patients: 6, epochs: 2, ..Default::default() });
        let rows = aggregate::measurements_table(&input.measurements).unwrap();
        let of = TaskModel { task: Task::Segmentation, model: "monai-unet", several: false, arms: &[] };
        let score = Score::segmentation(Metric::Dice);
        let figure_of = |input: &ReportInput| figure(input, &rows, &of, &score);
        let one = figure_of(&input).unwrap();
        assert_eq!(
            (one.name.as_str(), one.scene.width, one.narrow.unwrap().width),
            ("segmentation_dice_ratio", DOUBLE, SINGLE)
        );
        assert!(one.caption.contains("n = 6 patients, 3 seeds"), "{}", one.caption);
        let words = |scene: &Scene| format!("{:?}", scene.shapes);
        let text = words(&one.scene);
        for name in ["real images only", "text+seg", "unconditional", "duplicate-real", "0.25"] {
            assert!(text.contains(&format!("text: \"{name}\"")), "{name}");
        }
        input.meta.arms[4].real_fraction = 0.5;
        input.meta.arms[5].real_fraction = 0.5;
        let two = figure_of(&input).unwrap();
        assert!(
            words(&two.scene).contains("50 % of the real patients") && words(&two.scene).contains("100 % of")
        );
        // Arms without a ratio have no place on the axis.
        input.meta.arms.iter_mut().for_each(|arm| arm.ratio = None);
        assert!(figure_of(&input).is_none());
    }

    #[test]
    fn many_generators_have_panels_of_their_own() {
        let point = |series: &str| RatioPoint {
            series: series.into(),
            ratio: 1.0,
            mean: 0.8,
            low: 0.7,
            high: 0.9,
            seeds: vec![0.8],
            n: 5,
        };
        let panel = |generators: usize| RatioPanel {
            generator: None,
            real_fraction: 1.0,
            real: Some(point("")),
            points: (0..generators).map(|i| point(&format!("g{i}"))).chain([point(REPEATED)]).collect(),
        };
        assert_eq!(by_generator(vec![panel(6)]).len(), 1);
        let split = by_generator(vec![panel(7)]);
        assert_eq!((split.len(), split[6].points.len(), split[6].generator.as_deref()), (7, 2, Some("g6")));
        assert!(series(&split).iter().all(|(name, look)| name == REPEATED || *look == NAMED));
        let text = format!("{:?}", draw(&split, "Dice", "n = 5", DOUBLE).shapes);
        assert_eq!(text.matches("text: \"g3\"").count(), 1);
    }

    #[test]
    fn ratios_are_short() {
        assert_eq!([0.25, 1.0, 2.0, 10.0, 0.333_333].map(ratio_label), ["0.25", "1", "2", "10", "0.333"]);
    }
}
