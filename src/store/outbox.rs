//! The outbox: announcements that wait for delivery, and those that were delivered or given up.

use rusqlite::{Connection, OptionalExtension, params};

use super::{Store, StoreError, at, ms, to_json};
use crate::core::Timestamp;
use crate::core::announcement::Announcement;

/// Announcements kept after they were delivered or given up: enough to look back at a bad week.
const DONE_MAX: i64 = 5_000;
/// Announcements that may wait; with more than this, the oldest are given up so that the newest are heard.
const WAITING_MAX: i64 = 1_000;

/// What may be delivered: it waits, and nothing older of the same rollback does.
const HEAD: &str = "delivered_ms IS NULL AND abandoned_ms IS NULL AND NOT EXISTS (
    SELECT 1 FROM outbox AS older
    WHERE older.delivered_ms IS NULL AND older.abandoned_ms IS NULL AND older.id < mine.id
      AND json_extract(older.announcement, '$.rollback') = json_extract(mine.announcement, '$.rollback'))";

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

impl Store {
    /// Puts an announcement into the outbox. One with the same key is there already: nothing changes.
    ///
    /// # Errors
    /// If it may not be durable.
    pub async fn enqueue(&self, announcement: &Announcement) -> Result<(), StoreError> {
        let a = announcement.clone();
        self.writer
            .call(move |c| {
                let t = c.transaction()?;
                t.execute(
                    "INSERT OR IGNORE INTO outbox (key, at_ms, kind, service, title, next_ms, announcement)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?2, ?6)",
                    params![a.key, ms(a.at), a.kind.name(), a.service.as_ref().map(|s| s.as_str()), a.title, to_json(&a)?],
                )?;
                t.execute(
                    "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox
                     WHERE delivered_ms IS NOT NULL OR abandoned_ms IS NOT NULL ORDER BY id DESC LIMIT -1 OFFSET ?1)",
                    [DONE_MAX],
                )?;
                t.execute(
                    "UPDATE outbox SET abandoned_ms = ?2, last_error = 'too many announcements waited'
                     WHERE id IN (SELECT id FROM outbox WHERE delivered_ms IS NULL AND abandoned_ms IS NULL
                                  ORDER BY id DESC LIMIT -1 OFFSET ?1)",
                    params![WAITING_MAX, ms(a.at)],
                )?;
                t.commit()
            })
            .await
    }

    /// Announcements that are due, oldest first. One waits while an older one of the same rollback does: a rollback is
    /// not complete before it is in progress.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn due(&self, now: Timestamp, limit: u32) -> Result<Vec<Outgoing>, StoreError> {
        let rows = self.writer.call(move |c| heads(c, now, limit)).await?;
        let mut due = Vec::new();
        for (id, text, attempts) in rows {
            match serde_json::from_str(&text) {
                Ok(announcement) => due.push(Outgoing { id, announcement, attempts }),
                Err(e) => {
                    // It would be due for ever, and hold up what follows it.
                    tracing::error!(id, "an announcement cannot be read and is given up: {e}");
                    self.abandoned(id, now, &format!("cannot be read: {e}")).await?;
                }
            }
        }
        Ok(due)
    }

    /// When the next one is due; none if nothing waits. One that waits for an older one does not count.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        self.writer
            .call(|c| {
                let next: Option<Option<i64>> = c
                    .query_row(&format!("SELECT min(next_ms) FROM outbox AS mine WHERE {HEAD}"), [], |row| {
                        row.get(0)
                    })
                    .optional()?;
                Ok(next.flatten().map(at))
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

fn heads(c: &Connection, now: Timestamp, limit: u32) -> rusqlite::Result<Vec<(i64, String, u32)>> {
    let mut rows = c.prepare(&format!(
        "SELECT id, announcement, attempts FROM outbox AS mine WHERE next_ms <= ?1 AND {HEAD} ORDER BY id LIMIT ?2"
    ))?;
    let rows = rows.query_map(params![ms(now), limit], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    rows.collect()
}
