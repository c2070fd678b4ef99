//! torchvision's ResNets (torchvision/models/resnet.py, 0.28).
//!
//! Variable paths are torchvision's: `conv1.weight`, `layer1.0.bn1.running_mean`, `fc.bias`, …, and they
//! are made in the order of its `parameters()`.

use tch::{Tensor, nn::Path};

use super::{
    classifier::{Classifier, Layer},
    conv_norm::ConvNorm,
    forward_mode::ForwardMode,
};
use crate::error::Result;

/// A residual block: two 3x3 convolutions, or (a bottleneck) 1x1, 3x3, 1x1.
#[derive(Debug)]
struct ResidualBlock {
    convolutions: Vec<ConvNorm>,
    downsample: Option<ConvNorm>,
}

impl ResidualBlock {
    /// `kernels` of its convolutions. The first 3x3 has the stride: of a bottleneck that is its second
    /// convolution, as torchvision has it (v1.5), not the first, as the paper has.
    fn new(vs: &Path, kernels: &[i64], cin: i64, width: i64, cout: i64, stride: i64) -> Result<Self> {
        let strided = kernels.iter().position(|&k| k == 3);
        let mut convolutions = Vec::new();
        for (i, &kernel) in kernels.iter().enumerate() {
            let (from, to) =
                (if i == 0 { cin } else { width }, if i + 1 == kernels.len() { cout } else { width });
            let stride = if Some(i) == strided { stride } else { 1 };
            let (conv, bn) = (format!("conv{}", i + 1), format!("bn{}", i + 1));
            convolutions.push(ConvNorm::new(vs, [&conv, &bn], from, to, kernel, stride, 1)?);
        }
        let downsample = (stride != 1 || cin != cout)
            .then(|| ConvNorm::new(&(vs / "downsample"), ["0", "1"], cin, cout, 1, stride, 1))
            .transpose()?;
        Ok(Self { convolutions, downsample })
    }

    fn forward(&self, xs: &Tensor, mode: ForwardMode) -> Tensor {
        let mut ys = xs.shallow_clone();
        for (i, convolution) in self.convolutions.iter().enumerate() {
            ys = convolution.forward(&ys, mode);
            if i + 1 < self.convolutions.len() {
                ys = ys.relu_();
            }
        }
        match &self.downsample {
            Some(downsample) => ys += downsample.forward(xs, mode),
            None => ys += xs,
        }
        ys.relu_()
    }
}

/// ResNet-18: 11,689,512 parameters with 1000 classes; 512 features.
pub fn resnet18(vs: &Path, classes: i64) -> Result<Classifier> {
    resnet(vs, &[3, 3], 1, [2, 2, 2, 2], classes)
}

/// ResNet-50 (v1.5): 25,557,032 parameters with 1000 classes; 2048 features.
pub fn resnet50(vs: &Path, classes: i64) -> Result<Classifier> {
    resnet(vs, &[1, 3, 1], 4, [3, 4, 6, 3], classes)
}

/// `depths`: blocks of each layer, whose output is `expansion` times as wide as its 3x3 convolutions.
fn resnet(
    vs: &Path,
    kernels: &[i64],
    expansion: i64,
    depths: [usize; 4],
    classes: i64,
) -> Result<Classifier> {
    let stem = ConvNorm::new(vs, ["conv1", "bn1"], 3, 64, 7, 2, 1)?;
    let mut layers: Vec<Layer> = vec![
        Box::new(move |xs, mode| stem.forward(xs, mode).relu_()),
        Box::new(|xs, _| xs.max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)),
    ];
    let mut cin = 64;
    for ((layer, width), depth) in (1..).zip([64, 128, 256, 512]).zip(depths) {
        for block in 0..depth {
            let stride = if layer > 1 && block == 0 { 2 } else { 1 };
            let path = vs / format!("layer{layer}") / block;
            let block = ResidualBlock::new(&path, kernels, cin, width, width * expansion, stride)?;
            layers.push(Box::new(move |xs, mode| block.forward(xs, mode)));
            cin = width * expansion;
        }
    }
    layers.push(Box::new(|xs, _| xs.adaptive_avg_pool2d([1, 1]).flatten(1, -1)));
    Classifier::new(layers, 0.0, &(vs / "fc"), cin, classes)
}
