//! Memorisation: has a generator copied its training images?
//!
//! Each synthetic image's distance to its nearest training image is compared with the same of real images
//! that were held out. A generator that learned the distribution is as far from the training images as they
//! are; one that copies is nearer. Distances are Euclidean, between features (n, d) or pixels (n, h * w).

use serde::Serialize;
use tch::{Kind, Tensor};

use super::{
    arrays,
    distances::{squared, squares},
    mann_whitney,
    surface_distance::percentile,
};
use crate::error::{Error, Result};

const TRAINING: &str = "training";
const SYNTHETIC: &str = "synthetic";
const HELD_OUT: &str = "held-out";

/// Candidates for the nearest row that are measured exactly before all are.
const CANDIDATES: i64 = 8;

/// Nearest rows of a reference.
#[derive(Debug, Clone, PartialEq)]
pub struct Nearest {
    /// Row of the reference, the first one of equally near ones.
    pub indices: Vec<usize>,
    /// 0 exactly for a copy.
    pub distances: Vec<f64>,
}

/// The nearest row of `reference` (n, d) for each row of `queries` (m, d), f32, f64 or 8-bit pixels.
///
/// As by brute force in f64. Matrix products find candidates fast, but lose the digits of a near-copy's
/// distance: whatever their rounding could hide is measured by differences. Memory is that of blocks.
///
/// # Errors
/// Rows that are not finite or so large that squares overflow, no row, or sets that differ in width.
pub fn nearest(queries: &Tensor, reference: &Tensor) -> Result<Nearest> {
    nearest_of(queries, "query", reference, "reference")
}

fn nearest_of(queries: &Tensor, query: &str, reference: &Tensor, of: &str) -> Result<Nearest> {
    let (m, d) = arrays::check(queries, query)?;
    let (n, _) = arrays::check(reference, of)?;
    arrays::same_width(queries, reference, [query, of])?;
    // Sums of 8-bit pixels are exact; of features, nearer to 0 is better.
    let whole = queries.kind() == Kind::Uint8 && reference.kind() == Kind::Uint8;
    let shift =
        if whole { Tensor::from(0f64) } else { reference.detach().f_mean_dim(0, false, Kind::Double)? };
    let block = |t: &Tensor, (start, rows)| -> Result<Tensor> { arrays::f64s(&t.f_narrow(0, start, rows)?) };
    let mut longest: f64 = 0.0;
    for of_reference in arrays::blocks(n, d) {
        let lengths = squares(&block(reference, of_reference)?.f_sub(&shift)?)?;
        longest = longest.max(f64::try_from(lengths.f_max()?)?);
    }
    let mut found =
        Nearest { indices: Vec::with_capacity(m as usize), distances: Vec::with_capacity(m as usize) };
    for of_queries in arrays::blocks(m, d) {
        let exact = block(queries, of_queries)?;
        let shifted = exact.f_sub(&shift)?;
        let candidates = candidates(&shifted, reference, &shift)?;
        let measured = measured(&exact, reference, &candidates.indices)?;
        let lengths = arrays::values(&squares(&shifted)?)?;
        let greatest = lengths.iter().copied().fold(longest, f64::max);
        if !(4.0 * greatest).is_finite() {
            return Err(Error::input("the features are too large: squares of their distances overflow")
                .help("features of an extractor are of the order of 1"));
        }
        let (k, farthest) = (candidates.indices.size()[1] as usize, arrays::values(&candidates.farthest)?);
        let indices = Vec::<i64>::try_from(candidates.indices.f_reshape(-1)?)?;
        for row in 0..of_queries.1 as usize {
            let of_row = row * k..(row + 1) * k;
            let best = measured[of_row.clone()].iter().copied().zip(indices[of_row].iter().copied());
            let mut best =
                best.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))).unwrap_or((f64::NAN, 0));
            // Could a row that is no candidate be as near? d + 8 roundings, of sums of at most this.
            let rounding = (d + 8) as f64 * f64::EPSILON * (lengths[row].sqrt() + longest.sqrt()).powi(2);
            if (k as i64) < n && farthest[row] - rounding <= best.0 {
                best = by_differences(&exact.f_narrow(0, row as i64, 1)?, reference)?;
            }
            found.indices.push(best.1 as usize);
            found.distances.push(best.0.sqrt());
        }
    }
    Ok(found)
}

struct Candidates {
    /// (rows, up to [`CANDIDATES`]).
    indices: Tensor,
    /// (rows,): squared distance, roundly, of the last candidate of each row: no other row is nearer, roundly.
    farthest: Tensor,
}

fn candidates(shifted: &Tensor, reference: &Tensor, shift: &Tensor) -> Result<Candidates> {
    let (n, d) = (reference.size()[0], shifted.size()[1]);
    let mut kept: Option<(Tensor, Tensor)> = None;
    for (start, rows) in arrays::blocks(n, d) {
        let block = arrays::f64s(&reference.f_narrow(0, start, rows)?)?.f_sub(shift)?;
        let roundly = squared(shifted, &block, &squares(&block)?)?;
        let (values, indices) = roundly.f_topk(CANDIDATES.min(rows), 1, false, true)?;
        let indices = indices.f_add_scalar(start)?;
        kept = Some(match kept {
            None => (values, indices),
            Some((before, at)) => {
                let (values, indices) =
                    (Tensor::f_cat(&[before, values], 1)?, Tensor::f_cat(&[at, indices], 1)?);
                let (values, chosen) = values.f_topk(CANDIDATES.min(values.size()[1]), 1, false, true)?;
                (values, indices.f_gather(1, &chosen, false)?)
            }
        });
    }
    let (values, indices) = kept.ok_or_else(|| Error::failure("no row of the reference was read"))?;
    Ok(Candidates { indices, farthest: values.f_amax(1, false)? })
}

/// Squared distances (rows x candidates) by differences.
fn measured(exact: &Tensor, reference: &Tensor, indices: &Tensor) -> Result<Vec<f64>> {
    let mut columns = Vec::new();
    for c in 0..indices.size()[1] {
        let rows = arrays::f64s(&reference.f_index_select(0, &indices.f_select(1, c)?)?)?;
        columns.push(squares(&exact.f_sub(&rows)?)?);
    }
    arrays::values(&Tensor::f_stack(&columns, 1)?)
}

/// Squared distance and index of the row of `reference` that is nearest to `query` (1, d).
fn by_differences(query: &Tensor, reference: &Tensor) -> Result<(f64, i64)> {
    let mut best = (f64::INFINITY, 0);
    for (start, rows) in arrays::blocks(reference.size()[0], reference.size()[1]) {
        let differences = arrays::f64s(&reference.f_narrow(0, start, rows)?)?.f_sub(query)?;
        let found = arrays::values(&squares(&differences)?)?;
        for (i, distance) in found.into_iter().enumerate() {
            if distance < best.0 {
                best = (distance, start + i as i64);
            }
        }
    }
    Ok(best)
}

/// Are synthetic images nearer to the training images than held-out real ones are?
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Memorisation {
    /// Share of the pairs of a synthetic and a held-out image in which the synthetic one is nearer to the
    /// training images, ties for half (common-language effect size, AUC). 0.5: no sign of memorisation; 1: every
    /// synthetic image is nearer than every held-out one.
    pub effect: f64,
    /// Mann-Whitney U of the synthetic images' distances against the held-out ones'.
    pub u: f64,
    /// Positive where the synthetic ones are the nearer. NaN where all distances are equal.
    pub z: f64,
    /// One-sided: the synthetic ones are the nearer. Takes all images for independent, which images of one
    /// patient are not: the true p is larger. `effect` has no such fault.
    pub p: f64,
    /// The 5th percentile of the held-out images' distances.
    pub near: f64,
    /// Share of the synthetic images that are nearer than that. About 0.05: no sign of memorisation.
    pub share_near: f64,
    pub median_synthetic: f64,
    pub median_held_out: f64,
    /// Synthetic images at a distance of exactly 0.
    pub copies: u64,
    pub n_training: u64,
    pub n_synthetic: u64,
    pub n_held_out: u64,
}

/// A memorisation test with the pairs behind it.
#[derive(Debug, Clone, PartialEq)]
pub struct MemorisationResult {
    pub memorisation: Memorisation,
    /// Of each synthetic image, the training image.
    pub synthetic: Nearest,
    /// Of each held-out image, the training image.
    pub held_out: Nearest,
}

/// Of features or pixels of the three sets. `training` is what the generator was trained on, and `held_out`
/// real images of other patients, from the same source: images of training patients would be too near.
///
/// # Errors
/// As [`nearest`].
pub fn memorisation(training: &Tensor, synthetic: &Tensor, held_out: &Tensor) -> Result<MemorisationResult> {
    let of_synthetic = nearest_of(synthetic, SYNTHETIC, training, TRAINING)?;
    let of_held_out = nearest_of(held_out, HELD_OUT, training, TRAINING)?;
    let n_training = training.size()[0] as u64;
    let memorisation = compare(&of_synthetic.distances, &of_held_out.distances, n_training)?;
    Ok(MemorisationResult { memorisation, synthetic: of_synthetic, held_out: of_held_out })
}

/// Of the distances to the nearest of `n_training` training images.
///
/// # Errors
/// No distance, or one that is NaN.
pub fn compare(synthetic: &[f64], held_out: &[f64], n_training: u64) -> Result<Memorisation> {
    let test = mann_whitney::less(synthetic, held_out).map_err(|e| e.context("memorisation"))?;
    let near = percentile(&mut held_out.to_vec(), 0.05);
    let share = synthetic.iter().filter(|d| **d < near).count() as f64 / synthetic.len() as f64;
    Ok(Memorisation {
        effect: test.effect,
        u: test.u,
        z: test.z,
        p: test.p,
        near,
        share_near: share,
        median_synthetic: percentile(&mut synthetic.to_vec(), 0.5),
        median_held_out: percentile(&mut held_out.to_vec(), 0.5),
        copies: synthetic.iter().filter(|d| **d == 0.0).count() as u64,
        n_training,
        n_synthetic: test.n_first,
        n_held_out: test.n_second,
    })
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    fn features(n: i64, d: i64, seed: u64) -> Tensor {
        let mut rng = crate::random::rng(seed, "features", &[]);
        let values: Vec<f64> = (0..n * d).map(|_| rng.random_range(-1.0..1.0)).collect();
        Tensor::from_slice(&values).view([n, d])
    }

    fn brute(queries: &Tensor, reference: &Tensor) -> Nearest {
        let rows = |t: &Tensor| Vec::<Vec<f64>>::try_from(t.to_kind(Kind::Double)).unwrap();
        let (queries, reference) = (rows(queries), rows(reference));
        let (mut indices, mut distances) = (Vec::new(), Vec::new());
        for q in &queries {
            let distance = |r: &Vec<f64>| q.iter().zip(r).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt();
            let all: Vec<f64> = reference.iter().map(distance).collect();
            let best = all.iter().copied().fold(f64::INFINITY, f64::min);
            indices.push(all.iter().position(|d| *d == best).unwrap());
            distances.push(best);
        }
        Nearest { indices, distances }
    }

    fn same(queries: &Tensor, reference: &Tensor) {
        let (got, expected) = (nearest(queries, reference).unwrap(), brute(queries, reference));
        assert_eq!(got.indices, expected.indices);
        for (a, b) in got.distances.iter().zip(&expected.distances) {
            assert!((a - b).abs() <= 1e-14 * b, "{a} {b}");
        }
    }

    #[test]
    fn nearest_is_brute_force_also_of_near_copies_far_from_the_origin() {
        same(&features(30, 7, 1), &features(50, 7, 2));
        same(&features(5, 3, 1), &features(4, 3, 2));
        // 20 near-copies of each row, 1e-9 to 2e-8 away, at 1000 from the origin: matrix products see nothing.
        let one = features(6, 7, 3) + 1000.0;
        let copies: Vec<Tensor> =
            (1..=20).rev().map(|i| &one + features(6, 7, 10 + i) * (i as f64 * 1e-9)).collect();
        same(&one, &Tensor::cat(&copies, 0));
        let reference = Tensor::cat(&[&copies[0], &one, &one], 0);
        let found = nearest(&one, &reference).unwrap();
        assert!(found.distances.iter().all(|d| *d == 0.0), "{:?}", found.distances);
        assert_eq!(found.indices, (6..12).collect::<Vec<_>>(), "the first of two copies");
    }

    #[test]
    fn rows_in_another_block_are_found() {
        // A block is 4096 rows at most.
        let (queries, reference) = (features(4100, 6, 1), features(4200, 6, 2));
        let reference = Tensor::cat(&[&reference, &queries.narrow(0, 4094, 5)], 0);
        let found = nearest(&queries, &reference).unwrap();
        let few = queries.narrow(0, 4090, 10);
        let expected = brute(&few, &reference);
        assert_eq!(expected.indices[4..9], [4200, 4201, 4202, 4203, 4204]);
        assert_eq!(found.indices[4090..], expected.indices);
        let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-14 * b;
        assert!(found.distances[4090..].iter().zip(&expected.distances).all(near));
    }

    #[test]
    fn pixels_are_exact() {
        let pixels = |n: i64, seed| (features(n, 100, seed) * 50.0 + 128.0).to_kind(Kind::Uint8);
        let (queries, reference) = (pixels(60, 1), pixels(70, 2));
        assert_eq!(nearest(&queries, &reference).unwrap(), brute(&queries, &reference));
        assert_eq!(nearest(&queries.to_kind(Kind::Float), &reference).unwrap(), brute(&queries, &reference));
    }

    #[test]
    fn equal_images_are_all_the_first() {
        let flat = Tensor::ones([40, 9], (Kind::Uint8, tch::Device::Cpu));
        let found = nearest(&flat, &flat).unwrap();
        assert!(found.indices.iter().all(|i| *i == 0) && found.distances.iter().all(|d| *d == 0.0));
    }

    #[test]
    fn copies_are_found_out_and_honest_images_are_not() {
        let (training, held_out, honest) = (features(200, 8, 1), features(60, 8, 2), features(80, 8, 3));
        let found = memorisation(&training, &honest, &held_out).unwrap().memorisation;
        assert!((found.effect - 0.5).abs() < 0.1 && found.p > 0.05 && found.share_near < 0.15, "{found:?}");
        assert_eq!((found.n_training, found.n_synthetic, found.n_held_out), (200, 80, 60));
        let near_copies = training.narrow(0, 0, 79) + features(79, 8, 4) * 1e-3;
        let copying = Tensor::cat(&[near_copies, training.narrow(0, 5, 1)], 0);
        let found = memorisation(&training, &copying, &held_out).unwrap();
        assert!(found.synthetic.indices[7] == 7 && found.synthetic.indices[79] == 5);
        let found = found.memorisation;
        assert!(
            found.effect == 1.0 && found.p < 1e-20 && found.share_near == 1.0 && found.copies == 1,
            "{found:?}"
        );
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let x = features(4, 3, 1);
        let e = memorisation(&x, &x, &(&x * f64::NAN)).unwrap_err().to_string();
        assert!(e.contains("4 of 4 rows of the held-out features"), "{e}");
        let e = memorisation(&x, &features(4, 2, 1), &x).unwrap_err().to_string();
        assert!(e.contains("synthetic features have 2 dimensions, the training 3"), "{e}");
        let large = &x * 1e200;
        for (queries, reference) in [(&large, &x), (&x, &large)] {
            let e = nearest(queries, reference).unwrap_err().to_string();
            assert!(e.contains("too large"), "{e}");
        }
        assert!(compare(&[], &[1.0], 3).is_err());
    }
}
