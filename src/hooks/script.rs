//! Prepared SQL files: read, and looked through for what would break the one transaction that they are to run in.

use std::path::Path;

/// A downgrade is a page of SQL; data belongs into a backup.
const LARGEST: u64 = 16 << 20;
/// What begins or ends a transaction.
const OWN: [&str; 8] = ["BEGIN", "COMMIT", "END", "ROLLBACK", "ABORT", "START", "SAVEPOINT", "PREPARE"];

/// The text of a file that can be run in one transaction.
///
/// # Errors
/// Why it cannot, and what to change.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let failed = |what: String| format!("{} {what}", path.display());
    let about = std::fs::metadata(path).map_err(|e| failed(format!("cannot be read: {e}")))?;
    if !about.is_file() || about.len() > LARGEST {
        return Err(failed(format!("is no file of at most {LARGEST} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| failed(format!("cannot be read: {e}")))?;
    check(&text).map_err(failed)?;
    Ok(text)
}

fn check(text: &str) -> Result<(), String> {
    let mut any = false;
    for (line, first) in first_words(text) {
        any = true;
        if first.starts_with('\\') {
            return Err(format!("line {line}: {first} is for psql and no SQL: take it out"));
        }
        if OWN.contains(&first.to_ascii_uppercase().as_str()) {
            return Err(format!(
                "line {line}: {first} is its own transaction, and it is to run in one that is taken back if anything \
                 fails: take it out"
            ));
        }
    }
    if any { Ok(()) } else { Err("holds no statement".into()) }
}

/// The first word of every statement, with its line.
fn first_words(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let (mut rest, mut fresh) = (text, true);
    let line = |rest: &str| text[..text.len() - rest.len()].matches('\n').count() + 1;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("--") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            comment(rest)
        } else if c == '\'' || c == '"' {
            fresh = false;
            quoted(rest, c, text[..text.len() - rest.len()].ends_with(['e', 'E']))
        } else if let Some(tag) = dollar(rest) {
            fresh = false;
            let body = rest.get(tag.len()..).unwrap_or_default();
            body.find(tag).map_or(rest.len(), |end| end + 2 * tag.len())
        } else if c == ';' {
            fresh = true;
            1
        } else if c.is_whitespace() {
            c.len_utf8()
        } else if is_word(c) || c == '\\' {
            let end =
                rest.char_indices().skip(1).find(|(_, c)| !is_word(*c)).map_or(rest.len(), |(at, _)| at);
            if std::mem::take(&mut fresh) || c == '\\' {
                found.push((line(rest), &rest[..end]));
            }
            end
        } else {
            fresh = false;
            c.len_utf8()
        };
        rest = rest.get(skipped..).unwrap_or_default();
    }
    found
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of a comment, which may have others in it.
fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with("*/") {
            (depth, at) = (depth.saturating_sub(1), at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of a quoted text; a doubled quote goes on.
fn quoted(text: &str, quote: char, escapes: bool) -> usize {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' && escapes {
            chars.next();
        } else if c == quote {
            match chars.peek() {
                Some((_, next)) if *next == quote => _ = chars.next(),
                Some(_) | None => return at + c.len_utf8(),
            }
        }
    }
    text.len()
}

/// `$$` or `$tag$` at the beginning.
fn dollar(text: &str) -> Option<&str> {
    let rest = text.strip_prefix('$')?;
    let end = rest.find('$')?;
    let tag = rest.get(..end)?;
    let begins = tag.chars().next().is_none_or(|c| c.is_alphabetic() || c == '_');
    (begins && tag.chars().all(is_word)).then(|| &text[..end + 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_told_by_their_first_words() {
        let text = "-- begin; not this\nDELETE FROM a WHERE b = ';commit';\n/* /* begin; */ ; */ DROP TABLE \"x;\";\n\
                    CREATE FUNCTION f() RETURNS trigger AS $f$ BEGIN; COMMIT; $f$ LANGUAGE plpgsql;\n\
                    SELECT E'it\\'s; rollback';";
        let words: Vec<&str> = first_words(text).into_iter().map(|(_, word)| word).collect();
        assert_eq!(words, ["DELETE", "DROP", "CREATE", "SELECT"]);
        assert_eq!(check(text), Ok(()));
    }

    #[test]
    fn what_would_end_the_transaction_is_refused_with_its_line() {
        for (text, line) in
            [("BEGIN;\nDROP TABLE a;\nCOMMIT;", 1), ("DROP TABLE a;\n commit;", 2), ("select 1;\n\nEnd", 3)]
        {
            let why = check(text).unwrap_err();
            assert!(
                why.starts_with(&format!("line {line}: ")) && why.contains("its own transaction"),
                "{why}"
            );
        }
        assert!(check("SELECT 1;\n\\i other.sql\n").unwrap_err().contains("line 2: \\i is for psql"));
        assert!(check("-- nothing\n ; ").unwrap_err().contains("no statement"));
    }

    #[test]
    fn unended_texts_do_not_run_away() {
        for text in ["'", "\"a", "/* a", "$$ a", "$a", "a\\", "--", "E'\\", "é;é"] {
            let _ = check(text);
        }
    }
}
