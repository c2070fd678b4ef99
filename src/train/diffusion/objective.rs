//! What a generator learns: how noise is mixed into its images, what it predicts from the mixture, and how much each
//! error counts. Batches, networks and the training loop only pass on the times drawn here.

use std::path::Path;

use pathfinding::prelude::{Matrix, kuhn_munkres_min};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use serde_json::json;
use tch::{Kind, Tensor};

use crate::{
    error::{Error, Result},
    experiment::{Generator, GeneratorTraining, ImageSpace},
    nn::{
        config::Config,
        schedulers::{FlowEulerConfig, PredictionType, Scheduler, SchedulerConfig},
    },
    vocabulary::{Betas, Mode, Objective, Prediction, TimeSampling},
};

/// How the times of a batch's images are drawn, which say how much noise each gets. Networks are given them in
/// timesteps.
#[derive(Debug, Clone, Copy)]
pub(super) enum NoiseTimes {
    /// One of so many whole timesteps, drawn evenly.
    Whole(i64),
    /// Shares of noise times so many timesteps.
    Share { sampling: TimeSampling, timesteps: f64 },
}

impl NoiseTimes {
    /// For trainings that add no noise.
    pub const NONE: Self = Self::Whole(1);

    pub fn draw(self, rng: &mut impl Rng) -> f64 {
        match self {
            Self::Whole(timesteps) => rng.random_range(0..timesteps) as f64,
            Self::Share { sampling, timesteps } => {
                let uniform: f64 = rng.random();
                let normal: f64 = StandardNormal.sample(rng);
                let logistic = 1.0 / (1.0 + (-normal).exp());
                timesteps
                    * match sampling {
                        TimeSampling::Uniform => uniform,
                        TimeSampling::LogitNormal => logistic,
                        TimeSampling::Mixed if rng.random() => uniform,
                        TimeSampling::Mixed => logistic,
                    }
            }
        }
    }
}

/// What is learned of noisy samples.
pub(super) enum NoiseObjective {
    Diffusion(DiffusionObjective),
    Flow(FlowObjective),
}

impl NoiseObjective {
    /// The objective of networks with this scheduler: flow matching if that samples them.
    ///
    /// # Errors
    /// `training` asks for the other objective; the scheduler's configuration cannot work, or its networks predict
    /// the sample itself.
    pub fn new(config: &SchedulerConfig, training: &GeneratorTraining) -> Result<Self> {
        let (asked, of_networks) = (training.objective, objective_of(config));
        if asked != of_networks {
            return Err(Error::input(format!(
                "the base was trained with objective = \"{of_networks}\", not {asked}"
            ))
            .help(format!("set objective = \"{of_networks}\", or start from another base")));
        }
        Ok(match config.flow_timesteps() {
            Some(_) if config.inverts_sigmas() => {
                return Err(Error::input(
                    "the base counts its noise levels from 0 at noise (`invert_sigmas`)",
                )
                .help("start from a flow-matching model whose noise levels are 1 at noise"));
            }
            Some(timesteps) => Self::Flow(FlowObjective::new(timesteps as f64, training)),
            None => Self::Diffusion(DiffusionObjective::new(config, training.min_snr_gamma)?),
        })
    }

    pub fn times(&self) -> NoiseTimes {
        match self {
            Self::Diffusion(diffusion) => diffusion.times(),
            Self::Flow(flow) => flow.times,
        }
    }

    /// The noise of each of the `clean` samples, from the noise that was drawn for the batch.
    pub fn pair(&self, clean: &Tensor, noise: &Tensor) -> Result<Tensor> {
        match self {
            Self::Flow(flow) if flow.optimal_transport => nearest_noise(clean, noise),
            _ => Ok(noise.shallow_clone()),
        }
    }

    /// `clean` samples mixed with noise.
    pub fn mix(&self, clean: &Tensor, noise: &Tensor, times: &[f64]) -> Result<Tensor> {
        match self {
            Self::Diffusion(diffusion) => diffusion.scheduler.add_noise(clean, noise, &timesteps(times)),
            Self::Flow(flow) => {
                let shares: Vec<f32> = times.iter().map(|time| (time / flow.timesteps) as f32).collect();
                let mut shape = vec![1; clean.dim().max(1)];
                shape[0] = -1;
                let share = Tensor::f_from_slice(&shares)?.f_view(&shape[..])?.to_device(clean.device());
                Ok(clean + share * (noise - clean))
            }
        }
    }

    /// The loss of what a network predicts for such a mixture.
    pub fn loss(&self, predicted: &Tensor, clean: &Tensor, noise: &Tensor, times: &[f64]) -> Result<Tensor> {
        match self {
            Self::Diffusion(diffusion) => diffusion.loss(predicted, clean, noise, times),
            Self::Flow(_) => Ok(predicted.f_mse_loss(&(noise - clean), tch::Reduction::Mean)?),
        }
    }
}

fn objective_of(config: &SchedulerConfig) -> Objective {
    match config.class().is_flow_matching() {
        true => Objective::Flow,
        false => Objective::Diffusion,
    }
}

/// The straight line between noise and image: the network finds the velocity noise - image. As
/// `FlowMatchEulerDiscreteScheduler` counts, the share of noise is 1 at noise and 0 at images.
pub(super) struct FlowObjective {
    times: NoiseTimes,
    timesteps: f64,
    optimal_transport: bool,
}

impl FlowObjective {
    fn new(timesteps: f64, training: &GeneratorTraining) -> Self {
        let times = NoiseTimes::Share { sampling: training.time_sampling, timesteps };
        Self { times, timesteps, optimal_transport: training.optimal_transport }
    }
}

/// The noise in the order in which the sum of squared distances to the samples is least: minibatch optimal transport
/// (Tong et al., arXiv 2302.00482). Paths cross less, so fewer steps follow them.
fn nearest_noise(clean: &Tensor, noise: &Tensor) -> Result<Tensor> {
    let flat = |t: &Tensor| t.f_flatten(1, -1).map(|t| t.to_kind(Kind::Float));
    let (clean, flat_noise) = (flat(clean)?, flat(noise)?);
    // Squared norms are the same whatever the order: only the products count. 24 bits of them are exact in f32.
    let products: Vec<f32> =
        Vec::try_from(clean.f_matmul(&flat_noise.f_transpose(0, 1)?)?.f_flatten(0, -1)?)?;
    let scaled = products.iter().map(|product| -(f64::from(*product) * 1e6).round() as i64).collect();
    let side = clean.size()[0] as usize;
    let costs = Matrix::from_vec(side, side, scaled)
        .map_err(|e| Error::failure(format!("cannot pair noise and images: {e}")))?;
    let (_, order) = kuhn_munkres_min(&costs);
    let order: Vec<i64> = order.into_iter().map(|i| i as i64).collect();
    Ok(noise.f_index_select(0, &Tensor::f_from_slice(&order)?.to_device(noise.device()))?)
}

/// Finding the noise (or v) in noisy samples: the mean square error of Ho et al. 2020, eq. 14.
pub(super) struct DiffusionObjective {
    scheduler: Scheduler,
    prediction: Prediction,
    /// Weight of the loss at each timestep; none: 1.
    weights: Option<Vec<f32>>,
}

impl DiffusionObjective {
    fn new(config: &SchedulerConfig, min_snr_gamma: f64) -> Result<Self> {
        let Some(config) = config.in_training() else {
            return Err(Error::failure("flow matching has no noise schedule"));
        };
        let scheduler = Scheduler::new(&config)?;
        let prediction = match config.prediction_type() {
            Some(PredictionType::Epsilon) => Prediction::Epsilon,
            Some(PredictionType::VPrediction) => Prediction::VPrediction,
            Some(PredictionType::Sample) | None => {
                return Err(Error::input("the base predicts the sample itself, which is not trained here")
                    .help("start from a model that predicts epsilon or v"));
            }
        };
        let weights = match min_snr_gamma > 0.0 {
            false => None,
            true => scheduler
                .alphas_cumprod()
                .map(|alphas| min_snr(alphas, min_snr_gamma, prediction))
                .transpose()?,
        };
        Ok(Self { scheduler, prediction, weights })
    }

    fn times(&self) -> NoiseTimes {
        NoiseTimes::Whole(self.scheduler.num_train_timesteps())
    }

    fn loss(&self, predicted: &Tensor, clean: &Tensor, noise: &Tensor, times: &[f64]) -> Result<Tensor> {
        let timesteps = timesteps(times);
        let target = match self.prediction {
            Prediction::Epsilon => noise.shallow_clone(),
            Prediction::VPrediction => self.scheduler.velocity(clean, noise, &timesteps)?,
        };
        let Some(weights) = &self.weights else {
            return Ok(predicted.f_mse_loss(&target, tch::Reduction::Mean)?);
        };
        let of_batch: Vec<f32> = timesteps.iter().map(|&t| weights[t as usize]).collect();
        let errors = (predicted - target).square().f_mean_dim(&[1i64, 2, 3][..], false, Kind::Float)?;
        Ok((errors * Tensor::from_slice(&of_batch).to_device(noise.device())).mean(Kind::Float))
    }
}

fn timesteps(times: &[f64]) -> Vec<f32> {
    times.iter().map(|&time| time as f32).collect()
}

/// Min-SNR weights (Hang et al. 2023): min(SNR, gamma) / SNR for epsilon, / (SNR + 1) for v.
fn min_snr(alphas_cumprod: &Tensor, gamma: f64, prediction: Prediction) -> Result<Vec<f32>> {
    let alphas = alphas_cumprod.to_kind(Kind::Double);
    let snr: Tensor = &alphas / (1.0 - &alphas);
    let capped = snr.clamp_max(gamma);
    let weights = match prediction {
        Prediction::Epsilon => capped / snr,
        Prediction::VPrediction => capped / (snr + 1.0),
    };
    Ok(weights.to_kind(Kind::Float).try_into()?)
}

/// The scheduler of a model from scratch. For diffusion it is DDIM's: sampling may choose another one.
pub(super) fn new_scheduler(settings: &Generator) -> Result<SchedulerConfig> {
    if settings.training.objective == Objective::Flow {
        return Ok(SchedulerConfig::FlowEuler(FlowEulerConfig::default()));
    }
    let (betas, start, end) = match settings.training.betas {
        Betas::Linear => ("linear", 1e-4, 0.02),
        Betas::ScaledLinear => ("scaled_linear", 0.00085, 0.012),
        Betas::SquaredcosCapV2 => ("squaredcos_cap_v2", 1e-4, 0.02),
    };
    let pixels = settings.networks.image_space != ImageSpace::Latent;
    let value = json!({
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": 1000,
        "beta_schedule": betas,
        "beta_start": start,
        "beta_end": end,
        "prediction_type": match settings.training.prediction {
            Prediction::Epsilon => "epsilon",
            Prediction::VPrediction => "v_prediction",
        },
        // Pixels have a range, latents have none; and diffusers' text pipeline turns clipping off.
        "clip_sample": pixels && settings.mode == Mode::Unconditional,
        "set_alpha_to_one": true,
        "steps_offset": i64::from(settings.mode != Mode::Unconditional),
        "timestep_spacing": "trailing",
    });
    SchedulerConfig::read(&Config::parse(&value.to_string(), Path::new("scheduler"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn min_snr_limits_the_weight_of_nearly_clean_images() {
        // SNR 9 and 1/9.
        let alphas = Tensor::from_slice(&[0.9f32, 0.1]);
        for (prediction, expected) in
            [(Prediction::Epsilon, [5.0 / 9.0, 1.0]), (Prediction::VPrediction, [0.5, 0.1])]
        {
            let weights = min_snr(&alphas, 5.0, prediction).unwrap();
            let off = weights.iter().zip(expected).map(|(w, e)| (w - e).abs()).fold(0.0, f32::max);
            assert!(off < 1e-6, "{prediction}: {weights:?}");
        }
    }

    #[test]
    fn a_base_is_trained_with_its_noise_whatever_samples_it() {
        let read = |class: &str| {
            let text = format!("{{\"_class_name\": \"{class}\", \"beta_schedule\": \"scaled_linear\"}}");
            SchedulerConfig::read(&Config::parse(&text, Path::new("scheduler")).unwrap()).unwrap()
        };
        let (clean, noise) = (Tensor::from_slice(&[0.5f32, -1.0]), Tensor::from_slice(&[2.0f32, 0.25]));
        let mixed = |class: &str| {
            NoiseObjective::new(&read(class), &training(Objective::Diffusion))
                .unwrap()
                .mix(&clean, &noise, &[10.0])
                .unwrap()
        };
        let ddim = mixed("DDIMScheduler");
        for class in ["PNDMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler"] {
            assert_eq!(mixed(class), ddim, "{class}");
        }
        let flow = read("FlowMatchEulerDiscreteScheduler");
        let refused = NoiseObjective::new(&flow, &training(Objective::Diffusion)).err().unwrap().to_string();
        assert!(refused.contains("set objective = \"flow\""), "{refused}");
        let refused = NoiseObjective::new(&read("DDIMScheduler"), &training(Objective::Flow)).err().unwrap();
        assert!(refused.to_string().contains("set objective = \"diffusion\""), "{refused}");
        for class in ["FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"] {
            let text = format!("{{\"_class_name\": \"{class}\", \"num_train_timesteps\": 500}}");
            let config = Config::parse(&text, Path::new("scheduler")).unwrap();
            let objective =
                NoiseObjective::new(&SchedulerConfig::read(&config).unwrap(), &training(Objective::Flow))
                    .unwrap();
            // Half noise.
            assert_eq!(objective.mix(&clean, &noise, &[250.0, 250.0]).unwrap(), (&clean + &noise) / 2.0);
        }
        let inverted =
            SchedulerConfig::FlowEuler(FlowEulerConfig { invert_sigmas: true, ..FlowEulerConfig::default() });
        let refused = NoiseObjective::new(&inverted, &training(Objective::Flow)).err().unwrap().to_string();
        assert!(refused.contains("invert_sigmas"), "{refused}");
    }

    fn training(objective: Objective) -> GeneratorTraining {
        let preset = Generator::preset(crate::experiment::GeneratorPreset::Cpu, Mode::Text);
        GeneratorTraining { objective, min_snr_gamma: 0.0, ..preset.training }
    }

    #[test]
    fn a_straight_line_leads_from_noise_to_the_image() {
        let training = GeneratorTraining { optimal_transport: true, ..training(Objective::Flow) };
        let objective =
            NoiseObjective::new(&SchedulerConfig::FlowEuler(FlowEulerConfig::default()), &training).unwrap();
        let clean = Tensor::from_slice(&[1.0f32, -1.0]).view([2, 1, 1, 1]);
        let drawn = Tensor::from_slice(&[-3.0f32, 2.0]).view([2, 1, 1, 1]);
        // Each image gets the noise that is nearer to it.
        let noise = objective.pair(&clean, &drawn).unwrap();
        assert_eq!(Vec::<f32>::try_from(noise.view(-1)).unwrap(), [2.0, -3.0]);
        let mixed = objective.mix(&clean, &noise, &[0.0, 250.0]).unwrap();
        assert_eq!(Vec::<f32>::try_from(mixed.view(-1)).unwrap(), [1.0, -1.5]);
        // The velocity is noise - image: 1 and -2.
        let predicted = Tensor::from_slice(&[1.0f32, 0.0]).view([2, 1, 1, 1]);
        let loss = objective.loss(&predicted, &clean, &noise, &[0.0, 250.0]).unwrap();
        assert_eq!(loss.double_value(&[]), 2.0);
    }

    #[test]
    fn shares_of_noise_are_drawn_as_asked() {
        let drawn = |sampling: TimeSampling| -> Vec<f64> {
            let times = NoiseTimes::Share { sampling, timesteps: 1000.0 };
            let mut rng = crate::random::rng(0, "test", &[]);
            (0..20_000).map(|_| times.draw(&mut rng) / 1000.0).collect()
        };
        // Of a uniform number a tenth lies below 0.1; of the logistic function of a normal one P(N < ln(1/9)).
        for (sampling, expected) in
            [(TimeSampling::Uniform, 0.1), (TimeSampling::LogitNormal, 0.0140), (TimeSampling::Mixed, 0.0570)]
        {
            let times = drawn(sampling);
            assert!(times.iter().all(|time| (0.0..=1.0).contains(time)));
            let below = times.iter().filter(|&&time| time < 0.1).count() as f64 / times.len() as f64;
            assert!((below - expected).abs() < 0.006, "{sampling}: {below}");
        }
    }

    #[test]
    fn times_are_whole_timesteps_of_the_scheduler() {
        let preset = Generator::preset(crate::experiment::GeneratorPreset::Cpu, Mode::Text);
        let settings = Generator { training: training(Objective::Diffusion), ..preset };
        let objective = NoiseObjective::new(&new_scheduler(&settings).unwrap(), &settings.training).unwrap();
        let mut rng = crate::random::rng(0, "test", &[]);
        let times: Vec<f64> = (0..1000).map(|_| objective.times().draw(&mut rng)).collect();
        assert!(times.iter().all(|time| time.fract() == 0.0 && (0.0..1000.0).contains(time)));
        assert!(times.iter().any(|&time| time > 900.0) && times.iter().any(|&time| time < 100.0));
    }
}
