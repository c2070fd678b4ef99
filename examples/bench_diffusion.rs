//! Seconds per training step of a diffusion model, for `just bench` (bench/compare.py runs it beside
//! bench/reference_diffusion.py). Prints one JSON document.
//!
//! Trained is what `[generators]` would train, on the phantom, in a temporary folder; the first steps,
//! in which libtorch chooses its kernels, are left out of the median.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use clap::Parser;
use serde_json::json;
use synecho::{
    Error, Result, data, doctor,
    experiment::{
        Augment, Generator, GeneratorNetworks, GeneratorPreset, GeneratorPrompts, GeneratorTraining,
        ImageSpace, Phantom, Preset,
    },
    manifest::Manifest,
    pipeline::{Pipeline, PipelineSource, Request, noise::ImageNoise},
    samples::{MaskReading, Samples},
    train::{self, diffusion::GeneratorHooks},
    vocabulary::{Mode, Precision, Source, Split},
};
use tch::{Device, Kind};

mod stopwatch;

use stopwatch::Stopwatch;

#[derive(Parser)]
struct Arguments {
    /// `base` writes the text model, with untrained weights, that `controlnet` starts from
    #[arg(long, value_parser = ["ddpm", "controlnet", "base", "flow", "flow-sample"])]
    task: String,
    /// The text model's folder
    #[arg(long, required_if_eq_any([("task", "controlnet"), ("task", "base")]))]
    base: Option<PathBuf>,
    #[arg(long, default_value = "f32", value_parser = ["f32", "bf16"])]
    precision: String,
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Steps to time; the median counts
    #[arg(long, default_value_t = 6)]
    steps: usize,
    #[arg(long, default_value_t = 2)]
    warmup_steps: usize,
}

/// The paper's DDPM as one model for all classes.
fn ddpm() -> Generator {
    let mut settings = Generator::preset(GeneratorPreset::Diffecho, Mode::Unconditional);
    settings.networks.per_class = false;
    settings.training.ema = 0.0;
    settings
}

/// The paper's text model or ControlNet with small networks: 256 px, latents 4 x 32 x 32.
fn stable_diffusion(mode: Mode) -> Generator {
    let preset = Generator::preset(GeneratorPreset::Diffecho, mode);
    Generator {
        image_size: 256,
        networks: GeneratorNetworks {
            channels: vec![64, 128, 128],
            attention_levels: vec![0, 1],
            attention_head_dim: 32,
            text_width: 64,
            autoencoder_channels: vec![16, 16, 32, 32],
            autoencoder_steps: 1,
            ..preset.networks
        },
        prompts: GeneratorPrompts { random_tokens: false, ..preset.prompts },
        training: GeneratorTraining { batch_size: 4, accumulate: 1, ema: 0.0, ..preset.training },
        augment: Augment { enabled: false, ..Augment::preset(Preset::Corrected) },
        ..preset
    }
}

/// The preset `cpu`, one model for all classes.
fn flow() -> Generator {
    let mut settings = Generator::preset(GeneratorPreset::Cpu, Mode::Unconditional);
    settings.training.ema = 0.0;
    settings.augment.enabled = false;
    settings
}

/// Seconds that each batch of images takes, as a spec of the preset samples them.
fn sampled(
    settings: &Generator,
    folder: &Path,
    kind: Kind,
    batches: usize,
    device: Device,
) -> Result<Vec<f64>> {
    let pipeline = Pipeline::load(&PipelineSource {
        pipeline: folder,
        controlnet: None,
        scheduler: Some(settings.sampling.scheduler),
        levels: Some(settings.sampling.noise_levels),
        shift: None,
        variant: None,
        kind,
        device,
    })?;
    let images = settings.sampling.sampling_batch;
    let request = Request {
        class_labels: (0..images as i64).map(|i| i % 4).collect(),
        guidance: 1.0,
        steps: settings.sampling.sampling_steps,
        ..Request::default()
    };
    let mut prepared = pipeline.prepare(&request)?;
    (0..batches as u64)
        .map(|batch| {
            let seeds: Vec<u64> = (0..images as u64).map(|i| batch * 1000 + i).collect();
            let start = Instant::now();
            let _images = pipeline.sample(&mut prepared, &mut ImageNoise::new(&seeds), None, &|_, _| {})?;
            Ok(start.elapsed().as_secs_f64())
        })
        .collect()
}

/// A phantom's images in the folder `work`.
fn phantom(size: usize, image_space: ImageSpace, work: &Path) -> Result<train::TaskData> {
    let quiet = |_, _| {};
    let spec = Phantom { patients: 8, size, seed: 0 };
    data::phantom::write(&spec, &work.join("phantom"), &quiet)?;
    let imported = data::import::import(Source::Camus, &work.join("phantom"), &work.join("data"), &quiet)?;
    let prepared: Manifest =
        data::prepare::prepare(&imported.manifest, size, &work.join("prepared"), &quiet)?;
    let masks = (image_space == ImageSpace::Latent).then_some(MaskReading::RIGHT);
    let read = |split| Samples::read(&prepared, split, None, masks);
    Ok(train::TaskData { train: read(Split::Train)?, val: read(Split::Val)? })
}

fn main() -> Result<()> {
    // As the program does.
    synecho::memory::keep();
    synecho::determinism::prepare();
    let arguments = Arguments::parse();
    let temporary = |e: std::io::Error| Error::failure(format!("no temporary folder: {e}"));
    let work = tempfile::tempdir().map_err(temporary)?;
    let (making_base, sampling) = (arguments.task == "base", arguments.task == "flow-sample");
    let mut settings = match arguments.task.as_str() {
        "ddpm" => ddpm(),
        "flow" | "flow-sample" => flow(),
        "controlnet" => stable_diffusion(Mode::TextSegmentation),
        _ => stable_diffusion(Mode::Text),
    };
    settings.training = GeneratorTraining {
        precision: if arguments.precision == "bf16" { Precision::Bf16 } else { Precision::F32 },
        steps: if making_base || sampling { 1 } else { arguments.warmup_steps + arguments.steps },
        validate_every: 0,
        grid_every: 0,
        ..settings.training
    };
    let data = phantom(settings.image_size, settings.networks.image_space, work.path())?;
    let out = match &arguments.base {
        Some(base) if making_base => base.clone(),
        _ => work.path().join("out"),
    };
    let device = doctor::choose_device(&arguments.device)?;
    let stopwatch = Stopwatch::start(device);
    let context = train::TrainingContext {
        device,
        out: &out,
        checkpoints: &work.path().join("checkpoints"),
        checkpoint_every: f64::INFINITY,
        start: None,
        observer: &stopwatch,
    };
    let pipeline = |base: &PathBuf| base.join(train::diffusion::PIPELINE);
    let base = arguments.base.as_ref().filter(|_| arguments.task == "controlnet").map(pipeline);
    let hooks = GeneratorHooks { grid: &|_, _, _| Ok(()), quality: &|_, _| Ok(Vec::new()) };
    train::diffusion::diffusion(&settings, base.as_deref(), &data, &hooks, &context)?;
    let seconds = match sampling {
        true => {
            let folder = out.join(train::diffusion::PIPELINE);
            let batches = arguments.warmup_steps + arguments.steps;
            sampled(&settings, &folder, train::kind_of(settings.training.precision), batches, device)?
        }
        false => stopwatch.seconds(),
    };
    let mut timed = seconds[seconds.len().min(arguments.warmup_steps)..].to_vec();
    timed.sort_by(f64::total_cmp);
    println!(
        "{}",
        json!({
            "task": arguments.task,
            "precision": arguments.precision,
            "images": settings.training.batch_size,
            "seconds_per_step": timed.get(timed.len() / 2),
            "seconds": seconds,
            "threads": tch::get_num_threads(),
            "device": arguments.device,
        })
    );
    Ok(())
}
