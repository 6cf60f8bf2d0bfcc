//! Slack's incoming webhooks: blocks, and a text for notifications and for whatever does not know blocks (Mattermost and
//! Rocket.Chat take the same).

use serde_json::{Value, json};

use super::kinds;
use super::plan::{Audience, Channel};
use super::post::cut;
use super::words::{self, users_title};
use crate::core::announcement::Announcement;

/// Slack's limits in characters: a header, a field, a section's text; and of the text without blocks, where Slack advises
/// 4000.
const HEADER_MAX: usize = 150;
const FIELD_MAX: usize = 2000;
const SECTION_MAX: usize = 3000;
const TEXT_MAX: usize = 3000;
/// Slack takes ten fields a section ...
const FIELDS_MAX: usize = 10;
/// ... and fifty blocks a message. So many fields leave room for what is not a field.
const ALL_FIELDS_MAX: usize = 400;
/// A notification calls everybody by this.
const CALL: &str = "<!channel>";

/// The message; none if the channel's readers are not told of such.
pub(super) fn body(a: &Announcement, channel: &Channel) -> Option<Value> {
    let text = text(a, channel)?;
    let calls = channel.mention && kinds::calls(a.kind) && channel.audience == Audience::Internal;
    let title = match (channel.audience, kinds::phase(a)) {
        (Audience::Users, Some(phase)) => users_title(phase).to_owned(),
        (Audience::Users | Audience::Internal, _) => a.title.clone(),
    };
    let mut blocks = vec![json!({
        "type": "header",
        "text": {"type": "plain_text", "text": cut(&title, HEADER_MAX)},
    })];
    if calls {
        blocks.push(section(CALL));
    }
    if channel.audience == Audience::Users || channel.text.is_some() {
        blocks.push(section(&text));
    } else {
        blocks.extend(own(a));
    }
    if channel.audience == Audience::Internal {
        let said_by = format!("backstop · {} · {}", a.kind.name(), escape(&a.key));
        blocks.push(json!({
            "type": "context",
            "elements": [{"type": "mrkdwn", "text": cut(&said_by, SECTION_MAX)}],
        }));
    }
    Some(json!({"text": text, "blocks": blocks}))
}

/// The words as Slack wants them. Its control characters take more room there, five letters at most.
fn text(a: &Announcement, channel: &Channel) -> Option<String> {
    for max in [TEXT_MAX - CALL.len(), TEXT_MAX / 2, TEXT_MAX / 5 - CALL.len()] {
        let text = called(&escape(&words::text(a, channel, max)?));
        if text.chars().count() <= TEXT_MAX {
            return Some(text);
        }
    }
    Some(cut(&escape(&a.title), TEXT_MAX))
}

/// The announcement's fields and its next command.
fn own(a: &Announcement) -> Vec<Value> {
    let field = |(name, value): &(String, String)| {
        let text = format!("*{}*\n{}", escape(name), escape(value));
        json!({"type": "mrkdwn", "text": cut(&text, FIELD_MAX)})
    };
    let fields: Vec<Value> = a.fields.iter().take(ALL_FIELDS_MAX).map(field).collect();
    let sections = fields.chunks(FIELDS_MAX).map(|some| json!({"type": "section", "fields": some}));
    let next = a.next.iter().map(|next| section(&format!("Next: `{}`", escape(next))));
    sections.chain(next).collect()
}

fn section(text: &str) -> Value {
    json!({"type": "section", "text": {"type": "mrkdwn", "text": cut(text, SECTION_MAX)}})
}

/// What the runbook writes as `@channel` is a command to Slack.
fn called(text: &str) -> String {
    text.strip_prefix("@channel").map_or_else(|| text.to_owned(), |rest| format!("{CALL}{rest}"))
}

/// Slack's three control characters.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
