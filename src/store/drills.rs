//! What the last drill of each service found.

use rusqlite::params;

use super::{Store, StoreError, from_json, ms, to_json};
use crate::rollback::drill::Drill;

/// Services come and go; the drills of so many are kept, the newest.
const DRILLS_MAX: i64 = 1_000;

impl Store {
    /// Keeps what a drill found, in place of the one before it.
    ///
    /// # Errors
    /// If it may not be durable.
    pub async fn keep_drill(&self, drill: &Drill) -> Result<(), StoreError> {
        let (service, at) = (drill.service.to_string(), ms(drill.at));
        let drill = drill.clone();
        self.writer
            .call(move |c| {
                let t = c.transaction()?;
                t.execute(
                    "INSERT OR REPLACE INTO drills (service, at_ms, detail) VALUES (?1, ?2, ?3)",
                    params![service, at, to_json(&drill)?],
                )?;
                t.execute(
                    "DELETE FROM drills WHERE service NOT IN
                        (SELECT service FROM drills ORDER BY at_ms DESC, service LIMIT ?1)",
                    [DRILLS_MAX],
                )?;
                t.commit()
            })
            .await
    }

    /// The last drill of each service, by name. What another version wrote in other words is left out.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn drills(&self) -> Result<Vec<Drill>, StoreError> {
        self.reader
            .call(|c| {
                let mut drills = c.prepare("SELECT detail FROM drills ORDER BY service")?;
                let details = drills.query_map([], |row| row.get::<_, String>(0))?;
                let details = details.collect::<rusqlite::Result<Vec<_>>>()?;
                Ok(details.iter().filter_map(|detail| from_json(detail).ok()).collect())
            })
            .await
    }
}
