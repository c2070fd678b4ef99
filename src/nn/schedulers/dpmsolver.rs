//! DPM-Solver++ multistep and its stochastic variant (Lu et al., arXiv 2211.01095;
//! diffusers/schedulers/scheduling_dpmsolver_multistep.py, 0.42.1).

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tch::{Kind, Tensor};

use super::{
    NoiseDraw, NoiseSchedule, Solver, SolverStep,
    betas::{
        BetaConfig, BetaSchedule, PredictionType, SpacingConfig, ThresholdConfig, TimestepSpacing, one_minus,
    },
    check_order, remember,
    sigma_spacing::{exponential, karras},
    sigmas::{FinalSigmasType, SigmaConfig, Sigmas, lu, timesteps_of},
    variance_noise,
};
use crate::{
    error::{Error, Result},
    nn::config::Config,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AlgorithmType {
    #[serde(rename = "dpmsolver++")]
    DpmSolverPlusPlus,
    /// The same with noise at each step.
    #[serde(rename = "sde-dpmsolver++")]
    SdeDpmSolverPlusPlus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DpmSolverType {
    // Names of other schedulers' solvers, which upstream takes as midpoint.
    #[serde(alias = "logrho", alias = "bh1", alias = "bh2")]
    Midpoint,
    Heun,
}

/// `DPMSolverMultistepScheduler`'s configuration; the default is upstream's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DpmSolverConfig {
    #[serde(flatten)]
    pub betas: BetaConfig,
    #[serde(flatten)]
    pub spacing: SpacingConfig,
    #[serde(flatten)]
    pub threshold: ThresholdConfig,
    #[serde(flatten)]
    pub sigmas: SigmaConfig,
    pub prediction_type: PredictionType,
    pub rescale_betas_zero_snr: bool,
    /// 1 to 3.
    pub solver_order: usize,
    pub algorithm_type: AlgorithmType,
    pub solver_type: DpmSolverType,
    pub lower_order_final: bool,
    pub euler_at_final: bool,
    /// Equal steps in the log-SNR; gives way to `use_karras_sigmas`, goes before
    /// `use_exponential_sigmas`.
    pub use_lu_lambdas: bool,
    /// Timesteps with a lower log(alpha / sigma) are left out. JSON has no -infinity: the default is
    /// left out when written.
    #[serde(skip_serializing_if = "is_infinite")]
    pub lambda_min_clipped: f64,
    /// `learned` or `learned_range` where the network's first three channels are its prediction and
    /// the rest a variance, which goes unused; other schedulers' values mean nothing here.
    pub variance_type: Option<String>,
}

fn is_infinite(value: &f64) -> bool {
    value.is_infinite()
}

impl Default for DpmSolverConfig {
    fn default() -> Self {
        Self {
            betas: BetaConfig::default(),
            spacing: SpacingConfig::new(TimestepSpacing::Linspace),
            threshold: ThresholdConfig::default(),
            sigmas: SigmaConfig::default(),
            prediction_type: PredictionType::Epsilon,
            rescale_betas_zero_snr: false,
            solver_order: 2,
            algorithm_type: AlgorithmType::DpmSolverPlusPlus,
            solver_type: DpmSolverType::Midpoint,
            lower_order_final: true,
            euler_at_final: false,
            use_lu_lambdas: false,
            lambda_min_clipped: f64::NEG_INFINITY,
            variance_type: None,
        }
    }
}

impl DpmSolverConfig {
    pub(super) fn read(config: &Config) -> Result<Self> {
        config.only(
            "variance_type",
            &[
                Value::Null,
                "learned".into(),
                "learned_range".into(),
                "fixed_small".into(),
                "fixed_small_log".into(),
                "fixed_large".into(),
                "fixed_large_log".into(),
            ],
        )?;
        let default = Self::default();
        let lambda_min_clipped = match config.get("lambda_min_clipped", Value::from("-Infinity"))? {
            Value::Number(n) => n.as_f64(),
            Value::String(s) if s == "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        };
        Ok(Self {
            betas: BetaConfig::read(config)?,
            spacing: SpacingConfig::read(config, default.spacing.timestep_spacing)?,
            threshold: ThresholdConfig::read(config)?,
            sigmas: SigmaConfig::read(config)?,
            prediction_type: config.get("prediction_type", default.prediction_type)?,
            rescale_betas_zero_snr: config.get("rescale_betas_zero_snr", false)?,
            solver_order: config.get("solver_order", default.solver_order)?,
            algorithm_type: config.get("algorithm_type", default.algorithm_type)?,
            solver_type: config.get("solver_type", default.solver_type)?,
            lower_order_final: config.get("lower_order_final", default.lower_order_final)?,
            euler_at_final: config.get("euler_at_final", default.euler_at_final)?,
            use_lu_lambdas: config.get("use_lu_lambdas", default.use_lu_lambdas)?,
            lambda_min_clipped: lambda_min_clipped
                .ok_or_else(|| config.unsupported("lambda_min_clipped", "a number or -Infinity"))?,
            variance_type: config.get("variance_type", None)?,
        })
    }

    fn learned_variance(&self) -> bool {
        matches!(self.variance_type.as_deref(), Some("learned" | "learned_range"))
            && self.prediction_type == PredictionType::Epsilon
    }
}

pub(super) struct DpmSolver {
    config: DpmSolverConfig,
    sigmas: Sigmas,
    /// The last predicted samples, at most `solver_order`, the newest last.
    outputs: Vec<Tensor>,
}

impl DpmSolver {
    pub(super) fn new(config: &DpmSolverConfig) -> Result<Self> {
        check_order(config.solver_order)?;
        config.threshold.check()?;
        config.sigmas.check()?;
        let sigmas = Sigmas::new(&config.betas, config.rescale_betas_zero_snr)?;
        Ok(Self { config: config.clone(), sigmas, outputs: Vec::new() })
    }

    /// The output as a sample without noise.
    fn convert(&self, step: &SolverStep) -> Result<Tensor> {
        let SolverStep { index, model_output, sample, .. } = *step;
        let output = if self.config.learned_variance() {
            if sample.size()[1] != 3 {
                return Err(Error::input("DPM-Solver's `variance_type` learned is for three channels only")
                    .help("sample with ddpm, or set `variance_type` to null"));
            }
            model_output.narrow(1, 0, 3)
        } else {
            model_output.shallow_clone()
        };
        let (alpha, sigma) = self.sigmas.alpha_sigma(index);
        self.config.threshold.apply(match self.config.prediction_type {
            PredictionType::Epsilon => (sample - sigma * output) / alpha,
            PredictionType::Sample => output,
            PredictionType::VPrediction => alpha * sample - sigma * output,
        })
    }

    fn update(&self, index: usize, order: usize, sample: &Tensor, noise: Option<Tensor>) -> Result<Tensor> {
        let lost = || Error::failure("DPM-Solver's history is shorter than its order");
        let newest = self.outputs.len().checked_sub(1).ok_or_else(lost)?;
        let output = |i: usize| newest.checked_sub(i).map(|n| &self.outputs[n]).ok_or_else(lost);
        let (alpha_t, sigma_t) = self.sigmas.alpha_sigma(index + 1);
        let (_, sigma_s0) = self.sigmas.alpha_sigma(index);
        let lambda_s0 = self.sigmas.lambda(index);
        let h = self.sigmas.lambda(index + 1) - &lambda_s0;
        let m0 = output(0)?;

        let mut x = match &noise {
            None => &sigma_t / &sigma_s0 * sample - &alpha_t * ((-&h).exp() - 1.0) * m0,
            Some(_) => {
                &sigma_t / &sigma_s0 * (-&h).exp() * sample + &alpha_t * one_minus(&(&h * -2.0).exp()) * m0
            }
        };
        if order > 1 {
            let lambda_s1 = self.sigmas.lambda(index - 1);
            let r0 = (&lambda_s0 - &lambda_s1) / &h;
            let m1 = output(1)?;
            let d1_0 = r0.reciprocal() * (m0 - m1);
            let (d1, d2) = if order == 2 {
                (d1_0, None)
            } else {
                let r1 = (&lambda_s1 - self.sigmas.lambda(index - 2)) / &h;
                let d1_1 = r1.reciprocal() * (m1 - output(2)?);
                let difference = &d1_0 - d1_1;
                let both = &r0 + &r1;
                (d1_0 + (&r0 / &both) * &difference, Some(both.reciprocal() * difference))
            };
            x += self.first_derivative(&alpha_t, &h, order, noise.is_some()) * d1;
            if let Some(d2) = d2 {
                x = match noise {
                    None => x - &alpha_t * (((-&h).exp() - 1.0 + &h) / h.square() - 0.5) * d2,
                    Some(_) => {
                        let h2 = &h * 2.0;
                        x + &alpha_t * ((one_minus(&(&h * -2.0).exp()) - &h2) / h2.square() - 0.5) * d2
                    }
                };
            }
        }
        if let Some(noise) = noise {
            x += &sigma_t * one_minus(&(&h * -2.0).exp()).sqrt() * noise;
        }
        Ok(x)
    }

    /// What the first derivative of the predicted sample is multiplied with.
    fn first_derivative(&self, alpha_t: &Tensor, h: &Tensor, order: usize, sde: bool) -> Tensor {
        let midpoint = order == 2 && self.config.solver_type == DpmSolverType::Midpoint;
        match (midpoint, sde) {
            (true, false) => alpha_t * ((-h).exp() - 1.0) * -0.5,
            (true, true) => alpha_t * one_minus(&(h * -2.0).exp()) * 0.5,
            (false, false) => alpha_t * (((-h).exp() - 1.0) / h + 1.0),
            (false, true) => alpha_t * (one_minus(&(h * -2.0).exp()) / (h * -2.0) + 1.0),
        }
    }
}

impl Solver for DpmSolver {
    fn trained(&self) -> i64 {
        self.sigmas.schedule.trained()
    }

    fn schedule(&self) -> Option<&NoiseSchedule> {
        Some(&self.sigmas.schedule)
    }

    fn doubles_channels(&self) -> bool {
        self.config.learned_variance()
    }

    fn set_timesteps(&mut self, steps: i64) -> Result<Vec<f32>> {
        self.outputs = Vec::new();
        let config = &self.config.sigmas;
        let zero = (config.final_sigmas_type == FinalSigmasType::Zero).then_some(0.0);
        let trained = self.sigmas.trained_levels()?;
        let n = trained.len() as i64;
        let clip = self.config.lambda_min_clipped as f32;
        let clipped = self.sigmas.trained_lambdas()?.iter().filter(|l| **l < clip).count() as i64;
        // Upstream rounds the timesteps of these levels, but for some it cuts them.
        let mut cut = self.config.betas.beta_schedule == BetaSchedule::SquaredcosCapV2;
        let levels = if config.use_karras_sigmas {
            karras(config.ends(&trained), steps)
        } else if self.config.use_lu_lambdas {
            lu(&trained, steps)
        } else if config.use_exponential_sigmas {
            cut = true;
            exponential(config.ends(&trained), steps)
        } else {
            if n - clipped < 1 {
                return Err(Error::input(format!("`lambda_min_clipped` {clip} leaves no timestep"))
                    .help("-5.1 is usual for squaredcos_cap_v2"));
            }
            self.sigmas.set_trained(self.config.spacing.solver_timesteps(n, n - clipped, steps), zero)?;
            return Ok(self.sigmas.timesteps().to_vec());
        };
        let timesteps = timesteps_of(&levels, &trained)
            .into_iter()
            .map(|t| if cut { t.trunc() } else { t.round_ties_even() } as f32)
            .collect();
        self.sigmas.set(timesteps, levels, zero)?;
        Ok(self.sigmas.timesteps().to_vec())
    }

    fn step(&mut self, step: &SolverStep, draw: &mut NoiseDraw) -> Result<Tensor> {
        let (index, count) = (step.index, self.sigmas.timesteps().len());
        let output = self.convert(step)?;
        let kind = output.kind();
        let noise = match self.config.algorithm_type {
            AlgorithmType::DpmSolverPlusPlus => None,
            AlgorithmType::SdeDpmSolverPlusPlus => Some(variance_noise(draw, &output, Kind::Float)?),
        };
        remember(&mut self.outputs, output, self.config.solver_order);

        let lower_order_final = self.config.lower_order_final && count < 15;
        let last = index + 1 == count
            && (self.config.euler_at_final
                || lower_order_final
                || self.config.sigmas.final_sigmas_type == FinalSigmasType::Zero);
        let second_last = index + 2 == count && lower_order_final;
        let mut order = self.config.solver_order.min(index + 1);
        if last {
            order = 1;
        } else if second_last {
            order = order.min(2);
        }
        let sample = step.sample.to_kind(Kind::Float);
        Ok(self.update(index, order, &sample, noise)?.to_kind(kind))
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, timesteps: &[f32]) -> Result<Tensor> {
        self.sigmas.add_noise(original, noise, timesteps)
    }
}
