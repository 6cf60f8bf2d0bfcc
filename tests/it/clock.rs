//! A wall clock that jumps while Backstop runs, forwards and backwards.
//!
//! Backstop reads the wall clock once and counts monotonic time from there. Engines do not: after a jump, what they say
//! of when a container was made and started is hours ahead, or hours ago, while all else goes on.

use std::time::Duration;

use backstop::core::io::{Effect, Input};
use backstop::core::ledger::Remembered;
use backstop::core::observation::{Look, Observation};
use backstop::core::settings::FleetSettings;
use backstop::core::{Fleet, Timestamp};
use backstop::flight::{Limits, Recorder};
use backstop::replay::record::replay_with;

use crate::side_by_side::side_by_side;
use crate::timelines::{Case, START, Tape, World, cases};

/// How far the wall clock is set, and which way.
#[derive(Debug, Clone, Copy)]
enum Jump {
    Ahead(Duration),
    Back(Duration),
}

impl Jump {
    fn of(self, at: Timestamp) -> Timestamp {
        match self {
            Self::Ahead(by) => at + by,
            Self::Back(by) => at.before(by),
        }
    }
}

const JUMPS: [Jump; 4] = [
    Jump::Ahead(Duration::from_secs(6 * 3600)),
    Jump::Back(Duration::from_secs(6 * 3600)),
    Jump::Ahead(Duration::from_secs(90)),
    Jump::Back(Duration::from_secs(90)),
];

/// The same tape from an engine whose clock jumps right after the first look: what is made and started from then on has
/// other times. What was there before keeps the times that were written down.
fn from_a_jumping_engine(tape: &Tape, jump: Jump) -> Vec<(Timestamp, Input)> {
    let after = |at: Timestamp| if at > START { jump.of(at) } else { at };
    let seen = |observation: &mut Observation| {
        for replica in &mut observation.replicas {
            replica.created = after(replica.created);
            replica.started = replica.started.map(after);
        }
    };
    let told = |input: &Input| {
        let mut input = input.clone();
        match &mut input {
            Input::Observed(observation) => seen(observation),
            Input::Looked(Look { services, .. }) => services.iter_mut().for_each(seen),
            _ => {}
        }
        input
    };
    tape.iter().map(|(at, input, _)| (*at, told(input))).collect()
}

/// What was decided and done: everything that touches a service, or is remembered of it, or is said.
fn deeds(effects: &[Effect]) -> Vec<String> {
    effects
        .iter()
        .filter(|effect| !matches!(effect, Effect::Remember(_)))
        .map(|effect| format!("{effect:?}"))
        .collect()
}

/// How many turns and rollbacks of a case a jump has left as they were.
fn unchanged(case: &Case, jump: Jump) -> (usize, usize) {
    let mut fleet = Fleet::restore(START, FleetSettings::default(), Remembered::default());
    let mut rollbacks = 0;
    for ((at, input), (_, _, then)) in from_a_jumping_engine(&case.tape, jump).into_iter().zip(&case.tape) {
        let now = fleet.handle(at, input.clone());
        assert_eq!(deeds(&now), deeds(then), "{}, {jump:?}, {at:?}: {input:?}", case.name());
        rollbacks += now.iter().filter(|effect| matches!(effect, Effect::RollBack(_))).count();
    }
    (case.tape.len(), rollbacks)
}

#[test]
fn a_jump_changes_no_decision_of_any_timeline() {
    // The long ones, for every timeline: it takes its time.
    let each = side_by_side(cases(), |case| [unchanged(case, JUMPS[0]), unchanged(case, JUMPS[1])]);
    let (turns, rollbacks) =
        each.iter().flatten().fold((0, 0), |(a, b), (turns, rollbacks)| (a + turns, b + rollbacks));
    assert!(turns > 10_000 && rollbacks > 50, "{turns} turns and {rollbacks} rollbacks show nothing");
}

#[test]
fn a_record_of_a_jump_replays_to_what_was_done() {
    let mut world = World::new();
    world.at(0, "deploy shop shop:v1 age=1h");
    world.at(5, "health shop ok x20");
    world.at(110, "deploy shop shop:v2");
    world.at(115, "health shop fail x4");
    world.at(140, "health shop ok x20");
    for jump in JUMPS {
        let directory = tempfile::tempdir().unwrap();
        let mut fleet = Fleet::restore(START, FleetSettings::default(), Remembered::default());
        let mut recorder =
            Recorder::start(directory.path().to_owned(), Limits::default(), START, &fleet).unwrap();
        let mut done = Vec::new();
        for (at, input) in from_a_jumping_engine(&world.tape, jump) {
            let effects = fleet.handle(at, input.clone());
            recorder.turned(at, input, &effects, &fleet);
            done.push((at, effects));
        }
        assert_eq!(recorder.lost(), 0);
        recorder.close();
        let mut seen = Vec::new();
        let account =
            replay_with(directory.path(), &mut |at, effects| seen.push((at, effects.to_vec()))).unwrap();
        assert_eq!(account.difference, None);
        assert!(account.lines.iter().any(|line| format!("{line:?}").contains("rollback")), "{jump:?}");
        assert_eq!(seen, done);
    }
}

/// What stands in the picture, which the API shows, is Backstop's own time: it goes on evenly, and nothing is in the
/// future or hours ago because an engine says so.
#[test]
fn the_picture_keeps_its_own_time() {
    for jump in JUMPS {
        let mut world = World::new();
        world.at(0, "deploy shop shop:v1 age=1h");
        world.at(5, "health shop ok x20");
        world.at(110, "deploy shop shop:v2");
        world.at(115, "health shop fail x3");
        let mut fleet = Fleet::restore(START, FleetSettings::default(), Remembered::default());
        let jumped = from_a_jumping_engine(&world.tape, jump);
        let mut last = START;
        for (at, input) in jumped {
            fleet.handle(at, input);
            last = at;
        }
        let seen = fleet.snapshot(last);
        let shop = &seen.services[0];
        // Put back three failures after the deployment.
        assert_eq!(shop.deployed, Some(START + Duration::from_secs(125)), "{jump:?}");
        let rollback = shop.rollback.as_ref().unwrap();
        assert!(rollback.started > START && rollback.started <= last, "{jump:?}");
        assert!(shop.ledger.iter().all(|entry| entry.first_seen <= last && entry.deployed <= last));
        let late = poll(&fleet, last);
        assert!(late <= Duration::from_secs(60), "{jump:?}: the next turn is due in {late:?}");
    }
}

fn poll(fleet: &Fleet, now: Timestamp) -> Duration {
    fleet.poll_timeout().since(now)
}
