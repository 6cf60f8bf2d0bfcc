//! Settings of announcements: how channels are called, what lists of names hold, and secrets of services that take
//! messages.

use std::fmt;
use std::marker::PhantomData;

use secrecy::SecretString;
use serde::{Deserialize, Deserializer};

use super::file::{NotifyChannel, NotifyLevel, NotifyRoute, short_name};
use super::nearest::nearest;
use super::problem::Wrong;
use super::schema::{Named, Setting, Shape};
use super::tree::{Node, Value};
use super::values::{Parse, listed, quoted, text_settings};
use crate::core::announcement::AnnouncementKind;
use crate::notify::{TEMPLATE_MAX, decode_signing_secret, mailbox};

/// More names than this in one list are a mistake.
const LISTED_MAX: usize = 64;

text_settings! {
    [] TemplateText;
    [] BearerToken;
    [] RoutingKey;
    [] SigningSecret;
    [] Password;
    [] MailAddress;
}

/// What kind of place a channel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum MediumWord {
    /// An incoming webhook of Slack.
    Slack,
    /// PagerDuty's Events API v2.
    PagerDuty,
    /// SMTP.
    Email,
    /// Any other HTTP endpoint.
    Webhook,
    /// Alertmanager's API v2.
    Alertmanager,
}

/// A template in place, or the name of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TemplateText(pub(super) String);

impl Parse for TemplateText {
    const RIGHT: &'static str = "a text of at most 64 KiB would be right, as in \"{{ title }}\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if !text.trim().is_empty() && text.len() <= TEMPLATE_MAX {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new(format!("has {} bytes", text.len()), Self::RIGHT))
    }
}

/// A secret that is one word.
fn secret_word(text: &str, what: &str, right: &str) -> Result<SecretString, Wrong> {
    if (1..=512).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.into());
    }
    Err(Wrong::new(format!("is not {what} (not shown: it is a secret)"), right))
}

/// What is sent as `Authorization: Bearer`.
#[derive(Debug, Clone)]
pub(super) struct BearerToken(pub(super) SecretString);

impl Parse for BearerToken {
    const RIGHT: &'static str = "1 to 512 letters, digits and signs without spaces would be right";
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        secret_word(text, "a token", Self::RIGHT).map(Self)
    }
}

/// PagerDuty's integration key.
#[derive(Debug, Clone)]
pub(super) struct RoutingKey(pub(super) SecretString);

impl Parse for RoutingKey {
    const RIGHT: &'static str =
        "the integration key of an Events API v2 integration would be right, which has 32 letters and digits";
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Ok(Self(text.into()));
        }
        Err(Wrong::new("is not an integration key (not shown: it is a secret)", Self::RIGHT))
    }
}

/// What deliveries are signed with, as Standard Webhooks write it.
#[derive(Debug, Clone)]
pub(super) struct SigningSecret(pub(super) SecretString);

impl Parse for SigningSecret {
    const RIGHT: &'static str = "whsec_ and 24 to 64 bytes in base64 would be right, as `echo whsec_$(openssl rand -base64 32)` prints";
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        if decode_signing_secret(text).is_some() {
            return Ok(Self(text.into()));
        }
        Err(Wrong::new("is not a secret of Standard Webhooks (not shown)", Self::RIGHT))
    }
}

/// A password.
#[derive(Debug, Clone)]
pub(super) struct Password(pub(super) SecretString);

impl Parse for Password {
    const RIGHT: &'static str = "one line of at most 512 characters would be right";
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        if (1..=512).contains(&text.chars().count()) && !text.contains(char::is_control) {
            return Ok(Self(text.into()));
        }
        Err(Wrong::new("is not a password (not shown)", Self::RIGHT))
    }
}

/// An address that mail goes to or comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MailAddress(pub(super) String);

impl Parse for MailAddress {
    const RIGHT: &'static str =
        "an address would be right, as in \"ops@example.com\" or \"Backstop <backstop@example.com>\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if mailbox(text).is_some() {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new(format!("{} is not a mail address", quoted(text)), <Self as Parse>::RIGHT))
    }
}

impl Item for MailAddress {
    const RIGHT: &'static str = "a list of addresses would be right, as in [\"ops@example.com\"]";

    fn check(text: &str) -> Result<(), Wrong> {
        Self::parse(text).map(drop)
    }
}

/// One of a list.
pub(super) trait Item {
    /// What would be right.
    const RIGHT: &'static str;

    fn check(text: &str) -> Result<(), Wrong>;
}

/// A list of names.
pub(super) struct Listed<T>(pub(super) Vec<String>, pub(super) PhantomData<T>);

impl<T> Clone for Listed<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<T> fmt::Debug for Listed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de, T> Deserialize<'de> for Listed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Vec::deserialize(deserializer)?, PhantomData))
    }
}

impl<T: Item> Setting for Listed<T> {
    const SHAPE: &'static Shape = &Shape::Leaf { read: read_list::<T>, secret: false };
}

fn read_list<T: Item>(node: &Node) -> Result<Value, Wrong> {
    let names = listed(node, T::RIGHT)?;
    if !(1..=LISTED_MAX).contains(&names.len()) {
        return Err(Wrong::new(
            format!("has {} items", names.len()),
            format!("1 to {LISTED_MAX} would be right"),
        ));
    }
    for name in &names {
        T::check(name)?;
    }
    let item = |text| Node { place: node.place.clone(), value: Value::Text(text) };
    Ok(Value::List(names.into_iter().map(item).collect()))
}

/// The name of a channel, where it is referred to.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChannelWord;

impl Item for ChannelWord {
    const RIGHT: &'static str = "a list of channels would be right, as in [\"ops\", \"pager\"]";

    fn check(text: &str) -> Result<(), Wrong> {
        short_name(text, "a channel", "ops")
            .map_err(|what| Wrong::new(format!("{}: {}", quoted(text), what.wrong), what.right))
    }
}

/// A pattern for names of services.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServicePattern;

impl Item for ServicePattern {
    const RIGHT: &'static str =
        "a list of names would be right, where * is any letters, as in [\"shop-*\", \"east/api\"]";

    fn check(text: &str) -> Result<(), Wrong> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | '*' | '?');
        if (1..=255).contains(&text.len()) && text.chars().all(fits) {
            return Ok(());
        }
        Err(Wrong::new(format!("{} can be the name of no service", quoted(text)), Self::RIGHT))
    }
}

/// A kind of announcement.
#[derive(Debug, Clone, Copy)]
pub(super) struct KindWord;

impl Item for KindWord {
    const RIGHT: &'static str = "a list of kinds would be right, as in [\"stuck\", \"evaluate\"]";

    fn check(text: &str) -> Result<(), Wrong> {
        if kind(text).is_some() {
            return Ok(());
        }
        let names = || AnnouncementKind::ALL.iter().map(|kind| kind.name());
        let right = nearest(text, names()).map_or_else(
            || format!("one of these would be right: {}", names().collect::<Vec<_>>().join(", ")),
            |near| format!("did you mean \"{near}\"?"),
        );
        Err(Wrong::new(format!("{} is not a kind of announcement", quoted(text)), right))
    }
}

/// The kind that is called so.
pub(super) fn kind(name: &str) -> Option<AnnouncementKind> {
    AnnouncementKind::ALL.iter().copied().find(|kind| kind.name() == name)
}

impl Named for NotifyChannel {
    const NAME: &'static str = "CHANNEL";

    fn check(name: &str) -> Result<(), Wrong> {
        short_name(name, "a channel", "ops")
    }
}

impl Named for NotifyRoute {
    const NAME: &'static str = "ROUTE";

    fn check(name: &str) -> Result<(), Wrong> {
        short_name(name, "a route", "urgent")
    }
}

impl Named for NotifyLevel {
    const NAME: &'static str = "LEVEL";

    fn check(name: &str) -> Result<(), Wrong> {
        if name == super::channels::FIRST_LEVEL {
            return Err(Wrong::new(
                "this is how the level of [notify.escalation] itself is called",
                "another name would be right, as in boss",
            ));
        }
        short_name(name, "a level", "boss")
    }
}
