//! How far a piece of work is, and how fast it goes.

use std::time::Instant;

use crate::pace::Pace;

/// Work over a known number of things.
#[derive(Debug, Clone)]
pub(super) struct Meter {
    /// What is counted: `images`, `steps`.
    pub things: String,
    pub done: u64,
    pub total: u64,
    /// The latest figures, in words.
    pub message: String,
    /// Where this process began to count, and when.
    from: u64,
    since: Instant,
}

impl Meter {
    pub fn new(things: &str, total: u64) -> Self {
        Self {
            things: things.to_owned(),
            done: 0,
            total,
            message: String::new(),
            from: 0,
            since: Instant::now(),
        }
    }

    /// Starts the clock at work that was done before.
    pub fn resume_at(&mut self, done: u64) {
        (self.done, self.from, self.since) = (done, done, Instant::now());
    }

    /// Things per second since this process began; None as long as there is nothing to divide.
    fn rate(&self) -> Option<f64> {
        let seconds = self.since.elapsed().as_secs_f64();
        (self.done > self.from && seconds > 0.0).then(|| (self.done - self.from) as f64 / seconds)
    }

    fn seconds_left(&self) -> Option<f64> {
        self.rate().map(|rate| self.total.saturating_sub(self.done) as f64 / rate)
    }

    pub fn pace(&self) -> Pace {
        Pace {
            done: self.done,
            total: self.total,
            things: self.things.clone(),
            per_second: self.rate(),
            seconds_left: self.seconds_left(),
            message: self.message.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_rate_counts_only_what_this_process_did() {
        let mut meter = Meter::new("steps", 100);
        assert_eq!((meter.rate(), meter.pace().to_string().as_str()), (None, "0 of 100 steps"));
        meter.resume_at(40);
        meter.since -= Duration::from_secs(10);
        meter.done = 60;
        let rate = meter.rate().unwrap();
        assert!((1.9..=2.0).contains(&rate), "{rate}");
        meter.message = "loss 0.5".into();
        assert_eq!(meter.pace().to_string(), "60 of 100 steps, 2.0 per second, 20 s left, loss 0.5");
        meter.since -= Duration::from_secs(90);
        assert_eq!(meter.pace().to_string(), "60 of 100 steps, 5.0 s each, 3 min 20 s left, loss 0.5");
    }
}
