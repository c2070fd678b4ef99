//! Tiny generators in every mode and space; and killed and continued, they end with the same bytes.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::OnceLock,
    time::{Duration, Instant},
};

use crate::support::Place;

const HEAD: &str = r#"[experiment]
name = "made"

[data]
source = "phantom"

[data.phantom]
patients = 10
size = 64
"#;

/// As little work as a generator can have; every mode reads what concerns it.
const TINY: &str = r"image_size = 32
patch = 2
channels = [8, 16]
norm_num_groups = 4
attention_levels = [1]
attention_head_dim = 8
text_width = 16
text_layers = 1
text_heads = 2
autoencoder_channels = [8, 16]
autoencoder_steps = 30
steps = 40
batch_size = 4
warmup_steps = 5
validate_every = 20
grid_every = 20
sampling_steps = 6
sampling_batch = 2
per_class_images = 6
";

/// Steps of each in [`TINY`], and images.
pub const STEPS: u64 = 40;
pub const IMAGES: usize = 24;

/// Names and what is not [`TINY`] of them.
pub const GENERATORS: [(&str, &str); 9] = [
    ("channels", "mode = \"text+segmentation\"\nconditioning = \"channels\"\nper_mask = 2\n"),
    ("control", "mode = \"text+segmentation\"\nbase = \"text\"\nconditioning = \"controlnet\"\n"),
    // Without augmentation: its latents are kept.
    (
        "control-latent",
        "mode = \"text+segmentation\"\nbase = \"latent\"\nconditioning = \"controlnet\"\nsector = false\ndrop_masks = false\naugment = { enabled = false }\n",
    ),
    (
        "each",
        "mode = \"unconditional\"\nper_class = true\nimage_space = \"pixel\"\nobjective = \"diffusion\"\n",
    ),
    ("inpaint", "mode = \"inpaint\"\nbase = \"told\"\nper_mask = 2\n"),
    // Both networks are trained together, and sampling begins at the mask.
    (
        "joint",
        "mode = \"text+segmentation\"\nconditioning = \"controlnet\"\nmask_start = 0.3\noptimal_transport = true\nscheduler = \"flow-midpoint\"\nguidance = 2.0\n",
    ),
    ("latent", "mode = \"text\"\nimage_space = \"latent\"\nobjective = \"diffusion\"\n"),
    ("text", "mode = \"text\"\n"),
    ("told", "mode = \"unconditional\"\n"),
];

/// An arm with half of the patients beside one with all: the generator is trained on them alone as well.
const ARM: &str = "\n[[arms]]\nname = \"all\"\nsynthetic = \"channels\"\n\n[[arms]]\nname = \"half\"\nreal_fraction = 0.5\nsynthetic = \"channels\"\n";

/// A spec of one generator, on data that [`HEAD`] draws.
pub fn only(name: &str, lines: &str) -> String {
    format!("{HEAD}{}", section(name, lines))
}

pub fn section(name: &str, lines: &str) -> String {
    format!("\n[generators.{name}]\n{TINY}{lines}")
}

pub const RUN: [&str; 6] = ["run", "made.toml", "--jobs", "1", "--threads", "1"];

/// All of [`GENERATORS`], trained and sampled once for all tests.
pub fn made() -> &'static Place {
    static MADE: OnceLock<(Place, fs::File)> = OnceLock::new();
    let (place, _) = MADE.get_or_init(|| {
        let (place, lock) = Place::standing("cli-generators");
        let sections: String = GENERATORS.iter().map(|(name, lines)| section(name, lines)).collect();
        place.write("made.toml", &format!("{HEAD}{sections}{ARM}"));
        place.synecho(&RUN).well();
        (place, lock)
    });
    place
}

/// The folder that diffusers loads.
pub fn pipeline(name: &str) -> PathBuf {
    made().artifact("runs", &format!("train {name}: ")).join("pipeline")
}

/// Step of the training that a checkpoint is of; none where there is no checkpoint.
pub fn step(file: &Path) -> Option<u64> {
    let bytes = fs::read(file).ok()?;
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let standing = header["__metadata__"]["standing"].as_str().unwrap();
    serde_json::from_str::<serde_json::Value>(standing).unwrap()["step"].as_u64()
}

/// (label, kind, key) of every stage.
pub fn stages(place: &Place) -> Vec<(String, String, String)> {
    let plan = place.synecho(&["plan", "made.toml", "--json"]).json();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let stages = plan["stages"].as_array().unwrap();
    stages.iter().map(|stage| (text(&stage["label"]), text(&stage["kind"]), text(&stage["key"]))).collect()
}

/// When to kill, in the order of the plan: the stage, and what of its checkpoints must have come on.
/// Twice in one training: the second try has to go on from the first one's checkpoint.
const MOMENTS: [(&str, &str); 13] = [
    ("train channels: ", "model"),
    ("train channels: ", "model"),
    ("24 images of channels: ", "images"),
    ("train text: ", "model"),
    ("train control: ", "model"),
    ("24 images of control: ", "images"),
    ("24 images of control: ", "images"),
    ("train latent: ", "model/autoencoder"),
    ("train latent: ", "model"),
    ("train control-latent: ", "model"),
    ("train each: ", "4ch_ed"),
    ("24 images of each: ", "images"),
    ("train told: ", "model"),
];

/// How far a stage is: steps of a training, or images.
fn standing(checkpoint: &Path, part: &str) -> u64 {
    match part {
        "images" => fs::read_dir(checkpoint.join(part)).map_or(0, |entries| {
            entries.flatten().filter(|e| e.path().extension().is_some_and(|e| e == "png")).count() as u64
        }),
        _ => step(&checkpoint.join(part).join("last.safetensors")).unwrap_or(0),
    }
}

#[test]
fn killed_and_continued_generators_and_images_are_the_same_bytes() {
    let place = Place::new();
    place.write("made.toml", &made().read("made.toml"));
    let stages = stages(&place);
    let stormy = [&RUN[..], &["--checkpoint-every", "0"]].concat();
    for moment @ (label, part) in MOMENTS {
        let (_, kind, key) = stages.iter().find(|(l, ..)| l.starts_with(label)).unwrap();
        let checkpoint = place.path("runs").join(kind).join(format!("{key}.partial/checkpoint"));
        let before = standing(&checkpoint, part);
        // The next try is seen to go on: a fresh start would be seen at less.
        let least = if part == "images" { 1 } else { 6 };
        let mut child = place.command(&stormy).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let start = Instant::now();
        let first = loop {
            let now = standing(&checkpoint, part);
            if now != before && now >= least {
                break now;
            }
            assert_eq!(child.try_wait().unwrap(), None, "the run ended before {moment:?}");
            assert!(start.elapsed() < Duration::from_secs(900), "{moment:?} did not come");
            std::thread::sleep(Duration::from_millis(1));
        };
        child.kill().unwrap();
        child.wait().unwrap();
        let at = standing(&checkpoint, part);
        println!("{moment:?}: from {before}, seen at {first}, killed at {at}");
        assert!(first > before, "{moment:?}: begun again at {first}, though {before} were done");
        let all = if part == "images" { IMAGES as u64 } else { STEPS };
        assert!(0 < at && at < all, "{moment:?}: killed at {at} of {all}");
    }
    place.synecho(&stormy).well();
    for (label, kind, key) in
        stages.iter().filter(|(_, kind, _)| ["generator", "generate"].contains(&&**kind))
    {
        let folder = format!("runs/{kind}/{key}");
        let (mut calm, mut stormy) = (made().files(&folder), place.files(&folder));
        // It holds the time.
        assert!(calm.remove("record.json").is_some() && stormy.remove("record.json").is_some());
        let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&calm), names(&stormy), "{label}");
        for (name, bytes) in &calm {
            assert!(*bytes == stormy[name], "{label}: {name} differs");
        }
        let wanted = if kind == "generator" { "model_index.json" } else { "data/manifest.csv" };
        assert!(calm.keys().any(|name| name.ends_with(wanted)), "{label} holds no {wanted}");
    }
}

#[test]
fn a_plan_tells_what_each_generator_costs() {
    let place = Place::new();
    place.write("made.toml", &made().read("made.toml"));
    let told = place.synecho(&["plan", "made.toml"]).well().out;
    for (name, _) in GENERATORS {
        let models = if name == "each" { "4 x " } else { "" };
        let trained = format!("train {name}: {models}40 steps of 4 images, 32 px");
        // Inpainting samples the networks of another one.
        assert_eq!(told.contains(&trained), name != "inpaint", "{trained:?} in {told}");
        let sampled = format!("24 images of {name}: 6 steps each");
        assert!(told.contains(&sampled), "no {sampled:?} in {told}");
    }
    let half = "train channels, 50% of the patients, seed 0: 40 steps of 4 images, 32 px";
    assert!(told.contains(half), "{told}");
}
