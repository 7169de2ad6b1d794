//! How much memory this process holds, as the operating system counts it.

/// Resident memory of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResidentMemory {
    /// Bytes resident now.
    pub current_bytes: u64,
    /// The most bytes ever resident since the process started.
    pub peak_bytes: u64,
}

/// Resident memory of this process; `None` where the system does not tell (anything but Linux for now).
pub fn resident_memory() -> Option<ResidentMemory> {
    parse_status(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// Reads `VmRSS` and `VmHWM` of a `/proc/<pid>/status` (proc(5)): kibibytes, written `kB`.
fn parse_status(status: &str) -> Option<ResidentMemory> {
    let bytes_of = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kibibytes * 1024)
    };
    Some(ResidentMemory { current_bytes: bytes_of("VmRSS:")?, peak_bytes: bytes_of("VmHWM:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kibibytes_become_bytes() {
        let status = "Name:\tcat\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t1\n";
        let memory = ResidentMemory { current_bytes: 1 << 20, peak_bytes: 2 << 20 };
        assert_eq!(parse_status(status), Some(memory));
    }

    #[test]
    fn a_status_without_memory_tells_nothing() {
        assert_eq!(parse_status("Name:\tkthreadd\nThreads:\t1\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn touching_memory_raises_the_peak() {
        let before = resident_memory().unwrap();
        let touched = std::hint::black_box(vec![1u8; 64 << 20]);
        let after = resident_memory().unwrap();
        drop(touched);
        assert!(after.peak_bytes >= before.current_bytes + (60 << 20));
        assert!(after.peak_bytes >= after.current_bytes);
    }
}
