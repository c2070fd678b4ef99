//! Adam and SGD with momentum over one flat buffer, equal to `torch.optim`'s; their state can be saved
//! and restored exactly (tch's optimizer can do neither).

use tch::Tensor;

use crate::{
    error::{Error, Result},
    experiment::UpdateRule,
};

/// A rule and its moments.
pub struct Optimizer {
    rule: UpdateRule,
    /// Adam: first and second moment; SGD: the velocity.
    moments: Vec<Tensor>,
    /// Steps done.
    step: u64,
}

impl Optimizer {
    pub fn new(rule: UpdateRule, master: &Tensor) -> Self {
        let count = if matches!(rule, UpdateRule::Sgd { .. }) { 1 } else { 2 };
        Self { rule, moments: (0..count).map(|_| master.zeros_like()).collect(), step: 0 }
    }

    pub fn moments(&self) -> &[Tensor] {
        &self.moments
    }

    /// Restores the state that another process saved, on whatever device it ran.
    ///
    /// # Errors
    /// When the moments are not this rule's.
    pub fn resume(&mut self, moments: &[Tensor], step: u64) -> Result<()> {
        if moments.len() != self.moments.len() {
            return Err(Error::failure("the checkpoint lacks the optimizer's moments"));
        }
        for (here, saved) in self.moments.iter_mut().zip(moments) {
            here.f_copy_(saved)?;
        }
        self.step = step;
        Ok(())
    }

    /// One step on the master weights with their gradient, both flat f32.
    pub fn step(&mut self, master: &Tensor, gradient: &Tensor, rate: f64) {
        self.step += 1;
        let chunk = if master.device().is_cuda() { CHUNK_CUDA } else { CHUNK };
        let (count, mut start) = (master.numel() as i64, 0);
        while start < count {
            let part = |whole: &Tensor| whole.narrow(0, start, chunk.min(count - start));
            let mut moments: Vec<Tensor> = self.moments.iter().map(part).collect();
            self.rule.apply(&mut part(master), &part(gradient), &mut moments, rate, self.step);
            start += chunk;
        }
    }
}

/// Weights that are worked on at a time (4 MB each of weights, gradient and moments): what one pass over
/// them reads is then in the CPU's cache for the next, and what it makes needs no new memory.
const CHUNK: i64 = 1 << 20;
/// On a GPU launching a kernel costs more than what a small one does; 256 MB each keep the temporaries small.
const CHUNK_CUDA: i64 = 1 << 26;

impl UpdateRule {
    /// Step `step`, from 1, on weights and moments in place.
    fn apply(self, master: &mut Tensor, gradient: &Tensor, moments: &mut [Tensor], rate: f64, step: u64) {
        let rule = match self {
            Self::AdamW { weight_decay } => {
                *master *= 1.0 - rate * weight_decay;
                Self::ADAM
            }
            rule => rule,
        };
        match (rule, moments) {
            (Self::Adam { beta1, beta2, eps }, [first, second]) => {
                let t = step as i32;
                let _ = first.lerp_(gradient, 1.0 - beta1);
                let _ = second.lerp_(&gradient.square(), 1.0 - beta2);
                let mut denominator = second.sqrt();
                denominator /= (1.0 - beta2.powi(t)).sqrt();
                denominator += eps;
                let mut update = &*first / denominator;
                update *= rate / (1.0 - beta1.powi(t));
                *master -= update;
            }
            (Self::Sgd { momentum, weight_decay }, [velocity]) => {
                // torch starts the velocity with the first gradient: the same, since it starts at zero.
                *velocity *= momentum;
                *velocity += gradient;
                if weight_decay > 0.0 {
                    *velocity += &*master * weight_decay;
                }
                *master -= &*velocity * rate;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adam_equals_tchs_own() {
        use tch::nn::{self, OptimizerConfig};
        let vs = nn::VarStore::new(tch::Device::Cpu);
        let start = Tensor::from_slice(&[1.0f32, -2.0, 0.5]);
        let w = vs.root().var_copy("w", &start);
        let mut theirs = nn::Adam::default().build(&vs, 1e-2).unwrap();
        let (master, scale) = (start.copy(), Tensor::from_slice(&[3.0f32, 1.0, 0.1]));
        let mut ours = Optimizer::new(UpdateRule::ADAM, &master);
        for _ in 0..50 {
            theirs.backward_step(&(&w * &w * &scale).sum(tch::Kind::Float));
            let gradient = &master * &scale * 2.0;
            ours.step(&master, &gradient, 1e-2);
        }
        assert!(f64::try_from((&master - &w).abs().max()).unwrap() < 1e-6);
    }

    #[test]
    fn adamw_equals_tchs_own() {
        use tch::nn::{self, OptimizerConfig};
        let vs = nn::VarStore::new(tch::Device::Cpu);
        let start = Tensor::from_slice(&[1.0f32, -2.0, 0.5]);
        let w = vs.root().var_copy("w", &start);
        let config = nn::AdamW { beta1: 0.9, beta2: 0.999, wd: 0.1, eps: 1e-8, amsgrad: false };
        let mut theirs = config.build(&vs, 1e-2).unwrap();
        let (master, scale) = (start.copy(), Tensor::from_slice(&[3.0f32, 1.0, 0.1]));
        let mut ours = Optimizer::new(UpdateRule::AdamW { weight_decay: 0.1 }, &master);
        for _ in 0..50 {
            theirs.backward_step(&(&w * &w * &scale).sum(tch::Kind::Float));
            let gradient = &master * &scale * 2.0;
            ours.step(&master, &gradient, 1e-2);
        }
        assert!(f64::try_from((&master - &w).abs().max()).unwrap() < 1e-6);
    }

    #[test]
    fn sgd_equals_tchs_own() {
        use tch::nn::{self, OptimizerConfig};
        let vs = nn::VarStore::new(tch::Device::Cpu);
        let start = Tensor::from_slice(&[1.0f32, -2.0, 0.5]);
        let w = vs.root().var_copy("w", &start);
        let config = nn::Sgd { momentum: 0.9, dampening: 0.0, wd: 0.01, nesterov: false };
        let mut theirs = config.build(&vs, 1e-2).unwrap();
        let master = start.copy();
        let mut ours = Optimizer::new(UpdateRule::Sgd { momentum: 0.9, weight_decay: 0.01 }, &master);
        for _ in 0..50 {
            theirs.backward_step(&(&w * &w).sum(tch::Kind::Float));
            let gradient = &master * 2.0;
            ours.step(&master, &gradient, 1e-2);
        }
        assert!(f64::try_from((&master - &w).abs().max()).unwrap() < 1e-6);
    }

    #[test]
    fn weights_of_several_parts_are_all_stepped() {
        let count = 2 * CHUNK + 3;
        let float = (tch::Kind::Float, tch::Device::Cpu);
        let (master, gradient) = (Tensor::zeros([count], float), Tensor::ones([count], float));
        Optimizer::new(UpdateRule::Sgd { momentum: 0.0, weight_decay: 0.0 }, &master)
            .step(&master, &gradient, 0.5);
        assert_eq!(master, Tensor::full([count], -0.5, float));
    }
}
