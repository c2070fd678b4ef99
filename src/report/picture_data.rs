//! Pictures inside figures: PNG bytes, `data:` addresses and outlines of masks.

use std::{collections::BTreeMap, io::Cursor};

use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};

use crate::{
    error::{Error, Result},
    picture::Picture,
};

/// A grey picture that a figure shows.
pub(crate) type Grey = Picture;

/// PNG bytes of grey (`L8`) or colour (`Rgb8`) pixels.
pub(crate) fn png(pixels: &[u8], width: usize, height: usize, color: ExtendedColorType) -> Result<Vec<u8>> {
    use image::codecs::png::{CompressionType, FilterType};
    let mut bytes = Cursor::new(Vec::new());
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Default, FilterType::Adaptive)
        .write_image(pixels, width as u32, height as u32, color)
        .map_err(|e| Error::failure(format!("cannot encode a figure as PNG: {e}")))?;
    Ok(bytes.into_inner())
}

/// Above this no fault of JPEG is seen in speckle.
const QUALITY: u8 = 90;

/// A grey picture as a file inside a figure.
pub(crate) enum PictureFile {
    /// Exact. Masks are smaller so.
    Png(Vec<u8>),
    /// Photographs are smaller so.
    Jpeg(Vec<u8>),
}

impl PictureFile {
    /// The smaller of the two.
    pub fn of(picture: &Grey) -> Result<Self> {
        let exact = png(&picture.pixels, picture.width, picture.height, ExtendedColorType::L8)?;
        let mut jpeg = Vec::new();
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, QUALITY)
            .write_image(&picture.pixels, picture.width as u32, picture.height as u32, ExtendedColorType::L8)
            .map_err(|e| Error::failure(format!("cannot encode a figure as JPEG: {e}")))?;
        Ok(if exact.len() <= jpeg.len() { Self::Png(exact) } else { Self::Jpeg(jpeg) })
    }
}

/// Writes the size in print into a PNG: a `pHYs` chunk after the header, in dots per inch.
pub(crate) fn with_resolution(png: &[u8], dpi: f64) -> Vec<u8> {
    // Signature (8 bytes) and IHDR (4 length, 4 type, 13 data, 4 check) come first in every PNG.
    const HEAD: usize = 33;
    let Some((head, rest)) = png.split_at_checked(HEAD) else { return png.to_vec() };
    let per_metre = ((dpi / 0.0254).round() as u32).to_be_bytes();
    let mut chunk = b"pHYs".to_vec();
    chunk.extend(per_metre);
    chunk.extend(per_metre);
    chunk.push(1); // the unit is the metre
    let check = crc32(&chunk).to_be_bytes();
    [head, &9u32.to_be_bytes(), &chunk, &check, rest].concat()
}

/// The PNG specification's check sum (annex D).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(
            crc ^ u32::from(byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 },
        )
    })
}

/// Closed outlines of the pixels of one class, along pixel edges, in pixels (0, 0 is the top left corner
/// of the top left pixel). With `rounds` above 0 stairs become slopes (edge midpoints are joined), whose
/// corners are then cut (Chaikin 1974) that many times: at most half a pixel is moved.
pub(crate) fn outlines(mask: &Picture, class: u8, rounds: usize) -> Vec<Vec<(f64, f64)>> {
    let inside = |x: i64, y: i64| {
        x >= 0
            && y >= 0
            && (x as usize) < mask.width
            && (y as usize) < mask.height
            && mask.pixels.get(y as usize * mask.width + x as usize) == Some(&class)
    };
    // Every edge between inside and outside, walked with the inside on the right.
    let mut edges: BTreeMap<(i64, i64), Vec<(i64, i64)>> = BTreeMap::new();
    for y in 0..mask.height as i64 {
        for x in (0..mask.width as i64).filter(|&x| inside(x, y)) {
            let mut edge = |from, to| edges.entry(from).or_default().push(to);
            if !inside(x, y - 1) {
                edge((x, y), (x + 1, y));
            }
            if !inside(x + 1, y) {
                edge((x + 1, y), (x + 1, y + 1));
            }
            if !inside(x, y + 1) {
                edge((x + 1, y + 1), (x, y + 1));
            }
            if !inside(x - 1, y) {
                edge((x, y + 1), (x, y));
            }
        }
    }
    let mut loops = Vec::new();
    while let Some((&start, _)) = edges.iter().next() {
        let (mut outline, mut at) = (Vec::new(), start);
        while let Some(nexts) = edges.get_mut(&at) {
            outline.push((at.0 as f64, at.1 as f64));
            let next = nexts.pop();
            if nexts.is_empty() {
                edges.remove(&at);
            }
            match next {
                Some(next) if next != start => at = next,
                _ => break,
            }
        }
        if rounds > 0 {
            outline = midpoints(&outline);
        }
        for _ in 0..rounds {
            outline = cut_corners(&outline);
        }
        if let Some(&first) = outline.first() {
            outline.push(first);
        }
        loops.push(outline);
    }
    loops
}

fn midpoints(outline: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let next = outline.iter().cycle().skip(1);
    outline.iter().zip(next).map(|(a, b)| ((a.0 + b.0) / 2.0, (a.1 + b.1) / 2.0)).collect()
}

fn cut_corners(outline: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let next = outline.iter().cycle().skip(1);
    outline
        .iter()
        .zip(next)
        .flat_map(|(a, b)| {
            [
                (0.75 * a.0 + 0.25 * b.0, 0.75 * a.1 + 0.25 * b.1),
                (0.25 * a.0 + 0.75 * b.0, 0.25 * a.1 + 0.75 * b.1),
            ]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_png_with_its_resolution_is_still_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        let plain = png(&[0, 50, 100, 150], 2, 2, ExtendedColorType::L8).unwrap();
        let sized = with_resolution(&plain, 300.0);
        assert_eq!(sized.len(), plain.len() + 21);
        assert_eq!(&sized[37..46], b"pHYs\x00\x00\x2e\x23\x00");
        let pixels = image::load_from_memory(&sized).unwrap().into_luma8().into_raw();
        assert_eq!(pixels, [0, 50, 100, 150]);
    }

    #[test]
    fn masks_stay_exact_and_photographs_become_small() {
        let mut mask = Picture::new(64, 64);
        mask.pixels[100..2000].fill(3);
        assert!(matches!(PictureFile::of(&mask).unwrap(), PictureFile::Png(_)));
        let mut noise = Picture::new(64, 64);
        let mut state = 1u32;
        for (i, pixel) in noise.pixels.iter_mut().enumerate() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *pixel = 60 + (i / 64) as u8 + (state >> 27) as u8;
        }
        let PictureFile::Jpeg(bytes) = PictureFile::of(&noise).unwrap() else { panic!("not a JPEG") };
        let read = image::load_from_memory(&bytes).unwrap().into_luma8();
        let off = read.pixels().zip(&noise.pixels).map(|(a, b)| a.0[0].abs_diff(*b)).max().unwrap();
        assert!(off < 24, "{off}");
    }

    #[test]
    fn outlines_go_round_every_part_and_hole() {
        let mut mask = Picture::new(6, 5);
        for y in 0..3 {
            for x in 0..3 {
                mask.pixels[y * 6 + x] = 1;
            }
        }
        mask.pixels[6 + 1] = 0; // a hole
        mask.pixels[4 * 6 + 5] = 1; // in the corner of the picture
        let loops = outlines(&mask, 1, 0);
        let mut lengths: Vec<usize> = loops.iter().map(|l| l.len() - 1).collect();
        lengths.sort_unstable();
        assert_eq!(lengths, [4, 4, 12]);
        assert!(loops.iter().all(|l| l.first() == l.last()));
        assert!(outlines(&mask, 2, 0).is_empty());
        assert_eq!(outlines(&mask, 1, 2).iter().map(Vec::len).max(), Some(12 * 4 + 1));
    }
}
