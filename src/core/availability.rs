//! Whether the images of known-good releases can be had: found out before they are needed, and said before it is too late.
//!
//! A release is gone only when the engine does not have its image and its registry says that it does not have it either.
//! Everything else is not knowing, and that takes nothing away: a release whose image is on the engine is a target
//! whatever becomes of the registry.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::announcement::AnnouncementKind;
use super::io::{Effect, EngineState};
use super::ledger::LedgerChange;
use super::release::{Release, ReleaseId};
use super::service::{Service, Turn};
use super::state::State;
use super::surroundings::Surroundings;
use super::time::Timestamp;

/// Whoever has to answer asks a registry for half a minute and fetches for ten at most, a few at a time: after this
/// long, no answer will come any more.
const ANSWERED: Duration = Duration::from_secs(60 * 60);
/// Deployments and suspicions ask again, but not more often than this: one that comes and goes must not storm a registry.
const JUST_NOW: Duration = Duration::from_secs(60);
/// Registries count what they are asked (Docker Hub: a hundred times in six hours), engines do not: an answer that took a
/// registry is renewed this many times less often.
const OF_A_REGISTRY: u32 = 6;

/// Whether a release's image can be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "availability")]
pub enum Availability {
    /// The engine has it.
    Here,
    /// The engine does not have it, the registry does: whoever is to run it can fetch it.
    Registry,
    /// The engine does not have it, and whether it could be fetched is not known, or it cannot be now.
    Missing {
        /// Why, and what to do about it.
        why: String,
    },
    /// Neither has it.
    Gone {
        /// Who said so.
        why: String,
    },
    /// It could not be found out.
    Unknown {
        /// Why not.
        why: String,
    },
}

impl Availability {
    /// The name used in the API and shown to people.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Registry => "registry",
            Self::Missing { .. } => "missing",
            Self::Gone { .. } => "gone",
            Self::Unknown { .. } => "unknown",
        }
    }

    /// What there is to say about it.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Here | Self::Registry => None,
            Self::Missing { why } | Self::Gone { why } | Self::Unknown { why } => Some(why),
        }
    }
}

/// What is known of one release's image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// When that was asked last.
    asked: Timestamp,
    /// The last answer, and when it came.
    pub(crate) answer: Option<(Timestamp, Availability)>,
    /// It was said that it is missing.
    told: bool,
    /// Something happened since that makes it worth asking again.
    stale: bool,
}

impl Checked {
    /// Whether it is to be asked again.
    fn is_due(&self, now: Timestamp, every: Duration) -> bool {
        if self.is_awaited() {
            return now >= self.asked + ANSWERED;
        }
        let every = match &self.answer {
            Some((_, Availability::Registry | Availability::Gone { .. })) => {
                every.saturating_mul(OF_A_REGISTRY)
            }
            None
            | Some((_, Availability::Here | Availability::Missing { .. } | Availability::Unknown { .. })) => {
                every
            }
        };
        self.stale || now >= self.asked + every
    }

    fn is_awaited(&self) -> bool {
        self.answer.as_ref().is_none_or(|(at, _)| *at < self.asked)
    }
}

/// Since when, and by whose word, a release's image is nowhere any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// Since when that is known.
    pub since: Timestamp,
    /// Who said so.
    pub why: String,
}

impl Service {
    /// Whether the images of its targets can be had is asked when that is due, unless a rollback is under way.
    pub(crate) fn check_targets(&mut self, turn: &mut Turn<'_>, around: Surroundings<'_>) {
        let nothing_runs = self.replicas.is_empty() && self.evidence.down.is_empty();
        let reachable = matches!(around.engine, Some(EngineState::Reachable { .. }));
        if nothing_runs || !reachable || self.state.in_flight() {
            return;
        }
        if self.state == State::Suspect && self.since == turn.now {
            self.recheck_targets(turn.now);
        }
        let every = turn.fleet.check_interval;
        let due = |t: &&Release| self.checked.get(&t.id).is_none_or(|known| known.is_due(turn.now, every));
        // The newest comes first: it is the likeliest to be needed.
        let due: Vec<Release> = self.targets().filter(due).cloned().collect();
        for release in due {
            let known = self.checked.remove(&release.id);
            let (answer, told) = known.map_or((None, false), |known| (known.answer, known.told));
            let checked = Checked { asked: turn.now, answer, told, stale: false };
            self.checked.insert(release.id.clone(), checked);
            let (service, fetch) = (self.name.clone(), self.acts());
            turn.effect(Effect::CheckTarget { service, release, fetch });
        }
    }

    /// Targets are asked about again, unless that was just done: what is deployed now may have pushed an image out, and
    /// may need one; so may whoever is suspected.
    pub(crate) fn recheck_targets(&mut self, now: Timestamp) {
        let targets: Vec<ReleaseId> = self.targets().map(|t| t.id.clone()).collect();
        self.checked.retain(|id, _| targets.contains(id));
        for checked in self.checked.values_mut() {
            checked.stale |= now.since(checked.asked) >= JUST_NOW;
        }
    }

    /// Takes in an answer.
    pub(crate) fn target_checked(&mut self, turn: &mut Turn<'_>, id: &ReleaseId, availability: Availability) {
        let Some(release) = self.targets().find(|t| t.id == *id).cloned() else {
            // It was deployed, or let go, meanwhile.
            return;
        };
        let now = turn.now;
        let missing = matches!(availability, Availability::Missing { .. });
        let known = self.checked.entry(id.clone()).or_insert(Checked {
            asked: now,
            answer: None,
            told: false,
            stale: false,
        });
        let was_missing = matches!(known.answer, Some((_, Availability::Missing { .. })));
        known.answer = Some((now, availability.clone()));
        let say_missing = missing && was_missing && !known.told;
        let found = known.told && matches!(availability, Availability::Here | Availability::Registry);
        known.told =
            (known.told || say_missing) && (missing || matches!(availability, Availability::Unknown { .. }));
        let was_gone = self.entry(id).is_some_and(|e| e.gone.is_some());
        match availability {
            Availability::Gone { why } if !was_gone => self.target_gone(turn, &release, why),
            Availability::Here | Availability::Registry if was_gone || found => {
                self.set_gone(turn, id, None);
                self.say_back(turn, &release);
            }
            // Whether a network was away for a moment is known only the second time.
            Availability::Missing { why } if say_missing && !was_gone => {
                self.say_missing(turn, &release, why)
            }
            Availability::Here
            | Availability::Registry
            | Availability::Missing { .. }
            | Availability::Gone { .. }
            | Availability::Unknown { .. } => {}
        }
    }

    fn set_gone(&mut self, turn: &mut Turn<'_>, id: &ReleaseId, gone: Option<Gone>) {
        if let Some(entry) = self.ledger.iter_mut().find(|e| e.release.id == *id) {
            entry.gone = gone;
            let entry = entry.clone();
            turn.remember(LedgerChange::Entry { service: self.name.clone(), entry });
        }
    }

    /// A target is no more: the next one takes its place, and people hear of it before it is needed.
    fn target_gone(&mut self, turn: &mut Turn<'_>, release: &Release, why: String) {
        let was_next = self.target().is_ok_and(|target| target.id == release.id);
        self.set_gone(turn, &release.id, Some(Gone { since: turn.now, why: why.clone() }));
        if self.prepared.as_ref().is_some_and(|prepared| prepared.to.id == release.id) {
            self.drop_prepared(turn);
        }
        let next = self.target().map(ToString::to_string);
        let (kind, title) = match &next {
            Ok(_) => (AnnouncementKind::Target, "ROLLBACK TARGET IS GONE"),
            Err(_) => (AnnouncementKind::NoRollbackTarget, "NO ROLLBACK TARGET"),
        };
        let mut a = self.announcement(turn, kind, title);
        a.fields.push(("Release".into(), release.to_string()));
        a.fields.push(("Reason".into(), why));
        a.fields.push((
            "Then".into(),
            match next {
                Ok(next) if was_next => format!("a rollback would go to {next} now"),
                Ok(next) => format!("a rollback would go to {next}, as before"),
                Err(why) => format!("if the current release is bad, there is nothing to go back to: {why}"),
            },
        ));
        a.next =
            Some(format!("push or load {} again; then: backstop explain {}", release.reference, self.name));
        turn.effect(Effect::Announce(a));
    }

    fn say_missing(&self, turn: &mut Turn<'_>, release: &Release, why: String) {
        let mut a = self.announcement(turn, AnnouncementKind::Target, "ROLLBACK TARGET IS NOT HERE");
        a.fields.push(("Release".into(), release.to_string()));
        a.fields.push(("Reason".into(), why));
        a.fields.push((
            "Meaning".into(),
            "its image is not on the engine and cannot be fetched now, so a rollback to it would fail".into(),
        ));
        a.next = Some(format!("backstop explain {}", self.name));
        turn.effect(Effect::Announce(a));
    }

    fn say_back(&self, turn: &mut Turn<'_>, release: &Release) {
        let mut a = self.announcement(turn, AnnouncementKind::Target, "ROLLBACK TARGET IS BACK");
        a.fields.push(("Release".into(), release.to_string()));
        let next = self.target().map_or_else(|why| why.to_owned(), |t| format!("a rollback would go to {t}"));
        a.fields.push(("Then".into(), next));
        turn.effect(Effect::Announce(a));
    }
}
