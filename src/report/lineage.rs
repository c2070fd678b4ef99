//! `stages.json` of a report: from every cell of its tables back to the stages that made it, down to the
//! user's files. A report can be traced by it without the store.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Write,
    fs,
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{MEASUREMENTS, generators::GENERATORS};
use crate::{
    aggregate::{Means, is_image, is_observation, metric_label, number, ventricle::FLOOR},
    cell::Cell,
    error::{AtPath, Error, Result},
    results::{self, Measurement},
    vocabulary::{Statistic, Structure, Task},
};

/// The file, beside the page.
pub const STAGES: &str = "stages.json";

/// A finished stage, from its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageLine {
    pub key: String,
    pub kind: String,
    pub label: String,
    /// (role, key).
    pub inputs: Vec<(String, String)>,
    /// (role, BLAKE3 digest) of the user's files.
    pub outside: Vec<(String, String)>,
}

/// A cell and the stages that its numbers come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "CellColumns", try_from = "CellColumns")]
pub struct CellLine {
    pub cell: Cell,
    /// Their keys.
    pub stages: Vec<String>,
}

/// A [`CellLine`] as `stages.json` has it, with the columns of the results.
#[derive(Serialize, Deserialize)]
struct CellColumns {
    task: String,
    arm: String,
    model: String,
    seed: Option<u64>,
    stages: Vec<String>,
}

impl From<CellLine> for CellColumns {
    fn from(line: CellLine) -> Self {
        let cell = line.cell;
        let (model, seed) = (cell.model().unwrap_or_default().to_owned(), cell.seed());
        Self { task: cell.task().into(), arm: cell.arm(), model, seed, stages: line.stages }
    }
}

impl TryFrom<CellColumns> for CellLine {
    type Error = String;

    fn try_from(columns: CellColumns) -> Result<Self, String> {
        let seed = columns.seed.map(|seed| seed.to_string()).unwrap_or_default();
        let parts = [&columns.task, &columns.arm, &columns.model, &seed].map(String::as_str);
        let name = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        Ok(Self { cell: name.parse()?, stages: columns.stages })
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Lineage {
    pub cells: Vec<CellLine>,
    pub stages: Vec<StageLine>,
}

impl Lineage {
    pub(super) fn to_json(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| Error::failure(format!("cannot write {STAGES}: {e}")))?;
        Ok(format!("{text}\n"))
    }

    /// All stages behind `first`, nearest first, each once.
    fn behind<'a>(&'a self, first: &'a [String]) -> Vec<&'a StageLine> {
        let by_key: BTreeMap<&str, &StageLine> = self.stages.iter().map(|s| (s.key.as_str(), s)).collect();
        let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
        let mut next: VecDeque<&str> = first.iter().map(String::as_str).collect();
        while let Some(key) = next.pop_front() {
            let Some(stage) = by_key.get(key).filter(|_| seen.insert(key)) else { continue };
            found.push(*stage);
            next.extend(stage.inputs.iter().map(|(_, key)| key.as_str()));
        }
        found
    }
}

/// Tells where the numbers of the report in `folder` come from: those of the cells that `asked` names
/// (`segmentation/real + 100% text-seg`, or with model and seed), or which cells there are.
///
/// # Errors
/// The folder holds no report, an older one, or no such cell.
pub fn explain(folder: &Path, asked: Option<&str>) -> Result<String> {
    let file = folder.join(STAGES);
    let text = fs::read_to_string(&file).at_path(&file, "cannot read").map_err(|e| {
        e.help("name a report's folder, such as reports/quickstart; `synecho report SPEC` redraws one")
    })?;
    let lineage: Lineage =
        serde_json::from_str(&text).map_err(|e| Error::input(format!("damaged: {e}")).at(&file))?;
    let Some(asked) = asked.map(|asked| asked.trim_matches('/')) else {
        let names: BTreeSet<String> = lineage.cells.iter().map(|line| line.cell.without_seed()).collect();
        return Ok(names.into_iter().map(|name| name + "\n").collect());
    };
    let lines: Vec<&CellLine> = lineage.cells.iter().filter(|line| line.cell.is_in(asked)).collect();
    if lines.is_empty() {
        let names: BTreeSet<String> = lineage.cells.iter().map(|line| line.cell.of_arm()).collect();
        let help = names.into_iter().collect::<Vec<_>>().join("\n        ");
        return Err(Error::input(format!("the report has no cell {asked:?}"))
            .at(&file)
            .help(format!("there are\n        {help}")));
    }
    let rows: Vec<Measurement> = results::read_csv_gz(&folder.join(MEASUREMENTS))
        .map_err(|e| e.help("`synecho report SPEC` draws the report again"))?;
    let tables = tables(folder)?;
    let arms: BTreeSet<String> = lineage.cells.iter().map(|line| line.cell.arm()).collect();
    let mut text = format!("spec: {}\n", folder.join("resolved.toml").display());
    let mut last = None;
    for CellLine { cell, stages } in &lines {
        let heading = cell.without_seed();
        if last.as_ref() != Some(&heading) {
            text += &format!("\n{heading}\n{}", values(&rows, cell, None));
            tables.iter().for_each(|table| text += &table.lines_of(cell, &arms));
            last = Some(heading);
        }
        if let Some(seed) = cell.seed() {
            let _ = writeln!(text, "  seed {seed}\n{}", indented(&values(&rows, cell, Some(seed))));
        }
        for stage in lineage.behind(stages) {
            let _ = writeln!(
                text,
                "    {}  {:<10} {}",
                &stage.key[..12.min(stage.key.len())],
                stage.kind,
                stage.label
            );
            for (role, digest) in &stage.outside {
                let _ = writeln!(
                    text,
                    "                  from {role}, BLAKE3 {}",
                    &digest[..16.min(digest.len())]
                );
            }
        }
    }
    Ok(text)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// The figures of a cell with what they are of: of one seed, or over its seeds.
fn values(rows: &[Measurement], cell: &Cell, seed: Option<u64>) -> String {
    let (task, arm, model) = (cell.task(), cell.arm(), cell.model());
    let of_cell: Vec<Measurement> = rows
        .iter()
        .filter(|r| r.task == task && r.arm == arm)
        .filter(|r| model.is_none_or(|model| r.model == model))
        .filter(|r| seed.is_none() || r.seed == seed)
        .cloned()
        .collect();
    let mut told = String::new();
    let means = Means::new(&of_cell);
    let mut seen = BTreeSet::new();
    for row in of_cell.iter().filter(|row| is_observation(row)) {
        if !seen.insert((&row.metric, &row.structure)) {
            continue;
        }
        let key = [&row.task, &row.arm, &row.model, &row.split, &row.structure, &row.metric];
        let Some(e) = means.estimate(key.map(String::as_str)) else { continue };
        let sd = e.sd.map(|sd| format!(" ± {}", number(sd, 4))).unwrap_or_default();
        let (low, high) = e.interval.unwrap_or((f64::NAN, f64::NAN));
        let structure = Structure::label_of(&row.structure);
        let metric = metric_label(&row.task, &row.metric);
        let name = if structure.is_empty() { metric.to_owned() } else { format!("{structure} {metric}") };
        let images = if is_image(row) { format!("{} images of ", e.images) } else { String::new() };
        let _ = writeln!(
            told,
            "  {name}: {}{sd} [{}, {}], n = {images}{} {} patients{}",
            number(e.mean, 4),
            number(low, 4),
            number(high, 4),
            e.patients,
            row.split,
            if seed.is_none() { format!(", {} seed(s)", e.seeds) } else { String::new() },
        );
    }
    // The intervals and deviations of what was said above are rows of their own.
    let plain = |metric: &str| {
        let ends = [Statistic::Ci95Low, Statistic::Ci95High, Statistic::SeedSd].map(Statistic::suffix);
        ends.iter().find_map(|end| metric.strip_suffix(end)).unwrap_or(metric).to_owned()
    };
    let said: BTreeSet<(String, &String)> =
        seen.iter().map(|(metric, structure)| ((*metric).clone(), *structure)).collect();
    let over_all = of_cell.iter().filter(|r| r.patient.is_empty() && r.view.is_empty() && r.phase.is_empty());
    let over_all = over_all.filter(|r| !said.contains(&(plain(&r.metric), &r.structure)));
    for row in over_all.filter(|r| seed.is_some() || r.seed.is_none() || model.is_none()) {
        let n = row.n.map(|n| format!(", n = {n}")).unwrap_or_default();
        let _ = writeln!(told, "  {} {}: {}{n}", row.structure, row.metric, number(row.value, 4));
    }
    told
}

/// A table of the report, as its CSV has it.
struct TableFile {
    /// Without `.csv`.
    name: String,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// The report's tables, by name.
fn tables(folder: &Path) -> Result<Vec<TableFile>> {
    let dir = folder.join("tables");
    let again = |e: Error| e.help("`synecho report SPEC` draws the report again");
    let entries = fs::read_dir(&dir).at_path(&dir, "cannot read").map_err(again)?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "csv"));
    files.sort();
    files
        .iter()
        .map(|file| {
            let damaged = |e: csv::Error| Error::input(format!("no table: {e}")).at(file);
            let mut reader = csv::Reader::from_path(file).map_err(damaged)?;
            let words = |row: &csv::StringRecord| row.iter().map(str::to_owned).collect::<Vec<_>>();
            let columns = words(reader.headers().map_err(damaged)?);
            let rows =
                reader.records().map(|row| Ok(words(&row.map_err(damaged)?))).collect::<Result<_>>()?;
            let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            Ok(TableFile { name, columns, rows })
        })
        .collect()
}

impl TableFile {
    /// The rows that speak of a cell, with its name and what it is compared with; empty where there are none. `arms`:
    /// of all cells, since what stands beside generators for the scale, or beside arms as the floor, belongs to each.
    fn lines_of(&self, cell: &Cell, arms: &BTreeSet<String>) -> String {
        let (arm, generation) = (cell.arm(), cell.task() == Task::Generation);
        let task = if generation { GENERATORS } else { cell.task().as_str() };
        let of_task =
            self.name == task || self.name.strip_prefix(task).is_some_and(|rest| rest.starts_with('_'));
        if !of_task {
            return String::new();
        }
        let with_model = format!("{arm}, {}", cell.model().unwrap_or_default());
        let rows = self.rows.iter().filter(|row| {
            let first = row[0].as_str();
            let is_beside = generation || first == FLOOR;
            first == arm || first == with_model || (is_beside && !arms.contains(first))
        });
        let lines: String = rows
            .map(|row| {
                let name = if row[0] == arm || row[0] == with_model { "" } else { &format!("{}: ", row[0]) };
                format!("    {name}{}\n", self.values(row))
            })
            .collect();
        if lines.is_empty() { lines } else { format!("  tables/{}\n{lines}", self.name) }
    }

    /// `Final 0.88; Own: steps 892.2 ± 89.3 [800.8, 979.3]; …`
    fn values(&self, row: &[String]) -> String {
        let parts = self.columns.iter().enumerate().skip(1).filter_map(|(at, column)| {
            // Told with its number.
            let is_beside = |end| {
                column.strip_suffix(end).is_some_and(|of: &str| self.columns.iter().any(|name| name == of))
            };
            if [" sd", " low", " high", " undefined"].into_iter().any(is_beside) {
                return None;
            }
            let value = |at: usize| row.get(at).filter(|value| !value.is_empty());
            let mut told = format!("{column} {}", value(at)?);
            // Behind it: two columns may have one name.
            let beside = |end: &str| {
                let name = format!("{column}{end}");
                (at + 1..self.columns.len().min(at + 5)).find(|at| self.columns[*at] == name).and_then(value)
            };
            beside(" sd").into_iter().for_each(|sd| told += &format!(" ± {sd}"));
            if let (Some(low), Some(high)) = (beside(" low"), beside(" high")) {
                told += &format!(" [{low}, {high}]");
            }
            beside(" undefined")
                .into_iter()
                .filter(|n| *n != "0")
                .for_each(|n| told += &format!(", {n} undefined"));
            Some(told)
        });
        parts.collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        report::{self, fake},
        vocabulary::FigureFormat,
    };

    #[test]
    fn a_row_is_told_with_what_stands_beside_its_numbers() {
        let words = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let table = TableFile {
            name: "generators_judged".into(),
            columns: words("Generator,Dice,Dice sd,Dice low,Dice high,Dice undefined,n,View,n"),
            rows: Vec::new(),
        };
        let told = |row: &str| table.values(&words(row));
        assert_eq!(
            told("a,0.9,0.1,0.8,1,3,50,0.7,60"),
            "Dice 0.9 ± 0.1 [0.8, 1], 3 undefined; n 50; View 0.7; n 60"
        );
        assert_eq!(told("a,0.9,,,,0,,0.7,60"), "Dice 0.9; View 0.7; n 60");
    }

    #[test]
    fn every_cell_of_a_report_is_explained_down_to_the_users_files() {
        let mut input = fake::input(&fake::FakeShape { seeds: 2, arms: 4, patients: 4, epochs: 3 });
        let line = |key: &str, label: &str, inputs: &[&str], outside: &[&str]| StageLine {
            key: key.repeat(32),
            kind: "train".into(),
            label: label.into(),
            inputs: inputs.iter().map(|key| ("data".to_owned(), key.repeat(32))).collect(),
            outside: outside.iter().map(|digest| ("source".to_owned(), (*digest).to_owned())).collect(),
        };
        let models = input.models.clone();
        input.lineage = Lineage {
            cells: models
                .iter()
                .map(|m| CellLine { cell: Cell::Network(m.cell.clone()), stages: vec!["b".repeat(32)] })
                .collect(),
            stages: vec![
                line("b", "measure it", &["a", "c"], &[]),
                line("c", "train it", &["a"], &[]),
                line("a", "prepare it", &[], &["0123456789abcdef0123"]),
            ],
        };
        let dir = tempfile::tempdir().unwrap();
        report::draw(&input, &FigureFormat::ALL, dir.path()).unwrap();
        for model in &models {
            let told = explain(dir.path(), Some(&format!("{}/{}", model.cell.task, model.cell.arm))).unwrap();
            for part in
                ["resolved.toml", "2 seed(s)", "seed 0", "seed 1", "measure it", "BLAKE3 0123456789abcdef\n"]
            {
                assert!(told.contains(part), "no {part} in {told}");
            }
            assert_eq!(told.matches("prepare it").count(), 2, "{told}");
        }
        // Every number of every table stands in what is told of some cell.
        let all: String = models
            .iter()
            .map(|m| explain(dir.path(), Some(&format!("{}/{}", m.cell.task, m.cell.arm))).unwrap())
            .collect();
        let told = tables(dir.path()).unwrap();
        assert!(told.iter().any(|table| table.name == "segmentation_comparisons_dice"));
        assert!(told.iter().any(|table| table.name == "segmentation_convergence"));
        for table in told.iter().filter(|t| t.columns[0] == "Arm") {
            for number in
                table.rows.iter().flatten().filter(|cell| cell.parse::<f64>().is_ok_and(|n| n != 0.0))
            {
                assert!(all.contains(number.as_str()), "{number} of {} in {all}", table.name);
            }
        }
        let cells = explain(dir.path(), None).unwrap();
        assert_eq!(cells.lines().count(), 8, "{cells}");
        let error = explain(dir.path(), Some("segmentation/nobody")).unwrap_err().to_string();
        assert!(
            error.contains("no cell \"segmentation/nobody\"") && error.contains(&models[0].cell.arm),
            "{error}"
        );
        let nothing = tempfile::tempdir().unwrap();
        assert!(explain(nothing.path(), None).unwrap_err().to_string().contains("synecho report SPEC"));
    }
}
