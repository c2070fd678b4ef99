//! The bytes of a pickle. Reading beyond their end is an error.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
};

use super::faults::{damaged, unread};
use crate::error::{Error, Result};

/// No pickle of tensors is as long: a tensor takes some 200 bytes.
pub(super) const LONGEST_PICKLE: u64 = 64 << 20;

/// The least number of bytes that is read at a time.
const CHUNK: u64 = 1 << 16;

/// The longest module or name.
const LONGEST_NAME: usize = 512;

/// Where a string lies in [`PickleBytes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ByteSpan {
    start: u32,
    end: u32,
}

/// Bytes in memory; of a file of the legacy format, which does not say how long its pickles are, as many as were
/// needed so far.
#[derive(Debug)]
pub(super) struct PickleBytes {
    buffer: Vec<u8>,
    at: usize,
    /// The file, and how long it is.
    rest: Option<(File, u64)>,
}

impl PickleBytes {
    pub fn whole(buffer: Vec<u8>) -> Self {
        Self { buffer, at: 0, rest: None }
    }

    pub fn of_file(file: File, length: u64) -> Self {
        Self { buffer: Vec::new(), at: 0, rest: Some((file, length)) }
    }

    /// How many bytes have been taken.
    pub fn position(&self) -> usize {
        self.at
    }

    /// # Errors
    /// There are not as many, or it were more than a pickle has.
    pub fn take(&mut self, count: u64) -> Result<ByteSpan> {
        let end = (self.at as u64).saturating_add(count);
        if end > self.buffer.len() as u64 {
            self.fetch(count, end)?;
        }
        let span = ByteSpan { start: self.at as u32, end: end as u32 };
        self.at = end as usize;
        Ok(span)
    }

    /// Reads on, to have the bytes before `end`.
    fn fetch(&mut self, count: u64, end: u64) -> Result<()> {
        let there = self.rest.as_ref().map_or(self.buffer.len() as u64, |(_, length)| *length);
        if end > there {
            let at = self.at;
            return Err(damaged(format!(
                "its pickle ends early: {count} bytes are needed at byte {at}, of {there} in all"
            )));
        }
        if end > LONGEST_PICKLE {
            return Err(unread(format!("a pickle of more than {} MiB", LONGEST_PICKLE >> 20)));
        }
        let Some((file, _)) = &mut self.rest else { return Ok(()) };
        let from = self.buffer.len() as u64;
        let to = end.max(from + CHUNK).min(there).min(LONGEST_PICKLE);
        self.buffer.resize(to as usize, 0);
        let tail = self.buffer.get_mut(from as usize..).unwrap_or_default();
        file.seek(SeekFrom::Start(from))
            .and_then(|_| file.read_exact(tail))
            .map_err(|e| Error::failure(format!("cannot read the weights: {e}")))
    }

    pub fn byte(&mut self) -> Result<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let span = self.take(N as u64)?;
        self.of(span).try_into().map_err(|_| damaged("its pickle ends early"))
    }

    /// The bytes up to a line feed, without it.
    pub fn line(&mut self) -> Result<ByteSpan> {
        let start = self.at;
        while self.byte()? != b'\n' {
            if self.at - start > LONGEST_NAME {
                return Err(damaged(format!("a name of more than {LONGEST_NAME} bytes at byte {start}")));
            }
        }
        Ok(ByteSpan { start: start as u32, end: self.at.saturating_sub(1) as u32 })
    }

    pub fn of(&self, span: ByteSpan) -> &[u8] {
        self.buffer.get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    /// The text of a span; None where it is not UTF-8.
    pub fn text(&self, span: ByteSpan) -> Option<&str> {
        std::str::from_utf8(self.of(span)).ok()
    }
}
