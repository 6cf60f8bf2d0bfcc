//! Who may change something: whoever has the token.
//!
//! The token is compared as a SHA-256 digest in constant time, so that neither its text nor its length leaks;
//! it is never logged. Wrong attempts are bounded per address, so that one careless script cannot lock the
//! on-call engineer out from another one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::ApiState;
use super::error::ApiError;
use super::listener::Peer;
use crate::clock::Clock;
use crate::core::Timestamp;

/// Wrong attempts in a row that an address has: a person mistypes a few times, a guesser needs billions.
const ATTEMPTS_MAX: u64 = 10;

/// An attempt comes back after this long.
const ATTEMPT_REFILL_MS: u64 = 1000;

/// Addresses remembered at once. Beyond this the one nearest to being forgiven is forgotten.
const ADDRESSES_MAX: usize = 1024;

/// Wrong attempts by address: a token bucket each.
#[derive(Debug, Clone)]
pub(super) struct Limiter {
    clock: Clock,
    // By address: the moment at which all its attempts will have come back.
    forgiven: Arc<Mutex<HashMap<IpAddr, Timestamp>>>,
}

impl Limiter {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, forgiven: Arc::default() }
    }

    /// How many seconds `peer` has to wait before its next attempt, if it has to.
    fn wait_seconds(&self, peer: IpAddr, now: Timestamp) -> Option<u64> {
        let forgiven = self.forgiven.lock().unwrap_or_else(PoisonError::into_inner);
        let owed = forgiven.get(&peer)?.as_millis().saturating_sub(now.as_millis());
        let over = (owed + ATTEMPT_REFILL_MS).checked_sub(ATTEMPTS_MAX * ATTEMPT_REFILL_MS + 1)?;
        Some(over / 1000 + 1)
    }

    fn failed(&self, peer: IpAddr, now: Timestamp) {
        let mut forgiven = self.forgiven.lock().unwrap_or_else(PoisonError::into_inner);
        forgiven.retain(|_, at| *at > now);
        if forgiven.len() >= ADDRESSES_MAX && !forgiven.contains_key(&peer) {
            let nearest = forgiven.iter().min_by_key(|(_, at)| **at).map(|(peer, _)| *peer);
            nearest.map(|peer| forgiven.remove(&peer));
        }
        let at = forgiven.entry(peer).or_insert(now);
        *at = *at + std::time::Duration::from_millis(ATTEMPT_REFILL_MS);
    }
}

/// Lets a request through if it carries the token.
pub(super) async fn require_token(
    State((state, limiter)): State<(ApiState, Limiter)>,
    request: Request,
    next: Next,
) -> Response {
    let now = limiter.clock.now();
    let peer = request
        .extensions()
        .get::<ConnectInfo<Peer>>()
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(peer)| network(peer.0.ip()));
    let Some(token) = state.token.borrow().clone() else {
        return no_token().into_response();
    };
    if let Some(seconds) = limiter.wait_seconds(peer, now) {
        let mut error =
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens from this address")
                .next(format!("wait {seconds} s, then send the token of the daemon's `api.token_file`"));
        error.retry_after = Some(seconds);
        return error.into_response();
    }
    match presented(request.headers()) {
        Some(given) if same(given, &token) => next.run(request).await,
        given => {
            limiter.failed(peer, now);
            state.metrics.token_refused();
            tracing::warn!(%peer, path = request.uri().path(), "an operator action came without the right token");
            let what = if given.is_some() { "the token is wrong" } else { "this needs a token" };
            ApiError::new(StatusCode::UNAUTHORIZED, what)
                .next("send `Authorization: Bearer TOKEN`, or `backstop --token-file FILE ...`, with the token of the daemon's `api.token_file`")
                .into_response()
        }
    }
}

fn no_token() -> ApiError {
    ApiError::new(
        StatusCode::FORBIDDEN,
        "operator actions are switched off: no token is configured",
    )
    .next(
        "write a token to a file (`openssl rand -hex 32 > /etc/backstop/token; chmod 600 /etc/backstop/token`), \
         set `api.token_file = \"/etc/backstop/token\"` and reload (`systemctl reload backstop`)",
    )
}

/// The text after `Bearer`, if the header is there.
fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

fn same(given: &[u8], token: &SecretString) -> bool {
    let token = token.expose_secret().trim().as_bytes();
    // An empty token file must never mean that an empty token is right.
    !token.is_empty() && bool::from(Sha256::digest(given).ct_eq(&Sha256::digest(token)))
}

/// The address that attempts are counted under: whoever has one IPv6 address has the whole /64.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + ms)
    }

    #[test]
    fn an_address_has_ten_wrong_attempts_and_one_more_every_second() {
        let limiter = Limiter::new(Clock::start());
        let peer = IpAddr::from([10, 0, 0, 7]);
        for _ in 0..ATTEMPTS_MAX {
            assert_eq!(limiter.wait_seconds(peer, at(0)), None);
            limiter.failed(peer, at(0));
        }
        assert_eq!(limiter.wait_seconds(peer, at(0)), Some(1));
        assert_eq!(limiter.wait_seconds(peer, at(999)), Some(1));
        assert_eq!(limiter.wait_seconds(peer, at(1000)), None);
        limiter.failed(peer, at(1000));
        assert_eq!(limiter.wait_seconds(peer, at(1000)), Some(1));
        assert_eq!(limiter.wait_seconds(IpAddr::from([10, 0, 0, 8]), at(0)), None, "others are not held up");
    }

    #[test]
    fn the_memory_of_addresses_is_bounded() {
        let limiter = Limiter::new(Clock::start());
        for n in 0..5000_u32 {
            limiter.failed(IpAddr::V4(Ipv4Addr::from_bits(n)), at(0));
        }
        assert_eq!(limiter.forgiven.lock().unwrap().len(), ADDRESSES_MAX);
        limiter.failed(IpAddr::from([1, 1, 1, 1]), at(60_000));
        assert_eq!(limiter.forgiven.lock().unwrap().len(), 1, "what is forgiven is forgotten");
    }

    #[test]
    fn only_the_very_token_is_the_same() {
        let token = SecretString::from("correct horse\n");
        assert!(same(b"correct horse", &token));
        assert!(!same(b"correct hors", &token));
        assert!(!same(b"", &token));
        assert!(!same(b"", &SecretString::from("  \n")), "an empty token file opens nothing");
    }

    #[test]
    fn the_scheme_is_bearer_in_any_case() {
        let given = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            presented(&headers).map(<[u8]>::to_vec)
        };
        assert_eq!(given("bearer  abc").as_deref(), Some(&b"abc"[..]));
        assert_eq!(given("Basic abc"), None);
        assert_eq!(given("Bear"), None);
    }
}
