//! The zip archive that `torch.save` has written since PyTorch 1.6: `NAME/data.pkl`, `NAME/byteorder` and one record
//! `NAME/data/KEY` for each storage, uncompressed (caffe2/serialize/inline_container.cc). NAME is any one word.

use std::{
    collections::HashMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
};

use flate2::{Crc, read::DeflateDecoder};
use rawzip::{CompressionMethod, RECOMMENDED_BUFFER_SIZE, ZipArchive};

use super::{
    faults::{damaged, shown, unread},
    pickle_bytes::LONGEST_PICKLE,
};
use crate::error::{Error, Result};

/// What all records together may be larger than the file, where somebody compressed the archive: a factor, and what
/// a small file may have besides.
const LARGEST_INFLATION: (u64, u64) = (20, 64 << 20);

/// The most that a byte of a deflated record can become (zlib's technical details: 1032 to 1), and what the rounding of
/// a short one may add.
const DENSEST_DEFLATE: (u64, u64) = (1032, 1024);

/// One record of the archive.
#[derive(Debug, Clone)]
pub(super) struct ZipRecord {
    /// Where its bytes lie in the file, and how many they are.
    start: u64,
    stored: u64,
    /// Bytes when inflated.
    pub size: u64,
    deflated: bool,
    crc: u32,
}

/// The records of an archive, which do not overlap and lie within the file, by their names without `NAME/`.
#[derive(Debug)]
pub(super) struct CheckpointArchive {
    records: HashMap<String, ZipRecord>,
}

impl CheckpointArchive {
    /// # Errors
    /// The archive is damaged, or holds something else than tensors.
    pub fn open(file: &File, length: u64) -> Result<Self> {
        let archive = Self { records: records(file, length)? };
        if archive.records.contains_key("constants.pkl") {
            return Err(unread("a TorchScript archive, which holds a network's code (torch.jit.save)"));
        }
        if !archive.records.contains_key("data.pkl") {
            return Err(Error::input("a zip archive without data.pkl: not a PyTorch checkpoint")
                .help("name a file that torch.save wrote, or a safetensors file"));
        }
        if let Some(order) = archive.records.get("byteorder")
            && archive.read(file, order, 0, order.size.min(16))? != b"little"
        {
            return Err(unread("a checkpoint of a big-endian machine"));
        }
        Ok(archive)
    }

    pub fn record(&self, name: &str) -> Option<&ZipRecord> {
        self.records.get(name)
    }

    /// `data.pkl`, whole.
    pub fn pickle(&self, file: &File) -> Result<Vec<u8>> {
        let Some(record) = self.records.get("data.pkl") else { return Ok(Vec::new()) };
        if record.size > LONGEST_PICKLE {
            return Err(unread(format!("a pickle of more than {} MiB", LONGEST_PICKLE >> 20)));
        }
        self.read(file, record, 0, record.size)
    }

    /// `count` bytes of a record from byte `from` on. Those of a whole record are compared with its checksum.
    pub fn read(&self, mut file: &File, record: &ZipRecord, from: u64, count: u64) -> Result<Vec<u8>> {
        let cannot = |e: std::io::Error| damaged(format!("a record cannot be read: {e}"));
        if from.checked_add(count).is_none_or(|end| end > record.size) {
            return Err(damaged("a record is shorter than its tensors"));
        }
        let mut bytes = vec![0; count as usize];
        if record.deflated {
            file.seek(SeekFrom::Start(record.start)).map_err(cannot)?;
            let mut inflated = DeflateDecoder::new(file.take(record.stored));
            let skipped =
                std::io::copy(&mut (&mut inflated).take(from), &mut std::io::sink()).map_err(cannot)?;
            if skipped != from {
                return Err(damaged("a record inflates to fewer bytes than it claims"));
            }
            inflated.read_exact(&mut bytes).map_err(cannot)?;
        } else {
            file.seek(SeekFrom::Start(record.start + from)).map_err(cannot)?;
            file.read_exact(&mut bytes).map_err(cannot)?;
        }
        if count == record.size && record.crc != 0 {
            let mut crc = Crc::new();
            crc.update(&bytes);
            if crc.sum() != record.crc {
                return Err(damaged("a record is not what its checksum says"));
            }
        }
        Ok(bytes)
    }
}

/// All records, checked against the file and each other.
fn records(file: &File, length: u64) -> Result<HashMap<String, ZipRecord>> {
    let copy = file.try_clone().map_err(|e| Error::failure(format!("cannot read the weights: {e}")))?;
    let mut buffer = vec![0; RECOMMENDED_BUFFER_SIZE];
    let archive = ZipArchive::from_file(copy, &mut buffer).map_err(damaged)?;
    let mut records = HashMap::new();
    // From the local header to the end of the data.
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    let mut inflated = 0u64;
    let mut root: Option<String> = None;
    let mut entries = archive.entries(&mut buffer);
    while let Some(entry) = entries.next_entry().map_err(damaged)? {
        let name = std::str::from_utf8(entry.file_path().as_ref())
            .map_err(|_| damaged("a record's name is not UTF-8"))?
            .to_owned();
        let method = entry.compression_method();
        let deflated = method == CompressionMethod::DEFLATE;
        // The first bit of the flags: encrypted.
        if (!deflated && method != CompressionMethod::STORE) || entry.flags().bits() & 1 != 0 {
            let name = shown(&name);
            return Err(unread(format!("the record {name} is encrypted or compressed by {method:?}")));
        }
        let (stored, size) = (entry.compressed_size_hint(), entry.uncompressed_size_hint());
        let header = entry.local_header_offset();
        let crc = entry.crc32();
        let (start, end) = archive.get_entry(entry.wayfinder()).map_err(damaged)?.compressed_data_range();
        if end > length || (!deflated && stored != size) {
            return Err(damaged(format!("the record {} goes beyond the file", shown(&name))));
        }
        let (most, rounding) = DENSEST_DEFLATE;
        if deflated && size > stored.saturating_mul(most).saturating_add(rounding) {
            return Err(damaged(format!("the record {} claims more than it can hold", shown(&name))));
        }
        ranges.push((header, end));
        inflated = inflated.saturating_add(size);
        let (folder, rest) = name.split_once('/').unwrap_or_default();
        if root.get_or_insert_with(|| folder.to_owned()) != folder || rest.is_empty() {
            continue;
        }
        let record = ZipRecord { start, stored, size, deflated, crc };
        if records.insert(rest.to_owned(), record).is_some() {
            return Err(damaged(format!("two records have the name {}", shown(&name))));
        }
    }
    ranges.sort_unstable();
    let apart = ranges.windows(2).all(|pair| matches!(pair, [(_, end), (next, _)] if end <= next));
    if !apart || ranges.last().is_some_and(|(_, end)| *end > archive.directory_offset()) {
        return Err(damaged("records overlap"));
    }
    let (factor, besides) = LARGEST_INFLATION;
    if inflated > length.saturating_mul(factor).saturating_add(besides) {
        return Err(unread(format!("a compressed archive of {length} bytes that inflates to {inflated}")));
    }
    Ok(records)
}
