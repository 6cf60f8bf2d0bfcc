//! What comes in from outside, made harmless: objects of known fields, texts of bounded length on one line.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::ApiError;

/// Reads the body as an object. Lists are refused: their items would be taken for fields by their place.
pub(super) fn object<T: DeserializeOwned>(body: Result<Json<Value>, JsonRejection>) -> Result<T, ApiError> {
    let Json(body) = body?;
    let wrong =
        |what: String| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, format!("the body is wrong: {what}"));
    if !body.is_object() {
        return Err(wrong("it is not a JSON object".to_owned()).next("send at least `{}`"));
    }
    serde_path_to_error::deserialize(body).map_err(|error| {
        let place = error.path().to_string();
        // Without a path the message itself names the field.
        let place = if place == "." { String::new() } else { format!("`{place}`: ") };
        wrong(format!("{place}{}", error.into_inner())).next("`GET /` shows the fields")
    })
}

/// A text of bounded length on one line: it goes into logs, chats and terminals.
pub(super) fn text(field: &str, given: Option<String>, chars_max: usize) -> Result<String, ApiError> {
    let given = given.unwrap_or_default();
    if given.chars().count() > chars_max {
        let error = format!("`{field}` is longer than {chars_max} characters");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, error));
    }
    Ok(one_line(&given))
}

/// A text on one line, without characters that do something to a terminal or hide in it.
pub(super) fn one_line(given: &str) -> String {
    let line: String = given
        .chars()
        .filter(|c| !is_invisible(*c))
        .map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { ' ' } else { c })
        .collect();
    line.trim().to_owned()
}

/// The beginning of a text, at most `chars_max` characters of it, with `…` where it was cut off.
pub(super) fn shortened(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some(_) => text.chars().take(chars_max.saturating_sub(1)).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

/// Characters that take no room and turn the direction of writing round, or make equal texts differ. The joiners of
/// emoji and of some scripts (U+200C, U+200D) carry meaning and stay.
const fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_one_bounded_line() {
        let given = |s: &str| text("why", Some(s.to_owned()), 20);
        assert_eq!(given(" a\nb\u{1b}[31m ").unwrap(), "a b [31m");
        assert_eq!(text("why", None, 20).unwrap(), "");
        assert!(given("123456789012345678901").unwrap_err().error.contains("20 characters"));
        assert_eq!(given("ääääääääääääääääääää").unwrap().chars().count(), 20);
    }

    #[test]
    fn what_hides_in_a_text_is_taken_out_and_what_means_something_stays() {
        assert_eq!(one_line("a\u{202e}b\u{200b}c\u{2028}d\u{feff}"), "abc d");
        assert_eq!(one_line("👩\u{200d}🚒 kaputt"), "👩\u{200d}🚒 kaputt");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äöüß", 3), "äö…");
        assert_eq!(shortened("", 3), "");
    }
}
