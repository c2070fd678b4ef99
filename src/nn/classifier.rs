//! What all classification networks are: layers one after the other, then a linear one.

use tch::{
    Kind, Tensor,
    nn::{Init, Path},
};

use super::forward_mode::ForwardMode;
use crate::error::Result;

/// A step of the way from images to features.
pub(super) type Layer = Box<dyn Fn(&Tensor, ForwardMode) -> Tensor + Send>;

/// Images (batch, 3, height, width) to logits (batch, classes).
pub struct Classifier {
    layers: Vec<Layer>,
    /// Of the features, before the last layer.
    dropout: f64,
    weight: Tensor,
    bias: Tensor,
    /// Leading layers that are run as in evaluation in training too.
    held: usize,
}

impl std::fmt::Debug for Classifier {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "Classifier of {} layers, {:?} last", self.layers.len(), self.weight.size())
    }
}

impl Classifier {
    /// `layers` to (batch, `features`), and a linear layer at `last`.
    pub(super) fn new(
        layers: Vec<Layer>,
        dropout: f64,
        last: &Path,
        features: i64,
        classes: i64,
    ) -> Result<Self> {
        let weight = last.f_var("weight", &[classes, features], Init::Const(0.0))?;
        let bias = last.f_var("bias", &[classes], Init::Const(0.0))?;
        Ok(Self { layers, dropout, weight, bias, held: 0 })
    }

    /// The logits.
    pub fn forward_t(&self, images: &Tensor, mode: ForwardMode) -> Tensor {
        self.forward_from(0, images, mode)
    }

    /// The logits, from what the first `layers` layers gave.
    pub fn forward_from(&self, layers: usize, xs: &Tensor, mode: ForwardMode) -> Tensor {
        let features = self.run(layers..self.layers.len(), xs, mode);
        let place = self.layers.len() as u64;
        mode.dropout(&features, self.dropout, place).linear(&self.weight, Some(&self.bias))
    }

    /// What the last layer sees, (batch, features), in evaluation.
    pub fn features(&self, images: &Tensor) -> Tensor {
        self.run(0..self.layers.len(), images, ForwardMode::Eval)
    }

    /// From now on the leading layers of which nothing is trained are run as in evaluation, so that what they
    /// give for an image never changes. Returns how many these are.
    pub fn hold_frozen_layers(&mut self) -> usize {
        // Autograd knows: what comes out depends on no trained variable.
        let mut xs = Tensor::zeros([1, 3, 64, 64], (Kind::Float, self.weight.device()));
        let frozen = |layer: &&Layer| {
            xs = layer(&xs, ForwardMode::Eval);
            !xs.requires_grad()
        };
        self.held = self.layers.iter().take_while(frozen).count();
        self.held
    }

    /// What the held layers give.
    pub fn held_features(&self, images: &Tensor) -> Tensor {
        tch::no_grad(|| self.run(0..self.held, images, ForwardMode::Eval))
    }

    fn run(&self, layers: std::ops::Range<usize>, xs: &Tensor, mode: ForwardMode) -> Tensor {
        layers.fold(xs.shallow_clone(), |xs, i| {
            self.layers[i](&xs, if i < self.held { ForwardMode::Eval } else { mode })
        })
    }
}
