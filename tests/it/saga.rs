//! The executor against a world that fails, hangs on and dies at every point there is, by loop.
//!
//! Whatever happens, the world afterwards is exactly one of: what ran before runs, untouched; the target runs;
//! a person is called. A new step or a new event is covered on the day it is added.

mod hooks;
mod mitigation;
mod removed;
mod together;
mod world;

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Notify;

use backstop::clock::Clock;
use backstop::core::migration::SchemaMove;
use backstop::core::plan::{Pin, Plan, Step};
use backstop::core::release::RollbackId;
use backstop::core::{Executed, RollbackRequest};
use backstop::rollback::journal::{self, JournalError, Phase};
use backstop::rollback::{Executor, Recovered};
use backstop::runtime::ErrorClass;

use world::{
    Container, Crash, FakeHooks, FakeRuntime, FakeStore, Fault, Op, Orchestrator, Setup, Trouble, names,
    request,
};

/// What runs when the rollback is decided: nothing, one replica, two; and two beside which their replacements can run.
const WORLDS: [Setup; 4] = [Setup::of(0), Setup::of(1), Setup::of(2), Setup { replicas: 2, beside: true }];

const TRANSIENT: ErrorClass = ErrorClass::Transient;
const PERMANENT: ErrorClass = ErrorClass::Permanent;

/// A world, a store, and a program that can be started again on both.
struct Bench {
    setup: Setup,
    crash: Arc<Crash>,
    runtime: Arc<FakeRuntime>,
    store: Arc<FakeStore>,
}

#[derive(Debug, PartialEq)]
enum World {
    OldIntact,
    TargetRuns,
    Other(Vec<Container>),
}

impl Bench {
    fn new(setup: impl Into<Setup>) -> Self {
        let setup = setup.into();
        let crash = Arc::new(Crash::default());
        Self {
            setup,
            runtime: Arc::new(FakeRuntime::new(setup, Arc::clone(&crash))),
            store: Arc::new(FakeStore::new(setup.replicas, Arc::clone(&crash))),
            crash,
        }
    }

    fn with(setup: impl Into<Setup>, change: impl FnOnce(&mut FakeRuntime)) -> Self {
        let mut bench = Self::new(setup);
        change(Arc::get_mut(&mut bench.runtime).unwrap());
        bench
    }

    /// A freshly started program.
    fn executor(&self) -> Executor {
        let hooks = Arc::new(FakeHooks(Arc::clone(&self.runtime)));
        Executor::with_hooks(self.runtime.clone(), self.store.clone(), Clock::start(), hooks)
    }

    fn request(&self) -> RollbackRequest {
        let downgrade = self
            .runtime
            .migrations
            .downgrade
            .as_ref()
            .map(|_| SchemaMove { from: Some("0015".into()), to: Some("0014".into()) });
        RollbackRequest { downgrade, ..request((self.setup.replicas > 0).then_some("bad")) }
    }

    fn decided(&self) -> RollbackRequest {
        RollbackRequest { decided: Some(Clock::start().now()), why: "it fails".into(), ..self.request() }
    }

    /// Prepare, decide, carry out, close what is over.
    async fn roll_back(&self, executor: &Executor) -> Executed {
        let _ = executor.prepare(&self.request()).await;
        let executed = executor.execute(&self.decided()).await;
        executor.conclude(&self.request().id, matches!(executed, Executed::Applied { .. })).await;
        executed
    }

    async fn restart(&self) -> Vec<Recovered> {
        restart(&self.crash, || self.executor()).await
    }

    fn world(&self) -> World {
        state(&self.runtime.containers(), self.setup.replicas)
    }

    fn serves(&self) -> bool {
        self.runtime.containers().iter().any(|c| c.running)
    }

    /// The world is what the result says, and nothing is left open.
    fn check(&self, result: &Executed, context: &str) {
        let expected = match result {
            Executed::Applied { .. } => World::TargetRuns,
            Executed::Void { .. } | Executed::Unwound { .. } => World::OldIntact,
            Executed::Stuck { .. } => panic!("{context}: {result:?}"),
        };
        assert_eq!(self.world(), expected, "{context}: {result:?}; {:?}", self.store.events());
        assert_eq!(self.store.open(), 0, "{context}: {:?}", self.store.events());
    }
}

/// Starts the program again until it gets through, and lets it close what it reports.
async fn restart(crash: &Crash, start: impl Fn() -> Executor) -> Vec<Recovered> {
    for _ in 0..3 {
        let executor = start();
        let whole = async {
            let recovered = executor.recover().await.unwrap();
            for one in &recovered {
                executor.conclude(&one.rollback, matches!(one.result, Executed::Applied { .. })).await;
            }
            recovered
        };
        if let Some(recovered) = crash.run(whole).await {
            return recovered;
        }
    }
    panic!("it crashes for ever");
}

/// What became of a world in which so many replicas ran.
fn state(containers: &[Container], replicas: usize) -> World {
    let all = |release: &str, n: usize| {
        let well = |c: &Container| c.release == release && c.running && c.armed;
        let mut called: Vec<_> = containers.iter().map(|c| c.name.clone()).collect();
        called.sort();
        containers.iter().all(well) && called == names(n)
    };
    if all("bad", replicas) {
        World::OldIntact
    } else if all("good", replicas.max(1)) {
        World::TargetRuns
    } else {
        World::Other(containers.to_vec())
    }
}

/// Steps of a plan and, of these, the ones that are undone when they fail.
async fn shape(setup: impl Into<Setup>) -> (usize, usize, usize) {
    let plan = planned(setup).await;
    (plan.steps.len(), plan.pivot, plan.close)
}

async fn planned(setup: impl Into<Setup>) -> Plan {
    let bench = Bench::new(setup);
    bench.executor().preview(&bench.request()).await.unwrap()
}

/// Events of a whole rollback, and steps and undos in it.
async fn lengths(setup: impl Into<Setup>, failing: Option<usize>) -> (usize, Vec<Op>) {
    let bench = Bench::new(setup);
    fail_at(&bench, failing);
    bench.roll_back(&bench.executor()).await;
    (bench.store.appended(), bench.runtime.calls())
}

fn fail_at(bench: &Bench, failing: Option<usize>) {
    if let Some(step) = failing {
        bench
            .runtime
            .fault(Op::Apply(step), Fault::Fail { class: PERMANENT, effect: false, times: u32::MAX });
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollback_without_trouble_ends_with_the_target() {
    for setup in WORLDS {
        let bench = Bench::new(setup);
        let executor = bench.executor();
        executor.prepare(&bench.request()).await.unwrap();
        assert!(
            setup.replicas == 0
                || bench.runtime.containers().iter().filter(|c| c.running).all(|c| c.release == "bad")
        );
        let observed = bench.runtime.observed();
        let executed = executor.execute(&bench.decided()).await;
        let Executed::Applied { notes, pin, .. } = &executed else { panic!("{executed:?}") };
        let mut expected = vec!["a note".to_owned(); setup.replicas.max(1)];
        expected.push("pinned".into());
        assert_eq!(*notes, expected);
        assert!(matches!(pin, Some(Pin::Variable { variable, .. }) if variable == "TAG"), "{pin:?}");
        assert_eq!(bench.runtime.observed(), observed + 1, "one look between decision and start");
        let log = executor.close(&bench.request().id).await;
        assert_eq!(log, vec!["last words"; setup.replicas]);
        bench.check(&executed, "no trouble");
    }
}

#[tokio::test(start_paused = true)]
async fn without_preparation_it_is_the_same() {
    for setup in WORLDS {
        let bench = Bench::new(setup);
        let executor = bench.executor();
        let executed = executor.execute(&bench.decided()).await;
        executor.close(&bench.request().id).await;
        assert!(matches!(executed, Executed::Applied { .. }));
        bench.check(&executed, "unprepared");
    }
}

#[tokio::test(start_paused = true)]
async fn every_step_and_undo_may_run_twice() {
    for setup in WORLDS {
        let (_, pivot, _) = shape(setup).await;
        for failing in std::iter::once(None).chain((0..pivot).map(Some)) {
            let bench = Bench::with(setup, |runtime| runtime.twice = true);
            fail_at(&bench, failing);
            let executed = bench.roll_back(&bench.executor()).await;
            bench.check(&executed, &format!("{setup:?}, failing {failing:?}"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_at_any_step_ends_in_a_known_world() {
    for setup in WORLDS {
        let Plan { steps, pivot, close, .. } = planned(setup).await;
        for (step, text) in steps.iter().map(Step::to_string).enumerate() {
            let could_not = format!("could not {text}: ");
            for (class, effect, times) in [
                (PERMANENT, false, u32::MAX),
                (PERMANENT, true, u32::MAX),
                (ErrorClass::Conflict, true, u32::MAX),
                (TRANSIENT, false, 3),
                (TRANSIENT, true, 3),
                (TRANSIENT, true, u32::MAX),
            ] {
                let bench = Bench::new(setup);
                bench.runtime.fault(Op::Apply(step), Fault::Fail { class, effect, times });
                let executor = bench.executor();
                let executed = bench.roll_back(&executor).await;
                let context = format!("{setup:?}, step {step} fails {class:?} {effect} {times}");
                let back = step < pivot && times > 3;
                assert_eq!(matches!(executed, Executed::Applied { .. }), !back, "{context}: {executed:?}");
                if let (Executed::Applied { notes, .. }, true) = (&executed, (pivot..close).contains(&step)) {
                    let said = notes.iter().any(|n| n.starts_with(&could_not));
                    assert_eq!(said, times > 3, "{context}: {notes:?}");
                }
                if step >= close && times > 3 {
                    // What could not be cleared away is cleared away at the next start.
                    bench.runtime.heal();
                    assert_eq!(bench.restart().await, vec![], "{context}");
                }
                bench.check(&executed, &context);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_fails_for_a_while_is_tried_again() {
    for replicas in [1, 2] {
        let (_, pivot, _) = shape(replicas).await;
        for undo in 0..pivot {
            for (class, times) in [(PERMANENT, 3), (TRANSIENT, 60)] {
                let bench = Bench::new(replicas);
                fail_at(&bench, Some(pivot - 1));
                bench.runtime.fault(Op::Undo(undo), Fault::Fail { class, effect: times == 3, times });
                let executed = bench.roll_back(&bench.executor()).await;
                assert!(matches!(executed, Executed::Unwound { .. }), "{executed:?}");
                bench.check(&executed, &format!("{replicas} replicas, undo {undo} fails {times} times"));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_fails_for_ever_calls_a_person_and_something_serves() {
    for replicas in [1, 2] {
        let (_, pivot, _) = shape(replicas).await;
        for undo in 0..pivot {
            for class in [PERMANENT, TRANSIENT] {
                let bench = Bench::new(replicas);
                fail_at(&bench, Some(pivot - 1));
                bench.runtime.fault(Op::Undo(undo), Fault::Fail { class, effect: false, times: u32::MAX });
                let executor = bench.executor();
                let _ = executor.prepare(&bench.request()).await;
                let executed = executor.execute(&bench.decided()).await;
                let context = format!("{replicas} replicas, undo {undo} fails {class:?}");
                let Executed::Stuck { why } = &executed else { panic!("{context}: {executed:?}") };
                assert!(why.contains("backstop resume shop") && why.contains("docker ps -a"), "{why}");
                let called = bench.executor().preview(&bench.request()).await;
                let only_one = replicas == 1 && called.is_ok() && stops_old(&bench, undo).await;
                assert!(bench.serves() || only_one, "{context}: {why}");
                // Another start says the same, until somebody has taken note.
                let again = bench.executor().recover().await.unwrap();
                assert_eq!(again.first().map(|r| &r.result), Some(&executed), "{context}");
                bench.restart().await;
                assert_eq!(bench.store.open(), 0, "{context}");
            }
        }
    }
}

/// With one replica, nothing can serve if the only old container cannot be started again.
async fn stops_old(bench: &Bench, step: usize) -> bool {
    let fresh = Bench::new(bench.setup);
    let plan = fresh.executor().preview(&fresh.request()).await.unwrap();
    plan.steps[step].name() == "stop_old"
}

/// The process dies around every append and every effect, on every way through; it is started again, and dies again.
#[tokio::test(start_paused = true)]
async fn a_crash_anywhere_ends_in_a_known_world() {
    for setup in WORLDS {
        let (_, pivot, close) = shape(setup).await;
        for failing in [None, Some(0), Some(pivot / 2), Some(pivot - 1), Some(close - 1)] {
            let (events, calls) = lengths(setup, failing).await;
            for at in 1..=events {
                for durable in [false, true] {
                    let bench = Bench::new(setup);
                    fail_at(&bench, failing);
                    bench.store.trouble(Some(Trouble::Crash { at, durable }));
                    crash_and_recover(&bench, &format!("{setup:?} {failing:?} append {at} {durable}")).await;
                }
            }
            for op in calls.iter().filter(|op| Some(**op) != failing.map(Op::Apply)) {
                for effect in [false, true] {
                    let bench = Bench::new(setup);
                    fail_at(&bench, failing);
                    bench.runtime.fault(*op, Fault::Crash { effect });
                    crash_and_recover(&bench, &format!("{setup:?} {failing:?} {op:?} {effect}")).await;
                }
            }
        }
    }
}

/// The same where an orchestrator replaces the replicas under ids of its own: what it made for us is no deployment of
/// somebody else's.
#[tokio::test(start_paused = true)]
async fn a_crash_anywhere_in_an_orchestrated_rollback_ends_in_a_known_world() {
    for replicas in [1, 2] {
        for failing in [None, Some(0), Some(1), Some(2)] {
            crash_anywhere(Orchestrator::Swarm, replicas, failing).await;
        }
    }
}

/// The same where `docker compose up` does it, by files that say afterwards what runs.
#[tokio::test(start_paused = true)]
async fn a_crash_anywhere_in_a_rollback_by_compose_ends_in_a_known_world() {
    for replicas in [1, 2] {
        // Looking for the command, the evidence of each, the pin, `up`.
        for failing in [None].into_iter().chain((0..replicas + 3).map(Some)) {
            crash_anywhere(Orchestrator::Compose, replicas, failing).await;
        }
    }
}

async fn crash_anywhere(by: Orchestrator, replicas: usize, failing: Option<usize>) {
    let fresh = || {
        let bench = Bench::with(replicas, |runtime| runtime.orchestrated = Some(by));
        fail_at(&bench, failing);
        bench
    };
    let agree = |bench: &Bench, context: &str| {
        assert!(
            by == Orchestrator::Swarm || bench.runtime.files_agree(),
            "{context}: the files say something else"
        );
    };
    let calm = fresh();
    let executed = calm.roll_back(&calm.executor()).await;
    calm.check(&executed, &format!("{by:?} {replicas} {failing:?}"));
    agree(&calm, &format!("{by:?} {replicas} {failing:?}"));
    assert_eq!(matches!(executed, Executed::Applied { .. }), failing.is_none(), "{executed:?}");
    for at in 1..=calm.store.appended() {
        for durable in [false, true] {
            let (bench, context) = (fresh(), format!("{by:?} {replicas} {failing:?} append {at} {durable}"));
            bench.store.trouble(Some(Trouble::Crash { at, durable }));
            crash_and_recover(&bench, &context).await;
            agree(&bench, &context);
        }
    }
    for op in calm.runtime.calls().iter().filter(|op| Some(**op) != failing.map(Op::Apply)) {
        for effect in [false, true] {
            let (bench, context) = (fresh(), format!("{by:?} {replicas} {failing:?} {op:?} {effect}"));
            bench.runtime.fault(*op, Fault::Crash { effect });
            crash_and_recover(&bench, &context).await;
            agree(&bench, &context);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_orchestrated_service_that_was_deployed_meanwhile_is_left_alone() {
    let bench = Bench::with(1, |runtime| runtime.orchestrated = Some(Orchestrator::Swarm));
    let await_converged = Op::Apply(2);
    bench.runtime.fault(await_converged, Fault::Crash { effect: false });
    assert!(bench.crash.run(bench.roll_back(&bench.executor())).await.is_none());
    bench.runtime.deploy("shop-1", "newer");

    let recovered = bench.restart().await;

    assert!(matches!(&recovered[0].result, Executed::Void { why } if why.contains("newer")), "{recovered:?}");
    assert!(bench.runtime.containers().iter().all(|c| c.release == "newer" && c.running));
}

async fn crash_and_recover(bench: &Bench, context: &str) {
    let crashed = bench.crash.run(bench.roll_back(&bench.executor())).await;
    assert!(crashed.is_none(), "{context}: it did not crash");
    bench.store.trouble(None);
    let recovered = bench.restart().await;
    assert!(recovered.len() <= 1, "{context}");
    if let Some(one) = recovered.first() {
        assert_eq!(one.request.as_ref().map(|r| &r.id), Some(&bench.request().id));
        bench.check(&one.result, context);
    } else {
        // Only prepared, or over and being cleared away when it crashed.
        assert!(
            matches!(bench.world(), World::OldIntact | World::TargetRuns),
            "{context}: {:?}",
            bench.world()
        );
    }
    assert_eq!(bench.store.open(), 0, "{context}: {:?}", bench.store.events());
    assert_eq!(bench.restart().await, vec![], "{context}: nothing is left to say");
}

#[tokio::test(start_paused = true)]
async fn a_second_crash_during_recovery_changes_nothing() {
    for failing in [None, Some(shape(1).await.1 - 1)] {
        let (events, _) = lengths(1, failing).await;
        for first in 1..=events {
            for second in 1..=events {
                let bench = Bench::new(1);
                fail_at(&bench, failing);
                bench.store.trouble(Some(Trouble::Crash { at: first, durable: true }));
                assert!(bench.crash.run(bench.roll_back(&bench.executor())).await.is_none());
                bench.store.trouble(Some(Trouble::Crash { at: second, durable: second % 2 == 0 }));
                let recovered = bench.restart().await;
                let context = format!("{failing:?} {first} {second}");
                assert!(
                    matches!(bench.world(), World::OldIntact | World::TargetRuns),
                    "{context}: {recovered:?}"
                );
                assert_eq!(bench.store.open(), 0, "{context}: {:?}", bench.store.events());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_anywhere_never_leaves_the_service_down() {
    for setup in WORLDS {
        let (_, pivot, _) = shape(setup).await;
        for failing in [None, Some(pivot - 1)] {
            let (events, _) = lengths(setup, failing).await;
            for (from, durable) in (1..=events).flat_map(|n| [(n, false), (n, true)]) {
                let bench = Bench::new(setup);
                fail_at(&bench, failing);
                bench.store.trouble(Some(Trouble::Fail { from, durable }));
                let executor = bench.executor();
                let _ = executor.prepare(&bench.request()).await;
                let executed = executor.execute(&bench.decided()).await;
                let context = format!("{setup:?} {failing:?} from {from} {durable}: {executed:?}");
                assert!(!matches!(executed, Executed::Stuck { .. }), "{context}");
                assert!(bench.serves() || setup.replicas == 0, "{context}");
                match executed {
                    Executed::Applied { .. } => {}
                    _ => assert_eq!(bench.world(), World::OldIntact, "{context}"),
                }
                // Nothing was done that was not announced durably.
                let journal = bench.store.journal();
                for op in bench.runtime.calls() {
                    let Op::Apply(step) = op else { continue };
                    let started = |e: &Value| e["event"] == "started" && e["step"] == step;
                    assert!(journal.iter().any(started), "{context}: step {step} in {journal:?}");
                }
                // It heals, and what was not written is written after all.
                bench.store.trouble(None);
                executor.close(&bench.request().id).await;
                let journal = bench.store.journal();
                let state = (!journal.is_empty()).then(|| journal::read(&journal).unwrap());
                if let (Some(state), true) = (&state, from > 1 && setup.replicas > 0) {
                    assert!(
                        matches!(state.phase, Phase::Closed | Phase::Applied),
                        "{context}: {:?}",
                        state.phase
                    );
                }
                bench.runtime.heal();
                let recovered = bench.restart().await;
                assert!(
                    recovered.iter().all(|r| !matches!(r.result, Executed::Stuck { .. })),
                    "{recovered:?}"
                );
                assert!(
                    matches!(bench.world(), World::OldIntact | World::TargetRuns),
                    "{context} {recovered:?}"
                );
                assert_eq!(bench.store.open(), 0, "{context} {:?}", bench.store.events());
            }
        }
    }
}

/// The process dies anywhere, and before it is started again somebody deploys something else.
#[tokio::test(start_paused = true)]
async fn a_deployment_during_the_outage_wins() {
    for failing in [None, Some(shape(1).await.1 - 1)] {
        let (events, calls) = lengths(1, failing).await;
        let crashes = (1..=events).map(Err).chain(calls.into_iter().map(Ok));
        for crash in crashes {
            let bench = Bench::new(1);
            fail_at(&bench, failing);
            match crash {
                Err(at) => bench.store.trouble(Some(Trouble::Crash { at, durable: true })),
                Ok(op) if Some(op) == failing.map(Op::Apply) => continue,
                Ok(op) => bench.runtime.fault(op, Fault::Crash { effect: true }),
            }
            assert!(bench.crash.run(bench.roll_back(&bench.executor())).await.is_none());
            bench.store.trouble(None);
            bench.runtime.deploy("shop-1", "newer");
            let recovered = bench.restart().await;
            let running: Vec<_> = bench.runtime.containers().into_iter().filter(|c| c.running).collect();
            let context = format!("{failing:?} {crash:?} {recovered:?} {:?}", bench.store.events());
            assert!(
                running.iter().all(|c| c.release == "newer" && c.name == "shop-1"),
                "{context}: {running:?}"
            );
            assert_eq!(running.len(), 1, "{context}");
            let made = bench.runtime.containers().into_iter().filter(|c| c.release == "good").count();
            assert_eq!(made, 0, "{context}: what we made is removed");
            assert!(!recovered.iter().any(|r| matches!(r.result, Executed::Stuck { .. })), "{context}");
            assert_eq!(bench.store.open(), 0, "{context}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_not_judged_is_not_rolled_back() {
    let bench = Bench::new(1);
    let executor = bench.executor();
    executor.prepare(&bench.request()).await.unwrap();
    bench.runtime.deploy("shop-1", "newer");
    let executed = executor.execute(&bench.decided()).await;
    let Executed::Void { why } = &executed else { panic!("{executed:?}") };
    assert!(why.contains("shop-1 runs shop:newer [newer] now") && why.contains("it was bad"), "{why}");
    executor.close(&bench.request().id).await;
    let left = bench.runtime.containers();
    assert!(left.len() == 1 && left[0].release == "newer" && left[0].running, "{left:?}");
    assert_eq!(bench.store.open(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_preparation_that_no_longer_fits_is_made_anew() {
    let bench = Bench::new(1);
    let executor = bench.executor();
    executor.prepare(&bench.request()).await.unwrap();
    bench.runtime.deploy("shop-1", "bad");
    let executed = executor.execute(&bench.decided()).await;
    executor.close(&bench.request().id).await;
    assert!(matches!(executed, Executed::Applied { .. }), "{executed:?}");
    bench.check(&executed, "redeployed");
    assert_eq!(bench.store.events().iter().filter(|e| *e == "planned").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn discarding_leaves_no_trace() {
    let bench = Bench::new(2);
    let executor = bench.executor();
    executor.prepare(&bench.request()).await.unwrap();
    assert_eq!(bench.runtime.containers().len(), 4);
    executor.discard(&bench.request().id).await;
    assert_eq!(bench.world(), World::OldIntact);
    assert_eq!(bench.store.open(), 0);
    // Discarding what was decided, or what nobody knows, does nothing.
    executor.execute(&bench.decided()).await;
    executor.discard(&bench.request().id).await;
    assert_eq!(bench.runtime.containers().iter().filter(|c| c.release == "good" && c.running).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failed_preparation_is_no_obstacle() {
    let bench = Bench::new(1);
    let executor = bench.executor();
    bench.runtime.fault(Op::Apply(2), Fault::Fail { class: PERMANENT, effect: true, times: 1 });
    let why = executor.prepare(&bench.request()).await.unwrap_err();
    assert!(why.contains("could not create the replacement"), "{why}");
    assert_eq!(bench.world(), World::OldIntact);
    let executed = executor.execute(&bench.decided()).await;
    executor.close(&bench.request().id).await;
    assert!(matches!(executed, Executed::Applied { .. }), "{executed:?}");
    bench.check(&executed, "prepared badly");
}

#[tokio::test(start_paused = true)]
async fn execution_waits_for_a_preparation_under_way() {
    let gate = Arc::new(Notify::new());
    let bench = Bench::with(1, |runtime| runtime.gate = Some(Arc::clone(&gate)));
    let executor = bench.executor();
    let (executor, request, decided) = (&executor, &bench.request(), &bench.decided());
    let open = async {
        // One permit an operation: three to prepare, seven to apply.
        for _ in 0..10 {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            gate.notify_one();
        }
    };
    let (prepared, executed, ()) = tokio::join!(executor.prepare(request), executor.execute(decided), open);
    assert_eq!(prepared, Ok(()));
    assert!(matches!(executed, Executed::Applied { .. }), "{executed:?}");
    assert_eq!(bench.runtime.calls().iter().filter(|op| **op == Op::Apply(2)).count(), 1, "created once");
    assert_eq!(bench.runtime.calls(), (0..10).map(Op::Apply).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn executing_twice_is_executing_once() {
    let bench = Bench::new(1);
    let executor = bench.executor();
    let first = executor.execute(&bench.decided()).await;
    let calls = bench.runtime.calls().len();
    assert_eq!(executor.execute(&bench.decided()).await, first);
    assert_eq!(bench.runtime.calls().len(), calls);
    assert!(executor.prepare(&bench.request()).await.is_err(), "not while it is being verified");
}

#[tokio::test(start_paused = true)]
async fn without_a_recorded_specification_nothing_begins() {
    let bench = Bench::new(1);
    let to = world::release("never-seen");
    let executed = bench.executor().execute(&RollbackRequest { to, ..bench.decided() }).await;
    let Executed::Void { why } = &executed else { panic!("{executed:?}") };
    assert!(why.contains("no specification of shop:never-seen"), "{why}");
    assert_eq!(bench.world(), World::OldIntact);
}

/// Else each attempt would go to the same target, and none to an older one that can be had.
#[tokio::test(start_paused = true)]
async fn a_target_that_cannot_be_had_has_failed_and_one_that_could_not_be_looked_for_has_not() {
    let lacks = |by: Option<Orchestrator>| move |runtime: &mut FakeRuntime| runtime.orchestrated = by;
    for (by, name) in
        [(None, "ensure_image"), (None, "create_replacement"), (Some(Orchestrator::Swarm), "check_service")]
    {
        let bench = Bench::with(1, lacks(by));
        let plan = bench.executor().preview(&bench.request()).await.unwrap();
        let step = plan.steps.iter().position(|step| step.name() == name).unwrap();
        assert!(step < plan.prepare, "{name} touches nothing");
        for (class, counts) in [(PERMANENT, true), (TRANSIENT, false), (ErrorClass::Conflict, false)] {
            let bench = Bench::with(1, lacks(by));
            bench.runtime.fault(Op::Apply(step), Fault::Fail { class, effect: false, times: u32::MAX });
            let executed = bench.executor().execute(&bench.decided()).await;
            assert_eq!(matches!(executed, Executed::Unwound { .. }), counts, "{name}: {executed:?}");
            assert_eq!(matches!(executed, Executed::Void { .. }), !counts, "{name}: {executed:?}");
            assert_eq!(bench.world(), World::OldIntact, "{name}");
        }
    }
}

/// Cut off, it would be taken back while the engine still goes on with it, and nothing would run in the end.
#[tokio::test(start_paused = true)]
async fn a_stop_may_take_as_long_as_its_deployer_allowed() {
    let bench = Bench::new(1);
    bench.runtime.stop_timeout(900);
    let executed = bench.roll_back(&bench.executor()).await;
    assert!(matches!(executed, Executed::Applied { .. }), "{executed:?}");
    let stop = planned(1).await.steps.iter().position(|step| step.name() == "stop_old").unwrap();
    let calls = bench.runtime.calls();
    assert_eq!(calls.iter().filter(|call| **call == Op::Apply(stop)).count(), 1, "it was not cut off");
    bench.check(&executed, "a long stop");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_does_not_answer_is_waited_for_but_not_for_ever() {
    let bench = Bench::new(1);
    let executor = bench.executor();
    executor.prepare(&bench.request()).await.unwrap();
    bench.runtime.deaf(1000);
    let executed = executor.execute(&bench.decided()).await;
    assert_eq!(executed, Executed::Void { why: "the engine does not answer".into() });
    executor.close(&bench.request().id).await;
    bench.check(&executed, "deaf");
    // Recovery does not guess: it is called again.
    let bench = Bench::new(1);
    bench.store.trouble(Some(Trouble::Crash { at: 12, durable: true }));
    assert!(bench.crash.run(bench.roll_back(&bench.executor())).await.is_none());
    bench.store.trouble(None);
    bench.runtime.deaf(1);
    let executor = bench.executor();
    assert_eq!(executor.recover().await, Err("shop cannot be looked at: the engine does not answer".into()));
    let recovered = executor.recover().await.unwrap();
    executor.close(&bench.request().id).await;
    bench.check(&recovered[0].result, "recovered at the second try");
    // A moment is waited for.
    let bench = Bench::new(1);
    bench.runtime.deaf(5);
    let executed = bench.executor().execute(&bench.decided()).await;
    assert!(matches!(executed, Executed::Applied { .. }), "{executed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stale_decision_is_judged_anew_if_nothing_was_touched() {
    let bench = Bench::new(1);
    // Planned, three prepared steps, decided: then it dies.
    bench.store.trouble(Some(Trouble::Crash { at: 8, durable: true }));
    let long_ago =
        RollbackRequest { decided: Some(backstop::core::Timestamp::from_secs(1)), ..bench.request() };
    let executor = bench.executor();
    let work = async {
        executor.prepare(&bench.request()).await.unwrap();
        executor.execute(&long_ago).await
    };
    assert!(bench.crash.run(work).await.is_none());
    assert_eq!(bench.store.events().last().map(String::as_str), Some("decided"));
    bench.store.trouble(None);
    let recovered = bench.restart().await;
    assert!(
        matches!(&recovered[0].result, Executed::Void { why } if why.contains("judged anew")),
        "{recovered:?}"
    );
    bench.check(&recovered[0].result, "stale");
}

#[tokio::test(start_paused = true)]
async fn of_two_open_journals_the_older_is_cleared_away_and_the_newer_reported() {
    let bench = Bench::new(1);
    let (steps, _, _) = shape(1).await;
    fail_at(&bench, Some(steps - 1));
    bench.roll_back(&bench.executor()).await;
    assert_eq!(bench.store.open(), 1, "what was replaced could not be removed");
    let again =
        RollbackRequest { id: RollbackId::new("rb2"), from: Some(bench.request().to.id), ..bench.decided() };
    let applied = bench.executor().execute(&again).await;
    assert!(matches!(applied, Executed::Applied { .. }), "{applied:?}");
    assert_eq!(bench.store.open(), 2);
    bench.runtime.heal();
    let executor = bench.executor();
    let recovered = executor.recover().await.unwrap();
    assert_eq!(
        recovered.iter().map(|r| (r.rollback.as_str(), &r.result)).collect::<Vec<_>>(),
        [("rb2", &applied)]
    );
    assert_eq!(bench.store.open(), 1);
    assert_eq!(executor.recover().await.unwrap(), recovered, "said again");
    executor.close(&again.id).await;
    bench.check(&applied, "both closed");
}

/// Every journal there is, of every way through.
async fn journals() -> Vec<Vec<Value>> {
    let mut journals = Vec::new();
    for setup in WORLDS {
        let (steps, _, _) = shape(setup).await;
        for failing in std::iter::once(None).chain((0..steps).map(Some)) {
            let bench = Bench::new(setup);
            fail_at(&bench, failing);
            bench.roll_back(&bench.executor()).await;
            journals.push(bench.store.journal());
        }
    }
    journals
}

#[tokio::test(start_paused = true)]
async fn every_beginning_of_a_journal_makes_sense() {
    for journal in journals().await {
        for cut in 1..=journal.len() {
            journal::read(&journal[..cut]).unwrap();
        }
        assert_eq!(journal::read(&journal[..0]), Err(JournalError::Empty));
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_written_twice_counts_once() {
    for journal in journals().await {
        let whole = journal::read(&journal).unwrap();
        for twice in 0..journal.len() {
            let mut doubled = journal.clone();
            doubled.insert(twice, journal[twice].clone());
            assert_eq!(journal::read(&doubled).unwrap(), whole);
        }
    }
}

/// A journal that lost a record, or whose records changed places: it may still make sense, but it never panics, and if
/// it makes none, nothing is touched.
#[tokio::test(start_paused = true)]
async fn a_journal_that_makes_no_sense_is_reported_and_nothing_is_touched() {
    let mut refused = 0;
    for journal in journals().await {
        for i in 0..journal.len() {
            let mut lost = journal.clone();
            lost.remove(i);
            let mut swapped = journal.clone();
            swapped.swap(i, journal.len() - 1);
            let mut odd = journal.clone();
            odd[i]["event"] = json!("from_the_future");
            for broken in [lost, swapped, odd] {
                let Err(e) = journal::read(&broken) else { continue };
                refused += 1;
                let bench = Bench::new(1);
                bench.store.put(broken.clone());
                let recovered = bench.executor().recover().await.unwrap();
                let Executed::Stuck { why } = &recovered[0].result else { panic!("{recovered:?}") };
                assert!(why.contains(&e.to_string()) && why.contains("nothing was touched"), "{why}");
                assert_eq!(bench.world(), World::OldIntact);
                assert_eq!(bench.runtime.calls(), vec![]);
                // Said again until somebody has taken note.
                assert_eq!(bench.restart().await, recovered);
                assert_eq!(bench.store.open(), 0);
            }
        }
    }
    assert!(refused > 500, "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_journal_reads_as_a_story() {
    let bench = Bench::new(1);
    fail_at(&bench, Some(6));
    bench.roll_back(&bench.executor()).await;
    let mut journal = bench.store.journal();
    journal[1] = json!({"event": "from_the_future"});
    let told = journal::tell(&journal);
    assert_eq!(told.len(), journal.len());
    assert_eq!(told[0], "planned the way from shop:bad [bad] to shop:good [good], 13 steps");
    assert!(
        told[1].starts_with("a record that cannot be read: unknown variant `from_the_future`"),
        "{}",
        told[1]
    );
    assert!(
        told.contains(&"failed: rename shop-1.rbnew-rb1 to shop-1: Apply(6) was made to fail".to_owned())
    );
    assert!(
        told.contains(&"taken back: set the restart policy of shop-1 (id1) to `no`".to_owned()),
        "{told:#?}"
    );
    assert_eq!(told.last().map(String::as_str), Some("closed: unwound"));
}

#[tokio::test(start_paused = true)]
async fn a_journal_of_another_format_is_refused() {
    let mut journal = journals().await.remove(0);
    journal[0]["version"] = json!(99);
    assert_eq!(journal::read(&journal), Err(JournalError::Version { found: 99 }));
    journal[0]["version"] = json!(journal::JOURNAL_VERSION);
    journal[0]["plan"]["pivot"] = json!(0);
    assert!(matches!(journal::read(&journal), Err(JournalError::Plan { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_closed_journal_says_how_it_ended() {
    for journal in journals().await {
        let state = journal::read(&journal).unwrap();
        assert!(matches!(state.phase, Phase::Closed | Phase::Applied), "{:?}", state.phase);
    }
}
