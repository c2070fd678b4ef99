//! `runs/`: content-addressed artifacts, their records, and locks.
//!
//! A stage works in `runs/<kind>/<key>.partial/` beside its final place, writes its record last, and
//! is renamed to `runs/<kind>/<key>/`. No record, no artifact. Checkpoints live in the partial
//! folder's `checkpoint/`, which outlives a kill and goes away when the stage is done.

mod activity;
mod digest;

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    path::{Component, Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

pub use activity::Activity;
pub use digest::Digests;

use crate::{
    atomic_file::{abandoned, write_atomically},
    error::{AtPath, Error, Result},
    file_lock::FileLock,
    plan::{Input, Outside, Stage, StageKind},
};

/// Written last into every artifact.
pub const RECORD: &str = "record.json";
const FAILED: &str = "failed.json";
/// The end of the name of a stage's lock.
const LOCK: &str = ".lock";
/// The store's folder for the logs of runs.
const LOGS: &str = "logs";
/// Folder inside a partial artifact that a later try goes on from.
pub const CHECKPOINT: &str = "checkpoint";

/// What was done, from what, where, and what came out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StageRecord {
    pub key: String,
    pub kind: StageKind,
    pub label: String,
    pub params: serde_json::Value,
    pub inputs: Vec<Input>,
    pub outside: Vec<Outside>,
    pub outputs: Vec<Output>,
    /// Wall time of the last try, seconds.
    pub seconds: f64,
    /// When it ended, in UTC as RFC 3339 has it; empty in records of earlier versions.
    #[serde(default)]
    pub finished: String,
    /// Stages of one class take time in proportion to their units.
    pub cost_class: String,
    pub cost_units: f64,
    /// The most memory that the process had during the stage, in bytes, without a GPU's; where the system tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
    pub device: String,
    pub threads: usize,
    pub versions: Vec<(String, String)>,
    pub commit: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Relative to the artifact.
    pub path: String,
    pub bytes: u64,
    pub blake3: String,
}

/// What stages of a cost class took so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CostRate {
    /// For each unit.
    pub seconds: f64,
    /// The most, in bytes.
    pub peak_memory: Option<u64>,
}

/// Why a stage did not succeed the last time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    pub error: String,
    /// 1 or 2, as the program's exit code.
    pub exit_code: u8,
}

/// What the store knows of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StageStatus {
    Done,
    Running,
    Failed,
    /// Begun, and not going on now.
    Interrupted,
    Missing,
}

/// Artifacts of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Count {
    pub kind: StageKind,
    pub done: usize,
    /// Interrupted, failed or under way.
    pub begun: usize,
    pub bytes: u64,
}

#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the store for writing, making the folder where it is missing.
    pub fn open(root: &Path) -> Result<Self> {
        let help = "choose another folder with --store DIR";
        fs::create_dir_all(root).at_path(root, "cannot make the store").map_err(|e| refuse(e, help))?;
        let probe = root.join(format!(".probe-{}", std::process::id()));
        fs::write(&probe, b"").at_path(root, "cannot write into the store").map_err(|e| refuse(e, help))?;
        let locked = FileLock::try_take(&probe);
        let _ = fs::remove_file(&probe);
        locked?;
        Ok(Self { root: root.to_owned() })
    }

    /// Removes what processes that were killed left: half-written digests, locks that nobody holds, and how far their
    /// stages were.
    pub fn remove_stale_locks(&self) {
        let half_written = |entry: fs::DirEntry| abandoned(&entry.path()).is_some().then(|| entry.path());
        for file in fs::read_dir(&self.root).into_iter().flatten().flatten().filter_map(half_written) {
            let _ = fs::remove_file(file);
        }
        for kind in StageKind::ALL {
            let entries = fs::read_dir(self.root.join(kind.as_str())).into_iter().flatten().flatten();
            for entry in entries {
                let name = entry.file_name();
                let Some(key) = name.to_str().and_then(|name| name.strip_suffix(LOCK)) else { continue };
                // The file goes when the lock is released.
                if let Ok(Some(_lock)) = self.try_lock(kind, key) {
                    self.end_activity(kind, key);
                }
            }
        }
    }

    /// The store as it is, which may be not there at all: for looking only.
    ///
    /// # Errors
    /// There is something else, or a folder that may not be read: it must not look like an empty store.
    pub fn look(root: &Path) -> Result<Self> {
        match fs::read_dir(root) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e)
                .at_path(root, "cannot look into the store")
                .map_err(|e| refuse(e, "choose another folder with --store DIR")),
            _ => Ok(Self { root: root.to_owned() }),
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A new log of a run: `name` becomes part of the file's name.
    pub fn new_log(&self, name: &str) -> Result<(PathBuf, File)> {
        let folder = self.root.join(LOGS);
        fs::create_dir_all(&folder).at_path(&folder, "cannot make the folder")?;
        let file = folder.join(format!("{name}.log"));
        let opened = OpenOptions::new().create(true).append(true).open(&file);
        Ok((file.clone(), opened.at_path(&file, "cannot write the log")?))
    }

    /// Where a finished artifact is.
    pub fn artifact(&self, kind: StageKind, key: &str) -> PathBuf {
        self.root.join(kind.as_str()).join(key)
    }

    /// Where it is worked on.
    pub fn partial(&self, kind: StageKind, key: &str) -> PathBuf {
        self.root.join(kind.as_str()).join(format!("{key}.partial"))
    }

    fn lock_file(&self, kind: StageKind, key: &str) -> PathBuf {
        self.root.join(kind.as_str()).join(format!("{key}{LOCK}"))
    }

    /// The record of a whole artifact: every output is there with its digest. A damaged artifact is
    /// an error that says what is wrong with it; a missing one is `None`.
    pub fn lookup(&self, kind: StageKind, key: &str, digests: &Digests) -> Result<Option<StageRecord>> {
        let dir = self.artifact(kind, key);
        let file = dir.join(RECORD);
        let Ok(text) = fs::read_to_string(&file) else {
            if dir.exists() {
                return Err(Error::failure("the artifact has no record").at(dir));
            }
            return Ok(None);
        };
        let record: StageRecord = serde_json::from_str(&text)
            .map_err(|e| Error::failure(format!("the record is damaged: {e}")).at(&file))?;
        if record.key != key {
            return Err(Error::failure(format!("the record is of {}", record.key)).at(&file));
        }
        for output in &record.outputs {
            let path = dir.join(&output.path);
            let size = fs::metadata(&path).map(|m| m.len()).ok();
            if size != Some(output.bytes) || digests.file(&path)? != output.blake3 {
                return Err(Error::failure("the file is not what the stage wrote").at(path));
            }
        }
        Ok(Some(record))
    }

    /// The lock of a stage, or `None` while another process holds it.
    pub fn try_lock(&self, kind: StageKind, key: &str) -> Result<Option<FileLock>> {
        let path = self.lock_file(kind, key);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).at_path(parent, "cannot make the folder")?;
        }
        FileLock::try_take(&path)
    }

    /// An empty partial folder, but for the checkpoints of an earlier try.
    pub fn begin(&self, kind: StageKind, key: &str) -> Result<PathBuf> {
        let dir = self.partial(kind, key);
        fs::create_dir_all(&dir).at_path(&dir, "cannot make the folder")?;
        for entry in fs::read_dir(&dir).at_path(&dir, "cannot read the folder")?.flatten() {
            if entry.file_name() != CHECKPOINT {
                remove(&entry.path())?;
            }
        }
        Ok(dir)
    }

    /// Takes an artifact out of the way, to `<key>.damaged` beside it: what looks damaged may only have
    /// been out of reach for a moment.
    pub fn discard(&self, kind: StageKind, key: &str) -> Result<()> {
        let (place, aside) =
            (self.artifact(kind, key), self.root.join(kind.as_str()).join(format!("{key}.damaged")));
        if !place.exists() {
            return Ok(());
        }
        remove(&aside)?;
        fs::rename(&place, &aside).at_path(&place, "cannot put the artifact aside")
    }

    /// Makes the partial folder the artifact: digests, record, rename.
    pub fn finish(&self, stage: &Stage, mut record: StageRecord, digests: &Digests) -> Result<StageRecord> {
        let (kind, key) = (stage.kind(), stage.key.as_str());
        let (partial, place) = (self.partial(kind, key), self.artifact(kind, key));
        record.outputs = digests
            .folder_files(&partial)?
            .into_iter()
            .filter(|(path, ..)| {
                Path::new(path).components().next() != Some(Component::Normal(CHECKPOINT.as_ref()))
            })
            .map(|(path, bytes, blake3)| Output { path, bytes, blake3 })
            .collect();
        let text = serde_json::to_string_pretty(&record)
            .map_err(|e| Error::failure(format!("cannot write the record: {e}")))?;
        write_atomically(&partial.join(RECORD), text.as_bytes())?;
        fs::rename(&partial, &place).at_path(&place, "cannot put the artifact in its place")?;
        // Not before: a kill up to here goes on from the checkpoint.
        remove(&place.join(CHECKPOINT))?;
        Ok(record)
    }

    /// Remembers why a stage failed, beside its checkpoints.
    pub fn fail(&self, kind: StageKind, key: &str, error: &Error) {
        let failure = Failure { error: error.to_string(), exit_code: error.exit_code() };
        let dir = self.partial(kind, key);
        // The failure itself is what the user must see; a second one, of its note, would hide it.
        if let Ok(text) = serde_json::to_string_pretty(&failure) {
            let _ = fs::write(dir.join(FAILED), text);
        }
        if let Some(detail) = error.log_detail() {
            let _ = fs::write(dir.join("log.txt"), detail);
        }
    }

    pub fn failure(&self, kind: StageKind, key: &str) -> Option<Failure> {
        serde_json::from_str(&fs::read_to_string(self.partial(kind, key).join(FAILED)).ok()?).ok()
    }

    /// The stage's failure, if it failed after `time`.
    pub fn failure_since(&self, kind: StageKind, key: &str, time: SystemTime) -> Option<Failure> {
        let failed = fs::metadata(self.partial(kind, key).join(FAILED)).ok()?.modified().ok()?;
        if failed < time { None } else { self.failure(kind, key) }
    }

    /// Cheap: does not verify digests.
    pub fn status(&self, kind: StageKind, key: &str) -> StageStatus {
        if self.artifact(kind, key).join(RECORD).is_file() {
            return StageStatus::Done;
        }
        let partial = self.partial(kind, key);
        if FileLock::is_held(&self.lock_file(kind, key)) {
            StageStatus::Running
        } else if partial.join(FAILED).is_file() {
            StageStatus::Failed
        } else if partial.is_dir() {
            StageStatus::Interrupted
        } else {
            StageStatus::Missing
        }
    }

    /// What the store holds of each kind.
    pub fn counts(&self) -> Result<Vec<Count>> {
        StageKind::ALL
            .into_iter()
            .map(|kind| {
                let mut count = Count { kind, done: 0, begun: 0, bytes: 0 };
                let Ok(entries) = fs::read_dir(self.root.join(kind.as_str())) else { return Ok(count) };
                for entry in entries.flatten().filter(|entry| entry.path().is_dir() && !is_aside(entry)) {
                    if let Ok(text) = fs::read_to_string(entry.path().join(RECORD)) {
                        let record: Option<StageRecord> = serde_json::from_str(&text).ok();
                        count.done += 1;
                        count.bytes += record.map_or(0, |r| r.outputs.iter().map(|o| o.bytes).sum());
                    } else {
                        count.begun += 1;
                    }
                }
                Ok(count)
            })
            .collect()
    }

    /// Records of the finished stages of `kind` that were made from the artifact of this store that `path` lies in, the
    /// oldest first. None where it lies in no store.
    pub fn made_from(path: &Path, kind: StageKind) -> Vec<StageRecord> {
        let Ok(path) = path.canonicalize() else { return Vec::new() };
        let Some(artifact) = path.ancestors().find(|dir| dir.join(RECORD).is_file()) else {
            return Vec::new();
        };
        let (Some(key), Some(root)) = (artifact.file_name(), artifact.ancestors().nth(2)) else {
            return Vec::new();
        };
        let key = key.to_string_lossy();
        let store = Self { root: root.to_owned() };
        let mut records = store.records(kind);
        records.retain(|record| record.inputs.iter().any(|input| input.key == key));
        records.sort_by(|a, b| a.finished.cmp(&b.finished));
        records
    }

    /// Of all finished stages of a kind.
    fn records(&self, kind: StageKind) -> Vec<StageRecord> {
        let Ok(entries) = fs::read_dir(self.root.join(kind.as_str())) else { return Vec::new() };
        let read = |entry: fs::DirEntry| {
            let text = fs::read_to_string(entry.path().join(RECORD)).ok()?;
            serde_json::from_str(&text).ok()
        };
        entries.flatten().filter(|entry| !is_aside(entry)).filter_map(read).collect()
    }

    /// What each cost class took: seconds by the median of the records, which neither a stage that was continued (its last
    /// try is short) nor one that was held up (its time is long) moves much.
    pub fn rates(&self) -> BTreeMap<String, CostRate> {
        let mut all = BTreeMap::<String, Vec<StageRecord>>::new();
        for kind in StageKind::ALL {
            for record in self.records(kind).into_iter().filter(|record| record.cost_units > 0.0) {
                all.entry(record.cost_class.clone()).or_default().push(record);
            }
        }
        let rate = |records: Vec<StageRecord>| {
            let mut seconds: Vec<f64> = records.iter().map(|r| r.seconds / r.cost_units).collect();
            seconds.sort_by(f64::total_cmp);
            let peak_memory = records.iter().filter_map(|record| record.peak_memory).max();
            CostRate { seconds: seconds[seconds.len() / 2], peak_memory }
        };
        all.into_iter().map(|(class, records)| (class, rate(records))).collect()
    }
}

/// Put aside as damaged.
fn is_aside(entry: &fs::DirEntry) -> bool {
    entry.path().extension().is_some_and(|e| e == "damaged")
}

fn refuse(error: Error, help: &str) -> Error {
    Error::input(error.to_string()).help(help)
}

/// Removes a file or folder that may not be there.
fn remove(path: &Path) -> Result<()> {
    let gone = match fs::symlink_metadata(path) {
        Err(_) => return Ok(()),
        Ok(m) if m.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    gone.at_path(path, "cannot remove")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{experiment::Phantom, plan::Work};

    fn stage() -> Stage {
        let work = Work::Phantom(Phantom { patients: 3, size: 64, seed: 0 });
        Stage { key: "k".into(), label: "l".into(), work, inputs: vec![], outside: vec![] }
    }

    fn record() -> StageRecord {
        StageRecord {
            key: "k".into(),
            kind: StageKind::Prepare,
            label: String::new(),
            params: serde_json::Value::Null,
            inputs: vec![],
            outside: vec![],
            outputs: vec![],
            seconds: 1.0,
            finished: String::new(),
            cost_class: "c".into(),
            cost_units: 2.0,
            peak_memory: Some(3),
            device: "cpu".into(),
            threads: 1,
            versions: vec![],
            commit: String::new(),
        }
    }

    #[test]
    fn a_stage_that_was_held_up_does_not_spoil_the_estimate() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let digests = Digests::open(dir.path());
        for (key, seconds) in [("a", 2.0), ("b", 2.4), ("c", 900.0), ("d", 0.1), ("e", 2.2)] {
            store.begin(StageKind::Prepare, key).unwrap();
            let record = StageRecord { key: key.into(), seconds, ..record() };
            store.finish(&Stage { key: key.into(), ..stage() }, record, &digests).unwrap();
        }
        assert_eq!(store.rates()["c"], CostRate { seconds: 1.1, peak_memory: Some(3) });
    }

    #[test]
    fn what_killed_processes_left_goes_and_what_is_held_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let kind = StageKind::Train;
        let _held = store.try_lock(kind, "held").unwrap().unwrap();
        for name in ["left.lock", "left.activity.json", "held.activity.json"] {
            fs::write(dir.path().join("train").join(name), "").unwrap();
        }
        fs::create_dir(dir.path().join("train/left.partial")).unwrap();
        fs::write(dir.path().join(format!(".digests.json.{}", 1 << 30)), "{").unwrap();
        fs::write(dir.path().join(".mine"), "").unwrap();
        store.remove_stale_locks();
        let mut names: Vec<_> =
            fs::read_dir(dir.path().join("train")).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["held.activity.json", "held.lock", "left.partial"]);
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [".mine", "train"]);
    }

    #[test]
    fn record_last_and_damage_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let digests = Digests::open(dir.path());
        let kind = StageKind::Prepare;
        assert!(store.lookup(kind, "k", &digests).unwrap().is_none());
        let lock = store.try_lock(kind, "k").unwrap();
        assert!(lock.is_some() && store.try_lock(kind, "k").unwrap().is_none());
        let partial = store.begin(kind, "k").unwrap();
        fs::create_dir(partial.join(CHECKPOINT)).unwrap();
        fs::write(partial.join("half"), b"x").unwrap();
        // A second try keeps the checkpoint and nothing else.
        store.begin(kind, "k").unwrap();
        assert!(partial.join(CHECKPOINT).is_dir() && !partial.join("half").exists());
        assert_eq!(store.status(kind, "k"), StageStatus::Running);
        drop(lock);
        assert_eq!(store.status(kind, "k"), StageStatus::Interrupted);
        assert!(!dir.path().join("prepare/k.lock").exists());
        fs::write(partial.join("out"), b"result").unwrap();
        store.finish(&stage(), record(), &digests).unwrap();
        assert_eq!(store.status(kind, "k"), StageStatus::Done);
        let found = store.lookup(kind, "k", &digests).unwrap().unwrap();
        assert_eq!(found.outputs.len(), 1);
        assert_eq!(store.rates()["c"].seconds, 0.5);
        let out = store.artifact(kind, "k").join("out");
        fs::write(&out, b"resulT").unwrap();
        let message = store.lookup(kind, "k", &digests).unwrap_err().to_string();
        assert!(message.contains("is not what the stage wrote"), "{message}");
    }
}
