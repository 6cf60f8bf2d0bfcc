//! The incident report of a rollback: what was known when, what was done, who was told, and what is left to people.
//!
//! It is made from what was kept, whenever somebody asks for it: the record and the journal of the rollback, the outbox,
//! and the *evidence* that was put aside at the decision, before anything was touched: the matrix as it stood, the last
//! hour of every signal, and how the two releases differ. What was not kept is said to be missing, and never made up.
//!
//! Log lines and labels are written by programs that may be broken or worse: everything is text here, escaped by whoever
//! writes it ([`html`], [`markdown`]), with secrets taken out first ([`redact`]).

pub mod checklist;
pub mod difference;
pub mod html;
pub mod markdown;
pub mod plot;
pub mod redact;
pub mod reminder;
pub mod strip;

pub(crate) use self::plot::escape;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::core::Timestamp;
use crate::core::approval::Approval;
use crate::core::ledger::RollbackRecord;
use crate::core::settings::{Action, Against, Condition, Rule};
use crate::core::snapshot::ServiceSnapshot;
use crate::core::time::human;
use checklist::{Item, Owners, Point, Tick, Ticket};
use difference::Releases;
use plot::{Frame, Plot, Unit};
use strip::Slot;

/// Log lines that are shown: the last ones.
const LOG_MAX: usize = 200;
/// Lines of the journal that are shown.
const TIMELINE_MAX: usize = 300;
/// Announcements that are shown.
const TOLD_MAX: usize = 50;
/// Plots begin so long before the deployment ...
const BEFORE: f64 = 15.0 * 60.0;
/// ... and end so long after the last thing that happened.
const AFTER: f64 = 10.0 * 60.0;
/// A release that ran for longer before the trouble is shown from this long before it.
const ONSET_BEFORE: f64 = 20.0 * 60.0;

/// One row of the matrix at the moment of the decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The row's name.
    pub rule: String,
    /// Its value then, for people.
    pub value: String,
    /// Its threshold, for people.
    pub threshold: String,
    /// What it was compared with.
    pub baseline: Option<String>,
    /// How many samples it judged by.
    pub samples: u32,
    /// Its answer.
    pub answer: String,
    /// What a breach leads to.
    pub action: String,
    /// How urgent.
    pub severity: String,
}

/// What was put aside at the decision.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Scene {
    /// When the release that was rolled back appeared.
    pub deployed: Option<Timestamp>,
    /// The whole matrix.
    pub rows: Vec<Row>,
    /// The last hour.
    pub slots: Vec<Slot>,
    /// The error rate that the row of errors allows.
    pub error_line: Option<f64>,
    /// How many times the baseline the row of latency allows, or, if it is absolute, how many seconds.
    pub latency_line: Option<(f64, bool)>,
    /// The share of memory that the row of memory allows.
    pub memory_line: Option<f64>,
    /// Who does what is left to people.
    #[serde(default)]
    pub owners: Owners,
}

impl Scene {
    /// What is known of a service now.
    pub fn of(seen: &ServiceSnapshot, slots: Vec<Slot>, owners: Owners) -> Self {
        let rule = |condition: Condition| -> Option<&Rule> {
            let rows = seen.settings.rules.iter().filter(|rule| rule.condition == condition);
            rows.min_by_key(|rule| (rule.action != Action::Rollback, rule.action == Action::Off))
        };
        let absolute = |rule: &&Rule| rule.against == Against::Absolute;
        Self {
            deployed: seen.deployed,
            rows: seen.rows.iter().map(Row::from).collect(),
            slots,
            error_line: rule(Condition::ErrorRate).filter(absolute).map(|rule| rule.threshold),
            latency_line: rule(Condition::Latency)
                .map(|rule| (rule.threshold, rule.against == Against::Absolute)),
            memory_line: rule(Condition::Memory).map(|rule| rule.threshold),
            owners,
        }
    }
}

impl From<&crate::core::snapshot::RowSnapshot> for Row {
    fn from(row: &crate::core::snapshot::RowSnapshot) -> Self {
        Self {
            rule: row.rule.clone(),
            value: redact::line(&row.value, &[]),
            threshold: row.threshold.clone(),
            baseline: row.baseline.clone(),
            samples: row.samples,
            answer: row.answer.name().to_owned(),
            action: row.action.to_string(),
            severity: row.severity.to_string(),
        }
    }
}

/// A message about the rollback, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// When it was said.
    pub at: Timestamp,
    /// Its kind.
    pub kind: String,
    /// Its title.
    pub title: String,
    /// When the first of its channels took it; none while nobody did, or where no channel is to have it.
    pub delivered: Option<Timestamp>,
    /// Whether its channels were found, which may be none.
    pub routed: bool,
    /// What became of it in each of its channels.
    pub channels: Vec<Reached>,
}

/// A message in one channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// The channel's name.
    pub channel: String,
    /// What kind of channel it is: `slack`, `email`, ...
    pub by: Option<String>,
    /// When it was delivered.
    pub delivered: Option<Timestamp>,
    /// It is not tried any more.
    pub given_up: bool,
    /// How often it was tried.
    pub attempts: u32,
    /// What went wrong last.
    pub error: Option<String>,
}

impl Told {
    /// To whom it was delivered, for people: `ops (slack) after 2s; mail (email) not yet, tried 3 times: ...`.
    pub fn reached(&self) -> String {
        if self.channels.is_empty() {
            return if self.routed { "to nobody: no channel is to have it" } else { "not yet" }.to_owned();
        }
        let of = |one: &Reached| {
            let by = one.by.as_ref().map_or_else(String::new, |by| format!(" ({by})"));
            let tried = format!("tried {} times", one.attempts);
            let but = one.error.as_ref().map_or_else(String::new, |why| format!(": {why}"));
            match one.delivered {
                Some(at) => format!("{}{by} after {}{but}", one.channel, human(at.since(self.at))),
                None if one.given_up => format!("{}{by} never, {tried}{but}", one.channel),
                None if one.attempts > 0 => format!("{}{by} not yet, {tried}{but}", one.channel),
                None => format!("{}{by} not yet", one.channel),
            }
        };
        self.channels.iter().map(of).collect::<Vec<_>>().join("; ")
    }
}

/// Everything that a report is made of.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The row of the rollback log.
    pub record: RollbackRecord,
    /// The journal in words.
    pub journal: Vec<(Timestamp, String)>,
    /// How the operators' own tests of the target went, if there are any and all of them succeeded.
    pub smoke: Option<String>,
    /// The last log lines of what was rolled back.
    pub log: Vec<String>,
    /// The messages about it.
    pub told: Vec<Told>,
    /// What was put aside at the decision.
    pub scene: Option<Scene>,
    /// The last hour, as it was when it was over.
    pub after: Vec<Slot>,
    /// How the two releases differ.
    pub releases: Option<Releases>,
    /// What people ticked off the checklist, oldest first.
    pub ticks: Vec<(Point, Tick)>,
    /// The ticket, if Backstop was asked to open one.
    pub ticket: Option<Ticket>,
}

/// One line of the timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// How long after the decision, for people; with a minus before it.
    pub after: String,
    /// What.
    pub what: String,
    /// One of the moments that everything turns on.
    pub turning_point: bool,
}

/// A report, ready to be written down in one form or another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Incident {
    /// The rollback's id.
    pub id: String,
    /// The service.
    pub service: String,
    /// Where.
    pub environment: String,
    /// How urgent.
    pub severity: String,
    /// How it ended, in a word.
    pub outcome: String,
    /// How it ended, in a sentence.
    pub detail: String,
    /// What was rolled back.
    pub from: String,
    /// To what.
    pub to: String,
    /// Why.
    pub reason: String,
    /// The row of the matrix.
    pub rule: Option<String>,
    /// Who decided.
    pub decided_by: String,
    /// What people were asked before, and what they said, in a sentence each; empty if nobody was.
    pub asked: Vec<String>,
    /// When it was decided.
    pub decided: Timestamp,
    /// What took how long, for people.
    pub durations: Vec<(String, String)>,
    /// The turning points, numbered as in the plots.
    pub marks: Vec<(usize, String, Timestamp)>,
    /// The matrix at the moment of the decision; rows that are switched off left out.
    pub matrix: Vec<Row>,
    /// How many rows were switched off.
    pub rows_off: usize,
    /// The gates' answers.
    pub gates: Vec<(String, bool, String)>,
    /// What happened.
    pub timeline: Vec<Event>,
    /// Who was told.
    pub told: Vec<Told>,
    /// How the two releases differ.
    pub releases: Option<Releases>,
    /// The last log lines of what was rolled back.
    pub log: Vec<String>,
    /// The checklist.
    pub checklist: Vec<Item>,
    /// Where the ticket is, if Backstop opened one.
    pub ticket: Option<String>,
    /// What is missing here, and why.
    pub missing: Vec<String>,
    /// The signals.
    #[serde(skip)]
    pub plots: Vec<Plot>,
    /// What they show.
    #[serde(skip)]
    pub frame: Option<Frame>,
    /// The signals as they were recorded.
    pub signals: Vec<Slot>,
}

fn secs(at: Timestamp) -> f64 {
    at.as_millis() as f64 / 1000.0
}

/// Makes a report of what was kept.
pub fn incident(sources: Sources) -> Incident {
    let Sources { record, journal, smoke, log, told, scene, after, releases, ticks, ticket } = sources;
    let known = scene.is_some();
    let scene = scene.unwrap_or_default();
    let signals = strip::merged(scene.slots.clone(), after);
    let marks = turning_points(&record, scene.deployed);
    let frame = frame(&record, scene.deployed, &signals);
    let missing = missing(known.then_some(signals.len()), releases.is_some(), &log, ticket.as_ref());
    let reason = redact::line(&record.decision.reason.to_string(), &[]);
    let rows_off = scene.rows.iter().filter(|row| row.answer == "off").count();
    let checklist = checklist::of(&record, (&told, smoke), &scene.owners, &ticks, ticket.as_ref());
    Incident {
        id: record.id.to_string(),
        service: record.service.to_string(),
        environment: record.environment.clone(),
        severity: record.decision.severity.to_string(),
        outcome: record.outcome.name().to_owned(),
        detail: redact::line(record.outcome.detail(), &[]),
        from: record.from.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string),
        to: record.to.to_string(),
        reason,
        rule: record.decision.rule.clone(),
        decided_by: record.decided_by.clone(),
        asked: record.approval.iter().flat_map(|asked| words(asked)).map(|(_, said)| said).collect(),
        decided: record.started,
        durations: durations(&record, scene.deployed),
        timeline: timeline(&record, &marks, journal, &told),
        marks: (1..).zip(marks).map(|(n, (what, at))| (n, what, at)).collect(),
        matrix: scene.rows.iter().filter(|row| row.answer != "off").cloned().collect(),
        rows_off,
        gates: gates(&record),
        told: told.into_iter().take(TOLD_MAX).collect(),
        releases,
        log: log.into_iter().rev().take(LOG_MAX).rev().collect(),
        checklist,
        ticket: ticket.and_then(|ticket| ticket.url),
        missing,
        plots: plots(&scene, &signals, frame),
        frame: Some(frame),
        signals,
    }
}

/// What a report lacks, and why.
fn missing(signals: Option<usize>, releases: bool, log: &[String], ticket: Option<&Ticket>) -> Vec<String> {
    let mut missing = Vec::new();
    match signals {
        None => {
            missing.push("the matrix and the signals at the decision: they were not put aside".to_owned())
        }
        Some(0..4) => missing.push("signals: hardly anything was measured".to_owned()),
        Some(_) => {}
    }
    if !releases {
        missing.push(
            "how the two releases differ: the container that was rolled back was gone already".to_owned(),
        );
    }
    if log.is_empty() {
        missing
            .push("log lines of the bad release: it wrote none, or its log driver cannot be read".to_owned());
    }
    if let Some(Ticket { url: None, attempts, error: Some(why) }) = ticket {
        missing.push(format!("a ticket: it could not be opened, tried {attempts} times: {why}"));
    }
    missing
}

fn gates(record: &RollbackRecord) -> Vec<(String, bool, String)> {
    let all = record.decision.gates.iter();
    all.map(|gate| (gate.gate.name().replace('_', " "), gate.allow, redact::line(&gate.why, &[]))).collect()
}

/// The moments that everything turns on, in order.
fn turning_points(record: &RollbackRecord, deployed: Option<Timestamp>) -> Vec<(String, Timestamp)> {
    let from = record.from.as_ref().map_or_else(|| "the release".to_owned(), |from| from.reference.clone());
    let ended = match record.outcome.name() {
        "verified" => "proved".to_owned(),
        other => other.replace('_', " "),
    };
    let mut all: Vec<(String, Option<Timestamp>)> = vec![
        (format!("{from} deployed"), deployed),
        ("trouble began".to_owned(), record.onset),
        ("decided".to_owned(), Some(record.started)),
        (format!("{} runs again", record.to.reference), record.applied),
    ];
    if record.outcome.is_over() {
        all.push((ended, record.ended));
    }
    let mut known: Vec<(String, Timestamp)> =
        all.into_iter().filter_map(|(what, at)| Some((what, at?))).collect();
    known.sort_by_key(|(_, at)| *at);
    known
}

fn durations(record: &RollbackRecord, deployed: Option<Timestamp>) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut span = |what: &str, from: Option<Timestamp>, to: Option<Timestamp>| {
        if let (Some(from), Some(to)) = (from, to)
            && to >= from
        {
            all.push((what.to_owned(), human(to.since(from)).to_string()));
        }
    };
    span("from the deployment to the trouble", deployed, record.onset);
    span("from the trouble to the decision", record.onset, Some(record.started));
    span("from the decision until the good release ran", Some(record.started), record.applied);
    span("until it was proved", record.applied, record.ended);
    span("users felt it for", record.onset, record.applied);
    all
}

fn timeline(
    record: &RollbackRecord,
    marks: &[(String, Timestamp)],
    journal: Vec<(Timestamp, String)>,
    told: &[Told],
) -> Vec<Event> {
    let after = |at: Timestamp| {
        let (sign, span) = if at >= record.started {
            ("+", at.since(record.started))
        } else {
            ("-", record.started.since(at))
        };
        format!("{sign}{}", human(span))
    };
    let event = |at: Timestamp, what: String, turning_point: bool| Event {
        at,
        after: after(at),
        what,
        turning_point,
    };
    let mut all: Vec<Event> = marks.iter().map(|(what, at)| event(*at, what.clone(), true)).collect();
    all.extend(journal.into_iter().map(|(at, what)| event(at, redact::line(&what, &[]), false)));
    all.extend(told.iter().take(TOLD_MAX).filter_map(|told| {
        let at = told.delivered?;
        Some(event(at, format!("told: {}", told.title), false))
    }));
    let asked = record.approval.iter().flat_map(|asked| words(asked));
    all.extend(asked.map(|(at, what)| event(at, what, false)));
    all.sort_by_key(|event| (event.at, !event.turning_point));
    all.truncate(TIMELINE_MAX);
    all
}

/// What people were asked, and what they said to it: who, when and why.
fn words(approval: &Approval) -> Vec<(Timestamp, String)> {
    let needed = if approval.needed > 1 { format!(", by {} people", approval.needed) } else { String::new() };
    let asked = format!("asked {} ({}{needed})", moment(approval.asked), approval.ask.name());
    let said = approval.said.iter().map(|said| {
        let why = if said.why.is_empty() { String::new() } else { format!(": {}", said.why) };
        let said_so = format!("{} {} by {}{why}", said.word.name(), moment(said.at), said.who());
        (said.at, redact::line(&said_so, &[]))
    });
    std::iter::once((approval.asked, asked)).chain(said).collect()
}

fn frame(record: &RollbackRecord, deployed: Option<Timestamp>, signals: &[Slot]) -> Frame {
    let last = record.ended.or(record.applied).unwrap_or(record.started);
    let onset = secs(record.onset.unwrap_or(record.started));
    let deployed = deployed.map_or(onset, secs);
    let measured = |slot: Option<&Slot>, or: f64| slot.map_or(or, |slot| slot.at as f64 / 1000.0);
    let from =
        (deployed - BEFORE).max(onset - ONSET_BEFORE - BEFORE).max(measured(signals.first(), f64::MIN));
    let to = (secs(last) + AFTER).min(measured(signals.last(), f64::MAX) + 15.0).max(secs(last) + 15.0);
    let back = secs(record.applied.unwrap_or(last));
    Frame { from: from.min(onset - 60.0), to, deployed, back, pain: Some((onset, back)) }
}

fn plots(scene: &Scene, signals: &[Slot], frame: Frame) -> Vec<Plot> {
    let shown: Vec<&Slot> = signals
        .iter()
        .filter(|slot| {
            let at = slot.at as f64 / 1000.0;
            at >= frame.from - 15.0 && at <= frame.to
        })
        .collect();
    let series = |title: &str, unit: Unit, value: &dyn Fn(&Slot) -> Option<f64>| {
        let middle = strip::SLOT as f64 / 2000.0;
        let points: Vec<(f64, f64)> = shown
            .iter()
            .filter_map(|slot| Some((slot.at as f64 / 1000.0 + middle, value(slot)?)))
            .filter(|(_, value)| value.is_finite())
            .collect();
        let step = spacing(&points);
        let plot = Plot { title: title.to_owned(), unit, points, step, threshold: None, baseline: None };
        let baseline = plot.before(frame.deployed);
        Plot { baseline, ..plot }
    };
    let share = |n: u64, of: u64| (of > 0).then(|| n as f64 / of as f64);
    let mut all = Vec::new();
    let errors = series("Failed requests", Unit::Percent, &|slot| share(slot.errors, slot.requests));
    all.push(Plot { threshold: scene.error_line, ..errors });
    let by_p99 = shown.iter().any(|slot| slot.p99.is_some());
    let latency = if by_p99 {
        series("Response time, 99th percentile", Unit::Seconds, &|slot| slot.p99)
    } else {
        series("Response time, mean", Unit::Seconds, &|slot| slot.mean)
    };
    let line = scene.latency_line.and_then(|(times, absolute)| {
        if absolute { Some(times) } else { latency.baseline.map(|usual| (times * usual).max(0.010)) }
    });
    all.push(Plot { threshold: line, ..latency });
    all.push(series("Failed health checks", Unit::Percent, &|slot| {
        share(slot.failed.into(), slot.checks.into())
    }));
    let memory = series("Memory, share of its limit", Unit::Percent, &|slot| slot.memory);
    all.push(Plot { threshold: scene.memory_line, ..memory });
    all.push(series("Requests in a quarter of a minute", Unit::Count, &|slot| {
        (slot.requests > 0).then_some(slot.requests as f64)
    }));
    all.push(series("Error lines in the log", Unit::Count, &|slot| slot.log_errors.map(|n| n as f64)));
    all.retain(|plot| {
        plot.points.len() > 1 && (plot.unit != Unit::Count || plot.points.iter().any(|p| p.1 > 0.0))
    });
    all
}

/// How far apart points usually are.
fn spacing(points: &[(f64, f64)]) -> f64 {
    let mut gaps: Vec<f64> = points.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    gaps.sort_by(f64::total_cmp);
    gaps.get(gaps.len() / 2).copied().unwrap_or(15.0).max(15.0)
}

/// The log lines in the events of a journal, with secrets taken out.
pub fn log_of(events: &[Value], secrets: &[String]) -> Vec<String> {
    let outputs = events.iter().map(|event| &event["output"]["log"]);
    let lines = outputs.filter_map(Value::as_array).flatten().filter_map(Value::as_str);
    lines.map(|text| redact::line(text, secrets)).collect()
}

/// How the hooks went that are the operators' own tests of the target: those before the verification that are called so. A hook
/// that only does something there, as one that makes an index anew, proves nothing. None if there are none, or one failed.
pub fn smoke_of(events: &[Value]) -> Option<String> {
    let steps = events.iter().rev().find_map(|event| event["plan"]["steps"].as_array())?;
    let tests = steps.iter().enumerate().filter(|(_, step)| {
        step["hook"]["phase"] == "before_verify" && step["hook"]["name"].as_str().is_some_and(is_test)
    });
    let told = tests.map(|(n, step)| {
        let ended = events
            .iter()
            .filter(|event| event["step"] == n)
            .find_map(|event| event["output"]["how"].as_str());
        Some(format!("{} {}", step["hook"]["name"].as_str()?, ended?))
    });
    let told: Option<Vec<String>> = told.collect();
    told.filter(|told| !told.is_empty()).map(|told| redact::line(&told.join("; "), &[]))
}

/// Whether a hook is called what runbooks call a test of what was started.
fn is_test(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["smoke", "login", "test"].iter().any(|word| name.contains(word))
}

/// A moment as a report writes it: `2026-11-29 14:02:15 UTC`.
pub(crate) fn moment(at: Timestamp) -> String {
    let millis = i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(millis).map_or_else(
        |_| "at an unknown time".to_owned(),
        |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
    )
}
