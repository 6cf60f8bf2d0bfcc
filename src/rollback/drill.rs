//! Drills: whether a rollback would work, found out without touching what serves.
//!
//! What is tried is what a rollback does first: find the target, have its image, make the plan, create the replacement and
//! remove it again. What cannot be tried without an outage (stopping, starting) is what Docker does all day.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Executor;
use crate::core::availability::Availability;
use crate::core::plan::{Plan, Step};
use crate::core::release::{ImageId, Release, ReleaseId, ServiceName};
use crate::core::time::human;
use crate::core::{RollbackRequest, Timestamp};
use crate::runtime::Runtime;

/// The runbooks' budgets: "Execute rollback (5 minutes)" ...
pub const EXECUTED_WITHIN: Duration = Duration::from_secs(5 * 60);
/// ... and "rollback time is under 10 minutes", with all that belongs to it.
pub const PROVED_WITHIN: Duration = Duration::from_secs(10 * 60);

/// What a start takes where nothing is known of it: a container's start is a fraction of a second, and what it serves comes
/// a little later.
const START: Duration = Duration::from_secs(2);

/// What a drill found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drill {
    /// Of which service.
    pub service: ServiceName,
    /// When.
    pub at: Timestamp,
    /// What was looked at, in order.
    pub points: Vec<Point>,
    /// From the decision until the target is started, as far as can be told beforehand.
    pub estimate: Option<Duration>,
}

/// One thing that a drill looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// What.
    pub what: String,
    /// How it is.
    pub verdict: Readiness,
    /// What there is to say about it, with what to do where something is missing.
    pub detail: String,
}

/// How one thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// As it has to be.
    Ready,
    /// A rollback would go, and something would be missed.
    Weak,
    /// There would be no rollback, or nobody would hear of it.
    Missing,
}

impl Readiness {
    /// The name used in the API and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Weak => "weak",
            Self::Missing => "missing",
        }
    }
}

impl Point {
    /// Something that was looked at.
    pub fn new(what: &str, verdict: Readiness, detail: impl Into<String>) -> Self {
        Self { what: what.to_owned(), verdict, detail: detail.into() }
    }

    /// Ready, or missing with the reason.
    pub fn of(what: &str, found: Result<String, String>) -> Self {
        match found {
            Ok(detail) => Self::new(what, Readiness::Ready, detail),
            Err(why) => Self::new(what, Readiness::Missing, why),
        }
    }
}

impl fmt::Display for Point {
    /// `the target: no other known-good release ...`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.detail)
    }
}

impl Drill {
    /// How ready it is, from 0 to 1: what is weak counts half. Nothing where something is missing without which there is no
    /// rollback at all would be honest, and would hide how far it is; so it is the share.
    pub fn score(&self) -> f64 {
        let worth = self.points.iter().map(|point| match point.verdict {
            Readiness::Ready => 1.0,
            Readiness::Weak => 0.5,
            Readiness::Missing => 0.0,
        });
        let count = u32::try_from(self.points.len()).unwrap_or(u32::MAX);
        if count == 0 { 0.0 } else { worth.sum::<f64>() / f64::from(count) }
    }

    /// Whether nothing is missing.
    pub fn is_ready(&self) -> bool {
        self.missing().next().is_none()
    }

    /// What is missing.
    pub fn missing(&self) -> impl Iterator<Item = &Point> {
        self.points.iter().filter(|point| point.verdict == Readiness::Missing)
    }
}

impl Executor {
    /// Tries everything of a rollback that touches nothing that serves. Gives what was found, and the time that a rollback
    /// would take.
    pub async fn rehearse(&self, request: &RollbackRequest) -> (Vec<Point>, Option<Duration>) {
        let runtime = self.runtime();
        let image = match runtime.availability(&request.service, &request.to, true).await {
            Availability::Here => Ok(format!("the image of {} is on the engine", request.to)),
            Availability::Registry => Ok(format!("the image of {} is in its registry", request.to)),
            Availability::Missing { why } | Availability::Gone { why } | Availability::Unknown { why } => {
                Err(why)
            }
        };
        let here = image.is_ok();
        let mut points = vec![Point::of("the target's image", image)];
        let plan = match self.preview(request).await {
            Ok(plan) => plan,
            Err(e) => {
                points.push(Point::of("the plan", Err(e.message)));
                return (points, None);
            }
        };
        points.push(match plan.notes.as_slice() {
            [] => Point::new(
                "the plan",
                Readiness::Ready,
                format!("{} steps, and nothing is lost", plan.steps.len()),
            ),
            notes => Point::new("the plan", Readiness::Weak, notes.join("; ")),
        });
        if here {
            let created = self.try_out(request).await;
            points.push(Point::of("the replacement", created.map(|()| trial(&plan))));
        }
        let estimate = estimate(&plan, request);
        points.push(if estimate <= EXECUTED_WITHIN {
            Point::new(
                "the time",
                Readiness::Ready,
                format!("about {} until the target is started", human(estimate)),
            )
        } else {
            let detail = format!(
                "about {} until the target is started; the budget is {}: a shorter stop timeout would help",
                human(estimate),
                human(EXECUTED_WITHIN)
            );
            Point::new("the time", Readiness::Weak, detail)
        });
        (points, Some(estimate))
    }

    /// Whether the engine of a service has an image. What is run once is not fetched: nobody waits for a registry in the middle
    /// of a rollback.
    ///
    /// # Errors
    /// It has not, or does not say; with what to do.
    pub async fn has_image(&self, service: &ServiceName, image: &str) -> Result<(), String> {
        let release = Release {
            id: ReleaseId::new(image),
            image: ImageId::new(image),
            reference: image.to_owned(),
            digests: Vec::new(),
            fingerprint: String::new(),
            version: None,
        };
        match self.runtime().availability(service, &release, false).await {
            Availability::Here => Ok(()),
            Availability::Unknown { why } => {
                Err(format!("whether the image {image} is on the engine is not known: {why}"))
            }
            Availability::Registry | Availability::Missing { .. } | Availability::Gone { .. } => {
                Err(format!("the image {image} is not on the engine: `docker pull {image}`"))
            }
        }
    }

    fn runtime(&self) -> &dyn Runtime {
        self.inner().runtime.as_ref()
    }
}

/// What creating the replacement proved. Where it can only be created at the decision, only its specification was checked.
fn trial(plan: &Plan) -> String {
    if plan.steps.iter().any(|step| matches!(step, Step::CreateReplacement { .. })) {
        "it was created as it would be, and removed again".to_owned()
    } else {
        "what it needs is there; it is created at the decision only".to_owned()
    }
}

/// The waits of the plan: each stop as long as it may take at most, each start as long as starts take.
fn estimate(plan: &Plan, request: &RollbackRequest) -> Duration {
    let stops = plan.steps.iter().filter(|step| matches!(step, Step::StopOld { .. })).count();
    let starts = plan.steps.iter().filter(|step| matches!(step, Step::StartNew { .. })).count().max(1);
    let times = |span: Duration, n: usize| span.saturating_mul(u32::try_from(n).unwrap_or(u32::MAX));
    times(request.stop_grace, stops) + times(START, starts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_the_share_of_what_is_ready() {
        let drill = |verdicts: &[Readiness]| Drill {
            service: ServiceName::new("shop"),
            at: Timestamp::default(),
            points: verdicts.iter().map(|verdict| Point::new("x", *verdict, "")).collect(),
            estimate: None,
        };
        use Readiness::{Missing, Ready, Weak};
        assert!((drill(&[Ready, Ready]).score() - 1.0).abs() < 1e-9);
        assert!((drill(&[Ready, Weak, Missing, Missing]).score() - 0.375).abs() < 1e-9);
        assert!((drill(&[]).score()).abs() < 1e-9);
        assert!(drill(&[Ready, Weak]).is_ready() && !drill(&[Ready, Missing]).is_ready());
    }
}
