//! Announcements that nobody made: one of every kind, to try templates with, and the one that tests channels.

use crate::core::Timestamp;
use crate::core::announcement::{Announcement, AnnouncementKind as Kind, Closed};
use crate::core::release::{RollbackId, ServiceName};
use crate::core::settings::Severity;

/// When samples happened.
const AT: Timestamp = Timestamp::from_secs(1_767_225_600);

/// One announcement of every kind, with the fields that such have.
pub fn every_kind() -> Vec<Announcement> {
    Kind::ALL.iter().map(|kind| of(*kind)).collect()
}

/// One announcement of a kind.
pub(super) fn of(kind: Kind) -> Announcement {
    let mut a = bare(kind, AT, "production");
    a.title = title(kind).to_owned();
    if !matches!(kind, Kind::BreakerTripped | Kind::Daemon) {
        a.service = Some(ServiceName::new("shop"));
    }
    let rolls =
        matches!(kind, Kind::RollbackInProgress | Kind::RollbackComplete | Kind::RollbackFailed | Kind::Over);
    if rolls || kind == Kind::Reminder {
        a.rollback = Some(RollbackId::new("20260101T000000000Z-shop"));
    }
    a.severity =
        if kind == Kind::Reminder { Some(Severity::Low) } else { rolls.then_some(Severity::Critical) };
    let more: &[(&str, &str)] = match kind {
        Kind::RollbackComplete => &[
            ("Rolled back from", "registry.example/shop:v2 (sha256:bbbb)"),
            ("Rolled back to", "registry.example/shop:v1 (sha256:aaaa)"),
            ("Status", "all checks pass; shop:v1 runs"),
            ("Reason", REASON),
            ("Duration", "stopped to serving 2s, proved after 1m"),
        ],
        Kind::RollbackInProgress => &[
            ("Current version", "registry.example/shop:v2 (sha256:bbbb)"),
            ("Rolling back to", "registry.example/shop:v1 (sha256:aaaa)"),
            ("Severity", "critical"),
            ("Reason", REASON),
            ("Decided by", "backstop"),
            ("ETA", "serving again within seconds, proved after 1m"),
        ],
        Kind::Reminder => &[
            ("Rollback", "20260101T000000000Z-shop of 2026-01-01 00:00:00 UTC"),
            ("Reason", REASON),
            ("Open", "2 of 20, 1 overdue"),
            ("root_cause", "Root cause found: service owner, overdue by 1d (since 2026-01-02 00:00:00 UTC)"),
            ("prevention", "Preventive measures decided: team lead, by 2026-01-08 00:00:00 UTC"),
        ],
        _ => &[("Reason", REASON)],
    };
    a.fields.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    a.next = match kind {
        Kind::RollbackInProgress | Kind::Blind | Kind::Over => None,
        Kind::RollbackComplete => Some("backstop history shop".into()),
        Kind::Reminder => {
            Some("backstop incident tick 20260101T000000000Z-shop root_cause --note \"...\"".into())
        }
        _ => Some("backstop explain shop".into()),
    };
    a
}

/// With what a template may stumble over.
const REASON: &str = "error_rate: 12.5 % of 812 requests failed for 1m, threshold 5 % (\"<500> & more\\\")";

/// What tests a channel: nothing happened, and it says so.
pub(super) fn test(now: Timestamp, environment: &str, channel: &str) -> Announcement {
    let mut a = bare(Kind::Test, now, environment);
    a.key = format!("test/{channel}/{}", now.as_millis());
    a.title = "TEST: nothing happened".into();
    a.fields
        .push(("Reason".into(), format!("`backstop notify test` was typed, to try the channel {channel}")));
    a.next = Some("nothing is to be done".into());
    a
}

fn bare(kind: Kind, at: Timestamp, environment: &str) -> Announcement {
    Announcement {
        key: format!("sample/{}", kind.name()),
        at,
        kind,
        service: None,
        rollback: None,
        approval: None,
        environment: environment.to_owned(),
        title: String::new(),
        fields: vec![("Environment".into(), environment.to_owned())],
        next: None,
        severity: None,
        closes: (kind == Kind::Approval).then_some(Closed::Answered),
    }
}

const fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::RollbackInProgress => "ROLLBACK IN PROGRESS: shop",
        Kind::RollbackComplete => "ROLLBACK COMPLETE: shop",
        Kind::RollbackFailed => "ROLLBACK FAILED: shop",
        Kind::WouldRollBack => "DRY RUN, WOULD ROLL BACK: shop",
        Kind::Evaluate => "DECISION NEEDED: shop",
        Kind::ApprovalWanted => "ROLLBACK IN 15M UNLESS SOMEBODY SAYS NO: shop",
        Kind::Approval => "ROLLBACK APPROVED BY anna: shop",
        Kind::Mitigation => "SOMETHING ELSE BEFORE A ROLLBACK: shop",
        Kind::Hold => "NOT ROLLED BACK: shop",
        Kind::NoRollbackTarget => "NO ROLLBACK TARGET: shop",
        Kind::Target => "ROLLBACK TARGET IS NOT HERE: shop",
        Kind::Unpinned => "PIN TAKEN BACK: shop",
        Kind::QuarantinedAgain => "ROLLED-BACK RELEASE IS BACK: shop",
        Kind::Stuck => "A PERSON IS NEEDED: shop",
        Kind::BreakerTripped => "AUTOMATIC ROLLBACKS STOPPED",
        Kind::Blind => "CANNOT MEASURE: shop",
        Kind::Daemon => "THE STORE CANNOT BE USED",
        Kind::Acknowledged => "ACKNOWLEDGED: shop",
        Kind::Escalated => "NOT ACKNOWLEDGED AFTER 15m: A PERSON IS NEEDED: shop",
        Kind::Over => "WELL AGAIN: shop",
        Kind::Reminder => "STILL TO DO AFTER A ROLLBACK: shop",
        Kind::Test => "TEST: nothing happened",
    }
}
