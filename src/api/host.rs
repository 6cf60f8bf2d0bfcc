//! The `Host` header: on loopback only loopback's own names are answered.
//!
//! Without this, a web page opened on the same machine could point its own name at 127.0.0.1 (DNS rebinding) and
//! read everything here as if it were its own.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;

/// Which `Host` headers are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hosts {
    /// All: the address is reachable from elsewhere, under names that we do not know.
    Any,
    /// `localhost` and loopback addresses, and the name under which a proxy on this machine passes us on.
    Loopback {
        /// That name.
        public: Option<String>,
    },
}

impl Hosts {
    /// What fits a listener's address.
    pub fn of_listener(address: SocketAddr) -> Self {
        if address.ip().to_canonical().is_loopback() { Self::Loopback { public: None } } else { Self::Any }
    }

    /// The same, and the host of the address under which people reach us (`api.public_url`).
    #[must_use]
    pub fn also(self, public_url: Option<&str>) -> Self {
        let host = |url: &str| url.parse::<Uri>().ok()?.host().map(str::to_owned);
        match self {
            Self::Any => Self::Any,
            Self::Loopback { .. } => Self::Loopback { public: public_url.and_then(host) },
        }
    }

    fn answers(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Loopback { public } => {
                let name = without_port(host);
                let literal = name.trim_start_matches('[').trim_end_matches(']');
                name.eq_ignore_ascii_case("localhost")
                    || public.as_ref().is_some_and(|public| name.eq_ignore_ascii_case(public))
                    || literal.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
            }
        }
    }
}

/// Refuses a request for another host. A request without the header cannot come from a web page: it passes.
pub(super) async fn check(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    let header = request.headers().get(header::HOST);
    let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let refused = [header.map(|value| value.as_bytes()), authority]
        .into_iter()
        .flatten()
        .map(String::from_utf8_lossy)
        .find(|host| !hosts.answers(host));
    match refused {
        None => next.run(request).await,
        Some(host) => ApiError::new(
            StatusCode::MISDIRECTED_REQUEST,
            format!("this address answers for loopback names only, not for `{host}`"),
        )
        .next("use http://127.0.0.1 or http://localhost with the same port")
        .into_response(),
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // In `[::1]` the last colon belongs to the address.
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopbacks_own_names_are_answered_on_loopback() {
        let hosts = Hosts::of_listener(([127, 0, 0, 1], 9797).into());
        let known = hosts.clone().also(Some("https://ops.example.com:8443/backstop"));
        assert!(known.answers("ops.example.com:8443") && known.answers("OPS.example.com"));
        assert!(!known.answers("evil.example.com") && !hosts.answers("ops.example.com"));
        for good in ["localhost", "LOCALHOST:9797", "127.0.0.1:9797", "127.8.9.1", "[::1]:9797", "[::1]"] {
            assert!(hosts.answers(good), "{good}");
        }
        for bad in [
            "evil.example",
            "evil.example:9797",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "[::2]:9797",
            "",
        ] {
            assert!(!hosts.answers(bad), "{bad}");
        }
    }

    #[test]
    fn elsewhere_every_name_is_answered() {
        let hosts = Hosts::of_listener(([0, 0, 0, 0], 9797).into());
        assert_eq!(hosts, Hosts::Any);
        assert!(hosts.answers("backstop.example:9797"));
    }
}
