//! `[[arms]]`: the rows of the tables, with every sweep written out.

use std::collections::BTreeMap;

use super::{
    super::{Arm, ArmSection, Generator, Mix, OneOrMany, origin::nearest},
    Check,
};
use crate::error::Result;

/// Of the training that goes to the synthetic images where they come first.
const PRETRAIN_SHARE: f64 = 0.5;

pub(super) fn resolve(
    typed: &[ArmSection],
    generators: &BTreeMap<String, Generator>,
    check: &Check,
) -> Result<Vec<Arm>> {
    let only_real = [ArmSection { name: Some("real".into()), ..ArmSection::default() }];
    let typed = if typed.is_empty() { &only_real } else { typed };
    let mut arms: Vec<Arm> = Vec::new();
    for (i, section) in typed.iter().enumerate() {
        let field = |name: &str| format!("arms.{i}.{name}");
        checked(section, generators, &field, check)?;
        let (fractions, fraction_sweep) = sweep(section.real_fraction.as_ref());
        let budget_share = section.budget_share.filter(|share| *share != 1.0);
        let (ratios, ratio_sweep) = sweep(section.ratio.as_ref());
        for (key, list) in [("real_fraction", &fractions), ("ratio", &ratios)] {
            if list.is_empty() {
                let help = format!("write {key} = [0.25, 0.5, 1.0]");
                return Err(check.fault(&field(key), "the list is empty", &help));
            }
        }
        let mixes = section.synthetic.is_some() || section.control.is_some();
        let mix = section.mix.unwrap_or_default();
        for &fraction in &fractions {
            if !(fraction > 0.0 && fraction <= 1.0) {
                return Err(check.fault(
                    &field("real_fraction"),
                    &format!("{fraction} is out of range"),
                    "choose a fraction of the training patients above 0, at most 1",
                ));
            }
            for &ratio in &ratios {
                if mixes {
                    check.range(&field("ratio"), ratio, 0.001, 1000.0)?;
                }
                let mut name = section
                    .name
                    .clone()
                    .unwrap_or_else(|| default_name(section, mix, fraction < 1.0 || fraction_sweep));
                if let (None, Some(share)) = (&section.name, budget_share) {
                    name += &format!(", {}% of the steps", (share * 1e4).round() / 100.0);
                }
                for (is_sweep, place) in [(fraction_sweep, "{real_fraction}"), (ratio_sweep, "{ratio}")] {
                    if is_sweep && !name.contains(place) {
                        name += &format!(" {place}");
                    }
                }
                let percent = |v: f64| format!("{}%", (v * 1e4).round() / 100.0);
                let name =
                    name.replace("{real_fraction}", &percent(fraction)).replace("{ratio}", &percent(ratio));
                if name.trim().is_empty() {
                    return Err(check.fault(&field("name"), "is empty", "name the arm"));
                }
                if arms.iter().any(|arm| arm.name == name) {
                    return Err(check.fault(
                        &format!("arms.{i}"),
                        &format!("there are two arms named {name:?}"),
                        "give every arm a name of its own",
                    ));
                }
                let share = section.pretrain_share.unwrap_or(PRETRAIN_SHARE);
                arms.push(Arm {
                    name,
                    real_fraction: fraction,
                    synthetic: section.synthetic.clone(),
                    ratio: mixes.then_some(ratio),
                    control: section.control,
                    mix,
                    pretrain_share: (mix == Mix::Pretrain).then_some(share),
                    budget_share,
                });
            }
        }
    }
    Ok(arms)
}

/// What does not go together.
fn checked(
    section: &ArmSection,
    generators: &BTreeMap<String, Generator>,
    field: &dyn Fn(&str) -> String,
    check: &Check,
) -> Result<()> {
    let fault = |key: &str, problem: &str, help: &str| Err(check.fault(&field(key), problem, help));
    let name_it = "name the generator: synthetic = \"NAME\"";
    match (&section.synthetic, section.control) {
        (Some(_), Some(_)) => {
            return fault(
                "control",
                "a control has no synthetic images",
                "make it an arm of its own: remove `synthetic`",
            );
        }
        (None, None) if section.ratio.is_some() => {
            return fault("ratio", "an arm without synthetic images", name_it);
        }
        (None, _) if section.mix.is_some_and(|mix| mix != Mix::Together) => {
            return fault("mix", "an arm without synthetic images", name_it);
        }
        _ => {}
    }
    if let Some(name) = section.synthetic.as_ref().filter(|name| !generators.contains_key(*name)) {
        let known: Vec<&str> = generators.keys().map(String::as_str).collect();
        let help = match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean {near:?}?"),
            None if known.is_empty() => format!("add [generators.{name}]"),
            None => format!("there are {}", known.join(", ")),
        };
        return fault("synthetic", &format!("the spec has no generator {name:?}"), &help);
    }
    if let Some(share) = section.budget_share {
        check.range(&field("budget_share"), share, 0.01, 1.0)?;
    }
    match section.pretrain_share {
        Some(_) if section.mix != Some(Mix::Pretrain) => {
            fault("pretrain_share", "nothing is trained first", "add mix = \"pretrain\"")
        }
        Some(share) => check.range(&field("pretrain_share"), share, 0.01, 0.99),
        None => Ok(()),
    }
}

/// What an arm is called that nobody named; `few`: its patients are told.
fn default_name(section: &ArmSection, mix: Mix, few: bool) -> String {
    let real = if few { "real {real_fraction}" } else { "real" };
    match (&section.synthetic, mix) {
        (None, _) if section.control.is_some() => format!("{real} + {{ratio}} duplicate-real"),
        (None, _) => real.to_owned(),
        (Some(synthetic), Mix::Together) => format!("{real} + {{ratio}} {synthetic}"),
        (Some(synthetic), Mix::Pretrain) => format!("{{ratio}} {synthetic}, then {real}"),
        (Some(synthetic), Mix::SyntheticOnly) if few => {
            format!("{{ratio}} {synthetic} alone, of {real}")
        }
        (Some(synthetic), Mix::SyntheticOnly) => format!("{{ratio}} {synthetic} alone"),
    }
}

/// The values of a field (1 where it is left out), and whether they were typed as a list.
fn sweep(typed: Option<&OneOrMany<f64>>) -> (Vec<f64>, bool) {
    match typed {
        None => (vec![1.0], false),
        Some(OneOrMany::One(value)) => (vec![*value], false),
        Some(OneOrMany::Many(list)) => (list.clone(), true),
    }
}
