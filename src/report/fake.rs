//! A made-up experiment for tests: believable curves and scores, the same every time.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{
    PanelItem, ReportInput, ReportMeta, TrainedNetwork,
    generators::{
        Cost, Judge, NearestPictures, ReportedGenerator, SampleRow, Synthetic, distances::DistanceSettings,
    },
};
use crate::{
    cell::NetworkCell,
    picture::Picture,
    random,
    results::{CurvePoint, GeneratorSummary, Measurement, OCTAVES, TrainSummary},
    vocabulary::{Extractor, Metric, Source, Task},
};

pub(crate) struct FakeShape {
    pub arms: usize,
    pub seeds: u64,
    pub epochs: u64,
    pub patients: u64,
}

impl Default for FakeShape {
    fn default() -> Self {
        Self { arms: 3, seeds: 3, epochs: 20, patients: 40 }
    }
}

/// (name, what it adds to a score, training images).
const ARMS: [(&str, f64, u64); 10] = [
    ("real", 0.0, 400),
    ("real 25 %", -0.03, 100),
    ("real + 100 % text+seg", 0.012, 800),
    ("duplicate-real 100 %", 0.004, 800),
    ("real + 25 % text+seg", 0.004, 500),
    ("real + 50 % text+seg", 0.009, 600),
    ("real + 200 % text+seg", 0.006, 1200),
    ("real + 100 % unconditional", -0.008, 800),
    ("real + 100 % text", 0.001, 800),
    ("duplicate-real 200 %", 0.002, 1200),
];

/// What their names say.
fn arm_info(name: &str, images: u64) -> super::ArmInfo {
    let generator = ["text+seg", "unconditional", "text"].into_iter().find(|g| name.ends_with(g));
    let more = generator.is_some() || name.starts_with("duplicate");
    super::ArmInfo {
        name: name.into(),
        what: String::new(),
        synthetic: generator.map(Into::into),
        ratio: more.then(|| images as f64 / 400.0 - 1.0),
        replaces_real: false,
        control: name.starts_with("duplicate-real"),
        real_fraction: if name == "real 25 %" { 0.25 } else { 1.0 },
    }
}

fn normal(rng: &mut ChaCha8Rng) -> f64 {
    (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0
}

pub(crate) fn input(shape: &FakeShape) -> ReportInput {
    let mut input = ReportInput {
        meta: ReportMeta {
            name: "fake".into(),
            title: "How much real data a network needs".into(),
            key: "1a2b3c".into(),
            date: "2026-11-30".into(),
            is_phantom: true,
            source: Some(Source::Phantom),
            data_description: "Phantom of 120 patients (2CH and 4CH, ED and ES), 256 x 256 pixels; 60 train, 20 validate, 40 test.".into(),
            resolved_toml: "[experiment]\nname = \"fake\"\nseeds = [0, 1, 2]\n\n[data]\nsource = \"phantom\"\n".into(),
            versions: vec![("synecho".into(), "0.1.0".into()), ("libtorch".into(), "2.13.0".into())],
            commit: "0123456789ab".into(),
            seeds: (0..shape.seeds).collect(),
            arms: ARMS.iter().take(shape.arms).map(|arm| arm_info(arm.0, arm.2)).collect(),
            methods: vec![(Task::Segmentation, "MONAI's U-Net; batches of 4".into())],
            limits: vec!["A phantom is not a patient. Its speckle is drawn.".into()],
            settings: vec![
                ("segmentation: loss weights".into(), "0.05, 0.25, 0.35, 0.35".into()),
                ("segmentation: schedule".into(), "cosine per epoch, 1e-3 to 1e-4".into()),
            ],
            notes: vec!["The atrium is outside some pictures.".into()],
            warnings: vec!["arm \"real 25 %\": 100 training images are few.".into()],
            ..Default::default()
        },
        panel: ["Best", "Median", "Worst"].iter().enumerate().map(|(i, name)| panel_item(name, i)).collect(),
        ..Default::default()
    };
    for (a, (arm, shift, images)) in ARMS.iter().take(shape.arms).enumerate() {
        for seed in 0..shape.seeds {
            let mut rng = random::rng(7, "fake", &[a as u64, seed]);
            segmentation(&mut input, shape, (arm, *shift, *images), seed, &mut rng);
            classification(&mut input, shape, (arm, *shift, *images), seed, &mut rng);
        }
    }
    input
}

fn model(
    shape: &FakeShape,
    arm: (&str, f64, u64),
    seed: u64,
    task: Task,
    batch: u64,
    best_epoch: u64,
) -> TrainedNetwork {
    let steps = arm.2.div_ceil(batch);
    let segmentation = task == Task::Segmentation;
    let parameters = if segmentation { 664_282 } else { 11_177_538 };
    let model = if segmentation { "monai-unet" } else { "resnet18" }.to_owned();
    TrainedNetwork {
        cell: NetworkCell { task, arm: arm.0.into(), model, seed },
        summary: TrainSummary {
            best_step: best_epoch * steps,
            best_epoch: best_epoch as f64,
            best_value: Some(if segmentation { 0.87 } else { 0.82 }),
            select_metric: if segmentation { "mean dice" } else { "accuracy" }.into(),
            parameters,
            trainable: parameters,
            train_images: arm.2,
            synthetic_images: 0,
            train_patients: arm.2 / 4,
            val_images: 80,
            val_patients: 20,
            epochs: shape.epochs as f64,
            steps: shape.epochs * steps,
            precision: "f32".into(),
        },
        test_images: shape.patients * 4,
        test_patients: shape.patients,
        preset: "corrected".into(),
    }
}

fn segmentation(
    input: &mut ReportInput,
    shape: &FakeShape,
    arm: (&str, f64, u64),
    seed: u64,
    rng: &mut ChaCha8Rng,
) {
    let model = model(shape, arm, seed, Task::Segmentation, 4, shape.epochs - seed.min(2));
    let steps = model.summary.steps / shape.epochs;
    let point = |epoch: u64, split: &str, structure: &str, metric: &str, value: f64| CurvePoint {
        experiment: "fake".into(),
        task: "segmentation".into(),
        arm: arm.0.into(),
        model: "monai-unet".into(),
        seed: Some(seed),
        split: split.into(),
        step: epoch * steps,
        epoch: epoch as f64,
        structure: structure.into(),
        metric: metric.into(),
        value,
    };
    for epoch in 1..=shape.epochs {
        let t = 1.0 - (-(epoch as f64) * (0.35 + arm.2 as f64 / 3000.0)).exp();
        let noise = 0.008 * normal(rng);
        for (structure, top) in [("mean", 0.866), ("endo", 0.912), ("myo", 0.822), ("la", 0.863)] {
            input.curves.push(point(epoch, "val", structure, "dice", (top + arm.1) * t.powf(0.6) + noise));
        }
        input.curves.push(point(epoch, "train", "", "loss", 1.1 * (1.0 - t) + 0.16 + 0.01 * normal(rng)));
        input.curves.push(point(
            epoch,
            "val",
            "",
            "loss",
            1.1 * (1.0 - t) + 0.2 - arm.1 + 0.012 * normal(rng),
        ));
    }
    for p in 0..shape.patients {
        let mut own = random::rng(3, "patient", &[p]);
        let level = 0.025 * normal(&mut own);
        for (view, phase) in [("2CH", "ED"), ("2CH", "ES"), ("4CH", "ED"), ("4CH", "ES")] {
            for (structure, top) in [("endo", 0.91), ("myo", 0.82), ("epi", 0.94), ("la", 0.865)] {
                let missing = structure == "la" && rng.random::<f64>() < 0.01;
                let tail = if rng.random::<f64>() < 0.04 { 0.15 * rng.random::<f64>() } else { 0.0 };
                let dice = (top + arm.1 + level + 0.02 * normal(rng) - tail).clamp(0.0, 0.99);
                let hd95 = 60.0 * (1.0 - dice) * (0.7 + 0.6 * rng.random::<f64>());
                for (metric, value, unit) in [
                    ("dice", if missing { 0.0 } else { dice }, ""),
                    ("hd", if missing { f64::NAN } else { hd95 * 1.4 }, "mm"),
                    ("hd95", if missing { f64::NAN } else { hd95 }, "mm"),
                    ("assd", if missing { f64::NAN } else { hd95 * 0.3 }, "mm"),
                ] {
                    input.measurements.push(Measurement {
                        view: view.into(),
                        phase: phase.into(),
                        structure: structure.into(),
                        metric: metric.into(),
                        value,
                        unit: unit.into(),
                        n: Some(1),
                        ..measured(arm.0, seed, p)
                    });
                }
            }
        }
    }
    ventricle(input, shape, arm, seed);
    input.models.push(model);
}

/// A row of a patient's segmentation.
fn measured(arm: &str, seed: u64, patient: u64) -> Measurement {
    Measurement {
        experiment: "fake".into(),
        task: "segmentation".into(),
        arm: arm.into(),
        model: "monai-unet".into(),
        seed: Some(seed),
        split: "test".into(),
        patient: format!("patient{patient:04}"),
        ..Measurement::default()
    }
}

/// Ejection fraction and volumes. Patient 7 lacks an image; of patient 3 the first network finds no atrium.
fn ventricle(input: &mut ReportInput, shape: &FakeShape, arm: (&str, f64, u64), seed: u64) {
    for p in 0..shape.patients {
        let mut own = random::rng(5, "ventricle", &[p]);
        let (reference, edv) = (52.0 + 9.0 * normal(&mut own), 110.0 + 20.0 * normal(&mut own));
        let recorded = (reference + 1.2 * normal(&mut own)).round();
        let mut drawn = random::rng(5, arm.0, &[p, seed]);
        let off = (5.0 - 60.0 * arm.1) * normal(&mut drawn);
        let (ef, reference) = match p {
            7 => (f64::NAN, f64::NAN),
            3 if seed == 0 && arm.0 == "real" => (f64::NAN, reference),
            _ => (reference + off, reference),
        };
        let esv = |ef: f64| edv * (1.0 - ef / 100.0);
        for (metric, value) in [
            (Metric::Ef, ef),
            (Metric::EfReference, reference),
            (Metric::EfRecorded, recorded),
            (Metric::EfError, (ef - reference).abs()),
            (Metric::Edv, if ef.is_nan() { ef } else { edv + off }),
            (Metric::Esv, esv(ef)),
            (Metric::EdvReference, if reference.is_nan() { reference } else { edv }),
            (Metric::EsvReference, esv(reference)),
        ] {
            input.measurements.push(Measurement {
                metric: metric.into(),
                value: (value * 1e3).round() / 1e3,
                unit: metric.unit().into(),
                n: Some(if p == 7 { 3 } else { 4 }),
                ..measured(arm.0, seed, p)
            });
        }
    }
}

fn classification(
    input: &mut ReportInput,
    shape: &FakeShape,
    arm: (&str, f64, u64),
    seed: u64,
    rng: &mut ChaCha8Rng,
) {
    let model = model(shape, arm, seed, Task::Classification, 32, shape.epochs / 2 + seed);
    let steps = model.summary.steps / shape.epochs;
    let top = 0.82 + 2.0 * arm.1;
    for epoch in 1..=shape.epochs {
        let t = 1.0 - (-(epoch as f64) * 0.3).exp();
        for (split, metric, value) in [
            ("train", "loss", 0.7 - 0.5 * t + 0.01 * normal(rng)),
            ("val", "loss", 0.7 - 0.3 * t + 0.02 * normal(rng)),
            ("val", "accuracy", (0.5 + (top - 0.5) * t + 0.02 * normal(rng)).min(1.0)),
        ] {
            input.curves.push(CurvePoint {
                experiment: "fake".into(),
                task: "classification".into(),
                arm: arm.0.into(),
                model: "resnet18".into(),
                seed: Some(seed),
                split: split.into(),
                step: epoch * steps,
                epoch: epoch as f64,
                structure: String::new(),
                metric: metric.into(),
                value,
            });
        }
    }
    let mut counts = [[0.0; 2]; 2];
    let row =
        |patient: &str, view: &str, phase: &str, structure: &str, metric: &str, value: f64| Measurement {
            experiment: "fake".into(),
            task: "classification".into(),
            arm: arm.0.into(),
            model: "resnet18".into(),
            seed: Some(seed),
            split: "test".into(),
            patient: patient.into(),
            view: view.into(),
            phase: phase.into(),
            structure: structure.into(),
            metric: metric.into(),
            value,
            unit: if metric == "confusion" { "images" } else { "" }.into(),
            n: Some(1),
        };
    for p in 0..shape.patients {
        let patient = format!("patient{p:04}");
        for (view, phase) in [("2CH", "ED"), ("2CH", "ES"), ("4CH", "ED"), ("4CH", "ES")] {
            let correct = rng.random::<f64>() < top;
            let truth = usize::from(phase == "ES");
            counts[truth][if correct { truth } else { 1 - truth }] += 1.0;
            input.measurements.push(row(&patient, view, phase, "", "correct", f64::from(u8::from(correct))));
            input.measurements.push(row(&patient, view, phase, "ED", "probability", rng.random()));
        }
    }
    let all: f64 = counts.iter().flatten().sum();
    let accuracy = (counts[0][0] + counts[1][1]) / all;
    for (metric, value) in [
        ("accuracy", accuracy),
        ("precision", accuracy + 0.003),
        ("recall", accuracy - 0.002),
        ("f1", accuracy + 0.001),
        ("auc", (accuracy + 0.07).min(1.0)),
        ("accuracy_ci95_low", accuracy - 0.06),
        ("accuracy_ci95_high", accuracy + 0.06),
    ] {
        input.measurements.push(row("", "", "", "", metric, value));
    }
    for (t, truth) in ["ED", "ES"].into_iter().enumerate() {
        for (p, predicted) in ["ED", "ES"].into_iter().enumerate() {
            input.measurements.push(row(
                "",
                "",
                "",
                &format!("{truth} as {predicted}"),
                "confusion",
                counts[t][p],
            ));
        }
    }
    input.models.push(model);
}

/// Adds a generator of each mode, and one of another program's images.
pub(crate) fn add_generators(input: &mut ReportInput) {
    let modes = ["external", "text", "text+segmentation", "unconditional"];
    for (i, mode) in modes.into_iter().enumerate() {
        let name = mode.replace('+', "-");
        let row = |view: &str, phase: &str, structure: &str, metric: &str, value: f64| Measurement {
            experiment: "fake".into(),
            task: Task::Generation.into(),
            arm: name.clone(),
            model: mode.into(),
            seed: Some(0),
            split: "train".into(),
            view: view.into(),
            phase: phase.into(),
            structure: structure.into(),
            metric: metric.into(),
            value,
            n: Some(if view.is_empty() { 400 } else { 100 }),
            ..Measurement::default()
        };
        let own = random::rng(11, "generator", &[i as u64]).random::<f64>();
        for (o, octave) in OCTAVES.into_iter().enumerate() {
            let ratio = |shift: f64| 2f64.powf((own + shift - 0.6) * (3.0 - o as f64));
            input.measurements.push(row("", "", octave, "texture", ratio(0.0)));
            input.measurements.push(row("2CH", "ED", octave, "texture", ratio(-0.2)));
            input.measurements.push(row("4CH", "ES", octave, "texture", ratio(0.15)));
        }
        for (metric, value) in [("accuracy", 0.7 + 0.1 * own), ("view_accuracy", 0.9)] {
            input.measurements.push(row("", "", "", metric, value));
        }
        let masked = mode == "text+segmentation";
        if masked {
            for (metric, value) in [("dice", 0.83), ("dice_sd", 0.06)] {
                input.measurements.push(row("", "", "mean", metric, value));
            }
            for (structure, metric, value) in [("mean", "hd95", 6.25), ("la", "hd95_failures", 3.0)] {
                let unit = "px".to_owned();
                input.measurements.push(Measurement { unit, ..row("", "", structure, metric, value) });
            }
        }
        let cost = |seconds: f64| Some(Cost { seconds, on: "cpu, 2 threads".into() });
        let mut generator = ReportedGenerator {
            name: name.clone(),
            mode: mode.into(),
            images: 400,
            samples: ["2CH ED", "2CH ES", "4CH ED", "4CH ES"].map(|class| samples(class, masked)).to_vec(),
            ..ReportedGenerator::default()
        };
        if mode != "external" {
            let parameters = 7_304_880;
            generator.summary = Some(GeneratorSummary {
                mode: mode.into(),
                parameters,
                trainable: if masked { 2_100_000 } else { parameters },
                train_images: 1520,
                train_patients: 380,
                val_images: 64,
                steps: 1500,
                batch: 16,
                image_size: 128,
                precision: "bf16".into(),
                quality_images: Some(64),
                best_step: masked.then_some(1250),
            });
            generator.sampling = "ddim, 50 steps".into();
            (generator.training_cost, generator.sampling_cost) = (cost(5400.0 + 60.0 * own), cost(320.0));
            let mut rng = random::rng(12, "generator", &[i as u64]);
            for step in (25u64..=1500).step_by(25) {
                let loss = 0.05 + 0.7 * (-(step as f64) / 120.0).exp();
                let quality = [
                    ("kid", "", 0.2 * loss - 0.02),
                    ("view_accuracy", "", 1.0 - loss),
                    ("dice", "mean", 0.9 - loss),
                ];
                let measured = if masked { &quality[..] } else { &quality[..2] };
                for (metric, structure, value) in measured.iter().filter(|_| step % 250 == 0) {
                    input.curves.push(CurvePoint {
                        experiment: "fake".into(),
                        task: Task::Generation.into(),
                        arm: name.clone(),
                        model: mode.into(),
                        seed: Some(0),
                        split: "val".into(),
                        step,
                        structure: (*structure).into(),
                        metric: (*metric).into(),
                        value: value + 0.002 * own,
                        ..CurvePoint::default()
                    });
                }
                let splits = [("train", 25u64, 0.0), ("val", 250, 0.004)];
                for (split, _, more) in splits.into_iter().filter(|(_, every, _)| step % every == 0) {
                    input.curves.push(CurvePoint {
                        experiment: "fake".into(),
                        task: Task::Generation.into(),
                        arm: name.clone(),
                        model: mode.into(),
                        seed: Some(0),
                        split: split.into(),
                        step,
                        metric: "loss".into(),
                        value: loss + more + 0.003 * normal(&mut rng),
                        ..CurvePoint::default()
                    });
                }
            }
        }
        input.generators.push(generator);
    }
    let judge = |task: Task, model: &str, label: &str| Judge {
        task,
        arm: ARMS[0].0.into(),
        model: model.into(),
        seed: 0,
        label: label.into(),
    };
    input.judges = vec![
        judge(Task::Segmentation, "monai-unet", ""),
        judge(Task::Classification, "resnet18", "view and phase"),
    ];
}

/// Adds distances of the generators, and of sets that show the scale.
pub(crate) fn add_distances(input: &mut ReportInput) {
    let references = ["real against real (two halves)", "blurred real", "noise"];
    input.distances = Some(DistanceSettings {
        extractor: "domain".into(),
        network: Extractor::Domain,
        neighbours: 5,
        kid_subsets: 100,
        seed: 2020,
        replicates: 100,
        references: references.map(str::to_owned).to_vec(),
    });
    let generators: Vec<(String, String)> =
        input.generators.iter().map(|g| (g.name.clone(), g.mode.clone())).collect();
    let references = references.map(|arm| (arm.to_owned(), "reference".to_owned()));
    for (i, (arm, model)) in references.into_iter().chain(generators).enumerate() {
        let row = |class: (&str, &str), structure: &str, metric: &str, value: f64| Measurement {
            experiment: "fake".into(),
            task: Task::Generation.into(),
            arm: arm.clone(),
            model: model.clone(),
            seed: Some(2020),
            split: "train".into(),
            view: class.0.into(),
            phase: class.1.into(),
            structure: structure.into(),
            metric: metric.into(),
            value,
            n: Some(if class.0.is_empty() { 400 } else { 100 }),
            ..Measurement::default()
        };
        let far = 1.0 + 2.0 * i as f64;
        for class in [("", ""), ("2CH", "ED"), ("4CH", "ES")] {
            for (metric, value) in [
                ("n_real", 1520.0),
                ("frechet", far),
                ("kid", 1e-3 * far),
                ("kid_standard_error", 1e-5),
                ("precision", 0.7),
                ("recall", 0.6),
                ("density", 0.9),
                ("coverage", 0.8),
            ] {
                input.measurements.push(row(class, "domain", metric, value));
            }
        }
        let over_all = [
            ("frechet_ci95_low", 0.9 * far),
            ("frechet_ci95_high", 1.1 * far),
            ("frechet_extrapolated", 0.8 * far),
        ];
        for (metric, value) in over_all {
            input.measurements.push(row(("", ""), "domain", metric, value));
        }
        for by in ["domain", "pixels"] {
            for (metric, value) in [
                ("closer", 0.51),
                ("p", if i == 4 { 1e-9 } else { 0.31 }),
                ("share_near", 0.06),
                ("copies", 0.0),
                ("median", 4.0),
                ("median_held_out", 4.1),
                ("n_held_out", 200.0),
            ] {
                input.measurements.push(row(("", ""), by, &format!("memorisation_{metric}"), value));
            }
        }
    }
    for generator in &mut input.generators {
        generator.nearest = (0..4)
            .map(|i| panel_item("near", i))
            .map(|item| NearestPictures {
                training: item.image.clone(),
                synthetic: item.image,
                distance: 3.25,
            })
            .collect();
    }
}

fn samples(class: &str, masked: bool) -> SampleRow {
    let items = [0, 1, 2].map(|i| panel_item(class, i)).to_vec();
    SampleRow {
        class: class.into(),
        real: items.iter().map(|item| item.image.clone()).collect(),
        synthetic: items
            .into_iter()
            .map(|item| Synthetic { image: item.image, control: masked.then_some(item.truth) })
            .collect(),
    }
}

/// A sector of noise with an ellipse of a heart in it; the prediction is a little off.
fn panel_item(name: &str, i: usize) -> PanelItem {
    let n = 128;
    let mut rng = random::rng(5, "panel", &[i as u64]);
    let (mut image, mut truth, mut prediction) = (Picture::new(n, n), Picture::new(n, n), Picture::new(n, n));
    let class = |x: f64, y: f64, shift: f64| {
        let r = ((x - 0.5 - shift) / 0.16).hypot((y - 0.45) / 0.24);
        let atrium = ((x - 0.5) / 0.15).hypot((y - 0.83 - shift) / 0.11);
        if r < 1.0 {
            1
        } else if r < 1.35 && y < 0.66 {
            2
        } else if atrium < 1.0 {
            3
        } else {
            0
        }
    };
    for at in 0..n * n {
        let (x, y) = ((at % n) as f64 / n as f64, (at / n) as f64 / n as f64);
        truth.pixels[at] = class(x, y, 0.0);
        prediction.pixels[at] = class(x, y, 0.02 * (i as f64 + 0.5));
        let inside = (x - 0.5).abs() < 0.04 + 0.55 * y && x.hypot(y) < 1.2;
        let bright = [90.0, 25.0, 150.0, 30.0][usize::from(truth.pixels[at])];
        image.pixels[at] = if inside { (bright * rng.random_range(0.4..1.5)) as u8 } else { 0 };
    }
    PanelItem {
        caption: format!("{name}: patient000{i} 4CH ED, arm real, seed 0"),
        image,
        truth,
        prediction,
        dice: vec![
            ("mean".into(), 0.95 - 0.05 * i as f64),
            ("endo".into(), 0.96 - 0.05 * i as f64),
            ("myo".into(), 0.91 - 0.05 * i as f64),
            ("la".into(), if i == 2 { f64::NAN } else { 0.93 }),
        ],
    }
}
