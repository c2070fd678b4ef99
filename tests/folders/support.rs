//! Tiny networks and folders.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};
use synecho::nn::tensor_file;
use tch::{Device, Kind, Tensor, nn, nn::VarStore};

/// Names and shapes of an attention layer's variables, and of a convolution beside it.
pub const VARIABLES: [(&str, &[i64]); 12] = [
    ("conv_in.weight", &[4, 1, 3, 3]),
    ("conv_in.bias", &[4]),
    ("mid_block.attentions.0.group_norm.weight", &[4]),
    ("mid_block.attentions.0.group_norm.bias", &[4]),
    ("mid_block.attentions.0.to_q.weight", &[4, 4]),
    ("mid_block.attentions.0.to_q.bias", &[4]),
    ("mid_block.attentions.0.to_k.weight", &[4, 4]),
    ("mid_block.attentions.0.to_k.bias", &[4]),
    ("mid_block.attentions.0.to_v.weight", &[4, 4]),
    ("mid_block.attentions.0.to_v.bias", &[4]),
    ("mid_block.attentions.0.to_out.0.weight", &[4, 4]),
    ("mid_block.attentions.0.to_out.0.bias", &[4]),
];

/// A network of these variables, all zero.
pub fn network() -> VarStore {
    let vs = VarStore::new(Device::Cpu);
    for (name, shape) in VARIABLES {
        let (path, leaf) = name.rsplit_once('.').unwrap();
        let path = path.split('.').fold(vs.root(), |vs, part| vs / part);
        let _ = path.f_var(leaf, shape, nn::Init::Const(0.0)).unwrap();
    }
    vs
}

/// Each variable's values: sixteenths, which half precision holds exactly.
pub fn weights() -> Vec<(String, Tensor)> {
    let one = |(i, (name, shape)): (usize, &(&str, &[i64]))| {
        let count: i64 = shape.iter().product();
        let values = (Tensor::arange(count, (Kind::Float, Device::Cpu)) + i as f64 * 10.0) / 16.0;
        ((*name).to_owned(), values.view(*shape))
    };
    VARIABLES.iter().enumerate().map(one).collect()
}

/// Whether the network has exactly these values, whatever its type.
pub fn has(vs: &VarStore, weights: &[(String, Tensor)]) -> bool {
    let variables = vs.variables();
    variables.len() == weights.len()
        && weights.iter().all(|(name, values)| variables[name].to_kind(values.kind()) == *values)
}

pub fn config() -> Value {
    json!({"_class_name": "UNet2DModel", "sample_size": 8})
}

pub fn put(dir: &Path, file: &str, text: &str) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join(file), text).unwrap();
}

/// A folder with a configuration and these weight files.
pub fn part(dir: &Path, files: &[(&str, Vec<(String, Tensor)>)]) {
    put(dir, "config.json", &config().to_string());
    for (file, tensors) in files {
        tensor_file::write(&dir.join(file), tensors).unwrap();
    }
}

pub fn kind(weights: Vec<(String, Tensor)>, kind: Kind) -> Vec<(String, Tensor)> {
    weights.into_iter().map(|(name, values)| (name, values.to_kind(kind))).collect()
}

pub fn renamed(weights: Vec<(String, Tensor)>, rename: impl Fn(&str) -> String) -> Vec<(String, Tensor)> {
    weights.into_iter().map(|(name, values)| (rename(&name), values)).collect()
}

/// The first half in one shard, the rest in another, and the index of both.
pub fn sharded(dir: &Path, index: &str, shards: [&str; 2], weights: Vec<(String, Tensor)>) {
    put(dir, "config.json", &config().to_string());
    let (mut first, mut map) = (weights, BTreeMap::new());
    let second = first.split_off(first.len() / 2);
    for (shard, tensors) in shards.into_iter().zip([first, second]) {
        tensor_file::write(&dir.join(shard), &tensors).unwrap();
        map.extend(tensors.into_iter().map(|(name, _)| (name, shard)));
    }
    put(dir, index, &json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string());
}
