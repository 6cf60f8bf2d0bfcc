//! Pursuit: a rollback in flight, from the decision to its proof, or to a person.

use std::sync::Arc;
use std::time::Duration;

use super::announcement::AnnouncementKind;
use super::assess::Finding;
use super::decision::{Decision, Gate, Reason};
use super::io::{Effect, Executed, RollbackRequest};
use super::ledger::{LedgerChange, Proof, RollbackOutcome, RollbackRecord, Standing, Witness};
use super::observation::ContainerHealth;
use super::plan::Pin;
use super::release::{Release, RollbackId, ServiceName};
use super::service::{BACKSTOP, Exits, Service, Turn};
use super::settings::{Action, Condition, Dependency};
use super::snapshot::RowAnswer;
use super::state::{Event, State};
use super::surroundings::{BORNE, Reliance, Surroundings};
use super::time::{Timestamp, human};
use super::window::{Before, count};

/// Who replaces a container by hand, or by `docker compose up`, has done so by then: what is still not there was removed.
const VANISHED: Duration = Duration::from_secs(30);

impl Service {
    /// A rollback was decided. What was prepared for the same target is used; all else is dropped.
    pub(crate) fn begin(
        &mut self,
        turn: &mut Turn<'_>,
        decision: Decision,
        by: &str,
        onset: Option<Timestamp>,
        event: Event,
        along: Vec<ServiceName>,
    ) {
        let Some(to) = decision.to.clone() else { return };
        let schema = self.about_schema(&to);
        let ready = self.prepared.take_if(|p| p.to.id == to.id);
        self.drop_prepared(turn);
        let request = RollbackRequest {
            id: ready.map_or_else(|| turn.rollback_id(), |p| p.id),
            service: self.name.clone(),
            from: decision.from.as_ref().map(|r| r.id.clone()),
            to: to.clone(),
            stop_grace: self.settings.stop_grace,
            decided: Some(turn.now),
            vanished: self.replicas.is_empty(),
            why: decision.reason.to_string(),
            downgrade: self.downgrade(&to),
            mitigation: false,
        };
        self.schema_accepted = false;
        let record = RollbackRecord {
            id: request.id.clone(),
            service: self.name.clone(),
            environment: turn.fleet.environment.clone(),
            from: decision.from.clone(),
            to,
            decided_by: by.to_owned(),
            onset,
            started: turn.now,
            applied: None,
            ended: None,
            outcome: RollbackOutcome::Executing,
            pin: None,
            along,
            order: None,
            approval: self.flags.approval.clone(),
            proof: None,
            request: request.clone(),
            decision,
        };
        // One release is one attempt, of however many services it consists.
        if by == BACKSTOP && !matches!(record.decision.reason, Reason::Companion { .. }) {
            let window = self.settings.attempts_window;
            self.attempts.retain(|at| turn.now.since(*at) < window);
            self.attempts.push(turn.now);
        }
        // Only a person begins one for a service that is stuck: that is the help that was called for.
        self.flag(turn, |flags| {
            flags.stuck = None;
            (flags.approval, flags.refused) = (None, None);
        });
        turn.remember(LedgerChange::RollbackOpened(Box::new(record.clone())));
        let mut a = self.announcement(turn, AnnouncementKind::RollbackInProgress, "ROLLBACK IN PROGRESS");
        a.key = format!("{}/in-progress", record.id);
        a.rollback = Some(record.id.clone());
        a.severity = Some(record.decision.severity);
        a.fields.extend(self.about(&record.decision, "Rolling back to"));
        if !record.along.is_empty() {
            a.fields.push(("Together with".into(), names(&record.along)));
        }
        a.fields.extend(schema);
        a.fields.push(("Decided by".into(), by.to_owned()));
        a.fields.push(("ETA".into(), self.eta()));
        turn.effect(Effect::Announce(a));
        turn.effect(Effect::RollBack(request));
        self.rollback = Some(record);
        self.go(turn, event);
    }

    /// Goes back with another service, because the two are one release.
    pub(crate) fn go_along(&mut self, turn: &mut Turn<'_>, leader: &RollbackRecord) {
        let why = leader.decision.reason.to_string();
        let decision = Decision {
            at: turn.now,
            service: self.name.clone(),
            verdict: super::decision::Verdict::Rollback,
            reason: Reason::Companion { service: leader.service.clone(), why },
            rule: None,
            severity: leader.decision.severity,
            from: self.current.clone(),
            to: self.target().ok().cloned(),
            gates: leader.decision.gates.clone(),
            dry_run: false,
        };
        let others = std::iter::once(&leader.service).chain(&leader.along).filter(|name| **name != self.name);
        let along = others.cloned().collect();
        self.record(turn, &decision);
        self.begin(turn, decision, &leader.decided_by, leader.onset, Event::Decided, along);
    }

    /// The executor is done with it.
    pub(crate) fn executed(&mut self, turn: &mut Turn<'_>, id: &RollbackId, result: Executed) {
        if self.state != State::RollingBack || self.rollback.as_ref().is_none_or(|r| r.id != *id) {
            return;
        }
        match result {
            Executed::Applied { notes, pin, order } => self.applied(turn, &notes, pin, order),
            Executed::Void { why } => {
                self.end_rollback(turn, RollbackOutcome::Void(why.clone()));
                let runs = self.runs();
                self.say_failed(turn, id, "ROLLBACK DID NOT BEGIN", &why, &runs);
                self.go(turn, Event::Undone);
            }
            Executed::Unwound { why } => {
                if let Some(record) = &self.rollback {
                    self.failed_targets.insert(record.to.id.clone());
                }
                self.end_rollback(turn, RollbackOutcome::Unwound(why.clone()));
                let runs = self.runs();
                self.say_failed(turn, id, "ROLLBACK FAILED AND WAS UNDONE", &why, &runs);
                self.go(turn, Event::Undone);
            }
            Executed::Stuck { why } => {
                let brought = self.rollback.as_ref().map(|record| record.to.id.clone());
                self.end_rollback(turn, RollbackOutcome::Stuck(why.clone()));
                self.flag(turn, |flags| flags.brought = brought);
                let why = format!("the rollback could be neither finished nor undone: {why}");
                // Either release, or parts of both: only a look tells.
                self.call_somebody(turn, format!("as the reason says; backstop explain {}", self.name), why);
            }
        }
        self.awaits_look = true;
        self.asked = turn.now;
        turn.effect(Effect::Observe { service: self.name.clone() });
    }

    /// The target runs. From here on it is judged by the same rules as any release.
    fn applied(&mut self, turn: &mut Turn<'_>, notes: &[String], pin: Option<Pin>, order: Option<String>) {
        let Some(mut record) = self.rollback.take() else {
            return;
        };
        let now = turn.now;
        record.applied = Some(now);
        record.outcome = RollbackOutcome::Verifying;
        record.pin = pin;
        record.order = order;
        turn.remember(LedgerChange::RollbackUpdated(Box::new(record.clone())));
        self.condemn(turn, &record);
        // The target is what the release that was rolled back was compared with.
        let Before { norm, recurring, .. } = std::mem::take(&mut self.before);
        self.evidence = self.evidence.successor();
        self.onsets.clear();
        self.spells.forget_since(self.deployed);
        self.exits = Exits::default();
        self.before = Before { norm, recurring, ..Before::default() };
        self.usual.reset(now, self.before.norm.clone());
        self.kept_norm = Some(self.before.norm.clone());
        self.keep_norms(turn);
        self.without = None;
        self.ailing = None;
        self.undone = None;
        self.refused = None;
        self.told.clear();
        self.held_by_surroundings = false;
        self.protect = None;
        self.replicas.clear();
        self.gone = None;
        self.mixed = None;
        self.deployed = now;
        self.trial_ends = now + self.settings.verify;
        if record.request.downgrade.is_some() {
            self.schema_taken_back(turn, &record);
        }
        self.current = Some(record.to.clone());
        let to = record.to.clone();
        self.enter(turn, &to, |entry| entry.deployed = now);
        if !notes.is_empty() {
            let mut a =
                self.announcement(turn, AnnouncementKind::RollbackInProgress, "ROLLBACK APPLIED, WITH NOTES");
            a.key = format!("{}/notes", record.id);
            a.rollback = Some(record.id.clone());
            a.fields.extend(notes.iter().map(|n| ("Note".to_owned(), n.clone())));
            turn.effect(Effect::Announce(a));
        }
        self.rollback = Some(record);
        self.go(turn, Event::Applied);
    }

    /// What becomes of the release that was rolled back.
    fn condemn(&mut self, turn: &mut Turn<'_>, record: &RollbackRecord) {
        let Some(from) = record.from.clone().filter(|from| from.id != record.to.id) else { return };
        let kept = self.current_is_known_good();
        // A target that did not pass proved itself once: it is passed over now, not condemned. Nor is what a drill left.
        let reason = &record.decision.reason;
        if matches!(reason, Reason::TargetFailed { .. } | Reason::Drill { .. }) {
            return;
        }
        let innocent = matches!(reason, Reason::Companion { service, .. } if record.along.contains(service));
        // One that went back only because another did is on trial again if it comes back.
        let standing = if innocent {
            Standing::Trial
        } else {
            Standing::Quarantined { since: turn.now, why: reason.to_string() }
        };
        if !innocent || kept {
            // As its deployer made it, it is no better than as we made it anew.
            let was = self.flags.mitigated.iter().filter(|taken| taken.release == from.id);
            let was: Vec<_> = was.filter_map(|taken| taken.was.as_deref().cloned()).collect();
            for release in was.iter().chain([&from]) {
                self.enter(turn, release, |entry| entry.standing = standing.clone());
            }
        }
        if kept {
            turn.effect(Effect::Unprotect { service: self.name.clone(), release: from });
        }
    }

    /// One turn of verification: the same rules as for a deployment, plus identity, for long enough.
    pub(crate) fn verify(&mut self, turn: &mut Turn<'_>, around: Surroundings<'_>) {
        let Some((applied, to)) = self.rollback.as_ref().and_then(|r| Some((r.applied?, r.to.clone())))
        else {
            return;
        };
        if self.gone.is_some_and(|since| turn.now.since(since) >= VANISHED) && around.engine_answers() {
            self.vanished_unproven(turn, &to);
            return;
        }
        // What an engine restart stopped says nothing about the target: verification starts over after it.
        let restarted = around.engine_back.map_or(applied, |back| back.max(applied));
        // So it does when somebody else starts it again: what runs now has not been watched for longer. And without what it
        // depends on, it was not seen to serve.
        let relied_on = self.relies_on_the_well(turn.now, around);
        if relied_on.is_err() {
            self.without = Some(turn.now);
        }
        let started = self.arrived.iter().map(|known| known.seen).max();
        let from = restarted.max(started.max(self.without).unwrap_or(restarted));
        let settings = Arc::clone(&self.settings);
        let findings = self.findings(&settings.rules, turn.now);
        let settled = around.engine_back.is_none_or(|back| turn.now.since(back) >= turn.fleet.engine_settle);
        // What came and went under it before may come again while it is being proved: it has to pass, as before.
        let is_old = |f: &Finding<'_>| {
            let answers = self.ask(turn.now, Some(f.symptom()), None, around);
            answers.iter().any(|answer| answer.gate == Gate::Before && !answer.allow)
        };
        let judged = |f: &&Finding<'_>| {
            f.rule.action == Action::Rollback && f.answer == RowAnswer::Breached && !is_old(f)
        };
        if let Some(why) = findings.iter().find(judged).and_then(|f| f.reason.clone()).filter(|_| settled) {
            self.not_verified(turn, around, why.to_string());
            return;
        }
        let identical = !self.replicas.is_empty() && self.replicas.iter().all(|r| r.release.id == to.id);
        let proof = if !around.engine_answers() {
            Err("the engine does not answer, so nobody knows what runs".into())
        } else if identical {
            self.proof(turn.now).and_then(|()| self.symptom_gone(&findings)).and(relied_on.clone())
        } else {
            Err(format!("{to} is not seen running yet"))
        };
        let crossed = findings.iter().any(Finding::crossed);
        if proof.is_ok() && !crossed && turn.now.since(from) >= self.settings.verify {
            self.verified(turn, &findings, from);
        } else if turn.now.since(restarted) >= self.settings.verify_timeout
            // What it depends on came back at the last moment: it gets the time to show itself, once.
            && (relied_on.is_err() || self.without.is_none_or(|at| turn.now.since(at) >= self.settings.verify))
        {
            let missing = proof.err().unwrap_or_else(|| "a rule was pending all the time".into());
            self.unproven(turn, &missing);
        }
    }

    /// Whether the row for which it was rolled back has looked again, and finds nothing. Rows about requests need longer
    /// for that than other checks need to pass.
    fn symptom_gone(&self, findings: &[Finding<'_>]) -> Result<(), String> {
        let cause = self.rollback.as_ref().and_then(|record| record.decision.rule.as_deref());
        match findings.iter().find(|f| Some(f.rule.name.as_str()) == cause) {
            Some(f) if matches!(f.answer, RowAnswer::NoData | RowAnswer::CannotMeasure) => {
                Err(format!("{}, for which it was rolled back, has no answer yet", f.rule.name))
            }
            _ => Ok(()),
        }
    }

    /// Whether what it depends on is well, as far as that is measured: without it nobody knows how the target serves. What was
    /// down for long before the trouble began is what it lived with.
    fn relies_on_the_well(&self, now: Timestamp, around: Surroundings<'_>) -> Result<(), String> {
        let began = self.rollback.as_ref().map_or(now, |record| record.onset.unwrap_or(record.started));
        let fresh = |since: Timestamp| since + BORNE >= began;
        for (name, dependency) in &self.settings.dependencies {
            let asked = self.reliances.get(name).filter(|reliance| reliance.is_down(now));
            let outage = asked.and_then(|reliance| Some((reliance.failing_now(now)?, &reliance.last)));
            if let Some((_, last)) = outage.filter(|(outage, _)| fresh(outage.seen)) {
                return Err(format!("{name}, which it depends on, is down: {last}"));
            }
            let Dependency::Service(service) = dependency else { continue };
            let Some(other) = around.roster.get(service).filter(|other| other.present) else { continue };
            let ails = other
                .ailing
                .as_ref()
                .filter(|ailing| !ailing.faint && !ailing.quiet && ailing.until.is_none());
            if ails.is_some_and(|ailing| fresh(ailing.since)) {
                return Err(format!("{service}, which it depends on, is degraded"));
            }
        }
        Ok(())
    }

    /// Those of its dependencies that are well, for people; empty if there are none.
    fn relied_on(&self) -> String {
        let well = |reliance: &Reliance| reliance.is_known() && reliance.failures == 0;
        let known = |name: &&String| self.reliances.get(*name).is_some_and(well);
        let names: Vec<&str> = self.settings.dependencies.keys().filter(known).map(String::as_str).collect();
        if names.is_empty() { String::new() } else { format!("; {} ok", names.join(", ")) }
    }

    /// Proved: said with what was proved.
    fn verified(&mut self, turn: &mut Turn<'_>, findings: &[Finding<'_>], from: Timestamp) {
        let Some(record) = self.rollback.clone() else {
            return;
        };
        let checks: u32 = self.evidence.checks.values().map(|s| s.samples).fold(0, u32::saturating_add);
        let rows = count(findings.iter().filter(|f| f.answer == RowAnswer::Ok).count());
        let health = if checks > 0 { format!("; {checks} health checks passed") } else { String::new() };
        let relied_on = self.relied_on();
        let said = format!(
            "All checks passing for {} ({rows} rows ok{health}{relied_on}); image and configuration are those of {}",
            human(turn.now.since(from)),
            record.to
        );
        self.schema_proved(turn, &record);
        let proof = self.witnesses(findings);
        if let Some(record) = &mut self.rollback {
            record.proof = Some(proof);
        }
        self.end_rollback(turn, RollbackOutcome::Verified(said.clone()));
        let mut a = self.announcement(turn, AnnouncementKind::RollbackComplete, "ROLLBACK COMPLETE");
        a.key = format!("{}/complete", record.id);
        a.severity = Some(record.decision.severity);
        a.rollback = Some(record.id.clone());
        a.fields.push((
            "Rolled back from".into(),
            record.from.as_ref().map_or("nothing".into(), ToString::to_string),
        ));
        a.fields.push(("Rolled back to".into(), record.to.to_string()));
        a.fields.push(("Status".into(), said));
        a.fields.push(("Reason".into(), record.decision.reason.to_string()));
        a.fields.push(("Duration".into(), self.durations(turn.now, &record)));
        a.fields.extend(record.order.clone().map(|order| ("Order".to_owned(), order)));
        if let Some(from) = record.from.as_ref().filter(|from| from.reference == record.to.reference) {
            let bad = from.image.as_str();
            let beware = format!(
                "the tag {} was the same for both: before the next deployment, make sure that it no longer names {bad}",
                from.reference
            );
            if from.image != record.to.image {
                a.fields.push(("Beware".into(), beware));
            }
        }
        a.next = Some(format!("backstop history {}", self.name));
        turn.effect(Effect::Announce(a));
        self.failed_targets.clear();
        self.told.clear();
        self.go(turn, Event::Verified);
    }

    /// What was measured of the target, and found to be well.
    fn witnesses(&self, findings: &[Finding<'_>]) -> Proof {
        let required = self.evidence.checks.iter().filter(|((name, _), _)| self.settings.requires(name));
        let healthy = self.replicas.iter().filter(|r| r.health == Some(ContainerHealth::Healthy));
        let about_requests = |f: &&Finding<'_>| {
            f.answer == RowAnswer::Ok && matches!(f.rule.condition, Condition::ErrorRate | Condition::Latency)
        };
        let rows = findings.iter().filter(about_requests).map(Finding::row);
        Proof {
            checks: required.map(|(_, streak)| streak.successes).fold(0, u32::saturating_add),
            healthy: count(healthy.count()),
            requests: rows
                .map(|row| Witness { condition: row.condition, rule: row.rule, samples: row.samples })
                .collect(),
        }
    }

    fn durations(&self, now: Timestamp, record: &RollbackRecord) -> String {
        let applied = record.applied.unwrap_or(now);
        let mut said = format!(
            "{} from decision to start, {} to proof",
            human(applied.since(record.started)),
            human(now.since(record.started))
        );
        if let Some(onset) = record.onset {
            said.push_str(&format!("; {} after the first bad sign", human(applied.since(onset))));
        }
        said
    }

    /// The target did not pass: the next older known-good release, if attempts are left, else a person.
    fn not_verified(&mut self, turn: &mut Turn<'_>, around: Surroundings<'_>, why: String) {
        let Some(record) = self.rollback.clone() else {
            return;
        };
        self.failed_targets.insert(record.to.id.clone());
        self.end_rollback(turn, RollbackOutcome::NotVerified(why.clone()));
        // The cooldown is for new decisions; this one is not over yet.
        self.last_ended = None;
        let reason = Reason::TargetFailed { target: record.to.to_string(), why };
        let gates = self.ask(turn.now, None, None, around);
        // Whoever switched it to dry-run meanwhile wants nothing more to be touched.
        let dry_run = "it is in dry-run mode".to_owned();
        // The others went back to what it was known-good with.
        let alone = (!record.along.is_empty()).then(|| {
            format!(
                "{} went back with it, and what fits to them is for a person to say",
                names(&record.along)
            )
        });
        let denied = alone
            .or(gates.iter().find(|a| !a.allow).map(|a| a.why.clone()))
            .or((!self.acts()).then_some(dry_run));
        let decision = Decision {
            at: turn.now,
            service: self.name.clone(),
            verdict: super::decision::Verdict::Rollback,
            reason,
            rule: record.decision.rule.clone(),
            severity: record.decision.severity,
            from: self.current.clone(),
            to: self.target().ok().cloned(),
            gates,
            dry_run: false,
        };
        match denied {
            None => {
                self.record(turn, &decision);
                self.begin(turn, decision, BACKSTOP, record.onset, Event::TriedNext, Vec::new());
            }
            Some(denial) => {
                let said = format!(
                    "{}; it keeps running, since something is better than nothing; {}",
                    decision.reason, denial
                );
                self.stuck(turn, Some(&record.to), said);
            }
        }
    }

    /// Neither good nor bad within the time given: no success is claimed, and what runs is left running.
    fn unproven(&mut self, turn: &mut Turn<'_>, missing: &str) {
        let Some(record) = self.rollback.clone() else {
            return;
        };
        let why = format!("not proved within {}: {missing}", human(self.settings.verify_timeout));
        self.end_rollback(turn, RollbackOutcome::NotVerified(why.clone()));
        let runs = Some(&record.to).filter(|_| !self.replicas.is_empty());
        self.stuck(turn, runs, format!("the rollback to {} was applied and is {why}", record.to));
    }

    /// Somebody removed it before it was proved, and put nothing in its place.
    fn vanished_unproven(&mut self, turn: &mut Turn<'_>, to: &Release) {
        let why = "nothing of it runs: somebody removed it before it was proved".to_owned();
        self.end_rollback(turn, RollbackOutcome::NotVerified(why.clone()));
        self.stuck(turn, None, format!("the rollback to {to} was applied, and {why}"));
    }

    /// Closes the record, and has the executor clean up what is left on the engine.
    pub(crate) fn end_rollback(&mut self, turn: &mut Turn<'_>, outcome: RollbackOutcome) {
        let Some(mut record) = self.rollback.take() else {
            return;
        };
        record.ended = Some(turn.now);
        record.outcome = outcome;
        // What did not begin or was undone changed nothing that would need to cool down.
        if !matches!(record.outcome, RollbackOutcome::Void(_) | RollbackOutcome::Unwound(_)) {
            self.last_ended = record.ended;
        }
        let proved = matches!(record.outcome, RollbackOutcome::Verified(_));
        turn.effect(Effect::Close { rollback: record.id.clone(), proved });
        self.keep_pin(&record);
        turn.remember(LedgerChange::RollbackUpdated(Box::new(record)));
    }

    /// A later pin takes the place of an earlier one: it is in the same files.
    pub(crate) fn keep_pin(&mut self, record: &RollbackRecord) {
        if record.pin.is_some() {
            self.pinned = Some(Box::new(record.clone()));
        }
    }

    /// What a rollback changed in the project's files, as far as it was not taken back.
    pub(crate) fn pin(&self) -> Option<&Pin> {
        self.pinned.as_ref().and_then(|record| record.pin.as_ref())
    }

    /// It was taken back. Whoever did not ask for it is told: the files hold a release that was not deployed yet.
    pub(crate) fn unpinned(&mut self, turn: &mut Turn<'_>, done: &str, asked: bool) {
        if !asked {
            let mut a = self.announcement(turn, AnnouncementKind::Unpinned, "PIN TAKEN BACK");
            a.fields.push(("What".into(), done.to_owned()));
            a.next = Some(
                "docker compose up -d, once more: until now it kept the release that was put back".into(),
            );
            turn.effect(Effect::Announce(a));
        }
        if let Some(mut record) = self.pinned.take() {
            record.pin = None;
            turn.remember(LedgerChange::RollbackUpdated(record));
        }
    }

    /// It could not be taken back, and keeps from being deployed what a person wrote.
    pub(crate) fn pin_holds(&self, turn: &mut Turn<'_>, why: &str) {
        let mut a = self.announcement(turn, AnnouncementKind::Unpinned, "PIN HOLDS AGAINST A FIX");
        a.fields.push(("Reason".into(), why.to_owned()));
        a.next = Some("delete that file, then docker compose up -d".into());
        turn.effect(Effect::Announce(a));
    }

    fn runs(&self) -> String {
        let runs = self.current.as_ref().filter(|_| !self.replicas.is_empty());
        runs.map_or("nothing".into(), ToString::to_string)
    }

    pub(crate) fn say_failed(
        &self,
        turn: &mut Turn<'_>,
        id: &RollbackId,
        title: &str,
        why: &str,
        runs: &str,
    ) {
        let mut a = self.announcement(turn, AnnouncementKind::RollbackFailed, title);
        a.key = format!("{id}/failed");
        a.rollback = Some(id.clone());
        a.fields.push(("Reason".into(), why.to_owned()));
        a.fields.push(("What runs".into(), runs.to_owned()));
        a.next = Some(format!("backstop explain {}", self.name));
        turn.effect(Effect::Announce(a));
    }

    /// A person is needed.
    pub(crate) fn stuck(&mut self, turn: &mut Turn<'_>, runs: Option<&Release>, why: String) {
        self.call_somebody(turn, runs.map_or("nothing".into(), ToString::to_string), why);
    }

    fn call_somebody(&mut self, turn: &mut Turn<'_>, runs: String, why: String) {
        let mut a = self.announcement(turn, AnnouncementKind::Stuck, "A PERSON IS NEEDED");
        a.fields.push(("Reason".into(), why.clone()));
        a.fields.push(("What runs".into(), runs));
        a.next = Some(format!(
            "backstop explain {}; when it is well again: backstop resume {}",
            self.name, self.name
        ));
        self.flag(turn, |flags| flags.stuck = Some(why));
        turn.effect(Effect::Announce(a));
        self.go(turn, Event::Helpless);
    }
}

fn names(services: &[ServiceName]) -> String {
    services.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(", ")
}
