//! Whether a classifier is trained or used, and what it leaves out at random in training.
//!
//! Masks are drawn here, not by libtorch's generator, whose state cannot be saved: from (seed, step,
//! layer), so that a training goes on exactly where it was killed.

use rand::Rng;
use tch::Tensor;

use crate::random;

/// What batch norms, dropout and stochastic depth go by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ForwardMode {
    /// Running statistics; nothing is left out.
    Eval,
    /// Statistics of the batch, which move the running ones.
    Train(TrainingStep),
}

/// An optimizer step, for which masks are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TrainingStep {
    pub seed: u64,
    pub step: u64,
    /// Batch norms whose weights are frozen are run as in [`ForwardMode::Eval`].
    pub hold_frozen_norms: bool,
}

impl ForwardMode {
    /// `torch.nn.Dropout(p)`. `place` tells the layers of a network apart.
    pub fn dropout(self, xs: &Tensor, p: f64, place: u64) -> Tensor {
        self.without(xs, p, "dropout", place, &xs.size())
    }

    /// torchvision's `StochasticDepth(p, "row")`: `xs`, a residual branch, of some images of the batch.
    pub fn stochastic_depth(self, xs: &Tensor, p: f64, place: u64) -> Tensor {
        let mut shape = vec![1; xs.dim()];
        shape[0] = xs.size()[0];
        self.without(xs, p, "stochastic depth", place, &shape)
    }

    /// `xs` times a mask of this shape: 0 with probability `p`, otherwise 1 / (1 - p).
    fn without(self, xs: &Tensor, p: f64, purpose: &str, place: u64, shape: &[i64]) -> Tensor {
        let Self::Train(TrainingStep { seed, step, .. }) = self else { return xs.shallow_clone() };
        if p == 0.0 {
            return xs.shallow_clone();
        }
        let mut rng = random::rng(seed, purpose, &[step, place]);
        let kept = (1.0 / (1.0 - p)) as f32;
        let mask: Vec<f32> = (0..shape.iter().product::<i64>())
            .map(|_| if rng.random::<f64>() < p { 0.0 } else { kept })
            .collect();
        xs * Tensor::from_slice(&mask).view(shape).to_device(xs.device()).to_kind(xs.kind())
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    fn values(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor.flatten(0, -1)).unwrap()
    }

    #[test]
    fn masks_come_from_seed_step_and_place_alone_and_keep_the_mean() {
        let xs = Tensor::ones([32, 1000], (Kind::Float, Device::Cpu));
        let at = |seed, step, place| {
            values(
                &ForwardMode::Train(TrainingStep { seed, step, ..TrainingStep::default() })
                    .dropout(&xs, 0.2, place),
            )
        };
        let mask = at(1, 2, 3);
        tch::manual_seed(9);
        assert_eq!(mask, at(1, 2, 3));
        for other in [at(0, 2, 3), at(1, 0, 3), at(1, 2, 0)] {
            assert_ne!(mask, other);
        }
        assert!(mask.iter().all(|&v| v == 0.0 || v == 1.25));
        let mean = mask.iter().sum::<f32>() / mask.len() as f32;
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
        assert_eq!(values(&ForwardMode::Eval.dropout(&xs, 0.2, 3)), values(&xs));
    }

    #[test]
    fn stochastic_depth_leaves_out_whole_images() {
        let xs = Tensor::ones([64, 3, 2, 2], (Kind::Float, Device::Cpu));
        let ys = values(&ForwardMode::Train(TrainingStep::default()).stochastic_depth(&xs, 0.5, 0));
        let images: Vec<&[f32]> = ys.chunks_exact(12).collect();
        assert!(images.iter().all(|image| image.iter().all(|v| *v == image[0])));
        let dropped = images.iter().filter(|image| image[0] == 0.0).count();
        assert!((16..48).contains(&dropped), "{dropped} of 64");
    }
}
