//! Bad deployments: they must be rolled back, for the right reason, in time.

use super::environment::recurs;
use super::model::{Dependency, Effect, Event, Layout, Shape, Use};
use super::plan::{Ask, MINUTE, Plan};
use super::stats::{ERRORS, Expectation, SLOW, seen};

const EVER: f64 = f64::MAX;
pub(super) const BY_ERRORS: &[&str] = &["error_rate"];
pub(super) const BY_LATENCY: &[&str] = &["latency_p99"];
pub(super) const BY_HEALTH: &[&str] = &["health"];
const BY_EITHER: &[&str] = &["health", "error_rate"];
const BY_MEMORY: &[&str] = &["memory", "oom"];
const BY_EXITS: &[&str] = &["crash_loop", "oom", "down", "health", "error_rate"];

/// How soon errors of this share are seen in the subject's traffic.
fn by_errors(plan: &mut Plan, share: f64) -> Option<Expectation> {
    let line = (plan.subject().errors * 2.0).max(0.05);
    let of = plan.subject();
    let share = 1.0 - (1.0 - of.errors) * (1.0 - share);
    // Traffic wanders: half of it may be all there is.
    seen(ERRORS, line, share, of.rate * 0.7, of.window)
}

/// The same for a share of requests that became slow.
fn by_latency(plan: &mut Plan, share: f64) -> Option<Expectation> {
    let of = plan.subject();
    seen(SLOW, 0.01, share, of.rate * 0.7, of.window)
}

const fn within(usual: f64, latest: f64) -> Option<Expectation> {
    Some(Expectation { usual, latest })
}

fn errors(plan: &mut Plan, share: f64, minutes: &[f64]) {
    let (at, onset) = (plan.deployed, plan.onset(minutes));
    plan.subject().happens(onset, EVER, Effect::Errors(share));
    let wait = by_errors(plan, share);
    plan.deploy(0, at, "v2").bad(0, at, onset, wait, BY_ERRORS);
}

const ONSETS: &[f64] = &[0.0, 5.0, 0.0, 25.0, 48.0];

pub(super) fn outage(plan: &mut Plan) {
    plan.serves(3.0, 120.0, &[1.0, 5.0, 10.0]);
    let share = plan.turn(&[1.0, 0.8, 0.6]);
    errors(plan, share, ONSETS);
}

pub(super) fn errors_25(plan: &mut Plan) {
    plan.serves(5.0, 120.0, &[1.0, 5.0, 10.0, 15.0]);
    let share = plan.turn(&[0.5, 0.25, 0.18, 0.35]);
    errors(plan, share, ONSETS);
}

pub(super) fn errors_10(plan: &mut Plan) {
    plan.serves(15.0, 120.0, &[5.0, 10.0, 15.0]);
    let share = plan.turn(&[0.1, 0.12]);
    errors(plan, share, ONSETS);
}

pub(super) fn errors_8(plan: &mut Plan) {
    plan.serves(20.0, 120.0, &[5.0, 10.0, 15.0]);
    plan.subject().errors = 0.002;
    errors(plan, 0.08, ONSETS);
}

pub(super) fn errors_6(plan: &mut Plan) {
    plan.serves(40.0, 150.0, &[5.0, 10.0, 15.0]);
    plan.subject().errors = 0.002;
    let share = plan.turn(&[0.06, 0.065]);
    errors(plan, share, &[0.0, 5.0, 25.0, 35.0]);
}

pub(super) fn errors_low_traffic(plan: &mut Plan) {
    let (share, rate) = plan.turn(&[(1.0, 0.3), (0.6, 0.8), (0.5, 1.5), (0.9, 0.5), (1.0, 0.12)]);
    plan.serves(rate, 1.2 * rate, &[5.0, 10.0, 15.0]);
    plan.subject().errors = 0.0;
    errors(plan, share, ONSETS);
}

/// Reports of requests come once a minute only.
pub(super) fn errors_slow_reports(plan: &mut Plan) {
    plan.serves(5.0, 80.0, &[30.0, 60.0]);
    let share = plan.turn(&[0.3, 1.0, 0.15]);
    errors(plan, share, ONSETS);
}

pub(super) fn errors_ramp(plan: &mut Plan) {
    plan.serves(15.0, 100.0, &[5.0, 10.0, 15.0]);
    let (at, begin) = (plan.deployed, plan.onset(&[0.0, 5.0]));
    let lasts = plan.turn(&[300.0, 900.0, 1500.0]);
    plan.subject().grows(begin, EVER, lasts, Effect::Errors(0.4));
    // Bad where it crosses the line; well seen where it is at three times that.
    let (crosses, plain) = (begin + lasts * 0.05 / 0.4, lasts * 0.10 / 0.4);
    let wait = within(plain + 90.0, plain + 420.0);
    plan.deploy(0, at, "v2").bad(0, at, crosses, wait, BY_ERRORS);
}

/// Half a minute of errors, half a minute without, on and on.
pub(super) fn errors_on_and_off(plan: &mut Plan) {
    plan.serves(20.0, 100.0, &[5.0, 10.0]);
    let (at, onset) = (plan.deployed, plan.onset(&[0.0, 5.0]));
    let mut from = onset;
    while from < onset + 40.0 * MINUTE {
        plan.subject().happens(from, from + 30.0, Effect::Errors(0.35));
        from += 60.0;
    }
    plan.deploy(0, at, "v2").bad(0, at, onset, within(660.0, 1200.0), BY_ERRORS);
}

/// Reports are lost, and there are errors all the same.
pub(super) fn errors_with_gaps(plan: &mut Plan) {
    plan.serves(10.0, 80.0, &[5.0, 10.0]);
    plan.missing = plan.turn(&[0.2, 0.4]);
    errors(plan, 0.4, &[0.0, 10.0]);
}

/// Hardly anything is known of the time before.
pub(super) fn errors_early(plan: &mut Plan) {
    plan.serves(10.0, 80.0, &[5.0, 10.0]);
    plan.deployed = plan.turn(&[20.0, 120.0, 240.0]);
    plan.until = plan.deployed + 1800.0;
    errors(plan, 0.4, &[0.0]);
}

/// It was not well before, and is much worse now.
pub(super) fn errors_worse(plan: &mut Plan) {
    plan.serves(20.0, 100.0, &[5.0, 10.0]);
    plan.subject().errors = plan.turn(&[0.06, 0.08]);
    errors(plan, 0.7, &[0.0, 5.0]);
}

fn slow(plan: &mut Plan, factor: f64, minutes: &[f64]) {
    plan.serves(20.0, 200.0, &[5.0, 10.0, 15.0]);
    plan.subject().wander.1 = 0.03;
    let (at, onset) = (plan.deployed, plan.onset(minutes));
    plan.subject().happens(onset, EVER, Effect::Slow(factor));
    let share = plan.subject().slower_than(2.0, factor);
    let wait = by_latency(plan, share);
    plan.deploy(0, at, "v2").bad(0, at, onset, wait, BY_LATENCY);
}

pub(super) fn latency_4(plan: &mut Plan) {
    let factor = plan.turn(&[4.0, 8.0, 5.0]);
    slow(plan, factor, ONSETS);
}

pub(super) fn latency_3(plan: &mut Plan) {
    let factor = plan.turn(&[3.0, 2.7]);
    slow(plan, factor, ONSETS);
}

pub(super) fn latency_23(plan: &mut Plan) {
    let factor = plan.turn(&[2.4, 2.2, 2.3]);
    slow(plan, factor, &[0.0, 5.0, 25.0, 35.0]);
}

/// Less traffic, much slower.
pub(super) fn latency_low_traffic(plan: &mut Plan) {
    slow(plan, 5.0, &[0.0, 10.0]);
    let (at, onset) = (plan.deployed, plan.labels[0].onset);
    plan.labels.clear();
    plan.serves(1.0, 4.0, &[5.0, 10.0, 15.0]);
    let share = plan.subject().slower_than(2.0, 5.0);
    let wait = by_latency(plan, share);
    plan.bad(0, at, onset, wait, BY_LATENCY);
}

/// A few requests became ten times as slow: the median shows nothing.
pub(super) fn latency_tail(plan: &mut Plan) {
    plan.serves(30.0, 200.0, &[5.0, 10.0, 15.0]);
    plan.subject().shape = Shape::Lognormal(0.5);
    plan.subject().layout = plan.rng.pick(&[Layout::Prometheus, Layout::Fine]);
    let (at, onset) = (plan.deployed, plan.onset(&[0.0, 5.0, 25.0]));
    let (affected, factor) = plan.turn(&[(0.05, 10.0), (0.04, 10.0), (0.08, 6.0), (0.04, 300.0)]);
    plan.subject().scale = plan.rng.log_between(5.0, 60.0);
    plan.subject().happens(onset, EVER, Effect::Tail(affected, factor));
    let share = affected * plan.subject().slower_than(2.0, factor);
    let wait = by_latency(plan, share);
    plan.deploy(0, at, "v2").bad(0, at, onset, wait, BY_LATENCY);
}

pub(super) fn latency_ramp(plan: &mut Plan) {
    plan.serves(20.0, 100.0, &[5.0, 10.0, 15.0]);
    plan.subject().shape = Shape::Lognormal(0.55);
    let (at, begin) = (plan.deployed, plan.onset(&[0.0, 5.0]));
    let lasts = plan.turn(&[600.0, 1200.0]);
    plan.subject().grows(begin, EVER, lasts, Effect::Slow(5.0));
    // Twice as slow at a quarter of the way, three times at half of it.
    let wait = within(0.25 * lasts + 330.0, 0.25 * lasts + 700.0);
    plan.deploy(0, at, "v2").bad(0, at, begin + 0.25 * lasts, wait, BY_LATENCY);
}

/// The new version measures in other buckets, and is slow.
pub(super) fn latency_other_buckets(plan: &mut Plan) {
    slow(plan, 5.0, &[0.0, 5.0]);
    let (old, new) = plan.turn(&[
        (Layout::Prometheus, Layout::Fine),
        (Layout::Fine, Layout::OpenTelemetry),
        (Layout::OpenTelemetry, Layout::Prometheus),
    ]);
    plan.subject().layout = old;
    let at = plan.deployed;
    plan.subject().happens(at, EVER, Effect::Buckets(new));
}

/// It never becomes ready; requests fail or do not come at all.
pub(super) fn never_ready(plan: &mut Plan) {
    let at = plan.deployed;
    plan.subject().probes = plan.rng.pick(&[5.0, 10.0, 15.0]);
    let interval = plan.subject().probes;
    let with = plan.turn(&[Effect::Traffic(0.0), Effect::Errors(1.0), Effect::NoRequests]);
    plan.subject().happens(at, EVER, Effect::Sick(1.0)).happens(at, EVER, with);
    plan.deploy(0, at, "v2").bad(0, at, at, within(2.0 * interval + 10.0, 4.0 * interval + 60.0), BY_EITHER);
}

/// It was healthy and then dies.
pub(super) fn dies(plan: &mut Plan) {
    let (at, onset) = (plan.deployed, plan.onset(&[5.0, 25.0, 50.0]));
    plan.subject().probes = plan.rng.pick(&[5.0, 10.0, 30.0]);
    let interval = plan.subject().probes;
    let with = plan.turn(&[Effect::Errors(1.0), Effect::Traffic(0.0)]);
    plan.subject().happens(onset, EVER, Effect::Sick(1.0)).happens(onset, EVER, with);
    plan.deploy(0, at, "v2").bad(
        0,
        at,
        onset,
        within(2.0 * interval + 15.0, 4.0 * interval + 60.0),
        BY_EITHER,
    );
}

/// Nothing but the probe is known of it.
pub(super) fn health_only(plan: &mut Plan) {
    plan.fleet(1);
    plan.subject().rate = 0.0;
    plan.subject().memory_every = 0.0;
    dies(plan);
    plan.labels[0].signals = BY_HEALTH;
}

/// Traffic is served, the probe fails on and on: the other runbook's five minutes.
pub(super) fn health_contradicted(plan: &mut Plan) {
    plan.serves(8.0, 100.0, &[5.0, 10.0]);
    plan.subject().errors = 0.002;
    plan.subject().probes = plan.rng.pick(&[5.0, 10.0, 15.0]);
    let interval = plan.subject().probes;
    let (at, onset) = (plan.deployed, plan.onset(&[5.0, 20.0]));
    plan.subject().happens(onset, EVER, Effect::Sick(1.0));
    let wait = within(320.0 + 2.0 * interval, 420.0 + 3.0 * interval);
    plan.deploy(0, at, "v2").bad(0, at, onset, wait, BY_HEALTH);
}

pub(super) fn flapping(plan: &mut Plan) {
    let (at, onset) = (plan.deployed, plan.onset(&[2.0, 15.0]));
    plan.subject().probes = plan.rng.pick(&[10.0, 5.0]);
    if plan.number.is_multiple_of(2) {
        plan.subject().rate = 0.0;
    } else {
        plan.serves(5.0, 50.0, &[5.0, 10.0]);
        plan.subject().errors = 0.0;
    }
    let effect = plan.turn(&[
        Effect::Pattern(&[true, true, false, true, false, true, true, false]),
        Effect::Pattern(&[true, true, false, false]),
        Effect::Sick(0.55),
    ]);
    plan.subject().happens(onset, EVER, effect);
    plan.deploy(0, at, "v2").bad(0, at, onset, within(320.0, 500.0), BY_HEALTH);
}

/// It exits, is started again, and exits again.
pub(super) fn crash_loop(plan: &mut Plan) {
    let (at, onset) = (plan.deployed, plan.onset(&[0.0, 0.0, 10.0, 40.0]));
    let (code, pauses): (i32, &[f64]) = plan.turn(&[
        (1, &[16.0, 1.5, 2.0, 3.5, 7.0, 13.0, 26.0, 60.0, 60.0, 60.0][..]),
        (139, &[20.0, 10.0, 20.0, 40.0, 80.0, 160.0]),
        (134, &[45.0, 60.0, 60.0, 60.0, 60.0]),
        (101, &[16.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0]),
    ]);
    let mut t = onset;
    let mut third = onset;
    for (n, pause) in pauses.iter().enumerate() {
        t += pause;
        plan.subject().event(t, Event::Exit { code, oom: false });
        if n == 2 {
            third = t;
        }
    }
    plan.subject().happens(onset, EVER, Effect::Sick(0.9)).happens(onset, EVER, Effect::Traffic(0.1));
    plan.subject().event(at, Event::Deploy("v2".into()));
    let wait = within(third - onset + 5.0, third - onset + 60.0);
    plan.bad(0, at, onset, wait, BY_EXITS);
    // Exits need no grace.
    plan.labels[0].wait = wait.unwrap_or(plan.labels[0].wait);
}

/// Three exits, minutes apart, of a service that never exited before.
pub(super) fn crash_slowly(plan: &mut Plan) {
    let at = plan.deployed;
    let apart = plan.turn(&[400.0, 520.0, 700.0]);
    plan.subject().event(at, Event::Deploy("v2".into()));
    for n in 1..=6 {
        let t = at + apart * f64::from(n);
        let down = plan.rng.between(2.0, 6.0);
        plan.subject().event(t, Event::Exit { code: 1, oom: false });
        plan.subject().happens(t, t + down, Effect::Errors(1.0)).happens(t, t + down, Effect::Sick(1.0));
    }
    plan.bad(0, at, at + apart, within(2.0 * apart + 5.0, 2.0 * apart + 60.0), &["crash_loop"]);
}

fn remembers(plan: &mut Plan, intervals: &[f64]) -> f64 {
    plan.subject().memory_every = plan.rng.pick(intervals);
    plan.subject().memory_noise = 0.003;
    plan.subject().memory_every
}

/// Memory fills within a minute or two, the kernel kills, and again.
pub(super) fn oom_loop(plan: &mut Plan) {
    remembers(plan, &[5.0, 10.0]);
    let at = plan.deployed;
    let life = plan.turn(&[50.0, 110.0, 200.0]);
    plan.subject().happens(at, EVER, Effect::Memory(Use::Leak(0.3, 0.7 / life)));
    for n in 1..=8 {
        let t = at + life * f64::from(n);
        plan.subject().event(t, Event::Exit { code: 137, oom: true });
    }
    plan.subject().event(at, Event::Deploy("v2".into()));
    plan.bad(0, at, at, within(life + 5.0, 2.0 * life + 60.0), BY_MEMORY);
    plan.labels[0].wait.latest = 2.0 * life + 60.0;
}

/// Memory grows until it is over the line.
pub(super) fn leak(plan: &mut Plan) {
    let interval = remembers(plan, &[5.0, 5.0, 10.0, 15.0, 30.0]);
    let (at, from) = (plan.deployed, plan.rng.between(0.4, 0.6));
    let lasts = plan.turn(&[900.0, 1500.0, 2400.0, 4000.0]) / if plan.small { 2.0 } else { 1.0 };
    plan.subject().happens(at, EVER, Effect::Memory(Use::Leak(from, (0.9 - from) / lasts)));
    // Memory does not notice the line: there is a minute of it at least before the kernel kills.
    let wait = within(75.0 + 5.0 * interval, 180.0 + 6.0 * interval);
    plan.deploy(0, at, "v2").bad(0, at, at + lasts, wait, BY_MEMORY);
    // Noise may carry it over the line a little earlier.
    plan.labels[0].earliest -= 90.0;
}

/// From one moment to the next, or within two minutes, nearly all the memory is in use.
pub(super) fn memory_high(plan: &mut Plan) {
    let interval = remembers(plan, &[5.0, 10.0, 15.0]);
    let (at, onset) = (plan.deployed, plan.onset(&[0.0, 5.0, 30.0]));
    let (usage, rises) =
        plan.turn(&[(Use::Level(0.95), 0.0), (Use::WarmUp(0.5, 0.97, 50.0), 95.0), (Use::Level(0.925), 0.0)]);
    plan.subject().happens(onset, EVER, Effect::Memory(usage));
    let wait = within(rises + 65.0 + interval, rises + 120.0 + 5.0 * interval);
    plan.deploy(0, at, "v2").bad(0, at, onset, wait, BY_MEMORY);
}

fn on_database(plan: &mut Plan, down: Vec<(f64, f64)>) {
    let interval = plan.rng.pick(&[5.0, 10.0]);
    plan.subject().dependencies.push(Dependency { name: "db".into(), interval, down, blips: 0.0 });
}

/// The version is bad, and an outage of the database hides it until it is over.
pub(super) fn hidden_by_outage(plan: &mut Plan) {
    plan.serves(10.0, 80.0, &[5.0, 10.0]);
    let at = plan.deployed;
    let (from, lasts) = (at + plan.rng.between(5.0, 30.0), plan.turn(&[180.0, 360.0]));
    plan.subject().happens(at, EVER, Effect::Errors(0.3)).happens(from, from + lasts, Effect::Errors(0.8));
    on_database(plan, vec![(from, from + lasts)]);
    // Before the outage began there was no time to judge; 60 to 120 seconds after its end, plus the minute in which
    // a recovered dependency still counts.
    plan.deploy(0, at, "v2").bad(0, at, from + lasts, within(130.0, 300.0), BY_ERRORS);
    // It is bad during the outage too.
    plan.labels[0].earliest = at;
}

/// The release overloads its own database: that is no excuse.
pub(super) fn kills_dependency(plan: &mut Plan) {
    plan.serves(20.0, 80.0, &[5.0, 10.0]);
    let (at, onset) = (plan.deployed, plan.deployed + 2.0 * MINUTE);
    let share = plan.turn(&[0.3, 0.15]);
    plan.subject().happens(onset, EVER, Effect::Errors(share));
    on_database(plan, vec![(onset + 90.0, EVER)]);
    let wait = by_errors(plan, share);
    plan.deploy(0, at, "v2").bad(0, at, onset, wait, BY_ERRORS);
}

/// A dependency's probe fails once in a while: no excuse either.
pub(super) fn dependency_blips(plan: &mut Plan) {
    plan.serves(10.0, 80.0, &[5.0, 10.0]);
    let early = (plan.deployed - 900.0, plan.deployed - 600.0);
    on_database(plan, vec![early]);
    plan.subject().dependencies[0].blips = 0.004;
    errors(plan, 0.3, &[0.0, 10.0]);
}

/// A good version, and ten minutes later a bad one.
pub(super) fn after_a_good_one(plan: &mut Plan) {
    plan.serves(15.0, 100.0, &[5.0, 10.0, 15.0]);
    let (first, second) = (plan.deployed, plan.deployed + (plan.rng.between(8.0, 13.0) * MINUTE).round());
    let (share, factor) = plan.turn(&[(0.3, 1.0), (0.0, 5.0), (1.0, 1.0)]);
    plan.subject().happens(second, EVER, Effect::Errors(share)).happens(second, EVER, Effect::Slow(factor));
    let slow = plan.subject().slower_than(2.0, factor);
    let (wait, why) =
        if share > 0.0 { (by_errors(plan, share), BY_ERRORS) } else { (by_latency(plan, slow), BY_LATENCY) };
    plan.deploy(0, first, "v2").deploy(0, second, "v3");
    plan.keep(0, first);
    plan.bad(0, second, second, wait, why);
}

/// A bad version, and a quarter of an hour later another one.
pub(super) fn twice(plan: &mut Plan) {
    plan.serves(15.0, 100.0, &[5.0, 10.0]);
    let (first, second) = (plan.deployed, plan.deployed + 16.0 * MINUTE);
    // Somebody put the old version back in between.
    let undone = first + 6.0 * MINUTE;
    plan.subject().happens(first, undone, Effect::Errors(0.4)).happens(second, EVER, Effect::Errors(0.5));
    plan.deploy(0, first, "v2").deploy(0, undone, "v1").deploy(0, second, "v3");
    let wait = by_errors(plan, 0.4);
    plan.bad(0, first, first, wait, BY_ERRORS);
    plan.keep(0, undone);
    plan.bad(0, second, second, wait, BY_ERRORS);
}

/// Two bad releases at the same time: one goes first, the other when that has not helped.
pub(super) fn two_at_once(plan: &mut Plan) {
    let count = plan.services.len().max(2);
    plan.fleet(count).serves(10.0, 80.0, &[5.0, 10.0]);
    let at = plan.deployed;
    plan.services[1].rate = 25.0;
    plan.services[1].window = 5.0;
    let apart = plan.turn(&[0.0, 20.0, 400.0]);
    for (service, onset) in [(0, at), (1, at + apart)] {
        plan.services[service].happens(onset, EVER, Effect::Errors(0.5));
        plan.deploy(service, onset, "v2");
        let Some(mut wait) = by_errors(plan, 0.5) else { continue };
        wait.latest += 300.0;
        plan.bad(service, onset, onset, Some(wait), BY_ERRORS);
    }
}

/// Somebody else is in trouble too, and was before: one of many is no outage.
pub(super) fn others_trouble(plan: &mut Plan) {
    plan.fleet(if plan.small { 3 } else { 5 }).serves(10.0, 80.0, &[5.0, 10.0]);
    let from = plan.deployed - plan.rng.between(-30.0, 600.0);
    plan.services[1].rate = 20.0;
    plan.services[1].happens(from, EVER, Effect::Errors(0.3));
    errors(plan, 0.4, &[0.0, 5.0]);
}

/// The others cannot do without it, and said so: they are no witnesses.
pub(super) fn drags_dependants(plan: &mut Plan) {
    plan.fleet(4).serves(20.0, 80.0, &[5.0, 10.0]);
    let name = plan.services[0].name.clone();
    let share = plan.turn(&[0.4, 1.0]);
    errors(plan, share, &[0.0, 5.0, 20.0]);
    let onset = plan.labels[0].onset;
    for other in &mut plan.services[1..] {
        other.rate = other.rate.max(5.0);
        other.happens(onset, EVER, Effect::Errors(share * 0.8));
        other.dependencies.push(Dependency {
            name: name.clone(),
            interval: 10.0,
            down: Vec::new(),
            blips: 0.0,
        });
    }
}

/// The others cannot do without it, and nobody said so; it is much worse off than they are.
pub(super) fn drags_others(plan: &mut Plan) {
    plan.fleet(4).serves(20.0, 80.0, &[5.0, 10.0]);
    errors(plan, 0.8, &[0.0]);
    let onset = plan.labels[0].onset;
    for other in &mut plan.services[1..] {
        other.rate = other.rate.max(5.0);
        other.happens(onset + 5.0, EVER, Effect::Errors(0.25));
    }
}

/// Everything is deployed at once, and one of it is bad.
pub(super) fn one_of_all(plan: &mut Plan) {
    let count = plan.services.len().max(3);
    plan.fleet(count).serves(10.0, 80.0, &[5.0, 10.0]);
    errors(plan, 0.4, &[0.0]);
    for other in 1..plan.services.len() {
        let at = plan.deployed + plan.rng.whole(0, 20) as f64;
        plan.services[other].happens(at, at + 25.0, Effect::Slow(3.0));
        plan.deploy(other, at, "v2");
        plan.keep(other, at);
    }
}

/// Each replica's replacement is a line of its own; the release is bad.
pub(super) fn replicas(plan: &mut Plan) {
    plan.serves(10.0, 80.0, &[5.0, 10.0]);
    errors(plan, 0.5, &[0.0]);
    for n in 1..4 {
        let later = plan.deployed + 6.0 * f64::from(n);
        plan.subject().event(later, Event::Deploy("v2".into()));
    }
    plan.labels[0].wait.latest += 30.0;
}

/// Fewer requests come, or many more because everybody tries again; most of them fail.
pub(super) fn errors_and_traffic(plan: &mut Plan) {
    plan.serves(20.0, 80.0, &[5.0, 10.0]);
    let (at, traffic) = (plan.deployed, plan.turn(&[0.15, 4.0]));
    errors(plan, 0.5, &[0.0, 10.0]);
    let onset = plan.labels[0].onset.max(at);
    plan.subject().happens(onset, EVER, Effect::Traffic(traffic));
    plan.labels[0].wait.latest += 2.0 * MINUTE;
}

/// Hardly anything is known of the time before, but enough.
pub(super) fn latency_early(plan: &mut Plan) {
    plan.deployed = plan.turn(&[400.0, 700.0]);
    plan.until = plan.deployed + 1800.0;
    slow(plan, 5.0, &[0.0, 5.0]);
}

/// A service that answers within a few milliseconds does not any more.
pub(super) fn latency_of_the_fast(plan: &mut Plan) {
    slow(plan, 12.0, &[0.0, 5.0]);
    plan.subject().scale = 5.0 / plan.subject().shape.p99();
    plan.subject().layout = Layout::Prometheus;
}

/// A good version, and minutes later a bad one: there is no baseline of the good one yet.
pub(super) fn soon_after_a_good_one(plan: &mut Plan) {
    plan.serves(15.0, 100.0, &[5.0, 10.0]);
    let first = plan.deployed;
    plan.deploy(0, first, "v2").keep(0, first);
    plan.deployed += plan.turn(&[120.0, 200.0, 290.0]);
    errors(plan, 0.4, &[0.0]);
}

/// The others report once a minute, have no probes, or stopped reporting long ago: that is no trouble of theirs.
pub(super) fn silent_neighbours(plan: &mut Plan) {
    plan.fleet(if plan.small { 3 } else { 5 }).serves(15.0, 80.0, &[5.0, 10.0]);
    let gone = plan.turn(&[f64::MAX, -600.0, -1500.0, 20.0]);
    let from = if gone == f64::MAX { EVER } else { plan.deployed + gone };
    for other in &mut plan.services[1..] {
        (other.window, other.rate) = (60.0, other.rate.min(0.5));
        (other.probes, other.memory_every) = (0.0, 30.0);
        other.happens(from, EVER, Effect::NoRequests).happens(from, EVER, Effect::NoMemory);
    }
    errors(plan, 0.4, &[0.0, 5.0]);
}

/// A healthy neighbour was deployed nearer to the beginning of the trouble: it has nothing to do with it.
pub(super) fn innocent_neighbour(plan: &mut Plan) {
    let count = plan.services.len().max(2);
    plan.fleet(count).serves(15.0, 80.0, &[5.0, 10.0]);
    errors(plan, 0.4, &[8.0, 20.0]);
    let near = (plan.labels[0].onset - plan.turn(&[30.0, 120.0])).max(1.0).round();
    plan.deploy(1, near, "v7").keep(1, near);
}

/// What it depends on was deployed long ago and fails late; the one that depends on it was deployed just before.
pub(super) fn upstream_late(plan: &mut Plan) {
    plan.fleet(2).serves(20.0, 80.0, &[5.0, 10.0]);
    let name = plan.services[0].name.clone();
    let (at, onset) = (plan.deployed, plan.deployed + plan.turn(&[10.0, 20.0]) * MINUTE);
    plan.subject().happens(onset, EVER, Effect::Errors(0.5));
    let wait = by_errors(plan, 0.5);
    plan.deploy(0, at, "v2").bad(0, at, onset, wait, BY_ERRORS);
    // A judge may hesitate: the other one was deployed nearer to the onset.
    plan.labels[0].wait.latest += 240.0;
    let near = onset - plan.turn(&[60.0, 150.0]);
    let it = &mut plan.services[1];
    (it.rate, it.window) = (30.0, 5.0);
    it.dependencies.push(Dependency { name, interval: 10.0, down: Vec::new(), blips: 0.0 });
    it.happens(onset + 3.0, EVER, Effect::Errors(0.4));
    plan.deploy(1, near, "v5").keep(1, near).ask = Ask::May;
}

/// Two services need each other, and said so; one of them was deployed, and is bad.
pub(super) fn mutual(plan: &mut Plan) {
    let count = plan.services.len().max(2);
    plan.fleet(count).serves(20.0, 80.0, &[5.0, 10.0]);
    errors(plan, 0.6, &[0.0, 5.0]);
    let onset = plan.labels[0].onset;
    (plan.services[1].rate, plan.services[1].window) = (30.0, 5.0);
    plan.services[1].happens(onset + 3.0, EVER, Effect::Errors(0.3));
    for (one, other) in [(0, 1), (1, 0)] {
        let name = plan.services[other].name.clone();
        let it = Dependency { name, interval: 10.0, down: Vec::new(), blips: 0.0 };
        plan.services[one].dependencies.push(it);
    }
}

/// A declared dependency has been in the same modest trouble for hours, and the service was well with it.
pub(super) fn chronic_dependency(plan: &mut Plan) {
    plan.fleet(2).serves(15.0, 80.0, &[5.0, 10.0]);
    let name = plan.services[1].name.clone();
    (plan.services[1].rate, plan.services[1].errors) = (20.0, 0.08);
    let it = Dependency { name, interval: 10.0, down: Vec::new(), blips: 0.0 };
    plan.subject().dependencies.push(it);
    errors(plan, 0.6, &[0.0, 5.0]);
}

/// A declared dependency never answered its probe, and the service was well all the same.
pub(super) fn false_dependency(plan: &mut Plan) {
    plan.serves(15.0, 80.0, &[5.0, 10.0]);
    on_database(plan, vec![(0.0, EVER)]);
    errors(plan, 0.6, &[0.0, 5.0]);
}

/// Memory is nobody else's fault: a database that is down does not fill it.
pub(super) fn memory_in_an_outage(plan: &mut Plan) {
    let interval = remembers(plan, &[5.0, 10.0]);
    let (at, onset) = (plan.deployed, plan.deployed + 4.0 * MINUTE);
    on_database(plan, vec![(onset - 30.0, onset + 600.0)]);
    plan.subject().happens(onset, EVER, Effect::Memory(Use::Level(0.96)));
    plan.deploy(0, at, "v2").bad(0, at, onset, within(70.0 + interval, 120.0 + 5.0 * interval), BY_MEMORY);
}

/// A leak under a garbage collector's ups and downs.
pub(super) fn leaking_saw(plan: &mut Plan) {
    remembers(plan, &[5.0, 10.0]);
    let at = plan.deployed;
    let (lasts, swing) = (plan.turn(&[600.0, 1200.0]), 0.06);
    let slope = (0.9 - 0.45) / lasts;
    plan.subject().happens(at, EVER, Effect::Memory(Use::LeakingSaw(0.45, slope, swing, 40.0)));
    plan.deploy(0, at, "v2").bad(0, at, at + lasts, within(130.0, 300.0), BY_MEMORY);
    // Its peaks are over the line before.
    plan.labels[0].earliest = at + lasts - swing / slope - 60.0;
}

/// Memory and exits take longer to show than errors do, and are blamed for longer.
pub(super) fn slow_to_show(plan: &mut Plan) {
    let interval = remembers(plan, &[10.0, 15.0]);
    let (at, onset) = (plan.deployed, plan.deployed + plan.turn(&[70.0, 90.0, 105.0]) * MINUTE);
    plan.subject().event(at, Event::Deploy("v2".into()));
    if plan.number.is_multiple_of(2) {
        plan.subject().happens(onset, EVER, Effect::Memory(Use::Level(0.95)));
        plan.bad(0, at, onset, within(70.0 + interval, 120.0 + 5.0 * interval), BY_MEMORY);
    } else {
        for n in 0..6 {
            plan.subject().event(onset + 20.0 * f64::from(n), Event::Exit { code: 1, oom: false });
        }
        plan.bad(0, at, onset, within(45.0, 100.0), BY_EXITS);
    }
}

/// What came every few minutes and went by itself comes with the new release and stays.
pub(super) fn recurring_too(plan: &mut Plan) {
    plan.serves(8.0, 100.0, &[1.0, 5.0, 10.0]);
    let kind = plan.turn(&[0, 3]);
    recurs(plan, kind);
    let (at, onset) = (plan.deployed, plan.onset(&[0.0, 6.0]));
    let (effect, signals) =
        if kind == 0 { (Effect::Errors(0.4), BY_ERRORS) } else { (Effect::Sick(1.0), BY_HEALTH) };
    plan.subject().happens(onset, EVER, effect);
    // It has to last for longer than what passed.
    plan.deploy(0, at, "v2").bad(0, at, onset, within(240.0, 600.0), signals);
    plan.labels[0].earliest = at;
}
