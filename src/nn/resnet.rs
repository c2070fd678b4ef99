//! torchvision's ResNets (torchvision/models/resnet.py, 0.28).
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

/// A convolution with the BatchNorm after it.
#[derive(Debug)]
struct Normed {
    weight: Tensor,
    bn: BatchNorm,
    stride: i64,
}

impl Normed {
    /// `names`: the convolution's and the BatchNorm's.
    fn new(vs: &Path, names: [&str; 2], cin: i64, cout: i64, kernel: i64, stride: i64) -> Result<Self> {
        let [conv, bn] = names;
        let weight = (vs / conv).f_var("weight", &[cout, cin, kernel, kernel], Init::Const(0.0))?;
        Ok(Self { weight, bn: BatchNorm::new(&(vs / bn), cout)?, stride })
    }

    fn forward(&self, xs: &Tensor, train: bool) -> Tensor {
        let padding = (self.weight.size()[2] - 1) / 2;
        let ys = xs.conv2d(&self.weight, None::<&Tensor>, [self.stride; 2], [padding; 2], [1, 1], 1);
        self.bn.forward(&ys, train)
    }
}

/// A residual block: two 3x3 convolutions, or (a bottleneck) 1x1, 3x3, 1x1.
#[derive(Debug)]
struct Block {
    convolutions: Vec<Normed>,
    downsample: Option<Normed>,
}

impl Block {
    /// `kernels` of its convolutions. The first 3x3 has the stride: of a bottleneck that is its second
    /// convolution, as torchvision has it (v1.5), not the first, as the paper has.
    fn new(vs: &Path, kernels: &[i64], cin: i64, width: i64, cout: i64, stride: i64) -> Result<Self> {
        let downsample = (stride != 1 || cin != cout)
            .then(|| Normed::new(&(vs / "downsample"), ["0", "1"], cin, cout, 1, stride))
            .transpose()?;
        let strided = kernels.iter().position(|&k| k == 3);
        let mut convolutions = Vec::new();
        for (i, &kernel) in kernels.iter().enumerate() {
            let (from, to) =
                (if i == 0 { cin } else { width }, if i + 1 == kernels.len() { cout } else { width });
            let stride = if Some(i) == strided { stride } else { 1 };
            let (conv, bn) = (format!("conv{}", i + 1), format!("bn{}", i + 1));
            convolutions.push(Normed::new(vs, [&conv, &bn], from, to, kernel, stride)?);
        }
        Ok(Self { convolutions, downsample })
    }

    fn forward(&self, xs: &Tensor, train: bool) -> Tensor {
        let mut ys = xs.shallow_clone();
        for (i, convolution) in self.convolutions.iter().enumerate() {
            ys = convolution.forward(&ys, train);
            if i + 1 < self.convolutions.len() {
                ys = ys.relu_();
            }
        }
        match &self.downsample {
            Some(downsample) => ys += downsample.forward(xs, train),
            None => ys += xs,
        }
        ys.relu_()
    }
}

/// A ResNet: images (batch, 3, height, width) to logits (batch, classes).
#[derive(Debug)]
pub struct ResNet {
    stem: Normed,
    blocks: Vec<Block>,
    fc_weight: Tensor,
    fc_bias: Tensor,
}

impl ResNet {
    /// ResNet-18: 11,689,512 parameters with 1000 classes; 512 features.
    pub fn resnet18(vs: &Path, num_classes: i64) -> Result<Self> {
        Self::new(vs, &[3, 3], 1, [2, 2, 2, 2], num_classes)
    }

    /// ResNet-50 (v1.5): 25,557,032 parameters with 1000 classes; 2048 features.
    pub fn resnet50(vs: &Path, num_classes: i64) -> Result<Self> {
        Self::new(vs, &[1, 3, 1], 4, [3, 4, 6, 3], num_classes)
    }

    /// `depths`: blocks of each layer, whose output is `expansion` times as wide as its 3x3 convolutions.
    fn new(vs: &Path, kernels: &[i64], expansion: i64, depths: [usize; 4], classes: i64) -> Result<Self> {
        let mut blocks = Vec::new();
        let mut cin = 64;
        for ((layer, width), depth) in (1..).zip([64, 128, 256, 512]).zip(depths) {
            for block in 0..depth {
                let stride = if layer > 1 && block == 0 { 2 } else { 1 };
                let path = vs / format!("layer{layer}") / block;
                blocks.push(Block::new(&path, kernels, cin, width, width * expansion, stride)?);
                cin = width * expansion;
            }
        }
        let fc = vs / "fc";
        Ok(Self {
            stem: Normed::new(vs, ["conv1", "bn1"], 3, 64, 7, 2)?,
            blocks,
            fc_weight: fc.f_var("weight", &[classes, cin], Init::Const(0.0))?,
            fc_bias: fc.f_var("bias", &[classes], Init::Const(0.0))?,
        })
    }

    /// `train` chooses between batch and running statistics; the running ones are updated in training.
    pub fn forward_t(&self, xs: &Tensor, train: bool) -> Tensor {
        self.pooled(xs, train).linear(&self.fc_weight, Some(&self.fc_bias))
    }

    /// What the last layer sees, (batch, 512 or 2048), with running statistics.
    pub fn features(&self, xs: &Tensor) -> Tensor {
        self.pooled(xs, false)
    }

    fn pooled(&self, xs: &Tensor, train: bool) -> Tensor {
        let ys = self.stem.forward(xs, train).relu_();
        let mut ys = ys.max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false);
        for block in &self.blocks {
            ys = block.forward(&ys, train);
        }
        ys.adaptive_avg_pool2d([1, 1]).flatten(1, -1)
    }
}
