//! The webhook: Slack's incoming-webhook JSON, which Mattermost and Rocket.Chat take too.

use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Client, StatusCode, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::WebhookTarget;
use crate::core::Timestamp;
use crate::core::announcement::Announcement;

/// Slack's limits: a header, a field, a section's text.
const HEADER_MAX: usize = 150;
const FIELD_MAX: usize = 2000;
const TEXT_MAX: usize = 3000;
/// Slack takes ten fields a section.
const FIELDS_MAX: usize = 10;
/// Of an error's body, this much is shown.
const BODY_SHOWN: usize = 200;

/// Why a delivery failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// For people, without the URL.
    pub(super) why: String,
    /// Trying again is useless.
    pub(super) permanent: bool,
    /// How long the server asked us to wait.
    pub(super) retry_after: Option<Duration>,
}

/// A target with its client.
#[derive(Debug)]
pub(super) struct Webhook {
    url: SecretString,
    client: Result<Client, String>,
}

impl Webhook {
    pub(super) fn new(target: Option<&WebhookTarget>) -> Option<Self> {
        let target = target?;
        let client = Client::builder()
            .timeout(target.timeout)
            // A redirected POST would carry the message to where nobody configured it.
            .redirect(redirect::Policy::none())
            .user_agent(concat!("backstop/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| format!("no HTTP client: {e}; is a CA bundle installed (ca-certificates)?"));
        Some(Self { url: target.url.clone(), client })
    }

    /// Posts the announcement once.
    pub(super) async fn deliver(&self, a: &Announcement, now: Timestamp) -> Result<(), Failure> {
        let again = |why: String| Failure { why, permanent: false, retry_after: None };
        let client = self.client.as_ref().map_err(|why| again(why.clone()))?;
        let sent = client.post(self.url.expose_secret()).json(&body(a)).send().await;
        let mut response = sent.map_err(|e| again(describe(e)))?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let asked =
            response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(|v| after(v, now));
        let said = match response.chunk().await {
            Ok(Some(chunk)) => {
                cut(&String::from_utf8_lossy(&chunk[..chunk.len().min(BODY_SHOWN * 4)]), BODY_SHOWN)
            }
            Ok(None) | Err(_) => String::new(),
        };
        let retried = status.is_server_error()
            || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        Err(Failure {
            why: format!("the webhook answered {status}: {said}"),
            permanent: !retried,
            retry_after: asked,
        })
    }
}

/// The error without the URL in it.
fn describe(e: reqwest::Error) -> String {
    let e = e.without_url();
    let mut said = e.to_string();
    let mut cause = std::error::Error::source(&e);
    while let Some(inner) = cause {
        said.push_str(": ");
        said.push_str(&inner.to_string());
        cause = inner.source();
    }
    said
}

/// `Retry-After`: seconds, or a date.
fn after(value: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(value).ok()?.timestamp().as_millisecond();
    Some(Timestamp::from_millis(u64::try_from(at).ok()?).since(now))
}

/// The message: `text` for notifications and for whatever does not know blocks, blocks for Slack.
fn body(a: &Announcement) -> Value {
    let mut blocks = vec![json!({
        "type": "header",
        "text": {"type": "plain_text", "text": cut(&a.title, HEADER_MAX)},
    })];
    let fields: Vec<Value> = a
        .fields
        .iter()
        .map(|(name, value)| json!({"type": "mrkdwn", "text": cut(&format!("*{}*\n{}", escape(name), escape(value)), FIELD_MAX)}))
        .collect();
    for some in fields.chunks(FIELDS_MAX) {
        blocks.push(json!({"type": "section", "fields": some}));
    }
    if let Some(next) = &a.next {
        let text = cut(&format!("Next: `{}`", escape(next)), TEXT_MAX);
        blocks.push(json!({"type": "section", "text": {"type": "mrkdwn", "text": text}}));
    }
    blocks.push(json!({
        "type": "context",
        "elements": [{"type": "mrkdwn", "text": cut(&format!("backstop · {} · {}", a.kind.name(), escape(&a.key)), TEXT_MAX)}],
    }));
    json!({"text": cut(&escape(&a.to_string()), TEXT_MAX), "blocks": blocks})
}

/// Slack's three control characters.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// At most `max` characters, with an ellipsis where something is missing.
fn cut(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    text.chars().take(max - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::announcement::AnnouncementKind;

    fn announcement(value: &str) -> Announcement {
        Announcement {
            key: "k".into(),
            at: Timestamp::from_secs(1),
            kind: AnnouncementKind::RollbackInProgress,
            service: None,
            rollback: None,
            environment: "production".into(),
            title: "ROLLBACK IN PROGRESS: shop".into(),
            fields: vec![("Reason".into(), value.into())],
            next: Some("backstop status".into()),
        }
    }

    #[test]
    fn slacks_limits_and_control_characters_are_kept() {
        let body = body(&announcement(&"<&>".repeat(2000)));
        let field = body["blocks"][1]["fields"][0]["text"].as_str().unwrap();
        assert!(field.starts_with("*Reason*\n&lt;&amp;&gt;"));
        assert_eq!(field.chars().count(), FIELD_MAX);
        assert!(field.ends_with('…'));
        assert!(body["text"].as_str().unwrap().starts_with("ROLLBACK IN PROGRESS: shop\nReason: &lt;"));
        assert!(body["text"].as_str().unwrap().chars().count() <= TEXT_MAX);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = Timestamp::from_secs(1_000_000_000);
        assert_eq!(after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(after("Sun, 09 Sep 2001 01:47:40 GMT", now), Some(Duration::from_secs(60)));
        assert_eq!(after("Sun, 09 Sep 2001 01:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(after("soon", now), None);
    }
}
