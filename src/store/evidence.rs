//! What was put aside for incident reports, and what became of the announcements of a rollback. The store does not look
//! into it.

use rusqlite::params;
use serde_json::Value;

use super::outbox::read_deliveries;
use super::{Delivery, Store, StoreError, at, from_json, ms, to_json};
use crate::core::Timestamp;
use crate::core::release::RollbackId;

/// Evidence of as many rollbacks is kept: as long as their journals.
const ROLLBACKS_MAX: i64 = 500;
/// One piece of evidence; an hour of a service's signals is about forty kilobytes.
const BYTES_MAX: usize = 1 << 20;
/// Announcements of one rollback that are read: more than any report shows.
const ANNOUNCED_MAX: i64 = 200;

/// What became of an announcement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// When it was said.
    pub at: Timestamp,
    /// Its kind.
    pub kind: String,
    /// Its title.
    pub title: String,
    /// Whether its channels were found, which may be none.
    pub routed: bool,
    /// What became of it in each channel.
    pub deliveries: Vec<Delivery>,
}

impl Store {
    /// Puts a piece of evidence aside; one with the same name takes the place of the one before. What is too large is not.
    ///
    /// # Errors
    /// If it may not be durable.
    pub async fn save_evidence(
        &self,
        rollback: &RollbackId,
        part: &'static str,
        now: Timestamp,
        detail: &Value,
    ) -> Result<(), StoreError> {
        let (rollback, detail) = (rollback.to_string(), detail.clone());
        self.writer
            .call(move |c| {
                let detail = to_json(&detail)?;
                if detail.len() > BYTES_MAX {
                    return Ok(());
                }
                c.execute(
                    "INSERT OR REPLACE INTO evidence (rollback, part, at_ms, detail) VALUES (?1, ?2, ?3, ?4)",
                    params![rollback, part, ms(now), detail],
                )?;
                c.execute(
                    "DELETE FROM evidence WHERE rollback NOT IN
                     (SELECT DISTINCT rollback FROM evidence ORDER BY rollback DESC LIMIT ?1)",
                    [ROLLBACKS_MAX],
                )?;
                Ok(())
            })
            .await
    }

    /// What was put aside for a rollback, by name.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn evidence(&self, rollback: &RollbackId) -> Result<Vec<(String, Value)>, StoreError> {
        let rollback = rollback.to_string();
        self.reader
            .call(move |c| {
                let mut rows =
                    c.prepare("SELECT part, detail FROM evidence WHERE rollback = ?1 ORDER BY part")?;
                let mut rows = rows.query([rollback])?;
                let mut found = Vec::new();
                while let Some(row) = rows.next()? {
                    found.push((row.get(0)?, from_json(&row.get::<_, String>(1)?)?));
                }
                Ok(found)
            })
            .await
    }

    /// What was said about a rollback and about the matter that it is a part of, oldest first: what people were asked before
    /// it, who took it on, and who else was told.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn announced(&self, rollback: &RollbackId) -> Result<Vec<Announced>, StoreError> {
        let rollback = rollback.to_string();
        self.reader
            .call(move |c| {
                let mut rows = c.prepare(
                    "SELECT id, at_ms, kind, title, routed_ms FROM outbox WHERE rollback = ?1
                     UNION
                     SELECT o.id, o.at_ms, o.kind, o.title, o.routed_ms FROM rollbacks AS r
                     JOIN matters AS m ON m.subject = r.service AND m.opened_ms <= coalesce(r.ended_ms, r.started_ms)
                         AND coalesce(m.closed_ms, r.started_ms) >= r.started_ms
                     JOIN outbox AS o ON o.service = r.service AND o.rollback IS NULL AND o.at_ms >= m.opened_ms
                         AND (m.closed_ms IS NULL OR o.at_ms <= m.closed_ms)
                     WHERE r.id = ?1 AND o.kind IN ('evaluate', 'approval_wanted', 'approval', 'mitigation', 'hold',
                         'stuck', 'acknowledged', 'escalated', 'over')
                     ORDER BY id LIMIT ?2",
                )?;
                let mut rows = rows.query(params![rollback, ANNOUNCED_MAX])?;
                let mut found = Vec::new();
                while let Some(row) = rows.next()? {
                    found.push(Announced {
                        at: at(row.get(1)?),
                        kind: row.get(2)?,
                        title: row.get(3)?,
                        routed: row.get::<_, Option<i64>>(4)?.is_some(),
                        deliveries: read_deliveries(c, row.get(0)?)?,
                    });
                }
                Ok(found)
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn evidence_is_kept_by_name_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let now = Timestamp::from_secs(1_000_000);
        let id = |n: i64| RollbackId::new(format!("{n:06}"));
        store.save_evidence(&id(0), "scene", now, &json!(1)).await.unwrap();
        store.save_evidence(&id(0), "scene", now, &json!(2)).await.unwrap();
        store.save_evidence(&id(0), "after", now, &json!(3)).await.unwrap();
        let kept = store.evidence(&id(0)).await.unwrap();
        assert_eq!(kept, [("after".to_owned(), json!(3)), ("scene".to_owned(), json!(2))]);
        let large = json!("x".repeat(BYTES_MAX));
        store.save_evidence(&id(1), "scene", now, &large).await.unwrap();
        assert!(store.evidence(&id(1)).await.unwrap().is_empty());
        for n in 1..=ROLLBACKS_MAX {
            store.save_evidence(&id(n), "scene", now, &json!(n)).await.unwrap();
        }
        assert!(store.evidence(&id(0)).await.unwrap().is_empty(), "the oldest goes");
        assert_eq!(store.evidence(&id(1)).await.unwrap().len(), 1);
    }
}
