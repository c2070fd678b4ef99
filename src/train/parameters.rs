//! All trainable weights as one flat f32 buffer (the master), which the optimizer works on.
//!
//! The network's variables are views into it (f32), or into a low-precision copy of it: convolution
//! and linear weights in bf16, norms in f32. One flat buffer makes an optimizer step a handful of
//! kernels whatever the number of layers. Frozen weights stay out of it, and out of checkpoints: they are
//! what the training began with.

use std::collections::HashMap;

use tch::{Kind, Tensor};

use crate::{
    error::{Error, Result},
    vocabulary::Precision,
};

/// Numeric type of activations and working weights.
pub fn kind_of(precision: Precision) -> Kind {
    match precision {
        Precision::F32 | Precision::Auto => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
        Precision::F16 => Kind::Half,
    }
}

/// Every variable begins at a multiple of this many numbers: cuDNN's kernels read weights in whole lines, and
/// break off where they lie otherwise. What is between is zero, and stays so.
const ALIGNMENT: usize = 64;

pub struct Parameters {
    /// Trainable variables: first those held in low precision, then those in f32.
    variables: Vec<(String, Tensor)>,
    /// Where each of them begins in the master, and last where the master ends.
    offsets: Vec<i64>,
    /// Statistics of norms, by name.
    pub buffers: Vec<(String, Tensor)>,
    /// Frozen weights in f32, by name.
    frozen: Vec<(String, Tensor)>,
    /// f32, all trainable weights one after the other, with gaps (see [`ALIGNMENT`]).
    pub master: Tensor,
    /// Low-precision copy of the first part of the master.
    low: Option<Tensor>,
    kind: Kind,
}

impl Parameters {
    /// Takes over the variables of a network (or of several), by their names.
    ///
    /// # Errors
    /// A network without trainable weights.
    pub fn new(all: HashMap<String, Tensor>, precision: Precision) -> Result<Self> {
        Self::with_frozen(all, precision, |_| false)
    }

    /// [`Self::new`] of a network of whose untrained variables some, the `frozen` ones, never change.
    ///
    /// # Errors
    /// A network without trainable weights.
    pub fn with_frozen(
        all: HashMap<String, Tensor>,
        precision: Precision,
        frozen: impl Fn(&str) -> bool,
    ) -> Result<Self> {
        let is_norm = |name: &str| {
            let parent = name.rsplit_once('.').map_or("", |(parent, _)| parent);
            all.get(&format!("{parent}.weight")).is_some_and(|weight| weight.dim() < 2)
        };
        let kind = kind_of(precision);
        let mut names: Vec<&String> = all.keys().collect();
        names.sort_by_key(|name| (is_norm(name), (*name).clone()));
        let (mut variables, mut buffers, mut constants) = (Vec::new(), Vec::new(), Vec::new());
        for name in names {
            let mut tensor = all[name].shallow_clone();
            if tensor.requires_grad() {
                variables.push((name.clone(), tensor));
            } else if frozen(name) {
                let whole = tensor.detach();
                if kind != Kind::Float && !is_norm(name) {
                    tensor.set_data(&whole.to_kind(kind));
                }
                constants.push((name.clone(), whole));
            } else {
                buffers.push((name.clone(), tensor));
            }
        }
        if variables.is_empty() {
            return Err(Error::failure("the network has no trainable weights"));
        }
        let mut offsets = vec![0];
        for (_, variable) in &variables {
            offsets.push(offsets[offsets.len() - 1] + variable.numel().next_multiple_of(ALIGNMENT) as i64);
        }
        let values: Vec<Tensor> = variables.iter().map(|(_, v)| v.detach()).collect();
        let master = flat(&values)?;
        let low_count = offsets[variables.iter().filter(|(name, _)| !is_norm(name)).count()];
        let low = (precision != Precision::F32).then(|| master.narrow(0, 0, low_count).to_kind(kind));
        for ((_, variable), &offset) in variables.iter_mut().zip(&offsets) {
            let home = match &low {
                Some(low) if offset < low_count => low,
                _ => &master,
            };
            let view = home.narrow(0, offset, variable.numel() as i64).view(variable.size().as_slice());
            variable.set_data(&view);
        }
        Ok(Self { variables, offsets, buffers, frozen: constants, master, low, kind })
    }

    /// Numeric type of activations.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Trained weights.
    pub fn count(&self) -> usize {
        self.variables.iter().map(|(_, variable)| variable.numel()).sum()
    }

    /// Trained and frozen weights.
    pub fn count_all(&self) -> usize {
        self.count() + self.frozen.iter().map(|(_, tensor)| tensor.numel()).sum::<usize>()
    }

    /// The gradient of `loss` over all trainable weights, f32, laid out as the master.
    pub fn gradient(&self, loss: &Tensor) -> Result<Tensor> {
        let variables: Vec<&Tensor> = self.variables.iter().map(|(_, v)| v).collect();
        let gradients = Tensor::f_run_backward(&[loss], &variables, false, false)?;
        flat(&gradients)
    }

    /// Brings the low-precision copy up to date after the master has changed.
    pub fn refresh(&mut self) {
        if let Some(low) = &mut self.low {
            low.copy_(&self.master.narrow(0, 0, low.numel() as i64));
        }
    }

    /// Copies of master and buffers, for keeping the best.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            master: self.master.copy(),
            buffers: self.buffers.iter().map(|(name, b)| (name.clone(), b.copy())).collect(),
        }
    }

    /// Puts other weights in the place of the master's; returns a copy of those.
    pub fn exchange(&mut self, weights: &Tensor) -> Result<Tensor> {
        let before = self.master.copy();
        tch::no_grad(|| self.master.f_copy_(weights).map(|_| ()))?;
        self.refresh();
        Ok(before)
    }

    /// Puts a snapshot back.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<()> {
        tch::no_grad(|| {
            self.master.f_copy_(&snapshot.master)?;
            for (name, buffer) in &mut self.buffers {
                let saved = snapshot
                    .buffers
                    .get(name)
                    .ok_or_else(|| Error::failure(format!("{name} is not in the snapshot")))?;
                buffer.f_copy_(saved)?;
            }
            Ok::<_, Error>(())
        })?;
        self.refresh();
        Ok(())
    }

    /// A snapshot's tensors by variable name and shape, f32: what a weights file holds.
    pub fn named(&self, snapshot: &Snapshot) -> Vec<(String, Tensor)> {
        let mut named: Vec<(String, Tensor)> = self
            .variables
            .iter()
            .zip(&self.offsets)
            .map(|((name, variable), &offset)| {
                let count = variable.numel() as i64;
                (name.clone(), snapshot.master.narrow(0, offset, count).view(variable.size().as_slice()))
            })
            .collect();
        named.extend(snapshot.buffers.iter().map(|(name, b)| (name.clone(), b.shallow_clone())));
        named.extend(self.frozen.iter().map(|(name, f)| (name.clone(), f.shallow_clone())));
        named
    }
}

/// Tensors one after the other, f32, each filled up to a multiple of [`ALIGNMENT`] with zeros.
///
/// Neighbours of one kind are joined first and converted as one: a kernel for all, not one for each.
fn flat(tensors: &[Tensor]) -> Result<Tensor> {
    let joined: Vec<Tensor> = tensors
        .chunk_by(|a, b| a.kind() == b.kind())
        .map(|alike| {
            let zeros = Tensor::f_zeros([ALIGNMENT as i64], (alike[0].kind(), alike[0].device()))?;
            let mut parts = Vec::with_capacity(2 * alike.len());
            for tensor in alike {
                let gap = tensor.numel().next_multiple_of(ALIGNMENT) - tensor.numel();
                parts.push(tensor.flatten(0, -1));
                if gap > 0 {
                    parts.push(zeros.narrow(0, 0, gap as i64));
                }
            }
            Ok(Tensor::f_cat(&parts, 0)?.to_kind(Kind::Float))
        })
        .collect::<Result<_>>()?;
    match <[Tensor; 1]>::try_from(joined) {
        Ok([whole]) => Ok(whole),
        Err(several) => Ok(Tensor::f_cat(&several, 0)?),
    }
}

/// The state of a network apart from the network.
pub struct Snapshot {
    pub master: Tensor,
    pub buffers: HashMap<String, Tensor>,
}

#[cfg(test)]
mod tests {
    use tch::{
        Device,
        nn::{Init, VarStore},
    };

    use super::*;

    #[test]
    fn weights_begin_where_kernels_want_them_and_gaps_stay_zero_and_uncounted() {
        for precision in [Precision::F32, Precision::Bf16] {
            let vs = VarStore::new(Device::Cpu);
            let root = vs.root();
            let weight = (&root / "fc").var("weight", &[2, 5], Init::Const(1.0));
            let bias = (&root / "fc").var("bias", &[2], Init::Const(2.0));
            let norm = (&root / "norm").var("weight", &[3], Init::Const(3.0));
            let shift = (&root / "norm").var("bias", &[3], Init::Const(4.0));
            let parameters = Parameters::new(vs.variables().into_iter().collect(), precision).unwrap();
            assert_eq!((parameters.count(), parameters.master.size()), (18, vec![4 * 64]));
            assert_eq!(parameters.offsets, [0, 64, 128, 192, 256]);
            let sums = [(weight, 2.0), (bias, 1.0), (norm, 5.0), (shift, 7.0)];
            let loss: Tensor = sums.iter().map(|(t, factor)| t.sum(Kind::Float) * *factor).sum();
            let gradient = parameters.gradient(&loss).unwrap();
            assert_eq!((gradient.kind(), gradient.size()), (Kind::Float, vec![256]));
            assert_eq!(f64::try_from(gradient.sum(Kind::Float)).unwrap(), 20.0 + 2.0 + 15.0 + 21.0);
            for (name, value) in parameters.named(&parameters.snapshot()) {
                let expected = match name.as_str() {
                    "fc.weight" => 10.0,
                    "fc.bias" => 4.0,
                    "norm.weight" => 9.0,
                    _ => 12.0,
                };
                assert_eq!(f64::try_from(value.sum(Kind::Float)).unwrap(), expected, "{name}");
            }
            assert_eq!(f64::try_from(parameters.master.sum(Kind::Float)).unwrap(), 35.0);
        }
    }
}
