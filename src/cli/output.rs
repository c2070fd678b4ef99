//! What commands print to standard output: text, or one JSON document.

use std::io::Write;

use serde::Serialize;

use crate::error::{Error, Result};

/// Prints to standard output. It is not an error when the reader has gone away, as `| head` does.
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
