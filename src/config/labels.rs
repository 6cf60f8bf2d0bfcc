//! Labels of containers: the same settings as in `[defaults]`, as `backstop.health.path=/healthz`. They travel
//! with the very release that is judged, so the operator's file has the last word over them.

use std::collections::BTreeMap;

use super::file::{Check, Service};
use super::nearest::nearest;
use super::problem::{Problem, Wrong};
use super::schema::{Findings, Setting, Shape, walk};
use super::tree::{Node, Place};
use super::values::quoted;

/// What all our labels begin with.
pub(super) const PREFIX: &str = "backstop.";

/// Asks to be watched (`true`), or not to be (`false`).
pub const ENABLE: &str = "backstop.enable";

/// The service that a container belongs to, where its own name is not it.
pub const SERVICE: &str = "backstop.service";

/// Marks Backstop's own container and the socket proxy it talks through: never watched, never touched.
pub const SELF: &str = "backstop.self";

/// Labels that say something else than a setting.
const OTHERS: [&str; 3] = [ENABLE, SERVICE, SELF];

/// Sections that no label may speak of.
const OF_THE_HOST: [&str; 2] = ["hooks", "migrations"];

/// What a container's labels ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// To be watched.
    Watched,
    /// Not to be watched.
    Unwatched,
    /// Nothing.
    None,
    /// Something that cannot be understood.
    Unclear,
}

/// The value of a label that says yes or no.
pub(super) fn wish(labels: &BTreeMap<String, String>, name: &str) -> Wish {
    match labels.get(name).map(|value| value.trim()) {
        None => Wish::None,
        Some("true") => Wish::Watched,
        Some("false") => Wish::Unwatched,
        Some(_) => Wish::Unclear,
    }
}

/// The settings among the labels, as one layer, without the mistakes, which go to `findings`.
pub(super) fn layer(labels: &BTreeMap<String, String>, findings: &mut Findings) -> Node {
    let mut root = Node::table(Place::Label(format!("{PREFIX}*")));
    for (name, value) in labels {
        let place = Place::Label(name.clone());
        let Some(key) = name.strip_prefix(PREFIX) else {
            continue;
        };
        if OTHERS.contains(&name.as_str()) {
            findings.problems.extend(check_other(name, value, labels));
            continue;
        }
        if let Some(other) = misspelt(key) {
            let wrong = format!("there is no such label (value {})", quoted(value));
            let what = Wrong::new(wrong, format!("did you mean {other}?"));
            findings.problems.push(Problem::new(&place, "", what));
            continue;
        }
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        if path.first().is_some_and(|first| OF_THE_HOST.contains(&first.as_str())) {
            let what = Wrong::new(
                "cannot be set by a label, because no release may choose what is run on this host or done to its database",
                "set it in Backstop's own configuration, as in [services.NAME] of conf.d/NAME.toml",
            );
            findings.problems.push(Problem::new(&place, "", what));
            continue;
        }
        if root.insert(&path, place.clone(), value.clone()).is_err() {
            findings.problems.push(Problem::new(&place, "", super::layers::in_the_way()));
        }
    }
    walk(root, Service::SHAPE, findings)
}

/// Labels that choose where a secret of the operator's files would be sent, each with the key of that secret. Whoever
/// sets a label need not know the secret, and the address gets it.
pub(super) fn misdirected(labels: &Service, files: &[&Service]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    // Whoever is asked, and whether it must prove that it is the one.
    macro_rules! ways {
        ($whom:expr) => {
            [
                ("url", $whom.url.is_some()),
                ("insecure", $whom.insecure == Some(true)),
                ("ca_file", $whom.ca_file.is_some()),
            ]
        };
    }
    // Whoever is meant to be asked at a url is not the container, which a port or a path would ask instead of it.
    macro_rules! instead_of_url {
        ($whom:expr, $theirs:expr) => {{
            let lead = $theirs.rev().find(|it| it.url.is_some() || it.port.is_some() || it.path.is_some());
            let elsewhere = lead.is_some_and(|it| it.url.is_some());
            [("port", elsewhere && $whom.port.is_some()), ("path", elsewhere && $whom.path.is_some())]
        }};
    }
    let mut secret = |ways: &[(&str, bool)], kept: bool, section: &str, key: &str| {
        for (way, _) in ways.iter().filter(|(_, chosen)| *chosen && kept) {
            found.push((format!("{PREFIX}{section}.{way}"), format!("{section}.{key}")));
        }
    };
    if let Some(metrics) = &labels.metrics {
        let theirs = files.iter().filter_map(|f| f.metrics.as_ref());
        let kept = theirs.clone().any(|m| m.token_file.is_some());
        secret(&ways!(metrics), kept, "metrics", "token_file");
        secret(&instead_of_url!(metrics, theirs), kept, "metrics", "token_file");
    }
    if let Some(prometheus) = &labels.prometheus {
        let kept = files.iter().filter_map(|f| f.prometheus.as_ref()).any(|p| p.token_file.is_some());
        secret(&ways!(prometheus), kept, "prometheus", "token_file");
    }
    let kept = |check: &Check| {
        check.headers.as_ref().is_some_and(|h| !h.is_empty())
            || check.body.is_some()
            || check.body_file.is_some()
            // Where they are given, they may hold headers and bodies of their own.
            || check.steps.is_some()
    };
    if let Some(health) = &labels.health {
        let theirs = files.iter().filter_map(|f| f.health.as_ref());
        let kept = theirs.clone().any(kept);
        secret(&ways!(health), kept, "health", "headers");
        secret(&instead_of_url!(health, theirs), kept, "health", "headers");
    }
    for (name, check) in labels.checks.iter().flatten() {
        let theirs = files.iter().filter_map(|f| f.checks.as_ref()?.get(name));
        let (kept, section) = (theirs.clone().any(kept), format!("checks.{name}"));
        secret(&ways!(check), kept, &section, "headers");
        secret(&instead_of_url!(check, theirs), kept, &section, "headers");
    }
    for (name, dependency) in labels.dependencies.iter().flatten() {
        let theirs = files.iter().filter_map(|f| Some(f.dependencies.as_ref()?.get(name)?.as_check()));
        let (kept, section) = (theirs.clone().any(|check| kept(&check)), format!("dependencies.{name}"));
        let check = dependency.as_check();
        secret(&ways!(check), kept, &section, "headers");
        secret(&instead_of_url!(check, theirs), kept, &section, "headers");
    }
    found
}

/// One of the labels that are no settings, almost.
fn misspelt(key: &str) -> Option<&'static str> {
    let Shape::Table { keys, .. } = Service::SHAPE else {
        return None;
    };
    // Whatever begins as a setting is meant as one: every label of every container is read at every look.
    let first = key.split('.').next().unwrap_or_default();
    if keys.iter().any(|key| key.name == first) {
        return None;
    }
    let names = OTHERS.map(|other| &other[PREFIX.len()..]);
    let all = keys.iter().map(|key| key.name).chain(names);
    let near = nearest(key, all)?;
    OTHERS.into_iter().find(|other| &other[PREFIX.len()..] == near)
}

fn check_other(name: &str, value: &str, labels: &BTreeMap<String, String>) -> Option<Problem> {
    // Who finds out which service a container belongs to judges that label.
    (name != SERVICE && wish(labels, name) == Wish::Unclear).then(|| {
        let wrong = format!("{} is neither true nor false", quoted(value));
        Problem::new(Place::Label(name.to_owned()), "", Wrong::new(wrong, "true or false would be right"))
    })
}
