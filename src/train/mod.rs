//! Training: one loop, one optimizer, one checkpoint format.

mod checkpoint;
mod classification;
pub mod diffusion;
mod freeze;
mod loader;
mod optimizer;
mod parameters;
mod schedule;
mod segmentation;

use std::{path::Path, time::Instant};

use tch::{Device, Kind, Tensor, nn::VarStore};

use crate::{
    augment::AugmentRange,
    error::{AtPath, Error, Result},
    experiment::{TrainingRecipe, UpdateRule},
    nn::{tensor_file, weights},
    observer::Observer,
    results::{self, CurvePoint, TrainSummary},
    samples::Samples,
    vocabulary::{Metric, Split},
};
use checkpoint::{BestCheckpoint, Checkpoint, TrainingState};
pub use classification::{channels, classification};
pub use loader::{Batch, FrozenFeatures, Loader, Target, channels_last};
use optimizer::Optimizer;
pub use parameters::kind_of;
use parameters::{Parameters, Snapshot};
use schedule::LearningRate;
pub use segmentation::{deep_supervision_loss, dice_loss, segmentation};

/// Files of a trained network.
pub const WEIGHTS: &str = "weights.safetensors";
pub use crate::results::{CURVES, SUMMARY};

/// What a training works with that is not in its recipe. Nothing here changes the result.
pub struct TrainingContext<'a> {
    pub device: Device,
    /// Where the artifact's files go.
    pub out: &'a Path,
    /// Where checkpoints are written, and where an interrupted training finds its own.
    pub checkpoints: &'a Path,
    /// The artifact of an earlier training that this one continues.
    pub start: Option<&'a Path>,
    /// The least number of seconds between two checkpoints; 0: after every epoch (or validation).
    pub checkpoint_every: f64,
    pub observer: &'a dyn Observer,
}

impl TrainingContext<'_> {
    /// Replaces the initial weights by those of the earlier training, where there is one.
    fn load_start(&self, vs: &VarStore) -> Result<()> {
        match self.start {
            Some(artifact) => weights::load(vs, &artifact.join(WEIGHTS), |_| false).map(|_| ()),
            None => Ok(()),
        }
    }
}

/// How long a training is. It proceeds in rounds, and writes checkpoints only between them.
#[derive(Debug, Clone, Copy)]
struct TrainingLength {
    /// Optimizer steps in all, and in a round.
    steps: u64,
    round: u64,
    /// Rounds between two validations.
    validate_every: u64,
}

impl TrainingLength {
    /// A round is an epoch, or with a budget the steps between two validations.
    fn new(recipe: &TrainingRecipe, steps_per_epoch: u64) -> Self {
        match recipe.budget {
            None => Self {
                steps: recipe.epochs as u64 * steps_per_epoch,
                round: steps_per_epoch,
                validate_every: recipe.validate_every as u64,
            },
            Some(budget) => Self {
                steps: budget.steps as u64,
                round: budget.validate_every.max(1) as u64,
                validate_every: 1,
            },
        }
    }
}

/// What is done to gradients and to weights beside the optimizer's rule.
#[derive(Debug, Clone, Copy, Default)]
struct Smoothing {
    /// Greatest norm of the gradient; 0: not limited.
    clip: f64,
    /// Share of the old weights in the average, which is validated and kept; 0: no average.
    ema: f64,
}

/// (structure, metric, value).
type ValidationScore = (&'static str, Metric, f64);

/// A task's network, its loss and its figures.
trait TrainingTask {
    /// How the optimizer updates the weights.
    fn update_rule(&self) -> UpdateRule;
    /// How the weights are kept from large steps, and averaged.
    fn smoothing(&self) -> Smoothing {
        Smoothing::default()
    }
    /// Logits of a batch, in the numeric type of the images; in training, of optimizer step `step`. The first ones are the
    /// network's answer; further ones only the loss looks at.
    fn forward(&self, images: &Tensor, step: Option<u64>) -> Result<Vec<Tensor>>;
    /// The loss, f32, a mean over the batch.
    fn loss(&self, logits: &[Tensor], target: &Tensor) -> Result<Tensor>;
    /// Figures of the validation images from their logits. The checkpoint with the greatest first figure is chosen.
    fn score(&self, logits: Vec<Tensor>) -> Result<Vec<ValidationScore>>;
}

/// Trains, validates and keeps the best; continues from the checkpoint where there is one. Writes
/// weights, curves and summary.
fn fit(
    vs: &VarStore,
    task: &dyn TrainingTask,
    recipe: &TrainingRecipe,
    train: &Loader,
    val: &Loader,
    context: &TrainingContext,
) -> Result<()> {
    // Of what is not trained only the norms' statistics change.
    let frozen = |name: &str| !name.contains(".running_");
    let mut parameters = Parameters::with_frozen(vs.variables(), recipe.precision, frozen)?;
    let mut optimizer = Optimizer::new(task.update_rule(), &parameters.master);
    let mut state = TrainingState::default();
    let mut curves: Vec<CurvePoint> = Vec::new();
    let mut best: Option<Snapshot> = None;
    let smoothing = task.smoothing();
    let mut average = (smoothing.ema > 0.0).then(|| parameters.master.copy());
    let saved =
        Checkpoint::<TrainingState>::read(context.checkpoints, &parameters.master).unwrap_or_else(|damage| {
            context.observer.note(&format!("training starts afresh: {damage}"));
            None
        });
    if let Some(saved) = saved {
        parameters.restore(&saved.now)?;
        optimizer.resume(&saved.moments, saved.state.step)?;
        (state, curves, best) = (saved.state, saved.curves, saved.kept);
        if let (Some(average), Some(saved)) = (&mut average, saved.average) {
            average.f_copy_(&saved)?;
        }
    }
    let steps_per_epoch = train.steps() as u64;
    let length = TrainingLength::new(recipe, steps_per_epoch);
    let rate = LearningRate::new(recipe, length.steps, steps_per_epoch);
    let augment = AugmentRange::of(&recipe.augment);
    context.observer.begin("", length.steps, state.step);
    let mut select_metric = String::new();
    let mut written = Instant::now();
    while state.step < length.steps {
        let steps = state.step..length.steps.min(state.step + length.round);
        let mut losses = Tensor::zeros([1], (Kind::Float, context.device));
        train.train(steps.clone(), recipe.shuffle, augment.as_ref(), |batch| {
            let logits = task.forward(&batch.images.to_kind(parameters.kind()), Some(state.step))?;
            let loss = task.loss(&logits, &batch.target)?;
            let mut gradient = parameters.gradient(&loss)?;
            if smoothing.clip > 0.0 {
                limit_norm(&mut gradient, smoothing.clip)?;
            }
            optimizer.step(&parameters.master, &gradient, rate.at(state.step as usize));
            parameters.refresh();
            if let Some(average) = &mut average {
                let _ = average.f_lerp_(&parameters.master, 1.0 - averaging(smoothing.ema, state.step))?;
            }
            losses += loss.detach();
            state.step += 1;
            context.observer.advance(state.step);
            Ok(())
        })?;
        context.observer.lap();
        state.round += 1;
        let steps = (steps.end - steps.start) as f64;
        let train_loss = f64::try_from(&losses)? / steps;
        let epoch = state.step as f64 / steps_per_epoch as f64;
        if !train_loss.is_finite() {
            return Err(Error::failure(format!(
                "the training loss is {train_loss} at step {}, in epoch {}",
                state.step,
                (state.step - 1) / steps_per_epoch + 1
            ))
            .help("lower the learning_rate, or look for damaged images with `synecho data check`"));
        }
        let mut note = |split: Split, structure: &str, metric: Metric, value: f64| {
            let point = CurvePoint {
                split: split.into(),
                step: state.step,
                epoch,
                structure: structure.into(),
                metric: metric.into(),
                value,
                ..CurvePoint::default()
            };
            context.observer.curve_point(&point);
            curves.push(point);
        };
        note(Split::Train, "", Metric::Loss, train_loss);
        note(Split::Train, "", Metric::LearningRate, rate.at(state.step as usize - 1));
        let last = state.step == length.steps;
        if state.round.is_multiple_of(length.validate_every) || last {
            let now = average.as_ref().map(|average| parameters.exchange(average)).transpose()?;
            let (loss, scores) = validate(task, val, parameters.kind())?;
            let faulty = (loss * val.steps() as f64 + train_loss * steps) / val.steps() as f64;
            note(Split::Val, "", Metric::Loss, if recipe.val_loss_starts_from_train { faulty } else { loss });
            for (structure, metric, value) in &scores {
                note(Split::Val, structure, *metric, *value);
            }
            if let Some((structure, metric, value)) = scores.first() {
                select_metric = format!("{structure} {metric}").trim().to_owned();
                if value.is_finite() && state.best.is_none_or(|best| *value > best.value) {
                    state.best = Some(BestCheckpoint { step: state.step, value: *value });
                    best = Some(parameters.snapshot());
                }
            }
            if let Some(now) = now {
                let _average = parameters.exchange(&now)?;
            }
        }
        if written.elapsed().as_secs_f64() >= context.checkpoint_every || last {
            let checkpoint = Checkpoint {
                state: state.clone(),
                curves,
                now: parameters.snapshot(),
                moments: optimizer.moments().iter().map(Tensor::copy).collect(),
                kept: best,
                average,
            };
            checkpoint.write(context.checkpoints)?;
            (curves, best, average) = (checkpoint.curves, checkpoint.kept, checkpoint.average);
            written = Instant::now();
        }
    }
    if let Some(average) = &average {
        let _trained = parameters.exchange(average)?;
    }
    if select_metric.is_empty() {
        // Killed between the last checkpoint and the end: only the files are left to write.
        let (_, scores) = validate(task, val, parameters.kind())?;
        select_metric =
            scores.first().map(|(s, m, _)| format!("{s} {m}").trim().to_owned()).unwrap_or_default();
    }
    let chosen = best.unwrap_or_else(|| parameters.snapshot());
    let bytes = tensor_file::to_bytes(&parameters.named(&chosen), None)?;
    write(&context.out.join(WEIGHTS), &bytes)?;
    let before = context.start.map(EarlierTraining::read).transpose()?.unwrap_or_default();
    write(&context.out.join(CURVES), results::to_csv(&before.followed_by(curves))?.as_bytes())?;
    let before = before.summary;
    let best_step = state.best.map_or(state.step, |b| b.step);
    let epochs = |steps: u64| before.epochs + steps as f64 / steps_per_epoch as f64;
    let summary = TrainSummary {
        best_step: before.steps + best_step,
        best_epoch: epochs(best_step),
        best_value: state.best.map(|b| b.value),
        select_metric,
        parameters: parameters.count_all() as u64,
        trainable: parameters.count() as u64,
        train_images: before.train_images + train.samples.len() as u64,
        synthetic_images: before.synthetic_images + train.samples.synthetic() as u64,
        train_patients: before.train_patients.max(train.samples.patients() as u64),
        val_images: val.samples.len() as u64,
        val_patients: val.samples.patients() as u64,
        epochs: epochs(state.step),
        steps: before.steps + state.step,
        precision: recipe.precision.as_str().into(),
    };
    let text = serde_json::to_string_pretty(&summary)
        .map_err(|e| Error::failure(format!("cannot write the summary: {e}")))?;
    write(&context.out.join(SUMMARY), text.as_bytes())
}

/// The training that this one continues, as its artifact records it.
#[derive(Default)]
struct EarlierTraining {
    curves: Vec<CurvePoint>,
    summary: TrainSummary,
}

impl EarlierTraining {
    fn read(artifact: &Path) -> Result<Self> {
        let file = artifact.join(SUMMARY);
        let text = std::fs::read_to_string(&file).at_path(&file, "cannot read")?;
        let summary = serde_json::from_str(&text)
            .map_err(|e| Error::failure(format!("not a training summary: {e}")).at(&file))?;
        Ok(Self { curves: results::read_csv(&artifact.join(CURVES))?, summary })
    }

    /// One curve of both, over the steps of both.
    fn followed_by(&self, curves: Vec<CurvePoint>) -> Vec<CurvePoint> {
        let (steps, epochs) = (self.summary.steps, self.summary.epochs);
        let later = curves.into_iter().map(|point| CurvePoint {
            step: steps + point.step,
            epoch: epochs + point.epoch,
            ..point
        });
        self.curves.iter().cloned().chain(later).collect()
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).at_path(path, "cannot write")
}

/// Limits the norm of a gradient (`torch.nn.utils.clip_grad_norm_`), on the device: without waiting for the norm's value.
fn limit_norm(gradient: &mut Tensor, most: f64) -> Result<()> {
    let norm = gradient.f_norm()?;
    *gradient *= (most / (norm + 1e-6)).f_clamp_max(1.0)?;
    Ok(())
}

/// The share of the old average that step `step` keeps: less at the beginning.
fn averaging(ema: f64, step: u64) -> f64 {
    ema.min((1 + step) as f64 / (10 + step) as f64)
}

/// Mean loss over batches, and the task's figures.
fn validate(task: &dyn TrainingTask, val: &Loader, kind: Kind) -> Result<(f64, Vec<ValidationScore>)> {
    let _guard = tch::no_grad_guard();
    let mut loss = 0.0;
    let mut logits = Vec::new();
    val.in_order(|batch| {
        let images = batch.images.to_kind(kind);
        let out: Vec<Tensor> =
            task.forward(&images, None)?.into_iter().take(1).map(|out| out.to_kind(Kind::Float)).collect();
        loss += f64::try_from(task.loss(&out, &batch.target)?)?;
        logits.extend(out);
        Ok(())
    })?;
    Ok((loss / val.steps() as f64, task.score(logits)?))
}

/// Training and validation images of a task.
pub struct TaskData {
    pub train: Samples,
    pub val: Samples,
}
