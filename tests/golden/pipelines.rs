//! Whole pipelines against diffusers 0.42.1: the same folder, the same latents, the same noise of the
//! schedulers; the images of 20 steps (of flow matching also 10) within 2e-3. Fixtures: make_pipelines.py.
//!
//! The folders are written here, so that what is written is read again too; where Python has diffusers,
//! it loads them and must make the same images.

use std::{collections::BTreeMap, path::Path, process::Command};

use serde::Deserialize;
use serde_json::Value;
use synecho::{
    Result,
    nn::{
        autoencoder_kl::{AutoencoderKL, AutoencoderKLConfig},
        clip_text::{ClipTextConfig, ClipTextModel},
        config::Config,
        controlnet::{ControlNetConfig, ControlNetModel},
        schedulers::SchedulerConfig,
        unet2d::{UNet2DConfig, UNet2DModel},
        unet2d_condition::{UNet2DConditionConfig, UNet2DConditionModel},
    },
    pipeline::{
        Pipeline, PipelineSource, Request,
        folder_write::{named, write_model_index, write_part, write_scheduler, write_tokenizer},
        noise::NoiseSource,
    },
    vocabulary::{Mode, NoiseLevels, Sampler},
};
use tch::{Device, Kind, Tensor, nn};

use crate::{
    Tensors, fixture, json, largest_difference, python,
    weights::{fill, signal},
};

#[derive(Deserialize)]
struct Fixture {
    steps: usize,
    prompt: String,
    negative_prompt: String,
    /// As diffusers and transformers write them.
    configs: BTreeMap<String, Value>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    scheduler: Option<String>,
    latents: Vec<i64>,
    /// Other than the fixture's.
    steps: Option<usize>,
    levels: Option<NoiseLevels>,
}

impl Fixture {
    fn config(&self, key: &str) -> Config {
        Config::parse(&self.configs[key].to_string(), Path::new(key)).unwrap()
    }

    /// Writes a network with the weights that the script gave it.
    fn network<C, N>(
        &self,
        key: &str,
        dir: &Path,
        read: fn(&Config) -> Result<C>,
        new: fn(&nn::Path, &C) -> Result<N>,
        to_json: fn(&C) -> Value,
    ) {
        let config = read(&self.config(key)).unwrap();
        let vs = nn::VarStore::new(Device::Cpu);
        new(&vs.root(), &config).unwrap();
        fill(&vs, key);
        if key != "vae" {
            for (name, mut variable) in vs.variables() {
                if ["conv_out.weight", "controlnet_mid_block.weight"].contains(&name.as_str()) {
                    tch::no_grad(|| variable *= 0.25);
                }
            }
        }
        write_part(dir, &to_json(&config), &named(&vs)).unwrap();
    }

    fn scheduler(&self, key: &str, dir: &Path) -> &'static str {
        let config = SchedulerConfig::read(&self.config(key)).unwrap();
        write_scheduler(dir, &config.to_json()).unwrap();
        config.class().class_name()
    }

    fn unconditional(&self, dir: &Path, class: &str, scheduler: &str) {
        self.network(
            "unet2d",
            &dir.join("unet"),
            UNet2DConfig::read,
            UNet2DModel::new,
            UNet2DConfig::to_json,
        );
        let scheduler = self.scheduler(scheduler, &dir.join("scheduler"));
        let parts =
            [("scheduler", Some(("diffusers", scheduler))), ("unet", Some(("diffusers", "UNet2DModel")))];
        write_model_index(dir, class, &parts).unwrap();
    }

    fn controlnet(&self, dir: &Path) {
        self.network(
            "controlnet",
            dir,
            ControlNetConfig::read,
            ControlNetModel::new,
            ControlNetConfig::to_json,
        );
    }

    fn text(&self, dir: &Path, scheduler: &str) {
        self.network(
            "unet",
            &dir.join("unet"),
            UNet2DConditionConfig::read,
            UNet2DConditionModel::new,
            UNet2DConditionConfig::to_json,
        );
        self.network(
            "vae",
            &dir.join("vae"),
            AutoencoderKLConfig::read,
            AutoencoderKL::new,
            AutoencoderKLConfig::to_json,
        );
        self.network(
            "text_encoder",
            &dir.join("text_encoder"),
            ClipTextConfig::read,
            ClipTextModel::new,
            ClipTextConfig::to_json,
        );
        write_tokenizer(&dir.join("tokenizer"), &fixture("tokenizer/v5")).unwrap();
        let scheduler = self.scheduler(scheduler, &dir.join("scheduler"));
        let parts = [
            ("feature_extractor", None),
            ("safety_checker", None),
            ("scheduler", Some(("diffusers", scheduler))),
            ("text_encoder", Some(("transformers", "CLIPTextModel"))),
            ("tokenizer", Some(("transformers", "CLIPTokenizer"))),
            ("unet", Some(("diffusers", "UNet2DConditionModel"))),
            ("vae", Some(("diffusers", "AutoencoderKL"))),
        ];
        write_model_index(dir, "StableDiffusionPipeline", &parts).unwrap();
    }
}

/// The script's noise: by case and number of the draw.
struct Given {
    key: String,
    drawn: u64,
}

impl NoiseSource for Given {
    fn starting(&self, _one: &[i64]) -> Result<Tensor> {
        panic!("every case gives its latents")
    }

    fn next(&mut self, shape: &[i64]) -> Result<Tensor> {
        self.drawn += 1;
        Ok(signal(&format!("{}/{}", self.key, self.drawn - 1), shape))
    }
}

fn source<'a>(pipeline: &'a Path, case: &Case) -> PipelineSource<'a> {
    PipelineSource {
        pipeline,
        controlnet: None,
        scheduler: case.scheduler.as_deref().map(|name| name.parse().unwrap()),
        levels: case.levels,
        shift: None,
        variant: None,
        kind: Kind::Float,
        device: Device::Cpu,
    }
}

fn latents(case: &Case) -> Tensor {
    // The script gives the pipeline of a scheduler by itself less noise.
    let scale = if case.name == "unconditional/ddim-pipeline" { 1.0 } else { 1.7 };
    signal(&case.name, &case.latents) * scale
}

/// The largest difference from upstream's images.
fn difference(fixture: &Fixture, case: &Case, source: &PipelineSource, change: impl Fn(&mut Request)) -> f32 {
    let pipeline = Pipeline::load(source).unwrap();
    let control = (signal("control", &[1, 3, 16, 16]) + 1.0) / 2.0;
    let text = pipeline.mode() != Mode::Unconditional;
    let mut request = Request {
        prompts: text.then_some(fixture.prompt.as_str()).into_iter().collect(),
        negative_prompt: text.then_some(&fixture.negative_prompt),
        control: (pipeline.mode() == Mode::TextSegmentation).then_some(&control),
        conditioning_scale: 0.8,
        steps: case.steps.unwrap_or(fixture.steps),
        ..Request::default()
    };
    change(&mut request);
    let mut prepared = pipeline.prepare(&request).unwrap();
    let mut noise = Given { key: format!("{}/noise", case.name), drawn: 0 };
    let images = pipeline.sample(&mut prepared, &mut noise, Some(&latents(case)), &|_, _| {}).unwrap();
    let (shape, expected) = Tensors::read("pipelines.safetensors").f32(&case.name);
    assert_eq!(images.size(), shape.iter().map(|&n| n as i64).collect::<Vec<_>>());
    let images: Vec<f32> = images.contiguous().view(-1).try_into().unwrap();
    largest_difference(&images, &expected)
}

fn cases<'a>(fixture: &'a Fixture, mode: &'a str) -> impl Iterator<Item = &'a Case> {
    fixture.cases.iter().filter(move |case| case.name.starts_with(mode))
}

fn case<'a>(fixture: &'a Fixture, name: &str) -> &'a Case {
    fixture.cases.iter().find(|case| case.name == name).unwrap()
}

#[test]
fn unconditional_pipelines_equal_diffusers() {
    let fixture: Fixture = json("pipelines.json");
    let dir = tempfile::tempdir().unwrap();
    let [ddpm, ddim, flow] = ["ddpm", "ddim", "flow"].map(|name| dir.path().join(name));
    fixture.unconditional(&ddpm, "DDPMPipeline", "unconditional/scheduler");
    fixture.unconditional(&ddim, "DDIMPipeline", "unconditional/scheduler");
    fixture.unconditional(&flow, "DDPMPipeline", "unconditional/flow/scheduler");
    for case in cases(&fixture, "unconditional/") {
        let folder = match (case.name.as_str(), &case.scheduler) {
            (name, _) if name.starts_with("unconditional/flow") => &flow,
            (_, Some(_)) => &ddpm,
            (_, None) => &ddim,
        };
        let found = difference(&fixture, case, &source(folder, case), |_| {});
        println!("{}: {found:e}", case.name);
        assert!(found < 2e-3, "{}: {found}", case.name);
    }
    // What must not pass: the levels of the timesteps, and Euler's steps in place of Heun's.
    let even = case(&fixture, "unconditional/flow-even");
    let wrong = PipelineSource { levels: None, ..source(&flow, even) };
    let wrong = difference(&fixture, even, &wrong, |_| {});
    assert!(wrong > 2e-3, "{wrong}");
    let heun = case(&fixture, "unconditional/flow-heun");
    let wrong = PipelineSource { scheduler: None, ..source(&flow, heun) };
    let wrong = difference(&fixture, heun, &wrong, |_| {});
    assert!(wrong > 2e-3, "{wrong}");
}

#[test]
fn text_pipelines_equal_diffusers() {
    let fixture: Fixture = json("pipelines.json");
    let dir = tempfile::tempdir().unwrap();
    let [pndm, early, own, flow] = ["pndm", "early", "own", "flow"].map(|name| dir.path().join(name));
    fixture.text(&pndm, "text/scheduler");
    fixture.text(&early, "text/mended/scheduler");
    fixture.text(&own, "text/own/scheduler");
    fixture.text(&flow, "text/flow/scheduler");
    for case in cases(&fixture, "text/") {
        let folder = match (case.name.as_str(), &case.scheduler) {
            ("text/own", _) => &own,
            ("text/flow", _) => &flow,
            (_, Some(_)) => &pndm,
            (_, None) => &early,
        };
        let found = difference(&fixture, case, &source(folder, case), |request| match case.name.as_str() {
            "text/unguided" => (request.guidance, request.negative_prompt) = (1.0, None),
            "text/size" => request.size = Some([16, 24]),
            _ => {}
        });
        println!("{}: {found:e}", case.name);
        assert!(found < 2e-3, "{}: {found}", case.name);
    }
    // What must not pass: the levels of the timesteps, another guidance scale, no negative prompt.
    let even = case(&fixture, "text/flow");
    let wrong = PipelineSource { levels: None, ..source(&flow, even) };
    let wrong = difference(&fixture, even, &wrong, |_| {});
    assert!(wrong > 2e-3, "{wrong}");
    let case = case(&fixture, "text/unipc");
    let wrong = difference(&fixture, case, &source(&pndm, case), |request| request.guidance = 5.0);
    assert!(wrong > 2e-3, "{wrong}");
    let wrong = difference(&fixture, case, &source(&pndm, case), |request| request.negative_prompt = None);
    assert!(wrong > 2e-3, "{wrong}");
}

#[test]
fn pipelines_with_a_controlnet_equal_diffusers() {
    let fixture: Fixture = json("pipelines.json");
    let dir = tempfile::tempdir().unwrap();
    let (folder, controlnet) = (dir.path().join("sd"), dir.path().join("controlnet"));
    fixture.text(&folder, "text/scheduler");
    fixture.controlnet(&controlnet);
    for case in cases(&fixture, "control/") {
        let source = PipelineSource { controlnet: Some(&controlnet), ..source(&folder, case) };
        let found = difference(&fixture, case, &source, |_| {});
        println!("{}: {found:e}", case.name);
        assert!(found < 2e-3, "{}: {found}", case.name);
    }
    // What must not pass: the ControlNet at its full weight.
    let case = case(&fixture, "control/unipc");
    let source = PipelineSource { controlnet: Some(&controlnet), ..source(&folder, case) };
    assert!(difference(&fixture, case, &source, |request| request.conditioning_scale = 1.0) > 2e-3);
}

#[test]
fn diffusers_loads_what_is_written_here_and_makes_the_same_images() {
    let Some(python) = python::with_diffusers() else { return };
    let fixture: Fixture = json("pipelines.json");
    let dir = tempfile::tempdir().unwrap();
    fixture.unconditional(&dir.path().join("ddpm"), "DDPMPipeline", "unconditional/scheduler");
    fixture.unconditional(&dir.path().join("flow"), "DDPMPipeline", "unconditional/flow/scheduler");
    fixture.text(&dir.path().join("sd"), "text/scheduler");
    fixture.text(&dir.path().join("own"), "text/own/scheduler");
    fixture.text(&dir.path().join("text-flow"), "text/flow/scheduler");
    for class in Sampler::ALL {
        let config = Config::parse("{}", Path::new("defaults")).unwrap();
        let config = SchedulerConfig::read_as(&config, class).unwrap();
        write_scheduler(&dir.path().join("schedulers").join(class.as_str()), &config.to_json()).unwrap();
    }
    fixture.controlnet(&dir.path().join("controlnet"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/load_pipelines.py");
    let out = Command::new(&python).arg(script).arg(dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}");
    let lines = String::from_utf8(out.stdout).unwrap();
    print!("{lines}");
    assert_eq!(lines.lines().count(), 12, "{lines}");
    for line in lines.lines() {
        let found: f32 = line.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(found < 2e-3, "{line}");
    }
}
