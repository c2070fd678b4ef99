//! Augmentation against torchvision 0.28.0's transforms.v2.functional. Fixtures: make_augment.py.

use serde::Deserialize;
use synecho::augment::{AugmentParams, HALF, Interpolation, apply};

use crate::{Tensors, json, largest_difference, weights::picture};

#[derive(Deserialize)]
struct Case {
    angle: f64,
    tx: f64,
    ty: f64,
    scale: f64,
    shear_x: f64,
    shear_y: f64,
    brightness: f64,
    contrast: f64,
    gamma: f64,
    flip: bool,
    interpolation: String,
    width: usize,
    height: usize,
}

impl Case {
    fn params(&self) -> AugmentParams {
        AugmentParams {
            angle_deg: self.angle,
            translate: (self.tx, self.ty),
            scale: self.scale,
            shear_deg: (self.shear_x, self.shear_y),
            brightness: self.brightness,
            contrast: self.contrast,
            gamma: self.gamma,
            noise: None,
            flip: self.flip,
            interpolation: match self.interpolation.as_str() {
                "nearest" => Interpolation::Nearest,
                "bilinear" => Interpolation::Bilinear,
                "bicubic" => Interpolation::Bicubic,
                other => panic!("{other}"),
            },
        }
    }

    fn run(&self, i: usize, params: &AugmentParams) -> (Vec<f32>, Vec<u8>) {
        let n = self.width * self.height;
        let image = picture(&format!("augment/image{i}"), n);
        let mask: Vec<u8> = picture(&format!("augment/mask{i}"), n).iter().map(|v| v / 64).collect();
        let (mut out, mut out_mask) = (vec![f32::NAN; n], vec![99u8; n]);
        let size = (self.width, self.height);
        apply(params, &image, Some((&mask, &mut out_mask)), size, &HALF, &mut out).unwrap();
        (out, out_mask)
    }
}

/// A grey level after normalisation to [-1, 1].
const LEVEL: f32 = 2.0 / 255.0;

#[test]
fn augmentation_equals_torchvision() {
    let tensors = Tensors::read("augment.safetensors");
    let cases: Vec<Case> = json("augment.json");
    assert_eq!(cases.len(), 26);
    for (i, case) in cases.iter().enumerate() {
        let (image, mask) = case.run(i, &case.params());
        let (shape, expected) = tensors.f32(&format!("image{i}"));
        assert_eq!(shape, [case.height, case.width]);
        // The task is one grey level; on noise, f32 coordinates leave a hundredth.
        let difference = largest_difference(&image, &expected) / LEVEL;
        assert!(difference < 0.05, "case {i}: {difference} grey levels");
        assert_eq!(mask, tensors.bytes(&format!("mask{i}")).1, "case {i}");
    }
}

/// Each single mistake is seen in at least one case.
#[test]
fn wrong_augmentations_do_not_pass() {
    let tensors = Tensors::read("augment.safetensors");
    let cases: Vec<Case> = json("augment.json");
    type Mistake = fn(&mut AugmentParams);
    let wrong: [(&str, Mistake); 10] = [
        ("nearest for bilinear", |p| p.interpolation = Interpolation::Nearest),
        ("bilinear for nearest", |p| p.interpolation = Interpolation::Bilinear),
        ("turned the other way", |p| p.angle_deg = -p.angle_deg),
        ("scale inverted", |p| p.scale = 1.0 / p.scale),
        ("shears swapped", |p| p.shear_deg = (p.shear_deg.1, p.shear_deg.0)),
        ("translation rounded", |p| p.translate = (p.translate.0.round(), p.translate.1.round())),
        ("brightness left out", |p| p.brightness = 1.0),
        ("contrast left out", |p| p.contrast = 1.0),
        ("gamma inverted", |p| p.gamma = 1.0 / p.gamma),
        ("bilinear for bicubic", |p| {
            if p.interpolation == Interpolation::Bicubic {
                p.interpolation = Interpolation::Bilinear;
            }
        }),
    ];
    for (name, mistake) in wrong {
        let seen = cases.iter().enumerate().filter(|(i, case)| {
            let mut params = case.params();
            mistake(&mut params);
            let (_, expected) = tensors.f32(&format!("image{i}"));
            largest_difference(&case.run(*i, &params).0, &expected) > LEVEL
        });
        assert!(seen.count() > 0, "{name}");
    }
}
