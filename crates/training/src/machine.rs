//! How much memory there is for this process: what the machine has, and what its control groups let it have.

use std::fs;
use std::path::{Path, PathBuf};

/// Memory of the machine, or of the tightest control group around this process where that is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineMemory {
    /// All of it.
    pub total_bytes: u64,
    /// What a process may still take: free, or held by caches that give way.
    pub available_bytes: u64,
}

/// Memory for this process; `None` where the system does not tell (anything but Linux for now).
pub fn machine_memory() -> Option<MachineMemory> {
    read(Path::new("/"))
}

/// As [`machine_memory`], with `/proc` and `/sys` below `root`.
fn read(root: &Path) -> Option<MachineMemory> {
    let machine = of_machine(&fs::read_to_string(root.join("proc/meminfo")).ok()?)?;
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().filter_map(Hierarchy::of_line).flat_map(|group| group.limits(root));
    Some(limits.fold(machine, |least, limit| MachineMemory {
        total_bytes: least.total_bytes.min(limit.total_bytes),
        available_bytes: least.available_bytes.min(limit.available_bytes),
    }))
}

/// Reads `/proc/meminfo` (proc(5)): kibibytes, written `kB`.
fn of_machine(meminfo: &str) -> Option<MachineMemory> {
    let bytes_of = |key: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(MachineMemory { total_bytes: bytes_of("MemTotal:")?, available_bytes: bytes_of("MemAvailable:")? })
}

/// A hierarchy of control groups that counts memory, and the group of this process in it (cgroups(7)).
struct Hierarchy<'a> {
    mounts: &'static [&'static str],
    limit: &'static str,
    usage: &'static str,
    /// The key of caches that give way, in `memory.stat`.
    cache: &'static str,
    group: &'a str,
}

impl<'a> Hierarchy<'a> {
    /// Reads a line `number:controllers:group` of `/proc/self/cgroup`.
    fn of_line(line: &'a str) -> Option<Self> {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next()?, fields.next()?);
        if controllers.is_empty() {
            return Some(Self {
                mounts: &["sys/fs/cgroup", "sys/fs/cgroup/unified"],
                limit: "memory.max",
                usage: "memory.current",
                cache: "inactive_file",
                group,
            });
        }
        controllers.split(',').any(|controller| controller == "memory").then_some(Self {
            mounts: &["sys/fs/cgroup/memory"],
            limit: "memory.limit_in_bytes",
            usage: "memory.usage_in_bytes",
            cache: "total_inactive_file",
            group,
        })
    }

    /// The limits of the group and of all above it, as far as they can be seen from here: in a container the group's
    /// own files may lie at the mount itself.
    fn limits(&self, root: &Path) -> Vec<MachineMemory> {
        let group = Path::new(self.group.trim_start_matches('/'));
        let folders = |mount: &&str| group.ancestors().map(|group| root.join(mount).join(group)).collect();
        let folders = self.mounts.iter().flat_map::<Vec<PathBuf>, _>(folders);
        folders.filter_map(|folder| self.limit_of(&folder)).collect()
    }

    fn limit_of(&self, folder: &Path) -> Option<MachineMemory> {
        let number = |file: &str| fs::read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok();
        // Where there is no limit it is the word `max`, or a number beyond any machine.
        let total_bytes = number(self.limit)?;
        let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let cache = stat.lines().find_map(|line| line.strip_prefix(self.cache)?.trim().parse::<u64>().ok());
        let held = number(self.usage).unwrap_or(0).saturating_sub(cache.unwrap_or(0));
        Some(MachineMemory { total_bytes, available_bytes: total_bytes.saturating_sub(held) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A root with these files.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const MEMINFO: (&str, &str) =
        ("proc/meminfo", "MemTotal:  1024000 kB\nMemFree: 1 kB\nMemAvailable:  512000 kB\n");

    fn mebibytes(files: &[(&str, &str)]) -> Option<[u64; 2]> {
        let root = root(files);
        read(root.path()).map(|memory| [memory.total_bytes / MIB, memory.available_bytes / MIB])
    }

    #[test]
    fn a_machine_without_limits_is_told_by_meminfo_and_no_linux_tells_nothing() {
        assert_eq!(mebibytes(&[MEMINFO]), Some([1000, 500]));
        assert_eq!(mebibytes(&[]), None);
        let group = ("proc/self/cgroup", "0::/user.slice\n");
        let unlimited = ("sys/fs/cgroup/user.slice/memory.max", "max\n");
        assert_eq!(mebibytes(&[MEMINFO, group, unlimited]), Some([1000, 500]));
    }

    #[test]
    fn the_tightest_group_of_the_second_version_counts_and_its_caches_give_way() {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "0::/jobs/one\n"),
            ("sys/fs/cgroup/jobs/one/memory.max", "max\n"),
            ("sys/fs/cgroup/jobs/memory.max", "314572800\n"),
            ("sys/fs/cgroup/jobs/memory.current", "209715200\n"),
            ("sys/fs/cgroup/jobs/memory.stat", "anon 5\ninactive_file 104857600\nactive_file 7\n"),
        ];
        assert_eq!(mebibytes(&files), Some([300, 200]));
    }

    #[test]
    fn a_group_of_the_first_version_counts_also_where_a_container_sees_it_at_the_mount() {
        let limit = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "104857600\n");
        let usage = ("sys/fs/cgroup/memory/memory.usage_in_bytes", "52428800\n");
        let stat = ("sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 10485760\n");
        let group = ("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n");
        assert_eq!(mebibytes(&[MEMINFO, group, limit, usage, stat]), Some([100, 60]));
        let unlimited = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(mebibytes(&[MEMINFO, group, unlimited]), Some([1000, 500]));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_has_memory() {
        let memory = machine_memory().unwrap();
        assert!(memory.available_bytes > 0 && memory.available_bytes <= memory.total_bytes);
    }
}
