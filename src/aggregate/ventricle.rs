//! The left ventricle of patients by predicted and by reference masks: ejection fraction and volumes.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    TrainedNetwork,
    agreement::{AgreementFigure, AgreementSummary, LIMITS, PatientPair},
    arms, reported_split,
    table::{Table, TableCell},
    tables::{arm_labels, plural, trained_on},
};
use crate::{
    results::Measurement,
    vocabulary::{Metric, Task, VIEW_PHASES},
};

/// A figure of the left ventricle that is measured on predicted and on reference masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VentricleFigure {
    pub predicted: Metric,
    pub reference: Metric,
    /// What the data set records of the patient.
    pub recorded: Option<Metric>,
    /// What a difference is in.
    pub unit: &'static str,
}

impl VentricleFigure {
    pub const EF: Self = Self {
        predicted: Metric::Ef,
        reference: Metric::EfReference,
        recorded: Some(Metric::EfRecorded),
        unit: "percentage points",
    };
    const EDV: Self =
        Self { predicted: Metric::Edv, reference: Metric::EdvReference, recorded: None, unit: "ml" };
    const ESV: Self =
        Self { predicted: Metric::Esv, reference: Metric::EsvReference, recorded: None, unit: "ml" };

    const ALL: [Self; 3] = [Self::EF, Self::EDV, Self::ESV];

    /// `segmentation_ef`, as its table is called.
    pub fn file(self) -> String {
        format!("{}_{}", Task::Segmentation, self.predicted)
    }

    /// Whether its table is folded away.
    pub fn is_minor(table: &str) -> bool {
        [Self::EDV, Self::ESV].iter().any(|figure| figure.file() == table)
    }
}

/// The values of patients on the reported split.
pub struct VentricleRows<'a> {
    rows: Vec<&'a Measurement>,
    pub split: String,
}

impl<'a> VentricleRows<'a> {
    /// None without a row of the reported split that has such a figure.
    pub fn of(rows: &'a [Measurement]) -> Option<Self> {
        let split = reported_split(rows, Task::Segmentation)?;
        let is_figure = |row: &&Measurement| {
            let of_patient = Metric::ALL.into_iter().filter(|metric| metric.is_of_patients());
            row.task == Task::Segmentation
                && row.split == split
                && !row.patient.is_empty()
                && row.seed.is_some()
                && of_patient.into_iter().any(|metric| row.metric == metric)
        };
        let rows: Vec<&Measurement> = rows.iter().filter(is_figure).collect();
        (!rows.is_empty()).then_some(Self { rows, split })
    }

    /// The patients' values of two metrics with each seed of an arm and model: those that have a row of the first.
    fn pairs(&self, (arm, model): (&str, &str), value: Metric, reference: Metric) -> Vec<PatientPair<'a>> {
        let of_arm = || self.rows.iter().filter(|row| row.arm == arm && row.model == model);
        let references: BTreeMap<(Option<u64>, &str), f64> = of_arm()
            .filter(|row| row.metric == reference)
            .map(|row| ((row.seed, row.patient.as_str()), row.value))
            .collect();
        let mut pairs: Vec<PatientPair> = of_arm()
            .filter(|row| row.metric == value)
            .map(|row| PatientPair {
                patient: &row.patient,
                seed: row.seed,
                value: row.value,
                reference: references.get(&(row.seed, row.patient.as_str())).copied().unwrap_or(f64::NAN),
            })
            .collect();
        pairs.sort_by_key(|pair| (pair.seed, pair.patient));
        pairs
    }

    /// Predicted against reference masks.
    pub fn predicted(&self, figure: VentricleFigure, arm: &str, model: &str) -> Vec<PatientPair<'a>> {
        self.pairs((arm, model), figure.predicted, figure.reference)
    }

    /// Reference masks against what is recorded, once per patient: the error that perfect masks have. Empty where nothing is
    /// recorded.
    pub fn floor(&self, figure: VentricleFigure) -> Vec<PatientPair<'a>> {
        let Some(recorded) = figure.recorded else { return Vec::new() };
        let mut patients: BTreeMap<&str, PatientPair> = BTreeMap::new();
        let arms: BTreeSet<(&str, &str)> =
            self.rows.iter().map(|row| (row.arm.as_str(), row.model.as_str())).collect();
        for arm in arms {
            for pair in self.pairs(arm, figure.reference, recorded) {
                patients.entry(pair.patient).or_insert(PatientPair { seed: None, ..pair });
            }
        }
        patients.into_values().filter(|pair| !pair.reference.is_nan()).collect()
    }

    /// Why values do not exist, in sentences.
    fn undefined_notes(&self) -> Vec<String> {
        let of = |metric: Metric| self.rows.iter().filter(move |row| row.metric == metric);
        let patients: BTreeSet<&str> = of(Metric::EfReference).map(|row| row.patient.as_str()).collect();
        let (mut few, mut masks) = (BTreeSet::new(), BTreeSet::new());
        for row in of(Metric::EfReference).filter(|row| row.value.is_nan()) {
            let lacks_images = row.n.is_some_and(|n| n < VIEW_PHASES as u64);
            if lacks_images { &mut few } else { &mut masks }.insert(row.patient.as_str());
        }
        let named = |names: &BTreeSet<&str>| names.iter().copied().collect::<Vec<_>>().join(", ");
        let counted = |names: &BTreeSet<&str>| {
            let verb = if names.len() == 1 { "has" } else { "have" };
            format!("{} of {} {verb}", names.len(), plural(patients.len() as u64, "patient", "patients"))
        };
        let mut notes = Vec::new();
        if !few.is_empty() {
            notes.push(format!(
                "{} no EF, for lack of exactly one image each of 2CH ED, 2CH ES, 4CH ED and 4CH ES: {}.",
                counted(&few),
                named(&few)
            ));
        }
        if !masks.is_empty() {
            notes.push(format!(
                "{} no EF because a reference mask lacks the left ventricle or the left atrium: {}.",
                counted(&masks),
                named(&masks)
            ));
        }
        let without: BTreeSet<&str> = few.union(&masks).copied().collect();
        let predicted = of(Metric::Ef).filter(|row| row.value.is_nan());
        let failed = predicted.filter(|row| !without.contains(row.patient.as_str())).count() as u64;
        if failed > 0 {
            notes.push(format!(
                "{} (arm, seed and patient) do not exist because a predicted mask lacks the left ventricle or the left atrium. They are left out and counted under Undefined.",
                plural(failed, "predicted value", "predicted values")
            ));
        }
        if notes.is_empty() {
            notes.push(
                "Every patient has an EF by the reference masks and by every predicted mask.".to_owned(),
            );
        }
        notes
    }
}

/// One table each for the ejection fraction and, where pixel sizes are known, the volumes: one row per arm, and the
/// reference masks against what is recorded.
pub fn ventricle_tables(rows: &[Measurement], models: &[TrainedNetwork]) -> Vec<Table> {
    let Some(values) = VentricleRows::of(rows) else { return Vec::new() };
    let arms = arms(rows, Task::Segmentation);
    VentricleFigure::ALL.into_iter().filter_map(|figure| table(&values, figure, &arms, models)).collect()
}

fn table(
    values: &VentricleRows,
    figure: VentricleFigure,
    arms: &[(String, String)],
    models: &[TrainedNetwork],
) -> Option<Table> {
    let mut body = Vec::new();
    let mut seeds = 0;
    let mut add = |name: String, trained: TableCell, pairs: &[PatientPair]| {
        if pairs.is_empty() {
            return;
        }
        let summary = AgreementSummary::of(pairs);
        let mut cells = vec![name.into(), trained];
        cells.extend(AgreementFigure::ALL.into_iter().map(|figure| {
            let estimate = summary.as_ref().map(|summary| summary.get(figure));
            estimate.map_or(TableCell::Empty, |estimate| TableCell::Estimate {
                mean: estimate.value,
                sd: estimate.sd,
                interval: estimate.interval,
                undefined: 0,
            })
        }));
        seeds = summary.as_ref().map_or(seeds, |summary| seeds.max(summary.seeds));
        let undefined = pairs.iter().filter(|pair| !pair.is_defined()).count() as u64;
        cells.extend([
            TableCell::Count(summary.map_or(0, |summary| summary.patients)),
            TableCell::Count(undefined),
        ]);
        body.push(cells);
    };
    let floor = values.floor(figure);
    add(FLOOR.to_owned(), TableCell::Empty, &floor);
    let has_floor = !floor.is_empty();
    for ((arm, model), label) in arms.iter().zip(arm_labels(arms)) {
        let trained = trained_on(models, Task::Segmentation, arm, model);
        add(label, trained, &values.predicted(figure, arm, model));
    }
    if body.len() == usize::from(has_floor) {
        return None;
    }
    let label = figure.predicted.label();
    let mut notes = vec![format!(
        "{label} of the predicted masks compared with {label} of the reference masks of the same patients. r: Pearson's correlation. Bias: mean of predicted minus reference. Limits of agreement: bias ± {LIMITS} standard deviations of the differences (Bland and Altman). Bias, limits and mean absolute error are in {}.",
        figure.unit
    )];
    if has_floor {
        notes.push(format!("{FLOOR}: the masks that people drew against the value that the data set records. It is the error that remains with perfect masks."));
    }
    notes.push(match seeds {
        0 | 1 => "One seed: the spread over seeds is not known.".to_owned(),
        n => format!("Each figure is the mean over {n} seeds ± sample standard deviation; with each seed it is computed over patients."),
    });
    notes.push("In brackets: 95 % bootstrap interval over patients (2000 resamples).".to_owned());
    notes.push(Metric::Ef.definition().to_owned());
    if figure.predicted != Metric::Ef {
        notes.push("One disc height for all four masks makes the end-systolic volume larger than with a height of its own. The ejection fraction does not depend on the height.".to_owned());
    }
    notes.extend(values.undefined_notes());
    let mut columns = vec!["Arm", "Trained on"];
    columns.extend(AgreementFigure::ALL.map(AgreementFigure::label));
    columns.extend(["Patients", "Undefined"]);
    Some(Table {
        name: figure.file(),
        title: format!("Segmentation: {label}"),
        caption: format!(
            "On the {} patients, in {}; a higher r and a lower mean absolute error are better.",
            values.split, figure.unit
        ),
        columns: columns.into_iter().map(str::to_owned).collect(),
        rows: body,
        notes,
        decimals: 2,
    })
}

/// The row of the reference masks.
pub const FLOOR: &str = "reference masks against recorded";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fake;

    #[test]
    fn a_row_for_the_floor_and_one_per_arm() {
        let input = fake::input(&fake::FakeShape::default());
        let tables = ventricle_tables(&input.measurements, &input.models);
        let names: Vec<&str> = tables.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["segmentation_ef", "segmentation_edv", "segmentation_esv"]);
        let ef = &tables[0];
        assert_eq!(ef.rows.len(), 4);
        assert_eq!(tables[1].rows.len(), 3, "no volume is recorded");
        assert!(ef.rows.iter().all(|row| row.len() == ef.columns.len()));
        let mean = |row: usize, column: &str| {
            let at = ef.columns.iter().position(|c| c == column).unwrap();
            match ef.rows[row][at] {
                TableCell::Estimate { mean, interval: Some((low, high)), .. }
                    if low <= mean && mean <= high =>
                {
                    mean
                }
                ref other => panic!("{other:?}"),
            }
        };
        assert!(mean(0, "r") > mean(1, "r") && mean(1, "r") > 0.5, "the floor is nearer");
        assert!(mean(0, "Mean absolute error") < mean(1, "Mean absolute error"));
        assert!(mean(1, "Lower limit") < mean(1, "Bias") && mean(1, "Bias") < mean(1, "Upper limit"));
        let text = ef.to_markdown();
        // One patient has three images; of another one a predicted mask has no atrium.
        assert!(
            text.contains("1 of 40 patients has no EF, for lack of exactly one image each of 2CH ED"),
            "{text}"
        );
        assert!(
            text.contains(": patient0007.") && text.contains("1 predicted value (arm, seed and patient)"),
            "{text}"
        );
        let counts = |row: usize| (&ef.rows[row][7], &ef.rows[row][8]);
        assert_eq!(counts(0), (&TableCell::Count(39), &TableCell::Count(1)));
        assert_eq!(counts(1), (&TableCell::Count(39), &TableCell::Count(4)), "three seeds, and one more");
    }

    #[test]
    fn reports_without_such_rows_have_no_such_table() {
        let mut input = fake::input(&fake::FakeShape { seeds: 1, ..Default::default() });
        let one = &ventricle_tables(&input.measurements, &input.models)[0];
        assert!(
            one.notes.iter().any(|note| note.starts_with("One seed")) && !one.to_markdown().contains(" ± 0")
        );
        // Nothing recorded: no floor. No pixel size: no volumes.
        let gone = [Metric::EfRecorded, Metric::Edv, Metric::Esv];
        input.measurements.retain(|row| gone.iter().all(|metric| row.metric != *metric));
        let tables = ventricle_tables(&input.measurements, &input.models);
        assert_eq!((tables.len(), tables[0].rows.len()), (1, 3));
        // Where no network finds a ventricle the table says so.
        let mut none = input.measurements.clone();
        none.iter_mut().filter(|row| row.metric == Metric::Ef).for_each(|row| row.value = f64::NAN);
        let table = &ventricle_tables(&none, &input.models)[0];
        assert_eq!(
            (&table.rows[0][2], &table.rows[0][7], &table.rows[0][8]),
            (&TableCell::Empty, &TableCell::Count(0), &TableCell::Count(40))
        );
        input.measurements.retain(|row| !row.metric.starts_with("e"));
        assert!(ventricle_tables(&input.measurements, &input.models).is_empty());
    }
}
