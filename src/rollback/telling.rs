//! A journal in words, for the people who ask what was done.

use serde_json::Value;

use super::journal::JournalEvent;
use crate::core::plan::Plan;

/// One sentence for each record, in order. A record that cannot be read is told as that.
pub fn tell(records: &[Value]) -> Vec<String> {
    let mut plan: Option<Plan> = None;
    let told = records.iter().map(|record| match serde_json::from_value::<JournalEvent>(record.clone()) {
        Ok(event) => {
            let sentence = sentence(&event, plan.as_ref());
            if let JournalEvent::Planned { plan: planned, .. } = event {
                plan = Some(*planned);
            }
            sentence
        }
        Err(e) => format!("unreadable: {e}"),
    });
    told.collect()
}

fn sentence(event: &JournalEvent, plan: Option<&Plan>) -> String {
    let step = |i: usize| {
        plan.and_then(|plan| plan.steps.get(i)).map_or_else(|| format!("step {i}"), ToString::to_string)
    };
    match event {
        JournalEvent::Planned { plan, request, .. } => {
            format!("planned: {} steps to {}", plan.steps.len(), request.to)
        }
        JournalEvent::Decided { .. } => "decided".into(),
        JournalEvent::Started { step: i } => format!("began: {}", step(*i)),
        JournalEvent::Succeeded { step: i, .. } => format!("done: {}", step(*i)),
        JournalEvent::Failed { step: i, message, .. } => format!("failed: {}: {message}", step(*i)),
        JournalEvent::UndoStarted { step: i } => format!("taking back: {}", step(*i)),
        JournalEvent::UndoFinished { step: i } => format!("taken back: {}", step(*i)),
        JournalEvent::UndoFailed { step: i, message } => {
            format!("could not be taken back: {}: {message}", step(*i))
        }
        JournalEvent::LeftAlone { step: i } => {
            format!("left alone, since something newer runs: {}", step(*i))
        }
        JournalEvent::Applied => "applied: the target runs".into(),
        JournalEvent::Ended { result } => match result {
            crate::core::Executed::Applied { .. } => "ended: applied".into(),
            crate::core::Executed::Void { why } => format!("ended before it began: {why}"),
            crate::core::Executed::Unwound { why } => format!("ended and undone: {why}"),
            crate::core::Executed::Stuck { why } => format!("ended, a person is needed: {why}"),
        },
        JournalEvent::Closed { how } => format!("closed: {how}"),
    }
}
