//! torchvision's EfficientNet-B0 (torchvision/models/efficientnet.py, 0.28).
//!
//! Variable paths are torchvision's: `features.0.0.weight`, `features.1.0.block.1.fc1.weight`,
//! `classifier.1.bias`, …, and they are made in the order of its `parameters()`.

use tch::{Tensor, nn::Path};

use super::{
    classifier::{Classifier, Layer},
    conv_norm::ConvNorm,
    forward_mode::ForwardMode,
    squeeze_excitation::SqueezeExcitation,
};
use crate::error::Result;

/// Each stage's (expansion, kernel, stride of its first block, channels, blocks).
const STAGES: [(i64, i64, i64, i64, u64); 7] = [
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
];

/// An inverted residual block (`MBConv`): 1x1 to more channels, depthwise, squeeze-excitation, 1x1 to fewer.
#[derive(Debug)]
struct InvertedResidual {
    expand: Option<ConvNorm>,
    depthwise: ConvNorm,
    squeeze: SqueezeExcitation,
    project: ConvNorm,
    /// Probability of leaving the block out; None where it is no residual one.
    residual: Option<f64>,
    /// Its number in the network.
    place: u64,
}

impl InvertedResidual {
    fn forward(&self, xs: &Tensor, mode: ForwardMode) -> Tensor {
        let expanded = self.expand.as_ref().map(|expand| expand.forward(xs, mode).silu());
        let ys = self.depthwise.forward(expanded.as_ref().unwrap_or(xs), mode).silu();
        let ys = self.project.forward(&self.squeeze.forward(&ys), mode);
        match self.residual {
            Some(p) => mode.stochastic_depth(&ys, p, self.place) + xs,
            None => ys,
        }
    }
}

/// EfficientNet-B0: 5,288,548 parameters with 1000 classes; 1280 features.
pub fn efficientnet_b0(vs: &Path, classes: i64) -> Result<Classifier> {
    efficientnet_b0_with(vs, 0.2, 0.2, classes)
}

/// [`efficientnet_b0`] with torchvision's arguments `dropout` and `stochastic_depth_prob`, which rises from
/// 0 at the first block to almost this at the last.
pub fn efficientnet_b0_with(
    vs: &Path,
    dropout: f64,
    stochastic_depth: f64,
    classes: i64,
) -> Result<Classifier> {
    let features = vs / "features";
    let stem = ConvNorm::new(&(&features / 0), ["0", "1"], 3, 32, 3, 2, 1)?;
    let mut layers: Vec<Layer> = vec![Box::new(move |xs, mode| stem.forward(xs, mode).silu())];
    let blocks: u64 = STAGES.iter().map(|stage| stage.4).sum();
    let (mut cin, mut place) = (32, 0);
    for (stage, (expansion, kernel, first_stride, cout, depth)) in (1..).zip(STAGES) {
        for i in 0..depth {
            let vs = &features / stage / i as i64 / "block";
            let stride = if i == 0 { first_stride } else { 1 };
            let width = cin * expansion;
            let expand = (width != cin)
                .then(|| ConvNorm::new(&(&vs / 0), ["0", "1"], cin, width, 1, 1, 1))
                .transpose()?;
            let next = i64::from(expand.is_some());
            let block = InvertedResidual {
                expand,
                depthwise: ConvNorm::new(&(&vs / next), ["0", "1"], width, width, kernel, stride, width)?,
                squeeze: SqueezeExcitation::new(
                    &(&vs / (next + 1)),
                    width,
                    cin / 4,
                    Tensor::silu,
                    Tensor::sigmoid,
                )?,
                project: ConvNorm::new(&(&vs / (next + 2)), ["0", "1"], width, cout, 1, 1, 1)?,
                residual: (stride == 1 && cin == cout)
                    .then_some(stochastic_depth * place as f64 / blocks as f64),
                place,
            };
            layers.push(Box::new(move |xs, mode| block.forward(xs, mode)));
            (cin, place) = (cout, place + 1);
        }
    }
    let top = ConvNorm::new(&(&features / 8), ["0", "1"], cin, 4 * cin, 1, 1, 1)?;
    layers.push(Box::new(move |xs, mode| top.forward(xs, mode).silu()));
    layers.push(Box::new(|xs, _| xs.adaptive_avg_pool2d([1, 1]).flatten(1, -1)));
    Classifier::new(layers, dropout, &(vs / "classifier" / 1), 4 * cin, classes)
}
