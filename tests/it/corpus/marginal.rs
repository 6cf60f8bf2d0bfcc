//! Deployments that are near a line and on the right side of it.

use super::model::{Effect, Event, Layout, Shape, Use};
use super::plan::{Ask, MINUTE, Plan};

const EVER: f64 = f64::MAX;

/// Errors, but not over 5 %.
pub(super) fn errors_4(plan: &mut Plan) {
    plan.serves(15.0, 120.0, &[5.0, 10.0, 15.0]);
    plan.subject().errors = 0.002;
    let at = plan.onset(&[0.0, 5.0, 20.0]);
    let share = plan.turn(&[0.03, 0.035, 0.04, 0.042]);
    plan.subject().happens(at, EVER, Effect::Errors(share - 0.002));
    plan.all_well();
    plan.labels[0].ask = Ask::May;
}

/// Slower, but not twice as slow.
pub(super) fn latency_18(plan: &mut Plan) {
    plan.serves(10.0, 150.0, &[5.0, 15.0, 60.0]);
    plan.subject().wander.1 = 0.02;
    plan.subject().layout = plan.rng.pick(&[Layout::Prometheus, Layout::OpenTelemetry, Layout::Fine]);
    let at = plan.onset(&[0.0, 5.0, 20.0]);
    let factor = plan.turn(&[1.5, 1.6, 1.7, 1.8]);
    plan.subject().happens(at, EVER, Effect::Slow(factor));
    plan.all_well();
    plan.labels[0].ask = Ask::May;
}

/// Hardly slower: nobody needs to know.
pub(super) fn latency_115(plan: &mut Plan) {
    plan.serves(10.0, 150.0, &[5.0, 15.0, 60.0]);
    let (at, factor) = (plan.onset(&[0.0, 10.0]), plan.rng.between(1.08, 1.18));
    plan.subject().happens(at, EVER, Effect::Slow(factor));
    plan.all_well();
}

/// Some requests became much slower, too few to move the p99 past the line.
pub(super) fn tail_below(plan: &mut Plan) {
    plan.serves(10.0, 150.0, &[5.0, 15.0, 60.0]);
    plan.subject().shape = Shape::Lognormal(0.5);
    let at = plan.onset(&[0.0, 10.0]);
    plan.subject().happens(at, EVER, Effect::Tail(0.007, 6.0));
    plan.all_well();
    plan.labels[0].ask = Ask::May;
}

pub(super) fn memory_88(plan: &mut Plan) {
    let at = plan.onset(&[0.0, 10.0]);
    let level = plan.turn(&[0.86, 0.87, 0.88, 0.885]);
    plan.subject().memory_every = plan.rng.pick(&[5.0, 10.0]);
    plan.subject().memory_noise = 0.004;
    plan.subject().happens(at, EVER, Effect::Memory(Use::Level(level)));
    plan.all_well();
    plan.labels[0].ask = Ask::May;
}

/// Over 90 %, but not for a minute.
pub(super) fn memory_spike(plan: &mut Plan) {
    let at = plan.deployed + plan.rng.between(120.0, 900.0);
    let lasts = plan.turn(&[15.0, 30.0, 45.0]);
    plan.subject().memory_every = plan.rng.pick(&[5.0, 10.0]);
    plan.subject().happens(at, at + lasts, Effect::Memory(Use::Level(0.95)));
    plan.all_well();
    plan.labels[0].ask = Ask::May;
}

/// Some errors for less than a minute.
pub(super) fn blip(plan: &mut Plan) {
    plan.serves(3.0, 100.0, &[1.0, 5.0, 10.0]);
    for after in [150.0, 500.0, 1100.0] {
        let at = plan.deployed + after + plan.rng.between(0.0, 60.0);
        let (share, lasts) = (plan.rng.between(0.15, 0.3), plan.rng.between(20.0, 45.0));
        plan.subject().happens(at, at + lasts, Effect::Errors(share));
    }
    plan.all_well();
}

/// All requests fail for some seconds.
pub(super) fn hard_blip(plan: &mut Plan) {
    plan.serves(3.0, 100.0, &[1.0, 5.0]);
    for after in [130.0, 700.0] {
        let at = plan.deployed + after + plan.rng.between(0.0, 120.0);
        let lasts = plan.rng.between(5.0, 16.0);
        plan.subject().happens(at, at + lasts, Effect::Errors(1.0));
    }
    plan.all_well();
}

/// All requests fail for nearly as long as the shortest window, and are counted every second or so.
pub(super) fn nearly_half_a_minute(plan: &mut Plan) {
    plan.serves(20.0, 100.0, &[1.0, 2.0, 3.0]);
    for after in [130.0, 700.0] {
        let at = plan.deployed + after + plan.rng.between(0.0, 120.0);
        let lasts = plan.rng.between(18.0, 25.0);
        plan.subject().happens(at, at + lasts, Effect::Errors(1.0));
    }
    plan.all_well();
}

/// Very slow for one or two minutes.
pub(super) fn slow_blip(plan: &mut Plan) {
    plan.serves(5.0, 100.0, &[5.0, 10.0]);
    let at = plan.deployed + plan.rng.between(240.0, 900.0);
    let lasts = plan.turn(&[40.0, 80.0, 115.0]);
    plan.subject().happens(at, at + lasts, Effect::Slow(4.0));
    plan.all_well();
}

/// The kernel killed it once, and memory is not the reason; or it died twice.
pub(super) fn few_exits(plan: &mut Plan) {
    let at = plan.deployed;
    let (exits, oom, level): (&[f64], bool, f64) = plan.turn(&[
        (&[400.0][..], true, 0.5),
        (&[60.0, 400.0], false, 0.5),
        (&[30.0, 45.0], false, 0.4),
        (&[1000.0], true, 0.62),
    ]);
    plan.subject().memory_every = 10.0;
    plan.subject().happens(at, EVER, Effect::Memory(Use::Level(level)));
    for after in exits {
        let code = if oom { 137 } else { 1 };
        plan.subject().event(at + after, Event::Exit { code, oom });
    }
    plan.subject().event(at, Event::Deploy("v2".into()));
    plan.keep(0, at).ask = Ask::May;
}

/// Single failures of the probe, again and again, below what counts as flapping.
pub(super) fn single_failures(plan: &mut Plan) {
    let at = plan.onset(&[0.0, 5.0]);
    let pattern = plan.turn(&[
        &[true, false, false, false][..],
        &[true, false, false, false, false],
        &[true, false, false],
    ]);
    plan.subject().probes = plan.rng.pick(&[5.0, 10.0, 15.0]);
    plan.subject().happens(at, EVER, Effect::Pattern(pattern));
    plan.all_well();
    plan.labels[0].ask = Ask::May;
}

/// The health endpoint is broken for some minutes; the traffic says that nothing is wrong.
pub(super) fn traffic_contradicts(plan: &mut Plan) {
    plan.serves(8.0, 100.0, &[5.0, 10.0]);
    plan.subject().errors = 0.002;
    plan.subject().probes = plan.rng.pick(&[5.0, 10.0, 15.0]);
    let (at, lasts) =
        (plan.deployed + plan.rng.between(2.0, 12.0) * MINUTE, plan.turn(&[60.0, 130.0, 220.0]));
    plan.subject().happens(at, at + lasts, Effect::Sick(1.0));
    plan.all_well();
    plan.labels[0].ask = Ask::May;
}
