//! The checklist that runbooks put after a rollback: ticked where Backstop itself did or proved the point, and otherwise a
//! reminder with an owner and, where the runbooks name one, a date.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Told;
use crate::core::Timestamp;
use crate::core::announcement::AnnouncementKind;
use crate::core::ledger::{RollbackOutcome, RollbackRecord};
use crate::core::time::human;

/// "Schedule post-mortem within 24-48 hours".
const POST_MORTEM: (Duration, Duration) = (Duration::from_secs(24 * 3600), Duration::from_secs(48 * 3600));
/// "Verify rollback time is under 10 minutes"; "the rollback itself is five minutes".
const BUDGET: Duration = Duration::from_secs(10 * 60);

/// Who does what is left to people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owners {
    /// The ticket, and who else has to know.
    pub incident: String,
    /// Finding out why.
    pub cause: String,
    /// The fix, its test and its deployment.
    pub fix: String,
    /// The post-mortem and what follows from it.
    pub review: String,
}

impl Default for Owners {
    fn default() -> Self {
        Self {
            incident: "on-call".into(),
            cause: "service owner".into(),
            fix: "service owner".into(),
            review: "team lead".into(),
        }
    }
}

/// One point of the checklist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// What, in the runbooks' words.
    pub what: String,
    /// Whether Backstop did it, or proved it.
    pub done: bool,
    /// By what it is done; empty if it is not.
    pub proof: String,
    /// Whose it is, if it is not done.
    pub owner: Option<String>,
    /// Not before then.
    pub from: Option<Timestamp>,
    /// By then.
    pub until: Option<Timestamp>,
}

fn done(what: &str, proof: impl Into<String>) -> Item {
    Item { what: what.into(), done: true, proof: proof.into(), owner: None, from: None, until: None }
}

fn open(what: &str, owner: &str) -> Item {
    Item {
        what: what.into(),
        done: false,
        proof: String::new(),
        owner: Some(owner.into()),
        from: None,
        until: None,
    }
}

/// The checklist of a rollback.
pub fn of(record: &RollbackRecord, told: &[Told], owners: &Owners) -> Vec<Item> {
    let at = record.ended.or(record.applied).unwrap_or(record.started);
    let verified = matches!(record.outcome, RollbackOutcome::Verified(_));
    let heard = |kind: AnnouncementKind| {
        let found = told.iter().find(|told| told.kind == kind.name() && told.delivered.is_some());
        found.map(|told| format!("\"{}\" was delivered", told.title))
    };
    let either = |what: &str, proof: Option<String>, owner: &str| match proof {
        Some(proof) => done(what, proof),
        None => open(what, owner),
    };
    let ran = record.applied.map(|applied| applied.since(record.started));
    let cause = if verified { Some(record.outcome.detail().to_owned()) } else { None };
    let mut all = vec![
        done(
            "Issue confirmed (health checks, error rates, user reports)",
            record.decision.reason.to_string(),
        ),
        done("Previous stable version identified", record.to.to_string()),
        either("Team notified", heard(AnnouncementKind::RollbackInProgress), &owners.incident),
        either("Rollback executed", ran.map(|ran| format!("in {}", human(ran))), &owners.incident),
        either(
            "Rollback took less than 10 minutes",
            ran.filter(|ran| *ran < BUDGET).map(|ran| human(ran).to_string()),
            &owners.review,
        ),
        either("Health checks passing after the rollback", cause.clone(), &owners.incident),
        either("Error rates and response times back to normal", cause, &owners.incident),
        either("Resolution announced", heard(AnnouncementKind::RollbackComplete), &owners.incident),
        done("Rollback documented in the log", format!("backstop history --rollback {}", record.id)),
        done("Incident report created", "this page"),
        open("Smoke tests and login flow confirmed by a person", &owners.incident),
        open("Incident ticket created, with this report", &owners.incident),
        open("Stakeholders informed", &owners.incident),
        open("Root cause found", &owners.cause),
        open("Fix developed, with a test that fails without it", &owners.fix),
        open("Deployment of the fix planned", &owners.fix),
    ];
    all.push(Item {
        from: Some(at + POST_MORTEM.0),
        until: Some(at + POST_MORTEM.1),
        ..open("Post-mortem held", &owners.review)
    });
    all.push(open("Preventive measures decided; runbooks and deployment checklist updated", &owners.review));
    all
}
