//! Which scheduler, and what its `scheduler_config.json` says.

use serde_json::Value;

use super::{
    BetaConfig, DdimConfig, DdpmConfig, DpmSolverConfig, EulerAncestralConfig, EulerConfig, FlowEulerConfig,
    FlowTwoStageConfig, HeunConfig, LcmConfig, PndmConfig, PredictionType, Scheduler, UniPcConfig,
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
            Self::Euler => "EulerDiscreteScheduler",
            Self::EulerAncestral => "EulerAncestralDiscreteScheduler",
            Self::Heun => "HeunDiscreteScheduler",
            Self::Lcm => "LCMScheduler",
            Self::FlowEuler => "FlowMatchEulerDiscreteScheduler",
            Self::FlowHeun => "FlowMatchHeunDiscreteScheduler",
            // Ours: upstream has no such class.
            Self::FlowMidpoint => "FlowMatchMidpointDiscreteScheduler",
        }
    }

    /// Every key that upstream's class knows.
    fn keys(self) -> impl Iterator<Item = &'static str> {
        const SHARED: &[&str] = &[
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
        // Of all that have them but Euler upstream reads the last two from a file, though it does not write
        // them.
        const LEVELS: &[&str] =
            &["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "sigma_min", "sigma_max"];
        const SOLVER: &[&str] = &[
            "solver_order",
            "solver_type",
            "lower_order_final",
            "use_flow_sigmas",
            "flow_shift",
            "final_sigmas_type",
            "use_dynamic_shifting",
            "time_shift_type",
        ];
        let own: [&[&str]; 5] = match self {
            Self::Ddpm => [SHARED, THRESHOLD, CLIP, &[], &["variance_type"]],
            Self::Ddim => [SHARED, THRESHOLD, CLIP, &[], &["set_alpha_to_one"]],
            Self::Pndm => [SHARED, &[], &[], &[], &["skip_prk_steps", "set_alpha_to_one"]],
            Self::UniPc => [
                SHARED,
                THRESHOLD,
                LEVELS,
                SOLVER,
                &["predict_x0", "disable_corrector", "solver_p", "shift_terminal"],
            ],
            Self::Euler => [
                SHARED,
                LEVELS,
                &[],
                &[],
                &["interpolation_type", "timestep_type", "rescale_betas_zero_snr", "final_sigmas_type"],
            ],
            Self::EulerAncestral => [SHARED, &[], &[], &[], &["rescale_betas_zero_snr"]],
            Self::Heun => [SHARED, LEVELS, CLIP, &[], &[]],
            Self::Lcm => [
                SHARED,
                THRESHOLD,
                CLIP,
                &[],
                &["set_alpha_to_one", "original_inference_steps", "timestep_scaling"],
            ],
            Self::FlowEuler => [
                LEVELS,
                &[],
                &[],
                &[],
                &[
                    "shift",
                    "use_dynamic_shifting",
                    "base_shift",
                    "max_shift",
                    "base_image_seq_len",
                    "max_image_seq_len",
                    "time_shift_type",
                    "invert_sigmas",
                    "shift_terminal",
                    "stochastic_sampling",
                ],
            ],
            Self::FlowHeun | Self::FlowMidpoint => [&["shift"], &[], &[], &[], &[]],
            Self::DpmSolver => [
                SHARED,
                THRESHOLD,
                LEVELS,
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
        ["num_train_timesteps"].into_iter().chain(own.into_iter().flatten().copied())
    }
}

/// Keys of diffusers' schedulers of images that are not read here, and of its first versions. A file that went through
/// one of them keeps its keys, which every other class drops.
const DROPPED: [&str; 29] = [
    "beta_max",
    "beta_min",
    "clip_denoised",
    "correct_steps",
    "corrector_order",
    "eta",
    "gamma",
    "noise_sampler_seed",
    "predictor_order",
    "rho",
    "s",
    "s_churn",
    "s_max",
    "s_min",
    "s_noise",
    "sampling_eps",
    "scale_factors",
    "scaler",
    "scheduler_type",
    "sigma_data",
    "sigma_schedule",
    "snr",
    "snr_shift_scale",
    "stage_range",
    "stages",
    "tau_func",
    "tensor_format",
    "timestep_values",
    "upscale_mode",
];

/// What a scheduler_config.json says.
#[derive(Debug, Clone, PartialEq)]
pub enum SchedulerConfig {
    Ddpm(DdpmConfig),
    Ddim(DdimConfig),
    Pndm(PndmConfig),
    UniPc(UniPcConfig),
    DpmSolver(DpmSolverConfig),
    Euler(EulerConfig),
    EulerAncestral(EulerAncestralConfig),
    Heun(HeunConfig),
    Lcm(LcmConfig),
    FlowEuler(FlowEulerConfig),
    FlowHeun(FlowTwoStageConfig),
    FlowMidpoint(FlowTwoStageConfig),
}

impl SchedulerConfig {
    /// Reads the scheduler that `_class_name` tells.
    ///
    /// # Errors
    /// A class or a value that is not supported, a key that no scheduler knows, a combination that
    /// cannot work. A key that only another scheduler knows is dropped: upstream keeps such keys in
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
    /// As [`SchedulerConfig::read`]; a flow-matching scheduler for another kind of networks, or the other
    /// way round.
    pub fn read_as(config: &Config, class: Sampler) -> Result<Self> {
        check_kind(config, class)?;
        let read = match class {
            Sampler::Ddpm => Self::Ddpm(DdpmConfig::read(config)?),
            Sampler::Ddim => Self::Ddim(DdimConfig::read(config)?),
            Sampler::Pndm => Self::Pndm(PndmConfig::read(config)?),
            Sampler::UniPc => Self::UniPc(UniPcConfig::read(config)?),
            Sampler::DpmSolver => Self::DpmSolver(DpmSolverConfig::read(config)?),
            Sampler::Euler => Self::Euler(EulerConfig::read(config)?),
            Sampler::EulerAncestral => Self::EulerAncestral(EulerAncestralConfig::read(config)?),
            Sampler::Heun => Self::Heun(HeunConfig::read(config)?),
            Sampler::Lcm => Self::Lcm(LcmConfig::read(config)?),
            Sampler::FlowEuler => Self::FlowEuler(FlowEulerConfig::read(config)?),
            Sampler::FlowHeun => Self::FlowHeun(FlowTwoStageConfig::read(config)?),
            Sampler::FlowMidpoint => Self::FlowMidpoint(FlowTwoStageConfig::read(config)?),
        };
        let own: Vec<&str> = class.keys().collect();
        let others = Sampler::ALL.into_iter().flat_map(Sampler::keys);
        config.ignore(&others.filter(|key| !own.contains(key)).collect::<Vec<_>>());
        config.ignore(&DROPPED);
        // `prediction_type` of the first versions, which upstream no longer reads.
        config.only("predict_epsilon", &[true])?;
        config.finish()?;
        Scheduler::new(&read).map_err(|e| e.at(config.file()))?;
        Ok(read)
    }

    /// The same with its steps elsewhere.
    ///
    /// # Errors
    /// The scheduler knows no such levels.
    pub fn with_levels(mut self, levels: NoiseLevels) -> Result<Self> {
        if !self.class().has_levels(levels) {
            let with: Vec<&str> =
                Sampler::ALL.into_iter().filter(|c| c.has_levels(levels)).map(Sampler::as_str).collect();
            let (name, levels) = (self.class().as_str(), levels.as_str());
            return Err(Error::input(format!("the scheduler {name} has no noise levels {levels:?}"))
                .help(format!("they go with {}", with.join(", "))));
        }
        let (karras, log_snr) = (levels == NoiseLevels::Karras, levels == NoiseLevels::LogSnr);
        match &mut self {
            Self::DpmSolver(c) => (c.sigmas.use_karras_sigmas, c.use_lu_lambdas) = (karras, log_snr),
            Self::UniPc(c) => c.sigmas.use_karras_sigmas = karras,
            Self::Euler(c) => c.levels.choose(levels),
            Self::Heun(c) => c.levels.choose(levels),
            Self::FlowEuler(c) => {
                c.levels.choose(levels);
                c.even = levels == NoiseLevels::Even;
            }
            Self::FlowHeun(c) | Self::FlowMidpoint(c) => c.even = levels == NoiseLevels::Even,
            Self::Ddpm(_) | Self::Ddim(_) | Self::Pndm(_) | Self::EulerAncestral(_) | Self::Lcm(_) => {}
        }
        Scheduler::new(&self)?;
        Ok(self)
    }

    /// The same with its steps moved: below 1 more of them lie where little noise is left, above 1 where much is.
    ///
    /// # Errors
    /// The scheduler is not one of flow matching, or the shift is not above 0 and at most 1e6.
    pub fn with_shift(mut self, shift: f64) -> Result<Self> {
        match &mut self {
            Self::FlowEuler(c) => c.shift = shift,
            Self::FlowHeun(c) | Self::FlowMidpoint(c) => c.shift = shift,
            _ => {
                return Err(Error::input(format!("the scheduler {} has no shift", self.class().as_str()))
                    .help("it goes with flow-euler, flow-heun and flow-midpoint"));
            }
        }
        Scheduler::new(&self)?;
        Ok(self)
    }

    /// The timesteps of networks that were trained by flow matching; none for diffusion.
    pub fn flow_timesteps(&self) -> Option<i64> {
        match self {
            Self::FlowEuler(c) => Some(c.num_train_timesteps),
            Self::FlowHeun(c) | Self::FlowMidpoint(c) => Some(c.num_train_timesteps),
            _ => None,
        }
    }

    /// Whether these networks count noise levels from 0 at noise to 1 at samples.
    pub fn inverts_sigmas(&self) -> bool {
        matches!(self, Self::FlowEuler(c) if c.invert_sigmas)
    }

    /// A scheduler_config.json that diffusers loads, but for the midpoint rule's: no folder is written with that one.
    pub fn to_json(&self) -> Value {
        let value = match self {
            Self::Ddpm(c) => serde_json::to_value(c),
            Self::Ddim(c) => serde_json::to_value(c),
            Self::Pndm(c) => serde_json::to_value(c),
            Self::UniPc(c) => serde_json::to_value(c),
            Self::DpmSolver(c) => serde_json::to_value(c),
            Self::Euler(c) => serde_json::to_value(c),
            Self::EulerAncestral(c) => serde_json::to_value(c),
            Self::Heun(c) => serde_json::to_value(c),
            Self::Lcm(c) => serde_json::to_value(c),
            Self::FlowEuler(c) => serde_json::to_value(c),
            Self::FlowHeun(c) | Self::FlowMidpoint(c) => serde_json::to_value(c),
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
            Self::Euler(_) => Sampler::Euler,
            Self::EulerAncestral(_) => Sampler::EulerAncestral,
            Self::Heun(_) => Sampler::Heun,
            Self::Lcm(_) => Sampler::Lcm,
            Self::FlowEuler(_) => Sampler::FlowEuler,
            Self::FlowHeun(_) => Sampler::FlowHeun,
            Self::FlowMidpoint(_) => Sampler::FlowMidpoint,
        }
    }

    /// The trained noise; none for flow matching.
    pub fn betas(&self) -> Option<&BetaConfig> {
        Some(match self {
            Self::Ddpm(c) => &c.betas,
            Self::Ddim(c) => &c.betas,
            Self::Pndm(c) => &c.betas,
            Self::UniPc(c) => &c.betas,
            Self::DpmSolver(c) => &c.betas,
            Self::Euler(c) => &c.betas,
            Self::EulerAncestral(c) => &c.betas,
            Self::Heun(c) => &c.betas,
            Self::Lcm(c) => &c.betas,
            Self::FlowEuler(_) | Self::FlowHeun(_) | Self::FlowMidpoint(_) => return None,
        })
    }

    /// DDPM's configuration of the same trained noise: how training mixes samples with noise, whatever
    /// samples them later. None for flow matching.
    pub fn in_training(&self) -> Option<Self> {
        let rescale_betas_zero_snr = match self {
            Self::Ddpm(c) => c.rescale_betas_zero_snr,
            Self::Ddim(c) => c.rescale_betas_zero_snr,
            Self::UniPc(c) => c.rescale_betas_zero_snr,
            Self::DpmSolver(c) => c.rescale_betas_zero_snr,
            Self::Euler(c) => c.rescale_betas_zero_snr,
            Self::EulerAncestral(c) => c.rescale_betas_zero_snr,
            Self::Lcm(c) => c.rescale_betas_zero_snr,
            Self::Pndm(_)
            | Self::Heun(_)
            | Self::FlowEuler(_)
            | Self::FlowHeun(_)
            | Self::FlowMidpoint(_) => false,
        };
        Some(Self::Ddpm(DdpmConfig {
            betas: self.betas()?.clone(),
            prediction_type: self.prediction_type()?,
            rescale_betas_zero_snr,
            ..DdpmConfig::default()
        }))
    }

    /// What the network's output stands for; none for flow matching, where it is always noise - sample.
    pub fn prediction_type(&self) -> Option<PredictionType> {
        Some(match self {
            Self::Ddpm(c) => c.prediction_type,
            Self::Ddim(c) => c.prediction_type,
            Self::Pndm(c) => c.prediction_type,
            Self::UniPc(c) => c.prediction_type,
            Self::DpmSolver(c) => c.prediction_type,
            Self::Euler(c) => c.prediction_type,
            Self::EulerAncestral(c) => c.prediction_type,
            Self::Heun(c) => c.prediction_type,
            Self::Lcm(c) => c.prediction_type,
            Self::FlowEuler(_) | Self::FlowHeun(_) | Self::FlowMidpoint(_) => return None,
        })
    }
}

/// Refuses to sample by flow matching what was not trained so, and the other way round. A file without a
/// class says nothing of its networks.
fn check_kind(config: &Config, class: Sampler) -> Result<()> {
    let Some(written) = config.class() else { return Ok(()) };
    match (written.starts_with("FlowMatch"), class.is_flow_matching()) {
        (true, false) => Err(Error::input(format!(
            "`_class_name` = {written:?}: networks trained by flow matching cannot be sampled with {class}"
        ))
        .at(config.file())
        .help(format!("sample with {}", Sampler::FlowEuler))),
        (false, true) => Err(Error::input(format!(
            "`_class_name` = {written:?}: only networks trained by flow matching can be sampled with {class}"
        ))
        .at(config.file())
        .help(format!(
            "sample with {} or {}, or the folder's own",
            Sampler::DpmSolver,
            Sampler::Euler
        ))),
        (true, true) | (false, false) => Ok(()),
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
            (Sampler::Euler, NoiseLevels::Karras, "{\"use_karras_sigmas\": true}"),
            (Sampler::Heun, NoiseLevels::LogSnr, "{\"use_exponential_sigmas\": true}"),
            (Sampler::FlowEuler, NoiseLevels::Karras, "{\"use_karras_sigmas\": true}"),
        ] {
            let other = if text == "{}" { text } else { "{}" };
            assert_eq!(read(class, other).with_levels(levels).unwrap(), read(class, text));
        }
        // What the folder says gives way.
        let karras = read(dpm, "{\"use_karras_sigmas\": true}");
        assert_eq!(karras.with_levels(NoiseLevels::Timesteps).unwrap(), read(dpm, "{}"));
        let beta = read(Sampler::Euler, "{\"use_beta_sigmas\": true}");
        assert_eq!(beta.with_levels(NoiseLevels::Timesteps).unwrap(), read(Sampler::Euler, "{}"));
        for (class, levels) in [
            (unipc, NoiseLevels::LogSnr),
            (Sampler::Ddim, NoiseLevels::Karras),
            (Sampler::Lcm, NoiseLevels::Karras),
            (Sampler::FlowEuler, NoiseLevels::LogSnr),
            (Sampler::FlowHeun, NoiseLevels::Karras),
            (Sampler::Euler, NoiseLevels::Even),
        ] {
            let error = read(class, "{}").with_levels(levels).unwrap_err().to_string();
            let with = if levels == NoiseLevels::Even { "flow-midpoint" } else { "dpmsolver++" };
            assert!(error.contains(class.as_str()) && error.contains(with), "{error}");
        }
    }

    /// `from_config` keeps the keys of the class before, and every class drops what it does not know.
    #[test]
    fn a_file_of_any_scheduler_is_read_as_any_other_and_unknown_keys_are_refused() {
        for written in Sampler::ALL {
            let text = format!("{{\"_class_name\": {:?}}}", written.class_name());
            let config = Config::parse(&text, Path::new("c.json")).unwrap();
            let mut json = SchedulerConfig::read(&config).unwrap().to_json();
            for key in DROPPED {
                json[key] = 1.into();
            }
            for class in
                Sampler::ALL.into_iter().filter(|c| c.is_flow_matching() == written.is_flow_matching())
            {
                let read = |json: &Value| {
                    SchedulerConfig::read_as(&Config::parse(&json.to_string(), Path::new("c.json"))?, class)
                };
                read(&json).unwrap_or_else(|e| panic!("{written} as {class}: {e}"));
                for (key, value) in
                    [("decay", 0.9.into()), ("beta_stop", 0.1.into()), ("predict_epsilon", false.into())]
                {
                    let mut other = json.clone();
                    other[key] = value;
                    let error = read(&other).unwrap_err().to_string();
                    assert!(error.contains(&format!("`{key}`")), "{written} as {class}: {error}");
                }
            }
        }
    }

    #[test]
    fn only_flow_matching_has_a_shift() {
        let config = Config::parse("{}", Path::new("c.json")).unwrap();
        let moved =
            |class: Sampler, shift: f64| SchedulerConfig::read_as(&config, class).unwrap().with_shift(shift);
        for class in Sampler::ALL {
            assert_eq!(moved(class, 0.5).is_ok(), class.is_flow_matching(), "{}", class.as_str());
        }
        assert!(moved(Sampler::FlowMidpoint, -1.0).is_err() && moved(Sampler::FlowEuler, f64::NAN).is_err());
        let text = r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 0.5}"#;
        let config = Config::parse(text, Path::new("c.json")).unwrap();
        let read = SchedulerConfig::read_as(&config, Sampler::FlowMidpoint).unwrap();
        assert_eq!(moved(Sampler::FlowMidpoint, 0.5).unwrap(), read);
    }

    #[test]
    fn flow_matching_is_not_mistaken_for_diffusion() {
        let read = |text: &str, class: Sampler| {
            SchedulerConfig::read_as(&Config::parse(text, Path::new("c.json")).unwrap(), class)
        };
        let flow = r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}"#;
        let diffusion = r#"{"_class_name": "DDIMScheduler"}"#;
        for class in Sampler::ALL {
            let (right, wrong) = match class {
                class if class.is_flow_matching() => (flow, diffusion),
                _ => (diffusion, flow),
            };
            read(right, class).unwrap();
            let error = read(wrong, class).unwrap_err().to_string();
            assert!(error.contains("c.json") && error.contains("sample with"), "{error}");
        }
    }
}
