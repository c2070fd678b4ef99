//! Noise levels that lie elsewhere than those of the timesteps: Karras', exponential and Beta ones
//! (diffusers/schedulers/scheduling_euler_discrete.py, 0.42.1, whose other schedulers share them).

use serde::Serialize;
use statrs::function::beta::beta_reg;

use super::betas::linspace;
use crate::{
    error::{Error, Result},
    nn::config::Config,
    vocabulary::NoiseLevels,
};

/// Both shape parameters of the Beta distribution (Lee et al., arXiv 2407.12173).
const BETA_SHAPE: f64 = 0.6;

/// The keys that choose the noise levels of the steps of Euler's, Heun's and the flow-matching
/// scheduler; without any, they are those of the timesteps.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SigmaSpacingConfig {
    /// Equal steps in the 7th root of sigma (Karras et al., arXiv 2206.00364).
    pub use_karras_sigmas: bool,
    /// Equal steps in the logarithm of sigma.
    pub use_exponential_sigmas: bool,
    /// Quantiles of a Beta distribution: more steps at both ends (Lee et al., arXiv 2407.12173).
    pub use_beta_sigmas: bool,
    /// Lowest and highest of these levels, above 0 and at most 1e6, in place of the timesteps' own. Only Euler's class
    /// has the keys; upstream takes them from the files of the others too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma_min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma_max: Option<f64>,
}

impl SigmaSpacingConfig {
    pub(super) fn read(config: &Config) -> Result<Self> {
        Ok(Self {
            use_karras_sigmas: config.get("use_karras_sigmas", false)?,
            use_exponential_sigmas: config.get("use_exponential_sigmas", false)?,
            use_beta_sigmas: config.get("use_beta_sigmas", false)?,
            sigma_min: config.get("sigma_min", None)?,
            sigma_max: config.get("sigma_max", None)?,
        })
    }

    /// # Errors
    /// More than one kind of levels, or ends that are no noise levels.
    pub(super) fn check(&self) -> Result<()> {
        let kinds = [
            ("use_karras_sigmas", self.use_karras_sigmas),
            ("use_exponential_sigmas", self.use_exponential_sigmas),
            ("use_beta_sigmas", self.use_beta_sigmas),
        ];
        let chosen: Vec<String> =
            kinds.into_iter().filter(|(_, used)| *used).map(|(key, _)| format!("`{key}`")).collect();
        if chosen.len() > 1 {
            return Err(Error::input(format!("{} are all true", chosen.join(", ")))
                .help("only one of them can be used"));
        }
        check_ends(self.sigma_min, self.sigma_max)
    }

    /// Puts the steps at `levels`, whatever the keys said.
    pub(super) fn choose(&mut self, levels: NoiseLevels) {
        self.use_karras_sigmas = levels == NoiseLevels::Karras;
        self.use_exponential_sigmas = levels == NoiseLevels::LogSnr;
        self.use_beta_sigmas = false;
    }

    /// `steps` levels from high to low in place of `levels`, which give their ends where the keys do
    /// not. None: `levels` stay.
    pub(super) fn spaced(&self, levels: &[f64], steps: i64) -> Option<Vec<f64>> {
        let (highest, lowest) = (levels.first()?, levels.last()?);
        let ends = (self.sigma_min.unwrap_or(*lowest), self.sigma_max.unwrap_or(*highest));
        if self.use_karras_sigmas {
            Some(karras(ends, steps))
        } else if self.use_exponential_sigmas {
            Some(exponential(ends, steps))
        } else if self.use_beta_sigmas {
            Some(beta(ends, steps))
        } else {
            None
        }
    }
}

/// # Errors
/// An end that is not a noise level.
pub(super) fn check_ends(sigma_min: Option<f64>, sigma_max: Option<f64>) -> Result<()> {
    for (key, value) in [("sigma_min", sigma_min), ("sigma_max", sigma_max)] {
        if let Some(value) = value.filter(|v| !(*v > 0.0 && *v <= 1e6)) {
            return Err(Error::input(format!("`{key}` is {value}"))
                .help("a noise level is above 0, at most 1000000; null for the timesteps' own"));
        }
    }
    Ok(())
}

/// `steps` levels from the highest to the lowest, Karras et al.'s.
pub(super) fn karras((min, max): (f64, f64), steps: i64) -> Vec<f64> {
    let (min, max) = (min.powf(1.0 / 7.0), max.powf(1.0 / 7.0));
    linspace(0.0, 1.0, steps).iter().map(|ramp| (max + ramp * (min - max)).powf(7.0)).collect()
}

/// `steps` levels from the highest to the lowest, equally far apart in their logarithms.
pub(super) fn exponential((min, max): (f64, f64), steps: i64) -> Vec<f64> {
    linspace(max.ln(), min.ln(), steps).into_iter().map(f64::exp).collect()
}

/// `steps` levels from the highest to the lowest, at quantiles of a Beta distribution.
fn beta((min, max): (f64, f64), steps: i64) -> Vec<f64> {
    linspace(0.0, 1.0, steps).iter().map(|ramp| min + beta_quantile(1.0 - ramp) * (max - min)).collect()
}

/// Where the distribution function reaches `p`. Halving the interval until it holds no further number
/// needs no guess, and there are few levels.
fn beta_quantile(p: f64) -> f64 {
    if p <= 0.0 || p >= 1.0 {
        return p.clamp(0.0, 1.0);
    }
    let (mut low, mut high) = (0.0f64, 1.0f64);
    loop {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high {
            return middle;
        }
        if beta_reg(BETA_SHAPE, BETA_SHAPE, middle) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_scipys() {
        // scipy.stats.beta.ppf(p, 0.6, 0.6), SciPy 1.17.1.
        for (p, expected) in QUANTILES {
            let found = beta_quantile(p);
            assert!((found - expected).abs() < 1e-12, "{p}: {found}, not {expected}");
        }
    }

    const QUANTILES: [(f64, f64); 6] = [
        (0.001, 1.855873851745199e-5),
        (1.0 / 24.0, 0.009272318295366627),
        (0.25, 0.17568037865269498),
        (0.5, 0.5),
        (0.8, 0.8770782495416671),
        (0.999, 0.9999814412614826),
    ];
}
