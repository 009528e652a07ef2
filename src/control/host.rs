//! What the machine and the process's control group allow.

use std::path::Path;

use crate::operations::process::{ProcTexts, ProcessFacts};

/// Bytes of memory that the process may use: the least of the machine's memory and what each of
/// its control groups (version 2) allows; 0 = unknown.
pub fn memory_limit_bytes() -> u64 {
    let texts = ProcTexts {
        meminfo: &read("/proc/meminfo"),
        cgroup_memory_max: &cgroup_memory_max(),
        ..ProcTexts::default()
    };
    ProcessFacts::read(&texts).memory_limit_bytes
}

/// A file's text; empty if there is none.
pub(super) fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The least `memory.max` on the way from the process's control group to the root.
pub(super) fn cgroup_memory_max() -> String {
    least_memory_max(Path::new("/sys/fs/cgroup"), &read("/proc/self/cgroup"))
}

fn least_memory_max(root: &Path, groups: &str) -> String {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    // In a container with a namespace of its own the path is `/`, or leads out of it.
    let group = root.join(own.unwrap_or(""));
    let limits = group
        .ancestors()
        .take_while(|dir| dir.starts_with(root))
        .filter_map(|dir| read(dir.join("memory.max")).trim().parse::<u64>().ok());
    limits
        .min()
        .map_or(String::new(), |least| least.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_on_the_way_limits() {
        let root = std::env::temp_dir().join(format!("olla-cgroup-{}", std::process::id()));
        let slice = root.join("system.slice");
        let service = slice.join("olla.service");
        std::fs::create_dir_all(&service).unwrap();
        let least = |groups| least_memory_max(&root, groups);
        assert_eq!(least("0::/system.slice/olla.service\n"), "");
        std::fs::write(service.join("memory.max"), "max\n").unwrap();
        std::fs::write(slice.join("memory.max"), "4096\n").unwrap();
        let groups = "1:cpu:/\n0::/system.slice/olla.service\n";
        assert_eq!(least(groups), "4096");
        std::fs::write(service.join("memory.max"), "1024\n").unwrap();
        assert_eq!(least(groups), "1024");
        assert_eq!(least("0::/\n"), "", "the root's own");
        std::fs::write(root.join("memory.max"), "512\n").unwrap();
        assert_eq!(least("0::/\n"), "512");
        assert_eq!(least(""), "512", "no version 2 in the list");
        assert_eq!(least("0::/../elsewhere\n"), "512", "out of the namespace");
        std::fs::remove_dir_all(&root).unwrap();
    }
}
