//! Trying channels: a message that says that it is a test goes out once, by the way that announcements go.

use super::github::{Draft, GitHub, Tracker};
use super::matters::Matters;
use super::message::{Message, Sender};
use super::plan::{Audience, Channel, Escalation, Medium};
use super::sample;
use super::words::Template;
use crate::core::Timestamp;
use crate::core::announcement::{Announcement, AnnouncementKind};
use crate::store::Matter;

/// What would go over a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The kind of announcement.
    pub kind: &'static str,
    /// The message without what is secret.
    pub message: String,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tried {
    /// It was taken.
    Delivered,
    /// It was not, and why.
    Failed(String),
}

/// Sends a test over a channel, once. A pager is told that it is over at once.
pub async fn try_channel(channel: &Channel, environment: &str, now: Timestamp) -> Tried {
    let sender = Sender::new(channel);
    for message in tests(channel, environment, now) {
        match sender.send(&message, now).await {
            Ok(None) => {}
            Ok(Some(but)) => return Tried::Failed(format!("others got it, but it was {but}")),
            Err(failure) => return Tried::Failed(failure.why),
        }
    }
    Tried::Delivered
}

/// Asks a tracker whether it could open tickets. None is opened: somebody would have to close it.
pub async fn try_tracker(tracker: &Tracker, now: Timestamp) -> Tried {
    match GitHub::new(tracker).examine(now).await {
        Ok(()) => Tried::Delivered,
        Err(failure) => Tried::Failed(failure.why),
    }
}

/// What a ticket would look like.
pub fn show_tracker(tracker: &Tracker, environment: &str) -> Shown {
    let draft = Draft {
        title: format!("[{environment}] shop was rolled back from shop:v2 to shop:v1"),
        body: "(the incident report, as `backstop incident shop` writes it)".into(),
        mark: "backstop-rollback-ID".into(),
    };
    let message = serde_json::to_string_pretty(&GitHub::payload(tracker, &draft)).unwrap_or_default();
    Shown { kind: "ticket", message }
}

/// What [`try_channel`] would send; with `kinds`, what announcements of these kinds look like there.
pub fn show(channel: &Channel, environment: &str, now: Timestamp, kinds: &[AnnouncementKind]) -> Vec<Shown> {
    if kinds.is_empty() {
        let shown =
            |message: Message| Shown { kind: AnnouncementKind::Test.name(), message: message.shown() };
        return tests(channel, environment, now).into_iter().map(shown).collect();
    }
    let shown = |kind: &AnnouncementKind| {
        let a = Announcement { environment: environment.to_owned(), ..sample::of(*kind) };
        let message = Message::of(&a, channel, matter(&a).as_ref())?;
        Some(Shown { kind: kind.name(), message: message.shown() })
    };
    kinds.iter().filter_map(shown).collect()
}

/// A matter that such an announcement could be about.
fn matter(a: &Announcement) -> Option<Matter> {
    let mut matters = Matters::default();
    let mut began = sample::of(AnnouncementKind::RollbackInProgress);
    began.service.clone_from(&a.service);
    matters.hear(&began, &Escalation::default());
    matters.hear(a, &Escalation::default())
}

fn tests(channel: &Channel, environment: &str, now: Timestamp) -> Vec<Message> {
    let mut test = sample::test(now, environment, &channel.name);
    // Users would hear of nothing of it; what they are sent now says nothing of the inside either.
    if channel.audience == Audience::Users {
        (test.fields, test.next) = (Vec::new(), None);
        let text = Template::new("This is a test message: nothing happened.", false);
        let open = Channel { audience: Audience::Internal, text: Some(text), ..channel.clone() };
        return Message::of(&test, &open, None).into_iter().collect();
    }
    let first = Message::of(&test, channel, None);
    let mut all: Vec<Message> = first.into_iter().collect();
    if let (Medium::PagerDuty { .. }, Some(Message::PagerDuty { event, .. })) = (&channel.medium, all.first())
    {
        let mut over = event.clone();
        over["event_action"] = "resolve".into();
        if let Some(event) = over.as_object_mut() {
            event.remove("payload");
        }
        all.push(Message::PagerDuty { event: over, ends: Vec::new() });
    }
    all
}
