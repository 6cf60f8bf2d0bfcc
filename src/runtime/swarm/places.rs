//! Where tasks are: what of them can be reached from here, and measured.
//!
//! A replica of a Swarm service is known by its task. Its container can be measured only by the engine of its node; its
//! address can be reached from this node's own networks, from an overlay network that we are part of, or through a port
//! that its node publishes under the same number. Any other address would look like a service that does not answer, so
//! there is none.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::observe;
use crate::runtime::RuntimeError;
use crate::runtime::container::verbs;
use crate::runtime::engine::Engine;

/// Tasks and containers remembered; a cluster with more of them is not one that we are made for.
const KNOWN_MAX: usize = 8192;

/// Where the tasks of a cluster are, as looks found them. Shared with whoever measures replicas.
#[derive(Debug, Default)]
pub struct Places(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    tasks: HashMap<String, Place>,
    /// Addresses of this node's containers on its own networks: they do not change while a container runs.
    addresses: HashMap<String, Option<IpAddr>>,
}

/// Where a replica is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A container of this engine.
    Container(String),
    /// A task on another node, with whether it has a terminal: its log can be read through the cluster, and nothing else.
    Elsewhere {
        /// For people: which node, and what follows.
        why: String,
        /// Its log is plain bytes.
        tty: bool,
    },
}

/// What is asked of the cluster once for a whole look.
#[derive(Debug, Default)]
pub(super) struct Map {
    /// Our own node.
    pub(super) node: String,
    /// Ids of the networks that we are part of.
    networks: Vec<String>,
    /// Name and address of each node, by id.
    nodes: HashMap<String, (String, Option<IpAddr>)>,
}

impl Places {
    /// Where a replica is. One that is no task is a container of this engine.
    pub fn of(&self, replica: &str) -> Place {
        self.known().tasks.get(replica).cloned().unwrap_or_else(|| Place::Container(replica.to_owned()))
    }

    /// Notes where a task is, and tells its address if it can be reached from here.
    pub(super) async fn find(
        &self,
        engine: &Engine,
        map: &Map,
        task: &Value,
    ) -> Result<Option<IpAddr>, RuntimeError> {
        let container = observe::container(task).filter(|_| task["NodeID"] == map.node.as_str());
        let place = container.clone().map_or_else(|| map.elsewhere(task), Place::Container);
        self.note(observe::id(task).as_str(), place);
        if let Some(shared) = overlay(task, &map.networks) {
            return Ok(Some(shared));
        }
        match container {
            Some(container) => self.local(engine, &container, task).await,
            None => Ok(map.published(task)),
        }
    }

    async fn local(
        &self,
        engine: &Engine,
        container: &str,
        task: &Value,
    ) -> Result<Option<IpAddr>, RuntimeError> {
        if let Some(known) = self.known().addresses.get(container) {
            return Ok(*known);
        }
        let Some(inspect) = verbs::inspect(engine, container).await? else { return Ok(None) };
        let address = on_this_node(&inspect, task);
        if address.is_some() {
            self.known().addresses.insert(container.to_owned(), address);
        }
        Ok(address)
    }

    fn note(&self, task: &str, place: Place) {
        let mut known = self.known();
        if known.tasks.len() > KNOWN_MAX || known.addresses.len() > KNOWN_MAX {
            *known = Known::default();
        }
        known.tasks.insert(task.to_owned(), place);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing that panics is done under this lock; what it holds can be asked for again anyway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Map {
    /// Asks for what all addresses depend on. `own` is what the engine says of our own container.
    pub(super) async fn draw(
        engine: &Engine,
        node: &str,
        own: Option<&Value>,
        tasks: &[Value],
    ) -> Result<Self, RuntimeError> {
        let networks = own.map(|own| own["NetworkSettings"]["Networks"].clone()).unwrap_or_default();
        let networks = networks.as_object().into_iter().flat_map(|all| all.values());
        let networks = networks.filter_map(|n| n["NetworkID"].as_str().map(str::to_owned)).collect();
        let mut map = Self { node: node.to_owned(), networks, nodes: HashMap::new() };
        // Most clusters of one node never need it.
        if tasks.iter().any(|task| task["NodeID"].as_str().is_some_and(|id| id != node)) {
            let nodes = engine.json("/nodes").await?;
            map.nodes = nodes.as_array().into_iter().flatten().filter_map(named).collect();
        }
        Ok(map)
    }

    fn elsewhere(&self, task: &Value) -> Place {
        let node = task["NodeID"].as_str().unwrap_or_default();
        let name = self.nodes.get(node).map_or(node, |(name, _)| name.as_str());
        let why = if node == self.node {
            "the task has no container yet".to_owned()
        } else {
            format!("the task runs on the node {name}, and only the engine there can measure it")
        };
        Place::Elsewhere { why, tty: task["Spec"]["ContainerSpec"]["TTY"] == true }
    }

    /// The node's address, if one of the task's ports is published there under its own number.
    fn published(&self, task: &Value) -> Option<IpAddr> {
        let ports = task["Status"]["PortStatus"]["Ports"].as_array().into_iter().flatten();
        let same = |port: &Value| {
            port["PublishMode"] == "host"
                && port["PublishedPort"].is_u64()
                && port["PublishedPort"] == port["TargetPort"]
        };
        ports.into_iter().any(same).then(|| self.nodes.get(task["NodeID"].as_str()?)?.1).flatten()
    }
}

fn named(node: &Value) -> Option<(String, (String, Option<IpAddr>))> {
    let name = node["Description"]["Hostname"].as_str().unwrap_or_default().to_owned();
    let address = node["Status"]["Addr"].as_str().and_then(|a| a.parse().ok());
    Some((node["ID"].as_str()?.to_owned(), (name, address)))
}

/// Its address in an overlay network that we are part of.
fn overlay(task: &Value, ours: &[String]) -> Option<IpAddr> {
    let attachments = task["NetworksAttachments"].as_array().into_iter().flatten();
    let shared = attachments.filter(|a| ours.iter().any(|id| a["Network"]["ID"] == id.as_str()));
    shared
        .flat_map(|a| a["Addresses"].as_array().into_iter().flatten())
        .find_map(|address| address.as_str()?.split('/').next()?.parse().ok())
}

/// Its address in a network of this node: any that the cluster did not attach it to, or that is a bridge of each node all the same
/// (`docker network create --scope swarm -d bridge`).
fn on_this_node(inspect: &Value, task: &Value) -> Option<IpAddr> {
    let attached = |id: &Value| {
        let mut all = task["NetworksAttachments"].as_array().into_iter().flatten();
        all.any(|a| a["Network"]["ID"] == *id && a["Network"]["DriverState"]["Name"] != "bridge")
    };
    let networks = inspect["NetworkSettings"]["Networks"].as_object()?.values();
    let local = networks.filter(|n| !attached(&n["NetworkID"]));
    local.into_iter().find_map(|network| {
        ["IPAddress", "GlobalIPv6Address"].iter().find_map(|key| network[*key].as_str()?.parse().ok())
    })
}

#[cfg(test)]
mod tests {
    use super::super::recorded;
    use super::*;
    use serde_json::json;

    fn map(node: &str) -> Map {
        let nodes = HashMap::from([("n2".to_owned(), ("two".to_owned(), "10.0.0.2".parse().ok()))]);
        Map { node: node.into(), networks: Vec::new(), nodes }
    }

    #[test]
    fn a_task_elsewhere_is_said_to_be_there_and_what_is_no_task_is_a_container() {
        let places = Places::default();
        let mut task = recorded::tasks()[0].clone();
        task["NodeID"] = json!("n2");
        places.note("t", map("n1").elsewhere(&task));
        let Place::Elsewhere { why, tty } = places.of("t") else { panic!("{:?}", places.of("t")) };
        assert!(why.contains("node two") && !tty, "{why}");
        assert_eq!(places.of("cb5ee1b6243c"), Place::Container("cb5ee1b6243c".into()));
    }

    #[test]
    fn a_port_published_under_its_own_number_makes_the_nodes_address_the_tasks() {
        let mut task = recorded::tasks()[0].clone();
        task["NodeID"] = json!("n2");
        assert_eq!(map("n1").published(&task), None, "8080 is published under another number");
        for port in [0, 1] {
            task["Status"]["PortStatus"]["Ports"][port]["PublishedPort"] = json!(8080);
        }
        assert_eq!(map("n1").published(&task), "10.0.0.2".parse().ok());
    }

    #[test]
    fn an_overlay_address_counts_only_for_those_who_are_part_of_it() {
        let task = &recorded::overlay_tasks()[0];
        let id = task["NetworksAttachments"][0]["Network"]["ID"].as_str().unwrap().to_owned();
        assert_eq!(overlay(task, std::slice::from_ref(&id)), "10.0.1.3".parse().ok());
        assert_eq!(overlay(task, &[]), None);
        let inspect =
            json!({"NetworkSettings": {"Networks": {"ov": {"NetworkID": id, "IPAddress": "10.0.1.3"}}}});
        assert_eq!(on_this_node(&inspect, task), None);
        let inspect = json!({"NetworkSettings": {"Networks": {"bridge": {"NetworkID": "b", "IPAddress": "10.213.5.2"}}}});
        assert_eq!(on_this_node(&inspect, &recorded::tasks()[0]), "10.213.5.2".parse().ok());
        let bridged =
            json!({"NetworksAttachments": [{"Network": {"ID": "b", "DriverState": {"Name": "bridge"}}}]});
        assert_eq!(on_this_node(&inspect, &bridged), "10.213.5.2".parse().ok());
    }
}
