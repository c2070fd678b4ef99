//! PNDM: pseudo linear multistep, after pseudo Runge-Kutta steps or without them (Liu et al., arXiv
//! 2202.09778; diffusers/schedulers/scheduling_pndm.py, 0.42.1).

use serde::Serialize;
use tch::Tensor;

use super::{
    NoiseDraw, NoiseSchedule, Solver, SolverStep,
    betas::{
        BetaConfig, PredictionType, SpacingConfig, TimestepSpacing, check_trained, fractional, one_minus,
    },
    remember,
};
use crate::{
    error::{Error, Result},
    nn::config::Config,
};

/// Outputs that a linear multistep step weighs, and timesteps that the pseudo Runge-Kutta steps visit.
const ORDER: usize = 4;

/// `PNDMScheduler`'s configuration; the default is upstream's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PndmConfig {
    #[serde(flatten)]
    pub betas: BetaConfig,
    #[serde(flatten)]
    pub spacing: SpacingConfig,
    /// Epsilon or v: upstream has no other.
    pub prediction_type: PredictionType,
    /// Stable Diffusion skips the pseudo Runge-Kutta steps.
    pub skip_prk_steps: bool,
    /// Whether the last step ends without noise, or at timestep 0's.
    pub set_alpha_to_one: bool,
}

impl Default for PndmConfig {
    fn default() -> Self {
        Self {
            betas: BetaConfig::default(),
            spacing: SpacingConfig::new(TimestepSpacing::Leading),
            prediction_type: PredictionType::Epsilon,
            skip_prk_steps: false,
            set_alpha_to_one: false,
        }
    }
}

impl PndmConfig {
    pub(super) fn read(config: &Config) -> Result<Self> {
        let default = Self::default();
        Ok(Self {
            betas: BetaConfig::read(config)?,
            spacing: SpacingConfig::read(config, default.spacing.timestep_spacing)?,
            prediction_type: config.get("prediction_type", default.prediction_type)?,
            skip_prk_steps: config.get("skip_prk_steps", default.skip_prk_steps)?,
            set_alpha_to_one: config.get("set_alpha_to_one", default.set_alpha_to_one)?,
        })
    }
}

pub(super) struct Pndm {
    config: PndmConfig,
    schedule: NoiseSchedule,
    final_alpha_cumprod: Tensor,
    /// Trained timesteps between one step and the next.
    stride: i64,
    prk_timesteps: Vec<i64>,
    /// The last outputs of the network, at most four, the newest last.
    ets: Vec<Tensor>,
    /// The sample that the running pseudo Runge-Kutta step (or the first, repeated step) started from.
    start: Option<Tensor>,
    /// The weighted sum of outputs of the running pseudo Runge-Kutta step.
    sum: Option<Tensor>,
}

impl Pndm {
    pub(super) fn new(config: &PndmConfig) -> Result<Self> {
        if config.prediction_type == PredictionType::Sample {
            return Err(Error::input("`prediction_type` = \"sample\" is not supported by PNDM").help(
                "its steps need the noise (epsilon or v_prediction): take ddim, unipc or dpmsolver++",
            ));
        }
        let schedule = NoiseSchedule::new(&config.betas, false)?;
        let final_alpha_cumprod = schedule.final_alpha_cumprod(config.set_alpha_to_one)?;
        Ok(Self {
            config: config.clone(),
            schedule,
            final_alpha_cumprod,
            stride: 0,
            prk_timesteps: Vec::new(),
            ets: Vec::new(),
            start: None,
            sum: None,
        })
    }

    /// One step of four, at ts, ts - h, ts - h and ts - 2h.
    fn step_prk(&mut self, step: &SolverStep) -> Result<Tensor> {
        let SolverStep { index, model_output: output, sample, .. } = *step;
        let timestep = step.whole_timestep();
        let towards = timestep - if index % 2 == 1 { 0 } else { self.stride / 2 };
        let from = self.prk_timesteps[index / 4 * 4];
        let weighted = output * if matches!(index % 4, 0 | 3) { 1.0 / 6.0 } else { 1.0 / 3.0 };
        let sum = match self.sum.take() {
            Some(sum) => sum + weighted,
            None => weighted,
        };
        if index % 4 == 0 {
            remember(&mut self.ets, output.shallow_clone(), ORDER);
            self.start = Some(sample.shallow_clone());
        }
        let output = if index % 4 == 3 {
            sum
        } else {
            self.sum = Some(sum);
            output.shallow_clone()
        };
        let start = self.start.as_ref().unwrap_or(sample);
        self.previous_sample(start, from, towards, &output)
    }

    fn step_plms(&mut self, step: &SolverStep) -> Result<Tensor> {
        let SolverStep { index, model_output: output, sample, .. } = *step;
        let timestep = step.whole_timestep();
        let (mut from, mut towards) = (timestep, timestep - self.stride);
        let mut start = sample.shallow_clone();
        if index == 1 {
            // The first step again, with the mean of the outputs at both of its ends.
            (from, towards) = (timestep + self.stride, timestep);
        } else {
            remember(&mut self.ets, output.shallow_clone(), ORDER);
        }
        let output = match &self.ets[..] {
            [_] if index == 0 => {
                self.start = Some(sample.shallow_clone());
                output.shallow_clone()
            }
            [e1] => {
                start = self.start.take().unwrap_or(start);
                (output + e1) / 2.0
            }
            [e2, e1] => (e1 * 3.0 - e2) / 2.0,
            [e3, e2, e1] => (e1 * 23.0 - e2 * 16.0 + e3 * 5.0) / 12.0,
            [e4, e3, e2, e1] => (e1 * 55.0 - e2 * 59.0 + e3 * 37.0 - e4 * 9.0) * (1.0 / 24.0),
            _ => return Err(Error::failure("PNDM's history has no output of the network")),
        };
        self.previous_sample(&start, from, towards, &output)
    }

    /// Formula (9) of the paper: the sample at `towards` from that at `from`.
    fn previous_sample(&self, sample: &Tensor, from: i64, towards: i64, output: &Tensor) -> Result<Tensor> {
        let alpha = self.schedule.alpha_cumprod(from)?;
        let alpha_prev = self.schedule.alpha_cumprod_or(towards, &self.final_alpha_cumprod)?;
        let (beta, beta_prev) = (one_minus(&alpha), one_minus(&alpha_prev));
        let epsilon = match self.config.prediction_type {
            PredictionType::VPrediction => alpha.sqrt() * output + beta.sqrt() * sample,
            _ => output.shallow_clone(),
        };
        let sample_coefficient = (&alpha_prev / &alpha).sqrt();
        let denominator = &alpha * beta_prev.sqrt() + (&alpha * &beta * &alpha_prev).sqrt();
        Ok(sample_coefficient * sample - (&alpha_prev - &alpha) * epsilon / denominator)
    }
}

impl Solver for Pndm {
    fn trained(&self) -> i64 {
        self.schedule.trained()
    }

    fn schedule(&self) -> Option<&NoiseSchedule> {
        Some(&self.schedule)
    }

    fn set_timesteps(&mut self, steps: i64) -> Result<Vec<f32>> {
        let trained = self.schedule.trained();
        let ts = self.config.spacing.timesteps(trained, steps);
        check_trained(&ts, trained, steps)?;
        self.stride = trained / steps;
        (self.ets, self.start, self.sum) = (Vec::new(), None, None);
        if self.config.skip_prk_steps {
            // The second timestep twice.
            self.prk_timesteps = Vec::new();
            let mut timesteps = ts.clone();
            if let Some(&second) = ts.get(1) {
                timesteps.insert(1, second);
            }
            return Ok(fractional(&timesteps));
        }
        if ts.len() < ORDER {
            return Err(Error::input(format!(
                "PNDM with pseudo Runge-Kutta steps cannot take {steps} steps"
            ))
            .help("take 4 steps or more, or choose another scheduler (or, in a folder of your own, set `skip_prk_steps` to true in scheduler_config.json)"));
        }
        // Each interval between the first four timesteps: its end, its middle twice, its start.
        let half = self.stride / 2;
        self.prk_timesteps = ts[..ORDER]
            .windows(2)
            .flat_map(|pair| [pair[0], pair[1] + half, pair[1] + half, pair[1]])
            .collect();
        let all: Vec<i64> = self.prk_timesteps.iter().chain(&ts[ORDER - 1..]).copied().collect();
        Ok(fractional(&all))
    }

    fn step(&mut self, step: &SolverStep, _: &mut NoiseDraw) -> Result<Tensor> {
        if step.index < self.prk_timesteps.len() { self.step_prk(step) } else { self.step_plms(step) }
    }
}
