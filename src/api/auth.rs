//! Who may change something: whoever has the token.
//!
//! The token is compared as a SHA-256 digest in constant time, so that neither its text nor its length leaks;
//! it is never logged. Wrong attempts are bounded per address, so that one careless script cannot lock the
//! on-call engineer out from another one.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::ApiState;
use super::error::ApiError;
use super::limit::{Buckets, whole_seconds};
use super::listener::Peer;

/// Wrong attempts in a row that an address has: a person mistypes a few times, a guesser needs billions.
const ATTEMPTS_MAX: u32 = 10;

/// An attempt comes back after this long.
const ATTEMPT_REFILL: Duration = Duration::from_secs(1);

/// Addresses remembered at once.
const ADDRESSES_MAX: usize = 1024;

/// The tokens that open something.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    /// What operators show. While there is none, there are no operator actions.
    pub operators: Option<SecretString>,
    /// What single people show, by their names: what they do is done in their name.
    pub people: BTreeMap<String, SecretString>,
    /// What those show that only tell something: Alertmanager, and whoever passes reports of users on. The
    /// operators' token does for them too.
    pub hooks: Option<SecretString>,
}

/// What a token opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// Commands.
    Operators,
    /// Alerts and reports of users.
    Hooks,
}

/// Who shows a token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Caller {
    /// Whose own token it is; none if several share it.
    pub(super) person: Option<String>,
}

/// A door with its memory of wrong attempts. Each has its own: a sender with a wrong token, on the same host as the
/// on-call engineer, must not lock them out.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    state: ApiState,
    door: Door,
    attempts: Arc<Mutex<Buckets<IpAddr>>>,
}

impl Guard {
    pub(super) fn new(state: ApiState, door: Door) -> Self {
        let attempts = Buckets::new(ATTEMPTS_MAX, ATTEMPT_REFILL, ADDRESSES_MAX);
        Self { state, door, attempts: Arc::new(Mutex::new(attempts)) }
    }

    /// The tokens that open this door, each with whose it is.
    fn keys(&self) -> Vec<(Caller, SecretString)> {
        let tokens = self.state.tokens.borrow();
        let people =
            tokens.people.iter().map(|(name, key)| (Caller { person: Some(name.clone()) }, key.clone()));
        let shared =
            |key: &Option<SecretString>| key.iter().cloned().map(|key| (Caller::default(), key)).collect();
        let operators: Vec<_> = shared(&tokens.operators);
        match self.door {
            Door::Operators => people.chain(operators).collect(),
            Door::Hooks => people.chain(shared(&tokens.hooks)).chain(operators).collect(),
        }
    }

    fn attempts(&self) -> std::sync::MutexGuard<'_, Buckets<IpAddr>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets a request through if it carries the token.
pub(super) async fn require_token(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let keys = guard.keys();
    if keys.is_empty() {
        return guard.door.shut().into_response();
    }
    let peer = request
        .extensions()
        .get::<ConnectInfo<Peer>>()
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(peer)| network(peer.0.ip()));
    // Taken before the token is compared, and given back if it is right: attempts side by side count as well.
    if let Err(wait) = guard.attempts().take(&peer, guard.state.clock.now()) {
        return guard.door.slow_down(whole_seconds(wait)).into_response();
    }
    let given = presented(request.headers(), guard.door);
    // Every key is compared: how long it takes must not tell which one it was.
    let caller = given.as_ref().and_then(|given| {
        keys.into_iter().fold(None, |found, (caller, key)| {
            let same = same(given, &key);
            found.or(same.then_some(caller))
        })
    });
    if let Some(caller) = caller {
        guard.attempts().give_back(&peer);
        request.extensions_mut().insert(caller);
        return next.run(request).await;
    }
    guard.state.metrics.token_refused();
    tracing::warn!(%peer, path = request.uri().path(), "a request came without the right token");
    guard.door.wrong(given.is_some()).into_response()
}

impl Door {
    fn shut(self) -> ApiError {
        let (what, file, key) = match self {
            Self::Operators => ("operator actions are", "token", "api.token_file"),
            Self::Hooks => ("alerts and reports are", "hook-token", "api.hook_token_file"),
        };
        ApiError::new(StatusCode::FORBIDDEN, format!("{what} switched off: no token is configured")).next(format!(
            "write a token to a file that the daemon may read (`openssl rand -hex 32 | sudo install -m 640 -g backstop \
             /dev/stdin /etc/backstop/{file}`), set `{key} = \"/etc/backstop/{file}\"` and reload \
             (`sudo systemctl reload backstop`)"
        ))
    }

    fn slow_down(self, seconds: u64) -> ApiError {
        let mut error =
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens from this address")
                .next(format!("wait {seconds} s, then send the token of the daemon's {}", self.file()));
        error.retry_after = Some(seconds);
        error
    }

    fn wrong(self, given: bool) -> ApiError {
        let what = if given { "the token is wrong" } else { "this needs a token" };
        let how = match self {
            Self::Operators => "send `Authorization: Bearer TOKEN`, or `backstop --token-file FILE ...`,",
            Self::Hooks => {
                "send `Authorization: Bearer TOKEN`, or the token as the password of `basic_auth`, or \
                 `backstop --token-file FILE ...`,"
            }
        };
        ApiError::new(StatusCode::UNAUTHORIZED, what)
            .next(format!("{how} with the token of the daemon's {}", self.file()))
    }

    const fn file(self) -> &'static str {
        match self {
            Self::Operators => "`api.token_file`",
            Self::Hooks => "`api.hook_token_file` or `api.token_file`",
        }
    }
}

/// The token that was sent: the text after `Bearer`; for hooks also the password of `Basic`. Operators' routes do not
/// take the latter, because browsers send it along by themselves, from any page.
fn presented(headers: &HeaderMap, door: Door) -> Option<Vec<u8>> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let space = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, given) = (&value[..space], value[space..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"Bearer") {
        return Some(given.to_vec());
    }
    if door != Door::Hooks || !scheme.eq_ignore_ascii_case(b"Basic") {
        return None;
    }
    let decoded = STANDARD.decode(given).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    Some(decoded[colon + 1..].trim_ascii().to_vec())
}

fn same(given: &[u8], token: &SecretString) -> bool {
    let token = token.expose_secret().trim().as_bytes();
    // An empty token file must never mean that an empty token is right.
    !token.is_empty() && bool::from(Sha256::digest(given).ct_eq(&Sha256::digest(token)))
}

/// The address that attempts and reports are counted under: whoever has one IPv6 address has the whole /64.
pub(super) fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_token_is_the_same() {
        let token = SecretString::from("correct horse\n");
        assert!(same(b"correct horse", &token));
        assert!(!same(b"correct hors", &token));
        assert!(!same(b"", &token));
        assert!(!same(b"", &SecretString::from("  \n")), "an empty token file opens nothing");
    }

    #[test]
    fn the_scheme_is_bearer_in_any_case_and_for_hooks_basic_too() {
        let given = |value: &str, door| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            presented(&headers, door).map(|given| String::from_utf8(given).unwrap())
        };
        assert_eq!(given("bearer  abc", Door::Operators).as_deref(), Some("abc"));
        // `alertmanager:a:b`: a password may have colons in it, a name may not.
        assert_eq!(given("Basic YWxlcnRtYW5hZ2VyOmE6Yg==", Door::Hooks).as_deref(), Some("a:b"));
        assert_eq!(given("Basic YWxlcnRtYW5hZ2VyOmE6Yg==", Door::Operators), None);
        for bad in ["Basic abc", "Basic ****", "Basic bm9jb2xvbg==", "Bear", "Digest a=b"] {
            assert_eq!(given(bad, Door::Hooks), None, "{bad}");
        }
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_eq!(of("::ffff:10.0.0.7"), of("10.0.0.7"));
        assert_ne!(of("10.0.0.7"), of("10.0.0.8"));
    }
}
