//! From a heart to its echocardiogram: echo power on a polar grid, speckle, point spread, envelope,
//! log compression, scan conversion. Distances in mm, levels in dB against mean myocardium.
//!
//! Speckle is made where a scanner makes it: independent complex Gaussian scatterers per sample,
//! blurred with a point-spread function of constant length along the beam and constant *angle*
//! across it, so that the grain widens with depth (Wagner et al., "Statistics of Speckle in
//! Ultrasound B-Scans", IEEE Trans. Sonics Ultrason. 30(3), 1983).

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::anatomy::{Heart, HeartPlacement, Patient};
use crate::picture::Picture;
use crate::random;
use crate::vocabulary::{Phase, Quality, View};

/// Angle between scan lines, radians.
const LINE_STEP: f64 = 0.35 * std::f64::consts::PI / 180.0;
/// Standard deviations of the point spread: along the beam in mm, across it in radians.
const AXIAL_SD: f64 = 0.38;
const LATERAL_SD: f64 = 0.52 * std::f64::consts::PI / 180.0;
/// Independent speckle patterns averaged; more than 1 would be a scanner with compounding.
const LOOKS: usize = 1;
/// Grey level of mean myocardium at gain 0.
const TISSUE_LEVEL: f64 = 128.0;

/// The acquisition of one view: what stays the same from end-diastole to end-systole.
struct Acquisition {
    gain: f64,
    dynamic_range: f64,
    /// Blood below myocardium, dB.
    contrast: f64,
    noise: f64,
    /// Loss from the probe to the bottom that the gain compensation left, dB.
    slope: f64,
    haze: f64,
    edge_loss: f64,
    background: f64,
    /// Angular gaps: centre, half-width (radians), loss (dB), depth (mm) from where on.
    gaps: Vec<[f64; 4]>,
    lateral_loss: f64,
    pericardium: f64,
    right_heart: f64,
    papillary: [f64; 3],
    coarse: Noise,
    medium: Noise,
    wall_coarse: Noise,
    wall_fine: Noise,
    outline: Noise,
}

impl Acquisition {
    fn draw(patient: &Patient, seed: u64, number: u64, view: View) -> Self {
        let rng = &mut random::rng(seed, "phantom-acquisition", &[number, view as u64]);
        // (contrast, noise floor, chance and size of gaps)
        let (contrast, noise, gap_chance, gap_loss) = match patient.quality {
            Quality::Good => (15.5, -20.0, 0.25, 7.0),
            Quality::Medium => (12.5, -16.5, 0.5, 10.0),
            Quality::Poor => (10.0, -13.0, 0.8, 14.0),
        };
        let mut gaps = Vec::new();
        for side in [-1.0, 1.0] {
            if rng.random_bool(gap_chance) {
                // A rib or the lung cuts into the sector's edge.
                let centre = side * patient.half_angle * rng.random_range(0.80..1.12);
                gaps.push([centre, rng.random_range(0.07..0.15), gap_loss * rng.random_range(0.7..1.3), 8.0]);
            }
            if rng.random_bool(gap_chance * 0.8) {
                // Drop-out of a wall.
                let centre = side * patient.half_angle * rng.random_range(0.25..0.7);
                let from = rng.random_range(10.0..45.0);
                gaps.push([
                    centre,
                    rng.random_range(0.04..0.10),
                    gap_loss * rng.random_range(0.4..0.9),
                    from,
                ]);
            }
        }
        Self {
            gain: rng.random_range(-3.5..3.5),
            dynamic_range: rng.random_range(44.0..58.0),
            contrast: contrast + rng.random_range(-2.0..2.0),
            noise: noise + rng.random_range(-2.0..2.0),
            slope: rng.random_range(-1.0..6.0),
            haze: rng.random_range(-15.0..-4.0),
            edge_loss: rng.random_range(1.0..6.0),
            background: rng.random_range(-8.0..0.5),
            gaps,
            lateral_loss: rng.random_range(0.0..4.5),
            pericardium: rng.random_range(8.0..17.0),
            right_heart: rng.random_range(24.0..34.0),
            papillary: [
                rng.random_range(0.42..0.6),
                rng.random_range(3.0..6.5),
                rng.random_range(-9.0..-1.0),
            ],
            coarse: Noise::new(rng, 24.0),
            medium: Noise::new(rng, 7.0),
            wall_coarse: Noise::new(rng, 17.0),
            wall_fine: Noise::new(rng, 3.2),
            outline: Noise::new(rng, 6.0),
        }
    }
}

/// Smooth random values of mean 0 and standard deviation near 1: values at the corners of a square
/// lattice, joined smoothly; it repeats after `SIDE` cells.
struct Noise {
    cell: f64,
    values: Vec<f32>,
}

impl Noise {
    const SIDE: usize = 64;

    fn new(rng: &mut ChaCha8Rng, cell: f64) -> Self {
        let values = (0..Self::SIDE * Self::SIDE).map(|_| 1.5 * normal(rng)).collect();
        Self { cell, values }
    }

    fn at(&self, x: f64, y: f64) -> f64 {
        let split = |v: f64| {
            let v = v / self.cell;
            let whole = v.floor();
            let t = v - whole;
            (whole as i64 as usize % Self::SIDE, t * t * (3.0 - 2.0 * t))
        };
        let ((ix, tx), (iy, ty)) = (split(x), split(y));
        let corner = |dx: usize, dy: usize| {
            let at = (iy + dy) % Self::SIDE * Self::SIDE + (ix + dx) % Self::SIDE;
            f64::from(self.values.get(at).copied().unwrap_or_default())
        };
        let top = corner(0, 0) * (1.0 - tx) + corner(1, 0) * tx;
        let bottom = corner(0, 1) * (1.0 - tx) + corner(1, 1) * tx;
        top * (1.0 - ty) + bottom * ty
    }
}

fn normal(rng: &mut ChaCha8Rng) -> f32 {
    StandardNormal.sample(rng)
}

fn power(db: f64) -> f64 {
    // 10^(dB/10)
    (db * 0.230_258_509_299_404_57).exp()
}

/// 0 outside to 1 inside, over about 2 mm.
fn soft(distance: f64) -> f64 {
    let t = (0.5 + 0.5 * distance).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// A bell of height 1.
fn bell(distance: f64, sd: f64) -> f64 {
    let t = distance / sd;
    if t.abs() > 4.0 { 0.0 } else { (-0.5 * t * t).exp() }
}

/// Distance from a point to a piece of a line.
fn segment(p: (f64, f64), a: (f64, f64), b: (f64, f64)) -> f64 {
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    let t = ((p.0 - a.0) * dx + (p.1 - a.1) * dy) / (dx * dx + dy * dy).max(1e-9);
    let t = t.clamp(0.0, 1.0);
    (p.0 - a.0 - t * dx).hypot(p.1 - a.1 - t * dy)
}

/// What of one phase does not change from sample to sample.
struct PhantomScene<'a> {
    heart: &'a Heart,
    acquisition: &'a Acquisition,
    depth: f64,
    half_angle: f64,
    hinges: [(f64, f64); 2],
    /// The leaflets' free edges, in the heart's coordinates.
    tips: [(f64, f64); 2],
    roof_depth: f64,
    /// The right heart at end-systole is smaller.
    right_heart: f64,
}

impl<'a> PhantomScene<'a> {
    fn new(patient: &Patient, heart: &'a Heart, acquisition: &'a Acquisition, rng: &mut ChaCha8Rng) -> Self {
        let hinges = heart.hinges();
        // The anterior leaflet is the longer one: on the septum's side in 4CH, on the right in 2CH.
        let anterior = if heart.view == View::FourChamber { 0 } else { 1 };
        // CAMUS's end-diastole is the frame of valve closure or just before it.
        let opening: f64 = match heart.phase {
            Phase::Ed => rng.random_range(0.05f64..0.85),
            Phase::Es => rng.random_range(0.02..0.16),
        };
        let span = hinges[1].1 - hinges[0].1;
        let tips = [0, 1].map(|i| {
            let (u, v) = hinges[i];
            let length = span * if i == anterior { 0.58 } else { 0.45 };
            let inward = if i == 0 { 1.0 } else { -1.0 };
            let angle = opening * if i == anterior { 1.0 } else { 0.8 };
            (u - length * angle.sin(), v + inward * length * angle.cos())
        });
        Self {
            heart,
            acquisition,
            depth: patient.depth,
            half_angle: patient.half_angle,
            hinges,
            tips,
            roof_depth: heart.global(heart.roof, 0.0).1,
            right_heart: acquisition.right_heart * if heart.phase == Phase::Ed { 1.0 } else { 0.82 },
        }
    }

    /// Echo power of tissue, blood and everything else, before attenuation.
    fn power(&self, x: f64, y: f64, r: f64) -> f64 {
        let a = self.acquisition;
        let p = self.heart.place(x, y);
        let coarse = a.coarse.at(x + 500.0, y);
        let medium = a.medium.at(x + 500.0, y * 1.6);
        let behind = bell(r - self.roof_depth - 16.0, 14.0);
        let mut tissue = power(a.background + 5.5 * coarse + 2.4 * medium + 6.0 * behind);
        let blood = power(-a.contrast + 0.8 * medium);

        if self.heart.view == View::FourChamber {
            let (cavity, wall) = self.right_side(&p);
            let free_wall = soft(cavity + 4.5 + 0.8 * medium) * (1.0 - soft(cavity));
            tissue += free_wall
                * wall
                * power(-3.0 + 2.5 * medium + 4.0 * a.coarse.at(p.u * 1.3 + 900.0, p.v + 900.0));
            tissue += (blood * 1.2 - tissue) * soft(cavity + 0.7 * medium);
        }

        // Muscle: streaks along the wall, segments of their own brightness.
        let s = p.u / self.heart.length;
        let streaks = a.wall_fine.at(p.u * 0.45 + 500.0, p.v + 500.0);
        let segments = a.wall_coarse.at(p.u + 500.0, if p.v < 0.0 { 100.0 } else { 300.0 });
        let lateral = if p.v > 0.0 { a.lateral_loss } else { 0.0 };
        let apical = 3.5 * (1.0 - s).clamp(0.0, 1.0).powi(2);
        let muscle = power(3.5 + 3.5 * segments + 2.2 * streaks + 1.2 * medium - lateral - apical);
        let in_wall = soft(p.outer) * soft(p.above + 6.0);
        tissue += (muscle - tissue) * in_wall;

        // The true inner surface is rough (trabeculae); the mask's outline is smooth.
        let rough = 1.3 * a.outline.at(p.u + 500.0, if p.v < 0.0 { 0.0 } else { 200.0 });
        let [at, radius, level] = a.papillary;
        let muscle_head = (p.u - at * self.heart.length).hypot(1.7 * (p.v - self.heart.right * 0.88));
        let inside = soft(p.cavity + rough) * soft(p.above + 1.0);
        let cavity_power = blood + power(level) * soft(radius - muscle_head + medium);
        tissue += (cavity_power - tissue) * inside;
        tissue += (blood * 1.25 - tissue) * soft(p.atrium + 0.5 * medium);

        tissue + self.bright(&p, medium, streaks, segments, s)
    }

    /// Right ventricle and atrium: signed distance into either, and how bright their wall is.
    fn right_side(&self, p: &HeartPlacement) -> (f64, f64) {
        let h = self.heart;
        let s = p.u / h.length;
        let (left, _) = h.half_widths(p.u.clamp(0.0, h.length));
        let septum = -left - h.wall;
        let opening = ((s - 0.16) / 0.66).clamp(0.0, 1.0);
        let width = self.right_heart * opening.powf(0.7) * (1.0 - 0.25 * ((s - 0.8) / 0.2).clamp(0.0, 1.0));
        let ventricle = (septum - p.v).min(p.v - septum + width).min(0.93 * h.length - p.u);
        let half = 0.5 * (h.roof - h.length) + 3.0;
        let wide = 0.9 * h.atrium;
        let (cu, cv) = (0.96 * h.length + half, self.hinges[0].1 - 3.0 - wide);
        let atrium = (1.0 - ((p.u - cu) / half).hypot((p.v - cv) / wide)) * wide.min(half);
        (ventricle.max(atrium), soft(4.0 - (ventricle.max(atrium) + 4.0).abs()))
    }

    /// Reflectors: leaflets, annulus, pericardium, the atrium's wall.
    fn bright(&self, p: &HeartPlacement, medium: f64, streaks: f64, segments: f64, s: f64) -> f64 {
        let h = self.heart;
        let mut sum = 0.0;
        if (p.u - h.length).abs() < 0.55 * h.length && p.v.abs() < 60.0 {
            for (hinge, tip) in self.hinges.iter().zip(&self.tips) {
                let leaflet = bell(segment((p.u, p.v), *hinge, *tip), 0.85);
                sum += leaflet * power(8.0 + 2.5 * medium);
                let outward = if hinge.1 < 0.0 { -2.2 } else { 2.2 };
                let knot = bell((p.u - hinge.0 - 0.5).hypot(p.v - hinge.1 - outward), 2.6);
                sum += knot * power(9.0 + 3.0 * streaks);
            }
            if h.view == View::FourChamber {
                // The tricuspid leaflets, nearer the apex.
                let from = (0.93 * h.length, self.hinges[0].1 - 3.0);
                let to = (0.91 * h.length, from.1 - 0.85 * self.right_heart);
                sum += bell(segment((p.u, p.v), from, to), 0.8) * power(3.0 + 3.0 * medium);
            }
        }
        // Pericardium beyond the right wall, brighter deep down, where it faces the probe.
        if p.v > 0.0 && s > 0.2 {
            let line = bell(p.outer + 2.0 + 0.8 * medium, 1.3) * soft(p.above + 8.0);
            sum += line
                * power(self.acquisition.pericardium * (0.25 + 0.75 * s.min(1.0)) - 3.0 + 3.5 * segments);
        }
        // The atrium's wall: thin at the sides, bright at the roof.
        if p.above < 0.0 {
            let facing = ((p.u - h.length) / (h.roof - h.length).max(1.0)).clamp(0.0, 1.2);
            let wall = bell(p.atrium + 1.8, 1.2 + 0.8 * facing);
            sum += wall * power(-4.0 + 14.0 * facing * facing + 3.0 * medium + 3.0 * segments);
        }
        sum
    }

    /// What the way there and back leaves of it, dB.
    fn loss(&self, angle: f64, r: f64) -> f64 {
        let a = self.acquisition;
        let edge = (angle / self.half_angle).abs();
        let mut loss = a.slope * (r / self.depth - 0.4) + a.edge_loss * edge.powi(4);
        for &[centre, width, depth, from] in &a.gaps {
            loss += depth * bell(angle - centre, width) * ((r - from) / 18.0).clamp(0.0, 1.0);
        }
        loss
    }

    /// Echoes of the chest wall and reverberations near the probe, and haze at the apex.
    fn clutter(&self, angle: f64, r: f64) -> f64 {
        let a = self.acquisition;
        let near = power(9.0 - r * 1.0 + 5.0 * (r * 1.9).cos());
        let haze = power(a.haze - (r - 15.0).max(0.0) * 0.16 + 2.0 * a.coarse.at(angle * 60.0 + 900.0, r));
        near + haze
    }
}

/// The echocardiogram of `heart`: black outside the sector, probe at the top centre.
pub fn render(patient: &Patient, heart: &Heart, seed: u64, number: u64, size: usize) -> Picture {
    let acquisition = Acquisition::draw(patient, seed, number, heart.view);
    let rng = &mut random::rng(seed, "phantom-speckle", &[number, heart.view as u64, heart.phase as u64]);
    let scene = PhantomScene::new(patient, heart, &acquisition, rng);
    let lines = (2.0 * patient.half_angle / LINE_STEP).ceil() as usize + 1;
    let samples = (1.6 * size as f64).ceil() as usize + 1;
    let grid = SpeckleGrid {
        lines,
        samples,
        line_step: 2.0 * patient.half_angle / (lines - 1) as f64,
        sample_step: patient.depth / (samples - 1) as f64,
        half_angle: patient.half_angle,
    };
    let amplitude = grid.fill(|angle, r| {
        let (x, y) = (r * angle.sin(), r * angle.cos());
        let echo = scene.power(x, y, r) * power(-scene.loss(angle, r));
        let noise = power(acquisition.noise + 5.0 * (r / patient.depth));
        (echo + scene.clutter(angle, r) + noise).sqrt() as f32
    });
    let envelope = speckle(&grid, &amplitude, rng);
    let per_db = 255.0 / acquisition.dynamic_range;
    let offset = TISSUE_LEVEL + acquisition.gain * per_db;
    let level: Vec<f32> =
        envelope.iter().map(|&p| (offset as f32) + (per_db as f32) * 10.0 * p.max(1e-9).log10()).collect();
    scan_convert(&grid, &level, patient, size)
}

/// Lines (angles) by samples (depths); a line's samples lie together.
struct SpeckleGrid {
    lines: usize,
    samples: usize,
    line_step: f64,
    sample_step: f64,
    half_angle: f64,
}

impl SpeckleGrid {
    /// `value(angle, depth)` at every sample, computed at every second line and sample and joined
    /// linearly: tissue is smooth on that scale (the speckle that comes on top is not).
    fn fill(&self, value: impl Fn(f64, f64) -> f32) -> Vec<f32> {
        let (lines, samples) = (self.lines / 2 + 1, self.samples / 2 + 1);
        let mut coarse = Vec::with_capacity(lines * samples);
        for line in 0..lines {
            let angle = (2 * line) as f64 * self.line_step - self.half_angle;
            coarse.extend((0..samples).map(|i| value(angle, (2 * i) as f64 * self.sample_step)));
        }
        let mut out = Vec::with_capacity(self.lines * self.samples);
        for line in 0..self.lines {
            // In range: an odd line or sample has one after it, since the counts were rounded up.
            let first = &coarse[line / 2 * samples..];
            let second = &coarse[line.div_ceil(2).min(lines - 1) * samples..];
            let at = |i: usize| 0.5 * (first[i] + second[i]);
            out.extend((0..self.samples).map(|i| 0.5 * (at(i / 2) + at(i.div_ceil(2).min(samples - 1)))));
        }
        out
    }
}

/// Power of the blurred scatterers, averaged over looks.
fn speckle(grid: &SpeckleGrid, amplitude: &[f32], rng: &mut ChaCha8Rng) -> Vec<f32> {
    let axial = kernel(AXIAL_SD / grid.sample_step);
    let lateral = kernel(LATERAL_SD / grid.line_step);
    let mut sum = vec![0f32; amplitude.len()];
    for _ in 0..2 * LOOKS {
        // Real and imaginary parts are alike and independent.
        let scatterers: Vec<f32> = amplitude.iter().map(|a| a * normal(rng)).collect();
        let blurred = blur(&scatterers, grid, &axial, &lateral);
        for (total, v) in sum.iter_mut().zip(&blurred) {
            *total += v * v;
        }
    }
    let norm = 1.0 / (2 * LOOKS) as f32;
    sum.iter_mut().for_each(|v| *v *= norm);
    sum
}

/// A Gaussian over 3 standard deviations that keeps the power of white noise (squares sum to 1).
fn kernel(sd: f64) -> Vec<f32> {
    let reach = (3.0 * sd).ceil() as i32;
    let weights: Vec<f64> = (-reach..=reach).map(|i| (-0.5 * (f64::from(i) / sd).powi(2)).exp()).collect();
    let norm = weights.iter().map(|w| w * w).sum::<f64>().sqrt();
    weights.iter().map(|w| (w / norm) as f32).collect()
}

fn blur(values: &[f32], grid: &SpeckleGrid, axial: &[f32], lateral: &[f32]) -> Vec<f32> {
    let n = grid.samples;
    let reach = axial.len() / 2;
    let mut along = vec![0f32; values.len()];
    let mut padded = vec![0f32; n + 2 * reach];
    for (line, out) in values.chunks_exact(n).zip(along.chunks_exact_mut(n)) {
        padded[reach..reach + n].copy_from_slice(line);
        for (k, &weight) in axial.iter().enumerate() {
            for (o, &v) in out.iter_mut().zip(&padded[k..]) {
                *o += weight * v;
            }
        }
    }
    let mut across = vec![0f32; values.len()];
    let reach = lateral.len() / 2;
    for (i, out) in across.chunks_exact_mut(n).enumerate() {
        for (k, &weight) in lateral.iter().enumerate() {
            let Some(line) = (i + k).checked_sub(reach).filter(|&line| line < grid.lines) else { continue };
            for (o, &v) in out.iter_mut().zip(&along[line * n..(line + 1) * n]) {
                *o += weight * v;
            }
        }
    }
    across
}

/// Width of the picture that holds the sector, pixels.
pub fn width(patient: &Patient, size: usize) -> usize {
    (2.0 * patient.half_angle.sin() * size as f64).round().max(1.0) as usize
}

/// Where the middle of a pixel is, mm from the probe.
pub fn position(patient: &Patient, size: usize, x: usize, y: usize) -> (f64, f64) {
    let spacing = patient.depth / size as f64;
    let middle = width(patient, size) as f64 / 2.0;
    ((x as f64 + 0.5 - middle) * spacing, (y as f64 + 0.5) * spacing)
}

fn scan_convert(grid: &SpeckleGrid, level: &[f32], patient: &Patient, size: usize) -> Picture {
    let mut picture = Picture::new(width(patient, size), size);
    let columns = picture.width;
    for (i, pixel) in picture.pixels.iter_mut().enumerate() {
        let (x, y) = position(patient, size, i % columns, i / columns);
        let r = x.hypot(y) / grid.sample_step;
        let line = (x.atan2(y) + grid.half_angle) / grid.line_step;
        if r >= (grid.samples - 1) as f64 || line < 0.0 || line >= (grid.lines - 1) as f64 {
            continue;
        }
        let (i, j) = (line as usize, r as usize);
        let (s, t) = ((line - i as f64) as f32, (r - j as f64) as f32);
        let at = i * grid.samples + j;
        // In range: line and sample are below the last ones.
        let (near, far) = (&level[at..at + 2], &level[at + grid.samples..at + grid.samples + 2]);
        let value = (1.0 - s) * ((1.0 - t) * near[0] + t * near[1]) + s * ((1.0 - t) * far[0] + t * far[1]);
        *pixel = value.round().clamp(0.0, 255.0) as u8;
    }
    picture
}
