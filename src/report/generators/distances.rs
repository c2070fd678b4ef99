//! How far each generator's images are from real ones, beside sets of images that show the scale.

use serde::{Deserialize, Serialize};

use super::ReportInput;
use crate::{
    aggregate::{Table, TableCell, number},
    results::Measurement,
    vocabulary::{Extractor, GeneratorMeasure, Metric, Phase, Statistic, Task, View},
};

/// What the distances are by, and what was compared beside the generators.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DistanceSettings {
    /// Column `structure` of their rows.
    pub extractor: String,
    /// Which extractor it is.
    pub network: Extractor,
    pub neighbours: u64,
    pub kid_subsets: u64,
    pub seed: u64,
    /// 0: no interval.
    pub replicates: u64,
    /// Arms of the sets of images whose likeness is known, in the order in which they are shown.
    pub references: Vec<String>,
}

impl DistanceSettings {
    /// [`Metric::Fid`], or [`Metric::Frechet`] of an extractor that is not FID's.
    fn frechet(&self) -> Metric {
        self.network.frechet()
    }
}

/// Few images make a Frechet distance larger.
const FEW: u64 = 2048;

/// A standard error below this is one of rounding: the subsets are the whole set.
const ROUNDING: f64 = 1e-6;

/// View and phase; both empty over all.
type ClassWords = (&'static str, &'static str);

pub(super) fn tables(input: &ReportInput, rows: &[Measurement]) -> Vec<Table> {
    let Some(how) = &input.distances else { return Vec::new() };
    let rows: Vec<&Measurement> = rows.iter().filter(|r| r.task == Task::Generation).collect();
    let found = MeasuredDistances { how, rows };
    let all = [found.over_all(input), found.by_class(input), found.memorisation(input)];
    all.into_iter().flatten().collect()
}

struct MeasuredDistances<'a> {
    how: &'a DistanceSettings,
    rows: Vec<&'a Measurement>,
}

impl MeasuredDistances<'_> {
    /// Of an arm, by the extractor unless `structure` says otherwise; of a class or (empty) over all.
    fn of(&self, arm: &str, structure: &str, class: ClassWords, word: &str) -> Option<&Measurement> {
        self.rows.iter().copied().find(|r| {
            r.arm == arm
                && r.structure == structure
                && (r.view.as_str(), r.phase.as_str()) == class
                && r.metric == word
        })
    }

    fn value(&self, arm: &str, class: ClassWords, metric: Metric, statistic: Statistic) -> Option<f64> {
        self.of(arm, &self.how.extractor, class, &metric.with(statistic)).map(|r| r.value)
    }

    /// The value with its standard error and interval, where there are any.
    fn cell(&self, arm: &str, class: ClassWords, metric: Metric) -> TableCell {
        let scaled = |statistic| self.value(arm, class, metric, statistic).map(|v| metric.scale() * v);
        scaled(Statistic::Mean).map_or(TableCell::Empty, |mean| TableCell::Estimate {
            mean,
            sd: scaled(Statistic::StandardError).filter(|error| *error > ROUNDING),
            interval: scaled(Statistic::Ci95Low).zip(scaled(Statistic::Ci95High)),
            undefined: 0,
        })
    }

    fn counts(&self, arm: &str, class: ClassWords) -> [TableCell; 2] {
        let real = self.of(arm, &self.how.extractor, class, Metric::RealCount.as_str());
        let count = |n: Option<u64>| n.map_or(TableCell::Empty, TableCell::Count);
        [count(real.map(|r| r.value as u64)), count(real.and_then(|r| r.n))]
    }

    /// The metrics of all measures, one column each.
    fn metrics(&self) -> Vec<Metric> {
        GeneratorMeasure::ALL.into_iter().flat_map(|measure| measure.columns(self.how.frechet())).collect()
    }

    /// Sets of images, those whose likeness is known first.
    fn arms<'b>(&'b self, input: &'b ReportInput) -> impl Iterator<Item = (&'b str, &'b str)> {
        let references = self.how.references.iter().map(|arm| (arm.as_str(), "for the scale"));
        references.chain(input.generators.iter().map(|g| (g.name.as_str(), g.mode.as_str())))
    }

    fn over_all(&self, input: &ReportInput) -> Option<Table> {
        let (how, all) = (self.how, ("", ""));
        let metrics = self.metrics();
        let mut columns = vec!["Images".to_owned(), "Mode".to_owned()];
        for metric in &metrics {
            columns.push(metric.label().to_owned());
            if *metric == how.frechet() {
                columns.push("Extrapolated".to_owned());
            }
        }
        columns.extend(["n real", "n"].map(str::to_owned));
        let mut body = Vec::new();
        for (arm, mode) in self.arms(input) {
            let [n_real, n] = self.counts(arm, all);
            if n == TableCell::Empty {
                continue;
            }
            let mut row = vec![arm.into(), mode.into()];
            for &metric in &metrics {
                row.push(self.cell(arm, all, metric));
                if metric == how.frechet() {
                    let extrapolated = self.value(arm, all, metric, Statistic::Extrapolated);
                    row.push(extrapolated.map_or(TableCell::Empty, plain));
                }
            }
            row.extend([n_real, n]);
            body.push(row);
        }
        let largest = body.iter().filter_map(|row| match row.last() {
            Some(TableCell::Count(n)) => Some(*n),
            _ => None,
        });
        let largest = largest.max()?;
        let (frechet, extractor) = (how.frechet().label(), &how.extractor);
        let shown = |metric: &&Metric| self.rows.iter().any(|r| r.metric == **metric);
        let measured = |measure: GeneratorMeasure| measure.columns(how.frechet()).iter().any(|m| shown(&m));
        let (has_frechet, has_kid) = (measured(GeneratorMeasure::Fid), measured(GeneratorMeasure::Kid));
        let mut reading = vec![match how.frechet() == Metric::Fid {
            true => format!("Features of {extractor}."),
            false => {
                format!("Features of {extractor}, which are not FID's: do not compare with FIDs of papers.")
            }
        }];
        let distances = [(has_frechet, frechet), (has_kid, "KID")];
        let distances: Vec<_> = distances.iter().filter(|(has, _)| *has).map(|(_, name)| *name).collect();
        if !distances.is_empty() {
            reading.push(format!("{}: 0 means equal; lower is better.", distances.join(" and ")));
        }
        if measured(GeneratorMeasure::Prdc) {
            reading.push(format!(
                "Precision, recall, density and coverage with {} neighbours: 1 means equal.",
                how.neighbours
            ));
        }
        let mut notes = vec![reading.join(" ")];
        notes.push(
            "The rows for the scale compare real images with the other half of the training patients, with held-out real images, with blurred training images (Gaussian, standard deviation 1/64 of the side) and with uniform noise.".into(),
        );
        if how.replicates > 1 && has_frechet {
            notes.push(format!(
                "Interval: ± 1.96 standard errors from {} random halves of the patients (each synthetic image counts as one patient), seed {}.",
                how.replicates, how.seed
            ));
        }
        let mut errors = Vec::new();
        if has_frechet {
            errors.push("Extrapolated: to an infinite number of images (Chong and Forsyth 2020).".to_owned());
        }
        if has_kid {
            errors.push(format!("KID ± standard error over {} subsets, seed {}.", how.kid_subsets, how.seed));
        }
        if !errors.is_empty() {
            notes.push(errors.join(" "));
        }
        let definitions = metrics.iter().filter(shown).map(|metric| metric.definition());
        notes.extend(definitions.filter(|words| !words.is_empty()).map(str::to_owned));
        if largest < FEW && has_frechet {
            let kid = if has_kid { "; KID is not biased" } else { "" };
            notes.push(format!(
                "n is below {FEW}, which biases {frechet} upwards, the more the smaller n is. Compare it only at equal n{kid}."
            ));
        }
        let mut table = Table {
            name: "generators_distances".to_owned(),
            title: format!("Generators: distance from real images ({extractor})"),
            caption: format!(
                "All classes together. A good generator is close to “{}” and far from noise.",
                how.references.first().map(String::as_str).unwrap_or("real")
            ),
            columns,
            rows: body,
            notes,
            decimals: 3,
        };
        super::tables::without_empty_columns(&mut table);
        Some(table)
    }

    fn by_class(&self, input: &ReportInput) -> Option<Table> {
        let metrics = self.metrics();
        let mut body = Vec::new();
        for (arm, _) in self.arms(input) {
            for view in View::ALL {
                for phase in Phase::ALL {
                    let class = (view.as_str(), phase.as_str());
                    let [n_real, n] = self.counts(arm, class);
                    if n == TableCell::Empty {
                        continue;
                    }
                    let mut row = vec![arm.into(), format!("{view} {phase}").into()];
                    row.extend(metrics.iter().map(|metric| self.cell(arm, class, *metric)));
                    row.extend([n_real, n]);
                    body.push(row);
                }
            }
        }
        body.first()?;
        let labels = metrics.iter().map(|metric| metric.label());
        let columns = ["Images", "Class"].into_iter().chain(labels).chain(["n real", "n"]);
        let mut table = Table {
            name: "generators_distances_classes".to_owned(),
            title: format!("Generators: distance from real images of the class ({})", self.how.extractor),
            caption: "As above, for each view and phase. Fewer images mean a larger bias.".to_owned(),
            columns: columns.map(str::to_owned).collect(),
            rows: body,
            notes: Vec::new(),
            decimals: 3,
        };
        super::tables::without_empty_columns(&mut table);
        Some(table)
    }

    fn memorisation(&self, input: &ReportInput) -> Option<Table> {
        let mut body = Vec::new();
        for (arm, mode) in self.arms(input) {
            for structure in [self.how.extractor.as_str(), "pixels"] {
                let of = |metric: Metric| self.of(arm, structure, ("", ""), metric.as_str());
                let Some(closer) = of(Metric::MemorisationCloser) else { continue };
                let cell = |metric| of(metric).map_or(TableCell::Empty, |r| plain(r.value));
                let count =
                    |metric| of(metric).map_or(TableCell::Empty, |r| TableCell::Count(r.value as u64));
                body.push(vec![
                    arm.into(),
                    mode.into(),
                    structure.into(),
                    plain(closer.value),
                    of(Metric::MemorisationP).map_or(TableCell::Empty, |r| p_value(r.value)),
                    cell(Metric::MemorisationShareNear),
                    count(Metric::MemorisationCopies),
                    cell(Metric::MemorisationMedian),
                    cell(Metric::MemorisationMedianHeldOut),
                    closer.n.map_or(TableCell::Empty, TableCell::Count),
                    count(Metric::MemorisationHeldOutCount),
                ]);
            }
        }
        body.first()?;
        Some(Table {
            name: "generators_memorisation".to_owned(),
            title: "Generators: copies of training images".to_owned(),
            caption: "The distance of each image to the nearest training image, compared with held-out real images, which cannot be copies.".to_owned(),
            columns: [
                "Images",
                "Mode",
                "By",
                Metric::MemorisationCloser.label(),
                Metric::MemorisationP.label(),
                Metric::MemorisationShareNear.label(),
                Metric::MemorisationCopies.label(),
                Metric::MemorisationMedian.label(),
                Metric::MemorisationMedianHeldOut.label(),
                "n",
                Metric::MemorisationHeldOutCount.label(),
            ]
            .map(str::to_owned)
            .to_vec(),
            rows: body,
            notes: vec![
                "Nearer than held-out: among all pairs of an image and a held-out image, the share in which the image is nearer to the training images. 0.5: no sign of copying. 1: every image is nearer than every held-out one. By pixels, smooth images are near to everything: “blurred real” shows how much, and consists of true copies.".into(),
                "p: one-sided Mann-Whitney test. It treats the images of one patient as independent, so the true p is larger. Share near: images that are nearer than 95 in 100 held-out ones; 0.05 is expected. Copies: a distance of exactly 0.".into(),
            ],
            decimals: 3,
        })
    }
}

fn plain(value: f64) -> TableCell {
    TableCell::Estimate { mean: value, sd: None, interval: None, undefined: 0 }
}

/// A p that rounds to 0 is not 0.
fn p_value(p: f64) -> TableCell {
    if p < 1e-3 { "< 0.001".into() } else { number(p, 3).into() }
}
