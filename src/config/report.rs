//! `[report]`: whose is what a rollback leaves to people, when they are reminded of it, and where a ticket is opened.

use std::path::Path;

use super::announce::{BearerToken, Item, Listed};
use super::channels::Making;
use super::file::{Report, ReportGithub, ReportOwners, ReportReminders};
use super::locate::Places;
use super::problem::Wrong;
use super::schema::Findings;
use super::settings::ReportSettings;
use super::values::{Name, Parse, quoted, text_settings};
use crate::notify::plan::Endpoint;
use crate::notify::{GITHUB_URL, Tracker};
use crate::report::checklist::Owners;
use crate::report::reminder::Reminders;

/// GitHub's limits of names.
const OWNER_MAX: usize = 39;
const REPOSITORY_MAX: usize = 100;
const LABEL_MAX: usize = 50;
/// What issues are labelled with, unless somebody says otherwise.
const LABEL: &str = "incident";

text_settings! {
    [] RepositoryWord;
}

/// A repository: `owner/name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RepositoryWord(pub(super) String);

impl Parse for RepositoryWord {
    const RIGHT: &'static str = "OWNER/NAME would be right, as in \"example/shop\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let fits = |name: &str, max: usize| {
            (1..=max).contains(&name.len())
                && !matches!(name, "." | "..")
                && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        let (owner, name) = text.split_once('/').unwrap_or_default();
        if fits(owner, OWNER_MAX) && fits(name, REPOSITORY_MAX) {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new(format!("{} is not a repository", quoted(text)), Self::RIGHT))
    }
}

/// A label of an issue.
#[derive(Debug, Clone, Copy)]
pub(super) struct LabelWord;

impl Item for LabelWord {
    const RIGHT: &'static str = "a list of labels would be right, as in [\"incident\", \"backstop\"]";

    fn check(text: &str) -> Result<(), Wrong> {
        let fits = (1..=LABEL_MAX).contains(&text.chars().count());
        if fits && !text.contains(char::is_control) && text.trim() == text && !text.contains(',') {
            return Ok(());
        }
        let right = "one line of 1 to 50 characters without a comma would be right";
        Err(Wrong::new(format!("{} is not a label", quoted(text)), right))
    }
}

/// What was typed, as it holds. What is wrong is added to the findings.
pub(super) fn made(
    typed: Report,
    credentials: Option<&Path>,
    places: &Places,
    findings: &mut Findings,
) -> ReportSettings {
    let mut making = Making { credentials, places, findings };
    let reminders = reminders(&typed.reminders.unwrap_or_default());
    if !reminders.until.is_zero() && reminders.until < reminders.after {
        let right = "a time longer than `after` would be right, or \"0s\" for no reminders";
        making.wrong(&["report", "reminders", "for"], "is over before the first reminder", right);
    }
    ReportSettings {
        owners: owners(typed.owners.unwrap_or_default()),
        reminders,
        github: github(typed.github.unwrap_or_default(), &mut making),
    }
}

fn owners(typed: ReportOwners) -> Owners {
    let shipped = Owners::default();
    let or = |typed: Option<Name>, shipped: String| typed.map_or(shipped, |name| name.0);
    Owners {
        incident: or(typed.incident, shipped.incident),
        cause: or(typed.cause, shipped.cause),
        fix: or(typed.fix, shipped.fix),
        review: or(typed.review, shipped.review),
    }
}

fn reminders(typed: &ReportReminders) -> Reminders {
    let shipped = Reminders::default();
    Reminders {
        enabled: typed.enabled.unwrap_or(shipped.enabled),
        after: typed.after.map_or(shipped.after, |span| span.0),
        every: typed.every.map_or(shipped.every, |span| span.0),
        until: typed.r#for.map_or(shipped.until, |span| span.0),
    }
}

/// Where tickets are opened; nowhere if nobody says a repository.
fn github(typed: ReportGithub, making: &mut Making<'_>) -> Option<Tracker> {
    const SECTION: [&str; 2] = ["report", "github"];
    let given = typed.token.map(|token| token.0);
    let Some(repository) = typed.repository else {
        if given.is_some() || typed.token_file.is_some() {
            let right = "repository = \"OWNER/NAME\" would be right, or no token";
            making.lacks(&SECTION, "repository", right);
        }
        return None;
    };
    let token = making.needed::<BearerToken>(&SECTION, "token", given, typed.token_file.as_ref(), |t| t.0);
    let ca = making.ca(&SECTION, typed.ca_file.as_ref());
    let url = typed.api.map_or_else(|| GITHUB_URL.to_owned(), |url| url.0);
    let labels = typed.labels.map_or_else(|| vec![LABEL.to_owned()], |Listed(labels, _)| labels);
    let endpoint = Endpoint { url: url.as_str().into(), token: Some(token?), ca };
    Some(Tracker { repository: repository.0, endpoint, labels })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_an_owner_and_a_name() {
        for good in ["example/shop", "a/b", "my-org/my.repo_2"] {
            assert!(RepositoryWord::parse(good).is_ok(), "{good}");
        }
        for bad in
            ["", "shop", "/shop", "example/", "a/b/c", "a/..", "exam ple/shop", "https://github.com/a/b"]
        {
            assert!(RepositoryWord::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_label_is_one_line_without_a_comma() {
        assert!(LabelWord::check("kind: incident").is_ok());
        for bad in ["", " incident", "a,b", "a\nb", &"x".repeat(51)] {
            assert!(LabelWord::check(bad).is_err(), "{bad}");
        }
    }
}
