//! Hooks and migrations: what else is done when a service goes back. `config/` makes them; every value is valid.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{HttpStep, Target, Text};
use crate::migration::SchemaChange;
use crate::time::human;

/// What stands in a hook's words for what its rollback is about, and, in upper case after `BACKSTOP_`, in its environment.
pub const HOOK_VALUES: [&str; 13] = [
    "service",
    "rollback",
    "from",
    "from_id",
    "from_tag",
    "to",
    "to_id",
    "to_tag",
    "reason",
    "phase",
    "hook",
    "from_schema",
    "to_schema",
];

/// Something that is done on the way of a rollback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// What it is called.
    pub name: String,
    /// When it is its turn.
    pub phase: HookPhase,
    /// What is done.
    pub kind: HookKind,
    /// How long it may take; what is left of it then is ended.
    pub timeout: Duration,
    /// What its failure means.
    pub on_failure: OnFailure,
    /// It may be run again after a crash in the middle of it.
    pub repeatable: bool,
}

/// When a hook has its turn. In the order of a rollback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookPhase {
    /// After the decision, before anything is touched.
    BeforeRollback,
    /// A backup before a downgrade: the bad release still serves, so its time is no outage.
    Backup,
    /// Every container of the bad release is stopped, and none of the target is started.
    AfterStop,
    /// The downgrade of the database: at the same time, after those.
    Downgrade,
    /// Whether the database is as the target knew it: after the downgrade.
    Current,
    /// The target was started; it is not verified yet.
    BeforeVerify,
    /// The rollback is proved.
    AfterRollback,
    /// The rollback failed: it was taken back, is not proved, or a person is called.
    OnFailure,
    /// Before any rollback, where a row's mitigations name it, and never otherwise.
    Mitigation,
}

impl HookPhase {
    /// The name used in settings and environment variables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BeforeRollback => "before_rollback",
            Self::Backup => "backup",
            Self::AfterStop => "after_stop",
            Self::Downgrade => "downgrade",
            Self::Current => "current",
            Self::BeforeVerify => "before_verify",
            Self::AfterRollback => "after_rollback",
            Self::OnFailure => "on_failure",
            Self::Mitigation => "mitigation",
        }
    }

    /// Whether nothing of the service may run meanwhile.
    pub const fn needs_all_stopped(self) -> bool {
        matches!(self, Self::AfterStop | Self::Downgrade | Self::Current)
    }
}

/// What a hook's failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// The rollback goes no further: it is taken back as long as the target does not run; after that a person is called.
    Stop,
    /// It is noted, and the rollback goes on.
    Continue,
}

/// What a hook does. `{{service}}`, `{{from}}`, `{{to}}` and the like stand in its words for what the rollback is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookKind {
    /// A program on the host of the daemon, without a shell.
    Command(Vec<String>),
    /// A container that is made for it out of the service's own specification, and removed afterwards.
    Run {
        /// Of which image.
        image: RunImage,
        /// What it runs instead of the image's own command.
        command: Vec<String>,
    },
    /// HTTP requests, one after the other.
    Http(Vec<HttpStep>),
    /// A prepared SQL file, in one transaction.
    Sql {
        /// The file.
        file: String,
        /// The file with the database's URL.
        database: Text,
    },
    /// The query's answer is the one that the target knew.
    Schema(SchemaQuery),
}

/// The image of a one-off container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunImage {
    /// That of the release that is rolled back, with its specification.
    Bad,
    /// That of the target, with its specification.
    Good,
    /// Another one, which has to be on the engine; with the networks, mounts and environment of the release that is
    /// rolled back.
    Other(String),
}

/// How the version of a database's schema is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaQuery {
    /// The file with the database's URL.
    pub database: Text,
    /// The query: what the first column of its rows says is the version.
    pub query: String,
    /// How often it is asked.
    pub interval: Duration,
}

/// What is known of a service's migrations, and how they are taken back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migrations {
    /// The version of the schema, if it can be asked for.
    pub query: Option<SchemaQuery>,
    /// What another answer than the target's means; breaking if none.
    pub changed: Option<SchemaChange>,
    /// The prepared way back, for the person who goes it by hand.
    pub manual: Option<String>,
    /// The backup before a downgrade.
    pub backup: Option<Hook>,
    /// The downgrade.
    pub downgrade: Option<Hook>,
}

impl fmt::Display for Hook {
    /// `the hook maintenance: the command curl ...`: without arguments, which may be passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.phase {
            HookPhase::Backup => f.write_str("make the backup: ")?,
            HookPhase::Downgrade => f.write_str("downgrade the database: ")?,
            HookPhase::Current => {}
            HookPhase::BeforeRollback
            | HookPhase::AfterStop
            | HookPhase::BeforeVerify
            | HookPhase::AfterRollback
            | HookPhase::OnFailure
            | HookPhase::Mitigation => write!(f, "run the hook {}: ", self.name)?,
        }
        write!(f, "{}, {} at most", self.kind, human(self.timeout))
    }
}

impl fmt::Display for HookKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = |words: &[String]| {
            let rest = if words.len() > 1 { " ..." } else { "" };
            format!("{}{rest}", words.first().map_or("", String::as_str))
        };
        match self {
            Self::Command(command) => write!(f, "the command {}", words(command)),
            Self::Run { image, command } => {
                let image = match image {
                    RunImage::Bad => "the bad release's image",
                    RunImage::Good => "the good release's image",
                    RunImage::Other(reference) => reference,
                };
                write!(f, "{} in a container of its own of {image}", words(command))
            }
            Self::Http(steps) => {
                let told: Vec<String> = steps.iter().map(told).collect();
                f.write_str(&told.join(", then "))
            }
            Self::Sql { file, .. } => write!(f, "{file} in one transaction"),
            Self::Schema(_) => f.write_str("check that the schema of the database is the target's"),
        }
    }
}

/// A request for people: whom it asks. What comes after that in a URL may be a secret, as with those of chats.
fn told(step: &HttpStep) -> String {
    let place = match &step.target {
        Target::Url(url) => {
            let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let (authority, path) = rest.split_at(end);
            let host = authority.rsplit('@').next().unwrap_or_default();
            if path.len() > 1 { format!("{host}/...") } else { host.to_owned() }
        }
        Target::Replica { path, .. } => path.split(['?', '#']).next().unwrap_or_default().to_owned(),
    };
    format!("{} {place}", step.method)
}
