//! Text files as other programs write them.

use std::path::Path;

use crate::{
    error::{AtPath, Error, Result},
    plain_file,
};

/// Reads a text file that a user or another program wrote: UTF-8 with or without a byte-order mark, else Latin-1, in
/// which old programs write comments.
///
/// # Errors
/// The file cannot be read, or is UTF-16.
pub fn read_text(file: &Path, cannot: &str) -> Result<String> {
    let bytes = plain_file::read(file).at_path(file, cannot)?;
    decode(&bytes).map_err(|e| e.at(file))
}

/// As [`read_text`], of bytes.
pub fn decode(bytes: &[u8]) -> Result<String> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(Error::input("the file is UTF-16 text").help("save it as UTF-8"));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    Ok(match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|&byte| char::from(byte)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_dropped_and_old_encodings_read() {
        for (bytes, text) in [
            (&b"plain"[..], "plain"),
            (b"\xef\xbb\xbfmarked", "marked"),
            ("\u{e9}cho".as_bytes(), "\u{e9}cho"),
            (b"\xe9cho", "\u{e9}cho"),
            (b"", ""),
        ] {
            assert_eq!(decode(bytes).unwrap(), text);
        }
        assert!(decode(b"\xff\xfea\0").unwrap_err().to_string().contains("UTF-16"));
    }
}
