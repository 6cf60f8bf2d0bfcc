//! The outbox: announcements that wait for their channels, what became of each in each channel, and the matters that they
//! are about.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use rusqlite::{Connection, Transaction, params};
use serde::{Deserialize, Serialize};
use tracing::error;

use super::{Store, StoreError, at, from_json, ledger, ms, to_json};
use crate::core::Timestamp;
use crate::core::announcement::Announcement;
use crate::core::ledger::LedgerChange;
use crate::core::release::RollbackId;
use crate::core::settings::Severity;

/// Announcements kept after they were delivered or given up: enough to look back at a bad week.
const DONE_MAX: i64 = 5_000;
/// Announcements that may wait; with more than this, the oldest are given up so that the newest are heard.
const WAITING_MAX: i64 = 1_000;
/// Matters kept after they are over.
const MATTERS_MAX: i64 = 1_000;

/// An announcement that waits.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// Its number in the outbox; later ones have higher numbers.
    pub id: i64,
    /// What to say.
    pub announcement: Announcement,
    /// Whether its channels were found, which may be none.
    pub routed: bool,
    /// The channels.
    pub deliveries: Vec<Delivery>,
}

/// An announcement in one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The channel's name.
    pub channel: String,
    /// What is sent, as the channel keeps it.
    pub message: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is due.
    pub next: Timestamp,
    /// What became of it.
    pub state: DeliveryState,
    /// Why it was not delivered, the last time.
    pub last_error: Option<String>,
}

impl Delivery {
    /// What kind of channel it is for, as its message tells: `slack`, `email`, ...
    pub fn medium(&self) -> Option<String> {
        let message: serde_json::Value = serde_json::from_str(&self.message).ok()?;
        Some(message.get("to")?.as_str()?.to_owned())
    }
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// It is tried, or tried again.
    Waiting,
    /// It was taken, at this time.
    Delivered(Timestamp),
    /// It is not tried again, since this time.
    Abandoned(Timestamp),
}

/// Something that people are told of from its beginning to its end: one incident of a pager, one alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Matter {
    /// The service; empty for the fleet.
    pub subject: String,
    /// When it began: with the subject, what it is known by.
    pub opened: Timestamp,
    /// How urgent it was at its beginning. It stays so, because alerts are known by it.
    pub severity: Severity,
    /// When something was said of it last.
    pub spoken: Timestamp,
    /// The last rollback that is a part of it.
    pub rollback: Option<RollbackId>,
    /// The channels that were told of it.
    pub told: BTreeSet<String>,
    /// What a person was asked first, while nobody took it on.
    pub asked: Option<Announcement>,
    /// Who took it on, and when.
    pub acknowledged: Option<(String, Timestamp)>,
    /// Levels of escalation that were told.
    pub levels: BTreeSet<String>,
    /// How often a person was called anew after somebody had taken it on.
    #[serde(default)]
    pub round: u32,
    /// When it was over.
    pub closed: Option<Timestamp>,
}

impl Store {
    /// Puts an announcement into the outbox. One with the same key is there already: nothing changes.
    ///
    /// # Errors
    /// If it may not be durable.
    pub async fn enqueue(&self, announcement: &Announcement) -> Result<(), StoreError> {
        self.commit(Vec::new(), vec![announcement.clone()]).await
    }

    /// Makes changes durable together with what is said of them: all of it, or nothing. Whoever is killed in between would
    /// remember that it has asked somebody, and would never ask.
    ///
    /// # Errors
    /// If they may not be durable.
    pub async fn commit(
        &self,
        changes: Vec<LedgerChange>,
        announcements: Vec<Announcement>,
    ) -> Result<(), StoreError> {
        let given_up = self.writer.call(move |c| {
            let t = c.transaction()?;
            for change in &changes {
                ledger::apply(&t, change)?;
            }
            let mut given_up = 0;
            for announcement in &announcements {
                given_up += put(&t, announcement)?;
            }
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

    /// Announcements that wait and have a higher number than `after`, oldest first. One that cannot be read is given up,
    /// so that the others are heard.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn waiting(&self, after: i64, limit: u32, now: Timestamp) -> Result<Vec<Outgoing>, StoreError> {
        let (found, unreadable) = self.writer.call(move |c| read_waiting(c, after, limit, now)).await?;
        self.gave_up(unreadable, "they cannot be read");
        Ok(found)
    }

    /// Writes down where an announcement goes, what became of it there, and the matter that it is about. All of it or
    /// nothing, and as often as one likes.
    ///
    /// # Errors
    /// If that may not be durable.
    pub async fn record(
        &self,
        id: i64,
        deliveries: &[Delivery],
        matter: Option<&Matter>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (deliveries, matter) = (deliveries.to_vec(), matter.cloned());
        self.writer
            .call(move |c| {
                let t = c.transaction()?;
                for delivery in &deliveries {
                    keep_delivery(&t, id, delivery)?;
                }
                settle(&t, id, now)?;
                if let Some(matter) = &matter {
                    keep_matter(&t, matter)?;
                }
                t.commit()
            })
            .await
    }

    /// Matters that are not over.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn matters(&self) -> Result<Vec<Matter>, StoreError> {
        self.writer
            .call(|c| {
                let mut rows =
                    c.prepare("SELECT detail FROM matters WHERE closed_ms IS NULL ORDER BY opened_ms")?;
                let texts = rows.query_map([], |row| row.get::<_, String>(0))?;
                // One of another version is passed over: it only keeps later announcements together.
                Ok(texts
                    .collect::<rusqlite::Result<Vec<_>>>()?
                    .iter()
                    .filter_map(|text| from_json(text).ok())
                    .collect())
            })
            .await
    }

    /// What was delivered to a channel about matters that are not over, in its order: the subject and the message.
    ///
    /// # Errors
    /// If that cannot be read.
    pub async fn heard(&self, channel: &str) -> Result<Vec<(String, String)>, StoreError> {
        let channel = channel.to_owned();
        self.writer
            .call(move |c| {
                let mut rows = c.prepare(
                    "SELECT m.subject, d.message FROM matters AS m
                     JOIN outbox AS o ON coalesce(o.service, '') = m.subject AND o.at_ms >= m.opened_ms
                     JOIN deliveries AS d ON d.outbox = o.id
                     WHERE m.closed_ms IS NULL AND d.channel = ?1 AND d.delivered_ms IS NOT NULL ORDER BY o.id",
                )?;
                rows.query_map([channel], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
            })
            .await
    }

    /// Says that announcements were given up; the notifier counts them.
    fn gave_up(&self, how_many: usize, why: &str) {
        if how_many > 0 {
            error!(how_many, "announcements were given up: {why}; next: backstop notify test");
            self.given_up.fetch_add(how_many as u64, Ordering::Relaxed);
        }
    }
}

/// Puts an announcement into the outbox; gives how many others were given up for it.
fn put(t: &Transaction<'_>, a: &Announcement) -> rusqlite::Result<usize> {
    t.execute(
        "INSERT OR IGNORE INTO outbox (key, at_ms, kind, service, rollback, title, next_ms, announcement)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?2, ?7)",
        params![
            a.key,
            ms(a.at),
            a.kind.name(),
            a.service.as_ref().map(|s| s.as_str()),
            a.rollback.as_ref().map(|r| r.as_str()),
            a.title,
            to_json(a)?
        ],
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
    )
}

fn read_waiting(
    c: &Connection,
    after: i64,
    limit: u32,
    now: Timestamp,
) -> rusqlite::Result<(Vec<Outgoing>, usize)> {
    let mut found = Vec::new();
    let mut unreadable = Vec::new();
    let mut rows = c.prepare(
        "SELECT id, announcement, routed_ms FROM outbox
         WHERE id > ?1 AND delivered_ms IS NULL AND abandoned_ms IS NULL ORDER BY id LIMIT ?2",
    )?;
    let mut rows = rows.query(params![after, limit])?;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        match row.get::<_, String>(1).and_then(|text| from_json(&text)) {
            Ok(announcement) => {
                let routed = row.get::<_, Option<i64>>(2)?.is_some();
                found.push(Outgoing { id, announcement, routed, deliveries: read_deliveries(c, id)? });
            }
            Err(e) => unreadable.push((id, e.to_string())),
        }
    }
    for (id, why) in &unreadable {
        c.execute(
            "UPDATE outbox SET abandoned_ms = ?2, last_error = ?3 WHERE id = ?1",
            params![id, ms(now), format!("it cannot be read: {why}")],
        )?;
    }
    Ok((found, unreadable.len()))
}

pub(super) fn read_deliveries(c: &Connection, outbox: i64) -> rusqlite::Result<Vec<Delivery>> {
    let mut rows = c.prepare(
        "SELECT channel, message, attempts, next_ms, delivered_ms, abandoned_ms, last_error FROM deliveries
         WHERE outbox = ?1 ORDER BY channel",
    )?;
    let read = rows.query_map([outbox], |row| {
        let state = match (row.get::<_, Option<i64>>(4)?, row.get::<_, Option<i64>>(5)?) {
            (Some(delivered), _) => DeliveryState::Delivered(at(delivered)),
            (None, Some(abandoned)) => DeliveryState::Abandoned(at(abandoned)),
            (None, None) => DeliveryState::Waiting,
        };
        Ok(Delivery {
            channel: row.get(0)?,
            message: row.get(1)?,
            attempts: row.get(2)?,
            next: at(row.get(3)?),
            state,
            last_error: row.get(6)?,
        })
    })?;
    read.collect()
}

fn keep_delivery(t: &Transaction<'_>, outbox: i64, d: &Delivery) -> rusqlite::Result<()> {
    let (delivered, abandoned) = match d.state {
        DeliveryState::Waiting => (None, None),
        DeliveryState::Delivered(at) => (Some(ms(at)), None),
        DeliveryState::Abandoned(at) => (None, Some(ms(at))),
    };
    t.execute(
        "INSERT INTO deliveries (outbox, channel, message, attempts, next_ms, delivered_ms, abandoned_ms, last_error)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (outbox, channel) DO UPDATE SET message = ?3, attempts = ?4, next_ms = ?5, delivered_ms = ?6,
            abandoned_ms = ?7, last_error = ?8",
        params![outbox, d.channel, d.message, d.attempts, ms(d.next), delivered, abandoned, d.last_error],
    )
    .map(drop)
}

/// An announcement is delivered once nothing of it waits and somebody took it, or nobody was to have it; it is given up
/// once all gave it up.
fn settle(t: &Transaction<'_>, outbox: i64, now: Timestamp) -> rusqlite::Result<()> {
    t.execute(
        "UPDATE outbox SET routed_ms = coalesce(routed_ms, ?2),
            attempts = coalesce((SELECT sum(attempts) FROM deliveries WHERE outbox = ?1), 0),
            next_ms = coalesce((SELECT min(next_ms) FROM deliveries WHERE outbox = ?1
                                AND delivered_ms IS NULL AND abandoned_ms IS NULL), next_ms),
            last_error = (SELECT last_error FROM deliveries WHERE outbox = ?1 AND last_error IS NOT NULL
                          ORDER BY next_ms DESC LIMIT 1),
            delivered_ms = CASE
                WHEN EXISTS (SELECT 1 FROM deliveries WHERE outbox = ?1 AND delivered_ms IS NULL AND abandoned_ms IS NULL)
                    THEN NULL
                WHEN NOT EXISTS (SELECT 1 FROM deliveries WHERE outbox = ?1) THEN ?2
                ELSE (SELECT max(delivered_ms) FROM deliveries WHERE outbox = ?1) END,
            abandoned_ms = CASE
                WHEN EXISTS (SELECT 1 FROM deliveries WHERE outbox = ?1 AND abandoned_ms IS NULL) THEN NULL
                ELSE (SELECT max(abandoned_ms) FROM deliveries WHERE outbox = ?1) END
         WHERE id = ?1",
        params![outbox, ms(now)],
    )
    .map(drop)
}

fn keep_matter(t: &Transaction<'_>, m: &Matter) -> rusqlite::Result<()> {
    let (by, acknowledged) = m.acknowledged.as_ref().map(|(by, at)| (by, ms(*at))).unzip();
    t.execute(
        "INSERT OR REPLACE INTO matters (subject, opened_ms, acknowledged_ms, acknowledged_by, closed_ms, detail)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![m.subject, ms(m.opened), acknowledged, by, m.closed.map(ms), to_json(m)?],
    )?;
    t.execute(
        "DELETE FROM matters WHERE rowid IN (SELECT rowid FROM matters WHERE closed_ms IS NOT NULL
         ORDER BY closed_ms DESC LIMIT -1 OFFSET ?1)",
        [MATTERS_MAX],
    )
    .map(drop)
}
