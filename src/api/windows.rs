//! The windows of the rows of errors and latency, in words: the worse it is, the shorter the one that suffices.

use crate::core::Timestamp;
use crate::core::decision::percent_of;
use crate::core::settings::{Against, Condition, Profile, Rule, ServiceSettings};
use crate::core::time::human;
use crate::core::{Window, windows};

/// The share of failures above which a window of errors is breached, where that is a number that people typed.
fn share(rule: &Rule, window: Window) -> Option<f64> {
    let typed = rule.condition == Condition::ErrorRate && rule.against == Against::Absolute;
    typed.then(|| window.limit(rule.threshold.min(1.0)))
}

/// The line of a row as people read it, every window told; `shown` is what the core says of the row's own time.
pub(super) fn limit(rule: &Rule, profile: Profile, shown: &str) -> String {
    let all = windows(rule, profile);
    let (Some(longest), Some(shortest)) = (all.first(), all.last()) else { return shown.to_owned() };
    let Some(line) = shown.strip_suffix(&format!(" for {}", human(rule.sustained))) else {
        return shown.to_owned();
    };
    let told: Option<Vec<String>> = all
        .iter()
        .skip(1)
        .map(|window| Some(format!(", > {} for {}", percent_of(share(rule, *window)?), human(window.long))))
        .collect();
    match told {
        Some(shorter) => format!("{line} for {}{}", human(longest.long), shorter.concat()),
        None => {
            format!("{line} for {} to {}, the worse the sooner", human(shortest.long), human(longest.long))
        }
    }
}

/// When a row that has been crossed since `since` is breached, as far as that can be said; none if it can be at any
/// moment, or if the row has no windows.
pub(super) fn due(
    rule: &Rule,
    settings: &ServiceSettings,
    since: Timestamp,
    deployed: Option<Timestamp>,
    now: Timestamp,
) -> Option<String> {
    // Windows begin when the new release is warm: half as late for errors.
    let warm = if rule.condition == Condition::ErrorRate { settings.grace / 2 } else { settings.grace };
    let from = deployed.map_or(since, |at| since.max(at + warm));
    let all = windows(rule, settings.profile);
    let left = |window: &Window| (from + window.long).since(now);
    let open: Vec<&Window> = all.iter().filter(|window| !left(window).is_zero()).collect();
    let (longest, shortest) = (open.first()?, open.last()?);
    let told: Option<Vec<String>> = open
        .iter()
        .map(|window| Some(format!("{} above {}", human(left(window)), percent_of(share(rule, **window)?))))
        .collect();
    let worse = if open.len() < all.len() { ", or sooner if it gets worse" } else { "" };
    Some(match told {
        Some(told) => format!("after another {}{worse}", told.join(", or ")),
        None if open.len() == 1 => format!("if it stays crossed for another {}{worse}", human(left(longest))),
        None => format!(
            "if it stays crossed for another {} to {}, the worse the sooner",
            human(left(shortest)),
            human(left(longest))
        ),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use std::time::Duration;

    use super::*;
    use crate::core::settings::FleetSettings;
    use crate::replay::{Line, Trace, run_trace};

    fn rule(name: &str) -> Rule {
        Rule::matrix().into_iter().find(|rule| rule.name == name).unwrap()
    }

    /// What is decided of a release in which the share `bad` of the requests is bad: failed, or slower than any before.
    fn played(bad: f64, slow: bool, profile: Profile) -> Vec<Line> {
        let line = |t: u64, bad: f64| {
            let wrong = (1000.0 * bad).round();
            let quick = if slow { 1000.0 - wrong } else { 1000.0 };
            json!({"t": t, "service": "api", "kind": "requests", "window_s": 5, "total": 1000,
                "errors": if slow { 0.0 } else { wrong }, "latency_buckets_ms": {"100": quick, "250": quick, "1000": 1000}})
        };
        let mut lines: Vec<Value> = (0..360).map(|i| line(i * 5, 0.0)).collect();
        lines.push(json!({"t": 1800, "service": "api", "kind": "deploy", "version": "v2"}));
        // Well at first: what is new is not judged at once.
        lines.extend((1..300).map(|i| line(1800 + i * 5, if i < 30 { 0.0 } else { bad })));
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let settings = ServiceSettings { profile, ..ServiceSettings::default() };
        run_trace(&Trace::parse(&text).unwrap(), &|_| settings.clone(), FleetSettings::default())
    }

    #[test]
    fn the_windows_told_are_those_that_the_core_judges_by() {
        for (bad, slow, profile, nth) in [
            (0.06, false, Profile::Fast, 0),
            (0.08, false, Profile::Fast, 1),
            (0.30, false, Profile::Fast, 2),
            (0.80, false, Profile::Fast, 3),
            (0.80, false, Profile::Cautious, 0),
            (0.016, true, Profile::Fast, 0),
            (0.03, true, Profile::Fast, 1),
            (0.30, true, Profile::Fast, 2),
            (0.30, true, Profile::Cautious, 0),
        ] {
            let rule = rule(if slow { "latency_p99" } else { "error_rate" });
            let lines = played(bad, slow, profile);
            let line = lines
                .iter()
                .find(|line| line.signal == rule.name)
                .unwrap_or_else(|| panic!("{bad}: {lines:?}"));
            let window = windows(&rule, profile)[nth];
            let allowed = if slow { 0.01 } else { rule.threshold };
            let said = format!(" in the last {}", human(window.long));
            let limit = format!("(limit: {}", percent_of(window.limit(allowed)));
            assert!(line.reason.contains(&said) && line.reason.contains(&limit), "{said} {limit}: {line:?}");
        }
    }

    #[test]
    fn the_limit_tells_every_window() {
        let told = |name: &str, profile, shown: &str| limit(&rule(name), profile, shown);
        assert_eq!(
            told("error_rate", Profile::Fast, "> 5.0 % for 10m"),
            "> 5.0 % for 10m, > 7.0 % for 3m, > 10 % for 1m, > 50 % for 30s"
        );
        assert_eq!(told("error_rate", Profile::Cautious, "> 5.0 % for 10m"), "> 5.0 % for 5m");
        assert_eq!(
            told("latency_p99", Profile::Fast, "p99 > 2x baseline for 10m"),
            "p99 > 2x baseline for 3m to 10m, the worse the sooner"
        );
        assert_eq!(told("memory", Profile::Fast, "> 90 % for 1m"), "> 90 % for 1m");
    }

    #[test]
    fn no_time_is_promised_that_a_shorter_window_undercuts() {
        let (settings, now) = (ServiceSettings::default(), Timestamp::from_secs(100_000));
        let due = |name: &str, since: u64, deployed: u64| {
            let ago = |secs| now.before(Duration::from_secs(secs));
            due(&rule(name), &settings, ago(since), Some(ago(deployed)), now)
        };
        assert_eq!(
            due("error_rate", 50, 500).as_deref(),
            Some(
                "after another 9m 10s above 5.0 %, or 2m 10s above 7.0 %, or 10s above 10 %, or sooner if it gets worse"
            )
        );
        assert_eq!(
            due("latency_p99", 60, 500).as_deref(),
            Some("if it stays crossed for another 2m to 9m, the worse the sooner")
        );
        assert_eq!(
            due("latency_p99", 60, 61).as_deref(),
            Some("if it stays crossed for another 2m 59s to 9m 59s, the worse the sooner"),
            "what was before it was warm does not count"
        );
        assert_eq!(due("error_rate", 700, 900), None);
        assert_eq!(due("memory", 10, 900), None);
    }
}
