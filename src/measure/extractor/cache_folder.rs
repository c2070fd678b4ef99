//! The folder of kept features as a whole: how much is in it, and what goes when it is too much.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::Serialize;

use super::cache::KEY_DIGITS;
use crate::error::{AtPath, Result};

/// A folder of kept features.
#[derive(Debug)]
pub struct CacheFolder {
    path: PathBuf,
}

/// Files of a folder, together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CacheUsage {
    pub folder: PathBuf,
    /// Sets of images.
    pub sets: usize,
    pub bytes: u64,
}

/// The features of one set of images.
struct KeptSet {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

impl CacheFolder {
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// # Errors
    /// The folder is there and cannot be read.
    pub fn usage(&self) -> Result<CacheUsage> {
        Ok(self.counted(&self.sets()?))
    }

    /// Removes all kept features, and the folder where nothing else is in it. Returns what was removed.
    ///
    /// # Errors
    /// The folder cannot be read, or a file of it not removed.
    pub fn clear(&self) -> Result<CacheUsage> {
        let sets = self.sets()?;
        for set in &sets {
            remove(&set.path)?;
        }
        // Another program's files may be in it.
        let _ = fs::remove_dir(&self.path);
        Ok(self.counted(&sets))
    }

    /// Removes the sets that were used least recently until the rest has at most `limit` bytes.
    ///
    /// # Errors
    /// As [`CacheFolder::clear`].
    pub fn trim(&self, limit: u64) -> Result<()> {
        let mut sets = self.sets()?;
        sets.sort_by_key(|set| set.used);
        let mut bytes: u64 = sets.iter().map(|set| set.bytes).sum();
        for set in sets {
            if bytes <= limit {
                break;
            }
            remove(&set.path)?;
            bytes -= set.bytes;
        }
        Ok(())
    }

    fn counted(&self, sets: &[KeptSet]) -> CacheUsage {
        let bytes = sets.iter().map(|set| set.bytes).sum();
        CacheUsage { folder: self.path.clone(), sets: sets.len(), bytes }
    }

    fn sets(&self) -> Result<Vec<KeptSet>> {
        let entries = match fs::read_dir(&self.path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.at_path(&self.path, "cannot read the folder of kept features")?,
        };
        let set = |entry: fs::DirEntry| {
            let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            let used = metadata.modified().ok()?;
            let name = entry.file_name();
            is_set(name.to_str()?).then(|| KeptSet { path: entry.path(), bytes: metadata.len(), used })
        };
        Ok(entries.flatten().filter_map(set).collect())
    }
}

/// `KEY.safetensors`, or `.KEY.safetensors.PID` of a process that was killed as it wrote.
fn is_set(name: &str) -> bool {
    let is_key = |key: &str| key.len() == KEY_DIGITS && key.bytes().all(|b| b.is_ascii_hexdigit());
    let half = || {
        let (name, pid) = name.strip_prefix('.')?.rsplit_once('.')?;
        pid.parse::<u32>().ok()?;
        Some(name)
    };
    half().unwrap_or(name).strip_suffix(".safetensors").is_some_and(is_key)
}

/// Another process may have removed it.
fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        gone => gone.at_path(file, "cannot remove"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn kept(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn the_least_recently_used_go_first_and_nothing_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let folder = CacheFolder::new(&dir.path().join("features"));
        assert_eq!((folder.usage().unwrap().sets, folder.clear().unwrap().sets), (0, 0));
        fs::create_dir(&folder.path).unwrap();
        let key = |digit: &str| digit.repeat(KEY_DIGITS);
        let names = [
            format!("{}.safetensors", key("a")),
            format!("{}.safetensors", key("b")),
            format!(".{}.safetensors.123", key("c")),
            format!("{}.safetensors", key("d")),
        ];
        let strangers = ["notes.txt".to_owned(), "other.safetensors".to_owned(), format!("{}.bin", key("a"))];
        for (age, name) in (1..).zip(names.iter().chain(&strangers)) {
            let path = folder.path.join(name);
            fs::write(&path, [0; 100]).unwrap();
            let used = SystemTime::now() - Duration::from_secs(1000 - age);
            fs::File::options().write(true).open(&path).unwrap().set_modified(used).unwrap();
        }
        assert_eq!(folder.usage().unwrap(), CacheUsage { folder: folder.path.clone(), sets: 4, bytes: 400 });
        folder.trim(400).unwrap();
        assert_eq!(folder.usage().unwrap().sets, 4);
        folder.trim(250).unwrap();
        let mut expected = [&strangers[..], &names[2..]].concat();
        expected.sort();
        assert_eq!(kept(&folder.path), expected);
        folder.trim(0).unwrap();
        assert_eq!(folder.usage().unwrap().bytes, 0);
        fs::write(folder.path.join(&names[0]), [0; 7]).unwrap();
        assert_eq!(folder.clear().unwrap().bytes, 7);
        assert_eq!(kept(&folder.path).len(), strangers.len());
        strangers.iter().for_each(|name| fs::remove_file(folder.path.join(name)).unwrap());
        folder.clear().unwrap();
        assert!(!folder.path.exists());
    }
}
