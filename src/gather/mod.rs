//! From finished artifacts to what a report is drawn from.
//!
//! [`gather`] walks the plan's cells, reads their artifacts in the store, and puts names and words to them. It computes
//! nothing that a table shows: that is [`crate::aggregate`]'s.

mod description;
mod generators;
mod lineage;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use crate::{
    aggregate::{self, TrainedNetwork},
    cell::NetworkCell,
    error::{AtPath, Error, Result},
    experiment::{ReportOn, ResolvedSpec},
    manifest::{self, DATA, Manifest},
    picture::Picture,
    plan::Plan,
    report::{PanelItem, ReportInput},
    results::{self, CURVES, CurvePoint, MEASUREMENTS, Measurement, PREDICTIONS, SUMMARY},
    store::{RECORD, StageRecord, Store},
    vocabulary::{Metric, Split, Structure, Task},
};

/// A plan whose stages, but for the report, are in the store.
pub struct FinishedPlan<'a> {
    pub spec: &'a ResolvedSpec,
    pub plan: &'a Plan,
    pub store: &'a Store,
    /// The file of published figures.
    pub published: Option<&'a Path>,
    /// (library, version) of the program that draws the report.
    pub versions: &'a [(String, String)],
    pub commit: &'a str,
}

impl FinishedPlan<'_> {
    /// The folder of the artifact with this key.
    fn artifact(&self, key: &str) -> Result<PathBuf> {
        let stage =
            self.plan.stage(key).ok_or_else(|| Error::failure(format!("no stage has the key {key}")))?;
        Ok(self.store.artifact(stage.kind(), key))
    }

    /// The manifest folder in the artifact with this key.
    fn data(&self, key: &str) -> Result<PathBuf> {
        Ok(self.artifact(key)?.join(DATA))
    }

    /// The data set that a task's networks are trained and tested on.
    fn task_data(&self, task: Task) -> Result<PathBuf> {
        let key = self.plan.task_data.get(&task);
        self.data(key.ok_or_else(|| Error::failure(format!("the plan has no data for {task}")))?)
    }

    /// The keys of all data sets of the report, those of tasks first.
    fn data_keys(&self) -> impl Iterator<Item = &String> {
        self.plan.task_data.values().chain(self.plan.generators.iter().map(|stages| &stages.data))
    }

    /// Whether the images are drawn. A phantom's data folders are marked, wherever they came from.
    fn is_phantom(&self) -> bool {
        self.data_keys().any(|key| self.data(key).is_ok_and(|folder| manifest::is_phantom(&folder)))
    }

    /// Whether the report may show pictures.
    fn shows_pictures(&self) -> bool {
        self.spec.report.pictures || self.is_phantom()
    }

    /// How the artifact with this key was made.
    fn record(&self, key: &str) -> Option<StageRecord> {
        let text = std::fs::read_to_string(self.artifact(key).ok()?.join(RECORD)).ok()?;
        serde_json::from_str(&text).ok()
    }
}

/// Gathers what the report of a finished plan is drawn from.
///
/// # Errors
/// An artifact lacks a file, or a file is damaged.
pub fn gather(finished: &FinishedPlan) -> Result<ReportInput> {
    let mut input = ReportInput { meta: description::describe(finished)?, ..ReportInput::default() };
    let experiment = &finished.spec.experiment.name;
    for stages in &finished.plan.networks {
        let NetworkCell { task, arm, model, seed } = &stages.cell;
        let trained = finished.artifact(&stages.train)?;
        input.models.push(trained_network(finished, &stages.cell, &trained)?);
        let curves: Vec<CurvePoint> = results::read_csv(&trained.join(CURVES))?;
        input.curves.extend(curves.into_iter().map(|point| CurvePoint {
            experiment: experiment.clone(),
            task: (*task).into(),
            arm: arm.clone(),
            model: model.clone(),
            seed: Some(*seed),
            ..point
        }));
        let measured = finished.artifact(&stages.measure)?;
        let rows: Vec<Measurement> = results::read_csv(&measured.join(MEASUREMENTS))?;
        let rows: Vec<Measurement> = rows
            .into_iter()
            .map(|row| Measurement {
                experiment: experiment.clone(),
                task: (*task).into(),
                arm: arm.clone(),
                model: model.clone(),
                seed: Some(*seed),
                ..row
            })
            .collect();
        if *task == Task::Segmentation && input.panel.is_empty() && finished.shows_pictures() {
            input.panel = panel(&rows, &measured, &finished.task_data(*task)?)?;
        }
        input.measurements.extend(rows);
    }
    generators::gather(finished, &mut input)?;
    input.published = finished.published.map(aggregate::published::read).transpose()?;
    input.lineage = lineage::lineage(finished);
    Ok(input)
}

/// What a training stage wrote about what it trained.
fn summary<T: serde::de::DeserializeOwned>(artifact: &Path) -> Result<T> {
    let file = artifact.join(SUMMARY);
    let text = std::fs::read_to_string(&file).at_path(&file, "cannot read")?;
    serde_json::from_str(&text).map_err(|e| Error::failure(format!("not a training summary: {e}")).at(&file))
}

fn trained_network(finished: &FinishedPlan, cell: &NetworkCell, artifact: &Path) -> Result<TrainedNetwork> {
    let tasks = &finished.spec.tasks;
    let (preset, on) = match cell.task {
        Task::Segmentation => tasks.segmentation.as_ref().map(|t| (t.preset, t.report_on)),
        _ => tasks.classification.as_ref().map(|t| (t.preset, t.report_on)),
    }
    .ok_or_else(|| Error::failure(format!("the spec has no task {}", cell.task)))?;
    let manifest = Manifest::read(finished.task_data(cell.task)?)?;
    let split = match on {
        ReportOn::Test => Split::Test,
        ReportOn::Val => Split::Val,
    };
    let tested: Vec<_> = manifest.of(split).collect();
    let patients: BTreeSet<_> = tested.iter().map(|row| &row.patient).collect();
    Ok(TrainedNetwork {
        cell: cell.clone(),
        summary: summary(artifact)?,
        test_images: tested.len() as u64,
        test_patients: patients.len() as u64,
        preset: results::word(&preset),
    })
}

/// Mean Dice of an image, and Dice by structure.
type ScoredImage<'a> = (f64, &'a manifest::Row, Vec<(String, f64)>);

/// The images with the best, the median and the worst mean Dice.
fn panel(rows: &[Measurement], measured: &Path, data: &Path) -> Result<Vec<PanelItem>> {
    let manifest = Manifest::read(data)?;
    let mut scored: Vec<ScoredImage> = manifest
        .rows
        .iter()
        .filter_map(|row| {
            let dice: Vec<(String, f64)> = rows
                .iter()
                .filter(|m| m.metric == Metric::Dice && Structure::is_class(&m.structure))
                .filter(|m| m.patient == row.patient && m.view == row.view && m.phase == row.phase)
                .map(|m| (m.structure.clone(), m.value))
                .collect();
            let defined: Vec<f64> = dice.iter().map(|d| d.1).filter(|d| !d.is_nan()).collect();
            let mean = defined.iter().sum::<f64>() / defined.len() as f64;
            (!defined.is_empty()).then_some((mean, row, dice))
        })
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    let seed = rows.first().and_then(|row| row.seed).unwrap_or_default();
    let arm = rows.first().map(|row| row.arm.clone()).unwrap_or_default();
    let mut items = Vec::new();
    for (word, at) in [("Best", 0), ("Median", scored.len() / 2), ("Worst", scored.len().saturating_sub(1))] {
        let Some((mean, row, dice)) = scored.get(at) else { continue };
        let mask = manifest.mask_path(row).ok_or_else(|| Error::failure("a measured image has no mask"))?;
        items.push(PanelItem {
            caption: format!("{word}: {} (arm {arm}, seed {seed}, mean Dice {mean:.3})", row.name()),
            image: Picture::read(&manifest.image_path(row))?,
            truth: Picture::read_mask(&mask)?,
            prediction: Picture::read_mask(&measured.join(PREDICTIONS).join(results::prediction_name(row)))?,
            dice: dice.clone(),
        });
    }
    Ok(items)
}
