//! The steps of a rollback that are hooks: begun once, never taken back, and asked about after a crash.

use super::super::hooks::{self, Failed, HookCall, Ran};
use super::super::journal::{JournalEvent, StepStatus};
use super::{Saga, deadline};
use crate::core::plan::{Step, StepOutput};
use crate::runtime::ErrorClass;

/// What is said of a hook whose end nobody knows.
const CUT_OFF: &str = "backstop stopped while it ran; it may have been done in part or whole, and it is not run again because it is not \
     declared `repeatable`";

impl Saga {
    /// Runs a hook, unless it was begun by an earlier process and may not be begun twice: then whoever ran it is asked.
    pub(super) async fn run_hook(&mut self, step: usize) -> Result<(), String> {
        if self.state.is_settled(step) {
            return Ok(());
        }
        let name = self.state.plan.steps[step].to_string();
        let begun = self.state.steps[step] == StepStatus::Started;
        let durable = if begun { Ok(()) } else { self.record(JournalEvent::Started { step }).await };
        let ended = match durable {
            Ok(()) => {
                self.touched = true;
                self.call_hook(step, begun).await
            }
            Err(why) => Err(Failed::silently(why)),
        };
        let result = match ended {
            Ok(Ran { how, output }) => {
                let output = StepOutput::Hook { how, printed: output };
                match self.record(JournalEvent::Succeeded { step, output }).await {
                    Err(why) if !self.state.is_past_pivot() => {
                        Err(format!("went no further than to {name}: {why}"))
                    }
                    Ok(()) | Err(_) => Ok(()),
                }
            }
            Err(Failed { why: message, output }) => {
                let why = format!("could not {name}: {message}");
                let class = ErrorClass::Permanent;
                self.record_anyway(JournalEvent::Failed { step, class, message, output }).await;
                if self.state.is_shrugged_off(step) { Ok(()) } else { Err(why) }
            }
        };
        self.forget_hook(step).await;
        result
    }

    async fn call_hook(&self, step: usize, begun: bool) -> Result<Ran, Failed> {
        let Some(call) = self.hook_call(step) else {
            return Err(Failed::silently("it is no hook"));
        };
        let calling = async {
            if begun && !call.hook.repeatable {
                let ended = self.tools.hooks.take_up(&call).await;
                return ended.unwrap_or_else(|| Err(Failed::silently(CUT_OFF)));
            }
            if begun {
                self.tools.hooks.forget(&call).await;
            }
            self.tools.hooks.run(&call).await
        };
        let deadline = deadline(&self.state, &self.state.plan.steps[step]);
        tokio::time::timeout(deadline, calling)
            .await
            .unwrap_or_else(|_| Err(Failed::silently("it could not be ended when its time was over")))
    }

    fn hook_call(&self, step: usize) -> Option<HookCall<'_>> {
        let plan = &self.state.plan;
        let Some(Step::RunHook { hook, like, specification, expected }) = plan.steps.get(step) else {
            return None;
        };
        Some(HookCall {
            hook,
            like,
            specification: specification.as_ref(),
            expected: expected.as_deref(),
            plan,
            done: &self.state.outputs,
            values: hooks::values(&self.state, hook),
        })
    }

    pub(super) async fn forget_hook(&self, step: usize) {
        if let Some(call) = self.hook_call(step) {
            self.tools.hooks.forget(&call).await;
        }
    }

    /// What is left of hooks that were begun: a crash may have come before it was cleared away.
    pub(super) async fn forget_hooks(&self) {
        for (step, status) in self.state.steps.iter().enumerate() {
            if *status != StepStatus::Pending {
                self.forget_hook(step).await;
            }
        }
    }
}
