//! Results of many runs -> rows and tables. Pure: rows in, rows out; no files, no tensors.
//!
//! Two conventions, both stated under the tables:
//! * a mean is taken over images (as CAMUS's own evaluation does), its interval over patients
//!   (one patient's images are not independent);
//! * the spread after `±` is over seeds; with one seed there is none.
//!
//! Two arms are compared patient by patient ([`comparison`]); nothing is called better without a test.

pub mod agreement;
mod answer;
pub mod comparison;
mod comparison_tables;
pub mod convergence;
mod distance_answer;
pub mod equivalence;
mod equivalence_table;
mod groups;
mod judged;
pub mod paired;
pub mod published;
mod question;
mod rows;
pub mod stats;
mod table;
mod tables;
pub mod ventricle;

pub use answer::{Answer, Claim, ScoredArm, TaskResults};
pub use comparison::{ArmInfo, Comparison, Score, Verdict};
pub use comparison_tables::{also, comparison_table, convergence_table};
pub use distance_answer::{MeasuredDistance, distance_answer};
pub use equivalence_table::equivalence_table;
pub use groups::{arms, group};
pub use judged::judged;
pub use question::Question;
pub use rows::{Estimate, Means, estimate, measurements_table, overall_mean, reported_split, sorted_curves};
pub(crate) use rows::{is_image, is_observation};
pub use stats::{BoxStats, RESAMPLES, box_stats};
pub use table::{Table, TableCell, number};
pub(crate) use tables::plural;
pub use tables::{
    classification_tables, failures_table, segmentation_tables, training_images, training_table,
};
pub use ventricle::ventricle_tables;

use serde::{Deserialize, Serialize};

use crate::{
    cell::NetworkCell,
    results::TrainSummary,
    vocabulary::{Metric, Structure, Task},
};

/// The column `model` of rows that compare sets of images whose likeness is known, not a generator's.
pub const REFERENCE: &str = "reference";

/// One trained network, with what is known of its training and its test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainedNetwork {
    pub cell: NetworkCell,
    pub summary: TrainSummary,
    pub test_images: u64,
    pub test_patients: u64,
    /// `corrected` or `paper-code`.
    pub preset: String,
}

impl TrainedNetwork {
    /// The score that the checkpoint was chosen by, for a reader: `mean Dice`, `accuracy`.
    pub fn selection_label(&self) -> String {
        self.summary.select_metric.replace(Metric::Dice.as_str(), Metric::Dice.label())
    }
}

/// A metric's name for a reader, by its word in a task's rows; another word is its own name.
pub fn metric_label<'a>(task: &str, metric: &'a str) -> &'a str {
    let known = task.parse().ok().and_then(|task: Task| Metric::parse(task, metric));
    known.filter(|(known, _)| known.as_str() == metric).map_or(metric, |(known, _)| known.label())
}

/// The order in which structures are shown; what is not a structure comes after, by name.
pub(crate) fn structure_rank(structure: &str) -> (usize, &str) {
    let known = Structure::COLUMNS;
    (known.iter().position(|s| *s == structure).unwrap_or(known.len()), structure)
}
