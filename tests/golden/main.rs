//! Golden tests: Synecho's own arithmetic against that of the Python libraries that the field uses,
//! on the fixtures that the scripts beside this file made (see README.md). Each has a wrong variant
//! beside it that must not pass.

mod augment;
mod clip;
mod diffusion_networks;
mod distances;
mod ejection_fraction;
mod euler_schedulers;
mod features;
mod iou;
mod measures;
mod mobilenet;
mod networks;
mod pipelines;
mod plain_unet;
mod python;
mod quality;
mod schedulers;
mod texture;
mod tokenizer;
mod weights;

use std::path::PathBuf;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/fixtures").join(name)
}

fn json<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_str(&std::fs::read_to_string(fixture(name)).unwrap()).unwrap()
}

/// The tensors of a safetensors file: name to (shape, bytes).
struct Tensors(Vec<u8>);

impl Tensors {
    fn read(name: &str) -> Self {
        Self(std::fs::read(fixture(name)).unwrap())
    }

    fn bytes(&self, name: &str) -> (Vec<usize>, Vec<u8>) {
        let file = safetensors::SafeTensors::deserialize(&self.0).unwrap();
        let tensor = file.tensor(name).unwrap();
        (tensor.shape().to_vec(), tensor.data().to_vec())
    }

    fn f32(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let (shape, bytes) = self.bytes(name);
        let values = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        (shape, values)
    }
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    // f32::max would drop a NaN.
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |m, d| if d.is_nan() || d > m { d } else { m })
}
