//! The world of a plain trace: services that run, deployments that appear, samples that come in, and a core that
//! judges them as it does in the daemon, but in dry-run mode, so that nothing has to be carried out.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::Line;
use super::trace::{Cast, Event, Trace, What};
use crate::core::decision::Decision;
use crate::core::io::{Effect, EngineState, Executed, Input, RollbackRequest};
use crate::core::ledger::{LedgerEntry, Remembered, Standing};
use crate::core::observation::{Look, Observation, Phase, Replica};
use crate::core::release::{ImageId, Release, ReleaseId, ReplicaId, ServiceName};
use crate::core::sample::{Measurement, Signal};
use crate::core::settings::{
    Dependency, FleetSettings, HealthCheck, MetricsSource, Mode, ServiceSettings, Target,
};
use crate::core::{Fleet, Timestamp};

/// The core's time at `t` = 0: a whole number of days, so that a trace in Unix time keeps its hours of the day, and
/// long enough after the epoch that traces may begin before zero.
const ORIGIN: Timestamp = Timestamp::from_secs(36_525 * 86_400);
/// What ran before the first deployment had been running for so long: long enough that it is nobody's new release. It
/// is made up, and told nobody.
const RAN_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Its name.
const BEFORE: &str = "before";
/// An exit this shortly around a deployment, with a code that a stopped container leaves, is the old container's
/// (decision.md, 4.2).
const OLD_CONTAINER: f64 = 15.0;
/// Exit codes of a container that was stopped; killed for want of memory is something else.
const STOPPED: [i64; 3] = [0, 137, 143];
/// When a trace says nothing for longer than this, the time until its next line is passed over: by then every window
/// of the core is empty.
const SILENCE_MAX: Duration = Duration::from_secs(6 * 3600);
/// How often something is measured, where a trace does not tell.
const INTERVAL: Duration = Duration::from_secs(5);

/// Plays `trace` to a fleet of its own. `settings` gives each service's settings as they are configured; what is not
/// in the trace is not asked for. Every decision comes back, in order of time.
pub fn run_trace(
    trace: &Trace,
    settings: &dyn Fn(&ServiceName) -> ServiceSettings,
    fleet: FleetSettings,
) -> Vec<Line> {
    watch_trace(trace, settings, fleet, &mut |_, _, _| {})
}

/// The same, and shows the fleet, with its own time, after all that has one time in the trace.
pub fn watch_trace(
    trace: &Trace,
    settings: &dyn Fn(&ServiceName) -> ServiceSettings,
    fleet: FleetSettings,
    look: &mut dyn FnMut(f64, &Fleet, Timestamp),
) -> Vec<Line> {
    let (Some(first), Some(last)) = (trace.events.first(), trace.events.last()) else { return Vec::new() };
    let end = last.t;
    let mut world = World::new(trace, settings, fleet, first.t);
    for moment in trace.events.chunk_by(|a, b| a.t == b.t) {
        world.moment(moment);
        look(moment.first().map_or(end, |e| e.t), &world.fleet, world.now);
    }
    world.wait_until(at(end));
    world.input(Input::Tick);
    world.lines
}

/// The core's time at `t`.
fn at(t: f64) -> Timestamp {
    let t = (t * 1000.0).round();
    let span = Duration::try_from_secs_f64(t.abs() / 1000.0).unwrap_or_default();
    if t < 0.0 { ORIGIN.before(span) } else { ORIGIN + span }
}

/// The trace's time at `now`.
fn seconds(now: Timestamp) -> f64 {
    if now < ORIGIN { -ORIGIN.since(now).as_secs_f64() } else { now.since(ORIGIN).as_secs_f64() }
}

struct World<'a> {
    trace: &'a Trace,
    fleet: Fleet,
    now: Timestamp,
    services: BTreeMap<ServiceName, Outside>,
    lines: Vec<Line>,
}

/// What runs of one service.
struct Outside {
    settings: Arc<ServiceSettings>,
    replica: Replica,
    deployments: u32,
}

impl<'a> World<'a> {
    fn new(
        trace: &'a Trace,
        settings: &dyn Fn(&ServiceName) -> ServiceSettings,
        fleet: FleetSettings,
        first: f64,
    ) -> Self {
        let now = at(first);
        let services: BTreeMap<ServiceName, Outside> = trace
            .services
            .iter()
            .map(|(name, cast)| {
                let settings = Arc::new(adapted(settings(name), name, cast, trace));
                let replica = replica(name, release(name, BEFORE, BEFORE), now.before(RAN_BEFORE), 0);
                (name.clone(), Outside { settings, replica, deployments: 0 })
            })
            .collect();
        let ledgers =
            services.iter().map(|(name, outside)| (name.clone(), vec![known_good(&outside.replica)]));
        let remembered = Remembered { ledgers: ledgers.collect(), ..Remembered::default() };
        let fleet = Fleet::restore(now, fleet, remembered);
        let mut world = Self { trace, fleet, now, services, lines: Vec::new() };
        world.input(Input::Engine(EngineState::Reachable { restarted: false }));
        let look = world.look();
        world.input(look);
        world
    }

    /// Everything that has one time. Order within it means nothing, so what is known of others comes before what may
    /// be blamed: the service that was deployed last is told of last.
    fn moment(&mut self, events: &[Event]) {
        self.wait_until(at(events.first().map_or(0.0, |e| e.t)));
        let mut ordered: Vec<&Event> = events.iter().collect();
        if events.len() > 1 {
            ordered.sort_by(|a, b| self.in_order(a, b));
        }
        for event in ordered {
            self.event(event);
        }
    }

    fn in_order(&self, a: &Event, b: &Event) -> Ordering {
        let deployed = |e: &Event| {
            let deploys = self.trace.services.get(&e.service).map_or(&[][..], |cast| &cast.deploys);
            let until = deploys.partition_point(|d| *d <= e.t);
            until.checked_sub(1).and_then(|i| deploys.get(i)).copied().unwrap_or(f64::NEG_INFINITY)
        };
        // A deployment in the same moment stays where it was written: what comes before it is the old release's. But nobody is
        // rolled back any more by what was measured in the very moment in which the next release is there.
        let turn = |e: &Event| match e.what {
            What::Dependency { .. } if deployed(e) < e.t => 0,
            What::Requests(_) | What::Health { .. } if deployed(e) == e.t => 2,
            _ => 1,
        };
        deployed(a)
            .total_cmp(&deployed(b))
            .then_with(|| a.service.cmp(&b.service))
            .then_with(|| turn(a).cmp(&turn(b)))
    }

    /// Lets time pass.
    fn wait_until(&mut self, until: Timestamp) {
        let passed_over = self.now + SILENCE_MAX;
        loop {
            let due = self.fleet.poll_timeout().max(self.now);
            if due >= until || due >= passed_over {
                break;
            }
            self.now = due;
            self.input(Input::Tick);
        }
        self.now = self.now.max(until);
    }

    fn event(&mut self, event: &Event) {
        let name = &event.service;
        let Some(outside) = self.services.get_mut(name) else { return };
        match &event.what {
            What::Deploy { version } => {
                outside.deploy(name, self.now, version.as_deref());
                self.observed(name);
            }
            What::Exit { code, oom } => self.exit(event, *code, *oom),
            What::Health { ok, latency } => {
                let detail = if *ok { "it passed" } else { "it failed" };
                let m = Measurement::Check { ok: *ok, detail: detail.into(), latency: *latency };
                self.sampled(name, true, Signal::Health, "health", m);
            }
            What::Requests(requests) => {
                let m = Measurement::Requests(requests.clone());
                self.sampled(name, false, Signal::Requests, "", m);
            }
            What::Memory { used, limit } => {
                let m = match limit {
                    Some(limit) => Measurement::Level { used: *used, limit: *limit },
                    None => Measurement::NotApplicable { why: "it has no memory limit".into() },
                };
                self.sampled(name, true, Signal::Memory, "", m);
            }
            What::Report { reporter } => {
                let m = Measurement::Report { reporter: reporter.clone(), text: String::new() };
                self.sampled(name, false, Signal::Reports, "", m);
            }
            What::Dependency { name: dependency, ok } => {
                let detail = if *ok { "it is well" } else { "it is down" };
                let m = Measurement::Check { ok: *ok, detail: detail.into(), latency: Duration::ZERO };
                self.sampled(name, false, Signal::Dependencies, dependency, m);
            }
        }
    }

    fn sampled(
        &mut self,
        name: &ServiceName,
        replica: bool,
        signal: Signal,
        of: &str,
        measurement: Measurement,
    ) {
        let replica = self.services.get(name).filter(|_| replica).map(|outside| outside.replica.id.clone());
        let (service, name) = (name.clone(), of.to_owned());
        self.input(Input::Sampled { service, replica, signal, name, measurement });
    }

    /// The main process ended, and the restart policy starts it again.
    fn exit(&mut self, event: &Event, code: i64, oom: bool) {
        let deploys = self.trace.services.get(&event.service).map_or(&[][..], |cast| &cast.deploys);
        let near = deploys.iter().any(|d| (event.t - d).abs() <= OLD_CONTAINER);
        if near && !oom && STOPPED.contains(&code) {
            return;
        }
        let Some(outside) = self.services.get_mut(&event.service) else { return };
        outside.replica.restart_count += 1;
        outside.replica.started = Some(self.now);
        let (service, replica) = (event.service.clone(), outside.replica.id.clone());
        self.input(Input::Exited { service, replica, code, oom, requested: false });
        self.observed(&event.service);
    }

    fn observed(&mut self, name: &ServiceName) {
        if let Some(seen) = self.seen(name) {
            self.input(seen);
        }
    }

    fn seen(&self, name: &ServiceName) -> Option<Input> {
        self.services.get(name).map(|outside| Input::Observed(outside.observation(name, self.now)))
    }

    fn look(&self) -> Input {
        let services =
            self.services.iter().map(|(name, outside)| outside.observation(name, self.now)).collect();
        Input::Looked(Look { asked: self.now, services, ..Look::default() })
    }

    /// The line for a decision. How long what ran before the first deployment had been running is made up, so it is not
    /// told.
    fn line(&self, decision: &Decision) -> Line {
        let deployed = self.services.get(&decision.service).is_some_and(|outside| outside.deployments > 0);
        let later = self.trace.services.get(&decision.service).is_some_and(|cast| !cast.deploys.is_empty());
        let instead = match (deployed, later) {
            (true, _) => None,
            (false, true) => Some("nothing had been deployed in this trace by then"),
            (false, false) => Some("nothing was deployed in this trace"),
        };
        Line::without_deployment(seconds(decision.at), decision, instead)
    }

    /// One input, and what follows from it. What the core asks for is done at once, as far as a trace can.
    fn input(&mut self, input: Input) {
        let mut waiting = VecDeque::from([input]);
        while let Some(input) = waiting.pop_front() {
            for effect in self.fleet.handle(self.now, input) {
                match effect {
                    Effect::Decided(decision) => {
                        let line = self.line(&decision);
                        self.lines.push(line);
                    }
                    Effect::Protect { service, release, .. } => {
                        waiting.push_back(Input::Protected { service, release: release.id, result: Ok(()) });
                    }
                    Effect::Look => waiting.push_back(self.look()),
                    Effect::Observe { service } => waiting.extend(self.seen(&service)),
                    // In dry-run mode neither comes; if they did, nothing was done.
                    Effect::Prepare(request) => {
                        let (rollback, service) = (request.id, request.service);
                        let result = Err("a trace is only read".into());
                        waiting.push_back(Input::Prepared { rollback, service, result });
                    }
                    Effect::RollBack(request) => waiting.push_back(unread(request)),
                    Effect::RollBackTogether(requests) => waiting.extend(requests.into_iter().map(unread)),
                    Effect::Remember(_)
                    | Effect::Unprotect { .. }
                    | Effect::CheckTarget { .. }
                    | Effect::AskSchema { .. }
                    | Effect::Discard { .. }
                    | Effect::Mitigate { .. }
                    | Effect::Close { .. }
                    | Effect::Unpin { .. }
                    | Effect::Announce(_)
                    | Effect::Reply { .. } => {}
                }
            }
        }
    }
}

impl Outside {
    fn observation(&self, name: &ServiceName, now: Timestamp) -> Observation {
        Observation {
            service: name.clone(),
            settings: Arc::clone(&self.settings),
            asked: now,
            replicas: vec![self.replica.clone()],
        }
    }

    /// Another release runs. Whoever writes that something was deployed means a deployment, even of the version that
    /// ran already: then its configuration is another one. A version of earlier is that release again.
    fn deploy(&mut self, name: &ServiceName, now: Timestamp, version: Option<&str>) {
        self.deployments += 1;
        let running = self.replica.release.version.as_deref();
        let nth = format!("deployment {}", self.deployments);
        let release = match version {
            None => release(name, &nth, &nth),
            Some(version) if running == Some(version) => release(name, version, &nth),
            Some(version) => release(name, version, version),
        };
        self.replica = replica(name, release, now, self.deployments);
    }
}

/// The settings of one service, for what the trace tells of it.
fn adapted(mut settings: ServiceSettings, name: &ServiceName, cast: &Cast, trace: &Trace) -> ServiceSettings {
    settings.mode = Mode::DryRun;
    settings.prepare = false;
    let target = || Target::Replica { port: 80, path: "/".into() };
    let check = || HealthCheck::get(target(), INTERVAL, INTERVAL);
    settings.checks = cast.health.then(|| ("health".to_owned(), check())).into_iter().collect();
    settings.dependencies = cast
        .dependencies
        .iter()
        .map(|of| {
            let other = ServiceName::new(of);
            let watched = other != *name && trace.services.contains_key(&other);
            (of.clone(), if watched { Dependency::Service(other) } else { Dependency::Check(check()) })
        })
        .collect();
    settings.prometheus = None;
    settings.logs.enabled = false;
    settings.metrics = cast.requests.then(|| MetricsSource::auto(target(), INTERVAL, INTERVAL));
    settings
}

/// What ran before the first deployment counts as known-good.
fn known_good(replica: &Replica) -> LedgerEntry {
    LedgerEntry {
        release: replica.release.clone(),
        first_seen: replica.created,
        deployed: replica.created,
        standing: Standing::KnownGood { since: replica.created },
        note: None,
        gone: None,
        schema: Default::default(),
    }
}

fn replica(name: &ServiceName, release: Release, created: Timestamp, nth: u32) -> Replica {
    Replica {
        id: ReplicaId::new(format!("{name}-{nth}")),
        name: name.to_string(),
        release,
        created,
        started: Some(created),
        phase: Phase::Running,
        restart_count: 0,
        restarts: true,
        health: None,
        exit_code: None,
        start_error: None,
        address: None,
    }
}

fn release(name: &ServiceName, version: &str, identity: &str) -> Release {
    Release {
        id: ReleaseId::new(format!("{name}/{version}/{identity}")),
        image: ImageId::new(format!("{name}:{version}")),
        reference: format!("{name}:{version}"),
        digests: Vec::new(),
        fingerprint: identity.to_owned(),
        version: (version != BEFORE).then(|| version.to_owned()),
    }
}

/// Nothing is rolled back in a trace: it is only read.
fn unread(request: RollbackRequest) -> Input {
    let (rollback, service) = (request.id, request.service);
    Input::Executed { rollback, service, result: Executed::Void { why: "a trace is only read".into() } }
}
