//! `.env` files: the value of a variable, and the file with another value for it. Every other byte stays as it was:
//! comments, order, quotes, line ends.

use std::collections::BTreeMap;

/// One assignment in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Assignment {
    name: String,
    /// None if it depends on other variables, or is written in a way that is not understood.
    value: Option<String>,
    /// Where the value stands, without its quotes.
    from: usize,
    to: usize,
}

/// The values in a file: what is said last counts. One that depends on other variables is none.
pub(super) fn values(text: &str) -> BTreeMap<String, Option<String>> {
    assignments(text).into_iter().map(|a| (a.name, a.value)).collect()
}

/// The file with `value` for `name`: where it is set last, or else in a line of its own at the end.
///
/// # Errors
/// Why it cannot be written there.
pub(super) fn with(text: &str, name: &str, value: &str) -> Result<String, String> {
    // What an image's name can consist of needs no quotes anywhere.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':' | '@' | '+');
    if value.is_empty() || !value.chars().all(plain) {
        return Err(format!("`{value}` would have to be quoted"));
    }
    let changed = match assignments(text).into_iter().rfind(|a| a.name == name) {
        Some(last) if last.value.is_none() => return Err(format!("{name} is not a plain value there")),
        Some(last) => {
            let (before, after) = (text.get(..last.from), text.get(last.to..));
            format!("{}{value}{}", before.unwrap_or_default(), after.unwrap_or_default())
        }
        None => {
            let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
            let gap = if text.is_empty() || text.ends_with('\n') { "" } else { end };
            format!("{text}{gap}{name}={value}{end}")
        }
    };
    // A quote that is never closed swallows what comes after it.
    let mut expected = values(text);
    expected.insert(name.to_owned(), Some(value.to_owned()));
    if values(&changed) == expected { Ok(changed) } else { Err("the file cannot be understood".into()) }
}

/// The file without the last line that sets `name`.
pub(super) fn without(text: &str, name: &str) -> String {
    let Some(last) = assignments(text).into_iter().rfind(|a| a.name == name) else {
        return text.to_owned();
    };
    let start = text.get(..last.from).and_then(|t| t.rfind('\n')).map_or(0, |at| at + 1);
    let end = text.get(last.to..).and_then(|t| t.find('\n')).map_or(text.len(), |at| last.to + at + 1);
    format!("{}{}", text.get(..start).unwrap_or_default(), text.get(end..).unwrap_or_default())
}

fn assignments(text: &str) -> Vec<Assignment> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = text.get(at..).unwrap_or_default();
        let line = rest.get(..rest.find('\n').unwrap_or(rest.len())).unwrap_or_default();
        let mut next = at + line.len() + 1;
        if let Some((name, value)) = split(line) {
            let from = at + value;
            let (assignment, end) = read_value(text, name, from, at + line.trim_end_matches('\r').len());
            // A quoted value may go on over several lines.
            if end > next {
                let tail = text.get(end..).unwrap_or_default();
                next = end + tail.find('\n').map_or(tail.len(), |n| n + 1);
            }
            found.push(assignment);
        }
        at = next;
    }
    found
}

/// The name in a line, and where its value begins.
fn split(line: &str) -> Option<(&str, usize)> {
    let trimmed = line.trim_start();
    if trimmed.starts_with('#') {
        return None;
    }
    let bare = trimmed.strip_prefix("export ").map_or(trimmed, str::trim_start);
    let sign = bare.find(['=', ':'])?;
    let name = bare.get(..sign)?.trim_end();
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let fits = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    let after = bare.get(sign + 1..)?;
    let value = after.trim_start_matches([' ', '\t']);
    (starts && fits).then(|| (name, line.len() - value.len()))
}

/// The value that begins at `from`, in a line that ends at `end`, and where it ends.
fn read_value(text: &str, name: &str, from: usize, end: usize) -> (Assignment, usize) {
    let line = text.get(from..end).unwrap_or_default();
    let of =
        |value: Option<String>, from: usize, to: usize| Assignment { name: name.to_owned(), value, from, to };
    if let Some(quote) = line.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        let inside = text.get(from + 1..).unwrap_or_default();
        let Some(close) = closing(inside, quote) else { return (of(None, from, end), text.len()) };
        let value = inside.get(..close).unwrap_or_default();
        let plain = !value.contains(['\\', '\n']) && (quote == '\'' || !value.contains('$'));
        let to = from + 1 + close;
        return (of(plain.then(|| value.to_owned()), from + 1, to), to + 1);
    }
    // A comment begins with a space before it.
    let comment = line.find(" #").or_else(|| line.find("\t#")).or_else(|| line.starts_with('#').then_some(0));
    let value = line.get(..comment.unwrap_or(line.len())).unwrap_or_default().trim_end();
    let plain = !value.contains(['$', '\\']);
    (of(plain.then(|| value.to_owned()), from, from + value.len()), from + value.len())
}

fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_read_as_compose_reads_them() {
        let text = "# TAG=no\nTAG=v1\nexport REGISTRY = ghcr.io/acme  # ours\nQUOTED=\"a b\" # c\nSINGLE='$x'\n\
                    EMPTY=\nHASH=a#b\nDEPENDS=${TAG}\nYAML: v3\nTAG=v2\r\nLONG=\"x\nTAG=v9\ny\"\nLAST=1";
        let values = values(text);
        let is = |name: &str| values.get(name).cloned();
        assert_eq!(is("TAG"), Some(Some("v2".into())), "the last one, and not the one within a value");
        assert_eq!(is("REGISTRY"), Some(Some("ghcr.io/acme".into())));
        assert_eq!(is("QUOTED"), Some(Some("a b".into())));
        assert_eq!(is("SINGLE"), Some(Some("$x".into())));
        assert_eq!(is("EMPTY"), Some(Some(String::new())));
        assert_eq!(is("HASH"), Some(Some("a#b".into())));
        assert_eq!(is("DEPENDS"), Some(None));
        assert_eq!(is("YAML"), Some(Some("v3".into())));
        assert_eq!(is("LONG"), Some(None));
        assert_eq!(is("LAST"), Some(Some("1".into())));
    }

    #[test]
    fn only_the_value_changes() {
        let table = [
            ("TAG=v2", "TAG=v1"),
            ("TAG=v2\n", "TAG=v1\n"),
            ("# the tag\nTAG=v2 # set by CI\nB=1\n", "# the tag\nTAG=v1 # set by CI\nB=1\n"),
            ("export TAG=\"v2\"\r\nB=1\r\n", "export TAG=\"v1\"\r\nB=1\r\n"),
            ("TAG='v2'\nTAG=v3\n", "TAG='v2'\nTAG=v1\n"),
            ("B=1", "B=1\nTAG=v1\n"),
            ("", "TAG=v1\n"),
            ("B=1\r\n", "B=1\r\nTAG=v1\r\n"),
            ("TAG=\n", "TAG=v1\n"),
            ("  TAG = v2\n", "  TAG = v1\n"),
        ];
        for (before, after) in table {
            assert_eq!(with(before, "TAG", "v1").as_deref(), Ok(after), "{before:?}");
        }
        assert!(with("TAG=${B}\n", "TAG", "v1").unwrap_err().contains("not a plain value"));
        assert!(with("TAG=v2\n", "TAG", "a b").unwrap_err().contains("quoted"));
    }

    #[test]
    fn a_line_that_was_added_can_be_taken_away() {
        for text in ["", "B=1\n", "B=1\r\n"] {
            assert_eq!(without(&with(text, "TAG", "v1").unwrap(), "TAG"), text);
        }
        assert_eq!(without("A=1\nTAG=v1 # x\nB=1", "TAG"), "A=1\nB=1");
        assert_eq!(without("A=1\n", "TAG"), "A=1\n");
    }

    proptest! {
        #[test]
        fn whatever_the_file_the_value_can_be_read_again_and_nothing_else_changes(text in ".{0,80}(\n.{0,40}){0,4}") {
            let before = values(&text);
            if let Ok(changed) = with(&text, "TAG", "v1.2-rc_3") {
                let mut expected = before;
                expected.insert("TAG".into(), Some("v1.2-rc_3".into()));
                prop_assert_eq!(values(&changed), expected);
                prop_assert_eq!(with(&changed, "TAG", "v1.2-rc_3").unwrap(), changed);
            }
        }
    }
}
