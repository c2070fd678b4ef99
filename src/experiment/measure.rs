//! `[measure]`: how the images of generators are compared with real ones, beside texture and the judges.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    preset::Preset,
    recipe::{Schedule, TrainingRecipe},
    sections::layered,
    tasks::Classification,
};
use crate::vocabulary::{Convention, Extractor, GeneratorMeasure, Label};

layered! {
    /// The network whose features are compared.
    ExtractorSpec => ExtractorSettings {
        name: Extractor,
        /// Safetensors, for `inception-fid` and `resnet50`.
        weights: PathBuf,
        /// Of `inception-fid`.
        convention: Convention,
        /// Of `domain`: the side of its images in pixels, and how long it is trained.
        image_size: usize,
        epochs: usize,
        learning_rate: f64,
    }
}

layered! {
    /// How the images of generators are compared with real ones.
    MeasureSpec => Measure {
        generators: Vec<GeneratorMeasure>,
        /// Nearest neighbours of precision, recall, density and coverage.
        neighbours: usize,
        /// Subsets of KID, and images in each (fewer where there are fewer images).
        kid_subsets: usize,
        kid_subset_size: usize,
        /// Random halves of the images behind the interval of the Frechet distance; 0: no interval.
        replicates: usize,
        /// Of subsets and replicates.
        seed: u64,
    } tables {
        extractor: ExtractorSpec => ExtractorSettings,
    }
}

impl Default for Measure {
    fn default() -> Self {
        Self {
            generators: GeneratorMeasure::DEFAULT.to_vec(),
            neighbours: 5,
            kid_subsets: 100,
            kid_subset_size: 1000,
            replicates: 100,
            // torch-fidelity's.
            seed: 2020,
            extractor: ExtractorSettings {
                name: Extractor::Domain,
                weights: PathBuf::new(),
                convention: Convention::PytorchFid,
                image_size: 128,
                epochs: 8,
                learning_rate: 0.01,
            },
        }
    }
}

impl ExtractorSettings {
    /// What results call it (column `structure`): a figure in the features of one network never stands for that in
    /// another's.
    pub fn words(&self) -> String {
        match self.name {
            Extractor::InceptionFid => format!("{}, {}", self.name, self.convention),
            name => name.to_string(),
        }
    }

    /// How the `domain` network is trained.
    pub fn domain_training(&self) -> Classification {
        let base = Classification::preset(Preset::Corrected);
        Classification {
            label: Label::ViewPhase,
            recipe: TrainingRecipe {
                image_size: self.image_size,
                epochs: self.epochs,
                learning_rate: self.learning_rate,
                final_learning_rate: self.learning_rate * 0.01,
                schedule: Schedule::CosinePerStep,
                ..base.recipe
            },
            ..base
        }
    }
}
