//! An autoencoder from scratch for diffusion in latents: reconstruction with a small Kullback-Leibler
//! term, as in Rombach et al. 2022 but for the discriminator and the perceptual loss, which need
//! networks that were trained elsewhere. Small ones blur speckle: see the measure `texture`.

use std::path::{Path, PathBuf};

use tch::{Kind, Tensor, nn::VarStore};

use super::{
    batches::{Batches, DiffusionBatch, laid_out},
    fit::{Fitted, LoopContext, Objective, Recipe, fit},
    folder::remove_folder,
    objective::NoiseTimes,
};
use crate::{
    augment::AugmentRange,
    error::{AtPath, Result},
    experiment::{Generator, GeneratorSchedule},
    nn::{
        autoencoder_kl::{AutoencoderKL, AutoencoderKLConfig},
        init,
    },
    pipeline::folder_write::write_part,
    random,
    train::{TaskData, TrainingContext, parameters::Parameters},
};

/// Weight of the Kullback-Leibler term, per latent value.
const KL_WEIGHT: f64 = 1e-6;

/// Images that the latents' spread is taken from.
const SPREAD_IMAGES: usize = 64;

struct Reconstruction<'a> {
    vae: &'a AutoencoderKL,
}

impl Objective for Reconstruction<'_> {
    /// Mean absolute error and half the mean square error.
    fn loss(&self, batch: &DiffusionBatch, kind: Kind) -> Result<Tensor> {
        let images = laid_out(&batch.images);
        let posterior = self.vae.encode(&images.to_kind(kind))?;
        let noise = batch.posterior_noise.as_ref().unwrap_or(&batch.noise);
        let latents = posterior.sample(&noise.to_kind(kind))?;
        let made = self.vae.decode(&latents)?.to_kind(Kind::Float);
        let error = made - &batch.images;
        let (mean, logvar) = (posterior.mean.to_kind(Kind::Float), posterior.logvar.to_kind(Kind::Float));
        let divergence = (mean.square() + logvar.exp() - 1.0 - logvar).mean(Kind::Float) * 0.5;
        Ok(error.abs().mean(Kind::Float) + error.square().mean(Kind::Float) * 0.5 + divergence * KL_WEIGHT)
    }
}

/// Trains it, or takes up where it was; gives the folder of the part (`vae`).
pub(super) fn train(
    settings: &Generator,
    data: &TaskData,
    seed: u64,
    work: &Path,
    context: &TrainingContext,
) -> Result<PathBuf> {
    let to = work.join("vae");
    if to.is_dir() {
        return Ok(to); // written whole, or not at all
    }
    let config = AutoencoderKLConfig {
        in_channels: 1,
        out_channels: 1,
        block_out_channels: settings.networks.autoencoder_channels.clone(),
        latent_channels: settings.networks.latent_channels,
        norm_num_groups: settings.networks.norm_num_groups.min(8),
        sample_size: Some([settings.image_size as i64; 2]),
        mid_block_add_attention: false,
        ..AutoencoderKLConfig::default()
    };
    let vs = VarStore::new(context.device);
    let vae = AutoencoderKL::new(&vs.root(), &config)?;
    init::fill(&vs, random::seed(seed, "autoencoder", &[]), None);
    let side = settings.image_size as i64 / config.size_factor();
    let train = Batches {
        samples: &data.train,
        batch_size: settings.training.batch_size.min(8),
        range: AugmentRange::of(&settings.augment),
        prompt_dropout: 0.0,
        times: NoiseTimes::NONE,
        labels: &[],
        offset: 0,
        noise: [settings.networks.latent_channels, side, side],
        posterior: false,
        seed: random::seed(seed, "autoencoder batches", &[]),
        device: context.device,
    };
    let recipe = Recipe {
        steps: settings.networks.autoencoder_steps as u64,
        accumulate: 1,
        learning_rate: settings.networks.autoencoder_learning_rate,
        schedule: GeneratorSchedule::Cosine,
        warmup_steps: 100.min(settings.networks.autoencoder_steps as u64 / 10),
        weight_decay: 0.0,
        clip: 1.0,
        ema: 0.0,
        precision: settings.training.precision,
        validate_every: 0,
        grid_every: 0,
        quality_every: 0,
        choose_by: None,
    };
    let checkpoints = work.join("autoencoder");
    let of_loop = LoopContext {
        checkpoints: &checkpoints,
        checkpoint_every: context.checkpoint_every,
        observer: context.observer,
        phase: "autoencoder",
        total: recipe.steps,
        before: 0,
        name: "autoencoder",
    };
    let mut parameters = Parameters::new(vs.variables(), settings.training.precision)?;
    let objective = Reconstruction { vae: &vae };
    let Fitted { weights, curves, .. } =
        fit(&objective, &mut parameters, &recipe, &train, None, &mut (), &of_loop)?;
    // Diffusion wants latents of unit spread.
    let config = AutoencoderKLConfig {
        scaling_factor: 1.0 / spread(&objective, &train, parameters.kind())?,
        ..config
    };
    let file = work.join("autoencoder.csv");
    std::fs::write(&file, crate::results::to_csv(&curves)?).at_path(&file, "cannot write")?;
    let partial = work.join("vae.partial");
    remove_folder(&partial)?;
    write_part(&partial, &config.to_json(), &weights)?;
    std::fs::rename(&partial, &to).at_path(&to, "cannot put the autoencoder in its place")?;
    remove_folder(&checkpoints)?;
    Ok(to)
}

/// Standard deviation of the latents' means.
fn spread(objective: &Reconstruction, batches: &Batches, kind: Kind) -> Result<f64> {
    let _guard = tch::no_grad_guard();
    let mut all = Vec::new();
    for batch in batches.fixed(SPREAD_IMAGES)? {
        all.push(objective.vae.encode(&batch.images.to_kind(kind))?.mode().to_kind(Kind::Float));
    }
    let spread = f64::try_from(Tensor::f_cat(&all, 0)?.std(true))?;
    Ok(if spread.is_finite() && spread > 1e-6 { spread } else { 1.0 })
}
