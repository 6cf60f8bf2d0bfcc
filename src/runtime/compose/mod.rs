//! Compose projects: their containers are rolled back like any others, with the labels by which Compose knows them; what
//! is here makes that hold beyond the next `docker compose up`.
//!
//! In reading order: `project` finds a project's files by its labels, `file` and `interpolation` read them, `env_file`
//! changes one, `pin` decides what to change, and this file does it on disk.

use crate::core::plan::{ComposeProject, Pin, StepOutput};

mod disk;
mod env_file;
mod file;
mod interpolation;
mod pin;
mod project;

pub use project::{SERVICE, project_of};

/// Makes the files of a project say `good` where they say `bad`. Idempotent. Never an error: a rollback that cannot be
/// pinned is still a rollback, and says so.
pub fn pin(project: &ComposeProject, bad: &str, good: &str) -> StepOutput {
    let service = format!("`docker compose up -d {}`", project.service);
    let unpinned = |why: String, change: Option<String>| {
        let change = change.map_or(String::new(), |change| format!("; before that, {change}"));
        let notes =
            vec![format!("not pinned: {why}. The next {service} deploys what those files say{change}")];
        StepOutput::Pinned { pin: None, notes }
    };
    let files = match project::read(project) {
        Ok(files) => files,
        Err(why) => return unpinned(why, Some(format!("make its image {good}"))),
    };
    let change = match pin::change(&files, &project.service, bad, good) {
        Ok(change) => change,
        Err(no) => return unpinned(no.why, no.change),
    };
    match change {
        pin::Change::Holds(why) => match already(files, &project.service, bad, good) {
            Some(pin) => pinned(pin, &service, good),
            None => StepOutput::Pinned { pin: None, notes: vec![format!("nothing to pin: {why}")] },
        },
        pin::Change::Set { file, variable, was, is, text } => match disk::replace(&file, &text) {
            Ok(()) => pinned(Pin { file, variable, was, is }, &service, good),
            Err(why) => unpinned(why, Some(format!("set {variable}={is} in {}", file.display()))),
        },
    }
}

fn pinned(pin: Pin, service: &str, good: &str) -> StepOutput {
    let was = pin.was.as_deref().map_or("not set".to_owned(), |was| format!("{was} before"));
    let backup = disk::backup_of(&pin.file);
    let note = format!(
        "pinned: {}={} in {} ({was}; the file as it was is {}), so that {service} keeps {good}",
        pin.variable,
        pin.is,
        pin.file.display(),
        backup.display()
    );
    StepOutput::Pinned { pin: Some(pin), notes: vec![note] }
}

/// The pin that this rollback set before a crash, if the files say what they say because of it: the backup tells.
fn already(mut files: pin::Files, service: &str, bad: &str, good: &str) -> Option<Pin> {
    for (path, text) in &mut files.environment {
        if let Some(before) = disk::backup(path) {
            *text = before;
        }
    }
    match pin::change(&files, service, bad, good).ok()? {
        pin::Change::Set { file, variable, was, is, .. } => Some(Pin { file, variable, was, is }),
        pin::Change::Holds(_) => None,
    }
}

/// Takes a pin back: the variable gets the value that it had. Yields what was done, for people.
///
/// # Errors
/// Why not, and what to do. A value that somebody else wrote since is left alone.
pub fn unpin(pin: &Pin) -> Result<String, String> {
    let file = pin.file.display();
    let text = disk::read(&pin.file)?.ok_or_else(|| format!("{file} is gone"))?;
    let now = env_file::values(&text).remove(&pin.variable).flatten();
    if now != Some(pin.is.clone()) {
        let now = now.map_or("not a plain value".to_owned(), |now| format!("`{now}`"));
        return Ok(format!("{} in {file} is {now} by now: nothing to take back", pin.variable));
    }
    let before = match &pin.was {
        Some(was) if was.is_empty() => {
            return Err(format!("{} was empty: set it by hand in {file}", pin.variable));
        }
        Some(was) => env_file::with(&text, &pin.variable, was).map_err(|why| format!("{file}: {why}"))?,
        None => env_file::without(&text, &pin.variable),
    };
    disk::replace(&pin.file, &before)?;
    let was = pin.was.as_deref().map_or("not set any more".to_owned(), |was| format!("{was} again"));
    Ok(format!("{} is {was} in {file}", pin.variable))
}
