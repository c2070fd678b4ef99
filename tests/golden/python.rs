//! A Python to compare with.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

pub fn with_diffusers() -> Option<PathBuf> {
    with("diffusers", "import diffusers, transformers")
}

/// A Python in which `import` runs: `SYNECHO_PYTHON`, or the one that `just golden` makes, or `python3`. Says
/// so where there is none, past the test harness, which keeps what `println!` writes.
pub fn with(what: &str, import: &str) -> Option<PathBuf> {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/golden-python/bin/python");
    let named = std::env::var_os("SYNECHO_PYTHON").map(PathBuf::from);
    let found = named.into_iter().chain([made, "python3".into()]).find(|python| {
        let tried = Command::new(python).args(["-c", import]).output();
        tried.is_ok_and(|out| out.status.success())
    });
    if found.is_none() {
        let words =
            format!("skipped: a comparison with {what}, which no Python here has; `just golden` makes one");
        let _ = writeln!(std::io::stderr(), "{words}");
    }
    found
}
