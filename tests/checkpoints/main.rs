//! Checkpoints of PyTorch: bit-exact against what PyTorch itself reads, and safe against files that mean harm. Readers of
//! other files are tried with damaged ones here too, because allocations are counted.

mod allocations;
mod faults;
mod good;
mod mutations;
mod readers;
mod torch_save;

use std::path::{Path, PathBuf};

use synecho::nn::tensor_file::TensorFile;
use tch::{Kind, Tensor};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/fixtures/checkpoints")
}

/// Name, type, shape and bytes of each tensor.
type Contents = Vec<(String, Kind, Vec<i64>, Vec<u8>)>;

fn bytes(tensor: &Tensor) -> Vec<u8> {
    let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.contiguous().copy_data_u8(&mut bytes, tensor.numel());
    bytes
}

fn contents(file: &TensorFile) -> Contents {
    let entries = file.entries().iter();
    entries
        .map(|entry| {
            let tensor = file.read(entry).unwrap();
            assert_eq!((tensor.kind(), tensor.size()), (entry.kind, entry.shape.clone()), "{}", entry.name);
            (entry.name.clone(), tensor.kind(), tensor.size(), bytes(&tensor))
        })
        .collect()
}
