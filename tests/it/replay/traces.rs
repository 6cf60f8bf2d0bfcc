//! Plain traces: what they may look like, what is wrong with others, and what comes of them.

use std::process::{Command, Output};

use backstop::core::release::ServiceName;
use backstop::core::settings::{FleetSettings, ServiceSettings};
use backstop::replay::trace::{Event, What};
use backstop::replay::{Line, Trace, run_trace};
use serde_json::{Value, json};

fn lines(trace: &Trace) -> Vec<Line> {
    run_trace(trace, &|_| ServiceSettings::default(), FleetSettings::default())
}

fn text(values: &[Value]) -> String {
    values.iter().map(|v| format!("{v}\n")).collect()
}

/// Half an hour of good health, a deployment, and then what is told of `t` seconds after it.
fn story(from: f64, after: impl Fn(f64) -> Vec<Value>) -> String {
    let mut values = Vec::new();
    for i in 0..360 {
        values.push(json!({"t": from + f64::from(i) * 5.0, "service": "api", "kind": "health", "ok": true, "latency_ms": 12.3}));
    }
    values.push(json!({"t": from + 1800.0, "service": "api", "kind": "deploy", "version": "v2"}));
    for i in 1..240 {
        let t = f64::from(i) * 5.0;
        for mut value in after(t) {
            value["t"] = json!(from + 1800.0 + t);
            value["service"] = json!("api");
            values.push(value);
        }
    }
    text(&values)
}

fn health(ok: bool) -> Vec<Value> {
    vec![json!({"kind": "health", "ok": ok, "latency_ms": 12})]
}

#[test]
fn a_release_that_fails_its_health_checks_is_rolled_back_once() {
    let trace = Trace::parse(&story(0.0, |t| health(t < 300.0))).unwrap();
    let lines = lines(&trace);
    let (first, rest) = lines.split_first().unwrap();
    assert_eq!(
        (first.decision, first.signal.as_str(), first.service.as_str()),
        ("rollback", "health", "api")
    );
    assert!((2100.0..2130.0).contains(&first.t), "{first:?}");
    assert!(first.reason.starts_with("health check failed"), "{first:?}");
    assert!(rest.is_empty(), "{rest:?}");
}

#[test]
fn a_good_release_is_left_alone() {
    assert_eq!(lines(&Trace::parse(&story(0.0, |_| health(true))).unwrap()), []);
}

#[test]
fn it_does_not_matter_when_a_trace_begins() {
    let at = |from: f64| {
        let mut lines = lines(&Trace::parse(&story(from, |t| health(t < 300.0))).unwrap());
        lines.iter_mut().for_each(|line| line.t -= from);
        lines
    };
    let zero = at(0.0);
    assert_eq!(zero.len(), 1);
    assert_eq!(at(-1800.0), zero, "the deployment at zero, what was before it below");
    assert_eq!(at(1_700_000_000.0), zero, "Unix time");
}

#[test]
fn the_order_within_a_moment_does_not_matter() {
    let mut values = Vec::new();
    for i in 0..500 {
        let t = i * 5;
        for (service, ok) in [("db", i < 400), ("api", i < 410), ("web", i < 410), ("ops", true)] {
            if t == 1000 && service == "api" {
                values.push(json!({"t": t, "service": service, "kind": "deploy"}));
            }
            values.push(json!({"t": t, "service": service, "kind": "health", "ok": ok}));
        }
    }
    let said = |values: &[Value]| lines(&Trace::parse(&text(values)).unwrap());
    let forward = said(&values);
    assert!(!forward.is_empty());
    values.sort_by(|a, b| {
        let key = |v: &Value| (v["t"].as_i64(), std::cmp::Reverse(v["service"].as_str().map(str::to_owned)));
        key(a).cmp(&key(b))
    });
    assert_eq!(said(&values), forward);
}

#[test]
fn what_the_old_container_leaves_behind_is_not_the_new_release_s() {
    let exit = |t: f64, at: &[f64], code: i64| {
        let exits = at.contains(&t).then(|| json!({"kind": "exit", "code": code, "oom": false}));
        health(true).into_iter().chain(exits).collect::<Vec<_>>()
    };
    let crash_loop = |at: &'static [f64], code: i64| {
        let lines = lines(&Trace::parse(&story(0.0, move |t| exit(t, at, code))).unwrap());
        lines.iter().map(|line| (line.decision, line.signal.clone())).collect::<Vec<_>>()
    };
    let rolled_back = vec![("rollback", "crash_loop".to_owned())];
    assert_eq!(crash_loop(&[60.0, 70.0, 80.0], 1), rolled_back);
    assert_eq!(crash_loop(&[5.0, 10.0, 15.0], 1), rolled_back, "nothing else ends with 1");
    assert_eq!(crash_loop(&[5.0, 10.0, 15.0], 143), [], "three replicas of the old release were stopped");
    assert_eq!(crash_loop(&[5.0, 10.0, 15.0], 137), [], "and did not want to");
    assert_eq!(crash_loop(&[60.0, 70.0], 1), []);
}

#[test]
fn memory_is_judged_and_nothing_is_judged_by_what_is_missing() {
    let memory = |t: f64| {
        let used = if t > 200.0 { 950 } else { 500 };
        vec![json!({"kind": "memory", "used_bytes": used, "limit_bytes": 1000})]
    };
    let full = lines(&Trace::parse(&story(0.0, memory)).unwrap());
    assert_eq!(full.len(), 1);
    assert_eq!((full[0].decision, full[0].signal.as_str()), ("rollback", "memory"));
    let silent = lines(&Trace::parse(&story(0.0, |_| Vec::new())).unwrap());
    assert_eq!(silent, []);
}

#[test]
fn every_kind_is_read_liberally() {
    let trace = Trace::parse(concat!(
        "\u{feff}{\"t\":0,\"service\":\"api\",\"kind\":\"deploy\",\"version\":2,\"by\":\"ci\"}\r\n",
        "\n",
        "{\"kind\":\"requests\",\"service\":\"api\",\"t\":5.25,\"window_s\":5,\"total\":812.0,\"errors\":3,",
        "\"latency_buckets_ms\":{\"10\":400,\"5\":100,\"+Inf\":812}}\n",
        "{\"t\":6,\"service\":\"api\",\"kind\":\"requests\",\"total\":7,\"errors\":0,\"latency_buckets_ms\":{\"2.5\":6}}\n",
        "{\"t\":6,\"service\":\"api\",\"kind\":\"requests\",\"window_s\":5,\"total\":0,\"errors\":0,\"latency_buckets_ms\":null}\n",
        "{\"t\":6,\"service\":\"api\",\"kind\":\"memory\",\"used_bytes\":5e8,\"limit_bytes\":0}\n",
        "{\"t\":6,\"service\":\"api\",\"kind\":\"exit\",\"oom\":true}\n",
        "{\"t\":6,\"service\":\"api\",\"kind\":\"report\",\"reporter\":\" Alice  B\"}\n",
        "{\"t\":7,\"service\":\"api\",\"kind\":\"dependency\",\"name\":\"db\",\"ok\":false}",
    ))
    .unwrap();
    let what: Vec<&What> = trace.events.iter().map(|e: &Event| &e.what).collect();
    let api = &trace.services[&ServiceName::new("api")];
    assert_eq!((api.deploys.as_slice(), api.requests, api.health), (&[0.0][..], true, false));
    assert!(api.dependencies.contains("db"));
    assert_eq!(*what[0], What::Deploy { version: Some("2".into()) });
    let latency = |i: usize| match what[i] {
        What::Requests(r) => {
            (r.window.as_secs_f64(), r.total, r.latency.bounds.clone(), r.latency.counts.clone())
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(latency(1), (5.0, 812, vec![0.005, 0.010], vec![100, 400, 812]), "by value, not by name");
    assert_eq!(
        latency(2),
        (0.75, 7, vec![0.0025], vec![6, 7]),
        "the time since the line before, and the total"
    );
    assert_eq!(latency(3), (5.0, 0, vec![], vec![]));
    assert_eq!(*what[4], What::Memory { used: 500_000_000, limit: None });
    assert_eq!(*what[5], What::Exit { code: 137, oom: true });
    assert_eq!(*what[6], What::Report { reporter: "alice b".into() }, "as the API writes it");
    assert_eq!(*what[7], What::Dependency { name: "db".into(), ok: false });
}

#[test]
fn a_histogram_with_too_many_bounds_is_thinned_and_keeps_its_ends() {
    let buckets: serde_json::Map<String, Value> =
        (1..=300).map(|i| (format!("{i}"), json!(i))).chain([("+Inf".to_owned(), json!(301))]).collect();
    let line = json!({"t": 1, "service": "api", "kind": "requests", "window_s": 5, "total": 301, "errors": 0, "latency_buckets_ms": buckets});
    let trace = Trace::parse(&line.to_string()).unwrap();
    let What::Requests(requests) = &trace.events[0].what else { panic!() };
    assert_eq!((requests.latency.bounds.len(), requests.latency.counts.len()), (64, 65));
    assert_eq!(
        (requests.latency.bounds[63], requests.latency.counts[63], requests.latency.counts[64]),
        (0.3, 300, 301)
    );
}

#[test]
fn every_mistake_is_named_by_its_line() {
    for (line, said) in [
        (
            "{\"t\":1,\"service\":\"a\",\"kind\":\"boom\"}",
            "the kind \"boom\" is unknown; right would be one of deploy, health,",
        ),
        ("{\"service\":\"a\",\"kind\":\"deploy\"}", "`t` is missing"),
        ("{\"t\":1,\"kind\":\"deploy\"}", "`service` is missing"),
        ("{\"t\":1,\"service\":\"a\"}", "`kind` is missing"),
        ("{\"t\":-1,\"service\":\"a\",\"kind\":\"deploy\"}", "out of order: its `t` is -1, and line 1 has 0"),
        ("{\"t\":1e300,\"service\":\"a\",\"kind\":\"deploy\"}", "not a time in seconds"),
        ("{\"t\":NaN,\"service\":\"a\",\"kind\":\"deploy\"}", "expected value at column 6"),
        (
            "{\"t\":\"1\",\"service\":\"a\",\"kind\":\"deploy\"}",
            "`t`: invalid type: string \"1\", expected f64",
        ),
        ("{\"t\":1,\"service\":\"a\",\"kind\":\"health\"}", "`ok` is missing"),
        (
            "{\"t\":1,\"service\":\"a\",\"kind\":\"health\",\"ok\":true,\"latency_ms\":-5}",
            "`latency_ms` is -5",
        ),
        (
            "{\"t\":1,\"service\":\"a\",\"kind\":\"requests\",\"window_s\":0,\"total\":1,\"errors\":0}",
            "`window_s` is 0; it must be above zero",
        ),
        (
            "{\"t\":1,\"service\":\"a\",\"kind\":\"requests\",\"window_s\":5,\"total\":1,\"errors\":2}",
            "`errors` is 2 of a `total` of 1",
        ),
        (
            "{\"t\":1,\"service\":\"a\",\"kind\":\"requests\",\"window_s\":5,\"total\":-1,\"errors\":0}",
            "`total` is -1; it must be zero or more",
        ),
        (
            "{\"t\":1,\"service\":\"a\",\"kind\":\"requests\",\"window_s\":5,\"total\":9,\"errors\":0,\"latency_buckets_ms\":{\"5\":9,\"10\":8}}",
            "must be cumulative: 8 requests up to 10 ms, and 9 up to 5 ms",
        ),
        (
            "{\"t\":1,\"service\":\"a\",\"kind\":\"requests\",\"window_s\":5,\"total\":9,\"errors\":0,\"latency_buckets_ms\":{\"fast\":9}}",
            "the bound \"fast\" is not a number",
        ),
        ("{\"t\":1,\"service\":\"a\",\"kind\":\"memory\",\"limit_bytes\":5}", "`used_bytes` is missing"),
        ("{\"t\":1,\"service\":\"a\",\"kind\":\"exit\"}", "`code` is missing"),
        ("{\"t\":1,\"service\":\"a\",\"kind\":\"dependency\",\"ok\":true}", "`name` is missing"),
        ("[1,2]", "expected"),
        ("{\"t\":1,\"serv", "EOF while parsing"),
        ("\u{0}\u{1}binary", "expected value"),
    ] {
        let trace = format!("{{\"t\":0,\"service\":\"a\",\"kind\":\"deploy\"}}\n\n{line}\n");
        let wrong = Trace::parse(&trace).unwrap_err().to_string();
        assert!(wrong.starts_with("line 3: ") && wrong.contains(said), "{line}: {wrong}");
    }
    let many = Trace::parse(&"{}\n".repeat(100)).unwrap_err();
    assert_eq!((many.lines.len(), many.more), (20, 80));
    assert!(Trace::read(&b"\xff\xfe\x00binary\n"[..]).unwrap_err().to_string().contains("not UTF-8"));
    let endless = vec![b'x'; 3 << 20];
    assert!(Trace::read(&endless[..]).unwrap_err().to_string().contains("longer than"));
}

fn backstop(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_backstop")).env_clear().env("TZ", "UTC").args(args).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn the_command_prints_one_line_a_decision_and_names_files_if_there_are_several() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let config = write("c.toml", "[defaults.rules.health]\nthreshold = 3\n");
    let bad = write("b_health-01.jsonl", &story(0.0, |t| health(t < 300.0)));
    let good = write("a_good-01.jsonl", &story(0.0, |_| health(true)));
    let one = backstop(&["replay", &bad, "--config", &config, "--json"]);
    assert!(one.status.success(), "{one:?}");
    let line: Value = serde_json::from_str(out(&one).trim()).unwrap();
    let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["t", "service", "decision", "signal", "reason"]);
    assert!(line["t"].is_u64() && line["decision"] == "rollback", "{line}");

    let two = backstop(&["replay", &good, &bad, &bad, "--json", "--jobs", "3"]);
    let said = out(&two);
    let traces: Vec<String> = said
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap()["trace"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(traces, ["b_health-01", "b_health-01"]);

    let broken = write("x.jsonl", "{\"t\":1,\"service\":\"api\",\"kind\":\"boom\"}\n");
    let with_broken = backstop(&["replay", &broken, &bad, "--json"]);
    assert_eq!(with_broken.status.code(), Some(1));
    assert_eq!(out(&with_broken).lines().count(), 1, "the other file is replayed all the same");
    let why = String::from_utf8(with_broken.stderr).unwrap();
    assert!(why.contains("x.jsonl") && why.contains("line 1: the kind \"boom\" is unknown"), "{why}");

    let folder = backstop(&["replay", directory.path().to_str().unwrap()]);
    assert!(out(&folder).contains("a_good-01\nNothing was decided."), "{}", out(&folder));
}

#[test]
fn the_readme_tells_the_format_and_help_tells_of_it() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let section = readme.split("\n## ").find(|section| section.starts_with("Plain traces")).unwrap();
    let example = section.split("```").nth(1).unwrap().strip_prefix("json\n").unwrap();
    assert_eq!(Trace::parse(example).unwrap().events.len(), 2);
    let wrong = Trace::parse(r#"{"t":1,"service":"a","kind":"boom"}"#).unwrap_err().to_string();
    let kinds: Vec<&str> = wrong.split_once("one of ").unwrap().1.split(", ").collect();
    assert_eq!(kinds.len(), 7);
    for kind in kinds {
        assert!(section.contains(&format!("\n| `{kind}` | ")), "{kind}");
    }
    assert!(out(&backstop(&["replay", "--help"])).contains("Plain traces"));
}
