//! What networks are trained for.

use super::words;

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
}
