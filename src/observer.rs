//! What a training reports while it works. The loops know this trait and nothing of who listens: the terminal
//! ([`crate::progress::TrainingDisplay`]), a stopwatch, a tracker.

use crate::results::CurvePoint;

/// Somebody who watches a training. Every method does nothing unless it is implemented.
pub trait Observer {
    /// A phase of `total` steps begins, of which an earlier process did `done`. The phase of the training itself has
    /// an empty name.
    fn begin(&self, _phase: &str, _total: u64, _done: u64) {}

    /// `done` steps of the phase are done.
    fn advance(&self, _done: u64) {}

    /// A point of a training curve, without its experiment, task, arm, model and seed.
    fn curve_point(&self, _point: &CurvePoint) {}

    /// A line for the user.
    fn note(&self, _line: &str) {}

    /// For a stopwatch: called after the last optimizer step of each round (an epoch; with a budget the steps between
    /// two validations; for a generator a step), before validation.
    fn lap(&self) {}
}

/// Nobody watches.
pub struct Unobserved;

impl Observer for Unobserved {}
