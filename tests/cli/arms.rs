//! What each kind of arm is trained on, and for how long; and what is refused.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{
    generators::{RUN, only, pipeline, section},
    support::{self, Place, folder},
};

const CHANNELS: &str = "mode = \"text+segmentation\"\nconditioning = \"channels\"\n";

const ARMS: &str = r#"
[[arms]]

[[arms]]
synthetic = "ts"
ratio = [0.25, 0.5]

[[arms]]
control = "duplicate-real"
ratio = 1.5

[[arms]]
synthetic = "ts"
ratio = 0.5
mix = "synthetic-only"

[[arms]]
synthetic = "ts"
ratio = 0.5
mix = "pretrain"
pretrain_share = 0.25

[[arms]]
real_fraction = 0.5
control = "duplicate-real"

[[arms]]
budget_share = 0.5

[tasks.segmentation]
image_size = 32
channels = [4, 8, 16]
budget = { steps = 16, validate_every = 5 }
"#;

fn json(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

#[test]
fn every_arm_has_its_images_and_all_have_the_same_steps() {
    let place = Place::new();
    place.write("made.toml", &format!("{}{ARMS}", only("ts", CHANNELS)));
    place.synecho(&RUN).well();
    // 6 patients train, with 4 images each.
    for (label, images, synthetic, patients) in [
        ("train segmentation monai-unet, real, seed", 24, 0, 6),
        ("train segmentation monai-unet, real + 25% ts, ", 30, 6, 6),
        ("train segmentation monai-unet, real + 50% ts, ", 36, 12, 6),
        ("train segmentation monai-unet, real + 150% duplicate-real, ", 60, 0, 6),
        ("train segmentation monai-unet, 50% ts alone, ", 12, 12, 0),
        ("fine-tune segmentation monai-unet, 50% ts, then real, ", 36, 12, 6),
        ("train segmentation monai-unet, real 50% + 100% duplicate-real, ", 24, 0, 3),
        ("train segmentation monai-unet, real, 50% of the steps, ", 24, 0, 6),
    ] {
        let artifact = place.artifact("runs", label);
        let summary = json(&artifact.join("summary.json"));
        let number = |name: &str| summary[name].as_u64().unwrap();
        let found = (number("train_images"), number("synthetic_images"), number("train_patients"));
        assert_eq!(found, (images, synthetic, patients), "{label}");
        let half = label.contains("of the steps");
        assert_eq!(number("steps"), if half { 8 } else { 16 }, "{label}");
        // Validated at the same steps, whatever the number of images; of two phases, over the steps of both.
        let curves = fs::read_to_string(artifact.join("curves.csv")).unwrap();
        let mut steps: Vec<u64> = curves
            .lines()
            .filter(|line| line.contains(",val,") && line.contains(",loss,"))
            .map(|line| line.split(',').nth(6).unwrap().parse().unwrap())
            .collect();
        steps.dedup();
        let expected: &[u64] = match label.starts_with("fine") {
            _ if half => &[5, 8],
            true => &[4, 9, 14, 16],
            false => &[5, 10, 15, 16],
        };
        assert_eq!(steps, expected, "{label}");
    }
    // The same artifact for the same work, whoever asks.
    let again = only("ts", CHANNELS) + &ARMS.replace("[[arms]]\n\n", "[[arms]]\nname = \"baseline\"\n\n");
    place.write("other.toml", &again.replace("\"made\"", "\"other\""));
    assert_eq!(
        place.synecho(&["run", "other.toml", "--jobs", "1", "--threads", "1"]).well().stages_done().0,
        1
    );
    // What the arms say is in the table of what was trained.
    let told = place.read("out/made/tables/training.md");
    for part in ["6 patients, 36 images, 12 of them synthetic", "12 images, all synthetic"] {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn a_generator_of_few_patients_alone_is_not_trained_on_all() {
    let place = Place::new();
    let arm = "\n[[arms]]\nsynthetic = \"ts\"\nreal_fraction = 0.5\n\n[tasks.segmentation]\n";
    let spec = only("ts", CHANNELS).replace("[data]", "seeds = [0, 1]\n\n[data]");
    place.write("made.toml", &(spec + arm));
    let told = place.synecho(&["plan", "made.toml"]).well().out;
    let trained: Vec<&str> = told.lines().filter(|line| line.contains("train ts")).collect();
    assert_eq!(trained.len(), 2, "{told}");
    for (line, seed) in trained.iter().zip(0..) {
        assert!(line.contains(&format!("50% of the patients, seed {seed}")), "{line}");
    }
}

#[test]
fn arms_that_cannot_be_meant_are_refused() {
    let place = Place::new();
    let head = section("ts", CHANNELS);
    let tail = "\n[tasks.segmentation]\n";
    for (arm, parts) in [
        ("mix = \"pretrain\"", ["`arms.0.mix`", "without synthetic images", "name the generator"]),
        ("budget_share = 1.5", ["`arms.0.budget_share`", "1.5 is out of range", "0.01 to 1"]),
        ("ratio = 0.5", ["`arms.0.ratio`", "without synthetic images", "name the generator"]),
        (
            "synthetic = \"t\"",
            ["`arms.0.synthetic`", "the spec has no generator \"t\"", "did you mean \"ts\"?"],
        ),
        (
            "synthetic = \"ts\"\ncontrol = \"duplicate-real\"",
            ["`arms.0.control`", "a control has no synthetic images", "an arm of its own"],
        ),
        (
            "control = \"duplicate\"",
            ["unknown variant `duplicate`", "made.toml:", "did you mean `duplicate-real`?"],
        ),
        (
            "synthetic = \"ts\"\npretrain_share = 0.5",
            ["`arms.0.pretrain_share`", "nothing is trained first", "mix = \"pretrain\""],
        ),
        (
            "synthetic = \"ts\"\nmix = \"pretrain\"\npretrain_share = 1.5",
            ["`arms.0.pretrain_share`", "1.5 is out of range", "0.01 to 0.99"],
        ),
        (
            "synthetic = \"ts\"\nratio = [0.5, 0.5]",
            ["`arms.0`", "two arms named \"real + 50% ts\"", "a name of its own"],
        ),
    ] {
        let text = format!("[data]\nsource = \"phantom\"\n{head}\n[[arms]]\n{arm}\n{tail}");
        place.write("made.toml", &text);
        place.synecho(&["plan", "made.toml"]).refused(&parts);
    }
    place.write("made.toml", &format!("[data]\nsource = \"phantom\"\n{tail}budget = {{ steps = 0 }}\n"));
    place.synecho(&["plan", "made.toml"]).refused(&["budget.steps", "0 is out of range", "from 1"]);
}

/// On [`folder`]: an arm whose images another program made.
const EXTERNAL: &str = r#"
[generators.other]
mode = "external"
folder = "made"

[[arms]]
synthetic = "other"
"#;

/// A folder of synthetic images beside [`folder`]'s, made from the masks of `patient`.
fn external(patient: &str) -> Place {
    let place = folder();
    let table = place.read("data/manifest.csv");
    let mut lines = vec!["patient,view,phase,image,mask,split,source_mask".to_owned()];
    for row in table.lines().skip(1).take(8) {
        let columns: Vec<&str> = row.split(',').collect();
        let [_, view, phase, image, mask, _] = columns[..] else { panic!("{row}") };
        lines.push(format!("s{},{view},{phase},{image},{mask},train,{patient}_{view}_{phase}", lines.len()));
        for file in [image, mask] {
            let to = place.path("made").join(file);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(place.path("data").join(file), to).unwrap();
        }
    }
    place.write("made/manifest.csv", &(lines.join("\n") + "\n"));
    let spec = place
        .read("small.toml")
        .replace("[tasks.segmentation]", &format!("{EXTERNAL}\n[tasks.segmentation]"));
    place.write("small.toml", &spec);
    place
}

#[test]
fn images_made_from_masks_of_patients_who_do_not_train_are_refused() {
    // p1 to p4 train, p7 is a test patient.
    let place = external("p1");
    place.synecho(&support::RUN).well();
    assert!(place.read("out/small/tables/generators.md").contains("Not trained here: other."));
    external("p7")
        .synecho(&support::RUN)
        .refused(&["the masks of 1 patient(s) who do not train in this arm: p7"]);
    // Masks that a network drew hide nothing of whose mask the image was made from.
    let place = external("p7");
    let spec =
        place.read("small.toml").replace("folder = \"made\"", "folder = \"made\"\npseudo_masks = true");
    place.write("small.toml", &spec);
    place.synecho(&support::RUN).refused(&["the masks of 1 patient(s) who do not train in this arm: p7"]);
    // Images that bear the name of a test patient, and do not say where they come from.
    let place = external("p1");
    let table = place.read("made/manifest.csv");
    let (first, last) = (table.find("s1,").unwrap(), table.find(",p1_").unwrap());
    let row = table[first..last].replacen("s1,", "p7,", 1);
    place.write(
        "made/manifest.csv",
        &format!(
            "{}{row}{}",
            &table[..first],
            table[last..].replacen(table[last..].lines().next().unwrap(), ",", 1)
        ),
    );
    place
        .synecho(&support::RUN)
        .refused(&["are called images of 1 patient(s) who do not train in this arm: p7"]);
}

#[test]
fn external_images_without_masks_are_refused_for_segmentation_before_any_work() {
    let place = external("p1");
    let bare: String = place
        .read("made/manifest.csv")
        .lines()
        .map(|line| {
            let mut columns: Vec<&str> = line.split(',').collect();
            if columns[0] != "patient" {
                columns[4] = "";
            }
            columns.join(",") + "\n"
        })
        .collect();
    place.write("made/manifest.csv", &bare);
    place.synecho(&["plan", "small.toml"]).refused(&[
        "the arm \"real + 100% other\" trains segmentation on images of other, of which 8 have no mask",
        "pseudo_masks = true",
    ]);
}

#[test]
fn a_ratio_of_more_images_than_there_are_is_refused_before_any_work() {
    let place = external("p1");
    // 8 images train, and 8 were made.
    let set = ["--set", "arms.0.ratio=1.5"];
    for command in ["plan", "run"] {
        place.synecho(&[&[command, "small.toml"][..], &set].concat()).refused(&[
            "small.toml: the arm \"real + 150% other\"",
            "asks for 12 synthetic images beside 8 real ones: other makes 8",
            "lower its ratio",
        ]);
    }
    // A control of no image controls nothing.
    place.write(
        "none.toml",
        &place.read("small.toml").replace(EXTERNAL, "[[arms]]\ncontrol = \"duplicate-real\"\nratio = 0.05\n"),
    );
    place.synecho(&["plan", "none.toml"]).refused(&[
        "the arm \"real + 5% duplicate-real\": a ratio of 0.05 of 8 real images is no image",
        "raise",
    ]);
    assert!(!place.path("runs").exists());
}

#[test]
fn a_finished_generator_that_knows_test_patients_is_refused() {
    let place = Place::new();
    // What it was trained on by another split of the same phantom.
    let lines = format!("{CHANNELS}pipeline = {:?}\n", pipeline("channels"));
    let other = "split = \"random\"\ntest_fraction = 0.4\n";
    place.write("made.toml", &only("ts", &lines).replace("[data]\n", &format!("[data]\n{other}")));
    place.synecho(&RUN).refused(&["the generator was trained on", "who do not train in this arm"]);
    place.write("made.toml", &only("ts", &lines));
    place.synecho(&RUN).well();
}
