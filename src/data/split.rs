//! Who trains, who validates, who tests: by patient, from the manifest alone.
//!
//! A patient's part depends on the names and the seed, never on the order of the rows.

use std::collections::{BTreeMap, BTreeSet};

use rand::seq::SliceRandom;

use crate::error::{Error, Result};
use crate::random;
use crate::{manifest::Manifest, vocabulary::Split};

/// How DiffEcho splits: that many patients, first in name order, validate.
pub const DIFFECHO_VALIDATION: usize = 50;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scheme {
    /// The manifest's own split column.
    Official,
    /// The first 50 patients in name order validate, the others train; nobody tests.
    Diffecho,
    /// `folds` groups of patients: group `fold` tests, the next one (cyclically) validates.
    Folds { folds: usize, fold: usize },
    /// These fractions of the patients, drawn by the seed, validate and test.
    Random { val: f64, test: f64 },
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SplitSpec {
    pub scheme: Scheme,
    /// For schemes without test patients: the patients of this part become the test patients.
    pub test_from: Option<Split>,
    /// For schemes without validation patients (or whose were moved by `test_from`): how many to
    /// draw from the training patients.
    pub val_patients: Option<usize>,
    /// Nobody has to test: the paper's own split.
    pub without_test: bool,
    pub seed: u64,
}

/// Fills the manifest's split column.
///
/// # Errors
/// A scheme that the patients do not allow, and a part that would stay empty: each says what to set.
pub fn assign(manifest: &mut Manifest, spec: &SplitSpec) -> Result<()> {
    let mut parts = base(manifest, spec)?;
    if let Some(from) = spec.test_from.filter(|&from| from != Split::Test) {
        // The data set's own test patients take no part.
        parts.retain(|_, part| *part != Split::Test);
        if members(&parts, from).next().is_none() {
            return Err(wrong(format!("test_from = \"{from}\", but there are no {from} patients"))
                .help("name a part that has patients"));
        }
        for part in parts.values_mut().filter(|part| **part == from) {
            *part = Split::Test;
        }
    }
    if let Some(count) = spec.val_patients {
        if members(&parts, Split::Val).next().is_some() {
            return Err(wrong("val_patients is set, but the split has validation patients already")
                .help("remove val_patients, or make them the test patients with test_from = \"val\""));
        }
        let drawn = ranked(members(&parts, Split::Train), spec.seed, "split-val");
        if count == 0 || count >= drawn.len() {
            return Err(wrong(format!("val_patients = {count} of {} training patients", drawn.len()))
                .help("set at least 1, and leave some to train"));
        }
        for name in drawn.into_iter().take(count) {
            parts.insert(name, Split::Val);
        }
    }
    for (part, remedy) in [
        (Split::Train, "leave some patients to train: take fewer for the other parts"),
        (Split::Val, "set data.val_patients = N to draw N validation patients from the training patients"),
        (
            Split::Test,
            "set data.test_from = \"val\" to make the validation patients the test patients (and data.val_patients = N to draw new ones), or choose split = \"folds\"",
        ),
    ] {
        if members(&parts, part).next().is_none() && !(part == Split::Test && spec.without_test) {
            return Err(wrong(format!("the {part} split is empty")).help(remedy));
        }
    }
    for row in &mut manifest.rows {
        row.split = parts.get(&row.patient).copied();
    }
    Ok(())
}

/// Training patients that make up `fraction` (0 to 1) of all of them, rounded, at least one; by name.
/// Of one seed, a smaller fraction's patients are among a larger one's.
pub fn fraction(manifest: &Manifest, fraction: f64, seed: u64) -> Vec<String> {
    let train: BTreeSet<&str> = manifest.of(Split::Train).map(|row| &*row.patient).collect();
    let mut names = ranked(train.into_iter(), seed, "split-fraction");
    let count = (names.len() as f64 * fraction.clamp(0.0, 1.0)).round() as usize;
    names.truncate(count.max(1));
    names.sort();
    names
}

fn base(manifest: &Manifest, spec: &SplitSpec) -> Result<BTreeMap<String, Split>> {
    let names: BTreeSet<&str> = manifest.rows.iter().map(|row| &*row.patient).collect();
    let n = names.len();
    let mut parts: BTreeMap<String, Split> =
        names.iter().map(|name| ((*name).to_owned(), Split::Train)).collect();
    match spec.scheme {
        Scheme::Official => {
            for row in &manifest.rows {
                let split = row.split.ok_or_else(|| {
                    wrong(format!("the manifest says no split for {}", row.patient))
                        .at(manifest.root.join(crate::manifest::FILE))
                        .help("import CAMUS with its subgroup_*.txt files, fill the column `split`, or choose split = \"diffecho\", \"folds\" or \"random\"")
                })?;
                parts.insert(row.patient.clone(), split);
            }
        }
        Scheme::Diffecho => {
            for part in parts.values_mut().take(DIFFECHO_VALIDATION) {
                *part = Split::Val;
            }
        }
        Scheme::Folds { folds, fold } => {
            if folds < 3 || fold >= folds {
                return Err(wrong(format!("fold {fold} of {folds}"))
                    .help("at least 3 folds (one tests, one validates), counted from 0"));
            }
            if n < folds {
                return Err(wrong(format!("{folds} folds of {n} patients")).help("set fewer folds"));
            }
            for (i, name) in ranked(names.into_iter(), spec.seed, "split-folds").into_iter().enumerate() {
                let part = match i % folds {
                    group if group == fold => Split::Test,
                    group if group == (fold + 1) % folds => Split::Val,
                    _ => Split::Train,
                };
                parts.insert(name, part);
            }
        }
        Scheme::Random { val, test } => {
            let fine = |v: f64| (0.0..1.0).contains(&v);
            if !fine(val) || !fine(test) || val + test >= 1.0 {
                return Err(wrong(format!("a random split of val {val} and test {test}"))
                    .help("fractions from 0 to 1 that leave some patients to train, like 0.2 and 0.2"));
            }
            // A part that was asked for has somebody in it, even of few patients.
            let count = |v: f64| if v == 0.0 { 0 } else { ((n as f64 * v).round() as usize).max(1) };
            let (val, test) = (count(val), count(test));
            for (i, name) in ranked(names.into_iter(), spec.seed, "split-random").into_iter().enumerate() {
                if i < test {
                    parts.insert(name, Split::Test);
                } else if i < test + val {
                    parts.insert(name, Split::Val);
                }
            }
        }
    }
    Ok(parts)
}

fn members(parts: &BTreeMap<String, Split>, part: Split) -> impl Iterator<Item = &str> {
    parts.iter().filter(move |(_, own)| **own == part).map(|(name, _)| name.as_str())
}

/// The names (given in name order) in the order of a draw.
fn ranked<'a>(names: impl Iterator<Item = &'a str>, seed: u64, purpose: &str) -> Vec<String> {
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.shuffle(&mut random::rng(seed, purpose, &[]));
    names
}

fn wrong(problem: impl Into<String>) -> Error {
    Error::input(problem)
}
