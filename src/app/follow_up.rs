//! What comes after a rollback: reminds people of what it left to them, and opens a ticket for it.
//!
//! Nothing of it is kept in memory: what is due follows from the rollback log, the checklist, the outbox and the clock, so
//! a restart neither forgets a reminder nor repeats one. It is a task of its own, and no rollback ever waits for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use super::bridges::Records;
use crate::api::History;
use crate::clock::Clock;
use crate::config::{ReportSettings, Settings};
use crate::core::Timestamp;
use crate::core::ledger::{RollbackOutcome, RollbackRecord};
use crate::core::release::RollbackId;
use crate::notify::{Draft, Failure, GitHub, ISSUE_BODY_MAX, NotifierHandle, Outcomes, TRACKER, Tracker};
use crate::report::checklist::is_owed;
use crate::report::reminder::{self, Reminders};
use crate::report::{Incident, markdown};
use crate::store::{Store, StoreError, TicketState};

/// A ticket is wanted soon, not at once.
const LOOK: Duration = Duration::from_secs(30);
/// Reminders are about days, and finding out what is open means making the report.
const LOOK_FOR_REMINDERS: Duration = Duration::from_secs(10 * 60);
/// A ticket is opened so long after the end: by then it is known in the report who was told.
const SETTLED: Duration = Duration::from_secs(60);
/// A ticket that could not be opened for so long is given up, loudly, like an announcement; and a rollback that ended longer
/// ago gets none, so that whoever configures a repository is not sent the past.
const TICKET_AGE: Duration = Duration::from_secs(24 * 3600);
/// First pause after a failure; it doubles with each further one. GitHub blocks those who ask too often.
const PAUSE_MIN: Duration = Duration::from_secs(10);
/// The longest pause, also for what only a person can mend; and a server that asks for more patience is asked all the same.
const PAUSE_MAX: Duration = Duration::from_secs(3600);
/// Rollbacks that are looked after: a fleet with more of them in two weeks reads no reminders.
const ROLLBACKS_MAX: u32 = 500;

/// Looks after what rollbacks left.
#[derive(Debug)]
pub struct FollowUp {
    store: Store,
    notifier: NotifierHandle,
    outcomes: Counted,
    /// The client, as long as the settings stay the same.
    github: Option<GitHub>,
    /// The tracker asked for silence until then.
    held: Timestamp,
    /// When reminders were looked for last.
    looked: Option<Timestamp>,
}

/// Counts outcomes of requests to the tracker.
struct Counted(Outcomes);

impl std::fmt::Debug for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Counted")
    }
}

impl FollowUp {
    /// For the rollbacks in `store`; reminders go the way of all announcements.
    pub fn new(store: Store, notifier: NotifierHandle, outcomes: Outcomes) -> Self {
        let (outcomes, held) = (Counted(outcomes), Timestamp::default());
        Self { store, notifier, outcomes, github: None, held, looked: None }
    }

    /// Looks now and then, for ever.
    pub async fn run(mut self, settings: watch::Receiver<Arc<Settings>>, clock: Clock) {
        loop {
            tokio::time::sleep(LOOK).await;
            let report = settings.borrow().report.clone();
            self.look(clock.now(), &report).await;
        }
    }

    /// Does what is due by now. What fails is tried again at the next look.
    pub async fn look(&mut self, now: Timestamp, settings: &ReportSettings) {
        let since = now.before(settings.reminders.until.max(2 * TICKET_AGE));
        let ended = match self.store.ended_since(since, ROLLBACKS_MAX).await {
            Ok(ended) => ended,
            Err(e) => {
                debug!("what rollbacks left to people is not known now: {e}");
                return;
            }
        };
        let reminds = self.looked.is_none_or(|last| now.since(last) >= LOOK_FOR_REMINDERS);
        if reminds {
            self.looked = Some(now);
        }
        for record in ended.iter().filter(|record| is_owed(record, &ended)) {
            let reminded = if reminds { self.remind(record, &settings.reminders, now).await } else { Ok(()) };
            let ticketed = match &settings.github {
                Some(tracker) => self.ticket(record, tracker, now).await,
                None => Ok(()),
            };
            if let Err(why) = reminded.and(ticketed) {
                debug!(rollback = %record.id, "what it left to people could not be looked after: {why}");
            }
        }
    }

    /// Reminds of what is overdue, once in each period.
    async fn remind(
        &self,
        record: &RollbackRecord,
        reminders: &Reminders,
        now: Timestamp,
    ) -> Result<(), String> {
        let Some(period) = record.ended.and_then(|ended| reminders.period(ended, now)) else { return Ok(()) };
        if self.store.was_said(&reminder::key(&record.id, period)).await.map_err(text)? {
            return Ok(());
        }
        let Some(incident) = self.incident(&record.id).await? else { return Ok(()) };
        let Some(a) = reminder::announcement(&incident, period, now) else { return Ok(()) };
        self.store.enqueue(&a).await.map_err(text)?;
        info!("{}", a.to_string().replace('\n', "; "));
        self.notifier.wake();
        Ok(())
    }

    /// Opens a ticket, unless there is one.
    async fn ticket(
        &mut self,
        record: &RollbackRecord,
        tracker: &Tracker,
        now: Timestamp,
    ) -> Result<(), String> {
        let Some(ended) = record.ended else { return Ok(()) };
        let known = self.store.ticket(&record.id).await.map_err(text)?;
        let state = match wanted(ended, known, now) {
            Wanted::Nothing => return Ok(()),
            Wanted::GiveUp(state) => return self.give_up(record, state, now).await,
            Wanted::Try(state) => state,
        };
        if self.held > now {
            return Ok(());
        }
        let Some(incident) = self.incident(&record.id).await? else { return Ok(()) };
        // Written down before anybody is asked: a process that is killed in between knows that there may be one.
        let attempts = state.attempts.saturating_add(1);
        let pause = PAUSE_MIN.saturating_mul(1 << state.attempts.min(16)).min(PAUSE_MAX);
        let state = TicketState { attempts, next: now + pause, ..state };
        self.keep(&record.id, &state).await?;
        match self.open(record, &incident, tracker, now).await {
            Ok(url) => {
                info!(rollback = %record.id, url, "a ticket is open");
                (self.outcomes.0)(TRACKER, "delivered");
                let opened = TicketState { url: Some(url), opened: Some(now), last_error: None, ..state };
                self.keep(&record.id, &opened).await
            }
            Err(failure) => self.failed(record, state, failure, now).await,
        }
    }

    /// Where the ticket is: the one that there is already, or a new one.
    async fn open(
        &mut self,
        record: &RollbackRecord,
        incident: &Incident,
        tracker: &Tracker,
        now: Timestamp,
    ) -> Result<String, Failure> {
        let github = match self.github.take().filter(|github| github.is_for(tracker)) {
            Some(same) => self.github.insert(same),
            None => self.github.insert(GitHub::new(tracker)),
        };
        let draft = draft(record, incident);
        match github.find(&draft.mark, record.started, now).await? {
            Some(url) => Ok(url),
            None => github.open(&draft, now).await,
        }
    }

    async fn failed(
        &mut self,
        record: &RollbackRecord,
        state: TicketState,
        failure: Failure,
        now: Timestamp,
    ) -> Result<(), String> {
        (self.outcomes.0)(TRACKER, "retried");
        let asked = failure.retry_after.map(|asked| now + asked.min(PAUSE_MAX));
        // Somebody else may be told the same: nobody asks before that.
        self.held = self.held.max(asked.unwrap_or_default());
        let longest = failure.permanent.then_some(now + PAUSE_MAX);
        let next = state.next.max(asked.unwrap_or_default()).max(longest.unwrap_or_default());
        warn!(
            rollback = %record.id, pause = ?next.since(now),
            "no ticket could be opened, it is tried again: {}; next: backstop notify test {TRACKER}", failure.why
        );
        self.keep(&record.id, &TicketState { next, last_error: Some(failure.why), ..state }).await
    }

    async fn give_up(
        &self,
        record: &RollbackRecord,
        state: TicketState,
        now: Timestamp,
    ) -> Result<(), String> {
        let why = state.last_error.as_deref().unwrap_or("it was never answered");
        let rollback = &record.id;
        error!(%rollback, "no ticket was opened, and it is not tried any more: {why}; next: backstop incident {rollback}");
        (self.outcomes.0)(TRACKER, "abandoned");
        self.keep(rollback, &TicketState { abandoned: Some(now), ..state }).await
    }

    async fn keep(&self, rollback: &RollbackId, state: &TicketState) -> Result<(), String> {
        self.store.keep_ticket(rollback, state).await.map_err(text)
    }

    async fn incident(&self, rollback: &RollbackId) -> Result<Option<Incident>, String> {
        Records(Some(self.store.clone())).incident(rollback).await
    }
}

fn text(e: StoreError) -> String {
    e.to_string()
}

/// What is to be done about a ticket.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// There is one, or it is not time, or it is too late.
    Nothing,
    /// It is to be opened, as it stands.
    Try(TicketState),
    /// It could not be opened for too long.
    GiveUp(TicketState),
}

/// What is to be done about the ticket of a rollback that ended at `ended`.
fn wanted(ended: Timestamp, known: Option<TicketState>, now: Timestamp) -> Wanted {
    let is_old = now.since(ended) > TICKET_AGE;
    match known {
        Some(state) if state.url.is_some() || state.abandoned.is_some() => Wanted::Nothing,
        Some(state) if is_old => Wanted::GiveUp(state),
        // An earlier process' clock may have been ahead of ours.
        Some(state) if state.next > now && state.next <= now + PAUSE_MAX => Wanted::Nothing,
        Some(state) => Wanted::Try(state),
        None if is_old || now < ended + SETTLED => Wanted::Nothing,
        None => Wanted::Try(TicketState::default()),
    }
}

/// The issue for a rollback.
fn draft(record: &RollbackRecord, incident: &Incident) -> Draft {
    let Incident { environment, service, from, to, .. } = incident;
    let title = match &record.outcome {
        RollbackOutcome::Verified(_) | RollbackOutcome::Superseded(_) => {
            format!("[{environment}] {service} was rolled back from {from} to {to}")
        }
        RollbackOutcome::Executing
        | RollbackOutcome::Verifying
        | RollbackOutcome::NotVerified(_)
        | RollbackOutcome::Unwound(_)
        | RollbackOutcome::Void(_)
        | RollbackOutcome::Stuck(_) => {
            format!("[{environment}] {service} needs a person: rolling back from {from} to {to} did not help")
        }
    };
    let mark = format!("backstop-rollback-{}", record.id);
    // The mark and what is round it take a little of the room.
    Draft { title, body: markdown::ticket(incident, ISSUE_BODY_MAX - 256), mark }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDED: Timestamp = Timestamp::from_secs(1_000_000);

    fn at(secs: u64) -> Timestamp {
        ENDED + Duration::from_secs(secs)
    }

    #[test]
    fn a_ticket_is_opened_once_the_end_has_settled_and_never_for_the_past() {
        let new = || Wanted::Try(TicketState::default());
        assert_eq!(wanted(ENDED, None, at(59)), Wanted::Nothing);
        assert_eq!(wanted(ENDED, None, at(60)), new());
        assert_eq!(wanted(ENDED, None, at(24 * 3600)), new());
        assert_eq!(wanted(ENDED, None, at(24 * 3600 + 1)), Wanted::Nothing);
    }

    #[test]
    fn one_that_failed_is_tried_again_until_it_is_a_day_old() {
        let failed = TicketState { attempts: 1, next: at(100), ..TicketState::default() };
        let now = |secs| wanted(ENDED, Some(failed.clone()), at(secs));
        assert_eq!(now(99), Wanted::Nothing);
        assert_eq!(now(100), Wanted::Try(failed.clone()));
        assert_eq!(now(24 * 3600 + 1), Wanted::GiveUp(failed.clone()));
        let ahead = TicketState { next: at(9 * 3600), ..failed.clone() };
        assert_eq!(wanted(ENDED, Some(ahead.clone()), at(99)), Wanted::Try(ahead), "the clock was ahead");
        let open = TicketState { url: Some("https://x/1".into()), ..failed.clone() };
        assert_eq!(wanted(ENDED, Some(open), at(200)), Wanted::Nothing);
        let abandoned = TicketState { abandoned: Some(at(150)), ..failed };
        assert_eq!(wanted(ENDED, Some(abandoned), at(200)), Wanted::Nothing);
    }
}
