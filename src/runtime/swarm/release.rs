//! What a Swarm service is: its image and what its deployer chose beside it, as one identity.
//!
//! How many replicas there are, and how often they were replaced by force, is no release: both change without a
//! deployment, and a rollback keeps them. Nor are labels of the service itself: no task is replaced for them.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{images, names};
use crate::core::release::{ImageId, Release};
use crate::runtime::container::fingerprint::{hex, prune, release_id, write};

/// Written beside the good specification: which rollback put it there. `docker service inspect` shows it, and so does
/// another manager. Nobody takes it away later: it tells of the last rollback.
pub(super) const MARK: &str = "backstop.rollback";

/// Members of a task template that say how a task came to be, and not what it is. The engine tells `Runtime` of a
/// service and not of its tasks.
const TEMPLATE_OUT: [&str; 2] = ["ForceUpdate", "Runtime"];

/// The release that a service's specification asks for.
pub(super) fn release(spec: &Value) -> Release {
    let container = &spec["TaskTemplate"]["ContainerSpec"];
    let image = container["Image"].as_str().unwrap_or_default();
    let fingerprint = fingerprint(spec);
    let (reference, digest) = match image.split_once('@') {
        Some((typed, digest)) => (typed, Some(digest)),
        None => (image, None),
    };
    let repository = crate::runtime::container::verbs::split(reference).0;
    // The nodes' own image ids differ; the string with its digest is what all of them are told. Without one, it is known on a
    // node that is alone.
    let image = images::of(&spec["TaskTemplate"]).unwrap_or(image);
    let label = |key: &str| container["Labels"][key].as_str().filter(|v| !v.is_empty()).map(str::to_owned);
    Release {
        id: release_id(image, &fingerprint),
        image: ImageId::new(image),
        reference: reference.to_owned(),
        digests: digest.map(|digest| format!("{repository}@{digest}")).into_iter().collect(),
        version: label("org.opencontainers.image.version")
            .or_else(|| label("org.opencontainers.image.revision")),
        fingerprint,
    }
}

/// SHA-256, in hexadecimal, over what the deployer chose beside the image.
pub(super) fn fingerprint(spec: &Value) -> String {
    let mut template = spec["TaskTemplate"].clone();
    if let Some(container) = template["ContainerSpec"].as_object_mut() {
        container.remove("Image");
        container.remove(images::IMAGE_ID);
    }
    let all = json!({"TaskTemplate": chosen(&template), "EndpointSpec": prune(spec["EndpointSpec"].clone())});
    hex(&Sha256::digest(canonical(&all).as_bytes()))
}

/// A task template as canonical text: equal for a task and the specification that it was made from.
pub(super) fn template(template: &Value) -> String {
    canonical(&chosen(template))
}

/// The specification to go back to: everything of the good one, but as many replicas as there are now, and the count of
/// forced updates, which only ever grows.
pub(super) fn restored(good: &Value, now: &Value, mark: Option<&str>) -> Value {
    let mut spec = good.clone();
    let replicas = &now["Mode"]["Replicated"]["Replicas"];
    if spec["Mode"]["Replicated"].is_object() && replicas.is_u64() {
        spec["Mode"]["Replicated"]["Replicas"] = replicas.clone();
    }
    spec["TaskTemplate"]["ForceUpdate"] = forced(now).max(forced(good)).into();
    if !spec["Labels"].is_object() {
        spec["Labels"] = Value::Object(Map::new());
    }
    if let Some(labels) = spec["Labels"].as_object_mut() {
        match mark {
            Some(mark) => labels.insert(MARK.to_owned(), mark.into()),
            None => labels.remove(MARK),
        };
    }
    spec
}

/// What of a specification is no part of a release beside its labels: it says how it is brought to the nodes.
const HOW: [&str; 2] = ["UpdateConfig", "RollbackConfig"];

/// Takes over into `spec` what somebody changed of a service since it was `before` and that is no part of a release: its
/// labels, and how it is updated. We are to put a release in the place of another, and nothing else.
pub(super) fn keep_changes(spec: &mut Value, before: &Value, now: &Value) {
    for member in HOW {
        set(spec, member, &before[member], &now[member]);
    }
    let label = |of: &Value, key: &str| of["Labels"][key].clone();
    let keys = [before, now].into_iter().filter_map(|spec| spec["Labels"].as_object()).flat_map(Map::keys);
    for key in keys.filter(|key| *key != MARK) {
        set(&mut spec["Labels"], key, &label(before, key), &label(now, key));
    }
}

/// Sets a member to what it is now, if that is not what it was before.
fn set(of: &mut Value, key: &str, before: &Value, now: &Value) {
    let Some(members) = of.as_object_mut().filter(|_| before != now) else { return };
    if now.is_null() {
        members.remove(key);
    } else {
        members.insert(key.to_owned(), now.clone());
    }
}

/// Whether a service is told to run exactly this template, by what the manager knows of it.
pub(super) fn runs(service: &Value, spec: &Value) -> bool {
    let (service, spec) = (images::without(&service["Spec"]), images::without(spec));
    template(&service["TaskTemplate"]) == template(&spec["TaskTemplate"])
        && fingerprint(&service) == fingerprint(&spec)
}

/// How often its tasks were replaced by force.
pub(super) fn forced(spec: &Value) -> u64 {
    spec["TaskTemplate"]["ForceUpdate"].as_u64().unwrap_or(0)
}

fn chosen(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(members) = template.as_object_mut() {
        for key in TEMPLATE_OUT {
            members.remove(key);
        }
    }
    names::forget_ids(&mut template);
    prune(template)
}

fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::swarm::recorded;

    #[test]
    fn a_task_is_of_the_specification_that_it_was_made_from() {
        let service = recorded::service();
        for task in recorded::tasks() {
            assert_eq!(template(&task["Spec"]), template(&service["Spec"]["TaskTemplate"]));
        }
    }

    #[test]
    fn scaling_forcing_and_labels_are_no_deployments() {
        let spec = recorded::service()["Spec"].clone();
        let mut other = spec.clone();
        other["Mode"]["Replicated"]["Replicas"] = json!(7);
        other["TaskTemplate"]["ForceUpdate"] = json!(3);
        other["Labels"]["team"] = json!("shop");
        other["UpdateConfig"] = json!({"Parallelism": 2});
        assert_eq!(release(&spec), release(&other));
    }

    #[test]
    fn what_the_deployer_chose_is_one() {
        let spec = recorded::service()["Spec"].clone();
        let id = |change: fn(&mut Value)| {
            let mut other = spec.clone();
            change(&mut other);
            release(&other).id
        };
        let changed = [
            id(|s| s["TaskTemplate"]["ContainerSpec"]["Env"] = json!(["A=2"])),
            id(|s| s["TaskTemplate"]["ContainerSpec"]["Image"] = json!("web:v2")),
            id(|s| s["TaskTemplate"]["Resources"]["Limits"]["MemoryBytes"] = json!(1 << 26)),
            id(|s| s["EndpointSpec"]["Ports"] = json!([])),
        ];
        for (n, one) in changed.iter().enumerate() {
            assert_ne!(*one, release(&spec).id, "{n}");
        }
    }

    #[test]
    fn secrets_and_configs_are_meant_by_their_names() {
        let spec = |id: &str, name: &str| {
            let mut spec = recorded::service()["Spec"].clone();
            let container = &mut spec["TaskTemplate"]["ContainerSpec"];
            container["Secrets"] =
                json!([{"SecretID": id, "SecretName": name, "File": {"Name": "password"}}]);
            container["Configs"] =
                json!([{"ConfigID": id, "ConfigName": name, "File": {"Name": "/app.conf"}}]);
            spec
        };
        let one = spec("s1", "password_v1");
        assert_eq!(
            release(&one),
            release(&spec("s2", "password_v1")),
            "the stack was removed and deployed again"
        );
        assert_ne!(release(&one).id, release(&spec("s1", "password_v2")).id);
    }

    #[test]
    fn people_read_what_was_typed_and_nodes_get_the_digest() {
        let mut spec = recorded::service()["Spec"].clone();
        let image = "localhost:5000/shop:v1@sha256:6eeea2147b09";
        spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!(image);
        let release = release(&spec);
        assert_eq!(release.reference, "localhost:5000/shop:v1");
        assert_eq!(release.image.as_str(), image);
        assert_eq!(release.digests, ["localhost:5000/shop@sha256:6eeea2147b09"]);
        assert!(release.answers_to("v1"));
    }

    #[test]
    fn going_back_keeps_the_scale_and_leaves_a_mark() {
        let good = recorded::service()["Spec"].clone();
        let mut now = good.clone();
        now["Mode"]["Replicated"]["Replicas"] = json!(5);
        now["TaskTemplate"]["ForceUpdate"] = json!(2);
        now["TaskTemplate"]["ContainerSpec"]["Image"] = json!("web:v2");
        let back = restored(&good, &now, Some("rb1"));
        assert_eq!(back["Mode"]["Replicated"]["Replicas"], 5);
        assert_eq!(back["TaskTemplate"]["ForceUpdate"], 2);
        assert_eq!(back["Labels"], json!({"backstop.enable": "true", "backstop.rollback": "rb1"}));
        assert_eq!(release(&back), release(&good));
        assert_eq!(restored(&back, &good, None)["Labels"], good["Labels"]);
    }

    #[test]
    fn what_others_changed_meanwhile_stays_changed() {
        let good = recorded::service()["Spec"].clone();
        let mut before = good.clone();
        before["TaskTemplate"]["ContainerSpec"]["Image"] = json!("web:v2");
        before["Labels"]["of-v2"] = json!("yes");
        before["Labels"]["page"] = json!("ann");
        let mut now = before.clone();
        now["Labels"]["page"] = json!("ben");
        now["Labels"]["ticket"] = json!("17");
        now["Labels"][MARK] = json!("rb0");
        now["UpdateConfig"] = json!({"Parallelism": 2});
        let mut back = restored(&good, &now, Some("rb1"));
        keep_changes(&mut back, &before, &now);
        let labels =
            json!({"backstop.enable": "true", "backstop.rollback": "rb1", "page": "ben", "ticket": "17"});
        assert_eq!(back["Labels"], labels, "what came with the bad release goes with it");
        assert_eq!(back["UpdateConfig"], now["UpdateConfig"]);
        // And taken back: another label came since, and one went.
        let mut since = back.clone();
        since["Labels"]["ticket"] = json!("18");
        since["Labels"].as_object_mut().unwrap().remove("page");
        let mut again = restored(&before, &since, None);
        keep_changes(&mut again, &back, &since);
        assert_eq!(again["Labels"], json!({"backstop.enable": "true", "of-v2": "yes", "ticket": "18"}));
    }

    #[test]
    fn a_global_service_has_no_scale_to_keep() {
        let mut good = recorded::service()["Spec"].clone();
        good["Mode"] = json!({"Global": {}});
        assert_eq!(restored(&good, &good, None)["Mode"], json!({"Global": {}}));
    }
}
