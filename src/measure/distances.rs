//! Euclidean distances between rows, by matrix products: |x|^2 + |y|^2 - 2 x.y.

use tch::{Kind, Tensor};

use crate::error::Result;

/// Squared length of each row of `x` (n, d), f64.
pub(super) fn squares(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_mul(x)?.f_sum_dim_intlist(1, false, Kind::Double)?)
}

/// Squared distances of the rows of `x` (m, d) to those of `y` (n, d), whose squared lengths are `of_y`. f64, 0 or
/// above; off by some 1e-16 of the squared *lengths*, so a small distance between long rows has few digits.
pub(super) fn squared(x: &Tensor, y: &Tensor, of_y: &Tensor) -> Result<Tensor> {
    let of_x = squares(x)?.f_unsqueeze(1)?;
    let mut found = x.f_matmul(&y.f_tr()?)?;
    // In place: the block is the largest thing around.
    let _ = found.f_mul_scalar_(-2.0)?;
    let _ = found.f_add_(&of_x)?;
    let _ = found.f_add_(of_y)?;
    Ok(found.f_clamp_min_(0.0)?)
}
