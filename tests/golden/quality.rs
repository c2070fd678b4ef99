//! Vendi score and authenticity against dgm-eval, MIND and its random numbers against torch-fidelity and PyTorch
//! 2.13.0, at the commits in make_quality.py, which makes the fixtures; the features are made here again.

use serde::Deserialize;
use synecho::measure::{
    authenticity::authenticity,
    mind::{Directions, mind},
    numpy_random::RandomState,
    torch_random::TorchGenerator,
    vendi::vendi,
};
use tch::{Device, Kind, Tensor};

use crate::{json, weights};

#[derive(Deserialize)]
struct Fixture {
    vendi: Vec<VendiCase>,
    authenticity: Vec<AuthenticityCase>,
    mind: Vec<MindCase>,
    draws: Vec<Draws>,
}

#[derive(Deserialize)]
struct VendiCase {
    key: String,
    n: i64,
    d: i64,
    shift: f64,
    copies: i64,
    value: f64,
    order_2: f64,
    polynomial: f64,
    unnormalised: f64,
}

#[derive(Deserialize)]
struct AuthenticityCase {
    key: String,
    n_real: i64,
    n_synthetic: i64,
    d: i64,
    shift: f64,
    scale: f64,
    copies: i64,
    from_real: i64,
    percent: f64,
    by_synthetic: f64,
}

#[derive(Deserialize)]
struct MindCase {
    key: String,
    n_real: i64,
    n_synthetic: i64,
    d: i64,
    shift: f64,
    scale: f64,
    copies: i64,
    directions: usize,
    seed: u32,
    value: f64,
    other_seed: f64,
    first_rows: f64,
}

#[derive(Deserialize)]
struct Draws {
    seed: u32,
    permutation: Vec<u32>,
    normals: Vec<f32>,
}

fn cases() -> Fixture {
    json("quality.json")
}

/// The twin of make_quality.py's.
fn features(key: &str, n: i64, d: i64, shift: f64, copies: i64) -> Tensor {
    let u = weights::signal(key, &[n, d]).to_kind(Kind::Double);
    let falls: Tensor = Tensor::arange(d, (Kind::Double, Device::Cpu)) / 4.0 + 1.0;
    let x = &u * u.abs() / falls + shift;
    Tensor::cat(&[x.narrow(0, 0, n - copies), x.narrow(0, 0, copies)], 0)
}

fn apart(got: f64, expected: f64) -> f64 {
    (got - expected).abs() / expected.abs()
}

#[test]
fn vendi_scores_equal_dgm_evals() {
    let (mut greatest, mut others) = (0f64, 0);
    for case in cases().vendi {
        let x = features(&case.key, case.n, case.d, case.shift, case.copies);
        let got = vendi(&x, "synthetic").unwrap().value;
        let difference = apart(got, case.value);
        assert!(difference < 1e-10, "{}: {got} {}", case.key, case.value);
        greatest = greatest.max(difference);
        let single = vendi(&x.to_kind(Kind::Float), "synthetic").unwrap().value;
        assert!(apart(single, case.value) < 1e-6, "{}: {single} {}", case.key, case.value);
        others += [case.order_2, case.polynomial].iter().filter(|other| apart(got, **other) > 1e-6).count();
        others += usize::from(apart(got, case.unnormalised) > 1e-6);
        // Centred features have other cosines.
        let centred = vendi(&(&x - x.mean_dim(0, false, Kind::Double)), "synthetic").unwrap().value;
        assert!(case.d == 1 || apart(centred, case.value) > 1e-6, "{}", case.key);
    }
    println!("Vendi: {greatest:e}");
    assert!(others >= 20, "{others}");
}

#[test]
fn authenticity_equals_dgm_evals() {
    let (mut greatest, mut others) = (0f64, [0; 3]);
    for case in cases().authenticity {
        let real = features(&format!("{}/real", case.key), case.n_real, case.d, 0.0, case.copies);
        let made = features(&format!("{}/synthetic", case.key), case.n_synthetic, case.d, case.shift, 0);
        let own = made.narrow(0, 0, case.n_synthetic - case.from_real) * case.scale;
        let synthetic = Tensor::cat(&[own, real.narrow(0, 0, case.from_real)], 0);
        // Theirs is an f32.
        let same = |percent: f64| (percent - case.percent).abs() <= 1e-7 * case.percent;
        let got = authenticity(&real, &synthetic).unwrap().percent;
        assert!(same(got), "{}: {got} {}", case.key, case.percent);
        greatest = greatest.max((got - case.percent).abs() / case.percent.max(1.0));
        let of_f32 = authenticity(&real.to_kind(Kind::Float), &synthetic.to_kind(Kind::Float)).unwrap();
        assert!(same(of_f32.percent), "{}: {}", case.key, of_f32.percent);
        // A fraction, the nearest synthetic image instead of the nearest real one, and the sets exchanged.
        others[0] += usize::from(!same(got / 100.0));
        others[1] += usize::from(!same(case.by_synthetic));
        others[2] +=
            usize::from(case.n_synthetic > 1 && !same(authenticity(&synthetic, &real).unwrap().percent));
    }
    println!("authenticity: {greatest:e}");
    assert!(others[0] >= 8 && others[1] >= 7 && others[2] >= 5, "{others:?}");
}

#[test]
fn mind_equals_torch_fidelitys() {
    let (mut greatest, mut unequal) = (0f64, 0);
    for case in cases().mind {
        let real = features(&format!("{}/real", case.key), case.n_real, case.d, 0.0, case.copies);
        let key = format!("{}/synthetic", case.key);
        let synthetic = features(&key, case.n_synthetic, case.d, case.shift, case.copies) * case.scale;
        let of = |real: &Tensor, synthetic: &Tensor, seed| {
            mind(real, synthetic, &Directions { count: case.directions, seed }).unwrap().value
        };
        let got = of(&real, &synthetic, case.seed);
        let difference = apart(got, case.value);
        println!("MIND {}: {difference:e}", case.key);
        assert!(difference < 1e-6, "{}: {got} {}", case.key, case.value);
        greatest = greatest.max(difference);
        let single = of(&real.to_kind(Kind::Float), &synthetic.to_kind(Kind::Float), case.seed);
        assert!(apart(single, case.value) < 1e-6, "{}: {single} {}", case.key, case.value);
        // Other directions give another value, which is theirs again.
        assert!(apart(got, case.other_seed) > 1e-4, "{}", case.key);
        assert!(apart(of(&real, &synthetic, case.seed + 1), case.other_seed) < 1e-6, "{}", case.key);
        if case.n_real != case.n_synthetic {
            // The first rows of the larger set are other images.
            unequal += 1;
            assert!(apart(got, case.first_rows) > 1e-4, "{}", case.key);
            let n = case.n_real.min(case.n_synthetic);
            let first = of(&real.narrow(0, 0, n), &synthetic.narrow(0, 0, n), case.seed);
            assert!(apart(first, case.first_rows) < 1e-6, "{}: {first} {}", case.key, case.first_rows);
        }
    }
    println!("MIND: {greatest:e}");
    assert!(unequal >= 4, "{unequal}");
}

#[test]
fn permutations_and_normals_are_pytorchs() {
    let mut greatest = 0f32;
    for case in cases().draws {
        let mut generator = TorchGenerator::new(case.seed);
        let n = case.permutation.len();
        assert_eq!(generator.permutation(n as u32), case.permutation, "{}", case.seed);
        // NumPy shuffles otherwise.
        assert!(n < 5 || RandomState::new(case.seed).choice(n as u32, n) != case.permutation);
        let normals = generator.normals(case.normals.len());
        for (got, expected) in normals.iter().zip(&case.normals) {
            greatest = greatest.max((got - expected).abs());
            assert!((got - expected).abs() < 2e-6, "{}: {got} {expected}", case.seed);
        }
        assert_eq!(normals.len(), case.normals.len());
        // Without the permutation the generator is elsewhere (that of one number draws nothing).
        let early = TorchGenerator::new(case.seed).normals(normals.len());
        let elsewhere = early.iter().zip(&case.normals).any(|(a, b)| (a - b).abs() > 1e-2);
        assert_eq!(elsewhere, n > 1, "{}", case.seed);
    }
    println!("normals: {greatest:e}");
}
