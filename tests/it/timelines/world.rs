//! Runs a text timeline through the core: a small world of services that does what the core asks for.
//!
//! One line is one moment: `<time> <what happens>`, with ` & ` between what happens at the same moment, or several of
//! them: ` x20 every 10s`. Between lines the core is ticked whenever it wants to be.
//! The world answers effects at once: specifications are kept, replacements are made, rollbacks are applied and the
//! target's replicas appear, unless a line said otherwise beforehand (`next rollback unwinds: no space`).

mod measured;
mod settings;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backstop::core::approval::{Via, Word};
use backstop::core::availability::Availability;
use backstop::core::io::{Command, Effect, EngineState, Executed, Input, RollbackRequest};
use backstop::core::ledger::{DeployNote, LedgerChange, Remembered, Standing};
use backstop::core::observation::{ContainerHealth, Look, Observation, Phase, Replica};
use backstop::core::plan::Pin;
use backstop::core::release::{
    ApprovalId, ImageId, MitigationId, Release, ReleaseId, ReplicaId, ServiceName,
};
use backstop::core::settings::{FleetSettings, Group, Mitigation, OpenWindow, ServiceSettings, WindowKind};
use backstop::core::snapshot::State;
use backstop::core::{Fleet, Timestamp};

/// Timelines begin a day after the epoch, so that "an hour before" exists.
pub(crate) const START: Timestamp = Timestamp::from_secs(86_400);

/// What the log tells of an announcement besides its title.
const TOLD: [&str; 9] = [
    "Release",
    "Reason",
    "Then",
    "Not rolled back because",
    "Status",
    "Policy",
    "Rolled back",
    "Schema",
    "Prepared way",
];

/// Every input with its time and what followed from it.
pub(crate) type Tape = Vec<(Timestamp, Input, Vec<Effect>)>;

/// The world outside of the core.
pub(crate) struct World {
    pub(crate) fleet: Fleet,
    now: Timestamp,
    /// What runs of each service.
    services: BTreeMap<String, Vec<Replica>>,
    states: BTreeMap<ServiceName, State>,
    script: Vec<(String, String)>,
    /// Whether it is shown when a specification is kept: mostly that would be noise.
    shows_keeping: bool,
    /// What became of the images of releases, by service and reference.
    images: BTreeMap<(String, String), Availability>,
    /// What the databases of services answer about their schema.
    schemas: BTreeMap<String, Result<String, String>>,
    next_replica: u32,
    /// What happened, one line each.
    pub(crate) log: Vec<String>,
    /// Every rollback that was begun, for invariants.
    pub(crate) begun: Vec<RollbackRequest>,
    /// Promises that were broken.
    pub(crate) broken: Vec<String>,
    /// All of it, for the flight record.
    pub(crate) tape: Tape,
    /// A mitigation that is not over yet.
    mitigating: Option<(MitigationId, ServiceName, Mitigation)>,
    /// A look that the engine has not answered yet.
    slow_look: Option<Look>,
    settings: ServiceSettings,
    /// Settings of single services, where they differ.
    own: BTreeMap<String, ServiceSettings>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::remembering(Remembered::default())
    }

    /// A world in which the daemon is started again, at the time at which all of them begin.
    pub(crate) fn remembering(remembered: Remembered) -> Self {
        Self::remembering_at(START, remembered)
    }

    /// The same, later. Its timeline goes on counting from where all begin.
    pub(crate) fn remembering_at(now: Timestamp, remembered: Remembered) -> Self {
        let fleet = Fleet::restore(now, FleetSettings::default(), remembered);
        let mut world = Self {
            fleet,
            now,
            services: BTreeMap::new(),
            states: BTreeMap::new(),
            script: Vec::new(),
            images: BTreeMap::new(),
            shows_keeping: false,
            schemas: BTreeMap::new(),
            next_replica: 0,
            log: Vec::new(),
            begun: Vec::new(),
            broken: Vec::new(),
            tape: Vec::new(),
            mitigating: None,
            slow_look: None,
            settings: settings::short(),
            own: BTreeMap::new(),
        };
        world.input(Input::Engine(EngineState::Reachable { restarted: false }));
        world
    }

    /// Runs a whole timeline; lines are separated by newlines, blank ones and `#` comments are skipped.
    pub(crate) fn run(&mut self, timeline: &str) {
        for line in timeline.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let (at, what) = line.split_once(' ').unwrap_or_else(|| panic!("no time in {line:?}"));
            let at = START + humantime::parse_duration(at).unwrap_or_else(|e| panic!("{line:?}: {e}"));
            assert!(at >= self.now, "{line:?} is over: it is {}s already", self.seconds());
            self.wait_until(at);
            self.event(what.trim());
        }
    }

    fn wait_until(&mut self, at: Timestamp) {
        loop {
            let due = self.fleet.poll_timeout().max(self.now);
            if due >= at {
                break;
            }
            self.now = due;
            self.input(Input::Tick);
        }
        self.now = at;
    }

    /// One event, so many seconds after the start, or at once if it is later by now.
    pub(crate) fn at(&mut self, seconds: u64, what: &str) {
        self.wait_until((START + Duration::from_secs(seconds)).max(self.now));
        self.event(what);
    }

    /// Seconds since the start.
    pub(crate) fn seconds(&self) -> u64 {
        self.now.since(START).as_secs()
    }

    /// One event, now.
    pub(crate) fn event(&mut self, what: &str) {
        // `exit shop 1 x3 every 2s` and `health shop fail x5` repeat.
        if let Some((what, times)) = what.rsplit_once(" x") {
            let (n, every) = times.split_once(" every ").unwrap_or((times, "5s"));
            let every = humantime::parse_duration(every).unwrap();
            let n = n.parse().unwrap_or_else(|_| panic!("{what} x{times}"));
            for i in 0..n {
                if i > 0 {
                    self.wait_until(self.now + every);
                }
                self.event(&on_the_way(what, i, n));
            }
            return;
        }
        // `requests api 100 & dependency api db fail` happen at the same moment.
        if let Some((first, rest)) = what.split_once(" & ") {
            self.event(first);
            self.event(rest);
            return;
        }
        let words: Vec<&str> = what.split_whitespace().collect();
        match words.as_slice() {
            ["set", pairs @ ..] => self.set(pairs),
            ["deploy", service, reference, how @ ..] => self.deploy(service, reference, how),
            [what @ ("withdrawn" | "respecified"), service] => self.by_hand(what, service),
            ["mixed", service, reference] => self.mixed(service, reference),
            // `group shop api jobs`: these are one release, and go back in this order.
            ["group", name, services @ ..] => {
                let services = services.iter().map(|service| ServiceName::new(*service)).collect();
                let groups = vec![Group { name: (*name).to_owned(), services }];
                self.input(Input::Configured(FleetSettings { groups, ..FleetSettings::default() }));
            }
            ["environment", name] => self.environment(name),
            ["remove", service] => self.remove(service),
            ["exit", service, code, how @ ..] => self.exit(service, code.parse().unwrap(), how),
            ["restarted", service, n] => self.gap(service, n.parse().unwrap()),
            ["container", service, state] => self.container(service, state),
            ["found", service, code] => self.found(service, code.parse().unwrap()),
            // `engines east west`: these are watched besides the default one, and answer.
            ["engines", names @ ..] => self.engines(names),
            ["engine", name, "lost"] => {
                self.engine_of(name, EngineState::Unreachable { why: "no route to host".into() });
            }
            ["engine", name, "back"] => self.engine_of(name, EngineState::Reachable { restarted: false }),
            ["engine", "lost"] => {
                self.input(Input::Engine(EngineState::Unreachable { why: "no such socket".into() }))
            }
            ["engine", "back"] => self.input(Input::Engine(EngineState::Reachable { restarted: true })),
            ["store", "full"] => self.input(Input::Store(Err("disk full".into()))),
            ["image", service, reference, is, why @ ..] => self.image(service, reference, is, &why.join(" ")),
            // `schema shop 0015`: what its database answers from now on; `schema shop away`: nothing.
            ["schema", service, answer] => self.schema(service, answer),
            ["mitigated"] => self.mitigation_is_over(),
            ["store", "ok"] => self.input(Input::Store(Ok(()))),
            ["next", what, rest @ ..] => self.script.push(((*what).to_owned(), rest.join(" "))),
            ["operator", rest @ ..] => self.operator(rest, "alice", Via::Token),
            // `bob says approve shop`: with a token of his own; `anyone by link says ...`: whoever can read the message.
            [who, "says", rest @ ..] => self.operator(rest, who, Via::Person),
            [who, "by", "link", "says", rest @ ..] => self.operator(rest, who, Via::Link),
            ["explain", service, rows @ ..] => self.explain(service, rows),
            ["look"] => self.look(),
            // A look at everything on one engine alone.
            ["look", "at", engine] => {
                let look = self.look_of(engine);
                self.input(Input::Looked(look));
            }
            // What the engine is asked for now comes in later, when something else may run.
            ["look", "begins"] => self.slow_look = Some(self.looks()),
            ["look", "arrives"] => {
                let look = self.slow_look.take().expect("a look that began");
                self.input(Input::Looked(look));
            }
            ["window", how @ ..] => self.window(how),
            ["end"] => {}
            words => self.measured(words),
        }
    }

    fn environment(&mut self, name: &str) {
        let environment = name.to_owned();
        self.input(Input::Configured(FleetSettings { environment, ..FleetSettings::default() }));
    }

    fn engines(&mut self, names: &[&str]) {
        let engines: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.input(Input::Configured(FleetSettings { engines, ..FleetSettings::default() }));
        for name in names {
            self.engine_of(name, EngineState::Reachable { restarted: false });
        }
    }

    fn schema(&mut self, service: &str, answer: &str) {
        let said = if answer == "away" { Err("no route to db".into()) } else { Ok(answer.into()) };
        self.schemas.insert(service.to_owned(), said);
    }

    fn replica(&mut self, service: &str, reference: &str, age: Duration) -> Replica {
        self.next_replica += 1;
        Replica {
            id: ReplicaId::new(format!("c{}", self.next_replica)),
            name: service.to_owned(),
            release: release(reference),
            created: self.now.before(age),
            started: Some(self.now.before(age)),
            phase: Phase::Running,
            restart_count: 0,
            restarts: true,
            health: None,
            exit_code: None,
            start_error: None,
            address: None,
        }
    }

    /// `deploy shop shop:v2 [age=1h] [replicas=3] [schema=breaking] [quietly]`
    fn deploy(&mut self, service: &str, reference: &str, how: &[&str]) {
        let option =
            |key: &str| how.iter().find_map(|h| h.strip_prefix(key).and_then(|h| h.strip_prefix('=')));
        let age = option("age").map_or(Duration::ZERO, |a| humantime::parse_duration(a).unwrap());
        // A label: it is the release's own.
        if let Some(change) = option("schema") {
            self.set(&[&format!("{service}:"), &format!("schema={change}")]);
        }
        let n = option("replicas").map_or(1, |n| n.parse().unwrap());
        let replicas = (0..n).map(|_| self.replica(service, reference, age)).collect();
        self.services.insert(service.to_owned(), replicas);
        if how.contains(&"quietly") { self.look() } else { self.observed(service) }
    }

    /// A second replica of another release beside the ones there are: a rolling deployment in the middle.
    fn mixed(&mut self, service: &str, reference: &str) {
        let replica = self.replica(service, reference, Duration::ZERO);
        if let Some(replicas) = self.services.get_mut(service) {
            replicas.push(replica);
        }
        self.observed(service);
    }

    fn mitigated(&mut self, id: MitigationId, service: ServiceName, what: &Mitigation, how: Option<&str>) {
        self.say(format!("{service}: {what}"));
        if how.is_none() && what.replaces() {
            self.made_anew(service.as_str());
        }
        let result = how.map_or(Ok(String::new()), |how| Err(how.replace("fails: ", "")));
        self.input(Input::Mitigated { id, service, result });
    }

    fn mitigation_is_over(&mut self) {
        let (id, service, what) = self.mitigating.take().expect("no mitigation lasts");
        self.mitigated(id, service, &what, None);
    }

    /// The same image under another configuration, seen while it is made.
    fn made_anew(&mut self, service: &str) {
        for replica in self.services.get_mut(service).into_iter().flatten() {
            self.next_replica += 1;
            replica.id = ReplicaId::new(format!("c{}", self.next_replica));
            (replica.created, replica.started) = (self.now, Some(self.now));
            replica.release.id = ReleaseId::new(format!("{}-set", replica.release.id));
        }
        self.observed(service);
    }

    fn remove(&mut self, service: &str) {
        self.services.remove(service);
        self.look();
    }

    /// `exit shop 137 [oom] [requested] [stays] [vanishes]`
    fn exit(&mut self, service: &str, code: i64, how: &[&str]) {
        let Some(id) = self.ids(service).into_iter().next() else { return };
        self.input(Input::Exited {
            service: ServiceName::new(service),
            replica: id,
            code,
            oom: how.contains(&"oom"),
            requested: how.contains(&"requested"),
        });
        if how.contains(&"vanishes") {
            self.remove(service);
        } else if let Some(replica) = self.services.get_mut(service).and_then(|r| r.first_mut()) {
            replica.restart_count += 1;
            if how.contains(&"stays") {
                replica.phase = Phase::Exited;
                replica.exit_code = Some(code);
            }
            self.observed(service);
        }
    }

    /// The engine says so many restarts more than events told.
    fn gap(&mut self, service: &str, restarts: u64) {
        self.services.get_mut(service).unwrap()[0].restart_count += restarts;
        self.look();
    }

    /// A look finds it ended, and no event told of it.
    fn found(&mut self, service: &str, code: i64) {
        let replica = &mut self.services.get_mut(service).unwrap()[0];
        (replica.phase, replica.exit_code) = (Phase::Exited, Some(code));
        self.look();
    }

    fn container(&mut self, service: &str, state: &str) {
        let Some(replica) = self.services.get_mut(service).and_then(|r| r.first_mut()) else {
            return;
        };
        match state {
            "unhealthy" => replica.health = Some(ContainerHealth::Unhealthy("connect: refused".into())),
            "healthy" => replica.health = Some(ContainerHealth::Healthy),
            "starting" => replica.health = Some(ContainerHealth::Starting),
            "unstartable" => {
                replica.phase = Phase::Created;
                replica.start_error = Some("exec: \"/app\": no such file".into());
            }
            other => panic!("container {other}"),
        }
        self.observed(service);
    }

    /// `image shop shop:v1 gone no such manifest`: from now on, whoever asks for the image of a release hears this.
    fn image(&mut self, service: &str, reference: &str, is: &str, why: &str) {
        let why = why.to_owned();
        let is = match is {
            "here" => Availability::Here,
            "registry" => Availability::Registry,
            "missing" => Availability::Missing { why },
            "gone" => Availability::Gone { why },
            "unknown" => Availability::Unknown { why },
            other => panic!("image {other}"),
        };
        self.images.insert((service.to_owned(), reference.to_owned()), is);
    }

    /// `window freeze friday 10m shop`: it is open for so long, for these services or for all; `window closes`.
    fn window(&mut self, how: &[&str]) {
        let [kind, name, span, services @ ..] = how else {
            return self.input(Input::Windows(Vec::new()));
        };
        let until = self.now + humantime::parse_duration(span).unwrap();
        let kind = if *kind == "freeze" { WindowKind::Freeze } else { WindowKind::Maintenance };
        let services = services.iter().map(|service| ServiceName::new(*service)).collect();
        let (name, why) = ((*name).to_owned(), "as every week".to_owned());
        self.input(Input::Windows(vec![OpenWindow { name, kind, services, until, why }]));
    }

    fn operator(&mut self, words: &[&str], who: &str, via: Via) {
        let service = |name: &&str| (*name != "all").then(|| ServiceName::new(*name));
        let command = match words {
            ["pause", name] => {
                Command::Pause { service: service(name), duration: None, why: "testing".into() }
            }
            ["pause", name, span] => {
                let duration = Some(humantime::parse_duration(span).unwrap());
                Command::Pause { service: service(name), duration, why: "testing".into() }
            }
            ["unpin", name] => Command::Unpin { service: ServiceName::new(*name) },
            ["resume", name] => Command::Resume { service: service(name) },
            ["rollback", name, rest @ ..] => Command::Rollback {
                service: ServiceName::new(*name),
                to: rest
                    .iter()
                    .find(|word| !["accept-schema", "drill"].contains(*word))
                    .map(|to| (*to).to_owned()),
                why: "told so".into(),
                via,
                accept_schema: rest.contains(&"accept-schema"),
                drill: rest.contains(&"drill"),
            },
            [answer @ ("approve" | "cancel"), name, rest @ ..] => Command::Answer {
                service: ServiceName::new(*name),
                // `approve shop late`: by a link to a question that is closed.
                question: (rest == ["late"]).then(|| ApprovalId::new("0")),
                word: if *answer == "approve" { Word::Approved } else { Word::Refused },
                why: "seen it".into(),
                via,
            },
            ["unquarantine", name, release] => Command::Unquarantine {
                service: ServiceName::new(*name),
                release: (*release).into(),
                why: "it was the database".into(),
            },
            ["deploying", name, release, commit] => Command::Deploying {
                service: ServiceName::new(*name),
                note: DeployNote {
                    release: (*release).into(),
                    commit: Some((*commit).into()),
                    author: Some("dora".into()),
                    ..DeployNote::default()
                },
            },
            ["extend", name, span] => Command::Extend {
                service: ServiceName::new(*name),
                question: None,
                span: humantime::parse_duration(span).unwrap(),
                why: String::new(),
                via,
            },
            other => panic!("operator {other:?}"),
        };
        self.input(Input::Operator { request: 1, command, by: who.into() });
    }

    fn ids(&self, service: &str) -> Vec<ReplicaId> {
        self.services
            .get(service)
            .map_or_else(Vec::new, |replicas| replicas.iter().map(|r| r.id.clone()).collect())
    }

    /// `explain shop latency_p99 alerts`: what these rows say now; without rows, what is said of the service.
    fn explain(&mut self, service: &str, rows: &[&str]) {
        let seen = self.fleet.snapshot(self.now);
        let Some(shown) = seen.services.into_iter().find(|s| s.name.as_str() == service) else {
            return self.say(format!("{service}: not known"));
        };
        if rows.is_empty() {
            self.say(format!("{service}: {}", shown.sentence));
        }
        for name in rows {
            let row = shown.rows.iter().find(|row| row.rule == *name);
            let row = row.unwrap_or_else(|| panic!("no row {name}"));
            let before = row.baseline.as_ref().map_or(String::new(), |before| format!("; before: {before}"));
            let (answer, value, limit) = (row.answer.name(), &row.value, &row.threshold);
            self.say(format!("{service}: {name} {answer}: {value} (limit: {limit}{before})"));
        }
    }

    fn observation(&self, service: &str) -> Observation {
        Observation {
            service: ServiceName::new(service),
            settings: Arc::new(self.own.get(service).unwrap_or(&self.settings).clone()),
            asked: self.now,
            replicas: self.services.get(service).cloned().unwrap_or_default(),
        }
    }

    fn observed(&mut self, service: &str) {
        let observation = self.observation(service);
        self.input(Input::Observed(observation));
    }

    fn look(&mut self) {
        let look = self.looks();
        self.input(Input::Looked(look));
    }

    fn looks(&self) -> Look {
        self.look_of("")
    }

    fn look_of(&self, engine: &str) -> Look {
        let its = self.services.keys().filter(|s| ServiceName::new(s.as_str()).engine() == engine);
        let services = its.map(|s| self.observation(s)).collect();
        Look { asked: self.now, engine: engine.to_owned(), services, refused: Vec::new(), after_gap: true }
    }

    fn engine_of(&mut self, engine: &str, state: EngineState) {
        self.input(Input::EngineOf { engine: engine.to_owned(), state });
    }

    pub(crate) fn input(&mut self, input: Input) {
        let effects = self.fleet.handle(self.now, input.clone());
        self.tape.push((self.now, input, effects.clone()));
        self.states_changed();
        for effect in effects {
            self.carry_out(effect);
        }
    }

    fn states_changed(&mut self) {
        let states: Vec<_> = self.fleet.states().map(|(name, state)| (name.clone(), state)).collect();
        for (name, state) in states {
            let before = self.states.insert(name.clone(), state);
            if before != Some(state) {
                let before = before.map_or("new", State::name);
                self.say(format!("{name}: {before} -> {}", state.name()));
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Protect { service, release, .. } => {
                if self.shows_keeping {
                    self.say(format!("{service}: keep the specification of {}", release.reference));
                }
                let result = self.scripted("protect").map_or(Ok(()), Err);
                self.input(Input::Protected { service, release: release.id, result });
            }
            Effect::CheckTarget { service, release, .. } => {
                let key = (service.to_string(), release.reference.clone());
                let Some(is) = self.images.get(&key).cloned() else {
                    // Timelines that are about something else have all images at hand.
                    let availability = Availability::Here;
                    return self.input(Input::TargetChecked { service, release: release.id, availability });
                };
                self.say(format!("{service}: check {}: {}", release.reference, is.name()));
                self.input(Input::TargetChecked { service, release: release.id, availability: is });
            }
            // One that nobody has said anything about does not answer.
            Effect::AskSchema { service, release, .. } => {
                if let Some(answer) = self.schemas.get(service.as_str()).cloned() {
                    self.input(Input::SchemaAnswered { service, release, answer });
                }
            }
            Effect::Prepare(request) => {
                self.say(format!("{}: prepare {}", request.service, request.to.reference));
                self.input(Input::Prepared {
                    rollback: request.id,
                    service: request.service,
                    result: Ok(()),
                });
            }
            Effect::Discard { .. } => self.say("discard".into()),
            Effect::Mitigate { id, service, what, .. } => match self.scripted("mitigation").as_deref() {
                // `mitigated` ends it.
                Some("lasts") => self.mitigating = Some((id, service, what)),
                how => self.mitigated(id, service, &what, how),
            },
            Effect::RollBack(request) => self.roll_back(request),
            Effect::RollBackTogether(requests) => {
                let names: Vec<&str> = requests.iter().map(|request| request.service.as_str()).collect();
                self.say(format!("together: {}", names.join(", ")));
                for request in requests {
                    self.roll_back(request);
                }
            }
            Effect::Announce(a) => {
                let fields: Vec<String> = a
                    .fields
                    .iter()
                    .filter(|(k, _)| TOLD.contains(&k.as_str()))
                    .map(|(_, v)| v.clone())
                    .collect();
                self.say(format!("\"{}\" {}", a.title, fields.join(" | ")));
            }
            Effect::Reply { answer, .. } => match answer {
                // The id of a rollback is made of its time; timelines need not know it.
                Ok(said) => self.say(format!("answer: {}", without_id(&said))),
                Err(said) => self.say(format!("refused: {said}")),
            },
            Effect::Unpin { request, service, pin } => {
                let what = match pin {
                    Pin::Variable { variable, .. } => variable,
                    Pin::Override { image, .. } => image,
                };
                let result = Ok(format!("{what} is as it was"));
                self.input(Input::Unpinned { request: Some(request), service, result });
            }
            Effect::Look => self.look(),
            Effect::Observe { service } => self.observed(service.as_str()),
            Effect::Remember(LedgerChange::Forget { release, .. }) => self.say(format!("forget {release}")),
            Effect::Unprotect { release, .. } => self.say(format!("unprotect {}", release.reference)),
            Effect::Remember(_) | Effect::Decided(_) | Effect::Close { .. } => {}
        }
    }

    fn roll_back(&mut self, request: RollbackRequest) {
        let with = if request.downgrade.is_some() { ", and downgrade the database" } else { "" };
        self.say(format!("{}: roll back to {}{with}", request.service, request.to.reference));
        self.check_promises(&request);
        self.begun.push(request.clone());
        let name = request.service.as_str().to_owned();
        let scripted = self.scripted("rollback");
        let mut applied = |notes: Vec<String>, pin: Option<Pin>| {
            let replica = self.replica(&name, &request.to.reference, Duration::ZERO);
            self.services.insert(name.clone(), vec![replica]);
            Executed::Applied { notes, pin, order: None }
        };
        let result = match scripted {
            None => applied(Vec::new(), None),
            Some(how) => match how.split_once(": ").unwrap_or((&how, "")) {
                ("pins", variable) => {
                    let (was, is) = (Some("v2".into()), "v1".into());
                    let pin = Pin::Variable { file: "/srv/.env".into(), variable: variable.into(), was, is };
                    applied(vec![format!("pinned: {variable}")], Some(pin))
                }
                ("unwinds", why) => Executed::Unwound { why: why.into() },
                ("void", newer) => {
                    let replica = self.replica(&name, newer, Duration::ZERO);
                    self.services.insert(name, vec![replica]);
                    Executed::Void { why: format!("{newer} was deployed meanwhile") }
                }
                ("stuck", why) => Executed::Stuck { why: why.into() },
                ("half-way", why) => {
                    applied(Vec::new(), None);
                    Executed::Stuck { why: why.into() }
                }
                ("hangs", _) => return,
                other => panic!("next rollback {other:?}"),
            },
        };
        self.input(Input::Executed { rollback: request.id, service: request.service, result });
    }

    /// What must hold whenever a rollback begins, whatever led to it.
    fn check_promises(&mut self, request: &RollbackRequest) {
        let seen = self.fleet.snapshot(self.now);
        let Some(service) = seen.services.iter().find(|s| s.name == request.service) else { return };
        let target = service.ledger.iter().find(|e| e.release.id == request.to.id);
        if !target.is_some_and(|e| matches!(e.standing, Standing::KnownGood { .. })) {
            self.broken.push(format!("{} is not known-good", request.to));
        }
        if seen.store_error.is_some() {
            self.broken.push("acted without a store".into());
        }
        let window = service.settings.attempts_window;
        let begun = |r: &&RollbackRequest| {
            r.service == request.service && r.decided.is_some_and(|at| self.now.since(at) < window)
        };
        // Attempts count automatic rollbacks; whoever orders or resumes starts the count anew.
        let ordered = self.log.iter().any(|line| line.contains("answer:"));
        if !ordered && self.begun.iter().filter(begun).count() >= service.settings.attempts as usize {
            self.broken.push(format!("more attempts than allowed on {}", request.service));
        }
    }

    fn scripted(&mut self, what: &str) -> Option<String> {
        let at = self.script.iter().position(|(w, _)| w == what)?;
        Some(self.script.remove(at).1)
    }

    fn say(&mut self, what: String) {
        let at = self.now.since(START);
        self.log.push(format!("{:>5}s  {what}", at.as_secs()));
    }
}

/// What the `i`th of `n` repetitions says: `memory shop 40..70` goes from 40 to 70.
fn on_the_way(what: &str, i: u32, n: u32) -> String {
    let number = |word: &str| word.parse::<f64>().ok();
    let word = |word: &str| {
        let ends = word.split_once("..").and_then(|(from, to)| Some((number(from)?, number(to)?)));
        ends.map_or(word.to_owned(), |(from, to)| {
            format!("{:.2}", from + (to - from) * f64::from(i) / f64::from(n.max(2) - 1))
        })
    };
    what.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

fn without_id(said: &str) -> String {
    said.split(' ')
        .filter(|w| !(w.len() == 13 && w.bytes().all(|b| b.is_ascii_hexdigit())))
        .collect::<Vec<_>>()
        .join(" ")
}

fn release(reference: &str) -> Release {
    // One reference, one release: the id is made of its letters, so that timelines can name it.
    let id: String = reference.bytes().map(|b| format!("{b:02x}")).collect::<String>() + "000000000000";
    let from = id.len().saturating_sub(24).min(12);
    Release {
        id: ReleaseId::new(&id[from..from + 12]),
        image: ImageId::new(format!("sha256:{id}")),
        reference: reference.into(),
        digests: Vec::new(),
        fingerprint: id,
        version: None,
    }
}
