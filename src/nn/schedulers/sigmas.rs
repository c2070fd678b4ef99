//! Noise levels (sigmas) of the multistep solvers (diffusers/schedulers/scheduling_unipc_multistep.py
//! and scheduling_dpmsolver_multistep.py, 0.42.1).

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::{
    NoiseSchedule,
    betas::{BetaConfig, linspace, one_minus},
    per_sample,
};
use crate::{
    error::{Error, Result},
    nn::config::Config,
};

/// The noise level that the last step leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalSigmasType {
    Zero,
    SigmaMin,
}

/// The keys that choose the noise levels of the steps; without any, they are those of the timesteps.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SigmaConfig {
    /// Equal steps in the 7th root of sigma (Karras et al., arXiv 2206.00364).
    pub use_karras_sigmas: bool,
    /// Equal steps in the logarithm of sigma.
    pub use_exponential_sigmas: bool,
    pub final_sigmas_type: FinalSigmasType,
    /// Ends of the Karras or exponential levels, in place of the trained ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma_min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma_max: Option<f64>,
}

impl Default for SigmaConfig {
    fn default() -> Self {
        Self {
            use_karras_sigmas: false,
            use_exponential_sigmas: false,
            final_sigmas_type: FinalSigmasType::Zero,
            sigma_min: None,
            sigma_max: None,
        }
    }
}

impl SigmaConfig {
    /// Reads its own keys, and refuses the noise levels of flow models and those of a Beta distribution.
    pub(super) fn read(config: &Config) -> Result<Self> {
        for key in ["use_beta_sigmas", "use_flow_sigmas", "use_dynamic_shifting"] {
            config.only(key, &[false])?;
        }
        // Decide something only where the keys above are true.
        config.ignore(&["flow_shift", "time_shift_type"]);
        let default = Self::default();
        Ok(Self {
            use_karras_sigmas: config.get("use_karras_sigmas", false)?,
            use_exponential_sigmas: config.get("use_exponential_sigmas", false)?,
            final_sigmas_type: config.get("final_sigmas_type", default.final_sigmas_type)?,
            sigma_min: config.get("sigma_min", None)?,
            sigma_max: config.get("sigma_max", None)?,
        })
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.use_karras_sigmas && self.use_exponential_sigmas {
            return Err(Error::input("`use_karras_sigmas` and `use_exponential_sigmas` are both true")
                .help("only one of them can be used"));
        }
        for (key, value) in [("sigma_min", self.sigma_min), ("sigma_max", self.sigma_max)] {
            if let Some(value) = value.filter(|v| !(v.is_finite() && *v > 0.0)) {
                return Err(Error::input(format!("`{key}` is {value}")).help("a noise level is above 0"));
            }
        }
        Ok(())
    }
}

/// The schedule of a multistep solver: trained levels, and those of the steps.
pub(super) struct Sigmas {
    pub schedule: NoiseSchedule,
    /// (num_train_timesteps), f32.
    trained: Tensor,
    /// (timesteps + 1), f32, from high to low.
    steps: Tensor,
    timesteps: Vec<i64>,
}

impl Sigmas {
    /// Its schedule's `alphas_cumprod` ends at 2^-24 where `zero_snr` asks for 0: sigma stays finite.
    pub(super) fn new(betas: &BetaConfig, zero_snr: bool) -> Result<Self> {
        let schedule = NoiseSchedule::new(betas, zero_snr)?;
        if zero_snr {
            let mut last = schedule.alphas_cumprod.get(schedule.trained() - 1);
            let _ = last.fill_(2f64.powi(-24));
        }
        let trained = (one_minus(&schedule.alphas_cumprod) / &schedule.alphas_cumprod).sqrt();
        let steps = trained.slice(0, 0, 0, 1);
        Ok(Self { schedule, trained, steps, timesteps: Vec::new() })
    }

    /// log(alpha / sigma) of each trained timestep, from low timesteps to high.
    pub(super) fn trained_lambdas(&self) -> Result<Vec<f32>> {
        let alphas = &self.schedule.alphas_cumprod;
        Ok(Vec::try_from(alphas.sqrt().log() - one_minus(alphas).sqrt().log())?)
    }

    /// The trained levels, from low to high.
    pub(super) fn trained_levels(&self) -> Result<Vec<f32>> {
        Ok(Vec::try_from(&self.trained)?)
    }

    /// Takes the levels of trained timesteps; those outside take the nearest trained one's.
    pub(super) fn set_trained(&mut self, timesteps: Vec<i64>, last: Option<f64>) -> Result<()> {
        let trained = self.trained_levels()?;
        let highest = trained.len() as i64 - 1;
        let levels = timesteps.iter().map(|&t| f64::from(trained[t.clamp(0, highest) as usize])).collect();
        self.set(timesteps, levels, last)
    }

    /// Takes the timesteps, their levels, and the level that the last step leads to; where that is
    /// none, the lowest trained one.
    pub(super) fn set(&mut self, timesteps: Vec<i64>, levels: Vec<f64>, last: Option<f64>) -> Result<()> {
        let last = match last {
            Some(last) => last,
            None => f64::from(self.trained_levels()?[0]),
        };
        let levels: Vec<f32> = levels.into_iter().chain([last]).map(|s| s as f32).collect();
        self.steps = Tensor::f_from_slice(&levels)?;
        self.timesteps = timesteps;
        Ok(())
    }

    /// One for each step, from high to low.
    pub(super) fn timesteps(&self) -> &[i64] {
        &self.timesteps
    }

    /// (alpha, sigma) of step `index`: those of a process that keeps the variance.
    pub(super) fn alpha_sigma(&self, index: usize) -> (Tensor, Tensor) {
        alpha_sigma(&self.steps.get(index as i64))
    }

    /// log(alpha) - log(sigma) of step `index`.
    pub(super) fn lambda(&self, index: usize) -> Tensor {
        let (alpha, sigma) = self.alpha_sigma(index);
        alpha.log() - sigma.log()
    }

    /// Noise at the levels of the steps that have these timesteps. As upstream does, a timestep that
    /// no step has takes the last step's level, and one that several steps have the second one's.
    pub(super) fn add_noise(&self, original: &Tensor, noise: &Tensor, timesteps: &[i64]) -> Result<Tensor> {
        if self.timesteps.is_empty() {
            return Err(Error::failure("noise was to be added before the steps were chosen")
                .help("a multistep solver's noise levels are those of its own steps; train with ddpm"));
        }
        let indices: Vec<i64> = timesteps
            .iter()
            .map(|t| {
                let mut of_t = (0..).zip(&self.timesteps).filter(|(_, s)| *s == t).map(|(i, _)| i);
                let first = of_t.next();
                of_t.next().or(first).unwrap_or(self.timesteps.len() as i64 - 1)
            })
            .collect();
        let sigma = per_sample(&self.steps, &indices, original)?;
        let (alpha, sigma) = alpha_sigma(&sigma);
        Ok(alpha * original + sigma * noise)
    }
}

fn alpha_sigma(sigma: &Tensor) -> (Tensor, Tensor) {
    let alpha = (sigma.square() + 1.0).sqrt().reciprocal();
    let sigma = sigma * &alpha;
    (alpha, sigma)
}

/// `steps` levels from high to low between the trained ends (or those of `config`), Karras et al.'s.
pub(super) fn karras(trained: &[f32], config: &SigmaConfig, steps: i64) -> Vec<f64> {
    let (min, max) = ends(trained, config);
    let (min, max) = (min.powf(1.0 / 7.0), max.powf(1.0 / 7.0));
    linspace(0.0, 1.0, steps).iter().map(|ramp| (max + ramp * (min - max)).powf(7.0)).collect()
}

/// `steps` levels from high to low, equally far apart in their logarithms.
pub(super) fn exponential(trained: &[f32], config: &SigmaConfig, steps: i64) -> Vec<f64> {
    let (min, max) = ends(trained, config);
    linspace(max.ln(), min.ln(), steps).into_iter().map(f64::exp).collect()
}

/// As [`exponential`] between the trained ends, from f32 logarithms (Lu et al.'s uniform log-SNR).
pub(super) fn lu(trained: &[f32], steps: i64) -> Vec<f64> {
    let log = log_levels(trained);
    let (min, max) = (log[0], log[log.len() - 1]);
    linspace(0.0, 1.0, steps).iter().map(|ramp| (max + ramp * (min - max)).exp()).collect()
}

fn ends(trained: &[f32], config: &SigmaConfig) -> (f64, f64) {
    let (min, max) = (f64::from(trained[0]), f64::from(trained[trained.len() - 1]));
    (config.sigma_min.unwrap_or(min), config.sigma_max.unwrap_or(max))
}

/// Logarithms rounded to f32, as upstream has them. numpy's own may be one unit in the last place off,
/// by processor: a timestep between two trained ones then may round the other way (about one in
/// 300,000).
fn log_levels(trained: &[f32]) -> Vec<f64> {
    trained.iter().map(|&s| f64::from(f64::from(s).ln() as f32)).collect()
}

/// The timesteps, fractions of them included, at which training had these levels: linear in the
/// logarithm between trained timesteps.
pub(super) fn timesteps_of(levels: &[f64], trained: &[f32]) -> Vec<f64> {
    let log = log_levels(trained);
    levels
        .iter()
        .map(|level| {
            let wanted = level.max(1e-10).ln();
            // The last one that is not above: with a zero terminal SNR the highest level may lie below
            // others.
            let below = log.iter().rposition(|l| *l <= wanted).unwrap_or(0).min(log.len() - 2);
            let (low, high) = (log[below], log[below + 1]);
            // The difference of two f32 is an f32.
            let w = ((low - wanted) / f64::from((low - high) as f32)).clamp(0.0, 1.0);
            (1.0 - w) * below as f64 + w * (below + 1) as f64
        })
        .collect()
}
