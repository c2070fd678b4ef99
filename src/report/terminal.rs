//! The results in plain text, as a run prints them at its end.

use std::fmt::Write;

use super::{
    ReportInput,
    comparisons::{Compared, compared},
};
use crate::{
    aggregate::{self, Comparison, Means, Score, TableCell, Verdict, number},
    error::Result,
    results::Measurement,
    vocabulary::{Metric, Structure, Task},
};

/// One table per task: each arm with its score, and its difference from the arms that it is compared with. Empty where
/// nothing was trained.
///
/// # Errors
/// The measurements cannot be grouped.
pub fn results(input: &ReportInput) -> Result<String> {
    let rows = aggregate::measurements_table(&input.measurements)?;
    let compared = compared(input, &rows);
    let mut text = String::new();
    for task in Task::OF_ARMS {
        let score = Score::main(task);
        let found = compared.iter().find(|c| c.score == score);
        text += &of_task(&rows, &score, found).unwrap_or_default();
    }
    Ok(text)
}

fn of_task(rows: &[Measurement], score: &Score, compared: Option<&Compared>) -> Option<String> {
    let split = aggregate::reported_split(rows, score.task)?;
    let means = Means::new(rows);
    let arms = aggregate::arms(rows, score.task);
    let several = arms.iter().any(|(_, model)| *model != arms[0].1);
    let (mut lines, mut patients, mut seeds) = (Vec::new(), 0, 0);
    for (arm, model) in &arms {
        let Some(estimate) = estimate(rows, &means, score, &split, arm, model) else { continue };
        (patients, seeds) = (patients.max(estimate.patients), seeds.max(estimate.seeds));
        let (mean, interval) = TableCell::from(estimate).parts(score.metric.decimals());
        let name = if several { format!("{arm}, {model}") } else { arm.clone() };
        let mut head = [name, format!("{mean} {interval}").trim().to_owned()];
        let own = compared.into_iter().flat_map(|c| &c.found).filter(|c| c.arm == *arm && c.model == *model);
        let mut comparisons = own.peekable();
        if comparisons.peek().is_none() {
            let [name, mean] = std::mem::take(&mut head);
            lines.push([name, mean, String::new(), String::new(), String::new()]);
        }
        for comparison in comparisons {
            let [name, mean] = std::mem::take(&mut head);
            let (difference, verdict) = (difference(comparison, score), verdict(comparison, score));
            lines.push([name, mean, comparison.against.clone(), difference, verdict.to_owned()]);
        }
    }
    if lines.is_empty() {
        return None;
    }
    let better = if score.higher_is_better() { "higher is better" } else { "lower is better" };
    let mut text = format!(
        "\n{}: {} on {} ({split}), {}; {better}\n",
        score.task.title(),
        label(score),
        aggregate::plural(patients, "patient", "patients"),
        aggregate::plural(seeds, "seed", "seeds"),
    );
    let mut heads = ["arm", "score [95 % interval]", "against", "difference [95 % interval], p", "verdict"];
    if lines.iter().all(|line| line[2].is_empty()) {
        (heads[2], heads[3], heads[4]) = ("", "", "");
    }
    let table: Vec<[String; 5]> = std::iter::once(heads.map(str::to_owned)).chain(lines).collect();
    let width =
        |column: usize| table.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; 5] = std::array::from_fn(width);
    for line in &table {
        let cells: Vec<String> = line
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell}{}", " ".repeat(width - cell.chars().count())))
            .collect();
        let _ = writeln!(text, "  {}", cells.join("  ").trim_end());
    }
    Some(text)
}

fn estimate(
    rows: &[Measurement],
    means: &Means,
    score: &Score,
    split: &str,
    arm: &str,
    model: &str,
) -> Option<aggregate::Estimate> {
    if !score.structures.is_empty() {
        let metric = score.metric.as_str();
        return means.estimate([score.task.as_str(), arm, model, split, Structure::MEAN, metric]);
    }
    // Whatever class a row is filed under: all images count.
    let rows: Vec<&Measurement> = rows
        .iter()
        .filter(|r| r.task == score.task && r.arm == arm && r.model == model && r.split == split)
        .filter(|r| r.metric == score.metric)
        .collect();
    (!rows.is_empty()).then(|| aggregate::estimate(&rows))
}

fn label(score: &Score) -> String {
    match score.metric {
        Metric::Correct => score.label().to_lowercase(),
        metric => format!("mean {}", metric.label()),
    }
}

fn difference(c: &Comparison, score: &Score) -> String {
    let decimals = score.metric.decimals();
    let sign = if c.difference > 0.0 { "+" } else { "" };
    let mut text = format!("{sign}{}", number(c.difference, decimals));
    if let Some((low, high)) = c.interval {
        text += &format!(" [{}, {}]", number(low, decimals), number(high, decimals));
    }
    if let Some(p) = c.holm {
        text += &format!(", {}", aggregate::comparison::p_words(p));
    }
    text
}

fn verdict(c: &Comparison, score: &Score) -> &'static str {
    match (c.verdict(), score.higher_is_better()) {
        (Verdict::Higher, true) | (Verdict::Lower, false) => "better",
        (Verdict::Higher, false) | (Verdict::Lower, true) => "worse",
        (Verdict::Equivalent, _) => "equivalent",
        (Verdict::NotSignificant, _) => "no significant difference",
        (Verdict::SeedsDisagree, _) => "seeds disagree",
        (Verdict::OneSeed, _) => "one seed: no test",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fake::{self, FakeShape};

    #[test]
    fn every_arm_has_a_line_with_its_score_and_its_differences() {
        let input = fake::input(&FakeShape { arms: 4, ..FakeShape::default() });
        let text = results(&input).unwrap();
        let tables: Vec<&str> = text.split("\n\n").collect();
        assert!(
            tables.len() == 2 && text.contains("Classification: accuracy on 40 patients (test), 3 seeds")
        );
        assert!(
            text.starts_with("\nSegmentation: mean Dice on 40 patients (test), 3 seeds; higher is better\n")
        );
        for arm in ["real", "real 25 %", "real + 100 % text+seg", "duplicate-real 100 %"] {
            assert!(text.contains(&format!("\n  {arm} ")), "{arm} in {text}");
        }
        assert!(text.lines().any(|l| l.contains("text+seg  ") && l.contains("real") && l.contains("p ")));
        // Columns line up.
        let at = |line: &str, what: &str| line.find(what).map(|byte| line[..byte].chars().count());
        let segmentation: Vec<&str> = tables[0].lines().collect();
        let column = at(segmentation[2], "score").unwrap();
        for line in &segmentation[3..] {
            assert_eq!(line.chars().nth(column - 1), Some(' '), "{line}");
        }
        assert_eq!(results(&ReportInput::default()).unwrap(), "");
        let one = results(&fake::input(&FakeShape { arms: 4, seeds: 1, ..FakeShape::default() })).unwrap();
        assert!(one.contains("one seed: no test"), "{one}");
    }
}
