//! The core, told as timelines: what happens, and everything that Backstop then does and says.
//!
//! A case is a file under `cases/`: comments say what it shows, then the timeline, a line of dashes, and everything
//! that must happen, in order. `UPDATE_EXPECT=1 cargo test --test it timelines` rewrites the second halves: read the
//! difference before you commit it.

mod world;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub(crate) use world::{START, World};

const RULER: &str = "----";

/// Runs one case; says how it went otherwise, if it did.
fn check(path: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(path).unwrap();
    let (timeline, expected) = text.split_once(RULER).unwrap_or((&text, ""));
    let mut world = World::new();
    world.run(timeline);
    invariants(&world);
    let got = world.log.join("\n");
    if got.trim() == expected.trim() {
        return Ok(());
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, format!("{}\n{RULER}\n{got}\n", timeline.trim_end())).unwrap();
        return Ok(());
    }
    Err(format!("{} went otherwise:\n{got}\n", path.display()))
}

/// What must hold in every timeline, whatever it shows.
fn invariants(world: &World) {
    let mut ids = BTreeSet::new();
    for request in &world.begun {
        assert!(
            request.from.as_ref() != Some(&request.to.id),
            "rolled back to what was running: {request:?}"
        );
        assert!(ids.insert(request.id.clone()), "two rollbacks have one id: {request:?}");
    }
    assert!(world.begun.len() <= 4, "a rollback loop: {:?}", world.begun);
}

#[test]
fn every_timeline_goes_as_written() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/timelines/cases");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(cases).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 20, "timelines are missing: only {} found", paths.len());
    let failed: Vec<String> = paths.iter().filter_map(|p| check(p).err()).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn the_same_inputs_give_the_same_effects() {
    let timeline = include_str!("cases/health_bad_release.txt").split_once(RULER).unwrap().0;
    let run = || {
        let mut world = World::new();
        world.run(timeline);
        (world.log, world.begun)
    };
    assert_eq!(run(), run());
}
