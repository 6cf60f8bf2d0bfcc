//! The agenda: when each service is to have its next turn if nothing is heard of it before. Kept in order of time, because
//! every input asks who is next.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::release::ServiceName;
use super::time::Timestamp;

/// Who has a turn when.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Agenda {
    in_order: BTreeSet<(Timestamp, ServiceName)>,
    of: BTreeMap<ServiceName, Timestamp>,
}

impl Agenda {
    /// `service` has its next turn at `at`, and not when it was said before.
    pub(crate) fn set(&mut self, service: &ServiceName, at: Timestamp) {
        match self.of.get_mut(service) {
            Some(known) if *known == at => return,
            Some(known) => {
                self.in_order.remove(&(*known, service.clone()));
                *known = at;
            }
            None => {
                self.of.insert(service.clone(), at);
            }
        }
        self.in_order.insert((at, service.clone()));
    }

    /// `service` has no more turns.
    pub(crate) fn remove(&mut self, service: &ServiceName) {
        if let Some(at) = self.of.remove(service) {
            self.in_order.remove(&(at, service.clone()));
        }
    }

    /// When the next turn is.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.in_order.first().map(|(at, _)| *at)
    }

    /// Who has a turn until `by`, in order of names.
    pub(crate) fn until(&self, by: Timestamp) -> BTreeSet<ServiceName> {
        self.in_order.iter().take_while(|(at, _)| *at <= by).map(|(_, name)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_about_a_service_counts() {
        let [a, b] = ["a", "b"].map(ServiceName::new);
        let at = Timestamp::from_secs;
        let mut agenda = Agenda::default();
        assert_eq!(agenda.next(), None);
        agenda.set(&a, at(5));
        agenda.set(&b, at(3));
        agenda.set(&b, at(9));
        agenda.set(&a, at(5));
        assert_eq!(agenda.next(), Some(at(5)));
        assert_eq!(agenda.until(at(8)), BTreeSet::from([a.clone()]));
        assert_eq!(agenda.until(at(9)), BTreeSet::from([a.clone(), b.clone()]));
        agenda.remove(&a);
        agenda.remove(&a);
        assert_eq!((agenda.next(), agenda.until(at(9))), (Some(at(9)), BTreeSet::from([b])));
    }
}
