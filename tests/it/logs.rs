//! Logs as a source: lines of real servers and loggers, and a probe that follows a log through everything that breaks.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use backstop::clock::Clock;
use backstop::core::release::ReplicaId;
use backstop::core::sample::{Measurement, Requests, Signal};
use backstop::core::settings::{AccessLog, LatencyUnit, LogSource};
use backstop::signal::Probe;
use backstop::signal::logs::access::request_of;
use backstop::signal::logs::frames::Decoder;
use backstop::signal::logs::{
    EngineTime, Following, LINE_MAX, LogLine, LogProbe, LogStreams, Unfollowed, examine,
};
use futures_util::StreamExt;
use futures_util::stream::unfold;
use proptest::prelude::*;
use tokio::sync::mpsc;

/// What is found in the fixtures, line by line.
#[test]
fn requests_are_found_in_what_servers_and_loggers_write() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/logs");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut found = String::new();
    for file in files {
        writeln!(found, "{}", file.file_name().unwrap().to_string_lossy()).unwrap();
        for line in std::fs::read_to_string(&file).unwrap().lines() {
            match request_of(line, AccessLog::Auto, LatencyUnit::Auto) {
                Some(request) => {
                    let took = request.seconds.map_or("-".into(), |s| format!("{:.6}", s));
                    writeln!(found, "  {} {took:>9} {}", request.status, request.route()).unwrap();
                }
                None => writeln!(found, "  none: {}", line.chars().take(60).collect::<String>()).unwrap(),
            }
        }
    }
    insta::assert_snapshot!(found);
}

#[test]
fn only_the_wanted_format_counts() {
    let common = r#"10.0.0.1 - - [x] "GET / HTTP/1.1" 200 5"#;
    let json = r#"{"status":200,"path":"/"}"#;
    let logfmt = "status=200 path=/";
    for (line, format) in [(common, AccessLog::Common), (json, AccessLog::Json), (logfmt, AccessLog::Logfmt)]
    {
        for wanted in [AccessLog::Common, AccessLog::Json, AccessLog::Logfmt] {
            assert_eq!(
                request_of(line, wanted, LatencyUnit::Auto).is_some(),
                wanted == format,
                "{line} as {wanted:?}"
            );
        }
        assert!(request_of(line, AccessLog::Auto, LatencyUnit::Auto).is_some());
        assert!(request_of(line, AccessLog::Off, LatencyUnit::Auto).is_none());
    }
}

/// A unit that is guessed wrong is wrong by a thousand times, and by another factor in the next release.
#[test]
fn the_unit_of_a_latency_is_told_or_known_but_not_guessed() {
    let table = [
        (r#""duration":12"#, LatencyUnit::Auto, Some(0.012)),
        (r#""duration":12.5"#, LatencyUnit::Auto, None),
        (r#""duration":12.5"#, LatencyUnit::Millis, Some(0.0125)),
        (r#""duration":12"#, LatencyUnit::Seconds, Some(12.0)),
        (r#""took":12"#, LatencyUnit::Micros, Some(0.000_012)),
        // What is written in the line is never overruled.
        (r#""duration_ms":12"#, LatencyUnit::Nanos, Some(0.012)),
        (r#""duration":"12ms""#, LatencyUnit::Nanos, Some(0.012)),
        // zap writes a number for the time.
        (r#""ts":1767366245.1,"msg":"x","duration":0.5"#, LatencyUnit::Auto, Some(0.5)),
        (r#""ts":1767366245.1,"msg":"x","duration":2"#, LatencyUnit::Auto, Some(2.0)),
    ];
    for (took, unit, seconds) in table {
        let line = format!(r#"{{"status":200,"path":"/",{took}}}"#);
        assert_eq!(request_of(&line, AccessLog::Json, unit).unwrap().seconds, seconds, "{took} in {unit:?}");
    }
}

#[test]
fn routes_are_the_same_for_different_ids() {
    let table = [
        ("/users/42/orders/3f2504e0-4f89-11d3-9a0c-0305e82c3301", "GET /users/*/orders/*"),
        ("/files/5d41402abc4b2a76b9719d911017c592?x=/y", "GET /files/*"),
        ("/deadbeef/cafe/facade", "GET /deadbeef/cafe/facade"),
        ("/mail/a@b.example#x", "GET /mail/*"),
        ("https://shop.example:8443/a/1", "GET /a/*"),
        ("https://shop.example", "GET /"),
        ("//", "GET /"),
        ("*", "GET /*"),
        ("/v1/a/b/c/d/e/f/g/h/i", "GET /v1/a/b/c/d/e/f/g/..."),
    ];
    for (path, route) in table {
        let line = format!(r#"{{"status":200,"method":"get","path":"{path}"}}"#);
        assert_eq!(request_of(&line, AccessLog::Json, LatencyUnit::Auto).unwrap().route(), route);
    }
}

// ---- from the engine's bytes to lines

fn frame(stream: u8, text: &str) -> Vec<u8> {
    let mut frame = vec![stream, 0, 0, 0];
    frame.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
    frame.extend(text.as_bytes());
    frame
}

fn decoded(tty: bool, chunks: &[&[u8]]) -> Vec<Result<LogLine, String>> {
    let mut decoder = Decoder::new(tty);
    let mut lines = VecDeque::new();
    for chunk in chunks {
        decoder.feed(chunk, &mut lines);
    }
    decoder.finish(&mut lines);
    lines.into()
}

const STAMP: &str = "2026-01-02T15:04:05.123456789Z ";
const AT: EngineTime = EngineTime::from_nanos(1_767_366_245_123_456_789);

fn line(text: &str) -> Result<LogLine, String> {
    Ok(LogLine { at: Some(AT), text: text.into(), cut: false })
}

#[test]
fn frames_become_lines() {
    let bytes = [
        frame(1, &format!("{STAMP}one\n")),
        frame(2, &format!("{STAMP}2026-01-01 two\n")),
        // A long line comes in several messages, and another stream may come between them.
        frame(1, &format!("{STAMP}th")),
        frame(2, &format!("{STAMP}\n")),
        frame(1, &format!("{STAMP}ree\n")),
        frame(1, "no time of the engine\n"),
        frame(1, ""),
        frame(3, "Error grabbing logs: bad file\n"),
        frame(1, &format!("{STAMP}without an end")),
    ]
    .concat();
    let untimed = Ok(LogLine { at: None, text: "no time of the engine".into(), cut: false });
    let broken = Err("Error grabbing logs: bad file".into());
    let lines = [
        line("one"),
        line("2026-01-01 two"),
        line(""),
        line("three"),
        untimed,
        broken,
        line("without an end"),
    ];
    assert_eq!(decoded(false, &[&bytes]), lines);
}

#[test]
fn with_a_terminal_there_are_no_frames() {
    let text = format!("{STAMP}one\r\n{STAMP}two\r\n{STAMP}three");
    assert_eq!(decoded(true, &[text.as_bytes()]), [line("one"), line("two"), line("three")]);
}

#[test]
fn a_huge_line_costs_what_a_long_one_costs_and_is_one() {
    let chunk = format!("{STAMP}{}", "x".repeat(LINE_MAX));
    let mut bytes = frame(1, &chunk).repeat(64);
    bytes.extend(frame(1, &format!("{STAMP}end\n{STAMP}next\n")));
    let lines = decoded(false, &[&bytes]);
    let long = LogLine { at: Some(AT), text: "x".repeat(LINE_MAX), cut: true };
    assert_eq!(lines, [Ok(long), line("next")]);
}

#[test]
fn what_is_no_log_is_not_read() {
    for bytes in
        [&b"HTTP/1.1 200 OK\r\n\r\n<html>"[..], &[9, 0, 0, 0, 0, 0, 0, 1, 7], &[1, 1, 0, 0, 0, 0, 0, 1, 7]]
    {
        let lines = decoded(false, &[bytes, &frame(1, "ERROR\n")]);
        assert!(matches!(&lines[..], [Err(why)] if why.contains("no log")), "{lines:?}");
    }
}

proptest! {
    #[test]
    fn however_the_bytes_are_cut_the_lines_are_the_same(
        texts in prop::collection::vec(("[a-z \u{e4}\r]{0,30}", 1u8..3, any::<bool>(), any::<bool>()), 0..20),
        cuts in prop::collection::vec(0usize..2000, 0..40),
        tty in any::<bool>(),
    ) {
        let bytes: Vec<u8> = texts.iter().flat_map(|(text, stream, ends, stamped)| {
            let text = format!("{}{text}{}", if *stamped { STAMP } else { "" }, if *ends { "\n" } else { "" });
            if tty { text.into_bytes() } else { frame(*stream, &text) }
        }).collect();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.sort_unstable();
        let mut chunks = Vec::new();
        let mut rest = &bytes[..];
        let mut done = 0;
        for cut in cuts {
            let (chunk, later) = rest.split_at(cut - done);
            (rest, done) = (later, cut);
            chunks.push(chunk);
        }
        chunks.push(rest);
        prop_assert_eq!(decoded(tty, &chunks), decoded(tty, &[&bytes]));
    }

    #[test]
    fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..4000), tty in any::<bool>()) {
        for line in decoded(tty, &[&bytes]).into_iter().flatten() {
            prop_assert!(line.text.len() <= 3 * LINE_MAX);
        }
        examine(&bytes);
    }

    #[test]
    fn no_line_is_too_strange(line in "(\\{|at=1 |1 - - \\[x\\] )?[\"{}\\[\\]\\\\:=, a-zHTP/.0-9\u{1b}\u{e4}]{0,200}") {
        let found = examine(line.as_bytes());
        prop_assert_eq!(found.len(), 2);
    }
}

// ---- the probe

/// A log that a test writes. Each connection is one that the test opens, or refuses.
#[derive(Debug)]
struct Script {
    connections: Mutex<mpsc::Receiver<Result<Connection, Unfollowed>>>,
    asked: Mutex<Vec<Option<EngineTime>>>,
}

type Connection = mpsc::Receiver<Result<LogLine, String>>;

#[async_trait]
impl LogStreams for Script {
    async fn follow(&self, _: &ReplicaId, since: Option<EngineTime>) -> Result<Following, Unfollowed> {
        self.asked.lock().unwrap().push(since);
        let next = std::future::poll_fn(|cx| self.connections.lock().unwrap().poll_recv(cx)).await;
        let lines = next.unwrap_or_else(|| Err(Unfollowed::NotNow("the test is over".into())))?;
        let lines = unfold(lines, async |mut lines| Some((lines.recv().await?, lines))).boxed();
        Ok(Following { opened: Some(EngineTime::from_nanos(1)), lines })
    }
}

struct Rig {
    probe: LogProbe,
    script: Arc<Script>,
    connect: mpsc::Sender<Result<Connection, Unfollowed>>,
}

impl Rig {
    fn new(source: &LogSource) -> Self {
        let (connect, connections) = mpsc::channel(8);
        let script = Arc::new(Script { connections: Mutex::new(connections), asked: Mutex::default() });
        let streams = Arc::clone(&script) as Arc<dyn LogStreams>;
        let probe = LogProbe::new(streams, ReplicaId::new("r"), source, Clock::start());
        Self { probe, script, connect }
    }

    async fn open(&self) -> mpsc::Sender<Result<LogLine, String>> {
        let (write, lines) = mpsc::channel(1024);
        self.connect.send(Ok(lines)).await.unwrap();
        write
    }

    /// The error lines of the next measurement, and its window in seconds.
    async fn errors(&self) -> Option<(u64, u64, String)> {
        match self.probe.measure().await.into_iter().next() {
            Some((Signal::Logs, Measurement::Count { count, window, last })) => {
                Some((count, window.as_secs(), last))
            }
            None => None,
            other => panic!("{other:?}"),
        }
    }

    /// Why there is no measurement.
    async fn unavailable(&self) -> String {
        match self.probe.measure().await.into_iter().next() {
            Some((Signal::Logs, Measurement::Unavailable { why })) => why,
            other => panic!("{other:?}"),
        }
    }

    async fn requests(&self) -> Measurement {
        let mut all = self.probe.measure().await;
        let (signal, requests) = all.pop().unwrap();
        assert_eq!((all.len(), signal), (1, Signal::Requests));
        requests
    }
}

fn with_access(access: AccessLog) -> LogSource {
    LogSource { access, ..LogSource::default() }
}

fn at(nanos: u64, text: &str) -> Result<LogLine, String> {
    Ok(LogLine { at: Some(EngineTime::from_nanos(nanos)), text: text.into(), cut: false })
}

async fn seconds(n: u64) {
    tokio::time::sleep(Duration::from_secs(n)).await;
}

#[tokio::test(start_paused = true)]
async fn error_lines_are_counted_over_the_time_in_which_they_came() {
    let rig = Rig::new(&LogSource::default());
    let log = rig.open().await;
    assert_eq!(rig.errors().await, None, "a rate over no time is none");
    seconds(10).await;
    assert_eq!(rig.errors().await, Some((0, 10, String::new())), "no line is a real zero");
    for (n, text) in
        (5..).zip(["INFO fine", "ERROR one", "ERROR two password=x", "{\"level\":\"error\"}", "WARN"])
    {
        log.send(at(n, text)).await.unwrap();
    }
    seconds(7).await;
    assert_eq!(rig.errors().await, Some((3, 7, "{\"level\":\"error\"}".into())));
    log.send(at(20, "ERROR two password=x")).await.unwrap();
    seconds(5).await;
    assert_eq!(rig.errors().await, Some((1, 5, "ERROR two password=***".into())));
}

#[tokio::test(start_paused = true)]
async fn requests_are_counted_with_their_latencies_and_routes() {
    let rig = Rig::new(&with_access(AccessLog::Auto));
    let log = rig.open().await;
    seconds(10).await;
    let Measurement::NotApplicable { why } = rig.requests().await else { panic!() };
    assert_eq!(why, "no line of its log was a request yet");
    for n in 0..20 {
        let status = if n % 10 == 0 { 500 } else { 200 };
        let line =
            format!("1.1.1.1 - - [x] \"GET /users/{n} HTTP/1.1\" {status} 5 \"-\" \"ERROR\" 0.0{n:02}");
        log.send(at(5 + n, &line)).await.unwrap();
        log.send(at(5 + n, "something else")).await.unwrap();
    }
    seconds(10).await;
    let all = rig.probe.measure().await;
    assert!(
        matches!(&all[0].1, Measurement::Count { count: 0, .. }),
        "an agent called ERROR is none: {all:?}"
    );
    let Measurement::Requests(Requests { window, total, errors, latency, parts, .. }) = &all[1].1 else {
        panic!()
    };
    assert_eq!((window.as_secs(), *total, *errors), (10, 20, 2));
    assert_eq!(latency.counts.last(), Some(&20));
    let ten_millis = latency.bounds.iter().position(|b| *b > 0.0085).unwrap();
    assert_eq!(latency.counts[ten_millis], 9, "0 to 8 ms");
    assert_eq!((parts.len(), parts[0].route.as_str(), parts[0].total), (1, "GET /users/*", 20));
    seconds(10).await;
    let Measurement::Requests(requests) = rig.requests().await else { panic!() };
    assert_eq!((requests.total, requests.parts.len()), (0, 0), "once there were some, none is a real zero");
}

#[tokio::test(start_paused = true)]
async fn the_format_is_found_out_and_found_out_again() {
    let rig = Rig::new(&with_access(AccessLog::Auto));
    let log = rig.open().await;
    let json = r#"{"status":200,"path":"/"}"#;
    let common = r#"1.1.1.1 - - [x] "GET / HTTP/1.1" 200 5"#;
    let mut counted = Vec::new();
    // At first both are written for each request; then a new configuration writes the other one only.
    for (n, lines) in [[json, common], [json, common], [common, common], [common, common], [common, common]]
        .into_iter()
        .enumerate()
    {
        for line in lines {
            log.send(at(n as u64 + 5, line)).await.unwrap();
        }
        seconds(10).await;
        let Measurement::Requests(requests) = rig.requests().await else { panic!() };
        counted.push(requests.total);
    }
    assert_eq!(counted, [1, 1, 0, 0, 2]);

    let wrong = Rig::new(&with_access(AccessLog::Logfmt));
    let log = wrong.open().await;
    log.send(at(5, json)).await.unwrap();
    seconds(10).await;
    let Measurement::NotApplicable { why } = wrong.requests().await else { panic!() };
    assert!(why.contains("some are in `json`: change `access`"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_loses_no_line_and_counts_none_twice() {
    let rig = Rig::new(&LogSource::default());
    let log = rig.open().await;
    for line in [at(70, "ERROR 1"), at(80, "ERROR 2"), at(80, "ERROR 3"), at(79, "ERROR late")] {
        log.send(line).await.unwrap();
    }
    log.send(Err("connection reset".into())).await.unwrap();
    seconds(4).await;
    // Until the connection broke, all was known.
    assert!(rig.unavailable().await.contains("connection reset"));
    // Now the engine hands out again what it has of that moment, and what came meanwhile.
    let log = rig.open().await;
    for line in [at(80, "ERROR 2"), at(80, "ERROR 3"), at(80, "ERROR 4"), at(90, "ERROR 5")] {
        log.send(line).await.unwrap();
    }
    seconds(6).await;
    let (count, window, last) = rig.errors().await.unwrap();
    assert_eq!((count, last.as_str()), (6, "ERROR 5"));
    assert_eq!(window, 10, "the gap belongs to it");
    assert_eq!(*rig.script.asked.lock().unwrap(), [None, Some(EngineTime::from_nanos(80))]);
}

#[tokio::test(start_paused = true)]
async fn before_the_first_line_it_goes_on_from_where_it_began() {
    let rig = Rig::new(&LogSource::default());
    drop(rig.open().await);
    let log = rig.open().await;
    log.send(at(5, "ERROR")).await.unwrap();
    seconds(3).await;
    assert_eq!(rig.errors().await.unwrap().0, 1);
    assert_eq!(*rig.script.asked.lock().unwrap(), [None, Some(EngineTime::from_nanos(1))]);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_put_back_makes_nothing_count_twice() {
    let rig = Rig::new(&LogSource::default());
    let log = rig.open().await;
    let hour = 3_600_000_000_000;
    log.send(at(2 * hour, "ERROR 1")).await.unwrap();
    log.send(at(hour, "ERROR 2")).await.unwrap();
    drop(log);
    seconds(2).await;
    let log = rig.open().await;
    log.send(at(hour + 5, "ERROR 3")).await.unwrap();
    seconds(5).await;
    assert_eq!(rig.errors().await.unwrap().0, 1, "what was before the gap is gone with the gap");
    assert_eq!(*rig.script.asked.lock().unwrap(), [None, None]);
}

#[tokio::test(start_paused = true)]
async fn not_being_connected_is_neither_good_nor_bad() {
    let rig = Rig::new(&with_access(AccessLog::Auto));
    assert!(rig.unavailable().await.contains("not followed yet"));
    rig.connect.send(Err(Unfollowed::NotNow("the engine is away".into()))).await.unwrap();
    seconds(1).await;
    assert_eq!(rig.probe.measure().await.len(), 2, "for requests too");
    assert_eq!(rig.unavailable().await, "the engine is away");
    let log = rig.open().await;
    seconds(20).await;
    drop(log);
    seconds(20).await;
    let (count, window, _) = rig.errors().await.unwrap();
    assert_eq!((count, window), (0, 20), "what was known before the connection broke is told");
    assert!(rig.unavailable().await.contains("its log ended"));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_cannot_be_read_does_not_apply_and_is_not_asked_for_again() {
    let rig = Rig::new(&LogSource::default());
    rig.connect.send(Err(Unfollowed::Never("no driver".into()))).await.unwrap();
    for _ in 0..3 {
        seconds(600).await;
        let all = rig.probe.measure().await;
        assert_eq!(all, [(Signal::Logs, Measurement::NotApplicable { why: "no driver".into() })]);
    }
    assert_eq!(rig.script.asked.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_away_is_asked_less_and_less_often() {
    let rig = Rig::new(&LogSource::default());
    let Rig { probe, script, connect } = rig;
    drop(connect);
    seconds(3600).await;
    let asked = script.asked.lock().unwrap().len();
    assert!((190..340).contains(&asked), "{asked} times in an hour");
    drop(probe);
    seconds(3600).await;
    assert_eq!(script.asked.lock().unwrap().len(), asked, "nobody asks after the probe is gone");
}

#[tokio::test(start_paused = true)]
async fn a_pattern_of_no_use_says_so() {
    let rig = Rig::new(&LogSource { error: "(".into(), ..LogSource::default() });
    assert!(rig.unavailable().await.contains("unclosed group"));
}
