//! Several processes on one store.

use std::{
    fs,
    time::{Duration, Instant},
};

use crate::support::{Place, RUN, SMALL, STAGES, Told, finished};

#[test]
fn two_runs_at_once_do_each_stage_once() {
    let place = Place::small();
    let children: Vec<_> = (0..2).map(|_| place.command(&RUN).spawn().unwrap()).collect();
    let told: Vec<Told> =
        children.into_iter().map(|c| Told::from(&RUN, c.wait_with_output().unwrap()).well()).collect();
    let done: Vec<usize> = told.iter().map(|told| told.stages_done().0).collect();
    assert_eq!(done.iter().sum::<usize>(), STAGES, "{done:?}");
    // Another store, another time, other processes: the same weights and the same report.
    assert!(place.files("out/small") == finished().place.files("out/small"));
    for label in ["train segmentation", "train classification"] {
        let weights =
            |place: &Place| fs::read(place.artifact("runs", label).join("weights.safetensors")).unwrap();
        assert!(weights(&place) == weights(&finished().place), "{label}");
    }
}

#[test]
fn two_jobs_give_the_bytes_of_one_process() {
    let place = Place::small();
    let told = place.synecho(&["run", "small.toml", "--jobs", "2", "--threads", "1"]).well();
    assert_eq!(told.stages_done(), (STAGES, STAGES));
    // What the other process begins is told as well.
    for label in ["train segmentation", "train classification"] {
        assert!(told.err.contains(label), "{told:#?}");
    }
    assert!(place.files("out/small") == finished().place.files("out/small"));
    assert_eq!(place.synecho(&RUN).well().stages_done(), (0, STAGES));
}

#[test]
fn a_killed_run_takes_its_helpers_with_it() {
    let place = Place::new();
    place.write(
        "small.toml",
        &SMALL.replace("epochs = 3", "epochs = 5000").replace("epochs = 1", "epochs = 5000"),
    );
    let mut run =
        place.command(&["run", "small.toml", "--jobs", "2", "--threads", "1", "--quiet"]).spawn().unwrap();
    let running = || {
        let status = place.synecho(&["status", "small.toml", "--json"]).json();
        status["stages"].as_array().unwrap().iter().filter(|stage| stage["status"] == "running").count()
    };
    let becomes = |count: usize| {
        let start = Instant::now();
        while running() != count {
            assert!(start.elapsed() < Duration::from_secs(60), "{count} stages were not running together");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    becomes(2);
    run.kill().unwrap();
    run.wait().unwrap();
    becomes(0);
}
