//! What the two releases differ in, by their containers: image, command, names of environment variables, mounts, labels.
//! No value of a variable is ever taken over: only that it is there, gone, or another.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::redact;

/// Differences beyond this are counted and not listed.
const CHANGES_MAX: usize = 60;
/// Labels of an image that say where it came from, and what people call them.
const ORIGIN: [(&str, &str); 7] = [
    ("org.opencontainers.image.revision", "commit"),
    ("org.opencontainers.image.version", "version"),
    ("org.opencontainers.image.authors", "authors"),
    ("org.opencontainers.image.created", "built"),
    ("org.opencontainers.image.source", "source"),
    ("org.opencontainers.image.title", "title"),
    ("org.label-schema.vcs-ref", "commit"),
];
/// Labels that tools write on every container anew.
const NOISE: [&str; 3] =
    ["com.docker.compose.config-hash", "com.docker.compose.image", "com.docker.compose.replace"];

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What: `image`, `command`, `variable LOG_LEVEL`, `label team`.
    pub what: String,
    /// How it was in the release that was put back.
    pub good: String,
    /// How it was in the release that was rolled back.
    pub bad: String,
}

/// Where an image came from, as its labels tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Name and value.
    pub labels: Vec<(String, String)>,
}

/// What is known of the two releases by their containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Releases {
    /// What differs, most telling first.
    pub changes: Vec<Change>,
    /// Differences that are not listed.
    #[serde(default)]
    pub more: usize,
    /// Whether there was anything to compare: only then no difference means that nothing differs.
    #[serde(default)]
    pub compared: bool,
    /// Where the release that was put back came from.
    #[serde(default)]
    pub good: Origin,
    /// Where the release that was rolled back came from.
    #[serde(default)]
    pub bad: Origin,
}

impl Releases {
    /// Compares the recorded container (of a Swarm service, the service) of the good release with that of the bad one; each
    /// comes with its image.
    pub fn compare((good, good_image): (&Value, &Value), (bad, bad_image): (&Value, &Value)) -> Self {
        let (good, bad) = (&as_container(good), &as_container(bad));
        let mut secrets = redact::values(bad);
        secrets.extend(redact::values(good));
        let mut found = Vec::new();
        let mut compare = |what: &str, pointer: &str| {
            let shown = |inspect: &Value| shown(inspect.pointer(pointer).unwrap_or(&Value::Null), &secrets);
            let (good, bad) = (shown(good), shown(bad));
            if good != bad {
                found.push(Change { what: what.to_owned(), good, bad });
            }
        };
        for (what, pointer) in [
            ("image reference", "/Config/Image"),
            ("image", "/Image"),
            ("command", "/Config/Cmd"),
            ("entrypoint", "/Config/Entrypoint"),
            ("user", "/Config/User"),
            ("working directory", "/Config/WorkingDir"),
            ("memory limit", "/HostConfig/Memory"),
            ("CPU limit", "/HostConfig/NanoCpus"),
            ("restart policy", "/HostConfig/RestartPolicy/Name"),
            ("network mode", "/HostConfig/NetworkMode"),
            ("health check", "/Config/Healthcheck/Test"),
            ("replicas", "/Replicas"),
        ] {
            compare(what, pointer);
        }
        found.extend(variables(good, bad));
        found.extend(sets("mount", &mounts(good), &mounts(bad)));
        found.extend(sets("published port", &ports(good), &ports(bad)));
        for kind in ["config", "secret", "network"] {
            found.extend(sets(kind, &names(good, kind), &names(bad, kind)));
        }
        found.extend(labels(good, bad, &secrets));
        let more = found.len().saturating_sub(CHANGES_MAX);
        found.truncate(CHANGES_MAX);
        Self {
            changes: found,
            more,
            compared: good["Config"].is_object() && bad["Config"].is_object(),
            good: origin(good_image, &secrets),
            bad: origin(bad_image, &secrets),
        }
    }
}

/// A Swarm service as a container is written: what runs is the same, and only its places are others.
fn as_container(inspect: &Value) -> Cow<'_, Value> {
    let Some(task) = inspect.pointer("/Spec/TaskTemplate").filter(|task| task.is_object()) else {
        return Cow::Borrowed(inspect);
    };
    let (spec, container) = (&inspect["Spec"], &task["ContainerSpec"]);
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mounts = list(&container["Mounts"]).into_iter().map(|m| {
        json!({"Type": m["Type"], "Source": m["Source"], "Destination": m["Target"], "RW": m["ReadOnly"] != true})
    });
    let mut ports = serde_json::Map::new();
    for port in list(&spec["EndpointSpec"]["Ports"]) {
        let inside = format!("{}/{}", port["TargetPort"], port["Protocol"].as_str().unwrap_or("tcp"));
        ports.insert(inside, json!([{"HostPort": port["PublishedPort"].to_string()}]));
    }
    let named =
        |place: &Value, key: &str| list(place).into_iter().map(|one| one[key].clone()).collect::<Value>();
    Cow::Owned(json!({
        "Config": {
            "Image": container["Image"], "Cmd": container["Args"], "Entrypoint": container["Command"],
            "User": container["User"], "WorkingDir": container["Dir"], "Env": container["Env"],
            "Labels": container["Labels"], "Healthcheck": container["Healthcheck"],
        },
        "HostConfig": {
            "Memory": task["Resources"]["Limits"]["MemoryBytes"],
            "NanoCpus": task["Resources"]["Limits"]["NanoCPUs"],
            "RestartPolicy": {"Name": task["RestartPolicy"]["Condition"]},
            "PortBindings": ports,
        },
        "Mounts": mounts.collect::<Value>(),
        "Replicas": spec["Mode"]["Replicated"]["Replicas"],
        "Names": {
            "config": named(&container["Configs"], "ConfigName"),
            "secret": named(&container["Secrets"], "SecretName"),
            "network": named(&task["Networks"], "Target"),
        },
    }))
}

/// Names of what a Swarm service is given.
fn names(inspect: &Value, kind: &str) -> BTreeSet<String> {
    let all = inspect["Names"][kind].as_array().into_iter().flatten();
    all.filter_map(Value::as_str).map(|name| redact::line(name, &[])).collect()
}

fn shown(value: &Value, secrets: &[String]) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(words) => {
            words.iter().map(|w| w.as_str().unwrap_or_default()).collect::<Vec<_>>().join(" ")
        }
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    };
    let text = text.strip_prefix("sha256:").map_or(text.as_str(), |id| id.get(..12).unwrap_or(id));
    redact::line(text, secrets)
}

fn environment(inspect: &Value) -> BTreeMap<&str, &str> {
    let all = redact::environment(inspect).filter_map(Value::as_str);
    all.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect()
}

fn variables(good: &Value, bad: &Value) -> Vec<Change> {
    let (good, bad) = (environment(good), environment(bad));
    let names: BTreeSet<&&str> = good.keys().chain(bad.keys()).collect();
    let differs = names.into_iter().filter(|name| good.get(**name) != bad.get(**name));
    let told = |there: bool, both: bool| {
        if !there {
            "not set"
        } else if both {
            "set, to another value"
        } else {
            "set"
        }
    };
    differs
        .map(|name| {
            let (g, b) = (good.contains_key(*name), bad.contains_key(*name));
            Change {
                what: format!("variable {name}"),
                good: if g { "set" } else { "not set" }.to_owned(),
                bad: told(b, g).to_owned(),
            }
        })
        .collect()
}

fn mounts(inspect: &Value) -> BTreeSet<String> {
    let all = inspect["Mounts"].as_array().into_iter().flatten();
    all.map(|m| {
        let text = |key: &str| m[key].as_str().unwrap_or_default();
        let from = if text("Name").is_empty() { text("Source") } else { text("Name") };
        let mode = if m["RW"] == false { " (read-only)" } else { "" };
        redact::line(&format!("{} {from} at {}{mode}", text("Type"), text("Destination")), &[])
    })
    .collect()
}

fn ports(inspect: &Value) -> BTreeSet<String> {
    let bound = inspect["HostConfig"]["PortBindings"].as_object().into_iter().flatten();
    bound
        .flat_map(|(port, bindings)| {
            let host = |b: &Value| {
                format!(
                    "{}:{} to {port}",
                    b["HostIp"].as_str().unwrap_or(""),
                    b["HostPort"].as_str().unwrap_or("")
                )
            };
            bindings.as_array().into_iter().flatten().map(host).collect::<Vec<_>>()
        })
        .collect()
}

fn sets(what: &str, good: &BTreeSet<String>, bad: &BTreeSet<String>) -> Vec<Change> {
    let (there, not) = ("there".to_owned(), "not there".to_owned());
    let gone = good.difference(bad).map(|one| (one, there.clone(), not.clone()));
    let new = bad.difference(good).map(|one| (one, not.clone(), there.clone()));
    gone.chain(new).map(|(one, good, bad)| Change { what: format!("{what} {one}"), good, bad }).collect()
}

fn labels(good: &Value, bad: &Value, secrets: &[String]) -> Vec<Change> {
    let none = serde_json::Map::new();
    let of = |inspect: &Value| inspect["Config"]["Labels"].as_object().unwrap_or(&none).clone();
    let (good, bad) = (of(good), of(bad));
    let names: BTreeSet<&String> = good.keys().chain(bad.keys()).collect();
    let told = |name: &str, value: Option<&Value>| match value.and_then(Value::as_str) {
        None => "-".to_owned(),
        Some(_) if redact::is_secret(name) => redact::HIDDEN.to_owned(),
        Some(text) => redact::line(text, secrets),
    };
    names
        .into_iter()
        .filter(|name| !NOISE.contains(&name.as_str()) && good.get(*name) != bad.get(*name))
        .map(|name| Change {
            what: format!("label {name}"),
            good: told(name, good.get(name)),
            bad: told(name, bad.get(name)),
        })
        .collect()
}

fn origin(image: &Value, secrets: &[String]) -> Origin {
    let label = |name: &str| image["Config"]["Labels"][name].as_str().filter(|text| !text.is_empty());
    let mut labels: Vec<(String, String)> = Vec::new();
    for (name, called) in ORIGIN {
        if let Some(text) = label(name)
            && !labels.iter().any(|(known, _)| known == called)
        {
            labels.push((called.to_owned(), redact::line(text, secrets)));
        }
    }
    if let (None, Some(built)) = (labels.iter().find(|(name, _)| name == "built"), image["Created"].as_str())
    {
        labels.push(("built".to_owned(), built.get(..19).unwrap_or(built).replace('T', " ")));
    }
    Origin { labels }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_is_named_and_no_value_of_a_variable_is_shown() {
        let good = json!({"Image": "sha256:aaaaaaaaaaaaaaaa", "Config": {"Image": "shop:v1", "Cmd": ["serve"],
            "Env": ["DB_PASSWORD=hunter2hunter2", "OLD=1", "SAME=x"], "Labels": {"team": "a"}}, "Mounts": []});
        let bad = json!({"Image": "sha256:bbbbbbbbbbbbbbbb", "Config": {"Image": "shop:v2",
            "Cmd": ["serve", "--token", "s3cr3t"],
            "Env": ["DB_PASSWORD=swordfish123", "NEW=1", "SAME=x"], "Labels": {"team": "b", "api-token": "zzz"}},
            "Mounts": [{"Type": "volume", "Name": "data", "Destination": "/data", "RW": true}]});
        let image = json!({"Config": {"Labels": {"org.opencontainers.image.revision": "4f2a9c1"}}});
        let found = Releases::compare((&good, &Value::Null), (&bad, &image));
        let text = serde_json::to_string(&found).unwrap();
        for secret in ["hunter2", "swordfish", "s3cr3t", "zzz"] {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
        let what: Vec<&str> = found.changes.iter().map(|change| change.what.as_str()).collect();
        assert_eq!(
            what,
            [
                "image reference",
                "image",
                "command",
                "variable DB_PASSWORD",
                "variable NEW",
                "variable OLD",
                "mount volume data at /data",
                "label api-token",
                "label team"
            ]
        );
        assert_eq!(found.changes[1].bad, "bbbbbbbbbbbb");
        assert_eq!(found.bad.labels, [("commit".to_owned(), "4f2a9c1".to_owned())]);
        assert!(found.compared);
    }

    #[test]
    fn services_of_a_swarm_are_compared_where_they_write_it() {
        let service = |image: &str, env: &[&str], args: &[&str], replicas: u32| {
            json!({"ID": "x", "Spec": {"Name": "web", "Mode": {"Replicated": {"Replicas": replicas}},
                "TaskTemplate": {"ContainerSpec": {"Image": image, "Env": env, "Args": args,
                    "Labels": {"team": image},
                    "Mounts": [{"Type": "volume", "Source": format!("data-{image}"), "Target": "/data"}],
                    "Configs": [{"ConfigName": format!("conf-{image}")}]}},
                "EndpointSpec": {"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080}]}}})
        };
        let good = service("v1", &["DB_PASSWORD=hunter2hunter2", "SAME=x"], &["serve"], 2);
        let bad = service("v2", &["DB_PASSWORD=swordfish123", "SAME=x"], &["serve", "swordfish123"], 3);
        let found = Releases::compare((&good, &Value::Null), (&bad, &Value::Null));
        let what: Vec<&str> = found.changes.iter().map(|change| change.what.as_str()).collect();
        assert_eq!(
            what,
            [
                "image reference",
                "command",
                "replicas",
                "variable DB_PASSWORD",
                "mount volume data-v1 at /data",
                "mount volume data-v2 at /data",
                "config conf-v1",
                "config conf-v2",
                "label team"
            ]
        );
        let text = serde_json::to_string(&found).unwrap();
        assert!(found.compared && !text.contains("hunter2") && !text.contains("swordfish"), "{text}");
        let same = Releases::compare((&good, &Value::Null), (&good, &Value::Null));
        assert!(same.changes.is_empty() && same.compared);
        let nothing = Releases::compare((&Value::Null, &Value::Null), (&good, &Value::Null));
        assert!(!nothing.compared, "what is not known is not the same");
    }
}
