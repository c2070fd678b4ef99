//! Derived randomness: every generator comes from (stage seed, what it is for, where it is used),
//! never from global state, so nothing depends on order, batch or thread.

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

fn digest(seed: u64, purpose: &str, indices: &[u64]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(&(purpose.len() as u64).to_le_bytes());
    hasher.update(purpose.as_bytes());
    for index in indices {
        hasher.update(&index.to_le_bytes());
    }
    hasher.finalize()
}

/// The generator for `purpose` at `indices` (epoch, image, …) under `seed`.
pub fn rng(seed: u64, purpose: &str, indices: &[u64]) -> ChaCha8Rng {
    ChaCha8Rng::from_seed(*digest(seed, purpose, indices).as_bytes())
}

/// A derived seed, in 0..2^63 (so that libtorch's signed seeds can hold it).
pub fn seed(seed: u64, purpose: &str, indices: &[u64]) -> u64 {
    let bytes = digest(seed, purpose, indices);
    let mut first = [0; 8];
    first.copy_from_slice(&bytes.as_bytes()[..8]);
    u64::from_le_bytes(first) >> 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purpose_and_indices_tell_generators_apart() {
        let all = [
            seed(0, "augment", &[3, 17]),
            seed(0, "augment", &[3, 18]),
            seed(0, "init", &[3, 17]),
            seed(1, "augment", &[3, 17]),
        ];
        assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), 4);
        assert_eq!(all[0], seed(0, "augment", &[3, 17]));
    }
}
