//! Whatever happens, in whatever order: the core keeps its promises. Random timelines in the words of the written ones.

use proptest::prelude::*;

use crate::timelines::World;

/// Something that can happen to one of two services.
fn event() -> impl Strategy<Value = String> {
    let service = prop_oneof![Just("api"), Just("web")];
    let what = prop_oneof![
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
    ];
    (service, what).prop_map(|(service, what)| what.replace('S', service))
}

/// A timeline of events, each some seconds after the one before.
pub(crate) fn timeline() -> impl Strategy<Value = Vec<(u64, String)>> {
    prop::collection::vec((0..90_u64, event()), 1..60)
}

fn is_about_one(what: &str, service: &str) -> bool {
    what.split([' ', ':']).any(|word| word == service)
}

pub(crate) fn run(world: &mut World, events: &[(u64, String)]) {
    let mut at = 1;
    for (pause, what) in events {
        at += pause;
        world.at(at, what);
        at = at.max(world.seconds());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_promise_is_broken(events in timeline()) {
        let mut world = World::new();
        world.event("set attempts=2 trial=20s");
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
    fn the_order_of_services_does_not_matter(events in timeline()) {
        // What happens to one service alone is the same, whatever other, well service is watched beside it.
        let alone: Vec<_> = events.iter().filter(|(_, what)| is_about_one(what, "web")).cloned().collect();
        let outcome = |first: &str, second: &str| {
            let mut world = World::new();
            world.at(0, &format!("deploy {first} {first}:v1 age=1h"));
            world.at(0, &format!("deploy {second} {second}:v1 age=1h"));
            run(&mut world, &alone);
            world.log.into_iter().filter(|line| line.contains(" web: ")).collect::<Vec<_>>()
        };
        prop_assert_eq!(outcome("aaa", "web"), outcome("web", "zzz"));
    }
}
