//! Latencies as counts in buckets, and what can be read from them: how many requests were slower than a limit, and
//! which latency one in a hundred exceeds.
//!
//! Within a bucket the share of slower requests is taken to fall as a power of the latency (a straight line when both
//! are logarithms). With the usual buckets a linear reading mistakes every fourth 1.8-fold p99 for a twofold one;
//! this one does so in two of a thousand cases (decision.md, section 3).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::sample::Latencies;

/// Layouts of buckets kept side by side: two sources, and a change of each. Beyond that, the oldest goes.
const LAYOUTS_MAX: usize = 4;

/// Latencies added up, layout by layout.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sketch {
    layouts: Vec<Layout>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Layout {
    /// Upper bounds in seconds, ascending. Of the many sketches of one service they are shared: to compare them with
    /// themselves, number by number, would be most of the work of adding sketches up.
    bounds: Arc<[f64]>,
    /// How many requests each bucket holds; the last one is what is above all bounds.
    counts: Vec<u64>,
}

/// What a sketch says about a limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Slower {
    /// So many requests were slower.
    Count(f64),
    /// The limit lies above the highest bound, in seconds: at most so many were slower.
    AtMost(f64, f64),
}

impl Slower {
    /// How many there were at most.
    pub const fn at_most(self) -> f64 {
        match self {
            Self::Count(n) | Self::AtMost(n, _) => n,
        }
    }
}

impl Sketch {
    /// Adds a measurement; one that contradicts itself adds nothing.
    pub fn add(&mut self, latencies: &Latencies) {
        let Some(counts) = buckets(latencies) else { return };
        let same = self.layouts.iter().position(|l| *l.bounds == *latencies.bounds);
        let layout = match same {
            Some(i) => &mut self.layouts[i],
            None => {
                if self.layouts.len() == LAYOUTS_MAX {
                    self.layouts.remove(0);
                }
                let bounds = latencies.bounds.as_slice().into();
                self.layouts.push(Layout { bounds, counts: vec![0; counts.len()] });
                let last = self.layouts.len() - 1;
                &mut self.layouts[last]
            }
        };
        for (sum, count) in layout.counts.iter_mut().zip(counts) {
            *sum = sum.saturating_add(count);
        }
    }

    /// Adds another sketch.
    pub fn merge(&mut self, other: &Self) {
        for theirs in &other.layouts {
            if let Some(ours) = self.layouts.iter_mut().find(|ours| ours.is_like(theirs)) {
                for (sum, count) in ours.counts.iter_mut().zip(&theirs.counts) {
                    *sum = sum.saturating_add(*count);
                }
            } else if self.layouts.len() < LAYOUTS_MAX {
                self.layouts.push(theirs.clone());
            }
        }
    }

    /// Whether everything in `other` was sorted into buckets that are known here.
    pub fn has_the_buckets_of(&self, other: &Self) -> bool {
        other.layouts.iter().all(|theirs| self.layouts.iter().any(|ours| ours.is_like(theirs)))
    }

    /// Takes the very bounds of another sketch where they are the same.
    pub fn share_bounds(&mut self, other: &Self) {
        for ours in &mut self.layouts {
            if let Some(theirs) = other.layouts.iter().find(|theirs| theirs.is_like(ours)) {
                ours.bounds = Arc::clone(&theirs.bounds);
            }
        }
    }

    /// The lowest latency from `limit` on about which every layout is certain: a bound of each, or what is above all.
    pub fn certain_from(&self, limit: f64) -> f64 {
        let bound = |l: &Layout| l.bounds.iter().copied().find(|bound| *bound >= limit).unwrap_or(limit);
        self.layouts.iter().map(bound).fold(limit, f64::max)
    }

    /// How many requests it holds.
    pub fn total(&self) -> u64 {
        self.layouts.iter().flat_map(|l| &l.counts).fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// How many requests were slower than `limit` seconds.
    pub fn slower(&self, limit: f64) -> Slower {
        let (mut sum, mut above) = (0.0, None);
        for layout in &self.layouts {
            match layout.slower(limit) {
                Slower::Count(n) => sum += n,
                Slower::AtMost(n, highest) => {
                    sum += n;
                    above = Some(highest);
                }
            }
        }
        above.map_or(Slower::Count(sum), |highest| Slower::AtMost(sum, highest))
    }

    /// The latency in seconds that the share `tail` of the requests exceeds: 0.01 for the 99th percentile. None if
    /// there are no requests, or if it lies above the highest bound.
    pub fn exceeded_by(&self, tail: f64) -> Option<f64> {
        // Several layouts cannot be read as one: the one that holds the most speaks for all.
        let layout = self.layouts.iter().max_by_key(|l| l.total())?;
        layout.exceeded_by(tail)
    }
}

impl Layout {
    fn is_like(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.bounds, &other.bounds) || self.bounds == other.bounds
    }

    fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// The bucket in which `limit` lies: its number and bounds.
    fn slower(&self, limit: f64) -> Slower {
        let n = self.total() as f64;
        if n <= 0.0 {
            return Slower::Count(0.0);
        }
        let Some(i) = self.bounds.iter().position(|bound| limit <= *bound) else {
            let above = self.counts.last().copied().unwrap_or(0) as f64;
            return Slower::AtMost(above, self.bounds.last().copied().unwrap_or(0.0));
        };
        let above_high = self.counts.iter().skip(i + 1).fold(0_u64, |sum, n| sum.saturating_add(*n)) as f64;
        let above_low = above_high + self.counts[i] as f64;
        let (low, high) = (if i == 0 { 0.0 } else { self.bounds[i - 1] }, self.bounds[i]);
        if above_low <= 0.0 || limit >= high {
            return Slower::Count(above_high);
        }
        if low <= 0.0 {
            // Below the first bound there is nothing to take a logarithm of.
            return Slower::Count(above_low - (above_low - above_high) * limit / high);
        }
        let f = (limit / low).ln() / (high / low).ln();
        let (from, to) = (above_low / n, floor(above_high, n));
        Slower::Count((from.powf(1.0 - f) * to.powf(f) * n).min(above_low))
    }

    fn exceeded_by(&self, tail: f64) -> Option<f64> {
        let n = self.total() as f64;
        if n <= 0.0 {
            return None;
        }
        let mut above = n;
        for (i, high) in self.bounds.iter().enumerate() {
            let low = if i == 0 { 0.0 } else { self.bounds[i - 1] };
            let next = above - self.counts[i] as f64;
            if next / n <= tail {
                if low <= 0.0 {
                    return Some(
                        high * ((above - tail * n) / (above - next).max(f64::MIN_POSITIVE)).clamp(0.0, 1.0),
                    );
                }
                let (from, to) = (above / n, floor(next, n));
                let f = ((from / tail).ln() / (from / to).ln()).clamp(0.0, 1.0);
                return Some(low * (high / low).powf(f));
            }
            above = next;
        }
        None
    }
}

/// The share `count / n`; for none, half a request, since a logarithm needs something.
fn floor(count: f64, n: f64) -> f64 {
    if count > 0.0 { count / n } else { 0.5 / n }
}

/// Cumulative counts as counts of each bucket; none if they are not what they should be.
fn buckets(latencies: &Latencies) -> Option<Vec<u64>> {
    let Latencies { bounds, counts } = latencies;
    let sound = counts.len() == bounds.len() + 1
        && bounds.len() <= Latencies::BOUNDS_MAX
        && bounds.iter().all(|b| b.is_finite() && *b > 0.0)
        && bounds.windows(2).all(|pair| pair[0] < pair[1])
        && counts.windows(2).all(|pair| pair[0] <= pair[1]);
    sound.then(|| {
        let before = std::iter::once(&0).chain(counts);
        counts.iter().zip(before).map(|(count, before)| count - before).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prometheus' default buckets, in seconds.
    const DEFAULT: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

    /// `n` latencies whose share above `t` is `(scale / t)²` (Pareto), sorted into buckets.
    fn pareto(n: u64, scale: f64, bounds: &[f64]) -> Sketch {
        let below = |t: f64| if t <= scale { 0.0 } else { 1.0 - (scale / t).powi(2) };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a test's small numbers")]
        let counts = bounds.iter().map(|b| (below(*b) * n as f64).round() as u64).chain([n]).collect();
        let mut sketch = Sketch::default();
        sketch.add(&Latencies { bounds: bounds.to_vec(), counts });
        sketch
    }

    #[test]
    fn a_power_law_is_read_exactly() {
        let sketch = pareto(1_000_000, 0.02, &DEFAULT);
        let p99 = sketch.exceeded_by(0.01).unwrap();
        assert!((p99 - 0.2).abs() < 0.001, "{p99}");
        let Slower::Count(slow) = sketch.slower(0.3) else { panic!("within the bounds") };
        assert!((slow - 4_444.0).abs() < 50.0, "{slow}");
    }

    #[test]
    fn what_lies_above_the_highest_bound_is_not_guessed() {
        let sketch = pareto(10_000, 2.0, &DEFAULT);
        assert_eq!(sketch.exceeded_by(0.01), None);
        assert!(matches!(sketch.slower(20.0), Slower::AtMost(n, highest) if n > 300.0 && highest > 9.9));
    }

    #[test]
    fn the_first_bucket_is_linear_and_empty_ones_are_no_trouble() {
        let mut sketch = Sketch::default();
        sketch.add(&Latencies { bounds: vec![1.0, 2.0, 4.0], counts: vec![100, 100, 100, 100] });
        assert_eq!(sketch.slower(0.5), Slower::Count(50.0));
        assert_eq!(sketch.slower(3.0), Slower::Count(0.0));
        assert!((sketch.exceeded_by(0.01).unwrap() - 0.99).abs() < 1e-9);
        assert_eq!(Sketch::default().slower(1.0), Slower::Count(0.0));
        assert_eq!(Sketch::default().exceeded_by(0.01), None);
    }

    #[test]
    fn nonsense_adds_nothing() {
        let mut sketch = Sketch::default();
        for (bounds, counts) in [
            (vec![1.0, 2.0], vec![1, 2]),
            (vec![2.0, 1.0], vec![1, 2, 3]),
            (vec![1.0, 2.0], vec![3, 2, 3]),
            (vec![f64::NAN], vec![1, 2]),
            (vec![0.0], vec![1, 2]),
        ] {
            sketch.add(&Latencies { bounds, counts });
        }
        assert_eq!(sketch, Sketch::default());
    }

    #[test]
    fn bounds_that_are_shared_add_up_as_others_do() {
        let (first, mut second) = (pareto(1_000, 0.02, &DEFAULT), pareto(500, 0.02, &DEFAULT));
        let mut apart = first.clone();
        apart.merge(&second);
        second.share_bounds(&first);
        assert!(Arc::ptr_eq(&second.layouts[0].bounds, &first.layouts[0].bounds));
        let mut shared = first;
        shared.merge(&second);
        assert_eq!(shared, apart);
    }

    #[test]
    fn layouts_are_kept_apart_and_added_up() {
        let mut sketch = pareto(1_000, 0.02, &DEFAULT);
        sketch.merge(&pareto(1_000, 0.02, &[0.1, 0.2, 0.4]));
        assert_eq!(sketch.total(), 2_000);
        let slow = sketch.slower(0.2).at_most();
        assert!((slow - 20.0).abs() < 2.0, "{slow}");
    }

    #[test]
    fn strange_buckets_are_certain_at_their_bounds_only() {
        let fine = pareto(1_000, 0.012, &[0.005, 0.01, 0.025, 0.05]);
        let coarse = pareto(1_000, 0.012, &[0.1, 0.3, 1.2]);
        assert!(fine.has_the_buckets_of(&fine) && !fine.has_the_buckets_of(&coarse));
        assert_eq!(coarse.certain_from(0.034), 0.1);
        assert_eq!(coarse.slower(0.1), Slower::Count(14.0), "what is above a bound is known");
        assert_eq!(coarse.certain_from(5.0), 5.0, "above all bounds nothing is");
    }
}
