//! Box plots per structure: arms side by side, or one below the other where they are many.

use std::collections::BTreeMap;

use super::{
    Figure, ReportInput, TaskModel,
    axes::{
        Frame, Key, Look, MOST_SERIES, NAMED, NORMAL, SMALL, legend, looks, note, outline, reading,
        tick_label, ticks,
    },
    scene::{Anchor, DOUBLE, FAINT, INK, MUTED, Scene, Text, WHITE, text_width, wrapped},
};
use crate::{
    aggregate::{BoxStats, box_stats, is_image, stats},
    results::Measurement,
    vocabulary::{Direction, Metric, Structure},
};

/// How far the axis goes beyond boxes, whiskers and means, as a share of their range. A few values far away would
/// press everything else together.
const BEYOND: f64 = 0.35;

/// A point this near to another one is not seen, in points of type.
const HIDDEN: f64 = 0.5;

/// One value per image: the mean over its seeds that are defined.
fn per_image(rows: &[&Measurement]) -> Vec<f64> {
    let mut images: BTreeMap<(&str, &str, &str), Vec<f64>> = BTreeMap::new();
    for row in rows {
        images.entry((&row.patient, &row.view, &row.phase)).or_default().push(row.value);
    }
    images.values().map(|values| stats::mean(values)).collect()
}

/// The boxes of one structure, one per arm.
struct StructureBoxes<'a> {
    structure: &'a str,
    arms: Vec<Option<BoxStats>>,
}

impl StructureBoxes<'_> {
    /// `n = 200`, `n = 198 to 200`.
    fn n(&self) -> String {
        let counts = || self.arms.iter().flatten().map(|b| b.n);
        format!("n = {}", super::generators::span(counts().collect::<Vec<_>>().into_iter()))
    }
}

/// The values that an axis shows.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Shown {
    low: f64,
    high: f64,
}

impl Shown {
    fn of<'a>(boxes: impl Iterator<Item = &'a BoxStats> + Clone, metric: Metric) -> Self {
        let fold = |of: fn(&BoxStats) -> f64, with: fn(f64, f64) -> f64, start: f64| {
            boxes.clone().map(of).filter(|v| v.is_finite()).fold(start, with)
        };
        let lowest = |of: fn(&BoxStats) -> f64| fold(of, f64::min, f64::INFINITY);
        let highest = |of: fn(&BoxStats) -> f64| fold(of, f64::max, f64::NEG_INFINITY);
        let core = (lowest(|b| b.whiskers.0.min(b.mean)), highest(|b| b.whiskers.1.max(b.mean)));
        if core.0 > core.1 {
            return Self { low: 0.0, high: 1.0 };
        }
        let all = (
            lowest(|b| b.outliers.first().copied().unwrap_or(b.whiskers.0).min(b.whiskers.0)),
            highest(|b| b.outliers.last().copied().unwrap_or(b.whiskers.1).max(b.whiskers.1)),
        );
        let range = (core.1 - core.0).max(0.01);
        let (low, high) = (all.0.max(core.0 - BEYOND * range), all.1.min(core.1 + BEYOND * range));
        let pad = 0.04 * (high - low).max(0.01);
        match metric.is_distance() {
            true => Self { low: 0.0, high: high + pad },
            false => Self { low: (low - pad).max(0.0), high: (high + pad).min(1.0).max(low + 0.01) },
        }
    }

    /// How many outliers lie below and above.
    fn beyond(self, stats: &BoxStats) -> (usize, usize) {
        let count = |is: &dyn Fn(&&f64) -> bool| stats.outliers.iter().filter(is).count();
        (count(&|v| **v < self.low), count(&|v| **v > self.high))
    }

    fn contains(self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
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
    let boxes: Vec<StructureBoxes> = Structure::ALL
        .map(Structure::as_str)
        .into_iter()
        .filter(|s| rows.iter().any(|r| r.structure == *s))
        .map(|structure| StructureBoxes {
            structure,
            arms: arms
                .iter()
                .map(|(_, arm)| {
                    let is = |r: &&&Measurement| r.structure == structure && r.arm == **arm;
                    box_stats(&per_image(&rows.iter().filter(is).copied().collect::<Vec<_>>()))
                })
                .collect(),
        })
        .collect();
    if boxes.is_empty() || arms.is_empty() {
        return None;
    }
    let unit = rows.iter().map(|r| r.unit.as_str()).find(|u| !u.is_empty()).unwrap_or_default();
    let in_unit = if unit.is_empty() { String::new() } else { format!(" in {unit}") };
    let plot = BoxPlot {
        shown: Shown::of(boxes.iter().flat_map(|b| b.arms.iter().flatten()), metric),
        label: format!("{}{in_unit} ({split}){}", metric.label(), reading(metric.direction())),
        arms: arms.iter().map(|(i, arm)| (*i, arm.as_str())).collect(),
        boxes,
    };
    let is_grouped = arms.len() > MOST_SERIES;
    let order = if is_grouped { "" } else { "; arms from left to right as in the legend" };
    let mut caption = format!(
        "{}{in_unit} per image on the {split} patients, each image's value averaged over seeds ({}){order}. Line in the box: median. Box: quartiles. Whiskers: the last value within 1.5 interquartile ranges of the box. Points: images beyond. Marker: mean. n: images.",
        metric.label(),
        of.seed_counts(input),
    );
    caption += &plot.beyond_words(metric);
    let undefined: u64 = plot.all().map(|stats| stats.undefined).sum();
    if undefined > 0 {
        caption += &format!(
            " {undefined} values (image and arm) are undefined, because a structure is missing with every seed. They are not shown."
        );
    }
    Some(Figure {
        name: of.file(&format!("{metric}_boxes")),
        title: of.title(&format!("{} per structure", metric.label())),
        caption,
        scene: if is_grouped { plot.rows() } else { plot.side_by_side() },
        narrow: None,
        head: None,
    })
}

struct BoxPlot<'a> {
    boxes: Vec<StructureBoxes<'a>>,
    /// Places in the report, and names.
    arms: Vec<(usize, &'a str)>,
    shown: Shown,
    label: String,
}

/// Where a box lies in a scene: across the values' axis, its middle and half its width.
struct Lane<'a> {
    frame: &'a Frame,
    middle: f64,
    half: f64,
    /// The values go from left to right.
    is_flat: bool,
}

impl BoxPlot<'_> {
    fn all(&self) -> impl Iterator<Item = &BoxStats> {
        self.boxes.iter().flat_map(|b| b.arms.iter().flatten())
    }

    /// How many points the axis leaves out.
    fn beyond_words(&self, metric: Metric) -> String {
        let counts = self.all().map(|stats| self.shown.beyond(stats));
        let (below, above) = counts.fold((0, 0), |sum, n| (sum.0 + n.0, sum.1 + n.1));
        let furthest = match metric.direction() {
            Direction::Lower => self.all().filter_map(|b| b.outliers.last()).copied().fold(0.0, f64::max),
            _ => self.all().filter_map(|b| b.outliers.first()).copied().fold(f64::INFINITY, f64::min),
        };
        match below + above {
            0 => String::new(),
            n => format!(
                " {n} points lie beyond the axis (up to {}); the numbers at its end count them, box by box.",
                crate::aggregate::number(furthest, metric.decimals())
            ),
        }
    }

    /// A group per structure, arms next to each other, each with its colour.
    fn side_by_side(&self) -> Scene {
        let looks = looks(&self.arms.iter().map(|arm| arm.0).collect::<Vec<_>>());
        let names: Vec<(String, Look)> =
            self.arms.iter().zip(&looks).map(|(arm, look)| (arm.1.to_owned(), *look)).collect();
        let head = legend(None, (0.0, 0.0), DOUBLE - 50.0, &names, Key::Box) + 12.0;
        let mut scene = Scene::new(DOUBLE, head + 190.0 + 34.0);
        legend(Some(&mut scene), (46.0, 3.0), DOUBLE - 50.0, &names, Key::Box);
        let frame = Frame {
            left: 46.0,
            top: head,
            width: DOUBLE - 50.0,
            height: 190.0,
            x: (0.0, self.boxes.len() as f64),
            y: (self.shown.low, self.shown.high),
        };
        frame.draw_y(&mut scene, &self.label);
        let bottom = frame.bottom();
        scene.line(vec![(frame.left, bottom), (frame.left + frame.width, bottom)], INK, 0.6, &[]);
        let group = frame.width / self.boxes.len() as f64;
        let pitch = (group * 0.86 / self.arms.len() as f64).min(34.0);
        for (g, boxes) in self.boxes.iter().enumerate() {
            let middle = frame.left + (g as f64 + 0.5) * group;
            let name = Structure::label_of(boxes.structure);
            scene.text((middle, bottom + 12.0), name, NORMAL, Anchor::Middle);
            note(&mut scene, (middle, bottom + 22.0), &boxes.n());
            for (a, (stats, look)) in boxes.arms.iter().zip(&looks).enumerate() {
                let middle = middle + (a as f64 - (self.arms.len() as f64 - 1.0) / 2.0) * pitch;
                let lane = Lane { frame: &frame, middle, half: (pitch * 0.36).min(10.0), is_flat: false };
                self.draw(&mut scene, &lane, stats.as_ref(), *look);
            }
        }
        scene
    }

    /// A panel per structure, in it a row per arm: names instead of colours.
    fn rows(&self) -> Scene {
        const STEP: f64 = 15.0;
        const LINE: f64 = 8.5;
        let across = self.boxes.len().min(2);
        let most = 150.0;
        let names: Vec<Vec<String>> =
            self.arms.iter().map(|arm| wrapped(arm.1, NORMAL, false, most)).collect();
        let left = 12.0 + names.iter().flatten().map(|n| text_width(n, NORMAL, false)).fold(0.0, f64::max);
        let gap = 14.0;
        let width = (DOUBLE - left - 6.0) / across as f64 - gap;
        let height = |lines: &Vec<String>| STEP + (lines.len() - 1) as f64 * LINE;
        let high: f64 = names.iter().map(height).sum();
        let step = high + 54.0;
        let mut scene = Scene::new(DOUBLE, self.boxes.len().div_ceil(across) as f64 * step);
        for (g, boxes) in self.boxes.iter().enumerate() {
            let frame = Frame {
                left: left + (g % across) as f64 * (width + gap),
                top: 18.0 + (g / across) as f64 * step,
                width,
                height: high,
                x: (self.shown.low, self.shown.high),
                y: (0.0, 1.0),
            };
            let title = Structure::label_of(boxes.structure);
            frame.title(&mut scene, title);
            let n = Text::new((frame.left + width, frame.top - 5.0), boxes.n(), SMALL, Anchor::End);
            scene.add(n.color(MUTED));
            let (values, decimals) = ticks(frame.x.0, frame.x.1, 5);
            for x in values.iter().map(|value| frame.at_x(*value)) {
                scene.line(vec![(x, frame.top), (x, frame.bottom())], FAINT, 0.5, &[]);
            }
            let named = values.into_iter().map(|value| (value, tick_label(value, decimals))).collect();
            frame.draw_x_at(&mut scene, &self.label, named);
            let mut y = frame.top;
            for (lines, stats) in names.iter().zip(&boxes.arms) {
                let middle = y + height(lines) / 2.0;
                y += height(lines);
                if g % across == 0 {
                    let first = middle + 0.36 * NORMAL - (lines.len() - 1) as f64 * LINE / 2.0;
                    for (i, line) in lines.iter().enumerate() {
                        let at = (left - 5.0, first + i as f64 * LINE);
                        scene.text(at, line.as_str(), NORMAL, Anchor::End);
                    }
                }
                let lane = Lane { frame: &frame, middle, half: 4.2, is_flat: true };
                self.draw(&mut scene, &lane, stats.as_ref(), NAMED);
            }
        }
        scene
    }

    fn draw(&self, scene: &mut Scene, lane: &Lane<'_>, stats: Option<&BoxStats>, look: Look) {
        let Some(stats) = stats else {
            let at = lane.at(self.shown.low, 0.0);
            let at = if lane.is_flat { (at.0 + 6.0, at.1 + 2.5) } else { (at.0, at.1 - 4.0) };
            scene.add(Text::new(at, "–", SMALL, Anchor::Middle));
            return;
        };
        let half = lane.half;
        for (end, near) in [(stats.whiskers.0, stats.q1), (stats.whiskers.1, stats.q3)] {
            scene.line(vec![lane.at(end, 0.0), lane.at(near, 0.0)], look.color, 0.8, &[]);
            scene.line(vec![lane.at(end, -0.5 * half), lane.at(end, 0.5 * half)], look.color, 0.8, &[]);
        }
        let (a, b) = (lane.at(stats.q1, -half), lane.at(stats.q3, half));
        let (corner, size) = ((a.0.min(b.0), a.1.min(b.1)), ((b.0 - a.0).abs(), (b.1 - a.1).abs()));
        scene.rect(corner, size, WHITE, 1.0);
        scene.rect(corner, size, look.color, 0.35);
        outline(scene, corner, size, look.color, 0.9);
        scene.line(vec![lane.at(stats.median, -half), lane.at(stats.median, half)], INK, 1.3, &[]);
        let mut last: Option<(f64, f64)> = None;
        for outlier in stats.outliers.iter().filter(|v| self.shown.contains(**v)) {
            let at = lane.at(*outlier, 0.0);
            // A point that another one hides is not drawn.
            if last.is_none_or(|last| (at.0 - last.0).hypot(at.1 - last.1) > HIDDEN) {
                scene.circle(at, 1.0, look.color);
                last = Some(at);
            }
        }
        look.draw_marker(scene, lane.at(stats.mean, 0.0), (half * 0.28).clamp(1.2, 2.2));
        let (below, above) = self.shown.beyond(stats);
        for (count, end, is_high) in [(below, self.shown.low, false), (above, self.shown.high, true)] {
            if count > 0 {
                let (x, y) = lane.at(end, 0.0);
                let (at, anchor) = match (lane.is_flat, is_high) {
                    (true, true) => ((x - 1.0, y - 1.5), Anchor::End),
                    (true, false) => ((x + 2.0, y - 1.5), Anchor::Start),
                    (false, true) => ((x, y + 4.0), Anchor::Middle),
                    (false, false) => ((x, y - 1.5), Anchor::Middle),
                };
                scene.add(Text::new(at, format!("+{count}"), 6.0, anchor).color(MUTED));
            }
        }
    }
}

impl Lane<'_> {
    /// A value on the axis, moved across it.
    fn at(&self, value: f64, across: f64) -> (f64, f64) {
        match self.is_flat {
            true => (self.frame.at_x(value), self.middle + across),
            false => (self.middle + across, self.frame.at_y(value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        aggregate::measurements_table,
        report::{fake, scene::Shape},
        vocabulary::Task,
    };

    fn drawn(arms: usize, spoil: impl Fn(&mut Measurement)) -> Figure {
        let mut input = fake::input(&fake::FakeShape { arms, seeds: 2, patients: 12, epochs: 1 });
        input.measurements.iter_mut().for_each(spoil);
        let rows = measurements_table(&input.measurements).unwrap();
        let arms = super::super::arms(&input);
        let of = TaskModel { task: Task::Segmentation, model: "monai-unet", several: false, arms: &arms };
        figure(&input, &rows, &of, Metric::Hd95).unwrap()
    }

    fn texts(figure: &Figure) -> Vec<&str> {
        let text = |shape: &'_ Shape| matches!(shape, Shape::Text(_));
        let shapes = figure.scene.shapes.iter().filter(|shape| text(shape));
        shapes
            .filter_map(|shape| if let Shape::Text(t) = shape { Some(t.text.as_str()) } else { None })
            .collect()
    }

    #[test]
    fn a_value_far_away_is_counted_and_does_not_squash_the_boxes() {
        let plain = drawn(3, |_| {});
        let far = drawn(3, |row| {
            if row.metric == "hd95"
                && row.patient == "patient0003"
                && row.view == "2CH"
                && row.structure == "endo"
            {
                row.value = 400.0;
            }
        });
        // Two images (ED and ES) of each of three arms.
        assert!(far.caption.contains("points lie beyond the axis (up to 400.00)"), "{}", far.caption);
        assert!(texts(&far).iter().filter(|text| **text == "+2").count() >= 3, "{:?}", texts(&far));
        assert!(!plain.caption.contains("400"), "{}", plain.caption);
        let highest = texts(&far).iter().filter_map(|text| text.parse::<f64>().ok()).fold(0.0, f64::max);
        assert!(highest < 100.0, "the axis ends at {highest}");
        assert!(texts(&far).iter().any(|text| text.contains("← lower is better")));
    }

    #[test]
    fn many_arms_have_rows_with_names_instead_of_colours() {
        let many = drawn(10, |_| {});
        let names = texts(&many).iter().filter(|text| **text == "duplicate-real 100 %").count();
        assert_eq!(names, 2, "beside the left one of two columns of panels");
        let colors = |figure: &Figure| {
            let polygons = figure.scene.shapes.iter().filter_map(|shape| match shape {
                Shape::Polygon { color, .. } if *color != WHITE => Some(*color),
                _ => None,
            });
            polygons.collect::<std::collections::BTreeSet<_>>().len()
        };
        assert_eq!((colors(&many), colors(&drawn(6, |_| {}))), (1, 6));
    }
}
