//! From pixels to the input of a network. FID's tools differ only in this step.

use super::decode::DecodedImage;
use crate::{
    nn::inception,
    picture::Picture,
    resize::{self, Filter, taps},
    vocabulary::Convention,
};

/// ImageNet's mean and standard deviation, of values in 0..1: torchvision's.
pub(super) const IMAGENET: [(f32, f32); 3] = [(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)];

/// How images are made into a network's input.
#[derive(Debug, Clone, PartialEq)]
pub enum ExtractorInput {
    /// For Inception: -1..1.
    Inception(Convention),
    /// 224 x 224 by bilinear with antialiasing on floats (torchvision's `resize(…, antialias=True)`), then
    /// ImageNet's normalisation.
    ImageNet,
    /// As this program's classifiers are trained: luma, `size` x `size` by bilinear with antialiasing, rounded
    /// to 8 bits, then (v / 255 - mean) / std for each channel.
    Grey { size: usize, channels: [(f32, f32); 3] },
}

impl ExtractorInput {
    /// Width and height, pixels.
    pub fn size(&self) -> usize {
        match self {
            Self::Inception(_) => inception::SIZE,
            Self::ImageNet => 224,
            Self::Grey { size, .. } => *size,
        }
    }

    /// Values of an image: `size * size * 3`, the channels side by side.
    pub fn values(&self) -> usize {
        self.size() * self.size() * 3
    }

    /// Decodes an image file and writes its values. The error says what is wrong with the file.
    ///
    /// # Panics
    /// Where `out` is not [`ExtractorInput::values`] long.
    pub(super) fn read(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), String> {
        if let Self::Grey { .. } = self {
            let grey = image::load_from_memory(bytes).map_err(|e| e.to_string())?.into_luma8();
            let (width, height) = (grey.width() as usize, grey.height() as usize);
            self.write(&DecodedImage { width, height, channels: 1, values: grey.into_raw() }, out);
        } else {
            self.write(&DecodedImage::decode(bytes)?, out);
        }
        Ok(())
    }

    /// Writes the values of an image that has been decoded: grey for [`ExtractorInput::Grey`], grey or colour for the
    /// others.
    ///
    /// # Panics
    /// Where `out` is not [`ExtractorInput::values`] long.
    pub fn write(&self, pixels: &DecodedImage, out: &mut [f32]) {
        let size = self.size();
        let byte = |v: f32| (v - 128.0) / 128.0;
        match self {
            Self::Inception(Convention::PytorchFid) => {
                let resized = two_taps(pixels, size, half_pixel, |v| f32::from(v) / 255.0);
                spread(&resized, pixels.channels, out, |_, v| 2.0 * v - 1.0);
            }
            Self::Inception(Convention::TorchFidelity) => {
                let resized = two_taps(pixels, size, corner, f32::from);
                spread(&resized, pixels.channels, out, |_, v| byte(v));
            }
            Self::Inception(Convention::CleanFid) => {
                let resized = antialiased(pixels, size, Filter::Bicubic);
                spread(&resized, pixels.channels, out, |_, v| byte(v.clamp(0.0, 255.0)));
            }
            Self::ImageNet => {
                let resized = antialiased(pixels, size, Filter::Bilinear);
                let normal = |c: usize, v: f32| (v / 255.0 - IMAGENET[c].0) / IMAGENET[c].1;
                spread(&resized, pixels.channels, out, normal);
            }
            Self::Grey { channels, .. } => {
                let &DecodedImage { width, height, ref values, .. } = pixels;
                let picture = Picture { width, height, pixels: values.clone() };
                let picture = match (width, height) == (size, size) {
                    true => picture,
                    false => resize::bilinear(&picture, size, size),
                };
                let resized: Vec<f32> = picture.pixels.into_iter().map(f32::from).collect();
                spread(&resized, 1, out, |c, v| (v / 255.0 - channels[c].0) / channels[c].1);
            }
        }
    }
}

/// One channel or three to three.
fn spread(resized: &[f32], channels: usize, out: &mut [f32], finish: impl Fn(usize, f32) -> f32) {
    assert_eq!(resized.len() * 3, out.len() * channels, "the output has another size");
    for (from, to) in resized.chunks_exact(channels).zip(out.chunks_exact_mut(3)) {
        for (c, to) in to.iter_mut().enumerate() {
            *to = finish(c, from[c % channels]);
        }
    }
}

/// An output pixel between two input pixels: the part of the second.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Between {
    first: usize,
    second: usize,
    part: f32,
}

impl Between {
    fn at(source: f32, from: usize) -> Self {
        let first = (source as usize).min(from - 1);
        Self { first, second: (first + 1).min(from - 1), part: source - first as f32 }
    }
}

/// PyTorch's `upsample_bilinear2d` with `align_corners = false`, in f32 as there.
fn half_pixel(from: usize, to: usize) -> Vec<Between> {
    let scale = from as f32 / to as f32;
    (0..to).map(|i| Between::at((scale * (i as f32 + 0.5) - 0.5).max(0.0), from)).collect()
}

/// TensorFlow 1's `resize_bilinear` with `align_corners = false`.
fn corner(from: usize, to: usize) -> Vec<Between> {
    let scale = (from as f64 / to as f64) as f32;
    (0..to).map(|i| Between::at(i as f32 * scale, from)).collect()
}

/// Bilinear without antialiasing, along rows and then along columns; `value` of a byte.
fn two_taps(
    pixels: &DecodedImage,
    size: usize,
    places: impl Fn(usize, usize) -> Vec<Between>,
    value: impl Fn(u8) -> f32,
) -> Vec<f32> {
    let mut table = [0f32; 256];
    (0u8..=255).zip(&mut table).for_each(|(byte, to)| *to = value(byte));
    let mix = |a: f32, b: f32, part: f32| a + (b - a) * part;
    let channels = pixels.channels;
    let columns = places(pixels.width, size);
    let mut rows = Vec::with_capacity(pixels.height * size * channels);
    for row in pixels.values.chunks_exact(pixels.width * channels) {
        for &Between { first, second, part } in &columns {
            for c in 0..channels {
                let at = |x: usize| table[usize::from(row[x * channels + c])];
                rows.push(mix(at(first), at(second), part));
            }
        }
    }
    let row = |y: usize| &rows[y * size * channels..][..size * channels];
    let mut resized = Vec::with_capacity(size * size * channels);
    for Between { first, second, part } in places(pixels.height, size) {
        resized.extend(row(first).iter().zip(row(second)).map(|(&a, &b)| mix(a, b, part)));
    }
    resized
}

/// With antialiasing, along rows and then along columns. As Pillow does with floats, sums are f64 and what
/// lies between the two passes is f32.
fn antialiased(pixels: &DecodedImage, size: usize, filter: Filter) -> Vec<f32> {
    match pixels.channels {
        1 => antialiased_in::<1>(pixels, size, filter),
        _ => antialiased_in::<3>(pixels, size, filter),
    }
}

fn antialiased_in<const N: usize>(pixels: &DecodedImage, size: usize, filter: Filter) -> Vec<f32> {
    let columns = taps(pixels.width, size, filter);
    let mut rows = Vec::with_capacity(pixels.height * size * N);
    for row in pixels.values.chunks_exact(pixels.width * N) {
        for tap in &columns {
            let mut sums = [0f64; N];
            for (pixel, weight) in row[tap.start * N..].chunks_exact(N).zip(&tap.weights) {
                for (sum, &v) in sums.iter_mut().zip(pixel) {
                    *sum += f64::from(v) * weight;
                }
            }
            rows.extend(sums.map(|sum| sum as f32));
        }
    }
    let mut resized = Vec::with_capacity(size * size * N);
    let mut sums = vec![0f64; size * N];
    for tap in taps(pixels.height, size, filter) {
        sums.fill(0.0);
        let from = rows[tap.start * size * N..].chunks_exact(size * N);
        for (row, weight) in from.zip(&tap.weights) {
            for (sum, &v) in sums.iter_mut().zip(row) {
                *sum += f64::from(v) * weight;
            }
        }
        resized.extend(sums.iter().map(|&sum| sum as f32));
    }
    resized
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_picture_stays_flat_whatever_the_way() {
        for (channels, (width, height)) in [(1, (37, 500)), (3, (400, 21)), (1, (1, 1)), (3, (299, 299))] {
            let values = vec![192; width * height * channels];
            let pixels = DecodedImage { width, height, channels, values };
            for convention in Convention::ALL {
                let input = ExtractorInput::Inception(convention);
                let mut out = vec![f32::NAN; input.values()];
                input.write(&pixels, &mut out);
                let expected =
                    if convention == Convention::PytorchFid { 2.0 * 192.0 / 255.0 - 1.0 } else { 0.5 };
                assert!(out.iter().all(|v| (v - expected).abs() < 1e-6), "{convention} {width} x {height}");
            }
        }
    }

    #[test]
    fn the_two_bilinear_ways_start_at_other_places() {
        let first = |places: Vec<Between>| (places[1].first, places[1].part);
        assert_eq!(first(half_pixel(4, 8)), (0, 0.25));
        assert_eq!(first(corner(4, 8)), (0, 0.5));
        // The last pixel has no neighbour after it.
        assert_eq!(corner(4, 8)[7], Between { first: 3, second: 3, part: 0.5 });
        assert_eq!(half_pixel(4, 8)[7], Between { first: 3, second: 3, part: 0.25 });
    }

    #[test]
    fn names_are_read_again() {
        for convention in Convention::ALL {
            assert_eq!(convention.as_str().parse(), Ok(convention));
        }
        let error = "cleanfid".parse::<Convention>().unwrap_err();
        assert!(error.contains("pytorch-fid, clean-fid, torch-fidelity"), "{error}");
    }
}
