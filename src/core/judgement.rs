//! Judgement: what a service concludes from its evidence, turn by turn, while no rollback is in flight.

use std::sync::Arc;
use std::time::Duration;

use super::announcement::{Announcement, AnnouncementKind};
use super::approval::{Approval, Ask};
use super::assess::Finding;
use super::decision::{Decision, Gate, GateAnswer, Reason, Verdict};
use super::gate::Symptom;
use super::group::Complaint;
use super::io::{Effect, EngineState, RollbackRequest};
use super::ledger::{LedgerChange, Standing};
use super::observation::Phase;
use super::sample::Signal;
use super::service::{BACKSTOP, Service, Turn};
use super::settings::{Action, Condition, Mitigation, Severity, WindowKind};
use super::snapshot::RowAnswer;
use super::state::{Event, State};
use super::surroundings::{LINGERS, Surroundings, relies_on, word_is_awaited};
use super::time::{Timestamp, human};

/// A specification that could not be kept is tried again after this long.
const PROTECT_RETRY: Duration = Duration::from_secs(30);
/// While a release is steady its specification is kept afresh this often: networks are connected, tags are pruned.
const PROTECT_AGAIN: Duration = Duration::from_secs(10 * 60);

/// A release that nothing vouches for so long after its trial is spoken of.
const UNPROVED_SAID: Duration = Duration::from_secs(5 * 60);

/// Whoever was asked about a row that comes and goes is asked again after so long at the earliest.
const ADVISED_AGAIN: Duration = Duration::from_secs(30 * 60);

/// What a target is called in an announcement of something that is not done, or not yet.
const WOULD: &str = "Would go back to";

/// A breach that asks for a decision.
struct Breach {
    reason: Reason,
    severity: Severity,
    /// The row's name; `redeploy` for a release that is refused.
    rule: String,
    condition: Option<Condition>,
    onset: Option<Timestamp>,
    /// The share of bad requests.
    share: f64,
    action: Action,
}

impl Breach {
    /// What the gates are asked about; none for what no row judged.
    fn symptom(&self) -> Option<Symptom<'_>> {
        let (rule, onset, share) = (&*self.rule, self.onset, self.share);
        self.condition.map(|condition| Symptom { rule, condition, onset, share })
    }

    /// Memory is the container's own: nobody else is at fault.
    fn is_its_own(&self) -> bool {
        matches!(self.condition.map(Condition::signal), Some(Signal::Memory | Signal::OomKills))
    }
}

impl Service {
    /// One turn of watching.
    pub(crate) fn watch(&mut self, turn: &mut Turn<'_>, around: Surroundings<'_>) {
        self.judge(turn, around);
        // After the judgement: whoever has just become suspect needs its target soon.
        self.check_targets(turn, around);
        self.ask_schema(turn, around);
    }

    fn judge(&mut self, turn: &mut Turn<'_>, around: Surroundings<'_>) {
        let maintenance = around.window(&self.name, WindowKind::Maintenance).is_some();
        let paused = maintenance || self.flags.paused.is_some() || around.flags.paused.is_some();
        // What a person ordered during a pause is finished.
        if paused && !self.state.in_flight() {
            if self.state != State::Paused {
                self.drop_prepared(turn);
                self.withdraw_question(turn, "it was paused");
                self.go(turn, Event::Paused);
            }
            return;
        }
        self.lapse_question(turn);
        match self.state {
            State::Stuck | State::RollingBack | State::Verifying => return,
            State::Paused if self.flags.stuck.is_some() => {
                // The end of a pause is not the help that was called for.
                self.go(turn, Event::Helpless);
                return;
            }
            State::Paused => {
                // Whoever paused may have repaired something: what was seen meanwhile is not held against the release.
                self.start_anew(turn.now);
                self.go_watching(turn);
            }
            State::Trial
            | State::Steady
            | State::Suspect
            | State::AwaitingApproval
            | State::CoolingDown
            | State::Blind => {}
        }
        self.settled(turn.now);
        if self.current.is_none() || self.mixed.is_some() || self.awaits_look || self.is_settling(turn.now) {
            return;
        }
        let settings = Arc::clone(&self.settings);
        let findings = self.findings(&settings.rules, turn.now);
        self.keep_onsets(turn.now, &findings);
        if self.blind(turn, around, &findings) {
            return;
        }
        // What somebody removed is not judged by what it did before.
        let removed = self.replicas.is_empty() && self.evidence.down.is_empty();
        let crossed: Vec<&Finding<'_>> = findings.iter().filter(|f| f.crossed() && !removed).collect();
        if !crossed.is_empty() && self.is_excused(turn.now, around) {
            self.spells.have_a_reason();
        }
        let told = self.is_unproved() && around.complaints(&self.name, self.deployed).next().is_some();
        self.complaint = None;
        if crossed.is_empty() && self.refused.is_none() && !told {
            self.all_clear(turn, around);
            return;
        }
        if !matches!(self.state, State::Suspect | State::AwaitingApproval) {
            self.go(turn, Event::Suspected);
        }
        if let Some(suspect) =
            crossed.iter().find(|f| f.rule.action == Action::Rollback && !self.is_ruled_out(f.rule.severity))
        {
            self.prepare(turn, around, suspect.symptom());
        }
        if removed || self.undone.is_some() {
            return;
        }
        let mut breaches = self.breaches(&findings);
        self.complain(turn.now, around, &breaches);
        if told {
            breaches.extend(self.complained_of(around));
        }
        if let Some((breach, gates)) = self.foremost(turn.now, around, breaches) {
            self.decide(turn, around, breach, gates);
        }
    }

    /// The first breach that a rollback would follow from now, or else the first, with every gate's answer. What one row
    /// is held for may say nothing about another: memory is not the database's fault. What waits for the word of others
    /// is nothing to decide about yet.
    fn foremost(
        &self,
        now: Timestamp,
        around: Surroundings<'_>,
        breaches: Vec<Breach>,
    ) -> Option<(Breach, Vec<GateAnswer>)> {
        let mut first = None;
        let mut asks = None;
        for (i, breach) in breaches.into_iter().enumerate() {
            if self.awaits_word(now, around, &breach) {
                continue;
            }
            let acts = breach.action == Action::Rollback;
            let gates = self.ask(now, breach.symptom(), acts.then_some(breach.severity), around);
            let counts = acts && (breach.is_its_own() || !self.held_by_surroundings);
            let mut denials = gates.iter().filter(|answer| !answer.allow).map(|answer| answer.gate);
            match (denials.next(), i) {
                (None, _) if counts => return Some((breach, gates)),
                // Only people have to be asked.
                (Some(Gate::Approval), _) if counts && asks.is_none() => asks = Some((breach, gates)),
                (_, 0) => first = Some((breach, gates)),
                _ => {}
            }
        }
        asks.or(first)
    }

    /// Whether what the service is judged by cannot be measured. Not knowing is neither failing nor succeeding.
    fn blind(&mut self, turn: &mut Turn<'_>, around: Surroundings<'_>, findings: &[Finding<'_>]) -> bool {
        let unreachable = matches!(around.engine, Some(EngineState::Unreachable { .. }));
        let unmeasured = findings
            .iter()
            .find(|f| f.rule.condition == Condition::Health && f.answer == RowAnswer::CannotMeasure)
            .map(|f| f.value.clone().into_owned());
        let others_speak = findings.iter().any(Finding::crossed);
        if unreachable || (unmeasured.is_some() && !others_speak) {
            if self.state != State::Blind {
                self.drop_prepared(turn);
                self.go(turn, Event::Blinded);
                // The engine's silence is announced once for the fleet, not once for each service.
                if let Some(why) = unmeasured.filter(|_| !unreachable) {
                    let mut a = self.announcement(turn, AnnouncementKind::Blind, "CANNOT MEASURE");
                    a.fields.push(("Reason".into(), why));
                    a.fields.push((
                        "Meaning".into(),
                        "nothing is decided about this service by its health check".into(),
                    ));
                    a.next = Some(format!("backstop explain {}", self.name));
                    turn.effect(Effect::Announce(a));
                }
            }
            return true;
        }
        if self.state == State::Blind {
            self.go_watching(turn);
        }
        false
    }

    /// No line is crossed: what was suspected passed, and time does its work.
    fn all_clear(&mut self, turn: &mut Turn<'_>, around: Surroundings<'_>) {
        self.mitigation_helped(turn);
        // Others recover later than what they depend on: as long as that may take, they are not yet on their own again.
        let well =
            matches!(self.state, State::Trial | State::Steady) && turn.now.since(self.since) >= LINGERS;
        if self.held_by_surroundings && (well || !self.is_excused(turn.now, around)) {
            self.void_evidence(turn.now);
        }
        match self.state {
            State::Suspect | State::AwaitingApproval => {
                self.drop_prepared(turn);
                if !self.held_by_surroundings {
                    self.told.clear();
                }
                self.over_without_answer(turn);
                self.go_watching(turn);
            }
            State::CoolingDown => {
                let over = self.last_ended.is_none_or(|at| turn.now.since(at) >= self.settings.cooldown);
                if over {
                    self.go(turn, Event::CooledDown);
                }
            }
            // What it is not blamed for does not speak for it either.
            State::Trial if self.held_by_surroundings => {}
            State::Trial if turn.now >= self.trial_ends => match self.proof(turn.now) {
                Ok(()) => match around.still_on_trial(&self.name) {
                    None => self.keep_specification(turn),
                    Some(other) => {
                        let missing =
                            format!("{other}, which is one release with it, has not passed its trial");
                        self.stays_on_trial(turn, &missing);
                    }
                },
                Err(missing) => self.stays_on_trial(turn, &missing),
            },
            State::Steady => {
                if self.proof(turn.now).is_ok() {
                    self.keep_specification(turn);
                }
            }
            State::Trial
            | State::RollingBack
            | State::Verifying
            | State::Blind
            | State::Paused
            | State::Stuck => {}
        }
    }

    /// Whether its surroundings would be to blame for what began now.
    fn is_excused(&self, now: Timestamp, around: Surroundings<'_>) -> bool {
        let began_now = Symptom { rule: "", condition: Condition::ErrorRate, onset: Some(now), share: 0.0 };
        let answers = self.ask(now, Some(began_now), None, around);
        answers.iter().any(|answer| answer.gate == Gate::Environment && !answer.allow)
    }

    /// It runs, no line is crossed, and still nothing vouches for it: said once, for what is no known-good release cannot
    /// be rolled back to.
    fn stays_on_trial(&mut self, turn: &mut Turn<'_>, missing: &str) {
        let runs = !self.replicas.is_empty() && self.replicas.iter().all(|r| r.phase == Phase::Running);
        let Some(release) = self.current.clone().filter(|_| runs) else {
            return;
        };
        if turn.now < self.trial_ends + UNPROVED_SAID || !self.told.insert("unproved".into()) {
            return;
        }
        let mut a = self.announcement(turn, AnnouncementKind::Blind, "NOT KNOWN TO BE GOOD");
        a.fields.push(("Current version".into(), release.to_string()));
        a.fields.push(("Reason".into(), missing.to_owned()));
        a.fields.push((
            "Meaning".into(),
            "it is judged all the same, but nothing will be rolled back to it before this is known".into(),
        ));
        a.next = Some(format!("backstop explain {}", self.name));
        turn.effect(Effect::Announce(a));
    }

    /// Asks for the specification of what runs to be kept: at the end of the trial, and now and then after it, soon if somebody
    /// changed it.
    fn keep_specification(&mut self, turn: &mut Turn<'_>) {
        // One that was known-good before waits on trial for its specification like any other.
        let kept = self.state == State::Steady && self.current_is_known_good();
        let wait = if kept && !self.respecified { PROTECT_AGAIN } else { PROTECT_RETRY };
        if self.protect.is_some_and(|at| turn.now.since(at) < wait) {
            return;
        }
        let Some(release) = self.current.clone() else {
            return;
        };
        self.protect = Some(turn.now);
        self.respecified = false;
        self.keep_norms(turn);
        let older = self.targets().cloned().collect();
        turn.effect(Effect::Protect { service: self.name.clone(), release, older });
    }

    /// The specification is kept: the release is known-good from here on.
    pub(crate) fn protected(
        &mut self,
        turn: &mut Turn<'_>,
        id: &super::release::ReleaseId,
        result: Result<(), String>,
    ) {
        self.protect = Some(turn.now);
        self.respecified |= result.is_err();
        let Some(release) = self.current.clone().filter(|c| c.id == *id) else {
            return;
        };
        // A rollback or a breach that came in between has the last word.
        if result.is_err() || self.state != State::Trial {
            return;
        }
        // One that was known-good before and came back has proved itself again; it is so since the first time.
        if !self.current_is_known_good() {
            let now = turn.now;
            self.enter(turn, &release, |entry| entry.standing = Standing::KnownGood { since: now });
        }
        self.go(turn, Event::Promoted);
    }

    /// Creates the replacement while the row is only pending, so that at the decision only stop and start remain.
    fn prepare(&mut self, turn: &mut Turn<'_>, around: Surroundings<'_>, suspect: Symptom<'_>) {
        if !self.settings.prepare || !self.acts() || self.prepared.is_some() {
            return;
        }
        let answers = self.ask(turn.now, Some(suspect), None, around);
        // Cooldown and the like are a matter of time; without these there is nothing to prepare.
        let needed = [Gate::Store, Gate::Engine, Gate::NewEnough, Gate::Target, Gate::Migrations];
        if answers.iter().any(|a| needed.contains(&a.gate) && !a.allow) {
            return;
        }
        let Ok(target) = self.target().cloned() else {
            return;
        };
        let downgrade = self.downgrade(&target);
        let request = RollbackRequest {
            id: turn.rollback_id(),
            service: self.name.clone(),
            from: self.current.as_ref().map(|c| c.id.clone()),
            to: target,
            stop_grace: self.settings.stop_grace,
            decided: None,
            vanished: self.replicas.is_empty(),
            why: String::new(),
            downgrade,
            mitigation: false,
        };
        self.prepared = Some(request.clone());
        turn.effect(Effect::Prepare(request));
    }

    /// Removes what was prepared, if anything was.
    pub(crate) fn drop_prepared(&mut self, turn: &mut Turn<'_>) {
        if let Some(prepared) = self.prepared.take() {
            turn.effect(Effect::Discard { rollback: prepared.id });
        }
    }

    /// All breaches, the most urgent first: a release that is refused, else by severity, then in the matrix' order.
    fn breaches(&self, findings: &[Finding<'_>]) -> Vec<Breach> {
        let refused = self.refused.as_ref().map(|earlier| Breach {
            reason: Reason::Refused { earlier: earlier.clone() },
            severity: Severity::Critical,
            rule: "redeploy".into(),
            condition: None,
            onset: Some(self.deployed),
            share: 0.0,
            action: Action::Rollback,
        });
        let mut breached: Vec<_> = findings
            .iter()
            .filter(|f| f.answer == RowAnswer::Breached && f.rule.action != Action::Monitor)
            .collect();
        // A row that acts comes before one that only asks, whatever their severities.
        breached.sort_by_key(|f| std::cmp::Reverse((f.rule.action == Action::Rollback, f.rule.severity)));
        let rows = breached.into_iter().filter_map(|f| {
            Some(Breach {
                reason: f.reason.clone()?,
                severity: f.rule.severity,
                rule: f.rule.name.clone(),
                condition: Some(f.rule.condition),
                onset: f.since,
                share: f.share,
                action: f.rule.action,
            })
        });
        refused.into_iter().chain(rows).collect()
    }

    /// What is wrong with a release that proved itself, after others of its group were deployed, is told to them.
    fn complain(&mut self, now: Timestamp, around: Surroundings<'_>, breaches: &[Breach]) {
        /// What speaks only against rolling this service back by itself.
        const ITS_OWN: [Gate; 6] =
            [Gate::NewEnough, Gate::Target, Gate::Migrations, Gate::Group, Gate::Cooldown, Gate::Attempts];
        if self.is_unproved() || around.group(&self.name).is_none() {
            return;
        }
        let told = breaches.iter().filter(|breach| breach.action == Action::Rollback).find_map(|breach| {
            let (condition, onset) = breach.condition.zip(breach.onset)?;
            let mut answers = self.ask(now, breach.symptom(), None, around).into_iter();
            let allowed = answers.all(|answer| answer.allow || ITS_OWN.contains(&answer.gate));
            let new = around.companions(&self.name).any(|(_, n)| n.companion.unproved && n.deployed <= onset);
            let (reason, severity) = (breach.reason.clone(), breach.severity);
            (allowed && new).then_some(Complaint { reason, severity, condition, onset })
        });
        self.complaint = told;
    }

    /// What members of its group suffer from since it was deployed.
    fn complained_of(&self, around: Surroundings<'_>) -> Vec<Breach> {
        let told = around.complaints(&self.name, self.deployed).map(|(service, complaint)| Breach {
            reason: Reason::Companion { service: service.clone(), why: complaint.reason.to_string() },
            severity: complaint.severity,
            rule: format!("group/{service}"),
            condition: None,
            onset: Some(complaint.onset),
            share: 0.0,
            action: Action::Rollback,
        });
        told.collect()
    }

    /// Whether others have yet to say how they are.
    fn awaits_word(&self, now: Timestamp, around: Surroundings<'_>, breach: &Breach) -> bool {
        breach.action == Action::Rollback
            && breach.condition.is_some()
            && !breach.is_its_own()
            && breach.onset.is_some_and(|onset| {
                let relied_on = (&self.reliances, &*relies_on(&self.settings));
                word_is_awaited(now, onset, &self.name, relied_on, around)
            })
    }

    /// A row is breached, and the gates have answered: acts, asks a person, or holds.
    fn decide(
        &mut self,
        turn: &mut Turn<'_>,
        around: Surroundings<'_>,
        breach: Breach,
        all: Vec<GateAnswer>,
    ) {
        let denied = all.iter().position(|a| !a.allow);
        let gates = all.into_iter().take(denied.map_or(usize::MAX, |i| i + 1)).collect::<Vec<_>>();
        let denial = gates.last().filter(|a| !a.allow).cloned();
        if denial.is_none() && self.held_by_surroundings && !breach.is_its_own() {
            self.void_evidence(turn.now);
            return;
        }
        let verdict = verdict(denial.as_ref(), &breach);
        let decision = Decision {
            at: turn.now,
            service: self.name.clone(),
            verdict,
            reason: breach.reason,
            rule: breach.condition.map(|_| breach.rule.clone()),
            severity: breach.severity,
            from: self.current.clone(),
            to: self.target().ok().cloned(),
            gates,
            dry_run: !self.acts(),
        };
        let asks = breach.action != Action::Rollback;
        let frozen = around.window(&self.name, WindowKind::Freeze).is_some();
        // In a freeze nothing at all is changed before somebody has said yes.
        let unasked = denial.as_ref().is_none_or(|denial| denial.gate == Gate::Approval && !frozen);
        let first = self.tries_first(&decision, &breach.rule).filter(|_| unasked);
        match (denial, verdict) {
            // Those that are one release with it, and new, are rolled back for it.
            (Some(denial), _)
                if self.complaint.is_some()
                    || (denial.gate == Gate::NewEnough
                        && around.companions(&self.name).any(|(_, n)| n.in_flight)) => {}
            (_, _) if let Some(what) = first => self.mitigate(turn, what, &breach.rule, &decision),
            (Some(denial), _) if denial.gate == Gate::Approval && self.acts() => {
                self.seek_approval(turn, frozen, decision);
            }
            (Some(denial), _) if denial.gate == Gate::Approval => {
                self.advise(turn, &breach.rule, decision);
            }
            (Some(denial), _)
                if denial.gate == Gate::NewEnough
                    && self.is_still_blamed(turn.now)
                    && self.can_ask(&decision) =>
            {
                if self.told.insert(format!("{}/{}", breach.rule, denial.gate))
                    && !self.was_asked_lately(&breach.rule, turn.now)
                {
                    self.record(turn, &decision);
                    self.put_question(turn, Ask::Evaluate, decision, Some(&denial.why));
                }
            }
            (Some(denial), _) => self.hold(turn, &breach.rule, decision, &denial, asks),
            (None, Verdict::Rollback) if self.acts() => {
                self.record(turn, &decision);
                let along = around.along(&self.name);
                let approved = self.flags.approval.as_deref().filter(|approval| approval.is_approved());
                let by = approved.map_or_else(|| BACKSTOP.to_owned(), Approval::approvers);
                self.begin(turn, decision, &by, breach.onset, Event::Decided, along);
            }
            (None, _) => self.advise(turn, &breach.rule, decision),
        }
    }

    /// What is tried instead of what was decided.
    fn tries_first(&self, decision: &Decision, rule: &str) -> Option<Mitigation> {
        let wanted = decision.rule.is_some() && self.acts() && !self.is_ruled_out(decision.severity);
        self.next_mitigation(rule).filter(|_| wanted)
    }

    /// Remembers a decision and makes it the one that is shown.
    pub(crate) fn record(&mut self, turn: &mut Turn<'_>, decision: &Decision) {
        turn.remember(LedgerChange::Decided(Box::new(decision.clone())));
        turn.effect(Effect::Decided(Box::new(decision.clone())));
        self.last_decision = Some(decision.clone());
    }

    /// A gate denies: recorded and said once for each row and gate in an episode.
    fn hold(&mut self, turn: &mut Turn<'_>, rule: &str, decision: Decision, denial: &GateAnswer, asks: bool) {
        if denial.gate == Gate::Environment {
            self.held_by_surroundings = true;
        }
        if !self.told.insert(format!("{rule}/{}", denial.gate))
            || (decision.verdict == Verdict::Evaluate && self.was_asked_lately(rule, turn.now))
        {
            return;
        }
        self.record(turn, &decision);
        let kind = match denial.gate {
            // The daemon's own trouble is announced by the fleet; a pause was somebody's wish.
            Gate::Store | Gate::Engine | Gate::Paused | Gate::Breaker | Gate::Approval => return,
            Gate::Attempts | Gate::Target if asks => AnnouncementKind::Evaluate,
            Gate::Target if self.failed_targets.is_empty() => AnnouncementKind::NoRollbackTarget,
            Gate::Attempts | Gate::Target => return self.helpless(turn, &decision, &denial.why),
            Gate::NewEnough | Gate::Migrations => AnnouncementKind::Evaluate,
            Gate::Before if decision.verdict == Verdict::Evaluate => AnnouncementKind::Evaluate,
            Gate::Before | Gate::OneAtATime | Gate::Environment | Gate::Group | Gate::Cooldown => {
                AnnouncementKind::Hold
            }
        };
        let a = self.hold_announcement(turn, kind, &decision, denial, asks);
        turn.effect(Effect::Announce(a));
    }

    fn hold_announcement(
        &self,
        turn: &Turn<'_>,
        kind: AnnouncementKind,
        decision: &Decision,
        denial: &GateAnswer,
        asks: bool,
    ) -> Announcement {
        let name = &self.name;
        let (explain, act) = (format!("backstop explain {name}"), format!("backstop rollback {name}"));
        let waits = matches!(denial.gate, Gate::OneAtATime | Gate::Cooldown);
        let (title, next) = if kind == AnnouncementKind::NoRollbackTarget {
            ("BAD RELEASE, AND NO ROLLBACK TARGET", explain)
        } else if kind == AnnouncementKind::Evaluate {
            let next = if denial.gate == Gate::Target {
                explain
            } else if denial.gate == Gate::Migrations {
                // The image alone would not do.
                format!("the database first, by hand; then: {act} --accept-schema")
            } else {
                act
            };
            ("DECISION NEEDED", next)
        } else if !waits {
            ("NOT ROLLED BACK", explain)
        } else if asks {
            let next =
                format!("nothing yet, you are asked if it is still so when that is over; at once: {act}");
            ("A DECISION MAY BE NEEDED", next)
        } else if decision.dry_run {
            ("DRY RUN, WOULD WAIT", format!("nothing is done in dry-run mode; by hand: {act}"))
        } else {
            ("ROLLBACK WAITS", format!("nothing, it goes on by itself; at once: {act}"))
        };
        let mut a = self.announcement(turn, kind, title);
        a.severity = Some(decision.severity);
        a.fields.extend(self.about(decision, WOULD));
        a.fields.push(("Not rolled back because".into(), denial.why.clone()));
        a.fields.extend(self.way_by_hand(denial.gate));
        a.next = Some(next);
        a
    }

    /// Whether people were asked about this row not long ago; if not, they are now. A row at its line comes and goes: that is
    /// one thing to ask about.
    fn was_asked_lately(&mut self, rule: &str, now: Timestamp) -> bool {
        let lately = self.advised.get(rule).is_some_and(|at| now.since(*at) < ADVISED_AGAIN);
        if !lately {
            self.advised.insert(rule.to_owned(), now);
        }
        lately
    }

    /// The row only asks, or the service is in dry-run mode: said once for each row in an episode.
    fn advise(&mut self, turn: &mut Turn<'_>, rule: &str, decision: Decision) {
        if !self.told.insert(format!("{rule}/advise"))
            || (decision.verdict == Verdict::Evaluate && self.was_asked_lately(rule, turn.now))
        {
            return;
        }
        self.record(turn, &decision);
        if decision.verdict == Verdict::Rollback {
            self.undone = Some(turn.now);
        }
        if decision.verdict != Verdict::Rollback && self.can_ask(&decision) {
            return self.put_question(turn, Ask::Evaluate, decision, None);
        }
        let (kind, title) = match decision.verdict {
            Verdict::Rollback => (AnnouncementKind::WouldRollBack, "DRY RUN, WOULD ROLL BACK"),
            Verdict::Evaluate | Verdict::Hold => (AnnouncementKind::Evaluate, "DECISION NEEDED"),
        };
        let mut a = self.announcement(turn, kind, title);
        a.severity = Some(decision.severity);
        a.fields.extend(self.about(&decision, WOULD));
        a.next = Some(format!("backstop rollback {}", self.name));
        turn.effect(Effect::Announce(a));
    }

    /// The fields that every announcement about a decision has.
    pub(crate) fn about(&self, decision: &Decision, target: &str) -> Vec<(String, String)> {
        let shown =
            |r: &Option<super::release::Release>| r.as_ref().map_or("none".into(), ToString::to_string);
        let note = self.current_entry().and_then(|entry| entry.note.as_ref()?.origin());
        let mut fields = vec![("Current version".into(), shown(&decision.from))];
        fields.extend(note.map(|origin| ("Made from".into(), origin)));
        let tried = self.mitigated().filter(|taken| taken.result.is_some());
        fields
            .extend(tried.map(|taken| ("Tried before".into(), format!("{} for {}", taken.what, taken.rule))));
        fields.extend([
            (target.to_owned(), shown(&decision.to)),
            ("Severity".into(), decision.severity.to_string()),
            ("Reason".into(), decision.reason.to_string()),
        ]);
        fields
    }

    /// A person is needed: said, remembered, and nothing more is done by itself.
    fn helpless(&mut self, turn: &mut Turn<'_>, decision: &Decision, why: &str) {
        self.drop_prepared(turn);
        let why = format!("{}; {why}", decision.reason);
        self.stuck(turn, decision.from.as_ref(), why);
    }

    /// What was seen while the surroundings were ill says nothing about the release: the windows start anew.
    fn void_evidence(&mut self, now: Timestamp) {
        self.held_by_surroundings = false;
        self.told.clear();
        self.start_anew(now);
    }

    /// The windows start anew. What has not proved itself yet does so afterwards: no release becomes known-good because
    /// what spoke against it was forgotten. As long as the longest window, for then every row has looked once.
    pub(crate) fn start_anew(&mut self, now: Timestamp) {
        self.evidence.void(now);
        let acting = self.settings.rules.iter().filter(|rule| rule.action == Action::Rollback);
        let longest = acting.map(|rule| rule.sustained).max().unwrap_or_default();
        if !self.current_is_known_good() {
            self.trial_ends = self.trial_ends.max(now + longest.min(self.settings.trial));
        }
    }

    /// How long a rollback is expected to take, for the announcement.
    pub(crate) fn eta(&self) -> String {
        format!("serving again within seconds, proved after {}", human(self.settings.verify))
    }
}

/// What a breach comes to, if the gates deny it by this, or do not.
fn verdict(denial: Option<&GateAnswer>, breach: &Breach) -> Verdict {
    match (denial, breach.action) {
        (None, Action::Rollback) => Verdict::Rollback,
        (None, Action::Evaluate | Action::Monitor | Action::Off) => Verdict::Evaluate,
        (Some(d), _) if matches!(d.gate, Gate::NewEnough | Gate::Migrations | Gate::Approval) => {
            Verdict::Evaluate
        }
        // A person is asked all the same, who may know what to do without a release to go back to.
        (Some(d), action) if d.gate == Gate::Target && action != Action::Rollback => Verdict::Evaluate,
        // "The median before the deployment > 88 %: evaluate only" (decision.md, 4.2).
        (Some(d), _) if d.gate == Gate::Before && breach.condition == Some(Condition::Memory) => {
            Verdict::Evaluate
        }
        (Some(_), _) => Verdict::Hold,
    }
}
