//! Who is watched: a Swarm service under its own name, and never ourselves nor the proxy that we talk through.

use serde_json::Value;

use super::observe;
use crate::core::observation::Refusal;
use crate::core::release::ServiceName;
use crate::runtime::Enrolment;
use crate::runtime::container::enrol::{Labels, Ourselves, SELF};

/// The label of a task's container that names its service.
const SERVICE_ID: &str = "com.docker.swarm.service.id";

/// The name and labels of a service that is to be watched; none if it is not.
pub(super) fn enrol(
    service: &Value,
    enrolment: &dyn Enrolment,
    ourselves: &Ourselves,
    own: Option<&Value>,
) -> Option<Result<(ServiceName, Labels), Refusal>> {
    let labels = observe::labels(service);
    let name = ServiceName::new(observe::name(service));
    if is_ours(service, &labels, ourselves, own) || !enrolment.enrolled(&name, &labels) {
        return None;
    }
    Some(match observe::refused(service) {
        Some(problem) => Err(refusal(&name, vec![problem.to_owned()])),
        None => Ok((name, labels)),
    })
}

/// A service that cannot be watched.
pub(super) fn refusal(name: &ServiceName, problems: Vec<String>) -> Refusal {
    Refusal { service: name.clone(), container: format!("the Swarm service {name}"), problems }
}

/// Whether a service is ourselves, or the proxy. `own` is what the engine says of our own container.
fn is_ours(service: &Value, labels: &Labels, ourselves: &Ourselves, own: Option<&Value>) -> bool {
    let container = own.map(|own| &own["Config"]["Labels"][SERVICE_ID]);
    let ours = container.is_some_and(|id| id.is_string() && *id == service["ID"]);
    ours || labels.get(SELF).is_some_and(|v| v == "true")
        || ourselves.proxy.as_deref().is_some_and(|proxy| is_called(service, labels, proxy))
}

/// Whether others reach a service by that name: its own, the one without its stack's, or an alias.
fn is_called(service: &Value, labels: &Labels, host: &str) -> bool {
    let name = observe::name(service);
    let short = labels
        .get("com.docker.stack.namespace")
        .and_then(|stack| name.strip_prefix(stack.as_str())?.strip_prefix('_'));
    let networks = service["Spec"]["TaskTemplate"]["Networks"].as_array().into_iter().flatten();
    let mut aliases = networks.flat_map(|n| n["Aliases"].as_array().into_iter().flatten());
    name == host || short == Some(host) || aliases.any(|alias| alias == host)
}

#[cfg(test)]
mod tests {
    use super::super::recorded;
    use super::*;
    use serde_json::json;

    fn ours(service: &Value, proxy: Option<&str>, own: Option<&Value>) -> bool {
        let ourselves = Ourselves { id: None, proxy: proxy.map(str::to_owned) };
        is_ours(service, &observe::labels(service), &ourselves, own)
    }

    #[test]
    fn we_never_watch_ourselves_nor_our_proxy() {
        let mut service = recorded::service();
        assert!(!ours(&service, Some("proxy"), None));
        let own = json!({"Config": {"Labels": {SERVICE_ID: service["ID"]}}});
        assert!(ours(&service, None, Some(&own)));
        assert!(!ours(&service, None, Some(&json!({"Config": {"Labels": {}}}))));
        assert!(ours(&service, Some("web"), None));
        service["Spec"]["Name"] = json!("stack_proxy");
        service["Spec"]["Labels"]["com.docker.stack.namespace"] = json!("stack");
        assert!(ours(&service, Some("proxy"), None));
        service["Spec"]["TaskTemplate"]["Networks"] = json!([{"Target": "n", "Aliases": ["engine"]}]);
        assert!(ours(&service, Some("engine"), None));
        service["Spec"]["Labels"][SELF] = json!("true");
        assert!(ours(&service, None, None));
    }
}
