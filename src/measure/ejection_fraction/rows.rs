//! Rows of results: one value per patient of the test set.

use std::collections::{BTreeMap, HashSet};

use super::{LabelMask, NoFraction, Outcome, PatientDiscs, Volumes, discs};
use crate::{error::Result, manifest::Row, results::Measurement, vocabulary::Metric};

/// The discs of one image by its reference and by its predicted mask.
#[derive(Debug, Clone)]
pub struct ImageDiscs {
    reference: Outcome<super::Discs>,
    predicted: Outcome<super::Discs>,
}

impl ImageDiscs {
    /// # Errors
    /// A mask is not made of whole rows.
    pub fn new(
        reference: &[u8],
        predicted: &[u8],
        width: usize,
        spacing: Option<(f64, f64)>,
    ) -> Result<Self> {
        let of = |classes| discs(&LabelMask { classes, width, spacing: spacing.unwrap_or((1.0, 1.0)) });
        Ok(Self { reference: of(reference)?, predicted: of(predicted)? })
    }
}

/// The pixel size of each image in mm; None for all images of a patient of whom one lacks it: a volume needs one unit.
pub fn known_spacings(rows: &[Row]) -> Vec<Option<(f64, f64)>> {
    let unknown: HashSet<&str> =
        rows.iter().filter(|row| row.spacing().is_none()).map(|row| row.patient.as_str()).collect();
    rows.iter().map(|row| row.spacing().filter(|_| !unknown.contains(row.patient.as_str()))).collect()
}

/// The recorded ejection fraction of a patient's images, in percent. None where there is none, or two differ.
pub fn recorded<'a>(rows: impl Iterator<Item = &'a Row>) -> Option<f64> {
    let mut values: Vec<f64> = rows.filter_map(|row| row.ef).collect();
    values.dedup();
    if let [value] = values[..] { Some(value) } else { None }
}

struct Patient<'a> {
    rows: Vec<&'a Row>,
    reference: PatientDiscs,
    predicted: PatientDiscs,
    is_in_mm: bool,
}

/// A patient's rows have neither view nor phase. An undefined fraction is NaN; `n` counts the pairs of a view and a phase
/// with exactly one image, so that below 4 images are what is missing.
pub fn measurements(rows: &[Row], images: &[ImageDiscs]) -> Vec<Measurement> {
    let mut patients: BTreeMap<&str, Patient> = BTreeMap::new();
    for ((row, image), spacing) in rows.iter().zip(images).zip(known_spacings(rows)) {
        let patient = patients.entry(&row.patient).or_insert_with(|| Patient {
            rows: Vec::new(),
            reference: PatientDiscs::default(),
            predicted: PatientDiscs::default(),
            is_in_mm: spacing.is_some(),
        });
        patient.rows.push(row);
        patient.reference.add(row.view, row.phase, image.reference.clone());
        patient.predicted.add(row.view, row.phase, image.predicted.clone());
    }
    patients.values().flat_map(patient_rows).collect()
}

fn patient_rows(patient: &Patient) -> Vec<Measurement> {
    let (predicted, reference) = (patient.predicted.volumes(), patient.reference.volumes());
    let fraction = |of: &std::result::Result<Volumes, NoFraction>| {
        of.as_ref().map_or(f64::NAN, |volumes| volumes.ejection_fraction())
    };
    let mut values = vec![
        (Metric::Ef, fraction(&predicted)),
        (Metric::EfReference, fraction(&reference)),
        (Metric::EfError, (fraction(&predicted) - fraction(&reference)).abs()),
    ];
    values.extend(recorded(patient.rows.iter().copied()).map(|ef| (Metric::EfRecorded, ef)));
    if patient.is_in_mm {
        let volumes = [
            (&predicted, [Metric::Edv, Metric::Esv]),
            (&reference, [Metric::EdvReference, Metric::EsvReference]),
        ];
        for (of, metrics) in volumes {
            let (diastolic, systolic) =
                of.as_ref().map_or((f64::NAN, f64::NAN), |volumes| volumes.millilitres());
            values.extend(metrics.into_iter().zip([diastolic, systolic]));
        }
    }
    let first = patient.rows.first();
    values
        .into_iter()
        .map(|(metric, value)| Measurement {
            split: first.and_then(|row| row.split).map(|split| split.to_string()).unwrap_or_default(),
            patient: first.map(|row| row.patient.clone()).unwrap_or_default(),
            metric: metric.into(),
            value,
            unit: metric.unit().to_owned(),
            n: Some(patient.reference.masks() as u64),
            ..Measurement::default()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::{Phase, View};

    /// A ventricle of a width above an atrium, in a picture of 24 x 30.
    fn mask(wide: usize, with_atrium: bool) -> Vec<u8> {
        let mut classes = vec![0; 24 * 30];
        for y in 2..26 {
            classes[y * 24 + 12 - wide / 2..y * 24 + 12 + wide / 2].fill(if y < 22 {
                1
            } else {
                3 * u8::from(with_atrium)
            });
        }
        classes
    }

    fn rows(patient: &str, spacing: Option<f64>) -> Vec<Row> {
        [
            (View::TwoChamber, Phase::Ed),
            (View::TwoChamber, Phase::Es),
            (View::FourChamber, Phase::Ed),
            (View::FourChamber, Phase::Es),
        ]
        .map(|(view, phase)| Row {
            ef: Some(55.0),
            spacing_x: spacing,
            spacing_y: spacing,
            ..Row::new(patient, view, phase, format!("{patient}{view}{phase}.png"))
        })
        .to_vec()
    }

    fn value(found: &[Measurement], patient: &str, metric: Metric) -> Option<f64> {
        let mut of = found.iter().filter(|row| row.patient == patient && row.metric == metric);
        of.next().map(|row| row.value)
    }

    #[test]
    fn a_patient_has_one_row_per_figure_and_millilitres_only_in_mm() {
        let mut all = rows("p1", Some(0.5));
        all.extend(rows("p2", None));
        all.extend(rows("p3", Some(0.5)).into_iter().take(3));
        all[4].spacing_x = Some(0.5);
        all[4].spacing_y = Some(0.5);
        let spacings = known_spacings(&all);
        assert!(
            spacings[..4].iter().all(|s| *s == Some((0.5, 0.5)))
                && spacings[4..8].iter().all(Option::is_none)
        );
        let images: Vec<ImageDiscs> = all
            .iter()
            .zip(&spacings)
            .map(|(row, spacing)| {
                let wide = if row.phase == Phase::Ed { 12 } else { 8 };
                ImageDiscs::new(&mask(wide, true), &mask(wide + 2, row.patient != "p2"), 24, *spacing)
                    .unwrap()
            })
            .collect();
        let found = measurements(&all, &images);
        let ef = value(&found, "p1", Metric::Ef).unwrap();
        let reference = value(&found, "p1", Metric::EfReference).unwrap();
        assert!(ef > 20.0 && ef < reference && reference < 70.0, "{ef} {reference}");
        assert_eq!(value(&found, "p1", Metric::EfError), Some(reference - ef));
        assert_eq!(value(&found, "p1", Metric::EfRecorded), Some(55.0));
        let (edv, esv) =
            (value(&found, "p1", Metric::Edv).unwrap(), value(&found, "p1", Metric::Esv).unwrap());
        assert!((100.0 * (edv - esv) / edv - ef).abs() < 1e-9, "{edv} {esv}");
        // The prediction lacks the atrium; the reference is there all the same.
        assert!(value(&found, "p2", Metric::Ef).unwrap().is_nan());
        assert!(value(&found, "p2", Metric::EfError).unwrap().is_nan());
        assert!((value(&found, "p2", Metric::EfReference).unwrap() - reference).abs() < 1e-9);
        assert_eq!(value(&found, "p2", Metric::Edv), None);
        // Three images.
        assert!(value(&found, "p3", Metric::EfReference).unwrap().is_nan());
        assert!(found.iter().filter(|row| row.patient == "p3").all(|row| row.n == Some(3)));
        assert!(found.iter().all(|row| row.view.is_empty() && row.phase.is_empty()));
    }

    #[test]
    fn two_recorded_fractions_of_a_patient_are_none() {
        let mut all = rows("p1", None);
        assert_eq!(recorded(all.iter()), Some(55.0));
        all[2].ef = Some(54.0);
        assert_eq!(recorded(all.iter()), None);
        all.iter_mut().for_each(|row| row.ef = None);
        assert_eq!(recorded(all.iter()), None);
    }
}
