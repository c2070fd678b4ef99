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
    spec::Precision,
};

/// Numeric type of activations and working weights.
pub fn kind(precision: Precision) -> Kind {
    match precision {
        Precision::F32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
        Precision::F16 => Kind::Half,
    }
}

pub struct Parameters {
    /// Trainable variables: first those held in low precision, then those in f32.
    variables: Vec<(String, Tensor)>,
    /// Statistics of norms, by name.
    pub buffers: Vec<(String, Tensor)>,
    /// Frozen weights in f32, by name.
    frozen: Vec<(String, Tensor)>,
    /// f32, all trainable weights one after the other.
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
        let kind = kind(precision);
        let mut names: Vec<&String> = all.keys().collect();
        names.sort_by_key(|name| (is_norm(name), (*name).clone()));
        let (mut variables, mut buffers, mut constants) = (Vec::new(), Vec::new(), Vec::new());
        for name in names {
            let mut tensor = all[name].shallow_clone();
            if tensor.requires_grad() {
                variables.push((name.clone(), tensor));
            } else if frozen(name) {
                let whole = tensor.detach();
                if precision != Precision::F32 && !is_norm(name) {
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
        let flat: Vec<Tensor> =
            variables.iter().map(|(_, v)| v.detach().to_kind(Kind::Float).flatten(0, -1)).collect();
        let master = Tensor::cat(&flat, 0);
        let low_count: i64 =
            variables.iter().filter(|(name, _)| !is_norm(name)).map(|(_, v)| v.numel() as i64).sum();
        let low = (precision != Precision::F32).then(|| master.narrow(0, 0, low_count).to_kind(kind));
        let mut offset = 0;
        for (_, variable) in &mut variables {
            let count = variable.numel() as i64;
            let home = match &low {
                Some(low) if offset < low_count => low,
                _ => &master,
            };
            let view = home.narrow(0, offset, count).view(variable.size().as_slice());
            variable.set_data(&view);
            offset += count;
        }
        Ok(Self { variables, buffers, frozen: constants, master, low, kind })
    }

    /// Numeric type of activations.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Trained weights.
    pub fn count(&self) -> usize {
        self.master.numel()
    }

    /// Trained and frozen weights.
    pub fn count_all(&self) -> usize {
        self.count() + self.frozen.iter().map(|(_, tensor)| tensor.numel()).sum::<usize>()
    }

    /// The gradient of `loss` over all trainable weights, f32, flat.
    pub fn gradient(&self, loss: &Tensor) -> Result<Tensor> {
        let variables: Vec<&Tensor> = self.variables.iter().map(|(_, v)| v).collect();
        let gradients = Tensor::f_run_backward(&[loss], &variables, false, false)?;
        let flat: Vec<Tensor> = gradients.iter().map(|g| g.to_kind(Kind::Float).flatten(0, -1)).collect();
        Ok(Tensor::f_cat(&flat, 0)?)
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
        let mut offset = 0;
        let mut named: Vec<(String, Tensor)> = self
            .variables
            .iter()
            .map(|(name, variable)| {
                let count = variable.numel() as i64;
                let view = snapshot.master.narrow(0, offset, count).view(variable.size().as_slice());
                offset += count;
                (name.clone(), view)
            })
            .collect();
        named.extend(snapshot.buffers.iter().map(|(name, b)| (name.clone(), b.shallow_clone())));
        named.extend(self.frozen.iter().map(|(name, f)| (name.clone(), f.shallow_clone())));
        named
    }
}

/// The state of a network apart from the network.
pub struct Snapshot {
    pub master: Tensor,
    pub buffers: HashMap<String, Tensor>,
}
