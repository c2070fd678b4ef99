//! docs/diffusers.md, run: folders that were trained here load in diffusers and make the same images from
//! the same noise. Left out, with a word about it, where Python lacks diffusers.

use std::{fs, path::Path, process::Command};

use serde_json::json;
use synecho::{
    nn::tensor_file::{self, TensorFile},
    picture::Picture,
    pipeline::{Pipeline, PipelineSource, Request, noise::ImageNoise, space::mask_to_control},
    sector::IN_SECTOR,
    vocabulary::NoiseLevels,
};
use tch::{Device, Kind, Tensor};

use crate::{
    find_python,
    generators::{made, pipeline},
    support::Place,
};

/// Heading in the document, the generator that it is tried with, and what it is asked for there.
const PIECES: [(&str, &str, &[&str]); 7] = [
    ("Stock: pixels, one model a class", "each", &["50", "2ch_ed"]),
    ("Stock: text, latents", "latent", &[PROMPT, "50", "guidance_scale=2.0"]),
    (
        "Stock: text + segmentation, a ControlNet on latents",
        "control-latent",
        &[PROMPT, "50", "guidance_scale=2.0"],
    ),
    (
        "Unconditional, told the class, space-to-depth",
        "told",
        &["range(10)", "[0, 3]", "guidance = torch.full_like(labels, 4), 2.0"],
    ),
    ("Text, space-to-depth", "text", &[PROMPT, "range(10)", "guidance_scale=2.0"]),
    (
        "Text + segmentation, a ControlNet on space-to-depth",
        "control",
        &[PROMPT, "range(10)", "guidance_scale=1.0"],
    ),
    ("Text + segmentation, mask channels on space-to-depth", "channels", &[PROMPT, "range(10)"]),
];
const PROMPT: &str = "two-chamber apical view, ed, good quality";

/// What Synecho makes of two prompts (or classes) from this noise.
fn ours(name: &str, folder: &Path, [mask, sector]: [&Picture; 2], noise: &Tensor) -> Tensor {
    let flow = !["each", "latent", "control-latent"].contains(&name);
    let source = PipelineSource {
        pipeline: folder,
        controlnet: None,
        scheduler: None,
        levels: flow.then_some(NoiseLevels::Even),
        shift: None,
        variant: None,
        kind: Kind::Float,
        device: Device::Cpu,
    };
    let pipeline = Pipeline::load(&source).unwrap();
    let with_sector = |(&class, &white): (&u8, &u8)| if class == 0 && white > 0 { IN_SECTOR } else { class };
    let classes: Vec<u8> = mask.pixels.iter().zip(&sector.pixels).map(with_sector).collect();
    let classes = Tensor::from_slice(&classes).view([1, mask.height as i64, mask.width as i64]);
    let control = mask_to_control(&classes, pipeline.sees_sector());
    let text = !["each", "told"].contains(&name);
    let request = Request {
        prompts: if text { vec![PROMPT] } else { vec![] },
        guidance: if ["channels", "control"].contains(&name) { 1.0 } else { 2.0 },
        control: ["control", "control-latent", "channels"].contains(&name).then_some(&control),
        class_labels: if name == "told" { vec![0, 3] } else { vec![] },
        steps: if flow { 10 } else { 50 },
        ..Request::default()
    };
    let mut prepared = pipeline.prepare(&request).unwrap();
    assert_eq!(noise.size()[1..], prepared.latent_shape, "{name}");
    pipeline.sample(&mut prepared, &mut ImageNoise::new(&[0, 1]), Some(noise), &|_, _| {}).unwrap()
}

#[test]
fn the_document_makes_the_same_images_in_diffusers() {
    let Some(python) = find_python::with_diffusers() else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = root.join("docs/diffusers.md");
    let text = fs::read_to_string(&docs).unwrap();
    let place = Place::new();
    let data = made().artifact("runs", "24 images of control: ").join("data");
    let mask = fs::read_dir(data.join("masks")).unwrap().next().unwrap().unwrap().path();
    let sector = data.join("sectors").join(mask.file_name().unwrap());
    let mut cases = Vec::new();
    let mut expected = Vec::new();
    for (i, (heading, name, said)) in PIECES.into_iter().enumerate() {
        let piece = text.split("\n## ").find(|piece| piece.starts_with(heading)).expect(heading);
        for part in said {
            assert!(piece.contains(part), "{heading}: no {part:?}");
        }
        let folder = place.path(name);
        fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink(pipeline(name), folder.join("pipeline")).unwrap();
        fs::copy(&mask, folder.join("mask.png")).unwrap();
        fs::copy(&sector, folder.join("sector.png")).unwrap();
        let shape = if name == "each" { [2, 1, 32, 32] } else { [2, 4, 16, 16] };
        tch::manual_seed(i as i64);
        let noise = Tensor::randn(shape, (Kind::Float, Device::Cpu));
        tensor_file::write(&folder.join("noise.safetensors"), &[("latents".into(), noise.shallow_clone())])
            .unwrap();
        let own = if name == "each" { "pipeline/2ch_ed" } else { "pipeline" };
        let pictures = [Picture::read_mask(&mask).unwrap(), Picture::read(&sector).unwrap()];
        expected.push(ours(name, &folder.join(own), pictures.each_ref(), &noise));
        cases.push(json!({"heading": heading, "folder": name}));
    }
    place.write("cases.json", &serde_json::to_string(&cases).unwrap());
    let script = root.join("tests/cli/run_docs.py");
    let output = Command::new(python).arg(script).arg(&docs).arg(place.path("")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for ((_, name, _), ours) in PIECES.into_iter().zip(expected) {
        let file = TensorFile::open(&place.path(name).join("images.safetensors")).unwrap();
        let theirs = file.read(&file.entries()[0]).unwrap();
        assert_eq!(theirs.size(), ours.size(), "{name}");
        let apart = (&theirs - &ours).abs().max().double_value(&[]);
        println!("{name}: {apart:e}, spread {:.3}", ours.std(true).double_value(&[]));
        assert!(apart < 2e-3, "{name}: {apart}");
        // Two images, so that the order counts; and something to see in them.
        assert!((ours.get(0) - ours.get(1)).abs().max().double_value(&[]) > 0.05, "{name}");
    }
}
