//! Files of a project on disk: read within bounds, replaced at once or not at all, with the file as it was beside it.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::file::SIZE_MAX;

/// The file as it was before the last change is called so.
const BACKUP: &str = ".backstop-backup";

/// The text of a file; none if there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<String>, String> {
    let said = |e: std::io::Error| format!("{}: {e}", path.display());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(said(e)),
    };
    let metadata = file.metadata().map_err(said)?;
    if !metadata.is_file() || metadata.len() > SIZE_MAX {
        return Err(format!("{}: not a file of at most {} KiB", path.display(), SIZE_MAX / 1024));
    }
    let mut text = String::new();
    file.take(SIZE_MAX + 1).read_to_string(&mut text).map_err(said)?;
    Ok(Some(text))
}

/// What the file was before the last change, if that was made at or after `since` (seconds of the wall clock).
pub(super) fn backup(path: &Path, since: u64) -> Option<String> {
    let copy = backup_of(&target(path));
    let made = fs::metadata(&copy).ok()?.mtime();
    let of_an_earlier_change = u64::try_from(made).is_ok_and(|made| made < since);
    if of_an_earlier_change { None } else { read(&copy).ok().flatten() }
}

/// Where that is kept.
pub(super) fn backup_of(path: &Path) -> PathBuf {
    beside(path, BACKUP)
}

/// Replaces a file, at once: whoever reads it meanwhile sees all of the old one or all of the new one. A link stays a
/// link. Owner and mode stay as they are.
///
/// # Errors
/// Why not; nothing is changed then.
pub(super) fn replace(path: &Path, text: &str) -> Result<(), String> {
    let path = target(path);
    let said = |e: std::io::Error| unwritable(&path, &e);
    let old = match fs::metadata(&path) {
        Ok(metadata) if metadata.permissions().mode() & 0o222 == 0 => {
            return Err(format!("{} is read-only", path.display()));
        }
        Ok(metadata) => Some(metadata),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => return Err(said(e)),
    };
    let copy = backup_of(&path);
    let earlier = fs::read(&copy).ok();
    if old.is_some() {
        let before = fs::read(&path).map_err(said)?;
        write(&copy, &before, old.as_ref()).map_err(said)?;
    }
    write(&path, text.as_bytes(), old.as_ref()).map_err(|e| {
        // A copy from before a change that was not made would be taken for a sign that it was.
        let _ = match earlier {
            Some(earlier) => write(&copy, &earlier, old.as_ref()),
            None => fs::remove_file(&copy),
        };
        said(e)
    })
}

/// Makes a file that is not there yet, at once, with the owner and the mode of `like`.
///
/// # Errors
/// Why not; nothing is changed then. One that somebody else made meanwhile is left alone.
pub(super) fn create(path: &Path, text: &str, like: &Path) -> Result<(), String> {
    let said = |e: std::io::Error| unwritable(path, &e);
    let like = fs::metadata(like).map_err(said)?;
    // A link, unlike a rename, never takes the place of a file.
    let new = beside(path, ".backstop-made");
    write(&new, text.as_bytes(), Some(&like)).map_err(said)?;
    let made = fs::hard_link(&new, path).map_err(said);
    let _ = fs::remove_file(&new);
    made.and_then(|()| settle(path).map_err(said))
}

/// Removes a file.
///
/// # Errors
/// Why not.
pub(super) fn remove(path: &Path) -> Result<(), String> {
    fs::remove_file(path).and_then(|()| settle(path)).map_err(|e| unwritable(path, &e))
}

fn unwritable(path: &Path, e: &std::io::Error) -> String {
    match e.kind() {
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => format!(
            "{} cannot be written by Backstop ({e}); in its systemd unit, ReadWritePaths={} allows it",
            path.display(),
            path.parent().unwrap_or(path).display()
        ),
        // The name is in use by the mount, and nothing can take its place.
        ErrorKind::ResourceBusy => format!(
            "{} is mounted by itself, so it cannot be replaced ({e}); mount {} instead, and Backstop can",
            path.display(),
            path.parent().unwrap_or(path).display()
        ),
        _ => format!("{}: {e}", path.display()),
    }
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// Makes what happened to the names in a folder durable.
fn settle(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Beside it first, then in its place.
fn write(path: &Path, bytes: &[u8], like: Option<&fs::Metadata>) -> std::io::Result<()> {
    let beside = beside(path, ".backstop-new");
    let done = (|| {
        match fs::remove_file(&beside) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        // It may hold secrets: for nobody else before it has the mode of the file that it replaces.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        if let Some(like) = like {
            let own = file.metadata()?;
            if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
                fchown(&file, Some(like.uid()), Some(like.gid()))?;
            }
            file.set_permissions(like.permissions())?;
        } else {
            file.set_permissions(fs::Permissions::from_mode(0o644))?;
        }
        file.sync_all()?;
        fs::rename(&beside, path)?;
        settle(path)
    })();
    if done.is_err() {
        let _ = fs::remove_file(&beside);
    }
    done
}

/// What a link leads to.
fn target(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_with_its_mode_and_the_old_one_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(".env");
        fs::write(&file, "TAG=v2\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        replace(&file, "TAG=v1\n").unwrap();
        assert_eq!(read(&file).unwrap().as_deref(), Some("TAG=v1\n"));
        assert_eq!(backup(&file, 0).as_deref(), Some("TAG=v2\n"));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::metadata(backup_of(&file)).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left");
    }

    #[test]
    fn a_file_that_is_not_there_is_made_like_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let (like, file) = (folder.path().join("compose.yaml"), folder.path().join("compose.override.yaml"));
        fs::write(&like, "").unwrap();
        fs::set_permissions(&like, fs::Permissions::from_mode(0o640)).unwrap();
        create(&file, "a", &like).unwrap();
        assert_eq!(read(&file).unwrap().as_deref(), Some("a"));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(create(&file, "b", &like).is_err(), "it is there");
        assert_eq!(read(&file).unwrap().as_deref(), Some("a"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left");
        remove(&file).unwrap();
        assert_eq!(read(&file).unwrap(), None);
    }

    #[test]
    fn a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("real.env"), folder.path().join(".env"));
        fs::write(&file, "TAG=v2\n").unwrap();
        std::os::unix::fs::symlink("real.env", &link).unwrap();
        replace(&link, "TAG=v1\n").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(read(&file).unwrap().as_deref(), Some("TAG=v1\n"));
        assert_eq!(backup(&link, 0).as_deref(), Some("TAG=v2\n"));
    }

    #[test]
    fn what_cannot_be_replaced_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(".env");
        fs::write(&file, "TAG=v2\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
        assert!(replace(&file, "TAG=v1\n").unwrap_err().contains("read-only"));
        assert_eq!(fs::read_to_string(&file).unwrap(), "TAG=v2\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(replace(&folder.path().join("none/.env"), "x").is_err());
        assert!(read(folder.path()).unwrap_err().contains("not a file"));
        assert_eq!(read(&folder.path().join("none")).unwrap(), None);
    }
}
