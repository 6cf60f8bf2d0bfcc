//! Journals told to people: one sentence a record.

use serde::Deserialize;
use serde_json::Value;

use super::journal::JournalEvent;
use crate::core::Executed;
use crate::core::plan::{Step, StepOutput};

/// Lines of a hook's output in a journal that is told; all that was kept of it is in the journal itself.
const PRINTED: usize = 5;

/// A journal as it is stored, for people: one sentence a record, in the same order.
pub fn tell(records: &[Value]) -> Vec<String> {
    let mut steps: Vec<Step> = Vec::new();
    let tell_one = |record| match JournalEvent::deserialize(record) {
        Ok(event) => {
            if let JournalEvent::Planned { plan, .. } = &event {
                steps.clone_from(&plan.steps);
            }
            sentence(&event, &steps)
        }
        Err(e) => format!("a record that cannot be read: {e}"),
    };
    records.iter().map(tell_one).collect()
}

fn sentence(event: &JournalEvent, steps: &[Step]) -> String {
    let step = |step: &usize| steps.get(*step).map_or_else(|| format!("step {step}"), ToString::to_string);
    let is_hook = |step: &usize| matches!(steps.get(*step), Some(Step::RunHook { .. }));
    match event {
        JournalEvent::Planned { plan, request, .. } => {
            let from = plan.from.as_ref().map_or_else(|| "nothing".into(), ToString::to_string);
            format!("planned the way from {from} to {}, {} steps", request.to, plan.steps.len())
        }
        JournalEvent::Decided { .. } => "decided: carrying it out".into(),
        JournalEvent::Started { step: s } => format!("begun: {}", step(s)),
        JournalEvent::Succeeded { step: s, output: StepOutput::Stopped { how } } => {
            format!("done: {} ({how})", step(s))
        }
        JournalEvent::Succeeded { step: s, output: StepOutput::Hook { how, printed: output } } => {
            format!("done: {} ({how}){}", step(s), printed(output))
        }
        JournalEvent::Succeeded { step: s, .. } => format!("done: {}", step(s)),
        JournalEvent::Failed { step: s, message, output, .. } => {
            format!("failed: {}: {message}{}", step(s), printed(output))
        }
        JournalEvent::UndoStarted { step: s } if is_hook(s) => format!("clearing up after: {}", step(s)),
        JournalEvent::UndoFinished { step: s } if is_hook(s) => {
            format!("what it did stays done: {}", step(s))
        }
        JournalEvent::UndoStarted { step: s } => format!("taking back: {}", step(s)),
        JournalEvent::UndoFinished { step: s } => format!("taken back: {}", step(s)),
        JournalEvent::UndoFailed { message, .. } => message.clone(),
        JournalEvent::LeftAlone { step: s } => {
            format!("not taken back, because a newer deployment runs: {}", step(s))
        }
        JournalEvent::Applied => "applied: the target runs, and is verified now".into(),
        JournalEvent::Ended { result } => match result {
            Executed::Applied { .. } => "applied".into(),
            Executed::Void { why } => format!("did not begin: {why}"),
            Executed::Unwound { why } => format!("failed and was taken back: {why}"),
            Executed::Stuck { why } => format!("stuck, a person is needed: {why}"),
        },
        JournalEvent::Concluded { proved: true } => "proved".into(),
        JournalEvent::Concluded { proved: false } => "not proved".into(),
        JournalEvent::Closed { how } => format!("closed: {how}"),
    }
}

/// The last lines that a hook printed.
fn printed(output: &str) -> String {
    let lines: Vec<&str> = output.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(PRINTED)..).unwrap_or_default();
    if last.is_empty() { String::new() } else { format!("; it printed: {}", last.join(" | ")) }
}
