//! The daemon's own record, judged by other settings than those that were in force: what would have been decided.
//!
//! Nothing is carried out, as in a plain trace: the core judges in dry-run mode. What ran and what was measured is as it
//! was recorded, after a rollback too, whether or not it would have been made.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::Line;
use super::record::{Account, Began, begin, name, segments_of, told};
use crate::core::io::{Effect, Executed, Input, RollbackRequest};
use crate::core::observation::Observation;
use crate::core::release::ServiceName;
use crate::core::settings::{FleetSettings, Mode, ServiceSettings};
use crate::core::{Fleet, Timestamp};
use crate::flight::Entry;
use crate::flight::reader::Segment;

/// Other settings, made of those that were in force.
pub trait Anew {
    /// A service's.
    ///
    /// # Errors
    /// They cannot hold together, as sentences.
    fn service(&self, name: &ServiceName, then: &ServiceSettings) -> Result<ServiceSettings, Vec<String>>;

    /// The fleet's.
    fn fleet(&self, then: &FleetSettings) -> FleetSettings;
}

/// Replays a directory of segments, or one segment, by other settings.
///
/// # Errors
/// If it cannot be read, or the settings cannot hold together. What is damaged or missing is told in the account.
pub fn replay_anew(path: &Path, anew: &dyn Anew) -> io::Result<Account> {
    let account = Account { anew: true, ..Account::default() };
    let mut world = World { anew, account, fleet: None, made: HashMap::new() };
    for path in segments_of(path)? {
        match Segment::open(&path) {
            Ok(segment) => world.segment(&name(&path), segment)?,
            // The daemon drops the oldest while we read.
            Err(e) if e.kind() == io::ErrorKind::NotFound => world.fleet = None,
            Err(e) => return Err(e),
        }
    }
    Ok(world.account)
}

/// Settings as they were recorded, and as they are now.
type Made = (Arc<ServiceSettings>, Arc<ServiceSettings>);

struct World<'a> {
    anew: &'a dyn Anew,
    account: Account,
    /// None where the record has a gap: the next checkpoint begins another one.
    fleet: Option<Fleet>,
    made: HashMap<ServiceName, Made>,
}

impl World<'_> {
    fn segment(&mut self, name: &str, mut segment: Segment) -> io::Result<()> {
        let mut settings = HashMap::new();
        let mut begun = false;
        while let Some(entry) = segment.entry()? {
            match entry {
                Entry::Checkpoint { at, version, follows, lost, fleet } => {
                    begun = true;
                    let began = Began { at, version, follows, lost, fleet: &fleet };
                    begin(name, &mut self.account, &began, None);
                    // What the core has come to by other settings goes on; the checkpoint has what it came to then.
                    if !follows || self.fleet.is_none() {
                        self.begin(at, *fleet)?;
                    }
                }
                Entry::Settings { id, settings: these } => {
                    settings.insert(id, Arc::new(*these));
                }
                Entry::Turn { at, input, decided } => {
                    let input = if begun { told(*input, &settings) } else { None };
                    let Some(input) = input else {
                        self.account.remark(format!(
                            "{name} lacks its beginning, or settings; its rest is passed over"
                        ));
                        self.fleet = None;
                        return Ok(());
                    };
                    self.account.turned(at, decided.len());
                    self.turn(at, input)?;
                }
            }
        }
        if let Some(damage) = segment.damage() {
            self.account.damaged(name, damage);
            self.fleet = None;
        }
        Ok(())
    }

    /// Takes up the core as it was, with the other settings.
    fn begin(&mut self, at: Timestamp, fleet: Fleet) -> io::Result<()> {
        let then = fleet.snapshot(at);
        self.fleet = Some(fleet);
        self.input(at, Input::Configured(self.anew.fleet(&then.settings)));
        // Where nothing is seen running, the next look tells.
        for service in then.services.into_iter().filter(|service| !service.replicas.is_empty()) {
            let settings = self.settings(&service.name, &service.settings)?;
            let seen = Observation { service: service.name, settings, asked: at, replicas: service.replicas };
            self.input(at, Input::Observed(seen));
        }
        Ok(())
    }

    fn settings(
        &mut self,
        name: &ServiceName,
        then: &Arc<ServiceSettings>,
    ) -> io::Result<Arc<ServiceSettings>> {
        if let Some((_, now)) = self.made.get(name).filter(|(known, _)| Arc::ptr_eq(known, then)) {
            return Ok(Arc::clone(now));
        }
        let now = self.anew.service(name, then).map_err(|problems| {
            io::Error::other(format!("the settings of {name} do not hold: {}", problems.join("; ")))
        })?;
        let now = Arc::new(ServiceSettings { mode: Mode::DryRun, prepare: false, ..now });
        self.made.insert(name.clone(), (Arc::clone(then), Arc::clone(&now)));
        Ok(now)
    }

    fn turn(&mut self, at: Timestamp, input: Input) -> io::Result<()> {
        let input = match input {
            Input::Looked(mut look) => {
                for seen in &mut look.services {
                    seen.settings = self.settings(&seen.service, &seen.settings)?;
                }
                Input::Looked(look)
            }
            Input::Observed(mut seen) => {
                seen.settings = self.settings(&seen.service, &seen.settings)?;
                Input::Observed(seen)
            }
            Input::Configured(then) => Input::Configured(self.anew.fleet(&then)),
            // It is answered when it is asked for, which may be at another time than it was then.
            Input::Protected { .. } => Input::Tick,
            as_it_was => as_it_was,
        };
        self.input(at, input);
        Ok(())
    }

    /// One input, and what follows from it.
    fn input(&mut self, at: Timestamp, input: Input) {
        let Some(fleet) = &mut self.fleet else { return };
        let mut waiting = VecDeque::from([input]);
        while let Some(input) = waiting.pop_front() {
            for effect in fleet.handle(at, input) {
                match effect {
                    Effect::Decided(decision) => self.account.lines.push(Line::of_record(&decision)),
                    Effect::Protect { service, release, .. } => {
                        waiting.push_back(Input::Protected { service, release: release.id, result: Ok(()) });
                    }
                    // Only what a person asked for: if it was done, what runs shows it.
                    Effect::RollBack(request) => waiting.push_back(unread(request)),
                    Effect::RollBackTogether(requests) => waiting.extend(requests.into_iter().map(unread)),
                    Effect::Prepare(_)
                    | Effect::Look
                    | Effect::Observe { .. }
                    | Effect::Remember(_)
                    | Effect::Unprotect { .. }
                    | Effect::CheckTarget { .. }
                    | Effect::AskSchema { .. }
                    | Effect::Discard { .. }
                    | Effect::Mitigate { .. }
                    | Effect::Close { .. }
                    | Effect::Unpin { .. }
                    | Effect::Announce(_)
                    | Effect::Reply { .. } => {}
                }
            }
        }
    }
}

/// Nothing is rolled back in a record: it is only read.
fn unread(request: RollbackRequest) -> Input {
    let (rollback, service) = (request.id, request.service);
    Input::Executed { rollback, service, result: Executed::Void { why: "a record is only read".into() } }
}
