//! The networks whose features are compared.

use std::path::Path;

use tch::{Device, Tensor, nn::VarStore};

use crate::{
    error::Result,
    nn::{
        inception::{self, Inception, Pooling},
        resnet::ResNet,
        weights,
    },
};

/// A network with its weights.
#[derive(Debug)]
pub(super) enum Network {
    Inception(Inception),
    ResNet { net: ResNet, features: usize },
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
        let net = ResNet::resnet50(&vs.root(), 1000)?;
        // Features come from before the classifier, which may be of another data set.
        weights::load(&vs, file, |name| name.starts_with("fc."))?;
        Ok(Self::ResNet { net, features: 2048 })
    }

    /// # Errors
    /// As [`weights::load`].
    pub fn resnet18(file: &Path, classes: usize, device: Device) -> Result<Self> {
        let vs = VarStore::new(device);
        let net = ResNet::resnet18(&vs.root(), classes as i64)?;
        weights::load(&vs, file, |_| false)?;
        Ok(Self::ResNet { net, features: 512 })
    }

    pub fn features_len(&self) -> usize {
        match self {
            Self::Inception(_) => inception::FEATURES,
            Self::ResNet { features, .. } => *features,
        }
    }

    /// (n, 3, height, width) to (n, features).
    pub fn features(&self, images: &Tensor) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        match self {
            Self::Inception(net) => net.features(images),
            Self::ResNet { net, .. } => Ok(net.features(images)),
        }
    }
}
