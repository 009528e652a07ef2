//! What the operating system reports about this process, and the limits of its control group.

use std::path::Path;

use olla_engine::rt::sys;
use procfs::process::{Process, Stat, Status};
use procfs::{page_size, ticks_per_second};

use crate::operations::process::ProcessFacts;

/// Bytes of memory that the process may use: the least of the machine's memory and what each of
/// its control groups (version 2) allows; 0 = unknown.
pub(crate) fn memory_limit_bytes() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.and_then(|text| total_memory(&text));
    let group = least_in_groups(Path::new("/sys/fs/cgroup"), &control_group(), |dir| {
        number_in(&dir.join("memory.max"))
    });
    machine.into_iter().chain(group).min().unwrap_or(0)
}

/// `MemTotal` of `/proc/meminfo` in bytes. `procfs` reads the file only if it has all lines of
/// Linux; sandboxes such as gVisor leave some out.
fn total_memory(meminfo: &str) -> Option<u64> {
    let mut lines = meminfo.lines();
    let total = lines.find_map(|line| line.strip_prefix("MemTotal:")?.strip_suffix("kB"))?;
    total.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What the operating system reports about this process. `live_tasks` and `workers` stay 0.
pub(crate) fn process_facts() -> ProcessFacts {
    let process = Process::myself().ok();
    let stat = process.as_ref().and_then(|process| process.stat().ok());
    let status = process.as_ref().and_then(|process| process.status().ok());
    let open = process.as_ref().and_then(|process| process.fd_count().ok());
    ProcessFacts {
        memory_limit_bytes: memory_limit_bytes(),
        open_fds: open.map_or(0, |open| open as u64),
        max_fds: sys::open_files_limit().unwrap_or(0),
        cpus: sys::cpus().len() as u64,
        ..usage(stat.as_ref(), status.as_ref())
    }
}

/// Memory, processor time and threads. Sandboxes such as gVisor leave lines out of `status`, which
/// makes it unreadable; the most important values are in `stat` too.
fn usage(stat: Option<&Stat>, status: Option<&Status>) -> ProcessFacts {
    let stated = |kilobytes: fn(&Status) -> Option<u64>| {
        status.and_then(kilobytes).map_or(0, |size| size * 1024)
    };
    let ticks = stat.map_or(0, |stat| stat.utime + stat.stime);
    ProcessFacts {
        pid: std::process::id(),
        resident_bytes: match stated(|status| status.vmrss) {
            0 => stat.map_or(0, |stat| stat.rss * page_size()),
            stated => stated,
        },
        resident_peak_bytes: stated(|status| status.vmhwm),
        anonymous_bytes: stated(|status| status.rssanon),
        data_bytes: stated(|status| status.vmdata),
        stack_bytes: stated(|status| status.vmstk),
        virtual_bytes: stat.map_or(0, |stat| stat.vsize),
        cpu_seconds: ticks as f64 / ticks_per_second() as f64,
        threads: stat
            .and_then(|stat| u64::try_from(stat.num_threads).ok())
            .unwrap_or(0),
        ..ProcessFacts::default()
    }
}

/// The path of the process's control group (version 2) below the root of all groups.
fn control_group() -> String {
    let groups = Process::myself().and_then(|process| process.cgroups());
    let groups = groups.map_or_else(|_| Vec::new(), |groups| groups.0);
    let own = groups.into_iter().find(|group| group.hierarchy == 0);
    own.map_or_else(String::new, |group| group.pathname)
}

/// The number that a file consists of.
fn number_in(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The least value from a control group up to the root. In a container with a namespace of its own
/// the group is `/`, or its path leads out of the namespace.
pub(crate) fn least_in_groups(
    root: &Path,
    group: &str,
    read: impl Fn(&Path) -> Option<u64>,
) -> Option<u64> {
    let group = root.join(group.trim_start_matches('/'));
    let folders = group.ancestors().take_while(|dir| dir.starts_with(root));
    folders.filter_map(read).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_read() {
        let facts = process_facts();
        assert_eq!(facts.pid, std::process::id());
        assert!(facts.resident_bytes > 1 << 20, "{facts:?}");
        assert!(facts.resident_peak_bytes >= facts.resident_bytes / 2);
        assert!(facts.virtual_bytes >= facts.resident_bytes);
        assert!(facts.memory_limit_bytes >= facts.resident_bytes);
        assert!(facts.anonymous_bytes > 0 && facts.data_bytes > 0 && facts.stack_bytes > 0);
        assert!(facts.threads > 0 && facts.cpus > 0);
        assert!(facts.open_fds > 0 && facts.max_fds >= facts.open_fds);
    }

    #[test]
    fn the_memory_of_the_machine() {
        assert_eq!(
            total_memory("MemTotal:       8 kB\nMemFree: 1 kB\n"),
            Some(8192)
        );
        assert_eq!(total_memory("MemFree: 1 kB\n"), None);
        assert_eq!(total_memory(""), None);
    }

    #[test]
    fn without_status_the_values_of_stat_are_taken() {
        let stat = Process::myself().unwrap().stat().unwrap();
        let facts = usage(Some(&stat), None);
        assert_eq!(facts.resident_bytes, stat.rss * page_size());
        assert_eq!(facts.virtual_bytes, stat.vsize);
        assert_eq!(facts.resident_peak_bytes, 0);
        let unknown = ProcessFacts {
            pid: std::process::id(),
            ..ProcessFacts::default()
        };
        assert_eq!(usage(None, None), unknown);
    }

    #[test]
    fn each_group_up_to_the_root_limits() {
        let root = std::env::temp_dir().join(format!("olla-cgroup-{}", std::process::id()));
        let slice = root.join("system.slice");
        let service = slice.join("olla.service");
        std::fs::create_dir_all(&service).unwrap();
        let least = |group| least_in_groups(&root, group, |dir| number_in(&dir.join("memory.max")));
        assert_eq!(least("/system.slice/olla.service"), None);
        std::fs::write(service.join("memory.max"), "max\n").unwrap();
        std::fs::write(slice.join("memory.max"), "4096\n").unwrap();
        assert_eq!(least("/system.slice/olla.service"), Some(4096));
        std::fs::write(service.join("memory.max"), "1024\n").unwrap();
        assert_eq!(least("/system.slice/olla.service"), Some(1024));
        assert_eq!(least("/"), None, "the root has no limit yet");
        std::fs::write(root.join("memory.max"), "512\n").unwrap();
        assert_eq!(least("/"), Some(512));
        assert_eq!(least(""), Some(512), "no group of version 2");
        assert_eq!(least("/../elsewhere"), Some(512), "outside the namespace");
        std::fs::remove_dir_all(&root).unwrap();
    }
}
