//! Draws a [`Scene`] as PNG with plotters' bitmap backend.

use plotters::prelude::*;

use super::{
    picture_data::{png, with_resolution},
    scene::{Anchor, Point, Rgb, Scene, Shape, Text, outlines},
};
use crate::error::{Error, Result};

/// Resolution of a PNG.
const DPI: f64 = 300.0;
/// The bitmap is drawn this many times larger and averaged down: smooth edges.
const OVERSAMPLING: usize = 2;

fn failure(e: impl std::fmt::Display) -> Error {
    Error::failure(format!("cannot draw a figure: {e}"))
}

fn rgb(color: Rgb, alpha: f64) -> RGBAColor {
    RGBAColor(color.0, color.1, color.2, alpha)
}

fn whole(point: Point, scale: f64) -> (i32, i32) {
    ((point.0 * scale).round() as i32, (point.1 * scale).round() as i32)
}

/// Cuts a line into its dashes (lengths of ink and gap in points).
fn dashes(points: &[Point], pattern: &[f64]) -> Vec<Vec<Point>> {
    if pattern.is_empty() {
        return vec![points.to_vec()];
    }
    let (mut pieces, mut piece) = (Vec::new(), Vec::new());
    let (mut index, mut left) = (0, pattern[0]);
    for pair in points.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        let length = (b.0 - a.0).hypot(b.1 - a.1);
        let mut done = 0.0;
        if index % 2 == 0 && piece.is_empty() {
            piece.push(a);
        }
        while length - done > left {
            done += left;
            let at = (a.0 + (b.0 - a.0) * done / length, a.1 + (b.1 - a.1) * done / length);
            if index % 2 == 0 {
                piece.push(at);
                pieces.push(std::mem::take(&mut piece));
            } else {
                piece = vec![at];
            }
            index = (index + 1) % pattern.len();
            left = pattern[index];
        }
        left -= length - done;
        if index % 2 == 0 {
            piece.push(b);
        }
    }
    if piece.len() > 1 {
        pieces.push(piece);
    }
    pieces
}

/// The PNG file's bytes, at 300 dots per inch.
pub(crate) fn bitmap(scene: &Scene) -> Result<Vec<u8>> {
    let (width, height) =
        ((scene.width / 72.0 * DPI).round() as usize, (scene.height / 72.0 * DPI).round() as usize);
    let (wide, high) = (width * OVERSAMPLING, height * OVERSAMPLING);
    let scale = DPI / 72.0 * OVERSAMPLING as f64;
    let mut pixels = vec![255u8; wide * high * 3];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, (wide as u32, high as u32)).into_drawing_area();
        for shape in &scene.shapes {
            match shape {
                Shape::Line { points, color, width, dash } => {
                    for piece in dashes(points, dash) {
                        stroke(&area, &piece, *color, width * scale, scale, dash.is_empty())?;
                    }
                }
                Shape::Polygon { points, color, alpha } => {
                    let points: Vec<(i32, i32)> = points.iter().map(|p| whole(*p, scale)).collect();
                    area.draw(&Polygon::new(points, rgb(*color, *alpha))).map_err(failure)?;
                }
                Shape::Circle { center, radius, color } => {
                    disc(&area, *center, radius * scale, *color, scale)?
                }
                Shape::Text(t) => bitmap_text(&area, t, scale)?,
                Shape::Picture { picture, place } => bitmap_picture(&area, picture, *place, scale)?,
            }
        }
        area.present().map_err(failure)?;
    }
    let small = averaged(&pixels, width, height);
    Ok(with_resolution(&png(&small, width, height, image::ExtendedColorType::Rgb8)?, DPI))
}

/// The mean of each square of 2 x 2 pixels.
fn averaged(pixels: &[u8], width: usize, height: usize) -> Vec<u8> {
    let wide = width * OVERSAMPLING * 3;
    let mut small = vec![0; width * height * 3];
    for y in 0..height {
        let (above, below) = pixels[OVERSAMPLING * y * wide..][..OVERSAMPLING * wide].split_at(wide);
        let row = &mut small[y * width * 3..][..width * 3];
        for (i, mean) in row.iter_mut().enumerate() {
            let at = i / 3 * 6 + i % 3;
            let sum = [above[at], above[at + 3], below[at], below[at + 3]].map(u16::from);
            *mean = ((sum[0] + sum[1] + sum[2] + sum[3] + 2) / 4) as u8;
        }
    }
    small
}

type Area<'a, 'b> = DrawingArea<BitMapBackend<'b>, plotters::coord::Shift>;

fn disc(area: &Area<'_, '_>, center: Point, radius: f64, color: Rgb, scale: f64) -> Result<()> {
    let circle = Circle::new(whole(center, scale), radius.round() as i32, rgb(color, 1.0).filled());
    area.draw(&circle).map_err(failure)
}

/// A line as one rectangle per segment with round joints: plotters' own thick paths throw spikes at sharp turns.
fn stroke(
    area: &Area<'_, '_>,
    points: &[Point],
    color: Rgb,
    width: f64,
    scale: f64,
    round: bool,
) -> Result<()> {
    let half = width.max(1.0) / 2.0;
    for pair in points.windows(2) {
        let (a, b) = ((pair[0].0 * scale, pair[0].1 * scale), (pair[1].0 * scale, pair[1].1 * scale));
        let length = (b.0 - a.0).hypot(b.1 - a.1);
        if length == 0.0 {
            continue;
        }
        let (nx, ny) = (-(b.1 - a.1) / length * half, (b.0 - a.0) / length * half);
        let corners =
            [(a.0 + nx, a.1 + ny), (b.0 + nx, b.1 + ny), (b.0 - nx, b.1 - ny), (a.0 - nx, a.1 - ny)]
                .map(|p| whole(p, 1.0))
                .to_vec();
        area.draw(&Polygon::new(corners, rgb(color, 1.0))).map_err(failure)?;
    }
    if round && half >= 2.0 {
        for joint in points.iter().skip(1).take(points.len().saturating_sub(2)) {
            disc(area, *joint, half, color, scale)?;
        }
    }
    Ok(())
}

/// Text from glyph outlines: plotters' own drops each glyph's side bearing.
fn bitmap_text(area: &Area<'_, '_>, t: &Text, scale: f64) -> Result<()> {
    let (glyphs, width) = outlines(&t.text, t.size * scale, t.bold);
    let shift = match t.anchor {
        Anchor::Start => 0.0,
        Anchor::Middle => -width / 2.0,
        Anchor::End => -width,
    };
    let (x0, y0) = (t.at.0 * scale, t.at.1 * scale);
    let mut result = Ok(());
    for glyph in glyphs {
        let bounds = glyph.px_bounds();
        glyph.draw(|x, y, coverage| {
            let along = shift + f64::from(bounds.min.x) + f64::from(x);
            let below = f64::from(bounds.min.y) + f64::from(y);
            let (x, y) = if t.upright { (x0 + below, y0 - along) } else { (x0 + along, y0 + below) };
            if coverage > 0.0 && result.is_ok() {
                let at = (x.round() as i32, y.round() as i32);
                result = area.draw_pixel(at, &rgb(t.color, f64::from(coverage.min(1.0))));
            }
        });
    }
    result.map_err(failure)
}

/// Stretched with bilinear interpolation, pixel centres at halves.
fn bitmap_picture(
    area: &Area<'_, '_>,
    picture: &super::picture_data::Grey,
    place: (f64, f64, f64, f64),
    scale: f64,
) -> Result<()> {
    let (left, top) = whole((place.0, place.1), scale);
    let (right, bottom) = whole((place.0 + place.2, place.1 + place.3), scale);
    let (w, h) = (picture.width, picture.height);
    if w == 0 || h == 0 || picture.pixels.len() < w * h {
        return Ok(());
    }
    let sample = |at: f64, n: usize| {
        let at = at.clamp(0.0, (n - 1) as f64);
        (at.floor() as usize, (at.floor() as usize + 1).min(n - 1), at - at.floor())
    };
    let mut pixels = Vec::new();
    for y in top..bottom {
        let (y0, y1, fy) = sample((f64::from(y - top) + 0.5) / f64::from(bottom - top) * h as f64 - 0.5, h);
        for x in left..right {
            let (x0, x1, fx) =
                sample((f64::from(x - left) + 0.5) / f64::from(right - left) * w as f64 - 0.5, w);
            let at = |x: usize, y: usize| f64::from(picture.pixels[y * w + x]);
            let above = at(x0, y0) * (1.0 - fx) + at(x1, y0) * fx;
            let below = at(x0, y1) * (1.0 - fx) + at(x1, y1) * fx;
            pixels.extend([(above * (1.0 - fy) + below * fy).round() as u8; 3]);
        }
    }
    let size = ((right - left).max(0) as u32, (bottom - top).max(0) as u32);
    // None only where the buffer is smaller than the size.
    BitMapElement::with_owned_buffer((left, top), size, pixels)
        .map_or(Ok(()), |element| area.draw(&element).map_err(failure))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_keep_their_lengths_round_corners() {
        let line = [(0.0, 0.0), (5.0, 0.0), (5.0, 5.0)];
        let pieces = dashes(&line, &[4.0, 2.0]);
        let length =
            |p: &Vec<Point>| -> f64 { p.windows(2).map(|w| (w[1].0 - w[0].0).hypot(w[1].1 - w[0].1)).sum() };
        let lengths: Vec<f64> = pieces.iter().map(length).collect();
        assert_eq!(lengths, [4.0, 4.0]);
        assert_eq!(pieces[1], [(5.0, 1.0), (5.0, 5.0)]);
        assert_eq!(dashes(&line, &[]).len(), 1);
    }

    #[test]
    fn the_bitmap_has_300_dots_per_inch_and_ink_where_the_text_is() {
        let mut scene = Scene::new(72.0, 36.0);
        scene.text((36.0, 24.0), "Dice", 12.0, Anchor::Middle);
        let decoded = image::load_from_memory(&bitmap(&scene).unwrap()).unwrap().into_rgb8();
        assert_eq!(decoded.dimensions(), (300, 150));
        let dark = |x0: u32, x1: u32| (x0..x1).any(|x| (0..150).any(|y| decoded.get_pixel(x, y)[0] < 80));
        assert!(dark(100, 200) && !dark(0, 90) && !dark(210, 300));
    }
}
