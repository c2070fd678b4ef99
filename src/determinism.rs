//! Same spec, same seed, same device: same bytes, on a GPU too.
//!
//! On CUDA libtorch takes the fastest kernel unless it is told otherwise, and some of those add up in an
//! order that changes from run to run. Those it has no other for are refused (an error names them), so
//! nothing here uses one: `nll_loss2d` with a mean, adaptive pooling to more than a pixel.

use std::ffi::c_void;

// ATen/Context.h, which tch does not reach. The mangled names hold the types of the arguments: a libtorch with
// others would not link.
unsafe extern "C" {
    #[link_name = "_ZN2at13globalContextEv"]
    fn global_context() -> *mut c_void;
    #[link_name = "_ZN2at7Context26setDeterministicAlgorithmsEbb"]
    fn set_deterministic_algorithms(context: *mut c_void, on: bool, only_warn: bool);
    #[link_name = "_ZN2at7Context39setDeterministicFillUninitializedMemoryEb"]
    fn set_deterministic_fill_uninitialized_memory(context: *mut c_void, on: bool);
}

/// To be called when a program begins: cuBLAS reads this variable when it is first used, and without it libtorch
/// refuses its kernels after `require`. Whoever sets it keeps what they say.
pub fn prepare() {
    const CUBLAS: &str = "CUBLAS_WORKSPACE_CONFIG";
    if std::env::var_os(CUBLAS).is_none() {
        // SAFETY: a program that begins has no other thread that could read or write the environment. The value is
        // the one that PyTorch's documentation names.
        unsafe { std::env::set_var(CUBLAS, ":4096:8") };
    }
}

/// Asks libtorch for kernels that give the same bytes each time: before the first work on a GPU. The CPU's are so
/// without.
pub(crate) fn require() {
    // SAFETY: plain setters of the process's one context, which lives as long as the process.
    unsafe {
        let context = global_context();
        set_deterministic_algorithms(context, true, false);
        // Every new tensor would be filled first; none here is read before it is written.
        set_deterministic_fill_uninitialized_memory(context, false);
    }
}
