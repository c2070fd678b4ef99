//! Measures between sets of features against pytorch-fid 0.3.0, torch-fidelity 0.4.0, prdc 0.2, NumPy 2.4.6
//! and SciPy 1.17.1. Fixtures: make_distances.py; the features are made here again.

use serde::Deserialize;
use synecho::measure::{
    frechet::{Statistics, frechet, frechet_statistics},
    kid::{Subsets, kid},
    mann_whitney,
    memorisation::nearest,
    npz,
    numpy_random::RandomState,
    prdc::prdc,
};
use tch::{Device, Kind, Tensor};

use crate::{fixture, json, python, weights};

#[derive(Deserialize)]
struct Fixture {
    frechet: Vec<FrechetCase>,
    kid: Vec<KidCase>,
    choices: Vec<Choices>,
    prdc: Vec<PrdcCase>,
    nearest: Vec<NearestCase>,
    rank_tests: Vec<RankTest>,
}

#[derive(Deserialize)]
struct FrechetCase {
    key: String,
    n_real: i64,
    n_synthetic: i64,
    d: i64,
    shift: f64,
    pytorch_fid: f64,
    torch_fidelity: f64,
    over_n: f64,
}

#[derive(Deserialize)]
struct KidCase {
    key: String,
    n_real: i64,
    n_synthetic: i64,
    d: i64,
    subsets: usize,
    subset_size: usize,
    seed: u32,
    mean: f64,
    std: f64,
    biased_mean: f64,
}

#[derive(Deserialize)]
struct Choices {
    seed: u32,
    draws: Vec<(u32, usize, Vec<u32>)>,
}

#[derive(Deserialize)]
struct PrdcCase {
    key: String,
    n_real: i64,
    n_synthetic: i64,
    d: i64,
    k: usize,
    shift: f64,
    precision: f64,
    recall: f64,
    density: f64,
    coverage: f64,
}

#[derive(Deserialize)]
struct NearestCase {
    key: String,
    m: i64,
    n: i64,
    d: i64,
    indices: Vec<usize>,
    distances: Vec<f64>,
}

#[derive(Deserialize)]
struct RankTest {
    key: String,
    n_first: usize,
    n_second: usize,
    shift: f64,
    steps: Option<f64>,
    u: f64,
    p: f64,
    without_continuity: f64,
    other_side: f64,
}

fn cases() -> Fixture {
    json("distances.json")
}

/// The twin of make_distances.py's.
fn features(key: &str, n: i64, d: i64, shift: f64) -> Tensor {
    let u = weights::signal(key, &[n, d]).to_kind(Kind::Double);
    let falls: Tensor = Tensor::arange(d, (Kind::Double, Device::Cpu)) / 4.0 + 1.0;
    &u * u.abs() / falls + shift
}

fn near(got: f64, expected: f64, relative: f64) -> bool {
    (got - expected).abs() <= relative * expected.abs()
}

#[test]
fn frechet_distance_equals_pytorch_fid_and_torch_fidelity() {
    for case in cases().frechet {
        let real = features(&format!("{}/real", case.key), case.n_real, case.d, 0.0);
        let synthetic = features(&format!("{}/synthetic", case.key), case.n_synthetic, case.d, case.shift);
        let statistics = |x: &Tensor| Statistics::of(x, "real").unwrap();
        let known = frechet_statistics(&statistics(&real), &statistics(&synthetic)).unwrap().value;
        // Their roots of eigenvalues that should be 0 are not quite: they differ from each other by 1e-8.
        let singular = case.n_real.min(case.n_synthetic) <= case.d;
        let tolerance = if singular { 5e-8 } else { 1e-12 };
        for got in [frechet(&real, &synthetic).unwrap().value, known] {
            assert!(near(got, case.pytorch_fid, tolerance), "{}: {got} {}", case.key, case.pytorch_fid);
            assert!(near(got, case.torch_fidelity, tolerance), "{}: {got} {}", case.key, case.torch_fidelity);
            // Covariances over n are another distance, also within the tolerance that users ask for.
            assert!(!near(got, case.over_n, 1e-6), "{}", case.key);
        }
        let alone = frechet(&real, &real).unwrap().value;
        assert!(alone < 1e-12, "{}: {alone}", case.key);
    }
}

#[test]
fn kid_equals_torch_fidelity() {
    for case in cases().kid {
        let real = features(&format!("{}/real", case.key), case.n_real, case.d, 0.0);
        let synthetic = features(&format!("{}/synthetic", case.key), case.n_synthetic, case.d, 0.05);
        let of = |real, synthetic, seed| {
            kid(real, synthetic, &Subsets { count: case.subsets, size: Some(case.subset_size), seed })
                .unwrap()
        };
        let got = of(&real, &synthetic, case.seed);
        assert!((got.value - case.mean).abs() < 1e-12, "{}: {} {}", case.key, got.value, case.mean);
        assert!((got.sd - case.std).abs() < 1e-12, "{}: {} {}", case.key, got.sd, case.std);
        assert!((got.value - case.biased_mean).abs() > 1e-4, "the diagonal left in is another measure");
        // Other subsets, or the same drawn from the synthetic images first, give other values.
        assert!((of(&real, &synthetic, 1).value - case.mean).abs() > 1e-6);
        assert!((of(&synthetic, &real, case.seed).value - case.mean).abs() > 1e-6);
    }
}

#[test]
fn subsets_are_numpys() {
    for case in cases().choices {
        let mut rng = RandomState::new(case.seed);
        for (n, size, drawn) in case.draws {
            assert_eq!(rng.choice(n, size), drawn, "{} {n}", case.seed);
        }
    }
    // Another seed draws others.
    assert_ne!(RandomState::new(2021).choice(120, 20), cases().choices[0].draws[0].2);
}

#[test]
fn precision_recall_density_and_coverage_equal_prdc() {
    let mut others = 0;
    for case in cases().prdc {
        let real = features(&format!("{}/real", case.key), case.n_real, case.d, 0.0);
        let synthetic = features(&format!("{}/synthetic", case.key), case.n_synthetic, case.d, case.shift);
        let same = |real, synthetic, k| {
            let got = prdc(real, synthetic, k).unwrap();
            near(got.precision, case.precision, 1e-14)
                && near(got.recall, case.recall, 1e-14)
                && near(got.density, case.density, 1e-14)
                && near(got.coverage, case.coverage, 1e-14)
        };
        assert!(same(&real, &synthetic, case.k), "{}: {:?}", case.key, prdc(&real, &synthetic, case.k));
        // One neighbour more or less (itself counted, or not), and the sets exchanged.
        others += i32::from(!same(&real, &synthetic, case.k - 1));
        others += i32::from(!same(&synthetic, &real, case.k));
    }
    assert!(others >= 5, "{others}");
}

#[test]
fn nearest_rows_equal_numpys() {
    for case in cases().nearest {
        let queries = features(&format!("{}/queries", case.key), case.m, case.d, 0.0);
        let reference = features(&format!("{}/reference", case.key), case.n, case.d, 0.0);
        let got = nearest(&queries, &reference).unwrap();
        assert_eq!(got.indices, case.indices);
        assert!(got.distances.iter().zip(&case.distances).all(|(a, b)| near(*a, *b, 1e-14)));
        // By the largest difference of a column it is another row.
        let manhattan =
            (queries.unsqueeze(1) - reference.unsqueeze(0)).abs().amax([2], false).argmin(1, false);
        let manhattan = Vec::<i64>::try_from(manhattan).unwrap();
        assert!(manhattan.iter().zip(&case.indices).any(|(a, b)| *a as usize != *b), "{}", case.key);
    }
}

#[test]
fn the_rank_test_equals_scipy() {
    for case in cases().rank_tests {
        let make = |name: &str, n, shift: f64| -> Vec<f64> {
            let cut = |value: f64| case.steps.map_or(value, |steps| (value * steps).floor());
            weights::uniform(&format!("{}/{name}", case.key), n).map(|u| cut(u + shift)).collect()
        };
        let (first, second) = (make("first", case.n_first, case.shift), make("second", case.n_second, 0.0));
        let got = mann_whitney::less(&first, &second).unwrap();
        assert_eq!(got.u, case.u);
        assert!(
            (got.p - case.p).abs() < 1e-12 && near(got.p, case.p, 1e-10),
            "{}: {} {}",
            case.key,
            got.p,
            case.p
        );
        let pairs = (case.n_first * case.n_second) as f64;
        assert!((got.effect - (1.0 - case.u / pairs)).abs() < 1e-14);
        for other in [case.without_continuity, case.other_side] {
            assert!(!near(got.p, other, 1e-5), "{}", case.key);
        }
    }
}

#[test]
fn statistics_that_numpy_wrote_are_read() {
    let x = features("npz", 30, 8, 0.0);
    let expected = Statistics::of(&x, "real").unwrap();
    for name in ["statistics.npz", "statistics_stored.npz"] {
        let read = npz::read(&fixture(name)).unwrap();
        assert_eq!((read.n, read.mean.size(), read.covariance.size()), (None, vec![8], vec![8, 8]));
        assert!(read.mean.allclose(&expected.mean, 1e-13, 1e-15, false), "{name}");
        assert!(read.covariance.allclose(&expected.covariance, 1e-12, 1e-15, false), "{name}");
        assert!(!read.covariance.allclose(&(&expected.covariance * (29.0 / 30.0)), 1e-12, 1e-15, false));
        assert!(frechet_statistics(&read, &expected).unwrap().value < 1e-12);
    }
}

#[test]
fn numpy_reads_the_statistics_that_are_written() {
    let Some(python) = python::with("NumPy", "import numpy") else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("written.npz");
    npz::write(&file, &Statistics::of(&features("npz", 30, 8, 0.0), "real").unwrap()).unwrap();
    let script = "
import sys, numpy as np
ours, theirs = np.load(sys.argv[1]), np.load(sys.argv[2])
assert sorted(ours.files) == ['mu', 'n', 'sigma'] and int(ours['n']) == 30, ours.files
for key in ('mu', 'sigma'):
    assert ours[key].dtype == np.float64 and ours[key].flags['C_CONTIGUOUS'], key
    assert ours[key].shape == theirs[key].shape, key
    np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-12, atol=1e-15)
";
    let out = std::process::Command::new(python)
        .args(["-c", script])
        .args([file, fixture("statistics.npz")])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}
