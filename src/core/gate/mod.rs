//! Gates: reasons to wait or refuse, asked in a fixed order. Each answers allow or deny, and says why.

mod environment;

use std::collections::BTreeMap;

use std::time::Duration;

use super::approval::consent;
use super::decision::{Gate, GateAnswer, percent_of};
use super::group::together;
use super::io::EngineState;
use super::ledger::Flags;
use super::release::{Release, ReleaseId, ServiceName};
use super::sample::Signal;
use super::settings::{Condition, Mode, OpenWindow, ServiceSettings, Severity, WindowKind};
use super::surroundings::{Reliance, Surroundings};
use super::time::{Timestamp, human};
use super::window::{Before, count};
pub(crate) use environment::callers;
use environment::environment;

/// Health was bad before when this share of its checks failed ...
const BEFORE_SHARE: f64 = 0.30;
/// ... of at least so many.
const BEFORE_CHECKS: u32 = 3;
/// ... over so long, as long as the shipped row asks for: two checks that a busy machine kept waiting are a blip.
const BEFORE_FOR: Duration = Duration::from_secs(10);
/// Memory was high before when its median was above this.
const BEFORE_MEMORY: f64 = 0.88;
/// Requests failed before when there were so many failures in the three minutes before the deployment ...
const BEFORE_FAILED: u64 = 10;
/// ... and their share was above five percent and so many times the baseline's.
const BEFORE_TIMES: f64 = 3.0;
/// ... or it is at most so many times as bad now as it was then.
const BEFORE_WORSE: f64 = 1.5;
/// What failed before the deployment and began again only so long after it is not the same.
const BEFORE_IS_OVER: Duration = Duration::from_secs(3 * 60);

/// What the gates of one service are asked about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) now: Timestamp,
    pub(crate) service: &'a ServiceName,
    /// What runs.
    pub(crate) release: Option<&'a ReleaseId>,
    /// How urgent the breach is; none if nobody has to be asked.
    pub(crate) severity: Option<Severity>,
    pub(crate) settings: &'a ServiceSettings,
    /// The breached row; none for a question in general.
    pub(crate) symptom: Option<Symptom<'a>>,
    /// When the same last came and went under this release.
    pub(crate) last_spell: Option<Timestamp>,
    /// The share of requests that fail now.
    pub(crate) error_rate: f64,
    /// What it depends on, by name.
    pub(crate) reliances: &'a BTreeMap<String, Reliance>,
    pub(crate) deployed: Timestamp,
    pub(crate) before: &'a Before,
    pub(crate) flags: &'a Flags,
    pub(crate) target: Result<&'a Release, &'a str>,
    /// Whether the target runs on the schema that it would find.
    pub(crate) schema: &'a Answer,
    /// The current release was rolled back before.
    pub(crate) quarantined: bool,
    /// When its last rollback ended.
    pub(crate) last_ended: Option<Timestamp>,
    /// Automatic rollbacks within `settings.attempts_window`.
    pub(crate) attempts: u32,
}

/// A row that is crossed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Symptom<'a> {
    /// The row's name.
    pub(crate) rule: &'a str,
    /// What it judges.
    pub(crate) condition: Condition,
    /// When it began.
    pub(crate) onset: Option<Timestamp>,
    /// The share of bad requests; zero for rows that count none.
    pub(crate) share: f64,
}

/// Asks every gate in order.
pub(crate) fn ask(q: Question<'_>, around: Surroundings<'_>) -> Vec<GateAnswer> {
    Gate::ALL.into_iter().map(|gate| answer(gate, q, around)).collect()
}

fn answer(gate: Gate, q: Question<'_>, around: Surroundings<'_>) -> GateAnswer {
    let result = match gate {
        Gate::Store => store(around),
        Gate::Engine => engine(q, around),
        Gate::Paused => paused(q, around),
        Gate::NewEnough => new_enough(q),
        Gate::Before => before(q),
        Gate::OneAtATime => one_at_a_time(q, around),
        Gate::Environment => environment(q, around),
        Gate::Target => q.target.map(|t| format!("{t} is known-good")).map_err(Into::into),
        Gate::Migrations => q.schema.clone(),
        Gate::Group => together(q.service, q.settings.mode == Mode::Act, around),
        Gate::Cooldown => cooldown(q),
        Gate::Attempts => attempts(q),
        Gate::Breaker => breaker(q, around),
        Gate::Approval => consent(q, around.window(q.service, WindowKind::Freeze)),
    };
    let allow = result.is_ok();
    GateAnswer { gate, allow, why: result.unwrap_or_else(|why| why) }
}

pub(crate) type Answer = Result<String, String>;

impl Question<'_> {
    fn condition(&self) -> Option<Condition> {
        self.symptom.map(|symptom| symptom.condition)
    }

    fn signal(&self) -> Option<Signal> {
        self.condition().map(Condition::signal)
    }

    /// When the symptom began.
    fn onset(&self) -> Option<Timestamp> {
        self.symptom?.onset
    }
}

impl Surroundings<'_> {
    /// The open window of this kind that is about `service`.
    pub(crate) fn window(&self, service: &ServiceName, kind: WindowKind) -> Option<&OpenWindow> {
        self.windows.iter().find(|window| window.kind == kind && window.covers(service))
    }

    /// Automatic rollbacks of the whole fleet within the breaker's window.
    pub(crate) fn recent_rollbacks(&self, now: Timestamp) -> u32 {
        let begun = self.roster.values().flat_map(|n| &n.attempts);
        let window = self.settings.breaker_window;
        count(begun.filter(|at| **at > self.breaker_reset && now.since(**at) < window).count())
    }
}

fn store(around: Surroundings<'_>) -> Answer {
    match around.store_error {
        None => Ok("the store takes writes".into()),
        Some(why) => Err(format!("nothing is done that could not be recorded first: {why}")),
    }
}

fn engine(q: Question<'_>, around: Surroundings<'_>) -> Answer {
    match around.engine {
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

fn paused(q: Question<'_>, around: Surroundings<'_>) -> Answer {
    match q.flags.paused.as_ref().or(around.flags.paused.as_ref()) {
        None => Ok(()),
        Some(pause) => Err(pause.to_string()),
    }?;
    match around.window(q.service, WindowKind::Maintenance) {
        None => Ok("not paused".into()),
        Some(window) => Err(format!("it is in {window}")),
    }
}

fn new_enough(q: Question<'_>) -> Answer {
    let slow = matches!(q.signal(), Some(Signal::Memory | Signal::OomKills | Signal::Exits));
    let watch = if slow { q.settings.watch_slow } else { q.settings.watch };
    let age = q.onset().unwrap_or(q.now).since(q.deployed);
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
    let bad = match q.signal() {
        None => None,
        Some(Signal::Health) => {
            let (failed, all) = q.before.health;
            let often = all >= BEFORE_CHECKS && f64::from(failed) >= f64::from(all) * BEFORE_SHARE;
            let bad = often && q.before.health_for >= BEFORE_FOR;
            bad.then(|| format!("{failed} of {all} health checks failed in the 5 min before the deployment"))
        }
        Some(Signal::ContainerHealth) => {
            q.before.unhealthy.then(|| "the release before it was unhealthy too".to_owned())
        }
        Some(Signal::Exits) => {
            let limit = q.settings.rules.iter().find(|r| r.name == "crash_loop").map_or(3.0, |r| r.threshold);
            // A few more or less in so short a time is chance: half as often as the line, for six times as long.
            let times = [
                (q.before.exits, limit, "too"),
                (q.before.exits_lately, 3.0 * limit, "in the half hour before"),
            ];
            let often = times.into_iter().find(|(exits, limit, _)| f64::from(*exits) >= *limit);
            often.map(|(exits, _, when)| format!("the release before it exited {exits} times {when}"))
        }
        Some(Signal::OomKills) => {
            let kills = q.before.oom_kills;
            (kills > 0)
                .then(|| format!("the release before it was killed for want of memory too ({kills} times)"))
        }
        Some(Signal::Requests) if q.condition() == Some(Condition::ErrorRate) => failed_before(q),
        // The other rows compare with what was before themselves.
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
    bad.or_else(|| recurs(q)).map_or_else(|| Ok("it was not so before the deployment".into()), Err)
}

/// It came and went before the deployment too.
fn recurs(q: Question<'_>) -> Option<String> {
    let symptom = q.symptom?;
    let passes = match symptom.condition {
        Condition::Health
        | Condition::AdvisoryHealth
        | Condition::HealthFlapping
        | Condition::ContainerHealth
        | Condition::Memory
        | Condition::CpuThrottling
        | Condition::ErrorRate
        | Condition::Latency
        | Condition::LogErrors
        | Condition::Alerts => true,
        // These count what happened, and go on for as long as that is in their window.
        Condition::Exits
        | Condition::OomKills
        | Condition::Down
        | Condition::MemoryLeak
        | Condition::UserReports => false,
    };
    let recurring = q.before.recurring.get(symptom.rule)?;
    let onset = symptom.onset?;
    let since = q.last_spell.map(|began| onset.since(began));
    recurring.excuse(q.now.since(onset), symptom.share, since).filter(|_| passes)
}

/// Requests failed just before the deployment already, far more often than usual.
fn failed_before(q: Question<'_>) -> Option<String> {
    // It was well for a while after the deployment: what was before that is over.
    if q.onset().is_some_and(|onset| onset.since(q.deployed) > BEFORE_IS_OVER) {
        return None;
    }
    let norm = &q.before.norm;
    let (total, errors) = norm.just_before;
    let rate = norm.just_before_rate();
    let usual = norm.earlier_rate();
    let typed =
        q.settings.rules.iter().find(|r| r.condition == Condition::ErrorRate).map_or(0.05, |r| r.threshold);
    // What went on for long before is a part of what was usual by then, but it still goes on if it is no worse now.
    let line = if q.error_rate <= BEFORE_WORSE * rate { typed } else { typed.max(BEFORE_TIMES * usual) };
    // A moment of failures that had passed, or those of the change itself, are no trouble that goes on.
    let broken = errors >= BEFORE_FAILED && rate > line && norm.rate_at_last() > line;
    broken.then(|| {
        format!(
            "it was broken before the deployment: {errors} of {total} requests ({}) failed in the 3 min before",
            percent_of(rate)
        )
    })
}

/// One rollback at a time: the first may cure the second. Memory is the container's own: nothing outside fills it.
fn one_at_a_time(q: Question<'_>, around: Surroundings<'_>) -> Answer {
    if memory(q) {
        return Ok("memory is the container's own".into());
    }
    let wait = around.settings.one_at_a_time;
    for (name, n) in around.roster.iter().filter(|(name, _)| *name != q.service) {
        // A rollback whose engine is away goes on when that is back: nobody knows when.
        // Nor does one wait for it that its proof waits for.
        let waits_for_us = n.verifying && n.relies_on.contains(q.service);
        if n.in_flight && !waits_for_us && !around.is_out_of_sight(name) {
            return Err(format!("a rollback of {name} is in flight; it may cure this one"));
        }
        if let Some(ago) = n.ended.map(|ended| q.now.since(ended)).filter(|ago| *ago < wait) {
            let left = human(wait.saturating_sub(ago));
            return Err(format!("{name} was just rolled back; its effect is awaited for another {left}"));
        }
    }
    Ok("no other service is being rolled back".into())
}

fn memory(q: Question<'_>) -> bool {
    matches!(q.signal(), Some(Signal::Memory | Signal::OomKills))
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

fn breaker(q: Question<'_>, around: Surroundings<'_>) -> Answer {
    if let Some(why) = &around.flags.stuck {
        return Err(why.clone());
    }
    let s = around.settings;
    let recent = around.recent_rollbacks(q.now);
    let said =
        format!("{recent} of {} rollbacks in the fleet in {}", s.breaker_rollbacks, human(s.breaker_window));
    if recent < s.breaker_rollbacks { Ok(said) } else { Err(said) }
}
