//! A figure as a list of shapes in points (1/72 inch), y downwards, from the top left corner.
//!
//! Figures are laid out here once and drawn three times, as SVG ([`super::svg`]), PDF ([`super::pdf`]) and PNG
//! ([`super::render`]), so that all show the same.

use ab_glyph::{Font, FontRef, ScaleFont};

use super::picture_data::Grey;

pub(crate) const REGULAR: &[u8] = include_bytes!("fonts/Arimo-Regular.ttf");
pub(crate) const BOLD: &[u8] = include_bytes!("fonts/Arimo-Bold.ttf");

/// Width of one and of two columns of a journal page, in points: 85 and 180 mm.
pub(crate) const SINGLE: f64 = 85.0 / 25.4 * 72.0;
pub(crate) const DOUBLE: f64 = 180.0 / 25.4 * 72.0;

pub(crate) type Rgb = (u8, u8, u8);
pub(crate) type Point = (f64, f64);

pub(crate) const INK: Rgb = (34, 34, 34);
pub(crate) const FAINT: Rgb = (226, 226, 226);
pub(crate) const MUTED: Rgb = (95, 95, 95);
pub(crate) const WHITE: Rgb = (255, 255, 255);

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

#[derive(Debug, Clone)]
pub(crate) struct Text {
    pub at: Point,
    pub text: String,
    /// Font size in points; `at` is on the baseline.
    pub size: f64,
    pub bold: bool,
    pub color: Rgb,
    pub anchor: Anchor,
    /// Reads from bottom to top.
    pub upright: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Shape {
    /// Dashes are lengths of ink and gap in points; empty is a full line.
    Line {
        points: Vec<Point>,
        color: Rgb,
        width: f64,
        dash: &'static [f64],
    },
    Polygon {
        points: Vec<Point>,
        color: Rgb,
        alpha: f64,
    },
    Circle {
        center: Point,
        radius: f64,
        color: Rgb,
    },
    Text(Text),
    /// A grey picture stretched over a rectangle (x, y, width, height).
    Picture {
        picture: Grey,
        place: (f64, f64, f64, f64),
    },
}

/// Everything that a figure shows.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    pub width: f64,
    pub height: f64,
    pub shapes: Vec<Shape>,
}

impl Scene {
    pub fn new(width: f64, height: f64) -> Self {
        Self { width, height, shapes: Vec::new() }
    }

    pub fn line(&mut self, points: Vec<Point>, color: Rgb, width: f64, dash: &'static [f64]) {
        let points = simplified(points, SEEN);
        if points.len() > 1 {
            self.shapes.push(Shape::Line { points, color, width, dash });
        }
    }

    pub fn polygon(&mut self, points: Vec<Point>, color: Rgb, alpha: f64) {
        let points = simplified(points, if alpha < 0.3 { SEEN_PALE } else { SEEN });
        if points.len() > 2 {
            self.shapes.push(Shape::Polygon { points, color, alpha });
        }
    }

    pub fn rect(&mut self, (x, y): Point, (width, height): Point, color: Rgb, alpha: f64) {
        let points = vec![(x, y), (x + width, y), (x + width, y + height), (x, y + height)];
        self.polygon(points, color, alpha);
    }

    pub fn circle(&mut self, center: Point, radius: f64, color: Rgb) {
        self.shapes.push(Shape::Circle { center, radius, color });
    }

    pub fn text(&mut self, at: Point, text: impl Into<String>, size: f64, anchor: Anchor) {
        self.add(Text::new(at, text, size, anchor));
    }

    pub fn add(&mut self, text: Text) {
        self.shapes.push(Shape::Text(text));
    }
}

impl Text {
    pub fn new(at: Point, text: impl Into<String>, size: f64, anchor: Anchor) -> Self {
        Self { at, text: text.into(), size, bold: false, color: INK, anchor, upright: false }
    }

    pub fn bold(mut self) -> Self {
        self.bold = true;
        self
    }

    pub fn color(mut self, color: Rgb) -> Self {
        self.color = color;
        self
    }

    /// Turned to read from bottom to top.
    pub fn upright(mut self) -> Self {
        self.upright = true;
        self
    }
}

/// A point that lies no farther than this from the line without it is not drawn, in points.
const SEEN: f64 = 0.05;
/// The same for the edge of a pale area.
const SEEN_PALE: f64 = 0.15;

/// The points that a line needs: the method of Douglas and Peucker (1973).
fn simplified(points: Vec<Point>, seen: f64) -> Vec<Point> {
    if points.len() < 3 {
        return points;
    }
    let mut needed = vec![false; points.len()];
    let mut parts = vec![(0, points.len() - 1)];
    while let Some((from, to)) = parts.pop() {
        (needed[from], needed[to]) = (true, true);
        let off = |i: &usize| distance(points[*i], points[from], points[to]);
        let farthest = (from + 1..to).max_by(|a, b| off(a).total_cmp(&off(b)));
        if let Some(i) = farthest.filter(|i| off(i) > seen) {
            parts.extend([(from, i), (i, to)]);
        }
    }
    points.into_iter().zip(needed).filter_map(|(point, needed)| needed.then_some(point)).collect()
}

/// From a point to the line between two others.
fn distance(at: Point, from: Point, to: Point) -> f64 {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let squared = dx * dx + dy * dy;
    let along = if squared > 0.0 { ((at.0 - from.0) * dx + (at.1 - from.1) * dy) / squared } else { 0.0 };
    let along = along.clamp(0.0, 1.0);
    (at.0 - from.0 - along * dx).hypot(at.1 - from.1 - along * dy)
}

pub(crate) fn font(bold: bool) -> Option<FontRef<'static>> {
    FontRef::try_from_slice(if bold { BOLD } else { REGULAR }).ok()
}

/// A glyph's outline id and its pen position, both at `size` units per em.
pub(crate) fn layout(text: &str, size: f64, bold: bool) -> (Vec<ab_glyph::Glyph>, f64) {
    let Some(font) = font(bold) else { return (Vec::new(), 0.0) };
    let scale = em_scale(&font, size);
    let font = font.as_scaled(scale);
    let (mut pen, mut glyphs, mut before) = (0.0f32, Vec::new(), None);
    for c in text.chars() {
        let id = font.glyph_id(c);
        if let Some(before) = before {
            pen += font.kern(before, id);
        }
        glyphs.push(id.with_scale_and_position(scale, ab_glyph::point(pen, 0.0)));
        pen += font.h_advance(id);
        before = Some(id);
    }
    (glyphs, f64::from(pen))
}

pub(crate) fn outlines(text: &str, size: f64, bold: bool) -> (Vec<ab_glyph::OutlinedGlyph>, f64) {
    let (glyphs, width) = layout(text, size, bold);
    let Some(font) = font(bold) else { return (Vec::new(), width) };
    (glyphs.into_iter().filter_map(|glyph| font.outline_glyph(glyph)).collect(), width)
}

/// ab_glyph scales by ascent - descent; type is set by the em.
pub(crate) fn em_scale(font: &FontRef<'_>, size: f64) -> ab_glyph::PxScale {
    let em = f64::from(font.units_per_em().unwrap_or(2048.0));
    ab_glyph::PxScale::from((size * f64::from(font.height_unscaled()) / em) as f32)
}

/// Width of a line of text in points.
pub(crate) fn text_width(text: &str, size: f64, bold: bool) -> f64 {
    layout(text, size, bold).1
}

/// Shortens a text to a width in points, with an ellipsis.
pub(crate) fn fitted(text: &str, size: f64, width: f64) -> String {
    if text_width(text, size, false) <= width {
        return text.to_owned();
    }
    let mut kept: Vec<char> = text.chars().collect();
    while kept.pop().is_some() {
        let shorter = format!("{}…", kept.iter().collect::<String>().trim_end());
        if text_width(&shorter, size, false) <= width {
            return shorter;
        }
    }
    "…".to_owned()
}

/// Breaks a text between words into lines of at most a width in points. A word that is wider is broken anywhere.
pub(crate) fn wrapped(text: &str, size: f64, bold: bool, width: f64) -> Vec<String> {
    let fits = |text: &str| text_width(text, size, bold) <= width;
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split(' ') {
        let longer = if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
        if fits(&longer) {
            line = longer;
            continue;
        }
        if !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
        for c in word.chars() {
            let longer = format!("{line}{c}");
            if !fits(&longer) && !line.is_empty() {
                lines.push(std::mem::take(&mut line));
            }
            line.push(c);
        }
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_that_nobody_sees_are_not_drawn() {
        let line = vec![(0.0, 0.0), (1.0, 0.04), (2.0, -0.04), (3.0, 0.0), (3.0, 5.0)];
        assert_eq!(simplified(line, SEEN), [(0.0, 0.0), (3.0, 0.0), (3.0, 5.0)]);
        let closed = vec![(0.0, 0.0), (2.0, 0.0), (2.0, 2.0), (0.0, 2.0), (0.0, 0.0)];
        assert_eq!(simplified(closed.clone(), SEEN), closed);
        assert_eq!(simplified(vec![(1.0, 1.0), (1.0, 1.0), (1.0, 1.0)], SEEN).len(), 2);
        let peak = vec![(0.0, 0.0), (1.0, 0.06), (2.0, 0.0)];
        assert_eq!(simplified(peak.clone(), SEEN), peak);
    }

    #[test]
    fn every_letter_of_a_wrapped_text_is_kept() {
        let text = "real + 100 % text-segmentation with averylongwordwithoutanyspace in it";
        let lines = wrapped(text, 8.0, false, 60.0);
        assert!(
            lines.len() > 3 && lines.iter().all(|line| text_width(line, 8.0, false) <= 60.0),
            "{lines:?}"
        );
        let letters = |text: &str| text.replace(' ', "");
        assert_eq!(letters(&lines.concat()), letters(text));
        assert_eq!(wrapped("real", 8.0, false, 60.0), ["real"]);
    }
}
