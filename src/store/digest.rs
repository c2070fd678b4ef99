//! Digests of files and folders, remembered while a file's size and times stay the same.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Mutex,
};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    atomic_file::write_atomically,
    error::{AtPath, Error, Result},
};

const CACHE: &str = "digests.json";

/// A file when it was read, and its digest. Every write changes `ctime`, which no user program sets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct FileState {
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
    inode: u64,
    blake3: String,
}

/// A cache of BLAKE3 digests that lives in the store.
#[derive(Debug)]
pub struct Digests {
    file: PathBuf,
    seen: Mutex<HashMap<PathBuf, FileState>>,
    changed: Mutex<bool>,
}

impl Digests {
    /// A cache that cannot be read is an empty one.
    pub fn open(store: &Path) -> Self {
        let file = store.join(CACHE);
        let seen =
            fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Self { file, seen: Mutex::new(seen), changed: Mutex::new(false) }
    }

    /// Writes the cache back; a cache that cannot be written costs time only.
    pub fn save(&self) {
        let Ok(mut changed) = self.changed.lock() else { return };
        if !*changed {
            return;
        }
        let Ok(mut seen) = self.seen.lock() else { return };
        // Files of partial folders have moved.
        seen.retain(|path, _| path.exists());
        let written =
            serde_json::to_vec(&*seen).is_ok_and(|text| write_atomically(&self.file, &text).is_ok());
        *changed = !written;
    }

    /// BLAKE3 of a file's bytes, hexadecimal.
    pub fn file(&self, path: &Path) -> Result<String> {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let meta = fs::metadata(path).at_path(path, "cannot read")?;
        // Opening a pipe would wait for its writer.
        if !meta.is_file() {
            return Err(Error::input("this is not a file").at(path).help("name a file"));
        }
        let now = |blake3: String| FileState {
            size: meta.size(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
            inode: meta.ino(),
            blake3,
        };
        if let Ok(seen) = self.seen.lock()
            && let Some(known) = seen.get(&absolute)
            && *known == now(known.blake3.clone())
        {
            return Ok(known.blake3.clone());
        }
        let mut hasher = blake3::Hasher::new();
        let mut file = fs::File::open(path).at_path(path, "cannot read")?;
        std::io::copy(&mut file, &mut hasher).at_path(path, "cannot read")?;
        let blake3 = hasher.finalize().to_hex().to_string();
        // A file written within the clock's grain of being read could change again unseen.
        let settled = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .is_ok_and(|t| t.as_millis() as i64 - (meta.ctime() * 1000 + meta.ctime_nsec() / 1_000_000) > 50);
        if settled && let (Ok(mut seen), Ok(mut changed)) = (self.seen.lock(), self.changed.lock()) {
            seen.insert(absolute, now(blake3.clone()));
            *changed = true;
        }
        Ok(blake3)
    }

    /// (relative path, bytes, digest) of every file below `dir`, sorted by path. Hidden files, which are
    /// about to be renamed, are left out.
    pub fn folder_files(&self, dir: &Path) -> Result<Vec<(String, u64, String)>> {
        let mut paths = Vec::new();
        collect(dir, &mut paths)?;
        let mut files = paths
            .par_iter()
            .map(|path| {
                let relative = path.strip_prefix(dir).unwrap_or(path).to_string_lossy().into_owned();
                let bytes = fs::metadata(path).at_path(path, "cannot read")?.len();
                Ok((relative, bytes, self.file(path)?))
            })
            .collect::<Result<Vec<_>>>()?;
        files.sort();
        Ok(files)
    }
}

fn collect(dir: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).at_path(dir, "cannot read the folder")? {
        let entry = entry.at_path(dir, "cannot read the folder")?;
        if is_hidden(&entry) {
            continue;
        }
        let path = entry.path();
        match path.is_dir() {
            true => collect(&path, into)?,
            false => into.push(path),
        }
    }
    Ok(())
}

fn is_hidden(entry: &fs::DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with('.')
}
