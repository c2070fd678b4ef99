//! CLIP's text encoder against transformers 5.23.0, on the same weights. Fixtures: make_clip.py.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;
use serde_json::Value;
use synecho::nn::{
    clip_text::{ClipActivation, ClipTextConfig, ClipTextModel},
    config::Config,
};
use tch::{Device, Kind, Tensor, nn};

use crate::{Tensors, json, largest_difference, weights::fill};

#[derive(Deserialize)]
struct Fixture {
    /// As transformers writes them.
    configs: BTreeMap<String, Value>,
    keys: BTreeMap<String, Vec<String>>,
}

fn config(fixture: &Fixture, key: &str) -> ClipTextConfig {
    let text = fixture.configs[key].to_string();
    ClipTextConfig::read(&Config::parse(&text, Path::new("config.json")).unwrap()).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.to_kind(Kind::Float).contiguous().view(-1)).unwrap()
}

/// The largest differences from upstream: of the last hidden state, the pooled output, and the states
/// without the last one and two layers.
fn differences(key: &str, config: &ClipTextConfig, length: i64) -> [f32; 4] {
    let tensors = Tensors::read("clip.safetensors");
    let vs = nn::VarStore::new(Device::Cpu);
    let model = ClipTextModel::new(&vs.root(), config).unwrap();
    fill(&vs, key);
    let name = format!("{key}/{length}");
    let (shape, bytes) = tensors.bytes(&format!("{name}/ids"));
    assert_eq!(shape, [2, length as usize]);
    let ids: Vec<i64> = bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect();
    let ids = Tensor::from_slice(&ids).view([2, length]);
    tch::no_grad(|| {
        let last = model.forward(&ids).unwrap();
        let pooled = model.pooled(&ids, &last).unwrap();
        assert_eq!(
            (last.size(), pooled.size()),
            (vec![2, length, config.hidden_size], vec![2, config.hidden_size])
        );
        let skipped = [1, 2].map(|skip| model.forward_skipping(&ids, skip).unwrap());
        let difference = |out: &Tensor, what: &str| {
            largest_difference(&values(out), &tensors.f32(&format!("{name}/{what}")).1)
        };
        [
            difference(&last, "last"),
            difference(&pooled, "pooled"),
            difference(&skipped[0], "skip1"),
            difference(&skipped[1], "skip2"),
        ]
    })
}

const LENGTHS: [(&str, [i64; 2]); 3] = [("quick_gelu", [77, 38]), ("gelu", [77, 38]), ("deep", [21, 10])];

#[test]
fn the_text_encoder_equals_transformers() {
    let fixture: Fixture = json("clip.json");
    for (key, lengths) in LENGTHS {
        for length in lengths {
            let differences = differences(key, &config(&fixture, key), length);
            assert!(differences.iter().all(|d| *d < 1e-5), "{key} {length}: {differences:?}");
        }
    }
}

/// Half precision computes in half precision, and near the same.
#[test]
fn the_text_encoder_runs_in_bfloat16() {
    let fixture: Fixture = json("clip.json");
    let mut vs = nn::VarStore::new(Device::Cpu);
    let model = ClipTextModel::new(&vs.root(), &config(&fixture, "gelu")).unwrap();
    fill(&vs, "gelu");
    let ids = Tensor::arange(77, (Kind::Int64, Device::Cpu)).view([1, 77]);
    let full = tch::no_grad(|| model.forward(&ids).unwrap());
    vs.set_kind(Kind::BFloat16);
    let half = tch::no_grad(|| model.forward(&ids).unwrap());
    assert_eq!(half.kind(), Kind::BFloat16);
    let difference = largest_difference(&values(&full), &values(&half));
    assert!(difference > 0.0 && difference < 0.1, "{difference}");
}

/// Named as transformers 4 names them: with `text_model.` before the names of version 5.
#[test]
fn variables_are_named_as_upstream_names_them() {
    let fixture: Fixture = json("clip.json");
    for (key, expected) in &fixture.keys {
        let vs = nn::VarStore::new(Device::Cpu);
        ClipTextModel::new(&vs.root(), &config(&fixture, key)).unwrap();
        let mut names: Vec<String> =
            vs.variables().into_keys().map(|n| n.strip_prefix("text_model.").unwrap().to_owned()).collect();
        names.sort();
        assert_eq!(&names, expected, "{key}");
    }
}

/// Each single mistake is seen.
#[test]
fn wrong_text_encoders_do_not_pass() {
    let fixture: Fixture = json("clip.json");
    type Mistake = fn(&mut ClipTextConfig);
    // What is wrong, where, how, and which of the four outputs shows it.
    let wrong: [(&str, &str, i64, Mistake, usize); 6] = [
        ("gelu for quick_gelu", "quick_gelu", 77, |c| c.hidden_act = ClipActivation::Gelu, 0),
        ("quick_gelu for gelu", "gelu", 77, |c| c.hidden_act = ClipActivation::QuickGelu, 0),
        ("another epsilon", "gelu", 77, |c| c.layer_norm_eps = 1e-5, 0),
        ("other heads", "deep", 21, |c| c.num_attention_heads = 4, 0),
        ("pooled at the highest id", "deep", 21, |c| c.eos_token_id = Some(2), 1),
        ("pooled at the token of old", "gelu", 77, |c| c.eos_token_id = Some(0), 1),
    ];
    for (name, key, length, mistake, output) in wrong {
        let mut config = config(&fixture, key);
        mistake(&mut config);
        let differences = differences(key, &config, length);
        assert!(differences[output] > 1e-3, "{name}: {differences:?}");
    }
    // A layer more or less.
    let tensors = Tensors::read("clip.safetensors");
    let [last, skip1, skip2] =
        ["last", "skip1", "skip2"].map(|what| tensors.f32(&format!("quick_gelu/77/{what}")).1);
    assert!(largest_difference(&last, &skip1) > 1e-2 && largest_difference(&skip1, &skip2) > 1e-2);
}
