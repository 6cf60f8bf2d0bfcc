//! Stopping a bad container without waiting for nothing.
//!
//! Between the stop signal and SIGKILL an engine waits, by default ten seconds: for every program that ignores the
//! signal, all of it is outage. Whether a program *can* react is known to the kernel: the first process of a container
//! is not even terminated by a signal that it neither catches nor waits for. Then it is killed at once, and nothing is
//! lost that waiting would have saved.

use std::time::Duration;

use serde_json::Value;

use super::{observe, verbs};
use crate::core::time::{Timestamp, human};
use crate::runtime::RuntimeError;
use crate::runtime::engine::Engine;

/// A program that has run for this long has installed its signal handlers; a younger one may be about to.
const STARTED_UP: Duration = Duration::from_secs(5);
/// The engine's wait if its deployer set no other; only a bound for our own patience here.
const ENGINE_DEFAULT: u64 = 10;
/// `ps -o` as `docker top` runs it on the engine's host: masks of signals, in hexadecimal.
const TOP: &str = "top?ps_args=-o%20pid,ignored,caught,blocked";

/// Whether the main process of an inspected container will be able to react to its stop signal when a decision falls;
/// none if that is not known yet.
pub(super) async fn will_react(engine: &Engine, inspect: &Value, now: Timestamp) -> Option<bool> {
    let young = observe::moment(&inspect["State"]["StartedAt"]).is_none_or(|at| now.since(at) < STARTED_UP);
    if young { None } else { reacts(engine, inspect).await }
}

/// Whether the main process of an inspected container can react to its stop signal now; none if nobody can tell. A
/// signal that comes before its handler is there is lost: whoever cannot react now never will to this one.
pub(super) async fn reacts(engine: &Engine, inspect: &Value) -> Option<bool> {
    // In somebody else's process namespace it is not the first process, and an uncaught signal ends it.
    let shares = inspect["HostConfig"]["PidMode"].as_str().is_some_and(|mode| !mode.is_empty());
    if shares || inspect["State"]["Status"] != "running" {
        return None;
    }
    let id = inspect["Id"].as_str()?;
    let top = engine.json(&format!("/containers/{id}/{TOP}")).await.ok()?;
    read(&top, inspect["State"]["Pid"].as_u64()?, signal(inspect["Config"]["StopSignal"].as_str())?)
}

/// Stops a container; says how.
pub(super) async fn stop(
    engine: &Engine,
    container: &str,
    timeout: Option<u64>,
    grace: Duration,
    reacts: Option<bool>,
) -> Result<String, RuntimeError> {
    if let Some(timeout) = timeout {
        // Its deployer chose it, and knows what for.
        verbs::stop(engine, container, None, timeout.max(ENGINE_DEFAULT)).await?;
        return Ok(format!("stopped with its own stop timeout of {timeout} s"));
    }
    if reacts == Some(false) {
        verbs::kill(engine, container).await?;
        return Ok("killed at once: its main process does not react to its stop signal".into());
    }
    verbs::stop(engine, container, Some(seconds(grace)), ENGINE_DEFAULT).await?;
    Ok(format!("stopped, with {} at most to end by itself", human(grace)))
}

/// The engine takes whole seconds: a part of one counts as one.
fn seconds(grace: Duration) -> u64 {
    grace.as_secs() + u64::from(grace.subsec_nanos() > 0)
}

fn read(top: &Value, pid: u64, signal: u32) -> Option<bool> {
    let titles = top["Titles"].as_array()?;
    let column = |name: &str| titles.iter().position(|t| t == name);
    let (pid_at, ignored, caught, blocked) =
        (column("PID")?, column("IGNORED")?, column("CAUGHT")?, column("BLOCKED")?);
    let mut rows = top["Processes"].as_array()?.iter();
    let row = rows.find(|row| row[pid_at].as_str().and_then(|p| p.trim().parse().ok()) == Some(pid))?;
    let has = |at: usize| {
        let mask = u64::from_str_radix(row[at].as_str()?.trim(), 16).ok()?;
        Some(mask >> (signal - 1) & 1 == 1)
    };
    // A blocked signal is waited for (sigwait, signalfd): that is how init processes take theirs.
    Some(!has(ignored)? && (has(caught)? || has(blocked)?))
}

/// The number of a stop signal as images name it; SIGTERM if none is set.
pub(super) fn signal(name: Option<&str>) -> Option<u32> {
    let name = name.filter(|n| !n.is_empty()).unwrap_or("SIGTERM").to_ascii_uppercase();
    if let Ok(number) = name.parse::<u32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        // 34 as the C library counts: it keeps the first two for itself.
        let offset = if offset.is_empty() { 0 } else { offset.strip_prefix('+')?.parse::<u32>().ok()? };
        return (offset <= 30).then_some(34 + offset);
    }
    Some(match name {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "ABRT" => 6,
        "KILL" => 9,
        "USR1" => 10,
        "USR2" => 12,
        "TERM" => 15,
        "WINCH" => 28,
        "PWR" => 30,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// As an engine answers it; `masks` are ignored, caught, blocked.
    fn top(masks: [&str; 3]) -> Value {
        json!({"Titles": ["PID", "IGNORED", "CAUGHT", "BLOCKED"],
               "Processes": [["15162", masks[0], masks[1], masks[2]], ["15263", "0", "0", "0"]]})
    }

    #[test]
    fn a_first_process_reacts_to_what_it_catches_or_waits_for() {
        let none = "0000000000000000";
        let term = "0000000000004000";
        assert_eq!(
            read(&top([none, none, none]), 15162, 15),
            Some(false),
            "`sleep`: not even the default action"
        );
        assert_eq!(
            read(&top([none, "0000000000014002", none]), 15162, 15),
            Some(true),
            "a shell with a trap"
        );
        assert_eq!(read(&top([term, none, none]), 15162, 15), Some(false), "ignored");
        assert_eq!(
            read(&top([none, none, term]), 15162, 15),
            Some(true),
            "an init process that waits for it"
        );
        assert_eq!(read(&top([none, term, none]), 15162, 3), Some(false), "another stop signal");
    }

    #[test]
    fn what_cannot_be_read_is_not_known() {
        let busybox = json!({"Titles": ["PID", "USER"], "Processes": [["1", "root"]]});
        assert_eq!(read(&busybox, 1, 15), None);
        assert_eq!(read(&top(["0", "0", "0"]), 4, 15), None, "another process");
        assert_eq!(read(&top(["-", "0", "0"]), 15162, 15), None);
    }

    #[test]
    fn stop_signals_have_numbers() {
        assert_eq!(signal(None), Some(15));
        assert_eq!(signal(Some("SIGQUIT")), Some(3));
        assert_eq!(signal(Some("term")), Some(15));
        assert_eq!(signal(Some("28")), Some(28));
        assert_eq!(signal(Some("SIGRTMIN+3")), Some(37));
        assert_eq!(signal(Some("SIGNONSENSE")), None);
    }

    #[test]
    fn a_part_of_a_second_of_grace_is_a_second() {
        assert_eq!(seconds(Duration::from_millis(2500)), 3);
        assert_eq!(seconds(Duration::ZERO), 0);
    }
}
