//! Requests that are wrong: exit code 2, the place, the remedy, and nothing left behind.

use std::{fs, path::Path};

use crate::support::{Place, RUN, SMALL, folder};

/// Runs and plans [`SMALL`] with one part changed.
#[track_caller]
fn spec_fault(from: &str, to: &str, parts: &[&str]) {
    assert!(SMALL.contains(from));
    let place = Place::new();
    place.write("small.toml", &SMALL.replacen(from, to, 1));
    for args in [&RUN[..], &["plan", "small.toml"], &["status", "small.toml"], &["report", "small.toml"]] {
        place.synecho(args).refused(parts);
    }
    assert!(!place.path("runs").exists() && !place.path("out").exists());
}

#[test]
fn unknown_keys_and_values_suggest_the_nearest() {
    spec_fault(
        "epochs = 3",
        "epoks = 3",
        &["small.toml:14: unknown field `epoks`", "did you mean `epochs`?"],
    );
    spec_fault("[tasks.seg", "[task.seg", &["small.toml:12: unknown field `task`", "did you mean `tasks`?"]);
    spec_fault("\"view\"", "\"views\"", &["small.toml:17: unknown variant `views`", "did you mean `view`?"]);
}

#[test]
fn wrong_types_name_the_line() {
    spec_fault("epochs = 3", "epochs = \"three\"", &["small.toml:14: ", "invalid type: string \"three\""]);
    spec_fault("patients = 10", "patients = -10", &["small.toml:9: ", "-10"]);
    spec_fault("[data]", "[data", &["small.toml:4: unclosed table", "toml.io"]);
}

#[test]
fn values_out_of_range_name_the_range() {
    spec_fault(
        "epochs = 3",
        "epochs = 0",
        &["small.toml:14: `tasks.segmentation.epochs`: 0 is out of range", "choose a value from 1"],
    );
    spec_fault("batch_size = 8", "batch_size = 99999", &["small.toml:19: ", "99999 is out of range"]);
    spec_fault("size = 64", "size = 63", &["small.toml:10: `data.phantom.size`: 63 is out of range"]);
    spec_fault("size = 40", "size = 41", &["`tasks.segmentation.image_size`: 41 cannot be halved 2 times"]);
    spec_fault("patients = 10", "patients = 10\nseed = 1e999", &["small.toml:10: "]);
}

#[test]
fn models_that_cannot_be_meant_name_the_model() {
    let models = |list: &str| format!("label = \"view\"\nmodels = [{list}]");
    spec_fault(
        "label = \"view\"",
        &models("\"resnet18\", \"efficientnet-b0\""),
        &["small.toml:18: unknown variant `efficientnet-b0`", "did you mean `efficientnet_b0`?"],
    );
    spec_fault(
        "label = \"view\"",
        &models("\"vgg16\", \"vgg19\", \"vgg16\""),
        &["small.toml:18: `tasks.classification.models.2`: vgg16 is listed twice", "list each model once"],
    );
    spec_fault(
        "label = \"view\"",
        &format!("image_size = 32\n{}", models("\"vgg16\", \"resnet50\"")),
        &[
            "small.toml:17: `tasks.classification.image_size`: 32 is too small for resnet50",
            "choose a value from 40 to 1024",
        ],
    );
    spec_fault(
        "label = \"view\"",
        "label = \"view\"\nfreeze = \"exactly\"",
        &["small.toml:18: unknown variant `exactly`", "did you mean `exact`?"],
    );
}

#[test]
fn overrides_are_checked_as_strictly() {
    let place = Place::small();
    for (set, parts) in [
        ("tasks.segmentation.epoks=2", ["unknown field `epoks`", "did you mean `epochs`?"]),
        ("tasks.segmentation.epochs=many", ["invalid type: string \"many\"", "--set "]),
        ("tasks.segmentation.epochs=0", ["out of range", "choose a value from 1"]),
        ("tasks.segmentation.epochs", ["expected KEY=VALUE", "tasks.segmentation.epochs=20"]),
        ("arms.1.name=x", ["invalid type: map", "write a list"]),
        (
            "tasks.segmentation.deep_supervision=2",
            ["MONAI's U-Net with 3 levels", "\"plain-unet\" has several"],
        ),
        ("tasks.segmentation.ema=1", ["out of range", "choose a value from 0"]),
        ("tasks.segmentation.clip=-1", ["out of range", "choose a value from 0"]),
        ("tasks.classification.preset=\"strong\"", ["\"strong\" is a preset of segmentation", "corrected"]),
        ("data=3", ["invalid type: integer `3`", "write a table: { KEY = VALUE"]),
    ] {
        place.synecho(&[&RUN[..], &["--set", set]].concat()).refused(&[
            &format!("--set {set}: "),
            parts[0],
            parts[1],
        ]);
    }
    // The preset's own value does not fit, beside what the file has.
    place.synecho(&[&RUN[..], &["--set", "tasks.segmentation.preset=\"strong\""]].concat()).refused(&[
        "small.toml:12: ",
        "nnU-Net's plain U-Net with 3 levels",
        "at 1 to 2 resolutions",
    ]);
}

#[test]
fn files_that_are_missing_are_named() {
    let place = Place::small();
    place.synecho(&["run", "nowhere.toml"]).refused(&["nowhere.toml: cannot read the spec", "experiments/"]);
    place.synecho(&["run", "."]).refused(&[".: cannot read the spec"]);
    let folder = folder();
    folder.synecho(&[&RUN[..], &["--set", "data.root=nowhere"]].concat()).refused(&[
        "--set data.root=nowhere: ",
        "nowhere does not exist",
        "data/README.md",
    ]);
    folder.write("small.toml", &folder.read("small.toml").replace("root = \"data\"\n", ""));
    folder.synecho(&RUN).refused(&["small.toml:4: `data.root`: is missing"]);
    let set = ["--set", "tasks.classification.weights=nowhere.safetensors"];
    place.synecho(&[&RUN[..], &set].concat()).refused(&["nowhere.safetensors does not exist"]);
}

#[test]
fn devices_that_are_not_there_are_refused() {
    let place = Place::small();
    place
        .synecho(&[&RUN[..], &["--device", "tpu"]].concat())
        .refused(&["unknown device \"tpu\"", "use cpu, cuda or cuda:N"]);
    let doctor = place.synecho(&["doctor", "--json"]).json();
    let there = doctor["devices"].as_array().unwrap().len() - 1;
    // The first that this machine lacks: `cuda` itself where it has none.
    let device = if there == 0 { "cuda".to_owned() } else { format!("cuda:{there}") };
    place.synecho(&[&RUN[..], &["--device", &device]].concat()).refused(&[&format!("device {device} ")]);
    assert!(!place.path("runs").exists());
}

#[test]
fn a_store_that_cannot_be_written_is_refused() {
    let place = Place::small();
    place.write("file", "");
    for store in ["file", "file/below"] {
        place
            .synecho(&[&RUN[..], &["--store", store]].concat())
            .refused(&[&format!("{store}: cannot make the store"), "choose another folder with --store DIR"]);
    }
    let doctor = place.synecho(&["doctor", "--json", "--store", "file/below"]).json();
    assert_eq!(doctor["store"]["writable"], false, "{doctor:#}");
}

#[test]
fn words_that_the_command_line_lacks_are_refused() {
    let place = Place::small();
    for (args, part) in [
        (&["rum", "small.toml"][..], "similar"),
        (&["run", "small.toml", "--job", "2"], "--jobs"),
        (&["run", "small.toml", "--jobs", "0"], "0 is not in 1..=256"),
        (&["run", "small.toml", "--threads", "0"], "0 is not in 1..=1024"),
        (&["run"], "<SPEC>"),
        (&["data", "import", "--from", "cmaus", "x", "--to", "y"], "camus"),
        (&["data", "phantom", "--size", "63", "--to", "x"], "63 is not in 64..=1024"),
    ] {
        let told = place.synecho(args);
        assert!(told.code == Some(2) && told.err.contains(part) && told.out.is_empty(), "{told:#?}");
    }
}

/// Every example spec is one: with stand-ins for what it needs, it can be planned, and CAMUS has the patients and masks
/// that it asks for.
#[test]
fn every_example_spec_can_be_planned() {
    let place = folder();
    let experiments = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments");
    // As many patients as CAMUS has, with the same few images.
    let rows = (0..2000).map(|i| {
        let patient = i / 4;
        for kind in ["images", "masks"] {
            let at = |name: &str| place.path(&format!("data/{kind}/{name}.png"));
            fs::hard_link(at(&(i % 16).to_string()), at(&format!("like-{i}"))).unwrap();
        }
        let split = if patient < 400 {
            "train"
        } else if patient < 450 {
            "val"
        } else {
            "test"
        };
        let (view, phase) = (["2CH", "4CH"][i / 2 % 2], ["ED", "ES"][i % 2]);
        format!("patient{patient:04},{view},{phase},images/like-{i}.png,masks/like-{i}.png,{split}\n")
    });
    let table: String =
        std::iter::once("patient,view,phase,image,mask,split\n".to_owned()).chain(rows).collect();
    place.write("data/manifest.csv", &table);
    for model in ["stable-diffusion-v1-4", "stable-diffusion-v1-5"] {
        place.write(&format!("data/weights/{model}/model_index.json"), "{}");
    }
    place.write("data/weights/inception.safetensors", "");
    for model in ["resnet18", "resnet50", "vgg16", "vgg19", "efficientnet_b0"] {
        place.write(&format!("data/weights/imagenet/{model}.safetensors"), "");
    }
    let mut seen = 0;
    for entry in fs::read_dir(&experiments).unwrap() {
        let file = entry.unwrap().path();
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&file).unwrap();
        place.write(&format!("experiments/{name}"), &text);
        if name == "published.toml" {
            continue;
        }
        place.write("experiments/published.toml", "");
        let spec = format!("experiments/{name}");
        let sets = ["--set", "data.source=folder", "--set", "data.root=data"];
        let sets = if text.contains("source = \"camus\"") { &sets[..] } else { &[] };
        let status = place.synecho(&[&["status", &spec], sets].concat()).well().out;
        assert!(status.contains("report"), "{name}: {status}");
        // Nothing is wrong but the weights, which are empty here.
        let told = place.synecho(&[&["plan", &spec], sets].concat());
        match text.contains("data/weights") {
            true => {
                let mut faults = told.err.lines().filter(|line| line.starts_with("error: "));
                assert!(faults.all(|fault| fault.starts_with("error: data/weights/")), "{name}: {told:#?}");
                told.refused(&[]);
            }
            false => assert!(told.well().out.contains("report     report"), "{name}"),
        }
        // What it is for, and what it costs or needs, stands at its head.
        assert!(
            text.starts_with("# ") && text.contains(&format!("synecho run experiments/{name}")),
            "{name}"
        );
        seen += 1;
    }
    assert!(seen >= 14, "{seen} specs");
}

#[test]
fn a_margin_that_is_not_above_0_is_refused_with_its_line() {
    let place = Place::small();
    let spec = place.read("small.toml");
    let line = spec.lines().count() + 3;
    place.write("small.toml", &format!("{spec}\n[report.margins]\ndice = 0\n"));
    place.synecho(&["plan", "small.toml"]).refused(&[
        &format!("small.toml:{line}: `report.margins.dice`: a margin of 0 is not above 0"),
        "such as dice = 0.01",
    ]);
    place.synecho(&["plan", "small.toml", "--set", "report.margins.dice=-0.01"]).refused(&[
        "--set report.margins.dice=-0.01: `report.margins.dice`: a margin of -0.01 is not above 0",
    ]);
    place.synecho(&["plan", "small.toml", "--set", "report.margins.dice=0.01"]).well();
}
