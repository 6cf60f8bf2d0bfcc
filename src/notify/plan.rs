//! The plan: which channels there are, what goes where, and who is told when nobody answers. Made by the configuration,
//! never changed, only replaced by the next.

use std::fmt;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::email::Mail;
use super::kinds::{self, Course};
use super::webhook::Shape;
use super::words::Template;
use crate::core::announcement::{Announcement, AnnouncementKind};
use crate::core::settings::Severity;
use crate::store::Matter;

/// Something that is never shown; unlike what it is made of, two can be compared.
#[derive(Clone)]
pub struct Secret(pub SecretString);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Where announcements go.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// The channels, by name.
    pub channels: Vec<Channel>,
    /// What goes to which channel; without any, everything goes to all.
    pub routes: Vec<Route>,
    /// Whom to tell when nobody takes a matter on.
    pub escalation: Escalation,
}

/// One place that announcements go to.
#[derive(Debug, Clone, PartialEq)]
pub struct Channel {
    /// Its name, in settings, logs and metrics.
    pub name: String,
    /// Who reads it.
    pub audience: Audience,
    /// How long one delivery may take.
    pub timeout: Duration,
    /// Whether what everybody should look at now calls the whole channel.
    pub mention: bool,
    /// The words, if they are not the runbook's.
    pub text: Option<Template>,
    /// How it is reached.
    pub medium: Medium,
}

/// Who reads a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Audience {
    /// Those who run the services: everything, with reasons.
    Internal,
    /// Those who use them: that there is a problem, and that it is over.
    Users,
}

/// How a channel is reached.
#[derive(Debug, Clone, PartialEq)]
pub enum Medium {
    /// An incoming webhook of Slack.
    Slack(Endpoint),
    /// Events API v2 of PagerDuty.
    PagerDuty {
        /// Where events go.
        endpoint: Endpoint,
        /// The integration key.
        routing_key: Secret,
    },
    /// SMTP.
    Email(Mail),
    /// Any other HTTP endpoint.
    Webhook {
        /// Where it is.
        endpoint: Endpoint,
        /// The key that deliveries are signed with, decoded.
        key: Option<Secret>,
        /// What a body looks like.
        shape: Shape,
    },
    /// Alertmanager's API v2.
    Alertmanager(Endpoint),
}

/// An HTTP endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// The URL. It may carry its own authorization, so it is a secret.
    pub url: Secret,
    /// What is sent as `Authorization: Bearer`.
    pub token: Option<Secret>,
    /// Who signed its certificate, in PEM, if that is not one of those that everybody trusts.
    pub ca: Option<String>,
}

impl Endpoint {
    /// One that needs nothing but its URL.
    pub fn at(url: &str) -> Self {
        Self { url: url.into(), token: None, ca: None }
    }
}

impl Medium {
    /// The word for it in settings and messages.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Slack(_) => "slack",
            Self::PagerDuty { .. } => "pagerduty",
            Self::Email(_) => "email",
            Self::Webhook { .. } => "webhook",
            Self::Alertmanager(_) => "alertmanager",
        }
    }

    /// Whether it keeps matters open until it hears that they are over.
    pub const fn keeps_matters(&self) -> bool {
        match self {
            Self::PagerDuty { .. } | Self::Alertmanager(_) => true,
            Self::Slack(_) | Self::Email(_) | Self::Webhook { .. } => false,
        }
    }
}

impl Channel {
    /// A channel for those who run the services, with the runbook's words.
    pub fn new(name: &str, medium: Medium) -> Self {
        Self {
            name: name.to_owned(),
            audience: Audience::Internal,
            timeout: Duration::from_secs(10),
            mention: true,
            text: None,
            medium,
        }
    }

    /// Whether it hears of the end of what it heard of, whatever the routes say.
    fn hears_the_end(&self) -> bool {
        self.medium.keeps_matters() || self.audience == Audience::Users
    }
}

/// What goes to some channels: whatever meets all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Route {
    /// Patterns for the service; `*` is any letters, `?` is one. Empty: all, and what is about no service.
    pub services: Vec<String>,
    /// At least this urgent.
    pub severity: Option<Severity>,
    /// Of one of these kinds. Empty: all.
    pub kinds: Vec<AnnouncementKind>,
    /// The channels.
    pub channels: Vec<String>,
}

impl Route {
    fn takes(&self, a: &Announcement) -> bool {
        let service = a.service.as_ref().map_or("", |service| service.as_str());
        let service_fits = self.services.is_empty()
            || (!service.is_empty() && self.services.iter().any(|p| fits(p, service)));
        service_fits
            && self.severity.is_none_or(|least| kinds::severity(a) >= least)
            && (self.kinds.is_empty() || self.kinds.contains(&a.kind))
    }
}

/// Whom to tell when nobody takes a matter on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Escalation {
    /// What a person has to answer.
    pub kinds: Vec<AnnouncementKind>,
    /// The levels, the soonest first.
    pub levels: Vec<Level>,
}

/// One level of escalation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    /// Its name: it is told once.
    pub name: String,
    /// How long after the announcement.
    pub after: Duration,
    /// Who is told.
    pub channels: Vec<String>,
}

impl Plan {
    /// A plan of nothing but channels.
    pub fn of(channels: Vec<Channel>) -> Self {
        Self { channels, ..Self::default() }
    }

    /// The channel of that name.
    pub fn channel(&self, name: &str) -> Option<&Channel> {
        self.channels.iter().find(|channel| channel.name == name)
    }

    /// Where an announcement goes, by the routes and by what its matter's channels were told already.
    pub fn channels_for(&self, a: &Announcement, matter: Option<&Matter>) -> Vec<&Channel> {
        if a.kind == AnnouncementKind::Escalated {
            let level = self.escalation.levels.iter().find(|level| kinds::is_of_level(a, &level.name));
            let named =
                |channel: &&Channel| level.is_some_and(|level| level.channels.contains(&channel.name));
            return self.channels.iter().filter(named).collect();
        }
        let taking: Vec<&Route> = self.routes.iter().filter(|route| route.takes(a)).collect();
        let ends = matches!(kinds::course(a), Course::Closes | Course::Acknowledges);
        let goes = |channel: &&Channel| {
            let mut routes = taking.iter().filter(|route| route.channels.contains(&channel.name));
            let routed = self.routes.is_empty() || routes.clone().next().is_some();
            // Nobody would ever close what was opened by a note, so it takes somebody to ask for it.
            let is_note = kinds::course(a) == Course::Note && channel.medium.keeps_matters();
            let wanted = !is_note || routes.any(|route| !route.kinds.is_empty());
            let told = matter.is_some_and(|matter| matter.told.contains(&channel.name));
            (routed && wanted) || (ends && told && channel.hears_the_end())
        };
        self.channels.iter().filter(goes).collect()
    }
}

/// Whether a name fits a pattern, where `*` is any letters and `?` is one.
pub fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where the last star stood, and what it has taken so far.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            Some(_) | None => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    n = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_stand_for_letters() {
        for (pattern, name) in [
            ("*", "shop"),
            ("shop", "shop"),
            ("shop*", "shop-api"),
            ("*-api", "a-b-api"),
            ("s?op", "shop"),
            ("a*b*c", "aXbXbc"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("shop", "shop-api"), ("*-api", "api"), ("s?op", "sop"), ("a*b*c", "aXbXb"), ("", "a")]
        {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
        // Linear enough: a pattern that would take a naive matcher for ever.
        assert!(!fits(&"a*".repeat(40), &"b".repeat(255)));
    }
}
