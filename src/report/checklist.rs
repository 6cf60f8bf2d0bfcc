//! The checklist that runbooks put after a rollback: ticked where Backstop itself did or proved the point, or where a person
//! ticked it; and otherwise a reminder with an owner and the date that the runbooks name.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Told, moment, redact};
use crate::core::Timestamp;
use crate::core::announcement::AnnouncementKind;
use crate::core::decision::{Reason, percent_of};
use crate::core::ledger::{Proof, RollbackOutcome, RollbackRecord};
use crate::core::settings::Condition;
use crate::core::time::human;

const HOUR: u64 = 3600;
/// "Immediate (0-30 min): verify, confirm, notify stakeholders".
const AT_ONCE: Duration = Duration::from_secs(HOUR / 2);
/// "Short-term (1-4 hours): root cause analysis started, incident ticket created".
const SOON: (Duration, Duration) = (Duration::from_secs(HOUR), Duration::from_secs(4 * HOUR));
/// "RCA will be conducted within 24 hours".
const A_DAY: Duration = Duration::from_secs(24 * HOUR);
/// "Schedule post-mortem within 24-48 hours"; "long-term (24-48 hours): fix developed and tested, re-deployment plan".
const NEXT_DAY: (Duration, Duration) = (A_DAY, Duration::from_secs(48 * HOUR));
/// "Follow-up (< 1 week): implement preventive measures".
const A_WEEK: Duration = Duration::from_secs(7 * 24 * HOUR);
/// "Verify rollback time is under 10 minutes"; "the rollback itself is five minutes".
const BUDGET: Duration = Duration::from_secs(10 * 60);

/// A point of the checklist, by what it is about. Its name is what people type, and what is kept of a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Point {
    /// That there was something wrong.
    Confirmed,
    /// Whom it hit.
    Impact,
    /// Where to go back to.
    Target,
    /// That the team was told.
    Notified,
    /// That it was done.
    Executed,
    /// How long it took.
    InTime,
    /// That health checks pass.
    Healthy,
    /// That the signals are as they were.
    BackToNormal,
    /// That the team was told of the end.
    Resolution,
    /// The rollback log.
    Logged,
    /// The report.
    Report,
    /// That a person tried it.
    SmokeTests,
    /// The ticket.
    Ticket,
    /// Who else has to know.
    Stakeholders,
    /// Why it happened.
    RootCause,
    /// What mends it.
    Fix,
    /// How that is deployed.
    DeploymentPlan,
    /// The post-mortem.
    PostMortem,
    /// What keeps it from happening again.
    Prevention,
    /// What others can learn from it.
    Lessons,
}

impl Point {
    /// All of them, in the order of the checklist.
    pub const ALL: &[Self] = &[
        Self::Confirmed,
        Self::Impact,
        Self::Target,
        Self::Notified,
        Self::Executed,
        Self::InTime,
        Self::Healthy,
        Self::BackToNormal,
        Self::Resolution,
        Self::Logged,
        Self::Report,
        Self::SmokeTests,
        Self::Ticket,
        Self::Stakeholders,
        Self::RootCause,
        Self::Fix,
        Self::DeploymentPlan,
        Self::PostMortem,
        Self::Prevention,
        Self::Lessons,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Impact => "impact",
            Self::Target => "target",
            Self::Notified => "notified",
            Self::Executed => "executed",
            Self::InTime => "in_time",
            Self::Healthy => "healthy",
            Self::BackToNormal => "back_to_normal",
            Self::Resolution => "resolution",
            Self::Logged => "logged",
            Self::Report => "report",
            Self::SmokeTests => "smoke_tests",
            Self::Ticket => "ticket",
            Self::Stakeholders => "stakeholders",
            Self::RootCause => "root_cause",
            Self::Fix => "fix",
            Self::DeploymentPlan => "deployment_plan",
            Self::PostMortem => "post_mortem",
            Self::Prevention => "prevention",
            Self::Lessons => "lessons",
        }
    }

    /// The one of this name, as people type it.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.trim().to_ascii_lowercase().replace('-', "_");
        Self::ALL.iter().copied().find(|point| point.name() == name)
    }

    /// In the runbooks' words.
    const fn words(self) -> &'static str {
        match self {
            Self::Confirmed => "Issue confirmed (health checks, error rates, user reports)",
            Self::Impact => "Scope of impact determined (all users or some of them)",
            Self::Target => "Previous stable version identified, and that it was deployed before",
            Self::Notified => "Team notified",
            Self::Executed => "Rollback executed",
            Self::InTime => "Rollback took less than 10 minutes",
            Self::Healthy => "Health checks passing after the rollback",
            Self::BackToNormal => "Error rates and response times back to normal",
            Self::Resolution => "Resolution announced",
            Self::Logged => "Rollback documented in the log",
            Self::Report => "Incident report created",
            Self::SmokeTests => "Smoke tests and login flow confirmed",
            Self::Ticket => "Incident ticket created, with this report",
            Self::Stakeholders => "Stakeholders informed",
            Self::RootCause => "Root cause found",
            Self::Fix => "Fix developed, with a test that fails without it",
            Self::DeploymentPlan => "Deployment of the fix planned",
            Self::PostMortem => "Post-mortem held",
            Self::Prevention => "Preventive measures decided; runbooks and deployment checklist updated",
            Self::Lessons => "Missed warning signs reviewed, lessons learned shared with the team",
        }
    }

    /// Whose it is.
    fn owner(self, owners: &Owners) -> &str {
        match self {
            Self::Confirmed
            | Self::Impact
            | Self::Target
            | Self::Notified
            | Self::Executed
            | Self::Healthy
            | Self::BackToNormal
            | Self::Resolution
            | Self::Logged
            | Self::Report
            | Self::SmokeTests
            | Self::Ticket
            | Self::Stakeholders => &owners.incident,
            Self::RootCause => &owners.cause,
            Self::Fix | Self::DeploymentPlan => &owners.fix,
            Self::InTime | Self::PostMortem | Self::Prevention | Self::Lessons => &owners.review,
        }
    }

    /// Not before, and not later than so long after the rollback.
    const fn due(self) -> (Option<Duration>, Duration) {
        match self {
            Self::Confirmed
            | Self::Impact
            | Self::Target
            | Self::Notified
            | Self::Executed
            | Self::Healthy
            | Self::BackToNormal
            | Self::Resolution
            | Self::Logged
            | Self::Report
            | Self::SmokeTests
            | Self::Stakeholders => (None, AT_ONCE),
            Self::Ticket => (None, SOON.1),
            Self::RootCause => (Some(SOON.0), A_DAY),
            Self::Fix | Self::DeploymentPlan => (None, NEXT_DAY.1),
            Self::PostMortem => (Some(NEXT_DAY.0), NEXT_DAY.1),
            Self::InTime | Self::Prevention | Self::Lessons => (None, A_WEEK),
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

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

/// What a person ticked off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tick {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: String,
    /// What they noted; may be empty.
    pub note: String,
}

/// The ticket of a rollback, as far as Backstop opens one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Where it is, once it is open.
    pub url: Option<String>,
    /// How often it was tried to open it.
    pub attempts: u32,
    /// What went wrong last.
    pub error: Option<String>,
}

/// One item of the checklist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Which.
    pub id: Point,
    /// What, in the runbooks' words.
    pub what: String,
    /// Whether Backstop did it or proved it, or a person ticked it.
    pub done: bool,
    /// By what it is done; empty if it is not.
    pub proof: String,
    /// Whose it is, if it is not done.
    pub owner: Option<String>,
    /// Not before then.
    pub from: Option<Timestamp>,
    /// By then.
    pub until: Option<Timestamp>,
    /// What people ticked off, oldest first.
    pub ticks: Vec<Tick>,
}

impl Item {
    /// Whether it is for people to tick, or to take a tick back: Backstop did not do it itself.
    pub fn is_for_people(&self) -> bool {
        !self.done || !self.ticks.is_empty()
    }

    /// Whether it is open, and should not be any more.
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        !self.done && self.until.is_some_and(|until| until <= now)
    }
}

/// The checklist of a rollback: `ticks` are what people ticked off, oldest first.
pub fn of(
    record: &RollbackRecord,
    (told, smoke): (&[Told], Option<String>),
    owners: &Owners,
    ticks: &[(Point, Tick)],
    ticket: Option<&Ticket>,
) -> Vec<Item> {
    let proofs = Proofs { record, told, smoke, ticket };
    let at = record.ended.or(record.applied).unwrap_or(record.started);
    let item = |point: &Point| {
        let own: Vec<Tick> =
            ticks.iter().filter(|(of, _)| of == point).map(|(_, tick)| tick.clone()).collect();
        let proof = proofs.of(*point);
        // What Backstop proved needs nobody's word.
        let own = if proof.is_some() { Vec::new() } else { own };
        let proof = proof.or_else(|| said(&own)).unwrap_or_default();
        let done = !proof.is_empty();
        let (from, until) = point.due();
        Item {
            id: *point,
            what: point.words().to_owned(),
            done,
            proof,
            owner: (!done).then(|| point.owner(owners).to_owned()),
            from: from.filter(|_| !done).map(|from| at + from),
            until: (!done).then(|| at + until),
            ticks: own,
        }
    };
    Point::ALL.iter().map(item).collect()
}

/// What people say of an item: `ticked by anna on 2026-11-29 14:02:15 UTC: a pool of 4; ben: indeed`.
fn said(ticks: &[Tick]) -> Option<String> {
    let first = ticks.first()?;
    let mut said = format!("ticked by {} on {}", first.by, moment(first.at));
    for (tick, before) in ticks
        .iter()
        .zip([": ".to_owned()].into_iter().chain(ticks[1..].iter().map(|tick| format!("; {}: ", tick.by))))
    {
        if !tick.note.is_empty() {
            said.push_str(&before);
            said.push_str(&tick.note);
        }
    }
    Some(redact::line(&said, &[]))
}

/// What Backstop itself knows.
struct Proofs<'a> {
    record: &'a RollbackRecord,
    told: &'a [Told],
    smoke: Option<String>,
    ticket: Option<&'a Ticket>,
}

impl Proofs<'_> {
    /// By what a point is done without anybody's word.
    fn of(&self, point: Point) -> Option<String> {
        let record = self.record;
        let ran = record.applied.map(|applied| applied.since(record.started));
        match point {
            Point::Confirmed => Some(record.decision.reason.to_string()),
            Point::Impact => impact(&record.decision.reason),
            Point::Target => Some(record.to.to_string()),
            Point::Notified => self.heard(AnnouncementKind::RollbackInProgress),
            Point::Executed => ran.map(|ran| format!("in {}", human(ran))),
            Point::InTime => ran.filter(|ran| *ran < BUDGET).map(|ran| human(ran).to_string()),
            Point::Healthy => self.proved().and_then(healthy),
            Point::BackToNormal => self.proved().and_then(normal),
            Point::Resolution => self.heard(AnnouncementKind::RollbackComplete),
            Point::Logged => Some(format!("backstop history --rollback {}", record.id)),
            Point::Report => Some("this page".into()),
            Point::Ticket => self.ticket.and_then(|ticket| ticket.url.clone()),
            Point::SmokeTests => self.smoke.clone(),
            Point::Stakeholders
            | Point::RootCause
            | Point::Fix
            | Point::DeploymentPlan
            | Point::PostMortem
            | Point::Prevention
            | Point::Lessons => None,
        }
    }

    /// What its proof rests on, if it is verified.
    fn proved(&self) -> Option<&Proof> {
        let record = self.record;
        record.proof.as_ref().filter(|_| matches!(record.outcome, RollbackOutcome::Verified(_)))
    }

    fn heard(&self, kind: AnnouncementKind) -> Option<String> {
        let found = self.told.iter().find(|told| told.kind == kind.name() && told.delivered.is_some())?;
        let took = found.channels.iter().filter(|one| one.delivered.is_some());
        let took: Vec<&str> = took.map(|one| one.channel.as_str()).collect();
        Some(format!("\"{}\" was delivered to {}", found.title, took.join(", ")))
    }
}

/// How much of the traffic it hit; none if nobody counted it.
fn impact(reason: &Reason) -> Option<String> {
    let Reason::Requests { bad, total, window, .. } = reason else { return None };
    let share = percent_of(*bad as f64 / (*total).max(1) as f64);
    Some(format!("{bad} of {total} requests ({share}) in the {} before the decision", human(*window)))
}

/// By which checks the target is healthy; none if nobody asked it.
fn healthy(proof: &Proof) -> Option<String> {
    let said = [
        (proof.checks > 0).then(|| format!("{} health checks in a row passed", proof.checks)),
        (proof.healthy > 0).then(|| format!("the HEALTHCHECK of {} containers is healthy", proof.healthy)),
    ];
    let said: Vec<String> = said.into_iter().flatten().collect();
    (!said.is_empty()).then(|| said.join("; "))
}

/// By which rows both errors and response times are as they should be; none if nothing was measured of one of them.
fn normal(proof: &Proof) -> Option<String> {
    let of = |condition: Condition| proof.requests.iter().find(|row| row.condition == condition);
    let rows = [of(Condition::ErrorRate)?, of(Condition::Latency)?];
    let said = rows.map(|row| format!("{} ok, by {} requests or checks", row.rule, row.samples));
    Some(said.join("; "))
}

/// Whether a rollback leaves paperwork to people: it happened, it is over, and no other one took its place at once, as the
/// next older release does when one does not pass. `all` are the rollbacks around it.
pub fn is_owed(record: &RollbackRecord, all: &[RollbackRecord]) -> bool {
    // A drill leaves nothing to do.
    if matches!(record.decision.reason, Reason::Drill { .. }) {
        return false;
    }
    let happened = match &record.outcome {
        RollbackOutcome::Verified(_)
        | RollbackOutcome::NotVerified(_)
        | RollbackOutcome::Superseded(_)
        | RollbackOutcome::Stuck(_) => true,
        RollbackOutcome::Executing
        | RollbackOutcome::Verifying
        | RollbackOutcome::Unwound(_)
        | RollbackOutcome::Void(_) => false,
    };
    let went_on = |other: &RollbackRecord| {
        other.service == record.service && other.id != record.id && Some(other.started) == record.ended
    };
    happened && !(matches!(record.outcome, RollbackOutcome::NotVerified(_)) && all.iter().any(went_on))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_has_a_name_of_its_own_that_people_can_type() {
        for point in Point::ALL {
            assert_eq!(Point::named(point.name()), Some(*point));
            assert_eq!(serde_json::to_value(point).unwrap(), point.name());
        }
        assert_eq!(Point::named(" Root-Cause "), Some(Point::RootCause));
        assert_eq!(Point::named("coffee"), None);
        let unknown = serde_json::from_str::<Point>("\"?\"").unwrap_err().to_string();
        assert_eq!(
            unknown.matches('`').count() / 2,
            Point::ALL.len() + 1,
            "one is not in the list: {unknown}"
        );
    }

    #[test]
    fn what_several_people_say_of_an_item_is_one_sentence() {
        let tick = |by: &str, note: &str| Tick {
            at: Timestamp::from_secs(1_893_456_000),
            by: by.into(),
            note: note.into(),
        };
        assert_eq!(said(&[]), None);
        let alone = said(&[tick("anna", "")]).unwrap();
        assert_eq!(alone, "ticked by anna on 2030-01-01 00:00:00 UTC");
        let both = said(&[tick("anna", "a pool of 4"), tick("ben", "password=hunter2")]).unwrap();
        assert_eq!(both, "ticked by anna on 2030-01-01 00:00:00 UTC: a pool of 4; ben: password=[hidden]");
    }
}
