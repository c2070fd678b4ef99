//! Training only a part of a network: its last tensors.

use tch::nn::VarStore;

use crate::experiment::Freeze;

/// Freezes all but the last tensors, in the order in which they were made, so that about (see [`Freeze`])
/// `budget` parameters are trained. Returns how many are.
pub fn freeze(vs: &VarStore, budget: usize, rule: Freeze) -> usize {
    /// Weight and bias of the last layer.
    const LAST_LAYER: usize = 2;
    let (mut trained, mut full) = (0, false);
    for (i, variable) in vs.trainable_variables().iter().rev().enumerate() {
        full |= match rule {
            Freeze::Reference => trained >= budget,
            Freeze::Exact => i >= LAST_LAYER && trained + variable.numel() > budget,
        };
        let _ = variable.set_requires_grad(!full);
        if !full {
            trained += variable.numel();
        }
    }
    trained
}

#[cfg(test)]
mod tests {
    use tch::{Device, Tensor};

    use super::*;
    use crate::vocabulary::Backbone;

    #[test]
    fn two_million_are_as_many_as_in_the_papers_code_and_never_more_where_exact() {
        for (backbone, reference, exact, held) in [
            (Backbone::Resnet18, 2_361_346, 2_050, 9),
            (Backbone::Resnet50, 3_417_090, 1_057_794, 17),
            (Backbone::Vgg16, 16_789_506, 12_290, 20),
            (Backbone::Vgg19, 16_789_506, 12_290, 23),
            (Backbone::EfficientnetB0, 2_053_266, 1_997_970, 14),
        ] {
            let vs = VarStore::new(Device::Cpu);
            let mut net = backbone.build(&vs.root(), 2).unwrap();
            for (rule, expected) in [(Freeze::Reference, reference), (Freeze::Exact, exact)] {
                assert_eq!(freeze(&vs, 2_000_000, rule), expected, "{backbone:?} {rule:?}");
                let trained: usize =
                    vs.trainable_variables().iter().filter(|v| v.requires_grad()).map(Tensor::numel).sum();
                assert_eq!(trained, expected);
            }
            // Of the layers of [`crate::nn::classifier`].
            assert_eq!(net.hold_frozen_layers(), held, "{backbone:?}");
        }
    }

    #[test]
    fn the_last_layer_is_trained_whatever_the_budget() {
        let vs = VarStore::new(Device::Cpu);
        let mut net = Backbone::Resnet18.build(&vs.root(), 2).unwrap();
        assert_eq!(freeze(&vs, 1, Freeze::Exact), 1026);
        assert_eq!(net.hold_frozen_layers(), 11);
        assert_eq!(freeze(&vs, 1 << 40, Freeze::Exact), 11_177_538);
        assert_eq!(net.hold_frozen_layers(), 0);
    }
}
