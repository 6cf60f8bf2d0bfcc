//! Surroundings: what a service knows of the others, of what it depends on, and of the machine.
//!
//! Whether a release is to blame cannot be seen in its own samples. The roster holds what each service has to say to
//! the others; it is renewed after each turn of a service, so that asking costs nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::baseline::Norm;
use super::chance::binomial_tail;
use super::engines::{Engine, Engines};
use super::gate::callers;
use super::group::Companion;
use super::io::{EngineState, HostState};
use super::ledger::Flags;
use super::pace::Rhythm;
use super::release::ServiceName;
use super::settings::{Dependency, FleetSettings, OpenWindow, ServiceSettings};
use super::time::Timestamp;
use super::traffic::{Bad, Counted};
use super::window::{Before, Evidence};

/// Whoever is well again is a witness for this long: others recover later than what they depend on (decision.md, 4.3).
pub(crate) const LINGERS: Duration = Duration::from_secs(60);
/// What was wrong for longer than this before a deployment did not trouble the release before it.
pub(crate) const BORNE: Duration = Duration::from_secs(5 * 60);
/// Who has been silent for so long has nothing to say.
const SILENT: Duration = Duration::from_secs(60);
/// Whose requests are no longer counted may be down, or may only not be asked any more: believed for so long.
const SILENCE_COUNTS: Duration = Duration::from_secs(3 * 60);
/// One failure of what is depended on is a blip; so many in a row are none (decision.md, 4.3) ...
const FAILURES: u32 = 2;
/// ... and nor is one that was not followed by anything for so long.
const CONTRADICTED: Duration = Duration::from_secs(30);
/// Nobody is waited for longer than this.
const MOST: Duration = Duration::from_secs(130);
/// What is measured so long after the onset would show it.
const SHOWS: Duration = Duration::from_secs(10);
/// Others suffer from errors when more than this share of their requests fail.
const ERRORS: f64 = 0.05;
/// Others suffer from slowness when requests are slower than so many times their p99.
const SLOWER: f64 = 1.4;
/// Half of the measurements are above their median: that is what it is.
const HALF: f64 = 0.5;
/// How much worse than usual is not usual.
const WORSE: f64 = 1.5;
/// What is usual is looked at again this often while all is well.
const USUAL_EVERY: Duration = Duration::from_secs(5 * 60);

/// What the rest of the fleet and the machine look like to the service whose turn it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    pub(crate) settings: &'a FleetSettings,
    /// Every engine, for whoever asks how another service's is.
    pub(crate) engines: &'a Engines,
    /// The service's own engine; none before it was heard of.
    pub(crate) engine: Option<&'a EngineState>,
    /// The service's own engine came back at this time.
    pub(crate) engine_back: Option<Timestamp>,
    pub(crate) store_error: Option<&'a str>,
    pub(crate) flags: &'a Flags,
    pub(crate) host: &'a Host,
    /// The breaker counts rollbacks after this.
    pub(crate) breaker_reset: Timestamp,
    pub(crate) windows: &'a [OpenWindow],
    pub(crate) roster: &'a Roster,
}

impl Surroundings<'_> {
    pub(crate) fn engine_answers(&self) -> bool {
        matches!(self.engine, Some(EngineState::Reachable { .. }))
    }

    /// Whether a service's engine is away: then nothing is known of it that could be waited for.
    pub(crate) fn is_out_of_sight(&self, service: &ServiceName) -> bool {
        self.engines.of(service).is_some_and(Engine::is_away)
    }
}

/// Every service, as the others see it.
pub(crate) type Roster = BTreeMap<ServiceName, Neighbour>;

/// The machine that we run on.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Host {
    pub(crate) state: HostState,
    /// Since when it is short of something.
    pub(crate) pressed: Option<Timestamp>,
}

/// One service, as the others see it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Neighbour {
    /// Something of it runs.
    pub(crate) present: bool,
    /// When its release appeared.
    pub(crate) deployed: Timestamp,
    pub(crate) ailing: Option<Ailing>,
    /// Somebody stopped or removed it.
    #[serde(default)]
    pub(crate) stopped: Option<Stopped>,
    /// When it was last measured, by whatever measures it least often.
    pub(crate) heard: Option<Timestamp>,
    /// How long that is after the time before.
    #[serde(default)]
    pub(crate) every: Duration,
    /// Services that it declared as its dependencies.
    pub(crate) relies_on: Vec<ServiceName>,
    /// A rollback of it is in flight.
    pub(crate) in_flight: bool,
    /// That has put its target in place, which is being proved.
    #[serde(default)]
    pub(crate) verifying: bool,
    /// When its last rollback ended; in dry-run mode, when it would have been.
    pub(crate) ended: Option<Timestamp>,
    /// Its release was, or in dry-run mode would have been, put right by a rollback.
    pub(crate) undone: bool,
    /// When its automatic rollbacks began.
    pub(crate) attempts: Vec<Timestamp>,
    /// What those that it is one release with need to know.
    #[serde(default)]
    pub(crate) companion: Companion,
}

/// Something is wrong with a service, whoever's fault it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ailing {
    pub(crate) since: Timestamp,
    /// The share of its requests that fail; all of them, if it is ill in a way that requests say nothing of.
    pub(crate) error_rate: f64,
    /// It is well again since then.
    pub(crate) until: Option<Timestamp>,
    /// A single check failed, and nothing else: that happens. Only several such at the same time say something.
    pub(crate) faint: bool,
    /// Nothing at all has been heard of it for long, and nothing else is known to be wrong.
    #[serde(default)]
    pub(crate) quiet: bool,
}

/// A service that a person stopped or removed: nobody's fault, and nothing that others can do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stopped {
    pub(crate) since: Timestamp,
    /// It runs again since then.
    pub(crate) until: Option<Timestamp>,
}

impl Stopped {
    /// What is known of it after a look: whoever runs again has been stopped for a while yet.
    pub(crate) fn after(before: Option<Self>, is_stopped: bool, now: Timestamp) -> Option<Self> {
        match (before, is_stopped) {
            (Some(old), true) if old.until.is_none() => Some(old),
            (Some(_) | None, true) => Some(Self { since: now, until: None }),
            (Some(old), false) => {
                let until = old.until.unwrap_or(now);
                (now.since(until) < LINGERS).then_some(Self { until: Some(until), ..old })
            }
            (None, false) => None,
        }
    }
}

/// Something that a service depends on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reliance {
    /// Failures in a row up to now.
    pub(crate) failures: u32,
    /// When it was last well before it failed: that is when it can have begun. One outage that comes and goes began with the
    /// first of its failures.
    pub(crate) failing: Option<Timestamp>,
    /// When that failure was first seen.
    #[serde(default)]
    seen: Option<Timestamp>,
    /// When it last was well.
    well: Option<Timestamp>,
    /// When it was last asked, and said something; and how long that was after the time before.
    heard: Option<Timestamp>,
    every: Duration,
    /// The last outage of two failures or more.
    pub(crate) outage: Option<Outage>,
    /// What the last failure looked like.
    pub(crate) last: String,
}

/// What is depended on was down for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outage {
    /// When it can have begun.
    pub(crate) began: Timestamp,
    /// When it was first seen.
    pub(crate) seen: Timestamp,
    /// When it was well again.
    pub(crate) ended: Timestamp,
}

impl Reliance {
    /// Whether it was ever measured.
    pub(crate) const fn is_known(&self) -> bool {
        self.heard.is_some()
    }

    /// The outage that lasts, as far as anybody knows now: what was last heard long ago says nothing.
    pub(crate) fn failing_now(&self, now: Timestamp) -> Option<Outage> {
        let most = SILENT.max(3 * self.every);
        let (began, seen) = self.failing.zip(self.seen.or(self.failing))?;
        self.heard.filter(|heard| now.since(*heard) <= most).map(|_| Outage { began, seen, ended: now })
    }

    /// Whether it is down: two failures, or one that nobody has contradicted since. Some are only heard of when they change.
    pub(crate) fn is_down(&self, now: Timestamp) -> bool {
        self.failures >= FAILURES || (self.failures == 1 && self.is_left_at_that(now))
    }

    fn is_left_at_that(&self, now: Timestamp) -> bool {
        self.heard.is_some_and(|heard| now.since(heard) >= CONTRADICTED)
    }

    /// Takes in a check.
    pub(crate) fn check(&mut self, now: Timestamp, ok: bool, detail: String) {
        self.every = self.heard.map_or(Duration::ZERO, |before| now.since(before));
        self.heard = Some(now);
        if ok {
            let failed = self.failing.take().zip(self.seen.take());
            if let Some((began, seen)) = failed.filter(|_| self.is_down(now)) {
                self.outage = Some(Outage { began, seen, ended: now });
            }
            self.failures = 0;
            self.well = Some(now);
        } else {
            self.failures = self.failures.saturating_add(1);
            self.last = detail;
            if self.failing.is_none() {
                // Whoever was well for no longer than others need to recover has not recovered.
                let same = self.outage.filter(|last| now.since(last.ended) < LINGERS);
                self.failing = same.map(|last| last.began).or(self.well).or(Some(now));
                self.seen = Some(same.map_or(now, |last| last.seen));
            }
        }
    }
}

/// What a service is like when it is well: what being ill is told by.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Usual {
    norm: Norm,
    at: Option<Timestamp>,
}

impl Usual {
    /// Looks again at what is usual, now and then.
    pub(crate) fn renew(&mut self, now: Timestamp, evidence: &Evidence, before: &Before, within: Duration) {
        if self.at.is_some_and(|at| now.since(at) < USUAL_EVERY) {
            return;
        }
        self.norm = evidence.norm(now, within).or(Some(before.norm.clone()));
        self.at = Some(now);
    }

    /// Another release: what the one before it was like is all that is known.
    pub(crate) fn reset(&mut self, now: Timestamp, norm: Norm) {
        *self = Self { norm, at: Some(now) };
    }
}

/// What is wrong with a service now, if anything: since when, and the share of requests that fail. Memory is the
/// container's own: it says as little about the surroundings as they say about it.
pub(crate) fn symptoms(
    now: Timestamp,
    deployed: Timestamp,
    settings: &ServiceSettings,
    evidence: &Evidence,
    usual: &Usual,
) -> Option<Ailing> {
    let requests = Counted::Requests(&evidence.traffic);
    let allowed = ERRORS.max(WORSE * usual.norm.errors_at_most());
    let errors = suffers(requests, Bad::Failed, allowed, deployed);
    let slow = usual.norm.p99.and_then(|p99| {
        let limit = SLOWER * p99;
        let allowed = 0.01_f64.max(WORSE * usual.norm.slower_at_most(limit));
        suffers(requests, Bad::Slower(limit), allowed, deployed)
    });
    let slow = slow.or_else(|| slow_on_average(settings, evidence, usual, deployed));
    let starting = now.since(deployed) < settings.grace;
    let failing = evidence
        .checks
        .iter()
        .filter(|((name, _), streak)| settings.requires(name) && (streak.succeeded || !starting))
        .filter(|(_, streak)| streak.is_current(now))
        .filter_map(|(_, streak)| streak.failing.map(|(first, _)| (first, streak.failures >= 2)))
        .collect::<Vec<_>>();
    let sure = failing.iter().filter(|(_, sure)| *sure).map(|(first, _)| *first);
    let unhealthy = evidence.unhealthy.values().chain(evidence.down.values()).map(|(since, _)| *since);
    let exits = evidence.exits.iter().map(|(at, _)| *at).filter(|at| now.since(*at) < LINGERS);
    let traffic = &evidence.traffic;
    let silent = traffic.last.filter(|_| traffic.samples > 2 && traffic.is_stale(now));
    let lately = silent.filter(|last| now.since(*last) < SILENCE_COUNTS);
    let others = sure.chain(unhealthy).chain(exits).chain(lately).min();
    let since = [errors.map(|(since, _)| since), slow.map(|(since, _)| since), others];
    let since = since.into_iter().flatten().min();
    let faint = since.is_none();
    // Who has stopped to say anything whatever may be down for as long as that lasts. Whom we fail to ask is not silent.
    let mute = silent.filter(|_| evidence.unmeasured.is_empty()).filter(|_| {
        evidence.checks.values().all(|streak| !streak.is_current(now))
            && evidence.levels.values().all(|levels| !levels.is_current(now))
    });
    if let (true, Some(since)) = (faint, mute) {
        return Some(Ailing { since, error_rate: 1.0, until: None, faint: false, quiet: true });
    }
    since.or(failing.iter().map(|(first, _)| *first).min()).map(|since| Ailing {
        since,
        error_rate: errors.map_or(if others.is_some() { 1.0 } else { 0.0 }, |(_, rate)| rate),
        until: None,
        faint,
        quiet: false,
    })
}

/// Since when requests, or our own checks, take longer on average than is usual.
fn slow_on_average(
    settings: &ServiceSettings,
    evidence: &Evidence,
    usual: &Usual,
    deployed: Timestamp,
) -> Option<(Timestamp, f64)> {
    let slower = |rhythm: &Rhythm, counted: Counted<'_>| {
        let limit = SLOWER * rhythm.median();
        let allowed = HALF.max(WORSE * rhythm.above_at_most(limit));
        suffers(counted, Bad::Slower(limit), allowed, deployed)
    };
    let mut checks = usual.norm.checks.iter().filter_map(|(name, rhythm)| {
        let usual = settings.checks.get(name).filter(|check| check.is_http())?.interval;
        slower(rhythm, Counted::Pace { pace: evidence.checks_took.get(name)?, usual })
    });
    let requests = usual.norm.pace.as_ref().and_then(|rhythm| {
        slower(rhythm, Counted::Pace { pace: &evidence.pace, usual: evidence.traffic.usual })
    });
    requests.or_else(|| checks.next())
}

/// Since when more requests are bad than is usual, and which share of them lately: over half a minute, two or five.
fn suffers(counted: Counted<'_>, bad: Bad, allowed: f64, deployed: Timestamp) -> Option<(Timestamp, f64)> {
    const LATELY: Duration = Duration::from_secs(30);
    const LEAST: u64 = 3;
    const STEP: Duration = Duration::from_secs(15);
    const STEPS: usize = 40;
    let end = counted.end()?;
    let lately = LATELY.max(counted.usual());
    let windows = [(lately, 1e-3), (Duration::from_secs(120), 1e-2), (Duration::from_secs(300), 1e-2)];
    let now = counted.share(bad, end.before(lately), end);
    if now.n == 0 || now.beyond.is_some() || now.rate() <= allowed {
        return None;
    }
    let ill = windows.into_iter().any(|(window, alpha)| {
        let share = counted.share(bad, end.before(window), end);
        share.bad() >= LEAST && share.rate() > allowed && binomial_tail(share.bad(), share.n, allowed) < alpha
    });
    if !ill {
        return None;
    }
    let step = STEP.max(counted.usual());
    // The newest step is ill, for half a minute is.
    let earlier = counted.steps_back(bad, step).take(STEPS).skip(1);
    let ill = earlier.take_while(|(_, share)| share.n > 0 && share.rate() > allowed);
    let since = ill.last().map_or(end.before(step), |(from, _)| from);
    Some((since.max(deployed), now.rate()))
}

/// Whether the others, or what the service depends on, have not been heard of since this began: whoever is asked seldom has
/// yet to say how it is.
pub(crate) fn word_is_awaited(
    now: Timestamp,
    onset: Timestamp,
    service: &ServiceName,
    (reliances, relies_on): (&BTreeMap<String, Reliance>, &[ServiceName]),
    around: Surroundings<'_>,
) -> bool {
    let callers = callers(service, around.roster);
    let mut others = around
        .roster
        .iter()
        .filter(|(name, n)| *name != service && n.present && !around.is_out_of_sight(name));
    // A first failure is no word yet: it takes two to be down, or that nobody contradicts it.
    let unclear = |r: &Reliance| {
        let first = r.failures == 1 && !r.is_left_at_that(now);
        is_late(now, onset, r.heard, r.every) || (first && r.failing.is_some_and(|at| at < onset + SHOWS))
    };
    // Nor is the first failed check of a service that it relies on.
    let hinted = |n: &Neighbour| {
        let first =
            n.ailing.as_ref().filter(|a| a.faint && a.until.is_none() && a.since <= onset + 2 * SHOWS);
        first.is_some_and(|a| now.since(a.since) < CONTRADICTED.max(n.every + SHOWS).min(MOST))
    };
    others.any(|(name, n)| {
        (!callers.contains(name.as_str()) && is_late(now, onset, n.heard, n.every))
            || (relies_on.contains(name) && hinted(n))
    }) || reliances.values().any(unclear)
}

/// Whether somebody who speaks `every` so often has last been heard of at `heard`, before what began at `onset` could show,
/// and can still be waited for: for what is usual and a bit more, but nobody for longer than the release may do harm.
fn is_late(now: Timestamp, onset: Timestamp, heard: Option<Timestamp>, every: Duration) -> bool {
    /// Whoever speaks more often than this is waited for as long, and so is whoever would not speak in time.
    const LEAST: Duration = Duration::from_secs(30);
    let patience = if every + SHOWS > MOST { LEAST } else { LEAST.max(every + SHOWS) };
    heard.is_some_and(|at| at < onset + SHOWS && now.since(at) < SILENT.max(patience))
        && now.since(onset) < patience
}

/// The services among what is depended on.
pub(crate) fn relies_on(settings: &ServiceSettings) -> Vec<ServiceName> {
    let named = settings.dependencies.values().filter_map(|dependency| match dependency {
        Dependency::Service(name) => Some(name.clone()),
        Dependency::Check(_) => None,
    });
    named.collect()
}
