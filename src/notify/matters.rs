//! Matters: what begins with an announcement that somebody should hear of and ends with the one that it is over. Pagers
//! know it by one key, a person takes it on, and if nobody does, others are told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::kinds::{self, Course};
use super::plan::Escalation;
use crate::core::Timestamp;
use crate::core::announcement::{Announcement, AnnouncementKind as Kind, Closed};
use crate::core::release::ServiceName;
use crate::core::time::human;
use crate::store::Matter;

/// The time of the last picture in which a service is well, by its name; the fleet has none. None if it is not well, or
/// nobody knows.
#[derive(Clone)]
pub struct Outlook(pub Look);

/// See [`Outlook`].
pub type Look = Arc<dyn Fn(&str) -> Option<Timestamp> + Send + Sync>;

impl fmt::Debug for Outlook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outlook")
    }
}

impl Default for Outlook {
    /// Nobody knows.
    fn default() -> Self {
        Self(Arc::new(|_| None))
    }
}

/// The matters that are not over.
#[derive(Debug, Default)]
pub(super) struct Matters {
    open: BTreeMap<String, Matter>,
    /// Since when a subject has been well, as far as we looked.
    well: BTreeMap<String, Timestamp>,
    /// Keys of what was put into the outbox about them.
    said: BTreeSet<String>,
}

impl Matters {
    /// With those that an earlier process knew.
    pub(super) fn recall(&mut self, matters: Vec<Matter>) {
        self.open = matters.into_iter().map(|matter| (matter.subject.clone(), matter)).collect();
    }

    pub(super) fn get(&self, subject: &str) -> Option<&Matter> {
        self.open.get(subject)
    }

    /// The matter that an announcement is about, with it; none if it is about none.
    pub(super) fn hear(&mut self, a: &Announcement, escalation: &Escalation) -> Option<Matter> {
        let subject = a.service.as_ref().map_or("", |service| service.as_str());
        let asks = escalation.kinds.contains(&a.kind);
        let course = match kinds::course(a) {
            Course::Note | Course::Continues if asks => Course::Opens,
            course => course,
        };
        if course == Course::Note {
            return None;
        }
        if course == Course::Opens && !self.open.contains_key(subject) {
            self.open.insert(subject.to_owned(), new(subject, a));
        }
        let matter = self.open.get_mut(subject)?;
        matter.spoken = matter.spoken.max(a.at);
        if a.rollback.is_some() {
            matter.rollback.clone_from(&a.rollback);
        }
        self.well.remove(subject);
        if course == Course::Opens && kinds::calls_anew(a.kind) {
            matter.open_anew(a);
        }
        match course {
            // What was asked is answered by what is done.
            Course::Opens if a.kind == Kind::RollbackInProgress && !asks => matter.asked = None,
            Course::Opens if asks && matter.acknowledged.is_none() => {
                matter.asked.get_or_insert_with(|| a.clone());
            }
            // Nobody is asked any more: there is nothing left that nobody answers.
            Course::Continues if a.closes == Some(Closed::Withdrawn) => {
                let question = |asked: &mut Announcement| kinds::is_question(asked.kind);
                matter.asked.take_if(question);
            }
            Course::Acknowledges => {
                matter.acknowledged = Some((acknowledged_by(a).to_owned(), a.at));
                matter.asked = None;
            }
            Course::Escalates => {
                let levels = escalation.levels.iter().filter(|level| kinds::is_of_level(a, &level.name));
                matter.levels.extend(levels.map(|level| level.name.clone()));
            }
            Course::Closes => matter.closed = Some(a.at),
            Course::Opens | Course::Continues | Course::Note => {}
        }
        let heard = matter.clone();
        if course == Course::Closes {
            self.open.remove(subject);
        }
        Some(heard)
    }

    /// Channels were told of it.
    pub(super) fn told<'a>(&mut self, heard: &mut Matter, channels: impl Iterator<Item = &'a str>) {
        heard.told.extend(channels.map(str::to_owned));
        if let Some(open) = self.open.get_mut(&heard.subject).filter(|open| open.opened == heard.opened) {
            open.told.clone_from(&heard.told);
        }
    }

    /// What is to be said because nobody took a matter on in time: each level once.
    pub(super) fn overdue(&mut self, escalation: &Escalation, now: Timestamp) -> Vec<Announcement> {
        let mut found = Vec::new();
        for matter in self.open.values().filter(|matter| matter.acknowledged.is_none()) {
            let Some(asked) = &matter.asked else { continue };
            for level in &escalation.levels {
                let told = matter.levels.contains(&level.name);
                if told || now.since(asked.at) < level.after {
                    continue;
                }
                let key = format!("{}{}", asked.key, kinds::level_suffix(&level.name));
                if self.said.insert(key.clone()) {
                    found.push(escalated(asked, key, level.after, now));
                }
            }
        }
        found
    }

    /// What is to be said because a matter is over by itself: its service has been well for `settled`.
    pub(super) fn over(
        &mut self,
        outlook: &Outlook,
        settled: Duration,
        environment: &str,
    ) -> Vec<Announcement> {
        let mut found = Vec::new();
        for (subject, matter) in &self.open {
            // A picture from before the last word knows nothing of it.
            let Some(seen) = (outlook.0)(subject).filter(|seen| *seen > matter.spoken) else {
                self.well.remove(subject);
                continue;
            };
            let since = *self.well.entry(subject.clone()).or_insert(seen);
            let key = format!("over/{subject}/{}", matter.opened.as_millis());
            if seen.since(since) >= settled && self.said.insert(key.clone()) {
                found.push(over(matter, key, seen, environment));
            }
        }
        found
    }

    /// Somebody takes a matter on: what is to be said of it.
    pub(super) fn acknowledge(
        &self,
        subject: &str,
        (by, why): (&str, &str),
        now: Timestamp,
        environment: &str,
    ) -> Result<Announcement, String> {
        let Some(matter) = self.open.get(subject) else {
            return Err(format!(
                "nothing is the matter with {subject} that could be taken on; next: backstop status"
            ));
        };
        if let Some((who, at)) = &matter.acknowledged {
            let ago = human(now.since(*at));
            return Err(format!("{who} took it on {ago} ago already; next: backstop explain {subject}"));
        }
        let mut a = of(matter, Kind::Acknowledged, format!("ACKNOWLEDGED: {subject}"), now, environment);
        a.key = format!("ack/{}", mark(subject, matter, matter.round));
        a.fields.push((ACKNOWLEDGED_BY.into(), by.to_owned()));
        if !why.is_empty() {
            a.fields.push(("Why".into(), why.to_owned()));
        }
        Ok(a)
    }

    /// When somebody has to be told next, and whether what is open has to be watched.
    pub(super) fn next(&self, escalation: &Escalation) -> Option<Timestamp> {
        let waiting = self.open.values().filter(|matter| matter.acknowledged.is_none());
        let due = waiting.filter_map(|matter| {
            let asked = matter.asked.as_ref()?;
            let open = escalation.levels.iter().filter(|level| !matter.levels.contains(&level.name));
            open.map(|level| asked.at + level.after).min()
        });
        due.min()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Nothing is remembered of what was said of matters that are over.
    pub(super) fn tidy(&mut self) {
        if self.open.is_empty() {
            self.said.clear();
            self.well.clear();
        }
    }
}

const ACKNOWLEDGED_BY: &str = "Acknowledged by";
/// What the core calls whoever answered a question.
const ANSWERED_BY: &str = "Decided by";

fn acknowledged_by(a: &Announcement) -> &str {
    let by = a.fields.iter().find(|(name, _)| name == ACKNOWLEDGED_BY || name == ANSWERED_BY);
    by.map_or("somebody", |(_, by)| by)
}

impl Matter {
    /// A person is called for something that whoever took the matter on, or was asked before, knows nothing of yet.
    fn open_anew(&mut self, a: &Announcement) {
        // Levels that were told of an earlier question know nothing of this, whatever became of that.
        let known =
            self.acknowledged.is_none() && self.asked.as_ref().is_some_and(|asked| asked.kind == a.kind);
        if known {
            return;
        }
        // A pager that somebody acknowledged is silent to whatever else comes under the same key.
        self.round += u32::from(self.acknowledged.is_some());
        (self.acknowledged, self.asked) = (None, None);
        self.levels.clear();
    }
}

/// What sets a matter apart from all others: its subject, its beginning, and how often it was opened anew.
pub(super) fn mark(subject: &str, matter: &Matter, round: u32) -> String {
    let again = if round > 0 { format!("/{round}") } else { String::new() };
    format!("{subject}/{}{again}", matter.opened.as_millis())
}

fn new(subject: &str, a: &Announcement) -> Matter {
    Matter {
        subject: subject.to_owned(),
        opened: a.at,
        severity: kinds::severity(a),
        spoken: a.at,
        rollback: None,
        told: BTreeSet::new(),
        asked: None,
        acknowledged: None,
        levels: BTreeSet::new(),
        round: 0,
        closed: None,
    }
}

/// An announcement about a matter.
fn of(matter: &Matter, kind: Kind, title: String, at: Timestamp, environment: &str) -> Announcement {
    let mut a = Announcement::new(String::new(), at, kind, environment, title);
    a.service = (!matter.subject.is_empty()).then(|| ServiceName::new(&matter.subject));
    a.severity = Some(matter.severity);
    a
}

fn escalated(asked: &Announcement, key: String, after: Duration, now: Timestamp) -> Announcement {
    let ack = asked.service.as_ref().map(|service| format!("backstop ack {service}"));
    let next: Vec<String> = ack.into_iter().chain(asked.next.clone()).collect();
    Announcement {
        key,
        at: now,
        kind: Kind::Escalated,
        title: format!("NOT ACKNOWLEDGED AFTER {}: {}", human(after), asked.title),
        next: (!next.is_empty()).then(|| next.join("; ")),
        severity: Some(kinds::severity(asked)),
        ..asked.clone()
    }
}

fn over(matter: &Matter, key: String, at: Timestamp, environment: &str) -> Announcement {
    let who = if matter.subject.is_empty() { "the fleet" } else { &matter.subject };
    let mut a = of(matter, Kind::Over, format!("WELL AGAIN: {who}"), at, environment);
    a.key = key;
    a.rollback.clone_from(&matter.rollback);
    let lasted = human(at.since(matter.opened));
    a.fields.push(("Status".into(), format!("nothing is wrong with it any more; it was for {lasted}")));
    if let Some((by, _)) = &matter.acknowledged {
        a.fields.push((ACKNOWLEDGED_BY.into(), by.clone()));
    }
    a
}
