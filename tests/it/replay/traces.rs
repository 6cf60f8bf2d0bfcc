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
fn nobody_is_rolled_back_in_the_moment_in_which_the_next_release_comes() {
    let told = |next: Option<f64>| {
        let fixed = move |t: f64| next.is_some_and(|at| t >= at);
        let after = |t: f64| match next {
            Some(at) if (at - t).abs() < 1.0 => {
                [health(false), vec![json!({"kind": "deploy", "version": "v3"})]].concat()
            }
            _ => health(t < 300.0 || fixed(t)),
        };
        lines(&Trace::parse(&story(0.0, after)).unwrap())
    };
    let decided = told(None)[0].t - 1800.0;
    assert_eq!(told(Some(decided)), [], "v3 is well, and what was measured before it was v2's");
    assert_eq!(told(Some(decided + 5.0))[0].t - 1800.0, decided, "v2 was rolled back before there was a v3");
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
        "{\"t\":6,\"service\":\"api\",\"kind\":\"exit\",\"code\":137.0}\n",
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
    assert_eq!(*what[6], What::Exit { code: 137, oom: false });
    assert_eq!(*what[7], What::Report { reporter: "alice b".into() }, "as the API writes it");
    assert_eq!(*what[8], What::Dependency { name: "db".into(), ok: false });
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
            "`t`: invalid type: string \"1\", expected a number",
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
        (
            "{\"t\":1,\"service\":\"a\",\"kind\":\"exit\",\"code\":137.5}",
            "`code` is 137.5; an exit code is a whole number",
        ),
        ("{\"t\":1,\"service\":\"a\",\"kind\":\"exit\",\"code\":\"1\"}", "`code`: invalid type: string"),
        ("{\"t\":1,\"serv", "EOF while parsing"),
    ] {
        let trace = format!("{{\"t\":0,\"service\":\"a\",\"kind\":\"deploy\"}}\n\n{line}\n");
        let wrong = Trace::parse(&trace).unwrap_err().to_string();
        assert!(wrong.starts_with("line 3: ") && wrong.contains(said), "{line}: {wrong}");
        assert!(!wrong.contains("struct") && !wrong.contains("f64"), "{line}: {wrong}");
    }
    let many = Trace::parse(&"{}\n".repeat(100)).unwrap_err();
    assert_eq!((many.lines.len(), many.more), (20, 80));
    assert!(Trace::read(&b"\xff\xfe\x00binary\n"[..]).unwrap_err().to_string().contains("not UTF-8"));
    let endless = vec![b'x'; 3 << 20];
    assert!(Trace::read(&endless[..]).unwrap_err().to_string().contains("longer than"));
}

/// Serde itself takes an array for an object, by position.
#[test]
fn what_is_no_object_is_refused() {
    let event = "{\"t\":0,\"service\":\"a\",\"kind\":\"deploy\"}";
    for (line, what) in [
        ("[5,\"api\",\"health\",null,true]", "it is a JSON array"),
        ("[1,2]", "it is a JSON array"),
        ("[", "it is no JSON"),
        ("17", "it is only `17`"),
        ("\"t\"", "it is a JSON text"),
        ("\u{0}\u{1}binary", "it is no JSON"),
    ] {
        let wrong = Trace::parse(&format!("{event}\n{line}\n")).unwrap_err().to_string();
        let said = format!("line 2: {what}; each line must be one JSON object, as in {{\"t\":5,\"service\":");
        assert!(wrong.starts_with(&said), "{line}: {wrong}");
    }
    // The first line too, where nothing came before it.
    let first = Trace::parse("[5,\"api\",\"health\",null,true]").unwrap_err().to_string();
    assert!(first.starts_with("line 1: it is a JSON array; "), "{first}");
    for array in [
        format!("[{event},{event}]"),
        format!("\u{feff}[\n  {event},\n  {event}\n]\n"),
        format!("\n[ {event},\n"),
    ] {
        let wrong = Trace::parse(&array).unwrap_err();
        let [(number, said)] = wrong.lines.as_slice() else { panic!("{array}: {wrong}") };
        assert_eq!(*number, if array.starts_with('\n') { 2 } else { 1 });
        assert!(said.starts_with("it begins a JSON array; right would be JSON Lines"), "{said}");
    }
    let long = format!("[{}]", vec![event; 50_000].join(","));
    assert!(Trace::parse(&long).unwrap_err().to_string().contains("it begins a JSON array"));
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
fn files_of_one_name_are_told_apart_by_their_paths() {
    let directory = tempfile::tempdir().unwrap();
    let bad = story(0.0, |t| health(t < 300.0));
    for name in ["a/x.jsonl", "b/x.jsonl", "b/y.jsonl"] {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, &bad).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_backstop"));
    command.env_clear().current_dir(directory.path());
    let output = command.args(["replay", "--json", "a/x.jsonl", "b/x.jsonl", "b/y.jsonl"]).output().unwrap();
    let told: Vec<Value> =
        out(&output).lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["trace"].clone()).collect();
    assert_eq!(told, ["a/x.jsonl", "b/x.jsonl", "y"]);
}

#[test]
fn a_service_that_is_set_and_is_in_no_trace_is_a_slip() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.jsonl");
    std::fs::write(&path, story(0.0, |_| health(true))).unwrap();
    let path = path.to_str().unwrap();
    let said = |set: &[&str]| String::from_utf8(backstop(&[&["replay", path], set].concat()).stderr).unwrap();
    let slip = said(&["--set", "services.apy.trial=5m", "--set", "services.api.trial=5m"]);
    assert!(
        slip.contains("`services.apy` is set, and no apy is in what was replayed; what is: api\n"),
        "{slip}"
    );
    assert!(!slip.contains("services.api`"), "{slip}");
    let config = directory.path().join("backstop.toml");
    std::fs::write(&config, "[services.other]\ntrial = \"5m\"\n").unwrap();
    assert_eq!(said(&["--config", config.to_str().unwrap()]), "", "a file is for others too");
}

#[test]
fn a_compressed_file_is_refused_with_what_to_type() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.jsonl.gz");
    std::fs::write(&path, b"\x1f\x8b\x08\x00\x00\x00\x00\x00").unwrap();
    let path = path.to_str().unwrap();
    let output = backstop(&["replay", path]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains(&format!("it is compressed with gzip; type: zcat {path} | backstop replay -")),
        "{said}"
    );
}

/// A pipeline that wrote nothing must not look like one in which nothing was wrong.
#[test]
fn an_empty_file_is_said_to_be_empty() {
    let file = tempfile::NamedTempFile::with_suffix(".jsonl").unwrap();
    for text in ["", "\n\n"] {
        std::fs::write(file.path(), text).unwrap();
        let output = backstop(&["replay", file.path().to_str().unwrap()]);
        let said = String::from_utf8(output.stderr.clone()).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("it is empty: there is nothing in it that could be replayed"), "{said}");
    }
}

/// Errors that rise, in a trace in which nothing is deployed, or in which something is later.
#[test]
fn where_nothing_was_deployed_no_deployment_is_spoken_of() {
    let requests = |t: u32| json!({"t": t, "service": "api", "kind": "requests", "window_s": 5, "total": 100, "errors": if t > 3600 { 40 } else { 0 }});
    let mut values: Vec<Value> = (1..1440).map(|i| requests(i * 5)).collect();
    let said = |values: &[Value]| {
        let lines = lines(&Trace::parse(&text(values)).unwrap());
        assert!(!lines.is_empty());
        lines.into_iter().map(|line| line.reason).collect::<Vec<_>>()
    };
    let reasons = said(&values);
    for reason in &reasons {
        assert!(!reason.contains("30d") && !reason.contains("after the deployment"), "{reason}");
        assert!(reason.contains("; nothing was deployed in this trace"), "{reason}");
    }
    assert!(reasons.iter().any(|r| r.contains("a person decides: only a new release is blamed without asking (new_enough)")), "{reasons:?}");
    values.push(json!({"t": 7200, "service": "api", "kind": "deploy"}));
    let reasons = said(&values);
    assert!(reasons[0].contains("; nothing had been deployed in this trace by then"), "{reasons:?}");
    values.insert(700, json!({"t": 3500, "service": "api", "kind": "deploy"}));
    values.sort_by(|a, b| a["t"].as_f64().unwrap().total_cmp(&b["t"].as_f64().unwrap()));
    let reasons = said(&values);
    assert!(reasons[0].contains("after the deployment") && !reasons[0].contains("this trace"), "{reasons:?}");
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
