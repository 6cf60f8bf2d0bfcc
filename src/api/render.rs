//! From the core's types to the API's: the only place that knows both.

use std::time::Duration;

use crate::core::Timestamp;
use crate::core::approval::{Approval, Said};
use crate::core::availability::{Availability, Gone};
use crate::core::decision::{Decision, GateAnswer};
use crate::core::ledger::{Flags, LedgerEntry, RollbackRecord, Standing};
use crate::core::observation::{ContainerHealth, Phase, Refusal, Replica};
use crate::core::release::Release;
use crate::core::sample::Signal;
use crate::core::settings::{Mode, OpenWindow, ServiceSettings};
use crate::core::snapshot::{RowSnapshot, SampleCounts, ServiceSnapshot};
use crate::rollback::drill::{Drill, Point};

use super::views::{
    ApprovalView, DecisionView, DrillPointView, DrillView, DrilledView, FlagsView, GateView, LedgerView,
    PauseView, RefusedView, ReleaseView, ReplicaView, RollbackView, RowView, SaidView, SampleView, Time,
    WindowView,
};
use super::windows;

/// A core timestamp for the outside.
pub(crate) fn time(at: Timestamp) -> Time {
    i64::try_from(at.as_millis())
        .ok()
        .and_then(|millis| Time::from_millisecond(millis).ok())
        .unwrap_or(Time::MAX)
}

/// A duration for the outside: seconds, to the millisecond.
pub(crate) fn seconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 1000.0).round() / 1000.0
}

impl From<&Release> for ReleaseView {
    fn from(release: &Release) -> Self {
        Self {
            id: release.id.to_string(),
            reference: release.reference.clone(),
            image: release.image.to_string(),
            digests: release.digests.clone(),
            fingerprint: release.fingerprint.clone(),
            version: release.version.clone(),
        }
    }
}

impl From<&Flags> for FlagsView {
    fn from(flags: &Flags) -> Self {
        Self {
            paused: flags.paused.as_ref().map(|pause| PauseView {
                by: pause.by.clone(),
                why: pause.why.clone(),
                since: time(pause.since),
                until: pause.until.map(time),
            }),
            stuck: flags.stuck.clone(),
        }
    }
}

impl From<&Refusal> for RefusedView {
    fn from(refusal: &Refusal) -> Self {
        Self {
            service: refusal.service.to_string(),
            container: refusal.container.clone(),
            problems: refusal.problems.clone(),
        }
    }
}

impl From<&GateAnswer> for GateView {
    fn from(answer: &GateAnswer) -> Self {
        Self { gate: answer.gate.name().to_owned(), allow: answer.allow, why: answer.why.clone() }
    }
}

impl From<&Decision> for DecisionView {
    fn from(decision: &Decision) -> Self {
        Self {
            at: time(decision.at),
            service: decision.service.to_string(),
            verdict: decision.verdict.name().to_owned(),
            rule: decision.rule.clone(),
            reason: decision.reason.kind().to_owned(),
            text: decision.reason.to_string(),
            severity: decision.severity.to_string(),
            from: decision.from.as_ref().map(Into::into),
            to: decision.to.as_ref().map(Into::into),
            gates: decision.gates.iter().map(Into::into).collect(),
            dry_run: decision.dry_run,
        }
    }
}

impl From<&RollbackRecord> for RollbackView {
    fn from(record: &RollbackRecord) -> Self {
        let span = |from: Option<Timestamp>, to: Option<Timestamp>| Some(seconds(to?.since(from?)));
        Self {
            id: record.id.to_string(),
            service: record.service.to_string(),
            environment: record.environment.clone(),
            from: record.from.as_ref().map(Into::into),
            to: (&record.to).into(),
            outcome: record.outcome.name().to_owned(),
            detail: record.outcome.detail().to_owned(),
            over: record.outcome.is_over(),
            decided_by: record.decided_by.clone(),
            along: record.along.iter().map(ToString::to_string).collect(),
            order: record.order.clone(),
            reason: record.decision.reason.kind().to_owned(),
            text: record.decision.reason.to_string(),
            severity: record.decision.severity.to_string(),
            onset: record.onset.map(time),
            started: time(record.started),
            applied: record.applied.map(time),
            ended: record.ended.map(time),
            onset_to_applied_seconds: span(record.onset, record.applied),
            decision_to_applied_seconds: span(Some(record.started), record.applied),
            duration_seconds: span(Some(record.started), record.ended),
            gates: record.decision.gates.iter().map(Into::into).collect(),
            approval: record.approval.as_deref().map(Into::into),
        }
    }
}

impl From<&Replica> for ReplicaView {
    fn from(replica: &Replica) -> Self {
        let (health, health_output) = match &replica.health {
            None => (None, None),
            Some(ContainerHealth::Starting) => (Some("starting"), None),
            Some(ContainerHealth::Healthy) => (Some("healthy"), None),
            Some(ContainerHealth::Unhealthy(output)) => (Some("unhealthy"), Some(output.clone())),
        };
        let phase = match replica.phase {
            Phase::Created => "created",
            Phase::Running => "running",
            Phase::Restarting => "restarting",
            Phase::Paused => "paused",
            Phase::Exited => "exited",
            Phase::Gone => "gone",
        };
        Self {
            id: replica.id.to_string(),
            name: replica.name.clone(),
            release: replica.release.id.to_string(),
            created: time(replica.created),
            started: replica.started.map(time),
            phase: phase.to_owned(),
            restart_count: replica.restart_count,
            health: health.map(str::to_owned),
            health_output,
            exit_code: replica.exit_code,
            start_error: replica.start_error.clone(),
            address: replica.address.map(|address| address.to_string()),
        }
    }
}

impl From<&(Signal, SampleCounts)> for SampleView {
    fn from((signal, counts): &(Signal, SampleCounts)) -> Self {
        Self {
            signal: signal.name().to_owned(),
            healthy: counts.healthy,
            unhealthy: counts.unhealthy,
            error: counts.error,
        }
    }
}

impl RowView {
    pub(crate) fn new(row: &RowSnapshot, settings: &ServiceSettings, now: Timestamp) -> Self {
        let rule = settings.rules.iter().find(|rule| rule.name == row.rule);
        Self {
            rule: row.rule.clone(),
            signal: row.signal.name().to_owned(),
            condition: row.condition.name().to_owned(),
            value: row.value.clone(),
            threshold: rule.map_or_else(
                || row.threshold.clone(),
                |rule| windows::limit(rule, settings.profile, &row.threshold),
            ),
            baseline: row.baseline.clone(),
            samples: row.samples,
            since: row.since.map(time),
            for_seconds: row.since.map(|since| seconds(now.since(since))),
            sustained_seconds: rule.map(|rule| seconds(rule.sustained)),
            answer: row.answer.name().to_owned(),
            action: row.action.to_string(),
            severity: row.severity.to_string(),
        }
    }
}

impl From<&Approval> for ApprovalView {
    fn from(approval: &Approval) -> Self {
        Self {
            id: approval.id.to_string(),
            ask: approval.ask.name().to_owned(),
            open: approval.is_open(),
            reason: approval.decision.reason.to_string(),
            asked: time(approval.asked),
            deadline: approval.deadline().map(time),
            needed: approval.needed,
            approvals: approval.approvals(),
            said: approval.said.iter().map(Into::into).collect(),
        }
    }
}

impl From<&Said> for SaidView {
    fn from(said: &Said) -> Self {
        let word = said.word.name().to_owned();
        Self { at: time(said.at), by: said.who(), word, why: said.why.clone() }
    }
}

impl From<&Drill> for DrillView {
    fn from(drill: &Drill) -> Self {
        let point = |point: &Point| DrillPointView {
            what: point.what.clone(),
            verdict: point.verdict.name().to_owned(),
            detail: point.detail.clone(),
        };
        Self {
            service: drill.service.to_string(),
            at: time(drill.at),
            ready: drill.is_ready(),
            score: drill.score(),
            estimate_seconds: drill.estimate.map(seconds),
            points: drill.points.iter().map(point).collect(),
        }
    }
}

impl From<&Drill> for DrilledView {
    fn from(drill: &Drill) -> Self {
        let missing = drill.missing().map(ToString::to_string).collect();
        Self { at: time(drill.at), score: drill.score(), missing }
    }
}

impl From<&OpenWindow> for WindowView {
    fn from(window: &OpenWindow) -> Self {
        Self {
            name: window.name.clone(),
            kind: window.kind.name().to_owned(),
            until: time(window.until),
            why: window.why.clone(),
        }
    }
}

/// What a release was before we made it anew.
fn earlier(entry: &LedgerEntry, service: &ServiceSnapshot) -> Vec<String> {
    let taken = service.flags.mitigated.iter().filter(|taken| taken.release == entry.release.id);
    taken.filter_map(|taken| Some(taken.was.as_ref()?.id.to_string())).collect()
}

impl LedgerView {
    pub(crate) fn new(entry: &LedgerEntry, service: &ServiceSnapshot) -> Self {
        let is = |release: Option<&Release>| release.is_some_and(|release| release.id == entry.release.id);
        // What an earlier process found out holds until it is asked again.
        let gone = |gone: &Gone| (gone.since, Availability::Gone { why: gone.why.clone() });
        let known = service.availability.get(&entry.release.id).cloned();
        let known = known.or(entry.gone.as_ref().map(gone));
        let (at, availability) = known.unzip();
        let (since, why) = match &entry.standing {
            Standing::Trial => (None, None),
            Standing::KnownGood { since } => (Some(*since), None),
            Standing::Quarantined { since, why } => (Some(*since), Some(why.clone())),
        };
        Self {
            release: (&entry.release).into(),
            first_seen: time(entry.first_seen),
            deployed: time(entry.deployed),
            standing: entry.standing.name().to_owned(),
            standing_since: since.map(time),
            why,
            origin: entry.note.as_ref().and_then(|note| note.origin()),
            earlier: earlier(entry, service),
            current: is(service.current.as_ref()),
            target: is(service.target.as_ref()),
            availability_why: availability.as_ref().and_then(Availability::why).map(str::to_owned),
            availability: availability.map(|availability| availability.name().to_owned()),
            availability_at: at.map(time),
        }
    }
}

/// A mode's name, as in the configuration.
pub(crate) const fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Act => "act",
        Mode::DryRun => "dry-run",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_and_never_fail() {
        let json = |ms| serde_json::to_string(&time(Timestamp::from_millis(ms))).unwrap();
        assert_eq!(json(1_795_208_400_000), "\"2026-11-20T21:00:00Z\"");
        assert_eq!(json(1_795_208_400_250), "\"2026-11-20T21:00:00.25Z\"");
        assert!(json(u64::MAX).starts_with("\"9999-12-30"));
    }
}
