//! Somebody removes the service while it is being rolled back: they want it gone, and that is what it is afterwards.

use super::world::{Fault, Op};
use super::{Bench, Setup, planned};
use backstop::core::Executed;
use backstop::core::plan::Step;

const ONE: Setup = Setup::of(1);
const BESIDE: Setup = Setup { replicas: 1, beside: true };

#[tokio::test(start_paused = true)]
async fn what_is_removed_before_it_begins_is_not_begun() {
    for prepared in [false, true] {
        let bench = Bench::new(ONE);
        let executor = bench.executor();
        if prepared {
            executor.prepare(&bench.request()).await.unwrap();
        }
        bench.runtime.remove("");
        let executed = executor.execute(&bench.decided()).await;
        executor.close(&bench.request().id).await;
        assert!(
            matches!(&executed, Executed::Void { why } if why.contains("somebody removed shop")),
            "{executed:?}"
        );
        assert!(bench.runtime.containers().is_empty(), "{prepared}");
        assert_eq!(bench.store.open(), 0);
        assert!(executor.prepare(&bench.request()).await.is_err(), "nor is it prepared");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_removed_in_the_middle_is_not_started_again() {
    for setup in [ONE, Setup::of(2), BESIDE] {
        let plan = planned(setup).await;
        for step in plan.prepare..plan.pivot {
            let bench = Bench::new(setup);
            bench.runtime.fault(Op::Apply(step), Fault::Remove { whose: "" });
            let executed = bench.roll_back(&bench.executor()).await;
            let context = format!("{setup:?} {}", plan.steps[step]);
            assert!(
                matches!(&executed, Executed::Void { why } if why.contains("nothing is started again")),
                "{context}: {executed:?}"
            );
            assert_eq!(bench.runtime.containers(), [], "{context}");
            assert_eq!(bench.store.open(), 0, "{context}");
        }
    }
}

/// It had its name already, and the old one had left it: the old one is left where it is, and said.
#[tokio::test(start_paused = true)]
async fn a_replacement_that_is_removed_does_not_bring_the_old_one_back() {
    let plan = planned(ONE).await;
    let waits = plan.steps.iter().position(|step| matches!(step, Step::AwaitRunning { .. })).unwrap();
    let bench = Bench::new(ONE);
    bench.runtime.fault(Op::Apply(waits), Fault::Remove { whose: "shop-1" });
    let executed = bench.roll_back(&bench.executor()).await;
    assert!(
        matches!(&executed, Executed::Void { why } if why.contains("docker rm shop-1.rbold-")),
        "{executed:?}"
    );
    let left = bench.runtime.containers();
    assert!(left.len() == 1 && !left[0].running && left[0].release == "bad", "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn one_of_several_that_is_removed_is_one_less() {
    let setup = Setup::of(2);
    let plan = planned(setup).await;
    let second = |step: &Step| matches!(step, Step::SetAsideOld { name, .. } if name == "shop-2");
    let bench = Bench::new(setup);
    let at = plan.steps.iter().position(second).unwrap();
    bench.runtime.fault(Op::Apply(at), Fault::Remove { whose: "shop-2" });
    let executed = bench.roll_back(&bench.executor()).await;
    assert!(matches!(executed, Executed::Unwound { .. }), "{executed:?}");
    let left = bench.runtime.containers();
    assert!(
        left.len() == 1 && left[0].name == "shop-1" && left[0].running && left[0].release == "bad",
        "{left:?}"
    );
}
