//! Progress on standard error: bars on a terminal, one line per stage elsewhere.

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Where progress goes. Clones share one screen.
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

/// A line on standard error. Where nobody reads that any more (a pipe that was closed), work goes on without a word:
/// `eprintln` would end it.
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
