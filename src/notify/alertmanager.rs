//! Alertmanager's API v2, which reaches whatever a team has there already. An alert is said again and again while its
//! matter is not over, as Prometheus does it, because Alertmanager takes silence for the end.

use std::time::Duration;

use serde_json::{Value, json};

use super::kinds::{self, Course};
use super::plan::{Channel, Secret};
use super::words;
use crate::core::Timestamp;
use crate::core::announcement::Announcement;
use crate::store::Matter;

/// How often an alert is said again. Prometheus does it each minute.
pub(super) const AGAIN: Duration = Duration::from_secs(60);
/// Unless said again, it ends after this: four times over, as Prometheus has it, so that one lost message ends nothing.
const HOLDS: Duration = Duration::from_secs(4 * 60);
/// What has no end of its own is over after this.
const NOTE_HOLDS: Duration = Duration::from_secs(15 * 60);
/// An annotation goes into mails and chats; more than this nobody reads there.
const TEXT_MAX: usize = 16 << 10;

/// The alert, with its end if it has one already; none where there is none to begin or to end.
pub(super) fn alert(a: &Announcement, channel: &Channel, matter: Option<&Matter>) -> Option<Value> {
    let (starts, ends) = match (kinds::course(a), matter) {
        (Course::Opens | Course::Escalates, Some(matter)) => (matter.opened, None),
        (Course::Closes, Some(matter)) => (matter.opened, Some(a.at)),
        (Course::Note, _) => (a.at, Some(a.at + NOTE_HOLDS)),
        (Course::Continues | Course::Acknowledges, _)
        | (Course::Opens | Course::Escalates | Course::Closes, None) => return None,
    };
    let service = a.service.as_ref().map_or("", |service| service.as_str());
    let note = kinds::course(a) == Course::Note;
    // By its labels an alert is known, so they stay as they were when the matter began.
    let severity = matter.filter(|_| !note).map_or_else(|| kinds::severity(a), |matter| matter.severity);
    let mut labels = json!({
        "alertname": if note { "BackstopNote" } else { "BackstopMatter" },
        "environment": a.environment,
        "severity": severity.to_string(),
    });
    if !service.is_empty() {
        labels["service"] = service.into();
    }
    if note {
        labels["kind"] = a.kind.name().into();
    }
    let mut alert = json!({
        "labels": labels,
        "annotations": {"summary": a.title, "description": words::text(a, channel, TEXT_MAX)?},
        "startsAt": words::rfc3339(starts),
    });
    if let Some(next) = &a.next {
        alert["annotations"]["next"] = next.as_str().into();
    }
    if let Some(ends) = ends {
        alert["endsAt"] = words::rfc3339(ends).into();
    }
    Some(alert)
}

/// The alert as it is sent at a time: what has no end yet ends unless it is said again.
pub(super) fn at(alert: &Value, now: Timestamp) -> Value {
    let mut alert = alert.clone();
    if alert.get("endsAt").is_none() {
        alert["endsAt"] = words::rfc3339(now + HOLDS).into();
    }
    alert
}

/// Where alerts are posted, below the address that people know.
pub(super) fn url(base: &Secret) -> Secret {
    let base = base.expose().trim_end_matches('/');
    let whole =
        if base.ends_with("/api/v2/alerts") { base.to_owned() } else { format!("{base}/api/v2/alerts") };
    whole.as_str().into()
}
