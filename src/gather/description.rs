//! What a report says of its experiment: data, arms, settings and versions, in words.

use std::collections::BTreeSet;

use super::FinishedPlan;
use crate::{
    error::Result,
    experiment::{self, ReportOn, ResolvedSpec, SplitScheme},
    manifest::Manifest,
    report::{ArmInfo, ReportMeta},
    vocabulary::{Split, Task},
};

/// The report's head.
pub(super) fn describe(finished: &FinishedPlan) -> Result<ReportMeta> {
    let spec = finished.spec;
    let (mut settings, mut methods, mut notes, mut warnings) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut description = String::new();
    if let Some(key) = finished.data_keys().next() {
        let manifest = Manifest::read(finished.data(key)?)?;
        let count = |split: Split| {
            let rows: Vec<_> = manifest.of(split).collect();
            let patients: BTreeSet<_> = rows.iter().map(|row| &row.patient).collect();
            format!("{} images of {} patients", rows.len(), patients.len())
        };
        description = format!(
            "{}: {} for training, {} for validation (they choose the checkpoint) and {} for testing, split by patient ({}).",
            spec.data.source.description(),
            count(Split::Train),
            count(Split::Val),
            count(Split::Test),
            split_words(&spec.data.split),
        );
    }
    if let Some(t) = &spec.tasks.segmentation {
        settings.extend(described(Task::Segmentation, t, t.recipe.budget.is_some()));
        methods.push((Task::Segmentation, segmentation_words(t)));
        if t.recipe.report_on == ReportOn::Val {
            warnings.push("Segmentation is tested on the patients that chose the checkpoint (report_on = \"val\"): the scores are too good.".into());
        }
    }
    if let Some(t) = &spec.tasks.classification {
        settings.extend(described(Task::Classification, t, t.recipe.budget.is_some()));
        methods.push((Task::Classification, classification_words(t)));
        if t.recipe.report_on == ReportOn::Val {
            warnings.push("Classification is tested on the patients that chose the checkpoint (report_on = \"val\"): the scores are too good.".into());
        }
        if t.trainable_parameters > 0 && t.weights.as_os_str().is_empty() {
            warnings.push("The frozen layers of the classifiers hold random weights, because trainable_parameters is set and weights is not.".into());
        }
    }
    let tasks = spec.tasks.segmentation.is_some() || spec.tasks.classification.is_some();
    if tasks && spec.experiment.seeds.len() < 3 {
        notes.push(format!(
            "{} seed(s) are too few to estimate the spread between trainings.",
            spec.experiment.seeds.len()
        ));
    }
    if spec.report.pictures && !finished.is_phantom() {
        warnings.push(
            "This report shows pictures of patients: check the terms of the data set before you share it."
                .into(),
        );
    }
    let mut versions = finished.versions.to_vec();
    versions.extend(trained_with(finished).into_iter().map(|by| ("networks trained with".to_owned(), by)));
    Ok(ReportMeta {
        name: spec.experiment.name.clone(),
        title: spec.experiment.title.clone(),
        key: String::new(),
        date: last_training_day(finished),
        is_phantom: finished.is_phantom(),
        source: Some(spec.data.source),
        data_description: description,
        resolved_toml: spec.to_toml(),
        versions,
        commit: finished.commit.to_owned(),
        seeds: spec.experiment.seeds.clone(),
        arms: spec.arms.iter().map(arm_info).collect(),
        methods,
        margins: spec.report.margins.clone(),
        limits: limits(spec),
        settings,
        notes,
        warnings,
        samples: spec.report.pictures,
    })
}

/// What an arm is trained on, and for how long where that is not as long as the others.
fn arm_words(arm: &experiment::Arm) -> String {
    let shorter = arm.budget_share.map(|share| {
        let percent = (share * 1e4).round() / 100.0;
        format!("; trained for {percent} % of the steps of the other arms")
    });
    image_words(arm) + &shorter.unwrap_or_default()
}

fn image_words(arm: &experiment::Arm) -> String {
    let (of, alone) = match arm.real_fraction {
        1.0 => (String::new(), " only"),
        fraction => {
            let percent = (fraction * 1e4).round() / 100.0;
            (format!(" of {percent} % of the training patients (chosen by the seed)"), " only")
        }
    };
    let ratio = arm.ratio.unwrap_or_default();
    let images =
        |of: &str, name: &str| format!("{ratio} per real image{of}, drawn from those of {name} by the seed");
    match (&arm.synthetic, arm.mix, arm.control) {
        (None, _, None) => format!("the real images{of}{alone}"),
        (None, _, Some(_)) => format!(
            "the real images{of} and {ratio} copies of each: as many images as with synthetic ones, but nothing new"
        ),
        (Some(name), experiment::Mix::Together, _) => {
            format!("the real images{of} and synthetic ones, {}", images("", name))
        }
        (Some(name), experiment::Mix::SyntheticOnly, _) => {
            format!("synthetic images only, {}", images(&of, name))
        }
        (Some(name), experiment::Mix::Pretrain, _) => {
            let share = (arm.pretrain_share.unwrap_or_default() * 1e4).round() / 100.0;
            format!(
                "synthetic images only for the first {share} % of the steps, {}; then, from the best checkpoint, the real images{of}{alone}. Each part has its own optimizer and learning-rate schedule",
                images("", name)
            )
        }
    }
}

/// How far the results reach, by the spec. The first sentence of each is short: the head of the page shows it.
fn limits(spec: &ResolvedSpec) -> Vec<String> {
    let mut limits = Vec::new();
    let arms = || spec.arms.iter().filter(|arm| arm.synthetic.is_some());
    let few = arms().filter(|arm| arm.real_fraction < 1.0).count();
    let trained = arms().any(|arm| {
        let settings = arm.synthetic.as_ref().and_then(|name| spec.generators.get(name));
        settings.is_some_and(experiment::Generator::is_trained)
    });
    if trained && few < arms().count() {
        limits.push("Each generator of all training patients was trained once. The seeds vary the networks and the choice of images, not the generator.".to_owned());
    }
    if trained && few > 0 {
        limits.push("The spread over seeds mixes patients, generators and networks. A generator of fewer patients was trained for each seed, on the patients of that seed.".to_owned());
    }
    let masked = |g: &&experiment::Generator| g.takes_masks();
    let from_masks: Vec<_> =
        arms().filter_map(|arm| spec.generators.get(arm.synthetic.as_ref()?)).filter(masked).collect();
    if !from_masks.is_empty() {
        let moved = if from_masks.iter().all(|g| g.sampling.vary_masks && g.augment.enabled) {
            ", moved, turned and scaled"
        } else {
            ""
        };
        limits.push(format!("Synthetic images made from masks show no new anatomy. Their masks come from training patients{moved}."));
    }
    let tasks = [
        spec.tasks.segmentation.as_ref().map(|t| t.recipe.budget.is_some()),
        spec.tasks.classification.as_ref().map(|t| t.recipe.budget.is_some()),
    ];
    if arms().next().is_some() && tasks.contains(&Some(true)) {
        let copies = match spec.arms.iter().any(|arm| arm.control.is_some()) {
            true => " An arm with copies sees it as often as without them.",
            false => "",
        };
        limits.push(format!("All arms train for equally many steps, so an arm with synthetic images sees each real image less often. With one synthetic image per real one it sees each real image half as often.{copies} A difference shows the effect of replacing a part of the training, not of adding to it. No arm separates how much of it comes from seeing real images less often."));
    }
    if arms().next().is_some() && tasks.contains(&Some(false)) {
        limits.push("All arms train for equally many epochs, so an arm with more images takes more steps. Compare it with copies of real images (duplicate-real), which take as many steps.".to_owned());
    }
    limits
}

fn arm_info(arm: &experiment::Arm) -> ArmInfo {
    ArmInfo {
        name: arm.name.clone(),
        what: arm_words(arm),
        synthetic: arm.synthetic.as_ref().map(|name| match arm.mix {
            experiment::Mix::Together => name.clone(),
            experiment::Mix::SyntheticOnly => format!("{name} only"),
            experiment::Mix::Pretrain => format!("{name}, then real"),
        }),
        ratio: arm.ratio,
        replaces_real: arm.mix == experiment::Mix::SyntheticOnly,
        control: arm.control.is_some(),
        real_fraction: arm.real_fraction,
    }
}

/// The day on which the last network was trained, `2026-11-30` (UTC); empty where no record has it.
fn last_training_day(finished: &FinishedPlan) -> String {
    let ends = training_keys(finished).filter_map(|key| Some(finished.record(key)?.finished));
    let last = ends.max().unwrap_or_default();
    last.split('T').next().unwrap_or_default().to_owned()
}

/// The stages that trained a network of a task or a generator.
fn training_keys<'a>(finished: &'a FinishedPlan) -> impl Iterator<Item = &'a String> {
    let networks = finished.plan.networks.iter().map(|stages| &stages.train);
    networks.chain(finished.plan.generators.iter().filter_map(|stages| stages.train.as_ref()))
}

/// The versions behind the networks, each once: another build may draw the report.
fn trained_with(finished: &FinishedPlan) -> BTreeSet<String> {
    training_keys(finished)
        .filter_map(|key| {
            let record = finished.record(key)?;
            let versions: Vec<String> =
                record.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
            let (commit, device, threads) = (record.commit, record.device, record.threads);
            Some(format!("{}, commit {commit}, {device}, {threads} thread(s)", versions.join(", ")))
        })
        .collect()
}

fn split_words(split: &experiment::SplitSettings) -> String {
    let scheme = match split.scheme {
        SplitScheme::Official => "the official split".to_owned(),
        SplitScheme::Diffecho => "the first 50 patients set aside, as in the paper".to_owned(),
        SplitScheme::Folds => {
            format!("fold {} of {}", split.fold.unwrap_or_default(), split.folds.unwrap_or_default())
        }
        SplitScheme::Random => "at random".to_owned(),
    };
    match split.val_patients {
        Some(n) => format!(
            "{scheme}; its validation patients are the test patients here,{} and {n} of its training patients, drawn at random (seed {}), are the validation patients",
            if split.scheme == SplitScheme::Official { " its own test patients are not used," } else { "" },
            split.seed
        ),
        None => scheme,
    }
}

/// A task's training in words; counts of parameters, patients and steps come from what was trained.
fn segmentation_words(t: &experiment::Segmentation) -> String {
    let loss = match t.loss {
        experiment::SegmentationLoss::CrossEntropy => "weighted cross-entropy",
        experiment::SegmentationLoss::DiceCrossEntropy => "weighted cross-entropy plus soft Dice",
    };
    let mut more = String::new();
    if t.deep_supervision > 1 {
        more += &format!(
            "; supervised at {} resolutions, each next one with half the weight",
            t.deep_supervision
        );
    }
    if t.clip > 0.0 {
        more += &format!("; gradients limited to a norm of {}", t.clip);
    }
    if t.ema > 0.0 {
        more += &format!("; weights averaged with a decay of {}", t.ema);
    }
    if t.flip_test {
        more += "; predictions averaged with those of the mirror image";
    }
    if t.largest_component {
        more += "; only the largest piece of each structure kept";
    }
    format!(
        "{network} from random weights, channels {}; images resized to {size} × {size} px regardless of their shape, grey values scaled to −1 to 1; {loss}; {}, {}; {}{more}",
        t.channels.iter().map(i64::to_string).collect::<Vec<_>>().join(", "),
        t.update_rule(),
        rate_words(&t.recipe),
        augment_words(&t.recipe.augment),
        size = t.recipe.image_size,
        network = t.model.label(),
    )
}

fn classification_words(t: &experiment::Classification) -> String {
    let weights = match t.weights.as_os_str().is_empty() {
        true => "from random weights",
        false => "from given weights",
    };
    format!(
        "{weights}, classes {}; images resized to {size} × {size} px regardless of their shape; cross-entropy; {}, {}; {}",
        t.label.classes().join(", "),
        t.update_rule(),
        rate_words(&t.recipe),
        augment_words(&t.recipe.augment),
        size = t.recipe.image_size,
    )
}

fn rate_words(recipe: &experiment::TrainingRecipe) -> String {
    let (from, to) = (recipe.learning_rate, recipe.final_learning_rate);
    let (warmup, batch) = (recipe.warmup_steps, recipe.batch_size);
    let way = match recipe.schedule {
        experiment::Schedule::Constant => format!("learning rate {from}"),
        experiment::Schedule::Cosine => {
            format!("learning rate from {from} to {to} by half a cosine, epoch by epoch")
        }
        experiment::Schedule::CosinePerStep => format!("learning rate from {from} to {to} by half a cosine"),
        experiment::Schedule::Polynomial => {
            format!("learning rate from {from} to {to} by the power 0.9 of what is left")
        }
        experiment::Schedule::CosinePeriodInEpochsSteppedPerBatch => {
            format!("learning rate oscillating between {from} and {to} (a fault of the paper's code)")
        }
    };
    let warmup = if warmup > 0 { format!(" after {warmup} steps of warm-up") } else { String::new() };
    format!("{way}{warmup}, batches of {batch}")
}

fn augment_words(a: &experiment::Augment) -> String {
    if !a.enabled {
        return "no augmentation".to_owned();
    }
    let unit = match a.translate_unit {
        experiment::TranslateUnit::Fraction => "of the side",
        experiment::TranslateUnit::Pixels => "px",
    };
    let mut greys = vec![format!("brightness (± {})", a.brightness), format!("contrast (± {})", a.contrast)];
    if a.gamma > 0.0 {
        greys.push(format!("gamma (exp(± {}))", a.gamma));
    }
    if a.noise > 0.0 {
        greys.push(format!("noise (deviation up to {})", a.noise));
    }
    let last = greys.pop().unwrap_or_default();
    format!(
        "random rotation (± {}°), shift (± {} {unit}), scale (± {}), shear (± {}°), {} and {last}",
        a.rotate,
        a.translate,
        a.scale,
        a.shear,
        greys.join(", ")
    )
}

/// The settings of a task, as (name, value). With a budget, settings that count epochs have no effect.
fn described<T: serde::Serialize>(task: Task, settings: &T, budget: bool) -> Vec<(String, String)> {
    let Ok(serde_json::Value::Object(map)) = serde_json::to_value(settings) else { return Vec::new() };
    map.into_iter()
        .filter(|(name, _)| !budget || !["epochs", "validate_every"].contains(&name.as_str()))
        .map(|(name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (format!("{task}.{name}"), value)
        })
        .collect()
}
