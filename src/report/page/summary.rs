//! The head of the page: the question, the answer, the figure and the numbers behind it, examples, limits, and what to
//! cite.

use super::{
    PageContent,
    markup::{caption, escape, folded, inline, list},
};
use crate::{
    aggregate::{
        Answer, Claim, Comparison, Question, Score, TaskResults, comparison::p_words, number, plural,
        reported_split,
    },
    error::Result,
    report::{
        Figure, PHANTOM, distinct,
        generators::{GENERATORS, closeness::Closeness, over_all},
        samples, svg,
    },
    vocabulary::{Metric, Source, Structure, Task},
};

/// Pixels per point of a figure beside its table, and of one in a narrow window.
const BESIDE: f64 = 1.85;

/// How many limits the head has room for.
const LIMITS: usize = 3;

/// The head of the page, and the names of the figures in it.
pub(super) struct PageHead {
    pub html: String,
    pub figures: Vec<String>,
}

pub(super) fn head(content: &PageContent) -> Result<PageHead> {
    let meta = &content.input.meta;
    let tasks = content.tasks();
    let title = if meta.title.is_empty() { &meta.name } else { &meta.title };
    let question = Question::of(&meta.arms, &tasks, content.input.generators.len());
    let closeness = Closeness::of(content.input, content.rows);
    let answers = match question {
        Question::Generators => vec![generators_answer(content, closeness.as_ref())],
        Question::Nothing => vec![(String::new(), nothing())],
        _ => task_answers(content, &tasks),
    };
    let answers: String = answers.iter().map(|(task, answer)| verdict(task, answer)).collect();
    let banner = if meta.is_phantom { format!("<p class=\"banner\">{PHANTOM}</p>\n") } else { String::new() };
    let mut html = format!(
        "<header>\n<p class=\"kicker\">Synecho report: {}</p>\n<h1>{}</h1>\n<p class=\"facts\">{}</p>\n{banner}<section id=\"verdict\" aria-label=\"Answer\">\n{answers}</section>\n</header>\n<main>\n",
        escape(title),
        escape(&question.words(&tasks)),
        joined(&facts(content, question, &tasks)),
    );
    let mut figures = Vec::new();
    let sections = match question {
        Question::Generators => vec![GENERATORS],
        _ => tasks.iter().map(|task| task.as_str()).collect(),
    };
    for section in sections {
        let is_own = |figure: &&(&Figure, String)| figure.0.name.starts_with(&format!("{section}_"));
        let Some((figure, _)) = content.figures.iter().filter(is_own).find(|f| f.0.head.is_some()) else {
            continue;
        };
        let numbers = match (section.parse::<Task>(), &closeness) {
            (Ok(task), _) => task_numbers(content, task),
            (Err(_), Some(closeness)) => distance_numbers(closeness),
            (Err(_), None) => String::new(),
        };
        html += &beside(content, figure, &numbers, figures.is_empty())?;
        figures.push(figure.name.clone());
    }
    html += &examples(content)?;
    html += &warnings(&meta.warnings);
    html += &format!("<section class=\"limits\">\n<h2>Limits</h2>\n{}</section>\n", list(&limits(content)));
    html += &format!("<p class=\"citation\">{}</p>\n", escape(&citation(content)));
    Ok(PageHead { html, figures })
}

/// `2026-11-30 · commit 0123456789ab · CAMUS · n = 50 test patients, 200 images · 3 seeds`.
fn facts(content: &PageContent, question: Question, tasks: &[Task]) -> String {
    let meta = &content.input.meta;
    let commit: String = meta.commit.chars().take(12).collect();
    let data = if meta.is_phantom { Some(Source::Phantom) } else { meta.source };
    let mut facts = vec![meta.date.clone()];
    facts.push(if commit.is_empty() { commit } else { format!("commit {commit}") });
    facts.push(data.map_or(String::new(), |source| source.name().to_owned()));
    let sizes = tasks.iter().filter_map(|task| {
        let model = content.input.models.iter().find(|m| m.cell.task == *task)?;
        let split = reported_split(content.rows, *task).unwrap_or_default();
        Some(format!(
            "n = {} {split} patients, {}",
            model.test_patients,
            plural(model.test_images, "image", "images")
        ))
    });
    if question == Question::Generators {
        let images: u64 = content.input.generators.iter().map(|g| g.images).sum();
        let generators = content.input.generators.len() as u64;
        facts.push(format!("n = {images} images of {}", plural(generators, "generator", "generators")));
    } else if !tasks.is_empty() {
        let sizes: Vec<String> = sizes.collect();
        facts.extend(distinct(sizes.iter().map(String::as_str)));
        facts.push(plural(meta.seeds.len() as u64, "seed", "seeds"));
    }
    facts.retain(|fact| !fact.is_empty());
    facts.join(" · ")
}

/// Text for HTML in which `n = 50` and `p < 0.001` do not break.
fn joined(text: &str) -> String {
    let text = ["n = ", "p = ", "p < ", " %"]
        .into_iter()
        .fold(text.to_owned(), |text, words| text.replace(words, &words.replace(' ', "\u{a0}")));
    escape(&text)
}

/// `task`: its name where there are several.
fn verdict(task: &str, answer: &Answer) -> String {
    let task = match task.is_empty() {
        true => String::new(),
        false => format!("<span class=\"task\">{}</span> ", escape(task)),
    };
    format!(
        "<p class=\"verdict {}\"><span class=\"sign\" aria-hidden=\"true\">{}</span><span class=\"words\">{task}<strong>{}</strong> {}</span></p>\n",
        answer.outcome.as_str(),
        answer.outcome.sign(),
        joined(&answer.word),
        joined(&answer.sentence)
    )
}

fn nothing() -> Answer {
    Answer {
        outcome: Claim::Untested,
        word: "No results yet.".to_owned(),
        sentence: "Nothing was trained or measured.".to_owned(),
    }
}

/// The results of a task by its main score.
fn results<'a>(content: &'a PageContent, task: Task, split: &'a str) -> TaskResults<'a> {
    let score = Score::main(task);
    let compared = content.compared.iter().find(|c| c.score == score);
    TaskResults {
        score,
        split,
        unit: compared.map_or("", |c| c.unit.as_str()),
        comparisons: compared.map_or(&[], |c| c.found.as_slice()),
        arms: &content.input.meta.arms,
        rows: content.rows,
    }
}

fn task_answers(content: &PageContent, tasks: &[Task]) -> Vec<(String, Answer)> {
    let name = |task: Task| if tasks.len() > 1 { task.title().to_owned() } else { String::new() };
    let answer = |task: Task| {
        let split = reported_split(content.rows, task)?;
        results(content, task, &split).answer()
    };
    let unscored = || Answer {
        outcome: Claim::Untested,
        word: "No score.".to_owned(),
        sentence: "No test image has a defined value.".to_owned(),
    };
    tasks.iter().map(|task| (name(*task), answer(*task).unwrap_or_else(unscored))).collect()
}

fn generators_answer(content: &PageContent, closeness: Option<&Closeness>) -> (String, Answer) {
    let generators = &content.input.generators;
    let judged = generators.iter().filter_map(|g| {
        let dice = over_all(content.rows, g, Structure::MEAN, Metric::Dice)?;
        Some((g, dice.value, dice.n.unwrap_or_default()))
    });
    let best = judged.filter(|(_, dice, _)| dice.is_finite()).max_by(|a, b| a.1.total_cmp(&b.1));
    let answer = closeness.and_then(Closeness::answer).unwrap_or_else(|| Answer {
        outcome: Claim::Untested,
        word: "Not known: no distance from real images was measured.".to_owned(),
        sentence: match best {
            Some((g, dice, n)) => format!(
                "A network that was trained on real images only finds the control masks again with a Dice of {} in the images of “{}” (n = {n}).",
                number(dice, 3),
                g.name
            ),
            None => format!(
                "This experiment made images with {}.",
                plural(generators.len() as u64, "generator", "generators")
            ),
        },
    });
    (String::new(), answer)
}

/// A figure and the numbers beside it.
fn beside(content: &PageContent, figure: &Figure, numbers: &str, is_first: bool) -> Result<String> {
    let mut plots = String::new();
    let narrow = figure.narrow.as_ref().map(|scene| (scene, "narrow"));
    let wide = figure.head.as_ref().map(|scene| (scene, if narrow.is_some() { "wide" } else { "drawing" }));
    for (scene, class) in wide.into_iter().chain(narrow) {
        plots += &inline(&svg::svg(scene)?, class, &figure.title, scene.width * BESIDE);
    }
    let id = if is_first { " id=\"first-figure\"" } else { "" };
    let reading = folded(
        "reading",
        "How to read this figure; files",
        &caption(figure, content.formats, content.input.meta.is_phantom),
    );
    Ok(format!(
        "<section class=\"pair\">\n<figure class=\"head\" id=\"figure-{}\">\n<h2>{}</h2>\n<div class=\"plot\"{id}>{plots}</div>\n{reading}</figure>\n{numbers}</section>\n",
        escape(&figure.name),
        escape(&figure.title)
    ))
}

/// A small table: heads, and rows of HTML.
fn numbers(heads: &[&str], rows: &str, note: &str) -> String {
    let heads: String = heads
        .iter()
        .enumerate()
        .map(|(i, head)| {
            let class = if i == 0 { "" } else { " class=\"num\"" };
            format!("<th scope=\"col\"{class}>{}</th>", escape(head))
        })
        .collect();
    format!(
        "<div class=\"numbers\"><div class=\"scroll\"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n<p class=\"note\">{}</p></div>\n",
        escape(note)
    )
}

/// The scores of a task's first model: arm, score, difference, p.
fn task_numbers(content: &PageContent, task: Task) -> String {
    let Some(split) = reported_split(content.rows, task) else { return String::new() };
    let results = results(content, task, &split);
    let scored = results.scored();
    let Some(model) = scored.first().map(|s| s.model.clone()) else { return String::new() };
    let decimals = results.score.metric.decimals();
    let score = |arm: &str| results.estimate(arm, &model).map(|e| number(e.mean, decimals));
    let interval = |i: Option<(f64, f64)>| {
        i.map_or(String::new(), |(low, high)| {
            format!("<small>[{}, {}]</small>", number(low, decimals), number(high, decimals))
        })
    };
    let label = results.score.label();
    let others = scored.iter().any(|s| s.model != model);
    let which = if others { format!(" Network: {model}; the others are below.") } else { String::new() };
    let compared: Vec<&Comparison> = results.comparisons.iter().filter(|c| c.model == model).collect();
    if compared.is_empty() {
        let row = |s: &crate::aggregate::ScoredArm| {
            format!(
                "<tr><td>{}</td><td class=\"num\">{}{}</td><td class=\"num\">{}</td></tr>\n",
                escape(&s.arm),
                number(s.estimate.mean, decimals),
                interval(s.estimate.interval),
                s.estimate.patients
            )
        };
        let rows: String = scored.iter().filter(|s| s.model == model).map(row).collect();
        return numbers(
            &["Arm", label, "Patients"],
            &rows,
            &format!("In brackets: 95 % interval over patients.{which}"),
        );
    }
    let mut rows = String::new();
    for group in compared.chunk_by(|a, b| a.against == b.against) {
        let against = &group[0].against;
        rows += &format!(
            "<tr class=\"group\"><td>against {}</td><td class=\"num\">{}</td><td></td><td></td></tr>\n",
            escape(against),
            score(against).unwrap_or_default()
        );
        for c in group {
            rows += &format!(
                "<tr><td>{}</td><td class=\"num\">{}</td><td class=\"num\">{}{}</td><td class=\"num\">{}<small class=\"{}\">{} {}</small></td></tr>\n",
                escape(&c.arm),
                score(&c.arm).unwrap_or_default(),
                number(c.difference, decimals),
                interval(c.interval),
                c.holm.map_or("–".to_owned(), |p| escape(
                    p_words(p).trim_start_matches("p = ").trim_start_matches("p ")
                )),
                c.outcome(&results.score).as_str(),
                c.outcome(&results.score).sign(),
                c.claim(&results.score),
            );
        }
    }
    let direction = if results.score.higher_is_better() { "higher" } else { "lower" };
    let note = format!(
        "Difference: paired over patients, in brackets its 95 % interval; {direction} is better. p: Wilcoxon's signed-rank test, Holm's correction.{which}"
    );
    numbers(&["Arm", label, "Difference", "p"], &rows, &note)
}

fn distance_numbers(closeness: &Closeness) -> String {
    let row = |set: &crate::aggregate::MeasuredDistance| {
        let interval = set.interval.map_or(String::new(), |(low, high)| {
            format!("<small>[{}, {}]</small>", number(low, 2), number(high, 2))
        });
        format!(
            "<tr><td>{}</td><td class=\"num\">{}{interval}</td><td class=\"num\">{}</td></tr>\n",
            escape(&set.name),
            number(set.value, 2),
            set.n
        )
    };
    let group = |name: &str| format!("<tr class=\"group\"><td>{name}</td><td></td><td></td></tr>\n");
    let references: String = closeness.references.iter().map(row).collect();
    let generators: String = closeness.generators.iter().map(row).collect();
    let rows = format!("{}{references}{}{generators}", group("For the scale"), group("Generators"));
    numbers(
        &["Images", closeness.label(), "n"],
        &rows,
        "In brackets: 95 % interval. Lower is closer to real images.",
    )
}

/// Pictures, or why there are none. Empty where there are neither tasks nor generators.
fn examples(content: &PageContent) -> Result<String> {
    let input = content.input;
    if content.tasks().is_empty() && input.generators.is_empty() {
        return Ok(String::new());
    }
    if !(input.meta.is_phantom || input.meta.samples) {
        let words = match input.meta.source.map(|source| (source.name(), source.licence())) {
            Some((name, licence)) if !licence.is_empty() => {
                format!("No pictures: {name} has the licence {licence}, so its images are not shown.")
            }
            _ => "No pictures: reports show images of patients only where the spec asks for them (report.pictures).".to_owned(),
        };
        return Ok(format!("<p class=\"pictures\">{words}</p>\n"));
    }
    let mut cells = String::new();
    for (name, scene) in samples::strip(input) {
        let picture = inline(&svg::svg(&scene)?, "picture", &name, 150.0);
        cells += &format!("<figure>{picture}<figcaption>{}</figcaption></figure>\n", escape(&name));
    }
    match cells.is_empty() {
        true => Ok(String::new()),
        false => Ok(format!("<section class=\"strip\" aria-label=\"Examples\">\n{cells}</section>\n")),
    }
}

fn warnings(warnings: &[String]) -> String {
    match warnings.is_empty() {
        true => String::new(),
        false => format!(
            "<aside class=\"warnings\" aria-label=\"Warnings\"><h2>Warnings</h2>{}</aside>\n",
            list(warnings)
        ),
    }
}

/// Three limits of one line each.
fn limits(content: &PageContent) -> Vec<String> {
    let input = content.input;
    let mut limits = Vec::new();
    if input.meta.is_phantom {
        limits.push(
            "The numbers show that the program works, not how well a network reads echocardiograms."
                .to_owned(),
        );
    }
    let first = |limit: &String| match limit.split_once(". ") {
        Some((first, _)) => format!("{first}."),
        None => limit.clone(),
    };
    limits.extend(input.meta.limits.iter().map(first));
    let seeds = input.meta.seeds.len() as u64;
    let patients = input.models.iter().map(|m| m.test_patients).max().unwrap_or_default();
    if patients > 0 {
        limits.push(format!(
            "{} of one data set were tested; other patients may give other results.",
            plural(patients, "patient", "patients")
        ));
        limits.push(match seeds {
            0 | 1 => "One seed per arm: the spread between trainings is not known.".to_owned(),
            n => format!("{n} seeds per arm: luck in training is not excluded."),
        });
    }
    limits.push(
        match input.generators.is_empty() {
            true => "Another network or other training images may give other results.",
            false => "Another generator, network or number of real images may give other results.",
        }
        .to_owned(),
    );
    limits.truncate(LIMITS);
    limits
}

fn citation(content: &PageContent) -> String {
    let meta = &content.input.meta;
    match meta.source {
        _ if meta.is_phantom => "Data: the phantom that is built into Synecho.".to_owned(),
        Some(source) if !source.citation().is_empty() => {
            format!("Data: {} Licence: {}.", source.citation(), source.licence())
        }
        Some(_) => "Data: own images. Cite their source.".to_owned(),
        None => "Data: source not recorded.".to_owned(),
    }
}
