//! Evidence: the samples of one service under its current release, kept only as long as a rule can ask for them.
//!
//! A new release starts with empty windows; what they held of the release before it is summed up in [`Before`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::release::ReplicaId;
use super::sample::{Measurement, Signal};
use super::snapshot::SampleCounts;
use super::time::Timestamp;

/// Attempts in a row that measure nothing before a check counts as not measurable (as in Argo Rollouts).
pub(crate) const ERRORS_IN_A_ROW: u32 = 4;
/// Longest window any shipped row asks for is 15 min; memory is sampled every 5 s: 180 samples, with room.
const SAMPLES_MAX: usize = 512;
/// A crash loop backs off to one exit a minute; more than this within a window changes no verdict.
const EXITS_MAX: usize = 64;
/// How far back "before the deployment" reaches for health (decision.md, 4.2) ...
const BEFORE_HEALTH: Duration = Duration::from_secs(5 * 60);
/// ... and for memory.
const BEFORE_MEMORY: Duration = Duration::from_secs(10 * 60);
/// A container that is stopped may fail its checks for this long before it ends: Docker waits 10 s.
const STOPPING: Duration = Duration::from_secs(15);
/// Without a sample for this long, a level is not "sustained": nobody looked.
const LEVEL_GAP: Duration = Duration::from_secs(30);

/// Everything measured of one service since its current release appeared.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Evidence {
    /// HTTP checks, by where they were made: a replica, or the service's URL (none).
    pub(crate) checks: BTreeMap<Option<ReplicaId>, Streak>,
    /// Memory, by replica.
    pub(crate) levels: BTreeMap<ReplicaId, Levels>,
    /// Exits nobody asked for, with a code other than zero.
    pub(crate) exits: VecDeque<(Timestamp, Option<i64>)>,
    /// Kills for want of memory.
    pub(crate) oom_kills: VecDeque<Timestamp>,
    /// Replicas found down, since when and how.
    pub(crate) down: BTreeMap<ReplicaId, (Timestamp, String)>,
    /// Replicas whose HEALTHCHECK says unhealthy, since when and its output.
    pub(crate) unhealthy: BTreeMap<ReplicaId, (Timestamp, String)>,
    /// Health results in order of time, for "was it bad before?".
    recent: VecDeque<(Timestamp, bool)>,
}

/// A run of equal results of one check.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Streak {
    /// Failures in a row up to now.
    pub(crate) failures: u32,
    /// The first and the last of them.
    pub(crate) failing: Option<(Timestamp, Timestamp)>,
    /// Successes in a row up to now.
    pub(crate) successes: u32,
    /// It has succeeded since the release appeared.
    pub(crate) succeeded: bool,
    /// All results so far.
    pub(crate) samples: u32,
    /// What the last result looked like.
    pub(crate) last: String,
    /// Attempts in a row that measured nothing, since when, and why.
    pub(crate) unavailable: Option<(u32, Timestamp, String)>,
}

/// Memory samples of one replica.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Levels {
    /// When, bytes used, limit.
    pub(crate) samples: VecDeque<(Timestamp, u64, u64)>,
    /// Why the last attempt measured nothing.
    pub(crate) unavailable: Option<String>,
    /// Why there is nothing to measure.
    pub(crate) not_applicable: Option<String>,
}

/// How bad each signal was when the current release appeared: what it cannot be blamed for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Before {
    /// Failed and all health checks of the five minutes before.
    pub(crate) health: (u32, u32),
    /// A HEALTHCHECK said unhealthy.
    pub(crate) unhealthy: bool,
    /// Exits within the crash-loop row's window.
    pub(crate) exits: u32,
    /// Kills for want of memory within the `oom` row's window.
    pub(crate) oom_kills: u32,
    /// Median share of the limit over the ten minutes before.
    pub(crate) memory: Option<f64>,
}

impl Evidence {
    /// Takes in one result. Returns what it counts as, to be added up.
    pub(crate) fn record(
        &mut self,
        now: Timestamp,
        replica: Option<ReplicaId>,
        signal: Signal,
        measurement: Measurement,
    ) -> SampleCounts {
        let (good, bad, error) = (
            SampleCounts { healthy: 1, ..SampleCounts::default() },
            SampleCounts { unhealthy: 1, ..SampleCounts::default() },
            SampleCounts { error: 1, ..SampleCounts::default() },
        );
        match (signal, measurement) {
            (Signal::Health, Measurement::Check { ok, detail, .. }) => {
                bounded(&mut self.recent, (now, ok), SAMPLES_MAX);
                self.checks.entry(replica).or_default().check(now, ok, detail);
                if ok { good } else { bad }
            }
            (Signal::Health, Measurement::Unavailable { why }) => {
                self.checks.entry(replica).or_default().unavailable(now, why);
                error
            }
            (Signal::Memory, Measurement::Level { used, limit }) => {
                let Some(replica) = replica else {
                    return SampleCounts::default();
                };
                let levels = self.levels.entry(replica).or_default();
                (levels.unavailable, levels.not_applicable) = (None, None);
                bounded(&mut levels.samples, (now, used, limit), SAMPLES_MAX);
                good
            }
            (Signal::Memory, Measurement::Unavailable { why }) => {
                let Some(replica) = replica else {
                    return SampleCounts::default();
                };
                self.levels.entry(replica).or_default().unavailable = Some(why);
                error
            }
            (Signal::Memory, Measurement::NotApplicable { why }) => {
                let Some(replica) = replica else { return SampleCounts::default() };
                self.levels.insert(replica, Levels { not_applicable: Some(why), ..Levels::default() });
                SampleCounts::default()
            }
            // A measurement that does not fit its signal says nothing about the service.
            _ => SampleCounts::default(),
        }
    }

    /// Takes in an exit that nobody asked for.
    pub(crate) fn exited(&mut self, now: Timestamp, code: Option<i64>, oom: bool) {
        if oom {
            bounded(&mut self.oom_kills, now, EXITS_MAX);
        }
        if oom || code != Some(0) {
            bounded(&mut self.exits, (now, code), EXITS_MAX);
        }
    }

    /// Somebody is stopping a replica: what failed just now failed because of that, and is not held against it later.
    pub(crate) fn forgive_the_stop(&mut self, now: Timestamp) {
        while self.recent.back().is_some_and(|(at, ok)| !ok && now.since(*at) <= STOPPING) {
            self.recent.pop_back();
        }
    }

    /// Starts the windows anew: what was seen until now says nothing. What is still so counts from now on.
    pub(crate) fn void(&mut self, now: Timestamp) {
        let old = std::mem::take(self);
        self.down = old.down.into_iter().map(|(id, (_, how))| (id, (now, how))).collect();
        self.unhealthy = old.unhealthy.into_iter().map(|(id, (_, how))| (id, (now, how))).collect();
    }

    /// Forgets replicas that are gone, so that their last words are not held against those that follow.
    pub(crate) fn retain(&mut self, alive: impl Fn(&ReplicaId) -> bool) {
        self.checks.retain(|r, _| r.as_ref().is_none_or(&alive));
        self.levels.retain(|r, _| alive(r));
        self.down.retain(|r, _| alive(r));
        self.unhealthy.retain(|r, _| alive(r));
    }

    /// Exits and kills within `within` before `now`.
    pub(crate) fn exits_within(
        &self,
        now: Timestamp,
        within: Duration,
    ) -> impl Iterator<Item = &(Timestamp, Option<i64>)> {
        self.exits.iter().filter(move |(at, _)| now.since(*at) <= within)
    }

    /// Sums up what the release that is leaving now was like. Exits count within `exits` before `now`, kills for want
    /// of memory within `kills`: what happened weeks ago excuses nothing.
    pub(crate) fn sum_up(&self, now: Timestamp, exits: Duration, kills: Duration) -> Before {
        let recent = self.recent.iter().filter(|(at, _)| now.since(*at) <= BEFORE_HEALTH);
        let (mut failed, mut all) = (0, 0);
        for (_, ok) in recent {
            all += 1;
            failed += u32::from(!ok);
        }
        let mut shares: Vec<f64> = self
            .levels
            .values()
            .flat_map(|l| l.samples.iter())
            .filter(|(at, _, limit)| now.since(*at) <= BEFORE_MEMORY && *limit > 0)
            .map(|(_, used, limit)| *used as f64 / *limit as f64)
            .collect();
        shares.sort_by(f64::total_cmp);
        Before {
            health: (failed, all),
            unhealthy: !self.unhealthy.is_empty(),
            exits: count(self.exits_within(now, exits).count()),
            oom_kills: count(self.oom_kills.iter().filter(|at| now.since(**at) <= kills).count()),
            memory: shares.get(shares.len() / 2).copied(),
        }
    }
}

impl Streak {
    fn check(&mut self, now: Timestamp, ok: bool, detail: String) {
        if self.unavailable.take().is_some_and(|(attempts, ..)| attempts >= ERRORS_IN_A_ROW) {
            // Nobody knows how it was meanwhile: what was seen before is not "in a row" with what is seen now.
            (self.failures, self.failing, self.successes) = (0, None, 0);
        }
        self.samples = self.samples.saturating_add(1);
        self.last = detail;
        if ok {
            self.failures = 0;
            self.failing = None;
            self.successes = self.successes.saturating_add(1);
            self.succeeded = true;
        } else {
            self.failures = self.failures.saturating_add(1);
            self.failing = Some((self.failing.map_or(now, |(first, _)| first), now));
            self.successes = 0;
        }
    }

    fn unavailable(&mut self, now: Timestamp, why: String) {
        // Neither failure nor success: the streaks stand, and nothing is added to them.
        let (attempts, since) = self.unavailable.take().map_or((0, now), |(n, since, _)| (n, since));
        self.unavailable = Some((attempts.saturating_add(1), since, why));
    }
}

impl Levels {
    /// Since when, and over how many samples, every sample was above `threshold`, counting from `from`.
    pub(crate) fn above(&self, threshold: f64, from: Timestamp) -> Option<(Timestamp, u32)> {
        let mut since: Option<(Timestamp, u32)> = None;
        let mut later: Option<Timestamp> = None;
        for (at, used, limit) in self.samples.iter().rev() {
            let gap = later.is_some_and(|later| later.since(*at) > LEVEL_GAP);
            let over = *limit > 0 && *used as f64 > *limit as f64 * threshold;
            if *at < from || gap || !over {
                break;
            }
            since = Some((*at, since.map_or(1, |(_, n)| n + 1)));
            later = Some(*at);
        }
        since
    }

    /// The highest share of the limit within `within` before `now`.
    pub(crate) fn peak(&self, now: Timestamp, within: Duration) -> Option<f64> {
        self.samples
            .iter()
            .filter(|(at, _, limit)| now.since(*at) <= within && *limit > 0)
            .map(|(_, used, limit)| *used as f64 / *limit as f64)
            .max_by(f64::total_cmp)
    }
}

fn bounded<T>(queue: &mut VecDeque<T>, item: T, max: usize) {
    if queue.len() == max {
        queue.pop_front();
    }
    queue.push_back(item);
}

/// A length as a count; more than four thousand million of anything is "many".
pub(crate) fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
