//! What commands print to standard output: text, or one JSON document.

use std::io::Write;

use serde::Serialize;

use crate::error::{Error, Result};

/// To standard output; a reader that has gone away (`| head`) is no error.
pub(super) fn print(text: &str) -> Result<u8> {
    let mut out = std::io::stdout().lock();
    let _ = out
        .write_all(text.as_bytes())
        .and_then(|()| if text.ends_with('\n') { Ok(()) } else { out.write_all(b"\n") });
    Ok(0)
}

pub(super) fn print_json<T: Serialize>(value: &T) -> Result<u8> {
    let text =
        serde_json::to_string_pretty(value).map_err(|e| Error::failure(format!("cannot write JSON: {e}")))?;
    print(&text)
}
