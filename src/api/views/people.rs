//! What people are asked and answer, what they say of deployments, and what they find out in drills.

use serde::{Deserialize, Serialize};

use super::{ReleaseView, Time};
use crate::core::migration::SchemaChange;

/// Body of `POST /api/v1/services/NAME/approve` and `.../cancel`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerRequestBody {
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Who; `operator` if absent. With a token of one's own, that is whose name is written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// Body of `POST /api/v1/services/NAME/extend`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtendRequestBody {
    /// How much later, `30m` or `2h`.
    #[serde(rename = "for")]
    pub span: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Who; `operator` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// Body of `POST /hooks/deploy`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployRequestBody {
    /// Which service is deployed.
    pub service: String,
    /// What is deployed: its reference, tag or version, or a digest.
    pub release: String,
    /// The commit that it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Who wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// What it does to the schema of the database: `none`, `additive` or `breaking`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<SchemaChange>,
    /// The pipeline that deploys it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Who says so; `deploy hook` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// Body of `POST /api/v1/services/NAME/unquarantine`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseQuarantineBody {
    /// Which release: its id or its reference.
    pub release: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Who; `operator` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// Body of `POST /api/v1/rollbacks/ID/checklist/ITEM`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TickRequestBody {
    /// What there is to say about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Who; `operator` if absent. With a token of one's own, that is whose name is written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// Body of `POST /api/v1/rollbacks/ID/checklist/ITEM/untick`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UntickRequestBody {
    /// Who; `operator` if absent. With a token of one's own, that is whose name is written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// Answer to `POST /api/v1/services/NAME/drill`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillView {
    /// Of which service.
    pub service: String,
    /// When.
    pub at: Time,
    /// Whether nothing is missing.
    pub ready: bool,
    /// The share of what is ready, from 0 to 1; what is weak counts half.
    pub score: f64,
    /// From the decision until the target is started, about.
    pub estimate_seconds: Option<f64>,
    /// What was looked at, in order.
    pub points: Vec<DrillPointView>,
}

/// What the last drill of a service found, in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrilledView {
    /// When.
    pub at: Time,
    /// The share of what is ready, from 0 to 1; what is weak counts half.
    pub score: f64,
    /// What is missing, in sentences; empty if a rollback would work.
    pub missing: Vec<String>,
}

/// One thing that a drill looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillPointView {
    /// What.
    pub what: String,
    /// `ready`, `weak` or `missing`.
    pub verdict: String,
    /// What there is to say about it.
    pub detail: String,
}

/// Answer to `GET /api/v1/quarantine`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineView {
    /// By service, newest deployment first.
    pub releases: Vec<QuarantinedView>,
}

/// A release that was rolled back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantinedView {
    /// Of which service.
    pub service: String,
    /// Which.
    pub release: ReleaseView,
    /// When it was rolled back.
    pub since: Time,
    /// Why.
    pub why: String,
    /// Whether it runs again.
    pub current: bool,
}

/// What people are asked about a service, and what they said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalView {
    /// Its identity.
    pub id: String,
    /// `countdown`, `consent`, `evaluate` or `second`.
    pub ask: String,
    /// Whether it still waits for an answer.
    pub open: bool,
    /// Why a rollback is wanted.
    pub reason: String,
    /// When it was asked.
    pub asked: Time,
    /// When it goes ahead by itself, if it does.
    pub deadline: Option<Time>,
    /// So many different people have to say yes.
    pub needed: u32,
    /// So many did.
    pub approvals: u32,
    /// What was said, oldest first.
    pub said: Vec<SaidView>,
}

/// What one person said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaidView {
    /// When.
    pub at: Time,
    /// Who.
    pub by: String,
    /// `approved`, `refused` or `extended`.
    pub word: String,
    /// Why.
    pub why: String,
}

/// A window that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowView {
    /// Its name.
    pub name: String,
    /// `maintenance` or `freeze`.
    pub kind: String,
    /// When it is over.
    pub until: Time,
    /// Why it is there.
    pub why: String,
}
