//! Paths into a JSON document: `.checks[0].status`, `.info["build number"]`, `migrations_current`.

use std::fmt;

use serde_json::Value;

use super::fault::quoted;

/// Deeper than any document that can be read: `serde_json` stops at 128.
const STEPS_MAX: usize = 128;

/// Where something stands in a JSON document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPath {
    text: String,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

impl JsonPath {
    /// Reads a path: keys after dots, places in lists as `[0]`, any other key as `["x y"]`; `.` is the whole document.
    /// The dot at the beginning may be left out.
    ///
    /// # Errors
    /// What is wrong, where, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |at: usize, what: &str| {
            format!(
                "the JSON path `{text}` {what} at character {}: write it like .checks[0].status or .info[\"build number\"]",
                text.get(..at).map_or(at, |before| before.chars().count()) + 1
            )
        };
        let mut steps = Vec::new();
        let mut at = 0;
        if text.is_empty() {
            return Err(wrong(0, "is empty"));
        }
        while at < text.len() && text != "." {
            let rest = text.get(at..).unwrap_or_default();
            let (step, length) = if rest.starts_with('[') {
                bracket(rest).map_err(|what| wrong(at, what))?
            } else {
                let (dot, name) = match rest.strip_prefix('.') {
                    // `.["x"]` and `.[0]` are what jq users write.
                    Some(name) if name.starts_with('[') => {
                        at += 1;
                        continue;
                    }
                    Some(name) => (1, name),
                    None if at == 0 => (0, rest),
                    None => return Err(wrong(at, "has something else than `.` or `[`")),
                };
                let length = name.find(['.', '[', ']', '"', ' ']).unwrap_or(name.len());
                if length == 0 {
                    return Err(wrong(at + dot, "has no key"));
                }
                (Step::Key(name.get(..length).unwrap_or_default().to_owned()), dot + length)
            };
            steps.push(step);
            at += length;
        }
        if steps.len() > STEPS_MAX {
            return Err(wrong(0, "has more steps than a document can have levels"));
        }
        Ok(Self { text: text.to_owned(), steps })
    }

    /// What stands there.
    ///
    /// # Errors
    /// How far it goes, for people.
    pub fn find<'v>(&self, document: &'v Value) -> Result<&'v Value, String> {
        let mut here = document;
        for (depth, step) in self.steps.iter().enumerate() {
            let next = match step {
                Step::Key(key) => here.as_object().and_then(|o| o.get(key)),
                Step::Index(index) => here.as_array().and_then(|a| a.get(*index)),
            };
            here = next.ok_or_else(|| {
                let parent =
                    Self { text: String::new(), steps: self.steps.iter().take(depth).cloned().collect() };
                let parent = if depth == 0 { "the body".to_owned() } else { parent.canonical() };
                format!("there is no {self}: {parent} is {}", described(here))
            })?;
        }
        Ok(here)
    }

    fn canonical(&self) -> String {
        self.steps.iter().map(ToString::to_string).collect()
    }
}

/// `[0]` or `["a key"]`, and how long it is.
fn bracket(rest: &str) -> Result<(Step, usize), &'static str> {
    let inside = rest.get(1..).unwrap_or_default();
    if inside.starts_with('"') {
        let mut read = serde_json::Deserializer::from_str(inside).into_iter::<String>();
        let key = read.next().and_then(Result::ok).ok_or("has a string that does not end")?;
        let end = read.byte_offset();
        if inside.as_bytes().get(end) != Some(&b']') {
            return Err("has a `[` without its `]`");
        }
        return Ok((Step::Key(key), end + 2));
    }
    let end = inside.find(']').ok_or("has a `[` without its `]`")?;
    let digits = inside.get(..end).unwrap_or_default();
    let index = if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None };
    index.map(|index| (Step::Index(index), end + 2)).ok_or("has neither a number nor a \"string\" in `[]`")
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "[{index}]"),
            Self::Key(key) if key.contains(['.', '[', ']', '"', ' ']) || key.is_empty() => {
                write!(f, "[{key:?}]")
            }
            Self::Key(key) => write!(f, ".{key}"),
        }
    }
}

/// Whether two values are the same: numbers by their value (2 is 2.0), everything else literally.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => {
            x == y || (x.is_f64() || y.is_f64()) && x.as_f64() == y.as_f64()
        }
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(key, x)| y.get(key).is_some_and(|y| same(x, y)))
        }
        _ => a == b,
    }
}

/// A value as a person reads it, with its type: `the string "2"`, `the number 2`, `an object with the keys a, b`.
pub fn described(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(is) => is.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the string \"{}\"", quoted(text)),
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(object) => {
            let keys: Vec<&str> = object.keys().take(8).map(String::as_str).collect();
            match keys.is_empty() {
                true => "an empty object".into(),
                false => format!("an object with the keys {}", quoted(&keys.join(", "))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(path: &str, document: &Value) -> Result<Value, String> {
        JsonPath::parse(path)?.find(document).cloned()
    }

    #[test]
    fn every_way_to_write_a_path_leads_there() {
        let document = json!({
            "version": "2", "checks": [{"status": "UP"}, [1, 2, 3]], "x y": {"a.b": {"\"q\"": true}}, "": 7, "ä": 1
        });
        for (path, value) in [
            (".version", json!("2")),
            ("version", json!("2")),
            (".checks[0].status", json!("UP")),
            ("checks[1][2]", json!(3)),
            (".[\"version\"]", json!("2")),
            (r#"["x y"]["a.b"]["\"q\""]"#, json!(true)),
            (r#".["x y"]["a.b"]"#, json!({"\"q\"": true})),
            (r#"[""]"#, json!(7)),
            (".ä", json!(1)),
        ] {
            assert_eq!(at(path, &document), Ok(value), "{path}");
        }
        assert_eq!(at(".", &document), Ok(document.clone()));
        assert_eq!(at(".[1]", &json!([1, 2])), Ok(json!(2)));
    }

    #[test]
    fn a_path_that_leads_nowhere_says_how_far_it_goes() {
        let document = json!({"checks": [{"status": "UP"}], "n": 1});
        for (path, why) in [
            (".version", "there is no .version: the body is an object with the keys checks, n"),
            (".checks[3].status", "there is no .checks[3].status: .checks is a list of 1"),
            (".n.x", "there is no .n.x: .n is the number 1"),
            (
                ".checks[0].status[0]",
                "there is no .checks[0].status[0]: .checks[0].status is the string \"UP\"",
            ),
        ] {
            assert_eq!(at(path, &document), Err(why.to_owned()), "{path}");
        }
        assert_eq!(at(".a", &Value::Null), Err("there is no .a: the body is null".into()));
    }

    #[test]
    fn a_path_that_makes_no_sense_is_refused_with_its_place() {
        for (path, what) in [
            ("", "is empty at character 1"),
            ("..a", "has no key at character 2"),
            (".a.", "has no key at character 4"),
            (".a b", "has something else than `.` or `[` at character 3"),
            (".a[", "has a `[` without its `]` at character 3"),
            (".a[-1]", "has neither a number nor a \"string\""),
            (".a[]", "has neither a number nor a \"string\""),
            (".a[\"b]", "has a string that does not end"),
            (".a[\"b\"c]", "has a `[` without its `]`"),
            (".a[99999999999999999999]", "has neither a number"),
            (".ä]", "has something else than `.` or `[` at character 3"),
        ] {
            let why = JsonPath::parse(path).unwrap_err();
            assert!(why.contains(what) && why.contains("write it like .checks[0].status"), "{path}: {why}");
        }
    }

    #[test]
    fn numbers_are_compared_by_value_and_nothing_else_is_guessed() {
        for (a, b, equal) in [
            (json!(2), json!(2.0), true),
            (json!([1, {"a": 1.0}]), json!([1.0, {"a": 1}]), true),
            (json!(2), json!("2"), false),
            (json!(true), json!("true"), false),
            (json!(null), json!(0), false),
            (json!(9_007_199_254_740_993_u64), json!(9_007_199_254_740_992_u64), false),
            (json!({"a": 1}), json!({"a": 1, "b": 2}), false),
        ] {
            assert_eq!(same(&a, &b), equal, "{a} {b}");
        }
    }
}
