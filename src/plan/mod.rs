//! From a resolved spec to a graph of stages. Pure: no files, no tensors.
//!
//! A stage's key is a BLAKE3 hash over canonical JSON of what decides its output and nothing else:
//! kind and code version, parameters with seed and numeric type, the keys of its inputs with their
//! roles, and the digests of outside files. Names, paths, device and threads are no part of it.

mod build;
mod key;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

pub use build::{build, generator_cells};
pub use key::{RecordedSampling, params};

use crate::{
    cell::{Fraction, GeneratorCell, NetworkCell},
    experiment::{
        Classification, Generator, Measure, Phantom, ReportOn, ResolvedSpec, Segmentation, SplitSettings,
        TrainingRecipe,
    },
    vocabulary::{Backbone, Source, Task, VIEW_PHASES},
};

/// What kind of thing a stage makes; also the name of its folder in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StageKind {
    /// A data set: phantom, import, resize and split.
    Prepare,
    /// A generator's networks.
    Generator,
    /// Synthetic images.
    Generate,
    /// A task network.
    Train,
    /// What a trained network reaches on held-out patients.
    Measure,
    /// Aggregated tables, figures and the page.
    Report,
}

impl StageKind {
    pub const ALL: [Self; 6] =
        [Self::Prepare, Self::Generator, Self::Generate, Self::Train, Self::Measure, Self::Report];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Generator => "generator",
            Self::Generate => "generate",
            Self::Train => "train",
            Self::Measure => "measure",
            Self::Report => "report",
        }
    }
}

/// Networks, trained on the real images of the generator's patients, that look at its images while it is trained. They
/// are inputs of the stage.
#[derive(Debug, Clone, PartialEq)]
pub struct QualityJudges {
    /// Compares images with their control masks.
    pub segmentation: Option<Segmentation>,
    /// Sees the view, and gives the features for distances.
    pub domain: Classification,
}

impl QualityJudges {
    /// Roles of the inputs.
    pub const SEGMENTATION: &str = "segmentation-judge";
    pub const DOMAIN: &str = "domain-judge";
}

/// What a stage does, with its settings; which of them its output depends on, [`params`] says.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// Draws the phantom in CAMUS's own layout.
    Phantom(Phantom),
    /// Makes a manifest folder at native size.
    Import {
        format: Source,
    },
    /// Resizes and assigns the split.
    Prepare {
        image_size: usize,
        split: SplitSettings,
    },
    /// Trains a generator on the arm's training patients.
    TrainGenerator {
        settings: Box<Generator>,
        patients: Option<Fraction>,
        /// What measures it on the way; none if nothing does.
        judges: Option<Box<QualityJudges>>,
    },
    /// Makes its images.
    Generate {
        settings: Box<Generator>,
        patients: Option<Fraction>,
    },
    /// Takes over images that another program made.
    ImportSynthetic {},
    /// Brings synthetic images to a task's size.
    PrepareSynthetic {
        image_size: usize,
    },
    TrainSegmentation {
        settings: Segmentation,
        mixture: Mixture,
    },
    TrainClassification {
        settings: Classification,
        model: Backbone,
        mixture: Mixture,
    },
    /// Synthetic images, seen by a network that was trained on real ones: do they show what their masks
    /// (or their labels) say?
    JudgeSegmentation {
        settings: Segmentation,
    },
    JudgeClassification {
        settings: Classification,
        model: Backbone,
    },
    /// Gives synthetic images the masks that a network trained on the arm's real images sees in them.
    PseudoMasks {
        settings: Segmentation,
    },
    /// Keeps one of so many images of each mask, by the same network.
    SelectCandidates {
        settings: Segmentation,
        candidates: usize,
    },
    /// Power spectrum of synthetic images over that of the real training images.
    MeasureTexture {},
    /// Compares synthetic images with real ones, by the features of a network.
    MeasureGenerator {
        measure: Measure,
    },
    /// The same for images that tell what the scale is: real ones against real ones, blurred ones, noise.
    MeasureReference {
        measure: Measure,
        /// Images of each view and phase.
        per_class: usize,
    },
    MeasureSegmentation {
        settings: Segmentation,
        on: ReportOn,
    },
    MeasureClassification {
        settings: Classification,
        model: Backbone,
        on: ReportOn,
    },
    Report {
        spec: Box<ResolvedSpec>,
    },
}

impl Work {
    pub fn kind(&self) -> StageKind {
        match self {
            Self::Phantom(_) | Self::Import { .. } | Self::Prepare { .. } => StageKind::Prepare,
            Self::TrainGenerator { .. } => StageKind::Generator,
            Self::Generate { .. } | Self::ImportSynthetic {} | Self::SelectCandidates { .. } => {
                StageKind::Generate
            }
            Self::PrepareSynthetic { .. } | Self::PseudoMasks { .. } => StageKind::Prepare,
            Self::TrainSegmentation { .. } | Self::TrainClassification { .. } => StageKind::Train,
            Self::MeasureSegmentation { .. }
            | Self::MeasureClassification { .. }
            | Self::JudgeSegmentation { .. }
            | Self::JudgeClassification { .. }
            | Self::MeasureTexture {}
            | Self::MeasureGenerator { .. }
            | Self::MeasureReference { .. } => StageKind::Measure,
            Self::Report { .. } => StageKind::Report,
        }
    }

    /// Raised when the code changes what this work gives for the same parameters. Rounding does not count: another
    /// libtorch or CPU rounds otherwise too, and the record has the commit.
    fn version(&self) -> u32 {
        match self {
            Self::Phantom(_) => 1,
            Self::Import { .. } => 1,
            Self::Prepare { .. } => 1,
            Self::TrainGenerator { .. } => 4,
            Self::Generate { .. } => 2,
            Self::ImportSynthetic {} => 1,
            Self::SelectCandidates { .. } => 1,
            Self::PrepareSynthetic { .. } => 1,
            Self::PseudoMasks { .. } => 2,
            Self::JudgeSegmentation { .. } => 2,
            Self::JudgeClassification { .. } => 1,
            Self::MeasureTexture {} => 1,
            Self::MeasureGenerator { .. } => 1,
            Self::MeasureReference { .. } => 1,
            Self::TrainSegmentation { .. } => 1,
            Self::TrainClassification { .. } => 1,
            Self::MeasureSegmentation { .. } => 3,
            Self::MeasureClassification { .. } => 1,
            Self::Report { .. } => 14,
        }
    }

    /// For cost estimates: stages of one class take time in proportion to their units.
    pub fn cost(&self) -> (String, f64) {
        match self {
            Self::Phantom(p) => (format!("phantom {}", p.size), p.patients as f64),
            Self::Import { format } => (format!("import {format:?}"), 1.0),
            Self::Prepare { image_size, .. } => (format!("prepare {image_size}"), 1.0),
            Self::TrainGenerator { settings: s, .. } => (
                format!("generator {}", network_of(s)),
                (s.training.steps * s.training.accumulate * s.training.batch_size) as f64
                    * if s.has_model_per_class() { VIEW_PHASES as f64 } else { 1.0 },
            ),
            Self::Generate { settings: s, .. } => (
                format!("generate {} {:?}", network_of(s), s.sampling.guidance > 1.0),
                (VIEW_PHASES
                    * s.sampling.per_class_images
                    * s.sampling.candidates
                    * s.sampling.sampling_steps) as f64,
            ),
            Self::ImportSynthetic {} => ("import synthetic".into(), 1.0),
            Self::PrepareSynthetic { image_size } => (format!("prepare synthetic {image_size}"), 1.0),
            Self::PseudoMasks { settings: s } => (format!("pseudo-masks {}", s.recipe.image_size), 1.0),
            Self::SelectCandidates { settings: s, .. } => {
                (format!("select candidates {}", s.recipe.image_size), 1.0)
            }
            Self::JudgeSegmentation { settings: s } => {
                (format!("judge segmentation {}", s.recipe.image_size), 1.0)
            }
            Self::JudgeClassification { model, .. } => (format!("judge {model}"), 1.0),
            Self::MeasureTexture {} => ("texture".into(), 1.0),
            Self::MeasureGenerator { measure: m } => (format!("distances {:?}", m.extractor.name), 1.0),
            Self::MeasureReference { measure: m, .. } => {
                (format!("reference distances {:?}", m.extractor.name), 1.0)
            }
            Self::TrainSegmentation { settings: s, mixture } => {
                let r = &s.recipe;
                let network =
                    format!("segmentation {} {} {:?} {:?}", s.model, r.image_size, s.channels, r.precision);
                training_cost(network, r, mixture)
            }
            Self::TrainClassification { settings: s, model, mixture } => {
                let r = &s.recipe;
                let network = format!("classification {model} {} {:?}", r.image_size, r.precision);
                training_cost(network, r, mixture)
            }
            Self::MeasureSegmentation { settings: s, .. } => {
                (format!("measure segmentation {}", s.recipe.image_size), 1.0)
            }
            Self::MeasureClassification { model, .. } => (format!("measure {model}"), 1.0),
            Self::Report { .. } => ("report".into(), 1.0),
        }
    }
}

/// Images seen: by number where steps are given, else in units of all real ones, whose number is not known here.
fn training_cost(network: String, recipe: &TrainingRecipe, mixture: &Mixture) -> (String, f64) {
    match recipe.budget {
        Some(budget) => (format!("{network}, by steps"), (budget.steps * recipe.batch_size) as f64),
        None => (network, recipe.epochs as f64 * mixture.size()),
    }
}

/// What decides a generator's cost per image.
fn network_of(s: &Generator) -> String {
    format!(
        "{:?} {} {:?} {:?} {:?} {:?}",
        s.mode,
        s.image_size,
        s.networks.image_space,
        s.networks.channels,
        s.networks.conditioning,
        s.training.precision
    )
}

/// The images that a task's network is trained on, and the seed of all that is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Mixture {
    /// Fraction of the training patients.
    pub real_fraction: f64,
    /// Further images per real one; None: there are none.
    pub ratio: Option<f64>,
    pub further: Further,
    pub seed: u64,
}

impl Mixture {
    /// Each real image of the patients once.
    pub fn real(real_fraction: f64, seed: u64) -> Self {
        Self { real_fraction, ratio: None, further: Further::Synthetic, seed }
    }

    /// Whether there are synthetic images in it.
    fn takes_synthetic(&self) -> bool {
        self.ratio.is_some() && self.further != Further::DuplicateReal
    }

    /// Images in all, in units of all real training images.
    fn size(&self) -> f64 {
        let real = if self.further == Further::SyntheticOnly { 0.0 } else { 1.0 };
        self.real_fraction * (real + self.ratio.unwrap_or(0.0))
    }
}

/// What `ratio` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Further {
    /// Synthetic images beside the real ones.
    Synthetic,
    /// Synthetic images in place of the real ones.
    SyntheticOnly,
    /// The real ones once more.
    DuplicateReal,
}

/// An earlier stage's artifact, and what it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    pub role: String,
    pub key: String,
}

/// A file or folder of the user's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outside {
    pub role: String,
    pub path: PathBuf,
    pub digest: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// 32 hexadecimal digits.
    pub key: String,
    /// For people: no part of the key.
    pub label: String,
    pub work: Work,
    pub inputs: Vec<Input>,
    pub outside: Vec<Outside>,
}

impl Stage {
    pub fn kind(&self) -> StageKind {
        self.work.kind()
    }
}

/// The stages behind a network's results, by their keys.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkStages {
    pub cell: NetworkCell,
    pub train: String,
    pub measure: String,
}

/// The stages behind a generator's results, by their keys.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratorStages {
    pub cell: GeneratorCell,
    /// The data set at the generator's size.
    pub data: String,
    /// None: it was not trained here.
    pub train: Option<String>,
    /// At the generator's own size.
    pub images: String,
    pub texture: String,
    /// Where the spec has `[measure]`, and the generator was trained on all training patients.
    pub distances: Option<String>,
    /// What networks of the tasks see in its images.
    pub judged: Vec<(Task, String)>,
}

/// Stages in an order in which they can be done, each key once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub stages: Vec<Stage>,
    pub networks: Vec<NetworkStages>,
    pub generators: Vec<GeneratorStages>,
    /// Data sets at the sizes of the tasks.
    pub task_data: BTreeMap<Task, String>,
    /// Distances between sets of images whose likeness is known, by the size of the images.
    pub references: BTreeMap<usize, String>,
}

impl Plan {
    /// A stage by its key.
    pub fn stage(&self, key: &str) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.key == key)
    }

    /// The stage that draws the report.
    pub fn report(&self) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.kind() == StageKind::Report)
    }

    /// Index by key.
    pub fn by_key(&self) -> HashMap<&str, usize> {
        self.stages.iter().enumerate().map(|(i, stage)| (stage.key.as_str(), i)).collect()
    }
}

/// Digests of the user's files that a spec names.
#[derive(Debug, Clone, Default)]
pub struct OutsideDigests {
    pub data: Option<String>,
    /// Whether the data root already is a manifest folder.
    pub data_is_manifest: bool,
    /// By model.
    pub classification_weights: HashMap<Backbone, Outside>,
    pub extractor_weights: Option<String>,
    /// Of the published figures.
    pub published: Option<String>,
    /// Of folders that generators name.
    pub folders: HashMap<PathBuf, String>,
    /// Those of them that hold images with masks.
    pub masked: HashSet<PathBuf>,
}
