//! The generators of an experiment: what each is, its images, and what was measured on them.

pub(super) mod closeness;
pub mod distances;
mod loss;
mod quality;
mod samples;
mod tables;
mod texture;

use serde::{Deserialize, Serialize};

use super::{Figure, ReportInput};
use crate::{
    aggregate::Table,
    picture::Picture,
    results::{GeneratorSummary, Measurement},
    vocabulary::{Metric, Task},
};

/// What the names of generators' figures and tables begin with.
pub const GENERATORS: &str = "generators";

/// One generator. Measured values are among the report's rows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReportedGenerator {
    pub name: String,
    /// As a spec writes it.
    pub mode: String,
    /// None: it was not trained here.
    pub summary: Option<GeneratorSummary>,
    /// Whether a generator that was not trained here names the patients that its images come from.
    pub names_patients: bool,
    /// Each class has a model of its own.
    pub own_models: bool,
    /// How many it made.
    pub images: u64,
    /// Words: how the images were sampled, what each was made from, and the same under the sample figure.
    pub sampling: String,
    pub made_from: String,
    pub lineage: String,
    pub training_cost: Option<Cost>,
    pub sampling_cost: Option<Cost>,
    /// Shown only of a phantom, or where [`super::ReportMeta::samples`] asks for it.
    pub samples: Vec<SampleRow>,
    /// Likewise.
    pub nearest: Vec<NearestPictures>,
}

/// A synthetic image and the training image that it is nearest to by its features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NearestPictures {
    pub synthetic: Picture,
    pub training: Picture,
    pub distance: f64,
}

/// Measured, so it differs between runs. Only the table of costs shows it: the rest of a report has the same bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Wall time.
    pub seconds: f64,
    /// Device and threads.
    pub on: String,
}

/// One class of the sample figure.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SampleRow {
    /// `2CH ED`
    pub class: String,
    pub real: Vec<Picture>,
    pub synthetic: Vec<Synthetic>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Synthetic {
    pub image: Picture,
    /// Class indices.
    pub control: Option<Picture>,
}

/// A network that was trained on real images only and looks at synthetic ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judge {
    pub task: Task,
    pub arm: String,
    pub model: String,
    pub seed: u64,
    /// What its classes are, in words; empty for segmentation.
    pub label: String,
}

pub(super) fn tables(input: &ReportInput, rows: &[Measurement]) -> Vec<Table> {
    let mut tables = tables::tables(input, rows);
    // Measured times come last.
    let costs = tables.pop_if(|table| table.name == tables::COSTS);
    tables.extend(distances::tables(input, rows));
    tables.extend(costs);
    tables
}

pub(super) fn figures(input: &ReportInput, rows: &[Measurement]) -> Vec<Figure> {
    let closeness = closeness::Closeness::of(input, rows).map(|closeness| closeness.figure());
    let mut figures: Vec<Figure> = closeness.into_iter().collect();
    figures.extend(texture::figure(input, rows));
    figures.extend(quality::figure(input));
    figures.extend(loss::figure(input));
    if input.meta.is_phantom || input.meta.samples {
        figures.extend(input.generators.iter().filter_map(samples::figure));
        figures.extend(input.generators.iter().filter_map(samples::nearest));
    }
    figures
}

/// A generator's value over all its images.
pub(super) fn over_all<'a>(
    rows: &'a [Measurement],
    generator: &ReportedGenerator,
    structure: &str,
    metric: Metric,
) -> Option<&'a Measurement> {
    derived(rows, generator, structure, metric.as_str())
}

/// A generator's derived figure (`dice_sd`) over all its images.
fn derived<'a>(
    rows: &'a [Measurement],
    generator: &ReportedGenerator,
    structure: &str,
    word: &str,
) -> Option<&'a Measurement> {
    let is_over_all = |r: &&Measurement| r.structure == structure && r.view.is_empty() && r.phase.is_empty();
    of(rows, generator, word).find(is_over_all)
}

/// A generator's rows of a metric, by its word.
fn of<'a>(
    rows: &'a [Measurement],
    generator: &ReportedGenerator,
    word: &str,
) -> impl Iterator<Item = &'a Measurement> {
    rows.iter().filter(move |r| r.task == Task::Generation && r.arm == generator.name && r.metric == word)
}

/// `64`, `40 to 64`: how many there are of one thing and another.
pub(super) fn span(counts: impl Iterator<Item = u64> + Clone) -> String {
    match (counts.clone().min(), counts.max()) {
        (Some(low), Some(high)) if low < high => format!("{low} to {high}"),
        (_, high) => high.unwrap_or_default().to_string(),
    }
}
