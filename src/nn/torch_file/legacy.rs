//! The format of `torch.save` before PyTorch 1.6, and of `_use_new_zipfile_serialization=False`: a magic number, the
//! version of the protocol, the machine, the object and the storages' keys, each a pickle, and then each storage as
//! its length (64 bits) and its bytes (`_legacy_save` in torch/serialization.py).

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
};

use super::{
    faults::{damaged, shown, unread},
    objects::{ObjectArena, ObjectId, PickledObject},
    pickle::PickleMachine,
    pickle_bytes::PickleBytes,
    storages::StorageTable,
};
use crate::error::{Error, Result};

/// `MAGIC_NUMBER`, 0x1950a86a20f9469cfc6c, as a pickle has it: LONG1 and ten bytes.
const MAGIC: [u8; 12] = [0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// `PROTOCOL_VERSION`.
const PROTOCOL: i64 = 1001;

/// Whether a file that begins with these bytes is of this format. A pickle of protocol 4 has a frame of 11 bytes
/// before the number.
pub(super) fn begins_with_magic(first: &[u8]) -> bool {
    first.first() == Some(&0x80) && first.windows(MAGIC.len()).take(16).any(|bytes| bytes == MAGIC)
}

/// The object of a file, and where each of its storages begins.
pub(super) struct LegacyCheckpoint {
    pub arena: ObjectArena,
    pub root: ObjectId,
    pub starts: Vec<u64>,
}

impl LegacyCheckpoint {
    /// # Errors
    /// The file is damaged, or holds something else than tensors and plain containers.
    pub fn read(file: &File, length: u64) -> Result<Self> {
        let cannot = |e: std::io::Error| Error::failure(format!("cannot read the weights: {e}"));
        let mut arena = ObjectArena::new(PickleBytes::of_file(file.try_clone().map_err(cannot)?, length));
        let mut storages = StorageTable::default();
        let mut next = |arena: &mut ObjectArena| PickleMachine::read(arena, &mut storages);
        next(&mut arena)?;
        let version = next(&mut arena)?;
        if arena.integer(version) != Some(PROTOCOL) {
            return Err(unread(format!("another version of torch.save's format than {PROTOCOL}")));
        }
        let machine = next(&mut arena)?;
        if !is_little_endian(&arena, machine) {
            return Err(unread("a checkpoint of a big-endian machine"));
        }
        let root = next(&mut arena)?;
        let keys = next(&mut arena)?;
        let starts = starts(file, length, &arena, keys, &storages)?;
        Ok(Self { arena, root, starts })
    }
}

fn is_little_endian(arena: &ObjectArena, machine: ObjectId) -> bool {
    let PickledObject::Dict(pairs) = arena.get(machine) else { return false };
    let found = pairs.iter().rev().find(|(key, _)| arena.text(*key) == Some("little_endian"));
    found.is_some_and(|(_, value)| matches!(arena.get(*value), PickledObject::Bool(true)))
}

/// Where the storages' bytes begin, by their numbers.
fn starts(
    mut file: &File,
    length: u64,
    arena: &ObjectArena,
    keys: ObjectId,
    storages: &StorageTable,
) -> Result<Vec<u64>> {
    let keys = arena.sequence(keys).ok_or_else(|| damaged("it has no list of storages"))?;
    let mut starts = vec![None; storages.records.len()];
    let mut at = arena.bytes.position() as u64;
    for key in keys {
        let key = arena.text(*key).unwrap_or_default();
        let found =
            storages.number(key).and_then(|number| storages.records.get(number).zip(starts.get_mut(number)));
        let Some((record, start @ None)) = found else {
            return Err(damaged(format!("the storage {} is of no tensor, or there twice", shown(key))));
        };
        let begin = at.saturating_add(8);
        let end = begin.saturating_add(record.bytes);
        if end > length {
            return Err(damaged(format!(
                "it ends at byte {length}, within a storage that ends at byte {end}"
            )));
        }
        let mut count = [0; 8];
        file.seek(SeekFrom::Start(at))
            .and_then(|_| file.read_exact(&mut count))
            .map_err(|e| Error::failure(format!("cannot read the weights: {e}")))?;
        if u64::from_le_bytes(count).checked_mul(record.element) != Some(record.bytes) {
            return Err(damaged(format!(
                "the storage {} has another length than its tensors say",
                shown(key)
            )));
        }
        *start = Some(begin);
        at = end;
    }
    starts.into_iter().collect::<Option<_>>().ok_or_else(|| damaged("storages are missing"))
}
