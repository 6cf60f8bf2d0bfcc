//! Announcements: what people are told. The core says what happened; `notify/` delivers it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::release::{ApprovalId, RollbackId, ServiceName};
use super::settings::Severity;
use super::time::Timestamp;

/// Something that people are told, complete: it can be delivered long after the fact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Announcement {
    /// Unique per thing that happened: delivering it twice is recognised by this.
    pub key: String,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub kind: AnnouncementKind,
    /// The service, unless it is about the daemon itself.
    pub service: Option<ServiceName>,
    /// The rollback it belongs to.
    pub rollback: Option<RollbackId>,
    /// The question that it puts, if it puts one: a link to answer it goes with the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalId>,
    /// The environment's name.
    pub environment: String,
    /// One line: `ROLLBACK IN PROGRESS: shop`.
    pub title: String,
    /// What follows it, as name and value, in the order to show: `Current version`, `Rolling back to`, ...
    pub fields: Vec<(String, String)>,
    /// The next command to type, if there is one.
    pub next: Option<String>,
    /// How urgent it is, where a decision said so.
    #[serde(default)]
    pub severity: Option<Severity>,
    /// What becomes of the question that people were asked before, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closes: Option<Closed>,
}

/// How a question ended that people were asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Closed {
    /// Everybody who had to say something did: it is settled, by people.
    Answered,
    /// What it was about passed, or something else happened first.
    Withdrawn,
}

/// What an announcement is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnnouncementKind {
    /// A rollback began.
    RollbackInProgress,
    /// A rollback is proved.
    RollbackComplete,
    /// A rollback did not happen or did not help; what runs is said.
    RollbackFailed,
    /// In dry-run mode: what would have been done.
    WouldRollBack,
    /// A person should decide.
    Evaluate,
    /// People are asked before a rollback goes ahead.
    ApprovalWanted,
    /// Somebody answered, or no answer is needed any more.
    Approval,
    /// Something less than a rollback was tried, and how that went.
    Mitigation,
    /// A symptom is there and is not acted on; the gate says why.
    Hold,
    /// There is nothing to roll back to.
    NoRollbackTarget,
    /// A release to go back to cannot be had any more, or can be again.
    Target,
    /// A project's files are not kept at an earlier release any more.
    Unpinned,
    /// A quarantined release was deployed again.
    QuarantinedAgain,
    /// A person is needed.
    Stuck,
    /// The fleet-wide breaker stopped all automatic rollbacks.
    BreakerTripped,
    /// We cannot measure, or can again.
    Blind,
    /// The daemon itself has a problem: store, engine, configuration.
    Daemon,
    /// A person took a matter on.
    Acknowledged,
    /// Nobody took a matter on in time: others are told.
    Escalated,
    /// A matter that people were told of is over.
    Over,
    /// What a rollback left to people is overdue.
    Reminder,
    /// A test of the channels: nothing happened.
    Test,
}

impl AnnouncementKind {
    /// All of them. A test compares it with what is read back from the store.
    pub const ALL: &[Self] = &[
        Self::RollbackInProgress,
        Self::RollbackComplete,
        Self::RollbackFailed,
        Self::WouldRollBack,
        Self::Evaluate,
        Self::ApprovalWanted,
        Self::Approval,
        Self::Mitigation,
        Self::Hold,
        Self::NoRollbackTarget,
        Self::Target,
        Self::Unpinned,
        Self::QuarantinedAgain,
        Self::Stuck,
        Self::BreakerTripped,
        Self::Blind,
        Self::Daemon,
        Self::Acknowledged,
        Self::Escalated,
        Self::Over,
        Self::Reminder,
        Self::Test,
    ];

    /// The name used in metrics and the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RollbackInProgress => "rollback_in_progress",
            Self::RollbackComplete => "rollback_complete",
            Self::RollbackFailed => "rollback_failed",
            Self::WouldRollBack => "would_roll_back",
            Self::Evaluate => "evaluate",
            Self::ApprovalWanted => "approval_wanted",
            Self::Approval => "approval",
            Self::Mitigation => "mitigation",
            Self::Hold => "hold",
            Self::NoRollbackTarget => "no_rollback_target",
            Self::Target => "target",
            Self::Unpinned => "unpinned",
            Self::QuarantinedAgain => "quarantined_again",
            Self::Stuck => "stuck",
            Self::BreakerTripped => "breaker_tripped",
            Self::Blind => "blind",
            Self::Daemon => "daemon",
            Self::Acknowledged => "acknowledged",
            Self::Escalated => "escalated",
            Self::Over => "over",
            Self::Reminder => "reminder",
            Self::Test => "test",
        }
    }
}

impl Announcement {
    /// An announcement about nobody in particular yet, with the environment as its first field.
    pub fn new(key: String, at: Timestamp, kind: AnnouncementKind, environment: &str, title: String) -> Self {
        Self {
            key,
            at,
            kind,
            service: None,
            rollback: None,
            approval: None,
            environment: environment.to_owned(),
            title,
            fields: vec![("Environment".into(), environment.to_owned())],
            next: None,
            severity: None,
            closes: None,
        }
    }
}

impl fmt::Display for Announcement {
    /// Plain text, as in the runbooks: a title, then one field a line, then the next command.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.title)?;
        for (name, value) in &self.fields {
            write!(f, "\n{name}: {value}")?;
        }
        self.next.as_ref().map_or(Ok(()), |next| write!(f, "\nNext: {next}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_kinds_is_complete() {
        let unknown = serde_json::from_str::<AnnouncementKind>("\"?\"").unwrap_err().to_string();
        for kind in AnnouncementKind::ALL {
            let name = format!("`{}`", kind.name());
            assert!(unknown.contains(&name), "{name} is not what is stored: {unknown}");
        }
        assert_eq!(unknown.matches('`').count() / 2, AnnouncementKind::ALL.len() + 1, "{unknown}");
    }
}
