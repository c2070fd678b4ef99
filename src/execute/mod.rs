//! Carries out a plan. Every process that sees the store can do any stage, so several processes share the work:
//! a stage is locked while one of them works on it, and the others take its result from the store.
//!
//! An executor says which processes these are. A further one (a cluster's queue) is a file beside `workers` and an
//! arm in [`run`].

mod outside;
mod peak_memory;
mod preflight;
mod stages;
mod workers;

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Mutex,
    time::{Duration, Instant, SystemTime},
};

use chrono::{SecondsFormat, Utc};
use tch::Device;

pub use outside::{is_manifest_folder, outside_digests};
pub use preflight::{imported, preflight, preflight_data};
pub use workers::{CoreShares, LocalWorkers, share_cores};

use crate::{
    error::{Error, Result},
    pace::{Pace, duration},
    plan::{self, Plan, Stage},
    progress::Progress,
    store::{Activity, CHECKPOINT, Digests, StageRecord, StageStatus, Store},
};

/// A plan to carry out, and everything that this takes.
pub struct RunRequest<'a> {
    pub plan: &'a Plan,
    pub store: &'a Store,
    pub digests: &'a Digests,
    pub options: RunOptions,
    pub executor: Executor,
    pub progress: &'a Progress,
}

/// How a plan is carried out. Results depend on it only by rounding: libtorch sums in another order with another
/// number of threads or on another device.
pub struct RunOptions {
    pub device: Device,
    pub threads: usize,
    /// The least number of seconds between two checkpoints of a training; 0: after every epoch.
    pub checkpoint_every: f64,
    /// A stage that failed since then, in whatever process, is not tried again.
    pub started: SystemTime,
    /// Stop at the first failure, though stages that do not depend on it could still run.
    pub fail_fast: bool,
    pub versions: Vec<(String, String)>,
    pub commit: String,
}

/// Which processes do the stages.
pub enum Executor {
    /// This one only.
    ThisProcess,
    /// This one, as a worker of the process that started it, with which it ends. It leaves messages to the user to
    /// that process.
    Worker,
    /// This one, and workers that it starts on this machine.
    LocalWorkers(LocalWorkers),
}

/// The outcome of a stage.
#[derive(Debug, Clone)]
pub enum StageOutcome {
    /// The store had it.
    Hit,
    Done,
    /// Another process did it while this one ran.
    DoneElsewhere,
    Failed(Error),
    /// A stage that it needs failed.
    Blocked,
}

/// The outcome of a run.
pub struct RunOutcome {
    /// By index into the plan's stages.
    pub stages: Vec<StageOutcome>,
    /// Whether the run had workers beside this process.
    with_workers: bool,
}

impl RunOutcome {
    pub fn failures(&self) -> impl Iterator<Item = (usize, &Error)> {
        self.stages.iter().enumerate().filter_map(|(i, outcome)| match outcome {
            StageOutcome::Failed(error) => Some((i, error)),
            _ => None,
        })
    }

    /// Stages that this run did.
    pub fn done(&self) -> usize {
        let is_done = |outcome: &&StageOutcome| match outcome {
            StageOutcome::Done => true,
            StageOutcome::DoneElsewhere => self.with_workers,
            _ => false,
        };
        self.stages.iter().filter(is_done).count()
    }

    /// Stages that were not begun because another one failed.
    pub fn blocked(&self) -> usize {
        self.stages.iter().filter(|outcome| matches!(outcome, StageOutcome::Blocked)).count()
    }

    /// 0 when all went well; else the exit code of the first failure.
    pub fn exit_code(&self) -> u8 {
        self.failures().next().map_or(0, |(_, error)| error.exit_code())
    }
}

/// Seconds of work that a kill loses at most. Fewer would cost more time for writing weights and moments.
pub const CHECKPOINT_EVERY: f64 = 15.0;

/// The store's folder for features of images; they can be recomputed at any time.
const FEATURES: &str = "features";

/// The remedy after a kernel has failed.
const LOST_GPU: &str = "this process can do nothing more on the GPU: run the command again, what is done is kept; where it breaks off again, take fewer --jobs or a smaller batch_size";

/// How long to wait for another process's stage before looking again.
const WAIT: Duration = Duration::from_millis(200);

/// Does every stage that the store lacks.
pub fn run(request: &RunRequest) -> Result<RunOutcome> {
    match &request.executor {
        Executor::ThisProcess => walk(request),
        Executor::Worker => {
            workers::end_with_parent();
            walk(request)
        }
        Executor::LocalWorkers(local) => workers::run(request, local),
    }
}

/// Goes through the plan in this process until every stage has an outcome.
fn walk(request: &RunRequest) -> Result<RunOutcome> {
    let RunRequest { plan, store, digests, options, progress, .. } = request;
    let index = plan.by_key();
    let mut outcomes: Vec<Option<StageOutcome>> = vec![None; plan.stages.len()];
    let there: Vec<bool> =
        plan.stages.iter().map(|s| matches!(store.lookup(s.kind(), &s.key, digests), Ok(Some(_)))).collect();
    let mut announced = matches!(request.executor, Executor::Worker);
    let ended =
        |outcomes: &[Option<StageOutcome>]| outcomes.iter().filter(|outcome| outcome.is_some()).count();
    progress.stages(0, outcomes.len());
    while outcomes.iter().any(Option::is_none) {
        let mut moved = false;
        for (i, stage) in plan.stages.iter().enumerate() {
            if outcomes[i].is_some() {
                continue;
            }
            let needed: Vec<usize> =
                stage.inputs.iter().filter_map(|input| index.get(input.key.as_str()).copied()).collect();
            let lost =
                |j: &usize| matches!(outcomes[*j], Some(StageOutcome::Failed(_) | StageOutcome::Blocked));
            if needed.iter().any(lost) {
                outcomes[i] = Some(StageOutcome::Blocked);
                moved = true;
                continue;
            }
            if needed.iter().any(|&j| outcomes[j].is_none()) {
                continue;
            }
            if let Some(outcome) = attempt(i, request)? {
                let stop =
                    matches!(&outcome, StageOutcome::Failed(e) if options.fail_fast || e.lost_the_gpu());
                let elsewhere = matches!(outcome, StageOutcome::Hit) && !there[i];
                outcomes[i] = Some(if elsewhere { StageOutcome::DoneElsewhere } else { outcome });
                moved = true;
                progress.stages(ended(&outcomes), outcomes.len());
                if stop {
                    outcomes.iter_mut().for_each(|o| {
                        o.get_or_insert(StageOutcome::Blocked);
                    });
                }
            }
        }
        if !moved {
            if !announced {
                let waits = plan.stages.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_none());
                let running =
                    waits.filter(|(stage, _)| store.status(stage.kind(), &stage.key) == StageStatus::Running);
                let labels: Vec<&str> = running.map(|(stage, _)| stage.label.as_str()).collect();
                progress.line(format!("waiting for another process: {}", labels.join("; ")));
                announced = true;
            }
            std::thread::sleep(WAIT);
        }
    }
    digests.save();
    Ok(RunOutcome { stages: outcomes.into_iter().flatten().collect(), with_workers: false })
}

/// Looks a stage up, or does it. `None`: another process is working on it.
fn attempt(index: usize, request: &RunRequest) -> Result<Option<StageOutcome>> {
    let RunRequest { plan, store, digests, options, progress, .. } = request;
    let stage = &plan.stages[index];
    let (kind, key) = (stage.kind(), stage.key.as_str());
    if let Ok(Some(_)) = store.lookup(kind, key, digests) {
        return Ok(Some(StageOutcome::Hit));
    }
    let Some(_lock) = store.try_lock(kind, key)? else { return Ok(None) };
    // Another process may have finished it, or be the one that damaged it: look again under the lock.
    match store.lookup(kind, key, digests) {
        Ok(Some(_)) => return Ok(Some(StageOutcome::Hit)),
        Ok(None) => {}
        Err(damage) => {
            progress
                .line(format!("recomputed, because the stored copy is damaged: {}: {damage}", stage.label));
            store.discard(kind, key)?;
        }
    }
    if let Some(failure) = store.failure_since(kind, key, options.started) {
        let error = if failure.exit_code == 2 { Error::input } else { Error::failure };
        return Ok(Some(StageOutcome::Failed(error(failure.error))));
    }
    let out = store.begin(kind, key)?;
    let count = format!("{}/{}", index + 1, plan.stages.len());
    progress.line(format!("{count} {} [{}]", stage.label, &key[..12.min(key.len())]));
    let start = Instant::now();
    peak_memory::reset();
    let watch = progress.watch(&format!("{count} {}", stage.label), publisher(stage, store));
    let artifacts: HashMap<&str, PathBuf> = stage
        .inputs
        .iter()
        .filter_map(|input| {
            let kind = plan.stages.iter().find(|s| s.key == input.key)?.kind();
            Some((input.role.as_str(), store.artifact(kind, &input.key)))
        })
        .collect();
    let cache = store.root().join(FEATURES);
    let work = stages::StageContext {
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
            finished: Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true),
            cost_class,
            cost_units,
            peak_memory: peak_memory::read(),
            device: format!("{:?}", options.device).to_lowercase(),
            threads: options.threads,
            versions: options.versions.clone(),
            commit: options.commit.clone(),
        };
        store.finish(stage, record, digests)
    });
    drop(watch);
    store.end_activity(kind, key);
    Ok(Some(match result {
        Ok(_) => {
            progress.detail(format!(
                "{count} done in {}: {}",
                duration(start.elapsed().as_secs_f64()),
                stage.label
            ));
            StageOutcome::Done
        }
        Err(error) => {
            let error = if error.lost_the_gpu() { error.help(LOST_GPU) } else { error };
            store.fail(kind, key, &error);
            progress.line(format!("failed: {}", stage.label));
            StageOutcome::Failed(error)
        }
    }))
}

/// Tells the store how far a stage is, for `synecho status`.
fn publisher(stage: &Stage, store: &Store) -> impl Fn(Pace) + Send + 'static {
    let (store, kind, key, label) = (store.clone(), stage.kind(), stage.key.clone(), stage.label.clone());
    let host = gethostname::gethostname().to_string_lossy().into_owned();
    move |pace| {
        let (label, host, pid) = (label.clone(), host.clone(), std::process::id());
        store.publish_activity(kind, &key, &Activity { label, host, pid, pace });
    }
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
