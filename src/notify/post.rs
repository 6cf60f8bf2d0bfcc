//! HTTP deliveries: one POST, its answer judged, and nothing secret in what is said about it.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Client, Method, RequestBuilder, Response, StatusCode, redirect};
use serde_json::Value;

use super::plan::{Endpoint, Secret};
use crate::core::Timestamp;

/// Of an error's body, this many characters are shown ...
const BODY_SHOWN: usize = 200;
/// ... of this many bytes read.
const BODY_READ: usize = 8 * 1024;
/// A part of the URL that is as long as this may be a secret: Slack's have 9 characters and more.
const SECRET_MIN: usize = 8;

/// Why a delivery failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For people, without secrets.
    pub why: String,
    /// Trying again is useless.
    pub permanent: bool,
    /// How long the server asked us to wait.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// One that may be over next time.
    pub(super) fn again(why: impl Into<String>) -> Self {
        Self { why: why.into(), permanent: false, retry_after: None }
    }

    /// One that stays.
    pub(super) fn permanent(why: impl Into<String>) -> Self {
        Self { why: why.into(), permanent: true, retry_after: None }
    }
}

/// An endpoint with its client.
#[derive(Debug)]
pub(super) struct Post {
    endpoint: Endpoint,
    client: Result<Client, String>,
    /// What must not be shown, besides the URL.
    secrets: Vec<Secret>,
}

/// What is posted.
#[derive(Debug)]
pub(super) struct Letter {
    /// The exact bytes.
    pub(super) body: String,
    pub(super) content_type: String,
    pub(super) headers: Vec<(&'static str, String)>,
    /// Another path than the endpoint's, if it needs one.
    pub(super) url: Option<Secret>,
}

impl Letter {
    pub(super) fn json(body: &Value) -> Self {
        Self {
            body: body.to_string(),
            content_type: "application/json".into(),
            headers: Vec::new(),
            url: None,
        }
    }
}

impl Post {
    pub(super) fn new(endpoint: &Endpoint, timeout: Duration, secrets: Vec<Secret>) -> Self {
        let secrets = secrets.into_iter().chain(endpoint.token.clone()).collect();
        Self { endpoint: endpoint.clone(), client: client(endpoint, timeout), secrets }
    }

    pub(super) fn url(&self) -> &Secret {
        &self.endpoint.url
    }

    /// Posts once.
    pub(super) async fn send(&self, letter: Letter, now: Timestamp) -> Result<(), Failure> {
        let client = self.client.as_ref().map_err(|why| Failure::again(why.clone()))?;
        let url = letter.url.as_ref().unwrap_or(&self.endpoint.url);
        let mut headers = HeaderMap::new();
        let own = letter.headers.iter().map(|(name, value)| (*name, value.as_str()));
        for (name, value) in own.chain([(CONTENT_TYPE.as_str(), letter.content_type.as_str())]) {
            let value = HeaderValue::from_str(value)
                .map_err(|_| Failure::permanent(format!("its header {name} cannot be sent")))?;
            let name = reqwest::header::HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| Failure::permanent("a header's name cannot be sent"))?;
            headers.insert(name, value);
        }
        let mut request = client.post(url.expose()).headers(headers).body(letter.body);
        if let Some(token) = &self.endpoint.token {
            request = request.bearer_auth(token.expose());
        }
        let sent = request.send().await;
        let response = sent.map_err(|e| Failure::again(self.without_secrets(describe(e))))?;
        self.judge(response, now).await
    }

    /// Begins a request, with the token; `url` is the endpoint's or one below it.
    pub(super) fn request(&self, method: Method, url: &str) -> Result<RequestBuilder, Failure> {
        let client = self.client.as_ref().map_err(|why| Failure::again(why.clone()))?;
        let request = client.request(method, url);
        Ok(match &self.endpoint.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        })
    }

    /// Sends a request once and gives the JSON that it is answered with, which has at most `bytes_max` bytes.
    pub(super) async fn ask(
        &self,
        request: RequestBuilder,
        bytes_max: usize,
        now: Timestamp,
    ) -> Result<Value, Failure> {
        let failed = |e| Failure::again(self.without_secrets(describe(e)));
        let mut response = request.send().await.map_err(failed)?;
        if !response.status().is_success() {
            return Err(self.refused(response, now).await);
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > bytes_max {
                return Err(Failure::permanent(format!("its answer is longer than {bytes_max} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|e| Failure::permanent(format!("its answer is no JSON: {e}")))
    }

    async fn judge(&self, response: Response, now: Timestamp) -> Result<(), Failure> {
        if response.status().is_success() { Ok(()) } else { Err(self.refused(response, now).await) }
    }

    /// What an answer says that is no success.
    async fn refused(&self, response: Response, now: Timestamp) -> Failure {
        let status = response.status();
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
        let asked = header(RETRY_AFTER.as_str()).and_then(|v| after(v, now));
        // What GitHub says in its place once the hour's requests are used up, and with another status.
        let used_up = header("x-ratelimit-remaining") == Some("0");
        let reset = header("x-ratelimit-reset").and_then(|v| v.trim().parse().ok()).filter(|_| used_up);
        let asked = asked.or_else(|| reset.map(|secs| Timestamp::from_secs(secs).since(now)));
        let said = if status.is_redirection() {
            "redirects are not followed, the final URL is wanted".to_owned()
        } else {
            self.said(response).await
        };
        let retried = status.is_server_error()
            || matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY
            )
            || (status == StatusCode::FORBIDDEN && asked.is_some());
        Failure {
            why: format!("it answered {status}{}{said}", if said.is_empty() { "" } else { ": " }),
            permanent: !retried,
            retry_after: asked,
        }
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
            let longest = self.secrets.iter().chain([&self.endpoint.url]).map(|s| s.expose().len()).max();
            body.truncate(body.len().saturating_sub(longest.unwrap_or_default()));
        }
        let said = self.without_secrets(String::from_utf8_lossy(&body).into_owned());
        cut(&said.split_whitespace().collect::<Vec<_>>().join(" "), BODY_SHOWN)
    }

    /// The text without the URL, without any part of it that could be a token, and without the tokens.
    fn without_secrets(&self, mut text: String) -> String {
        let own = self.secrets.iter().map(|s| s.expose().to_owned()).filter(|s| !s.is_empty());
        let mut all: Vec<String> = secrets(self.endpoint.url.expose()).into_iter().chain(own).collect();
        all.sort_by_key(|s| std::cmp::Reverse(s.len()));
        for secret in all {
            text = text.replace(&secret, "[...]");
        }
        text
    }
}

fn client(endpoint: &Endpoint, timeout: Duration) -> Result<Client, String> {
    // Without a provider reqwest panics; that somebody installed one before is just as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .timeout(timeout)
        // A redirected POST would carry the message to where nobody configured it.
        .redirect(redirect::Policy::none())
        .user_agent(concat!("backstop/", env!("CARGO_PKG_VERSION")));
    if let Some(ca) = &endpoint.ca {
        let all = Certificate::from_pem_bundle(ca.as_bytes())
            .map_err(|e| format!("its `ca_file` is no PEM: {e}"))?;
        for one in all {
            builder = builder.add_root_certificate(one);
        }
    }
    builder.build().map_err(|e| format!("no HTTP client: {e}; is a CA bundle installed (ca-certificates)?"))
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
    parts.chain(whole).filter(|s| s.len() >= SECRET_MIN).map(Into::into).collect()
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

/// At most `max` characters, with an ellipsis where something is missing.
pub(super) fn cut(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    text.chars().take(max.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_of_the_url_that_could_be_a_token_is_shown() {
        let url = "https://robot:hunter2hunter2@hooks.example.com/services/T0AAAAAAA/B0BBBBBBB/s3cr3ts3cr3t?key=0123456789";
        let mut endpoint = Endpoint::at(url);
        endpoint.token = Some("t0k3n".into());
        let post = Post::new(&endpoint, Duration::from_secs(1), vec!["r0ut1ng".into()]);
        for said in [
            "Cannot POST /services/T0AAAAAAA/B0BBBBBBB/s3cr3ts3cr3t?key=0123456789",
            "no route for \\/services\\/T0AAAAAAA\\/B0BBBBBBB\\/s3cr3ts3cr3t",
            "https://robot:hunter2hunter2@hooks.example.com/services/T0AAAAAAA is unknown",
            "wrong key 0123456789",
            "Bearer t0k3n is no token, and r0ut1ng no key",
        ] {
            let shown = post.without_secrets(said.to_owned());
            for secret in ["hunter2", "T0AAAAAAA", "B0BBBBBBB", "s3cr3t", "0123456789", "t0k3n", "r0ut1ng"] {
                assert!(!shown.contains(secret), "{shown}");
            }
        }
        let harmless = "no_service at hooks.example.com";
        assert_eq!(post.without_secrets(harmless.into()), harmless);
        assert!(!format!("{post:?}").contains("s3cr3t"), "{post:?}");
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
