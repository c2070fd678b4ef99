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
    experiment::Budget,
    nn::{tensor_file, weights},
    progress::Progress,
    results::{self, CurvePoint, TrainSummary},
    samples::Samples,
    vocabulary::Precision,
};
use checkpoint::{Best, Checkpoint, Standing};
pub use classification::{channels, classification};
pub use loader::{Batch, Features, Loader, Target, channels_last};
use optimizer::{Optimizer, Rule};
use parameters::{Parameters, Snapshot};
use schedule::LearningRate;
pub use segmentation::{dice_loss, segmentation};

/// Files of a trained network.
pub const WEIGHTS: &str = "weights.safetensors";
pub use crate::results::{CURVES, SUMMARY};

/// Where and how a stage is worked on; decides nothing of its result.
pub struct Setting<'a> {
    pub device: Device,
    /// Where the artifact's files go.
    pub out: &'a Path,
    /// Where checkpoints go, and are looked for.
    pub checkpoints: &'a Path,
    /// The artifact of an earlier training that this one goes on from.
    pub start: Option<&'a Path>,
    /// Seconds between two checkpoints, at least; 0: after every epoch (or validation).
    pub checkpoint_every: f64,
    pub progress: &'a Progress,
    pub label: &'a str,
    /// For a stopwatch: called after each epoch's last optimizer step, before validation; of a
    /// generator, which has no epochs, after each step.
    pub lap: &'a dyn Fn(),
}

impl Setting<'_> {
    /// Puts the weights of an earlier training, where there is one, in place of those that training begins with.
    fn take_up(&self, vs: &VarStore) -> Result<()> {
        match self.start {
            Some(artifact) => weights::load(vs, &artifact.join(WEIGHTS), |_| false),
            None => Ok(()),
        }
    }
}

/// What a task asks of the loop.
struct Recipe {
    length: Length,
    rate: LearningRate,
    rule: Rule,
    precision: Precision,
    shuffle: bool,
    augment: Option<AugmentRange>,
    /// Fault: the validation loss is summed on top of the epoch's training loss.
    val_loss_starts_from_train: bool,
}

/// How long training goes on. It is worked on in rounds, with checkpoints between them alone.
#[derive(Debug, Clone, Copy)]
struct Length {
    /// Optimizer steps in all, and in a round.
    steps: u64,
    round: u64,
    /// Rounds between two validations.
    validate_every: u64,
}

impl Length {
    /// Rounds are epochs, or with a budget what lies between two validations.
    fn of(budget: Option<Budget>, epochs: usize, validate_every: usize, steps_per_epoch: usize) -> Self {
        let of_epoch = steps_per_epoch as u64;
        match budget {
            None => Self {
                steps: epochs as u64 * of_epoch,
                round: of_epoch,
                validate_every: validate_every as u64,
            },
            Some(budget) => Self {
                steps: budget.steps as u64,
                round: budget.validate_every.max(1) as u64,
                validate_every: 1,
            },
        }
    }
}

/// (structure, metric, value).
type Score = (String, String, f64);

/// A task's network and what is asked of it.
trait Task {
    /// Logits of a batch, in the numeric type of the images; in training, of optimizer step `step`.
    fn forward(&self, images: &Tensor, step: Option<u64>) -> Tensor;
    /// The loss, f32, a mean over the batch.
    fn loss(&self, logits: &Tensor, target: &Tensor) -> Result<Tensor>;
    /// Figures of the validation images from their logits: (structure, metric, value); the first is
    /// what the checkpoint is chosen by, the greater the better.
    fn score(&self, logits: Vec<Tensor>) -> Result<Vec<Score>>;
}

/// Trains, validates and keeps the best; goes on from the checkpoint where there is one. Writes
/// weights, curves and summary.
fn fit(
    vs: &VarStore,
    task: &dyn Task,
    recipe: &Recipe,
    train: &Loader,
    val: &Loader,
    setting: &Setting,
) -> Result<()> {
    // Of what is not trained only the norms' statistics change.
    let frozen = |name: &str| !name.contains(".running_");
    let mut parameters = Parameters::with_frozen(vs.variables(), recipe.precision, frozen)?;
    let mut optimizer = Optimizer::new(recipe.rule, &parameters.master);
    let mut standing = Standing::default();
    let mut curves: Vec<CurvePoint> = Vec::new();
    let mut best: Option<Snapshot> = None;
    let saved =
        Checkpoint::<Standing>::read(setting.checkpoints, &parameters.master).unwrap_or_else(|damage| {
            setting.progress.line(format!("training starts afresh: {damage}"));
            None
        });
    if let Some(saved) = saved {
        parameters.restore(&saved.now)?;
        optimizer.resume(&saved.moments, saved.standing.step)?;
        (standing, curves, best) = (saved.standing, saved.curves, saved.kept);
    }
    let (length, of_epoch) = (recipe.length, train.steps() as u64);
    let bar = setting.progress.bar(length.steps, setting.label, "steps");
    bar.resume_at(standing.step);
    let mut select_metric = String::new();
    let mut written = Instant::now();
    while standing.step < length.steps {
        let steps = standing.step..length.steps.min(standing.step + length.round);
        let mut losses = Tensor::zeros([1], (Kind::Float, setting.device));
        train.train(steps.clone(), recipe.shuffle, recipe.augment.as_ref(), |batch| {
            let logits = task.forward(&batch.images.to_kind(parameters.kind()), Some(standing.step));
            let loss = task.loss(&logits, &batch.target)?;
            let gradient = parameters.gradient(&loss)?;
            optimizer.step(&parameters.master, &gradient, recipe.rate.at(standing.step as usize));
            parameters.refresh();
            losses += loss.detach();
            standing.step += 1;
            bar.inc(1);
            Ok(())
        })?;
        (setting.lap)();
        standing.round += 1;
        let steps = (steps.end - steps.start) as f64;
        let train_loss = f64::try_from(&losses)? / steps;
        let epoch = standing.step as f64 / of_epoch as f64;
        if !train_loss.is_finite() {
            return Err(Error::failure(format!(
                "the training loss is {train_loss} at step {}, in epoch {}",
                standing.step,
                (standing.step - 1) / of_epoch + 1
            ))
            .help("lower the learning_rate, or look for damaged images with `synecho data check`"));
        }
        bar.message(format!("loss {train_loss:.4}"));
        let mut note = |split: &str, structure: &str, metric: &str, value: f64| {
            curves.push(CurvePoint {
                split: split.into(),
                step: standing.step,
                epoch,
                structure: structure.into(),
                metric: metric.into(),
                value,
                ..CurvePoint::default()
            });
        };
        note("train", "", "loss", train_loss);
        note("train", "", "learning_rate", recipe.rate.at(standing.step as usize - 1));
        let last = standing.step == length.steps;
        if standing.round.is_multiple_of(length.validate_every) || last {
            let (loss, scores) = validate(task, val, parameters.kind())?;
            let faulty = (loss * val.steps() as f64 + train_loss * steps) / val.steps() as f64;
            note("val", "", "loss", if recipe.val_loss_starts_from_train { faulty } else { loss });
            for (structure, metric, value) in &scores {
                note("val", structure, metric, *value);
            }
            if let Some((structure, metric, value)) = scores.first() {
                select_metric = format!("{structure} {metric}").trim().to_owned();
                bar.message(format!("loss {train_loss:.4} {select_metric} {value:.4}"));
                if value.is_finite() && standing.best.is_none_or(|best| *value > best.value) {
                    standing.best = Some(Best { step: standing.step, value: *value });
                    best = Some(parameters.snapshot());
                }
            }
        }
        if written.elapsed().as_secs_f64() >= setting.checkpoint_every || last {
            let checkpoint = Checkpoint {
                standing: standing.clone(),
                curves,
                now: parameters.snapshot(),
                moments: optimizer.moments().iter().map(Tensor::copy).collect(),
                kept: best,
            };
            checkpoint.write(setting.checkpoints)?;
            (curves, best) = (checkpoint.curves, checkpoint.kept);
            written = Instant::now();
        }
    }
    if select_metric.is_empty() {
        // Killed between the last checkpoint and the end: only the files are left to write.
        let (_, scores) = validate(task, val, parameters.kind())?;
        select_metric =
            scores.first().map(|(s, m, _)| format!("{s} {m}").trim().to_owned()).unwrap_or_default();
    }
    let chosen = best.unwrap_or_else(|| parameters.snapshot());
    let bytes = tensor_file::to_bytes(&parameters.named(&chosen), None)?;
    write(&setting.out.join(WEIGHTS), &bytes)?;
    let before = setting.start.map(Earlier::read).transpose()?.unwrap_or_default();
    write(&setting.out.join(CURVES), results::to_csv(&before.followed_by(curves))?.as_bytes())?;
    let before = before.summary;
    let best_step = standing.best.map_or(standing.step, |b| b.step);
    let epochs = |steps: u64| before.epochs + steps as f64 / of_epoch as f64;
    let summary = TrainSummary {
        best_step: before.steps + best_step,
        best_epoch: epochs(best_step),
        best_value: standing.best.map(|b| b.value),
        select_metric,
        parameters: parameters.count_all() as u64,
        trainable: parameters.count() as u64,
        train_images: before.train_images + train.samples.len() as u64,
        synthetic_images: before.synthetic_images + train.samples.synthetic() as u64,
        train_patients: before.train_patients.max(train.samples.patients() as u64),
        val_images: val.samples.len() as u64,
        val_patients: val.samples.patients() as u64,
        epochs: epochs(standing.step),
        steps: before.steps + standing.step,
        precision: recipe.precision.as_str().into(),
    };
    let text = serde_json::to_string_pretty(&summary)
        .map_err(|e| Error::failure(format!("cannot write the summary: {e}")))?;
    write(&setting.out.join(SUMMARY), text.as_bytes())
}

/// The training that this one goes on from, as its artifact tells of it.
#[derive(Default)]
struct Earlier {
    curves: Vec<CurvePoint>,
    summary: TrainSummary,
}

impl Earlier {
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

/// Mean loss over batches, and the task's figures.
fn validate(task: &dyn Task, val: &Loader, kind: Kind) -> Result<(f64, Vec<Score>)> {
    let _guard = tch::no_grad_guard();
    let mut loss = 0.0;
    let mut logits = Vec::new();
    val.in_order(|batch| {
        let out = task.forward(&batch.images.to_kind(kind), None).to_kind(Kind::Float);
        loss += f64::try_from(task.loss(&out, &batch.target)?)?;
        logits.push(out);
        Ok(())
    })?;
    Ok((loss / val.steps() as f64, task.score(logits)?))
}

/// Training and validation images of a task.
pub struct TaskData {
    pub train: Samples,
    pub val: Samples,
}
