//! Compose projects as the engine's list of containers shows them: who depends on whom, which Compose writes on the
//! containers, and who shares a namespace with whom, in a project or not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::Value;

use super::dependants::{Tied, Ties};
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
    /// Services whose containers share a namespace of a container, by its id.
    sharing: BTreeMap<String, BTreeSet<Key>>,
    /// Containers that share a namespace of a container, by its id, or are linked to it, by its name.
    tied: BTreeMap<String, Vec<Tied>>,
}

/// A listed container, and what is known of it besides.
pub(super) struct Listed<'a> {
    pub(super) listed: &'a Value,
    pub(super) labels: &'a Labels,
    pub(super) ties: &'a Ties,
    /// It is Backstop itself, or its way to the engine.
    pub(super) ours: bool,
}

/// One line of `depends_on`.
#[derive(Debug, PartialEq, Eq)]
struct DependsOn<'a> {
    service: &'a str,
    restart: bool,
}

impl Projects {
    /// Takes in one listed container with what it is tied to; `watched` is what Backstop calls its service, if it is watched.
    pub(super) fn note(&mut self, one: &Listed<'_>, watched: Option<&ServiceName>) {
        self.tie(one);
        let Listed { listed, labels, ties, .. } = one;
        let Some((project, service)) = key(labels) else { return };
        if let Some(name) = watched {
            self.watched.insert((project.clone(), service.clone()), name.clone());
        }
        if !ties.shares.is_empty() {
            for id in ties.shares.iter().filter(|_| is_up(listed)) {
                self.sharing.entry(id.clone()).or_default().insert((project.clone(), service.clone()));
            }
            return;
        }
        // Whether it runs is asked when its turn comes: now, whoever deploys may be about to start it.
        for on in depends_on(labels).filter(|on| on.restart) {
            let on = (project.clone(), on.service.to_owned());
            self.restarted.entry(on).or_default().insert(enrol::listed_name(listed).to_owned());
        }
    }

    /// One that does not run, and that nobody but a person would start, is a leftover.
    fn tie(&mut self, one: &Listed<'_>) {
        let Listed { listed, labels, ties, ours } = one;
        if !is_up(listed) && !ties.restarts && listed["State"] != "paused" {
            return;
        }
        let tied = Tied {
            id: listed["Id"].as_str().unwrap_or_default().to_owned(),
            name: enrol::listed_name(listed).to_owned(),
            runs: is_up(listed),
            stops: ties.stops,
            ours: *ours,
            of: key(labels),
        };
        for to in ties.shares.iter().chain(&ties.links) {
            self.tied.entry(to.clone()).or_default().push(tied.clone());
        }
    }

    /// What lives with these containers (by id and name), and with what lives with them, nearest first; without services
    /// that are made anew in another way.
    pub(super) fn living_with<'a>(
        &self,
        roots: impl Iterator<Item = (&'a str, &'a str)>,
        but: &[Key],
    ) -> Vec<Tied> {
        let mut waiting: VecDeque<(String, String)> =
            roots.map(|(id, name)| (id.to_owned(), name.to_owned())).collect();
        let mut seen: BTreeSet<String> = waiting.iter().map(|(id, _)| id.clone()).collect();
        let mut found = Vec::new();
        while let Some((id, name)) = waiting.pop_front() {
            for tied in [&id, &name].into_iter().filter_map(|to| self.tied.get(to)).flatten() {
                let elsewhere = tied.of.as_ref().is_some_and(|of| but.contains(of));
                if !elsewhere && seen.insert(tied.id.clone()) {
                    waiting.push_back((tied.id.clone(), tied.name.clone()));
                    found.push(tied.clone());
                }
            }
        }
        found
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

    /// Services of a project that share a namespace of one of these containers.
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

fn is_up(listed: &Value) -> bool {
    listed["State"] == "running" || listed["State"] == "restarting"
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
        let mut note = |service: &str, depends_on: &str, shares: &str, state: &str| {
            let name = format!("shop-{service}-1");
            let listed = json!({"Id": name, "Names": [format!("/{name}")], "State": state});
            let ties = Ties { shares: strings(shares), ..Ties::default() };
            let name = ServiceName::new(format!("shop-{service}"));
            let (labels, ours) = (labels(service, depends_on), false);
            let one = Listed { listed: &listed, labels: &labels, ties: &ties, ours };
            projects.note(&one, Some(&name).filter(|_| service != "cache"));
        };
        note("db", "", "", "running");
        note("cache", "", "", "running");
        note("web", "api:service_started:true", "", "running");
        note("cron", "api:service_started:true", "", "exited");
        note("jobs", "api:service_started:false", "", "running");
        note("old", "api:service_started", "", "running");
        note("side", "api:service_started:true", "abc", "running");
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

    fn strings(one: &str) -> Vec<String> {
        Some(one.to_owned()).into_iter().filter(|one| !one.is_empty()).collect()
    }

    #[test]
    fn what_lives_with_a_container_is_found_with_what_lives_with_that() {
        let mut projects = Projects::default();
        let mut note = |name: &str, shares: &str, link: &str, state: &str, restarts: bool| {
            let listed = json!({"Id": format!("id-{name}"), "Names": [format!("/{name}")], "State": state});
            let ties = Ties { shares: strings(shares), links: strings(link), restarts, stops: None };
            let labels = if name == "side" { labels("side", "") } else { Labels::new() };
            projects.note(&Listed { listed: &listed, labels: &labels, ties: &ties, ours: false }, None);
        };
        note("web", "", "", "running", true);
        note("side", "id-web", "", "running", false);
        note("crashing", "id-web", "", "restarting", true);
        note("asleep", "id-web", "", "exited", true);
        note("leftover", "id-web", "", "exited", false);
        note("paused", "id-web", "", "paused", false);
        note("old", "", "web", "running", false);
        note("deeper", "id-side", "", "running", false);
        note("other", "id-db", "db", "running", false);
        let found = |but: &[Key]| -> Vec<(String, bool)> {
            let all = projects.living_with([("id-web", "web")].into_iter(), but);
            all.into_iter().map(|one| (one.name, one.runs)).collect()
        };
        let named = |all: &[(&str, bool)]| -> Vec<(String, bool)> {
            all.iter().map(|(name, runs)| ((*name).to_owned(), *runs)).collect()
        };
        let rest = [("crashing", true), ("asleep", false), ("paused", false), ("old", true)];
        assert_eq!(found(&[]), named(&[&[("side", true)], &rest[..], &[("deeper", true)]].concat()));
        assert_eq!(found(&[("shop".into(), "side".into())]), named(&rest), "Compose sees to it");
    }
}
