//! torchvision's ResNet of basic blocks (torchvision/models/resnet.py, 0.28).
//!
//! Variable paths are torchvision's: `conv1.weight`, `layer1.0.bn1.running_mean`, `fc.bias`, …

use tch::{
    Tensor,
    nn::{Init, Path},
};

use crate::error::Result;

#[derive(Debug)]
struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
}

impl BatchNorm {
    fn new(vs: &Path, channels: i64) -> Result<Self> {
        Ok(Self {
            weight: vs.f_var("weight", &[channels], Init::Const(1.0))?,
            bias: vs.f_var("bias", &[channels], Init::Const(0.0))?,
            running_mean: vs.f_zeros_no_train("running_mean", &[channels])?,
            running_var: vs.f_ones_no_train("running_var", &[channels])?,
        })
    }

    fn forward(&self, xs: &Tensor, train: bool) -> Tensor {
        xs.batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            Some(&self.running_mean),
            Some(&self.running_var),
            train,
            0.1,
            1e-5,
            true,
        )
    }
}

fn conv(vs: &Path, cin: i64, cout: i64, kernel: i64) -> Result<Tensor> {
    Ok(vs.f_var("weight", &[cout, cin, kernel, kernel], Init::Const(0.0))?)
}

fn convolve(xs: &Tensor, weight: &Tensor, stride: i64) -> Tensor {
    let padding = (weight.size()[2] - 1) / 2;
    xs.conv2d(weight, None::<&Tensor>, [stride; 2], [padding; 2], [1, 1], 1)
}

#[derive(Debug)]
struct BasicBlock {
    conv1: Tensor,
    bn1: BatchNorm,
    conv2: Tensor,
    bn2: BatchNorm,
    downsample: Option<(Tensor, BatchNorm)>,
    stride: i64,
}

impl BasicBlock {
    fn new(vs: &Path, cin: i64, cout: i64, stride: i64) -> Result<Self> {
        let downsample = if stride != 1 || cin != cout {
            let vs = vs / "downsample";
            Some((conv(&(&vs / "0"), cin, cout, 1)?, BatchNorm::new(&(&vs / "1"), cout)?))
        } else {
            None
        };
        Ok(Self {
            conv1: conv(&(vs / "conv1"), cin, cout, 3)?,
            bn1: BatchNorm::new(&(vs / "bn1"), cout)?,
            conv2: conv(&(vs / "conv2"), cout, cout, 3)?,
            bn2: BatchNorm::new(&(vs / "bn2"), cout)?,
            downsample,
            stride,
        })
    }

    fn forward(&self, xs: &Tensor, train: bool) -> Tensor {
        let ys = self.bn1.forward(&convolve(xs, &self.conv1, self.stride), train).relu_();
        let mut ys = self.bn2.forward(&convolve(&ys, &self.conv2, 1), train);
        match &self.downsample {
            Some((weight, bn)) => ys += bn.forward(&convolve(xs, weight, self.stride), train),
            None => ys += xs,
        }
        ys.relu_()
    }
}

/// A ResNet: images (batch, 3, height, width) to logits (batch, classes).
#[derive(Debug)]
pub struct ResNet {
    conv1: Tensor,
    bn1: BatchNorm,
    blocks: Vec<BasicBlock>,
    fc_weight: Tensor,
    fc_bias: Tensor,
}

impl ResNet {
    /// ResNet-18: 11,689,512 parameters with 1000 classes.
    pub fn resnet18(vs: &Path, num_classes: i64) -> Result<Self> {
        let mut blocks = Vec::new();
        let mut cin = 64;
        for (layer, cout) in (1..).zip([64, 128, 256, 512]) {
            for block in 0..2 {
                let stride = if layer > 1 && block == 0 { 2 } else { 1 };
                let path = vs / format!("layer{layer}") / block;
                blocks.push(BasicBlock::new(&path, cin, cout, stride)?);
                cin = cout;
            }
        }
        let fc = vs / "fc";
        Ok(Self {
            conv1: conv(&(vs / "conv1"), 3, 64, 7)?,
            bn1: BatchNorm::new(&(vs / "bn1"), 64)?,
            blocks,
            fc_weight: fc.f_var("weight", &[num_classes, cin], Init::Const(0.0))?,
            fc_bias: fc.f_var("bias", &[num_classes], Init::Const(0.0))?,
        })
    }

    /// `train` chooses between batch and running statistics; the running ones are updated in training.
    pub fn forward_t(&self, xs: &Tensor, train: bool) -> Tensor {
        let ys = self.bn1.forward(&convolve(xs, &self.conv1, 2), train).relu_();
        let mut ys = ys.max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false);
        for block in &self.blocks {
            ys = block.forward(&ys, train);
        }
        ys.adaptive_avg_pool2d([1, 1]).flatten(1, -1).linear(&self.fc_weight, Some(&self.fc_bias))
    }
}
