//! Progress on standard error: bars on a terminal, one line per stage elsewhere.

use std::{
    cell::{Cell, RefCell},
    io::{IsTerminal, Write},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    observer::Observer,
    results::CurvePoint,
    vocabulary::{Metric, Split},
};

/// The screen that progress is shown on. Clones share it.
#[derive(Clone)]
pub struct Progress {
    screen: MultiProgress,
    terminal: bool,
    quiet: bool,
}

impl Progress {
    /// Bars where standard error is a terminal; nothing at all when quiet.
    pub fn new(quiet: bool) -> Self {
        let terminal = !quiet && std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { screen: MultiProgress::with_draw_target(target), terminal, quiet }
    }

    /// A bar over `total` things (`images`, `epochs`), with rate and time left.
    pub fn bar(&self, total: u64, label: impl Into<String>, things: &str) -> Bar {
        let bar = self.screen.add(ProgressBar::new(total));
        let template = format!(
            "{{prefix:.bold}} {{wide_bar:.cyan/dim}} {{pos}}/{{len}} {things} {{per_sec}} {{msg}} {{eta}} left"
        );
        let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("━╸─"));
        bar.set_prefix(label.into());
        if self.terminal {
            bar.enable_steady_tick(Duration::from_millis(250));
        }
        Bar { bar }
    }

    /// A line that stays.
    pub fn line(&self, text: impl AsRef<str>) {
        if self.terminal {
            let _ = self.screen.println(text);
        } else if !self.quiet {
            complain(text.as_ref());
        }
    }
}

/// A line on standard error. Where nobody reads it any more (a closed pipe), work continues silently: `eprintln` would
/// end it.
pub fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A progress bar; it goes away when dropped.
pub struct Bar {
    bar: ProgressBar,
}

impl Bar {
    pub fn set(&self, done: u64) {
        self.bar.set_position(done);
    }

    pub fn total(&self, total: u64) {
        self.bar.set_length(total);
    }

    pub fn inc(&self, by: u64) {
        self.bar.inc(by);
    }

    /// Starts the clock at work that was done before (a continued stage).
    pub fn resume_at(&self, done: u64) {
        self.bar.set_position(done);
        self.bar.reset_eta();
    }

    pub fn message(&self, text: impl Into<String>) {
        self.bar.set_message(text.into());
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A training on the terminal: one bar, which shows the latest figures, and the lines that stay.
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
                format!("loss {:.4} {} {:.4}", self.loss.get(), figure.trim(), point.value)
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
