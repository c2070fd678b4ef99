//! The experiment spec: as typed ([`ExperimentSpec`]) and as resolved ([`ResolvedSpec`], every default
//! filled in, saved beside the results). No later part of the program reads the TOML.

mod augment;
mod generators;
mod measure;
mod origin;
mod preset;
mod read;
mod recipe;
mod resolve;
mod sections;
mod tasks;

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::vocabulary::Source;

pub use augment::{Augment, AugmentSpec, Interpolation, TranslateUnit};
pub use generators::{
    Generator, GeneratorNetworks, GeneratorPreset, GeneratorPrompts, GeneratorQuality, GeneratorSampling,
    GeneratorSchedule, GeneratorSource, GeneratorSpec, GeneratorTraining, ImageSpace, MaskConditioning,
};
pub use measure::{ExtractorSettings, ExtractorSpec, Measure, MeasureSpec};
pub use preset::Preset;
pub use read::{load, load_with_missing, parse};
pub use recipe::{Budget, ReportOn, Schedule, TrainingRecipe, UpdateRule};
pub use resolve::{Resolution, resolve};
pub use tasks::{
    Classification, ClassificationSpec, Freeze, Segmentation, SegmentationLoss, SegmentationSpec,
    checkpoints_in,
};

/// The spec as typed. Every field may be missing; [`resolve`] reports those that are needed.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExperimentSpec {
    #[serde(default)]
    pub experiment: ExperimentSection,
    #[serde(default)]
    pub data: DataSection,
    /// By name.
    #[serde(default)]
    pub generators: BTreeMap<String, GeneratorSpec>,
    #[serde(default)]
    pub arms: Vec<ArmSection>,
    #[serde(default)]
    pub tasks: TasksSection,
    pub measure: Option<MeasureSpec>,
    #[serde(default)]
    pub report: ReportSection,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExperimentSection {
    pub name: Option<String>,
    pub title: Option<String>,
    pub seeds: Option<Vec<u64>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    pub source: Option<Source>,
    pub root: Option<PathBuf>,
    pub image_size: Option<usize>,
    pub split: Option<SplitScheme>,
    pub test_from: Option<HeldOut>,
    pub val_patients: Option<usize>,
    pub val_fraction: Option<f64>,
    pub test_fraction: Option<f64>,
    pub folds: Option<usize>,
    pub fold: Option<usize>,
    pub split_seed: Option<u64>,
    pub phantom: Option<PhantomSection>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhantomSection {
    pub patients: Option<usize>,
    pub size: Option<usize>,
    pub seed: Option<u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmSection {
    pub name: Option<String>,
    pub real_fraction: Option<OneOrMany<f64>>,
    /// A generator's name.
    pub synthetic: Option<String>,
    pub ratio: Option<OneOrMany<f64>>,
    pub control: Option<Control>,
    pub mix: Option<Mix>,
    pub pretrain_share: Option<f64>,
    pub budget_share: Option<f64>,
}

/// An arm without synthetic images, whose result they have to beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Control {
    /// Real images once more, `ratio` of them for each real one: as many images, nothing new in them.
    DuplicateReal,
}

/// How an arm's synthetic images are trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mix {
    /// Together with the real ones.
    #[default]
    Together,
    /// Alone: `ratio` counts them per real image that the arm would have.
    SyntheticOnly,
    /// First, and the real ones after them.
    Pretrain,
}

impl Mix {
    fn is_together(&self) -> bool {
        *self == Self::Together
    }
}

/// A number, or a list of them: a list is a sweep.
#[derive(Debug, Clone)]
pub enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Visitor<T> {
            type Value = OneOrMany<T>;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a number or a list of numbers")
            }
            fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Self::Value, E> {
                T::deserialize(serde::de::value::F64Deserializer::new(v)).map(OneOrMany::One)
            }
            fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<Self::Value, E> {
                T::deserialize(serde::de::value::I64Deserializer::new(v)).map(OneOrMany::One)
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(OneOrMany::Many(items))
            }
        }
        deserializer.deserialize_any(Visitor(std::marker::PhantomData))
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TasksSection {
    pub segmentation: Option<SegmentationSpec>,
    pub classification: Option<ClassificationSpec>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportSection {
    /// Pictures of images in the report: only ever shown for the phantom unless this is true.
    pub pictures: Option<bool>,
    /// Published figures to show beside ours, each with its source.
    pub published: Option<PathBuf>,
    /// Differences of a score that count as none, by its word.
    pub margins: Option<BTreeMap<String, f64>>,
}

/// Who trains, validates and tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SplitScheme {
    /// The data set's own split (CAMUS: 400 / 50 / 50).
    Official,
    /// The first 50 patients validate, the rest train; it has no test set.
    Diffecho,
    /// `folds` parts by patient; part `fold` tests, the next validates.
    Folds,
    /// `val_fraction` and `test_fraction` of the patients, drawn by `split_seed`.
    Random,
}

/// Which of the data set's splits is held out as test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeldOut {
    Test,
    /// Its validation patients; its own test patients, if any, take no part.
    Val,
    /// Nobody, as in the paper: only where every task reports on its validation patients.
    None,
}

impl HeldOut {
    fn is_test(&self) -> bool {
        *self == Self::Test
    }
}

/// An experiment with every default filled in.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ResolvedSpec {
    pub experiment: Experiment,
    pub data: Data,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub generators: BTreeMap<String, Generator>,
    pub arms: Vec<Arm>,
    pub tasks: Tasks,
    /// None: of generators only texture is measured, and what judges see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measure: Option<Measure>,
    pub report: Report,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Experiment {
    pub name: String,
    pub title: String,
    pub seeds: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Data {
    pub source: Source,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// Written as the fields of `[data]` that it was typed as.
    #[serde(flatten)]
    pub split: SplitSettings,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phantom: Option<Phantom>,
}

/// The split, resolved: parts that a scheme does not use are absent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SplitSettings {
    #[serde(rename = "split")]
    pub scheme: SplitScheme,
    #[serde(skip_serializing_if = "HeldOut::is_test")]
    pub test_from: HeldOut,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_patients: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_fraction: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_fraction: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folds: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fold: Option<usize>,
    #[serde(rename = "split_seed")]
    pub seed: u64,
}

/// What decides the simulated data set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Phantom {
    pub patients: usize,
    /// Height of the pictures in pixels; they are wider than high, as CAMUS's are.
    pub size: usize,
    pub seed: u64,
}

/// One row of a table: which real patients, plus which synthetic images at which ratio.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Arm {
    pub name: String,
    /// Fraction of the training patients, in (0, 1].
    pub real_fraction: f64,
    /// A generator's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synthetic: Option<String>,
    /// Synthetic (or duplicate) images per real one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<Control>,
    #[serde(skip_serializing_if = "Mix::is_together")]
    pub mix: Mix,
    /// With `mix = "pretrain"`: which part of the training (steps or epochs) goes to the synthetic images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pretrain_share: Option<f64>,
    /// Which part of the task's steps or epochs it is trained for, where not for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_share: Option<f64>,
}

impl Arm {
    /// Whether it is trained on real images only, each of them once, for as long as the task says.
    pub fn is_real(&self) -> bool {
        self.synthetic.is_none() && self.control.is_none() && self.budget_share.is_none()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tasks {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segmentation: Option<Segmentation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classification: Option<Classification>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub pictures: bool,
    /// Empty: none are shown.
    #[serde(skip_serializing_if = "is_empty")]
    pub published: PathBuf,
    /// By the score's word; above 0. Empty: equivalence is not tested.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub margins: BTreeMap<String, f64>,
}

fn is_empty(path: &std::path::Path) -> bool {
    path.as_os_str().is_empty()
}

impl ResolvedSpec {
    /// The arm whose networks judge synthetic images: all real images and nothing else.
    pub fn judge(&self) -> Option<&Arm> {
        self.arms.iter().find(|arm| arm.is_real() && arm.real_fraction == 1.0)
    }

    /// The resolved spec as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_else(|e| format!("# cannot be shown: {e}\n"))
    }
}
