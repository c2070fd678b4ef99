//! How far each generator's images are from real ones, beside sets of images whose distance is known.

use super::{Figure, ReportInput, distances::DistanceSettings, span};
use crate::{
    aggregate::{Answer, MeasuredDistance, distance_answer, plural},
    report::{
        HEAD,
        axes::{NAMED, POINT, reading},
        dots::{DotPlot, DotRow},
        scene::{DOUBLE, SINGLE},
    },
    results::Measurement,
    vocabulary::{Metric, Statistic, Task},
};

/// The distances that the head of a report shows.
pub(in crate::report) struct Closeness<'a> {
    metric: Metric,
    how: &'a DistanceSettings,
    /// Sets whose likeness is known; the first is real images against real ones.
    pub references: Vec<MeasuredDistance>,
    pub generators: Vec<MeasuredDistance>,
}

impl<'a> Closeness<'a> {
    /// By the Fréchet distance, or by another one where that was not measured. None where nothing was.
    pub fn of(input: &'a ReportInput, rows: &[Measurement]) -> Option<Self> {
        let how = input.distances.as_ref()?;
        let measured = |metric: Metric, arms: &mut dyn Iterator<Item = &String>| -> Vec<MeasuredDistance> {
            arms.filter_map(|arm| distance(rows, how, arm, metric)).collect()
        };
        [how.network.frechet(), Metric::Kid, Metric::Mind].into_iter().find_map(|metric| {
            let references = measured(metric, &mut how.references.iter());
            let generators = measured(metric, &mut input.generators.iter().map(|g| &g.name));
            (!generators.is_empty()).then_some(Self { metric, how, references, generators })
        })
    }

    /// None where real images were not compared with real ones.
    pub fn answer(&self) -> Option<Answer> {
        distance_answer(self.metric, self.references.first()?, &self.generators)
    }

    /// The distance's name.
    pub fn label(&self) -> &'static str {
        self.metric.label()
    }

    pub fn figure(&self) -> Figure {
        let row = |set: &MeasuredDistance, look| DotRow {
            name: set.name.clone(),
            value: set.value,
            interval: set.interval,
            seeds: Vec::new(),
            look,
        };
        let sets = || self.references.iter().chain(&self.generators);
        let n = format!("n = {} images", span(sets().map(|set| set.n)));
        let plot = DotPlot {
            rows: self
                .references
                .iter()
                .map(|set| row(set, POINT))
                .chain(self.generators.iter().map(|set| row(set, NAMED)))
                .collect(),
            label: format!("{}{}", self.metric.label(), reading(self.metric.direction())),
            n: n.clone(),
            decimals: 2,
            // A distance that is no larger than its error can be below 0.
            is_logarithmic: sets().all(|set| set.value > 0.0),
        };
        let generators = plural(self.generators.len() as u64, "generator", "generators");
        Figure {
            name: "generators_closeness".to_owned(),
            title: format!("Generators: {} from real images", self.metric.label()),
            caption: format!(
                "{} between real training images and sets of images ({n}), by features of {}; logarithmic where all are above 0. Grey: sets for the scale. Blue: {generators}. Bar: 95 % interval, where there is one. A small set has a larger distance: compare sets of equal n.",
                self.metric.label(),
                self.how.extractor
            ),
            scene: plot.draw(DOUBLE),
            narrow: Some(plot.draw(SINGLE)),
            head: Some(plot.draw(HEAD)),
        }
    }
}

/// An arm's distance over all classes.
fn distance(
    rows: &[Measurement],
    how: &DistanceSettings,
    arm: &str,
    metric: Metric,
) -> Option<MeasuredDistance> {
    let of = |statistic: Statistic| {
        let word = metric.with(statistic);
        rows.iter().find(|r| {
            r.task == Task::Generation
                && r.arm == arm
                && r.structure == how.extractor
                && r.view.is_empty()
                && r.phase.is_empty()
                && r.metric == word
        })
    };
    let mean = of(Statistic::Mean).filter(|r| r.value.is_finite())?;
    let end = |statistic| of(statistic).map(|r| metric.scale() * r.value);
    Some(MeasuredDistance {
        name: arm.to_owned(),
        value: metric.scale() * mean.value,
        interval: end(Statistic::Ci95Low).zip(end(Statistic::Ci95High)),
        n: mean.n.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{aggregate::Claim, report::fake};

    #[test]
    fn generators_stand_beside_what_real_images_have_from_each_other() {
        let mut input = ReportInput::default();
        fake::add_generators(&mut input);
        assert!(Closeness::of(&input, &input.measurements).is_none());
        fake::add_distances(&mut input);
        let found = Closeness::of(&input, &input.measurements).unwrap();
        let answer = found.answer().unwrap();
        assert_eq!(answer.outcome, Claim::Worse);
        assert!(
            answer.sentence.contains(
                "Fréchet distance 7.000 for “external” (n = 400), 1.000 for “real against real (two halves)”"
            ),
            "{}",
            answer.sentence
        );
        let figure = found.figure();
        assert_eq!(figure.name, "generators_closeness");
        let text = format!("{:?}", figure.scene.shapes);
        assert!(text.contains("\"text-segmentation\"") && text.contains("← lower is better"), "{text}");
        assert!(text.contains("n = 400 images"));
    }
}
