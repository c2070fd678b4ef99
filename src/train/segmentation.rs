//! Segmentation networks, trained with weighted cross-entropy.

use tch::{Kind, Reduction, Tensor, nn::VarStore};

use super::{Loader, Smoothing, Target, TaskData, TrainingContext, TrainingTask, ValidationScore, fit};
use crate::{
    augment, dice,
    error::{Error, Result},
    experiment::{Segmentation, SegmentationLoss, UpdateRule},
    nn::segmenter::Segmenter,
    random,
    samples::Samples,
    vocabulary::{MASK_CLASSES, Metric, Structure},
};

struct SegmentationTask<'a> {
    net: Box<dyn Segmenter>,
    update_rule: UpdateRule,
    class_weights: Tensor,
    loss: SegmentationLoss,
    deep_supervision: usize,
    smoothing: Smoothing,
    val: &'a Samples,
    nan_poisons: bool,
}

impl TrainingTask for SegmentationTask<'_> {
    fn update_rule(&self) -> UpdateRule {
        self.update_rule
    }

    fn smoothing(&self) -> Smoothing {
        self.smoothing
    }

    fn forward(&self, images: &Tensor, step: Option<u64>) -> Result<Vec<Tensor>> {
        self.net.forward(images, if step.is_some() { self.deep_supervision } else { 1 })
    }

    fn loss(&self, logits: &[Tensor], target: &Tensor) -> Result<Tensor> {
        deep_supervision_loss(logits, target, |logits, target| {
            let logits = logits.to_kind(Kind::Float);
            let cross_entropy = cross_entropy(&logits, target, &self.class_weights)?;
            Ok(match self.loss {
                SegmentationLoss::CrossEntropy => cross_entropy,
                SegmentationLoss::DiceCrossEntropy => cross_entropy + dice_loss(&logits, target)?,
            })
        })
    }

    fn score(&self, logits: Vec<Tensor>) -> Result<Vec<ValidationScore>> {
        let mut sums = [(0.0, 0u32); 4];
        let mut i = 0;
        for batch in logits {
            let classes: Vec<u8> = batch.argmax(1, false).to_kind(Kind::Uint8).flatten(0, -1).try_into()?;
            for prediction in classes.chunks_exact(self.val.size * self.val.size) {
                let values = dice::per_structure(self.val.mask(i), prediction)?;
                for ((sum, n), value) in sums.iter_mut().zip(values) {
                    if !value.is_nan() || self.nan_poisons {
                        *sum += value;
                        *n += 1;
                    }
                }
                i += 1;
            }
        }
        let means = sums.map(|(sum, n)| sum / f64::from(n));
        let mut scores = vec![(Structure::MEAN, Metric::Dice, self.mean(&means))];
        for (structure, value) in Structure::ALL.iter().zip(means) {
            scores.push((structure.as_str(), Metric::Dice, value));
        }
        Ok(scores)
    }
}

impl SegmentationTask<'_> {
    fn mean(&self, means: &[f64; 4]) -> f64 {
        let classes = Structure::ALL.iter().zip(means).filter(|(s, _)| Structure::CLASSES.contains(s));
        if self.nan_poisons {
            return classes.map(|(_, v)| v).sum::<f64>() / Structure::CLASSES.len() as f64;
        }
        dice::mean(means)
    }
}

/// The losses of several resolutions, added up; each has half the weight of the one before, but at least a sixteenth:
/// MONAI's `DeepSupervisionLoss(loss, weight_mode="exp")` (monai/losses/ds_loss.py, 1.6.1).
///
/// `logits` are (batch, classes, height, width) each, `target` is i64 (batch, height, width).
pub fn deep_supervision_loss(
    logits: &[Tensor],
    target: &Tensor,
    loss: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let (mut total, mut weight) = (None::<Tensor>, 1.0);
    for logits in logits {
        let size = &logits.size()[2..];
        let part = if target.size()[1..] == *size {
            loss(logits, target)?
        } else {
            let planes = target.unsqueeze(1).to_kind(Kind::Float);
            let small = planes.f_internal_upsample_nearest_exact2d(size, None, None)?;
            loss(logits, &small.squeeze_dim(1).to_kind(Kind::Int64))?
        } * weight;
        total = Some(match total {
            Some(total) => total + part,
            None => part,
        });
        weight = f64::max(weight / 2.0, 0.0625);
    }
    total.ok_or_else(|| Error::failure("a network without logits has no loss"))
}

/// One minus the soft Dice of every class but the background, summed over the batch before the
/// quotient, mean over classes: MONAI's `DiceLoss(include_background=False, to_onehot_y=True,
/// softmax=True, batch=True)` (monai/losses/dice.py, 1.6.1).
///
/// `logits` is f32 (batch, classes, height, width), `target` i64 (batch, height, width).
pub fn dice_loss(logits: &Tensor, target: &Tensor) -> Result<Tensor> {
    const SMOOTH: f64 = 1e-5;
    let classes = logits.size()[1];
    let structures = Tensor::arange_start(1, classes, (Kind::Int64, logits.device())).view([1, -1, 1, 1]);
    let truth = target.unsqueeze(1).f_eq_tensor(&structures)?.to_kind(Kind::Float);
    let predicted = logits.softmax(1, Kind::Float).narrow(1, 1, classes - 1);
    let over = |t: &Tensor| t.sum_dim_intlist([0i64, 2, 3].as_slice(), false, Kind::Float);
    let shared: Tensor = over(&(&predicted * &truth)) * 2.0 + SMOOTH;
    let both: Tensor = over(&predicted) + over(&truth) + SMOOTH;
    Ok((shared / both).mean(Kind::Float) * -1.0 + 1.0)
}

/// torch.nn.CrossEntropyLoss with class weights: [N, C, H, W] logits against [N, H, W] classes; a scalar.
///
/// The mean is taken here: on CUDA libtorch's own adds the pixels up in an order that changes from run to run.
fn cross_entropy(logits: &Tensor, target: &Tensor, weights: &Tensor) -> Result<Tensor> {
    let of_pixels = logits.f_cross_entropy_loss(target, Some(weights), Reduction::None, -100, 0.0)?;
    let weight_of_pixels = weights.f_index_select(0, &target.flatten(0, -1))?;
    Ok(of_pixels.sum(Kind::Float) / weight_of_pixels.sum(Kind::Float))
}

/// Trains a network on the images and masks of `data`; writes weights, curves and summary.
pub fn segmentation(
    settings: &Segmentation,
    data: &TaskData,
    seed: u64,
    context: &TrainingContext,
) -> Result<()> {
    let vs = VarStore::new(context.device);
    let net = settings.model.build(&vs.root(), &settings.channels)?;
    settings.model.init(&vs, random::seed(seed, "segmentation weights", &[]));
    context.load_start(&vs)?;
    let loader = |samples| Loader {
        samples,
        target: Target::Masks,
        batch_size: settings.recipe.batch_size,
        channels: &augment::HALF,
        seed,
        device: context.device,
        features: None,
    };
    let (train, val) = (loader(&data.train), loader(&data.val));
    let weights: Vec<f32> = settings.class_weights.iter().map(|&w| w as f32).collect();
    debug_assert_eq!(weights.len(), MASK_CLASSES);
    let task = SegmentationTask {
        net,
        update_rule: settings.update_rule(),
        class_weights: Tensor::from_slice(&weights).to_device(context.device),
        loss: settings.loss,
        deep_supervision: settings.deep_supervision,
        smoothing: Smoothing { clip: settings.clip, ema: settings.ema },
        val: &data.val,
        nan_poisons: settings.nan_poisons_dice,
    };
    fit(&vs, &task, &settings.recipe, &train, &val, context)
}
