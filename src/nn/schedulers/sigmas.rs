//! Noise levels (sigmas) of the schedulers that step from one to the next (diffusers/schedulers/
//! scheduling_unipc_multistep.py, scheduling_dpmsolver_multistep.py, scheduling_euler_discrete.py,
//! scheduling_heun_discrete.py, 0.42.1).

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::{
    NoiseSchedule,
    betas::{BetaConfig, TimestepSpacing, fractional, linspace, one_minus},
    per_sample,
    sigma_spacing::check_ends,
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
        check_ends(self.sigma_min, self.sigma_max)
    }

    /// The lowest and the highest level: its own, else the trained ones.
    pub(super) fn ends(&self, trained: &[f32]) -> (f64, f64) {
        let (min, max) = (f64::from(trained[0]), f64::from(trained[trained.len() - 1]));
        (self.sigma_min.unwrap_or(min), self.sigma_max.unwrap_or(max))
    }
}

/// The trained noise levels, and those of the steps.
pub(super) struct Sigmas {
    pub schedule: NoiseSchedule,
    /// (num_train_timesteps), f32.
    trained: Tensor,
    /// (steps + 1), f32, from high to low.
    steps: Tensor,
    timesteps: Vec<f32>,
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
        self.set(fractional(&timesteps), levels, last)
    }

    /// Takes the timesteps, their levels, and the level that the last step leads to; where that is
    /// none, the lowest trained one.
    pub(super) fn set(&mut self, timesteps: Vec<f32>, levels: Vec<f64>, last: Option<f64>) -> Result<()> {
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
    pub(super) fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    /// The trained levels at fractional timesteps, linear between trained ones; those outside take the
    /// nearest trained one's.
    pub(super) fn interpolated(&self, timesteps: &[f32]) -> Result<Vec<f64>> {
        let trained = self.trained_levels()?;
        let last = trained.len() - 1;
        let level = |t: &f32| {
            let t = f64::from(*t).clamp(0.0, last as f64);
            let below = (t as usize).min(last - 1);
            let (low, high) = (f64::from(trained[below]), f64::from(trained[below + 1]));
            if t == last as f64 { high } else { (high - low) * (t - below as f64) + low }
        };
        Ok(timesteps.iter().map(level).collect())
    }

    /// Sigma of step `index`, without dimensions: one more than there are steps.
    pub(super) fn level(&self, index: usize) -> Result<Tensor> {
        Ok(self.steps.f_get(index as i64)?)
    }

    /// The standard deviation that the first step expects of its sample.
    pub(super) fn init_noise_sigma(&self, spacing: TimestepSpacing) -> f64 {
        let highest = self.steps.max();
        let deviation = match spacing {
            TimestepSpacing::Linspace | TimestepSpacing::Trailing => highest,
            TimestepSpacing::Leading => (highest.square() + 1.0).sqrt(),
        };
        deviation.double_value(&[])
    }

    /// The network's input at step `index`: a sample whose noise has the standard deviation sigma, with
    /// the variance that training had.
    pub(super) fn scale_input(&self, index: usize, sample: &Tensor) -> Result<Tensor> {
        Ok(sample / (self.level(index)?.square() + 1.0).sqrt())
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

    /// Noise at the levels of the steps that have these timesteps, by a process that keeps the variance.
    /// As upstream does, a timestep that no step has takes the last step's level, and one that several
    /// steps have the second one's.
    pub(super) fn add_noise(&self, original: &Tensor, noise: &Tensor, timesteps: &[f32]) -> Result<Tensor> {
        let last = self.timesteps.len().saturating_sub(1) as i64;
        let sigma = self.levels_at(timesteps, Some(last), original)?;
        let (alpha, sigma) = alpha_sigma(&sigma);
        Ok(alpha * original + sigma * noise)
    }

    /// Noise at the levels of the steps that have these timesteps, added to samples that stay as they
    /// are.
    pub(super) fn add_growing_noise(
        &self,
        original: &Tensor,
        noise: &Tensor,
        timesteps: &[f32],
    ) -> Result<Tensor> {
        Ok(original + self.levels_at(timesteps, None, original)? * noise)
    }

    /// The levels of the steps with these timesteps, shaped to be multiplied with `like`; those of no
    /// step take the level of step `other`.
    fn levels_at(&self, timesteps: &[f32], other: Option<i64>, like: &Tensor) -> Result<Tensor> {
        let indices = step_indices(&self.timesteps, timesteps, other)?;
        per_sample(&self.steps, &indices, like)
    }
}

/// The steps that have these timesteps; where several have one, the second of them, as upstream.
///
/// # Errors
/// The steps are not chosen yet; a timestep of no step, where `other` does not say which to take.
pub(super) fn step_indices(steps: &[f32], timesteps: &[f32], other: Option<i64>) -> Result<Vec<i64>> {
    if steps.is_empty() {
        return Err(Error::failure("noise was to be added before the steps were chosen")
            .help("this scheduler's noise levels are those of its own steps; train with ddpm"));
    }
    let index = |timestep: &f32| {
        let mut same = (0..).zip(steps).filter(|(_, step)| *step == timestep).map(|(i, _)| i);
        let first = same.next();
        same.next()
            .or(first)
            .or(other)
            .ok_or_else(|| Error::failure(format!("noise at timestep {timestep}, which no step has")))
    };
    timesteps.iter().map(index).collect()
}

fn alpha_sigma(sigma: &Tensor) -> (Tensor, Tensor) {
    let alpha = (sigma.square() + 1.0).sqrt().reciprocal();
    let sigma = sigma * &alpha;
    (alpha, sigma)
}

/// `steps` levels equally far apart in their logarithms, between the trained ends, from f32 logarithms (Lu et al.'s uniform log-SNR).
pub(super) fn lu(trained: &[f32], steps: i64) -> Vec<f64> {
    let log = log_levels(trained);
    let (min, max) = (log[0], log[log.len() - 1]);
    linspace(0.0, 1.0, steps).iter().map(|ramp| (max + ramp * (min - max)).exp()).collect()
}

/// Logarithms rounded to f32, as upstream has them. numpy's own may be one unit in the last place off,
/// by processor: a timestep between two trained ones then may round the other way (about one in
/// 300,000).
pub(super) fn log_levels(trained: &[f32]) -> Vec<f64> {
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
