//! Grouping rows by columns, on polars' hash grouping.

use polars::prelude::*;

use crate::{
    error::{Error, Result},
    results::Measurement,
    vocabulary::Task,
};

/// The rows of each combination of values in `keys` (names of [`Measurement`]'s columns), as indices;
/// groups in order of their first row.
pub fn group(rows: &[&Measurement], keys: &[&str]) -> Result<Vec<Vec<usize>>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let fail = |e: PolarsError| Error::failure(format!("cannot group the results: {e}"));
    let columns = keys.iter().map(|&key| column(rows, key)).collect::<Result<Vec<_>>>()?;
    let frame = DataFrame::new(rows.len(), columns).map_err(fail)?;
    let grouped = frame.group_by_stable(keys.iter().copied()).map_err(fail)?;
    Ok(grouped
        .get_groups()
        .iter()
        .map(|group| match group {
            GroupsIndicator::Idx((_, rows)) => rows.iter().map(|&i| i as usize).collect(),
            GroupsIndicator::Slice([first, len]) => (first as usize..(first + len) as usize).collect(),
        })
        .collect())
}

fn column(rows: &[&Measurement], key: &str) -> Result<Column> {
    let text = |field: fn(&Measurement) -> &str| -> Column {
        Column::new(key.into(), rows.iter().map(|row| field(row)).collect::<Vec<&str>>())
    };
    Ok(match key {
        "experiment" => text(|r| &r.experiment),
        "task" => text(|r| &r.task),
        "arm" => text(|r| &r.arm),
        "model" => text(|r| &r.model),
        "split" => text(|r| &r.split),
        "patient" => text(|r| &r.patient),
        "view" => text(|r| &r.view),
        "phase" => text(|r| &r.phase),
        "structure" => text(|r| &r.structure),
        "metric" => text(|r| &r.metric),
        "unit" => text(|r| &r.unit),
        "seed" => Column::new(key.into(), rows.iter().map(|row| row.seed).collect::<Vec<Option<u64>>>()),
        _ => return Err(Error::failure(format!("results have no column `{key}` to group by"))),
    })
}

/// (arm, model) pairs of a task, in order of first appearance.
pub fn arms<'a>(rows: impl IntoIterator<Item = &'a Measurement>, task: Task) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for row in rows.into_iter().filter(|row| row.task == task) {
        if !found.iter().any(|(arm, model)| *arm == row.arm && *model == row.model) {
            found.push((row.arm.clone(), row.model.clone()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_come_in_order_of_their_first_row() {
        let row = |arm: &str, seed| Measurement { arm: arm.into(), seed, ..Default::default() };
        let rows = [row("b", Some(1)), row("a", None), row("b", Some(1)), row("b", None), row("a", None)];
        let rows: Vec<&Measurement> = rows.iter().collect();
        assert_eq!(group(&rows, &["arm", "seed"]).unwrap(), [vec![0, 2], vec![1, 4], vec![3]]);
        assert_eq!(group(&rows, &["arm"]).unwrap(), [vec![0, 2, 3], vec![1, 4]]);
        assert!(group(&[], &["arm"]).unwrap().is_empty());
        assert!(group(&rows, &["colour"]).unwrap_err().to_string().contains("`colour`"));
    }
}
