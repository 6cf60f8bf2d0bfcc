//! One bounded GET: time, bytes and redirects have an end, a token goes only where it was meant to go, and what went
//! wrong is said in words.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Client, Response, StatusCode, Url};

use crate::core::time::human;

/// Redirects followed on the same host and port, or from `http` to `https`: `/metrics` to `/metrics/`.
const REDIRECTS_MAX: usize = 3;

/// Tokens are far shorter; a file longer than this is another file.
const TOKEN_MAX: usize = 16 * 1024;

/// Where and how something is fetched.
#[derive(Debug, Clone)]
pub(super) struct Fetch {
    pub(super) client: Client,
    /// Read whenever it is needed, so that a renewed token is used at once.
    pub(super) token_file: Option<PathBuf>,
    /// For everything: connecting, redirects and the body.
    pub(super) timeout: Duration,
    /// The most bytes of a body.
    pub(super) limit: usize,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: String,
    pub(super) body: Vec<u8>,
}

impl Fetch {
    /// Asks once. A status that tells of an error is an answer too.
    ///
    /// # Errors
    /// Why there is no answer, for people, without the URL.
    pub(super) async fn get(&self, url: Url, accept: &'static str) -> Result<Answer, String> {
        tokio::time::timeout(self.timeout, self.follow(url, accept))
            .await
            .unwrap_or_else(|_| Err(format!("no whole answer within {}", human(self.timeout))))
    }

    async fn follow(&self, mut url: Url, accept: &'static str) -> Result<Answer, String> {
        let mut headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
        if let Some(path) = &self.token_file {
            headers.insert(AUTHORIZATION, bearer(path).await?);
        }
        for _ in 0..=REDIRECTS_MAX {
            let asked = self.client.get(url.clone()).headers(headers.clone()).send().await;
            let response = asked.map_err(|e| said(&e))?;
            if !response.status().is_redirection() {
                return self.read(response).await;
            }
            url = redirected(&url, &response)?;
        }
        Err(format!("it redirects more than {REDIRECTS_MAX} times: configure the URL where it ends"))
    }

    async fn read(&self, mut response: Response) -> Result<Answer, String> {
        let header = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let content_type = header.unwrap_or_default().to_owned();
        let mut body = Vec::new();
        while let Some(chunk) =
            response.chunk().await.map_err(|e| format!("the answer broke off: {}", innermost(&e)))?
        {
            if body.len() + chunk.len() > self.limit {
                return Err(format!("its answer is larger than {} MiB, which is not read", self.limit >> 20));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status: response.status(), content_type, body })
    }
}

/// Where a redirect leads to, if it may be followed.
fn redirected(from: &Url, response: &Response) -> Result<Url, String> {
    let status = status_line(response.status());
    let location = response.headers().get(LOCATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let to = from.join(location).ok().filter(|_| !location.is_empty());
    let Some(to) = to else {
        return Err(format!("it answered {status} without saying where to"));
    };
    let same_port = to.port_or_known_default() == from.port_or_known_default();
    let upgraded = from.scheme() == "http" && to.scheme() == "https";
    let same = to.host_str() == from.host_str() && (upgraded || (same_port && to.scheme() == from.scheme()));
    if !same {
        // Following it could carry the token to somebody else.
        return Err(format!(
            "it redirects ({status}) to {}, which is not followed: configure that URL, if it is the right one",
            shown(&to)
        ));
    }
    Ok(to)
}

/// The header for the token in a file.
async fn bearer(path: &Path) -> Result<HeaderValue, String> {
    let failed = |what: String| format!("the token file {} cannot be used: {what}", path.display());
    let token = tokio::fs::read_to_string(path).await.map_err(|e| failed(e.to_string()))?;
    let token = token.trim();
    if token.is_empty() {
        return Err(failed("it is empty".into()));
    }
    if token.len() > TOKEN_MAX {
        return Err(failed(format!("it has {} bytes, more than {TOKEN_MAX}", token.len())));
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| failed("a token is one line of printable characters".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A URL as given in the configuration.
///
/// # Errors
/// What is wrong with it, without any password in it.
pub(super) fn parse_url(url: &str, what: &str) -> Result<Url, String> {
    let parsed = Url::parse(url).map_err(|e| format!("{what} cannot be used: {e}"))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(format!("{what} cannot be used: it must begin with http:// or https://"));
    }
    Ok(parsed)
}

/// The URL for people: without user, password and query.
pub(super) fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
    format!("{}://{host}{port}{}", url.scheme(), url.path())
}

/// A status with its name.
pub(super) fn status_line(status: StatusCode) -> String {
    status
        .canonical_reason()
        .map_or_else(|| status.as_u16().to_string(), |reason| format!("{} {reason}", status.as_u16()))
}

/// What went wrong, in the words of the health check.
fn said(e: &reqwest::Error) -> String {
    if e.is_dns() {
        return format!("our resolver does not know it: {}", innermost(e));
    }
    match chain(e).find_map(|e| e.downcast_ref::<io::Error>().map(io::Error::kind)) {
        Some(io::ErrorKind::ConnectionRefused) => "connection refused".into(),
        Some(
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe,
        ) => "connection reset".into(),
        Some(io::ErrorKind::HostUnreachable) => "no route to it".into(),
        Some(_) | None => innermost(e),
    }
}

/// The first cause of an error: the outer ones say only that something failed, and quote the URL.
pub(super) fn innermost(e: &reqwest::Error) -> String {
    chain(e).last().map_or_else(|| e.to_string(), ToString::to_string)
}

fn chain(e: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(e.source(), |e: &&(dyn Error + 'static)| (*e).source())
}
