//! Groups: services that are one release. They are judged together, and go back together or not at all.
//!
//! A member whose release has not proved itself goes back with whoever is rolled back; so does one that was deployed while
//! the other was on trial, or the other way round, since both became known-good as one. A member is rolled back for what
//! its deployment did to one that was not deployed. None becomes known-good before all of them have passed: what is
//! known-good then has been seen to work together.

use serde::{Deserialize, Serialize};

use super::decision::Reason;
use super::gate::Answer;
use super::release::ServiceName;
use super::service::Service;
use super::settings::{Condition, Group, Severity};
use super::state::State;
use super::surroundings::{Neighbour, Surroundings};
use super::time::Timestamp;

/// What a service has to say to those that it is one release with.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Companion {
    /// Its release has not proved itself.
    pub(crate) unproved: bool,
    /// Something of it runs that could go back.
    pub(crate) runs: bool,
    /// How long its release was, or would be, on trial if it were alone.
    pub(crate) trial_until: Timestamp,
    /// Why it cannot go back, if it cannot.
    pub(crate) obstacle: Option<String>,
    /// It acts, and does not only say so.
    pub(crate) acts: bool,
    /// Its own trial is over, and nothing speaks against it.
    pub(crate) passed: bool,
    /// What has been wrong with it although it was not deployed.
    pub(crate) complaint: Option<Complaint>,
}

/// A row of a member that was not deployed, breached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Complaint {
    pub(crate) reason: Reason,
    pub(crate) severity: Severity,
    pub(crate) condition: Condition,
    pub(crate) onset: Timestamp,
}

impl Service {
    /// What the others of its group need to know of it.
    pub(crate) fn companion(&self) -> Companion {
        Companion {
            unproved: self.is_unproved(),
            runs: self.runs_what_it_should(),
            trial_until: self.deployed + self.settings.trial,
            obstacle: self.obstacle(),
            acts: self.acts(),
            passed: self.state == State::Trial
                && self.last_turn >= self.trial_ends
                && self.proof(self.last_turn).is_ok(),
            complaint: self.complaint.clone().filter(|_| self.state == State::Suspect),
        }
    }

    /// Whether it runs, and its release has not proved itself.
    pub(crate) fn is_unproved(&self) -> bool {
        self.runs_what_it_should() && !self.current_is_known_good()
    }

    fn runs_what_it_should(&self) -> bool {
        self.seen && self.current.is_some() && !self.replicas.is_empty() && !self.state.in_flight()
    }

    /// Why it could not go back now, if it could not.
    fn obstacle(&self) -> Option<String> {
        if let Some(why) = &self.flags.stuck {
            return Some(why.clone());
        }
        if let Some(pause) = &self.flags.paused {
            return Some(pause.to_string());
        }
        if self.mixed.is_some() {
            return Some("its replicas differ".into());
        }
        match self.target() {
            Ok(target) => self.schema_gate(target).err(),
            Err(why) => Some(why.to_owned()),
        }
    }
}

impl Surroundings<'_> {
    /// The group of a service, if it is in one.
    pub(crate) fn group(&self, service: &ServiceName) -> Option<&Group> {
        self.settings.groups.iter().find(|group| group.services.contains(service))
    }

    /// The other members of its group, in the order in which they go back.
    pub(crate) fn companions(
        &self,
        service: &ServiceName,
    ) -> impl Iterator<Item = (&ServiceName, &Neighbour)> {
        let members = self.group(service).into_iter().flat_map(|group| &group.services);
        members.filter(move |name| *name != service).filter_map(|name| self.roster.get_key_value(name))
    }

    /// Those that go back with it.
    pub(crate) fn along(&self, service: &ServiceName) -> Vec<ServiceName> {
        let along = self.companions(service).filter(|(_, n)| self.is_one_with(service, n));
        along.map(|(name, _)| name.clone()).collect()
    }

    /// Whether a companion goes back with a service: it is new, or was when the service was.
    pub(crate) fn is_one_with(&self, service: &ServiceName, n: &Neighbour) -> bool {
        let together = |own: &Neighbour| {
            !own.undone
                && !n.undone
                && n.deployed < own.companion.trial_until
                && own.deployed < n.companion.trial_until
        };
        n.companion.runs && (n.companion.unproved || self.roster.get(service).is_some_and(together))
    }

    /// Whether two services are one release, and the second goes back with the first.
    pub(crate) fn goes_with(&self, service: &ServiceName, other: &ServiceName, n: &Neighbour) -> bool {
        self.group(service).is_some_and(|group| group.services.contains(other))
            && self.is_one_with(service, n)
    }

    /// The first of the others whose own trial goes on.
    pub(crate) fn still_on_trial(&self, service: &ServiceName) -> Option<&ServiceName> {
        let unproved = |n: &Neighbour| n.companion.unproved && !n.companion.passed;
        self.companions(service).find(|(_, n)| unproved(n)).map(|(name, _)| name)
    }

    /// What members that were not deployed suffer from since `deployed`.
    pub(crate) fn complaints(
        &self,
        service: &ServiceName,
        deployed: Timestamp,
    ) -> impl Iterator<Item = (&ServiceName, &Complaint)> {
        let all = self.companions(service);
        let told = all.filter_map(|(name, n)| n.companion.complaint.as_ref().map(|c| (name, c)));
        told.filter(move |(_, complaint)| complaint.onset >= deployed)
    }
}

/// All or nothing: whoever is one release with the service can go back as well.
pub(crate) fn together(service: &ServiceName, acts: bool, around: Surroundings<'_>) -> Answer {
    let Some(group) = around.group(service) else {
        return Ok("it is in no group".into());
    };
    let along: Vec<_> = around.companions(service).filter(|(_, n)| around.is_one_with(service, n)).collect();
    for (name, n) in &along {
        let dry_run = acts && !n.companion.acts;
        let obstacle = n.companion.obstacle.as_deref().or(dry_run.then_some("it is in dry-run mode"));
        if let Some(why) = obstacle {
            return Err(format!("{name}, of the group {}, cannot go back with it: {why}", group.name));
        }
    }
    let names: Vec<&str> = along.iter().map(|(name, _)| name.as_str()).collect();
    if names.is_empty() {
        return Ok(format!("nothing else of the group {} is new", group.name));
    }
    Ok(format!("{} of the group {} can go back with it", names.join(", "), group.name))
}
