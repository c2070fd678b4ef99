//! NumPy's legacy generator, as far as torch-fidelity draws with it: the subsets of KID are then the same ones.

const SIZE: usize = 624;
const SHIFT: usize = 397;

/// `numpy.random.RandomState(seed)`: MT19937 (Matsumoto and Nishimura 1998).
pub struct RandomState {
    key: [u32; SIZE],
    at: usize,
}

impl RandomState {
    pub fn new(seed: u32) -> Self {
        let mut key = [seed; SIZE];
        for i in 1..SIZE {
            let before = key[i - 1];
            key[i] = 1_812_433_253u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(i as u32);
        }
        Self { key, at: SIZE }
    }

    fn twist(&mut self) {
        for i in 0..SIZE {
            let y = (self.key[i] & 0x8000_0000) | (self.key[(i + 1) % SIZE] & 0x7fff_ffff);
            let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.key[i] = self.key[(i + SHIFT) % SIZE] ^ (y >> 1) ^ odd;
        }
        self.at = 0;
    }

    pub(super) fn next_u32(&mut self) -> u32 {
        if self.at == SIZE {
            self.twist();
        }
        let mut y = self.key[self.at];
        self.at += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// Uniform in 0..=max: the low bits, drawn again while they are too large.
    fn interval(&mut self, max: u32) -> u32 {
        let mask = u32::MAX.checked_shr(max.leading_zeros()).unwrap_or(0);
        loop {
            let value = self.next_u32() & mask;
            if value <= max {
                return value;
            }
        }
    }

    /// `choice(n, size, replace=False)`: the first `size` of a shuffled 0..n.
    pub fn choice(&mut self, n: u32, size: usize) -> Vec<u32> {
        let mut all: Vec<u32> = (0..n).collect();
        for i in (1..n).rev() {
            all.swap(i as usize, self.interval(i) as usize);
        }
        all.truncate(size);
        all
    }
}
