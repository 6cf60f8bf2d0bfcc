//! A line for people: what it says, short, without colours, and without secrets.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::fields::Fields;

/// As much as fits into a message.
const CHARS_MAX: usize = 200;

/// What stands in the place of a secret.
const MASK: &str = "***";

/// Of a line in JSON or logfmt only what it says; of any other all of it.
pub(super) fn excerpt(line: &str) -> String {
    let said = Fields::of(line, false).and_then(|fields| fields.message());
    let text = said.as_deref().unwrap_or(line);
    shortened(&masked(text))
}

/// The line without the colours that loggers write for a terminal: they would stick to words and hide them.
pub(super) fn without_colours(line: &str) -> Cow<'_, str> {
    let Some(first) = line.find('\u{1b}') else { return Cow::Borrowed(line) };
    let (mut text, rest) = line.split_at(first);
    let mut plain = String::with_capacity(line.len());
    plain.push_str(text);
    text = rest;
    while let Some(start) = text.find('\u{1b}') {
        let (before, sequence) = text.split_at(start);
        plain.push_str(before);
        let sequence = sequence.trim_start_matches('\u{1b}');
        text = match sequence.strip_prefix('[') {
            // Parameters, then one letter that says what to do.
            Some(rest) => {
                let parameters = rest.trim_start_matches(|c: char| (' '..='?').contains(&c));
                parameters.strip_prefix(|c: char| ('@'..='~').contains(&c)).unwrap_or(parameters)
            }
            None => sequence,
        };
    }
    plain.push_str(text);
    Cow::Owned(plain)
}

/// How secrets look. None if a pattern did not compile; then nothing at all is shown.
static SECRETS: LazyLock<Option<[Regex; 4]>> = LazyLock::new(|| {
    let compile = |pattern: &str| Regex::new(pattern).ok();
    Some([
        // `Authorization: Bearer abc`, with or without the name before it.
        compile(r"(?i)\b(bearer|basic|digest|apikey|negotiate)(\s+)[a-z0-9._~+/=-]{6,}")?,
        // `password=...`, `"api_key": "..."`, `X-Auth-Token: ...`, and in the query of a URL.
        compile(concat!(
            r"(?i)([a-z0-9_.-]*(?:passw(?:or)?d|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|",
            r"private[_-]?key|account[_-]?key|signature|credentials?|authorization|cookie|session[_-]?id)[a-z0-9_.-]*)",
            r#"(\\?["']?\s*[:=]\s*)(?:\\?"[^"]*"?|'[^']*'?|[^\s,;&"'}\])]+)"#
        ))?,
        // `postgres://user:password@host`.
        compile(r"(?i)\b([a-z][a-z0-9+.-]*)(://)[^/\s@]+@")?,
        // What is a secret by its own looks: JWT, AWS, GitHub, Slack, Stripe and the like, long random words.
        compile(concat!(
            r"()()\b(?:eyJ[A-Za-z0-9_-]{8,}[A-Za-z0-9_.-]*|(?:AKIA|ASIA)[A-Z0-9]{16}|gh[a-z]_[A-Za-z0-9]{20,}|",
            r"github_pat_\w{20,}|glpat-[\w-]{20,}|xox[a-z]-[A-Za-z0-9-]{10,}|[srp]k[_-](?:live|test|proj|ant)[\w-]{10,})"
        ))?,
    ])
});

/// The text with every secret masked that can be recognised as one.
fn masked(text: &str) -> Cow<'_, str> {
    let Some(patterns) = &*SECRETS else { return Cow::Borrowed(MASK) };
    let [scheme, named, url, looks] = patterns;
    let mut text = Cow::Borrowed(text);
    for (pattern, after) in [(scheme, ""), (url, "@"), (looks, ""), (named, "")] {
        let replaced = pattern.replace_all(&text, |found: &Captures<'_>| {
            let part = |n| found.get(n).map_or("", |m| m.as_str());
            format!("{}{}{MASK}{after}", part(1), part(2))
        });
        if let Cow::Owned(replaced) = replaced {
            text = Cow::Owned(replaced);
        }
    }
    text
}

/// At most [`CHARS_MAX`] characters in one line, with what cannot be printed left out.
fn shortened(text: &str) -> String {
    let mut short = String::new();
    let mut chars = 0;
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if chars > 0 {
            short.push(' ');
            chars += 1;
        }
        for c in word.chars() {
            if chars == CHARS_MAX {
                short.push_str("...");
                return short;
            }
            short.push(c);
            chars += 1;
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_and_the_rest_stays() {
        let table = [
            (
                "ERROR login: Authorization: Bearer abc.def-123 refused",
                "ERROR login: Authorization: *** *** refused",
            ),
            ("got bearer 0123456789abcdef from 10.0.0.1", "got bearer *** from 10.0.0.1"),
            ("ERROR db password=hunter2 host=db", "ERROR db password=*** host=db"),
            ("ERROR db DB_PASSWORD='hun ter2' host=db", "ERROR db DB_PASSWORD=*** host=db"),
            (
                r#"ERROR body {"user":"a","api_key":"s3cr3t","n":1}"#,
                r#"ERROR body {"user":"a","api_key":***,"n":1}"#,
            ),
            ("ERROR GET /cb?access_token=abc&x=1 failed", "ERROR GET /cb?access_token=***&x=1 failed"),
            (
                "ERROR cannot reach postgres://shop:pa55@db:5432/shop",
                "ERROR cannot reach postgres://***@db:5432/shop",
            ),
            ("ERROR eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc is expired", "ERROR *** is expired"),
            ("ERROR key AKIAIOSFODNN7EXAMPLE is unknown", "ERROR key *** is unknown"),
            ("ERROR Set-Cookie: sid=abcdef; Path=/", "ERROR Set-Cookie: ***; Path=/"),
            (
                "ERROR out of stock: 3 left, see http://shop/a@b",
                "ERROR out of stock: 3 left, see http://shop/a@b",
            ),
        ];
        for (line, shown) in table {
            assert_eq!(excerpt(line), shown);
        }
    }

    #[test]
    fn a_secret_is_masked_before_the_line_is_cut() {
        let line = format!("ERROR {} password={}", "x".repeat(180), "Q".repeat(100));
        assert!(!excerpt(&line).contains('Q'), "{}", excerpt(&line));
    }

    #[test]
    fn what_a_structured_line_says_is_shown() {
        let json =
            r#"{"time":"2026-01-02T03:04:05Z","level":"error","msg":"cannot pay","err":"timeout","pid":1}"#;
        assert_eq!(excerpt(json), "cannot pay: timeout");
        assert_eq!(excerpt(r#"ts=1 level=error msg="cannot pay" caller=x.go:1"#), "cannot pay");
        assert_eq!(excerpt(r#"{"level":"error","code":7}"#), r#"{"level":"error","code":7}"#);
    }

    #[test]
    fn a_line_is_shortened_and_cleaned() {
        let long = excerpt(&"ä".repeat(5000));
        assert_eq!(long.chars().count(), CHARS_MAX + 3);
        assert_eq!(excerpt("ERROR\0\u{7}\t two\r"), "ERROR two");
        assert_eq!(excerpt(""), "");
    }

    #[test]
    fn colours_go() {
        assert_eq!(without_colours("\u{1b}[31mERROR\u{1b}[0m x"), "ERROR x");
        assert_eq!(without_colours("\u{1b}[38;5;196mERROR\u{1b}[m"), "ERROR");
        assert_eq!(without_colours("plain"), "plain");
        for odd in ["\u{1b}", "\u{1b}[", "\u{1b}[31", "a\u{1b}\u{1b}[", "\u{1b}ä"] {
            assert!(!without_colours(odd).contains('\u{1b}'), "{odd:?}");
        }
    }
}
