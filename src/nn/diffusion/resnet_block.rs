//! `ResnetBlock2D` (diffusers models/resnet.py).

use tch::{Tensor, nn::Path};

use super::{
    config::Activation,
    layers::{Conv2d, GroupNorm, Linear, add, mul, rescale},
    sampling::{halve, nearest},
};
use crate::{error::Result, vocabulary::TimeScaleShift};

/// What the residual blocks of a network have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ResnetConfig {
    /// Of the time embedding; without one the block has no projection of it.
    pub temb_channels: Option<i64>,
    pub groups: i64,
    pub eps: f64,
    pub activation: Activation,
    pub time_scale_shift: TimeScaleShift,
    pub output_scale_factor: f64,
}

/// What a residual block does to height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resample {
    Keep,
    Double,
    Halve,
}

impl Resample {
    fn apply(self, xs: &Tensor) -> Result<Tensor> {
        match self {
            Self::Keep => Ok(xs.shallow_clone()),
            Self::Double => nearest(xs, None),
            Self::Halve => halve(xs),
        }
    }
}

#[derive(Debug)]
pub(crate) struct ResnetBlock2D {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
    config: ResnetConfig,
    resample: Resample,
}

impl ResnetBlock2D {
    pub fn new(vs: &Path, cin: i64, cout: i64, config: &ResnetConfig, resample: Resample) -> Result<Self> {
        let projected = match config.time_scale_shift {
            TimeScaleShift::Default => cout,
            TimeScaleShift::ScaleShift => 2 * cout,
        };
        let shortcut = || Conv2d::new(&(vs / "conv_shortcut"), cin, cout, 1, 1, 0);
        Ok(Self {
            norm1: GroupNorm::new(&(vs / "norm1"), config.groups, cin, config.eps)?,
            conv1: Conv2d::same(&(vs / "conv1"), cin, cout)?,
            time_emb_proj: config
                .temb_channels
                .map(|channels| Linear::new(&(vs / "time_emb_proj"), channels, projected, true))
                .transpose()?,
            norm2: GroupNorm::new(&(vs / "norm2"), config.groups, cout, config.eps)?,
            conv2: Conv2d::same(&(vs / "conv2"), cout, cout)?,
            conv_shortcut: (cin != cout).then(shortcut).transpose()?,
            config: *config,
            resample,
        })
    }

    /// (batch, in, height, width), with the time embedding (batch, `temb_channels`), to (batch, out,
    /// height, width) or its half or double.
    pub fn forward(&self, xs: &Tensor, temb: Option<&Tensor>) -> Result<Tensor> {
        let activation = self.config.activation;
        let mut ys = activation.consume(self.norm1.forward(xs)?)?;
        if self.resample != Resample::Keep {
            ys = self.resample.apply(&ys)?;
        }
        let mut ys = self.conv1.forward(&ys)?;
        let temb = match (&self.time_emb_proj, temb) {
            (Some(project), Some(temb)) => {
                let temb = project.forward(&activation.forward(temb)?)?;
                Some(temb.f_unsqueeze(-1)?.f_unsqueeze(-1)?)
            }
            _ => None,
        };
        ys = match (self.config.time_scale_shift, temb) {
            (TimeScaleShift::ScaleShift, Some(temb)) => {
                let channels = temb.size()[1] / 2;
                let scale = temb.f_narrow(1, 0, channels)?.f_add_scalar(1.0)?;
                let shift = temb.f_narrow(1, channels, channels)?;
                add(mul(self.norm2.forward(&ys)?, &scale)?, &shift)?
            }
            (_, Some(temb)) => self.norm2.forward(&add(ys, &temb)?)?,
            (_, None) => self.norm2.forward(&ys)?,
        };
        let ys = self.conv2.forward(&activation.consume(ys)?)?;
        let xs = self.resample.apply(xs)?;
        let xs = match &self.conv_shortcut {
            Some(conv) => conv.forward(&xs)?,
            None => xs,
        };
        rescale(add(ys, &xs)?, self.config.output_scale_factor)
    }
}
