//! Which scheduler, and what its `scheduler_config.json` says.

use serde_json::Value;

use super::{
    BetaConfig, DdimConfig, DdpmConfig, DpmSolverConfig, PndmConfig, PredictionType, Scheduler, UniPcConfig,
};
use crate::{
    error::{Error, Result},
    nn::config::Config,
    vocabulary::{NoiseLevels, Sampler},
};

impl Sampler {
    /// The Python class, `_class_name` in scheduler_config.json.
    pub fn class_name(self) -> &'static str {
        match self {
            Self::Ddpm => "DDPMScheduler",
            Self::Ddim => "DDIMScheduler",
            Self::Pndm => "PNDMScheduler",
            Self::UniPc => "UniPCMultistepScheduler",
            Self::DpmSolver => "DPMSolverMultistepScheduler",
        }
    }

    /// Every key that upstream's class knows.
    fn keys(self) -> impl Iterator<Item = &'static str> {
        const SHARED: &[&str] = &[
            "num_train_timesteps",
            "beta_start",
            "beta_end",
            "beta_schedule",
            "trained_betas",
            "prediction_type",
            "timestep_spacing",
            "steps_offset",
        ];
        const THRESHOLD: &[&str] =
            &["thresholding", "dynamic_thresholding_ratio", "sample_max_value", "rescale_betas_zero_snr"];
        const CLIP: &[&str] = &["clip_sample", "clip_sample_range"];
        const SOLVER: &[&str] = &[
            "solver_order",
            "solver_type",
            "lower_order_final",
            "use_karras_sigmas",
            "use_exponential_sigmas",
            "use_beta_sigmas",
            "use_flow_sigmas",
            "flow_shift",
            "final_sigmas_type",
            "use_dynamic_shifting",
            "time_shift_type",
            "sigma_min",
            "sigma_max",
        ];
        let own: [&[&str]; 3] = match self {
            Self::Ddpm => [THRESHOLD, CLIP, &["variance_type"]],
            Self::Ddim => [THRESHOLD, CLIP, &["set_alpha_to_one"]],
            Self::Pndm => [&[], &[], &["skip_prk_steps", "set_alpha_to_one"]],
            Self::UniPc => {
                [THRESHOLD, SOLVER, &["predict_x0", "disable_corrector", "solver_p", "shift_terminal"]]
            }
            Self::DpmSolver => [
                THRESHOLD,
                SOLVER,
                &[
                    "algorithm_type",
                    "euler_at_final",
                    "use_lu_lambdas",
                    "lambda_min_clipped",
                    "variance_type",
                ],
            ],
        };
        SHARED.iter().chain(own.into_iter().flatten()).copied()
    }
}

/// What a scheduler_config.json says.
#[derive(Debug, Clone, PartialEq)]
pub enum SchedulerConfig {
    Ddpm(DdpmConfig),
    Ddim(DdimConfig),
    Pndm(PndmConfig),
    UniPc(UniPcConfig),
    DpmSolver(DpmSolverConfig),
}

impl SchedulerConfig {
    /// Reads the scheduler that `_class_name` tells.
    ///
    /// # Errors
    /// A class or a value that is not supported, a key that no scheduler knows, a combination that
    /// cannot work. A key that only another of the five knows is dropped: upstream keeps such keys in
    /// the files of Stable Diffusion and of schedulers that were exchanged, and drops them too.
    pub fn read(config: &Config) -> Result<Self> {
        let classes = Sampler::ALL.map(Sampler::class_name).join(", ");
        let class = config.class().ok_or_else(|| {
            Error::input("no `_class_name`").at(config.file()).help(format!("one of {classes}"))
        })?;
        let class = Sampler::ALL.into_iter().find(|c| c.class_name() == class).ok_or_else(|| {
            config.unsupported(
                "_class_name",
                &format!("supported: {classes}; another scheduler can be chosen for the same network"),
            )
        })?;
        Self::read_as(config, class)
    }

    /// Reads the configuration as `class`'s, whatever class wrote it: `CLASS.from_config` upstream.
    /// Keys that are missing take `class`'s own defaults.
    ///
    /// # Errors
    /// As [`SchedulerConfig::read`].
    pub fn read_as(config: &Config, class: Sampler) -> Result<Self> {
        let read = match class {
            Sampler::Ddpm => Self::Ddpm(DdpmConfig::read(config)?),
            Sampler::Ddim => Self::Ddim(DdimConfig::read(config)?),
            Sampler::Pndm => Self::Pndm(PndmConfig::read(config)?),
            Sampler::UniPc => Self::UniPc(UniPcConfig::read(config)?),
            Sampler::DpmSolver => Self::DpmSolver(DpmSolverConfig::read(config)?),
        };
        let own: Vec<&str> = class.keys().collect();
        let others = Sampler::ALL.into_iter().flat_map(Sampler::keys);
        config.ignore(&others.filter(|key| !own.contains(key)).collect::<Vec<_>>());
        config.finish()?;
        Scheduler::new(&read).map_err(|e| e.at(config.file()))?;
        Ok(read)
    }

    /// The same with its steps elsewhere.
    ///
    /// # Errors
    /// The scheduler knows no such levels.
    pub fn with_levels(mut self, levels: NoiseLevels) -> Result<Self> {
        let (karras, log_snr) = (levels == NoiseLevels::Karras, levels == NoiseLevels::LogSnr);
        match &mut self {
            Self::DpmSolver(c) => (c.sigmas.use_karras_sigmas, c.use_lu_lambdas) = (karras, log_snr),
            Self::UniPc(c) if !log_snr => c.sigmas.use_karras_sigmas = karras,
            _ if levels == NoiseLevels::Timesteps => {}
            _ => {
                let (name, levels) = (self.class().as_str(), levels.as_str());
                return Err(Error::input(format!("the scheduler {name} has no noise levels {levels:?}"))
                    .help("dpmsolver++ has all of them, unipc \"karras\""));
            }
        }
        Scheduler::new(&self)?;
        Ok(self)
    }

    /// A scheduler_config.json that diffusers loads.
    pub fn to_json(&self) -> Value {
        let value = match self {
            Self::Ddpm(c) => serde_json::to_value(c),
            Self::Ddim(c) => serde_json::to_value(c),
            Self::Pndm(c) => serde_json::to_value(c),
            Self::UniPc(c) => serde_json::to_value(c),
            Self::DpmSolver(c) => serde_json::to_value(c),
        };
        // Numbers, names and lists of numbers alone: writing them cannot fail.
        let mut value = value.unwrap_or_default();
        value["_class_name"] = self.class().class_name().into();
        value["_diffusers_version"] = "0.42.1".into();
        value
    }

    pub fn class(&self) -> Sampler {
        match self {
            Self::Ddpm(_) => Sampler::Ddpm,
            Self::Ddim(_) => Sampler::Ddim,
            Self::Pndm(_) => Sampler::Pndm,
            Self::UniPc(_) => Sampler::UniPc,
            Self::DpmSolver(_) => Sampler::DpmSolver,
        }
    }

    /// The trained noise.
    pub fn betas(&self) -> &BetaConfig {
        match self {
            Self::Ddpm(c) => &c.betas,
            Self::Ddim(c) => &c.betas,
            Self::Pndm(c) => &c.betas,
            Self::UniPc(c) => &c.betas,
            Self::DpmSolver(c) => &c.betas,
        }
    }

    pub fn prediction_type(&self) -> PredictionType {
        match self {
            Self::Ddpm(c) => c.prediction_type,
            Self::Ddim(c) => c.prediction_type,
            Self::Pndm(c) => c.prediction_type,
            Self::UniPc(c) => c.prediction_type,
            Self::DpmSolver(c) => c.prediction_type,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn levels_are_what_the_configuration_could_have_said() {
        let read = |class: Sampler, text: &str| {
            SchedulerConfig::read_as(&Config::parse(text, Path::new("c")).unwrap(), class).unwrap()
        };
        let (dpm, unipc) = (Sampler::DpmSolver, Sampler::UniPc);
        for (class, levels, text) in [
            (dpm, NoiseLevels::LogSnr, "{\"use_lu_lambdas\": true}"),
            (dpm, NoiseLevels::Karras, "{\"use_karras_sigmas\": true}"),
            (dpm, NoiseLevels::Timesteps, "{}"),
            (unipc, NoiseLevels::Karras, "{\"use_karras_sigmas\": true}"),
            (Sampler::Ddpm, NoiseLevels::Timesteps, "{}"),
        ] {
            let other = if text == "{}" { text } else { "{}" };
            assert_eq!(read(class, other).with_levels(levels).unwrap(), read(class, text));
        }
        // What the folder says gives way.
        let karras = read(dpm, "{\"use_karras_sigmas\": true}");
        assert_eq!(karras.with_levels(NoiseLevels::Timesteps).unwrap(), read(dpm, "{}"));
        for (class, levels) in [(unipc, NoiseLevels::LogSnr), (Sampler::Ddim, NoiseLevels::Karras)] {
            let error = read(class, "{}").with_levels(levels).unwrap_err().to_string();
            assert!(error.contains(class.as_str()) && error.contains("dpmsolver++"), "{error}");
        }
    }
}
