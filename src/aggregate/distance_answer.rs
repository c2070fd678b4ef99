//! The answer of generators by their distance from real images.

use super::{Answer, Claim, table::number};
use crate::vocabulary::Metric;

/// How far a set of images is from the real ones.
#[derive(Debug, Clone, PartialEq)]
pub struct MeasuredDistance {
    pub name: String,
    pub value: f64,
    /// 95 %.
    pub interval: Option<(f64, f64)>,
    /// Images.
    pub n: u64,
}

impl MeasuredDistance {
    fn low(&self) -> f64 {
        self.interval.map_or(self.value, |i| i.0)
    }

    fn high(&self) -> f64 {
        self.interval.map_or(self.value, |i| i.1)
    }
}

/// The answer of generators by their distance from real images. `floor` is what real images have from each other; a set
/// of images whose interval reaches the floor's is as near as real ones. None without generators.
pub fn distance_answer(
    metric: Metric,
    floor: &MeasuredDistance,
    sets: &[MeasuredDistance],
) -> Option<Answer> {
    let nearest = sets.iter().min_by(|a, b| a.value.total_cmp(&b.value))?;
    let near = sets.iter().filter(|set| set.low() <= floor.high()).count();
    let (outcome, word) = match (near, sets.len()) {
        (0, 1) => (Claim::Worse, "No: farther than real images are from each other.".to_owned()),
        (0, all) => {
            (Claim::Worse, format!("No: all {all} are farther than real images are from each other."))
        }
        (1, 1) => (Claim::Better, "Yes: as close as real images are to each other.".to_owned()),
        (n, all) if n == all => {
            (Claim::Better, format!("Yes: all {all} are as close as real images are to each other."))
        }
        (n, all) => (Claim::Mixed, format!("{n} of {all} are as close as real images are to each other.")),
    };
    let shown = |set: &MeasuredDistance| number(set.value, metric.decimals());
    let sentence = format!(
        "{} {} for “{}” (n = {}), {} for “{}” (n = {}); lower is closer.",
        metric.label(),
        shown(nearest),
        nearest.name,
        nearest.n,
        shown(floor),
        floor.name,
        floor.n
    );
    let sentence = if sets.len() > 1 { format!("Closest: {sentence}") } else { sentence };
    Some(Answer { outcome, word, sentence })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generators_are_judged_by_what_real_images_have_from_each_other() {
        let set = |name: &str, value: f64| MeasuredDistance {
            name: name.into(),
            value,
            interval: Some((0.9 * value, 1.1 * value)),
            n: 400,
        };
        let floor = set("real against real", 1.0);
        let answer = |sets: &[MeasuredDistance]| distance_answer(Metric::Frechet, &floor, sets);
        let far = answer(&[set("text", 9.0), set("noise", 20.0)]).unwrap();
        assert_eq!(far.word, "No: all 2 are farther than real images are from each other.");
        assert_eq!(
            far.sentence,
            "Closest: Fréchet distance 9.000 for “text” (n = 400), 1.000 for “real against real” (n = 400); lower is closer."
        );
        // The intervals meet.
        assert_eq!(answer(&[set("text", 1.15)]).unwrap().outcome, Claim::Better);
        assert_eq!(answer(&[set("text", 1.15), set("noise", 20.0)]).unwrap().outcome, Claim::Mixed);
        assert_eq!(answer(&[]), None);
    }
}
