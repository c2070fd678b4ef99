//! U-Net against MONAI 1.6.1, classification networks against torchvision 0.28.0, on the same weights.
//! Fixtures: make_networks.py.

use synecho::{
    nn::{
        classifier::Classifier,
        efficientnet::efficientnet_b0_with,
        forward_mode::{ForwardMode, TrainingStep},
        resnet::resnet18,
        unet::{UNet, UNetConfig},
    },
    train::dice_loss,
    vocabulary::Backbone,
};
use tch::{Device, Kind, Tensor, nn};

use crate::{
    Tensors, largest_difference,
    weights::{fill, fill_with_gain, signal, uniform},
};

fn name(key: &str, shape: &[i64]) -> String {
    let shape: Vec<String> = shape.iter().map(i64::to_string).collect();
    format!("{key}/{}", shape.join("x"))
}

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.to_kind(Kind::Float).contiguous().view(-1)).unwrap()
}

/// Largest difference from MONAI's output (of which every 5th row and 7th column are kept).
fn unet_difference(key: &str, config: &UNetConfig, shape: &[i64]) -> f32 {
    let tensors = Tensors::read("networks.safetensors");
    let vs = nn::VarStore::new(Device::Cpu);
    let net = UNet::new(&vs.root(), config).unwrap();
    fill(&vs, key);
    let name = name(key, shape);
    let out = tch::no_grad(|| net.forward(&signal(&name, shape)));
    assert_eq!(out.size(), [shape[0], config.out_channels, shape[2], shape[3]]);
    let (kept, expected) = tensors.f32(&name);
    let out = out.slice(2, 0, None, 5).slice(3, 0, None, 7);
    assert_eq!(out.size(), kept.iter().map(|&n| n as i64).collect::<Vec<_>>());
    largest_difference(&values(&out), &expected)
}

fn small() -> UNetConfig {
    UNetConfig {
        in_channels: 3,
        out_channels: 2,
        channels: vec![4, 8, 12, 24],
        strides: vec![2, 1, 2],
        negative_slope: 0.1,
    }
}

#[test]
fn unet_equals_monai() {
    let vs = nn::VarStore::new(Device::Cpu);
    UNet::new(&vs.root(), &UNetConfig::diffecho()).unwrap();
    assert_eq!(vs.trainable_variables().iter().map(Tensor::numel).sum::<usize>(), 664_282);
    for (key, config, shape) in [
        ("unet_diffecho", UNetConfig::diffecho(), [2, 1, 256, 256]),
        ("unet_diffecho", UNetConfig::diffecho(), [1, 1, 256, 384]),
        ("unet_small", small(), [2, 3, 64, 96]),
    ] {
        let difference = unet_difference(key, &config, &shape);
        assert!(difference < 1e-5, "{key} {shape:?}: {difference}");
    }
}

/// The default slope of LeakyReLU instead of the reference's.
#[test]
fn a_unet_with_another_slope_does_not_pass() {
    let config = UNetConfig { negative_slope: 0.01, ..small() };
    assert!(unet_difference("unet_small", &config, &[2, 3, 64, 96]) > 1e-2);
}

#[test]
fn resnet_equals_torchvision() {
    let tensors = Tensors::read("networks.safetensors");
    for classes in [2, 4] {
        for shape in [[2, 3, 224, 224], [3, 3, 160, 160]] {
            let key = format!("resnet18_{classes}");
            let name = name(&key, &shape);
            let mut outputs = Vec::new();
            for (mode, how) in
                [("eval", ForwardMode::Eval), ("train", ForwardMode::Train(TrainingStep::default()))]
            {
                let vs = nn::VarStore::new(Device::Cpu);
                let net = resnet18(&vs.root(), classes).unwrap();
                fill(&vs, &key);
                let out = values(&tch::no_grad(|| net.forward_t(&signal(&name, &shape), how)));
                let (kept, expected) = tensors.f32(&format!("{name}/{mode}"));
                assert_eq!(kept, [shape[0] as usize, classes as usize]);
                let difference = largest_difference(&out, &expected);
                assert!(difference < 1e-5, "{name} {mode}: {difference}");
                outputs.push(out);
                if how != ForwardMode::Eval {
                    // Momentum 0.1, and the variance divided by n - 1.
                    for statistic in ["bn1.running_mean", "bn1.running_var"] {
                        let got = values(&vs.variables()[statistic]);
                        let (_, expected) = tensors.f32(&format!("{name}/{statistic}"));
                        assert!(largest_difference(&got, &expected) < 1e-5, "{name} {statistic}");
                    }
                }
            }
            // One mode for the other does not pass.
            assert!(largest_difference(&outputs[0], &outputs[1]) > 1e-2);
        }
    }
}

/// Nothing is dropped: what torchvision draws cannot be drawn again.
fn without_dropout(backbone: Backbone, vs: &nn::VarStore) -> (Classifier, ForwardMode) {
    let train = ForwardMode::Train(TrainingStep::default());
    match backbone {
        Backbone::EfficientnetB0 => (efficientnet_b0_with(&vs.root(), 0.0, 0.0, 4).unwrap(), train),
        // Has no batch norms: evaluation is training without dropout.
        Backbone::Vgg16 | Backbone::Vgg19 => (backbone.build(&vs.root(), 4).unwrap(), ForwardMode::Eval),
        // What has dropout and a golden test of its own takes care of it there.
        _ => (backbone.build(&vs.root(), 4).unwrap(), train),
    }
}

#[test]
fn backbones_equal_torchvisions_in_evaluation_and_in_training() {
    let tensors = Tensors::read("networks.safetensors");
    for (backbone, gain, gradients, norm) in [
        (Backbone::Resnet50, 1.4, ["layer4.2.bn2.weight", "layer4.2.bn3.bias"], Some("layer4.2.bn3")),
        (Backbone::Vgg16, 1.0, ["features.0.weight", "classifier.6.weight"], None),
        (Backbone::Vgg19, 1.0, ["features.0.weight", "classifier.6.weight"], None),
        (
            Backbone::EfficientnetB0,
            2.0,
            ["features.0.0.weight", "features.4.1.block.2.fc1.weight"],
            Some("features.8.1"),
        ),
    ] {
        let key = backbone.as_str();
        let vs = nn::VarStore::new(Device::Cpu);
        let (net, train) = without_dropout(backbone, &vs);
        fill_with_gain(&vs, key, gain);
        // Of the greatest value, where that is above 1.
        let difference = |found: &[f32], name: &str| {
            let (_, expected) = tensors.f32(&format!("{key}/{name}"));
            let scale = expected.iter().fold(1f32, |m, v| m.max(v.abs()));
            largest_difference(found, &expected) / scale
        };
        let within = |tolerance: f32, found: &[f32], name: &str| {
            let difference = difference(found, name);
            println!("{key} {name}: {difference:e}");
            assert!(difference < tolerance, "{key} {name}: {difference}");
        };
        let same = |found: &[f32], name: &str| within(1e-4, found, name);
        let images = signal(&format!("{key}/images"), &[3, 3, 96, 96]);
        let eval = values(&tch::no_grad(|| net.forward_t(&images, ForwardMode::Eval)));
        same(&eval, "eval");
        // One image for another does not pass.
        assert!(difference(&[&eval[4..], &eval[..4]].concat(), "eval") > 1e-2);
        let out = net.forward_t(&images, train);
        (&out * signal(&format!("{key}/cotangent"), &out.size())).sum(Kind::Float).backward();
        same(&values(&out), "train");
        let variables = vs.variables();
        for name in gradients {
            let gradient = variables[name].grad().flatten(0, -1).slice(0, 0, None, 37);
            // The last bit of an activation decides whether a ReLU lets a gradient pass, and where a maximum lies:
            // torchvision's own gradients differ by 5.7e-3 between two CPUs.
            within(1e-2, &values(&gradient), &format!("gradient/{name}"));
        }
        for name in
            norm.iter().flat_map(|norm| ["running_mean", "running_var"].map(|s| format!("{norm}.{s}")))
        {
            same(&values(&variables[&name]), &name);
        }
        if norm.is_some() {
            assert!(difference(&eval, "train") > 1e-2, "one mode for the other passes");
        }
    }
}

#[test]
fn dice_loss_equals_monai() {
    let tensors = Tensors::read("networks.safetensors");
    for (batch, classes, absent) in [(4i64, 4i64, None), (1, 4, Some(3)), (3, 3, Some(1))] {
        let shape = [batch, classes, 24, 40];
        let name = name("dice_loss", &shape);
        let target: Vec<i64> = uniform(&format!("{name}/target"), (batch * 24 * 40) as usize)
            .map(|u| (u * classes as f64) as i64)
            .map(|class| if Some(class) == absent { 0 } else { class })
            .collect();
        let target = Tensor::from_slice(&target).view([batch, 24, 40]);
        let loss = values(&dice_loss(&(signal(&name, &shape) * 4.0), &target).unwrap().view(1));
        let (_, expected) = tensors.f32(&name);
        assert!(largest_difference(&loss, &expected) < 1e-6, "{name}: {loss:?} {expected:?}");
        if batch > 1 {
            let (_, per_image) = tensors.f32(&format!("{name}/per_image"));
            assert!(largest_difference(&loss, &per_image) > 1e-5, "{name} cannot fail");
        }
    }
}
