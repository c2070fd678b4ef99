//! Which patients train, validate and test.
//!
//! A patient's part depends on the patients' names and the seed, never on the order of the rows.

use std::collections::{BTreeMap, BTreeSet};

use rand::seq::SliceRandom;

use crate::{
    error::{Error, Result},
    experiment::{HeldOut, SplitScheme, SplitSettings},
    manifest::Manifest,
    random,
    vocabulary::Split,
};

/// How DiffEcho splits: that many patients, first in name order, validate.
pub const DIFFECHO_VALIDATION: usize = 50;

/// Fills the manifest's split column.
///
/// # Errors
/// A scheme that the patients do not allow, and a part that would stay empty. Each error names the setting to change.
pub fn assign(manifest: &mut Manifest, settings: &SplitSettings) -> Result<()> {
    let mut parts = base(manifest, settings)?;
    if settings.test_from == HeldOut::Val {
        // The data set's own test patients take no part.
        parts.retain(|_, part| *part != Split::Test);
        if members(&parts, Split::Val).next().is_none() {
            return Err(wrong("test_from = \"val\", but there are no val patients")
                .help("name a part that has patients"));
        }
        for part in parts.values_mut().filter(|part| **part == Split::Val) {
            *part = Split::Test;
        }
    }
    if let Some(count) = settings.val_patients {
        if members(&parts, Split::Val).next().is_some() {
            return Err(wrong("val_patients is set, but the split has validation patients already")
                .help("remove val_patients, or make them the test patients with test_from = \"val\""));
        }
        let drawn = ranked(members(&parts, Split::Train), settings.seed, "split-val");
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
        if members(&parts, part).next().is_none()
            && !(part == Split::Test && settings.test_from == HeldOut::None)
        {
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

fn base(manifest: &Manifest, settings: &SplitSettings) -> Result<BTreeMap<String, Split>> {
    let names: BTreeSet<&str> = manifest.rows.iter().map(|row| &*row.patient).collect();
    let n = names.len();
    let mut parts: BTreeMap<String, Split> =
        names.iter().map(|name| ((*name).to_owned(), Split::Train)).collect();
    match settings.scheme {
        SplitScheme::Official => {
            for row in &manifest.rows {
                let split = row.split.ok_or_else(|| {
                    wrong(format!("the manifest says no split for {}", row.patient))
                        .at(manifest.root.join(crate::manifest::FILE))
                        .help("import CAMUS with its subgroup_*.txt files, fill the column `split`, or choose split = \"diffecho\", \"folds\" or \"random\"")
                })?;
                parts.insert(row.patient.clone(), split);
            }
        }
        SplitScheme::Diffecho => {
            for part in parts.values_mut().take(DIFFECHO_VALIDATION) {
                *part = Split::Val;
            }
        }
        SplitScheme::Folds => {
            let (folds, fold) = (settings.folds.unwrap_or_default(), settings.fold.unwrap_or_default());
            if folds < 3 || fold >= folds {
                return Err(wrong(format!("fold {fold} of {folds}"))
                    .help("at least 3 folds (one tests, one validates), counted from 0"));
            }
            if n < folds {
                return Err(wrong(format!("{folds} folds of {n} patients")).help("set fewer folds"));
            }
            for (i, name) in ranked(names.into_iter(), settings.seed, "split-folds").into_iter().enumerate() {
                let part = match i % folds {
                    group if group == fold => Split::Test,
                    group if group == (fold + 1) % folds => Split::Val,
                    _ => Split::Train,
                };
                parts.insert(name, part);
            }
        }
        SplitScheme::Random => {
            let val = settings.val_fraction.unwrap_or_default();
            let test = settings.test_fraction.unwrap_or_default();
            let fine = |v: f64| (0.0..1.0).contains(&v);
            if !fine(val) || !fine(test) || val + test >= 1.0 {
                return Err(wrong(format!("a random split of val {val} and test {test}"))
                    .help("fractions from 0 to 1 that leave some patients to train, like 0.2 and 0.2"));
            }
            // A part that was asked for has somebody in it, even of few patients.
            let count = |v: f64| if v == 0.0 { 0 } else { ((n as f64 * v).round() as usize).max(1) };
            let (val, test) = (count(val), count(test));
            for (i, name) in ranked(names.into_iter(), settings.seed, "split-random").into_iter().enumerate()
            {
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
