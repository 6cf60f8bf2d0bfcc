//! Reads TOML and YAML into trees that know where everything stands. All that is refused here is refused because
//! it cannot be read; whether it means anything is `schema.rs`'s business.

use std::sync::Arc;

use toml::de::{DeTable, DeValue};
use yaml_rust2::parser::{Event, Parser};
use yaml_rust2::scanner::{Marker, ScanError, TScalarStyle};

use super::problem::{Problem, Wrong};
use super::tree::{Entry, Node, Place, Value};

/// Tables in tables in tables: no setting is deeper than five, and a parser's stack is not to be tried.
const DEEPEST: usize = 16;

/// So many syntax errors of one file are reported: the later ones are mostly echoes of the first.
const SYNTAX_ERRORS: usize = 5;

/// What the keys of secrets have in them: addresses that let somebody in, headers, and bodies of log-ins.
const MAY_BE_SECRET: [&str; 10] =
    ["token", "url", "header", "auth", "body", "key", "secret", "cookie", "password", "steps"];

/// The two ways to write a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Toml,
    Yaml,
}

impl Format {
    /// By the file's extension.
    pub(super) fn of(path: &std::path::Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "toml" => Some(Self::Toml),
            "yaml" | "yml" => Some(Self::Yaml),
            _ => None,
        }
    }
}

/// Reads `text`, which stands in the file that is called `path` in messages.
pub(super) fn parse(format: Format, path: &str, text: &str) -> Result<Node, Vec<Problem>> {
    let source = Source::new(format, path, text);
    match format {
        Format::Toml => parse_toml(&source),
        Format::Yaml => parse_yaml(&source).map_err(|problem| vec![problem]),
    }
}

/// A file's text, with its lines.
struct Source<'a> {
    path: Arc<str>,
    format: Format,
    text: &'a str,
    line_starts: Vec<usize>,
}

impl<'a> Source<'a> {
    fn new(format: Format, path: &str, text: &'a str) -> Self {
        let after_newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            path: path.into(),
            format,
            text,
            line_starts: std::iter::once(0).chain(after_newlines).collect(),
        }
    }

    /// The place of a byte offset.
    fn at(&self, offset: usize) -> Place {
        let offset = (0..=offset.min(self.text.len()))
            .rev()
            .find(|offset| self.text.is_char_boundary(*offset))
            .unwrap_or(0);
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = self.line_starts[line - 1];
        Place::File { path: self.path.clone(), line, column: self.text[start..offset].chars().count() + 1 }
    }

    /// The place of a YAML marker, whose columns count from 0.
    fn marked(&self, marker: Marker) -> Place {
        Place::File { path: self.path.clone(), line: marker.line(), column: marker.col() + 1 }
    }

    fn problem(&self, place: &Place, what: Wrong) -> Problem {
        Problem::new(place, "", what).with_excerpt(self.excerpt(place))
    }

    /// The line and a caret under the column. A line that may hold a secret is shown up to its key only; one
    /// that does not show which key it belongs to is not shown at all.
    fn excerpt(&self, place: &Place) -> Option<String> {
        let Place::File { line, column, .. } = place else {
            return None;
        };
        let text = self.text.lines().nth(line - 1)?.trim_end();
        let head = text.trim_start().trim_start_matches("- ");
        let key_end = text.find(['=', ':']);
        let belongs_to_a_key = head.starts_with('[')
            || head.starts_with('#')
            || key_end.is_some() && head.starts_with(|c: char| c.is_alphanumeric() || c == '"' || c == '\'');
        if !belongs_to_a_key {
            return None;
        }
        let names_a_secret = |line: &str| {
            let line = line.trim().to_ascii_lowercase();
            let toml = self.format == Format::Toml;
            let heading = toml && line.starts_with('[') && line.ends_with(']') && !line.contains('=');
            !heading && MAY_BE_SECRET.iter().any(|word| line.contains(word))
        };
        // Only where a line shows that the secret ends on it can a later line be no part of it.
        let ends_here = |line: &str| {
            let line = line.trim_end();
            self.format == Format::Toml
                && line.ends_with(['"', '\''])
                && !line.contains("\"\"\"")
                && !line.contains("'''")
        };
        let mut before = self.text.lines().take(line - 1).filter(|line| !line.trim_start().starts_with('#'));
        if before.any(|line| names_a_secret(line) && !ends_here(line)) {
            return None;
        }
        let hidden = names_a_secret(text);
        let number = line.to_string();
        let shown = match (hidden, key_end) {
            (true, Some(end)) => return Some(format!("  {number} | {} ...", &text[..=end])),
            (true, None) => return None,
            (false, _) => text.replace('\t', " "),
        };
        let margin = " ".repeat(number.len());
        let caret = " ".repeat(column - 1);
        Some(format!("  {number} | {shown}\n  {margin} | {caret}^"))
    }
}

fn parse_toml(source: &Source<'_>) -> Result<Node, Vec<Problem>> {
    let (table, errors) = DeTable::parse_recoverable(source.text);
    if !errors.is_empty() {
        return Err(errors
            .iter()
            .take(SYNTAX_ERRORS)
            .map(|error| {
                let place = source.at(error.span().map_or(0, |span| span.start));
                let message = error.message().replace('\n', ", ");
                source.problem(&place, Wrong::new(format!("this is not TOML: {message}"), ""))
            })
            .collect());
    }
    let mut problems = Vec::new();
    let place = source.at(0);
    let root = toml_node(source, place, DeValue::Table(table.into_inner()), 0, &mut problems);
    if problems.is_empty() { Ok(root) } else { Err(problems) }
}

fn toml_node(
    source: &Source<'_>,
    place: Place,
    value: DeValue<'_>,
    depth: usize,
    problems: &mut Vec<Problem>,
) -> Node {
    if depth > DEEPEST {
        problems.push(source.problem(&place, too_deep()));
        return Node::table(place);
    }
    let value = match value {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Date(number.as_str().to_owned()),
        },
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(bool) => Value::Bool(bool),
        DeValue::Datetime(date) => Value::Date(date.to_string()),
        DeValue::Array(items) => Value::List(
            items
                .into_iter()
                .map(|item| {
                    let place = source.at(item.span().start);
                    toml_node(source, place, item.into_inner(), depth + 1, problems)
                })
                .collect(),
        ),
        DeValue::Table(table) => {
            // In the order of the file, whatever order the parser's map has.
            let mut pairs: Vec<_> = table.into_iter().collect();
            pairs.sort_by_key(|(key, _)| key.span().start);
            let mut entry = |(key, value): (toml::Spanned<_>, toml::Spanned<DeValue<'_>>)| {
                let place = source.at(key.span().start);
                let at = source.at(value.span().start);
                let name: toml::de::DeString<'_> = key.into_inner();
                Entry {
                    name: name.into_owned(),
                    place,
                    node: toml_node(source, at, value.into_inner(), depth + 1, problems),
                }
            };
            Value::Table(pairs.into_iter().map(&mut entry).collect())
        }
    };
    Node { place, value }
}

fn too_deep() -> Wrong {
    Wrong::new("too many values inside each other", "no setting is deeper than five")
}

/// A list or a table that is being read.
enum Frame {
    List(Place, Vec<Node>),
    /// With the key whose value comes next.
    Table(Place, Vec<Entry>, Option<(String, Place)>),
}

fn parse_yaml(source: &Source<'_>) -> Result<Node, Problem> {
    let mut parser = Parser::new_from_str(source.text);
    let mut frames: Vec<Frame> = Vec::new();
    let mut root: Option<Node> = None;
    loop {
        // Event by event: the parser's own driver recurses, so a file of brackets would exhaust the stack.
        let (event, marker) = parser.next_token().map_err(|error| not_yaml(source, &error))?;
        let place = source.marked(marker);
        let finished = match event {
            Event::StreamEnd => break,
            Event::Nothing | Event::StreamStart | Event::DocumentEnd => None,
            Event::DocumentStart if root.is_none() => None,
            Event::DocumentStart => {
                let what =
                    Wrong::new("a second document begins", "one file is one document: remove the `---`");
                return Err(source.problem(&place, what));
            }
            Event::Alias(_) => {
                let what = Wrong::new("aliases are not understood", "write the value out");
                return Err(source.problem(&place, what));
            }
            Event::Scalar(.., Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                let what = Wrong::new("tags are not understood", "write the plain value");
                return Err(source.problem(&place, what));
            }
            Event::Scalar(text, style, _, None) => Some(Node { place, value: yaml_scalar(text, style) }),
            Event::SequenceStart(..) | Event::MappingStart(..) if frames.len() >= DEEPEST => {
                return Err(source.problem(&place, too_deep()));
            }
            Event::SequenceStart(..) => {
                frames.push(Frame::List(place, Vec::new()));
                None
            }
            Event::MappingStart(..) => {
                frames.push(Frame::Table(place, Vec::new(), None));
                None
            }
            Event::SequenceEnd | Event::MappingEnd => frames.pop().map(|frame| match frame {
                Frame::List(place, nodes) => Node { place, value: Value::List(nodes) },
                Frame::Table(place, entries, _) => Node { place, value: Value::Table(entries) },
            }),
        };
        if let Some(node) = finished {
            match frames.last_mut() {
                None => root = Some(node),
                Some(frame) => put(source, frame, node)?,
            }
        }
    }
    let empty = || Node::table(source.at(0));
    Ok(match root {
        None => empty(),
        Some(node) if matches!(node.value, Value::Null) => empty(),
        Some(node) => node,
    })
}

fn yaml_scalar(text: String, style: TScalarStyle) -> Value {
    match style {
        TScalarStyle::Plain if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") => Value::Null,
        // The key decides the type, so that `1.10` and `010` stay what was typed where a text is wanted.
        TScalarStyle::Plain => Value::Loose(text),
        TScalarStyle::SingleQuoted
        | TScalarStyle::DoubleQuoted
        | TScalarStyle::Literal
        | TScalarStyle::Folded => Value::Text(text),
    }
}

/// Adds what was read to the list or table that it stands in.
fn put(source: &Source<'_>, frame: &mut Frame, node: Node) -> Result<(), Problem> {
    match frame {
        Frame::List(_, nodes) => nodes.push(node),
        Frame::Table(_, entries, next) => match next.take() {
            Some((name, place)) => entries.push(Entry { name, place, node }),
            None => {
                let (Value::Text(name) | Value::Loose(name)) = node.value else {
                    let what = Wrong::new("this cannot be a key", "a key is a word");
                    return Err(source.problem(&node.place, what));
                };
                if entries.iter().any(|entry| entry.name == name) {
                    let what = Wrong::new(format!("the key {name:?} is here twice"), "remove one of them");
                    return Err(source.problem(&node.place, what));
                }
                *next = Some((name, node.place));
            }
        },
    }
    Ok(())
}

fn not_yaml(source: &Source<'_>, error: &ScanError) -> Problem {
    let place = source.marked(*error.marker());
    let what = Wrong::new(format!("this is not YAML: {}", error.info()), "");
    source.problem(&place, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(format: Format, text: &str) -> Vec<String> {
        let root = parse(format, "f", text).unwrap();
        let mut seen = Vec::new();
        root.each_key(&mut Vec::new(), &mut |path, place| {
            seen.push(format!("{} {place}", super::super::tree::dotted(path)));
        });
        seen
    }

    #[test]
    fn both_formats_know_where_keys_stand() {
        let toml = "mode = \"act\"\n\n[defaults]\n  \"\u{fc}\" = {x = 1}\n[defaults.health]\nport = 80\n";
        assert_eq!(
            places(Format::Toml, toml),
            [
                "mode f:1:1",
                "defaults f:3:2",
                "defaults.\"\u{fc}\" f:4:3",
                "defaults.\"\u{fc}\".x f:4:10",
                "defaults.health f:5:11",
                "defaults.health.port f:6:1"
            ]
        );
        let yaml = "mode: act\n\ndefaults:\n  health:\n    port: 80\n    x: {y: 1}\n";
        assert_eq!(
            places(Format::Yaml, yaml),
            [
                "mode f:1:1",
                "defaults f:3:1",
                "defaults.health f:4:3",
                "defaults.health.port f:5:5",
                "defaults.health.x f:6:5",
                "defaults.health.x.y f:6:9"
            ]
        );
    }

    #[test]
    fn a_pit_of_brackets_is_refused_and_not_fallen_into() {
        for text in ["[".repeat(100_000), "- ".repeat(100_000), "a: {".repeat(10_000)] {
            assert!(parse(Format::Yaml, "f", &text).is_err());
        }
        for text in [format!("a = {}", "[".repeat(100_000)), format!("a{} = 1", ".a".repeat(1000))] {
            assert!(parse(Format::Toml, "f", &text).is_err());
        }
    }

    #[test]
    fn excerpts_never_show_what_may_be_a_secret() {
        for text in [
            "[api]\ntoken = \"hunter2",
            "token = hunter2 x",
            "[notify]\nwebhook = { url = \"https://hooks/hunter2",
            "token = \"\"\"\nhunter2 = \n",
            "token = [\nhunter2\n",
            "headers = { Authorization = \"hunter2",
            "[defaults.health.headers]\nX-Api-Key = \"hunter2\" \"hunter2\"",
            "body = \'\'\'\nhunter2\n",
            "steps = [\n{ body = \"x\" },\nhunter2\n",
            "[api]\ntoken = \"hunter2\" \"hunter2\"",
        ] {
            for problem in parse(Format::Toml, "f", text).err().unwrap() {
                assert!(!problem.to_string().contains("hunter2"), "{text}\n{problem}");
            }
        }
        for text in [
            "api:\n  token: \"hunter2",
            "token: &a hunter2\nb: *a",
            "a: 1\ntoken: [hunter2",
            "token: >\n hunter2\n- x",
            "token:\n  hunter2: a: b",
        ] {
            let problem = parse(Format::Yaml, "f", text).err().map(|p| p[0].to_string()).unwrap_or_default();
            assert!(!problem.contains("hunter2"), "{text}\n{problem}");
        }
    }

    #[test]
    fn yaml_keeps_what_was_typed() {
        let root = parse(Format::Yaml, "f", "a: 1.10\nb: 010\nc: '5'\nd:\ne: ~\n").unwrap();
        let Value::Table(entries) = root.value else { panic!("no table") };
        let texts: Vec<_> = entries
            .iter()
            .map(|entry| match &entry.node.value {
                Value::Loose(text) => format!("loose {text}"),
                Value::Text(text) => format!("text {text}"),
                Value::Null => "null".into(),
                _ => "other".into(),
            })
            .collect();
        assert_eq!(texts, ["loose 1.10", "loose 010", "text 5", "null", "null"]);
    }
}
