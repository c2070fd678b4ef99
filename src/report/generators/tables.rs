//! Generators: training, images, verdicts of judges, texture, and cost.

use super::{Cost, Judge, ReportInput, ReportedGenerator, derived, over_all};
use crate::{
    aggregate::{Table, TableCell, estimate, number},
    results::{GOOD_TEXTURE, Measurement, OCTAVES},
    vocabulary::{Metric, Statistic, Structure, Task},
};

/// The table that differs between two runs.
pub(super) const COSTS: &str = "generators_costs";

pub(super) fn tables(input: &ReportInput, rows: &[Measurement]) -> Vec<Table> {
    if input.generators.is_empty() {
        return Vec::new();
    }
    let tables =
        [Some(generators(input)), judged(input, rows), texture(input, rows), costs(&input.generators)];
    tables.into_iter().flatten().collect()
}

fn text(text: &str) -> TableCell {
    text.into()
}

fn estimated(mean: f64, sd: Option<f64>) -> TableCell {
    TableCell::Estimate { mean, sd, interval: None, undefined: 0 }
}

fn columns(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn generators(input: &ReportInput) -> Table {
    let generators = &input.generators;
    let few = input.meta.arms.iter().any(|arm| arm.synthetic.is_some() && arm.real_fraction < 1.0);
    let mut table = Table {
        name: "generators".to_owned(),
        title: "Generators: what was trained and made".to_owned(),
        caption: match few {
            true => "An arm with fewer patients gets its images from its own generator, which was trained only on these patients and is named after them.".to_owned(),
            false => "One row per generator.".to_owned(),
        },
        columns: columns(&[
            "Generator",
            "Mode",
            "Parameters",
            "Trained of these",
            "Trained on",
            "Steps × batch",
            "Precision",
            "Side in px",
            "Images made",
        ]),
        rows: Vec::new(),
        notes: Vec::new(),
        decimals: 3,
    };
    for g in generators {
        let mut row = vec![text(&g.name), text(&g.mode)];
        match &g.summary {
            Some(s) => row.extend([
                TableCell::Count(s.parameters),
                TableCell::Count(s.trainable),
                format!("{} / {}", s.train_patients, s.train_images).into(),
                format!("{} × {}", s.steps, s.batch).into(),
                text(&s.precision),
                TableCell::Count(s.image_size),
            ]),
            None => row.extend((0..6).map(|_| TableCell::Empty)),
        }
        row.push(TableCell::Count(g.images));
        table.rows.push(row);
    }
    without_empty_columns(&mut table);
    if generators.iter().any(|g| g.summary.is_some()) {
        table.notes.push(
            "Trained on: patients / images. Steps × batch: optimizer steps and images per step.".to_owned(),
        );
        let fixed = |g: &ReportedGenerator| g.summary.as_ref().is_some_and(|s| s.trainable < s.parameters);
        if generators.iter().any(fixed) {
            table.notes.push("Trained of these: parameters that the steps listed here change. The others belong to a text encoder, an autoencoder or a base model, which was trained before on the same patients or elsewhere.".to_owned());
        }
    }
    let outside: Vec<&str> =
        generators.iter().filter(|g| g.summary.is_none()).map(|g| g.name.as_str()).collect();
    if !outside.is_empty() {
        table.notes.push(format!("Not trained here: {}. An arm refuses images made from masks of patients outside its training patients, and pipelines that list such patients.", outside.join(", ")));
        let silent: Vec<&str> = generators
            .iter()
            .filter(|g| g.summary.is_none() && !g.names_patients)
            .map(|g| g.name.as_str())
            .collect();
        if !silent.is_empty() {
            table.notes.push(format!(
                "The training patients of these are not known, so they may include test patients: {}.",
                silent.join(", ")
            ));
        }
    }
    if generators.iter().any(|g| g.own_models) {
        table.notes.push(
            "If each class has its own model, parameters count one model, and steps count all of them."
                .to_owned(),
        );
    }
    table
}

/// None where nothing was judged.
fn judged(input: &ReportInput, rows: &[Measurement]) -> Option<Table> {
    let label = input.judges.iter().map(|j| j.label.as_str()).find(|label| !label.is_empty());
    let right = format!("Right {}", label.unwrap_or_default());
    // A classifier of views says the same in both columns.
    let view = label.filter(|label| *label != "view").map(|_| Metric::ViewAccuracy);
    let mut body = Vec::new();
    for g in &input.generators {
        let value = |structure: &str, metric: Metric| over_all(rows, g, structure, metric);
        let count =
            |found: Option<&Measurement>| found.and_then(|r| r.n).map_or(TableCell::Empty, TableCell::Count);
        let share =
            |found: Option<&Measurement>| found.map_or(TableCell::Empty, |r| estimated(r.value, None));
        let (dice, accuracy) = (value(Structure::MEAN, Metric::Dice), value("", Metric::Accuracy));
        if dice.is_none() && accuracy.is_none() {
            continue;
        }
        let sd = derived(rows, g, Structure::MEAN, &Metric::Dice.with(Statistic::Sd))
            .map(|r| r.value)
            .filter(|sd| sd.is_finite());
        body.push(vec![
            text(&g.name),
            text(&g.mode),
            dice.map_or(TableCell::Empty, |r| estimated(r.value, sd)),
            value(Structure::MEAN, Metric::Hd95).map_or(TableCell::Empty, |r| {
                let failed = Metric::Hd95.with(Statistic::Failures);
                let failures: f64 = (rows.iter())
                    .filter(|row| {
                        row.arm == g.name && row.metric == failed && row.structure != Structure::MEAN
                    })
                    .map(|row| row.value)
                    .sum();
                TableCell::Estimate { mean: r.value, sd: None, interval: None, undefined: failures as u64 }
            }),
            count(dice),
            share(accuracy),
            share(view.and_then(|metric| value("", metric))),
            count(accuracy),
        ]);
    }
    body.first()?;
    let unit =
        rows.iter().find(|r| r.task == Task::Generation && r.metric == Metric::Hd95).map(|r| r.unit.as_str());
    let hd95 = format!("HD95 in {}", unit.unwrap_or("px"));
    let mut table = Table {
        name: "generators_judged".to_owned(),
        title: "Generators: do the images show what they were made from?".to_owned(),
        caption: "A network that was trained on real images only judges the synthetic ones. Two causes can make its score lower than on real images (below): labels that do not fit, and images unlike real ones. This table does not separate them. Control masks of images that were generated here come from training images, which the network may know. Higher is better; for distances, lower is better.".to_owned(),
        columns: columns(&["Generator", "Mode", "Dice with the control mask", &hd95, "n", &right, "Right view", "n"]),
        rows: body,
        notes: input.judges.iter().map(|judge| judge_note(judge, rows)).collect(),
        decimals: 3,
    };
    without_empty_columns(&mut table);
    Some(table)
}

/// Which network judges, and what it reaches on real images: a generator cannot be expected to do better.
fn judge_note(judge: &Judge, rows: &[Measurement]) -> String {
    let Judge { task, arm, model, seed, label } = judge;
    let split = crate::aggregate::reported_split(rows, *task).unwrap_or_default();
    let (metric, structure) = match task {
        Task::Segmentation => (Metric::Dice, Some(Structure::MEAN)),
        _ => (Metric::Correct, None),
    };
    let real: Vec<&Measurement> = rows
        .iter()
        .filter(|r| r.task == *task && r.arm == *arm && r.model == *model && r.seed == Some(*seed))
        .filter(|r| r.split == split && r.metric == metric && structure.is_none_or(|s| r.structure == s))
        .collect();
    let real = estimate(&real);
    let reached = format!("{} on {} real {split} images", number(real.mean, 3), real.images);
    if *task == Task::Segmentation {
        format!(
            "Dice (mean of endocardium, myocardium and left atrium; mean over images ± sample standard deviation): {model} of arm {arm}, seed {seed}, segments the image, and its mask is compared with the control mask. HD95 is a mean over images too. Structures that only one of the two masks has are left out of HD95 and counted as undefined. The same network reaches {reached}."
        )
    } else {
        format!(
            "Right {label}: the share of images that {model} of arm {arm}, seed {seed}, assigns to the class they were made for. The same network reaches {reached}."
        )
    }
}

/// Removes columns without a value.
pub(super) fn without_empty_columns(table: &mut Table) {
    let says =
        |i: usize| table.rows.iter().any(|row| row.get(i).is_some_and(|cell| *cell != TableCell::Empty));
    let kept: Vec<bool> = (0..table.columns.len()).map(says).collect();
    let keep = |i: &mut usize| {
        *i += 1;
        kept[*i - 1]
    };
    let mut at = 0;
    table.columns.retain(|_| keep(&mut at));
    for row in &mut table.rows {
        let mut at = 0;
        row.retain(|_| keep(&mut at));
    }
}

fn texture(input: &ReportInput, rows: &[Measurement]) -> Option<Table> {
    let mut body = Vec::new();
    for g in &input.generators {
        let found = OCTAVES.map(|octave| over_all(rows, g, octave, Metric::Texture));
        let Some(n) = found.iter().flatten().find_map(|r| r.n) else { continue };
        let mut row = vec![text(&g.name), text(&g.mode)];
        row.extend(found.map(|r| r.map_or(TableCell::Empty, |r| estimated(r.value, None))));
        row.push(TableCell::Count(n));
        body.push(row);
    }
    (!body.is_empty()).then(|| Table {
        name: "generators_texture".to_owned(),
        title: "Generators: texture".to_owned(),
        caption: format!(
            "Power of the synthetic images divided by that of the real training images inside the ultrasound sector, by octave of wavelength. 1: the same power. Below 1: smoother. Above 1: grainier. Values from {} to {} count as near, a factor of two either way.",
            GOOD_TEXTURE.0, GOOD_TEXTURE.1
        ),
        columns: columns(&[&["Generator", "Mode"][..], &OCTAVES[..], &["n"][..]].concat()),
        rows: body,
        notes: Vec::new(),
        decimals: 3,
    })
}

fn costs(generators: &[ReportedGenerator]) -> Option<Table> {
    let mut body = Vec::new();
    for g in generators {
        let costs = [&g.training_cost, &g.sampling_cost];
        if costs.iter().all(|cost| cost.is_none()) {
            continue;
        }
        let mut on: Vec<&str> = costs.into_iter().flatten().map(|cost| cost.on.as_str()).collect();
        on.dedup();
        let minutes = |cost: &Cost| estimated(cost.seconds / 60.0, None);
        let each = |cost: &Cost| estimated(cost.seconds / g.images as f64, None);
        body.push(vec![
            text(&g.name),
            text(&g.mode),
            g.training_cost.as_ref().map_or(TableCell::Empty, minutes),
            TableCell::Count(g.images),
            g.sampling_cost.as_ref().map_or(TableCell::Empty, each),
            text(&g.sampling),
            on.join("; ").into(),
        ]);
    }
    (!body.is_empty()).then(|| Table {
        name: COSTS.to_owned(),
        title: "Generators: measured times".to_owned(),
        caption: "Wall time. It differs between two runs; nothing else in the report does.".to_owned(),
        columns: columns(&[
            "Generator",
            "Mode",
            "Training in minutes",
            "Images made",
            "Seconds per image",
            "Sampling",
            "On",
        ]),
        rows: body,
        notes: vec![
            "Training: without the training of a base model. For interrupted stages only the last attempt is timed.".to_owned(),
        ],
        decimals: 2,
    })
}
