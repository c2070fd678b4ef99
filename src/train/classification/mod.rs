//! Classification: one of torchvision's networks with cross-entropy.

use std::path::Path;

use tch::{Kind, Reduction, Tensor, nn::VarStore};

use super::{
    Features, Length, Loader, Recipe, Rule, Score, Setting, Target, Task, TaskData, fit, freeze::freeze,
    schedule::LearningRate,
};
use crate::{
    augment::{self, AugmentRange},
    error::Result,
    experiment::{Classification, Freeze},
    nn::{
        classifier::Classifier,
        forward_mode::{ForwardMode, TrainingStep},
        init,
    },
    random,
    vocabulary::{Backbone, Label},
};

struct ClassificationTask<'a> {
    net: Classifier,
    seed: u64,
    hold_frozen_norms: bool,
    /// How many layers the loaders' features have behind them.
    done: Done,
    val_labels: &'a [usize],
}

struct Done {
    train: usize,
    val: usize,
}

impl Task for ClassificationTask<'_> {
    fn forward(&self, images: &Tensor, step: Option<u64>) -> Tensor {
        let (done, mode) = match step {
            Some(step) => {
                let (seed, hold_frozen_norms) = (self.seed, self.hold_frozen_norms);
                (self.done.train, ForwardMode::Train(TrainingStep { seed, step, hold_frozen_norms }))
            }
            None => (self.done.val, ForwardMode::Eval),
        };
        self.net.forward_from(done, images, mode)
    }

    fn loss(&self, logits: &Tensor, target: &Tensor) -> Result<Tensor> {
        let none = None::<&Tensor>;
        Ok(logits.to_kind(Kind::Float).f_cross_entropy_loss(target, none, Reduction::Mean, -100, 0.0)?)
    }

    fn score(&self, logits: Vec<Tensor>) -> Result<Vec<Score>> {
        let predicted: Vec<i64> = Tensor::cat(&logits, 0).argmax(1, false).try_into()?;
        let right = predicted.iter().zip(self.val_labels).filter(|(p, l)| **p == **l as i64).count();
        let accuracy = right as f64 / self.val_labels.len() as f64;
        Ok(vec![(String::new(), "accuracy".into(), accuracy)])
    }
}

/// Grey to the network's three channels.
pub fn channels(settings: &Classification) -> [augment::Normalise; 3] {
    if settings.imagenet_normalise { augment::IMAGENET } else { [augment::HALF[0]; 3] }
}

/// The weights that training begins with. From a checkpoint, a last layer of other classes is a new
/// `torch.nn.Linear`, as who fine-tunes in PyTorch puts one there; from scratch it is as torchvision draws it.
fn start(vs: &VarStore, backbone: Backbone, checkpoint: Option<&Path>, seed: u64) -> Result<()> {
    match checkpoint {
        Some(file) => {
            init::fill(vs, seed, None);
            backbone.load(vs, file)
        }
        None => {
            backbone.init(vs, seed);
            Ok(())
        }
    }
}

/// Trains `backbone` to tell `label`'s classes apart, from `weights` (a torchvision checkpoint; its
/// last layer is taken only where it has as many classes) or from scratch.
pub fn classification(
    settings: &Classification,
    backbone: Backbone,
    checkpoint: Option<&Path>,
    data: &TaskData,
    seed: u64,
    setting: &Setting,
) -> Result<()> {
    let vs = VarStore::new(setting.device);
    let mut net = backbone.build(&vs.root(), Label::classes(settings.label).len())?;
    start(&vs, backbone, checkpoint, random::seed(seed, "classification weights", &[]))?;
    setting.take_up(&vs)?;
    let freezes = settings.trainable_parameters > 0;
    if freezes {
        freeze(&vs, settings.trainable_parameters, settings.freeze);
    }
    let holds = freezes && settings.freeze == Freeze::Exact;
    let held = if holds { net.hold_frozen_layers() } else { 0 };
    let channels = channels(settings);
    let (train_labels, val_labels) = (data.train.labels(settings.label), data.val.labels(settings.label));
    let loader = |samples, labels| Loader {
        samples,
        target: Target::Labels(labels),
        batch_size: settings.batch_size,
        channels: &channels,
        seed,
        device: setting.device,
        features: None,
    };
    let (mut train, mut val) = (loader(&data.train, &train_labels), loader(&data.val, &val_labels));
    let s = settings;
    let length = Length::of(s.budget, s.epochs, s.validate_every, train.steps());
    let augment = AugmentRange::of(&s.augment);
    // What held layers give for an image that is not augmented is computed once.
    let once = |loader: &Loader, always_the_same: bool| match held > 0 && always_the_same {
        true => Features::of(loader, |images| net.held_features(images)),
        false => Ok(None),
    };
    let (train_features, val_features) = (once(&train, augment.is_none())?, once(&val, true)?);
    (train.features, val.features) = (train_features.as_ref(), val_features.as_ref());
    let done = Done {
        train: if train.features.is_some() { held } else { 0 },
        val: if val.features.is_some() { held } else { 0 },
    };
    let task = ClassificationTask { net, seed, hold_frozen_norms: holds, done, val_labels: &val_labels };
    let recipe = Recipe {
        length,
        rate: LearningRate {
            schedule: s.schedule,
            start: s.learning_rate,
            end: s.final_learning_rate,
            warmup_steps: s.warmup_steps,
            steps: length.steps as usize,
            steps_per_epoch: train.steps(),
        },
        rule: Rule::Sgd { momentum: s.momentum, weight_decay: s.weight_decay },
        precision: s.precision,
        shuffle: s.shuffle,
        augment,
        val_loss_starts_from_train: s.val_loss_starts_from_train,
    };
    fit(&vs, &task, &recipe, &train, &val, setting)
}

#[cfg(test)]
mod tests;
