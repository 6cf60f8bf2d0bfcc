//! HTTP clients by how TLS is done, built once and shared.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use reqwest::{Certificate, Client, ClientBuilder, redirect};

use crate::core::settings::Tls;

/// More clients than there are ways to do TLS in one installation; beyond it the cache starts anew.
const CACHED_MAX: usize = 64;

/// A CA file is a handful of certificates: the system's whole bundle is a quarter of this.
const CA_FILE_MAX: u64 = 1024 * 1024;

/// What makes two clients the same. The certificates themselves, not their file: it may be renewed.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    ca: Option<Vec<u8>>,
    insecure: bool,
    direct: bool,
    http2: bool,
}

/// A client that does TLS as told. Clients are cached: asking again is cheap and gives the same one, as long as the
/// CA file has not changed. It follows no redirects, keeps no connections and has no timeout: that is the caller's.
///
/// `direct` is for replicas' own addresses: no proxy lies between, and no certificate is made out for such an
/// address. So, without a CA file, anybody is trusted; with one, its certificates are asked for, whatever their name.
///
/// # Errors
/// The CA file cannot be read or holds no certificate, or the system has no CA certificates; in words, with what to do.
pub fn client(tls: &Tls, direct: bool) -> Result<Client, String> {
    cached(tls, direct, false)
}

/// The same, speaking HTTP/2 from the first byte, as gRPC does.
///
/// # Errors
/// As [`client`].
pub fn http2_client(tls: &Tls, direct: bool) -> Result<Client, String> {
    cached(tls, direct, true)
}

fn cached(tls: &Tls, direct: bool, http2: bool) -> Result<Client, String> {
    static CLIENTS: OnceLock<Mutex<HashMap<Key, Client>>> = OnceLock::new();
    let key = Key { ca: certificates(tls)?, insecure: tls.insecure, direct, http2 };
    // A panic while a client was inserted leaves a map that is still good.
    let mut clients = CLIENTS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(client) = clients.get(&key) {
        return Ok(client.clone());
    }
    let client = build(&key, tls)?;
    if clients.len() >= CACHED_MAX {
        clients.clear();
    }
    clients.insert(key, client.clone());
    Ok(client)
}

/// The content of the CA file, if there is one.
fn certificates(tls: &Tls) -> Result<Option<Vec<u8>>, String> {
    let Some(path) = &tls.ca_file else { return Ok(None) };
    let failed = |what: String| format!("the CA file {} cannot be used: {what}", path.display());
    let about = std::fs::metadata(path).map_err(|e| failed(e.to_string()))?;
    let size = about.len();
    if !about.is_file() {
        // A pipe would be waited for without end.
        return Err(failed("it is no file".into()));
    }
    if size > CA_FILE_MAX {
        return Err(failed(format!("it has {size} bytes, more than {CA_FILE_MAX}")));
    }
    std::fs::read(path).map(Some).map_err(|e| failed(e.to_string()))
}

fn build(key: &Key, tls: &Tls) -> Result<Client, String> {
    // Without a provider reqwest panics; that somebody installed one before is just as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = base();
    if key.direct {
        builder = builder.no_proxy();
    }
    // What an answer means must not hang on what was agreed on underneath: HTTP/1.1, unless asked for otherwise.
    builder = if key.http2 { builder.http2_prior_knowledge() } else { builder.http1_only() };
    if key.insecure || (key.direct && key.ca.is_none()) {
        builder = builder.tls_danger_accept_invalid_certs(true);
    } else if let Some(pem) = &key.ca {
        let path = tls.ca_file.as_deref().unwrap_or_else(|| std::path::Path::new("")).display();
        let found = Certificate::from_pem_bundle(pem)
            .map_err(|e| format!("the CA file {path} cannot be used: {}", super::fetch::innermost(&e)))?;
        if found.is_empty() {
            return Err(format!(
                "the CA file {path} holds no certificate: it must be PEM, with -----BEGIN CERTIFICATE-----"
            ));
        }
        builder = if key.direct {
            builder.tls_certs_only(found).tls_danger_accept_invalid_hostnames(true)
        } else {
            builder.tls_certs_merge(found)
        };
    }
    builder.build().map_err(|e| {
        format!(
            "the HTTP client cannot be built: {}; install the CA certificates (package ca-certificates), or point \
             SSL_CERT_FILE at a bundle, and restart backstop",
            super::fetch::innermost(&e)
        )
    })
}

fn base() -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("backstop/", env!("CARGO_PKG_VERSION")))
        // Where a redirect may lead to, with which credentials, only the caller knows.
        .redirect(redirect::Policy::none())
        // A kept connection may break just when it is used again, and would be told from a failure by nobody.
        .pool_max_idle_per_host(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_ca(content: &[u8]) -> (tempfile::TempDir, Tls) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, content).unwrap();
        (dir, Tls { ca_file: Some(path), insecure: false })
    }

    #[test]
    fn every_way_of_tls_gives_a_client() {
        for direct in [false, true] {
            client(&Tls::default(), direct).unwrap();
            client(&Tls { ca_file: None, insecure: true }, direct).unwrap();
        }
    }

    #[test]
    fn a_ca_file_that_is_none_is_named() {
        let missing = Tls { ca_file: Some("/nowhere/ca.pem".into()), insecure: false };
        let why = client(&missing, false).unwrap_err();
        assert!(why.starts_with("the CA file /nowhere/ca.pem cannot be used: No such file"), "{why}");
        let (_dir, empty) = with_ca(b"certainly not PEM\n");
        let why = client(&empty, true).unwrap_err();
        assert!(why.contains("holds no certificate"), "{why}");
        let (_dir, large) = with_ca(&vec![b'x'; 2 << 20]);
        let why = client(&large, true).unwrap_err();
        assert!(why.contains("more than 1048576"), "{why}");
    }
}
