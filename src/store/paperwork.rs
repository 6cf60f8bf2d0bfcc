//! What is left to people after a rollback: what they ticked off its checklist, and its ticket. The store does not know
//! what is on a checklist.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Store, StoreError, at, from_json, ms};
use crate::core::Timestamp;
use crate::core::ledger::RollbackRecord;
use crate::core::release::RollbackId;

/// Notes on one item of one rollback. Whoever has more to say has a ticket for it.
const NOTES_MAX: i64 = 50;

/// What somebody ticked off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticked {
    /// Which item.
    pub item: String,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: String,
    /// What they noted; may be empty.
    pub note: String,
}

/// How the ticket of a rollback stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TicketState {
    /// How often it was tried to open it.
    pub attempts: u32,
    /// When it is tried again.
    pub next: Timestamp,
    /// Where it is, once it is open.
    pub url: Option<String>,
    /// Since when.
    pub opened: Option<Timestamp>,
    /// It is not tried any more, since then.
    pub abandoned: Option<Timestamp>,
    /// What went wrong last.
    pub last_error: Option<String>,
}

impl Store {
    /// Keeps what somebody ticked off. Whether it was kept: one item takes a bounded number of notes.
    ///
    /// # Errors
    /// If it may not be durable.
    pub async fn tick(&self, rollback: &RollbackId, ticked: &Ticked) -> Result<bool, StoreError> {
        let (rollback, ticked) = (rollback.to_string(), ticked.clone());
        self.writer
            .call(move |c| {
                let t = c.transaction()?;
                let notes: i64 = t.query_row(
                    "SELECT count(*) FROM ticks WHERE rollback = ?1 AND item = ?2",
                    params![rollback, ticked.item],
                    |row| row.get(0),
                )?;
                if notes >= NOTES_MAX {
                    return Ok(false);
                }
                t.execute(
                    "INSERT INTO ticks (rollback, item, at_ms, ticked_by, note) VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![rollback, ticked.item, ms(ticked.at), ticked.by, ticked.note],
                )?;
                // Rollbacks that are forgotten have no checklist any more.
                t.execute("DELETE FROM ticks WHERE rollback NOT IN (SELECT id FROM rollbacks)", [])?;
                t.commit()?;
                Ok(true)
            })
            .await
    }

    /// Takes back whatever was ticked off of an item. Whether there was anything to take back.
    ///
    /// # Errors
    /// If that may not be durable.
    pub async fn untick(
        &self,
        rollback: &RollbackId,
        item: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let (rollback, item, by) = (rollback.to_string(), item.to_owned(), by.to_owned());
        self.writer
            .call(move |c| {
                let undone = c.execute(
                    "UPDATE ticks SET undone_ms = ?3, undone_by = ?4
                     WHERE rollback = ?1 AND item = ?2 AND undone_ms IS NULL",
                    params![rollback, item, ms(now), by],
                )?;
                Ok(undone > 0)
            })
            .await
    }

    /// What is ticked off of a rollback's checklist, oldest first.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn ticks(&self, rollback: &RollbackId) -> Result<Vec<Ticked>, StoreError> {
        let rollback = rollback.to_string();
        self.reader
            .call(move |c| {
                let mut rows = c.prepare(
                    "SELECT item, at_ms, ticked_by, note FROM ticks
                     WHERE rollback = ?1 AND undone_ms IS NULL ORDER BY id",
                )?;
                let ticked = |row: &Row<'_>| {
                    Ok(Ticked { item: row.get(0)?, at: at(row.get(1)?), by: row.get(2)?, note: row.get(3)? })
                };
                rows.query_map([rollback], ticked)?.collect()
            })
            .await
    }

    /// How the ticket of a rollback stands; none if nobody was asked to open one yet.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn ticket(&self, rollback: &RollbackId) -> Result<Option<TicketState>, StoreError> {
        let rollback = rollback.to_string();
        self.reader.call(move |c| read_ticket(c, &rollback)).await
    }

    /// Writes down how the ticket of a rollback stands.
    ///
    /// # Errors
    /// If that may not be durable.
    pub async fn keep_ticket(&self, rollback: &RollbackId, ticket: &TicketState) -> Result<(), StoreError> {
        let (rollback, ticket) = (rollback.to_string(), ticket.clone());
        self.writer
            .call(move |c| {
                c.execute(
                    "INSERT OR REPLACE INTO tickets
                     (rollback, attempts, next_ms, url, opened_ms, abandoned_ms, last_error)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                    params![
                        rollback,
                        ticket.attempts,
                        ms(ticket.next),
                        ticket.url,
                        ticket.opened.map(ms),
                        ticket.abandoned.map(ms),
                        ticket.last_error
                    ],
                )?;
                c.execute("DELETE FROM tickets WHERE rollback NOT IN (SELECT id FROM rollbacks)", [])
                    .map(drop)
            })
            .await
    }

    /// Rollbacks that ended after `since`, the last first, at most `limit`.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn ended_since(&self, since: Timestamp, limit: u32) -> Result<Vec<RollbackRecord>, StoreError> {
        self.reader
            .call(move |c| {
                let mut rows = c.prepare(
                    "SELECT detail FROM rollbacks WHERE ended_ms > ?1 ORDER BY ended_ms DESC, id DESC LIMIT ?2",
                )?;
                let texts = rows.query_map(params![ms(since), limit], |row| row.get::<_, String>(0))?;
                // One of another version is passed over: the others' paperwork does not wait for it.
                let texts = texts.collect::<rusqlite::Result<Vec<_>>>()?;
                Ok(texts.iter().filter_map(|text| from_json(text).ok()).collect())
            })
            .await
    }

    /// Whether something was said under this key, as far as the outbox remembers.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn was_said(&self, key: &str) -> Result<bool, StoreError> {
        let key = key.to_owned();
        self.reader
            .call(move |c| {
                let found =
                    c.query_row("SELECT 1 FROM outbox WHERE key = ?1", [key], |_| Ok(())).optional()?;
                Ok(found.is_some())
            })
            .await
    }
}

fn read_ticket(c: &Connection, rollback: &str) -> rusqlite::Result<Option<TicketState>> {
    c.query_row(
        "SELECT attempts, next_ms, url, opened_ms, abandoned_ms, last_error FROM tickets WHERE rollback = ?1",
        [rollback],
        |row| {
            Ok(TicketState {
                attempts: row.get(0)?,
                next: at(row.get(1)?),
                url: row.get(2)?,
                opened: row.get::<_, Option<i64>>(3)?.map(at),
                abandoned: row.get::<_, Option<i64>>(4)?.map(at),
                last_error: row.get(5)?,
            })
        },
    )
    .optional()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store that knows of a rollback.
    async fn store(dir: &std::path::Path, id: &RollbackId) -> Store {
        let store = Store::open(dir).await.unwrap();
        let id = id.to_string();
        store
            .writer
            .call(move |c| {
                c.execute(
                    "INSERT INTO rollbacks (id, service, environment, to_release, reason, decided_by, started_ms,
                     outcome, resolution, detail) VALUES (?1, 's', 'e', 't', 'r', 'b', 1, 'verified', '', '{}')",
                    [id],
                )
            })
            .await
            .unwrap();
        store
    }

    fn ticked(by: &str, at: u64, note: &str) -> Ticked {
        Ticked { item: "root_cause".into(), at: Timestamp::from_secs(at), by: by.into(), note: note.into() }
    }

    #[tokio::test]
    async fn ticks_outlive_the_process_and_what_was_taken_back_stays_on_record() {
        let (dir, id) = (tempfile::tempdir().unwrap(), RollbackId::new("r1"));
        let open = store(dir.path(), &id).await;
        assert!(open.tick(&id, &ticked("anna", 10, "a pool of 4")).await.unwrap());
        assert!(open.tick(&id, &ticked("ben", 20, "indeed")).await.unwrap());
        drop(open);
        let again = reopened(dir.path()).await;
        let known = again.ticks(&id).await.unwrap();
        assert_eq!(known, [ticked("anna", 10, "a pool of 4"), ticked("ben", 20, "indeed")]);
        assert!(again.untick(&id, "root_cause", "carol", Timestamp::from_secs(30)).await.unwrap());
        assert!(!again.untick(&id, "root_cause", "carol", Timestamp::from_secs(31)).await.unwrap());
        assert_eq!(again.ticks(&id).await.unwrap(), []);
        let kept = |c: &mut Connection| {
            c.query_row("SELECT group_concat(note || ' ' || undone_by, '; ') FROM checklist_log", [], |row| {
                row.get::<_, String>(0)
            })
        };
        assert_eq!(again.reader.call(kept).await.unwrap(), "indeed carol; a pool of 4 carol");
    }

    /// The lanes of the one before may take a moment to let go of the lock.
    async fn reopened(dir: &std::path::Path) -> Store {
        loop {
            match Store::open(dir).await {
                Err(StoreError::Locked { .. }) => tokio::task::yield_now().await,
                opened => return opened.unwrap(),
            }
        }
    }

    #[tokio::test]
    async fn an_item_takes_a_bounded_number_of_notes_and_a_forgotten_rollback_none() {
        let (dir, id) = (tempfile::tempdir().unwrap(), RollbackId::new("r1"));
        let store = store(dir.path(), &id).await;
        for n in 0..NOTES_MAX {
            assert!(store.tick(&id, &ticked("anna", n.unsigned_abs(), "again")).await.unwrap());
        }
        assert!(!store.tick(&id, &ticked("anna", 99, "once more")).await.unwrap());
        let gone = RollbackId::new("r0");
        store.tick(&gone, &ticked("anna", 99, "")).await.unwrap();
        assert_eq!(store.ticks(&gone).await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_ticket_is_kept_as_it_stands() {
        let (dir, id) = (tempfile::tempdir().unwrap(), RollbackId::new("r1"));
        let store = store(dir.path(), &id).await;
        assert_eq!(store.ticket(&id).await.unwrap(), None);
        let mut ticket = TicketState { attempts: 1, next: Timestamp::from_secs(9), ..TicketState::default() };
        store.keep_ticket(&id, &ticket).await.unwrap();
        assert_eq!(store.ticket(&id).await.unwrap(), Some(ticket.clone()));
        ticket.url = Some("https://github.com/shop/shop/issues/7".into());
        ticket.opened = Some(Timestamp::from_secs(10));
        store.keep_ticket(&id, &ticket).await.unwrap();
        assert_eq!(store.ticket(&id).await.unwrap(), Some(ticket));
    }
}
