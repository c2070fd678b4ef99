//! Halving and doubling of height and width (diffusers models/downsampling.py, models/upsampling.py).

use tch::{Tensor, nn::Path};

use super::layers::{Conv2d, size4};
use crate::error::Result;

/// `Downsample2D` with a convolution.
#[derive(Debug)]
pub(crate) struct Downsample2D {
    conv: Conv2d,
    padding: i64,
}

impl Downsample2D {
    /// Padding 1: on all sides. Padding 0: one zero row below and one zero column on the right.
    pub fn new(vs: &Path, channels: i64, padding: i64) -> Result<Self> {
        Ok(Self { conv: Conv2d::new(&(vs / "conv"), channels, channels, 3, 2, padding)?, padding })
    }

    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        match self.padding {
            0 => self.conv.forward(&xs.f_constant_pad_nd([0, 1, 0, 1])?),
            _ => self.conv.forward(xs),
        }
    }
}

/// `Upsample2D` with a convolution.
#[derive(Debug)]
pub(crate) struct Upsample2D {
    conv: Conv2d,
}

impl Upsample2D {
    pub fn new(vs: &Path, channels: i64) -> Result<Self> {
        Ok(Self { conv: Conv2d::same(&(vs / "conv"), channels, channels)? })
    }

    /// To twice the size, or to `size` (height, width).
    pub fn forward(&self, xs: &Tensor, size: Option<[i64; 2]>) -> Result<Tensor> {
        self.conv.forward(&nearest(xs, size)?)
    }
}

/// The nearest pixel, to twice the size or to `size` (height, width).
pub(crate) fn nearest(xs: &Tensor, size: Option<[i64; 2]>) -> Result<Tensor> {
    let [_, _, height, width] = size4(xs)?;
    let double = [2 * height, 2 * width];
    let size = size.unwrap_or(double);
    let scale = (size == double).then_some(2.0);
    // The channels-last kernel on CUDA counts in 32 bits (pytorch/pytorch#141831).
    let most = xs.numel() as i64 * 4;
    let xs = if most > i64::from(i32::MAX) { xs.f_contiguous()? } else { xs.shallow_clone() };
    Ok(xs.f_upsample_nearest2d(size, scale, scale)?)
}

/// The mean of two by two pixels.
pub(crate) fn halve(xs: &Tensor) -> Result<Tensor> {
    Ok(xs.f_avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None)?)
}
