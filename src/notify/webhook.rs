//! The webhook: Slack's incoming-webhook JSON, which Mattermost and Rocket.Chat take too.

use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Client, Response, StatusCode, redirect};
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
/// Of an error's body, this many characters are shown ...
const BODY_SHOWN: usize = 200;
/// ... of this many bytes read.
const BODY_READ: usize = 8 * 1024;
/// A part of the URL that is as long as this may be a secret: Slack's have 9 characters and more.
const SECRET_MIN: usize = 8;

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
        // Without a provider reqwest panics; that somebody installed one before is just as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
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
        let response = sent.map_err(|e| again(self.without_secrets(describe(e))))?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let asked =
            response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(|v| after(v, now));
        let said = if status.is_redirection() {
            "redirects are not followed, the final URL is wanted".to_owned()
        } else {
            self.said(response).await
        };
        let retried = status.is_server_error()
            || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        Err(Failure {
            why: format!("the webhook answered {status}{}{said}", if said.is_empty() { "" } else { ": " }),
            permanent: !retried,
            retry_after: asked,
        })
    }

    /// The beginning of an answer's body, on one line. Many servers quote the path that was asked for.
    async fn said(&self, mut response: Response) -> String {
        let mut body = Vec::new();
        let whole = loop {
            if body.len() >= BODY_READ {
                break false;
            }
            match response.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk[..chunk.len().min(BODY_READ - body.len())]),
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        if !whole {
            // The end may be half of a secret, which nobody would recognise.
            body.truncate(body.len().saturating_sub(self.url.expose_secret().len()));
        }
        let said = self.without_secrets(String::from_utf8_lossy(&body).into_owned());
        cut(&said.split_whitespace().collect::<Vec<_>>().join(" "), BODY_SHOWN)
    }

    /// The text without the URL and without any part of it that could be a token.
    fn without_secrets(&self, mut text: String) -> String {
        for secret in secrets(self.url.expose_secret()) {
            text = text.replace(&secret, "[...]");
        }
        text
    }
}

/// What of a URL must not be shown, the longest first: all of it, all that follows the host, and each long part of
/// that and of the credentials.
fn secrets(url: &str) -> Vec<String> {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let end = after_scheme.find(['/', '?', '#']).unwrap_or(after_scheme.len());
    let (authority, rest) = after_scheme.split_at(end);
    let credentials = authority.rsplit_once('@').map_or("", |(credentials, _)| credentials);
    let parts = rest.split(['/', '?', '&', '=', '#']).chain(credentials.split(':'));
    let whole = [url, after_scheme, rest, rest.trim_start_matches('/'), credentials];
    let mut found: Vec<String> =
        parts.chain(whole).filter(|s| s.len() >= SECRET_MIN).map(Into::into).collect();
    found.sort_by_key(|s| std::cmp::Reverse(s.len()));
    found
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
            approval: None,
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
    fn no_part_of_the_url_that_could_be_a_token_is_shown() {
        let target = WebhookTarget {
            url: "https://robot:hunter2hunter2@hooks.example.com/services/T0AAAAAAA/B0BBBBBBB/s3cr3ts3cr3t?key=0123456789".into(),
            timeout: Duration::from_secs(1),
        };
        let webhook = Webhook::new(Some(&target)).unwrap();
        for said in [
            "Cannot POST /services/T0AAAAAAA/B0BBBBBBB/s3cr3ts3cr3t?key=0123456789",
            "no route for \\/services\\/T0AAAAAAA\\/B0BBBBBBB\\/s3cr3ts3cr3t",
            "https://robot:hunter2hunter2@hooks.example.com/services/T0AAAAAAA is unknown",
            "wrong key 0123456789",
        ] {
            let shown = webhook.without_secrets(said.to_owned());
            for secret in ["hunter2", "T0AAAAAAA", "B0BBBBBBB", "s3cr3t", "0123456789"] {
                assert!(!shown.contains(secret), "{shown}");
            }
        }
        assert_eq!(
            webhook.without_secrets("no_service at hooks.example.com".into()),
            "no_service at hooks.example.com"
        );
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
