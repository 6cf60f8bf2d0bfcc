//! Any other HTTP endpoint: a body that a template shapes, signed as Standard Webhooks have it
//! (<https://www.standardwebhooks.com>). Ready templates speak to Discord, Microsoft Teams, Mattermost and ntfy.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::plan::{Audience, Channel, Secret};
use super::post::{Failure, Letter};
use super::words::{self, Body, Context, Template};
use crate::core::Timestamp;
use crate::core::announcement::Announcement;

/// A text is not cut below this for the sake of what is around it.
const TEXT_MIN: usize = 500;

/// What a body looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// Our own JSON: what happened as a type, when, and everything that was said.
    Plain,
    /// An embed.
    Discord,
    /// An adaptive card, for a Workflows URL.
    Teams,
    /// A text.
    Mattermost,
    /// A message as JSON: the topic is the last part of the URL.
    Ntfy,
    /// Somebody's own.
    Own(Template),
}

/// The names of those that are ready, with what they are.
pub const READY: &[(&str, Shape)] = &[
    ("discord", Shape::Discord),
    ("teams", Shape::Teams),
    ("mattermost", Shape::Mattermost),
    ("ntfy", Shape::Ntfy),
];

impl Shape {
    fn template(&self, audience: Audience) -> Template {
        let json = |source| Template::new(source, true);
        match (self, audience) {
            (Self::Plain, Audience::Internal) => json(include_str!("texts/plain.json")),
            (Self::Plain, Audience::Users) => json(include_str!("texts/plain_users.json")),
            (Self::Discord, _) => json(include_str!("texts/discord.json")),
            (Self::Teams, _) => json(include_str!("texts/teams.json")),
            (Self::Mattermost, _) => json(include_str!("texts/mattermost.json")),
            (Self::Ntfy, _) => json(include_str!("texts/ntfy.json")),
            (Self::Own(template), _) => template.clone(),
        }
    }

    /// So many bytes of text fit: Discord takes 4096 characters, Teams 28 KB a message, Mattermost 16383 characters, ntfy
    /// 4096 bytes.
    const fn text_max(&self) -> usize {
        match self {
            Self::Discord | Self::Ntfy => 4000,
            Self::Teams => 12 << 10,
            Self::Mattermost => 16_000,
            Self::Plain | Self::Own(_) => 16 << 10,
        }
    }

    /// So many bytes it may have in all.
    const fn body_max(&self) -> usize {
        match self {
            Self::Teams => 28 << 10,
            Self::Plain | Self::Discord | Self::Mattermost | Self::Ntfy | Self::Own(_) => words::RENDERED_MAX,
        }
    }

    /// Whether a text that begins with `@channel` calls a channel there.
    const fn calls(&self) -> bool {
        match self {
            Self::Mattermost | Self::Own(_) => true,
            Self::Plain | Self::Discord | Self::Teams | Self::Ntfy => false,
        }
    }
}

/// The body and its type; none if the channel's readers are not told of such.
pub(super) fn body(a: &Announcement, channel: &Channel, shape: &Shape) -> Option<(String, &'static str)> {
    let channel = &Channel { mention: channel.mention && shape.calls(), ..channel.clone() };
    let template = shape.template(channel.audience);
    let kind = if template.json { "application/json" } else { "text/plain; charset=utf-8" };
    let mut max = shape.text_max();
    loop {
        let short = words::shortened(a, max);
        let text = words::text(a, channel, max)?;
        let context = Context::new(&short, channel.audience, channel.mention)?;
        let made = template.render(&Body::new(&context, &text));
        // Quotes and frames take room too, and how much depends on what is said.
        let fits = made.as_ref().is_ok_and(|body| body.len() <= shape.body_max());
        match made {
            Ok(body) if fits || max <= TEXT_MIN => return Some((body, kind)),
            // It was tried for every kind; what fails all the same is said in words.
            Err(mistake) if max <= TEXT_MIN => {
                tracing::error!(
                    channel = channel.name,
                    "its template failed, so the plain text is sent: {mistake}"
                );
                return Some((text, "text/plain; charset=utf-8"));
            }
            Ok(_) | Err(_) => max /= 2,
        }
    }
}

/// What is posted now: the body as it is stored, signed with this moment's time.
pub(super) fn letter(
    url: &Secret,
    key: Option<&Secret>,
    shape: &Shape,
    (id, body, content_type): (&str, &str, &str),
    now: Timestamp,
) -> Result<Letter, Failure> {
    let (body, url) = match shape {
        Shape::Ntfy => to_topic(url, body).ok_or_else(|| {
            Failure::permanent("its URL has no topic: one as in https://ntfy.sh/TOPIC would be right")
        })?,
        Shape::Plain | Shape::Discord | Shape::Teams | Shape::Mattermost | Shape::Own(_) => {
            (body.to_owned(), None)
        }
    };
    let seconds = now.as_millis() / 1000;
    let mut headers = vec![("webhook-id", id.to_owned()), ("webhook-timestamp", seconds.to_string())];
    if let Some(key) = key {
        headers.push(("webhook-signature", sign(key, id, seconds, &body)?));
    }
    Ok(Letter { body, content_type: content_type.to_owned(), headers, url })
}

/// `v1,` and the HMAC-SHA256 of `id.timestamp.body`.
fn sign(key: &Secret, id: &str, seconds: u64, body: &str) -> Result<String, Failure> {
    let key = decode(key.expose()).ok_or_else(|| Failure::permanent("its secret is no `whsec_` secret"))?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).map_err(|e| Failure::permanent(e.to_string()))?;
    mac.update(format!("{id}.{seconds}.{body}").as_bytes());
    Ok(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

/// The key that a `whsec_` secret holds; none if it holds none of 24 to 64 bytes.
pub fn decode(secret: &str) -> Option<Vec<u8>> {
    let key = STANDARD.decode(secret.strip_prefix("whsec_")?).ok()?;
    (24..=64).contains(&key.len()).then_some(key)
}

/// As ntfy takes JSON: at the server's root, with the topic in it. The topic is as good as a password, so it is put in
/// only now.
fn to_topic(url: &Secret, body: &str) -> Option<(String, Option<Secret>)> {
    let (root, topic) = url.expose().trim_end_matches('/').rsplit_once('/')?;
    if topic.is_empty() || root.ends_with(':') || root.ends_with('/') {
        return None;
    }
    let mut message: serde_json::Value = serde_json::from_str(body).ok()?;
    message.as_object_mut()?.insert("topic".into(), topic.into());
    Some((message.to_string(), Some(format!("{root}/").as_str().into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector of the reference implementations.
    #[test]
    fn signatures_are_those_of_the_standard() {
        let key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into();
        let signature = sign(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature.unwrap(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_has_its_form() {
        assert!(decode("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").is_some());
        for bad in ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_c2hvcnQ=", "whsec_?"] {
            assert!(decode(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_topic_is_in_the_body_and_not_in_the_url() {
        let (body, url) = to_topic(&"https://ntfy.sh/s3cret".into(), r#"{"message": "m"}"#).unwrap();
        assert_eq!(body, r#"{"message":"m","topic":"s3cret"}"#);
        assert_eq!(url.unwrap().expose(), "https://ntfy.sh/");
        for none in ["https://ntfy.sh", "https://ntfy.sh/"] {
            assert!(to_topic(&none.into(), "{}").is_none(), "{none}");
        }
    }
}
