//! Releases, flags, decisions and the rollback log.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{Store, StoreError, from_json, ms, to_json};
use crate::core::Timestamp;
use crate::core::baseline::Norms;
use crate::core::decision::Decision;
use crate::core::ledger::{Flags, LedgerChange, LedgerEntry, Remembered, RollbackRecord};
use crate::core::release::{ReleaseId, RollbackId, ServiceName};
use crate::runtime::Snapshot;

/// Decisions kept: years of a noisy service.
const DECISIONS_MAX: i64 = 20_000;
/// Rollbacks kept.
const ROLLBACKS_MAX: i64 = 10_000;
/// Rollbacks this recent may count for attempts, cooldowns and the breaker: `cooldown`, `attempts_window` and
/// `breaker_window` can be set to 30 days, and the core looks no further back than they say.
const RECENT_MS: i64 = 30 * 24 * 60 * 60 * 1000;
/// The most rows that one question is answered with.
const PAGE_MAX: u32 = 1000;

impl Store {
    /// What an earlier process knew: of rollbacks, those that are open and those of the 30 days before `now`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn load(&self, now: Timestamp) -> Result<Remembered, StoreError> {
        self.writer.call(move |c| load(c, now)).await
    }

    /// Makes changes durable: all of them, or none.
    ///
    /// # Errors
    /// If they may not be durable.
    pub async fn remember(&self, changes: Vec<LedgerChange>) -> Result<(), StoreError> {
        self.commit(changes, Vec::new()).await
    }

    /// Rollbacks, newest first: of one service or of all, older than `before` if given.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn rollbacks(
        &self,
        service: Option<&ServiceName>,
        before: Option<&RollbackId>,
        limit: u32,
    ) -> Result<Vec<RollbackRecord>, StoreError> {
        let service = service.map(ToString::to_string);
        let before = before.map(ToString::to_string);
        self.reader
            .call(move |c| {
                let mut rows = c.prepare(
                    "SELECT detail FROM rollbacks WHERE (?1 IS NULL OR service = ?1) AND (?2 IS NULL
                         OR (started_ms, id) < (SELECT started_ms, id FROM rollbacks WHERE id = ?2))
                     ORDER BY started_ms DESC, id DESC LIMIT ?3",
                )?;
                details(rows.query(params![service, before, limit.min(PAGE_MAX)])?)
            })
            .await
    }

    /// One rollback.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn rollback(&self, id: &RollbackId) -> Result<Option<RollbackRecord>, StoreError> {
        let id = id.to_string();
        self.reader
            .call(move |c| {
                let found: Option<String> = c
                    .query_row("SELECT detail FROM rollbacks WHERE id = ?1", [id], |row| row.get(0))
                    .optional()?;
                found.map(|text| from_json(&text)).transpose()
            })
            .await
    }

    /// Decisions, newest first.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn decisions(
        &self,
        service: Option<&ServiceName>,
        limit: u32,
    ) -> Result<Vec<Decision>, StoreError> {
        let service = service.map(ToString::to_string);
        self.reader
            .call(move |c| {
                let mut rows = c.prepare(
                    "SELECT detail FROM decisions WHERE (?1 IS NULL OR service = ?1) ORDER BY id DESC LIMIT ?2",
                )?;
                details(rows.query(params![service, limit.min(PAGE_MAX)])?)
            })
            .await
    }

    /// Keeps the specifications of a release in place of those it had.
    ///
    /// # Errors
    /// If they may not be durable.
    pub async fn save_snapshots(
        &self,
        service: &ServiceName,
        release: &ReleaseId,
        snapshots: &[Snapshot],
    ) -> Result<(), StoreError> {
        let (service, release, snapshots) = (service.to_string(), release.to_string(), snapshots.to_vec());
        self.writer
            .call(move |c| {
                let t = c.transaction()?;
                t.execute("DELETE FROM snapshots WHERE service = ?1 AND release = ?2", params![service, release])?;
                for s in &snapshots {
                    t.execute(
                        "INSERT INTO snapshots (service, release, name, inspect, image, context) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                        params![service, release, s.name, to_json(&s.inspect)?, to_json(&s.image)?, to_json(&s.context)?],
                    )?;
                }
                t.commit()
            })
            .await
    }

    /// The specifications of a release, by name; empty if none are kept.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn snapshots(
        &self,
        service: &ServiceName,
        release: &ReleaseId,
    ) -> Result<Vec<Snapshot>, StoreError> {
        let (service, release) = (service.to_string(), release.to_string());
        self.writer
            .call(move |c| {
                let mut rows = c.prepare(
                    "SELECT name, inspect, image, context FROM snapshots WHERE service = ?1 AND release = ?2 ORDER BY name",
                )?;
                let mut rows = rows.query(params![service, release])?;
                let mut found = Vec::new();
                while let Some(row) = rows.next()? {
                    let json = |i| row.get::<_, String>(i).and_then(|text| from_json::<serde_json::Value>(&text));
                    found.push(Snapshot { name: row.get(0)?, inspect: json(1)?, image: json(2)?, context: json(3)? });
                }
                Ok(found)
            })
            .await
    }

    /// Drops the specifications of a release.
    ///
    /// # Errors
    /// If they may still be there.
    pub async fn drop_snapshots(&self, service: &ServiceName, release: &ReleaseId) -> Result<(), StoreError> {
        let (service, release) = (service.to_string(), release.to_string());
        self.writer
            .call(move |c| {
                c.execute(
                    "DELETE FROM snapshots WHERE service = ?1 AND release = ?2",
                    params![service, release],
                )
                .map(drop)
            })
            .await
    }
}

fn load(c: &Connection, now: Timestamp) -> rusqlite::Result<Remembered> {
    let mut remembered = Remembered::default();
    let mut rows = c.prepare("SELECT service, detail FROM releases ORDER BY service, deployed_ms DESC")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let service = ServiceName::new(row.get::<_, String>(0)?);
        let entry: LedgerEntry = from_json(&row.get::<_, String>(1)?)?;
        match remembered.ledgers.last_mut().filter(|(last, _)| *last == service) {
            Some((_, entries)) => entries.push(entry),
            None => remembered.ledgers.push((service, vec![entry])),
        }
    }
    let mut rows = c.prepare("SELECT service, detail FROM flags ORDER BY service")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let service: String = row.get(0)?;
        let flags: Flags = from_json(&row.get::<_, String>(1)?)?;
        remembered.flags.push(((!service.is_empty()).then(|| ServiceName::new(service)), flags));
    }
    let mut rows = c.prepare("SELECT service, detail FROM baselines ORDER BY service")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let norms = from_json(&row.get::<_, String>(1)?)?;
        remembered.norms.push((ServiceName::new(row.get::<_, String>(0)?), norms));
    }
    let mut rows = c.prepare(
        "SELECT detail FROM rollbacks
         WHERE outcome IN ('executing', 'verifying') OR max(started_ms, coalesce(ended_ms, 0)) > ?1
         ORDER BY started_ms, id",
    )?;
    remembered.rollbacks = details(rows.query([ms(now).saturating_sub(RECENT_MS)])?)?;
    Ok(remembered)
}

pub(super) fn apply(t: &Transaction<'_>, change: &LedgerChange) -> rusqlite::Result<()> {
    match change {
        LedgerChange::Entry { service, entry } => put_entry(t, service, entry),
        LedgerChange::Forget { service, release } => t
            .execute(
                "DELETE FROM releases WHERE service = ?1 AND release = ?2",
                params![service.as_str(), release.as_str()],
            )
            .map(drop),
        LedgerChange::Norms { service, norms } if **norms == Norms::default() => {
            t.execute("DELETE FROM baselines WHERE service = ?1", [service.as_str()]).map(drop)
        }
        LedgerChange::Norms { service, norms } => t
            .execute(
                "INSERT OR REPLACE INTO baselines (service, detail) VALUES (?1, ?2)",
                params![service.as_str(), to_json(norms)?],
            )
            .map(drop),
        LedgerChange::Decided(decision) => put_decision(t, decision),
        LedgerChange::RollbackOpened(record) | LedgerChange::RollbackUpdated(record) => {
            put_rollback(t, record)
        }
        // No flag is no row: services come and go, and their names would stay for ever.
        LedgerChange::Flags { service, flags } if *flags == Flags::default() => t
            .execute(
                "DELETE FROM flags WHERE service = ?1",
                [service.as_ref().map_or("", ServiceName::as_str)],
            )
            .map(drop),
        LedgerChange::Flags { service, flags } => t
            .execute(
                "INSERT OR REPLACE INTO flags (service, paused_by, stuck, detail) VALUES (?1, ?2, ?3, ?4)",
                params![
                    service.as_ref().map_or("", ServiceName::as_str),
                    flags.paused.as_ref().map(|p| &p.by),
                    flags.stuck,
                    to_json(flags)?
                ],
            )
            .map(drop),
    }
}

fn put_entry(t: &Transaction<'_>, service: &ServiceName, entry: &LedgerEntry) -> rusqlite::Result<()> {
    t.execute(
        "INSERT OR REPLACE INTO releases
         (service, release, reference, image, standing, first_seen_ms, deployed_ms, detail)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            service.as_str(),
            entry.release.id.as_str(),
            entry.release.reference,
            entry.release.image.as_str(),
            entry.standing.name(),
            ms(entry.first_seen),
            ms(entry.deployed),
            to_json(entry)?
        ],
    )
    .map(drop)
}

fn put_decision(t: &Transaction<'_>, decision: &Decision) -> rusqlite::Result<()> {
    t.execute(
        "INSERT INTO decisions (at_ms, service, verdict, reason_kind, reason, dry_run, detail)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            ms(decision.at),
            decision.service.as_str(),
            decision.verdict.name(),
            decision.reason.kind(),
            decision.reason.to_string(),
            decision.dry_run,
            to_json(decision)?
        ],
    )?;
    t.execute("DELETE FROM decisions WHERE id <= ?1 - ?2", params![t.last_insert_rowid(), DECISIONS_MAX])
        .map(drop)
}

fn put_rollback(t: &Transaction<'_>, record: &RollbackRecord) -> rusqlite::Result<()> {
    t.execute(
        "INSERT OR REPLACE INTO rollbacks
         (id, service, environment, from_release, to_release, reason, decided_by,
          started_ms, applied_ms, ended_ms, outcome, resolution, detail)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        params![
            record.id.as_str(),
            record.service.as_str(),
            record.environment,
            record.from.as_ref().map(ToString::to_string),
            record.to.to_string(),
            record.decision.reason.to_string(),
            record.decided_by,
            ms(record.started),
            record.applied.map(ms),
            record.ended.map(ms),
            record.outcome.name(),
            record.outcome.detail(),
            to_json(record)?
        ],
    )?;
    t.execute(
        "DELETE FROM rollbacks WHERE outcome NOT IN ('executing', 'verifying')
         AND id IN (SELECT id FROM rollbacks ORDER BY id DESC LIMIT -1 OFFSET ?1)",
        [ROLLBACKS_MAX],
    )
    .map(drop)
}

/// Reads rows whose first column is a value as JSON.
fn details<T: serde::de::DeserializeOwned>(mut rows: rusqlite::Rows<'_>) -> rusqlite::Result<Vec<T>> {
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(from_json(&row.get::<_, String>(0)?)?);
    }
    Ok(found)
}
