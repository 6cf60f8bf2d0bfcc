//! What is done to a Swarm service instead of a rollback: its tasks are replaced, or there are more of them.

use std::time::Duration;

use serde_json::Value;

use super::apply::{ATTEMPTS, POLL, deployed, is_out_of_sequence, restless, said};
use super::{Found, SwarmRuntime, conflict, not_found, observe, plan, release};
use crate::core::release::ServiceName;
use crate::core::time::human;
use crate::runtime::RuntimeError;
use crate::runtime::engine::permanent;

/// A task that takes longer than this to start is not waited for before its service is judged again.
const GROWS_WITHIN: Duration = Duration::from_secs(60);

impl SwarmRuntime {
    /// What runs everywhere, with its name: what an update is still bringing to the nodes is nothing to go on from.
    pub(super) async fn settled(&self, service: &ServiceName) -> Result<(Value, String), RuntimeError> {
        let found = self.one(service).await?;
        observe::settled(&found.service)
            .map_err(|why| conflict(format!("{service} is being updated: {why}")))?;
        let name = observe::name(&found.service).to_owned();
        Ok((found.service, name))
    }

    async fn one(&self, service: &ServiceName) -> Result<Found, RuntimeError> {
        let found = self.survey(Some(service)).await?.found.into_iter().next();
        found.ok_or_else(|| not_found(format!("the service {service} is gone")))
    }

    /// Replaces its tasks by ones of the same specification, as `docker service update --force` does.
    pub(super) async fn force_update(&self, service: &ServiceName) -> Result<(), RuntimeError> {
        let force = |spec: &mut Value| {
            let forced = spec["TaskTemplate"]["ForceUpdate"].as_u64().unwrap_or(0).saturating_add(1);
            spec["TaskTemplate"]["ForceUpdate"] = forced.into();
            Ok(forced)
        };
        let (seen, forced) = self.change(service, "restarting", force).await?;
        self.replaced(service, forced, plan::within(&seen["Spec"], 1)).await
    }

    /// Changes how many replicas there are to be, and nothing else, and waits for them.
    pub(super) async fn set_replicas(
        &self,
        service: &ServiceName,
        replicas: u32,
    ) -> Result<String, RuntimeError> {
        let scale = |spec: &mut Value| {
            let Some(were) = spec["Mode"]["Replicated"]["Replicas"].as_u64() else {
                let why = "runs once on each node: it has no number of replicas";
                return Err(permanent(format!("{service} {why}")));
            };
            spec["Mode"]["Replicated"]["Replicas"] = replicas.into();
            Ok(were)
        };
        let (seen, were) = self.change(service, "scaling", scale).await?;
        let name = observe::name(&seen);
        let back = format!("it had {were} replicas: docker service scale {name}={were}");
        match self.grown(&seen, service, replicas).await {
            Ok(short) => Ok(format!("{back}{short}")),
            Err(error) => Err(RuntimeError { message: format!("{}; {back}", error.message), ..error }),
        }
    }

    /// Changes something of what runs. Whoever changes something else just then keeps that; a deployment comes first. Gives
    /// the service as it was, and what `make` yields.
    async fn change<T>(
        &self,
        service: &ServiceName,
        what: &str,
        make: impl Fn(&mut Value) -> Result<T, RuntimeError>,
    ) -> Result<(Value, T), RuntimeError> {
        let mut runs = None;
        for _ in 0..ATTEMPTS {
            let (seen, name) = self.settled(service).await?;
            let now = release::release(&seen["Spec"]).id;
            if *runs.get_or_insert_with(|| now.clone()) != now {
                return Err(deployed(&name, &seen));
            }
            let mut spec = seen["Spec"].clone();
            if let Some(why) = self.would_deploy(&spec).await? {
                return Err(permanent(format!("{what} {name}: {why}")));
            }
            let made = make(&mut spec)?;
            let id = seen["ID"].as_str().unwrap_or_default();
            match self.put(id, &seen, &spec).await {
                Err(error) if is_out_of_sequence(&error) => {}
                other => {
                    other.map_err(|e| said(&format!("{what} {name}"), e))?;
                    return Ok((seen, made));
                }
            }
        }
        Err(restless(what, service.as_str()))
    }

    /// Waits until what is wanted to run was made since it was forced. That no update is under way says nothing: it may not
    /// have begun.
    async fn replaced(
        &self,
        service: &ServiceName,
        forced: u64,
        within: Duration,
    ) -> Result<(), RuntimeError> {
        let is_new = |task: &Value| task["Spec"]["ForceUpdate"].as_u64().unwrap_or(0) >= forced;
        let began = self.clock.now();
        loop {
            let found = self.one(service).await?;
            let settled = observe::settled(&found.service);
            let mut wanted = found.tasks.iter().filter(|task| observe::is_wanted(task));
            if settled.is_ok() && wanted.all(|task| is_new(task) && observe::is_running(task)) {
                return Ok(());
            }
            let late = self.clock.now().since(began) >= within;
            match settled {
                Err(why) if late || why.contains("paused") => {
                    return Err(conflict(format!("{service} is being updated: {why}")));
                }
                Ok(()) if late => {
                    let why = format!("not all of {service} runs anew within {}", human(within));
                    return Err(permanent(why));
                }
                Ok(()) | Err(_) => {}
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits for as many to run as there are to be: before that, nothing has less to do. Not for long, for meanwhile nobody is
    /// judged. Yields what there is to say if they do not.
    async fn grown(
        &self,
        seen: &Value,
        service: &ServiceName,
        replicas: u32,
    ) -> Result<String, RuntimeError> {
        let (began, all) = (self.clock.now(), usize::try_from(replicas).unwrap_or(usize::MAX));
        let release = release::release(&seen["Spec"]).id;
        loop {
            let found = self.one(service).await?;
            let (now, name) = (&found.service["Spec"], observe::name(&found.service));
            if release::release(now).id != release {
                return Err(deployed(name, &found.service));
            }
            if now["Mode"]["Replicated"]["Replicas"] != replicas {
                return Ok(format!("; somebody else scaled {name} meanwhile"));
            }
            let wanted = found.tasks.iter().filter(|task| observe::is_wanted(task));
            let run = wanted.filter(|task| observe::is_running(task)).count();
            if run >= all {
                return Ok(String::new());
            }
            if self.clock.now().since(began) >= GROWS_WITHIN {
                let within = human(GROWS_WITHIN);
                return Ok(format!(
                    "; only {run} of {replicas} ran after {within}: docker service ps {name}"
                ));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
