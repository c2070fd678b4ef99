//! The configuration of one part of a diffusers folder (`config.json`, `scheduler_config.json`): every
//! value is either understood or refused by name, none is silently ignored.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{
    error::{AtPath, Error, Result},
    plain_file,
};

/// A part's configuration, and which of its keys have been looked at.
#[derive(Debug)]
pub struct Config {
    file: PathBuf,
    map: Map<String, Value>,
    seen: RefCell<BTreeSet<String>>,
}

impl Config {
    /// Reads a JSON object. Python's `Infinity`, `-Infinity` and `NaN`, which JSON itself does not
    /// have, are read as the strings `"Infinity"`, `"-Infinity"` and `"NaN"`.
    ///
    /// # Errors
    /// The file cannot be read, or is not a JSON object.
    pub fn read(file: &Path) -> Result<Self> {
        let text = plain_file::read_to_string(file).at_path(file, "cannot read the configuration")?;
        Self::parse(&text, file)
    }

    /// [`Config::read`] for a text that came from `file`.
    pub fn parse(text: &str, file: &Path) -> Result<Self> {
        let value: Value = serde_json::from_str(&quote_non_finite(text)).map_err(|e| {
            Error::input(format!("not JSON: {e}"))
                .at_line(file, e.line() as u64)
                .help("copy the folder again")
        })?;
        match value {
            Value::Object(map) => Ok(Self { file: file.to_owned(), map, seen: RefCell::default() }),
            _ => Err(Error::input("not a JSON object").at(file).help("copy the folder again")),
        }
    }

    /// The file that it was read from.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// `_class_name`, the Python class that wrote it.
    pub fn class(&self) -> Option<&str> {
        self.map.get("_class_name")?.as_str()
    }

    /// The value of `key`; `default` where the key is missing, as in Python. A JSON null counts as a
    /// value: take an `Option` where upstream's parameter may be `None`.
    ///
    /// # Errors
    /// The value has another type.
    pub fn get<T: DeserializeOwned>(&self, key: &str, default: T) -> Result<T> {
        self.seen.borrow_mut().insert(key.to_owned());
        let Some(value) = self.map.get(key) else { return Ok(default) };
        T::deserialize(value).map_err(|e| {
            Error::input(format!("`{key}` is {value}: {e}"))
                .at(&self.file)
                .help("compare the file with the one that diffusers or transformers writes")
        })
    }

    /// Puts a value in the place of what the file says, or leaves out.
    pub fn set(&mut self, key: &str, value: Value) {
        self.map.insert(key.to_owned(), value);
    }

    /// Refuses every value of `key` but the `supported` ones; a missing key is fine where upstream's
    /// default is supported, so the first of `supported` must be that default.
    pub fn only<T: Into<Value> + Clone>(&self, key: &str, supported: &[T]) -> Result<()> {
        self.seen.borrow_mut().insert(key.to_owned());
        let Some(value) = self.map.get(key) else { return Ok(()) };
        let supported: Vec<Value> = supported.iter().cloned().map(Into::into).collect();
        let same = |a: &Value, b: &Value| match (a.as_f64(), b.as_f64()) {
            // 1 and 1.0 are one value to Python.
            (Some(a), Some(b)) => a == b,
            _ => a == b,
        };
        if supported.iter().any(|s| same(s, value)) {
            return Ok(());
        }
        let names: Vec<String> = supported.iter().map(Value::to_string).collect();
        Err(self.unsupported(key, &format!("supported: {}", names.join(", "))))
    }

    /// Marks keys that decide nothing of what is computed here (training-time or bookkeeping values).
    pub fn ignore(&self, keys: &[&str]) {
        self.seen.borrow_mut().extend(keys.iter().map(|k| (*k).to_owned()));
    }

    /// The error for a value of `key` that is understood but not supported.
    pub fn unsupported(&self, key: &str, help: &str) -> Error {
        let value = self.map.get(key).unwrap_or(&Value::Null);
        Error::input(format!("`{key}` = {value} is not supported")).at(&self.file).help(help)
    }

    /// To be called last: refuses, by name, a key that nothing has looked at. Keys that begin with an
    /// underscore are diffusers' own bookkeeping.
    pub fn finish(&self) -> Result<()> {
        let seen = self.seen.borrow();
        match self.map.keys().find(|key| !key.starts_with('_') && !seen.contains(*key)) {
            Some(key) => {
                Err(self
                    .unsupported(key, "no part of this program knows this key: it cannot be ignored safely"))
            }
            None => Ok(()),
        }
    }
}

/// Puts quotes around `Infinity`, `-Infinity` and `NaN` outside strings.
fn quote_non_finite(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut in_string) = (text, false);
    while let Some(c) = rest.chars().next() {
        let word = ["-Infinity", "Infinity", "NaN"].into_iter().find(|w| !in_string && rest.starts_with(w));
        if let Some(word) = word {
            out.push('"');
            out.push_str(word);
            out.push('"');
            rest = &rest[word.len()..];
            continue;
        }
        let mut taken = c.len_utf8();
        if in_string && c == '\\' {
            taken += rest[taken..].chars().next().map_or(0, char::len_utf8);
        } else if c == '"' {
            in_string = !in_string;
        }
        out.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("unet/config.json")).unwrap()
    }

    #[test]
    fn every_key_is_understood_or_refused_by_name() {
        let c = config(r#"{"_class_name": "X", "a": 1, "b": "two", "odd": [3]}"#);
        assert_eq!(
            (c.class(), c.get("a", 0i64).unwrap(), c.get("missing", 7i64).unwrap()),
            (Some("X"), 1, 7)
        );
        assert!(c.only("a", &[1.0]).is_ok());
        let refused = c.only("b", &["one"]).unwrap_err().to_string();
        assert!(refused.contains("unet/config.json") && refused.contains("`b` = \"two\""), "{refused}");
        assert!(c.get("b", 0i64).unwrap_err().to_string().contains("`b`"));
        assert!(c.finish().unwrap_err().to_string().contains("`odd` = [3]"));
        c.ignore(&["odd"]);
        c.finish().unwrap();
    }

    #[test]
    fn pythons_infinities_are_read_but_not_inside_strings() {
        let c = config(r#"{"low": -Infinity, "high":Infinity, "text": "NaN \" -Infinity"}"#);
        assert_eq!(c.get("low", String::new()).unwrap(), "-Infinity");
        assert_eq!(c.get("high", String::new()).unwrap(), "Infinity");
        assert_eq!(c.get("text", String::new()).unwrap(), "NaN \" -Infinity");
    }

    #[test]
    fn a_file_that_is_not_json_says_where() {
        let error = Config::parse("{\n\"a\": }", Path::new("config.json")).unwrap_err();
        assert!(error.to_string().contains("config.json:2"), "{error}");
    }
}
