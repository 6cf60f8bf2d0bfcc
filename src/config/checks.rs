//! Checks and dependencies as typed to checks and dependencies that hold: what each asks is derived from the keys
//! that are given, and keys that do not go together are named.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::file::{ASKED, Check, Dependency, HEALTH, Service, Step};
use super::requests::{HeaderText, KeptFile};
use super::resolve::{Clash, Context, Resolving};
use super::schema::Way;
use super::values::time;
use crate::core::release::ServiceName;
use crate::core::settings::{self as core, CheckKind, HealthCheck, HttpStep, Target, Text, Tls};

/// Five seconds: two failures in ten seconds are the runbooks' two in a row.
const INTERVAL: Duration = Duration::from_secs(5);
/// Two seconds: whoever waits longer for a health answer is not healthy.
const TIMEOUT: Duration = Duration::from_secs(2);

/// More checks of one service than this are tests, not checks.
const CHECKS_MAX: usize = 16;
/// More of what a service depends on is a map of the network.
const DEPENDENCIES_MAX: usize = 32;

/// The checks of a service, by name.
pub(super) fn checks(
    typed: &Service,
    layers: &[&Service],
    resolving: &mut Resolving<'_>,
) -> BTreeMap<String, HealthCheck> {
    let mut found = BTreeMap::new();
    if let Some(check) = &typed.health {
        let of = |layer: &Service| layer.health.clone();
        let made = one_check(HEALTH, check, layers, of, resolving);
        found.extend(made.map(|made| (HEALTH.to_owned(), made)));
    }
    for (name, check) in typed.checks.iter().flatten() {
        let of = |layer: &Service| layer.checks.as_ref()?.get(name).cloned();
        let made = one_check(&format!("checks.{name}"), check, layers, of, resolving);
        found.extend(made.map(|made| (name.clone(), made)));
    }
    too_many(found.len(), CHECKS_MAX, "checks", resolving);
    found
}

/// What a service depends on, by name.
pub(super) fn dependencies(
    typed: &Service,
    layers: &[&Service],
    resolving: &mut Resolving<'_>,
) -> BTreeMap<String, core::Dependency> {
    let mut found = BTreeMap::new();
    for (name, dependency) in typed.dependencies.iter().flatten() {
        let at = format!("dependencies.{name}");
        let of = |layer: &Service| layer.dependencies.as_ref()?.get(name).cloned();
        for layer in layers {
            if let Some(layer) = of(layer) {
                one_way(&at, |key| layer.has(key), &format!("service; {OF_CHECKS}"), resolving);
            }
        }
        if dependency.enabled == Some(false) {
            continue;
        }
        if let Some(service) = &dependency.service {
            out_of_place(&at, |key| dependency.has(key), resolving);
            found.insert(name.clone(), core::Dependency::Service(ServiceName::new(&service.0)));
            if resolving.context.service == Some(service.0.as_str()) {
                resolving.clash(
                    &[&format!("{at}.service")],
                    "a service does not depend on itself",
                    "the name of another service would be right",
                );
            }
            continue;
        }
        let of = |layer: &Service| of(layer).map(|dependency: Dependency| dependency.as_check());
        let made = whole_check(&at, &dependency.as_check(), layers, of, resolving);
        found.extend(made.map(|made| (name.clone(), core::Dependency::Check(made))));
    }
    too_many(found.len(), DEPENDENCIES_MAX, "dependencies", resolving);
    found
}

/// Names of all checks that somebody speaks of, whether or not they are complete.
pub(super) fn names(typed: &Service) -> BTreeSet<String> {
    let health = typed.health.iter().map(|_| HEALTH.to_owned());
    health.chain(typed.checks.iter().flatten().map(|(name, _)| name.clone())).collect()
}

fn too_many(count: usize, most: usize, what: &str, resolving: &mut Resolving<'_>) {
    if count > most {
        resolving.clash(
            &[what],
            format!("there are {count} of them"),
            format!("at most {most} would be right"),
        );
    }
}

const OF_CHECKS: &str = "url; port and path; tcp; tcp_port; grpc; grpc_port; command; or steps";

/// A check, its layers one by one and together.
fn one_check(
    at: &str,
    typed: &Check,
    layers: &[&Service],
    of: impl Fn(&Service) -> Option<Check>,
    resolving: &mut Resolving<'_>,
) -> Option<HealthCheck> {
    for layer in layers {
        if let Some(layer) = of(layer) {
            one_way(at, |key| layer.has(key), OF_CHECKS, resolving);
        }
    }
    whole_check(at, typed, layers, of, resolving)
}

fn whole_check(
    at: &str,
    typed: &Check,
    layers: &[&Service],
    of: impl Fn(&Service) -> Option<Check>,
    resolving: &mut Resolving<'_>,
) -> Option<HealthCheck> {
    if typed.enabled == Some(false) {
        return None;
    }
    let above: Vec<Check> = layers.iter().skip(1).filter_map(|layer| of(layer)).collect();
    let set_above = |key: &str| above.iter().any(|layer| layer.has(key));
    half_an_address(at, |key| typed.has(key), set_above, "/healthz", resolving);
    out_of_place(at, |key| typed.has(key), resolving);
    let interval = typed.interval.map_or(INTERVAL, |span| span.0);
    let timeout = typed.timeout.map_or(TIMEOUT, |span| span.0);
    no_pile(at, interval, timeout, resolving);
    let kind = kind(at, typed, resolving)?;
    Some(HealthCheck { kind, interval, timeout, required: typed.required.unwrap_or(true) })
}

/// Two ways of asking in one layer.
fn one_way(at: &str, has: impl Fn(&str) -> bool, right: &str, resolving: &mut Resolving<'_>) {
    let lead = |way: &Way| way.leads.iter().find(|key| has(key)).copied();
    let mut chosen = ASKED.iter().filter_map(lead);
    if let (Some(first), Some(second)) = (chosen.next(), chosen.next()) {
        let (first, second) = (format!("{at}.{first}"), format!("{at}.{second}"));
        let right = if first.ends_with(".url") && (second.ends_with(".port") || second.ends_with(".path")) {
            "either the url (one address for the whole service) or port and path (on every replica) would be right"
                .to_owned()
        } else {
            format!("one of these would be right: {right}")
        };
        resolving.clash(&[&first, &second], format!("{second} is set too"), right);
    }
    if has("body") && has("body_file") {
        both_bodies(at, resolving);
    }
}

fn both_bodies(at: &str, resolving: &mut Resolving<'_>) {
    let keys = [format!("{at}.body"), format!("{at}.body_file")];
    resolving.clash(
        &[&keys[0], &keys[1]],
        format!("{} is set too", keys[1]),
        "one of the two would be right",
    );
}

/// Keys that do not go with what is asked.
fn out_of_place(at: &str, has: impl Fn(&str) -> bool, resolving: &mut Resolving<'_>) {
    let Some((way, lead)) = ASKED.iter().find_map(|way| {
        let lead = way.leads.iter().find(|key| has(key))?;
        Some((way, *lead))
    }) else {
        return;
    };
    let others: BTreeSet<&str> = ASKED.iter().flat_map(|way| way.with).copied().collect();
    for key in others.into_iter().filter(|key| !way.has(key) && has(key)) {
        let right = match lead {
            "steps" => format!("set {key} in each of the steps that need it"),
            _ => "remove it, or ask by url, or by port and path".to_owned(),
        };
        resolving.clash(&[&format!("{at}.{key}")], format!("does not go with {at}.{lead}"), right);
    }
}

/// A port without a path, or a path without a port. In `[defaults]` alone that is a half for others to complete.
fn half_an_address(
    at: &str,
    has: impl Fn(&str) -> bool,
    set_above: impl Fn(&str) -> bool,
    example: &str,
    resolving: &mut Resolving<'_>,
) {
    // Two addresses are another mistake.
    if has("url") {
        return;
    }
    let (port, path) = (format!("{at}.port"), format!("{at}.path"));
    match (has("port"), has("path")) {
        (true, false) if set_above("port") => resolving.clash(
            &[&port, &path],
            format!("is set without {path}"),
            format!("set {path} too, as in \"{example}\""),
        ),
        (false, true) if set_above("path") => resolving.clash(
            &[&path, &port],
            format!("is set without {port}"),
            format!("set {port} too: the port inside the container"),
        ),
        (true, true | false) | (false, true | false) => {}
    }
}

/// Whoever asks before the last question was answered asks ever more.
pub(super) fn no_pile(at: &str, interval: Duration, timeout: Duration, resolving: &mut Resolving<'_>) {
    if interval < timeout {
        let (key, other) = (format!("{at}.interval"), format!("{at}.timeout"));
        resolving.clash(
            &[&key, &other],
            format!(
                "{key} = {} is shorter than {other} = {}, so questions would pile up",
                time(interval),
                time(timeout)
            ),
            format!("at least {} would be right, or a shorter {other}", time(timeout)),
        );
    }
}

fn kind(at: &str, typed: &Check, resolving: &mut Resolving<'_>) -> Option<CheckKind> {
    if let Some(steps) = &typed.steps {
        return several(at, steps, &[], resolving).map(CheckKind::Http);
    }
    if let Some(address) = &typed.tcp {
        return Some(CheckKind::Tcp(Target::Url(format!("tcp://{}", address.0))));
    }
    if let Some(port) = typed.tcp_port {
        return Some(CheckKind::Tcp(on_replica(port.0, "")?));
    }
    if let Some(command) = &typed.command {
        return Some(CheckKind::Command(command.0.clone()));
    }
    let grpc = match (&typed.grpc, typed.grpc_port) {
        (Some(address), _) => Some(Target::Url(address.0.clone())),
        (None, Some(port)) => Some(on_replica(port.0, "")?),
        (None, None) => None,
    };
    if let Some(target) = grpc {
        let service = typed.grpc_service.as_ref().map_or_else(String::new, |service| service.0.clone());
        let tls = tls(typed.ca_file.as_ref().map(|file| file.0.as_str()), typed.insecure);
        return Some(CheckKind::Grpc { target, service, tls });
    }
    request(at, &typed.as_step(), resolving.context, resolving).map(|step| CheckKind::Http(vec![step]))
}

/// A place on every replica; the key's bounds are those of a port.
pub(super) fn on_replica(port: u32, path: &str) -> Option<Target> {
    Some(Target::Replica { port: u16::try_from(port).ok()?, path: path.to_owned() })
}

pub(super) fn tls(ca_file: Option<&str>, insecure: Option<bool>) -> Tls {
    Tls { ca_file: ca_file.map(Into::into), insecure: insecure.unwrap_or(false) }
}

/// Requests one after the other; the values of these names are known to all of them.
pub(super) fn several(
    at: &str,
    steps: &[Step],
    given: &[&str],
    resolving: &mut Resolving<'_>,
) -> Option<Vec<HttpStep>> {
    let mut made = Vec::new();
    let mut captured: BTreeSet<&str> = given.iter().copied().collect();
    for (number, step) in (1..).zip(steps) {
        let at = format!("{at}.steps.{number}");
        one_way(&at, |key| step.has(key), "url; or port and path", resolving);
        if step.url.is_none() && (step.port.is_none() || step.path.is_none()) {
            resolving.clash(
                &[&at],
                "this step does not say where it goes",
                "url, or port and path would be right: each step has its own",
            );
        }
        for name in used(step).into_iter().filter(|name| !captured.contains(name.as_str())) {
            resolving.clash(
                &[&at],
                format!("uses {{{{{name}}}}}, which no step before it captured"),
                format!("capture = {{ {name} = \".path.in.the.answer\" }} in an earlier step would be right"),
            );
        }
        captured.extend(step.capture.iter().flatten().map(|(name, _)| name.as_str()));
        made.extend(request(&at, step, resolving.context, resolving));
    }
    (made.len() == steps.len()).then_some(made)
}

/// The names of carried values that a step uses.
pub(super) fn used(step: &Step) -> BTreeSet<String> {
    let headers = step.headers.iter().flatten().filter_map(|(_, value)| match value {
        HeaderText::Plain(text) => Some(text.as_str()),
        HeaderText::File { .. } => None,
    });
    let texts = [
        step.url.as_ref().map(|url| url.0.as_str()),
        step.path.as_ref().map(|path| path.0.as_str()),
        step.body.as_ref().map(|body| body.0.as_str()),
    ];
    let is_name =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    headers
        .chain(texts.into_iter().flatten())
        .flat_map(|text| text.split("{{").skip(1).filter_map(|rest| rest.split_once("}}")))
        .map(|(name, _)| name.trim().to_owned())
        .filter(|name| is_name(name))
        .collect()
}

/// One request; none if it does not say where it goes.
pub(super) fn request(
    at: &str,
    typed: &Step,
    context: Context<'_>,
    resolving: &mut Resolving<'_>,
) -> Option<HttpStep> {
    let target = match (&typed.url, typed.port, &typed.path) {
        (Some(url), ..) => Target::Url(url.0.clone()),
        (None, Some(port), Some(path)) => on_replica(port.0, &path.0)?,
        (None, ..) => return None,
    };
    let mut step = HttpStep::get(target);
    if let Some(method) = &typed.method {
        step.method.clone_from(&method.0);
    }
    for (name, value) in typed.headers.iter().flatten() {
        if step.headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            let key = format!("{at}.headers.{name}");
            resolving.clash(&[&key], "is here twice, in other letters", "remove one of them");
        }
        let text = match value {
            HeaderText::Plain(text) => Text::Plain(text.clone()),
            HeaderText::File { file } => {
                Text::File(kept(&format!("{at}.headers.{name}"), file, context, resolving)?)
            }
        };
        step.headers.push((name.clone(), text));
    }
    step.body = match (&typed.body, &typed.body_file) {
        (Some(body), _) => Some(Text::Plain(body.0.clone())),
        (None, Some(file)) => Some(Text::File(kept(&format!("{at}.body_file"), file, context, resolving)?)),
        (None, None) => None,
    };
    if let Some(statuses) = &typed.status {
        step.status.clone_from(&statuses.0);
    }
    step.contains = typed.contains.as_ref().map(|content| content.0.clone());
    step.json =
        typed.json.iter().flatten().map(|(path, value)| (path.clone(), value.0.to_string())).collect();
    step.capture =
        typed.capture.iter().flatten().map(|(name, path)| (name.clone(), path.0.clone())).collect();
    step.redirects = typed.redirects.map_or(step.redirects, |count| count.0);
    step.tls = tls(typed.ca_file.as_ref().map(|file| file.0.as_str()), typed.insecure);
    Some(step)
}

/// The path of a file that is read when it is needed.
pub(super) fn kept(
    key: &str,
    file: &KeptFile,
    context: Context<'_>,
    resolving: &mut Resolving<'_>,
) -> Option<std::path::PathBuf> {
    match super::secret::locate(&file.0, context.credentials) {
        Ok(path) => Some(path),
        Err(what) => {
            resolving.clashes.push(Clash { keys: vec![key.to_owned()], what });
            None
        }
    }
}
