//! A stage that fails does not stop what does not need it.

use std::io::Read;

use crate::support::{Place, RUN, SMALL};

/// SGD with this decay multiplies the weights by -9 in every step.
const DIVERGES: &str =
    "epochs = 8\nbatch_size = 2\nlearning_rate = 10.0\nfinal_learning_rate = 10.0\nweight_decay = 1.0";
const CONVERGES: &str = "epochs = 1\nbatch_size = 8";

/// Two seeds, and a classifier whose training diverges.
fn place() -> Place {
    let place = Place::new();
    let seeds = SMALL.replace("name = \"small\"", "name = \"small\"\nseeds = [0, 1]");
    place.write("small.toml", &seeds.replace(CONVERGES, DIVERGES));
    place
}

fn statuses(place: &Place) -> Vec<(String, String)> {
    let status = place.synecho(&["status", "small.toml", "--json"]).json();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let stages = status["stages"].as_array().unwrap();
    stages.iter().map(|stage| (text(&stage["label"]), text(&stage["status"]))).collect()
}

fn count(place: &Place, word: &str, wanted: &str) -> usize {
    statuses(place).iter().filter(|(label, status)| label.contains(word) && status == wanted).count()
}

#[test]
fn the_other_stages_are_done_and_status_says_why() {
    let place = place();
    let fault = "the training loss is NaN at step";
    let parts = [
        "error: train classification resnet18, real, seed 0: ",
        "error: train classification resnet18, real, seed 1: ",
        "3 of 12 stages were not begun",
        fault,
        "lower the learning_rate",
    ];
    // Not a wrong request.
    let told = place.synecho(&RUN).wrong(1, &parts);
    assert_eq!(count(&place, "segmentation", "done"), 4, "{told:#?}");
    assert_eq!(count(&place, "train classification", "failed"), 2);
    assert_eq!(count(&place, "measure classification", "missing"), 2);
    assert_eq!(count(&place, "report", "missing"), 1);
    assert!(!place.path("out").exists(), "no report of half the work");
    let status = place.synecho(&["status", "small.toml"]).well().out;
    assert!(status.contains(fault) && status.contains("2 failed"), "{status}");

    // With the cause gone, only what is lacking is done.
    place.write("small.toml", &place.read("small.toml").replace(DIVERGES, CONVERGES));
    let told = place.synecho(&RUN).well();
    assert_eq!(told.stages_done(), (5, 12));
}

#[test]
fn what_fails_in_one_process_is_not_tried_in_another() {
    let place = place();
    let told = place.synecho(&["run", "small.toml", "--jobs", "2", "--threads", "1"]).wrong(1, &[]);
    for seed in 0..2 {
        let label = format!("train classification resnet18, real, seed {seed}");
        assert_eq!(told.err.matches(&format!("failed: {label}")).count(), 1, "{told:#?}");
        assert_eq!(
            told.err.matches(&format!("error: {label}: the training loss is NaN")).count(),
            1,
            "{told:#?}"
        );
    }
    assert_eq!(count(&place, "segmentation", "done"), 4, "{told:#?}");
    // Another run tries again.
    let told = place.synecho(&RUN).wrong(1, &[]);
    assert_eq!(told.err.matches("failed: ").count(), 2, "{told:#?}");
}

#[test]
fn fail_fast_stops_at_the_first_failure() {
    let place = place();
    let told =
        place.synecho(&[&RUN[..], &["--fail-fast"]].concat()).wrong(1, &["seed 0: the training loss is NaN"]);
    assert_eq!(count(&place, "segmentation", "done"), 2, "{told:#?}");
    assert_eq!(count(&place, "segmentation", "missing"), 2);
    assert_eq!(count(&place, "classification", "failed"), 1);
}

#[test]
fn work_goes_on_where_nobody_reads_what_is_said() {
    // `synecho run SPEC 2>&1 | head -2`
    let place = Place::small();
    let mut child = place.command(&RUN).spawn().unwrap();
    drop(child.stderr.take());
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{out}");
    // An error has its own code all the same.
    let mut child = place.command(&["plan", "nowhere.toml"]).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(2));
}

#[test]
fn a_folder_that_is_no_report_loses_nothing() {
    let place = Place::finished();
    place.write("paper/figures/my_heart.svg", "mine");
    place.write("paper/tables/training.csv", "mine");
    place.synecho(&["report", "small.toml", "--out", "paper"]).well();
    assert_eq!(place.read("paper/figures/my_heart.svg"), "mine");
    place.write("site/small/index.html", "my home page");
    let args = [&RUN[..], &["--reports", "site"]].concat();
    place.synecho(&args).refused(&["index.html: this page is not a Synecho report", "another folder"]);
    assert_eq!(place.read("site/small/index.html"), "my home page");
}

#[test]
fn a_file_is_no_store() {
    let place = Place::small();
    for command in [&["plan", "small.toml"][..], &["status", "small.toml"], &["report", "small.toml"]] {
        let args = [command, &["--store", "small.toml"]].concat();
        place.synecho(&args).refused(&["small.toml: cannot look into the store", "--store DIR"]);
    }
}
