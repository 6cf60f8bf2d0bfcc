//! The command line's side of the API: asks the daemon, and turns every way of not being answered into a sentence.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::failure::{Code, Failure};
use super::{ENDPOINT_DEFAULT, TOKEN_FILE_DEFAULT};
use crate::api::views::ErrorView;

/// The daemon is on this host or near: a longer silence means that it is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Longer than the daemon's own limit for one answer (15 s), so that its explanation arrives.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Largest answer: the status of a thousand services is below two megabytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Largest token file: what is longer is another file.
const TOKEN_BYTES_MAX: u64 = 4096;

/// Asks one daemon.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    token_file: Option<PathBuf>,
}

/// An answer, both as it came and as what it means.
#[derive(Debug)]
pub(super) struct Answer<T> {
    /// As it came: what `--json` prints, so that newer daemons lose nothing through an older command line.
    pub(super) json: Value,
    /// What it means.
    pub(super) view: T,
}

impl Client {
    pub(super) fn new(endpoint: &str, token_file: Option<PathBuf>) -> anyhow::Result<Self> {
        let base = Url::parse(endpoint)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| {
                Failure::new(Code::Usage, format!("`{endpoint}` is not the address of a daemon"))
                    .hint(format!("right would be `--endpoint {ENDPOINT_DEFAULT}`"))
            })?;
        let http = reqwest::Client::builder()
            // The token must reach the daemon that was named, and nobody else.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .build()
            .context("the HTTP client could not be made")?;
        Ok(Self { http, base, token_file })
    }

    /// Asks for what is at `path`.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> anyhow::Result<Answer<T>> {
        let request = self.http.request(Method::GET, self.url(path)?).query(query);
        self.answer(request).await
    }

    /// Asks for something to be done, with the token.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> anyhow::Result<Answer<T>> {
        let mut request = self.http.request(Method::POST, self.url(path)?).json(body);
        if let Some(token) = self.token()? {
            self.warn_of_plain_http();
            request = request.bearer_auth(token.expose_secret());
        }
        self.answer(request).await
    }

    /// What is at `path`, as text; with the token, if there is one.
    pub(super) async fn text(&self, path: &[&str]) -> anyhow::Result<String> {
        let mut request = self.http.request(Method::GET, self.url(path)?);
        if let Some(token) = self.token()? {
            self.warn_of_plain_http();
            request = request.bearer_auth(token.expose_secret());
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let body = self.body(response).await?;
        if !status.is_success() {
            return Err(self.refused(status, &body).into());
        }
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    fn url(&self, path: &[&str]) -> anyhow::Result<Url> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| Failure::new(Code::Usage, format!("`{}` cannot have a path", self.base)))?
            .pop_if_empty()
            .extend(path);
        Ok(url)
    }

    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<Answer<T>> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let body = self.body(response).await?;
        if !status.is_success() {
            return Err(self.refused(status, &body).into());
        }
        let foreign =
            || Failure::new(Code::Failure, format!("{} answered, but not as Backstop does", self.base));
        let json: Value = serde_json::from_slice(&body).with_context(foreign)?;
        let view = T::deserialize(&json).with_context(|| {
            foreign().hint("is the daemon of another version? `backstop --version` and the first line of `backstop status`")
        })?;
        Ok(Answer { json, view })
    }

    async fn body(&self, mut response: Response) -> anyhow::Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                let what = format!("the answer of {} is longer than {ANSWER_BYTES_MAX} bytes", self.base);
                return Err(Failure::new(Code::Failure, what).into());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> Failure {
        let Ok(ErrorView { error, next }) = serde_json::from_slice(body) else {
            let what = format!("{} answered {status}, but not as Backstop does", self.base);
            return Failure::new(Code::Failure, what).hint(
                "is something else listening there? `--endpoint URL` or BACKSTOP_ENDPOINT names the daemon",
            );
        };
        let failure = Failure::new(Code::Failure, error);
        match next {
            Some(next) => failure.hint(next),
            None => failure,
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> anyhow::Error {
        let mut deepest: &dyn std::error::Error = error;
        while let Some(source) = deepest.source() {
            deepest = source;
        }
        let why = if error.is_timeout() { "it took too long".to_owned() } else { deepest.to_string() };
        Failure::new(Code::Unreachable, format!("the daemon does not answer at {}: {why}", self.base))
            .hint(
                "does it run? `systemctl status backstop`, then `systemctl start backstop` or `backstop run`; \
                 if it listens elsewhere, say so with `--endpoint URL` or BACKSTOP_ENDPOINT",
            )
            .into()
    }

    /// The token, if there is one to send. Without any, the daemon says what is missing.
    fn token(&self) -> anyhow::Result<Option<SecretString>> {
        match &self.token_file {
            Some(path) => read_token(path).map(Some).map_err(|why| {
                Failure::new(Code::Usage, format!("the token file {} cannot be used: {why}", path.display()))
                    .hint("`--token-file FILE` or BACKSTOP_TOKEN_FILE names the daemon's `api.token_file`")
                    .into()
            }),
            None => Ok(read_token(Path::new(TOKEN_FILE_DEFAULT)).ok()),
        }
    }

    fn warn_of_plain_http(&self) {
        let host = self.base.host_str().unwrap_or_default();
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        let here = host == "localhost" || literal.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if self.base.scheme() == "http" && !here {
            anstream::eprintln!(
                "\x1b[33mwarning:\x1b[0m the token goes to {host} unencrypted; use https or an SSH tunnel"
            );
        }
    }
}

fn read_token(path: &Path) -> Result<SecretString, String> {
    let meta = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if meta.len() > TOKEN_BYTES_MAX {
        return Err(format!("it is longer than {TOKEN_BYTES_MAX} bytes"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let token = text.trim();
    if token.is_empty() {
        return Err("it is empty".to_owned());
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a token is one word of printable ASCII characters".to_owned());
    }
    Ok(SecretString::from(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_daemons_are_taken() {
        for bad in ["", "127.0.0.1:9797", "ftp://host", "http://", "unix:/run/backstop.sock"] {
            let error = Client::new(bad, None).unwrap_err();
            let failure = error.downcast_ref::<Failure>().unwrap();
            assert_eq!(failure.code, Code::Usage, "{bad}");
            assert!(failure.hint.as_ref().unwrap().contains(ENDPOINT_DEFAULT));
        }
    }

    #[test]
    fn names_cannot_leave_their_place_in_the_path() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::new("http://127.0.0.1:9797/sub/", None).unwrap();
        let url = client.url(&["api", "v1", "services", "a/../b?c#d"]).unwrap();
        assert_eq!(url.as_str(), "http://127.0.0.1:9797/sub/api/v1/services/a%2F..%2Fb%3Fc%23d");
    }
}
