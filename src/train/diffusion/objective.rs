//! What a generator learns: how noise is mixed into its images, what it predicts from the mixture, and how much each
//! error counts. Another objective, such as flow matching, is another answer to these questions; batches, networks and
//! the training loop only pass on the times drawn here.

use std::path::Path;

use rand::Rng;
use serde_json::json;
use tch::{Kind, Tensor};

use crate::{
    error::{Error, Result},
    experiment::{Generator, ImageSpace},
    nn::{
        config::Config,
        schedulers::{PredictionType, Scheduler, SchedulerConfig},
    },
    vocabulary::{Betas, Mode, Prediction},
};

/// The times of a batch's images, which say how much noise each gets: whole timesteps, drawn evenly.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoiseTimes {
    timesteps: i64,
}

impl NoiseTimes {
    /// For trainings that add no noise.
    pub const NONE: Self = Self { timesteps: 1 };

    pub fn draw(self, rng: &mut impl Rng) -> f64 {
        rng.random_range(0..self.timesteps) as f64
    }
}

/// Finding the noise (or v) in noisy samples: the mean square error of Ho et al. 2020, eq. 14.
pub(super) struct NoiseObjective {
    scheduler: Scheduler,
    prediction: Prediction,
    /// Weight of the loss at each timestep; none: 1.
    weights: Option<Vec<f32>>,
}

impl NoiseObjective {
    /// # Errors
    /// The scheduler's configuration cannot work, or its networks predict the sample itself.
    pub fn new(config: &SchedulerConfig, min_snr_gamma: f64) -> Result<Self> {
        let Some(config) = config.in_training() else {
            return Err(Error::input("the base was trained by flow matching, which is not trained here")
                .help("start from a model that predicts epsilon or v"));
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

    pub fn times(&self) -> NoiseTimes {
        NoiseTimes { timesteps: self.scheduler.num_train_timesteps() }
    }

    /// `clean` samples mixed with noise.
    pub fn mix(&self, clean: &Tensor, noise: &Tensor, times: &[f64]) -> Result<Tensor> {
        self.scheduler.add_noise(clean, noise, &timesteps(times))
    }

    /// The loss of what a network predicts for such a mixture.
    pub fn loss(&self, predicted: &Tensor, clean: &Tensor, noise: &Tensor, times: &[f64]) -> Result<Tensor> {
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

/// The noise of a model from scratch, as DDIM's configuration: sampling may choose another scheduler.
pub(super) fn new_scheduler(settings: &Generator) -> Result<SchedulerConfig> {
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
            NoiseObjective::new(&read(class), 5.0).unwrap().mix(&clean, &noise, &[10.0]).unwrap()
        };
        let ddim = mixed("DDIMScheduler");
        for class in ["PNDMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler"] {
            assert_eq!(mixed(class), ddim, "{class}");
        }
        let flow = NoiseObjective::new(&read("FlowMatchEulerDiscreteScheduler"), 0.0);
        assert!(flow.err().unwrap().to_string().contains("flow matching"));
    }

    #[test]
    fn times_are_whole_timesteps_of_the_scheduler() {
        let settings = Generator::preset(crate::experiment::GeneratorPreset::Cpu, Mode::Text);
        let objective = NoiseObjective::new(&new_scheduler(&settings).unwrap(), 0.0).unwrap();
        let mut rng = crate::random::rng(0, "test", &[]);
        let times: Vec<f64> = (0..1000).map(|_| objective.times().draw(&mut rng)).collect();
        assert!(times.iter().all(|time| time.fract() == 0.0 && (0.0..1000.0).contains(time)));
        assert!(times.iter().any(|&time| time > 900.0) && times.iter().any(|&time| time < 100.0));
    }
}
