//! A lane: a thread that owns a connection and does what it is sent, in order. SQLite blocks; the rest must not.
//!
//! A caller always gets an answer, whatever the disk does, and the thread outlives every call.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::{StoreError, file};

/// Calls that may wait: far more than the daemon ever has in flight, and a bound all the same.
const QUEUE_MAX: usize = 256;
/// Longer than any disk needs that works, and than [`file`] waits for a lock: after it the answer is an error.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Whether the file is still where it was when it was opened.
type There = bool;
type Call = Box<dyn FnOnce(&mut Connection, There) + Send>;

#[derive(Debug, Clone)]
pub(super) struct Lane {
    calls: mpsc::Sender<Call>,
    path: Arc<PathBuf>,
}

impl Lane {
    /// Starts the thread. It ends when the last handle is dropped; `lock` is held until then.
    pub(super) fn start(
        name: &str,
        path: &Path,
        mut connection: Connection,
        lock: Arc<File>,
    ) -> Result<Self, StoreError> {
        let (calls, mut queue) = mpsc::channel::<Call>(QUEUE_MAX);
        let opened = file::identity(path)?;
        let at = path.to_path_buf();
        std::thread::Builder::new()
            .name(format!("store-{name}"))
            .spawn(move || {
                while let Some(call) = queue.blocking_recv() {
                    // SQLite would go on writing to a file without a name, and nobody would ever find it.
                    let there = file::identity(&at).is_ok_and(|now| now == opened);
                    if catch_unwind(AssertUnwindSafe(|| call(&mut connection, there))).is_err() {
                        tracing::error!("a call to the store panicked; it was not done: please report this");
                    }
                }
                drop(connection);
                drop(lock);
            })
            .map_err(|e| StoreError::Io { path: path.into(), why: format!("cannot start a thread: {e}") })?;
        Ok(Self { calls, path: Arc::new(path.into()) })
    }

    /// Has `work` done on the lane's connection and waits for it, not for ever.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let path = Arc::clone(&self.path);
        let call: Call = Box::new(move |connection, there| {
            // Whoever asked may have given up meanwhile: what he was told has failed must not happen later.
            if answer.is_closed() {
                return;
            }
            let result = if there {
                work(connection).map_err(|e| StoreError::from_sqlite(&path, &e))
            } else {
                Err(StoreError::Gone { path: path.to_path_buf() })
            };
            let _ = answer.send(result);
        });
        let asked = async {
            self.calls.send(call).await.map_err(|_| StoreError::Stopped)?;
            answered.await.map_err(|_| StoreError::Stopped)?
        };
        let slow = StoreError::Slow { path: self.path.to_path_buf(), secs: ANSWER_MAX.as_secs() };
        tokio::time::timeout(ANSWER_MAX, asked).await.unwrap_or(Err(slow))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(dir: &Path) -> Lane {
        let path = dir.join("db");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("CREATE TABLE t (x)").unwrap();
        let lock = Arc::new(File::create(dir.join("lock")).unwrap());
        Lane::start("test", &path, connection, lock).unwrap()
    }

    #[tokio::test]
    async fn a_panic_is_that_calls_own_error_and_leaves_nothing_half_done() {
        let dir = tempfile::tempdir().unwrap();
        let lane = lane(dir.path());
        let failed = lane
            .call(|c| {
                let t = c.transaction()?;
                t.execute("INSERT INTO t VALUES (1)", [])?;
                if t.is_autocommit() {
                    return Ok(());
                }
                panic!("as it should");
            })
            .await;
        assert_eq!(failed, Err(StoreError::Stopped));
        let rows = lane.call(|c| c.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0))).await;
        assert_eq!(rows, Ok(0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_is_an_error_and_what_had_not_begun_is_not_done() {
        let dir = tempfile::tempdir().unwrap();
        let lane = lane(dir.path());
        let (release, hang) = std::sync::mpsc::channel::<()>();
        let hanging = lane.call(move |_| {
            let _ = hang.recv();
            Ok(())
        });
        let waiting = lane.call(|c| c.execute("INSERT INTO t VALUES (1)", []));
        let (hanging, waiting) = tokio::join!(hanging, waiting);
        assert!(matches!(hanging, Err(StoreError::Slow { secs: 10, .. })), "{hanging:?}");
        assert!(matches!(waiting, Err(StoreError::Slow { .. })), "{waiting:?}");
        drop(release);
        tokio::time::resume();
        let rows = lane.call(|c| c.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0))).await;
        assert_eq!(rows, Ok(0));
    }
}
