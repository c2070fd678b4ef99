//! What the experiment's generators gave, for the report.

use std::{collections::HashSet, path::Path};

use super::{
    DATA, Place,
    distances::NEAREST,
    mixing::{patient_of, seen_by},
    report_input::{is_phantom, record, summary},
};
use crate::{
    aggregate,
    error::{Error, Result},
    experiment::{self, ResolvedSpec},
    manifest::{Manifest, Row},
    measure::{generators, networks},
    picture::Picture,
    plan::{self, GeneratorCell},
    report::{
        ReportInput,
        generators::{
            Cost, Generator, Judge, NearestPictures, SampleRow, Synthetic, TASK, distances::Distances,
        },
    },
    results::{self, CurvePoint, Measurement, NearestPair, word},
    samples::class_of,
    train,
    vocabulary::{Label, Mode, Phase, Split, View},
};

/// Pictures a class, on either side of the sample figure; fewer where masks stand between them.
const PICTURES: usize = 4;
const PICTURES_WITH_MASKS: usize = 3;

/// Adds every generator of the spec to the report's input.
pub(super) fn gather(place: &Place, spec: &ResolvedSpec, input: &mut ReportInput) -> Result<()> {
    if spec.generators.is_empty() {
        return Ok(());
    }
    let mut shown = HashSet::new();
    for (name, patients) in plan::generator_cells(spec) {
        let settings = &spec.generators[name];
        let label = GeneratorCell::label(name, patients);
        let artifact = |what: &str| place.artifacts.get(format!("generator/{what}/{label}").as_str());
        let mode = word(&settings.mode);
        let real = Manifest::read(place.artifact(&format!("data/generator {name}"))?.join(DATA))?;
        let made_by = place.artifact(&format!("generator/images/{label}"))?;
        let made = Manifest::read(made_by.join(DATA))?;
        let mut generator = Generator {
            name: label.clone(),
            mode: mode.clone(),
            own_models: settings.has_model_per_class(),
            images: made.rows.len() as u64,
            sampling: sampling(settings),
            names_patients: names_patients(settings, &made)?,
            made_from: made_from(settings, &made),
            lineage: lineage(settings, &made),
            ..Generator::default()
        };
        if settings.mode != Mode::External {
            generator.sampling_cost = cost(made_by);
        }
        if let Some(dir) = artifact("train") {
            generator.summary = Some(summary(dir)?);
            generator.val_images = train::diffusion::validation_images(settings, &real);
            generator.training_cost = cost(dir);
            let points: Vec<CurvePoint> = results::read_csv(&dir.join(train::CURVES))?;
            input.curves.extend(points.into_iter().map(|point| CurvePoint {
                experiment: spec.experiment.name.clone(),
                task: TASK.into(),
                arm: label.clone(),
                model: mode.clone(),
                seed: Some(settings.seed),
                ..point
            }));
        }
        let read = |dir: &Path| results::read_csv::<Measurement>(&dir.join(networks::MEASUREMENTS));
        let mut rows = Vec::new();
        for task in ["segmentation", "classification"] {
            if let Some(dir) = artifact(&format!("judge-{task}")) {
                // Per image they fill the store alone.
                rows.extend(aggregate::judged(&read(dir)?)?);
            }
        }
        for measured in ["texture", "distances"] {
            if let Some(dir) = artifact(measured) {
                rows.extend(read(dir)?);
            }
        }
        input.measurements.extend(rows.into_iter().map(|row| Measurement {
            experiment: spec.experiment.name.clone(),
            task: TASK.into(),
            arm: label.clone(),
            model: mode.clone(),
            seed: Some(settings.seed),
            ..row
        }));
        // One figure of a generator, however often it was trained.
        if (spec.report.pictures || is_phantom(place)) && shown.insert(name) {
            generator.samples = samples(&real, &made)?;
            if let Some(dir) = artifact("distances") {
                generator.nearest = nearest(&dir.join(NEAREST), &real, &made)?;
            }
        }
        input.generators.push(generator);
    }
    input.judges = judges(place, spec);
    input.distances = references(place, spec, input)?;
    Ok(())
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

/// Adds what tells the scale of the distances.
fn references(place: &Place, spec: &ResolvedSpec, input: &mut ReportInput) -> Result<Option<Distances>> {
    let Some(measure) = &spec.measure else { return Ok(None) };
    let mut references = Vec::new();
    let of_sizes: Vec<&str> =
        place.stage.inputs.iter().filter_map(|i| i.role.strip_prefix("reference/")).collect();
    for size in &of_sizes {
        let dir = place.artifact(&format!("reference/{size}"))?;
        let rows: Vec<Measurement> = results::read_csv(&dir.join(networks::MEASUREMENTS))?;
        for row in rows {
            let arm = if of_sizes.len() > 1 { format!("{}, {size} px", row.arm) } else { row.arm.clone() };
            if !references.contains(&arm) {
                references.push(arm.clone());
            }
            input.measurements.push(Measurement {
                experiment: spec.experiment.name.clone(),
                task: TASK.into(),
                arm,
                model: "reference".into(),
                seed: Some(measure.seed),
                ..row
            });
        }
    }
    Ok(Some(Distances {
        extractor: generators::extractor_words(&measure.extractor),
        frechet: generators::frechet_name(&measure.extractor).to_owned(),
        neighbours: measure.neighbours as u64,
        kid_subsets: measure.kid_subsets as u64,
        seed: measure.seed,
        replicates: measure.replicates as u64,
        references,
    }))
}

fn cost(artifact: &Path) -> Option<Cost> {
    let record = record(artifact)?;
    let threads = if record.threads == 1 { "thread" } else { "threads" };
    Some(Cost { seconds: record.seconds, on: format!("{}, {} {threads}", record.device, record.threads) })
}

/// Those that looked at the images of at least one generator.
fn judges(place: &Place, spec: &ResolvedSpec) -> Vec<Judge> {
    let (Some(arm), Some(&seed)) = (spec.judge(), spec.experiment.seeds.first()) else { return Vec::new() };
    let segmentation = spec.tasks.segmentation.as_ref().map(|t| ("segmentation", Some(t.model.as_str()), ""));
    let classification = spec.tasks.classification.as_ref().map(|t| {
        let label = match t.label {
            Label::Phase => "phase",
            Label::View => "view",
            Label::ViewPhase => "view and phase",
        };
        ("classification", t.models.first().map(|model| model.as_str()), label)
    });
    segmentation
        .into_iter()
        .chain(classification)
        .filter(|(task, ..)| {
            let start = format!("generator/judge-{task}/");
            place.artifacts.keys().any(|role| role.starts_with(&start))
        })
        .map(|(task, model, label)| Judge {
            task: task.to_owned(),
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
    if settings.mode != Mode::Unconditional || sampling.guidance > 1.0 {
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
        _ if settings.is_trained() => true,
        _ => !seen_by(&settings.source.pipeline)?.is_empty(),
    })
}

/// What the images were made from, in words.
fn made_from(settings: &experiment::Generator, made: &Manifest) -> String {
    let masks: HashSet<&str> = made.rows.iter().filter_map(|row| row.source_mask.as_deref()).collect();
    let of_each = made.rows.len() as f64 / masks.len().max(1) as f64;
    match settings.mode {
        Mode::External => "made by another program".to_owned(),
        Mode::Unconditional => "each from noise, for its view and phase".to_owned(),
        Mode::Text => "each from a text about a real training image".to_owned(),
        Mode::TextSegmentation => {
            let moved = match settings.sampling.vary_masks {
                true => ", which is moved, turned and scaled a little each time",
                false => "",
            };
            let several = if of_each > 1.0 { format!(", {of_each:.3} of each mask") } else { String::new() };
            let several = several.replace(".000", "");
            format!(
                "each from the mask of a real training image{moved}, and a text about that image; {} masks{several}",
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
        Mode::Unconditional if settings.networks.per_class => "A model of its own for each class".to_owned(),
        Mode::Unconditional => "One model, told the class".to_owned(),
        Mode::Text => format!("Prompts in the words of real training images; the first: “{prompt}”"),
        Mode::TextSegmentation => {
            let moved = if settings.sampling.vary_masks { ", moved a little" } else { "" };
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
