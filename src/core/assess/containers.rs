//! Rows about containers: exits, kills, memory and CPU.

use std::time::Duration;

use super::super::chance::line;
use super::super::decision::{Reason, percent as share, percent_of as percent};
use super::super::observation::Phase;
use super::super::sample::Signal;
use super::super::settings::{Condition, Rule};
use super::super::snapshot::RowAnswer;
use super::super::streak::{ERRORS_IN_A_ROW, Levels};
use super::super::time::{Timestamp, human};
use super::super::window::count;
use super::{Finding, Scene, whole};

/// How far back a kill for want of memory looks for a level over the line (decision.md, 4.2).
const PEAK_WITHIN: Duration = Duration::from_secs(5 * 60);
/// Exits are counted over six times as long if the release before never exited: three in half an hour.
const NEVER_BEFORE: u32 = 6;

/// Exits within the window: differences, never the engine's cumulative count.
pub(super) fn crash_loop<'a>(rule: &'a Rule, scene: Scene<'_>) -> Finding<'a> {
    let short = count(scene.evidence.exits_within(scene.now, rule.within).count());
    let within = if f64::from(short) < rule.threshold && scene.before.never_exited {
        rule.within * NEVER_BEFORE
    } else {
        rule.within
    };
    let exits: Vec<_> = scene.evidence.exits_within(scene.now, within).collect();
    let n = count(exits.len());
    let value = scene.say(|| format!("{n} exits in {}", human(within)));
    let (Some((first, _)), Some((_, code))) = (exits.first(), exits.last()) else {
        return rule.finding(RowAnswer::Ok, scene.say(|| format!("0 exits in {}", human(rule.within))));
    };
    let reason = Reason::CrashLoop { exits: n, within, threshold: whole(rule.threshold), code: *code };
    if short == 0 && f64::from(n) < rule.threshold {
        // Long ago, and it did not go on.
        return rule.finding(RowAnswer::Ok, value).samples(n);
    }
    rule.crossed(f64::from(n) >= rule.threshold, value, *first, reason).samples(n)
}

/// It ended by itself, or never started, and nobody starts it again.
pub(super) fn down<'a>(rule: &'a Rule, scene: Scene<'_>) -> Finding<'a> {
    let Some((since, how)) = scene.evidence.down.values().min_by_key(|(since, _)| *since) else {
        let running = || scene.replicas.iter().filter(|r| r.phase == Phase::Running).count();
        let value = scene.say(|| format!("{} of {} running", running(), scene.replicas.len()));
        return rule.finding(RowAnswer::Ok, value);
    };
    let over = scene.now.since(*since);
    let reason = Reason::Down { over, how: how.clone() };
    let value = scene.say(|| format!("down for {}: {how}", human(over)));
    rule.crossed(over >= rule.sustained, value, *since, reason).samples(1)
}

/// Kills for want of memory: as many as the row says, or one on top of a level over the memory row's line.
pub(super) fn oom<'a>(rule: &'a Rule, scene: Scene<'_>) -> Finding<'a> {
    let kills: Vec<_> =
        scene.evidence.oom_kills.iter().filter(|at| scene.now.since(**at) <= rule.within).collect();
    let n = count(kills.len());
    let value = scene.say(|| format!("{n} kills in {}", human(rule.within)));
    let (Some(first), Some(last)) = (kills.first(), kills.last()) else {
        return rule.finding(RowAnswer::Ok, value);
    };
    let peak =
        scene.evidence.levels.values().filter_map(|l| l.peak(**last, PEAK_WITHIN)).max_by(f64::total_cmp);
    let memory = scene.settings.rules.iter().find(|r| r.condition == Condition::Memory);
    let over_the_line = peak.is_some_and(|peak| peak > memory.map_or(1.0, |r| r.threshold));
    let reason = Reason::OutOfMemory { kills: n, within: rule.within, peak_percent: peak.map(|p| p * 100.0) };
    rule.crossed(f64::from(n) >= rule.threshold || over_the_line, value, **first, reason).samples(n)
}

/// Every sample of the last while above the share, after the grace in which caches fill.
pub(super) fn memory<'a>(rule: &'a Rule, scene: Scene<'_>) -> Finding<'a> {
    let levels = scene.evidence.levels.values().filter(|l| l.is_current(scene.now));
    let from = (scene.deployed + scene.settings.grace).max(scene.evidence.since);
    let above = levels.filter_map(|l| l.above(rule.threshold, from).map(|(since, n)| (since, n, l)));
    if let Some((since, n, l)) = above.min_by_key(|(since, ..)| *since) {
        let Some((last, used, limit)) = l.samples.back().copied() else {
            return rule.finding(RowAnswer::NoData, "not measured yet");
        };
        let over = last.since(since);
        let value = scene.say(|| format!("{:.1} % for {}", share(used, limit), human(over)));
        let reason = Reason::MemoryHigh { used, limit, threshold: rule.threshold, over, samples: n };
        // A minute is too long to wait for what is full before that.
        let filling = over >= rule.sustained / 4 && n >= SOON_FULL_SAMPLES && soon_full(l, since, scene);
        return rule
            .crossed((over >= rule.sustained && n >= rule.min_samples) || filling, value, since, reason)
            .samples(n);
    }
    match highest(scene) {
        Some((l, used, limit)) => rule
            .finding(RowAnswer::Ok, scene.say(|| format!("{:.1} %", share(used, limit))))
            .samples(count(l.samples.len())),
        None => unmeasured(rule, scene),
    }
}

/// Two points make a line of anything.
const SOON_FULL_SAMPLES: u32 = 3;

/// Memory grows in a straight line that reaches the limit within three minutes (decision.md, 4.2), and has gone on growing
/// since it was over the row's line: one jump to where it stays is no growth.
fn soon_full(levels: &Levels, since: Timestamp, scene: Scene<'_>) -> bool {
    const LATELY: Duration = Duration::from_secs(3 * 60);
    const GROWN: f64 = 0.05;
    const STRAIGHT: f64 = 0.8;
    let from = scene.deployed;
    let points: Vec<(f64, f64)> = levels
        .shares(scene.now, LATELY)
        .filter(|(at, _)| *at >= from)
        .map(|(at, share)| (at.since(from).as_secs_f64(), share))
        .collect();
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return false };
    let crossed = since.since(from).as_secs_f64();
    let Some(above) = points.iter().find(|(at, _)| *at >= crossed) else { return false };
    line(&points).is_some_and(|(slope, fit)| {
        let goes_on = last.1 - above.1 >= slope * (last.0 - above.0) / 2.0;
        fit > STRAIGHT
            && slope > 0.0
            && goes_on
            && last.1 - first.1 >= GROWN
            && (1.0 - last.1) / slope < LATELY.as_secs_f64()
    })
}

/// Memory grows so that it would cross the line within the row's time (decision.md, section 3).
pub(super) fn leak<'a>(rule: &'a Rule, scene: Scene<'_>) -> Finding<'a> {
    const STRAIGHT: f64 = 0.9;
    /// A cache that fills slows down: the second half must have grown almost as much as the first.
    const STEADY: f64 = 0.7;
    let from = (scene.deployed + scene.settings.grace).max(scene.evidence.since);
    let Some((fullest, used, limit)) = highest(scene) else { return unmeasured(rule, scene) };
    if scene.now.since(from) < rule.sustained {
        let value = scene.say(|| format!("watched for {} yet", human(scene.now.since(from))));
        return rule.finding(RowAnswer::NoData, value);
    }
    let points: Vec<(f64, f64)> = fullest
        .shares(scene.now, rule.sustained)
        .filter(|(at, _)| *at >= from)
        .map(|(at, share)| (at.since(from).as_secs_f64(), share))
        .collect();
    let samples = count(points.len());
    if samples < rule.min_samples {
        return rule.finding(RowAnswer::NoData, "too few samples").samples(samples);
    }
    let (early, late) = points.split_at(points.len() / 2);
    let rise = |half: &[(f64, f64)]| line(half).map_or(0.0, |(slope, _)| slope);
    let now = used as f64 / limit.max(1) as f64;
    let grown = line(&points).filter(|(slope, fit)| {
        *slope > 0.0 && *fit > STRAIGHT && rise(early) > 0.0 && rise(late) >= STEADY * rise(early)
    });
    let Some((slope, _)) = grown else {
        return rule
            .finding(RowAnswer::Ok, scene.say(|| format!("{:.1} %, no steady growth", now * 100.0)))
            .samples(samples);
    };
    let left = Duration::from_secs_f64(((rule.threshold - now) / slope).clamp(0.0, 1e9));
    let line = || percent(rule.threshold);
    let value = scene.say(|| format!("{:.1} %, will reach {} in {}", now * 100.0, line(), human(left)));
    if left >= rule.within {
        return rule.finding(RowAnswer::Ok, value).samples(samples);
    }
    let reason = Reason::MemoryLeak { used, limit, threshold: rule.threshold, left, over: rule.sustained };
    let since = scene.now.before(rule.sustained);
    rule.crossed(true, value, since, reason).samples(samples)
}

/// The CPU limit held it back for more than a share of the time.
pub(super) fn throttling<'a>(rule: &'a Rule, scene: Scene<'_>) -> Finding<'a> {
    let evidence = scene.evidence;
    let from =
        (scene.deployed + scene.settings.grace).max(evidence.since).max(scene.now.before(rule.sustained));
    let shares: Vec<f64> = evidence.throttled.iter().filter(|(at, _)| *at > from).map(|(_, s)| *s).collect();
    let samples = count(shares.len());
    if shares.is_empty() {
        let off = evidence.not_applicable.get(&Signal::Cpu).map(|why| (RowAnswer::Off, why.clone()));
        let lost = evidence.unmeasured.get(&Signal::Cpu).filter(|(n, ..)| *n >= ERRORS_IN_A_ROW);
        let lost = lost.map(|(.., why)| (RowAnswer::CannotMeasure, why.clone()));
        let (answer, why) = lost.or(off).unwrap_or_else(|| (RowAnswer::NoData, "not measured yet".into()));
        return rule.finding(answer, why);
    }
    let mean = shares.iter().sum::<f64>() / f64::from(samples);
    let value = scene.say(|| format!("held back {} of the time", percent(mean)));
    if samples < rule.min_samples || mean <= rule.threshold {
        return rule.finding(RowAnswer::Ok, value).samples(samples);
    }
    let over = scene.now.since(from);
    let reason = Reason::CpuThrottled { share: mean, threshold: rule.threshold, over };
    rule.crossed(over >= rule.sustained, value, from, reason).samples(samples)
}

/// The replica whose memory is fullest now: its use and its limit.
fn highest(scene: Scene<'_>) -> Option<(&Levels, u64, u64)> {
    let last = scene
        .evidence
        .levels
        .values()
        .filter(|l| l.is_current(scene.now))
        .filter_map(|l| l.samples.back().map(|(_, used, limit)| (l, *used, *limit)));
    last.max_by(|a, b| share(a.1, a.2).total_cmp(&share(b.1, b.2)))
}

fn unmeasured<'a>(rule: &'a Rule, scene: Scene<'_>) -> Finding<'a> {
    let levels = &scene.evidence.levels;
    match levels.values().find_map(|l| l.unavailable.as_ref().or(l.not_applicable.as_ref())) {
        Some(why) if levels.values().any(|l| l.unavailable.is_some()) => {
            rule.finding(RowAnswer::CannotMeasure, why.clone())
        }
        Some(why) => rule.finding(RowAnswer::Off, why.clone()),
        None => rule.finding(RowAnswer::NoData, "not measured yet"),
    }
}
