//! Walks a plan in this process. Every process that sees the store can do any stage, so several
//! `run`s share the work: a stage is locked while it is worked on, and what another process has done
//! is taken as it is.

mod outside;
mod preflight;
pub(crate) mod stages;

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Mutex,
    time::{Duration, Instant, SystemTime},
};

use tch::Device;

pub use outside::{is_manifest_folder, outside_digests};
pub use preflight::{imported, preflight};

use crate::{
    error::{Error, Result},
    plan::{self, Plan, Stage},
    progress::Progress,
    store::{CHECKPOINT, Digests, StageRecord, StageStatus, Store},
};

/// How a plan is carried out. It decides nothing of the results but for rounding: libtorch sums in
/// another order with another number of threads or on another device.
pub struct Options {
    pub device: Device,
    pub threads: usize,
    /// Seconds between two checkpoints of a training, at least; 0: after every epoch.
    pub checkpoint_every: f64,
    /// This process helps another one, which tells the user what is waited for.
    pub helper: bool,
    /// What failed since then, in whatever process, is not tried again.
    pub started: SystemTime,
    /// Stop at the first failure instead of doing what does not depend on it.
    pub fail_fast: bool,
    pub versions: Vec<(String, String)>,
    pub commit: String,
}

/// What came of a stage.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The store had it.
    Hit,
    Done,
    /// Another process did it while this one ran.
    DoneElsewhere,
    Failed(Error),
    /// A stage that it needs failed.
    Blocked,
}

/// What came of a run.
pub struct Ran {
    /// By index into the plan's stages.
    pub outcomes: Vec<Outcome>,
}

impl Ran {
    pub fn failures(&self) -> impl Iterator<Item = (usize, &Error)> {
        self.outcomes.iter().enumerate().filter_map(|(i, outcome)| match outcome {
            Outcome::Failed(error) => Some((i, error)),
            _ => None,
        })
    }

    /// Stages that this process did, with `elsewhere` those that others did meanwhile as well.
    pub fn done(&self, elsewhere: bool) -> usize {
        let counts =
            |o: &&Outcome| matches!(o, Outcome::Done) || elsewhere && matches!(o, Outcome::DoneElsewhere);
        self.outcomes.iter().filter(counts).count()
    }

    /// 0 when all went well; else the exit code of the first failure.
    pub fn exit_code(&self) -> u8 {
        self.failures().next().map_or(0, |(_, error)| error.exit_code())
    }
}

/// What a kill costs at most, seconds, against the time that writing weights and moments takes.
pub const CHECKPOINT_EVERY: f64 = 15.0;

/// The folder of the store where features of images are kept; they can be computed again at any time.
const FEATURES: &str = "features";

/// What to do after a kernel has broken off.
const LOST_GPU: &str = "this process can do nothing more on the GPU: run the command again, what is done is kept; where it breaks off again, take fewer --jobs or a smaller batch_size";

/// How long to wait for another process's stage before looking again.
const WAIT: Duration = Duration::from_millis(200);

/// Does every stage that the store lacks.
pub fn run(
    plan: &Plan,
    store: &Store,
    digests: &Digests,
    options: &Options,
    progress: &Progress,
) -> Result<Ran> {
    let place = plan.by_key();
    let mut outcomes: Vec<Option<Outcome>> = vec![None; plan.stages.len()];
    let there: Vec<bool> =
        plan.stages.iter().map(|s| matches!(store.lookup(s.kind(), &s.key, digests), Ok(Some(_)))).collect();
    let mut told_to_wait = options.helper;
    while outcomes.iter().any(Option::is_none) {
        let mut moved = false;
        for (i, stage) in plan.stages.iter().enumerate() {
            if outcomes[i].is_some() {
                continue;
            }
            let needed: Vec<usize> =
                stage.inputs.iter().filter_map(|input| place.get(input.key.as_str()).copied()).collect();
            let lost = |j: &usize| matches!(outcomes[*j], Some(Outcome::Failed(_) | Outcome::Blocked));
            if needed.iter().any(lost) {
                outcomes[i] = Some(Outcome::Blocked);
                moved = true;
                continue;
            }
            if needed.iter().any(|&j| outcomes[j].is_none()) {
                continue;
            }
            if let Some(outcome) = attempt(stage, plan, store, digests, options, progress)? {
                let stop = matches!(&outcome, Outcome::Failed(e) if options.fail_fast || e.lost_the_gpu());
                let elsewhere = matches!(outcome, Outcome::Hit) && !there[i];
                outcomes[i] = Some(if elsewhere { Outcome::DoneElsewhere } else { outcome });
                moved = true;
                if stop {
                    outcomes.iter_mut().for_each(|o| {
                        o.get_or_insert(Outcome::Blocked);
                    });
                }
            }
        }
        if !moved {
            if !told_to_wait {
                let waits = plan.stages.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_none());
                let running =
                    waits.filter(|(stage, _)| store.status(stage.kind(), &stage.key) == StageStatus::Running);
                let labels: Vec<&str> = running.map(|(stage, _)| stage.label.as_str()).collect();
                progress.line(format!("waiting for another process: {}", labels.join("; ")));
                told_to_wait = true;
            }
            std::thread::sleep(WAIT);
        }
    }
    digests.save();
    Ok(Ran { outcomes: outcomes.into_iter().flatten().collect() })
}

/// Looks a stage up, or does it. `None`: another process is at it.
fn attempt(
    stage: &Stage,
    plan: &Plan,
    store: &Store,
    digests: &Digests,
    options: &Options,
    progress: &Progress,
) -> Result<Option<Outcome>> {
    let (kind, key) = (stage.kind(), stage.key.as_str());
    if let Ok(Some(_)) = store.lookup(kind, key, digests) {
        return Ok(Some(Outcome::Hit));
    }
    let Some(_lock) = store.try_lock(kind, key)? else { return Ok(None) };
    // Another process may have finished it, or be the one that damaged it: look again under the lock.
    match store.lookup(kind, key, digests) {
        Ok(Some(_)) => return Ok(Some(Outcome::Hit)),
        Ok(None) => {}
        Err(damage) => {
            progress.line(format!("made again: {}: {damage}", stage.label));
            store.discard(kind, key)?;
        }
    }
    if let Some(failure) = store.failure_since(kind, key, options.started) {
        let error = if failure.exit_code == 2 { Error::input } else { Error::failure };
        return Ok(Some(Outcome::Failed(error(failure.error))));
    }
    let out = store.begin(kind, key)?;
    progress.line(format!("{} [{}]", stage.label, &key[..12.min(key.len())]));
    let start = Instant::now();
    let artifacts: HashMap<&str, PathBuf> = stage
        .inputs
        .iter()
        .filter_map(|input| {
            let kind = plan.stages.iter().find(|s| s.key == input.key)?.kind();
            Some((input.role.as_str(), store.artifact(kind, &input.key)))
        })
        .collect();
    let cache = store.root().join(FEATURES);
    let work = stages::Place {
        stage,
        plan,
        store,
        cache: &cache,
        artifacts,
        checkpoints: out.join(CHECKPOINT),
        out,
        checkpoint_every: options.checkpoint_every,
        device: options.device,
        versions: &options.versions,
        commit: &options.commit,
        progress,
    };
    let result = caught(|| stages::perform(&work)).and_then(|()| {
        let (cost_class, cost_units) = stage.work.cost();
        let record = StageRecord {
            key: key.to_owned(),
            kind,
            label: stage.label.clone(),
            params: plan::params(&stage.work),
            inputs: stage.inputs.clone(),
            outside: stage.outside.clone(),
            outputs: vec![],
            seconds: start.elapsed().as_secs_f64(),
            cost_class,
            cost_units,
            device: format!("{:?}", options.device).to_lowercase(),
            threads: options.threads,
            versions: options.versions.clone(),
            commit: options.commit.clone(),
        };
        store.finish(stage, record, digests)
    });
    Ok(Some(match result {
        Ok(_) => Outcome::Done,
        Err(error) => {
            let error = if error.lost_the_gpu() { error.help(LOST_GPU) } else { error };
            store.fail(kind, key, &error);
            progress.line(format!("failed: {}", stage.label));
            Outcome::Failed(error)
        }
    }))
}

/// tch's plain methods panic with a C++ stack: one line for the user, the whole for the log.
fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let guard = ONE_AT_A_TIME.lock();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = catch_unwind(AssertUnwindSafe(work));
    std::panic::set_hook(hook);
    drop(guard);
    outcome.unwrap_or_else(|panic| {
        let whole = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("a panic without a message");
        let error = Error::of_libtorch(whole, "the stage broke off: ");
        Err(match error.lost_the_gpu() {
            true => error,
            false => error.help("the whole message is in log.txt in the stage's .partial folder"),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_tch_becomes_one_line() {
        let error = caught(|| {
            let a = tch::Tensor::from_slice(&[1.0f32, 2.0]);
            let _ = a.matmul(&tch::Tensor::from_slice(&[1.0f32]));
            Ok(())
        })
        .unwrap_err();
        assert_eq!(error.to_string().lines().count(), 2, "{error}");
        assert!(error.log_detail().is_some_and(|d| d.len() > 40));
    }
}
