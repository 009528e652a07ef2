//! The default number of event loops: the CPUs that the process may run on, bounded by the quota of
//! its control group.

use std::path::Path;

use procfs::ProcessCGroups;
use procfs::process::Process;

use crate::control::host::least_in_groups;

/// The number of event loops when `server.workers` is 0.
pub(super) fn usable(affinity: usize) -> usize {
    let groups = Process::myself().and_then(|process| process.cgroups());
    let quota = groups
        .ok()
        .and_then(|groups| quota(Path::new("/sys/fs/cgroup"), &groups));
    bounded(affinity, quota)
}

/// A quota of one and a half CPUs results in two event loops: one would leave half a CPU unused.
fn bounded(affinity: usize, quota: Option<u64>) -> usize {
    let affinity = affinity.max(1);
    let quota = quota.and_then(|quota| usize::try_from(quota).ok());
    quota.map_or(affinity, |quota| affinity.min(quota.max(1)))
}

/// The CPUs that the control groups allow, rounded up: the least from the process's own group up
/// to the root.
fn quota(root: &Path, groups: &ProcessCGroups) -> Option<u64> {
    let unified = groups.0.iter().find(|group| group.hierarchy == 0);
    let legacy = groups
        .0
        .iter()
        .find(|group| group.controllers.iter().any(|name| name == "cpu"));
    let unified = unified.map_or("", |group| group.pathname.as_str());
    let version_2 = least_in_groups(root, unified, |dir| {
        let text = std::fs::read_to_string(dir.join("cpu.max")).ok()?;
        let (quota, period) = text.trim().split_once(' ')?;
        cpus(quota, period)
    });
    let version_1 = ["cpu", "cpu,cpuacct"].into_iter().filter_map(|mount| {
        least_in_groups(&root.join(mount), &legacy?.pathname, |dir| {
            let quota = std::fs::read_to_string(dir.join("cpu.cfs_quota_us")).ok()?;
            let period = std::fs::read_to_string(dir.join("cpu.cfs_period_us")).ok()?;
            cpus(quota.trim(), period.trim())
        })
    });
    version_2.into_iter().chain(version_1).min()
}

/// `max` and `-1` stand for no quota.
fn cpus(quota: &str, period: &str) -> Option<u64> {
    let (quota, period) = (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?);
    (period > 0).then(|| quota.div_ceil(period))
}

#[cfg(test)]
mod tests {
    use procfs::FromBufRead;

    use super::*;

    /// The groups that the text of `/proc/self/cgroup` lists.
    fn groups(text: &str) -> ProcessCGroups {
        ProcessCGroups::from_buf_read(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_quota_bounds_the_cpus_and_is_rounded_up() {
        assert_eq!(bounded(8, None), 8);
        assert_eq!(bounded(8, Some(2)), 2);
        assert_eq!(bounded(2, Some(8)), 2);
        assert_eq!(bounded(8, Some(0)), 1);
        assert_eq!(bounded(0, None), 1);
        assert_eq!(cpus("150000", "100000"), Some(2));
        assert_eq!(cpus("100000", "100000"), Some(1));
        assert_eq!(cpus("1000", "100000"), Some(1));
        assert_eq!(cpus("max", "100000"), None);
        assert_eq!(cpus("-1", "100000"), None);
        assert_eq!(cpus("1", "0"), None);
    }

    #[test]
    fn both_versions_of_control_groups_are_read() {
        let root = std::env::temp_dir().join(format!("olla-cpu-{}", std::process::id()));
        let service = root.join("system.slice/olla.service");
        std::fs::create_dir_all(&service).unwrap();
        let unified = groups("0::/system.slice/olla.service\n");
        assert_eq!(quota(&root, &unified), None);
        std::fs::write(service.join("cpu.max"), "max 100000\n").unwrap();
        assert_eq!(quota(&root, &unified), None);
        std::fs::write(root.join("system.slice/cpu.max"), "250000 100000\n").unwrap();
        assert_eq!(quota(&root, &unified), Some(3), "a group above");
        std::fs::write(service.join("cpu.max"), "150000 100000\n").unwrap();
        assert_eq!(quota(&root, &unified), Some(2), "the least counts");
        std::fs::remove_dir_all(&root).unwrap();
        let own = root.join("cpu,cpuacct/docker/x");
        std::fs::create_dir_all(&own).unwrap();
        std::fs::write(own.join("cpu.cfs_quota_us"), "50000\n").unwrap();
        std::fs::write(own.join("cpu.cfs_period_us"), "100000\n").unwrap();
        let legacy = groups("3:cpu,cpuacct:/docker/x\n1:memory:/docker/x\n");
        assert_eq!(quota(&root, &legacy), Some(1));
        assert_eq!(quota(&root, &groups("1:memory:/docker/x\n")), None);
        std::fs::remove_dir_all(&root).unwrap();
    }
}
