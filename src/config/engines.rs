//! `[engine]` and `[engines.NAME]`: how each engine is reached, and what is wrong with that.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::file::{Engine, EngineAt, File, short_name};
use super::locate::Places;
use super::problem::{Problem, Wrong};
use super::schema::{Findings, Named};
use super::settings::{EngineAddress, EngineTls};
use super::tree::dotted;

impl Named for EngineAt {
    const NAME: &'static str = "ENGINE";

    fn check(name: &str) -> Result<(), Wrong> {
        short_name(name, "an engine", "east")
    }
}

impl Engine {
    /// What it has in common with an engine of `[engines]`.
    fn as_one(&self) -> EngineAt {
        EngineAt {
            host: self.host.clone(),
            tls_ca: self.tls_ca.clone(),
            tls_cert: self.tls_cert.clone(),
            tls_key: self.tls_key.clone(),
            cert_path: self.cert_path.clone(),
            insecure: self.insecure,
        }
    }
}

/// The default engine's TLS, if it has any. What is wrong was found by [`check`].
pub(super) fn tls_of(engine: &Engine) -> Option<EngineTls> {
    tls(&engine.as_one())
}

/// The engines with names. What is wrong was found by [`check`].
pub(super) fn made(engines: &BTreeMap<String, EngineAt>) -> Vec<EngineAddress> {
    let one = |(name, at): (&String, &EngineAt)| {
        Some(EngineAddress { name: name.clone(), host: at.host.clone()?.0, tls: tls(at) })
    };
    engines.iter().filter_map(one).collect()
}

fn tls(at: &EngineAt) -> Option<EngineTls> {
    let named = |file: &Option<super::requests::HostFile>| file.clone().map(|file| PathBuf::from(file.0));
    let within = |name: &str| at.cert_path.as_ref().map(|directory| directory.0.join(name));
    Some(EngineTls {
        ca: named(&at.tls_ca).or_else(|| within("ca.pem"))?,
        cert: named(&at.tls_cert).or_else(|| within("cert.pem"))?,
        key: named(&at.tls_key).or_else(|| within("key.pem"))?,
    })
}

/// Finds what does not hold together.
pub(super) fn check(typed: &File, places: &Places, findings: &mut Findings) {
    let mut found: Vec<(Vec<String>, Wrong)> = Vec::new();
    let at = |path: &[&str]| path.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
    if let Some(engine) = &typed.engine {
        found.extend(wrong_with(&engine.as_one(), true).map(|(key, wrong)| (at(&["engine", key]), wrong)));
    }
    for (name, one) in typed.engines.iter().flatten() {
        found.extend(wrong_with(one, false).map(|(key, wrong)| (at(&["engines", name, key]), wrong)));
    }
    let known = |engine: &str| typed.engines.as_ref().is_some_and(|engines| engines.contains_key(engine));
    for service in typed.services.iter().flat_map(BTreeMap::keys) {
        if let Some((engine, _)) = service.split_once('/').filter(|(engine, _)| !known(engine)) {
            let wrong = format!("no engine is called {engine}");
            let right =
                format!("[engines.{engine}] with its host would be right, or a service without `{engine}/`");
            found.push((at(&["services", service]), Wrong::new(wrong, right)));
        }
    }
    for (group, members) in typed.groups.iter().flatten() {
        let engine =
            |member: &String| member.split_once('/').map_or(String::new(), |(engine, _)| engine.into());
        let mut engines = members.0.iter().map(engine);
        let first: String = engines.next().unwrap_or_default();
        if engines.any(|other| other != first) {
            let right = "services of one engine would be right: those of two cannot be put back all or none";
            found.push((at(&["groups", group]), Wrong::new("its services are on several engines", right)));
        }
    }
    for (path, wrong) in found {
        if findings.removed.iter().any(|removed| path.starts_with(removed) || removed.starts_with(&path)) {
            continue;
        }
        let place = places.of(&path).map_or_else(String::new, ToString::to_string);
        findings.problems.push(Problem::new(place, dotted(&path), wrong));
    }
}

/// What is wrong with one engine, each with its key. Of the default one the host is known without being said.
fn wrong_with(at: &EngineAt, is_default: bool) -> impl Iterator<Item = (&'static str, Wrong)> {
    const FILES: &str = "`tls_ca`, `tls_cert` and `tls_key` together would be right, or `cert_path` alone";
    let host = at.host.as_ref().map(|host| host.0.as_str());
    let missing = (host.is_none() && !is_default).then(|| {
        let right =
            "host = \"ssh://USER@HOST\", \"tcp://HOST:2376\" with TLS, or \"unix:///PATH\" would be right";
        ("host", Wrong::new("is missing", right))
    });
    let files = [("tls_ca", &at.tls_ca), ("tls_cert", &at.tls_cert), ("tls_key", &at.tls_key)];
    let any = files.iter().find(|(_, file)| file.is_some()).map(|(key, _)| *key);
    let lacking = files.iter().find(|(_, file)| file.is_none()).map(|(key, _)| *key);
    let half = any
        .zip(lacking.filter(|_| at.cert_path.is_none()))
        .map(|(said, lacking)| (said, Wrong::new(format!("is set, and {lacking} is not"), FILES)));
    let speaks = any.or_else(|| at.cert_path.as_ref().map(|_| "cert_path"));
    let is_tcp = host.is_some_and(|host| host.starts_with("tcp://"));
    let misplaced = speaks.filter(|_| host.is_some() && !is_tcp).map(|key| {
        (
            key,
            Wrong::new(
                "is for tcp:// only",
                "a host as in \"tcp://HOST:2376\" would be right, or no such key",
            ),
        )
    });
    let open = (is_tcp && speaks.is_none() && at.insecure != Some(true)).then(|| {
        let wrong = "is plain TCP: whoever reaches this port is root on that machine";
        let right = "`tls_ca`, `tls_cert` and `tls_key` (or `cert_path`) would be right, or an ssh:// host; where nobody \
                     else reaches it, as a socket proxy on a network of its own, `insecure = true`";
        ("host", Wrong::new(wrong, right))
    });
    [missing, half, misplaced, open].into_iter().flatten()
}
