//! A table for a reader, as Markdown, CSV and LaTeX (booktabs).

use super::Estimate;
use crate::error::{Error, Result};

/// A table of more columns is set smaller in LaTeX, to fit a page.
const WIDE: usize = 8;

/// One cell, kept as numbers so that each format can show it its own way.
#[derive(Debug, Clone, PartialEq)]
pub enum TableCell {
    Text(String),
    Count(u64),
    Number {
        value: f64,
        decimals: usize,
    },
    /// A p-value: three decimals, or `< 0.001`.
    P(f64),
    /// A mean with its spread over seeds and its interval over patients, where there are any.
    Estimate {
        mean: f64,
        sd: Option<f64>,
        interval: Option<(f64, f64)>,
        undefined: u64,
    },
    /// There is nothing to say.
    Empty,
}

impl From<&str> for TableCell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for TableCell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Estimate> for TableCell {
    fn from(e: Estimate) -> Self {
        Self::Estimate { mean: e.mean, sd: e.sd, interval: e.interval, undefined: e.undefined }
    }
}

impl TableCell {
    /// The estimate and its interval as text: (`0.912 ± 0.004`, `[0.901, 0.922]`); the second is empty
    /// where there is none. Other cells are all in the first.
    pub fn parts(&self, decimals: usize) -> (String, String) {
        match self {
            Self::Text(text) => (text.clone(), String::new()),
            Self::Count(n) => (n.to_string(), String::new()),
            Self::Number { value, decimals } => (number(*value, *decimals), String::new()),
            Self::P(p) if *p < 1e-3 => ("< 0.001".to_owned(), String::new()),
            Self::P(p) => (number(*p, 3), String::new()),
            Self::Empty => (String::new(), String::new()),
            Self::Estimate { mean, sd, interval, undefined } => {
                let mut first = number(*mean, decimals);
                if let Some(sd) = sd.filter(|_| !mean.is_nan()) {
                    first += &format!(" ± {}", number(sd, decimals));
                }
                let mut second = interval
                    .map(|(low, high)| format!("[{}, {}]", number(low, decimals), number(high, decimals)))
                    .unwrap_or_default();
                if *undefined > 0 {
                    second += if second.is_empty() { "" } else { " " };
                    second += &format!("({undefined} undefined)");
                }
                (first, second)
            }
        }
    }

    pub fn is_numeric(&self) -> bool {
        !matches!(self, Self::Text(_))
    }
}

/// A number with fixed decimals and a true minus sign; `–` where it is undefined.
pub fn number(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let size = format!("{:.decimals$}", value.abs());
    if value < 0.0 && size.contains(|c| ('1'..='9').contains(&c)) { format!("−{size}") } else { size }
}

/// A table with its words. `name` is the file's stem.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    pub name: String,
    pub title: String,
    pub caption: String,
    pub columns: Vec<String>,
    pub rows: Vec<Vec<TableCell>>,
    pub notes: Vec<String>,
    /// Decimals of the estimates.
    pub decimals: usize,
}

impl Table {
    /// True where every cell of the column that says anything is a number (or there is none).
    pub fn is_numeric(&self, column: usize) -> bool {
        self.rows.iter().filter_map(|row| row.get(column)).all(TableCell::is_numeric)
    }

    pub fn to_markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let heads: Vec<String> = self.columns.iter().map(|c| escape_markdown(c)).collect();
        let rules: Vec<String> =
            (0..heads.len()).map(|i| if self.is_numeric(i) { "---:" } else { ":---" }.to_owned()).collect();
        let mut text =
            format!("**{}.** {}\n\n", escape_markdown(&self.title), escape_markdown(&self.caption));
        text += &line(&heads);
        text += &line(&rules);
        for row in &self.rows {
            text += &line(&row.iter().map(|cell| escape_markdown(&self.joined(cell))).collect::<Vec<_>>());
        }
        for note in &self.notes {
            text += &format!("\n{}\n", escape_markdown(note));
        }
        text
    }

    fn joined(&self, cell: &TableCell) -> String {
        let (first, second) = cell.parts(self.decimals);
        if second.is_empty() { first } else { format!("{first} {second}") }
    }

    /// An estimate fills several columns: `X`, `X sd`, `X low`, `X high`, `X undefined`, in full precision.
    pub fn to_csv(&self) -> Result<String> {
        let fail = |e: csv::Error| Error::failure(format!("cannot write the table {}: {e}", self.name));
        let wide: Vec<bool> = (0..self.columns.len())
            .map(|i| self.rows.iter().any(|row| matches!(row.get(i), Some(TableCell::Estimate { .. }))))
            .collect();
        let mut writer = csv::Writer::from_writer(Vec::new());
        let mut heads = Vec::new();
        for (column, wide) in self.columns.iter().zip(&wide) {
            heads.push(column.clone());
            if *wide {
                heads.extend(["sd", "low", "high", "undefined"].map(|part| format!("{column} {part}")));
            }
        }
        writer.write_record(&heads).map_err(fail)?;
        let show = |v: Option<f64>| {
            v.filter(|v| v.is_finite()).map(|v| round_trip(v, self.decimals + 3)).unwrap_or_default()
        };
        for row in &self.rows {
            let mut cells = Vec::new();
            for (cell, wide) in row.iter().zip(&wide) {
                match cell {
                    TableCell::Estimate { mean, sd, interval, undefined } => cells.extend([
                        show(Some(*mean)),
                        show(*sd),
                        show(interval.map(|i| i.0)),
                        show(interval.map(|i| i.1)),
                        undefined.to_string(),
                    ]),
                    other => {
                        cells.push(match other {
                            TableCell::Number { value, decimals } => {
                                if value.is_finite() {
                                    round_trip(*value, decimals + 3)
                                } else {
                                    String::new()
                                }
                            }
                            TableCell::P(p) => format!("{p:.4e}"),
                            other => other.parts(self.decimals).0,
                        });
                        cells.extend(std::iter::repeat_n(String::new(), if *wide { 4 } else { 0 }));
                    }
                }
            }
            writer.write_record(&cells).map_err(fail)?;
        }
        let bytes = writer
            .into_inner()
            .map_err(|e| Error::failure(format!("cannot write the table {}: {e}", self.name)))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A `table` environment; needs `\usepackage{booktabs}` and nothing else.
    pub fn to_latex(&self) -> String {
        let columns: String =
            (0..self.columns.len()).map(|i| if self.is_numeric(i) { 'r' } else { 'l' }).collect();
        let heads: Vec<String> = self.columns.iter().map(|c| escape_latex(c)).collect();
        let size =
            if self.columns.len() > WIDE { "\\scriptsize\n\\setlength{\\tabcolsep}{3pt}" } else { "\\small" };
        let mut text = format!(
            "\\begin{{table*}}\n\\centering\n{size}\n\\caption{{\\textbf{{{}.}} {}}}\n\\label{{tab:{}}}\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n{} \\\\\n\\midrule\n",
            escape_latex(&self.title),
            escape_latex(&self.caption),
            self.name.replace('_', "-"),
            heads.join(" & "),
        );
        for row in &self.rows {
            let cells: Vec<String> = row.iter().map(|cell| self.latex_cell(cell)).collect();
            text += &format!("{} \\\\\n", cells.join(" & "));
        }
        text += "\\bottomrule\n\\end{tabular}\n";
        if !self.notes.is_empty() {
            let notes: Vec<String> = self.notes.iter().map(|note| escape_latex(note)).collect();
            text += &format!("\n\\smallskip\n{{\\footnotesize {}\\par}}\n", notes.join(" "));
        }
        text + "\\end{table*}\n"
    }

    fn latex_cell(&self, cell: &TableCell) -> String {
        let (first, second) = cell.parts(self.decimals);
        if !matches!(cell, TableCell::Estimate { .. }) {
            return escape_latex(&first);
        }
        if second.is_empty() {
            return escape_latex(&first);
        }
        // Two lines in one cell: \shortstack needs no package.
        format!("\\shortstack[r]{{{}\\\\{{\\scriptsize {}}}}}", escape_latex(&first), escape_latex(&second))
    }
}

/// At most `decimals` decimals, without trailing zeros, so that bytes do not hang on the last bit of a sum.
fn round_trip(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

fn escape_markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '|' | '*' | '_' | '`' => out.extend(['\\', c]),
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '&' => out += "&amp;",
            '\n' | '\r' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// Text for LaTeX: specials escaped, and the signs that tables use in their LaTeX form.
pub fn escape_latex(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', c]),
            '\\' => out += "\\textbackslash{}",
            '~' => out += "\\textasciitilde{}",
            '^' => out += "\\textasciicircum{}",
            '<' => out += "\\textless{}",
            '>' => out += "\\textgreater{}",
            '"' => out += "''",
            '±' => out += "$\\pm$",
            '×' => out += "$\\times$",
            '≤' => out += "$\\leq$",
            '≥' => out += "$\\geq$",
            '−' => out += "$-$",
            '–' => out += "--",
            '—' => out += "---",
            '…' => out += "\\ldots{}",
            '\n' | '\r' => out.push(' '),
            // `[` after `\\` would be taken for its argument.
            '[' => out += "{[}",
            ']' => out += "{]}",
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let estimate = |mean, sd, interval, undefined| TableCell::Estimate { mean, sd, interval, undefined };
        Table {
            name: "dice".into(),
            title: "Dice".into(),
            caption: "50 % of R&D".into(),
            columns: vec!["Arm".into(), "n".into(), "Mean".into()],
            rows: vec![
                vec![
                    "real + 25% a_b|c".into(),
                    TableCell::Count(40),
                    estimate(0.91234, Some(0.004), Some((0.901, 0.922)), 0),
                ],
                vec!["<x>".into(), TableCell::Empty, estimate(f64::NAN, None, None, 3)],
            ],
            notes: vec!["One seed.".into()],
            decimals: 3,
        }
    }

    #[test]
    fn numbers_and_p_values_are_short_to_read_and_exact_in_csv() {
        let mut table = table();
        table.columns = vec!["r".into(), "p".into()];
        let row = |value, p| vec![TableCell::Number { value, decimals: 2 }, TableCell::P(p)];
        table.rows = vec![row(-0.12345, 0.0312), row(f64::NAN, 1.23456e-7)];
        assert!(table.to_markdown().contains("| −0.12 | 0.031 |\n| – | &lt; 0.001 |"));
        assert_eq!(table.to_csv().unwrap(), "r,p\n-0.12345,3.1200e-2\n,1.2346e-7\n");
    }

    #[test]
    fn markdown() {
        let text = table().to_markdown();
        assert!(text.contains("| real + 25% a\\_b\\|c | 40 | 0.912 ± 0.004 [0.901, 0.922] |\n"), "{text}");
        assert!(text.contains("| &lt;x&gt; |  | – (3 undefined) |"), "{text}");
        assert!(text.contains("| :--- | ---: | ---: |"), "{text}");
    }

    #[test]
    fn csv() {
        assert_eq!(
            table().to_csv().unwrap(),
            "Arm,n,Mean,Mean sd,Mean low,Mean high,Mean undefined\n\
             real + 25% a_b|c,40,0.91234,0.004,0.901,0.922,0\n\
             <x>,,,,,,3\n"
        );
    }

    #[test]
    fn latex() {
        let text = table().to_latex();
        let row = "real + 25\\% a\\_b|c & 40 & \\shortstack[r]{0.912 $\\pm$ 0.004\\\\{\\scriptsize {[}0.901, 0.922{]}}} \\\\";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("\\begin{tabular}{lrr}") && text.contains("50 \\% of R\\&D"), "{text}");
        assert!(text.contains("\\textless{}x\\textgreater{} &  & "), "{text}");
        assert_eq!([-0.25, -0.0004, f64::NAN].map(|v| number(v, 3)), ["−0.250", "0.000", "–"]);
        assert_eq!(
            escape_latex("a\\b~^{}#$"),
            "a\\textbackslash{}b\\textasciitilde{}\\textasciicircum{}\\{\\}\\#\\$"
        );
    }
}
