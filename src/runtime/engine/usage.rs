//! What a container uses, as the engine tells it.

use serde_json::Value;

/// Memory of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUse {
    /// Bytes in use that cannot be given to others for the asking: without the page cache.
    pub used: u64,
    /// The most it can use, in bytes.
    pub limit: u64,
    /// The limit is its own; else it is the host's memory.
    pub limited: bool,
}

/// What one container uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Its memory.
    pub memory: MemoryUse,
    /// Since its start: periods under a CPU limit, and those in which it was throttled. None if the engine does not
    /// tell.
    pub periods: Option<(u64, u64)>,
}

/// What cannot be had back for the asking: usage without the page cache, of which the kernel takes what it needs before
/// anybody is killed. `docker stats` leaves only the inactive half of it out, and so calls a service full that has read
/// many files lately.
///
/// cgroup v2 names the parts plainly; v1 sums them up over sub-groups under names with `total_`, and has no word for
/// reclaimable kernel memory. tmpfs and shared memory are counted as cache by both, but are on neither list of files,
/// so they stay in. Counters lag behind usage: anonymous memory is the least that it can be.
/// Whatever the engine does not tell is taken as in use, down to plain usage (Podman on v1).
/// `limited` is what can be said without knowing the host's memory.
pub(super) fn memory_of(stats: &Value) -> Option<MemoryUse> {
    let memory = &stats["memory_stats"];
    let usage = memory["usage"].as_u64()?;
    let part = |names: [&str; 2]| names.iter().find_map(|name| memory["stats"][*name].as_u64());
    let inactive = part(["total_inactive_file", "inactive_file"]).filter(|cache| *cache < usage);
    let used = match inactive {
        None => usage,
        Some(inactive) => {
            let active = part(["total_active_file", "active_file"]).unwrap_or(0);
            let kernel = memory["stats"]["slab_reclaimable"].as_u64().unwrap_or(0);
            let anonymous = part(["total_rss", "anon"]).unwrap_or(0);
            let at_most = usage - inactive;
            at_most.saturating_sub(active.saturating_add(kernel)).max(anonymous.min(at_most))
        }
    };
    let limit = memory["limit"].as_u64().unwrap_or(0);
    Some(MemoryUse { used, limit, limited: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn used(usage: u64, stats: &Value) -> u64 {
        let stats = json!({"memory_stats": {"usage": usage, "limit": 104_857_600u64, "stats": stats}});
        let memory = memory_of(&stats).unwrap();
        assert_eq!((memory.limit, memory.limited), (104_857_600, false));
        memory.used
    }

    /// cgroup v1, as Docker 20.10 sends it (shortened).
    #[test]
    fn memory_on_cgroup_v1_leaves_the_page_cache_out() {
        let mut stats = json!({"cache": 40_000_000u64, "total_inactive_file": 11_303_168u64, "inactive_file": 1u64,
            "total_rss": 30_000_000u64});
        assert_eq!(used(71_303_168, &stats), 60_000_000);
        stats["total_active_file"] = json!(25_000_000u64);
        stats["active_file"] = json!(1u64);
        // tmpfs, mapped in both `cache` and `total_active_anon`, stays in.
        assert_eq!(used(71_303_168, &stats), 35_000_000);
    }

    /// cgroup v2, as Docker 28 sends it (shortened).
    #[test]
    fn memory_on_cgroup_v2_leaves_the_page_cache_out() {
        let mut stats = json!({"anon": 20_000_000u64, "file": 29_000_000u64, "inactive_file": 10_000_000u64});
        assert_eq!(used(50_000_000, &stats), 40_000_000);
        stats["active_file"] = json!(14_000_000u64);
        stats["slab_reclaimable"] = json!(1_000_000u64);
        assert_eq!(used(50_000_000, &stats), 25_000_000, "what no part names counts as in use");
        stats["active_file"] = json!(39_000_000u64);
        assert_eq!(used(50_000_000, &stats), 20_000_000, "parts that lag behind: at least what is anonymous");
        stats["anon"] = json!(90_000_000u64);
        assert_eq!(used(50_000_000, &stats), 40_000_000, "at most what `docker stats` shows");
    }

    #[test]
    fn memory_without_details_is_the_usage_and_without_usage_is_nothing() {
        let stats = json!({"memory_stats": {"usage": 5, "limit": 10}});
        assert_eq!(memory_of(&stats).map(|m| m.used), Some(5));
        let odd = json!({"memory_stats": {"usage": 5, "limit": 10, "stats": {"inactive_file": 7}}});
        assert_eq!(memory_of(&odd).map(|m| m.used), Some(5));
        assert_eq!(memory_of(&json!({"memory_stats": {}})), None);
    }
}
