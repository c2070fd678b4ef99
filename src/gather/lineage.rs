//! From the report's inputs back through the records of the store.

use std::collections::{HashSet, VecDeque};

use super::FinishedPlan;
use crate::{
    cell::Cell,
    report::lineage::{CellLine, Lineage, StageLine},
};

/// Which stages each cell of the report rests on.
pub(super) fn lineage(finished: &FinishedPlan) -> Lineage {
    let mut lineage = Lineage::default();
    for stages in &finished.plan.generators {
        let judges = stages.judged.iter().map(|(_, key)| key);
        let keys = stages.train.iter().chain([&stages.images, &stages.texture]).chain(&stages.distances);
        let stages_of_cell = keys.chain(judges).cloned().collect();
        lineage.cells.push(CellLine { cell: Cell::Generator(stages.cell.clone()), stages: stages_of_cell });
    }
    for stages in &finished.plan.networks {
        let keys = vec![stages.train.clone(), stages.measure.clone()];
        lineage.cells.push(CellLine { cell: Cell::Network(stages.cell.clone()), stages: keys });
    }
    let report = finished.plan.report();
    let mut next: VecDeque<String> =
        report.into_iter().flat_map(|stage| &stage.inputs).map(|input| input.key.clone()).collect();
    let mut seen = HashSet::new();
    while let Some(key) = next.pop_front() {
        if !seen.insert(key.clone()) {
            continue;
        }
        let Some(record) = finished.record(&key) else { continue };
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
