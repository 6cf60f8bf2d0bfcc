//! How often somebody may do something: a token bucket for each key, in bounded memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use crate::core::Timestamp;

/// Token buckets by key. A key that was never seen, or not for long, has a full one.
#[derive(Debug)]
pub(super) struct Buckets<K> {
    burst: u32,
    refill: Duration,
    keys_max: usize,
    /// By key: the moment at which its bucket will be full again.
    full: HashMap<K, Timestamp>,
}

impl<K: Eq + Hash + Clone> Buckets<K> {
    /// Each key may `burst` times at once, and once more after each `refill`. At most `keys_max` keys are remembered;
    /// beyond that the one nearest to a full bucket is forgotten.
    pub(super) fn new(burst: u32, refill: Duration, keys_max: usize) -> Self {
        Self { burst, refill, keys_max, full: HashMap::new() }
    }

    /// How long the key has to wait; zero if it need not.
    pub(super) fn wait(&self, key: &K, now: Timestamp) -> Duration {
        let owed = self.full.get(key).map_or(Duration::ZERO, |full| full.since(now));
        (owed + self.refill).saturating_sub(self.refill * self.burst)
    }

    /// Takes one from the key's bucket.
    ///
    /// # Errors
    /// It is empty: how long the key has to wait.
    pub(super) fn take(&mut self, key: &K, now: Timestamp) -> Result<(), Duration> {
        let wait = self.wait(key, now);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.full.retain(|_, full| *full > now);
        if self.full.len() >= self.keys_max && !self.full.contains_key(key) {
            let nearest = self.full.iter().min_by_key(|(_, full)| **full).map(|(key, _)| key.clone());
            nearest.map(|key| self.full.remove(&key));
        }
        let full = self.full.entry(key.clone()).or_insert(now);
        *full = *full + self.refill;
        Ok(())
    }

    /// Gives back what was taken: it was not for this.
    pub(super) fn give_back(&mut self, key: &K) {
        if let Some(full) = self.full.get_mut(key) {
            *full = full.before(self.refill);
        }
    }
}

/// A wait as whole seconds for the `Retry-After` header, never too short.
pub(super) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + ms)
    }

    #[test]
    fn a_key_has_a_burst_and_then_one_more_every_refill() {
        let mut buckets = Buckets::new(10, SECOND, 8);
        for _ in 0..10 {
            assert_eq!(buckets.take(&7, at(0)), Ok(()));
        }
        assert_eq!(buckets.take(&7, at(0)), Err(SECOND));
        assert_eq!(buckets.take(&7, at(999)), Err(Duration::from_millis(1)));
        assert_eq!(buckets.take(&7, at(1000)), Ok(()));
        assert_eq!(
            buckets.take(&7, at(1000)),
            Err(SECOND),
            "what was refused cost nothing, what was taken did"
        );
        assert_eq!(buckets.wait(&8, at(1000)), Duration::ZERO, "others are not held up");
        buckets.give_back(&7);
        assert_eq!(buckets.take(&7, at(1000)), Ok(()));
    }

    #[test]
    fn the_memory_of_keys_is_bounded() {
        let mut buckets = Buckets::new(10, SECOND, 64);
        for n in 0..5000 {
            let _ = buckets.take(&n, at(0));
        }
        assert_eq!(buckets.full.len(), 64);
        let _ = buckets.take(&9999, at(60_000));
        assert_eq!(buckets.full.len(), 1, "a full bucket is forgotten");
    }

    #[test]
    fn whoever_waits_as_told_is_let_in() {
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(SECOND), 1);
        assert_eq!(whole_seconds(Duration::from_millis(1001)), 2);
    }
}
