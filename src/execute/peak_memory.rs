//! The most memory that this process had. Linux tells it; elsewhere it is not known.

use std::fs;

/// Counts from now on.
pub fn reset() {
    // "5" sets the peak to what is in use (man 5 proc_pid_clear_refs).
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// In bytes.
pub fn read() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_peak_stays_when_the_memory_is_given_back() {
        let before = read().unwrap();
        let many = vec![1u8; 256 << 20];
        assert_eq!(many.iter().map(|&byte| u64::from(byte)).sum::<u64>(), 256 << 20);
        drop(many);
        // Other tests of this process use memory, too, and none of them resets the peak.
        assert!(read().unwrap() >= 256 << 20, "{before}");
    }
}
