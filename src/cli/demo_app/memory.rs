//! Memory that the demo app takes and keeps, to be as full as it was told to be.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::App;
use super::args::Size;

/// Where a container sees its own control groups.
const CGROUPS: &str = "/sys/fs/cgroup";
/// The amount is looked at this often, and a leak grows in steps this far apart.
const STEP: Duration = Duration::from_millis(100);
/// So near to the wanted share of the limit is near enough.
const TOLERANCE: f64 = 0.003;

/// Keeps as much as the dials say, and what leaks, for ever.
pub(super) async fn keep(app: Arc<App>, after: Duration, leak: Option<Size>) {
    tokio::time::sleep(after).await;
    let mut kept = Kept::default();
    let mut leaked = 0;
    let mut steps = tokio::time::interval(STEP);
    loop {
        steps.tick().await;
        let dials = app.dials();
        leaked += leak.map_or(0, |Size(per_second)| per_second / 10);
        let share = dials.memory_percent / 100.0;
        // Memory is counted in bytes, and no machine has so many that a float could not hold them.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see above")]
        let wanted = match if share > 0.0 { Usage::read(Path::new(CGROUPS)) } else { None } {
            Some(now) => now.ballast_for(share, kept.bytes),
            None => (dials.memory_mb * f64::from(1 << 20)) as usize + leaked,
        };
        kept.become_as_large_as(wanted);
    }
}

#[derive(Default)]
struct Kept {
    bytes: usize,
    pieces: Vec<Vec<u8>>,
}

impl Kept {
    fn become_as_large_as(&mut self, wanted: usize) {
        while self.bytes > wanted {
            let Some(piece) = self.pieces.pop() else { break };
            self.bytes -= piece.len();
        }
        if self.bytes < wanted {
            self.pieces.push(touched(wanted - self.bytes));
            self.bytes = wanted;
        }
    }
}

/// Ones, not zeroes: zeroed memory is not resident before somebody writes to it.
fn touched(bytes: usize) -> Vec<u8> {
    std::hint::black_box(vec![1; bytes])
}

/// What the container uses, and may use, in bytes, as `docker stats` counts it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Usage {
    used: f64,
    limit: f64,
}

impl Usage {
    /// From the files of either version of control groups; nothing where there is no limit.
    fn read(root: &Path) -> Option<Self> {
        let number = |file: &str| std::fs::read_to_string(root.join(file)).ok()?.trim().parse::<f64>().ok();
        let stat = |file: &str, name: &str| {
            let text = std::fs::read_to_string(root.join(file)).ok()?;
            text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok())
        };
        let newer =
            || Some((number("memory.current")?, number("memory.max")?, "memory.stat", "inactive_file "));
        let older = || {
            let used = number("memory/memory.usage_in_bytes")?;
            Some((
                used,
                number("memory/memory.limit_in_bytes")?,
                "memory/memory.stat",
                "total_inactive_file ",
            ))
        };
        let (used, limit, file, name) = newer().or_else(older)?;
        // Without a limit, the older version tells a number near 2^63.
        (limit < 1e15).then(|| Self { used: used - stat(file, name).unwrap_or(0.0), limit })
    }

    /// How much has to be kept, where `kept` is kept now, for the container to use `share` of its limit.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole bytes, clamped to zero"
    )]
    fn ballast_for(self, share: f64, kept: usize) -> usize {
        let missing = share * self.limit - self.used;
        if missing.abs() < TOLERANCE * self.limit { kept } else { (kept as f64 + missing).max(0.0) as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_from_either_version_of_control_groups() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Usage::read(root.path()), None);
        let memory = root.path().join("memory");
        std::fs::create_dir(&memory).unwrap();
        std::fs::write(memory.join("memory.usage_in_bytes"), "5000\n").unwrap();
        std::fs::write(memory.join("memory.limit_in_bytes"), "9223372036854771712\n").unwrap();
        std::fs::write(memory.join("memory.stat"), "inactive_file 7\ntotal_inactive_file 1000\n").unwrap();
        assert_eq!(Usage::read(root.path()), None, "there is no limit");
        std::fs::write(memory.join("memory.limit_in_bytes"), "10000\n").unwrap();
        assert_eq!(Usage::read(root.path()), Some(Usage { used: 4000.0, limit: 10_000.0 }));
        for (file, text) in
            [("memory.current", "900\n"), ("memory.max", "1000\n"), ("memory.stat", "inactive_file 100\n")]
        {
            std::fs::write(root.path().join(file), text).unwrap();
        }
        assert_eq!(Usage::read(root.path()), Some(Usage { used: 800.0, limit: 1000.0 }));
        std::fs::write(root.path().join("memory.max"), "max\n").unwrap();
    }

    #[test]
    fn what_is_missing_is_taken_and_what_is_too_much_given_back() {
        let usage = Usage { used: 500.0, limit: 1000.0 };
        assert_eq!(usage.ballast_for(0.88, 100), 480);
        assert_eq!(usage.ballast_for(0.501, 100), 100, "near enough");
        assert_eq!(usage.ballast_for(0.1, 100), 0);
        let mut kept = Kept::default();
        for wanted in [10, 30, 15, 15, 0] {
            kept.become_as_large_as(wanted);
            assert_eq!(kept.bytes, kept.pieces.iter().map(Vec::len).sum::<usize>());
            assert_eq!(kept.bytes, wanted);
        }
    }
}
