//! nnU-Net's plain U-Net in two dimensions: `PlainConvUNet` of dynamic-network-architectures 0.4.4.
//!
//! Variable paths are its own: `encoder.stages.0.0.convs.0.conv.weight`, `decoder.transpconvs.0.weight`,
//! `decoder.seg_layers.0.weight`, …

use tch::{
    Tensor,
    nn::{Init, Path},
};

use super::diffusion::layers::GroupNorm;
use crate::error::{Error, Result};

/// `PlainConvUNet(input_channels=1, n_stages, features_per_stage, conv_op=Conv2d, kernel_sizes=3, strides=[1, 2, 2, …],
/// n_conv_per_stage=2, num_classes, n_conv_per_stage_decoder=2, conv_bias=True, norm_op=InstanceNorm2d(affine=True),
/// nonlin=LeakyReLU)`.
#[derive(Debug, Clone, PartialEq)]
pub struct PlainUnetConfig {
    pub in_channels: i64,
    /// Classes.
    pub out_channels: i64,
    /// Of each stage, from the image's own resolution down; each stage halves the one before.
    pub channels: Vec<i64>,
}

/// Convolutions in a stage.
const CONVOLUTIONS: usize = 2;

/// A 3 x 3 convolution, instance norm with scale and shift, leaky ReLU of slope 0.01.
#[derive(Debug)]
struct ConvNormRelu {
    weight: Tensor,
    bias: Tensor,
    norm: GroupNorm,
    stride: i64,
}

impl ConvNormRelu {
    fn new(vs: &Path, cin: i64, cout: i64, stride: i64) -> Result<Self> {
        let conv = vs / "conv";
        Ok(Self {
            weight: conv.f_var("weight", &[cout, cin, 3, 3], Init::Const(0.0))?,
            bias: conv.f_var("bias", &[cout], Init::Const(0.0))?,
            // One channel in a group: an instance norm, which keeps the memory format.
            norm: GroupNorm::new(&(vs / "norm"), cout, cout, 1e-5)?,
            stride,
        })
    }

    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let ys = xs.f_conv2d(&self.weight, Some(&self.bias), [self.stride; 2], [1, 1], [1, 1], 1)?;
        Ok(self.norm.forward(&ys)?.f_leaky_relu()?)
    }
}

/// The convolutions of a stage; the first one may have a stride.
#[derive(Debug)]
struct PlainStage {
    convolutions: Vec<ConvNormRelu>,
}

impl PlainStage {
    fn new(vs: &Path, cin: i64, cout: i64, stride: i64) -> Result<Self> {
        let vs = vs / "convs";
        let convolution = |i| match i {
            0 => ConvNormRelu::new(&(&vs / i), cin, cout, stride),
            _ => ConvNormRelu::new(&(&vs / i), cout, cout, 1),
        };
        Ok(Self { convolutions: (0..CONVOLUTIONS).map(convolution).collect::<Result<_>>()? })
    }

    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        self.convolutions.iter().try_fold(xs.shallow_clone(), |xs, convolution| convolution.forward(&xs))
    }
}

/// A stage of the decoder: doubles the resolution, joins the encoder's stage, and segments at its resolution.
#[derive(Debug)]
struct PlainDecoderStage {
    up: (Tensor, Tensor),
    stage: PlainStage,
    segment: (Tensor, Tensor),
}

impl PlainDecoderStage {
    fn new(vs: &Path, i: usize, below: i64, channels: i64, classes: i64) -> Result<Self> {
        let (up, segment) = (vs / "transpconvs" / i, vs / "seg_layers" / i);
        Ok(Self {
            up: (
                up.f_var("weight", &[below, channels, 2, 2], Init::Const(0.0))?,
                up.f_var("bias", &[channels], Init::Const(0.0))?,
            ),
            stage: PlainStage::new(&(vs / "stages" / i), 2 * channels, channels, 1)?,
            segment: (
                segment.f_var("weight", &[classes, channels, 1, 1], Init::Const(0.0))?,
                segment.f_var("bias", &[classes], Init::Const(0.0))?,
            ),
        })
    }

    fn forward(&self, below: &Tensor, skip: &Tensor) -> Result<Tensor> {
        let (weight, bias) = &self.up;
        let up = below.f_conv_transpose2d(weight, Some(bias), [2, 2], [0, 0], [0, 0], 1, [1, 1])?;
        self.stage.forward(&Tensor::f_cat(&[&up, skip], 1)?)
    }

    fn segment(&self, xs: &Tensor) -> Result<Tensor> {
        let (weight, bias) = &self.segment;
        Ok(xs.f_conv2d(weight, Some(bias), [1, 1], [0, 0], [1, 1], 1)?)
    }
}

/// Images (batch, `in_channels`, height, width) to logits (batch, `out_channels`, height, width). Height and width are
/// multiples of 2^(stages - 1).
#[derive(Debug)]
pub struct PlainUnet {
    encoder: Vec<PlainStage>,
    /// From the bottom to the image's own resolution.
    decoder: Vec<PlainDecoderStage>,
}

impl PlainUnet {
    /// # Errors
    /// Fewer than two stages.
    pub fn new(vs: &Path, config: &PlainUnetConfig) -> Result<Self> {
        let PlainUnetConfig { in_channels, out_channels, channels } = config;
        if channels.len() < 2 {
            return Err(Error::input(format!("a U-Net needs at least two stages; got {channels:?}")));
        }
        let (encoder, decoder) = (vs / "encoder" / "stages", vs / "decoder");
        let inputs = [*in_channels].into_iter().chain(channels.iter().copied());
        let stage = |(i, (cin, &cout)): (usize, (i64, &i64))| {
            PlainStage::new(&(&encoder / i / 0), cin, cout, if i == 0 { 1 } else { 2 })
        };
        let upward =
            |(i, pair): (usize, &[i64])| PlainDecoderStage::new(&decoder, i, pair[1], pair[0], *out_channels);
        Ok(Self {
            encoder: inputs.zip(channels).enumerate().map(stage).collect::<Result<_>>()?,
            decoder: channels.windows(2).rev().enumerate().map(upward).collect::<Result<_>>()?,
        })
    }

    /// Logits at the image's own resolution, then at half of it, and so on: of `levels` resolutions, or of as many as
    /// the decoder has.
    pub fn forward(&self, images: &Tensor, levels: usize) -> Result<Vec<Tensor>> {
        let mut skips = Vec::with_capacity(self.encoder.len());
        let mut xs = images.shallow_clone();
        for stage in &self.encoder {
            xs = stage.forward(&xs)?;
            skips.push(xs.shallow_clone());
        }
        skips.pop();
        let mut logits = Vec::with_capacity(levels);
        for (left, (stage, skip)) in
            (0..self.decoder.len()).rev().zip(self.decoder.iter().zip(skips.iter().rev()))
        {
            xs = stage.forward(&xs, skip)?;
            if left < levels {
                logits.push(stage.segment(&xs)?);
            }
        }
        logits.reverse();
        Ok(logits)
    }
}
