//! Everything that is needed to continue exactly: weights, moments, statistics, the best so far, and the
//! curves, in one safetensors file that is replaced atomically.

use std::{collections::HashMap, path::Path};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tch::Tensor;

use super::parameters::Snapshot;
use crate::{
    error::{AtPath, Error, Result},
    nn::tensor_file::{self, TensorFile},
    results::CurvePoint,
};

const FILE: &str = "last.safetensors";

/// The state's name in the file; checkpoints of earlier versions have it too.
const STATE: &str = "standing";

/// A task's training between two rounds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainingState {
    /// Rounds and optimizer steps done.
    pub round: u64,
    pub step: u64,
    pub best: Option<BestCheckpoint>,
}

/// The best checkpoint so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BestCheckpoint {
    pub step: u64,
    pub value: f64,
}

/// All that a training continues from. `state` counts its steps and whatever else its loop keeps.
pub struct Checkpoint<S> {
    pub state: S,
    pub curves: Vec<CurvePoint>,
    pub now: Snapshot,
    pub moments: Vec<Tensor>,
    /// The weights of the best validation, or the averaged ones.
    pub kept: Option<Snapshot>,
    /// Of a task's training with averaged weights: their average so far, laid out as the master.
    pub average: Option<Tensor>,
}

fn put(tensors: &mut Vec<(String, Tensor)>, prefix: &str, snapshot: &Snapshot) {
    tensors.push((format!("{prefix}.master"), snapshot.master.shallow_clone()));
    tensors.extend(
        snapshot.buffers.iter().map(|(name, b)| (format!("{prefix}.buffer.{name}"), b.shallow_clone())),
    );
}

fn take(tensors: &mut HashMap<String, Tensor>, prefix: &str) -> Option<Snapshot> {
    let master = tensors.remove(&format!("{prefix}.master"))?;
    let start = format!("{prefix}.buffer.");
    let names: Vec<String> = tensors.keys().filter(|name| name.starts_with(&start)).cloned().collect();
    let buffers = names
        .into_iter()
        .filter_map(|name| Some((name[start.len()..].to_owned(), tensors.remove(&name)?)))
        .collect();
    Some(Snapshot { master, buffers })
}

impl<S: Serialize + DeserializeOwned> Checkpoint<S> {
    /// Replaces the checkpoint in `dir`.
    pub fn write(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir).at_path(dir, "cannot make the folder")?;
        let mut tensors = Vec::new();
        put(&mut tensors, "now", &self.now);
        if let Some(kept) = &self.kept {
            put(&mut tensors, "kept", kept);
        }
        tensors.extend(self.average.iter().map(|average| ("average".to_owned(), average.shallow_clone())));
        tensors
            .extend(self.moments.iter().enumerate().map(|(i, m)| (format!("moment.{i}"), m.shallow_clone())));
        let state = serde_json::to_string(&self.state)
            .map_err(|e| Error::failure(format!("cannot write the checkpoint: {e}")))?;
        let metadata = HashMap::from([
            (STATE.to_owned(), state),
            ("curves".to_owned(), crate::results::to_csv(&self.curves)?),
        ]);
        let (next, place) = (dir.join("next.safetensors"), dir.join(FILE));
        tensor_file::write_with(&next, &tensors, metadata)?;
        std::fs::rename(&next, &place).at_path(&place, "cannot put the checkpoint in its place")
    }

    /// The checkpoint in `dir`, if there is one, of a master like `master`.
    ///
    /// # Errors
    /// It is damaged, or another version of the program laid the weights out otherwise.
    pub fn read(dir: &Path, master: &Tensor) -> Result<Option<Self>> {
        let file = dir.join(FILE);
        if !file.exists() {
            return Ok(None);
        }
        let damaged = || Error::failure("the checkpoint is damaged").at(&file);
        let opened = TensorFile::open(&file).map_err(|_| damaged())?;
        let mut tensors = HashMap::new();
        for entry in opened.entries() {
            tensors.insert(entry.name.clone(), opened.read(entry)?);
        }
        let text = |name: &str| opened.metadata().get(name).ok_or_else(damaged);
        let state = serde_json::from_str(text(STATE)?).map_err(|_| damaged())?;
        let curves = crate::results::parse_csv(text("curves")?, &file)?;
        let now = take(&mut tensors, "now").ok_or_else(damaged)?;
        if now.master.size() != master.size() {
            return Err(Error::failure("the checkpoint is another version's").at(&file));
        }
        let kept = take(&mut tensors, "kept");
        let moments = (0..).map_while(|i| tensors.remove(&format!("moment.{i}"))).collect();
        let average = tensors.remove("average");
        Ok(Some(Self { state, curves, now, moments, kept, average }))
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn a_checkpoint_of_another_layout_is_refused() {
        let zeros = |count: i64| Tensor::zeros([count], (Kind::Float, Device::Cpu));
        let dir = tempfile::tempdir().unwrap();
        assert!(Checkpoint::<u64>::read(dir.path(), &zeros(64)).unwrap().is_none());
        let now = Snapshot { master: zeros(64), buffers: HashMap::new() };
        let checkpoint =
            Checkpoint { state: 7u64, curves: vec![], now, moments: vec![], kept: None, average: None };
        checkpoint.write(dir.path()).unwrap();
        assert_eq!(Checkpoint::<u64>::read(dir.path(), &zeros(64)).unwrap().unwrap().state, 7);
        let error = Checkpoint::<u64>::read(dir.path(), &zeros(65)).err().unwrap().to_string();
        assert!(error.contains("another version's") && error.contains("safetensors"), "{error}");
    }
}
