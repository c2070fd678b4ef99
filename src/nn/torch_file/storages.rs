//! Storages, and the tensors that are views of them.

use std::collections::HashMap;

use tch::Kind;

use super::{
    elements::ElementType,
    faults::{damaged, shown, unread},
};
use crate::error::Result;

/// libtorch's own iterators take no more (TensorIterator's MAX_DIMS).
const MOST_DIMENSIONS: usize = 64;

/// A view may be larger than its storage (an expanded mask) up to this many bytes.
const LARGEST_EXPANSION: u64 = 1 << 20;

/// A storage as the pickle names it. Where its bytes lie is the container's matter.
#[derive(Debug)]
pub(super) struct StorageRecord {
    pub key: String,
    pub bytes: u64,
    /// Bytes of an element, as far as the pickle says.
    pub element: u64,
}

/// All storages that a pickle names, each once.
#[derive(Debug, Default)]
pub(super) struct StorageTable {
    pub records: Vec<StorageRecord>,
    by_key: HashMap<String, usize>,
}

impl StorageTable {
    /// The number of the storage `key`.
    ///
    /// # Errors
    /// It was named before with another size.
    pub fn enter(&mut self, key: &str, bytes: u64, element: u64) -> Result<usize> {
        if let Some(&number) = self.by_key.get(key) {
            let before = self.records.get(number).map_or(0, |record| record.bytes);
            if before != bytes {
                let key = shown(key);
                return Err(damaged(format!("the storage {key} has {before} bytes, later {bytes}")));
            }
            return Ok(number);
        }
        self.records.push(StorageRecord { key: key.to_owned(), bytes, element });
        self.by_key.insert(key.to_owned(), self.records.len() - 1);
        Ok(self.records.len() - 1)
    }

    pub fn number(&self, key: &str) -> Option<usize> {
        self.by_key.get(key).copied()
    }
}

/// A storage, or before PyTorch 0.4 a part of one, with its element type.
#[derive(Debug, Clone, Copy)]
pub(super) struct StorageSlice {
    pub number: usize,
    /// None: untyped.
    pub element: Option<&'static ElementType>,
    /// Bytes from the storage's start.
    pub start: u64,
    pub bytes: u64,
}

/// A tensor: where its elements lie in a storage. It has been checked to lie within.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StridedView {
    pub(super) storage: usize,
    pub(super) kind: Kind,
    pub(super) shape: Vec<i64>,
    pub(super) strides: Vec<i64>,
    /// Bytes from the storage's start to the first element.
    pub(super) start: u64,
    /// Elements from the first to the last in the storage, both included; 0: the tensor has none.
    pub(super) reach: u64,
}

impl StridedView {
    /// The view that `torch.Tensor.set_` would make of these numbers, which come from a file.
    ///
    /// # Errors
    /// A number is negative, the sizes overflow, an element lies outside of the storage.
    pub(super) fn new(
        slice: &StorageSlice,
        element: (Kind, u64),
        offset: i64,
        shape: Vec<i64>,
        strides: Vec<i64>,
    ) -> Result<Self> {
        let (kind, size) = element;
        if shape.len() != strides.len() || shape.len() > MOST_DIMENSIONS {
            return Err(damaged(format!(
                "a tensor of {} dimensions with {} strides",
                shape.len(),
                strides.len()
            )));
        }
        if offset < 0 || shape.iter().any(|&n| n < 0) {
            return Err(damaged(format!("a tensor of the shape {shape:?} from element {offset} on")));
        }
        if strides.iter().any(|&n| n < 0) {
            return Err(unread(format!("a tensor with negative strides, {strides:?}")));
        }
        let beyond = || {
            let there = slice.bytes / size;
            damaged(format!(
                "a tensor of the shape {shape:?}, strides {strides:?}, from element {offset} on, in a storage of {there} elements"
            ))
        };
        // As if no side were 0, so that libtorch's own products do not overflow either.
        let most = shape.iter().try_fold(1i64, |product, &n| product.checked_mul(n.max(1)));
        let whole = most.and_then(|n| u64::try_from(n).ok()?.checked_mul(size)).ok_or_else(beyond)?;
        let mut view =
            Self { storage: slice.number, kind, shape: Vec::new(), strides: Vec::new(), start: 0, reach: 0 };
        if !shape.contains(&0) {
            let last = shape
                .iter()
                .zip(&strides)
                .try_fold(0i64, |sum, (&n, &stride)| sum.checked_add((n - 1).checked_mul(stride)?));
            let reach = last.and_then(|last| last.checked_add(1)).ok_or_else(beyond)?;
            let start = (offset as u64).checked_mul(size).ok_or_else(beyond)?;
            let end = (reach as u64)
                .checked_mul(size)
                .and_then(|bytes| bytes.checked_add(start))
                .ok_or_else(beyond)?;
            if end > slice.bytes {
                return Err(beyond());
            }
            if whole > slice.bytes.max(LARGEST_EXPANSION) {
                return Err(unread(format!(
                    "an expanded view: a tensor of {whole} bytes of a storage of {}",
                    slice.bytes
                )));
            }
            view.start = slice.start.checked_add(start).ok_or_else(beyond)?;
            view.reach = reach as u64;
        }
        view.shape = shape;
        view.strides = strides;
        Ok(view)
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn shape(&self) -> &[i64] {
        &self.shape
    }

    /// Whether the elements lie one after the other, in the order of the indices.
    pub(super) fn is_contiguous(&self) -> bool {
        let mut expected = 1i64;
        self.shape.iter().zip(&self.strides).rev().all(|(&n, &stride)| {
            let fits = n == 1 || stride == expected;
            expected = expected.saturating_mul(n);
            fits
        })
    }

    /// Bytes of the tensor when it is contiguous.
    pub(super) fn bytes(&self) -> u64 {
        let elements: i64 = self.shape.iter().product();
        elements.unsigned_abs().saturating_mul(self.kind.elt_size_in_bytes() as u64)
    }
}
