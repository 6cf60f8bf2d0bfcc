//! Configuration: from what was typed, in five layers, to the settings that the program runs by.
//!
//! The layers, each over the one before: the shipped defaults (`config/backstop.toml`, compiled in); the file
//! (`/etc/backstop/backstop.toml` or the one named, TOML or YAML); `conf.d/*.toml`, `*.yaml` and `*.yml` next to
//! it, by name; the environment (`BACKSTOP_API__LISTEN`; no services there, whose names keep their case while
//! variables do not); flags (`--set api.listen=...`). Tables are merged; lists and values are replaced.
//!
//! Every mistake is reported at once, with its place and with what would be right. A configuration with a mistake
//! is never half used: [`load`] gives settings that hold, or all the problems. Nothing here ever shows a secret.
//!
//! In reading order: one layer as typed ([`tree`], [`syntax`], [`layers`]), the keys ([`file`], [`values`]) and
//! the walk that finds mistakes ([`schema`]), what depends on several keys ([`resolve`]: [`checks`], [`sources`],
//! [`rules`]), and what comes out ([`settings`], [`problem`], [`warnings`]; over a record, [`over`]).

mod announce;
mod channels;
mod checks;
mod effective;
mod engines;
mod file;
mod groups;
mod hooks;
mod labels;
mod layers;
mod locate;
mod mitigations;
mod nearest;
mod numbers;
mod over;
mod problem;
mod report;
mod requests;
mod resolve;
mod rules;
mod schema;
mod secret;
mod series;
mod settings;
mod sources;
mod syntax;
mod tree;
mod values;
mod warnings;
pub mod windows;
mod words;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;

pub use effective::Changed;
pub use labels::{ENABLE as LABEL_ENABLE, SELF as LABEL_SELF, SERVICE as LABEL_SERVICE};
pub use layers::{DEFAULT_FILE, Sources};
pub use problem::{Problem, Problems};
pub use settings::{
    ApiSettings, EngineAddress, EngineSettings, EngineTls, FlightSettings, LogSettings, NotifySettings,
    RegistrySettings, ReportSettings, Settings,
};

use file::File;
use locate::Places;
use problem::Wrong;
use resolve::{Clash, Context, resolve};
use schema::{Findings, Setting};
use values::{SecretFile, Token};
use words::Enroll;

use crate::core::settings::{FleetSettings, Mode, ServiceSettings};
use crate::telemetry::LogFormat;

/// Reads all layers and makes the settings of them.
///
/// # Errors
/// Everything that is wrong, at once: what cannot be read, unknown keys, bad values, settings that cannot hold
/// together.
pub fn load(sources: &Sources) -> Result<Settings, Problems> {
    let mut findings = Findings::default();
    let layers = layers::read(sources, &mut findings.problems);
    let mut places = Places::default();
    let mut nodes = Vec::new();
    for node in layers.nodes {
        let node = schema::walk(node, File::SHAPE, &mut findings);
        places.add(&node);
        nodes.push(node);
    }
    let merged = merge(nodes, &places).map_err(|problem| Problems::of(vec![problem]))?;
    // With a layer missing, half a pair would look like a mistake.
    if !layers.incomplete {
        check_services(&merged, sources.credentials(), &places, &mut findings);
        engines::check(&merged.typed, &places, &mut findings);
        groups::check(&merged.typed.groups.clone().unwrap_or_default(), &places, &mut findings);
    }
    let windows = windows::made(&merged.typed.windows.clone().unwrap_or_default(), &places, &mut findings);
    let notify = merged.typed.notify.clone().unwrap_or_default();
    let plan = channels::plan(&notify, sources.credentials(), &places, &mut findings);
    let paperwork = merged.typed.report.clone().unwrap_or_default();
    let paperwork = report::made(paperwork, sources.credentials(), &places, &mut findings);
    let secrets = Secrets::read(&merged, sources, &places, &mut findings);
    if !findings.problems.is_empty() {
        return Err(Problems::of(findings.problems));
    }
    let mut made = settings(merged, secrets, places, sources.credentials().map(Path::to_owned), layers.files);
    made.windows = windows;
    made.notify.plan = std::sync::Arc::new(plan);
    made.report = paperwork;
    made.registry.usual = sources.docker_config();
    Ok(made)
}

/// A layer as the `config` crate wants it. Its values may be secrets.
#[derive(Clone)]
struct Layer(config::Map<String, config::Value>);

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Layer")
    }
}

impl config::Source for Layer {
    fn clone_into_box(&self) -> Box<dyn config::Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<config::Map<String, config::Value>, config::ConfigError> {
        Ok(self.0.clone())
    }
}

/// All layers over each other.
struct Merged {
    /// What people said. What is shipped is what settings are by default, which a test compares.
    typed: File,
    /// Everything, for people, without secrets.
    shown: serde_json::Value,
    changed: Vec<Changed>,
    /// Keys of secrets that stand in the open, and where.
    open_secrets: Vec<(String, String)>,
}

fn merge(nodes: Vec<tree::Node>, places: &Places) -> Result<Merged, Problem> {
    // The walk has left nothing that could fail here; if it did, that is our mistake, and said as one.
    let failed = |error: &dyn std::fmt::Display| {
        let wrong = format!("the layers cannot be merged: {error}");
        Problem::new("", "", Wrong::new(wrong, "this is a mistake in Backstop: please report it"))
    };
    let build = |nodes: Vec<tree::Node>| {
        let mut builder = config::Config::builder();
        for node in nodes {
            let table = config::Value::from(node).into_table().map_err(|error| failed(&error))?;
            builder = builder.add_source(Layer(table));
        }
        builder.build().map_err(|error| failed(&error))
    };
    let mut nodes = nodes;
    let own = build(nodes.split_off(1.min(nodes.len())))?;
    let shipped = serde_json::Value::deserialize(build(nodes)?).map_err(|error| failed(&error))?;
    let typed = serde_path_to_error::deserialize(own.clone()).map_err(|error| failed(&error))?;
    let own = serde_json::Value::deserialize(own).map_err(|error| failed(&error))?;
    let mut open = Vec::new();
    effective::in_the_open(&own, File::SHAPE, &mut Vec::new(), &mut open);
    let located = |path: &Vec<String>| {
        let place = places.of(path).map_or_else(String::new, ToString::to_string);
        (tree::dotted(path), place)
    };
    let shown = effective::show(shipped.clone(), own.clone());
    Ok(Merged {
        typed,
        changed: effective::changed(&shipped, &own, &shown, places),
        open_secrets: open.iter().map(located).collect(),
        shown,
    })
}

/// The names of all checks that are spoken of.
fn names_of_checks(typed: &File) -> BTreeSet<String> {
    let services = typed.services.iter().flat_map(|services| services.values());
    typed.defaults.iter().chain(services).flat_map(checks::names).collect()
}

/// Judges `[defaults]` and each `[services.NAME]` over it.
fn check_services(merged: &Merged, credentials: Option<&Path>, places: &Places, findings: &mut Findings) {
    let defaults = merged.typed.defaults.clone().unwrap_or_default();
    let checks = names_of_checks(&merged.typed);
    let people = merged.typed.api.iter().flat_map(|api| &api.operators).map(BTreeMap::len).sum();
    let context = Context { service: None, credentials, checks: &checks, people };
    let shipped = ServiceSettings::default();
    let (_, of_all) = resolve(&shipped, &[&defaults], context);
    for (name, service) in merged.typed.services.iter().flatten() {
        let (_, clashes) =
            resolve(&shipped, &[&defaults, service], Context { service: Some(name), ..context });
        for clash in clashes {
            // Said once, for all.
            if !of_all.contains(&clash) {
                report(Some(name), clash, places, findings);
            }
        }
    }
    for clash in of_all {
        report(Some(""), clash, places, findings);
    }
}

/// Adds a clash to the problems, unless one of its keys has a problem of its own already.
fn report(service: Option<&str>, clash: Clash, places: &Places, findings: &mut Findings) {
    let above: Vec<Vec<&str>> = match service {
        Some(service) => vec![vec!["services", service], vec!["defaults"]],
        None => vec![Vec::new()],
    };
    // Paths below the service, of what was taken out of it or of [defaults].
    let below = |removed: &Vec<String>| {
        above.iter().find_map(|above| {
            let rest = removed.get(above.len()..)?;
            above.iter().zip(removed).all(|(a, b)| a == b).then(|| rest.to_vec())
        })
    };
    let removed: Vec<Vec<String>> = findings.removed.iter().filter_map(below).collect();
    if !clash.depends_on(&removed) {
        findings.problems.push(places.problem(service, clash));
    }
}

/// The secrets, wherever they were given.
struct Secrets {
    token: Option<SecretString>,
    hook_token: Option<SecretString>,
    people: BTreeMap<String, SecretString>,
}

impl Secrets {
    fn read(merged: &Merged, sources: &Sources, places: &Places, findings: &mut Findings) -> Self {
        let mut either = |given: Option<SecretString>,
                          file: Option<&SecretFile>,
                          keys: [&str; 2],
                          read: ReadSecret| {
            match (given, file) {
                (Some(_), Some(_)) => {
                    let right = format!("{} alone would be right", keys[1]);
                    let clash = Clash::new(&[keys[1], keys[0]], format!("{} is set too", keys[0]), right);
                    report(None, clash, places, findings);
                    None
                }
                (None, Some(file)) => match read(file, sources.credentials()) {
                    Ok(secret) => Some(secret),
                    Err(what) => {
                        let clash = Clash { keys: vec![keys[1].to_owned()], what };
                        report(None, clash, places, findings);
                        None
                    }
                },
                (given, None) => given,
            }
        };
        let api = merged.typed.api.clone().unwrap_or_default();
        let people = api.operators.unwrap_or_default().into_iter().filter_map(|(name, operator)| {
            let keys = [format!("api.operators.{name}.token"), format!("api.operators.{name}.token_file")];
            let token = either(
                operator.token.map(|token| token.0),
                operator.token_file.as_ref(),
                [&keys[0], &keys[1]],
                |file, credentials| secret::read::<Token>(file, credentials).map(|token| token.0),
            );
            token.map(|token| (name, token))
        });
        Self {
            people: people.collect(),
            token: either(
                api.token.map(|token| token.0),
                api.token_file.as_ref(),
                ["api.token", "api.token_file"],
                |file, credentials| secret::read::<Token>(file, credentials).map(|token| token.0),
            ),
            hook_token: either(
                api.hook_token.map(|token| token.0),
                api.hook_token_file.as_ref(),
                ["api.hook_token", "api.hook_token_file"],
                |file, credentials| secret::read::<Token>(file, credentials).map(|token| token.0),
            ),
        }
    }
}

type ReadSecret = fn(&SecretFile, Option<&Path>) -> Result<SecretString, Wrong>;

/// The settings. What nobody said is as shipped, which a test compares.
fn settings(
    merged: Merged,
    secrets: Secrets,
    places: Places,
    credentials: Option<PathBuf>,
    files: Vec<PathBuf>,
) -> Settings {
    let checks = names_of_checks(&merged.typed);
    let typed = merged.typed;
    let of_fleet = OfFleet {
        environment: typed.environment,
        fleet: typed.fleet.unwrap_or_default(),
        groups: typed.groups,
    };
    let (log, engine) = (typed.log.unwrap_or_default(), typed.engine.unwrap_or_default());
    let engines = engines::made(&typed.engines.unwrap_or_default());
    let engine_tls = engines::tls_of(&engine);
    let (api, registry) = (typed.api.unwrap_or_default(), typed.registry.unwrap_or_default());
    let shipped = FleetSettings::default();
    let check_interval = registry.check_interval.map_or(shipped.check_interval, |span| span.0);
    let state_dir = typed.state_dir.map_or_else(|| "/var/lib/backstop".into(), |directory| directory.0);
    Settings {
        fleet: FleetSettings {
            check_interval,
            engines: engines.iter().map(|engine| engine.name.clone()).collect(),
            ..fleet(shipped, of_fleet.clone())
        },
        engines,
        windows: Vec::new(),
        of_fleet,
        mode: typed.mode.unwrap_or(Mode::Act),
        report: ReportSettings::default(),
        flight: flight(&typed.flight.unwrap_or_default(), &state_dir),
        state_dir,
        log: LogSettings {
            level: log.level.map_or_else(|| "info".into(), |level| level.0),
            format: log.format.unwrap_or(LogFormat::Auto),
        },
        engine: EngineSettings {
            tls: engine_tls,
            host: engine.host.map_or_else(|| "unix:///var/run/docker.sock".into(), |host| host.0),
            look_interval: engine.look_interval.map_or(Duration::from_secs(30), |span| span.0),
            timeout: engine.timeout.map_or(Duration::from_secs(10), |span| span.0),
        },
        registry: RegistrySettings {
            docker_config: registry.docker_config.map(|file| file.0.into()),
            usual: None,
        },
        api: ApiSettings {
            listen: api.listen.map_or(([127, 0, 0, 1], 9797).into(), |listen| listen.0),
            public_url: api.public_url.map(|url| url.0),
            token: secrets.token,
            people: secrets.people,
            hook_token: secrets.hook_token,
        },
        notify: NotifySettings::default(),
        enroll: typed.enroll.unwrap_or(Enroll::Labelled),
        defaults: typed.defaults.unwrap_or_default(),
        services: typed.services.unwrap_or_default(),
        checks,
        credentials,
        places,
        effective: merged.shown,
        changed: merged.changed,
        open_secrets: merged.open_secrets,
        files,
    }
}

/// What people said of the whole fleet.
#[derive(Debug, Clone)]
struct OfFleet {
    environment: Option<values::Name>,
    fleet: file::Fleet,
    groups: Option<BTreeMap<String, groups::Members>>,
}

fn fleet(base: FleetSettings, said: OfFleet) -> FleetSettings {
    let typed = said.fleet;
    FleetSettings {
        environment: said.environment.map_or(base.environment, |name| name.0),
        engine_settle: typed.engine_settle.map_or(base.engine_settle, |span| span.0),
        one_at_a_time: typed.one_at_a_time.map_or(base.one_at_a_time, |span| span.0),
        breaker_rollbacks: typed.breaker_rollbacks.map_or(base.breaker_rollbacks, |count| count.0),
        breaker_window: typed.breaker_window.map_or(base.breaker_window, |span| span.0),
        self_check: typed.self_check.map_or(base.self_check, |addresses| addresses.0),
        groups: said.groups.map_or(base.groups, |groups| groups::made(&groups)),
        check_interval: base.check_interval,
        engines: base.engines,
    }
}

/// Half a gibibyte: about a week of ten services. A week: long enough to ask what happened last Monday.
fn flight(typed: &file::Flight, state_dir: &Path) -> FlightSettings {
    FlightSettings {
        enabled: typed.enabled.unwrap_or(true),
        max_bytes: typed.size.map_or(512 * numbers::MEBI, |size| size.0),
        max_age: typed.age.map_or(Duration::from_secs(7 * 24 * 60 * 60), |span| span.0),
        directory: state_dir.join("flight"),
    }
}

#[cfg(test)]
mod tests;
