//! Near misses: how bad it was after a deployment, in the words of a row's threshold, so that one sees what the
//! threshold would have had to be.
//!
//! This is arithmetic over the trace and decides nothing: guards against chance and against what others are to blame
//! for are the core's.

use std::time::Duration;

use super::trace::{Trace, What};
use crate::core::release::ServiceName;
use crate::core::sample::Latencies;
use crate::core::settings::{Action, Against, Condition, Profile, Rule, ServiceSettings};

/// Windows of the error row, as shares of its longest, and how many times the threshold each wants (decision.md, 4.1).
const ERROR_TIERS: [(f64, f64); 4] = [(0.05, 10.0), (0.1, 2.0), (0.3, 1.4), (1.0, 1.0)];
/// The same of the latency rows: how many times one percent of the requests must be slower.
const LATENCY_TIERS: [(f64, f64); 3] = [(0.3, 5.0), (0.5, 2.0), (1.0, 1.3)];
/// The cautious profile: one window of five minutes.
const CAUTIOUS: [(f64, f64); 1] = [(0.5, 1.0)];
/// One percent is slower than the 99th percentile.
const TAIL: f64 = 0.01;
/// Below this many requests a window tells nothing.
const REQUESTS_MIN: u64 = 20;
/// Below this many there is no 99th percentile to compare with (decision.md, section 3).
const BASELINE_MIN: u64 = 500;
/// The baseline is the median over windows like this.
const BASELINE_WINDOW: f64 = 300.0;

/// How near a row was.
#[derive(Debug, Clone, PartialEq)]
pub struct Near {
    /// The row.
    pub rule: String,
    /// The threshold at which it would just have been crossed: every lower one would have been.
    pub worst: f64,
    /// The threshold that it has.
    pub threshold: f64,
    /// When it was worst, in seconds after the deployment.
    pub after: f64,
    /// What the threshold is measured in.
    pub unit: Unit,
    /// It was crossed and nothing came of it: what the core said of the row then, with the guard that held it.
    pub held: Option<String>,
}

/// What a threshold is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A share, from 0 to 1.
    Share,
    /// Times the baseline.
    Times,
    /// Seconds.
    Seconds,
}

/// Requests at one time.
struct Sample<'a> {
    t: f64,
    total: u64,
    errors: u64,
    latency: &'a Latencies,
}

/// How near every row of errors and latency was after the deployment at `deployed`, up to `until`. Rows that nothing
/// can be said about are left out.
pub fn near_misses(
    trace: &Trace,
    service: &ServiceName,
    settings: &ServiceSettings,
    deployed: f64,
    until: f64,
) -> Vec<Near> {
    let samples: Vec<Sample<'_>> = trace
        .events
        .iter()
        .filter(|e| e.service == *service)
        .filter_map(|e| match &e.what {
            What::Requests(r) => {
                Some(Sample { t: e.t, total: r.total, errors: r.errors, latency: &r.latency })
            }
            _ => None,
        })
        .collect();
    let grace = settings.grace.as_secs_f64();
    let end = until.min(deployed + settings.watch.as_secs_f64());
    let baseline = baseline(&samples, deployed, settings.baseline);
    let judged = |rule: &&Rule| !matches!(rule.action, Action::Off | Action::Monitor);
    let row = |rule: &Rule| {
        let (unit, of) = match (rule.condition, rule.against) {
            (Condition::ErrorRate, Against::Absolute) => (Unit::Share, 1.0),
            (Condition::Latency, Against::Absolute) => (Unit::Seconds, 1.0),
            (Condition::Latency, Against::Baseline) => (Unit::Times, baseline?),
            _ => return None,
        };
        let errors = rule.condition == Condition::ErrorRate;
        let tiers: &[(f64, f64)] = match (settings.profile, errors) {
            (Profile::Cautious, _) => &CAUTIOUS,
            (Profile::Fast, true) => &ERROR_TIERS,
            (Profile::Fast, false) => &LATENCY_TIERS,
        };
        let start = deployed + if errors { grace / 2.0 } else { grace };
        let mut worst: Option<(f64, f64)> = None;
        for (part, times) in tiers {
            let window = rule.sustained.as_secs_f64() * part;
            for last in samples.iter().filter(|s| s.t - window >= start && s.t <= end) {
                let within = || samples.iter().filter(|s| s.t > last.t - window && s.t <= last.t);
                let value = if errors { rate(within()) } else { slower(within(), TAIL * times) };
                let value = value.map(|v| v / of / if errors { *times } else { 1.0 });
                if let Some(value) = value.filter(|v| worst.is_none_or(|(w, _)| *v > w)) {
                    worst = Some((value, last.t - deployed));
                }
            }
        }
        let (worst, after) = worst?;
        Some(Near { rule: rule.name.clone(), worst, threshold: rule.threshold, after, unit, held: None })
    };
    settings.rules.iter().filter(judged).filter_map(row).collect()
}

/// The share of failed requests.
fn rate<'a>(samples: impl Iterator<Item = &'a Sample<'a>>) -> Option<f64> {
    let (total, errors) = samples.fold((0, 0), |(t, e), s| (t + s.total, e + s.errors));
    (total >= REQUESTS_MIN).then(|| errors as f64 / total as f64)
}

/// The latency that a share of `tail` of the requests is slower than, in seconds.
fn slower<'a>(samples: impl Iterator<Item = &'a Sample<'a>>, tail: f64) -> Option<f64> {
    let mut sum: Option<Latencies> = None;
    for sample in samples.filter(|s| !s.latency.is_empty()) {
        match &mut sum {
            Some(sum) if sum.bounds == sample.latency.bounds => {
                sum.counts.iter_mut().zip(&sample.latency.counts).for_each(|(a, b)| *a += b);
            }
            // Other buckets: what was counted in them cannot be added.
            Some(_) => {}
            None => sum = Some(sample.latency.clone()),
        }
    }
    let sum = sum?;
    let all = *sum.counts.last().filter(|all| **all >= REQUESTS_MIN)?;
    let above = |n: u64| (all - n) as f64 / all as f64;
    let (mut lo, mut s_lo) = (0.0, 1.0);
    for (hi, n) in sum.bounds.iter().zip(&sum.counts) {
        let s_hi = above(*n);
        if s_hi <= tail {
            if lo == 0.0 {
                return Some(hi * (s_lo - tail) / (s_lo - s_hi));
            }
            // The survival function is a straight line on paper with two logarithmic scales (decision.md, section 3).
            let s_hi = s_hi.max(0.5 / all as f64).min(tail);
            let part = if s_lo > s_hi { (s_lo / tail).ln() / (s_lo / s_hi).ln() } else { 1.0 };
            return Some(lo * (hi / lo).powf(part.clamp(0.0, 1.0)));
        }
        (lo, s_lo) = (*hi, s_hi);
    }
    // Above the last bound nobody knows; it is that at least.
    Some(lo)
}

/// The 99th percentile before the deployment: the median over windows.
fn baseline(samples: &[Sample<'_>], deployed: f64, length: Duration) -> Option<f64> {
    let from = deployed - length.as_secs_f64();
    let before = || samples.iter().filter(move |s| s.t > from && s.t <= deployed);
    if before().map(|s| s.total).sum::<u64>() < BASELINE_MIN {
        return None;
    }
    let windows = (length.as_secs_f64() / BASELINE_WINDOW).ceil().max(1.0);
    let mut found = Vec::new();
    let mut i = 0.0;
    while i < windows {
        let (start, end) = (from + i * BASELINE_WINDOW, from + (i + 1.0) * BASELINE_WINDOW);
        found.extend(slower(before().filter(|s| s.t > start && s.t <= end), TAIL));
        i += 1.0;
    }
    found.sort_by(f64::total_cmp);
    found.get(found.len() / 2).copied().filter(|p99| *p99 > 0.0)
}
