//! What runs now: how far each stage is, written by the process that works on it and read by others.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{StageStatus, Store};
use crate::{pace::Pace, plan::StageKind};

/// The end of the file's name, beside the stage's lock.
const SUFFIX: &str = ".activity.json";

/// A stage that some process works on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Activity {
    pub label: String,
    /// The machine and the process.
    pub host: String,
    pub pid: u32,
    #[serde(flatten)]
    pub pace: Pace,
}

impl Store {
    fn activity_file(&self, kind: StageKind, key: &str) -> PathBuf {
        self.root().join(kind.as_str()).join(format!("{key}{SUFFIX}"))
    }

    /// Says how far a stage is. That it cannot be said does not matter to the stage.
    pub fn publish_activity(&self, kind: StageKind, key: &str, activity: &Activity) {
        let file = self.activity_file(kind, key);
        let temporary = file.with_extension("tmp");
        if let Ok(text) = serde_json::to_string(activity)
            && fs::write(&temporary, text).is_ok()
        {
            let _ = fs::rename(&temporary, &file);
        }
    }

    pub fn end_activity(&self, kind: StageKind, key: &str) {
        let _ = fs::remove_file(self.activity_file(kind, key));
    }

    /// How far a stage is that runs now, where its process says so.
    pub fn activity(&self, kind: StageKind, key: &str) -> Option<Activity> {
        // A killed process leaves its file, but not its lock.
        let running = self.status(kind, key) == StageStatus::Running;
        running.then(|| read(&self.activity_file(kind, key))).flatten()
    }

    /// Every stage that runs now, by its key.
    pub fn activities(&self) -> Vec<(String, Activity)> {
        let mut found: Vec<(String, Activity)> = StageKind::ALL
            .into_iter()
            .flat_map(|kind| {
                let entries = fs::read_dir(self.root().join(kind.as_str())).into_iter().flatten().flatten();
                entries.filter_map(move |entry| {
                    let key = entry.file_name().to_str()?.strip_suffix(SUFFIX)?.to_owned();
                    Some((self.activity(kind, &key)?, key)).map(|(activity, key)| (key, activity))
                })
            })
            .collect();
        found.sort_by(|a, b| a.1.label.cmp(&b.1.label));
        found
    }
}

fn read(file: &Path) -> Option<Activity> {
    serde_json::from_str(&fs::read_to_string(file).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stage_whose_process_lives_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let activity = Activity {
            label: "train".into(),
            host: "here".into(),
            pid: 1,
            pace: Pace { done: 3, total: 9, per_second: Some(1.5), ..Pace::default() },
        };
        let lock = store.try_lock(StageKind::Train, "k").unwrap();
        store.publish_activity(StageKind::Train, "k", &activity);
        assert_eq!(store.activities(), [("k".to_owned(), activity.clone())]);
        assert_eq!(store.activity(StageKind::Train, "k"), Some(activity));
        drop(lock);
        assert!(store.activities().is_empty(), "its process is gone");
        store.end_activity(StageKind::Train, "k");
        assert_eq!(fs::read_dir(dir.path().join("train")).unwrap().count(), 0, "nothing is left");
    }
}
