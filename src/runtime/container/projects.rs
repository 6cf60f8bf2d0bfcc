//! Compose projects as the engine's list of containers shows them: who depends on whom, and who shares a network with
//! whom. Compose writes both on the containers.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::enrol::{self, Labels};
use crate::core::release::ServiceName;
use crate::runtime::compose;

/// What a service depends on, as Compose writes it on its containers.
pub(super) const DEPENDS_ON: &str = "com.docker.compose.depends_on";

/// A service by its project's name and its own.
type Key = (String, String);

/// What a list of containers shows of projects.
#[derive(Debug, Default)]
pub(super) struct Projects {
    /// Those that are watched, by what Backstop calls them.
    watched: BTreeMap<Key, ServiceName>,
    /// Containers that are to be restarted with a service.
    restarted: BTreeMap<Key, BTreeSet<String>>,
    /// Services whose containers share a container's network, by its id.
    sharing: BTreeMap<String, BTreeSet<Key>>,
}

/// One line of `depends_on`.
#[derive(Debug, PartialEq, Eq)]
struct DependsOn<'a> {
    service: &'a str,
    restart: bool,
}

impl Projects {
    /// Takes in one listed container; `watched` is what Backstop calls its service, if it is watched.
    pub(super) fn note(&mut self, listed: &Value, labels: &Labels, watched: Option<&ServiceName>) {
        let Some((project, service)) = key(labels) else { return };
        if let Some(name) = watched {
            self.watched.insert((project.clone(), service.clone()), name.clone());
        }
        let mode = listed["HostConfig"]["NetworkMode"].as_str().unwrap_or_default();
        if let Some(id) = mode.strip_prefix("container:") {
            if listed["State"] == "running" {
                self.sharing.entry(id.to_owned()).or_default().insert((project, service));
            }
            return;
        }
        // Whether it runs is asked when its turn comes: now, whoever deploys may be about to start it.
        for on in depends_on(labels).filter(|on| on.restart) {
            let on = (project.clone(), on.service.to_owned());
            self.restarted.entry(on).or_default().insert(enrol::listed_name(listed).to_owned());
        }
    }

    /// The watched services that a container's service depends on, by what its project calls them.
    pub(super) fn dependencies(&self, labels: &Labels) -> Vec<(String, ServiceName)> {
        let Some((project, _)) = key(labels) else { return Vec::new() };
        let known = |on: DependsOn<'_>| {
            let name = self.watched.get(&(project.clone(), on.service.to_owned()))?;
            Some((on.service.to_owned(), name.clone()))
        };
        depends_on(labels).filter_map(known).collect()
    }

    /// Names of containers that are to be restarted with a service, if they run.
    pub(super) fn restarted_with(&self, project: &str, service: &str) -> Vec<String> {
        let all = self.restarted.get(&(project.to_owned(), service.to_owned()));
        all.into_iter().flatten().cloned().collect()
    }

    /// Services of a project that share the network of one of these containers.
    pub(super) fn sharing<'a>(
        &self,
        project: &str,
        containers: impl Iterator<Item = &'a str>,
    ) -> Vec<String> {
        let all = containers.filter_map(|id| self.sharing.get(id)).flatten();
        let its: BTreeSet<_> =
            all.filter(|(of, _)| of == project).map(|(_, service)| service.clone()).collect();
        its.into_iter().collect()
    }
}

fn key(labels: &Labels) -> Option<Key> {
    Some((labels.get(enrol::PROJECT)?.clone(), labels.get(compose::SERVICE)?.clone()))
}

/// `db:service_healthy:false,cache:service_started:true`; older versions leave out the last part.
fn depends_on(labels: &Labels) -> impl Iterator<Item = DependsOn<'_>> {
    let all = labels.get(DEPENDS_ON).map(String::as_str).unwrap_or_default().split(',');
    all.filter(|one| !one.is_empty()).map(|one| {
        let mut parts = one.split(':');
        let service = parts.next().unwrap_or_default();
        DependsOn { service, restart: parts.nth(1) == Some("true") }
    })
}

/// The services that a container's service depends on, as its project calls them.
pub(super) fn needs(labels: &Labels) -> Vec<String> {
    depends_on(labels).map(|on| on.service.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn labels(service: &str, depends_on: &str) -> Labels {
        let all = [(enrol::PROJECT, "shop"), (compose::SERVICE, service), (DEPENDS_ON, depends_on)];
        all.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn who_depends_on_whom_is_read_from_labels() {
        let mut projects = Projects::default();
        let mut note = |service: &str, depends_on: &str, mode: &str, state: &str| {
            let listed = json!({
                "Names": [format!("/shop-{service}-1")], "State": state, "HostConfig": {"NetworkMode": mode},
            });
            let name = ServiceName::new(format!("shop-{service}"));
            projects.note(&listed, &labels(service, depends_on), Some(&name).filter(|_| service != "cache"));
        };
        note("db", "", "shop_default", "running");
        note("cache", "", "shop_default", "running");
        note("web", "api:service_started:true", "shop_default", "running");
        note("cron", "api:service_started:true", "shop_default", "exited");
        note("jobs", "api:service_started:false", "shop_default", "running");
        note("old", "api:service_started", "shop_default", "running");
        note("side", "api:service_started:true", "container:abc", "running");
        let api =
            labels("api", "db:service_healthy:false,cache:service_started:false,gone:service_started:false");
        assert_eq!(
            projects.dependencies(&api),
            [("db".to_owned(), ServiceName::new("shop-db"))],
            "who is watched"
        );
        assert_eq!(needs(&api), ["db", "cache", "gone"]);
        assert_eq!(
            projects.restarted_with("shop", "api"),
            ["shop-cron-1", "shop-web-1"],
            "those that ask for it"
        );
        assert!(projects.restarted_with("other", "api").is_empty());
        assert_eq!(projects.sharing("shop", ["abc", "def"].into_iter()), ["side"]);
        assert!(projects.sharing("other", ["abc"].into_iter()).is_empty());
    }
}
