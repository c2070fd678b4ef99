//! Intersection over union against MONAI 1.6.1. Fixtures: make_iou.py, and the masks of make_measures.py.

use serde::Deserialize;
use synecho::{dice, measure::iou::per_structure};

use crate::{Tensors, json};

#[derive(Deserialize)]
struct Fixture {
    hearts: Vec<[Option<f64>; 4]>,
    small: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    truth: Vec<u8>,
    prediction: Vec<u8>,
    iou: [Option<f64>; 4],
}

fn cases() -> impl Iterator<Item = Case> {
    let fixture: Fixture = json("iou.json");
    let masks = Tensors::read("masks.safetensors");
    let hearts = fixture.hearts.into_iter().enumerate().map(move |(i, iou)| Case {
        truth: masks.bytes(&format!("truth{i}")).1,
        prediction: masks.bytes(&format!("prediction{i}")).1,
        iou,
    });
    hearts.chain(fixture.small)
}

/// MONAI computes in f32. NaN is null.
fn same(got: [f64; 4], expected: &[Option<f64>; 4]) -> bool {
    got.iter().zip(expected).all(|(got, expected)| match expected {
        Some(expected) => (got - expected).abs() <= 1e-6 * expected.abs(),
        None => got.is_nan(),
    })
}

#[test]
fn iou_equals_monai() {
    let (mut absent, mut missed, mut dices, mut swapped) = (0, 0, 0, 0);
    for (i, Case { truth, prediction, iou: expected }) in cases().enumerate() {
        let (truth, prediction, expected) = (&truth, &prediction, &expected);
        let got = per_structure(truth, prediction).unwrap();
        assert!(same(got, expected), "{i}: {got:?} {expected:?}");
        absent += got.iter().filter(|v| v.is_nan()).count();
        missed += got.iter().filter(|v| **v == 0.0).count();
        // Dice is another measure, and a prediction without the structure is no truth without it.
        dices += usize::from(!same(dice::per_structure(truth, prediction).unwrap(), expected));
        swapped += usize::from(!same(per_structure(prediction, truth).unwrap(), expected));
    }
    assert!(absent >= 5 && missed >= 5, "the fixture has both kinds of absence: {absent} {missed}");
    assert!(dices >= 15 && swapped >= 3, "{dices} {swapped}");
}
