//! Left-ventricular volumes and ejection fraction from masks, by Simpson's biplane method of discs.
//!
//! The method is that of the American Society of Echocardiography (Lang et al. 2015) and of CAMUS (Leclerc et al.
//! 2019): two apical views are cut into 20 discs across the long axis, and a disc is an ellipse whose diameters are those
//! of the two views. As in CAMUS's evaluation, all four masks of a patient share one disc height, that of the longest
//! axis. It cancels in the ejection fraction; with a height per phase the fraction of CAMUS's reference masks is 8 points
//! above the recorded one.

pub mod folder;
mod rows;

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use super::largest_component::largest_piece;
use crate::{
    error::{Error, Result},
    vocabulary::{Phase, Structure, VIEW_PHASES, View},
};

pub use rows::{ImageDiscs, known_spacings, measurements};

/// Discs across the long axis: the number of the ASE's guideline.
pub const DISCS: usize = 20;

/// Cubic millimetres in a millilitre.
const MM3_PER_ML: f64 = 1000.0;

/// Why a patient has no ejection fraction. A reader must hear of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoFraction {
    /// Not exactly one mask of each view and phase.
    Images,
    /// A mask has no pixel of the ventricle.
    Ventricle,
    /// A mask has no pixel of the atrium, so the mitral plane is not known.
    Atrium,
    /// The ventricle is a point, or its end-diastolic volume is zero.
    Volume,
}

impl NoFraction {
    pub const ALL: [Self; 4] = [Self::Images, Self::Ventricle, Self::Atrium, Self::Volume];

    /// What is wrong with the patient, for a reader.
    pub fn words(self) -> &'static str {
        match self {
            Self::Images => "not exactly one mask each of 2CH ED, 2CH ES, 4CH ED and 4CH ES",
            Self::Ventricle => "a mask without a left ventricle",
            Self::Atrium => "a mask without a left atrium, so the mitral plane is not known",
            Self::Volume => "a left ventricle without a volume",
        }
    }
}

/// What a mask, or the masks of a patient, give.
pub type Outcome<T> = std::result::Result<T, NoFraction>;

/// A mask of class indices, in rows of `width` pixels.
#[derive(Debug, Clone, Copy)]
pub struct LabelMask<'a> {
    pub classes: &'a [u8],
    pub width: usize,
    /// Size of a pixel (x, y) in mm, or (1, 1) where it is not known.
    pub spacing: (f64, f64),
}

/// The left ventricle of one image, cut across its long axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Discs {
    /// From the mitral plane to the apex, in the unit of the spacing; 0 or more. A disc's diameter is its area divided by
    /// its height.
    pub diameters: [f64; DISCS],
    /// Length of the long axis in the unit of the spacing, above 0.
    pub length: f64,
}

/// Cuts the left ventricle of a mask into discs.
///
/// Of ventricle (class 1) and atrium (class 3) the largest 8-connected piece counts. The base is the middle of those pixels
/// of the ventricle that touch the atrium, or are nearest to it where none does (by the chessboard distance). The apex is
/// the pixel of the ventricle that is farthest from the base. The area of a pixel is shared among the discs that it
/// covers along the axis; what lies beyond an end counts to the last disc there.
///
/// # Errors
/// The mask is not made of whole rows, or the spacing is not positive.
pub fn discs(mask: &LabelMask) -> Result<Outcome<Discs>> {
    let &LabelMask { classes, width, spacing: (sx, sy) } = mask;
    if width == 0 || !classes.len().is_multiple_of(width) {
        return Err(Error::input(format!("{} pixels are not whole rows of {width}", classes.len())));
    }
    if !(sx > 0.0 && sy > 0.0 && sx.is_finite() && sy.is_finite()) {
        return Err(Error::input(format!("a pixel cannot be {sx} x {sy} mm")));
    }
    let Some(ventricle) = largest_piece(&Structure::Endo.mask(classes), width) else {
        return Ok(Err(NoFraction::Ventricle));
    };
    let Some(atrium) = largest_piece(&Structure::La.mask(classes), width) else {
        return Ok(Err(NoFraction::Atrium));
    };
    let place = |i: usize| ((i % width) as f64 * sx, (i / width) as f64 * sy);
    let distances = chessboard_distances(&atrium, (width, classes.len() / width));
    let nearest = ventricle.iter().map(|&i| distances[i]).min().unwrap_or_default();
    let touching: Vec<(f64, f64)> =
        ventricle.iter().filter(|&&i| distances[i] == nearest).map(|&i| place(i)).collect();
    let sum = touching.iter().fold((0.0, 0.0), |sum, p| (sum.0 + p.0, sum.1 + p.1));
    let count = touching.len() as f64;
    let base = (sum.0 / count, sum.1 / count);
    let from_base = |i: usize| {
        let (x, y) = place(i);
        (x - base.0, y - base.1)
    };
    let square = |(x, y): (f64, f64)| x * x + y * y;
    let mut apex = (0.0, 0.0);
    for &i in &ventricle {
        if square(from_base(i)) > square(apex) {
            apex = from_base(i);
        }
    }
    if square(apex) <= 0.0 {
        return Ok(Err(NoFraction::Volume));
    }
    // Along the axis in discs: 0 at the base, 20 at the apex.
    let per_disc = DISCS as f64 / square(apex);
    let half = (apex.0.abs() * sx + apex.1.abs() * sy) * per_disc / 2.0;
    let mut areas = [0.0; DISCS];
    for &i in &ventricle {
        let (x, y) = from_base(i);
        share(&mut areas, (x * apex.0 + y * apex.1) * per_disc, half, sx * sy);
    }
    let length = square(apex).sqrt();
    let height = length / DISCS as f64;
    Ok(Ok(Discs { diameters: areas.map(|area| area / height), length }))
}

/// Shares an area that reaches from `middle - half` to `middle + half` out to the discs.
fn share(areas: &mut [f64; DISCS], middle: f64, half: f64, area: f64) {
    let (low, high) = (middle - half, middle + half);
    let disc = |at: f64| (at.floor().max(0.0) as usize).min(DISCS - 1);
    let (first, last) = (disc(low), disc(high));
    for (i, sum) in areas.iter_mut().enumerate().take(last + 1).skip(first) {
        let from = if i == 0 { low } else { low.max(i as f64) };
        let to = if i + 1 == DISCS { high } else { high.min((i + 1) as f64) };
        *sum += area * (to - from).max(0.0) / (2.0 * half);
    }
}

/// For each pixel the number of steps of a king on a chessboard to the nearest of `pixels`: two passes (Rosenfeld and
/// Pfaltz 1966), exact for this distance.
fn chessboard_distances(pixels: &[usize], (width, height): (usize, usize)) -> Vec<u32> {
    let mut steps = vec![u32::MAX - 1; width * height];
    pixels.iter().for_each(|&i| steps[i] = 0);
    let relax = |steps: &mut Vec<u32>, i: usize, dy: isize, towards: isize| {
        let (x, y) = ((i % width) as isize, (i / width) as isize);
        for (column, row) in [(x - 1, y + dy), (x, y + dy), (x + 1, y + dy), (x + towards, y)] {
            if (0..width as isize).contains(&column) && (0..height as isize).contains(&row) {
                steps[i] = steps[i].min(steps[row as usize * width + column as usize] + 1);
            }
        }
    };
    (0..steps.len()).for_each(|i| relax(&mut steps, i, -1, -1));
    (0..steps.len()).rev().for_each(|i| relax(&mut steps, i, 1, 1));
    steps
}

/// The left-ventricular volumes of a patient, in the cubed unit of the spacing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Volumes {
    /// Above 0.
    pub end_diastolic: f64,
    /// 0 or more.
    pub end_systolic: f64,
}

impl Volumes {
    /// pi/4 sum(d2 d4) h of both phases, h being the 20th part of the longest of the four axes. The views are 2CH and 4CH.
    fn of(diastole: [&Discs; 2], systole: [&Discs; 2]) -> Outcome<Self> {
        let longest = diastole.iter().chain(&systole).map(|discs| discs.length).fold(0.0, f64::max);
        let volume = |[two, four]: [&Discs; 2]| {
            let products = two.diameters.iter().zip(&four.diameters).map(|(a, b)| a * b);
            PI / 4.0 * products.sum::<f64>() * (longest / DISCS as f64)
        };
        let (end_diastolic, end_systolic) = (volume(diastole), volume(systole));
        match end_diastolic > 0.0 {
            true => Ok(Self { end_diastolic, end_systolic }),
            false => Err(NoFraction::Volume),
        }
    }

    /// In percent: 100 (EDV - ESV) / EDV, at most 100. It is negative where the systolic volume is the larger one.
    pub fn ejection_fraction(self) -> f64 {
        100.0 * (self.end_diastolic - self.end_systolic) / self.end_diastolic
    }

    /// (end-diastolic, end-systolic) in millilitres, where the spacing was in mm. The systolic one is larger than by a
    /// method with a disc height of its own.
    pub fn millilitres(self) -> (f64, f64) {
        (self.end_diastolic / MM3_PER_ML, self.end_systolic / MM3_PER_ML)
    }
}

/// The discs of a patient's masks, by view and phase.
#[derive(Debug, Clone, Default)]
pub struct PatientDiscs {
    of_masks: [Vec<Outcome<Discs>>; VIEW_PHASES],
}

/// The place of a view and phase.
fn slot(view: View, phase: Phase) -> usize {
    2 * usize::from(view == View::FourChamber) + usize::from(phase == Phase::Es)
}

impl PatientDiscs {
    pub fn add(&mut self, view: View, phase: Phase, discs: Outcome<Discs>) {
        self.of_masks[slot(view, phase)].push(discs);
    }

    /// Pairs of a view and a phase that have exactly one mask.
    pub fn masks(&self) -> usize {
        self.of_masks.iter().filter(|masks| masks.len() == 1).count()
    }

    pub fn volumes(&self) -> Outcome<Volumes> {
        let one = |view, phase| match &self.of_masks[slot(view, phase)][..] {
            [Ok(discs)] => Ok(discs),
            [Err(reason)] => Err(*reason),
            _ => Err(NoFraction::Images),
        };
        if self.masks() < VIEW_PHASES {
            return Err(NoFraction::Images);
        }
        let both = |phase| Ok([one(View::TwoChamber, phase)?, one(View::FourChamber, phase)?]);
        Volumes::of(both(Phase::Ed)?, both(Phase::Es)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture of characters: `v` ventricle, `m` myocardium, `a` atrium.
    fn drawn(rows: &[&str]) -> (Vec<u8>, usize) {
        let class = |c: char| match c {
            'v' => 1,
            'm' => 2,
            'a' => 3,
            _ => 0,
        };
        (rows.iter().flat_map(|row| row.chars().map(class)).collect(), rows[0].len())
    }

    fn cut(rows: &[&str], spacing: (f64, f64)) -> Outcome<Discs> {
        let (classes, width) = drawn(rows);
        discs(&LabelMask { classes: &classes, width, spacing }).unwrap()
    }

    /// A ventricle `across` x `along` pixels above an atrium.
    fn box_of(across: usize, along: usize) -> Vec<u8> {
        let width = across + 4;
        let row = |class: u8| {
            let mut row = vec![0; width];
            row[2..2 + across].fill(class);
            row
        };
        let rows = (0..along).map(|_| row(1)).chain([row(3), row(3)]);
        [vec![0; width]].into_iter().chain(rows).flatten().collect()
    }

    fn discs_of_box(across: usize, along: usize, spacing: (f64, f64)) -> Discs {
        discs(&LabelMask { classes: &box_of(across, along), width: across + 4, spacing }).unwrap().unwrap()
    }

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-9 * (1.0 + b.abs()), "{a} {b}");
    }

    #[test]
    fn the_area_is_that_of_all_pixels_and_the_axis_leads_from_the_atrium_to_the_apex() {
        let found = cut(&["..v..", "..v..", ".vvv.", ".vvv.", ".aaa."], (1.0, 1.0)).unwrap();
        near(found.length, 3.0);
        let height = found.length / 20.0;
        near(found.diameters.iter().sum::<f64>() * height, 8.0);
        // Near the mitral plane it is three wide, near the apex one; the half pixels beyond both ends count to these discs.
        near(found.diameters[4], 3.0);
        near(found.diameters[15], 1.0);
        assert!(found.diameters[0] > 10.0 && found.diameters[19] > 4.0, "{found:?}");
    }

    #[test]
    fn a_pixel_size_in_mm_scales_each_direction() {
        let (plain, scaled) = (discs_of_box(9, 41, (1.0, 1.0)), discs_of_box(9, 41, (0.5, 2.0)));
        // The apex is a corner: 4 across and 40 along.
        near(plain.length, (4.0f64 * 4.0 + 1600.0).sqrt());
        near(scaled.length, (2.0f64 * 2.0 + 6400.0).sqrt());
        let area = |discs: &Discs| discs.diameters.iter().sum::<f64>() * discs.length / 20.0;
        near(area(&plain), 9.0 * 41.0);
        near(area(&scaled), 9.0 * 41.0);
    }

    #[test]
    fn a_stray_piece_is_neither_apex_nor_atrium() {
        let clean =
            cut(&["......v", ".......", "..v....", "..v....", ".vvv...", ".aaa...", "......."], (1.0, 1.0));
        let bare =
            cut(&[".......", ".......", "..v....", "..v....", ".vvv...", ".aaa...", "....a.a"], (1.0, 1.0));
        assert_eq!(clean, bare);
        assert_eq!(clean.unwrap().length, 2.0);
    }

    #[test]
    fn an_atrium_that_does_not_touch_gives_the_nearest_pixels_as_base() {
        let apart = cut(&["..v..", "..v..", ".vvv.", ".....", ".aaa."], (1.0, 1.0)).unwrap();
        let touching = cut(&["..v..", "..v..", ".vvv.", ".aaa.", "....."], (1.0, 1.0)).unwrap();
        assert_eq!(apart, touching);
    }

    fn patient(of: [(View, Phase, Outcome<Discs>); 4]) -> PatientDiscs {
        let mut patient = PatientDiscs::default();
        of.into_iter().for_each(|(view, phase, discs)| patient.add(view, phase, discs));
        patient
    }

    const FOUR: [(View, Phase); 4] = [
        (View::TwoChamber, Phase::Ed),
        (View::TwoChamber, Phase::Es),
        (View::FourChamber, Phase::Ed),
        (View::FourChamber, Phase::Es),
    ];

    #[test]
    fn one_height_for_all_four_masks() {
        let cylinder = |wide: f64, length: f64| Ok(Discs { diameters: [wide; DISCS], length });
        let of = [
            (FOUR[0].0, FOUR[0].1, cylinder(40.0, 80.0)),
            (FOUR[1].0, FOUR[1].1, cylinder(30.0, 70.0)),
            (FOUR[2].0, FOUR[2].1, cylinder(50.0, 90.0)),
            (FOUR[3].0, FOUR[3].1, cylinder(40.0, 75.0)),
        ];
        let volumes = patient(of).volumes().unwrap();
        near(volumes.end_diastolic, PI / 4.0 * 40.0 * 50.0 * 90.0);
        near(volumes.end_systolic, PI / 4.0 * 30.0 * 40.0 * 90.0);
        near(volumes.ejection_fraction(), 40.0);
        near(volumes.millilitres().0, PI / 4.0 * 180.0);
        // With a height of its own the systolic volume would be 75/90 of this, and the fraction 50.
        assert!((volumes.ejection_fraction() - 50.0).abs() > 9.0);
    }

    #[test]
    fn what_is_undefined_says_why() {
        let good = || Ok(discs_of_box(9, 41, (1.0, 1.0)));
        assert_eq!(cut(&["....", ".aa."], (1.0, 1.0)), Err(NoFraction::Ventricle));
        assert_eq!(cut(&[".vv.", "...."], (1.0, 1.0)), Err(NoFraction::Atrium));
        assert_eq!(cut(&[".v..", ".aa."], (1.0, 1.0)), Err(NoFraction::Volume));
        let all = |last: Outcome<Discs>| {
            let [a, b, c, d] = FOUR;
            patient([(a.0, a.1, good()), (b.0, b.1, good()), (c.0, c.1, good()), (d.0, d.1, last)])
        };
        assert_eq!(all(good()).volumes().unwrap().ejection_fraction(), 0.0);
        assert_eq!(all(Err(NoFraction::Atrium)).volumes(), Err(NoFraction::Atrium));
        let mut twice = all(good());
        twice.add(FOUR[0].0, FOUR[0].1, good());
        assert_eq!((twice.volumes(), twice.masks()), (Err(NoFraction::Images), 3));
        let mut three = PatientDiscs::default();
        FOUR[..3].iter().for_each(|(view, phase)| three.add(*view, *phase, good()));
        assert_eq!((three.volumes(), three.masks()), (Err(NoFraction::Images), 3));
        let flat = Ok(Discs { diameters: [0.0; DISCS], length: 1.0 });
        let [a, b, c, d] = FOUR;
        let none = patient([(a.0, a.1, flat), (b.0, b.1, good()), (c.0, c.1, good()), (d.0, d.1, good())]);
        assert_eq!(none.volumes(), Err(NoFraction::Volume));
    }

    #[test]
    fn a_mask_that_is_none_is_refused() {
        let error = |width, spacing| {
            discs(&LabelMask { classes: &[1, 3, 0], width, spacing }).unwrap_err().to_string()
        };
        assert!(error(2, (1.0, 1.0)).contains("3 pixels are not whole rows of 2"));
        assert!(error(0, (1.0, 1.0)).contains("not whole rows"));
        assert!(error(3, (0.0, 1.0)).contains("a pixel cannot be 0 x 1 mm"));
        assert!(error(3, (f64::NAN, 1.0)).contains("a pixel cannot be"));
    }
}
