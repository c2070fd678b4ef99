//! torchvision's VGGs without batch norms (torchvision/models/vgg.py, 0.28).
//!
//! Variable paths are torchvision's: `features.0.weight`, `classifier.6.bias`, …, and they are made in the
//! order of its `parameters()`.

use tch::{
    Kind, Tensor,
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

/// `AdaptiveAvgPool2d(7)`. As products with matrices of means: libtorch's own adds its gradient up in an order that
/// changes from run to run on CUDA.
fn pooled(xs: &Tensor) -> Tensor {
    let size = xs.size();
    let means = |from: i64| {
        let mut means = vec![0f32; (7 * from) as usize];
        for (i, row) in means.chunks_exact_mut(from as usize).enumerate() {
            let i = i as i64;
            let (start, end) = (i * from / 7, ((i + 1) * from + 6) / 7);
            row[start as usize..end as usize].fill(1.0 / (end - start) as f32);
        }
        Tensor::from_slice(&means).view([7, from]).to_device(xs.device())
    };
    let (height, width) = (size[2], size[3]);
    if (height, width) == (7, 7) {
        return xs.shallow_clone(); // 224 px: each mean is of one value
    }
    let ys = means(height).matmul(&xs.to_kind(Kind::Float)).matmul(&means(width).transpose(0, 1));
    ys.to_kind(xs.kind())
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
    layers.push(Box::new(|xs, _| pooled(xs).flatten(1, -1)));
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

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn means_are_those_of_libtorch_at_any_size() {
        for (height, width) in [(1, 2), (7, 7), (8, 7), (9, 10), (14, 5)] {
            let xs = Tensor::randn([2, 3, height, width], (Kind::Float, Device::Cpu));
            let apart: Tensor = pooled(&xs) - xs.adaptive_avg_pool2d([7, 7]);
            assert!(apart.abs().max().double_value(&[]) < 1e-6, "{height} x {width}: {apart:?}");
        }
    }
}
