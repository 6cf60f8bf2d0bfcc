//! Our own metrics: a struct handed down, no statics.
//!
//! Gauges about services are taken from the published snapshot; counters are counted where things happen. Labels
//! come from closed sets and the names of services that are watched now: a service that goes takes its series
//! with it, so their number is bounded by the fleet.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::proto::MetricFamily;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

use crate::core::decision::{Decision, Gate, Verdict};
use crate::core::ledger::RollbackRecord;
use crate::core::sample::Signal;
use crate::core::snapshot::{FleetSnapshot, RowAnswer, SampleCounts, ServiceSnapshot, State};
use crate::core::{EngineState, Timestamp};
use crate::rollback::drill::Drill;

/// Buckets of the time that users feel: a restart takes about a second, a stop with the engine's default grace
/// ten, a fetched image minutes.
const APPLIED_BUCKETS: [f64; 12] = [0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 30.0, 60.0, 120.0, 300.0];

/// Buckets of a whole rollback with its verification: 30 s of passing is the default.
const ROLLBACK_BUCKETS: [f64; 10] = [5.0, 15.0, 30.0, 45.0, 60.0, 90.0, 120.0, 300.0, 600.0, 1800.0];

/// Buckets of one turn of the core: tens of microseconds, unless something is wrong.
const TURN_BUCKETS: [f64; 9] = [0.000_05, 0.000_1, 0.000_25, 0.001, 0.005, 0.025, 0.1, 0.5, 2.5];

/// Reasons of decisions, as in `Reason::kind`.
const REASONS: [&str; 17] = [
    "error_rate",
    "latency",
    "health_flapping",
    "memory_leak",
    "cpu_throttled",
    "log_errors",
    "user_reports",
    "alert_firing",
    "health_failing",
    "container_unhealthy",
    "crash_loop",
    "down",
    "out_of_memory",
    "memory_high",
    "refused",
    "operator",
    "target_failed",
];

/// Outcomes of rollbacks that are over, as in `RollbackOutcome::name`.
const OUTCOMES: [&str; 6] = ["verified", "not_verified", "unwound", "void", "superseded", "stuck"];

/// Outcomes of samples: an error is neither good nor bad.
const SAMPLES: [&str; 3] = ["healthy", "unhealthy", "error"];

/// Outcomes of attempts to deliver an announcement.
const DELIVERIES: [&str; 4] = ["delivered", "retried", "abandoned", "no_channel"];

/// What became of an alert that was sent to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertOutcome {
    /// It is about a watched service.
    Matched,
    /// It is about none.
    Unmatched,
    /// There were too many in one notification.
    LeftOut,
    /// The core did not take it; the sender sends it again.
    Refused,
}

impl AlertOutcome {
    const ALL: [Self; 4] = [Self::Matched, Self::Unmatched, Self::LeftOut, Self::Refused];

    const fn name(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Unmatched => "unmatched",
            Self::LeftOut => "left_out",
            Self::Refused => "refused",
        }
    }
}

/// What became of a report of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportOutcome {
    /// The core has it.
    Accepted,
    /// It was not understood, or is about no watched service.
    Invalid,
    /// There were too many.
    Limited,
    /// The core did not take it.
    Busy,
}

impl ReportOutcome {
    const ALL: [Self; 4] = [Self::Accepted, Self::Invalid, Self::Limited, Self::Busy];

    const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Invalid => "invalid",
            Self::Limited => "limited",
            Self::Busy => "busy",
        }
    }
}

/// All metrics of the daemon. Cheap to clone: clones count into the same metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    service_state: GaugeVec,
    readiness: GaugeVec,
    no_target: GaugeVec,
    targets: GaugeVec,
    refused: IntGauge,
    deployments: IntCounterVec,
    samples: IntCounterVec,
    decisions: IntCounterVec,
    gates: IntCounterVec,
    rollbacks: IntCounterVec,
    rollback_duration: Histogram,
    decision_to_applied: Histogram,
    onset_to_applied: Histogram,
    announcements: IntCounterVec,
    outbox: IntGauge,
    store_up: IntGauge,
    store_errors: IntCounter,
    engine_up: GaugeVec,
    reconnects: IntCounterVec,
    paused: IntGauge,
    breaker: IntGauge,
    turn: Histogram,
    last_turn: Gauge,
    dropped: IntCounter,
    unrecorded: IntCounter,
    reload_ok: IntGauge,
    reload_at: Gauge,
    token_refused: IntCounter,
    row: GaugeVec,
    alerts: IntCounterVec,
    malformed: IntCounter,
    reports: IntCounterVec,
    seen: Arc<Mutex<Seen>>,
}

/// What the last snapshot held: counters grow by differences, and what is gone is taken away.
#[derive(Debug, Default)]
struct Seen {
    first_done: bool,
    engines_down: BTreeSet<String>,
    services: BTreeMap<String, SeenService>,
}

/// What the last snapshot held of a service. What stayed the same is not written again: at a thousand services that is
/// nearly everything.
#[derive(Debug, Default)]
struct SeenService {
    deployed: Option<Timestamp>,
    samples: BTreeMap<Signal, SampleCounts>,
    rows: BTreeMap<String, f64>,
}

impl Metrics {
    /// All metrics at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let made = Maker(&registry);
        let metrics = Self {
            readiness: made.gauges("drill_readiness_ratio", "How ready a service was for a rollback in its last drill, from 0 to 1.", &["service"]),
            service_state: made.gauges("service_state", "State of a watched service: 1 for the state it is in, 0 for the others.", &["service", "state"]),
            no_target: made.gauges("service_no_rollback_target", "Whether there is no release that a service could be rolled back to: 1 means that a rollback is impossible.", &["service"]),
            targets: made.gauges("service_targets", "Known-good releases that a service could be rolled back to, by whether their images can be had.", &["service", "availability"]),
            refused: made.number("services_refused", "Services that asked to be watched and cannot be; the status says why."),
            deployments: made.counters("deployments_total", "Deployments of a service seen by Backstop, whoever made them; its own rollbacks not counted.", &["service"]),
            samples: made.counters("samples_total", "Samples of a service's signals: good, bad, or not measurable.", &["service", "signal", "outcome"]),
            decisions: made.counters("decisions_total", "Decisions about a service by what follows and why.", &["service", "verdict", "reason"]),
            gates: made.counters("gate_answers_total", "Answers of the gates that were asked before a rollback.", &["gate", "answer"]),
            rollbacks: made.counters("rollbacks_total", "Rollbacks of a service that are over, by how they ended.", &["service", "outcome"]),
            rollback_duration: made.histogram("rollback_duration_seconds", "Time from the decision to roll back until the rollback was over.", &ROLLBACK_BUCKETS),
            decision_to_applied: made.histogram("rollback_decision_to_applied_seconds", "Time from the decision to roll back until the target had been started.", &APPLIED_BUCKETS),
            onset_to_applied: made.histogram("rollback_onset_to_applied_seconds", "Time from the first bad sample until the target of the rollback had been started.", &APPLIED_BUCKETS),
            announcements: made.counters("announcements_total", "Attempts to deliver an announcement, by channel and how they ended.", &["channel", "outcome"]),
            outbox: made.number("outbox_announcements", "Announcements that wait to be delivered."),
            store_up: made.number("store_up", "Whether the store takes writes; while it does not, no service is changed."),
            store_errors: made.counter("store_errors_total", "Reads and writes that the store failed."),
            engine_up: made.gauges("engine_up", "Whether a container engine answers. The default one has an empty name.", &["engine"]),
            reconnects: made.counters("engine_reconnects_total", "Times that an engine answered again after it had not.", &["engine"]),
            paused: made.number("fleet_paused", "Whether the whole fleet is paused by an operator."),
            breaker: made.number("fleet_breaker_tripped", "Whether too many rollbacks stopped all automatic ones until somebody resumes them."),
            turn: made.histogram("core_turn_duration_seconds", "Time that one turn of the core took.", &TURN_BUCKETS),
            last_turn: made.gauge("core_last_turn_timestamp_seconds", "When the core last turned, in seconds since the Unix epoch."),
            dropped: made.counter("inputs_dropped_total", "Inputs that were dropped because the core's queue was full."),
            unrecorded: made.counter("flight_turns_lost_total", "Turns of the core missing in the flight record: its queue was full, or the disk could not be written to."),
            reload_ok: made.number("config_last_reload_successful", "Whether the last load of the configuration was good; if not, the one before it is in force."),
            reload_at: made.gauge("config_last_reload_success_timestamp_seconds", "When the configuration in force was loaded, in seconds since the Unix epoch."),
            token_refused: made.counter("api_tokens_refused_total", "Requests refused for a missing or wrong token."),
            row: made.gauges("service_row_answer", "Answer of a row of a service's decision matrix: 0 ok, 1 pending, 2 breached, -1 no data, -2 cannot measure. A row that is off has no series.", &["service", "row"]),
            alerts: made.counters("alerts_received_total", "Alerts received at /hooks/alertmanager: about a watched service, about none, too many in one notification, or refused because the core was too busy.", &["outcome"]),
            malformed: made.counter("alert_notifications_malformed_total", "Notifications at /hooks/alertmanager that were not understood."),
            reports: made.counters("reports_received_total", "Reports of users: accepted, invalid, more than the limits let through, or refused because the core was too busy.", &["outcome"]),
            seen: Arc::default(),
            registry: registry.clone(),
        };
        made.gauges("build_info", "Always 1; the label is the version of Backstop.", &["version"])
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1.0);
        metrics.known_series();
        metrics
    }

    /// Takes a published snapshot over: states, targets, samples, deployments, engine, store.
    pub fn observe(&self, fleet: &FleetSnapshot) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        self.last_turn.set(unix(fleet.at));
        self.refused.set(count(fleet.refused.len()));
        self.store_up.set(i64::from(fleet.store_error.is_none()));
        self.paused.set(i64::from(fleet.flags.paused.is_some()));
        self.breaker.set(i64::from(fleet.flags.stuck.is_some()));
        self.engine("", fleet.engine.as_ref(), &mut seen);
        for engine in &fleet.engines {
            self.engine(&engine.name, engine.state.as_ref(), &mut seen);
        }
        for service in &fleet.services {
            self.service(service, &mut seen);
        }
        let now: BTreeSet<&str> = fleet.services.iter().map(|service| service.name.as_str()).collect();
        if seen.services.keys().any(|name| !now.contains(name.as_str())) {
            seen.services.retain(|name, _| now.contains(name.as_str()));
            self.forget_all_but(&now);
        }
        // The services of the first look were deployed before we came.
        seen.first_done |= fleet.engine.is_some();
    }

    /// Engines are named in the configuration, and stay for as long as the process does.
    fn engine(&self, name: &str, state: Option<&EngineState>, seen: &mut Seen) {
        let up = matches!(state, Some(EngineState::Reachable { .. }));
        self.engine_up.with_label_values(&[name]).set(f64::from(u8::from(up)));
        let reconnects = self.reconnects.with_label_values(&[name]);
        if up && seen.engines_down.contains(name) {
            reconnects.inc();
        }
        if matches!(state, Some(EngineState::Unreachable { .. })) {
            seen.engines_down.insert(name.to_owned());
        } else {
            seen.engines_down.remove(name);
        }
    }

    /// Counts a decision and the answers of its gates.
    pub fn decided(&self, decision: &Decision) {
        let labels = [decision.service.as_str(), decision.verdict.name(), decision.reason.kind()];
        self.decisions.with_label_values(&labels).inc();
        for answer in &decision.gates {
            let said = if answer.allow { "allow" } else { "deny" };
            self.gates.with_label_values(&[answer.gate.name(), said]).inc();
        }
    }

    /// Counts a rollback that has just ended. Call it once for each; one that goes on is not counted.
    pub fn rollback_ended(&self, record: &RollbackRecord) {
        if !record.outcome.is_over() {
            return;
        }
        let labels = [record.service.as_str(), record.outcome.name()];
        self.rollbacks.with_label_values(&labels).inc();
        if let Some(ended) = record.ended {
            self.rollback_duration.observe(ended.since(record.started).as_secs_f64());
        }
        if let Some(applied) = record.applied {
            self.decision_to_applied.observe(applied.since(record.started).as_secs_f64());
            if let Some(onset) = record.onset {
                self.onset_to_applied.observe(applied.since(onset).as_secs_f64());
            }
        }
    }

    /// Counts an attempt to deliver an announcement: `delivered`, `retried`, `abandoned`, or `no_channel` if
    /// there is nowhere to deliver it. The channel is empty where it is of none.
    pub fn announcement(&self, channel: &str, outcome: &'static str) {
        self.announcements.with_label_values(&[channel, outcome]).inc();
    }

    /// Shows every configured channel, also one that nothing went to yet.
    pub fn channels<'a>(&self, names: impl Iterator<Item = &'a str>) {
        for name in names {
            for outcome in ["delivered", "retried", "abandoned"] {
                self.announcements.with_label_values(&[name, outcome]);
            }
        }
    }

    /// Says how many announcements wait to be delivered.
    pub fn outbox_depth(&self, waiting: usize) {
        self.outbox.set(count(waiting));
    }

    /// Counts a read or write that the store failed.
    pub fn store_error(&self) {
        self.store_errors.inc();
    }

    /// Counts a turn of the core, with the time that it took.
    pub fn turned(&self, took: Duration) {
        self.turn.observe(took.as_secs_f64());
    }

    /// Counts an input that was dropped.
    pub fn input_dropped(&self) {
        self.dropped.inc();
    }

    /// Says how many turns are missing in the flight record since the start.
    pub fn unrecorded(&self, turns: u64) {
        self.unrecorded.inc_by(turns.saturating_sub(self.unrecorded.get()));
    }

    /// Says what a drill found.
    pub fn drilled(&self, drill: &Drill) {
        self.readiness.with_label_values(&[drill.service.as_str()]).set(drill.score());
    }

    /// Says how the last load of the configuration went.
    pub fn config_loaded(&self, ok: bool, at: Timestamp) {
        self.reload_ok.set(i64::from(ok));
        if ok {
            self.reload_at.set(unix(at));
        }
    }

    /// Counts alerts that were sent to us.
    pub fn alerts(&self, outcome: AlertOutcome, alerts: usize) {
        self.alerts.with_label_values(&[outcome.name()]).inc_by(alerts as u64);
    }

    /// Counts a notification of alerts that was not understood.
    pub fn notification_malformed(&self) {
        self.malformed.inc();
    }

    /// Counts a report of a user.
    pub fn report(&self, outcome: ReportOutcome) {
        self.reports.with_label_values(&[outcome.name()]).inc();
    }

    /// Counts a request that came without the right token.
    pub fn token_refused(&self) {
        self.token_refused.inc();
    }

    /// Everything in Prometheus' text format 0.0.4.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => String::from_utf8(text).unwrap_or_default(),
            // Writing into memory cannot fail; what can is a family without a metric, which is left out.
            Err(_) => String::new(),
        }
    }

    /// What is known before anything happens stands at zero: a counter that appears with its first event is
    /// invisible to `rate()` just then.
    fn known_series(&self) {
        for gate in Gate::ALL {
            for answer in ["allow", "deny"] {
                self.gates.with_label_values(&[gate.name(), answer]);
            }
        }
        for outcome in DELIVERIES {
            self.announcements.with_label_values(&["", outcome]);
        }
        for outcome in AlertOutcome::ALL {
            self.alerts.with_label_values(&[outcome.name()]);
        }
        for outcome in ReportOutcome::ALL {
            self.reports.with_label_values(&[outcome.name()]);
        }
    }

    fn service(&self, service: &ServiceSnapshot, seen: &mut Seen) {
        let name = service.name.as_str();
        let known = seen.services.get(name).map(|before| before.deployed);
        if known.is_none() {
            self.create_series(name);
        }
        let is_new = match known {
            Some(deployed) => deployed < service.deployed,
            None => seen.first_done,
        };
        let by_us = matches!(service.state, State::RollingBack | State::Verifying);
        if is_new && !by_us {
            self.deployments.with_label_values(&[name]).inc();
        }
        for state in State::ALL {
            let is = f64::from(u8::from(state == service.state));
            self.service_state.with_label_values(&[name, state.name()]).set(is);
        }
        self.no_target.with_label_values(&[name]).set(f64::from(u8::from(service.target.is_none())));
        for availability in ["here", "registry", "missing", "gone", "unknown"] {
            let of = service.availability.values().filter(|(_, is)| is.name() == availability).count();
            self.targets.with_label_values(&[name, availability]).set(of as f64);
        }
        let before = seen.services.entry(name.to_owned()).or_default();
        before.deployed = service.deployed;
        self.sampled(service, &mut before.samples);
        self.answered(service, &mut before.rows);
    }

    /// Counts samples on. A signal that no row judges and that was never measured has no series.
    fn sampled(&self, service: &ServiceSnapshot, before: &mut BTreeMap<Signal, SampleCounts>) {
        let is_judged =
            |signal| service.rows.iter().any(|row| row.signal == signal && number(row.answer).is_some());
        for (signal, counts) in &service.samples {
            let is_idle = *counts == SampleCounts::default() && !is_judged(*signal);
            if before.get(signal) == Some(counts) || (is_idle && !before.contains_key(signal)) {
                continue;
            }
            before.insert(*signal, *counts);
            let now = [counts.healthy, counts.unhealthy, counts.error];
            for (outcome, now) in SAMPLES.into_iter().zip(now) {
                let labels = [service.name.as_str(), signal.name(), outcome];
                let counter = self.samples.with_label_values(&labels);
                // A service that went and came back counts anew, as a restarted process does.
                if now < counter.get() {
                    counter.reset();
                }
                counter.inc_by(now - counter.get());
            }
        }
    }

    /// Shows what each row answers.
    fn answered(&self, service: &ServiceSnapshot, before: &mut BTreeMap<String, f64>) {
        let name = service.name.as_str();
        let mut on = 0;
        for row in &service.rows {
            let Some(answer) = number(row.answer) else { continue };
            on += 1;
            if before.get(&row.rule) != Some(&answer) {
                self.row.with_label_values(&[name, &row.rule]).set(answer);
                before.insert(row.rule.clone(), answer);
            }
        }
        if before.len() > on {
            let is_on =
                |rule: &str| service.rows.iter().any(|row| row.rule == rule && number(row.answer).is_some());
            before.retain(|rule, _| {
                let stays = is_on(rule);
                if !stays {
                    // It is an error if there is no such series: then there is nothing to do.
                    let _ = self.row.remove_label_values(&[name, rule]);
                }
                stays
            });
        }
    }

    /// Creates the series of a service whose labels are known before anything happens.
    fn create_series(&self, service: &str) {
        self.deployments.with_label_values(&[service]);
        for verdict in [Verdict::Rollback, Verdict::Evaluate, Verdict::Hold] {
            for reason in REASONS {
                self.decisions.with_label_values(&[service, verdict.name(), reason]);
            }
        }
        for outcome in OUTCOMES {
            self.rollbacks.with_label_values(&[service, outcome]);
        }
    }

    /// Takes away the series of all services but these.
    fn forget_all_but(&self, services: &BTreeSet<&str>) {
        for counters in [&self.deployments, &self.samples, &self.decisions, &self.rollbacks] {
            forget(counters, services);
        }
        for gauges in [&self.service_state, &self.readiness, &self.no_target, &self.targets, &self.row] {
            forget(gauges, services);
        }
    }
}

/// Takes away the series of all services but these from one family. By what is there, not by what should be: a reason
/// or a row that nobody thought of must not stay for ever.
fn forget<T: MetricVecBuilder>(family: &MetricVec<T>, services: &BTreeSet<&str>) {
    for metric in family.collect().iter().flat_map(MetricFamily::get_metric) {
        let labels: HashMap<&str, &str> =
            metric.get_label().iter().map(|label| (label.name(), label.value())).collect();
        if labels.get("service").is_some_and(|service| !services.contains(service)) {
            // It is there: we have just seen it.
            let _ = family.remove(&labels);
        }
    }
}

/// A row's answer as a number; none if the row is off.
const fn number(answer: RowAnswer) -> Option<f64> {
    match answer {
        RowAnswer::Ok => Some(0.0),
        RowAnswer::Pending => Some(1.0),
        RowAnswer::Breached => Some(2.0),
        RowAnswer::NoData => Some(-1.0),
        RowAnswer::CannotMeasure => Some(-2.0),
        RowAnswer::Off => None,
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Makes and registers metrics under the prefix `backstop`.
struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn keep<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let metric = made.expect("names, labels and buckets are constants that a test creates");
        self.0
            .register(Box::new(metric.clone()))
            .expect("each name is registered once; a test creates them all");
        metric
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.keep(IntCounter::with_opts(opts(name, help)))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.keep(IntCounterVec::new(opts(name, help), labels))
    }

    fn number(&self, name: &str, help: &str) -> IntGauge {
        self.keep(IntGauge::with_opts(opts(name, help)))
    }

    fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.keep(Gauge::with_opts(opts(name, help)))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.keep(GaugeVec::new(opts(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let opts = HistogramOpts::new(name, help).namespace("backstop").buckets(buckets.to_vec());
        self.keep(Histogram::with_opts(opts))
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("backstop")
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn unix(at: Timestamp) -> f64 {
    at.as_millis() as f64 / 1000.0
}
