//! What a service shows of itself: its picture, and one sentence for people.

use std::sync::Arc;

use super::assess::{Finding, Scene, assess};
use super::decision::{GateAnswer, Reason};
use super::observation::Phase;
use super::sample::Signal;
use super::service::Service;
use super::settings::{Action, WindowKind};
use super::snapshot::{RowAnswer, ServiceSnapshot};
use super::state::State;
use super::surroundings::Surroundings;
use super::time::{Timestamp, human};

impl Service {
    /// The picture of this service.
    pub(crate) fn snapshot(&self, now: Timestamp, around: Surroundings<'_>) -> ServiceSnapshot {
        let findings =
            self.since_first(assess(&self.settings.rules, Scene { aloud: true, ..self.scene(now) }));
        let worst = findings
            .iter()
            .find(|f| f.answer == RowAnswer::Breached)
            .or(findings.iter().find(|f| f.crossed()));
        let asks = worst.filter(|f| f.rule.action == Action::Rollback).map(|f| f.rule.severity);
        let gates = self.ask(now, worst.map(Finding::symptom), asks, around);
        ServiceSnapshot {
            name: self.name.clone(),
            settings: Arc::clone(&self.settings),
            state: self.state,
            since: self.since,
            sentence: self.sentence(now, worst, &gates, around),
            window: around.windows.iter().find(|window| window.covers(&self.name)).cloned(),
            current: self.current.clone(),
            deployed: self.current.as_ref().map(|_| self.deployed),
            target: self.target().ok().cloned(),
            downgrade: self.target().ok().and_then(|target| self.downgrade(target)),
            replicas: self.replicas.clone(),
            ledger: self.ledger.clone(),
            availability: self
                .checked
                .iter()
                .filter_map(|(id, c)| Some((id.clone(), c.answer.clone()?)))
                .collect(),
            rows: findings.iter().map(Finding::row).collect(),
            gates,
            last_decision: self.last_decision.clone(),
            rollback: self.rollback.clone(),
            pin: self.pin().cloned(),
            flags: self.flags.clone(),
            samples: Signal::ALL
                .iter()
                .map(|s| (*s, self.counts.get(s).copied().unwrap_or_default()))
                .collect(),
        }
    }

    /// What is going on, in one sentence.
    fn sentence(
        &self,
        now: Timestamp,
        worst: Option<&Finding<'_>>,
        gates: &[GateAnswer],
        around: Surroundings<'_>,
    ) -> String {
        let current = self.current.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string);
        let flagged = self.flags.paused.is_some() || self.flags.stuck.is_some();
        if self.mixed.is_some() && !self.state.in_flight() && !flagged {
            return "not judged: its replicas differ in image or configuration".into();
        }
        let refused = self.refused.clone().map(|earlier| Reason::Refused { earlier });
        let symptom = || {
            let reason = worst.and_then(|f| f.reason.as_ref()).or(refused.as_ref());
            reason.map_or_else(String::new, ToString::to_string)
        };
        // As long as a row is only pending, nothing is held.
        let decided = refused.is_some() || worst.is_some_and(|f| f.answer == RowAnswer::Breached);
        let held = || match gates.iter().find(|gate| !gate.allow) {
            Some(denial) if decided => format!("; not rolled back: {}", denial.why),
            _ => String::new(),
        };
        match self.state {
            State::Trial | State::Steady if self.replicas.is_empty() => {
                "nothing runs: somebody removed it".into()
            }
            State::Trial | State::Steady if self.was_stopped() => {
                format!("nothing runs: {current} was stopped, or ended without an error")
            }
            State::Trial if now < self.trial_ends => {
                format!("{current} is on trial for another {}", human(self.trial_ends.since(now)))
            }
            State::Trial => match self.proof(now) {
                Ok(()) => format!("{current} has passed its trial; its specification is being kept"),
                Err(missing) => format!("{current} stays on trial: {missing}"),
            },
            State::Steady => format!("{current} is known-good"),
            State::Suspect => match self.under_way() {
                Some(what) => format!("{current}: instead of a rollback, for now: {}", what.intent()),
                None if self.is_settling(now) => {
                    format!("{current} was treated just now; what is seen from here on counts")
                }
                None => format!("{current}: {}{}", symptom(), held()),
            },
            State::AwaitingApproval => match gates.iter().find(|gate| !gate.allow) {
                Some(denial) => format!(
                    "{current}: {}; {}; next: backstop approve {} or backstop cancel {}",
                    symptom(),
                    denial.why,
                    self.name,
                    self.name
                ),
                None => format!("{current}: {}", symptom()),
            },
            State::RollingBack => format!("rolling back from {current}"),
            State::Verifying => format!("{current} was put back and is being verified"),
            State::CoolingDown => format!("{current} was put back and proved"),
            State::Blind => format!("{current} cannot be judged: what it is judged by cannot be measured"),
            State::Paused => match &self.flags.paused {
                Some(p) => format!("{p}; next: backstop resume {}", self.name),
                None => match around.window(&self.name, WindowKind::Maintenance) {
                    Some(window) if around.flags.paused.is_none() => format!("not judged: it is in {window}"),
                    _ => "paused with the whole fleet; next: backstop resume".into(),
                },
            },
            State::Stuck => format!(
                "a person is needed: {}; next: backstop explain {}, then backstop resume {}",
                self.flags.stuck.as_deref().unwrap_or("see the announcement"),
                self.name,
                self.name
            ),
        }
    }

    /// Every replica has ended as it was asked to, or without an error: no row is breached, and nothing serves.
    fn was_stopped(&self) -> bool {
        self.replicas
            .iter()
            .all(|replica| replica.phase == Phase::Exited && !self.exits.crashed.contains_key(&replica.id))
    }
}
