//! The release ledger: which releases a service had, which proved themselves, which are quarantined.
//!
//! This file holds what is persisted; the rules are in `service.rs`.

use std::cmp::Reverse;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::approval::Approval;
use super::availability::Gone;
use super::baseline::Norms;
use super::decision::Decision;
use super::io::RollbackRequest;
use super::migration::{Schema, SchemaChange};
use super::mitigation::Mitigated;
use super::plan::Pin;
use super::release::{Release, ReleaseId, RollbackId, ServiceName};
use super::settings::Condition;
use super::time::Timestamp;

/// One release in a service's ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// The release.
    pub release: Release,
    /// When it was first seen running.
    pub first_seen: Timestamp,
    /// When its newest deployment was seen: the trial counts from here.
    pub deployed: Timestamp,
    /// Where it stands.
    pub standing: Standing,
    /// What whoever deployed it said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Box<DeployNote>>,
    /// Its image is on the engine no more, and in no registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<Gone>,
    /// What is known of it and the schema of its database.
    #[serde(default, skip_serializing_if = "Schema::is_unknown")]
    pub schema: Schema,
}

/// What whoever deploys says of a release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployNote {
    /// Which release: its reference, a tag, a version or an image id.
    pub release: String,
    /// The commit that it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Who wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Where there is more: the pipeline that deployed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What it does to the schema of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<SchemaChange>,
    /// When it was said.
    #[serde(default)]
    pub at: Timestamp,
    /// Who said it.
    #[serde(default)]
    pub by: String,
}

impl DeployNote {
    /// Whether it speaks of `release`.
    pub fn is_about(&self, release: &Release) -> bool {
        release.answers_to(&self.release)
            || release.image.as_str() == self.release
            || release
                .digests
                .iter()
                .any(|digest| digest.ends_with(&self.release) && self.release.contains("sha256:"))
    }

    /// `commit 3fa9c1d by alice, https://ci.example.com/17`; none if it says nothing of the kind.
    pub fn origin(&self) -> Option<String> {
        let commit = self.commit.as_ref().map(|commit| format!("commit {commit}"));
        let author = self.author.as_ref().map(|author| format!("by {author}"));
        let made = [commit, author].into_iter().flatten().collect::<Vec<_>>().join(" ");
        let parts = [Some(made).filter(|made| !made.is_empty()), self.url.clone()];
        let said = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
        (!said.is_empty()).then_some(said)
    }
}

/// Where a release stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "standing")]
pub enum Standing {
    /// It has not proved itself yet, or was replaced before it could.
    Trial,
    /// It passed its trial.
    KnownGood {
        /// When.
        since: Timestamp,
    },
    /// It was rolled back.
    Quarantined {
        /// When.
        since: Timestamp,
        /// Why.
        why: String,
    },
}

impl Standing {
    /// The name used in the store and the API.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Trial => "trial",
            Self::KnownGood { .. } => "known_good",
            Self::Quarantined { .. } => "quarantined",
        }
    }
}

/// Known-good releases other than the current one, newest first: where a rollback may go.
pub(crate) fn targets<'a>(
    ledger: &'a [LedgerEntry],
    current: Option<&'a ReleaseId>,
) -> impl Iterator<Item = &'a Release> {
    let good = move |e: &&LedgerEntry| {
        Some(&e.release.id) != current && matches!(e.standing, Standing::KnownGood { .. })
    };
    ledger.iter().filter(good).map(|e| &e.release)
}

/// The known-good release that an operator means: by id, by the beginning of the id, by reference, tag or version.
///
/// # Errors
/// If there is none: what it is instead, and what could be said.
pub fn pick<'a>(
    service: &ServiceName,
    ledger: &'a [LedgerEntry],
    current: Option<&'a ReleaseId>,
    wanted: &str,
) -> Result<&'a Release, String> {
    if let Some(back) = wanted.strip_prefix('~') {
        return nth(service, ledger, current, back);
    }
    if let Some(target) = targets(ledger, current).find(|r| r.answers_to(wanted)) {
        return Ok(target);
    }
    let eligible: Vec<String> = targets(ledger, current).map(ToString::to_string).collect();
    let eligible = if eligible.is_empty() { "none".into() } else { eligible.join(", ") };
    let what = match ledger.iter().find(|e| e.release.answers_to(wanted)) {
        Some(e) if current == Some(&e.release.id) => "is what runs now".to_owned(),
        Some(e) => format!("is {}, not known-good", e.standing.name().replace('_', " ")),
        None => "is not in the ledger".into(),
    };
    Err(format!("release {wanted} of {service} {what}; known-good releases: {eligible}"))
}

/// The known-good release that is so many back: `~1` is the newest one.
fn nth<'a>(
    service: &ServiceName,
    ledger: &'a [LedgerEntry],
    current: Option<&'a ReleaseId>,
    back: &str,
) -> Result<&'a Release, String> {
    let all: Vec<&Release> = targets(ledger, current).collect();
    let wanted = back.parse::<usize>().ok().filter(|n| *n > 0);
    wanted.and_then(|n| all.get(n - 1).copied()).ok_or_else(|| match wanted {
        Some(n) => format!(
            "{service} has {} known-good releases to go back to, not {n}; next: backstop explain {service}",
            all.len()
        ),
        None => {
            format!("`~{back}` names no release: `~1` is the newest known-good one, `~2` the one before it")
        }
    })
}

/// A change that must be durable before anything that follows from it is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LedgerChange {
    /// A release was seen, or its standing changed: insert or replace by service and release id.
    Entry {
        /// The service.
        service: ServiceName,
        /// The entry as it is now.
        entry: LedgerEntry,
    },
    /// The entry is no longer kept.
    Forget {
        /// The service.
        service: ServiceName,
        /// Which release.
        release: ReleaseId,
    },
    /// Something was decided.
    Decided(Box<Decision>),
    /// What a service's traffic is like: insert or replace by service.
    Norms {
        /// The service.
        service: ServiceName,
        /// Its baseline.
        norms: Box<Norms>,
    },
    /// A rollback began.
    RollbackOpened(Box<RollbackRecord>),
    /// A rollback ended, or got further: replace by id.
    RollbackUpdated(Box<RollbackRecord>),
    /// The service's flags: pause and stuck.
    Flags {
        /// The service; the whole fleet if none.
        service: Option<ServiceName>,
        /// As they are now.
        flags: Flags,
    },
}

/// What an operator or a failure set on a service, or on the fleet; it survives a restart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Flags {
    /// Paused: by whom and why, until when.
    pub paused: Option<Pause>,
    /// A person is needed: why. For the fleet: the breaker tripped.
    pub stuck: Option<String>,
    /// The target of a rollback that could be neither finished nor undone, until the next look: seeing it is no deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brought: Option<ReleaseId>,
    /// What people are asked, or what they said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Box<Approval>>,
    /// What was answered with no before something more urgent was asked: it holds again when that is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Box<Approval>>,
    /// What was tried before a rollback.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mitigated: Vec<Mitigated>,
    /// What whoever deploys said of releases that are yet to be seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<DeployNote>,
}

/// A pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when; until resumed if none.
    pub until: Option<Timestamp>,
}

impl fmt::Display for Pause {
    /// `paused by alice: migration`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "paused by {}", self.by)?;
        if self.why.is_empty() { Ok(()) } else { write!(f, ": {}", self.why) }
    }
}

/// One row of the rollback log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RollbackRecord {
    /// Its identity.
    pub id: RollbackId,
    /// The service.
    pub service: ServiceName,
    /// The environment's name.
    pub environment: String,
    /// What was rolled back.
    pub from: Option<Release>,
    /// To what.
    pub to: Release,
    /// The decision: reason, gates, severity.
    pub decision: Decision,
    /// `backstop`, or who asked.
    pub decided_by: String,
    /// When the first sample of the breach failed: where the users' pain began.
    pub onset: Option<Timestamp>,
    /// When it was decided.
    pub started: Timestamp,
    /// When the target had been started.
    pub applied: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// How it stands.
    pub outcome: RollbackOutcome,
    /// What was changed in a project's files so that it lasts; none again once that was taken back.
    #[serde(default)]
    pub pin: Option<Pin>,
    /// The services of its group that go back with it, all or none.
    #[serde(default)]
    pub along: Vec<ServiceName>,
    /// Which of the two was stopped or started first, and why; known once it is applied.
    #[serde(default)]
    pub order: Option<String>,
    /// What people were asked before, and what they said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Box<Approval>>,
    /// What its proof rests on, once it is verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// The request, so that a restarted daemon can go on.
    pub request: RollbackRequest,
}

/// What was measured of a target by the time it counted as verified. Where nothing could be measured, nothing is proved of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Required health checks that passed in a row, all of them together.
    pub checks: u32,
    /// Containers whose own HEALTHCHECK says that they are healthy.
    pub healthy: u32,
    /// Rows about requests that had something to judge by, and found nothing.
    pub requests: Vec<Witness>,
}

/// A row of the matrix that found the target well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witness {
    /// What it judges.
    pub condition: Condition,
    /// Its name.
    pub rule: String,
    /// What it judged by.
    pub samples: u32,
}

/// How a rollback stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome", content = "detail")]
pub enum RollbackOutcome {
    /// Being carried out.
    Executing,
    /// The target runs and is being verified.
    Verifying,
    /// Proved: the target passed every rule and is what was asked for. With the sentence that says so.
    Verified(String),
    /// The target runs but did not pass.
    NotVerified(String),
    /// It failed and was undone.
    Unwound(String),
    /// It did not begin.
    Void(String),
    /// A newer deployment by somebody else ended it.
    Superseded(String),
    /// A person is needed.
    Stuck(String),
}

impl RollbackOutcome {
    /// The name used in the store, metrics and the API.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Executing => "executing",
            Self::Verifying => "verifying",
            Self::Verified(_) => "verified",
            Self::NotVerified(_) => "not_verified",
            Self::Unwound(_) => "unwound",
            Self::Void(_) => "void",
            Self::Superseded(_) => "superseded",
            Self::Stuck(_) => "stuck",
        }
    }

    /// Whether it is over.
    pub const fn is_over(&self) -> bool {
        !matches!(self, Self::Executing | Self::Verifying)
    }

    /// What there is to say about it.
    pub fn detail(&self) -> &str {
        match self {
            Self::Executing | Self::Verifying => "",
            Self::Verified(s)
            | Self::NotVerified(s)
            | Self::Unwound(s)
            | Self::Void(s)
            | Self::Superseded(s)
            | Self::Stuck(s) => s,
        }
    }
}

/// What a restarted daemon knows: read from the store, handed to `Fleet::restore`.
#[derive(Debug, Clone, Default)]
pub struct Remembered {
    /// Every service's ledger.
    pub ledgers: Vec<(ServiceName, Vec<LedgerEntry>)>,
    /// Flags of services, and of the fleet (none).
    pub flags: Vec<(Option<ServiceName>, Flags)>,
    /// Baselines, as last kept.
    pub norms: Vec<(ServiceName, Norms)>,
    /// Rollbacks of the last 30 days, oldest first: attempts, cooldowns, and those still open.
    pub rollbacks: Vec<RollbackRecord>,
}

impl Remembered {
    /// Puts back to `now` what is later: the clock of an earlier process was ahead of ours, or ours is behind. Else a
    /// release would not be judged, and a cooldown not end, before our clock has caught up. What follows one another goes on
    /// doing so. Gives how far ahead it was, and what has to be kept so that it is so at the next start as well; the log of
    /// rollbacks stays as it was written.
    ///
    /// A clock that is further behind than [`FAR_BEHIND`] was not set yet, as on a machine that keeps none while it is off:
    /// nothing is put back to that, it would be long ago as soon as the clock is right.
    pub fn put_back(&mut self, now: Timestamp) -> Option<(Duration, Vec<LedgerChange>)> {
        let as_stored = self.clone();
        let mut back = Back { now, ahead: Duration::ZERO };
        let mut changes = Vec::new();
        for (service, entries) in &mut self.ledgers {
            entries.sort_by_key(|entry| Reverse(entry.deployed));
            let mut latest = now;
            for entry in entries {
                let was = entry.clone();
                if back.put(&mut entry.deployed, latest) {
                    latest = entry.deployed.before(Duration::from_millis(1));
                }
                back.put(&mut entry.first_seen, now);
                if let Standing::KnownGood { since } | Standing::Quarantined { since, .. } =
                    &mut entry.standing
                {
                    back.put(since, now);
                }
                if let Some(gone) = &mut entry.gone {
                    back.put(&mut gone.since, now);
                }
                if *entry != was {
                    changes.push(LedgerChange::Entry { service: service.clone(), entry: entry.clone() });
                }
            }
        }
        for (service, flags) in &mut self.flags {
            let Some(pause) = &mut flags.paused else { continue };
            let long = pause.until.map(|until| until.since(pause.since));
            if back.put(&mut pause.since, now) {
                pause.until = long.map(|long| pause.since + long);
                changes.push(LedgerChange::Flags { service: service.clone(), flags: flags.clone() });
            }
        }
        for record in &mut self.rollbacks {
            back.put(&mut record.started, now);
            back.put(&mut record.decision.at, now);
            for time in [&mut record.onset, &mut record.applied, &mut record.ended].into_iter().flatten() {
                back.put(time, now);
            }
        }
        if back.ahead > FAR_BEHIND {
            *self = as_stored;
            return Some((back.ahead, Vec::new()));
        }
        (!back.ahead.is_zero()).then_some((back.ahead, changes))
    }
}

/// A clock that runs wrong is wrong by minutes or hours; one that is wrong by more was never set.
pub const FAR_BEHIND: Duration = Duration::from_secs(24 * 3600);

struct Back {
    now: Timestamp,
    /// The most that something was ahead.
    ahead: Duration,
}

impl Back {
    /// Says whether it was later than `latest`.
    fn put(&mut self, time: &mut Timestamp, latest: Timestamp) -> bool {
        self.ahead = self.ahead.max(time.since(self.now));
        let later = *time > latest;
        *time = (*time).min(latest);
        later
    }
}
