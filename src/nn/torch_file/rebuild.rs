//! What the opcodes REDUCE, NEWOBJ, BUILD and BINPERSID make of the table's classes and functions: torch/_utils.py,
//! torch/nn/parameter.py, torch/serialization.py (2.13.0), and what they were before PyTorch 0.4. Each is a match on
//! numbers and tuples: nothing is called.

use super::{
    elements::ElementType,
    faults::{damaged, shown, unread},
    globals::PickleGlobal,
    objects::{NumpyType, ObjectArena, ObjectId, PickledObject},
    storages::{StorageSlice, StorageTable, StridedView},
};
use crate::error::{Error, Result};

fn odd(what: &str) -> Error {
    damaged(format!("{what} with arguments that torch.save does not write"))
}

/// None of the functions takes more; a longer tuple is not worth a copy.
const MOST_ARGUMENTS: usize = 16;

/// The parts of a tuple of arguments.
fn arguments(arena: &ObjectArena, tuple: ObjectId) -> Option<Vec<ObjectId>> {
    arena.tuple(tuple).filter(|parts| parts.len() <= MOST_ARGUMENTS).map(<[ObjectId]>::to_vec)
}

/// `function(*tuple)`.
pub(super) fn reduce(arena: &mut ObjectArena, function: ObjectId, tuple: ObjectId) -> Result<ObjectId> {
    let PickledObject::Global(global) = *arena.get(function) else {
        return Err(unread(format!("the pickle calls {}", arena.word(function))));
    };
    let Some(parts) = arguments(arena, tuple) else { return Err(odd("REDUCE")) };
    use PickleGlobal as G;
    match (global, parts.as_slice()) {
        (G::RebuildFromType, [function, class, inner, ..]) => {
            let is_tensor = matches!(arena.get(*class), PickledObject::Global(G::Tensor | G::Parameter));
            match (arena.get(*function), arguments(arena, *inner)) {
                (PickledObject::Global(function), Some(inner)) if is_tensor => {
                    tensor(arena, *function, &inner)
                }
                _ => Err(odd("_rebuild_from_type_v2")),
            }
        }
        (G::RebuildTensor | G::RebuildTypedTensor | G::RebuildParameter, parts) => {
            tensor(arena, global, parts)
        }
        (G::Tensor, []) => arena.add(PickledObject::BareTensor),
        (G::Device, _) => arena.add(PickledObject::Device),
        (G::Size, [sides]) if arena.tuple(*sides).is_some() => Ok(*sides),
        (G::Set, [parts]) => {
            let parts = arena.sequence(*parts).ok_or_else(|| odd("set"))?.to_vec();
            arena.copy(parts.len())?;
            arena.add(PickledObject::Set(parts))
        }
        (G::OrderedDict | G::Counter, parts) => dict(arena, parts),
        (G::Bytes, []) => {
            let nothing = arena.bytes.take(0)?;
            arena.add(PickledObject::Bytes(nothing))
        }
        (G::EncodeBytes, [text, encoding]) => match (arena.get(*text), arena.text(*encoding)) {
            (PickledObject::Text(span), Some("latin1" | "latin-1")) => {
                let span = *span;
                arena.add(PickledObject::Latin1(span))
            }
            _ => Err(odd("_codecs.encode")),
        },
        (G::NumpyDtype, [name, ..]) => {
            let name = arena.text(*name).unwrap_or_default();
            let number = numpy_type(name)
                .ok_or_else(|| unread(format!("a NumPy value of the type {:?}", shown(name))))?;
            arena.add(PickledObject::NumpyDtype(number))
        }
        (G::NumpyScalar, [dtype, bytes]) => numpy_scalar(arena, *dtype, *bytes),
        _ => Err(odd(&format!("{global:?}"))),
    }
}

/// `class.__new__(class, *tuple)`.
pub(super) fn new_object(arena: &mut ObjectArena, class: ObjectId, tuple: ObjectId) -> Result<ObjectId> {
    let PickledObject::Global(global) = *arena.get(class) else {
        return Err(unread(format!("the pickle makes an object of {}", arena.word(class))));
    };
    let Some(parts) = arguments(arena, tuple) else { return Err(odd("NEWOBJ")) };
    match (global, parts.as_slice()) {
        (PickleGlobal::Parameter | PickleGlobal::Tensor, []) => arena.add(PickledObject::BareTensor),
        (PickleGlobal::Parameter, [data, ..]) if is_tensor(arena, *data) => Ok(*data),
        (PickleGlobal::OrderedDict, []) => dict(arena, &[]),
        _ => Err(odd(&format!("{global:?}"))),
    }
}

/// `object.__setstate__(state)`, or the state into `object.__dict__`.
pub(super) fn build(arena: &mut ObjectArena, object: ObjectId, state: ObjectId) -> Result<()> {
    match arena.get(object) {
        // Attributes: a state_dict's `_metadata`, a parameter's flags.
        PickledObject::Dict(_) | PickledObject::Tensor(_) | PickledObject::OtherTensor(_) => Ok(()),
        PickledObject::NumpyDtype(_) => match arena.tuple(state).and_then(|parts| arena.text(*parts.get(1)?))
        {
            Some("<" | "|" | "=") => Ok(()),
            _ => Err(unread("a NumPy value that is not little-endian")),
        },
        PickledObject::BareTensor => {
            let state = arguments(arena, state).unwrap_or_default();
            let built = match state.as_slice() {
                [_, _, _, _] => tensor(arena, PickleGlobal::RebuildTensor, &state)?,
                // A parameter before PyTorch 0.2.
                [data, _, _, _, _] if is_tensor(arena, *data) => *data,
                _ => return Err(odd("BUILD of a tensor")),
            };
            let made = match arena.get(built) {
                PickledObject::Tensor(view) => PickledObject::Tensor(view.clone()),
                PickledObject::OtherTensor(element) => PickledObject::OtherTensor(element),
                _ => return Err(odd("BUILD of a tensor")),
            };
            if let Some(bare) = arena.get_mut(object) {
                *bare = made;
            }
            Ok(())
        }
        _ => Err(unread(format!("the pickle sets the state of {}", arena.word(object)))),
    }
}

fn is_tensor(arena: &ObjectArena, id: ObjectId) -> bool {
    matches!(arena.get(id), PickledObject::Tensor(_) | PickledObject::OtherTensor(_))
}

/// A tensor by one of the functions in torch/_utils.py.
fn tensor(arena: &mut ObjectArena, function: PickleGlobal, arguments: &[ObjectId]) -> Result<ObjectId> {
    let (storage, offset, shape, strides, dtype) = match (function, arguments) {
        (PickleGlobal::RebuildParameter, [data, ..]) if is_tensor(arena, *data) => return Ok(*data),
        (PickleGlobal::RebuildTensor, [storage, offset, shape, strides, ..]) => {
            (*storage, *offset, *shape, *strides, None)
        }
        (PickleGlobal::RebuildTypedTensor, [storage, offset, shape, strides, _, _, dtype, ..]) => {
            (*storage, *offset, *shape, *strides, Some(*dtype))
        }
        _ => return Err(odd("a tensor")),
    };
    let PickledObject::Storage(slice) = *arena.get(storage) else { return Err(odd("a tensor")) };
    let typed: Option<&ElementType> = match dtype.map(|dtype| arena.get(dtype)) {
        Some(PickledObject::Global(PickleGlobal::Dtype(element))) => Some(element),
        Some(_) => None,
        None => slice.element,
    };
    let element = typed.ok_or_else(|| odd("a tensor without a type"))?;
    let Some(kind) = element.kind else { return arena.add(PickledObject::OtherTensor(element)) };
    let integers = |id: ObjectId| -> Option<Vec<i64>> {
        arena.sequence(id)?.iter().map(|&part| arena.integer(part)).collect()
    };
    let (Some(offset), Some(shape), Some(strides)) =
        (arena.integer(offset), integers(shape), integers(strides))
    else {
        return Err(odd("a tensor"));
    };
    let view = StridedView::new(&slice, (kind, element.size), offset, shape, strides)?;
    arena.add(PickledObject::Tensor(Box::new(view)))
}

/// A dict of no arguments, of a list of pairs (Python 2), or of another dict.
fn dict(arena: &mut ObjectArena, arguments: &[ObjectId]) -> Result<ObjectId> {
    let pairs = match arguments {
        [] => Vec::new(),
        [pairs] => match arena.get(*pairs) {
            PickledObject::Dict(pairs) => pairs.clone(),
            PickledObject::List(list) => {
                let pair = |id: &ObjectId| match arena.sequence(*id) {
                    Some([key, value]) => Some((*key, *value)),
                    _ => None,
                };
                list.iter().map(pair).collect::<Option<Vec<_>>>().ok_or_else(|| odd("a dict"))?
            }
            _ => return Err(odd("a dict")),
        },
        _ => return Err(odd("a dict")),
    };
    arena.copy(pairs.len().saturating_mul(2))?;
    arena.add(PickledObject::Dict(pairs))
}

/// `persistent_load`: the tuple that stands for a storage.
pub(super) fn storage(
    arena: &ObjectArena,
    storages: &mut StorageTable,
    id: ObjectId,
) -> Result<StorageSlice> {
    let parts = arena.tuple(id).unwrap_or_default();
    let word = parts.first().and_then(|first| arena.text(*first));
    match word {
        Some("storage") => {}
        Some("module") => return Err(unread("a whole module with its code (torch.save(model))")),
        _ => return Err(odd("a persistent id")),
    }
    let (class, key, count, view) = match parts {
        [_, class, key, _, count] => (class, key, count, None),
        [_, class, key, _, count, view] => (class, key, count, Some(*view)),
        _ => return Err(odd("a storage")),
    };
    let element = match arena.get(*class) {
        PickledObject::Global(PickleGlobal::Storage(element)) => Some(*element),
        PickledObject::Global(PickleGlobal::UntypedStorage) => None,
        _ => return Err(odd("a storage")),
    };
    let size = element.map_or(1, |element| element.size);
    let bytes = |count: ObjectId| u64::try_from(arena.integer(count)?).ok()?.checked_mul(size);
    let (Some(key), Some(all)) = (arena.text(*key), bytes(*count)) else { return Err(odd("a storage")) };
    let number = storages.enter(key, all, size)?;
    let whole = StorageSlice { number, element, start: 0, bytes: all };
    match view.map(|view| (arena.get(view), arena.tuple(view))) {
        None | Some((PickledObject::None, _)) => Ok(whole),
        Some((_, Some([_, offset, count]))) => {
            let (Some(start), Some(bytes)) = (bytes(*offset), bytes(*count)) else {
                return Err(odd("a part of a storage"));
            };
            match start.checked_add(bytes) {
                Some(end) if end <= all => Ok(StorageSlice { start, bytes, ..whole }),
                _ => Err(damaged(format!(
                    "a part of {bytes} bytes from byte {start} on in a storage of {all}"
                ))),
            }
        }
        Some(_) => Err(odd("a part of a storage")),
    }
}

fn numpy_type(name: &str) -> Option<NumpyType> {
    Some(match name {
        "f2" => NumpyType::Float(2),
        "f4" => NumpyType::Float(4),
        "f8" => NumpyType::Float(8),
        "i1" => NumpyType::Signed(1),
        "i2" => NumpyType::Signed(2),
        "i4" => NumpyType::Signed(4),
        "i8" => NumpyType::Signed(8),
        "u1" => NumpyType::Unsigned(1),
        "u2" => NumpyType::Unsigned(2),
        "u4" => NumpyType::Unsigned(4),
        "u8" => NumpyType::Unsigned(8),
        "b1" => NumpyType::Bool,
        _ => return None,
    })
}

/// `numpy.core.multiarray.scalar`: a number by its type and its bytes, the least significant first.
fn numpy_scalar(arena: &mut ObjectArena, dtype: ObjectId, bytes: ObjectId) -> Result<ObjectId> {
    let wrong = || odd("a NumPy scalar");
    let PickledObject::NumpyDtype(kind) = *arena.get(dtype) else { return Err(wrong()) };
    let width = match kind {
        NumpyType::Float(width) | NumpyType::Signed(width) | NumpyType::Unsigned(width) => usize::from(width),
        NumpyType::Bool => 1,
    };
    let given: Vec<u8> = match arena.get(bytes) {
        PickledObject::Bytes(span) => arena.bytes.of(*span).iter().take(9).copied().collect(),
        PickledObject::Latin1(span) => {
            let chars = arena.bytes.text(*span).unwrap_or_default().chars().take(9);
            chars.map(|c| u8::try_from(u32::from(c)).ok()).collect::<Option<_>>().ok_or_else(wrong)?
        }
        _ => return Err(wrong()),
    };
    if given.len() != width {
        return Err(wrong());
    }
    let mut wide = [0u8; 8];
    wide.iter_mut().zip(&given).for_each(|(to, from)| *to = *from);
    let raw = u64::from_le_bytes(wide);
    // The sign, from the number's own width to 64 bits.
    let shift = 64 - 8 * width as u32;
    arena.add(match kind {
        NumpyType::Float(2) => PickledObject::Float(half::f16::from_bits(raw as u16).to_f64()),
        NumpyType::Float(4) => PickledObject::Float(f32::from_bits(raw as u32).into()),
        NumpyType::Float(_) => PickledObject::Float(f64::from_bits(raw)),
        NumpyType::Signed(_) => PickledObject::Integer(((raw << shift) as i64) >> shift),
        NumpyType::Unsigned(_) => {
            i64::try_from(raw).map_or(PickledObject::LongInteger, PickledObject::Integer)
        }
        NumpyType::Bool => PickledObject::Bool(raw != 0),
    })
}
