//! Sightings: what a service makes of a look at the engine: a deployment, a restart, an exit, nothing new.

use std::collections::BTreeSet;
use std::time::Duration;

use super::announcement::AnnouncementKind;
use super::assess::slow_spells;
use super::io::Effect;
use super::ledger::{DeployNote, LedgerEntry, RollbackOutcome, Standing};
use super::observation::{ContainerHealth, Observation, Phase, Replica};
use super::release::{Release, ReleaseId, ReplicaId};
use super::service::{Arrival, Exits, Service, Turn};
use super::settings::{Condition, Redeploy};
use super::state::{Event, State};
use super::surroundings::{BORNE, Reliance};
use super::time::{Timestamp, human};
use super::window::Before;

/// Replicas of several releases may run side by side for this long; then it is said that they cannot be judged.
const MIXED_MAX: Duration = Duration::from_secs(10 * 60);
/// So many differing replicas are named.
const MIXED_SAID: usize = 4;
/// Restarts found after a gap count up to this: the row needs no more, and the rest is history.
const EXITS_AFTER_GAP_MAX: u64 = 16;
/// Exit codes of a container that somebody stopped, or that ended with its engine (255), as far as one can tell
/// without having seen it.
const STOPPED_BY_HAND: [i64; 4] = [0, 137, 143, 255];

/// What is said of deployments that are yet to be seen: so many for each service ...
const NOTES_MAX: usize = 8;
/// ... for so long. A pipeline deploys within hours of saying so, or not at all.
const NOTE_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

impl Service {
    /// Takes in what runs now.
    pub(crate) fn observe(&mut self, turn: &mut Turn<'_>, seen: Observation, after_gap: bool) {
        let first = !self.seen;
        if seen.asked < self.asked {
            return;
        }
        self.asked = seen.asked;
        self.seen = true;
        self.awaits_look = false;
        self.settings = seen.settings;
        let gone: Vec<ReplicaId> = self.replicas.iter().map(|r| r.id.clone()).collect();
        self.replicas = seen.replicas;
        self.gone = if self.replicas.is_empty() { self.gone.or(Some(turn.now)) } else { None };
        if self.state == State::RollingBack || self.is_made_anew() {
            // The executor owns the service: what comes and goes now is its own doing.
            return;
        }
        self.arrive(turn.now);
        let newest = self.arrived.last().map(|newest| &newest.replica);
        let newest = newest.and_then(|id| self.replicas.iter().find(|r| r.id == *id));
        let Some(newest) = newest else {
            self.vanished(&gone);
            return;
        };
        let (release, created) = (newest.release.clone(), newest.created);
        if self.replicas.iter().any(|r| r.release.id != release.id) {
            let since = *self.mixed.get_or_insert(turn.now);
            if turn.now.since(since) < MIXED_MAX {
                return;
            }
        } else {
            self.mixed = None;
        }
        let brought = self.take_brought(turn);
        if self.current.as_ref().is_none_or(|c| c.id != release.id) {
            if self.is_of_our_making(&release) {
                self.goes_on_as(turn, &release);
                if first {
                    self.trial_ends = self.trial_end(turn.now);
                }
            } else if brought == Some(release.id.clone()) {
                self.is_half_way_back(turn, &release);
            } else {
                self.deploy(turn, release, created, first);
            }
        } else if first {
            // Its settings are known only now.
            self.trial_ends = self.trial_end(turn.now);
            self.refuse_if_quarantined();
            self.schema_deployed(turn);
        }
        if self.mixed.is_some() {
            self.say_mixed(turn);
        }
        self.look_at_replicas(turn.now, after_gap);
    }

    /// Which replica is the newest, and which was started again, is told by when that was first seen: the engine's clock may
    /// have been set meanwhile.
    fn arrive(&mut self, now: Timestamp) {
        self.arrived.retain(|known| self.replicas.iter().any(|r| r.id == known.replica));
        for known in &mut self.arrived {
            let started = self.replicas.iter().find(|r| r.id == known.replica).and_then(|r| r.started);
            if started != known.started {
                (known.started, known.seen) = (started, now);
            }
        }
        let known = |id: &ReplicaId| self.arrived.iter().any(|known| known.replica == *id);
        let mut new: Vec<&Replica> = self.replicas.iter().filter(|r| !known(&r.id)).collect();
        new.sort_by_key(|r| r.created);
        let new = new.into_iter();
        let new: Vec<Arrival> =
            new.map(|r| Arrival { replica: r.id.clone(), started: r.started, seen: now }).collect();
        self.arrived.extend(new);
    }

    /// Replicas that differ for good are never judged, since a rollback would replace all of them: that is said once.
    fn say_mixed(&mut self, turn: &mut Turn<'_>) {
        if !self.told.insert("mixed".into()) {
            return;
        }
        let runs: BTreeSet<String> =
            self.replicas.iter().map(|r| format!("{} runs {}", r.name, r.release)).collect();
        let runs = runs.into_iter().take(MIXED_SAID).collect::<Vec<_>>().join(", ");
        let mut a = self.announcement(turn, AnnouncementKind::Blind, "REPLICAS DIFFER");
        a.fields.push(("Reason".into(), format!("they have differed for {}: {runs}", human(MIXED_MAX))));
        a.fields.push((
            "Meaning".into(),
            "nothing is judged nor rolled back while image or configuration of its replicas differ".into(),
        ));
        a.next = Some("give each its own `backstop.service`, or deploy them alike".into());
        turn.effect(Effect::Announce(a));
    }

    /// Nothing runs. If it ended by itself it is down; else somebody removed it, and that is their decision.
    fn vanished(&mut self, gone: &[ReplicaId]) {
        for id in gone {
            if let Some((since, how)) = self.exits.crashed.get(id) {
                self.evidence
                    .down
                    .insert(id.clone(), (*since, format!("{how}, and its container was removed")));
            }
        }
        if self.evidence.down.is_empty() {
            self.evidence.checks.clear();
            self.evidence.unhealthy.clear();
        }
        self.mixed = None;
    }

    /// What a rollback that ended stuck was bringing back, once: what the look after it shows is its doing.
    fn take_brought(&mut self, turn: &mut Turn<'_>) -> Option<ReleaseId> {
        self.flags.brought.as_ref()?;
        let mut brought = None;
        self.flag(turn, |flags| brought = flags.brought.take());
        brought
    }

    /// A rollback of ours started its target and went no further: nobody deployed anything, and a person is needed still.
    fn is_half_way_back(&mut self, turn: &mut Turn<'_>, release: &Release) {
        self.evidence = self.evidence.successor();
        self.onsets.clear();
        self.spells.break_off();
        self.exits = Exits::default();
        self.current = Some(release.clone());
        self.enter(turn, release, |entry| entry.gone = None);
    }

    /// Another release appeared.
    fn deploy(&mut self, turn: &mut Turn<'_>, release: Release, created: Timestamp, first: bool) {
        if self.state == State::Verifying {
            self.superseded(turn, &release);
        }
        self.drop_prepared(turn);
        let replaced = self.current.is_some();
        let known = self.kept_norm.take().unwrap_or_default();
        if !self.current_is_known_good() && turn.now.since(self.deployed) <= self.settings.watch {
            self.spells.forget_since(self.deployed);
        }
        self.before = if replaced && !first { self.baseline(turn.now) } else { Before::default() };
        if replaced {
            // It was deployed while we were away, or just after we came: an earlier process knew what is usual.
            self.before.norm = std::mem::take(&mut self.before.norm).or(Some(known));
        }
        let down = |r: &Reliance| {
            r.failures >= 2 && r.failing_now(turn.now).is_some_and(|outage| outage.seen + BORNE >= turn.now)
        };
        if self.reliances.values().any(down) {
            // What failed just before has its reason. While that lasts this release is not blamed; afterwards it may be.
            self.before.norm.just_before = (0, 0);
        }
        self.evidence = self.evidence.successor();
        self.onsets.clear();
        self.spells.break_off();
        self.usual.reset(turn.now, self.before.norm.clone());
        // Whoever takes up from here does not blame this release for what was before it either.
        self.keep_norms(turn);
        self.ailing = None;
        self.undone = None;
        self.exits = Exits::default();
        self.told.clear();
        self.advised.clear();
        self.failed_targets.clear();
        self.held_by_surroundings = false;
        self.refused = None;
        self.protect = None;
        // What was there before us was deployed when its container was made, not when we came.
        self.deployed = if first { created.min(turn.now) } else { turn.now };
        self.current = Some(release.clone());
        let deployed = self.deployed;
        self.enter(turn, &release, |entry| {
            entry.deployed = deployed;
            // It runs, so its image is here.
            entry.gone = None;
        });
        self.take_note(turn, &release);
        self.schema_deployed(turn);
        self.recheck_targets(turn.now);
        self.trial_ends = self.trial_end(turn.now);
        self.forget_question(turn);
        self.mitigating = None;
        self.quiet_until = None;
        self.flag(turn, |flags| {
            flags.stuck = None;
            flags.mitigated.clear();
        });
        self.go(turn, Event::Deployed);
        self.greet(turn, &release, replaced);
    }

    /// What whoever deployed it said of it beforehand is kept with it.
    fn take_note(&mut self, turn: &mut Turn<'_>, release: &Release) {
        let Some(at) = self.flags.notes.iter().position(|note| note.is_about(release)) else { return };
        let mut note = None;
        self.flag(turn, |flags| note = Some(Box::new(flags.notes.remove(at))));
        self.enter(turn, release, |entry| entry.note = note);
    }

    /// A release that was rolled back is judged like any other when it is deployed again, or from now on if it runs.
    ///
    /// # Errors
    /// There is no such release in quarantine.
    pub(crate) fn unquarantine(
        &mut self,
        turn: &mut Turn<'_>,
        wanted: &str,
        by: &str,
        why: &str,
    ) -> Result<String, String> {
        let held = |e: &&LedgerEntry| matches!(e.standing, Standing::Quarantined { .. });
        let found = self.ledger.iter().filter(held).find(|e| e.release.answers_to(wanted));
        let Some(release) = found.map(|e| e.release.clone()) else {
            let all: Vec<String> = self.ledger.iter().filter(held).map(|e| e.release.to_string()).collect();
            let all = if all.is_empty() { "none".into() } else { all.join(", ") };
            return Err(format!(
                "{wanted} of {} is not in quarantine; what is: {all}; next: backstop quarantine",
                self.name
            ));
        };
        self.enter(turn, &release, |entry| entry.standing = Standing::Trial);
        if self.current.as_ref().is_some_and(|current| current.id == release.id) {
            self.refused = None;
        }
        let mut a = self.announcement(turn, AnnouncementKind::Approval, "RELEASED FROM QUARANTINE");
        a.fields.push(("Release".into(), release.to_string()));
        a.fields.push(("Decided by".into(), by.to_owned()));
        if !why.is_empty() {
            a.fields.push(("Because".into(), why.to_owned()));
        }
        turn.effect(Effect::Announce(a));
        Ok(format!("{release} is out of quarantine: deployed again, it is judged like any other release"))
    }

    /// Somebody says what they deploy: of what runs already, or of what is yet to be seen.
    pub(crate) fn noted(&mut self, turn: &mut Turn<'_>, note: DeployNote) -> String {
        let name = self.name.clone();
        let runs = self.current.clone().filter(|current| note.is_about(current));
        let Some(runs) = runs else {
            let said = format!("noted: {} of {name} is told of when it is seen", note.release);
            self.flag(turn, |flags| {
                flags.notes.retain(|old| old.release != note.release && note.at.since(old.at) < NOTE_KEPT);
                flags.notes.push(note);
                let over = flags.notes.len().saturating_sub(NOTES_MAX);
                flags.notes.drain(..over);
            });
            return said;
        };
        let schema = note.schema;
        self.enter(turn, &runs, |entry| entry.note = Some(Box::new(note)));
        if let Some(change) = schema {
            self.schema_said(turn, &runs.id, change);
        }
        format!("noted: {runs} of {name} runs already")
    }

    /// How bad it was before the deployment that was seen just now. A release that came and went without having proved
    /// itself is no measure for the next one, or two bad ones in a row would excuse each other: what counts then is
    /// what it was measured by itself. One that nobody would have blamed any more has become the normal state.
    fn baseline(&self, now: Timestamp) -> Before {
        if !self.current_is_known_good()
            && now.since(self.deployed) <= self.settings.watch
            && self.before != Before::default()
        {
            return self.before.clone();
        }
        let within = |name: &str| self.settings.rules.iter().find(|r| r.name == name).map(|r| r.within);
        let (exits, kills) = (within("crash_loop"), within("oom"));
        let (exits, kills) = (exits.unwrap_or_default(), kills.unwrap_or_default());
        let mut before = self.evidence.sum_up(now, exits, kills, self.settings.baseline);
        before.recurring = self.spells.recurring(now);
        for rule in self.settings.rules.iter().filter(|rule| rule.condition == Condition::Latency) {
            let slow = slow_spells(rule, &self.evidence, &before.norm, now);
            before.recurring.extend(slow.map(|slow| (rule.name.clone(), slow)));
        }
        before
    }

    /// When the trial is over. Who has run that long already, or was known-good before, needs one verification only.
    fn trial_end(&self, now: Timestamp) -> Timestamp {
        let full = self.deployed + self.settings.trial;
        let short = now + self.settings.verify;
        if self.current_is_known_good() || full <= now { short } else { full }
    }

    /// Says what there is to say about a release that just appeared.
    fn greet(&mut self, turn: &mut Turn<'_>, release: &Release, replaced: bool) {
        if let Some(Standing::Quarantined { since, why }) = self.current_entry().map(|e| e.standing.clone()) {
            self.refuse_if_quarantined();
            let refuse = self.refused.is_some();
            let then = if refuse { "It is rolled back at once" } else { "It is judged again" };
            let mut a =
                self.announcement(turn, AnnouncementKind::QuarantinedAgain, "ROLLED-BACK RELEASE IS BACK");
            a.fields.push(("Current version".into(), release.to_string()));
            a.fields.push(("Rolled back".into(), format!("{} ago: {why}", human(turn.now.since(since)))));
            a.fields.push(("Policy".into(), then.into()));
            a.next = Some(format!("backstop explain {}", self.name));
            turn.effect(Effect::Announce(a));
        }
        if let (true, Err(why)) = (replaced, self.target()) {
            let mut a = self.announcement(turn, AnnouncementKind::NoRollbackTarget, "NO ROLLBACK TARGET");
            a.fields.push(("Current version".into(), release.to_string()));
            let meaning = format!("if this release is bad, there is nothing to go back to: {why}");
            a.fields.push(("Meaning".into(), meaning));
            a.next = Some(format!("backstop explain {}", self.name));
            turn.effect(Effect::Announce(a));
        }
    }

    /// Under the policy `refuse`, a release that was rolled back once is not judged again.
    fn refuse_if_quarantined(&mut self) {
        if let Some(Standing::Quarantined { why, .. }) = self.current_entry().map(|e| &e.standing)
            && self.settings.redeploy == Redeploy::Refuse
        {
            self.refused = Some(why.clone());
        }
    }

    /// Somebody deployed while a rollback was being verified: the newer decision wins and is judged afresh.
    fn superseded(&mut self, turn: &mut Turn<'_>, by: &Release) {
        let why = format!("somebody deployed {by} before the rollback was proved");
        let id = self.rollback.as_ref().map(|r| r.id.clone());
        self.end_rollback(turn, RollbackOutcome::Superseded(why.clone()));
        if let Some(id) = id {
            self.say_failed(turn, &id, "ROLLBACK ENDED UNPROVED", &why, &by.to_string());
        }
    }

    /// Takes in each replica's own state.
    fn look_at_replicas(&mut self, now: Timestamp, after_gap: bool) {
        let replicas = std::mem::take(&mut self.replicas);
        self.evidence.retain(|id| replicas.iter().any(|r| r.id == *id));
        for replica in &replicas {
            self.look_at(now, replica, after_gap);
        }
        self.exits.accounted.retain(|id, _| replicas.iter().any(|r| r.id == *id));
        // An orchestrator gives each attempt an id of its own, and a crash loop may go on for weeks.
        self.exits.crashed.retain(|id, _| replicas.iter().any(|r| r.id == *id));
        self.exits.requested.retain(|id| replicas.iter().any(|r| r.id == *id));
        self.replicas = replicas;
    }

    fn look_at(&mut self, now: Timestamp, replica: &Replica, after_gap: bool) {
        let id = &replica.id;
        match &replica.health {
            Some(ContainerHealth::Unhealthy(output)) if replica.phase == Phase::Running => {
                let since = self.evidence.unhealthy.get(id).map_or(now, |(since, _)| *since);
                self.evidence.unhealthy.insert(id.clone(), (since, output.clone()));
            }
            None
            | Some(ContainerHealth::Starting | ContainerHealth::Healthy | ContainerHealth::Unhealthy(_)) => {
                self.evidence.unhealthy.remove(id);
            }
        }
        let known = *self.exits.accounted.entry(id.clone()).or_insert(replica.restart_count);
        if after_gap && replica.restart_count > known {
            for _ in 0..(replica.restart_count - known).min(EXITS_AFTER_GAP_MAX) {
                self.evidence.exited(now, None, false);
            }
        }
        if after_gap || replica.restart_count < known {
            self.exits.accounted.insert(id.clone(), replica.restart_count);
        }
        match how_down(replica, &self.exits) {
            Some(how) => {
                let since = self.exits.crashed.get(id).map_or(now, |(since, _)| *since);
                self.evidence.down.entry(id.clone()).or_insert((since, how));
            }
            None => {
                self.evidence.down.remove(id);
            }
        }
        if replica.phase == Phase::Running {
            self.exits.requested.remove(id);
            self.exits.crashed.remove(id);
        }
    }

    /// Nothing of it serves because somebody stopped or removed it. What ended by itself and well, like a job, was not
    /// stopped; what a rollback of ours stops is not gone.
    pub(crate) fn was_stopped_by_hand(&self) -> bool {
        if self.state.in_flight() || !self.seen || self.current.is_none() {
            return false;
        }
        let asked = |replica: &Replica| {
            let by_signal = replica.exit_code.is_some_and(|code| [137, 143].contains(&code));
            self.exits.requested.contains(&replica.id) || by_signal
        };
        let ended = |replica: &Replica| {
            replica.phase == Phase::Exited && !self.exits.crashed.contains_key(&replica.id) && asked(replica)
        };
        if self.replicas.is_empty() {
            return self.evidence.down.is_empty() && !self.exits.requested.is_empty();
        }
        self.replicas.iter().all(ended)
    }

    /// Takes in the end of a main process.
    pub(crate) fn exited(
        &mut self,
        now: Timestamp,
        replica: &ReplicaId,
        code: i64,
        oom: bool,
        requested: bool,
    ) {
        if self.state == State::RollingBack || self.is_made_anew() {
            return;
        }
        if requested && !oom {
            self.exits.requested.insert(replica.clone());
            self.exits.crashed.remove(replica);
            self.evidence.forgive_the_stop(now);
            return;
        }
        self.evidence.exited(now, Some(code), oom);
        if let Some(accounted) = self.exits.accounted.get_mut(replica) {
            *accounted = accounted.saturating_add(1);
        }
        if oom || code != 0 {
            let how = if oom {
                "killed for want of memory".to_owned()
            } else {
                format!("it exited with code {code}")
            };
            self.exits.requested.remove(replica);
            self.exits.crashed.insert(replica.clone(), (now, how));
        }
    }
}

/// How a replica is down by its own fault; none if it is up, or was stopped by somebody, or ended well.
fn how_down(replica: &Replica, exits: &Exits) -> Option<String> {
    match replica.phase {
        Phase::Created => replica.start_error.as_ref().map(|e| format!("it could not be started: {e}")),
        Phase::Exited if exits.requested.contains(&replica.id) => None,
        Phase::Exited => match exits.crashed.get(&replica.id) {
            Some((_, how)) => Some(how.clone()),
            None => {
                let code = replica.exit_code.unwrap_or(0);
                (!STOPPED_BY_HAND.contains(&code)).then(|| format!("it exited with code {code}"))
            }
        },
        Phase::Running | Phase::Restarting | Phase::Paused | Phase::Gone => None,
    }
}
