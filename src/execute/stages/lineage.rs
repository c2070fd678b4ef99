//! From the report's inputs back through the records of the store.

use std::{
    collections::{HashSet, VecDeque},
    path::Path,
};

use super::{Place, report_input::record};
use crate::{
    plan::StageKind,
    report::lineage::{CellLine, Lineage, StageLine},
    store::StageRecord,
};

/// Which stages each cell of the report rests on.
pub(super) fn lineage(place: &Place) -> Lineage {
    let mut lineage = Lineage::default();
    for input in &place.stage.inputs {
        let Some(cell) = cell_of(&input.role) else { continue };
        match lineage.cells.iter_mut().find(|known| known.name() == cell.name()) {
            Some(known) => known.stages.push(input.key.clone()),
            None => lineage.cells.push(CellLine { stages: vec![input.key.clone()], ..cell }),
        }
    }
    // runs/KIND/KEY
    let Some(root) = place.artifacts.values().next().and_then(|dir| dir.parent()?.parent()) else {
        return lineage;
    };
    let mut next: VecDeque<String> = place.stage.inputs.iter().map(|input| input.key.clone()).collect();
    let mut seen = HashSet::new();
    while let Some(key) = next.pop_front() {
        if !seen.insert(key.clone()) {
            continue;
        }
        let Some(record) = find(root, &key) else { continue };
        next.extend(record.inputs.iter().map(|input| input.key.clone()));
        lineage.stages.push(StageLine {
            key,
            kind: record.kind.as_str().to_owned(),
            label: record.label,
            inputs: record.inputs.into_iter().map(|i| (i.role, i.key)).collect(),
            outside: record.outside.into_iter().map(|o| (o.role, o.digest)).collect(),
        });
    }
    lineage
}

fn find(root: &Path, key: &str) -> Option<StageRecord> {
    StageKind::ALL.into_iter().find_map(|kind| record(&root.join(kind.as_str()).join(key)))
}

/// `train/TASK/ARM/MODEL/SEED`, `measure/…` and `generator/WHAT/NAME` tell of a cell; an arm may hold slashes.
fn cell_of(role: &str) -> Option<CellLine> {
    let (what, rest) = role.split_once('/')?;
    let (task, rest) = rest.split_once('/')?;
    let mut cell = CellLine {
        task: task.to_owned(),
        arm: rest.to_owned(),
        model: String::new(),
        seed: None,
        stages: Vec::new(),
    };
    match what {
        "train" | "measure" => {
            let mut ends = rest.rsplitn(3, '/');
            cell.seed = Some(ends.next()?.parse().ok()?);
            cell.model = ends.next()?.to_owned();
            cell.arm = ends.next()?.to_owned();
            Some(cell)
        }
        "generator" => Some(CellLine { task: crate::report::generators::TASK.to_owned(), ..cell }),
        _ => None,
    }
}
