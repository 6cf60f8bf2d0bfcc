//! Settings of checks: what is sent, where to, and what must come back.

use serde::{Deserialize, Deserializer};

use super::nearest::nearest;
use super::problem::Wrong;
use super::schema::{Named, Setting, Shape};
use super::tree::{Node, Value};
use super::values::{Parse, is_http_url, listed, quoted, read_text, shown, shown_bare, text_settings};
use crate::signal::check::json_path;

text_settings! {
    [] HostPort;
    [] GrpcAddress;
    [] GrpcService;
    [] Method;
    [] Body;
    [] Content;
    [] JsonPath;
    [] HostFile;
    [] KeptFile;
}

/// `host:port`, as TCP wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostPort(pub(super) String);

impl Parse for HostPort {
    const RIGHT: &'static str = "a host and a port would be right, as in \"db:5432\" or \"[::1]:5432\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if is_host_port(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new(format!("{} is not a host with a port", quoted(text)), Self::RIGHT))
    }
}

fn is_host_port(text: &str) -> bool {
    text.len() <= 300
        && !text.contains('@')
        && text.parse::<http::uri::Authority>().is_ok_and(|authority| {
            !authority.host().is_empty() && authority.port_u16().is_some_and(|port| port > 0)
        })
}

/// A gRPC server: `host:port`, or the same after `http://` or `https://`. Kept as a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GrpcAddress(pub(super) String);

impl Parse for GrpcAddress {
    const RIGHT: &'static str =
        "a host and a port would be right, as in \"api:50051\", or with TLS \"https://api:50051\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let authority = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        if authority.is_some_and(is_host_port) {
            return Ok(Self(url));
        }
        Err(Wrong::new(format!("{} is not the address of a gRPC server", quoted(text)), Self::RIGHT))
    }
}

/// The service that a gRPC server is asked about, as its protocol calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GrpcService(pub(super) String);

impl Parse for GrpcService {
    const RIGHT: &'static str =
        "a name would be right, as in \"shop.v1.Orders\"; without one the server is asked about itself";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
        if (1..=200).contains(&text.len()) && text.chars().all(fits) {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new(format!("{} is not the name of a gRPC service", quoted(text)), Self::RIGHT))
    }
}

/// An HTTP method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Method(pub(super) String);

impl Parse for Method {
    const RIGHT: &'static str = "GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS would be right";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
        if methods.contains(&text) {
            return Ok(Self(text.to_owned()));
        }
        let near = nearest(text, methods).map(|near| format!("did you mean \"{near}\"?"));
        let wrong = format!("{} is not a method that checks use", quoted(text));
        Err(Wrong::new(wrong, near.unwrap_or_else(|| Self::RIGHT.to_owned())))
    }
}

/// What is sent as the body of a request. It often holds a password, so it is not shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Body(pub(super) String);

impl Parse for Body {
    const RIGHT: &'static str = "a text of at most 64 KiB would be right, as in '{\"ping\": true}'";
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text.len() <= 64 << 10 {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new(format!("has {} bytes", text.len()), Self::RIGHT))
    }
}

/// What a body must have in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content(pub(super) String);

impl Parse for Content {
    const RIGHT: &'static str = "a text of 1 to 1000 bytes would be right, as in \"ready\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if (1..=1000).contains(&text.len()) {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new(format!("has {} bytes", text.len()), Self::RIGHT))
    }
}

/// Where in a JSON body a value stands: `.checks[0].status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JsonPath(pub(super) String);

impl Parse for JsonPath {
    const RIGHT: &'static str =
        "a dot before each name and an index in brackets would be right, as in .checks[0].status";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text.len() > LONGEST_PATH {
            return Err(Wrong::new(format!("{} is too long for a path", quoted(text)), Self::RIGHT));
        }
        match json_path::JsonPath::parse(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            // What would be right stands after the colon, and is said here as everywhere else.
            Err(what) => {
                let wrong = what.split_once(": write it like").map_or(what.as_str(), |(wrong, _)| wrong);
                Err(Wrong::new(wrong, Self::RIGHT))
            }
        }
    }
}

/// Longer paths lead through documents that no check should have to understand.
const LONGEST_PATH: usize = 200;

/// A value that a JSON body must have.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(transparent)]
pub(super) struct JsonValue(pub(super) serde_json::Value);

impl Setting for JsonValue {
    const SHAPE: &'static Shape = &Shape::Leaf { read: read_json, secret: false };
}

impl Named for JsonValue {
    const NAME: &'static str = "PATH";
    const ODD: bool = true;

    fn check(name: &str) -> Result<(), Wrong> {
        JsonPath::parse(name).map(drop)
    }
}

fn read_json(node: &Node) -> Result<Value, Wrong> {
    match &node.value {
        // JSON has no such number: nothing that answers could ever be equal to it.
        Value::Float(number) if !number.is_finite() => Err(Wrong::new(
            format!("{} is no number that JSON has", shown(node)),
            "a text, a finite number, true or false would be right",
        )),
        Value::Text(_) | Value::Integer(_) | Value::Float(_) | Value::Bool(_) => Ok(node.value.clone()),
        // Without quotes it is what it would be in JSON, and a text if it is nothing there.
        Value::Loose(text) => Ok(match serde_json::from_str(text) {
            Ok(serde_json::Value::Bool(bool)) => Value::Bool(bool),
            Ok(serde_json::Value::Number(number)) if number.is_i64() => {
                number.as_i64().map_or_else(|| Value::Text(text.clone()), Value::Integer)
            }
            Ok(serde_json::Value::Number(number)) => {
                number.as_f64().map_or_else(|| Value::Text(text.clone()), Value::Float)
            }
            Ok(serde_json::Value::String(string)) => Value::Text(string),
            _ => Value::Text(text.clone()),
        }),
        Value::Date(_) | Value::Null | Value::List(_) | Value::Table(_) => Err(Wrong::new(
            format!("{} is not a single value", shown(node)),
            "a text, a number, true or false would be right; a longer path leads to what is inside a list or an object",
        )),
    }
}

/// The value of a header: a text, or the file that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum HeaderText {
    Plain(String),
    File { file: KeptFile },
}

impl Setting for HeaderText {
    const SHAPE: &'static Shape = &Shape::Leaf { read: read_header, secret: false };
}

/// Headers whose values let somebody in, by parts of their names.
const PRIVATE: [&str; 6] = ["auth", "token", "key", "secret", "cookie", "password"];

impl Named for HeaderText {
    const NAME: &'static str = "HEADER";

    fn check(name: &str) -> Result<(), Wrong> {
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            let wrong = format!("{} cannot be the name of a header", quoted(name));
            return Err(Wrong::new(wrong, "letters, digits and dashes would be right, as in X-Probe"));
        }
        let own = ["content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade"];
        if own.contains(&name.to_ascii_lowercase().as_str()) {
            let wrong = "this header belongs to the connection, not to the request";
            return Err(Wrong::new(wrong, "remove it"));
        }
        Ok(())
    }

    fn private(name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        PRIVATE.iter().any(|part| name.contains(part))
    }
}

fn read_header(node: &Node) -> Result<Value, Wrong> {
    const RIGHT: &str = "a text in quotes would be right, or { file = \"/run/secrets/...\" } for a secret";
    match &node.value {
        // Whatever it is, it may be a secret.
        Value::Text(text) | Value::Loose(text) => {
            let fits = text.len() <= 8 << 10 && http::HeaderValue::from_str(text).is_ok();
            if fits {
                Ok(Value::Text(text.clone()))
            } else {
                Err(Wrong::new("cannot be sent in a header", RIGHT))
            }
        }
        Value::Table(entries) => match entries.as_slice() {
            [entry] if entry.name == "file" => {
                let file = Node { value: read_text::<KeptFile>(&entry.node)?, ..entry.node.clone() };
                Ok(Value::Table(vec![super::tree::Entry { node: file, ..entry.clone() }]))
            }
            _ => Err(Wrong::new("is neither a text nor { file = ... }", RIGHT)),
        },
        Value::Integer(_)
        | Value::Float(_)
        | Value::Bool(_)
        | Value::Date(_)
        | Value::Null
        | Value::List(_) => Err(Wrong::new("its value is not a text in quotes", RIGHT)),
    }
}

/// Names of values that are carried from one step to the next.
impl Named for JsonPath {
    const NAME: &'static str = "VALUE";

    fn check(name: &str) -> Result<(), Wrong> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if (1..=64).contains(&name.len()) && name.chars().all(fits) {
            return Ok(());
        }
        let wrong = format!("{} cannot be the name of a value", quoted(name));
        Err(Wrong::new(wrong, "letters, digits and _ would be right, as in session_token"))
    }
}

/// A file of this host, by its absolute path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostFile(pub(super) String);

impl Parse for HostFile {
    const RIGHT: &'static str = "an absolute path would be right, as in \"/etc/ssl/internal-ca.pem\"";
    const OF_HOST: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text.starts_with('/') && !text.contains('\0') {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new(format!("{} is not an absolute path", quoted(text)), Self::RIGHT))
    }
}

/// A file whose content is read whenever it is needed: an absolute path, or the name of a systemd credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeptFile(pub(super) String);

impl Parse for KeptFile {
    const RIGHT: &'static str = super::values::SecretFile::RIGHT;
    const OF_HOST: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        super::values::SecretFile::parse(text).map(|file| Self(file.0))
    }
}

/// A program and its arguments, run in the container without a shell.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(super) struct CommandLine(pub(super) Vec<String>);

impl Setting for CommandLine {
    const SHAPE: &'static Shape = &Shape::Leaf { read: read_command, secret: false };
}

fn read_command(node: &Node) -> Result<Value, Wrong> {
    const RIGHT: &str =
        "a list of 1 to 64 texts would be right, as in [\"pg_isready\", \"-q\"]; it is run without a shell";
    let words: Option<Vec<String>> = match &node.value {
        Value::List(items) => items
            .iter()
            .map(|item| match &item.value {
                Value::Text(text) | Value::Loose(text) => Some(text.clone()),
                Value::Integer(number) => Some(number.to_string()),
                Value::Float(_)
                | Value::Bool(_)
                | Value::Date(_)
                | Value::Null
                | Value::List(_)
                | Value::Table(_) => None,
            })
            .collect(),
        // In a label or a flag, the list as Docker's own HEALTHCHECK takes it.
        Value::Loose(text) => serde_json::from_str(text).ok(),
        Value::Text(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Bool(_)
        | Value::Date(_)
        | Value::Null
        | Value::Table(_) => None,
    };
    let fits = |words: &Vec<String>| {
        (1..=64).contains(&words.len())
            && !words[0].is_empty()
            && words.iter().all(|word| word.len() <= 4096 && !word.contains('\0'))
    };
    match words.filter(fits) {
        Some(words) => {
            let item = |text| Node { place: node.place.clone(), value: Value::Text(text) };
            Ok(Value::List(words.into_iter().map(item).collect()))
        }
        None => Err(Wrong::new(format!("{} is not a command", shown(node)), RIGHT)),
    }
}

/// Addresses that answer whenever our own connection is well.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(super) struct Addresses(pub(super) Vec<String>);

impl Setting for Addresses {
    const SHAPE: &'static Shape = &Shape::Leaf { read: read_addresses, secret: false };
}

fn read_addresses(node: &Node) -> Result<Value, Wrong> {
    const RIGHT: &str =
        "at most 8 addresses would be right, as in [\"tcp://1.1.1.1:53\", \"https://example.com/\"]";
    let texts = match &node.value {
        // Of the environment: none.
        Value::Loose(text) if text.trim().is_empty() => Vec::new(),
        _ => listed(node, RIGHT)?,
    };
    if texts.len() > 8 {
        return Err(Wrong::new(format!("has {} addresses", texts.len()), RIGHT));
    }
    let fits = |text: &str| text.strip_prefix("tcp://").map_or_else(|| is_http_url(text), is_host_port);
    if let Some(bad) = texts.iter().find(|text| !fits(text)) {
        return Err(Wrong::new(format!("{} is not an address that can be asked", quoted(bad)), RIGHT));
    }
    let item = |text| Node { place: node.place.clone(), value: Value::Text(text) };
    Ok(Value::List(texts.into_iter().map(item).collect()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree::Place;

    #[test]
    fn json_paths_are_what_checks_can_follow() {
        for good in [".version", ".checks[0].status", ".[0].a", ".a-b", r#".info["build number"]"#] {
            assert!(JsonPath::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "..a", ".a.", ".a[x]", ".a[0", ".a]", ".a b"] {
            let wrong = JsonPath::parse(bad).unwrap_err();
            assert!(!wrong.wrong.contains("write it") && wrong.right == JsonPath::RIGHT, "{bad}: {wrong}");
        }
        assert!(JsonPath::parse(&".a".repeat(101)).is_err());
    }

    #[test]
    fn addresses_have_hosts_and_ports() {
        for (text, good) in [
            ("db:5432", true),
            ("[::1]:5432", true),
            ("10.0.0.1:1", true),
            ("db", false),
            (":5432", false),
            ("db:", false),
            ("db:0", false),
            ("db:99999", false),
            ("a@db:1", false),
            ("db:1/x", false),
            ("d b:1", false),
        ] {
            assert_eq!(HostPort::parse(text).is_ok(), good, "{text}");
            assert_eq!(GrpcAddress::parse(text).is_ok(), good, "{text}");
        }
        assert_eq!(GrpcAddress::parse("https://api:1").unwrap().0, "https://api:1");
        assert_eq!(GrpcAddress::parse("api:1").unwrap().0, "http://api:1");
        assert!(GrpcAddress::parse("ftp://api:1").is_err());
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
}
