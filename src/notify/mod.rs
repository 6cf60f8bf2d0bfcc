//! Announcing: takes announcements out of the durable outbox and delivers them, at least once each.
//!
//! It never delays a rollback (nobody waits for it), never says the same thing with different words (what is
//! delivered is what was stored), and is never silent about a message it gave up: that is logged and counted.

mod webhook;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use self::webhook::{Failure, Webhook};
use crate::clock::Clock;
use crate::core::Timestamp;
use crate::core::announcement::Announcement;
use crate::store::{Outgoing, Store};

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

/// Counts outcomes: `delivered`, `retried`, `abandoned`, `no_channel`.
pub type Outcomes = Arc<dyn Fn(&'static str) + Send + Sync>;

/// Delivers announcements until told to stop.
pub struct Notifier {
    store: Option<Store>,
    clock: Clock,
    outcomes: Outcomes,
    shared: Arc<Shared>,
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifier").field("store", &self.store).finish_non_exhaustive()
    }
}

/// What the notifier is told.
#[derive(Debug, Clone)]
pub struct NotifierHandle {
    store: Option<Store>,
    clock: Clock,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    wake: Notify,
    /// Told whenever a round of deliveries is over.
    idle: Notify,
    memory: Mutex<VecDeque<Remembered>>,
}

/// An announcement that the store did not take.
#[derive(Debug, Clone)]
struct Remembered {
    announcement: Announcement,
    attempts: u32,
    next: Timestamp,
}

impl NotifierHandle {
    /// There is something new in the outbox.
    pub fn wake(&self) {
        self.shared.wake.notify_one();
    }

    /// The store did not take it: it is delivered from memory, and lost if the process ends before.
    pub fn send_now(&self, announcement: Announcement) {
        let mut memory = self.shared.memory();
        if memory.len() == MEMORY_MAX
            && let Some(lost) = memory.pop_front()
        {
            error!(
                title = lost.announcement.title,
                "never announced: neither the store nor the channel took it"
            );
        }
        memory.push_back(Remembered { announcement, attempts: 0, next: Timestamp::default() });
        drop(memory);
        self.shared.wake.notify_one();
    }

    /// Waits until nothing is due any more, at most for `deadline`.
    pub async fn drain(&self, deadline: Duration) {
        let drained = async {
            loop {
                let idle = self.shared.idle.notified();
                let due = match &self.store {
                    Some(store) => store.due(self.clock.now(), 1).await.is_ok_and(|due| !due.is_empty()),
                    None => false,
                };
                let now = self.clock.now();
                if !due && !self.shared.memory().iter().any(|m| m.next <= now) {
                    return;
                }
                self.shared.wake.notify_one();
                idle.await;
            }
        };
        if tokio::time::timeout(deadline, drained).await.is_err() {
            warn!("announcements are still waiting; they are delivered at the next start");
        }
    }
}

impl Shared {
    fn memory(&self) -> std::sync::MutexGuard<'_, VecDeque<Remembered>> {
        // A panic elsewhere leaves a list of messages, which is as good as before.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Notifier {
    /// A notifier for `store`, and the handle that wakes it. `outcomes` is called with the outcome of each attempt.
    pub fn new(store: Option<Store>, clock: Clock, outcomes: Outcomes) -> (Self, NotifierHandle) {
        let shared = Arc::new(Shared::default());
        let handle = NotifierHandle { store: store.clone(), clock, shared: Arc::clone(&shared) };
        (Self { store, clock, outcomes, shared }, handle)
    }

    /// Delivers until `stop`. The target may change at any time; without one, announcements are done when logged.
    pub async fn run(self, mut target: watch::Receiver<Option<WebhookTarget>>, stop: CancellationToken) {
        let mut webhook = Webhook::new(target.borrow_and_update().as_ref());
        loop {
            let more = stop.run_until_cancelled(self.round(webhook.as_ref())).await;
            self.shared.idle.notify_waiters();
            let Some(next) = more else { return };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.shared.wake.notified() => {}
                () = tokio::time::sleep(next) => {}
                Ok(()) = target.changed() => webhook = Webhook::new(target.borrow_and_update().as_ref()),
            }
        }
    }

    /// Delivers what is due. Returns how long nothing else will be.
    async fn round(&self, webhook: Option<&Webhook>) -> Duration {
        self.deliver_unstored(webhook).await;
        let Some(store) = &self.store else { return LOOK_AT_LEAST.min(PAUSE_MIN) };
        loop {
            let due = match store.due(self.clock.now(), BATCH).await {
                Ok(due) => due,
                Err(e) => {
                    debug!("the outbox cannot be read: {e}");
                    return LOOK_AT_LEAST;
                }
            };
            if due.is_empty() {
                break;
            }
            for outgoing in due {
                if let Err(e) = self.deliver_stored(store, webhook, &outgoing).await {
                    // It was perhaps delivered and is not recorded as such: then it is delivered twice, not never.
                    debug!("the outbox cannot be written: {e}");
                    return LOOK_AT_LEAST;
                }
            }
        }
        let next = store.next_due().await.ok().flatten();
        next.map_or(LOOK_AT_LEAST, |at| at.since(self.clock.now()).max(PAUSE_MIN / 10)).min(LOOK_AT_LEAST)
    }

    async fn deliver_stored(
        &self,
        store: &Store,
        webhook: Option<&Webhook>,
        outgoing: &Outgoing,
    ) -> Result<(), crate::store::StoreError> {
        let Some(webhook) = webhook else {
            (self.outcomes)("no_channel");
            return store.delivered(outgoing.id, self.clock.now()).await;
        };
        let failure = match webhook.deliver(&outgoing.announcement, self.clock.now()).await {
            Ok(()) => {
                (self.outcomes)("delivered");
                return store.delivered(outgoing.id, self.clock.now()).await;
            }
            Err(failure) => failure,
        };
        let now = self.clock.now();
        match self.next_try(&outgoing.announcement, outgoing.attempts, &failure, now) {
            Some(next) => store.postponed(outgoing.id, next, &failure.why).await,
            None => store.abandoned(outgoing.id, now, &failure.why).await,
        }
    }

    async fn deliver_unstored(&self, webhook: Option<&Webhook>) {
        let now = self.clock.now();
        let due: VecDeque<Remembered> = {
            let mut memory = self.shared.memory();
            let (due, later): (VecDeque<_>, VecDeque<_>) = memory.drain(..).partition(|m| m.next <= now);
            *memory = later;
            due
        };
        for mut message in due {
            let Some(webhook) = webhook else {
                (self.outcomes)("no_channel");
                continue;
            };
            match webhook.deliver(&message.announcement, self.clock.now()).await {
                Ok(()) => (self.outcomes)("delivered"),
                Err(failure) => {
                    let next =
                        self.next_try(&message.announcement, message.attempts, &failure, self.clock.now());
                    if let Some(next) = next {
                        message.next = next;
                        message.attempts = message.attempts.saturating_add(1);
                        self.shared.memory().push_back(message);
                    }
                }
            }
        }
    }

    /// When to try again; none if that is useless, which is logged and counted.
    fn next_try(
        &self,
        a: &Announcement,
        attempts: u32,
        failure: &Failure,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let why = &failure.why;
        if failure.permanent || now.since(a.at) > AGE_MAX {
            error!(title = a.title, "an announcement was given up: {why}; next: check `notify.webhook`");
            (self.outcomes)("abandoned");
            return None;
        }
        (self.outcomes)("retried");
        let pause = failure.retry_after.map_or_else(
            || jittered(PAUSE_MIN.saturating_mul(1 << attempts.min(16)).min(PAUSE_MAX), &a.key),
            |asked| asked.min(RETRY_AFTER_MAX),
        );
        warn!(title = a.title, ?pause, "an announcement was not delivered and is tried again: {why}");
        Some(now + pause)
    }
}

/// Up to a quarter longer, by the announcement's key: many that failed together must not come back together.
fn jittered(pause: Duration, key: &str) -> Duration {
    let hash = key.bytes().fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
    pause + pause / 4 * (hash % 100) / 100
}
