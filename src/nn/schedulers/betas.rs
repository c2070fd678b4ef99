//! The noise that training added at each timestep, and which of those timesteps are visited when
//! sampling (the parts that diffusers' schedulers share, 0.42.1).

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::{
    error::{Error, Result},
    nn::config::Config,
};

/// How the variances grow from `beta_start` to `beta_end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    Linear,
    /// Linear in the square roots: Stable Diffusion's.
    ScaledLinear,
    /// Squared cosine, each beta at most 0.999 (Nichol and Dhariwal); knows no `beta_start`, `beta_end`.
    SquaredcosCapV2,
    /// `alpha_bar` = exp(-12 t), each beta at most 0.999; `HeunDiscreteScheduler`'s only.
    Exp,
}

/// What the network's output stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PredictionType {
    /// The noise.
    Epsilon,
    /// The sample without noise.
    Sample,
    /// `sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) sample` (Salimans and Ho).
    VPrediction,
}

/// Where the visited timesteps lie among the trained ones (table 2 of Lin et al., arXiv 2305.08891).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepSpacing {
    Linspace,
    Leading,
    Trailing,
}

/// The keys of every scheduler's configuration that describe the trained noise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BetaConfig {
    /// 2 to 1,000,000.
    pub num_train_timesteps: i64,
    pub beta_start: f64,
    pub beta_end: f64,
    pub beta_schedule: BetaSchedule,
    /// The betas themselves, one for each trained timestep, in place of a schedule.
    pub trained_betas: Option<Vec<f64>>,
}

impl Default for BetaConfig {
    fn default() -> Self {
        Self {
            num_train_timesteps: 1000,
            beta_start: 1e-4,
            beta_end: 0.02,
            beta_schedule: BetaSchedule::Linear,
            trained_betas: None,
        }
    }
}

impl BetaConfig {
    pub(super) fn read(config: &Config) -> Result<Self> {
        Self::read_over(config, Self::default())
    }

    /// Reads its keys; those that are missing take the values of `default`.
    pub(super) fn read_over(config: &Config, default: Self) -> Result<Self> {
        let read = Self::read_with_exp(config, default)?;
        match read.beta_schedule {
            BetaSchedule::Exp => Err(config.unsupported(
                "beta_schedule",
                "only heun has it; supported here: \"linear\", \"scaled_linear\", \"squaredcos_cap_v2\"",
            )),
            _ => Ok(read),
        }
    }

    /// The same for the scheduler that has [`BetaSchedule::Exp`] too.
    pub(super) fn read_with_exp(config: &Config, default: Self) -> Result<Self> {
        Ok(Self {
            num_train_timesteps: config.get("num_train_timesteps", default.num_train_timesteps)?,
            beta_start: config.get("beta_start", default.beta_start)?,
            beta_end: config.get("beta_end", default.beta_end)?,
            beta_schedule: config.get("beta_schedule", default.beta_schedule)?,
            trained_betas: config.get("trained_betas", None)?,
        })
    }

    /// # Errors
    /// A number that no noise schedule can have.
    pub(super) fn check(&self) -> Result<()> {
        let n = self.num_train_timesteps;
        check_train_timesteps(n)?;
        let betas = match &self.trained_betas {
            Some(betas) if betas.len() as i64 != n => {
                return Err(Error::input(format!(
                    "`trained_betas` has {} values for {n} `num_train_timesteps`",
                    betas.len()
                ))
                .help("one beta for each trained timestep"));
            }
            Some(betas) => betas.as_slice(),
            None => &[self.beta_start, self.beta_end],
        };
        match betas.iter().find(|b| !(0.0..1.0).contains(*b)) {
            Some(beta) => {
                Err(Error::input(format!("a beta of {beta}")).help("betas are variances: 0 or more, below 1"))
            }
            None => Ok(()),
        }
    }

    /// Betas, (num_train_timesteps) f32 on the CPU, with the bits that torch gives upstream; with
    /// `zero_snr`, rescaled so that the last timestep holds no signal (algorithm 1 of Lin et al.).
    ///
    /// # Errors
    /// [`BetaConfig::check`]'s.
    pub(super) fn betas(&self, zero_snr: bool) -> Result<Tensor> {
        self.check()?;
        let n = self.num_train_timesteps;
        let options = (Kind::Float, Device::Cpu);
        let betas = match (&self.trained_betas, self.beta_schedule) {
            (Some(betas), _) => Tensor::f_from_slice(betas)?.to_kind(Kind::Float),
            (None, BetaSchedule::Linear) => Tensor::f_linspace(self.beta_start, self.beta_end, n, options)?,
            (None, BetaSchedule::ScaledLinear) => {
                Tensor::f_linspace(self.beta_start.powf(0.5), self.beta_end.powf(0.5), n, options)?.square()
            }
            (None, BetaSchedule::SquaredcosCapV2) => {
                let squared_cosine = |t: f64| ((t + 0.008) / 1.008 * PI / 2.0).cos().powi(2);
                Tensor::f_from_slice(&betas_of(squared_cosine, n))?
            }
            (None, BetaSchedule::Exp) => Tensor::f_from_slice(&betas_of(|t| (t * -12.0).exp(), n))?,
        };
        Ok(if zero_snr { rescale_zero_terminal_snr(&betas) } else { betas })
    }
}

/// Refuses a number of trained timesteps that no network has.
///
/// # Errors
/// It is not 2 to 1,000,000.
pub(super) fn check_train_timesteps(n: i64) -> Result<()> {
    if (2..=1_000_000).contains(&n) {
        return Ok(());
    }
    Err(Error::input(format!("`num_train_timesteps` is {n}"))
        .help("as many timesteps as the network was trained on, 2 to 1000000 (often 1000)"))
}

/// `n` betas whose `alphas_cumprod` follow `alpha_bar` of times from 0 to 1, each at most 0.999.
fn betas_of(alpha_bar: impl Fn(f64) -> f64, n: i64) -> Vec<f32> {
    let alpha_bar = |i: i64| alpha_bar(i as f64 / n as f64);
    (0..n).map(|i| (1.0 - alpha_bar(i + 1) / alpha_bar(i)).min(0.999) as f32).collect()
}

fn rescale_zero_terminal_snr(betas: &Tensor) -> Tensor {
    let n = betas.size()[0];
    let root = cumprod(&one_minus(betas)).sqrt();
    let (first, last) = (root.get(0), root.get(n - 1));
    let root = (root - &last) * (&first / (&first - &last));
    let alphas_bar = root.square();
    let alphas = alphas_bar.slice(0, 1, None, 1) / alphas_bar.slice(0, None, n - 1, 1);
    one_minus(&Tensor::cat(&[alphas_bar.slice(0, None, 1, 1), alphas], 0))
}

/// 1 - `x`.
pub(super) fn one_minus(x: &Tensor) -> Tensor {
    -x + 1.0
}

/// `alphas_cumprod` of `1 - betas`.
pub(super) fn cumprod(alphas: &Tensor) -> Tensor {
    alphas.cumprod(0, Kind::Float)
}

/// The keys that choose the visited timesteps.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SpacingConfig {
    pub timestep_spacing: TimestepSpacing,
    /// Added to every timestep of `leading`.
    pub steps_offset: i64,
}

impl SpacingConfig {
    pub(super) fn new(timestep_spacing: TimestepSpacing) -> Self {
        Self { timestep_spacing, steps_offset: 0 }
    }

    pub(super) fn read(config: &Config, default: TimestepSpacing) -> Result<Self> {
        let steps_offset = config.get("steps_offset", 0)?;
        if !(-1_000_000..=1_000_000).contains(&steps_offset) {
            return Err(
                config.unsupported("steps_offset", "an offset among the trained timesteps: 0 or 1 is usual")
            );
        }
        Ok(Self { timestep_spacing: config.get("timestep_spacing", default)?, steps_offset })
    }

    /// `steps` timesteps of 0..`trained`, from high to low, as DDPM, DDIM and PNDM choose them.
    pub(super) fn timesteps(&self, trained: i64, steps: i64) -> Vec<i64> {
        let mut ts: Vec<i64> = match self.timestep_spacing {
            TimestepSpacing::Linspace => rounded(&linspace(0.0, (trained - 1) as f64, steps)),
            TimestepSpacing::Leading => {
                let ratio = trained / steps;
                (0..steps).map(|i| i * ratio + self.steps_offset).collect()
            }
            TimestepSpacing::Trailing => return trailing(trained, trained as f64 / steps as f64),
        };
        ts.reverse();
        ts
    }

    /// The same as Euler's and Heun's schedulers choose them: those of `linspace` are not rounded.
    pub(super) fn fractional_timesteps(&self, trained: i64, steps: i64) -> Vec<f32> {
        match self.timestep_spacing {
            TimestepSpacing::Linspace => {
                linspace(0.0, (trained - 1) as f64, steps).into_iter().rev().map(|t| t as f32).collect()
            }
            TimestepSpacing::Leading | TimestepSpacing::Trailing => {
                fractional(&self.timesteps(trained, steps))
            }
        }
    }

    /// `steps` timesteps of 0..`last`, from high to low, as the multistep solvers choose them: they
    /// end above timestep 0, because the last step leads to a noise level of its own.
    pub(super) fn solver_timesteps(&self, trained: i64, last: i64, steps: i64) -> Vec<i64> {
        let mut ts: Vec<i64> = match self.timestep_spacing {
            TimestepSpacing::Linspace => rounded(&linspace(0.0, (last - 1) as f64, steps + 1)),
            TimestepSpacing::Leading => {
                let ratio = last / (steps + 1);
                (0..=steps).map(|i| i * ratio + self.steps_offset).collect()
            }
            TimestepSpacing::Trailing => return trailing(last, trained as f64 / steps as f64),
        };
        ts.reverse();
        ts.pop();
        ts
    }
}

/// numpy's linspace.
pub(super) fn linspace(start: f64, stop: f64, count: i64) -> Vec<f64> {
    let step = (stop - start) / (count - 1).max(1) as f64;
    let mut values: Vec<f64> = (0..count).map(|i| i as f64 * step + start).collect();
    if count > 1
        && let Some(last) = values.last_mut()
    {
        *last = stop;
    }
    values
}

/// Whole timesteps as numbers that may be fractions. All below 2^24 are exact.
pub(super) fn fractional(timesteps: &[i64]) -> Vec<f32> {
    timesteps.iter().map(|&t| t as f32).collect()
}

fn rounded(values: &[f64]) -> Vec<i64> {
    values.iter().map(|v| v.round_ties_even() as i64).collect()
}

/// numpy's `arange(from, 0, -ratio)`, rounded, less one. Where `from / ratio` comes out a little above
/// a whole number, it has one value more, timestep -1 (61 steps of 1000, for instance).
fn trailing(from: i64, ratio: f64) -> Vec<i64> {
    let from = from as f64;
    let count = (-from / -ratio).ceil() as i64;
    // numpy fills with the difference between the first two values.
    let delta = (from - ratio) - from;
    (0..count).map(|i| (from + i as f64 * delta).round_ties_even() as i64 - 1).collect()
}

/// Refuses timesteps that were never trained.
///
/// # Errors
/// A timestep that is not in 0..`trained`.
pub(super) fn check_trained(timesteps: &[i64], trained: i64, steps: i64) -> Result<()> {
    match timesteps.iter().find(|t| !(0..trained).contains(*t)) {
        Some(t) => Err(Error::input(format!(
            "{steps} steps reach timestep {t}, which is not among the trained 0 to {}",
            trained - 1
        ))
        .help(
            "take another number of steps: `steps_offset` moves the first timestep up, and rounding in \
             trailing spacing moves the last one below 0 (61 steps of 1000, for instance)",
        )),
        None => Ok(()),
    }
}

/// Limits on the sample that is predicted from the network's output.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ThresholdConfig {
    /// Dynamic thresholding (Saharia et al., arXiv 2205.11487); goes before `clip_sample`.
    pub thresholding: bool,
    /// 0 to 1.
    pub dynamic_thresholding_ratio: f64,
    pub sample_max_value: f64,
}

impl Default for ThresholdConfig {
    fn default() -> Self {
        Self { thresholding: false, dynamic_thresholding_ratio: 0.995, sample_max_value: 1.0 }
    }
}

impl ThresholdConfig {
    pub(super) fn read(config: &Config) -> Result<Self> {
        let default = Self::default();
        Ok(Self {
            thresholding: config.get("thresholding", default.thresholding)?,
            dynamic_thresholding_ratio: config
                .get("dynamic_thresholding_ratio", default.dynamic_thresholding_ratio)?,
            sample_max_value: config.get("sample_max_value", default.sample_max_value)?,
        })
    }

    pub(super) fn check(&self) -> Result<()> {
        let limit = self.sample_max_value;
        if self.thresholding
            && !((0.0..=1.0).contains(&self.dynamic_thresholding_ratio)
                && limit > 0.0
                && limit <= LARGEST_LIMIT)
        {
            return Err(Error::input(format!(
                "thresholding with `dynamic_thresholding_ratio` {} and `sample_max_value` {}",
                self.dynamic_thresholding_ratio, self.sample_max_value
            ))
            .help(format!(
                "the ratio is a quantile, 0 to 1; the largest value is above 0, at most {LARGEST_LIMIT}"
            )));
        }
        Ok(())
    }

    /// Each sample of the batch limited to its own quantile of absolute values, and divided by it.
    pub(super) fn apply(&self, sample: Tensor) -> Result<Tensor> {
        if !self.thresholding {
            return Ok(sample);
        }
        let (shape, kind) = (sample.size(), sample.kind());
        let flat =
            if kind == Kind::Double { sample } else { sample.to_kind(Kind::Float) }.reshape([shape[0], -1]);
        let s = flat
            .abs()
            .f_quantile_scalar(self.dynamic_thresholding_ratio, 1, false, "linear")?
            .clamp(1.0, self.sample_max_value)
            .unsqueeze(1);
        Ok((flat.clamp_tensor(Some(&-&s), Some(&s)) / &s).reshape(&shape[..]).to_kind(kind))
    }
}

/// `clip_sample` and thresholding, as DDPM and DDIM have them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClipConfig {
    pub clip_sample: bool,
    pub clip_sample_range: f64,
    #[serde(flatten)]
    pub threshold: ThresholdConfig,
}

impl Default for ClipConfig {
    fn default() -> Self {
        Self { clip_sample: true, clip_sample_range: 1.0, threshold: ThresholdConfig::default() }
    }
}

impl ClipConfig {
    /// Reads its keys; `clip_sample` is `clips` where it is missing.
    pub(super) fn read(config: &Config, clips: bool) -> Result<Self> {
        Ok(Self {
            clip_sample: config.get("clip_sample", clips)?,
            clip_sample_range: config.get("clip_sample_range", 1.0)?,
            threshold: ThresholdConfig::read(config)?,
        })
    }

    pub(super) fn check(&self) -> Result<()> {
        self.threshold.check()?;
        check_clip_range(self.clip_sample, self.clip_sample_range)
    }

    pub(super) fn apply(&self, sample: Tensor) -> Result<Tensor> {
        if self.clip_sample && !self.threshold.thresholding {
            return Ok(sample.clamp(-self.clip_sample_range, self.clip_sample_range));
        }
        self.threshold.apply(sample)
    }
}

/// # Errors
/// Samples are clipped to a range that is empty.
pub(super) fn check_clip_range(clips: bool, range: f64) -> Result<()> {
    if clips && !(range > 0.0 && range <= LARGEST_LIMIT) {
        return Err(Error::input(format!("`clip_sample_range` is {range}"))
            .help(format!("above 0, at most {LARGEST_LIMIT}")));
    }
    Ok(())
}

/// Of numbers that samples are limited to: the largest that f16 has. libtorch refuses those that the
/// sample's type cannot hold.
const LARGEST_LIMIT: f64 = 65504.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squared_cosine_is_float_arithmetic() {
        let config = BetaConfig { beta_schedule: BetaSchedule::SquaredcosCapV2, ..BetaConfig::default() };
        let betas: Vec<f32> = config.betas(false).unwrap().try_into().unwrap();
        assert!((betas[0] - 4.128_422e-5).abs() < 1e-10, "{}", betas[0]);
        assert_eq!(betas[999], 0.999);
        assert!(betas.windows(2).all(|b| b[0] <= b[1]));
    }

    #[test]
    fn spacings_of_a_few_steps() {
        let of = |spacing, steps_offset| SpacingConfig { timestep_spacing: spacing, steps_offset };
        assert_eq!(of(TimestepSpacing::Leading, 1).timesteps(1000, 4), [751, 501, 251, 1]);
        assert_eq!(of(TimestepSpacing::Linspace, 1).timesteps(1000, 3), [999, 500, 0]);
        assert_eq!(of(TimestepSpacing::Linspace, 0).timesteps(1000, 1), [0]);
        assert_eq!(of(TimestepSpacing::Trailing, 1).timesteps(1000, 3), [999, 666, 332]);
        assert_eq!(of(TimestepSpacing::Leading, 1).solver_timesteps(1000, 1000, 4), [801, 601, 401, 201]);
        assert_eq!(of(TimestepSpacing::Linspace, 0).solver_timesteps(1000, 1000, 1), [999]);
        // Upstream's own rounding: one more than asked for.
        let surplus = of(TimestepSpacing::Trailing, 0).timesteps(1000, 61);
        assert_eq!((surplus.len(), surplus.last()), (62, Some(&-1)));
        assert!(check_trained(&surplus, 1000, 61).is_err());
    }
}
