//! The types of single settings: how each is read, and what is said when it cannot be. Every number has bounds
//! here, in its type; what depends on other settings is judged in `resolve.rs`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Deserializer};

use super::nearest::nearest;
use super::problem::Wrong;
use super::schema::{Setting, Shape};
use super::tree::{Node, Value};
use crate::core::settings::{Action, Against, Mode, Redeploy, Severity};
use crate::telemetry::LogFormat;

/// One second, in the unit of [`Span`]'s bounds.
pub(super) const SECOND: u64 = 1000;
/// One minute.
pub(super) const MINUTE: u64 = 60 * SECOND;
/// One hour.
pub(super) const HOUR: u64 = 60 * MINUTE;
/// One day.
pub(super) const DAY: u64 = 24 * HOUR;

/// The longest value that a message repeats.
const QUOTED: usize = 80;

/// A value that is typed as a text.
pub(super) trait Parse: Sized {
    /// What would be right.
    const RIGHT: &'static str;
    /// Its value must not be shown.
    const SECRET: bool = false;

    fn parse(text: &str) -> Result<Self, Wrong>;
}

/// Reads a text that `T` accepts.
fn read_text<T: Parse>(node: &Node) -> Result<Value, Wrong> {
    match &node.value {
        Value::Text(text) | Value::Loose(text) => T::parse(text).map(|_| Value::Text(text.clone())),
        Value::Null => Err(Wrong::new("has no value", T::RIGHT)),
        Value::Integer(_)
        | Value::Float(_)
        | Value::Bool(_)
        | Value::Date(_)
        | Value::List(_)
        | Value::Table(_) => {
            let what = if T::SECRET { "its value".to_owned() } else { shown(node) };
            Err(Wrong::new(format!("{what} is not a text in quotes"), T::RIGHT))
        }
    }
}

/// Implements [`Setting`] and `Deserialize` for types that are typed as texts.
macro_rules! text_settings {
    ($([$($bounds:tt)*] $type:ty;)*) => {$(
        impl<$($bounds)*> Setting for $type {
            const SHAPE: &'static Shape = &Shape::Leaf {
                read: read_text::<Self>,
                secret: <Self as Parse>::SECRET,
            };
        }

        impl<'de, $($bounds)*> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    )*};
}

text_settings! {
    [const FIRST: u64, const LAST: u64] Span<FIRST, LAST>;
    [] Name;
    [] Directory;
    [] Listen;
    [] EngineHost;
    [] LogLevel;
    [] HttpUrl;
    [] UrlPath;
    [] SecretUrl;
    [] Token;
    [] SecretFile;
}

/// A time from `FIRST` to `LAST` milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span<const FIRST: u64, const LAST: u64>(pub(super) Duration);

impl<const FIRST: u64, const LAST: u64> Parse for Span<FIRST, LAST> {
    const RIGHT: &'static str = "a number and a unit would be right, as in \"30s\", \"5m\" or \"1h 30m\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let span = humantime::parse_duration(text.trim()).map_err(|_| {
            let bare = text.trim().parse::<f64>().is_ok();
            let wrong = if bare { "is a number without a unit" } else { "is not a duration" };
            Wrong::new(format!("{} {wrong}", quoted(text)), Self::RIGHT)
        })?;
        let (first, last) = (Duration::from_millis(FIRST), Duration::from_millis(LAST));
        if (first..=last).contains(&span) {
            return Ok(Self(span));
        }
        let wrong = if span < first { "is too short" } else { "is too long" };
        let right = format!("from {} to {} would be right", time(first), time(last));
        Err(Wrong::new(format!("{} {wrong}", quoted(text)), right))
    }
}

/// A name for people: one short line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(pub(super) String);

impl Parse for Name {
    const RIGHT: &'static str = "a short name in quotes would be right, as in \"production\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let fits = (1..=64).contains(&text.chars().count());
        if fits && !text.contains(char::is_control) && text.trim() == text {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new(
            format!("{} is not a name", quoted(text)),
            "one line of 1 to 64 characters would be right, as in \"production\"",
        ))
    }
}

/// An absolute directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directory(pub(super) PathBuf);

impl Parse for Directory {
    const RIGHT: &'static str = "an absolute path would be right, as in \"/var/lib/backstop\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let path = PathBuf::from(text);
        if path.is_absolute() && !text.contains('\0') {
            return Ok(Self(path));
        }
        Err(Wrong::new(format!("{} is not an absolute path", quoted(text)), Self::RIGHT))
    }
}

/// Address and port to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listen(pub(super) SocketAddr);

impl Parse for Listen {
    const RIGHT: &'static str =
        "an address and a port would be right, as in \"127.0.0.1:9797\" (this host only) or \"0.0.0.0:9797\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = || Wrong::new(format!("{} is not an address with a port", quoted(text)), Self::RIGHT);
        text.parse().map(Self).map_err(|_| wrong())
    }
}

/// Where the Docker Engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EngineHost(pub(super) String);

impl Parse for EngineHost {
    const RIGHT: &'static str =
        "unix:// and a path, or tcp:// and host:port would be right, as in \"unix:///var/run/docker.sock\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let socket = text.strip_prefix("unix://").is_some_and(|path| path.starts_with('/'));
        let tcp = text.strip_prefix("tcp://").is_some_and(|rest| {
            let authority = rest.strip_suffix('/').unwrap_or(rest);
            let uri = format!("http://{authority}/").parse::<http::Uri>();
            !authority.contains('/')
                && uri.is_ok_and(|uri| uri.port_u16().is_some() && uri.host() != Some(""))
        });
        if socket || tcp {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new(format!("{} is not the address of an engine", quoted(text)), Self::RIGHT))
    }
}

/// How much is logged: a level, or levels by module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogLevel(pub(super) String);

impl Parse for LogLevel {
    const RIGHT: &'static str =
        "error, warn, info, debug, trace or off would be right, or modules too, as in \"info,hyper=warn\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let levels = ["off", "error", "warn", "info", "debug", "trace"];
        let mut parts = text.split(',').map(str::trim);
        let valid = parts.all(|part| match part.split_once('=') {
            None => levels.contains(&part),
            Some((module, level)) => {
                let module_ok = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
                !module.is_empty() && module.chars().all(module_ok) && levels.contains(&level)
            }
        });
        if valid {
            return Ok(Self(text.to_owned()));
        }
        let right = nearest(text, levels).map(|near| format!("did you mean \"{near}\"?"));
        let wrong = format!("{} is not a log level", quoted(text));
        Err(Wrong::new(wrong, right.unwrap_or_else(|| Self::RIGHT.into())))
    }
}

/// The address of a health endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HttpUrl(pub(super) String);

impl Parse for HttpUrl {
    const RIGHT: &'static str =
        "an http or https URL would be right, as in \"http://127.0.0.1:8080/healthz\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if is_http_url(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new(format!("{} is not a URL that can be asked", quoted(text)), Self::RIGHT))
    }
}

/// The path of a health endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UrlPath(pub(super) String);

impl Parse for UrlPath {
    const RIGHT: &'static str = "a path that begins with / would be right, as in \"/healthz\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text.starts_with('/') && !text.starts_with("//") && is_http_url(&format!("http://host{text}")) {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new(format!("{} is not the path of a URL", quoted(text)), Self::RIGHT))
    }
}

/// An address that lets in whoever knows it.
#[derive(Debug, Clone)]
pub(super) struct SecretUrl(pub(super) SecretString);

impl Parse for SecretUrl {
    const RIGHT: &'static str = "the whole address would be right, beginning with https:// or http://";
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        if is_http_url(text) {
            return Ok(Self(text.into()));
        }
        Err(Wrong::new("is not a URL (not shown: it is a secret)", Self::RIGHT))
    }
}

/// What operators show to be let in.
#[derive(Debug, Clone)]
pub(super) struct Token(pub(super) SecretString);

impl Parse for Token {
    const RIGHT: &'static str =
        "16 to 512 letters, digits and signs without spaces would be right, as `openssl rand -hex 32` prints";
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        // It travels in a header; and what can be guessed guards nothing.
        if (16..=512).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(Self(text.into()));
        }
        let wrong = if text.len() < 16 { "is too short to be a secret" } else { "is not a token" };
        Err(Wrong::new(wrong, Self::RIGHT))
    }
}

/// The name of a file that holds a secret: a systemd credential's name, or an absolute path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SecretFile(pub(super) String);

impl Parse for SecretFile {
    const RIGHT: &'static str =
        "a file would be right, as in \"/run/secrets/backstop-token\", or the name of a systemd credential";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let climbs = text.split('/').any(|part| part == "..");
        if !text.is_empty() && !text.contains('\0') && (text.starts_with('/') || !climbs) {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new(format!("{} is not the name of a file", quoted(text)), Self::RIGHT))
    }
}

/// A whole number from `FIRST` to `LAST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(super) struct Count<const FIRST: u32, const LAST: u32>(pub(super) u32);

impl<const FIRST: u32, const LAST: u32> Setting for Count<FIRST, LAST> {
    const SHAPE: &'static Shape = &Shape::Leaf { read: read_count::<FIRST, LAST>, secret: false };
}

fn read_count<const FIRST: u32, const LAST: u32>(node: &Node) -> Result<Value, Wrong> {
    let right = || format!("a whole number from {FIRST} to {LAST} would be right");
    let number = match &node.value {
        Value::Integer(number) => Some(*number),
        Value::Loose(text) => text.trim().parse().ok(),
        Value::Text(_)
        | Value::Float(_)
        | Value::Bool(_)
        | Value::Date(_)
        | Value::Null
        | Value::List(_)
        | Value::Table(_) => None,
    };
    let Some(number) = number else {
        return Err(Wrong::new(format!("{} is not a whole number", shown(node)), right()));
    };
    if (i64::from(FIRST)..=i64::from(LAST)).contains(&number) {
        return Ok(Value::Integer(number));
    }
    Err(Wrong::new(format!("{number} is out of range"), right()))
}

/// A positive number.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(transparent)]
pub(super) struct Number(pub(super) f64);

impl Setting for Number {
    const SHAPE: &'static Shape = &Shape::Leaf { read: read_number, secret: false };
}

fn read_number(node: &Node) -> Result<Value, Wrong> {
    let number = match &node.value {
        Value::Float(number) => Some(*number),
        // Nobody's threshold has more than 2^32.
        Value::Integer(number) => u32::try_from(*number).ok().map(f64::from),
        Value::Loose(text) => text.trim().parse().ok(),
        Value::Text(_) | Value::Bool(_) | Value::Date(_) | Value::Null | Value::List(_) | Value::Table(_) => {
            None
        }
    };
    match number {
        Some(number) if number.is_finite() && number > 0.0 => Ok(Value::Float(number)),
        _ => Err(Wrong::new(
            format!("{} is not a number above zero", shown(node)),
            "a number would be right, as in 2 or 0.9",
        )),
    }
}

impl Setting for bool {
    const SHAPE: &'static Shape = &Shape::Leaf { read: read_bool, secret: false };
}

fn read_bool(node: &Node) -> Result<Value, Wrong> {
    let bool = match &node.value {
        Value::Bool(bool) => Some(*bool),
        Value::Loose(text) => text.trim().parse().ok(),
        Value::Text(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Date(_)
        | Value::Null
        | Value::List(_)
        | Value::Table(_) => None,
    };
    bool.map(Value::Bool).ok_or_else(|| {
        Wrong::new(
            format!("{} is neither true nor false", shown(node)),
            "true or false without quotes would be right",
        )
    })
}

/// The statuses that pass, as inclusive ranges. Kept in the shortest form that means the same as what was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statuses(pub(super) Vec<(u16, u16)>);

impl Setting for Statuses {
    const SHAPE: &'static Shape = &Shape::Leaf { read: read_statuses, secret: false };
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let ranges: Result<_, _> = texts.iter().map(|text| status_range(text)).collect();
        ranges.map(Self).map_err(serde::de::Error::custom)
    }
}

/// A list of ranges, or one text with commas; becomes a list of texts.
fn read_statuses(node: &Node) -> Result<Value, Wrong> {
    let texts: Vec<String> = match &node.value {
        Value::Text(text) | Value::Loose(text) => {
            text.split(',').map(|text| text.trim().to_owned()).collect()
        }
        Value::Integer(number) => vec![number.to_string()],
        Value::List(items) => items.iter().map(shown_bare).collect(),
        Value::Float(_) | Value::Bool(_) | Value::Date(_) | Value::Null | Value::Table(_) => {
            vec![shown(node)]
        }
    };
    // More ranges than this say nothing that fewer could not.
    if !(1..=16).contains(&texts.len()) {
        return Err(Wrong::new(format!("has {} ranges", texts.len()), STATUSES));
    }
    for text in &texts {
        status_range(text)?;
    }
    let text_node = |text| Node { place: node.place.clone(), value: Value::Text(text) };
    Ok(Value::List(texts.into_iter().map(text_node).collect()))
}

const STATUSES: &str = "statuses from 100 to 599 would be right, as in [\"200-399\", \"404\"]";

fn status_range(text: &str) -> Result<(u16, u16), Wrong> {
    let wrong = |what: &str| Wrong::new(format!("{} {what}", quoted(text)), STATUSES);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number =
        |text: &str| text.trim().parse::<u16>().map_err(|_| wrong("is not a range of HTTP statuses"));
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(wrong("is a range from high to low"));
    }
    if first < 100 || last > 599 {
        return Err(wrong("has statuses that do not exist"));
    }
    Ok((first, last))
}

/// A closed list of words.
pub(super) trait Words: Copy + 'static {
    const WORDS: &'static [(&'static str, Self)];
}

fn read_word<T: Words>(node: &Node) -> Result<Value, Wrong> {
    let words = || T::WORDS.iter().map(|(word, _)| *word);
    let (Value::Text(typed) | Value::Loose(typed)) = &node.value else {
        return Err(Wrong::new(format!("{} is not a word", shown(node)), one_of(words())));
    };
    if words().any(|word| word == typed) {
        return Ok(Value::Text(typed.clone()));
    }
    let right = match nearest(typed, words()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => one_of(words()),
    };
    Err(Wrong::new(format!("{} is not one of its words", quoted(typed)), right))
}

fn one_of(words: impl Iterator<Item = &'static str>) -> String {
    let words: Vec<_> = words.map(|word| format!("{word:?}")).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last} would be right", rest.join(", ")),
        _ => words.concat(),
    }
}

macro_rules! words {
    ($($type:ty { $($word:literal => $variant:ident),* $(,)? })*) => {$(
        impl Words for $type {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant)),*];
        }

        impl Setting for $type {
            const SHAPE: &'static Shape = &Shape::Leaf {
                read: read_word::<Self>,
                secret: false,
            };
        }
    )*};
}

words! {
    Mode { "act" => Act, "dry-run" => DryRun }
    Redeploy { "watch" => Watch, "refuse" => Refuse }
    Severity { "critical" => Critical, "high" => High, "medium" => Medium, "low" => Low }
    Action { "rollback" => Rollback, "evaluate" => Evaluate, "monitor" => Monitor, "off" => Off }
    Against { "absolute" => Absolute, "baseline" => Baseline }
    Enroll { "labelled" => Labelled, "all" => All, "named" => Named }
    LogFormat { "auto" => Auto, "text" => Text, "json" => Json }
}

impl<'de> Deserialize<'de> for LogFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let typed = String::deserialize(deserializer)?;
        let found = Self::WORDS.iter().find(|(word, _)| *word == typed);
        found.map(|(_, format)| *format).ok_or_else(|| serde::de::Error::custom("is not a log format"))
    }
}

/// Which containers are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Enroll {
    /// Those that ask for it by label, and those that the configuration names.
    Labelled,
    /// All, except those that refuse by label.
    All,
    /// Those that the configuration names, and no other.
    Named,
}

/// A duration as people write it.
pub(super) fn time(span: Duration) -> impl fmt::Display {
    humantime::format_duration(span)
}

/// A value in quotes, cut if it is long.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{:?}", format!("{}...", &text[..end])),
        None => format!("{text:?}"),
    }
}

/// A value as it was typed.
fn shown(node: &Node) -> String {
    match &node.value {
        Value::Text(text) => quoted(text),
        Value::Loose(text) if text.is_empty() => "nothing".into(),
        Value::Loose(text) => quoted(text),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Bool(bool) => bool.to_string(),
        Value::Date(text) => text.clone(),
        Value::Null => "nothing".into(),
        Value::List(_) => "a list".into(),
        Value::Table(_) => "a section".into(),
    }
}

/// The same without quotes around texts.
fn shown_bare(node: &Node) -> String {
    match &node.value {
        Value::Text(text) | Value::Loose(text) => text.clone(),
        Value::Integer(_)
        | Value::Float(_)
        | Value::Bool(_)
        | Value::Date(_)
        | Value::Null
        | Value::List(_)
        | Value::Table(_) => shown(node),
    }
}

fn is_http_url(text: &str) -> bool {
    // A fragment is never sent, and a space is a slip of the hand.
    let clean = !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#');
    let uri = text.parse::<http::Uri>();
    clean
        && text.len() <= 2048
        && uri.is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree::Place;

    fn said<T: Parse>(text: &str) -> String {
        T::parse(text).err().map_or_else(|| "fine".into(), |wrong| wrong.to_string())
    }

    #[test]
    fn spans_have_units_and_bounds() {
        type Short = Span<SECOND, HOUR>;
        assert_eq!(Short::parse("1m 30s").unwrap().0, Duration::from_secs(90));
        assert!(said::<Short>("15").starts_with("\"15\" is a number without a unit"));
        assert!(said::<Short>("soon").starts_with("\"soon\" is not a duration"));
        assert_eq!(said::<Short>("2h"), "\"2h\" is too long; from 1s to 1h would be right");
        assert_eq!(said::<Short>("0s"), "\"0s\" is too short; from 1s to 1h would be right");
        assert_eq!(said::<Short>("1s"), "fine");
        assert_eq!(said::<Short>("1h"), "fine");
    }

    #[test]
    fn addresses_are_what_they_must_be() {
        for good in
            ["unix:///var/run/docker.sock", "tcp://127.0.0.1:2375", "tcp://proxy:2375/", "tcp://[::1]:2375"]
        {
            assert_eq!(said::<EngineHost>(good), "fine", "{good}");
        }
        for bad in [
            "/var/run/docker.sock",
            "unix://docker.sock",
            "tcp://host",
            "tcp://",
            "ssh://host:22",
            "tcp://a:1/b",
        ] {
            assert_ne!(said::<EngineHost>(bad), "fine", "{bad}");
        }
        for good in ["http://h/x", "https://h:8443", "http://[::1]:80/x?y=z"] {
            assert_eq!(said::<HttpUrl>(good), "fine", "{good}");
        }
        for bad in
            ["", "h/x", "ftp://h", "http://", "http:///x", "http://h/a b", "http://h/#x", "localhost:8080"]
        {
            assert_ne!(said::<HttpUrl>(bad), "fine", "{bad}");
        }
        for (path, good) in
            [("/", true), ("/a?b=c", true), ("a", false), ("//a", false), ("/a b", false), ("", false)]
        {
            assert_eq!(said::<UrlPath>(path) == "fine", good, "{path}");
        }
    }

    #[test]
    fn secrets_are_not_repeated() {
        for text in ["hunter2", "hunter2 with spaces in it", "hunter2\n and more, long enough"] {
            assert!(!said::<Token>(text).contains("hunter2"));
            assert!(!said::<SecretUrl>(text).contains("hunter2"));
        }
        let token = Token::parse("hunter2-hunter2-hunter2").unwrap();
        assert!(!format!("{token:?}").contains("hunter2"));
    }

    #[test]
    fn statuses_are_a_list_or_a_text_with_commas() {
        let node = |value| Node { place: Place::Flag("x".into()), value };
        let read = |value| {
            let value = read_statuses(&node(value)).map_err(|wrong| wrong.to_string())?;
            let value = config::Value::from(node(value));
            Statuses::deserialize(value).map(|statuses| statuses.0).map_err(|error| error.to_string())
        };
        assert_eq!(read(Value::Loose("200-299, 404".into())), Ok(vec![(200, 299), (404, 404)]));
        assert_eq!(read(Value::Integer(204)), Ok(vec![(204, 204)]));
        let list = vec![node(Value::Text("200-399".into())), node(Value::Integer(404))];
        assert_eq!(read(Value::List(list)), Ok(vec![(200, 399), (404, 404)]));
        for bad in ["", "2xx", "399-200", "99", "200-600", "200,,300", "-200"] {
            assert!(read(Value::Loose(bad.into())).is_err(), "{bad}");
        }
        assert!(read(Value::List(Vec::new())).is_err());
    }

    #[test]
    fn every_word_means_to_serde_what_it_means_here() {
        fn check<T: Words + PartialEq + fmt::Debug + serde::de::DeserializeOwned>() {
            for (word, meaning) in T::WORDS {
                let read: T = serde_json::from_value((*word).into()).unwrap();
                assert_eq!(read, *meaning);
            }
        }
        check::<Mode>();
        check::<Redeploy>();
        check::<Severity>();
        check::<Action>();
        check::<Enroll>();
        check::<LogFormat>();
    }
}
