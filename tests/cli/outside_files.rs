//! Files that a spec names: whatever is wrong with them is reported at once, before any work.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use synecho::{nn::tensor_file, vocabulary::Backbone};
use tch::{Device, nn::VarStore};

use crate::{
    generator_faults::copy,
    generators::pipeline,
    support::{Place, RUN, SMALL, folder},
    torch_save::torch_save,
};

const PLAN: [&str; 2] = ["plan", "small.toml"];

/// A manifest folder, two classifiers from weights, an extractor, and images of another program.
fn place() -> Place {
    let place = folder();
    fs::create_dir_all(place.path("nets")).unwrap();
    fs::create_dir_all(place.path("made/images")).unwrap();
    let tasks = "label = \"view\"\nmodels = [\"resnet18\", \"efficientnet_b0\"]\nweights = \"nets\"";
    let more = "\n[measure.extractor]\nname = \"inception-fid\"\nweights = \"nets/inception.pth\"\n\n\
                [generators.a]\nmode = \"external\"\nfolder = \"made\"\n";
    place.write("small.toml", &(place.read("small.toml").replace("label = \"view\"", tasks) + more));
    place
}

fn resnet18() -> Vec<(String, tch::Tensor)> {
    let vs = VarStore::new(Device::Cpu);
    Backbone::Resnet18.build(&vs.root(), 1000).unwrap();
    vs.variables().into_iter().collect()
}

fn errors(text: &str) -> usize {
    text.lines().filter(|line| line.starts_with("error: ")).count()
}

#[test]
fn all_that_is_missing_is_named_at_once() {
    let place = Place::small();
    let more = "\n[measure.extractor]\nname = \"inception-fid\"\nweights = \"none.pth\"\n\n[report]\npublished = \"none.toml\"\n\n\
                [generators.a]\nmode = \"external\"\nfolder = \"none\"\n\n\
                [generators.b]\nmode = \"unconditional\"\nscheduler = \"flow-euler\"\npipeline = \"no-pipeline\"\n\n\
                [generators.c]\nmode = \"text\"\nobjective = \"flow\"\nbase = \"no-base\"\n";
    let spec = SMALL.replace("label = \"view\"", "label = \"view\"\nweights = \"none.safetensors\"");
    let spec = spec.replace("source = \"phantom\"", "source = \"camus\"\nroot = \"no-data\"");
    place.write("small.toml", &(spec.replace("[data.phantom]\npatients = 10\nsize = 64\n", "") + more));
    for command in [&PLAN[..], &RUN] {
        let told = place.synecho(command).refused(&[
            "`data.root`: no-data does not exist",
            "`tasks.classification.weights`: none.safetensors does not exist",
            "`measure.extractor.weights`: none.pth does not exist",
            "`report.published`: none.toml does not exist",
            "`generators.a.folder`: none does not exist",
            "`generators.b.pipeline`: no-pipeline does not exist",
            "`generators.c.base`: \"no-base\" is neither a generator of the spec nor a folder",
        ]);
        assert_eq!(errors(&told.err), 7, "{told:#?}");
        assert_eq!(told.err.matches("small.toml:").count(), 7, "{told:#?}");
    }
    assert!(!place.path("runs").exists());
}

#[test]
fn all_that_is_damaged_is_named_at_once_before_any_work() {
    let place = place();
    // Another network, none at all, the start of a download, and images that are not there or empty.
    place.write_bytes("nets/resnet18.pth", &torch_save(&resnet18()[..20]));
    place.write("nets/efficientnet_b0.safetensors", "");
    place.write("nets/inception.pth", "PK\u{3}\u{4} the start of a checkpoint of PyTorch");
    place.write(
        "made/manifest.csv",
        "patient,view,phase,image\na,2CH,ED,images/0.png\na,2CH,ES,images/1.png\n",
    );
    place.write("made/images/0.png", "");
    fs::remove_file(place.path("data/masks/7.png")).unwrap();
    for command in [&PLAN[..], &RUN] {
        let told = place.synecho(command).refused(&[
            "nets/resnet18.pth: ",
            "is missing",
            "the file holds another network",
            "nets/efficientnet_b0.safetensors: not a whole safetensors file: it has 0 bytes",
            "nets/inception.pth: not a whole PyTorch checkpoint",
            "made/images/0.png: cannot read this as an image: the file is empty",
            "made/images/1.png: cannot read the image: No such file",
            "data/masks/7.png: cannot read the image: No such file",
        ]);
        assert_eq!(errors(&told.err), 6, "{told:#?}");
    }
    assert!(!place.path("runs").exists());
    // Of very many only some are listed.
    (0..9).for_each(|i| fs::remove_file(place.path(&format!("data/images/{i}.png"))).unwrap());
    let told =
        place.synecho(&PLAN).refused(&["5 more images and masks cannot be read", "synecho data check"]);
    assert_eq!(errors(&told.err), 3 + 6 + 2, "{told:#?}");
}

/// Links to the folder itself and to its parent, a link that leads nowhere, and a pipe that waits for its writer.
#[test]
fn what_nothing_names_is_not_opened() {
    let litter = |folder: &Path| {
        symlink(folder, folder.join("self")).unwrap();
        symlink("..", folder.join("parent")).unwrap();
        symlink("nowhere", folder.join("dangling.png")).unwrap();
        assert!(Command::new("mkfifo").arg(folder.join("pipe.png")).status().unwrap().success());
    };
    let place = folder();
    litter(&place.path("data"));
    litter(&place.path("data/images"));
    place.synecho(&PLAN).well();
    place.synecho(&["data", "check", "data"]).well();
    place.synecho(&["data", "import", "--from", "folder", "data", "--to", "imported"]).well();
    // One that a row names is reported, and does not stop the program.
    fs::remove_file(place.path("data/images/3.png")).unwrap();
    fs::rename(place.path("data/images/pipe.png"), place.path("data/images/3.png")).unwrap();
    for command in [&PLAN[..], &RUN, &["data", "check", "data"]] {
        place.synecho(command).refused(&["data/images/3.png: cannot read the image: this is a named pipe"]);
    }
    fs::remove_file(place.path("data/images/3.png")).unwrap();
    fs::rename(place.path("data/images/dangling.png"), place.path("data/images/3.png")).unwrap();
    place.synecho(&PLAN).refused(&["data/images/3.png: ", "a link to nowhere, which does not exist"]);
}

/// What is done to a part's file.
type Spoil = fn(&Path);

/// A pipeline's configurations, tokenizer and weights; in its own folder or as the base of a training.
#[test]
fn pipelines_are_checked_against_their_networks_before_any_work() {
    let text = pipeline("text");
    let cases: [(&str, Spoil, &[&str]); 5] = [
        ("unet", |part| fs::write(part, "").unwrap(), &["not a whole safetensors file"]),
        ("unet", |part| fs::remove_file(part).unwrap(), &["p/unet: ", "the folder has no weights"]),
        (
            "text_encoder",
            |part| {
                tensor_file::write(
                    part,
                    &[("a.weight".into(), tch::Tensor::zeros([2], (tch::Kind::Float, Device::Cpu)))],
                )
                .unwrap()
            },
            &["text_encoder/model.safetensors: ", "is missing", "the file holds another network"],
        ),
        ("scheduler", |part| fs::write(part, "{").unwrap(), &["scheduler/scheduler_config.json"]),
        ("tokenizer", |part| fs::write(part, "{").unwrap(), &["tokenizer/"]),
    ];
    for key in ["pipeline", "base"] {
        let place = Place::small();
        place.write(
            "small.toml",
            &format!("{}\n[generators.a]\nmode = \"text\"\n{key} = \"p\"\n", place.read("small.toml")),
        );
        for (part, spoil, parts) in cases {
            let _ = fs::remove_dir_all(place.path("p"));
            copy(&text, &place.path("p"));
            place.synecho(&PLAN).well();
            let names = match part {
                "unet" => ["diffusion_pytorch_model.safetensors"; 2],
                "text_encoder" => ["model.safetensors"; 2],
                "scheduler" => ["scheduler_config.json"; 2],
                _ => ["tokenizer.json", "vocab.json"],
            };
            let files = names.map(|name| place.path("p").join(part).join(name));
            let file = files.iter().find(|file| file.is_file()).unwrap();
            spoil(file);
            place.synecho(&PLAN).refused(&[&["the generator a: "], parts].concat());
        }
        place.synecho(&RUN).refused(&["the generator a: "]);
        assert!(!place.path("runs").exists());
    }
}
