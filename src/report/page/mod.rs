//! `index.html`: one file that opens offline and holds the whole report.

use super::{
    Figure, PHANTOM, ReportInput,
    comparisons::Compared,
    folder::{CURVES, DESCRIPTION, MEASUREMENTS, RESOLVED},
    generators::{GENERATORS, ReportedGenerator},
};
use crate::{
    aggregate::{Score, Table, TableCell, also, answer, findings, training_images},
    vocabulary::{FigureFormat, Metric, Task},
};

const STYLE: &str = include_str!("style.css");

/// The metrics of segmentation that are not in the foreground.
fn details() -> impl Iterator<Item = Metric> {
    Metric::of_images(Task::Segmentation).filter(|metric| !metric.is_main())
}

/// Whether a table is folded away: undefined values, and what is not in the foreground.
fn is_folded(table: &str) -> bool {
    table == "failures"
        || details().map(Score::segmentation).any(|score| {
            [score.file("comparisons"), format!("{}_{}", score.task, score.metric)]
                .contains(&table.to_owned())
        })
}

/// Text for HTML, in elements and in quoted attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c => out.push(c),
        }
    }
    out
}

fn paragraphs(class: &str, lines: &[String]) -> String {
    lines.iter().map(|line| format!("<p class=\"{class}\">{}</p>\n", escape(line))).collect()
}

fn list(items: &[String]) -> String {
    let items: String = items.iter().map(|item| format!("<li>{}</li>", escape(item))).collect();
    format!("<ul>{items}</ul>\n")
}

/// A paragraph a line, where there are several.
fn lines(text: &str) -> String {
    match text.contains('\n') {
        true => text.lines().map(|line| format!("<p>{}</p>", escape(line))).collect(),
        false => escape(text),
    }
}

fn pairs(pairs: &[(String, String)]) -> String {
    let rows: String = pairs
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(name), lines(value)))
        .collect();
    format!("<dl>\n{rows}</dl>\n")
}

fn table(table: &Table) -> String {
    let class = |i: usize| if table.is_numeric(i) { " class=\"num\"" } else { "" };
    let heads: String = table
        .columns
        .iter()
        .enumerate()
        .map(|(i, column)| format!("<th scope=\"col\"{}>{}</th>", class(i), escape(column)))
        .collect();
    let rows: String = table
        .rows
        .iter()
        .map(|row| {
            let cells: String =
                row.iter().enumerate().map(|(i, cell)| html_cell(cell, table.decimals, class(i))).collect();
            format!("<tr>{cells}</tr>\n")
        })
        .collect();
    let files: Vec<String> = [("md", "Markdown"), ("csv", "CSV"), ("tex", "LaTeX")]
        .iter()
        .map(|(end, name)| format!("<a href=\"tables/{}.{end}\">{name}</a>", escape(&table.name)))
        .collect();
    format!(
        "<section class=\"table\" id=\"table-{}\">\n<h3>{}</h3>\n<p class=\"caption\">{}</p>\n<div class=\"scroll\"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n{}<p class=\"files\">{}</p>\n</section>\n",
        escape(&table.name),
        escape(&table.title),
        escape(&table.caption),
        paragraphs("note", &table.notes),
        files.join(" · "),
    )
}

fn html_cell(cell: &TableCell, decimals: usize, class: &str) -> String {
    let (first, second) = cell.parts(decimals);
    let second =
        if second.is_empty() { String::new() } else { format!("<small>{}</small>", escape(&second)) };
    format!("<td{class}>{}{second}</td>", escape(&first))
}

fn figure(figure: &Figure, svg: &str, formats: &[FigureFormat], phantom: bool) -> String {
    let label = escape(&figure.title);
    // Inside the page the picture scales with the column; the file beside it keeps its size in inches.
    let (_, inner) = svg.split_once(" viewBox").unwrap_or(("", svg));
    let svg = format!(
        "<svg role=\"img\" aria-label=\"{label}\" style=\"max-width:{:.0}px\" viewBox{inner}",
        figure.scene.width * 1.78
    );
    let said = if phantom { format!(" {PHANTOM}") } else { String::new() };
    let links: Vec<String> = figure
        .files()
        .map(|(name, scene)| {
            let name = escape(&name);
            let width = scene.width / 72.0 * 25.4;
            let links: Vec<String> = formats
                .iter()
                .map(|format| format!("<a href=\"figures/{name}.{format}\">{}</a>", format.label()))
                .collect();
            format!("{width:.0} mm wide: {}", links.join(" · "))
        })
        .collect();
    format!(
        "<figure id=\"figure-{name}\">\n<h3>{label}</h3>\n<div class=\"plot\">{svg}</div>\n<figcaption>{}{said}</figcaption>\n<p class=\"files\">{}</p>\n</figure>\n",
        escape(&figure.caption),
        links.join("<br>"),
        name = escape(&figure.name),
    )
}

/// What was asked, in a table of facts.
fn asked(input: &ReportInput) -> Vec<(String, String)> {
    let mut facts = Vec::new();
    if input.meta.arms.iter().any(|arm| arm.synthetic.is_some()) {
        facts.push(("Question".to_owned(), "Do synthetic images help to train a network? The arms differ in their training images and in how these are used, as said below; they are compared on the same held-out patients.".to_owned()));
    }
    facts.push(("Data".to_owned(), input.meta.data_description.clone()));
    for task in Task::OF_ARMS {
        let models: Vec<_> = input.models.iter().filter(|m| m.cell.task == task).collect();
        let Some(first) = models.first() else { continue };
        let counted = |name: &String| {
            let model = &models.iter().find(|m| m.cell.model == *name)?.summary;
            let trained = match model.trainable == model.parameters {
                true => String::new(),
                false => format!(" ({} trained)", grouped(model.trainable)),
            };
            Some(format!("{name}, {} parameters{trained}", grouped(model.parameters)))
        };
        let names = super::distinct(models.iter().map(|m| m.cell.model.as_str()));
        let mut text = names.iter().filter_map(counted).collect::<Vec<_>>().join("; ");
        if let Some((_, how)) = input.meta.methods.iter().find(|(of, _)| *of == task) {
            text += &format!("; {how}");
        }
        text += &format!(
            "; preset {}, {}; checkpoint chosen by {} on {} validation patients, tested on {} test patients ({} images)",
            first.preset,
            first.summary.precision,
            first.selection_label(),
            first.summary.val_patients,
            first.test_patients,
            first.test_images
        );
        let steps: Vec<u64> = models.iter().map(|m| m.summary.steps).collect();
        text += &match (steps.iter().min(), steps.iter().max()) {
            (Some(least), Some(most)) if least == most => {
                format!("; every network trained for {} optimizer steps", grouped(*most))
            }
            (Some(least), Some(most)) => {
                format!("; trained for {} to {} optimizer steps", grouped(*least), grouped(*most))
            }
            _ => String::new(),
        };
        facts.push((task.title().to_owned(), text));
    }
    let arms: Vec<String> = super::arms(input)
        .iter()
        .map(|arm| {
            let info = input.meta.arms.iter().find(|info| info.name == *arm);
            let what = info.map_or("", |info| info.what.as_str());
            let images =
                input.models.iter().find(|m| m.cell.arm == *arm).map(|m| training_images(&m.summary));
            let words: Vec<&str> =
                [what, images.as_deref().unwrap_or_default()].into_iter().filter(|w| !w.is_empty()).collect();
            format!("{arm}: {}", words.join(" (")) + if words.len() == 2 { ")" } else { "" }
        })
        .collect();
    facts.push(("Arms, and what each is trained on".to_owned(), arms.join("\n")));
    let generators: Vec<String> = input.generators.iter().map(generator_words).collect();
    facts.push(("Synthetic images".to_owned(), generators.join("\n")));
    let seeds: Vec<String> = input.meta.seeds.iter().map(u64::to_string).collect();
    let drawn = "each draws the first weights, the order of the images, and whatever an arm says is drawn";
    facts.push(("Seeds".to_owned(), format!("{} ({drawn})", seeds.join(", "))));
    facts
}

/// What a generator is, and how it came to its images.
fn generator_words(g: &ReportedGenerator) -> String {
    let mode = if g.name == g.mode { String::new() } else { format!(" ({})", g.mode) };
    let mut words = format!("{}{mode}: {} images", g.name, grouped(g.images));
    if !g.made_from.is_empty() {
        words += &format!(", {}", g.made_from);
    }
    if let Some(s) = &g.summary {
        words += &format!(
            ". A diffusion model, trained on {} training patients ({} images) and nobody else: {} steps of {} images at {} px; {} parameters",
            grouped(s.train_patients),
            grouped(s.train_images),
            grouped(s.steps),
            grouped(s.batch),
            s.image_size,
            grouped(s.parameters)
        );
    }
    words
}

/// What came of the comparisons: by each task's first score in full, by its others in a line each.
fn found(input: &ReportInput, compared: &[Compared]) -> Vec<(String, String)> {
    let meta = &input.meta;
    let mut facts: Vec<(String, String)> = Vec::new();
    for c in compared {
        let name = c.score.task.title();
        if facts.iter().any(|(known, _)| known == name) {
            continue;
        }
        let mut steps = input.models.iter().filter(|m| m.cell.task == c.score.task).map(|m| m.summary.steps);
        let first = steps.next();
        let answer = answer(&c.found, &meta.arms, &c.score, steps.all(|n| Some(n) == first));
        let others =
            compared.iter().filter(|other| other.score.task == c.score.task && other.score != c.score);
        let others = others.filter_map(|other| also(&other.found, &meta.arms, &other.score));
        let lines = findings(&c.found, &c.score, &c.split, &c.unit);
        facts.extend(lines.map(|lines| {
            let all: Vec<String> = answer.into_iter().flatten().chain(others).chain(lines).collect();
            (name.to_owned(), all.join("\n"))
        }));
    }
    if !facts.is_empty() {
        let mut reading = "In brackets: 95 % interval over patients. An arm is called better or worse (higher or lower) only after a paired test over the same patients, corrected for the number of comparisons by the same score, and only where the difference has the same sign with every seed. No significant difference does not mean that two arms are equal.".to_owned();
        let seeds = compared
            .iter()
            .flat_map(|c| &c.found)
            .map(|c| c.per_seed.len())
            .filter(|n| *n > 1)
            .min()
            .unwrap_or_default();
        if (2..=5).contains(&seeds) {
            reading += &format!(
                " The test is of patients, not of trainings: {seeds} seeds of two equal arms agree in sign by chance {} times in a hundred, so a difference no larger than those between one arm's seeds is to be read with care.",
                (200.0 / 2f64.powi(seeds as i32)).round()
            );
        }
        facts.push(("How to read it".to_owned(), reading));
        let mut limits = meta.limits.clone();
        limits.push("The results hold for these networks, images and patients: another generator, another number of real images or another training may give others.".to_owned());
        facts.push(("How far it reaches".to_owned(), limits.join("\n")));
    }
    facts
}

/// `664 282`, with spaces that do not break.
fn grouped(n: u64) -> String {
    super::axes::tick_label(n as f64, 0)
}

/// The whole page.
pub(super) fn page(
    input: &ReportInput,
    figures: &[(&Figure, String)],
    formats: &[FigureFormat],
    tables: &[Table],
    compared: &[Compared],
) -> String {
    let meta = &input.meta;
    let title = if meta.title.is_empty() { &meta.name } else { &meta.title };
    let mut nav = Vec::new();
    let mut body = String::new();
    let sections = Task::OF_ARMS.map(|task| (task.as_str(), task.title()));
    for (task, name) in sections.into_iter().chain([(GENERATORS, "Generators")]) {
        let own = |stem: &str| stem == task || stem.starts_with(&format!("{task}_"));
        let tables: Vec<&Table> = tables
            .iter()
            .filter(|t| own(&t.name) || (task == Task::Segmentation.as_str() && t.name == "failures"))
            .collect();
        let figures: Vec<_> = figures.iter().filter(|(f, _)| own(&f.name)).collect();
        if tables.is_empty() && figures.is_empty() {
            continue;
        }
        nav.push((task, name));
        body += &format!("<h2 id=\"{task}\">{name}</h2>\n");
        // The first table and its plots are what one came for; the other distances can wait.
        let (first, later): (Vec<&Table>, Vec<&Table>) =
            tables.into_iter().partition(|t| !is_folded(&t.name));
        first.into_iter().for_each(|t| body += &table(t));
        if !later.is_empty() {
            let undefined = later.iter().any(|t| t.name == "failures");
            let only_distances = details().all(Metric::is_distance);
            let what = if only_distances { "More distances" } else { "More measures" };
            let more = if undefined { format!("{what}, and undefined values") } else { what.to_owned() };
            body += &format!("<details><summary>{more}</summary>\n");
            later.into_iter().for_each(|t| body += &table(t));
            body += "</details>\n";
        }
        figures.into_iter().for_each(|(f, svg)| body += &figure(f, svg, formats, meta.is_phantom));
    }
    if body.is_empty() {
        body += "<p>No results yet.</p>\n";
    }
    if let Some(published) = tables.iter().find(|t| t.name == "published") {
        body += "<h2 id=\"published\">What others have published</h2>\n";
        let theirs = published.columns.iter().position(|column| column == "Published");
        let entered = published
            .rows
            .iter()
            .any(|row| theirs.is_some_and(|i| matches!(row[i], TableCell::Number { .. })));
        body += &match entered {
            true => table(published),
            false => format!(
                "<details><summary>Nothing was entered: {} figures not verified</summary>\n{}</details>\n",
                published.rows.len(),
                table(published)
            ),
        };
    }
    if let Some(training) = tables.iter().find(|t| t.name == "training") {
        nav.push(("networks", "Networks"));
        body += &format!("<h2 id=\"networks\">What was trained on what</h2>\n{}", table(training));
    }
    nav.push(("run", "How it was run"));
    body += "<h2 id=\"run\">How it was run</h2>\n";
    let mut run = meta.settings.clone();
    run.push(("Program's commit".to_owned(), meta.commit.clone()));
    run.extend(meta.versions.iter().cloned());
    body += &pairs(&run);
    body += &list(&meta.notes).replace("<ul></ul>\n", "");
    body += "<p class=\"note\">From what, when and by which build each network was trained: <a href=\"stages.json\">stages.json</a>, or <code>synecho explain</code> with this report's folder.</p>\n";
    body += &format!(
        "<details><summary>The whole spec, every default filled in (<code>resolved.toml</code>)</summary>\n<pre>{}</pre>\n</details>\n",
        escape(&meta.resolved_toml)
    );
    nav.push(("data", "Data files"));
    let generated =
        if input.generators.is_empty() { "" } else { "; of synthetic images per class and over all" };
    body += &format!(
        "<h2 id=\"data\">Data files</h2>\n<ul>\n\
        <li><a href=\"{MEASUREMENTS}\">{MEASUREMENTS}</a> (pandas and polars read it as it is): every value behind the tables, per image, per patient and over all{generated}</li>\n\
        <li><a href=\"{CURVES}\">{CURVES}</a>: every point of the training curves</li>\n\
        <li><a href=\"{RESOLVED}\">{RESOLVED}</a>: the spec that makes this report again</li>\n\
        <li><a href=\"{DESCRIPTION}\">{DESCRIPTION}</a>: all else that this page shows; <code>synecho report --from</code> redraws the report from these files</li>\n</ul>\n"
    );
    let banner = if meta.is_phantom {
        format!(
            "<p class=\"banner\" role=\"note\"><strong>Phantom.</strong> {PHANTOM} The numbers show that the machinery works, not how well a network reads echocardiograms.</p>\n"
        )
    } else {
        String::new()
    };
    let warnings = if meta.warnings.is_empty() {
        String::new()
    } else {
        format!(
            "<aside class=\"warnings\" aria-label=\"Warnings\"><h2>Warnings</h2>{}</aside>\n",
            list(&meta.warnings)
        )
    };
    let nav: String = nav.iter().map(|(id, name)| format!("<a href=\"#{id}\">{name}</a>")).collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n<p class=\"kicker\">Synecho report · {name}</p>\n<h1>{title}</h1>\n{banner}</header>\n<nav aria-label=\"Contents\">{nav}</nav>\n<main>\n<h2 id=\"asked\">What was asked</h2>\n{asked}{warnings}{found}{body}</main>\n</body>\n</html>\n",
        title = escape(title),
        name = escape(&meta.name),
        asked = pairs(&asked(input)),
        found = match found(input, compared) {
            facts if facts.is_empty() => String::new(),
            facts => format!("<h2 id=\"found\">What was found</h2>\n{}", pairs(&facts)),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped() {
        assert_eq!(escape("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
    }
}
