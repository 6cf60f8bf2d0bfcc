//! The task that brings announcements to their channels: it alone knows what waits where. Every attempt runs by itself, one
//! at a time for each channel; what comes of it is written into the outbox, and kept in memory until that worked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::handle::{MEMORY_MAX, NotifierHandle, Order, Shared};
use super::letter::Letter;
use super::line::{Line, Pauses, is_old};
use super::matters::{Matters, Outlook};
use super::message::Message;
use super::plan::{Channel, Plan};
use super::post::Failure;
use crate::clock::Clock;
use crate::core::Timestamp;
use crate::core::announcement::Announcement;
use crate::store::{Delivery, DeliveryState, Store, StoreError};

/// Taken out of the outbox at a time.
const BATCH: u32 = 64;
/// Announcements that may wait for one channel; with more, the oldest are given up so that the newest are heard.
const WAITING_MAX: usize = 500;

/// Counts outcomes of a channel: `delivered`, `retried`, `abandoned`, `no_channel`. The channel's name is empty where it is
/// of none.
pub type Outcomes = Arc<dyn Fn(&str, &'static str) + Send + Sync>;

/// Delivers announcements until told to stop.
#[derive(Debug)]
pub struct Notifier {
    store: Option<Store>,
    clock: Clock,
    pauses: Pauses,
    environment: String,
    outlook: Outlook,
    shared: Arc<Shared>,
    orders: mpsc::Receiver<Order>,
    plan: Arc<Plan>,
    lines: BTreeMap<String, Line>,
    /// What waits, or could not be written down yet, in the order in which it came.
    letters: BTreeMap<u64, Letter>,
    matters: Matters,
    /// The last number taken out of the outbox.
    seen: i64,
    /// Numbers letters and attempts.
    count: u64,
    attempts: JoinSet<Attempt>,
    drains: Vec<oneshot::Sender<()>>,
    /// The outbox fails, which has been said.
    outbox_fails: bool,
}

/// What came of an attempt.
#[derive(Debug)]
struct Attempt {
    number: u64,
    channel: String,
    /// The letter; none if Alertmanager was told once more of what it knows.
    letter: Option<u64>,
    /// What is to be known of it although it was taken.
    result: Result<Option<String>, Failure>,
}

impl Notifier {
    /// A notifier for `store`, and the handle that wakes it. `outcomes` is called with the outcome of each attempt.
    pub fn new(store: Option<Store>, clock: Clock, outcomes: Outcomes) -> (Self, NotifierHandle) {
        let (handle, orders) = NotifierHandle::new(outcomes);
        let notifier = Self {
            store,
            clock,
            pauses: Pauses::default(),
            environment: String::new(),
            outlook: Outlook::default(),
            shared: Arc::clone(&handle.shared),
            orders,
            plan: Arc::default(),
            lines: BTreeMap::new(),
            letters: BTreeMap::new(),
            matters: Matters::default(),
            seen: 0,
            count: 0,
            attempts: JoinSet::new(),
            drains: Vec::new(),
            outbox_fails: false,
        };
        (notifier, handle)
    }

    /// The same with other pauses.
    #[must_use]
    pub fn with_pauses(self, pauses: Pauses) -> Self {
        Self { pauses, ..self }
    }

    /// The same for a fleet: the environment's name, and how one knows that a service is well again.
    #[must_use]
    pub fn of_fleet(self, environment: &str, outlook: Outlook) -> Self {
        Self { environment: environment.to_owned(), outlook, ..self }
    }

    /// Delivers until `stop`. The plan may change at any time; without channels, announcements are done when logged.
    pub async fn run(mut self, mut plans: watch::Receiver<Arc<Plan>>, stop: CancellationToken) {
        self.recall().await;
        let first = plans.borrow_and_update().clone();
        self.adopt(first).await;
        while !stop.is_cancelled() {
            self.turn().await;
            let pause = self.pause();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Ok(()) = plans.changed() => {
                    let new = plans.borrow_and_update().clone();
                    self.adopt(new).await;
                }
                Some(order) = self.orders.recv() => self.obey(order).await,
                Some(done) = self.attempts.join_next(), if !self.attempts.is_empty() => {
                    if let Ok(attempt) = done {
                        self.came(attempt).await;
                    }
                }
                () = self.shared.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        for letter in self.letters.values().filter(|letter| letter.id.is_none() && !letter.is_settled()) {
            self.shared.lost(&letter.announcement);
        }
    }

    /// Everything that can be done now without waiting for a channel.
    async fn turn(&mut self) {
        self.look_at_matters().await;
        self.take_in().await;
        self.record_again().await;
        self.begin();
        let waits = self.letters.values().any(|letter| letter.id.is_none() && !letter.is_settled());
        if self.attempts.is_empty() && !waits {
            for done in self.drains.drain(..) {
                let _ = done.send(());
            }
        }
        self.matters.tidy();
    }

    /// What an earlier process knew. What it waited for is over, and its clock may have been ahead of ours.
    async fn recall(&mut self) {
        let Some(store) = &self.store else { return };
        match store.matters().await {
            Ok(matters) => self.matters.recall(matters),
            Err(e) => self.outbox_failed(&e),
        }
    }

    /// A new plan, in whole or in part. A channel that did not change goes on as it was; all others begin anew.
    async fn adopt(&mut self, plan: Arc<Plan>) {
        let mut old = std::mem::take(&mut self.lines);
        for channel in &plan.channels {
            let same = old.remove(&channel.name).filter(|line| line.channel == *channel);
            let line = match same {
                Some(line) => line,
                None => self.new_line(channel).await,
            };
            self.lines.insert(channel.name.clone(), line);
        }
        self.plan = plan;
        // What is under way over what is no more is tried again over what there is.
        for attempt in old.into_values().filter_map(|line| line.attempt) {
            attempt.1.abort();
        }
        let stranded: Vec<u64> = self.letters.keys().copied().collect();
        for seq in stranded {
            self.without_old_channels(seq).await;
        }
    }

    /// A channel that begins: everything that waits for it is due.
    async fn new_line(&mut self, channel: &Channel) -> Line {
        let mut line = Line::new(channel);
        let now = self.clock.now();
        for delivery in self.letters.values_mut().filter_map(|letter| letter.delivery_mut(&channel.name)) {
            delivery.next = delivery.next.min(now);
        }
        if line.is_alertmanager()
            && let Some(store) = &self.store
        {
            let heard = store.heard(&channel.name).await.unwrap_or_default();
            for (subject, message) in heard {
                if let Ok(message) = serde_json::from_str::<Message>(&message) {
                    line.heard(&subject, &message, now, &self.pauses);
                }
            }
            line.say_again_now();
        }
        line
    }

    /// What waits for a channel that is no more is given up; if nobody heard it, it goes where such things go now.
    async fn without_old_channels(&mut self, seq: u64) {
        let (now, plan) = (self.clock.now(), Arc::clone(&self.plan));
        let Some(letter) = self.letters.get_mut(&seq) else { return };
        let mut gone = Vec::new();
        for delivery in &mut letter.deliveries {
            if delivery.state == DeliveryState::Waiting && plan.channel(&delivery.channel).is_none() {
                delivery.state = DeliveryState::Abandoned(now);
                delivery.last_error = Some("the channel is not configured any more".into());
                gone.push(delivery.channel.clone());
            }
        }
        if gone.is_empty() {
            return;
        }
        letter.dirty = true;
        if letter.is_settled() && !letter.was_delivered() {
            for channel in plan.channels_for(&letter.announcement, letter.matter.as_ref()) {
                letter.address(channel, now);
            }
        }
        let title = letter.announcement.title.clone();
        for channel in gone {
            error!(title, channel, "an announcement was given up: that channel is not configured any more");
            (self.shared.outcomes)(&channel, "abandoned");
        }
        self.record(seq).await;
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Drain(done) => self.drains.push(done),
            Order::Acknowledge { service, by, why, answer } => {
                let now = self.clock.now();
                let made = self.matters.acknowledge(service.as_str(), (&by, &why), now, &self.environment);
                let said = match made {
                    Ok(a) => {
                        self.say(a).await;
                        info!(%service, by, why, "acknowledged");
                        Ok(format!(
                            "{by} took on what is the matter with {service}; nobody else is called for it"
                        ))
                    }
                    Err(why) => Err(why),
                };
                let _ = answer.send(said);
            }
        }
    }

    /// Puts an announcement of our own where all others come from.
    async fn say(&mut self, a: Announcement) {
        let stored = match &self.store {
            Some(store) => store.enqueue(&a).await.map_err(|e| e.to_string()),
            None => Err("the store is not open".into()),
        };
        if let Err(why) = stored {
            debug!("announced from memory: {why}");
            self.put(Letter::new(a)).await;
        }
        // What follows from it must not wait for the next turn: a second answer would be another.
        self.take_in().await;
    }

    async fn look_at_matters(&mut self) {
        let now = self.clock.now();
        let mut news = self.matters.overdue(&self.plan.escalation, now);
        news.extend(self.matters.over(&self.outlook, self.pauses.settled, &self.environment));
        for a in news {
            info!("{}", a.to_string().replace('\n', "; "));
            self.say(a).await;
        }
    }

    /// Takes in what is new, from the store and from memory.
    async fn take_in(&mut self) {
        while let Some(store) = self.store.clone() {
            let found = store.waiting(self.seen, BATCH, self.clock.now()).await;
            for _ in 0..store.take_given_up() {
                (self.shared.outcomes)("", "abandoned");
            }
            match found {
                Ok(found) if found.is_empty() => break,
                Ok(found) => {
                    for outgoing in found {
                        self.seen = self.seen.max(outgoing.id);
                        if outgoing.routed && !outgoing.deliveries.is_empty() {
                            self.put_back(Letter::stored(outgoing)).await;
                        } else {
                            self.put(Letter::stored(outgoing)).await;
                        }
                    }
                }
                Err(e) => {
                    self.outbox_failed(&e);
                    break;
                }
            }
        }
        for a in self.shared.take() {
            let known = self.letters.values().any(|letter| letter.announcement.key == a.key);
            if !known {
                self.put(Letter::new(a)).await;
            }
        }
        self.bound_memory();
    }

    fn bound_memory(&mut self) {
        let held: Vec<u64> =
            self.letters.iter().filter(|(_, letter)| letter.id.is_none()).map(|(seq, _)| *seq).collect();
        for seq in held.iter().take(held.len().saturating_sub(MEMORY_MAX)) {
            if let Some(letter) = self.letters.remove(seq) {
                self.shared.lost(&letter.announcement);
            }
        }
    }

    /// One that an earlier process addressed. Nothing in it is waited for any more.
    async fn put_back(&mut self, mut letter: Letter) {
        let now = self.clock.now();
        letter.matter = self.matters.get(letter.subject()).cloned();
        for delivery in &mut letter.deliveries {
            delivery.next = delivery.next.min(now);
        }
        let seq = self.number();
        self.letters.insert(seq, letter);
        self.without_old_channels(seq).await;
    }

    /// One that is new: finds its channels and writes its messages.
    async fn put(&mut self, mut letter: Letter) {
        let (now, plan) = (self.clock.now(), Arc::clone(&self.plan));
        letter.matter = self.matters.hear(&letter.announcement, &plan.escalation);
        for channel in plan.channels_for(&letter.announcement, letter.matter.as_ref()) {
            letter.address(channel, now);
        }
        if let Some(matter) = &mut letter.matter {
            let told: Vec<&str> = letter.deliveries.iter().map(|d| d.channel.as_str()).collect();
            self.matters.told(matter, told.into_iter());
            if matter.closed.is_some() {
                self.lines.values_mut().for_each(|line| line.forget(&matter.subject));
            }
        }
        if letter.deliveries.is_empty() {
            (self.shared.outcomes)("", "no_channel");
        }
        letter.dirty = true;
        let channels: Vec<String> = letter.deliveries.iter().map(|d| d.channel.clone()).collect();
        let seq = self.number();
        self.letters.insert(seq, letter);
        self.record(seq).await;
        for channel in channels {
            self.bound_line(&channel).await;
        }
    }

    /// Gives the oldest up of too many that wait for one channel.
    async fn bound_line(&mut self, channel: &str) {
        let waits =
            |letter: &Letter| letter.delivery(channel).is_some_and(|d| d.state == DeliveryState::Waiting);
        let waiting: Vec<u64> =
            self.letters.iter().filter(|(_, letter)| waits(letter)).map(|(seq, _)| *seq).collect();
        for seq in waiting.iter().take(waiting.len().saturating_sub(WAITING_MAX)) {
            let why = format!("more than {WAITING_MAX} waited");
            self.give_up(*seq, channel, why).await;
        }
    }

    const fn number(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// Begins an attempt for every channel that has none under way and something that is due.
    fn begin(&mut self) {
        let now = self.clock.now();
        let names: Vec<String> = self.lines.keys().cloned().collect();
        for name in names {
            let Some(line) = self.lines.get_mut(&name) else { continue };
            if let Some(seq) = line.due(&self.letters, now) {
                let message = self.letters.get_mut(&seq).and_then(|letter| letter.message(&line.channel));
                self.attempt(&name, Some(seq), message.map_or(What::Nothing, |m| What::One(Box::new(m))));
                continue;
            }
            let again = line.again(now, &self.pauses);
            if !again.is_empty() {
                self.attempt(&name, None, What::Again(again));
            }
        }
    }

    fn attempt(&mut self, channel: &str, letter: Option<u64>, what: What) {
        let (number, clock) = (self.number(), self.clock);
        let Some(line) = self.lines.get_mut(channel) else { return };
        let (sender, channel) = (Arc::clone(&line.sender), channel.to_owned());
        let handle = self.attempts.spawn(async move {
            let result = match what {
                What::One(message) => sender.send(&message, clock.now()).await,
                What::Again(alerts) => sender.send_alerts(&alerts, clock.now()).await.map(|()| None),
                What::Nothing => Err(Failure::permanent("it cannot be said over this channel any more")),
            };
            Attempt { number, channel, letter, result }
        });
        line.attempt = Some((number, handle));
    }

    /// An attempt is over.
    async fn came(&mut self, Attempt { number, channel, letter, result }: Attempt) {
        let (now, pauses) = (self.clock.now(), self.pauses);
        let Some(line) = self.lines.get_mut(&channel) else { return };
        if line.attempt.as_ref().is_none_or(|(current, _)| *current != number) {
            return;
        }
        line.attempt = None;
        let Some(seq) = letter else {
            if let Err(failure) = result {
                line.failed(&failure, &channel, now, &pauses);
                debug!(channel, "Alertmanager was not told again: {}", failure.why);
            }
            return;
        };
        match result {
            Ok(but) => self.delivered(seq, &channel, but).await,
            Err(failure) => self.failed(seq, &channel, failure).await,
        }
    }

    async fn delivered(&mut self, seq: u64, channel: &str, but: Option<String>) {
        let (now, pauses) = (self.clock.now(), self.pauses);
        (self.shared.outcomes)(channel, "delivered");
        if let (Some(line), Some(letter)) = (self.lines.get_mut(channel), self.letters.get_mut(&seq)) {
            line.worked();
            if let Some(message) = letter.message(&line.channel) {
                let open = self.matters.get(letter.subject()).is_some();
                let subject = letter.subject().to_owned();
                if open || message.is_end() {
                    line.heard(&subject, &message, now, &pauses);
                }
            }
            if let Some(but) = &but {
                let title = &letter.announcement.title;
                warn!(title, channel, "an announcement was delivered, but not to all: {but}");
            }
            if let Some(delivery) = letter.delivery_mut(channel) {
                delivery.attempts = delivery.attempts.saturating_add(1);
                (delivery.state, delivery.last_error) = (DeliveryState::Delivered(now), but);
            }
        }
        // It works again: nothing waits for what was.
        for delivery in self.letters.values_mut().filter_map(|letter| letter.delivery_mut(channel)) {
            delivery.next = delivery.next.min(now);
        }
        self.record(seq).await;
    }

    /// Tried again, unless that is useless; logged and counted.
    async fn failed(&mut self, seq: u64, channel: &str, failure: Failure) {
        let (now, pauses) = (self.clock.now(), self.pauses);
        let Some(said) = self.letters.get(&seq).map(|letter| letter.announcement.at) else { return };
        if failure.permanent || is_old(said, now) {
            self.give_up(seq, channel, failure.why).await;
            return;
        }
        (self.shared.outcomes)(channel, "retried");
        if let (Some(line), Some(letter)) = (self.lines.get_mut(channel), self.letters.get_mut(&seq)) {
            let a = &letter.announcement;
            let next = line.failed(&failure, &a.key, now, &pauses);
            let (title, pause) = (a.title.clone(), next.since(now));
            warn!(
                title,
                channel,
                ?pause,
                "an announcement was not delivered and is tried again: {}",
                failure.why
            );
            if let Some(delivery) = letter.delivery_mut(channel) {
                delivery.attempts = delivery.attempts.saturating_add(1);
                (delivery.next, delivery.last_error) = (next, Some(failure.why));
            }
        }
        self.record(seq).await;
    }

    async fn give_up(&mut self, seq: u64, channel: &str, why: String) {
        let now = self.clock.now();
        if let Some(letter) = self.letters.get_mut(&seq) {
            let title = &letter.announcement.title;
            error!(
                title,
                channel, "an announcement was given up: {why}; next: backstop notify test {channel}"
            );
            if let Some(delivery) = letter.delivery_mut(channel) {
                delivery.attempts = delivery.attempts.saturating_add(1);
                (delivery.state, delivery.last_error) = (DeliveryState::Abandoned(now), Some(why));
            }
        }
        (self.shared.outcomes)(channel, "abandoned");
        self.record(seq).await;
    }

    /// Tries to write down what could not be, until one fails.
    async fn record_again(&mut self) {
        let dirty: Vec<u64> =
            self.letters.iter().filter(|(_, letter)| letter.dirty).map(|(seq, _)| *seq).collect();
        for seq in dirty {
            if !self.record(seq).await {
                return;
            }
        }
    }

    /// Writes down how a letter stands; whether that worked. One that is done is forgotten then.
    async fn record(&mut self, seq: u64) -> bool {
        let now = self.clock.now();
        let Some(letter) = self.letters.get_mut(&seq) else { return true };
        letter.dirty = true;
        let Some((store, id)) = self.store.as_ref().zip(letter.id) else {
            if letter.is_settled() {
                self.letters.remove(&seq);
            }
            return true;
        };
        // The matter may have gone on since; an older state of it must not be written over a newer one.
        let newer = letter
            .matter
            .as_ref()
            .and_then(|matter| self.matters.get(&matter.subject).filter(|open| open.opened == matter.opened));
        let matter = newer.or(letter.matter.as_ref());
        let deliveries: &[Delivery] = &letter.deliveries;
        match store.record(id, deliveries, matter, now).await {
            Ok(()) => {
                letter.dirty = false;
                self.outbox_fails = false;
                if letter.is_settled() {
                    self.letters.remove(&seq);
                }
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

    /// How long nothing will have to be done.
    fn pause(&self) -> Duration {
        let now = self.clock.now();
        let lines = self.lines.values().filter_map(|line| line.next(&self.letters));
        let next: Option<Timestamp> = lines.chain(self.matters.next(&self.plan.escalation)).min();
        let pause = next.map_or(self.pauses.look, |at| at.since(now));
        let look = if self.matters.is_empty() {
            self.pauses.look
        } else {
            self.pauses.look.min(self.pauses.settled)
        };
        // Never at once: a fault must not make a busy loop.
        pause.max(self.pauses.first / 10).min(look)
    }
}

/// What an attempt sends.
#[derive(Debug)]
enum What {
    One(Box<Message>),
    Again(Vec<serde_json::Value>),
    Nothing,
}
