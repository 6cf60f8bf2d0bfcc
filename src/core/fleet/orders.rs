//! What operators ask for, and what they say when they are asked.

use super::super::approval::{Approval, Ask, Said, Via, Word};
use super::super::decision::{Decision, Reason, Verdict};
use super::super::group;
use super::super::io::{Command, Effect, EngineState};
use super::super::ledger::{DeployNote, Flags, LedgerChange, Pause, pick};
use super::super::release::{ApprovalId, Release, ServiceName};
use super::super::service::Service;
use super::super::settings::Severity;
use super::super::state::{Event, State};
use super::super::time::{Timestamp, human};
use super::Fleet;

impl Fleet {
    /// Does what an operator asks for. The answer is none if it will come later.
    pub(super) fn command(
        &mut self,
        now: Timestamp,
        request: u64,
        command: Command,
        by: &str,
        effects: &mut Vec<Effect>,
    ) -> Result<Option<String>, String> {
        match command {
            Command::Pause { service, duration, why } => {
                let until = duration.map(|d| now + d);
                let pause = Pause { by: by.to_owned(), why, since: now, until };
                let for_how_long =
                    duration.map_or("until it is resumed".into(), |d| format!("for {}", human(d)));
                self.set_flags(now, service.as_ref(), effects, |flags| flags.paused = Some(pause))?;
                let whom = service.map_or("the whole fleet".into(), |s| s.to_string());
                Ok(Some(format!("{whom} is paused {for_how_long}; a rollback in flight is finished")))
            }
            Command::Resume { service } => {
                // A question that is open stays open; a no is over, for whoever resumes wants it judged again.
                self.set_flags(now, service.as_ref(), effects, |flags| {
                    let open = flags.approval.take().filter(|approval| approval.is_open());
                    let notes = std::mem::take(&mut flags.notes);
                    // What was tried counts no more either.
                    *flags = Flags { approval: open, notes, ..Flags::default() };
                })?;
                match &service {
                    Some(name) => self.with(now, name, effects, |s, turn| {
                        // Whoever resumes has looked: what was tried before counts no more.
                        s.failed_targets.clear();
                        s.attempts.clear();
                        s.last_ended = None;
                        s.told.clear();
                        if s.state == State::Stuck {
                            s.evidence.void(turn.now);
                            s.go_watching(turn);
                        }
                    }),
                    None => self.breaker_reset = now,
                }
                Ok(Some(format!(
                    "{} is watched again",
                    service.map_or("the fleet".into(), |s| s.to_string())
                )))
            }
            Command::Rollback { service, to, why, via, accept_schema, drill } => {
                let order = Order { to, why, by: by.to_owned(), via, reason: None, accept_schema };
                let carry = if drill { Self::drill } else { Self::order };
                carry(self, now, &service, order, effects).map(Some)
            }
            Command::Answer { service, question, word, why, via } => {
                let said = Said { at: now, by: by.to_owned(), via, word, why };
                self.answer(now, &service, question.as_ref(), said, effects).map(Some)
            }
            Command::Extend { service, question, span, why, via } => {
                let deadline = self.services.get(&service).and_then(|s| s.open_approval()?.deadline());
                let until = deadline.unwrap_or(now).max(now) + span;
                let said = Said { at: now, by: by.to_owned(), via, word: Word::Extended { until }, why };
                self.answer(now, &service, question.as_ref(), said, effects).map(Some)
            }
            Command::Unquarantine { service, release, why } => {
                self.known(&service)?;
                self.with(now, &service, effects, |s, turn| s.unquarantine(turn, &release, by, &why))
                    .map(Some)
            }
            Command::Deploying { service, note } => {
                self.known(&service)?;
                let note = DeployNote { at: now, by: by.to_owned(), ..note };
                Ok(Some(self.with(now, &service, effects, |s, turn| s.noted(turn, note))))
            }
            Command::Unpin { service } => {
                let known = self.services.get(&service).ok_or_else(|| unknown(&service))?;
                let pin = known.pin().cloned().ok_or_else(|| {
                    format!("no file of {service} was changed by a rollback, or it was taken back; next: backstop history {service}")
                })?;
                effects.push(Effect::Unpin { request, service, pin });
                Ok(None)
            }
        }
    }

    fn known(&self, name: &ServiceName) -> Result<&Service, String> {
        self.services.get(name).filter(|s| s.seen).ok_or_else(|| unknown(name))
    }

    fn set_flags(
        &mut self,
        now: Timestamp,
        service: Option<&ServiceName>,
        effects: &mut Vec<Effect>,
        change: impl FnOnce(&mut Flags),
    ) -> Result<(), String> {
        match service {
            Some(name) if !self.services.contains_key(name) => Err(unknown(name)),
            Some(name) => {
                self.with(now, name, effects, |s, turn| s.flag(turn, change));
                Ok(())
            }
            None => {
                change(&mut self.flags);
                effects
                    .push(Effect::Remember(LedgerChange::Flags { service: None, flags: self.flags.clone() }));
                Ok(())
            }
        }
    }

    /// Somebody answers what was asked about a service. A yes to what nothing but a person would do orders it.
    fn answer(
        &mut self,
        now: Timestamp,
        name: &ServiceName,
        question: Option<&ApprovalId>,
        said: Said,
        effects: &mut Vec<Effect>,
    ) -> Result<String, String> {
        if self.services.get(name).is_none_or(|s| !s.seen) {
            return Err(unknown(name));
        }
        let asked = self.services.get(name).and_then(|s| s.flags.approval.as_deref());
        let order = asked.filter(|_| said.word == Word::Approved).and_then(Order::agreed);
        if let Some(order) = &order {
            // A yes that could not be carried out is not taken down: it can be said again.
            self.decide(now, name, order)?;
        }
        self.take_down(now, name, question, said, order, effects)
    }

    /// Takes down what somebody said about what is asked, and carries the order out if that was the last yes to it.
    fn take_down(
        &mut self,
        now: Timestamp,
        name: &ServiceName,
        question: Option<&ApprovalId>,
        said: Said,
        order: Option<Order>,
        effects: &mut Vec<Effect>,
    ) -> Result<String, String> {
        let answer = self.with(now, name, effects, |s, turn| s.say(turn, question, said))?;
        let agreed = self.services.get(name).and_then(|s| s.flags.approval.as_deref());
        match (order, agreed.filter(|approval| approval.is_approved()).map(Approval::approvers)) {
            (Some(order), Some(by)) => self.carry_out(now, name, Order { by, ..order }, effects),
            (Some(_), None) | (None, _) => Ok(answer),
        }
    }

    /// A rollback is tried for real: away from production, and with a way forward again. Nobody else has to agree to that.
    fn drill(
        &mut self,
        now: Timestamp,
        name: &ServiceName,
        order: Order,
        effects: &mut Vec<Effect>,
    ) -> Result<String, String> {
        let environment = &self.settings.environment;
        if ["production", "prod", "live"].contains(&environment.to_lowercase().as_str()) {
            return Err(format!(
                "this is {environment}, where nothing is rolled back to see whether it works: drill in a staging environment \
                 (`environment` in its configuration), or without --for-real"
            ));
        }
        let service = self.services.get(name).filter(|s| s.seen).ok_or_else(|| unknown(name))?;
        if !service.current_is_known_good() {
            return Err(format!(
                "what runs of {name} has not proved itself yet, so there would be no way forward again; next: backstop wait {name}"
            ));
        }
        let reason = Some(Reason::Drill { by: order.by.clone() });
        self.carry_out(now, name, Order { reason, ..order }, effects)
    }

    /// An operator orders a rollback. Where two people have to agree, the second one is asked for.
    fn order(
        &mut self,
        now: Timestamp,
        name: &ServiceName,
        order: Order,
        effects: &mut Vec<Effect>,
    ) -> Result<String, String> {
        let needed = self.services.get(name).map_or(1, |s| s.settings.approvals);
        if needed <= 1 {
            return self.carry_out(now, name, order, effects);
        }
        let decision = self.decide(now, name, &order)?.0;
        let said = Said {
            at: now,
            by: order.by.clone(),
            via: order.via,
            word: Word::Approved,
            why: order.why.clone(),
        };
        let open = self.services.get(name).and_then(Service::open_approval);
        if open.is_some_and(|known| known.carries_over_to(&decision)) {
            // The same is being asked already: whoever orders it says yes to that, and it is done if that was the last one.
            return self.take_down(now, name, None, said, Some(order), effects);
        }
        self.with(now, name, effects, |s, turn| {
            s.record(turn, &decision);
            let ask = Ask::Second { to: order.to, why: order.why, accept_schema: order.accept_schema };
            s.put_question(turn, ask, decision, None);
            s.say(turn, None, said)?;
            Ok(format!(
                "taken down as 1 of {needed}: the rollback of {name} begins when somebody else says yes too; \
                 next: backstop approve {name}, by another person"
            ))
        })
    }

    /// What an order comes to, and who goes along. Only what makes it impossible or unsafe is asked about.
    fn decide(
        &self,
        now: Timestamp,
        name: &ServiceName,
        order: &Order,
    ) -> Result<(Decision, Vec<ServiceName>), String> {
        let around = self.surroundings(name);
        let Some(service) = self.services.get(name).filter(|s| s.seen) else {
            return Err(unknown(name));
        };
        if service.state.in_flight() {
            return Err(format!("a rollback of {name} is in flight already; next: backstop status"));
        }
        if let Some(what) = service.under_way().filter(|what| what.replaces()) {
            // What runs in a moment is not what this would be decided about.
            return Err(format!(
                "something else is under way, and has to end first ({}); \
                 next: backstop explain {name}, and the same again when that is over",
                what.intent()
            ));
        }
        if let Some(why) = around.store_error {
            return Err(format!("nothing is done that could not be recorded first: {why}"));
        }
        if let Some(EngineState::Unreachable { why }) = around.engine {
            return Err(format!("the engine does not answer: {why}"));
        }
        let target = target(service, order.to.as_deref())?;
        if !order.accept_schema {
            service.schema_gate(&target).map_err(|why| refused_for_schema(service, &why))?;
        }
        let gates = service.ask(now, None, None, around).into_iter().filter(|a| a.allow).collect();
        let ordered = || Reason::Operator { by: order.by.clone(), why: order.why.clone() };
        let decision = Decision {
            at: now,
            service: name.clone(),
            verdict: Verdict::Rollback,
            reason: order.reason.clone().unwrap_or_else(ordered),
            rule: None,
            severity: Severity::High,
            from: service.current.clone(),
            to: Some(target),
            gates,
            dry_run: false,
        };
        // Whoever names a release means this service alone.
        let along = if order.to.is_none() { around.along(name) } else { Vec::new() };
        if let Err(why) = group::together(name, true, around)
            && !along.is_empty()
        {
            return Err(format!("{why}; alone: backstop rollback {name} --to RELEASE"));
        }
        Ok((decision, along))
    }

    fn carry_out(
        &mut self,
        now: Timestamp,
        name: &ServiceName,
        order: Order,
        effects: &mut Vec<Effect>,
    ) -> Result<String, String> {
        let (decision, along) = self.decide(now, name, &order)?;
        let target = decision.to.as_ref().map_or_else(String::new, ToString::to_string);
        let at = effects.len();
        let said = self.with(now, name, effects, |s, turn| {
            s.record(turn, &decision);
            s.schema_accepted = order.accept_schema;
            s.begin(turn, decision, &order.by, None, Event::Decided, along);
            let id = s.rollback.as_ref().map_or_else(String::new, |r| r.id.to_string());
            format!("rollback {id} of {name} to {target} has begun; next: backstop history {name}")
        });
        self.take_along(now, name, at, effects);
        Ok(said)
    }
}

/// A rollback that people want.
struct Order {
    to: Option<String>,
    why: String,
    by: String,
    via: Via,
    /// Why Backstop asked, if it did.
    reason: Option<Reason>,
    /// The target need not fit the schema of the database.
    accept_schema: bool,
}

impl Order {
    /// What a yes orders; none where Backstop goes ahead by itself as soon as it may.
    fn agreed(approval: &Approval) -> Option<Self> {
        let (to, why, reason, accept_schema) = match approval.ask.clone() {
            Ask::Countdown { .. } | Ask::Consent => return None,
            Ask::Evaluate => (None, String::new(), Some(approval.decision.reason.clone()), false),
            Ask::Second { to, why, accept_schema } => (to, why, None, accept_schema),
        };
        Some(Self { to, why, by: approval.approvers(), via: Via::Person, reason, accept_schema })
    }
}

fn refused_for_schema(service: &Service, why: &str) -> String {
    let by_hand = service.settings.migrations.manual.as_ref();
    let by_hand = by_hand.map_or_else(String::new, |way| format!("; prepared way: {way}"));
    format!(
        "{why}{by_hand}; next: the database first, then backstop rollback {} --accept-schema",
        service.name
    )
}

fn unknown(name: &ServiceName) -> String {
    format!("no service {name} is watched; next: backstop status")
}

/// Where a rollback that an operator asks for goes: to the release that is named, or to the one that would be chosen.
fn target(service: &Service, to: Option<&str>) -> Result<Release, String> {
    let current = service.current.as_ref().map(|c| &c.id);
    match to {
        Some(wanted) => pick(&service.name, &service.ledger, current, wanted).cloned(),
        None => {
            service.target().cloned().map_err(|why| format!("{why}; next: backstop explain {}", service.name))
        }
    }
}
