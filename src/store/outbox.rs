//! The outbox: announcements that wait for delivery, and those that were delivered or given up.

use std::sync::atomic::Ordering;

use rusqlite::{OptionalExtension, params};
use tracing::error;

use super::{Store, StoreError, at, from_json, ms, to_json};
use crate::core::Timestamp;
use crate::core::announcement::Announcement;
use crate::core::release::RollbackId;

/// Announcements kept after they were delivered or given up: enough to look back at a bad week.
const DONE_MAX: i64 = 5_000;
/// Announcements that may wait; with more than this, the oldest are given up so that the newest are heard.
const WAITING_MAX: i64 = 1_000;

/// An announcement that is due.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// Its number in the outbox.
    pub id: i64,
    /// What to say.
    pub announcement: Announcement,
    /// How often it was tried.
    pub attempts: u32,
}

/// What happened to announcements and could not be written into the outbox. Numbers of the outbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unrecorded {
    /// Delivered or given up: as if they did not wait any more.
    pub settled: Vec<i64>,
    /// Postponed: they wait, and are not due.
    pub held: Vec<i64>,
}

/// Waits, and nobody knows better.
const WAITING: &str = "delivered_ms IS NULL AND abandoned_ms IS NULL
    AND id NOT IN (SELECT value FROM json_each(:settled))";
/// Was not postponed, and nothing is before it: a rollback is not complete before it is in progress.
const FIRST: &str = "id NOT IN (SELECT value FROM json_each(:held)) AND NOT EXISTS (
    SELECT 1 FROM outbox AS older WHERE older.rollback = mine.rollback AND older.id < mine.id
       AND older.delivered_ms IS NULL AND older.abandoned_ms IS NULL
       AND older.id NOT IN (SELECT value FROM json_each(:settled)))";

impl Store {
    /// Puts an announcement into the outbox. One with the same key is there already: nothing changes.
    ///
    /// # Errors
    /// If it may not be durable.
    pub async fn enqueue(&self, announcement: &Announcement) -> Result<(), StoreError> {
        let a = announcement.clone();
        let given_up = self.writer.call(move |c| {
            let t = c.transaction()?;
            t.execute(
                "INSERT OR IGNORE INTO outbox (key, at_ms, kind, service, rollback, title, next_ms, announcement)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?2, ?7)",
                params![
                    a.key, ms(a.at), a.kind.name(), a.service.as_ref().map(|s| s.as_str()),
                    a.rollback.as_ref().map(|r| r.as_str()), a.title, to_json(&a)?
                ],
            )?;
            t.execute(
                "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox
                 WHERE delivered_ms IS NOT NULL OR abandoned_ms IS NOT NULL ORDER BY id DESC LIMIT -1 OFFSET ?1)",
                [DONE_MAX],
            )?;
            let given_up = t.execute(
                "UPDATE outbox SET abandoned_ms = ?2, last_error = 'too many announcements waited'
                 WHERE id IN (SELECT id FROM outbox WHERE delivered_ms IS NULL AND abandoned_ms IS NULL
                              ORDER BY id DESC LIMIT -1 OFFSET ?1)",
                params![WAITING_MAX, ms(a.at)],
            )?;
            t.commit()?;
            Ok(given_up)
        });
        self.gave_up(given_up.await?, "more than 1000 of them waited");
        Ok(())
    }

    /// How many announcements were given up by the outbox itself since this was last asked.
    pub fn take_given_up(&self) -> u64 {
        self.given_up.swap(0, Ordering::Relaxed)
    }

    /// Announcements that are due, oldest first. One waits while an older one of the same rollback does: a rollback is
    /// not complete before it is in progress. One that cannot be read is given up, so that the others are heard.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn due(
        &self,
        now: Timestamp,
        limit: u32,
        but: &Unrecorded,
    ) -> Result<Vec<Outgoing>, StoreError> {
        let (settled, held) = but.as_json();
        let read = self.writer.call(move |c| {
            let mut found = Vec::new();
            let mut unreadable = 0;
            {
                let mut rows = c.prepare(&format!(
                    "SELECT id, announcement, attempts FROM outbox AS mine
                     WHERE {WAITING} AND {FIRST} AND next_ms <= :now ORDER BY id LIMIT :limit"
                ))?;
                let mut rows = rows.query(rusqlite::named_params! {
                    ":settled": settled?, ":held": held?, ":now": ms(now), ":limit": limit,
                })?;
                while let Some(row) = rows.next()? {
                    let id: i64 = row.get(0)?;
                    match row.get::<_, String>(1).and_then(|text| from_json(&text)) {
                        Ok(announcement) => found.push(Outgoing { id, announcement, attempts: row.get(2)? }),
                        Err(e) => {
                            c.execute(
                                "UPDATE outbox SET abandoned_ms = ?2, last_error = ?3 WHERE id = ?1",
                                params![id, ms(now), format!("it cannot be read: {e}")],
                            )?;
                            unreadable += 1;
                        }
                    }
                }
            }
            Ok((found, unreadable))
        });
        let (found, unreadable) = read.await?;
        self.gave_up(unreadable, "they cannot be read");
        Ok(found)
    }

    /// When the next one that nothing is before is due; none if nothing waits.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn next_due(&self, but: &Unrecorded) -> Result<Option<Timestamp>, StoreError> {
        let (settled, held) = but.as_json();
        self.writer
            .call(move |c| {
                let next: Option<Option<i64>> = c
                    .query_row(
                        &format!("SELECT min(next_ms) FROM outbox AS mine WHERE {WAITING} AND {FIRST}"),
                        rusqlite::named_params! { ":settled": settled?, ":held": held? },
                        |row| row.get(0),
                    )
                    .optional()?;
                Ok(next.flatten().map(at))
            })
            .await
    }

    /// Whether an announcement of the rollback waits.
    ///
    /// # Errors
    /// If that cannot be read.
    pub async fn waits(&self, rollback: &RollbackId, but: &Unrecorded) -> Result<bool, StoreError> {
        let ((settled, _), rollback) = (but.as_json(), rollback.to_string());
        self.writer
            .call(move |c| {
                c.query_row(
                    &format!("SELECT EXISTS (SELECT 1 FROM outbox WHERE {WAITING} AND rollback = :rollback)"),
                    rusqlite::named_params! { ":settled": settled?, ":rollback": rollback },
                    |row| row.get(0),
                )
            })
            .await
    }

    /// Everything that waits is due at once: what it waited for has changed.
    ///
    /// # Errors
    /// If that may not be durable.
    pub async fn hasten(&self, now: Timestamp) -> Result<(), StoreError> {
        self.writer
            .call(move |c| {
                c.execute(
                    "UPDATE outbox SET next_ms = ?1
                     WHERE delivered_ms IS NULL AND abandoned_ms IS NULL AND next_ms > ?1",
                    [ms(now)],
                )
                .map(drop)
            })
            .await
    }

    /// It was delivered.
    ///
    /// # Errors
    /// If that may not be durable: it will be delivered again.
    pub async fn delivered(&self, id: i64, now: Timestamp) -> Result<(), StoreError> {
        self.writer
            .call(move |c| {
                c.execute(
                    "UPDATE outbox SET delivered_ms = ?2, attempts = attempts + 1, last_error = NULL WHERE id = ?1",
                    params![id, ms(now)],
                )
                .map(drop)
            })
            .await
    }

    /// It was not delivered, and is tried again at `next`.
    ///
    /// # Errors
    /// If that may not be durable.
    pub async fn postponed(&self, id: i64, next: Timestamp, why: &str) -> Result<(), StoreError> {
        let why = why.to_owned();
        self.writer
            .call(move |c| {
                c.execute(
                    "UPDATE outbox SET next_ms = ?2, attempts = attempts + 1, last_error = ?3 WHERE id = ?1",
                    params![id, ms(next), why],
                )
                .map(drop)
            })
            .await
    }

    /// It is not tried again.
    ///
    /// # Errors
    /// If that may not be durable.
    pub async fn abandoned(&self, id: i64, now: Timestamp, why: &str) -> Result<(), StoreError> {
        let why = why.to_owned();
        self.writer
            .call(move |c| {
                c.execute(
                    "UPDATE outbox SET abandoned_ms = ?2, attempts = attempts + 1, last_error = ?3 WHERE id = ?1",
                    params![id, ms(now), why],
                )
                .map(drop)
            })
            .await
    }
}

impl Store {
    /// Says that announcements were given up; the notifier counts them.
    fn gave_up(&self, how_many: usize, why: &str) {
        if how_many > 0 {
            error!(how_many, "announcements were given up: {why}; next: check `notify.webhook`");
            self.given_up.fetch_add(how_many as u64, Ordering::Relaxed);
        }
    }
}

impl Unrecorded {
    fn as_json(&self) -> (rusqlite::Result<String>, rusqlite::Result<String>) {
        (to_json(&self.settled), to_json(&self.held))
    }
}
