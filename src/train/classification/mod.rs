//! Classification: one of torchvision's networks with cross-entropy.

use std::path::Path;

use tch::{Kind, Reduction, Tensor, nn::VarStore};

use super::{
    FrozenFeatures, Loader, Target, TaskData, TrainingContext, TrainingTask, ValidationScore, fit,
    freeze::freeze,
};
use crate::{
    augment,
    error::Result,
    experiment::{Classification, Freeze, UpdateRule},
    nn::{
        classifier::Classifier,
        forward_mode::{ForwardMode, TrainingStep},
        init,
    },
    random,
    vocabulary::{Backbone, Label, Metric},
};

struct ClassificationTask<'a> {
    net: Classifier,
    update_rule: UpdateRule,
    seed: u64,
    hold_frozen_norms: bool,
    skipped: SkippedLayers,
    val_labels: &'a [usize],
}

/// How many layers each loader's features have passed already.
struct SkippedLayers {
    train: usize,
    val: usize,
}

impl TrainingTask for ClassificationTask<'_> {
    fn update_rule(&self) -> UpdateRule {
        self.update_rule
    }

    fn forward(&self, images: &Tensor, step: Option<u64>) -> Result<Vec<Tensor>> {
        let (skipped, mode) = match step {
            Some(step) => {
                let (seed, hold_frozen_norms) = (self.seed, self.hold_frozen_norms);
                (self.skipped.train, ForwardMode::Train(TrainingStep { seed, step, hold_frozen_norms }))
            }
            None => (self.skipped.val, ForwardMode::Eval),
        };
        Ok(vec![self.net.forward_from(skipped, images, mode)])
    }

    fn loss(&self, logits: &[Tensor], target: &Tensor) -> Result<Tensor> {
        let none = None::<&Tensor>;
        Ok(logits[0].to_kind(Kind::Float).f_cross_entropy_loss(target, none, Reduction::Mean, -100, 0.0)?)
    }

    fn score(&self, logits: Vec<Tensor>) -> Result<Vec<ValidationScore>> {
        let predicted: Vec<i64> = Tensor::cat(&logits, 0).argmax(1, false).try_into()?;
        let right = predicted.iter().zip(self.val_labels).filter(|(p, l)| **p == **l as i64).count();
        let accuracy = right as f64 / self.val_labels.len() as f64;
        Ok(vec![("", Metric::Accuracy, accuracy)])
    }
}

/// Grey to the network's three channels.
pub fn channels(settings: &Classification) -> [augment::Normalise; 3] {
    if settings.imagenet_normalise { augment::IMAGENET } else { [augment::HALF[0]; 3] }
}

/// Sets the weights that training begins with. Where a checkpoint's last layer has other classes, a new
/// `torch.nn.Linear` takes its place, as is usual when fine-tuning in PyTorch. From scratch the weights are drawn
/// as torchvision draws them.
///
/// Returns what there is to say of the checkpoint.
fn initialise(
    vs: &VarStore,
    backbone: Backbone,
    checkpoint: Option<&Path>,
    seed: u64,
) -> Result<Vec<String>> {
    match checkpoint {
        Some(file) => {
            init::fill(vs, seed, None);
            backbone.load(vs, file)
        }
        None => {
            backbone.init(vs, seed);
            Ok(Vec::new())
        }
    }
}

/// Trains `backbone` on the classes of the settings' label, from `checkpoint` (torchvision's; its last layer is used
/// only where it has as many classes) or from scratch.
pub fn classification(
    settings: &Classification,
    backbone: Backbone,
    checkpoint: Option<&Path>,
    data: &TaskData,
    seed: u64,
    context: &TrainingContext,
) -> Result<()> {
    let vs = VarStore::new(context.device);
    let mut net = backbone.build(&vs.root(), Label::classes(settings.label).len())?;
    for note in initialise(&vs, backbone, checkpoint, random::seed(seed, "classification weights", &[]))? {
        context.observer.note(&note);
    }
    context.load_start(&vs)?;
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
        batch_size: settings.recipe.batch_size,
        channels: &channels,
        seed,
        device: context.device,
        features: None,
    };
    let (mut train, mut val) = (loader(&data.train, &train_labels), loader(&data.val, &val_labels));
    // The output of held layers for an image that is not augmented is computed once.
    let once = |loader: &Loader, always_the_same: bool| match held > 0 && always_the_same {
        true => FrozenFeatures::of(loader, |images| net.held_features(images)),
        false => Ok(None),
    };
    let (train_features, val_features) = (once(&train, !settings.recipe.augment.enabled)?, once(&val, true)?);
    (train.features, val.features) = (train_features.as_ref(), val_features.as_ref());
    let skipped = SkippedLayers {
        train: if train.features.is_some() { held } else { 0 },
        val: if val.features.is_some() { held } else { 0 },
    };
    let task = ClassificationTask {
        net,
        update_rule: settings.update_rule(),
        seed,
        hold_frozen_norms: holds,
        skipped,
        val_labels: &val_labels,
    };
    fit(&vs, &task, &settings.recipe, &train, &val, context)
}

#[cfg(test)]
mod tests;
