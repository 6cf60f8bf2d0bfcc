//! The core, told as timelines: what happens, and everything that Backstop then does and says.
//!
//! A case is a file under `cases/`: comments say what it shows, then the timeline, a line of dashes, and everything
//! that must happen, in order. `UPDATE_EXPECT=1 cargo test --test it timelines` rewrites the second halves: read the
//! difference before you commit it.

mod world;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use backstop::core::io::RollbackRequest;

use crate::side_by_side::side_by_side;
pub(crate) use world::{START, Tape, World};

const RULER: &str = "----";

/// A timeline, and what came of it.
pub(crate) struct Case {
    path: PathBuf,
    timeline: String,
    expected: String,
    log: Vec<String>,
    begun: Vec<RollbackRequest>,
    pub(crate) tape: Tape,
}

/// Every timeline that is written down; played once, whoever asks for them.
pub(crate) fn cases() -> &'static [Case] {
    static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| {
        let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/timelines/cases");
        let mut paths: Vec<PathBuf> = std::fs::read_dir(cases).unwrap().map(|e| e.unwrap().path()).collect();
        paths.sort();
        assert!(paths.len() > 200, "timelines are missing: only {} found", paths.len());
        side_by_side(&paths, |path| Case::play(path))
    });
    &CASES
}

impl Case {
    fn play(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let (timeline, expected) = text.split_once(RULER).unwrap_or((&text, ""));
        let mut world = World::new();
        world.run(timeline);
        Self {
            path: path.to_owned(),
            timeline: timeline.to_owned(),
            expected: expected.to_owned(),
            log: world.log,
            begun: world.begun,
            tape: world.tape,
        }
    }

    /// What shows it.
    pub(crate) fn name(&self) -> String {
        self.path.file_stem().unwrap().to_string_lossy().into_owned()
    }
}

/// Whether a case went as it is written; says how it went otherwise, if it did.
fn check(case: &Case) -> Result<(), String> {
    invariants(&case.begun);
    let got = case.log.join("\n");
    if got.trim() == case.expected.trim() {
        return Ok(());
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&case.path, format!("{}\n{RULER}\n{got}\n", case.timeline.trim_end())).unwrap();
        return Ok(());
    }
    Err(format!("{} went otherwise:\n{got}\n", case.path.display()))
}

/// What must hold in every timeline, whatever it shows.
fn invariants(begun: &[RollbackRequest]) {
    let mut ids = BTreeSet::new();
    for request in begun {
        assert!(
            request.from.as_ref() != Some(&request.to.id),
            "rolled back to what was running: {request:?}"
        );
        assert!(ids.insert(request.id.clone()), "two rollbacks have one id: {request:?}");
    }
    assert!(begun.len() <= 4, "a rollback loop: {begun:?}");
}

#[test]
fn every_timeline_goes_as_written() {
    let failed: Vec<String> = cases().iter().filter_map(|case| check(case).err()).collect();
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
