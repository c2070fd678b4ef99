//! Checking, splitting and resizing data folders.

use std::{collections::BTreeSet, path::Path};

use synecho::{
    data::{
        check::check,
        prepare::prepare,
        split::{assign, fraction},
    },
    experiment::{HeldOut, SplitScheme, SplitSettings},
    manifest::Manifest,
    picture::Picture,
    resize::{bilinear, nearest},
    vocabulary::Split,
};

fn quiet(_: usize, _: usize) {}

/// Four images of two patients; every mask but the last holds all classes.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut table = "patient,view,phase,image,mask,split,spacing_x,spacing_y\n".to_owned();
    for (i, (patient, phase)) in [("p1", "ED"), ("p1", "ES"), ("p2", "ED"), ("p2", "ES")].iter().enumerate() {
        let split = if *patient == "p1" { "train" } else { "val" };
        table.push_str(&format!("{patient},2CH,{phase},i{i}.png,m{i}.png,{split},0.5,0.25\n"));
        write(&dir.path().join(format!("i{i}.png")), 8, 6, |at| (at * 5 + i) as u8);
        write(&dir.path().join(format!("m{i}.png")), 8, 6, |at| (at % if i == 3 { 3 } else { 4 }) as u8);
    }
    std::fs::write(dir.path().join("manifest.csv"), table).unwrap();
    dir
}

fn write(file: &Path, width: usize, height: usize, value: impl Fn(usize) -> u8) {
    Picture { width, height, pixels: (0..width * height).map(value).collect() }.write(file).unwrap();
}

#[test]
fn a_summary_counts_and_warns() {
    let dir = folder();
    std::fs::copy(dir.path().join("i0.png"), dir.path().join("i1.png")).unwrap();
    std::fs::copy(dir.path().join("i0.png"), dir.path().join("i2.png")).unwrap();
    let summary = check(dir.path(), &quiet).unwrap();
    assert_eq!((summary.patients, summary.images, summary.masks), (2, 4, 4));
    assert_eq!((summary.width, summary.height), ((8, 8), (6, 6)));
    assert_eq!(summary.splits["val"].images, 2);
    assert_eq!(summary.views["2CH_ES"], 2);
    assert_eq!(summary.duplicates, [["p1_2CH_ED", "p1_2CH_ES", "p2_2CH_ED"]]);
    assert_eq!(summary.absent["atrium"], 1);
    assert_eq!(
        summary.warnings,
        [
            "LEAKAGE: the same picture is in the splits train and val: p1_2CH_ED = p1_2CH_ES = p2_2CH_ED",
            "1 masks hold no atrium"
        ]
    );
    let shown = summary.to_string();
    assert!(shown.contains("size      8 x 6 pixels") && shown.contains("warning   LEAKAGE"), "{shown}");
    serde_json::to_string(&summary).unwrap();
}

#[test]
fn a_duplicate_within_a_split_is_a_plain_warning() {
    let dir = folder();
    std::fs::copy(dir.path().join("i0.png"), dir.path().join("i1.png")).unwrap();
    let warnings = check(dir.path(), &quiet).unwrap().warnings;
    assert_eq!(warnings[0], "the same picture is listed as p1_2CH_ED = p1_2CH_ES");
}

#[test]
fn each_bad_file_is_named_with_its_remedy() {
    let message = |spoil: &dyn Fn(&Path)| {
        let dir = folder();
        spoil(dir.path());
        let error = check(dir.path(), &quiet).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    };
    let truncate = |file: &Path| {
        let bytes = std::fs::read(file).unwrap();
        std::fs::write(file, &bytes[..bytes.len() - 20]).unwrap();
    };
    for (text, file, expected) in [
        (message(&|d| truncate(&d.join("i2.png"))), "i2.png", "cannot read this as an image"),
        (
            message(&|d| std::fs::write(d.join("i1.png"), "hello").unwrap()),
            "i1.png",
            "cannot read this as an image",
        ),
        (
            message(&|d| write(&d.join("m0.png"), 5, 6, |_| 0)),
            "m0.png",
            "the image is 8 x 6 and its mask 5 x 6",
        ),
        (message(&|d| write(&d.join("m0.png"), 8, 6, |_| 7)), "m0.png", "the mask holds 7 at x 0, y 0"),
        (message(&|d| std::fs::remove_file(d.join("m3.png")).unwrap()), "m3.png", "cannot read the image"),
    ] {
        assert!(text.contains(file) && text.contains(expected) && text.contains("help: "), "{text}");
    }
    let manifest = |change: &dyn Fn(String) -> String| {
        message(&|d| {
            let file = d.join("manifest.csv");
            let text = std::fs::read_to_string(&file).unwrap();
            std::fs::write(&file, change(text)).unwrap();
        })
    };
    let text = manifest(&|t| t.replace("phase,", "fase,"));
    assert!(text.contains("manifest.csv:1: the column `phase` is missing"), "{text}");
    let text = manifest(&|t| t.replace("i1.png", "i0.png"));
    assert!(text.contains("manifest.csv:3: the image i0.png is listed twice"), "{text}");
    let text = manifest(&|t| t.replace("m1.png,train", "m1.png,val"));
    assert!(text.contains("manifest.csv:3: p1 is in two splits: val here, train on line 2"), "{text}");
}

#[test]
fn all_problems_are_listed_up_to_twenty() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = "patient,view,phase,image,mask\n".to_owned();
    for i in 0..30 {
        table.push_str(&format!("p{i},2CH,ED,gone{i:02}.png,\n"));
    }
    std::fs::write(dir.path().join("manifest.csv"), table).unwrap();
    let text = check(dir.path(), &quiet).unwrap_err().to_string();
    assert!(text.contains("30 problems") && text.contains("and 10 more"), "{text}");
    assert!(text.contains("gone00.png") && text.contains("gone19.png") && !text.contains("gone20.png"));
}

/// A manifest of patients p000, p001, … with two rows each and these splits.
fn people(splits: &[Option<Split>]) -> Manifest {
    let mut text = "patient,view,phase,image,mask,split\n".to_owned();
    for (i, split) in splits.iter().enumerate() {
        let split = split.map(|s| s.to_string()).unwrap_or_default();
        for phase in ["ED", "ES"] {
            text.push_str(&format!("p{i:03},2CH,{phase},p{i:03}_{phase}.png,,{split}\n"));
        }
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("manifest.csv"), text).unwrap();
    Manifest::read(dir.path()).unwrap()
}

fn part(manifest: &Manifest, split: Split) -> BTreeSet<String> {
    manifest.of(split).map(|row| row.patient.clone()).collect()
}

fn plain(scheme: SplitScheme) -> SplitSettings {
    SplitSettings {
        scheme,
        test_from: HeldOut::Test,
        val_patients: None,
        val_fraction: None,
        test_fraction: None,
        folds: None,
        fold: None,
        seed: 4,
    }
}

fn folds(folds: usize, fold: usize) -> SplitSettings {
    SplitSettings { folds: Some(folds), fold: Some(fold), ..plain(SplitScheme::Folds) }
}

fn random(val: f64, test: f64) -> SplitSettings {
    SplitSettings { val_fraction: Some(val), test_fraction: Some(test), ..plain(SplitScheme::Random) }
}

#[test]
fn whatever_the_scheme_each_patient_is_in_one_part_and_row_order_does_not_matter() {
    let (some_test, no_test) = (
        [Some(Split::Train), Some(Split::Train), Some(Split::Train), Some(Split::Val), Some(Split::Test)],
        [Some(Split::Train), Some(Split::Train), Some(Split::Train), Some(Split::Val)],
    );
    let moved = |scheme, n| SplitSettings { test_from: HeldOut::Val, val_patients: Some(n), ..plain(scheme) };
    for n in [9, 60, 97] {
        let mut cases = vec![
            (plain(SplitScheme::Official), &some_test[..]),
            (moved(SplitScheme::Official, 2), &no_test[..]),
            (random(0.2, 0.1), &[None][..]),
            (SplitSettings { val_patients: Some(3), ..random(0.0, 0.1) }, &[None]),
        ];
        if n > 55 {
            cases.push((moved(SplitScheme::Diffecho, 4), &[None]));
        }
        for n_folds in [3, 5] {
            cases.extend((0..n_folds).map(|fold| (folds(n_folds, fold), &[None][..])));
        }
        for (spec, pattern) in cases {
            let splits: Vec<_> = pattern.iter().copied().cycle().take(n).collect();
            let mut manifest = people(&splits);
            let mut turned = manifest.clone();
            turned.rows.reverse();
            assign(&mut manifest, &spec).unwrap();
            assign(&mut turned, &spec).unwrap();
            let mut seen = BTreeSet::new();
            for split in Split::ALL {
                let names = part(&manifest, split);
                assert!(!names.is_empty());
                assert_eq!(names, part(&turned, split), "{spec:?}");
                for name in names {
                    assert!(seen.insert(name), "a patient in two parts");
                }
            }
            assert_eq!(seen.len(), n);
        }
    }
}

#[test]
fn folds_partition_the_patients() {
    let mut tested = BTreeSet::new();
    for fold in 0..5 {
        let mut manifest = people(&[None; 23]);
        assign(&mut manifest, &folds(5, fold)).unwrap();
        let test = part(&manifest, Split::Test);
        assert!((4..=5).contains(&test.len()));
        for name in &test {
            assert!(tested.insert(name.clone()), "{name} is tested twice");
        }
        let mut next = people(&[None; 23]);
        assign(&mut next, &folds(5, (fold + 1) % 5)).unwrap();
        assert_eq!(part(&manifest, Split::Val), part(&next, Split::Test));
        let mut other = people(&[None; 23]);
        assign(&mut other, &SplitSettings { seed: 5, ..folds(5, fold) }).unwrap();
        assert_ne!(test, part(&other, Split::Test), "the seed decides");
    }
    assert_eq!(tested.len(), 23);
}

#[test]
fn diffecho_takes_the_first_fifty() {
    let mut manifest = people(&[None; 60]);
    let spec =
        SplitSettings { test_from: HeldOut::Val, val_patients: Some(2), ..plain(SplitScheme::Diffecho) };
    assign(&mut manifest, &spec).unwrap();
    let test = part(&manifest, Split::Test);
    assert_eq!(
        (test.len(), test.first().unwrap().as_str(), test.last().unwrap().as_str()),
        (50, "p000", "p049")
    );
}

#[test]
fn an_empty_split_says_what_to_set() {
    let train_val: Vec<_> = (0..60).map(|i| Some(if i < 50 { Split::Train } else { Split::Val })).collect();
    let all: Vec<_> = (0..9).map(|i| Some(Split::ALL[i % 3])).collect();
    let moved = SplitSettings { test_from: HeldOut::Val, ..plain(SplitScheme::Official) };
    // The paper's own split is allowed where it is asked for.
    let mut paper = people(&train_val);
    assign(&mut paper, &SplitSettings { test_from: HeldOut::None, ..plain(SplitScheme::Official) }).unwrap();
    for (splits, spec, expected) in [
        (
            &train_val[..],
            plain(SplitScheme::Official),
            "the test split is empty\n  help: set data.test_from = \"val\"",
        ),
        (&train_val, moved.clone(), "the val split is empty\n  help: set data.val_patients = N"),
        (&[None; 60], plain(SplitScheme::Diffecho), "the test split is empty"),
        (&[None; 60], plain(SplitScheme::Official), "says no split for p000"),
        (&[Some(Split::Val); 4], plain(SplitScheme::Official), "the train split is empty"),
        (&all, moved.clone(), "the val split is empty"),
        (
            &all,
            SplitSettings { val_patients: Some(1), ..plain(SplitScheme::Official) },
            "has validation patients already",
        ),
        (
            &train_val,
            SplitSettings { val_patients: Some(50), ..moved },
            "val_patients = 50 of 50 training patients",
        ),
        (&[None; 9], folds(2, 0), "fold 0 of 2"),
        (&[None; 9], folds(5, 5), "fold 5 of 5"),
        (&[None; 4], folds(5, 0), "5 folds of 4 patients"),
        (&[None; 9], random(0.5, 0.5), "a random split of val 0.5"),
        (&[None; 9], random(f64::NAN, 0.5), "a random split of val NaN"),
    ] {
        let mut manifest = people(splits);
        let before = manifest.clone();
        let error = assign(&mut manifest, &spec).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().contains("help: ") && error.exit_code() == 2);
        assert_eq!(manifest, before, "a refused split changes nothing");
    }
}

#[test]
fn fractions_are_nested_and_of_training_patients_only() {
    let splits: Vec<_> = (0..50).map(|i| Some(if i % 5 == 0 { Split::Test } else { Split::Train })).collect();
    let manifest = people(&splits);
    let train = part(&manifest, Split::Train);
    let mut last = BTreeSet::new();
    for (share, n) in [(0.0, 1), (0.1, 4), (0.25, 10), (0.5, 20), (1.0, 40)] {
        let names: BTreeSet<String> = fraction(&manifest, share, 9).into_iter().collect();
        assert_eq!(names.len(), n);
        assert!(names.is_superset(&last) && names.is_subset(&train));
        last = names;
    }
    assert_ne!(fraction(&manifest, 0.25, 9), fraction(&manifest, 0.25, 10));
}

#[test]
fn resize_is_torchvisions() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data/resize");
    let read = |name: &str| Picture::read(&fixtures.join(name)).unwrap();
    let (image, mask) = (read("image.png"), read("mask.png"));
    for (width, height) in [(32, 32), (48, 40), (96, 96), (131, 33)] {
        let expected = read(&format!("image_{width}x{height}.png"));
        let found = bilinear(&image, width, height);
        let worst = found.pixels.iter().zip(&expected.pixels).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst <= Some(1), "{width} x {height}: {worst:?} grey levels apart");
        let equal = found.pixels.iter().zip(&expected.pixels).filter(|(a, b)| a == b).count();
        assert!(equal * 1000 >= found.pixels.len() * 999, "{equal} of {}", found.pixels.len());
        assert_eq!(nearest(&mask, width, height), read(&format!("mask_{width}x{height}.png")));
    }
}

#[test]
fn prepare_resizes_and_keeps_the_millimetres() {
    let dir = folder();
    let out = tempfile::tempdir().unwrap();
    let source = Manifest::read(dir.path()).unwrap();
    let prepared = prepare(&source, 12, out.path(), &quiet).unwrap();
    assert_eq!(Manifest::read(out.path()).unwrap(), prepared);
    let row = &prepared.rows[0];
    assert_eq!(row.spacing(), Some((0.5 * 8.0 / 12.0, 0.25 * 6.0 / 12.0)));
    assert_eq!(row.image, Path::new("images/p1_2CH_ED.png"));
    let image = Picture::read(&prepared.image_path(row)).unwrap();
    assert_eq!(image, bilinear(&Picture::read(&source.image_path(&source.rows[0])).unwrap(), 12, 12));
    Picture::read_mask(&prepared.mask_path(row).unwrap()).unwrap();
    // Once more at that size: nothing changes.
    let again = tempfile::tempdir().unwrap();
    let same = prepare(&prepared, 12, again.path(), &quiet).unwrap();
    assert_eq!(same.rows, prepared.rows);
    for row in &same.rows {
        let file = |root: &Path| std::fs::read(root.join(&row.image)).unwrap();
        assert_eq!(file(out.path()), file(again.path()));
    }
    assert!(prepare(&source, 0, again.path(), &quiet).is_err());
}
