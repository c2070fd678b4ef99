//! `synecho measure fid|kid|prdc|memorisation|statistics`: their arguments, and what they call.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::{
    cache::{LimitArgs, user_cache},
    output::{print, print_json},
};
use crate::{
    doctor,
    error::{Error, Result},
    measure::{
        extractor::{BATCH, CacheFolder, DomainImages, ExtractorSource, FeatureExtractor, FeatureOptions},
        generators::{
            all::{ComparedFolders, all_of},
            folders::{self, FolderExtraction, FrechetOptions},
        },
        kid::Subsets,
        prdc,
    },
    progress::Progress,
    vocabulary::{Convention, Extractor, Split},
};

/// How features are extracted.
#[derive(Debug, Args)]
pub(super) struct FeatureArgs {
    /// The network whose features are compared: inception-fid, resnet50 or domain
    #[arg(long, default_value = "inception-fid", value_name = "NAME")]
    extractor: Extractor,
    /// Its weights, as downloaded (.pth) or as safetensors [default: inception.safetensors or resnet50.safetensors in the
    /// folder SYNECHO_WEIGHTS, or in data/weights]. For domain: weights.safetensors of a ResNet-18 that `synecho run` trained
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// How images are resized for Inception: pytorch-fid, clean-fid or torch-fidelity [default: pytorch-fid]
    #[arg(long, value_name = "NAME")]
    convention: Option<Convention>,
    /// For domain: side of the images that the network was trained on, in pixels
    #[arg(long, default_value_t = 128, value_name = "PX", value_parser = clap::value_parser!(u64).range(32..=1024))]
    image_size: u64,
    /// Only real images of this split: train, val or test [default: all]
    #[arg(long, value_name = "SPLIT")]
    split: Option<Split>,
    /// Leave out images that cannot be read, and report how many
    #[arg(long)]
    skip_unreadable: bool,
    /// Images per batch. It affects only speed and memory
    #[arg(long, default_value_t = BATCH as u64, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=4096))]
    batch_size: u64,
    /// Folder that keeps features for the next call [default: synecho/features in the user's cache folder]
    #[arg(long, value_name = "DIR", conflicts_with = "no_cache")]
    cache: Option<PathBuf>,
    /// Neither keep features nor reuse kept ones
    #[arg(long)]
    no_cache: bool,
    #[command(flatten)]
    cache_limit: LimitArgs,
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu", value_name = "DEVICE", env = "SYNECHO_DEVICE")]
    device: String,
    /// Print only errors
    #[arg(short, long)]
    quiet: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Two sets of images: in their order, or by name.
#[derive(Debug, Args)]
pub(super) struct ImageSetArgs {
    /// Folder of real images: with manifest.csv, or PNG and JPEG files of any size. `fid` takes statistics (.npz) too
    #[arg(value_name = "REAL")]
    first: Option<PathBuf>,
    /// Folder of synthetic images, likewise
    #[arg(value_name = "SYNTHETIC")]
    second: Option<PathBuf>,
    /// The folder of real images, by name
    #[arg(long, value_name = "DIR")]
    real: Option<PathBuf>,
    /// The folder of synthetic images, by name
    #[arg(long, value_name = "DIR")]
    synthetic: Option<PathBuf>,
}

impl ImageSetArgs {
    /// (real, synthetic).
    pub(super) fn both(&self) -> Result<(&Path, &Path)> {
        let by_name = [("--real", self.real.as_deref()), ("--synthetic", self.synthetic.as_deref())];
        pair([self.first.as_deref(), self.second.as_deref()], by_name)
    }
}

/// Two folders that were given one after the other, or by name.
pub(super) fn pair<'a>(
    in_order: [Option<&'a Path>; 2],
    by_name: [(&str, Option<&'a Path>); 2],
) -> Result<(&'a Path, &'a Path)> {
    let [(first_name, first), (second_name, second)] = by_name;
    let help = format!("give both, one after the other or as {first_name} DIR {second_name} DIR");
    match (in_order, first, second) {
        ([Some(first), Some(second)], None, None) => Ok((first, second)),
        ([None, None], Some(first), Some(second)) => Ok((first, second)),
        ([None, _], None, None) | ([None, None], ..) => {
            Err(Error::input("two folders are compared, and fewer are given").help(help))
        }
        ([Some(_), None], None, None) => Err(Error::input("the second folder is missing").help(help)),
        _ => Err(Error::input("folders are given both in their order and by name").help(help)),
    }
}

#[derive(Debug, Args)]
pub(super) struct FidArgs {
    #[command(flatten)]
    sets: ImageSetArgs,
    /// Random halves of the images for a 95 % interval. 0: no interval
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=100_000))]
    interval: u64,
    /// Extrapolate to infinitely many synthetic images as well (Chong and Forsyth 2020)
    #[arg(long)]
    extrapolate: bool,
    /// Seed of replicates and subsets
    #[arg(long, default_value_t = 0, value_name = "S")]
    seed: u64,
    #[command(flatten)]
    features: FeatureArgs,
}

#[derive(Debug, Args)]
pub(super) struct KidArgs {
    #[command(flatten)]
    sets: ImageSetArgs,
    /// Number of subsets
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    subsets: u64,
    /// Images of each set in a subset [default: 1000, or all of the smaller set]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..))]
    subset_size: Option<u64>,
    /// Seed of the subsets. The default is that of torch-fidelity
    #[arg(long, default_value_t = 2020, value_name = "S")]
    seed: u32,
    #[command(flatten)]
    features: FeatureArgs,
}

#[derive(Debug, Args)]
pub(super) struct PrdcArgs {
    #[command(flatten)]
    sets: ImageSetArgs,
    /// Number of nearest neighbours that define an image's neighbourhood
    #[arg(long, default_value_t = prdc::K as u64, value_name = "K", value_parser = clap::value_parser!(u64).range(1..))]
    neighbours: u64,
    #[command(flatten)]
    features: FeatureArgs,
}

#[derive(Debug, Args)]
pub(super) struct AllArgs {
    #[command(flatten)]
    sets: ImageSetArgs,
    /// Folder of real images of other patients, which the generator did not see: with it memorisation is tested
    #[arg(long, value_name = "DIR")]
    held_out: Option<PathBuf>,
    /// Number of nearest neighbours that define an image's neighbourhood
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
    /// Number of nearest pairs to print
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
    let (real, synthetic) = a.sets.both()?;
    a.features.show(|features| folders::frechet_of(features, real, synthetic, &options))
}

pub(super) fn kid(a: &KidArgs) -> Result<u8> {
    let subsets =
        Subsets { count: a.subsets as usize, size: a.subset_size.map(|n| n as usize), seed: a.seed };
    let (real, synthetic) = a.sets.both()?;
    a.features.show(|features| folders::kid_of(features, real, synthetic, &subsets))
}

pub(super) fn prdc(a: &PrdcArgs) -> Result<u8> {
    let k = a.neighbours as usize;
    let (real, synthetic) = a.sets.both()?;
    a.features.show(|features| folders::prdc_of(features, real, synthetic, k))
}

pub(super) fn all(a: &AllArgs) -> Result<u8> {
    let (real, synthetic) = a.sets.both()?;
    let compared = ComparedFolders { real, synthetic, held_out: a.held_out.as_deref() };
    a.features.show(|features| all_of(features, &compared, a.neighbours as usize))
}

pub(super) fn memorisation(a: &MemorisationArgs) -> Result<u8> {
    let (training, synthetic) = a.sets.both()?;
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
        let done = work(&FolderExtraction { extractor: &extractor, options, split: self.split });
        if let Some(folder) = &cache {
            // What cannot be removed takes room, and nothing else.
            let _ = CacheFolder::new(folder).trim(self.cache_limit.limit);
        }
        done
    }

    fn extractor(&self) -> Result<FeatureExtractor> {
        let device = doctor::choose_device(&self.device)?;
        if self.convention.is_some() && self.extractor != Extractor::InceptionFid {
            return Err(Error::input(format!("--convention is not for the extractor {}", self.extractor))
                .help("it says how images come to Inception: leave it out"));
        }
        let usual = usual_weights(self.extractor);
        FeatureExtractor::open(&ExtractorSource {
            extractor: self.extractor,
            weights: self.weights.as_deref().or(usual.as_deref()),
            convention: self.convention.unwrap_or(Convention::PytorchFid),
            domain: DomainImages { size: self.image_size as usize, ..DomainImages::default() },
            device,
        })
    }
}

/// The extractor's weights in the default folder, if it has them.
fn usual_weights(extractor: Extractor) -> Option<PathBuf> {
    let folder = std::env::var_os("SYNECHO_WEIGHTS").filter(|value| !value.is_empty());
    let folder = folder.map_or_else(|| PathBuf::from("data/weights"), PathBuf::from);
    // As this project's guides name them, and as they are downloaded.
    let names: &[&str] = match extractor {
        Extractor::InceptionFid => &["inception.safetensors", "pt_inception-2015-12-05-6726825d.pth"],
        Extractor::Resnet50 => &["resnet50.safetensors", "resnet50-11ad3fa6.pth"],
        Extractor::Domain => &[],
    };
    names.iter().map(|name| folder.join(name)).find(|file| file.is_file())
}
