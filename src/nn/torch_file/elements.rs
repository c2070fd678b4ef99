//! The element types of PyTorch's tensors: torch/storage.py `_dtype_to_storage_type_map`, torch/_dtypes (2.13.0).

use tch::Kind;

/// One element type, by the names that a pickle has for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ElementType {
    /// `torch.NAME`.
    pub dtype: &'static str,
    /// `torch.NAME` of the storages; empty where tensors of this type have an untyped storage.
    pub storage: &'static str,
    /// Bytes of an element.
    pub size: u64,
    /// None: tensors of this type are not read.
    pub kind: Option<Kind>,
}

const fn read(dtype: &'static str, storage: &'static str, size: u64, kind: Kind) -> ElementType {
    ElementType { dtype, storage, size, kind: Some(kind) }
}

const fn known(dtype: &'static str, storage: &'static str, size: u64) -> ElementType {
    ElementType { dtype, storage, size, kind: None }
}

static TYPES: [ElementType; 24] = [
    read("float32", "FloatStorage", 4, Kind::Float),
    read("float64", "DoubleStorage", 8, Kind::Double),
    read("float16", "HalfStorage", 2, Kind::Half),
    read("bfloat16", "BFloat16Storage", 2, Kind::BFloat16),
    read("int64", "LongStorage", 8, Kind::Int64),
    read("int32", "IntStorage", 4, Kind::Int),
    read("int16", "ShortStorage", 2, Kind::Int16),
    read("int8", "CharStorage", 1, Kind::Int8),
    read("uint8", "ByteStorage", 1, Kind::Uint8),
    read("bool", "BoolStorage", 1, Kind::Bool),
    known("complex32", "ComplexHalfStorage", 4),
    known("complex64", "ComplexFloatStorage", 8),
    known("complex128", "ComplexDoubleStorage", 16),
    known("qint8", "QInt8Storage", 1),
    known("quint8", "QUInt8Storage", 1),
    known("qint32", "QInt32Storage", 4),
    known("uint16", "", 2),
    known("uint32", "", 4),
    known("uint64", "", 8),
    known("float8_e4m3fn", "", 1),
    known("float8_e5m2", "", 1),
    known("float8_e4m3fnuz", "", 1),
    known("float8_e5m2fnuz", "", 1),
    known("float8_e8m0fnu", "", 1),
];

/// The type that `torch.NAME` is.
pub(super) fn of_dtype(name: &str) -> Option<&'static ElementType> {
    TYPES.iter().find(|element| element.dtype == name)
}

/// The type of the elements of `torch.NAME`, a class of storages.
pub(super) fn of_storage(name: &str) -> Option<&'static ElementType> {
    TYPES.iter().find(|element| !element.storage.is_empty() && element.storage == name)
}

/// The type of the elements of `torch.NAME`, a class of tensors before PyTorch 0.4.
pub(super) fn of_tensor(name: &str) -> Option<&'static ElementType> {
    let class = name.strip_suffix("Tensor")?;
    TYPES
        .iter()
        .find(|element| element.kind.is_some() && element.storage.strip_suffix("Storage") == Some(class))
}
