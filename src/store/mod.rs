//! The store: what must survive the process. SQLite in WAL mode, every write durable before it is answered.
//!
//! It must never lose an acknowledged write, never overwrite a file it does not understand, and never panic: every
//! failure is an error that says what to do, and goes away by itself when its cause does. The file can be read with
//! the `sqlite3` shell while the daemon runs; `rollback_log`, `decision_log`, `release_ledger` and `announcements` are
//! the views to begin with.

mod journal;
mod lane;
mod ledger;
mod outbox;
mod schema;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tracing::warn;

use self::lane::Lane;
pub use self::outbox::{Outgoing, Unrecorded};

/// The database's name in the state directory.
const FILE: &str = "backstop.sqlite3";
/// The lock's name: a second daemon on the same directory would act on the same services.
const LOCK: &str = "backstop.lock";
/// How long a writer waits for somebody with a `sqlite3` shell.
const BUSY: Duration = Duration::from_secs(5);
/// The write-ahead log is cut back to this after somebody's long read made it grow: four times what it usually needs.
const WAL_KEPT_BYTES: i64 = 16 * 1024 * 1024;
/// For us alone: specifications hold passwords.
const PRIVATE: u32 = 0o600;

/// A handle on the store; cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    writer: Lane,
    /// History is read on a connection of its own, so that a long list does not make a decision wait.
    reader: Lane,
    /// Announcements that were given up and not counted yet.
    given_up: Arc<AtomicU64>,
    /// Held as long as any handle lives.
    _lock: Arc<File>,
}

/// What is wrong with the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the directory.
    #[error("another backstop uses {}: stop it first (`systemctl status backstop`), or set another `state_dir`", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The file is not a database, or not a sound one. It is left as it is.
    #[error("{} is damaged ({why}); nothing in it is repaired or deleted: restore a copy, or move it away together with its -wal and -shm files to start afresh; to look at it: sqlite3 {} 'PRAGMA integrity_check'", path.display(), path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        why: String,
    },
    /// It is a sound database, but not one of ours. It is left as it is.
    #[error("{} belongs to another program; it was not touched: set another `state_dir`, or move the file away", path.display())]
    Foreign {
        /// The database.
        path: PathBuf,
    },
    /// Somebody else holds a lock on it, a `sqlite3` shell perhaps.
    #[error("another program keeps {} locked: end its transaction, it is tried again by itself (`fuser -v {}`)", path.display(), path.display())]
    Busy {
        /// The database.
        path: PathBuf,
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
    /// Any other failure.
    #[error("{}: {why}; check `state_dir` and the disk below it (`ls -ld {}`, `dmesg | tail`)", path.display(), path.display())]
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
        // With no room for its shared memory, SQLite speaks of an IO error and not of a full disk.
        if e.sqlite_error().is_some_and(|e| e.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE) {
            return Self::Full { path };
        }
        match e.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::Damaged { path, why },
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
                Self::ReadOnly { path, why }
            }
            Some(ErrorCode::DiskFull) => Self::Full { path },
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
        self.writer
            .call(|c| {
                c.execute("INSERT OR REPLACE INTO pulse (id, at_ms) VALUES (1, unixepoch() * 1000)", [])
                    .map(drop)
            })
            .await
    }
}

fn open(dir: &Path) -> Result<Store, StoreError> {
    if !dir.is_dir() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|e| StoreError::from_io(dir, &e))?;
    }
    let lock = lock(&dir.join(LOCK))?;
    let path = dir.join(FILE);
    // Made by us first, so that nobody can read it even for a moment.
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(PRIVATE)
        .open(&path)
        .map_err(|e| StoreError::from_io(&path, &e))?;
    keep_private(&path);
    // A commit that survives a power cut in a file whose name does not would be lost all the same.
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| StoreError::from_io(dir, &e))?;
    let found = inspect(&path)?;
    let writer = writer(&path, found)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let reader = Connection::open_with_flags(&path, flags)
        .and_then(|c| c.busy_timeout(BUSY).map(|()| c))
        .map_err(|e| StoreError::from_sqlite(&path, &e))?;
    Ok(Store {
        writer: Lane::start("writer", &path, writer)?,
        reader: Lane::start("reader", &path, reader)?,
        given_up: Arc::default(),
        _lock: Arc::new(lock),
    })
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(PRIVATE)
        .open(path)
        .map_err(|e| StoreError::from_io(path, &e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::Locked { path: path.into() }),
        Err(std::fs::TryLockError::Error(e)) => Err(StoreError::from_io(path, &e)),
    }
}

/// Takes from others what a restored copy may have given them. SQLite gives its own files the database's mode.
fn keep_private(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let file = beside(path, suffix);
        let open = std::fs::metadata(&file).is_ok_and(|m| m.permissions().mode() & 0o077 != 0);
        if open && let Err(e) = std::fs::set_permissions(&file, PermissionsExt::from_mode(PRIVATE)) {
            warn!("{} holds secrets and can be read by others: {e}; next: chmod 600 it", file.display());
        }
    }
}

/// The file that SQLite keeps beside a database.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Looks before anything is written: a file that is not ours, newer or not sound stays as it is, byte for byte.
/// Returns the version of its schema.
fn inspect(path: &Path) -> Result<i64, StoreError> {
    let wrong = |e: rusqlite::Error| StoreError::from_sqlite(path, &e);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let size = |file: &Path| std::fs::metadata(file).map_or(0, |m| m.len());
    if size(path) == 0 && size(&beside(path, "-wal")) > 0 {
        // SQLite would take it for a new database, and delete the log with what was acknowledged.
        return Err(StoreError::Damaged {
            path: path.into(),
            why: "it is empty, its -wal file is not".into(),
        });
    }
    let c = Connection::open_with_flags(path, flags).map_err(wrong)?;
    c.busy_timeout(BUSY).map_err(wrong)?;
    // Closing it must not move anything from the write-ahead log into the file.
    c.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(wrong)?;
    let pragma = |name| c.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(wrong);
    let (owner, found) = (pragma("application_id")?, pragma("user_version")?);
    let empty: bool = c
        .query_row("SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))
        .map_err(wrong)?;
    if owner != schema::APPLICATION && !(empty && found == 0) {
        return Err(StoreError::Foreign { path: path.into() });
    }
    if found > schema::VERSION {
        return Err(StoreError::Newer { path: path.into(), found, known: schema::VERSION });
    }
    let sound: String = c.pragma_query_value(None, "quick_check", |row| row.get(0)).map_err(wrong)?;
    if sound != "ok" {
        return Err(StoreError::Damaged { path: path.into(), why: sound.replace('\n', " ") });
    }
    Ok(found)
}

fn writer(path: &Path, found: i64) -> Result<Connection, StoreError> {
    let wrong = |e: rusqlite::Error| StoreError::from_sqlite(path, &e);
    let mut c = Connection::open(path).map_err(wrong)?;
    c.busy_timeout(BUSY).map_err(wrong)?;
    c.pragma_update(None, "journal_mode", "WAL").map_err(wrong)?;
    // FULL: a commit survives a power cut, not only a crash of the process.
    c.pragma_update(None, "synchronous", "FULL").map_err(wrong)?;
    c.pragma_update(None, "journal_size_limit", WAL_KEPT_BYTES).map_err(wrong)?;
    schema::migrate(&mut c, found).map_err(wrong)?;
    journal::prune(&c).map_err(wrong)?;
    Ok(c)
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
