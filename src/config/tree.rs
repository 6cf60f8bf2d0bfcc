//! A layer of configuration as it was typed: values with the place where each stands. Knows nothing of which
//! keys are valid. Its values may be secrets, so nothing here is ever printed whole.

use std::fmt;
use std::sync::Arc;

/// Where a value was set.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// In a file; line and column count from 1, columns in characters.
    File { path: Arc<str>, line: usize, column: usize },
    /// In an environment variable.
    Variable(String),
    /// By `--set` on the command line.
    Flag(String),
    /// By a label of a container.
    Label(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => write!(f, "{path}:{line}:{column}"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(key) => write!(f, "--set {key}"),
            Self::Label(name) => write!(f, "label {name}"),
        }
    }
}

/// A value and its place.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// What can be typed.
#[derive(Clone)]
pub(super) enum Value {
    /// A string that says that it is one.
    Text(String),
    /// A word whose type is the key's: from YAML without quotes, the environment, a flag, a label.
    Loose(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    /// TOML's dates and times, which no setting wants.
    Date(String),
    /// YAML's nothing.
    Null,
    List(Vec<Node>),
    Table(Vec<Entry>),
}

/// One key of a table.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Where the key stands; the value has its own place.
    pub(super) place: Place,
    pub(super) node: Node,
}

impl Node {
    /// An empty table.
    pub(super) const fn table(place: Place) -> Self {
        Self { place, value: Value::Table(Vec::new()) }
    }

    /// Puts a word at `path`, making the tables on the way. Fails if a word stands in the way.
    pub(super) fn insert(&mut self, path: &[String], place: Place, word: String) -> Result<(), ()> {
        let Value::Table(entries) = &mut self.value else {
            return Err(());
        };
        let Some((first, rest)) = path.split_first() else {
            return Err(());
        };
        let index = entries.iter().position(|entry| entry.name == *first);
        if rest.is_empty() {
            let node = Self { place: place.clone(), value: Value::Loose(word) };
            match index {
                // The last of two flags for one key is the one that counts.
                Some(index) if !matches!(entries[index].node.value, Value::Table(_)) => {
                    entries[index].node = node;
                }
                Some(_) => return Err(()),
                None => entries.push(Entry { name: first.clone(), place, node }),
            }
            return Ok(());
        }
        let index = index.unwrap_or_else(|| {
            entries.push(Entry {
                name: first.clone(),
                place: place.clone(),
                node: Self::table(place.clone()),
            });
            entries.len() - 1
        });
        entries[index].node.insert(rest, place, word)
    }

    /// Calls `visit` with the path and place of every key and item in the tree, parents first. Items count from one, as
    /// people count.
    pub(super) fn each_key(&self, path: &mut Vec<String>, visit: &mut impl FnMut(&[String], &Place)) {
        match &self.value {
            Value::Table(entries) => {
                for entry in entries {
                    path.push(entry.name.clone());
                    visit(path, &entry.place);
                    entry.node.each_key(path, visit);
                    path.pop();
                }
            }
            Value::List(items) => {
                for (number, item) in (1..).zip(items) {
                    path.push(number.to_string());
                    visit(path, &item.place);
                    item.each_key(path, visit);
                    path.pop();
                }
            }
            Value::Text(_)
            | Value::Loose(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Bool(_)
            | Value::Date(_)
            | Value::Null => {}
        }
    }
}

impl From<Node> for config::Value {
    fn from(node: Node) -> Self {
        use config::ValueKind;
        let kind = match node.value {
            Value::Text(text) | Value::Loose(text) | Value::Date(text) => ValueKind::String(text),
            Value::Integer(number) => ValueKind::I64(number),
            Value::Float(number) => ValueKind::Float(number),
            Value::Bool(bool) => ValueKind::Boolean(bool),
            Value::Null => ValueKind::Nil,
            Value::List(nodes) => ValueKind::Array(nodes.into_iter().map(Self::from).collect()),
            Value::Table(entries) => ValueKind::Table(
                entries.into_iter().map(|entry| (entry.name, Self::from(entry.node))).collect(),
            ),
        };
        Self::new(Some(&node.place.to_string()), kind)
    }
}

/// `services."web.prod".trial`: the path as it would be typed in TOML.
pub(super) fn dotted(path: &[String]) -> String {
    path.iter()
        .map(|name| {
            let bare =
                !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
            if bare { name.clone() } else { format!("{name:?}") }
        })
        .collect::<Vec<_>>()
        .join(".")
}

/// Splits `services."web.prod".trial` into its names, by TOML's rules for keys.
pub(super) fn split(key: &str) -> Option<Vec<String>> {
    // A newline would end the key and begin something else.
    if key.contains('\n') {
        return None;
    }
    let text = format!("{key} = 0");
    let mut table = toml::de::DeTable::parse(&text).ok()?.into_inner();
    let mut path = Vec::new();
    loop {
        let (name, value) = table.into_iter().next()?;
        path.push(name.into_inner().into_owned());
        match value.into_inner() {
            toml::de::DeValue::Table(next) => table = next,
            _ => return Some(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_split_and_joined_by_the_same_rules() {
        for (key, names) in [
            ("mode", vec!["mode"]),
            ("api.listen", vec!["api", "listen"]),
            (r#"services."web.prod".trial"#, vec!["services", "web.prod", "trial"]),
        ] {
            let path = split(key).unwrap();
            assert_eq!(path, names);
            assert_eq!(dotted(&path), key);
        }
        for nonsense in ["", "a b", "a..b", "a = 1\nb", "a.", "[a]"] {
            assert_eq!(split(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_word_cannot_stand_where_a_table_stands() {
        let place = || Place::Flag("x".into());
        let path = |text: &str| split(text).unwrap();
        let mut root = Node::table(place());
        assert_eq!(root.insert(&path("a.b"), place(), "1".into()), Ok(()));
        assert_eq!(root.insert(&path("a.b"), place(), "2".into()), Ok(()));
        assert_eq!(root.insert(&path("a"), place(), "3".into()), Err(()));
        assert_eq!(root.insert(&path("a.b.c"), place(), "4".into()), Err(()));
    }
}
