//! Files that appear whole or not at all.

use std::{fs, io::Write, path::Path, time::Duration};

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

/// A temporary file of this age is nobody's any more.
const ABANDONED: Duration = Duration::from_secs(60);

/// The name of the file that a process was writing to `path` beside it when it was killed: `plan.svg` of
/// `.plan.svg.12180`. None of files of another name, and of those that a process may be about to rename.
pub fn abandoned(path: &Path) -> Option<&str> {
    let (name, process) = path.file_name()?.to_str()?.strip_prefix('.')?.rsplit_once('.')?;
    let is_number = !process.is_empty() && process.bytes().all(|b| b.is_ascii_digit());
    let age = fs::metadata(path).and_then(|m| m.modified()).ok().and_then(|time| time.elapsed().ok());
    // A process of another machine, which is not seen here, writes the file again.
    (is_number && (age.is_some_and(|age| age > ABANDONED) || has_ended(process))).then_some(name)
}

/// Whether this machine has no process of this number, where that can be seen.
fn has_ended(process: &str) -> bool {
    Path::new("/proc/self").exists() && !Path::new("/proc").join(process).exists()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn files_of_processes_that_are_gone_are_known_by_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let ended = 1u32 << 30;
        let file = |name: String| {
            let path = dir.path().join(name);
            fs::write(&path, "half").unwrap();
            path
        };
        assert_eq!(abandoned(&file(format!(".a.svg.{ended}"))), Some("a.svg"));
        let running = file(format!(".a.svg.{}", std::process::id()));
        assert_eq!(abandoned(&running), None);
        let long_ago = SystemTime::now() - 2 * ABANDONED;
        fs::File::options().write(true).open(&running).unwrap().set_modified(long_ago).unwrap();
        assert_eq!(abandoned(&running), Some("a.svg"));
        for name in [format!("a.svg.{ended}"), ".a.svg.".into(), ".a.svg.12x".into(), ".a".into(), "a".into()]
        {
            assert_eq!(abandoned(&file(name)), None);
        }
        assert_eq!(abandoned(dir.path()), None);
    }
}
