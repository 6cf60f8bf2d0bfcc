//! `POST /api/v1/services/NAME/reports`: a user reports a problem. So many different people in a while are a row of the
//! matrix; one person is one, however often.

use std::net::IpAddr;
use std::sync::PoisonError;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::StatusCode;
use serde_json::Value;

use super::auth::network;
use super::body::{object, text};
use super::error::ApiError;
use super::limit::{Buckets, whole_seconds};
use super::listener::Peer;
use super::render::seconds;
use super::views::{ReportRequestBody, ReportView};
use super::{Intake, find, not_taken};
use crate::core::release::ServiceName;
use crate::core::sample::{self, Measurement, Signal};
use crate::core::settings::{Condition, Rule};
use crate::core::snapshot::{FleetSnapshot, RowAnswer, RowSnapshot, ServiceSnapshot};
use crate::core::time::human;
use crate::core::{Input, Timestamp};
use crate::metrics::ReportOutcome;

/// Largest body: the longest text, each character of it escaped.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;

/// Longest name of a reporter: an address of mail has fewer characters.
const REPORTER_CHARS_MAX: usize = 128;

/// Longest report: it is read in a chat.
const TEXT_CHARS_MAX: usize = 2000;

/// Reports from one address, at once and one more after each second. All users may come through one proxy or form.
const PER_ADDRESS: (u32, Duration) = (60, Duration::from_secs(1));

/// Reports by one reporter: they count once, so more of them tell nothing new.
const PER_REPORTER: (u32, Duration) = (5, Duration::from_secs(60));

/// Reports about one service: an outage that everybody notices is known after a few.
const PER_SERVICE: (u32, Duration) = (120, Duration::from_millis(500));

/// Addresses, reporters and services that are remembered, each.
const KEYS_MAX: usize = 1024;

/// The core takes a report in within milliseconds and publishes its picture every 200 ms; a daemon that is busy must
/// not keep the reporter waiting.
const COUNTED_WITHIN: Duration = Duration::from_secs(1);

/// How often reports are taken.
#[derive(Debug)]
pub(super) struct Limits {
    addresses: Buckets<IpAddr>,
    reporters: Buckets<String>,
    services: Buckets<ServiceName>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            addresses: Buckets::new(PER_ADDRESS.0, PER_ADDRESS.1, KEYS_MAX),
            reporters: Buckets::new(PER_REPORTER.0, PER_REPORTER.1, KEYS_MAX),
            services: Buckets::new(PER_SERVICE.0, PER_SERVICE.1, KEYS_MAX),
        }
    }
}

impl Limits {
    /// Takes one from all three buckets, or from none.
    fn take(
        &mut self,
        (address, reporter, service): (IpAddr, &String, &ServiceName),
        now: Timestamp,
    ) -> Result<(), (&'static str, Duration)> {
        let waits = [
            ("from this address", self.addresses.wait(&address, now)),
            ("by this reporter", self.reporters.wait(reporter, now)),
            ("about this service", self.services.wait(service, now)),
        ];
        let longest = waits.into_iter().max_by_key(|(_, wait)| *wait).filter(|(_, wait)| !wait.is_zero());
        if let Some((whose, wait)) = longest {
            return Err((whose, wait));
        }
        // Each was just found to have room.
        let _ = self.addresses.take(&address, now);
        let _ = self.reporters.take(reporter, now);
        let _ = self.services.take(service, now);
        Ok(())
    }
}

pub(super) async fn report(
    State(intake): State<Intake>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(name): Path<String>,
    body: Result<Json<Value>, JsonRejection>,
) -> Result<(StatusCode, Json<ReportView>), ApiError> {
    let metrics = &intake.api.metrics;
    let fleet = intake.api.fleet();
    let refused = |outcome| {
        move |error: ApiError| {
            metrics.report(outcome);
            error
        }
    };
    let service = find(&fleet, &name).map_err(refused(ReportOutcome::Invalid))?;
    let (reporter, text) = read(body).map_err(refused(ReportOutcome::Invalid))?;
    let by = (network(peer.0.ip()), &reporter, &service.name);
    let taken = intake.limits.lock().unwrap_or_else(PoisonError::into_inner).take(by, intake.api.clock.now());
    taken.map_err(|(whose, wait)| too_many(whose, wait)).map_err(refused(ReportOutcome::Limited))?;
    tracing::info!(service = %service.name, reporter, text, "a user reported a problem");
    let input = Input::Sampled {
        service: service.name.clone(),
        replica: None,
        signal: Signal::Reports,
        name: String::new(),
        measurement: Measurement::Report { reporter: reporter.clone(), text },
    };
    intake.api.operate.sampled(vec![input]).map_err(not_taken).map_err(refused(ReportOutcome::Busy))?;
    metrics.report(ReportOutcome::Accepted);
    Ok((StatusCode::ACCEPTED, Json(answer(&intake, service, reporter).await)))
}

/// The reporter, always written the same way, and what they say.
fn read(body: Result<Json<Value>, JsonRejection>) -> Result<(String, String), ApiError> {
    let body: ReportRequestBody = object(body)?;
    let reporter = text("reporter", Some(body.reporter), REPORTER_CHARS_MAX)?;
    let reporter = sample::reporter(&reporter);
    if reporter.is_empty() {
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "`reporter` is empty")
            .next("send who noticed it, as in `{\"reporter\": \"alice@example.com\", \"text\": \"checkout fails\"}`"));
    }
    Ok((reporter, text("text", body.text, TEXT_CHARS_MAX)?))
}

fn too_many(whose: &str, wait: Duration) -> ApiError {
    let seconds = whole_seconds(wait);
    let mut error =
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, format!("there were too many reports {whose}"))
            .next(format!("those before it were counted; wait {seconds} s before the next one"));
    error.retry_after = Some(seconds);
    error
}

/// What became of a report, as soon as the picture shows it.
async fn answer(intake: &Intake, service: &ServiceSnapshot, reporter: String) -> ReportView {
    let before = taken_in(service);
    let mut pictures = intake.api.snapshot.clone();
    let counted = pictures.wait_for(|fleet| same(fleet, service).is_some_and(|s| taken_in(s) > before));
    let counted = match tokio::time::timeout(COUNTED_WITHIN, counted).await {
        Ok(Ok(fleet)) => same(&fleet, service).and_then(row).map(|(row, rule)| (row.clone(), rule.clone())),
        Ok(Err(_)) | Err(_) => None,
    };
    let said = |answer: String| ReportView {
        service: service.name.to_string(),
        reporter: reporter.clone(),
        answer,
        counted: None,
        needed: None,
        within_seconds: None,
    };
    match counted {
        Some((row, rule)) => ReportView {
            counted: Some(row.samples),
            needed: Some(rule.threshold),
            within_seconds: Some(seconds(rule.within)),
            ..said(format!(
                "counted: {} of {} reporters within {}",
                row.samples,
                rule.threshold,
                human(rule.within)
            ))
        },
        None if row(service).is_none() => {
            said("recorded; no row of the matrix judges this service by reports".to_owned())
        }
        None => said(format!("taken; `backstop explain {}` shows when it is counted", service.name)),
    }
}

fn same<'a>(fleet: &'a FleetSnapshot, service: &ServiceSnapshot) -> Option<&'a ServiceSnapshot> {
    fleet.services.iter().find(|other| other.name == service.name)
}

/// How many reports about a service the core has taken in.
fn taken_in(service: &ServiceSnapshot) -> u64 {
    let reports = service.samples.iter().filter(|(signal, _)| *signal == Signal::Reports);
    reports.map(|(_, counts)| counts.healthy + counts.unhealthy).sum()
}

/// The row that judges reports, unless it is switched off.
fn row(service: &ServiceSnapshot) -> Option<(&RowSnapshot, &Rule)> {
    let rules = service.settings.rules.iter().filter(|rule| rule.condition == Condition::UserReports);
    let rows = rules.filter_map(|rule| Some((service.rows.iter().find(|row| row.rule == rule.name)?, rule)));
    rows.into_iter().find(|(row, _)| row.answer != RowAnswer::Off)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(1_000_000 + seconds)
    }

    #[test]
    fn each_limit_holds_by_itself_and_what_is_refused_costs_nothing() {
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        let (alice, bob) = ("alice".to_owned(), "bob".to_owned());
        let (shop, web) = (ServiceName::new("shop"), ServiceName::new("web"));
        let mut limits = Limits::default();
        for _ in 0..PER_REPORTER.0 {
            limits.take((address(1), &alice, &shop), at(0)).unwrap();
        }
        for _ in 0..1000 {
            let (whose, wait) = limits.take((address(1), &alice, &web), at(0)).unwrap_err();
            assert_eq!((whose, wait), ("by this reporter", PER_REPORTER.1));
        }
        for n in 0..PER_ADDRESS.0 - PER_REPORTER.0 {
            limits.take((address(1), &format!("user {n}"), &shop), at(0)).unwrap();
        }
        assert_eq!(limits.take((address(1), &bob, &shop), at(0)).unwrap_err().0, "from this address");
        let mut refused = None;
        for n in 0..PER_SERVICE.0 {
            let by = format!("other {n}");
            refused = limits.take((address(2 + (n / 50) as u8), &by, &shop), at(0)).err().or(refused);
        }
        assert_eq!(refused.unwrap().0, "about this service");
        limits.take((address(9), &bob, &web), at(0)).unwrap();
        limits.take((address(1), &alice, &shop), at(60)).unwrap();
    }
}
