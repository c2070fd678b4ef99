//! The arms' scores, one below the other, where no arm is compared with another.

use std::collections::BTreeMap;

use super::{
    Figure, TaskModel,
    axes::{NAMED, reading},
    dots::{DotPlot, DotRow},
    scene::{DOUBLE, SINGLE},
};
use crate::{
    aggregate::{Score, is_image, reported_split, stats},
    results::Measurement,
    vocabulary::{Metric, Structure},
};

/// None without a score.
pub(super) fn figure(rows: &[Measurement], of: &TaskModel<'_>, score: &Score) -> Option<Figure> {
    let split = reported_split(rows, of.task)?;
    let estimates: Vec<_> =
        of.arms.iter().filter_map(|arm| Some((arm, score.estimate(rows, &split, arm, of.model)?))).collect();
    let seeds = |arm: &str| -> Vec<f64> {
        let mut seeds: BTreeMap<Option<u64>, Vec<f64>> = BTreeMap::new();
        let structure = if score.structures.is_empty() { None } else { Some(Structure::MEAN) };
        rows.iter()
            .filter(|r| r.task == of.task && r.model == of.model && r.arm == arm && r.split == split)
            .filter(|r| r.metric == score.metric && is_image(r) && structure.is_none_or(|s| r.structure == s))
            .for_each(|row| seeds.entry(row.seed).or_default().push(row.value));
        seeds.values().map(|values| stats::mean(values)).collect()
    };
    let name = if score.structures.is_empty() {
        score.label().to_owned()
    } else {
        format!("Mean {}", score.label())
    };
    let n = super::n_of(estimates.iter().map(|e| e.1.patients), estimates.iter().map(|e| e.1.seeds));
    let plot = DotPlot {
        label: format!("{name} ({split}){}", reading(score.metric.direction())),
        n: n.clone(),
        decimals: score.metric.decimals(),
        is_logarithmic: false,
        rows: estimates
            .iter()
            .map(|(arm, e)| DotRow {
                name: (*arm).clone(),
                value: e.mean,
                interval: e.interval,
                seeds: if e.seeds > 1 { seeds(arm) } else { Vec::new() },
                look: NAMED,
            })
            .collect(),
    };
    if plot.rows.is_empty() {
        return None;
    }
    let what =
        if score.metric == Metric::Correct { "scores".into() } else { format!("{}_scores", score.metric) };
    Some(Figure {
        name: of.file(&what),
        title: of.title("scores of the arms"),
        caption: format!(
            "{name} on the {split} patients ({n}). Point: mean over images, then over seeds. Bar: 95 % bootstrap interval over patients. Ticks: single seeds. No arm is compared with another."
        ),
        scene: plot.draw(DOUBLE),
        narrow: Some(plot.draw(SINGLE)),
        head: Some(plot.draw(super::HEAD)),
    })
}
