//! Euler, ancestral Euler, Heun, LCM and flow matching against diffusers 0.42.1: whole sampling loops
//! from the same noise, with the same stand-in for a network. Fixtures: make_euler_schedulers.py.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json as value};
use synecho::{
    error::Result,
    nn::schedulers::{PredictionType, Scheduler, SchedulerConfig},
    vocabulary::{NoiseLevels, Sampler},
};
use tch::{Kind, Tensor};

use crate::{
    Tensors, json,
    schedulers::{check_defaults, difference, kind, network, read, row},
    weights::signal,
};

const SHAPE: [i64; 4] = [2, 3, 2, 2];

#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
    noised: Vec<Noised>,
    defaults: Map<String, Value>,
}

#[derive(Deserialize)]
struct Case {
    scheduler: String,
    config: String,
    steps: usize,
    #[serde(default = "f32_name")]
    dtype: String,
    /// Where the steps lie, in place of what the configuration says.
    levels: Option<NoiseLevels>,
    /// Why upstream gives nothing to compare with.
    refused: Option<String>,
    /// First and number, among all.
    #[serde(default)]
    timesteps: [usize; 2],
    #[serde(default)]
    init_noise_sigma: f64,
    #[serde(default)]
    row: usize,
}

fn f32_name() -> String {
    "f32".to_owned()
}

impl Case {
    fn read(&self) -> Result<SchedulerConfig> {
        let config = read(&self.scheduler, &self.config)?;
        match self.levels {
            Some(levels) => config.with_levels(levels),
            None => Ok(config),
        }
    }

    fn name(&self) -> String {
        let levels = self.levels.map_or("", NoiseLevels::as_str);
        format!("{} {} {} {} {levels}", self.scheduler, self.config, self.steps, self.dtype)
    }
}

#[derive(Deserialize)]
struct Noised {
    scheduler: String,
    config: String,
    /// Of 10 steps, those at whose timesteps noise is added.
    indices: Vec<usize>,
    dtype: String,
    row: usize,
}

/// What a loop ends with, and what it went by.
struct Sampled {
    timesteps: Vec<f32>,
    init_noise_sigma: f64,
    sample: Tensor,
}

/// What a wrong implementation may do otherwise.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    UnscaledInput,
    UnscaledNoise,
    WholeTimesteps,
}

fn sample(config: &SchedulerConfig, case: &Case, fault: Fault) -> Result<Sampled> {
    let mut scheduler = Scheduler::new(config)?;
    scheduler.set_timesteps(case.steps)?;
    let timesteps = scheduler.timesteps().to_vec();
    let init_noise_sigma = scheduler.init_noise_sigma();
    let scale = if fault == Fault::UnscaledNoise { 1.0 } else { init_noise_sigma };
    let mut sample = (signal("euler/start", &SHAPE) * 1.7).to_kind(kind(&case.dtype)) * scale;
    for (index, &t) in timesteps.iter().enumerate() {
        let scaled = scheduler.scale_input(&sample)?;
        let input = if fault == Fault::UnscaledInput { &sample } else { &scaled };
        let seen = if fault == Fault::WholeTimesteps { t.round() } else { t };
        let out = network(input, seen, scheduler.num_train_timesteps(), false);
        let mut draw = |shape: &[i64]| Ok(signal(&format!("euler/noise/{index}"), shape));
        sample = scheduler.step(&out, t, &sample, &mut draw)?;
        assert_eq!(sample.kind(), kind(&case.dtype));
    }
    assert!(scheduler.scale_input(&sample).is_err());
    Ok(Sampled { timesteps, init_noise_sigma, sample })
}

fn tolerance(dtype: &str) -> f64 {
    match dtype {
        "bf16" => 0.03,
        "f16" => 0.004,
        _ => 1e-4,
    }
}

/// The largest distance of two lists, relative to the size of their values.
fn apart(found: &[f32], expected: &[f32]) -> f32 {
    if found.len() != expected.len() {
        return f32::INFINITY;
    }
    let apart = found.iter().zip(expected).map(|(a, b)| (a - b).abs() / b.abs().max(1.0));
    // f32::max would drop a NaN.
    apart.fold(0.0, |most, one| if one.is_nan() || one > most { one } else { most })
}

#[test]
fn loops_equal_diffusers() {
    let fixture: Fixture = json("euler_schedulers.json");
    let tensors = Tensors::read("euler_schedulers.safetensors");
    let (samples, timesteps) = (tensors.f32("samples"), tensors.f32("timesteps").1);
    let mut largest = BTreeMap::<(&str, &str), (usize, f64, f32)>::new();
    let mut failures = Vec::new();
    for case in fixture.cases.iter().filter(|c| c.refused.is_none()) {
        let at = case.name();
        let found = match case.read().and_then(|config| sample(&config, case, Fault::None)) {
            Ok(found) => found,
            Err(e) => {
                failures.push(format!("{at}: {e}"));
                continue;
            }
        };
        let [first, count] = case.timesteps;
        let times = apart(&found.timesteps, &timesteps[first..first + count]);
        let scale = (found.init_noise_sigma - case.init_noise_sigma).abs() / case.init_noise_sigma;
        let difference = difference(&found.sample, &row(&samples, case.row));
        if times.is_nan()
            || times > 1e-5
            || scale > 1e-6
            || difference.is_nan()
            || difference > tolerance(&case.dtype)
        {
            failures.push(format!("{at}: samples {difference:e}, timesteps {times:e}, noise {scale:e}"));
        }
        let (n, samples, times_of_class) = largest.entry((&case.scheduler, &case.dtype)).or_default();
        *n += 1;
        *samples = samples.max(difference);
        *times_of_class = times_of_class.max(times);
    }
    for ((scheduler, dtype), (n, samples, times)) in largest {
        println!("{scheduler} {dtype}: {n} loops, samples {samples:e}, timesteps {times:e}");
    }
    assert!(failures.is_empty(), "{} loops differ:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn what_diffusers_refuses_is_refused() {
    let fixture: Fixture = json("euler_schedulers.json");
    let refused: Vec<&Case> = fixture.cases.iter().filter(|c| c.refused.is_some()).collect();
    assert!(refused.len() > 40, "{}", refused.len());
    let mut failures = Vec::new();
    for case in refused {
        match case.read().and_then(|config| sample(&config, case, Fault::None)) {
            Err(e) => assert!(e.exit_code() == 2 && e.to_string().contains("help:"), "{e}"),
            Ok(_) => failures.push(format!("{}: upstream {:?}", case.name(), case.refused)),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn noise_is_added_as_in_diffusers() {
    let fixture: Fixture = json("euler_schedulers.json");
    let rows = Tensors::read("euler_schedulers.safetensors").f32("noised");
    for case in &fixture.noised {
        let kind = kind(&case.dtype);
        let (x, noise) = (signal("euler/x", &SHAPE).to_kind(kind), signal("euler/eps", &SHAPE).to_kind(kind));
        let mut scheduler = Scheduler::new(&read(&case.scheduler, &case.config).unwrap()).unwrap();
        scheduler.set_timesteps(10).unwrap();
        let timesteps: Vec<f32> = case.indices.iter().map(|&i| scheduler.timesteps()[i]).collect();
        let at = format!("{} {} {:?} {}", case.scheduler, case.config, case.indices, case.dtype);
        let found = scheduler.add_noise(&x, &noise, &timesteps).unwrap();
        assert_eq!((found.kind(), found.size()), (kind, SHAPE.to_vec()));
        let apart = difference(&found, &row(&rows, case.row));
        assert!(apart < if case.dtype == "f32" { 1e-6 } else { 0.01 }, "{at}: {apart}");
        assert!(scheduler.add_noise(&x, &noise, &[timesteps[0]; 3]).is_err(), "{at}: three for two");
        assert!(scheduler.add_noise(&x, &noise, &[timesteps[0] + 0.25]).is_err(), "{at}: no step's");
    }
}

#[test]
fn defaults_are_diffusers() {
    let fixture: Fixture = json("euler_schedulers.json");
    assert_eq!(fixture.defaults.len(), 6);
    for (name, upstream) in &fixture.defaults {
        check_defaults(name, upstream);
    }
}

/// The smallest difference that a fault makes, among loops that are not excused.
fn against(
    choose: impl Fn(&Case) -> bool,
    change: impl Fn(&mut SchedulerConfig),
    fault: Fault,
) -> (usize, f64) {
    let fixture: Fixture = json("euler_schedulers.json");
    let samples = Tensors::read("euler_schedulers.safetensors").f32("samples");
    let (mut count, mut smallest) = (0, f64::INFINITY);
    let cases = fixture.cases.iter().filter(|c| c.refused.is_none() && c.steps == 10 && c.dtype == "f32");
    for case in cases.filter(|c| choose(c)) {
        let mut config = case.read().unwrap();
        change(&mut config);
        count += 1;
        let difference = match sample(&config, case, fault) {
            Ok(found) => difference(&found.sample, &row(&samples, case.row)),
            Err(_) => f64::INFINITY,
        };
        smallest = smallest.min(difference);
    }
    (count, smallest)
}

fn sigma_scheduler(case: &Case) -> bool {
    ["euler", "euler-ancestral", "heun"].contains(&case.scheduler.as_str())
}

#[test]
fn wrong_schedulers_do_not_pass() {
    let (n, least) = against(sigma_scheduler, |_| {}, Fault::UnscaledInput);
    assert!(n > 100 && least > 1e-3, "unscaled input: {n} loops, {least:e}");
    // The largest sigma must differ from 1 for this to show.
    let (n, least) =
        against(|c| sigma_scheduler(c) && c.init_noise_sigma > 2.0, |_| {}, Fault::UnscaledNoise);
    assert!(n > 100 && least > 2e-4, "unscaled noise: {n} loops, {least:e}");
    let fractional =
        |case: &Case| sigma_scheduler(case) && case.config.contains("\"use_karras_sigmas\": true");
    let (n, least) = against(fractional, |_| {}, Fault::WholeTimesteps);
    assert!(n > 3 && least > 2e-4, "whole timesteps: {n} loops, {least:e}");
    let v = |case: &Case| case.config.contains("v_prediction");
    let epsilon = |config: &mut SchedulerConfig| match config {
        SchedulerConfig::Euler(c) => c.prediction_type = PredictionType::Epsilon,
        SchedulerConfig::EulerAncestral(c) => c.prediction_type = PredictionType::Epsilon,
        SchedulerConfig::Heun(c) => c.prediction_type = PredictionType::Epsilon,
        SchedulerConfig::Lcm(c) => c.prediction_type = PredictionType::Epsilon,
        other => panic!("{other:?}"),
    };
    let (n, least) = against(v, epsilon, Fault::None);
    assert!(n > 40 && least > 1e-2, "epsilon for v: {n} loops, {least:e}");
    let shifted = |case: &Case| case.scheduler.starts_with("flow-") && case.config.contains("\"shift\": 3");
    let unshift = |config: &mut SchedulerConfig| match config {
        SchedulerConfig::FlowEuler(c) => c.shift = 1.0,
        SchedulerConfig::FlowHeun(c) => c.shift = 1.0,
        other => panic!("{other:?}"),
    };
    let (n, least) = against(shifted, unshift, Fault::None);
    assert!(n >= 4 && least > 1e-3, "no shift: {n} loops, {least:e}");
    let midpoint = |config: &mut SchedulerConfig| {
        let SchedulerConfig::FlowHeun(heun) = &*config else { panic!("{config:?}") };
        *config = SchedulerConfig::FlowMidpoint(heun.clone());
    };
    let (n, least) = against(|case| case.scheduler == "flow-heun", midpoint, Fault::None);
    assert!(n >= 8 && least > 5e-4, "midpoint for Heun: {n} loops, {least:e}");
    // Unshifted levels that end at `shift_terminal` are the same either way.
    let even = |case: &Case| case.levels.is_some() && !case.config.contains("shift_terminal");
    let of_timesteps = |config: &mut SchedulerConfig| {
        *config = config.clone().with_levels(NoiseLevels::Timesteps).unwrap();
    };
    let (n, least) = against(even, of_timesteps, Fault::None);
    assert!(n >= 9 && least > 1e-3, "levels of the timesteps: {n} loops, {least:e}");
}

#[test]
fn unsupported_values_are_refused_by_name() {
    for (scheduler, config, name) in [
        ("euler", r#"{"interpolation_type": "cubic"}"#, "interpolation_type"),
        ("euler", r#"{"timestep_type": "odd"}"#, "timestep_type"),
        ("euler", r#"{"use_karras_sigmas": true, "use_beta_sigmas": true}"#, "use_beta_sigmas"),
        ("euler", r#"{"sigma_min": 0}"#, "sigma_min"),
        ("euler", r#"{"prediction_type": "original_sample"}"#, "prediction_type"),
        ("euler", r#"{"steps_offset": 9223372036854775807}"#, "steps_offset"),
        ("euler", r#"{"beta_schedule": "exp"}"#, "beta_schedule"),
        ("lcm", r#"{"beta_schedule": "exp"}"#, "beta_schedule"),
        ("euler-ancestral", r#"{"prediction_type": "sample"}"#, "prediction_type"),
        ("heun", r#"{"clip_sample": true, "clip_sample_range": -1}"#, "clip_sample_range"),
        ("lcm", r#"{"original_inference_steps": 0}"#, "original_inference_steps"),
        ("lcm", r#"{"original_inference_steps": 1001}"#, "original_inference_steps"),
        ("lcm", r#"{"timestep_scaling": 0}"#, "timestep_scaling"),
        ("flow-euler", r#"{"use_dynamic_shifting": true}"#, "use_dynamic_shifting"),
        ("flow-euler", r#"{"shift": 0}"#, "shift"),
        ("flow-euler", r#"{"shift_terminal": 1}"#, "shift_terminal"),
        ("flow-euler", r#"{"time_shift_type": "cubic"}"#, "time_shift_type"),
        ("flow-euler", r#"{"num_train_timesteps": 1}"#, "num_train_timesteps"),
        ("flow-euler", r#"{"new_key": 1}"#, "new_key"),
        ("flow-heun", r#"{"shift": -1}"#, "shift"),
        ("flow-heun", r#"{"num_train_timesteps": 1}"#, "num_train_timesteps"),
        ("flow-heun", r#"{"new_key": 1}"#, "new_key"),
        ("flow-midpoint", r#"{"shift": 0}"#, "shift"),
    ] {
        let error = read(scheduler, config).expect_err(config);
        let text = error.to_string();
        assert_eq!(error.exit_code(), 2);
        assert!(text.contains(name) && text.contains("scheduler_config.json"), "{config}: {text}");
        assert!(text.contains("help:"), "{text}");
    }
}

/// Every key with a value of another type or out of range: an error or a loop of finite numbers, no
/// panic.
#[test]
fn no_configuration_panics() {
    let odd = [
        Value::Null,
        value!(true),
        value!("odd"),
        value!(""),
        value!([]),
        value!([0.1, -3.0]),
        value!({"a": 1}),
        value!(-1),
        value!(0),
        value!(1),
        value!(3),
        value!(0.5),
        value!(-0.5),
        value!(1e300),
        value!(1e-300),
        value!(i64::MAX),
        value!(i64::MIN),
        value!(u64::MAX),
    ];
    let (mut tried, mut refused) = (0, 0);
    for class in Sampler::ALL {
        let written = read(class.as_str(), "{}").unwrap().to_json();
        let optional = ["sigma_min", "sigma_max", "clip_sample", "lambda_min_clipped", "use_karras_sigmas"];
        let keys = written.as_object().unwrap().keys().map(String::as_str).chain(optional);
        for key in keys.filter(|key| !key.starts_with('_')) {
            for base in ["{}", r#"{"use_karras_sigmas": true}"#, r#"{"thresholding": true}"#] {
                for odd in &odd {
                    let mut config: Value = serde_json::from_str(base).unwrap();
                    config[key] = odd.clone();
                    let text = config.to_string();
                    tried += 1;
                    let result = read(class.as_str(), &text).and_then(|config| steps_of(&config));
                    match result {
                        Ok(finite) => assert!(finite, "{class} {text}"),
                        Err(e) => {
                            refused += 1;
                            assert_eq!(e.exit_code(), 2, "{class} {text}: {e}");
                        }
                    }
                }
            }
        }
    }
    println!("{tried} configurations, {refused} refused");
    assert!(refused > 2000, "{refused} of {tried}");
}

/// Whether four steps end with finite numbers.
fn steps_of(config: &SchedulerConfig) -> Result<bool> {
    let mut scheduler = Scheduler::new(config)?;
    scheduler.set_timesteps(4)?;
    let doubled = config.to_json()["variance_type"].as_str().is_some_and(|v| v.starts_with("learned"));
    let mut sample = signal("euler/start", &SHAPE) * scheduler.init_noise_sigma();
    for t in scheduler.timesteps().to_vec() {
        let out = network(&scheduler.scale_input(&sample)?, t, scheduler.num_train_timesteps(), doubled);
        sample = scheduler.step(&out, t, &sample, &mut |shape| Ok(signal("euler/noise", shape)))?;
    }
    Ok(sample.to_kind(Kind::Double).isfinite().all().int64_value(&[]) == 1)
}
