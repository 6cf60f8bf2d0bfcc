//! Approval: what people are asked before a rollback goes ahead, and what they said.
//!
//! How urgent a row is says who is asked: `critical` nobody, `high` is announced with a deadline and goes ahead unless
//! somebody says no, `medium` waits until somebody says yes, `low` is only noted. What a person said is kept with who,
//! when and why; it holds for the release that runs, against everything that is no more urgent, until that person or
//! another one says something else, or something else is deployed.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::announcement::{AnnouncementKind, Closed};
use super::decision::{Decision, Gate, GateAnswer, Verdict};
use super::gate::{Answer, Question};
use super::io::Effect;
use super::release::{ApprovalId, ReleaseId};
use super::service::{Service, Turn};
use super::settings::{OpenWindow, Severity};
use super::state::{Event, State};
use super::time::{Timestamp, human};

/// A question that nobody has answered for so long is dropped: by then the release is too old to be blamed unasked.
const LAPSES: Duration = Duration::from_secs(24 * 60 * 60);
/// Shortly before a deadline people are reminded of it: when this part of the time is left ...
const REMINDED: u32 = 5;
/// ... but not so shortly that nobody could read it, nor so early that they forget again.
const REMINDED_BEFORE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(10 * 60));
/// An order that needs a second person waits so long: whoever gave it sits there and waits.
const SECOND_LAPSES: Duration = Duration::from_secs(60 * 60);

/// What people are asked, and what they said so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Approval {
    /// Its identity: what a link in a message is signed for.
    pub id: ApprovalId,
    /// What an answer leads to.
    pub ask: Ask,
    /// What would be done, and why.
    pub decision: Box<Decision>,
    /// When it was asked.
    pub asked: Timestamp,
    /// So many different people have to say yes.
    pub needed: u32,
    /// What was said, oldest first.
    pub said: Vec<Said>,
    /// The deadline that people were reminded of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reminded: Option<Timestamp>,
}

/// What an answer leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ask")]
pub enum Ask {
    /// It goes ahead at this moment unless somebody says no; at once if somebody says yes.
    Countdown {
        /// When.
        until: Timestamp,
    },
    /// It goes ahead when somebody says yes.
    Consent,
    /// The row only asks, or the release is too old to be blamed unasked: a yes orders the rollback.
    Evaluate,
    /// A person ordered a rollback, and another one has to agree.
    Second {
        /// To which release, if one was named.
        to: Option<String>,
        /// Why.
        why: String,
        /// The target need not fit the schema of the database.
        #[serde(default)]
        accept_schema: bool,
    },
}

/// What one person said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: String,
    /// How we know who it was.
    pub via: Via,
    /// What.
    pub word: Word,
    /// Why; may be empty.
    pub why: String,
}

/// How we know who somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// A token that is this person's own.
    Person,
    /// The token that all operators share: the name is what they say it is.
    #[default]
    Token,
    /// The link in a message: whoever can read the message.
    Link,
}

/// What can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "word")]
pub enum Word {
    /// Roll back.
    Approved,
    /// Do not.
    Refused,
    /// Wait longer.
    Extended {
        /// Until then.
        until: Timestamp,
    },
}

impl Word {
    /// The name used in the API and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Refused => "refused",
            Self::Extended { .. } => "extended",
        }
    }
}

impl Ask {
    /// The name used in the API.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Countdown { .. } => "countdown",
            Self::Consent => "consent",
            Self::Evaluate => "evaluate",
            Self::Second { .. } => "second",
        }
    }
}

impl Approval {
    /// What was said since the last no, for a later yes takes it back; with the last word in it.
    fn since_no(&self) -> &[Said] {
        let no = self.said.iter().rposition(|said| said.word == Word::Refused);
        self.said.get(no.map_or(0, |at| at + 1)..).unwrap_or_default()
    }

    /// How many different people have said yes. Those of whom only a message or a shared token vouches may all be the same
    /// person, and count as one.
    pub fn approvals(&self) -> u32 {
        let yes = self.since_no().iter().filter(|said| said.word == Word::Approved);
        let people: BTreeSet<Option<&str>> =
            yes.map(|said| (said.via == Via::Person).then_some(said.by.as_str())).collect();
        super::window::count(people.len())
    }

    /// Enough people said yes.
    pub fn is_approved(&self) -> bool {
        self.approvals() >= self.needed
    }

    /// The no, if that was the last word.
    pub fn refusal(&self) -> Option<&Said> {
        self.said.last().filter(|said| said.word == Word::Refused)
    }

    /// It waits for somebody's answer.
    pub fn is_open(&self) -> bool {
        !self.is_approved() && self.refusal().is_none()
    }

    /// When it goes ahead by itself, if it does.
    pub fn deadline(&self) -> Option<Timestamp> {
        match self.ask {
            Ask::Countdown { until } => Some(until),
            Ask::Consent | Ask::Evaluate | Ask::Second { .. } => None,
        }
    }

    /// Who said yes, for the rollback log.
    pub fn approvers(&self) -> String {
        let yes = self.since_no().iter().filter(|said| said.word == Word::Approved);
        let mut names: Vec<String> = yes.map(Said::who).collect();
        names.dedup();
        names.join(" and ")
    }

    fn is_about(&self, release: Option<&ReleaseId>) -> bool {
        self.decision.from.as_ref().map(|from| &from.id) == release
    }

    /// Whether it asks for what is to be asked about something so urgent: with a deadline, or until somebody says yes. What
    /// has a deadline keeps it while something less urgent is foremost.
    fn asks(&self, severity: Severity, frozen: bool) -> bool {
        let alike = match self.ask {
            Ask::Countdown { .. } => !frozen,
            Ask::Consent => frozen || severity != Severity::High,
            Ask::Evaluate | Ask::Second { .. } => false,
        };
        self.decision.severity >= severity && (alike || self.is_approved())
    }

    /// Whether the link to it was used: for an answer to this question, not for what is carried over from an earlier one.
    /// Putting it off answers nothing.
    fn answered_by_link(&self) -> Option<&Said> {
        let answers = |said: &&Said| !matches!(said.word, Word::Extended { .. });
        self.said.iter().filter(answers).find(|said| said.via == Via::Link && said.at >= self.asked)
    }

    /// What was said about it holds for a later question too, if a yes to that leads to the same.
    pub(crate) fn carries_over_to(&self, decision: &Decision) -> bool {
        let target = |decision: &Decision| decision.to.as_ref().map(|to| to.id.clone());
        self.is_open()
            && self.is_about(decision.from.as_ref().map(|from| &from.id))
            && target(&self.decision) == target(decision)
    }

    fn lapses(&self) -> Timestamp {
        match self.ask {
            Ask::Second { .. } => self.asked + SECOND_LAPSES,
            Ask::Evaluate => self.asked + LAPSES,
            Ask::Consent | Ask::Countdown { .. } => Timestamp::MAX,
        }
    }
}

impl Said {
    /// `alice`, or `alice (by link)`.
    pub fn who(&self) -> String {
        match self.via {
            Via::Person | Via::Token => self.by.clone(),
            Via::Link => format!("{} (by link)", self.by),
        }
    }

    fn sentence(&self) -> String {
        let why = if self.why.is_empty() { String::new() } else { format!(": {}", self.why) };
        format!("{} at {}{why}", self.who(), time_of_day(self.at))
    }
}

/// The gate: whether those that have to be asked have been.
pub(super) fn consent(q: Question<'_>, freeze: Option<&OpenWindow>) -> Answer {
    let severity = match q.severity {
        None => return Ok("nobody else has to be asked".into()),
        Some(Severity::Critical) if freeze.is_none() => return Ok("critical: nobody is asked".into()),
        Some(Severity::Low) => return Err("its severity is low: noted, and no more".into()),
        Some(severity @ (Severity::Critical | Severity::High | Severity::Medium)) => severity,
    };
    let approval =
        q.flags.approval.as_ref().filter(|a| a.is_about(q.release) && a.decision.severity >= severity);
    let Some(approval) = approval else {
        return Err(match (severity, freeze) {
            (_, Some(freeze)) => {
                format!("{} has to say yes first, because of {freeze}", people(q.settings.approvals))
            }
            (Severity::High, None) if !q.settings.deadline.is_zero() => {
                format!(
                    "high: announced first, and done {} later unless somebody says no",
                    human(q.settings.deadline)
                )
            }
            (Severity::High, None) => return Ok("high, with no time for objections set".into()),
            (Severity::Critical | Severity::Medium | Severity::Low, None) => {
                format!("{severity}: {} has to say yes first", people(q.settings.approvals))
            }
        });
    };
    if let Some(no) = approval.refusal() {
        return Err(format!("no, said {}; that holds until something else is deployed", no.sentence()));
    }
    if approval.is_approved() {
        return Ok(format!("approved by {}", approval.approvers()));
    }
    match approval.deadline() {
        // Nobody having said no in time is no yes, and that is what a freeze wants.
        Some(_) if let Some(freeze) = freeze => {
            Err(format!("{} has to say yes first, because of {freeze}", people(approval.needed)))
        }
        Some(until) if q.now >= until => {
            Ok(format!("announced {} ago, and nobody said no", human(q.now.since(approval.asked))))
        }
        Some(until) => Err(format!(
            "goes ahead in {}, at {}, unless somebody says no",
            human(until.since(q.now)),
            time_of_day(until)
        )),
        None => Err(format!("waits for a yes: {} of {}", approval.approvals(), approval.needed)),
    }
}

/// The hour and minute, as messages show it to people who are asked to do something by then.
pub fn time_of_day(at: Timestamp) -> String {
    let minutes = at.as_millis() / 60_000;
    format!("{:02}:{:02} UTC", minutes / 60 % 24, minutes % 60)
}

/// The title of what goes ahead after so long.
fn countdown(left: Duration) -> String {
    format!("ROLLBACK IN {} UNLESS SOMEBODY SAYS NO", human(left).to_string().to_uppercase())
}

fn people(needed: u32) -> String {
    if needed == 1 { "somebody".into() } else { format!("each of {needed} different people") }
}

impl Service {
    /// What people were asked about what runs, answered or not.
    fn question(&self) -> Option<&Approval> {
        let current = self.current.as_ref().map(|release| &release.id);
        self.flags.approval.as_deref().filter(|approval| approval.is_about(current))
    }

    /// The question that is open about what runs.
    pub(crate) fn open_approval(&self) -> Option<&Approval> {
        self.question().filter(|approval| approval.is_open())
    }

    /// Everything else allows a rollback, and people have to be asked: asks them, unless they were asked, and waits.
    pub(crate) fn seek_approval(&mut self, turn: &mut Turn<'_>, frozen: bool, decision: Decision) {
        let severity = decision.severity;
        // Whoever said no, or whom nobody asks, is left alone; one that is already asked is not asked again.
        if self.is_ruled_out(severity) {
            return;
        }
        if !self.question().is_some_and(|known| known.asks(severity, frozen)) {
            let ask = match severity {
                Severity::High if !frozen => Ask::Countdown { until: turn.now + self.settings.deadline },
                Severity::Critical | Severity::High | Severity::Medium | Severity::Low => Ask::Consent,
            };
            let decision = Decision { verdict: Verdict::Evaluate, ..decision };
            self.record(turn, &decision);
            self.replace_order(turn, &decision);
            self.put_question(turn, ask, decision, None);
        }
        self.remind(turn);
        if self.state == State::Suspect {
            self.go(turn, Event::Asked);
        }
    }

    /// Something more urgent is asked than an order that waits for a second person: whoever gave that hears of it, if it
    /// named another release than what would be done now.
    fn replace_order(&mut self, turn: &mut Turn<'_>, decision: &Decision) {
        let known = self.open_approval().filter(|known| matches!(known.ask, Ask::Second { .. }));
        if known.is_some_and(|known| !known.carries_over_to(decision)) {
            self.drop_question(
                turn,
                "ORDER REPLACED",
                "something is wrong now, for which it would go back to another release: order it again if it is still wanted",
                Some(Closed::Withdrawn),
            );
        }
    }

    /// The time for a no is nearly over: said once for each deadline.
    fn remind(&mut self, turn: &mut Turn<'_>) {
        let Some(approval) = self.open_approval().cloned() else { return };
        let Some(until) = approval.deadline().filter(|until| approval.reminded != Some(*until)) else {
            return;
        };
        let last = approval.said.last().map_or(approval.asked, |said| said.at);
        let before = (until.since(last) / REMINDED).clamp(REMINDED_BEFORE.0, REMINDED_BEFORE.1);
        let left = until.since(turn.now);
        // A short deadline is its own reminder.
        if left > before || until.since(last) < 3 * before || turn.now >= until {
            return;
        }
        let mut a = self.announcement(turn, AnnouncementKind::ApprovalWanted, &countdown(left));
        a.key = format!("{}/reminded/{}", approval.id, until.as_millis());
        a.approval = Some(approval.id.clone());
        a.severity = Some(approval.decision.severity);
        a.fields
            .push(("Reminder".into(), format!("it was asked {} ago", human(turn.now.since(approval.asked)))));
        a.fields.push(("Goes ahead".into(), format!("at {}", time_of_day(until))));
        a.fields.push(("Reason".into(), approval.decision.reason.to_string()));
        let name = &self.name;
        a.next = Some(format!("not at all: backstop cancel {name}; later: backstop extend {name} 30m"));
        turn.effect(Effect::Announce(a));
        self.flag(turn, |flags| {
            if let Some(approval) = &mut flags.approval {
                approval.reminded = Some(until);
            }
        });
    }

    /// Whether a yes to this decision could be carried out, and nothing else is being asked, or was answered with no.
    pub(crate) fn can_ask(&self, decision: &Decision) -> bool {
        self.acts() && decision.to.is_some() && self.flags.approval.is_none()
    }

    /// Whether the release is young enough that a person should be asked about it.
    pub(crate) fn is_still_blamed(&self, now: Timestamp) -> bool {
        now.since(self.deployed) <= LAPSES
    }

    /// Whether a rollback for something so urgent will not come, because somebody said no or nobody wants one.
    pub(crate) fn is_ruled_out(&self, severity: Severity) -> bool {
        let current = self.current.as_ref().map(|release| &release.id);
        let earlier = self.flags.refused.as_deref().filter(|approval| approval.is_about(current));
        let no = self.question().filter(|approval| approval.refusal().is_some());
        let mut refused = no.into_iter().chain(earlier);
        severity == Severity::Low || refused.any(|approval| approval.decision.severity >= severity)
    }

    /// The symptom passed: what was asked about it needs no answer, and a yes to it is no yes to what comes later. What a
    /// person ordered does not depend on a symptom.
    pub(crate) fn over_without_answer(&mut self, turn: &mut Turn<'_>) {
        if self.question().is_some_and(|approval| !matches!(approval.ask, Ask::Second { .. })) {
            self.withdraw_question(turn, "it is well again by itself");
        }
    }

    /// Asks people. `held` says why Backstop does not act by itself, where that is not plain.
    pub(crate) fn put_question(
        &mut self,
        turn: &mut Turn<'_>,
        ask: Ask,
        decision: Decision,
        held: Option<&str>,
    ) {
        let needed = self.settings.approvals;
        let id = ApprovalId::new(turn.rollback_id().as_str());
        // Whoever has said yes need not say it again because it has become more urgent.
        let earlier = self.question().filter(|known| known.carries_over_to(&decision));
        let said = earlier.map(|known| known.said.clone()).unwrap_or_default();
        let name = self.name.clone();
        let title = match &ask {
            Ask::Countdown { until } => countdown(until.since(turn.now)),
            Ask::Consent => "ROLLBACK WAITS FOR APPROVAL".into(),
            Ask::Evaluate => "DECISION NEEDED".into(),
            Ask::Second { .. } => "ROLLBACK WAITS FOR A SECOND PERSON".into(),
        };
        let mut a = self.announcement(turn, AnnouncementKind::ApprovalWanted, &title);
        a.key = format!("{id}/asked");
        a.approval = Some(id.clone());
        a.severity = Some(decision.severity);
        a.fields.extend(self.about(&decision, "Would go back to"));
        if let Ask::Countdown { until } = &ask {
            a.fields.push(("Goes ahead".into(), format!("at {}", time_of_day(*until))));
        }
        a.fields.extend(held.map(|why| ("Not rolled back because".to_owned(), why.to_owned())));
        if needed > 1 {
            a.fields.push(("Approval".into(), format!("{needed} different people have to say yes")));
        }
        a.next = Some(match &ask {
            Ask::Countdown { .. } => format!(
                "at once: backstop approve {name}; not at all: backstop cancel {name}; later: backstop extend {name} 30m"
            ),
            Ask::Consent | Ask::Evaluate | Ask::Second { .. } => {
                format!("backstop approve {name}; if it is to stay: backstop cancel {name}")
            }
        });
        let approval =
            Approval { id, ask, decision: Box::new(decision), asked: turn.now, needed, said, reminded: None };
        let approvals = approval.approvals();
        if approvals > 0 {
            let so_far = format!("{} of {needed}: {}", approvals, approval.approvers());
            a.fields.push(("Said yes already".into(), so_far));
        }
        self.flag(turn, |flags| {
            // A no outlives whatever more urgent is asked after it.
            let refused = flags.approval.take().filter(|known| known.refusal().is_some());
            flags.refused = refused.or(flags.refused.take());
            flags.approval = Some(Box::new(approval));
        });
        turn.effect(Effect::Announce(a));
    }

    /// The question is over, and a yes that nothing came of: what it was about passed, or it was paused. A no stays.
    pub(crate) fn withdraw_question(&mut self, turn: &mut Turn<'_>, why: &str) {
        self.drop_question(turn, "NO APPROVAL NEEDED ANY MORE", why, Some(Closed::Withdrawn));
    }

    fn drop_question(&mut self, turn: &mut Turn<'_>, title: &str, why: &str, closes: Option<Closed>) {
        let Some(approval) = self.flags.approval.clone().filter(|a| a.refusal().is_none()) else { return };
        self.flag(turn, |flags| flags.approval = flags.refused.take());
        let mut a = self.announcement(turn, AnnouncementKind::Approval, title);
        a.key = format!("{}/over", approval.id);
        a.closes = closes;
        a.fields.push(("Reason".into(), why.to_owned()));
        a.fields.push(("It was asked because".into(), approval.decision.reason.to_string()));
        if approval.is_approved() {
            a.fields.push(("It had been approved by".into(), approval.approvers()));
        }
        turn.effect(Effect::Announce(a));
    }

    /// Something else was deployed: whatever was asked, and answered, was about another release.
    pub(crate) fn forget_question(&mut self, turn: &mut Turn<'_>) {
        self.withdraw_question(turn, "something else was deployed");
        self.flag(turn, |flags| (flags.approval, flags.refused) = (None, None));
    }

    /// Drops a question that nobody answers.
    pub(crate) fn lapse_question(&mut self, turn: &mut Turn<'_>) {
        if self.open_approval().is_some_and(|approval| turn.now >= approval.lapses()) {
            // That nobody answered settles nothing: whoever is to be told when nobody does still is.
            let why = "it was asked too long ago to be answered now";
            self.drop_question(turn, "NOBODY ANSWERED", why, None);
        }
    }

    /// Takes down what somebody said about the open question, and tells the others.
    ///
    /// # Errors
    /// There is no such question (any more), or that cannot be said about it; with the next command to type.
    pub(crate) fn say(
        &mut self,
        turn: &mut Turn<'_>,
        id: Option<&ApprovalId>,
        said: Said,
    ) -> Result<String, String> {
        let name = self.name.clone();
        let known = self.question();
        let approval =
            known.filter(|approval| id.is_none_or(|id| *id == approval.id)).ok_or_else(|| match id {
                Some(_) => format!("this question about {name} is closed; next: backstop explain {name}"),
                None => format!("nothing about {name} waits for an answer; next: backstop explain {name}"),
            })?;
        check(approval, &said, &name)?;
        let mut answered = approval.clone();
        answered.said.push(said.clone());
        let (title, answer) = match said.word {
            Word::Approved if answered.is_approved() => (
                format!("ROLLBACK APPROVED BY {}", said.who()),
                format!(
                    "approved: {name} is rolled back now if nothing else stands against it; next: backstop explain {name}"
                ),
            ),
            Word::Approved => (
                format!("APPROVED BY {}, {} OF {}", said.who(), answered.approvals(), answered.needed),
                format!("taken down: {} of {} people said yes", answered.approvals(), answered.needed),
            ),
            Word::Refused if matches!(answered.ask, Ask::Second { .. }) => (
                format!("ORDER CANCELLED BY {}", said.who()),
                format!("cancelled: the order is not carried out, and {name} is judged as before"),
            ),
            Word::Refused => (
                format!("ROLLBACK CANCELLED BY {}", said.who()),
                format!(
                    "cancelled: {name} is left as it is until something else is deployed, or something more urgent is found; \
                     to take that back: backstop approve {name}"
                ),
            ),
            Word::Extended { until } => {
                if let Ask::Countdown { until: deadline } = &mut answered.ask {
                    *deadline = until;
                }
                (
                    format!("DEADLINE EXTENDED BY {}", said.who()),
                    format!("extended: it goes ahead at {} unless somebody says no", time_of_day(until)),
                )
            }
        };
        let mut a = self.announcement(turn, AnnouncementKind::Approval, &title);
        a.key = format!("{}/said-{}", answered.id, answered.said.len());
        a.closes = (!answered.is_open()).then_some(Closed::Answered);
        a.fields.push(("Decided by".into(), said.who()));
        if !said.why.is_empty() {
            a.fields.push(("Because".into(), said.why.clone()));
        }
        a.fields.push(("It was asked because".into(), answered.decision.reason.to_string()));
        if let Word::Extended { until } = said.word {
            a.fields.push(("Goes ahead".into(), format!("at {}", time_of_day(until))));
        }
        // Whoever may still answer gets a link to do so, unless it was used.
        let open = answered.is_open() && answered.answered_by_link().is_none();
        a.approval = open.then(|| answered.id.clone());
        turn.effect(Effect::Announce(a));
        self.keep_answer(turn, answered, &said);
        Ok(answer)
    }

    /// Remembers what was said. A no is kept among the decisions too, where it outlives the release that it is about.
    fn keep_answer(&mut self, turn: &mut Turn<'_>, answered: Approval, said: &Said) {
        if said.word != Word::Refused {
            self.flag(turn, |flags| flags.approval = Some(Box::new(answered)));
            return;
        }
        let why = format!("no, said {}", said.sentence());
        let decision = Decision {
            at: turn.now,
            verdict: Verdict::Hold,
            gates: vec![GateAnswer { gate: Gate::Approval, allow: false, why }],
            ..(*answered.decision).clone()
        };
        self.record(turn, &decision);
        // A no to somebody's order is no word about what else may be wrong with the release.
        let ordered = matches!(answered.ask, Ask::Second { .. });
        self.flag(turn, |flags| {
            flags.approval = if ordered { flags.refused.take() } else { Some(Box::new(answered)) };
        });
        if self.state == State::AwaitingApproval {
            self.drop_prepared(turn);
            self.go(turn, Event::Answered);
        }
    }
}

/// Whether this can be said about the question.
fn check(approval: &Approval, said: &Said, name: &super::release::ServiceName) -> Result<(), String> {
    if let Some(earlier) = approval.answered_by_link().filter(|_| said.via == Via::Link) {
        return Err(format!(
            "this link was used already, by {}; next: backstop explain {name}",
            earlier.sentence()
        ));
    }
    match said.word {
        Word::Approved if approval.is_approved() => {
            Err(format!("it is approved already, by {}; next: backstop explain {name}", approval.approvers()))
        }
        Word::Approved if approval.since_no().iter().any(|s| s.word == Word::Approved && same(s, said)) => {
            Err(format!(
                "you have said yes already, and somebody else has to as well ({} of {} did), each with a token of their own \
             (`api.operators`)",
                approval.approvals(),
                approval.needed
            ))
        }
        Word::Refused if approval.refusal().is_some() => {
            Err(format!("it is cancelled already; next: backstop explain {name}"))
        }
        Word::Refused if approval.is_approved() => Err(format!(
            "it is too late, it was approved by {}; next: backstop explain {name}",
            approval.approvers()
        )),
        Word::Extended { .. } if approval.deadline().is_none() || !approval.is_open() => {
            Err(format!("there is no deadline of {name} to extend; next: backstop explain {name}"))
        }
        Word::Extended { until } if until.since(approval.asked) > LAPSES => Err(format!(
            "a deadline can be put off by {} in all; to keep it as it is: backstop cancel {name}",
            human(LAPSES)
        )),
        Word::Approved | Word::Refused | Word::Extended { .. } => Ok(()),
    }
}

/// Whether two words may be of the same person.
fn same(one: &Said, other: &Said) -> bool {
    match (one.via, other.via) {
        (Via::Person, Via::Person) => one.by == other.by,
        (Via::Token | Via::Link, Via::Token | Via::Link) => true,
        (Via::Person, Via::Token | Via::Link) | (Via::Token | Via::Link, Via::Person) => false,
    }
}
