//! From images to features, with the numbers of pytorch-fid, clean-fid and torch-fidelity.
//!
//! [`FeatureExtractor`]: a network, its weights, and the way in which images are brought to its size
//! ([`ExtractorInput`]). [`images_of`] lists a folder; [`FeatureExtractor::features`] gives one row per image.

mod cache;
mod cache_folder;
mod decode;
mod folder;
mod resize;
mod run;
mod table;
#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, OnceCell},
    collections::{BTreeMap, HashMap},
    fmt,
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

pub use cache_folder::{CacheFolder, CacheUsage};
pub use decode::DecodedImage;
pub use folder::images_of;
pub use resize::ExtractorInput;
pub use table::{DomainImages, ExtractorSource, check_weights};

use crate::{
    error::{AtPath, Error, Result},
    plain_file,
    progress::Progress,
    vocabulary::{Extractor, Split},
};
use cache::{CacheEntry, Digest, FeatureCache};
use run::Extraction;
use table::{ExtractorEntry, FeatureNetwork};

/// A network with its weights, and how images are brought to it. The network is read when it is first
/// needed: features in the cache need none.
pub struct FeatureExtractor {
    name: Extractor,
    entry: ExtractorEntry,
    weights: PathBuf,
    digest: String,
    device: Device,
    network: OnceCell<FeatureNetwork>,
    /// Whether the user knows that features are not kept.
    warned: Cell<bool>,
}

impl fmt::Debug for FeatureExtractor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}, {}", self.name, self.entry, self.weights.display())
    }
}

/// Options that features do not depend on but for rounding.
#[derive(Clone, Copy)]
pub struct FeatureOptions<'a> {
    /// Images at a time. It decides speed and memory; features differ only by rounding (below 1e-5).
    pub batch: usize,
    /// Images that cannot be read are left out and counted, and are no error.
    pub skip_unreadable: bool,
    /// The folder of kept features.
    pub cache: Option<&'a Path>,
    pub progress: &'a Progress,
}

/// A batch that suits the caches and memory of two cores.
pub const BATCH: usize = 16;

/// Features of images, in the order in which they were given.
#[derive(Debug)]
pub struct ImageFeatures {
    /// (n, features), f32, on the CPU.
    pub values: Tensor,
    /// The image of each row.
    pub images: Vec<PathBuf>,
    /// Images that were left out, and why.
    pub unreadable: Vec<(PathBuf, String)>,
    /// Whether they come from the cache.
    pub cached: bool,
}

impl FeatureExtractor {
    /// The extractor of `source`. Its network is not loaded yet.
    ///
    /// # Errors
    /// There are no weights, or the file cannot be read; a domain network's file that is not a ResNet, or an image
    /// size of 0.
    pub fn open(source: &ExtractorSource) -> Result<Self> {
        let entry = table::entry(source)?;
        let name = source.extractor;
        let weights = source
            .weights
            .ok_or_else(|| {
                Error::input(format!("the extractor {name} needs weights")).help(entry.weights_help)
            })?
            .to_owned();
        let cannot = |e: Error| if weights.exists() { e } else { e.help(entry.weights_help) };
        let mut hasher = blake3::Hasher::new();
        let mut file =
            plain_file::open(&weights).at_path(&weights, "cannot read the weights").map_err(cannot)?;
        std::io::copy(&mut file, &mut hasher).at_path(&weights, "cannot read the weights")?;
        let digest = hasher.finalize().to_hex().to_string();
        Ok(Self {
            name,
            entry,
            weights,
            digest,
            device: source.device,
            network: OnceCell::new(),
            warned: Cell::new(false),
        })
    }

    pub fn name(&self) -> Extractor {
        self.name
    }

    /// How images were resized, for reports: Inception's convention, `antialiased` for the others.
    pub fn convention(&self) -> &'static str {
        match self.entry.input {
            ExtractorInput::Inception(convention) => convention.as_str(),
            ExtractorInput::ImageNet | ExtractorInput::Grey { .. } => "antialiased",
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
    pub fn folder(
        &self,
        folder: &Path,
        split: Option<Split>,
        options: &FeatureOptions,
    ) -> Result<ImageFeatures> {
        let found = self.features(&images_of(folder, split)?, options).map_err(|e| e.at(folder))?;
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

    /// One row per image, in the order of `images`, whatever their sizes. An image that occurs twice is
    /// computed once.
    ///
    /// # Errors
    /// `images` is empty; images cannot be read (all of them are counted, ten named) and are not skipped;
    /// the weights are not this network's; libtorch fails.
    pub fn features(&self, images: &[PathBuf], options: &FeatureOptions) -> Result<ImageFeatures> {
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
        // Where a file cannot even be opened and none may be left out, only the other faults are of interest.
        let found = match digests.iter().all(Result::is_ok) || options.skip_unreadable {
            true if !files.is_empty() => self.found(&files, options)?,
            _ => FileFeatures { entry: self.nothing(), faults: self.faults(&files), cached: false },
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
        if !unreadable.is_empty() && !options.skip_unreadable {
            return Err(all_unreadable(&unreadable, images.len()));
        }
        let values = found.entry.values.f_index_select(0, &Tensor::from_slice(&order))?;
        Ok(ImageFeatures { values, images: read, unreadable, cached: found.cached })
    }

    fn nothing(&self) -> CacheEntry {
        let shape = [0, self.entry.width as i64];
        CacheEntry { digests: Vec::new(), values: Tensor::zeros(shape, (Kind::Float, Device::Cpu)) }
    }

    /// Features of the files that can be read, from the cache where they are there.
    fn found(&self, files: &[(&Path, Digest)], options: &FeatureOptions) -> Result<FileFeatures> {
        let digests: Vec<Digest> = files.iter().map(|(_, digest)| *digest).collect();
        let cache = options.cache.map(|folder| FeatureCache::new(folder, &self.identity(), &digests));
        match cache.as_ref().map_or(Ok(None), |cache| cache.read(self.entry.width)) {
            Ok(Some(entry)) => {
                let absent = |(_, digest): &&(&Path, Digest)| entry.digests.binary_search(digest).is_err();
                let absent: Vec<_> = files.iter().filter(absent).copied().collect();
                let faults = self.faults(&absent);
                // A file that has become readable belongs into the entry.
                if faults.len() == absent.len() {
                    return Ok(FileFeatures { entry, faults, cached: true });
                }
            }
            Ok(None) => {}
            Err(e) => options.progress.line(format!("warning: features are computed again: {e}")),
        }
        let network = match self.network.get() {
            Some(network) => network,
            None => {
                let loaded = (self.entry.load)(&self.weights, self.device)?;
                loaded.notes.iter().for_each(|note| options.progress.line(note));
                self.network.get_or_init(|| loaded.network)
            }
        };
        let bar = options.progress.bar(files.len() as u64, self.name.as_str(), "images");
        let skip = options.skip_unreadable;
        let extraction = Extraction {
            network,
            input: &self.entry.input,
            width: self.entry.width,
            device: self.device,
            batch: options.batch,
            skip,
        };
        let found = extraction.features(files, &bar)?;
        let entry =
            CacheEntry { digests: found.done.iter().map(|&i| digests[i]).collect(), values: found.values };
        let mut faults: HashMap<Digest, String> =
            found.failed.into_iter().map(|(i, why)| (digests[i], why)).collect();
        if faults.is_empty() || skip {
            // Features that cannot be kept are as good as others.
            if let Some(Err(e)) = cache.map(|cache| cache.write(&entry))
                && !self.warned.replace(true)
            {
                options.progress.line(format!("warning: features are not kept for the next call: {e}"));
            }
        } else {
            faults.extend(self.faults(files));
        }
        Ok(FileFeatures { entry, faults, cached: false })
    }

    /// Everything but the images that the features depend on.
    fn identity(&self) -> String {
        let input = match &self.entry.input {
            ExtractorInput::Inception(convention) => convention.to_string(),
            ExtractorInput::ImageNet => "imagenet 224".into(),
            ExtractorInput::Grey { size, channels } => format!("grey {size} {channels:?}"),
        };
        format!("{} {input} {} f32", self.name, self.digest)
    }

    /// Why files cannot be read, of those that cannot.
    fn faults(&self, files: &[(&Path, Digest)]) -> HashMap<Digest, String> {
        let input = &self.entry.input;
        let fault = |(path, digest): &(&Path, Digest)| {
            let mut values = vec![0f32; input.values()];
            let read = plain_file::read(path).map_err(|e| e.to_string());
            read.and_then(|bytes| input.read(&bytes, &mut values)).err().map(|why| (*digest, why))
        };
        files.par_iter().filter_map(fault).collect()
    }
}

/// The features of a set of files.
struct FileFeatures {
    entry: CacheEntry,
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
    let bytes = plain_file::read(path).map_err(|e| e.to_string())?;
    Ok(*blake3::hash(&bytes).as_bytes())
}
