//! Waiting for what was started: until it stays up, and, where the old container still runs beside it, until it serves.
//!
//! There, nothing is gained by stopping the old one earlier: the replacement is started already and gets no faster by it. So it is
//! asked what tells best that it serves: the checks of its service that are made of each replica, and its own HEALTHCHECK, which
//! is run here as well, because the engine runs it first when its interval is over. A service with neither serves when it
//! accepts connections where the old one does.

use std::time::Duration;

use serde_json::Value;

use super::apply::{EVIDENCE, identity};
use super::{ContainerRuntime, enrol, observe, verbs};
use crate::core::plan::{Plan, StepOutput};
use crate::core::release::{ImageId, ReplicaId};
use crate::core::settings::{CheckKind, HealthCheck, Target};
use crate::runtime::engine::permanent;
use crate::runtime::{Check, RuntimeError};

/// What a failed start's message quotes of the log.
const QUOTED_LINES: u32 = 3;
/// How long the replacement has to stay up to count as running.
const MOMENT: Duration = Duration::from_secs(1);
/// A start that has not come that far by now has failed.
const RUNNING: Duration = Duration::from_secs(30);
/// Beside the old one, it is waited for so long until it serves: most programs are warm within a minute. After that the old one
/// goes all the same, and the verification says what became of it.
const WARMS_UP: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// Between two rounds of checks, which cost what is still warming up.
const ASK: Duration = Duration::from_secs(1);
/// What cannot be measured so many times in a row is not waited for.
const UNKNOWN: u32 = 5;
/// A connection within one machine is accepted at once or not at all.
const KNOCK: Duration = Duration::from_secs(1);
/// Ports that are knocked at: who exposes more than this exposes a range.
const PORTS_MAX: usize = 8;
/// What a HEALTHCHECK takes at most where it does not say (Docker's default).
const HEALTHCHECK: Duration = Duration::from_secs(30);

/// A replacement that was started.
#[derive(Clone, Copy)]
pub(super) struct Started<'a> {
    pub(super) plan: &'a Plan,
    /// What it is to be of.
    pub(super) image: &'a ImageId,
    pub(super) new: &'a ReplicaId,
    pub(super) name: &'a str,
}

/// What tells that a container serves.
struct Signs {
    /// What it has to pass.
    checks: Vec<Box<dyn Check>>,
    /// Its HEALTHCHECK, if it has one.
    own: Option<Box<dyn Check>>,
}

impl ContainerRuntime {
    /// Waits until it has stayed up for a moment.
    pub(super) async fn await_running(&self, started: Started<'_>) -> Result<StepOutput, RuntimeError> {
        let inspect = self.stays_up(started).await?;
        self.runs_as_asked(started, &inspect)
    }

    /// Waits until it has stayed up for a moment and serves, or has had time enough for that. `old` runs beside it.
    pub(super) async fn await_serving(
        &self,
        started: Started<'_>,
        old: Option<&ReplicaId>,
    ) -> Result<StepOutput, RuntimeError> {
        let began = self.clock.now();
        let mut inspect = self.stays_up(started).await?;
        if self.known().unready.contains(&started.plan.id) {
            // Another replica had its time, and did not pass: the next would not either.
            return self.runs_as_asked(started, &inspect);
        }
        let signs = self.signs(started.plan, &inspect, old).await?;
        let mut unknown = 0;
        loop {
            let left = WARMS_UP.saturating_sub(self.clock.now().since(began));
            match tokio::time::timeout(left, signs.show(&inspect)).await {
                Ok(Some(true)) => break,
                Ok(None) if unknown + 1 >= UNKNOWN => break,
                Ok(None) => unknown += 1,
                Ok(Some(false)) | Err(_) => unknown = 0,
            }
            if self.clock.now().since(began) >= WARMS_UP {
                let (service, name, within) = (&started.plan.service, started.name, WARMS_UP.as_secs());
                tracing::warn!(%service, "{name} does not serve within {within} s of its start: it takes over all the same");
                self.known().unready.insert(started.plan.id.clone());
                break;
            }
            tokio::time::sleep(ASK).await;
            inspect = self.is_up(started).await?.unwrap_or(inspect);
        }
        self.runs_as_asked(started, &inspect)
    }

    fn runs_as_asked(&self, started: Started<'_>, inspect: &Value) -> Result<StepOutput, RuntimeError> {
        identity(started.plan, started.image, inspect, started.name)?;
        self.ours.unmark(started.new.as_str());
        Ok(StepOutput::Running { container: started.new.clone() })
    }

    /// Gives what the engine says of it once it has been up for a moment.
    async fn stays_up(&self, started: Started<'_>) -> Result<Value, RuntimeError> {
        let began = self.clock.now();
        let mut up_since = None;
        loop {
            let up = self.is_up(started).await?;
            let now = self.clock.now();
            if let Some(inspect) = up
                && now.since(*up_since.get_or_insert(now)) >= MOMENT
            {
                return Ok(inspect);
            }
            if now.since(began) > RUNNING {
                let (name, within) = (started.name, RUNNING.as_secs());
                return Err(permanent(format!("{name} was not started within {within} s")));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What the engine says of it; none while it is being started.
    async fn is_up(&self, Started { new, name, .. }: Started<'_>) -> Result<Option<Value>, RuntimeError> {
        let Some(inspect) = verbs::inspect(&self.engine, new.as_str()).await? else {
            return Err(permanent(format!("{name} ended at once and was removed")));
        };
        let state = &inspect["State"];
        let not_yet = state["Status"] == "created" && state["Error"].as_str().is_none_or(str::is_empty);
        match state["Status"] == "running" && inspect["RestartCount"].as_u64().unwrap_or(0) == 0 {
            true => Ok(Some(inspect)),
            false if not_yet => Ok(None),
            false => Err(self.did_not_stay(&inspect, new, name).await),
        }
    }

    async fn did_not_stay(&self, inspect: &Value, new: &ReplicaId, name: &str) -> RuntimeError {
        let state = &inspect["State"];
        let log =
            self.engine.logs(new.as_str(), QUOTED_LINES, EVIDENCE).await.unwrap_or_default().join(" | ");
        let error =
            state["Error"].as_str().filter(|e| !e.is_empty()).map(|e| format!(": {e}")).unwrap_or_default();
        permanent(format!(
            "{name} did not stay up (exit code {}{error}); its log ends: {log}",
            state["ExitCode"]
        ))
    }

    /// What a replacement has to show.
    async fn signs(
        &self,
        plan: &Plan,
        inspect: &Value,
        old: Option<&ReplicaId>,
    ) -> Result<Signs, RuntimeError> {
        // Settings that are wrong by now ask for nothing: it is judged by what was right before, and that is not known here.
        let settings = self.enrolment.settings(&plan.service, &enrol::labels(&inspect["Config"]));
        let checks = settings.map(|settings| settings.checks).unwrap_or_default().into_values();
        let checks = checks.filter(|check| check.required && check.kind.is_of_replicas());
        let mut signs = Signs {
            checks: checks.map(|check| self.check_of(&check, inspect)).collect(),
            own: healthcheck(inspect).map(|check| self.check_of(&check, inspect)),
        };
        if signs.checks.is_empty() && signs.own.is_none() {
            let old = match old {
                Some(old) => verbs::inspect(&self.engine, old.as_str()).await?,
                None => None,
            };
            for knock in exposed(inspect) {
                if let Some(old) = &old
                    && self.check_of(&knock, old).passes().await == Some(true)
                {
                    signs.checks.push(self.check_of(&knock, inspect));
                }
            }
        }
        Ok(signs)
    }

    fn check_of(&self, check: &HealthCheck, inspect: &Value) -> Box<dyn Check> {
        let replica = observe::replica(inspect, Vec::new());
        let address = replica.address.filter(|_| !self.engine.is_remote());
        self.checks.of(check, &replica.id, address)
    }
}

impl Signs {
    /// Whether they show that it serves; none if nothing speaks against it, and not all can be measured.
    async fn show(&self, inspect: &Value) -> Option<bool> {
        let own = self.own.as_ref().filter(|_| inspect["State"]["Health"]["Status"] != "healthy");
        let mut all = Some(true);
        for check in own.into_iter().chain(&self.checks) {
            match check.passes().await {
                Some(true) => {}
                Some(false) => return Some(false),
                None => all = None,
            }
        }
        all
    }
}

/// A container's HEALTHCHECK as a check of ours; none if it has none.
fn healthcheck(inspect: &Value) -> Option<HealthCheck> {
    let config = &inspect["Config"];
    let words = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect()
    };
    let mut test = words(&config["Healthcheck"]["Test"]).into_iter();
    let command = match test.next()?.as_str() {
        "CMD" => test.collect(),
        "CMD-SHELL" => {
            let shell = words(&config["Shell"]);
            let shell = if shell.is_empty() { vec!["/bin/sh".into(), "-c".into()] } else { shell };
            shell.into_iter().chain(test).collect()
        }
        _ => return None,
    };
    let nanos = config["Healthcheck"]["Timeout"].as_u64().filter(|nanos| *nanos > 0);
    let timeout = nanos.map_or(HEALTHCHECK, Duration::from_nanos);
    Some(check(CheckKind::Command(command), timeout))
}

/// Knocking at each port that it exposes.
fn exposed(inspect: &Value) -> Vec<HealthCheck> {
    let ports = inspect["Config"]["ExposedPorts"].as_object().into_iter().flatten();
    let port = |(port, _): (&String, &Value)| port.strip_suffix("/tcp")?.parse().ok();
    let knock = |port| check(CheckKind::Tcp(Target::Replica { port, path: String::new() }), KNOCK);
    ports.filter_map(port).take(PORTS_MAX).map(knock).collect()
}

fn check(kind: CheckKind, timeout: Duration) -> HealthCheck {
    HealthCheck { kind, interval: LOOK, timeout, required: true }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn command(config: &Value) -> Option<(Vec<String>, u64)> {
        let check = healthcheck(&json!({ "Config": config }))?;
        match check.kind {
            CheckKind::Command(words) => Some((words, check.timeout.as_secs())),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_healthcheck_is_run_as_the_engine_runs_it() {
        let words = |all: &[&str]| all.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let test = |test: &[&str]| json!({"Healthcheck": {"Test": test, "Timeout": 2_000_000_000u64}});
        assert_eq!(command(&test(&["CMD", "/probe", "-q"])), Some((words(&["/probe", "-q"]), 2)));
        let shell = command(&test(&["CMD-SHELL", "curl -f localhost || exit 1"]));
        assert_eq!(shell, Some((words(&["/bin/sh", "-c", "curl -f localhost || exit 1"]), 2)));
        let own = json!({"Shell": ["/bin/bash", "-ec"], "Healthcheck": {"Test": ["CMD-SHELL", "ok"]}});
        assert_eq!(command(&own), Some((words(&["/bin/bash", "-ec", "ok"]), 30)));
        assert_eq!(command(&test(&["NONE"])), None);
        assert_eq!(command(&test(&[])), None);
        assert_eq!(command(&json!({})), None);
    }

    #[test]
    fn ports_that_it_exposes_are_knocked_at_and_not_a_whole_range() {
        let ports = |inspect: &Value| {
            let port = |check: HealthCheck| match check.kind {
                CheckKind::Tcp(Target::Replica { port, .. }) => port,
                other => panic!("{other:?}"),
            };
            exposed(inspect).into_iter().map(port).collect::<Vec<_>>()
        };
        let some = json!({"Config": {"ExposedPorts": {"8080/tcp": {}, "53/udp": {}, "9090/tcp": {}}}});
        assert_eq!(ports(&some), [8080, 9090]);
        assert_eq!(ports(&json!({"Config": {}})), [0; 0]);
        let range = (1000..2000).map(|port| (format!("{port}/tcp"), json!({}))).collect();
        assert_eq!(ports(&json!({"Config": {"ExposedPorts": Value::Object(range)}})).len(), PORTS_MAX);
    }
}
