//! The answer of an experiment in a sentence: for a reader who reads nothing else.

use super::{
    ArmInfo, Comparison, Estimate, Score, Verdict, comparison::p_words, estimate, is_observation,
    table::number, tables::plural,
};
use crate::{results::Measurement, vocabulary::Structure};

/// What came out, for a reader who sees only this word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    Better,
    Worse,
    /// Better in one respect, not in another.
    Mixed,
    /// Equal within the margin of the spec.
    Equivalent,
    /// Tested, and no difference may be claimed.
    Unclear,
    /// Compared without a test.
    Untested,
    /// There is nothing to compare with.
    Measured,
}

impl Claim {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Mixed => "mixed",
            Self::Equivalent => "equivalent",
            Self::Unclear => "unclear",
            Self::Untested => "untested",
            Self::Measured => "measured",
        }
    }

    /// A sign that says the same without colour.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Better => "+",
            Self::Worse => "−",
            Self::Mixed => "±",
            Self::Equivalent => "≡",
            Self::Unclear => "≈",
            Self::Untested => "?",
            Self::Measured => "=",
        }
    }
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub outcome: Claim,
    /// `No: worse.`
    pub word: String,
    /// The numbers, the arm and the test.
    pub sentence: String,
}

impl Comparison {
    /// What may be claimed of the arm by this score.
    pub fn outcome(&self, score: &Score) -> Claim {
        match (self.verdict(), score.higher_is_better()) {
            (Verdict::Higher, true) | (Verdict::Lower, false) => Claim::Better,
            (Verdict::Lower, true) | (Verdict::Higher, false) => Claim::Worse,
            (Verdict::Equivalent, _) => Claim::Equivalent,
            (Verdict::NotSignificant | Verdict::SeedsDisagree, _) => Claim::Unclear,
            (Verdict::OneSeed, _) => Claim::Untested,
        }
    }

    /// The outcome in a word or two, for a narrow column.
    pub fn claim(&self, score: &Score) -> &'static str {
        match (self.verdict(), self.outcome(score)) {
            (Verdict::SeedsDisagree, _) => "seeds disagree",
            (Verdict::NotSignificant, _) => "no claim",
            (Verdict::OneSeed, _) => "one seed",
            (_, outcome) => outcome.as_str(),
        }
    }
}

/// Comparisons, grouped by the kinds of arms that they compare. Where there is no arm of real images only, another arm may stand in its
/// place: that comparison answers nothing, and is in none of these.
pub(super) struct AskedComparisons<'a> {
    /// Arms with synthetic images against real images only.
    pub baselines: Vec<&'a Comparison>,
    /// Arms with synthetic images against as many copies of real ones.
    pub controls: Vec<&'a Comparison>,
    /// Copies against real images only.
    pub copies: Vec<&'a Comparison>,
}

impl<'a> AskedComparisons<'a> {
    pub fn of(comparisons: &'a [Comparison], arms: &[ArmInfo]) -> Self {
        type Kind = fn(&ArmInfo) -> bool;
        let is = |name: &str, kind: Kind| arms.iter().any(|arm| arm.name == name && kind(arm));
        let between = |kind: Kind, against: Kind| {
            comparisons.iter().filter(|c| is(&c.arm, kind) && is(&c.against, against)).collect()
        };
        let (synthetic, copies): (Kind, Kind) = (|arm| arm.synthetic.is_some(), |arm| arm.control);
        Self {
            baselines: between(synthetic, ArmInfo::is_real_only),
            controls: between(synthetic, copies),
            copies: between(copies, ArmInfo::is_real_only),
        }
    }
}

/// How many of the comparisons came out how: `better in 2 of 3, no difference shown in 1 of 3`. None of none.
pub(super) fn counts(of: &[&Comparison], score: &Score) -> Option<String> {
    let of_outcome = |outcome| of.iter().filter(|c| c.outcome(score) == outcome).count();
    let (better, worse) = (of_outcome(Claim::Better), of_outcome(Claim::Worse));
    let equivalent = of_outcome(Claim::Equivalent);
    let rest = of.len() - better - worse - equivalent;
    let parts =
        [(better, "better"), (worse, "worse"), (equivalent, "equivalent"), (rest, "no difference shown")]
            .into_iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, words)| match of.len() {
                1 => words.to_owned(),
                all if n == all => format!("{words} in all {all} comparisons"),
                all => format!("{words} in {n} of {all}"),
            });
    (!of.is_empty()).then(|| parts.collect::<Vec<_>>().join(", "))
}

/// A task's results by its main score, from which its answer is drawn.
pub struct TaskResults<'a> {
    pub score: Score,
    pub split: &'a str,
    pub unit: &'a str,
    pub comparisons: &'a [Comparison],
    pub arms: &'a [ArmInfo],
    /// The tidy table.
    pub rows: &'a [Measurement],
}

/// An arm's score.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredArm {
    pub arm: String,
    pub model: String,
    pub estimate: Estimate,
}

impl Score {
    /// An arm's score over its images and seeds. None without a defined value.
    pub fn estimate(&self, rows: &[Measurement], split: &str, arm: &str, model: &str) -> Option<Estimate> {
        // The mean over structures is a structure of its own in the tidy table.
        let structure = (!self.structures.is_empty()).then_some(Structure::MEAN);
        let rows: Vec<&Measurement> = rows
            .iter()
            .filter(|r| r.task == self.task && r.model == model && r.arm == arm && r.split == split)
            .filter(|r| {
                r.metric == self.metric && is_observation(r) && structure.is_none_or(|s| r.structure == s)
            })
            .collect();
        (!rows.is_empty()).then(|| estimate(&rows)).filter(|e| e.mean.is_finite())
    }
}

impl TaskResults<'_> {
    pub fn estimate(&self, arm: &str, model: &str) -> Option<Estimate> {
        self.score.estimate(self.rows, self.split, arm, model)
    }

    /// Every arm and model with a score, in the order of the rows.
    pub fn scored(&self) -> Vec<ScoredArm> {
        super::arms(self.rows, self.score.task)
            .into_iter()
            .filter_map(|(arm, model)| {
                let estimate = self.estimate(&arm, &model)?;
                Some(ScoredArm { arm, model, estimate })
            })
            .collect()
    }

    fn several_models(&self) -> bool {
        let mut models = self.comparisons.iter().map(|c| &c.model);
        let first = models.next();
        models.any(|model| Some(model) != first)
    }

    fn number(&self, value: f64) -> String {
        number(value, self.score.metric.decimals())
    }

    /// `Dice`, `HD95 in mm`.
    fn label(&self) -> String {
        let unit = if self.unit.is_empty() { String::new() } else { format!(" in {}", self.unit) };
        format!("{}{unit}", self.score.label())
    }

    /// The answer of the task. None without a score.
    pub fn answer(&self) -> Option<Answer> {
        let AskedComparisons { baselines, controls, copies } =
            AskedComparisons::of(self.comparisons, self.arms);
        if !baselines.is_empty() {
            return Some(self.against_real(&baselines, &controls));
        }
        // Without an arm of real images only, copies of them are the next best baseline.
        if !controls.is_empty() {
            let Answer { outcome, word, sentence } = self.tested(&controls);
            let sentence =
                format!("{sentence} The baseline is copies of real images: no arm has real images only.");
            return Some(Answer { outcome, word, sentence });
        }
        if !copies.is_empty() {
            return Some(self.tested(&copies));
        }
        self.described()
    }

    fn against_real(&self, baselines: &[&Comparison], controls: &[&Comparison]) -> Answer {
        let mut answer = self.tested(baselines);
        let against_copies: Vec<&Comparison> =
            controls.iter().copied().filter(|c| c.outcome(&self.score) != Claim::Untested).collect();
        if let Some(counted) = counts(&against_copies, &self.score) {
            answer.sentence += &format!(" Against as many copies of real images: {counted}.");
        }
        // More images or more steps may help by themselves: copies of real images show how much of it.
        let better: Vec<&&Comparison> =
            baselines.iter().filter(|c| c.outcome(&self.score) == Claim::Better).collect();
        let control = |c: &Comparison| controls.iter().find(|k| k.arm == c.arm && k.model == c.model);
        let is_matched =
            |c: &&&Comparison| control(c).is_some_and(|k| k.outcome(&self.score) != Claim::Better);
        if !better.is_empty() && better.iter().all(is_matched) {
            answer.outcome = Claim::Mixed;
            answer.word = "Better than real images only, but not better than copies of them.".to_owned();
        }
        answer
    }

    /// The answer by comparisons of one kind.
    fn tested(&self, of: &[&Comparison]) -> Answer {
        let all = of.len();
        let of_outcome = |outcome| {
            of.iter().copied().filter(move |c| c.outcome(&self.score) == outcome).collect::<Vec<_>>()
        };
        let (better, worse) = (of_outcome(Claim::Better), of_outcome(Claim::Worse));
        let equivalent = of_outcome(Claim::Equivalent);
        let margin = equivalent.first().map_or(String::new(), |c| c.margin_words());
        let disagreeing = of.iter().filter(|c| c.verdict() == Verdict::SeedsDisagree).count();
        let things = if self.several_models() { "comparisons" } else { "arms" };
        let some = |n: usize| match n == all {
            true if all == 2 => format!("both {things}"),
            true => format!("all {all} {things}"),
            false => format!("{n} of {all} {things}"),
        };
        let (outcome, word) = match (better.len(), worse.len()) {
            (0, 0) if of.iter().all(|c| c.verdict() == Verdict::OneSeed) => {
                (Claim::Untested, "Not known: one seed, so no test.".to_owned())
            }
            (0, 0) if equivalent.len() == all && all == 1 => {
                (Claim::Equivalent, format!("No: equivalent{margin}."))
            }
            (0, 0) if equivalent.len() == all => {
                (Claim::Equivalent, format!("No: equivalent{margin} in {}.", some(all)))
            }
            (0, 0) if disagreeing > 0 && all == 1 => {
                (Claim::Unclear, "Not clear: the seeds disagree.".to_owned())
            }
            (0, 0) if disagreeing > 0 => {
                (Claim::Unclear, format!("Not clear: the seeds disagree in {}.", some(disagreeing)))
            }
            (0, 0) if all == 1 => (Claim::Unclear, "No difference shown.".to_owned()),
            (0, 0) if all == 2 => (Claim::Unclear, format!("No difference shown in either of 2 {things}.")),
            (0, 0) => (Claim::Unclear, format!("No difference shown in any of {all} {things}.")),
            (1, 0) if all == 1 => (Claim::Better, "Yes: better.".to_owned()),
            (n, 0) => (Claim::Better, format!("Yes: better in {}.", some(n))),
            (0, 1) if all == 1 => (Claim::Worse, "No: worse.".to_owned()),
            (0, n) => (Claim::Worse, format!("No: worse in {}.", some(n))),
            (n, m) => (Claim::Mixed, format!("Mixed: better in {}, worse in {m}.", some(n))),
        };
        let carriers = match outcome {
            Claim::Better | Claim::Mixed => better,
            Claim::Worse => worse,
            _ => of.to_vec(),
        };
        let largest = carriers.iter().max_by(|a, b| a.difference.abs().total_cmp(&b.difference.abs()));
        let lead = match outcome {
            _ if all == 1 => "",
            Claim::Better | Claim::Mixed => "Largest gain: ",
            Claim::Worse => "Largest loss: ",
            _ => "Largest difference: ",
        };
        let mut sentence = largest.map_or(String::new(), |c| format!("{lead}{}.", self.change(c)));
        if !equivalent.is_empty() && outcome != Claim::Equivalent {
            sentence += &format!(" Equivalent{margin}: {} of {all} {things}.", equivalent.len());
        }
        Answer { outcome, word, sentence }
    }

    /// `Dice 0.886 to 0.875 with one synthetic image per real one (arm “real + 1 text”, p < 0.001)`.
    fn change(&self, c: &Comparison) -> String {
        let score =
            |arm: &str| self.estimate(arm, &c.model).map_or("–".to_owned(), |e| self.number(e.mean));
        let info = self.arms.iter().find(|arm| arm.name == c.arm);
        let model = if self.several_models() { format!(", {}", c.model) } else { String::new() };
        let test = c.holm.map_or("one seed".to_owned(), p_words);
        format!(
            "{} {} to {} {} (arm “{}”{model}, {test})",
            self.label(),
            score(&c.against),
            score(&c.arm),
            info.map_or("with other images".to_owned(), addition),
            c.arm
        )
    }

    /// The answer where nothing is compared: the scores themselves.
    fn described(&self) -> Option<Answer> {
        let mut scored = self.scored();
        scored.sort_by(|a, b| a.estimate.mean.total_cmp(&b.estimate.mean));
        let (first, last) = (scored.first()?, scored.last()?);
        let several = scored.iter().any(|s| s.model != first.model);
        let words = |s: &ScoredArm| {
            let interval = s.estimate.interval.map_or(String::new(), |(low, high)| {
                format!(" [{}, {}]", self.number(low), self.number(high))
            });
            let model = if several { format!(", {}", s.model) } else { String::new() };
            format!("{}{model} {}{interval}", s.arm, self.number(s.estimate.mean))
        };
        let seeds = scored.iter().map(|s| s.estimate.seeds).min().unwrap_or_default();
        let seeds = match seeds {
            0 | 1 => "one seed, so the spread between trainings is not known".to_owned(),
            n => plural(n, "seed", "seeds"),
        };
        let n = format!("n = {} {} patients, {seeds}", last.estimate.patients, self.split);
        let brackets = "in brackets the 95 % interval over patients";
        let (label, low, high) =
            (self.label(), self.number(first.estimate.mean), self.number(last.estimate.mean));
        let (word, sentence) = match (scored.len(), last.estimate.interval) {
            (1, None) => (format!("{label} {high}."), format!("{n}.")),
            (1, Some((a, b))) => (
                format!("{label} {high}."),
                format!("95 % interval over patients {} to {}; {n}.", self.number(a), self.number(b)),
            ),
            (2..=4, _) => {
                let each: Vec<String> = scored.iter().map(words).collect();
                (format!("{label} {low} to {high}."), format!("{}; {brackets}; {n}.", each.join("; ")))
            }
            (all, _) => (
                format!("{label} {low} to {high}."),
                format!("Lowest of {all}: {}. Highest: {}; {brackets}; {n}.", words(first), words(last)),
            ),
        };
        Some(Answer { outcome: Claim::Measured, word, sentence })
    }
}

/// `with one synthetic image per real one`: what an arm has that its baseline lacks.
fn addition(arm: &ArmInfo) -> String {
    let (one, many) = if arm.synthetic.is_some() {
        ("synthetic image", "synthetic images")
    } else {
        ("copy of each real image", "copies of each real image")
    };
    let share = match arm.real_fraction {
        1.0 => String::new(),
        fraction => format!(" and {} % of the real patients", short(100.0 * fraction)),
    };
    let per = if arm.synthetic.is_some() { " per real one" } else { "" };
    let amount = match arm.ratio {
        None => many.to_owned(),
        Some(1.0) => format!("one {one}{per}"),
        Some(ratio) => format!("{} {many}{per}", short(ratio)),
    };
    match arm.replaces_real {
        true => format!("with synthetic images only, {amount}{share}"),
        false => format!("with {amount}{share}"),
    }
}

/// `0.25`, `2`.
fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        aggregate::{comparison, measurements_table},
        report::fake,
        vocabulary::Metric,
    };

    struct Experiment {
        arms: Vec<ArmInfo>,
        rows: Vec<Measurement>,
        found: Vec<Comparison>,
        score: Score,
    }

    impl Experiment {
        fn of(arms: usize, seeds: u64, score: Score) -> Self {
            let shape = fake::FakeShape { arms, seeds, patients: 30, epochs: 1 };
            let input = fake::input(&shape);
            let rows = measurements_table(&input.measurements).unwrap();
            let pairs = comparison::pairs(&input.meta.arms);
            let found = comparison::comparisons(&rows, &score, "test", &pairs);
            Self { arms: input.meta.arms, rows, found, score }
        }

        fn answer(&self) -> Option<Answer> {
            let results = TaskResults {
                score: self.score,
                split: "test",
                unit: "",
                comparisons: &self.found,
                arms: &self.arms,
                rows: &self.rows,
            };
            results.answer()
        }

        /// Gives every comparison the same difference and p-value.
        fn set(&mut self, against: &str, difference: f64, p: f64) {
            for c in self.found.iter_mut().filter(|c| c.against == against) {
                c.difference = difference;
                c.per_seed.fill(difference);
                c.holm = Some(p);
                if let Some(test) = &mut c.test {
                    (test.positive, test.negative) = if difference > 0.0 { (9.0, 0.0) } else { (0.0, 9.0) };
                }
            }
        }
    }

    fn dice() -> Score {
        Score::segmentation(Metric::Dice)
    }

    #[test]
    fn one_arm_is_better_worse_or_neither_and_the_numbers_are_those_of_the_tables() {
        let mut one = Experiment::of(3, 3, dice());
        assert_eq!(one.found.len(), 1);
        one.set("real", 0.012, 1e-4);
        let answer = one.answer().unwrap();
        assert_eq!((answer.outcome, answer.word.as_str()), (Claim::Better, "Yes: better."));
        let mean =
            |arm: &str| number(one.score.estimate(&one.rows, "test", arm, "monai-unet").unwrap().mean, 3);
        let expected = format!(
            "Dice {} to {} with one synthetic image per real one (arm “real + 100 % text+seg”, p < 0.001).",
            mean("real"),
            mean("real + 100 % text+seg")
        );
        assert_eq!(answer.sentence, expected);
        one.set("real", -0.012, 0.02);
        let answer = one.answer().unwrap();
        assert_eq!((answer.outcome, answer.word.as_str()), (Claim::Worse, "No: worse."));
        assert!(answer.sentence.ends_with("p = 0.020)."), "{}", answer.sentence);
        one.set("real", -0.012, 0.2);
        assert_eq!(one.answer().unwrap().word, "No difference shown.");
        // Every seed's mean has to have the same sign.
        one.set("real", -0.012, 1e-4);
        one.found[0].per_seed[0] = 0.001;
        assert_eq!(one.answer().unwrap().word, "Not clear: the seeds disagree.");
    }

    #[test]
    fn a_lower_distance_is_better() {
        let mut one = Experiment::of(3, 3, Score::segmentation(Metric::Hd95));
        one.set("real", -1.5, 1e-4);
        assert_eq!(one.answer().unwrap().outcome, Claim::Better);
        assert_eq!(one.found[0].claim(&one.score), "better");
        one.set("real", 1.5, 1e-4);
        assert_eq!(one.answer().unwrap().outcome, Claim::Worse);
    }

    #[test]
    fn one_seed_has_no_test() {
        let answer = Experiment::of(3, 1, dice()).answer().unwrap();
        assert_eq!(answer.outcome, Claim::Untested);
        assert_eq!(answer.word, "Not known: one seed, so no test.");
        assert!(answer.sentence.ends_with("one seed)."), "{}", answer.sentence);
    }

    #[test]
    fn copies_that_do_as_well_take_the_merit_from_the_images() {
        let mut many = Experiment::of(4, 3, dice());
        many.set("real", 0.012, 1e-4);
        many.set("duplicate-real 100 %", 0.001, 0.9);
        let answer = many.answer().unwrap();
        assert_eq!(answer.outcome, Claim::Mixed);
        assert!(answer.word.contains("not better than copies"), "{answer:?}");
        assert!(answer.sentence.ends_with("Against as many copies of real images: no difference shown."));
        many.set("duplicate-real 100 %", 0.01, 1e-4);
        assert_eq!(many.answer().unwrap().word, "Yes: better.");
    }

    #[test]
    fn many_arms_are_counted_and_the_largest_change_is_named() {
        let mut many = Experiment::of(10, 3, dice());
        many.set("duplicate-real 100 %", 0.01, 1e-4);
        many.set("duplicate-real 200 %", 0.01, 1e-4);
        many.set("real", -0.01, 1e-4);
        assert_eq!(many.answer().unwrap().word, "No: worse in all 6 arms.");
        many.set("real", 0.01, 0.4);
        assert_eq!(many.answer().unwrap().word, "No difference shown in any of 6 arms.");
        let first = many.found.iter_mut().find(|c| c.arm.contains("text+seg")).unwrap();
        first.holm = Some(1e-4);
        let answer = many.answer().unwrap();
        assert_eq!(answer.word, "Yes: better in 1 of 6 arms.");
        assert!(answer.sentence.starts_with("Largest gain: Dice 0."), "{}", answer.sentence);
        many.set("real", -0.01, 1e-4);
        let first = many.found.iter_mut().find(|c| c.arm.contains("text+seg")).unwrap();
        (first.difference, first.test.as_mut().unwrap().positive) = (0.02, 99.0);
        first.per_seed.fill(0.02);
        assert_eq!(many.answer().unwrap().word, "Mixed: better in 1 of 6 arms, worse in 5.");
    }

    #[test]
    fn without_a_comparison_the_scores_are_the_answer() {
        let one = Experiment::of(1, 3, dice()).answer().unwrap();
        assert_eq!(one.outcome, Claim::Measured);
        assert!(one.word.starts_with("Dice 0.8") && one.sentence.contains("n = 30 test patients, 3 seeds"));
        let two = Experiment::of(2, 1, Score::ACCURACY).answer().unwrap();
        assert!(two.word.starts_with("Accuracy 0.") && two.word.contains(" to "), "{two:?}");
        assert!(two.sentence.starts_with("real 25 % 0.") && two.sentence.contains("one seed"), "{two:?}");
        let mut none = Experiment::of(1, 1, dice());
        none.rows.clear();
        assert_eq!(none.answer(), None);
        // Without an arm of real images only, copies of them are the baseline.
        let mut copies = Experiment::of(4, 3, dice());
        copies.found.retain(|c| c.against != "real");
        assert!(copies.answer().unwrap().sentence.ends_with("no arm has real images only."));
    }

    #[test]
    fn additions_in_words() {
        let arm = |synthetic: bool, ratio, real_fraction, replaces_real| ArmInfo {
            synthetic: synthetic.then(|| "text".to_owned()),
            ratio,
            real_fraction,
            replaces_real,
            control: !synthetic,
            ..ArmInfo::default()
        };
        let words = [
            (arm(true, Some(1.0), 1.0, false), "with one synthetic image per real one"),
            (arm(true, Some(0.5), 1.0, false), "with 0.5 synthetic images per real one"),
            (
                arm(true, Some(2.0), 0.1, false),
                "with 2 synthetic images per real one and 10 % of the real patients",
            ),
            (arm(true, Some(1.0), 1.0, true), "with synthetic images only, one synthetic image per real one"),
            (arm(true, None, 1.0, false), "with synthetic images"),
            (arm(false, Some(1.0), 1.0, false), "with one copy of each real image"),
        ];
        for (arm, expected) in words {
            assert_eq!(addition(&arm), expected);
        }
    }
}
