//! Axes, ticks, legends, and the arms' colours, dashes and markers.

use super::scene::{Anchor, FAINT, INK, MUTED, Point, Rgb, Scene, Text, WHITE, fitted, text_width, wrapped};
use crate::vocabulary::Direction;

/// Font sizes in points: readable in print at the figure's own size.
pub(crate) const SMALL: f64 = 7.0;
pub(crate) const NORMAL: f64 = 8.0;

/// Lines of a title are this far apart.
pub(crate) const TITLE_LINE: f64 = 9.5;

/// Colours cannot distinguish more series than this in one panel: then each gets a panel or a row.
pub(crate) const MOST_SERIES: usize = 6;

/// Okabe and Ito (2008), distinguishable by the colour-blind; yellow is left out (too light on paper).
const COLORS: [Rgb; 7] = [
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
    (70, 70, 70),
];
const DASHES: [&[f64]; 5] = [&[], &[5.0, 2.0], &[1.5, 1.5], &[6.0, 1.8, 1.5, 1.8], &[9.0, 2.5]];

/// How an arm is drawn in every figure: colour, dash and marker together, so that arms differ in grey print too.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Look {
    pub color: Rgb,
    pub dash: &'static [f64],
    marker: usize,
}

/// No marker: a line that is there throughout.
const NONE: usize = usize::MAX;

/// The only series of a panel or a row that its title names.
pub(crate) const NAMED: Look = Look { color: COLORS[0], dash: &[], marker: 0 };
/// What may be called better, and what worse.
pub(crate) const BETTER: Look = Look { color: COLORS[0], dash: &[], marker: 0 };
pub(crate) const WORSE: Look = Look { color: COLORS[1], dash: &[], marker: 1 };
/// Real images only, where other things are shown against them: a full dark line without markers.
pub(crate) const REAL: Look = Look { color: INK, dash: &[], marker: NONE };
/// A control, such as repeated real images: the same in grey.
pub(crate) const CONTROL: Look = Look { color: MUTED, dash: &[6.0, 1.8, 1.5, 1.8], marker: 3 };
/// A baseline behind another curve.
pub(crate) const BEHIND: Look = Look { color: (150, 150, 150), dash: &[], marker: NONE };
/// A value to be reached.
pub(crate) const LEVEL: Look = Look { color: MUTED, dash: &[2.5, 2.0], marker: NONE };
/// A single estimate.
pub(crate) const POINT: Look = Look { color: INK, dash: &[], marker: 0 };

/// The look of the arm at `index`; no two of the first seven have the same colour.
pub(crate) fn look(index: usize) -> Look {
    Look { color: COLORS[index % COLORS.len()], dash: DASHES[index % DASHES.len()], marker: index % 6 }
}

/// The looks of the series of one figure, by their places in the whole report: an arm looks the same in every figure
/// as long as there are colours, and no colour is used twice in one.
pub(crate) fn looks(places: &[usize]) -> Vec<Look> {
    let has_own = places.iter().all(|place| *place < COLORS.len());
    places.iter().enumerate().map(|(i, place)| look(if has_own { *place } else { i })).collect()
}

/// The second line of an axis's label: which way is better. The arrow is turned with an upright label.
pub(crate) fn reading(direction: Direction) -> &'static str {
    match direction {
        Direction::Higher => "\nhigher is better →",
        Direction::Lower => "\n← lower is better",
        Direction::Reference | Direction::Neither => "",
    }
}

/// An axis's label in one line. Two plain spaces would become one in HTML.
pub(crate) fn in_one_line(label: &str) -> String {
    label.replace('\n', "\u{a0}\u{a0} ")
}

/// The lines of an axis's label: one where there is room for it.
fn label_lines(label: &str, room: f64) -> Vec<String> {
    let one = in_one_line(label);
    if text_width(&one, NORMAL, false) <= room {
        vec![one]
    } else {
        label.lines().map(str::to_owned).collect()
    }
}

impl Look {
    pub fn dashed(self, dash: &'static [f64]) -> Self {
        Self { dash, ..self }
    }

    /// A marker with a white edge.
    pub fn draw_marker(self, scene: &mut Scene, at: Point, size: f64) {
        self.draw_rings(scene, at, &[(size + 0.9, WHITE), (size, self.color)]);
    }

    /// Only its outline.
    pub fn draw_hollow_marker(self, scene: &mut Scene, at: Point, size: f64) {
        self.draw_rings(scene, at, &[(size + 0.9, WHITE), (size, self.color), (size * 0.6, WHITE)]);
    }

    fn draw_rings(self, scene: &mut Scene, (x, y): Point, rings: &[(f64, Rgb)]) {
        for &(r, color) in rings {
            let at = |points: &[(f64, f64)]| points.iter().map(|p| (x + r * p.0, y + r * p.1)).collect();
            match self.marker {
                0 => scene.circle((x, y), r, color),
                1 => scene.polygon(at(&[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]), color, 1.0),
                2 => scene.polygon(at(&[(0.0, -1.2), (1.1, 0.85), (-1.1, 0.85)]), color, 1.0),
                3 => scene.polygon(at(&[(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)]), color, 1.0),
                4 => scene.polygon(at(&[(0.0, 1.2), (1.1, -0.85), (-1.1, -0.85)]), color, 1.0),
                NONE => {}
                _ => {
                    let arm = if color == WHITE { 0.55 } else { 0.38 };
                    for (w, h) in [(1.1, arm), (arm, 1.1)] {
                        scene.polygon(at(&[(-w, -h), (w, -h), (w, h), (-w, h)]), color, 1.0);
                    }
                }
            }
        }
    }
}

/// Round numbers that cover `low..=high` with about `count` steps: (ticks, decimals to write them with).
pub(crate) fn ticks(low: f64, high: f64, count: usize) -> (Vec<f64>, usize) {
    let span = high - low;
    if !span.is_finite() || span <= 0.0 {
        return (vec![low], 2);
    }
    let rough = span / count.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .map(|s| s * power)
        .into_iter()
        .min_by(|a, b| (span / a - count as f64).abs().total_cmp(&(span / b - count as f64).abs()))
        .unwrap_or(rough);
    let decimals = (0..9).find(|&d| {
        let scaled = step * 10f64.powi(d);
        (scaled - scaled.round()).abs() < 1e-6 * scaled.abs()
    });
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    ((first..=last).map(|i| i as f64 * step).collect(), decimals.unwrap_or(2) as usize)
}

/// `12000` as `12 000` (thin spaces), small numbers with their decimals.
pub(crate) fn tick_label(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), None), |(w, r)| (w, Some(r)));
    let mut out = String::new();
    if value < 0.0 && text.chars().any(|c| ('1'..='9').contains(&c)) {
        out.push('−');
    }
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 && whole.len() > 4 {
            out.push('\u{a0}');
        }
        out.push(digit);
    }
    if let Some(rest) = rest {
        out.push('.');
        out += rest;
    }
    out
}

/// A plotting area inside a scene: the frame in points, and the data's ranges.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    pub left: f64,
    pub top: f64,
    pub width: f64,
    pub height: f64,
    pub x: (f64, f64),
    pub y: (f64, f64),
}

impl Frame {
    pub fn bottom(&self) -> f64 {
        self.top + self.height
    }

    pub fn at_x(&self, x: f64) -> f64 {
        self.left + self.width * (x - self.x.0) / (self.x.1 - self.x.0)
    }

    pub fn at_y(&self, y: f64) -> f64 {
        self.bottom() - self.height * (y - self.y.0) / (self.y.1 - self.y.0)
    }

    /// Horizontal grid lines with their numbers, and the label beside them.
    pub fn draw_y(&self, scene: &mut Scene, label: &str) {
        let (values, decimals) = ticks(self.y.0, self.y.1, (self.height / 26.0).clamp(3.0, 7.0) as usize);
        let named = values.into_iter().map(|value| (value, tick_label(value, decimals))).collect();
        self.draw_y_at(scene, label, named);
    }

    /// As [`Self::draw_y`], with grid lines where they are wanted.
    pub fn draw_y_at(&self, scene: &mut Scene, label: &str, ticks: Vec<(f64, String)>) {
        let mut widest: f64 = 0.0;
        for (value, text) in ticks {
            let y = self.at_y(value);
            scene.line(vec![(self.left, y), (self.left + self.width, y)], FAINT, 0.5, &[]);
            widest = widest.max(text_width(&text, SMALL, false));
            scene.text((self.left - 3.5, y + 0.36 * SMALL), text, SMALL, Anchor::End);
        }
        scene.line(vec![(self.left, self.top), (self.left, self.bottom())], INK, 0.6, &[]);
        let middle = self.top + self.height / 2.0;
        if label.is_empty() {
            return;
        }
        let lines = label_lines(label, self.height + 10.0);
        for (i, line) in lines.iter().rev().enumerate() {
            let x = self.left - widest - 8.0 - i as f64 * TITLE_LINE;
            scene.add(Text::new((x, middle), line.as_str(), NORMAL, Anchor::Middle).upright());
        }
    }

    /// The horizontal axis with ticks, numbers and label.
    pub fn draw_x(&self, scene: &mut Scene, label: &str) {
        let most = (self.width / 34.0).clamp(2.0, 8.0) as usize;
        let named = |count: usize| -> Vec<(f64, String)> {
            let (values, decimals) = ticks(self.x.0, self.x.1, count);
            values.into_iter().map(|value| (value, tick_label(value, decimals))).collect()
        };
        // As many as have room beside each other.
        let fits = |ticks: &Vec<(f64, String)>| {
            let widths = ticks.iter().map(|tick| text_width(&tick.1, SMALL, false) + 8.0);
            let apart = ticks.windows(2).map(|pair| self.at_x(pair[1].0) - self.at_x(pair[0].0));
            apart.fold(f64::INFINITY, f64::min) >= widths.fold(0.0, f64::max)
        };
        let ticks = (2..=most).rev().map(named).find(fits).unwrap_or_else(|| named(2));
        self.draw_x_at(scene, label, ticks);
    }

    /// As [`Self::draw_x`], with ticks where they are wanted.
    pub fn draw_x_at(&self, scene: &mut Scene, label: &str, ticks: Vec<(f64, String)>) {
        let y = self.bottom();
        scene.line(vec![(self.left, y), (self.left + self.width, y)], INK, 0.6, &[]);
        for (value, text) in ticks {
            let x = self.at_x(value);
            scene.line(vec![(x, y), (x, y + 2.5)], INK, 0.6, &[]);
            // At the edge of the drawing a number stands beside its tick.
            let half = text_width(&text, SMALL, false) / 2.0 + 2.0;
            let x = x.min(scene.width - half).max(half);
            scene.text((x, y + 4.0 + SMALL), text, SMALL, Anchor::Middle);
        }
        if !label.is_empty() {
            let label = in_one_line(label);
            scene.text(
                (self.left + self.width / 2.0, y + 7.0 + SMALL + NORMAL),
                label,
                NORMAL,
                Anchor::Middle,
            );
        }
    }

    /// Above the frame, in as many lines as it takes: see [`title_height`].
    pub fn title(&self, scene: &mut Scene, text: &str) {
        let lines = wrapped(text, NORMAL, true, self.width);
        for (i, line) in lines.iter().rev().enumerate() {
            let at = (self.left, self.top - 5.0 - i as f64 * TITLE_LINE);
            scene.add(Text::new(at, line.as_str(), NORMAL, Anchor::Start).bold());
        }
    }

    /// A line of data points, cut off at the frame; a NaN ends a piece and starts another.
    pub fn curve(&self, scene: &mut Scene, data: &[Point], look: Look, width: f64) {
        for piece in data.split(|p| !p.0.is_finite() || !p.1.is_finite()) {
            let points: Vec<Point> = piece.iter().map(|p| (self.at_x(p.0), self.at_y(p.1))).collect();
            if let [lone] = points[..]
                && (self.top..=self.bottom()).contains(&lone.1)
            {
                look.draw_marker(scene, lone, 1.6);
            }
            for visible in clipped(&points, self.top, self.bottom()) {
                scene.line(visible, look.color, width, look.dash);
            }
        }
    }

    /// The area between two curves over the same x.
    pub fn band(&self, scene: &mut Scene, data: &[(f64, f64, f64)], color: Rgb) {
        for piece in data.split(|p| !p.0.is_finite() || !p.1.is_finite() || !p.2.is_finite()) {
            let at = |x: f64, y: f64| (self.at_x(x), self.at_y(y));
            let mut points: Vec<Point> = piece.iter().map(|p| at(p.0, p.1)).collect();
            points.extend(piece.iter().rev().map(|p| at(p.0, p.2)));
            let points = below(&below(&points, self.top, 1.0), self.bottom(), -1.0);
            scene.polygon(points, color, 0.18);
        }
    }
}

/// The part of a polygon below a height (`sign` 1) or above it (-1): one side of Sutherland and Hodgman (1974).
fn below(polygon: &[Point], height: f64, sign: f64) -> Vec<Point> {
    let inside = |p: &Point| (p.1 - height) * sign >= 0.0;
    let mut kept = Vec::new();
    for (a, b) in polygon.iter().zip(polygon.iter().cycle().skip(1)) {
        if inside(a) {
            kept.push(*a);
        }
        if inside(a) != inside(b) {
            kept.push((a.0 + (b.0 - a.0) * (height - a.1) / (b.1 - a.1), height));
        }
    }
    kept
}

/// The parts of a line between two heights.
fn clipped(points: &[Point], top: f64, bottom: f64) -> Vec<Vec<Point>> {
    let (mut pieces, mut piece) = (Vec::new(), Vec::<Point>::new());
    for pair in points.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        let (mut t0, mut t1) = (0.0f64, 1.0f64);
        let dy = b.1 - a.1;
        if dy == 0.0 {
            if a.1 < top || a.1 > bottom {
                t1 = -1.0;
            }
        } else {
            let (u, v) = ((top - a.1) / dy, (bottom - a.1) / dy);
            t0 = t0.max(u.min(v));
            t1 = t1.min(u.max(v));
        }
        if t0 > t1 {
            pieces.push(std::mem::take(&mut piece));
            continue;
        }
        let at = |t: f64| (a.0 + t * (b.0 - a.0), a.1 + t * dy);
        if piece.is_empty() || t0 > 0.0 {
            pieces.push(std::mem::take(&mut piece));
            piece.push(at(t0));
        }
        piece.push(at(t1));
        if t1 < 1.0 {
            pieces.push(std::mem::take(&mut piece));
        }
    }
    pieces.push(piece);
    pieces.retain(|piece| piece.len() > 1);
    pieces
}

/// How much higher than one line the titles of panels of a width are.
pub(crate) fn title_height<'a>(titles: impl Iterator<Item = &'a str>, width: f64) -> f64 {
    let lines = titles.map(|title| wrapped(title, NORMAL, true, width).len()).max().unwrap_or(1);
    (lines - 1) as f64 * TITLE_LINE
}

/// What a legend shows before each name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Key {
    Line,
    Box,
}

/// A legend from `at` across `width` points: in one row where it fits, else in columns. Returns its height;
/// without a scene it only measures.
pub(crate) fn legend(
    scene: Option<&mut Scene>,
    (left, top): Point,
    width: f64,
    names: &[(String, Look)],
    key: Key,
) -> f64 {
    const ROW: f64 = 11.5;
    const GAP: f64 = 16.0;
    let key_width = if key == Key::Line { 26.0 } else { 13.0 };
    let widths: Vec<f64> =
        names.iter().map(|(name, _)| key_width + text_width(name, NORMAL, false) + GAP).collect();
    let one_row = widths.iter().sum::<f64>() <= width + GAP;
    let cell = widths.iter().copied().fold(1.0, f64::max).min(width);
    let columns = if one_row { names.len() } else { (width / cell).floor() as usize }.max(1);
    let rows = names.len().div_ceil(columns);
    let Some(scene) = scene else { return rows as f64 * ROW };
    let mut flow = left;
    for (i, ((name, look), own)) in names.iter().zip(&widths).enumerate() {
        let x = if one_row { flow } else { left + (i % columns) as f64 * cell };
        flow += own;
        let y = top + (i / columns) as f64 * ROW + 6.0;
        match key {
            Key::Line => {
                scene.line(vec![(x, y), (x + 22.0, y)], look.color, 1.4, look.dash);
                look.draw_marker(scene, (x + 11.0, y), 2.4);
            }
            Key::Box => {
                scene.rect((x, y - 4.0), (9.0, 8.0), look.color, 0.35);
                outline(scene, (x, y - 4.0), (9.0, 8.0), look.color, 0.9);
                look.draw_marker(scene, (x + 4.5, y), 2.0);
            }
        }
        let room = if one_row { width } else { cell - key_width };
        scene.text((x + key_width, y + 0.36 * NORMAL), fitted(name, NORMAL, room), NORMAL, Anchor::Start);
    }
    rows as f64 * ROW
}

pub(crate) fn outline(scene: &mut Scene, (x, y): Point, (w, h): Point, color: Rgb, width: f64) {
    scene.line(vec![(x, y), (x + w, y), (x + w, y + h), (x, y + h), (x, y)], color, width, &[]);
}

/// A remark inside a figure.
pub(crate) fn note(scene: &mut Scene, at: Point, text: &str) {
    scene.add(Text::new(at, text, SMALL, Anchor::Middle).color(MUTED));
}

/// Panels in rows across a page's width: the frames' left edges and width.
pub(crate) fn columns(page: f64, count: usize, gap: f64) -> Vec<(f64, f64)> {
    let width = (page - 8.0 - gap * count as f64) / count.max(1) as f64;
    (0..count).map(|i| (gap + i as f64 * (width + gap), width)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(0.0, 1.0, 5), (vec![0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0], 1));
        assert_eq!(ticks(0.0, 8000.0, 4), (vec![0.0, 2000.0, 4000.0, 6000.0, 8000.0], 0));
        let (values, decimals) = ticks(0.843, 0.912, 4);
        assert_eq!((values.len(), decimals), (3, 2)); // 0.86, 0.88, 0.90
        assert_eq!(ticks(1.0, 1.0, 4).0, [1.0]);
        assert_eq!(ticks(f64::NAN, 1.0, 4).0.len(), 1);
        assert_eq!(tick_label(12000.0, 0), "12\u{a0}000");
        assert_eq!(tick_label(4000.0, 0), "4000");
        assert_eq!(tick_label(-0.5, 1), "−0.5");
        assert_eq!(tick_label(-0.01, 1), "0.0");
    }

    #[test]
    fn a_line_is_cut_at_the_frame() {
        let pieces = clipped(&[(0.0, 0.0), (10.0, 20.0), (20.0, 0.0)], 5.0, 10.0);
        assert_eq!(pieces, [vec![(2.5, 5.0), (5.0, 10.0)], vec![(15.0, 10.0), (17.5, 5.0)]]);
        assert!(clipped(&[(0.0, 0.0), (9.0, 0.0)], 5.0, 10.0).is_empty());
    }

    #[test]
    fn a_polygon_is_cut_at_a_height() {
        let triangle = [(0.0, 0.0), (10.0, 10.0), (0.0, 10.0)];
        assert_eq!(below(&triangle, 5.0, 1.0), [(5.0, 5.0), (10.0, 10.0), (0.0, 10.0), (0.0, 5.0)]);
        assert!(below(&triangle, 11.0, 1.0).is_empty());
        assert_eq!(below(&triangle, 11.0, -1.0), triangle);
    }

    #[test]
    fn no_colour_is_used_twice_in_a_figure() {
        for places in [vec![0, 1, 2, 3, 4, 5], vec![6, 0, 5], vec![3, 7, 10, 14, 0, 21]] {
            let looks = looks(&places);
            for i in 0..looks.len() {
                assert!((0..i).all(|j| looks[i].color != looks[j].color), "{places:?}");
            }
        }
        assert_eq!(looks(&[2, 4]), [look(2), look(4)]);
    }
}
