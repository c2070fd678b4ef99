//! DDIM (Song et al.; diffusers/schedulers/scheduling_ddim.py, 0.42.1).

use serde::Serialize;
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

/// `DDIMScheduler`'s configuration; the default is upstream's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DdimConfig {
    #[serde(flatten)]
    pub betas: BetaConfig,
    #[serde(flatten)]
    pub spacing: SpacingConfig,
    #[serde(flatten)]
    pub clip: ClipConfig,
    pub prediction_type: PredictionType,
    /// Whether the last step ends without noise, or at timestep 0's.
    pub set_alpha_to_one: bool,
    pub rescale_betas_zero_snr: bool,
}

impl Default for DdimConfig {
    fn default() -> Self {
        Self {
            betas: BetaConfig::default(),
            spacing: SpacingConfig::new(TimestepSpacing::Leading),
            clip: ClipConfig::default(),
            prediction_type: PredictionType::Epsilon,
            set_alpha_to_one: true,
            rescale_betas_zero_snr: false,
        }
    }
}

impl DdimConfig {
    pub(super) fn read(config: &Config) -> Result<Self> {
        let default = Self::default();
        Ok(Self {
            betas: BetaConfig::read(config)?,
            spacing: SpacingConfig::read(config, default.spacing.timestep_spacing)?,
            clip: ClipConfig::read(config, true)?,
            prediction_type: config.get("prediction_type", default.prediction_type)?,
            set_alpha_to_one: config.get("set_alpha_to_one", default.set_alpha_to_one)?,
            rescale_betas_zero_snr: config.get("rescale_betas_zero_snr", false)?,
        })
    }
}

pub(super) struct Ddim {
    config: DdimConfig,
    schedule: NoiseSchedule,
    final_alpha_cumprod: Tensor,
    /// Trained timesteps between one step and the next.
    stride: i64,
    eta: f64,
    use_clipped_model_output: bool,
}

impl Ddim {
    pub(super) fn new(config: &DdimConfig) -> Result<Self> {
        config.clip.check()?;
        let schedule = NoiseSchedule::new(&config.betas, config.rescale_betas_zero_snr)?;
        let final_alpha_cumprod = schedule.final_alpha_cumprod(config.set_alpha_to_one)?;
        Ok(Self {
            config: config.clone(),
            schedule,
            final_alpha_cumprod,
            stride: 0,
            eta: 0.0,
            use_clipped_model_output: false,
        })
    }
}

impl Solver for Ddim {
    fn trained(&self) -> i64 {
        self.schedule.trained()
    }

    fn schedule(&self) -> Option<&NoiseSchedule> {
        Some(&self.schedule)
    }

    fn set_eta(&mut self, eta: f64, use_clipped_model_output: bool) -> Result<()> {
        if !(0.0..=1.0).contains(&eta) {
            return Err(Error::input(format!("eta is {eta}")).help("0 (no noise) to 1 (as much as DDPM's)"));
        }
        (self.eta, self.use_clipped_model_output) = (eta, use_clipped_model_output);
        Ok(())
    }

    fn set_timesteps(&mut self, steps: i64) -> Result<Vec<f32>> {
        let trained = self.schedule.trained();
        let timesteps = self.config.spacing.timesteps(trained, steps);
        check_trained(&timesteps, trained, steps)?;
        self.stride = trained / steps;
        Ok(fractional(&timesteps))
    }

    fn step(&mut self, step: &SolverStep, draw: &mut NoiseDraw) -> Result<Tensor> {
        let SolverStep { model_output: output, sample, .. } = *step;
        let timestep = step.whole_timestep();
        let alpha_prod = self.schedule.alpha_cumprod(timestep)?;
        let alpha_prod_prev =
            self.schedule.alpha_cumprod_or(timestep - self.stride, &self.final_alpha_cumprod)?;
        let beta_prod = one_minus(&alpha_prod);
        let (root_alpha, root_beta) = (alpha_prod.sqrt(), beta_prod.sqrt());

        let epsilon_of = |original: &Tensor| (sample - &root_alpha * original) / &root_beta;
        let (original, mut epsilon) = match self.config.prediction_type {
            PredictionType::Epsilon => ((sample - &root_beta * output) / &root_alpha, output.shallow_clone()),
            PredictionType::Sample => (output.shallow_clone(), epsilon_of(output)),
            PredictionType::VPrediction => {
                (&root_alpha * sample - &root_beta * output, &root_alpha * output + &root_beta * sample)
            }
        };
        let original = self.config.clip.apply(original)?;
        let variance =
            (one_minus(&alpha_prod_prev) / &beta_prod) * one_minus(&(&alpha_prod / &alpha_prod_prev));
        let deviation = variance.sqrt() * self.eta;
        if self.use_clipped_model_output {
            epsilon = epsilon_of(&original);
        }
        let direction = (one_minus(&alpha_prod_prev) - deviation.square()).sqrt() * epsilon;
        let previous = alpha_prod_prev.sqrt() * original + direction;
        if self.eta == 0.0 {
            return Ok(previous);
        }
        Ok(previous + deviation * variance_noise(draw, output, output.kind())?)
    }
}
