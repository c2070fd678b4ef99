//! The time that each round of a training takes, for the benchmarks.

use std::{cell::RefCell, time::Instant};

use synecho::observer::Observer;
use tch::{Cuda, Device};

pub struct Stopwatch {
    device: Device,
    laps: RefCell<Vec<Instant>>,
}

impl Stopwatch {
    pub fn start(device: Device) -> Self {
        let stopwatch = Self { device, laps: RefCell::default() };
        stopwatch.lap();
        stopwatch
    }

    /// Seconds of each lap; the first begins when the stopwatch starts.
    pub fn seconds(&self) -> Vec<f64> {
        self.laps.borrow().windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect()
    }
}

impl Observer for Stopwatch {
    /// A GPU still computes while the program prepares its next work: a lap ends when the GPU has finished.
    fn lap(&self) {
        if let Device::Cuda(index) = self.device {
            Cuda::synchronize(i64::try_from(index).unwrap_or(0));
        }
        self.laps.borrow_mut().push(Instant::now());
    }
}
