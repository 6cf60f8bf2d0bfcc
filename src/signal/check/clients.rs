//! The HTTP clients of all checks, by how they connect.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::{Certificate, Client, redirect};

use super::fault::innermost;
use crate::core::settings::Tls;

/// More ways than one installation's settings have; beyond it all are built anew.
const KEPT_MAX: usize = 64;

/// A CA file is a handful of certificates; the system's whole bundle is a quarter of this.
const CA_FILE_MAX: u64 = 1 << 20;

/// The HTTP clients of all health checks, each built when it is first needed. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct HealthClients(Arc<Mutex<HashMap<Key, Client>>>);

/// How a client connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Connect {
    /// To a replica's own address: inside the engine's network, where no proxy lies between.
    pub(super) direct: bool,
    /// HTTP/2 from the first byte, as gRPC speaks it.
    pub(super) http2: bool,
    pub(super) tls: Tls,
}

/// What makes two clients the same. The certificates themselves, not their file: it may be renewed.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    direct: bool,
    http2: bool,
    insecure: bool,
    ca: Option<Vec<u8>>,
}

impl HealthClients {
    /// No client yet. The process must have installed a rustls crypto provider before one is needed.
    pub fn new() -> Self {
        Self::default()
    }

    /// The client that connects so.
    ///
    /// # Errors
    /// The CA file cannot be read or holds no certificate, or the system has none; in words, with what to do.
    pub(super) async fn get(&self, how: &Connect) -> Result<Client, String> {
        let ca = match &how.tls.ca_file {
            Some(path) => Some(read_ca(path).await.map_err(|why| ca_file(path, &why))?),
            None => None,
        };
        let key = Key { direct: how.direct, http2: how.http2, insecure: how.tls.insecure, ca };
        // A panic while a client was inserted leaves a map that is still good.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = kept.get(&key) {
            return Ok(client.clone());
        }
        let client = build(how, key.ca.as_deref())?;
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(key, client.clone());
        Ok(client)
    }
}

async fn read_ca(path: &Path) -> Result<Vec<u8>, String> {
    let about = tokio::fs::metadata(path).await.map_err(|e| e.to_string())?;
    if !about.is_file() || about.len() > CA_FILE_MAX {
        return Err(format!("it is no file of at most {CA_FILE_MAX} bytes"));
    }
    tokio::fs::read(path).await.map_err(|e| e.to_string())
}

fn ca_file(path: &Path, why: &str) -> String {
    format!("the CA file {} cannot be used: {why}", path.display())
}

fn build(how: &Connect, ca: Option<&[u8]>) -> Result<Client, String> {
    let mut builder = Client::builder()
        .user_agent(concat!("backstop/", env!("CARGO_PKG_VERSION")))
        // They are followed by the check itself, which knows what may be sent where.
        .redirect(redirect::Policy::none())
        // A kept connection would hide that the service takes no new ones, and may break just when it is used.
        .pool_max_idle_per_host(0);
    if how.direct {
        builder = builder.no_proxy();
    }
    builder = if how.http2 { builder.http2_prior_knowledge() } else { builder.http1_only() };
    if let Some(pem) = ca {
        let path = how.tls.ca_file.as_deref().unwrap_or_else(|| Path::new(""));
        let certificates = Certificate::from_pem_bundle(pem).map_err(|e| ca_file(path, &innermost(&e)))?;
        if certificates.is_empty() {
            let pem = "it holds no certificate: it must be PEM, with -----BEGIN CERTIFICATE-----";
            return Err(ca_file(path, pem));
        }
        builder = if how.direct {
            // No certificate is made out for an address inside the engine's network; who signed it can be asked.
            builder.tls_certs_only(certificates).tls_danger_accept_invalid_hostnames(true)
        } else {
            builder.tls_certs_merge(certificates)
        };
    }
    if how.tls.insecure || (how.direct && ca.is_none()) {
        // On a replica's own address the question is whether it answers, as with Kubernetes' probes.
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    builder.build().map_err(|e| {
        format!(
            "the HTTP client cannot be built: {}; install the CA certificates (package ca-certificates), or point \
             SSL_CERT_FILE at a bundle, and restart backstop",
            innermost(&e)
        )
    })
}
