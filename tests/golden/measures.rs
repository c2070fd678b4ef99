//! Dice, HD, HD95, ASSD against MONAI 1.6.1; classification against scikit-learn 1.9.1; Wilson's
//! interval against statsmodels 0.15.0. Fixtures: make_measures.py.

use serde::Deserialize;
use synecho::{
    dice,
    measure::{
        classification::{scores, wilson},
        surface_distance::{Missing, outline_distances, percentile, surface_distance},
    },
    vocabulary::Structure,
};

use crate::{Tensors, json};

#[derive(Deserialize)]
struct Masks {
    spacing_x: f64,
    spacing_y: f64,
    structures: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    structure: String,
    dice: Option<f64>,
    hd: Option<f64>,
    hd95: Option<f64>,
    assd: Option<f64>,
    missing: Option<String>,
}

/// MONAI computes in f32.
fn near(value: f64, expected: Option<f64>) -> bool {
    expected.is_some_and(|e| (value - e).abs() <= 2e-6 * e.abs().max(1.0))
}

struct Case {
    truth: Vec<u8>,
    prediction: Vec<u8>,
    width: usize,
    spacing: (f64, f64),
    expected: Vec<Expected>,
}

fn cases() -> Vec<Case> {
    let tensors = Tensors::read("masks.safetensors");
    let cases: Vec<Masks> = json("masks.json");
    assert_eq!(cases.len(), 16);
    let case = |(i, case): (usize, Masks)| {
        let (shape, truth) = tensors.bytes(&format!("truth{i}"));
        let (_, prediction) = tensors.bytes(&format!("prediction{i}"));
        let spacing = (case.spacing_x, case.spacing_y);
        Case { truth, prediction, width: shape[1], spacing, expected: case.structures }
    };
    cases.into_iter().enumerate().map(case).collect()
}

#[test]
fn dice_equals_monai() {
    let mut seen_nan = false;
    for case in cases() {
        let got = dice::per_structure(&case.truth, &case.prediction).unwrap();
        for (value, expected) in got.into_iter().zip(&case.expected) {
            match expected.dice {
                None => assert!(value.is_nan()),
                some => assert!(near(value, some), "{} {value}", expected.structure),
            }
            seen_nan |= value.is_nan();
        }
    }
    assert!(seen_nan, "the fixture has a truth without an atrium");
}

#[test]
fn surface_distances_equal_monai() {
    let mut missing = [0; 3];
    for (i, case) in cases().iter().enumerate() {
        for (structure, expected) in Structure::ALL.into_iter().zip(&case.expected) {
            assert_eq!(structure.as_str(), expected.structure);
            let got =
                surface_distance(&case.truth, &case.prediction, case.width, structure, case.spacing).unwrap();
            match got {
                Ok(d) => {
                    assert!(near(d.hd, expected.hd), "{i} {structure} {d:?} {:?}", expected.hd);
                    assert!(near(d.hd95, expected.hd95), "{i} {structure} {d:?} {:?}", expected.hd95);
                    assert!(near(d.assd, expected.assd), "{i} {structure} {d:?} {:?}", expected.assd);
                }
                Err(why) => {
                    let name = match why {
                        Missing::Prediction => "prediction",
                        Missing::Truth => "truth",
                        Missing::Both => "both",
                    };
                    assert_eq!(Some(name), expected.missing.as_deref(), "{i} {structure}");
                    missing[why as usize] += 1;
                }
            }
        }
    }
    assert!(missing.iter().all(|&n| n > 0), "the fixture has every kind of absence: {missing:?}");
}

/// What would pass for the same measures, and is not: each is told apart by the fixture.
#[test]
fn other_definitions_of_the_distances_do_not_pass() {
    let [mut pooled, mut one_way, mut swapped, mut mean_of_means] = [0; 4];
    let count = |n: &mut i32, passes: bool| *n += i32::from(!passes);
    for case in cases() {
        for (structure, expected) in Structure::ALL.into_iter().zip(&case.expected) {
            let masks = (structure.mask(&case.truth), structure.mask(&case.prediction));
            let Ok([mut forth, mut back]) =
                outline_distances(&masks.0, &masks.1, case.width, case.spacing).unwrap()
            else {
                continue;
            };
            let mean = |d: &[f64]| d.iter().sum::<f64>() / d.len() as f64;
            count(&mut mean_of_means, near((mean(&forth) + mean(&back)) / 2.0, expected.assd));
            count(&mut pooled, near(percentile(&mut [&forth[..], &back].concat(), 0.95), expected.hd95));
            count(&mut one_way, near(percentile(&mut forth, 1.0), expected.hd));
            let turned = (case.spacing.1, case.spacing.0);
            let other = outline_distances(&masks.0, &masks.1, case.width, turned).unwrap().unwrap();
            back = other.into_iter().flatten().collect();
            count(&mut swapped, near(percentile(&mut back, 1.0), expected.hd));
        }
    }
    assert!(pooled > 5 && one_way > 5 && swapped > 5 && mean_of_means > 5);
}

#[derive(Deserialize)]
struct Classes {
    scores: Vec<ClassCase>,
    wilson: Vec<(u64, u64, f64, f64)>,
}

#[derive(Deserialize)]
struct ClassCase {
    classes: usize,
    truth: Vec<usize>,
    probabilities: Vec<f64>,
    accuracy: f64,
    precision: f64,
    recall: f64,
    f1: f64,
    auc: Option<f64>,
    confusion: Vec<Vec<u64>>,
}

#[test]
fn classification_equals_scikit_learn() {
    let fixture: Classes = json("classes.json");
    let same = |a: f64, b: f64| (a - b).abs() < 1e-12;
    let mut undefined = 0;
    for case in &fixture.scores {
        let got = scores(&case.truth, &case.probabilities, case.classes).unwrap();
        assert_eq!(got.n, case.truth.len());
        assert_eq!(got.confusion, case.confusion);
        assert!(same(got.accuracy, case.accuracy));
        assert!(same(got.precision, case.precision), "{} {}", got.precision, case.precision);
        assert!(same(got.recall, case.recall), "{} {}", got.recall, case.recall);
        assert!(same(got.f1, case.f1), "{} {}", got.f1, case.f1);
        match case.auc {
            Some(auc) => assert!(same(got.auc, auc), "{} {auc}", got.auc),
            None => {
                assert!(got.auc.is_nan());
                undefined += 1;
            }
        }
    }
    assert_eq!(undefined, 3, "a class is absent from the truth in three cases");
}

/// F1 of the macro precision and recall, and AUC without ties, are other figures.
#[test]
fn other_definitions_of_the_scores_do_not_pass() {
    let fixture: Classes = json("classes.json");
    let same = |a: f64, b: f64| (a - b).abs() < 1e-12;
    let (mut f1, mut ties) = (0, 0);
    for case in &fixture.scores {
        let of_means = 2.0 * case.precision * case.recall / (case.precision + case.recall);
        f1 += i32::from(!same(of_means, case.f1));
        if case.classes == 2 {
            let score = |class| -> Vec<f64> {
                let of_class = case.truth.iter().zip(case.probabilities.chunks(2));
                of_class.filter(|(t, _)| **t == class).map(|(_, p)| p[1]).collect()
            };
            let (negative, positive) = (score(0), score(1));
            let wins = positive.iter().map(|p| negative.iter().filter(|n| p > *n).count()).sum::<usize>();
            let pairs = positive.len() * negative.len();
            ties += i32::from(case.auc.is_some_and(|auc| !same(wins as f64 / pairs as f64, auc)));
        }
    }
    assert!(f1 > 3 && ties == 1, "{f1} {ties}");
}

#[test]
fn wilson_equals_statsmodels() {
    let fixture: Classes = json("classes.json");
    assert_eq!(fixture.wilson.len(), 7);
    for (k, n, low, high) in fixture.wilson {
        let got = wilson(k, n);
        assert!((got.0 - low).abs() < 1e-12 && (got.1 - high).abs() < 1e-12, "{k}/{n} {got:?} {low} {high}");
        // The normal approximation is another interval.
        let p = k as f64 / n as f64;
        let half = 1.959_963_984_540_054 * (p * (1.0 - p) / n as f64).sqrt();
        assert!((p - half - low).abs() > 1e-5 || (p + half - high).abs() > 1e-5);
    }
}
