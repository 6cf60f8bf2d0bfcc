//! Notifications of alerts, as Alertmanager's webhooks bring them (version 4), taken apart.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::texts::{one_line, shortened};
use crate::core::Timestamp;

/// Longest name of an alert with its labels: it stands in tables and is kept with the evidence.
const NAME_CHARS_MAX: usize = 200;

/// Longest text of an alert: chats cut off what is longer.
const SUMMARY_CHARS_MAX: usize = 500;

/// A notification. Fields that are not used are not looked at, so that other senders of the format are understood.
#[derive(Debug, Deserialize)]
pub struct Notification {
    /// Whose it is, in Alertmanager's configuration.
    #[serde(default)]
    pub receiver: String,
    /// What it tells of.
    pub alerts: Vec<Alert>,
    /// Left out by Alertmanager itself, because of its `max_alerts`.
    #[serde(default, rename = "truncatedAlerts")]
    pub truncated: u64,
}

/// An alert that begins, goes on or ends.
#[derive(Debug, Deserialize)]
pub struct Alert {
    /// Which of these.
    pub status: Status,
    /// What it is about.
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    /// RFC 3339. Other senders of the format leave it out, or have their own idea of it.
    #[serde(default, rename = "startsAt")]
    starts_at: Option<serde_json::Value>,
}

/// Whether an alert is firing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It began, or goes on.
    Firing,
    /// It ended.
    Resolved,
}

/// Takes a notification apart.
///
/// # Errors
/// What is wrong with it, and where.
pub fn parse(body: &[u8]) -> Result<Notification, String> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let wrong = |what: String| shortened(&one_line(&what), SUMMARY_CHARS_MAX);
    let notification: Notification = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let place = error.path().to_string();
        let place = if place == "." { String::new() } else { format!("`{place}`: ") };
        wrong(format!("{place}{}", error.into_inner()))
    })?;
    json.end().map_err(|error| wrong(error.to_string()))?;
    Ok(notification)
}

impl Alert {
    /// When it began. What is no time says nothing, and refuses nothing.
    pub fn began(&self) -> Option<Timestamp> {
        let at: jiff::Timestamp = self.starts_at.as_ref()?.as_str()?.parse().ok()?;
        u64::try_from(at.as_millisecond()).ok().map(Timestamp::from_millis)
    }

    /// What it says, for people.
    pub fn summary(&self) -> String {
        summary(self.annotations.as_ref())
    }

    /// Its name, without the labels in `without`.
    pub fn name(&self, without: &[String]) -> String {
        name(&self.labels, without)
    }
}

/// `HighErrorRate{instance="shop-1:8080"}`: equal for equal alerts, whether they begin or end. The labels that name the
/// service say nothing new; of long names the end is replaced by a digest of the whole.
fn name(labels: &BTreeMap<String, String>, without: &[String]) -> String {
    let mut name = labels.get("alertname").cloned().unwrap_or_else(|| "(no alertname)".to_owned());
    let rest = labels.iter().filter(|(key, _)| *key != "alertname" && !without.contains(key));
    for (n, (key, value)) in rest.enumerate() {
        let before = if n == 0 { '{' } else { ',' };
        // Writing into a string cannot fail.
        let _ = write!(name, "{before}{key}={value:?}");
    }
    if name.contains('{') {
        name.push('}');
    }
    let line = one_line(&name);
    if line.chars().count() <= NAME_CHARS_MAX {
        return line;
    }
    let digest = Sha256::digest(name.as_bytes());
    let digest = digest.iter().take(4).fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    format!("{}#{digest}", shortened(&line, NAME_CHARS_MAX - digest.len() - 1))
}

/// What an alert says, for people: the annotations that rules usually have, the shortest first.
fn summary(annotations: Option<&BTreeMap<String, String>>) -> String {
    let said = ["summary", "message", "description"]
        .iter()
        .find_map(|key| annotations?.get(*key).map(|text| one_line(text)).filter(|text| !text.is_empty()));
    shortened(&said.unwrap_or_default(), SUMMARY_CHARS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn an_alert_is_named_by_what_tells_it_from_others() {
        let shop = labels(&[("alertname", "Slow"), ("service", "shop"), ("instance", "shop-1:8080")]);
        assert_eq!(name(&shop, &["service".to_owned()]), r#"Slow{instance="shop-1:8080"}"#);
        assert_eq!(name(&labels(&[("alertname", "Slow")]), &[]), "Slow");
        assert_eq!(name(&labels(&[("a", "b\n\"c\"")]), &[]), r#"(no alertname){a="b\n\"c\""}"#);
    }

    #[test]
    fn long_names_stay_apart_though_they_are_cut() {
        let long = |end: &str| labels(&[("alertname", "Slow"), ("path", &("x".repeat(5000) + end))]);
        let (one, two) = (name(&long("1"), &[]), name(&long("2"), &[]));
        assert_eq!(one.chars().count(), NAME_CHARS_MAX);
        assert_ne!(one, two);
        assert_eq!(one, name(&long("1"), &[]));
    }

    #[test]
    fn the_summary_is_the_shortest_text_that_there_is() {
        let of = |pairs| summary(Some(&labels(pairs)));
        assert_eq!(of(&[("description", "long"), ("summary", "short")]), "short");
        assert_eq!(of(&[("description", "long"), ("summary", " \n")]), "long");
        assert_eq!(of(&[("runbook_url", "http://x")]), "");
        assert_eq!(summary(None), "");
        assert_eq!(of(&[("summary", &"ü".repeat(900))]).chars().count(), SUMMARY_CHARS_MAX);
    }
}
