//! What each kind of announcement means for a matter: whether it begins one, goes on with it, or ends it; how urgent it is
//! where nobody said; and what users are told.

use crate::core::announcement::{Announcement, AnnouncementKind as Kind, Closed};
use crate::core::settings::Severity;

/// What an announcement means for a matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    /// It begins one, or goes on with one that has begun.
    Opens,
    /// It goes on with one, if there is one.
    Continues,
    /// A person took it on.
    Acknowledges,
    /// Others are told of it.
    Escalates,
    /// It is over.
    Closes,
    /// It is worth knowing, and has no end of its own.
    Note,
}

/// What the announcement means for the matter of its service.
pub(super) fn course(a: &Announcement) -> Course {
    match a.kind {
        Kind::RollbackInProgress
        | Kind::RollbackFailed
        | Kind::Evaluate
        | Kind::ApprovalWanted
        | Kind::Stuck
        | Kind::BreakerTripped => Course::Opens,
        // With a bad release it is urgent; without one it is said ahead of need.
        Kind::NoRollbackTarget if a.severity.is_some() => Course::Opens,
        Kind::Hold | Kind::Mitigation => Course::Continues,
        // Who settles a question has taken it on. The first of two has not, nor who puts it off; and that nobody answered, or
        // that a release was let out of quarantine, is no answer at all.
        Kind::Approval if a.closes == Some(Closed::Answered) => Course::Acknowledges,
        Kind::Approval => Course::Continues,
        Kind::Acknowledged => Course::Acknowledges,
        Kind::Escalated => Course::Escalates,
        Kind::RollbackComplete | Kind::Over => Course::Closes,
        Kind::NoRollbackTarget
        | Kind::WouldRollBack
        | Kind::Target
        | Kind::Unpinned
        | Kind::QuarantinedAgain
        | Kind::Blind
        | Kind::Daemon
        | Kind::Reminder
        | Kind::Test => Course::Note,
    }
}

/// Whether a person is called for something new, whoever took on what was the matter before.
pub(super) const fn calls_anew(kind: Kind) -> bool {
    matches!(kind, Kind::Stuck | Kind::BreakerTripped)
}

/// Whether people are asked for an answer.
pub(super) const fn is_question(kind: Kind) -> bool {
    matches!(kind, Kind::ApprovalWanted | Kind::Evaluate)
}

/// How urgent it is: what the decision said, else what such announcements usually are.
pub(super) fn severity(a: &Announcement) -> Severity {
    a.severity.unwrap_or(match a.kind {
        Kind::Stuck | Kind::RollbackFailed | Kind::BreakerTripped | Kind::Escalated => Severity::Critical,
        Kind::RollbackInProgress
        | Kind::RollbackComplete
        | Kind::ApprovalWanted
        | Kind::NoRollbackTarget
        | Kind::QuarantinedAgain => Severity::High,
        Kind::Evaluate
        | Kind::Approval
        | Kind::Mitigation
        | Kind::Hold
        | Kind::WouldRollBack
        | Kind::Target
        | Kind::Blind
        | Kind::Daemon
        | Kind::Acknowledged
        | Kind::Over => Severity::Medium,
        Kind::Unpinned | Kind::Reminder | Kind::Test => Severity::Low,
    })
}

/// Whether everybody in a channel should look now.
pub(super) const fn calls(kind: Kind) -> bool {
    match kind {
        Kind::RollbackInProgress
        | Kind::RollbackComplete
        | Kind::RollbackFailed
        | Kind::ApprovalWanted
        | Kind::Stuck
        | Kind::BreakerTripped
        | Kind::Escalated => true,
        Kind::WouldRollBack
        | Kind::Evaluate
        | Kind::Approval
        | Kind::Mitigation
        | Kind::Hold
        | Kind::NoRollbackTarget
        | Kind::Target
        | Kind::Unpinned
        | Kind::QuarantinedAgain
        | Kind::Blind
        | Kind::Daemon
        | Kind::Acknowledged
        | Kind::Over
        | Kind::Reminder
        | Kind::Test => false,
    }
}

/// What users are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// There is a problem.
    Began,
    /// It goes on.
    Failed,
    /// It is over.
    Complete,
}

impl Phase {
    /// The word for it in templates.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Began => "began",
            Self::Failed => "failed",
            Self::Complete => "complete",
        }
    }
}

/// What users are told of it; nothing of most.
pub(super) fn phase(a: &Announcement) -> Option<Phase> {
    match a.kind {
        // What a rollback could not carry over is no news to them.
        Kind::RollbackInProgress if a.key.ends_with("/notes") => None,
        Kind::RollbackInProgress => Some(Phase::Began),
        Kind::RollbackFailed => Some(Phase::Failed),
        Kind::RollbackComplete => Some(Phase::Complete),
        Kind::Over if a.rollback.is_some() => Some(Phase::Complete),
        Kind::WouldRollBack
        | Kind::Evaluate
        | Kind::ApprovalWanted
        | Kind::Approval
        | Kind::Mitigation
        | Kind::Hold
        | Kind::NoRollbackTarget
        | Kind::Target
        | Kind::Unpinned
        | Kind::QuarantinedAgain
        | Kind::Stuck
        | Kind::BreakerTripped
        | Kind::Blind
        | Kind::Daemon
        | Kind::Acknowledged
        | Kind::Escalated
        | Kind::Over
        | Kind::Reminder
        | Kind::Test => None,
    }
}

/// What a level of escalation puts at the end of its announcement's key.
pub(super) fn level_suffix(level: &str) -> String {
    format!("/escalated/{level}")
}

/// Whether the announcement is for that level of escalation.
pub(super) fn is_of_level(a: &Announcement, level: &str) -> bool {
    a.key.ends_with(&level_suffix(level))
}
