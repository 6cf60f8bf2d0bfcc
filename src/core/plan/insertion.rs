//! Putting steps into a plan that was made without them.

use super::{Plan, Step};
use crate::settings::Hook;

/// The part of a plan that a step is put into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Before the pivot: what comes before it is undone if it fails.
    Acting,
    /// After the pivot, before verification.
    Applied,
    /// After verification.
    Closing,
}

impl Plan {
    /// The hook that a step runs, if it is one.
    pub fn hook(&self, step: usize) -> Option<&Hook> {
        match self.steps.get(step) {
            Some(Step::RunHook { hook, .. }) => Some(hook),
            Some(_) | None => None,
        }
    }

    /// Puts a step into a part of the plan, at this index. Steps that name others by their index go on naming the same.
    pub fn insert(&mut self, at: usize, part: Part, step: Step) {
        for other in &mut self.steps {
            if let Some(index) = other.refers_to()
                && *index >= at
            {
                *index += 1;
            }
        }
        self.steps.insert(at, step);
        self.pivot += usize::from(part == Part::Acting);
        self.close += usize::from(part != Part::Closing);
    }

    /// Has all containers of the bad release stopped before anything of the target is started. Yields the index at which
    /// nothing runs. For plans in which the target does not run beside them.
    pub fn stop_all_first(&mut self) -> usize {
        // Whatever is named by its index stays where it is.
        let created = |step: &Step| matches!(step, Step::CreateReplacement { .. });
        let begin =
            self.steps[..self.pivot].iter().rposition(created).map_or(0, |last| last + 1).max(self.prepare);
        let acting = self.steps.drain(begin..self.pivot).collect::<Vec<_>>();
        let stops = |step: &Step| matches!(step, Step::DisarmOld { .. } | Step::StopOld { .. });
        let (mut first, rest): (Vec<Step>, Vec<Step>) = acting.into_iter().partition(stops);
        let at = begin + first.len();
        first.extend(rest);
        self.steps.splice(begin..begin, first);
        at
    }
}

impl Step {
    /// The index of another step that this one names.
    fn refers_to(&mut self) -> Option<&mut usize> {
        match self {
            Self::TakeName { created, .. }
            | Self::StartNew { created, .. }
            | Self::AwaitRunning { created, .. } => Some(created),
            Self::UpProject { checked, .. }
            | Self::UpdateService { checked, .. }
            | Self::AwaitConverged { checked, .. } => Some(checked),
            Self::EnsureImage { .. }
            | Self::ProbeOld { .. }
            | Self::CreateReplacement { .. }
            | Self::DisarmOld { .. }
            | Self::StopOld { .. }
            | Self::SetAsideOld { .. }
            | Self::SaveEvidence { .. }
            | Self::PointTag { .. }
            | Self::PinProject { .. }
            | Self::CheckCompose { .. }
            | Self::RestartDependants { .. }
            | Self::RemakeDependants { .. }
            | Self::RemoveOld { .. }
            | Self::CheckService { .. }
            | Self::RunHook { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::plan::Specification;
    use crate::release::{ImageId, Release, ReleaseId, ReplicaId, RollbackId, ServiceName};

    /// As for a service of Compose, whose replacement is created after the decision.
    fn composed() -> Plan {
        let (container, name) = (ReplicaId::new("c1"), String::from("shop"));
        let release = Release {
            id: ReleaseId::new("good"),
            image: ImageId::new("sha256:good"),
            reference: "shop:v1".into(),
            digests: Vec::new(),
            fingerprint: String::new(),
            version: None,
        };
        let grace = Duration::from_secs(3);
        let (temp_name, specification) = (String::from("new"), Specification::new("{}"));
        let steps = vec![
            Step::ProbeOld { container: container.clone(), name: name.clone() },
            Step::CreateReplacement {
                name: name.clone(),
                temp_name: temp_name.clone(),
                old: None,
                specification,
            },
            Step::DisarmOld { container: container.clone(), name: name.clone() },
            Step::StopOld { container, name: name.clone(), grace, was_running: true, replaced: false },
            Step::TakeName { created: 1, temp_name, name: name.clone() },
            Step::StartNew { created: 1, name, beside: false },
        ];
        Plan {
            id: RollbackId::new("1"),
            service: ServiceName::new("shop"),
            from: None,
            to: release,
            prepare: 1,
            pivot: steps.len(),
            close: steps.len(),
            steps,
            notes: Vec::new(),
            order: None,
        }
    }

    #[test]
    fn steps_that_name_others_go_on_naming_the_same() {
        let (mut plan, evidence) =
            (composed(), Step::SaveEvidence { container: ReplicaId::new("c1"), name: "shop".into() });
        assert_eq!(plan.stop_all_first(), 4, "what is created stays before what is stopped");
        plan.insert(plan.prepare, Part::Acting, evidence.clone());
        plan.insert(plan.close, Part::Applied, evidence.clone());
        plan.insert(plan.steps.len(), Part::Closing, evidence);
        assert_eq!((plan.prepare, plan.pivot, plan.close, plan.steps.len()), (1, 7, 8, 9));
        let named: Vec<usize> = plan.steps.iter_mut().filter_map(|step| step.refers_to().copied()).collect();
        assert_eq!(named, [2, 2]);
        assert_eq!(plan.steps[2].name(), "create_replacement");
    }
}
