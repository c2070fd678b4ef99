//! The objects that a pickle describes, by number. References are numbers, so that what refers to itself needs no
//! special care while it is read, and nothing is freed by recursion.

use super::{
    elements::ElementType,
    faults::unread,
    globals::PickleGlobal,
    pickle_bytes::{ByteSpan, PickleBytes},
    storages::{StorageSlice, StridedView},
};
use crate::error::Result;

/// Objects of a pickle; a tensor takes some 20.
pub(super) const MOST_OBJECTS: usize = 2_000_000;

/// Containers within containers. Trainers' checkpoints have some 15.
const DEEPEST: usize = 100;

/// The number of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ObjectId(u32);

#[derive(Debug)]
pub(super) enum PickledObject {
    None,
    Bool(bool),
    Integer(i64),
    /// A whole number beyond 64 bits: nothing needs its value.
    LongInteger,
    Float(f64),
    /// UTF-8, which has been checked.
    Text(ByteSpan),
    Bytes(ByteSpan),
    /// Bytes, written as a text of the characters 0 to 255.
    Latin1(ByteSpan),
    /// A tuple or a torch.Size.
    Tuple(Box<[ObjectId]>),
    List(Vec<ObjectId>),
    Set(Vec<ObjectId>),
    /// A dict, OrderedDict or Counter, with its pairs as they were set: the last one of a key counts.
    Dict(Vec<(ObjectId, ObjectId)>),
    Device,
    Global(PickleGlobal),
    NumpyDtype(NumpyType),
    Storage(StorageSlice),
    Tensor(Box<StridedView>),
    /// A tensor whose elements' type is not read.
    OtherTensor(&'static ElementType),
    /// A tensor that is still to be built.
    BareTensor,
}

/// The type of a NumPy scalar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NumpyType {
    Float(u8),
    Signed(u8),
    Unsigned(u8),
    Bool,
}

/// All objects, and the bytes that their texts lie in.
#[derive(Debug)]
pub(super) struct ObjectArena {
    objects: Vec<PickledObject>,
    /// References that were copied from one container into another.
    copied: usize,
    pub bytes: PickleBytes,
}

impl ObjectArena {
    pub fn new(bytes: PickleBytes) -> Self {
        Self { objects: Vec::new(), copied: 0, bytes }
    }

    pub fn add(&mut self, object: PickledObject) -> Result<ObjectId> {
        self.copy(1)?;
        self.objects.push(object);
        Ok(ObjectId(self.objects.len() as u32 - 1))
    }

    /// Counts `references` that are copied, for two opcodes may ask for a long list again and again.
    pub fn copy(&mut self, references: usize) -> Result<()> {
        self.copied = self.copied.saturating_add(references);
        match self.copied > MOST_OBJECTS {
            true => Err(unread(format!("a pickle of more than {MOST_OBJECTS} objects"))),
            false => Ok(()),
        }
    }

    pub fn get(&self, id: ObjectId) -> &PickledObject {
        self.objects.get(id.0 as usize).unwrap_or(&PickledObject::None)
    }

    pub fn get_mut(&mut self, id: ObjectId) -> Option<&mut PickledObject> {
        self.objects.get_mut(id.0 as usize)
    }

    pub fn text(&self, id: ObjectId) -> Option<&str> {
        match self.get(id) {
            PickledObject::Text(span) => self.bytes.text(*span),
            _ => None,
        }
    }

    pub fn integer(&self, id: ObjectId) -> Option<i64> {
        match self.get(id) {
            PickledObject::Integer(value) => Some(*value),
            _ => None,
        }
    }

    /// The parts of a tuple.
    pub fn tuple(&self, id: ObjectId) -> Option<&[ObjectId]> {
        match self.get(id) {
            PickledObject::Tuple(parts) => Some(parts),
            _ => None,
        }
    }

    /// The parts of a tuple or a list.
    pub fn sequence(&self, id: ObjectId) -> Option<&[ObjectId]> {
        match self.get(id) {
            PickledObject::Tuple(parts) => Some(parts),
            PickledObject::List(parts) => Some(parts),
            _ => None,
        }
    }

    /// What an object is, in a word.
    pub fn word(&self, id: ObjectId) -> &'static str {
        match self.get(id) {
            PickledObject::None => "None",
            PickledObject::Bool(_) => "a bool",
            PickledObject::Integer(_) | PickledObject::LongInteger => "an int",
            PickledObject::Float(_) => "a float",
            PickledObject::Text(_) => "a str",
            PickledObject::Bytes(_) | PickledObject::Latin1(_) => "bytes",
            PickledObject::Tuple(_) => "a tuple",
            PickledObject::List(_) => "a list",
            PickledObject::Set(_) => "a set",
            PickledObject::Dict(_) => "a dict",
            PickledObject::Device => "a torch.device",
            PickledObject::Global(_) => "a class or function",
            PickledObject::NumpyDtype(_) => "a numpy.dtype",
            PickledObject::Storage(_) => "a storage",
            PickledObject::Tensor(_) | PickledObject::OtherTensor(_) | PickledObject::BareTensor => {
                "a tensor"
            }
        }
    }

    /// Refuses objects that contain themselves, and containers within containers without end.
    pub fn check_nesting(&self, root: ObjectId) -> Result<()> {
        #[derive(Clone, Copy, PartialEq)]
        enum Visit {
            Not,
            Open,
            Done,
        }
        let mut visits = vec![Visit::Not; self.objects.len()];
        // An object, and how many of its parts have been seen.
        let mut path = vec![(root, 0)];
        while let Some((id, seen)) = path.last_mut() {
            let id = *id;
            let Some(visit) = visits.get_mut(id.0 as usize) else { return Ok(()) };
            *visit = Visit::Open;
            let Some(part) = self.part(id, *seen) else {
                *visit = Visit::Done;
                path.pop();
                continue;
            };
            *seen += 1;
            match visits.get(part.0 as usize) {
                Some(Visit::Open) => return Err(unread("an object that contains itself")),
                Some(Visit::Not) if path.len() >= DEEPEST => {
                    return Err(unread(format!("containers nested more than {DEEPEST} deep")));
                }
                Some(Visit::Not) => path.push((part, 0)),
                _ => {}
            }
        }
        Ok(())
    }

    fn part(&self, id: ObjectId, number: usize) -> Option<ObjectId> {
        match self.get(id) {
            PickledObject::Tuple(parts) => parts.get(number).copied(),
            PickledObject::List(parts) | PickledObject::Set(parts) => parts.get(number).copied(),
            PickledObject::Dict(pairs) => {
                let &(key, value) = pairs.get(number / 2)?;
                Some(if number.is_multiple_of(2) { key } else { value })
            }
            _ => None,
        }
    }
}
