//! What the container may use: the limits of its control groups, of version 1 and 2, and the disk under its data.
//!
//! A group's limit binds all groups below it, so the smallest on the way up counts.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What the container may use. None: as much as the machine has.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Limits {
    /// Bytes of memory.
    pub(super) memory: Option<u64>,
    /// Processors; a fraction is usual.
    pub(super) cpus: Option<f64>,
    /// Bytes of the file system that holds the data directory, used and free.
    pub(super) disk: Option<u64>,
}

impl Limits {
    /// Those of this process, with its data directory at (or to come below) `pgdata`.
    pub(super) fn of_this_process(pgdata: &Path) -> Self {
        let read = |path: &Path| fs::read_to_string(path).ok();
        let text = |path: &str| read(Path::new(path)).unwrap_or_default();
        let mut limits = from_groups(&text("/proc/self/cgroup"), &text("/proc/self/mountinfo"), &read);
        // More than the machine has is no promise that it is there.
        limits.memory = limits.memory.map(|m| machine_memory(&text("/proc/meminfo")).map_or(m, |all| m.min(all)));
        limits.disk = pgdata.ancestors().find_map(|p| nix::sys::statvfs::statvfs(p).ok()).map(|s| {
            // These types differ between platforms.
            #[allow(clippy::useless_conversion)]
            let bytes = u64::from(s.blocks()).saturating_mul(u64::from(s.fragment_size()));
            bytes
        });
        limits
    }
}

fn machine_memory(meminfo: &str) -> Option<u64> {
    let kilobytes = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?.split_whitespace().next()?;
    Some(kilobytes.parse::<u64>().ok()? << 10)
}

/// Version 1 writes "no limit" as the largest multiple of the page size; no machine has as much as a petabyte.
const NO_MEMORY_LIMIT: u64 = 1 << 50;

fn from_groups(groups: &str, mounts: &str, read: &dyn Fn(&Path) -> Option<String>) -> Limits {
    let number = |path: &Path| read(path)?.trim().parse::<u64>().ok();
    let memory_v2 = smallest(&directories("", groups, mounts), &|d| number(&d.join("memory.max")).map(as_float));
    let memory_v1 =
        smallest(&directories("memory", groups, mounts), &|d| number(&d.join("memory.limit_in_bytes")).map(as_float));
    let cpus_v2 = smallest(&directories("", groups, mounts), &|d| {
        let text = read(&d.join("cpu.max"))?;
        let (quota, period) = text.trim().split_once(' ')?;
        ratio(quota, period)
    });
    let cpus_v1 = smallest(&directories("cpu", groups, mounts), &|d| {
        ratio(&read(&d.join("cpu.cfs_quota_us"))?, &read(&d.join("cpu.cfs_period_us"))?)
    });
    let either = |a: Option<f64>, b: Option<f64>| a.into_iter().chain(b).reduce(f64::min);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of bytes, from an integer")]
    let memory = either(memory_v2, memory_v1).map(|m| m as u64).filter(|m| *m < NO_MEMORY_LIMIT);
    Limits { memory, cpus: either(cpus_v2, cpus_v1), disk: None }
}

#[allow(clippy::cast_precision_loss, reason = "a byte more or less does not matter")]
fn as_float(number: u64) -> f64 {
    number as f64
}

/// A quota of "max" or -1 is none.
fn ratio(quota: &str, period: &str) -> Option<f64> {
    let (quota, period) = (quota.trim().parse::<f64>().ok()?, period.trim().parse::<f64>().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

fn smallest(dirs: &[PathBuf], limit: &dyn Fn(&Path) -> Option<f64>) -> Option<f64> {
    dirs.iter().filter_map(|d| limit(d)).reduce(f64::min)
}

/// The directories of this process's group in the hierarchy of `controller` (of version 2: ""), up to the mount point.
fn directories(controller: &str, groups: &str, mounts: &str) -> Vec<PathBuf> {
    // "4:cpu,cpuacct:/docker/1f…", and "0::/…" of version 2.
    let group = groups.lines().find_map(|l| {
        let mut parts = l.splitn(3, ':').skip(1);
        let controllers = parts.next()?;
        controllers.split(',').any(|c| c == controller).then(|| parts.next()).flatten()
    });
    // "35 31 0:32 /docker/1f… /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"
    let mount = mounts.lines().find_map(|l| {
        let (front, back) = l.split_once(" - ")?;
        let (kind, options) = (back.split(' ').next()?, back.split(' ').nth(2)?);
        let fits = match controller {
            "" => kind == "cgroup2",
            name => kind == "cgroup" && options.split(',').any(|o| o == name),
        };
        let mut fields = front.split(' ').skip(3);
        fits.then(|| Some((fields.next()?, Path::new(fields.next()?)))).flatten()
    });
    let (Some(group), Some((root, top))) = (group, mount) else { return Vec::new() };
    // Without a namespace of its own the container sees the machine's name of its group, and its group as the mount.
    let below = match root {
        "/" => group,
        root => group.strip_prefix(root).unwrap_or("/"),
    };
    let own = top.join(below.trim_start_matches('/'));
    let own = if below.contains("..") { top.to_path_buf() } else { own };
    own.ancestors().take_while(|d| d.starts_with(top)).map(Path::to_path_buf).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1_MOUNTS: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";
    const V2_MOUNTS: &str = "31 23 0:28 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n";

    fn limits(groups: &str, mounts: &str, files: &[(&str, &str)]) -> (Option<u64>, Option<f64>) {
        let read = |path: &Path| files.iter().find(|(n, _)| Path::new(n) == path).map(|(_, text)| text.to_string());
        let limits = from_groups(groups, mounts, &read);
        (limits.memory, limits.cpus)
    }

    #[test]
    fn version_2_in_a_namespace_of_its_own() {
        let files = [("/sys/fs/cgroup/memory.max", "268435456\n"), ("/sys/fs/cgroup/cpu.max", "150000 100000\n")];
        assert_eq!(limits("0::/\n", V2_MOUNTS, &files), (Some(256 << 20), Some(1.5)));
    }

    #[test]
    fn no_limit_has_three_spellings() {
        let files = [("/sys/fs/cgroup/memory.max", "max\n"), ("/sys/fs/cgroup/cpu.max", "max 100000\n")];
        assert_eq!(limits("0::/\n", V2_MOUNTS, &files), (None, None));
        let files = [
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(limits("4:memory:/\n1:cpu,cpuacct:/\n", V1_MOUNTS, &files), (None, None));
        assert_eq!(limits("", "", &[]), (None, None));
    }

    #[test]
    fn the_smallest_on_the_way_up_counts() {
        let files = [
            ("/sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("/sys/fs/cgroup/a/memory.max", "1000\n"),
            ("/sys/fs/cgroup/memory.max", "2000\n"),
            ("/sys/fs/cgroup/a/b/cpu.max", "400000 100000\n"),
        ];
        assert_eq!(limits("0::/a/b\n", V2_MOUNTS, &files), (Some(1000), Some(4.0)));
    }

    #[test]
    fn version_1_as_docker_mounts_it() {
        let mounts = "35 31 0:32 /docker/1f /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n\
            32 31 0:29 /docker/1f /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n";
        let files = [
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ];
        let groups = "4:memory:/docker/1f\n1:cpuacct,cpu:/docker/1f\n0::/docker/1f\n";
        assert_eq!(limits(groups, mounts, &files), (Some(512 << 20), Some(0.5)));
        let escaped = "4:memory:/../x\n1:cpu,cpuacct:/../x\n";
        assert_eq!(limits(escaped, V1_MOUNTS, &files), (Some(512 << 20), Some(0.5)));
    }

    #[test]
    fn the_machines_memory() {
        assert_eq!(machine_memory("MemTotal:       24681488 kB\nMemFree: 1 kB\n"), Some(24_681_488 << 10));
    }
}
