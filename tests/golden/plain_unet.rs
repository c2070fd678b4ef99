//! nnU-Net's plain U-Net against dynamic-network-architectures 0.4.4, and the loss of several resolutions against MONAI
//! 1.6.1. Fixtures: make_plain_unet.py.

use std::collections::HashMap;

use serde::Deserialize;
use synecho::{
    nn::plain_unet::{PlainUnet, PlainUnetConfig},
    train::{deep_supervision_loss, dice_loss},
};
use tch::{Device, Kind, Reduction, Tensor, nn};

use crate::{
    Tensors, json, largest_difference,
    weights::{fill, signal, uniform},
};

#[derive(Deserialize)]
struct Fixture {
    parameters: HashMap<String, usize>,
    losses: HashMap<String, HashMap<String, f64>>,
}

const CASES: [(&str, &[i64], [i64; 4]); 3] = [
    ("small", &[4, 6, 8, 10, 8, 6, 4], [2, 1, 64, 128]),
    ("strong", &[16, 32, 64, 128, 160], [1, 1, 32, 32]),
    ("two", &[3, 5], [1, 1, 6, 4]),
];

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.to_kind(Kind::Float).contiguous().view(-1)).unwrap()
}

/// The logits of a case at every resolution, and how many weights there are.
fn logits(key: &str, channels: &[i64], shape: &[i64]) -> (Vec<Tensor>, usize) {
    let vs = nn::VarStore::new(Device::Cpu);
    let config = PlainUnetConfig { in_channels: 1, out_channels: 4, channels: channels.to_vec() };
    let net = PlainUnet::new(&vs.root(), &config).unwrap();
    fill(&vs, &format!("plain/{key}"));
    let images = signal(&format!("plain/{key}/images"), shape);
    let count = vs.trainable_variables().iter().map(Tensor::numel).sum();
    (tch::no_grad(|| net.forward(&images, channels.len() - 1)).unwrap(), count)
}

#[test]
fn the_plain_u_net_equals_nnu_nets() {
    let (tensors, fixture): (_, Fixture) = (Tensors::read("plain_unet.safetensors"), json("plain_unet.json"));
    for (key, channels, shape) in CASES {
        let (logits, count) = logits(key, channels, &shape);
        assert_eq!(count, fixture.parameters[key], "{key}");
        assert_eq!(logits.len(), channels.len() - 1);
        for (level, part) in logits.iter().enumerate() {
            let (rows, columns) = if part.size()[2] >= 32 { (4, 5) } else { (1, 1) };
            let part = &part.slice(2, 0, None, rows).slice(3, 0, None, columns);
            let (shape, expected) = tensors.f32(&format!("{key}/{level}"));
            assert_eq!(part.size(), shape.iter().map(|&n| n as i64).collect::<Vec<_>>());
            let difference = largest_difference(&values(part), &expected);
            assert!(difference < 1e-5, "{key} level {level}: {difference}");
            // Another level's weights would not do.
            assert!(largest_difference(&values(&(part * 1.001)), &expected) > 1e-5);
        }
    }
}

#[test]
fn the_loss_of_several_resolutions_equals_monais() {
    let fixture: Fixture = json("plain_unet.json");
    for (key, channels, shape) in CASES {
        let (logits, _) = logits(key, channels, &shape);
        let pixels = (shape[0] * shape[2] * shape[3]) as usize;
        let classes: Vec<i64> =
            uniform(&format!("plain/{key}/target"), pixels).map(|u| (u * 4.0) as i64).collect();
        let target = Tensor::from_slice(&classes).view([shape[0], shape[2], shape[3]]);
        let both = |logits: &Tensor, target: &Tensor| {
            let none = None::<&Tensor>;
            let entropy = logits.f_cross_entropy_loss(target, none, Reduction::Mean, -100, 0.0)?;
            Ok(entropy + dice_loss(logits, target)?)
        };
        for (name, loss) in [
            ("dice", deep_supervision_loss(&logits, &target, dice_loss)),
            ("dice-cross-entropy", deep_supervision_loss(&logits, &target, both)),
        ] {
            let (loss, expected) = (f64::try_from(loss.unwrap()).unwrap(), fixture.losses[key][name]);
            assert!((loss - expected).abs() < 1e-5, "{key} {name}: {loss} {expected}");
        }
        if logits.len() > 1 {
            let first = f64::try_from(deep_supervision_loss(&logits[..1], &target, both).unwrap()).unwrap();
            assert!((first - fixture.losses[key]["dice-cross-entropy"]).abs() > 0.1);
        }
    }
}
