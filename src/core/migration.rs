//! Migrations: what releases did to the schema of their database, and what that means for a way back.
//!
//! The image of a release can be put back in seconds; what its migration did to the data cannot. So a release says what
//! it did: by its label `backstop.schema`, by whoever deployed it, or by what a query to the database answers while it
//! runs.

use serde::{Deserialize, Serialize};

use super::decision::Gate;
use super::io::{Effect, EngineState};
use super::ledger::{LedgerChange, LedgerEntry, RollbackRecord};
use super::release::{Release, ReleaseId};
use super::service::{Service, Turn};
use super::surroundings::Surroundings;
use super::time::Timestamp;

/// What a release did to the schema of its database, as far as releases before it are concerned. The later, the worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SchemaChange {
    /// Nothing.
    None,
    /// It only added: releases before it run on what it left.
    Additive,
    /// Releases before it do not run on what it left.
    Breaking,
}

impl SchemaChange {
    /// The name used in labels, settings and the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Additive => "additive",
            Self::Breaking => "breaking",
        }
    }
}

/// What is known of a release and the schema.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// What it did to it, by its label or its deployer's word; none if nobody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<SchemaChange>,
    /// The version that it ran on, as the query answered: what it needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// Another version since then, while it ran: of a migration that may belong to a release to come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newer: Option<(Timestamp, String)>,
    /// A downgrade took back what it did.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub taken_back: bool,
}

impl Schema {
    /// Whether nothing is known.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }

    /// The version that was there when it was last asked for.
    pub fn latest(&self) -> Option<&str> {
        self.newer.as_ref().map(|(_, answer)| answer).or(self.answer.as_ref()).map(String::as_str)
    }
}

/// From which version of the schema a downgrade goes to which, as far as they are known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaMove {
    /// The one that the database has.
    pub from: Option<String>,
    /// The one that the target knew.
    pub to: Option<String>,
}

/// What the schema means for a way back.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Passage {
    /// The target runs on it, as far as anybody says.
    Clear(String),
    /// It was only added to.
    Additive(String),
    /// The target does not run on it.
    Breaking(String),
}

impl Service {
    /// Somebody says what a release does to the schema.
    pub(crate) fn schema_said(&mut self, turn: &mut Turn<'_>, release: &ReleaseId, change: SchemaChange) {
        self.set_schema(turn, release, |schema| schema.said = Some(change));
    }

    /// A release appeared: what is said of it is kept with it, and what was taken back when it went is there again.
    pub(crate) fn schema_deployed(&mut self, turn: &mut Turn<'_>) {
        let Some(release) = self.current.clone() else { return };
        let noted = self.current_entry().and_then(|entry| entry.note.as_ref()?.schema);
        let said = noted.or(self.settings.schema);
        self.schema_asked = None;
        self.set_schema(turn, &release.id, |schema| {
            schema.said = said.or(schema.said);
            schema.taken_back = false;
        });
    }

    /// Asks for the version of the schema when that is due: while something runs, and nothing is being changed.
    pub(crate) fn ask_schema(&mut self, turn: &mut Turn<'_>, around: Surroundings<'_>) {
        let Some(query) = self.settings.migrations.query.clone() else { return };
        let reachable = matches!(around.engine, Some(EngineState::Reachable { .. }));
        let due = self.schema_asked.is_none_or(|at| turn.now.since(at) >= query.interval);
        if !due || !reachable || self.replicas.is_empty() || self.mixed.is_some() || self.state.in_flight() {
            return;
        }
        let Some(release) = self.current.as_ref().map(|current| current.id.clone()) else { return };
        self.schema_asked = Some(turn.now);
        turn.effect(Effect::AskSchema { service: self.name.clone(), release, query });
    }

    /// Takes in the version of the schema. A pipeline may migrate the database before it deploys: while a release that has
    /// proved itself runs, another version is not what that release needs, until it has been so for long enough that
    /// nobody would be rolled back for it.
    pub(crate) fn schema_answered(
        &mut self,
        turn: &mut Turn<'_>,
        release: &ReleaseId,
        answer: Result<String, String>,
    ) {
        if self.current.as_ref().is_none_or(|current| current.id != *release) || self.state.in_flight() {
            return;
        }
        let answer = match answer {
            Ok(answer) => answer,
            Err(why) => {
                self.schema_unknown = Some(why);
                return;
            }
        };
        self.schema_unknown = None;
        let (now, proved, watch) = (turn.now, self.current_is_known_good(), self.settings.watch);
        self.set_schema(turn, release, |schema| {
            if schema.answer.as_ref() == Some(&answer) {
                schema.newer = None;
            } else if !proved || schema.answer.is_none() {
                *schema = Schema { answer: Some(answer), newer: None, ..schema.clone() };
            } else if let Some((since, newer)) = schema.newer.take_if(|(_, newer)| *newer == answer) {
                let settled = now.since(since) >= watch;
                if settled { schema.answer = Some(newer) } else { schema.newer = Some((since, newer)) }
            } else {
                schema.newer = Some((now, answer));
            }
        });
    }

    fn set_schema(&mut self, turn: &mut Turn<'_>, release: &ReleaseId, change: impl FnOnce(&mut Schema)) {
        let Some(entry) = self.ledger.iter_mut().find(|entry| entry.release.id == *release) else { return };
        let before = entry.schema.clone();
        change(&mut entry.schema);
        if entry.schema != before {
            let entry = entry.clone();
            turn.remember(LedgerChange::Entry { service: self.name.clone(), entry });
        }
    }

    /// Whether the target runs on the schema that it would find, or the database goes back with it.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) fn schema_gate(&self, target: &Release) -> Result<String, String> {
        match self.passage(target) {
            Passage::Clear(why) => Ok(why),
            Passage::Additive(why) => Ok(format!("{why}: the image alone goes back")),
            Passage::Breaking(why) => match &self.settings.migrations.downgrade {
                Some(downgrade) => Ok(format!("{why}; before it is started: {downgrade}")),
                None => Err(format!("{why}, and no downgrade is configured")),
            },
        }
    }

    /// The downgrade that a rollback to `target` takes, if it takes one.
    pub(crate) fn downgrade(&self, target: &Release) -> Option<SchemaMove> {
        let breaking = matches!(self.passage(target), Passage::Breaking(_));
        if !breaking || self.schema_accepted || self.settings.migrations.downgrade.is_none() {
            return None;
        }
        Some(SchemaMove {
            from: self.latest_schema(target).map(str::to_owned),
            to: self.entry(&target.id).and_then(|entry| entry.schema.answer.clone()),
        })
    }

    /// What an announcement of a rollback says of the schema, where there is something to say.
    pub(crate) fn about_schema(&self, target: &Release) -> Option<(String, String)> {
        let said = match self.passage(target) {
            Passage::Clear(_) => return None,
            Passage::Breaking(why) if self.schema_accepted => {
                format!("{why}; it stays as it is, as was asked for")
            }
            Passage::Additive(_) | Passage::Breaking(_) => self.schema_gate(target).unwrap_or_else(|why| why),
        };
        Some(("Schema".into(), said))
    }

    /// The prepared way for a person, where the schema is what holds a rollback up.
    pub(crate) fn way_by_hand(&self, gate: Gate) -> Option<(String, String)> {
        let way = self.settings.migrations.manual.clone().filter(|_| gate == Gate::Migrations)?;
        Some(("Prepared way".into(), way))
    }

    /// A downgrade went with a rollback: what the releases since the target did to the schema is no more.
    pub(crate) fn schema_taken_back(&mut self, turn: &mut Turn<'_>, record: &RollbackRecord) {
        let undone: Vec<ReleaseId> = self.since(&record.to).map(|entry| entry.release.id.clone()).collect();
        for id in undone {
            self.set_schema(turn, &id, |schema| schema.taken_back = true);
        }
        self.schema_asked = None;
    }

    /// A rollback is proved whose target runs on the schema as it is: that is what it needs from now on.
    pub(crate) fn schema_proved(&mut self, turn: &mut Turn<'_>, record: &RollbackRecord) {
        if record.request.downgrade.is_some() {
            return;
        }
        let from = record.from.as_ref().and_then(|from| self.entry(&from.id));
        if let Some(found) = from.and_then(|entry| entry.schema.latest()).map(str::to_owned) {
            self.set_schema(turn, &record.to.id, |schema| {
                *schema = Schema { answer: Some(found), newer: None, ..schema.clone() };
            });
        }
    }

    /// The releases that came after `target`, up to the current one.
    fn since(&self, target: &Release) -> impl Iterator<Item = &LedgerEntry> {
        let deployed = self.entry(&target.id).map(|entry| entry.deployed);
        let after = move |entry: &&LedgerEntry| deployed.is_none_or(|at| entry.deployed > at);
        self.ledger.iter().filter(after)
    }

    /// The version that the database has. A pipeline may have migrated before the current release was there to be asked
    /// about.
    fn latest_schema(&self, target: &Release) -> Option<&str> {
        let of_current = self.current_entry().and_then(|entry| entry.schema.latest());
        of_current.or_else(|| self.entry(&target.id).and_then(|entry| entry.schema.latest()))
    }

    fn passage(&self, target: &Release) -> Passage {
        let since: Vec<&LedgerEntry> = self.since(target).filter(|entry| !entry.schema.taken_back).collect();
        let worst =
            since.iter().filter_map(|entry| Some((entry.schema.said?, *entry))).max_by_key(|(c, _)| *c);
        if let Some((SchemaChange::Breaking, entry)) = worst {
            return Passage::Breaking(format!(
                "{} changed the schema so that {target} does not run on it",
                entry.release
            ));
        }
        let told = since.iter().all(|entry| entry.schema.said.is_some());
        let known = self.entry(&target.id).and_then(|entry| entry.schema.answer.as_deref());
        let now = self.latest_schema(target);
        if let (Some(known), Some(now)) = (known, now)
            && known != now
        {
            let differs = format!("the schema is at {now}, and {target} ran on {known}");
            let additive = matches!(worst, Some((SchemaChange::Additive, _))) && told;
            return match self.settings.migrations.changed {
                Some(SchemaChange::Additive) => Passage::Additive(differs),
                _ if additive => Passage::Additive(differs),
                Some(SchemaChange::None | SchemaChange::Breaking) | None => Passage::Breaking(differs),
            };
        }
        match worst {
            Some((SchemaChange::Additive, entry)) => {
                Passage::Additive(format!("{} only added to the schema", entry.release))
            }
            Some((SchemaChange::None | SchemaChange::Breaking, _)) | None => {
                Passage::Clear(self.clear(told, known.zip(now).is_some()))
            }
        }
    }

    /// Why nothing speaks against it, or what is not known and taken for none.
    fn clear(&self, told: bool, compared: bool) -> String {
        if told || compared {
            return "the schema is as it was".into();
        }
        let why = match (&self.settings.migrations.query, &self.schema_unknown) {
            (Some(_), Some(why)) => format!(" (the database cannot be asked: {why})"),
            (Some(_), None) | (None, _) => String::new(),
        };
        format!("no release since says what it did to the schema: nothing, then{why}")
    }
}
