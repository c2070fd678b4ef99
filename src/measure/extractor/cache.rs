//! Features that were computed before, by a key of all that they depend on.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::{
    atomic_file::write_atomically,
    error::{AtPath, Error, Result},
    nn::tensor_file::{self, TensorFile},
};

/// BLAKE3 of an image file's bytes.
pub(super) type Digest = [u8; 32];

/// To be raised when the same request gives other numbers than before.
const VERSION: u32 = 1;

/// The file of the features of a set of images.
#[derive(Debug)]
pub(super) struct FeatureCache {
    file: PathBuf,
    key: String,
}

/// Features of the images that could be read, one row per image.
#[derive(Debug)]
pub(super) struct CacheEntry {
    pub digests: Vec<Digest>,
    /// (n, d), f32.
    pub values: Tensor,
}

/// The key and checksum in a file's metadata.
#[derive(Serialize, Deserialize, PartialEq)]
struct Seal {
    key: String,
    /// Of digests and values.
    blake3: String,
}

/// Hexadecimal digits of a key.
pub(super) const KEY_DIGITS: usize = 32;

const SEAL: &str = "synecho";

impl FeatureCache {
    /// `extractor`: everything but the images that features depend on: name, weights' digest, input, numeric
    /// type. `digests` are sorted, each of them once.
    pub fn new(folder: &Path, extractor: &str, digests: &[Digest]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("features {VERSION}\n{extractor}\n{}\n", digests.len()).as_bytes());
        digests.iter().for_each(|digest| {
            hasher.update(digest);
        });
        let key = hasher.finalize().to_hex()[..KEY_DIGITS].to_owned();
        Self { file: folder.join(format!("{key}.safetensors")), key }
    }

    /// The entry, if there is one. A damaged one is an error.
    pub fn read(&self, features: usize) -> Result<Option<CacheEntry>> {
        if !self.file.exists() {
            return Ok(None);
        }
        let file = TensorFile::open(&self.file)?;
        // The folder's limit spares what was used last. Where the time cannot be set, it is that of writing.
        if let Ok(file) = fs::File::options().write(true).open(&self.file) {
            let _ = file.set_modified(SystemTime::now());
        }
        let mut tensors = HashMap::new();
        for entry in file.entries() {
            tensors.insert(entry.name.clone(), file.read(entry)?);
        }
        self.entry(tensors, file.metadata(), features).map(Some)
    }

    fn entry(
        &self,
        mut tensors: HashMap<String, Tensor>,
        metadata: &HashMap<String, String>,
        features: usize,
    ) -> Result<CacheEntry> {
        let damaged = |why: &str| Error::input(format!("not what was written there: {why}")).at(&self.file);
        let (digests, values) = (tensors.remove("digests"), tensors.remove("features"));
        let (Some(digests), Some(values)) = (digests, values) else {
            return Err(damaged("a tensor is missing"));
        };
        let n = digests.size().first().copied().unwrap_or(0);
        if (digests.size(), digests.kind()) != (vec![n, 32], Kind::Uint8)
            || (values.size(), values.kind()) != (vec![n, features as i64], Kind::Float)
        {
            return Err(damaged("another shape"));
        }
        let seal = metadata.get(SEAL).and_then(|text| serde_json::from_str::<Seal>(text).ok());
        if seal != Some(self.seal(&digests, &values)?) {
            return Err(damaged("its checksum is another"));
        }
        let digests = bytes(&digests)?.chunks_exact(32).filter_map(|d| d.try_into().ok()).collect();
        Ok(CacheEntry { digests, values })
    }

    fn seal(&self, digests: &Tensor, values: &Tensor) -> Result<Seal> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes(digests)?).update(&bytes(values)?);
        Ok(Seal { key: self.key.clone(), blake3: hasher.finalize().to_hex().to_string() })
    }

    /// Writes an entry into the folder, which is made where it is not there.
    pub fn write(&self, entry: &CacheEntry) -> Result<()> {
        let n = entry.digests.len() as i64;
        let digests = Tensor::from_slice(entry.digests.as_flattened()).view([n, 32]);
        let seal = serde_json::to_string(&self.seal(&digests, &entry.values)?)
            .map_err(|e| Error::failure(format!("cannot write JSON: {e}")))?;
        let tensors =
            [("digests".to_owned(), digests), ("features".to_owned(), entry.values.shallow_clone())];
        let bytes = tensor_file::to_bytes(&tensors, Some(HashMap::from([(SEAL.to_owned(), seal)])))?;
        if let Some(folder) = self.file.parent() {
            fs::create_dir_all(folder).at_path(folder, "cannot make the folder")?;
        }
        write_atomically(&self.file, &bytes)
    }
}

fn bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.contiguous().f_copy_data_u8(&mut bytes, tensor.numel())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> CacheEntry {
        let values = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).view([2, 3]);
        CacheEntry { digests: vec![[1; 32], [7; 32]], values }
    }

    #[test]
    fn an_entry_is_read_again_and_damage_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let cache = FeatureCache::new(&dir.path().join("cache"), "extractor", &entry().digests);
        assert!(cache.read(3).unwrap().is_none());
        cache.write(&entry()).unwrap();
        let read = cache.read(3).unwrap().unwrap();
        assert_eq!((read.digests, read.values), (entry().digests, entry().values));
        assert!(cache.read(4).unwrap_err().to_string().contains("another shape"));
        let whole = fs::read(&cache.file).unwrap();
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for (bytes, says) in
            [(&flipped[..], "its checksum"), (&whole[..whole.len() - 1], "not a whole"), (b"", "not a whole")]
        {
            fs::write(&cache.file, bytes).unwrap();
            let error = cache.read(3).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains(".safetensors"), "{error}");
        }
        // A limit must not remove what was just read.
        fs::write(&cache.file, &whole).unwrap();
        let time = || fs::metadata(&cache.file).unwrap().modified().unwrap();
        let long_ago = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        fs::File::options().write(true).open(&cache.file).unwrap().set_modified(long_ago).unwrap();
        assert_eq!(time(), long_ago);
        cache.read(3).unwrap().unwrap();
        assert!(time() > long_ago);
        // Nothing is left beside it.
        assert_eq!(fs::read_dir(dir.path().join("cache")).unwrap().count(), 1);
    }

    /// A key that moves makes everything again: only on purpose, with [`VERSION`].
    #[test]
    fn the_key_is_pinned_and_hangs_on_each_part() {
        let key =
            |extractor: &str, digests: &[Digest]| FeatureCache::new(Path::new(""), extractor, digests).key;
        let base = key("a", &[[1; 32], [2; 32]]);
        assert_eq!(base, "f47ffe5dd2c5bb76f78a7f6773bf5705");
        assert_ne!(base, key("b", &[[1; 32], [2; 32]]));
        assert_ne!(base, key("a", &[[1; 32]]));
        assert_ne!(base, key("a", &[[1; 32], [3; 32]]));
    }
}
