//! Reads a page of 5 MB of which one part in twenty is about requests, as on a page of a real application server: with
//! Backstop, and with a peer that keeps everything. Prints the medians of many runs, side by side, and their ratio.

use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

use backstop::signal::scrape::presets::PRESETS;
use backstop::signal::scrape::text::{Sought, sample, scan};

const SIZE: usize = 5_000_000;
const RUNS: usize = 21;

fn page() -> String {
    let mut page = String::with_capacity(SIZE + 4096);
    let mut n = 0_u64;
    while page.len() < SIZE {
        let (name, many) = if n % 20 == 0 { ("http_request_duration_seconds".to_owned(), 1) } else { (format!("app_stage_{n}_seconds"), 1) };
        _ = writeln!(page, "# HELP {name} How long it took.\n# TYPE {name} histogram");
        for route in 0..many {
            let labels = format!("method=\"GET\",route=\"/items/{n}/{route}\",status=\"200\"");
            for (i, le) in ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"].iter().enumerate() {
                _ = writeln!(page, "{name}_bucket{{{labels},le=\"{le}\"}} {}", n + i as u64);
            }
            _ = writeln!(page, "{name}_sum{{{labels}}} 17560.473\n{name}_count{{{labels}}} {}", n + 11);
        }
        n += 1;
    }
    page
}

fn median(mut run: impl FnMut()) -> Duration {
    let mut took: Vec<_> = (0..RUNS)
        .map(|_| {
            let started = Instant::now();
            run();
            started.elapsed()
        })
        .collect();
    took.sort();
    took[RUNS / 2]
}

fn main() {
    let page = page();
    let samples = page.lines().filter(|l| !l.starts_with('#')).count();
    let sought = Sought::new(PRESETS.iter().flat_map(|p| p.requests.iter().chain(p.errors).chain(p.latency)).copied(), &[]);
    let found = scan(page.as_bytes(), &sought, "").expect("the page is valid");
    assert!(found.metric("http_request_duration_seconds").is_some_and(|m| m.buckets.len() > 50));
    let peer = || prometheus_parse::Scrape::parse(page.lines().map(|l| Ok(l.to_owned()))).expect("the page is valid");
    assert!(peer().samples.len() > 1_000);

    let ours = median(|| _ = black_box(scan(black_box(page.as_bytes()), &sought, "")));
    let every = median(|| assert_eq!(page.lines().filter(|l| black_box(sample(l)).is_some()).count(), samples));
    let theirs = median(|| _ = black_box(peer()));
    let rate = |took: Duration| page.len() as f64 / 1e6 / took.as_secs_f64();
    println!("A page of {:.1} MB with {samples} samples, median of {RUNS} runs:\n", page.len() as f64 / 1e6);
    println!("| | ms | MB/s | against the peer |\n| --- | --- | --- | --- |");
    for (what, took) in [
        ("Backstop, what it needs of the page", ours),
        ("Backstop, every sample", every),
        ("prometheus-parse 0.2, every sample", theirs),
    ] {
        let ms = took.as_secs_f64() * 1e3;
        println!("| {what} | {ms:.1} | {:.0} | {:.1}x |", rate(took), theirs.as_secs_f64() / took.as_secs_f64());
    }
}
