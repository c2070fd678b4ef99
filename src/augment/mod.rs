//! Augmentation of an image and its mask: one affine, brightness, contrast, gamma, noise, flip, normalisation.
//!
//! Equal to torchvision 0.28's `transforms.v2.functional` on float tensors in [0, 1]:
//! `horizontal_flip`, `affine(fill=0)`, `adjust_brightness`, `adjust_contrast`, `adjust_gamma`, noise, `normalize`, in
//! this order; sampled bicubically, to PyTorch's `grid_sample`. What is drawn ([`draw`]) is apart from what is done ([`apply`]), so that a test can give
//! both sides the same numbers.

mod warp;

use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::error::{Error, Result};
use crate::experiment::Augment;
pub use crate::experiment::{Interpolation, TranslateUnit};
use crate::random;
use warp::{Lines, Source};

/// What augmentations are drawn from.
#[derive(Debug, Clone, PartialEq)]
pub struct AugmentRange {
    /// Rotation, from minus to plus this, in degrees.
    pub rotate_deg: f64,
    /// Translation in x and in y, from minus to plus this, in `translate_unit`.
    pub translate: f64,
    pub translate_unit: TranslateUnit,
    /// Least and greatest scale; 1 keeps the size.
    pub scale: (f64, f64),
    /// Shear along (x, y), from minus to plus this, in degrees.
    pub shear_deg: (f64, f64),
    /// Factor from 1 - this to 1 + this (from 0 where that is negative).
    pub brightness: f64,
    /// Factor likewise.
    pub contrast: f64,
    /// Power that greys are raised to, from exp(-this) to exp(this).
    pub gamma: f64,
    /// Standard deviation of added noise, from 0 to this.
    pub noise: f64,
    /// Probability of a mirror image; 0 for echocardiograms, where it is another anatomy.
    pub flip: f64,
    /// For the image.
    pub image_interpolation: Interpolation,
}

impl AugmentRange {
    /// Draws nothing but the identity.
    pub const NONE: Self = Self {
        rotate_deg: 0.0,
        translate: 0.0,
        translate_unit: TranslateUnit::Fraction,
        scale: (1.0, 1.0),
        shear_deg: (0.0, 0.0),
        brightness: 0.0,
        contrast: 0.0,
        gamma: 0.0,
        noise: 0.0,
        flip: 0.0,
        image_interpolation: Interpolation::Bilinear,
    };

    /// The reference's ranges for segmentation, as they were meant: translation in fractions of the
    /// size, images sampled bilinearly. As its code does it: `translate_unit` in pixels and
    /// `image_interpolation` nearest.
    pub const DIFFECHO: Self = Self {
        rotate_deg: 10.0,
        translate: 0.1,
        scale: (0.9, 1.1),
        shear_deg: (10.0, 10.0),
        brightness: 0.3,
        contrast: 0.3,
        ..Self::NONE
    };

    /// The spec's settings; none where augmentation is off.
    pub fn of(settings: &Augment) -> Option<Self> {
        settings.enabled.then_some(Self {
            rotate_deg: settings.rotate,
            translate: settings.translate,
            translate_unit: settings.translate_unit,
            scale: (1.0 - settings.scale, 1.0 + settings.scale),
            // torchvision takes one number as a shear along x alone.
            shear_deg: (settings.shear, 0.0),
            brightness: settings.brightness,
            contrast: settings.contrast,
            gamma: settings.gamma,
            noise: settings.noise,
            flip: 0.0,
            image_interpolation: settings.interpolation,
        })
    }

    /// Checks that every range can be drawn from.
    ///
    /// # Errors
    /// Naming the field that is out of range.
    pub fn check(&self) -> Result<()> {
        let bad = |field: &str, expected: &str| {
            Err(Error::input(format!("augmentation: `{field}` is out of range"))
                .help(format!("expected {expected}")))
        };
        let within = |value: f64, high: f64| (0.0..=high).contains(&value);
        if !within(self.rotate_deg, 180.0) {
            return bad("rotate_deg", "degrees from 0 to 180");
        }
        match self.translate_unit {
            TranslateUnit::Fraction if !within(self.translate, 1.0) => {
                return bad("translate", "a fraction of the size, from 0 to 1");
            }
            TranslateUnit::Pixels if !within(self.translate, 1e5) => {
                return bad("translate", "pixels, from 0");
            }
            _ => {}
        }
        if !(0.01 <= self.scale.0 && self.scale.0 <= self.scale.1 && self.scale.1 <= 100.0) {
            return bad("scale", "two factors from 0.01 to 100, the lower first");
        }
        if !within(self.shear_deg.0, 80.0) || !within(self.shear_deg.1, 80.0) {
            return bad("shear_deg", "degrees from 0 to 80");
        }
        for (field, value) in [
            ("brightness", self.brightness),
            ("contrast", self.contrast),
            ("gamma", self.gamma),
            ("noise", self.noise),
        ] {
            if !within(value, 10.0) {
                return bad(field, "a number from 0 to 10");
            }
        }
        if !within(self.flip, 1.0) {
            return bad("flip", "a probability");
        }
        Ok(())
    }
}

/// Normal noise of one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PixelNoise {
    pub std: f64,
    pub seed: u64,
}

/// One drawn augmentation.
#[derive(Debug, Clone, PartialEq)]
pub struct AugmentParams {
    /// Clockwise, in degrees.
    pub angle_deg: f64,
    /// To the right and down, in pixels.
    pub translate: (f64, f64),
    pub scale: f64,
    /// Along x and along y, in degrees.
    pub shear_deg: (f64, f64),
    pub brightness: f64,
    pub contrast: f64,
    /// Greys from 0 to 1 are raised to this power.
    pub gamma: f64,
    pub noise: Option<PixelNoise>,
    /// Mirrored left to right, before the affine.
    pub flip: bool,
    /// For the image.
    pub interpolation: Interpolation,
}

impl AugmentParams {
    /// Changes nothing.
    pub const IDENTITY: Self = Self {
        angle_deg: 0.0,
        translate: (0.0, 0.0),
        scale: 1.0,
        shear_deg: (0.0, 0.0),
        brightness: 1.0,
        contrast: 1.0,
        gamma: 1.0,
        noise: None,
        flip: false,
        interpolation: Interpolation::Bilinear,
    };

    /// From a point of the output to the point of the input, both measured from the picture's centre:
    /// x' = m0 x + m1 y + m2, y' = m3 x + m4 y + m5. torchvision's `_get_inverse_affine_matrix`.
    fn inverse_matrix(&self) -> [f64; 6] {
        let rotation = self.angle_deg.to_radians();
        let (shear_x, shear_y) = (self.shear_deg.0.to_radians(), self.shear_deg.1.to_radians());
        let a = (rotation - shear_y).cos() / shear_y.cos();
        let b = -(a * shear_x.tan() + rotation.sin());
        let c = (rotation - shear_y).sin() / shear_y.cos();
        let d = rotation.cos() - c * shear_x.tan();
        let [m0, m1, m3, m4] = [d, -b, -c, a].map(|v| v / self.scale);
        let (tx, ty) = self.translate;
        [m0, m1, -m0 * tx - m1 * ty, m3, m4, -m3 * tx - m4 * ty]
    }
}

/// Draws one augmentation for a picture of `width` x `height` pixels, as torchvision's `RandomAffine`
/// and `ColorJitter` do. Always takes the same values from `rng` in the same order, so that narrowing one
/// range leaves the other draws as they were.
pub fn draw(range: &AugmentRange, rng: &mut impl Rng, width: usize, height: usize) -> AugmentParams {
    let mut uniform = |low: f64, high: f64| low + (high - low) * rng.random::<f64>();
    let angle_deg = uniform(-range.rotate_deg, range.rotate_deg);
    let mut shift = |size: usize| match range.translate_unit {
        TranslateUnit::Fraction => {
            let most = range.translate * size as f64;
            uniform(-most, most).round_ties_even()
        }
        TranslateUnit::Pixels => uniform(-range.translate, range.translate),
    };
    let translate = (shift(width), shift(height));
    let scale = uniform(range.scale.0, range.scale.1);
    let shear_deg =
        (uniform(-range.shear_deg.0, range.shear_deg.0), uniform(-range.shear_deg.1, range.shear_deg.1));
    let mut factor = |spread: f64| uniform((1.0 - spread).max(0.0), 1.0 + spread);
    let (brightness, contrast) = (factor(range.brightness), factor(range.contrast));
    let flip = rng.random::<f64>() < range.flip;
    let gamma = (range.gamma * (2.0 * rng.random::<f64>() - 1.0)).exp();
    let noise = PixelNoise { std: range.noise * rng.random::<f64>(), seed: rng.random() };
    AugmentParams {
        angle_deg,
        translate,
        scale,
        shear_deg,
        brightness,
        contrast,
        gamma,
        noise: (noise.std > 0.0).then_some(noise),
        flip,
        interpolation: range.image_interpolation,
    }
}

/// Normalisation of one channel of the network's input: (value in [0, 1] - mean) / std.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalise {
    pub mean: f32,
    pub std: f32,
}

/// Grey to [-1, 1], one channel.
pub const HALF: [Normalise; 1] = [Normalise { mean: 0.5, std: 0.5 }];

/// Grey repeated to three channels, each as the ImageNet weights of torchvision expect it.
pub const IMAGENET: [Normalise; 3] = [
    Normalise { mean: 0.485, std: 0.229 },
    Normalise { mean: 0.456, std: 0.224 },
    Normalise { mean: 0.406, std: 0.225 },
];

/// An image as the network takes it, without augmentation. `out` holds `channels.len()` planes.
///
/// # Errors
/// When `out` has another size.
pub fn normalise(image: &[u8], channels: &[Normalise], out: &mut [f32]) -> Result<()> {
    check_sizes("the output", out.len(), image.len() * channels.len())?;
    for (plane, channel) in out.chunks_exact_mut(image.len().max(1)).zip(channels) {
        let mut table = [0f32; 256];
        for (grey, to) in (0u8..=255).zip(&mut table) {
            *to = (f32::from(grey) / 255.0 - channel.mean) / channel.std;
        }
        for (to, &grey) in plane.iter_mut().zip(image) {
            *to = table[usize::from(grey)];
        }
    }
    Ok(())
}

/// Augments an image and, with the same geometry, its mask.
///
/// `image` and the mask hold `height` rows of `width` pixels; `out_image` receives
/// `channels.len()` planes of the same size, `out_mask` one plane of class indices. What comes from
/// outside the picture is black (background).
///
/// # Errors
/// When a buffer has another size.
pub fn apply<M: Copy + From<u8>>(
    params: &AugmentParams,
    image: &[u8],
    mask: Option<(&[u8], &mut [M])>,
    (width, height): (usize, usize),
    channels: &[Normalise],
    out_image: &mut [f32],
) -> Result<()> {
    let size = width * height;
    check_sizes("the image", image.len(), size)?;
    check_sizes("the output", out_image.len(), size * channels.len())?;
    if let Some((mask, out)) = &mask {
        check_sizes("the mask", mask.len(), size)?;
        check_sizes("the mask's output", out.len(), size)?;
    }
    if size == 0 || channels.is_empty() {
        return Ok(());
    }

    let flip = |pixels: &[u8]| -> Vec<u8> {
        pixels.chunks_exact(width).flat_map(|row| row.iter().rev().copied()).collect()
    };
    let flipped = params.flip.then(|| flip(image));
    let source = Source { pixels: flipped.as_deref().unwrap_or(image), width };
    let flipped_mask = mask.as_ref().filter(|_| params.flip).map(|(mask, _)| flip(mask));
    let mut mask =
        mask.map(|(mask, out)| (Source { pixels: flipped_mask.as_deref().unwrap_or(mask), width }, out));

    // First pass: the warp and the brightness, and with it the mean that contrast turns about.
    let lines = Lines::new(params, width, height);
    let gain = params.brightness as f32 / 255.0;
    let (grey, _) = out_image.split_at_mut(size);
    let mut sum = 0.0;
    for (y, row) in grey.chunks_exact_mut(width).enumerate() {
        let line = lines.line(y);
        match params.interpolation {
            Interpolation::Bilinear => line.bilinear(&source, row),
            Interpolation::Bicubic => line.bicubic(&source, row),
            Interpolation::Nearest => line.nearest(&source, row, f32::from),
        }
        sum += brighten(row, gain);
        if let Some((mask, out)) = &mut mask {
            line.nearest(mask, &mut out[y * width..][..width], M::from);
        }
    }

    // Second pass: contrast and normalisation; the first plane, which holds the grey, comes last.
    let mut contrast = params.contrast as f32;
    let mut offset = (sum / size as f64) as f32 * (1.0 - contrast);
    if params.gamma != 1.0 || params.noise.is_some() {
        let mut noise =
            params.noise.map(|noise| (noise.std as f32, random::rng(noise.seed, "pixel noise", &[])));
        for value in &mut *grey {
            *value = (*value * contrast + offset).clamp(0.0, 1.0).powf(params.gamma as f32);
            if let Some((std, rng)) = &mut noise {
                let drawn: f32 = StandardNormal.sample(rng);
                *value += *std * drawn;
            }
        }
        (contrast, offset) = (1.0, 0.0);
    }
    let finish = |grey: f32, channel: &Normalise| {
        ((grey * contrast + offset).clamp(0.0, 1.0) - channel.mean) * (1.0 / channel.std)
    };
    let (first, others) = out_image.split_at_mut(size);
    for (plane, channel) in others.chunks_exact_mut(size).zip(&channels[1..]) {
        for (to, &grey) in plane.iter_mut().zip(&*first) {
            *to = finish(grey, channel);
        }
    }
    for to in first {
        *to = finish(*to, &channels[0]);
    }
    Ok(())
}

fn check_sizes(what: &str, has: usize, needs: usize) -> Result<()> {
    if has == needs {
        return Ok(());
    }
    Err(Error::failure(format!("{what} has {has} values, and {needs} are needed")))
}

/// Multiplies by `gain`, cuts at 1, and gives the sum.
fn brighten(row: &mut [f32], gain: f32) -> f64 {
    // Eight sums side by side: a single one would wait for each addition to end.
    let mut sums = [0f32; 8];
    let mut chunks = row.chunks_exact_mut(8);
    for chunk in &mut chunks {
        for (value, sum) in chunk.iter_mut().zip(&mut sums) {
            *value = (*value * gain).min(1.0);
            *sum += *value;
        }
    }
    let mut sum = 0.0;
    for value in chunks.into_remainder() {
        *value = (*value * gain).min(1.0);
        sum += f64::from(*value);
    }
    sum + sums.iter().map(|&s| f64::from(s)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;

    fn noise(seed: u64, n: usize) -> Vec<u8> {
        let mut rng = random::rng(seed, "noise", &[]);
        (0..n).map(|_| rng.random()).collect()
    }

    fn run(params: &AugmentParams, image: &[u8], size: (usize, usize)) -> (Vec<f32>, Vec<u8>) {
        let (mut out, mut mask) = (vec![f32::NAN; image.len()], vec![99u8; image.len()]);
        let plain = [Normalise { mean: 0.0, std: 1.0 }];
        apply(params, image, Some((image, &mut mask)), size, &plain, &mut out).unwrap();
        (out, mask)
    }

    fn greys(image: &[u8]) -> Vec<f32> {
        image.iter().map(|&v| f32::from(v) * (1.0 / 255.0)).collect()
    }

    #[test]
    fn the_identity_changes_nothing_whatever_the_size() {
        for size in [(1, 1), (1, 7), (7, 1), (16, 9), (33, 40)] {
            let image = noise(1, size.0 * size.1);
            for interpolation in [Interpolation::Nearest, Interpolation::Bilinear] {
                let params = AugmentParams { interpolation, ..AugmentParams::IDENTITY };
                assert_eq!(run(&params, &image, size), (greys(&image), image.clone()));
            }
        }
    }

    #[test]
    fn whole_pixel_shifts_and_flips_move_pixels_unchanged() {
        let (w, h) = (13, 8);
        let image = noise(2, w * h);
        let params = AugmentParams { translate: (3.0, -2.0), flip: true, ..AugmentParams::IDENTITY };
        let expected: Vec<u8> = (0..w * h)
            .map(|i| {
                let (x, y) = (i % w, i / w);
                if x < 3 || y + 2 >= h { 0 } else { image[(y + 2) * w + (w - 1 - (x - 3))] }
            })
            .collect();
        assert_eq!(run(&params, &image, (w, h)), (greys(&expected), expected));
    }

    #[test]
    fn a_quarter_turn_is_exact() {
        let n = 12;
        let image = noise(3, n * n);
        let turned: Vec<u8> = (0..n * n).map(|i| image[(n - 1 - i % n) * n + i / n]).collect();
        let params = AugmentParams { angle_deg: 90.0, ..AugmentParams::IDENTITY };
        assert_eq!(run(&params, &image, (n, n)).1, turned);
    }

    #[test]
    fn draws_stay_in_range_and_do_not_disturb_each_other() {
        let range = AugmentRange::DIFFECHO;
        let still = AugmentRange { rotate_deg: 0.0, flip: 1.0, ..range.clone() };
        let (mut left, mut right) = (0, 0);
        for seed in 0..300 {
            let p = draw(&range, &mut random::rng(seed, "draw", &[]), 256, 100);
            assert!(p.angle_deg.abs() <= 10.0 && (0.9..=1.1).contains(&p.scale) && !p.flip);
            assert!(p.translate.0.abs() <= 26.0 && p.translate.1.abs() <= 10.0);
            assert_eq!(p.translate.0.fract(), 0.0);
            assert!((0.7..=1.3).contains(&p.brightness) && (0.7..=1.3).contains(&p.contrast));
            left += usize::from(p.translate.0 < -20.0);
            right += usize::from(p.translate.0 > 20.0);
            let q = draw(&still, &mut random::rng(seed, "draw", &[]), 256, 100);
            assert_eq!(q, AugmentParams { angle_deg: 0.0, flip: true, ..p });
        }
        assert!(left > 10 && right > 10, "{left} {right}");
        let pixels = AugmentRange { translate_unit: TranslateUnit::Pixels, ..range };
        let p = draw(&pixels, &mut random::rng(0, "draw", &[]), 256, 100);
        assert!(p.translate.0.abs() <= 0.1 && p.translate.0 != 0.0);
        range_is_checked();
    }

    fn range_is_checked() {
        AugmentRange::DIFFECHO.check().unwrap();
        for bad in [
            AugmentRange { translate: 1.5, ..AugmentRange::NONE },
            AugmentRange { scale: (0.0, 1.0), ..AugmentRange::NONE },
            AugmentRange { scale: (1.2, 1.1), ..AugmentRange::NONE },
            AugmentRange { brightness: f64::NAN, ..AugmentRange::NONE },
            AugmentRange { shear_deg: (0.0, 90.0), ..AugmentRange::NONE },
            AugmentRange { flip: 1.1, ..AugmentRange::NONE },
        ] {
            assert_eq!(bad.check().unwrap_err().exit_code(), 2, "{bad:?}");
        }
    }

    #[test]
    fn channels_are_normalised_each_by_its_own() {
        let image = noise(5, 12);
        let (mut whole, mut plain) = (vec![0.0; 36], vec![0.0; 36]);
        let none: Option<(&[u8], &mut [i64])> = None;
        apply(&AugmentParams::IDENTITY, &image, none, (4, 3), &IMAGENET, &mut whole).unwrap();
        normalise(&image, &IMAGENET, &mut plain).unwrap();
        for (i, (a, b)) in whole.iter().zip(&plain).enumerate() {
            let channel = IMAGENET[i / 12];
            let expected = (f32::from(image[i % 12]) / 255.0 - channel.mean) / channel.std;
            assert!((a - expected).abs() < 1e-5 && (b - expected).abs() < 1e-6);
        }
        assert!(normalise(&image, &IMAGENET, &mut plain[1..]).is_err());
        let none: Option<(&[u8], &mut [i64])> = None;
        assert!(apply(&AugmentParams::IDENTITY, &image, none, (4, 4), &IMAGENET, &mut whole).is_err());
    }

    #[test]
    fn absurd_parameters_do_not_overflow() {
        for scale in [1e-12, 1e12] {
            let params = AugmentParams {
                scale,
                translate: (1e9, -1e9),
                shear_deg: (89.9, 0.0),
                ..AugmentParams::IDENTITY
            };
            let (out, _) = run(&params, &noise(6, 64 * 64), (64, 64));
            assert!(out.iter().all(|v| v.is_finite()));
        }
    }
}
