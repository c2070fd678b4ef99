//! The experiment's generators, for the report.

use std::{collections::HashSet, path::Path};

use super::{FinishedPlan, summary};
use crate::{
    aggregate,
    error::{Error, Result},
    experiment,
    manifest::{DATA, Manifest, Row, patient_of},
    picture::Picture,
    pipeline::training_patients,
    plan::{GeneratorStages, Work},
    report::{
        ReportInput,
        generators::{
            Cost, Judge, NearestPictures, ReportedGenerator, SampleRow, Synthetic,
            distances::DistanceSettings,
        },
    },
    results::{self, CURVES, CurvePoint, MEASUREMENTS, Measurement, NEAREST, NearestPair, Selection},
    samples::class_of,
    vocabulary::{KeptPart, Label, Mode, Phase, Split, Task, View},
};

/// Pictures of each class on either side of the sample figure; fewer where masks stand between them.
const PICTURES: usize = 4;
const PICTURES_WITH_MASKS: usize = 3;

/// Adds every generator of the plan to the report's input.
pub(super) fn gather(finished: &FinishedPlan, input: &mut ReportInput) -> Result<()> {
    let spec = finished.spec;
    if spec.generators.is_empty() {
        return Ok(());
    }
    let mut shown = HashSet::new();
    for stages in &finished.plan.generators {
        let settings = &spec.generators[&stages.cell.name];
        let identity = RowIdentity {
            experiment: spec.experiment.name.clone(),
            arm: stages.cell.label(),
            model: settings.mode.to_string(),
            seed: settings.seed,
        };
        let real = Manifest::read(finished.data(&stages.data)?)?;
        let made = Manifest::read(finished.artifact(&stages.images)?.join(DATA))?;
        let mut generator = described(finished, stages, settings, &made)?;
        if let Some(key) = &stages.train {
            let points: Vec<CurvePoint> = results::read_csv(&finished.artifact(key)?.join(CURVES))?;
            input.curves.extend(points.into_iter().map(|point| identity.point(point)));
        }
        input.measurements.extend(measured(finished, stages)?.into_iter().map(|row| identity.row(row)));
        // One figure of a generator, however often it was trained.
        if finished.shows_pictures() && shown.insert(&stages.cell.name) {
            generator.samples = samples(&real, &made)?;
            if let Some(key) = &stages.distances {
                generator.nearest = nearest(&finished.artifact(key)?.join(NEAREST), &real, &made)?;
            }
        }
        input.generators.push(generator);
    }
    input.judges = judges(finished);
    input.distances = references(finished, input)?;
    Ok(())
}

/// The columns that say which generator a row is of.
struct RowIdentity {
    experiment: String,
    arm: String,
    model: String,
    seed: u64,
}

impl RowIdentity {
    fn row(&self, row: Measurement) -> Measurement {
        Measurement {
            experiment: self.experiment.clone(),
            task: Task::Generation.into(),
            arm: self.arm.clone(),
            model: self.model.clone(),
            seed: Some(self.seed),
            ..row
        }
    }

    fn point(&self, point: CurvePoint) -> CurvePoint {
        CurvePoint {
            experiment: self.experiment.clone(),
            task: Task::Generation.into(),
            arm: self.arm.clone(),
            model: self.model.clone(),
            seed: Some(self.seed),
            ..point
        }
    }
}

/// A generator in words and counts, without what was measured.
fn described(
    finished: &FinishedPlan,
    stages: &GeneratorStages,
    settings: &experiment::Generator,
    made: &Manifest,
) -> Result<ReportedGenerator> {
    let mut generator = ReportedGenerator {
        name: stages.cell.label(),
        mode: settings.mode.to_string(),
        own_models: settings.has_model_per_class(),
        images: made.rows.len() as u64,
        sampling: sampling(settings),
        names_patients: names_patients(settings, made)?,
        made_from: made_from(settings, made),
        lineage: lineage(settings, made),
        ..ReportedGenerator::default()
    };
    if settings.sampling.candidates > 1 {
        let selection = Selection::read(&finished.artifact(&stages.images)?)?;
        generator.made_from += &format!("; {}", selected(settings.sampling.candidates, &selection));
    }
    if settings.mode != Mode::External {
        generator.sampling_cost = cost(finished, sampled(finished, &stages.images));
    }
    if let Some(key) = &stages.train {
        generator.summary = Some(summary(&finished.artifact(key)?)?);
        generator.training_cost = cost(finished, key);
    }
    Ok(generator)
}

/// What was measured of a generator's images.
fn measured(finished: &FinishedPlan, stages: &GeneratorStages) -> Result<Vec<Measurement>> {
    let read = |key: &str| results::read_csv::<Measurement>(&finished.artifact(key)?.join(MEASUREMENTS));
    let mut rows = Vec::new();
    for (_, key) in &stages.judged {
        // Rows of single images would only fill the report.
        rows.extend(aggregate::judged(&read(key)?)?);
    }
    for key in std::iter::once(&stages.texture).chain(&stages.distances) {
        rows.extend(read(key)?);
    }
    Ok(rows)
}

/// The synthetic images that are nearest to training images by the extractor's features, beside these.
fn nearest(file: &Path, real: &Manifest, made: &Manifest) -> Result<Vec<NearestPictures>> {
    if !file.is_file() {
        return Ok(Vec::new());
    }
    let mut pairs: Vec<NearestPair> = results::read_csv(file)?;
    pairs.retain(|pair| pair.by != "pixels");
    let picture = |manifest: &Manifest, name: &str| -> Result<Picture> {
        let row = manifest.rows.iter().find(|row| row.name() == name);
        let row = row.ok_or_else(|| Error::failure(format!("the image {name} is not there")))?;
        Picture::read(&manifest.image_path(row))
    };
    pairs
        .into_iter()
        .map(|pair| {
            Ok(NearestPictures {
                synthetic: picture(made, &pair.synthetic)?,
                training: picture(real, &pair.training)?,
                distance: pair.distance,
            })
        })
        .collect()
}

/// Adds the distances between sets of images whose likeness is known.
fn references(finished: &FinishedPlan, input: &mut ReportInput) -> Result<Option<DistanceSettings>> {
    let Some(measure) = &finished.spec.measure else { return Ok(None) };
    let by_size = &finished.plan.references;
    let mut references = Vec::new();
    for (size, key) in by_size {
        let rows: Vec<Measurement> = results::read_csv(&finished.artifact(key)?.join(MEASUREMENTS))?;
        for row in rows {
            let arm = if by_size.len() > 1 { format!("{}, {size} px", row.arm) } else { row.arm.clone() };
            if !references.contains(&arm) {
                references.push(arm.clone());
            }
            input.measurements.push(Measurement {
                experiment: finished.spec.experiment.name.clone(),
                task: Task::Generation.into(),
                arm,
                model: aggregate::REFERENCE.into(),
                seed: Some(measure.seed),
                ..row
            });
        }
    }
    Ok(Some(DistanceSettings {
        extractor: measure.extractor.words(),
        network: measure.extractor.name,
        neighbours: measure.neighbours as u64,
        kid_subsets: measure.kid_subsets as u64,
        seed: measure.seed,
        replicates: measure.replicates as u64,
        references,
    }))
}

/// The stage that sampled the images: where some of them were selected, the one before.
fn sampled<'a>(finished: &'a FinishedPlan, images: &'a str) -> &'a str {
    let stage = finished.plan.stages.iter().find(|stage| stage.key == images);
    stage
        .filter(|stage| matches!(stage.work, Work::SelectCandidates { .. }))
        .and_then(|stage| stage.inputs.iter().find(|input| input.role == "data"))
        .map_or(images, |input| &input.key)
}

/// What selecting did, in words.
fn selected(candidates: usize, selection: &Selection) -> String {
    let Selection { kept, dropped, dice_of_kept, dice_of_all } = selection;
    format!(
        "each the best of {candidates} images of its mask, by a segmentation network trained on real images ({dropped} of {} were dropped; the mean Dice with the mask is {dice_of_kept:.3} instead of {dice_of_all:.3})",
        kept + dropped
    )
}

fn cost(finished: &FinishedPlan, key: &str) -> Option<Cost> {
    let record = finished.record(key)?;
    let threads = if record.threads == 1 { "thread" } else { "threads" };
    Some(Cost { seconds: record.seconds, on: format!("{}, {} {threads}", record.device, record.threads) })
}

/// The networks that looked at the images of at least one generator.
fn judges(finished: &FinishedPlan) -> Vec<Judge> {
    let spec = finished.spec;
    let (Some(arm), Some(&seed)) = (spec.judge(), spec.experiment.seeds.first()) else { return Vec::new() };
    let segmentation =
        spec.tasks.segmentation.as_ref().map(|t| (Task::Segmentation, Some(t.model.as_str()), ""));
    let classification = spec.tasks.classification.as_ref().map(|t| {
        let label = match t.label {
            Label::Phase => "phase",
            Label::View => "view",
            Label::ViewPhase => "view and phase",
        };
        (Task::Classification, t.models.first().map(|model| model.as_str()), label)
    });
    let judged = |task: Task| {
        finished.plan.generators.iter().flat_map(|stages| &stages.judged).any(|(of, _)| *of == task)
    };
    segmentation
        .into_iter()
        .chain(classification)
        .filter(|(task, ..)| judged(*task))
        .map(|(task, model, label)| Judge {
            task,
            arm: arm.name.clone(),
            model: model.unwrap_or_default().to_owned(),
            seed,
            label: label.to_owned(),
        })
        .collect()
}

/// `ddim, 50 steps, guidance 2`
fn sampling(settings: &experiment::Generator) -> String {
    if settings.mode == Mode::External {
        return String::new();
    }
    let sampling = &settings.sampling;
    let mut words = format!("{}, {} steps", sampling.scheduler.as_str(), sampling.sampling_steps);
    if !matches!(settings.mode, Mode::Unconditional | Mode::Inpaint) || sampling.guidance > 1.0 {
        words += &format!(", guidance {}", sampling.guidance);
        words += if sampling.guidance == 1.0 { " (none)" } else { "" };
    }
    words
}

/// Whether it is known whose images a generator that was not trained here comes from.
fn names_patients(settings: &experiment::Generator, made: &Manifest) -> Result<bool> {
    Ok(match settings.mode {
        Mode::External => {
            made.rows.iter().all(|row| row.source_mask.as_deref().is_some_and(|m| patient_of(m).is_some()))
        }
        _ if settings.source.pipeline.as_os_str().is_empty() => true,
        _ => !training_patients::read(&settings.source.pipeline)?.is_empty(),
    })
}

/// What the images were made from, in words.
fn made_from(settings: &experiment::Generator, made: &Manifest) -> String {
    let masks: HashSet<&str> = made.rows.iter().filter_map(|row| row.source_mask.as_deref()).collect();
    let of_each = made.rows.len() as f64 / masks.len().max(1) as f64;
    let several = match of_each > 1.0 {
        true => format!(", {of_each:.3} made from each").replace(".000", ""),
        false => String::new(),
    };
    match settings.mode {
        Mode::External => "made by another program".to_owned(),
        Mode::Unconditional => "each sampled from noise for a view and phase".to_owned(),
        Mode::Text => "each from a text that describes a real training image".to_owned(),
        Mode::Inpaint => format!(
            "each from a real training image, of which {} is kept and the rest generated; {} images{several}",
            match settings.sampling.keep {
                KeptPart::Heart => "the annotated heart",
                KeptPart::SectorCentre => "the middle of the sector",
            },
            masks.len()
        ),
        Mode::TextSegmentation => {
            let moved = match settings.sampling.vary_masks {
                true => ", slightly moved, turned and scaled each time",
                false => "",
            };
            format!(
                "each from the mask of a real training image{moved}, and a text that describes that image; {} masks{several}",
                masks.len()
            )
        }
    }
}

/// What an image was made from, under the figure that shows it.
fn lineage(settings: &experiment::Generator, made: &Manifest) -> String {
    let prompt = made.rows.iter().find_map(|row| row.prompt.clone()).unwrap_or_default();
    match settings.mode {
        Mode::External => "Made by another program".to_owned(),
        Mode::Inpaint => "The real image in the same place on the left, of which a part is kept".to_owned(),
        Mode::Unconditional if settings.networks.per_class => "One model per class".to_owned(),
        Mode::Unconditional => "One model, conditioned on the class".to_owned(),
        Mode::Text => format!("Prompts describe real training images; the first: “{prompt}”"),
        Mode::TextSegmentation => {
            let moved = if settings.sampling.vary_masks { ", slightly moved" } else { "" };
            format!(
                "The control mask is that of the real image in the same place on the left{moved}; first prompt: “{prompt}”"
            )
        }
    }
}

/// Real and synthetic images of each class, the first in the manifests' order. Where a synthetic image
/// was made from a real one's mask, that is the real one beside it.
fn samples(real: &Manifest, made: &Manifest) -> Result<Vec<SampleRow>> {
    let masked = made.rows.iter().any(|row| row.source_mask.is_some() && made.mask_path(row).is_some());
    let count = if masked { PICTURES_WITH_MASKS } else { PICTURES };
    let classes = View::ALL.iter().flat_map(|&view| Phase::ALL.iter().map(move |&phase| (view, phase)));
    let mut rows = Vec::new();
    for (view, phase) in classes {
        let of_class = |row: &&Row| row.view == view && row.phase == phase;
        let mut sources = HashSet::new();
        // An image of each mask, not several of one.
        let new_source =
            |row: &&Row| row.source_mask.as_ref().is_none_or(|source| sources.insert(source.clone()));
        let synthetic: Vec<&Row> = made.rows.iter().filter(of_class).filter(new_source).take(count).collect();
        let train: Vec<&Row> = real.of(Split::Train).filter(of_class).collect();
        let source = |row: &&Row| {
            let name = row.source_mask.as_ref()?;
            train.iter().copied().find(|real| real.name() == *name)
        };
        let beside: Option<Vec<&Row>> = synthetic.iter().map(source).collect();
        let beside = beside.unwrap_or_else(|| train.iter().copied().take(count).collect());
        let Some(first) = synthetic.first() else { continue };
        rows.push(SampleRow {
            class: Label::ViewPhase.classes()[class_of(first, Label::ViewPhase)].to_owned(),
            real: beside
                .into_iter()
                .map(|row| Picture::read(&real.image_path(row)))
                .collect::<Result<_>>()?,
            synthetic: synthetic
                .into_iter()
                .map(|row| {
                    let mask = made.mask_path(row).filter(|_| masked);
                    Ok(Synthetic {
                        image: Picture::read(&made.image_path(row))?,
                        control: mask.map(|file| Picture::read_mask(&file)).transpose()?,
                    })
                })
                .collect::<Result<_>>()?,
        });
    }
    Ok(rows)
}
