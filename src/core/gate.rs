//! Gates: reasons to wait or refuse, asked in a fixed order. Each answers allow or deny, and says why.

use std::time::Duration;

use super::decision::{Gate, GateAnswer};
use super::io::EngineState;
use super::ledger::Flags;
use super::release::{Release, ServiceName};
use super::sample::Signal;
use super::settings::{FleetSettings, ServiceSettings};
use super::time::{Timestamp, human};
use super::window::Before;

/// A service deployed this shortly before the onset is no witness: it may be bad by itself (decision.md, 4.3).
const WITNESS_AGE: Duration = Duration::from_secs(5 * 60);
/// Who has suffered for longer than this before the onset suffers from something else.
const CHRONIC: Duration = Duration::from_secs(60 * 60);
/// Health was bad before when this share of its checks failed ...
const BEFORE_SHARE: f64 = 0.30;
/// ... of at least so many.
const BEFORE_CHECKS: u32 = 3;
/// Memory was high before when its median was above this.
const BEFORE_MEMORY: f64 = 0.88;

/// What the gates of one service are asked about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) now: Timestamp,
    pub(crate) service: &'a ServiceName,
    pub(crate) settings: &'a ServiceSettings,
    /// What the breached row looks at; none for a question in general.
    pub(crate) signal: Option<Signal>,
    /// When the symptom began.
    pub(crate) onset: Option<Timestamp>,
    pub(crate) deployed: Timestamp,
    pub(crate) before: &'a Before,
    pub(crate) flags: &'a Flags,
    pub(crate) target: Result<&'a Release, &'a str>,
    /// The current release was rolled back before.
    pub(crate) quarantined: bool,
    /// When its last rollback ended.
    pub(crate) last_ended: Option<Timestamp>,
    /// Automatic rollbacks within `settings.attempts_window`.
    pub(crate) attempts: u32,
}

/// What the rest of the fleet looks like; made once a turn, and only if a gate is asked.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub(crate) settings: FleetSettings,
    pub(crate) engine: Option<EngineState>,
    /// The engine came back at this time.
    pub(crate) engine_back: Option<Timestamp>,
    pub(crate) store_error: Option<String>,
    pub(crate) flags: Flags,
    /// When each service's release appeared, sorted.
    pub(crate) deployed: Vec<Timestamp>,
    /// Services with a crossed line: name, deployed, since when.
    pub(crate) degraded: Vec<(ServiceName, Timestamp, Timestamp)>,
    /// Rollbacks in flight (none), and when the last ones ended.
    pub(crate) rollbacks: Vec<(ServiceName, Option<Timestamp>)>,
    /// Automatic rollbacks of the whole fleet within `settings.breaker_window`.
    pub(crate) recent: u32,
}

/// Asks every gate in order.
pub(crate) fn ask(q: Question<'_>, around: &Surroundings) -> Vec<GateAnswer> {
    Gate::ALL.into_iter().map(|gate| answer(gate, q, around)).collect()
}

fn answer(gate: Gate, q: Question<'_>, around: &Surroundings) -> GateAnswer {
    let result = match gate {
        Gate::Store => store(around),
        Gate::Engine => engine(q, around),
        Gate::Paused => paused(q, around),
        Gate::NewEnough => new_enough(q),
        Gate::Before => before(q),
        Gate::OneAtATime => one_at_a_time(q, around),
        Gate::Environment => environment(q, around),
        Gate::Target => q.target.map(|t| format!("{t} is known-good")).map_err(Into::into),
        Gate::Cooldown => cooldown(q),
        Gate::Attempts => attempts(q),
        Gate::Breaker => breaker(around),
    };
    let allow = result.is_ok();
    GateAnswer { gate, allow, why: result.unwrap_or_else(|why| why) }
}

type Answer = Result<String, String>;

fn store(around: &Surroundings) -> Answer {
    match &around.store_error {
        None => Ok("the store takes writes".into()),
        Some(why) => Err(format!("nothing is done that could not be recorded first: {why}")),
    }
}

fn engine(q: Question<'_>, around: &Surroundings) -> Answer {
    match &around.engine {
        None => Err("the engine has not answered yet".into()),
        Some(EngineState::Unreachable { why }) => Err(format!("the engine does not answer: {why}")),
        Some(EngineState::Reachable { .. }) => {
            let settle = around.settings.engine_settle;
            match around.engine_back.map(|back| q.now.since(back)) {
                Some(ago) if ago < settle => Err(format!(
                    "the engine came back {} ago; what its restart stopped gets {} to settle",
                    human(ago),
                    human(settle)
                )),
                _ => Ok("the engine answers".into()),
            }
        }
    }
}

fn paused(q: Question<'_>, around: &Surroundings) -> Answer {
    match q.flags.paused.as_ref().or(around.flags.paused.as_ref()) {
        None => Ok("not paused".into()),
        Some(pause) => Err(format!("paused by {}: {}", pause.by, pause.why)),
    }
}

fn new_enough(q: Question<'_>) -> Answer {
    let slow = matches!(q.signal, Some(Signal::Memory | Signal::OomKills | Signal::Exits));
    let watch = if slow { q.settings.watch_slow } else { q.settings.watch };
    let age = q.onset.unwrap_or(q.now).since(q.deployed);
    if age <= watch {
        Ok(format!("deployed {} before", human(age)))
    } else {
        Err(format!(
            "the release had run for {} by then; blamed without asking only up to {}",
            human(age),
            human(watch)
        ))
    }
}

fn before(q: Question<'_>) -> Answer {
    let bad = match q.signal {
        None => None,
        Some(Signal::Health) => {
            let (failed, all) = q.before.health;
            let bad = all >= BEFORE_CHECKS && f64::from(failed) >= f64::from(all) * BEFORE_SHARE;
            bad.then(|| format!("{failed} of {all} health checks failed in the 5 min before the deployment"))
        }
        Some(Signal::ContainerHealth) => {
            q.before.unhealthy.then(|| "the release before it was unhealthy too".to_owned())
        }
        Some(Signal::Exits) => {
            let limit = q.settings.rules.iter().find(|r| r.name == "crash_loop").map_or(3.0, |r| r.threshold);
            let bad = f64::from(q.before.exits) >= limit;
            bad.then(|| format!("the release before it exited {} times too", q.before.exits))
        }
        Some(Signal::OomKills) => {
            let kills = q.before.oom_kills;
            (kills > 0)
                .then(|| format!("the release before it was killed for want of memory too ({kills} times)"))
        }
        Some(
            Signal::Cpu
            | Signal::Requests
            | Signal::Logs
            | Signal::Reports
            | Signal::Alerts
            | Signal::Dependencies,
        ) => None,
        Some(Signal::Memory) => q
            .before
            .memory
            .filter(|m| *m > BEFORE_MEMORY)
            .map(|m| format!("the release before it used {:.0} % of its memory too", m * 100.0)),
    };
    bad.map_or_else(|| Ok("it was not so before the deployment".into()), Err)
}

/// One rollback at a time: the first may cure the second. Memory is the container's own: nothing outside fills it.
fn one_at_a_time(q: Question<'_>, around: &Surroundings) -> Answer {
    if memory(q) {
        return Ok("memory is the container's own".into());
    }
    let wait = around.settings.one_at_a_time;
    for (name, ended) in around.rollbacks.iter().filter(|(name, _)| name != q.service) {
        match ended {
            None => return Err(format!("a rollback of {name} is in flight; it may cure this one")),
            Some(ended) if q.now.since(*ended) < wait => {
                let left = human(wait.saturating_sub(q.now.since(*ended)));
                return Err(format!("{name} was just rolled back; its effect is awaited for another {left}"));
            }
            Some(_) => {}
        }
    }
    Ok("no other service is being rolled back".into())
}

fn memory(q: Question<'_>) -> bool {
    matches!(q.signal, Some(Signal::Memory | Signal::OomKills))
}

/// Not the deployment's fault when others, that nobody deployed, suffer at the same time.
fn environment(q: Question<'_>, around: &Surroundings) -> Answer {
    if memory(q) {
        return Ok("memory is the container's own".into());
    }
    let onset = q.onset.unwrap_or(q.now);
    let settled_by = onset.before(WITNESS_AGE);
    let own = usize::from(q.deployed <= settled_by);
    let witnesses = around.deployed.partition_point(|d| *d <= settled_by).saturating_sub(own);
    let suffering: Vec<&str> = around
        .degraded
        .iter()
        .filter(|(name, deployed, since)| {
            name != q.service && *deployed <= settled_by && onset.since(*since) <= CHRONIC
        })
        .map(|(name, ..)| name.as_str())
        .collect();
    if suffering.len() >= 2 && suffering.len() * 2 >= witnesses {
        return Err(format!(
            "{} of {witnesses} services that nobody deployed are degraded too ({})",
            suffering.len(),
            suffering.join(", ")
        ));
    }
    Ok(match witnesses {
        0 => "no other service to compare with".into(),
        n => format!("{} of {n} other services are degraded", suffering.len()),
    })
}

fn cooldown(q: Question<'_>) -> Answer {
    let Some(ended) = q.last_ended else {
        return Ok("no rollback before".into());
    };
    let ago = q.now.since(ended);
    if q.quarantined {
        return Ok("a quarantined release that came back does not wait".into());
    }
    if ago >= q.settings.cooldown {
        return Ok(format!("the last rollback ended {} ago", human(ago)));
    }
    Err(format!(
        "the last rollback ended {} ago; the next one waits {}",
        human(ago),
        human(q.settings.cooldown - ago)
    ))
}

fn attempts(q: Question<'_>) -> Answer {
    let said = format!(
        "{} of {} rollbacks in {}",
        q.attempts,
        q.settings.attempts,
        human(q.settings.attempts_window)
    );
    if q.attempts < q.settings.attempts { Ok(said) } else { Err(format!("{said}: a person is needed")) }
}

fn breaker(around: &Surroundings) -> Answer {
    if let Some(why) = &around.flags.stuck {
        return Err(why.clone());
    }
    let s = &around.settings;
    let said = format!(
        "{} of {} rollbacks in the fleet in {}",
        around.recent,
        s.breaker_rollbacks,
        human(s.breaker_window)
    );
    if around.recent < s.breaker_rollbacks { Ok(said) } else { Err(said) }
}
