//! `synecho measure fid|kid|prdc|memorisation|statistics`: their arguments, and what they call.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::output::{print, print_json};
use crate::{
    doctor,
    error::{Error, Result},
    measure::{
        extractor::{BATCH, DomainImages, ExtractorSource, FeatureExtractor, FeatureOptions},
        generators::folders::{self, FolderExtraction, FrechetOptions},
        kid::Subsets,
        prdc,
    },
    progress::Progress,
    vocabulary::{Convention, Extractor, Split},
};

/// How features are taken.
#[derive(Debug, Args)]
pub(super) struct FeatureArgs {
    /// The network whose features are compared: inception-fid, resnet50 or domain
    #[arg(long, default_value = "inception-fid", value_name = "NAME")]
    extractor: Extractor,
    /// Its weights, a safetensors file; of domain: weights.safetensors of a ResNet-18 that `synecho run` trained
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// How images come to Inception: pytorch-fid, clean-fid or torch-fidelity (default: pytorch-fid)
    #[arg(long, value_name = "NAME")]
    convention: Option<Convention>,
    /// Of domain: the side at which the network was trained, pixels
    #[arg(long, default_value_t = 128, value_name = "PX", value_parser = clap::value_parser!(u64).range(32..=1024))]
    image_size: u64,
    /// Real images of this split alone: train, val or test (default: all)
    #[arg(long, value_name = "SPLIT")]
    split: Option<Split>,
    /// Leave out images that cannot be read, and say how many there were
    #[arg(long)]
    skip_unreadable: bool,
    /// Images at a time: decides speed and memory
    #[arg(long, default_value_t = BATCH as u64, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=4096))]
    batch_size: u64,
    /// Where features are kept for the next call (default: synecho/features in the user's cache folder)
    #[arg(long, value_name = "DIR", conflicts_with = "no_cache")]
    cache: Option<PathBuf>,
    /// Keep no features, and take none that were kept
    #[arg(long)]
    no_cache: bool,
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: String,
    /// No progress on standard error
    #[arg(long)]
    quiet: bool,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

/// Two sets of images.
#[derive(Debug, Args)]
pub(super) struct ImageSetArgs {
    /// Folder of real images: with manifest.csv, or PNG and JPEG files of any size
    #[arg(long, value_name = "DIR")]
    real: PathBuf,
    /// Folder of synthetic images, likewise
    #[arg(long, value_name = "DIR")]
    synthetic: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct FidArgs {
    /// Folder of real images (with manifest.csv, or PNG and JPEG files of any size), or their statistics (.npz)
    #[arg(long, value_name = "DIR")]
    real: PathBuf,
    /// Folder of synthetic images, or their statistics, likewise
    #[arg(long, value_name = "DIR")]
    synthetic: PathBuf,
    /// Random halves of the images behind a 95 % interval; 0: none
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=100_000))]
    interval: u64,
    /// Also extrapolate to synthetic images without end (Chong and Forsyth 2020)
    #[arg(long)]
    extrapolate: bool,
    /// Of replicates and subsets
    #[arg(long, default_value_t = 0, value_name = "S")]
    seed: u64,
    #[command(flatten)]
    features: FeatureArgs,
}

#[derive(Debug, Args)]
pub(super) struct KidArgs {
    #[command(flatten)]
    sets: ImageSetArgs,
    /// Subsets that are averaged over
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    subsets: u64,
    /// Images of each set in a subset (default: 1000, or all of the smaller set)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..))]
    subset_size: Option<u64>,
    /// Of the subsets, as torch-fidelity's
    #[arg(long, default_value_t = 2020, value_name = "S")]
    seed: u32,
    #[command(flatten)]
    features: FeatureArgs,
}

#[derive(Debug, Args)]
pub(super) struct PrdcArgs {
    #[command(flatten)]
    sets: ImageSetArgs,
    /// Nearest neighbours that an image's reach is taken from
    #[arg(long, default_value_t = prdc::K as u64, value_name = "K", value_parser = clap::value_parser!(u64).range(1..))]
    neighbours: u64,
    #[command(flatten)]
    features: FeatureArgs,
}

#[derive(Debug, Args)]
pub(super) struct MemorisationArgs {
    #[command(flatten)]
    sets: ImageSetArgs,
    /// Folder of real images of other patients, which the generator did not see
    #[arg(long, value_name = "DIR")]
    held_out: PathBuf,
    /// How many of the nearest pairs are told
    #[arg(long, default_value_t = 5, value_name = "N")]
    pairs: u64,
    #[command(flatten)]
    features: FeatureArgs,
}

#[derive(Debug, Args)]
pub(super) struct StatisticsArgs {
    /// Folder of images
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// The file to write (.npz)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    features: FeatureArgs,
}

pub(super) fn fid(a: &FidArgs) -> Result<u8> {
    let options =
        FrechetOptions { replicates: a.interval as usize, extrapolate: a.extrapolate, seed: a.seed };
    a.features.show(|features| folders::frechet_of(features, &a.real, &a.synthetic, &options))
}

pub(super) fn kid(a: &KidArgs) -> Result<u8> {
    let subsets =
        Subsets { count: a.subsets as usize, size: a.subset_size.map(|n| n as usize), seed: a.seed };
    a.features.show(|features| folders::kid_of(features, &a.sets.real, &a.sets.synthetic, &subsets))
}

pub(super) fn prdc(a: &PrdcArgs) -> Result<u8> {
    let k = a.neighbours as usize;
    a.features.show(|features| folders::prdc_of(features, &a.sets.real, &a.sets.synthetic, k))
}

pub(super) fn memorisation(a: &MemorisationArgs) -> Result<u8> {
    let (training, synthetic) = (&a.sets.real, &a.sets.synthetic);
    a.features.show(|features| {
        folders::memorisation_of(features, training, synthetic, &a.held_out, a.pairs as usize)
    })
}

pub(super) fn statistics(a: &StatisticsArgs) -> Result<u8> {
    let n = a.features.with(|features| folders::save_statistics(features, &a.images, &a.out))?;
    if a.features.json {
        return print_json(&serde_json::json!({"metric": "statistics", "n": n, "file": a.out}));
    }
    print(&format!("statistics of {n} images are in {}", a.out.display()))
}

impl FeatureArgs {
    fn show<T: Serialize + std::fmt::Display>(
        &self,
        work: impl Fn(&FolderExtraction) -> Result<T>,
    ) -> Result<u8> {
        let found = self.with(work)?;
        if self.json { print_json(&found) } else { print(&found.to_string()) }
    }

    fn with<T>(&self, work: impl Fn(&FolderExtraction) -> Result<T>) -> Result<T> {
        let progress = Progress::new(self.quiet);
        let extractor = self.extractor()?;
        let cache = if self.no_cache { None } else { self.cache.clone().or_else(user_cache) };
        let options = FeatureOptions {
            batch: self.batch_size as usize,
            skip_unreadable: self.skip_unreadable,
            cache: cache.as_deref(),
            progress: &progress,
        };
        work(&FolderExtraction { extractor: &extractor, options, split: self.split })
    }

    fn extractor(&self) -> Result<FeatureExtractor> {
        let device = doctor::choose_device(&self.device)?;
        if self.convention.is_some() && self.extractor != Extractor::InceptionFid {
            return Err(Error::input(format!("--convention is not for the extractor {}", self.extractor))
                .help("it says how images come to Inception: leave it out"));
        }
        FeatureExtractor::open(&ExtractorSource {
            extractor: self.extractor,
            weights: self.weights.as_deref(),
            convention: self.convention.unwrap_or(Convention::PytorchFid),
            domain: DomainImages { size: self.image_size as usize, ..DomainImages::default() },
            device,
        })
    }
}

/// Where programs keep what they can make again.
fn user_cache() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(folder.join(Path::new("synecho/features")))
}
