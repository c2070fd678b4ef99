//! The Vendi score (Friedman and Dieng 2023): how many different images a set seems to hold. It is the exponential
//! of the entropy of the eigenvalues of K / n, where K holds the cosines between the images' features.
//!
//! As dgm-eval computes it (`vendi.py`, with its defaults: order 1, a linear kernel of normalised features). It takes
//! a score for each class of labelled images and their mean; this is the score of one set.

use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::{arrays, distances};
use crate::error::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Vendi {
    /// A number of images, 1 to the smaller of `n` and `d`. 1: all features point one way; n: all are orthogonal.
    /// Grows with n: compare it only at the same n.
    pub value: f64,
    pub n: u64,
    /// Width of the features.
    pub d: u64,
}

/// Of features (n, d), f32 or f64; `set` ("real", "synthetic") is what errors call them. The features are not
/// centred.
///
/// The eigenvalues are those of n x n cosines or, where d is smaller, of a d x d matrix that has the same ones but
/// for 0. Memory is that of this matrix and of blocks.
///
/// # Errors
/// Fewer than two images, rows that are not finite, rows of zeros (they have no direction; dgm-eval keeps them, and
/// its eigenvalues then do not sum to 1), or features whose squares overflow.
pub fn vendi(features: &Tensor, set: &str) -> Result<Vendi> {
    let (n, d) = arrays::check(features, set)?;
    if n < 2 {
        return Err(Error::input(format!("the Vendi score needs at least 2 {set} images, there is {n}"))
            .help("give more images"));
    }
    let matrix = if n <= d { cosines(features, set)? } else { moments(features, set)? };
    let eigenvalues = arrays::values(&matrix.f_div_scalar(n as f64)?.f_linalg_eigvalsh("L")?)?;
    // What rounding leaves of eigenvalues that are 0 may be below it.
    let entropy: f64 = eigenvalues.into_iter().filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum();
    Ok(Vendi { value: entropy.exp(), n: n as u64, d: d as u64 })
}

/// (n, n): the cosine of each two rows.
fn cosines(features: &Tensor, set: &str) -> Result<Tensor> {
    let (n, d) = (features.size()[0], features.size()[1]);
    let mut products = Tensor::f_zeros([n, n], (Kind::Double, Device::Cpu))?;
    for (start, columns) in arrays::blocks(d, n) {
        let block = arrays::f64s(&features.f_narrow(1, start, columns)?)?;
        products = products.f_addmm(&block, &block.f_tr()?)?;
    }
    let lengths = lengths(&products.f_diagonal(0, 0, 1)?, set)?;
    let _ = products.f_div_(&lengths)?;
    let _ = products.f_div_(&lengths.f_unsqueeze(1)?)?;
    Ok(products)
}

/// (d, d): the sum over the rows x, of length 1, of x x^T.
fn moments(features: &Tensor, set: &str) -> Result<Tensor> {
    let (n, d) = (features.size()[0], features.size()[1]);
    let mut moments = Tensor::f_zeros([d, d], (Kind::Double, Device::Cpu))?;
    for (start, rows) in arrays::blocks(n, d) {
        let block = arrays::f64s(&features.f_narrow(0, start, rows)?)?;
        let lengths = lengths(&distances::squares(&block)?, set)?;
        let block = block.f_div(&lengths.f_unsqueeze(1)?)?;
        moments = moments.f_addmm(&block.f_tr()?, &block)?;
    }
    Ok(moments)
}

/// Lengths of rows whose squares are known.
///
/// # Errors
/// One is 0 or infinite.
fn lengths(squares: &Tensor, set: &str) -> Result<Tensor> {
    if bool::try_from(squares.f_eq(0.0)?.f_any()?)? {
        return Err(Error::input(format!(
            "rows of the {set} features are all zeros: they have no direction"
        ))
        .help("the extractor's weights, or these images, are damaged"));
    }
    if !bool::try_from(squares.f_isfinite()?.f_all()?)? {
        return Err(Error::input(format!("the {set} features are too large: their squares overflow"))
            .help("features of an extractor are of the order of 1"));
    }
    Ok(squares.f_sqrt()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::torch_random::TorchGenerator;

    fn features(n: i64, d: i64) -> Tensor {
        Tensor::from_slice(&TorchGenerator::new(1).normals((n * d) as usize)).view([n, d])
    }

    fn value(features: &Tensor) -> f64 {
        vendi(features, "synthetic").unwrap().value
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12 * b
    }

    #[test]
    fn it_counts_directions() {
        let axes = Tensor::eye(6, (Kind::Float, Device::Cpu));
        assert!(near(value(&axes), 6.0));
        assert!(near(value(&(&axes * -3.0)), 6.0), "neither length nor sign counts");
        assert!(near(value(&Tensor::ones([5, 3], (Kind::Float, Device::Cpu))), 1.0));
        // As often each, and of equal weight.
        let twice = Tensor::cat(&[&axes, &axes], 0);
        assert!(near(value(&twice), 6.0));
        // Two thirds and a third.
        let uneven = Tensor::cat(&[&axes.narrow(0, 0, 2), &axes.narrow(0, 0, 1)], 0);
        assert!(near(value(&uneven), (1.5f64).powf(2.0 / 3.0) * 3f64.powf(1.0 / 3.0)));
    }

    #[test]
    fn both_matrices_give_one_value_and_blocks_do_not_show() {
        let entropy = |matrix: Tensor, n: f64| -> f64 {
            let p = arrays::values(&(matrix / n).linalg_eigvalsh("L")).unwrap();
            p.into_iter().filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum::<f64>().exp()
        };
        // A block is 4096 rows or columns at most.
        for x in [features(8, 5000), features(5000, 8), features(20, 20)] {
            let n = x.size()[0] as f64;
            let got = value(&x);
            let exact = x.to_kind(Kind::Double);
            let unit = &exact / (&exact * &exact).sum_dim_intlist(1, true, Kind::Double).sqrt();
            let expected = entropy(unit.tr().matmul(&unit).view([x.size()[1], -1]), n);
            assert!((got - expected).abs() < 1e-9 * expected, "{got} {expected}");
            assert!(near(got, value(&exact)));
            assert!(got > 1.0 && got <= x.size()[0].min(x.size()[1]) as f64);
            assert!(near(got, value(&x.flip([0]))));
        }
    }

    #[test]
    fn what_has_no_score_is_refused() {
        let says = |t: &Tensor, words: &str| {
            let e = vendi(t, "real").unwrap_err().to_string();
            assert!(e.contains(words), "{e}");
        };
        for x in [features(4, 6), features(6, 4)] {
            let n = x.size()[0];
            says(&(&x * f64::NAN), &format!("{n} of {n} rows of the real features"));
            let zero = x.copy();
            let _ = zero.get(2).zero_();
            says(&zero, "all zeros");
            says(&(x.to_kind(Kind::Double) * 1e200), "too large");
        }
        says(&features(1, 4), "at least 2 real images");
    }
}
