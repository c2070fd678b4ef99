//! `synecho measure ef`: the ejection fraction of patients from folders of masks.

use std::{collections::BTreeMap, fmt, path::Path};

use serde::Serialize;

use super::{LabelMask, NoFraction, Outcome, PatientDiscs, Volumes, discs, known_spacings, rows::recorded};
use crate::{
    aggregate::agreement::{AgreementEstimate, AgreementFigure, AgreementSummary, PatientPair},
    error::{Error, Result},
    manifest::{self, Manifest, Row},
    measure::folder::{Masks, from_manifest, from_names, stem},
    picture::Picture,
    vocabulary::Split,
};

/// A figure over patients with its 95 % bootstrap interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FigureOverPatients {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

impl From<AgreementEstimate> for FigureOverPatients {
    fn from(estimate: AgreementEstimate) -> Self {
        let (low, high) = estimate.interval.unwrap_or((f64::NAN, f64::NAN));
        Self { value: estimate.value, low, high }
    }
}

/// Where an ejection fraction comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FractionSource {
    Predicted,
    Reference,
    /// The column `ef` of the manifest.
    Recorded,
}

impl FractionSource {
    fn words(self) -> &'static str {
        match self {
            Self::Predicted => "predicted masks",
            Self::Reference => "reference masks",
            Self::Recorded => "recorded EF",
        }
    }
}

/// How well one source agrees with another, in percentage points but for the correlation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourceAgreement {
    pub of: FractionSource,
    pub against: FractionSource,
    /// Patients with both values.
    pub patients: u64,
    pub correlation: FigureOverPatients,
    /// The mean of `of` minus `against`.
    pub bias: FigureOverPatients,
    pub lower_limit: FigureOverPatients,
    pub upper_limit: FigureOverPatients,
    pub mean_absolute_error: FigureOverPatients,
}

/// Patients without an ejection fraction, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UndefinedFractions {
    pub by: FractionSource,
    pub reason: NoFraction,
    pub patients: Vec<String>,
}

/// What is known of one patient. NaN (`null` in JSON) where a value does not exist.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PatientFractions {
    pub patient: String,
    pub ef_reference: f64,
    /// NaN too where no predicted masks were given.
    pub ef: f64,
    pub ef_recorded: f64,
    /// In ml; NaN where the pixel size is not known.
    pub edv_reference: f64,
    pub esv_reference: f64,
    pub edv: f64,
    pub esv: f64,
}

/// What the command prints, as JSON or (through `Display`) as a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FractionReport {
    /// `ef_error`: the figure in `value`.
    pub metric: &'static str,
    /// The mean absolute error of the first agreement in percentage points; NaN where there is none.
    pub value: f64,
    /// Patients behind `value`.
    pub n: u64,
    /// All patients.
    pub patients: usize,
    pub agreements: Vec<SourceAgreement>,
    pub undefined: Vec<UndefinedFractions>,
    /// Patients without a recorded value, or with several that differ.
    pub not_recorded: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cases: Option<Vec<PatientFractions>>,
}

/// Which patients are measured, and what of them is listed.
#[derive(Debug, Clone, Copy, Default)]
pub struct FractionOptions {
    /// Only the patients of this split.
    pub split: Option<Split>,
    /// The report lists every patient.
    pub list_cases: bool,
}

/// A patient's rows and discs.
#[derive(Default)]
struct PatientMasks<'a> {
    rows: Vec<&'a Row>,
    reference: PatientDiscs,
    predicted: PatientDiscs,
    is_in_mm: bool,
}

/// Measures the masks of a manifest folder, and predicted masks of the same images where a folder of them is given: with a
/// manifest, or named as the mask or image files of `reference` are.
///
/// # Errors
/// No row has a mask; no file of `predicted` belongs to a row; a file is not a mask, or has another size than its
/// reference.
pub fn measure(
    reference: &Path,
    predicted: Option<&Path>,
    options: FractionOptions,
) -> Result<FractionReport> {
    let table = Manifest::read(reference)?;
    let file = reference.join(manifest::FILE);
    let rows: Vec<Row> = table
        .rows
        .iter()
        .filter(|row| row.mask.is_some() && options.split.is_none_or(|split| row.split == Some(split)))
        .cloned()
        .collect();
    if rows.is_empty() {
        let of = options.split.map_or(String::new(), |split| format!(" of split {split}"));
        return Err(Error::input(format!("no row{of} has a mask"))
            .at(&file)
            .help("the column `mask` names the mask files"));
    }
    let predictions = predicted.map(|folder| PredictedMasks::read(folder, &rows)).transpose()?;
    let mut patients: BTreeMap<&str, PatientMasks> = BTreeMap::new();
    for (row, spacing) in rows.iter().zip(known_spacings(&rows)) {
        let patient = patients.entry(&row.patient).or_default();
        patient.rows.push(row);
        patient.is_in_mm = spacing.is_some();
        let Some(path) = table.mask_path(row) else { continue };
        let mask = Picture::read_mask(&path)?;
        patient.reference.add(row.view, row.phase, cut(&mask, spacing)?);
        if let Some(found) = predictions.as_ref().and_then(|masks| masks.of(row)) {
            let prediction = found.read()?;
            if (prediction.width, prediction.height) != (mask.width, mask.height) {
                let (width, height) = (prediction.width, prediction.height);
                let other = format!("{} has {} x {}", path.display(), mask.width, mask.height);
                return Err(Error::input(format!("{width} x {height} pixels, but {other}"))
                    .at(&found.file)
                    .help("predict at the reference's size, or resize the prediction by nearest neighbour"));
            }
            patient.predicted.add(row.view, row.phase, cut(&prediction, spacing)?);
        }
    }
    Ok(report(&patients, predictions.is_some(), options))
}

fn cut(mask: &Picture, spacing: Option<(f64, f64)>) -> Result<Outcome<super::Discs>> {
    discs(&LabelMask { classes: &mask.pixels, width: mask.width, spacing: spacing.unwrap_or((1.0, 1.0)) })
}

/// Predicted masks by the names that they may have.
struct PredictedMasks {
    masks: Masks,
    has_manifest: bool,
}

impl PredictedMasks {
    fn read(folder: &Path, rows: &[Row]) -> Result<Self> {
        if !folder.is_dir() {
            return Err(Error::input("this folder does not exist")
                .at(folder)
                .help("name a folder of predicted masks, or leave it out to measure the reference masks"));
        }
        let has_manifest = folder.join(manifest::FILE).is_file();
        let masks = if has_manifest { from_manifest(folder)? } else { from_names(folder)? };
        let found = Self { masks, has_manifest };
        if rows.iter().any(|row| found.of(row).is_some()) {
            return Ok(found);
        }
        Err(Error::input("no mask here belongs to a row of the reference's manifest").at(folder).help(
            "name the masks as the reference's masks or images, or PATIENT_VIEW_PHASE; or add a manifest.csv",
        ))
    }

    fn of(&self, row: &Row) -> Option<&crate::measure::folder::MaskFile> {
        let own = self.masks.get(&row.name());
        let of_file = |path: &Path| self.masks.get(&stem(path)?.0);
        match self.has_manifest {
            true => own,
            false => own.or_else(|| of_file(row.mask.as_deref()?)).or_else(|| of_file(&row.image)),
        }
    }
}

fn report(
    patients: &BTreeMap<&str, PatientMasks>,
    is_predicted: bool,
    options: FractionOptions,
) -> FractionReport {
    let fraction = |volumes: &Outcome<Volumes>| volumes.map_or(f64::NAN, Volumes::ejection_fraction);
    let mut cases = Vec::new();
    let mut undefined: BTreeMap<(bool, NoFraction), Vec<String>> = BTreeMap::new();
    for (name, patient) in patients {
        let (reference, predicted) = (patient.reference.volumes(), patient.predicted.volumes());
        let in_ml = |volumes: &Outcome<Volumes>| match volumes {
            Ok(volumes) if patient.is_in_mm => volumes.millilitres(),
            _ => (f64::NAN, f64::NAN),
        };
        let ((edv_reference, esv_reference), (edv, esv)) = (in_ml(&reference), in_ml(&predicted));
        for (by_prediction, of) in [(false, reference), (true, predicted)] {
            if let Err(reason) = of
                && (is_predicted || !by_prediction)
            {
                undefined.entry((by_prediction, reason)).or_default().push((*name).to_owned());
            }
        }
        cases.push(PatientFractions {
            patient: (*name).to_owned(),
            ef_reference: fraction(&reference),
            ef: fraction(&predicted),
            ef_recorded: recorded(patient.rows.iter().copied()).unwrap_or(f64::NAN),
            edv_reference,
            esv_reference,
            edv,
            esv,
        });
    }
    use FractionSource::{Predicted, Recorded, Reference};
    let agreements: Vec<SourceAgreement> =
        [(Predicted, Reference), (Predicted, Recorded), (Reference, Recorded)]
            .into_iter()
            .filter_map(|(of, against)| SourceAgreement::between(&cases, of, against))
            .collect();
    let first = agreements.first();
    FractionReport {
        metric: "ef_error",
        value: first.map_or(f64::NAN, |a| a.mean_absolute_error.value),
        n: first.map_or(0, |a| a.patients),
        patients: cases.len(),
        undefined: undefined
            .into_iter()
            .map(|((by_prediction, reason), patients)| {
                let by = if by_prediction { Predicted } else { Reference };
                UndefinedFractions { by, reason, patients }
            })
            .collect(),
        not_recorded: cases.iter().filter(|case| case.ef_recorded.is_nan()).count(),
        agreements,
        cases: options.list_cases.then_some(cases),
    }
}

impl PatientFractions {
    fn by(&self, source: FractionSource) -> f64 {
        match source {
            FractionSource::Predicted => self.ef,
            FractionSource::Reference => self.ef_reference,
            FractionSource::Recorded => self.ef_recorded,
        }
    }
}

impl SourceAgreement {
    /// None where no patient has both values.
    fn between(cases: &[PatientFractions], of: FractionSource, against: FractionSource) -> Option<Self> {
        let pairs: Vec<PatientPair> = cases
            .iter()
            .map(|case| PatientPair {
                patient: &case.patient,
                seed: None,
                value: case.by(of),
                reference: case.by(against),
            })
            .collect();
        let summary = AgreementSummary::of(&pairs)?;
        let figure = |figure| summary.get(figure).into();
        Some(Self {
            of,
            against,
            patients: summary.patients,
            correlation: figure(AgreementFigure::Correlation),
            bias: figure(AgreementFigure::Bias),
            lower_limit: figure(AgreementFigure::LowerLimit),
            upper_limit: figure(AgreementFigure::UpperLimit),
            mean_absolute_error: figure(AgreementFigure::MeanAbsoluteError),
        })
    }
}

/// How many names a line lists.
const NAMED: usize = 5;

impl fmt::Display for FractionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "ejection fraction of {} patients", self.patients)?;
        for agreement in &self.agreements {
            let cell = |figure: FigureOverPatients, digits: usize| {
                let number = |value: f64| match value.is_nan() {
                    true => "-".to_owned(),
                    false => format!("{value:.digits$}"),
                };
                format!("{:>7} [{}, {}]", number(figure.value), number(figure.low), number(figure.high))
            };
            writeln!(f, "\n{} against {}", agreement.of.words(), agreement.against.words())?;
            writeln!(f, "  patients             {:>7}", agreement.patients)?;
            writeln!(f, "  r                    {}", cell(agreement.correlation, 3))?;
            writeln!(f, "  bias                 {}", cell(agreement.bias, 2))?;
            writeln!(f, "  lower limit          {}", cell(agreement.lower_limit, 2))?;
            writeln!(f, "  upper limit          {}", cell(agreement.upper_limit, 2))?;
            writeln!(f, "  mean absolute error  {}", cell(agreement.mean_absolute_error, 2))?;
        }
        for undefined in &self.undefined {
            let names = &undefined.patients;
            let shown = names.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = names.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            writeln!(
                f,
                "\nno EF by the {} for {} of {} patients: {} ({shown}{more})",
                undefined.by.words(),
                names.len(),
                self.patients,
                undefined.reason.words(),
            )?;
        }
        match self.not_recorded {
            0 => {}
            n => writeln!(
                f,
                "\nno recorded EF for {n} of {} patients: the column `ef` is empty, or its values differ",
                self.patients
            )?,
        }
        match self.agreements.is_empty() {
            true => write!(f, "\nno patient has two values to compare"),
            false => write!(
                f,
                "\nin percentage points, but r; brackets: 95 % bootstrap interval over patients; limits of agreement: bias ± 1.96 SD"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::{Phase, View};

    /// A ventricle of a width above an atrium, in a picture of 24 x 30.
    fn mask(wide: usize) -> Picture {
        let mut mask = Picture::new(24, 30);
        for y in 2..26 {
            mask.pixels[y * 24 + 12 - wide / 2..y * 24 + 12 + wide / 2].fill(if y < 22 { 1 } else { 3 });
        }
        mask
    }

    /// Patients whose ventricles shrink by different amounts, in a folder with a manifest.
    fn folder(name: &Path, patients: usize, widen: usize) {
        std::fs::create_dir_all(name.join("masks")).unwrap();
        let mut rows = Vec::new();
        for p in 0..patients {
            for view in View::ALL {
                for phase in Phase::ALL {
                    let mut row =
                        Row::new(format!("p{p}"), view, phase, format!("images/{p}{view}{phase}.png"));
                    let file = format!("masks/m{p}_{view}_{phase}.png");
                    let wide = if phase == Phase::Ed { 12 } else { 6 + 2 * (p % 3) };
                    mask(wide + widen).write(&name.join(&file)).unwrap();
                    row.mask = Some(file.into());
                    row.ef = Some(60.0 - 10.0 * p as f64);
                    row.spacing_x = Some(0.5);
                    row.spacing_y = Some(0.5);
                    rows.push(row);
                }
            }
        }
        Manifest { root: name.to_owned(), rows }.write().unwrap();
    }

    #[test]
    fn masks_with_and_without_a_manifest_give_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let (reference, predicted) = (dir.path().join("r"), dir.path().join("p"));
        folder(&reference, 4, 0);
        folder(&predicted, 4, 2);
        let options = FractionOptions { list_cases: true, ..FractionOptions::default() };
        let found = measure(&reference, Some(&predicted), options).unwrap();
        let by_name = measure(&reference, Some(&predicted.join("masks")), options).unwrap();
        assert_eq!(found, by_name);
        let words: Vec<_> = found.agreements.iter().map(|a| (a.of.words(), a.against.words())).collect();
        assert_eq!(
            words,
            [
                ("predicted masks", "reference masks"),
                ("predicted masks", "recorded EF"),
                ("reference masks", "recorded EF")
            ]
        );
        assert_eq!((found.n, found.patients, found.undefined.len()), (4, 4, 0));
        let case = &found.cases.as_ref().unwrap()[0];
        // The volume goes with the square of the width, but for the length of the axis.
        assert!((case.ef_reference - 75.0).abs() < 3.0, "{case:?}");
        assert!(case.ef < case.ef_reference && case.edv > case.edv_reference, "{case:?}");
        assert!((found.agreements[0].bias.value + found.value).abs() < 1e-9, "every EF is too low");
    }

    #[test]
    fn patients_without_four_masks_are_counted_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let reference = dir.path().join("r");
        folder(&reference, 3, 0);
        let predicted = dir.path().join("p");
        std::fs::create_dir(&predicted).unwrap();
        for (i, name) in ["m0_2CH_ED", "m0_2CH_ES", "p0_4CH_ED", "p0_4CH_ES", "m1_2CH_ED"].iter().enumerate()
        {
            mask(6 + 2 * (i % 2)).write(&predicted.join(format!("{name}.png"))).unwrap();
        }
        let table = std::fs::read_to_string(reference.join("manifest.csv")).unwrap();
        let rows: Vec<&str> = table.lines().filter(|line| !line.starts_with("p2,4CH,ES")).collect();
        std::fs::write(reference.join("manifest.csv"), rows.join("\n")).unwrap();
        let found = measure(&reference, Some(&predicted), FractionOptions::default()).unwrap();
        let of = |by| found.undefined.iter().find(|u| u.by == by).unwrap();
        assert_eq!(of(FractionSource::Reference).patients, ["p2"]);
        assert_eq!(of(FractionSource::Predicted).patients, ["p1", "p2"]);
        assert_eq!(of(FractionSource::Predicted).reason, NoFraction::Images);
        assert!(found.to_string().contains("no EF by the reference masks for 1 of 3 patients: not exactly one mask each of 2CH ED, 2CH ES, 4CH ED and 4CH ES (p2)"), "{found}");
        assert_eq!(found.agreements[0].patients, 1);
        assert!(found.cases.is_none());
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (reference, predicted) = (dir.path().join("r"), dir.path().join("p"));
        folder(&reference, 1, 0);
        std::fs::create_dir(&predicted).unwrap();
        mask(6).write(&predicted.join("other.png")).unwrap();
        let options = FractionOptions::default();
        let error = |predicted: &Path, options| {
            measure(&reference, Some(predicted), options).unwrap_err().to_string()
        };
        assert!(error(&predicted, options).contains("no mask here belongs to a row"));
        Picture::new(4, 4).write(&predicted.join("p0_2CH_ED.png")).unwrap();
        let wrong = error(&predicted, options);
        assert!(wrong.contains("p0_2CH_ED.png: 4 x 4 pixels, but ") && wrong.contains("24 x 30"), "{wrong}");
        let test = FractionOptions { split: Some(Split::Test), ..options };
        assert!(error(&predicted, test).contains("no row of split test has a mask"));
    }
}
