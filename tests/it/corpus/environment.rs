//! Trouble that no deployment brought: it must be seen, said, and blamed on nobody; and what only a person can judge.

use super::bad::{BY_ERRORS, BY_LATENCY};
use super::model::{Dependency, Effect, Event, Use};
use super::plan::{Ask, MINUTE, Plan};
use super::stats::Expectation;

const EVER: f64 = f64::MAX;

/// The subject's deployment is good; trouble came all the same.
fn not_to_blame(plan: &mut Plan) {
    plan.all_well();
    let label = plan.labels.len() - 1;
    (plan.labels[label].ask, plan.labels[label].hold) = (Ask::May, true);
}

/// A time some minutes after the deployment, and how long trouble lasts.
fn trouble(plan: &mut Plan, low: f64, high: f64) -> (f64, f64) {
    let after: f64 = plan.turn(&[0.5, 4.0, 12.0, 1.5, 30.0]);
    let after = if plan.small { after.min(8.0) } else { after };
    let from = (after + plan.rng.between(0.0, 1.0)).mul_add(MINUTE, plan.deployed);
    (from, from + plan.rng.between(low, high))
}

fn depends(plan: &mut Plan, service: usize, on: &str, down: Vec<(f64, f64)>) {
    let interval = plan.rng.pick(&[5.0, 10.0, 15.0]);
    plan.services[service].dependencies.push(Dependency { name: on.into(), interval, down, blips: 0.0 });
}

/// What an outage does to a service, and how it comes back.
fn suffers(plan: &mut Plan, service: usize, from: f64, to: f64, lag: f64) {
    let share = plan.rng.between(0.3, 1.0);
    let sick = plan.rng.chance(0.5);
    let late = plan.rng.between(0.0, 8.0);
    let it = &mut plan.services[service];
    it.happens(from + late, to, Effect::Errors(share));
    it.happens(to, to + lag, Effect::Errors(share * 0.6));
    if sick {
        it.happens(from + late, to + lag.min(20.0), Effect::Sick(1.0));
    }
}

/// The database is down, everybody has said that they need it, and they are slow to recover.
pub(super) fn database(plan: &mut Plan) {
    plan.serves(3.0, 80.0, &[5.0, 10.0, 15.0]);
    let (from, to) = trouble(plan, 60.0, 480.0);
    let lag = plan.turn(&[0.0, 20.0, 45.0, 70.0, 88.0]);
    for service in 0..plan.services.len() {
        depends(plan, service, "db", vec![(from, to)]);
        suffers(plan, service, from, to, lag);
    }
    not_to_blame(plan);
}

/// The database is back, and those who need it recover from most of it at once, and from the rest within a minute and a half.
pub(super) fn slow_recovery(plan: &mut Plan) {
    plan.serves(5.0, 80.0, &[5.0, 10.0]);
    let (from, to) = trouble(plan, 60.0, 240.0);
    let lag = plan.turn(&[60.0, 75.0, 88.0]);
    let share = plan.rng.between(0.7, 1.0);
    let left = share * plan.rng.between(0.15, 0.4);
    for service in 0..plan.services.len() {
        depends(plan, service, "db", vec![(from, to)]);
        let it = &mut plan.services[service];
        it.happens(from, to, Effect::Errors(share)).happens(to, to + lag, Effect::Errors(left));
    }
    not_to_blame(plan);
}

/// The database comes and goes, and so do the errors of those who need it.
pub(super) fn flapping_database(plan: &mut Plan) {
    const TIMES: usize = 6;
    plan.serves(5.0, 80.0, &[5.0]);
    let (from, _) = trouble(plan, 0.0, 1.0);
    let every = plan.rng.between(40.0, 70.0);
    let mut down = Vec::new();
    for i in 0..TIMES {
        let at = every.mul_add(i as f64, from);
        down.push((at, at + plan.rng.between(14.0, 24.0)));
    }
    let share = plan.rng.between(0.4, 1.0);
    for service in &mut plan.services {
        let dependency = Dependency { name: "db".into(), interval: 5.0, down: down.clone(), blips: 0.0 };
        service.dependencies.push(dependency);
        for (from, to) in &down {
            service.happens(*from, *to, Effect::Errors(share));
        }
    }
    not_to_blame(plan);
}

/// The database is down for a service that is watched alone.
pub(super) fn database_alone(plan: &mut Plan) {
    plan.fleet(1);
    database(plan);
}

/// The database is slow, and so is everything else.
pub(super) fn slow_database(plan: &mut Plan) {
    plan.serves(5.0, 80.0, &[5.0, 10.0, 15.0]);
    let (from, to) = trouble(plan, 240.0, 600.0);
    for service in 0..plan.services.len() {
        depends(plan, service, "db", vec![(from, to)]);
        plan.services[service].happens(from, to + 20.0, Effect::Slow(5.0));
    }
    not_to_blame(plan);
}

/// Something that nobody declared hits several others too.
pub(super) fn common_cause(plan: &mut Plan) {
    plan.fleet(5).serves(5.0, 80.0, &[5.0, 10.0, 15.0]);
    let (from, to) = trouble(plan, 120.0, 480.0);
    let hit = plan.turn(&[2, 3, 4]);
    for service in 0..=hit {
        plan.services[service].rate = plan.services[service].rate.max(4.0);
        plan.services[service].window = plan.services[service].window.min(15.0);
        suffers(plan, service, from, to, 15.0);
    }
    not_to_blame(plan);
}

/// The machine is short of something: everything on it is slow.
pub(super) fn slow_node(plan: &mut Plan) {
    let count = plan.services.len().max(3);
    plan.fleet(count).serves(10.0, 80.0, &[5.0, 10.0, 15.0]);
    let (from, to) = trouble(plan, 240.0, 700.0);
    for service in &mut plan.services {
        service.rate = service.rate.max(10.0);
        service.window = service.window.min(15.0);
    }
    for service in 0..plan.services.len() {
        let slow = plan.rng.between(3.0, 6.0);
        plan.services[service].happens(from, to, Effect::Slow(slow));
    }
    not_to_blame(plan);
}

/// Nobody can be reached for a while: probes fail everywhere, and requests with them, or not.
pub(super) fn network(plan: &mut Plan) {
    let count = plan.services.len().max(3);
    plan.fleet(count);
    let (from, to) = trouble(plan, 30.0, 240.0);
    let effect =
        plan.turn(&[Effect::Errors(1.0), Effect::Traffic(1.0), Effect::NoRequests, Effect::Errors(0.4)]);
    for service in &mut plan.services {
        service.probes = if service.probes == 0.0 { 10.0 } else { service.probes.min(15.0) };
        service.happens(from, to, Effect::Sick(1.0)).happens(from, to, effect.clone());
    }
    not_to_blame(plan);
}

/// What it depends on is watched too, and was deployed badly: that one goes back, this one stays.
pub(super) fn upstream(plan: &mut Plan) {
    let count = plan.services.len().clamp(2, 3);
    plan.fleet(count).serves(10.0, 80.0, &[5.0, 10.0]);
    let backend = plan.services[1].name.clone();
    depends(plan, 0, &backend, Vec::new());
    (plan.services[1].rate, plan.services[1].window) = (40.0, 5.0);
    let errors = plan.turn(&[true, false]);
    let at = plan.deployed;
    // The subject was deployed before the backend, long before or just before.
    let bad = at + (plan.turn(&[12.0, 6.0, 2.0, 25.0]) * MINUTE).round();
    for (service, late) in [(1, 0.0), (0, 3.0)] {
        let effect = if errors { Effect::Errors(0.5) } else { Effect::Slow(6.0) };
        plan.services[service].happens(bad + late, EVER, effect);
    }
    not_to_blame(plan);
    plan.deploy(1, bad, "v9");
    let wait = if errors {
        Expectation { usual: 75.0, latest: 240.0 }
    } else {
        Expectation { usual: 345.0, latest: 720.0 }
    };
    plan.bad(1, bad, bad, Some(wait), if errors { BY_ERRORS } else { BY_LATENCY });
}

/// A neighbour was deployed nearer to the beginning of the trouble, and nobody declared anything.
pub(super) fn neighbour(plan: &mut Plan) {
    let count = plan.services.len().clamp(2, 4);
    plan.fleet(count).serves(10.0, 80.0, &[5.0, 10.0]);
    (plan.services[1].rate, plan.services[1].window) = (40.0, 5.0);
    let at = plan.deployed;
    let bad = at + (plan.turn(&[20.0, 8.0, 3.0]) * MINUTE).round();
    let onset = bad + plan.turn(&[10.0, 60.0, 150.0]);
    plan.services[1].happens(onset, EVER, Effect::Errors(0.6));
    plan.subject().happens(onset + 2.0, EVER, Effect::Errors(0.3));
    not_to_blame(plan);
    plan.deploy(1, bad, "v9");
    plan.bad(1, bad, onset, Some(Expectation { usual: 75.0, latest: 300.0 }), BY_ERRORS);
}

/// Everything is deployed at once and starts slowly; later something hits all of it.
pub(super) fn all_at_once(plan: &mut Plan) {
    let count = plan.services.len().max(3);
    plan.fleet(count);
    let outage = plan.turn(&[false, true]);
    let from = plan.deployed + 9.0 * MINUTE;
    for service in 0..plan.services.len() {
        let at = plan.deployed + plan.rng.whole(0, 25) as f64;
        let it = &mut plan.services[service];
        it.rate = it.rate.max(5.0);
        it.window = it.window.min(15.0);
        it.happens(at, at + 25.0, Effect::Errors(0.3)).happens(at, at + 60.0, Effect::Slow(3.0));
        if outage {
            suffers(plan, service, from, from + 240.0, 10.0);
        }
        plan.deploy(service, at, "v2");
        let label = plan.keep(service, at);
        (label.ask, label.hold) = (Ask::May, outage);
    }
}

/// Errors before, the same errors after.
pub(super) fn errors_before(plan: &mut Plan) {
    plan.serves(5.0, 100.0, &[5.0, 10.0, 15.0]);
    plan.subject().errors = plan.turn(&[0.1, 0.08, 0.3, 0.06]);
    not_to_blame(plan);
}

/// An incident is under way; the deployment was to end it and did not, or not at once.
pub(super) fn broken_before(plan: &mut Plan) {
    plan.serves(10.0, 100.0, &[5.0, 10.0]);
    let at = plan.deployed;
    let from = at - plan.turn(&[4.0, 6.0, 10.0, 25.0]) * MINUTE;
    let to = at + plan.turn(&[90.0, 600.0, 1500.0]);
    let share = plan.turn(&[0.4, 0.15, 0.9, 0.25]);
    plan.subject().happens(from, to, Effect::Errors(share));
    not_to_blame(plan);
}

/// Slow before, as slow after: for hours, or since some minutes.
pub(super) fn slow_before(plan: &mut Plan) {
    plan.serves(10.0, 100.0, &[5.0, 10.0]);
    let at = plan.deployed;
    let (since, factor) = plan.turn(&[(1e6, 3.0), (6.0, 4.0), (10.0, 3.0), (20.0, 4.0)]);
    plan.subject().happens(at - since * MINUTE, EVER, Effect::Slow(factor));
    not_to_blame(plan);
}

/// The probe failed before and fails after.
pub(super) fn sick_before(plan: &mut Plan) {
    plan.subject().probes = plan.rng.pick(&[5.0, 10.0, 15.0]);
    let at = plan.deployed;
    let (since, share) = plan.turn(&[(1e6, 1.0), (4.0, 1.0), (1e6, 0.5), (12.0, 1.0)]);
    plan.subject().happens(at - since * MINUTE, EVER, Effect::Sick(share));
    not_to_blame(plan);
}

/// Memory was full before and is full after.
pub(super) fn full_before(plan: &mut Plan) {
    plan.subject().memory_every = plan.rng.pick(&[5.0, 10.0]);
    plan.subject().memory_noise = 0.003;
    let level = plan.turn(&[0.92, 0.95, 0.91]);
    plan.subject().happens(f64::MIN, EVER, Effect::Memory(Use::Level(level)));
    not_to_blame(plan);
}

/// It crashed before as often as it does now.
pub(super) fn crashes_before(plan: &mut Plan) {
    let (every, oom) = plan.turn(&[(110.0, false), (240.0, true), (400.0, false), (60.0, false)]);
    let mut at = plan.rng.between(0.0, every);
    while at < plan.until {
        plan.subject().event(at, Event::Exit { code: if oom { 137 } else { 1 }, oom });
        at += every;
    }
    not_to_blame(plan);
}

/// Trouble begins when the deployment is too old to be blamed without asking.
pub(super) fn after_the_watch(plan: &mut Plan) {
    plan.serves(20.0, 100.0, &[10.0, 15.0]);
    let from = plan.deployed + (plan.turn(&[61.0, 75.0, 100.0]) + plan.rng.between(0.5, 4.0)) * MINUTE;
    let effect = plan.turn(&[Effect::Errors(0.3), Effect::Slow(6.0)]);
    plan.subject().happens(from, EVER, effect);
    plan.until = from + 12.0 * MINUTE;
    not_to_blame(plan);
    plan.labels[0].ask = Ask::Must(from, from + 12.0 * MINUTE);
}

/// Nobody deployed anything, and everything that can go wrong does.
pub(super) fn nothing_deployed(plan: &mut Plan) {
    let from = plan.deployed;
    let effect = plan.turn(&[Effect::Errors(1.0), Effect::Slow(9.0), Effect::Sick(1.0)]);
    plan.subject().happens(from, EVER, effect).happens(from, EVER, Effect::Memory(Use::Level(0.97)));
    for n in 0..6 {
        let at = from + 20.0 * f64::from(n);
        plan.subject().event(at, Event::Exit { code: 137, oom: true });
    }
}

/// Everybody comes back at once after an outage: more traffic, slow, and some errors.
pub(super) fn retry_storm(plan: &mut Plan) {
    plan.serves(5.0, 80.0, &[5.0, 10.0]);
    let (from, to) = trouble(plan, 60.0, 240.0);
    for service in 0..plan.services.len() {
        depends(plan, service, "db", vec![(from, to)]);
        suffers(plan, service, from, to, 30.0);
        let it = &mut plan.services[service];
        it.happens(to, to + 80.0, Effect::Traffic(3.0)).happens(to, to + 80.0, Effect::Slow(4.0));
    }
    not_to_blame(plan);
}

/// Something that nobody declared hits everybody; the others measure less often than the subject.
pub(super) fn slow_witnesses(plan: &mut Plan) {
    plan.fleet(4).serves(10.0, 60.0, &[5.0]);
    plan.subject().probes = 10.0;
    let (from, to) = trouble(plan, 150.0, 400.0);
    let share = plan.turn(&[0.2, 0.35, 0.5]);
    for service in &mut plan.services {
        service.happens(from, to, Effect::Errors(share));
    }
    for other in &mut plan.services[1..] {
        (other.rate, other.probes) = (other.rate.max(5.0), 30.0);
        other.window = if share < 0.4 { 30.0 } else { 15.0 };
    }
    not_to_blame(plan);
}

/// The machine starts anew: everything on it dies and comes back.
pub(super) fn reboot(plan: &mut Plan) {
    let count = plan.services.len().max(3);
    plan.fleet(count);
    let (from, to) = trouble(plan, 20.0, 70.0);
    for service in 0..plan.services.len() {
        let (early, late) = (plan.rng.between(0.0, 2.0), plan.rng.between(0.0, 15.0));
        let it = &mut plan.services[service];
        it.rate = it.rate.max(2.0);
        it.window = it.window.min(15.0);
        it.event(from + early, Event::Exit { code: 137, oom: false });
        it.happens(from, to + late, Effect::Sick(1.0)).happens(from, to, Effect::Traffic(0.0));
        it.happens(to, to + late, Effect::Errors(1.0));
    }
    not_to_blame(plan);
}

/// The deployment falls into an outage that is under way: of a declared database, or of something that all share.
pub(super) fn during_an_outage(plan: &mut Plan) {
    plan.fleet(if plan.small { 3 } else { 4 }).serves(5.0, 80.0, &[5.0, 10.0]);
    let before = plan.turn(&[60.0, 150.0, 100.0, 400.0]);
    let (from, to) = (plan.deployed - before, plan.deployed + plan.rng.between(100.0, 400.0));
    let declared = plan.number.is_multiple_of(2);
    for service in 0..plan.services.len() {
        if declared {
            depends(plan, service, "db", vec![(from, to)]);
        }
        let it = &mut plan.services[service];
        (it.rate, it.window) = (it.rate.max(4.0), it.window.min(15.0));
        suffers(plan, service, from, to, 20.0);
    }
    not_to_blame(plan);
}

/// Memory fills up, or it crashes, when the deployment is too old even for that.
pub(super) fn long_after_the_watch(plan: &mut Plan) {
    plan.fleet(1);
    plan.subject().memory_every = 10.0;
    let from = plan.deployed + plan.turn(&[124.0, 140.0]) * MINUTE;
    if plan.number.is_multiple_of(2) {
        plan.subject().happens(from, EVER, Effect::Memory(Use::Level(0.95)));
    } else {
        for n in 0..5 {
            plan.subject().event(from + 15.0 * f64::from(n), Event::Exit { code: 1, oom: false });
        }
    }
    plan.until = from + 6.0 * MINUTE;
    not_to_blame(plan);
    plan.labels[0].ask = Ask::Must(from, from + 6.0 * MINUTE);
}

/// A person must be asked about a deployment that is not rolled back.
fn a_person_decides(plan: &mut Plan, from: f64, to: f64) {
    plan.all_well();
    let label = plan.labels.len() - 1;
    plan.labels[label].ask = Ask::Must(from, to);
    plan.until = plan.until.max(to);
}

pub(super) fn reports(plan: &mut Plan) {
    let people = plan.turn(&[3, 4, 6]);
    let mut at = plan.deployed + plan.turn(&[90.0, 600.0, 1000.0]);
    let mut third = at;
    for n in 0..people {
        plan.subject().event(at, Event::Report(format!("user-{n}")));
        if n == 2 {
            third = at;
        }
        at += plan.rng.between(20.0, 300.0);
    }
    a_person_decides(plan, third - 1.0, third + 60.0);
}

/// Memory grows steadily; somebody should look before it is full.
pub(super) fn leak_ahead(plan: &mut Plan) {
    plan.subject().memory_every = plan.rng.pick(&[5.0, 10.0, 15.0]);
    plan.subject().memory_noise = 0.002;
    let at = plan.deployed;
    // It ends, by a restart in the night, before it is full.
    let (lasts, to) = (20.0 * MINUTE, plan.turn(&[0.82, 0.86, 0.8]));
    plan.subject().happens(at, at + lasts, Effect::Memory(Use::Leak(0.35, (to - 0.35) / lasts)));
    plan.subject().happens(at + lasts, EVER, Effect::Memory(Use::Level(0.4)));
    a_person_decides(plan, at, at + lasts + 60.0);
}

/// Much slower, but not twice as slow.
pub(super) fn degraded(plan: &mut Plan) {
    plan.serves(40.0, 200.0, &[5.0, 10.0, 15.0]);
    plan.subject().wander.1 = 0.02;
    plan.subject().shape = super::model::Shape::Lognormal(0.5);
    plan.subject().layout = super::model::Layout::Fine;
    let onset = plan.onset(&[0.0, 10.0]);
    let factor = plan.turn(&[1.75, 1.8]);
    plan.subject().happens(onset, EVER, Effect::Slow(factor));
    a_person_decides(plan, onset, onset + 1320.0);
}

/// Trouble that comes every few minutes and goes by itself, under the old release as under the new one.
pub(super) fn recurring(plan: &mut Plan) {
    plan.serves(8.0, 100.0, &[1.0, 5.0, 10.0]);
    let kind = plan.turn(&[0, 1, 2, 3]);
    recurs(plan, kind);
    not_to_blame(plan);
}

/// What recurs, until the end of the trace: failures, slowness, memory, a probe that fails.
pub(super) fn recurs(plan: &mut Plan, kind: u8) {
    let every = plan.rng.between(420.0, 900.0);
    let mut at = plan.rng.between(0.0, every);
    if kind == 3 {
        // Where nobody serves, nothing contradicts the probe.
        (plan.subject().rate, plan.subject().probes) = (0.0, plan.rng.pick(&[5.0, 10.0]));
    }
    plan.subject().memory_every = plan.rng.pick(&[5.0, 10.0]);
    let (share, slow) = (plan.rng.between(0.15, 0.6), plan.rng.between(3.0, 6.0));
    while at < plan.until {
        let about = plan.rng.between(0.8, 1.25);
        let (effect, lasts) = match kind {
            0 => (Effect::Errors(share * about), plan.rng.between(45.0, 110.0)),
            1 => (Effect::Slow(slow * about), plan.rng.between(120.0, 230.0)),
            2 => (Effect::Memory(Use::Level(0.95)), plan.rng.between(50.0, 120.0)),
            _ => (Effect::Sick(1.0), plan.rng.between(15.0, 40.0)),
        };
        plan.subject().happens(at, at + lasts, effect);
        at += every * plan.rng.between(0.9, 1.1);
    }
}
