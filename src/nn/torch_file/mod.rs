//! Checkpoints of PyTorch (`.pth`, `.pt`, `.bin`, `.ckpt`), read without Python and without executing anything.
//!
//! A checkpoint is a pickle, that is, a program for a stack machine. `pickle.rs` runs a machine of its own, whose
//! objects are numbers, texts, plain containers and tensors; a pickle that names any other class or function is
//! refused with that name. What a file claims is checked against the file before memory is allocated for it.
//!
//! Sources: CPython's Lib/pickletools.py for the opcodes; PyTorch's note on serialization semantics and
//! torch/serialization.py for the two containers; torch/_weights_only_unpickler.py for the classes that checkpoints
//! name (PyTorch 2.13.0).

mod archive;
mod digest;
mod elements;
mod faults;
mod globals;
mod legacy;
mod objects;
mod pickle;
mod pickle_bytes;
mod rebuild;
mod state_dict;
mod storages;

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use tch::{Device, Kind, Tensor};

pub use storages::StridedView;

use crate::error::{Error, Result};
use archive::CheckpointArchive;
use faults::{damaged, shown, unread};
use legacy::LegacyCheckpoint;
use objects::{ObjectArena, ObjectId};
use pickle::PickleMachine;
use pickle_bytes::PickleBytes;
use state_dict::StateDict;
use storages::StorageTable;

/// As many first bytes decide which container a file is.
pub const FIRST_BYTES: usize = 40;

/// All tensors together may be larger than the file, for they may share storages: a factor, and what a small file may
/// have besides.
const LARGEST_COPIES: (u64, u64) = (20, 64 << 20);

/// A checkpoint whose pickle has been read and whose tensors have been found to lie within the file.
#[derive(Debug)]
pub struct TorchFile {
    file: File,
    container: CheckpointContainer,
    tensors: Vec<(String, StridedView)>,
    note: Option<String>,
}

#[derive(Debug)]
enum CheckpointContainer {
    Zip(CheckpointArchive, StorageTable),
    /// Where each storage begins in the file.
    Legacy(Vec<u64>),
}

/// Whether a file that begins with these bytes is a checkpoint of PyTorch, or a pickle of something else. A
/// safetensors file, whose header's length may have the same first bytes, has a brace at the ninth.
pub fn is_checkpoint(first: &[u8]) -> bool {
    first.get(8) != Some(&b'{') && (first.starts_with(b"PK\x03\x04") || matches!(first, [0x80, 2..=5, ..]))
}

impl TorchFile {
    /// Reads the pickle; tensors are read one at a time. `key`: of a checkpoint with several networks' weights, the
    /// name of those to take.
    ///
    /// # Errors
    /// The file is damaged, is not the one that its name speaks of, asks for anything but tensors and plain
    /// containers, or does not say which of its tensors are the weights.
    pub fn open(file: File, path: &Path, key: Option<&str>) -> Result<Self> {
        let failed = |e: std::io::Error| Error::failure(format!("cannot read the weights: {e}"));
        let length = file.metadata().map_err(failed)?.len();
        let mut first = vec![0; length.min(FIRST_BYTES as u64) as usize];
        (&file).seek(SeekFrom::Start(0)).and_then(|_| (&file).read_exact(&mut first)).map_err(failed)?;
        let (arena, root, container) =
            if first.starts_with(b"PK") { zip(&file, length)? } else { legacy(&file, length, &first)? };
        let StateDict { tensors, note } = state_dict::choose(&arena, root, key)?;
        let all = tensors.iter().fold(0u64, |sum, (_, view)| sum.saturating_add(view.bytes()));
        let (factor, besides) = LARGEST_COPIES;
        if all > length.saturating_mul(factor).saturating_add(besides) {
            return Err(unread(format!("tensors of {all} bytes that share storages in a file of {length}")));
        }
        digest::check(&file, path)?;
        Ok(Self { file, container, tensors, note })
    }

    /// The tensors, in the order in which the file has them.
    pub fn tensors(&self) -> &[(String, StridedView)] {
        &self.tensors
    }

    /// What was taken of the file and what was passed over, where that is not all of it.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// The container's name, for people.
    pub fn container(&self) -> &'static str {
        match &self.container {
            CheckpointContainer::Zip(..) => "PyTorch checkpoint (zip)",
            CheckpointContainer::Legacy(_) => "PyTorch checkpoint (legacy)",
        }
    }

    /// Reads one of [`TorchFile::tensors`] into the CPU's memory, contiguous whatever it was.
    pub fn read(&self, view: &StridedView) -> Result<Tensor> {
        if view.reach == 0 {
            return Ok(Tensor::f_zeros(view.shape.as_slice(), (view.kind, Device::Cpu))?);
        }
        let mut bytes = self.bytes(view)?;
        if view.kind == Kind::Bool {
            // libtorch's own code relies on it.
            bytes.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
        }
        if view.is_contiguous() {
            return Ok(Tensor::f_from_data_size(&bytes, &view.shape, view.kind)?);
        }
        let flat = Tensor::f_from_data_size(&bytes, &[view.reach as i64], view.kind)?;
        Ok(flat.f_as_strided(view.shape.as_slice(), view.strides.as_slice(), 0)?.f_contiguous()?)
    }

    /// The bytes from a tensor's first element to its last. They have been checked to be there.
    fn bytes(&self, view: &StridedView) -> Result<Vec<u8>> {
        let count = view.reach * view.kind.elt_size_in_bytes() as u64;
        match &self.container {
            CheckpointContainer::Zip(archive, storages) => {
                let key =
                    storages.records.get(view.storage).map(|record| record.key.as_str()).unwrap_or_default();
                let record = archive.record(&format!("data/{key}")).ok_or_else(|| no_record(key))?;
                archive.read(&self.file, record, view.start, count)
            }
            CheckpointContainer::Legacy(starts) => {
                let start = starts.get(view.storage).copied().unwrap_or_default() + view.start;
                let mut bytes = vec![0; count as usize];
                (&self.file)
                    .seek(SeekFrom::Start(start))
                    .and_then(|_| (&self.file).read_exact(&mut bytes))
                    .map_err(|e| Error::failure(format!("cannot read the weights: {e}")))?;
                Ok(bytes)
            }
        }
    }
}

type OpenedContainer = (ObjectArena, ObjectId, CheckpointContainer);

fn zip(file: &File, length: u64) -> Result<OpenedContainer> {
    let archive = CheckpointArchive::open(file, length)?;
    let mut arena = ObjectArena::new(PickleBytes::whole(archive.pickle(file)?));
    let mut storages = StorageTable::default();
    let root = PickleMachine::read(&mut arena, &mut storages)?;
    for storage in &storages.records {
        let record =
            archive.record(&format!("data/{}", storage.key)).ok_or_else(|| no_record(&storage.key))?;
        if record.size != storage.bytes {
            let key = shown(&storage.key);
            return Err(damaged(format!(
                "the storage {key} has {} bytes, its tensors say {}",
                record.size, storage.bytes
            )));
        }
    }
    Ok((arena, root, CheckpointContainer::Zip(archive, storages)))
}

fn legacy(file: &File, length: u64, first: &[u8]) -> Result<OpenedContainer> {
    if !legacy::begins_with_magic(first) {
        return Err(Error::input("a pickle that torch.save did not write")
            .help("name a file that torch.save wrote, or a safetensors file"));
    }
    let LegacyCheckpoint { arena, root, starts } = LegacyCheckpoint::read(file, length)?;
    Ok((arena, root, CheckpointContainer::Legacy(starts)))
}

fn no_record(key: &str) -> Error {
    damaged(format!("the storage {} is missing", shown(key)))
}
