//! The store: what must survive the process. SQLite in WAL mode, every write durable before it is answered.
//!
//! It must never lose an acknowledged write, never overwrite a file it does not understand, and never panic: every
//! failure is an error that says what to do, and goes away by itself when its cause does. The file can be read with
//! the `sqlite3` shell while the daemon runs; `rollback_log`, `decision_log`, `release_ledger` and `announcements` are
//! the views to begin with.

mod drills;
mod evidence;
mod file;
mod journal;
mod lane;
mod ledger;
mod outbox;
mod paperwork;
mod schema;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rusqlite::{Connection, ErrorCode};

pub use self::evidence::Announced;
use self::lane::Lane;
pub use self::outbox::{Delivery, DeliveryState, Matter, Outgoing};
pub use self::paperwork::{Ticked, TicketState};

/// The database's name in the state directory.
const FILE: &str = "backstop.sqlite3";
/// The lock's name: a second daemon on the same directory would act on the same services.
const LOCK: &str = "backstop.lock";

/// A handle on the store; cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    writer: Lane,
    /// History is read on a connection of its own, so that a long list does not make a decision wait.
    reader: Lane,
    /// Announcements that were given up and not counted yet.
    given_up: Arc<AtomicU64>,
}

/// What is wrong with the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the directory.
    #[error("another backstop uses {}{}: stop it first (`systemctl status backstop`), or set another `state_dir`",
        path.display(), holder.map_or_else(String::new, |pid| format!(" (process {pid})")))]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The process that holds it, if it said so.
        holder: Option<u32>,
    },
    /// The file is not a database, or not a sound one. It is left as it is.
    #[error("{} is damaged ({why}); nothing in it is repaired or deleted: restore a copy, or move it away together with its -wal and -shm files to start afresh; to look at it: sqlite3 {} 'PRAGMA integrity_check'", path.display(), path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        why: String,
    },
    /// It cannot be written.
    #[error("{} cannot be written ({why}): check the owner and the mount of its directory", path.display())]
    ReadOnly {
        /// The database or its directory.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// There is no room.
    #[error("no room left for {}: make some, it is tried again by itself (`df -h {}`)", path.display(), path.display())]
    Full {
        /// The database.
        path: PathBuf,
    },
    /// A newer program wrote it.
    #[error("{} was written by a newer backstop (schema {found}, this one knows {known}): install that one again", path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// The version found.
        found: i64,
        /// The version this program writes.
        known: i64,
    },
    /// It is a database, and not one of ours.
    #[error("{} is another program's database; it was not touched: set a `state_dir` of our own", path.display())]
    Foreign {
        /// The database.
        path: PathBuf,
    },
    /// Another program holds a lock on it.
    #[error("another program keeps {0} locked: end the `sqlite3` shells that write (`fuser -v {0}`)", path.display())]
    Busy {
        /// The database.
        path: PathBuf,
    },
    /// The file was moved, removed or replaced while we used it.
    #[error("{} was moved, removed or replaced: move it back, or restart backstop to use what is there now", path.display())]
    Gone {
        /// The database.
        path: PathBuf,
    },
    /// No answer in time: what was asked may have been done or not.
    #[error("{} did not answer within {secs}s: is the disk overloaded or failing? (`dmesg | tail`)", path.display())]
    Slow {
        /// The database.
        path: PathBuf,
        /// The limit, in seconds.
        secs: u64,
    },
    /// Any other failure.
    #[error("{0}: {why}; check `state_dir` and the disk below it (`ls -ld {0}`, `dmesg | tail`)", path.display())]
    Io {
        /// The database or its directory.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// The store was closed.
    #[error("the store is closed; next: systemctl restart backstop")]
    Stopped,
}

impl StoreError {
    fn from_sqlite(path: &Path, e: &rusqlite::Error) -> Self {
        let (path, why) = (path.to_path_buf(), e.to_string());
        if let rusqlite::Error::FromSqlConversionFailure(_, _, inner) = e {
            return Self::Damaged { path, why: format!("a row cannot be read: {inner}") };
        }
        match e.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::Damaged { path, why },
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
                Self::ReadOnly { path, why }
            }
            Some(ErrorCode::DiskFull) => Self::Full { path },
            // On a full disk the log's index may fail before the log does.
            _ if e.sqlite_error().is_some_and(|e| e.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE) => {
                Self::Full { path }
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy { path },
            _ => Self::Io { path, why },
        }
    }

    fn from_io(path: &Path, e: &std::io::Error) -> Self {
        let (path, why) = (path.to_path_buf(), e.to_string());
        match e.kind() {
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                Self::ReadOnly { path, why }
            }
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::Full { path },
            _ => Self::Io { path, why },
        }
    }
}

impl Store {
    /// Opens the store in `dir`, which is created if it is not there (mode 0700: specifications hold secrets).
    ///
    /// # Errors
    /// Each kind of [`StoreError`] says what to do. A damaged file is never deleted nor overwritten.
    pub async fn open(dir: &Path) -> Result<Self, StoreError> {
        let dir = dir.to_path_buf();
        let opened = tokio::task::spawn_blocking(move || open(&dir)).await;
        opened.unwrap_or(Err(StoreError::Stopped))
    }

    /// Tries a small durable write: whether the store works, or works again.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn probe(&self) -> Result<(), StoreError> {
        self.writer.call(|c| pulse(c)).await
    }
}

fn open(dir: &Path) -> Result<Store, StoreError> {
    file::make_dir(dir)?;
    let lock = Arc::new(file::lock(&dir.join(LOCK))?);
    let path = dir.join(FILE);
    let writer = file::writer(&path)?;
    let reader = file::reader(&path)?;
    Ok(Store {
        writer: Lane::start("writer", &path, writer, Arc::clone(&lock))?,
        reader: Lane::start("reader", &path, reader, lock)?,
        given_up: Arc::default(),
    })
}

/// Writes the row that is there to be written.
fn pulse(c: &Connection) -> rusqlite::Result<()> {
    c.execute("INSERT OR REPLACE INTO pulse (id, at_ms) VALUES (1, unixepoch() * 1000)", []).map(drop)
}

/// A value that was written as JSON by us; one that cannot be read is an error of the row, not a panic.
fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(e)))
}

/// A value as JSON for a column.
fn to_json<T: serde::Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))
}

/// A time for a column. The year 292 million is far away.
fn ms(at: crate::core::Timestamp) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
}

/// A time from a column.
fn at(ms: i64) -> crate::core::Timestamp {
    crate::core::Timestamp::from_millis(u64::try_from(ms).unwrap_or(0))
}
