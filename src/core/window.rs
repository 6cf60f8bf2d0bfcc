//! Evidence: the samples of one service under its current release, kept only as long as a rule can ask for them.
//!
//! A new release starts with empty windows; what they held of the release before it is summed up in [`Before`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::baseline::Norm;
use super::pace::{Pace, Rhythm};
use super::release::ReplicaId;
use super::sample::{Measurement, Signal, Took};
use super::snapshot::SampleCounts;
use super::spells::Recurring;
use super::streak::{Levels, Streak};
use super::time::Timestamp;
use super::traffic::Traffic;

/// Health results kept for "was it bad before?": five minutes of many replicas.
const RECENT_MAX: usize = 512;
/// A crash loop backs off to one exit a minute; more than this within a window changes no verdict.
const EXITS_MAX: usize = 64;
/// Checks of one service whose pace is kept; who has more has renamed them.
const CHECKS_MAX: usize = 32;
/// Reports kept: three are a verdict.
const REPORTS_MAX: usize = 256;
/// Alerts of one service kept: more than that are one big alarm.
const ALERTS_MAX: usize = 64;
/// Counts of log lines kept: an hour at one every ten seconds.
const COUNTS_MAX: usize = 360;
/// Shares of throttled time kept: ten minutes at one every five seconds, of a few replicas.
const SHARES_MAX: usize = 360;
/// How far back "before the deployment" reaches for health (decision.md, 4.2) ...
const BEFORE_HEALTH: Duration = Duration::from_secs(5 * 60);
/// ... and for memory.
const BEFORE_MEMORY: Duration = Duration::from_secs(10 * 60);
/// A container that is stopped may fail its checks for this long before it ends: Docker waits 10 s.
const STOPPING: Duration = Duration::from_secs(15);
/// Replicas that end this shortly before the next release is seen made room for it (decision.md, 4.2).
const LEAVING: Duration = Duration::from_secs(15);
/// An alert that nobody repeated for this long has been forgotten by its sender: Alertmanager repeats every 4 h, and
/// people who want fewer messages set it to half a day or a day.
const ALERT_FORGOTTEN: Duration = Duration::from_secs(25 * 60 * 60);
/// Counts of different replicas that come within this time are one.
const COUNT_BIN: Duration = Duration::from_secs(5);

/// A check: its name, and where it was made: at a replica, or for the service as a whole (none).
pub(crate) type Asked = (String, Option<ReplicaId>);

/// Everything measured of one service since its current release appeared.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Evidence {
    /// What was measured before this says nothing about the release: it was void.
    pub(crate) since: Timestamp,
    pub(crate) checks: BTreeMap<Asked, Streak>,
    pub(crate) traffic: Traffic,
    /// How long requests took, where the source tells only the sum.
    #[serde(default)]
    pub(crate) pace: Pace,
    /// How long our own checks took that passed, by name.
    #[serde(default)]
    pub(crate) checks_took: BTreeMap<String, Pace>,
    /// Memory, by replica.
    pub(crate) levels: BTreeMap<ReplicaId, Levels>,
    /// The share of time in which the CPU limit held a replica back.
    pub(crate) throttled: VecDeque<(Timestamp, f64)>,
    /// Exits nobody asked for, with a code other than zero.
    pub(crate) exits: VecDeque<(Timestamp, Option<i64>)>,
    /// Kills for want of memory.
    pub(crate) oom_kills: VecDeque<Timestamp>,
    /// Replicas found down, since when and how.
    pub(crate) down: BTreeMap<ReplicaId, (Timestamp, String)>,
    /// Replicas whose HEALTHCHECK says unhealthy, since when and its output.
    pub(crate) unhealthy: BTreeMap<ReplicaId, (Timestamp, String)>,
    /// Error lines in the log.
    pub(crate) log_errors: VecDeque<Counted>,
    /// The last error line.
    pub(crate) last_log_error: String,
    /// When, by whom, and what was said.
    pub(crate) reports: VecDeque<(Timestamp, String, String)>,
    /// Alerts that are firing, by name.
    pub(crate) alerts: BTreeMap<String, Alarm>,
    /// Signals that the last attempts did not measure: how often in a row, since when and why.
    pub(crate) unmeasured: BTreeMap<Signal, (u32, Timestamp, String)>,
    /// Signals that do not apply, and why.
    pub(crate) not_applicable: BTreeMap<Signal, String>,
    /// Health results in order of time, for "was it bad before?".
    recent: VecDeque<(Timestamp, bool)>,
}

/// Events counted in a time.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Counted {
    pub(crate) at: Timestamp,
    pub(crate) window: Duration,
    pub(crate) count: u64,
}

/// An alert that is firing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Alarm {
    /// Since when we know of it.
    pub(crate) since: Timestamp,
    /// When it was last said to be firing.
    heard: Timestamp,
    pub(crate) summary: String,
}

/// How bad each signal was when the current release appeared: what it cannot be blamed for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Before {
    /// Failed and all health checks of the five minutes before.
    pub(crate) health: (u32, u32),
    /// How long the first of those that failed was before the last.
    pub(crate) health_for: Duration,
    /// A HEALTHCHECK said unhealthy.
    pub(crate) unhealthy: bool,
    /// Exits within the crash-loop row's window.
    pub(crate) exits: u32,
    /// Exits within six times that.
    pub(crate) exits_lately: u32,
    /// It was seen long enough to say that it had no exits at all.
    pub(crate) never_exited: bool,
    /// Kills for want of memory within the `oom` row's window.
    pub(crate) oom_kills: u32,
    /// Median share of the limit over the ten minutes before.
    pub(crate) memory: Option<f64>,
    /// What its traffic was like.
    pub(crate) norm: Norm,
    /// What came and went by itself, by row.
    pub(crate) recurring: BTreeMap<String, Recurring>,
}

impl Evidence {
    /// Takes in one result. Returns what it counts as, to be added up.
    pub(crate) fn record(
        &mut self,
        now: Timestamp,
        replica: Option<ReplicaId>,
        signal: Signal,
        name: String,
        measurement: Measurement,
    ) -> SampleCounts {
        let good = SampleCounts { healthy: 1, ..SampleCounts::default() };
        let bad = SampleCounts { unhealthy: 1, ..SampleCounts::default() };
        match measurement {
            Measurement::Unavailable { why } => return self.unmeasured(now, replica, signal, name, why),
            Measurement::NotApplicable { why } => {
                self.does_not_apply(replica, signal, why);
                return SampleCounts::default();
            }
            Measurement::Check { ok, detail, latency } => {
                if ok && signal == Signal::Health && !latency.is_zero() {
                    // One that failed took as long as its timeout, or no time: that says nothing of slowness.
                    let took = Took { requests: 1, seconds: latency.as_secs_f64() };
                    self.took(&name).add(now, took);
                }
                bounded(&mut self.recent, (now, ok), RECENT_MAX);
                self.checks.entry((name, replica)).or_default().check(now, ok, detail);
                return if ok { good } else { bad };
            }
            Measurement::Level { used, limit } => {
                let Some(replica) = replica else { return SampleCounts::default() };
                self.levels.entry(replica).or_default().add(now, used, limit);
            }
            Measurement::Share { share, .. } => {
                bounded(&mut self.throttled, (now, share.clamp(0.0, 1.0)), SHARES_MAX);
            }
            Measurement::Requests(requests) => {
                self.traffic.add(now, &requests);
                self.pace.add_requests(now, &requests);
            }
            Measurement::Count { count, window, last } => self.count_lines(now, count, window, last),
            Measurement::Report { reporter, text } => {
                bounded(&mut self.reports, (now, reporter, text), REPORTS_MAX);
                return bad;
            }
            Measurement::Alert { firing, began, summary } => {
                let began = began.filter(|_| firing).map_or(now, |began| began.min(now));
                self.alert(now, name, firing.then_some(began), summary);
                return if firing { bad } else { good };
            }
        }
        self.unmeasured.remove(&signal);
        self.not_applicable.remove(&signal);
        good
    }

    fn took(&mut self, check: &str) -> &mut Pace {
        // Who renames checks all the time does not fill the memory: the names that are left are those in use.
        if self.checks_took.len() >= CHECKS_MAX && !self.checks_took.contains_key(check) {
            self.checks_took.retain(|name, _| self.checks.keys().any(|(asked, _)| asked == name));
        }
        self.checks_took.entry(check.to_owned()).or_default()
    }

    /// What was normal in the time `within` before `now`.
    pub(crate) fn norm(&self, now: Timestamp, within: Duration) -> Norm {
        let rhythm = |pace| Rhythm::of(pace, now, within);
        let checks = self.checks_took.iter().filter_map(|(name, pace)| Some((name.clone(), rhythm(pace)?)));
        let pace = rhythm(&self.pace);
        Norm { pace, checks: checks.collect(), ..Norm::of(&self.traffic, now, within) }
    }

    fn unmeasured(
        &mut self,
        now: Timestamp,
        replica: Option<ReplicaId>,
        signal: Signal,
        name: String,
        why: String,
    ) -> SampleCounts {
        match (signal, replica) {
            (Signal::Health, replica) => {
                self.checks.entry((name, replica)).or_default().unavailable(now, why);
            }
            (Signal::Memory, Some(replica)) => {
                self.levels.entry(replica).or_default().unavailable = Some(why)
            }
            (
                Signal::ContainerHealth
                | Signal::Exits
                | Signal::OomKills
                | Signal::Memory
                | Signal::Cpu
                | Signal::Requests
                | Signal::Logs
                | Signal::Reports
                | Signal::Alerts
                | Signal::Dependencies,
                _,
            ) => {
                let (n, since) = self.unmeasured.get(&signal).map_or((0, now), |(n, since, _)| (*n, *since));
                self.unmeasured.insert(signal, (n.saturating_add(1), since, why));
            }
        }
        SampleCounts { error: 1, ..SampleCounts::default() }
    }

    fn does_not_apply(&mut self, replica: Option<ReplicaId>, signal: Signal, why: String) {
        match replica {
            Some(replica) if signal == Signal::Memory => {
                self.levels.insert(replica, Levels { not_applicable: Some(why), ..Levels::default() });
            }
            Some(_) | None => {
                self.not_applicable.insert(signal, why);
            }
        }
    }

    fn count_lines(&mut self, now: Timestamp, count: u64, window: Duration, last: String) {
        if !last.is_empty() {
            self.last_log_error = last;
        }
        // Replicas are added up.
        match self.log_errors.back_mut().filter(|counted| now.since(counted.at) < COUNT_BIN) {
            Some(counted) => {
                counted.count = counted.count.saturating_add(count);
                // A second count of the same source covers the time since the first one.
                counted.window = counted.window.max(now.since(counted.at) + window.min(COUNT_BIN));
            }
            None => bounded(&mut self.log_errors, Counted { at: now, window, count }, COUNTS_MAX),
        }
    }

    fn alert(&mut self, now: Timestamp, name: String, firing: Option<Timestamp>, summary: String) {
        self.alerts.retain(|_, alarm| now.since(alarm.heard) < ALERT_FORGOTTEN);
        match firing {
            None => _ = self.alerts.remove(&name),
            Some(began) if self.alerts.len() < ALERTS_MAX || self.alerts.contains_key(&name) => {
                let since = self.alerts.get(&name).map_or(began, |alarm| alarm.since);
                self.alerts.insert(name, Alarm { since, heard: now, summary });
            }
            Some(_) => {}
        }
    }

    /// When a check last had a result, and how long that was after the one before.
    pub(crate) fn last_checked(&self) -> Option<(Timestamp, Duration)> {
        let last = |streak: &Streak| {
            let mut results = streak.results.iter().rev().map(|(at, _)| *at);
            let at = results.next()?;
            Some((at, results.next().map_or(Duration::ZERO, |before| at.since(before))))
        };
        self.checks.values().filter_map(last).max()
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

    /// Starts the windows anew: what was seen until now says nothing. What is still so counts from now on. Memory and
    /// traffic are kept to be compared with later; what they said before `now` counts against nobody.
    pub(crate) fn void(&mut self, now: Timestamp) {
        let old = std::mem::take(self);
        let afresh = |(id, (_, how)): (ReplicaId, (Timestamp, String))| (id, (now, how));
        *self = Self {
            since: now,
            traffic: old.traffic,
            pace: old.pace,
            checks_took: old.checks_took,
            levels: old.levels,
            log_errors: old.log_errors,
            down: old.down.into_iter().map(afresh).collect(),
            unhealthy: old.unhealthy.into_iter().map(afresh).collect(),
            // When one began to fire is known, and stays what it was.
            alerts: old.alerts,
            not_applicable: old.not_applicable,
            // What could not be measured still cannot, until it is.
            unmeasured: old.unmeasured,
            ..Self::default()
        };
    }

    /// Empty windows for the next release. Alerts go on: they do not begin with it.
    pub(crate) fn successor(&mut self) -> Self {
        Self { alerts: std::mem::take(&mut self.alerts), ..Self::default() }
    }

    /// Forgets replicas that are gone, so that their last words are not held against those that follow.
    pub(crate) fn retain(&mut self, alive: impl Fn(&ReplicaId) -> bool) {
        self.checks.retain(|(_, r), _| r.as_ref().is_none_or(&alive));
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

    /// Error lines a minute in `(from, to]`, and how long that was measured; none if it was not.
    pub(crate) fn log_errors_per_minute(&self, from: Timestamp, to: Timestamp) -> Option<(f64, u64)> {
        let (mut count, mut time, mut before) = (0_u64, Duration::ZERO, None::<Timestamp>);
        for counted in self.log_errors.iter().filter(|counted| counted.at > from && counted.at <= to) {
            count = count.saturating_add(counted.count);
            // Replicas that speak one after the other speak of the same time, which passes once.
            time += before.map_or(counted.window, |before| counted.window.min(counted.at.since(before)));
            before = Some(counted.at);
        }
        (!time.is_zero()).then(|| (count as f64 * 60.0 / time.as_secs_f64(), count))
    }

    /// Sums up what the release that is leaving now was like. Exits count within `exits` before `now`, kills for want
    /// of memory within `kills`: what happened weeks ago excuses nothing. Traffic counts within `baseline`.
    pub(crate) fn sum_up(
        &self,
        now: Timestamp,
        exits: Duration,
        kills: Duration,
        baseline: Duration,
    ) -> Before {
        let recent = self.recent.iter().filter(|(at, _)| now.since(*at) <= BEFORE_HEALTH);
        let all = count(recent.clone().count());
        let failed: Vec<Timestamp> = recent.filter(|(_, ok)| !ok).map(|(at, _)| *at).collect();
        let health_for = failed.first().zip(failed.last()).map(|(first, last)| last.since(*first));
        let mut shares: Vec<f64> =
            self.levels.values().flat_map(|l| l.shares(now, BEFORE_MEMORY)).map(|(_, share)| share).collect();
        shares.sort_by(f64::total_cmp);
        let log_errors = self.log_errors_per_minute(now.before(baseline), now).map(|(rate, _)| rate);
        Before {
            health: (count(failed.len()), all),
            health_for: health_for.unwrap_or_default(),
            unhealthy: !self.unhealthy.is_empty(),
            exits: count(self.exits_within(now, exits).count()),
            exits_lately: count(self.exits_within(now, 6 * exits).count()),
            // The old replicas end as the new ones begin, with whatever code.
            never_exited: self.exits.iter().all(|(at, _)| now.since(*at) <= LEAVING),
            oom_kills: count(self.oom_kills.iter().filter(|at| now.since(**at) <= kills).count()),
            memory: shares.get(shares.len() / 2).copied(),
            norm: Norm { log_errors, ..self.norm(now, baseline) },
            recurring: BTreeMap::new(),
        }
    }
}

/// Adds to a queue that forgets its oldest.
pub(crate) fn bounded<T>(queue: &mut VecDeque<T>, item: T, max: usize) {
    if queue.len() == max {
        queue.pop_front();
    }
    queue.push_back(item);
}

/// A length as a count; more than four thousand million of anything is "many".
pub(crate) fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
