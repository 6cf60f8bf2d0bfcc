//! Bodies of requests: objects of known fields, texts of bounded length on one line.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::ApiError;
use crate::signal::texts::one_line;

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
}
