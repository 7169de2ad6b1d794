//! How much memory this process holds, as the operating system counts it.

/// Resident memory of this process; `None` where the system does not tell (anything but Linux for now).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResidentMemory {
    /// Bytes resident now.
    pub current_bytes: Option<u64>,
    /// The most bytes ever resident since the process started.
    pub peak_bytes: Option<u64>,
}

/// Resident memory of this process.
pub fn resident_memory() -> ResidentMemory {
    std::fs::read_to_string("/proc/self/status").map(|status| parse_status(&status)).unwrap_or_default()
}

/// Reads `VmRSS` and `VmHWM` of a `/proc/<pid>/status` (proc(5)): kibibytes, written `kB`.
fn parse_status(status: &str) -> ResidentMemory {
    let bytes_of = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kibibytes * 1024)
    };
    ResidentMemory { current_bytes: bytes_of("VmRSS:"), peak_bytes: bytes_of("VmHWM:") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kibibytes_become_bytes() {
        let status = "Name:\tcat\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t1\n";
        let memory = ResidentMemory { current_bytes: Some(1 << 20), peak_bytes: Some(2 << 20) };
        assert_eq!(parse_status(status), memory);
    }

    #[test]
    fn a_status_without_memory_tells_nothing() {
        assert_eq!(parse_status("Name:\tkthreadd\nThreads:\t1\n"), ResidentMemory::default());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn touching_memory_raises_the_peak() {
        let before_bytes = resident_memory().current_bytes.unwrap();
        let touched = std::hint::black_box(vec![1u8; 64 << 20]);
        let after_bytes = resident_memory().peak_bytes.unwrap();
        drop(touched);
        assert!(after_bytes >= before_bytes + (60 << 20), "{before_bytes} {after_bytes}");
    }
}
