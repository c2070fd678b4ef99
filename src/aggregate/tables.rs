//! The tables of a report.

use super::{
    Estimate, Means, TableCell, TrainedNetwork, arms, estimate, overall_mean, reported_split,
    table::{Table, number},
};
use crate::{
    cell::NetworkCell,
    results::{Measurement, TrainSummary},
    vocabulary::{Metric, Structure, Task, Undefined},
};

/// What a classifier is measured by besides its accuracy.
const CLASSIFICATION_METRICS: [Metric; 4] = [Metric::Precision, Metric::Recall, Metric::F1, Metric::Auc];

/// Names an arm's row, with the model only where there are several.
pub(super) fn arm_labels(arms: &[(String, String)]) -> Vec<String> {
    let several = arms.iter().any(|(_, model)| *model != arms[0].1);
    arms.iter().map(|(arm, model)| if several { format!("{arm}, {model}") } else { arm.clone() }).collect()
}

pub(crate) fn plural(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// `3`, `2.6`: a number of epochs.
fn short(epochs: f64) -> String {
    number(epochs, usize::from(epochs.fract() != 0.0))
}

/// `1 epoch`, `2.6 epochs`.
fn epochs(n: f64) -> String {
    format!("{} {}", short(n), if n == 1.0 { "epoch" } else { "epochs" })
}

/// `40 patients (160 images)`.
fn size(patients: u64, images: u64) -> String {
    format!("{} ({})", plural(patients, "patient", "patients"), plural(images, "image", "images"))
}

/// How to read the numbers of a result table.
fn reading_notes(estimates: &[Estimate], models: &[TrainedNetwork]) -> Vec<String> {
    let seeds: Vec<u64> = estimates.iter().map(|e| e.seeds).collect();
    let (low, high) =
        (seeds.iter().min().copied().unwrap_or_default(), seeds.iter().max().copied().unwrap_or_default());
    let images = match models.iter().any(|m| m.summary.synthetic_images > 0) {
        true => {
            "Trained on: patients with real training images / all training images, including synthetic ones and copies."
        }
        false => "Trained on: patients / images.",
    };
    let mut notes = vec![images.to_owned()];
    if high <= 1 {
        notes.push(
            "One seed: the spread over seeds is not known, so small differences between arms mean nothing."
                .to_owned(),
        );
    } else {
        let count = if low == high { format!("{high}") } else { format!("{low} to {high}") };
        notes.push(format!(
            "Mean over images, ± sample standard deviation over {count} seeds. A seed decides first weights, order of images and random choices of an arm."
        ));
    }
    notes.push(
        "In brackets: 95 % bootstrap interval over patients (2000 resamples, each patient's values averaged over seeds)."
            .to_owned(),
    );
    notes
}

fn test_size(rows: &[Measurement], task: Task, split: &str) -> String {
    let tested = rows.iter().filter(|r| r.task == task && r.split == split && !r.patient.is_empty());
    let (mut patients, mut images) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for row in tested {
        patients.insert(&row.patient);
        if !(row.view.is_empty() && row.phase.is_empty()) {
            images.insert((&row.patient, &row.view, &row.phase));
        }
    }
    size(patients.len() as u64, images.len() as u64)
}

pub(super) fn trained_on(models: &[TrainedNetwork], task: Task, arm: &str, model: &str) -> TableCell {
    let is = |cell: &NetworkCell| cell.task == task && cell.arm == arm && cell.model == model;
    models.iter().find(|m| is(&m.cell)).map_or(TableCell::Empty, |m| {
        format!("{} / {}", m.summary.train_patients, m.summary.train_images).into()
    })
}

/// One table per metric: one row per arm, one column per structure.
pub fn segmentation_tables(rows: &[Measurement], models: &[TrainedNetwork]) -> Vec<Table> {
    let task = Task::Segmentation;
    let Some(split) = reported_split(rows, task) else { return Vec::new() };
    let means = Means::new(rows);
    let arms = arms(rows, task);
    let labels = arm_labels(&arms);
    let mut tables = Vec::new();
    for metric in Metric::of_images(task) {
        let word = metric.as_str();
        let structures: Vec<&str> = Structure::COLUMNS
            .into_iter()
            .filter(|s| {
                arms.iter().any(|(arm, model)| {
                    !means.images([task.as_str(), arm, model, &split, s, word]).is_empty()
                })
            })
            .collect();
        if structures.is_empty() {
            continue;
        }
        let unit = rows.iter().find(|r| r.metric == metric && r.split == split).map_or("", |r| &r.unit);
        let mut columns = vec!["Arm".to_owned(), "Trained on".to_owned()];
        columns.extend(structures.iter().map(|s| Structure::label_of(s).to_owned()));
        let mut estimates = Vec::new();
        let body = arms
            .iter()
            .zip(&labels)
            .map(|((arm, model), label)| {
                let mut cells = vec![label.as_str().into(), trained_on(models, task, arm, model)];
                for structure in &structures {
                    match means.estimate([task.as_str(), arm, model, &split, structure, word]) {
                        Some(estimate) => {
                            estimates.push(estimate);
                            cells.push(estimate.into());
                        }
                        None => cells.push(TableCell::Empty),
                    }
                }
                cells
            })
            .collect();
        let label = metric.label();
        let mut notes = reading_notes(&estimates, models);
        notes.push(metric.definition().to_owned());
        if unit == "px" {
            notes.push("px: pixels of the images as the network sees them. This copy of the data does not record the size of a pixel.".to_owned());
        }
        if metric.undefined() == Undefined::TruthLacksIt {
            if structures.contains(&Structure::MEAN) {
                notes.push("Mean: over endocardium, myocardium and left atrium.".to_owned());
            }
            if structures.contains(&Structure::Epi.as_str()) {
                notes.push("Epicardium: endocardium plus myocardium.".to_owned());
            }
        }
        if estimates.iter().all(|e| e.undefined == 0) {
            notes.push(
                match metric.undefined() {
                    Undefined::EitherLacksIt => {
                        "No value is undefined: every structure is in every prediction and every truth."
                    }
                    _ => "No value is undefined: every structure is in every truth.",
                }
                .to_owned(),
            );
        } else {
            notes.push(
                "Undefined: images (times seeds) in which the prediction or the truth lacks the structure. They are left out of the mean and counted here."
                    .to_owned(),
            );
        }
        let title = if unit.is_empty() { label.to_owned() } else { format!("{label} in {unit}") };
        tables.push(Table {
            name: format!("segmentation_{metric}"),
            title: format!("Segmentation: {title}"),
            caption: format!(
                "On the {split} patients: {}; {} is better.",
                test_size(rows, task, &split),
                metric.direction().as_str(),
            ),
            columns,
            rows: body,
            notes,
            decimals: metric.decimals(),
        });
    }
    tables
}

/// Accuracy with its interval over patients; macro precision, recall, F1 and AUC. Empty without the task.
pub fn classification_tables(rows: &[Measurement], models: &[TrainedNetwork]) -> Vec<Table> {
    let task = Task::Classification;
    let Some(split) = reported_split(rows, task) else { return Vec::new() };
    let arms = arms(rows, task);
    let mut columns = vec!["Arm".to_owned(), "Trained on".to_owned(), "Accuracy".to_owned()];
    let overall = |arm: &str, model: &str, metric: Metric| {
        let found: Vec<&Measurement> = rows
            .iter()
            .filter(|r| {
                r.task == task
                    && r.arm == arm
                    && r.model == model
                    && r.split == split
                    && r.metric == metric
                    && r.structure.is_empty()
            })
            .collect();
        overall_mean(&found)
    };
    columns.extend(CLASSIFICATION_METRICS.iter().map(|metric| match metric {
        Metric::Auc => metric.label().to_owned(),
        metric => format!("{} (macro)", metric.label()),
    }));
    let mut estimates = Vec::new();
    let body = arms
        .iter()
        .zip(arm_labels(&arms))
        .map(|((arm, model), label)| {
            let mut cells = vec![label.into(), trained_on(models, task, arm, model)];
            // Whatever class the row is filed under: all images count.
            let correct: Vec<&Measurement> = rows
                .iter()
                .filter(|r| {
                    r.task == task
                        && r.arm == *arm
                        && r.model == *model
                        && r.split == split
                        && r.metric == Metric::Correct
                })
                .collect();
            let correct = (!correct.is_empty()).then(|| estimate(&correct));
            cells.push(match correct {
                Some(estimate) => {
                    estimates.push(estimate);
                    estimate.into()
                }
                None => {
                    let (mean, sd, _) = overall(arm, model, Metric::Accuracy);
                    TableCell::Estimate { mean, sd, interval: None, undefined: 0 }
                }
            });
            for metric in CLASSIFICATION_METRICS {
                let (mean, sd, _) = overall(arm, model, metric);
                cells.push(TableCell::Estimate { mean, sd, interval: None, undefined: 0 });
            }
            cells
        })
        .collect();
    let mut notes = reading_notes(&estimates, models);
    notes.push("Precision, recall and F1: unweighted mean over classes, for each seed.".to_owned());
    vec![Table {
        name: "classification".to_owned(),
        title: "Classification: scores".to_owned(),
        caption: format!("On the {split} patients: {}; higher is better.", test_size(rows, task, &split)),
        columns,
        rows: body,
        notes,
        decimals: 3,
    }]
}

/// `40 patients, 320 images, 160 of them synthetic`
pub fn training_images(s: &TrainSummary) -> String {
    let real = format!(
        "{}, {}",
        plural(s.train_patients, "patient", "patients"),
        plural(s.train_images, "image", "images")
    );
    match s.synthetic_images {
        0 => real,
        all if all == s.train_images => format!("{}, all synthetic", plural(all, "image", "images")),
        some => format!("{real}, {some} of them synthetic"),
    }
}

/// What was trained on what, and how its checkpoint was chosen: one row per network.
pub fn training_table(models: &[TrainedNetwork]) -> Option<Table> {
    let mut models: Vec<&TrainedNetwork> = models.iter().collect();
    models.sort_by_key(|m| m.cell.task); // arms keep their order
    models.first()?;
    let columns = [
        "Task",
        "Arm",
        "Model",
        "Seed",
        "Train",
        "Validation",
        "Test",
        "Trained for",
        "Chosen at",
        "Validation value",
        "Precision",
    ];
    let body = models
        .iter()
        .map(|m| {
            let (cell, s) = (&m.cell, &m.summary);
            let chosen = s.best_value.unwrap_or(f64::NAN);
            vec![
                cell.task.as_str().into(),
                cell.arm.as_str().into(),
                cell.model.as_str().into(),
                TableCell::Count(cell.seed),
                training_images(s).into(),
                size(s.val_patients, s.val_images).into(),
                size(m.test_patients, m.test_images).into(),
                format!("{} ({})", plural(s.steps, "step", "steps"), epochs(s.epochs)).into(),
                format!("step {} (epoch {})", s.best_step, short(s.best_epoch)).into(),
                format!("{} {}", number(chosen, 3), m.selection_label()).into(),
                s.precision.as_str().into(),
            ]
        })
        .collect();
    Some(Table {
        name: "training".to_owned(),
        title: "Networks".to_owned(),
        caption: "Every trained network, and the checkpoint that was chosen on the validation patients and then tested.".to_owned(),
        columns: columns.map(str::to_owned).to_vec(),
        rows: body,
        notes: Vec::new(),
        decimals: 3,
    })
}

/// Distances that could not be computed, per arm and structure; None where there were none.
pub fn failures_table(rows: &[Measurement]) -> Option<Table> {
    let task = Task::Segmentation;
    let split = reported_split(rows, task)?;
    let means = Means::new(rows);
    let arms = arms(rows, task);
    let mut body = Vec::new();
    for ((arm, model), label) in arms.iter().zip(arm_labels(&arms)) {
        for structure in Structure::COLUMNS {
            for metric in Metric::of_images(task) {
                let images = means.images([task.as_str(), arm, model, &split, structure, metric.as_str()]);
                let undefined = images.iter().filter(|r| r.value.is_nan()).count() as u64;
                if undefined > 0 {
                    body.push(vec![
                        label.as_str().into(),
                        Structure::label_of(structure).into(),
                        metric.label().into(),
                        TableCell::Count(undefined),
                        TableCell::Count(images.len() as u64),
                    ]);
                }
            }
        }
    }
    (!body.is_empty()).then(|| Table {
        name: "failures".to_owned(),
        title: "Undefined values".to_owned(),
        caption: format!(
            "On the {split} patients, over all seeds: images in which the prediction or the truth lacks the structure, so that a value does not exist."
        ),
        columns: ["Arm", "Structure", "Metric", "Undefined", "Of"].map(str::to_owned).to_vec(),
        rows: body,
        notes: Vec::new(),
        decimals: 3,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fake;

    #[test]
    fn tables_of_a_whole_experiment() {
        let input = fake::input(&fake::FakeShape::default());
        let tables = segmentation_tables(&input.measurements, &input.models);
        let names: Vec<&str> = tables.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["segmentation_dice", "segmentation_hd95", "segmentation_hd", "segmentation_assd"]);
        assert_eq!(tables[0].rows.len(), 3);
        assert!(tables[0].columns.iter().any(|c| c == "Left atrium"));
        assert!(tables[1].title.ends_with("HD95 in mm"));
        assert!(tables[0].caption.contains("40 patients (160 images)"), "{}", tables[0].caption);
        let TableCell::Estimate { mean, sd: Some(sd), interval: Some((low, high)), .. } =
            tables[0].rows[0][2]
        else {
            panic!("{:?}", tables[0].rows[0])
        };
        assert!(low < mean && mean < high && high - low < 0.1 && sd > 0.0 && sd < 0.05);
        let table = &classification_tables(&input.measurements, &input.models)[0];
        assert!(matches!(table.rows[0][2], TableCell::Estimate { interval: Some(_), .. }));
        assert!(matches!(table.rows[0][5], TableCell::Estimate { mean, .. } if mean > 0.5));
        assert_eq!(training_table(&input.models).unwrap().rows.len(), 18);
    }

    #[test]
    fn one_seed_says_so_and_no_rows_make_no_table() {
        let input = fake::input(&fake::FakeShape { seeds: 1, ..Default::default() });
        let tables = segmentation_tables(&input.measurements, &input.models);
        assert!(tables[0].notes[1].starts_with("One seed"));
        assert!(!tables[0].to_markdown().contains('±'));
        assert!(segmentation_tables(&[], &[]).is_empty() && classification_tables(&[], &[]).is_empty());
        assert!(training_table(&[]).is_none() && failures_table(&[]).is_none());
    }
}
