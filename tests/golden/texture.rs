//! Texture against NumPy 2.4.6's FFT and SciPy 1.17.1's distance transform. Fixtures: make_texture.py.

use std::collections::BTreeMap;

use serde::Deserialize;
use synecho::measure::texture::{Class, Octaves, Set, compare, sector};

use crate::{Tensors, json};

#[derive(Deserialize)]
struct Case {
    size: usize,
    real: Octaves,
    synthetic: Octaves,
    wrong_real: BTreeMap<String, Octaves>,
}

fn near(a: &Octaves, b: &Octaves) -> bool {
    a.iter().zip(b).all(|(a, b)| (a / b - 1.0).abs() < 1e-9)
}

#[test]
fn octave_power_equals_numpy_and_other_definitions_do_not_pass() {
    let tensors = Tensors::read("texture.safetensors");
    let cases: Vec<Case> = json("texture.json");
    assert_eq!(cases.iter().map(|c| c.size).collect::<Vec<_>>(), [64, 45], "an even and an odd size");
    for (i, case) in cases.iter().enumerate() {
        let images = |name: &str| tensors.bytes(&format!("{name}{i}")).1;
        let (real, synthetic, mask) = (images("real"), images("synthetic"), images("sector"));
        let pixels = case.size * case.size;
        let list: Vec<&[u8]> = real.chunks_exact(pixels).collect();
        let found: Vec<u8> = sector(&list, case.size).unwrap().into_iter().map(u8::from).collect();
        assert_eq!(found, mask);
        let set =
            |images| Set::new("", <[u8]>::chunks_exact(images, pixels).map(|image| (Class(None), image)));
        let power = compare(&set(&real), &set(&synthetic), case.size).unwrap()[&Class(None)];
        assert_eq!((power.n_real, power.n_synthetic), (10, 3));
        assert!(near(&power.real, &case.real), "{:?} {:?}", power.real, case.real);
        assert!(near(&power.synthetic, &case.synthetic), "{:?} {:?}", power.synthetic, case.synthetic);
        assert_eq!(case.wrong_real.len(), 5);
        for (name, wrong) in &case.wrong_real {
            assert!(!near(&power.real, wrong), "{name}");
        }
    }
}
