//! Heun's method on the probability flow: Euler's step, then the mean of the slopes at both of its ends
//! (Karras et al., arXiv 2206.00364, algorithm 1; diffusers/schedulers/scheduling_heun_discrete.py,
//! 0.42.1).

use serde::Serialize;
use tch::Tensor;

use super::{
    NoiseDraw, NoiseSchedule, Solver, SolverStep,
    betas::{BetaConfig, PredictionType, SpacingConfig, TimestepSpacing, check_clip_range},
    euler::denoised,
    sigma_spacing::SigmaSpacingConfig,
    sigmas::{Sigmas, timesteps_of},
};
use crate::{error::Result, nn::config::Config};

/// `HeunDiscreteScheduler`'s configuration; the default is upstream's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeunConfig {
    #[serde(flatten)]
    pub betas: BetaConfig,
    #[serde(flatten)]
    pub spacing: SpacingConfig,
    #[serde(flatten)]
    pub levels: SigmaSpacingConfig,
    pub prediction_type: PredictionType,
    pub clip_sample: bool,
    /// Above 0: predicted samples are limited to it, on both sides of 0.
    pub clip_sample_range: f64,
}

impl Default for HeunConfig {
    fn default() -> Self {
        Self {
            betas: BetaConfig { beta_start: 0.00085, beta_end: 0.012, ..BetaConfig::default() },
            spacing: SpacingConfig::new(TimestepSpacing::Linspace),
            levels: SigmaSpacingConfig::default(),
            prediction_type: PredictionType::Epsilon,
            clip_sample: false,
            clip_sample_range: 1.0,
        }
    }
}

impl HeunConfig {
    pub(super) fn read(config: &Config) -> Result<Self> {
        let default = Self::default();
        Ok(Self {
            betas: BetaConfig::read_with_exp(config, default.betas)?,
            spacing: SpacingConfig::read(config, default.spacing.timestep_spacing)?,
            levels: SigmaSpacingConfig::read(config)?,
            prediction_type: config.get("prediction_type", default.prediction_type)?,
            clip_sample: config.get("clip_sample", default.clip_sample)?,
            clip_sample_range: config.get("clip_sample_range", default.clip_sample_range)?,
        })
    }
}

/// The first half of a step.
struct HeunStart {
    sample: Tensor,
    derivative: Tensor,
    /// From this noise level to the next.
    difference: Tensor,
}

pub(super) struct Heun {
    config: HeunConfig,
    /// Each level but the first and the last twice, as the timesteps.
    sigmas: Sigmas,
    start: Option<HeunStart>,
}

impl Heun {
    pub(super) fn new(config: &HeunConfig) -> Result<Self> {
        config.levels.check()?;
        check_clip_range(config.clip_sample, config.clip_sample_range)?;
        Ok(Self { config: config.clone(), sigmas: Sigmas::new(&config.betas, false)?, start: None })
    }
}

/// Each value but the first twice.
fn repeated<T: Copy>(values: &[T]) -> Vec<T> {
    values.iter().take(1).chain(values.iter().skip(1).flat_map(|value| [value, value])).copied().collect()
}

impl Solver for Heun {
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
        self.start = None;
        let trained = self.sigmas.trained_levels()?;
        let mut timesteps = self.config.spacing.fractional_timesteps(trained.len() as i64, steps);
        let mut levels = self.sigmas.interpolated(&timesteps)?;
        if let Some(spaced) = self.config.levels.spaced(&levels, steps) {
            timesteps = timesteps_of(&spaced, &trained).into_iter().map(|t| t as f32).collect();
            levels = spaced;
        }
        self.sigmas.set(repeated(&timesteps), repeated(&levels), Some(0.0))?;
        Ok(self.sigmas.timesteps().to_vec())
    }

    fn step(&mut self, step: &SolverStep, _: &mut NoiseDraw) -> Result<Tensor> {
        let SolverStep { index, model_output: output, sample, .. } = *step;
        let sigma = self.sigmas.level(index)?;
        let mut original = denoised(self.config.prediction_type, sample, output, &sigma);
        if self.config.clip_sample {
            let range = self.config.clip_sample_range;
            original = original.clamp(-range, range);
        }
        let derivative = (sample - original) / &sigma;
        if let Some(start) = self.start.take() {
            return Ok(start.sample + (start.derivative + derivative) / 2.0 * start.difference);
        }
        let difference = self.sigmas.level(index + 1)? - sigma;
        let previous = sample + &derivative * &difference;
        self.start = Some(HeunStart { sample: sample.shallow_clone(), derivative, difference });
        Ok(previous)
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, timesteps: &[f32]) -> Result<Tensor> {
        self.sigmas.add_growing_noise(original, noise, timesteps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_levels_between_the_ends_are_visited_twice() {
        assert_eq!(repeated(&[3, 2, 1]), [3, 2, 2, 1, 1]);
        assert_eq!(repeated(&[3]), [3]);
        assert!(repeated::<i64>(&[]).is_empty());
    }
}
