//! Pieces of HTML: text, lists, tables and figures.

use crate::{
    aggregate::{Table, TableCell},
    report::{Figure, PHANTOM},
    vocabulary::FigureFormat,
};

/// Text for HTML, in elements and in quoted attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c => out.push(c),
        }
    }
    out
}

pub(super) fn paragraphs(class: &str, lines: &[String]) -> String {
    lines.iter().map(|line| format!("<p class=\"{class}\">{}</p>\n", escape(line))).collect()
}

/// Empty without items.
pub(super) fn list(items: &[String]) -> String {
    let all: String = items.iter().map(|item| format!("<li>{}</li>\n", escape(item))).collect();
    if items.is_empty() { String::new() } else { format!("<ul>\n{all}</ul>\n") }
}

/// One paragraph per line, where there are several.
fn lines(text: &str) -> String {
    match text.contains('\n') {
        true => text.lines().map(|line| format!("<p>{}</p>", escape(line))).collect(),
        false => escape(text),
    }
}

pub(super) fn pairs(pairs: &[(String, String)]) -> String {
    let rows: String = pairs
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(name), lines(value)))
        .collect();
    format!("<dl>\n{rows}</dl>\n")
}

/// A part of the page that is folded away until somebody opens it.
pub(super) fn folded(class: &str, summary: &str, body: &str) -> String {
    format!("<details class=\"{class}\"><summary>{summary}</summary>\n{body}</details>\n")
}

pub(super) fn table(table: &Table) -> String {
    let class = |i: usize| if table.is_numeric(i) { " class=\"num\"" } else { "" };
    let heads: String = table
        .columns
        .iter()
        .enumerate()
        .map(|(i, column)| format!("<th scope=\"col\"{}>{}</th>", class(i), escape(column)))
        .collect();
    let rows: String = table
        .rows
        .iter()
        .map(|row| {
            let cells: String =
                row.iter().enumerate().map(|(i, cell)| html_cell(cell, table.decimals, class(i))).collect();
            format!("<tr>{cells}</tr>\n")
        })
        .collect();
    let files: Vec<String> = [("md", "Markdown"), ("csv", "CSV"), ("tex", "LaTeX")]
        .iter()
        .map(|(end, name)| format!("<a href=\"tables/{}.{end}\">{name}</a>", escape(&table.name)))
        .collect();
    format!(
        "<section class=\"table\" id=\"table-{}\">\n<h3>{}</h3>\n<p class=\"caption\">{}</p>\n<div class=\"scroll\"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n{}</section>\n",
        escape(&table.name),
        escape(&table.title),
        escape(&table.caption),
        folded(
            "notes",
            "Notes and files",
            &format!("{}<p class=\"files\">{}</p>\n", paragraphs("note", &table.notes), files.join(" · "))
        ),
    )
}

fn html_cell(cell: &TableCell, decimals: usize, class: &str) -> String {
    let (first, second) = cell.parts(decimals);
    let second =
        if second.is_empty() { String::new() } else { format!("<small>{}</small>", escape(&second)) };
    format!("<td{class}>{}{second}</td>", escape(&first))
}

/// An SVG document as a part of the page, where it scales with its column; the file beside the page keeps its size in
/// millimetres.
pub(super) fn inline(svg: &str, class: &str, label: &str, most: f64) -> String {
    let (_, inner) = svg.split_once(" viewBox").unwrap_or(("", svg));
    let inner = inner.trim_end();
    format!(
        "<svg class=\"{class}\" role=\"img\" aria-label=\"{}\" style=\"max-width:{most:.0}px\" preserveAspectRatio=\"xMinYMin\" viewBox{inner}\n",
        escape(label)
    )
}

pub(super) fn figure(figure: &Figure, svg: &str, formats: &[FigureFormat], phantom: bool) -> String {
    format!(
        "<figure id=\"figure-{name}\">\n<h3>{}</h3>\n<div class=\"plot\">{}</div>\n{}</figure>\n",
        escape(&figure.title),
        inline(svg, "drawing", &figure.title, figure.scene.width * 1.78),
        caption(figure, formats, phantom),
        name = escape(&figure.name),
    )
}

/// A figure's caption, and its files.
pub(super) fn caption(figure: &Figure, formats: &[FigureFormat], phantom: bool) -> String {
    let phantom = if phantom { format!(" {PHANTOM}") } else { String::new() };
    let links: Vec<String> = figure
        .files()
        .map(|(name, scene)| {
            let name = escape(&name);
            let width = scene.width / 72.0 * 25.4;
            let links: Vec<String> = formats
                .iter()
                .map(|format| format!("<a href=\"figures/{name}.{format}\">{}</a>", format.label()))
                .collect();
            format!("{width:.0} mm wide: {}", links.join(" · "))
        })
        .collect();
    format!(
        "<figcaption>{}{phantom}</figcaption>\n<p class=\"files\">{}</p>\n",
        escape(&figure.caption),
        links.join("<br>")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped() {
        assert_eq!(escape("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
    }
}
