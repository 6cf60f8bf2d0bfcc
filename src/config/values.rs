//! The types of settings that are typed as texts: how each is read, and what is said when it cannot be. Every value
//! has its bounds here, in its type; what depends on other settings is judged in `resolve.rs` and its neighbours.
//! Numbers, words and what only checks and sources need have files of their own.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::nearest::nearest;
use super::problem::Wrong;
use super::tree::{Node, Place, Value};

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
    /// It names a file of this host. A label travels with the release that is judged, which must not choose what of
    /// this host is read, let alone sent away.
    const OF_HOST: bool = false;

    fn parse(text: &str) -> Result<Self, Wrong>;
}

/// Reads a text that `T` accepts.
pub(super) fn read_text<T: Parse>(node: &Node) -> Result<Value, Wrong> {
    if T::OF_HOST && matches!(node.place, Place::Label(_)) {
        return Err(Wrong::new(
            "cannot be set by a label, because no release may choose which file of this host is read",
            "set it in Backstop's own configuration, as in [services.NAME] of conf.d/NAME.toml",
        ));
    }
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
        impl<$($bounds)*> $crate::config::schema::Setting for $type {
            const SHAPE: &'static $crate::config::schema::Shape = &$crate::config::schema::Shape::Leaf {
                read: $crate::config::values::read_text::<Self>,
                secret: <Self as $crate::config::values::Parse>::SECRET,
            };
        }

        impl<'de, $($bounds)*> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    )*};
}
pub(super) use text_settings;

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
    [] ServiceWord;
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

/// The name of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServiceWord(pub(super) String);

impl Parse for ServiceWord {
    const RIGHT: &'static str =
        "the container's name would be right, or PROJECT-SERVICE for Compose, or its label backstop.service";

    fn parse(text: &str) -> Result<Self, Wrong> {
        // What the engine allows in a container's name; others could never be met.
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        // One of a named engine has the engine's name in front.
        let name =
            text.split_once('/').map_or(text, |(engine, name)| if engine.is_empty() { "" } else { name });
        let fits_all = name.chars().all(fits) && text.chars().all(|c| fits(c) || c == '/');
        if (1..=255).contains(&text.len()) && !name.is_empty() && fits_all {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new(format!("{} cannot be the name of a service", quoted(text)), Self::RIGHT))
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
    const RIGHT: &'static str = "unix:// and a path, tcp:// and host:port, or ssh:// and USER@HOST would be right, as in \
         \"unix:///var/run/docker.sock\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let socket = text.strip_prefix("unix://").is_some_and(|path| path.starts_with('/'));
        let tcp = text.strip_prefix("tcp://").is_some_and(|rest| {
            let authority = rest.strip_suffix('/').unwrap_or(rest);
            let uri = format!("http://{authority}/").parse::<http::Uri>();
            !authority.contains('/')
                && uri.is_ok_and(|uri| uri.port_u16().is_some() && uri.host() != Some(""))
        });
        let ssh = text.strip_prefix("ssh://").is_some_and(is_ssh);
        if socket || tcp || ssh {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new(format!("{} is not the address of an engine", quoted(text)), Self::RIGHT))
    }
}

/// `[USER@]HOST[:PORT]`, as the ssh program takes them; nothing that it would take for an option.
fn is_ssh(text: &str) -> bool {
    let text = text.strip_suffix('/').unwrap_or(text);
    let (user, place) = text.rsplit_once('@').map_or((None, text), |(user, place)| (Some(user), place));
    let (host, port) = place.rsplit_once(':').map_or((place, None), |(host, port)| (host, Some(port)));
    let fits = |text: &str| {
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        !text.is_empty() && !text.starts_with('-') && text.chars().all(fine)
    };
    fits(host) && user.is_none_or(fits) && port.is_none_or(|port| port.parse::<u16>().is_ok())
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
pub(super) fn shown(node: &Node) -> String {
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

/// The texts of a list: as a file has it, or with commas between them, as the environment and labels have it. `right` says
/// what would be right.
pub(super) fn listed(node: &Node, right: &'static str) -> Result<Vec<String>, Wrong> {
    match &node.value {
        Value::Loose(text) => Ok(text.split(',').map(|text| text.trim().to_owned()).collect()),
        Value::List(items) => Ok(items.iter().map(shown_bare).collect()),
        Value::Text(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Bool(_)
        | Value::Date(_)
        | Value::Null
        | Value::Table(_) => Err(Wrong::new(format!("{} is not a list", shown(node)), right)),
    }
}

/// A value as it was typed, as [`shown`] has it, without quotes around texts.
pub(super) fn shown_bare(node: &Node) -> String {
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

pub(super) fn is_http_url(text: &str) -> bool {
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
        for good in [
            "unix:///var/run/docker.sock",
            "tcp://127.0.0.1:2375",
            "tcp://[::1]:2375",
            "ssh://ops@east:22",
            "ssh://east",
        ] {
            assert_eq!(said::<EngineHost>(good), "fine", "{good}");
        }
        for bad in [
            "/var/run/docker.sock",
            "unix://docker.sock",
            "tcp://host",
            "tcp://",
            "ssh://-oX=1",
            "ssh://host:x",
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
}
