//! `backstop demo`, as somebody runs it who has the binary and an engine: start to finish, and nothing is left.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::support::{Bed, Image, eventually, handed_over, seconds};

/// One after the other: each takes the ports of this host that it finds free.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn demo(bed: &Bed, words: &[&str]) -> Command {
    let mut command = Command::new(handed_over("BACKSTOP_BIN"));
    command
        .arg("demo")
        .args(words)
        .env("DOCKER_HOST", format!("unix://{}", bed.socket()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs it to its end; gives what it printed.
fn runs(bed: &Bed, words: &[&str]) -> (bool, String) {
    let output = demo(bed, words).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// Everything that the engine has: containers, then images with their tags.
fn inventory(bed: &Bed) -> String {
    let containers = bed.docker(&["ps", "-aq", "--no-trunc"]);
    let images = bed.docker(&["images", "-a", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"]);
    format!("{containers}\n{images}")
}

/// Reads what a running demo prints, up to the line that contains `text`.
fn until(child: &mut Child, text: &str) -> String {
    let mut seen = String::new();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap());
    while !seen.lines().last().is_some_and(|line| line.contains(text)) {
        assert!(lines.read_line(&mut seen).unwrap() > 0, "it ended before `{text}`:\n{seen}");
    }
    seen
}

fn send(child: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn demo_shows_a_rollback_and_takes_everything_away_and_can_be_run_again() {
    let _alone = alone();
    let bed = Bed::lease();
    // A neighbour that another Backstop would watch: the demo's own one leaves it alone.
    bed.image("neighbour:v1", &Image::demo("v1").env("DEMO_BAD", "1"));
    let watched = ["--label", "backstop.enable=true", "--label", "backstop.mode=act"];
    bed.deploy("neighbour", "neighbour:v1", &watched);
    let before = inventory(&bed);
    for _ in 0..2 {
        let (ok, text) = runs(&bed, &["--exit"]);
        assert!(ok, "{text}");
        for told in ["users    get v1", "500 Internal Server Error", "decides  roll back to backstop-demo:v1"]
        {
            assert!(text.contains(told), "`{told}` is missing:\n{text}");
        }
        let (_, end) = text.split_once("Rolled back, and proved.").expect(&text);
        assert!(end.contains("s  from the first failed sample until the good version answered"), "{text}");
        assert!(end.contains("explain backstop-demo-shop --endpoint http://127.0.0.1:"), "{text}");
        // On a busy machine it may be suspected meanwhile, and then be on trial again.
        let states: Vec<&str> =
            text.lines().filter_map(|line| Some(line.split_once("s  sees ")?.1)).collect();
        assert!(states.iter().any(|state| state.ends_with("is on trial")), "{text}");
        let told_twice = states.windows(2).any(|two| two[0] == two[1]);
        assert!(!told_twice && !text.contains("for another"), "a countdown is no news:\n{text}");
        assert_eq!(inventory(&bed), before, "{text}");
    }
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn demo_that_is_interrupted_takes_everything_away() {
    let _alone = alone();
    let bed = Bed::lease();
    let before = inventory(&bed);
    for (line, signal) in [("Making two images", "-INT"), ("users    get v1", "-HUP"), ("decides", "-TERM")] {
        let mut child = demo(&bed, &[]).spawn().unwrap();
        let mut seen = until(&mut child, line);
        send(&child, signal);
        child.stdout.take().unwrap().read_to_string(&mut seen).unwrap();
        let ended = child.wait().unwrap();
        assert_eq!(ended.code(), Some(1), "{signal} at `{line}`:\n{seen}");
        assert_eq!(inventory(&bed), before, "{signal} at `{line}`:\n{seen}");
    }
    // At its end, Ctrl-C is how it is meant to be left.
    let mut child = demo(&bed, &[]).spawn().unwrap();
    until(&mut child, "Ctrl-C");
    send(&child, "-INT");
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(inventory(&bed), before);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn demo_touches_nothing_of_others_and_tidies_up_after_a_killed_one() {
    let _alone = alone();
    let bed = Bed::lease();
    bed.image("web:v1", &Image::demo("v1"));
    bed.deploy("backstop-demo-shop", "web:v1", &[]);
    let before = inventory(&bed);
    let (ok, text) = runs(&bed, &["--exit"]);
    assert!(!ok && text.contains("a container called backstop-demo-shop exists"), "{text}");
    assert_eq!(inventory(&bed), before);
    bed.docker(&["rm", "-f", "backstop-demo-shop"]);

    let before = inventory(&bed);
    let mut killed = demo(&bed, &[]).spawn().unwrap();
    until(&mut killed, "decides");
    let (ok, text) = runs(&bed, &["--exit"]);
    assert!(!ok && text.contains("another demo runs"), "{text}");
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_ne!(inventory(&bed), before, "a killed one leaves something");
    let (ok, text) = runs(&bed, &["--exit"]);
    assert!(ok, "{text}");
    eventually(seconds(60), "nothing is left", || {
        let now = inventory(&bed);
        if now == before { Ok(()) } else { Err(now) }
    });
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn demo_without_an_engine_says_what_to_install() {
    let mut command = Command::new(handed_over("BACKSTOP_BIN"));
    let output = command.args(["demo", "--engine", "unix:///nowhere/docker.sock"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("/nowhere/docker.sock") && said.contains("apt-get install docker.io"), "{said}");
}
