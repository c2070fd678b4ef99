//! What networks are trained for.

use super::{Metric, Structure, words};

words! {
    /// The column `task` of results.
    Task {
        Segmentation = "segmentation",
        Classification = "classification",
        /// Rows and curves about a generator: its name is their arm, its mode their model.
        Generation = "generation",
    }
}

impl Task {
    /// The tasks that arms are trained for.
    pub const OF_ARMS: [Self; 2] = [Self::Segmentation, Self::Classification];

    /// The name in a title.
    pub fn title(self) -> &'static str {
        match self {
            Self::Segmentation => "Segmentation",
            Self::Classification => "Classification",
            Self::Generation => "Generation",
        }
    }

    /// The validation score that checkpoints are chosen by, as (metric, column `structure`). Higher is better. None for
    /// generators, whose last weights are taken.
    pub fn selection(self) -> Option<(Metric, &'static str)> {
        match self {
            Self::Segmentation => Some((Metric::Dice, Structure::MEAN)),
            Self::Classification => Some((Metric::Accuracy, "")),
            Self::Generation => None,
        }
    }
}
