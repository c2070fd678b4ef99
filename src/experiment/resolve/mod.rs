//! Fills in every default and refuses what cannot be meant.

mod arms;
mod generators;
mod measure;
mod tasks;
#[cfg(test)]
mod tests;

use std::{cell::RefCell, collections::HashSet, path::Path};

use super::{
    Data, DataSection, Experiment, ExperimentSpec, HeldOut, Mix, Phantom, Report, ReportOn, ResolvedSpec,
    Source, SplitScheme, SplitSettings, Tasks,
    origin::{Origin, nearest},
};
use crate::{
    error::{Error, Result},
    vocabulary::{GeneratorCheckpoint, Metric, Precision},
};

/// Resolves a spec that was typed without a file (for tests and for other programs).
pub fn resolve(spec: ExperimentSpec) -> Result<ResolvedSpec> {
    let origin = Origin { file: Path::new("spec"), text: "", sets: &[] };
    let Resolution { spec, missing } = resolve_in(spec, "experiment", &origin, false)?;
    Error::all(missing).map(|()| spec)
}

/// A spec, and the files and folders that it names in vain.
pub struct Resolution {
    pub spec: ResolvedSpec,
    pub missing: Vec<Error>,
}

pub(super) fn resolve_in(
    spec: ExperimentSpec,
    file_stem: &str,
    origin: &Origin,
    bf16: bool,
) -> Result<Resolution> {
    let check = Check { origin, missing: RefCell::default() };
    let experiment = experiment(spec.experiment, file_stem, &check)?;
    let mut generators = generators::resolve(spec.generators, &check)?;
    for generator in generators.values_mut() {
        choose(&mut generator.training.precision, bf16);
    }
    let arms = arms::resolve(&spec.arms, &generators, &check)?;
    let mut segmentation = spec.tasks.segmentation;
    let mut classification = spec.tasks.classification;
    if segmentation.is_none() && classification.is_none() && generators.is_empty() {
        return Err(check.fault(
            "tasks",
            "the spec has no task and no generator",
            "add [tasks.segmentation], [tasks.classification] (an empty table takes every default) or [generators.NAME]",
        ));
    }
    if let Some(size) = spec.data.image_size {
        for slot in [
            segmentation.as_mut().map(|t| &mut t.image_size),
            classification.as_mut().map(|t| &mut t.image_size),
        ]
        .into_iter()
        .flatten()
        {
            slot.get_or_insert(size);
        }
    }
    let tasks = Tasks {
        segmentation: segmentation.map(|typed| tasks::segmentation(typed, &check)).transpose()?,
        classification: classification.map(|typed| tasks::classification(typed, &check)).transpose()?,
    };
    if tasks.segmentation.is_some() && tasks.classification.is_none() {
        for arm in &arms {
            let Some(name) = arm.synthetic.as_ref().filter(|name| !generators[*name].has_masks()) else {
                continue;
            };
            return Err(check.fault(
                &format!("generators.{name}.mode"),
                &format!("segmentation needs masks, and these images have none (arm {:?})", arm.name),
                "use mode = \"text+segmentation\", set pseudo_masks = true, or add [tasks.classification]",
            ));
        }
    }
    let recipes = [
        tasks.segmentation.as_ref().map(|t| ("segmentation", &t.recipe)),
        tasks.classification.as_ref().map(|t| ("classification", &t.recipe)),
    ];
    if let (Some(arm), Some((task, _))) = (
        arms.iter().find(|arm| arm.mix == Mix::Pretrain),
        recipes.into_iter().flatten().find(|(_, recipe)| recipe.length() < 2),
    ) {
        return Err(check.fault(
            &format!("tasks.{task}"),
            &format!("one step or epoch cannot be shared out to both trainings of {:?}", arm.name),
            "train for at least two",
        ));
    }
    if tasks.segmentation.is_none() {
        let needs =
            generators.iter().find_map(|(name, g)| match (g.sampling.pseudo_masks, g.sampling.candidates) {
                _ if g.quality.checkpoint == GeneratorCheckpoint::LabelDice => Some((
                    format!("generators.{name}.checkpoint"),
                    "no segmentation network judges the images",
                )),
                (true, _) => {
                    Some((format!("generators.{name}.pseudo_masks"), "no segmentation network makes them"))
                }
                (false, 2..) => {
                    Some((format!("generators.{name}.candidates"), "no segmentation network compares them"))
                }
                _ => None,
            });
        if let Some((key, problem)) = needs {
            return Err(check.fault(&key, problem, "add [tasks.segmentation]"));
        }
    }
    let measure = measure::resolve(spec.measure, &generators, &check)?;
    let data = data(spec.data, &check)?;
    let tested = recipes.into_iter().flatten().any(|(_, recipe)| recipe.report_on == ReportOn::Test);
    if data.split.test_from == HeldOut::None && tested {
        return Err(check.fault(
            "data.test_from",
            "nobody is held out as test, but a task reports on test patients",
            "choose \"test\" or \"val\", or set report_on = \"val\" in every task (as preset = \"paper-code\" does)",
        ));
    }
    let mut tasks = tasks;
    let recipes = [
        tasks.segmentation.as_mut().map(|task| &mut task.recipe),
        tasks.classification.as_mut().map(|task| &mut task.recipe),
    ];
    recipes.into_iter().flatten().for_each(|recipe| choose(&mut recipe.precision, bf16));
    let report = report(spec.report, &check)?;
    let spec = ResolvedSpec { experiment, data, generators, arms, tasks, measure, report };
    Ok(Resolution { spec, missing: check.missing.into_inner() })
}

/// Puts the numeric type in the place of "auto".
fn choose(precision: &mut Precision, bf16: bool) {
    if *precision == Precision::Auto {
        *precision = if bf16 { Precision::Bf16 } else { Precision::F32 };
    }
}

fn report(typed: super::ReportSection, check: &Check) -> Result<Report> {
    let published = typed.published.unwrap_or_default();
    if !published.as_os_str().is_empty() && !published.is_file() {
        let problem = format!("{} does not exist", published.display());
        check.lacks("report.published", &problem, "experiments/published.toml has the form");
    }
    let margins = typed.margins.unwrap_or_default();
    for (word, margin) in &margins {
        self::margin(word, *margin, check)?;
    }
    Ok(Report { pictures: typed.pictures.unwrap_or(false), published, margins })
}

/// Refuses a margin of no score, and one within which no difference or every difference lies.
fn margin(word: &str, margin: f64, check: &Check) -> Result<()> {
    let key = format!("report.margins.{word}");
    let known = || Metric::compared().map(Metric::spec_word);
    let Some(metric) = Metric::compared().find(|metric| metric.spec_word() == word) else {
        let help = match nearest(word, known()) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("the scores are {}", known().collect::<Vec<_>>().join(", ")),
        };
        return Err(check.fault(&key, "arms are not compared by such a score", &help));
    };
    let is_share = metric.higher_is_better();
    let example = if is_share { "0.01" } else { "1.0" };
    let help = format!(
        "write the largest difference in {} that does not matter, such as {word} = {example}",
        metric.label()
    );
    if !(margin > 0.0 && margin.is_finite()) {
        return Err(check.fault(&key, &format!("a margin of {margin} is not above 0"), &help));
    }
    if is_share && margin >= 1.0 {
        let problem = format!("every difference lies within a margin of {margin}");
        return Err(check.fault(&key, &problem, &help));
    }
    Ok(())
}

struct Check<'a> {
    origin: &'a Origin<'a>,
    missing: RefCell<Vec<Error>>,
}

impl Check<'_> {
    fn fault(&self, key: &str, problem: &str, help: &str) -> Error {
        self.origin.place(key, Error::input(format!("`{key}`: {problem}")).help(help))
    }

    /// A file or folder is missing. The rest is checked all the same, so that all that is missing is reported at once.
    fn lacks(&self, key: &str, problem: &str, help: &str) {
        self.missing.borrow_mut().push(self.fault(key, problem, help));
    }

    fn range(&self, key: &str, value: f64, low: f64, high: f64) -> Result<()> {
        if value.is_finite() && (low..=high).contains(&value) {
            return Ok(());
        }
        Err(self.fault(
            key,
            &format!("{value} is out of range"),
            &format!("choose a value from {low} to {high}"),
        ))
    }
}

fn experiment(typed: super::ExperimentSection, file_stem: &str, check: &Check) -> Result<Experiment> {
    let name = typed.name.unwrap_or_else(|| file_stem.to_owned());
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(fits) {
        return Err(check.fault(
            "experiment.name",
            &format!("{name:?} cannot name a folder"),
            "use letters, digits, - _ and .",
        ));
    }
    if name.len() > 100 {
        let problem = format!("{} letters are too many for a folder's name", name.len());
        return Err(check.fault("experiment.name", &problem, "use at most 100; `title` may be longer"));
    }
    let seeds = typed.seeds.unwrap_or_else(|| vec![0]);
    if seeds.is_empty() {
        return Err(check.fault("experiment.seeds", "the list is empty", "write seeds = [0, 1, 2]"));
    }
    if seeds.iter().collect::<HashSet<_>>().len() != seeds.len() {
        return Err(check.fault("experiment.seeds", "a seed appears twice", "every seed is one repetition"));
    }
    if seeds.iter().any(|&s| s > i64::MAX as u64) {
        return Err(check.fault("experiment.seeds", "a seed is too large", "use seeds below 2^63"));
    }
    Ok(Experiment { title: typed.title.unwrap_or_else(|| name.clone()), name, seeds })
}

fn data(typed: DataSection, check: &Check) -> Result<Data> {
    let source = typed.source.ok_or_else(|| {
        check.fault("data.source", "is missing", "one of camus, diffecho, kaggle-h5, folder, phantom")
    })?;
    let phantom = match (source, typed.phantom.clone()) {
        (Source::Phantom, section) => {
            let section = section.unwrap_or_default();
            let phantom = Phantom {
                patients: section.patients.unwrap_or(50),
                size: section.size.unwrap_or(256),
                seed: section.seed.unwrap_or(0),
            };
            check.range("data.phantom.patients", phantom.patients as f64, 3.0, 9999.0)?;
            check.range("data.phantom.size", phantom.size as f64, 64.0, 1024.0)?;
            Some(phantom)
        }
        (_, Some(_)) => {
            return Err(check.fault(
                "data.phantom",
                "the source is not the phantom",
                "set data.source = \"phantom\" or remove [data.phantom]",
            ));
        }
        (_, None) => None,
    };
    match (source, &typed.root) {
        (Source::Phantom, Some(_)) => {
            return Err(check.fault(
                "data.root",
                "the phantom is drawn, it has no folder",
                "remove `root`, or write the phantom with `synecho data phantom` and use source = \"camus\"",
            ));
        }
        (Source::Phantom, None) => {}
        (_, None) => {
            return Err(check.fault(
                "data.root",
                "is missing",
                "the folder (or file) of the data set, relative to the working folder; or --set data.root=DIR",
            ));
        }
        (_, Some(root)) if !root.exists() => {
            check.lacks(
                "data.root",
                &format!("{} does not exist", root.display()),
                "paths are relative to the working folder; data/README.md says where CAMUS comes from",
            );
        }
        _ => {}
    }
    let scheme = typed.split.unwrap_or(match source {
        Source::Diffecho | Source::KaggleH5 => SplitScheme::Diffecho,
        _ => SplitScheme::Official,
    });
    Ok(Data { source, split: split(scheme, &typed, check)?, root: typed.root, phantom })
}

fn split(scheme: SplitScheme, typed: &DataSection, check: &Check) -> Result<SplitSettings> {
    use SplitScheme::{Diffecho, Folds, Official, Random};
    let unused = |key: &str, set: bool, schemes: &str| {
        if !set {
            return Ok(());
        }
        Err(check.fault(key, "this split does not use it", &format!("it goes with split = {schemes}")))
    };
    let own_test = scheme == Official;
    unused("data.folds", typed.folds.is_some() && scheme != Folds, "\"folds\"")?;
    unused("data.fold", typed.fold.is_some() && scheme != Folds, "\"folds\"")?;
    unused("data.val_fraction", typed.val_fraction.is_some() && scheme != Random, "\"random\"")?;
    unused("data.test_fraction", typed.test_fraction.is_some() && scheme != Random, "\"random\"")?;
    let lacks = matches!(scheme, Folds | Random);
    unused("data.val_patients", typed.val_patients.is_some() && lacks, "\"official\" or \"diffecho\"")?;
    unused("data.test_from", typed.test_from.is_some() && lacks, "\"official\" or \"diffecho\"")?;
    let test_from = typed.test_from.unwrap_or(if scheme == Diffecho { HeldOut::Val } else { HeldOut::Test });
    if scheme == Diffecho && test_from == HeldOut::Test {
        return Err(check.fault(
            "data.test_from",
            "this split has no test patients of its own",
            "use test_from = \"val\": its validation patients are held out as test, and val_patients come from train",
        ));
    }
    if test_from == HeldOut::None && typed.val_patients.is_some() {
        return Err(check.fault(
            "data.val_patients",
            "nobody has to be drawn",
            "it goes with test_from = \"val\"",
        ));
    }
    if own_test && test_from == HeldOut::Test && typed.val_patients.is_some() {
        return Err(check.fault(
            "data.val_patients",
            "the data set has its own validation patients",
            "it goes with test_from = \"val\"",
        ));
    }
    let val_patients = (test_from == HeldOut::Val).then(|| typed.val_patients.unwrap_or(40));
    if let Some(n) = val_patients {
        check.range("data.val_patients", n as f64, 1.0, 1e5)?;
    }
    let fraction = |key: &str, value: Option<f64>| {
        let value = value.unwrap_or(0.1);
        check.range(key, value, 0.001, 0.9).map(|()| value)
    };
    let (val_fraction, test_fraction) = if scheme == Random {
        let val = fraction("data.val_fraction", typed.val_fraction)?;
        let test = fraction("data.test_fraction", typed.test_fraction)?;
        if val + test >= 1.0 {
            return Err(check.fault(
                "data.test_fraction",
                "nothing is left to train on",
                "choose less than 1 together",
            ));
        }
        (Some(val), Some(test))
    } else {
        (None, None)
    };
    let folds = (scheme == Folds).then(|| typed.folds.unwrap_or(5));
    let fold = (scheme == Folds).then(|| typed.fold.unwrap_or(0));
    if let (Some(folds), Some(fold)) = (folds, fold) {
        check.range("data.folds", folds as f64, 3.0, 1000.0)?;
        check.range("data.fold", fold as f64, 0.0, folds as f64 - 1.0)?;
    }
    Ok(SplitSettings {
        scheme,
        test_from,
        val_patients,
        val_fraction,
        test_fraction,
        folds,
        fold,
        seed: typed.split_seed.unwrap_or(0),
    })
}
