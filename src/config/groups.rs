//! Groups: `[groups]`, where each name leads to the services that are one release.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::file::{Service, short_name};
use super::locate::Places;
use super::problem::{Problem, Wrong};
use super::schema::{Findings, Named, Setting, Shape};
use super::tree::{Node, Value, dotted};
use super::values::{listed, quoted};
use crate::core::release::ServiceName;
use crate::core::settings::Group;

/// No release that one team answers for consists of more services.
const MEMBERS_MAX: usize = 32;

/// The services of a group, in the order in which they go back.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(super) struct Members(pub(super) Vec<String>);

impl Setting for Members {
    const SHAPE: &'static Shape = &Shape::Leaf { read, secret: false };
}

impl Named for Members {
    const NAME: &'static str = "GROUP";

    fn check(name: &str) -> Result<(), Wrong> {
        short_name(name, "a group", "shop")
    }
}

fn read(node: &Node) -> Result<Value, Wrong> {
    const RIGHT: &str =
        "two or more services in the order in which they go back would be right, as in [\"api\", \"jobs\"]";
    let names = listed(node, RIGHT)?;
    if !(2..=MEMBERS_MAX).contains(&names.len()) {
        return Err(Wrong::new(format!("has {} services", names.len()), RIGHT));
    }
    for (i, name) in names.iter().enumerate() {
        if Service::check(name).is_err() {
            return Err(Wrong::new(format!("{} cannot be the name of a service", quoted(name)), RIGHT));
        }
        if names.iter().take(i).any(|before| before == name) {
            return Err(Wrong::new(format!("{name} is in it twice"), "once would be right"));
        }
    }
    let item = |text| Node { place: node.place.clone(), value: Value::Text(text) };
    Ok(Value::List(names.into_iter().map(item).collect()))
}

/// A service is one release with one group, or nobody knows with whom it goes back.
pub(super) fn check(groups: &BTreeMap<String, Members>, places: &Places, findings: &mut Findings) {
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for (group, members) in groups {
        for member in &members.0 {
            let Some(first) = owners.insert(member, group) else { continue };
            let path = ["groups".to_owned(), group.clone()];
            let wrong = Wrong::new(
                format!("{member} is in the group {first} already"),
                format!("one group would be right: put all that is one release with {member} into {first}"),
            );
            let place = places.of(&path).map_or_else(String::new, ToString::to_string);
            findings.problems.push(Problem::new(place, dotted(&path), wrong));
        }
    }
}

/// The groups as the core knows them.
pub(super) fn made(groups: &BTreeMap<String, Members>) -> Vec<Group> {
    let made = groups.iter().map(|(name, members)| Group {
        name: name.clone(),
        services: members.0.iter().map(|member| ServiceName::new(member.as_str())).collect(),
    });
    made.collect()
}
