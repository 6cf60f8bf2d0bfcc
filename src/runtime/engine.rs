//! The connection to one Docker Engine: finds it, agrees on an API version, and sorts its failures.
//!
//! Two clients share one session. Raw JSON over pooled connections carries whatever is replayed (typed models drop
//! fields they do not know) and whatever lies within an outage (a pooled connection saves milliseconds). bollard reads
//! the streams: events, logs. Both put the negotiated version on the wire, because an unversioned request is
//! answered in the engine's newest shape, and answers would change with an engine upgrade.
//!
//! It must never fail at construction because the engine is away: connecting is lazy, and a lost session is made anew,
//! version included, at the next request.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::{Stream, StreamExt};
use reqwest::Method;
use serde_json::Value;
use tokio::sync::{Mutex, OnceCell};

use super::registry::{Credentials, Login};
use super::ssh::Bridge;
use super::{ErrorClass, RuntimeError};

mod archive;
mod host;
mod usage;
mod whereabouts;

pub(crate) use host::Host;
pub use host::TlsFiles;
use host::with_tls;
use usage::memory_of;
pub use usage::{MemoryUse, Usage};

/// Below this, engines lack what a faithful restore needs (Docker 20.10 speaks it).
const API_FLOOR: u32 = 41;
/// From 1.52 on, inspect hides whether a MAC address was configured.
const API_CEILING: u32 = 51;
/// An engine that is well answers a small request within milliseconds; a busy one within seconds.
pub(crate) const CALL: Duration = Duration::from_secs(15);
/// Asking for the version tells whether the engine is there: nobody waits longer for that.
const HELLO: Duration = Duration::from_secs(5);
/// An import writes some megabytes to a disk that may be busy.
const IMPORT: Duration = Duration::from_secs(120);
/// No answer that we ask for is larger: a list of thousands of containers is a tenth of it.
const BODY_MAX: usize = 64 << 20;
/// What an error message of the engine is cut to.
const MESSAGE_MAX: usize = 600;

/// A Docker Engine, connected lazily.
pub struct Engine {
    host: Host,
    /// The way there, if it is SSH.
    bridge: Option<Bridge>,
    tls: Option<TlsFiles>,
    /// Who it says it is; none within if it does not say.
    identity: OnceCell<Option<String>>,
    /// Whether it is on this machine, where its address does not say.
    here: OnceCell<bool>,
    http: reqwest::Client,
    session: Mutex<Option<Session>>,
    credentials: Credentials,
}

#[derive(Clone)]
struct Session {
    minor: u32,
    /// The host's architecture as the engine calls it: `amd64`.
    arch: String,
    /// It is Podman, which speaks Docker's API in its own way.
    podman: bool,
    docker: Docker,
    /// The host's memory: asked for once, because /info takes the engine long.
    memory: Arc<OnceCell<u64>>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine at `host`: `unix:///var/run/docker.sock` or `tcp://proxy:2375`. Nothing is asked of it yet.
    ///
    /// # Errors
    /// Permanent: `host` is neither.
    pub fn connect(host: &str) -> Result<Self, RuntimeError> {
        Self::connect_by(host, None)
    }

    /// The same, by TLS if there is something to show; `ssh://[USER@]HOST[:PORT]` is understood too. Must be called on a
    /// tokio runtime.
    ///
    /// # Errors
    /// Permanent: `host` makes no sense, or a file cannot be read or used.
    pub fn connect_by(host: &str, tls: Option<TlsFiles>) -> Result<Self, RuntimeError> {
        // The first of all who need TLS installs its provider; a second one is refused, and that is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let host = Host::parse(host)?;
        // No TLS is spoken here: without this, a machine without a CA bundle could not even build the client.
        let builder = reqwest::Client::builder().no_proxy().tls_certs_only([]);
        let bridge = match &host {
            Host::Ssh(_, to) => Some(Bridge::open(to.clone()).map_err(|e| {
                permanent(format!(
                    "the private socket for SSH cannot be made in the temporary directory: {e}"
                ))
            })?),
            Host::Unix(_) | Host::Tcp(_) => None,
        };
        let builder = match (&host, &bridge, &tls) {
            (Host::Unix(path), ..) => builder.unix_socket(path.as_str()),
            (_, Some(bridge), _) => builder.unix_socket(bridge.socket()),
            (_, None, Some(files)) => with_tls(builder, files)?,
            (_, None, None) => builder,
        };
        let http =
            builder.build().map_err(|e| permanent(format!("cannot make an HTTP client: {}", causes(&e))))?;
        let (session, identity, here) = (Mutex::new(None), OnceCell::new(), OnceCell::new());
        Ok(Self { host, bridge, tls, identity, here, http, session, credentials: Credentials::default() })
    }

    /// The same, with what it is to show to registries.
    #[must_use]
    pub fn with_credentials(self, credentials: Credentials) -> Self {
        Self { credentials, ..self }
    }

    /// What is shown to registries.
    pub(crate) const fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The host as it is written in `DOCKER_HOST`.
    pub fn host(&self) -> String {
        match &self.host {
            Host::Unix(path) => format!("unix://{path}"),
            Host::Tcp(address) => format!("tcp://{address}"),
            Host::Ssh(text, _) => text.clone(),
        }
    }

    /// Who the engine says it is: Docker's own ID, its machine and where it keeps its data, since two engines of one machine
    /// may share the first, and machines made from one image too. None from Podman, which makes a new ID up each time.
    pub(crate) async fn identity(&self) -> Result<Option<String>, RuntimeError> {
        let asked = self.identity.get_or_try_init(async || {
            if self.is_podman().await? {
                return Ok(None);
            }
            let info = self.json("/info").await?;
            let said = |key: &str| info[key].as_str().filter(|text| !text.is_empty());
            let (id, name, root) = (said("ID"), said("Name"), said("DockerRootDir"));
            let whole =
                |id: &str| [Some(id), name, root].into_iter().flatten().collect::<Vec<_>>().join(", ");
            Ok::<_, RuntimeError>(id.map(whole))
        });
        asked.await.cloned()
    }

    /// Whether [`Self::identity`] was answered.
    pub(crate) fn is_identified(&self) -> bool {
        self.identity.initialized()
    }

    /// The same, if it was asked before.
    pub(crate) fn known_identity(&self) -> Option<String> {
        self.identity.get().cloned().flatten()
    }

    /// What a running container uses.
    ///
    /// # Errors
    /// As the engine answers; `NotFound` if there is no such container, `Permanent` if it does not run.
    pub async fn usage(&self, container: &str) -> Result<Usage, RuntimeError> {
        let stats = self.json(&format!("/containers/{container}/stats?stream=false&one-shot=true")).await?;
        let mut memory = memory_of(&stats).ok_or_else(|| {
            permanent(format!("container {container} has no memory statistics: it does not run"))
        })?;
        let known = self.session().await?.memory;
        let total = known.get_or_try_init(async || {
            let info = self.json("/info").await?;
            Ok::<_, RuntimeError>(info["MemTotal"].as_u64().unwrap_or(u64::MAX))
        });
        memory.limited = memory.limit > 0 && memory.limit < *total.await?;
        let throttling = &stats["cpu_stats"]["throttling_data"];
        let periods = throttling["periods"].as_u64().zip(throttling["throttled_periods"].as_u64());
        Ok(Usage { memory, periods })
    }

    /// The TCP name of the engine, if it is reached by one: a socket proxy must not be acted on.
    pub(crate) fn tcp_name(&self) -> Option<&str> {
        match &self.host {
            Host::Unix(_) | Host::Ssh(..) => None,
            Host::Tcp(address) => Some(address.rsplit_once(':').map_or(address.as_str(), |(name, _)| name)),
        }
    }

    /// The negotiated API version is 1.`minor`.
    pub(crate) async fn minor(&self) -> Result<u32, RuntimeError> {
        Ok(self.session().await?.minor)
    }

    /// The architecture of the engine's host.
    pub(crate) async fn arch(&self) -> Result<String, RuntimeError> {
        Ok(self.session().await?.arch)
    }

    /// Whether the engine is Podman.
    pub(crate) async fn is_podman(&self) -> Result<bool, RuntimeError> {
        Ok(self.session().await?.podman)
    }

    /// Forgets the session: the next request negotiates again. For when the event stream broke.
    pub(crate) async fn forget(&self) {
        *self.session.lock().await = None;
    }

    /// GET, and the JSON of the answer.
    pub(crate) async fn json(&self, path: &str) -> Result<Value, RuntimeError> {
        self.call(Method::GET, path, None, CALL).await
    }

    /// POST, with or without a body. 304, "it is so already", is a success.
    pub(crate) async fn post(&self, path: &str, body: Option<&Value>) -> Result<Value, RuntimeError> {
        self.call(Method::POST, path, body, CALL).await
    }

    /// Any request. `limit` bounds all of it, body included.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        limit: Duration,
    ) -> Result<Value, RuntimeError> {
        self.call_as(method, path, body, None, limit).await
    }

    /// The same, for what the engine asks a registry for: `login` is what it shows there.
    pub(crate) async fn call_as(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        login: Option<&Login>,
        limit: Duration,
    ) -> Result<Value, RuntimeError> {
        let what = format!("{method} {}", path.split('?').next().unwrap_or(path));
        let request = self.request(method, path, body, login).await?;
        let answer = tokio::time::timeout(limit, receive(request)).await;
        match answer {
            Ok(Ok((status, bytes))) => sort(&what, status, &bytes),
            Ok(Err(why)) => {
                self.forget().await;
                Err(self.away(&format!("{what}: {why}")))
            }
            Err(_) => Err(self.away(&format!("{what}: no answer within {} s", limit.as_secs()))),
        }
    }

    /// A request whose answer is a stream: sent, and answered with success. Only the beginning is bounded in time.
    pub(crate) async fn open(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<reqwest::Response, RuntimeError> {
        self.open_as(method, path, body, None, CALL).await
    }

    /// The same, for what the engine asks a registry for: it answers when the registry has, within `limit`.
    pub(crate) async fn open_as(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        login: Option<&Login>,
        limit: Duration,
    ) -> Result<reqwest::Response, RuntimeError> {
        let what = format!("{method} {}", path.split('?').next().unwrap_or(path));
        let request = self.request(method, path, body, login).await?;
        let response = tokio::time::timeout(limit, request.send())
            .await
            .map_err(|_| self.away(&format!("{what}: no answer within {} s", limit.as_secs())))?
            .map_err(|e| self.away(&format!("{what}: {}", causes(&e))))?;
        let status = response.status().as_u16();
        if status < 400 {
            return Ok(response);
        }
        let bytes =
            tokio::time::timeout(CALL, body_of(response)).await.unwrap_or_else(|e| Err(e.to_string()));
        Err(refused(&what, status, &bytes.unwrap_or_default()))
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        login: Option<&Login>,
    ) -> Result<reqwest::RequestBuilder, RuntimeError> {
        let session = self.session().await?;
        let mut request = self.http.request(method, self.url(&format!("/v1.{}{path}", session.minor)));
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(login) = login {
            request = request.header("X-Registry-Auth", login.header());
        }
        Ok(request)
    }

    /// A stream that ended in the middle.
    pub(crate) fn broke_off(&self, what: &str, why: &str) -> RuntimeError {
        self.away(&format!("{what}: {why}"))
    }

    /// Events of one kind of object from `since` (engine time, `seconds.nanos` or RFC 3339) on. Ends with the connection.
    pub(crate) async fn events(
        &self,
        kinds: &[&str],
        since: &str,
    ) -> Result<impl Stream<Item = Result<bollard::models::EventMessage, RuntimeError>> + use<>, RuntimeError>
    {
        let session = self.session().await?;
        // Only some kinds: one event of a kind that bollard does not know would end the stream.
        let kinds = kinds.iter().map(|kind| (*kind).to_owned()).collect();
        let options = bollard::query_parameters::EventsOptions {
            since: Some(since.to_owned()),
            filters: Some([("type".to_owned(), kinds)].into()),
            ..Default::default()
        };
        let host = self.host();
        Ok(session.docker.events(Some(options)).map(move |e| e.map_err(|e| typed(&host, "events", &e))))
    }

    /// Whether the engine still has the event of that engine time in its memory.
    pub(crate) async fn has_event(&self, at: &str) -> Result<bool, RuntimeError> {
        let session = self.session().await?;
        let options = bollard::query_parameters::EventsOptions {
            since: Some(at.to_owned()),
            until: Some(at.to_owned()),
            filters: Some([("type".to_owned(), vec!["container".to_owned()])].into()),
        };
        let mut stream = session.docker.events(Some(options));
        match tokio::time::timeout(CALL, stream.next()).await {
            Ok(Some(Ok(_))) => Ok(true),
            Ok(None) => Ok(false),
            Ok(Some(Err(error))) => Err(typed(&self.host(), "events", &error)),
            Err(_) => Err(self.away(&format!("events: no answer within {} s", CALL.as_secs()))),
        }
    }

    /// The last `lines` log lines of a container, bounded in time and size.
    pub(crate) async fn logs(
        &self,
        container: &str,
        lines: u32,
        limit: Duration,
    ) -> Result<Vec<String>, RuntimeError> {
        let session = self.session().await?;
        let options = bollard::query_parameters::LogsOptions {
            stdout: true,
            stderr: true,
            tail: lines.to_string(),
            ..Default::default()
        };
        let mut stream = session.docker.logs(container, Some(options));
        let mut text = String::new();
        let read = async {
            while let Some(part) = stream.next().await {
                let part = part.map_err(|e| typed(&self.host(), "logs", &e))?;
                text.push_str(&String::from_utf8_lossy(&part.into_bytes()));
                if text.len() > LOG_MAX {
                    break;
                }
            }
            Ok(())
        };
        // What was read within the time is evidence enough: a slow log is no reason to have none.
        if let Ok(Err(error)) = tokio::time::timeout(limit, read).await {
            return Err(error);
        }
        let all: Vec<&str> = text.lines().collect();
        let skip = all.len().saturating_sub(lines as usize);
        Ok(all.into_iter().skip(skip).map(|line| cut(line, LINE_MAX)).collect())
    }

    /// Makes an image of a root file system, as `docker import` does; `changes` are lines of a Dockerfile. The answer is
    /// read to its end: a 200 can carry an error.
    pub(crate) async fn import(
        &self,
        tar: Vec<u8>,
        reference: (&str, &str),
        changes: &[&str],
    ) -> Result<(), RuntimeError> {
        let session = self.session().await?;
        let what = format!("import of {}:{}", reference.0, reference.1);
        let mut query = vec![("fromSrc", "-"), ("repo", reference.0), ("tag", reference.1)];
        query.extend(changes.iter().map(|change| ("changes", *change)));
        let request = self
            .http
            .post(self.url(&format!("/v1.{}/images/create", session.minor)))
            .query(&query)
            .header("content-type", "application/x-tar")
            .body(tar);
        let answer = tokio::time::timeout(IMPORT, receive(request)).await;
        let (status, bytes) = answer
            .map_err(|_| self.away(&format!("{what}: not finished within {} s", IMPORT.as_secs())))?
            .map_err(|why| self.away(&format!("{what}: {why}")))?;
        sort(&what, status, &bytes)?;
        let lines = serde_json::Deserializer::from_slice(&bytes).into_iter::<Value>();
        match lines.flatten().find_map(|line| line["error"].as_str().map(str::to_owned)) {
            Some(why) => Err(permanent(format!("{what}: {}", cut(&why, MESSAGE_MAX)))),
            None => Ok(()),
        }
    }

    async fn session(&self) -> Result<Session, RuntimeError> {
        let mut slot = self.session.lock().await;
        if let Some(session) = slot.as_ref() {
            return Ok(session.clone());
        }
        let session = self.negotiate().await?;
        *slot = Some(session.clone());
        Ok(session)
    }

    async fn negotiate(&self) -> Result<Session, RuntimeError> {
        let asked = tokio::time::timeout(HELLO, receive(self.http.get(self.url("/version")))).await;
        let (status, bytes) = match asked {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => return Err(self.away(&why)),
            Err(_) => return Err(self.away(&format!("no answer within {} s", HELLO.as_secs()))),
        };
        let version = sort("GET /version", status, &bytes)?;
        let minor = agree(&version)?;
        let socket = |path: &str| Docker::connect_with_unix(path, CALL.as_secs(), API_DEFAULT_VERSION);
        let docker = match (&self.host, &self.bridge, &self.tls) {
            (Host::Unix(path), ..) => socket(path),
            (_, Some(bridge), _) => socket(&bridge.socket().to_string_lossy()),
            (Host::Tcp(to) | Host::Ssh(to, _), None, Some(files)) => Docker::connect_with_ssl(
                to,
                &files.key,
                &files.cert,
                &files.ca,
                CALL.as_secs(),
                API_DEFAULT_VERSION,
            ),
            (Host::Tcp(to) | Host::Ssh(to, _), None, None) => {
                Docker::connect_with_http(to, CALL.as_secs(), API_DEFAULT_VERSION)
            }
        };
        let docker = docker.map_err(|e| typed(&self.host(), "connecting", &e))?;
        let arch = version["Arch"].as_str().unwrap_or_default().to_owned();
        let podman = is_podman(&version);
        Ok(Session { minor, arch, podman, docker: versioned(docker, minor), memory: Arc::default() })
    }

    fn url(&self, path: &str) -> String {
        match &self.host {
            Host::Unix(_) | Host::Ssh(..) => format!("http://engine{path}"),
            Host::Tcp(address) if self.tls.is_some() => format!("https://{address}{path}"),
            Host::Tcp(address) => format!("http://{address}{path}"),
        }
    }

    fn away(&self, why: &str) -> RuntimeError {
        let next = match &self.host {
            Host::Unix(path) => {
                format!("does it run? `systemctl status docker`; may we use it? `ls -l {path}`")
            }
            Host::Tcp(address) => match &self.tls {
                None => format!("does it answer? `curl http://{address}/_ping`"),
                Some(files) => files.remedy(address, why),
            },
            Host::Ssh(to, _) => {
                format!(
                    "does it answer, without asking for anything? `docker -H {to} version`, as the user that Backstop runs as"
                )
            }
        };
        let said = self.bridge.as_ref().map(Bridge::said).filter(|said| !said.is_empty());
        let why = said.as_deref().unwrap_or(why);
        RuntimeError {
            class: ErrorClass::Transient,
            message: format!("the engine at {} does not answer: {why} ({next})", self.host()),
        }
    }
}

/// Log lines are evidence, not an archive: 200 lines of 4 KiB fit.
const LOG_MAX: usize = 1 << 20;
/// One line of evidence.
const LINE_MAX: usize = 4096;

/// The version to speak: the engine's own, at most [`API_CEILING`].
fn agree(version: &Value) -> Result<u32, RuntimeError> {
    let minor = |key: &str| {
        version[key].as_str().and_then(|v| v.strip_prefix("1.")).and_then(|m| m.parse::<u32>().ok())
    };
    let newest = minor("ApiVersion")
        .ok_or_else(|| permanent("it answered GET /version, but not as a Docker Engine does".to_owned()))?;
    let oldest = minor("MinAPIVersion").unwrap_or(0);
    if newest < API_FLOOR {
        return Err(permanent(format!(
            "the engine speaks API 1.{newest}; 1.{API_FLOOR} (Docker 20.10) is needed"
        )));
    }
    if oldest > API_CEILING {
        return Err(permanent(format!(
            "the engine speaks API 1.{oldest} and newer; at most 1.{API_CEILING} is known"
        )));
    }
    Ok(newest.min(API_CEILING))
}

/// Podman names itself as a component; its version alone could be a very old Docker's.
fn is_podman(version: &Value) -> bool {
    let mut components = version["Components"].as_array().into_iter().flatten();
    components.any(|component| component["Name"].as_str().is_some_and(|name| name.starts_with("Podman")))
}

/// bollard never puts the version on the wire by itself.
fn versioned(docker: Docker, minor: u32) -> Docker {
    let prefix = format!("/v1.{minor}");
    docker.with_request_modifier(move |mut request| {
        let mut parts = request.uri().clone().into_parts();
        let path = parts.path_and_query.as_ref().map_or("/", http::uri::PathAndQuery::as_str);
        if !path.starts_with("/v1.") {
            parts.path_and_query = format!("{prefix}{path}").parse().ok();
        }
        if let Ok(uri) = http::Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
        request
    })
}

async fn receive(request: reqwest::RequestBuilder) -> Result<(u16, Vec<u8>), String> {
    let response = request.send().await.map_err(|e| causes(&e))?;
    Ok((response.status().as_u16(), body_of(response).await?))
}

async fn body_of(mut response: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| causes(&e))? {
        if bytes.len() + chunk.len() > BODY_MAX {
            return Err(format!("an answer of more than {BODY_MAX} bytes"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Sorts an answer by its status: texts differ between engine versions, codes hardly do.
fn sort(what: &str, status: u16, bytes: &[u8]) -> Result<Value, RuntimeError> {
    if (200..400).contains(&status) {
        return Ok(serde_json::from_slice(bytes).unwrap_or(Value::Null));
    }
    Err(refused(what, status, bytes))
}

/// An answer that is a refusal, in the engine's words.
fn refused(what: &str, status: u16, bytes: &[u8]) -> RuntimeError {
    let body: Value = serde_json::from_slice(bytes).unwrap_or(Value::Null);
    let said =
        body["message"].as_str().map_or_else(|| String::from_utf8_lossy(bytes).into_owned(), str::to_owned);
    RuntimeError {
        class: class(status),
        message: format!("{what}: {} ({status})", cut(said.trim(), MESSAGE_MAX)),
    }
}

const fn class(status: u16) -> ErrorClass {
    match status {
        404 => ErrorClass::NotFound,
        409 => ErrorClass::Conflict,
        // 502 and 504 come from a proxy in between, 503 and 429 from whoever is busy.
        429 | 502..=504 => ErrorClass::Transient,
        _ => ErrorClass::Permanent,
    }
}

fn typed(host: &str, what: &str, error: &bollard::errors::Error) -> RuntimeError {
    match error {
        bollard::errors::Error::DockerResponseServerError { status_code, message } => RuntimeError {
            class: class(*status_code),
            message: format!("{what}: {} ({status_code})", cut(message, MESSAGE_MAX)),
        },
        bollard::errors::Error::DockerStreamError { error } => {
            permanent(format!("{what}: {}", cut(error, MESSAGE_MAX)))
        }
        other => RuntimeError {
            class: ErrorClass::Transient,
            message: format!("the engine at {host} broke off ({what}): {}", causes(other)),
        },
    }
}

pub(crate) const fn permanent(message: String) -> RuntimeError {
    RuntimeError { class: ErrorClass::Permanent, message }
}

/// An error with everything behind it: "connection refused" is never the outermost.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

pub(crate) fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let end = (0..=max).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    format!("{}...", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_version_is_the_engines_within_what_we_know() {
        let version =
            |newest: &str, oldest: &str| agree(&json!({"ApiVersion": newest, "MinAPIVersion": oldest}));
        assert_eq!(version("1.41", "1.12").unwrap(), 41);
        assert_eq!(version("1.45", "1.24").unwrap(), 45);
        assert_eq!(version("1.60", "1.44").unwrap(), 51);
        assert!(version("1.40", "1.12").unwrap_err().message.contains("20.10"));
        assert!(version("1.70", "1.60").is_err());
        assert!(agree(&json!({"hello": 1})).is_err());
    }

    #[test]
    fn podman_names_itself() {
        let version =
            |name: &str| json!({"Components": [{"Name": name}, {"Name": "Conmon"}], "ApiVersion": "1.41"});
        assert!(is_podman(&version("Podman Engine")));
        assert!(!is_podman(&version("Engine")));
        assert!(!is_podman(&Value::Null));
    }

    #[test]
    fn failures_are_sorted_by_status() {
        let classes =
            [(404, ErrorClass::NotFound), (409, ErrorClass::Conflict), (503, ErrorClass::Transient)];
        for (status, class) in classes {
            assert_eq!(sort("GET /x", status, br#"{"message":"no"}"#).unwrap_err().class, class);
        }
        let error =
            sort("POST /containers/a/start", 500, br#"{"message":"port is already allocated"}"#).unwrap_err();
        assert_eq!(error.class, ErrorClass::Permanent);
        assert_eq!(error.message, "POST /containers/a/start: port is already allocated (500)");
        assert!(sort("POST", 304, b"").is_ok(), "it is so already");
    }

    #[tokio::test]
    async fn an_engine_that_is_away_is_no_obstacle_at_construction_and_says_so_later() {
        let engine = Engine::connect("unix:///nowhere/docker.sock").unwrap();
        let error = engine.json("/info").await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Transient);
        assert!(error.message.contains("/nowhere/docker.sock"), "{error}");
        assert!(error.message.contains("systemctl status docker"), "{error}");
    }
}
