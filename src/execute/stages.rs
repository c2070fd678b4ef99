//! What each kind of work calls. The only place that knows both the plan and the stage modules.

mod distances;
mod generators;
mod lineage;
pub(super) mod mixing;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use tch::Device;

use super::is_manifest_folder;

use crate::{
    aggregate::TrainedModel,
    data,
    error::{AtPath, Error, Result},
    generate,
    manifest::{self, Manifest, Split},
    measure::{networks, texture},
    nn::backbone::Backbone,
    picture::Picture,
    plan::{Fraction, Stage, Work},
    progress::Progress,
    report::{ArmInfo, PanelItem, ReportInput, ReportMeta},
    results::{self, CurvePoint, Measurement, TrainSummary},
    samples::{MaskReading, Samples},
    spec::{self, HeldOut, ReportOn, ResolvedSpec, Source, SplitScheme},
    train,
};

/// A stage with everything that it may touch.
pub(super) struct Place<'a> {
    pub stage: &'a Stage,
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

/// A data artifact's manifest folder.
const DATA: &str = "data";

impl Place<'_> {
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

pub(super) fn perform(place: &Place) -> Result<()> {
    match &place.stage.work {
        Work::Phantom(phantom) => {
            let spec = data::phantom::PhantomSpec {
                patients: phantom.patients,
                size: phantom.size,
                seed: phantom.seed,
            };
            with_bar(place, "images", |p| data::phantom::write(&spec, &place.out.join(DATA), p))
        }
        Work::Import { format } => {
            let source = match place.outside("source") {
                Some(path) => path.to_owned(),
                None => place.artifact("source")?.join(DATA),
            };
            let format = import_format(*format);
            with_bar(place, "images", |p| {
                data::import::import(format, &source, &place.out.join(DATA), p).map(|_| ())
            })
        }
        Work::Prepare { image_size, split } => prepare(place, *image_size, split),
        Work::TrainGenerator { settings, patients } => train_generator(place, settings, *patients),
        Work::Generate { settings, patients } => generate_images(place, settings, *patients),
        Work::ImportSynthetic {} => import_synthetic(place),
        Work::PrepareSynthetic { image_size } => {
            let source = Manifest::read(place.artifact("source")?.join(DATA))?;
            let to = place.out.join(DATA);
            std::fs::create_dir_all(&to).at_path(&to, "cannot make the folder")?;
            with_bar(place, "images", |p| data::prepare::prepare(&source, *image_size, &to, p).map(|_| ()))
        }
        Work::TrainSegmentation { settings, mixture } => {
            let masks = MaskReading { pairing: settings.pairing, decoding: settings.mask_decoding };
            let data = mixing::task_data(place, mixture, Some(masks), None)?;
            train::segmentation(settings, &data, mixture.seed, &setting(place))
        }
        Work::TrainClassification { settings, model, mixture } => {
            let most = (settings.synthetic_per_class > 0)
                .then_some(mixing::Most { per_class: settings.synthetic_per_class, label: settings.label });
            let data = mixing::task_data(place, mixture, None, most)?;
            let (backbone, weights) = (Backbone::named(model)?, place.outside("weights"));
            train::classification(settings, backbone, weights, &data, mixture.seed, &setting(place))
        }
        Work::PseudoMasks { settings } => pseudo_masks(place, settings),
        Work::MeasureTexture {} => {
            let read = |role: &str| {
                let manifest = Manifest::read(place.artifact(role)?.join(DATA))?;
                Samples::read(&manifest, Split::Train, None, None)
            };
            let rows = texture::measurements(&read("data")?, &read("synthetic")?)?;
            let file = place.out.join(networks::MEASUREMENTS);
            std::fs::write(&file, results::to_csv(&rows)?).at_path(&file, "cannot write")
        }
        Work::MeasureGenerator { measure } => distances::generator(place, measure),
        Work::MeasureReference { measure, per_class } => distances::references(place, measure, *per_class),
        Work::JudgeSegmentation { settings } => measure_segmentation(place, settings, Split::Train),
        Work::JudgeClassification { settings, model } => {
            measure_classification(place, settings, model, Split::Train)
        }
        Work::MeasureSegmentation { settings, on } => measure_segmentation(place, settings, split_of(*on)),
        Work::MeasureClassification { settings, model, on } => {
            measure_classification(place, settings, model, split_of(*on))
        }
        Work::Report { spec } => crate::report::write(&report_input(place, spec)?, &place.out),
    }
}

fn measure_segmentation(place: &Place, settings: &spec::Segmentation, split: Split) -> Result<()> {
    let samples = Samples::read(&place.manifest()?, split, None, Some(MaskReading::RIGHT))?;
    let bar = place.progress.bar(samples.len() as u64, &place.stage.label, "images");
    let network = place.artifact("network")?.join(train::WEIGHTS);
    networks::segmentation(settings, &network, &samples, place.device, &place.out, &bar)
}

fn measure_classification(
    place: &Place,
    settings: &spec::Classification,
    model: &str,
    split: Split,
) -> Result<()> {
    let samples = Samples::read(&place.manifest()?, split, None, None)?;
    let bar = place.progress.bar(samples.len() as u64, &place.stage.label, "images");
    let network = place.artifact("network")?.join(train::WEIGHTS);
    let channels = train::channels(settings).map(|c| (c.mean, c.std));
    let network = (Backbone::named(model)?, network.as_path());
    networks::classification(settings, network, channels, &samples, place.device, &place.out, &bar)
}

fn with_bar<T>(place: &Place, things: &str, work: impl FnOnce(data::Progress) -> Result<T>) -> Result<T> {
    let bar = place.progress.bar(0, &place.stage.label, things);
    work(&|done, total| {
        bar.total(total as u64);
        bar.set(done as u64);
    })
}

/// The importer of a source.
pub fn import_format(source: Source) -> data::import::Format {
    use data::import::Format;
    match source {
        Source::Camus | Source::Phantom => Format::Camus,
        Source::Diffecho => Format::Diffecho,
        Source::KaggleH5 => Format::KaggleH5,
        Source::Folder => Format::Folder,
    }
}

fn prepare(place: &Place, image_size: usize, split: &spec::Split) -> Result<()> {
    let root = match place.outside("source") {
        Some(path) => path.to_owned(),
        None => place.artifact("source")?.join(DATA),
    };
    let mut source = Manifest::read(&root)?;
    assign_split(&mut source, split)?;
    let to = place.out.join(DATA);
    std::fs::create_dir_all(&to).at_path(&to, "cannot make the folder")?;
    with_bar(place, "images", |p| data::prepare::prepare(&source, image_size, &to, p).map(|_| ()))
}

/// Says who trains, validates and tests.
pub(super) fn assign_split(manifest: &mut Manifest, split: &spec::Split) -> Result<()> {
    let assigned = data::split::SplitSpec {
        scheme: match split.scheme {
            SplitScheme::Official => data::split::Scheme::Official,
            SplitScheme::Diffecho => data::split::Scheme::Diffecho,
            SplitScheme::Folds => data::split::Scheme::Folds {
                folds: split.folds.unwrap_or_default(),
                fold: split.fold.unwrap_or_default(),
            },
            SplitScheme::Random => data::split::Scheme::Random {
                val: split.val_fraction.unwrap_or_default(),
                test: split.test_fraction.unwrap_or_default(),
            },
        },
        test_from: (split.test_from == HeldOut::Val).then_some(Split::Val),
        val_patients: split.val_patients,
        without_test: split.test_from == HeldOut::None,
        seed: split.seed,
    };
    data::split::assign(manifest, &assigned)
}

fn setting<'a>(place: &'a Place) -> train::Setting<'a> {
    train::Setting {
        device: place.device,
        out: &place.out,
        checkpoints: &place.checkpoints,
        checkpoint_every: place.checkpoint_every,
        start: place.artifacts.get("start").map(PathBuf::as_path),
        progress: place.progress,
        label: &place.stage.label,
        lap: &|| {},
    }
}

fn train_generator(place: &Place, settings: &spec::Generator, patients: Option<Fraction>) -> Result<()> {
    let manifest = place.manifest()?;
    let chosen = mixing::arm_patients(&manifest, patients);
    let masks = match settings.mode == spec::Mode::TextSegmentation {
        true => Some(MaskReading::RIGHT),
        false => None,
    };
    let val = match manifest.of(Split::Val).next().is_some() {
        true => Samples::read(&manifest, Split::Val, None, masks)?,
        false => Samples::read(&manifest, Split::Train, chosen.as_deref(), masks)?.chosen(&[]),
    };
    let train = Samples::read(&manifest, Split::Train, chosen.as_deref(), masks)?;
    let data = train::TaskData { train, val };
    let base = match place.artifacts.get("base") {
        Some(artifact) => Some(artifact.join(train::diffusion::PIPELINE)),
        None => place.outside("base").map(Path::to_owned),
    };
    if let Some(base) = &base {
        mixing::check_seen(base, &manifest, chosen.as_deref())?;
    }
    generate::dataset::check(settings, &manifest, chosen.as_deref())?;
    let grid = |pipeline: &Path, class: Option<usize>, file: &Path| {
        let making = making(place, settings, pipeline, &manifest, chosen.as_deref());
        generate::dataset::grid(&making, class, file)
    };
    train::diffusion::diffusion(settings, base.as_deref(), &data, &grid, &setting(place))?;
    mixing::note_seen(&place.out.join(train::diffusion::PIPELINE), base.as_deref(), &data.train)
}

fn generate_images(place: &Place, settings: &spec::Generator, patients: Option<Fraction>) -> Result<()> {
    let manifest = place.manifest()?;
    let chosen = mixing::arm_patients(&manifest, patients);
    let pipeline = match place.artifacts.get("generator") {
        Some(artifact) => artifact.join(train::diffusion::PIPELINE),
        None => place
            .outside("pipeline")
            .map(Path::to_owned)
            .ok_or_else(|| Error::failure("the stage has no generator"))?,
    };
    for folder in [Some(&*pipeline), place.outside("controlnet")].into_iter().flatten() {
        mixing::check_seen(folder, &manifest, chosen.as_deref())?;
    }
    let to = place.out.join(DATA);
    std::fs::create_dir_all(&to).at_path(&to, "cannot make the folder")?;
    let making = making(place, settings, &pipeline, &manifest, chosen.as_deref());
    let made = generate::dataset::dataset(&making, &place.checkpoints.join("images"), &to)?;
    data::phantom::carry_marker(&manifest.root, &made.root)
}

fn making<'a>(
    place: &'a Place,
    settings: &'a spec::Generator,
    pipeline: &'a Path,
    real: &'a Manifest,
    patients: Option<&'a [String]>,
) -> generate::dataset::Making<'a> {
    generate::dataset::Making {
        settings,
        generator: &place.stage.key[..8.min(place.stage.key.len())],
        pipeline,
        controlnet: place.outside("controlnet"),
        real,
        patients,
        device: place.device,
        progress: place.progress,
        label: &place.stage.label,
    }
}

/// The images again, with predicted masks, which the manifest calls so.
fn pseudo_masks(place: &Place, settings: &spec::Segmentation) -> Result<()> {
    let manifest = place.manifest()?;
    let samples = Samples::read(&manifest, Split::Train, None, None)?;
    let bar = place.progress.bar(samples.len() as u64, &place.stage.label, "images");
    let network = place.artifact("network")?.join(train::WEIGHTS);
    let masks = networks::masks(settings, &network, &samples, place.device, &bar)?;
    let to = place.out.join(DATA);
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
fn import_synthetic(place: &Place) -> Result<()> {
    let source = place.outside("source").ok_or_else(|| Error::failure("the stage has no folder"))?;
    let to = place.out.join(DATA);
    let mut manifest = match is_manifest_folder(source) {
        true => {
            let manifest = Manifest::read(source)?;
            std::fs::create_dir_all(&to).at_path(&to, "cannot make the folder")?;
            with_bar(place, "images", |p| data::prepare::copy(&manifest, &to, p))?
        }
        false => {
            with_bar(place, "images", |p| data::import::import(data::import::Format::Folder, source, &to, p))?
        }
    };
    for row in &mut manifest.rows {
        row.split = Some(Split::Train);
        row.generator.get_or_insert_with(|| "external".to_owned());
    }
    manifest.write()
}

fn split_of(on: ReportOn) -> Split {
    match on {
        ReportOn::Test => Split::Test,
        ReportOn::Val => Split::Val,
    }
}

/// Gathers what the experiment's networks gave.
fn report_input(place: &Place, spec: &ResolvedSpec) -> Result<ReportInput> {
    let mut input = ReportInput { meta: meta(place, spec)?, ..ReportInput::default() };
    let name = &spec.experiment.name;
    for stage_input in &place.stage.inputs {
        let mut parts = stage_input.role.splitn(2, '/');
        let (what, cell) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        // task/arm/model/seed: an arm may hold slashes, so the others are taken from the ends.
        let Some((task, rest)) = cell.split_once('/') else { continue };
        let mut ends = rest.rsplitn(3, '/');
        let (Some(seed), Some(model), Some(arm)) = (ends.next(), ends.next(), ends.next()) else { continue };
        let seed: Option<u64> = seed.parse().ok();
        let dir = place.artifact(&stage_input.role)?;
        match what {
            "train" => {
                input.models.push(model_of(spec, task, arm, model, seed, summary(dir)?, place)?);
                let curves: Vec<CurvePoint> = results::read_csv(&dir.join(train::CURVES))?;
                input.curves.extend(curves.into_iter().map(|point| CurvePoint {
                    experiment: name.clone(),
                    task: task.into(),
                    arm: arm.into(),
                    model: model.into(),
                    seed,
                    ..point
                }));
            }
            "measure" => {
                let rows: Vec<Measurement> = results::read_csv(&dir.join(networks::MEASUREMENTS))?;
                let rows: Vec<Measurement> = rows
                    .into_iter()
                    .map(|row| Measurement {
                        experiment: name.clone(),
                        task: task.into(),
                        arm: arm.into(),
                        model: model.into(),
                        seed,
                        ..row
                    })
                    .collect();
                if task == "segmentation"
                    && input.panel.is_empty()
                    && (spec.report.pictures || is_phantom(place))
                {
                    input.panel = panel(&rows, dir, &place.artifact("data/segmentation")?.join(DATA))?;
                }
                input.measurements.extend(rows);
            }
            _ => {}
        }
    }
    generators::gather(place, spec, &mut input)?;
    input.published = place.outside("published").map(crate::aggregate::published::read).transpose()?;
    input.lineage = lineage::lineage(place);
    Ok(input)
}

/// What a training stage says of what it trained.
fn summary<T: serde::de::DeserializeOwned>(artifact: &Path) -> Result<T> {
    let file = artifact.join(train::SUMMARY);
    let text = std::fs::read_to_string(&file).at_path(&file, "cannot read")?;
    serde_json::from_str(&text).map_err(|e| Error::failure(format!("not a training summary: {e}")).at(&file))
}

/// How an artifact was made.
fn record(artifact: &Path) -> Option<crate::store::StageRecord> {
    let text = std::fs::read_to_string(artifact.join(crate::store::RECORD)).ok()?;
    serde_json::from_str(&text).ok()
}

/// A phantom's data folders are marked, wherever they came from.
fn is_phantom(place: &Place) -> bool {
    let mut data = place.artifacts.iter().filter(|(role, _)| role.starts_with("data/"));
    data.any(|(_, dir)| data::phantom::is_phantom(&dir.join(DATA)))
}

fn model_of(
    spec: &ResolvedSpec,
    task: &str,
    arm: &str,
    model: &str,
    seed: Option<u64>,
    s: TrainSummary,
    place: &Place,
) -> Result<TrainedModel> {
    let (preset, on) = match task {
        "segmentation" => spec.tasks.segmentation.as_ref().map(|t| (t.preset, t.report_on)),
        _ => spec.tasks.classification.as_ref().map(|t| (t.preset, t.report_on)),
    }
    .ok_or_else(|| Error::failure(format!("the spec has no task {task:?}")))?;
    let manifest = Manifest::read(place.artifact(&format!("data/{task}"))?.join(DATA))?;
    let tested: Vec<_> = manifest.of(split_of(on)).collect();
    let patients: std::collections::BTreeSet<_> = tested.iter().map(|row| &row.patient).collect();
    Ok(TrainedModel {
        task: task.into(),
        arm: arm.into(),
        model: model.into(),
        seed: seed.unwrap_or_default(),
        best_step: s.best_step,
        best_epoch: s.best_epoch,
        best_value: s.best_value.unwrap_or(f64::NAN),
        select_metric: s.select_metric.replace("dice", "Dice"),
        parameters: s.parameters,
        trainable: s.trainable,
        train_images: s.train_images,
        synthetic_images: s.synthetic_images,
        train_patients: s.train_patients,
        val_images: s.val_images,
        val_patients: s.val_patients,
        test_images: tested.len() as u64,
        test_patients: patients.len() as u64,
        epochs: s.epochs,
        steps: s.steps,
        precision: s.precision,
        preset: match preset {
            spec::Preset::Corrected => "corrected",
            spec::Preset::PaperCode => "paper-code",
        }
        .into(),
    })
}

/// Mean Dice of an image, and Dice by structure.
type Scored<'a> = (f64, &'a manifest::Row, Vec<(String, f64)>);

/// The images with the best, the median and the worst mean Dice.
fn panel(rows: &[Measurement], measured: &Path, data: &Path) -> Result<Vec<PanelItem>> {
    let manifest = Manifest::read(data)?;
    let mut scored: Vec<Scored> = manifest
        .rows
        .iter()
        .filter_map(|row| {
            let dice: Vec<(String, f64)> = rows
                .iter()
                .filter(|m| m.metric == "dice" && m.structure != "epi")
                .filter(|m| {
                    m.patient == row.patient && m.view == row.view.as_str() && m.phase == row.phase.as_str()
                })
                .map(|m| (m.structure.clone(), m.value))
                .collect();
            let defined: Vec<f64> = dice.iter().map(|d| d.1).filter(|d| !d.is_nan()).collect();
            let mean = defined.iter().sum::<f64>() / defined.len() as f64;
            (!defined.is_empty()).then_some((mean, row, dice))
        })
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    let seed = rows.first().and_then(|row| row.seed).unwrap_or_default();
    let arm = rows.first().map(|row| row.arm.clone()).unwrap_or_default();
    let mut items = Vec::new();
    for (word, at) in [("Best", 0), ("Median", scored.len() / 2), ("Worst", scored.len().saturating_sub(1))] {
        let Some((mean, row, dice)) = scored.get(at) else { continue };
        let mask = manifest.mask_path(row).ok_or_else(|| Error::failure("a measured image has no mask"))?;
        items.push(PanelItem {
            caption: format!("{word}: {} (arm {arm}, seed {seed}, mean Dice {mean:.3})", row.name()),
            image: Picture::read(&manifest.image_path(row))?,
            truth: Picture::read_mask(&mask)?,
            prediction: Picture::read_mask(
                &measured.join(networks::PREDICTIONS).join(networks::prediction_name(row)),
            )?,
            dice: dice.clone(),
        });
    }
    Ok(items)
}

fn meta(place: &Place, spec: &ResolvedSpec) -> Result<ReportMeta> {
    let (mut settings, mut notes, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    let mut description = String::new();
    let of_tasks = ["segmentation", "classification"].map(|task| format!("data/{task}"));
    let of_generators = spec.generators.keys().map(|name| format!("data/generator {name}"));
    for role in of_tasks.into_iter().chain(of_generators) {
        let Ok(dir) = place.artifact(&role) else { continue };
        let manifest = Manifest::read(dir.join(DATA))?;
        let count = |split: Split| {
            let rows: Vec<_> = manifest.of(split).collect();
            let patients: std::collections::BTreeSet<_> = rows.iter().map(|row| &row.patient).collect();
            format!("{} images of {} patients for {split}", rows.len(), patients.len())
        };
        if description.is_empty() {
            description = format!(
                "{}: {}, {} and {}; split by patient ({}).",
                source_words(spec.data.source),
                count(Split::Train),
                count(Split::Val),
                count(Split::Test),
                split_words(&spec.data.split),
            );
        }
    }
    if let Some(t) = &spec.tasks.segmentation {
        settings.extend(described("segmentation", t));
        if t.report_on == ReportOn::Val {
            warnings.push("Segmentation is reported on the patients that the checkpoint was chosen on (report_on = \"val\"): the figures flatter.".into());
        }
    }
    if let Some(t) = &spec.tasks.classification {
        settings.extend(described("classification", t));
        if t.report_on == ReportOn::Val {
            warnings.push("Classification is reported on the patients that the checkpoint was chosen on (report_on = \"val\"): the figures flatter.".into());
        }
        if t.trainable_parameters > 0 && t.weights.as_os_str().is_empty() {
            warnings.push("The frozen layers of the classifiers hold random weights: trainable_parameters is set, and weights is not.".into());
        }
    }
    let tasks = spec.tasks.segmentation.is_some() || spec.tasks.classification.is_some();
    if tasks && spec.experiment.seeds.len() < 3 {
        notes.push(format!(
            "{} seed(s): too few to speak of the spread between trainings.",
            spec.experiment.seeds.len()
        ));
    }
    if spec.report.pictures && !is_phantom(place) {
        warnings.push(
            "This report shows pictures of patients: mind the data set's terms before it is passed on."
                .into(),
        );
    }
    let mut versions = place.versions.to_vec();
    versions.extend(trained_with(place).into_iter().map(|by| ("networks trained with".to_owned(), by)));
    Ok(ReportMeta {
        name: spec.experiment.name.clone(),
        title: spec.experiment.title.clone(),
        is_phantom: is_phantom(place),
        data_description: description,
        resolved_toml: spec.to_toml(),
        versions,
        commit: place.commit.to_owned(),
        seeds: spec.experiment.seeds.clone(),
        arms: spec.arms.iter().map(arm_info).collect(),
        settings,
        notes,
        warnings,
        samples: spec.report.pictures,
    })
}

/// What an arm is trained on.
fn arm_words(arm: &spec::Arm) -> String {
    let of = match arm.real_fraction {
        1.0 => String::new(),
        fraction => format!(
            " of {} % of the training patients, others for each seed",
            (fraction * 1e4).round() / 100.0
        ),
    };
    let ratio = arm.ratio.unwrap_or_default();
    match (&arm.synthetic, arm.mix, arm.control) {
        (None, _, None) => format!("real images{of} alone"),
        (None, _, Some(_)) => format!(
            "real images{of}, and copies of them, {ratio} for each: as many as with synthetic images, and nothing new"
        ),
        (Some(name), spec::Mix::Together, _) => {
            format!("real images{of}, and for each of them {ratio} of {name}")
        }
        (Some(name), spec::Mix::SyntheticOnly, _) => {
            format!("for each real image{of} {ratio} of {name}, and no real one")
        }
        (Some(name), spec::Mix::Pretrain, _) => {
            let share = (arm.pretrain_share.unwrap_or_default() * 1e4).round() / 100.0;
            format!(
                "first, for {share} % of the training, {ratio} of {name} for each real image; then the real images{of}"
            )
        }
    }
}

fn arm_info(arm: &spec::Arm) -> ArmInfo {
    ArmInfo {
        name: arm.name.clone(),
        what: arm_words(arm),
        synthetic: arm.synthetic.as_ref().map(|name| match arm.mix {
            spec::Mix::Together => name.clone(),
            spec::Mix::SyntheticOnly => format!("{name} alone"),
            spec::Mix::Pretrain => format!("{name}, then real"),
        }),
        ratio: arm.ratio,
        replaces_real: arm.mix == spec::Mix::SyntheticOnly,
        control: arm.control.is_some(),
        real_fraction: arm.real_fraction,
    }
}

/// With what the networks were trained, each kind once: the report may be drawn by another build.
fn trained_with(place: &Place) -> std::collections::BTreeSet<String> {
    let trains = |role: &str| role.starts_with("train/") || role.starts_with("generator/train/");
    let dirs = place.artifacts.iter().filter(|(role, _)| trains(role)).map(|(_, dir)| dir);
    dirs.filter_map(|dir| {
        let record = record(dir)?;
        let versions: Vec<String> =
            record.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        let (commit, device, threads) = (record.commit, record.device, record.threads);
        Some(format!("{}, commit {commit}, {device}, {threads} thread(s)", versions.join(", ")))
    })
    .collect()
}

fn source_words(source: Source) -> &'static str {
    match source {
        Source::Camus => "CAMUS",
        Source::Diffecho => "DiffEcho's PNG folders of CAMUS",
        Source::KaggleH5 => "the Kaggle copy of CAMUS",
        Source::Folder => "a manifest folder",
        Source::Phantom => "the built-in phantom, which is drawn and not measured",
    }
}

fn split_words(split: &spec::Split) -> String {
    let scheme = match split.scheme {
        SplitScheme::Official => "the data set's own".to_owned(),
        SplitScheme::Diffecho => "the first 50 patients apart, as the paper's".to_owned(),
        SplitScheme::Folds => {
            format!("fold {} of {}", split.fold.unwrap_or_default(), split.folds.unwrap_or_default())
        }
        SplitScheme::Random => "at random".to_owned(),
    };
    match split.val_patients {
        Some(n) => format!(
            "{scheme}; its validation patients are held out as test, and {n} training patients validate"
        ),
        None => scheme,
    }
}

/// The settings that a reader asks for, as (name, value).
fn described<T: serde::Serialize>(task: &str, settings: &T) -> Vec<(String, String)> {
    let Ok(serde_json::Value::Object(map)) = serde_json::to_value(settings) else { return Vec::new() };
    map.into_iter()
        .map(|(name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (format!("{task}.{name}"), value)
        })
        .collect()
}
