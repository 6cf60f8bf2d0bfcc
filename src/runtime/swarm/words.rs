//! What people said of services, and were asked, as the Swarm keeps it: pauses, answers, what was tried. One config object
//! for each service, named `backstop.said.*`, and one for the fleet; newer ones take the place of older ones.
//!
//! Each says on which node it was written. What another node wrote is newer than what the state directory of this one knows,
//! for Backstop runs on one at a time; so that this holds, it is written as well when there is nothing left to say.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde_json::{Value, json};

use super::SwarmRuntime;
use crate::core::ledger::Flags;
use crate::core::release::ServiceName;
use crate::runtime::RuntimeError;
use crate::runtime::container::fingerprint::short_hash;

/// Marks our objects, and names the service; empty for the fleet.
const SAID: &str = "backstop.said";
/// The node that it was written on.
const NODE: &str = "backstop.node";

impl SwarmRuntime {
    /// Keeps it, unless there was and is nothing to keep.
    pub(super) async fn keep_said(
        &self,
        info: &Value,
        service: Option<&ServiceName>,
        flags: &Flags,
    ) -> Result<(), RuntimeError> {
        let of = service.map_or("", ServiceName::as_str);
        let mut old = self.said().await?;
        old.retain(|config| config["Spec"]["Labels"][SAID] == of);
        if old.is_empty() && *flags == Flags::default() {
            return Ok(());
        }
        let (node, data) = (&info["Swarm"]["NodeID"], BASE64.encode(json!(flags).to_string()));
        if let [kept] = old.as_slice()
            && kept["Spec"]["Data"] == data.as_str()
            && kept["Spec"]["Labels"][NODE] == *node
        {
            return Ok(());
        }
        let name = format!("backstop.said.{}.{}", short_hash(of), self.clock.now().as_millis());
        if old.iter().any(|config| config["Spec"]["Name"] == name.as_str()) {
            // Twice within a millisecond.
            self.drop_config(&name).await?;
        }
        let body = json!({"Name": name, "Labels": {SAID: of, NODE: node}, "Data": data});
        self.engine.post("/configs/create", Some(&body)).await?;
        // Until these are gone, the newer one counts.
        for config in &old {
            self.drop_config(config["Spec"]["Name"].as_str().unwrap_or_default()).await?;
        }
        Ok(())
    }

    /// What was written on other nodes.
    pub(super) async fn said_elsewhere(
        &self,
        info: &Value,
    ) -> Result<Vec<(Option<ServiceName>, Flags)>, RuntimeError> {
        Ok(elsewhere(self.said().await?, &info["Swarm"]["NodeID"]))
    }

    async fn said(&self) -> Result<Vec<Value>, RuntimeError> {
        let filters = json!({"label": [SAID]});
        let configs = self.engine.json(&format!("/configs?filters={filters}")).await?;
        Ok(configs.as_array().cloned().unwrap_or_default())
    }
}

/// The newest of each service, if it was written on another node and can be read.
fn elsewhere(mut configs: Vec<Value>, node: &Value) -> Vec<(Option<ServiceName>, Flags)> {
    let written = |config: &Value| config["CreatedAt"].as_str()?.parse::<jiff::Timestamp>().ok();
    configs.sort_by_key(|config| std::cmp::Reverse(written(config)));
    let mut seen: Vec<Value> = Vec::new();
    configs.retain(|config| {
        let of = &config["Spec"]["Labels"][SAID];
        let first = !seen.contains(of);
        seen.push(of.clone());
        first && config["Spec"]["Labels"][NODE] != *node
    });
    configs.iter().filter_map(read).collect()
}

fn read(config: &Value) -> Option<(Option<ServiceName>, Flags)> {
    let name = config["Spec"]["Labels"][SAID].as_str()?;
    let data = BASE64.decode(config["Spec"]["Data"].as_str()?).ok()?;
    let flags = serde_json::from_slice(&data).ok()?;
    Some(((!name.is_empty()).then(|| ServiceName::new(name)), flags))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ledger::Pause;
    use crate::core::time::Timestamp;

    fn paused(by: &str) -> Flags {
        let pause = Pause { by: by.into(), why: String::new(), since: Timestamp::from_secs(1), until: None };
        Flags { paused: Some(pause), ..Flags::default() }
    }

    fn config(of: &str, node: &str, second: u32, flags: &Flags) -> Value {
        json!({"CreatedAt": format!("2026-11-21T22:50:{second:02}.5Z"), "Spec": {
            "Name": format!("backstop.said.x.{second}"), "Labels": {SAID: of, NODE: node},
            "Data": BASE64.encode(json!(flags).to_string())}})
    }

    #[test]
    fn what_was_said_last_elsewhere_is_taken_and_what_was_said_here_is_known() {
        let configs = vec![
            config("web", "a", 10, &paused("anna")),
            config("web", "b", 20, &paused("ben")),
            config("api", "b", 10, &paused("ben")),
            config("api", "a", 20, &paused("anna")),
            config("", "b", 10, &Flags::default()),
        ];
        let web = (Some(ServiceName::new("web")), paused("ben"));
        assert_eq!(elsewhere(configs.clone(), &json!("a")), [web, (None, Flags::default())]);
        let api = (Some(ServiceName::new("api")), paused("anna"));
        assert_eq!(elsewhere(configs, &json!("b")), [api]);
    }

    #[test]
    fn what_cannot_be_read_is_left_alone() {
        let mut broken = config("web", "b", 10, &paused("ben"));
        broken["Spec"]["Data"] = json!("no base64");
        assert_eq!(elsewhere(vec![broken, json!({})], &json!("a")), []);
    }
}
