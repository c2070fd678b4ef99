//! Schedulers: how a sample gets its noise in training, and loses it step by step in sampling. Equal to
//! diffusers' (0.42.1) of the same names, configured by their `scheduler_config.json`.
//!
//! Numbers of a step are f32 tensors without dimensions, made by the same operations as upstream's:
//! small differences of logarithms are divided by each other, so the last bits count.

mod betas;
mod config;
mod ddim;
mod ddpm;
mod dpmsolver;
mod euler;
mod euler_ancestral;
mod flow_euler;
mod flow_two_stage;
mod heun;
mod lcm;
mod pndm;
mod sigma_spacing;
mod sigmas;
mod unipc;

use std::fmt;

use tch::{Device, Kind, Tensor};

use self::{
    betas::one_minus,
    flow_two_stage::{FlowTwoStage, SecondStage},
};
pub use self::{
    betas::{
        BetaConfig, BetaSchedule, ClipConfig, PredictionType, SpacingConfig, ThresholdConfig, TimestepSpacing,
    },
    config::SchedulerConfig,
    ddim::DdimConfig,
    ddpm::{DdpmConfig, VarianceType},
    dpmsolver::{AlgorithmType, DpmSolverConfig, DpmSolverType},
    euler::{EulerConfig, InterpolationType, TimestepType},
    euler_ancestral::EulerAncestralConfig,
    flow_euler::{FlowEulerConfig, TimeShiftType},
    flow_two_stage::FlowTwoStageConfig,
    heun::HeunConfig,
    lcm::LcmConfig,
    pndm::PndmConfig,
    sigma_spacing::SigmaSpacingConfig,
    sigmas::{FinalSigmasType, SigmaConfig},
    unipc::{UniPcConfig, UniPcSolverType},
};
use crate::{
    error::{Error, Result},
    vocabulary::Sampler,
};

/// Where a step's noise comes from: a shape to standard normal noise of that shape, so that a caller
/// can give each sample of the batch a generator of its own.
pub type NoiseDraw<'a> = dyn FnMut(&[i64]) -> Result<Tensor> + 'a;

/// The noise of the trained timesteps: tensors of (num_train_timesteps), f32, on the CPU.
struct NoiseSchedule {
    betas: Tensor,
    alphas_cumprod: Tensor,
}

impl NoiseSchedule {
    fn new(config: &BetaConfig, zero_snr: bool) -> Result<Self> {
        let betas = config.betas(zero_snr)?;
        let alphas_cumprod = betas::cumprod(&one_minus(&betas));
        Ok(Self { betas, alphas_cumprod })
    }

    fn trained(&self) -> i64 {
        self.alphas_cumprod.size()[0]
    }

    fn alpha_cumprod(&self, timestep: i64) -> Result<Tensor> {
        Ok(self.alphas_cumprod.f_get(timestep)?)
    }

    /// The value behind the last step where the timestep lies below 0.
    fn alpha_cumprod_or(&self, timestep: i64, last: &Tensor) -> Result<Tensor> {
        if timestep < 0 { Ok(last.shallow_clone()) } else { self.alpha_cumprod(timestep) }
    }

    fn final_alpha_cumprod(&self, set_alpha_to_one: bool) -> Result<Tensor> {
        if set_alpha_to_one { Ok(Tensor::from(1.0f32)) } else { self.alpha_cumprod(0) }
    }
}

/// One step, checked: shapes fit, and `timestep` is the `index`th.
#[derive(Clone, Copy)]
struct SolverStep<'a> {
    index: usize,
    timestep: f32,
    model_output: &'a Tensor,
    sample: &'a Tensor,
}

impl SolverStep<'_> {
    /// The timestep of a solver that chooses only whole ones.
    fn whole_timestep(&self) -> i64 {
        self.timestep as i64
    }
}

/// A method of sampling. It owns the noise levels of its steps, however it comes by them.
trait Solver {
    /// Trained timesteps.
    fn trained(&self) -> i64;

    /// The noise of the trained timesteps; none where training knows no betas.
    fn schedule(&self) -> Option<&NoiseSchedule>;

    /// The standard deviation that the first step expects of its sample.
    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    /// What the network is given for `sample` at step `index`.
    fn scale_input(&self, _index: usize, sample: &Tensor) -> Result<Tensor> {
        Ok(sample.shallow_clone())
    }

    /// Whether the network gives twice as many channels as the sample has.
    fn doubles_channels(&self) -> bool {
        false
    }

    fn set_eta(&mut self, _eta: f64, _use_clipped_model_output: bool) -> Result<()> {
        Err(Error::input("only DDIM takes eta").help("leave it out, or sample with ddim"))
    }

    /// Forgets what was, and chooses the timesteps: 1 <= `steps` <= trained timesteps.
    fn set_timesteps(&mut self, steps: i64) -> Result<Vec<f32>>;

    fn step(&mut self, step: &SolverStep, draw: &mut NoiseDraw) -> Result<Tensor>;

    fn add_noise(&self, original: &Tensor, noise: &Tensor, timesteps: &[f32]) -> Result<Tensor> {
        let alpha = alphas_at(self.schedule(), timesteps, original)?;
        Ok(alpha.sqrt() * original + one_minus(&alpha).sqrt() * noise)
    }
}

/// A scheduler with its state: [`Scheduler::set_timesteps`], then one [`Scheduler::step`] for each of
/// [`Scheduler::timesteps`].
///
/// A sample is a batch (batch, channels, …) of any floating-point type, on any device.
pub struct Scheduler {
    class: Sampler,
    solver: Box<dyn Solver + Send>,
    timesteps: Vec<f32>,
    done: usize,
    /// The number of steps that was found to end well.
    rehearsed: Option<i64>,
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after {} of {} steps", self.class, self.done, self.timesteps.len())
    }
}

impl Scheduler {
    /// # Errors
    /// Values or combinations that cannot work, most of which upstream refuses too.
    pub fn new(config: &SchedulerConfig) -> Result<Self> {
        let solver: Box<dyn Solver + Send> = match config {
            SchedulerConfig::Ddpm(c) => Box::new(ddpm::Ddpm::new(c)?),
            SchedulerConfig::Ddim(c) => Box::new(ddim::Ddim::new(c)?),
            SchedulerConfig::Pndm(c) => Box::new(pndm::Pndm::new(c)?),
            SchedulerConfig::UniPc(c) => Box::new(unipc::UniPc::new(c)?),
            SchedulerConfig::DpmSolver(c) => Box::new(dpmsolver::DpmSolver::new(c)?),
            SchedulerConfig::Euler(c) => Box::new(euler::Euler::new(c)?),
            SchedulerConfig::EulerAncestral(c) => Box::new(euler_ancestral::EulerAncestral::new(c)?),
            SchedulerConfig::Heun(c) => Box::new(heun::Heun::new(c)?),
            SchedulerConfig::Lcm(c) => Box::new(lcm::Lcm::new(c)?),
            SchedulerConfig::FlowEuler(c) => Box::new(flow_euler::FlowEuler::new(c)?),
            SchedulerConfig::FlowHeun(c) => Box::new(FlowTwoStage::new(c, SecondStage::End)?),
            SchedulerConfig::FlowMidpoint(c) => Box::new(FlowTwoStage::new(c, SecondStage::Middle)?),
        };
        Ok(Self { class: config.class(), solver, timesteps: Vec::new(), done: 0, rehearsed: None })
    }

    pub fn class(&self) -> Sampler {
        self.class
    }

    /// Trained timesteps.
    pub fn num_train_timesteps(&self) -> i64 {
        self.solver.trained()
    }

    /// (num_train_timesteps), f32, on the CPU: the variance that each timestep adds. None for flow
    /// matching.
    pub fn betas(&self) -> Option<&Tensor> {
        self.solver.schedule().map(|schedule| &schedule.betas)
    }

    /// (num_train_timesteps), f32, on the CPU: the share of the sample's variance left at each timestep.
    /// None for flow matching.
    pub fn alphas_cumprod(&self) -> Option<&Tensor> {
        self.solver.schedule().map(|schedule| &schedule.alphas_cumprod)
    }

    /// What standard normal noise is to be multiplied with before the first step: the standard deviation
    /// that the step expects. To be asked after [`Scheduler::set_timesteps`].
    pub fn init_noise_sigma(&self) -> f64 {
        self.solver.init_noise_sigma()
    }

    /// What the network is to be given for `sample`, the one of the next step.
    ///
    /// # Errors
    /// No step is left, or the timesteps are not set.
    pub fn scale_input(&self, sample: &Tensor) -> Result<Tensor> {
        self.due()?;
        self.solver.scale_input(self.done, sample)
    }

    /// Lets DDIM's steps add noise: `eta` 0 none, 1 as much as DDPM's; `use_clipped_model_output`
    /// derives the noise again from the clipped sample. To be called before
    /// [`Scheduler::set_timesteps`].
    ///
    /// # Errors
    /// Another scheduler than DDIM; an `eta` that is no number from 0.
    pub fn set_eta(&mut self, eta: f64, use_clipped_model_output: bool) -> Result<()> {
        self.timesteps.clear();
        self.rehearsed = None;
        self.solver.set_eta(eta, use_clipped_model_output)
    }

    /// Chooses the timesteps of `steps` steps, and forgets every step taken. Their number may differ from
    /// `steps`: PNDM repeats some, Heun all but the first, clipping leaves some out.
    ///
    /// # Errors
    /// No step, more steps than trained timesteps (the multistep solvers of upstream go on, to NaN),
    /// or steps that would divide by zero.
    pub fn set_timesteps(&mut self, steps: usize) -> Result<()> {
        self.timesteps.clear();
        self.done = 0;
        let trained = self.num_train_timesteps();
        let count = i64::try_from(steps).ok().filter(|s| (1..=trained).contains(s)).ok_or_else(|| {
            Error::input(format!("{steps} steps with {trained} trained timesteps"))
                .help(format!("take 1 to {trained} steps"))
        })?;
        let mut timesteps = self.solver.set_timesteps(count)?;
        if self.rehearsed != Some(count) {
            self.rehearse(&timesteps)?;
            self.rehearsed = Some(count);
            timesteps = self.solver.set_timesteps(count)?;
        }
        self.timesteps = timesteps;
        Ok(())
    }

    /// Takes all steps on six numbers: a division by zero in the last step is better found before the
    /// network's first.
    fn rehearse(&mut self, timesteps: &[f32]) -> Result<()> {
        let ones = |shape: &[i64]| Ok(Tensor::ones(shape, (Kind::Float, Device::Cpu)));
        let mut sample = Tensor::from_slice(&[-1.0f32, -0.6, -0.2, 0.2, 0.6, 1.0]).view([1, 3, 2]);
        let doubles = self.solver.doubles_channels();
        for (index, &timestep) in timesteps.iter().enumerate() {
            let output = (&sample * 3.0 + f64::from(timestep)).sin();
            let output = if doubles { Tensor::f_cat(&[&output, &output.square()], 1)? } else { output };
            let step = SolverStep { index, timestep, model_output: &output, sample: &sample };
            sample = match self.solver.step(&step, &mut { ones }) {
                Ok(next) if next.isfinite().all().int64_value(&[]) == 1 => next,
                _ => {
                    return Err(Error::input(format!(
                        "step {} of {} (timestep {timestep}) has no finite result with these settings",
                        index + 1,
                        timesteps.len()
                    ))
                    .help(
                        "diffusers gives NaN here: take fewer steps or another timestep spacing (two steps \
                         are at one noise level), clip samples or predict v (with \
                         `rescale_betas_zero_snr`), or set `lower_order_final`",
                    ));
                }
            };
        }
        Ok(())
    }

    /// The timesteps to give the network, one for each step, from high to low (where flow matching's
    /// sigmas are inverted, from low to high); empty before [`Scheduler::set_timesteps`]. Whole numbers
    /// but for Euler's and Heun's schedulers.
    pub fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    /// The timestep of the next step.
    fn due(&self) -> Result<f32> {
        match self.timesteps.get(self.done) {
            Some(&due) => Ok(due),
            None if self.timesteps.is_empty() => {
                Err(Error::failure("a step was taken before the timesteps were set"))
            }
            None => Err(Error::failure(format!("all {} steps are taken already", self.done))),
        }
    }

    /// The sample one step less noisy than `sample`, by the network's output for it at `timestep`. The
    /// type is that of `sample` where that of `model_output` is the same. `draw` is called where the
    /// scheduler adds noise.
    ///
    /// # Errors
    /// Not the turn of `timestep`, or no step left; shapes that do not fit.
    pub fn step(
        &mut self,
        model_output: &Tensor,
        timestep: f32,
        sample: &Tensor,
        draw: &mut NoiseDraw,
    ) -> Result<Tensor> {
        let (index, due) = (self.done, self.due()?);
        if due != timestep {
            return Err(Error::failure(format!("a step at timestep {timestep}, where {due} is due")));
        }
        let shape = sample.size();
        let mut expected = shape.clone();
        if let Some(channels) = expected.get_mut(1).filter(|_| self.solver.doubles_channels()) {
            *channels *= 2;
        }
        if shape.len() < 2 || model_output.size() != expected {
            return Err(Error::input(format!(
                "the network gives {:?} for a sample of {shape:?}, the scheduler needs {expected:?}",
                model_output.size()
            ))
            .help(
                "(batch, channels, …) of one size; twice the channels only where the scheduler's \
                 `variance_type` is learned",
            ));
        }
        if model_output.device() != sample.device() {
            return Err(Error::failure(format!(
                "the network's output is on {:?}, the sample on {:?}",
                model_output.device(),
                sample.device()
            )));
        }
        let previous = self.solver.step(&SolverStep { index, timestep, model_output, sample }, draw)?;
        self.done += 1;
        Ok(previous)
    }

    /// `original` with `noise` (both (batch, …)) at one timestep per sample, or one for all. DDPM, DDIM,
    /// PNDM and LCM know those of 0..num_train_timesteps, all others only the noise levels of the steps
    /// that were set, as upstream.
    ///
    /// # Errors
    /// Shapes that do not fit; timesteps that the scheduler does not know.
    pub fn add_noise(&self, original: &Tensor, noise: &Tensor, timesteps: &[f32]) -> Result<Tensor> {
        same_shape(original, noise)?;
        self.solver.add_noise(original, noise, timesteps)
    }

    /// What a network that predicts v must give: `sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) original`.
    ///
    /// # Errors
    /// Shapes that do not fit; timesteps outside 0..num_train_timesteps; flow matching, whose velocity is
    /// another one.
    pub fn velocity(&self, original: &Tensor, noise: &Tensor, timesteps: &[f32]) -> Result<Tensor> {
        same_shape(original, noise)?;
        let alpha = alphas_at(self.solver.schedule(), timesteps, original)?;
        Ok(alpha.sqrt() * noise - one_minus(&alpha).sqrt() * original)
    }
}

fn same_shape(a: &Tensor, b: &Tensor) -> Result<()> {
    if a.size() == b.size() {
        return Ok(());
    }
    Err(Error::failure(format!("samples of {:?} with noise of {:?}", a.size(), b.size())))
}

/// `alphas_cumprod` at timesteps, shaped to be multiplied with `like`.
fn alphas_at(schedule: Option<&NoiseSchedule>, timesteps: &[f32], like: &Tensor) -> Result<Tensor> {
    let schedule = schedule.ok_or_else(|| {
        Error::failure("flow matching has no betas").help("its noise is mixed in by sigma itself")
    })?;
    if let Some(fraction) = timesteps.iter().find(|t| t.fract() != 0.0) {
        return Err(Error::failure(format!("timestep {fraction} is between two trained ones")));
    }
    let whole: Vec<i64> = timesteps.iter().map(|&t| t as i64).collect();
    per_sample(&schedule.alphas_cumprod, &whole, like)
}

/// `values` at `indices`, one for each sample of `like` or one for all, shaped to be multiplied with it.
fn per_sample(values: &Tensor, indices: &[i64], like: &Tensor) -> Result<Tensor> {
    let (batch, count) = (like.size().first().copied().unwrap_or(0), indices.len() as i64);
    let known = values.size()[0];
    if (count != 1 && count != batch) || indices.iter().any(|i| !(0..known).contains(i)) {
        return Err(Error::failure(format!(
            "timesteps {indices:?} for {batch} samples and {known} noise levels"
        )));
    }
    let mut shape = vec![1; like.dim().max(1)];
    shape[0] = count;
    let indices = Tensor::f_from_slice(indices)?.to_device(like.device());
    Ok(values
        .to_device(like.device())
        .to_kind(like.kind())
        .f_index_select(0, &indices)?
        .f_view(&shape[..])?)
}

/// Noise of `like`'s shape, on its device.
fn variance_noise(draw: &mut NoiseDraw, like: &Tensor, kind: Kind) -> Result<Tensor> {
    let shape = like.size();
    let noise = draw(&shape)?;
    if noise.size() != shape {
        return Err(Error::failure(format!("noise of {:?} was drawn for {shape:?}", noise.size())));
    }
    Ok(noise.to_device(like.device()).to_kind(kind))
}

/// Puts `output` behind the `most` - 1 last ones.
fn remember(history: &mut Vec<Tensor>, output: Tensor, most: usize) {
    if history.len() == most {
        drop(history.remove(0));
    }
    history.push(output);
}

fn check_order(order: usize) -> Result<()> {
    if (1..=3).contains(&order) {
        return Ok(());
    }
    Err(Error::input(format!("`solver_order` = {order} is not supported")).help("supported: 1, 2, 3"))
}
