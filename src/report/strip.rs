//! What was measured lately of every service, in slots of a quarter of a minute: the plots of incident reports.
//!
//! The core forgets what the release before was like as soon as another appears; a report has to show both. So the last
//! hour of each service is kept beside it, a few numbers a slot.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::core::Sketch;
use crate::core::Timestamp;
use crate::core::io::Input;
use crate::core::release::ServiceName;
use crate::core::sample::{Measurement, Signal, Took};

/// The length of a slot in milliseconds: as fine as a plot of an hour on a screen can show.
pub const SLOT: u64 = 15_000;
/// An hour: the half hour before a deployment, the trouble, and what came after it.
const SLOTS_MAX: usize = 240;
/// Services whose last hour is kept; a host with more is not one that we are made for.
const SERVICES_MAX: usize = 4096;

/// What was measured within one slot, replicas added up.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Slot {
    /// When it begins, in milliseconds since the epoch.
    pub at: u64,
    /// Requests that ended.
    pub requests: u64,
    /// How many of them failed.
    pub errors: u64,
    /// Their 99th percentile in seconds, if a histogram told it.
    pub p99: Option<f64>,
    /// How long they took on average in seconds, if only that was told.
    pub mean: Option<f64>,
    /// Health checks made.
    pub checks: u32,
    /// How many of them failed.
    pub failed: u32,
    /// The highest share of the memory limit in use.
    pub memory: Option<f64>,
    /// Error lines in the log.
    pub log_errors: Option<u64>,
}

#[derive(Debug, Default)]
struct Strip {
    slots: VecDeque<Slot>,
    /// Latencies of the newest slot.
    latency: Sketch,
    took: Took,
}

/// The last hour of every service.
#[derive(Debug, Default)]
pub struct Strips(BTreeMap<ServiceName, Strip>);

impl Strips {
    /// Takes in what the core is told.
    pub fn note(&mut self, now: Timestamp, input: &Input) {
        let Input::Sampled { service, signal, measurement, .. } = input else { return };
        if !self.0.contains_key(service) {
            if self.0.len() >= SERVICES_MAX {
                return;
            }
            self.0.insert(service.clone(), Strip::default());
        }
        if let Some(strip) = self.0.get_mut(service) {
            strip.take(now, *signal, measurement);
        }
    }

    /// What is known of a service, oldest first.
    pub fn of(&self, service: &ServiceName) -> Vec<Slot> {
        self.0.get(service).map_or_else(Vec::new, |strip| strip.slots.iter().cloned().collect())
    }
}

impl Strip {
    fn take(&mut self, now: Timestamp, signal: Signal, measurement: &Measurement) {
        let at = now.as_millis() / SLOT * SLOT;
        if self.slots.back().is_none_or(|slot| slot.at < at) {
            if self.slots.len() == SLOTS_MAX {
                self.slots.pop_front();
            }
            self.slots.push_back(Slot { at, ..Slot::default() });
            (self.latency, self.took) = (Sketch::default(), Took::default());
        }
        let Some(slot) = self.slots.back_mut() else { return };
        match (signal, measurement) {
            (Signal::Requests, Measurement::Requests(requests)) => {
                slot.requests = slot.requests.saturating_add(requests.total);
                slot.errors = slot.errors.saturating_add(requests.errors.min(requests.total));
                self.latency.add(&requests.latency);
                self.took.add(requests.took);
                slot.p99 = self.latency.exceeded_by(0.01);
                slot.mean = (!self.took.is_nothing()).then(|| self.took.mean());
            }
            (Signal::Health, Measurement::Check { ok, .. }) => {
                slot.checks = slot.checks.saturating_add(1);
                slot.failed = slot.failed.saturating_add(u32::from(!ok));
            }
            (Signal::Memory, Measurement::Level { used, limit }) if *limit > 0 => {
                let share = *used as f64 / *limit as f64;
                slot.memory = Some(slot.memory.map_or(share, |before| before.max(share)));
            }
            (Signal::Logs, Measurement::Count { count, .. }) => {
                slot.log_errors = Some(slot.log_errors.unwrap_or(0).saturating_add(*count));
            }
            _ => {}
        }
    }
}

/// Two recordings of the same service as one: of a slot that is in both, the later one knows more.
pub fn merged(first: Vec<Slot>, later: Vec<Slot>) -> Vec<Slot> {
    let mut all: BTreeMap<u64, Slot> = first.into_iter().map(|slot| (slot.at, slot)).collect();
    all.extend(later.into_iter().map(|slot| (slot.at, slot)));
    all.into_values().collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::sample::Requests;

    fn sampled(signal: Signal, measurement: Measurement) -> Input {
        Input::Sampled {
            service: ServiceName::new("shop"),
            replica: None,
            signal,
            name: String::new(),
            measurement,
        }
    }

    #[test]
    fn slots_are_added_up_and_bounded() {
        let mut strips = Strips::default();
        let requests = || {
            let requests = Requests { total: 10, errors: 1, ..Requests::default() };
            sampled(Signal::Requests, Measurement::Requests(requests))
        };
        let check = |ok| Measurement::Check { ok, detail: String::new(), latency: Duration::from_millis(5) };
        for s in 0..6_000 {
            strips.note(Timestamp::from_secs(1_000_000 + s), &requests());
        }
        let end = Timestamp::from_secs(1_000_000 + 5_999);
        strips.note(end, &sampled(Signal::Health, check(true)));
        strips.note(end, &sampled(Signal::Health, check(false)));
        strips.note(end, &sampled(Signal::Memory, Measurement::Level { used: 9, limit: 10 }));
        strips.note(end, &Input::Tick);
        let slots = strips.of(&ServiceName::new("shop"));
        assert_eq!(slots.len(), SLOTS_MAX);
        assert_eq!((slots[10].requests, slots[10].errors), (150, 15));
        let last = slots.last().unwrap();
        assert_eq!((last.checks, last.failed, last.memory), (2, 1, Some(0.9)));
        assert!(strips.of(&ServiceName::new("nobody")).is_empty());
    }

    #[test]
    fn of_two_recordings_the_later_one_knows_more() {
        let slot = |at, requests| Slot { at, requests, ..Slot::default() };
        let all = merged(vec![slot(0, 1), slot(SLOT, 1)], vec![slot(SLOT, 5), slot(2 * SLOT, 2)]);
        assert_eq!(all.iter().map(|s| s.requests).collect::<Vec<_>>(), [1, 5, 2]);
    }
}
