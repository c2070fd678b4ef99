//! Multistep sampling of latent consistency models: each step predicts the sample without noise, and
//! adds noise again but in the last (Luo et al., arXiv 2310.04378; diffusers/schedulers/
//! scheduling_lcm.py, 0.42.1).

use serde::Serialize;
use tch::Tensor;

use super::{
    NoiseDraw, NoiseSchedule, Solver, SolverStep,
    betas::{
        BetaConfig, BetaSchedule, ClipConfig, PredictionType, SpacingConfig, TimestepSpacing, fractional,
        one_minus,
    },
    variance_noise,
};
use crate::{
    error::{Error, Result},
    nn::config::Config,
};

/// Standard deviation of the data that the boundary conditions assume.
const SIGMA_DATA: f64 = 0.5;

/// `LCMScheduler`'s configuration; the default is upstream's. `timestep_spacing`, `steps_offset` and
/// `set_alpha_to_one` change nothing, upstream as here: the timesteps are those of the distillation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LcmConfig {
    #[serde(flatten)]
    pub betas: BetaConfig,
    #[serde(flatten)]
    pub spacing: SpacingConfig,
    #[serde(flatten)]
    pub clip: ClipConfig,
    pub prediction_type: PredictionType,
    pub set_alpha_to_one: bool,
    pub rescale_betas_zero_snr: bool,
    /// Steps of the distillation, 1 to the trained timesteps: no more can be taken.
    pub original_inference_steps: i64,
    /// Above 0, at most 1e6: timesteps are multiplied with it in the boundary conditions.
    pub timestep_scaling: f64,
}

impl Default for LcmConfig {
    fn default() -> Self {
        Self {
            betas: BetaConfig {
                beta_start: 0.00085,
                beta_end: 0.012,
                beta_schedule: BetaSchedule::ScaledLinear,
                ..BetaConfig::default()
            },
            spacing: SpacingConfig::new(TimestepSpacing::Leading),
            clip: ClipConfig { clip_sample: false, ..ClipConfig::default() },
            prediction_type: PredictionType::Epsilon,
            set_alpha_to_one: true,
            rescale_betas_zero_snr: false,
            original_inference_steps: 50,
            timestep_scaling: 10.0,
        }
    }
}

impl LcmConfig {
    pub(super) fn read(config: &Config) -> Result<Self> {
        let default = Self::default();
        Ok(Self {
            betas: BetaConfig::read_over(config, default.betas)?,
            spacing: SpacingConfig::read(config, default.spacing.timestep_spacing)?,
            clip: ClipConfig::read(config, default.clip.clip_sample)?,
            prediction_type: config.get("prediction_type", default.prediction_type)?,
            set_alpha_to_one: config.get("set_alpha_to_one", default.set_alpha_to_one)?,
            rescale_betas_zero_snr: config.get("rescale_betas_zero_snr", false)?,
            original_inference_steps: config
                .get("original_inference_steps", default.original_inference_steps)?,
            timestep_scaling: config.get("timestep_scaling", default.timestep_scaling)?,
        })
    }
}

pub(super) struct Lcm {
    config: LcmConfig,
    schedule: NoiseSchedule,
    timesteps: Vec<i64>,
}

impl Lcm {
    pub(super) fn new(config: &LcmConfig) -> Result<Self> {
        config.clip.check()?;
        let schedule = NoiseSchedule::new(&config.betas, config.rescale_betas_zero_snr)?;
        let (original, trained) = (config.original_inference_steps, schedule.trained());
        if !(1..=trained).contains(&original) {
            return Err(Error::input(format!("`original_inference_steps` is {original}"))
                .help(format!("the steps of the distillation, 1 to {trained} (50 is usual)")));
        }
        let scaling = config.timestep_scaling;
        if !(scaling > 0.0 && scaling <= 1e6) {
            return Err(Error::input(format!("`timestep_scaling` is {scaling}"))
                .help("above 0, at most 1000000; 10 is usual"));
        }
        Ok(Self { config: config.clone(), schedule, timesteps: Vec::new() })
    }
}

impl Solver for Lcm {
    fn trained(&self) -> i64 {
        self.schedule.trained()
    }

    fn schedule(&self) -> Option<&NoiseSchedule> {
        Some(&self.schedule)
    }

    fn set_timesteps(&mut self, steps: i64) -> Result<Vec<f32>> {
        let original = self.config.original_inference_steps;
        if steps > original {
            return Err(Error::input(format!("{steps} steps of lcm, whose distillation had {original}"))
                .help(format!("take 1 to {original} steps; 4 to 8 are usual")));
        }
        let stride = self.trained() / original;
        // Every so many of the distillation's timesteps, the highest first.
        let ratio = original as f64 / steps as f64;
        self.timesteps =
            (0..steps).map(|i| (original - (i as f64 * ratio).floor() as i64) * stride - 1).collect();
        Ok(fractional(&self.timesteps))
    }

    fn step(&mut self, step: &SolverStep, draw: &mut NoiseDraw) -> Result<Tensor> {
        let SolverStep { index, timestep, model_output: output, sample } = *step;
        let alpha_prod = self.schedule.alpha_cumprod(step.whole_timestep())?;
        let (root_alpha, root_beta) = (alpha_prod.sqrt(), one_minus(&alpha_prod).sqrt());
        let original = match self.config.prediction_type {
            PredictionType::Epsilon => (sample - root_beta * output) / root_alpha,
            PredictionType::Sample => output.shallow_clone(),
            PredictionType::VPrediction => root_alpha * sample - root_beta * output,
        };
        let original = self.config.clip.apply(original)?;
        // Boundary conditions: at timestep 0 the sample is what is predicted.
        let scaled = Tensor::from(timestep) * self.config.timestep_scaling;
        let variance = scaled.square() + SIGMA_DATA.powi(2);
        let of_sample = variance.reciprocal() * SIGMA_DATA.powi(2);
        let denoised = scaled / variance.sqrt() * original + of_sample * sample;
        let Some(&next) = self.timesteps.get(index + 1) else { return Ok(denoised) };
        let alpha_prod = self.schedule.alpha_cumprod(next)?;
        let noise = variance_noise(draw, output, denoised.kind())?;
        Ok(alpha_prod.sqrt() * denoised + one_minus(&alpha_prod).sqrt() * noise)
    }
}
