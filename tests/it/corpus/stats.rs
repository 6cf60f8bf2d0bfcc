//! What a fair judge can be expected to see: how long until errors or slow requests are beyond chance.
//!
//! Written apart from the core on purpose. It says what the operators may expect, not what the core does.

/// One window of a sustained breach: its length in seconds, the multiple of the threshold, and the chance that is
/// accepted of being wrong (decision.md, 4.1).
pub(super) struct Tier {
    pub(super) window: f64,
    pub(super) multiple: f64,
    pub(super) alpha: f64,
    pub(super) least: u64,
}

const fn tier(window: f64, multiple: f64, alpha: f64, least: u64) -> Tier {
    Tier { window, multiple, alpha, least }
}

pub(super) const ERRORS: &[Tier] = &[
    tier(30.0, 10.0, 1e-4, 10),
    tier(60.0, 2.0, 1e-4, 5),
    tier(180.0, 1.4, 1e-3, 5),
    tier(600.0, 1.0, 5e-3, 5),
];
pub(super) const SLOW: &[Tier] =
    &[tier(180.0, 5.0, 1e-2, 5), tier(300.0, 2.0, 1e-2, 5), tier(600.0, 1.3, 1e-2, 5)];

/// When a verdict may be expected after the onset, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Expectation {
    /// What decision.md measured for it, roughly.
    pub(super) usual: f64,
    /// Later is too late.
    pub(super) latest: f64,
}

/// How soon a true share of `p` is seen to be over `p0`, at `rate` requests a second reported every `window` seconds.
/// None if that is a matter of luck.
pub(super) fn seen(tiers: &[Tier], p0: f64, p: f64, rate: f64, window: f64) -> Option<Expectation> {
    let found = tiers.iter().find(|t| power(t, p0, p, rate) > 0.95 && t.window >= 2.0 * window)?;
    // A verdict needs the window to fill, and what comes in whole windows comes late.
    let usual = 1.1_f64.mul_add(found.window, 15.0 + window);
    Some(Expectation { usual, latest: 2.0f64.mul_add(found.window, 60.0 + 2.0 * window) })
}

/// The chance that one look at a full window is enough.
fn power(tier: &Tier, p0: f64, p: f64, rate: f64) -> f64 {
    let line = (tier.multiple * p0).min(f64::midpoint(1.0, p0));
    let n = (rate * tier.window).floor() as u64;
    if n < 5 || p <= line {
        return 0.0;
    }
    let by_chance = (0..=n.min(20_000)).find(|&k| tail(k, n, p0) < tier.alpha).unwrap_or(n + 1);
    let needed = by_chance.max(tier.least).max((line * n as f64).floor() as u64 + 1);
    let quarter = n / 4;
    let in_quarter = if quarter >= 10 { 2 } else { 1 }.max((p0 * quarter as f64).floor() as u64 + 1);
    tail(needed, n, p) * tail(in_quarter, quarter, p).powi(4)
}

/// P(X >= k) for X of the binomial distribution, exact where n is small, by the normal distribution elsewhere.
pub(super) fn tail(k: u64, n: u64, p: f64) -> f64 {
    if k > n {
        return 0.0;
    }
    if k == 0 || p >= 1.0 {
        return 1.0;
    }
    let (mean, variance) = (n as f64 * p, n as f64 * p * (1.0 - p));
    if variance > 50.0 {
        return 1.0 - normal_cdf((k as f64 - 0.5 - mean) / variance.sqrt());
    }
    let mut term = (1.0 - p).powi(n as i32);
    let mut below = 0.0;
    for i in 0..k {
        below += term;
        term *= (n - i) as f64 / (i + 1) as f64 * p / (1.0 - p);
    }
    (1.0 - below).max(0.0)
}

/// The share of a standard normal distribution that lies below `z` (Abramowitz and Stegun 7.1.26, to 1e-7).
pub(super) fn normal_cdf(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / 0.327_591_1_f64.mul_add(x, 1.0);
    let series = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592]
        .iter()
        .fold(0.0_f64, |sum, c| sum.mul_add(t, *c));
    let erf = 1.0 - series * t * (-x * x).exp();
    if z < 0.0 { 0.5 * (1.0 - erf) } else { 0.5 * (1.0 + erf) }
}

#[test]
fn the_smallest_counts_are_those_of_the_reference() {
    // decision.md, section 3: requests, and the errors among them that are beyond chance at 5 %.
    for (n, k) in [(3, 3), (5, 4), (10, 5), (20, 6), (50, 9), (100, 14)] {
        assert!(tail(k, n, 0.05) < 0.001, "{k} of {n}");
        assert!(tail(k - 1, n, 0.05) >= 0.001, "{} of {n}", k - 1);
    }
}
