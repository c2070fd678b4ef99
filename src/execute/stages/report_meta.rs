//! What a report says of its experiment: data, arms, settings and versions, in words.

use std::collections::BTreeSet;

use super::{
    DATA, Place,
    report_input::{is_phantom, record},
};
use crate::{
    error::Result,
    manifest::{Manifest, Split},
    report::{ArmInfo, ReportMeta},
    spec::{self, ReportOn, ResolvedSpec, Source, SplitScheme},
};

/// The report's head.
pub(super) fn meta(place: &Place, spec: &ResolvedSpec) -> Result<ReportMeta> {
    let (mut settings, mut notes, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    let mut description = String::new();
    let of_tasks = ["segmentation", "classification"].map(|task| format!("data/{task}"));
    let of_generators = spec.generators.keys().map(|name| format!("data/generator {name}"));
    for role in of_tasks.into_iter().chain(of_generators) {
        let Ok(dir) = place.artifact(&role) else { continue };
        let manifest = Manifest::read(dir.join(DATA))?;
        let count = |split: Split| {
            let rows: Vec<_> = manifest.of(split).collect();
            let patients: BTreeSet<_> = rows.iter().map(|row| &row.patient).collect();
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
fn trained_with(place: &Place) -> BTreeSet<String> {
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
