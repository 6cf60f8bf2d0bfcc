//! Where an engine is, and how to reach it safely.

use std::path::PathBuf;

use super::{RuntimeError, causes, permanent};
use crate::runtime::ssh::Destination;

/// Where an engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// A socket on this machine.
    Unix(String),
    /// TCP: a socket proxy, usually, or with TLS another machine.
    Tcp(String),
    /// Through the ssh program.
    Ssh(String, Destination),
}

/// Files for an engine that is reached by TLS: PEM, each an absolute path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The CA that vouches for the engine.
    pub ca: PathBuf,
    /// Our certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl TlsFiles {
    /// What to do about a connection to `address` that failed, in words: libraries name neither file nor remedy.
    pub(super) fn remedy(&self, address: &str, why: &str) -> String {
        let (ca, cert) = (self.ca.display(), self.cert.display());
        let whose = format!("`openssl s_client -connect {address} -showcerts` shows it");
        if why.contains("UnknownIssuer") || why.contains("BadSignature") {
            return format!(
                "the CA in {ca} did not sign the engine's certificate: give the CA that did; {whose}"
            );
        }
        if why.contains("not valid for name") || why.contains("NotValidForName") {
            return format!(
                "the engine's certificate is for another name: call it by one that it is for; {whose}"
            );
        }
        if why.contains("Expired") || why.contains("certificate expired") {
            return format!("the engine's certificate has expired; {whose}");
        }
        if why.contains("received fatal alert") {
            return format!(
                "the engine does not take our certificate: the CA that the engine was given (`--tlscacert`) has to have \
                 signed {cert}; `openssl x509 -in {cert} -noout -issuer -dates` shows who did, and until when it holds"
            );
        }
        format!(
            "does it answer? `curl --cacert {ca} --cert {cert} --key {} https://{address}/_ping`",
            self.key.display()
        )
    }
}

impl Host {
    pub(super) fn parse(text: &str) -> Result<Self, RuntimeError> {
        if let Some(path) = text.strip_prefix("unix://")
            && path.starts_with('/')
        {
            return Ok(Self::Unix(path.to_owned()));
        }
        if let Some(address) = text.strip_prefix("tcp://")
            && !address.is_empty()
        {
            let address = address.trim_end_matches('/');
            return Ok(Self::Tcp(if address.contains(':') {
                address.to_owned()
            } else {
                format!("{address}:2375")
            }));
        }
        if let Some(to) = text.strip_prefix("ssh://").and_then(Destination::parse) {
            return Ok(Self::Ssh(text.to_owned(), to));
        }
        Err(permanent(format!(
            "`{text}` is no engine address: write unix:///var/run/docker.sock or tcp://HOST:2375"
        )))
    }
}

/// Whether an address of `HOST:PORT` is this machine's own.
pub(super) fn is_loopback(address: &str) -> bool {
    let name = address.rsplit_once(':').map_or(address, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The name of this machine, or of our own container.
pub(super) fn own_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// A client that shows our certificate, and believes only the engine's CA.
pub(super) fn with_tls(
    builder: reqwest::ClientBuilder,
    files: &TlsFiles,
) -> Result<reqwest::ClientBuilder, RuntimeError> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|e| permanent(format!("{} cannot be read: {e}", path.display())))
    };
    let unusable = |path: &PathBuf, e: &reqwest::Error| {
        permanent(format!("{} cannot be used: {}", path.display(), causes(e)))
    };
    let cas =
        reqwest::Certificate::from_pem_bundle(&read(&files.ca)?).map_err(|e| unusable(&files.ca, &e))?;
    let mut both = read(&files.key)?;
    both.push(b'\n');
    both.extend(read(&files.cert)?);
    let identity = reqwest::Identity::from_pem(&both).map_err(|e| unusable(&files.cert, &e))?;
    Ok(builder.tls_certs_only(cas).identity(identity).https_only(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tls_fails_for_is_said_with_the_file_that_is_wrong() {
        let files = TlsFiles { ca: "/t/ca.pem".into(), cert: "/t/cert.pem".into(), key: "/t/key.pem".into() };
        for (why, said) in [
            ("invalid peer certificate: UnknownIssuer", "the CA in /t/ca.pem did not sign"),
            ("invalid peer certificate: certificate not valid for name \"east\"", "for another name"),
            ("invalid peer certificate: Expired", "has expired"),
            ("received fatal alert: CertificateRequired", "signed /t/cert.pem"),
            ("connection refused", "curl --cacert /t/ca.pem"),
        ] {
            assert!(files.remedy("east:2376", why).contains(said), "{why}");
        }
    }

    #[test]
    fn this_machine_is_told_from_others() {
        for ours in ["127.0.0.1:2375", "127.8.0.1:2375", "localhost:2375", "[::1]:2375"] {
            assert!(is_loopback(ours), "{ours}");
        }
        for other in ["10.0.0.1:2375", "proxy:2375", "[fd00::1]:2375", "localhost.example.com:2375"] {
            assert!(!is_loopback(other), "{other}");
        }
    }

    #[test]
    fn hosts_are_read_or_refused_with_what_would_be_right() {
        assert_eq!(Host::parse("unix:///run/d.sock").unwrap(), Host::Unix("/run/d.sock".into()));
        assert_eq!(Host::parse("tcp://proxy").unwrap(), Host::Tcp("proxy:2375".into()));
        assert_eq!(Host::parse("tcp://10.0.0.1:4000/").unwrap(), Host::Tcp("10.0.0.1:4000".into()));
        for bad in ["", "/run/d.sock", "unix://d.sock", "ssh://", "ssh://-me", "tcp://"] {
            assert!(Host::parse(bad).unwrap_err().message.contains("unix:///var/run/docker.sock"), "{bad}");
        }
    }
}
