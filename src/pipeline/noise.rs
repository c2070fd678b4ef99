//! Noise of one generator per image: an image does not depend on the batch that it is made in.

use rand_distr::{Distribution, StandardNormal};
use tch::Tensor;

use crate::{
    error::{Error, Result},
    random,
};

/// Where a batch's noise comes from.
pub trait NoiseSource {
    /// What sampling begins with: standard normal, (images, `one`…), f32, on the CPU. Calling it again
    /// gives the same.
    ///
    /// # Errors
    /// A shape that libtorch refuses.
    fn starting(&self, one: &[i64]) -> Result<Tensor>;

    /// A scheduler's next noise for the whole batch: `shape` begins with the number of images.
    ///
    /// # Errors
    /// Another number of images.
    fn next(&mut self, shape: &[i64]) -> Result<Tensor>;
}

/// Standard normal noise for a batch of images, each from its own seed.
#[derive(Debug, Clone)]
pub struct ImageNoise {
    seeds: Vec<u64>,
    /// How often a scheduler has drawn.
    drawn: u64,
}

impl ImageNoise {
    pub fn new(seeds: &[u64]) -> Self {
        Self { seeds: seeds.to_vec(), drawn: 0 }
    }

    fn normal(&self, purpose: &str, index: u64, one: &[i64]) -> Result<Tensor> {
        let count: i64 = one.iter().product();
        let mut values: Vec<f32> = Vec::with_capacity(self.seeds.len() * count as usize);
        for &seed in &self.seeds {
            let mut rng = random::rng(seed, purpose, &[index]);
            values.extend((0..count).map(|_| -> f32 { StandardNormal.sample(&mut rng) }));
        }
        let shape: Vec<i64> = std::iter::once(self.seeds.len() as i64).chain(one.iter().copied()).collect();
        Ok(Tensor::from_slice(&values).f_view(shape.as_slice())?)
    }
}

impl NoiseSource for ImageNoise {
    fn starting(&self, one: &[i64]) -> Result<Tensor> {
        self.normal("starting noise", 0, one)
    }

    fn next(&mut self, shape: &[i64]) -> Result<Tensor> {
        let Some((_, one)) = shape.split_first().filter(|(n, _)| **n == self.seeds.len() as i64) else {
            return Err(Error::failure(format!("noise of {shape:?} for {} images", self.seeds.len())));
        };
        self.drawn += 1;
        self.normal("step noise", self.drawn - 1, one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_images_noise_does_not_depend_on_its_batch() {
        let (mut both, mut alone) = (ImageNoise::new(&[3, 4]), ImageNoise::new(&[4]));
        assert_eq!(both.starting(&[2, 5]).unwrap().get(1), alone.starting(&[2, 5]).unwrap().get(0));
        assert_ne!(both.starting(&[2, 5]).unwrap().get(0), both.starting(&[2, 5]).unwrap().get(1));
        let first = alone.next(&[1, 2, 5]).unwrap();
        assert_eq!(both.next(&[2, 2, 5]).unwrap().get(1), first.get(0));
        assert_ne!(alone.next(&[1, 2, 5]).unwrap(), first);
        assert!(alone.next(&[2, 2, 5]).is_err());
    }

    #[test]
    fn the_noise_is_standard_normal() {
        let noise = ImageNoise::new(&[0]).starting(&[100_000]).unwrap();
        let (mean, sd) = (noise.mean(tch::Kind::Float), noise.std(true));
        assert!(mean.double_value(&[]).abs() < 0.01 && (sd.double_value(&[]) - 1.0).abs() < 0.01);
    }
}
