//! The classes and functions that a checkpoint may name. A name that is not in this table is refused, and none is
//! ever looked up in anything but this table: the list of torch/_weights_only_unpickler.py (2.13.0), without what
//! holds no dense tensor.

use super::elements::{self, ElementType};

/// What a GLOBAL or STACK_GLOBAL opcode stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PickleGlobal {
    OrderedDict,
    Counter,
    Set,
    Bytes,
    Size,
    Device,
    /// `torch.Tensor`, or one of the classes before PyTorch 0.4.
    Tensor,
    Parameter,
    Dtype(&'static ElementType),
    Storage(&'static ElementType),
    UntypedStorage,
    /// `_rebuild_tensor` and `_rebuild_tensor_v2`: the storage knows the type.
    RebuildTensor,
    /// `_rebuild_tensor_v3`: the storage is untyped.
    RebuildTypedTensor,
    RebuildParameter,
    RebuildFromType,
    /// `_codecs.encode`, which protocol 2 writes bytes with.
    EncodeBytes,
    NumpyDtype,
    NumpyScalar,
}

/// The global of this module and name; Python 2's names count too.
pub(super) fn find(module: &str, name: &str) -> Option<PickleGlobal> {
    use PickleGlobal as G;
    Some(match (module, name) {
        ("collections", "OrderedDict") => G::OrderedDict,
        ("collections", "Counter") => G::Counter,
        ("builtins" | "__builtin__", "set") => G::Set,
        ("builtins" | "__builtin__", "bytes") => G::Bytes,
        ("torch", "Size") => G::Size,
        ("torch", "device") => G::Device,
        ("torch", "Tensor") => G::Tensor,
        ("torch.nn.parameter", "Parameter") => G::Parameter,
        ("torch", "UntypedStorage") | ("torch.storage", "UntypedStorage") => G::UntypedStorage,
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => G::RebuildTensor,
        ("torch._utils", "_rebuild_tensor_v3") => G::RebuildTypedTensor,
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => G::RebuildParameter,
        // `torch.tensor` was the module's name before PyTorch 1.9.
        ("torch._tensor" | "torch.tensor", "_rebuild_from_type_v2") => G::RebuildFromType,
        ("_codecs", "encode") => G::EncodeBytes,
        ("numpy", "dtype") => G::NumpyDtype,
        ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => G::NumpyScalar,
        ("torch", name) => elements::of_dtype(name)
            .map(G::Dtype)
            .or_else(|| elements::of_storage(name).map(G::Storage))
            .or_else(|| elements::of_tensor(name).map(|_| G::Tensor))?,
        ("torch.cuda", name) => elements::of_tensor(name).map(|_| G::Tensor)?,
        _ => return None,
    })
}
