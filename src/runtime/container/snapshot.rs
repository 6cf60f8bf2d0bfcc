//! Recording a container while it is good: the raw answers of the engine, and the names behind the ids in them.

use serde_json::{Map, Value, json};

use super::{copied, fingerprint::is_id, observe, podman, replay, verbs};
use crate::core::observation::Replica;
use crate::runtime::engine::Engine;
use crate::runtime::{ErrorClass, RuntimeError, Snapshot};

/// Records one replica. It should run: a stopped container shows no addresses.
pub(super) async fn take(
    engine: &Engine,
    replica: &Replica,
    version: &Value,
) -> Result<Snapshot, RuntimeError> {
    let id = replica.id.as_str();
    let inspect = verbs::inspect(engine, id).await?.ok_or_else(|| gone(&replica.name, id))?;
    of(engine, inspect, version).await
}

/// Completes an inspect answer to a record.
pub(super) async fn of(
    engine: &Engine,
    mut inspect: Value,
    version: &Value,
) -> Result<Snapshot, RuntimeError> {
    let podman = podman::of(engine, &mut inspect).await?;
    let image_id = inspect["Image"].as_str().unwrap_or_default();
    let image = verbs::look_up(engine, &format!("/images/{image_id}/json")).await?.unwrap_or(Value::Null);
    let mut containers = Map::new();
    for reference in replay::referred(&inspect) {
        if let Some(found) = verbs::inspect(engine, &reference).await? {
            containers.insert(reference, observe::name(&found).into());
        }
    }
    let mut volumes = Map::new();
    for volume in replay::volume_mounts(&inspect).filter(|v| !is_id(&v.name)) {
        let found = verbs::look_up(engine, &format!("/volumes/{}", volume.name)).await?;
        let labels = found.map_or(Value::Null, |v| v["Labels"].clone());
        volumes.insert(volume.name, labels);
    }
    let mut context = json!({
        "engine": version["Version"],
        "api": engine.minor().await?,
        "containers": containers,
        "volumes": volumes,
    });
    if let Some(files) = copied::take(engine, &inspect).await? {
        context["copied"] = files;
    }
    if let Some(podman) = podman {
        context["podman"] = podman;
    }
    Ok(Snapshot { name: observe::name(&inspect).to_owned(), inspect, image, context })
}

fn gone(name: &str, id: &str) -> RuntimeError {
    RuntimeError { class: ErrorClass::NotFound, message: format!("{name} ({id}) is gone") }
}
