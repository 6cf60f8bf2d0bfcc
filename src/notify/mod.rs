//! Announcing: takes announcements out of the durable outbox and delivers them, at least once each.
//!
//! It never delays a rollback (nobody waits for it), never says the same thing with different words (what is
//! delivered is what was stored), and is never silent about a message it gave up: that is logged and counted.

mod webhook;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use self::webhook::{Failure, Webhook};
use crate::clock::Clock;
use crate::core::Timestamp;
use crate::core::announcement::Announcement;
use crate::core::release::RollbackId;
use crate::store::{Outgoing, Store, StoreError, Unrecorded};

/// First pause after a failure; it doubles with each further one ...
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// ... up to this.
const PAUSE_MAX: Duration = Duration::from_secs(5 * 60);
/// A server that asks for more patience than this is asked again all the same.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);
/// News older than this is none: it is given up, loudly.
const AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Taken out of the outbox at a time.
const BATCH: u32 = 16;
/// Announcements kept in memory while the store does not take them; the oldest are dropped, loudly.
const MEMORY_MAX: usize = 256;
/// The outbox is looked into at least this often, whatever was or was not heard.
const LOOK_AT_LEAST: Duration = Duration::from_secs(30);

/// Where announcements go.
#[derive(Debug, Clone)]
pub struct WebhookTarget {
    /// The URL: it carries its own authorization, so it is a secret.
    pub url: SecretString,
    /// How long a delivery may take.
    pub timeout: Duration,
}

impl WebhookTarget {
    fn is(&self, other: &Self) -> bool {
        self.timeout == other.timeout && self.url.expose_secret() == other.url.expose_secret()
    }
}

/// Counts outcomes: `delivered`, `retried`, `abandoned`, `no_channel`.
pub type Outcomes = Arc<dyn Fn(&'static str) + Send + Sync>;

/// How long the notifier pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pauses {
    /// After the first failure; doubled with each further one, and never undercut by a `Retry-After`.
    pub first: Duration,
    /// The longest that doubling leads to.
    pub longest: Duration,
    /// Between two looks into the outbox when nobody says that there is something in it.
    pub look: Duration,
}

impl Default for Pauses {
    /// 1 s, 5 min, 30 s.
    fn default() -> Self {
        Self { first: PAUSE_MIN, longest: PAUSE_MAX, look: LOOK_AT_LEAST }
    }
}

/// Delivers announcements until told to stop.
#[derive(Debug)]
pub struct Notifier {
    store: Option<Store>,
    clock: Clock,
    pauses: Pauses,
    shared: Arc<Shared>,
    rounds: watch::Sender<Rounds>,
    /// What became of announcements and could not be written into the outbox; bounded by what waits there.
    unrecorded: BTreeMap<i64, Fate>,
    /// The outbox fails, which has been said.
    outbox_fails: bool,
}

/// What the notifier is told.
#[derive(Debug, Clone)]
pub struct NotifierHandle {
    shared: Arc<Shared>,
    rounds: watch::Receiver<Rounds>,
}

struct Shared {
    wake: Notify,
    memory: Mutex<VecDeque<Remembered>>,
    outcomes: Outcomes,
}

/// Rounds of deliveries that began, and the last one that went to its end.
#[derive(Debug, Clone, Copy, Default)]
struct Rounds {
    begun: u64,
    ended: u64,
}

/// An announcement that the store did not take.
#[derive(Debug, Clone)]
struct Remembered {
    announcement: Announcement,
    attempts: u32,
    next: Timestamp,
}

/// What became of an announcement.
#[derive(Debug, Clone)]
enum Fate {
    Delivered(Timestamp),
    Abandoned { at: Timestamp, why: String },
    Postponed { next: Timestamp, attempts: u32, why: String },
}

impl NotifierHandle {
    /// There is something new in the outbox.
    pub fn wake(&self) {
        self.shared.wake.notify_one();
    }

    /// The store did not take it: it is delivered from memory, and lost if the process ends before.
    pub fn send_now(&self, announcement: Announcement) {
        let mut memory = self.shared.memory();
        if memory.iter().any(|m| m.announcement.key == announcement.key) {
            return;
        }
        if memory.len() >= MEMORY_MAX
            && let Some(lost) = memory.pop_front()
        {
            error!(
                title = lost.announcement.title,
                "never announced: neither the store nor the channel took it; next: backstop status"
            );
            (self.shared.outcomes)("abandoned");
        }
        memory.push_back(Remembered { announcement, attempts: 0, next: Timestamp::default() });
        drop(memory);
        self.shared.wake.notify_one();
    }

    /// Waits until everything that was due was tried, and until what is only in memory was delivered: that would be
    /// lost. At most for `deadline`.
    pub async fn drain(&self, deadline: Duration) {
        let mut rounds = self.rounds.clone();
        let drained = async {
            // A round that is under way may have passed over what was put in just now.
            let mut wanted = rounds.borrow().begun + 1;
            self.shared.wake.notify_one();
            while let Ok(now) = rounds.wait_for(|r| r.ended >= wanted).await.map(|r| *r) {
                if self.shared.memory().is_empty() {
                    return;
                }
                wanted = now.ended + 1;
            }
        };
        if tokio::time::timeout(deadline, drained).await.is_err() {
            warn!("announcements may still wait in the outbox; they are delivered at the next start");
        }
        for lost in self.shared.memory().iter() {
            let title = &lost.announcement.title;
            error!(title, "not announced: the store did not take it, and it is lost when this process ends");
        }
    }
}

impl Shared {
    fn memory(&self) -> MutexGuard<'_, VecDeque<Remembered>> {
        // A panic elsewhere leaves a list of messages, which is as good as before.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("memory", &self.memory().len()).finish_non_exhaustive()
    }
}

impl Notifier {
    /// A notifier for `store`, and the handle that wakes it. `outcomes` is called with the outcome of each attempt.
    pub fn new(store: Option<Store>, clock: Clock, outcomes: Outcomes) -> (Self, NotifierHandle) {
        let shared = Arc::new(Shared { wake: Notify::new(), memory: Mutex::default(), outcomes });
        let rounds = watch::Sender::new(Rounds::default());
        let handle = NotifierHandle { shared: Arc::clone(&shared), rounds: rounds.subscribe() };
        let notifier = Self {
            store,
            clock,
            pauses: Pauses::default(),
            shared,
            rounds,
            unrecorded: BTreeMap::new(),
            outbox_fails: false,
        };
        (notifier, handle)
    }

    /// The same with other pauses.
    #[must_use]
    pub fn with_pauses(self, pauses: Pauses) -> Self {
        Self { pauses, ..self }
    }

    /// Delivers until `stop`. The target may change at any time; without one, announcements are done when logged.
    pub async fn run(mut self, mut target: watch::Receiver<Option<WebhookTarget>>, stop: CancellationToken) {
        let mut current = target.borrow_and_update().clone();
        let mut webhook = Webhook::new(current.as_ref());
        // Whatever an earlier process waited for is over, and its clock may have been ahead of ours.
        self.hasten().await;
        loop {
            self.rounds.send_modify(|r| r.begun += 1);
            let round = stop.run_until_cancelled(self.round(webhook.as_ref(), &target)).await;
            let pause = match round {
                None => return,
                Some(None) => Duration::ZERO,
                Some(Some(pause)) => {
                    self.rounds.send_modify(|r| r.ended = r.begun);
                    pause
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Ok(()) = target.changed() => {
                    let new = target.borrow_and_update().clone();
                    if !same(current.as_ref(), new.as_ref()) {
                        webhook = Webhook::new(new.as_ref());
                        self.hasten().await;
                    }
                    current = new;
                }
                () = self.shared.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Delivers what is due now. Returns how long nothing else will be; nothing if the target changed before the end.
    async fn round(
        &mut self,
        webhook: Option<&Webhook>,
        target: &watch::Receiver<Option<WebhookTarget>>,
    ) -> Option<Duration> {
        // What becomes due while this goes on is for the next round, so that each has an end.
        let begun = self.clock.now();
        let changed = || target.has_changed().unwrap_or(false);
        loop {
            self.record_again().await;
            while let Some(message) = self.unstored(begun).await {
                if changed() {
                    return None;
                }
                self.deliver_unstored(webhook, message).await;
            }
            let due = self.due(begun).await;
            if due.is_empty() {
                break;
            }
            for outgoing in due {
                if changed() {
                    return None;
                }
                self.deliver_stored(webhook, outgoing).await;
            }
        }
        Some(self.pause(begun).await)
    }

    async fn due(&mut self, begun: Timestamp) -> Vec<Outgoing> {
        let Some(store) = &self.store else { return Vec::new() };
        let due = store.due(begun, BATCH, &self.but(begun)).await;
        for _ in 0..store.take_given_up() {
            (self.shared.outcomes)("abandoned");
        }
        due.unwrap_or_else(|e| {
            self.outbox_failed(&e);
            Vec::new()
        })
    }

    /// How long nothing will be due.
    async fn pause(&self, begun: Timestamp) -> Duration {
        let stored = match &self.store {
            Some(store) => store.next_due(&self.but(Timestamp::default())).await.ok().flatten(),
            None => None,
        };
        let held = self.unrecorded.values().filter_map(Fate::next);
        // What was due and is still here waits for another one, which has a time of its own.
        let memory = self.shared.memory().iter().map(|m| m.next).filter(|next| *next > begun).min();
        let next = stored.into_iter().chain(held).chain(memory).min();
        let pause = next.map_or(self.pauses.look, |at| at.since(self.clock.now()));
        // Never at once: a fault must not make a busy loop.
        pause.max(self.pauses.first / 10).min(self.pauses.look)
    }

    /// What the outbox does not know about announcements in it, as of `now`.
    fn but(&self, now: Timestamp) -> Unrecorded {
        let mut but = Unrecorded::default();
        for (id, fate) in &self.unrecorded {
            match fate {
                Fate::Delivered(_) | Fate::Abandoned { .. } => but.settled.push(*id),
                Fate::Postponed { next, .. } if *next > now => but.held.push(*id),
                Fate::Postponed { .. } => {}
            }
        }
        but
    }

    async fn deliver_stored(&mut self, webhook: Option<&Webhook>, outgoing: Outgoing) {
        let id = outgoing.id;
        let attempts = match self.unrecorded.get(&id) {
            Some(Fate::Postponed { attempts, .. }) => *attempts,
            Some(Fate::Delivered(_) | Fate::Abandoned { .. }) | None => outgoing.attempts,
        };
        let fate = self.deliver(webhook, &outgoing.announcement, attempts).await;
        // Kept until it is recorded: what could not be recorded must not be said again and again.
        self.unrecorded.insert(id, fate);
        self.record(id).await;
    }

    async fn deliver_unstored(&self, webhook: Option<&Webhook>, message: Remembered) {
        let fate = self.deliver(webhook, &message.announcement, message.attempts).await;
        let mut memory = self.shared.memory();
        let Some(at) = memory.iter().position(|m| m.announcement.key == message.announcement.key) else {
            return;
        };
        match fate {
            Fate::Postponed { next, attempts, .. } => {
                memory[at].next = next;
                memory[at].attempts = attempts;
            }
            Fate::Delivered(_) | Fate::Abandoned { .. } => drop(memory.remove(at)),
        }
    }

    /// Tries once.
    async fn deliver(&self, webhook: Option<&Webhook>, a: &Announcement, attempts: u32) -> Fate {
        let Some(webhook) = webhook else {
            (self.shared.outcomes)("no_channel");
            return Fate::Delivered(self.clock.now());
        };
        match webhook.deliver(a, self.clock.now()).await {
            Ok(()) => {
                (self.shared.outcomes)("delivered");
                Fate::Delivered(self.clock.now())
            }
            Err(failure) => self.failed(a, attempts, failure),
        }
    }

    /// Tried again, unless that is useless; logged and counted.
    fn failed(&self, a: &Announcement, attempts: u32, failure: Failure) -> Fate {
        let (at, why) = (self.clock.now(), failure.why);
        if failure.permanent || at.since(a.at) > AGE_MAX {
            error!(title = a.title, "an announcement was given up: {why}; next: check `notify.webhook`");
            (self.shared.outcomes)("abandoned");
            return Fate::Abandoned { at, why };
        }
        (self.shared.outcomes)("retried");
        let doubled = self.pauses.first.saturating_mul(1 << attempts.min(16)).min(self.pauses.longest);
        // A server may ask for more patience, not for less: `Retry-After: 0` would be a busy loop.
        let asked = failure.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
        let pause = jittered(doubled, &a.key).max(asked);
        warn!(title = a.title, ?pause, "an announcement was not delivered and is tried again: {why}");
        Fate::Postponed { next: at + pause, attempts: attempts.saturating_add(1), why }
    }

    /// The oldest announcement in memory that is due and that nothing of the same rollback is before.
    async fn unstored(&self, begun: Timestamp) -> Option<Remembered> {
        let mut rollbacks = BTreeSet::new();
        let due: Vec<Remembered> = {
            let memory = self.shared.memory();
            let first = |m: &&Remembered| {
                m.announcement.rollback.as_ref().is_none_or(|r| rollbacks.insert(r.clone()))
            };
            memory.iter().filter(first).filter(|m| m.next <= begun).cloned().collect()
        };
        for message in due {
            if !self.waits_in_outbox(message.announcement.rollback.as_ref()).await {
                return Some(message);
            }
        }
        None
    }

    async fn waits_in_outbox(&self, rollback: Option<&RollbackId>) -> bool {
        match (&self.store, rollback) {
            // Where that cannot be read: better out of order than not said.
            (Some(store), Some(rollback)) => {
                store.waits(rollback, &self.but(Timestamp::default())).await.unwrap_or(false)
            }
            (None, _) | (_, None) => false,
        }
    }

    /// Tries to write down what became of announcements, until one fails.
    async fn record_again(&mut self) {
        let ids: Vec<i64> = self.unrecorded.keys().copied().collect();
        for id in ids {
            if !self.record(id).await {
                return;
            }
        }
    }

    /// Whether it is in the outbox now what became of the announcement.
    async fn record(&mut self, id: i64) -> bool {
        let (Some(store), Some(fate)) = (&self.store, self.unrecorded.get(&id)) else { return true };
        let recorded = match fate {
            Fate::Delivered(at) => store.delivered(id, *at).await,
            Fate::Abandoned { at, why } => store.abandoned(id, *at, why).await,
            Fate::Postponed { next, why, .. } => store.postponed(id, *next, why).await,
        };
        match recorded {
            Ok(()) => {
                self.unrecorded.remove(&id);
                self.outbox_fails = false;
                true
            }
            Err(e) => {
                self.outbox_failed(&e);
                false
            }
        }
    }

    fn outbox_failed(&mut self, e: &StoreError) {
        if !self.outbox_fails {
            warn!("the outbox fails, so after a restart an announcement may come twice: {e}");
        }
        self.outbox_fails = true;
    }

    /// Everything is due: nothing waits for what was wrong with an old target.
    async fn hasten(&mut self) {
        let now = self.clock.now();
        for message in self.shared.memory().iter_mut() {
            message.next = Timestamp::default();
        }
        for fate in self.unrecorded.values_mut() {
            if let Fate::Postponed { next, .. } = fate {
                *next = now;
            }
        }
        if let Some(store) = &self.store
            && let Err(e) = store.hasten(now).await
        {
            self.outbox_failed(&e);
        }
    }
}

impl Fate {
    fn next(&self) -> Option<Timestamp> {
        match self {
            Self::Postponed { next, .. } => Some(*next),
            Self::Delivered(_) | Self::Abandoned { .. } => None,
        }
    }
}

fn same(old: Option<&WebhookTarget>, new: Option<&WebhookTarget>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => old.is(new),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// Up to a quarter longer, by the announcement's key: many that failed together must not come back together.
fn jittered(pause: Duration, key: &str) -> Duration {
    let hash = key.bytes().fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
    pause + pause / 4 * (hash % 100) / 100
}
