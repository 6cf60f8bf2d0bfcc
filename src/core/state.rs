//! The states of a service and the one table of moves between them. The diagram in `ARCHITECTURE.md` is drawn from
//! this table by a test, so it cannot rot.

use serde::{Deserialize, Serialize};

/// The state of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    /// A new release is proving itself.
    Trial,
    /// The release proved itself.
    Steady,
    /// A rule is pending or breached.
    Suspect,
    /// A rule is breached, and people are asked before anything is done.
    AwaitingApproval,
    /// The plan is being carried out.
    RollingBack,
    /// The target runs and has to pass every rule.
    Verifying,
    /// A rollback ended; no other one for a while.
    CoolingDown,
    /// We cannot measure.
    Blind,
    /// A person stopped us.
    Paused,
    /// A person is needed.
    Stuck,
}

impl State {
    /// All states, in lifecycle order.
    pub const ALL: [Self; 10] = [
        Self::Trial,
        Self::Steady,
        Self::Suspect,
        Self::AwaitingApproval,
        Self::RollingBack,
        Self::Verifying,
        Self::CoolingDown,
        Self::Blind,
        Self::Paused,
        Self::Stuck,
    ];

    /// The name used in metrics, the API and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trial => "trial",
            Self::Steady => "steady",
            Self::Suspect => "suspect",
            Self::AwaitingApproval => "awaiting_approval",
            Self::RollingBack => "rolling_back",
            Self::Verifying => "verifying",
            Self::CoolingDown => "cooling_down",
            Self::Blind => "blind",
            Self::Paused => "paused",
            Self::Stuck => "stuck",
        }
    }

    /// Whether a rollback is in flight: the executor or the verification owns the service.
    pub const fn in_flight(self) -> bool {
        matches!(self, Self::RollingBack | Self::Verifying)
    }

    /// Where `event` leads from here; none if it is not a legal move.
    pub fn after(self, event: Event) -> Option<Self> {
        TRANSITIONS.iter().find(|(from, e, _)| *from == self && *e == event).map(|(_, _, to)| *to)
    }
}

/// What moves a service from one state to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// Another release appeared.
    Deployed,
    /// The release passed its trial and its specification is kept.
    Promoted,
    /// A rule is pending.
    Suspected,
    /// No rule is pending any more; the release is known-good.
    Cleared,
    /// No rule is pending any more; the release is on trial.
    ClearedOnTrial,
    /// People are asked whether to roll back.
    Asked,
    /// They said no, or nobody answered.
    Answered,
    /// A rule is breached and every gate allows it; or an operator asked.
    Decided,
    /// The target was started.
    Applied,
    /// The rollback did not begin, or was undone.
    Undone,
    /// The target passed every rule.
    Verified,
    /// The target did not pass, and there is an older one.
    TriedNext,
    /// The cooldown is over.
    CooledDown,
    /// Measuring failed for too long.
    Blinded,
    /// An operator paused.
    Paused,
    /// No known-good release is left, a rollback could not be undone, or it could not be proved.
    Helpless,
}

impl Event {
    /// The name used in the diagram.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deployed => "deployed",
            Self::Promoted => "promoted",
            Self::Suspected => "suspected",
            Self::Cleared => "cleared",
            Self::ClearedOnTrial => "cleared on trial",
            Self::Asked => "asked",
            Self::Answered => "answered",
            Self::Decided => "decided",
            Self::Applied => "applied",
            Self::Undone => "undone",
            Self::Verified => "verified",
            Self::TriedNext => "tried next",
            Self::CooledDown => "cooled down",
            Self::Blinded => "blinded",
            Self::Paused => "paused",
            Self::Helpless => "helpless",
        }
    }
}

/// Every legal move. `Deployed` is missing for `RollingBack` only: there the executor finds out first.
pub const TRANSITIONS: &[(State, Event, State)] = {
    use Event as E;
    use State as S;
    &[
        (S::Trial, E::Deployed, S::Trial),
        (S::Trial, E::Promoted, S::Steady),
        (S::Trial, E::Suspected, S::Suspect),
        (S::Trial, E::Decided, S::RollingBack),
        (S::Trial, E::Blinded, S::Blind),
        (S::Trial, E::Paused, S::Paused),
        (S::Steady, E::Deployed, S::Trial),
        (S::Steady, E::Suspected, S::Suspect),
        (S::Steady, E::Decided, S::RollingBack),
        (S::Steady, E::Blinded, S::Blind),
        (S::Steady, E::Paused, S::Paused),
        (S::Suspect, E::Deployed, S::Trial),
        (S::Suspect, E::Cleared, S::Steady),
        (S::Suspect, E::ClearedOnTrial, S::Trial),
        (S::Suspect, E::Asked, S::AwaitingApproval),
        (S::Suspect, E::Decided, S::RollingBack),
        (S::Suspect, E::Blinded, S::Blind),
        (S::Suspect, E::Paused, S::Paused),
        (S::Suspect, E::Helpless, S::Stuck),
        (S::AwaitingApproval, E::Deployed, S::Trial),
        (S::AwaitingApproval, E::Cleared, S::Steady),
        (S::AwaitingApproval, E::ClearedOnTrial, S::Trial),
        (S::AwaitingApproval, E::Answered, S::Suspect),
        (S::AwaitingApproval, E::Decided, S::RollingBack),
        (S::AwaitingApproval, E::Blinded, S::Blind),
        (S::AwaitingApproval, E::Paused, S::Paused),
        (S::AwaitingApproval, E::Helpless, S::Stuck),
        (S::RollingBack, E::Applied, S::Verifying),
        (S::RollingBack, E::Undone, S::Suspect),
        (S::RollingBack, E::Helpless, S::Stuck),
        (S::Verifying, E::Deployed, S::Trial),
        (S::Verifying, E::Verified, S::CoolingDown),
        (S::Verifying, E::TriedNext, S::RollingBack),
        (S::Verifying, E::Helpless, S::Stuck),
        (S::CoolingDown, E::Deployed, S::Trial),
        (S::CoolingDown, E::CooledDown, S::Steady),
        (S::CoolingDown, E::Suspected, S::Suspect),
        (S::CoolingDown, E::Decided, S::RollingBack),
        (S::CoolingDown, E::Blinded, S::Blind),
        (S::CoolingDown, E::Paused, S::Paused),
        (S::Blind, E::Deployed, S::Trial),
        (S::Blind, E::Cleared, S::Steady),
        (S::Blind, E::ClearedOnTrial, S::Trial),
        (S::Blind, E::Decided, S::RollingBack),
        (S::Blind, E::Paused, S::Paused),
        (S::Paused, E::Cleared, S::Steady),
        (S::Paused, E::ClearedOnTrial, S::Trial),
        (S::Paused, E::Deployed, S::Paused),
        (S::Paused, E::Decided, S::RollingBack),
        (S::Paused, E::Helpless, S::Stuck),
        (S::Stuck, E::Deployed, S::Trial),
        (S::Stuck, E::Cleared, S::Steady),
        (S::Stuck, E::ClearedOnTrial, S::Trial),
        (S::Stuck, E::Decided, S::RollingBack),
        (S::Stuck, E::Paused, S::Paused),
    ]
};

/// The table as a Mermaid state diagram.
pub fn diagram() -> String {
    let mut out = String::from("stateDiagram-v2\n    [*] --> trial\n");
    for (from, event, to) in TRANSITIONS {
        out.push_str(&format!("    {} --> {}: {}\n", from.name(), to.name(), event.name()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_move_is_listed_twice() {
        for (i, (from, event, _)) in TRANSITIONS.iter().enumerate() {
            let same = TRANSITIONS.iter().skip(i + 1).any(|(f, e, _)| f == from && e == event);
            assert!(!same, "{from:?} has two moves for {event:?}");
        }
    }

    #[test]
    fn every_state_can_be_left_and_reached() {
        for state in State::ALL {
            assert!(
                TRANSITIONS.iter().any(|(from, _, to)| *from == state && *to != state),
                "{state:?} is a trap"
            );
            assert!(TRANSITIONS.iter().any(|(_, _, to)| *to == state), "{state:?} is never reached");
        }
    }

    #[test]
    fn a_rollback_in_flight_is_neither_paused_nor_judged_anew() {
        for state in [State::RollingBack, State::Verifying] {
            for event in [Event::Paused, Event::Suspected, Event::Decided, Event::Blinded] {
                assert_eq!(state.after(event), None);
            }
        }
    }
}
