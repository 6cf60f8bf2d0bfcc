//! Compose projects: their containers are rolled back like any others, with the labels by which Compose knows them; what
//! is here makes that hold beyond the next `docker compose up`.
//!
//! In reading order: `project` finds a project's files by its labels, `file` and `interpolation` read them, `env_file`
//! changes one, `override_file` is one of ours, `pin` decides what to change, and this file does it on disk. `command` is
//! Compose itself, for what only it can do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::core::plan::{ComposeProject, Pin, StepOutput};
use pin::Wanted;

pub mod command;
mod disk;
mod env_file;
mod file;
mod interpolation;
mod override_file;
mod pin;
mod project;

pub use project::{SERVICE, project_of};

/// What there is of a project while it is pinned.
#[derive(Debug, Clone, Default)]
pub struct Running {
    /// The references that its services run by now, by what its files call them.
    pub references: BTreeMap<String, String>,
    /// When the newest container of the service was made, in seconds of the wall clock. Whatever was changed in the files
    /// before that was so when it was deployed, and is the work of an earlier rollback, or of somebody else.
    pub since: u64,
}

/// Makes the files of a project say `good` where they say `bad`. Idempotent. Never an error: a rollback that cannot be
/// pinned is still a rollback, and says so. `owner` is what Backstop calls the service.
///
/// `good_environment` is what the good release has in its environment, if the two differ in their configuration; none if they
/// do not. The files cannot be made to say that: what Compose makes of them is for a person to put right.
pub fn pin(
    project: &ComposeProject,
    owner: &str,
    bad: &str,
    good: &str,
    running: &Running,
    good_environment: Option<&BTreeMap<String, String>>,
) -> StepOutput {
    let wanted = Wanted { service: &project.service, owner, bad, good, runs: &running.references };
    let pinned = pin_image(project, wanted, running.since, good_environment.is_some());
    let Some(good_environment) = good_environment else { return pinned };
    match pinned {
        StepOutput::Pinned { pin, mut notes } => {
            notes.push(beware(project, good_environment));
            StepOutput::Pinned { pin, notes }
        }
        other => other,
    }
}

/// What a person has to know where the configuration differs too, with the variables that the project's environment files
/// say otherwise than the good release has them. No value is told: it may be a secret.
fn beware(project: &ComposeProject, good: &BTreeMap<String, String>) -> String {
    let environment = project::read(project).map(|files| files.environment).unwrap_or_default();
    let mut said = BTreeMap::new();
    for (file, text) in &environment {
        said.extend(env_file::values(text).into_iter().map(|(name, value)| (name, (value, file))));
    }
    let differs = said.into_iter().filter(|(name, (value, _))| {
        good.get(name).is_some_and(|good| value.as_ref().is_some_and(|value| value != good))
    });
    let differs: Vec<String> =
        differs.map(|(name, (_, file))| format!("{name} in {}", file.display())).collect();
    let what = if differs.is_empty() {
        "what differs is in the project's files, and no variable of its environment files".to_owned()
    } else {
        format!("put right {}", differs.join(", "))
    };
    format!(
        "beware: the two releases differ in their configuration as well, which cannot be pinned. Unless somebody puts it right first, \
         the next `docker compose up -d {}` brings the bad one back: {what}",
        project.service
    )
}

fn pin_image(project: &ComposeProject, wanted: Wanted<'_>, since: u64, configured: bool) -> StepOutput {
    let Wanted { bad, good, .. } = wanted;
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
    let change = match pin::change(&files, wanted) {
        Ok(change) => change,
        Err(no) => return unpinned(no.why, no.change),
    };
    match change {
        pin::Change::Holds(why) => match already(files, wanted, since) {
            Some(pin) => pinned(pin, &service, wanted, configured),
            // That the tag is right says nothing of what else differs, which is said instead.
            None if configured && bad == good => StepOutput::Pinned { pin: None, notes: Vec::new() },
            None => StepOutput::Pinned { pin: None, notes: vec![format!("nothing to pin: {why}")] },
        },
        pin::Change::Set { file, variable, was, is, text } => match disk::replace(&file, &text) {
            Ok(()) => pinned(Pin::Variable { file, variable, was, is }, &service, wanted, configured),
            Err(why) => unpinned(why, Some(format!("set {variable}={is} in {}", file.display()))),
        },
        pin::Change::Keep { place, text } => {
            let written = if place.services.is_empty() {
                disk::create(&place.file, &text, &place.main)
            } else {
                disk::replace(&place.file, &text)
            };
            match written {
                Ok(()) => pinned(kept(place.file, wanted), &service, wanted, configured),
                Err(why) => {
                    unpinned(why, Some(format!("change its image to {good} in {}", place.main.display())))
                }
            }
        }
    }
}

/// Where Compose copies files into the containers of a service, instead of mounting them; none if the project's files
/// cannot be read.
pub fn copied(project: &ComposeProject) -> Option<Vec<String>> {
    let files = project::read(project).ok()?;
    let all: Vec<&file::ComposeFile> = files.compose.iter().map(|(_, file)| file).collect();
    Some(file::copied(&all, &project.service))
}

/// Sets variables in the project's environment file, where they are set already. Yields what was done and what was not, for
/// people: a variable that the files take from elsewhere is theirs to set.
pub fn set_variables(project: &ComposeProject, set: &BTreeMap<String, String>) -> String {
    let said = set.iter().map(|(name, value)| match set_variable(project, name, value) {
        Ok(done) => done,
        Err(why) => format!(
            "the next `docker compose up -d {}` makes it without {name}={value} ({why}): set it where its environment is said",
            project.service
        ),
    });
    said.collect::<Vec<_>>().join("; ")
}

fn set_variable(project: &ComposeProject, name: &str, value: &str) -> Result<String, String> {
    let files = project::read(project)?;
    match pin::assign_known(&files, name, value)? {
        pin::Change::Set { file, was, text, .. } => {
            disk::replace(&file, &text)?;
            Ok(format!(
                "{} says {name}={value} now; {} before: change it back when the fix ships",
                file.display(),
                was.unwrap_or_else(|| "no plain value".into())
            ))
        }
        pin::Change::Holds(why) => Ok(why),
        pin::Change::Keep { .. } => Err("it is in no environment file".into()),
    }
}

fn kept(file: PathBuf, wanted: Wanted<'_>) -> Pin {
    Pin::Override { file, service: wanted.service.to_owned(), image: wanted.good.to_owned() }
}

fn pinned(pin: Pin, service: &str, wanted: Wanted<'_>, configured: bool) -> StepOutput {
    let Wanted { good, owner, .. } = wanted;
    // The image is all that is pinned: with another configuration it is not the release that was put back.
    let keeps = if configured { "takes the image" } else { "keeps" };
    let keeps_it = if configured { "takes that image" } else { "keeps it" };
    let note = match &pin {
        Pin::Variable { file, variable, was, is } => {
            let was = was.as_deref().map_or("not set".to_owned(), |was| format!("{was} before"));
            format!(
                "pinned: {variable}={is} in {} ({was}; the file as it was is {}), so that {service} {keeps} {good}",
                file.display(),
                disk::backup_of(file).display()
            )
        }
        Pin::Override { file, .. } => format!(
            "pinned: {} says {good}, so that {service} {keeps_it}, without `-f`. It comes before the project's other files; once \
             those say another release, it is taken back within half a minute (at once: `backstop unpin {owner}`)",
            file.display()
        ),
    };
    StepOutput::Pinned { pin: Some(pin), notes: vec![note] }
}

/// The pin that this rollback set before a crash, if the files say what they say because of it: the backup tells, or the
/// override file. A backup from before what runs was made is left from an earlier pin, which did not keep the bad release away.
fn already(mut files: pin::Files, wanted: Wanted<'_>, since: u64) -> Option<Pin> {
    if let Ok(place) = &files.place
        && place.services.get(wanted.service).is_some_and(|kept| kept.image == wanted.good)
    {
        return Some(kept(place.file.clone(), wanted));
    }
    for (path, text) in &mut files.environment {
        if let Some(before) = disk::backup(path, since) {
            *text = before;
        }
    }
    match pin::change(&files, wanted).ok()? {
        pin::Change::Set { file, variable, was, is, .. } => Some(Pin::Variable { file, variable, was, is }),
        pin::Change::Holds(_) | pin::Change::Keep { .. } => None,
    }
}

/// The pin that [`pin`] set, if the files still say so because of it: for one whose record was lost in a crash.
pub fn pinned_by(
    project: &ComposeProject,
    owner: &str,
    bad: &str,
    good: &str,
    running: &Running,
) -> Option<Pin> {
    let wanted = Wanted { service: &project.service, owner, bad, good, runs: &running.references };
    already(project::read(project).ok()?, wanted, running.since)
}

/// Takes a pin back: the variable gets the value that it had, the override file goes. Yields what was done, for people.
///
/// # Errors
/// Why not, and what to do. A value that somebody else wrote since is left alone.
pub fn unpin(pin: &Pin) -> Result<String, String> {
    match pin {
        Pin::Variable { file, variable, was, is } => unset(file, variable, was.as_deref(), is),
        Pin::Override { file, service, image } => release(file, service, image),
    }
}

/// Takes an override file of ours back, as far as it keeps a service, if somebody wrote another release into the project's
/// files since: it would hold against that too. None if there is nothing to take back.
pub fn withdraw(project: &ComposeProject) -> Option<Result<String, String>> {
    if !override_file::NAMES.iter().any(|name| project.directory.join(name).exists()) {
        return None;
    }
    let files = project::read(project).ok()?;
    let place = files.place.as_ref().ok()?;
    let kept = place.services.get(&project.service)?;
    let says = pin::said_beneath(&files, &place.file)?;
    (says != kept.bad).then(|| {
        let taken = release(&place.file, &project.service, &kept.image)?;
        Ok(format!("the project's files say {says} for {} by now; {taken}", project.service))
    })
}

fn unset(path: &Path, variable: &str, was: Option<&str>, is: &str) -> Result<String, String> {
    let file = path.display();
    let text = disk::read(path)?.ok_or_else(|| format!("{file} is gone"))?;
    let now = env_file::values(&text).remove(variable).flatten();
    if now.as_deref() != Some(is) {
        let now = now.map_or("not a plain value".to_owned(), |now| format!("`{now}`"));
        return Ok(format!("{variable} in {file} is {now} by now: nothing to take back"));
    }
    let before = match was {
        Some("") => return Err(format!("{variable} was empty: set it by hand in {file}")),
        Some(was) => env_file::with(&text, variable, was).map_err(|why| format!("{file}: {why}"))?,
        None => env_file::without(&text, variable),
    };
    disk::replace(path, &before)?;
    let was = was.map_or("not set any more".to_owned(), |was| format!("{was} again"));
    Ok(format!("{variable} is {was} in {file}"))
}

fn release(path: &Path, service: &str, image: &str) -> Result<String, String> {
    let file = path.display();
    let Some(text) = disk::read(path)? else {
        return Ok(format!("{file} is gone by now: nothing to take back"));
    };
    let Some(mut services) = override_file::read(&text) else {
        return Ok(format!("somebody changed {file}, so it is left as it is: delete it if it is in the way"));
    };
    if services.remove(service).is_none_or(|kept| kept.image != image) {
        return Ok(format!("{file} does not say {image} for {service} any more: nothing to take back"));
    }
    if services.is_empty() {
        disk::remove(path)?;
        return Ok(format!(
            "{file} is gone: the next `docker compose up -d {service}` deploys what the project's files say"
        ));
    }
    let rest = override_file::render(&services).ok_or_else(|| format!("{file} cannot be written anew"))?;
    disk::replace(path, &rest)?;
    Ok(format!(
        "{service} is not in {file} any more: the next `docker compose up -d {service}` deploys what the project's files say"
    ))
}

#[cfg(test)]
mod tests;
