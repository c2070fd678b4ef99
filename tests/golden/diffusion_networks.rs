//! The diffusion networks against diffusers 0.42.1, on the same weights and inputs.
//! Fixtures: make_diffusion_networks.py.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};
use synecho::{
    error::Result,
    nn::{
        autoencoder_kl::{AutoencoderKL, AutoencoderKLConfig},
        config::Config,
        controlnet::{ControlNetConfig, ControlNetModel},
        unet2d::{UNet2DConfig, UNet2DModel},
        unet2d_condition::{UNet2DConditionConfig, UNet2DConditionModel},
    },
};
use tch::{
    Device, Kind, Tensor,
    nn::{Path as Variables, VarStore},
};

use crate::{
    Tensors, json, largest_difference,
    weights::{fill, signal},
};

const FIXTURES: &str = "diffusion_networks";
const TOLERANCE: f32 = 1e-4;

#[derive(Deserialize)]
struct Case {
    key: String,
    config: Map<String, Value>,
    /// How many the state dict holds, and a digest of their keys and shapes.
    variables: usize,
    digest: String,
    /// Values that give another output, of the same variables.
    wrong: Map<String, Value>,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    /// Batch, height, width.
    size: [i64; 3],
    #[serde(default)]
    timesteps: Vec<Value>,
    class_labels: Option<Value>,
    #[serde(default)]
    tokens: i64,
    /// Channels of the hidden states.
    #[serde(default)]
    context: i64,
    #[serde(default)]
    residuals: Vec<Vec<i64>>,
    #[serde(default)]
    scale: f64,
}

/// Whole numbers as int64, others as f32.
fn numbers(values: &[Value]) -> Tensor {
    match values.iter().map(Value::as_i64).collect::<Option<Vec<i64>>>() {
        Some(whole) => Tensor::from_slice(&whole),
        None => {
            let values: Vec<f32> = values.iter().map(|v| v.as_f64().unwrap() as f32).collect();
            Tensor::from_slice(&values)
        }
    }
}

#[allow(clippy::large_enum_variant)]
enum Network {
    UNet2D(UNet2DModel),
    Condition(UNet2DConditionModel),
    ControlNet(ControlNetModel),
    Autoencoder(AutoencoderKL),
}

impl Network {
    fn new(vs: &Variables, config: &Map<String, Value>) -> Result<Self> {
        let text = Value::from(config.clone()).to_string();
        let config = Config::parse(&text, Path::new("config.json"))?;
        Ok(match config.class() {
            Some("UNet2DModel") => Self::UNet2D(UNet2DModel::new(vs, &UNet2DConfig::read(&config)?)?),
            Some("UNet2DConditionModel") => {
                Self::Condition(UNet2DConditionModel::new(vs, &UNet2DConditionConfig::read(&config)?)?)
            }
            Some("ControlNetModel") => {
                Self::ControlNet(ControlNetModel::new(vs, &ControlNetConfig::read(&config)?)?)
            }
            Some("AutoencoderKL") => {
                Self::Autoencoder(AutoencoderKL::new(vs, &AutoencoderKLConfig::read(&config)?)?)
            }
            other => panic!("{other:?}"),
        })
    }

    fn to_json(&self) -> Value {
        match self {
            Self::UNet2D(net) => net.config().to_json(),
            Self::Condition(net) => net.config().to_json(),
            Self::ControlNet(net) => net.config().to_json(),
            Self::Autoencoder(net) => net.config().to_json(),
        }
    }

    fn in_channels(&self) -> i64 {
        match self {
            Self::UNet2D(net) => net.config().in_channels,
            Self::Condition(net) => net.config().in_channels,
            Self::ControlNet(net) => net.config().in_channels,
            Self::Autoencoder(net) => net.config().in_channels,
        }
    }

    /// Names and tensors; `prepare` is what happens to each image that goes in.
    fn outputs(
        &self,
        run: &Run,
        name: &str,
        prepare: &dyn Fn(Tensor) -> Tensor,
    ) -> Result<Vec<(String, Tensor)>> {
        let [batch, height, width] = run.size;
        let input = |what: &str, shape: &[i64]| prepare(signal(&format!("{name}/{what}"), shape));
        let x = input("sample", &[batch, self.in_channels(), height, width]);
        let timesteps = numbers(&run.timesteps);
        let labels = match &run.class_labels {
            None => None,
            Some(Value::Array(labels)) => Some(numbers(labels)),
            Some(given) => {
                let shape: Vec<i64> = serde_json::from_value(given["shape"].clone()).unwrap();
                Some(signal(&format!("{name}/class_labels"), &shape))
            }
        };
        let context = || input("context", &[batch, run.tokens, run.context]);
        Ok(match self {
            Self::UNet2D(net) => vec![("sample".into(), net.forward(&x, &timesteps, labels.as_ref())?)],
            Self::Condition(net) => {
                let residuals: Vec<Tensor> = (0..)
                    .zip(&run.residuals)
                    .map(|(i, shape)| input(&format!("residual{i}"), shape))
                    .collect();
                let (mid, down) = match residuals.split_last() {
                    Some((mid, down)) => (Some(mid), Some(down)),
                    None => (None, None),
                };
                let out = net.forward(&x, &timesteps, &context(), labels.as_ref(), down, mid)?;
                vec![("sample".into(), out)]
            }
            Self::ControlNet(net) => {
                let factor = net.config().conditioning_factor();
                let shape = [batch, net.config().conditioning_channels, height * factor, width * factor];
                let control = prepare(signal(&format!("{name}/control"), &shape) * 0.5 + 0.5);
                let (down, mid) = net.forward(&x, &timesteps, &context(), &control, run.scale)?;
                let down = (0..).zip(down).map(|(i, residual)| (format!("down{i}"), residual));
                down.chain([("mid".into(), mid)]).collect()
            }
            Self::Autoencoder(net) => {
                let posterior = net.encode(&x)?;
                let decoded = net.decode(&input("latents", &posterior.mean.size()))?;
                vec![
                    ("mean".into(), posterior.mode()),
                    ("logvar".into(), posterior.logvar.shallow_clone()),
                    ("decoded".into(), decoded),
                ]
            }
        })
    }
}

/// Of the sorted names and shapes, as the script has it.
fn digest(vs: &VarStore) -> String {
    let mut names: Vec<_> = vs.variables().iter().map(|(name, v)| (name.clone(), v.size())).collect();
    names.sort();
    let text: String = names.iter().map(|(name, size)| format!("{name} {size:?}\n")).collect();
    let hash =
        text.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

/// Every n-th value, as the script keeps them.
fn part(out: &Tensor) -> Vec<f32> {
    let values: Vec<f32> = Vec::try_from(out.to_kind(Kind::Float).contiguous().view(-1)).unwrap();
    values.into_iter().step_by(out.numel().div_ceil(1024) | 1).collect()
}

/// Largest difference from diffusers' outputs, with values of the configuration `changed`.
fn difference(case: &Case, tensors: &Tensors, changed: &Map<String, Value>) -> f32 {
    let mut config = case.config.clone();
    config.extend(changed.clone());
    let vs = VarStore::new(Device::Cpu);
    let net = Network::new(&vs.root(), &config).unwrap_or_else(|e| panic!("{}: {e}", case.key));
    assert_eq!((vs.len(), digest(&vs)), (case.variables, case.digest.clone()), "{}", case.key);
    fill(&vs, &case.key);
    let mut worst = 0f32;
    for (i, run) in case.runs.iter().enumerate() {
        let name = format!("{}/{i}", case.key);
        let outputs =
            tch::no_grad(|| net.outputs(run, &name, &|x| x)).unwrap_or_else(|e| panic!("{name}: {e}"));
        for (what, out) in outputs {
            let (_, expected) = tensors.f32(&format!("{name}/{what}"));
            let difference = largest_difference(&part(&out), &expected);
            worst = if difference.is_nan() { difference } else { worst.max(difference) };
        }
    }
    worst
}

fn cases(prefix: &str) -> Vec<Case> {
    let cases: Vec<Case> = json(&format!("{FIXTURES}.json"));
    let cases: Vec<_> = cases.into_iter().filter(|case| case.key.starts_with(prefix)).collect();
    assert!(cases.len() >= 3);
    cases
}

fn compare(prefix: &str) {
    let tensors = Tensors::read(&format!("{FIXTURES}.safetensors"));
    for case in cases(prefix) {
        let right = difference(&case, &tensors, &Map::new());
        println!("{}: {right:e}", case.key);
        assert!(right < TOLERANCE, "{}: {right}", case.key);
        let wrong = difference(&case, &tensors, &case.wrong);
        assert!(wrong > 1e-2, "{} with {:?}: {wrong}", case.key, case.wrong);
    }
}

#[test]
fn unet2d_equals_diffusers() {
    compare("unet2d_");
}

#[test]
fn unet2d_condition_equals_diffusers() {
    compare("condition_");
}

#[test]
fn controlnet_equals_diffusers() {
    compare("controlnet_");
}

#[test]
fn autoencoder_kl_equals_diffusers() {
    compare("vae_");
}

/// What is written is what was read, with no key that diffusers would not know.
#[test]
fn configurations_survive_writing() {
    for case in cases("") {
        let vs = VarStore::new(Device::Cpu);
        let net = Network::new(&vs.root(), &case.config).unwrap();
        let Value::Object(written) = net.to_json() else { panic!("no object") };
        let again = Network::new(&VarStore::new(Device::Cpu).root(), &written).unwrap();
        assert_eq!(net.to_json(), again.to_json(), "{}", case.key);
        for (key, value) in &written {
            // Heads are written under the key of theirs that checkpoints have.
            if key == "_diffusers_version" || (key == "attention_head_dim" && case.key == "controlnet_plain")
            {
                continue;
            }
            let expected = &case.config[key];
            let levels = |value: &Value| value.as_array().is_some_and(|a| a.iter().all(|v| *v == a[0]));
            let same = match (value.as_f64(), expected.as_f64()) {
                (Some(a), Some(b)) => a == b,
                (Some(_), None) if levels(expected) => *value == expected[0],
                _ => value == expected,
            };
            assert!(same, "{} {key}: {value} for {expected}", case.key);
        }
    }
}

/// Channels-last images give the same output, channels-last.
#[test]
fn channels_last_stays_channels_last() {
    for case in cases("") {
        let vs = VarStore::new(Device::Cpu);
        let net = Network::new(&vs.root(), &case.config).unwrap();
        fill(&vs, &case.key);
        let name = format!("{}/0", case.key);
        let nhwc = |x: Tensor| match x.size()[..] {
            [batch, channels, height, width] => {
                let size = [batch, channels, height, width];
                let stride = [channels * height * width, 1, width * channels, channels];
                x.permute([0, 2, 3, 1]).contiguous().as_strided(size, stride, None)
            }
            _ => x,
        };
        let (plain, last) = tch::no_grad(|| {
            let run = &case.runs[0];
            (net.outputs(run, &name, &|x| x).unwrap(), net.outputs(run, &name, &nhwc).unwrap())
        });
        for ((what, a), (_, b)) in plain.iter().zip(&last) {
            // Of one channel there is one order only: it cannot be told what the input's is.
            let one = a.size()[1] == 1 || case.config.get("in_channels").and_then(|n| n.as_i64()) == Some(1);
            let both = a.stride()[3] == 1 && b.stride()[1] == 1;
            assert!(both || one, "{name}/{what}: {:?} {:?}", a.stride(), b.stride());
            let difference = f64::try_from((a - b).abs().max()).unwrap();
            assert!(difference < 1e-4, "{name}/{what}: {difference}");
        }
    }
}

/// A step of gradient reaches every variable that is to be trained.
#[test]
fn every_network_trains() {
    for case in cases("") {
        let vs = VarStore::new(Device::Cpu);
        let net = Network::new(&vs.root(), &case.config).unwrap();
        fill(&vs, &case.key);
        let outputs = net.outputs(&case.runs[0], &format!("{}/0", case.key), &|x| x).unwrap();
        let loss: Tensor = outputs.iter().map(|(_, out)| out.square().mean(Kind::Float)).sum();
        loss.backward();
        let mut trained = 0;
        for (name, variable) in vs.variables() {
            if !variable.requires_grad() {
                assert_eq!(name, "time_proj.weight");
                continue;
            }
            let gradient = variable.grad();
            assert!(gradient.defined() && gradient.isfinite().all().int64_value(&[]) == 1, "{name}");
            // A key's bias moves all of a query's scores alike; and what multiplies a relu may be cut off.
            let idle = name.ends_with("to_k.bias") || gradient.size() == [1];
            assert!(idle || f64::try_from(gradient.abs().max()).unwrap() > 0.0, "{} {name}", case.key);
            trained += 1;
        }
        assert!(trained > 10);
    }
}

/// In half precision the outputs are of that type and near those in f32.
#[test]
fn every_network_runs_in_half_precision() {
    for case in cases("") {
        for kind in [Kind::BFloat16, Kind::Half] {
            let mut vs = VarStore::new(Device::Cpu);
            let net = Network::new(&vs.root(), &case.config).unwrap();
            fill(&vs, &case.key);
            let run = &case.runs[0];
            let name = format!("{}/0", case.key);
            let full = tch::no_grad(|| net.outputs(run, &name, &|x| x).unwrap());
            vs.set_kind(kind);
            let half = tch::no_grad(|| net.outputs(run, &name, &|x| x.to_kind(kind)).unwrap());
            for ((what, full), (_, half)) in full.iter().zip(&half) {
                // Noise levels, which are f32, divide what Fourier features lead to.
                let fourier = case.key == "unet2d_fourier";
                assert!(half.kind() == kind || fourier, "{name}/{what}: {:?}", half.kind());
                let scale = f64::try_from(full.std(true)).unwrap();
                let off = f64::try_from((full - half.to_kind(Kind::Float)).std(true)).unwrap();
                let allowed = if kind == Kind::Half { 0.01 } else { 0.06 };
                assert!(off < allowed * scale, "{name}/{what} in {kind:?}: {off} of {scale}");
            }
        }
    }
}
