//! Where a key of a spec is written, for errors that are found after parsing.

use std::{ops::Range, path::Path};

use crate::error::Error;

/// Where a field stands, for errors that are found after parsing.
pub(super) struct Origin<'a> {
    pub file: &'a Path,
    pub text: &'a str,
    pub sets: &'a [String],
}

pub(super) fn line_of(text: &str, span: Range<usize>) -> u64 {
    text.as_bytes().iter().take(span.start).filter(|&&b| b == b'\n').count() as u64 + 1
}

/// The known name that is most like `found`, where one is like it at all.
pub fn nearest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(found, name), name))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// The dotted key of `KEY=VALUE`.
fn key_of(set: &str) -> &str {
    set.split('=').next().unwrap_or_default().trim()
}

impl Origin<'_> {
    /// Whether a `--set` gives this key, or one below it.
    pub fn sets_within(&self, key: &str) -> bool {
        let below =
            |set: &str| set.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.sets.iter().any(|set| below(key_of(set)))
    }

    /// Puts the place of a dotted key (`arms.0.real_fraction`) on an error about it.
    pub fn place(&self, key: &str, error: Error) -> Error {
        if let Some(set) = self.sets.iter().rev().find(|set| key_of(set) == key) {
            return error.at(format!("--set {set}"));
        }
        let parts: Vec<&str> = key.split('.').collect();
        match toml::de::DeTable::parse(self.text) {
            Ok(table) => match find(table.get_ref(), &parts) {
                Some(span) => error.at_line(self.file, line_of(self.text, span)),
                None => error.at(self.file),
            },
            Err(_) => error.at(self.file),
        }
    }
}

/// The span of the key, or of its nearest parent that is there.
fn find(table: &toml::de::DeTable<'_>, parts: &[&str]) -> Option<Range<usize>> {
    let (first, rest) = parts.split_first()?;
    let (key, value) = table.iter().find(|(key, _)| key.get_ref() == first)?;
    Some(find_in(value, rest).unwrap_or_else(|| key.span()))
}

fn find_in(value: &toml::Spanned<toml::de::DeValue<'_>>, parts: &[&str]) -> Option<Range<usize>> {
    match value.get_ref() {
        toml::de::DeValue::Table(table) => find(table, parts),
        toml::de::DeValue::Array(items) => {
            let (first, rest) = parts.split_first()?;
            let item = items.get(first.parse::<usize>().ok()?)?;
            Some(find_in(item, rest).unwrap_or_else(|| item.span()))
        }
        _ => None,
    }
}
