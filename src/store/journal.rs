//! Journals of rollbacks: what was intended and what was done. The store does not look into the events.

use rusqlite::{Connection, params};
use serde_json::Value;

use super::{Store, StoreError, at, from_json, to_json};
use crate::core::Timestamp;
use crate::core::release::RollbackId;

/// Journals of rollbacks that are over are kept this long: a post-mortem is held within days.
const CLOSED_KEPT_DAYS: u32 = 90;
/// And no more than these: each holds a plan with whole specifications.
const CLOSED_MAX: u32 = 500;

impl Store {
    /// Appends an event. When this returns, it survives a power cut. `closes` ends the journal.
    ///
    /// # Errors
    /// If it may not be durable; it may be all the same.
    pub async fn append_journal(
        &self,
        rollback: &RollbackId,
        event: &Value,
        closes: bool,
    ) -> Result<(), StoreError> {
        let (rollback, event) = (rollback.to_string(), event.clone());
        self.writer
            .call(move |c| {
                let t = c.transaction()?;
                t.execute(
                    "INSERT INTO journal (rollback, sequence, at_ms, event)
                     SELECT ?1, coalesce(max(sequence), 0) + 1, CAST(unixepoch('subsec') * 1000 AS INTEGER), ?2
                     FROM journal WHERE rollback = ?1",
                    params![rollback, to_json(&event)?],
                )?;
                if closes {
                    t.execute(
                        "INSERT OR IGNORE INTO journals_closed (rollback, at_ms) VALUES (?1, unixepoch() * 1000)",
                        [&rollback],
                    )?;
                    prune(&t)?;
                }
                t.commit()
            })
            .await
    }

    /// Every journal that is not closed, oldest first, with its events in order.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn unfinished_journals(&self) -> Result<Vec<(RollbackId, Vec<Value>)>, StoreError> {
        self.writer
            .call(|c| {
                let mut rows = c.prepare(
                    "SELECT rollback, event FROM journal
                     WHERE rollback NOT IN (SELECT rollback FROM journals_closed) ORDER BY rollback, sequence",
                )?;
                let mut rows = rows.query([])?;
                let mut found: Vec<(RollbackId, Vec<Value>)> = Vec::new();
                while let Some(row) = rows.next()? {
                    let rollback = RollbackId::new(row.get::<_, String>(0)?);
                    let event: Value = from_json(&row.get::<_, String>(1)?)?;
                    match found.last_mut().filter(|(last, _)| *last == rollback) {
                        Some((_, events)) => events.push(event),
                        None => found.push((rollback, vec![event])),
                    }
                }
                Ok(found)
            })
            .await
    }

    /// A rollback's journal with times, oldest event first.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn journal(&self, rollback: &RollbackId) -> Result<Vec<(Timestamp, Value)>, StoreError> {
        let rollback = rollback.to_string();
        self.reader
            .call(move |c| {
                let mut rows =
                    c.prepare("SELECT at_ms, event FROM journal WHERE rollback = ?1 ORDER BY sequence")?;
                let mut rows = rows.query([rollback])?;
                let mut found = Vec::new();
                while let Some(row) = rows.next()? {
                    found.push((at(row.get(0)?), from_json(&row.get::<_, String>(1)?)?));
                }
                Ok(found)
            })
            .await
    }
}

/// Forgets journals that were closed long ago, or before too many others. Those that are open stay.
pub(super) fn prune(c: &Connection) -> rusqlite::Result<()> {
    let old = "SELECT rollback FROM journals_closed WHERE at_ms < (unixepoch() - ?1 * 86400) * 1000
               UNION SELECT rollback FROM
               (SELECT rollback FROM journals_closed ORDER BY at_ms DESC, rollback DESC LIMIT -1 OFFSET ?2)";
    // The events first: events of a journal that is not known to be closed would be taken up at the next start.
    for table in ["journal", "journals_closed"] {
        c.execute(
            &format!("DELETE FROM {table} WHERE rollback IN ({old})"),
            params![CLOSED_KEPT_DAYS, CLOSED_MAX],
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn closed_journals_are_bounded_and_open_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let id = |n: u32| RollbackId::new(format!("{n:06}"));
        store.append_journal(&id(0), &Value::Null, false).await.unwrap();
        let fill = |n: u32| {
            store.writer.call(move |c| {
                c.execute_batch(&format!(
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {n})
                     INSERT INTO journal SELECT printf('%06d', i), 1, 0, 'null' FROM n;
                     INSERT INTO journals_closed SELECT DISTINCT rollback, unixepoch() * 1000 FROM journal
                     WHERE rollback > '000000'; UPDATE journals_closed SET at_ms = 5 WHERE rollback = '000700';"
                ))
            })
        };
        fill(700).await.unwrap();
        store.append_journal(&id(701), &Value::Null, true).await.unwrap();
        for table in ["journal", "journals_closed"] {
            let left = store
                .writer
                .call(move |c| {
                    c.query_row(
                        &format!("SELECT count(*), min(rollback), max(rollback) FROM {table} WHERE rollback > '000000'"),
                        [],
                        |row| Ok((row.get::<_, u32>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?)),
                    )
                })
                .await
                .unwrap();
            // 000700 is of 1970, so 200 of the others are too many.
            assert_eq!(left, (500, "000201".into(), "000701".into()), "{table}");
        }
        assert_eq!(store.unfinished_journals().await.unwrap(), [(id(0), vec![Value::Null])]);
    }
}
