//! MONAI's `UNet` in two dimensions without residual units (monai/networks/nets/unet.py, 1.6.1).
//!
//! Variable paths are MONAI's: `model.0.conv.weight`, `model.1.submodule.0.conv.weight`, …

use tch::{
    Tensor,
    nn::{Init, Path},
};

use crate::error::{Error, Result};

/// `UNet(spatial_dims=2, in_channels, out_channels, channels, strides, num_res_units=0,
/// act=("LeakyReLU", {"negative_slope": …}), norm="instance")`, kernel 3, bias, order norm-activation.
#[derive(Debug, Clone, PartialEq)]
pub struct UNetConfig {
    pub in_channels: i64,
    pub out_channels: i64,
    /// From the top level to the bottom.
    pub channels: Vec<i64>,
    /// One fewer than `channels`.
    pub strides: Vec<i64>,
    pub negative_slope: f64,
}

impl UNetConfig {
    /// The reference's network: 664,282 parameters.
    pub fn diffecho() -> Self {
        Self::with_channels(&[2, 4, 8, 16, 32, 64, 128, 256])
    }

    /// The reference's network with other channels, strides 2.
    pub fn with_channels(channels: &[i64]) -> Self {
        Self {
            in_channels: 1,
            out_channels: 4,
            channels: channels.to_vec(),
            strides: vec![2; channels.len().saturating_sub(1)],
            negative_slope: 0.1,
        }
    }

    /// What height and width must be a multiple of, for the skips to fit.
    pub fn size_factor(&self) -> i64 {
        self.strides.iter().product()
    }
}

#[derive(Debug)]
struct UNetConvolution {
    weight: Tensor,
    bias: Tensor,
    stride: i64,
    transposed: bool,
    /// Instance norm and leaky ReLU behind it.
    norm_act: bool,
}

impl UNetConvolution {
    fn new(vs: &Path, cin: i64, cout: i64, stride: i64, transposed: bool, norm_act: bool) -> Result<Self> {
        let vs = vs / "conv";
        let shape = if transposed { [cin, cout, 3, 3] } else { [cout, cin, 3, 3] };
        Ok(Self {
            weight: vs.f_var("weight", &shape, Init::Const(0.0))?,
            bias: vs.f_var("bias", &[cout], Init::Const(0.0))?,
            stride,
            transposed,
            norm_act,
        })
    }

    fn forward(&self, xs: &Tensor, slope: &Tensor) -> Tensor {
        let (weight, bias, s) = (&self.weight, Some(&self.bias), [self.stride; 2]);
        let ys = match self.transposed {
            true => xs.conv_transpose2d(weight, bias, s, [1, 1], [self.stride - 1; 2], 1, [1, 1]),
            false => xs.conv2d(weight, bias, s, [1, 1], [1, 1], 1),
        };
        if !self.norm_act {
            return ys;
        }
        // An instance norm without scale and shift is a group norm of one channel a group; unlike
        // libtorch's instance_norm it keeps the memory format.
        let channels = ys.size()[1];
        ys.group_norm(channels, None::<&Tensor>, None::<&Tensor>, 1e-5, true).prelu(slope)
    }
}

/// One level: down, what lies below (with a skip around it), up.
#[derive(Debug)]
struct UNetLevel {
    down: UNetConvolution,
    below: Below,
    up: UNetConvolution,
}

#[derive(Debug)]
enum Below {
    Level(Box<UNetLevel>),
    Bottom(UNetConvolution),
}

impl UNetLevel {
    fn new(vs: &Path, cin: i64, cout: i64, channels: &[i64], strides: &[i64], top: bool) -> Result<Self> {
        let (c, s) = (channels[0], strides[0]);
        let inner = vs / "1" / "submodule";
        let (below, from_below) = if channels.len() > 2 {
            let level = Self::new(&inner, c, c, &channels[1..], &strides[1..], false)?;
            (Below::Level(Box::new(level)), c)
        } else {
            (Below::Bottom(UNetConvolution::new(&inner, c, channels[1], 1, false, true)?), channels[1])
        };
        Ok(Self {
            down: UNetConvolution::new(&(vs / "0"), cin, c, s, false, true)?,
            below,
            up: UNetConvolution::new(&(vs / "2"), c + from_below, cout, s, true, !top)?,
        })
    }

    fn forward(&self, xs: &Tensor, slope: &Tensor) -> Tensor {
        let down = self.down.forward(xs, slope);
        let below = match &self.below {
            Below::Level(level) => level.forward(&down, slope),
            Below::Bottom(convolution) => convolution.forward(&down, slope),
        };
        self.up.forward(&Tensor::cat(&[down, below], 1), slope)
    }
}

/// A U-Net: images (batch, `in_channels`, height, width) to logits (batch, `out_channels`, height, width).
/// Height and width must be multiples of [`UNetConfig::size_factor`], and more than one pixel must be
/// left at the bottom.
#[derive(Debug)]
pub struct UNet {
    top: UNetLevel,
    negative_slope: f64,
}

impl UNet {
    /// # Errors
    /// Fewer than two levels, or strides that do not fit the channels.
    pub fn new(vs: &Path, config: &UNetConfig) -> Result<Self> {
        let (channels, strides) = (&config.channels, &config.strides);
        if channels.len() < 2 || strides.len() + 1 != channels.len() {
            return Err(Error::input(format!(
                "a U-Net needs at least two levels and one stride fewer than channels; got {channels:?} and {strides:?}"
            )));
        }
        let top = UNetLevel::new(
            &(vs / "model"),
            config.in_channels,
            config.out_channels,
            channels,
            strides,
            true,
        )?;
        Ok(Self { top, negative_slope: config.negative_slope })
    }

    pub fn forward(&self, xs: &Tensor) -> Tensor {
        // tch's leaky_relu cannot be given its slope; a PReLU with a constant weight is the same.
        let slope = Tensor::from_slice(&[self.negative_slope]).to_kind(xs.kind()).to_device(xs.device());
        self.top.forward(xs, &slope)
    }
}
