//! The fleet: the one entrance to the core. Inputs go to the services they are about; then each service has its turn.

mod orders;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::agenda::Agenda;
use super::announcement::{Announcement, AnnouncementKind};
use super::decision::Gate;
use super::engines::{DEFAULT, Engines, News};
use super::io::{Effect, EngineState, HostState, Input};
use super::ledger::{Flags, LedgerChange, Remembered, RollbackRecord};
use super::observation::{Look, Observation, Phase, Refusal};
use super::release::{MitigationId, ReplicaId, RollbackId, ServiceName};
use super::sample::{Measurement, Signal};
use super::service::{Service, Turn};
use super::settings::{FleetSettings, OpenWindow};
use super::snapshot::{FleetSnapshot, ServiceSnapshot};
use super::state::State;
use super::surroundings::{Host, Roster, Surroundings};
use super::time::{Timestamp, human};

/// Time passes at least this often: the watchdog of systemd and `/healthz` listen to it.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Whoever is due within this time has its turn now: so they stay in step, and time comes round seldom.
const TOGETHER: Duration = Duration::from_secs(1);

/// What a service sees around it. A macro, because it borrows some fields while another is changed.
macro_rules! surroundings {
    ($fleet:ident, $name:expr) => {
        Surroundings {
            settings: &$fleet.settings,
            engines: &$fleet.engines,
            engine: $fleet.engines.of($name).and_then(|engine| engine.state.as_ref()),
            engine_back: $fleet.engines.of($name).and_then(|engine| engine.back),
            store_error: $fleet.store_error.as_deref(),
            flags: &$fleet.flags,
            host: &$fleet.host,
            breaker_reset: $fleet.breaker_reset,
            windows: &$fleet.windows,
            roster: &$fleet.roster,
        }
    };
}

/// All services, and what they have in common.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fleet {
    settings: FleetSettings,
    services: BTreeMap<ServiceName, Service>,
    refused: Vec<Refusal>,
    #[serde(flatten)]
    engines: Engines,
    host: Host,
    /// Every service, as the others see it.
    roster: Roster,
    /// When each service has its next turn.
    agenda: Agenda,
    store_error: Option<String>,
    flags: Flags,
    /// The windows that are open.
    #[serde(default)]
    windows: Vec<OpenWindow>,
    /// The breaker counts rollbacks after this.
    breaker_reset: Timestamp,
    sequence: u32,
    last_tick: Timestamp,
}

impl Fleet {
    /// A fleet that takes up what an earlier process knew. Rollbacks that were open then are in flight again:
    /// their [`Input::Executed`] is awaited.
    pub fn restore(now: Timestamp, settings: FleetSettings, remembered: Remembered) -> Self {
        let mut fleet = Self {
            settings,
            services: BTreeMap::new(),
            refused: Vec::new(),
            engines: Engines::default(),
            host: Host::default(),
            roster: Roster::new(),
            agenda: Agenda::default(),
            store_error: None,
            flags: Flags::default(),
            windows: Vec::new(),
            breaker_reset: Timestamp::default(),
            sequence: 0,
            last_tick: now,
        };
        for (name, ledger) in remembered.ledgers {
            fleet.service(now, &name).restore_ledger(ledger);
        }
        for (name, norms) in remembered.norms {
            fleet.service(now, &name).restore_norms(now, norms);
        }
        for (name, flags) in remembered.flags {
            match name {
                Some(name) => fleet.service(now, &name).restore_flags(flags),
                None => fleet.flags = flags,
            }
        }
        for record in remembered.rollbacks {
            fleet.service(now, &record.service.clone()).restore_rollback(record);
        }
        for (name, service) in &fleet.services {
            fleet.roster.insert(name.clone(), service.neighbour());
            fleet.agenda.set(name, service.poll_timeout());
        }
        fleet
    }

    /// Rollbacks whose execution is awaited.
    pub fn executing(&self) -> Vec<&RollbackRecord> {
        let executing = self.services.values().filter(|s| s.state == State::RollingBack);
        executing.filter_map(|s| s.rollback.as_ref()).collect()
    }

    /// Mitigations whose result is awaited.
    pub fn mitigating(&self) -> Vec<(MitigationId, ServiceName)> {
        let all = self.services.iter();
        all.filter_map(|(name, service)| Some((service.mitigating.clone()?, name.clone()))).collect()
    }

    /// Replacements that were made on suspicion and are not needed if we stop now.
    pub fn prepared(&self) -> Vec<RollbackId> {
        let undecided = self.services.values().filter(|s| s.state != State::RollingBack);
        undecided.filter_map(|s| s.prepared.as_ref()).map(|p| p.id.clone()).collect()
    }

    /// Takes in one input and returns what is to be done, in order. Never fails.
    pub fn handle(&mut self, now: Timestamp, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        let about = self.take_in(now, input, &mut effects);
        self.watch_engines(now, &mut effects);
        let names = match about {
            About::Service(name) => BTreeSet::from([name]),
            About::Whoever { due: true } => self.agenda.until(now + TOGETHER),
            About::Whoever { due: false } => self.services.keys().cloned().collect(),
        };
        // Everybody says how it is before anybody is judged: who comes first by name must make no difference.
        for name in &names {
            self.take_stock(now, name);
        }
        for name in &names {
            self.turn(now, name, &mut effects);
        }
        if names.iter().any(|name| self.is_held_by_breaker(name)) {
            self.trip_breaker(now, &mut effects);
        }
        effects
    }

    /// When [`Input::Tick`] is due if nothing else comes in before.
    ///
    /// Counted from the last turn that time brought, not from the last input: a stream of inputs must not keep time
    /// from passing.
    pub fn poll_timeout(&self) -> Timestamp {
        let heartbeat = self.last_tick + HEARTBEAT;
        self.agenda.next().map_or(heartbeat, |due| due.min(heartbeat))
    }

    /// The services that are shown to people.
    fn shown(&self) -> impl Iterator<Item = &Service> {
        self.services.values().filter(|s| s.seen || s.state.in_flight() || s.state == State::Stuck)
    }

    /// Every service and the state that it is in: a picture costs an assessment of each.
    pub fn states(&self) -> impl Iterator<Item = (&ServiceName, State)> {
        self.shown().map(|s| (&s.name, s.state))
    }

    /// The picture of the whole fleet.
    pub fn snapshot(&self, now: Timestamp) -> FleetSnapshot {
        FleetSnapshot {
            at: now,
            settings: self.settings.clone(),
            engine: self.engines.default.state.clone(),
            looked: self.engines.default.looked,
            engines: self.engines.seen(&self.settings.engines),
            store_error: self.store_error.clone(),
            flags: self.flags.clone(),
            services: self.shown().map(|s| s.snapshot(now, self.surroundings(&s.name))).collect(),
            refused: self.refused.clone(),
        }
    }

    /// The picture of one service, if there is one of that name.
    pub fn service_snapshot(&self, now: Timestamp, name: &ServiceName) -> Option<ServiceSnapshot> {
        self.services.get(name).map(|service| service.snapshot(now, self.surroundings(name)))
    }

    fn take_in(&mut self, now: Timestamp, input: Input, effects: &mut Vec<Effect>) -> About {
        match input {
            Input::Tick => {
                self.last_tick = now;
                self.expire_pauses(now, effects);
                return About::Whoever { due: true };
            }
            Input::Configured(settings) => {
                self.settings = settings;
                // The services' own settings come with a look.
                effects.push(Effect::Look);
            }
            Input::Engine(state) => self.engine_is(now, DEFAULT, state),
            Input::EngineOf { engine, state } => self.engine_is(now, &engine, state),
            Input::Windows(windows) => self.windows = windows,
            Input::Host(state) => self.host_is(now, state),
            Input::Store(result) => self.store_is(now, result, effects),
            Input::Looked(look) => self.looked(now, look, effects),
            Input::Observed(seen) => {
                let name = seen.service.clone();
                self.with(now, &name, effects, |s, turn| s.observe(turn, seen, false));
                return About::Service(name);
            }
            Input::Exited { service, replica, code, oom, requested } => {
                self.service(now, &service).exited(now, &replica, code, oom, requested);
                return About::Service(service);
            }
            Input::Sampled { service, replica, signal, name, measurement } => {
                self.sampled(now, &service, replica, (signal, name), measurement);
                return About::Service(service);
            }
            Input::Respecified { service } => {
                self.services.entry(service.clone()).and_modify(|s| s.respecified = true);
                return About::Service(service);
            }
            // How it went is logged; whether it can be used is decided when the rollback is carried out.
            Input::Prepared { service, .. } => return About::Service(service),
            Input::Protected { service, release, result } => {
                self.with(now, &service, effects, |s, turn| s.protected(turn, &release, result));
                return About::Service(service);
            }
            Input::TargetChecked { service, release, availability } => {
                self.with(now, &service, effects, |s, turn| s.target_checked(turn, &release, availability));
                return About::Service(service);
            }
            Input::Mitigated { id, service, result } => {
                self.with(now, &service, effects, |s, turn| s.mitigation_ended(turn, &id, result));
                return About::Service(service);
            }
            Input::SchemaAnswered { service, release, answer } => {
                self.with(now, &service, effects, |s, turn| s.schema_answered(turn, &release, answer));
                return About::Service(service);
            }
            Input::Executed { rollback, service, result } => {
                self.with(now, &service, effects, |s, turn| s.executed(turn, &rollback, result));
                return About::Service(service);
            }
            Input::Operator { request, command, by } => {
                let answer = self.command(now, request, command, &by, effects).transpose();
                effects.extend(answer.map(|answer| Effect::Reply { request, answer }));
            }
            Input::Unpinned { request, service, result } => {
                self.with(now, &service, effects, |s, turn| match &result {
                    Ok(done) => s.unpinned(turn, done, request.is_some()),
                    Err(why) if request.is_none() => s.pin_holds(turn, why),
                    Err(_) => {}
                });
                effects.extend(request.map(|request| Effect::Reply { request, answer: result }));
                return About::Service(service);
            }
        }
        About::Whoever { due: false }
    }

    fn host_is(&mut self, now: Timestamp, state: HostState) {
        let pressed = state.pressure.as_ref().map(|_| self.host.pressed.unwrap_or(now));
        self.host = Host { state, pressed };
    }

    fn sampled(
        &mut self,
        now: Timestamp,
        service: &ServiceName,
        replica: Option<ReplicaId>,
        (signal, name): (Signal, String),
        m: Measurement,
    ) {
        let Some(s) =
            self.services.get_mut(service).filter(|s| s.state != State::RollingBack && !s.is_settling(now))
        else {
            return;
        };
        if signal == Signal::Dependencies {
            if let Measurement::Check { ok, detail, .. } = m {
                s.reliances.entry(name).or_default().check(now, ok, detail);
            }
            return;
        }
        // A probe that was under way when its replica went away speaks of the past, and one of a replica that somebody
        // stopped, of the stop.
        let stopped = |id: &ReplicaId| {
            matches!(m, Measurement::Check { ok: false, .. }) && s.exits.requested.contains(id)
        };
        if replica.as_ref().is_none_or(|id| s.replicas.iter().any(|r| r.id == *id) && !stopped(id)) {
            s.sampled(now, replica, signal, name, m);
        }
    }

    fn take_stock(&mut self, now: Timestamp, name: &ServiceName) {
        let Some(service) = self.services.get_mut(name) else { return };
        if service.seen && self.engines.of(name).is_some_and(|engine| engine.state.is_some()) {
            service.take_stock(now);
        }
        self.tell_others(name);
    }

    fn turn(&mut self, now: Timestamp, name: &ServiceName, effects: &mut Vec<Effect>) {
        let around = surroundings!(self, name);
        let Some(service) = self.services.get_mut(name) else { return };
        service.last_turn = now;
        // Not before the engine has answered for the first time: what runs now comes from it, not from memory.
        if service.seen && around.engine.is_some() {
            let mut turn = Turn { now, fleet: &self.settings, effects, sequence: &mut self.sequence };
            if service.state == State::Verifying {
                service.verify(&mut turn, around);
            } else {
                service.watch(&mut turn, around);
            }
        }
        self.taken_turn(name);
        if let Some(at) = effects.iter().rposition(|e| matches!(e, Effect::RollBack(r) if r.service == *name))
        {
            self.take_along(now, name, at, effects);
            self.ask_again(now, name);
        }
    }

    /// A rollback has begun: whoever had its turn in this moment before it hears of that now, as those after it do.
    fn ask_again(&mut self, now: Timestamp, name: &ServiceName) {
        let earlier = self.services.values().filter(|s| s.name != *name && s.last_turn == now);
        for service in earlier.filter(|s| s.state == State::Suspect) {
            self.agenda.set(&service.name, now);
        }
    }

    /// When a service is to be looked at again, and what the others should know of it.
    fn taken_turn(&mut self, name: &ServiceName) {
        let Some(service) = self.services.get(name) else { return };
        self.agenda.set(name, service.poll_timeout());
        self.tell_others(name);
    }

    fn tell_others(&mut self, name: &ServiceName) {
        let Some(service) = self.services.get(name) else { return };
        let neighbour = service.neighbour();
        match self.roster.get_mut(name) {
            Some(known) => *known = neighbour,
            None => _ = self.roster.insert(name.clone(), neighbour),
        }
    }

    /// A rollback has begun, asked for by the effect at `at`: whoever is one release with the service goes with it, in
    /// the order of the group.
    fn take_along(&mut self, now: Timestamp, name: &ServiceName, at: usize, effects: &mut Vec<Effect>) {
        let leader = self.services.get(name).and_then(|service| service.rollback.clone());
        let Some(leader) = leader.filter(|record| !record.along.is_empty()) else { return };
        for other in &leader.along {
            self.with(now, other, effects, |s, turn| s.go_along(turn, &leader));
            self.taken_turn(other);
        }
        let group =
            self.surroundings(name).group(name).map(|group| group.services.clone()).unwrap_or_default();
        let mut requests = Vec::new();
        for effect in effects.split_off(at) {
            if let Effect::RollBack(request) = &effect {
                requests.push(request.clone());
            } else {
                effects.push(effect);
            }
        }
        requests.sort_by_key(|request| group.iter().position(|member| *member == request.service));
        effects.push(Effect::RollBackTogether(requests));
    }

    fn service(&mut self, now: Timestamp, name: &ServiceName) -> &mut Service {
        self.services.entry(name.clone()).or_insert_with(|| Service::new(name.clone(), now))
    }

    fn with<R>(
        &mut self,
        now: Timestamp,
        name: &ServiceName,
        effects: &mut Vec<Effect>,
        f: impl FnOnce(&mut Service, &mut Turn<'_>) -> R,
    ) -> R {
        let service = self.services.entry(name.clone()).or_insert_with(|| Service::new(name.clone(), now));
        f(service, &mut Turn { now, fleet: &self.settings, effects, sequence: &mut self.sequence })
    }

    fn looked(&mut self, now: Timestamp, look: Look, effects: &mut Vec<Effect>) {
        self.engines.looked(&look.engine);
        self.refused.retain(|refusal| refusal.service.engine() != look.engine);
        self.refused.extend(look.refused);
        let found: BTreeSet<&ServiceName> = look.services.iter().map(|o| &o.service).collect();
        // What runs on other engines is none of this look's business.
        let its = self.services.iter().filter(|(name, _)| name.engine() == look.engine);
        let gone = its.filter(|(name, s)| s.seen && !found.contains(name));
        let gone: Vec<Observation> = gone
            .map(|(name, s)| Observation {
                service: name.clone(),
                settings: s.settings.clone(),
                asked: look.asked,
                replicas: Vec::new(),
            })
            .collect();
        for seen in look.services.into_iter().chain(gone) {
            let name = seen.service.clone();
            self.with(now, &name, effects, |s, turn| s.observe(turn, seen, look.after_gap));
        }
        self.let_go(now, &look.engine, effects);
    }

    /// Lets go of services that are gone for good: what is remembered has a bound. Those of an engine that is not watched
    /// any more count as gone, and those of one that has not been looked at do not.
    fn let_go(&mut self, now: Timestamp, looked: &str, effects: &mut Vec<Effect>) {
        let engines = &self.settings.engines;
        let over = |of: &str| of == looked || (of != DEFAULT && !engines.iter().any(|engine| engine == of));
        for service in self.services.values_mut().filter(|s| !s.seen && over(s.name.engine())) {
            // Known from an earlier process only.
            service.gone.get_or_insert(now);
        }
        let past = self.services.values().filter(|s| s.is_past(now)).map(|s| s.name.clone());
        for name in past.collect::<Vec<_>>() {
            self.with(now, &name, effects, |s, turn| s.let_go(turn));
            self.services.remove(&name);
            self.roster.remove(&name);
            self.agenda.remove(&name);
        }
    }

    fn engine_is(&mut self, now: Timestamp, name: &str, state: EngineState) {
        let Some(restarted) = self.engines.is(now, name, state) else { return };
        for service in self.services.values_mut().filter(|service| service.name.engine() == name) {
            // The engine's restart ended them all; that is nobody's fault.
            service.start_anew(now);
            service.evidence.down.clear();
            service.evidence.unhealthy.clear();
            service.exits.crashed.clear();
            if restarted {
                let ran = service.replicas.iter().filter(|r| r.phase == Phase::Running);
                service.exits.requested.extend(ran.map(|r| r.id.clone()));
            }
        }
    }

    /// Says that an engine is gone, once it has been for a while, and that it is back.
    fn watch_engines(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let all_alone = self.engines.named.is_empty();
        for (name, news) in self.engines.news(now) {
            // "ENGINE east ...", and of an only engine simply "ENGINE ...".
            let who = if name.is_empty() { "ENGINE".to_owned() } else { format!("ENGINE {name}") };
            let a = match news {
                News::Silent { why } => {
                    let meaning = if all_alone {
                        "nothing can be judged or rolled back until it is back"
                    } else {
                        "none of its services can be judged or rolled back until it is back; those of other engines can"
                    };
                    let mut a = self.announcement(now, &format!("{who} DOES NOT ANSWER"));
                    a.fields.push(("Reason".into(), why));
                    a.fields.push(("Meaning".into(), meaning.into()));
                    a.next = Some(
                        if name.is_empty() { "systemctl status docker" } else { "backstop status" }.into(),
                    );
                    a
                }
                News::Back { silent_for } => {
                    let mut a = self.announcement(now, &format!("{who} ANSWERS AGAIN"));
                    a.fields.push(("It was silent for".into(), human(silent_for).to_string()));
                    a
                }
            };
            effects.push(Effect::Announce(a));
        }
    }

    fn store_is(&mut self, now: Timestamp, result: Result<(), String>, effects: &mut Vec<Effect>) {
        let error = result.err();
        if error.is_some() == self.store_error.is_some() {
            self.store_error = error;
            return;
        }
        let mut a = match &error {
            Some(why) => {
                let mut a = self.announcement(now, "STORE FAILED, NOTHING IS ROLLED BACK");
                a.fields.push(("Reason".into(), why.clone()));
                a.fields.push((
                    "Meaning".into(),
                    "watching and announcing go on; nothing is done that could not be recorded".into(),
                ));
                a
            }
            None => self.announcement(now, "STORE WORKS AGAIN"),
        };
        a.next = error.is_some().then(|| "backstop status".to_owned());
        effects.push(Effect::Announce(a));
        self.store_error = error;
    }

    fn is_held_by_breaker(&self, name: &ServiceName) -> bool {
        let suspect = self.services.get(name).filter(|s| s.state == State::Suspect);
        let last = suspect.and_then(|s| s.last_decision.as_ref()?.gates.last());
        last.is_some_and(|answer| answer.gate == Gate::Breaker && !answer.allow)
    }

    /// The breaker: too many rollbacks in the fleet are a storm, and a storm is not undone by more of them.
    fn trip_breaker(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.flags.stuck.is_some() {
            return;
        }
        let why = format!(
            "the breaker tripped: {} automatic rollbacks within {}",
            self.surroundings(&ServiceName::new("")).recent_rollbacks(now),
            human(self.settings.breaker_window)
        );
        self.flags.stuck = Some(why.clone());
        effects.push(Effect::Remember(LedgerChange::Flags { service: None, flags: self.flags.clone() }));
        let mut a = self.announcement(now, "AUTOMATIC ROLLBACKS STOPPED");
        a.kind = AnnouncementKind::BreakerTripped;
        a.fields.push(("Reason".into(), why));
        a.next = Some("backstop history; when the cause is found: backstop resume".into());
        effects.push(Effect::Announce(a));
    }

    fn surroundings(&self, name: &ServiceName) -> Surroundings<'_> {
        surroundings!(self, name)
    }

    fn announcement(&self, now: Timestamp, title: &str) -> Announcement {
        let key = format!("daemon/{title}/{}", now.as_millis());
        Announcement::new(key, now, AnnouncementKind::Daemon, &self.settings.environment, title.to_owned())
    }

    fn expire_pauses(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let over =
            |flags: &Flags| flags.paused.as_ref().and_then(|p| p.until).is_some_and(|until| until <= now);
        if over(&self.flags) {
            self.flags.paused = None;
            effects.push(Effect::Remember(LedgerChange::Flags { service: None, flags: self.flags.clone() }));
        }
        let names: Vec<ServiceName> =
            self.services.values().filter(|s| over(&s.flags)).map(|s| s.name.clone()).collect();
        for name in names {
            self.with(now, &name, effects, |s, turn| s.flag(turn, |flags| flags.paused = None));
        }
    }
}

/// Whose turn it is after an input.
enum About {
    Service(ServiceName),
    /// Everybody, or only those that are due.
    Whoever {
        due: bool,
    },
}

impl super::snapshot::SampleCounts {
    pub(crate) fn add(&mut self, other: Self) {
        self.healthy += other.healthy;
        self.unhealthy += other.unhealthy;
        self.error += other.error;
    }
}
