//! The shape of the settings: which keys there are and what each takes. Walks one layer against it and finds
//! every mistake in it, where serde would stop at the first. The shapes come from the types in `file.rs`.

use std::collections::BTreeMap;

use super::nearest::nearest;
use super::problem::{Problem, Wrong};
use super::tree::{Entry, Node, Place, Value, dotted};

/// What may stand at a key.
pub(super) enum Shape {
    /// A value.
    Leaf {
        /// The value in the type that the key wants, or what is wrong with it.
        read: fn(&Node) -> Result<Value, Wrong>,
        /// Its value must not be shown.
        secret: bool,
    },
    /// A table of these keys and no others.
    Table {
        keys: &'static [Key],
        /// Where the same thing can be said in several ways: each group is one such choice.
        choices: &'static [&'static [Way]],
    },
    /// A list of tables.
    List {
        /// What each item is.
        of: &'static Self,
        /// The most items.
        most: usize,
    },
    /// A table whose keys are names.
    Map {
        /// What each name leads to.
        of: &'static Self,
        names: Names,
    },
}

/// What the names of a map are.
pub(super) struct Names {
    /// What is wrong with a name, if it is.
    pub(super) check: fn(&str) -> Result<(), Wrong>,
    /// How a name is called in messages: `NAME`.
    pub(super) called: &'static str,
    /// Whether a value under this name must not be shown.
    pub(super) private: fn(&str) -> bool,
    /// Names may have dots and capital letters in them, which labels and variables cannot say.
    pub(super) odd: bool,
}

/// One of several ways to say a thing.
pub(super) struct Way {
    /// Any of these keys chooses this way.
    pub(super) leads: &'static [&'static str],
    /// What can be said besides.
    pub(super) with: &'static [&'static str],
}

impl Way {
    /// Whether a key belongs to it.
    pub(super) fn has(&self, key: &str) -> bool {
        self.leads.contains(&key) || self.with.contains(&key)
    }
}

/// The keys that a lower layer gives up because the higher one, which `has` some keys, speaks of it in another way.
pub(super) fn given_up(
    choices: &'static [&'static [Way]],
    has: impl Fn(&str) -> bool,
) -> impl Iterator<Item = &'static str> {
    choices.iter().flat_map(move |ways| {
        let chosen = ways.iter().find(|way| way.leads.iter().any(|key| has(key)));
        let all = ways.iter().flat_map(|way| way.leads.iter().chain(way.with));
        all.copied().filter(move |key| chosen.is_some_and(|way| !way.has(key)))
    })
}

/// One key of a table.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) shape: &'static Shape,
}

/// A type that a setting can have.
pub(super) trait Setting: Sized {
    /// What is typed for it.
    const SHAPE: &'static Shape;

    /// This value in a lower layer, with the same setting of a higher layer over it.
    fn under(self, higher: Self) -> Self {
        higher
    }
}

/// [`Setting::under`], where either may be missing.
pub(super) fn over<T: Setting>(lower: Option<T>, higher: Option<T>) -> Option<T> {
    match (lower, higher) {
        (Some(lower), Some(higher)) => Some(lower.under(higher)),
        (lower, higher) => higher.or(lower),
    }
}

impl<T: Setting + Named> Setting for BTreeMap<String, T> {
    const SHAPE: &'static Shape = &Shape::Map {
        of: T::SHAPE,
        names: Names { check: T::check, called: T::NAME, private: T::private, odd: T::ODD },
    };

    fn under(mut self, higher: Self) -> Self {
        for (name, value) in higher {
            let lower = self.remove(&name);
            self.extend(over(lower, Some(value)).map(|value| (name, value)));
        }
        self
    }
}

/// What a map's names are.
pub(super) trait Named {
    const NAME: &'static str;
    /// See [`Names::odd`].
    const ODD: bool = false;

    fn check(name: &str) -> Result<(), Wrong>;

    /// See [`Names::private`].
    fn private(_name: &str) -> bool {
        false
    }
}

/// The most steps of a check: a log-in takes two or three.
pub(super) const STEPS_MAX: usize = 10;

impl Setting for Vec<super::file::Step> {
    const SHAPE: &'static Shape = &Shape::List { of: super::file::Step::SHAPE, most: STEPS_MAX };
}

/// What the walk found besides the layer without its mistakes.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    /// Paths of what was taken out: whatever depends on them is not judged.
    pub(super) removed: Vec<Vec<String>>,
}

/// Finds all mistakes of one layer, and returns it without them and with every value in its key's type.
pub(super) fn walk(root: Node, shape: &Shape, findings: &mut Findings) -> Node {
    let place = root.place.clone();
    let mut path = Vec::new();
    Walk { findings, root: shape }.value(root, shape, &mut path).unwrap_or_else(|| Node::table(place))
}

struct Walk<'a> {
    findings: &'a mut Findings,
    /// The whole shape, to tell where a misplaced key belongs.
    root: &'a Shape,
}

impl Walk<'_> {
    fn value(&mut self, node: Node, shape: &Shape, path: &mut Vec<String>) -> Option<Node> {
        match shape {
            Shape::Leaf { read, secret } => match read(&node) {
                Ok(value) => Some(Node { value, ..node }),
                Err(what) => {
                    debug_assert!(!secret || !what.wrong.contains('"'), "a secret may be quoted: {what}");
                    self.refuse(&node.place, path, what);
                    None
                }
            },
            Shape::List { of, most } => self.list(node, of, *most, path),
            Shape::Table { .. } | Shape::Map { .. } => self.section(node, shape, path),
        }
    }

    fn section(&mut self, node: Node, shape: &Shape, path: &mut Vec<String>) -> Option<Node> {
        let place = node.place;
        if let (Shape::Map { names: Names { odd: true, .. }, .. }, Place::Label(_) | Place::Variable(_)) =
            (shape, &place)
        {
            self.refuse(&place, path, in_a_file());
            return None;
        }
        let entries = match node.value {
            Value::Table(entries) => entries,
            // In YAML, a section whose every line is commented out.
            Value::Null => Vec::new(),
            Value::Text(_)
            | Value::Loose(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Bool(_)
            | Value::Date(_)
            | Value::List(_) => {
                let what = Wrong::new("is a section and has no value itself", example(shape, path, &place));
                self.refuse(&place, path, what);
                return None;
            }
        };
        let entries = entries.into_iter().filter_map(|entry| self.entry(entry, shape, path)).collect();
        Some(Node { place, value: Value::Table(entries) })
    }

    fn list(&mut self, node: Node, of: &Shape, most: usize, path: &mut Vec<String>) -> Option<Node> {
        let place = node.place;
        let items = match (node.value, &place) {
            (_, Place::Label(_) | Place::Variable(_)) => {
                self.refuse(&place, path, in_a_file());
                return None;
            }
            (Value::List(items), _) if (1..=most).contains(&items.len()) => items,
            (Value::List(items), _) => {
                let what =
                    Wrong::new(format!("has {} items", items.len()), format!("1 to {most} would be right"));
                self.refuse(&place, path, what);
                return None;
            }
            (
                Value::Text(_)
                | Value::Loose(_)
                | Value::Integer(_)
                | Value::Float(_)
                | Value::Bool(_)
                | Value::Date(_)
                | Value::Null
                | Value::Table(_),
                _,
            ) => {
                let what =
                    Wrong::new("is not a list", "a list of tables would be right, as in [{...}, {...}]");
                self.refuse(&place, path, what);
                return None;
            }
        };
        let expected = items.len();
        let mut right = Vec::new();
        for (number, item) in (1_usize..).zip(items) {
            path.push(number.to_string());
            right.extend(self.value(item, of, path));
            path.pop();
        }
        // Without one of its items it would be another list; the item's own problem says why.
        if right.len() < expected {
            self.findings.removed.push(path.clone());
            return None;
        }
        Some(Node { place, value: Value::List(right) })
    }

    fn entry(&mut self, entry: Entry, shape: &Shape, path: &mut Vec<String>) -> Option<Entry> {
        path.push(entry.name.clone());
        let inner = match shape {
            Shape::Leaf { .. } | Shape::List { .. } => None,
            Shape::Table { keys, .. } => {
                let key = keys.iter().find(|key| key.name == entry.name);
                if key.is_none() {
                    let what = self.unknown(&entry, keys, path);
                    self.refuse(&entry.place, path, what);
                }
                key.map(|key| key.shape)
            }
            Shape::Map { of, names } => match (names.check)(&entry.name) {
                Ok(()) => Some(*of),
                Err(what) => {
                    self.refuse(&entry.place, path, what);
                    None
                }
            },
        };
        let node = inner.and_then(|shape| self.value(entry.node, shape, path));
        path.pop();
        node.map(|node| Entry { name: entry.name, place: entry.place, node })
    }

    fn refuse(&mut self, place: &Place, path: &[String], what: Wrong) {
        // A label's name is its key already.
        let key = if matches!(place, Place::Label(_)) { String::new() } else { dotted(path) };
        self.findings.problems.push(Problem::new(place, key, what));
        self.findings.removed.push(path.to_vec());
    }

    fn unknown(&self, entry: &Entry, keys: &[Key], path: &[String]) -> Wrong {
        let names = || keys.iter().map(|key| key.name);
        let above = &path[..path.len() - 1];
        let spelled = |name: &str| {
            let mut path = above.to_vec();
            path.push(name.to_owned());
            spelled_for(&entry.place, &path)
        };
        if let Some(near) = nearest(&entry.name, names()) {
            let meant = whole(&entry.place, path.len(), near);
            let meant = meant.map_or_else(|| spelled(near), |meant| spelled_for(&entry.place, &meant));
            return Wrong::new("there is no such setting", format!("did you mean {meant}?"));
        }
        let mut homes = Vec::new();
        homes_of(&entry.name, self.root, &mut Vec::new(), &mut homes);
        if !homes.is_empty() {
            // A service takes what [defaults] takes, and so do its parts each other: the first ones say enough.
            let more = if homes.len() > HOMES_SHOWN { ", among others" } else { "" };
            let homes = homes.iter().take(HOMES_SHOWN).map(|path| spelled_for(&entry.place, path));
            let homes: Vec<_> = homes.collect();
            return Wrong::new(
                "there is no such setting here",
                format!("it belongs at {}{more}", homes.join(" or ")),
            );
        }
        let valid: Vec<_> = names().collect();
        Wrong::new("there is no such setting", format!("here can be: {}", valid.join(", ")))
    }
}

/// So many places are named where a misplaced key would be right.
const HOMES_SHOWN: usize = 3;

/// What is said of what labels and variables cannot express.
fn in_a_file() -> Wrong {
    Wrong::new(
        "cannot be said by a label or a variable, which are flat and without capital letters or dots in names",
        "set it in a file, as in [services.NAME] of conf.d/NAME.toml",
    )
}

/// How a key of the section is set.
fn example(shape: &Shape, path: &[String], place: &Place) -> String {
    if path.is_empty() {
        return "begin with a key, as in environment: production".to_owned();
    }
    let mut path = path.to_vec();
    match shape {
        Shape::Leaf { .. } | Shape::List { .. } => {}
        Shape::Table { keys, .. } => path.extend(keys.first().map(|key| key.name.to_owned())),
        Shape::Map { names, .. } => path.push(names.called.to_owned()),
    }
    format!("set what is in it, as in {}", spelled_for(place, &path))
}

/// A key as it is spelled where `place` is.
fn spelled_for(place: &Place, path: &[String]) -> String {
    match place {
        Place::File { .. } | Place::Flag(_) => dotted(path),
        Place::Variable(_) => super::layers::variable(path),
        Place::Label(_) => format!("{}{}", super::labels::PREFIX, path.join(".")),
    }
}

/// What was typed whole, as a label's name is, with another word as its `nth` part: only that part is wrong. None where
/// the rest of it stands elsewhere.
fn whole(place: &Place, nth: usize, word: &str) -> Option<Vec<String>> {
    let mut typed: Vec<String> = match place {
        Place::File { .. } => return None,
        Place::Label(name) => {
            name.strip_prefix(super::labels::PREFIX)?.split('.').map(str::to_owned).collect()
        }
        Place::Variable(name) => super::layers::path_of(name)?,
        Place::Flag(key) => super::tree::split(key)?,
    };
    *typed.get_mut(nth.checked_sub(1)?)? = word.to_owned();
    Some(typed)
}

/// Every place where a key of this name is valid.
fn homes_of(name: &str, shape: &Shape, path: &mut Vec<String>, homes: &mut Vec<Vec<String>>) {
    match shape {
        Shape::Leaf { .. } => {}
        Shape::List { of, .. } => homes_of(name, of, path, homes),
        Shape::Table { keys, .. } => {
            for key in *keys {
                path.push(key.name.to_owned());
                if key.name == name {
                    homes.push(path.clone());
                }
                homes_of(name, key.shape, path, homes);
                path.pop();
            }
        }
        Shape::Map { of, names } => {
            path.push(names.called.to_owned());
            homes_of(name, of, path, homes);
            path.pop();
        }
    }
}

/// Every key that takes a value, as a path in which `NAME` stands for any name, and whether it is a secret.
#[cfg(test)]
pub(super) fn leaves(shape: &Shape, path: &mut Vec<String>, found: &mut Vec<(Vec<String>, bool)>) {
    match shape {
        Shape::Leaf { secret, .. } => found.push((path.clone(), *secret)),
        Shape::List { of, .. } => leaves(of, path, found),
        Shape::Table { keys, .. } => {
            for key in *keys {
                path.push(key.name.to_owned());
                leaves(key.shape, path, found);
                path.pop();
            }
        }
        Shape::Map { of, names } => {
            path.push(names.called.to_owned());
            leaves(of, path, found);
            path.pop();
        }
    }
}
