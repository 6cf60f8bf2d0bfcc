//! `POST /hooks/alertmanager`: alerts of somebody else's monitoring, as Alertmanager's webhooks bring them (version 4).
//!
//! Whatever else knows that a service is unwell comes in through here too: Grafana sends the same format, and
//! CloudWatch's alarms reach an Alertmanager by any of the forwarders from SNS, or by an exporter and a rule on its
//! metrics. What matters is that the alert carries a label that names the service.
//!
//! An alert that fits no service is no error: Alertmanager would send it again for ever. It is counted, answered and
//! logged, with the labels that would have fitted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{MutexGuard, PoisonError};

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;

use super::error::{ApiError, nearest};
use super::views::{AlertsView, UnmatchedAlertView};
use super::{Intake, not_taken};
use crate::core::Input;
use crate::core::sample::{Measurement, Signal};
use crate::core::snapshot::{FleetSnapshot, ServiceSnapshot};
use crate::metrics::AlertOutcome;
use crate::signal::alerts::{self, Alert, Notification, Status};
use crate::signal::texts::{one_line, shortened};

/// Largest notification. An alert is about a kilobyte, with long annotations a few.
pub(super) const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Most alerts taken from one notification: a group of more than that is not about one service any more.
const ALERTS_MAX: usize = 256;

/// Alerts without a service that are remembered as logged. When there are more, each may be logged once more.
const TOLD_MAX: usize = 1024;

/// The label that names a service and nothing else: if it is there, no other one is asked.
const LABEL: &str = "backstop_service";

/// Labels that may name a service, in the order in which they are asked: what people use, then what cAdvisor and
/// Prometheus' Docker discovery call it.
const LABELS: [&str; 6] = ["service", "container", "container_name", COMPOSE_SERVICE, "job", "name"];

/// Compose's name for the service, as Prometheus' relabelling leaves it.
const COMPOSE_SERVICE: &str = "com_docker_compose_service";

/// Compose's name for the project, likewise.
const COMPOSE_PROJECT: &str = "com_docker_compose_project";

/// What cAdvisor puts before the labels of containers.
const CADVISOR: &str = "container_label_";

pub(super) async fn alertmanager(
    State(intake): State<Intake>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<AlertsView>, ApiError> {
    let metrics = &intake.api.metrics;
    let notification = parse(body).inspect_err(|error| {
        metrics.notification_malformed();
        tracing::warn!("a notification of alerts was not understood: {}", error.error);
    })?;
    let fleet = intake.api.fleet();
    let left_out = notification.alerts.len().saturating_sub(ALERTS_MAX);
    let mut view = AlertsView { left_out, truncated: notification.truncated, ..AlertsView::default() };
    let (mut inputs, mut services) = (Vec::new(), BTreeSet::new());
    for alert in notification.alerts.iter().take(ALERTS_MAX) {
        let matched = matching(&fleet, &alert.labels);
        if matched.is_empty() {
            view.unmatched.push(unmatched(alert, &fleet));
            continue;
        }
        view.accepted += 1;
        for (service, keys) in matched {
            services.insert(service.name.to_string());
            inputs.push(sample(alert, service, &keys));
        }
    }
    if !inputs.is_empty() {
        intake.api.operate.sampled(inputs).map_err(|why| {
            metrics.alerts(AlertOutcome::Refused, view.accepted);
            not_taken(why)
        })?;
    }
    metrics.alerts(AlertOutcome::Matched, view.accepted);
    metrics.alerts(AlertOutcome::Unmatched, view.unmatched.len());
    metrics.alerts(AlertOutcome::LeftOut, left_out);
    view.services = services.into_iter().collect();
    tell(&intake, &notification.receiver, &view);
    Ok(Json(view))
}

fn parse(body: Result<Bytes, BytesRejection>) -> Result<Notification, ApiError> {
    let body = body.map_err(|rejection| ApiError::new(rejection.status(), rejection.body_text()))?;
    alerts::parse(&body).map_err(|what| {
        let what = format!("this is no notification of Alertmanager: {what}");
        ApiError::new(StatusCode::BAD_REQUEST, what).next(
            "point the `url` of a `webhook_configs` entry of Alertmanager here; its format is version 4",
        )
    })
}

/// The services that an alert is about, each with the labels that said so.
fn matching<'a>(
    fleet: &'a FleetSnapshot,
    labels: &BTreeMap<String, String>,
) -> Vec<(&'a ServiceSnapshot, Vec<String>)> {
    let told = fleet.services.iter().filter_map(|service| {
        let wanted = &service.settings.alert_labels;
        let all = !wanted.is_empty() && wanted.iter().all(|(key, value)| labels.get(key) == Some(value));
        all.then(|| (service, wanted.iter().map(|(key, _)| key.clone()).collect()))
    });
    let mut found: Vec<_> = told.collect();
    found.extend(named(fleet, labels).map(|(service, key)| (service, vec![key])));
    found
}

/// The service that one of an alert's labels names. Services with `alert_labels` are found by those alone.
fn named<'a>(
    fleet: &'a FleetSnapshot,
    labels: &BTreeMap<String, String>,
) -> Option<(&'a ServiceSnapshot, String)> {
    let candidates = || fleet.services.iter().filter(|service| service.settings.alert_labels.is_empty());
    let called = |name: &str| candidates().find(|service| service.name.as_str() == name);
    if let Some(name) = labels.get(LABEL) {
        return called(name).map(|service| (service, LABEL.to_owned()));
    }
    let is_replica =
        |service: &ServiceSnapshot, name: &str| service.replicas.iter().any(|replica| replica.name == name);
    names(labels).find_map(|(key, name)| {
        let compose = key.ends_with(COMPOSE_SERVICE);
        let found = if compose {
            let project = labels.get(&key.replace(COMPOSE_SERVICE, COMPOSE_PROJECT));
            project.and_then(|project| called(&format!("{project}-{name}"))).or_else(|| called(name))
        } else {
            called(name).or_else(|| candidates().find(|service| is_replica(service, name)))
        };
        found.map(|service| (service, key.to_owned()))
    })
}

/// The labels of an alert that may name a service, in the order in which they are asked.
fn names(labels: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    LABELS.iter().flat_map(move |label| {
        let cadvisor = format!("{CADVISOR}{label}");
        labels
            .iter()
            .filter(move |(key, _)| *key == label || **key == cadvisor)
            .map(|(key, value)| (key.as_str(), value.as_str()))
    })
}

fn sample(alert: &Alert, service: &ServiceSnapshot, keys: &[String]) -> Input {
    Input::Sampled {
        service: service.name.clone(),
        replica: None,
        signal: Signal::Alerts,
        name: alert.name(keys),
        measurement: Measurement::Alert {
            firing: alert.status == Status::Firing,
            began: alert.began(),
            summary: alert.summary(),
        },
    }
}

fn unmatched(alert: &Alert, fleet: &FleetSnapshot) -> UnmatchedAlertView {
    let labels = &alert.labels;
    let tried: Vec<(&str, &str)> = match labels.get_key_value(LABEL) {
        Some((key, value)) => vec![(key, value)],
        None => names(labels).collect(),
    };
    let said: Vec<String> =
        tried.iter().map(|(key, value)| format!("{key}={:?}", shortened(&one_line(value), 64))).collect();
    let known: Vec<&str> = fleet.services.iter().map(|service| service.name.as_str()).collect();
    let near = tried.iter().find_map(|(_, value)| nearest(value, &known).first().copied());
    let why = match (said.is_empty(), near) {
        (true, _) => format!("it has no label that could name a service: {LABEL}, {}", LABELS.join(", ")),
        (false, None) => format!("no watched service is named by {}", said.join(", ")),
        (false, Some(near)) => {
            format!("no watched service is named by {}; is it `{near}`?", said.join(", "))
        }
    };
    UnmatchedAlertView { alert: alert.name(&[]), why }
}

/// Logs what was not taken: each alert without a service once by its name.
fn tell(intake: &Intake, receiver: &str, view: &AlertsView) {
    let mut told: MutexGuard<'_, BTreeSet<String>> =
        intake.told.lock().unwrap_or_else(PoisonError::into_inner);
    for unmatched in &view.unmatched {
        let name = unmatched.alert.split('{').next().unwrap_or_default();
        if told.contains(name) {
            continue;
        }
        if told.len() >= TOLD_MAX {
            told.clear();
        }
        told.insert(name.to_owned());
        tracing::warn!(
            alert = unmatched.alert,
            "an alert belongs to no watched service, which is said once: {}; give it the label `{LABEL}`, or the \
             service `alert_labels`",
            unmatched.why
        );
    }
    let missing = view.left_out as u64 + view.truncated;
    if missing > 0 {
        let receiver = shortened(&one_line(receiver), 64);
        tracing::warn!(
            receiver,
            missing,
            "a notification had more alerts than are taken from one ({ALERTS_MAX}, or the sender's `max_alerts`); \
             group them by service in Alertmanager: `group_by: [service]`"
        );
    }
}
