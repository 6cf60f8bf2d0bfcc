//! Two rollbacks that are carried out together: whatever happens, both are done or neither is.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use backstop::clock::Clock;
use backstop::core::availability::Availability;
use backstop::core::observation::{Look, Observation};
use backstop::core::plan::{Pin, Plan, Step, StepOutput};
use backstop::core::release::{Release, RollbackId, ServiceName};
use backstop::core::settings::HookPhase;
use backstop::core::{Executed, Input, RollbackRequest};
use backstop::rollback::hooks::{Failed, HookCall, HookRunner, Ran};
use backstop::rollback::{Executor, Recovered};
use backstop::runtime::{Runtime, RuntimeError, Snapshot};

use super::hooks::hook;
use super::world::{Crash, FakeHooks, FakeRuntime, FakeStore, Fault, Op, Setup, Trouble, request};
use super::{PERMANENT, World, lengths, restart, shape, state};

const NAMES: [&str; 2] = ["api", "jobs"];

/// Two services, each in a world of its own.
#[derive(Debug)]
struct Both([Arc<FakeRuntime>; 2]);

impl Both {
    fn of(&self, service: &ServiceName) -> &FakeRuntime {
        &self.0[usize::from(service.as_str() == NAMES[1])]
    }
}

#[async_trait]
impl Runtime for Both {
    async fn watch(&self, _: mpsc::Sender<Input>) {}

    async fn look(&self) -> Result<Look, RuntimeError> {
        Ok(Look::default())
    }

    async fn observe(&self, service: &ServiceName) -> Result<Observation, RuntimeError> {
        self.of(service).observe(service).await
    }

    async fn snapshot(&self, now: &Observation) -> Result<Vec<Snapshot>, RuntimeError> {
        self.of(&now.service).snapshot(now).await
    }

    async fn availability(&self, service: &ServiceName, release: &Release, fetch: bool) -> Availability {
        self.of(service).availability(service, release, fetch).await
    }

    async fn protect(&self, service: &ServiceName, release: &Release, n: u32) -> Result<(), RuntimeError> {
        self.of(service).protect(service, release, n).await
    }

    async fn unprotect(&self, service: &ServiceName, release: &Release) -> Result<(), RuntimeError> {
        self.of(service).unprotect(service, release).await
    }

    async fn unpin(&self, service: &ServiceName, pin: &Pin) -> Result<String, RuntimeError> {
        self.of(service).unpin(service, pin).await
    }

    fn is_mine(&self, _: &Plan) -> bool {
        true
    }

    fn plan(
        &self,
        now: &Observation,
        to: &[Snapshot],
        request: &RollbackRequest,
    ) -> Result<Plan, RuntimeError> {
        self.of(&request.service).plan(now, to, request)
    }

    async fn apply(
        &self,
        plan: &Plan,
        step: &Step,
        done: &[Option<StepOutput>],
    ) -> Result<StepOutput, RuntimeError> {
        self.of(&plan.service).apply(plan, step, done).await
    }

    async fn undo(
        &self,
        plan: &Plan,
        step: &Step,
        output: Option<&StepOutput>,
        done: &[Option<StepOutput>],
    ) -> Result<(), RuntimeError> {
        self.of(&plan.service).undo(plan, step, output, done).await
    }
}

/// The hooks of both.
#[derive(Debug)]
struct BothHooks([FakeHooks; 2]);

impl BothHooks {
    fn of(&self, call: &HookCall<'_>) -> &FakeHooks {
        &self.0[usize::from(call.plan.service.as_str() == NAMES[1])]
    }
}

#[async_trait]
impl HookRunner for BothHooks {
    async fn run(&self, call: &HookCall<'_>) -> Result<Ran, Failed> {
        self.of(call).run(call).await
    }

    async fn take_up(&self, call: &HookCall<'_>) -> Option<Result<Ran, Failed>> {
        self.of(call).take_up(call).await
    }

    async fn forget(&self, call: &HookCall<'_>) {
        self.of(call).forget(call).await;
    }
}

struct Bench {
    crash: Arc<Crash>,
    worlds: [Arc<FakeRuntime>; 2],
    store: Arc<FakeStore>,
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| ())
    }

    /// The same with something about both worlds.
    fn with(change: impl Fn(&mut FakeRuntime)) -> Self {
        let crash = Arc::new(Crash::default());
        let world = || {
            let mut world = FakeRuntime::new(Setup::of(1), Arc::clone(&crash));
            change(&mut world);
            Arc::new(world)
        };
        let store = Arc::new(FakeStore::new(1, Arc::clone(&crash)));
        Self { worlds: [world(), world()], store, crash }
    }

    fn executor(&self) -> Executor {
        let both = Both([Arc::clone(&self.worlds[0]), Arc::clone(&self.worlds[1])]);
        let hooks = self.worlds.each_ref().map(|world| FakeHooks(Arc::clone(world)));
        Executor::with_hooks(Arc::new(both), self.store.clone(), Clock::start(), Arc::new(BothHooks(hooks)))
    }

    fn requests() -> Vec<RollbackRequest> {
        let one = |(i, name): (usize, &str)| RollbackRequest {
            id: RollbackId::new(format!("rb{i}")),
            service: ServiceName::new(name),
            decided: Some(Clock::start().now()),
            vanished: false,
            ..request(Some("bad"))
        };
        NAMES.into_iter().enumerate().map(one).collect()
    }

    /// As the daemon does it: the suspected one is prepared first.
    async fn roll_back(&self, executor: &Executor) -> Vec<Executed> {
        let requests = Self::requests();
        let _ = executor.prepare(&RollbackRequest { decided: None, ..requests[1].clone() }).await;
        let executed = executor.execute_together(&requests).await;
        for request in &requests {
            executor.close(&request.id).await;
        }
        executed
    }

    async fn restart(&self) -> Vec<Recovered> {
        restart(&self.crash, || self.executor()).await
    }

    fn worlds(&self) -> [World; 2] {
        [0, 1].map(|i| state(&self.worlds[i].containers(), 1))
    }

    /// Both are what they were, or both are what was asked for; and that is what is said of them.
    fn check(&self, said: &[Executed], context: &str) {
        let worlds = self.worlds();
        assert!(worlds[0] == worlds[1], "{context}: {worlds:?}; {said:?}");
        assert!(!matches!(worlds[0], World::Other(_)), "{context}: {worlds:?}; {said:?}");
        for one in said {
            let applied = matches!(one, Executed::Applied { .. });
            assert!(!matches!(one, Executed::Stuck { .. }), "{context}: {said:?}");
            assert_eq!(applied, worlds[0] == World::TargetRuns, "{context}: {said:?}");
        }
        assert_eq!(self.store.open(), 0, "{context}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_go_back_together() {
    let bench = Bench::new();
    let said = bench.roll_back(&bench.executor()).await;
    bench.check(&said, "without trouble");
    assert!(said.iter().all(|one| matches!(one, Executed::Applied { .. })), "{said:?}");
}

/// Whichever step of either fails for good, before the pivot neither goes back, and after it both do.
#[tokio::test(start_paused = true)]
async fn one_that_fails_takes_the_other_back_with_it() {
    let (_, pivot, close) = shape(1).await;
    for which in [0, 1] {
        for step in 0..close {
            let bench = Bench::new();
            let fault = Fault::Fail { class: PERMANENT, effect: step % 2 == 0, times: u32::MAX };
            bench.worlds[which].fault(Op::Apply(step), fault);
            let said = bench.roll_back(&bench.executor()).await;
            let context = format!("{} fails at {step}", NAMES[which]);
            bench.check(&said, &context);
            let applied = said.iter().all(|one| matches!(one, Executed::Applied { .. }));
            assert_eq!(applied, step >= pivot, "{context}: {said:?}");
            if let [Executed::Void { why } | Executed::Unwound { why }, _] = &said[..]
                && which == 1
            {
                assert!(why.starts_with("all or none go back, and jobs cannot: "), "{why}");
            }
        }
    }
}

/// The process dies around every append and every effect of both, with a failure in either or without; it is started
/// again.
#[tokio::test(start_paused = true)]
async fn a_crash_anywhere_leaves_both_or_neither() {
    let (_, pivot, _) = shape(1).await;
    let failures = [None, Some((0, pivot - 1)), Some((1, 0)), Some((1, pivot - 1))];
    for failing in failures {
        let fresh = || {
            let bench = Bench::new();
            if let Some((which, step)) = failing {
                let fault = Fault::Fail { class: PERMANENT, effect: true, times: u32::MAX };
                bench.worlds[which].fault(Op::Apply(step), fault);
            }
            bench
        };
        let calm = fresh();
        calm.roll_back(&calm.executor()).await;
        for at in 1..=calm.store.appended() {
            for durable in [false, true] {
                let bench = fresh();
                bench.store.trouble(Some(Trouble::Crash { at, durable }));
                recovers(&bench, &format!("{failing:?} append {at} {durable}")).await;
            }
        }
        for which in [0, 1] {
            for op in calm.worlds[which].calls() {
                if failing.is_some_and(|(w, step)| w == which && Op::Apply(step) == op) {
                    continue;
                }
                for effect in [false, true] {
                    let bench = fresh();
                    bench.worlds[which].fault(op, Fault::Crash { effect });
                    recovers(&bench, &format!("{failing:?} {} {op:?} {effect}", NAMES[which])).await;
                }
            }
        }
    }
}

async fn recovers(bench: &Bench, context: &str) {
    let crashed = bench.crash.run(bench.roll_back(&bench.executor())).await;
    assert!(crashed.is_none(), "{context}: it did not crash");
    bench.store.trouble(None);
    let said: Vec<Executed> = bench.restart().await.into_iter().map(|one| one.result).collect();
    bench.check(&said, context);
    assert_eq!(bench.restart().await, vec![], "{context}: nothing is left to say");
}

/// Somebody deploys one of the two while the daemon is down: neither goes back.
#[tokio::test(start_paused = true)]
async fn a_deployment_of_one_while_the_daemon_was_down_stops_both() {
    let (events, _) = lengths(1, None).await;
    for at in 1..=events {
        let bench = Bench::new();
        bench.store.trouble(Some(Trouble::Crash { at, durable: true }));
        if bench.crash.run(bench.roll_back(&bench.executor())).await.is_some() {
            continue;
        }
        bench.store.trouble(None);
        bench.worlds[1].deploy("shop-1", "newer");
        let said = bench.restart().await;
        let context = format!("append {at}: {said:?}");
        let worlds = bench.worlds.each_ref().map(|world| world.containers());
        assert!(
            worlds[1].iter().any(|c| c.release == "newer" && c.running && c.name == "shop-1"),
            "{context}"
        );
        assert!(worlds[0].iter().any(|c| c.running), "{context}");
        assert_eq!(bench.store.open(), 0, "{context}");
    }
}

fn with_hooks(world: &mut FakeRuntime) {
    world.hooks = vec![hook("before", HookPhase::BeforeRollback), hook("started", HookPhase::BeforeVerify)];
}

impl Bench {
    /// The good release of a member runs, and nothing of the bad one.
    fn runs_good(&self, which: usize) -> bool {
        let all = self.worlds[which].containers();
        all.iter().any(|c| c.running && c.release == "good")
            && !all.iter().any(|c| c.running && c.release == "bad")
    }

    /// Both are what they were; or the good release of both runs, and of the one whose hook failed that is said.
    fn check_with_hooks(&self, said: &[Executed], failing: (usize, bool), context: &str) {
        let old = self.worlds() == [World::OldIntact, World::OldIntact];
        let good = self.runs_good(0) && self.runs_good(1);
        assert!(old || good, "{context}: {said:?}; {:?}", self.worlds());
        for (i, one) in said.iter().enumerate() {
            let context = format!("{context}: {}: {said:?}", NAMES[i]);
            match one {
                Executed::Applied { .. } => assert!(good && failing != (i, true), "{context}"),
                Executed::Stuck { why } => assert!(good && why.contains("run the hook started"), "{context}"),
                Executed::Void { .. } | Executed::Unwound { .. } => assert!(old, "{context}"),
            }
        }
        assert_eq!(self.store.open(), 0, "{context}");
    }
}

/// A hook of one fails, before anything is touched or when the target of both runs already: the others do not go back from
/// where there is no way back, and nobody forgets it.
#[tokio::test(start_paused = true)]
async fn a_hook_of_one_that_fails_leaves_both_or_neither_wherever_the_process_dies() {
    let plan = Bench::with(with_hooks);
    let plan = plan.executor().preview(&Bench::requests()[0]).await.unwrap();
    let hooks: Vec<usize> = (0..plan.steps.len()).filter(|step| plan.hook(*step).is_some()).collect();
    for (which, step) in [0, 1].into_iter().flat_map(|which| hooks.iter().map(move |step| (which, *step))) {
        let late = step >= plan.pivot;
        let fresh = || {
            let bench = Bench::with(with_hooks);
            let fault = Fault::Fail { class: PERMANENT, effect: false, times: u32::MAX };
            bench.worlds[which].fault(Op::Apply(step), fault);
            bench
        };
        let calm = fresh();
        let said = calm.roll_back(&calm.executor()).await;
        calm.check_with_hooks(&said, (which, late), "no crash");
        let (events, failing) = (calm.store.appended(), Op::Apply(step));
        let mut crashes: Vec<(Option<usize>, Op, bool)> = Vec::new();
        for w in [0, 1] {
            let calls = calm.worlds[w].calls().into_iter().filter(|op| w != which || *op != failing);
            crashes.extend(calls.flat_map(|op| [(Some(w), op, false), (Some(w), op, true)]));
        }
        let appends = (1..=events).flat_map(|at| [(None, Op::Apply(at), false), (None, Op::Apply(at), true)]);
        for (place, op, done) in crashes.into_iter().chain(appends) {
            let bench = fresh();
            match (place, op) {
                (Some(w), op) => bench.worlds[w].fault(op, Fault::Crash { effect: done }),
                (None, Op::Apply(at)) => bench.store.trouble(Some(Trouble::Crash { at, durable: done })),
                (None, _) => unreachable!(),
            }
            let died = bench.crash.run(bench.roll_back(&bench.executor())).await;
            let context = format!("{} fails at {step}, {place:?} {op:?} {done}", NAMES[which]);
            assert!(died.is_none(), "{context}: it did not crash");
            bench.store.trouble(None);
            let mut recovered = bench.restart().await;
            recovered.sort_by_key(|one| one.rollback.clone());
            let both = recovered.len() == 2;
            let said: Vec<Executed> = recovered.into_iter().map(|one| one.result).collect();
            if both || said.is_empty() {
                bench.check_with_hooks(&said, (which, late), &context);
            }
            assert!(bench.runs_good(0) == bench.runs_good(1), "{context}: {:?}", bench.worlds());
            assert_eq!(bench.restart().await, vec![], "{context}: nothing is left to say");
        }
    }
}
