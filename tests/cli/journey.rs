//! Run, look, run again, draw again.

use crate::support::{Place, RUN, SMALL, STAGES, finished, quick};

#[test]
fn a_run_gives_a_report_says_where_and_shows_its_progress_on_standard_error() {
    let done = finished();
    assert_eq!(
        done.told.out,
        "8 of 8 stages were done now, 0 were there; the report is out/small/index.html\n"
    );
    let labels: Vec<&str> =
        done.told.err.lines().map(|line| line.rsplit_once(" [").map_or(line, |(label, _)| label)).collect();
    assert_eq!(
        labels,
        [
            "draw the phantom",
            "import the phantom",
            "prepare at 40 px",
            "train segmentation monai-unet, real, seed 0",
            "measure segmentation monai-unet, real, seed 0",
            "train classification resnet18, real, seed 0",
            "measure classification resnet18, real, seed 0",
            "report",
        ]
    );
    let files = done.place.files("out/small");
    for name in [
        "index.html",
        "measurements.csv.gz",
        "curves.csv.gz",
        "report.json",
        "stages.json",
        "resolved.toml",
        "figures/segmentation_convergence_steps.svg",
        "figures/segmentation_convergence_epochs.png",
        "figures/segmentation_dice_boxes.pdf",
        "figures/segmentation_dice_boxes.svg",
        "figures/segmentation_samples.png",
        "figures/classification_confusion.svg",
        "tables/segmentation_convergence.md",
        "tables/segmentation_dice.tex",
        "tables/classification.md",
        "tables/training.csv",
    ] {
        assert!(files.get(name).is_some_and(|bytes| bytes.len() > 100), "{name}");
    }
    let measurements = done.place.measurements("out/small");
    let mut lines = measurements.lines();
    assert_eq!(
        lines.next(),
        Some("experiment,task,arm,model,seed,split,patient,view,phase,structure,metric,value,unit,n")
    );
    assert!(lines.clone().any(|l| l.starts_with("small,segmentation,real,monai-unet,0,test,patient")));
    assert!(lines.any(|l| l.starts_with("small,classification,real,resnet18,0,test,,,,,accuracy,")));
    let curves = done.place.unpacked("out/small/curves.csv.gz");
    assert!(curves.starts_with("experiment,task,arm,model,seed,split,step,epoch,structure,metric,value\n"));
    let page = done.place.read("out/small/index.html");
    assert!(page.contains("phantom"), "a report of the phantom says so");
    // Offline: nothing is loaded from anywhere.
    for word in ["src=\"http", "href=\"http", "url(http", "@import"] {
        assert!(!page.contains(word), "{word}");
    }
}

#[test]
fn a_second_run_does_nothing_and_is_quick() {
    let place = Place::finished();
    let before = place.files("out/small");
    // The aim is 2 s on a quiet machine.
    quick(4.0, 6.0, || {
        let told = place.synecho(&RUN).well();
        assert_eq!(told.stages_done(), (0, STAGES));
        assert_eq!(told.err, "");
    });
    assert!(place.files("out/small") == before);
}

#[test]
fn plan_and_status_tell_what_is_there() {
    let place = Place::small();
    let plan = place.synecho(&["plan", "small.toml", "--json"]).json();
    assert_eq!(plan["to_do"], STAGES);
    let text = place.synecho(&["plan", "small.toml"]).well().out;
    assert!(text.contains("8 to do; nothing like them was run in this store yet"), "{text}");
    let status = place.synecho(&["status", "small.toml"]).well().out;
    assert!(status.ends_with("0 done, 0 running, 0 failed, 0 interrupted, 8 not begun\n"), "{status}");
    assert!(!place.path("runs").exists(), "looking makes no store");

    let place = &finished().place;
    let plan = place.synecho(&["plan", "small.toml", "--json"]).json();
    let stages = plan["stages"].as_array().unwrap();
    assert!(stages.len() == STAGES && stages.iter().all(|stage| stage["hit"] == true), "{plan:#}");
    assert_eq!(plan["to_do"], 0);
    assert!(
        place
            .synecho(&["plan", "small.toml"])
            .well()
            .out
            .ends_with("everything is there: a run only looks\n")
    );
    let status = place.synecho(&["status", "small.toml", "--json"]).json();
    let stages = status["stages"].as_array().unwrap();
    assert!(stages.len() == STAGES && stages.iter().all(|stage| stage["status"] == "done"), "{status:#}");
    let whole = place.synecho(&["status", "--json"]).json();
    let done: u64 = whole.as_array().unwrap().iter().map(|count| count["done"].as_u64().unwrap()).sum();
    assert_eq!(done, STAGES as u64);

    // What a longer training would take is known from this one.
    let more =
        place.synecho(&["plan", "small.toml", "--json", "--set", "tasks.segmentation.epochs=6"]).json();
    assert_eq!(more["to_do"], 3, "train, measure, report");
    assert!(more["estimated_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(more["without_estimate"], 0);
}

#[test]
fn a_report_is_redrawn_to_the_same_bytes_and_a_new_title_trains_nothing() {
    let place = Place::finished();
    let store = place.files("runs");
    let told = place.synecho(&["report", "small.toml", "--out", "again"]).well();
    assert_eq!(told.out, "again/index.html\n");
    assert!(place.files("again") == place.files("out/small"));
    place.synecho(&["report", "small.toml"]).well();
    assert!(place.files("again") == place.files("out/small"));
    assert!(place.files("runs") == store, "redrawing leaves the store as it is");

    // From its own data files, without a store and without PNG.
    let elsewhere = Place::new();
    for (name, bytes) in place.files("again") {
        elsewhere.write_bytes(&format!("moved/{name}"), &bytes);
    }
    let told = elsewhere.synecho(&["report", "--from", "moved"]).well();
    assert_eq!(told.out, "moved/index.html\n");
    assert!(elsewhere.files("moved") == place.files("again"));
    elsewhere.synecho(&["report", "--from", "moved", "--out", "web", "--formats", "svg,pdf"]).well();
    let web = elsewhere.files("web");
    assert!(web.keys().any(|name| name.ends_with(".pdf")) && !web.keys().any(|name| name.ends_with(".png")));
    assert_eq!(web["report.json"], elsewhere.files("moved")["report.json"]);
    elsewhere.synecho(&["report", "--from", "web/tables"]).refused(&["report.json: cannot read", "help: "]);
    elsewhere.synecho(&["report"]).refused(&["<SPEC|--from <DIR>>"]);

    let title = ["--set", "experiment.title=\"Another title\""];
    let told = place.synecho(&[&RUN[..], &title, &["--reports", "titled"]].concat()).well();
    assert_eq!(told.stages_done(), (1, STAGES));
    assert!(place.read("titled/small/index.html").contains("Another title"));
    assert_eq!(place.measurements("titled/small"), place.measurements("out/small"));

    // In its place: the earlier report can be drawn again from the store.
    let told = place.synecho(&[&RUN[..], &title].concat()).well();
    let (_, from) = told.err.split_once("synecho report --from ").expect(&told.err);
    let from = from.split(' ').next().unwrap();
    place.synecho(&["report", "--from", from, "--out", "earlier"]).well();
    assert!(place.files("earlier") == place.files("again"));

    Place::small().synecho(&["report", "small.toml"]).refused(&[
        "7 of 7 stages are not done yet, the first is: draw the phantom",
        "synecho run small.toml",
    ]);
}

#[test]
fn a_resolved_spec_says_all_and_is_quiet_when_asked() {
    let resolved = finished().place.read("out/small/resolved.toml");
    for part in ["title = \"small\"", "batch_size = 4", "schedule = \"cosine\"", "split = \"official\""] {
        assert!(resolved.contains(part), "{part} in {resolved}");
    }
    let place = Place::finished();
    let told = place.synecho(&[&RUN[..], &["--quiet", "--set", "experiment.title=Q"]].concat()).well();
    assert_eq!((told.stages_done(), told.err.as_str()), ((1, STAGES), ""));
}

#[test]
fn a_plan_of_a_thousand_trainings_is_quick() {
    let place = Place::new();
    let seeds: Vec<String> = (0..1000).map(|seed| seed.to_string()).collect();
    place.write(
        "small.toml",
        &format!("{SMALL}\n[[arms]]\n")
            .replace("name = \"small\"", &format!("name = \"small\"\nseeds = [{}]", seeds.join(","))),
    );
    let args = ["plan", "small.toml", "--json", "--set", "tasks.segmentation.epochs=2"];
    // Both tasks: 1000 seeds are 2000 trainings; half of them must be within the limit.
    let plan = place.synecho(&args).json();
    let of = |kind: &str| plan["stages"].as_array().unwrap().iter().filter(|s| s["kind"] == kind).count();
    assert_eq!((of("train"), of("measure"), of("report")), (2000, 2000, 1));
    let half = seeds[..500].join(",");
    // The aim is 0.5 s on a quiet machine; here other tests take the cores.
    quick(2.0, 4.0, || {
        let told =
            place.synecho(&["plan", "small.toml", "--set", &format!("experiment.seeds=[{half}]")]).well();
        assert!(told.out.contains("small: 2004 stages"), "{}", told.out.lines().next().unwrap());
    });
}

#[test]
fn what_is_for_programs_is_one_json_document() {
    let place = Place::finished();
    let doctor = place.synecho(&["doctor", "--json"]).json();
    assert_eq!(doctor["libtorch"]["version"], "2.13.0");
    assert!(doctor["devices"].as_array().unwrap().contains(&"cpu".into()));
    let data = place.artifact("runs", "prepare at").join("data");
    let data = data.to_str().unwrap();
    let check = place.synecho(&["data", "check", data, "--json"]).json();
    assert_eq!((&check["patients"], &check["images"], &check["masks"]), (&10.into(), &40.into(), &40.into()));
    let dice = place.synecho(&["measure", "dice", "--truth", data, "--prediction", data, "--json"]).json();
    assert_eq!((&dice["metric"], &dice["value"], &dice["n"]), (&"dice".into(), &1.0.into(), &40.into()));
}

#[test]
fn every_command_has_help() {
    let place = Place::new();
    for command in [
        "",
        "run",
        "plan",
        "status",
        "report",
        "doctor",
        "data",
        "data import",
        "data phantom",
        "data check",
        "measure",
        "measure dice",
    ] {
        let args: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let told = place.synecho(&args).well();
        let (about, usage) = told.out.split_once("\n\nUsage: synecho").expect(&told.out);
        assert!(about.len() > 10 && usage.contains("--help"), "{told:#?}");
    }
}

#[test]
fn the_phantom_is_written_imported_and_checked() {
    let place = Place::new();
    place.synecho(&["data", "phantom", "--patients", "4", "--size", "64", "--to", "camus"]).well();
    let told = place.synecho(&["data", "import", "--from", "camus", "camus", "--to", "data"]).well();
    assert_eq!(told.out, "16 images of 4 patients are in data\n");
    let check = place.synecho(&["data", "check", "data"]).well();
    assert!(check.out.contains("patients  4\nimages    16 (16 with a mask)"), "{check:#?}");
}
