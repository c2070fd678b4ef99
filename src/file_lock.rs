//! Locks between processes: a file that one process holds locked. The system releases it when the process ends, however
//! it ends.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::error::{AtPath, Error, Result};

/// What to do where a file system has no locks.
const NO_LOCKS: &str = "choose a folder on a local disk with --store DIR or SYNECHO_STORE; otherwise have the file \
system mounted with locks (NFS: a running lock service; Lustre: -o flock)";

/// A lock that is held. Its file is removed when it is released.
#[derive(Debug)]
pub struct FileLock {
    file: File,
    path: PathBuf,
}

impl FileLock {
    /// Locks the file at `path`, which is created where it is missing; None while another process holds it.
    ///
    /// # Errors
    /// The file cannot be created, or its file system has no locks.
    pub fn try_take(path: &Path) -> Result<Option<Self>> {
        loop {
            let opened = OpenOptions::new().create(true).truncate(false).write(true).open(path);
            let file = opened.at_path(path, "cannot open the lock")?;
            match file.try_lock() {
                Ok(()) if is_at(&file, path) => return Ok(Some(Self { file, path: path.to_owned() })),
                // Its holder removed the file after it was opened here: the next process creates another.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(e)) => {
                    let problem = format!("the file system of this folder cannot lock files: {e}");
                    let folder = path.parent().unwrap_or(path);
                    return Err(Error::input(problem).at(folder).help(NO_LOCKS));
                }
            }
        }
    }

    /// Whether another process holds the lock. Creates nothing.
    pub fn is_held(path: &Path) -> bool {
        let opened = OpenOptions::new().write(true).open(path);
        opened.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(own), Ok(there)) = (file.metadata(), fs::metadata(path)) else { return false };
    (own.dev(), own.ino()) == (there.dev(), there.ino())
}

impl Drop for FileLock {
    /// Removes the file before it is unlocked: whoever locks it afterwards sees that it is gone.
    fn drop(&mut self) {
        // A user may have removed it, and another process created its own.
        if is_at(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn a_lock_is_held_by_one_and_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k.lock");
        assert!(!FileLock::is_held(&path) && !path.exists());
        let lock = FileLock::try_take(&path).unwrap().unwrap();
        assert!(FileLock::is_held(&path) && FileLock::try_take(&path).unwrap().is_none());
        drop(lock);
        assert!(!path.exists());
        // What a killed process left is taken over.
        fs::write(&path, "").unwrap();
        assert!(!FileLock::is_held(&path));
        drop(FileLock::try_take(&path).unwrap().unwrap());
        assert!(!path.exists());
        let error = FileLock::try_take(&dir.path().join("none/k.lock")).unwrap_err().to_string();
        assert!(error.contains("cannot open the lock"), "{error}");
    }

    /// A file that was opened before its removal can be locked afterwards, and must not count.
    #[test]
    fn many_that_take_turns_never_hold_it_together() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k.lock");
        let (holders, turns) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let end = Instant::now() + Duration::from_millis(300);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while Instant::now() < end {
                        let Some(lock) = FileLock::try_take(&path).unwrap() else { continue };
                        assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two hold the lock");
                        turns.fetch_add(1, Ordering::SeqCst);
                        holders.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
        assert!(turns.into_inner() > 10);
        assert!(!path.exists());
    }
}
