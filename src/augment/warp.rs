//! The warp: where every output pixel comes from, and what is there.
//!
//! An affine moves along a row by a constant step, so a row needs no trigonometry; and which of its
//! pixels lie wholly inside the picture is found by two divisions, so those need no test each.

use std::ops::Range;

use super::AugmentParams;

/// A picture to sample from.
pub(super) struct Source<'a> {
    pub pixels: &'a [u8],
    pub width: usize,
}

impl Source<'_> {
    /// The pixel's value, or `None` outside the picture.
    fn get(&self, x: i64, y: i64) -> Option<u8> {
        let (x, y) = (usize::try_from(x).ok()?, usize::try_from(y).ok()?);
        if x < self.width { self.pixels.get(y * self.width + x).copied() } else { None }
    }
}

/// Coordinates are fixed-point numbers with 32 bits after the point: steps add up exactly, and whole
/// part and fraction are a shift away.
const ONE: i64 = 1 << 32;

fn fixed(value: f64, most: f64) -> i64 {
    (value.clamp(-most, most) * ONE as f64).round() as i64
}

fn whole(value: i64) -> i64 {
    value >> 32
}

/// In [0, 1).
fn fraction(value: i64) -> f32 {
    // 24 bits: what an f32 holds.
    ((value as u32) >> 8) as i32 as f32 * (1.0 / (1 << 24) as f32)
}

/// To the nearest whole number, ties to even, as `grid_sample` does.
fn nearest(value: i64) -> i64 {
    (value + (ONE / 2 - 1) + (whole(value) & 1)) >> 32
}

/// Where the pixels of every output row come from.
pub(super) struct Lines {
    matrix: [f64; 6],
    step: (i64, i64),
    width: usize,
    height: usize,
}

impl Lines {
    pub fn new(params: &AugmentParams, width: usize, height: usize) -> Self {
        let matrix = params.inverse_matrix();
        // Bounds that keep every sum below within 64 bits; nothing that can be drawn comes near.
        let most = 8192.0;
        Self { matrix, step: (fixed(matrix[0], most), fixed(matrix[3], most)), width, height }
    }

    pub fn line(&self, y: usize) -> Line {
        let [m0, m1, m2, m3, m4, m5] = self.matrix;
        // Pixel centres, measured from the middle of the picture.
        let middle = ((self.width as f64 - 1.0) * 0.5, (self.height as f64 - 1.0) * 0.5);
        let (x, y) = (-middle.0, y as f64 - middle.1);
        let most = f64::from(1 << 29);
        let start =
            (fixed(m0 * x + m1 * y + m2 + middle.0, most), fixed(m3 * x + m4 * y + m5 + middle.1, most));
        let (w, h) = (self.width as i64 * ONE, self.height as i64 * ONE);
        let within = |low: i64, less: i64| {
            let x = span(start.0, self.step.0, low, w - less, self.width);
            let y = span(start.1, self.step.1, low, h - less, self.width);
            let first = x.start.max(y.start);
            first..x.end.min(y.end).max(first)
        };
        let touched = within(1 - ONE, 0);
        let inside = within(0, ONE);
        // An empty range may lie anywhere.
        let inside = if inside.is_empty() { touched.start..touched.start } else { inside };
        Line { start, step: self.step, touched, inside }
    }
}

/// The i in 0..n with low <= start + i step < high.
fn span(start: i64, step: i64, low: i64, high: i64, n: usize) -> Range<usize> {
    let ceil = |a: i64, b: i64| -(-a).div_euclid(b);
    let (first, end) = match step {
        0 if (low..high).contains(&start) => (0, i64::MAX),
        0 => (0, 0),
        1.. => (ceil(low - start, step), ceil(high - start, step)),
        _ => ((start - high).div_euclid(-step) + 1, (start - low).div_euclid(-step) + 1),
    };
    let clamp = |i: i64| usize::try_from(i).unwrap_or(0).min(n);
    let first = clamp(first);
    first..clamp(end).max(first)
}

/// One output row: pixel i comes from `start + i * step`.
pub(super) struct Line {
    start: (i64, i64),
    step: (i64, i64),
    /// The output pixels that see the picture at all.
    touched: Range<usize>,
    /// Those whose four neighbours are all in the picture: no test per pixel is needed.
    inside: Range<usize>,
}

impl Line {
    /// The coordinates that the output pixels `range` come from.
    fn points(&self, range: Range<usize>) -> impl Iterator<Item = (i64, i64)> {
        let first = range.start as i64;
        let mut x = self.start.0 + first * self.step.0;
        let mut y = self.start.1 + first * self.step.1;
        let step = self.step;
        range.map(move |_| {
            let here = (x, y);
            x += step.0;
            y += step.1;
            here
        })
    }

    /// Fills `row` with sampled greys, 0 to 255.
    pub fn bilinear(&self, source: &Source, row: &mut [f32]) {
        self.blank(row, 0.0);
        let at_border = [self.touched.start..self.inside.start, self.inside.end..self.touched.end];
        for range in at_border.into_iter().filter(|r| !r.is_empty()) {
            for (to, (x, y)) in row[range.clone()].iter_mut().zip(self.points(range)) {
                *to = bilinear_at_border(source, x, y);
            }
        }
        if self.inside.is_empty() {
            return;
        }
        let width = source.width;
        let row = &mut row[self.inside.clone()];
        for (to, (x, y)) in row.iter_mut().zip(self.points(self.inside.clone())) {
            let at = whole(y) as usize * width + whole(x) as usize;
            let window = &source.pixels[at..at + width + 2];
            let [a, b, c, d] = [window[0], window[1], window[width], window[width + 1]].map(f32::from);
            let (fx, fy) = (fraction(x), fraction(y));
            let above = a + (b - a) * fx;
            let below = c + (d - c) * fx;
            *to = above + (below - above) * fy;
        }
    }

    /// Fills `row` with greys of a cubic kernel, cut at 0 and 255. Pixels outside the picture are black.
    pub fn bicubic(&self, source: &Source, row: &mut [f32]) {
        let (width, height) = (source.width as i64, (source.pixels.len() / source.width.max(1)) as i64);
        let count = row.len();
        for (to, (x, y)) in row.iter_mut().zip(self.points(0..count)) {
            let (across, down) = (cubic_weights(fraction(x)), cubic_weights(fraction(y)));
            let (left, top) = (whole(x) - 1, whole(y) - 1);
            let inside = left >= 0 && top >= 0 && left + 4 <= width && top + 4 <= height;
            let mut value = 0.0;
            for (line, weight) in (top..).zip(down) {
                let taps: [f32; 4] = match inside {
                    true => {
                        let at = line as usize * source.width + left as usize;
                        [0, 1, 2, 3].map(|i| f32::from(source.pixels[at + i]))
                    }
                    false => [0, 1, 2, 3].map(|i| f32::from(source.get(left + i, line).unwrap_or(0))),
                };
                value += weight * taps.iter().zip(across).map(|(tap, weight)| tap * weight).sum::<f32>();
            }
            *to = value.clamp(0.0, 255.0);
        }
    }

    /// Fills `row` with the nearest pixels.
    pub fn nearest<T: Copy>(&self, source: &Source, row: &mut [T], convert: impl Fn(u8) -> T) {
        self.blank(row, convert(0));
        let at_border = [self.touched.start..self.inside.start, self.inside.end..self.touched.end];
        for range in at_border.into_iter().filter(|r| !r.is_empty()) {
            for (to, (x, y)) in row[range.clone()].iter_mut().zip(self.points(range)) {
                *to = convert(source.get(nearest(x), nearest(y)).unwrap_or(0));
            }
        }
        let row = &mut row[self.inside.clone()];
        for (to, (x, y)) in row.iter_mut().zip(self.points(self.inside.clone())) {
            *to = convert(source.pixels[nearest(y) as usize * source.width + nearest(x) as usize]);
        }
    }

    fn blank<T: Copy>(&self, row: &mut [T], value: T) {
        row[..self.touched.start].fill(value);
        row[self.touched.end..].fill(value);
    }
}

/// Weights of the pixels at -1, 0, 1 and 2 for a point `t` after pixel 0 (Keys 1981, a = -0.75).
fn cubic_weights(t: f32) -> [f32; 4] {
    const A: f32 = -0.75;
    let near = |d: f32| ((A + 2.0) * d - (A + 3.0)) * d * d + 1.0;
    let far = |d: f32| ((A * d - 5.0 * A) * d + 8.0 * A) * d - 4.0 * A;
    [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)]
}

/// torchvision samples a picture of ones beside the image and blends the fill in by it, so at the
/// border the weight inside the picture counts twice.
fn bilinear_at_border(source: &Source, x: i64, y: i64) -> f32 {
    let (fx, fy) = (fraction(x), fraction(y));
    let (x, y) = (whole(x), whole(y));
    let (mut value, mut weight) = (0.0, 0.0);
    for (dx, wx) in [(0, 1.0 - fx), (1, fx)] {
        for (dy, wy) in [(0, 1.0 - fy), (1, fy)] {
            if let Some(grey) = source.get(x + dx, y + dy) {
                value += f32::from(grey) * wx * wy;
                weight += wx * wy;
            }
        }
    }
    value * weight
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;
    use crate::{
        augment::{AugmentRange, draw},
        random,
    };

    /// The spans are a short cut: without them, pixel by pixel, the same must come out.
    #[test]
    fn short_cuts_change_nothing() {
        let range = AugmentRange {
            rotate_deg: 180.0,
            translate: 0.8,
            scale: (0.3, 3.0),
            shear_deg: (40.0, 40.0),
            ..AugmentRange::NONE
        };
        let (w, h) = (31, 22);
        let mut rng = random::rng(4, "noise", &[]);
        let image: Vec<u8> = (0..w * h).map(|_| rng.random()).collect();
        let source = Source { pixels: &image, width: w };
        for seed in 0..200 {
            let params = draw(&range, &mut random::rng(seed, "spans", &[]), w, h);
            let lines = Lines::new(&params, w, h);
            for y in 0..h {
                let (mut fast, mut mask) = (vec![f32::NAN; w], vec![99u8; w]);
                lines.line(y).bilinear(&source, &mut fast);
                lines.line(y).nearest(&source, &mut mask, u8::from);
                for (x, point) in lines.line(y).points(0..w).enumerate() {
                    let slow = bilinear_at_border(&source, point.0, point.1);
                    assert!((fast[x] - slow).abs() < 1e-3, "{params:?} {x} {y}");
                    let slow = source.get(nearest(point.0), nearest(point.1)).unwrap_or(0);
                    assert_eq!(mask[x], slow, "{params:?} {x} {y}");
                }
            }
        }
    }

    #[test]
    fn spans_hold_exactly_the_points_inside() {
        for start in -12..12 {
            for step in -5..=5 {
                for (low, high) in [(0, 7), (-3, 2), (4, 4), (5, 3)] {
                    let inside = |i: i64| (low..high).contains(&(start + i * step));
                    let span = span(start, step, low, high, 9);
                    let expected: Vec<usize> = (0..9).filter(|&i| inside(i as i64)).collect();
                    assert_eq!(span.collect::<Vec<_>>(), expected, "{start} {step} {low} {high}");
                }
            }
        }
    }
}
