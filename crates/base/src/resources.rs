//! What the system gives this process: file descriptors and memory. Where it cannot be asked, there is no limit to keep to.

#[cfg(target_os = "linux")]
use std::path::Path;

/// Descriptors for what is not a connection of a host: sockets of workers have their own count, these are all others.
const SPARE: u64 = 64;

/// Raises the limit of file descriptors as far as the system lets an ordinary user, but no further than `needed`; gives the limit that
/// stands.
#[cfg(unix)]
pub(crate) fn raise_descriptors(needed: u64) -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return u64::MAX };
    let wanted = needed.min(hard);
    if soft >= wanted {
        return soft;
    }
    match setrlimit(Resource::RLIMIT_NOFILE, wanted, hard) {
        Ok(()) => wanted,
        Err(error) => {
            tracing::warn!(%error, "the limit of file descriptors stays at {soft}");
            soft
        }
    }
}

#[cfg(not(unix))]
pub(crate) fn raise_descriptors(_: u64) -> u64 {
    u64::MAX
}

/// The descriptors that so many connections and sockets come to.
pub(crate) fn descriptors_for(connections: usize, sockets: usize) -> u64 {
    // A worker waits for a socket by a second descriptor of it.
    (connections as u64).saturating_add(2 * sockets as u64).saturating_add(SPARE)
}

/// The connections that so many descriptors are enough for.
pub(crate) fn connections_within(descriptors: u64, sockets: usize) -> usize {
    usize::try_from(descriptors.saturating_sub(descriptors_for(0, sockets))).unwrap_or(usize::MAX)
}

/// Bytes of memory this process has at present (its resident set).
#[cfg(target_os = "linux")]
pub(crate) fn memory_used() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = status.split_whitespace().nth(1)?.parse().ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    Some(pages * page as u64)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn memory_used() -> Option<u64> {
    None
}

/// Four fifths of what the process may have: of its control group's limit or that of one above it, or else of the machine's memory.
#[cfg(target_os = "linux")]
pub(crate) fn memory_allowed() -> Option<u64> {
    let machine = || Some(nix::sys::sysinfo::sysinfo().ok()?.ram_total());
    let group = || -> Option<u64> {
        let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        limit_of(Path::new("/sys/fs/cgroup"), groups.lines().find_map(|line| line.strip_prefix("0::/"))?)
    };
    let all = [group(), machine()].into_iter().flatten().min()?;
    Some(all / 5 * 4)
}

/// The least limit of a control group and all above it, each of which counts for what is in it.
#[cfg(target_os = "linux")]
fn limit_of(root: &Path, group: &str) -> Option<u64> {
    let limit =
        |group| std::fs::read_to_string(root.join(group).join("memory.max")).ok()?.trim().parse().ok();
    Path::new(group).ancestors().filter_map(limit).min()
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn memory_allowed() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_and_connections_are_each_other_s_inverse() {
        assert_eq!(connections_within(descriptors_for(1_000, 32), 32), 1_000);
        assert_eq!(connections_within(10, 32), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_group_may_have_no_more_than_those_above_it() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("system.slice/base.service");
        std::fs::create_dir_all(&group).unwrap();
        let limit = |group: &Path, limit: &str| std::fs::write(group.join("memory.max"), limit).unwrap();
        limit(&group, "max\n");
        assert_eq!(limit_of(root.path(), "system.slice/base.service"), None);
        limit(&root.path().join("system.slice"), "1000000\n");
        assert_eq!(limit_of(root.path(), "system.slice/base.service"), Some(1_000_000));
        limit(&group, "2000000\n");
        assert_eq!(limit_of(root.path(), "system.slice/base.service"), Some(1_000_000));
        // The root has no such file, but in a container, which sees its own group there.
        limit(root.path(), "500000\n");
        assert_eq!(limit_of(root.path(), ""), Some(500_000));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_has_some_memory_and_may_have_more() {
        let (used, allowed) = (memory_used().unwrap(), memory_allowed().unwrap());
        assert!(used > 100_000 && used < allowed, "{used} of {allowed}");
    }
}
