//! Results of many runs -> rows and tables. Pure: rows in, rows out; no files, no tensors.
//!
//! Two conventions, both stated under the tables:
//! * a mean is taken over images (as CAMUS's own evaluation does), its interval over patients
//!   (one patient's images are not independent);
//! * the spread after `±` is over seeds; with one seed there is none.
//!
//! Two arms are compared patient by patient ([`comparison`]); nothing is called better without a test.

pub mod comparison;
mod comparison_tables;
pub mod convergence;
mod groups;
mod judged;
pub mod paired;
pub mod published;
mod rows;
pub mod stats;
mod table;
mod tables;

pub use comparison::{ArmInfo, Comparison, Score, Verdict};
pub use comparison_tables::{also, answer, comparison_table, convergence_table, findings};
pub use groups::{arms, group};
pub use judged::judged;
pub(crate) use rows::is_image;
pub use rows::{Estimate, Means, estimate, measurements_table, overall_mean, reported_split, sorted_curves};
pub use stats::{BoxStats, RESAMPLES, box_stats};
pub use table::{Cell, Table, number};
pub(crate) use tables::plural;
pub use tables::{
    classification_tables, failures_table, segmentation_tables, training_images, training_table,
};

use serde::{Deserialize, Serialize};

/// One trained network, as the tables tell of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainedModel {
    /// `segmentation` or `classification`.
    pub task: String,
    pub arm: String,
    pub model: String,
    pub seed: u64,
    /// Optimizer steps and epochs done when the chosen checkpoint was written.
    pub best_step: u64,
    pub best_epoch: f64,
    /// The chosen checkpoint's value of `select_metric` on the validation patients.
    pub best_value: f64,
    /// What the checkpoint was chosen by, in words (`mean Dice`, `accuracy`).
    pub select_metric: String,
    /// All parameters, and those that were trained.
    pub parameters: u64,
    pub trainable: u64,
    pub train_images: u64,
    /// How many of them are synthetic.
    #[serde(default)]
    pub synthetic_images: u64,
    pub train_patients: u64,
    pub val_images: u64,
    pub val_patients: u64,
    pub test_images: u64,
    pub test_patients: u64,
    /// Trained for, in all.
    pub epochs: f64,
    pub steps: u64,
    /// `f32` or `bf16`.
    pub precision: String,
    /// `corrected` or `paper-code`.
    pub preset: String,
}

/// The order in which structures are told of; what is not listed comes after, by name.
pub const STRUCTURES: [&str; 5] = ["endo", "myo", "epi", "la", "mean"];

/// A structure's name for a reader.
pub fn structure_label(structure: &str) -> &str {
    match structure {
        "endo" => "LV endocardium",
        "myo" => "LV myocardium",
        "epi" => "LV epicardium",
        "la" => "Left atrium",
        "mean" => "Mean",
        other => other,
    }
}

/// A metric's name for a reader.
pub fn metric_label(metric: &str) -> &str {
    match metric {
        "dice" => "Dice",
        "hd" => "HD",
        "hd95" => "HD95",
        "assd" => "ASSD",
        "accuracy" => "Accuracy",
        "precision" => "Precision",
        "recall" => "Recall",
        "f1" => "F1",
        "auc" => "AUC",
        "loss" => "Loss",
        other => other,
    }
}

pub(crate) fn structure_rank(structure: &str) -> (usize, &str) {
    (STRUCTURES.iter().position(|s| *s == structure).unwrap_or(STRUCTURES.len()), structure)
}
