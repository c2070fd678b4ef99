//! Weights in safetensors files, by the names that the upstream library gives them.

use std::{collections::HashMap, path::Path};

use safetensors::{SafeTensors, tensor::TensorView};
use tch::{Device, Kind, Tensor, nn::VarStore};

use crate::error::{AtPath, Error, Result};

fn dtype(kind: Kind) -> Result<safetensors::Dtype> {
    use safetensors::Dtype as D;
    Ok(match kind {
        Kind::Float => D::F32,
        Kind::Double => D::F64,
        Kind::Half => D::F16,
        Kind::BFloat16 => D::BF16,
        Kind::Int64 => D::I64,
        Kind::Int => D::I32,
        Kind::Uint8 => D::U8,
        other => return Err(Error::failure(format!("tensors of {other:?} are not written to safetensors"))),
    })
}

fn kind(dtype: safetensors::Dtype) -> Option<Kind> {
    use safetensors::Dtype as D;
    Some(match dtype {
        D::F32 => Kind::Float,
        D::F64 => Kind::Double,
        D::F16 => Kind::Half,
        D::BF16 => Kind::BFloat16,
        D::I64 => Kind::Int64,
        D::I32 => Kind::Int,
        D::U8 => Kind::Uint8,
        _ => return None,
    })
}

/// The bytes of a safetensors file that holds `tensors`, sorted by name, and a string-to-string
/// `metadata`.
pub fn to_bytes(tensors: &[(String, Tensor)], metadata: Vec<(String, String)>) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
        let mut data = vec![0u8; tensor.numel() * tensor.kind().elt_size_in_bytes()];
        tensor.f_copy_data_u8(&mut data, tensor.numel())?;
        let shape: Vec<usize> = tensor.size().iter().map(|&n| n as usize).collect();
        bytes.push((name.clone(), dtype(tensor.kind())?, shape, data));
    }
    bytes.sort_by(|a, b| a.0.cmp(&b.0));
    let fail = |e: safetensors::SafeTensorError| Error::failure(format!("cannot write safetensors: {e}"));
    let views = bytes
        .iter()
        .map(|(name, dtype, shape, data)| {
            Ok((name, TensorView::new(*dtype, shape.clone(), data).map_err(fail)?))
        })
        .collect::<Result<Vec<_>>>()?;
    // One entry at most: a map of more has no order of its own.
    let metadata = (!metadata.is_empty()).then(|| metadata.into_iter().collect::<HashMap<_, _>>());
    safetensors::serialize(views, metadata).map_err(fail)
}

/// Every tensor of a safetensors file, and its metadata. The bytes are checked before libtorch sees
/// them.
pub fn from_bytes(bytes: &[u8], file: &Path) -> Result<(HashMap<String, Tensor>, HashMap<String, String>)> {
    let damaged = |e: safetensors::SafeTensorError| {
        Error::input(format!("not a whole safetensors file: {e}")).at(file).help("copy or convert it again")
    };
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let views = SafeTensors::deserialize(bytes).map_err(damaged)?;
    let mut tensors = HashMap::new();
    for (name, view) in views.iter() {
        let kind = kind(view.dtype()).ok_or_else(|| {
            Error::input(format!("{name} has the type {:?}, which is not read here", view.dtype())).at(file)
        })?;
        let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
        tensors.insert(name.to_owned(), Tensor::f_from_data_size(view.data(), &shape, kind)?);
    }
    Ok((tensors, metadata))
}

/// Reads a safetensors file whole.
pub fn read(file: &Path) -> Result<HashMap<String, Tensor>> {
    let bytes = std::fs::read(file).at_path(file, "cannot read the weights")?;
    let pickled = ["pt", "pth", "bin", "ckpt"];
    if file.extension().is_some_and(|e| pickled.iter().any(|p| e == *p)) {
        return Err(Error::input("pickled weights are not read: they can run code").at(file).help(
            "convert them once in Python: safetensors.torch.save_file(torch.load(FILE, weights_only=True), \"weights.safetensors\")",
        ));
    }
    Ok(from_bytes(&bytes, file)?.0)
}

/// What a fault in keys or shapes comes from.
const ANOTHER: &str =
    "the file holds another network: name a checkpoint of this one, with its library's own names";

/// Copies the file's tensors into the network's variables. Every variable must be there with its
/// shape, but for those that `optional` names; keys that the network lacks are refused but for
/// BatchNorm's counters, which nothing here uses.
pub fn load(vs: &VarStore, file: &Path, optional: impl Fn(&str) -> bool) -> Result<()> {
    let tensors = read(file)?;
    let variables = vs.variables();
    let mut names: Vec<_> = variables.keys().collect();
    names.sort();
    for name in names {
        let variable = &variables[name];
        let found = match tensors.get(name) {
            Some(found) if found.size() == variable.size() => found,
            _ if optional(name) => continue,
            Some(found) => {
                return Err(Error::input(format!(
                    "{name} has the shape {:?}, the network needs {:?}",
                    found.size(),
                    variable.size()
                ))
                .at(file)
                .help(ANOTHER));
            }
            None => return Err(Error::input(format!("{name} is missing")).at(file).help(ANOTHER)),
        };
        tch::no_grad(|| variable.shallow_clone().f_copy_(found))?;
    }
    let mut surplus: Vec<_> = tensors
        .keys()
        .filter(|name| {
            !variables.contains_key(*name) && !name.ends_with("num_batches_tracked") && !optional(name)
        })
        .collect();
    surplus.sort();
    match surplus.first() {
        Some(name) => {
            Err(Error::input(format!("{name} is no variable of this network")).at(file).help(ANOTHER))
        }
        None => Ok(()),
    }
}
