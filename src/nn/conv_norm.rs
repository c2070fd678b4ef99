//! A convolution with the BatchNorm after it, as torchvision's networks have it.

use tch::{
    Tensor,
    nn::{Init, Path},
};

use super::forward_mode::ForwardMode;
use crate::error::Result;

/// `torch.nn.BatchNorm2d`: momentum 0.1 and eps 1e-5 unless [`ConvNorm::with_norm`] says otherwise.
#[derive(Debug)]
struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: f64,
    eps: f64,
}

impl BatchNorm {
    fn new(vs: &Path, channels: i64) -> Result<Self> {
        Ok(Self {
            weight: vs.f_var("weight", &[channels], Init::Const(1.0))?,
            bias: vs.f_var("bias", &[channels], Init::Const(0.0))?,
            running_mean: vs.f_zeros_no_train("running_mean", &[channels])?,
            running_var: vs.f_ones_no_train("running_var", &[channels])?,
            momentum: 0.1,
            eps: 1e-5,
        })
    }

    fn forward(&self, xs: &Tensor, mode: ForwardMode) -> Tensor {
        let train = match mode {
            ForwardMode::Eval => false,
            // The bias is frozen last.
            ForwardMode::Train(step) => !step.hold_frozen_norms || self.bias.requires_grad(),
        };
        xs.batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            Some(&self.running_mean),
            Some(&self.running_var),
            train,
            self.momentum,
            self.eps,
            true,
        )
    }
}

/// (batch, in, height, width) to (batch, out, height / stride, width / stride); the convolution has no bias.
#[derive(Debug)]
pub(super) struct ConvNorm {
    weight: Tensor,
    bn: BatchNorm,
    stride: i64,
    groups: i64,
}

impl ConvNorm {
    /// `names`: the convolution's and the BatchNorm's.
    pub fn new(
        vs: &Path,
        names: [&str; 2],
        cin: i64,
        cout: i64,
        kernel: i64,
        stride: i64,
        groups: i64,
    ) -> Result<Self> {
        let [conv, bn] = names;
        let shape = [cout, cin / groups, kernel, kernel];
        let weight = (vs / conv).f_var("weight", &shape, Init::Const(0.0))?;
        Ok(Self { weight, bn: BatchNorm::new(&(vs / bn), cout)?, stride, groups })
    }

    /// The BatchNorm with these arguments of `torch.nn.BatchNorm2d`.
    pub fn with_norm(mut self, momentum: f64, eps: f64) -> Self {
        (self.bn.momentum, self.bn.eps) = (momentum, eps);
        self
    }

    pub fn forward(&self, xs: &Tensor, mode: ForwardMode) -> Tensor {
        let padding = (self.weight.size()[2] - 1) / 2;
        let ys =
            xs.conv2d(&self.weight, None::<&Tensor>, [self.stride; 2], [padding; 2], [1, 1], self.groups);
        self.bn.forward(&ys, mode)
    }
}
