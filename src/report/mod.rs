//! Figures, tables and one HTML page from rows of results. Same input, same bytes.
//!
//! A figure is laid out once as a list of shapes (`scene`) and drawn as SVG (`svg`), PDF (`pdf`) and PNG (`render`).
//! `page` puts figures and tables together.

mod axes;
mod boxes;
mod comparisons;
mod confusion;
mod convergence;
mod dots;
#[cfg(test)]
pub(crate) mod fake;
mod folder;
mod forest;
pub mod generators;
pub mod lineage;
mod multiples;
mod nan_as_null;
mod page;
mod pdf;
mod picture_data;
mod ratio;
mod render;
mod samples;
mod scene;
mod scores;
mod svg;
mod terminal;
mod ventricle;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use crate::aggregate::{ArmInfo, TrainedNetwork};
use crate::{
    aggregate::{self, Score, Table},
    picture::Picture,
    results::{CurvePoint, Measurement},
    vocabulary::{FigureFormat, Metric, Source, Task},
};
pub use folder::{draw, earlier_key, is_current, is_report, read, remove_half_written, save};
pub use terminal::results;

/// The page that holds everything.
pub const PAGE: &str = "index.html";

/// Every value behind the report, gzipped: one row per image, structure and measure soon makes ten megabytes.
const MEASUREMENTS: &str = "measurements.csv.gz";

/// Every point of the training curves, gzipped.
const CURVES: &str = "curves.csv.gz";

/// All that the page shows besides rows, points and stages: the experiment, its networks and generators in words and
/// counts, and (of a phantom) pictures.
const DESCRIPTION: &str = "report.json";

/// The spec with every default filled in.
const RESOLVED: &str = "resolved.toml";

/// What the page says about the experiment besides its results.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportMeta {
    /// The experiment's name, and the heading of the page.
    pub name: String,
    pub title: String,
    /// The key of the stage that gathered the data; empty where unknown.
    pub key: String,
    /// The day on which the last network was trained, `2026-11-30` (UTC); empty where unknown.
    pub date: String,
    /// Drawn from a phantom: the head of the page and every table and figure state it.
    pub is_phantom: bool,
    /// Where the images come from; None where unknown.
    pub source: Option<Source>,
    /// A sentence or two: which data, how many patients, which split.
    pub data_description: String,
    /// The spec with every default filled in, as TOML: a file of its own.
    #[serde(skip)]
    pub resolved_toml: String,
    /// (library, version).
    pub versions: Vec<(String, String)>,
    /// Git commit of the program; empty where unknown.
    pub commit: String,
    pub seeds: Vec<u64>,
    /// What each arm was trained on, in the order of the spec; without it no arms are compared.
    pub arms: Vec<ArmInfo>,
    /// (task, how its networks are trained, in words).
    pub methods: Vec<(Task, String)>,
    /// Differences that count as none, by the score's word in the spec.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub margins: BTreeMap<String, f64>,
    /// How far the results reach, the most telling first. The head of the page shows the first sentence of three.
    pub limits: Vec<String>,
    /// (setting, value): presets and the switches that decide how the tasks are trained.
    pub settings: Vec<(String, String)>,
    pub notes: Vec<String>,
    /// Shown at the head of the page.
    pub warnings: Vec<String>,
    /// Show pictures although they are not a phantom's. Never commit such a report.
    pub samples: bool,
}

/// One row of the qualitative panel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PanelItem {
    /// `Best`, `Median` or `Worst`, and which image of which arm it is.
    pub caption: String,
    pub image: Picture,
    /// Class indices.
    pub truth: Picture,
    pub prediction: Picture,
    /// (structure, Dice); NaN where undefined.
    #[serde(with = "nan_as_null")]
    pub dice: Vec<(String, f64)>,
}

/// All that a report is drawn from.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportInput {
    pub meta: ReportMeta,
    /// As measured: rows per image, and what the measuring stage gives over all; or the whole table, as the data file
    /// has it.
    #[serde(skip)]
    pub measurements: Vec<Measurement>,
    #[serde(skip)]
    pub curves: Vec<CurvePoint>,
    /// In the order in which arms are shown.
    pub models: Vec<TrainedNetwork>,
    /// Shown only of a phantom, or where [`ReportMeta::samples`] asks for it.
    pub panel: Vec<PanelItem>,
    pub generators: Vec<generators::ReportedGenerator>,
    /// What looked at the generators' images.
    pub judges: Vec<generators::Judge>,
    /// Where distances from real images were measured.
    pub distances: Option<generators::distances::DistanceSettings>,
    /// Figures of others; None: none are shown, not even as missing.
    pub published: Option<Vec<aggregate::published::Published>>,
    /// What every number comes from.
    #[serde(skip)]
    pub lineage: lineage::Lineage,
}

/// A figure with its words; `name` is the file's stem.
struct Figure {
    name: String,
    title: String,
    caption: String,
    /// As the page shows it: two columns of a journal wide, or one.
    scene: scene::Scene,
    /// The same for one column, where there is room for it: the file `NAME_column`.
    narrow: Option<scene::Scene>,
    /// The same for the head of the page, [`HEAD`] wide, where it may stand there.
    head: Option<scene::Scene>,
}

/// The width of a figure that stands beside a table in the head of the page, in points.
const HEAD: f64 = 300.0;

impl Figure {
    /// The files' stems, and what is in them.
    fn files(&self) -> impl Iterator<Item = (String, &scene::Scene)> {
        let narrow = self.narrow.iter().map(|scene| (format!("{}_column", self.name), scene));
        std::iter::once((self.name.clone(), &self.scene)).chain(narrow)
    }
}

/// One task and model, with the arms of the whole report: an arm looks the same in every figure.
struct TaskModel<'a> {
    task: Task,
    model: &'a str,
    /// The task has other models too, so names must tell them apart.
    several: bool,
    arms: &'a [String],
}

impl TaskModel<'_> {
    fn file(&self, what: &str) -> String {
        if !self.several {
            return format!("{}_{what}", self.task);
        }
        let model: String = self
            .model
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .collect();
        format!("{}_{model}_{what}", self.task)
    }

    fn title(&self, what: &str) -> String {
        let task = self.task.title();
        if self.several { format!("{task} ({}): {what}", self.model) } else { format!("{task}: {what}") }
    }

    /// `3 seeds`, `2 to 3 seeds`, `one seed`.
    fn seed_counts(&self, input: &ReportInput) -> String {
        let counts: Vec<usize> = self
            .arms
            .iter()
            .map(|arm| {
                let rows = input
                    .measurements
                    .iter()
                    .filter(|r| r.task == self.task && r.model == self.model && r.arm == *arm);
                let points = input
                    .curves
                    .iter()
                    .filter(|p| p.task == self.task && p.model == self.model && p.arm == *arm);
                let seeds: BTreeSet<u64> =
                    rows.filter_map(|r| r.seed).chain(points.filter_map(|p| p.seed)).collect();
                seeds.len()
            })
            .filter(|n| *n > 0)
            .collect();
        match (counts.iter().min(), counts.iter().max()) {
            (Some(1), Some(1)) => "one seed".to_owned(),
            (Some(low), Some(high)) if low == high => format!("n = {high} seeds"),
            (Some(low), Some(high)) => format!("n = {low} to {high} seeds"),
            _ => "no seeds".to_owned(),
        }
    }
}

/// `n = 40 patients, 3 seeds`.
fn n_of(patients: impl Iterator<Item = u64> + Clone, seeds: impl Iterator<Item = u64> + Clone) -> String {
    let seeds = generators::span(seeds);
    let seeds = if seeds == "1" { "one seed".to_owned() } else { format!("{seeds} seeds") };
    format!("n = {} patients, {seeds}", generators::span(patients))
}

/// Who draws a page, and with figures of which formats: in the page's head.
fn drawn_by(formats: &[FigureFormat]) -> String {
    let formats: Vec<&str> = formats.iter().map(|format| format.as_str()).collect();
    format!("synecho {} {} {}", env!("CARGO_PKG_VERSION"), env!("SYNECHO_COMMIT"), formats.join(","))
}

/// In order of first appearance.
fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for name in names {
        if !found.iter().any(|f| f == name) {
            found.push(name.to_owned());
        }
    }
    found
}

fn arms(input: &ReportInput) -> Vec<String> {
    let rows = input.measurements.iter().filter(|r| r.task != Task::Generation);
    let points = input.curves.iter().filter(|p| p.task != Task::Generation);
    distinct(
        input
            .models
            .iter()
            .map(|m| m.cell.arm.as_str())
            .chain(rows.map(|r| r.arm.as_str()))
            .chain(points.map(|p| p.arm.as_str())),
    )
}

fn figures(input: &ReportInput, rows: &[Measurement], compared: &[comparisons::Compared]) -> Vec<Figure> {
    let arms = arms(input);
    let mut figures = Vec::new();
    for task in Task::OF_ARMS {
        let models = distinct(
            rows.iter()
                .filter(|r| r.task == task)
                .map(|r| r.model.as_str())
                .chain(input.curves.iter().filter(|p| p.task == task).map(|p| p.model.as_str())),
        );
        for model in &models {
            let of = TaskModel { task, model, several: models.len() > 1, arms: &arms };
            figures.extend(ratio::figure(input, rows, &of, &Score::main(task)));
            let shown = |c: &&comparisons::Compared| c.score.task == task && c.score.metric.is_main();
            let forests: Vec<Figure> =
                compared.iter().filter(shown).filter_map(|c| forest::figure(c, &of)).collect();
            if forests.is_empty() {
                figures.extend(scores::figure(rows, &of, &Score::main(task)));
            }
            figures.extend(forests);
            if task == Task::Segmentation {
                figures.extend(ventricle::figures(rows, &of));
                for metric in Metric::of_images(task).filter(|metric| metric.is_main()) {
                    figures.extend(boxes::figure(input, rows, &of, metric));
                }
            } else {
                figures.extend(confusion::figure(input, rows, &of));
            }
            for axis in [convergence::Axis::Steps, convergence::Axis::Epochs] {
                figures.extend(convergence::figure(input, &of, axis));
            }
            figures.extend(multiples::figure(input, &of));
        }
        if task == Task::Segmentation && (input.meta.is_phantom || input.meta.samples) {
            figures.extend(samples::figure(&input.panel));
        }
    }
    figures.extend(generators::figures(input, rows));
    figures
}

fn tables(input: &ReportInput, rows: &[Measurement], compared: &[comparisons::Compared]) -> Vec<Table> {
    let mut tables = aggregate::segmentation_tables(rows, &input.models);
    tables.extend(aggregate::ventricle_tables(rows, &input.models));
    tables.extend(comparisons::tables(input, compared, Task::Segmentation));
    tables.extend(aggregate::failures_table(rows));
    tables.extend(aggregate::classification_tables(rows, &input.models));
    tables.extend(comparisons::tables(input, compared, Task::Classification));
    tables.extend(generators::tables(input, rows));
    if let Some(published) = &input.published {
        tables.extend(aggregate::published::published_table(rows, published));
    }
    tables.extend(aggregate::training_table(&input.models));
    if input.meta.is_phantom {
        for table in &mut tables {
            table.notes.push(PHANTOM.to_owned());
        }
    }
    tables
}

/// Under everything that a phantom gives.
const PHANTOM: &str = "Drawn from a phantom: these are not patients.";

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::{report::fake::FakeShape, results, vocabulary::Extractor};

    fn write(input: &ReportInput, to: &Path) -> crate::error::Result<()> {
        draw(input, &FigureFormat::ALL, to)
    }

    fn written(input: &ReportInput) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        write(input, dir.path()).unwrap();
        let page = fs::read_to_string(dir.path().join("index.html")).unwrap();
        (dir, page)
    }

    fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        for folder in ["", "figures", "tables"] {
            for entry in fs::read_dir(dir.join(folder)).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    found.push((
                        path.strip_prefix(dir).unwrap().display().to_string(),
                        fs::read(&path).unwrap(),
                    ));
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn the_whole_report_twice_is_the_same_bytes() {
        let input = fake::input(&FakeShape { arms: 5, ..FakeShape::default() });
        let (a, page) = written(&input);
        let (b, _) = written(&input);
        assert_eq!(files(a.path()), files(b.path()));
        let names: Vec<String> = files(a.path()).into_iter().map(|f| f.0).collect();
        for name in [
            "curves.csv.gz",
            "figures/classification_confusion.png",
            "figures/classification_convergence_epochs.svg",
            "figures/segmentation_convergence_arms.pdf",
            "figures/segmentation_convergence_steps.png",
            "figures/segmentation_dice_boxes.pdf",
            "figures/segmentation_dice_boxes.svg",
            "figures/segmentation_dice_differences.svg",
            "figures/segmentation_dice_differences_column.pdf",
            "figures/segmentation_dice_ratio_column.png",
            "figures/segmentation_ef_bland_altman.svg",
            "figures/segmentation_ef_error_differences.svg",
            "figures/segmentation_ef_scatter.pdf",
            "figures/segmentation_hd95_boxes.svg",
            "figures/segmentation_samples.png",
            MEASUREMENTS,
            "resolved.toml",
            "tables/classification.tex",
            "tables/classification_comparisons.csv",
            "tables/segmentation_comparisons_ef_error.csv",
            "tables/segmentation_comparisons_hd95.md",
            "tables/segmentation_convergence.tex",
            "tables/segmentation_dice.csv",
            "tables/segmentation_ef.tex",
            "tables/segmentation_esv.md",
            "tables/training.md",
        ] {
            assert!(names.iter().any(|n| n == name), "{name} is missing from {names:?}");
        }
        assert!(page.contains("these are not patients"));
        // Offline: nothing is fetched.
        assert!(!page.contains("src=\"http") && !page.contains("href=\"http") && !page.contains("@import"));
        let rows: Vec<Measurement> = results::read_csv_gz(&a.path().join(MEASUREMENTS)).unwrap();
        let csv = results::to_csv(&rows).unwrap();
        assert!(csv.starts_with(
            "experiment,task,arm,model,seed,split,patient,view,phase,structure,metric,value,unit,n\n"
        ));
        let whole = aggregate::measurements_table(&input.measurements).unwrap();
        assert!(rows.len() == whole.len() && rows.len() > input.measurements.len());
        let is_near = |a: f64, b: f64| a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-6 * (1.0 + b.abs());
        assert!(rows.iter().zip(&whole).all(|(a, b)| a.metric == b.metric && is_near(a.value, b.value)));
        // For looking at: `SYNECHO_KEEP_REPORT=folder cargo test the_whole_report`.
        if let Some(folder) = std::env::var_os("SYNECHO_KEEP_REPORT") {
            write(&input, Path::new(&folder)).unwrap();
        }
    }

    #[test]
    fn without_classification_there_is_no_such_section_and_its_old_files_go() {
        let mut input = fake::input(&FakeShape { seeds: 1, arms: 1, patients: 4, ..Default::default() });
        let (dir, page) = written(&input);
        assert!(page.contains("<div id=\"classification\">"));
        fs::write(dir.path().join("figures/mine.png"), "mine").unwrap();
        input.measurements.retain(|r| r.task == "segmentation");
        input.curves.retain(|r| r.task == "segmentation");
        input.models.retain(|m| m.cell.task == Task::Segmentation);
        write(&input, dir.path()).unwrap();
        let page = fs::read_to_string(dir.path().join("index.html")).unwrap();
        assert!(!page.contains("<div id=\"classification\">"));
        assert!(!dir.path().join("tables/classification.md").exists());
        assert!(!dir.path().join("figures/classification_confusion.svg").exists());
        assert!(dir.path().join("figures/mine.png").exists());
        let has_spread = |(at, _): (usize, &str)| page[..at].ends_with(|c: char| c.is_ascii_digit());
        assert!(page.contains("one seed") && !page.match_indices(" ± ").any(has_spread));
    }

    #[test]
    fn names_are_escaped_everywhere() {
        let mut input = fake::input(&FakeShape { seeds: 1, arms: 1, patients: 3, epochs: 3 });
        let evil = "<script>alert(\"1\")</script> & 'real'";
        for row in &mut input.measurements {
            row.arm = evil.into();
        }
        for point in &mut input.curves {
            point.arm = evil.into();
        }
        for model in &mut input.models {
            model.cell.arm = evil.into();
        }
        input.meta.title = evil.into();
        input.meta.data_description = evil.into();
        input.meta.warnings = vec![evil.into()];
        input.meta.resolved_toml = format!("title = {evil:?}\n");
        input.panel.iter_mut().for_each(|item| item.caption = evil.into());
        let (_dir, page) = written(&input);
        assert!(!page.contains("<script") && page.contains("&lt;script&gt;alert("), "not escaped");
    }

    #[test]
    fn real_patients_are_not_shown_unless_asked_for() {
        let mut input = fake::input(&FakeShape { seeds: 1, arms: 1, patients: 3, epochs: 3 });
        input.meta.is_phantom = false;
        let (dir, page) = written(&input);
        assert!(!dir.path().join("figures/segmentation_samples.svg").exists());
        assert!(!page.contains("data:image") && !page.contains("not patients"));
        input.meta.samples = true;
        write(&input, dir.path()).unwrap();
        assert!(dir.path().join("figures/segmentation_samples.svg").exists());
    }

    #[test]
    fn nothing_at_all_and_nothing_defined_still_make_a_page() {
        let (_dir, page) = written(&ReportInput::default());
        assert!(page.contains("No results"));
        let mut input = fake::input(&FakeShape { seeds: 2, arms: 2, patients: 3, epochs: 3 });
        input.measurements.iter_mut().for_each(|r| r.value = f64::NAN);
        input.curves.iter_mut().for_each(|p| p.value = f64::NAN);
        let (_dir, page) = written(&input);
        assert!(!page.contains("NaN") && page.contains("undefined"));
    }

    #[test]
    fn generators_have_a_section_of_which_only_measured_times_differ_between_runs() {
        let mut input = fake::input(&FakeShape { seeds: 1, arms: 1, patients: 4, epochs: 3 });
        fake::add_generators(&mut input);
        let (a, page) = written(&input);
        let figures = ["loss", "texture", "samples_text", "samples_text-segmentation", "samples_external"];
        for figure in figures {
            assert!(a.path().join(format!("figures/generators_{figure}.png")).exists(), "{figure}");
            assert!(page.contains(&format!("id=\"figure-generators_{figure}\"")), "{figure}");
        }
        let table = fs::read_to_string(a.path().join("tables/generators.md")).unwrap();
        assert!(table.contains("| text-segmentation | text+segmentation | 7304880 | 2100000 | 380 / 1520 |"));
        let table = fs::read_to_string(a.path().join("tables/generators_judged.md")).unwrap();
        assert!(table.contains("| HD95 in px |"), "{table}");
        assert!(table.contains("| 0.830 ± 0.060 | 6.250 (3 undefined) | 400 |"), "{table}");
        assert!(table.contains("The same network reaches 0."), "{table}");
        // Generators are not arms: they change neither an arm's colour nor what the page says about it.
        assert_eq!(arms(&input), ["real"]);

        for generator in &mut input.generators {
            for cost in [&mut generator.training_cost, &mut generator.sampling_cost].into_iter().flatten() {
                cost.seconds *= 3.0;
            }
        }
        let (b, other) = written(&input);
        assert_ne!(page, other);
        let decided = |dir: &Path| -> Vec<(String, Vec<u8>)> {
            let mut files = files(dir);
            files.retain(|(name, _)| !name.starts_with("tables/generators_costs.") && name != DESCRIPTION);
            // Measured times differ between runs; only this table has them.
            for (_, bytes) in files.iter_mut().filter(|(name, _)| name == PAGE) {
                let text = String::from_utf8(std::mem::take(bytes)).unwrap();
                let (before, rest) =
                    text.split_once("<section class=\"table\" id=\"table-generators_costs\">").unwrap();
                *bytes = format!("{before}{}", rest.split_once("</section>").unwrap().1).into_bytes();
            }
            files
        };
        for (first, second) in decided(a.path()).into_iter().zip(decided(b.path())) {
            assert!(first == second, "{} and {} differ", first.0, second.0);
        }

        let without = fake::input(&FakeShape { seeds: 1, arms: 1, patients: 4, epochs: 3 });
        write(&without, a.path()).unwrap();
        assert!(files(a.path()).iter().all(|(name, _)| !name.contains("generators")));
        let page = fs::read_to_string(a.path().join(PAGE)).unwrap();
        assert!(!page.to_lowercase().contains("generator") && !page.contains("synthetic"));
        if let Some(folder) = std::env::var_os("SYNECHO_KEEP_REPORT") {
            write(&input, &Path::new(&folder).join("generators")).unwrap();
        }
    }

    #[test]
    fn distances_stand_beside_sets_that_show_their_scale() {
        let mut input = fake::input(&FakeShape { seeds: 1, arms: 1, patients: 4, epochs: 3 });
        fake::add_generators(&mut input);
        fake::add_distances(&mut input);
        let (dir, page) = written(&input);
        let table = |name: &str| fs::read_to_string(dir.path().join(format!("tables/{name}.md"))).unwrap();
        let distances = table("generators_distances");
        let row = |arm: &str| distances.lines().position(|line| line.starts_with(&format!("| {arm} |")));
        assert!(row("real against real (two halves)") < row("noise") && row("noise") < row("text"));
        assert!(
            distances.contains("| text | text | 9.000 [8.100, 9.900] | 7.200 | 9.000 ± 0.010 |"),
            "{distances}"
        );
        // In another space than Inception's it is never called FID.
        assert!(distances.contains("Fréchet distance") && distances.contains("not FID's"));
        assert!(distances.contains("n is below 2048"));
        let classes = table("generators_distances_classes");
        assert_eq!(classes.lines().filter(|line| line.starts_with("| text | 4CH ES |")).count(), 1);
        let copies = table("generators_memorisation");
        assert!(copies.contains("| text | text | pixels | 0.510 | &lt; 0.001 |"), "{copies}");
        assert!(page.contains("id=\"figure-generators_nearest_text\""));
        // Measured times come last.
        let place = |name: &str| page.find(&format!("id=\"table-{name}\"")).unwrap();
        assert!(place("generators_memorisation") < place("generators_costs"));

        input.distances.as_mut().unwrap().network = Extractor::InceptionFid;
        for row in input.measurements.iter_mut().filter(|row| row.metric.starts_with("frechet")) {
            row.metric = row.metric.replacen("frechet", "fid", 1);
        }
        let (dir, _) = written(&input);
        let named = fs::read_to_string(dir.path().join("tables/generators_distances.md")).unwrap();
        assert!(named.contains("| FID |") && !named.contains("Fréchet distance"), "{named}");
    }

    #[test]
    fn generators_without_tasks_or_judges_or_pictures_still_report() {
        let mut input = ReportInput::default();
        fake::add_generators(&mut input);
        input.judges.clear();
        input.measurements.retain(|r| r.metric == "texture");
        let (dir, page) = written(&input);
        assert!(page.contains("<div id=\"generators\">") && !page.contains("No results"));
        assert!(!dir.path().join("tables/generators_judged.md").exists());
        // Neither real nor synthetic pictures are shown: this is not a phantom.
        assert!(!dir.path().join("figures/generators_samples_text.svg").exists());
        input.measurements.iter_mut().for_each(|r| r.value = f64::NAN);
        input.curves.iter_mut().for_each(|p| p.value = f64::NAN);
        let (_dir, page) = written(&input);
        assert!(!page.contains("NaN"));
    }

    #[test]
    fn ten_arms_fit() {
        let input = fake::input(&FakeShape { arms: 10, seeds: 2, patients: 12, epochs: 12 });
        let (dir, _) = written(&input);
        let svg = fs::read_to_string(dir.path().join("figures/segmentation_convergence_steps.svg")).unwrap();
        // Long titles have several lines, from the last to the first.
        let lines =
            svg.split("<text").filter_map(|part| Some(part.split_once('>')?.1.split_once("</text>")?.0));
        let lines: Vec<&str> = lines.collect();
        for model in &input.models {
            let name = page::escape(&model.cell.arm);
            let is_shown = (0..lines.len()).any(|from| {
                (1..4).any(|n| {
                    let title = lines.iter().skip(from).take(n).rev();
                    title.copied().collect::<Vec<_>>().join(" ") == name
                })
            });
            assert!(is_shown, "{name} is not in the figure");
        }
        if let Some(folder) = std::env::var_os("SYNECHO_KEEP_REPORT") {
            write(&input, &Path::new(&folder).join("ten")).unwrap();
        }
    }
}
