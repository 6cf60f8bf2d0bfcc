//! Rows about what is written and said: error lines in the log, and what users report.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::decision::Reason;
use super::super::sample::Signal;
use super::super::settings::{Against, Rule};
use super::super::snapshot::RowAnswer;
use super::super::streak::ERRORS_IN_A_ROW;
use super::super::time::{Timestamp, human};
use super::super::window::count;
use super::{Finding, Scene, whole};

/// What was last counted longer ago than this says nothing about now. Logs are counted every ten seconds, unless somebody
/// set it to less often, up to a minute.
const STALE: Duration = Duration::from_secs(2 * 60);

/// More error lines a minute than the line allows, in both halves of the time.
pub(super) fn log_errors<'a>(rule: &'a Rule, scene: Scene<'_>) -> Finding<'a> {
    let evidence = scene.evidence;
    let last = evidence.log_errors.back().map(|counted| counted.at);
    let Some(last) = last.filter(|last| scene.now.since(*last) <= STALE) else {
        return unmeasured(rule, scene);
    };
    let before = scene.before.norm.log_errors;
    let limit = match rule.against {
        Against::Absolute => rule.threshold,
        Against::Baseline => before.map_or(rule.floor, |before| (rule.threshold * before).max(rule.floor)),
    };
    let text = before.filter(|_| scene.aloud).map(|before| format!("{before:.1} a minute"));
    let start = last.before(rule.sustained);
    let from = (scene.deployed + scene.settings.grace).max(evidence.since);
    let samples = count(evidence.log_errors.iter().filter(|counted| counted.at > start).count());
    let rate = |from: Timestamp, to| evidence.log_errors_per_minute(from, to);
    let Some((now, lines)) = rate(start, last) else {
        return rule.finding(RowAnswer::NoData, "not measured yet").baseline(text);
    };
    let value = scene.say(|| format!("{now:.1} a minute"));
    let middle = last.before(rule.sustained / 2);
    let above = |part: Option<(f64, u64)>| part.is_some_and(|(rate, _)| rate > limit);
    let sustained = start >= from && above(rate(start, middle)) && above(rate(middle, last));
    if !(sustained && now > limit && samples >= rule.min_samples) {
        return rule.finding(RowAnswer::Ok, value).baseline(text).samples(samples);
    }
    let reason = Reason::LogErrors {
        per_minute: now,
        lines,
        over: rule.sustained,
        limit,
        before,
        last: evidence.last_log_error.clone(),
    };
    rule.crossed(true, value, start, reason).baseline(text).samples(samples)
}

fn unmeasured<'a>(rule: &'a Rule, scene: Scene<'_>) -> Finding<'a> {
    let lost = scene.evidence.unmeasured.get(&Signal::Logs).filter(|(n, ..)| *n >= ERRORS_IN_A_ROW);
    if let Some((_, since, why)) = lost {
        return rule.finding(RowAnswer::CannotMeasure, why.clone()).since(*since);
    }
    if let Some(why) = scene.evidence.not_applicable.get(&Signal::Logs) {
        return rule.finding(RowAnswer::Off, why.clone());
    }
    if scene.settings.logs.enabled {
        rule.finding(RowAnswer::NoData, "not measured yet")
    } else {
        rule.finding(RowAnswer::Off, "logs are not read")
    }
}

/// Different people who reported a problem within the time, since the deployment.
pub(super) fn user_reports<'a>(rule: &'a Rule, scene: Scene<'_>) -> Finding<'a> {
    let mut people: BTreeMap<&str, Timestamp> = BTreeMap::new();
    let mut last = "";
    for (at, reporter, text) in &scene.evidence.reports {
        if *at >= scene.deployed && scene.now.since(*at) <= rule.within {
            people.entry(reporter).or_insert(*at);
            last = text;
        }
    }
    let n = count(people.len());
    let value = scene.say(|| format!("{n} in {}", human(rule.within)));
    let first = people.values().min().copied();
    let Some(first) = first.filter(|_| f64::from(n) >= rule.threshold) else {
        return rule.finding(RowAnswer::Ok, value).samples(n);
    };
    let reason = Reason::UserReports {
        reporters: n,
        within: rule.within,
        threshold: whole(rule.threshold),
        last: last.to_owned(),
    };
    rule.crossed(true, value, first, reason).samples(n)
}
