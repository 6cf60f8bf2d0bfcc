//! A line: one channel with its own pace. What fails there holds nobody else up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::task::AbortHandle;

use super::alertmanager;
use super::letter::Letter;
use super::message::{Message, Sender};
use super::plan::{Channel, Medium};
use super::post::Failure;
use crate::core::Timestamp;
use crate::store::DeliveryState;

/// First pause after a failure; it doubles with each further one ...
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// ... up to this.
const PAUSE_MAX: Duration = Duration::from_secs(5 * 60);
/// A server that asks for more patience than this is asked again all the same.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);
/// News older than this is none: it is given up, loudly.
const AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The outbox is looked into at least this often, whatever was or was not heard.
const LOOK_AT_LEAST: Duration = Duration::from_secs(30);
/// A matter is over when its service has been well for this long: what flickers is one matter.
const SETTLED: Duration = Duration::from_secs(10);

/// How long the notifier pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pauses {
    /// After the first failure; doubled with each further one, and never undercut by a `Retry-After`.
    pub first: Duration,
    /// The longest that doubling leads to.
    pub longest: Duration,
    /// Between two looks into the outbox when nobody says that there is something in it.
    pub look: Duration,
    /// So long a service has to be well before its matter is over.
    pub settled: Duration,
    /// Between two times that Alertmanager is told of what is not over.
    pub again: Duration,
}

impl Default for Pauses {
    /// 1 s, 5 min, 30 s, 10 s, 1 min.
    fn default() -> Self {
        Self {
            first: PAUSE_MIN,
            longest: PAUSE_MAX,
            look: LOOK_AT_LEAST,
            settled: SETTLED,
            again: alertmanager::AGAIN,
        }
    }
}

/// A channel, and how it fares.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) channel: Channel,
    pub(super) sender: Arc<Sender>,
    /// Which attempt is under way: others that come back are of another line.
    pub(super) attempt: Option<(u64, AbortHandle)>,
    /// The server asked for silence until then.
    held: Timestamp,
    /// What failed is not tried again before.
    retry: Timestamp,
    /// Failures since it last worked.
    failures: u32,
    /// Alerts that are not over, by their subject, as Alertmanager heard of them.
    firing: BTreeMap<String, Value>,
    /// When it is told of them again.
    again: Timestamp,
}

impl Line {
    pub(super) fn new(channel: &Channel) -> Self {
        Self {
            sender: Arc::new(Sender::new(channel)),
            channel: channel.clone(),
            attempt: None,
            held: Timestamp::default(),
            retry: Timestamp::default(),
            failures: 0,
            firing: BTreeMap::new(),
            again: Timestamp::default(),
        }
    }

    pub(super) fn is_alertmanager(&self) -> bool {
        matches!(self.channel.medium, Medium::Alertmanager(_))
    }

    /// What is to be sent now: of what is due, what was tried least, then what is oldest. What was never tried does not
    /// wait for what failed, so that a message that nobody can take holds up none that they can.
    pub(super) fn due(&self, letters: &BTreeMap<u64, Letter>, now: Timestamp) -> Option<u64> {
        if self.attempt.is_some() || self.held > now {
            return None;
        }
        let candidates = self.first(letters).filter(|(_, _, at)| *at <= now);
        candidates.min_by_key(|(seq, attempts, _)| (*attempts, *seq)).map(|(seq, ..)| seq)
    }

    /// When something will be due, if nothing is said in between.
    pub(super) fn next(&self, letters: &BTreeMap<u64, Letter>) -> Option<Timestamp> {
        if self.attempt.is_some() {
            return None;
        }
        let waiting = self.first(letters).map(|(_, _, at)| at.max(self.held)).min();
        let again = (!self.firing.is_empty()).then(|| self.again.max(self.held));
        waiting.into_iter().chain(again).min()
    }

    /// What waits and nothing is before: its number, how often it was tried, and when it may be.
    fn first<'a>(
        &'a self,
        letters: &'a BTreeMap<u64, Letter>,
    ) -> impl Iterator<Item = (u64, u32, Timestamp)> + 'a {
        let mut before = std::collections::BTreeSet::new();
        let in_order = self.channel.medium.keeps_matters();
        letters.iter().filter_map(move |(seq, letter)| {
            let delivery = letter.delivery(&self.channel.name)?;
            if delivery.state != DeliveryState::Waiting {
                return None;
            }
            // A rollback is not complete before it is in progress, and no matter is over before it began.
            let a = &letter.announcement;
            let rollback = a.rollback.as_ref().map(|rollback| format!("rollback {rollback}"));
            let subject = in_order.then(|| format!("subject {}", letter.subject()));
            let mut is_first = true;
            for key in rollback.into_iter().chain(subject) {
                is_first &= before.insert(key);
            }
            let retry = if delivery.attempts > 0 { self.retry } else { Timestamp::default() };
            is_first.then_some((*seq, delivery.attempts, delivery.next.max(retry)))
        })
    }

    /// It took what was sent.
    pub(super) fn worked(&mut self) {
        (self.failures, self.retry, self.held) = (0, Timestamp::default(), Timestamp::default());
    }

    /// It did not: when it is tried again.
    pub(super) fn failed(
        &mut self,
        failure: &Failure,
        key: &str,
        now: Timestamp,
        pauses: &Pauses,
    ) -> Timestamp {
        let doubled = pauses.first.saturating_mul(1 << self.failures.min(16)).min(pauses.longest);
        self.failures = self.failures.saturating_add(1);
        self.retry = now + jittered(doubled, key);
        if let Some(asked) = failure.retry_after {
            // A server may ask for more patience, not for less: `Retry-After: 0` would be a busy loop.
            self.held = now + asked.min(RETRY_AFTER_MAX);
        }
        self.retry.max(self.held)
    }

    /// What an earlier process said again and again is said again now.
    pub(super) fn say_again_now(&mut self) {
        self.again = Timestamp::default();
    }

    /// Alertmanager was told of an alert.
    pub(super) fn heard(&mut self, subject: &str, message: &Message, now: Timestamp, pauses: &Pauses) {
        let Message::Alertmanager { alert } = message else { return };
        if alert["labels"]["alertname"] != "BackstopMatter" {
            return;
        }
        if alert.get("endsAt").is_none() {
            if self.firing.is_empty() {
                self.again = now + pauses.again;
            }
            self.firing.insert(subject.to_owned(), alert.clone());
        } else {
            self.firing.remove(subject);
        }
    }

    /// A matter is over: nothing is said of it again.
    pub(super) fn forget(&mut self, subject: &str) {
        self.firing.remove(subject);
    }

    /// What Alertmanager is told again now; empty if nothing.
    pub(super) fn again(&mut self, now: Timestamp, pauses: &Pauses) -> Vec<Value> {
        if self.attempt.is_some() || self.held > now || self.again > now || self.firing.is_empty() {
            return Vec::new();
        }
        self.again = now + pauses.again;
        self.firing.values().cloned().collect()
    }
}

/// Whether what was said is no news any more.
pub(super) fn is_old(said: Timestamp, now: Timestamp) -> bool {
    now.since(said) > AGE_MAX
}

/// Up to a quarter longer, by the announcement's key: many that failed together must not come back together.
fn jittered(pause: Duration, key: &str) -> Duration {
    let hash = key.bytes().fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
    pause + pause / 4 * (hash % 100) / 100
}
