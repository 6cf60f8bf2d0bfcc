//! A lane: a thread that owns a connection and does what it is sent, in order. SQLite blocks; the rest must not.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::StoreError;

/// Calls that may wait: far more than the daemon ever has in flight, and a bound all the same.
const QUEUE_MAX: usize = 256;

type Call = Box<dyn FnOnce(&mut Connection) + Send>;

#[derive(Debug, Clone)]
pub(super) struct Lane {
    calls: mpsc::Sender<Call>,
    path: Arc<PathBuf>,
}

impl Lane {
    /// Starts the thread. It ends when the last handle is dropped.
    pub(super) fn start(name: &str, path: &Path, mut connection: Connection) -> Result<Self, StoreError> {
        let (calls, mut queue) = mpsc::channel::<Call>(QUEUE_MAX);
        std::thread::Builder::new()
            .name(format!("store-{name}"))
            .spawn(move || {
                while let Some(call) = queue.blocking_recv() {
                    call(&mut connection);
                }
            })
            .map_err(|e| StoreError::Io { path: path.into(), why: format!("cannot start a thread: {e}") })?;
        Ok(Self { calls, path: Arc::new(path.into()) })
    }

    /// Has `work` done on the lane's connection and waits for it.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let call: Call = Box::new(move |connection| {
            // Whoever asked may have been cancelled meanwhile.
            let _ = answer.send(work(connection));
        });
        self.calls.send(call).await.map_err(|_| StoreError::Stopped)?;
        let result = answered.await.map_err(|_| StoreError::Stopped)?;
        result.map_err(|e| StoreError::from_sqlite(&self.path, &e))
    }
}
