//! Data that is wrong: `data check` and `run` both name the file and the remedy.

use std::fs;

use synecho::picture::Picture;

use crate::support::{Place, RUN, folder};

/// Spoils a good folder, then checks and runs it.
#[track_caller]
fn fault(spoil: impl Fn(&Place), parts: &[&str]) {
    let place = folder();
    spoil(&place);
    place.synecho(&["data", "check", "data"]).refused(parts);
    place.synecho(&["data", "check", "data", "--json"]).refused(parts);
    place.synecho(&RUN).refused(parts);
    let status = place.synecho(&["status", "small.toml"]).well().out;
    // What the table tells, and a file that is missing or empty, is refused before any work.
    let at_once = ["manifest.csv:", "the file is empty", "No such file"];
    let failed = usize::from(!at_once.iter().any(|word| parts.concat().contains(word)));
    assert!(status.contains("0 done") && status.contains(&format!("{failed} failed")), "{status}");
}

fn cut(place: &Place, name: &str, to: usize) {
    let path = place.path(name);
    let bytes = fs::read(&path).unwrap();
    fs::write(path, &bytes[..to]).unwrap();
}

fn manifest(place: &Place, change: impl Fn(&str) -> String) {
    let text = place.read("data/manifest.csv");
    let changed = change(&text);
    assert_ne!(text, changed);
    place.write("data/manifest.csv", &changed);
}

#[test]
fn the_good_folder_is_good() {
    let place = folder();
    let check = place.synecho(&["data", "check", "data", "--json"]).json();
    assert_eq!((&check["patients"], &check["images"]), (&8.into(), &16.into()));
    let told = place.synecho(&[&RUN[..], &["--set", "tasks.classification.label=phase"]].concat()).well();
    // No phantom to draw, and a manifest folder needs no import.
    assert_eq!(told.stages_done(), (6, 6));
    assert!(!place.path("out/small/figures/segmentation_samples.png").exists(), "no pictures of patients");
}

#[test]
fn images_that_cannot_be_read() {
    fault(|p| cut(p, "data/images/5.png", 60), &["data/images/5.png: cannot read this as an image"]);
    fault(
        |p| cut(p, "data/images/5.png", 0),
        &["data/images/5.png: cannot read this as an image: the file is empty"],
    );
    fault(
        |p| p.write("data/images/0.png", "not an image"),
        &["data/images/0.png: cannot read this as an image"],
    );
    fault(
        |p| fs::remove_file(p.path("data/images/15.png")).unwrap(),
        &["data/images/15.png: cannot read the image: No such file", "names it"],
    );
}

#[test]
fn masks_that_do_not_fit() {
    fault(
        |p| Picture::new(31, 32).write(&p.path("data/masks/3.png")).unwrap(),
        &["data/masks/3.png: the image is 32 x 32 and its mask 31 x 32"],
    );
    fault(
        |p| {
            let mut mask = Picture::new(32, 32);
            mask.pixels[33] = 85;
            mask.write(&p.path("data/masks/3.png")).unwrap();
        },
        &["data/masks/3.png: the mask holds 85 at x 1, y 1", "0 background, 1 endocardium"],
    );
    fault(|p| cut(p, "data/masks/3.png", 50), &["data/masks/3.png: cannot read this as an image"]);
}

#[test]
fn manifests_that_contradict_themselves() {
    fault(
        |p| manifest(p, |t| t.replacen("phase", "faze", 1)),
        &["data/manifest.csv:1: the column `phase` is missing", "patient,view,phase,image"],
    );
    fault(
        |p| manifest(p, |t| format!("{t}{}\n", t.lines().nth(1).unwrap())),
        &["data/manifest.csv:18: the image images/0.png is listed twice (first on line 2)", "remove one"],
    );
    fault(
        |p| manifest(p, |t| t.replacen("train", "val", 1)),
        &["data/manifest.csv:3: p1 is in two splits: train here, val on line 2", "one split"],
    );
    fault(
        |p| manifest(p, |t| t.replacen("2CH", "3CH", 1)),
        &["data/manifest.csv:2: column `view`: expected one of 2CH, 4CH, found \"3CH\""],
    );
}

#[test]
fn a_split_that_stays_empty_says_what_to_set() {
    let place = folder();
    manifest(&place, |text| text.replace(",test", ",train"));
    place.synecho(&["data", "check", "data"]).well();
    place.synecho(&RUN).refused(&[
        "the test split is empty",
        "data.test_from = \"val\"",
        "data.val_patients = N",
    ]);
    let set = ["--set", "data.test_from=val", "--set", "data.val_patients=2"];
    let rest = ["--set", "tasks.classification.label=phase"];
    place.synecho(&[&RUN[..], &set, &rest].concat()).well();

    let place = folder();
    manifest(&place, |text| text.replace(",val", ",").replace(",test", ",").replace(",train", ","));
    place
        .synecho(&RUN)
        .refused(&["data/manifest.csv: the manifest says no split for p1", "split = \"diffecho\""]);
}

#[test]
fn a_check_lists_all_faults() {
    let place = folder();
    cut(&place, "data/images/5.png", 60);
    Picture::new(16, 16).write(&place.path("data/masks/7.png")).unwrap();
    fs::remove_file(place.path("data/masks/9.png")).unwrap();
    place.synecho(&["data", "check", "data"]).refused(&[
        "data: 3 problems",
        "data/images/5.png: ",
        "data/masks/7.png: ",
        "data/masks/9.png: ",
    ]);
}

#[test]
fn folders_that_are_not_what_was_said() {
    let place = Place::new();
    fs::create_dir(place.path("empty")).unwrap();
    for layout in ["camus", "diffecho", "folder"] {
        place.synecho(&["data", "import", "--from", layout, "empty", "--to", "out"]).refused(&["empty"]);
        place.synecho(&["data", "import", "--from", layout, "nowhere", "--to", "out"]).refused(&["nowhere"]);
        assert!(!place.path("out").exists(), "{layout}");
    }
    place.synecho(&["data", "check", "empty"]).refused(&["empty/manifest.csv: cannot read the manifest"]);
    place.synecho(&["data", "check", "nowhere"]).refused(&["nowhere: this folder does not exist"]);
    place.write("empty/here", "");
    place
        .synecho(&["data", "phantom", "--patients", "3", "--to", "empty"])
        .refused(&["empty: ", "not empty"]);
    place
        .synecho(&["measure", "dice", "--truth", "empty", "--prediction", "empty"])
        .refused(&["no PNG or NIfTI masks"]);
}
