//! Kernel distance between two sets of features (Binkowski et al. 2018, there on Inception-v3's pool features:
//! KID): the squared maximum mean discrepancy under the kernel (x.y/d + 1)^3, unbiased, so that it does not
//! depend on n and may fall below 0. Mean over random subsets, as torch-fidelity 0.4.0 has it, with the same
//! subsets.
//!
//! Sums of kernels over a subset are w^T K w with w its indicator: the kernel between all images is computed
//! once for all subsets, where that is less work than a kernel for each.

use serde::Serialize;
use tch::{Kind, Tensor};

use super::{
    arrays::{self, REAL, SYNTHETIC},
    numpy_random::RandomState,
};
use crate::error::{Error, Result};

/// Which subsets. The default is torch-fidelity's, but for sets of less than 1000 images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Subsets {
    pub count: usize,
    /// Images of each set in a subset; `None`: 1000, or all of the smaller set.
    pub size: Option<usize>,
    /// As `numpy.random.RandomState` takes it.
    pub seed: u32,
}

impl Default for Subsets {
    fn default() -> Self {
        Self { count: 100, size: None, seed: 2020 }
    }
}

const LARGEST_DEFAULT: usize = 1000;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Kid {
    /// Mean over the subsets. Unbiased: values about 0, also below, say that no difference is seen.
    pub value: f64,
    /// Standard deviation over the subsets, divided by their number as torch-fidelity's.
    pub sd: f64,
    /// Of the mean over *subsets of these images* (from the standard deviation with n - 1); says nothing of
    /// other images, since all subsets are drawn from the same ones. NaN of one subset.
    pub standard_error: f64,
    pub subsets: u64,
    pub subset_size: u64,
    pub seed: u32,
    pub n_real: u64,
    pub n_synthetic: u64,
    /// Width of the features.
    pub d: u64,
    pub warnings: Vec<String>,
}

/// Between features (n, d). `torch_fidelity`'s value with `input1` the real and `input2` the synthetic images: each
/// subset draws from the real ones first.
///
/// # Errors
/// Rows that are not finite, sets that differ in width, no subset, a subset of fewer than two images or of
/// more than there are.
pub fn kid(real: &Tensor, synthetic: &Tensor, subsets: &Subsets) -> Result<Kid> {
    let (real, synthetic) = arrays::pair(real, synthetic, 2, "KID")?;
    let (n_real, n_synthetic) = (real.size()[0] as usize, synthetic.size()[0] as usize);
    let size = subsets.size.unwrap_or(LARGEST_DEFAULT.min(n_real).min(n_synthetic));
    if subsets.count == 0 || size < 2 {
        return Err(Error::input(format!("{} KID subsets of {size} images", subsets.count))
            .help("take at least one subset of at least 2 images (the default: 100 of 1000)"));
    }
    for (n, set) in [(n_real, REAL), (n_synthetic, SYNTHETIC)] {
        if size > n {
            return Err(Error::input(format!("a KID subset of {size} images, but there are {n} {set} ones"))
                .help(format!("take a subset size of at most {}", n_real.min(n_synthetic))));
        }
    }
    let mut rng = RandomState::new(subsets.seed);
    let (mut of_real, mut of_synthetic) = (Vec::new(), Vec::new());
    for _ in 0..subsets.count {
        of_real.push(rng.choice(n_real as u32, size));
        of_synthetic.push(rng.choice(n_synthetic as u32, size));
    }
    let (m, pairs) = (size as f64, (size * (size - 1)) as f64);
    let within_real = kernel_sums(&real, &of_real, &real, &of_real, true)?;
    let within_synthetic = kernel_sums(&synthetic, &of_synthetic, &synthetic, &of_synthetic, true)?;
    let across = kernel_sums(&real, &of_real, &synthetic, &of_synthetic, false)?;
    let distances: Vec<f64> = (0..subsets.count)
        .map(|s| (within_real[s] + within_synthetic[s]) / pairs - 2.0 * across[s] / (m * m))
        .collect();
    let spread = super::summary(distances.iter().copied());
    let value = spread.mean;
    if !value.is_finite() {
        return Err(Error::input("the features are too large: their kernel overflows")
            .help("features of an extractor are of the order of 1"));
    }
    let count = subsets.count as f64;
    Ok(Kid {
        value,
        sd: (distances.iter().map(|d| (d - value).powi(2)).sum::<f64>() / count).sqrt(),
        standard_error: spread.sd / count.sqrt(),
        subsets: subsets.count as u64,
        subset_size: size as u64,
        seed: subsets.seed,
        n_real: n_real as u64,
        n_synthetic: n_synthetic as u64,
        d: real.size()[1] as u64,
        warnings: warnings(size, n_real, n_synthetic),
    })
}

fn warnings(size: usize, n_real: usize, n_synthetic: usize) -> Vec<String> {
    let whole = match (size == n_real, size == n_synthetic) {
        (true, true) => "both sets: all subsets are the same, their spread is none",
        (true, false) => "all real images: the spread over subsets is that of the synthetic ones",
        (false, true) => "all synthetic images: the spread over subsets is that of the real ones",
        (false, false) => return Vec::new(),
    };
    vec![format!("a subset of {size} images is the whole of {whole}")]
}

/// (x.y/d + 1)^3 of every row of `x` with every row of `y`.
fn kernel(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let d = x.size()[1] as f64;
    let base = x.f_matmul(&y.f_tr()?)?.f_div_scalar(d)?.f_add_scalar(1.0)?;
    Ok(base.f_mul(&base)?.f_mul(&base)?)
}

/// For each subset, the sum of the kernel over its rows of `x` and of `y`; where `within`, of a row with itself
/// excepted.
fn kernel_sums(
    x: &Tensor,
    of_x: &[Vec<u32>],
    y: &Tensor,
    of_y: &[Vec<u32>],
    within: bool,
) -> Result<Vec<f64>> {
    let (nx, ny, d) = (x.size()[0], y.size()[0], x.size()[1]);
    let size = of_x.first().map_or(0, Vec::len) as f64;
    let each = of_x.len() as f64 * size * size * d as f64;
    let whole = nx as f64 * ny as f64 * (d as f64 + of_x.len() as f64);
    if each < whole { sums_of_each(x, of_x, y, of_y, within) } else { sums_of_all(x, of_x, y, of_y, within) }
}

/// A kernel for each subset.
fn sums_of_each(
    x: &Tensor,
    of_x: &[Vec<u32>],
    y: &Tensor,
    of_y: &[Vec<u32>],
    within: bool,
) -> Result<Vec<f64>> {
    let select = |from: &Tensor, subset: &[u32]| -> Result<Tensor> {
        let indices: Vec<i64> = subset.iter().map(|&i| i64::from(i)).collect();
        Ok(from.f_index_select(0, &Tensor::f_from_slice(&indices)?)?)
    };
    let sum = |(i, j): (&Vec<u32>, &Vec<u32>)| -> Result<f64> {
        let kernel = kernel(&select(x, i)?, &select(y, j)?)?;
        let sum = f64::try_from(kernel.f_sum(Kind::Double)?)?;
        Ok(if within { sum - f64::try_from(kernel.f_trace()?)? } else { sum })
    };
    of_x.iter().zip(of_y).map(sum).collect()
}

/// One kernel for all subsets, a block of rows after another.
fn sums_of_all(
    x: &Tensor,
    of_x: &[Vec<u32>],
    y: &Tensor,
    of_y: &[Vec<u32>],
    within: bool,
) -> Result<Vec<f64>> {
    let (nx, ny) = (x.size()[0], y.size()[0]);
    let (in_x, in_y) = (indicators(of_x, nx)?, indicators(of_y, ny)?);
    let mut sums = Tensor::f_zeros([of_x.len() as i64], (Kind::Double, tch::Device::Cpu))?;
    for (start, rows) in arrays::blocks(nx, ny) {
        let block = kernel(&x.f_narrow(0, start, rows)?, y)?;
        if within {
            // The diagonal is in the block's columns from `start` on.
            let _ = block.f_narrow(1, start, rows)?.f_fill_diagonal_(0.0, false)?;
        }
        let of_rows = in_x.f_narrow(1, start, rows)?.f_matmul(&block)?;
        sums = sums.f_add(&of_rows.f_mul(&in_y)?.f_sum_dim_intlist(1, false, Kind::Double)?)?;
    }
    arrays::values(&sums)
}

/// (subsets, n): 1 where the image is in the subset.
fn indicators(subsets: &[Vec<u32>], n: i64) -> Result<Tensor> {
    let n = n as usize;
    let mut indicators = vec![0f64; subsets.len() * n];
    for (s, subset) in subsets.iter().enumerate() {
        subset.iter().for_each(|&i| indicators[s * n + i as usize] = 1.0);
    }
    Ok(Tensor::f_from_slice(&indicators)?.f_view([subsets.len() as i64, n as i64])?)
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

    #[test]
    fn both_ways_to_sum_agree_with_the_definition() {
        let (x, y) = (features(9, 4, 1), features(7, 4, 2));
        let subsets = [vec![0u32, 8, 3], vec![2, 1, 4]];
        let other = [vec![6u32, 0, 1], vec![5, 4, 3]];
        let value = |t: &Tensor, i: u32, j: i64| f64::try_from(t.get(i64::from(i)).get(j)).unwrap();
        let k = |a: &Tensor, i: u32, b: &Tensor, j: u32| {
            let dot: f64 = (0..4).map(|c| value(a, i, c) * value(b, j, c)).sum();
            (dot / 4.0 + 1.0).powi(3)
        };
        let near = |got: Vec<f64>, expected: [f64; 2]| {
            assert!(got.iter().zip(expected).all(|(g, e)| (g - e).abs() < 1e-12), "{got:?} {expected:?}");
        };
        let across = [0, 1].map(|s: usize| {
            subsets[s]
                .iter()
                .flat_map(|&i| other[s].iter().map(move |&j| (i, j)))
                .map(|(i, j)| k(&x, i, &y, j))
                .sum()
        });
        near(sums_of_each(&x, &subsets, &y, &other, false).unwrap(), across);
        near(sums_of_all(&x, &subsets, &y, &other, false).unwrap(), across);
        let within = [0, 1].map(|s: usize| {
            let pairs = subsets[s].iter().flat_map(|&i| subsets[s].iter().map(move |&j| (i, j)));
            pairs.filter(|(i, j)| i != j).map(|(i, j)| k(&x, i, &x, j)).sum()
        });
        near(sums_of_each(&x, &subsets, &x, &subsets, true).unwrap(), within);
        near(sums_of_all(&x, &subsets, &x, &subsets, true).unwrap(), within);
    }

    #[test]
    fn the_subset_size_is_what_the_sets_allow() {
        let (real, synthetic) = (features(30, 4, 1), features(20, 4, 2));
        let found = kid(&real, &synthetic, &Subsets::default()).unwrap();
        assert_eq!((found.subset_size, found.subsets, found.seed), (20, 100, 2020));
        assert_eq!((found.n_real, found.n_synthetic, found.d), (30, 20, 4));
        assert!(found.warnings[0].contains("all synthetic images"), "{:?}", found.warnings);
        let all = kid(&synthetic, &synthetic, &Subsets { count: 3, ..Subsets::default() }).unwrap();
        assert!(all.sd < 1e-12 && all.warnings[0].contains("both sets"));
        assert!(all.value < 0.0, "unbiased: below 0 between a set and itself");
        let wrong = |size, count| {
            kid(&real, &synthetic, &Subsets { size: Some(size), count, seed: 0 }).unwrap_err().to_string()
        };
        let e = wrong(21, 10);
        assert!(e.contains("there are 20 synthetic ones") && e.contains("at most 20"), "{e}");
        assert!(wrong(1, 10).contains("at least 2") && wrong(10, 0).contains("0 KID subsets"));
        assert!(kid(&real, &(&synthetic * f64::NAN), &Subsets::default()).is_err());
        assert!(
            kid(&(&real * 1e200), &synthetic, &Subsets::default())
                .unwrap_err()
                .to_string()
                .contains("overflows")
        );
        assert!(
            kid(&real, &synthetic, &Subsets { count: 1, ..Subsets::default() })
                .unwrap()
                .standard_error
                .is_nan()
        );
    }
}
