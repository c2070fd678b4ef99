//! Tables of comparisons between arms, and of how soon they converge.

use super::{
    ArmInfo, Comparison, Score, Verdict,
    answer::{AskedComparisons, counts},
    comparison::p_words,
    convergence::{Convergence, OverSeeds, SHARE, Speed},
    paired::LEVEL,
    table::{Table, TableCell, number},
    tables::plural,
};
use crate::vocabulary::{Metric, Task};

impl Score {
    /// `Dice`, `HD95`, `Accuracy`.
    pub fn label(&self) -> &'static str {
        self.metric.label()
    }

    pub fn higher_is_better(&self) -> bool {
        self.metric.higher_is_better()
    }

    /// `mean Dice`, `EF error`, `accuracy`.
    pub fn short(&self) -> String {
        match (self.metric, self.structures) {
            (Metric::Correct, _) => self.label().to_lowercase(),
            (_, []) => self.label().to_owned(),
            _ => format!("mean {}", self.label()),
        }
    }

    /// Decimals of a difference.
    fn decimals(&self) -> usize {
        self.metric.decimals()
    }

    /// Begins the names of its tables and figures: `segmentation_WHAT_dice`, `classification_WHAT`.
    pub fn file(&self, what: &str) -> String {
        match self.metric {
            Metric::Correct => format!("{}_{what}", self.task),
            metric => format!("{}_{what}_{metric}", self.task),
        }
    }

    /// `mean Dice of endocardium, myocardium and atrium`.
    pub(super) fn words(&self, unit: &str) -> String {
        let unit = if unit.is_empty() { String::new() } else { format!(" in {unit}") };
        match self.structures {
            [] => format!("{}{unit}", self.short()),
            _ => format!("{}{unit} of endocardium, myocardium and atrium", self.short()),
        }
    }
}

/// An arm's name, with the model only where there are several.
pub(super) fn named(arm: &str, model: &str, several: bool) -> String {
    if several { format!("{arm}, {model}") } else { arm.to_owned() }
}

fn counted(comparisons: u64) -> String {
    plural(comparisons, "comparison", "comparisons")
}

/// `A; B`; with the words before it.
fn listed(before: &str, of: &[&Comparison], words: impl Fn(&Comparison) -> String) -> Option<String> {
    let items: Vec<String> = of.iter().map(|c| words(c)).collect();
    (!items.is_empty()).then(|| format!("{before}: {}.", items.join("; ")))
}

/// What is significant and what is not, in sentences. Nothing is called better without a test.
pub fn in_words(comparisons: &[Comparison], several_models: bool) -> Vec<String> {
    let of = |verdict: &[Verdict]| -> Vec<&Comparison> {
        comparisons.iter().filter(|c| verdict.contains(&c.verdict())).collect()
    };
    let significant = of(&[Verdict::Higher, Verdict::Lower]);
    let (not, untested) = (of(&[Verdict::NotSignificant]), of(&[Verdict::OneSeed]));
    let (disagreeing, equal) = (of(&[Verdict::SeedsDisagree]), of(&[Verdict::Equivalent]));
    let tested = significant.len() + not.len() + disagreeing.len() + equal.len();
    let arm = |c: &Comparison| named(&c.arm, &c.model, several_models);
    let mut words = Vec::new();
    if tested > 0 {
        let before =
            format!("Significant at {LEVEL} after Holm's correction over {}", counted(tested as u64));
        words.extend(
            listed(&before, &significant, |c| format!("{} is {}", arm(c), c.words()))
                .or(Some(format!("{before}: none. None of these arms can be called better or worse."))),
        );
        let pair = |c: &Comparison| {
            format!("{} against {} ({})", arm(c), c.against, p_words(c.holm.unwrap_or(f64::NAN)))
        };
        words.extend(listed(
            "The test is significant, but the seeds disagree on the sign, so no arm is called better or worse",
            &disagreeing,
            pair,
        ));
        words.extend(listed("No difference beyond the margin (table of equivalence)", &equal, |c| {
            format!("{} is {}", arm(c), c.words())
        }));
        words.extend(listed(
            "No significant difference (which does not mean that the arms are equal)",
            &not,
            pair,
        ));
    }
    let pair = |c: &Comparison| format!("{} against {}", arm(c), c.against);
    words.extend(listed("One seed, so no test: no arm can be called better or worse", &untested, pair));
    words
}

/// What a further score shows, in a line. None where nothing was compared or tested.
pub fn also(comparisons: &[Comparison], arms: &[ArmInfo], score: &Score) -> Option<String> {
    let AskedComparisons { baselines, controls, .. } = AskedComparisons::of(comparisons, arms);
    if baselines.iter().chain(&controls).all(|c| c.verdict() == Verdict::OneSeed) {
        return None;
    }
    let counted = |of: &[&Comparison], what: &str| Some(format!("against {what} {}", counts(of, score)?));
    let parts = [counted(&baselines, "real images only"), counted(&controls, "as many copies of them")];
    let direction = if score.higher_is_better() { "higher" } else { "lower" };
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    Some(format!("{} ({direction} is better): {}.", capital(&score.short()), parts.join("; ")))
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().collect::<String>() + letters.as_str())
}

/// One row per comparison, with its verdict. None without comparisons.
pub fn comparison_table(comparisons: &[Comparison], score: &Score, split: &str, unit: &str) -> Option<Table> {
    let first = comparisons.first()?;
    let several = comparisons.iter().any(|c| c.model != first.model);
    let decimals = score.decimals();
    let body = comparisons
        .iter()
        .map(|c| {
            let seeds: Vec<String> = c.per_seed.iter().map(|d| number(*d, decimals + 1)).collect();
            let p = |p: Option<f64>| p.map_or(TableCell::Empty, TableCell::P);
            vec![
                named(&c.arm, &c.model, several).into(),
                c.against.as_str().into(),
                TableCell::Estimate {
                    mean: c.difference,
                    sd: c.seed_sd,
                    interval: c.interval,
                    undefined: c.undefined,
                },
                TableCell::Text(seeds.join("; ")),
                TableCell::Count(c.patients),
                TableCell::Count(c.per_seed.len() as u64),
                p(c.test.map(|t| t.p)),
                p(c.holm),
                c.test.map_or(TableCell::Empty, |t| TableCell::Number {
                    value: t.rank_biserial(),
                    decimals: 2,
                }),
                TableCell::Number { value: c.dz, decimals: 2 },
                c.words().into(),
            ]
        })
        .collect();
    let mut notes = in_words(comparisons, several);
    let seeds = comparisons.iter().any(|c| c.seed_sd.is_some());
    let (averaged, parts) = match score.metric.is_of_patients() {
        true => ("each patient having one value", "patient, seed"),
        false => ("each patient's values averaged over its images", "image, structure, seed"),
    };
    notes.push(format!(
        "Difference: the arm minus the arm in the column Against, before rounding. It is the mean over patients, {averaged}{} In brackets: 95 % paired bootstrap interval over patients (2000 resamples).",
        if seeds { ", then over seeds, ± sample standard deviation over seeds. Per seed lists the differences one by one." } else { "." },
    ));
    let tested = comparisons.iter().filter(|c| c.test.is_some()).count() as u64;
    if tested > 0 {
        notes.push(format!(
            "p: two-sided Wilcoxon signed-rank test over patients. Holm: adjusted for the {} of this table. The test generalises to other patients, not to other trainings, so an arm is called higher or lower only if the difference also has the same sign with every seed. The interval concerns the mean and is not corrected; the test concerns signed ranks and is corrected. Close to the limit they may disagree. Rank-biserial: matched-pairs correlation, −1 to 1.",
            counted(tested)
        ));
    }
    if !score.metric.definition().is_empty() && score.metric.is_of_patients() {
        notes.push(score.metric.definition().to_owned());
    }
    notes.push("dz (Cohen): mean difference divided by its standard deviation over patients.".to_owned());
    if comparisons.iter().any(|c| c.undefined > 0) {
        notes.push(format!(
            "Undefined: values ({parts}) that one of the two arms lacks. They are left out of both arms, so this comparison does not penalise an arm that misses a structure more often."
        ));
    }
    let better = if score.higher_is_better() { "higher" } else { "lower" };
    Some(Table {
        name: score.file("comparisons"),
        title: format!("{}: differences in {}", score.task.title(), score.words(unit)),
        caption: format!("On the same {split} patients for both arms; {better} is better."),
        columns: [
            "Arm",
            "Against",
            "Difference",
            "Per seed",
            "Patients",
            "Seeds",
            "p",
            "p (Holm)",
            "Rank-biserial",
            "dz",
            "Verdict",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: body,
        notes,
        decimals,
    })
}

/// Steps and epochs to 95 % of the arm's own and of its baseline's final score. None without curves.
pub fn convergence_table(found: &[Convergence], task: Task) -> Option<Table> {
    let first = found.first()?;
    let several = found.iter().any(|c| c.model != first.model);
    let percent = SHARE * 100.0;
    let over = |of: OverSeeds, speed: &Speed, decimals: usize| match speed.reached == speed.seeds {
        true if decimals == 0 => {
            TableCell::Estimate { mean: of.mean, sd: of.sd, interval: of.interval, undefined: 0 }
        }
        true => TableCell::Number { value: of.mean, decimals },
        false => TableCell::Text(format!("> {}", number(of.mean, decimals))),
    };
    let cells = |speed: &Speed| {
        [
            over(speed.steps, speed, 0),
            over(speed.epochs, speed, 1),
            format!("{} of {}", speed.reached, speed.seeds).into(),
        ]
    };
    let body = found
        .iter()
        .map(|c| {
            let mut row = vec![named(&c.arm, &c.model, several).into()];
            row.push(TableCell::Number { value: c.last.mean, decimals: 3 });
            row.extend(cells(&c.own));
            row.push(format!("{} ({})", number(c.common.1.target, 3), c.common.0).into());
            row.extend(cells(&c.common.1));
            row
        })
        .collect();
    let score = Score::main(task).short();
    let mut notes = vec![
        format!(
            "Final: {score} at the last validation, mean over seeds. Own: training until {percent:.0} % of the arm's own final score; an arm with a poor final score gets there early. Common: training until {percent:.0} % of the final score of its baseline (in brackets), the same target for all arms with the same patients. Compare arms by the common target. Steps count the work, because an epoch of a larger arm has more steps."
        ),
        "Values are read off each seed's curve, with straight lines between validations.".to_owned(),
    ];
    notes.push(if found.iter().all(|c| c.own.seeds < 2) {
        "One seed: the spread is not known, so no arm can be called faster.".to_owned()
    } else {
        "Steps: mean over seeds ± sample standard deviation. In brackets: 95 % bootstrap interval over seeds, which is little more than their range with two or three seeds. So few seeds are not tested, so no arm is called faster.".to_owned()
    });
    let speeds = || found.iter().flat_map(|c| [&c.own, &c.common.1]);
    if speeds().any(|s| s.reached < s.seeds) {
        notes.push(
            "Reached: seeds that reach the target. A seed that does not counts with its last step, so the true mean is higher."
                .to_owned(),
        );
    }
    if speeds().any(|s| s.at_first > 0) {
        notes.push(
            "Some seeds have the score at their first validation and may have had it earlier. They count with that step."
                .to_owned(),
        );
    }
    Some(Table {
        name: format!("{task}_convergence"),
        title: format!("{}: convergence", task.title()),
        caption: format!(
            "How much training it takes to reach {percent:.0} % of a final score ({score} on the validation patients)."
        ),
        columns: [
            "Arm",
            "Final",
            "Own: steps",
            "Own: epochs",
            "Own: reached",
            "Common target",
            "Common: steps",
            "Common: epochs",
            "Common: reached",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: body,
        notes,
        decimals: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::Structure;
    use crate::{
        aggregate::{comparison, convergence},
        report::fake,
        results::{CurvePoint, Measurement},
    };

    fn compared(seeds: u64) -> (Table, Vec<Comparison>) {
        let input = fake::input(&fake::FakeShape { arms: 10, seeds, ..Default::default() });
        let score = Score::segmentation(Metric::Dice);
        let pairs = comparison::pairs(&input.meta.arms);
        let found = comparison::comparisons(&input.measurements, &score, "test", &pairs);
        (comparison_table(&found, &score, "test", "").unwrap(), found)
    }

    #[test]
    fn one_row_per_comparison_with_its_verdict_in_words() {
        let (table, found) = compared(3);
        assert_eq!(table.name, "segmentation_comparisons_dice");
        // Seven arms against real, and the two of ratio 1 with a control beside them.
        assert_eq!(table.rows.len(), found.len());
        assert!(found.iter().filter(|c| c.against == "duplicate-real 100 %").count() == 3, "{found:?}");
        assert!(table.rows.iter().all(|row| row.len() == table.columns.len()));
        assert!(table.notes[0].starts_with("Significant at 0.05 after Holm's correction over "));
        let text = table.to_markdown();
        assert!(text.contains("than real, p ") && text.contains("no significant difference"), "{text}");
        let csv = table.to_csv().unwrap();
        assert!(csv.lines().next().unwrap().contains("Difference,Difference sd,Difference low"), "{csv}");
    }

    #[test]
    fn a_further_score_has_a_line_that_knows_its_direction() {
        let arms = fake::input(&fake::FakeShape { arms: 10, ..Default::default() }).meta.arms;
        let (_, found) = compared(3);
        let line = also(&found, &arms, &Score::segmentation(Metric::Dice)).unwrap();
        assert!(
            line.starts_with("Mean Dice (higher is better): against real images only better in"),
            "{line}"
        );
        // Of a distance the same differences are for the worse.
        let line = also(&found, &arms, &Score::segmentation(Metric::Hd95)).unwrap();
        assert!(line.contains("(lower is better)") && line.contains(" worse in"), "{line}");
        assert!(line.contains("; against as many copies of them "), "{line}");
        assert_eq!(also(&compared(1).1, &arms, &Score::segmentation(Metric::Dice)), None);
        assert_eq!(also(&found, &arms[..2], &Score::segmentation(Metric::Dice)), None);
    }

    #[test]
    fn nothing_is_better_with_one_seed() {
        let (table, found) = compared(1);
        assert!(found.iter().all(|c| c.verdict() == Verdict::OneSeed));
        assert!(table.notes[0].starts_with("One seed, so no test"), "{:?}", table.notes);
        let text = table.to_markdown();
        assert!(text.contains("one seed: no test") && !text.contains("higher than"), "{text}");
    }

    #[test]
    fn nothing_significant_is_said() {
        let (_, mut found) = compared(3);
        found.iter_mut().for_each(|c| c.holm = Some(0.5));
        let words = in_words(&found, false);
        assert!(words[0].ends_with("none. None of these arms can be called better or worse."));
        assert!(words[1].starts_with(
            "No significant difference (which does not mean that the arms are equal): real + 100"
        ));
    }

    #[test]
    fn distances_have_their_unit_and_say_what_is_left_out() {
        let input = fake::input(&fake::FakeShape { arms: 4, ..Default::default() });
        let score = Score::segmentation(Metric::Hd95);
        let pairs = comparison::pairs(&input.meta.arms);
        let found = comparison::comparisons(&input.measurements, &score, "test", &pairs);
        let table = comparison_table(&found, &score, "test", "mm").unwrap();
        assert!(table.title.ends_with("mean HD95 in mm of endocardium, myocardium and atrium"));
        assert!(
            table.caption.contains("lower is better")
                && table.notes.iter().any(|n| n.starts_with("Undefined"))
        );
        assert!(comparison_table(&[], &score, "test", "mm").is_none());
        let none: Vec<Measurement> = Vec::new();
        assert!(comparison::comparisons(&none, &score, "test", &pairs).is_empty());
    }

    #[test]
    fn convergence_counts_who_does_not_get_there() {
        let input = fake::input(&fake::FakeShape { arms: 3, ..Default::default() });
        let mean_dice = |p: &&CurvePoint| p.metric == Metric::Dice && p.structure == Structure::MEAN;
        let points = || input.curves.iter().filter(mean_dice);
        let found = convergence::convergence(points(), |_| None);
        let table = convergence_table(&found, Task::Segmentation).unwrap();
        assert_eq!((table.rows.len(), table.name.as_str()), (3, "segmentation_convergence"));
        assert!(table.rows.iter().all(|row| row.len() == table.columns.len()));
        let mut found = convergence::convergence(points().filter(|p| p.arm == "real"), |_| None);
        found[0].common.1.reached = 2;
        let text = convergence_table(&found, Task::Segmentation).unwrap().to_markdown();
        assert!(text.contains("| &gt; ") && text.contains("| 2 of 3 |"), "{text}");
        assert!(convergence_table(&[], Task::Segmentation).is_none());
    }
}
