//! PagerDuty's Events API v2: what opens a matter triggers, what a person takes on is acknowledged, what is over is
//! resolved, all under one key.

use serde_json::{Map, Value, json};

use super::kinds::{self, Course};
use super::matters::mark;
use super::plan::Channel;
use super::post::cut;
use super::words;
use crate::core::announcement::Announcement;
use crate::core::settings::Severity;
use crate::store::Matter;

/// Where events go, unless an account has another place.
pub const URL: &str = "https://events.pagerduty.com/v2/enqueue";
/// PagerDuty's limits, in characters.
const SUMMARY_MAX: usize = 1024;
const KEY_MAX: usize = 255;
/// An event has at most 512 KB; details that somebody reads on a telephone are shorter.
const DETAILS_MAX: usize = 16 << 10;

/// The event, without the routing key; none where there is nothing to trigger or to end.
pub(super) fn event(a: &Announcement, channel: &Channel, matter: Option<&Matter>) -> Option<Value> {
    let action = match (kinds::course(a), matter) {
        (Course::Opens | Course::Escalates, Some(_)) | (Course::Note, _) => "trigger",
        (Course::Acknowledges, Some(_)) => "acknowledge",
        (Course::Closes, Some(_)) => "resolve",
        (Course::Continues, _)
        | (Course::Opens | Course::Escalates | Course::Acknowledges | Course::Closes, None) => return None,
    };
    let key = matter.filter(|_| kinds::course(a) != Course::Note).map_or_else(|| words::id(a), |m| key(a, m));
    let mut event = json!({"event_action": action, "dedup_key": key});
    if action == "trigger" {
        let words = words::text(a, channel, DETAILS_MAX)?;
        let short = words::shortened(a, DETAILS_MAX);
        let mut details: Map<String, Value> =
            short.fields.iter().map(|(n, v)| (n.clone(), v.as_str().into())).collect();
        details.extend(short.next.map(|next| ("Next".to_owned(), Value::from(next))));
        details.insert("Text".into(), words.into());
        event["payload"] = json!({
            "summary": summary(a),
            "source": a.service.as_ref().map_or("backstop", |service| service.as_str()),
            "severity": severity(kinds::severity(a)),
            "timestamp": words::rfc3339(a.at),
            "component": a.service.as_ref().map_or("fleet", |service| service.as_str()),
            "group": a.environment,
            "class": a.kind.name(),
            "custom_details": details,
        });
        event["client"] = "Backstop".into();
    }
    Some(event)
}

/// One line: what happened, and why.
fn summary(a: &Announcement) -> String {
    let reason = a.fields.iter().find(|(name, _)| name == "Reason").map(|(_, reason)| reason.as_str());
    let title = cut(&format!("[{}] {}", a.environment, a.title), SUMMARY_MAX / 2);
    cut(&reason.map_or_else(|| title.clone(), |reason| format!("{title}: {reason}")), SUMMARY_MAX)
}

/// What resolves the incidents of a matter that were acknowledged before a person was called anew: a new one took their place,
/// because PagerDuty calls nobody for an incident that somebody has taken on.
pub(super) fn ends(a: &Announcement, matter: Option<&Matter>) -> Vec<Value> {
    let Some(matter) = matter else { return Vec::new() };
    let before = 0..matter.round;
    before.map(|round| json!({"event_action": "resolve", "dedup_key": key_of(a, matter, round)})).collect()
}

/// The same from the first event of a matter to its last, unless it was opened anew.
fn key(a: &Announcement, matter: &Matter) -> String {
    key_of(a, matter, matter.round)
}

fn key_of(a: &Announcement, matter: &Matter, round: u32) -> String {
    let subject = if matter.subject.is_empty() { "fleet" } else { &matter.subject };
    let key = format!("backstop/{}/{}", a.environment, mark(subject, matter, round));
    if key.chars().count() <= KEY_MAX { key } else { words::digest(&key) }
}

const fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "critical",
        Severity::High => "error",
        Severity::Medium => "warning",
        Severity::Low => "info",
    }
}
