//! What is done to a Swarm service instead of a rollback: its tasks are replaced, or there are more of them.

use std::time::Duration;

use serde_json::Value;

use super::apply::{POLL, said};
use super::{SwarmRuntime, conflict, not_found, observe, plan};
use crate::core::release::ServiceName;
use crate::runtime::engine::permanent;
use crate::runtime::{ErrorClass, RuntimeError};

impl SwarmRuntime {
    /// What runs everywhere, with its name: what an update is still bringing to the nodes is nothing to go on from.
    pub(super) async fn settled(&self, service: &ServiceName) -> Result<(Value, String), RuntimeError> {
        let found = self.survey(Some(service)).await?.found.into_iter().next();
        let found = found.ok_or_else(|| not_found(format!("the service {service} is gone")))?;
        observe::settled(&found.service)
            .map_err(|why| conflict(format!("{service} is being updated: {why}")))?;
        let name = observe::name(&found.service).to_owned();
        Ok((found.service, name))
    }

    /// Replaces its tasks by ones of the same specification, as `docker service update --force` does.
    pub(super) async fn force_update(&self, service: &ServiceName) -> Result<(), RuntimeError> {
        let (seen, name) = self.settled(service).await?;
        let mut spec = seen["Spec"].clone();
        let forced = spec["TaskTemplate"]["ForceUpdate"].as_u64().unwrap_or(0);
        spec["TaskTemplate"]["ForceUpdate"] = forced.saturating_add(1).into();
        let id = seen["ID"].as_str().unwrap_or_default();
        self.put(id, &seen, &spec).await.map_err(|e| said(&format!("restarting {name}"), e))?;
        self.updated(service, plan::within(&spec, 1)).await
    }

    /// Changes how many replicas there are to be, and nothing else.
    pub(super) async fn set_replicas(
        &self,
        service: &ServiceName,
        replicas: u32,
    ) -> Result<String, RuntimeError> {
        let (seen, name) = self.settled(service).await?;
        let mut spec = seen["Spec"].clone();
        let Some(were) = spec["Mode"]["Replicated"]["Replicas"].as_u64() else {
            return Err(permanent(format!("{name} runs once on each node: it has no number of replicas")));
        };
        spec["Mode"]["Replicated"]["Replicas"] = replicas.into();
        let id = seen["ID"].as_str().unwrap_or_default();
        self.put(id, &seen, &spec).await.map_err(|e| said(&format!("scaling {name}"), e))?;
        Ok(format!("it had {were} replicas: docker service scale {name}={were}"))
    }

    /// Waits until an update that was asked for is over.
    async fn updated(&self, service: &ServiceName, within: Duration) -> Result<(), RuntimeError> {
        let began = self.clock.now();
        loop {
            let ended = self.settled(service).await;
            match ended {
                Err(e) if e.class == ErrorClass::Conflict && self.clock.now().since(began) < within => {}
                other => return other.map(drop),
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
