//! The flight record: what is written down gives, replayed, the very same effects; damage and loss are said.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use backstop::core::io::{Effect, EngineState, Input};
use backstop::core::ledger::Remembered;
use backstop::core::observation::{Observation, Phase};
use backstop::core::settings::{FleetSettings, Rule, ServiceSettings};
use backstop::core::{Fleet, Timestamp};
use backstop::flight::reader::{Segment, is_segment, segments};
use backstop::flight::{Limits, Recorder};
use backstop::replay::record::{Account, replay, replay_with};
use proptest::prelude::*;

use crate::properties::{run, timeline};
use crate::side_by_side::side_by_side;
use crate::timelines::{Tape, World, cases};

/// Small, so that the ring turns round.
const SMALL: Limits = Limits { max_bytes: 192 << 10, max_age: Duration::from_secs(7 * 24 * 3600) };

fn world() -> World {
    let mut world = World::new();
    world.at(0, "deploy api api:v1 age=1h");
    world.at(0, "deploy web web:v1 age=1h");
    world
}

/// Plays a tape to a core beside a recorder, as the driver does.
fn record(directory: &Path, limits: Limits, tape: &Tape) {
    let start = tape[0].0;
    let mut fleet = Fleet::restore(start, FleetSettings::default(), Remembered::default());
    let mut recorder = Recorder::start(directory.to_owned(), limits, start, &fleet).unwrap();
    for (at, input, effects) in tape {
        let again = fleet.handle(*at, input.clone());
        assert_eq!(&again, effects, "the core is not deterministic");
        recorder.turned(*at, input.clone(), &again, &fleet);
        wait_for_room(&recorder);
    }
    assert_eq!(recorder.lost(), 0);
    recorder.close();
}

/// The driver never waits; a test that is a thousand times faster than life has to.
fn wait_for_room(recorder: &Recorder) {
    while recorder.waiting() > 64 {
        std::thread::yield_now();
    }
}

fn replayed(directory: &Path) -> (Account, Vec<(Timestamp, Vec<Effect>)>) {
    let mut seen = Vec::new();
    let account = replay_with(directory, &mut |at, effects| seen.push((at, effects.to_vec()))).unwrap();
    (account, seen)
}

#[test]
fn every_written_timeline_replays_to_the_same_effects() {
    let each = side_by_side(cases(), |case| {
        let directory = tempfile::tempdir().unwrap();
        record(directory.path(), Limits::default(), &case.tape);
        let (account, seen) = replayed(directory.path());
        let then: Vec<_> = case.tape.iter().map(|(at, _, effects)| (*at, effects.clone())).collect();
        assert_eq!(seen, then, "{}", case.name());
        assert_eq!(account.difference, None, "{}", case.name());
        assert!(account.remarks.is_empty(), "{:?}", account.remarks);
        assert_eq!(account.lines.len() as u64, account.recorded);
        (account.turns, account.recorded)
    });
    let (turns, decisions) = each.iter().fold((0, 0), |(a, b), (turns, recorded)| (a + turns, b + recorded));
    assert!(turns > 2_000 && decisions > 20, "{turns} turns and {decisions} decisions show nothing");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_replays_to_the_same_effects_from_whatever_is_left(events in timeline()) {
        let mut world = world();
        run(&mut world, &events);
        let directory = tempfile::tempdir().unwrap();
        record(directory.path(), SMALL, &world.tape);
        let (account, seen) = replayed(directory.path());
        prop_assert_eq!(&account.difference, &None);
        prop_assert!(account.remarks.is_empty());
        // The ring may have dropped the beginning; the rest is all there.
        let then = world.tape.iter().map(|(at, _, effects)| (*at, effects.clone())).collect::<Vec<_>>();
        prop_assert_eq!(&seen[..], &then[then.len() - seen.len()..]);
    }
}

/// The daemon was started again, and its clock had been set back meanwhile.
#[test]
fn a_clock_that_was_set_back_between_two_runs_spoils_neither() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = world();
    world.at(100, "health web fail x20 every 3s");
    record(directory.path(), SMALL, &world.tape);
    record(directory.path(), SMALL, &world.tape);
    let (account, seen) = replayed(directory.path());
    assert_eq!((account.difference, account.remarks.len()), (None, 0));
    let then: Vec<_> = world.tape.iter().map(|(at, _, effects)| (*at, effects.clone())).collect();
    assert_eq!(seen, [then.clone(), then].concat());
}

/// A tape that is long enough for many segments.
fn long() -> Tape {
    let mut world = world();
    for round in 0..16 {
        let at = 100 + round * 400;
        world.at(at, "health api ok x20 every 5s");
        world.at(at + 110, "memory api 50 x20");
        world.at(at + 220, "health web fail x20 every 3s");
        world.at(at + 300, "exit web 1 x2 every 1s");
    }
    world.tape
}

#[test]
fn the_ring_keeps_its_bounds_and_what_is_left_replays() {
    let directory = tempfile::tempdir().unwrap();
    let tape = long();
    let limits = Limits { max_bytes: 128 << 10, ..SMALL };
    record(directory.path(), limits, &tape);
    let paths = segments(directory.path()).unwrap();
    let size: u64 = paths.iter().map(|p| std::fs::metadata(p).unwrap().len()).sum();
    assert!(size <= limits.max_bytes, "{size} bytes are more than {}", limits.max_bytes);
    assert!(paths.len() > 2, "one segment is no ring: {paths:?}");
    assert!(!paths[0].ends_with("000000000001.flight"), "the beginning was to be dropped: {paths:?}");
    let (account, seen) = replayed(directory.path());
    assert_eq!((account.difference, account.remarks.len()), (None, 0));
    assert!(seen.len() < tape.len() && seen.len() > 100);
    let first = replay(&paths[0]).unwrap();
    assert!(first.turns > 0 && first.difference.is_none(), "one segment alone replays as well");
}

#[test]
fn segments_are_dropped_by_age_and_only_the_owner_reads_them() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("flight");
    let tape = long();
    record(&directory, SMALL, &tape);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    let before = segments(&directory).unwrap();
    assert!(before.iter().all(|path| mode(path) == 0o600 && is_segment(path)));
    // Files are as young as the clock of this machine; the core's time can be far ahead of it.
    let ahead = Timestamp::from_secs(50 * 365 * 24 * 3600 * 2);
    let fleet = Fleet::restore(ahead, FleetSettings::default(), Remembered::default());
    Recorder::start(directory.clone(), SMALL, ahead, &fleet).unwrap().close();
    let after = segments(&directory).unwrap();
    assert_eq!(after.len(), 1, "{after:?}");
    assert!(!before.contains(&after[0]), "numbers are not used again");
}

/// One small segment of many blocks, and what is in it: a service with one row, well and then ill.
fn small(directory: &Path) -> (PathBuf, Vec<u8>, u64) {
    let start = Timestamp::from_secs(86_400);
    let mut rules = Rule::matrix();
    rules.retain(|rule| rule.name == "down");
    let settings = Arc::new(ServiceSettings { rules, ..ServiceSettings::default() });
    let mut world = World::new();
    world.at(0, "deploy api api:v1 age=1h");
    let Some(Input::Observed(seen)) = world.tape.pop().map(|(_, input, _)| input) else { panic!() };
    let name = seen.service.clone();
    let with = |phase: Phase| {
        let mut seen = Observation { settings: Arc::clone(&settings), ..seen.clone() };
        (seen.replicas[0].phase, seen.replicas[0].exit_code) = (phase, Some(1));
        Input::Observed(seen)
    };
    let mut inputs = vec![Input::Engine(EngineState::Reachable { restarted: false }), with(Phase::Running)];
    for i in 0..6 {
        let code = i % 2;
        let replica = seen.replicas[0].id.clone();
        inputs.push(Input::Exited { service: name.clone(), replica, code, oom: false, requested: false });
    }
    inputs.push(with(Phase::Exited));
    inputs.extend([Input::Tick, Input::Tick]);
    let mut fleet = Fleet::restore(start, FleetSettings::default(), Remembered::default());
    let mut tape = Vec::new();
    for (i, input) in (0..).zip(inputs) {
        let at = start + Duration::from_secs(i * 6);
        let effects = fleet.handle(at, input.clone());
        tape.push((at, input, effects));
    }
    record(directory, Limits::default(), &tape);
    let path = segments(directory).unwrap().remove(0);
    let bytes = std::fs::read(&path).unwrap();
    (path, bytes, tape.len() as u64)
}

#[test]
fn a_segment_cut_at_any_byte_replays_up_to_there() {
    let directory = tempfile::tempdir().unwrap();
    let (path, bytes, all) = small(directory.path());
    let whole = replay(&path).unwrap();
    assert_eq!((whole.turns, whole.difference, whole.remarks.len()), (all, None, 0));
    assert!(whole.recorded > 0);
    let (mut last, mut steps) = (0, 0);
    for cut in 0..bytes.len() {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let account = replay(&path).unwrap();
        assert_eq!(account.difference, None, "cut at {cut}");
        assert!(account.turns >= last && account.turns <= all, "cut at {cut}");
        let clean = account.remarks.is_empty();
        steps += u32::from(account.turns > last);
        last = account.turns;
        // Between two blocks nothing tells that more was to come; anywhere else it is said.
        let mut segment = Segment::open(&path).unwrap();
        while segment.entry().unwrap().is_some() {}
        assert_eq!(clean, segment.damage().is_none(), "cut at {cut}");
    }
    assert!(steps >= 5, "the segment has too few blocks to show anything: {steps}");
}

#[test]
fn a_byte_that_changed_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let (path, bytes, all) = small(directory.path());
    for at in (0..bytes.len()).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x41;
        std::fs::write(&path, &damaged).unwrap();
        let account = replay(&path).unwrap();
        assert_eq!(account.difference, None, "byte {at}");
        assert_eq!(account.remarks.len(), 1, "byte {at}: {:?}", account.remarks);
        assert!(account.turns < all, "byte {at}");
    }
}

#[test]
fn a_disk_that_cannot_be_written_to_costs_the_record_and_nothing_else() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("flight");
    std::fs::write(&directory, "in the way").unwrap();
    let mut world = world();
    let mut fleet = Fleet::restore(world.tape[0].0, FleetSettings::default(), Remembered::default());
    let mut recorder = Recorder::start(directory.clone(), SMALL, world.tape[0].0, &fleet).unwrap();
    world.at(10, "health api ok x30 every 5s");
    let broken = world.tape.len();
    world.at(400, "health api fail x30 every 5s");
    for (i, (at, input, _)) in world.tape.iter().enumerate() {
        if i == broken {
            std::fs::remove_file(&directory).unwrap();
        }
        let effects = fleet.handle(*at, input.clone());
        recorder.turned(*at, input.clone(), &effects, &fleet);
        while recorder.waiting() > 0 {
            std::thread::yield_now();
        }
    }
    let lost = recorder.lost();
    recorder.close();
    assert!(lost as usize >= broken && (lost as usize) < world.tape.len(), "{lost} of {}", world.tape.len());
    let account = replay(&directory).unwrap();
    assert_eq!(account.turns, world.tape.len() as u64 - lost);
    assert_eq!(account.difference, None);
    assert!(account.remarks[0].contains(&format!("{lost} turns were not recorded")), "{:?}", account.remarks);
}

#[test]
fn another_core_is_found_out() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = world();
    world.at(60, "deploy api api:v2");
    world.at(90, "health api fail x4 every 5s");
    let start = world.tape[0].0;
    let mut fleet = Fleet::restore(start, FleetSettings::default(), Remembered::default());
    let mut recorder = Recorder::start(directory.path().to_owned(), SMALL, start, &fleet).unwrap();
    for (at, input, _) in &world.tape {
        let mut effects = fleet.handle(*at, input.clone());
        // As if that version had not decided anything.
        effects.retain(|effect| !matches!(effect, Effect::Decided(_)));
        recorder.turned(*at, input.clone(), &effects, &fleet);
    }
    recorder.close();
    let difference = replay(directory.path()).unwrap().difference.unwrap();
    assert!(
        difference.contains("it decided nothing, and now it decides hold of api (health check failed"),
        "{difference}"
    );
}

/// What `backstop replay` prints and says, with its exit code.
fn told(args: &[&str]) -> (String, String, Option<i32>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backstop"));
    let output = command.env_clear().env("TZ", "UTC").arg("replay").args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code())
}

#[test]
fn settings_that_are_given_judge_the_record_anew() {
    let state = tempfile::tempdir().unwrap();
    let directory = state.path().join("flight");
    let mut world = world();
    for round in 0..16 {
        let at = 100 + round * 400;
        world.at(at, "health api ok x20 every 5s");
        world.at(at + 110, &format!("deploy web web:v{}", round + 2));
        world.at(at + 220, "health web fail x20 every 3s");
        world.at(at + 300, "memory api 50 x20");
    }
    record(&directory, SMALL, &world.tape);
    assert!(segments(&directory).unwrap().len() > 2, "one segment shows nothing of how they are joined");
    let record = directory.to_str().unwrap();
    let health = |out: &str| out.lines().filter(|line| line.contains(r#""signal":"health""#)).count();
    let (out, said, code) = told(&[record, "--json"]);
    assert!(health(&out) > 0 && said.contains("identical to what it did"), "{out}{said}");
    assert_eq!(code, Some(0));

    let off = ["health", "health_prolonged", "health_flapping"]
        .map(|rule| format!("--set=services.web.rules.{rule}.action=off"));
    let (out, said, code) =
        told(&[&[record, "--json"], off.each_ref().map(String::as_str).as_slice()].concat());
    assert_eq!((health(&out), code), (0, Some(0)), "{out}");
    assert!(said.contains("judged anew by --config and --set") && !said.contains("identical"), "{said}");

    let config = state.path().join("other.toml");
    std::fs::write(&config, "[defaults.rules.health]\nthreshold = 9\nsustained = \"20s\"\n").unwrap();
    let (out, _, _) = told(&[record, "--json", "--config", config.to_str().unwrap()]);
    assert!(
        health(&out) > 0 && !out.contains("(limit: 2 over 10s)"),
        "what the record has is not judged by: {out}"
    );

    let (_, said, code) = told(&[record, "--set", "services.wbe.trial=5m"]);
    assert!(
        said.contains("warning") && said.contains("`services.wbe` is set, and no wbe is in the record"),
        "{said}"
    );
    assert_eq!(code, Some(0));
    let (_, said, code) =
        told(&[record, "--set", "services.web.verify=4m", "--set", "defaults.verify_timeout=4m"]);
    assert!(said.contains("judged anew") && code == Some(0), "{said}");
    let (_, said, code) = told(&[record, "--set", "services.web.trail=5m"]);
    assert!(said.contains("did you mean services.web.trial?"), "{said}");
    assert_eq!(code, Some(64));
}

#[test]
fn the_directory_above_the_record_is_recognised() {
    let state = tempfile::tempdir().unwrap();
    small(&state.path().join("flight"));
    let (_, said, code) = told(&[state.path().to_str().unwrap()]);
    let hint = format!(
        "hint: the daemon's own record is in it: backstop replay {}/flight\n",
        state.path().display()
    );
    assert!(said.ends_with(&hint), "{said}");
    assert_eq!(code, Some(1));
}
