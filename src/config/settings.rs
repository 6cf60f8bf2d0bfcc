//! The settings that hold: validated, complete, and the only thing that the rest of the program sees. Made by
//! [`load`](super::load); never changed, only replaced by the next.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;

use super::OfFleet;
use super::effective::Changed;
use super::file::Service;
use super::labels::{self, Wish};
use super::locate::Places;
use super::problem::{Problem, Wrong};
use super::resolve::Context;
use super::schema::Findings;
use super::tree::Place;
use super::windows::Window;
use super::words::Enroll;
use crate::core::release::ServiceName;
use crate::core::settings::{FleetSettings, Mode, ServiceSettings};
use crate::notify::Tracker;
use crate::notify::plan::Plan;
use crate::report::checklist::Owners;
use crate::report::reminder::Reminders;
use crate::telemetry::LogFormat;

/// Everything that was configured.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What concerns all services together.
    pub fleet: FleetSettings,
    /// `DryRun` here makes every service a dry run, whatever it says itself.
    pub mode: Mode,
    /// The directory of the database; absolute.
    pub state_dir: PathBuf,
    /// How the program logs.
    pub log: LogSettings,
    /// The default Docker Engine.
    pub engine: EngineSettings,
    /// Those that are watched besides it, by name.
    pub engines: Vec<EngineAddress>,
    /// Times in which Backstop leaves services alone, or asks before it acts.
    pub windows: Vec<Window>,
    /// Registries.
    pub registry: RegistrySettings,
    /// The HTTP interface.
    pub api: ApiSettings,
    /// Where announcements go.
    pub notify: NotifySettings,
    /// What is kept of everything that was seen.
    pub flight: FlightSettings,
    /// What is left to people after a rollback.
    pub report: ReportSettings,
    /// `environment`, `[fleet]` and `[groups]`, as far as people said anything.
    pub(super) of_fleet: OfFleet,
    pub(super) enroll: Enroll,
    /// `[defaults]`, as far as people said anything: what is shipped is what settings are by default.
    pub(super) defaults: Service,
    pub(super) services: BTreeMap<String, Service>,
    /// The names of all checks.
    pub(super) checks: BTreeSet<String>,
    /// Where systemd put credentials.
    pub(super) credentials: Option<PathBuf>,
    pub(super) places: Places,
    pub(super) effective: serde_json::Value,
    pub(super) changed: Vec<Changed>,
    /// Keys of secrets that stand in the open, and where.
    pub(super) open_secrets: Vec<(String, String)>,
    pub(super) files: Vec<PathBuf>,
}

/// What is left to people after a rollback: whose it is, how they are reminded, and where tickets are opened.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReportSettings {
    /// Who does what.
    pub owners: Owners,
    /// When they are reminded.
    pub reminders: Reminders,
    /// Where a ticket is opened; nowhere if none.
    pub github: Option<Tracker>,
}

/// The flight record: every input of the core, so that what was decided can be replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlightSettings {
    /// Whether it is kept.
    pub enabled: bool,
    /// It takes at most so much disk space; the oldest part goes first.
    pub max_bytes: u64,
    /// What is older goes.
    pub max_age: Duration,
    /// Where it is: `flight` in the state directory.
    pub directory: PathBuf,
}

/// How the program logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// A level, or a filter by modules: `info,hyper=warn`.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// The Docker Engine that is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineSettings {
    /// `unix:///path`, `tcp://host:port` or `ssh://user@host:port`.
    pub host: String,
    /// What TLS needs; none if it is not spoken.
    pub tls: Option<EngineTls>,
    /// How often everything is looked at, besides listening to events.
    pub look_interval: Duration,
    /// How long one call may take, stops and fetches aside.
    pub timeout: Duration,
}

/// An engine that is watched besides the default one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineAddress {
    /// Its name, which its services have in front of theirs: `NAME/SERVICE`.
    pub name: String,
    /// `unix:///path`, `tcp://host:port` or `ssh://user@host:port`.
    pub host: String,
    /// What TLS needs; none if it is not spoken.
    pub tls: Option<EngineTls>,
}

/// Files for TLS with an engine, in PEM; each an absolute path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineTls {
    /// The CA that vouches for the engine.
    pub ca: PathBuf,
    /// Our certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Registries, which the engine fetches images from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistrySettings {
    /// Docker's `config.json` with credentials for them, if a person named it.
    pub docker_config: Option<PathBuf>,
    /// Where the docker command of the same user would look. It need not be there.
    pub usual: Option<PathBuf>,
}

/// The HTTP interface.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Under which address people reach it, for the links in messages; without one there are none.
    pub public_url: Option<String>,
    /// What operators show; without one their actions are refused.
    pub token: Option<SecretString>,
    /// What single operators show, by their names.
    pub people: BTreeMap<String, SecretString>,
    /// What senders of alerts show, who must not be operators; without one alerts are refused.
    pub hook_token: Option<SecretString>,
}

/// Where announcements go.
#[derive(Debug, Clone, Default)]
pub struct NotifySettings {
    /// Channels, routes, and who is told when nobody answers.
    pub plan: Arc<Plan>,
}

impl Settings {
    /// Whether the service is watched, by its name and the labels of its containers. A container marked
    /// `backstop.self` never is; naming a service in the configuration outdoes its label.
    pub fn enrolled(&self, service: &ServiceName, labels: &BTreeMap<String, String>) -> bool {
        match labels::wish(labels, labels::SELF) {
            // Acting on oneself by a slip of the pen would be worse than not watching.
            Wish::Watched | Wish::Unclear => return false,
            Wish::Unwatched | Wish::None => {}
        }
        if self.services.contains_key(service.as_str()) {
            return true;
        }
        if self.enroll == Enroll::Named {
            return false;
        }
        match labels::wish(labels, labels::ENABLE) {
            // What cannot be understood is refused by `service`, with its reason, instead of passed over.
            Wish::Watched | Wish::Unclear => true,
            Wish::Unwatched => false,
            Wish::None => match self.enroll {
                Enroll::All => true,
                Enroll::Labelled | Enroll::Named => false,
            },
        }
    }

    /// The settings of a service: `[defaults]`, over them its labels, over them `[services.NAME]`.
    ///
    /// # Errors
    /// Every mistake in the labels as a sentence: which label, what is wrong, what would be right.
    pub fn service(
        &self,
        service: &ServiceName,
        labels: &BTreeMap<String, String>,
    ) -> Result<ServiceSettings, Vec<String>> {
        let mut findings = Findings::default();
        let node = labels::layer(labels, &mut findings);
        let mut places = self.places.clone();
        places.add_labels(service.as_str(), &node);
        // The walk left only what deserializes. Were that untrue, the service is refused: half its labels would
        // be other settings than those that were asked for.
        let from_labels = Service::deserialize(config::Value::from(node)).map_err(|error| {
            vec![format!("the labels cannot be read, which is a mistake in Backstop: {error}")]
        })?;
        let files: Vec<_> =
            std::iter::once(&self.defaults).chain(self.services.get(service.as_str())).collect();
        for (label, secret) in labels::misdirected(&from_labels, &files) {
            let wrong = format!("a label may not choose whom the secret of {secret} is sent to");
            let right = format!("set it in [services.{service}], or take the label away");
            findings.problems.push(Problem::new(Place::Label(label), "", Wrong::new(wrong, right)));
        }
        let mut layers = vec![&self.defaults, &from_labels];
        layers.extend(self.services.get(service.as_str()));
        let context = Context {
            service: Some(service.as_str()),
            credentials: self.credentials.as_deref(),
            checks: &self.checks,
            people: self.api.people.len(),
        };
        let (mut settings, clashes) = super::resolve::resolve(&ServiceSettings::default(), &layers, context);
        for clash in clashes {
            if !clash.depends_on(&findings.removed) {
                findings.problems.push(places.problem(Some(service.as_str()), clash));
            }
        }
        if !findings.problems.is_empty() {
            return Err(findings.problems.iter().map(ToString::to_string).collect());
        }
        if self.mode == Mode::DryRun {
            settings.mode = Mode::DryRun;
        }
        Ok(settings)
    }

    /// All settings as they hold, in the shape of the file, each named service complete; without secrets.
    pub fn effective(&self) -> serde_json::Value {
        self.effective.clone()
    }

    /// The settings that are not as shipped, and where each was set; in the order of the file.
    pub fn changed(&self) -> &[Changed] {
        &self.changed
    }

    /// What is right and may yet not be meant, each a sentence. Looks whether the files that are named can be read.
    pub fn warnings(&self) -> Vec<String> {
        super::warnings::warnings(self)
    }

    /// The files that were read, in the order in which they were laid over each other.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The names of `[services.NAME]`: those that the operator expects to be there.
    pub fn named(&self) -> impl Iterator<Item = ServiceName> {
        self.services.keys().map(ServiceName::new)
    }
}
