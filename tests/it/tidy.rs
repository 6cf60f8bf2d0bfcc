//! Keeps the house in order: who may know whom, and how big a file may grow.

use std::path::{Path, PathBuf};

use backstop::core::settings::Rule;

/// A word that may stand only in some places, and why.
struct Wall {
    word: &'static str,
    only_in: &'static [&'static str],
    why: &'static str,
}

const WALLS: &[Wall] = &[
    Wall {
        word: "bollard",
        only_in: &["runtime/"],
        why: "the engine's types stay behind the runtime's seam",
    },
    Wall {
        word: "reqwest",
        only_in: &["signal/", "notify/", "runtime/", "cli/"],
        why: "HTTP out belongs to probes, deliveries, the raw engine calls and the command line's client",
    },
    Wall {
        word: "tokio_postgres",
        only_in: &["hooks/postgres.rs"],
        why: "databases of services have one door",
    },
    Wall { word: "axum", only_in: &["api/", "cli/demo_app/"], why: "HTTP in belongs to the API" },
    Wall { word: "lettre", only_in: &["notify/"], why: "mail is a channel" },
    Wall {
        word: "minijinja",
        only_in: &["notify/", "report/"],
        why: "templates are the words of announcements and reports",
    },
    Wall {
        word: "hmac::",
        only_in: &["notify/", "api/links.rs"],
        why: "what is signed is sent by a channel, or is a link in it",
    },
    Wall { word: "rusqlite", only_in: &["store/"], why: "SQL belongs to the store" },
    Wall { word: "sd_notify", only_in: &["systemd.rs"], why: "systemd has one door" },
    Wall { word: "prometheus::", only_in: &["metrics.rs", "metrics/"], why: "metrics are made in one place" },
    Wall { word: "SystemTime::now", only_in: &["clock.rs"], why: "one reader of time" },
    Wall { word: "Instant::now", only_in: &["clock.rs"], why: "one reader of time" },
];

/// What the core must not know of the standard library: IO, what runs concurrently, and the time. It is a crate of its own, so
/// that it cannot know anything else that does such things.
const NOT_IN_CORE: &[&str] =
    &["std::fs", "std::net::Tcp", "std::thread", "std::env", "std::process", "Instant", "SystemTime"];

/// Beyond this a file is a drawer. The largest ones read as one thing from top to bottom.
const LINES_MAX: usize = 720;

fn sources() -> Vec<(String, String)> {
    let found = sources_in("src");
    assert!(found.len() > 30, "the sources were not found");
    found
}

fn sources_in(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                found.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

/// The lines that are code, numbered from one: comments may mention anything.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(i, l)| (i + 1, l)).filter(|(_, l)| !l.trim_start().starts_with("//"))
}

#[test]
fn every_part_knows_only_whom_it_may() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        for (number, line) in code(&text) {
            for wall in WALLS {
                if line.contains(wall.word) && !wall.only_in.iter().any(|place| name.starts_with(place)) {
                    wrong.push(format!("src/{name}:{number}: `{}`: {}", wall.word, wall.why));
                }
            }
            if name.starts_with("core/") {
                for word in NOT_IN_CORE.iter().filter(|w| line.contains(**w)) {
                    wrong.push(format!("src/{name}:{number}: `{word}`: the core is pure"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for_and_is_no_drawer() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        if !text.starts_with("//!") {
            wrong.push(format!("src/{name}: opens without saying what it is for"));
        }
        let lines = text.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("src/{name}: {lines} lines, more than {LINES_MAX}"));
        }
        for (number, line) in text.lines().enumerate() {
            if ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!("].iter().any(|w| line.contains(w)) {
                wrong.push(format!("src/{name}:{}: something is left to do", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_diagram_in_the_architecture_is_the_table_in_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once("```mermaid\n").expect("ARCHITECTURE.md has no diagram");
    let (drawn, after) = rest.split_once("```").unwrap();
    let table = backstop::core::state::diagram();
    if drawn != table && std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, format!("{before}```mermaid\n{table}```{after}")).unwrap();
        return;
    }
    assert_eq!(drawn, table, "run UPDATE_EXPECT=1 cargo test --test it tidy to draw it again");
}

/// A row that nobody ever saw act on a real engine may never do so.
#[test]
fn every_row_that_is_shipped_is_seen_to_act_on_a_real_engine() {
    let mut text: String = sources_in("tests/engine").into_iter().map(|(_, text)| text).collect();
    text.retain(|c| !c.is_whitespace());
    let due_to = ["Rollback", "Evaluate", "Shown", "was_due_to"];
    for Rule { name, .. } in Rule::matrix() {
        let seen = due_to.iter().any(|call| text.contains(&format!("{call}(\"{name}\",")));
        assert!(seen, "no test in tests/engine has an outcome that is due to the row `{name}`");
    }
}
