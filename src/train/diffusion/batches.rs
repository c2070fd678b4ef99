//! Batches for a generator, made ahead of the training step. All that is drawn comes from (seed, position
//! in the whole training), so it depends neither on the batch nor on where training was taken up.

use rand::{Rng, seq::SliceRandom};
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use tch::{Device, Tensor};

use super::objective::NoiseTimes;
use crate::{
    augment::{self, AugmentRange, HALF},
    error::Result,
    random,
    samples::Samples,
    train::{channels_last, loader::ahead},
};

/// How batches are made.
pub(super) struct Batches<'a> {
    pub samples: &'a Samples,
    pub batch_size: usize,
    pub range: Option<AugmentRange>,
    pub prompt_dropout: f64,
    pub times: NoiseTimes,
    /// Class of each sample; empty where the network does not get it.
    pub labels: &'a [i64],
    /// The first sample's position among all prompts.
    pub offset: usize,
    /// Channels, height and width of the noise.
    pub noise: [i64; 3],
    /// Whether an autoencoder's posterior is drawn from.
    pub posterior: bool,
    pub seed: u64,
    pub device: Device,
}

/// One batch, on the device.
pub(super) struct DiffusionBatch {
    /// (batch, 1, height, width), f32 in -1..1.
    pub images: Tensor,
    /// (batch, height, width), i64; none where the samples have none.
    pub masks: Option<Tensor>,
    /// Whether the images are the samples' own, without augmentation: such an image comes back as it is.
    pub unchanged: bool,
    /// Which of the samples these are, and whether they go without their prompt.
    pub chosen: Vec<usize>,
    pub dropped: Vec<bool>,
    /// Their classes, where the network gets them.
    pub labels: Vec<i64>,
    /// The samples' position among all prompts.
    pub offset: usize,
    /// How much noise each image gets; networks get it as an input.
    pub times: Vec<f64>,
    /// (batch, channels, height, width), standard normal, f32: what the network has to find.
    pub noise: Tensor,
    /// The same once more for an autoencoder's posterior.
    pub posterior_noise: Option<Tensor>,
}

/// What a batch is made of, as plain numbers.
struct Pixels {
    images: Vec<f32>,
    /// Empty where the samples have none.
    masks: Vec<i64>,
    noise: Vec<f32>,
    /// Empty where no posterior is drawn from.
    posterior: Vec<f32>,
    times: Vec<f64>,
    dropped: Vec<bool>,
    turns: Vec<Turn>,
    training: bool,
}

impl Batches<'_> {
    /// Hands the batches `from`..`to` of the training to `step`.
    pub fn each(&self, from: u64, to: u64, step: impl FnMut(DiffusionBatch) -> Result<()>) -> Result<()> {
        let (size, mut order) = (self.batch_size as u64, Order::default());
        let batches = (from..to).map(move |batch| {
            let turns: Vec<Turn> = (batch * size..(batch + 1) * size).map(|p| order.turn(self, p)).collect();
            self.pixels(turns, true)
        });
        ahead(self.device, batches, |pixels| self.tensors(pixels), step)
    }

    /// The samples themselves with noise that is always the same, at most `most` of them, evenly chosen.
    pub fn fixed(&self, most: usize) -> Result<Vec<DiffusionBatch>> {
        let count = self.samples.len().min(most);
        let turns: Vec<Turn> = (0..count)
            .map(|i| Turn { at: i as u64, epoch: 0, sample: i * self.samples.len() / count })
            .collect();
        let batch = |turns: &[Turn]| self.tensors(self.pixels(turns.to_vec(), false)?);
        turns.chunks(self.batch_size.max(16)).map(batch).collect()
    }

    fn pixels(&self, turns: Vec<Turn>, training: bool) -> Result<Pixels> {
        let size = self.samples.size;
        let pixels = size * size;
        let with_masks = !self.samples.masks.is_empty();
        let mut images = vec![0f32; turns.len() * pixels];
        let mut masks = vec![0i64; if with_masks { images.len() } else { 0 }];
        let mut no_masks: Vec<&mut [i64]> = Vec::new();
        if with_masks {
            no_masks.extend(masks.chunks_exact_mut(pixels));
        } else {
            no_masks.resize_with(turns.len(), Default::default);
        }
        let one_noise: i64 = self.noise.iter().product();
        let mut noise = vec![0f32; turns.len() * one_noise as usize];
        let one_posterior = if self.posterior { one_noise as usize } else { 0 };
        let mut posterior = vec![0f32; turns.len() * one_posterior];
        let mut posteriors: Vec<&mut [f32]> = Vec::new();
        if self.posterior {
            posteriors.extend(posterior.chunks_exact_mut(one_posterior));
        } else {
            posteriors.resize_with(turns.len(), Default::default);
        }
        // "training" and "validation" must not share a draw.
        let purpose = |what: &str| format!("{} {what}", if training { "training" } else { "validation" });
        turns
            .par_iter()
            .zip(images.par_chunks_exact_mut(pixels))
            .zip(no_masks)
            .zip(noise.par_chunks_exact_mut(one_noise as usize))
            .zip(posteriors)
            .try_for_each(|((((turn, image), mask), noise), posterior)| {
                let mut rng = random::rng(self.seed, &purpose("noise"), &[turn.at]);
                noise.iter_mut().chain(posterior).for_each(|v| *v = StandardNormal.sample(&mut rng));
                let grey = self.samples.image(turn.sample);
                match self.range.as_ref().filter(|_| training) {
                    Some(range) => {
                        let id = self.samples.ids[turn.sample];
                        let mut rng = random::rng(self.seed, "augment", &[turn.epoch, id]);
                        let params = augment::draw(range, &mut rng, size, size);
                        let mask = with_masks.then_some((self.samples.mask(turn.sample), mask));
                        augment::apply(&params, grey, mask, (size, size), &HALF, image)
                    }
                    None => {
                        let from = self.samples.mask(turn.sample);
                        mask.iter_mut().zip(from).for_each(|(to, &class)| *to = i64::from(class));
                        augment::normalise(grey, &HALF, image)
                    }
                }
            })?;
        let (mut times, mut dropped) = (Vec::new(), Vec::new());
        for turn in &turns {
            let mut rng = random::rng(self.seed, &purpose("timestep"), &[turn.at]);
            times.push(self.times.draw(&mut rng));
            dropped.push(rng.random::<f64>() < self.prompt_dropout && training);
        }
        Ok(Pixels { images, masks, noise, posterior, times, dropped, turns, training })
    }

    fn tensors(&self, pixels: Pixels) -> Result<DiffusionBatch> {
        let Pixels { images, masks, noise, posterior, times, dropped, turns, training } = pixels;
        let (n, s) = (turns.len() as i64, self.samples.size as i64);
        let [c, h, w] = self.noise;
        let tensor = |values: &[f32], shape: [i64; 4]| -> Result<Tensor> {
            Ok(Tensor::f_from_slice(values)?.f_view(shape)?.f_to(self.device)?)
        };
        let masks = match masks.is_empty() {
            false => Some(Tensor::f_from_slice(&masks)?.f_view([n, s, s])?.f_to(self.device)?),
            true => None,
        };
        Ok(DiffusionBatch {
            images: tensor(&images, [n, 1, s, s])?,
            masks,
            unchanged: self.range.is_none() || !training,
            labels: turns.iter().filter_map(|p| self.labels.get(p.sample).copied()).collect(),
            offset: self.offset,
            chosen: turns.iter().map(|p| p.sample).collect(),
            dropped,
            times,
            noise: tensor(&noise, [n, c, h, w])?,
            posterior_noise: match self.posterior {
                true => Some(tensor(&posterior, [n, c, h, w])?),
                false => None,
            },
        })
    }
}

/// Images as training likes them in memory. With channels innermost, as tensor cores want them, the
/// CPU is slower: the paper's DDPM takes 1.17 times as long in f32, 1.13 times in bf16.
pub(super) fn laid_out(images: &Tensor) -> Tensor {
    if images.device().is_cuda() { channels_last(images) } else { images.contiguous() }
}

/// One image's turn.
#[derive(Clone, Copy)]
struct Turn {
    /// Images before it in the whole training.
    at: u64,
    epoch: u64,
    sample: usize,
}

/// The shuffled order of the epoch that was asked for last.
#[derive(Default)]
struct Order {
    epoch: Option<u64>,
    order: Vec<usize>,
}

impl Order {
    fn turn(&mut self, batches: &Batches, at: u64) -> Turn {
        let count = batches.samples.len() as u64;
        let epoch = at / count;
        if self.epoch != Some(epoch) {
            self.order = (0..count as usize).collect();
            self.order.shuffle(&mut random::rng(batches.seed, "shuffle", &[epoch]));
            self.epoch = Some(epoch);
        }
        Turn { at, epoch, sample: self.order[(at % count) as usize] }
    }
}
