use rand_distr::{Distribution, StandardNormal};

use super::{resample::*, *};
use crate::random;

/// Gaussian features (n, d) whose spectrum falls as 1/(1 + j); f64.
fn features(n: i64, d: i64, seed: u64, shift: f64) -> Tensor {
    let mut rng = random::rng(seed, "features", &[]);
    let normal: Vec<f64> = (0..n * d).map(|_| StandardNormal.sample(&mut rng)).collect();
    let scale = (Tensor::arange(d, (Kind::Double, tch::Device::Cpu)) + 1.0).reciprocal();
    Tensor::from_slice(&normal).view([n, d]) * scale + shift
}

fn near(a: f64, b: f64, relative: f64) -> bool {
    (a - b).abs() <= relative * b.abs()
}

#[test]
fn a_set_has_no_distance_to_itself() {
    for (n, d) in [(50, 64), (300, 64), (64, 64), (2, 8), (70, 64)] {
        let x = features(n, d, 1, 3.0);
        assert!(frechet(&x, &x).unwrap().value < 1e-12);
        let s = Statistics::of(&x, "real").unwrap();
        let value = frechet_statistics(&s, &s).unwrap().value;
        assert!(value < 1e-12, "{n} x {d}: {value}");
        // Rows in another order, and in f32.
        let turned = x.flip([0]);
        assert!(frechet(&x, &turned).unwrap().value < 1e-12);
        assert!(frechet(&x.to_kind(Kind::Float), &x.to_kind(Kind::Float)).unwrap().value < 1e-12);
    }
}

#[test]
fn every_way_gives_the_same_value() {
    // Both singular, one, none; the features' own rows or the covariance.
    for (m, n) in [(40, 30), (40, 500), (500, 40), (400, 500), (65, 64), (2, 2)] {
        let (a, b) = (features(m, 64, 1, 0.0), features(n, 64, 2, 0.1));
        let direct = frechet(&a, &b).unwrap();
        let (s, t) = (Statistics::of(&a, "real").unwrap(), Statistics::of(&b, "synthetic").unwrap());
        let known = frechet_statistics(&s, &t).unwrap();
        assert!(near(direct.value, known.value, 1e-9), "{m} {n}: {direct:?} {known:?}");
        assert_eq!((known.n_real, known.n_synthetic, known.d), (Some(m as u64), Some(n as u64), 64));
        let back = frechet(&b, &a).unwrap().value;
        assert!(near(direct.value, back, 1e-10));
        let sets = [FeatureSet::of(&a).unwrap(), FeatureSet::of(&b).unwrap()];
        let cross = |f1: &Tensor, f2: &Tensor| nuclear_norm(&f1.matmul(&f2.tr())).unwrap();
        let [r1, r2] = [sets[0].rows.as_ref().unwrap(), sets[1].rows.as_ref().unwrap()];
        let expected = cross(r1, r2);
        for (f1, f2) in [
            (sets[0].compact().unwrap(), r2),
            (r1, sets[1].compact().unwrap()),
            (sets[0].compact().unwrap(), sets[1].compact().unwrap()),
        ] {
            assert!(near(cross(f1, f2), expected, 1e-7), "{m} {n}: {} {expected}", cross(f1, f2));
        }
    }
}

#[test]
fn the_cheaper_factor_is_taken() {
    let took = |m: i64, n: i64, d: i64| {
        let sets = [
            FeatureSet::of(&features(m, d, 1, 0.0)).unwrap(),
            FeatureSet::of(&features(n, d, 2, 0.0)).unwrap(),
        ];
        factors(&sets[0], &sets[1]).unwrap().map(|f| f.size()[0])
    };
    assert_eq!(took(30, 20, 64), [30, 20]);
    assert_eq!(took(900, 900, 64), [64, 64]);
    assert_eq!(took(900, 64, 64), [64, 64]);
    assert_eq!(took(300, 10, 64), [300, 10]);
}

#[test]
fn two_gaussians_of_one_dimension_are_known() {
    // (m1 - m2)^2 + (s1 - s2)^2
    let a = Tensor::from_slice(&[1.0f64, 3.0]).view([2, 1]);
    let b = Tensor::from_slice(&[0.0f64, 8.0, 4.0]).view([3, 1]);
    let value = frechet(&a, &b).unwrap().value;
    assert!(near(value, 4.0 + (2f64.sqrt() - 4.0).powi(2), 1e-14), "{value}");
}

#[test]
fn warnings_say_what_n_does_to_the_value() {
    let (a, b) = (features(40, 8, 1, 0.0), features(6, 8, 2, 0.0));
    let found = frechet(&a, &b).unwrap().warnings;
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[1].contains("6 synthetic images are too few for 8 features"));
    let mut s = Statistics::of(&a, "real").unwrap();
    s.n = None;
    let found = frechet_statistics(&s, &s).unwrap();
    assert!(found.n_real.is_none() && found.warnings[0].contains("not known"));
}

#[test]
fn what_has_no_distance_is_refused() {
    let a = features(10, 4, 1, 0.0);
    let broken = a.shallow_clone().copy();
    let _ = broken.get(2).fill_(f64::NAN);
    let e = frechet(&a, &broken).unwrap_err().to_string();
    assert!(e.contains("1 of 10 rows of the synthetic features"), "{e}");
    assert!(frechet(&a.narrow(0, 0, 1), &a).unwrap_err().to_string().contains("at least 2 real images"));
    assert!(frechet(&a, &features(10, 5, 1, 0.0)).unwrap_err().to_string().contains("4 dimensions"));
    for large in [1e160, 1e200] {
        let e = frechet(&(&a * large), &(features(10, 4, 2, 0.0) * large)).unwrap_err().to_string();
        assert!(e.contains("too large"), "{e}");
    }
    let s = || Statistics::of(&a, "real").unwrap();
    let refused = |wrong: &Statistics, words: &str| {
        let e = frechet_statistics(&s(), wrong).unwrap_err().to_string();
        assert!(e.contains(words), "{e}");
    };
    refused(&Statistics { covariance: -s().covariance, ..s() }, "no covariance");
    refused(&Statistics { covariance: s().covariance.narrow(0, 0, 3), ..s() }, "shape");
    refused(&Statistics { covariance: s().covariance.tril(0), ..s() }, "not symmetric");
    refused(&Statistics { mean: s().mean * f64::NAN, ..s() }, "mean with NaN");
    refused(&Statistics::of(&features(10, 5, 1, 0.0), "real").unwrap(), "dimensions");
}

#[test]
fn extrapolation_takes_the_bias_away_and_repeats() {
    // Same distribution: the distance is all bias by n (the real set's, 4000, is small).
    let (real, synthetic) = (features(4000, 16, 1, 0.0), features(400, 16, 2, 0.0));
    let how = Extrapolation { smallest: 0.2, ..Extrapolation::default() };
    let found = extrapolated(&real, &synthetic, &how).unwrap();
    let at_n = frechet(&real, &synthetic).unwrap().value;
    assert!(found.points.len() == 15 && found.points[14] == (400, at_n) && found.slope > 0.0);
    assert!(found.value.abs() < 0.5 * at_n, "{found:?}");
    assert_eq!(extrapolated(&real, &synthetic, &how).unwrap(), found);
    assert_ne!(
        extrapolated(&real, &synthetic, &Extrapolation { seed: 1, ..how }).unwrap().value,
        found.value
    );
}

#[test]
fn the_interval_is_around_the_value_though_replicates_lie_above() {
    let (real, synthetic) = (features(60, 32, 1, 0.0), features(50, 32, 2, 0.05));
    let found = interval(&real, &synthetic, &Halves { replicates: 50, ..Halves::default() }).unwrap();
    assert!(found.low <= found.value && found.value < found.high && found.standard_error > 0.0);
    assert!(found.replicate_mean > found.value, "{found:?}");
    assert_eq!(found.value, frechet(&real, &synthetic).unwrap().value);
    // Four images of each patient that hardly differ are not four observations.
    let one = features(15, 32, 1, 0.0);
    let four = Tensor::cat(&[&one, &one, &one, &one], 0) + features(60, 32, 3, 0.0) * 1e-3;
    let patients: Vec<usize> = (0..60).map(|i| i % 15).collect();
    let of = |real_patients| {
        let how = Halves { replicates: 50, real_patients, ..Halves::default() };
        interval(&four, &synthetic, &how).unwrap().standard_error
    };
    assert!(of(Some(&patients)) > 1.2 * of(None), "{} {}", of(Some(&patients)), of(None));
}
