//! Features of folders of images against pytorch-fid 0.3.0, clean-fid 0.1.35 and torch-fidelity 0.4.0;
//! ResNet-18 and ResNet-50 against torchvision 0.28.0; all on the same made-up weights.
//! Fixtures: make_features.py.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use synecho::{
    measure::extractor::{
        BATCH, DecodedImage, DomainImages, ExtractorInput, ExtractorSource, FeatureExtractor, FeatureOptions,
        images_of,
    },
    nn::{
        forward_mode::ForwardMode,
        inception::{self, Inception, Pooling},
        resnet::{resnet18, resnet50},
        tensor_file,
    },
    picture::write_png,
    progress::Progress,
    vocabulary::{Convention, Extractor},
};
use tch::{Device, Kind, Tensor, nn::VarStore};

use crate::{
    Tensors, largest_difference,
    weights::{fill_with_gain, picture, signal, uniform},
};

const IMAGES: usize = 64;
/// Width, height.
const SIZES: [(usize, usize); 8] =
    [(224, 224), (299, 299), (64, 48), (301, 200), (512, 384), (97, 333), (17, 23), (640, 300)];
/// Every which feature and pixel is kept in the fixture.
const COLUMNS: i64 = 32;
const PIXELS: usize = 23;
/// Of the weights: with these features differ between images about as real ones do.
const GAIN: [(&str, f64); 3] = [("inception", 1.85), ("resnet18", 1.4), ("resnet50", 1.4)];
/// What features of another order of additions differ by is below 1e-6.
const SAME: f32 = 1e-4;

fn fill(vs: &VarStore, name: &str) {
    let (_, gain) = GAIN.into_iter().find(|(network, _)| *network == name).unwrap();
    fill_with_gain(vs, name, gain);
}

fn made_up(i: usize) -> DecodedImage {
    let (width, height) = SIZES[i % SIZES.len()];
    let channels = if i.is_multiple_of(3) { 1 } else { 3 };
    let drawn: Vec<usize> = uniform(&format!("features/{i}"), 4).map(|u| (u * 17.0) as usize).collect();
    let [along_x, along_y, by_channel, share] = drawn[..] else { unreachable!() };
    let noise = picture(&format!("features/{i}/noise"), width * height * channels);
    let value = |(at, noise): (usize, u8)| {
        let (x, y, c) = (at / channels % width, at / channels / width, at % channels);
        let wave = ((x * along_x + y * along_y + c * by_channel * 10) % 510).abs_diff(255);
        ((wave * share + usize::from(noise) * (16 - share)) / 16) as u8
    };
    DecodedImage { width, height, channels, values: noise.into_iter().enumerate().map(value).collect() }
}

/// Images and weights, made once for all tests here.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let made = FOLDER.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("images")).unwrap();
        for i in 0..IMAGES {
            let DecodedImage { width, height, channels, values } = made_up(i);
            let colour =
                if channels == 1 { image::ExtendedColorType::L8 } else { image::ExtendedColorType::Rgb8 };
            write_png(&dir.path().join(format!("images/{i:02}.png")), &values, width, height, colour)
                .unwrap();
        }
        let save = |name: &str, vs: VarStore| {
            fill(&vs, name);
            let variables: Vec<_> = vs.variables().into_iter().collect();
            tensor_file::write(&dir.path().join(format!("{name}.safetensors")), &variables).unwrap();
        };
        let vs = VarStore::new(Device::Cpu);
        inception::declare(&vs.root()).unwrap();
        save("inception", vs);
        let vs = VarStore::new(Device::Cpu);
        resnet50(&vs.root(), 1000).unwrap();
        save("resnet50", vs);
        dir
    });
    made.path()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.to_kind(Kind::Float).contiguous().view(-1)).unwrap()
}

fn kept(features: &Tensor) -> Vec<f32> {
    values(&features.slice(1, 0, None, COLUMNS))
}

fn features(extractor: &FeatureExtractor, images: &[PathBuf]) -> Tensor {
    let options =
        FeatureOptions { batch: BATCH, skip_unreadable: false, cache: None, progress: &Progress::new(true) };
    extractor.features(images, &options).unwrap().values
}

fn open(extractor: Extractor, convention: Convention) -> FeatureExtractor {
    let file = if extractor == Extractor::Resnet50 { "resnet50" } else { "inception" };
    FeatureExtractor::open(&ExtractorSource {
        extractor,
        weights: Some(&folder().join(format!("{file}.safetensors"))),
        convention,
        domain: DomainImages::default(),
        device: Device::Cpu,
    })
    .unwrap()
}

fn extractor(convention: Convention) -> FeatureExtractor {
    open(Extractor::InceptionFid, convention)
}

#[test]
fn features_equal_those_of_the_three_tools() {
    let tensors = Tensors::read("features.safetensors");
    let images = images_of(&folder().join("images"), None).unwrap();
    assert_eq!(images.len(), IMAGES);
    for convention in Convention::ALL {
        let found = features(&extractor(convention), &images);
        assert_eq!(found.size(), [IMAGES as i64, 2048]);
        let found = kept(&found);
        for other in Convention::ALL {
            let (_, expected) = tensors.f32(other.as_str());
            let difference = largest_difference(&found, &expected);
            println!("{convention} here, {other} there: {difference:e}");
            match other == convention {
                true => assert!(difference < SAME, "{convention}: {difference}"),
                false => assert!(difference > 10.0 * SAME, "{convention} passes for {other}: {difference}"),
            }
        }
    }
}

/// From folders to the one number that papers quote.
#[test]
fn fid_equals_that_of_the_three_tools() {
    let tensors = Tensors::read("features.safetensors");
    let place = tempfile::tempdir().unwrap();
    for half in ["a", "b"] {
        std::fs::create_dir(place.path().join(half)).unwrap();
    }
    for i in 0..IMAGES {
        let half = if i < IMAGES / 2 { "a" } else { "b" };
        let file = format!("{i:02}.png");
        std::fs::copy(folder().join("images").join(&file), place.path().join(half).join(&file)).unwrap();
    }
    let fid = |convention: Convention| -> f64 {
        let ran = Command::new(env!("CARGO_BIN_EXE_synecho"))
            .current_dir(place.path())
            .args(["measure", "fid", "--real", "a", "--synthetic", "b", "--no-cache", "--quiet", "--json"])
            .args(["--convention", convention.as_str(), "--weights"])
            .arg(folder().join("inception.safetensors"))
            .output()
            .unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let told: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
        told["value"].as_f64().unwrap()
    };
    for convention in Convention::ALL {
        let found = fid(convention);
        for other in Convention::ALL {
            let expected = f64::from(tensors.f32(&format!("{other}/fid")).1[0]);
            let difference = (found / expected - 1.0).abs();
            println!("{convention} here, {other} there: {found} and {expected}, {difference:e} of it");
            match other == convention {
                // Where covariances are singular, the tools' own matrix root is 4e-5 off.
                true => assert!(difference < 2e-4, "{convention}: {found}, {expected}"),
                false => assert!(difference > 1e-2, "{convention} passes for {other}"),
            }
        }
    }
}

#[test]
fn inceptions_features_depend_neither_on_the_batch_nor_on_the_order() {
    let mut images = images_of(&folder().join("images"), None).unwrap();
    images.truncate(11);
    let extractor = extractor(Convention::PytorchFid);
    let by = |images: &[PathBuf], batch: usize| {
        let options =
            FeatureOptions { batch, skip_unreadable: false, cache: None, progress: &Progress::new(true) };
        extractor.features(images, &options).unwrap().values
    };
    let expected = values(&by(&images, BATCH));
    images.reverse();
    for batch in [1, 4] {
        let found = values(&by(&images, batch).flip([0]));
        let difference = largest_difference(&found, &expected);
        println!("batches of {batch}: {difference:e}");
        assert!(difference < 1e-5, "batches of {batch}: {difference}");
    }
}

#[test]
fn images_are_resized_as_the_three_tools_do_it() {
    let tensors = Tensors::read("features.safetensors");
    for i in 0..SIZES.len() {
        let pixels = made_up(i);
        for convention in Convention::ALL {
            let input = ExtractorInput::Inception(convention);
            let mut out = vec![0f32; input.values()];
            input.write(&pixels, &mut out);
            let size = input.size();
            let mut seen = Vec::new();
            for c in 0..3 {
                for y in (0..size).step_by(PIXELS) {
                    seen.extend((0..size).step_by(PIXELS).map(|x| out[(y * size + x) * 3 + c]));
                }
            }
            let (_, expected) = tensors.f32(&format!("{convention}/{i}"));
            let difference = largest_difference(&seen, &expected);
            // Values lie in -1..1, a grey level is 0.008.
            assert!(difference < 2e-5, "{convention}, image {i}: {difference}");
        }
    }
}

/// torchvision's pools in place of those of FID's Inception.
#[test]
fn an_inception_with_other_pools_does_not_pass() {
    let tensors = Tensors::read("features.safetensors");
    let vs = VarStore::new(Device::Cpu);
    inception::declare(&vs.root()).unwrap();
    fill(&vs, "inception");
    let input = ExtractorInput::Inception(Convention::PytorchFid);
    let few = 4;
    let mut pixels = vec![0f32; few * input.values()];
    pixels.chunks_exact_mut(input.values()).enumerate().for_each(|(i, out)| input.write(&made_up(i), out));
    let images = Tensor::from_slice(&pixels).view([few as i64, 299, 299, 3]).permute([0, 3, 1, 2]);
    let (shape, expected) = tensors.f32("pytorch-fid");
    let expected = &expected[..few * shape[1]];
    let difference = |pooling: Pooling| {
        let net = Inception::new(&vs, pooling, Device::Cpu).unwrap();
        largest_difference(&kept(&net.features(&images).unwrap()), expected)
    };
    assert!(difference(Pooling::FID) < SAME);
    for wrong in
        [Pooling { counts_padding: true, ..Pooling::FID }, Pooling { last_is_max: false, ..Pooling::FID }]
    {
        assert!(difference(wrong) > 10.0 * SAME, "{wrong:?}: {}", difference(wrong));
    }
}

#[test]
fn resnets_equal_torchvisions() {
    let tensors = Tensors::read("features.safetensors");
    for (name, parameters) in [("resnet18", 11_689_512), ("resnet50", 25_557_032)] {
        let vs = VarStore::new(Device::Cpu);
        let make = if name == "resnet18" { resnet18 } else { resnet50 };
        let net = make(&vs.root(), 1000).unwrap();
        assert_eq!(vs.trainable_variables().iter().map(Tensor::numel).sum::<usize>(), parameters);
        fill(&vs, name);
        let images = signal(&format!("{name}/images"), &[2, 3, 224, 224]);
        let found = tch::no_grad(|| {
            [("logits", net.forward_t(&images, ForwardMode::Eval)), ("features", net.features(&images))]
        });
        for (what, found) in found {
            let (shape, expected) = tensors.f32(&format!("{name}/{what}"));
            assert_eq!(found.size(), shape.iter().map(|&n| n as i64).collect::<Vec<_>>());
            // The made-up residual branches add up to values above 1.
            let scale = expected.iter().fold(1f32, |m, v| m.max(v.abs()));
            let difference = largest_difference(&values(&found), &expected) / scale;
            println!("{name} {what}: {difference:e} of {scale}");
            assert!(difference < SAME, "{name} {what}: {difference} of {scale}");
        }
    }
}

#[test]
fn pictures_through_resnet50_equal_torchvisions() {
    let (_, expected) = Tensors::read("features.safetensors").f32("resnet50/pictures");
    let images = &images_of(&folder().join("images"), None).unwrap()[..SIZES.len()];
    let found = kept(&features(&open(Extractor::Resnet50, Convention::PytorchFid), images));
    let scale = expected.iter().fold(1f32, |m, v| m.max(v.abs()));
    let difference = largest_difference(&found, &expected) / scale;
    assert!(difference < SAME, "{difference} of {scale}");
    // Another image for one of them does not pass.
    let other = largest_difference(&found[64..128], &expected[..64]) / scale;
    assert!(other > 10.0 * SAME, "{other}");
}
