//! The phantom's hearts: lengths in mm, drawn per patient, shared by both views and both phases.
//!
//! Orders of magnitude: Lang et al., "Recommendations for Cardiac Chamber Quantification by
//! Echocardiography in Adults", J Am Soc Echocardiogr 28(1), 2015; areas as in CAMUS's masks.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

use crate::random;
use crate::vocabulary::{Phase, Quality, Sex, View};

/// One person.
#[derive(Debug, Clone, PartialEq)]
pub struct Patient {
    pub sex: Sex,
    /// Years.
    pub age: u32,
    pub quality: Quality,
    /// Height of the picture, mm.
    pub depth: f64,
    /// Half the sector's opening, radians.
    pub half_angle: f64,
    /// Ejection fraction that the shapes have (biplane discs), 0..1.
    pub ef: f64,
    pub two_chamber: HeartShape,
    pub four_chamber: HeartShape,
    /// Shortening of the long axis at end-systole, relative.
    shortening: f64,
    /// Wall thickness at end-systole over end-diastole.
    thickening: f64,
}

/// One view's heart at end-diastole.
#[derive(Debug, Clone, PartialEq)]
pub struct HeartShape {
    /// Where the cavity's apex is, from the probe: x to the right, y down.
    apex: (f64, f64),
    /// Angle of the long axis from straight down, positive towards the right.
    tilt: f64,
    /// Cavity from apex to mitral plane.
    length: f64,
    /// Greatest half-widths left and right of the axis.
    left: f64,
    right: f64,
    wall: f64,
    /// Slope of the mitral plane against the axis's normal.
    plane: f64,
    /// Inward bulge of the basal left wall (the septum's), mm.
    bulge: f64,
    /// Greatest half-width of the atrium, and the depth of its roof below the cavity's apex.
    atrium: f64,
    roof: f64,
    /// Width that is left at end-systole.
    narrowing: f64,
}

/// One view at one phase: everything that mask and picture are made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Heart {
    pub view: View,
    pub phase: Phase,
    pub apex: (f64, f64),
    axis: (f64, f64),
    pub length: f64,
    pub left: f64,
    pub right: f64,
    pub wall: f64,
    plane: f64,
    bulge: f64,
    pub atrium: f64,
    pub roof: f64,
}

fn normal(rng: &mut ChaCha8Rng, mean: f64, sd: f64, low: f64, high: f64) -> f64 {
    // The parameters are constants of this file: finite, sd > 0.
    Normal::new(mean, sd).map_or(mean, |n| n.sample(rng)).clamp(low, high)
}

impl Patient {
    /// The person of that number (from 1) under the seed.
    pub fn draw(seed: u64, number: u64) -> Self {
        let rng = &mut random::rng(seed, "phantom-anatomy", &[number]);
        let quality = match rng.random_range(0..100) {
            0..44 => Quality::Good, // CAMUS: 44, 43 and 13 %
            44..87 => Quality::Medium,
            _ => Quality::Poor,
        };
        let sex = if rng.random_bool(0.34) { Sex::Female } else { Sex::Male };
        let ef = normal(rng, 0.50, 0.11, 0.20, 0.72);
        let scale = if sex == Sex::Female { 0.95 } else { 1.0 } * normal(rng, 1.0, 0.07, 0.84, 1.18);
        let length = 86.0 * scale;
        // A failing ventricle dilates.
        let width = scale * (1.0 + 0.45 * (0.52 - ef)) * normal(rng, 1.0, 0.08, 0.82, 1.2);
        let wall = scale.sqrt() * normal(rng, 12.6, 1.3, 9.4, 16.0);
        let shortening = 0.30 * ef * normal(rng, 1.0, 0.15, 0.6, 1.4);
        let narrowing = ((1.0 - ef) / (1.0 - shortening)).sqrt();
        let lean = normal(rng, 0.0, 0.05, -0.12, 0.12);
        let atrium = scale * normal(rng, 21.0, 2.6, 15.0, 28.0);
        let roof = 1.0 + normal(rng, 0.44, 0.06, 0.3, 0.6);
        let mut shape = |view: View| {
            let two = view == View::TwoChamber;
            let width = width * normal(rng, 1.0, 0.05, 0.88, 1.12);
            let length = length * normal(rng, 1.0, 0.015, 0.96, 1.04);
            HeartShape {
                apex: (
                    normal(rng, if two { -9.0 } else { -7.0 }, 3.5, -18.0, 3.0),
                    normal(rng, 23.0, 3.0, 17.0, 30.0),
                ),
                tilt: lean + normal(rng, if two { 0.21 } else { 0.25 }, 0.06, 0.05, 0.42),
                length,
                left: width * normal(rng, if two { 21.0 } else { 20.5 }, 1.2, 15.0, 26.0),
                right: width * normal(rng, if two { 24.0 } else { 24.5 }, 1.2, 17.0, 30.0),
                wall: wall * if two { 1.12 } else { 1.0 },
                plane: normal(rng, -0.02, 0.07, -0.2, 0.16),
                bulge: normal(rng, if two { 0.8 } else { 2.0 }, 0.9, 0.0, 4.5),
                atrium: atrium * normal(rng, if two { 0.98 } else { 1.02 }, 0.06, 0.85, 1.15),
                roof: length * roof * normal(rng, 1.0, 0.02, 0.95, 1.05),
                // The views' own contractions differ a little, as sections of one heart do.
                narrowing: narrowing * normal(rng, 1.0, 0.02, 0.95, 1.05),
            }
        };
        let (two_chamber, four_chamber) = (shape(View::TwoChamber), shape(View::FourChamber));
        // The operator sets the depth so that the atrium's roof is still on the picture.
        let deepest = two_chamber.bottom().max(four_chamber.bottom());
        let depth = (deepest + normal(rng, 10.0, 8.0, -4.0, 34.0)).clamp(110.0, 205.0);
        let half_angle = [37.4f64, 37.4, 37.4, 40.0, 44.0][rng.random_range(0..5)].to_radians();
        let mut patient = Self {
            sex,
            age: normal(rng, 65.0, 14.0, 21.0, 93.0) as u32,
            quality,
            depth,
            half_angle,
            ef,
            two_chamber,
            four_chamber,
            shortening,
            thickening: 1.0 + ef * normal(rng, 0.45, 0.08, 0.28, 0.65),
        };
        patient.ef = 1.0 - patient.volume(Phase::Es) / patient.volume(Phase::Ed);
        patient
    }

    pub fn heart(&self, view: View, phase: Phase) -> Heart {
        let shape = match view {
            View::TwoChamber => &self.two_chamber,
            View::FourChamber => &self.four_chamber,
        };
        let (short, narrow, thick) = match phase {
            Phase::Ed => (1.0, 1.0, 1.0),
            Phase::Es => (1.0 - self.shortening, shape.narrowing, self.thickening),
        };
        let length = shape.length * short;
        Heart {
            view,
            phase,
            // The apex hardly moves; the mitral plane comes up to it, and the atrium's roof stays, so
            // that the atrium fills while the ventricle empties.
            apex: shape.apex,
            axis: (shape.tilt.sin(), shape.tilt.cos()),
            length,
            left: shape.left * narrow,
            right: shape.right * narrow,
            wall: shape.wall * thick,
            plane: shape.plane,
            bulge: shape.bulge,
            atrium: shape.atrium * if phase == Phase::Ed { 0.90 } else { 1.0 },
            roof: shape.roof,
        }
    }

    /// Cavity volume by the biplane method of discs, ml.
    pub fn volume(&self, phase: Phase) -> f64 {
        let (two, four) = (self.heart(View::TwoChamber, phase), self.heart(View::FourChamber, phase));
        let discs = 64;
        let length = two.length.max(four.length);
        let areas = (0..discs).map(|i| {
            let s = (f64::from(i) + 0.5) / f64::from(discs);
            let width = |h: &Heart| {
                let (l, r) = h.half_widths(s * h.length);
                l + r
            };
            width(&two) * width(&four)
        });
        std::f64::consts::FRAC_PI_4 * areas.sum::<f64>() * length / f64::from(discs) / 1000.0
    }
}

impl HeartShape {
    /// The lowest point of the atrium's roof, mm below the probe.
    fn bottom(&self) -> f64 {
        self.apex.1 + self.roof * self.tilt.cos()
    }
}

/// The ventricle's outline: half-width at `s` (0 apex, 1 mitral plane) over the greatest one.
fn profile(s: f64) -> f64 {
    const WIDEST: f64 = 0.52;
    const AT_PLANE: f64 = 0.72;
    if s <= 0.0 {
        0.0
    } else if s < WIDEST {
        // Rounder than an ellipse near the tip.
        let d = 1.0 - s / WIDEST;
        (1.0 - d.powf(2.6)).max(0.0).sqrt()
    } else {
        let d = (s - WIDEST) / (1.0 - WIDEST);
        1.0 - (1.0 - AT_PLANE) * d * d
    }
}

/// Where a point lies, as signed distances in mm, positive inside. Near the outlines they are close
/// to Euclidean; far away only their sign counts.
#[derive(Debug, Clone, Copy)]
pub struct HeartPlacement {
    /// Along the long axis from the cavity's apex, and across it to the right.
    pub u: f64,
    pub v: f64,
    /// Inside the cavity's outline (without the mitral plane).
    pub cavity: f64,
    /// Inside the outer outline of the myocardium.
    pub outer: f64,
    /// Above the mitral plane (towards the apex).
    pub above: f64,
    /// Inside the atrium.
    pub atrium: f64,
}

impl Heart {
    /// Half-widths of the cavity left and right of the axis at `u` mm from its apex.
    pub fn half_widths(&self, u: f64) -> (f64, f64) {
        let s = u / self.length;
        let f = profile(s);
        let bulge = self.bulge * (-((s - 0.78) / 0.16).powi(2)).exp();
        // The right wall's belly sits a little lower than the left wall's.
        let right = profile(s - 0.04 * (s * (1.0 - s)) * 4.0);
        (self.left * f - bulge, self.right * right)
    }

    /// From the probe's coordinates to the heart's: along the axis and across it.
    pub fn local(&self, x: f64, y: f64) -> (f64, f64) {
        let (dx, dy) = (x - self.apex.0, y - self.apex.1);
        (dx * self.axis.0 + dy * self.axis.1, dx * self.axis.1 - dy * self.axis.0)
    }

    /// Back from the heart's coordinates.
    pub fn global(&self, u: f64, v: f64) -> (f64, f64) {
        (self.apex.0 + u * self.axis.0 + v * self.axis.1, self.apex.1 + u * self.axis.1 - v * self.axis.0)
    }

    /// Where the leaflets hang: (u, v) of the left and right end of the mitral plane.
    pub fn hinges(&self) -> [(f64, f64); 2] {
        let (left, right) = self.half_widths(self.length);
        [-left, right].map(|v| (self.length + self.plane * v, v))
    }

    pub fn place(&self, x: f64, y: f64) -> HeartPlacement {
        let (u, v) = self.local(x, y);
        let above = self.length + self.plane * v - u;
        let inside = |u: f64, l: f64, r: f64, length: f64| {
            let side = if v < 0.0 { l + v } else { r - v };
            // Near the tip the outline runs across the axis: there the distance along it counts.
            side.min(u * 1.6).min(length * 1.2 - u)
        };
        // Below the plane the walls are thought on straight, so that the distances stay smooth.
        let (l, r) = self.half_widths(u.clamp(0.0, self.length));
        let cavity = inside(u, l, r, self.length);
        let tip = self.wall * 0.95;
        let s = ((u + tip) / (self.length + tip)).clamp(0.0, 1.0);
        let f = profile(s);
        // Walls taper a little towards the apex.
        let wall = self.wall * (0.85 + 0.15 * s);
        let outer = inside(u + tip, (self.left + wall) * f, (self.right + wall) * f, self.length + tip);
        HeartPlacement { u, v, cavity, outer, above, atrium: self.atrium_distance(u, v, above) }
    }

    fn atrium_distance(&self, u: f64, v: f64, above: f64) -> f64 {
        let [(_, left), (_, right)] = self.hinges();
        let height = (self.roof - self.length).max(8.0);
        let t = (u - self.length) / height;
        // From the mitral plane's width to its own, then round to the roof.
        let half = 0.5 * (right - left) * 0.94;
        let belly = (t.clamp(0.0, 1.0) * std::f64::consts::PI).sin().max(0.0).powf(0.7);
        let neck = half * (1.0 - t.clamp(0.0, 1.0).powi(3)).max(0.0).sqrt();
        let width = neck + (self.atrium - half).max(-3.0) * belly;
        let middle = 0.5 * (left + right);
        (width - (v - middle).abs()).min((self.roof - u) * 1.5).min(-above)
    }

    /// The mask's class at a point: 1 cavity, 2 myocardium, 3 atrium, else 0.
    pub fn class(&self, x: f64, y: f64) -> u8 {
        let p = self.place(x, y);
        // The walls' ends are cut aslant, lower on the outside, as CAMUS's readers drew them.
        let leg = p.above + 0.32 * (-p.cavity).max(0.0);
        if p.above > 0.0 && p.cavity > 0.0 {
            1
        } else if p.atrium >= 0.0 {
            3
        } else if p.outer > 0.0 && leg > 0.0 {
            2
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hearts_contract_as_their_ejection_fraction_says() {
        let mut sum = 0.0;
        for number in 1..=200 {
            let p = Patient::draw(3, number);
            assert!((0.1..0.8).contains(&p.ef), "{}", p.ef);
            let (ed, es) = (p.volume(Phase::Ed), p.volume(Phase::Es));
            assert!((40.0..330.0).contains(&ed), "{ed} ml");
            assert!((1.0 - es / ed - p.ef).abs() < 1e-12);
            for view in View::ALL {
                let (ed, es) = (p.heart(view, Phase::Ed), p.heart(view, Phase::Es));
                assert!(es.length < ed.length && es.left < ed.left && es.wall > ed.wall);
                assert!(es.roof - es.length > ed.roof - ed.length, "the atrium fills");
            }
            sum += p.ef;
        }
        assert!((0.42..0.58).contains(&(sum / 200.0)));
    }

    #[test]
    fn local_coordinates_turn_back() {
        let heart = Patient::draw(0, 1).heart(View::FourChamber, Phase::Ed);
        let (u, v) = heart.local(12.0, 70.0);
        let (x, y) = heart.global(u, v);
        assert!((x - 12.0).abs() < 1e-9 && (y - 70.0).abs() < 1e-9);
    }
}
