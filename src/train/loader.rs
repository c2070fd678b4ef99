//! Batches, made ahead of the training step: augmentation runs on rayon while libtorch computes.
//! What is drawn for an image comes from (seed, epoch, image), so it does not depend on the batch.

use std::{ops::Range, sync::mpsc::sync_channel};

use rand::seq::SliceRandom;
use rayon::prelude::*;
use tch::{Device, Tensor};

use crate::{
    augment::{self, AugmentParams, AugmentRange, Normalise},
    error::{Error, Result},
    random,
    samples::Samples,
};

/// What the network is to predict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// The samples' masks.
    Masks,
    /// A class index per image.
    Labels(&'a [usize]),
}

/// How batches are made.
#[derive(Debug, Clone, Copy)]
pub struct Loader<'a> {
    pub samples: &'a Samples,
    pub target: Target<'a>,
    pub batch_size: usize,
    pub channels: &'a [Normalise],
    pub seed: u64,
    pub device: Device,
    /// Batches hold these in place of the images, which are then not augmented.
    pub features: Option<&'a FrozenFeatures>,
}

/// The output of a network's frozen layers for each sample.
#[derive(Debug)]
pub struct FrozenFeatures {
    values: Vec<f32>,
    /// Of one sample's.
    shape: Vec<i64>,
}

impl FrozenFeatures {
    /// The output of `frozen` for each image without augmentation; None where it holds more numbers than the image
    /// has pixels.
    pub fn of(loader: &Loader, frozen: impl Fn(&Tensor) -> Tensor) -> Result<Option<Self>> {
        let one = frozen(&loader.tensors(&loader.pixels(&[0], None)?)?.images);
        if one.numel() > loader.samples.size * loader.samples.size {
            return Ok(None);
        }
        let mut values = Vec::with_capacity(one.numel() * loader.samples.len());
        loader.in_order(|batch| {
            values.extend(Vec::<f32>::try_from(frozen(&batch.images).contiguous().flatten(0, -1))?);
            Ok(())
        })?;
        Ok(Some(Self { values, shape: one.size()[1..].to_vec() }))
    }

    fn rows(&self, chosen: &[usize]) -> Vec<f32> {
        let count = self.shape.iter().product::<i64>() as usize;
        chosen.iter().flat_map(|i| &self.values[i * count..(i + 1) * count]).copied().collect()
    }
}

/// A batch as plain numbers.
struct BatchPixels {
    /// Images (or features), one after the other.
    images: Vec<f32>,
    /// (batch, channels, height, width) or (batch, features).
    shape: Vec<i64>,
    /// Classes of pixels, or of images.
    target: Vec<i64>,
}

/// Images (batch, channels, height, width), f32, channels last; targets (batch, height, width) or
/// (batch), i64.
#[derive(Debug)]
pub struct Batch {
    pub images: Tensor,
    pub target: Tensor,
}

/// Batches made ahead of their use.
const AHEAD: usize = 3;

impl Loader<'_> {
    /// Optimizer steps in an epoch: the last batch may be smaller.
    pub fn steps(&self) -> usize {
        self.samples.len().div_ceil(self.batch_size)
    }

    /// The order of images in a training epoch.
    fn order(&self, epoch: usize, shuffle: bool) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.samples.len()).collect();
        if shuffle {
            order.shuffle(&mut random::rng(self.seed, "shuffle", &[epoch as u64]));
        } else {
            // As the reference's files lie: one view and phase after the other.
            order.sort_by_key(|&i| (self.samples.rows[i].view, self.samples.rows[i].phase));
        }
        order
    }

    /// Hands the batches of the optimizer steps `steps` (counted over all epochs) to `step`.
    pub fn train(
        &self,
        steps: Range<u64>,
        shuffle: bool,
        range: Option<&AugmentRange>,
        step: impl FnMut(Batch) -> Result<()>,
    ) -> Result<()> {
        let of_epoch = self.steps() as u64;
        let mut order = (None, Vec::new());
        let batches = steps.map(move |step| {
            let epoch = (step / of_epoch) as usize;
            if order.0 != Some(epoch) {
                order = (Some(epoch), self.order(epoch, shuffle));
            }
            let first = (step % of_epoch) as usize * self.batch_size;
            let images = &order.1[first..order.1.len().min(first + self.batch_size)];
            self.pixels(images, range.map(|range| (epoch, range)))
        });
        ahead(self.device, batches, |pixels| self.tensors(&pixels), step)
    }

    /// Hands every batch, in the manifest's order and without augmentation, to `step`.
    pub fn in_order(&self, step: impl FnMut(Batch) -> Result<()>) -> Result<()> {
        let order: Vec<usize> = (0..self.samples.len()).collect();
        let batches = order.chunks(self.batch_size).map(|images| self.pixels(images, None));
        ahead(self.device, batches, |pixels| self.tensors(&pixels), step)
    }

    fn pixels(&self, chosen: &[usize], augment: Option<(usize, &AugmentRange)>) -> Result<BatchPixels> {
        let n = chosen.len() as i64;
        if let (Some(features), Target::Labels(labels)) = (self.features, self.target) {
            let shape = [&[n], &features.shape[..]].concat();
            return Ok(BatchPixels {
                images: features.rows(chosen),
                shape,
                target: classes(labels, chosen)?,
            });
        }
        let size = self.samples.size;
        let (pixels, planes) = (size * size, self.channels.len());
        let mut images = vec![0f32; chosen.len() * planes * pixels];
        let with_masks = self.target == Target::Masks;
        let mut masks = vec![0i64; if with_masks { chosen.len() * pixels } else { 0 }];
        let one = |(&i, image, mask): (&usize, &mut [f32], &mut [i64])| {
            let params = match augment {
                Some((epoch, range)) => {
                    let mut rng = random::rng(self.seed, "augment", &[epoch as u64, self.samples.ids[i]]);
                    augment::draw(range, &mut rng, size, size)
                }
                None => AugmentParams::IDENTITY,
            };
            let grey = self.samples.image(i);
            if augment.is_none() {
                augment::normalise(grey, self.channels, image)?;
                mask.iter_mut().zip(self.samples.mask(i)).for_each(|(to, &class)| *to = i64::from(class));
                return Ok(());
            }
            let mask = with_masks.then_some((self.samples.mask(i), mask));
            augment::apply(&params, grey, mask, (size, size), self.channels, image)
        };
        // One chunk a mask even where there are none.
        let mut none: Vec<&mut [i64]> = Vec::new();
        if with_masks {
            none.extend(masks.chunks_exact_mut(pixels));
        } else {
            none.resize_with(chosen.len(), Default::default);
        }
        chosen
            .par_iter()
            .zip(images.par_chunks_exact_mut(planes * pixels))
            .zip(none)
            .map(|((i, image), mask)| one((i, image, mask)))
            .collect::<Result<()>>()?;

        let target = match self.target {
            Target::Masks => masks,
            Target::Labels(labels) => classes(labels, chosen)?,
        };
        let shape = vec![n, planes as i64, size as i64, size as i64];
        Ok(BatchPixels { images, shape, target })
    }

    fn tensors(&self, pixels: &BatchPixels) -> Result<Batch> {
        let images = Tensor::f_from_slice(&pixels.images)?.f_view(pixels.shape.as_slice())?;
        let images = images.f_to_device(self.device)?;
        let target = Tensor::f_from_slice(&pixels.target)?;
        let target = match (self.target, &pixels.shape[..]) {
            (Target::Masks, &[n, _, height, width]) => target.f_view([n, height, width])?,
            _ => target,
        };
        Ok(Batch {
            images: if images.dim() == 4 { channels_last(&images) } else { images },
            target: target.f_to_device(self.device)?,
        })
    }
}

/// Prepares batches (`pixels`) in a thread of its own while `step` works.
///
/// That thread also makes the tensors where they go to a GPU. On the CPU it must not: libgomp gives each computing
/// thread a pool of its own, and with more threads than cores no pool waits for work awake. Every kernel of the step
/// would then begin by waking its pool, which cost a small ControlNet a sixth of its time.
pub(super) fn ahead<P: Send, B: Send>(
    device: Device,
    pixels: impl Iterator<Item = Result<P>> + Send,
    tensors: impl Fn(P) -> Result<B> + Sync,
    mut step: impl FnMut(B) -> Result<()>,
) -> Result<()> {
    enum PreparedBatch<P, B> {
        Pixels(P),
        Tensors(B),
    }
    let tensors = &tensors;
    let prepared = move |pixels: Result<P>| match device {
        Device::Cpu => Ok(PreparedBatch::Pixels(pixels?)),
        _ => Ok(PreparedBatch::Tensors(tensors(pixels?)?)),
    };
    std::thread::scope(|scope| {
        let (sender, batches) = sync_channel::<Result<PreparedBatch<P, B>>>(AHEAD);
        let ahead = scope.spawn(move || {
            for pixels in pixels {
                // The receiver is gone after an error in a step.
                if sender.send(prepared(pixels)).is_err() {
                    break;
                }
            }
        });
        let outcome = batches.into_iter().try_for_each(|batch| match batch? {
            PreparedBatch::Pixels(pixels) => step(tensors(pixels)?),
            PreparedBatch::Tensors(tensors) => step(tensors),
        });
        match ahead.join() {
            Ok(()) => outcome,
            // With its own message, which the scope's would hide.
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// The labels of the chosen images.
fn classes(labels: &[usize], chosen: &[usize]) -> Result<Vec<i64>> {
    let labels: Option<Vec<i64>> = chosen.iter().map(|&i| labels.get(i).map(|&l| l as i64)).collect();
    labels.ok_or_else(|| Error::failure("an image has no label"))
}

/// The same values with channels innermost in memory, which libtorch's convolutions like best.
pub fn channels_last(images: &Tensor) -> Tensor {
    images.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}
