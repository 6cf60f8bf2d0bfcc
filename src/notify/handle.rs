//! How the rest of the program speaks to the notifier.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tracing::{error, warn};

use super::notifier::Outcomes;
use crate::core::announcement::Announcement;
use crate::core::release::ServiceName;

/// Announcements kept in memory while the store does not take them; the oldest are dropped, loudly.
pub(super) const MEMORY_MAX: usize = 256;
/// Orders that may wait; people are slow.
const ORDERS_MAX: usize = 16;

/// What the notifier is told.
#[derive(Debug, Clone)]
pub struct NotifierHandle {
    pub(super) shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
}

/// What is asked of the notifier and answered.
#[derive(Debug)]
pub(super) enum Order {
    /// Everything that is due was tried.
    Drain(oneshot::Sender<()>),
    /// Somebody takes a matter on.
    Acknowledge {
        service: ServiceName,
        by: String,
        why: String,
        answer: oneshot::Sender<Result<String, String>>,
    },
}

pub(super) struct Shared {
    pub(super) wake: Notify,
    memory: Mutex<VecDeque<Announcement>>,
    pub(super) outcomes: Outcomes,
}

impl NotifierHandle {
    pub(super) fn new(outcomes: Outcomes) -> (Self, mpsc::Receiver<Order>) {
        let (orders, taken) = mpsc::channel(ORDERS_MAX);
        let shared = Shared { wake: Notify::new(), memory: Mutex::default(), outcomes };
        (Self { shared: Arc::new(shared), orders }, taken)
    }

    /// There is something new in the outbox.
    pub fn wake(&self) {
        self.shared.wake.notify_one();
    }

    /// The store did not take it: it is delivered from memory, and lost if the process ends before.
    pub fn send_now(&self, announcement: Announcement) {
        let mut memory = self.shared.memory();
        if memory.iter().any(|m| m.key == announcement.key) {
            return;
        }
        if memory.len() >= MEMORY_MAX
            && let Some(lost) = memory.pop_front()
        {
            self.shared.lost(&lost);
        }
        memory.push_back(announcement);
        drop(memory);
        self.shared.wake.notify_one();
    }

    /// Somebody takes on what is the matter with a service: nobody else is called for it, and pagers are told.
    ///
    /// # Errors
    /// There is nothing to take on, or the daemon is stopping: a sentence for people, with the next command to type.
    pub async fn acknowledge(
        &self,
        service: &ServiceName,
        by: String,
        why: String,
    ) -> Result<String, String> {
        let stopping = || "the daemon is stopping; ask again when it runs".to_owned();
        let (answer, answered) = oneshot::channel();
        let order = Order::Acknowledge { service: service.clone(), by, why, answer };
        self.orders.send(order).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())?
    }

    /// Waits until everything that was due was tried, and until what is only in memory was delivered: that would be
    /// lost. At most for `deadline`.
    pub async fn drain(&self, deadline: Duration) {
        let drained = async {
            let (done, drained) = oneshot::channel();
            if self.orders.send(Order::Drain(done)).await.is_ok() {
                let _ = drained.await;
            }
        };
        if tokio::time::timeout(deadline, drained).await.is_err() {
            warn!("announcements may still wait in the outbox; they are delivered at the next start");
        }
        for lost in self.shared.memory().iter() {
            let title = &lost.title;
            error!(title, "not announced: the store did not take it, and it is lost when this process ends");
        }
    }
}

impl Shared {
    /// What the store did not take since this was last asked.
    pub(super) fn take(&self) -> Vec<Announcement> {
        self.memory().drain(..).collect()
    }

    /// Says that an announcement will never be heard.
    pub(super) fn lost(&self, announcement: &Announcement) {
        let title = &announcement.title;
        error!(title, "never announced: neither the store nor a channel took it; next: backstop status");
        (self.outcomes)("", "abandoned");
    }

    fn memory(&self) -> MutexGuard<'_, VecDeque<Announcement>> {
        // A panic elsewhere leaves a list of messages, which is as good as before.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("memory", &self.memory().len()).finish_non_exhaustive()
    }
}
