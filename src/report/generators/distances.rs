//! How far each generator's images are from real ones, beside images that tell what the scale is.

use super::{ReportInput, TASK};
use crate::{
    aggregate::{Cell, Table, number},
    results::Measurement,
};

/// What the distances are by, and what was compared beside the generators.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Distances {
    /// Column `structure` of their rows.
    pub extractor: String,
    /// `fid`, or `frechet` of an extractor that is not FID's.
    pub frechet: String,
    pub neighbours: u64,
    pub kid_subsets: u64,
    pub seed: u64,
    /// 0: no interval.
    pub replicates: u64,
    /// Arms of the images that tell the scale, in the order in which they are shown.
    pub references: Vec<String>,
}

/// Few images make a Frechet distance larger.
const FEW: u64 = 2048;

pub(super) fn tables(input: &ReportInput, rows: &[Measurement]) -> Vec<Table> {
    let Some(how) = &input.distances else { return Vec::new() };
    let rows: Vec<&Measurement> = rows.iter().filter(|r| r.task == TASK).collect();
    let found = Found { how, rows };
    let all = [found.over_all(input), found.by_class(input), found.memorisation(input)];
    all.into_iter().flatten().collect()
}

struct Found<'a> {
    how: &'a Distances,
    rows: Vec<&'a Measurement>,
}

impl Found<'_> {
    /// Of an arm, by the extractor unless `structure` says otherwise; of a class or (empty) over all.
    fn of(&self, arm: &str, structure: &str, class: (&str, &str), metric: &str) -> Option<&Measurement> {
        self.rows.iter().copied().find(|r| {
            r.arm == arm
                && r.structure == structure
                && (r.view.as_str(), r.phase.as_str()) == class
                && r.metric == metric
        })
    }

    fn value(&self, arm: &str, class: (&str, &str), metric: &str) -> Option<f64> {
        self.of(arm, &self.how.extractor, class, metric).map(|r| r.value)
    }

    fn cell(&self, arm: &str, class: (&str, &str), metric: &str) -> Cell {
        self.value(arm, class, metric).map_or(Cell::Empty, plain)
    }

    /// KID and its standard error, in thousandths.
    fn kid(&self, arm: &str, class: (&str, &str)) -> Cell {
        self.value(arm, class, "kid").map_or(Cell::Empty, |kid| Cell::Estimate {
            mean: 1e3 * kid,
            // Subsets that are the whole set differ by rounding alone: that is no error of an estimate.
            sd: self.value(arm, class, "kid_standard_error").map(|e| 1e3 * e).filter(|e| *e > 1e-6),
            interval: None,
            undefined: 0,
        })
    }

    fn counts(&self, arm: &str, class: (&str, &str)) -> [Cell; 2] {
        let real = self.of(arm, &self.how.extractor, class, "n_real");
        let count = |n: Option<u64>| n.map_or(Cell::Empty, Cell::Count);
        [count(real.map(|r| r.value as u64)), count(real.and_then(|r| r.n))]
    }

    fn frechet_words(&self) -> &'static str {
        if self.how.frechet == "fid" { "FID" } else { "Fréchet distance" }
    }

    /// Sets of images, the scale first.
    fn arms<'b>(&'b self, input: &'b ReportInput) -> impl Iterator<Item = (&'b str, &'b str)> {
        let references = self.how.references.iter().map(|arm| (arm.as_str(), "for the scale"));
        references.chain(input.generators.iter().map(|g| (g.name.as_str(), g.mode.as_str())))
    }

    fn over_all(&self, input: &ReportInput) -> Option<Table> {
        let (how, all) = (self.how, ("", ""));
        let mut body = Vec::new();
        for (arm, mode) in self.arms(input) {
            let bound = |side: &str| self.value(arm, all, &format!("{}_ci95_{side}", how.frechet));
            let interval = bound("low").zip(bound("high"));
            let frechet = self.value(arm, all, &how.frechet).map_or(Cell::Empty, |mean| Cell::Estimate {
                mean,
                sd: None,
                interval,
                undefined: 0,
            });
            let [n_real, n] = self.counts(arm, all);
            if n == Cell::Empty {
                continue;
            }
            let mut row = vec![arm.into(), mode.into(), frechet];
            row.push(self.cell(arm, all, &format!("{}_extrapolated", how.frechet)));
            row.push(self.kid(arm, all));
            row.extend(
                ["precision", "recall", "density", "coverage"].map(|metric| self.cell(arm, all, metric)),
            );
            row.extend([n_real, n]);
            body.push(row);
        }
        let largest = body.iter().filter_map(|row| match row.last() {
            Some(Cell::Count(n)) => Some(*n),
            _ => None,
        });
        let largest = largest.max()?;
        let (frechet, extractor) = (self.frechet_words(), &how.extractor);
        let mut notes = vec![format!(
            "Features of {extractor}{}. {frechet} and KID: 0 is the same, the smaller the better. Precision, recall, density and coverage by {} neighbours: 1 is the same.",
            if how.frechet == "fid" { "" } else { ", which are not FID's: compare with no FID of a paper" },
            how.neighbours
        )];
        notes.push(
            "The rows for the scale compare real images with those of the other half of the training patients, held-out real images, training images under a Gaussian (standard deviation a 64th of the side) and uniform noise.".into(),
        );
        if how.replicates > 1 {
            notes.push(format!(
                "Interval: ± 1.96 standard errors by {} random halves of the patients (a synthetic image is a patient of its own), seed {}.",
                how.replicates, how.seed
            ));
        }
        notes.push(format!(
            "Extrapolated: at images without end (Chong and Forsyth 2020). KID ± standard error over {} subsets, seed {}.",
            how.kid_subsets, how.seed
        ));
        if largest < FEW {
            notes.push(format!(
                "n is below {FEW}: {frechet} is biased upwards, the more the smaller n. Compare it at equal n alone; KID is not biased."
            ));
        }
        let mut table = Table {
            name: "generators_distances".to_owned(),
            title: format!("Generators: distance from real images ({extractor})"),
            caption: format!(
                "All classes together. A good generator is near to “{}”, and far from noise.",
                how.references.first().map(String::as_str).unwrap_or("real")
            ),
            columns: [
                "Images",
                "Mode",
                frechet,
                "Extrapolated",
                "KID × 1000",
                "Precision",
                "Recall",
                "Density",
                "Coverage",
                "n real",
                "n",
            ]
            .map(str::to_owned)
            .to_vec(),
            rows: body,
            notes,
            decimals: 3,
        };
        super::tables::without_empty_columns(&mut table);
        Some(table)
    }

    fn by_class(&self, input: &ReportInput) -> Option<Table> {
        let how = self.how;
        let mut body = Vec::new();
        for (arm, _) in self.arms(input) {
            for view in ["2CH", "4CH"] {
                for phase in ["ED", "ES"] {
                    let class = (view, phase);
                    let [n_real, n] = self.counts(arm, class);
                    if n == Cell::Empty {
                        continue;
                    }
                    let mut row = vec![arm.into(), format!("{view} {phase}").into()];
                    row.extend([self.cell(arm, class, &how.frechet), self.kid(arm, class)]);
                    row.extend(
                        ["precision", "recall", "density", "coverage"]
                            .map(|metric| self.cell(arm, class, metric)),
                    );
                    row.extend([n_real, n]);
                    body.push(row);
                }
            }
        }
        body.first()?;
        let mut table = Table {
            name: "generators_distances_classes".to_owned(),
            title: format!("Generators: distance from real images of the class ({})", how.extractor),
            caption: "As above, of each view and phase: fewer images, so a larger bias by n.".to_owned(),
            columns: [
                "Images",
                "Class",
                self.frechet_words(),
                "KID × 1000",
                "Precision",
                "Recall",
                "Density",
                "Coverage",
                "n real",
                "n",
            ]
            .map(str::to_owned)
            .to_vec(),
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
                let of = |what: &str| self.of(arm, structure, ("", ""), &format!("memorisation_{what}"));
                let Some(closer) = of("closer") else { continue };
                let cell = |what: &str| of(what).map_or(Cell::Empty, |r| plain(r.value));
                let count = |what: &str| of(what).map_or(Cell::Empty, |r| Cell::Count(r.value as u64));
                body.push(vec![
                    arm.into(),
                    mode.into(),
                    structure.into(),
                    plain(closer.value),
                    of("p").map_or(Cell::Empty, |r| p_value(r.value)),
                    cell("share_near"),
                    count("copies"),
                    cell("median"),
                    cell("median_held_out"),
                    closer.n.map_or(Cell::Empty, Cell::Count),
                    count("n_held_out"),
                ]);
            }
        }
        body.first()?;
        Some(Table {
            name: "generators_memorisation".to_owned(),
            title: "Generators: are there copies of training images".to_owned(),
            caption: "Each image's distance to the nearest training image, against the same of held-out real images, which cannot be copies.".to_owned(),
            columns: [
                "Images",
                "Mode",
                "By",
                "Nearer than held-out",
                "p",
                "Share near",
                "Copies",
                "Median distance",
                "Held-out's",
                "n",
                "n held out",
            ]
            .map(str::to_owned)
            .to_vec(),
            rows: body,
            notes: vec![
                "Nearer than held-out: the share of pairs of an image and a held-out one in which the former is nearer to the training images. 0.5: no sign of copying; 1: every image is nearer than every held-out one. Smooth images are near to everything by their pixels: “blurred real” shows how much that does, and holds true copies.".into(),
                "p: one-sided Mann-Whitney test; it takes images for independent, which those of one patient are not, so the true p is larger. Share near: images nearer than 95 in 100 held-out ones are; 0.05 is expected. Copies: a distance of exactly 0.".into(),
            ],
            decimals: 3,
        })
    }
}

fn plain(value: f64) -> Cell {
    Cell::Estimate { mean: value, sd: None, interval: None, undefined: 0 }
}

/// A p that rounds to 0 is not 0.
fn p_value(p: f64) -> Cell {
    if p < 1e-3 { "< 0.001".into() } else { number(p, 3).into() }
}
