//! Generators that are measured while they are trained.

use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};

use crate::{
    generators::{RUN, only, stages, step},
    support::Place,
};

const TASKS: &str = "
[tasks.segmentation]
image_size = 32
channels = [4, 8, 16]
epochs = 1

[measure]
generators = [\"kid\"]

[measure.extractor]
image_size = 40
epochs = 1
";

/// Measured at steps 15, 30 and 40.
fn spec(checkpoint: &str) -> String {
    let lines = format!(
        "mode = \"text+segmentation\"\nquality_every = 15\nquality_images = 2\ncheckpoint = \"{checkpoint}\"\n"
    );
    only("measured", &lines) + TASKS
}

fn value(place: &Place, metric: &str) -> Vec<(u64, f64)> {
    let curves = fs::read_to_string(place.artifact("runs", "train measured: ").join("curves.csv")).unwrap();
    let of_metric = curves.lines().filter(|line| line.split(',').nth(9) == Some(metric));
    of_metric
        .map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            (cells[6].parse().unwrap(), cells[10].parse().unwrap())
        })
        .collect()
}

#[test]
fn the_best_weights_by_kid_are_kept_and_a_killed_training_ends_with_them_too() {
    let calm = Place::new();
    calm.write("made.toml", &spec("kid"));
    let told = calm.synecho(&RUN).well();
    assert!(told.err.contains("step 15 of 40: KID × 1000 "), "{told:?}");
    for metric in ["kid", "view_accuracy", "dice"] {
        let steps: Vec<u64> = value(&calm, metric).into_iter().map(|point| point.0).collect();
        assert_eq!(steps, [15, 30, 40], "{metric}");
    }
    let artifact = calm.artifact("runs", "train measured: ");
    let best = value(&calm, "kid").into_iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    let summary = fs::read_to_string(artifact.join("summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    assert_eq!((summary["best_step"].as_u64(), summary["quality_images"].as_u64()), (Some(best.0), Some(8)));
    assert!(calm.read("out/made/index.html").contains("quality over optimizer steps"));

    // Killed after the first measurement.
    let stormy = Place::new();
    stormy.write("made.toml", &spec("kid"));
    let (_, kind, key) =
        stages(&stormy).into_iter().find(|(label, ..)| label.starts_with("train measured: ")).unwrap();
    let checkpoint = stormy.path("runs").join(&kind).join(format!("{key}.partial/checkpoint/model"));
    let often = [&RUN[..], &["--checkpoint-every", "0"]].concat();
    let mut child = stormy.command(&often).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while step(&checkpoint.join("last.safetensors")).is_none_or(|step| step < 16) {
        assert_eq!(child.try_wait().unwrap(), None, "the run ended too early");
        assert!(start.elapsed() < Duration::from_secs(900), "no checkpoint came");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(checkpoint.join("best.safetensors").is_file());
    stormy.synecho(&often).well();
    let folder = format!("runs/{kind}/{key}");
    let (mut calm, mut stormy) = (calm.files(&folder), stormy.files(&folder));
    assert!(calm.remove("record.json").is_some() && stormy.remove("record.json").is_some());
    assert_eq!(calm, stormy);
}

#[test]
fn the_last_weights_are_those_of_a_training_that_is_not_measured() {
    let (measured, plain) = (Place::new(), Place::new());
    measured.write("made.toml", &spec("last"));
    plain.write("made.toml", &spec("last").replace("quality_every = 15\n", ""));
    let weights = |place: &Place| {
        place.synecho(&RUN).well();
        fs::read(
            place
                .artifact("runs", "train measured: ")
                .join("pipeline/unet/diffusion_pytorch_model.safetensors"),
        )
        .unwrap()
    };
    assert!(weights(&measured) == weights(&plain));
}

#[test]
fn a_checkpoint_needs_what_measures_it() {
    let place = Place::new();
    let masked = spec("label-dice");
    let text = masked.replace("text+segmentation", "text");
    let without_task = masked.split("\n[tasks").next().unwrap().to_owned();
    let each = spec("kid")
        .replace("text+segmentation", "unconditional")
        .replace("patch = 2", "patch = 2\nper_class = true");
    for (spec, problems) in [
        (spec("kid").replace("quality_every = 15\n", ""), ["checkpoint", "nothing is measured"]),
        (spec("kid").replace("quality_images = 2", "quality_images = 1"), ["quality_images", "from 2"]),
        (spec("best"), ["made.toml", "kid"]),
        (text, ["checkpoint", "no control masks"]),
        (without_task, ["checkpoint", "add [tasks.segmentation]"]),
        (each, ["quality_every", "per_class = false"]),
    ] {
        place.write("made.toml", &spec);
        place.synecho(&["plan", "made.toml"]).refused(&problems);
    }
}
