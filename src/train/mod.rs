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
    nn::weights,
    progress::Progress,
    results::{self, CurvePoint, TrainSummary},
    samples::Samples,
    spec::Precision,
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
pub const CURVES: &str = "curves.csv";
pub const SUMMARY: &str = "summary.json";

/// Where and how a stage is worked on; decides nothing of its result.
pub struct Setting<'a> {
    pub device: Device,
    /// Where the artifact's files go.
    pub out: &'a Path,
    /// Where checkpoints go, and are looked for.
    pub checkpoints: &'a Path,
    /// Seconds between two checkpoints, at least; 0: after every epoch.
    pub checkpoint_every: f64,
    pub progress: &'a Progress,
    pub label: &'a str,
    /// For a stopwatch: called after each epoch's last optimizer step, before validation; of a
    /// generator, which has no epochs, after each step.
    pub lap: &'a dyn Fn(),
}

/// What a task asks of the loop.
struct Recipe {
    epochs: usize,
    rate: LearningRate,
    rule: Rule,
    precision: Precision,
    shuffle: bool,
    augment: Option<AugmentRange>,
    validate_every: usize,
    /// Fault: the validation loss is summed on top of the epoch's training loss.
    val_loss_starts_from_train: bool,
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
    let saved = Checkpoint::<Standing>::read(setting.checkpoints).unwrap_or_else(|damage| {
        setting.progress.line(format!("training starts afresh: {damage}"));
        None
    });
    if let Some(saved) = saved {
        parameters.restore(&saved.now)?;
        optimizer.resume(&saved.moments, saved.standing.step)?;
        (standing, curves, best) = (saved.standing, saved.curves, saved.kept);
    }
    let bar = setting.progress.bar((recipe.epochs * train.samples.len()) as u64, setting.label, "images");
    bar.resume_at((standing.epoch * train.samples.len()) as u64);
    let mut select_metric = String::new();
    let mut written = Instant::now();
    while standing.epoch < recipe.epochs {
        let epoch = standing.epoch;
        let mut losses = Tensor::zeros([1], (Kind::Float, setting.device));
        train.train_epoch(epoch, recipe.shuffle, recipe.augment.as_ref(), |batch| {
            let logits = task.forward(&batch.images.to_kind(parameters.kind()), Some(standing.step));
            let loss = task.loss(&logits, &batch.target)?;
            let gradient = parameters.gradient(&loss)?;
            optimizer.step(&parameters.master, &gradient, recipe.rate.at(standing.step as usize));
            parameters.refresh();
            losses += loss.detach();
            standing.step += 1;
            bar.inc(batch.images.size()[0] as u64);
            Ok(())
        })?;
        (setting.lap)();
        standing.epoch += 1;
        let steps = train.steps() as f64;
        let train_loss = f64::try_from(&losses)? / steps;
        if !train_loss.is_finite() {
            return Err(Error::failure(format!(
                "the training loss is {train_loss} in epoch {}",
                standing.epoch
            ))
            .help("lower the learning_rate, or look for damaged images with `synecho data check`"));
        }
        bar.message(format!("loss {train_loss:.4}"));
        let mut note = |split: &str, structure: &str, metric: &str, value: f64| {
            curves.push(CurvePoint {
                split: split.into(),
                step: standing.step,
                epoch: standing.epoch as u64,
                structure: structure.into(),
                metric: metric.into(),
                value,
                ..CurvePoint::default()
            });
        };
        note("train", "", "loss", train_loss);
        note("train", "", "learning_rate", recipe.rate.at(standing.step as usize - 1));
        let last = standing.epoch == recipe.epochs;
        if standing.epoch.is_multiple_of(recipe.validate_every) || last {
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
                    standing.best = Some(Best { epoch: standing.epoch, step: standing.step, value: *value });
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
    let bytes = weights::to_bytes(&parameters.named(&chosen), vec![])?;
    write(&setting.out.join(WEIGHTS), &bytes)?;
    write(&setting.out.join(CURVES), results::to_csv(&curves)?.as_bytes())?;
    let summary = TrainSummary {
        best_step: standing.best.map_or(standing.step, |b| b.step),
        best_epoch: standing.best.map_or(standing.epoch, |b| b.epoch) as u64,
        best_value: standing.best.map(|b| b.value),
        select_metric,
        parameters: parameters.count_all() as u64,
        trainable: parameters.count() as u64,
        train_images: train.samples.len() as u64,
        train_patients: train.samples.patients() as u64,
        val_images: val.samples.len() as u64,
        val_patients: val.samples.patients() as u64,
        epochs: recipe.epochs as u64,
        steps: standing.step,
        precision: recipe.precision.name().into(),
    };
    let text = serde_json::to_string_pretty(&summary)
        .map_err(|e| Error::failure(format!("cannot write the summary: {e}")))?;
    write(&setting.out.join(SUMMARY), text.as_bytes())
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
