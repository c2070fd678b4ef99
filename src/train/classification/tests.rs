//! Trainings of EfficientNet-B0, which has all that is random in training, on a few tiny images.

use std::path::PathBuf;

use super::*;
use crate::{
    experiment::Preset,
    manifest::Row,
    nn::tensor_file::TensorFile,
    progress::Progress,
    results::TrainSummary,
    samples::Samples,
    train::{CURVES, SUMMARY, WEIGHTS},
    vocabulary::{Phase, Precision, Split, View},
};

const SIZE: usize = 40;
const BACKBONE: Backbone = Backbone::EfficientnetB0;

/// `n` images, one phase bright and the other dark.
fn samples(n: usize) -> Samples {
    let row = |i: usize| Row {
        split: Some(Split::Train),
        ..Row::new(format!("p{i}"), View::TwoChamber, Phase::ALL[i % 2], PathBuf::new())
    };
    let pixels = SIZE * SIZE;
    let images = (0..n * pixels).map(|at| (at * at % 151 + 100 * (at / pixels % 2)) as u8).collect();
    Samples {
        size: SIZE,
        images,
        masks: vec![],
        rows: (0..n).map(row).collect(),
        ids: (0..n as u64).collect(),
    }
}

fn settings(trainable_parameters: usize, freeze: Freeze, augmented: bool) -> Classification {
    let base = Classification::preset(Preset::Corrected);
    Classification {
        trainable_parameters,
        freeze,
        image_size: SIZE,
        epochs: 2,
        batch_size: 4,
        augment: crate::experiment::Augment { enabled: augmented, ..base.augment },
        ..base
    }
}

/// Trains; goes on from the checkpoint in `dir`, if there is one.
fn train(settings: &Classification, dir: &Path) {
    let (data, progress) = (TaskData { train: samples(6), val: samples(4) }, Progress::new(true));
    let setting = Setting {
        device: tch::Device::Cpu,
        out: dir,
        checkpoints: &dir.join("checkpoint"),
        checkpoint_every: 0.0,
        start: None,
        progress: &progress,
        label: "",
        lap: &|| {},
    };
    classification(settings, BACKBONE, None, &data, 5, &setting).unwrap();
}

fn bytes(dir: &Path, file: &str) -> Vec<u8> {
    std::fs::read(dir.join(file)).unwrap()
}

fn summary(dir: &Path) -> TrainSummary {
    serde_json::from_slice(&bytes(dir, SUMMARY)).unwrap()
}

#[test]
fn a_training_goes_on_with_the_same_masks_whatever_is_frozen() {
    for settings in [
        settings(0, Freeze::Reference, true),
        settings(2_000_000, Freeze::Reference, true),
        settings(2_000_000, Freeze::Exact, true),
        Classification { precision: Precision::Bf16, ..settings(2_000_000, Freeze::Exact, false) },
    ] {
        let [calm, stopped] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        train(&settings, calm.path());
        train(&Classification { epochs: 1, ..settings.clone() }, stopped.path());
        let after_one = bytes(stopped.path(), CURVES);
        train(&settings, stopped.path());
        assert_ne!(bytes(stopped.path(), CURVES), after_one);
        for file in [WEIGHTS, CURVES, SUMMARY] {
            assert!(bytes(calm.path(), file) == bytes(stopped.path(), file), "{file}: {settings:?}");
        }
    }
}

#[test]
fn weights_hold_the_frozen_parameters_as_they_were_and_the_summary_counts_what_is_trained() {
    let vs = VarStore::new(tch::Device::Cpu);
    BACKBONE.build(&vs.root(), 2).unwrap();
    BACKBONE.init(&vs, random::seed(5, "classification weights", &[]));
    let start = vs.variables();
    for (freeze, trained, precision) in [
        (Freeze::Reference, 2_053_266, Precision::F32),
        (Freeze::Exact, 1_997_970, Precision::F32),
        (Freeze::Exact, 1_997_970, Precision::Bf16),
    ] {
        let dir = tempfile::tempdir().unwrap();
        train(&Classification { precision, ..settings(2_000_000, freeze, true) }, dir.path());
        let summary = summary(dir.path());
        assert_eq!((summary.parameters, summary.trainable), (4_010_110, trained));
        let file = TensorFile::open(&dir.path().join(WEIGHTS)).unwrap();
        assert_eq!(file.entries().len(), start.len());
        let same = |name: &str| {
            let entry = file.entries().iter().find(|entry| entry.name == name).unwrap();
            file.read(entry).unwrap() == start[name]
        };
        assert!(same("features.0.0.weight") && same("features.5.0.block.0.1.weight"));
        assert!(!same("classifier.1.weight") && !same("features.8.0.weight"));
        // Frozen batch norms: the paper's code goes on with their statistics.
        assert_eq!(same("features.0.1.running_mean"), freeze == Freeze::Exact);
        assert!(!same("features.8.1.running_mean"));
    }
}

#[test]
fn a_last_layer_of_other_classes_is_a_new_linear_one() {
    let net = |classes: usize| {
        let vs = VarStore::new(tch::Device::Cpu);
        BACKBONE.build(&vs.root(), classes).unwrap();
        vs
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("w.safetensors");
    let imagenet = net(1000);
    BACKBONE.init(&imagenet, 7);
    let variables: Vec<_> = imagenet.variables().into_iter().collect();
    crate::nn::tensor_file::write(&file, &variables).unwrap();
    let greatest = |vs: &VarStore| vs.variables()["classifier.1.weight"].abs().max().double_value(&[]);
    let (tuned, scratch) = (net(2), net(2));
    start(&tuned, BACKBONE, Some(&file), 5).unwrap();
    start(&scratch, BACKBONE, None, 5).unwrap();
    let bounds = [1.0 / 1280f64.sqrt(), 1.0 / 2f64.sqrt()];
    for (vs, bound) in [&tuned, &scratch].into_iter().zip(bounds) {
        assert!((0.9 * bound..=1.001 * bound).contains(&greatest(vs)), "{} for {bound}", greatest(vs));
    }
    let same = |name: &str| tuned.variables()[name] == imagenet.variables()[name];
    assert!(same("features.0.0.weight") && same("features.8.1.running_var"));
}

#[test]
fn held_features_stand_for_the_images() {
    let vs = VarStore::new(tch::Device::Cpu);
    let mut net = BACKBONE.build(&vs.root(), 2).unwrap();
    BACKBONE.init(&vs, 0);
    freeze(&vs, 2_000_000, Freeze::Exact);
    let held = net.hold_frozen_layers();
    assert_eq!(held, 14);
    let (val, channels) = (samples(4), [augment::HALF[0]; 3]);
    let labels = val.labels(Label::Phase);
    let images = Loader {
        samples: &val,
        target: Target::Labels(&labels),
        batch_size: 3,
        channels: &channels,
        seed: 0,
        device: tch::Device::Cpu,
        features: None,
    };
    let features = Features::of(&images, |images| net.held_features(images)).unwrap().unwrap();
    let cached = Loader { features: Some(&features), ..images };
    let step = TrainingStep { seed: 1, step: 2, hold_frozen_norms: true };
    for mode in [ForwardMode::Eval, ForwardMode::Train(step)] {
        let logits = |loader: &Loader, done: usize| {
            let mut all = Vec::new();
            loader
                .in_order(|batch| {
                    all.push((net.forward_from(done, &batch.images, mode), batch.target));
                    Ok(())
                })
                .unwrap();
            all
        };
        for ((a, of_a), (b, of_b)) in logits(&images, 0).into_iter().zip(logits(&cached, held)) {
            assert_eq!(of_a, of_b);
            assert!((a - b).abs().max().double_value(&[]) < 1e-5);
        }
    }
    // More than a number a pixel is not kept.
    assert!(Features::of(&images, Tensor::shallow_clone).unwrap().is_none());
}
