//! A training on the terminal.

use std::cell::{Cell, RefCell};

use super::{Bar, Progress};
use crate::{
    observer::Observer,
    results::CurvePoint,
    vocabulary::{Metric, Split},
};

/// One bar, which shows the latest figures, and the lines that stay.
pub struct TrainingDisplay<'a> {
    progress: &'a Progress,
    label: &'a str,
    bar: RefCell<Option<Bar>>,
    /// The latest training loss, and whether a validation figure stands beside it already.
    loss: Cell<f64>,
    validated: Cell<bool>,
}

impl<'a> TrainingDisplay<'a> {
    pub fn new(progress: &'a Progress, label: &'a str) -> Self {
        Self {
            progress,
            label,
            bar: RefCell::default(),
            loss: Cell::new(f64::NAN),
            validated: Cell::new(false),
        }
    }
}

impl Observer for TrainingDisplay<'_> {
    fn begin(&self, phase: &str, total: u64, done: u64) {
        let label = if phase.is_empty() { self.label.to_owned() } else { format!("{}: {phase}", self.label) };
        // The bar of the phase before goes away first.
        self.bar.take();
        let bar = self.progress.bar(total, label, "steps");
        bar.resume_at(done);
        self.bar.replace(Some(bar));
    }

    fn advance(&self, done: u64) {
        if let Some(bar) = &*self.bar.borrow() {
            bar.set(done);
        }
    }

    /// Shows the training loss, and beside it the first validation figure, which chooses the checkpoint.
    fn curve_point(&self, point: &CurvePoint) {
        let message = match (point.split.parse(), point.metric.as_str()) {
            (Ok(Split::Train), metric) if metric == Metric::Loss.as_str() => {
                self.loss.set(point.value);
                self.validated.set(false);
                format!("loss {:.4}", point.value)
            }
            (Ok(Split::Val), metric) if metric != Metric::Loss.as_str() && !self.validated.replace(true) => {
                let figure = format!("{} {metric}", point.structure);
                let figures = format!("loss {:.4}, {} {:.4}", self.loss.get(), figure.trim(), point.value);
                self.progress.detail(format!("{}: step {}, {figures}", self.label, point.step));
                figures
            }
            _ => return,
        };
        if let Some(bar) = &*self.bar.borrow() {
            bar.message(message);
        }
    }

    fn note(&self, line: &str) {
        self.progress.line(line);
    }
}
