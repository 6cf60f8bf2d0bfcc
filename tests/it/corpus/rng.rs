//! Chance that can be repeated: xoshiro256++ seeded by SplitMix64, and the distributions that traffic is made of.

/// A source of chance. The same seed gives the same numbers on every machine.
#[derive(Debug, Clone)]
pub(super) struct Rng([u64; 4]);

const fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        let mut state = seed;
        Self(std::array::from_fn(|_| split_mix(&mut state)))
    }

    /// A source of its own for a purpose, so that one family's trace does not move with another's.
    pub(super) fn named(seed: u64, name: &str) -> Self {
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        Self::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ hash)
    }

    fn next(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// From 0 up to, and without, 1.
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Every order of magnitude is as likely as every other.
    pub(super) fn log_between(&mut self, low: f64, high: f64) -> f64 {
        self.between(low.ln(), high.ln()).exp()
    }

    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// From `low` up to and with `high`.
    pub(super) fn whole(&mut self, low: usize, high: usize) -> usize {
        low + (self.unit() * (high - low + 1) as f64) as usize
    }

    pub(super) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.whole(0, from.len() - 1)].clone()
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.whole(0, last));
        }
    }

    pub(super) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    pub(super) fn poisson(&mut self, mean: f64) -> u64 {
        if mean > 40.0 {
            return mean.sqrt().mul_add(self.normal(), mean).round().max(0.0) as u64;
        }
        let limit = (-mean).exp();
        let (mut count, mut product) = (0, self.unit());
        while product > limit {
            count += 1;
            product *= self.unit();
        }
        count
    }

    /// How many of `n` it hits. Exact where it is rare, by the normal distribution where that is close.
    pub(super) fn binomial(&mut self, n: u64, p: f64) -> u64 {
        if n == 0 || p <= 0.0 {
            return 0;
        }
        if p >= 1.0 {
            return n;
        }
        if p > 0.5 {
            return n - self.binomial(n, 1.0 - p);
        }
        let mean = n as f64 * p;
        if mean > 30.0 {
            let drawn = (mean * (1.0 - p)).sqrt().mul_add(self.normal(), mean);
            return (drawn.round().max(0.0) as u64).min(n);
        }
        // By the gaps between hits, which are geometric: as many draws as there are hits.
        let scale = (-p).ln_1p();
        let (mut hits, mut at) = (0, 0.0);
        loop {
            at += ((1.0 - self.unit()).ln() / scale).floor() + 1.0;
            assert!(!at.is_nan(), "the chance is {p}");
            if at > n as f64 {
                return hits;
            }
            hits += 1;
        }
    }
}
