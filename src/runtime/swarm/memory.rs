//! What the Swarm itself keeps of known-good releases, and of those that were rolled back: one config object each, named
//! `backstop.*`, so that a Backstop on another manager, with a state directory of its own, knows where to go back to, and what
//! failed before.
//!
//! It is written when a release proved itself or was rolled back, and read at start-up about services that the state directory knows nothing of.
//! It never has the last word: whoever has a record of their own goes by that.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde_json::{Value, json};

use super::{SwarmRuntime, observe, release};
use crate::core::release::{Release, ReleaseId, ServiceName};
use crate::runtime::container::fingerprint::short_hash;
use crate::runtime::container::verbs;
use crate::runtime::engine::CALL;
use crate::runtime::{Recorded, RuntimeError, Snapshot};

/// Marks our objects, and names the service.
const SERVICE: &str = "backstop.known-good";
/// The same of releases that were rolled back.
const ROLLED_BACK: &str = "backstop.rolled-back";
/// So many of those are kept of a service: the newest.
const ROLLED_BACK_MAX: usize = 8;

impl SwarmRuntime {
    /// Keeps the specification of a known-good release in the Swarm.
    pub(super) async fn keep(&self, name: &ServiceName, service: &Value) -> Result<(), RuntimeError> {
        let called = called(name, &release::release(&service["Spec"]).id);
        let data = json!({"ID": service["ID"], "Spec": service["Spec"]});
        self.write_config(&called, (SERVICE, name), &data).await.map(drop)
    }

    /// Keeps an object, with a label that names its service. Whether it is another than before.
    async fn write_config(
        &self,
        called: &str,
        (label, name): (&str, &ServiceName),
        data: &Value,
    ) -> Result<bool, RuntimeError> {
        let data = BASE64.encode(data.to_string());
        if let Some(kept) = verbs::look_up(&self.engine, &format!("/configs/{called}")).await? {
            if kept["Spec"]["Data"] == data.as_str() {
                return Ok(false);
            }
            // It cannot be changed, and nobody uses it.
            self.drop_config(called).await?;
        }
        let body = json!({"Name": called, "Labels": {label: name.as_str()}, "Data": data});
        self.engine.post("/configs/create", Some(&body)).await.map(|_| true)
    }

    /// Lets go of it.
    pub(super) async fn forget(&self, name: &ServiceName, release: &ReleaseId) -> Result<(), RuntimeError> {
        self.drop_config(&called(name, release)).await
    }

    pub(super) async fn drop_config(&self, called: &str) -> Result<(), RuntimeError> {
        if verbs::look_up(&self.engine, &format!("/configs/{called}")).await?.is_none() {
            return Ok(());
        }
        self.engine.call(reqwest::Method::DELETE, &format!("/configs/{called}"), None, CALL).await.map(drop)
    }

    /// Those that carry a label.
    pub(super) async fn configs(&self, label: &str) -> Result<Vec<Value>, RuntimeError> {
        let filters = json!({"label": [label]});
        let configs = self.engine.json(&format!("/configs?filters={filters}")).await?;
        Ok(configs.as_array().cloned().unwrap_or_default())
    }

    /// What the Swarm keeps, the oldest first.
    pub(super) async fn kept(&self) -> Result<Vec<Recorded>, RuntimeError> {
        let mut all: Vec<Recorded> = self.configs(SERVICE).await?.iter().filter_map(read).collect();
        let bad: Vec<Recorded> =
            self.configs(ROLLED_BACK).await?.iter().filter_map(read_rolled_back).collect();
        // Whoever was killed in between left both: then it was rolled back since.
        all.retain(|good| {
            !bad.iter().any(|bad| bad.service == good.service && bad.release.id == good.release.id)
        });
        all.extend(bad);
        all.sort_by_key(|one| one.since);
        Ok(all)
    }

    /// Keeps that a release was rolled back, or that this is no longer held against it.
    pub(super) async fn keep_rolled_back(
        &self,
        name: &ServiceName,
        release: &Release,
        why: Option<&str>,
    ) -> Result<(), RuntimeError> {
        let called = called_rolled_back(name, &release.id);
        let Some(why) = why else { return self.drop_config(&called).await };
        self.forget(name, &release.id).await?;
        let data = json!({"release": release, "why": why});
        if !self.write_config(&called, (ROLLED_BACK, name), &data).await? {
            return Ok(());
        }
        let mut all: Vec<Recorded> =
            self.configs(ROLLED_BACK).await?.iter().filter_map(read_rolled_back).collect();
        all.retain(|one| one.service == *name);
        all.sort_by_key(|one| one.since);
        let over = all.len().saturating_sub(ROLLED_BACK_MAX);
        for old in &all[..over] {
            self.drop_config(&called_rolled_back(name, &old.release.id)).await?;
        }
        Ok(())
    }
}

/// One object; none if it is not as we write them.
fn read(config: &Value) -> Option<Recorded> {
    let spec = &config["Spec"];
    let name = spec["Labels"][SERVICE].as_str()?;
    let service: Value = serde_json::from_slice(&BASE64.decode(spec["Data"].as_str()?).ok()?).ok()?;
    let release = release::release(&service["Spec"]);
    let service_name = ServiceName::new(name);
    // Somebody else's, or written by hand.
    if spec["Name"] != called(&service_name, &release.id).as_str() {
        return None;
    }
    let since = observe::moment(&config["CreatedAt"])?;
    let (image, context) = (Value::Null, json!({"from": "the Swarm"}));
    let snapshot = Snapshot { name: name.to_owned(), inspect: service, image, context };
    let quarantined = None;
    Some(Recorded { service: service_name, release, since, quarantined, snapshots: vec![snapshot] })
}

/// The same of one that was rolled back.
fn read_rolled_back(config: &Value) -> Option<Recorded> {
    let spec = &config["Spec"];
    let service = ServiceName::new(spec["Labels"][ROLLED_BACK].as_str()?);
    let data: Value = serde_json::from_slice(&BASE64.decode(spec["Data"].as_str()?).ok()?).ok()?;
    let release: Release = serde_json::from_value(data["release"].clone()).ok()?;
    if spec["Name"] != called_rolled_back(&service, &release.id).as_str() {
        return None;
    }
    let since = observe::moment(&config["CreatedAt"])?;
    let quarantined = Some(data["why"].as_str()?.to_owned());
    Some(Recorded { service, release, since, quarantined, snapshots: Vec::new() })
}

/// Names of configs have 64 characters at most; the label holds the whole one.
fn called(service: &ServiceName, release: &ReleaseId) -> String {
    format!("backstop.{}.{release}", short_hash(service.as_str()))
}

fn called_rolled_back(service: &ServiceName, release: &ReleaseId) -> String {
    format!("backstop.bad.{}.{release}", short_hash(service.as_str()))
}

#[cfg(test)]
mod tests {
    use super::super::recorded;
    use super::*;

    #[test]
    fn what_was_rolled_back_is_read_again_with_the_reason() {
        let (name, release) = (ServiceName::new("web"), release::release(&recorded::service()["Spec"]));
        let data = BASE64.encode(json!({"release": release, "why": "it crashed"}).to_string());
        let mut config = json!({"CreatedAt": "2026-11-21T22:50:54.5Z", "Spec": {
            "Name": called_rolled_back(&name, &release.id), "Labels": {ROLLED_BACK: "web"}, "Data": data}});
        let kept = read_rolled_back(&config).unwrap();
        assert_eq!((&kept.service, &kept.release), (&name, &release));
        assert_eq!((kept.quarantined.as_deref(), kept.snapshots.len()), (Some("it crashed"), 0));
        assert!(called_rolled_back(&name, &release.id).len() <= 64);
        config["Spec"]["Name"] = json!("backstop.bad.by-hand");
        assert_eq!(read_rolled_back(&config), None);
    }

    #[test]
    fn what_is_kept_is_read_again_and_what_is_not_ours_is_not() {
        let (name, service) = (ServiceName::new("web"), recorded::service());
        let id = release::release(&service["Spec"]).id;
        let data = BASE64.encode(json!({"ID": service["ID"], "Spec": service["Spec"]}).to_string());
        let mut config = json!({"CreatedAt": "2026-11-21T22:50:54.5Z",
            "Spec": {"Name": called(&name, &id), "Labels": {SERVICE: "web"}, "Data": data}});
        let kept = read(&config).unwrap();
        assert_eq!((&kept.service, &kept.release.id), (&name, &id));
        assert_eq!(kept.snapshots[0].inspect["Spec"], service["Spec"]);
        assert_eq!(kept.since.as_millis() % 1000, 500);
        assert!(called(&name, &id).len() <= 64);
        config["Spec"]["Name"] = json!("backstop.mine");
        assert!(read(&config).is_none());
        config["Spec"]["Data"] = json!("no base64");
        assert!(read(&config).is_none());
    }
}
