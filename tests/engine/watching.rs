//! What the watch tells the core: deployments, ends and their causes, and an engine that goes away and comes back.

use std::sync::Arc;
use std::time::Duration;

use backstop::clock::Clock;
use backstop::core::io::{EngineState, Input};
use backstop::core::observation::{Observation, Phase};
use backstop::runtime::Runtime;
use backstop::runtime::container::{ContainerRuntime, LOOK_INTERVAL};
use backstop::runtime::engine::Engine;
use tokio::sync::mpsc;

use crate::steps::ByLabel;
use crate::support::{Bed, Image, eventually, seconds};

struct Watch {
    bed: Bed,
    inputs: mpsc::Receiver<Input>,
    tokio: tokio::runtime::Runtime,
    engine: Arc<Engine>,
}

impl Watch {
    fn start() -> Self {
        let bed = Bed::lease();
        bed.image("web:v1", &Image::demo("v1"));
        bed.image("web:v2", &Image::demo("v2"));
        let tokio =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let engine = Arc::new(Engine::connect(&format!("unix://{}", bed.socket())).unwrap());
        let runtime = ContainerRuntime::new(
            Arc::clone(&engine),
            (Arc::new(ByLabel), Arc::new(ByLabel)),
            Arc::default(),
            LOOK_INTERVAL,
            Clock::start(),
        );
        let (sender, inputs) = mpsc::channel(64);
        tokio.spawn(async move { runtime.watch(sender).await });
        Self { bed, inputs, tokio, engine }
    }

    /// The next input that `pick` wants; what comes before it is dropped.
    #[track_caller]
    fn next<T>(&mut self, what: &str, mut pick: impl FnMut(Input) -> Option<T>) -> T {
        let mut before = Vec::new();
        let found = self.tokio.block_on(async {
            tokio::time::timeout(seconds(60), async {
                loop {
                    let input = self.inputs.recv().await.unwrap();
                    let text = format!("{input:?}");
                    before.push(text.chars().take(300).collect::<String>());
                    if let Some(found) = pick(input) {
                        return found;
                    }
                }
            })
            .await
        });
        found.unwrap_or_else(|_| panic!("not told within 60 s: {what}; told: {before:#?}"))
    }

    #[track_caller]
    fn observed(&mut self, what: &str, wanted: impl Fn(&Observation) -> bool) -> Observation {
        self.next(what, |input| match input {
            Input::Observed(observation) if wanted(&observation) => Some(observation),
            _ => None,
        })
    }

    /// Code, for want of memory, requested.
    #[track_caller]
    fn exited(&mut self, service: &str) -> (i64, bool, bool) {
        self.next(&format!("the end of {service}"), |input| match input {
            Input::Exited { service: s, code, oom, requested, .. } if s.as_str() == service => {
                Some((code, oom, requested))
            }
            _ => None,
        })
    }

    fn run(&self, name: &str, options: &[&str], image: &str, command: &[&str]) {
        let start = ["run", "-d", "--name", name, "-l", "backstop.enable=true"];
        self.bed.docker(&[&start[..], options, &[image], command].concat());
    }
}

fn one_of(observation: &Observation, reference: &str, phase: Phase) -> bool {
    matches!(observation.replicas.as_slice(), [r] if r.release.reference == reference && r.phase == phase)
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn deployments_and_ends_are_told() {
    let mut watch = Watch::start();
    let first = watch.next("a first look", |input| match input {
        Input::Looked(look) => Some(look),
        _ => None,
    });
    assert!(first.after_gap && first.services.is_empty());

    watch.run("web", &["--restart", "always"], "web:v1", &[]);
    let v1 = watch.observed("web:v1 runs", |o| one_of(o, "web:v1", Phase::Running));
    watch.bed.docker(&["restart", "-t", "1", "web"]);
    assert!(watch.exited("web").2, "a restart is asked for");
    let again = watch.observed("web:v1 runs again", |o| one_of(o, "web:v1", Phase::Running));
    assert_eq!(v1.replicas[0].release, again.replicas[0].release, "a restart is no deployment");

    watch.bed.docker(&["network", "create", "extra"]);
    eventually(seconds(60), "it has run for a while: its start is over", || {
        let up = watch.bed.docker(&["ps", "--filter", "name=web", "--format", "{{.Status}}"]);
        let seconds = up.split_whitespace().nth(1).and_then(|n| n.parse::<u32>().ok());
        if seconds.is_some_and(|n| n >= 4) { Ok(()) } else { Err(up) }
    });
    for change in [
        &["network", "connect", "extra", "web"][..],
        &["update", "--restart", "unless-stopped", "web"],
        &["network", "disconnect", "extra", "web"],
    ] {
        watch.bed.docker(change);
        watch.next(&format!("{change:?} is told"), |input| match input {
            Input::Respecified { service } if service.as_str() == "web" => Some(()),
            _ => None,
        });
    }

    watch.bed.deploy("web", "web:v2", &["-l", "backstop.enable=true"]);
    let v2 = watch.observed("web:v2 runs", |o| one_of(o, "web:v2", Phase::Running));
    assert_ne!(v1.replicas[0].release.id, v2.replicas[0].release.id);
    watch.bed.docker(&["rename", "web", "shop"]);
    watch.observed("it has another name", |o| o.service.as_str() == "shop" || o.replicas.is_empty());

    // Gone by the time anybody asks.
    watch.run("short", &["--rm"], "web:v1", &["--exit-after", "0s", "--exit-code", "3"]);
    assert_eq!(watch.exited("short"), (3, false, false));
    watch.observed("nothing is left of it", |o| o.service.as_str() == "short" && o.replicas.is_empty());

    // Not at once: an engine that does not yet listen for it never learns of such an end (containerd#8180).
    let greedy = ["--use-memory", "100MiB", "--memory-after", "5s"];
    watch.run("greedy", &["--memory", "24m", "--memory-swap", "24m"], "web:v1", &greedy);
    assert_eq!(watch.exited("greedy"), (137, true, false), "killed for want of memory");

    watch.run("own", &["-l", "backstop.self=true"], "web:v1", &[]);
    watch.run("last", &[], "web:v1", &[]);
    watch.next("the last one, and never our own", |input| match input {
        Input::Observed(o) => {
            assert_ne!(o.service.as_str(), "own");
            (o.service.as_str() == "last").then_some(())
        }
        _ => None,
    });
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn an_engine_that_comes_back_is_told_and_looked_at() {
    let mut watch = Watch::start();
    watch.run("web", &["--restart", "always", "--memory", "48m"], "web:v1", &[]);
    watch.observed("web:v1 runs", |o| one_of(o, "web:v1", Phase::Running));
    let engine = Arc::clone(&watch.engine);
    let memory = watch.tokio.block_on(engine.usage("web")).unwrap().memory;
    assert!(
        memory.limited && memory.limit == 48 << 20 && memory.used > 0 && memory.used < memory.limit,
        "{memory:?}"
    );

    watch.bed.stop_engine();
    let why = watch.next("the engine is away", |input| match input {
        Input::Engine(EngineState::Unreachable { why }) => Some(why),
        _ => None,
    });
    assert!(why.contains(watch.bed.socket()), "{why}");
    watch.bed.start_engine();
    let restarted = watch.next("the engine is back", |input| match input {
        Input::Engine(EngineState::Reachable { restarted }) => Some(restarted),
        _ => None,
    });
    assert!(restarted, "it is another process");
    let look = watch.next("a look after the gap", |input| match input {
        Input::Looked(look) => Some(look),
        _ => None,
    });
    assert!(look.after_gap && look.services.len() == 1, "{look:?}");
    watch.bed.docker(&["restart", "-t", "0", "web"]);
    assert!(watch.exited("web").2, "events are followed again");
    let memory = watch.tokio.block_on(engine.usage("web")).unwrap().memory;
    assert!(memory.limited, "the session was made anew: {memory:?}");
    // The listener goes: the watch ends by itself, or the runtime could not be shut down here.
    watch.inputs.close();
    watch.tokio.shutdown_timeout(Duration::from_secs(5));
}
