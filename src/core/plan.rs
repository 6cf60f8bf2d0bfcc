//! Plans: what the executor will do, step by step, as data. A plan is persisted before its first step.

use serde::{Deserialize, Serialize};

/// See the executor. (To be filled.)
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The steps, in order.
    pub steps: Vec<Step>,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "step")]
pub enum Step {}

/// What a step yielded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepOutput {}
