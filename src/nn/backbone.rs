//! The classification networks by torchvision's names, and what differs between them.

use std::path::Path;

use tch::nn::{self, VarStore};

use super::{
    classifier::Classifier,
    efficientnet,
    init::{self, WeightDraws},
    mobilenet_v3, resnet, vgg, weights,
};
use crate::{error::Result, vocabulary::Backbone};

impl Backbone {
    /// The network, all weights 0.
    pub fn build(self, vs: &nn::Path, classes: usize) -> Result<Classifier> {
        let make = match self {
            Self::Resnet18 => resnet::resnet18,
            Self::Resnet50 => resnet::resnet50,
            Self::Vgg16 => vgg::vgg16,
            Self::Vgg19 => vgg::vgg19,
            Self::EfficientnetB0 => efficientnet::efficientnet_b0,
            Self::MobilenetV3Small => mobilenet_v3::mobilenet_v3_small,
        };
        make(vs, classes as i64)
    }

    /// Draws the weights as torchvision does.
    pub fn init(self, vs: &VarStore, seed: u64) {
        let linear: Option<init::WeightDraw> = match self {
            Self::Resnet18 | Self::Resnet50 => None,
            Self::Vgg16 | Self::Vgg19 | Self::MobilenetV3Small => Some(init::normal_hundredth),
            Self::EfficientnetB0 => Some(init::uniform_by_outputs),
        };
        let draws = WeightDraws {
            convolution: Some(init::kaiming_normal_fan_out),
            linear,
            zero_biases: linear.is_some(),
        };
        init::fill_with(vs, seed, draws);
    }

    /// Loads a checkpoint of torchvision's; its last layer only where it has as many classes. Returns the notes of
    /// [`weights::load`].
    ///
    /// # Errors
    /// As [`weights::load`].
    pub fn load(self, vs: &VarStore, file: &Path) -> Result<Vec<String>> {
        weights::load(vs, file, |name| self.is_last(name))
    }

    /// That [`Backbone::load`] would load the file, as far as its header shows.
    ///
    /// # Errors
    /// As [`weights::load`].
    pub fn check(self, file: &Path) -> Result<()> {
        let vs = weights::shapes_only();
        self.build(&vs.root(), 1)?;
        weights::check(&vs, file, |name| self.is_last(name))
    }

    fn is_last(self, variable: &str) -> bool {
        variable.rsplit_once('.').is_some_and(|(layer, _)| layer == self.last_layer())
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;
    use crate::nn::forward_mode::ForwardMode;

    #[test]
    fn names_features_last_layers_and_smallest_images_are_the_networks_own() {
        // Parameters with 1000 classes, as torchvision's documentation has them.
        let counts = [11_689_512, 25_557_032, 138_357_544, 143_667_240, 5_288_548, 2_542_856];
        for (backbone, count) in Backbone::ALL.into_iter().zip(counts) {
            assert_eq!(backbone.as_str().parse(), Ok(backbone));
            let vs = VarStore::new(Device::Cpu);
            let net = backbone.build(&vs.root(), 1000).unwrap();
            let variables = vs.trainable_variables();
            assert_eq!(variables.iter().map(Tensor::numel).sum::<usize>(), count, "{backbone:?}");
            let last = &vs.variables()[&format!("{}.weight", backbone.last_layer())];
            assert_eq!(last.size(), [1000, backbone.features() as i64]);
            // It is made last: weights are frozen in this order.
            assert_eq!(variables[variables.len() - 2].data_ptr(), last.data_ptr());
            let side = backbone.smallest_side() as i64;
            let images = Tensor::zeros([1, 3, side, side], (Kind::Float, Device::Cpu));
            let train = ForwardMode::Train(Default::default());
            tch::no_grad(|| {
                assert_eq!(net.features(&images).size(), [1, backbone.features() as i64]);
                assert_eq!(net.forward_t(&images, train).size(), [1, 1000]);
            });
        }
        assert!("resnet19".parse::<Backbone>().is_err());
    }

    #[test]
    fn weights_are_drawn_as_torchvision_draws_them() {
        let vs = VarStore::new(Device::Cpu);
        Backbone::EfficientnetB0.build(&vs.root(), 4).unwrap();
        Backbone::EfficientnetB0.init(&vs, 0);
        let variables = vs.variables();
        let sd = |name: &str| variables[name].std(false).double_value(&[]);
        // A depthwise convolution's fan out counts all channels, as PyTorch counts it.
        assert!((sd("features.1.0.block.0.0.weight") - (2f64 / (32.0 * 9.0)).sqrt()).abs() < 0.01);
        assert!((sd("classifier.1.weight") - 0.5 / 3f64.sqrt()).abs() < 0.01);
        assert!(variables["classifier.1.weight"].abs().max().double_value(&[]) <= 0.5);
        for bias in ["classifier.1.bias", "features.1.0.block.1.fc1.bias"] {
            assert_eq!(variables[bias].abs().max().double_value(&[]), 0.0);
        }
    }
}
