//! Files that Compose copies into a container's own layer before it starts it: configs and secrets whose content stands in
//! the Compose file, or in a variable. No specification names them, so they are recorded beside it, while the release is
//! good, and copied into the replacement before that starts.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::enrol;
use crate::runtime::compose;
use crate::runtime::engine::{Engine, permanent};
use crate::runtime::{ErrorClass, RuntimeError};

/// All files of one container together: Compose takes at most 500 KiB for one.
const SIZE_MAX: usize = 1 << 20;
/// Where Compose puts secrets, if nobody says otherwise.
const SECRETS: &str = "/run/secrets/";
/// A path that was added, in the engine's answer.
const ADDED: u64 = 1;

/// Records them; none if there are none.
pub(super) async fn take(engine: &Engine, inspect: &Value) -> Result<Option<Value>, RuntimeError> {
    let id = inspect["Id"].as_str().unwrap_or_default();
    // Nothing can be copied into a read-only one, by Compose neither.
    if !enrol::is_compose(&enrol::labels(&inspect["Config"]))
        || inspect["HostConfig"]["ReadonlyRootfs"] == true
    {
        return Ok(None);
    }
    let project = compose::project_of(&inspect["Config"]["Labels"]);
    let named = match project {
        Some(project) => tokio::task::spawn_blocking(move || compose::copied(&project)).await.unwrap_or(None),
        None => None,
    };
    let paths = match named {
        Some(paths) => paths,
        // Without the project's files only the usual place is known.
        None => added(engine, id).await?,
    };
    if paths.is_empty() {
        return Ok(None);
    }
    let (mut tar, mut lost) = (tar::Builder::new(Vec::new()), Vec::new());
    for path in paths {
        let left = SIZE_MAX.saturating_sub(tar.get_ref().len());
        let file = match engine.archive(id, &path, left).await {
            Err(error) if error.class == ErrorClass::Transient => return Err(error),
            Err(error) => Err(error.message),
            Ok(archive) => move_to(&archive, &path, &mut tar).map_err(|e| e.to_string()),
        };
        if let Err(why) = file {
            lost.push(format!("{path}, which Compose copies into the container, could not be recorded ({why}): it is missing"));
        }
    }
    let tar = tar.into_inner().map_err(|e| permanent(e.to_string()))?;
    Ok(Some(json!({ "tar": BASE64_STANDARD.encode(tar), "lost": lost })))
}

/// Copies what was recorded into a container that has not started.
pub(super) async fn put(engine: &Engine, id: &str, context: &Value) -> Result<(), RuntimeError> {
    let Some(text) = context["copied"]["tar"].as_str() else { return Ok(()) };
    let tar = BASE64_STANDARD
        .decode(text)
        .map_err(|e| permanent(format!("the recorded files are damaged: {e}")))?;
    engine.unpack(id, tar).await
}

/// What a replacement lacks, for people.
pub(super) fn notes(context: &Value) -> Vec<String> {
    let lost = context["copied"]["lost"].as_array().into_iter().flatten();
    lost.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Secrets that are no mounts.
async fn added(engine: &Engine, id: &str) -> Result<Vec<String>, RuntimeError> {
    let changes = match engine.json(&format!("/containers/{id}/changes")).await {
        Err(error) if error.class == ErrorClass::Transient => return Err(error),
        answer => answer.unwrap_or(Value::Null),
    };
    let inspect = engine.json(&format!("/containers/{id}/json")).await?;
    Ok(secrets(&changes, &inspect["Mounts"]))
}

fn secrets(changes: &Value, mounts: &Value) -> Vec<String> {
    let mounted =
        |path: &str| mounts.as_array().into_iter().flatten().any(|mount| mount["Destination"] == path);
    let all = changes.as_array().into_iter().flatten().filter(|change| change["Kind"] == ADDED);
    let paths = all.filter_map(|change| change["Path"].as_str());
    paths.filter(|path| path.starts_with(SECRETS) && !mounted(path)).map(str::to_owned).collect()
}

/// Adds the one file of an archive to another one, under its whole path.
fn move_to(archive: &[u8], path: &str, tar: &mut tar::Builder<Vec<u8>>) -> std::io::Result<()> {
    let mut archive = tar::Archive::new(archive);
    let entry =
        archive.entries()?.next().ok_or_else(|| std::io::Error::other("the engine gives nothing"))??;
    let mut header = entry.header().clone();
    if !header.entry_type().is_file() {
        return Err(std::io::Error::other("it is no file by now"));
    }
    tar.append_data(&mut header, path.trim_start_matches('/'), entry)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn archive(name: &str, kind: tar::EntryType, content: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o440);
        header.set_uid(1000);
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_data(&mut header, name, content).unwrap();
        tar.into_inner().unwrap()
    }

    #[test]
    fn a_file_keeps_owner_and_mode_and_gets_its_whole_path() {
        let mut tar = tar::Builder::new(Vec::new());
        move_to(&archive("c.txt", tar::EntryType::Regular, b"hello"), "/etc/deep/c.txt", &mut tar).unwrap();
        assert!(move_to(&archive("d", tar::EntryType::Directory, b""), "/d", &mut tar).is_err());
        assert!(move_to(&[], "/d", &mut tar).is_err());
        let bytes = tar.into_inner().unwrap();
        let mut moved = tar::Archive::new(bytes.as_slice());
        let mut entry = moved.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap().to_str(), Some("etc/deep/c.txt"));
        assert_eq!((entry.header().mode().unwrap(), entry.header().uid().unwrap()), (0o440, 1000));
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn of_secrets_only_those_that_are_no_mounts_are_copied() {
        let changes = json!([
            {"Path": "/run/secrets", "Kind": 1}, {"Path": "/run/secrets/a", "Kind": 1},
            {"Path": "/run/secrets/b", "Kind": 1}, {"Path": "/tmp/x", "Kind": 1}, {"Path": "/run/secrets/c", "Kind": 2},
        ]);
        let mounts = json!([{"Type": "bind", "Destination": "/run/secrets/b"}]);
        assert_eq!(secrets(&changes, &mounts), ["/run/secrets/a"]);
        assert!(secrets(&Value::Null, &Value::Null).is_empty());
    }
}
