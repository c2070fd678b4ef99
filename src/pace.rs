//! How far a piece of work is and how long it takes, in words.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How far a piece of work is, and how fast it goes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Pace {
    /// How many things are done, of how many; 0 of 0 while nothing is counted.
    pub done: u64,
    pub total: u64,
    /// What is counted: `steps`, `images`.
    pub things: String,
    pub per_second: Option<f64>,
    pub seconds_left: Option<f64>,
    /// The latest figures, in words.
    pub message: String,
}

/// `1200 of 4000 steps, 15.2 per second, 3 min 04 s left, loss 0.12`; empty while nothing is known.
impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.total > 0 {
            parts.push(format!("{} of {} {}", self.done, self.total, self.things));
        }
        parts.extend(self.per_second.map(|rate| match rate {
            0.0..0.5 => format!("{:.1} s each", 1.0 / rate),
            rate => format!("{rate:.1} per second"),
        }));
        parts.extend(self.seconds_left.map(|left| format!("{} left", duration(left))));
        if !self.message.is_empty() {
            parts.push(self.message.clone());
        }
        f.write_str(&parts.join(", "))
    }
}

/// `1 h 05 min`, `3 min 20 s`, `12 s`.
pub fn duration(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3600, s % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_take_two_units_at_most() {
        let words: Vec<String> = [0.4, 59.4, 200.0, 3900.0, 90_000.0].map(duration).to_vec();
        assert_eq!(words, ["0 s", "59 s", "3 min 20 s", "1 h 05 min", "25 h 00 min"]);
    }
}
