//! The table of extractors: for each its width, the form of its input, and how its network is loaded.

use std::{fmt, path::Path};

use tch::{Device, Tensor, nn::VarStore};

use super::resize::{ExtractorInput, IMAGENET};
use crate::{
    error::{Error, Result},
    nn::{
        inception::{self, Inception, Pooling},
        tensor_file::TensorFile,
        weights,
    },
    vocabulary::{Backbone, Convention, Extractor},
};

/// Which extractor, from which weights, on which device.
#[derive(Debug, Clone, Copy)]
pub struct ExtractorSource<'a> {
    pub extractor: Extractor,
    /// A file of pytorch-fid's or torchvision's as it is downloaded, or the same as safetensors; of `domain` one that
    /// this program trained.
    pub weights: Option<&'a Path>,
    /// Of `inception-fid`.
    pub convention: Convention,
    /// Of `domain`.
    pub domain: DomainImages,
    pub device: Device,
}

/// The images that the domain network was trained on.
#[derive(Debug, Clone, Copy)]
pub struct DomainImages {
    /// Width and height, pixels.
    pub size: usize,
    /// Mean and standard deviation of each channel, of values in 0..1.
    pub channels: [(f32, f32); 3],
}

impl Default for DomainImages {
    /// As classifiers are trained by default.
    fn default() -> Self {
        Self { size: 128, channels: IMAGENET }
    }
}

/// Images (n, 3, height, width) to features (n, width), f32.
pub(super) type FeatureNetwork = Box<dyn Fn(&Tensor) -> Result<Tensor>>;

/// A network, and what there is to say of its weights' file.
pub(super) struct LoadedExtractor {
    pub network: FeatureNetwork,
    pub notes: Vec<String>,
}

type NetworkLoader = Box<dyn Fn(&Path, Device) -> Result<LoadedExtractor>>;

/// One extractor.
pub(super) struct ExtractorEntry {
    /// Length of a row of features.
    pub width: usize,
    pub input: ExtractorInput,
    /// Where its weights come from: they are not part of this program.
    pub weights_help: &'static str,
    pub load: NetworkLoader,
}

impl fmt::Debug for ExtractorEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} features of {:?}", self.width, self.input)
    }
}

const INCEPTION_WEIGHTS: &str = "download pt_inception-2015-12-05-6726825d.pth (its SHA-256 begins with 6726825d) from \
https://github.com/mseitzer/pytorch-fid/releases/tag/fid_weights and name it as it is";
const RESNET50_WEIGHTS: &str = "download torchvision's resnet50-11ad3fa6.pth (IMAGENET1K_V2) from \
https://download.pytorch.org/models/resnet50-11ad3fa6.pth and name it as it is";
const DOMAIN_WEIGHTS: &str = "name the weights.safetensors of a classifier that was trained on view-phase";

/// The entry of `source`'s extractor.
///
/// # Errors
/// An image size of 0; a domain network's file that cannot be read or is not a ResNet.
pub(super) fn entry(source: &ExtractorSource) -> Result<ExtractorEntry> {
    Ok(match source.extractor {
        Extractor::InceptionFid => ExtractorEntry {
            width: inception::FEATURES,
            input: ExtractorInput::Inception(source.convention),
            weights_help: INCEPTION_WEIGHTS,
            load: Box::new(load_inception),
        },
        Extractor::Resnet50 => ExtractorEntry {
            width: Backbone::Resnet50.features(),
            input: ExtractorInput::ImageNet,
            weights_help: RESNET50_WEIGHTS,
            load: Box::new(load_resnet50),
        },
        Extractor::Domain => {
            let DomainImages { size, channels } = source.domain;
            if size == 0 {
                return Err(Error::input("an image size of 0")
                    .help("give the size that the classifier was trained at"));
            }
            let classes = source.weights.map(resnet_classes).transpose()?.unwrap_or_default();
            ExtractorEntry {
                width: Backbone::Resnet18.features(),
                input: ExtractorInput::Grey { size, channels },
                weights_help: DOMAIN_WEIGHTS,
                load: Box::new(move |file, device| load_domain(file, classes, device)),
            }
        }
    })
}

/// That the weights of an extractor from outside fit it, as far as their file's header shows. The network of `domain` is
/// this program's own.
///
/// # Errors
/// The file is damaged or holds another network.
pub fn check_weights(extractor: Extractor, file: &Path) -> Result<()> {
    let (checked, help) = match extractor {
        Extractor::InceptionFid => {
            let vs = weights::shapes_only();
            inception::declare(&vs.root())?;
            (weights::check(&vs, file, inception::optional), INCEPTION_WEIGHTS)
        }
        Extractor::Resnet50 => (Backbone::Resnet50.check(file), RESNET50_WEIGHTS),
        Extractor::Domain => return Ok(()),
    };
    checked.map_err(|e| e.help(help))
}

fn load_inception(file: &Path, device: Device) -> Result<LoadedExtractor> {
    let vs = VarStore::new(Device::Cpu);
    inception::declare(&vs.root())?;
    let notes = weights::load(&vs, file, inception::optional)?;
    let net = Inception::new(&vs, Pooling::FID, device)?;
    Ok(LoadedExtractor { network: Box::new(move |images| net.features(images)), notes })
}

/// ImageNet's, 1000 classes.
fn load_resnet50(file: &Path, device: Device) -> Result<LoadedExtractor> {
    let vs = VarStore::new(device);
    let net = Backbone::Resnet50.build(&vs.root(), 1000)?;
    // Features come from before the last layer, which may be of another data set.
    let notes = Backbone::Resnet50.load(&vs, file)?;
    Ok(LoadedExtractor { network: Box::new(move |images| Ok(net.features(images))), notes })
}

fn load_domain(file: &Path, classes: usize, device: Device) -> Result<LoadedExtractor> {
    let vs = VarStore::new(device);
    let net = Backbone::Resnet18.build(&vs.root(), classes)?;
    let notes = weights::load(&vs, file, |_| false)?;
    Ok(LoadedExtractor { network: Box::new(move |images| Ok(net.features(images))), notes })
}

/// The number of classes of a ResNet's file.
fn resnet_classes(weights: &Path) -> Result<usize> {
    let file = TensorFile::open(weights)?;
    let last = file.entries().iter().find(|entry| entry.name == "fc.weight");
    last.and_then(|entry| entry.shape.first()).map(|&n| n as usize).ok_or_else(|| {
        Error::input("fc.weight is missing: this is no ResNet")
            .at(weights)
            .help("name the weights.safetensors of a classifier that `synecho run` trained")
    })
}
