//! `index.html`: one file that opens offline and holds the whole report.
//!
//! The first screen has the question, the answer and the figure that it is read from ([`summary`]). Everything else is
//! folded away below ([`details`], [`methods`]). The page works without JavaScript.

mod details;
mod markup;
mod methods;
mod summary;

use super::{Figure, ReportInput, comparisons::Compared};
use crate::{
    aggregate::Table,
    error::Result,
    results::Measurement,
    vocabulary::{FigureFormat, Task},
};
#[cfg(test)]
pub(super) use markup::escape;

const STYLE: &str = include_str!("style.css");

/// All that the page is made from.
pub(super) struct PageContent<'a> {
    pub input: &'a ReportInput,
    /// The tidy table.
    pub rows: &'a [Measurement],
    /// Figures, each with its SVG.
    pub figures: &'a [(&'a Figure, String)],
    /// What figures are drawn as.
    pub formats: &'a [FigureFormat],
    pub tables: &'a [Table],
    pub compared: &'a [Compared],
}

impl PageContent<'_> {
    /// The tasks that networks were trained for.
    fn tasks(&self) -> Vec<Task> {
        let has_model = |task: Task| self.input.models.iter().any(|m| m.cell.task == task);
        let has_rows = |task: Task| self.rows.iter().any(|row| row.task == task);
        Task::OF_ARMS.into_iter().filter(|task| has_model(*task) || has_rows(*task)).collect()
    }
}

/// The whole page.
///
/// # Errors
/// A picture cannot be encoded.
pub(super) fn page(content: &PageContent) -> Result<String> {
    let meta = &content.input.meta;
    let title = if meta.title.is_empty() { &meta.name } else { &meta.title };
    let head = summary::head(content)?;
    let details = details::details(content, &head.figures);
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"drawn-by\" content=\"{}\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{}{details}</body>\n</html>\n",
        super::drawn_by(content.formats),
        markup::escape(title),
        head.html,
    ))
}
