//! Texture: have the synthetic images the speckle of the real ones, or are they blurred or grainy?
//!
//! The radially averaged power spectrum inside the ultrasound sector, of each class (view x phase):
//! mean power of the synthetic images over mean power of the real ones, an octave of spatial
//! frequency at a time. 1: the same; below: smoother; above: grainier. 0.5 to 2 in every octave is
//! what a good generator reaches.
//!
//! The way from images to power:
//!
//! 1. *Sector.* [`sector`], from the real images alone, so that both sets are cut alike.
//! 2. *Window.* [`window`]. The sector's edge is a step of the whole brightness: its spectrum would
//!    fill the high octaves and hide that the speckle is missing. So the image's own mean (weighted by
//!    the window) is taken away, and the rest is multiplied with a weight that rises from 0 at the edge
//!    to 1 at a sixteenth of the image's side inside, as half a period of a cosine. Of CAMUS's 2CH ED
//!    images at 224 pixels, blurred by a Gaussian of 2 pixels, the top octave is 0.17 of the sharp images'
//!    without a taper, 0.0025 with one of 7 pixels, 0.0012 with this one (14 pixels) and 0.0010 with 21:
//!    what is left is the rounding to 8 bits. The taper is a share of the side because the octaves are.
//! 3. *Power.* |FFT|^2 over the sum of the squared weights, so that white noise of variance v has the
//!    power v (grey levels squared) at every frequency; averaged over the coefficients of each ring
//!    (radius in cycles per image, rounded), then over the rings of an octave, then over images.
//!
//! Brightness and contrast are not normalised: twice the contrast is four times the power.

pub mod folder;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, f64::consts::FRAC_PI_2, fmt};

use tch::Tensor;

pub use crate::results::{GOOD_TEXTURE as GOOD, OCTAVES};
use crate::{
    error::{Error, Result},
    results::Measurement,
    samples::Samples,
    vocabulary::{Metric, Phase, Task, View},
};

/// A value an octave. In an image of N x N pixels they are (N/4, N/2], (N/8, N/4], (N/16, N/8] and
/// (N/32, N/16] cycles per image; the corners of the spectrum, above N/2, belong to none.
pub type Octaves = [f64; OCTAVES.len()];

/// Below it the lowest octave has no ring of its own.
pub const SMALLEST: usize = 32;

/// Grey values up to this one count as black: JPEG leaves such traces outside of the sector.
const BLACK: u8 = 5;

/// A pixel is of the sector where this share of the real images is not black. Acquisitions differ in
/// width and depth: a lower share would leave the hard edges of the narrow ones inside the window.
const SHARE: f64 = 0.9;

/// No real image has less power than this (grey levels squared) in an octave: rounding to 8 bits alone
/// gives 1/12. Less is a set of flat images, and a ratio to it would be a ratio of rounding errors.
const LEAST_POWER: f64 = 1e-9;

/// Pixels at a time: memory and speed, not results.
const BATCH_PIXELS: usize = 1 << 20;

/// View and phase; `None` where images are not told apart (`all`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class(pub Option<(View, Phase)>);

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some((view, phase)) => f.pad(&format!("{view} {phase}")),
            None => f.pad("all"),
        }
    }
}

/// Images of size x size pixels by class, and what errors call them.
#[derive(Debug, Clone)]
pub struct Set<'a> {
    pub name: String,
    pub images: BTreeMap<Class, Vec<&'a [u8]>>,
}

impl<'a> Set<'a> {
    pub fn new(name: impl Into<String>, images: impl IntoIterator<Item = (Class, &'a [u8])>) -> Self {
        let mut set = Self { name: name.into(), images: BTreeMap::new() };
        for (class, image) in images {
            set.images.entry(class).or_default().push(image);
        }
        set
    }

    /// An error names the first class of `other` that is not here.
    fn has_classes_of(&self, other: &Self) -> Result<()> {
        let Some((class, images)) = other.images.iter().find(|(class, _)| !self.images.contains_key(class))
        else {
            return Ok(());
        };
        let (n, there) = (images.len(), &other.name);
        Err(Error::input(format!("no image of class {class}, of which there are {n} in {there}"))
            .at(&self.name)
            .help("each class (view x phase) is compared with itself: give images of the same classes, or folders without manifest.csv to compare all with all"))
    }
}

/// Mean power in each octave, grey levels squared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Power {
    pub real: Octaves,
    pub synthetic: Octaves,
    pub n_real: usize,
    pub n_synthetic: usize,
}

impl Power {
    /// Synthetic over real.
    pub fn ratios(&self) -> Octaves {
        std::array::from_fn(|i| self.synthetic[i] / self.real[i])
    }

    /// Over all classes. Both means take the classes in the synthetic images' proportions: another mix
    /// of views is no other texture.
    pub fn pooled<'a>(classes: impl IntoIterator<Item = &'a Self>) -> Self {
        let (mut all, mut weights) =
            (Self { real: [0.0; 4], synthetic: [0.0; 4], n_real: 0, n_synthetic: 0 }, 0.0);
        for class in classes {
            let n = class.n_synthetic as f64;
            for i in 0..OCTAVES.len() {
                all.real[i] += n * class.real[i];
                all.synthetic[i] += n * class.synthetic[i];
            }
            all.n_real += class.n_real;
            all.n_synthetic += class.n_synthetic;
            weights += n;
        }
        all.real.iter_mut().chain(&mut all.synthetic).for_each(|p| *p /= weights);
        all
    }
}

/// Power of each class that the two sets have, of images of `size` x `size` pixels.
///
/// # Errors
/// A set is empty or has a class that the other has not; an image has another number of pixels; real
/// images share no sector or are flat.
pub fn compare(real: &Set, synthetic: &Set, size: usize) -> Result<BTreeMap<Class, Power>> {
    for set in [real, synthetic] {
        if set.images.is_empty() {
            return Err(Error::input("there are no images").at(&set.name).help("texture needs at least one"));
        }
    }
    synthetic.has_classes_of(real)?;
    real.has_classes_of(synthetic)?;
    let mut found = BTreeMap::new();
    for (&class, r) in &real.images {
        let s = &synthetic.images[&class];
        let of = |set: &Set, e: Error| e.context(format_args!("class {class}")).at(&set.name);
        let window = sector(r, size).and_then(|sector| window(&sector, size)).map_err(|e| of(real, e))?;
        let power = |set, images| {
            radial_power(images, size, &window).map(|p| octaves(&p, size)).map_err(|e| of(set, e))
        };
        let power = Power {
            real: power(real, r)?,
            synthetic: power(synthetic, s)?,
            n_real: r.len(),
            n_synthetic: s.len(),
        };
        if let Some(i) = power.real.iter().position(|p| *p < LEAST_POWER) {
            let e = Error::input(format!("the real images have no texture at {}", OCTAVES[i]));
            return Err(of(real, e.help("they are flat: give echocardiograms")));
        }
        found.insert(class, power);
    }
    Ok(found)
}

/// Ratios as rows of results: of each class of the synthetic images (`view` and `phase` filled in), then over all of
/// these (both empty).
/// `structure` is the octave, one of [`OCTAVES`]; `n` the synthetic images; `split` that of the real ones.
/// The caller adds experiment, arm, model and seed.
///
/// # Errors
/// As [`compare`], and where the sizes differ.
pub fn measurements(real: &Samples, synthetic: &Samples) -> Result<Vec<Measurement>> {
    if real.size != synthetic.size {
        return Err(Error::input(format!(
            "the real images are {0} x {0} pixels, the synthetic {1} x {1}",
            real.size, synthetic.size
        ))
        .help("resize the larger ones to the smaller"));
    }
    fn set<'a>(name: &str, samples: &'a Samples) -> Set<'a> {
        let of = |i: usize| (Class(Some((samples.rows[i].view, samples.rows[i].phase))), samples.image(i));
        Set::new(name, (0..samples.len()).map(of))
    }
    let (mut real_set, synthetic_set) =
        (set("the real images", real), set("the synthetic images", synthetic));
    // Images of one view alone have a texture as well.
    if real_set.images.keys().any(|class| synthetic_set.images.contains_key(class)) {
        real_set.images.retain(|class, _| synthetic_set.images.contains_key(class));
    }
    let classes = compare(&real_set, &synthetic_set, real.size)?;
    let split = real.rows.first().and_then(|row| row.split).map(|s| s.to_string()).unwrap_or_default();
    let all = Power::pooled(classes.values());
    let mut rows = Vec::new();
    for (class, power) in classes.iter().chain([(&Class(None), &all)]) {
        let (view, phase) = class.0.map(|(v, p)| (v.to_string(), p.to_string())).unwrap_or_default();
        for (octave, value) in OCTAVES.into_iter().zip(power.ratios()) {
            rows.push(Measurement {
                task: Task::Generation.into(),
                split: split.clone(),
                view: view.clone(),
                phase: phase.clone(),
                structure: octave.into(),
                metric: Metric::Texture.into(),
                value,
                n: Some(power.n_synthetic as u64),
                ..Measurement::default()
            });
        }
    }
    Ok(rows)
}

/// The ultrasound sector of `size` x `size` images: where at least nine in ten are brighter than grey 5,
/// and what that encloses (a cavity may be black).
///
/// # Errors
/// The size is below [`SMALLEST`], there is no image, or one has another number of pixels.
pub fn sector(images: &[&[u8]], size: usize) -> Result<Vec<bool>> {
    check(images, size)?;
    let mut bright = vec![0usize; size * size];
    for image in images {
        bright.iter_mut().zip(*image).for_each(|(n, &grey)| *n += usize::from(grey > BLACK));
    }
    let needed = SHARE * images.len() as f64;
    let mut inside: Vec<bool> = bright.iter().map(|&n| n as f64 >= needed).collect();
    // What the border does not reach through black pixels is enclosed.
    let mut outside = vec![false; inside.len()];
    let last = size - 1;
    let mut reach: Vec<usize> =
        (0..size).flat_map(|i| [i, last * size + i, i * size, i * size + last]).collect();
    while let Some(at) = reach.pop() {
        if inside[at] || outside[at] {
            continue;
        }
        outside[at] = true;
        let (x, y) = (at % size, at / size);
        reach.extend((x > 0).then(|| at - 1));
        reach.extend((x < last).then(|| at + 1));
        reach.extend((y > 0).then(|| at - size));
        reach.extend((y < last).then(|| at + size));
    }
    inside.iter_mut().zip(outside).for_each(|(inside, outside)| *inside = !outside);
    Ok(inside)
}

/// Weights 0 to 1: sin^2(pi/2 min(d / T, 1)), d the distance (pixels, between centres) to the nearest pixel
/// outside of the sector, T = size / 16. What lies beyond the picture is outside.
///
/// # Errors
/// The sector is nowhere T deep: too small for a spectrum.
pub fn window(sector: &[bool], size: usize) -> Result<Vec<f64>> {
    let taper = size as f64 / 16.0;
    let reach = taper.ceil() as usize;
    // Distance along the column first, then over the columns near by.
    let mut column: Vec<usize> = sector.iter().map(|&inside| usize::from(inside)).collect();
    for at in size..size * size {
        column[at] *= column[at - size] + 1;
    }
    for at in (0..size * size).rev() {
        column[at] = column[at].min(column.get(at + size).map_or(1, |below| below + 1));
    }
    let depth = |x: isize, y: usize| {
        usize::try_from(x).ok().filter(|x| *x < size).map_or(0, |x| column[y * size + x])
    };
    let mut weights = vec![0.0; size * size];
    for (at, weight) in weights.iter_mut().enumerate().filter(|(at, _)| sector[*at]) {
        let (x, y) = ((at % size) as isize, at / size);
        let reach = reach as isize;
        let squared = (-reach..=reach).map(|dx| dx.pow(2) as usize + depth(x + dx, y).pow(2)).min();
        let d = (squared.unwrap_or(0) as f64).sqrt();
        *weight = (FRAC_PI_2 * (d / taper).min(1.0)).sin().powi(2);
    }
    if !weights.iter().any(|w| *w >= 1.0) {
        return Err(Error::input("the real images share no sector: nearly everything is black in more than one of ten")
            .help("texture is measured where nine in ten of the real images of a class show ultrasound: compare images of one geometry"));
    }
    Ok(weights)
}

/// Mean radially averaged power spectrum of `images` under `window`: for each radius 0 ..= size / 2, in
/// cycles per image, the mean over the ring's coefficients and over images (grey levels squared).
///
/// # Errors
/// As [`sector`]; the window has another number of pixels or is 0 everywhere.
pub fn radial_power(images: &[&[u8]], size: usize, window: &[f64]) -> Result<Vec<f64>> {
    radial_power_by(images, size, window, BATCH_PIXELS / (size * size).max(1))
}

fn radial_power_by(images: &[&[u8]], size: usize, window: &[f64], batch: usize) -> Result<Vec<f64>> {
    check(images, size)?;
    let (weight, squares) = window.iter().fold((0.0, 0.0), |(w, s), v| (w + v, s + v * v));
    if window.len() != size * size || squares <= 0.0 {
        return Err(Error::input(format!("the window is not one of {size} x {size} pixels"))
            .help("texture::window makes it"));
    }
    let rings = Rings::new(size);
    let mut sums = vec![0.0; size / 2 + 1];
    for images in images.chunks(batch.max(1)) {
        let mut values = Vec::with_capacity(images.len() * size * size);
        for image in images {
            let sum: f64 = image.iter().zip(window).map(|(&grey, w)| f64::from(grey) * w).sum();
            let mean = sum / weight;
            values.extend(image.iter().zip(window).map(|(&grey, w)| (f64::from(grey) - mean) * w));
        }
        let shape = [images.len() as i64, size as i64, size as i64];
        let spectra = Tensor::f_from_slice(&values)?.f_view(shape)?.f_fft_rfft2(
            None::<&[i64]>,
            [-2, -1],
            "backward",
        )?;
        let parts: Vec<f64> = spectra.f_view_as_real()?.f_flatten(0, -1)?.try_into()?;
        for spectrum in parts.chunks_exact(2 * rings.of.len()) {
            for (sum, power) in sums.iter_mut().zip(rings.mean(spectrum)) {
                *sum += power;
            }
        }
    }
    let scale = images.len() as f64 * squares;
    sums.iter_mut().for_each(|p| *p /= scale);
    Ok(sums)
}

/// Mean of a radial spectrum (radii 0 ..= size / 2) over the rings of each octave.
fn octaves(radial: &[f64], size: usize) -> Octaves {
    std::array::from_fn(|i| {
        // Ring k is in octave i where size / 2^(i + 2) < k <= size / 2^(i + 1).
        let rings: Vec<f64> = (radial.iter().enumerate())
            .filter(|(k, _)| k << (i + 2) > size && k << (i + 1) <= size)
            .map(|(_, power)| *power)
            .collect();
        rings.iter().sum::<f64>() / rings.len() as f64
    })
}

/// Which ring a coefficient of `rfft2` belongs to.
struct Rings {
    /// Radius in cycles per image, rounded, and how often the coefficient is in the whole spectrum: the
    /// half that is not computed mirrors all columns but those of frequency 0 and N/2.
    of: Vec<(usize, f64)>,
    /// Coefficients of the whole spectrum in each ring up to N/2.
    count: Vec<f64>,
}

impl Rings {
    fn new(size: usize) -> Self {
        let (mut of, mut count) = (Vec::new(), vec![0.0; size / 2 + 1]);
        for row in 0..size {
            let fy = row.min(size - row);
            for fx in 0..=size / 2 {
                let radius = (((fx * fx + fy * fy) as f64).sqrt()).round() as usize;
                let times = if fx == 0 || 2 * fx == size { 1.0 } else { 2.0 };
                of.push((radius, times));
                if let Some(n) = count.get_mut(radius) {
                    *n += times;
                }
            }
        }
        Self { of, count }
    }

    /// Mean |coefficient|^2 of each ring; `spectrum` has real and imaginary parts in turn.
    fn mean(&self, spectrum: &[f64]) -> Vec<f64> {
        let mut sums = vec![0.0; self.count.len()];
        for (part, &(radius, times)) in spectrum.chunks_exact(2).zip(&self.of) {
            if let Some(sum) = sums.get_mut(radius) {
                *sum += times * (part[0] * part[0] + part[1] * part[1]);
            }
        }
        sums.iter_mut().zip(&self.count).for_each(|(sum, n)| *sum /= n);
        sums
    }
}

fn check(images: &[&[u8]], size: usize) -> Result<()> {
    if size < SMALLEST {
        return Err(Error::input(format!("the images are {size} x {size} pixels"))
            .help(format!("texture needs {SMALLEST} x {SMALLEST} or more")));
    }
    if images.is_empty() {
        return Err(Error::input("there are no images").help("texture needs at least one"));
    }
    match images.iter().find(|image| image.len() != size * size) {
        None => Ok(()),
        Some(image) => Err(Error::input(format!("an image has {} pixels, not {size} x {size}", image.len()))
            .help("all images of a comparison are square and of one size")),
    }
}
