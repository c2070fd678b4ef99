//! What generators make: as many images as asked, each the same wherever it is made, with all that it was
//! made from in the manifest.

use std::collections::{BTreeMap, BTreeSet};

use synecho::{
    data::split,
    manifest::{Manifest, Row},
    picture::Picture,
    samples::class_of,
    vocabulary::{Label, Split},
};

use crate::{
    generators::{GENERATORS, IMAGES, RUN, made},
    support::Place,
};

/// Of the stage whose label starts so.
fn images(place: &Place, label: &str) -> Manifest {
    Manifest::read(place.artifact("runs", label).join("data")).unwrap()
}

fn of(place: &Place, name: &str) -> Manifest {
    images(place, &format!("{IMAGES} images of {name}: "))
}

/// The real images, at the generators' size.
fn real(place: &Place) -> Manifest {
    images(place, "prepare at 32 px")
}

fn mask(manifest: &Manifest, row: &Row) -> Picture {
    Picture::read_mask(&manifest.mask_path(row).unwrap()).unwrap()
}

/// The row of the real image that a synthetic one's mask is of.
fn source<'a>(real: &'a Manifest, row: &Row) -> &'a Row {
    let name = row.source_mask.as_ref().unwrap();
    real.rows.iter().find(|row| row.name() == *name).unwrap()
}

#[test]
fn manifests_say_all_and_hold_exactly_what_was_asked() {
    let real = real(made());
    for (name, lines) in GENERATORS {
        let manifest = of(made(), name);
        let mut counts = BTreeMap::new();
        for row in &manifest.rows {
            *counts.entry(class_of(row, Label::ViewPhase)).or_insert(0) += 1;
        }
        assert_eq!(counts, BTreeMap::from([(0, 6), (1, 6), (2, 6), (3, 6)]), "{name}");
        let seeds: BTreeSet<u64> = manifest.rows.iter().map(|row| row.seed.unwrap()).collect();
        assert_eq!(seeds.len(), IMAGES, "{name}: a seed appears twice");
        let pictures: BTreeSet<Vec<u8>> = manifest
            .rows
            .iter()
            .map(|row| {
                let picture = Picture::read(&manifest.image_path(row)).unwrap();
                assert_eq!((picture.width, picture.height), (32, 32));
                picture.pixels
            })
            .collect();
        assert_eq!(pictures.len(), IMAGES, "{name}: an image appears twice");
        let mode = lines.split('"').nth(1).unwrap();
        for row in &manifest.rows {
            let generator = row.generator.as_deref().unwrap();
            assert!(generator.starts_with(&format!("{mode} ")), "{name}: {generator}");
            assert_eq!(row.split, Some(Split::Train));
            match &row.prompt {
                None => assert!(["unconditional", "inpaint"].contains(&mode), "{name}"),
                Some(prompt) => {
                    let view = if class_of(row, Label::ViewPhase) < 2 { "two" } else { "four" };
                    assert!(
                        prompt.starts_with(&format!("{view}-chamber apical view, e")),
                        "{name}: {prompt}"
                    );
                }
            }
            if ["text+segmentation", "inpaint"].contains(&mode) {
                let source = source(&real, row);
                assert_eq!(
                    (source.view, source.phase, source.split),
                    (row.view, row.phase, Some(Split::Train))
                );
                assert_eq!(
                    mask(&manifest, row),
                    mask(&real, source),
                    "{name}: another mask than its source's"
                );
            } else {
                assert!(row.mask.is_none() && row.source_mask.is_none(), "{name}");
            }
        }
    }
}

#[test]
fn an_image_does_not_depend_on_its_batch() {
    let place = made().copied();
    let before: BTreeMap<&str, Manifest> = ["channels", "control", "told"].map(|n| (n, of(made(), n))).into();
    // Another batch, and fewer images: all of them stand elsewhere.
    let sets = before.keys().flat_map(|name| {
        ["sampling_batch=3", "per_class_images=5"].map(|set| format!("generators.{name}.{set}"))
    });
    let sets: Vec<String> = sets.collect();
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set.as_str()]).collect();
    place.synecho(&[&RUN[..], &sets].concat()).well();
    for (name, before) in before {
        let now = images(&place, &format!("20 images of {name}: "));
        assert_eq!(now.rows.len(), 20);
        for row in &now.rows {
            let old = before.rows.iter().find(|old| old.seed == row.seed).unwrap();
            assert_eq!(old.source_mask, row.source_mask);
            let picture = |manifest: &Manifest, row| Picture::read(&manifest.image_path(row)).unwrap().pixels;
            let (a, b) = (picture(&before, old), picture(&now, row));
            // Sums in another order: a grey level where a value lies between two.
            let apart = a.iter().zip(&b).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(apart <= Some(1), "{name}, {}: {apart:?}", row.name());
        }
    }
}

#[test]
fn masks_are_of_the_arms_training_patients_alone() {
    let half = "channels, 50% of the patients, seed 0: ";
    let real = real(made());
    let train: BTreeSet<&str> = real.of(Split::Train).map(|row| &*row.patient).collect();
    let arm: BTreeSet<String> = split::fraction(&real, 0.5, 0).into_iter().collect();
    assert_eq!(arm.len(), train.len() / 2);
    assert!(arm.iter().all(|patient| train.contains(patient.as_str())));
    let patients = |manifest: &Manifest| -> BTreeSet<String> {
        manifest.rows.iter().map(|row| source(&real, row).patient.clone()).collect()
    };
    // Six images from two of each mask: three masks of each class, so all of the arm's patients.
    assert_eq!(patients(&images(made(), &format!("{IMAGES} images of {half}"))), arm);
    assert!(patients(&of(made(), "control")).iter().all(|patient| train.contains(patient.as_str())));
    let summary = made().artifact("runs", &format!("train {half}")).join("summary.json");
    let summary: serde_json::Value = serde_json::from_slice(&std::fs::read(summary).unwrap()).unwrap();
    assert_eq!(summary["train_patients"], arm.len());
    assert_eq!(summary["train_images"], 4 * arm.len());
}

#[test]
fn varied_masks_move_and_name_their_source() {
    let place = made().copied();
    let label = format!("{IMAGES} images of channels: ");
    std::fs::remove_dir_all(place.artifact("runs", &label)).unwrap();
    place.synecho(&[&RUN[..], &["--set", "generators.channels.vary_masks=true"]].concat()).well();
    let (real, varied, plain) = (real(&place), images(&place, &label), of(made(), "channels"));
    let mut moved = 0;
    for (row, plain) in varied.rows.iter().zip(&plain.rows) {
        assert_eq!(row.source_mask, plain.source_mask);
        let (now, was) = (mask(&varied, row), mask(&real, source(&real, row)));
        moved += usize::from(now != was);
        // A little: most of the heart is where it was.
        let same = now.pixels.iter().zip(&was.pixels).filter(|(a, b)| a == b).count();
        assert!(same * 10 > was.pixels.len() * 7, "{}: {same}", row.name());
    }
    assert!(moved * 10 > IMAGES * 9, "{moved} of {IMAGES} masks moved");
}
