//! A fleet to look at, and a daemon's surface around it: the real router on a real port, with a scripted store and core.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use backstop::api::{
    self, ApiState, ConfigState, History, Hosts, JournalLine, Links, NotTaken, Operate, Paperwork,
    PlannedRollback, Tokens,
};
use backstop::clock::Clock;
use backstop::core::availability::{Availability, Gone};
use backstop::core::decision::{Decision, Gate, GateAnswer, Reason, Verdict};
use backstop::core::ledger::{Flags, LedgerEntry, Pause, RollbackOutcome, RollbackRecord, Standing};
use backstop::core::observation::{ContainerHealth, Phase, Refusal, Replica};
use backstop::core::release::{ImageId, Release, ReleaseId, ReplicaId, RollbackId, ServiceName};
use backstop::core::sample::{Measurement, Signal};
use backstop::core::settings::{FleetSettings, HealthCheck, Mode, Rule, ServiceSettings, Severity, Target};
use backstop::core::snapshot::{FleetSnapshot, RowAnswer, RowSnapshot, SampleCounts, ServiceSnapshot, State};
use backstop::core::{Command, EngineState, Input, RollbackRequest, Timestamp};
use backstop::metrics::Metrics;
use backstop::report::checklist::{self, Tick};
use backstop::rollback::drill::{Drill, Point, Readiness};
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) const TOKEN: &str = "correct-horse-battery-staple";

/// What only tells something is let in by this too.
pub(crate) const HOOK_TOKEN: &str = "hook-token-hook-token";

/// What one operator shows, whose own it is.
pub(crate) const CAROLS_TOKEN: &str = "carol-carol-carol-carol";

/// What links are signed with.
pub(crate) const LINK_KEY: [u8; 32] = [7; 32];

/// 2030-01-01T00:00:00Z: ahead of every clock that runs these tests, so the picture never looks old, and answers
/// with its times can be compared as they are.
pub(crate) const NEW_YEAR: Timestamp = Timestamp::from_secs(1_893_456_000);

pub(crate) fn release(reference: &str, digit: char) -> Release {
    let hex = |n| digit.to_string().repeat(n);
    Release {
        id: ReleaseId::new(hex(12)),
        image: ImageId::new(format!("sha256:{}", hex(64))),
        reference: reference.to_owned(),
        digests: vec![],
        fingerprint: hex(64),
        version: None,
    }
}

pub(crate) fn gates(denied: Option<(Gate, &str)>) -> Vec<GateAnswer> {
    Gate::ALL
        .into_iter()
        .map(|gate| match denied {
            Some((no, why)) if no == gate => GateAnswer { gate, allow: false, why: why.to_owned() },
            _ => GateAnswer { gate, allow: true, why: format!("nothing stands against it at `{gate}`") },
        })
        .collect()
}

pub(crate) fn decision(at: Timestamp) -> Decision {
    Decision {
        at,
        service: ServiceName::new("shop"),
        verdict: Verdict::Rollback,
        reason: Reason::HealthFailing {
            check: "health".to_owned(),
            failures: 3,
            over: Duration::from_secs(12),
            threshold: 2,
            sustained: Duration::from_secs(10),
            last: "503 Service Unavailable after 4ms".to_owned(),
        },
        rule: Some("health".to_owned()),
        severity: Severity::Critical,
        from: Some(release("shop:v2", 'b')),
        to: Some(release("shop:v1", 'a')),
        gates: gates(None),
        dry_run: false,
    }
}

pub(crate) fn record(number: u32, at: Timestamp, outcome: RollbackOutcome) -> RollbackRecord {
    let id = RollbackId::new(format!("r{number:04}"));
    let over = outcome.is_over();
    let after = |secs| at + Duration::from_secs(secs);
    RollbackRecord {
        id: id.clone(),
        service: ServiceName::new("shop"),
        environment: "production".to_owned(),
        from: Some(release("shop:v2", 'b')),
        to: release("shop:v1", 'a'),
        decision: decision(at),
        decided_by: "backstop".to_owned(),
        onset: Some(at.before(Duration::from_secs(12))),
        started: at,
        applied: Some(at + Duration::from_millis(1250)),
        ended: over.then(|| after(33)),
        outcome,
        pin: None,
        along: Vec::new(),
        approval: None,
        proof: None,
        order: None,
        request: RollbackRequest {
            id,
            service: ServiceName::new("shop"),
            from: Some(release("shop:v2", 'b').id),
            to: release("shop:v1", 'a'),
            stop_grace: Duration::from_secs(3),
            decided: Some(at),
            vanished: false,
            why: String::new(),
            downgrade: None,
            mitigation: false,
        },
    }
}

/// A service that does well.
pub(crate) fn service(name: &str, at: Timestamp) -> ServiceSnapshot {
    let ago = |secs| at.before(Duration::from_secs(secs));
    let (new, old) = (release(&format!("{name}:v2"), 'b'), release(&format!("{name}:v1"), 'a'));
    let availability = BTreeMap::from([(old.id.clone(), (ago(40), Availability::Here))]);
    ServiceSnapshot {
        name: ServiceName::new(name),
        settings: Arc::new(ServiceSettings {
            checks: BTreeMap::from([(
                "health".to_owned(),
                HealthCheck::get(
                    Target::Replica { port: 8080, path: "/healthz".to_owned() },
                    Duration::from_secs(5),
                    Duration::from_secs(2),
                ),
            )]),
            ..ServiceSettings::default()
        }),
        state: State::Steady,
        since: ago(90_000),
        sentence: format!("{new} is known-good"),
        current: Some(new.clone()),
        deployed: Some(ago(91_000)),
        target: Some(old.clone()),
        downgrade: None,
        replicas: vec![Replica {
            id: ReplicaId::new("c0ffee"),
            name: format!("{name}-1"),
            release: new.clone(),
            created: ago(91_000),
            started: Some(ago(91_000)),
            phase: Phase::Running,
            restart_count: 0,
            restarts: true,
            health: Some(ContainerHealth::Healthy),
            exit_code: None,
            start_error: None,
            address: Some([172, 17, 0, 2].into()),
        }],
        ledger: vec![
            LedgerEntry {
                release: new,
                first_seen: ago(91_000),
                deployed: ago(91_000),
                standing: Standing::KnownGood { since: ago(90_000) },
                note: None,
                gone: None,
                schema: Default::default(),
            },
            LedgerEntry {
                release: old,
                first_seen: ago(800_000),
                deployed: ago(800_000),
                standing: Standing::KnownGood { since: ago(799_000) },
                note: None,
                gone: None,
                schema: Default::default(),
            },
        ],
        availability,
        rows: rows(),
        gates: gates(None),
        last_decision: None,
        rollback: None,
        pin: None,
        window: None,
        flags: Flags::default(),
        samples: vec![(Signal::Health, SampleCounts { healthy: 18_000, unhealthy: 2, error: 1 })],
    }
}

/// The shipped matrix of a service that has a health check, metrics and users, and no logs to read.
fn rows() -> Vec<RowSnapshot> {
    use RowAnswer::{CannotMeasure, NoData, Off, Ok};
    let (ok, quick) = ("200 OK after 3ms", Some("p99 41 ms before the deployment"));
    let seen = |rule: &Rule| match rule.name.as_str() {
        "error_rate" => (Ok, "0.2 % of 8120 requests", "> 5 % for 10m", Some("0.1 % before the deployment")),
        "latency_p99" => (Ok, "p99 44 ms", "> 2x baseline for 10m", quick),
        "latency_degraded" => (Ok, "p99 44 ms", "> 1.5x baseline for 10m", quick),
        "latency_drift" => (NoData, "p99 44 ms", "> 1.2x baseline for 10m", quick),
        "health" => (Ok, ok, "2+ in a row over 10s", None),
        "health_prolonged" => (Ok, ok, "2+ in a row over 5m", None),
        "health_flapping" => (Ok, "0 failures in 5m", "4+ in 5m", None),
        "health_advisory" => (Off, "not configured", "2+ in a row over 1m", None),
        "container_health" => (Off, "no HEALTHCHECK", "unhealthy", None),
        "crash_loop" => (Ok, "0 exits in 5m", "3+ in 5m", None),
        "down" => (Ok, "1 of 1 running", "down for 10s", None),
        "oom" => (Ok, "0 kills in 15m", "2+ in 15m", None),
        "memory" => (CannotMeasure, "no memory limit is set", "> 90 % for 1m", None),
        "memory_leak" => (Off, "not configured", "90 % in 30m", None),
        "cpu_throttling" => (Off, "switched off", "> 50 % for 5m", None),
        "log_errors" => (Off, "not configured", "> 3x baseline for 3m", None),
        "user_reports" => (Ok, "0 in 15m", "3+ in 15m", None),
        "alerts" => (Ok, "none is firing", "1+ firing", None),
        other => panic!("the picture knows nothing of the row {other}"),
    };
    let row = |rule: Rule| {
        let (answer, value, threshold, baseline) = seen(&rule);
        RowSnapshot {
            signal: rule.signal(),
            condition: rule.condition,
            value: value.to_owned(),
            threshold: threshold.to_owned(),
            baseline: baseline.map(str::to_owned),
            samples: if answer == Off { 0 } else { 12 },
            since: None,
            answer,
            action: rule.action,
            severity: rule.severity,
            rule: rule.name,
        }
    };
    Rule::matrix().into_iter().map(row).collect()
}

/// Sets what one row of a service shows.
pub(crate) fn row<'a>(service: &'a mut ServiceSnapshot, rule: &str) -> &'a mut RowSnapshot {
    service.rows.iter_mut().find(|row| row.rule == rule).unwrap()
}

/// A service that is suspected.
pub(crate) fn suspect(at: Timestamp) -> ServiceSnapshot {
    let ago = |secs| at.before(Duration::from_secs(secs));
    let mut shop = service("shop", at);
    shop.state = State::Suspect;
    shop.since = ago(4);
    shop.deployed = Some(ago(200));
    shop.sentence =
        "shop:v2 [bbbbbbbbbbbb]: health check failed 2 times in a row over 4.0s (limit: 2 over 10s); last: 503 Service Unavailable after 4ms".to_owned();
    shop.ledger[0].standing = Standing::Trial;
    shop.ledger[0].deployed = ago(200);
    shop.ledger.push(LedgerEntry {
        release: release("shop:v0-broken", 'd'),
        first_seen: ago(900_000),
        deployed: ago(900_000),
        standing: Standing::Quarantined {
            since: ago(899_000),
            why: "it exited 3 times in 41s (limit: 3); last exit code 1".to_owned(),
        },
        note: None,
        gone: None,
        schema: Default::default(),
    });
    shop.ledger.push(LedgerEntry {
        release: release("shop:v0", 'e'),
        first_seen: ago(1_900_000),
        deployed: ago(1_900_000),
        standing: Standing::KnownGood { since: ago(1_890_000) },
        note: None,
        gone: Some(Gone {
            since: ago(5_000),
            why: "it is not on the engine, and the registry ghcr.io has no such image any more".to_owned(),
        }),
        schema: Default::default(),
    });
    let health = row(&mut shop, "health");
    health.answer = RowAnswer::Pending;
    health.since = Some(ago(4));
    health.value = "2 failures in a row, last: 503 Service Unavailable after 4ms".to_owned();
    shop
}

/// A whole fleet, with everything that can be wrong with it.
pub(crate) fn fleet(at: Timestamp) -> FleetSnapshot {
    let ago = |secs| at.before(Duration::from_secs(secs));
    let mut billing = service("billing", at);
    billing.state = State::Paused;
    billing.sentence = "paused by anna@web1: database migration; next: backstop resume billing".to_owned();
    billing.flags.paused = Some(Pause {
        by: "anna@web1".to_owned(),
        why: "database migration".to_owned(),
        since: ago(600),
        until: None,
    });
    let mut search = service("search", at);
    search.state = State::Stuck;
    search.since = ago(61);
    let why = "the rollback r0007 could not be undone: the name is taken by another container";
    search.sentence =
        format!("a person is needed: {why}; next: backstop explain search, then backstop resume search");
    search.flags.stuck = Some(why.to_owned());
    let mut web = service("web", at);
    web.settings = Arc::new(ServiceSettings { mode: Mode::DryRun, ..ServiceSettings::default() });
    web.state = State::Trial;
    (web.since, web.deployed) = (ago(300), Some(ago(300)));
    web.sentence = "web:v2 [bbbbbbbbbbbb] is on trial for another 10m".to_owned();
    web.target = None;
    web.ledger.truncate(1);
    web.ledger[0].standing = Standing::Trial;
    web.gates = gates(Some((Gate::Target, "no release has proved itself yet")));
    FleetSnapshot {
        at,
        settings: FleetSettings::default(),
        engine: Some(EngineState::Reachable { restarted: false }),
        looked: true,
        engines: Vec::new(),
        store_error: None,
        flags: Flags::default(),
        services: vec![billing, search, suspect(at), web],
        refused: vec![Refusal {
            service: ServiceName::new("cron"),
            container: "cron-1".to_owned(),
            problems: vec![
                "label `backstop.trail=5m` is not known; did you mean `backstop.trial`?".to_owned(),
            ],
        }],
    }
}

/// A scripted store.
#[derive(Debug, Default)]
pub(crate) struct Past {
    pub(crate) rollbacks: Mutex<Vec<RollbackRecord>>,
    pub(crate) failure: Mutex<Option<String>>,
    pub(crate) asked: Mutex<Vec<String>>,
    /// What was ticked off, of whichever rollback.
    pub(crate) ticks: Mutex<Vec<(checklist::Point, Tick)>>,
    /// The last drill.
    pub(crate) drills: Mutex<Vec<Drill>>,
}

impl Past {
    fn well(&self) -> Result<(), String> {
        self.failure.lock().unwrap().clone().map_or(Ok(()), Err)
    }
}

#[async_trait]
impl History for Past {
    async fn rollbacks(
        &self,
        service: Option<&ServiceName>,
        before: Option<&RollbackId>,
        limit: u32,
    ) -> Result<Vec<RollbackRecord>, String> {
        self.well()?;
        let rollbacks = self.rollbacks.lock().unwrap();
        let found = rollbacks.iter().filter(|record| service.is_none_or(|name| *name == record.service));
        let found = found.filter(|record| before.is_none_or(|id| record.id < *id));
        Ok(found.take(limit as usize).cloned().collect())
    }

    async fn rollback(&self, id: &RollbackId) -> Result<Option<RollbackRecord>, String> {
        self.well()?;
        Ok(self.rollbacks.lock().unwrap().iter().find(|record| record.id == *id).cloned())
    }

    async fn journal(&self, id: &RollbackId) -> Result<Vec<JournalLine>, String> {
        self.well()?;
        let line = |ms, what: &str| JournalLine {
            at: NEW_YEAR + Duration::from_millis(ms),
            what: format!("{id}: {what}"),
        };
        Ok(vec![line(0, "stop shop-1 (at most 3s)"), line(412, "start shop-1-r0001")])
    }

    async fn incident(&self, id: &RollbackId) -> Result<Option<backstop::report::Incident>, String> {
        self.well()?;
        let record = self.rollbacks.lock().unwrap().iter().find(|record| record.id == *id).cloned();
        let ticks = self.ticks.lock().unwrap().clone();
        Ok(record.map(|record| {
            backstop::report::incident(backstop::report::Sources { ticks, ..crate::incident::kept(record) })
        }))
    }

    async fn decisions(&self, service: &ServiceName, limit: u32) -> Result<Vec<Decision>, String> {
        self.well()?;
        self.asked.lock().unwrap().push(format!("decisions of {service}, {limit}"));
        Ok(vec![decision(NEW_YEAR)])
    }

    async fn drills(&self) -> Result<Vec<Drill>, String> {
        self.well()?;
        Ok(self.drills.lock().unwrap().clone())
    }
}

#[async_trait]
impl Paperwork for Past {
    async fn tick(&self, _: &RollbackId, point: checklist::Point, tick: Tick) -> Result<(), String> {
        self.well()?;
        self.ticks.lock().unwrap().push((point, tick));
        Ok(())
    }

    async fn untick(
        &self,
        _: &RollbackId,
        point: checklist::Point,
        by: &str,
        _: Timestamp,
    ) -> Result<(), String> {
        self.well()?;
        self.asked.lock().unwrap().push(format!("untick {point} by {by}"));
        self.ticks.lock().unwrap().retain(|(of, _)| *of != point);
        Ok(())
    }

    async fn drilled(&self, drill: &Drill) -> Result<(), String> {
        self.well()?;
        *self.drills.lock().unwrap() = vec![drill.clone()];
        Ok(())
    }
}

/// A scripted core: remembers what it was asked, and answers as it was told.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) commands: Mutex<Vec<(Command, String)>>,
    pub(crate) answer: Mutex<Result<String, String>>,
    /// What a rollback command puts on record.
    pub(crate) past: Arc<Past>,
    pub(crate) then: Mutex<Vec<RollbackRecord>>,
    pub(crate) samples: Mutex<Vec<Input>>,
    /// Whether a drill finds that nothing is missing.
    pub(crate) ready: AtomicBool,
    /// Why it takes no samples, if it does not.
    pub(crate) full: Mutex<Option<NotTaken>>,
    /// Counts reports as the core does: by their reporters.
    pub(crate) fleet: watch::Sender<Arc<FleetSnapshot>>,
}

impl Core {
    /// Publishes a picture with the reports in it.
    fn count_reports(&self, samples: &[Input]) {
        let mut fleet = FleetSnapshot::clone(&self.fleet.borrow());
        for service in &mut fleet.services {
            let reporters: BTreeSet<&str> = samples
                .iter()
                .filter_map(|input| match input {
                    Input::Sampled {
                        service: about,
                        measurement: Measurement::Report { reporter, .. },
                        ..
                    } if *about == service.name => Some(reporter.as_str()),
                    _ => None,
                })
                .collect();
            row(service, "user_reports").samples = u32::try_from(reporters.len()).unwrap();
            if !reporters.is_empty() {
                let counts = SampleCounts { unhealthy: samples.len() as u64, ..SampleCounts::default() };
                service.samples.retain(|(signal, _)| *signal != Signal::Reports);
                service.samples.push((Signal::Reports, counts));
            }
        }
        self.fleet.send_replace(Arc::new(fleet));
    }
}

#[async_trait]
impl Operate for Core {
    async fn command(&self, command: Command, by: String) -> Result<String, String> {
        self.commands.lock().unwrap().push((command, by));
        for record in self.then.lock().unwrap().drain(..) {
            self.past.rollbacks.lock().unwrap().insert(0, record);
        }
        self.answer.lock().unwrap().clone()
    }

    async fn drill(&self, service: &ServiceName) -> Result<Drill, String> {
        let mut points =
            vec![Point::new("the target", Readiness::Ready, "shop:v1 [aaaaaaaaaaaa] is known-good")];
        if !self.ready.load(Ordering::Relaxed) {
            points.push(Point::new("announcements", Readiness::Missing, "no channel is configured"));
        }
        Ok(Drill { service: service.clone(), at: NEW_YEAR, points, estimate: Some(Duration::from_secs(5)) })
    }

    async fn plan(&self, service: &ServiceName, to: Option<&str>) -> Result<PlannedRollback, String> {
        match to {
            Some("panic") => panic!("as asked"),
            Some("shop:v9") => Err(format!("`{service}` never ran `shop:v9`")),
            Some("shop:v1") | None => Ok(PlannedRollback {
                from: Some(release("shop:v2", 'b')),
                to: release("shop:v1", 'a'),
                steps: vec![
                    "create shop-1-r0001 from the specification of shop:v1 [aaaaaaaaaaaa]".to_owned(),
                    "stop shop-1 (SIGTERM, at most 3s)".to_owned(),
                    "start it under the name shop-1".to_owned(),
                ],
                notes: vec!["the anonymous volume of /cache is carried over".to_owned()],
                order: Some("stop-first: it publishes ports".to_owned()),
            }),
            Some(other) => Err(format!("unexpected: {other}")),
        }
    }

    async fn acknowledge(&self, service: &ServiceName, by: String, why: String) -> Result<String, String> {
        match why.as_str() {
            "nothing" => Err(format!("nothing is the matter with {service}; next: backstop status")),
            why => Ok(format!("{by} took on {service}: {why}")),
        }
    }

    fn sampled(&self, samples: Vec<Input>) -> Result<(), NotTaken> {
        if let Some(why) = *self.full.lock().unwrap() {
            return Err(why);
        }
        let mut taken = self.samples.lock().unwrap();
        taken.extend(samples);
        self.count_reports(&taken);
        Ok(())
    }
}

/// A surface that serves on a port of its own until it is dropped.
#[derive(Debug)]
pub(crate) struct Surface {
    pub(crate) url: String,
    pub(crate) fleet: watch::Sender<Arc<FleetSnapshot>>,
    pub(crate) tokens: watch::Sender<Tokens>,
    pub(crate) config: watch::Sender<ConfigState>,
    pub(crate) past: Arc<Past>,
    pub(crate) core: Arc<Core>,
    pub(crate) metrics: Metrics,
    stop: CancellationToken,
}

impl Surface {
    pub(crate) async fn start(picture: FleetSnapshot) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let past = Arc::new(Past::default());
        let (fleet, snapshot) = watch::channel(Arc::new(picture));
        let core = Arc::new(Core {
            commands: Mutex::default(),
            answer: Mutex::new(Ok("done".to_owned())),
            past: past.clone(),
            then: Mutex::default(),
            samples: Mutex::default(),
            full: Mutex::default(),
            ready: AtomicBool::default(),
            fleet: fleet.clone(),
        });
        let metrics = Metrics::new();
        let (tokens, tokens_seen) = watch::channel(Tokens {
            operators: Some(SecretString::from(TOKEN)),
            people: BTreeMap::from([("carol".to_owned(), SecretString::from(CAROLS_TOKEN))]),
            hooks: Some(SecretString::from(HOOK_TOKEN)),
        });
        let (config, config_seen) =
            watch::channel(ConfigState { last_reload_ok: true, error: None, loaded_at: NEW_YEAR });
        let state = ApiState {
            snapshot,
            history: past.clone(),
            paperwork: past.clone(),
            operate: core.clone(),
            metrics: metrics.clone(),
            clock: Clock::start(),
            tokens: tokens_seen,
            config: config_seen,
            links: Some(Links::with_key(LINK_KEY)),
            hosts: Hosts::of_listener(address),
        };
        let stop = CancellationToken::new();
        tokio::spawn(api::serve(listener, state, stop.clone()));
        Self { url: format!("http://{address}"), fleet, tokens, config, past, core, metrics, stop }
    }
}

impl Drop for Surface {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
