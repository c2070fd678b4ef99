//! Which images an arm's networks are trained on, and that none of them comes from a patient whom they
//! must not know.

use std::{
    collections::{BTreeSet, HashSet},
    path::Path,
};

use rand::seq::SliceRandom;

use super::StageContext;
use crate::{
    cell::Fraction,
    data,
    error::{Error, Result},
    manifest::{DATA, Manifest, Row, patient_of},
    pipeline::training_patients,
    plan::{Further, Mixture},
    random,
    samples::{MaskReading, Samples, class_of},
    train,
    vocabulary::{Label, Split},
};

/// The greatest number of synthetic (or repeated) images of each class.
pub(super) struct ClassLimit {
    pub per_class: usize,
    pub label: Label,
}

impl ClassLimit {
    fn in_all(&self) -> usize {
        self.per_class * self.label.classes().len()
    }

    /// Keeps the first ones of each class.
    fn apply(&self, order: &mut Vec<usize>, rows: &[Row]) {
        let mut left = vec![self.per_class; self.label.classes().len()];
        order.retain(|&i| {
            let left = &mut left[class_of(&rows[i], self.label)];
            let room = *left > 0;
            *left = left.saturating_sub(1);
            room
        });
    }
}

/// Training and validation images of an arm's network.
pub(super) fn task_data(
    context: &StageContext,
    mixture: &Mixture,
    masks: Option<MaskReading>,
    limit: Option<ClassLimit>,
) -> Result<train::TaskData> {
    let manifest = context.manifest()?;
    let &Mixture { real_fraction: fraction, seed, .. } = mixture;
    let patients = arm_patients(&manifest, (fraction < 1.0).then_some(Fraction { fraction, seed }));
    let real = Samples::read(&manifest, Split::Train, patients.as_deref(), masks)?;
    let train = match (mixture.ratio, mixture.further) {
        (None, _) => real,
        (Some(ratio), Further::DuplicateReal) => {
            let copies = real.copies(&duplicates(&real.rows, ratio, seed, limit)?);
            real.followed_by(&copies)?
        }
        (Some(ratio), further) => {
            let made = Manifest::read(context.artifact("synthetic")?.join(DATA))?;
            check_sources(&made, real.rows.iter(), &manifest)?;
            let made = Samples::read(&made, Split::Train, None, masks)?;
            let synthetic = made.chosen(&chosen(&made.rows, real.len(), ratio, seed, limit)?);
            match further == Further::SyntheticOnly {
                true => synthetic,
                false => real.followed_by(&synthetic)?,
            }
        }
    };
    Ok(train::TaskData { train, val: Samples::read(&manifest, Split::Val, None, masks)? })
}

/// The arm's training patients, where they are not all.
pub(in crate::execute) fn arm_patients(
    manifest: &Manifest,
    patients: Option<Fraction>,
) -> Option<Vec<String>> {
    patients.map(|p| data::split::fraction(manifest, p.fraction, p.seed))
}

/// `ratio` synthetic images for each of `real` real ones, drawn by the seed: of two ratios, the images of the
/// smaller are among those of the greater.
fn chosen(made: &[Row], real: usize, ratio: f64, seed: u64, limit: Option<ClassLimit>) -> Result<Vec<usize>> {
    let count = (real as f64 * ratio).round() as usize;
    let needed = limit.as_ref().map_or(count, |limit| count.min(limit.in_all()));
    if needed > made.len() {
        return Err(Error::input(format!(
            "a ratio of {ratio} asks for {count} synthetic images beside {real} real ones: there are {}",
            made.len()
        ))
        .help("lower the ratio, or raise the generator's per_class_images"));
    }
    some_image(ratio, real)?;
    let mut order: Vec<usize> = (0..made.len()).collect();
    order.shuffle(&mut random::rng(seed, "synthetic images", &[]));
    order.truncate(count);
    if let Some(limit) = limit {
        limit.apply(&mut order, made);
    }
    order.sort_unstable();
    Ok(order)
}

/// An arm that adds no image is not what its name says.
pub(in crate::execute) fn some_image(ratio: f64, real: usize) -> Result<()> {
    match (real as f64 * ratio).round() as usize {
        0 => Err(Error::input(format!("a ratio of {ratio} of {real} real images is no image"))
            .help("raise the ratio")),
        _ => Ok(()),
    }
}

/// Which real images are there once more, and in which copy of the set: whole copies, and a drawn part of
/// one; where there may be no more of a class, what is left is drawn too. Each is augmented by draws of its own, as
/// another epoch's would be.
fn duplicates(rows: &[Row], ratio: f64, seed: u64, limit: Option<ClassLimit>) -> Result<Vec<usize>> {
    let real = rows.len();
    some_image(ratio, real)?;
    let count = (real as f64 * ratio).round() as usize;
    let mut copies: Vec<usize> = (0..real).cycle().take(count / real.max(1) * real).collect();
    let mut order: Vec<usize> = (0..real).collect();
    order.shuffle(&mut random::rng(seed, "duplicate images", &[]));
    order.truncate(count - copies.len());
    order.sort_unstable();
    copies.extend(order);
    if let Some(limit) = limit {
        let mut drawn = copies.clone();
        drawn.shuffle(&mut random::rng(seed, "duplicate images of a class", &[]));
        limit.apply(&mut drawn, rows);
        if drawn.len() < copies.len() {
            drawn.sort_unstable();
            return Ok(drawn);
        }
    }
    Ok(copies)
}

/// Refuses images that were made from the masks of patients who do not train in this arm, or are named as images of
/// such patients of the data set.
pub(in crate::execute) fn check_sources<'a>(
    made: &Manifest,
    real: impl Iterator<Item = &'a Row>,
    all: &Manifest,
) -> Result<()> {
    let known: HashSet<&str> = real.map(|row| row.patient.as_str()).collect();
    let sources = made.rows.iter().filter_map(|row| patient_of(row.source_mask.as_deref()?));
    let strange: BTreeSet<&str> = sources.filter(|patient| !known.contains(patient)).collect();
    refuse(&strange, "synthetic images were made from the masks of", &made.root)?;
    let others: HashSet<&str> =
        all.rows.iter().map(|row| row.patient.as_str()).filter(|patient| !known.contains(patient)).collect();
    let named = made.rows.iter().map(|row| row.patient.as_str());
    let strange: BTreeSet<&str> = named.filter(|patient| others.contains(patient)).collect();
    refuse(&strange, "synthetic images are called images of", &made.root)
}

/// Refuses a finished pipeline whose list of training patients names some who do not train here: above all those
/// of the test split.
pub(super) fn check_seen(pipeline: &Path, manifest: &Manifest, patients: Option<&[String]>) -> Result<()> {
    let seen = training_patients::read(pipeline)?;
    let known: HashSet<&str> = manifest
        .of(Split::Train)
        .map(|row| row.patient.as_str())
        .filter(|patient| patients.is_none_or(|p| p.iter().any(|p| p == patient)))
        .collect();
    let strange: BTreeSet<&str> = seen.iter().map(String::as_str).filter(|p| !known.contains(p)).collect();
    refuse(&strange, "the generator was trained on", pipeline)
}

fn refuse(strange: &BTreeSet<&str>, what: &str, context: &Path) -> Result<()> {
    let Some(first) = strange.first() else { return Ok(()) };
    let more = if strange.len() > 1 { " and others" } else { "" };
    Err(Error::input(format!(
        "{what} {} patient(s) who do not train in this arm: {first}{more}",
        strange.len()
    ))
    .at(context)
    .help("figures of patients whom a generator knows are worth nothing: train one in this spec, or change the split"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(i: usize, source: Option<&str>) -> Row {
        use crate::vocabulary::{Phase, View};
        Row {
            split: Some(Split::Train),
            generator: Some("g".into()),
            source_mask: source.map(str::to_owned),
            ..Row::new(
                format!("synthetic-{i:05}"),
                if i % 4 < 2 { View::TwoChamber } else { View::FourChamber },
                if i.is_multiple_of(2) { Phase::Ed } else { Phase::Es },
                format!("images/{i}.png"),
            )
        }
    }

    #[test]
    fn a_greater_ratio_keeps_what_the_smaller_one_drew() {
        let made: Vec<Row> = (0..40).map(|i| row(i, None)).collect();
        let few = chosen(&made, 20, 0.5, 3, None).unwrap();
        let many = chosen(&made, 20, 1.5, 3, None).unwrap();
        assert_eq!((few.len(), many.len()), (10, 30));
        assert!(few.iter().all(|i| many.contains(i)));
        assert_ne!(chosen(&made, 20, 0.5, 4, None).unwrap(), few);
        let told = chosen(&made, 20, 2.5, 3, None).unwrap_err().to_string();
        assert!(told.contains("asks for 50 synthetic images beside 20 real ones: there are 40"), "{told}");
        assert!(chosen(&made, 20, 0.01, 3, None).is_err());
    }

    #[test]
    fn no_class_has_more_synthetic_images_than_asked() {
        let made: Vec<Row> = (0..40).map(|i| row(i, None)).collect();
        let limit = || Some(ClassLimit { per_class: 3, label: Label::Phase });
        let order = chosen(&made, 20, 2.0, 3, limit()).unwrap();
        let of = |class| order.iter().filter(|&&i| class_of(&made[i], Label::Phase) == class).count();
        assert_eq!((of(0), of(1)), (3, 3));
        // Those that the shuffled order has first.
        let uncapped = chosen(&made, 20, 2.0, 3, None).unwrap();
        assert!(order.iter().all(|i| uncapped.contains(i)));
    }

    #[test]
    fn duplicates_are_whole_copies_and_a_drawn_part() {
        // Two thirds of 90 are ED; no more than 20 of each phase are repeated, whichever they are.
        let uneven: Vec<Row> = (0..90).map(|i| row(if i % 3 < 2 { 0 } else { 1 }, None)).collect();
        let limit = || Some(ClassLimit { per_class: 20, label: Label::Phase });
        let drawn = super::duplicates(&uneven, 2.0, 1, limit()).unwrap();
        assert_eq!(drawn.iter().filter(|&&i| i % 3 < 2).count(), 20);
        assert_eq!(drawn.len(), 40);
        assert!(drawn.iter().any(|&i| i > 45), "not the first ones");
        // A limit that nothing reaches changes nothing.
        let loose = Some(ClassLimit { per_class: 200, label: Label::Phase });
        assert_eq!(
            super::duplicates(&uneven, 0.5, 1, loose).unwrap(),
            super::duplicates(&uneven, 0.5, 1, None).unwrap()
        );
        let rows: Vec<Row> = (0..100).map(|i| row(i, None)).collect();
        let duplicates = |real, ratio, seed| duplicates(&rows[..real], ratio, seed, None).unwrap();
        assert!(
            super::duplicates(&rows[..10], 0.04, 1, None).unwrap_err().to_string().contains("is no image")
        );
        let copies = duplicates(10, 2.3, 1);
        assert_eq!(copies.len(), 23);
        for image in 0..10 {
            let times = copies.iter().filter(|&&i| i == image).count();
            assert!((2..=3).contains(&times), "{image}: {times}");
        }
        assert_eq!(duplicates(10, 0.3, 1).len(), 3);
        assert_ne!(duplicates(100, 0.3, 1), duplicates(100, 0.3, 2));
    }
}
