//! What a release that is put back has in its environment, where the bad one was configured otherwise: what a project's files
//! say of that cannot be pinned.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::core::plan::{Plan, Step};
use crate::runtime::{Snapshot, read};

/// The environment of the good release; none if the configuration of both is the same.
pub(super) fn environment(plan: &Plan) -> Option<BTreeMap<String, String>> {
    let from = plan.from.as_ref()?;
    // What Compose itself makes of the files was compared with the good release beforehand.
    if from.fingerprint == plan.to.fingerprint || plan.is_orchestrated() {
        return None;
    }
    let good = plan.steps.iter().find_map(|step| match step {
        Step::CreateReplacement { specification, .. } => read::<Snapshot>(specification).ok(),
        _ => None,
    });
    Some(good.map(|good| variables(&good.inspect)).unwrap_or_default())
}

fn variables(inspect: &Value) -> BTreeMap<String, String> {
    let all = inspect["Config"]["Env"].as_array().into_iter().flatten().filter_map(Value::as_str);
    all.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
