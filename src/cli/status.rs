//! `synecho status`: what is done, running and failed.

use std::{io::Write, path::Path, time::Duration};

use serde_json::json;

use super::{
    SetArgs,
    output::{print, print_json},
    request::ask,
};
use crate::{
    error::{Error, Result},
    plan::{Plan, Stage},
    store::{Activity, Digests, Failure, StageStatus, Store},
};

/// How often a watched status is shown.
const EVERY: Duration = Duration::from_secs(3);

/// Shows the status of a spec's stages, or counts of the whole store, and what runs in it now.
pub(super) fn status(file: Option<&Path>, set: &SetArgs, root: &Path, as_json: bool) -> Result<u8> {
    let store = Store::look(root)?;
    let Some(file) = file else { return store_status(&store, as_json) };
    let asked = ask(file, set, root)?;
    let stages: Vec<StageState> =
        asked.plan.stages.iter().map(|stage| StageState::of(stage, &store, &asked.digests)).collect();
    let others = other_activities(&asked.plan, &store);
    if as_json {
        let stages: Vec<_> = stages.iter().map(StageState::json).collect();
        let name = &asked.spec.experiment.name;
        return print_json(&json!({"experiment": name, "stages": stages, "others_running": others}));
    }
    let mut text: String = stages.iter().map(StageState::lines).collect();
    if !others.is_empty() {
        text += "running in this store, with other settings or of another spec:\n";
        for activity in &others {
            text += &format!("  {}: {}\n", activity.label, far(activity));
        }
    }
    let count = |wanted: StageStatus| stages.iter().filter(|stage| stage.status == wanted).count();
    text += &format!(
        "{} done, {} running, {} failed, {} interrupted, {} not begun\n",
        count(StageStatus::Done),
        count(StageStatus::Running),
        count(StageStatus::Failed),
        count(StageStatus::Interrupted),
        count(StageStatus::Missing)
    );
    print(&text)
}

/// Shows it again and again, each time on a clear screen.
pub(super) fn watch(show: impl Fn() -> Result<u8>) -> Result<u8> {
    loop {
        // To the top left corner, and everything below it away.
        print("\u{1b}[H\u{1b}[J")?;
        show()?;
        // Nobody reads it any more, as after `| head`.
        if std::io::stdout().flush().is_err() {
            return Ok(0);
        }
        std::thread::sleep(EVERY);
    }
}

/// A stage of a plan, as the store knows it.
struct StageState<'a> {
    stage: &'a Stage,
    status: StageStatus,
    failure: Option<Failure>,
    /// What is wrong with the stored copy of a stage that is to be computed again.
    damage: Option<Error>,
    activity: Option<Activity>,
}

impl<'a> StageState<'a> {
    fn of(stage: &'a Stage, store: &Store, digests: &Digests) -> Self {
        let (kind, key) = (stage.kind(), stage.key.as_str());
        let mut status = store.status(kind, key);
        // As `plan` and `run` see it: a file that is missing or changed makes a stage one that has to be done.
        let damage = match status {
            StageStatus::Done => store.lookup(kind, key, digests).err(),
            _ => None,
        };
        if damage.is_some() {
            status = StageStatus::Missing;
        }
        let failure = (status == StageStatus::Failed).then(|| store.failure(kind, key)).flatten();
        let activity = store.activity(kind, key);
        Self { stage, status, failure, damage, activity }
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "key": self.stage.key,
            "kind": self.stage.kind(),
            "label": self.stage.label,
            "status": self.status,
            "error": self.failure.as_ref().map(|failure| &failure.error),
            "damage": self.damage.as_ref().map(ToString::to_string),
            "activity": self.activity,
        })
    }

    fn lines(&self) -> String {
        let key = &self.stage.key[..12];
        let far = self.activity.as_ref().map(|activity| format!(": {}", far(activity))).unwrap_or_default();
        let mut text = format!("  {:<11}  {key}  {}{far}\n", words(&self.status), self.stage.label);
        let failure = self.failure.as_ref().map(|failure| failure.error.clone());
        let damage = self.damage.as_ref().map(|damage| format!("the stored copy is damaged: {damage}"));
        if let Some(detail) = failure.or(damage) {
            text += &format!("               {}\n", detail.replace('\n', "\n               "));
        }
        text
    }
}

/// What runs in the store and is not of the plan: a run with other `--set`, or of another spec.
fn other_activities(plan: &Plan, store: &Store) -> Vec<Activity> {
    let own = plan.by_key();
    let running = store.activities().into_iter();
    running.filter(|(key, _)| !own.contains_key(key.as_str())).map(|(_, activity)| activity).collect()
}

/// `1200 of 4000 steps, 15.2 per second, 3 min 04 s left, loss 0.12 (host, process 123)`.
fn far(activity: &Activity) -> String {
    format!("{} ({}, process {})", activity.pace, activity.host, activity.pid).trim_start().to_owned()
}

fn words(status: &StageStatus) -> &'static str {
    match status {
        StageStatus::Done => "done",
        StageStatus::Running => "running",
        StageStatus::Failed => "failed",
        StageStatus::Interrupted => "interrupted",
        StageStatus::Missing => "not begun",
    }
}

fn store_status(store: &Store, as_json: bool) -> Result<u8> {
    let (counts, running) = (store.counts()?, store.activities());
    if as_json {
        return print_json(&counts);
    }
    let mut text = format!("{}\n", store.root().display());
    for count in &counts {
        text += &format!(
            "  {:<9} {} done, {} begun, {:.1} MB\n",
            count.kind.as_str(),
            count.done,
            count.begun,
            count.bytes as f64 / 1e6
        );
    }
    for (key, activity) in &running {
        text += &format!("running  {}  {}: {}\n", &key[..12.min(key.len())], activity.label, far(activity));
    }
    print(&text)
}
