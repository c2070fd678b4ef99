//! torchvision's VGGs without batch norms (torchvision/models/vgg.py, 0.28).
//!
//! Variable paths are torchvision's: `features.0.weight`, `classifier.6.bias`, …, and they are made in the
//! order of its `parameters()`.

use tch::{
    Tensor,
    nn::{Init, Path},
};

use super::classifier::{Classifier, Layer};
use crate::error::Result;

/// Of what the second and the last linear layer see.
const DROPOUT: f64 = 0.5;

/// VGG-16 (configuration D): 138,357,544 parameters with 1000 classes; 4096 features.
pub fn vgg16(vs: &Path, classes: i64) -> Result<Classifier> {
    vgg(vs, [2, 2, 3, 3, 3], classes)
}

/// VGG-19 (configuration E): 143,667,240 parameters with 1000 classes; 4096 features.
pub fn vgg19(vs: &Path, classes: i64) -> Result<Classifier> {
    vgg(vs, [2, 2, 4, 4, 4], classes)
}

fn weights(vs: &Path, shape: &[i64]) -> Result<(Tensor, Tensor)> {
    Ok((vs.f_var("weight", shape, Init::Const(0.0))?, vs.f_var("bias", &shape[..1], Init::Const(0.0))?))
}

/// `depths`: convolutions of each level; a max-pooling ends each, so images need 32 pixels a side.
fn vgg(vs: &Path, depths: [usize; 5], classes: i64) -> Result<Classifier> {
    let (features, classifier) = (vs / "features", vs / "classifier");
    let mut layers: Vec<Layer> = Vec::new();
    // torchvision counts the ReLUs and the poolings too.
    let (mut cin, mut index) = (3, 0);
    for (width, depth) in [64, 128, 256, 512, 512].into_iter().zip(depths) {
        for _ in 0..depth {
            let (weight, bias) = weights(&(&features / index), &[width, cin, 3, 3])?;
            layers.push(Box::new(move |xs, _| {
                xs.conv2d(&weight, Some(&bias), [1, 1], [1, 1], [1, 1], 1).relu_()
            }));
            (cin, index) = (width, index + 2);
        }
        layers.push(Box::new(|xs, _| xs.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false)));
        index += 1;
    }
    layers.push(Box::new(|xs, _| xs.adaptive_avg_pool2d([7, 7]).flatten(1, -1)));
    let (weight, bias) = weights(&(&classifier / 0), &[4096, cin * 7 * 7])?;
    layers.push(Box::new(move |xs, _| xs.linear(&weight, Some(&bias)).relu_()));
    let (weight, bias) = weights(&(&classifier / 3), &[4096, 4096])?;
    // Dropout stands with the layer after it: where that is frozen, so is what it sees.
    let place = layers.len() as u64;
    layers.push(Box::new(move |xs, mode| {
        mode.dropout(xs, DROPOUT, place).linear(&weight, Some(&bias)).relu_()
    }));
    Classifier::new(layers, DROPOUT, &(classifier / 6), 4096, classes)
}
