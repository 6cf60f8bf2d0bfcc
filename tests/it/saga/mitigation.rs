//! What runs is made anew with something set, by the saga of a rollback to itself: failing and dying at every point there
//! is. Afterwards either what ran before runs, or what was wanted, and nobody but whoever asked has to know.

use std::collections::BTreeMap;

use backstop::core::plan::Plan;
use backstop::core::release::{MitigationId, ServiceName};
use backstop::core::settings::{Mitigation, Remedy};
use backstop::rollback::mitigation::Errand;
use backstop::rollback::{Executor, Recovered};
use backstop::runtime::ErrorClass;

use super::world::{Fault, Op, Setup, Trouble, release};
use super::{Bench, World, fail_at, lengths, planned};

/// One replica, two, and two beside which others can run.
const WORLDS: [Setup; 3] = [Setup::of(1), Setup::of(2), Setup { replicas: 2, beside: true }];

fn errand() -> Errand {
    Errand {
        id: MitigationId::new("rb1"),
        service: ServiceName::new("shop"),
        from: release("bad"),
        what: Mitigation::of(Remedy::Set(BTreeMap::from([("EXPORT_MODE".into(), "off".into())]))),
        why: "memory is nearly full".into(),
    }
}

fn check(bench: &Bench, result: Result<&String, &String>, context: &str) {
    let expected = if result.is_ok() { World::TargetRuns } else { World::OldIntact };
    assert_eq!(bench.world(), expected, "{context}: {result:?}; {:?}", bench.store.events());
    assert_eq!(bench.store.open(), 0, "{context}: {:?}", bench.store.events());
}

#[tokio::test(start_paused = true)]
async fn what_runs_is_made_anew_also_where_a_rollback_was_prepared() {
    for setup in WORLDS {
        for prepared in [false, true] {
            let bench = Bench::new(setup);
            let executor = bench.executor();
            if prepared {
                executor.prepare(&bench.request()).await.unwrap();
            }
            let made = executor.mitigate(&errand()).await;
            check(&bench, made.as_ref(), &format!("{setup:?} {prepared}"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_what_was_judged_is_left_alone() {
    let bench = Bench::new(1);
    let other = Errand { from: release("other"), ..errand() };
    let made = bench.executor().mitigate(&other).await;
    assert!(made.as_ref().is_err_and(|why| why.contains("somebody deployed meanwhile")), "{made:?}");
    check(&bench, made.as_ref(), "another release");
}

#[tokio::test(start_paused = true)]
async fn a_failure_at_any_step_leaves_one_of_the_two() {
    for setup in WORLDS {
        let Plan { pivot, .. } = planned(setup).await;
        for step in 0..pivot {
            let bench = Bench::new(setup);
            fail_at(&bench, Some(step));
            let made = bench.executor().mitigate(&errand()).await;
            assert!(made.is_err(), "{setup:?} step {step}");
            check(&bench, made.as_ref(), &format!("{setup:?} step {step}"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_anywhere_leaves_one_of_the_two() {
    for setup in WORLDS {
        let (events, calls) = lengths(setup, None).await;
        for at in 1..=events {
            for durable in [false, true] {
                let bench = Bench::new(setup);
                bench.store.trouble(Some(Trouble::Crash { at, durable }));
                crash_and_recover(&bench, &format!("{setup:?} append {at} {durable}")).await;
            }
        }
        for op in calls {
            for effect in [false, true] {
                let bench = Bench::new(setup);
                bench.runtime.fault(op, Fault::Crash { effect });
                crash_and_recover(&bench, &format!("{setup:?} {op:?} {effect}")).await;
            }
        }
    }
}

/// Whatever an earlier process began is brought to an end, and nobody is told of a rollback.
async fn crash_and_recover(bench: &Bench, context: &str) {
    let executor: Executor = bench.executor();
    let _ = bench.crash.run(executor.mitigate(&errand())).await;
    bench.store.trouble(None);
    let recovered: Vec<Recovered> = bench.restart().await;
    assert_eq!(recovered, vec![], "{context}");
    assert_eq!(bench.store.open(), 0, "{context}: {:?}", bench.store.events());
    let world = bench.world();
    assert!(
        matches!(world, World::OldIntact | World::TargetRuns),
        "{context}: {world:?}; {:?}",
        bench.store.events()
    );
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_hesitates_is_waited_for() {
    let bench = Bench::new(1);
    let fault = Fault::Fail { class: ErrorClass::Transient, effect: true, times: 3 };
    bench.runtime.fault(Op::Apply(1), fault);
    let made = bench.executor().mitigate(&errand()).await;
    assert!(made.is_ok(), "{made:?}");
    check(&bench, made.as_ref(), "transient");
}
