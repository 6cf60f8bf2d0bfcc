//! Rows about health: checks asked from outside or run inside, and Docker's own HEALTHCHECK.

use std::borrow::Cow;
use std::time::Duration;

use super::super::decision::{Reason, percent_of as percent};
use super::super::observation::ContainerHealth;
use super::super::settings::{Action, Rule};
use super::super::snapshot::RowAnswer;
use super::super::streak::{ERRORS_IN_A_ROW, Streak};
use super::super::time::human;
use super::super::traffic::Bad;
use super::super::window::{Asked, count};
use super::{Finding, Scene, or_nothing, whole};

/// Failing checks are doubted while the traffic of this time says otherwise (decision.md, 4.2) ...
const TRAFFIC_WITHIN: Duration = Duration::from_secs(60);
/// ... with at least so many requests ...
const TRAFFIC_REQUESTS: u64 = 20;
/// ... of which at most this share failed.
const TRAFFIC_FAILED: f64 = 0.05;
/// A row that holds for so long holds whatever the traffic says: "health checks failing > 5 minutes".
const WHATEVER_THE_TRAFFIC: Duration = Duration::from_secs(5 * 60);

/// The checks that a row is about: by name if it names one, else all that are required, or all that are not.
fn checks<'a>(
    rule: &'a Rule,
    scene: Scene<'a>,
    required: bool,
) -> impl Iterator<Item = (&'a Asked, &'a Streak)> {
    scene.evidence.checks.iter().filter(move |((name, _), _)| match &rule.only {
        Some(only) => only == name,
        None => scene.settings.requires(name) == required,
    })
}

fn configured(rule: &Rule, scene: Scene<'_>, required: bool) -> bool {
    scene.settings.checks.iter().any(|(name, check)| match &rule.only {
        Some(only) => only == name,
        None => check.required == required,
    })
}

/// Consecutive failures of the worst check, sustained from the first to the last of them.
pub(super) fn failing<'a>(rule: &'a Rule, scene: Scene<'_>, required: bool) -> Finding<'a> {
    if !configured(rule, scene, required) {
        let what = if required { "no health check configured" } else { "no advisory check configured" };
        return rule.finding(RowAnswer::Off, what);
    }
    let worst = checks(rule, scene, required).max_by_key(|(_, s)| (s.failures, std::cmp::Reverse(s.samples)));
    let Some((asked, worst)) = worst else {
        return rule.finding(RowAnswer::NoData, "not asked yet");
    };
    if let Some((_, since, why)) = worst.unavailable.as_ref().filter(|(n, ..)| *n >= ERRORS_IN_A_ROW) {
        return rule.finding(RowAnswer::CannotMeasure, why.clone()).since(*since);
    }
    let Some((first, last)) = worst.failing else {
        let answer = if worst.samples == 0 { RowAnswer::NoData } else { RowAnswer::Ok };
        let last = scene.say(|| format!("0 failures; last: {}", or_nothing(&worst.last)));
        return rule.finding(answer, last).samples(worst.samples);
    };
    let over = last.since(first);
    let said = || {
        let (name, n, last) = (named(asked), worst.failures, &worst.last);
        format!("{name}{n} failures in a row over {}; last: {last}", human(over))
    };
    let warming = scene.now.since(scene.deployed) < scene.settings.grace;
    if warming && !worst.succeeded {
        let value = scene.say(|| format!("starting (grace {}): {}", human(scene.settings.grace), said()));
        return rule.finding(RowAnswer::NoData, value).samples(worst.samples);
    }
    let enough = f64::from(worst.failures) >= rule.threshold
        && over >= rule.sustained
        && worst.samples >= rule.min_samples;
    let reason = Reason::HealthFailing {
        check: asked.0.clone(),
        failures: worst.failures,
        over,
        threshold: whole(rule.threshold),
        sustained: rule.sustained,
        last: worst.last.clone(),
    };
    let doubt = doubted(scene).filter(|_| required && rule.sustained < WHATEVER_THE_TRAFFIC);
    let value = scene.say(|| match &doubt {
        Some(traffic) => format!("{}, but {traffic}", said()),
        None => said(),
    });
    rule.crossed(enough && !warming && doubt.is_none(), value, first, reason).samples(worst.samples)
}

/// The check's name before what is said of it, unless there is only the usual one.
fn named((name, _): &Asked) -> String {
    if name.is_empty() || name == "health" { String::new() } else { format!("{name}: ") }
}

/// What the traffic says against failing checks.
fn doubted(scene: Scene<'_>) -> Option<String> {
    let traffic = &scene.evidence.traffic;
    let end = traffic.end().filter(|_| !traffic.is_stale(scene.now))?;
    let share = traffic.share(Bad::Failed, end.before(TRAFFIC_WITHIN), end);
    (share.n >= TRAFFIC_REQUESTS && share.rate() <= TRAFFIC_FAILED)
        .then(|| format!("only {} of {} requests failed in the last minute", percent(share.rate()), share.n))
}

/// On and off: so many failures within the time, among them two in a row.
pub(super) fn flapping<'a>(rule: &'a Rule, scene: Scene<'_>) -> Finding<'a> {
    /// At least this share of the checks must have failed ...
    const SHARE: f64 = 0.4;
    /// ... or half of them, and half as many again, over the whole time, if the traffic is well all the while.
    const DOUBTED_SHARE: f64 = 0.5;
    if !configured(rule, scene, true) {
        return rule.finding(RowAnswer::Off, "no health check configured");
    }
    let from = (scene.deployed + scene.settings.grace).max(scene.evidence.since);
    let start = scene.now.before(rule.within).max(from);
    let counted = checks(rule, scene, true).map(|(asked, streak)| (asked, streak, streak.after(start)));
    let Some((asked, streak, tried)) = counted.max_by_key(|(.., tried)| tried.failures) else {
        return rule.finding(RowAnswer::NoData, "not asked yet");
    };
    let (failures, all) = (tried.failures, tried.all);
    let value = scene
        .say(|| format!("{}{failures} of {all} failed in {}", named(asked), human(scene.now.since(start))));
    let Some(first) = tried.first else {
        return rule.finding(RowAnswer::Ok, value).samples(all);
    };
    let doubt = doubted(scene);
    // A check that is out of order for some minutes, and fails once more by chance, is not on and off.
    let (least, share, runs) = match &doubt {
        Some(_) => (rule.threshold * 1.5, DOUBTED_SHARE, 3),
        None => (rule.threshold, SHARE, 2),
    };
    let full = doubt.is_none() || scene.now.since(from) >= rule.within;
    let often = f64::from(failures) >= least && f64::from(failures) >= share * f64::from(all);
    // What fails and does not come back in between is for the other rows.
    let on_and_off = tried.pair && tried.runs >= runs;
    if !(often && on_and_off && full && all >= rule.min_samples) {
        return rule.finding(RowAnswer::Ok, value).samples(all);
    }
    let reason = Reason::HealthFlapping {
        check: asked.0.clone(),
        failures,
        checks: all,
        within: rule.within,
        threshold: whole(rule.threshold),
        last: streak.last.clone(),
    };
    rule.crossed(true, value, first, reason).samples(all)
}

/// Docker's own HEALTHCHECK: it has already counted `retries` failures in a row.
pub(super) fn container<'a>(rule: &'a Rule, scene: Scene<'_>) -> Finding<'a> {
    if scene.replicas.iter().all(|r| r.health.is_none()) {
        return rule.finding(RowAnswer::Off, "no HEALTHCHECK");
    }
    if let Some((since, output)) = scene.evidence.unhealthy.values().min_by_key(|(since, _)| *since) {
        let over = scene.now.since(*since);
        let reason = Reason::ContainerUnhealthy { over, output: output.clone() };
        let value = scene.say(|| format!("unhealthy for {}", human(over)));
        return rule.crossed(over >= rule.sustained, value, *since, reason).samples(1);
    }
    let waiting = scene.replicas.iter().any(|r| r.health == Some(ContainerHealth::Starting));
    if waiting {
        rule.finding(RowAnswer::NoData, "starting")
    } else {
        rule.finding(RowAnswer::Ok, "healthy").samples(1)
    }
}

/// So many of the alerts of somebody else's monitoring are firing, that began after the deployment.
pub(super) fn alerts<'a>(rule: &'a Rule, scene: Scene<'_>) -> Finding<'a> {
    // A name that the row asks for may be followed by what tells instances of it apart.
    let meant = |name: &str| {
        rule.only.as_deref().is_none_or(|only| name == only || name.starts_with(&format!("{only}{{")))
    };
    let firing: Vec<_> = scene.evidence.alerts.iter().filter(|(name, _)| meant(name)).collect();
    let fresh: Vec<_> = firing.iter().filter(|(_, a)| a.since >= scene.deployed).collect();
    let n = count(fresh.len());
    let old = firing.len() - fresh.len();
    let before =
        || if old > 0 { format!("; {old} fired before the deployment already") } else { String::new() };
    let Some((name, alarm)) = fresh.iter().min_by_key(|(_, a)| a.since) else {
        let none = if old > 0 {
            format!("none that is new{}", before()).into()
        } else {
            Cow::from("none is firing")
        };
        return rule.finding(RowAnswer::Ok, none);
    };
    let over = scene.now.since(alarm.since);
    let reason =
        Reason::AlertFiring { alert: (*name).clone(), alerts: n, over, summary: alarm.summary.clone() };
    let enough = f64::from(n) >= rule.threshold && over >= rule.sustained;
    let value = scene.say(|| format!("{n} firing, {name} for {}{}", human(over), before()));
    if enough || rule.action == Action::Rollback {
        rule.crossed(enough, value, alarm.since, reason).samples(n)
    } else {
        rule.finding(RowAnswer::Ok, value).samples(n)
    }
}
