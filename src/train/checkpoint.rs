//! Everything that is needed to go on exactly: weights, moments, statistics, the best so far, and the
//! curves, in one safetensors file that is replaced atomically.

use std::{collections::HashMap, path::Path};

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::parameters::Snapshot;
use crate::{
    error::{AtPath, Error, Result},
    nn::weights,
    results::CurvePoint,
    store::write_atomically,
};

const FILE: &str = "last.safetensors";

/// Where a run stands between two epochs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Epochs and optimizer steps done.
    pub epoch: usize,
    pub step: u64,
    pub best: Option<Best>,
}

/// The checkpoint that was chosen so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    pub epoch: usize,
    pub step: u64,
    pub value: f64,
}

pub struct Checkpoint {
    pub standing: Standing,
    pub curves: Vec<CurvePoint>,
    pub now: Snapshot,
    pub moments: Vec<Tensor>,
    pub best: Option<Snapshot>,
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

impl Checkpoint {
    /// Replaces the checkpoint in `dir`.
    pub fn write(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir).at_path(dir, "cannot make the folder")?;
        let mut tensors = Vec::new();
        put(&mut tensors, "now", &self.now);
        if let Some(best) = &self.best {
            put(&mut tensors, "best", best);
        }
        tensors
            .extend(self.moments.iter().enumerate().map(|(i, m)| (format!("moment.{i}"), m.shallow_clone())));
        let standing = serde_json::to_string(&self.standing)
            .map_err(|e| Error::failure(format!("cannot write the checkpoint: {e}")))?;
        let metadata =
            vec![("standing".into(), standing), ("curves".into(), crate::results::to_csv(&self.curves)?)];
        write_atomically(&dir.join(FILE), &weights::to_bytes(&tensors, metadata)?)
    }

    /// The checkpoint in `dir`, if there is one.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let file = dir.join(FILE);
        if !file.exists() {
            return Ok(None);
        }
        let damaged = || Error::failure("the checkpoint is damaged").at(&file);
        let bytes = std::fs::read(&file).at_path(&file, "cannot read the checkpoint")?;
        let (mut tensors, metadata) = weights::from_bytes(&bytes, &file).map_err(|_| damaged())?;
        let standing =
            metadata.get("standing").and_then(|t| serde_json::from_str(t).ok()).ok_or_else(damaged)?;
        let curves = crate::results::parse_csv(metadata.get("curves").ok_or_else(damaged)?, &file)?;
        let now = take(&mut tensors, "now").ok_or_else(damaged)?;
        let best = take(&mut tensors, "best");
        let moments = (0..).map_while(|i| tensors.remove(&format!("moment.{i}"))).collect();
        Ok(Some(Self { standing, curves, now, moments, best }))
    }
}
