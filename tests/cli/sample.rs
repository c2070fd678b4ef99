//! `synecho sample` on a folder of a tiny network.

use std::{fs, path::Path};

use synecho::{
    nn::{
        config::Config,
        init,
        schedulers::SchedulerConfig,
        tensor_file::{self, TensorFile},
        unet2d::{UNet2DConfig, UNet2DModel},
    },
    picture::Picture,
    pipeline::folder_write::{named, write_model_index, write_part, write_scheduler},
};
use tch::{Device, Kind, Tensor, nn};

use crate::{support::Place, torch_save::torch_save};

const UNET: &str = r#"{"_class_name": "UNet2DModel", "sample_size": 16, "in_channels": 1, "out_channels": 1,
    "block_out_channels": [8, 16], "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "layers_per_block": 1, "norm_num_groups": 4}"#;
const SCHEDULER: &str = r#"{"_class_name": "DDPMScheduler", "beta_schedule": "squaredcos_cap_v2"}"#;

fn config(text: &str) -> Config {
    Config::parse(text, Path::new("config.json")).unwrap()
}

/// With an unconditional pipeline's folder `model`.
fn place() -> Place {
    place_with(SCHEDULER)
}

/// The same with another scheduler.
fn place_with(scheduler: &str) -> Place {
    let place = Place::new();
    let unet = UNet2DConfig::read(&config(UNET)).unwrap();
    let vs = nn::VarStore::new(Device::Cpu);
    UNet2DModel::new(&vs.root(), &unet).unwrap();
    init::fill(&vs, 0, None);
    let model = place.path("model");
    write_part(&model.join("unet"), &unet.to_json(), &named(&vs)).unwrap();
    let scheduler = SchedulerConfig::read(&config(scheduler)).unwrap();
    write_scheduler(&model.join("scheduler"), &scheduler.to_json()).unwrap();
    let class = scheduler.class().class_name();
    let parts = [("scheduler", Some(("diffusers", class))), ("unet", Some(("diffusers", "UNet2DModel")))];
    write_model_index(&model, "DDPMPipeline", &parts).unwrap();
    place
}

fn sample<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["sample", "--pipeline", "model", "--steps", "3"], more].concat()
}

fn picture(place: &Place, name: &str) -> Picture {
    Picture::read(&place.path(name)).unwrap()
}

#[test]
fn images_come_with_a_manifest_and_each_can_be_made_again() {
    let place = place();
    let three = ["--count", "3", "--batch-size", "2", "--seed", "7", "--out"];
    let told = place.synecho(&sample(&[&three[..], &["a"]].concat())).well();
    assert_eq!(told.out, "3 images in a\n");
    let manifest = place.read("a/manifest.csv");
    let lines: Vec<&str> = manifest.lines().collect();
    assert_eq!(lines.len(), 4, "{manifest}");
    assert!(lines[0].starts_with("image,seed,prompt,"), "{manifest}");
    assert!(lines[2].starts_with("000001.png,8,"), "{manifest}");
    assert!(lines[2].contains(",ddpm,3,"), "{manifest}");

    place.synecho(&sample(&[&three[..], &["b"]].concat())).well();
    assert_eq!(place.files("a"), place.files("b"));
    // Alone, not in a batch: the same image, but for sums in another order.
    place.synecho(&sample(&["--seed", "8", "--out", "c"])).well();
    let (alone, second) = (picture(&place, "c/000000.png"), picture(&place, "a/000001.png"));
    assert!(alone.pixels.iter().zip(&second.pixels).all(|(a, b)| a.abs_diff(*b) <= 1));
    assert_ne!(alone, picture(&place, "a/000000.png"));
    assert_eq!((alone.width, alone.height), (16, 16));
}

#[test]
fn every_scheduler_samples_and_an_image_does_not_depend_on_its_batch() {
    let place = place();
    let flow =
        place_with(r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "stochastic_sampling": true}"#);
    let mut seen = Vec::new();
    for (place, name) in [
        (&place, "euler"),
        (&place, "euler-ancestral"),
        (&place, "heun"),
        (&place, "lcm"),
        (&flow, "flow-euler"),
    ] {
        let three = ["--scheduler", name, "--count", "2", "--seed", "7", "--out", name];
        place.synecho(&sample(&three)).well();
        assert!(place.read(&format!("{name}/manifest.csv")).contains(&format!(",{name},3,")));
        let alone = format!("{name}-alone");
        place.synecho(&sample(&["--scheduler", name, "--seed", "8", "--out", &alone])).well();
        let second = picture(place, &format!("{name}/000001.png"));
        let alone = picture(place, &format!("{alone}/000000.png"));
        assert!(alone.pixels.iter().zip(&second.pixels).all(|(a, b)| a.abs_diff(*b) <= 1), "{name}");
        assert_ne!(second, picture(place, &format!("{name}/000000.png")), "{name}");
        assert!(!seen.contains(&second), "{name}");
        seen.push(second);
    }
    // The folder's own, without being asked for.
    flow.synecho(&sample(&["--seed", "8", "--out", "own"])).well();
    assert_eq!(picture(&flow, "own/000000.png"), picture(&flow, "flow-euler-alone/000000.png"));
    place.synecho(&sample(&["--scheduler", "heun", "--noise-levels", "log-snr", "--out", "levels"])).well();
}

#[test]
fn schedulers_that_do_not_fit_are_refused() {
    let place = place();
    let flow = place_with(r#"{"_class_name": "FlowMatchEulerDiscreteScheduler"}"#);
    for (place, more, parts) in [
        (&place, &["--scheduler", "flow-euler"][..], ["scheduler_config.json", "sample with dpmsolver++"]),
        (&flow, &["--scheduler", "ddim"], ["scheduler_config.json", "sample with flow-euler"]),
        (&flow, &["--noise-levels", "log-snr"], ["flow-euler has no noise levels", "dpmsolver++"]),
        (&place, &["--scheduler", "lcm", "--steps", "51"], ["51 steps of lcm", "take 1 to 50 steps"]),
        (&place, &["--scheduler", "euler", "--eta", "0.5"], ["only DDIM takes eta", "sample with ddim"]),
    ] {
        let args = [&["sample", "--pipeline", "model", "--out", "x"], more].concat();
        place.synecho(&args).refused(&parts);
        assert!(!place.path("x").exists(), "{more:?}");
    }
}

#[test]
fn latents_take_the_place_of_the_seeds_noise() {
    let place = place();
    let zeros = Tensor::zeros([2, 1, 16, 16], (tch::Kind::Float, Device::Cpu));
    let bytes = tensor_file::to_bytes(&[("latents".into(), zeros)], None).unwrap();
    fs::write(place.path("zeros.safetensors"), bytes).unwrap();
    let ddim = ["--scheduler", "ddim", "--count", "2", "--latents", "zeros.safetensors", "--out", "a"];
    place.synecho(&sample(&ddim)).well();
    assert_eq!(picture(&place, "a/000000.png"), picture(&place, "a/000001.png"));
    let three = ["--count", "3", "--latents", "zeros.safetensors", "--out", "b"];
    place
        .synecho(&sample(&three))
        .refused(&["zeros.safetensors: latents of [2, 1, 16, 16]", "[3, 1, 16, 16]"]);
    assert!(!place.path("b").exists());
}

#[test]
fn images_of_no_numbers_are_not_written() {
    let place = place();
    let nan = Tensor::full([1, 1, 16, 16], f64::NAN, (tch::Kind::Float, Device::Cpu));
    let bytes = tensor_file::to_bytes(&[("latents".into(), nan)], None).unwrap();
    fs::write(place.path("nan.safetensors"), bytes).unwrap();
    let told = place.synecho(&sample(&["--latents", "nan.safetensors", "--out", "a"]));
    told.wrong(1, &["not finite", "--dtype f32"]);
    assert!(!place.path("a/000000.png").exists());
}

#[test]
fn numeric_types_agree() {
    let place = place();
    for dtype in ["f32", "bf16"] {
        place.synecho(&sample(&["--scheduler", "ddim", "--dtype", dtype, "--out", dtype])).well();
    }
    let (a, b) = (picture(&place, "f32/000000.png"), picture(&place, "bf16/000000.png"));
    assert_ne!(a, b);
    assert!(place.read("bf16/manifest.csv").trim_end().ends_with(",bf16"));
    let apart: Vec<f64> = a.pixels.iter().zip(&b.pixels).map(|(a, b)| f64::from(a.abs_diff(*b))).collect();
    assert!(apart.iter().sum::<f64>() / (apart.len() as f64) < 4.0, "{apart:?}");
}

#[test]
fn wrong_requests_are_refused() {
    let place = place();
    place.write("out/mine.txt", "");
    place.write("empty/readme", "");
    for (more, parts) in [
        (vec!["--out", "out"], ["out: the output folder is not empty", "choose another"]),
        (vec!["--prompt", "a heart", "--out", "x"], ["takes no text", "leave out the prompts"]),
        (vec!["--controlnet", "model", "--out", "x"], ["takes no ControlNet", "leave out --controlnet"]),
        (vec!["--control-image", "none.png", "--out", "x"], ["none.png", "cannot read the control image"]),
        (vec!["--class-label", "1", "--out", "x"], ["knows no classes", "leave out --class-label"]),
        (vec!["--steps", "1001", "--out", "x"], ["1001 steps", "take 1 to 1000 steps"]),
        (vec!["--height", "15", "--width", "16", "--out", "x"], ["15 x 16", "multiples of 2"]),
        (vec!["--latents", "none.safetensors", "--out", "x"], ["none.safetensors", "cannot read"]),
        (vec!["--scheduler", "ddim", "--eta", "1.5", "--out", "x"], ["eta is 1.5", "0 (no noise) to 1"]),
        (vec!["--device", "tpu", "--out", "x"], ["tpu", "cuda"]),
        (vec!["--pipeline", "empty", "--out", "x"], ["empty", "model_index.json"]),
    ] {
        let mut args = vec!["sample"];
        for (option, value) in [("--pipeline", "model"), ("--steps", "3")] {
            if !more.contains(&option) {
                args.extend([option, value]);
            }
        }
        args.extend(&more);
        place.synecho(&args).refused(&parts);
        assert!(!place.path("x").exists(), "{more:?}");
    }
    assert_eq!(place.synecho(&sample(&["--scheduler", "kdpm2", "--out", "x"])).code, Some(2));
}

#[test]
fn damaged_folders_are_refused_with_a_remedy() {
    let place = place();
    let weights = place.path("model/unet/diffusion_pytorch_model.safetensors");
    let whole = fs::read(&weights).unwrap();
    fs::write(&weights, &whole[..whole.len() / 2]).unwrap();
    place.synecho(&sample(&["--out", "x"])).refused(&["diffusion_pytorch_model.safetensors"]);
    fs::remove_file(&weights).unwrap();
    place.write("model/unet/diffusion_pytorch_model.bin", "pickle");
    place.synecho(&sample(&["--out", "x"])).refused(&["diffusion_pytorch_model.bin: not a whole"]);
    fs::write(&weights, &whole).unwrap();
    place.synecho(&sample(&["--out", "y"])).well();

    let unet = place.read("model/unet/config.json");
    place.write("model/unet/config.json", &unet.replacen('{', "{\n  \"use_magic\": true,", 1));
    place.synecho(&sample(&["--out", "x"])).refused(&["config.json", "`use_magic` = true is not supported"]);
    place.write("model/unet/config.json", &unet);
    let scheduler = place.read("model/scheduler/scheduler_config.json");
    place.write("model/scheduler/scheduler_config.json", &scheduler.replace("squaredcos_cap_v2", "sigmoid"));
    place.synecho(&sample(&["--out", "x"])).refused(&["scheduler_config.json", "beta_schedule", "sigmoid"]);
    assert!(!place.path("x").exists());
}

/// A folder from before safetensors, starting noise that torch.save wrote: the same picture.
#[test]
fn checkpoints_of_pytorch_are_read_as_they_are() {
    let place = place();
    let noise = Tensor::ones([1, 1, 16, 16], (Kind::Float, Device::Cpu)) * 0.5;
    tensor_file::write(&place.path("noise.safetensors"), &[("latents".into(), noise.copy())]).unwrap();
    place.write_bytes("noise.pt", &torch_save(&[("latents".into(), noise)]));
    place.synecho(&sample(&["--latents", "noise.safetensors", "--out", "a"])).well();
    let weights = place.path("model/unet/diffusion_pytorch_model.safetensors");
    let file = TensorFile::open(&weights).unwrap();
    let tensors: Vec<_> = file.entries().iter().map(|e| (e.name.clone(), file.read(e).unwrap())).collect();
    place.write_bytes("model/unet/diffusion_pytorch_model.bin", &torch_save(&tensors));
    fs::remove_file(&weights).unwrap();
    place.synecho(&sample(&["--latents", "noise.pt", "--out", "b"])).well();
    let pictures = |folder: &str| {
        let mut files = place.files(folder);
        files.retain(|name, _| name.ends_with(".png"));
        files
    };
    assert_eq!(pictures("a").len(), 1);
    assert_eq!(pictures("a"), pictures("b"));
}
