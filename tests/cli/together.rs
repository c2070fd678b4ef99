//! Several processes on one store.

use std::fs;

use crate::support::{Place, RUN, STAGES, Told, finished};

#[test]
fn two_runs_at_once_do_each_stage_once() {
    let place = Place::small();
    let children: Vec<_> = (0..2).map(|_| place.command(&RUN).spawn().unwrap()).collect();
    let told: Vec<Told> =
        children.into_iter().map(|c| Told::from(&RUN, c.wait_with_output().unwrap()).well()).collect();
    let done: Vec<usize> = told.iter().map(|told| told.stages_done().0).collect();
    assert_eq!(done.iter().sum::<usize>(), STAGES, "{done:?}");
    // Another store, another time, other processes: the same weights and the same report.
    assert!(place.files("reports/small") == finished().place.files("reports/small"));
    for label in ["train segmentation", "train classification"] {
        let weights =
            |place: &Place| fs::read(place.artifact("runs", label).join("weights.safetensors")).unwrap();
        assert!(weights(&place) == weights(&finished().place), "{label}");
    }
}

#[test]
fn two_jobs_give_the_bytes_of_one_process() {
    let place = Place::small();
    let told = place.synecho(&[&RUN[..], &["--jobs", "2"]].concat()).well();
    assert_eq!(told.stages_done().1, STAGES);
    assert!(place.files("reports/small") == finished().place.files("reports/small"));
    assert_eq!(place.synecho(&RUN).well().stages_done(), (0, STAGES));
}
