//! The words: templates, what they can speak of, and how a text is made to fit without losing the reason and the next
//! command. A template with a mistake is found before anything is said with it, for every kind of announcement.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::kinds::{self, Phase};
use super::plan::{Audience, Channel};
use super::post::cut;
use super::sample;
use crate::core::Timestamp;
use crate::core::announcement::Announcement;
use crate::core::settings::Severity;

const INTERNAL: &str = include_str!("texts/internal.txt");
const USERS: &str = include_str!("texts/users.txt");

/// Steps that one rendering may take; the runbook's text takes some hundreds.
const FUEL: u64 = 100_000;
/// Bytes that one rendering may have.
pub(super) const RENDERED_MAX: usize = 256 << 10;
/// Bytes that a template may have.
pub const TEMPLATE_MAX: usize = 64 << 10;
/// Of a text that is cut in the middle, so many bytes of its end stay: the next command is there.
const END_KEPT: usize = 400;

/// A template, as somebody wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// The text.
    pub source: Arc<str>,
    /// Whether it makes JSON: values are then written as JSON by themselves.
    pub json: bool,
}

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// In words.
    pub what: String,
    /// Line and column in it, from 1.
    pub place: Option<(usize, usize)>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((line, column)) => write!(f, "line {line}, column {column}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// What a template can speak of.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Context<'a> {
    /// Those who run the services are told everything.
    Internal(Box<Internal<'a>>),
    /// Users are told nothing of the inside, so there is nothing of it here.
    Users(Users),
}

#[derive(Debug, Serialize)]
pub(super) struct Internal<'a> {
    kind: &'static str,
    title: &'a str,
    service: Option<&'a str>,
    environment: &'a str,
    severity: String,
    rollback: Option<&'a str>,
    fields: Vec<Field<'a>>,
    values: BTreeMap<&'a str, &'a str>,
    next: Option<&'a str>,
    calls: bool,
    phase: Option<&'static str>,
    #[serde(flatten)]
    look: Look,
}

#[derive(Debug, Serialize)]
pub(super) struct Users {
    title: &'static str,
    phase: &'static str,
    #[serde(flatten)]
    look: Look,
}

#[derive(Debug, Serialize)]
struct Field<'a> {
    name: &'a str,
    value: &'a str,
}

/// What both have.
#[derive(Debug, Serialize)]
struct Look {
    id: String,
    at: String,
    /// `0xRRGGBB` as a number, as Discord has it.
    color: u32,
    /// As adaptive cards call it.
    tone: &'static str,
    /// From 1 to 5, as ntfy has it.
    priority: u8,
    /// As ntfy has it.
    tag: &'static str,
}

impl<'a> Context<'a> {
    /// What a channel of that audience can be told; none if that is nothing.
    pub(super) fn new(a: &'a Announcement, audience: Audience, calls: bool) -> Option<Self> {
        let phase = kinds::phase(a);
        let look = Look::of(a, phase);
        match audience {
            Audience::Internal => Some(Self::Internal(Box::new(Internal {
                kind: a.kind.name(),
                title: &a.title,
                service: a.service.as_ref().map(|s| s.as_str()),
                environment: &a.environment,
                severity: kinds::severity(a).to_string(),
                rollback: a.rollback.as_ref().map(|r| r.as_str()),
                fields: a.fields.iter().map(|(name, value)| Field { name, value }).collect(),
                values: a.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
                next: a.next.as_deref(),
                calls: calls && kinds::calls(a.kind),
                phase: phase.map(Phase::name),
                look,
            }))),
            Audience::Users => {
                let phase = phase?;
                Some(Self::Users(Users { title: users_title(phase), phase: phase.name(), look }))
            }
        }
    }
}

impl Look {
    fn of(a: &Announcement, phase: Option<Phase>) -> Self {
        let severity = kinds::severity(a);
        let over =
            phase == Some(Phase::Complete) || a.kind == crate::core::announcement::AnnouncementKind::Over;
        let (color, tone, tag) = match severity {
            _ if over => (0x002e_7d32, "Good", "white_check_mark"),
            Severity::Critical => (0x00c6_2828, "Attention", "rotating_light"),
            Severity::High => (0x00ef_6c00, "Warning", "warning"),
            Severity::Medium | Severity::Low => (0x0015_65c0, "Accent", "information_source"),
        };
        let priority = match severity {
            _ if over => 3,
            Severity::Critical => 5,
            Severity::High => 4,
            Severity::Medium => 3,
            Severity::Low => 2,
        };
        Self { id: id(a), at: rfc3339(a.at), color, tone, priority, tag }
    }
}

/// What users read above the text.
pub(super) const fn users_title(phase: Phase) -> &'static str {
    match phase {
        Phase::Began | Phase::Failed => "Technical issue",
        Phase::Complete => "Technical issue resolved",
    }
}

/// What a message is known by, in every channel and over every retry; it says nothing of the inside.
pub(super) fn id(a: &Announcement) -> String {
    format!("msg_{}", digest(&a.key))
}

/// A text that is as good as unique, of 32 letters.
pub(super) fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn rfc3339(at: Timestamp) -> String {
    let millis = i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX).to_string()
}

impl Template {
    /// A template of a text, or of JSON.
    pub fn new(source: &str, json: bool) -> Self {
        Self { source: source.into(), json }
    }

    /// Fills it in.
    pub(super) fn render(&self, context: &impl Serialize) -> Result<String, Mistake> {
        let name = if self.json { "body.json" } else { "words.txt" };
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment.set_debug(true);
        let template =
            environment.template_from_named_str(name, &self.source).map_err(|e| self.mistake(&e))?;
        let mut out = Bounded(Vec::new());
        let context = minijinja::value::Serde(context);
        template.render_captured_to(context, &mut out).map_err(|e| self.mistake(&e))?;
        let text = String::from_utf8_lossy(&out.0).into_owned();
        if self.json
            && let Err(e) = serde_json::from_str::<serde_json::Value>(&text)
        {
            let what = format!("what it makes is no JSON: {e}");
            return Err(Mistake { what, place: None });
        }
        Ok(text)
    }

    fn mistake(&self, e: &minijinja::Error) -> Mistake {
        let what = match e.detail() {
            Some(detail) => format!("{}: {detail}", e.kind()),
            None => e.kind().to_string(),
        };
        let place = e.range().and_then(|range| self.source.get(..range.start)).map(|before| {
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            (line, column)
        });
        Mistake { what, place: place.or_else(|| e.line().map(|line| (line, 1))) }
    }
}

/// Ends a template that would write without end.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > RENDERED_MAX {
            return Err(io::Error::other(format!("it writes more than {RENDERED_MAX} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The text of an announcement for a channel, of at most `max` bytes. What does not fit is taken from elsewhere than from
/// the reason and the next command. None if the channel's readers are not told of such.
pub(super) fn text(a: &Announcement, channel: &Channel, max: usize) -> Option<String> {
    let shipped = match channel.audience {
        Audience::Internal => Template::new(INTERNAL, false),
        Audience::Users => Template::new(USERS, false),
    };
    let template = channel.text.as_ref().unwrap_or(&shipped);
    let rendered = |a: &Announcement| {
        let context = Context::new(a, channel.audience, channel.mention)?;
        // It was tried for every kind; should it fail here all the same, the runbook's words are better than none.
        Some(
            template
                .render(&context)
                .or_else(|_| shipped.render(&context))
                .unwrap_or_else(|_| a.title.clone()),
        )
    };
    // What is far too long is cut before it costs anything.
    let first = if a.to_string().len() > max { shortened(a, max) } else { a.clone() };
    let whole = rendered(&first)?;
    if whole.len() <= max {
        return Some(whole);
    }
    // What the template adds to the announcement's own words, it adds to the shorter one too.
    let added = whole.len().saturating_sub(first.to_string().len());
    let shorter = rendered(&shortened(&first, max.saturating_sub(added)))?;
    Some(cut_in_the_middle(&shorter, max))
}

/// The same announcement in fewer bytes: the reason and the next command stay as whole as can be.
pub(super) fn shortened(a: &Announcement, max: usize) -> Announcement {
    let mut a = a.clone();
    a.title = cut(&a.title, 150);
    a.next = a.next.map(|next| cut(&next, 300));
    let matters = |name: &str| name.contains("eason") || name.contains("ecause");
    for longest in [1000, 300, 100] {
        if a.to_string().len() <= max {
            return a;
        }
        for (_, value) in a.fields.iter_mut().filter(|(name, _)| !matters(name)) {
            *value = cut(value, longest);
        }
    }
    while a.to_string().len() > max
        && let Some(last) = a.fields.iter().rposition(|(name, _)| !matters(name))
    {
        a.fields.remove(last);
    }
    let mut longest = max;
    while a.to_string().len() > max && longest > 16 {
        longest = longest * 3 / 4;
        for (_, value) in &mut a.fields {
            *value = cut(value, longest);
        }
    }
    a
}

/// At most `max` bytes of a text: its beginning, and its end.
fn cut_in_the_middle(text: &str, max: usize) -> String {
    const GAP: &str = "\n…\n";
    if text.len() <= max {
        return text.to_owned();
    }
    let end = END_KEPT.min(max / 3);
    let tail = (text.len() - end..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    let head =
        (0..=max.saturating_sub(end + GAP.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}{GAP}{}", &text[..head], &text[tail..])
}

/// Tries a template of words with every kind of announcement that such a channel can get.
///
/// # Errors
/// The first mistake, and the kind that it showed with.
pub fn try_words(template: &Template, audience: Audience) -> Result<(), (Mistake, &'static str)> {
    try_all(audience, |context, _| template.render(context).map(drop))
}

/// Tries a template of a body with every kind of announcement.
///
/// # Errors
/// The first mistake, and the kind that it showed with.
pub fn try_body(template: &Template, audience: Audience) -> Result<(), (Mistake, &'static str)> {
    try_all(audience, |context, a| {
        let text = format!("{}\n\"quoted\"", a.title);
        template.render(&Body::new(context, &text)).map(drop)
    })
}

fn try_all(
    audience: Audience,
    attempt: impl Fn(&Context<'_>, &Announcement) -> Result<(), Mistake>,
) -> Result<(), (Mistake, &'static str)> {
    for a in sample::every_kind() {
        if let Some(context) = Context::new(&a, audience, true) {
            attempt(&context, &a).map_err(|mistake| (mistake, a.kind.name()))?;
        }
    }
    Ok(())
}

/// What a body can speak of: the same, and the text.
#[derive(Debug, Serialize)]
pub(super) struct Body<'a> {
    #[serde(flatten)]
    context: &'a Context<'a>,
    text: &'a str,
    lines: Vec<&'a str>,
}

impl<'a> Body<'a> {
    pub(super) fn new(context: &'a Context<'a>, text: &'a str) -> Self {
        Self { context, text, lines: text.lines().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::plan::{Endpoint, Medium};

    fn channel() -> Channel {
        Channel::new("a", Medium::Slack(Endpoint::at("http://a/")))
    }

    #[test]
    fn the_words_are_those_of_the_runbook() {
        let all = sample::every_kind();
        let said = |kind: &str| {
            let a = all.iter().find(|a| a.kind.name() == kind).unwrap();
            text(a, &channel(), 4000).unwrap()
        };
        assert_eq!(
            said("rollback_in_progress").lines().map(|l| l.split(':').next().unwrap()).collect::<Vec<_>>(),
            [
                "@channel ROLLBACK IN PROGRESS",
                "Environment",
                "Current version",
                "Rolling back to",
                "Severity",
                "Reason",
                "Decided by",
                "ETA"
            ]
        );
        let complete = said("rollback_complete");
        assert!(
            complete.starts_with("@channel ROLLBACK COMPLETE: shop\nEnvironment: production\n"),
            "{complete}"
        );
        assert!(
            complete.contains("\nNext steps: RCA will be conducted within 24 hours\nNext: backstop history")
        );
        assert!(!said("blind").starts_with('@'));
    }

    #[test]
    fn users_hear_nothing_of_the_inside() {
        let users = Channel { audience: Audience::Users, ..channel() };
        let told: Vec<String> = sample::every_kind().iter().filter_map(|a| text(a, &users, 4000)).collect();
        assert_eq!(told.len(), 4, "began, complete, failed, and over: {told:?}");
        assert!(
            told[0]
                .starts_with("We're experiencing a technical issue and are working to resolve it quickly.")
        );
        for (a, inner) in
            [("shop", "service"), ("production", "environment"), ("registry", "image"), ("error", "reason")]
        {
            assert!(told.iter().all(|text| !text.contains(a)), "{inner}: {told:?}");
        }
        for inner in ["service", "fields", "values", "next", "environment", "kind", "rollback"] {
            let (mistake, _) =
                try_words(&Template::new(&format!("x\n  {{{{ {inner} }}}}"), false), Audience::Users)
                    .unwrap_err();
            assert_eq!(mistake.place, Some((2, 6)), "{inner}: {mistake}");
        }
    }

    #[test]
    fn mistakes_have_a_place() {
        let wrong =
            |source: &str| try_words(&Template::new(source, false), Audience::Internal).unwrap_err().0;
        assert_eq!(wrong("a\nb {{ nonsense }}").place, Some((2, 6)));
        assert_eq!(wrong("a\n{% if %}").place.map(|(line, _)| line), Some(2));
        assert!(wrong("{{ values['ETA'] }}").what.contains("undefined"), "not every kind has one");
        assert!(
            wrong("{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}")
                .what
                .contains("fuel")
        );
        let endless = "{% set x = 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' %}{% for a in range(20000) %}{{ x }}{% endfor %}";
        assert!(try_words(&Template::new(endless, false), Audience::Internal).is_err());
        let body = Template::new("{\"a\": {{ title }}, }", true);
        assert!(try_body(&body, Audience::Internal).unwrap_err().0.what.contains("no JSON"));
    }

    #[test]
    fn what_is_cut_is_not_the_reason_nor_the_next_command() {
        let mut a = sample::every_kind().into_iter().next().unwrap();
        a.fields.push(("Note".into(), "n".repeat(9000)));
        a.fields.extend((0..50).map(|n| (format!("Note {n}"), "ä".repeat(500))));
        a.next = Some("backstop explain shop".into());
        let reason = a.fields.iter().find(|(name, _)| name == "Reason").unwrap().1.clone();
        for max in [600, 2000, 4000] {
            let said = text(&a, &channel(), max).unwrap();
            assert!(said.len() <= max, "{} of {max}", said.len());
            assert!(said.contains(&reason) && said.ends_with("Next: backstop explain shop"), "{max}: {said}");
        }
        let tiny = text(&a, &channel(), 120).unwrap();
        assert!(tiny.len() <= 120 && tiny.ends_with("explain shop"), "{tiny}");
    }
}
