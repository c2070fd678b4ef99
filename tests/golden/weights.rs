//! Numbers that Python and Rust make alike: the twin of common.py.

/// `count` values in [0, 1), multiples of 2^-24: SplitMix64 from the FNV-1a hash of `key`.
pub fn uniform(key: &str, count: usize) -> impl Iterator<Item = f64> + use<> {
    let seed =
        key.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    (1..=count as u64).map(move |i| {
        let mut x = seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        (x >> 40) as f64 / f64::from(1 << 24)
    })
}

/// Noise, 8-bit grey.
pub fn picture(key: &str, pixels: usize) -> Vec<u8> {
    uniform(key, pixels).map(|u| (u * 256.0) as u8).collect()
}

/// f32 in [-1, 1).
pub fn signal(key: &str, shape: &[i64]) -> tch::Tensor {
    let count = shape.iter().product::<i64>() as usize;
    let values: Vec<f32> = uniform(key, count).map(|u| (u * 2.0 - 1.0) as f32).collect();
    tch::Tensor::from_slice(&values).view(shape)
}

/// Gives every variable a value that depends on its name alone.
pub fn fill(vs: &tch::nn::VarStore, key: &str) {
    fill_with_gain(vs, key, 1.0);
}

/// [`fill`] with a `gain` of the weights of two dimensions and more: in a deep network the norms' scales
/// below 1 leave nothing of the input.
pub fn fill_with_gain(vs: &tch::nn::VarStore, key: &str, gain: f64) {
    tch::no_grad(|| {
        for (name, mut tensor) in vs.variables() {
            if name.ends_with("num_batches_tracked") {
                continue;
            }
            let shape = tensor.size();
            let u = uniform(&format!("{key}/{name}"), tensor.numel());
            let values: Vec<f32> = if shape.len() > 1 {
                // He's uniform bound, by the second and later dimensions.
                let bound = (6.0 / shape[1..].iter().product::<i64>() as f64).sqrt();
                u.map(|u| ((u * 2.0 - 1.0) * bound * gain) as f32).collect()
            } else if name.ends_with("running_var") {
                u.map(|u| (u + 0.5) as f32).collect()
            } else if name.ends_with("weight") {
                u.map(|u| (u * 0.5 + 0.25) as f32).collect()
            } else {
                u.map(|u| ((u * 2.0 - 1.0) * 0.25) as f32).collect()
            };
            tensor.copy_(&tch::Tensor::from_slice(&values).view(&shape[..]));
        }
    });
}
