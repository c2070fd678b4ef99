//! Figures that others have published, beside ours. None is known here: they come from a file of the user's,
//! with a source for every number.

use std::{collections::BTreeSet, path::Path};

use serde::{Deserialize, Serialize};

use super::{Means, REFERENCE, Table, TableCell, arms, reported_split};
use crate::{
    error::{Error, Result},
    results::Measurement,
    text_file::read_text,
    vocabulary::{Metric, Structure, Task},
};

/// What stands where nobody has looked a figure up.
const NOT_VERIFIED: &str = "not verified";

/// One published figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// `segmentation`, `classification` or `generation`.
    pub task: String,
    /// The arm (or generator) that it belongs beside, by its name in the spec.
    pub arm: String,
    /// Left out: whichever model.
    #[serde(default)]
    pub model: String,
    /// `endo`, `myo`, `epi`, `la` or `mean`; left out: none.
    #[serde(default)]
    pub structure: String,
    /// `dice`, `accuracy` or `fid`.
    pub metric: String,
    pub value: f64,
    /// Where it can be read: paper, table, page.
    pub source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    published: Vec<Published>,
}

/// Reads `[[published]]` entries.
///
/// # Errors
/// The file is not there or damaged, or a figure has no source.
pub fn read(file: &Path) -> Result<Vec<Published>> {
    let text = read_text(file, "cannot read")?;
    let found: File = toml::from_str(&text).map_err(|e| {
        let line = e.span().map_or(1, |span| text[..span.start].matches('\n').count() as u64 + 1);
        let message: Vec<&str> = e.message().lines().map(str::trim).collect();
        Error::input(message.join(" ")).at_line(file, line).help("experiments/published.toml has the form")
    })?;
    let mut cells = BTreeSet::new();
    for (i, entry) in found.published.iter().enumerate() {
        let wrong = |problem: String, help: &str| {
            Err(Error::input(format!("entry {}, of {:?}: {problem}", i + 1, entry.arm)).at(file).help(help))
        };
        if entry.source.trim().is_empty() || !entry.value.is_finite() {
            let help =
                "say where it can be read, or leave the entry out: the table then says \"not verified\"";
            return wrong(format!("{} needs a number and a source", entry.metric), help);
        }
        let is_column = Structure::COLUMNS.contains(&entry.structure.as_str());
        let of_task = PUBLISHED.iter().any(|(task, metric)| {
            let structure = if *task == Task::Segmentation { is_column } else { entry.structure.is_empty() };
            entry.task == *task && entry.metric == *metric && structure
        });
        if !of_task {
            let what = format!("{:?}, {:?}, {:?}", entry.task, entry.metric, entry.structure);
            let help = "segmentation has the metric dice of endo, myo, epi, la or mean; classification accuracy, generation fid, of no structure";
            return wrong(format!("no table has such a figure ({what})"), help);
        }
        if entry.metric != Metric::Fid && !(0.0..=1.0).contains(&entry.value) {
            return wrong(
                format!("{} = {} is not from 0 to 1", entry.metric, entry.value),
                "write 0.875 for 87.5 %",
            );
        }
        if !cells.insert((&entry.task, &entry.arm, &entry.model, &entry.structure, &entry.metric)) {
            return wrong("there are two for the same figure".to_owned(), "keep one of them");
        }
    }
    Ok(found.published)
}

/// The figures that papers publish of a task.
const PUBLISHED: [(Task, Metric); 3] = [
    (Task::Segmentation, Metric::Dice),
    (Task::Classification, Metric::Accuracy),
    (Task::Generation, Metric::Fid),
];

/// Our scores beside published ones, one row per score. `rows` are a report's, `published` what [`read`] gave.
pub fn published_table(rows: &[Measurement], published: &[Published]) -> Option<Table> {
    let means = Means::new(rows);
    let mut body = Vec::new();
    let mut add = |task: Task, arm: &str, model: &str, structure: &str, metric: Metric, ours: TableCell| {
        let theirs = published.iter().find(|p| {
            (p.task.as_str(), p.arm.as_str(), p.structure.as_str(), p.metric.as_str())
                == (task.as_str(), arm, structure, metric.as_str())
                && (p.model.is_empty() || p.model == model)
        });
        let (value, source) = match theirs {
            Some(p) => (TableCell::Number { value: p.value, decimals: 3 }, p.source.as_str().into()),
            None => (NOT_VERIFIED.into(), TableCell::Empty),
        };
        let label = metric.label();
        let score = match structure {
            "" => label.to_owned(),
            structure => format!("{} {label}", Structure::label_of(structure)),
        };
        body.push(vec![task.as_str().into(), arm.into(), model.into(), score.into(), ours, value, source]);
    };
    let scores: [(Task, Metric, Metric, &[&str]); 2] = [
        (Task::Segmentation, Metric::Dice, Metric::Dice, &Structure::COLUMNS),
        (Task::Classification, Metric::Correct, Metric::Accuracy, &[""]),
    ];
    for (task, measured, metric, structures) in scores {
        let Some(split) = reported_split(rows, task) else { continue };
        for (arm, model) in arms(rows, task) {
            for structure in structures {
                let key = [task.as_str(), &arm, &model, &split, structure, measured.as_str()];
                if let Some(estimate) = means.estimate(key) {
                    add(task, &arm, &model, structure, metric, estimate.into());
                }
            }
        }
    }
    let (task, metric) = (Task::Generation, Metric::Fid);
    let over_all =
        |r: &&Measurement| r.task == task && r.metric == metric && r.view.is_empty() && r.model != REFERENCE;
    for row in rows.iter().filter(over_all) {
        add(task, &row.arm, &row.model, "", metric, TableCell::Number { value: row.value, decimals: 3 });
    }
    (!body.is_empty()).then(|| Table {
        name: "published".to_owned(),
        title: "Beside published figures".to_owned(),
        caption: "Scores of this report beside published scores of similar arms.".to_owned(),
        columns: ["Task", "Arm", "Model", "Score", "Here", "Published", "Source"].map(str::to_owned).to_vec(),
        rows: body,
        notes: vec![format!(
            "“{NOT_VERIFIED}”: no figure with a source was entered. Published figures come from other data, sizes and splits, so they do not test these results."
        )],
        decimals: 3,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Result<Vec<Published>> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("published.toml");
        std::fs::write(&file, text).unwrap();
        read(&file)
    }

    const ENTRY: &str = "[[published]]\ntask = \"segmentation\"\narm = \"real\"\nstructure = \"endo\"\nmetric = \"dice\"\nvalue = 0.9\n";

    #[test]
    fn a_figure_needs_a_source() {
        assert_eq!(entries(&format!("{ENTRY}source = \"A 2020, table 1\"\n")).unwrap().len(), 1);
        for (line, part) in
            [("", "source"), ("source = \" \"\n", "needs a number and a source"), ("sauce = 1\n", "sauce")]
        {
            let told = entries(&format!("{ENTRY}{line}")).unwrap_err().to_string();
            assert!(told.contains(part), "{told}");
        }
        assert!(entries("").unwrap().is_empty());
        let sourced = format!("{ENTRY}source = \"A 2020\"\n");
        for (text, part) in [
            (sourced.replace("0.9", "87.5"), "dice = 87.5 is not from 0 to 1"),
            (sourced.replace("\"dice\"", "\"dicee\""), "no table has such a figure"),
            (sourced.replace("\"segmentation\"", "\"classification\""), "no table has such a figure"),
            (format!("{sourced}{sourced}"), "entry 2, of \"real\": there are two"),
            (sourced.replace("value = 0.9", "value = zero"), "published.toml:6: "),
        ] {
            let told = entries(&text).unwrap_err().to_string();
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn what_nobody_entered_is_not_verified() {
        let row = |structure: &str, value: f64| Measurement {
            task: "segmentation".into(),
            arm: "real".into(),
            model: "unet".into(),
            seed: Some(0),
            split: "test".into(),
            patient: "p1".into(),
            view: "2CH".into(),
            phase: "ED".into(),
            structure: structure.into(),
            metric: "dice".into(),
            value,
            ..Default::default()
        };
        let published = entries(&format!("{ENTRY}source = \"A 2020, table 1\"\n")).unwrap();
        let table = published_table(&[row("endo", 0.8), row("la", 0.7)], &published).unwrap();
        let told = table.to_markdown();
        let line = |score: &str| told.lines().find(|line| line.contains(score)).unwrap().to_owned();
        assert!(line("endocardium Dice").contains("| 0.800 | 0.900 | A 2020, table 1 |"), "{told}");
        assert!(line("Left atrium Dice").contains("| 0.700 | not verified |"), "{told}");
        assert!(published_table(&[], &published).is_none());
    }
}
