//! Networks, secrets and configs are meant by their names. A stack that is removed and deployed again has all of them anew, with
//! other ids, and that alone is no other release; nor is a record worthless whose ids are gone.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::SwarmRuntime;
use crate::runtime::RuntimeError;
use crate::runtime::container::verbs;

/// Networks remembered; a cluster with more of them is not one that we are made for.
const KNOWN_MAX: usize = 8192;
/// What refers to a thing by its id and its name, and where such things are looked up.
const REFERENCES: [(&str, &str, &str, &str); 4] = [
    ("/TaskTemplate/ContainerSpec/Secrets", "SecretID", "SecretName", "secrets"),
    ("/TaskTemplate/ContainerSpec/Configs", "ConfigID", "ConfigName", "configs"),
    ("/TaskTemplate/Networks", "Target", NAME, "networks"),
    // The member of older clients.
    ("/Networks", "Target", NAME, "networks"),
];
/// The member of a network's attachment that we put there: the manager tells its id alone.
const NAME: &str = "Name";

/// The names of networks by their ids: neither ever changes.
#[derive(Debug, Default)]
pub(super) struct Networks(Mutex<HashMap<String, String>>);

impl Networks {
    fn known(&self, id: &str) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    fn note(&self, id: &str, name: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() > KNOWN_MAX {
            known.clear();
        }
        known.insert(id.to_owned(), name.to_owned());
    }
}

impl SwarmRuntime {
    /// Writes the names of the networks that a service is in beside their ids.
    pub(super) async fn name_networks(&self, service: &mut Value) -> Result<(), RuntimeError> {
        for spec in ["/Spec", "/PreviousSpec"] {
            // The member at the top is that of older clients.
            for networks in ["/Networks", "/TaskTemplate/Networks"] {
                self.name_all(service.pointer_mut(&format!("{spec}{networks}"))).await?;
            }
        }
        Ok(())
    }

    /// The same of a task.
    pub(super) async fn name_networks_of_task(&self, task: &mut Value) -> Result<(), RuntimeError> {
        self.name_all(task.pointer_mut("/Spec/Networks")).await
    }

    async fn name_all(&self, networks: Option<&mut Value>) -> Result<(), RuntimeError> {
        for network in networks.and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(id) = network["Target"].as_str().map(str::to_owned) else { continue };
            let name = match self.networks.known(&id) {
                Some(name) => Some(name),
                None => {
                    let found = verbs::look_up(&self.engine, &format!("/networks/{id}")).await?;
                    let found = found.filter(|found| found["Id"] == id.as_str());
                    found.and_then(|found| found["Name"].as_str().map(str::to_owned))
                }
            };
            if let (Some(name), Some(members)) = (name, network.as_object_mut()) {
                self.networks.note(&id, &name);
                members.insert(NAME.to_owned(), name.into());
            }
        }
        Ok(())
    }

    /// Has a specification refer to what has the names now, where what it was recorded with is gone. Yields what there is to say
    /// about it.
    pub(super) async fn refer_anew(&self, spec: &mut Value) -> Result<Vec<String>, RuntimeError> {
        let mut notes = Vec::new();
        for (list, id, name, folder) in REFERENCES {
            for one in spec.pointer_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                let (Some(of), Some(called)) = (one[id].as_str(), one[name].as_str()) else { continue };
                if verbs::look_up(&self.engine, &format!("/{folder}/{of}")).await?.is_some() {
                    continue;
                }
                let Some(found) = self.called(folder, called).await? else { continue };
                if folder != "networks" {
                    let what = folder.trim_end_matches('s');
                    notes.push(format!(
                        "the {what} {called} was made anew since the good release was recorded: the one that is there now is used"
                    ));
                }
                one[id] = found;
            }
        }
        Ok(notes)
    }

    /// The id of what has a name now. Of networks those of the Swarm count: others may have the same name.
    async fn called(&self, folder: &str, name: &str) -> Result<Option<Value>, RuntimeError> {
        if folder != "networks" {
            let found = verbs::look_up(&self.engine, &format!("/{folder}/{name}")).await?;
            return Ok(found.filter(|found| found["Spec"]["Name"] == name).map(|found| found["ID"].clone()));
        }
        let filters = json!({"scope": ["swarm"]});
        let all = self.engine.json(&format!("/networks?filters={filters}")).await?;
        let mut all = all.as_array().into_iter().flatten();
        Ok(all.find(|network| network["Name"] == name).map(|network| network["Id"].clone()))
    }
}

/// Takes out what differs between two things of one name.
pub(super) fn forget_ids(template: &mut Value) {
    for (list, id, name, _) in REFERENCES {
        let Some(list) = list.strip_prefix("/TaskTemplate") else { continue };
        for one in template.pointer_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(members) = one.as_object_mut()
                && members.get(name).is_some_and(Value::is_string)
            {
                members.remove(id);
            }
        }
    }
}

/// Takes out what we put in.
pub(super) fn forget_names(spec: &mut Value) {
    for networks in ["/Networks", "/TaskTemplate/Networks"] {
        for one in spec.pointer_mut(networks).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(members) = one.as_object_mut() {
                members.remove(NAME);
            }
        }
    }
}
