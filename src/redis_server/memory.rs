//! How much memory the embedded Redis may take: half of what there is, since the rewrite of its file may need as much again.

use std::{fs, path::Path};

const MEMINFO: &str = "/proc/meminfo";
/// What a container may have (cgroup v2).
const CGROUP_LIMIT: &str = "/sys/fs/cgroup/memory.max";

/// The limit, in bytes; `None` where the system does not say what there is.
pub fn limit_bytes() -> Option<u64> {
    let read = |path: &str| fs::read_to_string(Path::new(path)).ok();
    let machine = read(MEMINFO).as_deref().and_then(total_of);
    let container = read(CGROUP_LIMIT).and_then(|text| text.trim().parse().ok());
    [machine, container].into_iter().flatten().min().map(|bytes| bytes / 2)
}

/// `MemTotal` of /proc/meminfo, which is in KiB.
fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read_in_bytes() {
        assert_eq!(total_of("MemFree: 1 kB\nMemTotal:       24576 kB\n"), Some(24_576 * 1024));
        for bad in ["", "MemTotal:", "MemTotal: x kB", "MemTotal: 5"] {
            assert_eq!(total_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn there_is_a_limit_on_linux() {
        if cfg!(target_os = "linux") {
            assert!(limit_bytes().is_some_and(|bytes| bytes > 0));
        }
    }
}
