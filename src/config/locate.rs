//! Where each setting was set last. Holds places and no values, so it may be kept.

use std::collections::BTreeMap;

use super::layers::SHIPPED_NAME;
use super::problem::Problem;
use super::resolve::Clash;
use super::tree::{Node, Place, dotted, split};

/// The place of every key that was set, by its path.
#[derive(Clone, Default)]
pub(super) struct Places(BTreeMap<Vec<String>, Place>);

impl std::fmt::Debug for Places {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Places({})", self.0.len())
    }
}

impl Places {
    /// Notes a layer; later ones are the ones that count.
    pub(super) fn add(&mut self, layer: &Node) {
        layer.each_key(&mut Vec::new(), &mut |path, place| {
            self.0.insert(path.to_vec(), place.clone());
        });
    }

    /// Notes what labels say of a service, where its section does not say it.
    pub(super) fn add_labels(&mut self, service: &str, labels: &Node) {
        let mut above = vec!["services".to_owned(), service.to_owned()];
        labels.each_key(&mut above, &mut |path, place| {
            self.0.entry(path.to_vec()).or_insert_with(|| place.clone());
        });
    }

    /// Where a key was set last, if it was.
    pub(super) fn of(&self, path: &[String]) -> Option<&Place> {
        self.0.get(path)
    }

    /// A clash as a problem, at the first of its keys that a person set. `service` is the section it was found
    /// in; without one it was found in the whole.
    pub(super) fn problem(&self, service: Option<&str>, clash: Clash) -> Problem {
        let found: Vec<(Vec<String>, &Place)> =
            clash.keys.iter().filter_map(|key| self.last(service, key)).collect();
        let by_a_person =
            |place: &Place| !matches!(place, Place::File { path, .. } if &**path == SHIPPED_NAME);
        let best = found.iter().find(|(_, place)| by_a_person(place)).or_else(|| found.first());
        match best {
            Some((path, place)) => {
                // A label's name is its key already.
                let key = if matches!(place, Place::Label(_)) { String::new() } else { dotted(path) };
                Problem::new(place, key, clash.what)
            }
            None => Problem::new("", clash.keys.join(", "), clash.what),
        }
    }

    /// Where a key of a service was set, the service's own section first; or a key of the whole.
    fn last(&self, service: Option<&str>, key: &str) -> Option<(Vec<String>, &Place)> {
        let key = split(key)?;
        let below = |above: &[&str]| {
            let path: Vec<String> = above.iter().map(|name| (*name).to_owned()).chain(key.clone()).collect();
            self.0.get(&path).map(|place| (path, place))
        };
        match service {
            Some(service) => below(&["services", service]).or_else(|| below(&["defaults"])),
            None => below(&[]),
        }
    }
}
