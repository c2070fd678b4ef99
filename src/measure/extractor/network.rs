//! The networks whose features are compared.

use std::path::Path;

use tch::{Device, Tensor, nn::VarStore};

use crate::{
    error::Result,
    nn::{
        classifier::Classifier,
        inception::{self, Inception, Pooling},
        weights,
    },
    vocabulary::Backbone,
};

/// A network with its weights.
#[derive(Debug)]
pub(super) enum Network {
    Inception(Inception),
    Backbone { net: Classifier, features: usize },
}

impl Network {
    /// # Errors
    /// As [`weights::load`].
    pub fn inception(file: &Path, device: Device) -> Result<Self> {
        let vs = VarStore::new(Device::Cpu);
        inception::declare(&vs.root())?;
        weights::load(&vs, file, inception::optional)?;
        Ok(Self::Inception(Inception::new(&vs, Pooling::FID, device)?))
    }

    /// ImageNet's, 1000 classes.
    ///
    /// # Errors
    /// As [`weights::load`].
    pub fn resnet50(file: &Path, device: Device) -> Result<Self> {
        let vs = VarStore::new(device);
        let net = Backbone::Resnet50.build(&vs.root(), 1000)?;
        // Features come from before the last layer, which may be of another data set.
        Backbone::Resnet50.load(&vs, file)?;
        Ok(Self::Backbone { net, features: Backbone::Resnet50.features() })
    }

    /// # Errors
    /// As [`weights::load`].
    pub fn resnet18(file: &Path, classes: usize, device: Device) -> Result<Self> {
        let vs = VarStore::new(device);
        let net = Backbone::Resnet18.build(&vs.root(), classes)?;
        weights::load(&vs, file, |_| false)?;
        Ok(Self::Backbone { net, features: Backbone::Resnet18.features() })
    }

    pub fn features_len(&self) -> usize {
        match self {
            Self::Inception(_) => inception::FEATURES,
            Self::Backbone { features, .. } => *features,
        }
    }

    /// (n, 3, height, width) to (n, features).
    pub fn features(&self, images: &Tensor) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        match self {
            Self::Inception(net) => net.features(images),
            Self::Backbone { net, .. } => Ok(net.features(images)),
        }
    }
}
