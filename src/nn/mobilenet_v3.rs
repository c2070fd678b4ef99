//! torchvision's MobileNetV3-Small (torchvision/models/mobilenetv3.py, 0.28).
//!
//! Variable paths are torchvision's: `features.0.0.weight`, `features.1.block.1.fc1.weight`,
//! `classifier.3.bias`, …, and they are made in the order of its `parameters()`.
//!
//! Its initial weights are those of torchvision's VGG: [`init::kaiming_normal_fan_out`] for convolutions,
//! [`init::normal_hundredth`] for linear layers, biases of 0.
//!
//! [`init::kaiming_normal_fan_out`]: super::init::kaiming_normal_fan_out
//! [`init::normal_hundredth`]: super::init::normal_hundredth

use tch::{
    Tensor,
    nn::{Init, Path},
};

use super::{
    classifier::{Classifier, Layer},
    conv_norm::ConvNorm,
    forward_mode::ForwardMode,
    squeeze_excitation::{Elementwise, SqueezeExcitation},
};
use crate::error::Result;

/// Of what the last linear layer sees.
const DROPOUT: f64 = 0.2;

/// Of all batch norms.
const MOMENTUM: f64 = 0.01;
const EPS: f64 = 1e-3;

/// Width of the last linear layer's input.
const FEATURES: i64 = 1024;

/// Each block's (kernel, expanded channels, output channels, squeeze-excitation, hardswish, stride).
const BLOCKS: [(i64, i64, i64, bool, bool, i64); 11] = [
    (3, 16, 16, true, false, 2),
    (3, 72, 24, false, false, 2),
    (3, 88, 24, false, false, 1),
    (5, 96, 40, true, true, 2),
    (5, 240, 40, true, true, 1),
    (5, 240, 40, true, true, 1),
    (5, 120, 48, true, true, 1),
    (5, 144, 48, true, true, 1),
    (5, 288, 96, true, true, 2),
    (5, 576, 96, true, true, 1),
    (5, 576, 96, true, true, 1),
];

/// A convolution with its BatchNorm and activation.
fn conv_norm(vs: &Path, cin: i64, cout: i64, kernel: i64, stride: i64, groups: i64) -> Result<ConvNorm> {
    Ok(ConvNorm::new(vs, ["0", "1"], cin, cout, kernel, stride, groups)?.with_norm(MOMENTUM, EPS))
}

/// The multiple of 8 nearest to a quarter of the channels (the larger of two equally near), at least 8. torchvision
/// takes the next larger one where that is more than 10% below the quarter, which does not happen in this network.
fn squeezed(channels: i64) -> i64 {
    ((channels / 4 + 4) / 8 * 8).max(8)
}

/// An inverted residual block: 1x1 to more channels, depthwise, squeeze-excitation, 1x1 to fewer.
#[derive(Debug)]
struct MobileBlock {
    expand: Option<ConvNorm>,
    depthwise: ConvNorm,
    squeeze: Option<SqueezeExcitation>,
    project: ConvNorm,
    activation: Elementwise,
    residual: bool,
}

impl MobileBlock {
    fn forward(&self, xs: &Tensor, mode: ForwardMode) -> Tensor {
        let expanded = self.expand.as_ref().map(|expand| (self.activation)(&expand.forward(xs, mode)));
        let ys = self.depthwise.forward(expanded.as_ref().unwrap_or(xs), mode);
        let mut ys = (self.activation)(&ys);
        if let Some(squeeze) = &self.squeeze {
            ys = squeeze.forward(&ys);
        }
        let ys = self.project.forward(&ys, mode);
        if self.residual { ys + xs } else { ys }
    }
}

/// MobileNetV3-Small: 2,542,856 parameters with 1000 classes; 1024 features. Images halve five times: they need
/// more than 32 pixels a side for the last batch norms to train on a batch of one.
pub fn mobilenet_v3_small(vs: &Path, classes: i64) -> Result<Classifier> {
    mobilenet_v3_small_with(vs, DROPOUT, classes)
}

/// [`mobilenet_v3_small`] with torchvision's argument `dropout`.
pub fn mobilenet_v3_small_with(vs: &Path, dropout: f64, classes: i64) -> Result<Classifier> {
    let (features, classifier) = (vs / "features", vs / "classifier");
    let mut cin = 16;
    let stem = conv_norm(&(&features / 0), 3, cin, 3, 2, 1)?;
    let mut layers: Vec<Layer> = vec![Box::new(move |xs, mode| stem.forward(xs, mode).hardswish())];
    for (index, (kernel, width, cout, squeeze, hardswish, stride)) in (1i64..).zip(BLOCKS) {
        let vs = &features / index / "block";
        let mut children = 0..;
        let mut next = || &vs / children.next().unwrap_or(0);
        let expand = (width != cin).then(|| conv_norm(&next(), cin, width, 1, 1, 1)).transpose()?;
        let depthwise = conv_norm(&next(), width, width, kernel, stride, width)?;
        let squeeze = squeeze
            .then(|| {
                SqueezeExcitation::new(&next(), width, squeezed(width), Tensor::relu, Tensor::hardsigmoid)
            })
            .transpose()?;
        let block = MobileBlock {
            expand,
            depthwise,
            squeeze,
            project: conv_norm(&next(), width, cout, 1, 1, 1)?,
            activation: if hardswish { Tensor::hardswish } else { Tensor::relu },
            residual: stride == 1 && cin == cout,
        };
        layers.push(Box::new(move |xs, mode| block.forward(xs, mode)));
        cin = cout;
    }
    let width = 6 * cin;
    let top = conv_norm(&(&features / (BLOCKS.len() as i64 + 1)), cin, width, 1, 1, 1)?;
    layers.push(Box::new(move |xs, mode| top.forward(xs, mode).hardswish()));
    layers.push(Box::new(|xs, _| xs.adaptive_avg_pool2d([1, 1]).flatten(1, -1)));
    let first = &classifier / 0;
    let weight = first.f_var("weight", &[FEATURES, width], Init::Const(0.0))?;
    let bias = first.f_var("bias", &[FEATURES], Init::Const(0.0))?;
    layers.push(Box::new(move |xs, _| xs.linear(&weight, Some(&bias)).hardswish()));
    Classifier::new(layers, dropout, &(classifier / 3), FEATURES, classes)
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, nn::VarStore};

    use super::*;

    #[test]
    fn parameters_features_and_the_smallest_images_are_the_networks_own() {
        let vs = VarStore::new(Device::Cpu);
        let net = mobilenet_v3_small(&vs.root(), 1000).unwrap();
        let variables = vs.trainable_variables();
        assert_eq!(variables.iter().map(Tensor::numel).sum::<usize>(), 2_542_856);
        let last = &vs.variables()["classifier.3.weight"];
        assert_eq!(last.size(), [1000, FEATURES]);
        // It is made last: weights are frozen in this order.
        assert_eq!(variables[variables.len() - 2].data_ptr(), last.data_ptr());
        let images = Tensor::zeros([1, 3, 40, 40], (Kind::Float, Device::Cpu));
        tch::no_grad(|| {
            assert_eq!(net.features(&images).size(), [1, FEATURES]);
            assert_eq!(net.forward_t(&images, ForwardMode::Train(Default::default())).size(), [1, 1000]);
        });
    }

    #[test]
    fn frozen_layers_are_held() {
        let vs = VarStore::new(Device::Cpu);
        let mut net = mobilenet_v3_small(&vs.root(), 2).unwrap();
        assert_eq!(net.hold_frozen_layers(), 0);
        let variables = vs.trainable_variables();
        let freeze = |count: usize| variables[..count].iter().for_each(|v| drop(v.set_requires_grad(false)));
        // The stem, and the first block: two convolutions with their norms, and squeeze-excitation.
        freeze(3);
        assert_eq!(net.hold_frozen_layers(), 1);
        freeze(3 + 3 + 4 + 3 - 1);
        assert_eq!(net.hold_frozen_layers(), 1);
        freeze(3 + 3 + 4 + 3);
        assert_eq!(net.hold_frozen_layers(), 2);
        // All but the last linear layer: stem, blocks, top, pooling, first linear layer.
        freeze(variables.len() - 2);
        assert_eq!(net.hold_frozen_layers(), 2 + 10 + 3);
    }

    #[test]
    fn squeezed_widths_are_torchvisions() {
        for (channels, expected) in
            [(16, 8), (96, 24), (240, 64), (120, 32), (144, 40), (288, 72), (576, 144)]
        {
            assert_eq!(squeezed(channels), expected);
            assert!(10 * expected >= 9 * channels / 4);
        }
    }
}
