//! Hooks and downgrades in rollbacks that fail, hang on and die at every point there is, by loop: none is begun twice
//! unless it may be, and none is left out without a word.

use std::time::Duration;

use backstop::core::Executed;
use backstop::core::plan::Step;
use backstop::core::settings::{Hook, HookKind, HookPhase, Migrations, OnFailure};

use super::world::{Effect, FakeRuntime, Fault, Op, Setup, Trouble};
use super::{Bench, PERMANENT, World, journal};

/// Two replicas, and two beside which their replacements could run.
const WORLDS: [Setup; 3] = [Setup::of(1), Setup::of(2), Setup { replicas: 2, beside: true }];

/// What is done on the way of a rollback that is proved, in its order.
const IN_ORDER: [&str; 6] = ["before", "backup", "stopped", "downgrade", "started", "after"];

pub(super) fn hook(name: &str, phase: HookPhase) -> Hook {
    Hook {
        name: name.into(),
        phase,
        kind: HookKind::Command(vec!["true".into()]),
        timeout: Duration::from_secs(60),
        on_failure: OnFailure::Stop,
        repeatable: false,
    }
}

/// A hook of every phase, and a downgrade with its backup.
fn full(runtime: &mut FakeRuntime) {
    runtime.hooks = vec![
        hook("before", HookPhase::BeforeRollback),
        hook("stopped", HookPhase::AfterStop),
        hook("started", HookPhase::BeforeVerify),
        hook("after", HookPhase::AfterRollback),
        hook("failed", HookPhase::OnFailure),
    ];
    runtime.migrations = Migrations {
        backup: Some(hook("backup", HookPhase::Backup)),
        downgrade: Some(hook("downgrade", HookPhase::Downgrade)),
        ..Migrations::default()
    };
}

fn each(runtime: &mut FakeRuntime, change: impl Fn(&mut Hook)) {
    let of_migrations = [&mut runtime.migrations.backup, &mut runtime.migrations.downgrade];
    runtime.hooks.iter_mut().chain(of_migrations.into_iter().flatten()).for_each(change);
}

fn bench(setup: Setup, change: impl Fn(&mut Hook)) -> Bench {
    Bench::with(setup, |runtime| {
        full(runtime);
        each(runtime, change);
    })
}

fn as_they_are(_: &mut Hook) {}

fn names(effects: &[Effect]) -> Vec<&str> {
    effects.iter().map(|effect| effect.hook.as_str()).collect()
}

/// The steps of the plan that are hooks, with their names.
async fn steps(setup: Setup) -> Vec<(usize, String)> {
    let bench = bench(setup, as_they_are);
    let plan = bench.executor().preview(&bench.request()).await.unwrap();
    (0..plan.steps.len()).filter_map(|step| Some((step, plan.hook(step)?.name.clone()))).collect()
}

#[tokio::test(start_paused = true)]
async fn each_has_its_turn_and_the_database_goes_back_while_nothing_runs() {
    for setup in WORLDS {
        let bench = bench(setup, as_they_are);
        let executed = bench.roll_back(&bench.executor()).await;
        assert!(matches!(executed, Executed::Applied { .. }), "{executed:?}");
        bench.check(&executed, "no trouble");
        let ran = bench.runtime.ran();
        assert_eq!(names(&ran), IN_ORDER, "{setup:?}");
        for effect in ran {
            let running = match effect.hook.as_str() {
                "before" | "backup" => (setup.replicas, 0),
                "stopped" | "downgrade" => (0, 0),
                _ => (0, setup.replicas),
            };
            assert_eq!((effect.bad, effect.good), running, "{setup:?}: {}", effect.hook);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn they_are_told_what_it_is_about_and_what_they_print_is_kept() {
    let bench = bench(Setup::of(1), as_they_are);
    bench.roll_back(&bench.executor()).await;
    let told = journal::tell(&bench.store.journal());
    let backup = told.iter().find(|line| line.starts_with("done: make the backup")).unwrap();
    assert!(backup.ends_with("(exit code 0); it printed: about shop:bad and shop:good"), "{backup}");
    assert!(told.contains(&"proved".to_owned()), "{told:#?}");
}

/// One that fails stops the rollback: it is taken back, or, once the target runs, a person is called.
#[tokio::test(start_paused = true)]
async fn a_failure_of_any_is_said_with_what_was_and_was_not_done() {
    for setup in WORLDS {
        for (step, name) in steps(setup).await {
            for effect in [false, true] {
                let bench = bench(setup, as_they_are);
                let fault = Fault::Fail { class: PERMANENT, effect, times: u32::MAX };
                bench.runtime.fault(Op::Apply(step), fault);
                let executed = bench.roll_back(&bench.executor()).await;
                let context = format!("{setup:?} {name} {effect}: {executed:?}");
                let ran = bench.runtime.ran();
                let mut expected: Vec<&str> =
                    IN_ORDER.into_iter().take_while(|other| *other != name).collect();
                expected.extend(effect.then_some(name.as_str()));
                match name.as_str() {
                    "failed" => expected = IN_ORDER.to_vec(),
                    "after" => {}
                    _ => expected.push("failed"),
                }
                assert_eq!(names(&ran), expected, "{context}");
                match (&executed, name.as_str()) {
                    (Executed::Applied { .. }, "after" | "failed") => {
                        assert_eq!(bench.world(), World::TargetRuns, "{context}");
                    }
                    (Executed::Stuck { why }, "started") => {
                        assert!(bench.runtime.containers().iter().any(|c| c.running && c.release == "good"));
                        assert!(why.contains("shop:good [good] runs") && why.contains("downgrade"), "{why}");
                        let containers = bench.runtime.containers();
                        for kept in containers.iter().filter(|c| c.name.contains(".rbold-")) {
                            let by_hand = why.split_once("removed by hand: docker rm ").unwrap().1;
                            assert!(by_hand.split(' ').any(|name| name == kept.name), "{why}");
                        }
                        assert!(containers.iter().any(|c| c.name.contains(".rbold-")), "{containers:?}");
                    }
                    (Executed::Unwound { why }, _) => {
                        assert_eq!(bench.world(), World::OldIntact, "{context}");
                        assert!(why.contains(&format!("perhaps done in part: {name}")), "{why}");
                        let before: Vec<&str> =
                            IN_ORDER.into_iter().take_while(|other| *other != name).collect();
                        let said = format!("stays done: {}", before.join(", "));
                        assert!(before.is_empty() || why.contains(&said), "{why}");
                        assert!(why.contains("not begun: ") && why.ends_with("started"), "{why}");
                    }
                    _ => panic!("{context}"),
                }
                assert_eq!(bench.store.open(), 0, "{context}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_may_fail_is_noted_and_the_rollback_goes_on() {
    for setup in WORLDS {
        for (step, name) in steps(setup).await.into_iter().filter(|(_, name)| name != "failed") {
            let bench = bench(setup, |hook| hook.on_failure = OnFailure::Continue);
            let fault = Fault::Fail { class: PERMANENT, effect: false, times: u32::MAX };
            bench.runtime.fault(Op::Apply(step), fault);
            let executed = bench.roll_back(&bench.executor()).await;
            bench.check(&executed, &name);
            let Executed::Applied { notes, .. } = &executed else { panic!("{name}: {executed:?}") };
            let noted = notes.iter().any(|note| note.contains("was made to fail"));
            assert_eq!(noted, name != "after", "{name}: {notes:?}");
            let rest: Vec<&str> = IN_ORDER.into_iter().filter(|other| *other != name).collect();
            assert_eq!(names(&bench.runtime.ran()), rest);
        }
    }
}

/// The process dies around every append and every effect, also of a rollback that fails at its end.
async fn crashes(
    setup: Setup,
    change: impl Fn(&mut Hook),
    remember: bool,
) -> Vec<(String, Bench, Option<Executed>)> {
    let plan = bench(setup, &change);
    let plan = plan.executor().preview(&plan.request()).await.unwrap();
    let await_running =
        plan.steps.iter().rposition(|step| matches!(step, Step::AwaitRunning { .. })).unwrap();
    let mut all = crashes_with(setup, &change, remember, None).await;
    all.extend(crashes_with(setup, &change, remember, Some(await_running)).await);
    all
}

/// The same, with a step that fails each time.
async fn crashes_with(
    setup: Setup,
    change: impl Fn(&mut Hook),
    remember: bool,
    failing: Option<usize>,
) -> Vec<(String, Bench, Option<Executed>)> {
    let fresh = || {
        let bench = Bench::with(setup, |runtime| {
            full(runtime);
            each(runtime, &change);
            runtime.hooks_remember = remember;
        });
        if let Some(step) = failing {
            let fault = Fault::Fail { class: PERMANENT, effect: false, times: u32::MAX };
            bench.runtime.fault(Op::Apply(step), fault);
        }
        bench
    };
    let mut all = Vec::new();
    let calm = fresh();
    calm.roll_back(&calm.executor()).await;
    let appends = (1..=calm.store.appended()).flat_map(|at| [(at, false), (at, true)]).map(Err);
    let calls = calm.runtime.calls();
    let calls = calls.into_iter().filter(|op| failing.is_none_or(|step| *op != Op::Apply(step)));
    let calls = calls.flat_map(|op| [(op, false), (op, true)]).map(Ok);
    for crash in appends.chain(calls) {
        let bench = fresh();
        match crash {
            Err((at, durable)) => bench.store.trouble(Some(Trouble::Crash { at, durable })),
            Ok((op, effect)) => bench.runtime.fault(op, Fault::Crash { effect }),
        }
        let died = bench.crash.run(bench.roll_back(&bench.executor())).await;
        assert!(died.is_none(), "{crash:?}: it did not crash");
        bench.store.trouble(None);
        let recovered = bench.restart().await;
        let context =
            format!("{setup:?} failing {failing:?} {crash:?} {recovered:?} {:?}", bench.store.events());
        assert_eq!(bench.store.open(), 0, "{context}");
        assert_eq!(bench.restart().await, vec![], "{context}: nothing is left to say");
        all.push((context, bench, recovered.into_iter().next().map(|one| one.result)));
    }
    all
}

/// Once the target runs, a hook that failed calls a person, whenever the process dies: it is never taken for done.
#[tokio::test(start_paused = true)]
async fn a_hook_that_failed_is_not_forgotten_by_a_crash() {
    for setup in WORLDS {
        let (step, _) = steps(setup).await.into_iter().find(|(_, name)| name == "started").unwrap();
        let mut stuck = 0;
        for (context, bench, result) in crashes_with(setup, as_they_are, false, Some(step)).await {
            match &result {
                Some(Executed::Stuck { why }) => {
                    stuck += 1;
                    assert!(why.contains("could not run the hook started"), "{context}");
                    assert!(why.contains("shop:good [good] runs"), "{context}");
                }
                Some(Executed::Applied { .. }) => panic!("it went on without it: {context}"),
                Some(Executed::Void { .. } | Executed::Unwound { .. }) | None => {
                    // It had told of it before, or never came so far.
                    let told = bench.store.events().iter().any(|event| *event == "ended");
                    assert!(told || bench.world() == World::OldIntact, "{context}");
                }
            }
        }
        assert!(stuck > 10, "{stuck}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_anywhere_begins_none_twice() {
    for setup in WORLDS {
        let mut stuck = 0;
        for (context, bench, result) in crashes(setup, as_they_are, false).await {
            for effect in bench.runtime.ran() {
                assert_eq!(bench.runtime.times(&effect.hook), 1, "{context}: {}", effect.hook);
            }
            match &result {
                Some(Executed::Stuck { why }) => {
                    stuck += 1;
                    assert!(why.contains("run the hook started") && why.contains("not run again"), "{why}");
                    assert!(bench.runtime.containers().iter().any(|c| c.running && c.release == "good"));
                }
                Some(Executed::Unwound { why }) if why.contains("backstop stopped while") => {
                    assert!(why.contains("perhaps done in part"), "{why}");
                    assert_eq!(bench.world(), World::OldIntact, "{context}");
                }
                Some(result) => bench.check(result, &context),
                None => assert!(matches!(bench.world(), World::OldIntact | World::TargetRuns), "{context}"),
            }
        }
        assert!(stuck > 0, "a crash in the middle of the last hook calls a person");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_may_be_repeated_is_and_the_rollback_goes_on() {
    for (context, bench, result) in crashes(Setup::of(1), |hook| hook.repeatable = true, false).await {
        assert!(!matches!(result, Some(Executed::Stuck { .. })), "{context}");
        if let Some(result) = &result {
            bench.check(result, &context);
        }
        let ran = bench.runtime.ran();
        assert!(ran.iter().all(|effect| bench.runtime.times(&effect.hook) <= 2), "{context}");
    }
}

/// A one-off container tells after the crash what became of it.
#[tokio::test(start_paused = true)]
async fn one_whose_end_is_known_is_neither_repeated_nor_given_up() {
    for (context, bench, result) in crashes(Setup::of(2), as_they_are, true).await {
        for effect in bench.runtime.ran() {
            assert_eq!(bench.runtime.times(&effect.hook), 1, "{context}: {}", effect.hook);
        }
        assert!(!matches!(result, Some(Executed::Stuck { .. })), "{context}");
        if let Some(result) = &result {
            bench.check(result, &context);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_rollback_that_is_not_proved_only_the_hooks_for_that_run() {
    let bench = bench(Setup::of(1), as_they_are);
    let executor = bench.executor();
    let executed = executor.execute(&bench.decided()).await;
    assert!(matches!(executed, Executed::Applied { .. }));
    executor.conclude(&bench.request().id, false).await;
    assert_eq!(names(&bench.runtime.ran()).last(), Some(&"failed"));
    assert_eq!(bench.runtime.times("after"), 0);
    assert_eq!(bench.store.open(), 0);
}

#[tokio::test(start_paused = true)]
async fn preparing_and_discarding_runs_none() {
    let bench = bench(Setup::of(1), as_they_are);
    let executor = bench.executor();
    executor.prepare(&bench.request()).await.unwrap();
    executor.discard(&bench.request().id).await;
    assert_eq!(bench.runtime.ran(), []);
    assert_eq!(bench.store.open(), 0);
}
