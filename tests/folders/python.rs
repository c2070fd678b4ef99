//! Folders that diffusers writes, read here and written again: diffusers loads them and makes the same
//! images. Left out, with a word about it, where Python lacks diffusers.

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use synecho::{
    nn::{
        clip_text::{ClipTextConfig, ClipTextModel},
        tensor_file::TensorFile,
    },
    pipeline::{
        folder::{PipelineFolder, PipelinePart},
        folder_write::{named, write_model_index, write_part, write_scheduler, write_tokenizer},
    },
};
use tch::{Device, Tensor, nn::VarStore};

use crate::find_python;

fn run(python: &Path, arguments: &[&Path]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/folders/pipelines.py");
    let output = Command::new(python).arg(script).args(arguments).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    print!("{out}");
}

fn tensors(part: &PipelinePart) -> Vec<(String, Tensor)> {
    let mut tensors = Vec::new();
    for file in part.weight_files(None).unwrap() {
        let file = TensorFile::open(&file).unwrap();
        tensors.extend(file.entries().iter().map(|entry| (entry.name.clone(), file.read(entry).unwrap())));
    }
    tensors
}

fn json(file: &Path) -> Value {
    let text = fs::read_to_string(file).unwrap();
    serde_json::from_str(&text.replace(": -Infinity", ": \"-Infinity\"")).unwrap()
}

/// Reads every part, and writes it again.
fn rewrite(from: &Path, to: &Path) {
    let pipeline = PipelineFolder::open(from).unwrap();
    fs::create_dir(to).unwrap();
    let mut parts = Vec::new();
    for (name, part) in pipeline.parts() {
        let Some(part) = part else {
            parts.push((name, None));
            continue;
        };
        let place = to.join(name);
        match part.class() {
            "CLIPTokenizer" => write_tokenizer(&place, part.dir()).unwrap(),
            "CLIPTextModel" => {
                let config = ClipTextConfig::read(&part.config().unwrap()).unwrap();
                let vs = VarStore::new(Device::Cpu);
                ClipTextModel::new(&vs.root(), &config).unwrap();
                part.load_weights(&vs, None).unwrap();
                write_part(&place, &config.to_json(), &named(&vs)).unwrap();
            }
            class if class.ends_with("Scheduler") => {
                write_scheduler(&place, &json(&part.dir().join("scheduler_config.json"))).unwrap();
            }
            _ => write_part(&place, &json(&part.dir().join("config.json")), &tensors(part)).unwrap(),
        }
        parts.push((name, Some((part.library(), part.class()))));
    }
    write_model_index(to, pipeline.class(), &parts).unwrap();
}

#[test]
fn diffusers_loads_what_is_written_here() {
    let Some(python) = find_python::with_diffusers() else { return };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/fixtures/tokenizer/v5");
    run(&python, &[Path::new("make"), dir, &tokenizer]);
    let names = ["DDPMPipeline", "StableDiffusionPipeline", "StableDiffusionControlNetPipeline"];
    for name in names {
        rewrite(&dir.join(name), &dir.join(format!("{name}-written")));
    }
    run(&python, &[Path::new("compare"), dir]);
}
