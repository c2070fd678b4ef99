//! `model_index.json`, and folders that are written.

use std::{fs, path::Path};

use serde_json::{Value, json};
use synecho::pipeline::{
    folder::{PipelineFolder, PipelinePart},
    folder_write::{named, write_model_index, write_part, write_scheduler, write_tokenizer},
};
use tempfile::tempdir;

use crate::support::*;

fn index() -> Value {
    json!({
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.6.0",
        "_name_or_path": "somewhere",
        "requires_safety_checker": true,
        "unet": ["diffusers", "UNet2DModel"],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": [null, null],
        "image_encoder": [null, null],
    })
}

fn open(dir: &Path, index: &Value) -> Result<PipelineFolder, String> {
    put(dir, "model_index.json", &index.to_string());
    PipelineFolder::open(dir).map_err(|e| e.to_string())
}

#[test]
fn the_index_names_the_parts() {
    let dir = tempdir().unwrap();
    let dir = dir.path();
    let pipeline = open(dir, &index()).unwrap();
    assert_eq!(pipeline.class(), "StableDiffusionPipeline");
    assert!(pipeline.has("unet") && !pipeline.has("feature_extractor") && !pipeline.has("vae"));
    pipeline.only_parts(&["unet", "scheduler"]).unwrap();
    let error = pipeline.only_parts(&["scheduler"]).unwrap_err().to_string();
    assert!(error.contains("`unet` is not supported"), "{error}");

    let error = pipeline.part("vae").unwrap_err().to_string();
    assert!(error.contains("no part `vae`"), "{error}");
    assert!(pipeline.part("feature_extractor").is_err());
    let error = pipeline.part("unet").unwrap_err().to_string();
    assert!(error.contains("unet: the folder is not there"), "{error}");

    part(&dir.join("unet"), &[]);
    let unet = pipeline.part("unet").unwrap();
    assert_eq!((unet.library(), unet.class()), ("diffusers", "UNet2DModel"));
    unet.expect_class(&["UNet2DModel"]).unwrap();
    let error = unet.expect_class(&["UNet2DConditionModel"]).unwrap_err().to_string();
    assert!(
        error.contains("UNet2DModel is not supported") && error.contains("UNet2DConditionModel"),
        "{error}"
    );
    assert_eq!(unet.config().unwrap().get("sample_size", 0).unwrap(), 8);
    put(&dir.join("unet"), "config.json", r#"{"_class_name": "AutoencoderKL"}"#);
    let error = unet.config().unwrap_err().to_string();
    assert!(error.contains("a AutoencoderKL, where model_index.json names a UNet2DModel"), "{error}");
    fs::remove_file(dir.join("unet/config.json")).unwrap();
    assert!(unet.config().unwrap_err().to_string().contains("no config.json"));

    // A scheduler is what the index says, whatever wrote its configuration.
    put(
        &dir.join("scheduler"),
        "scheduler_config.json",
        r#"{"_class_name": "DDIMScheduler", "x": -Infinity}"#,
    );
    let scheduler = pipeline.part("scheduler").unwrap();
    assert_eq!(scheduler.class(), "PNDMScheduler");
    assert_eq!(scheduler.config().unwrap().get("x", String::new()).unwrap(), "-Infinity");
    assert_eq!(PipelinePart::open(&dir.join("scheduler")).unwrap().class(), "DDIMScheduler");
}

#[test]
fn what_is_no_pipeline_is_told_apart() {
    let dir = tempdir().unwrap();
    let dir = dir.path();
    for (key, value, says) in [
        ("tokenizer", json!("CLIPTokenizer"), "`tokenizer` = \"CLIPTokenizer\""),
        ("force_zeros_for_empty_prompt", json!(true), "`force_zeros_for_empty_prompt`"),
        ("../outside", json!(["diffusers", "UNet2DModel"]), "`../outside`"),
        ("unet", json!(["diffusers"]), "`unet`"),
        ("_class_name", json!(["pipeline.py", "Mine"]), "`_class_name`"),
        ("_class_name", json!(null), "`_class_name`"),
    ] {
        let mut index = index();
        index[key] = value;
        let error = open(dir, &index).unwrap_err();
        assert!(error.contains(says) && error.contains("model_index.json"), "{error}");
    }
    put(dir, "model_index.json", "{\"a\": ");
    let error = PipelineFolder::open(dir).unwrap_err().to_string();
    assert!(error.contains("model_index.json:1"), "{error}");

    let error = PipelinePart::open(dir).unwrap_err().to_string();
    assert!(error.contains("whole pipeline's folder"), "{error}");
    part(&dir.join("unet"), &[]);
    let error = PipelineFolder::open(&dir.join("unet")).unwrap_err().to_string();
    assert!(error.contains("one part of a pipeline"), "{error}");
    let error = PipelineFolder::open(&dir.join("nowhere")).unwrap_err().to_string();
    assert!(error.contains("no such folder"), "{error}");
    put(dir, "sd.safetensors", "x");
    let error = PipelineFolder::open(&dir.join("sd.safetensors")).unwrap_err().to_string();
    assert!(error.contains("from_single_file"), "{error}");
    put(&dir.join("odd"), "config.json", "{}");
    let error = PipelinePart::open(&dir.join("odd")).unwrap_err().to_string();
    assert!(error.contains("neither `_class_name` nor `architectures`"), "{error}");
}

fn entries(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_written_is_whole_or_not_there() {
    let dir = tempdir().unwrap();
    let (dir, unet) = (dir.path(), dir.path().join("unet"));
    let vs = network();
    write_part(&unet, &config(), &weights()).unwrap();
    assert_eq!(entries(dir), ["unet"]);
    assert_eq!(entries(&unet), ["config.json", "diffusion_pytorch_model.safetensors"]);
    PipelinePart::open(&unet).unwrap().load_weights(&vs, None).unwrap();
    assert!(has(&vs, &weights()));
    // What a network holds comes out as it went in.
    write_part(&dir.join("again"), &config(), &named(&vs)).unwrap();
    let bytes = |part: &str| fs::read(dir.join(part).join("diffusion_pytorch_model.safetensors")).unwrap();
    assert!(bytes("unet") == bytes("again"));

    let error = write_part(&unet, &config(), &weights()).unwrap_err().to_string();
    assert!(error.contains("exists already"), "{error}");
    // Complex numbers have no place in the format: nothing is left behind.
    let complex =
        vec![("x".to_owned(), tch::Tensor::zeros([1], (tch::Kind::ComplexFloat, tch::Device::Cpu)))];
    write_part(&dir.join("failed"), &config(), &complex).unwrap_err();
    assert!(write_part(&dir.join("failed"), &json!({"x": 1}), &weights()).is_err());
    assert_eq!(entries(dir), ["again", "unet"]);

    let scheduler = json!({"_class_name": "UniPCMultistepScheduler", "lambda_min_clipped": "-Infinity"});
    write_scheduler(&dir.join("scheduler"), &scheduler).unwrap();
    let text = fs::read_to_string(dir.join("scheduler/scheduler_config.json")).unwrap();
    assert!(
        text.contains("\"lambda_min_clipped\": -Infinity") && text.contains("_diffusers_version"),
        "{text}"
    );

    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/fixtures/tokenizer/v5");
    write_tokenizer(&dir.join("tokenizer"), &fixtures).unwrap();
    assert_eq!(entries(&dir.join("tokenizer")), entries(&fixtures));
    assert!(write_tokenizer(&dir.join("tokenizer2"), dir).is_err());

    let unet = ("unet", Some(("diffusers", "UNet2DModel")));
    let absent = ("vae", Some(("diffusers", "AutoencoderKL")));
    assert!(write_model_index(dir, "DDPMPipeline", &[unet, absent]).is_err());
    assert!(PipelineFolder::open(dir).is_err());
    write_model_index(dir, "DDPMPipeline", &[unet, ("safety_checker", None)]).unwrap();
    let pipeline = PipelineFolder::open(dir).unwrap();
    assert!(pipeline.class() == "DDPMPipeline" && pipeline.has("unet") && !pipeline.has("safety_checker"));
    let index: Value = serde_json::from_slice(&fs::read(dir.join("model_index.json")).unwrap()).unwrap();
    assert_eq!(index["safety_checker"], json!([null, null]));
    assert_eq!(index["requires_safety_checker"], json!(false));
}
