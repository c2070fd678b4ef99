//! Distances between the outlines of a structure in truth and prediction: Hausdorff distance, its
//! 95th percentile, average symmetric surface distance.
//!
//! Equal to MONAI 1.6.1's `compute_hausdorff_distance(directed=False)` and
//! `compute_average_surface_distance(symmetric=True)`: an outline is the set of pixels of the
//! structure that have a 4-neighbour outside of it (or outside of the picture), and distances are
//! between pixel centres.

use serde::Serialize;

use crate::{
    dice::same_size,
    error::{Error, Result},
    vocabulary::Structure,
};

/// The three distances, in the unit of the spacing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SurfaceDistances {
    /// Hausdorff distance: the greatest distance from an outline pixel to the other outline.
    pub hd: f64,
    /// The 95th percentile of the distances in each direction; the greater of the two.
    pub hd95: f64,
    /// Average symmetric surface distance: the mean over the pixels of both outlines.
    pub assd: f64,
}

/// Why there is no distance. A reader must hear of it: dropped silently, the images with the
/// worst segmentations would flatter the mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Missing {
    /// The structure is in the truth, and the prediction lacks it: a failure.
    Prediction,
    /// The prediction has the structure, and the truth lacks it: a failure.
    Truth,
    /// Neither has it: nothing to measure, and no failure.
    Both,
}

impl Missing {
    pub fn is_failure(self) -> bool {
        self != Self::Both
    }
}

/// What comparing two outlines gives.
pub type Outcome<T> = std::result::Result<T, Missing>;

/// Hausdorff distance, HD95 and ASSD of one structure.
///
/// `truth` and `prediction` are masks of class indices, rows of `width` pixels; `spacing` is the
/// pixel's size (x, y), in mm, or (1, 1) for distances in pixels.
///
/// # Errors
/// When the masks differ in size or are not whole rows, or when the spacing is not positive.
pub fn surface_distance(
    truth: &[u8],
    prediction: &[u8],
    width: usize,
    structure: Structure,
    spacing: (f64, f64),
) -> Result<Outcome<SurfaceDistances>> {
    let distances = outline_distances(&structure.mask(truth), &structure.mask(prediction), width, spacing)?;
    Ok(distances.map(|[mut forth, mut back]| {
        let hd = forth.iter().chain(&back).fold(0.0f64, |a, &b| a.max(b));
        let assd = forth.iter().chain(&back).sum::<f64>() / (forth.len() + back.len()) as f64;
        SurfaceDistances { hd, hd95: percentile(&mut forth, 0.95).max(percentile(&mut back, 0.95)), assd }
    }))
}

/// Distances from each outline pixel of the prediction to the truth's outline, and from each of the
/// truth's to the prediction's, in raster order.
///
/// # Errors
/// As [`surface_distance`].
pub fn outline_distances(
    truth: &[bool],
    prediction: &[bool],
    width: usize,
    spacing: (f64, f64),
) -> Result<Outcome<[Vec<f64>; 2]>> {
    same_size(truth, prediction)?;
    if width == 0 || !truth.len().is_multiple_of(width) {
        return Err(Error::input(format!("{} pixels are not whole rows of {width}", truth.len())));
    }
    if ![spacing.0, spacing.1].iter().all(|s| s.is_finite() && *s > 0.0) {
        return Err(Error::input(format!("the spacing {spacing:?} is not positive"))
            .help("a pixel has a width and a height, in mm"));
    }
    let (of_truth, of_prediction) = (outline(truth, width), outline(prediction, width));
    let missing = match (of_truth.is_empty(), of_prediction.is_empty()) {
        (false, false) => None,
        (false, true) => Some(Missing::Prediction),
        (true, false) => Some(Missing::Truth),
        (true, true) => Some(Missing::Both),
    };
    if let Some(missing) = missing {
        return Ok(Err(missing));
    }
    let frame = CropFrame::around(of_truth.iter().chain(&of_prediction));
    Ok(Ok([
        frame.nearest(&of_prediction, &of_truth, spacing),
        frame.nearest(&of_truth, &of_prediction, spacing),
    ]))
}

/// The pixels (x, y) of the mask with a 4-neighbour outside: `binary_erosion(mask) ^ mask` of SciPy
/// with its default cross and `border_value` 0.
fn outline(mask: &[bool], width: usize) -> Vec<(usize, usize)> {
    let mut points = Vec::new();
    let rows: Vec<&[bool]> = mask.chunks_exact(width).collect();
    for (y, row) in rows.iter().enumerate() {
        let above = y.checked_sub(1).and_then(|y| rows.get(y));
        let below = rows.get(y + 1);
        for x in (0..width).filter(|&x| row[x]) {
            let side = |x: Option<usize>| x.and_then(|x| row.get(x)).copied().unwrap_or(false);
            let inside = side(x.checked_sub(1))
                && side(Some(x + 1))
                && above.is_some_and(|row| row[x])
                && below.is_some_and(|row| row[x]);
            if !inside {
                points.push((x, y));
            }
        }
    }
    points
}

/// The bounding box of both outlines: nothing outside of it matters.
struct CropFrame {
    x: usize,
    y: usize,
    width: usize,
    height: usize,
}

/// Farther than any pixel of a picture, yet its square fits.
const FAR: i32 = 1 << 29;

impl CropFrame {
    fn around<'a>(points: impl Iterator<Item = &'a (usize, usize)>) -> Self {
        let (mut low, mut high) = ((usize::MAX, usize::MAX), (0, 0));
        for &(x, y) in points {
            low = (low.0.min(x), low.1.min(y));
            high = (high.0.max(x + 1), high.1.max(y + 1));
        }
        Self { x: low.0, y: low.1, width: high.0 - low.0, height: high.1 - low.1 }
    }

    /// For each point of `from`, the distance to the nearest point of `to`.
    ///
    /// Exact, in two steps, since squared distance is separable: first how many rows away the
    /// nearest point of `to` is in every column, for the whole frame; then, only for the points asked
    /// for, the best column, searched outwards until the columns alone are farther than the best.
    fn nearest(&self, from: &[(usize, usize)], to: &[(usize, usize)], spacing: (f64, f64)) -> Vec<f64> {
        let mut rows_away = vec![FAR; self.width * self.height];
        for &(x, y) in to {
            rows_away[(y - self.y) * self.width + x - self.x] = 0;
        }
        let step = |from: &[i32], to: &mut [i32]| {
            for (to, from) in to.iter_mut().zip(from) {
                *to = (*to).min(from + 1);
            }
        };
        for y in 1..self.height {
            let (above, below) = rows_away.split_at_mut(y * self.width);
            step(&above[(y - 1) * self.width..], &mut below[..self.width]);
        }
        for y in (1..self.height).rev() {
            let (above, below) = rows_away.split_at_mut(y * self.width);
            step(&below[..self.width], &mut above[(y - 1) * self.width..]);
        }
        let square = |rows: i32| (f64::from(rows) * spacing.1).powi(2);
        from.iter()
            .map(|&(x, y)| {
                let row = &rows_away[(y - self.y) * self.width..][..self.width];
                let x = x - self.x;
                let mut best = square(row[x]);
                for columns in 1..self.width {
                    let across = (columns as f64 * spacing.0).powi(2);
                    if across >= best {
                        break;
                    }
                    if let Some(&rows) = row.get(x + columns) {
                        best = best.min(across + square(rows));
                    }
                    if let Some(&rows) = x.checked_sub(columns).and_then(|x| row.get(x)) {
                        best = best.min(across + square(rows));
                    }
                }
                best.sqrt()
            })
            .collect()
    }
}

/// The quantile `q` in 0..=1 with linear interpolation, as `torch.quantile`; NaN of no values.
/// Sorts the values.
pub fn percentile(values: &mut [f64], q: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
    let rank = q * last as f64;
    let below = (rank as usize).min(last);
    let (low, high) = (values[below], values[(below + 1).min(last)]);
    low + (high - low) * (rank - below as f64)
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;
    use crate::random;

    const SIZE: (usize, usize) = (23, 17);

    /// A few overlapping discs: edges at the border, holes, islands.
    fn blobs(seed: u64) -> Vec<u8> {
        let mut rng = random::rng(seed, "blobs", &[]);
        let (w, h) = SIZE;
        let mut mask = vec![0u8; w * h];
        for class in [1, 3, 2, 1, 3, 2] {
            let (cx, cy) = (rng.random_range(0..w) as f64, rng.random_range(0..h) as f64);
            let r = rng.random_range(1.5..6.0f64);
            for (i, pixel) in mask.iter_mut().enumerate() {
                if ((i % w) as f64 - cx).hypot((i / w) as f64 - cy) < r {
                    *pixel = class;
                }
            }
        }
        mask
    }

    fn all(a: &[u8], b: &[u8], spacing: (f64, f64)) -> Vec<Outcome<SurfaceDistances>> {
        Structure::ALL.iter().map(|&s| surface_distance(a, b, SIZE.0, s, spacing).unwrap()).collect()
    }

    #[test]
    fn equal_to_every_pair_of_points() {
        for seed in 0..40 {
            let (a, b) = (blobs(seed), blobs(seed + 1000));
            let spacing = if seed % 2 == 0 { (1.0, 1.0) } else { (0.3, 1.7) };
            for s in Structure::ALL {
                let (a, b) = (s.mask(&a), s.mask(&b));
                let Ok(got) = outline_distances(&a, &b, SIZE.0, spacing).unwrap() else { continue };
                let (a, b) = (outline(&a, SIZE.0), outline(&b, SIZE.0));
                for (got, from, to) in [(&got[0], &b, &a), (&got[1], &a, &b)] {
                    assert_eq!(got.len(), from.len());
                    for (got, p) in got.iter().zip(from) {
                        let slow = to
                            .iter()
                            .map(|q| {
                                ((p.0 as f64 - q.0 as f64) * spacing.0)
                                    .hypot((p.1 as f64 - q.1 as f64) * spacing.1)
                            })
                            .fold(f64::INFINITY, f64::min);
                        assert!((got - slow).abs() < 1e-12, "{got} {slow}");
                    }
                }
            }
        }
    }

    #[test]
    fn symmetric_zero_for_itself_scaling_and_blind_to_flips() {
        let flip =
            |m: &[u8]| -> Vec<u8> { m.chunks(SIZE.0).flat_map(|row| row.iter().rev().copied()).collect() };
        let upside_down = |m: &[u8]| -> Vec<u8> { m.chunks(SIZE.0).rev().flatten().copied().collect() };
        let near = |a: &[Outcome<SurfaceDistances>], b: &[Outcome<SurfaceDistances>], factor: f64| {
            for (a, b) in a.iter().zip(b) {
                let (Ok(a), Ok(b)) = (a, b) else {
                    assert_eq!(a.is_err(), b.is_err());
                    continue;
                };
                for (a, b) in [(a.hd, b.hd), (a.hd95, b.hd95), (a.assd, b.assd)] {
                    assert!((a * factor - b).abs() < 1e-9, "{a} {b}");
                }
            }
        };
        for seed in 0..20 {
            let (a, b) = (blobs(seed), blobs(seed + 1000));
            let there = all(&a, &b, (0.3, 0.7));
            near(&there, &all(&b, &a, (0.3, 0.7)), 1.0);
            near(&there, &all(&flip(&a), &flip(&b), (0.3, 0.7)), 1.0);
            near(&there, &all(&upside_down(&a), &upside_down(&b), (0.3, 0.7)), 1.0);
            near(&there, &all(&a, &b, (0.6, 1.4)), 2.0);
            for d in all(&a, &a, (0.3, 0.7)).into_iter().flatten() {
                assert_eq!((d.hd, d.hd95, d.assd), (0.0, 0.0, 0.0));
            }
            for d in there.into_iter().flatten() {
                assert!(d.hd95 <= d.hd && d.assd <= d.hd);
            }
        }
    }

    #[test]
    fn a_missing_structure_is_said() {
        let (none, one) = (vec![0u8; 12], [vec![1u8; 1], vec![0u8; 11]].concat());
        let get = |a: &[u8], b: &[u8]| surface_distance(a, b, 4, Structure::Endo, (1.0, 1.0)).unwrap();
        assert_eq!(get(&one, &none), Err(Missing::Prediction));
        assert_eq!(get(&none, &one), Err(Missing::Truth));
        assert_eq!(get(&none, &none), Err(Missing::Both));
        assert!(!Missing::Both.is_failure() && Missing::Truth.is_failure());
        assert!(surface_distance(&one, &one[1..], 4, Structure::Endo, (1.0, 1.0)).is_err());
        assert!(surface_distance(&one, &one, 5, Structure::Endo, (1.0, 1.0)).is_err());
        assert!(surface_distance(&one, &one, 4, Structure::Endo, (0.0, 1.0)).is_err());
    }

    #[test]
    fn percentiles_interpolate() {
        assert_eq!(percentile(&mut [3.0, 1.0, 2.0], 0.5), 2.0);
        assert!((percentile(&mut [0.0, 10.0], 0.95) - 9.5).abs() < 1e-12);
        assert_eq!(percentile(&mut [7.0], 0.95), 7.0);
        assert!(percentile(&mut [], 0.95).is_nan());
    }
}
