//! Files that appear whole or not at all.

use std::{fs, io::Write, path::Path};

use crate::error::{AtPath, Result};

/// Writes to a temporary file beside the place, flushes it to disk, and renames it.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let write = || {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    // Another machine may have taken the temporary file for one that was left behind.
    let again = |e: std::io::Error| if e.kind() == std::io::ErrorKind::NotFound { write() } else { Err(e) };
    write().or_else(again).at_path(path, "cannot write").inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}
