//! Credentials for registries, as `docker login` left them: read afresh for each need, because people log in again and
//! tokens expire. Nothing of a secret is ever printed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::io::AsyncReadExt;

use super::helper;

/// What Docker calls the registry of images without a registry.
pub(super) const HUB: &str = "docker.io";
/// What `docker login` files it under.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// A person's `config.json` has some hundred bytes.
const FILE_MAX: u64 = 1 << 20;

/// Where credentials come from.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// None: nobody ever logs in.
    file: Option<PathBuf>,
    /// A person named the file, so it has to be there.
    named: bool,
}

/// What to show one registry.
pub(crate) struct Login {
    server: String,
    user: String,
    secret: SecretString,
    is_token: bool,
    source: String,
    fresh: bool,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("server", &self.server)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// Docker's `config.json`, as far as it is about registries.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct File {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

/// What is filed under one registry.
#[derive(Deserialize, Default, Clone)]
#[serde(default)]
struct Entry {
    auth: SecretString,
    username: String,
    password: SecretString,
    identitytoken: SecretString,
}

impl Credentials {
    /// Of the file that a person named, else of the one that the docker command would use.
    pub fn new(named: Option<&Path>, usual: Option<&Path>) -> Self {
        Self { file: named.or(usual).map(Path::to_path_buf), named: named.is_some() }
    }

    /// What to show `registry`; none if nobody logged in there.
    ///
    /// # Errors
    /// What is wrong with the file or the helper that it names, with the next command to type.
    pub(crate) async fn login(&self, registry: &str) -> Result<Option<Login>, String> {
        let Some(path) = &self.file else { return Ok(None) };
        let shown = path.display().to_string();
        let Some(text) = read(path, self.named).await? else { return Ok(None) };
        // serde's own words would quote what stands there.
        let file: File = serde_json::from_slice(&text).map_err(|e| {
            format!(
                "{shown} is not as docker writes it (line {}, column {}); next: docker login {registry}",
                e.line(),
                e.column()
            )
        })?;
        let key = if registry == HUB { HUB_KEY } else { registry };
        let own = keys(registry).find_map(|key| file.cred_helpers.get(key).filter(|name| !name.is_empty()));
        let program = own.or(Some(&file.creds_store).filter(|name| !name.is_empty()));
        if let Some(program) = program {
            let asked = helper::ask(program, key).await.map_err(|why| {
                format!("docker-credential-{program}, which {shown} names for {registry}, {why}; next: docker login {registry}")
            })?;
            let source = format!("docker-credential-{program}");
            return Ok(asked.map(|found| Login {
                server: key.to_owned(),
                is_token: found.username == helper::TOKEN,
                user: found.username,
                secret: found.secret,
                source,
                fresh: true,
            }));
        }
        let entry = keys(registry).find_map(|key| file.auths.get(key)).or_else(|| {
            let mut others = file.auths.iter();
            others.find(|(filed, _)| host(filed) == registry).map(|(_, entry)| entry)
        });
        let Some(entry) = entry else { return Ok(None) };
        of_entry(entry, key, shown).map_err(|shown| {
            format!(
                "what {shown} holds for {registry} is not as docker writes it; next: docker login {registry}"
            )
        })
    }
}

/// The keys under which a registry is filed, the usual one first.
fn keys(registry: &str) -> impl Iterator<Item = &str> {
    let hub: &[&str] = if registry == HUB { &[HUB_KEY, "index.docker.io", HUB] } else { &[] };
    hub.iter().copied().chain((registry != HUB).then_some(registry))
}

/// Old clients filed a registry under a whole URL.
fn host(filed: &str) -> &str {
    let bare = filed.strip_prefix("https://").or(filed.strip_prefix("http://")).unwrap_or(filed);
    bare.split('/').next().unwrap_or(bare)
}

fn of_entry(entry: &Entry, key: &str, source: String) -> Result<Option<Login>, String> {
    let login = |user: &str, secret: SecretString, is_token, source| Login {
        server: key.to_owned(),
        user: user.to_owned(),
        secret,
        is_token,
        source,
        fresh: false,
    };
    let is_set = |secret: &SecretString| !secret.expose_secret().is_empty();
    if is_set(&entry.identitytoken) {
        return Ok(Some(login("a token", entry.identitytoken.clone(), true, source)));
    }
    if is_set(&entry.auth) {
        let plain =
            STANDARD.decode(entry.auth.expose_secret()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let Some((user, password)) = plain.as_deref().and_then(|plain| plain.split_once(':')) else {
            return Err(source);
        };
        // Docker's own client cuts these off.
        let password = SecretString::from(password.trim_end_matches('\0').to_owned());
        return Ok(Some(login(user, password, false, source)));
    }
    if !entry.username.is_empty() && is_set(&entry.password) {
        return Ok(Some(login(&entry.username, entry.password.clone(), false, source)));
    }
    // A helper that is not named any more leaves an empty entry.
    Ok(None)
}

/// The file; none if it is not there and nobody said that it is.
async fn read(path: &Path, named: bool) -> Result<Option<Vec<u8>>, String> {
    let failed = |e: std::io::Error| {
        let hint = if e.kind() == std::io::ErrorKind::PermissionDenied {
            "; it has to be readable for the user that Backstop runs as"
        } else if named {
            " (`registry.docker_config`)"
        } else {
            ""
        };
        format!("{} cannot be read: {e}{hint}", path.display())
    };
    let file = match tokio::fs::File::open(path).await {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !named => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let mut text = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut text).await.map_err(failed)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > FILE_MAX {
        return Err(format!("{} is larger than a config.json of docker ever is", path.display()));
    }
    Ok(Some(text))
}

impl Login {
    /// The value of `X-Registry-Auth`. The engine wants the alphabet for URLs; with the other one it would take most
    /// secrets and quietly pass over those that have a `+` or `/` in it.
    pub(crate) fn header(&self) -> http::HeaderValue {
        let secret = self.secret.expose_secret();
        let shown = if self.is_token {
            serde_json::json!({"identitytoken": secret, "serveraddress": self.server})
        } else {
            serde_json::json!({"username": self.user, "password": secret, "serveraddress": self.server})
        };
        let mut value = http::HeaderValue::from_str(&URL_SAFE.encode(shown.to_string()))
            .unwrap_or_else(|_| http::HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }

    /// Where it was found, for people.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// For whom.
    pub(super) fn user(&self) -> &str {
        if self.is_token { "a token" } else { &self.user }
    }

    /// A helper has just made it: it is newer than whatever was kept before.
    pub(in crate::runtime) fn is_fresh(&self) -> bool {
        self.fresh
    }
}

#[cfg(test)]
pub(super) mod tests;
