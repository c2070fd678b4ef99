//! UniPC multistep, a predictor and a corrector (Zhao et al., arXiv 2302.04867;
//! diffusers/schedulers/scheduling_unipc_multistep.py, 0.42.1).

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tch::Tensor;

use super::{
    NoiseDraw, NoiseSchedule, Solver, SolverStep,
    betas::{BetaConfig, PredictionType, SpacingConfig, ThresholdConfig, TimestepSpacing},
    check_order, remember,
    sigma_spacing::{exponential, karras},
    sigmas::{FinalSigmasType, SigmaConfig, Sigmas, timesteps_of},
};
use crate::{
    error::{Error, Result},
    nn::config::Config,
};

/// The function B(h) of the paper: h itself, or exp(h) - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UniPcSolverType {
    Bh1,
    // Names of other schedulers' solvers, which upstream takes as bh2.
    #[serde(alias = "midpoint", alias = "heun", alias = "logrho")]
    Bh2,
}

/// `UniPCMultistepScheduler`'s configuration; the default is upstream's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UniPcConfig {
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
    pub solver_type: UniPcSolverType,
    /// Whether the solver works on predicted samples or on predicted noise.
    pub predict_x0: bool,
    pub lower_order_final: bool,
    /// Steps (from 0) whose result is not corrected.
    pub disable_corrector: Vec<i64>,
}

impl Default for UniPcConfig {
    fn default() -> Self {
        Self {
            betas: BetaConfig::default(),
            spacing: SpacingConfig::new(TimestepSpacing::Linspace),
            threshold: ThresholdConfig::default(),
            sigmas: SigmaConfig::default(),
            prediction_type: PredictionType::Epsilon,
            rescale_betas_zero_snr: false,
            solver_order: 2,
            solver_type: UniPcSolverType::Bh2,
            predict_x0: true,
            lower_order_final: true,
            disable_corrector: Vec::new(),
        }
    }
}

impl UniPcConfig {
    pub(super) fn read(config: &Config) -> Result<Self> {
        config.only("solver_p", &[Value::Null])?;
        config.only("shift_terminal", &[Value::Null])?;
        let default = Self::default();
        Ok(Self {
            betas: BetaConfig::read(config)?,
            spacing: SpacingConfig::read(config, default.spacing.timestep_spacing)?,
            threshold: ThresholdConfig::read(config)?,
            sigmas: SigmaConfig::read(config)?,
            prediction_type: config.get("prediction_type", default.prediction_type)?,
            rescale_betas_zero_snr: config.get("rescale_betas_zero_snr", false)?,
            solver_order: config.get("solver_order", default.solver_order)?,
            solver_type: config.get("solver_type", default.solver_type)?,
            predict_x0: config.get("predict_x0", default.predict_x0)?,
            lower_order_final: config.get("lower_order_final", default.lower_order_final)?,
            disable_corrector: config.get("disable_corrector", default.disable_corrector)?,
        })
    }
}

pub(super) struct UniPc {
    config: UniPcConfig,
    sigmas: Sigmas,
    /// The last converted outputs of the network, at most `solver_order`, the newest last.
    outputs: Vec<Tensor>,
    /// Order of the last prediction, and the sample that it started from.
    last: Option<(usize, Tensor)>,
}

impl UniPc {
    pub(super) fn new(config: &UniPcConfig) -> Result<Self> {
        check_order(config.solver_order)?;
        config.threshold.check()?;
        config.sigmas.check()?;
        if config.sigmas.final_sigmas_type == FinalSigmasType::Zero {
            let fault = if config.solver_type == UniPcSolverType::Bh1 {
                Some("`solver_type` = \"bh1\"")
            } else if !config.predict_x0 {
                Some("`predict_x0` = false")
            } else if !config.lower_order_final && config.solver_order > 1 {
                Some("`lower_order_final` = false")
            } else {
                None
            };
            if let Some(fault) = fault {
                return Err(Error::input(format!(
                    "{fault} with `final_sigmas_type` = \"zero\": the last step divides by zero"
                ))
                .help("set `final_sigmas_type` to \"sigma_min\"; diffusers gives NaN here"));
            }
        }
        let sigmas = Sigmas::new(&config.betas, config.rescale_betas_zero_snr)?;
        Ok(Self { config: config.clone(), sigmas, outputs: Vec::new(), last: None })
    }

    /// The output as a sample without noise, or as noise where the solver works on that.
    fn convert(&self, step: &SolverStep) -> Result<Tensor> {
        let SolverStep { index, model_output: output, sample, .. } = *step;
        let (alpha, sigma) = self.sigmas.alpha_sigma(index);
        if !self.config.predict_x0 {
            return Ok(match self.config.prediction_type {
                PredictionType::Epsilon => output.shallow_clone(),
                PredictionType::Sample => (sample - alpha * output) / sigma,
                PredictionType::VPrediction => alpha * output + sigma * sample,
            });
        }
        self.config.threshold.apply(match self.config.prediction_type {
            PredictionType::Epsilon => (sample - sigma * output) / alpha,
            PredictionType::Sample => output.shallow_clone(),
            PredictionType::VPrediction => alpha * sample - sigma * output,
        })
    }

    /// The sample at level `to` from `x` at the level before it, by the outputs of that level and of
    /// `order` - 1 levels before; with `corrected`, the output at `to`, by that one too.
    fn update(&self, x: &Tensor, to: usize, order: usize, corrected: Option<&Tensor>) -> Result<Tensor> {
        let lost = || Error::failure("UniPC's history is shorter than its order");
        let (from, newest) = (to - 1, self.outputs.len().checked_sub(1).ok_or_else(lost)?);
        let m0 = &self.outputs[newest];
        let ((alpha_t, sigma_t), (alpha_s0, sigma_s0)) =
            (self.sigmas.alpha_sigma(to), self.sigmas.alpha_sigma(from));
        let lambda_s0 = self.sigmas.lambda(from);
        let h = self.sigmas.lambda(to) - &lambda_s0;

        let (mut rks, mut d1s) = (Vec::new(), Vec::new());
        for i in 1..order {
            let mi = newest.checked_sub(i).map(|n| &self.outputs[n]).ok_or_else(lost)?;
            let rk = (self.sigmas.lambda(from - i) - &lambda_s0) / &h;
            d1s.push((mi - m0) / &rk);
            rks.push(rk);
        }
        rks.push(Tensor::from(1.0f32));
        let rks = Tensor::f_stack(&rks, 0)?;

        let hh = if self.config.predict_x0 { -h } else { h };
        let h_phi_1 = hh.expm1();
        let b_h = match self.config.solver_type {
            UniPcSolverType::Bh1 => hh.shallow_clone(),
            UniPcSolverType::Bh2 => hh.expm1(),
        };
        let mut h_phi_k = &h_phi_1 / &hh - 1.0;
        let mut factorial = 1.0;
        let (mut r, mut b) = (Vec::new(), Vec::new());
        for i in 1..=order as i64 {
            r.push(rks.pow_tensor_scalar(i - 1));
            b.push(&h_phi_k * factorial / &b_h);
            factorial *= (i + 1) as f64;
            h_phi_k = h_phi_k / &hh - 1.0 / factorial;
        }
        let (r, b) = (Tensor::f_stack(&r, 0)?, Tensor::f_stack(&b, 0)?);

        let (linear, m0_coefficient, residual_coefficient) = if self.config.predict_x0 {
            (&sigma_t / &sigma_s0 * x, &alpha_t * &h_phi_1, &alpha_t * &b_h)
        } else {
            (&alpha_t / &alpha_s0 * x, &sigma_t * &h_phi_1, &sigma_t * &b_h)
        };
        let base = linear - m0_coefficient * m0;
        // A predictor's weights, or a corrector's with that of the new output at the end.
        let unknowns = order as i64 - i64::from(corrected.is_none());
        let rhos = match (order, corrected) {
            (1, _) | (2, None) => Tensor::from_slice(&[0.5f32]),
            _ => {
                let r = r.narrow(0, 0, unknowns).narrow(1, 0, unknowns);
                Tensor::f_linalg_solve(&r, &b.narrow(0, 0, unknowns), true)?
            }
        };
        let rhos = rhos.to_device(x.device()).to_kind(m0.kind());
        let history = if d1s.is_empty() {
            None
        } else {
            let d1s = Tensor::f_stack(&d1s, 1)?;
            let weights = rhos.narrow(0, 0, order as i64 - 1);
            Some(Tensor::f_einsum("k,bkc...->bc...", &[weights, d1s], None::<i64>)?)
        };
        let residual = match (history, corrected) {
            (history, Some(output)) => {
                let new = rhos.get(order as i64 - 1) * (output - m0);
                Some(match history {
                    Some(history) => history + new,
                    None => new,
                })
            }
            (history, None) => history,
        };
        Ok(match residual {
            Some(residual) => base - residual_coefficient * residual,
            None => base,
        }
        .to_kind(x.kind()))
    }
}

impl Solver for UniPc {
    fn trained(&self) -> i64 {
        self.sigmas.schedule.trained()
    }

    fn schedule(&self) -> Option<&NoiseSchedule> {
        Some(&self.sigmas.schedule)
    }

    fn set_timesteps(&mut self, steps: i64) -> Result<Vec<f32>> {
        (self.outputs, self.last) = (Vec::new(), None);
        let config = &self.config.sigmas;
        let zero = (config.final_sigmas_type == FinalSigmasType::Zero).then_some(0.0);
        let trained = self.sigmas.trained_levels()?;
        if config.use_karras_sigmas || config.use_exponential_sigmas {
            let levels = if config.use_karras_sigmas {
                karras(config.ends(&trained), steps)
            } else {
                exponential(config.ends(&trained), steps)
            };
            // Upstream rounds Karras' timesteps, and cuts the exponential ones.
            let timesteps = timesteps_of(&levels, &trained)
                .into_iter()
                .map(|t| if config.use_karras_sigmas { t.round_ties_even() } else { t.trunc() } as f32)
                .collect();
            let last = zero.or(levels.last().copied());
            self.sigmas.set(timesteps, levels, last)?;
        } else {
            let n = trained.len() as i64;
            self.sigmas.set_trained(self.config.spacing.solver_timesteps(n, n, steps), zero)?;
        }
        Ok(self.sigmas.timesteps().to_vec())
    }

    fn step(&mut self, step: &SolverStep, _: &mut NoiseDraw) -> Result<Tensor> {
        let SolverStep { index, sample, .. } = *step;
        let output = self.convert(step)?;
        let sample = match self.last.take() {
            Some((order, last)) if !self.config.disable_corrector.contains(&(index as i64 - 1)) => {
                self.update(&last, index, order, Some(&output))?
            }
            _ => sample.shallow_clone(),
        };
        remember(&mut self.outputs, output, self.config.solver_order);

        let mut order = self.config.solver_order.min(index + 1);
        if self.config.lower_order_final {
            order = order.min(self.sigmas.timesteps().len() - index);
        }
        let previous = self.update(&sample, index + 1, order, None)?;
        self.last = Some((order, sample));
        Ok(previous)
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, timesteps: &[f32]) -> Result<Tensor> {
        self.sigmas.add_noise(original, noise, timesteps)
    }
}
