//! The segmentation networks by their names, and what they have in common.

use tch::{
    Tensor,
    nn::{Path, VarStore},
};

use super::{
    init,
    plain_unet::{PlainUnet, PlainUnetConfig},
    unet::{UNet, UNetConfig},
};
use crate::{
    error::Result,
    vocabulary::{MASK_CLASSES, SegmentationNetwork},
};

/// Images (batch, 1, height, width) to logits (batch, classes, height, width).
pub trait Segmenter: Send {
    /// Logits at the images' own resolution first, then at half of it, and so on: of `levels` resolutions, from 1, or of as
    /// many as the network has.
    fn forward(&self, images: &Tensor, levels: usize) -> Result<Vec<Tensor>>;
}

impl SegmentationNetwork {
    /// The network with these channels per level, from top to bottom; all weights 0.
    ///
    /// # Errors
    /// The channels do not make such a network.
    pub fn build(self, vs: &Path, channels: &[i64]) -> Result<Box<dyn Segmenter>> {
        Ok(match self {
            Self::MonaiUnet => Box::new(UNet::new(vs, &UNetConfig::with_channels(channels))?),
            Self::PlainUnet => {
                let (channels, out_channels) = (channels.to_vec(), MASK_CLASSES as i64);
                Box::new(PlainUnet::new(vs, &PlainUnetConfig { in_channels: 1, out_channels, channels })?)
            }
        })
    }

    /// Draws the weights as the network's library does; nnU-Net draws its convolutions by He's rule for a leaky ReLU of
    /// slope 0.01 and has no bias at first.
    pub fn init(self, vs: &VarStore, seed: u64) {
        match self {
            Self::MonaiUnet => init::fill(vs, seed, None),
            Self::PlainUnet => {
                let convolution = Some(init::kaiming_normal_fan_in_leaky as init::WeightDraw);
                let draws = init::WeightDraws { convolution, linear: None, zero_biases: true };
                init::fill_with(vs, seed, draws);
            }
        }
    }
}

impl Segmenter for UNet {
    fn forward(&self, images: &Tensor, _levels: usize) -> Result<Vec<Tensor>> {
        Ok(vec![Self::forward(self, images)])
    }
}

impl Segmenter for PlainUnet {
    fn forward(&self, images: &Tensor, levels: usize) -> Result<Vec<Tensor>> {
        Self::forward(self, images, levels)
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn every_network_halves_images_as_often_as_its_size_factor_says() {
        for network in SegmentationNetwork::ALL {
            let vs = VarStore::new(Device::Cpu);
            let channels = [2, 4, 8];
            let net = network.build(&vs.root(), &channels).unwrap();
            network.init(&vs, 0);
            let side = 2 * network.size_factor(channels.len()) as i64;
            let images = Tensor::zeros([1, 1, side, side], (Kind::Float, Device::Cpu));
            let logits = tch::no_grad(|| net.forward(&images, 9)).unwrap();
            assert_eq!(logits.len(), network.resolutions(channels.len()), "{network}");
            for (level, logits) in logits.iter().enumerate() {
                assert_eq!(logits.size(), [1, 4, side >> level, side >> level]);
            }
        }
    }

    #[test]
    fn supervision_in_depth_leaves_the_logits_of_the_image_as_they_are() {
        let vs = VarStore::new(Device::Cpu);
        let net = SegmentationNetwork::PlainUnet.build(&vs.root(), &[2, 3, 4, 5]).unwrap();
        SegmentationNetwork::PlainUnet.init(&vs, 1);
        let images = Tensor::arange(256, (Kind::Float, Device::Cpu)).sin().view([1, 1, 16, 16]);
        let [one, three] = [1, 3].map(|levels| tch::no_grad(|| net.forward(&images, levels)).unwrap());
        assert_eq!((one.len(), three.len()), (1, 3));
        assert_eq!(one[0], three[0]);
    }
}
