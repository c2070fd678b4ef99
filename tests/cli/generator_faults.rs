//! What goes wrong with generators is told with its place and a remedy, and nothing half-done counts.

use std::{fs, os::unix::fs::symlink, path::Path};

use synecho::nn::tensor_file::{self, TensorFile};

use crate::{
    generators::{IMAGES, RUN, made, only, pipeline, section, step},
    support::{Place, folder},
};

/// A place with one generator `a`, of these lines.
fn place(lines: &str) -> Place {
    let place = Place::new();
    place.write("made.toml", &only("a", lines));
    place
}

fn run<'a>(sets: &'a [&'a str]) -> Vec<&'a str> {
    RUN.into_iter().chain(sets.iter().flat_map(|set| ["--set", *set])).collect()
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (entry, place) = (entry.path(), to.join(entry.file_name()));
        if entry.is_dir() {
            copy(&entry, &place);
        } else {
            fs::copy(&entry, &place).unwrap();
        }
    }
}

const UNCONDITIONAL: &str = "mode = \"unconditional\"\n";
const CONTROL: &str = "mode = \"text+segmentation\"\nconditioning = \"controlnet\"\n";
const CHANNELS: &str = "mode = \"text+segmentation\"\nconditioning = \"channels\"\n";

#[test]
fn wrong_specs_are_refused_before_any_work() {
    for (lines, set, parts) in [
        (
            CONTROL,
            "generators.a.base=\"b\"",
            ["base=\"b\"", "\"b\" is neither a generator of the spec nor a folder", "diffusers folder"],
        ),
        (
            "mode = \"unconditional\"\nobjective = \"diffusion\"\nscheduler = \"ddim\"\n",
            "generators.a.noise_levels=log-snr",
            ["noise_levels=log-snr", "the scheduler ddim has no noise levels \"log-snr\"", "dpmsolver++"],
        ),
        (
            "mode = \"unconditional\"\nobjective = \"diffusion\"\n",
            "generators.a.scheduler=flow-euler",
            [
                "scheduler=flow-euler",
                "flow-euler cannot sample networks trained with objective = \"diffusion\"",
                "choose \"dpmsolver++\", or set objective = \"flow\"",
            ],
        ),
        (
            UNCONDITIONAL,
            "generators.a.scheduler=ddim",
            [
                "scheduler=ddim",
                "ddim cannot sample networks trained with objective = \"flow\"",
                "\"flow-euler\"",
            ],
        ),
        (
            UNCONDITIONAL,
            "generators.a.noise_levels=log-snr",
            ["noise_levels=log-snr", "flow-midpoint has no noise levels \"log-snr\"", "\"timesteps\""],
        ),
        (
            UNCONDITIONAL,
            "generators.a.prediction=epsilon",
            ["prediction=epsilon", "is only used with objective = \"diffusion\"", "remove it, or set"],
        ),
        (
            "mode = \"unconditional\"\nobjective = \"diffusion\"\n",
            "generators.a.optimal_transport=true",
            ["optimal_transport=true", "is only used with objective = \"flow\"", "remove it, or set"],
        ),
        (CHANNELS, "generators.a.mask_start=1", ["mask_start=1", "1 is out of range", "from 0 to 0.95"]),
        (
            UNCONDITIONAL,
            "generators.a.mask_start=0.3",
            ["mask_start=0.3", "this mode is given no mask", "text+segmentation"],
        ),
        (
            UNCONDITIONAL,
            "generators.a.sector=true",
            ["sector=true", "this mode is given no mask", "remove it"],
        ),
        (
            CHANNELS,
            "generators.a.prompt_dropout=0",
            ["drop_masks", "no image goes without its prompt", "prompt_dropout = 0.1"],
        ),
        (
            "mode = \"inpaint\"\n",
            "generators.a.seed=1",
            ["`generators.a.base`: is missing", "samples an unconditional model", "mode \"unconditional\""],
        ),
        (
            "mode = \"inpaint\"\nbase = \"b\"\n",
            "generators.b.mode=text",
            ["generator \"b\" does not fit this mode", "`generators.a.base`", "an unconditional model"],
        ),
        (
            "mode = \"inpaint\"\nbase = \"b\"\n[generators.b]\nmode = \"unconditional\"\nimage_size = 32\n",
            "generators.b.objective=diffusion",
            ["`generators.a.scheduler`", "inpainting samples with flow-euler", "objective = \"flow\""],
        ),
        (
            "mode = \"inpaint\"\nbase = \"b\"\n[generators.b]\nmode = \"unconditional\"\nimage_size = 32\n",
            "generators.a.vary_masks=true",
            ["vary_masks=true", "the anatomy of these images is kept as it is", "remove it"],
        ),
        (CHANNELS, "generators.a.candidates=0", ["candidates=0", "0 is out of range", "from 1 to 1000"]),
        (
            CHANNELS,
            "generators.a.candidates=2",
            ["candidates=2", "no segmentation network compares them", "add [tasks.segmentation]"],
        ),
        (
            UNCONDITIONAL,
            "generators.a.candidates=2",
            ["candidates=2", "only images that are made from masks", "text+segmentation"],
        ),
        (
            "mode = \"unconditional\"\nobjective = \"diffusion\"\nscheduler = \"lcm\"\n",
            "generators.a.sampling_steps=51",
            ["sampling_steps=51", "51 is out of range", "from 1 to 50"],
        ),
        (
            UNCONDITIONAL,
            "generators.a.image_size=34",
            ["image_size=34", "34 px cannot be halved often enough", "choose 32 or 36"],
        ),
        (
            UNCONDITIONAL,
            "generators.a.image_size=16",
            ["image_size=16", "16 is out of range", "from 32 to 1024"],
        ),
        (
            "mode = \"unconditional\"\nper_class = true\n",
            "generators.a.guidance=2",
            ["guidance=2", "a model of one class has nothing to be guided by", "remove it"],
        ),
        (
            "mode = \"unconditional\"\nprompt_dropout = 0.0\n",
            "generators.a.guidance=2",
            ["guidance=2", "always sees the class cannot be guided", "prompt_dropout = 0.1"],
        ),
        (UNCONDITIONAL, "generators.a.learning_rate=1e3", ["learning_rate=1e3", "out of range", "to 1"]),
        (
            UNCONDITIONAL,
            "generators.a.attention_levels=[2]",
            ["attention_levels", "the network has no level 2", "0 to 1"],
        ),
        (
            "mode = \"text\"\n",
            "generators.a.prompt=\"{veiw}\"",
            ["prompt", "prompts have no field {veiw}", "{view}"],
        ),
    ] {
        let place = place(lines);
        place.synecho(&run(&[set])).refused(&parts);
        assert!(!place.path("runs").exists(), "{set}");
    }
}

#[test]
fn data_that_lacks_what_the_mode_needs_is_told() {
    // Two-chamber views alone.
    let place = folder();
    let data = "[data]\nsource = \"folder\"\nroot = \"data\"\n";
    for lines in [UNCONDITIONAL, "mode = \"unconditional\"\nper_class = true\n", "mode = \"text\"\n"] {
        place.write("made.toml", &format!("{data}{}", section("a", lines)));
        for command in [&RUN[..], &["plan", "made.toml"]] {
            place
                .synecho(command)
                .refused(&["the generator a: no training image is of 4CH ED", "synecho data check"]);
        }
    }
    // The same images without masks.
    let bare = (0..16)
        .fold(place.read("data/manifest.csv"), |table, i| table.replace(&format!(",masks/{i}.png,"), ",,"));
    place.write("data/manifest.csv", &bare);
    place.write("made.toml", &format!("{data}{}", section("a", CHANNELS)));
    place.synecho(&RUN).refused(&["the generator a: ", "has no mask", "mode = \"text\""]);
    assert!(!place.path("runs").exists());
}

#[test]
fn bases_and_pipelines_that_do_not_fit_are_told() {
    let (told, text) = (pipeline("told"), pipeline("text"));
    let place = Place::new();
    let without = place.path("without");
    copy(&text, &without);
    fs::remove_dir_all(without.join("text_encoder")).unwrap();
    let named = |key: &str, folder: &Path| format!("generators.a.{key}={:?}", folder.display().to_string());
    let all = [
        named("base", &told),
        named("pipeline", &told),
        named("base", &text),
        named("pipeline", &text),
        named("base", &without),
    ];
    let [told_base, told_pipeline, text_base, text_pipeline, without] = all.each_ref().map(String::as_str);
    let cases: [(&str, Vec<&str>, [&str; 3]); 10] = [
        (
            CONTROL,
            vec![told_base],
            ["the generator a: ", "the base is a DDPMPipeline", "StableDiffusionPipeline"],
        ),
        (
            "mode = \"text\"\n",
            vec![told_base],
            ["the generator a: ", "the base is a DDPMPipeline", "a text model"],
        ),
        (
            UNCONDITIONAL,
            vec![text_base],
            ["the generator a: ", "the base is a StableDiffusionPipeline", "DDIMPipeline"],
        ),
        (
            UNCONDITIONAL,
            vec![told_base, "generators.a.per_class=true"],
            ["train a: ", "takes the class as an input", "per_class"],
        ),
        (
            "mode = \"text\"\n",
            vec![text_base, "generators.a.objective=diffusion"],
            ["base=", "was trained with objective = \"flow\"", "objective = \"flow\", or start from another"],
        ),
        (
            CONTROL,
            vec![without],
            ["without/text_encoder: ", "model_index.json names it as a CLIPTextModel", "copy"],
        ),
        (
            CONTROL,
            vec![text_base, "generators.a.image_size=34"],
            ["train a: ", "images of 34 px cannot be halved", "a multiple of 4"],
        ),
        (
            UNCONDITIONAL,
            vec![text_pipeline],
            ["the generator a: ", "mode text where unconditional is needed", "mode = \"text\""],
        ),
        (
            CONTROL,
            vec![text_pipeline],
            ["the generator a: ", "mode text where text+segmentation is needed", "mode = \"text\""],
        ),
        (
            "mode = \"text\"\n",
            vec![told_pipeline],
            ["the generator a: ", "mode unconditional where text is needed", "another folder"],
        ),
    ];
    for (lines, sets, parts) in cases {
        place.write("made.toml", &only("a", lines));
        place.synecho(&run(&sets)).refused(&parts);
    }
}

#[test]
fn more_images_than_masks_give_are_told_with_what_would_do() {
    // Six training patients.
    let asked = ["steps=1", "grid_every=0", "per_class_images=13", "per_mask=2"];
    let asked = asked.map(|set| format!("generators.a.{set}"));
    place(CHANNELS).synecho(&run(&asked.each_ref().map(String::as_str))).refused(&[
        "train a: ",
        "13 images of 2CH ED, 2 per mask, need 7 masks: there are 6",
        "raise per_mask to 3, or lower per_class_images to 12",
    ]);
}

#[test]
fn f16_on_the_cpu_is_refused() {
    place(UNCONDITIONAL).synecho(&run(&["generators.a.precision=\"f16\""])).refused(&[
        "train a: ",
        "f16 only on CUDA",
        "precision = \"f32\"",
    ]);
}

#[test]
fn a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint() {
    // A base whose first embedded value is 0 (class 0), -inf (class 1, in f32) or far below 0 (the others),
    // which SiLU turns into 0, NaN and 0: all is well until class 1 comes.
    let place = place("mode = \"unconditional\"\nbase = \"base\"\nema = 0.0\n");
    copy(&pipeline("told"), &place.path("base"));
    let file = place.path("base/unet/diffusion_pytorch_model.safetensors");
    let opened = TensorFile::open(&file).unwrap();
    let tensors: Vec<_> =
        opened.entries().iter().map(|e| (e.name.clone(), opened.read(e).unwrap())).collect();
    drop(opened);
    let set = |name: &str, row: i64, value: f64| {
        let (_, tensor) = tensors.iter().find(|(n, _)| n == name).unwrap();
        let _ = tensor.view([-1]).narrow(0, row * tensor.size()[tensor.dim() - 1], 1).fill_(value);
    };
    set("time_embedding.linear_2.bias", 0, -1.8e38);
    set("class_embedding.weight", 0, 1.8e38);
    set("class_embedding.weight", 1, -1.8e38);
    tensor_file::write(&file, &tensors).unwrap();
    let asked =
        [
            &run(&[
                "generators.a.batch_size=1",
                "generators.a.validate_every=0",
                "generators.a.grid_every=0",
            ])[..],
            &["--checkpoint-every", "0"],
        ]
        .concat();
    let stopped = || {
        let told = place
            .synecho(&asked)
            .wrong(1, &["train a: ", "the loss is NaN at step ", "lower the learning_rate"]);
        let after = told.err.split("at step ").nth(1).unwrap();
        let at: u64 = after.split_whitespace().next().unwrap().parse().unwrap();
        let partial = fs::read_dir(place.path("runs/generator")).unwrap().flatten();
        let partial =
            partial.map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == "partial")).unwrap();
        (at, partial.join("checkpoint/model/last.safetensors"))
    };
    let (at, last) = stopped();
    assert!(at > 1, "no step was good");
    assert_eq!(step(&last), Some(at - 1));
    let opened = TensorFile::open(&last).unwrap();
    for entry in opened.entries() {
        let finite = opened.read(entry).unwrap().isfinite().all();
        assert_eq!(finite.int64_value(&[]), 1, "{}", entry.name);
    }
    // Started again it goes on from there, to the same step.
    assert_eq!(stopped().0, at);
}

#[test]
fn a_full_disk_leaves_nothing_half_written() {
    if !Path::new("/dev/full").exists() {
        eprintln!("skipped: a full disk, which this system cannot play (no /dev/full)");
        return;
    }
    let place = made().copied();
    let again = |label: &str, part: &str, file: &str| {
        let artifact = place.artifact("runs", label);
        fs::remove_dir_all(&artifact).unwrap();
        let checkpoint = artifact.with_extension("partial").join("checkpoint").join(part);
        fs::create_dir_all(&checkpoint).unwrap();
        // Whatever is written there finds no space left.
        symlink("/dev/full", checkpoint.join(file)).unwrap();
        place.synecho(&RUN).wrong(1, &[label, file, "No space left", "make room"]);
        checkpoint
    };
    let same = |label: &str| {
        place.synecho(&RUN).well();
        let files = |place: &Place| {
            let artifact = place.artifact("runs", label);
            let mut files = place.files(&artifact.display().to_string());
            files.remove("record.json");
            files
        };
        assert!(files(&place) == files(made()), "{label}");
    };

    let label = format!("{IMAGES} images of told: ");
    let images = again(&label, "images", "000009.partial");
    let there: Vec<bool> = (0..IMAGES).map(|i| images.join(format!("{i:06}.png")).exists()).collect();
    assert_eq!(
        there,
        (0..IMAGES).map(|i| i < 9).collect::<Vec<_>>(),
        "images up to the full disk, no others"
    );
    fs::remove_file(images.join("000009.partial")).unwrap();
    same(&label);

    let model = again("train told: ", "model", "next.safetensors");
    assert!(!model.join("last.safetensors").exists());
    fs::remove_file(model.join("next.safetensors")).unwrap();
    same("train told: ");
}

#[test]
fn mask_channels_on_a_stock_model_are_read_back() {
    let place = place(&format!("{CHANNELS}base = \"stock\"\nper_mask = 2\n"));
    copy(&pipeline("latent"), &place.path("stock"));
    fs::remove_file(place.path("stock/synecho.json")).unwrap();
    place.synecho(&RUN).well();
    let extras = place.artifact("runs", "train a: ").join("pipeline/synecho.json");
    assert!(fs::read_to_string(extras).unwrap().contains("\"mask_channels\": true"));
}
