//! Which line tells of an error.
//!
//! The operator's pattern decides. A line that says its level in a field (JSON, logfmt) is judged by that field, so that
//! `{"level":"error"}` counts although it is not written `ERROR`, and `{"level":"info","msg":"no ERROR here"}` does not:
//!
//! - a level counts if the pattern names it, or a milder one: `ERROR` makes `error`, `critical`, `fatal` and `panic`
//!   count, and `WARN` would make `warn` count too;
//! - in a line of a level that does not count, the pattern still finds anything but the name of a level
//!   (`payment failed`, `Traceback (most recent call last)`).
//!
//! A line of an access log tells of a request, whose path and agent a stranger wrote: unless it has a level that counts,
//! it is no error whatever the pattern finds in it. Its status is counted as what it is, with the requests.

use regex::{Regex, RegexBuilder};

/// What a compiled pattern may take, in bytes: every followed log has one of its own.
const COMPILED_MAX: usize = 1 << 20;
/// What matching may cache, in bytes, for the same reason.
const CACHE_MAX: usize = 1 << 20;
/// Matches that are looked at in one line whose level does not count.
const MATCHES_MAX: usize = 16;

/// How bad a line is by its own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing to worry about: `info` and below.
    Quiet,
    /// A warning.
    Warn,
    /// An error.
    Error,
    /// Worse: `critical`, `alert`, `emergency`.
    Critical,
    /// The process ends.
    Fatal,
    /// The process ends at once.
    Panic,
}

impl Level {
    /// The level that loggers call so, in any case.
    pub fn named(name: &str) -> Option<Self> {
        // The longest is `informational`.
        let mut lower = [0; 13];
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name.as_bytes());
        lower.make_ascii_lowercase();
        Some(match &*lower {
            b"trace" | b"trce" | b"debug" | b"dbug" | b"verbose" | b"fine" | b"finer" | b"finest"
            | b"config" | b"info" | b"information" | b"informational" | b"notice" | b"default"
            | b"success" => Self::Quiet,
            b"warn" | b"warning" => Self::Warn,
            b"error" | b"err" | b"eror" | b"severe" | b"fail" => Self::Error,
            b"critical" | b"crit" | b"alert" | b"emergency" | b"emerg" => Self::Critical,
            b"fatal" => Self::Fatal,
            b"panic" | b"dpanic" => Self::Panic,
            _ => return None,
        })
    }

    /// The level of pino's and bunyan's numbers: 10 is `trace`, 60 is `fatal`.
    pub(super) fn numbered(number: f64) -> Option<Self> {
        Some(match number {
            10.0 | 20.0 | 30.0 => Self::Quiet,
            40.0 => Self::Warn,
            50.0 => Self::Error,
            60.0 => Self::Fatal,
            _ => return None,
        })
    }

    /// The level of syslog's numbers, which GELF uses: 0 is `emergency`, 7 is `debug`.
    pub(super) fn of_syslog(number: f64) -> Option<Self> {
        Some(match number {
            0.0 | 1.0 | 2.0 => Self::Critical,
            3.0 => Self::Error,
            4.0 => Self::Warn,
            5.0 | 6.0 | 7.0 => Self::Quiet,
            _ => return None,
        })
    }

    /// How a pattern would name it.
    const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Quiet => &[],
            Self::Warn => &["WARN", "WARNING", "warn", "warning"],
            Self::Error => &["ERROR", "ERR", "error", "err"],
            Self::Critical => &["CRITICAL", "CRIT", "critical", "crit"],
            Self::Fatal => &["FATAL", "fatal"],
            Self::Panic => &["PANIC", "panic", "panic:"],
        }
    }
}

/// What the operator calls an error.
#[derive(Debug, Clone)]
pub struct ErrorPattern {
    pattern: Regex,
    /// The mildest level that the pattern names.
    counts_from: Option<Level>,
}

impl ErrorPattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn new(pattern: &str) -> Result<Self, String> {
        let pattern = RegexBuilder::new(pattern)
            .size_limit(COMPILED_MAX)
            .dfa_size_limit(CACHE_MAX)
            .build()
            .map_err(|e| match e {
            regex::Error::CompiledTooBig(limit) => format!(
                "the pattern needs more than {limit} bytes when compiled: take repetitions like {{1000}} out"
            ),
            // Several lines, with a mark under the place.
            other => format!("the pattern is no regular expression: {other}"),
        })?;
        if pattern.is_match("") {
            return Err(format!(
                "the pattern `{pattern}` matches every line, even an empty one: write what an error line contains, \
                 such as `\\bERROR\\b`"
            ));
        }
        let levels = [Level::Warn, Level::Error, Level::Critical, Level::Fatal, Level::Panic];
        let named = |level: &Level| level.names().iter().any(|name| pattern.is_match(name));
        let counts_from = levels.into_iter().find(named);
        Ok(Self { pattern, counts_from })
    }

    /// Whether a line, at its `level` if it says one, tells of an error. `is_request` is asked only where that matters.
    pub fn tells_of_an_error(
        &self,
        line: &str,
        level: Option<Level>,
        is_request: impl FnOnce() -> bool,
    ) -> bool {
        let Some(level) = level else {
            return self.pattern.is_match(line) && !is_request();
        };
        if self.counts_from.is_some_and(|from| level >= from) {
            return true;
        }
        let names_a_level =
            |found: &str| Level::named(found.trim_matches(|c: char| !c.is_ascii_alphanumeric())).is_some();
        let mut found = self.pattern.find_iter(line).take(MATCHES_MAX);
        found.any(|found| !names_a_level(found.as_str())) && !is_request()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::settings::LogSource;

    fn shipped() -> ErrorPattern {
        ErrorPattern::new(&LogSource::default().error).unwrap()
    }

    #[test]
    fn plain_lines_are_judged_by_the_pattern() {
        let table = [
            ("2026-01-02 ERROR db: connection refused", true),
            ("[ERROR] out of stock", true),
            ("FATAL: password authentication failed", true),
            ("panic: runtime error: index out of range [3]", true),
            ("thread 'main' panicked at src/main.rs:2:5", false),
            ("Traceback (most recent call last):", true),
            ("INFO all is well", false),
            ("no terrors here: TERRORS", false),
            ("error in lower case is what chatty libraries write", false),
            ("", false),
            ("\u{fffd}\0\u{fffd}ERROR\0", true),
        ];
        for (line, error) in table {
            assert_eq!(shipped().tells_of_an_error(line, None, || false), error, "{line}");
        }
        assert!(!shipped().tells_of_an_error("GET /ERROR", None, || true), "a stranger wrote that");
    }

    #[test]
    fn a_level_of_its_own_comes_first() {
        let judged = |pattern: &str, level: &str, line: &str| {
            let pattern = ErrorPattern::new(pattern).unwrap();
            pattern.tells_of_an_error(line, Level::named(level), || false)
        };
        let shipped = &LogSource::default().error;
        for level in ["error", "ERROR", "Err", "severe", "critical", "alert", "fatal", "panic", "dpanic"] {
            assert!(judged(shipped, level, "{}"), "{level}");
        }
        for level in ["info", "warn", "WARNING", "debug", "notice", "trace"] {
            assert!(!judged(shipped, level, "{\"msg\":\"no ERROR, no panic: none\"}"), "{level}");
        }
        assert!(judged(shipped, "info", "Traceback (most recent call last)"));
        // What the operator names decides, for levels too.
        assert!(judged("WARN|ERROR", "warning", "{}"));
        assert!(judged("FATAL", "panic", "{}"));
        assert!(!judged("FATAL", "error", "{}"));
        assert!(!judged("payment failed", "error", "{\"msg\":\"else\"}"));
        assert!(judged("payment failed", "info", "{\"msg\":\"payment failed\"}"));
        assert!(judged(r"\bERROR\b|payment failed", "info", "{\"msg\":\"payment failed, ERROR 3\"}"));
    }

    #[test]
    fn levels_by_number() {
        assert_eq!(Level::numbered(50.0), Some(Level::Error));
        assert_eq!(Level::numbered(35.0), None);
        assert_eq!(Level::of_syslog(3.0), Some(Level::Error));
        assert_eq!(Level::of_syslog(6.0), Some(Level::Quiet));
        assert_eq!(Level::named("a-word-longer-than-any-level"), None);
        assert_eq!(Level::named(""), None);
    }

    #[test]
    fn a_bad_pattern_is_refused_with_what_would_be_right() {
        assert!(ErrorPattern::new(&LogSource::default().error).is_ok());
        let refused = [
            ("(ERROR", "unclosed group"),
            ("", "matches every line"),
            ("ERROR|", r"such as `\bERROR\b`"),
            (r"(\w{100}){100}", "take repetitions like {1000} out"),
            (r"(?=ERROR)", "look-around"),
        ];
        for (pattern, why) in refused {
            let said = ErrorPattern::new(pattern).unwrap_err();
            assert!(said.contains(why), "{pattern}: {said}");
        }
        assert!(ErrorPattern::new(&"x".repeat(COMPILED_MAX)).unwrap_err().contains("needs more than"));
    }
}
