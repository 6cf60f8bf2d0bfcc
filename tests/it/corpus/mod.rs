//! A corpus of labelled traces, and how well the core judges them.
//!
//! Each family (`families.rs`) is a way in which a deployment can go, or seem to go: healthy ones full of traps,
//! marginal ones, bad ones, and trouble that no deployment brought. A trace is drawn from a seed; the truth about it
//! comes from the numbers it was drawn with, never from the core. Development looks at seeds 1 to 5; the figures in
//! the README are of seeds 129 to 134.
//!
//! The quick form, one short trace of each family, runs with every test. `tests/bench/corpus` runs the full form.

mod rng;
mod stats;
mod model;
mod plan;
mod healthy;
mod marginal;
mod bad;
mod environment;
mod families;
mod score;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;

use backstop::core::settings::{FleetSettings, ServiceSettings};
use backstop::replay;

use crate::side_by_side::side_by_side;

use families::{FAMILIES, Family, Trace};
use score::{Decision, Score};

/// The seed of the quick form.
const SEED: u64 = 1;

/// What the core decides about a trace, with the settings as they are shipped.
fn judge(name: &str, text: &str) -> Vec<Decision> {
    let trace = replay::Trace::parse(text).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
    replay::run_trace(&trace, &|_| ServiceSettings::default(), FleetSettings::default())
        .into_iter()
        .map(|line| Decision {
            t: line.t,
            service: line.service,
            decision: line.decision.into(),
            signal: line.signal,
            reason: line.reason,
        })
        .collect()
}

/// Every trace of these seeds, as what it takes to make it.
fn all(seeds: impl Iterator<Item = u64>, small: bool) -> Vec<(&'static Family, u64, usize)> {
    let of_seed = |seed: u64| {
        FAMILIES.iter().flat_map(move |family| {
            let each = if small { 1 } else { family.traces };
            (0..each).map(move |n| (family, seed, seed as usize * each + n))
        })
    };
    seeds.flat_map(of_seed).collect()
}

/// Makes traces, has them judged, and compares.
fn scores(traces: &[(&'static Family, u64, usize)], small: bool) -> BTreeMap<&'static str, Score> {
    let scored = side_by_side(traces, |(family, seed, turn)| {
        let trace = families::make(family, *seed, *turn, small);
        let decisions = judge(&trace.name, &trace.text);
        let mut score = Score::default();
        score.add(&trace.name, &trace.truth, &decisions.iter().collect::<Vec<_>>());
        (trace.family, trace.name, score)
    });
    let by_name: BTreeMap<String, (&'static str, Score)> =
        scored.into_iter().map(|(family, name, score)| (name, (family, score))).collect();
    let mut of_families = BTreeMap::<&'static str, Score>::new();
    for (family, score) in by_name.into_values() {
        of_families.entry(family).or_default().join(score);
    }
    of_families
}

#[test]
fn no_false_rollback_and_none_missed() {
    let scores = scores(&all(std::iter::once(SEED), true), true);
    let wrong: Vec<&String> = scores.values().flat_map(|score| &score.remarks).collect();
    let sum = |of: fn(&Score) -> usize| scores.values().map(of).sum::<usize>();
    assert!(sum(|s| s.traces) >= 60, "families are missing");
    assert_eq!(sum(|s| s.wrong), 0, "false rollbacks: {wrong:#?}");
    assert_eq!(sum(|s| s.found), sum(|s| s.must), "bad releases not rolled back in time: {wrong:#?}");
    assert_eq!(sum(Score::unanswered), 0, "a person should have been asked: {wrong:#?}");
}

/// One short trace of a family.
fn example(name: &str) -> Trace {
    let family = FAMILIES.iter().find(|family| family.name == name).unwrap();
    families::make(family, SEED, SEED as usize, true)
}

fn told(decisions: &[Decision]) -> Vec<(f64, String, String)> {
    let mut told: Vec<_> = decisions
        .iter()
        .map(|d| (d.t, d.service.clone(), format!("{} by {:?}", d.decision, d.signal)))
        .collect();
    told.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| (&a.1, &a.2).cmp(&(&b.1, &b.2))));
    told
}

#[test]
fn the_order_of_services_and_their_names_change_nothing() {
    for name in ["b_two_at_once", "b_drags_others", "e_common_cause", "e_upstream", "e_neighbour"] {
        let trace = example(name);
        let as_it_is = told(&judge(name, &trace.text));
        // The first by the alphabet becomes the last, and so on; lines of one moment stand the other way round.
        let mut names: Vec<&str> = plan::NAMES.to_vec();
        names.sort_unstable();
        let renamed = |text: &str| {
            names.iter().enumerate().fold(text.to_owned(), |text, (i, name)| {
                text.replace(&format!("\"{name}\""), &format!("\"s{:02}-{name}\"", names.len() - i))
            })
        };
        let mut lines: Vec<&str> = trace.text.lines().collect();
        let time = |line: &str| line.split(',').next().map(str::to_owned);
        lines.chunk_by_mut(|a, b| time(a) == time(b)).for_each(<[&str]>::reverse);
        let mut other_way = judge(name, &renamed(&lines.join("\n")));
        for decision in &mut other_way {
            decision.service = decision.service.split_off("s00-".len());
        }
        assert_eq!(as_it_is, told(&other_way), "{name}");
        assert!(!as_it_is.is_empty(), "{name} shows nothing");
    }
}

#[test]
fn what_is_not_known_never_rolls_back() {
    for name in ["b_outage", "b_latency_4", "b_never_ready", "b_twice", "e_database"] {
        let trace = example(name);
        // Only that things were deployed, and that nobody asked them for anything.
        let nothing: String = trace.text.lines().filter(|line| line.contains("\"deploy\"")).fold(
            String::new(),
            |mut text, line| {
                let start = line.split(r#""kind""#).next().unwrap();
                let _ = writeln!(
                    text,
                    "{line}\n{start}\"kind\":\"requests\",\"window_s\":5,\"total\":0,\"errors\":0}}"
                );
                text
            },
        );
        let rollbacks: Vec<Decision> =
            judge(name, &nothing).into_iter().filter(|d| d.decision == "rollback").collect();
        assert!(rollbacks.is_empty(), "{name}: {rollbacks:?}");
    }
}

/// The seeds that `BACKSTOP_CORPUS_SEEDS` names ("101-110").
fn seeds() -> std::ops::RangeInclusive<u64> {
    let text = std::env::var_os("BACKSTOP_CORPUS_SEEDS").unwrap_or_else(|| OsString::from("101-110"));
    let text = text.to_string_lossy();
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    first.parse().unwrap()..=last.parse().unwrap()
}

/// What `BACKSTOP_CORPUS_FAMILIES` names ("b_leak e_database"); all of them, if it is not set.
fn chosen(traces: Vec<(&'static Family, u64, usize)>) -> Vec<(&'static Family, u64, usize)> {
    let Some(names) = std::env::var_os("BACKSTOP_CORPUS_FAMILIES") else { return traces };
    let names = names.to_string_lossy();
    traces.into_iter().filter(|(family, ..)| names.split(' ').any(|name| name == family.name)).collect()
}

/// For `tests/bench/corpus`: the table, and with `BACKSTOP_CORPUS_DETAILS` each family and what went wrong.
#[test]
#[ignore = "takes minutes: tests/bench/corpus runs it"]
#[allow(clippy::print_stdout, reason = "a table for the README is what it is for")]
fn in_full() {
    let scores = scores(&chosen(all(seeds(), false)), false);
    let detailed = std::env::var_os("BACKSTOP_CORPUS_DETAILS").is_some();
    println!("{}", score::table(&scores, detailed));
    if detailed {
        scores.values().flat_map(|score| &score.remarks).for_each(|remark| println!("- {remark}"));
    }
}

/// For `tests/bench/corpus`: the traces and the truth about them as files, in the directory `BACKSTOP_CORPUS`.
#[test]
#[ignore = "writes files: tests/bench/corpus runs it"]
fn write() {
    let Some(folder) = std::env::var_os("BACKSTOP_CORPUS") else { panic!("set BACKSTOP_CORPUS") };
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder).unwrap();
    let small = std::env::var_os("BACKSTOP_CORPUS_SMALL").is_some();
    let mut truth: Vec<String> = side_by_side(&chosen(all(seeds(), small)), |(family, seed, turn)| {
        let trace = families::make(family, *seed, *turn, small);
        std::fs::write(folder.join(format!("{}.jsonl", trace.name)), &trace.text).unwrap();
        trace.truth_as_json()
    });
    truth.sort();
    std::fs::write(folder.join("labels.json"), format!("[\n{}\n]\n", truth.join(",\n"))).unwrap();
}
