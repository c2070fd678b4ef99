//! From files to features, with small ResNets as networks.

use std::fs;

use super::*;
use crate::{
    nn::{resnet::resnet18, tensor_file},
    random,
    vocabulary::Convention,
};
use rand::Rng;
use tch::nn::VarStore;

struct ExtractorFixture {
    dir: tempfile::TempDir,
    images: Vec<PathBuf>,
}

impl ExtractorFixture {
    /// Images of several sizes, grey and colour, and weights of a ResNet-18.
    fn new(images: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("images")).unwrap();
        let mut rng = random::rng(0, "features", &[]);
        let images = (0..images)
            .map(|i| {
                let path = dir.path().join(format!("images/{i:02}.png"));
                let (width, height, colour) = (20 + 7 * (i % 3), 30 + i, i % 2 == 1);
                let channels = if colour { 3 } else { 1 };
                let pixels: Vec<u8> = (0..width * height * channels).map(|_| rng.random()).collect();
                let kind = if colour { image::ExtendedColorType::Rgb8 } else { image::ExtendedColorType::L8 };
                crate::picture::write_png(&path, &pixels, width, height, kind).unwrap();
                path
            })
            .collect();
        let vs = VarStore::new(Device::Cpu);
        resnet18(&vs.root(), 4).unwrap();
        crate::nn::init::fill(&vs, 0, Some(crate::nn::init::kaiming_normal_fan_out));
        let variables: Vec<_> = vs.variables().into_iter().collect();
        tensor_file::write(&dir.path().join("w.safetensors"), &variables).unwrap();
        Self { dir, images }
    }

    fn extractor(&self) -> FeatureExtractor {
        let weights = self.dir.path().join("w.safetensors");
        FeatureExtractor::open(&source(Extractor::Domain, Some(&weights))).unwrap()
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }
}

fn source(extractor: Extractor, weights: Option<&Path>) -> ExtractorSource<'_> {
    let domain = DomainImages { size: 32, channels: [(0.5, 0.5); 3] };
    ExtractorSource { extractor, weights, convention: Convention::CleanFid, domain, device: Device::Cpu }
}

fn options(progress: &Progress) -> FeatureOptions<'_> {
    FeatureOptions { batch: 4, skip_unreadable: false, cache: None, progress }
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

#[test]
fn features_do_not_depend_on_the_batch_and_keep_the_order() {
    let (fixture, progress) = (ExtractorFixture::new(11), Progress::new(true));
    let extractor = fixture.extractor();
    let found = extractor.features(&fixture.images, &options(&progress)).unwrap();
    assert_eq!(found.values.size(), [11, 512]);
    assert_eq!((found.images.len(), found.unreadable.len(), found.cached), (11, 0, false));
    let spread = found.values.std_dim(0, true, false).mean(Kind::Float).double_value(&[]);
    assert!(spread > 1e-3, "{spread}");
    // Backwards, and one of them twice.
    let mut order: Vec<usize> = (0..11).rev().collect();
    order.push(3);
    let images: Vec<PathBuf> = order.iter().map(|&i| fixture.images[i].clone()).collect();
    let other = extractor.features(&images, &FeatureOptions { batch: 3, ..options(&progress) }).unwrap();
    let order: Vec<i64> = order.iter().map(|&i| i as i64).collect();
    let expected = found.values.index_select(0, &Tensor::from_slice(&order));
    assert!(difference(&expected, &other.values) < 1e-5);
    assert!(difference(&found.values.slice(0, 0, 11, 1), &other.values.slice(0, 0, 11, 1)) > 1e-2);
}

#[test]
fn the_cache_returns_the_same_features_and_is_rewritten_when_damaged() {
    let (fixture, progress) = (ExtractorFixture::new(6), Progress::new(true));
    let cache = fixture.cache();
    let options = FeatureOptions { cache: Some(&cache), ..options(&progress) };
    let first = fixture.extractor().features(&fixture.images, &options).unwrap();
    assert!(!first.cached);
    let mut backwards = fixture.images.clone();
    backwards.reverse();
    let again = fixture.extractor().features(&backwards, &options).unwrap();
    assert!(again.cached && again.images == backwards);
    assert_eq!(again.values, first.values.flip([0]));

    let entry = fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
    fs::write(&entry, "damage").unwrap();
    assert!(!fixture.extractor().features(&fixture.images, &options).unwrap().cached);
    assert!(fixture.extractor().features(&fixture.images, &options).unwrap().cached);
    // Another subset is another key.
    assert!(!fixture.extractor().features(&fixture.images[..4], &options).unwrap().cached);
}

#[test]
fn unreadable_images_are_named_and_counted_or_left_out() {
    let (fixture, progress) = (ExtractorFixture::new(5), Progress::new(true));
    let cache = fixture.cache();
    let options = FeatureOptions { cache: Some(&cache), ..options(&progress) };
    let folder = fixture.dir.path().join("images");
    for i in 0..12 {
        fs::write(folder.join(format!("bad{i:02}.png")), format!("no image {i}")).unwrap();
    }
    let extractor = fixture.extractor();
    let error = extractor.folder(&folder, None, &options).unwrap_err().to_string();
    assert!(error.contains("12 of 17 images cannot be read"), "{error}");
    assert!(
        error.contains("bad09.png") && !error.contains("bad10.png") && error.contains("and 2 more"),
        "{error}"
    );
    for cached in [false, true] {
        let found =
            extractor.folder(&folder, None, &FeatureOptions { skip_unreadable: true, ..options }).unwrap();
        assert_eq!((found.images.len(), found.unreadable.len(), found.cached), (5, 12, cached));
        assert_eq!(found.values.size(), [5, 512]);
    }
    // Nor does the cache hide them.
    let error = extractor.folder(&folder, None, &options).unwrap_err().to_string();
    assert!(error.contains("12 of 17 images cannot be read"), "{error}");
    let gone = [fixture.images[0].clone(), folder.join("gone.png")];
    let error = extractor.features(&gone, &options).unwrap_err().to_string();
    assert!(error.contains("1 of 2 images cannot be read") && error.contains("gone.png"), "{error}");

    fixture.images[1..].iter().for_each(|path| fs::remove_file(path).unwrap());
    let error = extractor
        .folder(&folder, None, &FeatureOptions { skip_unreadable: true, ..options })
        .unwrap_err()
        .to_string();
    assert!(error.contains("1 of 13 images can be read"), "{error}");
}

#[test]
fn images_of_16_bits_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep.png");
    let pixels: Vec<u8> = vec![1; 2 * 4 * 4];
    crate::picture::write_png(&path, &pixels, 4, 4, image::ExtendedColorType::L16).unwrap();
    let error = DecodedImage::decode(&fs::read(&path).unwrap()).unwrap_err();
    assert!(error.contains("more than 8 bits"), "{error}");
}

#[test]
fn missing_weights_and_those_of_another_network_are_refused() {
    let (fixture, progress) = (ExtractorFixture::new(2), Progress::new(true));
    let open = |extractor, weights: Option<&Path>| FeatureExtractor::open(&source(extractor, weights));
    let none = open(Extractor::InceptionFid, None).unwrap_err().to_string();
    assert!(none.contains("pt_inception-2015-12-05-6726825d.pth") && none.contains("download"), "{none}");
    let gone = fixture.dir.path().join("gone.safetensors");
    let gone = open(Extractor::InceptionFid, Some(&gone)).unwrap_err().to_string();
    assert!(gone.contains("gone.safetensors") && gone.contains("6726825d"), "{gone}");
    let fails = |extractor, weights: &Path| {
        let extractor = open(extractor, Some(weights)).unwrap();
        extractor.features(&fixture.images, &options(&progress)).unwrap_err().to_string()
    };
    let weights = fixture.dir.path().join("w.safetensors");
    let other = fails(Extractor::InceptionFid, &weights);
    assert!(other.contains("Conv2d_1a_3x3") && other.contains("is missing"), "{other}");
    let other = fails(Extractor::Resnet50, &weights);
    assert!(other.contains("layer1.0") && other.contains("w.safetensors"), "{other}");
    // The content counts, not the ending.
    let renamed = fixture.dir.path().join("w.pth");
    fs::copy(&weights, &renamed).unwrap();
    let renamed = fails(Extractor::InceptionFid, &renamed);
    assert!(renamed.contains("w.pth: ") && renamed.contains("is missing"), "{renamed}");
}
