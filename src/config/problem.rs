//! What is wrong with a configuration: all of it at once, each with its place and with what would be right.
//! A problem never holds the value of a secret.

use std::fmt;

/// So many problems are shown; a file that has more is the wrong file.
const SHOWN: usize = 100;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    place: String,
    key: String,
    wrong: String,
    right: String,
    excerpt: Option<String>,
}

impl Problem {
    /// A mistake at `place` in the setting `key`; each of the four may be empty.
    pub(super) fn new(place: impl fmt::Display, key: impl Into<String>, what: Wrong) -> Self {
        Self {
            place: place.to_string(),
            key: key.into(),
            wrong: what.wrong,
            right: what.right,
            excerpt: None,
        }
    }

    /// The same, with the lines of the file to show below it.
    pub(super) fn with_excerpt(self, excerpt: Option<String>) -> Self {
        Self { excerpt, ..self }
    }

    /// Where it is: `file:line:column`, or the environment variable, flag or label.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The setting's full name, `defaults.health.interval`; empty when a whole file is meant.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Display for Problem {
    /// `file:line:column: key: what is wrong; what would be right`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.place, &self.key] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.wrong)?;
        if !self.right.is_empty() {
            write!(f, "; {}", self.right)?;
        }
        match &self.excerpt {
            Some(excerpt) => write!(f, "\n{excerpt}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with a configuration. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// All of `problems`, of which there is at least one, as one error.
    pub(super) const fn of(problems: Vec<Problem>) -> Self {
        Self(problems)
    }

    /// Each of them, in the order of the layers and of the lines in a file.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Problem> {
        self.0.iter()
    }
}

impl fmt::Display for Problems {
    /// One problem a line, without a heading.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().take(SHOWN).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n... and {more} more"),
        }
    }
}

/// What is wrong with a value, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) wrong: String,
    pub(super) right: String,
}

impl Wrong {
    pub(super) fn new(wrong: impl Into<String>, right: impl Into<String>) -> Self {
        Self { wrong: wrong.into(), right: right.into() }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.wrong, self.right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_one_line_and_leaves_out_what_is_empty() {
        let what = Wrong::new("is zero", "at least 1 would be right");
        let problem = Problem::new("a.toml:1:2", "defaults.keep", what.clone());
        assert_eq!(problem.to_string(), "a.toml:1:2: defaults.keep: is zero; at least 1 would be right");
        assert_eq!(Problem::new("", "", what).to_string(), "is zero; at least 1 would be right");
        assert_eq!(Problem::new("x", "", Wrong::new("gone", "")).to_string(), "x: gone");
    }

    #[test]
    fn a_flood_is_cut_and_counted() {
        let one = Problem::new("a", "b", Wrong::new("c", "d"));
        let error = Problems::of(vec![one; SHOWN + 3]);
        assert_eq!(error.iter().len(), SHOWN + 3);
        let text = error.to_string();
        assert_eq!(text.lines().count(), SHOWN + 1);
        assert!(text.ends_with("... and 3 more"), "{text}");
    }
}
