//! Secrets: given in place or in a file of their own, and never shown. A file's name without a directory is a
//! systemd credential; everything else is an absolute path.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::layers::read_text;
use super::problem::Wrong;
use super::values::{Parse, SecretFile};

/// A token or an address is a line; a larger file is the wrong one.
const LARGEST: u64 = 64 << 10;

/// The secret in `file`, without the newline that editors put at the end.
pub(super) fn read<T: Parse>(file: &SecretFile, credentials: Option<&Path>) -> Result<T, Wrong> {
    let path = locate(&file.0, credentials)?;
    let of_file = |what: Wrong| Wrong::new(format!("the file {} {}", path.display(), what.wrong), what.right);
    let text = read_text(&path, LARGEST).map_err(of_file)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(of_file(Wrong::new("is empty", "write the secret into it")));
    }
    T::parse(text).map_err(|what| {
        let what = Wrong::new(format!("holds something that {}", what.wrong), what.right);
        of_file(what)
    })
}

/// The path of a file by its name.
pub(super) fn locate(name: &str, credentials: Option<&Path>) -> Result<PathBuf, Wrong> {
    let path = Path::new(name);
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    let Some(directory) = credentials else {
        return Err(Wrong::new(
            format!(
                "{name:?} is the name of a systemd credential, and systemd gave none ($CREDENTIALS_DIRECTORY is not set)"
            ),
            format!("an absolute path would be right, or LoadCredential={name}:/path/to/it in the unit"),
        ));
    };
    let path = directory.join(path);
    // One that is there and cannot be read says so when it is read.
    if !matches!(path.metadata(), Err(error) if error.kind() == ErrorKind::NotFound) {
        return Ok(path);
    }
    Err(Wrong::new(
        format!("there is no systemd credential {name:?}"),
        format!("LoadCredential={name}:/path/to/it in the unit would be right, or an absolute path"),
    ))
}
