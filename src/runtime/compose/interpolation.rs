//! Variables in a Compose file: `$TAG`, `${TAG}`, `${TAG:-latest}` and their relatives, as Compose itself reads them; and
//! the other way round: which value of a variable makes a line say what it should.

use std::fmt;

/// Defaults within defaults, at most so deep: nobody writes three.
const DEPTH_MAX: u8 = 8;

/// A text with variables in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable { name: String, otherwise: Otherwise },
}

/// What stands for a variable that is not set.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Otherwise {
    /// Nothing.
    Empty,
    /// `-` and, if an empty value counts as none, `:-`.
    Default { template: Template, empty_too: bool },
    /// `?` and `:?`: an error.
    Error { empty_too: bool },
    /// `+` and `:+`: this if it *is* set, else nothing.
    Instead { template: Template, empty_too: bool },
}

/// Why a text cannot be read as a template, or has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// A `$` that begins no variable.
    Dollar(String),
    /// `${TAG:?}` and no value.
    Missing(String),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dollar(text) => write!(f, "`{text}` is no variable as Compose writes them"),
            Self::Missing(name) => write!(f, "{name} has to be set and is not"),
        }
    }
}

impl Template {
    /// Reads a text.
    pub(super) fn read(text: &str) -> Result<Self, Unreadable> {
        Self::read_at(text, 0)
    }

    fn read_at(text: &str, depth: u8) -> Result<Self, Unreadable> {
        let dollar = |at: &str| Unreadable::Dollar(at.chars().take(40).collect());
        if depth > DEPTH_MAX {
            return Err(dollar(text));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            let (before, from) = rest.split_at(at);
            push_text(&mut parts, before);
            let after = from.get(1..).unwrap_or_default();
            if let Some(tail) = after.strip_prefix('$') {
                push_text(&mut parts, "$");
                rest = tail;
            } else if let Some(inner) = after.strip_prefix('{') {
                let end = closing(inner).ok_or_else(|| dollar(from))?;
                let (braced, tail) = inner.split_at(end);
                parts.push(Self::variable(braced, depth).ok_or_else(|| dollar(from))??);
                rest = tail.get(1..).unwrap_or_default();
            } else {
                let name = leading_name(after);
                if name.is_empty() {
                    return Err(dollar(from));
                }
                parts.push(Part::Variable { name: name.to_owned(), otherwise: Otherwise::Empty });
                rest = after.get(name.len()..).unwrap_or_default();
            }
        }
        push_text(&mut parts, rest);
        Ok(Self { parts })
    }

    /// What stands between braces; none if it is no variable.
    fn variable(braced: &str, depth: u8) -> Option<Result<Part, Unreadable>> {
        let name = leading_name(braced);
        let rest = braced.get(name.len()..).filter(|_| !name.is_empty())?;
        let (empty_too, operator) = match rest.strip_prefix(':') {
            Some(operator) => (true, operator),
            None => (false, rest),
        };
        let otherwise = match operator.split_at_checked(1) {
            None if empty_too => return None,
            None => Otherwise::Empty,
            Some(("?", _)) => Otherwise::Error { empty_too },
            Some((sign @ ("-" | "+"), text)) => match Self::read_at(text, depth + 1) {
                Ok(template) if sign == "-" => Otherwise::Default { template, empty_too },
                Ok(template) => Otherwise::Instead { template, empty_too },
                Err(why) => return Some(Err(why)),
            },
            Some(_) => return None,
        };
        Some(Ok(Part::Variable { name: name.to_owned(), otherwise }))
    }

    /// The text, with the values that `value` knows.
    pub(super) fn resolve(&self, value: &dyn Fn(&str) -> Option<String>) -> Result<String, Unreadable> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(t) => text.push_str(t),
                Part::Variable { name, otherwise } => text.push_str(&otherwise.resolve(name, value)?),
            }
        }
        Ok(text)
    }

    /// The variables that it names outside of defaults, each once.
    pub(super) fn variables(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for part in &self.parts {
            if let Part::Variable { name, .. } = part
                && !names.contains(&name.as_str())
            {
                names.push(name.as_str());
            }
        }
        names
    }

    /// Whether it has a variable of that name anywhere.
    pub(super) fn names(&self, wanted: &str) -> bool {
        self.parts.iter().any(|part| match part {
            Part::Text(_) => false,
            Part::Variable { name, otherwise } => name == wanted || otherwise.names(wanted),
        })
    }

    /// The value of `name` that makes it say `wanted` while the others stay as they are; none if there is no such value.
    pub(super) fn solve(
        &self,
        name: &str,
        wanted: &str,
        value: &dyn Fn(&str) -> Option<String>,
    ) -> Option<String> {
        let at =
            self.parts.iter().position(|part| matches!(part, Part::Variable { name: n, .. } if n == name))?;
        let (before, after) = self.parts.split_at(at);
        let side = |parts: &[Part]| Self { parts: parts.to_vec() }.resolve(value).ok();
        let prefix = side(before)?;
        // Whatever comes after it, as far as it does not name it again.
        let suffix = side(after.get(1..).unwrap_or_default());
        let rest = wanted.strip_prefix(&prefix)?;
        let candidate = suffix.and_then(|suffix| rest.strip_suffix(&suffix).map(str::to_owned))?;
        let with = |asked: &str| if asked == name { Some(candidate.clone()) } else { value(asked) };
        (!candidate.is_empty() && self.resolve(&with).as_deref() == Ok(wanted)).then_some(candidate)
    }
}

impl Otherwise {
    fn resolve(&self, name: &str, value: &dyn Fn(&str) -> Option<String>) -> Result<String, Unreadable> {
        let set = |empty_too: bool| value(name).filter(|v| !(empty_too && v.is_empty()));
        match self {
            Self::Empty => Ok(value(name).unwrap_or_default()),
            Self::Default { template, empty_too } => {
                set(*empty_too).map_or_else(|| template.resolve(value), Ok)
            }
            Self::Error { empty_too } => set(*empty_too).ok_or_else(|| Unreadable::Missing(name.to_owned())),
            Self::Instead { template, empty_too } => match set(*empty_too) {
                Some(_) => template.resolve(value),
                None => Ok(String::new()),
            },
        }
    }

    fn names(&self, wanted: &str) -> bool {
        match self {
            Self::Empty | Self::Error { .. } => false,
            Self::Default { template, .. } | Self::Instead { template, .. } => template.names(wanted),
        }
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    match parts.last_mut() {
        _ if text.is_empty() => {}
        Some(Part::Text(known)) => known.push_str(text),
        _ => parts.push(Part::Text(text.to_owned())),
    }
}

fn leading_name(text: &str) -> &str {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    if starts { text.get(..end).unwrap_or_default() } else { "" }
}

/// Where the brace that is open already is closed.
fn closing(text: &str) -> Option<usize> {
    let mut open = 1_u32;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '{' if before == '$' => open += 1,
            '}' => {
                open -= 1;
                if open == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
        before = c;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str) -> Option<String> {
        let value = match name {
            "TAG" => "v2",
            "REGISTRY" => "ghcr.io/acme",
            "EMPTY" => "",
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[test]
    fn it_says_what_compose_says() {
        let table = [
            ("shop:v1", "shop:v1"),
            ("shop:$TAG", "shop:v2"),
            ("$REGISTRY/shop:${TAG}", "ghcr.io/acme/shop:v2"),
            ("shop:${NONE:-latest}", "shop:latest"),
            ("shop:${EMPTY:-latest}", "shop:latest"),
            ("shop:${EMPTY-latest}x", "shop:x"),
            ("shop:${NONE:-${TAG}-rc}", "shop:v2-rc"),
            ("shop${TAG:+:pinned}", "shop:pinned"),
            ("shop${EMPTY:+:pinned}", "shop"),
            ("shop${EMPTY+:set}", "shop:set"),
            ("shop:${TAG:?no tag}", "shop:v2"),
            ("$$TAG", "$TAG"),
            ("${NONE}", ""),
        ];
        for (text, said) in table {
            assert_eq!(Template::read(text).unwrap().resolve(&known).as_deref(), Ok(said), "{text}");
        }
        let missing = Template::read("${NONE:?}").unwrap().resolve(&known);
        assert_eq!(missing, Err(Unreadable::Missing("NONE".into())));
    }

    #[test]
    fn what_compose_refuses_is_refused() {
        for text in ["$", "a$-b", "${}", "${TAG", "${TAG!x}", "${1}", "${TAG:}"] {
            assert!(matches!(Template::read(text), Err(Unreadable::Dollar(_))), "{text}");
        }
        let deep = format!("{}x{}", "${A:-".repeat(50), "}".repeat(50));
        assert!(Template::read(&deep).is_err());
    }

    #[test]
    fn the_value_that_makes_a_line_say_something_is_found_if_there_is_one() {
        let table = [
            ("shop:$TAG", "TAG", "shop:v1", Some("v1")),
            ("$REGISTRY/shop:${TAG:-latest}", "TAG", "ghcr.io/acme/shop:v1", Some("v1")),
            ("$REGISTRY/shop:${TAG}", "REGISTRY", "quay.io/acme/shop:v2", Some("quay.io/acme")),
            ("$REGISTRY/shop:${TAG}", "TAG", "quay.io/acme/shop:v1", None),
            ("${IMAGE}", "IMAGE", "shop@sha256:abc", Some("shop@sha256:abc")),
            ("shop:$TAG", "TAG", "other:v1", None),
            ("shop:$TAG", "TAG", "shop:", None),
            ("shop:$TAG-alpine", "TAG", "shop:v1-alpine", Some("v1")),
            // Twice the same variable: the second one is not as it was.
            ("shop-$TAG:$TAG", "TAG", "shop-v1:v1", None),
            ("shop${TAG:+:pinned}", "TAG", "shop:v1", None),
        ];
        for (text, name, wanted, value) in table {
            let found = Template::read(text).unwrap().solve(name, wanted, &known);
            assert_eq!(found.as_deref(), value, "{text} to {wanted}");
        }
    }
}
