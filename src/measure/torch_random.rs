//! PyTorch's CPU generator, as far as torch-fidelity draws with it.
//!
//! libtorch's own is reached through tch only as global state that all threads share. This one belongs to its caller.

use std::f64::consts::TAU;

use super::numpy_random::RandomState;

/// How many normals PyTorch draws at once.
const GROUP: usize = 16;

/// `torch.Generator("cpu").manual_seed(seed)`. PyTorch's engine is NumPy's legacy one, MT19937 seeded alike, and
/// uses the low 32 bits of a seed.
pub struct TorchGenerator {
    engine: RandomState,
}

impl TorchGenerator {
    pub fn new(seed: u32) -> Self {
        Self { engine: RandomState::new(seed) }
    }

    /// `torch.randperm(n)`: 0..n, shuffled.
    pub fn permutation(&mut self, n: u32) -> Vec<u32> {
        let mut all: Vec<u32> = (0..n).collect();
        for i in 0..n.saturating_sub(1) {
            let chosen = i + self.engine.next_u32() % (n - i);
            all.swap(i as usize, chosen as usize);
        }
        all
    }

    /// `torch.randn(count)` in f32. The numbers are PyTorch's but for the last digits, in which its own builds for
    /// different processors differ too: each has its own logarithm, sine and cosine.
    pub fn normals(&mut self, count: usize) -> Vec<f32> {
        if count < GROUP {
            return self.few_normals(count);
        }
        let mut values: Vec<f32> = (0..count).map(|_| self.uniform()).collect();
        values.chunks_exact_mut(GROUP).for_each(box_muller);
        if !count.is_multiple_of(GROUP) {
            // The last group overlaps the one before it, and is drawn again.
            let last = &mut values[count - GROUP..];
            last.iter_mut().for_each(|value| *value = self.uniform());
            box_muller(last);
        }
        values
    }

    /// Uniform in [0, 1): 24 bits.
    fn uniform(&mut self) -> f32 {
        (self.engine.next_u32() & 0x00ff_ffff) as f32 / 16_777_216.0
    }

    /// Fewer than a group are drawn in pairs, in f64.
    fn few_normals(&mut self, count: usize) -> Vec<f32> {
        let mut values = Vec::with_capacity(count + 1);
        while values.len() < count {
            let (angle, u) = (TAU * self.wide_uniform(), self.wide_uniform());
            let radius = (-2.0 * (-u).ln_1p()).sqrt();
            values.extend([(radius * angle.cos()) as f32, (radius * angle.sin()) as f32]);
        }
        values.truncate(count);
        values
    }

    /// Uniform in [0, 1): 53 bits.
    fn wide_uniform(&mut self) -> f64 {
        let (high, low) = (u64::from(self.engine.next_u32()), u64::from(self.engine.next_u32()));
        ((high << 32 | low) & ((1 << 53) - 1)) as f64 / (1u64 << 53) as f64
    }
}

/// A group of uniform numbers to normal ones (Box and Muller 1958): each of the first half with its partner in the
/// second.
fn box_muller(group: &mut [f32]) {
    let (first, second) = group.split_at_mut(GROUP / 2);
    for (a, b) in first.iter_mut().zip(second) {
        let radius = (-2.0 * (1.0 - f64::from(*a)).ln()).sqrt();
        let angle = TAU * f64::from(*b);
        (*a, *b) = ((radius * angle.cos()) as f32, (radius * angle.sin()) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normals_are_standard_and_permutations_whole() {
        for count in [0, 1, 2, 15, 16, 17, 40] {
            assert_eq!(TorchGenerator::new(1).normals(count).len(), count);
        }
        let values = TorchGenerator::new(1).normals(100_001);
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
        let mut all = TorchGenerator::new(1).permutation(100);
        assert_ne!(all, TorchGenerator::new(2).permutation(100));
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        assert!(TorchGenerator::new(1).permutation(0).is_empty());
    }
}
