//! Taking secrets out of what a report shows: log lines and command lines are written by programs that did not know that
//! somebody would paste them into a ticket.
//!
//! What looks like a secret goes: what follows words like `password` or `Bearer`, what stands before the `@` of an address,
//! keys that are known by their beginning, and the values of environment variables whose names say that they are secret. It is
//! a net and no wall: whoever hands a report on should read it first, and the report says so.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

/// What stands in place of a secret.
pub const HIDDEN: &str = "[hidden]";
/// A line of a log is shown up to here.
const LINE_MAX: usize = 500;
/// Shorter values would take ordinary words out of sentences.
const VALUE_MIN: usize = 6;

/// What turns the direction of writing: it makes a line read as something else than it is.
const TURNS: [char; 12] = [
    '\u{200e}', '\u{200f}', '\u{061c}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}',
    '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}',
];

/// Names of variables and options whose values are secrets, by parts of them.
const SECRET_WORDS: &str = "pass(?:word|wd|phrase)?|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|auth(?:orization)?|credentials?|cookie|session[_-]?id|dsn";

static AFTER_WORD: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(&format!(
        r#"(?i)((?:[A-Z0-9_.-]*(?:{SECRET_WORDS})[A-Z0-9_.-]*)["']?\s*(?:=>|[=:])\s*)("[^"]*"|'[^']*'|(?:Bearer|Basic)\s+\S+|[^\s,;&"'}}]+)"#
    ))
    .ok()
});
static AFTER_OPTION: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(&format!(r"(?i)(--?[a-z0-9-]*(?:{SECRET_WORDS})[a-z0-9-]*\s+)(\S+)")).ok());
static BEARER: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/._~=-]{8,}").ok());
static IN_URL: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"([a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/@]+@").ok());
static KNOWN_KEYS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|xox[abpr]-[A-Za-z0-9-]{10,}|sk-[A-Za-z0-9_-]{16,}|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*)",
    )
    .ok()
});
static SECRET_NAME: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(&format!("(?i)({SECRET_WORDS}|key$)")).ok());

/// Takes out what looks like a secret, and what a page should not show: control characters and endless lines.
pub fn line(text: &str, values: &[String]) -> String {
    let mut text: String = text
        .chars()
        .filter(|c| !TURNS.contains(c))
        .map(|c| if c.is_control() && c != '\t' { ' ' } else { c })
        .collect();
    for value in values {
        text = text.replace(value.as_str(), HIDDEN);
    }
    let rules: [(&LazyLock<Option<Regex>>, &str); 5] = [
        (&IN_URL, "${1}[hidden]@"),
        (&AFTER_WORD, "${1}[hidden]"),
        (&AFTER_OPTION, "${1}[hidden]"),
        (&BEARER, "${1} [hidden]"),
        (&KNOWN_KEYS, HIDDEN),
    ];
    for (rule, by) in rules {
        if let Some(rule) = rule.as_ref() {
            text = rule.replace_all(&text, by).into_owned();
        }
    }
    match text.char_indices().nth(LINE_MAX) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text,
    }
}

/// Whether what a variable of this name holds is a secret.
pub fn is_secret(name: &str) -> bool {
    SECRET_NAME.as_ref().is_none_or(|names| names.is_match(name))
}

/// The environment of a container, or of the containers of a Swarm service.
pub(super) fn environment(inspect: &Value) -> impl Iterator<Item = &Value> {
    let all = ["/Config/Env", "/Spec/TaskTemplate/ContainerSpec/Env"];
    all.into_iter().filter_map(|place| inspect.pointer(place)?.as_array()).flatten()
}

/// The values of a container's environment that must not be seen anywhere else, longest first.
pub fn values(inspect: &Value) -> Vec<String> {
    let all = environment(inspect).filter_map(Value::as_str);
    let secret = all.filter_map(|pair| pair.split_once('=')).filter(|(name, _)| is_secret(name));
    let mut values: Vec<String> =
        secret.map(|(_, value)| value.to_owned()).filter(|value| value.len() >= VALUE_MIN).collect();
    values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_goes_and_the_rest_stays() {
        for (said, shown) in [
            ("connect postgres://shop:hunter2@db/shop failed", "connect postgres://[hidden]@db/shop failed"),
            ("DB_PASSWORD=hunter2 ok", "DB_PASSWORD=[hidden] ok"),
            (r#"{"password":"hunter2","user":"anna"}"#, r#"{"password":[hidden],"user":"anna"}"#),
            ("Authorization: Bearer abcdef123456", "Authorization: [hidden]"),
            ("sent bearer abcdef123456 again", "sent bearer [hidden] again"),
            ("run --api-key hunter2 --port 80", "run --api-key [hidden] --port 80"),
            ("key AKIAIOSFODNN7EXAMPLE used", "key [hidden] used"),
            ("ERROR 500 GET /checkout took 1.2s", "ERROR 500 GET /checkout took 1.2s"),
            ("passed 12 of 12 tests", "passed 12 of 12 tests"),
        ] {
            assert_eq!(line(said, &[]), shown);
        }
    }

    #[test]
    fn values_of_secret_variables_are_hidden_wherever_they_stand() {
        let inspect = serde_json::json!({"Config": {"Env": [
            "STRIPE_SECRET=tr0ub4dor&3", "GREETING=hello there", "PIN_TOKEN=12"
        ]}});
        let values = values(&inspect);
        assert_eq!(values, ["tr0ub4dor&3"]);
        let service = serde_json::json!({"Spec": {"TaskTemplate": {"ContainerSpec": {
            "Env": ["STRIPE_SECRET=tr0ub4dor&3", "GREETING=hello there"]
        }}}});
        assert_eq!(super::values(&service), values, "a Swarm service has its own place for it");
        assert_eq!(line("charge with tr0ub4dor&3 was refused", &values), "charge with [hidden] was refused");
        assert!(is_secret("GITHUB_TOKEN") && is_secret("SIGNING_KEY") && !is_secret("MONKEYS"));
    }

    #[test]
    fn endless_lines_end_and_control_characters_do_nothing() {
        assert_eq!(line("a\u{1b}[31m\u{202e}red\u{7}", &[]), "a [31mred ");
        assert!(line(&"ü".repeat(9_000), &[]).chars().count() < 510);
    }
}
