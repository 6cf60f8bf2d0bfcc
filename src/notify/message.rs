//! What is sent over a channel: made of the announcement once, kept in the outbox, and sent as it is kept. Nothing secret is
//! in it; that is added when it goes out.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::email::{self, Mailer, Written};
use super::plan::{Audience, Channel, Endpoint, Medium, Secret};
use super::post::{Failure, Letter, Post};
use super::{alertmanager, pagerduty, slack, webhook, words};
use crate::core::Timestamp;
use crate::core::announcement::Announcement;
use crate::store::Matter;

/// A message as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "to", rename_all = "lowercase")]
pub(super) enum Message {
    Slack {
        body: Value,
    },
    PagerDuty {
        event: Value,
        /// Incidents that it ends.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        ends: Vec<Value>,
    },
    Email {
        id: String,
        thread: Option<String>,
        subject: String,
        text: String,
    },
    Webhook {
        id: String,
        content_type: String,
        body: String,
    },
    Alertmanager {
        alert: Value,
    },
}

impl Message {
    /// What a channel is told; none if it is not told of such.
    pub(super) fn of(a: &Announcement, channel: &Channel, matter: Option<&Matter>) -> Option<Self> {
        if channel.audience == Audience::Users && super::kinds::phase(a).is_none() {
            return None;
        }
        match &channel.medium {
            Medium::Slack(_) => slack::body(a, channel).map(|body| Self::Slack { body }),
            Medium::PagerDuty { .. } => {
                let event = pagerduty::event(a, channel, matter)?;
                Some(Self::PagerDuty { event, ends: pagerduty::ends(a, matter) })
            }
            Medium::Email(_) => email::write(a, channel)
                .map(|Written { id, thread, subject, text }| Self::Email { id, thread, subject, text }),
            Medium::Webhook { shape, .. } => webhook::body(a, channel, shape).map(|(body, content_type)| {
                Self::Webhook { id: words::id(a), content_type: content_type.to_owned(), body }
            }),
            Medium::Alertmanager(_) => {
                alertmanager::alert(a, channel, matter).map(|alert| Self::Alertmanager { alert })
            }
        }
    }

    /// Whether it says that an alert is over.
    pub(super) fn is_end(&self) -> bool {
        matches!(self, Self::Alertmanager { alert } if alert.get("endsAt").is_some())
    }

    /// As the outbox keeps it.
    pub(super) fn kept(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether it can go out over such a channel: somebody may have made another of it since.
    pub(super) const fn suits(&self, medium: &Medium) -> bool {
        matches!(
            (self, medium),
            (Self::Slack { .. }, Medium::Slack(_))
                | (Self::PagerDuty { .. }, Medium::PagerDuty { .. })
                | (Self::Email { .. }, Medium::Email(_))
                | (Self::Webhook { .. }, Medium::Webhook { .. })
                | (Self::Alertmanager { .. }, Medium::Alertmanager(_))
        )
    }

    /// For people: what would go out, without what is secret.
    pub(super) fn shown(&self) -> String {
        let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default();
        match self {
            Self::Slack { body } => pretty(body),
            Self::PagerDuty { event, .. } => pretty(event),
            Self::Alertmanager { alert } => pretty(&Value::from(vec![alert.clone()])),
            Self::Email { id, subject, text, .. } => {
                format!("Message-ID: <{id}@backstop>\nSubject: {subject}\n\n{text}")
            }
            Self::Webhook { id, content_type, body } => {
                format!("webhook-id: {id}\nContent-Type: {content_type}\n\n{body}")
            }
        }
    }
}

/// A channel that can be sent over.
#[derive(Debug)]
pub(super) struct Sender {
    medium: Medium,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Post(Post),
    Mail(Box<Mailer>),
}

impl Sender {
    pub(super) fn new(channel: &Channel) -> Self {
        let post = |endpoint: &Endpoint, secrets: Vec<Secret>| {
            Way::Post(Post::new(endpoint, channel.timeout, secrets))
        };
        let way = match &channel.medium {
            Medium::Slack(endpoint) => post(endpoint, Vec::new()),
            Medium::PagerDuty { endpoint, routing_key } => post(endpoint, vec![routing_key.clone()]),
            Medium::Webhook { endpoint, key, .. } => post(endpoint, key.iter().cloned().collect()),
            Medium::Alertmanager(endpoint) => {
                let endpoint = Endpoint { url: alertmanager::url(&endpoint.url), ..endpoint.clone() };
                post(&endpoint, Vec::new())
            }
            Medium::Email(mail) => Way::Mail(Box::new(Mailer::new(mail, channel.timeout))),
        };
        Self { medium: channel.medium.clone(), way }
    }

    /// Sends a message once; says what is to be known of it although it was taken.
    pub(super) async fn send(&self, message: &Message, now: Timestamp) -> Result<Option<String>, Failure> {
        if let (Message::Email { id, thread, subject, text }, Way::Mail(mailer)) = (message, &self.way) {
            let (id, thread, subject, text) = (id.clone(), thread.clone(), subject.clone(), text.clone());
            return mailer.send(&Written { id, thread, subject, text }).await;
        }
        self.post(message, now).await.map(|()| None)
    }

    async fn post(&self, message: &Message, now: Timestamp) -> Result<(), Failure> {
        match (message, &self.way) {
            (Message::Alertmanager { alert }, Way::Post(_)) => {
                self.send_alerts(std::slice::from_ref(alert), now).await
            }
            (Message::PagerDuty { event, ends }, Way::Post(post)) => {
                let alone = |event: &Value| Message::PagerDuty { event: event.clone(), ends: Vec::new() };
                post.send(self.letter(&alone(event), post, now)?, now).await?;
                // No alarm waits for these: what is not heard now is said again with the next event.
                for end in ends {
                    let _ = post.send(self.letter(&alone(end), post, now)?, now).await;
                }
                Ok(())
            }
            (message, Way::Post(post)) => post.send(self.letter(message, post, now)?, now).await,
            (_, Way::Mail(_)) => Err(Failure::permanent("it was written for another kind of channel")),
        }
    }

    /// Says alerts to Alertmanager, those that are not over among them once more.
    pub(super) async fn send_alerts(&self, alerts: &[Value], now: Timestamp) -> Result<(), Failure> {
        let Way::Post(post) = &self.way else {
            return Err(Failure::permanent("alerts do not go by mail"));
        };
        let alerts: Vec<Value> = alerts.iter().map(|alert| alertmanager::at(alert, now)).collect();
        post.send(Letter::json(&alerts.into()), now).await
    }

    fn letter(&self, message: &Message, post: &Post, now: Timestamp) -> Result<Letter, Failure> {
        match (message, &self.medium) {
            (Message::Slack { body }, Medium::Slack(_)) => Ok(Letter::json(body)),
            (Message::PagerDuty { event, .. }, Medium::PagerDuty { routing_key, .. }) => {
                let mut event = event.clone();
                event["routing_key"] = routing_key.expose().into();
                Ok(Letter::json(&event))
            }
            (Message::Webhook { id, content_type, body }, Medium::Webhook { key, shape, .. }) => {
                let url = post.url();
                webhook::letter(url, key.as_ref(), shape, (id, body, content_type), now)
            }
            _ => Err(Failure::permanent("it was written for another kind of channel")),
        }
    }
}
