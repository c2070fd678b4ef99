//! Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020): is a synthetic
//! image within the reach of a real one, and the other way round? An image's reach is the distance to its k-th
//! nearest neighbour in its own set; distances are Euclidean, between features.

use serde::Serialize;
use tch::{Kind, Tensor};

use super::{
    arrays::{self, REAL, SYNTHETIC},
    distances,
};
use crate::error::{Error, Result};

/// Neighbours that reach is taken from, as Naeem et al. recommend.
pub const K: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Prdc {
    /// Share of the synthetic images that are within the reach of some real one. 0 to 1.
    pub precision: f64,
    /// Share of the real images that are within the reach of some synthetic one. 0 to 1.
    pub recall: f64,
    /// How many real images a synthetic one is in the reach of, over k, on average. 0 or above; about 1 where
    /// both sets are of the same distribution.
    pub density: f64,
    /// Share of the real images that have a synthetic one within their own reach. 0 to 1.
    pub coverage: f64,
    pub k: u64,
    pub n_real: u64,
    pub n_synthetic: u64,
    /// Width of the features.
    pub d: u64,
}

/// Of features (n, d), as the authors' package `prdc` has it. Distances are computed in f64, in blocks: memory
/// is that of the features, not of n x n distances.
///
/// # Errors
/// k is 0 or not below the number of images of a set; rows that are not finite, or sets that differ in width.
pub fn prdc(real: &Tensor, synthetic: &Tensor, k: usize) -> Result<Prdc> {
    let (real, synthetic) = arrays::pair(real, synthetic, 1, "PRDC")?;
    let (n_real, n_synthetic) = (real.size()[0], synthetic.size()[0]);
    for (n, set) in [(n_real, REAL), (n_synthetic, SYNTHETIC)] {
        if k == 0 || k as i64 >= n {
            return Err(Error::input(format!("the {k}-th nearest neighbour among {n} {set} images"))
                .help("k is at least 1 and below the number of images of either set: give more images, or a smaller k"));
        }
    }
    // Distances stay, and lose fewer digits nearer to 0.
    let mean = real.f_mean_dim(0, false, Kind::Double)?;
    let (real, synthetic) = (real.f_sub(&mean)?, synthetic.f_sub(&mean)?);
    let (reach_real, reach_synthetic) = (reach(&real, k)?, reach(&synthetic, k)?);
    let synthetic_squares = distances::squares(&synthetic)?;
    let mut reached = Tensor::f_zeros([n_synthetic], (Kind::Bool, tch::Device::Cpu))?;
    let (mut within, mut recalled, mut covered) = (0, 0, 0);
    let count = |t: &Tensor| -> Result<i64> { Ok(i64::try_from(t.f_sum(Kind::Int64)?)?) };
    for (start, rows) in arrays::blocks(n_real, n_synthetic) {
        let block = distances::squared(&real.f_narrow(0, start, rows)?, &synthetic, &synthetic_squares)?;
        let of_real = reach_real.f_narrow(0, start, rows)?;
        let in_real = block.f_lt_tensor(&of_real.f_unsqueeze(1)?)?;
        reached = reached.f_logical_or(&in_real.f_any_dim(0, false)?)?;
        within += count(&in_real)?;
        recalled += count(&block.f_lt_tensor(&reach_synthetic)?.f_any_dim(1, false)?)?;
        covered += count(&block.f_amin(1, false)?.f_lt_tensor(&of_real)?)?;
    }
    let (of_real, of_synthetic) = (n_real as f64, n_synthetic as f64);
    Ok(Prdc {
        precision: count(&reached)? as f64 / of_synthetic,
        recall: recalled as f64 / of_real,
        density: within as f64 / (k as f64 * of_synthetic),
        coverage: covered as f64 / of_real,
        k: k as u64,
        n_real: n_real as u64,
        n_synthetic: n_synthetic as u64,
        d: real.size()[1] as u64,
    })
}

/// Squared distance of each row to its k-th nearest neighbour among the others.
fn reach(features: &Tensor, k: usize) -> Result<Tensor> {
    let n = features.size()[0];
    let squares = distances::squares(features)?;
    let mut reach = Vec::new();
    for (start, rows) in arrays::blocks(n, n) {
        let block = distances::squared(&features.f_narrow(0, start, rows)?, features, &squares)?;
        // A row is no neighbour of itself: its own 0, exactly, is the first, and the k-th comes after it.
        let _ = block.f_narrow(1, start, rows)?.f_fill_diagonal_(0.0, false)?;
        reach.push(block.f_kthvalue(k as i64 + 1, 1, false)?.0);
    }
    Ok(Tensor::f_cat(&reach, 0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points on a line.
    fn line(at: &[f64]) -> Tensor {
        Tensor::from_slice(at).view([-1, 1])
    }

    #[test]
    fn points_on_a_line() {
        // Reach with k = 1: 1, 1, 2; 1, 1.
        let (real, synthetic) = (line(&[0.0, 1.0, 3.0]), line(&[0.5, -0.5]));
        let got = prdc(&real, &synthetic, 1).unwrap();
        // 0.5 is in the reach of 0 and 1, -0.5 of 0; nothing of 3 (2.5 away).
        assert_eq!((got.precision, got.density), (1.0, 1.5));
        // 0 and 1 have 0.5 within their reach, and are in that of 0.5; 3 has and is not.
        assert_eq!((got.recall, got.coverage), (2.0 / 3.0, 2.0 / 3.0));
        assert_eq!((got.k, got.n_real, got.n_synthetic, got.d), (1, 3, 2, 1));
    }

    #[test]
    fn far_from_the_origin_nothing_changes() {
        let (real, synthetic) = (line(&[0.0, 1.0, 3.0, 7.0]), line(&[0.5, -0.5, 9.0]));
        let near = prdc(&real, &synthetic, 2).unwrap();
        assert_eq!(prdc(&(&real + 1e6), &(&synthetic + 1e6), 2).unwrap(), near);
        assert_eq!(prdc(&real.flip([0]), &synthetic.flip([0]), 2).unwrap(), near);
    }

    #[test]
    fn too_few_images_are_refused() {
        let (three, two) = (line(&[0.0, 1.0, 3.0]), line(&[0.5, -0.5]));
        for (k, set) in [(2, "2 synthetic"), (3, "3 real"), (0, "3 real")] {
            let e = prdc(&three, &two, k).unwrap_err().to_string();
            assert!(e.contains(set), "{e}");
        }
        assert!(prdc(&three, &(two * f64::NAN), 1).unwrap_err().to_string().contains("2 of 2 rows"));
    }
}
