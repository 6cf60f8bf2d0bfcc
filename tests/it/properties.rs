//! Whatever happens, in whatever order: the core keeps its promises. Random timelines in the words of the written ones.

use backstop::core::io::Effect;
use backstop::core::sample::Signal;
use proptest::prelude::*;
use proptest::sample::select;

use crate::timelines::World;

/// Something that happens to one of two services, or is measured of it.
fn event() -> impl Strategy<Value = String> {
    let service = prop_oneof![Just("api"), Just("web")];
    (service, prop_oneof![happening(), measured()]).prop_map(|(service, what)| what.replace('S', service))
}

fn happening() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => Just("health S ok x3 every 2s".to_owned()),
        6 => Just("health S fail x4 every 4s".to_owned()),
        2 => Just("health S unknown x5 every 2s".to_owned()),
        4 => (1..5_u32).prop_map(|v| format!("deploy S S:v{v}")),
        1 => (1..5_u32).prop_map(|v| format!("mixed S S:v{v}")),
        1 => Just("remove S".to_owned()),
        2 => Just("exit S 1 x3 every 1s".to_owned()),
        1 => Just("exit S 1 stays".to_owned()),
        1 => Just("exit S 1 vanishes".to_owned()),
        1 => Just("exit S 143 requested stays".to_owned()),
        1 => Just("exit S 137 oom".to_owned()),
        1 => Just("memory S 95 x20".to_owned()),
        1 => Just("container S unhealthy".to_owned()),
        1 => Just("container S healthy".to_owned()),
        1 => Just("engine lost".to_owned()),
        2 => Just("engine back".to_owned()),
        1 => Just("store full".to_owned()),
        2 => Just("store ok".to_owned()),
        1 => Just("operator pause S 30s".to_owned()),
        1 => Just("operator pause all 30s".to_owned()),
        2 => Just("operator resume S".to_owned()),
        1 => Just("operator resume all".to_owned()),
        1 => Just("operator rollback S".to_owned()),
        1 => Just("next rollback unwinds: no room".to_owned()),
        1 => Just("next rollback stuck: no way".to_owned()),
        1 => Just("next rollback void: S:v9".to_owned()),
        1 => Just("next protect no room".to_owned()),
        1 => Just("look".to_owned()),
        1 => select(vec!["host short of memory", "host cut off", "host well"]).prop_map(str::to_owned),
    ]
}

fn measured() -> impl Strategy<Value = String> {
    let who = select(vec!["alice", "bob", "carol"]);
    prop_oneof![
        4 => Just("requests S 100 x8".to_owned()),
        4 => (20..90_u32).prop_map(|n| format!("requests S 100 errors={n} x9")),
        1 => Just("requests S 100 p99=100ms x60".to_owned()),
        2 => (100..900_u32).prop_map(|ms| format!("requests S 100 p99={ms}ms x9")),
        1 => Just("requests S 0 x4".to_owned()),
        1 => Just("requests S unknown x5".to_owned()),
        2 => Just("dependency S db fail x3 every 2s".to_owned()),
        2 => Just("dependency S db ok".to_owned()),
        1 => (40..99_u32).prop_map(|percent| format!("memory S 40..{percent} x14")),
        1 => Just("memory S unknown x5".to_owned()),
        1 => Just("cpu S 80 x12".to_owned()),
        1 => (0..20_u32).prop_map(|lines| format!("log S {lines} x6 every 10s")),
        1 => who.prop_map(|who| format!("report S {who}")),
        1 => Just("alert S firing HighErrors".to_owned()),
        1 => Just("alert S resolved HighErrors".to_owned()),
    ]
}

/// Something that says nothing about `api`: nobody asks it for anything, nothing applies, nothing comes.
fn no_data() -> impl Strategy<Value = String> {
    let nothing = vec![
        "requests api 0 x8",
        "requests api none",
        "log api none",
        "memory api none",
        "cpu api none",
        "look",
        "end",
    ];
    select(nothing).prop_map(str::to_owned)
}

/// A source of `api` that fails, and what else can be unknown.
fn error() -> impl Strategy<Value = String> {
    let one = vec!["health", "memory", "cpu", "log", "requests", "dependency"];
    let all = Signal::ALL.map(Signal::name).to_vec();
    let around = vec!["engine lost", "engine back", "store full", "store ok", "host cut off", "host well"];
    prop_oneof![
        6 => (select(one), 1..9_u32).prop_map(|(what, n)| match what {
            "dependency" => format!("dependency api db unknown x{n}"),
            _ => format!("{what} api unknown x{n}"),
        }),
        3 => (select(all), 1..9_u32).prop_map(|(signal, n)| format!("unmeasured api {signal} x{n}")),
        2 => select(around).prop_map(str::to_owned),
    ]
}

fn pauses(what: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<(u64, String)>> {
    prop::collection::vec((0..60_u64, what), 1..20)
}

/// A timeline of events, each some seconds after the one before.
pub(crate) fn timeline() -> impl Strategy<Value = Vec<(u64, String)>> {
    prop::collection::vec((0..90_u64, event()), 1..60)
}

/// A release that is well and known-good, and another one after it of which only `events` are known.
fn judged_by(events: &[(u64, String)]) -> World {
    let mut world = World::new();
    world.event("set depends=db access_log=auto");
    world.at(0, "deploy api api:v1 age=1h");
    world.at(
        1,
        "health api ok & requests api 100 p99=100ms & memory api 40 & log api 1 & dependency api db ok x12",
    );
    world.at(60, "deploy api api:v2");
    let kept = |effects: &Vec<Effect>| effects.iter().any(|effect| matches!(effect, Effect::Protect { .. }));
    assert!(world.tape.iter().any(|(_, _, effects)| kept(effects)), "there is nothing to roll back to");
    run_from(&mut world, 61, events);
    world
}

/// Everything that was decided: that a person should look, that it is held, that it is rolled back.
fn decided(world: World) -> Vec<Effect> {
    let effects = world.tape.into_iter().flat_map(|(_, _, effects)| effects);
    effects.filter(|effect| matches!(effect, Effect::Decided(_) | Effect::RollBack(_))).collect()
}

/// What was done and said about `web`, under whatever name the `other` goes.
fn about_web(world: &World, other: &str) -> Vec<String> {
    let about = |line: &&String| line.contains(" web: ") || line.contains(": web\"");
    let same = |line: &String| if other.is_empty() { line.clone() } else { line.replace(other, "the other") };
    world.log.iter().filter(about).map(same).collect()
}

fn is_about_one(what: &str, service: &str) -> bool {
    what.split([' ', ':']).any(|word| word == service)
}

pub(crate) fn run(world: &mut World, events: &[(u64, String)]) {
    run_from(world, 1, events);
}

fn run_from(world: &mut World, mut at: u64, events: &[(u64, String)]) {
    for (pause, what) in events {
        at += pause;
        world.at(at, what);
        at = at.max(world.seconds());
    }
}

/// So many random timelines, or as many as `PROPTEST_CASES` says: `PROPTEST_CASES=5000 cargo test --test it properties`.
#[expect(clippy::disallowed_methods, reason = "nothing of Backstop reads it")]
fn cases(usual: u32) -> ProptestConfig {
    let said = std::env::var("PROPTEST_CASES").ok().and_then(|said| said.parse().ok());
    ProptestConfig { cases: said.unwrap_or(usual), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn no_promise_is_broken(events in timeline()) {
        let mut world = World::new();
        world.event("set attempts=2 trial=20s depends=db");
        world.at(0, "deploy api api:v1 age=1h");
        world.at(0, "deploy web web:v1 age=1h");
        run(&mut world, &events);
        for request in &world.begun {
            prop_assert_ne!(request.from.as_ref(), Some(&request.to.id), "rolled back to what was running");
        }
        // A target is known-good and not quarantined at that moment: the world checks it as it begins.
        prop_assert!(world.broken.is_empty(), "{:?}", world.broken);
    }

    #[test]
    fn not_knowing_never_rolls_back(n in 1..200_u32, every in 1..30_u64) {
        let mut world = World::new();
        world.at(0, "deploy api api:v1 age=1h");
        world.at(1, "health api ok x10");
        world.at(60, "deploy api api:v2");
        world.at(61, &format!("health api unknown x{n} every {every}s"));
        prop_assert!(world.begun.is_empty());
    }

    #[test]
    fn nothing_measured_is_nothing_decided(events in pauses(no_data())) {
        let decided = decided(judged_by(&events));
        prop_assert!(decided.is_empty(), "{decided:?}");
    }

    #[test]
    fn what_cannot_be_measured_is_not_decided(events in pauses(error())) {
        let decided = decided(judged_by(&events));
        prop_assert!(decided.is_empty(), "{decided:?}");
    }
}

// Each of these runs every timeline twice.
proptest! {
    #![proptest_config(cases(16))]

    #[test]
    fn the_same_inputs_give_the_same_effects(events in timeline()) {
        let effects = || {
            let mut world = World::new();
            world.at(0, "deploy api api:v1 age=1h");
            world.at(0, "deploy web web:v1 age=1h");
            run(&mut world, &events);
            world.tape.into_iter().map(|(at, _, effects)| (at, effects)).collect::<Vec<_>>()
        };
        prop_assert_eq!(effects(), effects());
    }

    #[test]
    fn who_is_watched_beside_it_does_not_matter(events in timeline()) {
        // What happens to one service alone is the same, whatever other, well service is watched beside it.
        let alone: Vec<_> = events.iter().filter(|(_, what)| is_about_one(what, "web")).cloned().collect();
        let outcome = |first: &str, second: &str| {
            let mut world = World::new();
            world.at(0, &format!("deploy {first} {first}:v1 age=1h"));
            world.at(0, &format!("deploy {second} {second}:v1 age=1h"));
            run(&mut world, &alone);
            about_web(&world, "")
        };
        prop_assert_eq!(outcome("kiwi", "web"), outcome("web", "zulu"));
    }

    #[test]
    fn the_order_of_services_does_not_matter(events in timeline()) {
        // Whoever comes before it in every list might as well come after it, whatever happens to both.
        prop_assert_eq!(beside("kiwi", &events), beside("zulu", &events));
    }
}

#[test]
fn a_rollback_is_heard_of_in_its_moment_whoever_comes_first() {
    let events = [
        (8, "health api ok x3 every 2s"),
        (75, "deploy web web:v4"),
        (30, "deploy api api:v2"),
        (52, "health web fail x4 every 4s"),
        (15, "health api fail x4 every 4s"),
        (55, "health api ok x3 every 2s"),
    ];
    let events = events.map(|(after, what)| (after, what.to_owned()));
    assert_eq!(beside("kiwi", &events), beside("zulu", &events));
}

/// What is done and said about `web` while `events` happen to it and to the `other`, which they call `api`.
fn beside(other: &str, events: &[(u64, String)]) -> Vec<String> {
    let mut world = World::new();
    world.event("set attempts=5 trial=20s depends=db");
    world.at(0, &format!("deploy {other} {other}:v1 age=1h"));
    world.at(0, "deploy web web:v1 age=1h");
    let events: Vec<_> = events.iter().map(|(at, what)| (*at, what.replace("api", other))).collect();
    run(&mut world, &events);
    about_web(&world, other)
}

/// Both have their turn at the same moment, and one falls silent then: the other must hear of it there and then, whoever
/// comes first by name.
#[test]
fn who_is_due_together_hears_of_each_other() {
    let events = [
        (0, "host short of memory"),
        (0, "exit web 1 x3 every 1s"),
        (0, "requests api 100 x8"),
        (32, "health api ok x3 every 2s"),
    ];
    let events = events.map(|(at, what)| (at, what.to_owned()));
    assert_eq!(beside("kiwi", &events), beside("zulu", &events));
}
