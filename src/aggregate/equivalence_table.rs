//! The table of equivalence: which arms may be called equal within a margin, and what could have been shown.

use super::{
    Comparison, Score,
    comparison::p_words,
    comparison_tables::named,
    equivalence::Equivalence,
    paired::LEVEL,
    table::{Table, TableCell, number},
};

/// One row per comparison that was tested for equivalence. None without any.
pub fn equivalence_table(
    comparisons: &[Comparison],
    score: &Score,
    split: &str,
    unit: &str,
) -> Option<Table> {
    let tested: Vec<(&Comparison, &Equivalence)> =
        comparisons.iter().filter_map(|c| Some((c, c.equivalence.as_ref()?))).collect();
    let (first, Equivalence { margin, .. }) = *tested.first()?;
    let several = comparisons.iter().any(|c| c.model != first.model);
    let share = |power: f64| TableCell::Number { value: power, decimals: 2 };
    let body = tested
        .iter()
        .map(|(c, e)| {
            vec![
                named(&c.arm, &c.model, several).into(),
                c.against.as_str().into(),
                TableCell::Estimate {
                    mean: c.difference,
                    sd: None,
                    interval: Some(e.interval),
                    undefined: 0,
                },
                TableCell::Text(format!("± {}", e.margin)),
                TableCell::Count(c.patients),
                TableCell::P(e.p),
                TableCell::P(e.holm),
                share(e.power_of_equivalence),
                share(e.power_of_difference),
                verdict(c, e).into(),
            ]
        })
        .collect();
    let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
    let weak = tested.iter().filter(|(_, e)| e.power_of_equivalence < ENOUGH).count();
    let mut notes = vec![
        format!(
            "The spec states the margin: differences below {margin}{unit} count as none. Difference: as in the table of differences. In brackets: its 90 % t-interval over patients. p: the larger p of two one-sided paired t-tests over patients (TOST), of a difference below the margin and above minus the margin. Holm: adjusted for the comparisons of this table."
        ),
        format!(
            "Equivalent: p after Holm is below {LEVEL}, and the mean difference with every seed lies within the margin. Otherwise nothing is claimed here: not equivalent does not mean different."
        ),
        "Power: equivalence: the chance of p < 0.05 if the arms were equal. Power: difference: the chance that a two-sided paired t-test finds a difference as large as the margin. Both are for these patients and the observed spread, without Holm's correction.".to_owned(),
    ];
    if weak > 0 {
        notes.push(format!(
            "The power to show equivalence is below {ENOUGH} in {weak} of {} comparisons: more patients or a wider margin would be needed.",
            tested.len()
        ));
    }
    Some(Table {
        name: score.file("equivalence"),
        title: format!("{}: equivalence in {}", score.task.title(), score.words("")),
        caption: format!("On the same {split} patients for both arms, within ± {margin}{unit}."),
        columns: [
            "Arm",
            "Against",
            "Difference",
            "Margin",
            "Patients",
            "p",
            "p (Holm)",
            "Power: equivalence",
            "Power: difference",
            "Verdict",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: body,
        notes,
        decimals: score.metric.decimals() + 1,
    })
}

/// A power below this is remarked on.
const ENOUGH: f64 = 0.8;

fn verdict(c: &Comparison, e: &Equivalence) -> String {
    let outside = c.per_seed.iter().filter(|d| d.abs() >= e.margin).count();
    match (c.is_equivalent(), e.holm < LEVEL) {
        (true, _) => format!("equivalent, {} after Holm", p_words(e.holm)),
        (false, true) => format!(
            "not shown: outside the margin with {outside} of {} seeds (largest {})",
            c.per_seed.len(),
            number(c.per_seed.iter().fold(0.0, |m, d| if d.abs() > f64::abs(m) { *d } else { m }), 3)
        ),
        (false, false) => "not shown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{aggregate::comparison, report::fake, vocabulary::Metric};

    #[test]
    fn one_row_per_tested_comparison_with_its_power() {
        let input = fake::input(&fake::FakeShape { arms: 10, ..Default::default() });
        let score = Score::segmentation(Metric::Dice);
        let pairs = comparison::pairs(&input.meta.arms);
        let mut found = comparison::comparisons(&input.measurements, &score, "test", &pairs);
        assert_eq!(equivalence_table(&found, &score, "test", ""), None);
        comparison::test_equivalence(&mut found, 0.01);
        let table = equivalence_table(&found, &score, "test", "").unwrap();
        assert_eq!((table.name.as_str(), table.rows.len()), ("segmentation_equivalence_dice", found.len()));
        assert!(table.rows.iter().all(|row| row.len() == table.columns.len()));
        let text = table.to_markdown();
        assert!(
            text.contains("within ± 0.01") && text.contains("equivalent, p = 0.026 after Holm"),
            "{text}"
        );
        assert!(text.contains("| not shown |"), "{text}");
        let words = crate::aggregate::comparison_table(&found, &score, "test", "").unwrap().notes.join("\n");
        assert!(words.contains("No difference beyond the margin"), "{words}");
    }
}
