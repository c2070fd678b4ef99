//! Euler's steps to a lower noise level than the next, which fresh noise makes up for (diffusers/
//! schedulers/scheduling_euler_ancestral_discrete.py, 0.42.1).

use serde::Serialize;
use tch::{Kind, Tensor};

use super::{
    NoiseDraw, NoiseSchedule, Solver, SolverStep,
    betas::{BetaConfig, PredictionType, SpacingConfig, TimestepSpacing},
    euler::denoised,
    sigmas::Sigmas,
    variance_noise,
};
use crate::{
    error::{Error, Result},
    nn::config::Config,
};

/// `EulerAncestralDiscreteScheduler`'s configuration; the default is upstream's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EulerAncestralConfig {
    #[serde(flatten)]
    pub betas: BetaConfig,
    #[serde(flatten)]
    pub spacing: SpacingConfig,
    /// Epsilon or v: upstream has no other.
    pub prediction_type: PredictionType,
    pub rescale_betas_zero_snr: bool,
}

impl Default for EulerAncestralConfig {
    fn default() -> Self {
        Self {
            betas: BetaConfig::default(),
            spacing: SpacingConfig::new(TimestepSpacing::Linspace),
            prediction_type: PredictionType::Epsilon,
            rescale_betas_zero_snr: false,
        }
    }
}

impl EulerAncestralConfig {
    pub(super) fn read(config: &Config) -> Result<Self> {
        let default = Self::default();
        Ok(Self {
            betas: BetaConfig::read(config)?,
            spacing: SpacingConfig::read(config, default.spacing.timestep_spacing)?,
            prediction_type: config.get("prediction_type", default.prediction_type)?,
            rescale_betas_zero_snr: config.get("rescale_betas_zero_snr", false)?,
        })
    }
}

pub(super) struct EulerAncestral {
    config: EulerAncestralConfig,
    sigmas: Sigmas,
}

impl EulerAncestral {
    pub(super) fn new(config: &EulerAncestralConfig) -> Result<Self> {
        if config.prediction_type == PredictionType::Sample {
            return Err(Error::input("`prediction_type` = \"sample\" is not supported by euler-ancestral")
                .help("diffusers has no such steps either: take euler, heun, ddim or dpmsolver++"));
        }
        let sigmas = Sigmas::new(&config.betas, config.rescale_betas_zero_snr)?;
        Ok(Self { config: config.clone(), sigmas })
    }
}

impl Solver for EulerAncestral {
    fn trained(&self) -> i64 {
        self.sigmas.schedule.trained()
    }

    fn schedule(&self) -> Option<&NoiseSchedule> {
        Some(&self.sigmas.schedule)
    }

    fn init_noise_sigma(&self) -> f64 {
        self.sigmas.init_noise_sigma(self.config.spacing.timestep_spacing)
    }

    fn scale_input(&self, index: usize, sample: &Tensor) -> Result<Tensor> {
        self.sigmas.scale_input(index, sample)
    }

    fn set_timesteps(&mut self, steps: i64) -> Result<Vec<f32>> {
        let timesteps = self.config.spacing.fractional_timesteps(self.trained(), steps);
        let levels = self.sigmas.interpolated(&timesteps)?;
        self.sigmas.set(timesteps, levels, Some(0.0))?;
        Ok(self.sigmas.timesteps().to_vec())
    }

    fn step(&mut self, step: &SolverStep, draw: &mut NoiseDraw) -> Result<Tensor> {
        let SolverStep { index, model_output: output, sample, .. } = *step;
        let (from, to) = (self.sigmas.level(index)?, self.sigmas.level(index + 1)?);
        let sample = sample.to_kind(Kind::Float);
        let original = denoised(self.config.prediction_type, &sample, output, &from);
        // The variance that is added, and what is left to reach without it.
        let up = (to.square() * (from.square() - to.square()) / from.square()).sqrt();
        let down = (to.square() - up.square()).sqrt();
        let derivative = (&sample - original) / &from;
        let previous = sample + derivative * (down - from);
        Ok((previous + variance_noise(draw, output, output.kind())? * up).to_kind(output.kind()))
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, timesteps: &[f32]) -> Result<Tensor> {
        self.sigmas.add_growing_noise(original, noise, timesteps)
    }
}
