//! What each kind of work calls. The only place that knows both the plan and the stage modules.

mod distances;
pub(crate) mod mixing;
mod quality;
mod selection;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use tch::Device;

use self::quality::QualityStage;
use super::is_manifest_folder;
use crate::{
    cell::Fraction,
    data,
    error::{AtPath, Error, Result},
    experiment::{self, ReportOn},
    gather::{self, FinishedPlan},
    generate,
    manifest::{DATA, Manifest},
    measure::{
        held_out::{self, Segmented},
        texture,
    },
    observer::Observer,
    pipeline::training_patients,
    plan::{Plan, QualityJudges, Stage, Work},
    progress::{Progress, TrainingDisplay},
    report,
    results::{self, MEASUREMENTS},
    samples::{MaskReading, Samples},
    store::Store,
    train::{self, diffusion::GeneratorHooks},
    vocabulary::{Backbone, Mode, Source, Split},
};

/// A stage with everything that it may touch.
pub(super) struct StageContext<'a> {
    pub stage: &'a Stage,
    pub plan: &'a Plan,
    pub store: &'a Store,
    /// Input artifacts by role.
    pub artifacts: HashMap<&'a str, PathBuf>,
    pub out: PathBuf,
    pub checkpoints: PathBuf,
    /// Features of images, by what decides them.
    pub cache: &'a Path,
    pub checkpoint_every: f64,
    pub device: Device,
    pub versions: &'a [(String, String)],
    pub commit: &'a str,
    pub progress: &'a Progress,
}

impl StageContext<'_> {
    fn artifact(&self, role: &str) -> Result<&Path> {
        self.artifacts
            .get(role)
            .map(PathBuf::as_path)
            .ok_or_else(|| Error::failure(format!("the stage has no input {role:?}")))
    }

    fn outside(&self, role: &str) -> Option<&Path> {
        self.stage.outside.iter().find(|o| o.role == role).map(|o| o.path.as_path())
    }

    fn manifest(&self) -> Result<Manifest> {
        Manifest::read(self.artifact("data")?.join(DATA))
    }
}

pub(super) fn perform(context: &StageContext) -> Result<()> {
    match &context.stage.work {
        Work::Phantom(phantom) => {
            with_bar(context, "images", |p| data::phantom::write(phantom, &context.out.join(DATA), p))
        }
        Work::Import { format } => {
            let source = match context.outside("source") {
                Some(path) => path.to_owned(),
                None => context.artifact("source")?.join(DATA),
            };
            let to = context.out.join(DATA);
            let imported = with_bar(context, "images", |p| data::import::import(*format, &source, &to, p))?;
            imported.warnings.iter().for_each(|text| context.progress.line(format!("warning: {text}")));
            Ok(())
        }
        Work::Prepare { image_size, split } => prepare(context, *image_size, split),
        Work::TrainGenerator { settings, patients, judges } => {
            train_generator(context, settings, *patients, judges.as_deref())
        }
        Work::Generate { settings, patients } => generate_images(context, settings, *patients),
        Work::ImportSynthetic {} => import_synthetic(context),
        Work::PrepareSynthetic { image_size } => {
            let source = Manifest::read(context.artifact("source")?.join(DATA))?;
            let to = context.out.join(DATA);
            std::fs::create_dir_all(&to).at_path(&to, "cannot make the folder")?;
            with_bar(context, "images", |p| data::prepare::prepare(&source, *image_size, &to, p).map(|_| ()))
        }
        Work::TrainSegmentation { settings, mixture } => {
            let masks = MaskReading { pairing: settings.pairing, decoding: settings.mask_decoding };
            let data = mixing::task_data(context, mixture, Some(masks), None)?;
            train::segmentation(settings, &data, mixture.seed, &training(context, &observer(context)))
        }
        Work::TrainClassification { settings, model, mixture } => {
            let limit = (settings.synthetic_per_class > 0).then_some(mixing::ClassLimit {
                per_class: settings.synthetic_per_class,
                label: settings.label,
            });
            let data = mixing::task_data(context, mixture, None, limit)?;
            let (backbone, weights) = (*model, context.outside("weights"));
            train::classification(
                settings,
                backbone,
                weights,
                &data,
                mixture.seed,
                &training(context, &observer(context)),
            )
        }
        Work::PseudoMasks { settings } => pseudo_masks(context, settings),
        Work::MeasureTexture {} => {
            let read = |role: &str| {
                let manifest = Manifest::read(context.artifact(role)?.join(DATA))?;
                Samples::read(&manifest, Split::Train, None, None)
            };
            let rows = texture::measurements(&read("data")?, &read("synthetic")?)?;
            let file = context.out.join(MEASUREMENTS);
            std::fs::write(&file, results::to_csv(&rows)?).at_path(&file, "cannot write")
        }
        Work::MeasureGenerator { measure } => distances::generator(context, measure),
        Work::MeasureReference { measure, per_class } => distances::references(context, measure, *per_class),
        Work::SelectCandidates { settings, candidates } => selection::select(context, settings, *candidates),
        Work::JudgeSegmentation { settings } => measure_segmentation(context, settings, Split::Train),
        Work::JudgeClassification { settings, model } => {
            measure_classification(context, settings, *model, Split::Train)
        }
        Work::MeasureSegmentation { settings, on } => measure_segmentation(context, settings, split_of(*on)),
        Work::MeasureClassification { settings, model, on } => {
            measure_classification(context, settings, *model, split_of(*on))
        }
        Work::Report { spec } => report(context, spec),
    }
}

fn measure_segmentation(
    context: &StageContext,
    settings: &experiment::Segmentation,
    split: Split,
) -> Result<()> {
    let mut manifest = context.manifest()?;
    if split == Split::Train {
        // Another program may have made some of its images without masks.
        manifest.rows.retain(|row| row.mask.is_some());
    }
    let samples = Samples::read(&manifest, split, None, Some(MaskReading::RIGHT))?;
    let bar = context.progress.bar(samples.len() as u64, &context.stage.label, "images");
    let network = context.artifact("network")?.join(train::WEIGHTS);
    let segmented = if split == Split::Train { Segmented::Synthetic } else { Segmented::Patients };
    held_out::segmentation(settings, &network, (&samples, segmented), context.device, &context.out, &bar)
}

fn measure_classification(
    context: &StageContext,
    settings: &experiment::Classification,
    model: Backbone,
    split: Split,
) -> Result<()> {
    let samples = Samples::read(&context.manifest()?, split, None, None)?;
    let bar = context.progress.bar(samples.len() as u64, &context.stage.label, "images");
    let network = context.artifact("network")?.join(train::WEIGHTS);
    let channels = train::channels(settings).map(|c| (c.mean, c.std));
    let network = (model, network.as_path());
    held_out::classification(settings, network, channels, &samples, context.device, &context.out, &bar)
}

fn with_bar<T>(
    context: &StageContext,
    things: &str,
    work: impl FnOnce(data::ImageProgress) -> Result<T>,
) -> Result<T> {
    let bar = context.progress.bar(0, &context.stage.label, things);
    work(&|done, total| {
        bar.total(total as u64);
        bar.set(done as u64);
    })
}

fn prepare(context: &StageContext, image_size: usize, split: &experiment::SplitSettings) -> Result<()> {
    let root = match context.outside("source") {
        Some(path) => path.to_owned(),
        None => context.artifact("source")?.join(DATA),
    };
    let mut source = Manifest::read(&root)?;
    data::split::assign(&mut source, split)?;
    let to = context.out.join(DATA);
    std::fs::create_dir_all(&to).at_path(&to, "cannot make the folder")?;
    with_bar(context, "images", |p| data::prepare::prepare(&source, image_size, &to, p).map(|_| ()))
}

/// Who watches a training: another observer is put beside the terminal here.
fn observer<'a>(context: &'a StageContext) -> TrainingDisplay<'a> {
    TrainingDisplay::new(context.progress, &context.stage.label)
}

fn training<'a>(context: &'a StageContext, observer: &'a dyn Observer) -> train::TrainingContext<'a> {
    train::TrainingContext {
        device: context.device,
        out: &context.out,
        checkpoints: &context.checkpoints,
        checkpoint_every: context.checkpoint_every,
        start: context.artifacts.get("start").map(PathBuf::as_path),
        observer,
    }
}

fn train_generator(
    context: &StageContext,
    settings: &experiment::Generator,
    patients: Option<Fraction>,
    judges: Option<&QualityJudges>,
) -> Result<()> {
    let manifest = context.manifest()?;
    let chosen = mixing::arm_patients(&manifest, patients);
    let masks = match settings.mode == Mode::TextSegmentation {
        true => Some(MaskReading::RIGHT),
        false => None,
    };
    let val = match manifest.of(Split::Val).next().is_some() {
        true => Samples::read(&manifest, Split::Val, None, masks)?,
        false => Samples::read(&manifest, Split::Train, chosen.as_deref(), masks)?.chosen(&[]),
    };
    let train = Samples::read(&manifest, Split::Train, chosen.as_deref(), masks)?;
    let data = train::TaskData { train, val };
    let base = match context.artifacts.get("base") {
        Some(artifact) => Some(artifact.join(train::diffusion::PIPELINE)),
        None => context.outside("base").map(Path::to_owned),
    };
    if let Some(base) = &base {
        mixing::check_seen(base, &manifest, chosen.as_deref())?;
    }
    generate::dataset::check(settings, &manifest, chosen.as_deref())?;
    let grid = |pipeline: &Path, class: Option<usize>, file: &Path| {
        let inputs = dataset_inputs(context, settings, pipeline, &manifest, chosen.as_deref());
        generate::dataset::grid(&inputs, class, file)
    };
    let judged =
        judges.map(|judges| QualityStage::new(context, settings, judges, &manifest, chosen.as_deref()));
    let quality = |pipeline: &Path, work: &Path| match &judged {
        Some(judged) => judged.measure(pipeline, work),
        None => Ok(Vec::new()),
    };
    train::diffusion::diffusion(
        settings,
        base.as_deref(),
        &data,
        &GeneratorHooks { grid: &grid, quality: &quality },
        &training(context, &observer(context)),
    )?;
    let patients = data.train.rows.iter().map(|row| row.patient.as_str());
    training_patients::write(&context.out.join(train::diffusion::PIPELINE), base.as_deref(), patients)
}

fn generate_images(
    context: &StageContext,
    settings: &experiment::Generator,
    patients: Option<Fraction>,
) -> Result<()> {
    let manifest = context.manifest()?;
    let chosen = mixing::arm_patients(&manifest, patients);
    let pipeline = match context.artifacts.get("generator") {
        Some(artifact) => artifact.join(train::diffusion::PIPELINE),
        None => context
            .outside("pipeline")
            .map(Path::to_owned)
            .ok_or_else(|| Error::failure("the stage has no generator"))?,
    };
    for folder in [Some(&*pipeline), context.outside("controlnet")].into_iter().flatten() {
        mixing::check_seen(folder, &manifest, chosen.as_deref())?;
    }
    let to = context.out.join(DATA);
    std::fs::create_dir_all(&to).at_path(&to, "cannot make the folder")?;
    let inputs = dataset_inputs(context, settings, &pipeline, &manifest, chosen.as_deref());
    let made = generate::dataset::dataset(&inputs, &context.checkpoints.join("images"), &to)?;
    data::phantom::carry_marker(&manifest.root, &made.root)
}

fn dataset_inputs<'a>(
    context: &'a StageContext,
    settings: &'a experiment::Generator,
    pipeline: &'a Path,
    real: &'a Manifest,
    patients: Option<&'a [String]>,
) -> generate::dataset::DatasetInputs<'a> {
    generate::dataset::DatasetInputs {
        settings,
        generator: &context.stage.key[..8.min(context.stage.key.len())],
        pipeline,
        controlnet: context.outside("controlnet"),
        real,
        patients,
        device: context.device,
        progress: context.progress,
        label: &context.stage.label,
    }
}

/// The images again, with predicted masks, which the manifest calls so.
fn pseudo_masks(context: &StageContext, settings: &experiment::Segmentation) -> Result<()> {
    let manifest = context.manifest()?;
    let samples = Samples::read(&manifest, Split::Train, None, None)?;
    let bar = context.progress.bar(samples.len() as u64, &context.stage.label, "images");
    let network = context.artifact("network")?.join(train::WEIGHTS);
    let masks = held_out::masks(settings, &network, &samples, context.device, &bar)?;
    let to = context.out.join(DATA);
    std::fs::create_dir_all(&to).at_path(&to, "cannot make the folder")?;
    let mut made = data::prepare::copy(&manifest, &to, &|_, _| {})?;
    let folder = to.join("masks");
    std::fs::create_dir_all(&folder).at_path(&folder, "cannot make the folder")?;
    for (row, mask) in made.rows.iter_mut().zip(&masks) {
        let name = row.image.file_name().map(PathBuf::from).unwrap_or_default();
        mask.write(&folder.join(&name))?;
        row.mask = Some(Path::new("masks").join(name));
        // Whose mask the image was made from stays known: that patient must not be a test patient.
        row.source_mask.get_or_insert_with(|| "pseudo".to_owned());
    }
    made.write()
}

/// A folder of another program's images, as a data set that is all for training.
fn import_synthetic(context: &StageContext) -> Result<()> {
    let source = context.outside("source").ok_or_else(|| Error::failure("the stage has no folder"))?;
    let to = context.out.join(DATA);
    let mut manifest = match is_manifest_folder(source) {
        true => {
            let manifest = Manifest::read(source)?;
            std::fs::create_dir_all(&to).at_path(&to, "cannot make the folder")?;
            with_bar(context, "images", |p| data::prepare::copy(&manifest, &to, p))?
        }
        false => {
            with_bar(context, "images", |p| data::import::import(Source::Folder, source, &to, p))?.manifest
        }
    };
    for row in &mut manifest.rows {
        row.split = Some(Split::Train);
        row.generator.get_or_insert_with(|| Mode::External.to_string());
    }
    manifest.write()
}

/// Gathers the data of the plan's report. It is drawn where people look for it.
fn report(context: &StageContext, spec: &experiment::ResolvedSpec) -> Result<()> {
    let finished = FinishedPlan {
        spec,
        plan: context.plan,
        store: context.store,
        published: context.outside("published"),
        versions: context.versions,
        commit: context.commit,
    };
    let mut input = gather::gather(&finished)?;
    input.meta.key.clone_from(&context.stage.key);
    report::save(&input, &context.out)
}

fn split_of(on: ReportOn) -> Split {
    match on {
        ReportOn::Test => Split::Test,
        ReportOn::Val => Split::Val,
    }
}
