//! Texts with places for values that an earlier step found: `{{name}}`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::core::settings::Text;

/// Values by name.
pub(super) type Values = BTreeMap<String, String>;

/// What a text is made from. Bodies and tokens are far smaller; a bigger file is another file.
const FILE_MAX: u64 = 64 * 1024;

/// How a value is written so that it stays what it is: one value, that ends where its place ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writing {
    /// As it is.
    Raw,
    /// In a URL's path or query, or in a form: percent-encoded.
    Percent,
    /// Within the quotes of a JSON string.
    Json,
}

impl Writing {
    fn write(self, value: &str) -> String {
        match self {
            Self::Raw => value.to_owned(),
            Self::Percent => percent(value),
            Self::Json => {
                let quoted = Value::from(value).to_string();
                quoted.get(1..quoted.len() - 1).unwrap_or_default().to_owned()
            }
        }
    }
}

/// Everything but what RFC 3986 calls unreserved.
fn percent(value: &str) -> String {
    value.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

/// A text with the places of its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Place(String),
}

impl Template {
    /// Whatever is no place is text, `{{ }}` of other languages too.
    pub(super) fn parse(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            plain.push_str(before);
            let place =
                after.split_once("}}").map(|(name, after)| (name.trim(), after)).filter(|(n, _)| is_name(n));
            match place {
                Some((name, after)) => {
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                    pieces.push(Piece::Place(name.to_owned()));
                    rest = after;
                }
                None => {
                    plain.push_str("{{");
                    rest = after;
                }
            }
        }
        plain.push_str(rest);
        pieces.push(Piece::Text(plain));
        Self(pieces)
    }

    /// The names of its places.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Place(name) => Some(name.as_str()),
            Piece::Text(_) => None,
        })
    }

    /// The text with the values in their places. A place whose value nobody knows stays as it is written.
    pub(super) fn fill(&self, values: &Values, writing: Writing) -> String {
        self.0.iter().fold(String::new(), |mut out, piece| {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Place(name) => match values.get(name) {
                    Some(value) => out.push_str(&writing.write(value)),
                    None => out.push_str(&format!("{{{{{name}}}}}")),
                },
            }
            out
        })
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// A text that is either known or read from its file whenever it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    Known(Template),
    File(PathBuf),
}

impl Source {
    pub(super) fn new(text: &Text) -> Self {
        match text {
            Text::Plain(text) => Self::Known(Template::parse(text)),
            Text::File(path) => Self::File(path.clone()),
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        match self {
            Self::Known(template) => Some(template.names()),
            Self::File(_) => None,
        }
        .into_iter()
        .flatten()
    }

    /// The text as it is to be sent.
    ///
    /// # Errors
    /// The file cannot be read; never what is in it.
    pub(super) async fn fill(&self, values: &Values, writing: Writing) -> Result<String, String> {
        match self {
            Self::Known(template) => Ok(template.fill(values, writing)),
            Self::File(path) => {
                let text =
                    read(path).await.map_err(|why| format!("cannot read {}: {why}", path.display()))?;
                Ok(Template::parse(text.trim()).fill(values, writing))
            }
        }
    }
}

async fn read(path: &Path) -> Result<String, String> {
    let about = tokio::fs::metadata(path).await.map_err(|e| e.to_string())?;
    if !about.is_file() || about.len() > FILE_MAX {
        return Err(format!("it is no file of at most {} KiB", FILE_MAX / 1024));
    }
    let bytes = tokio::fs::read(path).await.map_err(|e| e.to_string())?;
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(text: &str, value: &str, writing: Writing) -> String {
        Template::parse(text).fill(&Values::from([("v".to_owned(), value.to_owned())]), writing)
    }

    #[test]
    fn a_value_stays_one_value_wherever_it_is_put() {
        let evil = "a/../b?x=1&y=2#z \"},\r\nX: y{{v}}ä%";
        assert_eq!(
            fill("/users/{{v}}/posts", evil, Writing::Percent),
            "/users/a%2F..%2Fb%3Fx%3D1%26y%3D2%23z%20%22%7D%2C%0D%0AX%3A%20y%7B%7Bv%7D%7D%C3%A4%25/posts"
        );
        let body = fill(r#"{"user": "{{v}}"}"#, evil, Writing::Json);
        let read: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(read["user"], evil);
        assert_eq!(fill("<{{v}}>", "{{v}}", Writing::Raw), "<{{v}}>", "a value is not looked into again");
    }

    #[test]
    fn only_places_are_filled() {
        assert_eq!(fill("{{ v }}{{v}}", "1", Writing::Raw), "11");
        for text in ["{{w}}", "{{", "}}", "{{}}", "{{v", "{{a b}}", "{v}", "{{#each}}", ""] {
            assert_eq!(fill(text, "1", Writing::Raw), text);
        }
        assert_eq!(fill("{{{{v}}", "1", Writing::Raw), "{{1");
        let template = Template::parse("{{a}} and {{b-2}}");
        assert_eq!(template.names().collect::<Vec<_>>(), ["a", "b-2"]);
    }

    #[tokio::test]
    async fn a_file_is_read_each_time_and_its_content_never_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let source = Source::new(&Text::File(path.clone()));
        let values = Values::default();
        let why = source.fill(&values, Writing::Raw).await.unwrap_err();
        assert!(why.starts_with(&format!("cannot read {}: No such file", path.display())), "{why}");
        for token in ["one", "two"] {
            std::fs::write(&path, format!(" {token}\n")).unwrap();
            assert_eq!(source.fill(&values, Writing::Raw).await.unwrap(), token);
        }
        std::fs::write(&path, [b's', 0xff]).unwrap();
        assert!(source.fill(&values, Writing::Raw).await.unwrap_err().ends_with("it is not UTF-8 text"));
        std::fs::write(&path, vec![b's'; 65_537]).unwrap();
        assert!(source.fill(&values, Writing::Raw).await.unwrap_err().contains("at most 64 KiB"));
        let folder = Source::new(&Text::File(dir.path().to_owned()));
        assert!(folder.fill(&values, Writing::Raw).await.unwrap_err().contains("it is no file"));
    }
}
