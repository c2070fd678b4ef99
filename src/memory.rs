//! Memory of large tensors.

/// Keeps freed memory for the next tensor instead of giving it back to the system: to be called when a
/// program begins.
///
/// A training step takes and frees gigabytes. Left to itself, glibc maps each large tensor afresh, and
/// the system has to find and clear every page of it again: for the paper's DDPM in batches of 16 on two
/// cores, four million page faults and half of the step's time. The memory at the peak stays the same.
/// Whoever sets glibc's own variables keeps what they say.
pub fn keep() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;
        const M_TRIM_THRESHOLD: c_int = -1;
        const M_MMAP_MAX: c_int = -4;
        unsafe extern "C" {
            fn mallopt(parameter: c_int, value: c_int) -> c_int;
        }
        let told = |name: &str| std::env::var_os(name).is_some();
        if ["GLIBC_TUNABLES", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_"].into_iter().any(told) {
            return;
        }
        // SAFETY: mallopt only sets parameters of the allocator; where it refuses, all stays as it was.
        unsafe {
            mallopt(M_MMAP_MAX, 0);
            mallopt(M_TRIM_THRESHOLD, -1); // never
        }
    }
}
