//! Seconds for Inception's features of a folder's images, beside bench/reference_fid.py. Prints one JSON
//! document.
//!
//! All of it is timed: hashing, reading, decoding, resizing, the network. The network has made-up weights;
//! `--weights` takes real ones.

use std::{path::PathBuf, time::Instant};

use clap::Parser;
use serde_json::json;
use synecho::{
    Error, Result,
    measure::extractor::{BATCH, DomainImages, ExtractorSource, FeatureExtractor, FeatureOptions, images_of},
    nn::{inception, init, tensor_file},
    progress::Progress,
    vocabulary::{Convention, Extractor},
};
use tch::{Device, nn::VarStore};

#[derive(Parser)]
struct Arguments {
    /// A folder of images
    #[arg(long)]
    images: PathBuf,
    /// Take the first LIMIT images only
    #[arg(long)]
    limit: Option<usize>,
    #[arg(long, default_value = "pytorch-fid")]
    convention: Convention,
    #[arg(long, default_value_t = BATCH)]
    batch: usize,
    /// Inception's weights as safetensors (made-up ones without)
    #[arg(long)]
    weights: Option<PathBuf>,
    /// Keep features in this folder
    #[arg(long)]
    cache: Option<PathBuf>,
}

fn main() -> Result<()> {
    synecho::memory::keep(); // as the program does
    let arguments = Arguments::parse();
    let temporary = |e: std::io::Error| Error::failure(format!("no temporary folder: {e}"));
    let folder = tempfile::tempdir().map_err(temporary)?;
    let weights = match arguments.weights {
        Some(file) => file,
        None => {
            let vs = VarStore::new(Device::Cpu);
            inception::declare(&vs.root())?;
            init::fill(&vs, 0, Some(init::kaiming_normal_fan_out));
            let file = folder.path().join("inception.safetensors");
            tensor_file::write(&file, &vs.variables().into_iter().collect::<Vec<_>>())?;
            file
        }
    };
    let start = Instant::now();
    let mut images = images_of(&arguments.images, None)?;
    images.truncate(arguments.limit.unwrap_or(usize::MAX));
    let extractor = FeatureExtractor::open(&ExtractorSource {
        extractor: Extractor::InceptionFid,
        weights: Some(&weights),
        convention: arguments.convention,
        domain: DomainImages::default(),
        device: Device::Cpu,
    })?;
    let progress = Progress::new(true);
    let options = FeatureOptions {
        batch: arguments.batch,
        skip_unreadable: false,
        cache: arguments.cache.as_deref(),
        progress: &progress,
    };
    let found = extractor.features(&images, &options)?;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{}",
        json!({
            "task": "fid-features",
            "precision": "f32",
            "convention": arguments.convention.as_str(),
            "images": found.images.len(),
            "features": found.values.size()[1],
            "cached": found.cached,
            "batch": arguments.batch,
            "seconds": seconds,
            "threads": tch::get_num_threads(),
        })
    );
    Ok(())
}
