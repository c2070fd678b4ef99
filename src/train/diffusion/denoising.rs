//! A denoiser as the training loop sees it: the loss of a batch.

use std::{
    cell::RefCell,
    collections::{HashMap, hash_map::Entry},
};

use tch::{Kind, Tensor};

use super::{
    batches::DiffusionBatch,
    denoiser::Denoiser,
    fit::Objective,
    objective::{NoiseObjective, NoiseTimes},
};
use crate::{
    error::Result,
    experiment::GeneratorTraining,
    nn::autoencoder_kl::{AutoencoderKL, Posterior},
    pipeline::space::{self, Space},
};

/// Denoising the images of a batch.
pub(super) struct Denoising<'a> {
    denoiser: &'a Denoiser,
    objective: NoiseObjective,
    /// The autoencoder's output for images that come back as they are, by their position among all prompts. At
    /// 512 px and four channels 128 KiB per image, on the device.
    encoded: RefCell<HashMap<usize, Posterior>>,
}

impl<'a> Denoising<'a> {
    /// # Errors
    /// As [`NoiseObjective::new`].
    pub fn new(denoiser: &'a Denoiser, training: &GeneratorTraining) -> Result<Self> {
        let objective = NoiseObjective::new(&denoiser.scheduler, training)?;
        Ok(Self { denoiser, objective, encoded: RefCell::default() })
    }

    pub fn times(&self) -> NoiseTimes {
        self.objective.times()
    }

    /// What noise is added to, f32: nothing is learned on the way.
    fn clean(&self, batch: &DiffusionBatch) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let images = match self.denoiser.image_channels {
            1 => batch.images.shallow_clone(),
            channels => batch.images.f_expand([-1, channels, -1, -1], false)?.contiguous(),
        };
        let (space, noise) = (&self.denoiser.space, batch.posterior_noise.as_ref());
        match space {
            Space::Latent(vae) if batch.unchanged => {
                space::latents(vae, &self.encoded(vae, &images, batch)?, noise)
            }
            _ => space.encode(&images, noise),
        }
    }

    /// Where sampling begins: noise, or a little of the mask in it.
    fn start(&self, noise: &Tensor, batch: &DiffusionBatch) -> Result<Tensor> {
        match (self.denoiser.extras.mask_start, &batch.masks) {
            (Some(share), Some(masks)) => self.denoiser.space.start_at_mask(noise, masks, share),
            _ => Ok(noise.shallow_clone()),
        }
    }

    /// Each image is encoded once, and by itself: so its latents depend neither on the batch nor on where training
    /// was taken up.
    fn encoded(&self, vae: &AutoencoderKL, images: &Tensor, batch: &DiffusionBatch) -> Result<Posterior> {
        let mut encoded = self.encoded.borrow_mut();
        let (mut means, mut logvars) = (Vec::new(), Vec::new());
        for (i, &sample) in batch.chosen.iter().enumerate() {
            let posterior = match encoded.entry(batch.offset + sample) {
                Entry::Occupied(kept) => kept.into_mut(),
                Entry::Vacant(place) => {
                    let posterior = vae.encode(&images.f_narrow(0, i as i64, 1)?)?;
                    // A copy: the mean is a view that would keep all of the encoder's output.
                    place.insert(Posterior { mean: posterior.mean.copy(), ..posterior })
                }
            };
            means.push(posterior.mean.shallow_clone());
            logvars.push(posterior.logvar.shallow_clone());
        }
        Ok(Posterior { mean: Tensor::f_cat(&means, 0)?, logvar: Tensor::f_cat(&logvars, 0)? })
    }
}

impl Objective for Denoising<'_> {
    fn loss(&self, batch: &DiffusionBatch, kind: Kind) -> Result<Tensor> {
        let clean = self.clean(batch)?;
        let noise = self.start(&self.objective.pair(&clean, &batch.noise)?, batch)?;
        let noisy = self.objective.mix(&clean, &noise, &batch.times)?;
        let predicted = self.denoiser.predict(&noisy, batch, kind)?;
        self.objective.loss(&predicted, &clean, &noise, &batch.times)
    }
}
