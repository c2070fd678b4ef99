//! Seconds per training epoch of a task, for `just bench` (bench/compare.py runs it beside the same
//! recipe in Python). Prints one JSON document.
//!
//! An epoch is augmentation and training of every image. Files are read and resized once, before the
//! first epoch, which is `load_seconds`; the first epoch, in which libtorch chooses its kernels, is
//! left out of the median.

use std::{path::PathBuf, time::Instant};

use clap::Parser;
use serde_json::json;
use synecho::{
    Error, Result, data, doctor,
    experiment::{Classification, Preset, Segmentation, TrainingRecipe},
    manifest::Manifest,
    samples::{MaskReading, Samples},
    train,
    vocabulary::{Backbone, Precision, Split},
};

mod stopwatch;

use stopwatch::Stopwatch;

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    data: PathBuf,
    #[arg(long, value_parser = ["segmentation", "classification"])]
    task: String,
    #[arg(long, default_value = "f32", value_parser = ["f32", "bf16"])]
    precision: String,
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    #[arg(long, default_value_t = 3)]
    epochs: usize,
    /// Take the first LIMIT training images only
    #[arg(long)]
    limit: Option<usize>,
}

fn main() -> Result<()> {
    // As the program does.
    synecho::memory::keep();
    synecho::determinism::prepare();
    let arguments = Arguments::parse();
    let temporary = |e: std::io::Error| Error::failure(format!("no temporary folder: {e}"));
    let folder = tempfile::tempdir().map_err(temporary)?;
    let precision = if arguments.precision == "bf16" { Precision::Bf16 } else { Precision::F32 };
    let timed = |recipe: TrainingRecipe| TrainingRecipe {
        epochs: arguments.epochs + 1,
        validate_every: usize::MAX,
        precision,
        ..recipe
    };
    let base = Segmentation::preset(Preset::Corrected);
    let segmentation = Segmentation { recipe: timed(base.recipe), ..base };
    let base = Classification::preset(Preset::Corrected);
    let classification = Classification { recipe: timed(base.recipe), ..base };
    let device = doctor::choose_device(&arguments.device)?;
    let segments = arguments.task == "segmentation";
    let size = if segments { segmentation.recipe.image_size } else { classification.recipe.image_size };

    let start = Instant::now();
    let mut manifest = Manifest::read(&arguments.data)?;
    manifest.rows.retain(|row| row.split == Some(Split::Train));
    manifest.rows.truncate(arguments.limit.unwrap_or(usize::MAX));
    let mut prepared = data::prepare::prepare(&manifest, size, folder.path(), &|_, _| {})?;
    let masks = segments.then_some(MaskReading::RIGHT);
    let samples = Samples::read(&prepared, Split::Train, None, masks)?;
    prepared.rows.truncate(4);
    let few = Samples::read(&prepared, Split::Train, None, masks)?;
    let load_seconds = start.elapsed().as_secs_f64();

    let images = samples.len();
    let task = train::TaskData { train: samples, val: few };
    let stopwatch = Stopwatch::start(device);
    let context = train::TrainingContext {
        device,
        out: folder.path(),
        checkpoints: &folder.path().join("checkpoint"),
        checkpoint_every: f64::INFINITY,
        start: None,
        observer: &stopwatch,
    };
    if segments {
        train::segmentation(&segmentation, &task, 0, &context)?;
    } else {
        train::classification(&classification, Backbone::Resnet18, None, &task, 0, &context)?;
    }
    let mut seconds = stopwatch.seconds().split_off(1);
    seconds.sort_by(f64::total_cmp);
    println!(
        "{}",
        json!({
            "task": arguments.task,
            "precision": arguments.precision,
            "images": images,
            "seconds_per_epoch": seconds[seconds.len() / 2],
            "epochs": seconds,
            "load_seconds": load_seconds,
            "threads": tch::get_num_threads(),
            "device": arguments.device,
        })
    );
    Ok(())
}
