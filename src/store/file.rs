//! The file itself: who may use it, whether it is sound, and opening it.
//!
//! A file that is not in order is reported and stays byte for byte as it is: it is looked at through a connection
//! that cannot write before one that can is opened.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::{StoreError, journal, schema};

/// How long somebody with a `sqlite3` shell may hold us up: a rollback may be waiting for its journal.
const BUSY: Duration = Duration::from_secs(2);
/// The store that was dropped a moment ago may still be closing its file: the lock is tried for a second.
const LOCK_TRIES: u32 = 50;
/// See [`LOCK_TRIES`].
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// How every SQLite file begins.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Marks the database as ours: "BKST".
const APPLICATION: i64 = 0x424B_5354;
/// The log is cut back to this after a burst, so that it does not keep the room.
const LOG_MAX: i64 = 16 * 1024 * 1024;

/// Makes the state directory if it is not there: for its owner only, since specifications hold secrets.
pub(super) fn make_dir(dir: &Path) -> Result<(), StoreError> {
    if dir.is_dir() {
        return Ok(());
    }
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|e| StoreError::from_io(dir, &e))
}

/// Takes the lock for as long as the returned file is open; the system gives it back when the process ends.
pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
    let wrong = |e: &io::Error| StoreError::from_io(path, e);
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true).mode(0o600);
    let mut file = options.open(path).map_err(|e| wrong(&e))?;
    let mut tries = 0;
    loop {
        tries += 1;
        match file.try_lock() {
            Ok(()) => break,
            Err(std::fs::TryLockError::WouldBlock) if tries < LOCK_TRIES => std::thread::sleep(LOCK_RETRY),
            Err(std::fs::TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The number is for the message only.
                let _ = file.read_to_string(&mut holder);
                return Err(StoreError::Locked { path: path.into(), holder: holder.trim().parse().ok() });
            }
            Err(std::fs::TryLockError::Error(e)) => return Err(wrong(&e)),
        }
    }
    // On a full disk the lock holds without the number.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// The connection that writes, to a sound file of a schema we know; makes the file if there is none.
pub(super) fn writer(path: &Path) -> Result<Connection, StoreError> {
    match File::open(path) {
        Ok(file) => check(path, file)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => create(path)?,
        Err(e) => return Err(StoreError::from_io(path, &e)),
    }
    keep_private(path);
    let opened = || {
        let mut c = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        c.busy_timeout(BUSY)?;
        c.pragma_update(None, "journal_mode", "WAL")?;
        c.pragma_update(None, "journal_size_limit", LOG_MAX)?;
        // FULL: a commit survives a power cut, not only a crash of the process.
        c.pragma_update(None, "synchronous", "FULL")?;
        schema::migrate(&mut c)?;
        // A store that takes no writes is none: better known now than at the first rollback.
        super::pulse(&c)?;
        journal::prune(&c)?;
        Ok(c)
    };
    opened().map_err(|e| StoreError::from_sqlite(path, &e))
}

/// Takes from others what a restored copy may have given them. SQLite gives new files the database's mode.
fn keep_private(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let file = PathBuf::from(name);
        let open = std::fs::metadata(&file).is_ok_and(|m| m.permissions().mode() & 0o077 != 0);
        if open && let Err(e) = std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)) {
            let file = file.display();
            tracing::warn!("{file} holds secrets and may be read by others: {e}; next: chmod 600 {file}");
        }
    }
}

/// A connection that cannot write.
pub(super) fn reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
        .and_then(|c| c.busy_timeout(BUSY).map(|()| c))
        .map_err(|e| StoreError::from_sqlite(path, &e))
}

/// Device and inode: which file it is, whatever its name.
pub(super) fn identity(path: &Path) -> Result<(u64, u64), StoreError> {
    let metadata = std::fs::metadata(path).map_err(|e| StoreError::from_io(path, &e))?;
    Ok((metadata.dev(), metadata.ino()))
}

fn check(path: &Path, mut file: File) -> Result<(), StoreError> {
    let damaged = |why: String| StoreError::Damaged { path: path.into(), why };
    let mut begin = [0; MAGIC.len()];
    // An empty file is damaged too: ours get their name only when they are complete.
    if file.read_exact(&mut begin).is_err() || &begin != MAGIC {
        return Err(damaged("it does not begin as an SQLite file does".into()));
    }
    let wrong = |e: rusqlite::Error| StoreError::from_sqlite(path, &e);
    let c = reader(path)?;
    let number = |name: &str| c.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(wrong);
    let (application, found) = (number("application_id")?, number("user_version")?);
    if application == APPLICATION && found > schema::VERSION {
        return Err(StoreError::Newer { path: path.into(), found, known: schema::VERSION });
    }
    let sound: String = c.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(wrong)?;
    if sound != "ok" {
        return Err(damaged(sound.replace('\n', "; ")));
    }
    if application != APPLICATION {
        return Err(StoreError::Foreign { path: path.into() });
    }
    Ok(())
}

/// Builds the file under another name and gives it its own when it is complete: half a store is never found.
fn create(path: &Path) -> Result<(), StoreError> {
    let draft = path.with_extension("draft");
    let wrong = |e: &io::Error| StoreError::from_io(path, e);
    // A crash may have left these; an old journal would be played into the new draft.
    for left in [&draft, &path.with_extension("draft-journal")] {
        match std::fs::remove_file(left) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(wrong(&e)),
            Ok(()) | Err(_) => {}
        }
    }
    // Made by us first, so that nobody else can read it even for a moment; SQLite gives its side files the same mode.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(|e| wrong(&e))?;
    let build = || {
        let mut c = Connection::open_with_flags(&draft, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        c.pragma_update(None, "synchronous", "FULL")?;
        c.pragma_update(None, "application_id", APPLICATION)?;
        schema::migrate(&mut c)?;
        c.close().map_err(|(_, e)| e)
    };
    if let Err(e) = build() {
        // What stays behind is removed by the next start.
        let _ = std::fs::remove_file(&draft);
        return Err(StoreError::from_sqlite(path, &e));
    }
    std::fs::rename(&draft, path).map_err(|e| wrong(&e))?;
    // The name is durable only when its directory is.
    let dir = path.parent().unwrap_or(path);
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| wrong(&e))
}
