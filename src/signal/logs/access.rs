//! Which line is a request: access logs in the formats that servers, proxies and loggers write by themselves.
//!
//! - **Common**: common and combined log format, and whatever else has the request line in quotes and the status after
//!   it: Apache, nginx (ingress-nginx too), Traefik, gunicorn, uvicorn, werkzeug, Django, Envoy's default. How long it
//!   took is, in this order: what a name says (`rt=0.012`, `request_time=0.012`); a number with a unit (`12ms`); a
//!   number with a fraction, in seconds (nginx' `$request_time`, gunicorn's `%(L)s`); a whole number at the very end of
//!   the line, in microseconds (Apache's `%D`, gunicorn's `%(D)s`). Envoy's default has its own place for it.
//! - **JSON** and **logfmt**: see the tables of the neighbouring `fields`.
//!
//! A request failed if its status is 5xx. Redirects, 4xx and requests that a client gave up on did not.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::fields::{Fields, span};
use crate::core::settings::{AccessLog, LatencyUnit};

/// Parts of a path that a route keeps: what lies deeper hardly tells anything apart.
const SEGMENTS_MAX: usize = 8;
/// The longest route, in bytes.
const ROUTE_MAX: usize = 120;
/// A whole day in microseconds: a larger number at the end of a line is an id.
const MICROS_MAX: f64 = 86_400e6;

/// A request that a line tells of.
#[derive(Debug, Clone, PartialEq)]
pub struct Request<'a> {
    /// Its status; 0 if the client went away before there was one.
    pub status: u16,
    /// `GET`; empty if the line does not tell.
    pub method: Cow<'a, str>,
    /// Its path, perhaps with scheme, host and query; empty if the line does not tell.
    pub path: Cow<'a, str>,
    /// How long it took, in seconds.
    pub seconds: Option<f64>,
}

impl Request<'_> {
    /// Whether the server failed.
    pub const fn failed(&self) -> bool {
        self.status >= 500
    }

    /// Method and path, without what is different each time: the query, numbers, UUIDs and other ids are `*`.
    pub fn route(&self) -> String {
        let path = self.path.split(['?', '#', ';']).next().unwrap_or_default();
        // What proxies are asked for has scheme and host.
        let path =
            path.split_once("://").map_or(path, |(_, rest)| rest.find('/').map_or("/", |at| &rest[at..]));
        let mut route = String::new();
        let method = self.method.trim();
        if !method.is_empty() {
            let _ = write!(route, "{} ", method.get(..10).unwrap_or(method).to_ascii_uppercase());
        }
        for (n, segment) in path.split('/').filter(|segment| !segment.is_empty()).enumerate() {
            if n == SEGMENTS_MAX || route.len() + segment.len() >= ROUTE_MAX {
                route.push_str("/...");
                break;
            }
            route.push('/');
            route.push_str(if is_id(segment) { "*" } else { segment });
        }
        if path.split('/').all(str::is_empty) {
            route.push('/');
        }
        route
    }
}

/// Whether a part of a path is different each time: a number, a UUID, a digest, a random word.
fn is_id(segment: &str) -> bool {
    let digits = segment.bytes().filter(u8::is_ascii_digit).count();
    let hex = segment.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    digits == segment.len()
        || (hex && digits > 0 && segment.len() >= 8)
        || (segment.len() >= 20 && digits > 0)
        || segment.contains('@')
}

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Common,
    Json,
    Logfmt,
}

impl Format {
    const ALL: [Self; 3] = [Self::Common, Self::Json, Self::Logfmt];

    const fn name(self) -> &'static str {
        match self {
            Self::Common => "common",
            Self::Json => "json",
            Self::Logfmt => "logfmt",
        }
    }
}

/// Finds the requests in one log.
///
/// If it is to find the format out by itself, the first line that is a request decides. Only one format counts at a
/// time, because some services write two lines for a request, each in a format of its own. When nothing came in the
/// chosen format for two windows while something did in another one, that one is chosen.
#[derive(Debug)]
pub(super) struct AccessReader {
    wanted: AccessLog,
    unit: LatencyUnit,
    chosen: Option<Format>,
    /// Requests of this window, by format.
    seen: [u64; 3],
    /// Windows in a row with requests, but none in the chosen format.
    elsewhere: u32,
    /// Whether any request was ever seen.
    any: bool,
    /// Whether a latency had a fraction and nobody knows its unit: then nobody knows that of whole numbers either.
    fractions: bool,
}

impl AccessReader {
    pub(super) const fn new(wanted: AccessLog, unit: LatencyUnit) -> Self {
        let chosen = match wanted {
            AccessLog::Off | AccessLog::Auto => None,
            AccessLog::Common => Some(Format::Common),
            AccessLog::Json => Some(Format::Json),
            AccessLog::Logfmt => Some(Format::Logfmt),
        };
        Self { wanted, unit, chosen, seen: [0; 3], elsewhere: 0, any: false, fractions: false }
    }

    /// The request that a line tells of, if it counts.
    pub(super) fn read<'a>(&mut self, line: &'a str, fields: Option<&'a Fields<'a>>) -> Option<Request<'a>> {
        if self.wanted == AccessLog::Off {
            return None;
        }
        let (format, mut request) = match fields {
            Some(fields) if line.trim_start().starts_with('{') => (Format::Json, fields.request(self.unit)?),
            Some(fields) => (Format::Logfmt, fields.request(self.unit)?),
            None => (Format::Common, common(line)?),
        };
        if let Some(seen) = self.seen.get_mut(format as usize) {
            *seen += 1;
        }
        let chosen = *self.chosen.get_or_insert(format);
        if chosen != format {
            return None;
        }
        self.any = true;
        if let Some(whole) = fields.and_then(|fields| fields.supposed(self.unit)) {
            self.fractions |= !whole;
            if self.fractions {
                request.seconds = None;
            }
        }
        Some(request)
    }

    /// Whether the units of latencies that were supposed until now turned out to be unknown.
    pub(super) const fn saw_fractions(&self) -> bool {
        self.fractions
    }

    /// A window ends. Says why there is nothing to tell if ever no request was seen.
    pub(super) fn end_window(&mut self) -> Option<String> {
        let seen = std::mem::take(&mut self.seen);
        let count = |format: Format| seen.get(format as usize).copied().unwrap_or_default();
        let mine = self.chosen.map_or(0, count);
        let most =
            Format::ALL.into_iter().max_by_key(|format| count(*format)).filter(|most| count(*most) > mine);
        if let (AccessLog::Auto, 0, Some(most)) = (self.wanted, mine, most) {
            self.elsewhere += 1;
            if self.elsewhere >= 2 {
                (self.chosen, self.elsewhere) = (Some(most), 0);
            }
        } else {
            self.elsewhere = 0;
        }
        if self.any {
            return None;
        }
        Some(match (self.chosen, most) {
            (Some(wanted), Some(other)) => format!(
                "no line of its log is a request in the format `{}`, but some are in `{}`: change `access`",
                wanted.name(),
                other.name()
            ),
            (Some(wanted), None) => {
                format!("no line of its log was a request in the format `{}` yet", wanted.name())
            }
            (None, _) => "no line of its log was a request yet".into(),
        })
    }
}

/// The request that a line tells of, if it is written in `format`. [`AccessLog::Auto`] takes any. Latencies are in
/// `unit` where the line does not tell.
pub fn request_of(line: &str, format: AccessLog, unit: LatencyUnit) -> Option<Request<'static>> {
    let fields = Fields::of(line, false);
    let Request { status, method, path, seconds } =
        AccessReader::new(format, unit).read(line, fields.as_ref())?;
    let (method, path) = (method.into_owned().into(), path.into_owned().into());
    Some(Request { status, method, path, seconds })
}

/// Whether a line that is neither JSON nor logfmt tells of a request, be it one that makes no sense: whoever sends
/// `ERROR` for a method has that written into the log.
pub(super) fn looks_like_a_request(line: &str) -> bool {
    quoted_with_status(line).is_some()
}

/// A request line in quotes, and the status after it.
fn common(line: &str) -> Option<Request<'_>> {
    let Quoted { before, request, status, rest } = quoted_with_status(line)?;
    let mut words = request.split(' ');
    let (method, path, protocol) = (words.next()?, words.next()?, words.next_back()?);
    let is_method = (3..=10).contains(&method.len()) && method.bytes().all(|b| b.is_ascii_uppercase());
    if !is_method || !protocol.starts_with("HTTP/") {
        return None;
    }
    let seconds = if before.starts_with('[') { envoy(rest) } else { trailing(rest) };
    Some(Request { status, method: method.into(), path: path.into(), seconds })
}

/// A line with something in quotes and a status after it.
struct Quoted<'a> {
    before: &'a str,
    request: &'a str,
    status: u16,
    rest: &'a str,
}

fn quoted_with_status(line: &str) -> Option<Quoted<'_>> {
    let mut begin = line.find('"')?;
    // Others put a host or an address in quotes before it.
    for _ in 0..4 {
        let (before, quoted) = line.split_at_checked(begin)?;
        let quoted = quoted.get(1..)?;
        let rest = after_quote(quoted);
        let request = quoted.get(..quoted.len().checked_sub(rest.len() + 1)?)?;
        // The time, or uvicorn's dash, stands before it.
        if (before.ends_with("] ") || before.ends_with(" - "))
            && let Some((status, rest)) = status(rest)
        {
            return Some(Quoted { before, request, status, rest });
        }
        begin = line.len() - rest.len() + rest.find('"')?;
    }
    None
}

fn status(rest: &str) -> Option<(u16, &str)> {
    let rest = rest.strip_prefix(' ')?;
    let (status, rest) = rest.split_at(rest.find(' ').unwrap_or(rest.len()));
    let known = status.parse().ok().filter(|known| *known == 0 || (100..600).contains(known))?;
    Some((known, rest))
}

/// Envoy's default: flags, perhaps some words, bytes in, bytes out, milliseconds.
fn envoy(rest: &str) -> Option<f64> {
    let millis: u32 = words(rest).filter_map(|(word, _)| word.parse().ok()).nth(2)?;
    Some(f64::from(millis) / 1e3)
}

/// What says how long it took in the rest of a line, after the status.
fn trailing(rest: &str) -> Option<f64> {
    let mut with_unit = None;
    let mut fraction = None;
    let mut last = None;
    // The first is the size of the answer, or uvicorn's `OK`.
    for (word, value) in words(rest).skip(1) {
        if matches!(word, "rt=" | "request_time=") {
            return number(value);
        }
        last = Some(word);
        if word.contains('=') {
            continue;
        }
        if word.ends_with('s') && with_unit.is_none() {
            with_unit = span(word);
        }
        if word.contains('.') && fraction.is_none() {
            fraction = number(word);
        }
    }
    with_unit.or(fraction).or_else(|| {
        // `%T/%D`: the same in seconds and in microseconds.
        let micros =
            number(last?.trim_matches('*').rsplit('/').next()?).filter(|micros| *micros <= MICROS_MAX)?;
        Some(micros / 1e6)
    })
}

fn number(word: &str) -> Option<f64> {
    if !word.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    word.parse().ok().filter(|number: &f64| number.is_finite())
}

/// The words of a line that are not in quotes, which strangers may have written. One like `rt=0.1` or `rt="0.1"` is
/// given as its name and its value.
fn words(mut rest: &str) -> impl Iterator<Item = (&str, &str)> {
    std::iter::from_fn(move || {
        loop {
            rest = rest.trim_start();
            let Some(quoted) = rest.strip_prefix('"') else {
                let end = rest.find([' ', '"']).unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                rest = after;
                let (name, value) = word.split_at(word.find('=').map_or(word.len(), |at| at + 1));
                if name.ends_with('=') && value.is_empty() && after.starts_with('"') {
                    let (value, after) = after.get(1..)?.split_once('"')?;
                    rest = after;
                    return Some((name, value));
                }
                return (!word.is_empty()).then_some((name, value));
            };
            rest = after_quote(quoted);
        }
    })
}

/// What comes after the end of a quoted text; Apache writes a quote in it as `\"`.
fn after_quote(quoted: &str) -> &str {
    let mut escaped = false;
    for (i, b) in quoted.bytes().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return quoted.get(i + 1..).unwrap_or_default(),
            _ => {}
        }
    }
    ""
}
