//! The loop that every generator is trained in: gradients of some batches, one step of AdamW, averaged
//! weights, validation on fixed noise, checkpoints.

use std::{path::Path, time::Instant};

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::{
    QualityScore,
    batches::{Batches, DiffusionBatch},
};
use crate::{
    error::{AtPath, Error, Result},
    experiment::{GeneratorSchedule, UpdateRule},
    nn::tensor_file::{self, TensorFile},
    observer::Observer,
    results::CurvePoint,
    train::{
        averaging,
        checkpoint::{BestCheckpoint, Checkpoint},
        optimizer::Optimizer,
        parameters::{Parameters, Snapshot},
    },
    vocabulary::{Metric, Precision, Split},
};

/// What is trained.
pub(super) trait Objective {
    /// The loss of a batch, f32, a mean over it; activations are of the type `kind`.
    fn loss(&self, batch: &DiffusionBatch, kind: Kind) -> Result<Tensor>;
}

/// What is asked of the loop.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    pub steps: u64,
    pub accumulate: u64,
    pub learning_rate: f64,
    pub schedule: GeneratorSchedule,
    pub warmup_steps: u64,
    pub weight_decay: f64,
    /// 0: not limited.
    pub clip: f64,
    /// 0: the weights themselves.
    pub ema: f64,
    pub precision: Precision,
    /// 0: never.
    pub validate_every: u64,
    pub grid_every: u64,
    pub quality_every: u64,
    /// What the weights are chosen by; none: the last ones.
    pub choose_by: Option<Metric>,
}

impl Recipe {
    /// The rate of step `step` (from 0): warm-up as in diffusers' schedules, then constant or half a
    /// cosine down to 0.
    fn rate(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.learning_rate * step as f64 / self.warmup_steps as f64;
        }
        match self.schedule {
            GeneratorSchedule::Constant => self.learning_rate,
            GeneratorSchedule::Cosine => {
                let span = (self.steps - self.warmup_steps.min(self.steps)).max(1) as f64;
                let done = (step - self.warmup_steps) as f64 / span;
                self.learning_rate * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()).max(0.0)
            }
        }
    }

    /// The share of the old average that step `step` keeps: less at the beginning.
    fn decay(&self, step: u64) -> f64 {
        averaging(self.ema, step)
    }
}

/// A generator's training between two steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct DiffusionState {
    step: u64,
    /// Steps of the optimizer: f16 leaves some out.
    applied: u64,
    /// Losses since the last point of the curve.
    loss_sum: f64,
    loss_count: u64,
    /// What the loss is multiplied by in f16, and the good steps since it last changed.
    scale: f64,
    good: u64,
    /// The best weights so far, which lie in a file beside the checkpoint.
    #[serde(default)]
    best: Option<BestCheckpoint>,
}

/// Steps between two points of the training curve.
const NOTE_EVERY: u64 = 25;

/// Validation images, at most.
pub(super) const VALIDATION_IMAGES: usize = 64;

/// What the loop works with that is not in its recipe.
pub(super) struct LoopContext<'a> {
    pub checkpoints: &'a Path,
    /// The least number of seconds between two checkpoints.
    pub checkpoint_every: f64,
    pub observer: &'a dyn Observer,
    /// The observer's name for this training, its number of steps (of all models, where each class has its own), and
    /// how many of them come before this model's.
    pub phase: &'a str,
    pub total: u64,
    pub before: u64,
    /// In the curve's column `structure`.
    pub name: &'a str,
}

/// Weights to make images with, by name, f32.
pub(super) type Named = Vec<(String, Tensor)>;

/// The file of the best weights so far.
const BEST: &str = "best.safetensors";

/// What is made of the weights on the way.
pub(super) trait Milestones {
    /// Draws images of the weights of this step.
    fn draw(&mut self, weights: &Named, step: u64) -> Result<()>;
    /// Measures their images.
    fn measure(&mut self, weights: &Named) -> Result<Vec<QualityScore>>;
}

/// Nothing is.
impl Milestones for () {
    fn draw(&mut self, _: &Named, _: u64) -> Result<()> {
        Ok(())
    }

    fn measure(&mut self, _: &Named) -> Result<Vec<QualityScore>> {
        Ok(Vec::new())
    }
}

/// A trained network.
pub(super) struct Fitted {
    /// The averaged ones, of the last step or of the best.
    pub weights: Named,
    pub curves: Vec<CurvePoint>,
    /// Where the weights were chosen.
    pub best: Option<BestCheckpoint>,
}

/// Trains, or continues from the checkpoint where there is one; returns the averaged weights and the curves.
/// `milestones` gets the weights when it is time for pictures and measurements.
///
/// # Errors
/// A loss that is not finite (the checkpoint before it is kept), or what libtorch refuses.
pub(super) fn fit(
    objective: &dyn Objective,
    parameters: &mut Parameters,
    recipe: &Recipe,
    train: &Batches,
    val: Option<&Batches>,
    milestones: &mut dyn Milestones,
    context: &LoopContext,
) -> Result<Fitted> {
    let rule = UpdateRule::AdamW { weight_decay: recipe.weight_decay };
    let mut optimizer = Optimizer::new(rule, &parameters.master);
    let scale = if recipe.precision == Precision::F16 { 65536.0 } else { 1.0 };
    let mut state =
        DiffusionState { step: 0, applied: 0, loss_sum: 0.0, loss_count: 0, scale, good: 0, best: None };
    let mut curves: Vec<CurvePoint> = Vec::new();
    let mut ema = (recipe.ema > 0.0).then(|| parameters.snapshot());
    let saved = Checkpoint::<DiffusionState>::read(context.checkpoints, &parameters.master).unwrap_or_else(
        |damage| {
            context.observer.note(&format!("training starts afresh: {damage}"));
            None
        },
    );
    if let Some(saved) = saved {
        parameters.restore(&saved.now)?;
        optimizer.resume(&saved.moments, saved.state.applied)?;
        (state, curves) = (saved.state, saved.curves);
        if let (Some(ema), Some(kept)) = (&mut ema, saved.kept) {
            ema.master.f_copy_(&kept.master)?;
            ema.buffers = kept.buffers;
        }
    }
    let validation = match val {
        Some(val) if recipe.validate_every > 0 => val.fixed(VALIDATION_IMAGES)?,
        _ => Vec::new(),
    };
    context.observer.begin(context.phase, context.total, context.before + state.step);
    let epoch_images = train.samples.len() as u64;
    let step_images = recipe.accumulate * train.batch_size as u64;
    let mut micro = Micro::new(recipe.accumulate);
    let (mut written, mut took) = (Instant::now(), 0.0);
    train.each(state.step * recipe.accumulate, recipe.steps * recipe.accumulate, |batch| {
        let loss = objective.loss(&batch, parameters.kind())?;
        let factor = state.scale / recipe.accumulate as f64;
        micro.add(parameters.gradient(&(&loss * factor))?, &loss);
        let Some((mut gradient, loss)) = micro.full() else { return Ok(()) };
        let loss = f64::try_from(loss)?;
        if !loss.is_finite() {
            return Err(not_finite(&format!("the loss is {loss}"), state.step + 1));
        }
        if apply_gradient(&mut gradient, recipe, &mut state)? {
            optimizer.step(&parameters.master, &gradient, recipe.rate(state.step));
            parameters.refresh();
            state.applied += 1;
        }
        if let Some(ema) = &mut ema {
            let _ = ema.master.f_lerp_(&parameters.master, 1.0 - recipe.decay(state.step))?;
        }
        // Of the denoiser only: the autoencoder before it is a phase of its own.
        if context.phase.is_empty() {
            context.observer.lap();
        }
        state.step += 1;
        state.loss_sum += loss;
        state.loss_count += 1;
        let (step, last) = (state.step, state.step == recipe.steps);
        let mut note = |split: Split, metric: Metric, structure: &str, value: f64| {
            let point = CurvePoint {
                split: split.into(),
                step,
                epoch: (step * step_images) as f64 / epoch_images as f64,
                structure: structure.into(),
                metric: metric.into(),
                value,
                ..CurvePoint::default()
            };
            context.observer.curve_point(&point);
            curves.push(point);
        };
        if step.is_multiple_of(NOTE_EVERY) || last {
            let mean = state.loss_sum / state.loss_count as f64;
            note(Split::Train, Metric::Loss, context.name, mean);
            (state.loss_sum, state.loss_count) = (0.0, 0);
        }
        let due = |every: u64| every > 0 && (step.is_multiple_of(every) || last);
        if !validation.is_empty() && due(recipe.validate_every) {
            let loss = with(parameters, ema.as_ref(), |p| validate(objective, &validation, p.kind()))?;
            note(Split::Val, Metric::Loss, context.name, loss);
            let line = format!("  step {step} of {}: validation loss {loss:.4}", recipe.steps);
            context.observer.note(&line);
        }
        if due(recipe.grid_every) {
            milestones.draw(&averaged(parameters, ema.as_ref()), step)?;
        }
        if due(recipe.quality_every) {
            let weights = averaged(parameters, ema.as_ref());
            let scores = milestones.measure(&weights)?;
            note_quality(&scores, context, step, recipe.steps);
            for score in &scores {
                note(Split::Val, score.metric, score.structure, score.value);
            }
            if let Some(value) = scores.iter().find(|s| Some(s.metric) == recipe.choose_by).map(|s| s.value)
                && is_better(recipe.choose_by, value, state.best)
            {
                // Before the checkpoint that knows of it: a run that is killed in between writes the same again.
                write_best(&context.checkpoints.join(BEST), &weights)?;
                state.best = Some(BestCheckpoint { step, value });
            }
        }
        context.observer.advance(context.before + step);
        // A large network's checkpoint takes long: at most a twentieth of the time goes into it.
        if written.elapsed().as_secs_f64() >= context.checkpoint_every.max(20.0 * took) || last {
            let start = Instant::now();
            // A gradient can run over where the loss did not: the last good checkpoint is kept.
            if !f64::try_from(parameters.master.f_sum(Kind::Float)?)?.is_finite() {
                return Err(not_finite("the weights are not finite", step));
            }
            let checkpoint = Checkpoint {
                state: state.clone(),
                curves: std::mem::take(&mut curves),
                now: parameters.snapshot(),
                moments: optimizer.moments().iter().map(Tensor::shallow_clone).collect(),
                kept: ema.take(),
                average: None,
            };
            checkpoint.write(context.checkpoints)?;
            (curves, ema) = (checkpoint.curves, checkpoint.kept);
            (written, took) = (Instant::now(), start.elapsed().as_secs_f64());
            if context.checkpoint_every == 0.0 {
                took = 0.0;
            }
        }
        Ok(())
    })?;
    let weights = match state.best {
        Some(_) => read_best(&context.checkpoints.join(BEST))?,
        None => averaged(parameters, ema.as_ref()),
    };
    Ok(Fitted { weights, curves, best: state.best })
}

fn note_quality(scores: &[QualityScore], context: &LoopContext, step: u64, steps: u64) {
    let words: Vec<String> = scores
        .iter()
        .map(|score| {
            let (metric, value) = (score.metric, score.value * score.metric.scale());
            format!("{} {value:.*}", metric.label(), metric.decimals())
        })
        .collect();
    if !words.is_empty() {
        context.observer.note(&format!("  step {step} of {steps}: {}", words.join(", ")));
    }
}

/// A value that is not defined is never better.
fn is_better(metric: Option<Metric>, value: f64, best: Option<BestCheckpoint>) -> bool {
    match best {
        None => !value.is_nan(),
        Some(best) if metric.is_some_and(Metric::higher_is_better) => value > best.value,
        Some(best) => value < best.value,
    }
}

fn write_best(file: &Path, weights: &Named) -> Result<()> {
    let next = file.with_extension("partial");
    tensor_file::write(&next, weights)?;
    std::fs::rename(&next, file).at_path(file, "cannot put the weights in their place")
}

fn read_best(file: &Path) -> Result<Named> {
    let opened = TensorFile::open(file)?;
    opened.entries().iter().map(|entry| Ok((entry.name.clone(), opened.read(entry)?))).collect()
}

fn not_finite(what: &str, step: u64) -> Error {
    Error::failure(format!("{what} at step {step}"))
        .help("lower the learning_rate or set a `clip`; training goes on from its last checkpoint")
}

/// Gradient and loss of the batches of one step.
struct Micro {
    needed: u64,
    done: u64,
    sums: Option<(Tensor, Tensor)>,
}

impl Micro {
    fn new(needed: u64) -> Self {
        Self { needed, done: 0, sums: None }
    }

    fn add(&mut self, gradient: Tensor, loss: &Tensor) {
        let loss = loss.detach() / self.needed as f64;
        self.sums = Some(match self.sums.take() {
            None => (gradient, loss),
            Some((sum, losses)) => (sum + gradient, losses + loss),
        });
        self.done += 1;
    }

    /// The sums, when all batches of the step are there.
    fn full(&mut self) -> Option<(Tensor, Tensor)> {
        if self.done < self.needed {
            return None;
        }
        self.done = 0;
        self.sums.take()
    }
}

/// Takes f16's scale out of the gradient and limits its norm (`torch.nn.utils.clip_grad_norm_`). False:
/// f16 ran over, the step is left out (`torch.amp.GradScaler`).
fn apply_gradient(gradient: &mut Tensor, recipe: &Recipe, state: &mut DiffusionState) -> Result<bool> {
    let scaled = recipe.precision == Precision::F16;
    if scaled {
        *gradient *= 1.0 / state.scale;
    }
    if recipe.clip > 0.0 {
        let norm = gradient.f_norm()?;
        if scaled {
            if !f64::try_from(&norm)?.is_finite() {
                (state.scale, state.good) = (state.scale / 2.0, 0);
                return Ok(false);
            }
            state.good += 1;
            if state.good == 2000 {
                (state.scale, state.good) = (state.scale * 2.0, 0);
            }
        }
        *gradient *= (recipe.clip / (norm + 1e-6)).f_clamp_max(1.0)?;
    }
    Ok(true)
}

/// Works with the averaged weights in the place of the trained ones.
fn with<T>(
    parameters: &mut Parameters,
    ema: Option<&Snapshot>,
    work: impl FnOnce(&Parameters) -> Result<T>,
) -> Result<T> {
    let Some(ema) = ema else { return work(parameters) };
    let now = parameters.snapshot();
    parameters.restore(ema)?;
    let outcome = work(parameters);
    parameters.restore(&now)?;
    outcome
}

fn averaged(parameters: &Parameters, ema: Option<&Snapshot>) -> Named {
    match ema {
        Some(ema) => parameters.named(ema),
        None => parameters.named(&parameters.snapshot()),
    }
}

fn validate(objective: &dyn Objective, batches: &[DiffusionBatch], kind: Kind) -> Result<f64> {
    let _guard = tch::no_grad_guard();
    let (mut sum, mut count) = (0.0, 0);
    for batch in batches {
        let images = batch.chosen.len();
        sum += f64::try_from(objective.loss(batch, kind)?)? * images as f64;
        count += images;
    }
    Ok(sum / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Recipe {
        Recipe {
            steps: 110,
            accumulate: 1,
            learning_rate: 1.0,
            schedule: GeneratorSchedule::Cosine,
            warmup_steps: 10,
            weight_decay: 0.0,
            clip: 1.0,
            ema: 0.999,
            precision: Precision::F32,
            validate_every: 0,
            grid_every: 0,
            quality_every: 0,
            choose_by: None,
        }
    }

    #[test]
    fn the_rate_is_that_of_diffusers_cosine_schedule_with_warmup() {
        // get_cosine_schedule_with_warmup(num_warmup_steps=10, num_training_steps=110)
        let rates = [0, 5, 10, 60, 85].map(|step| recipe().rate(step));
        for (rate, expected) in rates.iter().zip([0.0, 0.5, 1.0, 0.5, 0.146_446_609_406_726_2]) {
            assert!((rate - expected).abs() < 1e-12, "{rates:?}");
        }
    }

    #[test]
    fn a_long_gradient_is_shortened_and_a_short_one_is_not() {
        let mut state = DiffusionState {
            step: 0,
            applied: 0,
            loss_sum: 0.0,
            loss_count: 0,
            scale: 1.0,
            good: 0,
            best: None,
        };
        let mut long = Tensor::from_slice(&[3.0f32, 4.0]);
        assert!(apply_gradient(&mut long, &recipe(), &mut state).unwrap());
        assert!((f64::try_from(long.norm()).unwrap() - 1.0).abs() < 1e-6);
        let mut short = Tensor::from_slice(&[0.3f32, 0.4]);
        apply_gradient(&mut short, &recipe(), &mut state).unwrap();
        assert!((f64::try_from(short.norm()).unwrap() - 0.5).abs() < 1e-6);
    }

    #[test]
    fn f16_leaves_out_a_step_that_ran_over_and_halves_its_scale() {
        let f16 = Recipe { precision: Precision::F16, ..recipe() };
        let mut state = DiffusionState {
            step: 0,
            applied: 0,
            loss_sum: 0.0,
            loss_count: 0,
            scale: 8.0,
            good: 1999,
            best: None,
        };
        let mut over = Tensor::from_slice(&[f32::INFINITY, 1.0]);
        assert!(!apply_gradient(&mut over, &f16, &mut state).unwrap());
        assert_eq!((state.scale, state.good), (4.0, 0));
        state.good = 1999;
        let mut fine = Tensor::from_slice(&[1.0f32, 0.0]);
        assert!(apply_gradient(&mut fine, &f16, &mut state).unwrap());
        assert_eq!((state.scale, fine.double_value(&[0])), (8.0, 0.25));
    }
}
