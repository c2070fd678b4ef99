//! MIND, the Monge Inception Distance (Berthet et al. 2026, arXiv 2605.06797): the squared 2-Wasserstein distance
//! between two sets of features along random directions, on average over these, times three times their width.
//!
//! Along a direction, the squared distance is the mean squared difference of the sorted projections. For two Gaussians
//! with the same covariance, MIND is three times the squared distance of their means: on average, a direction sees
//! 1/d of it.
//!
//! As torch-fidelity computes it (`metric_mind.py` at commit 5e211a9, after 0.4.0), with the same directions and
//! the same images of the larger set. torch-fidelity rounds features to f32 and projects in f32; here it is f64.

use serde::Serialize;
use tch::{Kind, Tensor};

use super::{arrays, torch_random::TorchGenerator};
use crate::error::{Error, Result};

/// Which directions. The default is torch-fidelity's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Directions {
    pub count: usize,
    /// Of PyTorch's CPU generator ([`TorchGenerator`]): libtorch's global one is neither read nor changed.
    pub seed: u32,
}

impl Default for Directions {
    fn default() -> Self {
        Self { count: 1000, seed: 2020 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Mind {
    /// Squared units of the features; 0 or above, 0 for two equal sets. Biased upwards: two samples of one
    /// distribution are above 0, and farther above it the fewer images they hold. Compare it only at the same `n`.
    pub value: f64,
    pub directions: u64,
    pub seed: u32,
    /// Images of each set behind the value: as many as the smaller set has, a random choice from the larger.
    pub n: u64,
    pub n_real: u64,
    pub n_synthetic: u64,
    /// Width of the features.
    pub d: u64,
}

/// Between features (n, d), f32 or f64. `torch_fidelity`'s value with `input1` the real and `input2` the synthetic
/// images. Memory is that of the features in f64 and of a block of projections.
///
/// # Errors
/// Fewer than two images of a set, rows that are not finite, sets that differ in width, no direction, or features
/// so large that the value overflows.
pub fn mind(real: &Tensor, synthetic: &Tensor, directions: &Directions) -> Result<Mind> {
    let (real, synthetic) = arrays::pair(real, synthetic, 2, "MIND")?;
    let (n_real, n_synthetic, d) = (real.size()[0], synthetic.size()[0], real.size()[1]);
    if directions.count == 0 {
        return Err(Error::input("MIND along 0 directions").help("take at least one (the default: 1000)"));
    }
    let n = n_real.min(n_synthetic);
    let mut generator = TorchGenerator::new(directions.seed);
    let mut chosen = |set: Tensor| -> Result<Tensor> {
        let of = set.size()[0];
        if of == n {
            return Ok(set);
        }
        let of = u32::try_from(of).map_err(|_| Error::input(format!("{of} images are too many for MIND")))?;
        let rows: Vec<i64> = generator.permutation(of).into_iter().map(i64::from).take(n as usize).collect();
        Ok(set.f_index_select(0, &Tensor::f_from_slice(&rows)?)?)
    };
    // Only one of them is the larger.
    let (real, synthetic) = (chosen(real)?.f_tr()?, chosen(synthetic)?.f_tr()?);
    let count = directions.count as i64;
    let normals =
        Tensor::f_from_slice(&generator.normals(directions.count * d as usize))?.f_view([count, d])?;
    let mut sum = 0.0;
    for (start, rows) in arrays::blocks(count, n.max(d)) {
        let units = units(&normals.f_narrow(0, start, rows)?)?;
        let sorted = |set: &Tensor| -> Result<Tensor> { Ok(units.f_matmul(set)?.f_sort(1, false)?.0) };
        let apart = sorted(&real)?.f_sub(&sorted(&synthetic)?)?;
        sum += f64::try_from(apart.f_mul(&apart)?.f_sum(Kind::Double)?)?;
    }
    let value = 3.0 * d as f64 * sum / (n as f64 * count as f64);
    if !value.is_finite() {
        return Err(Error::input("the features are too large: their MIND overflows")
            .help("features of an extractor are of the order of 1"));
    }
    Ok(Mind {
        value,
        directions: directions.count as u64,
        seed: directions.seed,
        n: n as u64,
        n_real: n_real as u64,
        n_synthetic: n_synthetic as u64,
        d: d as u64,
    })
}

/// Rows of length 1, f64.
fn units(normals: &Tensor) -> Result<Tensor> {
    let normals = normals.f_to_kind(Kind::Double)?;
    let lengths = normals.f_mul(&normals)?.f_sum_dim_intlist(1, true, Kind::Double)?.f_sqrt()?;
    Ok(normals.f_div(&lengths.f_clamp_min(1e-12)?)?)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn features(n: i64, d: i64, seed: u32) -> Tensor {
        let normals = TorchGenerator::new(seed).normals((n * d) as usize);
        Tensor::from_slice(&normals).view([n, d])
    }

    fn of(real: &Tensor, synthetic: &Tensor) -> Mind {
        mind(real, synthetic, &Directions::default()).unwrap()
    }

    #[test]
    fn a_shift_counts_three_times_and_order_does_not() {
        let x = features(50, 6, 1);
        assert_eq!(of(&x, &x).value, 0.0);
        // Along u, every sorted projection moves by u . shift: on average over u that is |shift|^2 / d.
        let shift = Tensor::from_slice(&[2f64, 0.0, -1.0, 0.0, 0.0, 2.0]);
        let shifted = mind(&x, &(&x + &shift), &Directions { count: 20_000, seed: 1 }).unwrap();
        assert!((shifted.value - 27.0).abs() < 0.5, "{}", shifted.value);
        let other = features(50, 6, 2);
        let there = of(&x, &other).value;
        assert_eq!(there, of(&other, &x).value);
        assert!((there - of(&x.flip([0]), &other.flip([0])).value).abs() < 1e-12 * there);
    }

    #[test]
    fn f32_and_f64_features_agree_and_blocks_do_not_show() {
        let (x, y) = (features(40, 3, 1), features(30, 3, 2) * 1.5);
        let found = of(&x, &y);
        assert_eq!(found, of(&x.to_kind(Kind::Double), &y.to_kind(Kind::Double)));
        assert_eq!((found.n, found.n_real, found.n_synthetic, found.d), (30, 40, 30, 3));
        assert_eq!((found.directions, found.seed), (1000, 2020));
        // A block is 4096 directions at most.
        let count = 4100;
        let many = mind(&x, &x.flip([1]), &Directions { count, seed: 3 }).unwrap().value;
        let directions = TorchGenerator::new(3).normals(count * 3);
        let units = units(&Tensor::from_slice(&directions).view([count as i64, 3])).unwrap();
        let sorted = |t: &Tensor| t.to_kind(Kind::Double).matmul(&units.tr()).sort(0, false).0;
        let apart: Tensor = sorted(&x) - sorted(&x.flip([1]));
        let expected = 9.0 * (&apart * &apart).mean(Kind::Double).double_value(&[]);
        assert!((many - expected).abs() < 1e-12 * expected, "{many} {expected}");
    }

    #[test]
    fn what_has_no_distance_is_refused() {
        let x = features(4, 3, 1);
        let says = |real: &Tensor, synthetic: &Tensor, count, words: &str| {
            let e = mind(real, synthetic, &Directions { count, seed: 0 }).unwrap_err().to_string();
            assert!(e.contains(words), "{e}");
        };
        says(&x, &x.narrow(0, 0, 1), 10, "at least 2 synthetic images");
        says(&x, &(&x * f64::NAN), 10, "4 of 4 rows");
        says(&x, &features(4, 2, 1), 10, "the synthetic 2");
        says(&x, &x, 0, "0 directions");
        let large = Tensor::full([4, 3], 1e200, (Kind::Double, Device::Cpu));
        says(&x, &large, 10, "overflows");
    }
}
