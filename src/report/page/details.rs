//! Everything below the head of the page, folded away, with a list of contents.

use super::{
    PageContent,
    markup::{escape, figure, folded, list, pairs, paragraphs, table},
    methods,
};
use crate::{
    aggregate::{Score, Table, TableCell, also, ventricle::VentricleFigure},
    report::{CURVES, DESCRIPTION, MEASUREMENTS, RESOLVED, generators::GENERATORS},
    vocabulary::{Metric, Task},
};

/// A part of the page that is folded away.
struct Section {
    id: &'static str,
    title: &'static str,
    body: String,
}

/// The metrics of segmentation that are not in the foreground.
fn minor_metrics() -> impl Iterator<Item = Metric> {
    Metric::of_images(Task::Segmentation).filter(|metric| !metric.is_main())
}

/// Whether a table is folded away once more: undefined values, and what is not in the foreground.
fn is_minor(table: &str) -> bool {
    table == "failures"
        || VentricleFigure::is_minor(table)
        || minor_metrics().map(Score::segmentation).any(|score| {
            [score.file("comparisons"), score.file("equivalence"), format!("{}_{}", score.task, score.metric)]
                .contains(&table.to_owned())
        })
}

/// The contents and the sections. Figures that are `shown` already are left out.
pub(super) fn details(content: &PageContent, shown: &[String]) -> String {
    let sections: Vec<Section> = [
        results(content, Task::Segmentation.as_str(), "Segmentation: tables and figures", shown),
        results(content, Task::Classification.as_str(), "Classification: tables and figures", shown),
        results(content, GENERATORS, "Generators: tables and figures", shown),
        reading(content),
        published(content),
        Some(Section {
            id: "methods",
            title: "Data, arms and training",
            body: pairs(&methods::facts(content)),
        }),
        all_limits(content),
        networks(content),
        Some(run(content)),
        Some(files(content)),
    ]
    .into_iter()
    .flatten()
    .collect();
    let nav: String =
        sections.iter().map(|s| format!("<li><a href=\"#{}\">{}</a></li>\n", s.id, s.title)).collect();
    let folds: String = sections
        .iter()
        .map(|s| {
            // The target of a link has to be inside: then the link opens the section.
            let body = format!("<div id=\"{}\">\n{}</div>\n", s.id, s.body);
            folded("section", &format!("<h2>{}</h2>", s.title), &body)
        })
        .collect();
    format!("<nav aria-label=\"Contents\">\n<h2>Contents</h2>\n<ul>\n{nav}</ul>\n</nav>\n{folds}</main>\n")
}

/// The tables and figures of a task or of the generators.
fn results(
    content: &PageContent,
    name: &'static str,
    title: &'static str,
    shown: &[String],
) -> Option<Section> {
    let is_own = |stem: &str| stem == name || stem.starts_with(&format!("{name}_"));
    let (minor, tables): (Vec<&Table>, Vec<&Table>) = content
        .tables
        .iter()
        .filter(|t| is_own(&t.name) || (name == Task::Segmentation.as_str() && t.name == "failures"))
        .partition(|t| is_minor(&t.name));
    let figures: Vec<_> = content.figures.iter().filter(|(f, _)| is_own(&f.name)).collect();
    if tables.is_empty() && minor.is_empty() && figures.is_empty() {
        return None;
    }
    let mut body = list(&further_scores(content, name));
    tables.into_iter().for_each(|t| body += &table(t));
    if !minor.is_empty() {
        let undefined = minor.iter().any(|t| t.name == "failures");
        let what = if minor_metrics().all(Metric::is_distance) { "More distances" } else { "More measures" };
        let more = if undefined { format!("{what}, and undefined values") } else { what.to_owned() };
        let tables: String = minor.into_iter().map(table).collect();
        body += &folded("more", &more, &tables);
    }
    let phantom = content.input.meta.is_phantom;
    for (f, svg) in figures.into_iter().filter(|(f, _)| !shown.contains(&f.name)) {
        body += &figure(f, svg, content.formats, phantom);
    }
    Some(Section { id: name, title, body })
}

/// What a task's other scores show, in a line each.
fn further_scores(content: &PageContent, task: &str) -> Vec<String> {
    let of_task = content.compared.iter().filter(|c| c.score.task.as_str() == task);
    let others = of_task.filter(|c| c.score != Score::main(c.score.task));
    others.filter_map(|c| also(&c.found, &content.input.meta.arms, &c.score)).collect()
}

/// How comparisons are to be read. None without comparisons.
fn reading(content: &PageContent) -> Option<Section> {
    let found = || content.compared.iter().flat_map(|c| &c.found);
    let seeds = found().map(|c| c.per_seed.len()).filter(|n| *n > 1).min();
    found().next()?;
    let mut lines = vec![
        "Two arms are compared on the same test patients. The score of a patient is the mean over its images and seeds; the test is Wilcoxon's two-sided signed-rank test, with Holm's correction over all comparisons by the same score.".to_owned(),
        "An arm is called better or worse only if the corrected p is below 0.05 and the difference has the same sign with every seed. “Seeds disagree” means that the test is significant, but the seeds do not agree on the sign.".to_owned(),
        "“No difference shown” does not mean that two arms are equal.".to_owned(),
        "Brackets hold 95 % bootstrap intervals over patients. They are not corrected for the number of comparisons.".to_owned(),
    ];
    if let Some(seeds) = seeds.filter(|n| *n <= 5) {
        lines.push(format!(
            "The test is over patients, not over trainings. {seeds} seeds of two equal arms agree in sign {} times in 100 by chance: read a difference with care if it is no larger than the differences between the seeds of one arm.",
            (200.0 / 2f64.powi(seeds as i32)).round()
        ));
    }
    if found().any(|c| c.equivalence.is_some()) {
        lines.push("“Equivalent” means that two one-sided tests show a difference within the margin of the spec, after Holm's correction, and that the difference is within it with every seed. The table of equivalence gives the power: how likely it was to show this.".to_owned());
    }
    Some(Section { id: "reading", title: "How to read the comparisons", body: list(&lines) })
}

fn published(content: &PageContent) -> Option<Section> {
    let published = content.tables.iter().find(|t| t.name == "published")?;
    let theirs = published.columns.iter().position(|column| column == "Published");
    let is_entered = |row: &Vec<TableCell>| {
        theirs.and_then(|i| row.get(i)).is_some_and(|cell| matches!(cell, TableCell::Number { .. }))
    };
    let mut body = table(published);
    if !published.rows.iter().any(is_entered) {
        let empty = format!("No figure was entered: {} are not verified.", published.rows.len());
        body = paragraphs("caption", &[empty]) + &body;
    }
    Some(Section { id: "published", title: "What others have published", body })
}

/// All limits in full, and notes.
fn all_limits(content: &PageContent) -> Option<Section> {
    let meta = &content.input.meta;
    let body = list(&meta.limits) + &list(&meta.notes);
    (!body.is_empty()).then_some(Section { id: "limits", title: "Limits in full, and notes", body })
}

fn networks(content: &PageContent) -> Option<Section> {
    let training = content.tables.iter().find(|t| t.name == "training")?;
    Some(Section { id: "networks", title: "Networks: training and checkpoints", body: table(training) })
}

fn run(content: &PageContent) -> Section {
    let meta = &content.input.meta;
    let mut run = meta.settings.clone();
    run.push(("Commit of the program".to_owned(), meta.commit.clone()));
    run.extend(meta.versions.iter().cloned());
    let mut body = pairs(&run);
    body += "<p class=\"note\"><a href=\"stages.json\">stages.json</a> records how each network was trained, when and by which build. <code>synecho explain</code> reads it.</p>\n";
    body += &folded(
        "more",
        "The resolved spec (<code>resolved.toml</code>), with all defaults",
        &format!("<pre>{}</pre>\n", escape(&meta.resolved_toml)),
    );
    Section { id: "run", title: "Settings and versions", body }
}

fn files(content: &PageContent) -> Section {
    let generated = match content.input.generators.is_empty() {
        true => "",
        false => ", and those of synthetic images per class and overall",
    };
    let body = format!(
        "<ul>\n\
        <li><a href=\"{MEASUREMENTS}\">{MEASUREMENTS}</a>: every value behind the tables, per image, per patient and overall{generated}. pandas and polars read it directly.</li>\n\
        <li><a href=\"{CURVES}\">{CURVES}</a>: every point of the training curves.</li>\n\
        <li><a href=\"{RESOLVED}\">{RESOLVED}</a>: the spec that reproduces this report.</li>\n\
        <li><a href=\"{DESCRIPTION}\">{DESCRIPTION}</a>: the rest of what this page shows. <code>synecho report --from</code> redraws the report from these files.</li>\n</ul>\n"
    );
    Section { id: "data", title: "Data files", body }
}
