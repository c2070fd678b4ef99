//! Progress on standard error: bars on a terminal, lines elsewhere, and a log of all lines.

mod meter;
mod training;

use std::{
    fs::File,
    io::{IsTerminal, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use chrono::Local;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::pace::{Pace, duration};
use meter::Meter;
pub use training::TrainingDisplay;

/// A stage that takes longer than this says how far it is, and again after as long.
const LINE_EVERY: Duration = Duration::from_secs(30);
/// How often the progress of a stage is published.
const PUBLISH_EVERY: Duration = Duration::from_secs(2);

/// Begins a worker's line about how far its stage is: its parent need not keep it on the screen.
const PASSING: char = '\u{1}';

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Errors only.
    Quiet,
    Normal,
    /// Every validation and the end of every stage, too.
    Verbose,
}

/// Where progress goes.
#[derive(Debug)]
pub struct ProgressOptions {
    pub verbosity: Verbosity,
    /// This process is a worker: its parent shows its lines, and logs them.
    pub worker: bool,
    /// Takes every line, however little is shown.
    pub log: Option<File>,
}

/// The screen that progress is shown on. Clones share it.
#[derive(Clone)]
pub struct Progress {
    inner: Arc<Inner>,
}

struct Inner {
    screen: MultiProgress,
    terminal: bool,
    verbosity: Verbosity,
    worker: bool,
    log: Option<Mutex<File>>,
    /// Lines carry the time of day.
    stamped: bool,
    /// How far the running stage is.
    meter: Mutex<Option<Arc<Mutex<Meter>>>>,
    /// Over all stages.
    overall: Mutex<Option<ProgressBar>>,
}

/// A lock that does not care whether another thread broke off while it held it: what it guards is only shown.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Progress {
    /// Bars where standard error is a terminal; nothing at all when quiet.
    pub fn new(quiet: bool) -> Self {
        let verbosity = if quiet { Verbosity::Quiet } else { Verbosity::Normal };
        Self::with(ProgressOptions { verbosity, worker: false, log: None }, false)
    }

    /// Of a run: its lines carry the time of day.
    pub fn of_run(options: ProgressOptions) -> Self {
        Self::with(options, true)
    }

    fn with(options: ProgressOptions, stamped: bool) -> Self {
        let ProgressOptions { verbosity, worker, log } = options;
        let terminal = verbosity > Verbosity::Quiet && !worker && std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self {
            inner: Arc::new(Inner {
                screen: MultiProgress::with_draw_target(target),
                terminal,
                verbosity,
                worker,
                log: log.map(Mutex::new),
                // A worker's parent adds the time.
                stamped: stamped && !worker,
                meter: Mutex::default(),
                overall: Mutex::default(),
            }),
        }
    }

    /// A bar over `total` things (`images`, `epochs`), with rate and time left.
    pub fn bar(&self, total: u64, label: impl Into<String>, things: &str) -> Bar {
        let inner = &self.inner;
        let bar = ProgressBar::new(total);
        let bar = match &*locked(&inner.overall) {
            Some(overall) => inner.screen.insert_before(overall, bar),
            None => inner.screen.add(bar),
        };
        let template = format!(
            "{{prefix:.bold}} {{wide_bar:.cyan/dim}} {{pos}}/{{len}} {things} {{per_sec}} {{msg}} {{eta}} left"
        );
        let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("━╸─"));
        bar.set_prefix(label.into());
        if inner.terminal {
            bar.enable_steady_tick(Duration::from_millis(250));
        }
        let meter = Arc::new(Mutex::new(Meter::new(things, total)));
        *locked(&inner.meter) = Some(Arc::clone(&meter));
        Bar { bar, meter }
    }

    /// Shows on a terminal how many stages are done.
    pub fn stages(&self, done: usize, total: usize) {
        let inner = &self.inner;
        if !inner.terminal {
            return;
        }
        let mut overall = locked(&inner.overall);
        let bar = overall.get_or_insert_with(|| {
            let bar = inner.screen.add(ProgressBar::new(total as u64));
            let template = "{prefix:.bold} {wide_bar:.green/dim} {pos}/{len} stages, {elapsed} so far";
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("━╸─"));
            bar.set_prefix("all stages");
            bar.enable_steady_tick(Duration::from_secs(1));
            bar
        });
        bar.set_position(done as u64);
    }

    /// Takes the bars away, for what is printed at the end.
    pub fn clear(&self) {
        if let Some(bar) = locked(&self.inner.overall).take() {
            bar.finish_and_clear();
        }
        let _ = self.inner.screen.clear();
    }

    /// A line that stays.
    pub fn line(&self, text: impl AsRef<str>) {
        self.emit(text.as_ref(), Verbosity::Normal);
    }

    /// A line for the log, and for those who want to see more.
    pub fn detail(&self, text: impl AsRef<str>) {
        self.emit(text.as_ref(), Verbosity::Verbose);
    }

    /// A line that a worker wrote.
    pub fn worker_line(&self, line: &str) {
        match line.strip_prefix(PASSING) {
            Some(passing) => self.passing(passing),
            None => self.line(line),
        }
    }

    /// A line into the log only.
    pub fn log(&self, text: &str) {
        if let Some(log) = &self.inner.log {
            // A full disk must not end the run: the store says so when it matters.
            let _ = writeln!(locked(log), "{text}");
        }
    }

    /// How far a stage is: a line where no bar shows it.
    fn passing(&self, text: &str) {
        let inner = &self.inner;
        if inner.worker {
            complain(&format!("{PASSING}{text}"));
            return;
        }
        let text = self.stamp(text);
        self.log(&text);
        if !inner.terminal && inner.verbosity > Verbosity::Quiet {
            complain(&text);
        }
    }

    fn emit(&self, text: &str, least: Verbosity) {
        let inner = &self.inner;
        let text = self.stamp(text);
        self.log(&text);
        if inner.verbosity < least {
            return;
        }
        if inner.terminal {
            let _ = inner.screen.println(text);
        } else {
            complain(&text);
        }
    }

    fn stamp(&self, text: &str) -> String {
        if self.inner.stamped {
            format!("{} {text}", Local::now().format("%H:%M:%S"))
        } else {
            text.to_owned()
        }
    }

    /// Watches a stage until the watch is dropped: says how far it is every half minute, and tells `publish` more often.
    pub fn watch(&self, label: &str, publish: impl Fn(Pace) + Send + 'static) -> StageWatch {
        *locked(&self.inner.meter) = None;
        let ended = Arc::new((Mutex::new(false), Condvar::new()));
        let (progress, label, end) = (self.clone(), label.to_owned(), Arc::clone(&ended));
        let thread = std::thread::spawn(move || progress.keep_watch(&label, &end, &publish));
        StageWatch { ended, thread: Some(thread) }
    }

    fn keep_watch(&self, label: &str, ended: &(Mutex<bool>, Condvar), publish: &dyn Fn(Pace)) {
        let begun = Instant::now();
        let mut next_line = LINE_EVERY;
        let (flag, changed) = ended;
        let mut over = locked(flag);
        while !*over {
            publish(self.pace());
            if begun.elapsed() >= next_line {
                next_line = begun.elapsed() + LINE_EVERY;
                let pace = match self.pace() {
                    unknown if unknown.total == 0 => {
                        format!("{} so far", duration(begun.elapsed().as_secs_f64()))
                    }
                    pace => pace.to_string(),
                };
                self.passing(&format!("{label}: {pace}"));
            }
            over = changed.wait_timeout(over, PUBLISH_EVERY).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Nothing is counted before a stage has a bar.
    fn pace(&self) -> Pace {
        let meter = locked(&self.inner.meter).clone();
        meter.map(|meter| locked(&meter).pace()).unwrap_or_default()
    }
}

/// While it lives, a stage is watched.
pub struct StageWatch {
    ended: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for StageWatch {
    fn drop(&mut self) {
        *locked(&self.ended.0) = true;
        self.ended.1.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
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
    meter: Arc<Mutex<Meter>>,
}

impl Bar {
    pub fn set(&self, done: u64) {
        self.bar.set_position(done);
        locked(&self.meter).done = done;
    }

    pub fn total(&self, total: u64) {
        self.bar.set_length(total);
        locked(&self.meter).total = total;
    }

    pub fn inc(&self, by: u64) {
        self.bar.inc(by);
        locked(&self.meter).done += by;
    }

    /// Starts the clock at work that was done before (a continued stage).
    pub fn resume_at(&self, done: u64) {
        self.bar.set_position(done);
        self.bar.reset_eta();
        locked(&self.meter).resume_at(done);
    }

    pub fn message(&self, text: impl Into<String>) {
        let text = text.into();
        self.bar.set_message(text.clone());
        locked(&self.meter).message = text;
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_that_takes_long_is_published_and_logged_however_quiet() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log");
        let log = Some(File::create(&file).unwrap());
        let options = ProgressOptions { verbosity: Verbosity::Quiet, worker: false, log };
        let progress = Progress::of_run(options);
        let (sent, received) = std::sync::mpsc::channel();
        let bar = {
            let watch = progress.watch("train", move |pace| {
                let _ = sent.send(pace);
            });
            assert_eq!(received.recv().unwrap(), Pace::default(), "there is no bar yet");
            let bar = progress.bar(10, "train", "steps");
            bar.set(4);
            bar.message("loss 1");
            let pace = received.recv().unwrap();
            assert_eq!((pace.done, pace.total, pace.message.as_str()), (4, 10, "loss 1"));
            drop(watch);
            bar
        };
        drop(bar);
        progress.line("a line");
        progress.detail("a detail");
        let log = std::fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = log.lines().map(|line| line.split_once(' ').unwrap().1).collect();
        assert_eq!(lines, ["a line", "a detail"]);
        assert_eq!(log.lines().next().unwrap().split(' ').next().unwrap().matches(':').count(), 2);
    }
}
