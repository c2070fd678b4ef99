//! One arm against another on the same test patients.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::{
    equivalence::{Equivalence, equivalence},
    paired::{LEVEL, SignedRank, cohens_dz, holm, wilcoxon},
    rows::is_observation,
    stats::{self, PatientValue},
};
use crate::{
    results::Measurement,
    vocabulary::{Metric, Structure, Task},
};

/// Differences of averages are rounded here: the last bits of a sum must not separate ties, or make a zero positive.
const DECIMALS: f64 = 1e10;

/// What an arm was trained on: which others it is compared with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ArmInfo {
    pub name: String,
    /// In words, what it is trained on.
    #[serde(default)]
    pub what: String,
    /// The generator of its synthetic images; and how they are used, where not beside the real ones.
    pub synthetic: Option<String>,
    /// Synthetic (or repeated) images per real one.
    pub ratio: Option<f64>,
    /// Its synthetic images stand in place of the real ones.
    #[serde(default)]
    pub replaces_real: bool,
    /// It has as many images as an arm with synthetic ones, and nothing new in them.
    pub control: bool,
    /// Of the training patients, in (0, 1].
    pub real_fraction: f64,
}

impl ArmInfo {
    /// Real images, each once.
    pub fn is_real_only(&self) -> bool {
        self.synthetic.is_none() && !self.control
    }
}

/// The arm of real images only with the same patients; without one, the first arm with these patients.
/// None for an arm of real images only: it is a baseline itself.
pub fn baseline_of<'a>(arms: &'a [ArmInfo], arm: &ArmInfo) -> Option<&'a ArmInfo> {
    if arm.is_real_only() {
        return None;
    }
    let same = || arms.iter().filter(|a| a.real_fraction == arm.real_fraction);
    same().find(|a| a.is_real_only()).or_else(|| same().next()).filter(|a| a.name != arm.name)
}

/// The control with the same patients and as many images.
pub fn control_of<'a>(arms: &'a [ArmInfo], arm: &ArmInfo) -> Option<&'a ArmInfo> {
    let same = |a: &&ArmInfo| a.control && a.real_fraction == arm.real_fraction && a.ratio == arm.ratio;
    let has_control = arm.synthetic.is_some() && !arm.replaces_real;
    arms.iter().find(same).filter(|_| has_control)
}

/// (arm, against): each arm and its baseline, then each arm and its control; those against the same arm
/// together.
pub fn pairs(arms: &[ArmInfo]) -> Vec<(String, String)> {
    let with = |of: for<'a> fn(&'a [ArmInfo], &ArmInfo) -> Option<&'a ArmInfo>| {
        arms.iter().filter_map(move |arm| Some((arm.name.clone(), of(arms, arm)?.name.clone())))
    };
    let mut found: Vec<(String, String)> = Vec::new();
    // Where a control stands in for the baseline, it is both.
    with(baseline_of).chain(with(control_of)).for_each(|pair| {
        if !found.contains(&pair) {
            found.push(pair);
        }
    });
    let mut sorted = found.clone();
    sorted.sort_by_key(|pair| found.iter().position(|other| other.1 == pair.1));
    sorted
}

/// A score that arms are compared by, of one value per image (and structure) or per patient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    pub task: Task,
    pub metric: Metric,
    /// An image's value is the mean of these; empty: whatever structure a row has.
    pub structures: &'static [Structure],
}

impl Score {
    pub const fn segmentation(metric: Metric) -> Self {
        Self { task: Task::Segmentation, metric, structures: &Structure::CLASSES }
    }

    /// One value per patient.
    pub const EF_ERROR: Self = Self { task: Task::Segmentation, metric: Metric::EfError, structures: &[] };

    pub const ACCURACY: Self = Self { task: Task::Classification, metric: Metric::Correct, structures: &[] };

    /// The score that says most of a task.
    pub fn main(task: Task) -> Self {
        if task == Task::Segmentation { Self::segmentation(Metric::Dice) } else { Self::ACCURACY }
    }

    /// The scores that arms are compared by, the most telling of each task first.
    pub fn all() -> impl Iterator<Item = Self> {
        Metric::of_images(Task::Segmentation).map(Self::segmentation).chain([Self::EF_ERROR, Self::ACCURACY])
    }

    fn has(&self, row: &Measurement) -> bool {
        row.task == self.task
            && row.metric == self.metric
            && is_observation(row)
            && (self.structures.is_empty()
                || self.structures.iter().any(|structure| row.structure == *structure))
    }
}

/// The difference of two arms, first less second.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    pub arm: String,
    pub against: String,
    pub model: String,
    /// Mean over patients; each patient's difference is the mean over its images, then over seeds.
    pub difference: f64,
    /// The mean over patients with each seed that both arms have, by seed.
    pub per_seed: Vec<f64>,
    /// Sample standard deviation of [`Self::per_seed`]; None with one seed.
    pub seed_sd: Option<f64>,
    /// 95 % bootstrap interval of the difference over patients.
    pub interval: Option<(f64, f64)>,
    pub patients: u64,
    /// Values (image, structure, seed) that one of the arms does not have: left out of both.
    pub undefined: u64,
    /// Over patients. None with one seed: a difference of two trainings is then all that there is.
    pub test: Option<SignedRank>,
    /// p adjusted for all comparisons that were made together.
    pub holm: Option<f64>,
    pub dz: f64,
    /// Each patient's difference.
    differences: Vec<f64>,
    /// Where a margin was given, and there are several seeds.
    pub equivalence: Option<Equivalence>,
}

/// What may be claimed from a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Higher,
    Lower,
    NotSignificant,
    /// No direction may be claimed, and the difference lies within the margin.
    Equivalent,
    /// The patients tell the networks apart, but not all seeds' networks in the same direction: another training may
    /// turn the difference round.
    SeedsDisagree,
    OneSeed,
}

impl Comparison {
    /// The direction is that of the ranks, which were tested. The test is over patients and knows nothing of how far two
    /// trainings of the same arm lie apart: a direction counts only where every seed's mean has it.
    pub fn verdict(&self) -> Verdict {
        let (test, p) = match (self.test, self.holm) {
            (Some(test), Some(p)) => (test, p),
            (Some(_), None) => return Verdict::NotSignificant,
            (None, _) => return Verdict::OneSeed,
        };
        let higher = test.rank_biserial() > 0.0;
        let agrees = |d: &f64| if higher { *d > 0.0 } else { *d < 0.0 };
        match (p < LEVEL, self.per_seed.iter().all(agrees)) {
            (true, true) if higher => Verdict::Higher,
            (true, true) => Verdict::Lower,
            _ if self.is_equivalent() => Verdict::Equivalent,
            (true, false) => Verdict::SeedsDisagree,
            (false, _) => Verdict::NotSignificant,
        }
    }

    /// Whether the arms may be called equal within the margin: by both one-sided tests after Holm's correction, and with
    /// every seed's mean within the margin.
    pub fn is_equivalent(&self) -> bool {
        let within = |e: &Equivalence| self.per_seed.iter().all(|d| d.abs() < e.margin);
        self.equivalence.as_ref().is_some_and(|e| e.holm < LEVEL && within(e))
    }

    /// `higher than real, p = 0.003 after Holm`.
    pub fn words(&self) -> String {
        let p = p_words(self.holm.unwrap_or(f64::NAN));
        let word = match self.verdict() {
            Verdict::NotSignificant => return "no significant difference".to_owned(),
            Verdict::SeedsDisagree => {
                return format!("seeds disagree, no difference claimed ({p} after Holm)");
            }
            Verdict::OneSeed => return "one seed: no test".to_owned(),
            Verdict::Equivalent => return format!("equivalent to {}{}", self.against, self.margin_words()),
            Verdict::Higher => "higher",
            Verdict::Lower => "lower",
        };
        let within = if self.is_equivalent() { ", but within the margin" } else { "" };
        format!("{word} than {}, {p} after Holm{within}", self.against)
    }

    /// ` within ± 0.01`; empty without a margin.
    pub fn margin_words(&self) -> String {
        self.equivalence.map_or(String::new(), |e| format!(" within ± {}", e.margin))
    }
}

/// `p = 0.003`, `p < 0.001`.
pub fn p_words(p: f64) -> String {
    if p < 1e-3 { "p < 0.001".to_owned() } else { format!("p = {p:.3}") }
}

/// Compares pairs of arms by a score on one split, model by model; p-values are adjusted over all of them.
/// A pair without a common value is left out.
pub fn comparisons(
    rows: &[Measurement],
    score: &Score,
    split: &str,
    pairs: &[(String, String)],
) -> Vec<Comparison> {
    let mut by_arm: HashMap<(&str, &str), Vec<&Measurement>> = HashMap::new();
    let mut models: Vec<&str> = Vec::new();
    for row in rows.iter().filter(|row| score.has(row) && row.split == split) {
        by_arm.entry((&row.model, &row.arm)).or_default().push(row);
        if !models.contains(&row.model.as_str()) {
            models.push(&row.model);
        }
    }
    let mut found: Vec<Comparison> = models
        .iter()
        .flat_map(|model| pairs.iter().map(move |pair| (model, pair)))
        .filter_map(|(model, (arm, against))| {
            compare(by_arm.get(&(*model, arm))?, by_arm.get(&(*model, against))?)
        })
        .collect();
    let p: Vec<f64> = found.iter().filter_map(|c| Some(c.test?.p)).collect();
    let tested = found.iter_mut().filter(|c| c.test.is_some());
    tested.zip(holm(&p)).for_each(|(comparison, adjusted)| comparison.holm = Some(adjusted));
    found
}

/// Tests whether the arms of comparisons are equal within a margin; p-values are adjusted over all of them. A comparison of
/// one seed is not tested.
pub fn test_equivalence(found: &mut [Comparison], margin: f64) {
    for comparison in found.iter_mut().filter(|c| c.test.is_some()) {
        comparison.equivalence = equivalence(&comparison.differences, margin);
    }
    let mut tested: Vec<&mut Equivalence> = found.iter_mut().filter_map(|c| c.equivalence.as_mut()).collect();
    let p: Vec<f64> = tested.iter().map(|e| e.p).collect();
    tested.iter_mut().zip(holm(&p)).for_each(|(equivalence, adjusted)| equivalence.holm = adjusted);
}

/// Compares two arms' rows of one score. A value counts where both arms have it: of the same seed, image and
/// structure. None where they have none in common.
fn compare(arm: &[&Measurement], against: &[&Measurement]) -> Option<Comparison> {
    let key = |r: &Measurement| {
        (r.seed, [&r.patient, &r.view, &r.phase, &r.structure].map(std::clone::Clone::clone))
    };
    let other: HashMap<_, f64> = against.iter().map(|row| (key(row), row.value)).collect();
    type ImageValues<'a> = BTreeMap<(&'a str, &'a str), Vec<f64>>;
    let mut patients: BTreeMap<&str, BTreeMap<Option<u64>, ImageValues>> = BTreeMap::new();
    let mut undefined = 0;
    for row in arm {
        let Some(value) = other.get(&key(row)) else { continue };
        let difference = row.value - value;
        if difference.is_nan() {
            undefined += 1;
            continue;
        }
        let seeds = patients.entry(&row.patient).or_default();
        seeds.entry(row.seed).or_default().entry((&row.view, &row.phase)).or_default().push(difference);
    }
    let mean_of = |images: &ImageValues| {
        stats::mean(&images.values().map(|structures| stats::mean(structures)).collect::<Vec<_>>())
    };
    let (mut differences, mut seeds) = (Vec::new(), BTreeMap::<Option<u64>, Vec<f64>>::new());
    for of_patient in patients.values() {
        let means: Vec<(Option<u64>, f64)> = of_patient.iter().map(|(seed, i)| (*seed, mean_of(i))).collect();
        for (seed, mean) in &means {
            seeds.entry(*seed).or_default().push(*mean);
        }
        let mean = stats::mean(&means.into_iter().map(|m| m.1).collect::<Vec<_>>());
        differences.push((mean * DECIMALS).round() / DECIMALS);
    }
    let first = arm.first().filter(|_| !differences.is_empty())?;
    let per_seed: Vec<f64> = seeds.values().map(|means| stats::mean(means)).collect();
    let several = per_seed.len() > 1;
    let each: Vec<PatientValue> = differences.iter().map(|d| PatientValue::of(&[*d])).collect();
    Some(Comparison {
        arm: first.arm.clone(),
        against: against.first()?.arm.clone(),
        model: first.model.clone(),
        difference: stats::mean(&differences),
        seed_sd: several.then(|| stats::summary(&per_seed).sd),
        per_seed,
        interval: stats::bootstrap(&each),
        patients: differences.len() as u64,
        undefined,
        test: several.then(|| wilcoxon(&differences)).flatten(),
        holm: None,
        dz: cohens_dz(&differences),
        differences,
        equivalence: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(name: &str, synthetic: Option<&str>, ratio: Option<f64>, real_fraction: f64) -> ArmInfo {
        let control = name.starts_with("duplicate-real");
        let (name, synthetic) = (name.to_owned(), synthetic.map(str::to_owned));
        let what = String::new();
        ArmInfo {
            what,
            replaces_real: name.ends_with("alone"),
            name,
            synthetic,
            ratio,
            control,
            real_fraction,
        }
    }

    fn row(arm: &str, seed: u64, patient: usize, phase: &str, structure: &str, value: f64) -> Measurement {
        Measurement {
            task: "segmentation".into(),
            arm: arm.into(),
            seed: Some(seed),
            split: "test".into(),
            patient: format!("p{patient}"),
            view: "2CH".into(),
            phase: phase.into(),
            structure: structure.into(),
            metric: "dice".into(),
            value,
            ..Default::default()
        }
    }

    fn pair(a: &str, b: &str) -> (String, String) {
        (a.to_owned(), b.to_owned())
    }

    #[test]
    fn arms_are_compared_within_their_share_of_real_patients() {
        let arms = [
            info("real", None, None, 1.0),
            info("real 10 %", None, None, 0.1),
            info("text 1", Some("text"), Some(1.0), 1.0),
            info("text 2", Some("text"), Some(2.0), 1.0),
            info("text 1, 10 %", Some("text"), Some(1.0), 0.1),
            info("text 1, 50 %", Some("text"), Some(1.0), 0.5),
            info("text 2, 50 %", Some("text"), Some(2.0), 0.5),
            info("text 1 alone", Some("text alone"), Some(1.0), 1.0),
            info("duplicate-real 1", None, Some(1.0), 1.0),
            info("duplicate-real 1, 10 %", None, Some(1.0), 0.1),
        ];
        assert_eq!(
            pairs(&arms),
            [
                pair("text 1", "real"),
                pair("text 2", "real"),
                pair("text 1 alone", "real"), // the control has twice as many images
                pair("duplicate-real 1", "real"),
                pair("text 1, 10 %", "real 10 %"),
                pair("duplicate-real 1, 10 %", "real 10 %"),
                pair("text 2, 50 %", "text 1, 50 %"), // no arm has only the real images of half the patients
                pair("text 1", "duplicate-real 1"),
                pair("text 1, 10 %", "duplicate-real 1, 10 %"),
            ]
        );
        assert!(pairs(&arms[..2]).is_empty() && pairs(&[]).is_empty());
        // Without an arm of real images only the first is the baseline, and has none.
        assert_eq!(pairs(&arms[2..4]), [pair("text 2", "text 1")]);
        // Where that is the control, the two are compared once.
        let with_control = [arms[8].clone(), arms[2].clone()];
        assert_eq!(pairs(&with_control), [pair("text 1", "duplicate-real 1")]);
    }

    #[test]
    fn by_hand() {
        let nan = f64::NAN;
        let rows = [
            row("real", 0, 1, "ED", "endo", 0.5),
            row("real", 0, 1, "ED", "myo", 0.5),
            row("real", 0, 1, "ES", "endo", 0.7),
            row("real", 1, 1, "ED", "endo", 0.5),
            row("real", 0, 2, "ED", "endo", 0.6),
            row("real", 0, 2, "ED", "la", nan),
            row("real", 0, 3, "ED", "endo", nan),
            row("more", 0, 1, "ED", "endo", 0.7), // 0.2, with the myocardium 0.3
            row("more", 0, 1, "ED", "myo", 0.9),  // 0.4
            row("more", 0, 1, "ES", "endo", 0.6), // -0.1: the first seed's mean is 0.1
            row("more", 1, 1, "ED", "endo", 0.8), // 0.3: the patient's mean is 0.2
            row("more", 0, 2, "ED", "endo", 0.54), // -0.06
            row("more", 0, 2, "ED", "la", 0.1),   // left out of both
            row("more", 0, 3, "ED", "endo", 0.9), // likewise: the patient has no value
            row("more", 2, 1, "ED", "endo", 0.9), // the other arm has no such seed
            row("more", 0, 1, "ED", "epi", 0.0),  // not of the mean
        ];
        let found = comparisons(
            &rows,
            &Score::segmentation(Metric::Dice),
            "test",
            &[pair("more", "real"), pair("x", "real")],
        );
        let [c] = &found[..] else { panic!("{found:?}") };
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        near(c.difference, 0.07);
        near(c.per_seed[0], 0.02);
        near(c.per_seed[1], 0.3);
        near(c.seed_sd.unwrap(), 0.28 / 2f64.sqrt());
        assert_eq!((c.patients, c.undefined, c.per_seed.len()), (2, 2, 2));
        assert_eq!(c.interval, Some((-0.06, 0.2)));
        assert_eq!((c.verdict(), c.holm), (Verdict::NotSignificant, Some(1.0)));
    }

    /// 12 patients of whom 11 gain; the second pair loses as many.
    fn experiment(seeds: u64) -> Vec<Measurement> {
        let mut rows = Vec::new();
        for (seed, patient) in (0..seeds).flat_map(|s| (0..12).map(move |p| (s, p))) {
            let gain = if patient == 3 { -0.004 } else { 0.01 + 0.001 * patient as f64 };
            let base = 0.8 + 0.01 * patient as f64 + 0.002 * seed as f64;
            for (arm, value) in [("real", base), ("good", base + gain), ("bad", base - gain), ("same", base)]
            {
                rows.push(row(arm, seed, patient, "ED", "endo", value));
            }
        }
        rows
    }

    #[test]
    fn verdicts_in_words_and_none_with_one_seed() {
        let against_real = ["good", "bad", "same"].map(|arm| pair(arm, "real"));
        let score = Score::segmentation(Metric::Dice);
        let found = comparisons(&experiment(2), &score, "test", &against_real);
        let p = found[0].test.unwrap().p;
        assert!((found[0].holm.unwrap() - 3.0 * p).abs() < 1e-12 && p < 0.01);
        let words: Vec<String> = found.iter().map(Comparison::words).collect();
        assert_eq!(
            words,
            [
                "higher than real, p = 0.003 after Holm",
                "lower than real, p = 0.003 after Holm",
                "no significant difference"
            ]
        );
        assert_eq!(found[2].test.unwrap().zeros, 12);
        let found = comparisons(&experiment(1), &score, "test", &against_real);
        assert!(found.iter().all(|c| c.test.is_none() && c.holm.is_none() && c.seed_sd.is_none()));
        assert!(found.iter().all(|c| c.words() == "one seed: no test"));
        assert!(comparisons(&experiment(2), &score, "val", &against_real).is_empty());
    }

    #[test]
    fn a_direction_that_the_seeds_do_not_share_is_not_claimed() {
        let mut rows = experiment(3);
        // With the last seed the gain is a small loss: the mean over seeds still gains in 11 of 12 patients.
        for row in rows.iter_mut().filter(|row| row.arm == "good" && row.seed == Some(2)) {
            row.value = 0.8 + 0.01 * row.patient[1..].parse::<f64>().unwrap() + 0.004 - 0.005;
        }
        let found = comparisons(
            &rows,
            &Score::segmentation(Metric::Dice),
            "test",
            &[pair("good", "real"), pair("bad", "real")],
        );
        assert!(found[0].difference > 0.005 && found[0].holm.unwrap() < LEVEL, "{:?}", found[0]);
        assert_eq!(found[0].verdict(), Verdict::SeedsDisagree);
        assert_eq!(found[0].words(), "seeds disagree, no difference claimed (p = 0.002 after Holm)");
        assert_eq!(found[1].verdict(), Verdict::Lower);
    }

    #[test]
    fn the_last_bits_of_a_mean_do_not_break_ties() {
        // Thirds: 2/3 - 1/3 and 1/3 - 0 differ in f64.
        let mut rows = Vec::new();
        for (patient, (a, b)) in [(2.0, 1.0), (1.0, 0.0), (3.0, 2.0)].into_iter().enumerate() {
            for seed in 0..3 {
                let correct = |of: f64| f64::from(u8::from((seed as f64) < of));
                rows.push(row("real", seed, patient, "ED", "endo", correct(b)));
                rows.push(row("more", seed, patient, "ED", "endo", correct(a)));
            }
        }
        let found = comparisons(&rows, &Score::segmentation(Metric::Dice), "test", &[pair("more", "real")]);
        let differences = found[0].test.unwrap();
        assert_eq!((differences.positive, differences.p), (6.0, 0.25));
        assert!(found[0].dz.is_nan(), "all differences are the same: {}", found[0].dz);
    }

    #[test]
    fn equal_within_a_margin_only_where_both_tests_and_every_seed_say_so() {
        let arms = ["good", "bad", "same"].map(|arm| pair(arm, "real"));
        let of = |margin: f64, seeds: u64| {
            let mut found =
                comparisons(&experiment(seeds), &Score::segmentation(Metric::Dice), "test", &arms);
            test_equivalence(&mut found, margin);
            found
        };
        // The arms gain or lose 0.014 on average.
        let wide = of(0.03, 2);
        assert_eq!(wide[0].verdict(), Verdict::Higher);
        assert!(wide[0].words().ends_with(" after Holm, but within the margin"), "{}", wide[0].words());
        assert_eq!(wide[2].verdict(), Verdict::Equivalent);
        assert_eq!(wide[2].words(), "equivalent to real within ± 0.03");
        let narrow = of(0.017, 2);
        assert!(!narrow[0].is_equivalent() && narrow[2].is_equivalent(), "{narrow:?}");
        let equal = |c: &Comparison| c.equivalence.unwrap();
        assert!((equal(&narrow[0]).holm - 2.0 * equal(&narrow[0]).p).abs() < 1e-12, "two are as uncertain");
        // One seed is outside.
        let mut one_out = wide[2].clone();
        one_out.per_seed[1] = 0.031;
        assert_eq!(one_out.verdict(), Verdict::NotSignificant);
        assert!(of(0.03, 1).iter().all(|c| c.equivalence.is_none() && c.verdict() == Verdict::OneSeed));
    }
}
