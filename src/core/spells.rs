//! Spells: trouble that came and went by itself while the release before ran.
//!
//! A job, a garbage collector, a probe that fails now and then: what had come twice before a deployment, and comes again
//! after it, for no longer and no worse than it used to, was not brought by it. decision.md names regular jobs as what a
//! comparison with the time before does not see: on average nothing was wrong. Gandalf lets such faults veto the blame of
//! the deployments that they also hit without.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::decision::percent_of;
use super::time::{Timestamp, human};

/// What comes once an hour has come twice in so long.
const REMEMBERED: Duration = Duration::from_secs(2 * 60 * 60 + 10 * 60);
/// Spells kept of a row: one every eight minutes of that time.
const KEPT: usize = 16;
/// What came so often comes again.
const RECURS: usize = 2;
/// What has not come for so many times the time between the last two has stopped to.
const OVERDUE: u32 = 3;
/// To be something else it has to last for twice as long as before, or for so much longer ...
const LONGER: Duration = Duration::from_secs(2 * 60);
/// ... or to be so many times as bad. How many are slower than a limit changes by more than how slow they are.
const WORSE: f64 = 2.0;

/// One time at which a row's line was crossed, until it was so no more.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spell {
    pub(crate) began: Timestamp,
    pub(crate) lasted: Duration,
    /// The largest share of bad requests; zero for rows that count none.
    pub(crate) worst: f64,
}

/// The spells of a service, by row.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spells {
    past: BTreeMap<String, VecDeque<Spell>>,
    /// The worst so far of those that go on; none if it has a reason.
    running: BTreeMap<String, Option<f64>>,
}

/// What recurred before a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Recurring {
    times: usize,
    /// At least two lasted for so long ...
    lasted: Duration,
    /// ... and at least two were as bad as that.
    worst: f64,
    /// Two of them were as close as that, from beginning to beginning.
    apart: Duration,
}

impl Spells {
    /// The row's line is crossed, and so many of its requests are bad.
    pub(crate) fn goes_on(&mut self, row: &str, share: f64) {
        match self.running.get_mut(row) {
            Some(worst) => *worst = worst.map(|worst| worst.max(share)),
            None => _ = self.running.insert(row.to_owned(), Some(share)),
        }
    }

    /// What goes on has a reason, and does not come and go by itself.
    pub(crate) fn have_a_reason(&mut self) {
        self.running.values_mut().for_each(|worst| *worst = None);
    }

    /// What is crossed no more, and has not passed either, is of no interest.
    pub(crate) fn keep_only<T>(&mut self, crossed: &BTreeMap<String, T>) {
        self.running.retain(|row, _| crossed.contains_key(row));
    }

    /// It is crossed no more.
    pub(crate) fn ended(&mut self, now: Timestamp, row: &str, began: Timestamp) {
        let Some(worst) = self.running.remove(row).flatten() else { return };
        let past = self.past.entry(row.to_owned()).or_default();
        past.retain(|spell| now.since(spell.began) <= REMEMBERED);
        if past.len() == KEPT {
            past.pop_front();
        }
        past.push_back(Spell { began, lasted: now.since(began), worst });
    }

    /// Another release runs: what goes on now is not known to end by itself.
    pub(crate) fn break_off(&mut self) {
        self.running.clear();
    }

    /// What began since then was a release's own.
    pub(crate) fn forget_since(&mut self, deployed: Timestamp) {
        self.running.clear();
        self.past.values_mut().for_each(|past| past.retain(|spell| spell.began < deployed));
    }

    /// When a row's last spell before `onset` began, if that was after the deployment.
    pub(crate) fn last(&self, row: &str, deployed: Timestamp, onset: Timestamp) -> Option<Timestamp> {
        let mut began = self.past.get(row)?.iter().map(|spell| spell.began);
        began.rfind(|began| *began >= deployed && *began < onset)
    }

    /// What recurred until now, by row.
    pub(crate) fn recurring(&self, now: Timestamp) -> BTreeMap<String, Recurring> {
        let each = |(row, past): (&String, &VecDeque<Spell>)| {
            let lately = past.iter().filter(|spell| now.since(spell.began) <= REMEMBERED);
            Some((row.clone(), Recurring::of(now, lately)?))
        };
        self.past.iter().filter_map(each).collect()
    }
}

impl Recurring {
    /// What these have in common, oldest first; none if there are too few of them, or if they have stopped to come.
    pub(crate) fn of<'a>(now: Timestamp, spells: impl DoubleEndedIterator<Item = &'a Spell>) -> Option<Self> {
        let spells: Vec<&Spell> = spells.collect();
        let [.., before, last] = spells.as_slice() else { return None };
        if now.since(last.began) > OVERDUE * last.began.since(before.began) {
            return None;
        }
        let times = spells.len();
        let nth = times.checked_sub(RECURS)?;
        let mut lasted: Vec<Duration> = spells.iter().map(|spell| spell.lasted).collect();
        lasted.sort_unstable();
        let mut worst: Vec<f64> = spells.iter().map(|spell| spell.worst).collect();
        worst.sort_unstable_by(f64::total_cmp);
        let apart = spells.windows(2).map(|pair| pair[1].began.since(pair[0].began)).min()?;
        Some(Self { times, lasted: lasted[nth], worst: worst[nth], apart })
    }

    /// Why a row that has been crossed for so long, by such a share of bad requests, is not blamed on the deployment. `since`
    /// is how long after the last one of the new release this one began.
    pub(crate) fn excuse(&self, lasts: Duration, share: f64, since: Option<Duration>) -> Option<String> {
        let patience = self.lasted + self.lasted.min(LONGER);
        let too_often = since.is_some_and(|since| since < self.apart / 2);
        if lasts > patience || too_often || (self.worst > 0.0 && share > WORSE * self.worst) {
            return None;
        }
        let bad = if self.worst > 0.0 { format!(" and {}", percent_of(self.worst)) } else { String::new() };
        Some(format!(
            "the same came and went {} times before the deployment, for up to {}{bad}: it has to last for {}, or be worse",
            self.times,
            human(self.lasted),
            human(patience)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(100_000 + secs)
    }

    fn after(spells: &[(u64, u64, f64)]) -> Option<Recurring> {
        let mut all = Spells::default();
        for (began, ended, worst) in spells {
            all.goes_on("errors", worst / 2.0);
            all.goes_on("errors", *worst);
            all.ended(at(*ended), "errors", at(*began));
        }
        all.recurring(at(3600)).get("errors").copied()
    }

    #[test]
    fn what_came_once_does_not_recur() {
        assert_eq!(after(&[(0, 60, 0.5)]), None);
        assert!(after(&[(1800, 1860, 0.5), (2700, 2740, 0.5)]).is_some());
        assert_eq!(after(&[(0, 60, 0.5), (600, 640, 0.5)]), None, "it has not come for 50 minutes");
    }

    #[test]
    fn it_is_the_same_if_two_were_as_long_and_as_bad() {
        let recurring = after(&[(1200, 1260, 0.2), (1800, 1840, 0.3), (2400, 2700, 0.9)]).unwrap();
        let secs = Duration::from_secs;
        assert!(recurring.excuse(secs(120), 0.59, None).unwrap().contains("3 times before"));
        assert_eq!(recurring.excuse(secs(121), 0.3, None), None, "longer than twice the second longest");
        assert_eq!(recurring.excuse(secs(30), 0.61, None), None, "worse than the second worst");
        assert!(recurring.excuse(secs(30), 0.3, Some(secs(400))).is_some());
        assert_eq!(recurring.excuse(secs(30), 0.3, Some(secs(200))), None, "it comes more often");
    }

    #[test]
    fn what_has_a_reason_does_not_recur() {
        let mut all = Spells::default();
        for began in [2400, 3000] {
            all.goes_on("errors", 0.3);
            all.have_a_reason();
            all.goes_on("errors", 0.3);
            all.ended(at(began + 60), "errors", at(began));
        }
        assert_eq!(all.recurring(at(3600)).len(), 0);
    }

    #[test]
    fn what_is_long_ago_is_forgotten_and_so_is_what_a_bad_release_did() {
        let mut all = Spells::default();
        for began in [0, 600] {
            all.goes_on("health", 0.0);
            all.ended(at(began + 60), "health", at(began));
        }
        assert_eq!(all.recurring(at(600) + REMEMBERED).len(), 0);
        all.forget_since(at(300));
        assert_eq!(all.recurring(at(700)).len(), 0);
    }
}
