//! The daemon's own record: replayed, and compared with what the daemon did.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Line;
use crate::core::decision::Decision;
use crate::core::io::{Effect, Input};
use crate::core::observation::{Look, Observation};
use crate::core::settings::ServiceSettings;
use crate::core::{Fleet, Timestamp};
use crate::flight::reader::{Damage, Segment, segments};
use crate::flight::{Entry, Seen, Told};

/// So many remarks are kept; the rest is counted.
const REMARKS_MAX: usize = 50;

/// What came of it.
#[derive(Debug, Default)]
pub struct Account {
    /// Every decision that the core takes now, with Unix time.
    pub lines: Vec<Line>,
    /// From when until when the record speaks.
    pub span: Option<(Timestamp, Timestamp)>,
    /// Turns that were replayed.
    pub turns: u64,
    /// Decisions that were recorded.
    pub recorded: u64,
    /// Where the core did not do again what it did then: the first time, for people.
    pub difference: Option<String>,
    /// What is missing from the record, or is damaged, for people.
    pub remarks: Vec<String>,
    /// The versions of the program that wrote it, in order.
    pub versions: Vec<String>,
    /// It was judged by other settings than those that were in force, and not compared.
    pub anew: bool,
}

impl Account {
    pub(super) fn remark(&mut self, what: String) {
        if self.remarks.len() < REMARKS_MAX {
            self.remarks.push(what);
        }
    }

    fn differs(&mut self, what: impl FnOnce() -> String) {
        if self.difference.is_none() {
            self.difference = Some(what());
        }
    }

    /// A turn in which so much was decided then.
    pub(super) fn turned(&mut self, at: Timestamp, decided: usize) {
        self.turns += 1;
        self.recorded += decided as u64;
        self.passes(at);
    }

    pub(super) fn damaged(&mut self, name: &str, damage: &Damage) {
        let (bytes, at, what) = (damage.bytes, damage.at, &damage.what);
        self.remark(format!("{name}: its last {bytes} bytes, from byte {at} on, are of no use: {what}"));
    }

    fn passes(&mut self, at: Timestamp) {
        let from = self.span.map_or(at, |(from, _)| from);
        self.span = Some((from, at));
    }
}

/// Replays a directory of segments, or one segment.
///
/// # Errors
/// If it cannot be read. What is damaged or missing in it is told in the account.
pub fn replay(path: &Path) -> io::Result<Account> {
    replay_with(path, &mut |_, _| {})
}

/// The same, and shows what follows from each turn.
///
/// # Errors
/// As [`replay`].
pub fn replay_with(path: &Path, see: &mut dyn FnMut(Timestamp, &[Effect])) -> io::Result<Account> {
    let mut account = Account::default();
    let mut before: Option<Fleet> = None;
    for path in segments_of(path)? {
        before = match Segment::open(&path) {
            Ok(segment) => one(&name(&path), segment, before.take(), &mut account, see)?,
            // The daemon drops the oldest while we read.
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
    }
    Ok(account)
}

/// The segments meant: those of a directory, or one.
pub(super) fn segments_of(path: &Path) -> io::Result<Vec<PathBuf>> {
    if path.is_dir() { segments(path) } else { Ok(vec![path.to_owned()]) }
}

pub(super) fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// One segment. Gives the core as it is at its end, if the segment is whole.
fn one(
    name: &str,
    mut segment: Segment,
    before: Option<Fleet>,
    account: &mut Account,
    see: &mut dyn FnMut(Timestamp, &[Effect]),
) -> io::Result<Option<Fleet>> {
    let mut playing: Option<Fleet> = None;
    let mut settings: HashMap<u32, Arc<ServiceSettings>> = HashMap::new();
    while let Some(entry) = segment.entry()? {
        match entry {
            Entry::Checkpoint { at, version, follows, lost, fleet } => {
                begin(name, account, &Began { at, version, follows, lost, fleet: &fleet }, before.as_ref());
                playing = Some(*fleet);
            }
            Entry::Settings { id, settings: these } => {
                settings.insert(id, Arc::new(*these));
            }
            Entry::Turn { at, input, decided } => {
                let Some(fleet) = &mut playing else {
                    account.remark(format!("{name} does not begin with a checkpoint and is passed over"));
                    return Ok(None);
                };
                let Some(input) = told(*input, &settings) else {
                    account
                        .remark(format!("{name} names settings that are not in it; its rest is passed over"));
                    return Ok(None);
                };
                let effects = fleet.handle(at, input);
                see(at, &effects);
                turn(account, at, &effects, &decided);
            }
        }
    }
    if let Some(damage) = segment.damage() {
        account.damaged(name, damage);
        return Ok(None);
    }
    Ok(playing)
}

/// How a segment began.
pub(super) struct Began<'a> {
    pub(super) at: Timestamp,
    pub(super) version: String,
    pub(super) follows: bool,
    pub(super) lost: u64,
    pub(super) fleet: &'a Fleet,
}

pub(super) fn begin(name: &str, account: &mut Account, began: &Began<'_>, before: Option<&Fleet>) {
    account.passes(began.at);
    if account.versions.last() != Some(&began.version) {
        account.versions.push(began.version.clone());
    }
    if began.lost > 0 {
        account.remark(format!("before {name}, {} turns were not recorded: there is a gap", began.lost));
    }
    // The record goes on where the segment before ended: the core must have come to the same state.
    if let Some(before) = before.filter(|_| began.follows)
        && !same(before, began.fleet)
    {
        account.differs(|| {
            format!("at {:.3}, where {name} begins, the core's state is not what it was", seconds(began.at))
        });
    }
}

fn same(a: &Fleet, b: &Fleet) -> bool {
    matches!((rmp_serde::to_vec_named(a), rmp_serde::to_vec_named(b)), (Ok(a), Ok(b)) if a == b)
}

fn turn(account: &mut Account, at: Timestamp, effects: &[Effect], then: &[Decision]) {
    account.turned(at, then.len());
    let now: Vec<&Decision> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Decided(decision) => {
                let decision: &Decision = decision;
                Some(decision)
            }
            _ => None,
        })
        .collect();
    account.lines.extend(now.iter().map(|decision| Line::of_record(decision)));
    if now.len() == then.len() && now.iter().zip(then).all(|(now, then)| *now == then) {
        return;
    }
    account.differs(|| {
        let said = |decisions: &[&Decision]| match decisions {
            [] => "nothing".to_owned(),
            some => some
                .iter()
                .map(|d| format!("{} of {} ({})", d.verdict.name(), d.service, d.reason))
                .collect::<Vec<_>>()
                .join(" and "),
        };
        let then: Vec<&Decision> = then.iter().collect();
        format!("at {:.3} it decided {}, and now it decides {}", seconds(at), said(&then), said(&now))
    });
}

impl Line {
    /// The line for a decision of a record, with Unix time.
    pub(super) fn of_record(decision: &Decision) -> Self {
        Self::new(seconds(decision.at), decision)
    }
}

/// The input as the core got it.
pub(super) fn told(told: Told, settings: &HashMap<u32, Arc<ServiceSettings>>) -> Option<Input> {
    let seen = |seen: Seen| {
        let Seen { service, settings: id, asked, replicas } = seen;
        Some(Observation { service, settings: Arc::clone(settings.get(&id)?), asked, replicas })
    };
    Some(match told {
        Told::Looked { asked, engine, services, refused, after_gap } => {
            let services = services.into_iter().map(seen).collect::<Option<_>>()?;
            Input::Looked(Look { asked, engine, services, refused, after_gap })
        }
        Told::Observed(one) => Input::Observed(seen(one)?),
        Told::Input(input) => input,
    })
}

fn seconds(at: Timestamp) -> f64 {
    at.since(Timestamp::default()).as_secs_f64()
}
