//! Who is watched: the name of a container's service, and the reasons to leave a container alone.
//!
//! It must never let us act on ourselves, nor on the socket proxy through which we reach the engine.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fingerprint::is_id;
use crate::core::release::ServiceName;
use crate::runtime::compose::SERVICE as COMPOSE_SERVICE;

/// Marks our own container, or the socket proxy we talk through.
pub(in crate::runtime) const SELF: &str = "backstop.self";
/// Names the service.
const SERVICE: &str = "backstop.service";
/// Names the Compose project.
pub(super) const PROJECT: &str = "com.docker.compose.project";
/// Set by `podman generate systemd` and by Quadlet.
const PODMAN_UNIT: &str = "PODMAN_SYSTEMD_UNIT";
/// Set on what `docker compose run` made.
pub(super) const ONEOFF: &str = "com.docker.compose.oneoff";
/// Longer names do not fit into tables, labels and metrics.
const NAME_MAX: usize = 128;

/// Labels by name.
pub(in crate::runtime) type Labels = BTreeMap<String, String>;

/// What we know of ourselves.
#[derive(Debug, Clone, Default)]
pub(in crate::runtime) struct Ourselves {
    /// Our own container id, or its first twelve digits; none outside a container.
    pub(in crate::runtime) id: Option<String>,
    /// The host name by which the engine is reached over TCP.
    pub(in crate::runtime) proxy: Option<String>,
}

impl Ourselves {
    /// Reads our own container id from where it can be found.
    pub(in crate::runtime) fn find(proxy: Option<String>) -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let id = id_in_mounts(&read("/proc/self/mountinfo"))
            .or_else(|| id_in_cgroup(&read("/proc/self/cgroup")))
            .or_else(|| id_in_hostname(read("/proc/sys/kernel/hostname").trim()));
        Self { id, proxy }
    }

    /// Whether a listed container is us or the proxy we talk through.
    pub(super) fn is(&self, listed: &Value, labels: &Labels) -> bool {
        let id = listed["Id"].as_str().unwrap_or_default();
        let ours = self.id.as_deref().is_some_and(|own| id.starts_with(own));
        ours || labels.get(SELF).is_some_and(|v| v == "true") || self.is_proxy(listed, labels)
    }

    fn is_proxy(&self, listed: &Value, labels: &Labels) -> bool {
        let Some(proxy) = self.proxy.as_deref() else { return false };
        let by_name = listed_name(listed) == proxy || labels.get(COMPOSE_SERVICE).is_some_and(|s| s == proxy);
        let mut endpoints =
            listed["NetworkSettings"]["Networks"].as_object().into_iter().flat_map(|n| n.values());
        by_name
            || endpoints.any(|endpoint| {
                let aliases = endpoint["Aliases"].as_array().into_iter().flatten();
                endpoint["IPAddress"] == proxy || aliases.into_iter().any(|alias| alias == proxy)
            })
    }
}

/// The name of a listed container: the one that is not a link's.
pub(super) fn listed_name(listed: &Value) -> &str {
    let mut names = listed["Names"].as_array().into_iter().flatten().filter_map(Value::as_str);
    names.find(|name| !name.trim_start_matches('/').contains('/')).unwrap_or_default().trim_start_matches('/')
}

/// The labels in an inspect answer's `Config`, or in a listed container.
pub(in crate::runtime) fn labels(of: &Value) -> Labels {
    let all = of["Labels"].as_object().into_iter().flatten();
    all.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

/// The service that a container belongs to: its label, else its Compose service, else its name.
///
/// # Errors
/// The label is no name: the service is then called as the container, and the text says what would be right.
pub(super) fn service(name: &str, labels: &Labels) -> Result<ServiceName, (ServiceName, String)> {
    if let Some(label) = labels.get(SERVICE) {
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if !label.is_empty() && label.len() <= NAME_MAX && label.chars().all(fine) {
            return Ok(ServiceName::new(label));
        }
        let problem = format!(
            "label {SERVICE}=`{label}`: a name of up to {NAME_MAX} letters, digits, `_`, `.` and `-` would be right"
        );
        return Err((ServiceName::new(name), problem));
    }
    if let (Some(project), Some(service)) = (labels.get(PROJECT), labels.get(COMPOSE_SERVICE)) {
        return Ok(ServiceName::new(format!("{project}-{service}")));
    }
    Ok(ServiceName::new(name))
}

/// Whether Compose made it.
pub(super) fn is_compose(labels: &Labels) -> bool {
    labels.contains_key(PROJECT) && labels.contains_key(COMPOSE_SERVICE)
}

/// Whether Swarm made it.
pub(super) fn is_swarm_task(labels: &Labels) -> bool {
    labels
        .keys()
        .any(|key| key.starts_with("com.docker.swarm.task") || key.starts_with("com.docker.swarm.service"))
}

/// Why a container that asks to be watched cannot be: it belongs to somebody who would undo what we do.
pub(super) fn belongs_to(labels: &Labels) -> Option<&'static str> {
    let has = |prefix: &str| labels.keys().any(|key| key.starts_with(prefix));
    if is_swarm_task(labels) {
        return Some(
            "it is a task of a Swarm service, and Swarm would replace whatever is done to a task: run Backstop on a \
             manager of the Swarm, where it watches the service",
        );
    }
    if has("io.kubernetes.") {
        return Some(
            "Kubernetes runs it and would replace whatever is done to it: use `kubectl rollout undo`",
        );
    }
    if has("com.hashicorp.nomad.") {
        return Some("Nomad runs it and would replace whatever is done to it: use `nomad job revert`");
    }
    if labels.contains_key(PODMAN_UNIT) {
        return Some(
            "a systemd unit of Podman runs it and would start its own again beside ours: start it without a unit \
             (`podman run -d --restart always`, with podman-restart.service)",
        );
    }
    if labels.get(ONEOFF).is_some_and(|v| v.eq_ignore_ascii_case("true")) {
        return Some("it is a one-off of `docker compose run`, not a service");
    }
    None
}

/// Why an inspected container cannot be acted on: somebody waits for it in the foreground.
pub(super) fn foreground(config: &Value, labels: &Labels) -> Option<&'static str> {
    // Compose sets this flag for what it runs in the background, too.
    (config["AttachStdout"] == true && !is_compose(labels)).then_some(
        "it was started in the foreground (`docker run` without -d, often by a systemd unit), and whoever waits for it \
         would start it again beside ours: start it with `docker run -d`",
    )
}

/// Files that the engine mounts into a container come from a directory named by its id. On a host, the same
/// directories show up as mounts of *other* containers: so only these three mount points count.
fn id_in_mounts(mountinfo: &str) -> Option<String> {
    mountinfo.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        if !matches!(point, "/etc/hostname" | "/etc/hosts" | "/etc/resolv.conf") {
            return None;
        }
        root.split('/').find(|part| is_id(part)).map(str::to_owned)
    })
}

/// `/docker/<id>`, or `/system.slice/docker-<id>.scope`.
fn id_in_cgroup(cgroup: &str) -> Option<String> {
    cgroup.lines().find_map(|line| {
        let last = line.rsplit('/').next()?;
        let id = last.trim_end_matches(".scope").rsplit('-').next()?;
        is_id(id).then(|| id.to_owned())
    })
}

/// A container's host name is the beginning of its id, unless its deployer chose another.
fn id_in_hostname(hostname: &str) -> Option<String> {
    (hostname.len() == 12 && hostname.bytes().all(|b| b.is_ascii_hexdigit())).then(|| hostname.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ID: &str = "cb5ee1b6243ccce45c635e935596165b5a652fcf5b54aa3f39733593c475997d";

    fn map(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn the_service_is_the_label_else_compose_else_the_name() {
        let compose = [(PROJECT, "shop"), (COMPOSE_SERVICE, "api")];
        assert_eq!(service("x", &map(&[])).unwrap().as_str(), "x");
        assert_eq!(service("shop-api-1", &map(&compose)).unwrap().as_str(), "shop-api");
        let labelled = [compose[0], compose[1], (SERVICE, "the-api")];
        assert_eq!(service("shop-api-1", &map(&labelled)).unwrap().as_str(), "the-api");
    }

    #[test]
    fn a_nonsense_name_is_refused_with_what_would_be_right() {
        let (name, problem) = service("x", &map(&[(SERVICE, "a b/c")])).unwrap_err();
        assert_eq!(name.as_str(), "x");
        assert!(problem.contains("backstop.service=`a b/c`") && problem.contains("letters"), "{problem}");
    }

    #[test]
    fn we_are_found_inside_a_container_and_not_on_a_host() {
        let inside =
            format!("1 2 0:3 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw - ext4 /dev/sda rw");
        assert_eq!(id_in_mounts(&inside).as_deref(), Some(ID));
        let host = format!("1 2 0:3 / /var/lib/docker/containers/{ID}/mounts/shm rw - tmpfs shm rw");
        assert_eq!(id_in_mounts(&host), None);
        assert_eq!(id_in_cgroup(&format!("12:memory:/docker/{ID}")).as_deref(), Some(ID));
        assert_eq!(id_in_cgroup(&format!("0::/system.slice/docker-{ID}.scope")).as_deref(), Some(ID));
        assert_eq!(id_in_cgroup("0::/user.slice/session-3.scope"), None);
        assert_eq!(id_in_hostname("cb5ee1b6243c").as_deref(), Some("cb5ee1b6243c"));
        assert_eq!(id_in_hostname("build-server"), None);
    }

    #[test]
    fn we_never_watch_ourselves_nor_our_proxy() {
        let ourselves = Ourselves { id: Some(ID.get(..12).unwrap().to_owned()), proxy: Some("proxy".into()) };
        let listed = |id: &str, name: &str| json!({"Id": id, "Names": [format!("/{name}")]});
        assert!(ourselves.is(&listed(ID, "backstop"), &map(&[])));
        assert!(ourselves.is(&listed("1", "proxy"), &map(&[])));
        assert!(ourselves.is(&listed("1", "stack-proxy-1"), &map(&[(COMPOSE_SERVICE, "proxy")])));
        assert!(ourselves.is(&listed("1", "x"), &map(&[(SELF, "true")])));
        assert!(!ourselves.is(&listed("1", "shop"), &map(&[])));
        let aliased = json!({"Id": "1", "Names": ["/x"], "NetworkSettings": {"Networks": {"n": {"Aliases": ["proxy"]}}}});
        assert!(ourselves.is(&aliased, &map(&[])));
    }

    #[test]
    fn who_belongs_to_an_orchestrator_is_left_to_it() {
        let keys = [
            "com.docker.swarm.task.id",
            "io.kubernetes.pod.name",
            "com.hashicorp.nomad.alloc_id",
            PODMAN_UNIT,
        ];
        for key in keys {
            assert!(belongs_to(&map(&[(key, "x")])).is_some(), "{key}");
        }
        assert!(belongs_to(&map(&[(ONEOFF, "True")])).is_some());
        assert!(belongs_to(&map(&[(ONEOFF, "False"), (PROJECT, "p")])).is_none());
    }

    #[test]
    fn a_foreground_container_is_told_from_one_of_compose() {
        let config = json!({"AttachStdout": true});
        assert!(foreground(&config, &map(&[])).is_some());
        assert!(foreground(&config, &map(&[(PROJECT, "p"), (COMPOSE_SERVICE, "s")])).is_none());
    }

    #[test]
    fn link_names_are_not_the_name() {
        assert_eq!(listed_name(&json!({"Names": ["/web/db", "/postgres"]})), "postgres");
    }
}
