//! What the API answers when it cannot do what was asked: always JSON, always with what to do about it.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::views::ErrorView;

/// Longest name that is compared with the others: the comparison is quadratic, and no service name is longer.
const COMPARED_CHARS_MAX: usize = 64;

/// Most names that are suggested: more are a list, not a hint.
const SUGGESTIONS_MAX: usize = 3;

/// A request that was not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// What went wrong.
    pub error: String,
    /// What to do about it.
    pub next: Option<String>,
    /// In how many seconds to try again, as the `Retry-After` header.
    pub retry_after: Option<u64>,
}

impl ApiError {
    /// An error with nothing to be done about it.
    pub fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into(), next: None, retry_after: None }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// There is no such service: names the nearest ones that there are.
    pub fn unknown_service<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Self {
        let error = Self::new(StatusCode::NOT_FOUND, format!("there is no service `{name}`"));
        let known: Vec<&str> = known.collect();
        if known.is_empty() {
            return error.next(
                "no service is watched yet: give a container the label `backstop.enable=true`, then `backstop status`",
            );
        }
        let near = nearest(name, &known);
        if near.is_empty() {
            return error.next("`backstop status` lists the services");
        }
        let quoted: Vec<String> = near.iter().map(|name| format!("`{name}`")).collect();
        error.next(format!("did you mean {}?", quoted.join(" or ")))
    }

    /// The store could not be asked.
    pub fn store(why: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, format!("the store could not be read: {why}"))
            .next("`backstop status` shows the state of the store")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorView { error: self.error, next: self.next };
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"backstop\""));
        }
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        let error = Self::new(rejection.status(), rejection.body_text());
        match rejection {
            JsonRejection::MissingJsonContentType(_) => error
                .next("send the header `Content-Type: application/json` and a JSON object, at least `{}`"),
            JsonRejection::JsonDataError(_)
            | JsonRejection::JsonSyntaxError(_)
            | JsonRejection::BytesRejection(_) => error,
            // The enum is not closed, and its own text says what is wrong.
            _ => error,
        }
    }
}

/// The names nearest to `name`, nearest first: those that contain it, or differ in a third of its letters at most.
pub(super) fn nearest<'a>(name: &str, known: &[&'a str]) -> Vec<&'a str> {
    let name: String = name.chars().take(COMPARED_CHARS_MAX).collect::<String>().to_lowercase();
    let mut near: Vec<(usize, &str)> = known
        .iter()
        .filter_map(|known| {
            let lower = known.to_lowercase();
            if !name.is_empty() && (lower.contains(&name) || name.contains(&lower)) {
                return Some((1, *known));
            }
            let distance = distance(&name, &lower);
            (distance <= name.chars().count().div_ceil(3)).then_some((distance, *known))
        })
        .collect();
    near.sort_unstable();
    near.into_iter().take(SUGGESTIONS_MAX).map(|(_, name)| name).collect()
}

/// How many letters must be changed, added or dropped to make one of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(COMPARED_CHARS_MAX).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().take(COMPARED_CHARS_MAX).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in b.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_names_are_suggested() {
        let known = ["shop", "shop-worker", "billing", "web"];
        assert_eq!(nearest("shp", &known), ["shop"]);
        assert_eq!(nearest("SHOP", &known), ["shop", "shop-worker"]);
        assert_eq!(nearest("biling", &known), ["billing"]);
        assert_eq!(nearest("entirely-else", &known), Vec::<&str>::new());
        assert_eq!(nearest("", &known), Vec::<&str>::new());
    }

    #[test]
    fn without_any_service_the_label_is_named() {
        let error = ApiError::unknown_service("shop", std::iter::empty());
        assert!(error.next.unwrap().contains("backstop.enable=true"));
    }
}
