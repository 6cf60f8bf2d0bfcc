//! Which image a name without a digest meant when a task was made of it.
//!
//! Nodes that get an image from a registry are told its digest, and that says what runs. An image that was built where it runs has
//! none: `docker tag` and `docker service update --force` deploy another one under the name that the service has already, and a
//! task that Swarm merely starts again is made of whatever the name shows by then. Where the Swarm has one node only, its engine
//! knows what each task was made of, and that image counts. In a Swarm of several nodes the name has to do: each node has images of
//! its own, and a manager sees those of none but its own.
//!
//! What is known is written into what the manager answered, beside the image's name, so that specifications are compared with
//! it, and recorded with it. [`without`] takes it out before anything is sent.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Value, json};

use super::{observe, release};
use crate::runtime::RuntimeError;
use crate::runtime::container::verbs;
use crate::runtime::engine::Engine;

/// The member of a container's specification that we put there.
pub(super) const IMAGE_ID: &str = "ImageID";

/// What the only node of a Swarm has.
#[derive(Debug, Default)]
pub(super) struct Images {
    /// What containers of tasks were made of.
    containers: HashMap<String, String>,
    /// What names show now.
    shown: HashMap<String, String>,
}

impl Images {
    /// Asks for what these services need. Nothing, unless the engine's node is `alone`.
    pub(super) async fn ask(
        engine: &Engine,
        alone: bool,
        services: impl Iterator<Item = &Value>,
    ) -> Result<Self, RuntimeError> {
        let names: BTreeSet<&str> =
            services.filter_map(|service| name(&service["Spec"]["TaskTemplate"])).collect();
        let mut images = Self::default();
        if names.is_empty() || !alone {
            return Ok(images);
        }
        let filters = json!({"label": ["com.docker.swarm.task.id"]});
        let listed = engine.json(&format!("/containers/json?all=1&filters={filters}")).await?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let listed = listed.as_array().into_iter().flatten();
        images.containers =
            listed.filter_map(|one| Some((text(&one["Id"])?, text(&one["ImageID"])?))).collect();
        for name in names {
            if let Some(image) = verbs::image_id(engine, name).await? {
                images.shown.insert(name.to_owned(), image.as_str().to_owned());
            }
        }
        Ok(images)
    }

    /// Writes them into a service and its tasks. A service is told to run what its newest task was made of, and before there is
    /// one, what its name shows.
    pub(super) fn name(&self, service: &mut Value, tasks: &mut [Value]) {
        let template = service["Spec"]["TaskTemplate"].clone();
        let Some(called) = name(&template) else { return };
        let text = release::template(&template);
        let forced = |template: &Value| template["ForceUpdate"].as_u64().unwrap_or(0);
        let of_current = |task: &Value| {
            forced(&task["Spec"]) == forced(&template) && release::template(&task["Spec"]) == text
        };
        let made_of = |task: &Value| self.containers.get(&observe::container(task)?).cloned();
        let made = tasks.iter().filter(|task| of_current(task));
        let newest = made.filter_map(|task| Some((observe::created(task), made_of(task)?))).max();
        let told = newest.map(|(_, image)| image).or_else(|| self.shown.get(called).cloned());
        for task in tasks.iter_mut().filter(|task| name(&task["Spec"]).is_some()) {
            // One that is not made yet, or could not be, is of what its service is told to run.
            let unmade = observe::container(task).is_none() && of_current(task);
            let of = made_of(task).or_else(|| told.clone().filter(|_| unmade));
            write(&mut task["Spec"], of);
        }
        write(&mut service["Spec"]["TaskTemplate"], told);
    }
}

/// What is written into a task template; none if nothing is.
pub(super) fn of(template: &Value) -> Option<&str> {
    template["ContainerSpec"][IMAGE_ID].as_str()
}

/// A specification as the manager knows it.
pub(super) fn without(spec: &Value) -> Value {
    let mut spec = spec.clone();
    if let Some(template) = spec.get_mut("TaskTemplate") {
        write(template, None);
    }
    spec
}

/// The same with the image said by its id, if that is known.
pub(super) fn by_id(spec: &Value) -> Value {
    let mut spec = spec.clone();
    if let Some(id) = of(&spec["TaskTemplate"]).map(str::to_owned) {
        spec["TaskTemplate"]["ContainerSpec"]["Image"] = id.into();
    }
    spec
}

/// The image's name, if it has no digest that says which one it is.
pub(super) fn name(template: &Value) -> Option<&str> {
    template["ContainerSpec"]["Image"].as_str().filter(|image| !image.is_empty() && !image.contains('@'))
}

pub(super) fn write(template: &mut Value, image: Option<String>) {
    let Some(container) = template.pointer_mut("/ContainerSpec").and_then(Value::as_object_mut) else {
        return;
    };
    match image {
        Some(image) => _ = container.insert(IMAGE_ID.to_owned(), image.into()),
        None => _ = container.remove(IMAGE_ID),
    }
}

#[cfg(test)]
mod tests {
    use super::super::recorded;
    use super::*;

    fn images(containers: &[(&str, &str)], shown: &str) -> Images {
        let of = |(container, image): &(&str, &str)| ((*container).to_owned(), (*image).to_owned());
        Images {
            containers: containers.iter().map(of).collect(),
            shown: [("web:v1".to_owned(), shown.to_owned())].into(),
        }
    }

    fn task(created: u32, container: &str, forced: u64) -> Value {
        let mut spec = recorded::service()["Spec"]["TaskTemplate"].clone();
        spec["ForceUpdate"] = json!(forced);
        json!({"ID": format!("t{created}"), "Slot": 1, "DesiredState": "running", "Spec": spec,
            "CreatedAt": format!("2026-11-21T22:50:{created}Z"),
            "Status": {"State": "running", "ContainerStatus": {"ContainerID": container}}})
    }

    fn told(images: &Images, forced: u64, mut tasks: Vec<Value>) -> (Option<String>, Vec<Option<String>>) {
        let mut service = recorded::service();
        service["Spec"]["TaskTemplate"]["ForceUpdate"] = json!(forced);
        images.name(&mut service, &mut tasks);
        let of = |template: &Value| of(template).map(str::to_owned);
        (of(&service["Spec"]["TaskTemplate"]), tasks.iter().map(|task| of(&task["Spec"])).collect())
    }

    #[test]
    fn a_service_runs_what_its_newest_task_was_made_of() {
        let images = images(&[("c1", "sha256:a"), ("c2", "sha256:b")], "sha256:b");
        let some = |image: &str| Some(image.to_owned());
        // The name was moved, and nothing deployed.
        assert_eq!(told(&images, 0, vec![task(10, "c1", 0)]), (some("sha256:a"), vec![some("sha256:a")]));
        // Swarm started one again, or somebody forced it: it is made of something else than its neighbour.
        let both = vec![some("sha256:a"), some("sha256:b")];
        let again = vec![task(10, "c1", 0), task(11, "c2", 0)];
        assert_eq!(told(&images, 0, again), (some("sha256:b"), both.clone()));
        let forced = vec![task(10, "c1", 0), task(11, "c2", 1)];
        assert_eq!(told(&images, 1, forced), (some("sha256:b"), both));
        // It was forced this moment.
        let (service, tasks) = told(&images, 1, vec![task(10, "c1", 0)]);
        assert_eq!((service, tasks), (some("sha256:b"), vec![some("sha256:a")]));
        let on_its_way = vec![task(10, "c1", 0), task(11, "", 1)];
        assert_eq!(told(&images, 1, on_its_way).1, [some("sha256:a"), some("sha256:b")]);
    }

    #[test]
    fn a_digest_says_it_all_and_what_is_not_known_is_not_written() {
        let mut service = recorded::service();
        let as_it_was = service.clone();
        Images::default().name(&mut service, &mut []);
        assert_eq!(service, as_it_was);
        service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] = json!("web:v1@sha256:6eeea2147b09");
        let with_digest = service.clone();
        images(&[], "sha256:a").name(&mut service, &mut []);
        assert_eq!(service, with_digest);
    }

    #[test]
    fn what_was_written_makes_a_release_and_is_never_sent() {
        let mut service = recorded::service();
        let before = release::release(&service["Spec"]);
        images(&[], "sha256:a").name(&mut service, &mut []);
        let release = release::release(&service["Spec"]);
        assert_eq!((release.image.as_str(), release.reference.as_str()), ("sha256:a", "web:v1"));
        assert_ne!(release.id, before.id);
        assert_eq!(release.fingerprint, before.fingerprint);
        assert_eq!(without(&service["Spec"]), recorded::service()["Spec"]);
    }
}
