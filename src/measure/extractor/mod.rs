//! From images to features, with the numbers of pytorch-fid, clean-fid and torch-fidelity.
//!
//! [`FeatureExtractor`]: a network, its weights, and the way in which images are brought to its size
//! ([`Input`]). [`images_of`] lists a folder; [`FeatureExtractor::features`] gives a row for each image.

mod cache;
mod decode;
mod folder;
mod network;
mod resize;
mod run;
#[cfg(test)]
mod tests;

use std::{
    cell::OnceCell,
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

pub use decode::Pixels;
pub use folder::images_of;
pub use resize::Input;

use crate::{
    error::{AtPath, Error, Result},
    nn::inception,
    progress::Progress,
    vocabulary::{Convention, Extractor, Split},
};
use cache::{Digest, Entry, Place};
use network::Network;

/// Length of a row of features.
pub fn width(space: Extractor) -> usize {
    match space {
        Extractor::InceptionFid => inception::FEATURES,
        Extractor::Resnet50 => 2048,
        Extractor::Domain => 512,
    }
}

/// Where Inception's weights come from: they are not part of this program.
const INCEPTION_WEIGHTS: &str = "download pt_inception-2015-12-05-6726825d.pth (its SHA-256 begins with 6726825d) from https://github.com/mseitzer/pytorch-fid/releases/tag/fid_weights and convert it once in Python: \
import torch, safetensors.torch; safetensors.torch.save_file(torch.load(\"pt_inception-2015-12-05-6726825d.pth\", weights_only=True), \"inception.safetensors\")";
const RESNET50_WEIGHTS: &str = "convert torchvision's once in Python: \
import torchvision, safetensors.torch; safetensors.torch.save_file(torchvision.models.resnet50(weights=\"IMAGENET1K_V2\").state_dict(), \"resnet50.safetensors\")";

/// A network with its weights, and how images are brought to it. The network is read when it is first
/// needed: features that lie in the cache need none.
#[derive(Debug)]
pub struct FeatureExtractor {
    space: Extractor,
    input: Input,
    /// Of a classifier.
    classes: usize,
    weights: PathBuf,
    digest: String,
    device: Device,
    network: OnceCell<Network>,
}

/// How features are computed.
#[derive(Clone, Copy)]
pub struct How<'a> {
    /// Images at a time. It decides speed and memory; features differ by rounding alone (below 1e-5).
    pub batch: usize,
    /// Images that cannot be read are left out and counted, and are no error.
    pub skip_unreadable: bool,
    /// The folder in which features are kept and looked for.
    pub cache: Option<&'a Path>,
    pub progress: &'a Progress,
}

/// A batch that two cores' caches and memory like.
pub const BATCH: usize = 16;

/// Features of images, in the order in which they were given.
#[derive(Debug)]
pub struct Features {
    /// (n, features), f32, on the CPU.
    pub values: Tensor,
    /// The image of each row.
    pub images: Vec<PathBuf>,
    /// Images that were left out, and why.
    pub unreadable: Vec<(PathBuf, String)>,
    /// Whether they were taken from the cache.
    pub cached: bool,
}

impl FeatureExtractor {
    /// Inception's features as FID's tools compute them. `weights`: pytorch-fid's, as safetensors.
    ///
    /// # Errors
    /// There are no weights, or the file cannot be read.
    pub fn inception_fid(weights: Option<&Path>, convention: Convention, device: Device) -> Result<Self> {
        Self::new(
            Extractor::InceptionFid,
            Input::Inception(convention),
            0,
            weights,
            INCEPTION_WEIGHTS,
            device,
        )
    }

    /// ResNet-50's features. `weights`: torchvision's, as safetensors.
    ///
    /// # Errors
    /// There are no weights, or the file cannot be read.
    pub fn resnet50(weights: Option<&Path>, device: Device) -> Result<Self> {
        Self::new(Extractor::Resnet50, Input::ImageNet, 0, weights, RESNET50_WEIGHTS, device)
    }

    /// Features of a ResNet-18 that this program trained to tell `classes` classes apart, on images of
    /// `size` pixels; `channels`: (mean, standard deviation) of each, as in training.
    ///
    /// # Errors
    /// The size is 0; there are no weights, or the file cannot be read.
    pub fn domain(
        weights: Option<&Path>,
        classes: usize,
        size: usize,
        channels: [(f32, f32); 3],
        device: Device,
    ) -> Result<Self> {
        if size == 0 {
            return Err(
                Error::input("an image size of 0").help("give the size that the classifier was trained at")
            );
        }
        let help = "name the weights.safetensors of a classifier that was trained on view-phase";
        Self::new(Extractor::Domain, Input::Grey { size, channels }, classes, weights, help, device)
    }

    fn new(
        space: Extractor,
        input: Input,
        classes: usize,
        weights: Option<&Path>,
        help: &str,
        device: Device,
    ) -> Result<Self> {
        let weights = weights
            .ok_or_else(|| Error::input(format!("the extractor {space} needs weights")).help(help))?
            .to_owned();
        let cannot = |e: Error| if weights.exists() { e } else { e.help(help) };
        let mut hasher = blake3::Hasher::new();
        let mut file =
            fs::File::open(&weights).at_path(&weights, "cannot read the weights").map_err(cannot)?;
        std::io::copy(&mut file, &mut hasher).at_path(&weights, "cannot read the weights")?;
        let digest = hasher.finalize().to_hex().to_string();
        Ok(Self { space, input, classes, weights, digest, device, network: OnceCell::new() })
    }

    pub fn space(&self) -> Extractor {
        self.space
    }

    pub fn input(&self) -> &Input {
        &self.input
    }

    /// How images were resized, for reports: Inception's convention, `antialiased` for the others.
    pub fn convention(&self) -> &'static str {
        match self.input {
            Input::Inception(convention) => convention.as_str(),
            Input::ImageNet | Input::Grey { .. } => "antialiased",
        }
    }

    /// BLAKE3 of the weights' file, hexadecimal.
    pub fn weights_digest(&self) -> &str {
        &self.digest
    }

    /// Features of all images of a folder: [`images_of`], then [`FeatureExtractor::features`].
    ///
    /// # Errors
    /// As those two; fewer than two images can be read.
    pub fn folder(&self, folder: &Path, split: Option<Split>, how: &How) -> Result<Features> {
        let found = self.features(&images_of(folder, split)?, how).map_err(|e| e.at(folder))?;
        match found.images.len() {
            0 | 1 => Err(Error::input(format!(
                "{} of {} images can be read",
                found.images.len(),
                found.images.len() + found.unreadable.len()
            ))
            .at(folder)
            .help("a set of images is compared: give two at least")),
            _ => Ok(found),
        }
    }

    /// A row for each of `images`, in their order, whatever their sizes. An image that is there twice is
    /// computed once.
    ///
    /// # Errors
    /// `images` is empty; images cannot be read (all of them are counted, ten named) and are not skipped;
    /// the weights are not this network's; libtorch fails.
    pub fn features(&self, images: &[PathBuf], how: &How) -> Result<Features> {
        if images.is_empty() {
            return Err(Error::input("there are no images"));
        }
        let digests: Vec<Result<Digest, String>> = images.par_iter().map(|path| digest(path)).collect();
        // The first image of each content.
        let mut unique: BTreeMap<Digest, &Path> = BTreeMap::new();
        for (digest, path) in digests.iter().zip(images) {
            if let Ok(digest) = digest {
                unique.entry(*digest).or_insert(path);
            }
        }
        let files: Vec<(&Path, Digest)> = unique.into_iter().map(|(digest, path)| (path, digest)).collect();
        // Where some cannot even be opened and none may be left out, there is only to tell which others.
        let found = match digests.iter().all(Result::is_ok) || how.skip_unreadable {
            true if !files.is_empty() => self.found(&files, how)?,
            _ => Found { entry: self.nothing(), faults: self.faults(&files), cached: false },
        };
        let rows: HashMap<Digest, i64> = found.entry.digests.iter().copied().zip(0..).collect();
        let (mut order, mut read, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
        for (digest, path) in digests.into_iter().zip(images) {
            let fault = match digest {
                Err(why) => Some(why),
                Ok(digest) => match rows.get(&digest) {
                    Some(&row) => {
                        order.push(row);
                        read.push(path.clone());
                        None
                    }
                    None => found.faults.get(&digest).cloned(),
                },
            };
            unreadable.extend(fault.map(|why| (path.clone(), why)));
        }
        if !unreadable.is_empty() && !how.skip_unreadable {
            return Err(all_unreadable(&unreadable, images.len()));
        }
        let values = found.entry.values.f_index_select(0, &Tensor::from_slice(&order))?;
        Ok(Features { values, images: read, unreadable, cached: found.cached })
    }

    fn nothing(&self) -> Entry {
        let shape = [0, width(self.space) as i64];
        Entry { digests: Vec::new(), values: Tensor::zeros(shape, (Kind::Float, Device::Cpu)) }
    }

    /// Features of the files that can be read, from the cache where they are there.
    fn found(&self, files: &[(&Path, Digest)], how: &How) -> Result<Found> {
        let digests: Vec<Digest> = files.iter().map(|(_, digest)| *digest).collect();
        let place = how.cache.map(|folder| Place::new(folder, &self.identity(), &digests));
        match place.as_ref().map_or(Ok(None), |place| place.read(width(self.space))) {
            Ok(Some(entry)) => {
                let absent = |(_, digest): &&(&Path, Digest)| entry.digests.binary_search(digest).is_err();
                let absent: Vec<_> = files.iter().filter(absent).copied().collect();
                let faults = self.faults(&absent);
                // What can be read by now belongs into the entry.
                if faults.len() == absent.len() {
                    return Ok(Found { entry, faults, cached: true });
                }
            }
            Ok(None) => {}
            Err(e) => how.progress.line(format!("warning: features are computed again: {e}")),
        }
        let network = match self.network.get() {
            Some(network) => network,
            None => {
                let network = self.load()?;
                self.network.get_or_init(|| network)
            }
        };
        let bar = how.progress.bar(files.len() as u64, self.space.as_str(), "images");
        let skip = how.skip_unreadable;
        let found = run::extract(network, &self.input, self.device, files, how.batch, skip, &bar)?;
        let entry = Entry { digests: found.done.iter().map(|&i| digests[i]).collect(), values: found.values };
        let mut faults: HashMap<Digest, String> =
            found.failed.into_iter().map(|(i, why)| (digests[i], why)).collect();
        if faults.is_empty() || skip {
            place.map_or(Ok(()), |place| place.write(&entry))?;
        } else {
            faults.extend(self.faults(files));
        }
        Ok(Found { entry, faults, cached: false })
    }

    fn load(&self) -> Result<Network> {
        let file = &self.weights;
        match self.space {
            Extractor::InceptionFid => Network::inception(file, self.device),
            Extractor::Resnet50 => Network::resnet50(file, self.device),
            Extractor::Domain => Network::resnet18(file, self.classes, self.device),
        }
    }

    /// All that decides features apart from the images.
    fn identity(&self) -> String {
        let input = match &self.input {
            Input::Inception(convention) => convention.to_string(),
            Input::ImageNet => "imagenet 224".into(),
            Input::Grey { size, channels } => format!("grey {size} {channels:?}"),
        };
        format!("{} {input} {} f32", self.space, self.digest)
    }

    /// Why files cannot be read, of those that cannot.
    fn faults(&self, files: &[(&Path, Digest)]) -> HashMap<Digest, String> {
        let input = &self.input;
        let fault = |(path, digest): &(&Path, Digest)| {
            let mut values = vec![0f32; input.values()];
            let read = fs::read(path).map_err(|e| e.to_string());
            read.and_then(|bytes| input.read(&bytes, &mut values)).err().map(|why| (*digest, why))
        };
        files.par_iter().filter_map(fault).collect()
    }
}

/// What is known of a set of files.
struct Found {
    entry: Entry,
    /// Why the others have no features.
    faults: HashMap<Digest, String>,
    cached: bool,
}

/// How many images are named in an error.
const NAMED: usize = 10;

fn all_unreadable(unreadable: &[(PathBuf, String)], of: usize) -> Error {
    let named = unreadable.iter().take(NAMED).map(|(path, why)| format!("\n  {}: {why}", path.display()));
    let more = match unreadable.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("\n  and {more} more"),
    };
    Error::input(format!(
        "{} of {of} images cannot be read:{}{more}",
        unreadable.len(),
        named.collect::<String>()
    ))
    .help("only PNG and JPEG of 8 bits are read: convert or copy them again, or leave them out with --skip-unreadable")
}

fn digest(path: &Path) -> Result<Digest, String> {
    let bytes = fs::read(path).map_err(|e| e.to_string())?;
    Ok(*blake3::hash(&bytes).as_bytes())
}
