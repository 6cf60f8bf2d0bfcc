//! Deployments with nothing wrong, in all the ways in which that can look wrong.

use super::model::{Dependency, Effect, Event, Layout, Use};
use super::plan::{Ask, MINUTE, Plan};

const EVER: f64 = f64::MAX;

pub(super) fn quiet(plan: &mut Plan) {
    plan.subject().slope = plan.turn(&[0.1, 2.0, -0.3]);
    plan.all_well();
}

pub(super) fn busy(plan: &mut Plan) {
    plan.serves(150.0, 500.0, &[5.0, 15.0, 60.0]);
    plan.subject().errors = plan.turn(&[0.005, 0.02]);
    plan.all_well();
}

pub(super) fn noisy(plan: &mut Plan) {
    plan.serves(5.0, 100.0, &[5.0, 15.0, 60.0]);
    plan.subject().wander = (0.5, plan.turn(&[0.15, 0.2, 0.25]));
    plan.subject().errors = 0.02;
    plan.all_well();
}

pub(super) fn low_traffic(plan: &mut Plan) {
    plan.serves(0.02, 0.2, &[10.0, 30.0, 60.0]);
    plan.subject().errors = plan.turn(&[0.01, 0.02, 0.03]);
    plan.all_well();
}

pub(super) fn bursts(plan: &mut Plan) {
    plan.serves(3.0, 60.0, &[1.0, 5.0, 10.0]);
    for _ in 0..12 {
        let (at, lasts) = (plan.rng.between(0.0, plan.until), plan.rng.between(3.0, 10.0));
        let effect = if plan.rng.chance(0.6) {
            Effect::Errors(plan.rng.between(0.1, 0.4))
        } else {
            Effect::Traffic(6.0)
        };
        plan.subject().happens(at, at + lasts, effect);
    }
    plan.all_well();
}

pub(super) fn cold_start(plan: &mut Plan) {
    plan.serves(2.0, 100.0, &[5.0, 10.0, 15.0]);
    let at = plan.deployed;
    // Much for as long as nobody judges errors; a little for as long as nobody judges latency.
    let (errors, until) = plan.turn(&[(1.0, 15.0), (0.6, 28.0), (0.25, 45.0), (0.12, 58.0)]);
    let slow = plan.rng.between(2.5, 6.0);
    plan.subject().happens(at, at + until, Effect::Errors(errors)).happens(at, at + 60.0, Effect::Slow(slow));
    plan.all_well();
}

pub(super) fn warm_caches(plan: &mut Plan) {
    plan.serves(5.0, 100.0, &[5.0, 10.0, 15.0]);
    let at = plan.deployed;
    plan.subject()
        .happens(at, at + 70.0, Effect::Slow(4.0))
        .happens(at + 70.0, at + 120.0, Effect::Slow(2.4))
        .happens(at + 120.0, at + 240.0, Effect::Slow(1.4));
    plan.all_well();
}

/// Every quarter of an hour something runs that makes everything slow.
pub(super) fn jobs(plan: &mut Plan) {
    plan.serves(5.0, 100.0, &[5.0, 15.0, 30.0]);
    let mut at = plan.rng.between(0.0, 900.0);
    // The new version may be the first that has the job.
    if plan.number % 2 == 1 {
        at += (plan.deployed / 900.0).ceil() * 900.0;
    }
    while at < plan.until {
        let (lasts, slow) = (plan.rng.between(50.0, 110.0), plan.rng.between(2.2, 3.2));
        plan.subject().happens(at, at + lasts, Effect::Slow(slow));
        at += 900.0;
    }
    plan.all_well();
}

pub(super) fn traffic_up(plan: &mut Plan) {
    plan.serves(3.0, 60.0, &[5.0, 15.0, 60.0]);
    let (at, times) = (plan.deployed, plan.rng.between(2.5, 5.0));
    plan.subject().happens(at, EVER, Effect::Traffic(times)).happens(at, EVER, Effect::Slow(1.15));
    plan.all_well();
}

/// Requests stop coming: that is no data, not an error.
pub(super) fn silence(plan: &mut Plan) {
    let at = plan.deployed + plan.rng.pick(&[0.0, 300.0]);
    let effect = plan.turn(&[Effect::Traffic(0.0), Effect::NoRequests]);
    plan.subject().happens(at, EVER, effect);
    plan.all_well();
}

pub(super) fn one_error(plan: &mut Plan) {
    plan.serves(0.01, 0.06, &[5.0, 30.0, 60.0]);
    let at = plan.deployed + plan.rng.between(40.0, 600.0);
    let lasts = 1.5 / plan.subject().rate;
    plan.subject().errors = 0.0;
    plan.subject().happens(at, at + lasts, Effect::Errors(1.0));
    plan.all_well();
}

/// Measurements are lost, now and then and for minutes on end.
pub(super) fn missing(plan: &mut Plan) {
    plan.missing = plan.rng.between(0.1, 0.5);
    let at = plan.deployed + plan.rng.between(-60.0, 240.0);
    for effect in [Effect::NoRequests, Effect::NoHealth, Effect::NoMemory] {
        let (from, lasts) = (at + plan.rng.between(0.0, 120.0), plan.rng.between(60.0, 400.0));
        plan.subject().happens(from, from + lasts, effect);
    }
    plan.all_well();
}

/// The old containers end when the new ones begin, and not always politely.
pub(super) fn old_exits(plan: &mut Plan) {
    let codes: &[i32] =
        plan.turn(&[&[137][..], &[143, 143, 143], &[137, 137, 137, 137], &[1], &[2, 143], &[0, 0]]);
    let at = plan.deployed;
    for code in codes {
        let after = plan.rng.between(0.1, 12.0);
        plan.subject().event(at + after, Event::Exit { code: *code, oom: false });
    }
    plan.subject().event(at, Event::Deploy("v2".into()));
    plan.keep(0, at);
}

/// Memory that grows and stops growing, or goes up and down, or is high and stays there.
pub(super) fn memory(plan: &mut Plan) {
    let at = plan.deployed;
    let usage = plan.turn(&[
        Use::WarmUp(0.2, 0.8, 400.0),
        Use::Sawtooth(0.35, 0.82, 240.0),
        Use::Level(0.85),
        Use::WarmUp(0.3, 0.86, 150.0),
        Use::Sawtooth(0.4, 0.86, 45.0),
        Use::Sawtooth(0.4, 0.95, 80.0),
    ]);
    plan.subject().memory_every = plan.rng.pick(&[5.0, 10.0]);
    plan.subject().memory_noise = 0.004;
    plan.subject().happens(at, EVER, Effect::Memory(usage));
    plan.all_well();
    plan.labels[0].ask = Ask::May;
}

/// Fewer people than three, however often they say it; or three, far apart.
pub(super) fn few_reports(plan: &mut Plan) {
    let at = plan.deployed;
    let reports: &[(f64, &str)] = plan.turn(&[
        &[(200.0, "alice"), (260.0, "bob")][..],
        &[(200.0, "alice"), (230.0, "alice"), (300.0, "alice"), (420.0, "alice"), (500.0, "alice")],
        &[(60.0, "alice"), (1020.0, "bob"), (1250.0, "bob")],
    ]);
    for (after, who) in reports {
        plan.subject().event(at + after, Event::Report((*who).into()));
    }
    plan.all_well();
}

pub(super) fn health_blips(plan: &mut Plan) {
    plan.subject().probes = plan.rng.pick(&[5.0, 10.0, 30.0]);
    plan.subject().probe_blips = 0.03;
    plan.all_well();
}

/// It takes its time to become ready.
pub(super) fn slow_start(plan: &mut Plan) {
    let (at, lasts) = (plan.deployed, plan.rng.between(20.0, 48.0));
    plan.subject().probes = plan.rng.pick(&[5.0, 10.0, 15.0]);
    plan.subject().happens(at, at + lasts, Effect::Sick(1.0)).happens(at, at + lasts, Effect::Traffic(0.0));
    plan.all_well();
}

/// The old container is stopped before the new one serves; or it dies once and is back in seconds.
pub(super) fn short_gap(plan: &mut Plan) {
    plan.serves(2.0, 100.0, &[1.0, 5.0, 10.0]);
    let at = plan.deployed + plan.turn(&[0.0, 1200.0, 400.0]);
    let lasts = plan.rng.between(4.0, 9.0);
    plan.subject().happens(at, at + lasts, Effect::Errors(1.0)).happens(at, at + lasts, Effect::Sick(1.0));
    if at > plan.deployed {
        plan.subject().event(at, Event::Exit { code: 1, oom: false });
    }
    plan.all_well();
}

/// One good version after the other.
pub(super) fn many_deployments(plan: &mut Plan) {
    let mut at = plan.deployed;
    for version in ["v2", "v3", "v4"] {
        plan.deploy(0, at, version);
        plan.keep(0, at);
        let spike = plan.rng.between(10.0, 25.0);
        plan.subject().happens(at, at + spike, Effect::Slow(3.0));
        at += (plan.rng.between(2.0, 6.0) * MINUTE).round();
    }
}

/// Each replica's replacement is a line of its own.
pub(super) fn replicas(plan: &mut Plan) {
    let at = plan.deployed;
    plan.all_well();
    for n in 1..plan.rng.whole(2, 5) {
        let later = at + 8.0 * n as f64;
        plan.subject()
            .event(later, Event::Deploy("v2".into()))
            .event(later + 1.0, Event::Exit { code: 143, oom: false });
    }
}

pub(super) fn faster(plan: &mut Plan) {
    let (at, factor) = (plan.deployed, plan.rng.between(0.3, 0.7));
    plan.subject().happens(at, EVER, Effect::Slow(factor));
    plan.all_well();
}

/// The new version measures in other buckets.
pub(super) fn other_buckets(plan: &mut Plan) {
    plan.serves(5.0, 100.0, &[5.0, 15.0, 60.0]);
    let (old, new) = plan.turn(&[
        (Layout::Prometheus, Layout::OpenTelemetry),
        (Layout::OpenTelemetry, Layout::Fine),
        (Layout::Fine, Layout::Prometheus),
        (Layout::Coarse, Layout::Fine),
        (Layout::Prometheus, Layout::Coarse),
    ]);
    plan.subject().layout = old;
    let at = plan.deployed;
    plan.subject().happens(at, EVER, Effect::Buckets(new));
    plan.all_well();
}

/// Hardly anything is known of the time before.
pub(super) fn early(plan: &mut Plan) {
    plan.until -= plan.deployed;
    plan.deployed = plan.rng.between(5.0, 200.0).round();
    plan.until += plan.deployed;
    plan.all_well();
}

/// It ends by itself and is started again, as it always did.
pub(super) fn exits_with_zero(plan: &mut Plan) {
    let mut at = plan.rng.between(0.0, 120.0);
    while at < plan.until {
        plan.subject().event(at, Event::Exit { code: 0, oom: false });
        at += 90.0;
    }
    plan.all_well();
}

/// Without a memory limit, or with no lines at all of one kind.
pub(super) fn partial(plan: &mut Plan) {
    match plan.number % 5 {
        0 => plan.subject().memory_limit = 0.0,
        1 => plan.subject().timed = false,
        2 => plan.subject().probes = 0.0,
        3 => plan.subject().rate = 0.0,
        _ => (plan.subject().rate, plan.subject().memory_every) = (0.0, 0.0),
    }
    plan.all_well();
}

/// Another service that nobody deployed has a bad hour.
pub(super) fn other_is_sick(plan: &mut Plan) {
    let count = plan.services.len().max(2);
    plan.fleet(count);
    let from = plan.deployed + plan.rng.between(-600.0, 900.0);
    plan.services[1].happens(from, EVER, Effect::Errors(0.5)).happens(from, EVER, Effect::Sick(1.0));
    plan.all_well();
}

/// Everybody deploys something.
pub(super) fn neighbours_deploy(plan: &mut Plan) {
    let count = plan.services.len().max(3);
    plan.fleet(count);
    plan.all_well();
    for other in 1..plan.services.len() {
        let at = (plan.deployed + plan.rng.between(-900.0, 1000.0)).round();
        plan.deploy(other, at, "v7");
        plan.keep(other, at);
    }
}

/// A bad version is replaced by its author before anybody can be sure.
pub(super) fn fixed_forward(plan: &mut Plan) {
    plan.serves(20.0, 100.0, &[5.0, 10.0, 15.0]);
    let (at, errors) = (plan.deployed, plan.turn(&[0.08, 0.3, 0.15]));
    let fixed = at + plan.rng.between(60.0, 150.0).round();
    plan.subject().happens(at, fixed + 3.0, Effect::Errors(errors));
    plan.deploy(0, at, "v2").deploy(0, fixed, "v3");
    plan.bad(0, at, at, None, &[]);
    plan.keep(0, fixed).hold = false;
    plan.until = plan.until.max(fixed + 20.0 * MINUTE);
}

/// There was an incident not long before the deployment; it is over.
pub(super) fn after_an_incident(plan: &mut Plan) {
    plan.serves(5.0, 100.0, &[5.0, 10.0, 15.0]);
    let from = plan.deployed - plan.rng.between(10.0, 22.0) * MINUTE;
    let effect = plan.turn(&[Effect::Errors(0.3), Effect::Slow(4.0), Effect::Sick(1.0)]);
    plan.subject().happens(from, from + 300.0, effect);
    plan.all_well();
}

/// Very slow or very fast, as it always was: at the ends of what its histogram can tell.
pub(super) fn ends_of_the_scale(plan: &mut Plan) {
    plan.serves(5.0, 100.0, &[5.0, 10.0, 60.0]);
    let p99 = plan.turn(&[8000.0, 3.0, 15_000.0, 1.0]);
    plan.subject().scale = p99 / plan.subject().shape.p99();
    plan.subject().layout = plan.rng.pick(&[Layout::Prometheus, Layout::OpenTelemetry]);
    let at = plan.deployed;
    plan.subject().happens(at, EVER, Effect::Slow(1.15));
    plan.all_well();
}

/// Backstop itself was blind for a while: nothing at all is known of anybody, the deployment perhaps included.
pub(super) fn blind(plan: &mut Plan) {
    let from = plan.deployed - plan.turn(&[60.0, 900.0, -120.0]);
    let lasts = plan.turn(&[1500.0, 600.0]);
    for service in &mut plan.services {
        for effect in [Effect::NoRequests, Effect::NoHealth, Effect::NoMemory] {
            service.happens(from, from + lasts, effect);
        }
    }
    plan.all_well();
}

/// It was not well, and the new version cures it.
pub(super) fn cure(plan: &mut Plan) {
    plan.serves(5.0, 100.0, &[5.0, 10.0]);
    let at = plan.deployed;
    let effect = plan.turn(&[Effect::Errors(0.3), Effect::Slow(4.0), Effect::Sick(0.7)]);
    plan.subject().happens(f64::MIN, at + 10.0, effect);
    for n in 1..8 {
        plan.subject().event(at - 110.0 * f64::from(n), Event::Exit { code: 1, oom: false });
    }
    plan.all_well();
}

/// What it says it needs never answered its probe: a mistake in somebody's settings.
pub(super) fn false_dependency(plan: &mut Plan) {
    let down = vec![(0.0, EVER)];
    plan.subject().dependencies.push(Dependency { name: "legacy".into(), interval: 10.0, down, blips: 0.0 });
    plan.all_well();
    plan.labels[0].ask = Ask::May;
}
