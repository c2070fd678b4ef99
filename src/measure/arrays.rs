//! What the measures of generators take: the features (or pixels) of a set of images, a row an image.

use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};

/// Bytes of f64 that a block of rows may take: memory and speed, not results.
const BLOCK_BYTES: i64 = 64 << 20;

/// Number and width of the rows of `features`, (n, d); `set` ("real", "synthetic") is what errors call them.
///
/// # Errors
/// Not two dimensions, no row, no column, or elements that are neither floating nor 8-bit.
pub(super) fn shape(features: &Tensor, set: &str) -> Result<(i64, i64)> {
    let &[n, d] = features.size().as_slice() else {
        let shape = features.size();
        return Err(Error::input(format!("the {set} features have the shape {shape:?}"))
            .help("features are (n, d): one row for each image"));
    };
    if n == 0 || d == 0 {
        return Err(Error::input(format!("there are no {set} features: {n} rows of {d} values"))
            .help("give the features of at least one image"));
    }
    match features.kind() {
        Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16 | Kind::Uint8 => Ok((n, d)),
        other => Err(Error::input(format!("the {set} features are of type {other:?}"))
            .help("give f32 or f64 features, or 8-bit pixels")),
    }
}

/// As [`shape`], and every value is a number.
///
/// # Errors
/// As [`shape`]; rows with NaN or infinity, which are counted.
pub(super) fn check(features: &Tensor, set: &str) -> Result<(i64, i64)> {
    let (n, d) = shape(features, set)?;
    if features.kind() == Kind::Uint8 {
        return Ok((n, d));
    }
    let mut broken = 0;
    for (start, rows) in blocks(n, d) {
        let finite = features.f_narrow(0, start, rows)?.f_isfinite()?.f_all_dim(1, false)?;
        broken += rows - i64::try_from(finite.f_sum(Kind::Int64)?)?;
    }
    if broken == 0 {
        return Ok((n, d));
    }
    Err(Error::input(format!("{broken} of {n} rows of the {set} features hold NaN or infinity"))
        .help("the extractor's weights, or these images, are damaged: no measure is taken of the rest"))
}

/// Start and number of rows, a block after another.
pub(super) fn blocks(n: i64, d: i64) -> impl Iterator<Item = (i64, i64)> {
    let rows = (BLOCK_BYTES / 8 / d.max(1)).clamp(1, 4096);
    (0..n).step_by(rows as usize).map(move |start| (start, rows.min(n - start)))
}

/// In f64, in the CPU's memory, in one piece.
pub(super) fn f64s(features: &Tensor) -> Result<Tensor> {
    Ok(features.detach().f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?.f_contiguous()?)
}

/// Checked ([`check`]) and in f64, where there are at least `least` rows.
///
/// # Errors
/// As [`check`]; fewer rows, with what needs them.
pub(super) fn matrix(features: &Tensor, set: &str, least: i64, what: &str) -> Result<Tensor> {
    let (n, _) = check(features, set)?;
    if n < least {
        return Err(Error::input(format!("{what} needs at least {least} {set} images, there are {n}"))
            .help("give more images"));
    }
    f64s(features)
}

/// # Errors
/// The rows of the two sets differ in width: they come from different extractors.
pub(super) fn same_width(a: &Tensor, b: &Tensor, sets: [&str; 2]) -> Result<()> {
    let (of_a, of_b) = (a.size().last().copied(), b.size().last().copied());
    if of_a == of_b {
        return Ok(());
    }
    let width = |w: Option<i64>| w.unwrap_or_default();
    Err(Error::input(format!(
        "the {} features have {} dimensions, the {} {}",
        sets[0],
        width(of_a),
        sets[1],
        width(of_b)
    ))
    .help("take both with the same extractor (pixels: from images of the same size)"))
}

pub(super) const REAL: &str = "real";
pub(super) const SYNTHETIC: &str = "synthetic";

/// Real and synthetic features in f64, of the same width.
///
/// # Errors
/// As [`matrix`] and [`same_width`].
pub(super) fn pair(real: &Tensor, synthetic: &Tensor, least: i64, what: &str) -> Result<(Tensor, Tensor)> {
    let (a, b) = (matrix(real, REAL, least, what)?, matrix(synthetic, SYNTHETIC, least, what)?);
    same_width(&a, &b, [REAL, SYNTHETIC])?;
    Ok((a, b))
}

/// Values on the heap, of a tensor of any shape and kind.
pub(super) fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(Vec::<f64>::try_from(f64s(tensor)?.f_reshape(-1)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_set_of_features_is_told() {
        let says = |t: &Tensor, words: &str| {
            let e = matrix(t, "synthetic", 3, "this measure").unwrap_err();
            assert!(e.to_string().contains(words) && e.exit_code() == 2, "{e}");
        };
        let real = Tensor::ones([4, 2], (Kind::Float, Device::Cpu));
        assert_eq!(matrix(&real, "real", 3, "").unwrap().kind(), Kind::Double);
        let _ = real.get(1).fill_(f64::NAN);
        let _ = real.get(3).get(0).fill_(f64::INFINITY);
        says(&real, "2 of 4 rows of the synthetic features hold NaN");
        says(&Tensor::ones([4, 2, 1], (Kind::Float, Device::Cpu)), "shape [4, 2, 1]");
        says(&Tensor::ones([0, 2], (Kind::Float, Device::Cpu)), "no synthetic features");
        says(&Tensor::ones([2, 2], (Kind::Float, Device::Cpu)), "at least 3 synthetic images, there are 2");
        says(&Tensor::ones([4, 2], (Kind::Int64, Device::Cpu)), "type Int64");
        let (a, b) = (
            Tensor::ones([4, 2], (Kind::Float, Device::Cpu)),
            Tensor::ones([4, 3], (Kind::Float, Device::Cpu)),
        );
        let e = pair(&a, &b, 1, "").unwrap_err().to_string();
        assert!(e.contains("real features have 2 dimensions, the synthetic 3"), "{e}");
    }

    #[test]
    fn blocks_cover_every_row_once() {
        for (n, d) in [(1, 1), (4097, 3), (9, 1 << 23), (5, i64::MAX)] {
            let all: Vec<i64> = blocks(n, d).flat_map(|(start, rows)| start..start + rows).collect();
            assert_eq!(all, (0..n).collect::<Vec<_>>());
        }
    }
}
