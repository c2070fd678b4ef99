//! Initial weights as PyTorch's defaults draw them, from a derived seed and each variable's name, so
//! that they do not depend on the order in which a network is built.

use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use tch::{Tensor, nn::VarStore};

use crate::random;

/// Draws a weight of this shape into the values.
pub type WeightDraw = fn(&[i64], &mut dyn rand::RngCore, &mut [f32]);

/// Variables that are looked up in, one row for each class, token or position.
const TABLES: [&str; 3] = ["class_embedding", "token_embedding", "position_embedding"];

/// What a network draws otherwise than `torch.nn` does.
#[derive(Clone, Copy, Default)]
pub struct WeightDraws {
    /// Weights of convolutions.
    pub convolution: Option<WeightDraw>,
    /// Weights of linear layers.
    pub linear: Option<WeightDraw>,
    /// All biases are 0.
    pub zero_biases: bool,
}

/// Fills every variable: convolutions and linear layers uniformly within 1/sqrt(fan in) (the default
/// of `torch.nn`), tables of embeddings from the standard normal (`torch.nn.Embedding`), norms with scale
/// 1, shift 0, mean 0, variance 1.
///
/// `convolution` may draw convolution weights otherwise (torchvision's ResNet does).
pub fn fill(vs: &VarStore, seed: u64, convolution: Option<WeightDraw>) {
    fill_with(vs, seed, WeightDraws { convolution, ..WeightDraws::default() });
}

/// [`fill`], drawing otherwise where `draws` says so.
pub fn fill_with(vs: &VarStore, seed: u64, draws: WeightDraws) {
    let variables = vs.variables();
    let mut names: Vec<_> = variables.keys().cloned().collect();
    names.sort();
    for name in names {
        let mut variable = variables[&name].shallow_clone();
        let shape = variable.size();
        let mut values = vec![0f32; variable.numel()];
        let mut rng = random::rng(seed, &format!("init {name}"), &[]);
        let (parent, leaf) = name.rsplit_once('.').unwrap_or(("", &name));
        let weight_shape = variables.get(&format!("{parent}.weight")).map(Tensor::size).unwrap_or_default();
        match leaf {
            "running_var" => values.fill(1.0),
            "running_mean" => {}
            "weight" if shape.len() < 2 => values.fill(1.0),
            "bias" if weight_shape.len() < 2 || draws.zero_biases => {}
            "weight" if shape.len() == 4 && draws.convolution.is_some() => {
                if let Some(draw) = draws.convolution {
                    draw(&shape, &mut rng, &mut values);
                }
            }
            "weight" if shape.len() == 2 && draws.linear.is_some() => {
                if let Some(draw) = draws.linear {
                    draw(&shape, &mut rng, &mut values);
                }
            }
            // At a linear layer's scale a class would drown in the time embedding that it is added to, and a
            // word in what the text encoder's layers add.
            "weight" if TABLES.iter().any(|table| parent.ends_with(table)) => {
                values.iter_mut().for_each(|v| *v = normal(&mut rng));
            }
            // diffusers' AttentionPooling.
            "positional_embedding" => {
                let sd = 1.0 / (shape[1] as f32).sqrt();
                values.iter_mut().for_each(|v| *v = sd * normal(&mut rng));
            }
            _ => {
                let bound = 1.0 / (weight_shape.iter().skip(1).product::<i64>() as f32).sqrt();
                values.iter_mut().for_each(|v| *v = rng.random_range(-bound..=bound));
            }
        }
        tch::no_grad(|| variable.copy_(&Tensor::from_slice(&values).view(shape.as_slice())));
    }
}

/// He initialisation by fan out, normal, gain of ReLU (torchvision's networks).
pub fn kaiming_normal_fan_out(shape: &[i64], rng: &mut dyn rand::RngCore, values: &mut [f32]) {
    let fan_out = shape[0] * shape.iter().skip(2).product::<i64>();
    let sd = (2.0 / fan_out as f32).sqrt();
    values.iter_mut().for_each(|v| *v = sd * normal(rng));
}

/// He initialisation by fan in, normal, for a leaky ReLU of slope 0.01 (nnU-Net's networks). Transposed convolutions,
/// whose first dimension is the input's, are drawn by the second one as PyTorch does it.
pub fn kaiming_normal_fan_in_leaky(shape: &[i64], rng: &mut dyn rand::RngCore, values: &mut [f32]) {
    let fan_in = shape[1] * shape.iter().skip(2).product::<i64>();
    let sd = (2.0 / (1.0 + 0.01f32 * 0.01) / fan_in as f32).sqrt();
    values.iter_mut().for_each(|v| *v = sd * normal(rng));
}

/// Normal with a standard deviation of 0.01 (torchvision's VGG).
pub fn normal_hundredth(_: &[i64], rng: &mut dyn rand::RngCore, values: &mut [f32]) {
    values.iter_mut().for_each(|v| *v = 0.01 * normal(rng));
}

/// Uniform within 1/sqrt(outputs) (torchvision's EfficientNet).
pub fn uniform_by_outputs(shape: &[i64], rng: &mut dyn rand::RngCore, values: &mut [f32]) {
    let bound = 1.0 / (shape[0] as f32).sqrt();
    values.iter_mut().for_each(|v| *v = rng.random_range(-bound..=bound));
}

fn normal(rng: &mut dyn rand::RngCore) -> f32 {
    StandardNormal.sample(rng)
}

#[cfg(test)]
mod tests {
    use tch::{
        Device,
        nn::{Init, VarStore},
    };

    use super::*;

    #[test]
    fn tables_of_embeddings_are_standard_normal_and_linear_layers_are_not() {
        let vs = VarStore::new(Device::Cpu);
        let make = |parent: &str| {
            let path = parent.split('.').fold(vs.root(), |path, part| path / part);
            path.f_var("weight", &[64, 256], Init::Const(0.0)).unwrap()
        };
        let tables = ["class_embedding", "text_model.embeddings.token_embedding"].map(make);
        // What a class that is no table is embedded by.
        let linear = make("class_embedding.linear_1");
        fill(&vs, 7, None);
        let sd = |tensor: &Tensor| tensor.std(true).double_value(&[]);
        for table in &tables {
            assert!((sd(table) - 1.0).abs() < 0.02, "{}", sd(table));
        }
        assert!((sd(&linear) - 1.0 / (16.0 * 3f64.sqrt())).abs() < 0.001, "{}", sd(&linear));
        assert!(linear.abs().max().double_value(&[]) <= 1.0 / 16.0);
    }
}
