//! Euler's method on the probability flow (Karras et al., arXiv 2206.00364, algorithm 2 without churn;
//! diffusers/schedulers/scheduling_euler_discrete.py, 0.42.1).

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::{
    NoiseDraw, NoiseSchedule, Solver, SolverStep,
    betas::{BetaConfig, PredictionType, SpacingConfig, TimestepSpacing},
    sigma_spacing::SigmaSpacingConfig,
    sigmas::{FinalSigmasType, Sigmas, log_levels, timesteps_of},
};
use crate::{error::Result, nn::config::Config};

/// Which noise levels belong to the chosen timesteps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InterpolationType {
    /// Those of training, linear between whole timesteps.
    Linear,
    /// Equal steps in the logarithm of sigma between the trained ends, wherever the timesteps lie. The
    /// last step ends at the lowest trained level, whatever `final_sigmas_type` says.
    LogLinear,
}

/// What the network is given as its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepType {
    /// The timestep, 0 to the trained ones.
    Discrete,
    /// log(sigma) / 4 where the network predicts v (EDM's); else as `discrete`.
    Continuous,
}

/// `EulerDiscreteScheduler`'s configuration; the default is upstream's. Its sampling arguments (churn)
/// are at their defaults: it adds no noise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EulerConfig {
    #[serde(flatten)]
    pub betas: BetaConfig,
    #[serde(flatten)]
    pub spacing: SpacingConfig,
    #[serde(flatten)]
    pub levels: SigmaSpacingConfig,
    pub prediction_type: PredictionType,
    pub interpolation_type: InterpolationType,
    pub timestep_type: TimestepType,
    pub final_sigmas_type: FinalSigmasType,
    pub rescale_betas_zero_snr: bool,
}

impl Default for EulerConfig {
    fn default() -> Self {
        Self {
            betas: BetaConfig::default(),
            spacing: SpacingConfig::new(TimestepSpacing::Linspace),
            levels: SigmaSpacingConfig::default(),
            prediction_type: PredictionType::Epsilon,
            interpolation_type: InterpolationType::Linear,
            timestep_type: TimestepType::Discrete,
            final_sigmas_type: FinalSigmasType::Zero,
            rescale_betas_zero_snr: false,
        }
    }
}

impl EulerConfig {
    pub(super) fn read(config: &Config) -> Result<Self> {
        let default = Self::default();
        Ok(Self {
            betas: BetaConfig::read(config)?,
            spacing: SpacingConfig::read(config, default.spacing.timestep_spacing)?,
            levels: SigmaSpacingConfig::read(config)?,
            prediction_type: config.get("prediction_type", default.prediction_type)?,
            interpolation_type: config.get("interpolation_type", default.interpolation_type)?,
            timestep_type: config.get("timestep_type", default.timestep_type)?,
            final_sigmas_type: config.get("final_sigmas_type", default.final_sigmas_type)?,
            rescale_betas_zero_snr: config.get("rescale_betas_zero_snr", false)?,
        })
    }

    /// Whether the network is given log(sigma) / 4.
    fn is_continuous(&self) -> bool {
        self.timestep_type == TimestepType::Continuous && self.prediction_type == PredictionType::VPrediction
    }
}

/// The sample without noise, by the network's output for a sample whose noise has the standard
/// deviation `sigma`.
pub(super) fn denoised(
    prediction: PredictionType,
    sample: &Tensor,
    output: &Tensor,
    sigma: &Tensor,
) -> Tensor {
    match prediction {
        PredictionType::Epsilon => sample - sigma * output,
        PredictionType::Sample => output.shallow_clone(),
        PredictionType::VPrediction => {
            let variance = sigma.square() + 1.0;
            output * (-sigma / variance.sqrt()) + sample / variance
        }
    }
}

pub(super) struct Euler {
    config: EulerConfig,
    sigmas: Sigmas,
}

impl Euler {
    pub(super) fn new(config: &EulerConfig) -> Result<Self> {
        config.levels.check()?;
        let sigmas = Sigmas::new(&config.betas, config.rescale_betas_zero_snr)?;
        Ok(Self { config: config.clone(), sigmas })
    }

    /// One level more than there are steps, equally far apart in their logarithms.
    fn log_linear(&self, trained: &[f32], steps: i64) -> Result<Vec<f64>> {
        let log = log_levels(trained);
        let (low, high) = (log[0], log[log.len() - 1]);
        let levels = Tensor::f_linspace(high, low, steps + 1, (Kind::Float, Device::Cpu))?.exp();
        Ok(Vec::<f32>::try_from(levels)?.into_iter().map(f64::from).collect())
    }
}

impl Solver for Euler {
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
        let config = &self.config;
        let trained = self.sigmas.trained_levels()?;
        let mut timesteps = config.spacing.fractional_timesteps(trained.len() as i64, steps);
        let mut levels = match config.interpolation_type {
            InterpolationType::Linear => self.sigmas.interpolated(&timesteps)?,
            InterpolationType::LogLinear => self.log_linear(&trained, steps)?,
        };
        if let Some(spaced) = config.levels.spaced(&levels, steps) {
            timesteps = timesteps_of(&spaced, &trained).into_iter().map(|t| t as f32).collect();
            levels = spaced;
        }
        if config.is_continuous() {
            let levels: Vec<f32> = levels.iter().map(|&level| level as f32).collect();
            timesteps = Vec::try_from(Tensor::f_from_slice(&levels)?.log() * 0.25)?;
        }
        let zero = (config.final_sigmas_type == FinalSigmasType::Zero).then_some(0.0);
        self.sigmas.set(timesteps, levels, zero)?;
        Ok(self.sigmas.timesteps().to_vec())
    }

    fn step(&mut self, step: &SolverStep, _: &mut NoiseDraw) -> Result<Tensor> {
        let SolverStep { index, model_output: output, sample, .. } = *step;
        let (sigma, next) = (self.sigmas.level(index)?, self.sigmas.level(index + 1)?);
        let sample = sample.to_kind(Kind::Float);
        let original = denoised(self.config.prediction_type, &sample, output, &sigma);
        let derivative = (&sample - original) / &sigma;
        Ok((sample + derivative * (next - sigma)).to_kind(output.kind()))
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, timesteps: &[f32]) -> Result<Tensor> {
        self.sigmas.add_growing_noise(original, noise, timesteps)
    }
}
