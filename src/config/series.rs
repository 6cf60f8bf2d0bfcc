//! Settings of what tells of requests, errors and latency: metrics, queries, log lines, and labels to choose by.

use regex::RegexBuilder;

use super::nearest::nearest;
use super::problem::Wrong;
use super::schema::Named;
use super::values::{Parse, quoted, text_settings};
use crate::signal::scrape::presets::PRESETS;

text_settings! {
    [] Query;
    [] MetricName;
    [] LabelValue;
    [] AlertLabel;
    [] Preset;
    [] Pattern;
}

/// Which names of metrics are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Preset(pub(super) String);

impl Parse for Preset {
    const RIGHT: &'static str = "the name of a preset would be right, or \"auto\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let all = || std::iter::once("auto").chain(PRESETS.iter().map(|preset| preset.name));
        if all().any(|preset| preset == text) {
            return Ok(Self(text.to_owned()));
        }
        let right = match nearest(text, all()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("one of these would be right: {}", all().collect::<Vec<_>>().join(", ")),
        };
        Err(Wrong::new(format!("{} is not one of the presets", quoted(text)), right))
    }
}

/// A query to a Prometheus server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query(pub(super) String);

/// What stands in a query for the time asked about.
const WINDOW: &str = "$window";

impl Parse for Query {
    const RIGHT: &'static str =
        "a query over [$window] would be right, as in \"sum(increase(http_requests_total[$window]))\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text.trim().is_empty() || text.len() > 8192 {
            return Err(Wrong::new(format!("has {} bytes", text.len()), Self::RIGHT));
        }
        if !text.contains(WINDOW) {
            return Err(Wrong::new(
                "the query has no $window, so it would not be about the time that Backstop judges",
                "put [$window] where the range stands, as in \"sum(increase(http_requests_total[$window]))\"",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// The name of a metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MetricName(pub(super) String);

impl Parse for MetricName {
    const RIGHT: &'static str =
        "the name of a metric would be right, as in \"http_requests_total\"; `labels` choose its series";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let first = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | ':');
        // Names with dots are OpenTelemetry's, which Prometheus takes since its version 3.
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.');
        if text.len() <= 200 && text.starts_with(first) && text.chars().all(fits) {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new(format!("{} is not the name of a metric", quoted(text)), Self::RIGHT))
    }
}

/// The value that a label of a series must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LabelValue(pub(super) String);

impl Parse for LabelValue {
    const RIGHT: &'static str = "a text of at most 1000 bytes would be right, as in \"checkout\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text.len() <= 1000 {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new(format!("has {} bytes", text.len()), Self::RIGHT))
    }
}

impl Named for LabelValue {
    const NAME: &'static str = "LABEL";

    fn check(name: &str) -> Result<(), Wrong> {
        label_name(name)
    }
}

/// The value that a label of an alert must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AlertLabel(pub(super) String);

impl Parse for AlertLabel {
    const RIGHT: &'static str = LabelValue::RIGHT;

    fn parse(text: &str) -> Result<Self, Wrong> {
        LabelValue::parse(text).map(|value| Self(value.0))
    }
}

impl Named for AlertLabel {
    const NAME: &'static str = "LABEL";

    fn check(name: &str) -> Result<(), Wrong> {
        label_name(name)
    }
}

fn label_name(name: &str) -> Result<(), Wrong> {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    if name.len() <= 200 && name.starts_with(first) && name.chars().all(fits) {
        return Ok(());
    }
    let wrong = format!("{} cannot be the name of a label", quoted(name));
    Err(Wrong::new(wrong, "letters, digits and _ would be right, as in alertname"))
}

/// A regular expression for lines of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(pub(super) String);

/// What a compiled pattern may take: no sensible one needs a tenth of it.
const PATTERN_BYTES: usize = 1 << 20;

impl Parse for Pattern {
    const RIGHT: &'static str = "a regular expression would be right, as in '\\bERROR\\b'";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let built = RegexBuilder::new(text).size_limit(PATTERN_BYTES).build();
        let wrong = match built {
            Ok(pattern) if pattern.is_match("") => {
                return Err(Wrong::new("the pattern matches every line, even an empty one", Self::RIGHT));
            }
            Ok(_) => return Ok(Self(text.to_owned())),
            Err(regex::Error::Syntax(message)) => in_one_line(&message),
            Err(regex::Error::CompiledTooBig(limit)) => {
                return Err(Wrong::new(
                    format!("the pattern needs more than {limit} bytes"),
                    "a shorter one would be right, with smaller repetitions",
                ));
            }
            Err(error) => error.to_string(),
        };
        Err(Wrong::new(format!("{} is not a regular expression: {wrong}", quoted(text)), Self::RIGHT))
    }
}

/// The message of the parser, which draws a caret below the pattern, with the caret as a number.
fn in_one_line(message: &str) -> String {
    /// How far the parser indents the pattern.
    const INDENT: usize = 4;
    let error =
        message.lines().find_map(|line| line.strip_prefix("error: ")).unwrap_or("it cannot be parsed");
    let is_caret = |line: &&str| line.contains('^') && line.chars().all(|c| matches!(c, ' ' | '^'));
    // Patterns over several lines are numbered instead.
    let caret = message.lines().find(is_caret).and_then(|line| line.find('^')).filter(|at| *at >= INDENT);
    match caret {
        Some(at) => format!("{error}, at character {}", at - INDENT + 1),
        None => error.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said<T: Parse>(text: &str) -> String {
        T::parse(text).err().map_or_else(|| "fine".into(), |wrong| wrong.wrong)
    }

    #[test]
    fn a_bad_pattern_says_where() {
        assert_eq!(said::<Pattern>(r"\bERROR\b"), "fine");
        assert_eq!(
            said::<Pattern>("ERROR (x"),
            "\"ERROR (x\" is not a regular expression: unclosed group, at character 7"
        );
        assert!(said::<Pattern>("a{1000}{1000}{1000}").contains("needs more than 1048576 bytes"));
        assert!(said::<Pattern>("(ERROR)?").contains("matches every line"));
        assert!(said::<Pattern>("a\n(b").contains("unclosed group"));
    }

    #[test]
    fn queries_are_about_the_window() {
        assert_eq!(said::<Query>("sum(increase(x[$window]))"), "fine");
        assert!(said::<Query>("sum(rate(x[5m]))").starts_with("the query has no $window"));
        assert!(said::<Query>(" ").starts_with("has 1 bytes"));
    }

    #[test]
    fn a_preset_is_one_of_the_list() {
        assert_eq!(said::<Preset>("auto"), "fine");
        assert_eq!(said::<Preset>(PRESETS[0].name), "fine");
        let wrong = Preset::parse("enovy").unwrap_err();
        assert_eq!(wrong.right, "did you mean \"envoy\"?");
    }
}
