//! Migrations: what releases did to the schema of their database, and what that means for a way back.
//!
//! The image of a release can be put back in seconds; what its migration did to the data cannot. So a release says what
//! it did: by its label `backstop.schema`, by whoever deployed it, or by what a query to the database answers while it
//! runs.

use serde::{Deserialize, Serialize};

use super::ledger::LedgerChange;
use super::service::{Service, Turn};

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
    /// What the query last answered while it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// A downgrade took back what it did.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub taken_back: bool,
}

impl Schema {
    /// Whether nothing is known.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

/// Said of a release that has not been seen yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Foretold {
    release: String,
    change: SchemaChange,
}

impl Service {
    /// Somebody says what a release does to the schema: the one that answers to `wanted` (reference, tag, version or id),
    /// or, if none does, the next one that does. Only the last word about a release to come is kept.
    #[allow(dead_code, reason = "for whoever announces deployments")]
    pub(crate) fn schema_said(&mut self, turn: &mut Turn<'_>, wanted: &str, change: SchemaChange) {
        let known = self.ledger.iter_mut().find(|entry| entry.release.answers_to(wanted));
        let Some(entry) = known else {
            self.foretold = Some(Foretold { release: wanted.to_owned(), change });
            return;
        };
        entry.schema.said = Some(change);
        let entry = entry.clone();
        turn.remember(LedgerChange::Entry { service: self.name.clone(), entry });
    }

    /// A release appeared: what is said of it is kept with it, and what was taken back when it went is there again.
    pub(crate) fn schema_deployed(&mut self, turn: &mut Turn<'_>) {
        let Some(release) = self.current.clone() else { return };
        let foretold = self.foretold.take_if(|f| release.answers_to(&f.release)).map(|f| f.change);
        let Some(entry) = self.ledger.iter_mut().find(|entry| entry.release.id == release.id) else { return };
        let said = foretold.or(self.settings.schema).or(entry.schema.said);
        let schema = Schema { said, taken_back: false, ..entry.schema.clone() };
        if entry.schema != schema {
            entry.schema = schema;
            let entry = entry.clone();
            turn.remember(LedgerChange::Entry { service: self.name.clone(), entry });
        }
    }
}
