//! Keeps a part of an image and generates the rest, with networks that were not trained for it (RePaint, Lugmayr et al.,
//! arXiv 2201.09865), for networks trained by flow matching.

use tch::{Kind, Tensor};

use super::{conditioning::Conditioning, noise::NoiseSource, space::Space};
use crate::error::{Error, Result};

/// What is kept.
#[derive(Debug)]
pub struct KnownPart {
    /// (images, 1, height, width), f32 in -1..1.
    pub images: Tensor,
    /// The same shape, 1 where the image is kept and 0 elsewhere.
    pub kept: Tensor,
    /// How often each step is taken, from 1 on: noise is added again in between.
    pub resample: usize,
}

/// Sampling from noise, with what is known.
pub(super) struct Inpainting<'a> {
    pub conditioning: &'a Conditioning<'a>,
    /// The noise levels at which the steps start, from 1 down, and 0.
    pub levels: Vec<f64>,
    pub timesteps: f64,
    image: Tensor,
    kept: Tensor,
    resample: usize,
}

impl<'a> Inpainting<'a> {
    /// `channels`: of what is denoised. `timesteps`: those of the network at noise level 1.
    ///
    /// # Errors
    /// An autoencoder's latents, or shapes that do not fit.
    pub fn new(
        conditioning: &'a Conditioning<'a>,
        known: &KnownPart,
        space: &Space,
        channels: i64,
        starts: &[f32],
        timesteps: f64,
    ) -> Result<Self> {
        if let Space::Latent(_) = space {
            return Err(Error::input("pixels of an autoencoder's latents cannot be kept")
                .help("use a model in pixels or space-to-depth pixels"));
        }
        let colours = space.image_channels(channels);
        let folded = |pixels: &Tensor| -> Result<Tensor> {
            space.encode(&pixels.f_expand([-1, colours, -1, -1], false)?.f_contiguous()?, None)
        };
        let levels = starts.iter().map(|start| f64::from(*start) / timesteps).chain([0.0]).collect();
        let (image, kept) = (folded(&known.images)?, folded(&known.kept)?);
        Ok(Self { conditioning, levels, timesteps, image, kept, resample: known.resample.max(1) })
    }

    /// From standard normal noise to samples. `tick` is called after each step.
    pub fn sample(
        &self,
        start: Tensor,
        noise: &mut dyn NoiseSource,
        tick: &dyn Fn(usize, usize),
    ) -> Result<Tensor> {
        let (kind, device) = (start.kind(), start.device());
        let (image, kept) = (self.image.to_device(device), self.kept.to_device(device));
        let mut sample = start.to_kind(Kind::Float);
        let mut draw = || -> Result<Tensor> { Ok(noise.next(&image.size())?.to_device(device)) };
        let steps = self.levels.len() - 1;
        for step in 0..steps {
            let (from, to) = (self.levels[step], self.levels[step + 1]);
            for taken in 1..=self.resample {
                let velocity =
                    self.conditioning.predict(&sample.to_kind(kind), (from * self.timesteps) as f32)?;
                let made = &sample + velocity.to_kind(Kind::Float) * (to - from);
                let known = match to > 0.0 {
                    true => &image * (1.0 - to) + draw()? * to,
                    false => image.shallow_clone(),
                };
                sample = &kept * known + (1.0 - &kept) * made;
                // At the first level all is noise, and behind the last there is none.
                if taken == self.resample || to == 0.0 || from >= 1.0 {
                    break;
                }
                let share = (1.0 - from) / (1.0 - to);
                let more = (from * from - share * share * to * to).max(0.0).sqrt();
                sample = sample * share + draw()? * more;
            }
            tick(step + 1, steps);
        }
        Ok(sample.to_kind(kind))
    }
}
