//! Euler's method on flow matching's straight paths from noise (sigma 1) to samples (sigma 0): the
//! network predicts the velocity noise - sample (Lipman et al., arXiv 2210.02747; Esser et al., arXiv
//! 2403.03206; diffusers/schedulers/scheduling_flow_match_euler_discrete.py, 0.42.1).

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::{
    NoiseDraw, NoiseSchedule, Solver, SolverStep,
    betas::{check_train_timesteps, linspace, one_minus},
    per_sample,
    sigma_spacing::SigmaSpacingConfig,
    sigmas::step_indices,
    variance_noise,
};
use crate::{
    error::{Error, Result},
    nn::config::Config,
};

/// How `use_dynamic_shifting` would shift the noise levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeShiftType {
    Exponential,
    Linear,
}

/// `FlowMatchEulerDiscreteScheduler`'s configuration; the default is upstream's. The network is given
/// the timestep sigma times `num_train_timesteps`, fractions included.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FlowEulerConfig {
    /// 2 to 1,000,000.
    pub num_train_timesteps: i64,
    /// Above 0, at most 1e6; above 1 more of the steps are at high noise levels (Esser et al., eq. 23).
    pub shift: f64,
    /// False: upstream's unconditional and text pipelines do not say by how much to shift.
    pub use_dynamic_shifting: bool,
    /// The next five decide nothing without `use_dynamic_shifting`.
    pub base_shift: Option<f64>,
    pub max_shift: Option<f64>,
    pub base_image_seq_len: i64,
    pub max_image_seq_len: i64,
    pub time_shift_type: TimeShiftType,
    /// For networks whose sigma is 0 at noise and 1 at samples.
    pub invert_sigmas: bool,
    /// The level of the last step's start, 0 to below 1; 0 as none.
    pub shift_terminal: Option<f64>,
    #[serde(flatten)]
    pub levels: SigmaSpacingConfig,
    /// Whether each step predicts the sample and mixes fresh noise into it.
    pub stochastic_sampling: bool,
    /// The steps start at 1, 1 - 1/n, …, 1/n before `shift` moves them, and not down to the lowest trained level: upstream
    /// is given such `sigmas` by its pipelines, no file says so.
    #[serde(skip)]
    pub even: bool,
}

impl Default for FlowEulerConfig {
    fn default() -> Self {
        Self {
            num_train_timesteps: 1000,
            shift: 1.0,
            use_dynamic_shifting: false,
            base_shift: Some(0.5),
            max_shift: Some(1.15),
            base_image_seq_len: 256,
            max_image_seq_len: 4096,
            time_shift_type: TimeShiftType::Exponential,
            invert_sigmas: false,
            shift_terminal: None,
            levels: SigmaSpacingConfig::default(),
            stochastic_sampling: false,
            even: false,
        }
    }
}

impl FlowEulerConfig {
    pub(super) fn read(config: &Config) -> Result<Self> {
        let default = Self::default();
        if config.get("use_dynamic_shifting", false)? {
            return Err(config.unsupported(
                "use_dynamic_shifting",
                "diffusers' unconditional and text pipelines do not pass the shift that it needs either; set \
                 it to false, and `shift` to exp(mu) (of `time_shift_type` \"linear\" to mu)",
            ));
        }
        Ok(Self {
            num_train_timesteps: config.get("num_train_timesteps", default.num_train_timesteps)?,
            shift: config.get("shift", default.shift)?,
            use_dynamic_shifting: false,
            base_shift: config.get("base_shift", default.base_shift)?,
            max_shift: config.get("max_shift", default.max_shift)?,
            base_image_seq_len: config.get("base_image_seq_len", default.base_image_seq_len)?,
            max_image_seq_len: config.get("max_image_seq_len", default.max_image_seq_len)?,
            time_shift_type: config.get("time_shift_type", default.time_shift_type)?,
            invert_sigmas: config.get("invert_sigmas", default.invert_sigmas)?,
            shift_terminal: config.get("shift_terminal", default.shift_terminal)?,
            levels: SigmaSpacingConfig::read(config)?,
            stochastic_sampling: config.get("stochastic_sampling", default.stochastic_sampling)?,
            even: false,
        })
    }
}

pub(super) struct FlowEuler {
    config: FlowEulerConfig,
    /// The lowest and the highest trained level.
    trained_ends: (f64, f64),
    timesteps: Vec<f32>,
    /// (steps + 1), f32.
    sigmas: Tensor,
}

impl FlowEuler {
    pub(super) fn new(config: &FlowEulerConfig) -> Result<Self> {
        check_train_timesteps(config.num_train_timesteps)?;
        config.levels.check()?;
        if !(config.shift > 0.0 && config.shift <= 1e6) {
            return Err(Error::input(format!("`shift` is {}", config.shift))
                .help("above 0, at most 1000000; 1 leaves the noise levels as they are"));
        }
        if let Some(terminal) = config.shift_terminal.filter(|end| !(0.0..1.0).contains(end)) {
            return Err(Error::input(format!("`shift_terminal` is {terminal}"))
                .help("a noise level: 0 to below 1; null for none"));
        }
        let trained = config.num_train_timesteps;
        let ends = Tensor::from_slice(&[1.0f32, trained as f32]) / trained as f64;
        let ends = &ends * config.shift / (ends * (config.shift - 1.0) + 1.0);
        let (low, high) = (ends.double_value(&[0]), ends.double_value(&[1]));
        let sigmas = Tensor::f_from_slice(&[0.0f32])?;
        Ok(Self { config: config.clone(), trained_ends: (low, high), timesteps: Vec::new(), sigmas })
    }

    /// (steps + 1), f32: of the steps that were set, and of the end.
    pub(super) fn sigmas(&self) -> &Tensor {
        &self.sigmas
    }

    /// The levels of the steps' starts, from high to low.
    fn levels(&self, steps: i64) -> Vec<f64> {
        let (config, trained) = (&self.config, self.trained() as f64);
        let (low, high) = match config.even {
            true => (1.0 / steps as f64, 1.0),
            // These ends are shifted already, and are shifted again, as upstream.
            false => self.trained_ends,
        };
        let mut levels: Vec<f64> = linspace(high * trained, low * trained, steps)
            .into_iter()
            .map(|timestep| timestep / trained)
            .map(|sigma| config.shift * sigma / (1.0 + (config.shift - 1.0) * sigma))
            .collect();
        if let (Some(terminal), Some(&last)) = (config.shift_terminal.filter(|t| *t > 0.0), levels.last()) {
            let scale = (1.0 - last) / (1.0 - terminal);
            for sigma in &mut levels {
                *sigma = 1.0 - (1.0 - *sigma) / scale;
            }
        }
        config.levels.spaced(&levels, steps).unwrap_or(levels)
    }
}

impl Solver for FlowEuler {
    fn trained(&self) -> i64 {
        self.config.num_train_timesteps
    }

    fn schedule(&self) -> Option<&NoiseSchedule> {
        None
    }

    fn set_timesteps(&mut self, steps: i64) -> Result<Vec<f32>> {
        let levels: Vec<f32> = self.levels(steps).into_iter().map(|sigma| sigma as f32).collect();
        let mut sigmas = Tensor::f_from_slice(&levels)?;
        if self.config.invert_sigmas {
            sigmas = one_minus(&sigmas);
        }
        self.timesteps = Vec::try_from(&sigmas * self.trained() as f64)?;
        let last = Tensor::from_slice(&[f32::from(u8::from(self.config.invert_sigmas))]);
        self.sigmas = Tensor::f_cat(&[sigmas, last], 0)?;
        Ok(self.timesteps.clone())
    }

    fn step(&mut self, step: &SolverStep, draw: &mut NoiseDraw) -> Result<Tensor> {
        let SolverStep { index, model_output: output, sample, .. } = *step;
        let (sigma, next) = (self.sigmas.f_get(index as i64)?, self.sigmas.f_get(index as i64 + 1)?);
        let sample = sample.to_kind(Kind::Float);
        let previous = if self.config.stochastic_sampling {
            let original = &sample - sigma * output;
            let noise = variance_noise(draw, &sample, Kind::Float)?;
            one_minus(&next) * original + next * noise
        } else {
            sample + (next - sigma) * output
        };
        Ok(previous.to_kind(output.kind()))
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, timesteps: &[f32]) -> Result<Tensor> {
        let indices = step_indices(&self.timesteps, timesteps, None)?;
        let sigma = per_sample(&self.sigmas, &indices, original)?;
        Ok(&sigma * noise + one_minus(&sigma) * original)
    }
}
