//! Arms against their baselines and controls, as tables and figures show them.

use super::ReportInput;
use crate::{
    aggregate::{
        self, Comparison, Score, Table, comparison, comparison_table,
        convergence::{Convergence, convergence},
        convergence_table, equivalence_table,
    },
    results::{CurvePoint, Measurement},
    vocabulary::{Split, Task},
};

/// All comparisons by one score.
pub(super) struct Compared {
    pub score: Score,
    /// What they are made on.
    pub split: String,
    pub unit: String,
    /// p-values are adjusted over all of these.
    pub found: Vec<Comparison>,
}

pub(super) fn compared(input: &ReportInput, rows: &[Measurement]) -> Vec<Compared> {
    let pairs = comparison::pairs(&input.meta.arms);
    Score::all()
        .filter_map(|score| {
            let split = aggregate::reported_split(rows, score.task)?;
            let mut found = comparison::comparisons(rows, &score, &split, &pairs);
            if let Some(margin) = input.meta.margins.get(score.metric.spec_word()) {
                comparison::test_equivalence(&mut found, *margin);
            }
            let mut units = rows.iter().filter(|r| r.task == score.task && r.metric == score.metric);
            let unit = units.next().map(|r| r.unit.clone()).unwrap_or_default();
            (!found.is_empty()).then_some(Compared { score, split, unit, found })
        })
        .collect()
}

/// Whether a point is of the validation curve that a task's checkpoints are chosen by.
pub(super) fn is_main_curve(point: &CurvePoint, task: Task) -> bool {
    let is_selection = |(metric, structure)| point.metric == metric && point.structure == structure;
    point.task == task && point.split == Split::Val && task.selection().is_some_and(is_selection)
}

/// How soon a task's arms converge.
pub(super) fn converged(input: &ReportInput, task: Task) -> Vec<Convergence> {
    let arms = &input.meta.arms;
    convergence(input.curves.iter().filter(|p| is_main_curve(p, task)), |name| {
        let arm = arms.iter().find(|arm| arm.name == name)?;
        Some(comparison::baseline_of(arms, arm)?.name.clone())
    })
}

pub(super) fn tables(input: &ReportInput, compared: &[Compared], task: Task) -> Vec<Table> {
    let of_task = || compared.iter().filter(|c| c.score.task == task);
    let mut tables: Vec<Table> =
        of_task().filter_map(|c| comparison_table(&c.found, &c.score, &c.split, &c.unit)).collect();
    tables.extend(of_task().filter_map(|c| equivalence_table(&c.found, &c.score, &c.split, &c.unit)));
    tables.extend(convergence_table(&converged(input, task), task));
    tables
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        report::{PAGE, draw, fake, fake::FakeShape, read, save},
        vocabulary::FigureFormat,
    };

    #[test]
    fn with_margins_equivalence_is_tested_and_said() {
        let mut input = fake::input(&FakeShape { arms: 4, patients: 30, ..FakeShape::default() });
        let written = |input: &ReportInput| {
            let dir = tempfile::tempdir().unwrap();
            draw(input, &[FigureFormat::Svg], dir.path()).unwrap();
            let page = fs::read_to_string(dir.path().join(PAGE)).unwrap();
            (dir, page)
        };
        let (_plain, page) = written(&input);
        assert!(!page.contains("quivalen"), "nothing is tested without a margin");
        input.meta.margins = [("dice".to_owned(), 0.05), ("accuracy".to_owned(), 0.001)].into();
        let (dir, page) = written(&input);
        let table = |name: &str| fs::read_to_string(dir.path().join(format!("tables/{name}.md"))).unwrap();
        assert!(table("segmentation_equivalence_dice").contains("| equivalent, p "));
        assert!(table("classification_equivalence").contains("not shown"));
        assert!(!dir.path().join("tables/segmentation_equivalence_hd95.md").exists());
        assert!(page.contains("Grey: the margin ± 0.05") && page.contains("“Equivalent” means"));
        // The margins are in the data files.
        save(&input, dir.path()).unwrap();
        assert_eq!(read(dir.path()).unwrap().meta.margins, input.meta.margins);
    }
}
