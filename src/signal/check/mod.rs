//! Checks of every kind: HTTP in one or more steps, TCP, gRPC's health protocol, a command in the replica.
//!
//! Whose fault it is decides what a check says. What the service does wrong is a failed check: it refuses, resets,
//! hangs, fails the TLS handshake, or answers something else than it should. What we cannot do is no measurement: no
//! address to ask, a name that our resolver does not know, a secret that cannot be read, no file handles left, an
//! engine that cannot run a command.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::Probe;
use crate::clock::Clock;
use crate::core::Timestamp;
use crate::core::release::ReplicaId;
use crate::core::sample::{Measurement, Signal};
use crate::core::settings::{CheckKind, HealthCheck, HttpStep};
use crate::core::time::human;

mod fault;
pub mod json_path;
mod template;
mod answer;
mod http;
pub mod tcp;
pub mod grpc;
mod command;

pub use command::{CommandRunner, Ran};

/// What all checks are made with.
#[derive(Debug, Clone)]
pub struct CheckTools {
    /// For commands in replicas.
    pub commands: Arc<dyn CommandRunner>,
    /// Tells how long it took.
    pub clock: Clock,
}

/// Makes one check again and again.
#[derive(Debug)]
pub struct CheckProbe {
    signal: Signal,
    timeout: Duration,
    /// How, or why that is impossible.
    way: Result<Way, String>,
    clock: Clock,
}

#[derive(Debug)]
enum Way {
    Http(http::Steps),
    Tcp(tcp::Knock),
    Grpc(grpc::Health),
    Command(command::Command),
}

impl CheckProbe {
    /// A probe that makes `check` and reports it as `signal`. The replica, and its own address if it has one, are
    /// needed only by checks that are made of replicas.
    pub fn new(
        tools: &CheckTools,
        signal: Signal,
        check: &HealthCheck,
        replica: Option<(&ReplicaId, Option<IpAddr>)>,
    ) -> Self {
        let address = replica.and_then(|(_, address)| address);
        let way = match &check.kind {
            CheckKind::Http(steps) => http::Steps::new(steps, address).map(Way::Http),
            CheckKind::Tcp(target) => tcp::Knock::new(target, address).map(Way::Tcp),
            CheckKind::Grpc { target, service, tls } => {
                grpc::Health::new(target, service, tls, address).map(Way::Grpc)
            }
            CheckKind::Command(words) => {
                command::Command::new(Arc::clone(&tools.commands), replica.map(|(id, _)| id), words)
                    .map(Way::Command)
            }
        };
        Self { signal, timeout: check.timeout, way, clock: tools.clock }
    }

    async fn check(&self) -> Measurement {
        let course = Course::new(self.clock, self.timeout);
        let made = async {
            match &self.way {
                Ok(Way::Http(steps)) => steps.make(&course).await,
                Ok(Way::Tcp(knock)) => knock.make(&course).await,
                Ok(Way::Grpc(health)) => health.make(&course).await,
                Ok(Way::Command(command)) => command.make(&course).await,
                Err(why) => unavailable(why.clone()),
            }
        };
        // One time for all of it: steps, redirects, bodies.
        tokio::time::timeout(self.timeout, made).await.unwrap_or_else(|_| course.out_of_time())
    }
}

#[async_trait]
impl Probe for CheckProbe {
    async fn measure(&self) -> Vec<(Signal, Measurement)> {
        vec![(self.signal, self.check().await)]
    }
}

/// Makes requests once, one after the other, as a check would; values are what stands for names in double braces.
///
/// # Errors
/// What one of them answered instead, or why it could not be made.
pub async fn request_once(
    steps: &[HttpStep],
    values: BTreeMap<String, String>,
    timeout: Duration,
    clock: Clock,
) -> Result<String, String> {
    let steps = http::Steps::knowing(steps, None, values)?;
    let course = Course::new(clock, timeout);
    let made = tokio::time::timeout(timeout, steps.make(&course)).await;
    match made.unwrap_or_else(|_| course.out_of_time()) {
        Measurement::Check { ok: true, detail, .. } => Ok(detail),
        Measurement::Check { ok: false, detail, .. } => Err(detail),
        Measurement::Unavailable { why } => Err(why),
        Measurement::NotApplicable { .. }
        | Measurement::Level { .. }
        | Measurement::Share { .. }
        | Measurement::Requests(_)
        | Measurement::Count { .. }
        | Measurement::Report { .. }
        | Measurement::Alert { .. } => Err("it answered what no check does".into()),
    }
}

fn unavailable(why: impl Into<String>) -> Measurement {
    Measurement::Unavailable { why: why.into() }
}

/// One check under way: knows its time, and what is to be said if that runs out just now.
#[derive(Debug)]
struct Course {
    clock: Clock,
    started: Timestamp,
    timeout: Duration,
    stage: Mutex<Stage>,
}

#[derive(Debug)]
struct Stage {
    /// What every word begins with: which step it is, where there are several.
    context: String,
    /// When the step began.
    began: Timestamp,
    late: Late,
}

/// What it means if the time runs out.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Late {
    /// The service let us wait: a failed check with these words, or "no answer".
    Theirs(Option<String>),
    /// Our own resolver, disk or engine did.
    Ours(String),
}

impl Course {
    fn new(clock: Clock, timeout: Duration) -> Self {
        let started = clock.now();
        let stage = Stage { context: String::new(), began: started, late: Late::Theirs(None) };
        Self { clock, started, timeout, stage: Mutex::new(stage) }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        // It holds words only: they are still good if somebody panicked meanwhile.
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new step begins.
    fn step(&self, context: String) {
        *self.stage() = Stage { context, began: self.clock.now(), late: Late::Theirs(None) };
    }

    /// From here on, this is said if the time runs out.
    fn late(&self, late: Late) {
        self.stage().late = late;
    }

    /// The time that is left.
    fn left(&self) -> Duration {
        self.timeout.saturating_sub(self.clock.now().since(self.started))
    }

    /// What was seen, and how long after the step began.
    fn after(&self, what: &str) -> String {
        let elapsed = self.clock.now().since(self.stage().began);
        // Nothing takes no time: "after 0s" reads like a fault of ours.
        format!("{what} after {}", human(elapsed.max(Duration::from_millis(1))))
    }

    /// The check passed.
    fn passed(&self, detail: String) -> Measurement {
        Measurement::Check { ok: true, detail, latency: self.clock.now().since(self.started) }
    }

    /// The service failed it.
    fn failed(&self, what: &str) -> Measurement {
        let detail = format!("{}{what}", self.stage().context);
        Measurement::Check { ok: false, detail, latency: self.clock.now().since(self.started) }
    }

    /// We could not make it.
    fn unable(&self, why: &str) -> Measurement {
        unavailable(format!("{}{why}", self.stage().context))
    }

    fn out_of_time(&self) -> Measurement {
        let late = self.stage().late.clone();
        let within = human(self.timeout);
        match late {
            Late::Theirs(None) => self.failed(&format!("no answer within {within}")),
            Late::Theirs(Some(but)) => self.failed(&format!("{but} within {within}")),
            Late::Ours(why) => self.unable(&why),
        }
    }
}

#[cfg(test)]
mod tests;
