//! The fields of a line in JSON or logfmt, by the many names that loggers give them.
//!
//! Names are compared without case, `_`, `-`, `.` and `@`, and what is nested is joined: `http.status_code`,
//! `{"http":{"statusCode":..}}` and `HTTP_STATUS_CODE` are one name. What loggers wrap everything in (`fields`, `data`,
//! ...) is left out.
//!
//! | field | names |
//! | --- | --- |
//! | level | `level`, `lvl`, `severity`, `log.level`, `levelname`, ...: names; 10 to 60 (pino, bunyan); 0 to 7 (GELF) |
//! | status | `status`, `status_code`, `response_code`, `http.status_code`, `res.statusCode`, `DownstreamStatus`, ... |
//! | method | `method`, `verb`, `request.method`, `req.method`, `http.request.method`, ... |
//! | path | `route`, `path`, `uri`, `url`, `request.uri`, `req.url`, `http.target`, ... |
//! | latency | `duration`, `latency`, `elapsed`, `took`, `response_time`, `request_time`, ... |
//!
//! The unit of a latency is, in this order:
//! 1. what the value says: `"12.3ms"`, `"1m2.5s"`, `"250µs"`;
//! 2. what the name says: `duration_ms`, `latencyMicros`, `elapsed_seconds`, ...;
//! 3. what the operator says (`latency_unit`);
//! 4. what the name is known for: seconds for `request_time` and `upstream_response_time` (nginx); milliseconds for
//!    `responseTime` (pino, winston), `took`, `time_taken` and `service`; nanoseconds for `event.duration` (ECS);
//! 5. what the logger is known for, by its other fields: seconds for zap and Caddy (`ts` as a number); nanoseconds for Traefik; nanoseconds for whole numbers of slog
//!    and logrus (`level` and `msg`, and `time` as text); milliseconds for zerolog (the same without `msg`), Serilog, and lograge;
//! 6. else a whole number is in milliseconds (Envoy). One with a fraction may be in seconds (Python's) or milliseconds
//!    (JavaScript's): nobody knows, and a guess that is wrong is wrong by a thousand times, so it is left out. And a log
//!    that has any such is not one of whole milliseconds: from then on its whole numbers are left out as well.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::access::Request;
use super::errors::Level;
use crate::core::settings::LatencyUnit;

/// Fields that are looked at in one line, and how deep they may be nested. Loggers write some 30, three deep.
const FIELDS_MAX: usize = 256;
const DEPTH_MAX: usize = 4;
/// A joined name that is longer is none that is known.
const NAME_MAX: usize = 48;
/// Longer than that is no request, and no time that it took.
const SECONDS_MAX: f64 = 86_400.0;

/// What is known of a line.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    level: Option<LevelField<'a>>,
    status: Ranked<u16>,
    method: Ranked<Cow<'a, str>>,
    path: Ranked<Cow<'a, str>>,
    latency: Ranked<Raw>,
    message: Option<Cow<'a, str>>,
    error: Option<Cow<'a, str>>,
    logger: Logger,
}

/// A value, and how good its name is: the lowest rank is kept, and the first of equal ones.
type Ranked<T> = Option<(u8, T)>;

#[derive(Debug)]
enum LevelField<'a> {
    Name(Cow<'a, str>),
    Number(f64),
}

/// A latency before its unit is known.
#[derive(Debug, Clone, Copy)]
struct Raw {
    number: f64,
    whole: bool,
    unit: Said,
}

/// What the name of a latency, or its value, says about the unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// It is written there.
    Written(Unit),
    /// The name is known for it.
    Known(Unit),
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Seconds,
    Millis,
    Micros,
    Nanos,
}

/// What tells loggers apart.
#[derive(Debug, Default)]
struct Logger {
    msg: bool,
    text_time: bool,
    number_ts: bool,
    traefik: bool,
    serilog: bool,
    rails: bool,
    gelf: bool,
}

impl Unit {
    /// What the operator says, if anything.
    const fn told(unit: LatencyUnit) -> Option<Self> {
        match unit {
            LatencyUnit::Auto => None,
            LatencyUnit::Seconds => Some(Self::Seconds),
            LatencyUnit::Millis => Some(Self::Millis),
            LatencyUnit::Micros => Some(Self::Micros),
            LatencyUnit::Nanos => Some(Self::Nanos),
        }
    }
}

impl<'a> Fields<'a> {
    /// The fields of a line; none if it is neither JSON nor logfmt. One that was `cut` may end anywhere.
    pub(super) fn of(line: &'a str, cut: bool) -> Option<Self> {
        let line = line.trim_start();
        if line.starts_with('{') { Self::of_json(line, cut) } else { Self::of_logfmt(line) }
    }

    /// The level that the line gives itself.
    pub(super) fn level(&self) -> Option<Level> {
        match self.level.as_ref()? {
            LevelField::Number(number) if self.logger.gelf => Level::of_syslog(*number),
            LevelField::Number(number) => Level::numbered(*number),
            LevelField::Name(name) => {
                let numbered = || Level::numbered(name.parse().ok()?);
                Level::named(name).or_else(numbered)
            }
        }
    }

    /// The request that the line tells of: it has a status, and a method or a path.
    pub(super) fn request(&self, unit: LatencyUnit) -> Option<Request<'_>> {
        let (_, status) = self.status.filter(|_| self.tells_of_a_request())?;
        let show = |field: &'_ Ranked<Cow<'a, str>>| {
            field.as_ref().map(|(_, text)| text.clone()).unwrap_or_default()
        };
        let seconds = self.seconds(unit);
        Some(Request { status, method: show(&self.method), path: show(&self.path), seconds })
    }

    /// Whether there is such a request.
    pub(super) fn tells_of_a_request(&self) -> bool {
        let told = |field: &Ranked<Cow<'a, str>>| field.as_ref().is_some_and(|(_, text)| !text.is_empty());
        self.status.is_some() && (told(&self.method) || told(&self.path))
    }

    /// What it says, for people; none if it has no message.
    pub(super) fn message(self) -> Option<String> {
        match (self.message, self.error) {
            (Some(message), Some(error)) if !message.contains(&*error) => Some(format!("{message}: {error}")),
            (Some(message), _) => Some(message.into_owned()),
            (None, error) => error.map(Cow::into_owned),
        }
        .filter(|said| !said.is_empty())
    }

    fn of_json(line: &'a str, cut: bool) -> Option<Self> {
        let mut collector = Collector::default();
        let mut json = serde_json::Deserializer::from_str(line);
        match (Node { into: &mut collector, depth: 0 }).deserialize(&mut json) {
            Ok(()) => Some(collector.fields),
            // What came before the cut is as good as ever.
            Err(e) if cut && e.is_eof() => Some(collector.fields),
            Err(_) => None,
        }
    }

    fn of_logfmt(line: &'a str) -> Option<Self> {
        let mut collector = Collector::default();
        let mut rest = line;
        let mut pairs = 0;
        for _ in 0..FIELDS_MAX {
            rest = rest.trim_start();
            let end = rest.find([' ', '=', '"']).unwrap_or(rest.len());
            let (key, after) = rest.split_at_checked(end)?;
            let Some(after) = after.strip_prefix('=') else {
                // A word without a value is allowed, but a line that begins with one is a sentence.
                if pairs == 0 {
                    return None;
                }
                if after.is_empty() {
                    break;
                }
                rest = after.get(1..).unwrap_or_default();
                continue;
            };
            if pairs == 0 && !is_key(key) {
                return None;
            }
            let (value, after) = logfmt_value(after);
            rest = after;
            pairs += 1;
            collector.name.clear();
            collector.push_name(key);
            collector.take(Value::Text(value));
        }
        // One pair may stand in a sentence too.
        (pairs >= 2).then_some(collector.fields)
    }

    fn seconds(&self, told: LatencyUnit) -> Option<f64> {
        let (_, raw) = self.latency?;
        let unit = match (raw.unit, Unit::told(told)) {
            (Said::Written(unit), _) | (_, Some(unit)) | (Said::Known(unit), None) => unit,
            (Said::Nothing, None) => self.loggers_unit().or_else(|| self.unit_of_whole(raw.whole))?,
        };
        let seconds = match unit {
            Unit::Seconds => raw.number,
            Unit::Millis => raw.number / 1e3,
            Unit::Micros => raw.number / 1e6,
            Unit::Nanos => raw.number / 1e9,
        };
        (0.0..=SECONDS_MAX).contains(&seconds).then_some(seconds)
    }

    /// Whether its latency is a number whose unit is only supposed; and then, whether it is a whole one.
    pub(super) fn supposed(&self, told: LatencyUnit) -> Option<bool> {
        let (_, raw) = self.latency?;
        let known = raw.unit != Said::Nothing || told != LatencyUnit::Auto || self.loggers_unit().is_some();
        (!known).then_some(raw.whole)
    }

    /// Point 5 of the list above, where it holds for any number.
    fn loggers_unit(&self) -> Option<Unit> {
        let Logger { msg, number_ts, traefik, serilog, rails, .. } = self.logger;
        Some(match () {
            () if traefik => Unit::Nanos,
            () if number_ts && msg => Unit::Seconds,
            () if serilog || rails || (self.may_be_go() && !msg) => Unit::Millis,
            () => return None,
        })
    }

    /// What is supposed of whole numbers, as long as the log has no others.
    fn unit_of_whole(&self, whole: bool) -> Option<Unit> {
        whole.then_some(if self.may_be_go() { Unit::Nanos } else { Unit::Millis })
    }

    const fn may_be_go(&self) -> bool {
        self.logger.text_time && matches!(self.level, Some(LevelField::Name(_)))
    }
}

fn is_key(key: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '@' | '/');
    !key.is_empty() && key.len() <= NAME_MAX && key.chars().all(fits)
}

/// A value, quoted or not, and what comes after it.
fn logfmt_value(text: &str) -> (Cow<'_, str>, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_at(text.find(' ').unwrap_or(text.len()));
        return (Cow::Borrowed(value), rest);
    };
    let mut escaped = false;
    let mut any = false;
    for (i, c) in quoted.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => (escaped, any) = (true, true),
            '"' => {
                let (value, rest) = quoted.split_at(i);
                let value = if any { Cow::Owned(value.replace('\\', "")) } else { Cow::Borrowed(value) };
                return (value, rest.get(1..).unwrap_or_default());
            }
            _ => {}
        }
    }
    (Cow::Borrowed(quoted), "")
}

enum Value<'a> {
    Text(Cow<'a, str>),
    Number(f64, bool),
}

/// Walks through a line and keeps what is known.
#[derive(Default)]
struct Collector<'a> {
    fields: Fields<'a>,
    /// The joined name of where it is.
    name: String,
    seen: usize,
}

impl<'a> Collector<'a> {
    fn push_name(&mut self, key: &str) {
        for c in key.bytes().filter(|c| !matches!(c, b'_' | b'-' | b'.' | b'@' | b' ')) {
            // Anything else is in no table: a name that is too long stays one character too long.
            if self.name.len() <= NAME_MAX {
                self.name.push(if c.is_ascii() { char::from(c.to_ascii_lowercase()) } else { '?' });
            }
        }
    }

    fn take(&mut self, value: Value<'a>) {
        self.seen += 1;
        let fields = &mut self.fields;
        match &*self.name {
            "level" | "lvl" | "severity" | "loglevel" | "levelname" | "severitytext" | "l" | "lv" => {
                if fields.level.is_none() {
                    fields.level = Some(match value {
                        Value::Text(name) => LevelField::Name(name),
                        Value::Number(number, _) => LevelField::Number(number),
                    });
                }
            }
            "msg" => {
                fields.logger.msg = true;
                text_into(&mut fields.message, value);
            }
            "message" | "event" | "m" | "mt" | "shortmessage" | "logmessage" => {
                fields.logger.gelf |= self.name == "shortmessage";
                fields.logger.serilog |= matches!(&*self.name, "m" | "mt");
                text_into(&mut fields.message, value);
            }
            "error" | "err" | "errormessage" | "errmessage" | "errmsg" | "exception" | "excinfo"
            | "exceptionmessage" => text_into(&mut fields.error, value),
            "time" => fields.logger.text_time = matches!(&value, Value::Text(text) if text.contains(':')),
            "ts" => fields.logger.number_ts = matches!(value, Value::Number(..)),
            "controller" => fields.logger.rails = true,
            name => {
                if let Some(rank) = status_rank(name) {
                    fields.logger.traefik |= matches!(name, "downstreamstatus" | "originstatus");
                    keep(&mut fields.status, rank, status(&value));
                } else if let Some(rank) = method_rank(name) {
                    keep(&mut fields.method, rank, text(value));
                } else if let Some(rank) = path_rank(name) {
                    fields.logger.serilog |= self.name == "requestpath" && !fields.logger.traefik;
                    keep(&mut fields.path, rank, text(value));
                } else if let Some((rank, unit)) = latency_rank(name) {
                    keep(&mut fields.latency, rank, latency(&value, unit));
                }
            }
        }
    }
}

fn keep<T>(slot: &mut Ranked<T>, rank: u8, value: Option<T>) {
    if let Some(value) = value
        && slot.as_ref().is_none_or(|(known, _)| rank < *known)
    {
        *slot = Some((rank, value));
    }
}

fn text(value: Value<'_>) -> Option<Cow<'_, str>> {
    match value {
        Value::Text(text) => Some(text),
        Value::Number(..) => None,
    }
}

fn text_into<'a>(slot: &mut Option<Cow<'a, str>>, value: Value<'a>) {
    if slot.is_none() {
        *slot = text(value);
    }
}

/// `200`, `"200"`, `"200 OK"`; 0 is what proxies write if the client went away first.
fn status(value: &Value<'_>) -> Option<u16> {
    let status = match value {
        Value::Number(number, true) => *number,
        Value::Number(_, false) => return None,
        Value::Text(text) => {
            text.split(' ').next().filter(|word| word.len() == 3)?.parse::<u16>().ok()?.into()
        }
    };
    (status == 0.0 || (100.0..600.0).contains(&status)).then_some(status as u16)
}

fn latency(value: &Value<'_>, unit: Said) -> Option<Raw> {
    match value {
        Value::Number(number, whole) => Some(Raw { number: *number, whole: *whole, unit }),
        Value::Text(text) => {
            // nginx lists all the upstreams that it tried: the last one answered.
            let text = text.rsplit([',', ':']).next().unwrap_or_default().trim();
            if let Ok(number) = text.parse::<f64>() {
                return Some(Raw { number, whole: !text.contains('.'), unit });
            }
            Some(Raw { number: span(text)?, whole: false, unit: Said::Written(Unit::Seconds) })
        }
    }
}

/// Seconds of `12.3ms`, `1m2.5s`, `250µs`, `3 ms`: what Go, Rust and people write.
pub(super) fn span(text: &str) -> Option<f64> {
    let mut rest = text.trim();
    let mut seconds = 0.0;
    // Hours, minutes, seconds and their fractions.
    for _ in 0..6 {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|at| *at > 0)?;
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let end = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let (unit, later) = after.split_at(end);
        let unit = match unit {
            "ns" | "nanos" => 1e-9,
            "us" | "µs" | "μs" | "micros" => 1e-6,
            "ms" | "msec" | "msecs" | "millis" | "milliseconds" => 1e-3,
            "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * unit;
        rest = later.trim_start();
        if rest.is_empty() {
            return (0.0..=SECONDS_MAX).contains(&seconds).then_some(seconds);
        }
    }
    None
}

fn status_rank(name: &str) -> Option<u8> {
    Some(match name {
        "status"
        | "statuscode"
        | "httpstatus"
        | "httpstatuscode"
        | "responsecode"
        | "responsestatus"
        | "responsestatuscode"
        | "resstatuscode"
        | "resstatus"
        | "httpresponsestatuscode"
        | "httpresponsecode"
        | "httprequeststatus"
        | "downstreamstatus"
        | "scstatus" => 0,
        "code" => 1,
        "originstatus" | "upstreamstatus" => 2,
        _ => return None,
    })
}

fn method_rank(name: &str) -> Option<u8> {
    Some(match name {
        "method"
        | "requestmethod"
        | "reqmethod"
        | "httpmethod"
        | "httprequestmethod"
        | "verb"
        | "csmethod"
        | "httprequestrequestmethod" => 0,
        _ => return None,
    })
}

/// What is a route already comes first, then what has no query.
fn path_rank(name: &str) -> Option<u8> {
    Some(match name {
        "route" | "httproute" | "endpoint" | "matchedpath" => 0,
        "path" | "requestpath" | "reqpath" | "urlpath" | "httppath" | "httprequestpath" | "uripath"
        | "csuristem" => 1,
        "uri"
        | "url"
        | "requesturi"
        | "requesturl"
        | "requrl"
        | "requri"
        | "httpurl"
        | "httptarget"
        | "httprequestrequesturl"
        | "urloriginal"
        | "originalurl"
        | "reqoriginalurl"
        | "target" => 2,
        _ => return None,
    })
}

/// How good a name is, and its unit if it tells one.
fn latency_rank(name: &str) -> Option<(u8, Said)> {
    let known = |base: &str| {
        Some(match base {
            "duration"
            | "latency"
            | "elapsed"
            | "elapsedtime"
            | "requestduration"
            | "requestlatency"
            | "responseduration"
            | "responselatency"
            | "processtime"
            | "processingtime"
            | "totaltime"
            | "executiontime"
            | "httpduration"
            | "httplatency"
            | "httprequestlatency"
            | "httprequestduration"
            | "httpresponseduration"
            | "rt" => (1, Said::Nothing),
            // The same with a unit, for people: better to read for us too.
            "durationhuman" | "latencyhuman" => (0, Said::Nothing),
            "requesttime" | "httprequesttime" => (1, Said::Known(Unit::Seconds)),
            "responsetime" | "responsetimes" | "took" | "timetaken" | "httpresponsetime" | "restime" => {
                (1, Said::Known(Unit::Millis))
            }
            "eventduration" => (1, Said::Known(Unit::Nanos)),
            "service" => (2, Said::Known(Unit::Millis)),
            "upstreamresponsetime" | "urt" => (3, Said::Known(Unit::Seconds)),
            "upstreamservicetime" => (3, Said::Known(Unit::Millis)),
            _ => return None,
        })
    };
    let suffixes = [
        ("milliseconds", Unit::Millis),
        ("millis", Unit::Millis),
        ("msec", Unit::Millis),
        ("ms", Unit::Millis),
        ("microseconds", Unit::Micros),
        ("micros", Unit::Micros),
        ("us", Unit::Micros),
        ("nanoseconds", Unit::Nanos),
        ("nanos", Unit::Nanos),
        ("ns", Unit::Nanos),
        ("seconds", Unit::Seconds),
        ("secs", Unit::Seconds),
        ("sec", Unit::Seconds),
        ("s", Unit::Seconds),
    ];
    known(name).or_else(|| {
        suffixes.into_iter().find_map(|(suffix, unit)| {
            let base = name.strip_suffix(suffix)?;
            // `time_ms` is a latency; `time` alone is when it was.
            let (rank, _) = if base == "time" && suffix != "s" { (2, Said::Nothing) } else { known(base)? };
            Some((rank, Said::Written(unit)))
        })
    })
}

/// What loggers wrap the fields of a line in.
fn is_wrapper(key: &str) -> bool {
    let wrappers =
        ["fields", "data", "context", "extra", "meta", "attributes", "properties", "payload", "props"];
    wrappers.iter().any(|wrapper| key.eq_ignore_ascii_case(wrapper))
}

/// A value somewhere in the JSON of a line, by its joined name.
struct Node<'c, 'a> {
    into: &'c mut Collector<'a>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Node<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a line of a log")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let before = self.into.name.len();
        while map.next_key_seed(Key { into: self.into })?.is_some() {
            if self.depth < DEPTH_MAX && self.into.seen < FIELDS_MAX {
                map.next_value_seed(Node { into: self.into, depth: self.depth + 1 })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
            self.into.name.truncate(before);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<(), E> {
        self.into.take(Value::Text(Cow::Borrowed(text)));
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.into.take(Value::Text(Cow::Owned(text.to_owned())));
        Ok(())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.into.take(Value::Number(number as f64, true));
        Ok(())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.into.take(Value::Number(number as f64, true));
        Ok(())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        self.into.take(Value::Number(number, false));
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

/// The name of a field, joined to the names of what it is in.
struct Key<'c, 'a> {
    into: &'c mut Collector<'a>,
}

impl<'de> DeserializeSeed<'de> for Key<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<(), E> {
        if !is_wrapper(key) {
            self.into.push_name(key);
        }
        Ok(())
    }
}
