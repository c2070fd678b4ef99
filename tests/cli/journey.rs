//! Run, look, run again, draw again.

use crate::support::{Place, RUN, SMALL, STAGES, finished, quick};

#[test]
fn a_run_gives_a_report_says_where_and_shows_its_progress_on_standard_error() {
    let done = finished();
    let (results, last) = done.told.out.rsplit_once("\n\n").unwrap();
    assert_eq!(
        last,
        "8 of 8 stages were computed now, 0 were in the store. The report is out/small/index.html\n"
    );
    let lines: Vec<&str> = results.lines().collect();
    assert!(lines[0].starts_with("Segmentation: mean Dice on ") && lines[0].ends_with("; higher is better"));
    assert!(
        lines[1].starts_with("  arm   score [95 % interval]") && lines[2].starts_with("  real  0."),
        "{results}"
    );
    assert!(lines[4].starts_with("Classification: accuracy on "), "{results}");
    // A line per stage, with the time of day and the stage's number and key.
    let (times, labels): (Vec<&str>, Vec<&str>) = (done.told.err.lines())
        .map(|line| line.rsplit_once(" [").map_or(line, |(label, _)| label).split_once(' ').unwrap())
        .unzip();
    assert!(times.iter().all(|time| time.len() == 8 && time.matches(':').count() == 2), "{times:?}");
    assert_eq!(
        labels,
        [
            "1/8 draw the phantom",
            "2/8 import the phantom",
            "3/8 prepare at 40 px",
            "4/8 train segmentation monai-unet, real, seed 0",
            "5/8 measure segmentation monai-unet, real, seed 0",
            "6/8 train classification resnet18, real, seed 0",
            "7/8 measure classification resnet18, real, seed 0",
            "8/8 report",
        ]
    );
    // The log has all of it, and what was typed.
    let logs: Vec<_> = std::fs::read_dir(done.place.path("runs/logs")).unwrap().flatten().collect();
    let name = logs[0].file_name().into_string().unwrap();
    assert!(logs.len() == 1 && name.contains("-small-") && name.ends_with(".log"), "{name}");
    let log = std::fs::read_to_string(logs[0].path()).unwrap();
    assert!(log.lines().next().unwrap().contains(" run small.toml "), "{log}");
    for line in done.told.err.lines().chain(done.told.out.lines()) {
        assert!(log.contains(line), "no {line:?} in {log}");
    }
    assert!(log.contains("4/8 done in ") && log.contains(": step "), "the log is verbose: {log}");
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
            .ends_with("the store has everything: a run only draws the report\n")
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
    assert!(more["estimated_memory_bytes"].as_u64().unwrap() > 1 << 20);
    assert_eq!(more["without_estimate"], 0);
}

#[test]
fn a_report_is_redrawn_to_the_same_bytes_and_a_new_title_trains_nothing() {
    let place = Place::finished();
    let store = place.files("runs/report");
    let told = place.synecho(&["report", "small.toml", "--out", "again"]).well();
    assert_eq!(told.out, "again/index.html\n");
    assert!(place.files("again") == place.files("out/small"));
    place.synecho(&["report", "small.toml"]).well();
    assert!(place.files("again") == place.files("out/small"));
    assert!(place.files("runs/report") == store, "redrawing leaves the store as it is");

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
    elsewhere.synecho(&["report"]).refused(&["the spec is missing", "--from"]);

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

/// Every command, by asking for the help of each.
fn commands(place: &Place, of: &[&str]) -> Vec<Vec<String>> {
    let help = place.synecho(&[of, &["--help"]].concat()).well().out;
    let mut found = vec![of.iter().map(|word| (*word).to_owned()).collect()];
    let Some((_, list)) = help.split_once("\nCommands:\n") else { return found };
    for line in list.lines().take_while(|line| !line.is_empty()) {
        // A longer text of a command goes on further to the right.
        let name =
            line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')).and_then(|r| r.split(' ').next());
        if let Some(name) = name.filter(|name| *name != "help") {
            found.extend(commands(place, &[of, &[name]].concat()));
        }
    }
    found
}

#[test]
fn every_command_has_help_in_plain_words() {
    let place = Place::new();
    let commands = commands(&place, &[]);
    assert!(commands.len() > 20 && commands.iter().any(|command| command.join(" ") == "measure dice"));
    for command in &commands {
        let args: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
        let told = place.synecho(&args).well();
        let (about, usage) = told.out.split_once("\n\nUsage: synecho").expect(&told.out);
        assert!(about.len() > 10 && usage.contains("--help"), "{told:#?}");
        let text = told.out.split_whitespace().collect::<Vec<_>>().join(" ");
        for habit in [
            " alone",
            " is no ",
            " told ",
            " tells ",
            "made again",
            "drawn again",
            "there is no ",
            "(default",
        ] {
            assert!(!text.contains(habit), "{habit:?} in the help of {command:?}");
        }
        // Usage, lists and examples are not sentences.
        let is_prose = |part: &&str| {
            !["Usage:", "Commands:", "Arguments:", "Options:", "Examples:"]
                .iter()
                .any(|head| part.starts_with(head))
        };
        let paragraphs = told.out.split("\n\n").filter(is_prose).map(|part| part.replace('\n', " "));
        for sentence in paragraphs.flat_map(|part| part.split(". ").map(str::to_owned).collect::<Vec<_>>()) {
            assert!(sentence.split_whitespace().count() <= 40, "{sentence:?} in the help of {command:?}");
        }
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

#[test]
fn completions_and_manual_pages_are_written() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let told = place.synecho(&["completions", shell]).well();
        assert!(told.out.contains("synecho") && told.out.contains("measure"), "{shell}");
    }
    place.synecho(&["man", "pages"]).well();
    assert!(place.read("pages/synecho.1").contains("synecho") && place.path("pages/synecho-run.1").is_file());
}

#[test]
fn status_sees_what_runs_with_other_settings_and_what_is_missing() {
    let place = Place::finished();
    let long = ["--set", "tasks.segmentation.epochs=5000", "--quiet"];
    let mut run = place.command(&[&RUN[..], &long].concat()).spawn().unwrap();
    let start = std::time::Instant::now();
    let status = loop {
        let status = place.synecho(&["status", "small.toml"]).well().out;
        if status.contains(" steps, ") || start.elapsed().as_secs() > 60 {
            break status;
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    };
    run.kill().unwrap();
    run.wait().unwrap();
    let line = status.lines().find(|line| line.contains(" steps, ")).expect(&status);
    assert!(status.contains("with other settings or of another spec:"), "{status}");
    assert!(line.contains("train segmentation") && line.contains(" left, loss "), "{line}");
    assert!(line.contains(" per second") && line.contains(", process "), "{line}");

    std::fs::remove_file(place.artifact("runs", "measure classification").join("measurements.csv")).unwrap();
    let status = place.synecho(&["status", "small.toml"]).well().out;
    assert!(status.contains("the stored copy is damaged") && status.contains("7 done"), "{status}");
    assert_eq!(place.synecho(&["plan", "small.toml", "--json"]).json()["to_do"], 1);
}

#[test]
fn a_run_that_is_interrupted_says_how_to_go_on() {
    let place = Place::small();
    let long = ["--set", "tasks.segmentation.epochs=5000"];
    let run = place.command(&[&RUN[..], &long].concat()).spawn().unwrap();
    let start = std::time::Instant::now();
    while !place.path("runs/train").exists() {
        assert!(start.elapsed().as_secs() < 60);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let pid = run.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let ended = run.wait_with_output().unwrap();
    // As a shell reports it: 130.
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended.status), Some(2));
    let err = String::from_utf8(ended.stderr).unwrap();
    assert!(
        err.ends_with(
            "interrupted. The same command resumes: finished stages and checkpoints are in the store\n"
        ),
        "{err}"
    );
}
