//! The segmentation networks by their names, and what they have in common.

use tch::{
    Tensor,
    nn::{Path, VarStore},
};

use super::{
    init,
    unet::{UNet, UNetConfig},
};
use crate::{error::Result, vocabulary::SegmentationNetwork};

/// Images (batch, 1, height, width) to logits (batch, classes, height, width).
pub trait Segmenter: Send {
    fn forward(&self, images: &Tensor) -> Tensor;
}

impl SegmentationNetwork {
    /// The network with these channels per level, from top to bottom; all weights 0.
    ///
    /// # Errors
    /// The channels do not make such a network.
    pub fn build(self, vs: &Path, channels: &[i64]) -> Result<Box<dyn Segmenter>> {
        match self {
            Self::MonaiUnet => Ok(Box::new(UNet::new(vs, &UNetConfig::with_channels(channels))?)),
        }
    }

    /// Draws the weights as the network's library does.
    pub fn init(self, vs: &VarStore, seed: u64) {
        match self {
            Self::MonaiUnet => init::fill(vs, seed, None),
        }
    }
}

impl Segmenter for UNet {
    fn forward(&self, images: &Tensor) -> Tensor {
        Self::forward(self, images)
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
            assert_eq!(tch::no_grad(|| net.forward(&images)).size(), [1, 4, side, side]);
        }
    }
}
