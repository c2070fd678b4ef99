//! Whether two arms are equal within a margin: two one-sided t-tests (TOST, Schuirmann 1987), and what the number of
//! patients could have shown.

use statrs::distribution::{Continuous, ContinuousCDF, StudentsT};

use super::{paired::LEVEL, stats};

/// What two one-sided tests say of paired differences.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Equivalence {
    pub margin: f64,
    /// The larger p of the two one-sided t-tests, of a mean difference below the margin and above minus the margin.
    pub p: f64,
    /// p adjusted for all comparisons that were made together.
    pub holm: f64,
    /// The 90 % t-interval of the mean difference: inside the margin exactly where p is below 0.05.
    pub interval: (f64, f64),
    /// The chance that the two-sided t-test finds a difference as large as the margin.
    pub power_of_difference: f64,
    /// The chance that these tests show equivalence where the true difference is 0.
    pub power_of_equivalence: f64,
}

/// Tests whether the mean of paired differences lies within `-margin..margin`. None under two differences.
///
/// p is that of `statsmodels.stats.weightstats.ttost_paired`. The powers are at level 0.05, for the observed standard
/// deviation of the differences and their number; that of the difference is `statsmodels`' `TTestPower`.
pub fn equivalence(differences: &[f64], margin: f64) -> Option<Equivalence> {
    let stats::Summary { mean, sd, n, .. } = stats::summary(differences);
    if n < 2 {
        return None;
    }
    let freedom = (n - 1) as f64;
    let error = sd / (n as f64).sqrt();
    if error <= 0.0 {
        let is_within = mean.abs() < margin;
        let p = if is_within { 0.0 } else { 1.0 };
        let (interval, power) = ((mean, mean), 1.0);
        return Some(Equivalence {
            margin,
            p,
            holm: p,
            interval,
            power_of_difference: power,
            power_of_equivalence: power,
        });
    }
    let student = StudentsT::new(0.0, 1.0, freedom).ok()?;
    let p = student.cdf(-(mean + margin) / error).max(student.cdf((mean - margin) / error));
    let one_sided = critical(&student, LEVEL);
    let two_sided = critical(&student, LEVEL / 2.0);
    let shift = margin / error;
    Some(Equivalence {
        margin,
        p,
        holm: p,
        interval: (mean - one_sided * error, mean + one_sided * error),
        power_of_difference: over_spreads(freedom, f64::INFINITY, |spread| {
            normal(shift - two_sided * spread) + normal(-shift - two_sided * spread)
        }),
        power_of_equivalence: over_spreads(freedom, shift / one_sided, |spread| {
            (2.0 * normal(shift - one_sided * spread) - 1.0).max(0.0)
        }),
    })
}

/// The value that is exceeded with a probability: the inverse of the distribution's tail, by two steps of Newton's method
/// from statrs' approximation.
fn critical(student: &StudentsT, tail: f64) -> f64 {
    let mut at = -student.inverse_cdf(tail);
    for _ in 0..2 {
        at += (student.cdf(-at) - tail) / student.pdf(at);
    }
    at
}

fn normal(z: f64) -> f64 {
    0.5 * libm::erfc(-z / std::f64::consts::SQRT_2)
}

/// Intervals of Simpson's rule.
const INTERVALS: usize = 4000;

/// The mean of a function of the observed over the true standard deviation, up to `most`: the root of a chi-squared variable
/// over its degrees of freedom. A t-statistic is normal given this ratio, so that its noncentral distribution is such a
/// mean.
fn over_spreads(freedom: f64, most: f64, value: impl Fn(f64) -> f64) -> f64 {
    // Twelve standard deviations and more: nothing is beyond.
    let reach = 12.0 / freedom.sqrt();
    let (low, high) = ((1.0 - reach).max(0.0), (1.0 + reach).min(most));
    if high <= low {
        return 0.0;
    }
    let half = freedom / 2.0;
    let constant = std::f64::consts::LN_2 + half * half.ln() - libm::lgamma(half);
    let density = |spread: f64| {
        let power = if freedom == 1.0 { 0.0 } else { (freedom - 1.0) * spread.ln() };
        (constant + power - half * spread * spread).exp()
    };
    let width = (high - low) / INTERVALS as f64;
    let sum: f64 = (0..=INTERVALS)
        .map(|i| {
            let spread = low + i as f64 * width;
            let weight = match i {
                0 | INTERVALS => 1.0,
                i if i % 2 == 1 => 4.0,
                _ => 2.0,
            };
            weight * density(spread) * value(spread)
        })
        .sum();
    (sum * width / 3.0).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by `tests/golden/make_aggregate.py` (statsmodels, SciPy).
    fn golden() -> Vec<serde_json::Value> {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/golden/aggregate.json")).unwrap();
        golden["equivalence"].as_array().unwrap().clone()
    }

    fn numbers(value: &serde_json::Value) -> Vec<f64> {
        value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    }

    #[test]
    fn tests_and_powers_equal_statsmodels() {
        let (mut shown, mut normal) = (0, 0);
        for case in golden() {
            let number = |key: &str| case[key].as_f64().unwrap();
            let differences = numbers(&case["differences"]);
            let found = equivalence(&differences, number("margin")).unwrap();
            let name = format!("{} differences: {found:?}", differences.len());
            assert!((found.p - number("p")).abs() < 1e-10, "{name} {}", number("p"));
            assert_eq!(found.p, found.holm, "{name}");
            let ends = numbers(&case["interval"]);
            let near = |a: f64, b: f64| (a - b).abs() < 1e-9 * (1.0 + b.abs());
            assert!(near(found.interval.0, ends[0]) && near(found.interval.1, ends[1]), "{name} {ends:?}");
            assert!((found.power_of_difference - number("power")).abs() < 1e-8, "{name} {}", number("power"));
            let expected = number("power_of_equivalence");
            assert!((found.power_of_equivalence - expected).abs() < 1e-8, "{name} {expected}");
            let is_inside = found.interval.0 > -found.margin && found.interval.1 < found.margin;
            assert_eq!(found.p < LEVEL, is_inside, "{name}");
            shown += usize::from(is_inside);
            // A normal distribution in place of Student's gives another p.
            normal += usize::from((found.p - number("normal_p")).abs() > 1e-4);
        }
        assert!(shown >= 1 && normal >= 5, "{shown} {normal}");
    }

    #[test]
    fn equal_differences_and_too_few() {
        assert_eq!(equivalence(&[0.01], 0.02), None);
        assert_eq!(equivalence(&[], 0.02), None);
        let same = equivalence(&[0.01, 0.01, 0.01], 0.02).unwrap();
        assert_eq!((same.p, same.interval), (0.0, (0.01, 0.01)));
        assert_eq!(equivalence(&[0.02, 0.02], 0.02).unwrap().p, 1.0);
        // Many patients show either; few show nothing.
        let many: Vec<f64> = (0..400).map(|i| if i % 2 == 0 { 0.01 } else { -0.01 }).collect();
        let many = equivalence(&many, 0.01).unwrap();
        assert!(many.power_of_difference > 0.999 && many.power_of_equivalence > 0.999, "{many:?}");
        let few = equivalence(&[0.01, -0.01, 0.01, -0.01], 0.005).unwrap();
        assert!(few.power_of_difference < 0.2 && few.power_of_equivalence < 0.05, "{few:?}");
    }
}
