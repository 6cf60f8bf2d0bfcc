//! GitHub's issues: opens one for a rollback, and finds it again.
//!
//! GitHub knows no key by which a request that is sent twice would be one. So the body has a mark in it that no other issue
//! has, and before an issue is opened those that were touched since are looked through for it. Not by label: whoever has no
//! push access sets none, and GitHub drops them without a word. Not by search: that knows of an issue only a while later.

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::plan::Endpoint;
use super::post::{Failure, Post, cut};
use super::words::rfc3339;
use crate::core::Timestamp;

/// How the tracker is called where channels are spoken of; no channel can be called so.
pub const NAME: &str = "report.github";
/// Where GitHub's own API is.
pub const URL: &str = "https://api.github.com";
/// "body is too long (maximum is 65536 characters)"; titles end at 256.
pub const BODY_MAX: usize = 65_536;
const TITLE_MAX: usize = 256;
/// One request may take this long: nobody waits for it.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Issues asked for at a time, and how often: so many that were touched since a rollback are a busy repository's day.
const PAGE: usize = 50;
const PAGES_MAX: usize = 10;
/// A page of issues, each with the longest body there is.
const ANSWER_MAX: usize = 16 << 20;
/// Clocks differ: issues are looked through from so long before.
const CLOCKS: Duration = Duration::from_secs(3600);

/// Where tickets are opened.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracker {
    /// `owner/name`.
    pub repository: String,
    /// The API, with its token.
    pub endpoint: Endpoint,
    /// What the issues are labelled with.
    pub labels: Vec<String>,
}

/// An issue that is to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// One line.
    pub title: String,
    /// Markdown.
    pub body: String,
    /// What it is found by.
    pub mark: String,
}

/// A repository with its client.
#[derive(Debug)]
pub struct GitHub {
    tracker: Tracker,
    post: Post,
}

impl GitHub {
    /// With a client of its own.
    pub fn new(tracker: &Tracker) -> Self {
        Self { tracker: tracker.clone(), post: Post::new(&tracker.endpoint, TIMEOUT, Vec::new()) }
    }

    /// Whether it is this place that it speaks to.
    pub fn is_for(&self, tracker: &Tracker) -> bool {
        self.tracker == *tracker
    }

    /// What is posted to open an issue.
    pub fn payload(tracker: &Tracker, draft: &Draft) -> Value {
        let mark = format!("<!-- {} -->\n", draft.mark);
        let body = cut(&draft.body, BODY_MAX.saturating_sub(mark.len()));
        json!({"title": cut(&draft.title, TITLE_MAX), "body": mark + &body, "labels": tracker.labels})
    }

    /// Where the issue with this mark is, if there is one that was touched since.
    ///
    /// # Errors
    /// If GitHub cannot be asked.
    pub async fn find(
        &self,
        mark: &str,
        since: Timestamp,
        now: Timestamp,
    ) -> Result<Option<String>, Failure> {
        let since = rfc3339(since.before(CLOCKS));
        for page in 1..=PAGES_MAX {
            let request = self.request(Method::GET, "/issues")?.query(&[
                ("state", "all"),
                ("since", since.as_str()),
                ("sort", "created"),
                ("direction", "desc"),
                ("per_page", PAGE.to_string().as_str()),
                ("page", page.to_string().as_str()),
            ]);
            let answer = self.post.ask(request, ANSWER_MAX, now).await?;
            let Some(issues) = answer.as_array() else {
                return Err(Failure::permanent("it answered something that is no list of issues"));
            };
            let marked = |issue: &&Value| issue["body"].as_str().is_some_and(|body| has(body, mark));
            if let Some(found) = issues.iter().find(marked) {
                return address(found).map(Some);
            }
            if issues.len() < PAGE {
                break;
            }
        }
        Ok(None)
    }

    /// Opens an issue: where it is.
    ///
    /// # Errors
    /// If it may not be open. It may be all the same, so [`find`](Self::find) comes first.
    pub async fn open(&self, draft: &Draft, now: Timestamp) -> Result<String, Failure> {
        let request = self.request(Method::POST, "/issues")?.json(&Self::payload(&self.tracker, draft));
        address(&self.post.ask(request, ANSWER_MAX, now).await?)
    }

    /// Whether issues could be opened there, as far as that can be told without opening one.
    ///
    /// # Errors
    /// If not, or if GitHub cannot be asked.
    pub async fn examine(&self, now: Timestamp) -> Result<(), Failure> {
        let repository = self.post.ask(self.request(Method::GET, "")?, ANSWER_MAX, now).await?;
        if repository["has_issues"] == false {
            return Err(Failure::permanent("issues are switched off in this repository"));
        }
        if repository["archived"] == true {
            return Err(Failure::permanent("this repository is archived, so no issue can be opened in it"));
        }
        Ok(())
    }

    fn request(&self, method: Method, below: &str) -> Result<RequestBuilder, Failure> {
        let base = self.tracker.endpoint.url.expose().trim_end_matches('/');
        let url = format!("{base}/repos/{}{below}", self.tracker.repository);
        let request = self.post.request(method, &url)?;
        Ok(request
            .header("accept", "application/vnd.github+json")
            .header("x-github-api-version", "2022-11-28"))
    }
}

/// Whether a body has a mark in it; not one that only begins like it.
fn has(body: &str, mark: &str) -> bool {
    let goes_on = |c: char| c.is_ascii_alphanumeric() || c == '-';
    body.match_indices(mark).any(|(at, _)| !body[at + mark.len()..].starts_with(goes_on))
}

/// Where an issue is, for people.
fn address(issue: &Value) -> Result<String, Failure> {
    let url = issue["html_url"].as_str().filter(|url| {
        url.len() <= 2048
            && url.starts_with("http")
            && url.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '<' | '>' | '"'))
    });
    url.map(str::to_owned).ok_or_else(|| Failure::permanent("it answered without the address of the issue"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracker() -> Tracker {
        Tracker {
            repository: "shop/shop".into(),
            endpoint: Endpoint::at(URL),
            labels: vec!["incident".into()],
        }
    }

    #[test]
    fn what_is_posted_is_marked_and_never_too_long() {
        let draft =
            Draft {
                title: "ü".repeat(500), body: "ü".repeat(BODY_MAX), mark: "backstop-rollback-1".into()
            };
        let payload = GitHub::payload(&tracker(), &draft);
        let length = |key: &str| payload[key].as_str().unwrap().chars().count();
        assert_eq!((length("title"), length("body")), (TITLE_MAX, BODY_MAX));
        assert!(has(payload["body"].as_str().unwrap(), "backstop-rollback-1"));
    }

    #[test]
    fn a_mark_is_not_the_beginning_of_another() {
        assert!(has("<!-- backstop-rollback-0a1 -->", "backstop-rollback-0a1"));
        assert!(has("x backstop-rollback-0a12, backstop-rollback-0a1", "backstop-rollback-0a1"));
        assert!(!has("<!-- backstop-rollback-0a12 -->", "backstop-rollback-0a1"));
    }

    #[test]
    fn an_answer_without_an_address_is_none() {
        assert!(address(&json!({"html_url": "https://github.com/shop/shop/issues/7"})).is_ok());
        for odd in
            [json!({}), json!({"html_url": "javascript:alert(1)"}), json!({"html_url": "https://x/<b>"})]
        {
            assert!(address(&odd).unwrap_err().permanent, "{odd}");
        }
    }
}
