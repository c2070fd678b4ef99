//! Schedulers against diffusers 0.42.1: whole sampling loops from the same noise, with the same
//! stand-in for a network. Fixtures: make_schedulers.py.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use synecho::{
    error::{Error, Result},
    nn::{
        config::Config,
        schedulers::{BetaSchedule, PredictionType, Scheduler, SchedulerConfig},
    },
    vocabulary::Sampler,
};
use tch::{Kind, Tensor};

use crate::{Tensors, json, weights::signal};

const SHAPE: [i64; 4] = [2, 3, 4, 4];

#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
    noised: Vec<Noised>,
    defaults: serde_json::Map<String, Value>,
}

#[derive(Deserialize)]
struct Case {
    scheduler: String,
    config: String,
    steps: usize,
    #[serde(default = "f32_name")]
    dtype: String,
    eta: Option<f64>,
    use_clipped_model_output: Option<bool>,
    /// Why upstream gives nothing to compare with.
    refused: Option<String>,
    #[serde(default)]
    timesteps: Vec<f32>,
    #[serde(default)]
    row: usize,
}

fn f32_name() -> String {
    "f32".to_owned()
}

#[derive(Deserialize)]
struct Noised {
    scheduler: String,
    config: String,
    timesteps: Vec<f32>,
    dtype: String,
    row: usize,
    velocity: Option<usize>,
}

pub(crate) fn kind(dtype: &str) -> Kind {
    match dtype {
        "f32" => Kind::Float,
        "bf16" => Kind::BFloat16,
        "f16" => Kind::Half,
        other => panic!("{other}"),
    }
}

pub(crate) fn read(scheduler: &str, config: &str) -> Result<SchedulerConfig> {
    let config = Config::parse(config, Path::new("scheduler/scheduler_config.json"))?;
    SchedulerConfig::read_as(&config, scheduler.parse().map_err(synecho::Error::input)?)
}

/// The stand-in for a network: the twin of make_schedulers.py's, and of make_euler_schedulers.py's.
pub(crate) fn network(sample: &Tensor, t: f32, trained: i64, doubled: bool) -> Tensor {
    let x = sample.to_kind(Kind::Float);
    let u = &x / (x.abs() + 1.0);
    let t = f64::from(t);
    let w = ((t / trained as f64).max(0.0) * 1.1).min(0.999);
    let bent = (&u * 2.5 + 0.013 * t).sin() * 0.9 + &u * 0.2;
    let out = x * w + bent * (1.0 - w);
    let out = if doubled { Tensor::cat(&[&out, &(out.square() * 0.5)], 1) } else { out };
    out.to_kind(sample.kind())
}

/// Timesteps and the last sample.
fn sample(config: &SchedulerConfig, case: &Case) -> Result<(Vec<f32>, Tensor)> {
    let mut scheduler = Scheduler::new(config)?;
    if let Some(eta) = case.eta {
        scheduler.set_eta(eta, case.use_clipped_model_output.unwrap_or(false))?;
    }
    scheduler.set_timesteps(case.steps)?;
    let timesteps = scheduler.timesteps().to_vec();
    let learned = config.to_json()["variance_type"].as_str().is_some_and(|v| v.starts_with("learned"));
    let mut sample = (signal("schedulers/start", &SHAPE) * 1.7).to_kind(kind(&case.dtype));
    for (index, &t) in timesteps.iter().enumerate() {
        let out = network(&sample, t, scheduler.num_train_timesteps(), learned);
        let mut draw = |shape: &[i64]| Ok(signal(&format!("schedulers/noise/{index}"), shape));
        sample = scheduler.step(&out, t, &sample, &mut draw)?;
        assert_eq!(sample.kind(), kind(&case.dtype));
    }
    Ok((timesteps, sample))
}

pub(crate) fn row(samples: &(Vec<usize>, Vec<f32>), row: usize) -> Tensor {
    let width = samples.0[1];
    Tensor::from_slice(&samples.1[row * width..(row + 1) * width])
}

/// Largest difference; relative to the largest value where values are large (PNDM on squared-cosine
/// betas swings up to 1e9, upstream as here).
pub(crate) fn difference(found: &Tensor, expected: &Tensor) -> f64 {
    let scale = expected.abs().max().double_value(&[]);
    let difference = (found.to_kind(Kind::Float).flatten(0, -1) - expected).abs().max().double_value(&[]);
    difference / if scale > 10.0 { scale } else { 1.0 }
}

/// Of half precision a few units in the last place. PNDM on squared-cosine betas divides by nearly 0, so that the last
/// bit of a cosine decides the third digit of a sample: diffusers itself differs by 3.2e-3 between an AMD EPYC, which made
/// the fixture, and an Intel Xeon.
fn tolerance(case: &Case) -> f64 {
    match case.dtype.as_str() {
        "bf16" => 0.03,
        "f16" => 0.004,
        _ if case.scheduler == "pndm" && case.config.contains("squaredcos_cap_v2") => 5e-3,
        _ => 1e-4,
    }
}

#[test]
fn loops_equal_diffusers() {
    let fixture: Fixture = json("schedulers.json");
    let samples = Tensors::read("schedulers.safetensors").f32("samples");
    let (mut largest, mut largest_half) = (0.0f64, 0.0f64);
    let mut failures = Vec::new();
    for case in fixture.cases.iter().filter(|c| c.refused.is_none()) {
        let at = format!("{} {} {} {}", case.scheduler, case.config, case.steps, case.dtype);
        let (timesteps, found) = match read(&case.scheduler, &case.config).and_then(|c| sample(&c, case)) {
            Ok(found) => found,
            Err(e) => {
                failures.push(format!("{at}: {e}"));
                continue;
            }
        };
        let difference = difference(&found, &row(&samples, case.row));
        if timesteps != case.timesteps || difference.is_nan() || difference > tolerance(case) {
            failures.push(format!("{at}: {difference}, {timesteps:?}, not {:?}", case.timesteps));
        }
        let largest = if case.dtype == "f32" { &mut largest } else { &mut largest_half };
        *largest = largest.max(difference);
    }
    println!("largest difference: {largest:e}, in half precision {largest_half:e}");
    assert!(failures.is_empty(), "{} loops differ:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn what_diffusers_refuses_is_refused() {
    let fixture: Fixture = json("schedulers.json");
    let refused: Vec<&Case> = fixture.cases.iter().filter(|c| c.refused.is_some()).collect();
    assert!(refused.len() > 80);
    let mut failures = Vec::new();
    for case in refused {
        match read(&case.scheduler, &case.config).and_then(|c| sample(&c, case)) {
            Err(e) => assert_eq!(e.exit_code(), 2, "{e}"),
            Ok(_) => failures.push(format!(
                "{} {} {}: upstream {:?}",
                case.scheduler, case.config, case.steps, case.refused
            )),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Each loop's smallest difference from `wrong`'s; infinity where the wrong one is refused.
fn against(
    choose: impl Fn(&Case, &SchedulerConfig) -> bool,
    wrong: impl Fn(&mut SchedulerConfig),
) -> (usize, f64) {
    let fixture: Fixture = json("schedulers.json");
    let samples = Tensors::read("schedulers.safetensors").f32("samples");
    let (mut count, mut smallest) = (0, f64::INFINITY);
    for case in fixture.cases.iter().filter(|c| c.refused.is_none() && c.steps == 20) {
        let mut config = read(&case.scheduler, &case.config).unwrap();
        if !choose(case, &config) {
            continue;
        }
        wrong(&mut config);
        count += 1;
        let difference = match sample(&config, case) {
            Ok((_, found)) => difference(&found, &row(&samples, case.row)),
            Err(_) => f64::INFINITY,
        };
        assert!(!difference.is_nan());
        smallest = smallest.min(difference);
    }
    (count, smallest)
}

fn set_prediction(config: &mut SchedulerConfig, to: PredictionType) {
    match config {
        SchedulerConfig::Ddpm(c) => c.prediction_type = to,
        SchedulerConfig::Ddim(c) => c.prediction_type = to,
        SchedulerConfig::Pndm(c) => c.prediction_type = to,
        SchedulerConfig::UniPc(c) => c.prediction_type = to,
        SchedulerConfig::DpmSolver(c) => c.prediction_type = to,
        other => panic!("{:?}", other.class()),
    }
}

fn set_betas(config: &mut SchedulerConfig, to: Vec<f64>) {
    let betas = match config {
        SchedulerConfig::Ddpm(c) => &mut c.betas,
        SchedulerConfig::Ddim(c) => &mut c.betas,
        SchedulerConfig::Pndm(c) => &mut c.betas,
        SchedulerConfig::UniPc(c) => &mut c.betas,
        SchedulerConfig::DpmSolver(c) => &mut c.betas,
        other => panic!("{:?}", other.class()),
    };
    betas.trained_betas = Some(to);
}

#[test]
fn wrong_schedulers_do_not_pass() {
    let (count, smallest) = against(
        |case, config| {
            config.prediction_type() == Some(PredictionType::VPrediction)
                && case.eta.is_none()
                && case.dtype == "f32"
        },
        |config| set_prediction(config, PredictionType::Epsilon),
    );
    assert!(count > 40 && smallest > 1e-2, "epsilon for v: {count} loops, {smallest}");

    // The trap: i / n of whole numbers is 0 for all i < n.
    let alpha_bar = |t: f64| ((t + 0.008) / 1.008 * std::f64::consts::PI / 2.0).cos().powi(2);
    let betas: Vec<f64> = (0..1000i64)
        .map(|i| (1.0 - alpha_bar(((i + 1) / 1000) as f64) / alpha_bar((i / 1000) as f64)).min(0.999))
        .collect();
    assert_eq!(betas.iter().filter(|b| **b == 0.0).count(), 999);
    let (count, smallest) = against(
        |case, config| {
            config.betas().is_some_and(|betas| betas.beta_schedule == BetaSchedule::SquaredcosCapV2)
                && case.dtype == "f32"
        },
        |config| set_betas(config, betas.clone()),
    );
    assert!(count > 40 && smallest > 1e-2, "squared cosine of whole numbers: {count} loops, {smallest}");
}

#[test]
fn noise_is_added_as_in_diffusers() {
    let fixture: Fixture = json("schedulers.json");
    let rows = Tensors::read("schedulers.safetensors").f32("noised");
    for case in &fixture.noised {
        let kind = kind(&case.dtype);
        let (x, noise) =
            (signal("schedulers/x", &SHAPE).to_kind(kind), signal("schedulers/eps", &SHAPE).to_kind(kind));
        let mut scheduler = Scheduler::new(&read(&case.scheduler, &case.config).unwrap()).unwrap();
        scheduler.set_timesteps(20).unwrap();
        let at = format!("{} {} {:?} {}", case.scheduler, case.config, case.timesteps, case.dtype);
        let found = scheduler.add_noise(&x, &noise, &case.timesteps).unwrap();
        assert_eq!((found.kind(), found.size()), (kind, SHAPE.to_vec()));
        let expected = row(&rows, case.row);
        let tolerance = if case.dtype == "f32" { 1e-6 } else { 0.01 };
        assert!(difference(&found, &expected) < tolerance, "{at}");
        assert!(difference(&noise, &expected) > 0.02 || case.timesteps[0] > 900.0, "{at}: noise alone");
        if let Some(velocity) = case.velocity {
            let found = scheduler.velocity(&x, &noise, &case.timesteps).unwrap();
            assert!(difference(&found, &row(&rows, velocity)) < tolerance, "{at}");
            assert!(difference(&-found, &row(&rows, velocity)) > 0.1, "{at}: the other sign");
        }
        assert!(scheduler.add_noise(&x, &noise, &[0.0; 3]).is_err(), "{at}: three timesteps for two");
    }
    let unset = Scheduler::new(&read("unipc", "{}").unwrap()).unwrap();
    let x = signal("x", &SHAPE);
    assert!(unset.add_noise(&x, &x, &[3.0]).is_err());
}

#[test]
fn defaults_are_diffusers() {
    let fixture: Fixture = json("schedulers.json");
    for (name, upstream) in &fixture.defaults {
        check_defaults(name, upstream);
    }
}

/// Upstream's defaults are ours, and its file and ours are read alike.
pub(crate) fn check_defaults(name: &str, upstream: &Value) {
    let ours = read(name, "{}").unwrap();
    assert_eq!(ours.class().as_str(), name);
    let written = ours.to_json();
    for (key, value) in written.as_object().unwrap() {
        let expected = upstream.get(key).unwrap_or_else(|| panic!("{name} has no {key}"));
        let same = match (value.as_f64(), expected.as_f64()) {
            (Some(a), Some(b)) => a == b,
            _ => value == expected,
        };
        assert!(same, "{name} {key}: {value}, upstream {expected}");
    }
    // Upstream's own file, with every key, is read as the same; ours too.
    assert_eq!(read(name, &upstream.to_string()).unwrap(), ours);
    assert_eq!(read(name, &written.to_string()).unwrap(), ours);
    let config = Config::parse(&written.to_string(), Path::new("x.json")).unwrap();
    assert_eq!(SchedulerConfig::read(&config).unwrap(), ours);
}

fn refusal(scheduler: &str, config: &str) -> Error {
    read(scheduler, config).expect_err(config)
}

#[test]
fn unsupported_values_are_refused_by_name() {
    for (scheduler, config, name) in [
        ("ddpm", r#"{"beta_schedule": "sigmoid"}"#, "beta_schedule"),
        ("ddpm", r#"{"variance_type": "fixed_large_log"}"#, "variance_type"),
        ("ddpm", r#"{"clip_sample_range": 0}"#, "clip_sample_range"),
        ("ddpm", r#"{"trained_betas": [0.1, 0.2]}"#, "trained_betas"),
        ("ddim", r#"{"num_train_timesteps": 0}"#, "num_train_timesteps"),
        ("ddim", r#"{"beta_end": 1.5}"#, "1.5"),
        ("ddim", r#"{"new_key": 1}"#, "new_key"),
        ("pndm", r#"{"prediction_type": "sample"}"#, "prediction_type"),
        ("unipc", r#"{"prediction_type": "flow_prediction"}"#, "prediction_type"),
        ("unipc", r#"{"solver_order": 4}"#, "solver_order"),
        ("unipc", r#"{"solver_type": "bh3"}"#, "solver_type"),
        ("unipc", r#"{"solver_p": {"_class_name": "DDIMScheduler"}}"#, "solver_p"),
        ("unipc", r#"{"use_beta_sigmas": true}"#, "use_beta_sigmas"),
        ("unipc", r#"{"use_flow_sigmas": true}"#, "use_flow_sigmas"),
        ("unipc", r#"{"use_dynamic_shifting": true}"#, "use_dynamic_shifting"),
        ("unipc", r#"{"shift_terminal": 0.02}"#, "shift_terminal"),
        ("unipc", r#"{"solver_type": "bh1"}"#, "bh1"),
        ("unipc", r#"{"predict_x0": false}"#, "predict_x0"),
        ("unipc", r#"{"lower_order_final": false}"#, "lower_order_final"),
        ("dpmsolver++", r#"{"algorithm_type": "dpmsolver"}"#, "algorithm_type"),
        ("dpmsolver++", r#"{"lambda_min_clipped": "low"}"#, "lambda_min_clipped"),
        ("dpmsolver++", r#"{"final_sigmas_type": "one"}"#, "final_sigmas_type"),
        ("dpmsolver++", r#"{"variance_type": "odd"}"#, "variance_type"),
    ] {
        let error = refusal(scheduler, config);
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        assert!(text.contains(name) && text.contains("scheduler_config.json"), "{config}: {text}");
        assert!(text.contains("help:"), "{text}");
    }
    // Another scheduler's keys are dropped, whatever they say; the same keys of its own are not.
    read("pndm", r#"{"use_flow_sigmas": true, "clip_sample": false, "lambda_min_clipped": -Infinity}"#)
        .unwrap();
    read("dpmsolver++", r#"{"lambda_min_clipped": -Infinity, "variance_type": "fixed_small"}"#).unwrap();
    let other = Config::parse(r#"{"_class_name": "KDPM2DiscreteScheduler"}"#, Path::new("x.json")).unwrap();
    let text = SchedulerConfig::read(&other).unwrap_err().to_string();
    assert!(text.contains("KDPM2DiscreteScheduler") && text.contains("DDIMScheduler"), "{text}");
    assert!("kdpm2".parse::<Sampler>().unwrap_err().to_string().contains("dpmsolver++"));
}

#[test]
fn steps_out_of_turn_are_errors() {
    let x = signal("x", &SHAPE);
    let mut draw = |shape: &[i64]| Ok(signal("noise", shape));
    for class in Sampler::ALL {
        let mut scheduler = Scheduler::new(&read(class.as_str(), "{}").unwrap()).unwrap();
        assert!(scheduler.step(&x, 999.0, &x, &mut draw).is_err(), "{class}: before set_timesteps");
        for steps in [0, 1001] {
            assert_eq!(scheduler.set_timesteps(steps).unwrap_err().exit_code(), 2, "{class}: {steps}");
            assert!(scheduler.timesteps().is_empty());
        }
        let mut twice = Vec::new();
        for _ in 0..2 {
            scheduler.set_timesteps(4).unwrap();
            let timesteps = scheduler.timesteps().to_vec();
            assert!(
                scheduler.step(&x, timesteps[0] - 1.0, &x, &mut draw).is_err(),
                "{class}: another's turn"
            );
            let smaller = signal("x", &[2, 3, 4, 3]);
            assert_eq!(scheduler.step(&smaller, timesteps[0], &x, &mut draw).unwrap_err().exit_code(), 2);
            let mut sample = x.shallow_clone();
            for &t in &timesteps {
                sample = scheduler.step(&network(&sample, t, 1000, false), t, &sample, &mut draw).unwrap();
            }
            assert!(scheduler.step(&sample, timesteps[timesteps.len() - 1], &sample, &mut draw).is_err());
            twice.push(sample);
        }
        assert!(twice[0].equal(&twice[1]), "{class}: set_timesteps forgets");
    }
    let mut ddpm = Scheduler::new(&read("ddpm", "{}").unwrap()).unwrap();
    assert!(ddpm.set_eta(0.5, false).is_err());
    ddpm.set_timesteps(4).unwrap();
    assert!(ddpm.step(&x, 750.0, &x, &mut |_| Ok(signal("noise", &[1]))).is_err(), "noise of another shape");
}
