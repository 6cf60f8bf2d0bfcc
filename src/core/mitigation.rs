//! Mitigations: what is tried before a rollback, because it is less of a change. "Resource exhaustion: restart first; if it
//! persists, roll back", or "set `EXPORT_MODE=off` and recreate".
//!
//! A row names a ladder of them. Each is tried once for a release, and what was seen before says nothing afterwards: the
//! row has to be breached anew before the next rung, or the rollback, is taken.

use serde::{Deserialize, Serialize};

use super::announcement::AnnouncementKind;
use super::decision::Decision;
use super::io::Effect;
use super::release::{MitigationId, Release, ReleaseId};
use super::service::{Service, Turn};
use super::settings::Mitigation;
use super::state::State;
use super::time::{Timestamp, human};

/// A rung of a ladder that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mitigated {
    /// Its identity.
    pub id: MitigationId,
    /// What was tried.
    pub what: Mitigation,
    /// For which row.
    pub rule: String,
    /// With which release.
    pub release: ReleaseId,
    /// When.
    pub at: Timestamp,
    /// How it went; none while it is done, or until it is known what became of what an earlier process was at.
    pub result: Option<Result<String, String>>,
    /// The release as its deployer made it, where it was made anew with something set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<Box<Release>>,
    /// It was said that it helped.
    #[serde(default)]
    pub helped: bool,
}

impl Service {
    /// The next rung for this row, while the release that runs is what it was.
    pub(crate) fn next_mitigation(&self, rule: &str) -> Option<Mitigation> {
        let ladder = &self.settings.rules.iter().find(|row| row.name == rule)?.mitigations;
        let taken = self.mitigated().filter(|taken| taken.rule == rule).count();
        ladder.get(taken).cloned()
    }

    /// What was tried with the release that runs.
    pub(crate) fn mitigated(&self) -> impl Iterator<Item = &Mitigated> {
        let current = self.current.as_ref().map(|release| &release.id);
        self.flags.mitigated.iter().filter(move |taken| Some(&taken.release) == current)
    }

    /// Takes a rung.
    pub(crate) fn mitigate(
        &mut self,
        turn: &mut Turn<'_>,
        what: Mitigation,
        rule: &str,
        decision: &Decision,
    ) {
        let Some(current) = self.current.clone() else { return };
        let release = current.id.clone();
        let id = MitigationId::new(turn.rollback_id().as_str());
        let taken = Mitigated {
            id: id.clone(),
            what: what.clone(),
            rule: rule.to_owned(),
            release: release.clone(),
            at: turn.now,
            result: None,
            was: None,
            helped: false,
        };
        self.flag(turn, |flags| {
            flags.mitigated.retain(|old| old.release == release);
            flags.mitigated.push(taken);
        });
        self.record(turn, decision);
        let mut a = self.announcement(turn, AnnouncementKind::Mitigation, "SOMETHING ELSE BEFORE A ROLLBACK");
        a.key = format!("{id}/mitigation");
        a.severity = Some(decision.severity);
        a.fields.push(("What is done".into(), what.intent()));
        a.fields.extend(self.about(decision, "If that does not help, it goes back to"));
        a.next = Some(format!("nothing; to roll back at once: backstop rollback {}", self.name));
        turn.effect(Effect::Announce(a));
        turn.effect(Effect::Mitigate {
            id: id.clone(),
            service: self.name.clone(),
            from: current,
            what,
            why: decision.reason.to_string(),
        });
        self.mitigating = Some(id);
    }

    /// It was done, or could not be. What was seen before is void, if it was: the ladder goes on only if it is bad anew.
    pub(crate) fn mitigation_ended(
        &mut self,
        turn: &mut Turn<'_>,
        id: &MitigationId,
        result: Result<String, String>,
    ) {
        let anew = self.is_made_anew();
        if self.mitigating.take_if(|mitigating| mitigating == id).is_none() {
            return;
        }
        if let Err(why) = &result {
            let mut a = self.announcement(turn, AnnouncementKind::Mitigation, "MITIGATION FAILED");
            a.key = format!("{id}/failed");
            a.fields.push(("Reason".into(), why.clone()));
            a.fields.push(("What follows".into(), "the next step, as soon as the gates allow it".into()));
            turn.effect(Effect::Announce(a));
        } else {
            self.start_anew(turn.now);
            self.onsets.clear();
            self.told.clear();
            self.quiet_until = Some(turn.now + self.settings.grace);
        }
        if anew {
            // What was made anew is starting, even if it could not be done for all.
            self.quiet_until = Some(turn.now + self.settings.grace);
        }
        if result.is_ok() || anew {
            // What was looked at before it says nothing about what runs since.
            self.asked = turn.now;
            turn.effect(Effect::Observe { service: self.name.clone() });
        }
        self.flag(turn, |flags| {
            if let Some(taken) = flags.mitigated.iter_mut().find(|taken| taken.id == *id) {
                taken.result = Some(result);
            }
        });
    }

    /// Its replicas are being made anew with something set: what comes and goes meanwhile is our own doing.
    pub(crate) fn is_made_anew(&self) -> bool {
        self.under_way().is_some_and(Mitigation::replaces)
    }

    /// What is being done now instead of a rollback.
    pub(crate) fn under_way(&self) -> Option<&Mitigation> {
        let id = self.mitigating.as_ref()?;
        self.flags.mitigated.iter().find(|taken| taken.id == *id).map(|taken| &taken.what)
    }

    /// Whether a release that appears is the one that ran, made anew by us with something set. Whoever deploys the same
    /// image again just then is taken for us, once; nothing but the time that it is on trial depends on it.
    pub(crate) fn is_of_our_making(&self, release: &Release) -> bool {
        let same =
            |current: &Release| current.image == release.image && current.reference == release.reference;
        self.current.as_ref().is_some_and(same)
            && self.mitigated().last().is_some_and(|taken| taken.what.replaces() && taken.was.is_none())
    }

    /// The same release under another configuration: it goes on where it was, on trial and on its ladder.
    pub(crate) fn goes_on_as(&mut self, turn: &mut Turn<'_>, release: &Release) {
        let Some(was) = self.current.replace(release.clone()) else { return };
        let old = self.ledger.iter().find(|entry| entry.release.id == was.id).cloned();
        let deployed = self.deployed;
        self.enter(turn, release, |entry| {
            entry.deployed = deployed;
            entry.gone = None;
            if let Some(old) = old {
                (entry.note, entry.schema) = (old.note, old.schema);
            }
        });
        self.recheck_targets(turn.now);
        self.flag(turn, |flags| {
            let mut last = None;
            for taken in flags.mitigated.iter_mut().filter(|taken| taken.release == was.id) {
                taken.release = release.id.clone();
                last = Some(taken);
            }
            if let Some(last) = last {
                last.was = Some(Box::new(was));
            }
        });
    }

    /// It is being restarted, or was just now: what it does meanwhile says nothing. When that is over, everything is seen
    /// anew.
    pub(crate) fn is_settling(&self, now: Timestamp) -> bool {
        self.mitigating.is_some() || self.quiet_until.is_some_and(|until| now < until)
    }

    /// The grace after a restart is over.
    pub(crate) fn settled(&mut self, now: Timestamp) {
        if self.quiet_until.take_if(|until| now >= *until).is_some() {
            self.start_anew(now);
            self.onsets.clear();
        }
    }

    /// Nothing is crossed any more, and has not been for as long as a rollback would have to prove itself.
    pub(crate) fn mitigation_helped(&mut self, turn: &mut Turn<'_>) {
        let verify = self.settings.grace + self.settings.verify;
        // In these states nothing is crossed, nor was it since the service is in them.
        let well = |taken: &Mitigated| {
            matches!(self.state, State::Trial | State::Steady)
                && turn.now.since(taken.at.max(self.since)) >= verify
        };
        let helped = |taken: &Mitigated| !taken.helped && matches!(taken.result, Some(Ok(_))) && well(taken);
        // The one before the last did not: it was breached anew.
        let Some(taken) = self.mitigated().last().filter(|taken| helped(taken)).cloned() else { return };
        if self.proof(turn.now).is_err() {
            return;
        }
        let mut a = self.announcement(turn, AnnouncementKind::Mitigation, "IT HELPED");
        a.key = format!("{}/helped", taken.id);
        a.fields.push((
            "What was done".into(),
            format!("{}, {} ago", taken.what, human(turn.now.since(taken.at))),
        ));
        a.fields.push(("It was done because of".into(), taken.rule.clone()));
        if let Some(Ok(note)) =
            taken.result.as_ref().filter(|done| done.as_ref().is_ok_and(|n| !n.is_empty()))
        {
            a.fields.push(("Note".into(), note.clone()));
        }
        a.fields.push((
            "Meaning".into(),
            "no rollback for now; if the row is breached again, the next step follows".into(),
        ));
        turn.effect(Effect::Announce(a));
        self.flag(turn, |flags| {
            for old in flags.mitigated.iter_mut().filter(|old| old.id == taken.id) {
                old.helped = true;
            }
        });
    }
}
