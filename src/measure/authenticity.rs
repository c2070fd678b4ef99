//! Authenticity (Alaa et al. 2022): which share of the synthetic images is no copy of a real one? An image is
//! authentic where it is farther from its nearest real image than that real image is from its own nearest one.
//! Distances are Euclidean, between features (n, d) or pixels (n, h * w).
//!
//! As dgm-eval computes it (`authpct.py`), in percent. dgm-eval takes distances in f32, by matrix products where a set
//! has more than 25 images: these lose the digits of a near-copy's distance. Here the answer is that of brute force
//! in f64.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use tch::{Kind, Tensor};

use super::{
    arrays::{self, REAL, SYNTHETIC},
    distances::{squared, squares},
    memorisation,
};
use crate::error::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Authenticity {
    /// Share of the synthetic images that are authentic, in percent: 0 to 100. Not authentic are copies, and images
    /// exactly as far from their real image as that is from its own nearest one.
    pub percent: f64,
    pub n_real: u64,
    pub n_synthetic: u64,
    /// Width of the features.
    pub d: u64,
}

/// Of features (n, d), f32 or f64, or 8-bit pixels. `real` is what the generator was trained on. Memory is that of
/// blocks.
///
/// # Errors
/// Fewer than two real images or no synthetic one, rows that are not finite, or sets that differ in width.
pub fn authenticity(real: &Tensor, synthetic: &Tensor) -> Result<Authenticity> {
    let (n_real, d) = arrays::check(real, REAL)?;
    let (n_synthetic, _) = arrays::check(synthetic, SYNTHETIC)?;
    arrays::same_width(real, synthetic, [REAL, SYNTHETIC])?;
    if n_real < 2 {
        return Err(Error::input(format!("authenticity needs at least 2 real images, there is {n_real}"))
            .help("give more images"));
    }
    let nearest = memorisation::nearest(synthetic, real)?;
    let mut reaches = Reaches::of(real, nearest.indices.iter().map(|&i| i as i64))?;
    let mut authentic = 0u64;
    for (&row, &distance) in nearest.indices.iter().zip(&nearest.distances) {
        authentic += u64::from(reaches.below(row as i64, distance)?);
    }
    Ok(Authenticity {
        percent: 100.0 * authentic as f64 / n_synthetic as f64,
        n_real: n_real as u64,
        n_synthetic: n_synthetic as u64,
        d: d as u64,
    })
}

/// How far rows of a set are from their nearest other row.
struct Reaches<'a> {
    set: &'a Tensor,
    rows: BTreeMap<i64, Reach>,
}

struct Reach {
    /// Squared distance by matrix products.
    roughly: f64,
    /// That is off by this at most.
    rounding: f64,
    /// The distance, where it was needed.
    exactly: Option<f64>,
}

impl<'a> Reaches<'a> {
    fn of(set: &'a Tensor, rows: impl Iterator<Item = i64>) -> Result<Self> {
        let (n, d) = (set.size()[0], set.size()[1]);
        let wanted: Vec<i64> = rows.collect::<BTreeSet<_>>().into_iter().collect();
        // Distances stay, and lose fewer digits nearer to 0.
        let shift = set.detach().f_mean_dim(0, false, Kind::Double)?;
        let mut found = BTreeMap::new();
        for (start, count) in arrays::blocks(wanted.len() as i64, d) {
            let wanted = &wanted[start as usize..(start + count) as usize];
            let indices = Tensor::f_from_slice(wanted)?;
            let queries = arrays::f64s(&set.f_index_select(0, &indices)?)?.f_sub(&shift)?;
            let own = indices.f_unsqueeze(1)?;
            let (mut nearest, mut longest) = (Tensor::from(f64::INFINITY), 0f64);
            for (start, rows) in arrays::blocks(n, d) {
                let block = arrays::f64s(&set.f_narrow(0, start, rows)?)?.f_sub(&shift)?;
                let lengths = squares(&block)?;
                longest = longest.max(f64::try_from(lengths.f_max()?)?);
                let others = Tensor::f_arange_start(start, start + rows, (Kind::Int64, tch::Device::Cpu))?;
                let apart = squared(&queries, &block, &lengths)?
                    .f_masked_fill(&own.f_eq_tensor(&others)?, f64::INFINITY)?;
                nearest = nearest.f_minimum(&apart.f_amin(1, false)?)?;
            }
            let lengths = arrays::values(&squares(&queries)?)?;
            for ((&row, roughly), length) in wanted.iter().zip(arrays::values(&nearest)?).zip(lengths) {
                // d + 8 roundings, of sums of at most this.
                let rounding = (d + 8) as f64 * f64::EPSILON * (length.sqrt() + longest.sqrt()).powi(2);
                found.insert(row, Reach { roughly, rounding, exactly: None });
            }
        }
        Ok(Self { set, rows: found })
    }

    /// Whether the row is nearer to another row than `distance`.
    fn below(&mut self, row: i64, distance: f64) -> Result<bool> {
        let reach = self.rows.get_mut(&row).ok_or_else(|| Error::failure("a row without its reach"))?;
        let square = distance * distance;
        if (reach.roughly - square).abs() > reach.rounding + 4.0 * f64::EPSILON * square {
            return Ok(reach.roughly < square);
        }
        // Rounding could decide: copies, and near-copies.
        let exactly = match reach.exactly {
            Some(exactly) => exactly,
            None => *reach.exactly.insert(by_differences(self.set, row)?),
        };
        Ok(exactly < distance)
    }
}

/// Distance of a row to the nearest other one.
fn by_differences(set: &Tensor, row: i64) -> Result<f64> {
    let query = arrays::f64s(&set.f_narrow(0, row, 1)?)?;
    let mut nearest = f64::INFINITY;
    for (start, rows) in arrays::blocks(set.size()[0], set.size()[1]) {
        let differences = arrays::f64s(&set.f_narrow(0, start, rows)?)?.f_sub(&query)?;
        for (other, square) in (start..).zip(arrays::values(&squares(&differences)?)?) {
            if other != row {
                nearest = nearest.min(square);
            }
        }
    }
    Ok(nearest.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::torch_random::TorchGenerator;

    fn features(n: i64, d: i64, seed: u32) -> Tensor {
        Tensor::from_slice(&TorchGenerator::new(seed).normals((n * d) as usize))
            .view([n, d])
            .to_kind(Kind::Double)
    }

    fn percent(real: &Tensor, synthetic: &Tensor) -> f64 {
        authenticity(real, synthetic).unwrap().percent
    }

    fn brute(real: &Tensor, synthetic: &Tensor) -> f64 {
        let rows = |t: &Tensor| Vec::<Vec<f64>>::try_from(t.to_kind(Kind::Double)).unwrap();
        let (real, synthetic) = (rows(real), rows(synthetic));
        let apart = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
        let authentic = synthetic.iter().filter(|s| {
            let to: Vec<f64> = real.iter().map(|r| apart(s, r)).collect();
            let least = to.iter().copied().fold(f64::INFINITY, f64::min);
            let nearest = to.iter().position(|t| *t == least).unwrap();
            let others = real.iter().enumerate().filter(|(i, _)| *i != nearest);
            others.map(|(_, r)| apart(&real[nearest], r)).fold(f64::INFINITY, f64::min) < least
        });
        100.0 * authentic.count() as f64 / synthetic.len() as f64
    }

    #[test]
    fn points_on_a_line() {
        let line = |at: &[f64]| Tensor::from_slice(at).view([-1, 1]);
        // Reaches 1, 1, 4.
        let real = line(&[0.0, 1.0, 5.0]);
        // Nearest 5 at 3 < 4; 0 at 2 > 1; 1 at 0.5; a copy; 0 at 1, as far as its reach.
        let found = authenticity(&real, &line(&[8.0, -2.0, 1.5, 5.0, -1.0])).unwrap();
        assert_eq!(found, Authenticity { percent: 20.0, n_real: 3, n_synthetic: 5, d: 1 });
        assert_eq!(percent(&real, &line(&[-2.0])), 100.0);
        assert_eq!(percent(&real, &real), 0.0);
        let pixels = |at: &[u8]| Tensor::from_slice(at).view([-1, 1]);
        assert_eq!(percent(&pixels(&[0, 1, 5]), &pixels(&[8, 3, 2, 5])), 25.0);
    }

    #[test]
    fn it_is_brute_force_also_of_near_copies_far_from_the_origin() {
        for seed in 0..3 {
            let (real, synthetic) = (features(60, 5, seed), features(70, 5, seed + 10));
            let got = percent(&real, &synthetic);
            assert_eq!(got, brute(&real, &synthetic));
            assert!(got > 10.0 && got < 90.0, "{got}");
        }
        // Real near-copies 1e-9 apart, and synthetic ones as near to them, at 1000 from the origin: matrix
        // products see nothing.
        let one = features(20, 5, 1) + 1000.0;
        let real = Tensor::cat(&[&one, &(&one + features(20, 5, 2) * 1e-9)], 0);
        let synthetic = &one + features(20, 5, 3) * 1.5e-9;
        let got = percent(&real, &synthetic);
        assert_eq!(got, brute(&real, &synthetic));
        assert!(got > 10.0 && got < 90.0, "{got}");
        // Copies of copies.
        let real = Tensor::cat(&[&one, &one], 0);
        assert_eq!(percent(&real, &one), 0.0);
        assert_eq!(percent(&real, &(&one + 1e-9)), 100.0);
    }

    #[test]
    fn rows_in_another_block_count() {
        // A block is 4096 rows at most.
        let real = features(4200, 3, 1);
        let far = Tensor::cat(&[&real, &(real.narrow(0, 0, 50) + 1e-3)], 0);
        let synthetic = real.narrow(0, 0, 50) - 2e-3;
        assert_eq!(percent(&far, &synthetic), brute(&far, &synthetic));
        assert!(percent(&far, &synthetic) > percent(&real, &synthetic) + 50.0);
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let x = features(4, 3, 1);
        let says = |real: &Tensor, synthetic: &Tensor, words: &str| {
            let e = authenticity(real, synthetic).unwrap_err().to_string();
            assert!(e.contains(words), "{e}");
        };
        says(&x.narrow(0, 0, 1), &x, "at least 2 real images");
        says(&x, &x.narrow(0, 0, 0), "no synthetic features");
        says(&x, &(&x * f64::NAN), "4 of 4 rows of the synthetic");
        says(&x, &features(4, 2, 1), "the synthetic 2");
    }
}
