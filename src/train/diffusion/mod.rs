//! Training a generator, in each of the three conditioning modes: the loop (`fit`), its batches (`batches`), the
//! networks (`denoiser`) and what they learn (`objective`). The output is a folder that diffusers loads.

mod autoencoder;
mod bases;
mod batches;
mod denoiser;
mod denoising;
mod fit;
mod folder;
mod inputs;
mod objective;
mod texts;

pub use bases::open_base_of;

use std::path::{Path, PathBuf};

use tch::Device;

use self::{
    batches::Batches,
    denoiser::Denoiser,
    denoising::Denoising,
    fit::{Fitted, LoopContext, Milestones, Named, Recipe, fit},
    folder::remove_folder,
    inputs::NetworkInputs,
};
use super::{CURVES, SUMMARY, TaskData, TrainingContext, parameters::Parameters, write};
use crate::{
    augment::AugmentRange,
    error::{AtPath, Error, Result},
    experiment::{Generator, ImageSpace},
    manifest::Row,
    pipeline::space::Space,
    prompt, random,
    results::{self, CurvePoint, GeneratorSummary},
    samples::{Samples, class_folder, class_of},
    vocabulary::{Label, Metric, Mode, Precision},
};

/// The folder that diffusers loads, in a trained generator's artifact; of one model per class each in a
/// folder of its class ([`class_folder`]).
pub const PIPELINE: &str = "pipeline";

/// Called with a pipeline's folder, the class that it knows (or all), and the file to draw into.
pub type SampleGrid<'a> = dyn Fn(&Path, Option<usize>, &Path) -> Result<()> + 'a;

/// Called with a pipeline's folder, and an empty folder to work in.
pub type QualityMeasure<'a> = dyn Fn(&Path, &Path) -> Result<Vec<QualityScore>> + 'a;

/// What is made of a generator while it is trained.
pub struct GeneratorHooks<'a> {
    pub grid: &'a SampleGrid<'a>,
    pub quality: &'a QualityMeasure<'a>,
}

/// A measure of a generator's images while it is trained.
#[derive(Debug, Clone, PartialEq)]
pub struct QualityScore {
    pub metric: Metric,
    pub structure: &'static str,
    pub value: f64,
}

/// Trains a generator of `settings` on the training images, or goes on from its checkpoints. `base` is
/// the folder that it starts from: a pipeline's, or one of pipelines per class.
///
/// # Errors
/// The mode lacks what it needs (masks, a base that fits), a class has no images, the loss is not
/// finite, or files cannot be written.
pub fn diffusion(
    settings: &Generator,
    base: Option<&Path>,
    data: &TaskData,
    hooks: &GeneratorHooks,
    context: &TrainingContext,
) -> Result<()> {
    if settings.training.precision == Precision::F16 && context.device == Device::Cpu {
        return Err(Error::input("a generator is trained in f16 only on CUDA")
            .help("set precision = \"f32\" (or \"bf16\"), or run with --device cuda"));
    }
    let all = Label::ViewPhase.classes();
    // Before hours of training: images of a class cannot be made without real ones of it.
    for (class, name) in all.iter().enumerate() {
        let is_of_class = |row: &Row| class_of(row, Label::ViewPhase) == class;
        if !data.train.rows.iter().any(is_of_class) {
            return Err(Error::input(format!("no training image is of {name}")).help(
                "every view and phase needs real images: look at the data set with `synecho data check`",
            ));
        }
    }
    let with_sectors;
    let data = match settings.mode == Mode::TextSegmentation && settings.networks.sector {
        true => {
            with_sectors = TaskData { train: data.train.with_sectors(), val: data.val.with_sectors() };
            &with_sectors
        }
        false => data,
    };
    // Networks begun by a killed try lie in the stage's own checkpoint folder.
    let mut run = GeneratorTrainingRun {
        settings,
        hooks,
        context,
        curves: Vec::new(),
        summary: GeneratorSummary::default(),
    };
    if settings.has_model_per_class() {
        let total = settings.training.steps as u64 * all.len() as u64;
        for (class, name) in all.iter().enumerate() {
            let of_class =
                |samples: &Samples| samples.filtered(|row| class_of(row, Label::ViewPhase) == class);
            let data = TaskData { train: of_class(&data.train), val: of_class(&data.val) };
            let folder = class_folder(class);
            let base =
                base.map(|dir| if dir.join(&folder).is_dir() { dir.join(&folder) } else { dir.to_owned() });
            let part = ModelPart {
                name,
                folder: &folder,
                class: Some(class),
                base,
                seed_index: class as u64,
                total,
            };
            run.part(&data, &part)?;
        }
    } else {
        let base = base.map(Path::to_owned);
        let part = ModelPart {
            name: "",
            folder: "",
            class: None,
            base,
            seed_index: 0,
            total: settings.training.steps as u64,
        };
        run.part(data, &part)?;
    }
    let progress = context.checkpoints.join("progress");
    if progress.is_dir() {
        let to = context.out.join("progress");
        std::fs::create_dir_all(&to).at_path(&to, "cannot make the folder")?;
        for entry in std::fs::read_dir(&progress).at_path(&progress, "cannot read the folder")?.flatten() {
            let place = to.join(entry.file_name());
            std::fs::copy(entry.path(), &place).at_path(&place, "cannot copy the picture")?;
        }
    }
    write(&context.out.join(CURVES), results::to_csv(&run.curves)?.as_bytes())?;
    let text = serde_json::to_string_pretty(&run.summary)
        .map_err(|e| Error::failure(format!("cannot write the summary: {e}")))?;
    write(&context.out.join(SUMMARY), text.as_bytes())
}

struct GeneratorTrainingRun<'a> {
    settings: &'a Generator,
    hooks: &'a GeneratorHooks<'a>,
    context: &'a TrainingContext<'a>,
    curves: Vec<CurvePoint>,
    summary: GeneratorSummary,
}

/// One model: the only one, or that of one class.
struct ModelPart<'a> {
    /// In the curves.
    name: &'a str,
    /// Under `pipeline/` and under the checkpoints; empty: these themselves.
    folder: &'a str,
    class: Option<usize>,
    base: Option<PathBuf>,
    seed_index: u64,
    /// Steps of all models together.
    total: u64,
}

impl GeneratorTrainingRun<'_> {
    fn part(&mut self, data: &TaskData, part: &ModelPart) -> Result<()> {
        let (settings, context) = (self.settings, self.context);
        let seed = random::seed(settings.seed, "generator", &[part.seed_index]);
        let checkpoints =
            context.checkpoints.join(if part.folder.is_empty() { "model" } else { part.folder });
        std::fs::create_dir_all(&checkpoints).at_path(&checkpoints, "cannot make the folder")?;
        let autoencoder = match settings.networks.image_space == ImageSpace::Latent && part.base.is_none() {
            true => Some(autoencoder::train(settings, data, seed, &checkpoints, context)?),
            false => None,
        };
        let told = settings.mode == Mode::Unconditional && part.class.is_none();
        let prompts = &settings.prompts;
        let texts: Vec<String> = match settings.mode {
            Mode::Text | Mode::TextSegmentation => data
                .train
                .rows
                .iter()
                .chain(&data.val.rows)
                .map(|row| prompt::of_image(&prompts.prompt, prompts.random_tokens, row))
                .collect(),
            _ => Vec::new(),
        };
        let inputs = NetworkInputs {
            settings,
            base: part.base.as_deref(),
            prompts: &texts,
            train_prompts: data.train.len(),
            autoencoder: autoencoder.as_deref(),
            classes: if told { Label::ViewPhase.classes() } else { &[] },
            work: &checkpoints,
            kind: super::kind_of(settings.training.precision),
            device: context.device,
            seed,
        };
        let denoiser = Denoiser::new(&inputs)?;
        let mut parameters = Parameters::new(denoiser.variables(), settings.training.precision)?;
        let objective = Denoising::new(&denoiser, &settings.training)?;
        let labels = |samples: &Samples| -> Vec<i64> {
            let classes = samples.labels(Label::ViewPhase);
            if told { classes.into_iter().map(|c| c as i64).collect() } else { Vec::new() }
        };
        let (train_labels, val_labels) = (labels(&data.train), labels(&data.val));
        let range = AugmentRange::of(&settings.augment)
            .or_else(|| settings.training.flip.then_some(AugmentRange::NONE));
        let range = range.map(|r| AugmentRange { flip: if settings.training.flip { 0.5 } else { 0.0 }, ..r });
        let train = Batches {
            samples: &data.train,
            batch_size: settings.training.batch_size,
            range,
            prompt_dropout: settings.training.prompt_dropout,
            times: objective.times(),
            labels: &train_labels,
            offset: 0,
            noise: denoiser.latent,
            posterior: matches!(denoiser.space, Space::Latent(_)),
            seed,
            device: context.device,
        };
        let val = Batches {
            samples: &data.val,
            range: None,
            labels: &val_labels,
            offset: data.train.len(),
            ..train
        };
        let recipe = recipe(settings);
        let of_loop = LoopContext {
            checkpoints: &checkpoints,
            checkpoint_every: context.checkpoint_every,
            observer: context.observer,
            phase: "",
            total: part.total,
            before: part.seed_index * recipe.steps,
            name: part.name,
        };
        let pictures = context.checkpoints.join("progress");
        let mut milestones = ModelMilestones {
            hooks: self.hooks,
            part,
            denoiser: &denoiser,
            inputs: &inputs,
            work: &checkpoints,
            pictures: &pictures,
        };
        let val = (!data.val.is_empty()).then_some(&val);
        let Fitted { weights, curves, best } =
            fit(&objective, &mut parameters, &recipe, &train, val, &mut milestones, &of_loop)?;
        let to = context.out.join(PIPELINE);
        let to = if part.folder.is_empty() { to } else { to.join(part.folder) };
        denoiser.write(&inputs, &weights, &to)?;
        self.curves.extend(curves);
        let trained = parameters.count() as u64;
        let val_images = match recipe.validate_every {
            0 => 0,
            _ => fit::VALIDATION_IMAGES.min(data.val.len()) as u64,
        };
        self.summary = GeneratorSummary {
            mode: crate::results::word(&settings.mode),
            parameters: denoiser.parameters(),
            trainable: trained,
            train_images: self.summary.train_images + data.train.len() as u64,
            train_patients: self.summary.train_patients.max(data.train.patients() as u64),
            val_images: self.summary.val_images + val_images,
            steps: self.summary.steps + recipe.steps,
            batch: (settings.training.batch_size * settings.training.accumulate) as u64,
            image_size: settings.image_size as u64,
            precision: settings.training.precision.as_str().into(),
            quality_images: match recipe.quality_every {
                0 => None,
                _ => Some((Label::ViewPhase.classes().len() * settings.quality.quality_images) as u64),
            },
            best_step: best.map(|best| best.step),
        };
        Ok(())
    }
}

/// Writes a folder that images are made from, and lets them be drawn and measured.
struct ModelMilestones<'a> {
    hooks: &'a GeneratorHooks<'a>,
    part: &'a ModelPart<'a>,
    denoiser: &'a Denoiser,
    inputs: &'a NetworkInputs<'a>,
    work: &'a Path,
    pictures: &'a Path,
}

impl ModelMilestones<'_> {
    /// A pipeline's folder with these weights, and a folder beside it; both are gone afterwards.
    fn with_folder<T>(&self, weights: &Named, make: impl FnOnce(&Path, &Path) -> Result<T>) -> Result<T> {
        let (folder, beside) = (self.work.join("grid"), self.work.join("measured"));
        remove_folder(&folder)?;
        remove_folder(&beside)?;
        self.denoiser.write(self.inputs, weights, &folder)?;
        std::fs::create_dir_all(&beside).at_path(&beside, "cannot make the folder")?;
        let made = make(&folder, &beside)?;
        remove_folder(&folder)?;
        remove_folder(&beside)?;
        Ok(made)
    }
}

impl Milestones for ModelMilestones<'_> {
    fn draw(&mut self, weights: &Named, step: u64) -> Result<()> {
        let ModelPart { folder, class, .. } = self.part;
        std::fs::create_dir_all(self.pictures).at_path(self.pictures, "cannot make the folder")?;
        let dash = if folder.is_empty() { "" } else { "-" };
        let file = self.pictures.join(format!("{folder}{dash}step-{step:07}.png"));
        self.with_folder(weights, |pipeline, _| (self.hooks.grid)(pipeline, *class, &file))
    }

    fn measure(&mut self, weights: &Named) -> Result<Vec<QualityScore>> {
        self.with_folder(weights, |pipeline, beside| (self.hooks.quality)(pipeline, beside))
    }
}

fn recipe(settings: &Generator) -> Recipe {
    Recipe {
        steps: settings.training.steps as u64,
        accumulate: settings.training.accumulate as u64,
        learning_rate: settings.training.learning_rate,
        schedule: settings.training.schedule,
        warmup_steps: settings.training.warmup_steps as u64,
        weight_decay: settings.training.weight_decay,
        clip: settings.training.clip,
        ema: settings.training.ema,
        precision: settings.training.precision,
        validate_every: settings.training.validate_every as u64,
        grid_every: settings.training.grid_every as u64,
        quality_every: settings.quality.quality_every as u64,
        choose_by: settings.quality.checkpoint.metric(),
    }
}
