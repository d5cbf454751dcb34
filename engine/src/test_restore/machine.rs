//! The memory of this host.

use std::fs;

/// Memory that a server may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What the host or the container has left, in MiB.
    pub available_mib: u64,
}

/// What is assumed if the system does not tell.
const AVAILABLE_MIB_DEFAULT: u64 = 512;

impl Memory {
    /// Measures this host. The limit of a control group counts, if it is lower.
    pub fn of_this_host() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let host = meminfo_available_mib(&read("/proc/meminfo"));
        let group = group_left_mib(&read("/sys/fs/cgroup/memory.max"), &read("/sys/fs/cgroup/memory.current"));
        let available = host.into_iter().chain(group).min();
        Memory { available_mib: available.unwrap_or(AVAILABLE_MIB_DEFAULT) }
    }

    /// Returns the size of the server's buffers, in MiB.
    pub fn shared_buffers_mib(self) -> u64 {
        (self.available_mib / 4).clamp(16, 1024)
    }

    /// Returns the memory of one check of an index, in MiB.
    pub fn maintenance_mib(self) -> u64 {
        (self.available_mib / 16).clamp(8, 256)
    }
}

fn meminfo_available_mib(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib / 1024)
}

fn group_left_mib(max: &str, current: &str) -> Option<u64> {
    // Without a limit it is a word
    let max: u64 = max.trim().parse().ok()?;
    let current: u64 = current.trim().parse().unwrap_or(0);
    Some(max.saturating_sub(current) >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_fits_small_and_large_hosts() {
        let sizes = |available_mib| {
            let memory = Memory { available_mib };
            (memory.shared_buffers_mib(), memory.maintenance_mib())
        };
        assert_eq!(sizes(0), (16, 8));
        assert_eq!(sizes(2048), (512, 128));
        assert_eq!(sizes(1 << 20), (1024, 256));
    }

    #[test]
    fn limit_of_the_control_group_is_read() {
        assert_eq!(meminfo_available_mib("MemTotal: 9 kB\nMemAvailable:   2097152 kB\n"), Some(2048));
        assert_eq!(group_left_mib("max\n", "1"), None);
        assert_eq!(group_left_mib("1073741824\n", "536870912\n"), Some(512));
        assert_eq!(group_left_mib("1", "9999999999"), Some(0));
    }
}
