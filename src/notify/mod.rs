//! Announcing: takes announcements out of the durable outbox and delivers them to every channel that they are for, at
//! least once each.
//!
//! It never delays a rollback (nobody waits for it), no channel ever waits for another, it never says the same thing with
//! different words (what is delivered is written once, kept, and sent as it is kept), and it is never silent about a message
//! that it gave up: that is logged and counted.
//!
//! In reading order: [`plan`] (which channels there are and what goes where), `kinds` (what an announcement means for the
//! matter that it is about), `words` (templates), `message` (what is sent, and how) with one file an integration, `line`
//! (a channel's own pace), `notifier` (the task that brings them together), `matters` (their beginning and end, and who is
//! told when nobody takes one on), `trial` (what `backstop notify test` does). Besides them, `github` opens tickets, which
//! somebody has to close.

mod alertmanager;
mod email;
mod github;
mod handle;
mod kinds;
mod letter;
mod line;
mod matters;
mod message;
mod notifier;
mod pagerduty;
pub mod plan;
mod post;
mod sample;
mod slack;
mod trial;
mod webhook;
mod words;

pub use self::email::{Mail, MailTls, mailbox};
pub use self::github::{
    BODY_MAX as ISSUE_BODY_MAX, Draft, GitHub, NAME as TRACKER, Tracker, URL as GITHUB_URL,
};
pub use self::handle::NotifierHandle;
pub use self::line::Pauses;
pub use self::matters::{Look, Outlook};
pub use self::notifier::{Notifier, Outcomes};
pub use self::pagerduty::URL as PAGERDUTY_URL;
pub use self::post::Failure;
pub use self::sample::every_kind;
pub use self::trial::{Shown, Tried, show, show_tracker, try_channel, try_tracker};
pub use self::webhook::{READY, Shape, decode as decode_signing_secret};
pub use self::words::{Mistake, TEMPLATE_MAX, Template, try_body, try_words};
