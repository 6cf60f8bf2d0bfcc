//! Registries: whether an image can be had without fetching it, and fetching it. Both go through the engine, which knows
//! its mirrors and its CAs (`/etc/docker/certs.d`); the credentials are those that a person's `docker login` left.
//!
//! Only a registry's own "no such manifest" counts as gone. Whatever else goes wrong (it is down, slow, behind a proxy
//! with a page of its own, or refuses us) says nothing about the image.

use std::time::Duration;

use reqwest::Method;

use super::container::verbs;
use super::engine::{CALL, Engine, cut, permanent};
use super::{ErrorClass, RuntimeError};
use crate::core::availability::Availability;
use crate::core::release::Release;

mod credentials;
mod helper;

pub use credentials::Credentials;
pub(crate) use credentials::Login;

/// A registry that is well answers within a second; the engine asks its mirrors too, one after the other.
const ASK: Duration = Duration::from_secs(30);
/// A large image over a slow line; nobody waits longer, because the service may be down meanwhile.
pub(in crate::runtime) const PULL: Duration = Duration::from_secs(600);
/// An engine reports on a fetch as soon as the registry has shown it what there is to fetch, and goes on reporting; when it
/// checks a large layer, it is silent for a while. A registry that listens and says nothing would otherwise be waited for as
/// long as for a large image.
const SILENCE: Duration = Duration::from_secs(120);
/// One line of an engine's report on a fetch is a few hundred bytes.
const LINE_MAX: usize = 64 << 10;
/// What is quoted of what a registry said.
const QUOTED_MAX: usize = 300;

/// What a registry says of a digest.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// It has it.
    There,
    /// It has no such manifest, in its own words.
    NoSuch(String),
    /// It cannot be told.
    Unclear(String),
}

/// The registry of an image reference, as `docker login` names it.
pub(crate) fn registry(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        Some(_) | None => credentials::HUB,
    }
}

/// Whether the image of a container's release can be had. With `fetch`, one that is only in its registry is fetched.
pub(in crate::runtime) async fn of_container(
    engine: &Engine,
    release: &Release,
    fetch: bool,
) -> Availability {
    match verbs::image_id(engine, release.image.as_str()).await {
        Ok(Some(_)) => return Availability::Here,
        Ok(None) => {}
        Err(error) => return Availability::Unknown { why: error.message },
    }
    if release.digests.is_empty() {
        let why = "it is not on the engine, and no registry digest of it was recorded (was it built there?)";
        return Availability::Gone { why: why.to_owned() };
    }
    let mut there = None;
    let (mut nowhere, mut unclear) = (Vec::new(), Vec::new());
    for digest in &release.digests {
        match ask(engine, digest).await {
            Answer::There => there = there.or(Some(digest)),
            Answer::NoSuch(said) => nowhere.push(said),
            Answer::Unclear(why) => unclear.push(why),
        }
    }
    match there {
        Some(digest) if fetch => match fetched(engine, release, digest).await {
            Ok(()) => Availability::Here,
            Err(error) => Availability::Missing { why: error.message },
        },
        Some(_) => Availability::Registry,
        None if unclear.is_empty() => {
            Availability::Gone { why: format!("it is not on the engine, and {}", nowhere.join("; ")) }
        }
        None => Availability::Missing { why: unclear.join("; ") },
    }
}

/// Whether the image of a Swarm service's release can be had. That this node does not have it says nothing: others may,
/// and each fetches what it is to run by itself.
pub(in crate::runtime) async fn of_swarm(engine: &Engine, release: &Release) -> Availability {
    match verbs::image_id(engine, release.image.as_str()).await {
        Ok(Some(_)) => return Availability::Here,
        Ok(None) => {}
        Err(error) => return Availability::Unknown { why: error.message },
    }
    let Some(digest) = release.digests.first() else {
        let why = "its specification names no digest, so no registry can be asked for it";
        if release.image.as_str().starts_with("sha256:") {
            return Availability::Gone { why: why.to_owned() };
        }
        return Availability::Unknown { why: why.to_owned() };
    };
    match ask(engine, digest).await {
        Answer::There => Availability::Registry,
        Answer::NoSuch(said) => {
            Availability::Gone { why: format!("{said}, and only nodes that still have it could run it") }
        }
        Answer::Unclear(why) => Availability::Unknown { why },
    }
}

/// Fetches an image by digest, and protects it from pruning at once: it comes without a tag.
async fn fetched(engine: &Engine, release: &Release, digest: &str) -> Result<(), RuntimeError> {
    pull(engine, digest).await?;
    match verbs::image_id(engine, digest).await? {
        Some(found) if found == release.image => {}
        Some(found) => {
            return Err(permanent(format!(
                "{digest} is {found} on this engine, not {}: its image store was changed",
                release.image
            )));
        }
        None => return Err(permanent(format!("{digest} was fetched, and is not there"))),
    }
    super::container::protect::guard(engine, release).await
}

/// Asks the registry of `digest` (`repo@sha256:...`) whether it has it.
async fn ask(engine: &Engine, digest: &str) -> Answer {
    let server = registry(digest);
    let (login, trouble) = match engine.credentials().login(server).await {
        Ok(login) => (login, None),
        Err(why) => (None, Some(why)),
    };
    let path = format!("/distribution/{digest}/json");
    let asked = engine.call_as(Method::GET, &path, None, login.as_ref(), ASK + CALL);
    let Ok(answer) = tokio::time::timeout(ASK, asked).await else {
        return Answer::Unclear(format!("the registry {server} did not answer within {} s", ASK.as_secs()));
    };
    let wanted = digest.split_once('@').map(|(_, digest)| digest);
    match answer {
        Ok(found) if found["Descriptor"]["digest"].as_str() == wanted => Answer::There,
        Ok(_) => Answer::Unclear(format!("the registry {server} answered, but not about {digest}")),
        Err(error) => refused(server, &error, login.as_ref(), trouble.as_deref()),
    }
}

/// What an answer means that is no success.
fn refused(server: &str, error: &RuntimeError, login: Option<&Login>, trouble: Option<&str>) -> Answer {
    let said = error.message.to_lowercase();
    // A registry may hide a whole repository from whoever has not logged in; a manifest of one that it shows, it does not.
    let definite = said.contains("manifest unknown") || (said.contains("name unknown") && login.is_some());
    if error.class == ErrorClass::NotFound && definite && trouble.is_none() {
        return Answer::NoSuch(format!("the registry {server} has no such image any more"));
    }
    Answer::Unclear(explain(server, error, login, trouble))
}

/// What went wrong between the engine and a registry, with the next command to type.
fn explain(server: &str, error: &RuntimeError, login: Option<&Login>, trouble: Option<&str>) -> String {
    let said = error.message.to_lowercase();
    let why = cut(&error.message, QUOTED_MAX);
    let refuses = ["unauthorized", "authentication required", "no basic auth", "denied"];
    if said.contains("<html") {
        return format!(
            "no registry speaks like this: {why} (a proxy in between? then let `/distribution` through)"
        );
    }
    if !refuses.iter().any(|word| said.contains(word)) {
        if said.contains("x509") {
            return format!(
                "the engine does not trust the registry {server}: {why}; next: put its CA into /etc/docker/certs.d/{server}/ca.crt"
            );
        }
        return format!("the registry {server} cannot be asked: {why}");
    }
    let name = if server == credentials::HUB { String::new() } else { format!(" {server}") };
    match (trouble, login) {
        (Some(trouble), _) => format!("the registry {server} wants credentials: {trouble}"),
        (None, Some(login)) => format!(
            "the registry {server} refuses the credentials of {} for {}, which may have expired: {why}; next: docker login{name}",
            login.source(),
            login.user()
        ),
        (None, None) => format!(
            "the registry {server} wants credentials, and there are none for it: {why}; next: docker login{name}, as \
             the user that Backstop runs as, or `registry.docker_config`"
        ),
    }
}

/// Fetches an image by digest and reads the answer to its end: a 200 can carry an error.
pub(in crate::runtime) async fn pull(engine: &Engine, reference: &str) -> Result<(), RuntimeError> {
    let server = registry(reference);
    let (login, trouble) = match engine.credentials().login(server).await {
        Ok(login) => (login, None),
        Err(why) => (None, Some(why)),
    };
    let what = format!("fetching {reference}");
    let pulled =
        tokio::time::timeout(PULL, pull_as(engine, reference, login.as_ref())).await.map_err(|_| {
            // Not to be repeated: another ten minutes would be no better.
            permanent(format!("{what}: not finished within {} s", PULL.as_secs()))
        })?;
    pulled.map_err(|error| {
        let why = explain(server, &error, login.as_ref(), trouble.as_deref());
        RuntimeError { message: format!("{what}: {why}"), ..error }
    })
}

async fn pull_as(engine: &Engine, reference: &str, login: Option<&Login>) -> Result<(), RuntimeError> {
    let path = format!("/images/create?fromImage={reference}");
    let opening = engine.open_as(Method::POST, &path, None, login, PULL);
    let mut response = tokio::time::timeout(ASK, opening).await.map_err(|_| silent(ASK))??;
    let mut line = Vec::new();
    let broke = |e: &dyn std::fmt::Display| engine.broke_off("POST /images/create", &e.to_string());
    loop {
        let next = tokio::time::timeout(SILENCE, response.chunk()).await.map_err(|_| silent(SILENCE))?;
        let Some(chunk) = next.map_err(|e| broke(&e))? else { break };
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(part);
            if line.len() > LINE_MAX {
                return Err(permanent("the engine's report on it has a line without end".to_owned()));
            }
            if line.ends_with(b"\n") {
                reported(&line)?;
                line.clear();
            }
        }
    }
    reported(&line)
}

/// Whoever said nothing for so long is not asked again: there may be an older image that is here.
fn silent(within: Duration) -> RuntimeError {
    permanent(format!("nothing was heard from it within {} s", within.as_secs()))
}

/// One line of the engine's report on a fetch.
fn reported(line: &[u8]) -> Result<(), RuntimeError> {
    let report: serde_json::Value = serde_json::from_slice(line).unwrap_or_default();
    let error = report["errorDetail"]["message"].as_str().or(report["error"].as_str());
    error.map_or(Ok(()), |why| Err(permanent(cut(why, QUOTED_MAX))))
}

#[cfg(test)]
mod tests;
