//! What was trained, on what and how: the facts behind the numbers.

use super::PageContent;
use crate::{
    aggregate::{plural, training_images},
    report::{ReportInput, arms, axes::tick_label, distinct, generators::ReportedGenerator},
    vocabulary::Task,
};

/// (name, fact), in the order of the experiment.
pub(super) fn facts(content: &PageContent) -> Vec<(String, String)> {
    let input = content.input;
    let mut facts = vec![("Data".to_owned(), input.meta.data_description.clone())];
    for task in Task::OF_ARMS {
        facts.extend(training(input, task).map(|words| (task.title().to_owned(), words)));
    }
    let arms: Vec<String> = arms(input).iter().map(|arm| arm_words(input, arm)).collect();
    facts.push(("Training images of each arm".to_owned(), arms.join("\n")));
    let generators: Vec<String> = input.generators.iter().map(generator_words).collect();
    facts.push(("Synthetic images".to_owned(), generators.join("\n")));
    let seeds: Vec<String> = input.meta.seeds.iter().map(u64::to_string).collect();
    if !seeds.is_empty() {
        let words =
            "A seed decides the first weights, the order of the images, and every random choice of an arm";
        facts.push(("Seeds".to_owned(), format!("{}. {words}.", seeds.join(", "))));
    }
    facts
}

/// How a task's networks were trained. None without networks.
fn training(input: &ReportInput, task: Task) -> Option<String> {
    let models: Vec<_> = input.models.iter().filter(|m| m.cell.task == task).collect();
    let first = models.first()?;
    let counted = |name: &String| {
        let model = &models.iter().find(|m| m.cell.model == *name)?.summary;
        let trained = match model.trainable == model.parameters {
            true => String::new(),
            false => format!(" ({} trained)", grouped(model.trainable)),
        };
        Some(format!("{name}, {} parameters{trained}", grouped(model.parameters)))
    };
    let names = distinct(models.iter().map(|m| m.cell.model.as_str()));
    let mut lines = vec![format!("{}.", names.iter().filter_map(counted).collect::<Vec<_>>().join("; "))];
    if let Some((_, how)) = input.meta.methods.iter().find(|(of, _)| *of == task) {
        lines.push(format!("{how}."));
    }
    lines.push(format!(
        "Preset {}, {}. The checkpoint is chosen by {} on {} validation patients and tested on {} test patients ({}).",
        first.preset,
        first.summary.precision,
        first.selection_label(),
        first.summary.val_patients,
        first.test_patients,
        plural(first.test_images, "image", "images")
    ));
    let steps = || models.iter().map(|m| m.summary.steps);
    lines.push(match (steps().min(), steps().max()) {
        (Some(least), Some(most)) if least == most => {
            format!("Every network was trained for {} optimizer steps.", grouped(most))
        }
        (Some(least), Some(most)) => {
            format!("The networks were trained for {} to {} optimizer steps.", grouped(least), grouped(most))
        }
        _ => String::new(),
    });
    Some(lines.join("\n"))
}

fn arm_words(input: &ReportInput, arm: &str) -> String {
    let info = input.meta.arms.iter().find(|info| info.name == arm);
    let what = info.map_or("", |info| info.what.as_str());
    let images = input.models.iter().find(|m| m.cell.arm == arm).map(|m| training_images(&m.summary));
    match (what, images) {
        ("", images) => format!("{arm}: {}", images.unwrap_or_default()),
        (what, None) => format!("{arm}: {what}"),
        (what, Some(images)) => format!("{arm}: {what} ({images})"),
    }
}

/// What a generator is, and how its images came about.
fn generator_words(g: &ReportedGenerator) -> String {
    let mode = if g.name == g.mode { String::new() } else { format!(" ({})", g.mode) };
    let mut words = format!("{}{mode}: {} images", g.name, grouped(g.images));
    if !g.made_from.is_empty() {
        words += &format!(", {}", g.made_from);
    }
    if let Some(s) = &g.summary {
        words += &format!(
            ". A diffusion model, trained only on {} training patients ({} images): {} steps of {} images at {} px; {} parameters",
            grouped(s.train_patients),
            grouped(s.train_images),
            grouped(s.steps),
            grouped(s.batch),
            s.image_size,
            grouped(s.parameters)
        );
    }
    words + "."
}

/// `664 282`, with spaces that do not break.
fn grouped(n: u64) -> String {
    tick_label(n as f64, 0)
}
