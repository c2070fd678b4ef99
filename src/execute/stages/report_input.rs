//! What an experiment's stages gave, gathered for its report.

use std::{collections::BTreeSet, path::Path};

use super::{DATA, Place, generators, lineage, report_meta::meta, split_of};
use crate::{
    aggregate::{self, TrainedModel},
    data,
    error::{AtPath, Error, Result},
    experiment::{self, ResolvedSpec},
    manifest::{self, Manifest},
    measure::networks,
    picture::Picture,
    report::{PanelItem, ReportInput},
    results::{self, CurvePoint, Measurement, TrainSummary},
    store, train,
};

/// Gathers what the experiment's networks gave.
pub(super) fn report_input(place: &Place, spec: &ResolvedSpec) -> Result<ReportInput> {
    let mut input = ReportInput { meta: meta(place, spec)?, ..ReportInput::default() };
    let name = &spec.experiment.name;
    for stage_input in &place.stage.inputs {
        let mut parts = stage_input.role.splitn(2, '/');
        let (what, cell) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        // task/arm/model/seed: an arm may hold slashes, so the others are taken from the ends.
        let Some((task, rest)) = cell.split_once('/') else { continue };
        let mut ends = rest.rsplitn(3, '/');
        let (Some(seed), Some(model), Some(arm)) = (ends.next(), ends.next(), ends.next()) else { continue };
        let seed: Option<u64> = seed.parse().ok();
        let dir = place.artifact(&stage_input.role)?;
        match what {
            "train" => {
                input.models.push(model_of(spec, task, arm, model, seed, summary(dir)?, place)?);
                let curves: Vec<CurvePoint> = results::read_csv(&dir.join(train::CURVES))?;
                input.curves.extend(curves.into_iter().map(|point| CurvePoint {
                    experiment: name.clone(),
                    task: task.into(),
                    arm: arm.into(),
                    model: model.into(),
                    seed,
                    ..point
                }));
            }
            "measure" => {
                let rows: Vec<Measurement> = results::read_csv(&dir.join(networks::MEASUREMENTS))?;
                let rows: Vec<Measurement> = rows
                    .into_iter()
                    .map(|row| Measurement {
                        experiment: name.clone(),
                        task: task.into(),
                        arm: arm.into(),
                        model: model.into(),
                        seed,
                        ..row
                    })
                    .collect();
                if task == "segmentation"
                    && input.panel.is_empty()
                    && (spec.report.pictures || is_phantom(place))
                {
                    input.panel = panel(&rows, dir, &place.artifact("data/segmentation")?.join(DATA))?;
                }
                input.measurements.extend(rows);
            }
            _ => {}
        }
    }
    generators::gather(place, spec, &mut input)?;
    input.published = place.outside("published").map(aggregate::published::read).transpose()?;
    input.lineage = lineage::lineage(place);
    Ok(input)
}

/// What a training stage says of what it trained.
pub(super) fn summary<T: serde::de::DeserializeOwned>(artifact: &Path) -> Result<T> {
    let file = artifact.join(train::SUMMARY);
    let text = std::fs::read_to_string(&file).at_path(&file, "cannot read")?;
    serde_json::from_str(&text).map_err(|e| Error::failure(format!("not a training summary: {e}")).at(&file))
}

/// How an artifact was made.
pub(super) fn record(artifact: &Path) -> Option<store::StageRecord> {
    let text = std::fs::read_to_string(artifact.join(store::RECORD)).ok()?;
    serde_json::from_str(&text).ok()
}

/// A phantom's data folders are marked, wherever they came from.
pub(super) fn is_phantom(place: &Place) -> bool {
    let mut data = place.artifacts.iter().filter(|(role, _)| role.starts_with("data/"));
    data.any(|(_, dir)| data::phantom::is_phantom(&dir.join(DATA)))
}

fn model_of(
    spec: &ResolvedSpec,
    task: &str,
    arm: &str,
    model: &str,
    seed: Option<u64>,
    s: TrainSummary,
    place: &Place,
) -> Result<TrainedModel> {
    let (preset, on) = match task {
        "segmentation" => spec.tasks.segmentation.as_ref().map(|t| (t.recipe.preset, t.recipe.report_on)),
        _ => spec.tasks.classification.as_ref().map(|t| (t.recipe.preset, t.recipe.report_on)),
    }
    .ok_or_else(|| Error::failure(format!("the spec has no task {task:?}")))?;
    let manifest = Manifest::read(place.artifact(&format!("data/{task}"))?.join(DATA))?;
    let tested: Vec<_> = manifest.of(split_of(on)).collect();
    let patients: BTreeSet<_> = tested.iter().map(|row| &row.patient).collect();
    Ok(TrainedModel {
        task: task.into(),
        arm: arm.into(),
        model: model.into(),
        seed: seed.unwrap_or_default(),
        best_step: s.best_step,
        best_epoch: s.best_epoch,
        best_value: s.best_value.unwrap_or(f64::NAN),
        select_metric: s.select_metric.replace("dice", "Dice"),
        parameters: s.parameters,
        trainable: s.trainable,
        train_images: s.train_images,
        synthetic_images: s.synthetic_images,
        train_patients: s.train_patients,
        val_images: s.val_images,
        val_patients: s.val_patients,
        test_images: tested.len() as u64,
        test_patients: patients.len() as u64,
        epochs: s.epochs,
        steps: s.steps,
        precision: s.precision,
        preset: match preset {
            experiment::Preset::Corrected => "corrected",
            experiment::Preset::PaperCode => "paper-code",
        }
        .into(),
    })
}

/// Mean Dice of an image, and Dice by structure.
type Scored<'a> = (f64, &'a manifest::Row, Vec<(String, f64)>);

/// The images with the best, the median and the worst mean Dice.
fn panel(rows: &[Measurement], measured: &Path, data: &Path) -> Result<Vec<PanelItem>> {
    let manifest = Manifest::read(data)?;
    let mut scored: Vec<Scored> = manifest
        .rows
        .iter()
        .filter_map(|row| {
            let dice: Vec<(String, f64)> = rows
                .iter()
                .filter(|m| m.metric == "dice" && m.structure != "epi")
                .filter(|m| {
                    m.patient == row.patient && m.view == row.view.as_str() && m.phase == row.phase.as_str()
                })
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
            prediction: Picture::read_mask(
                &measured.join(networks::PREDICTIONS).join(networks::prediction_name(row)),
            )?,
            dice: dice.clone(),
        });
    }
    Ok(items)
}
