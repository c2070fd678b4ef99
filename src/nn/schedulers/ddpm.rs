//! DDPM's ancestral sampling (Ho et al.; diffusers/schedulers/scheduling_ddpm.py, 0.42.1).

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::{
    NoiseDraw, NoiseSchedule, Solver, SolverStep,
    betas::{
        BetaConfig, ClipConfig, PredictionType, SpacingConfig, TimestepSpacing, check_trained, fractional,
        one_minus,
    },
    variance_noise,
};
use crate::{
    error::{Error, Result},
    nn::config::Config,
};

/// The variance of the noise that a step adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VarianceType {
    FixedSmall,
    /// The same standard deviation by way of logarithms.
    FixedSmallLog,
    FixedLarge,
    /// The second half of the network's channels is the variance.
    Learned,
    /// The second half of the network's channels lies between the small (-1) and the large (1) variance.
    LearnedRange,
}

impl VarianceType {
    pub(super) fn learned(self) -> bool {
        matches!(self, Self::Learned | Self::LearnedRange)
    }
}

/// `DDPMScheduler`'s configuration; the default is upstream's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DdpmConfig {
    #[serde(flatten)]
    pub betas: BetaConfig,
    #[serde(flatten)]
    pub spacing: SpacingConfig,
    #[serde(flatten)]
    pub clip: ClipConfig,
    pub prediction_type: PredictionType,
    pub variance_type: VarianceType,
    pub rescale_betas_zero_snr: bool,
}

impl Default for DdpmConfig {
    fn default() -> Self {
        Self {
            betas: BetaConfig::default(),
            spacing: SpacingConfig::new(TimestepSpacing::Leading),
            clip: ClipConfig::default(),
            prediction_type: PredictionType::Epsilon,
            variance_type: VarianceType::FixedSmall,
            rescale_betas_zero_snr: false,
        }
    }
}

impl DdpmConfig {
    pub(super) fn read(config: &Config) -> Result<Self> {
        if config.get("variance_type", String::new()).is_ok_and(|v| v == "fixed_large_log") {
            return Err(config.unsupported(
                "variance_type",
                "diffusers takes the root of a negative logarithm here and gives NaN; `fixed_large` is the \
                 variance that is meant",
            ));
        }
        let default = Self::default();
        Ok(Self {
            betas: BetaConfig::read(config)?,
            spacing: SpacingConfig::read(config, default.spacing.timestep_spacing)?,
            clip: ClipConfig::read(config, true)?,
            prediction_type: config.get("prediction_type", default.prediction_type)?,
            // Null, DPM-Solver's default, means the small variance upstream.
            variance_type: config.get("variance_type", None)?.unwrap_or(default.variance_type),
            rescale_betas_zero_snr: config.get("rescale_betas_zero_snr", false)?,
        })
    }
}

pub(super) struct Ddpm {
    config: DdpmConfig,
    schedule: NoiseSchedule,
    timesteps: Vec<i64>,
}

impl Ddpm {
    pub(super) fn new(config: &DdpmConfig) -> Result<Self> {
        config.clip.check()?;
        let schedule = NoiseSchedule::new(&config.betas, config.rescale_betas_zero_snr)?;
        Ok(Self { config: config.clone(), schedule, timesteps: Vec::new() })
    }
}

impl Solver for Ddpm {
    fn trained(&self) -> i64 {
        self.schedule.trained()
    }

    fn schedule(&self) -> Option<&NoiseSchedule> {
        Some(&self.schedule)
    }

    fn doubles_channels(&self) -> bool {
        self.config.variance_type.learned()
    }

    fn set_timesteps(&mut self, steps: i64) -> Result<Vec<f32>> {
        let trained = self.schedule.trained();
        self.timesteps = self.config.spacing.timesteps(trained, steps);
        check_trained(&self.timesteps, trained, steps)?;
        Ok(fractional(&self.timesteps))
    }

    fn step(&mut self, step: &SolverStep, draw: &mut NoiseDraw) -> Result<Tensor> {
        let SolverStep { index, sample, .. } = *step;
        let t = step.whole_timestep();
        let (output, predicted_variance) = if self.doubles_channels() {
            let channels = sample.size()[1];
            let second = step.model_output.narrow(1, channels, channels);
            (step.model_output.narrow(1, 0, channels), Some(second))
        } else {
            (step.model_output.shallow_clone(), None)
        };
        let alpha_prod = self.schedule.alpha_cumprod(t)?;
        let alpha_prod_prev = match self.timesteps.get(index + 1) {
            Some(&previous) => self.schedule.alpha_cumprod(previous)?,
            None => Tensor::from(1.0f32),
        };
        let (beta_prod, beta_prod_prev) = (one_minus(&alpha_prod), one_minus(&alpha_prod_prev));
        let alpha = &alpha_prod / &alpha_prod_prev;
        let beta = one_minus(&alpha);

        let original = match self.config.prediction_type {
            PredictionType::Epsilon => (sample - beta_prod.sqrt() * &output) / alpha_prod.sqrt(),
            PredictionType::Sample => output.shallow_clone(),
            PredictionType::VPrediction => alpha_prod.sqrt() * sample - beta_prod.sqrt() * &output,
        };
        let original = self.config.clip.apply(original)?;
        let original_coefficient = (alpha_prod_prev.sqrt() * &beta) / &beta_prod;
        let sample_coefficient = alpha.sqrt() * &beta_prod_prev / &beta_prod;
        let previous = original_coefficient * original + sample_coefficient * sample;
        if t == 0 {
            return Ok(previous);
        }

        let noise = variance_noise(draw, &output, output.kind())?;
        let small = (&beta_prod_prev / &beta_prod * &beta).clamp_min(1e-20);
        let absent = || Error::failure("a learned variance without the network's second half");
        let deviation = match self.config.variance_type {
            VarianceType::FixedSmall => small.sqrt(),
            VarianceType::FixedSmallLog => (small.log() * 0.5).exp(),
            VarianceType::FixedLarge => beta.sqrt(),
            VarianceType::Learned => predicted_variance.ok_or_else(absent)?.sqrt(),
            VarianceType::LearnedRange => {
                let fraction = (predicted_variance.ok_or_else(absent)? + 1.0) / 2.0;
                let log = &fraction * beta.log() + one_minus(&fraction) * small.log();
                (log * 0.5).exp()
            }
        };
        Ok(previous + deviation * noise)
    }
}
