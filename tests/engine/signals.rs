//! Each row of the matrix on a real engine: it acts when it should, with its sentence, and not before.
//!
//! All rows are seen at the same time, in one test: each has a service of its own and a daemon that watches that
//! service alone, for several bad deployments side by side would be put down to each other. The demo app makes its own
//! traffic, fifty requests a second. Rows that are sustained for ten minutes by default are for one minute here, the
//! least there is; their windows shrink with them, but not below fifteen seconds.

use std::fmt::Write;

use serde_json::Value;

use crate::support::story::{decision, images, newest_rollback, service_is_back, was_due_to};
use crate::support::{Bed, Daemon, Image, eventually, seconds};

/// Requests a second.
const RATE: u64 = 50;
/// So long after it, if nothing is to happen: a little more than the longest window of these tests.
const AFTER: u64 = 70;

/// A row's name, its answer, and words in its value.
type Row = (&'static str, &'static str, &'static str);

/// So often is a check asked whose answers are bad now and then: twice as many bad ones as the row of flapping needs.
const ASKED: u64 = 32;

/// What comes of a deployment. `tests/it/tidy.rs` wants one that is due to each row that is shipped.
#[derive(Clone, Copy)]
pub(crate) enum Outcome {
    /// This row leads to a rollback, for this reason, with a sentence that has these words.
    Rollback(&'static str, &'static str, &'static [&'static str]),
    /// A person is told, likewise; nothing is touched.
    Evaluate(&'static str, &'static str, &'static [&'static str]),
    /// This row is breached, with these words in its value, and nobody is told; the others answer as below.
    Shown(&'static str, &'static str, &'static [Row]),
    /// Nothing: these rows answer like this, with these words in their values.
    Nothing(&'static [Row]),
}

pub(crate) struct Case {
    /// Of the service.
    pub(crate) name: &'static str,
    /// What the daemon is told about it.
    pub(crate) settings: &'static str,
    /// Arguments of both deployments.
    pub(crate) both: &'static [&'static str],
    /// Dials of the new release.
    pub(crate) new: &'static [&'static str],
    /// If there is traffic: so many seconds of it before the deployment.
    pub(crate) traffic: Option<u64>,
    pub(crate) outcome: Outcome,
}

pub(crate) const METRICS: &str = "metrics = { port = 8080, interval = \"1s\", timeout = \"1s\" }\n";
pub(crate) const LOGS: &str = "logs = { access = \"auto\", interval = \"1s\" }\n";

const CASES: &[Case] = &[
    Case {
        name: "too-many-errors",
        settings: METRICS,
        both: &[],
        new: &["-e", "DEMO_ERROR_RATE=0.2"],
        traffic: Some(5),
        outcome: Outcome::Rollback("error_rate", "error_rate", &["requests failed"]),
    },
    // Four in a hundred fail, and there are a few lines in the log: marginal, each for its row.
    Case {
        name: "marginal",
        settings: METRICS,
        both: &[],
        new: &["-e", "DEMO_ERROR_RATE=0.04", "-e", "DEMO_LOG_ERRORS=8"],
        traffic: Some(5),
        outcome: Outcome::Nothing(&[
            ("error_rate", "ok", "requests failed"),
            ("log_errors", "ok", "a minute"),
        ]),
    },
    Case {
        name: "errors-in-the-log",
        settings: LOGS,
        both: &["-e", "DEMO_ACCESS_LOG=combined"],
        new: &["-e", "DEMO_ERROR_RATE=0.2"],
        traffic: Some(5),
        outcome: Outcome::Rollback("error_rate", "error_rate", &["requests failed"]),
    },
    Case {
        name: "marginal-in-the-log",
        settings: LOGS,
        both: &["-e", "DEMO_ACCESS_LOG=logfmt"],
        new: &["-e", "DEMO_ERROR_RATE=0.04"],
        traffic: Some(5),
        outcome: Outcome::Nothing(&[("error_rate", "ok", "requests failed")]),
    },
    // Not knowing is never failing.
    Case {
        name: "garbage",
        settings: METRICS,
        both: &[],
        new: &["-e", "DEMO_METRICS=garbage", "-e", "DEMO_ERROR_RATE=1"],
        traffic: None,
        outcome: Outcome::Nothing(&[("error_rate", "cannot measure", "")]),
    },
    Case {
        name: "page-for-people",
        settings: METRICS,
        both: &[],
        new: &["-e", "DEMO_METRICS=html", "-e", "DEMO_ERROR_RATE=1"],
        traffic: None,
        outcome: Outcome::Nothing(&[("error_rate", "cannot measure", "")]),
    },
    Case {
        name: "migrations",
        settings: "checks.ready = { port = 8080, path = \"/readyz\", interval = \"1500ms\", timeout = \"1500ms\", \
                   json = { \".migrations_current\" = true } }\n",
        both: &[],
        new: &["-e", "DEMO_MIGRATIONS_PENDING=1"],
        traffic: None,
        outcome: Outcome::Rollback("health", "health_failing", &["check ready failed", "migrations_current"]),
    },
    Case {
        name: "login",
        settings: r#"
[services.login.checks.login]
interval = "1500ms"
timeout = "1500ms"
[[services.login.checks.login.steps]]
port = 8080
path = "/login"
method = "POST"
headers = { Content-Type = "application/json" }
body = '{"user": "demo", "password": "demo"}'
capture = { token = ".token" }
[[services.login.checks.login.steps]]
port = 8080
path = "/me"
headers = { Authorization = "Bearer {{token}}" }
json = { ".user" = "demo" }
"#,
        both: &[],
        new: &["-e", "DEMO_LOGIN=refuse"],
        traffic: None,
        outcome: Outcome::Rollback("health", "health_failing", &["check login failed", "401"]),
    },
    Case {
        name: "advisory",
        settings: "checks.extra = { port = 8080, path = \"/healthz\", required = false, interval = \"500ms\", \
                   timeout = \"500ms\" }\nrules.health_advisory.sustained = \"2s\"\n",
        both: &[],
        new: &["-e", "DEMO_BAD=1"],
        traffic: None,
        outcome: Outcome::Evaluate("health_advisory", "health_failing", &["check extra failed", "500"]),
    },
    // Two good answers, two bad ones: never as long in a row as the row of consecutive failures asks for.
    Case {
        name: "flapping",
        settings: "checks.on-and-off = { port = 8080, path = \"/healthz\", interval = \"500ms\", timeout = \"500ms\" }\n\
                   rules.health.sustained = \"30s\"\n",
        both: &[],
        new: &["-e", "DEMO_HEALTH=flapping"],
        traffic: None,
        outcome: Outcome::Rollback(
            "health_flapping",
            "health_flapping",
            &["check on-and-off failed", "times within 5m (limit: 4)", "500"],
        ),
    },
    // One in four fails, more than four in all, and never two in a row.
    Case {
        name: "hiccup",
        settings: "checks.now-and-then = { port = 8080, path = \"/healthz\", interval = \"500ms\", timeout = \"500ms\" }\n\
                   rules.health.sustained = \"10s\"\ntrial = \"12s\"\n",
        both: &[],
        new: &["-e", "DEMO_HEALTH=hiccup"],
        traffic: None,
        outcome: Outcome::Nothing(&[("health_flapping", "ok", "now-and-then: ")]),
    },
    // It wants twenty times the CPU that it may have. As shipped the row is only shown: what it would say is asked for.
    Case {
        name: "held-back",
        settings: "rules.cpu_throttling = { action = \"evaluate\", sustained = \"1m\" }\n",
        both: &["--cpus", "0.05"],
        new: &["-e", "DEMO_CPU=1"],
        traffic: None,
        outcome: Outcome::Evaluate(
            "cpu_throttling",
            "cpu_throttled",
            &["its CPU limit held it back", "of the time for 1m (limit: 50 %)"],
        ),
    },
    Case {
        name: "full",
        settings: "",
        both: &["-m", "64m"],
        new: &["-e", "DEMO_MEMORY_PERCENT=92"],
        traffic: None,
        outcome: Outcome::Rollback("memory", "memory_high", &["of 64.0 MiB"]),
    },
    Case {
        name: "nearly-full",
        settings: "",
        both: &["-m", "64m", "--cpus", "0.2"],
        // Busy for less than it may be.
        new: &["-e", "DEMO_MEMORY_PERCENT=88.4", "-e", "DEMO_CPU=0.05"],
        traffic: None,
        outcome: Outcome::Nothing(&[("memory", "ok", "88."), ("cpu_throttling", "ok", "held back")]),
    },
    Case {
        name: "leak",
        settings: "rules.memory_leak = { sustained = \"1m\", min_samples = 8 }\n",
        both: &["-m", "256m"],
        new: &["-e", "DEMO_LEAK=1MiB"],
        traffic: None,
        outcome: Outcome::Evaluate(
            "memory_leak",
            "memory_leak",
            &["memory has been growing", "will reach 90 % of its limit"],
        ),
    },
    Case {
        name: "noisy",
        settings: "logs.interval = \"1s\"\nrules.log_errors.sustained = \"1m\"\n",
        both: &[],
        new: &["-e", "DEMO_LOG_ERRORS=60"],
        traffic: None,
        outcome: Outcome::Evaluate(
            "log_errors",
            "log_errors",
            &["error lines a minute", "no connection to payments"],
        ),
    },
];

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn each_row_of_the_matrix_acts_when_it_should_and_not_before() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2"));
    std::thread::scope(|scope| {
        scope.spawn(|| three_people_report(&bed));
        side_by_side(&bed, CASES);
    });
}

/// Each case in a thread of its own.
pub(crate) fn side_by_side(bed: &Bed, cases: &'static [Case]) {
    std::thread::scope(|scope| {
        for case in cases {
            // The name stands before what a failed assertion says.
            let thread = std::thread::Builder::new().name(case.name.to_owned());
            thread.spawn_scoped(scope, move || case.run(bed)).unwrap();
        }
    });
}

impl Case {
    fn run(&self, bed: &Bed) {
        let daemon = Daemon::start(bed, None, &self.configuration());
        let traffic = format!("DEMO_SELF_TRAFFIC={RATE}");
        let traffic: &[&str] = if self.traffic.is_some() { &["-e", &traffic] } else { &[] };
        let arguments = [self.both, traffic].concat();
        bed.deploy(self.name, "web:v1", &arguments);
        if let Some(before) = self.traffic {
            answers(bed, self.name, RATE * before);
        }
        daemon.proved(self.name);
        let good = bed.inspect(self.name);

        let new = bed.deploy(self.name, "web:v2", &[&arguments[..], self.new].concat());
        if !matches!(self.outcome, Outcome::Rollback(..)) {
            is_seen(&daemon, self.name);
        }

        match self.outcome {
            Outcome::Rollback(row, reason, words) => {
                // The slowest is as slow as it is shipped: five minutes.
                let told = decision(seconds(400), &daemon, self.name, "rollback");
                service_is_back(bed, &daemon, self.name, &good);
                was_due_to(row, &told, reason, words);
            }
            Outcome::Evaluate(row, reason, words) => {
                let told = decision(seconds(150), &daemon, self.name, "evaluate");
                was_due_to(row, &told, reason, words);
                if self.traffic.is_some() {
                    answers(bed, self.name, RATE * AFTER);
                }
                assert_eq!(bed.inspect(self.name)["Id"], new.as_str(), "a person decides");
                assert!(newest_rollback(&daemon, self.name).is_err(), "nothing was rolled back");
            }
            Outcome::Shown(row, words, others) => {
                self.row_answers(&daemon, row, "breached", words);
                self.stays(bed, &daemon, &new, others);
                self.row_answers(&daemon, row, "breached", words);
            }
            Outcome::Nothing(rows) => self.stays(bed, &daemon, &new, rows),
        }
    }

    /// The rows answer like this, now and when every window has been filled, and nothing comes of it.
    fn stays(&self, bed: &Bed, daemon: &Daemon, new: &str, rows: &[Row]) {
        let all_answer = || {
            for (rule, answer, words) in rows {
                self.row_answers(daemon, rule, answer, words);
            }
        };
        all_answer();
        if self.traffic.is_some() {
            answers(bed, self.name, RATE * AFTER);
        } else {
            self.is_over(daemon);
        }
        all_answer();
        nothing_was_decided(daemon, self.name);
        assert_eq!(bed.inspect(self.name)["Id"], new);
    }

    /// Its trial is over: it has passed, or what it would be judged by cannot be measured, or it has been asked so often
    /// how it is that one bad answer in four would be too many for the row of flapping, if that counted them alone.
    #[track_caller]
    fn is_over(&self, daemon: &Daemon) {
        eventually(seconds(60), &format!("the trial of {} is over", self.name), || {
            let service = daemon.service(self.name)?;
            let said = service["sentence"].as_str().unwrap_or_default();
            let asked = daemon.row(self.name, "health_flapping")?["samples"].as_u64().unwrap_or_default();
            let over = service["state"] == "steady"
                || said.contains("its requests cannot be measured")
                || asked >= ASKED;
            if over { Ok(()) } else { Err(service["sentence"].to_string()) }
        });
    }

    /// Its daemon watches it alone. What is sustained for ten minutes is for one.
    fn configuration(&self) -> String {
        let name = self.name;
        let mut text = "enroll = \"named\"\n[defaults]\n".to_owned();
        for rule in ["error_rate", "latency_p99", "latency_degraded", "latency_drift"] {
            let _ = writeln!(text, "rules.{rule}.sustained = \"1m\"");
        }
        let _ = write!(text, "[services.{name}]\n{}", self.settings);
        text
    }

    #[track_caller]
    fn row_answers(&self, daemon: &Daemon, rule: &str, answer: &str, words: &str) {
        eventually(seconds(60), &format!("{}: {rule} is {answer}, {words}", self.name), || {
            let row = daemon.row(self.name, rule)?;
            let fits =
                row["answer"] == answer && row["value"].as_str().is_some_and(|value| value.contains(words));
            if fits { Ok(()) } else { Err(row.to_string()) }
        });
    }
}

/// One person is one, however often; the third is enough.
fn three_people_report(bed: &Bed) {
    let name = "reported";
    let daemon = Daemon::start(bed, None, &format!("enroll = \"named\"\n[services.{name}]\n"));
    bed.deploy(name, "web:v1", &[]);
    daemon.proved(name);
    let new = bed.deploy(name, "web:v2", &[]);
    is_seen(&daemon, name);
    let report = |reporter: &str| {
        let body = format!(r#"{{"reporter": "{reporter}", "text": "{reporter} cannot pay"}}"#);
        let answer = daemon.post(&format!("/api/v1/services/{name}/reports"), &body).unwrap();
        assert_eq!(answer.status, 202, "{}", answer.body);
        answer.json()
    };
    report("alice");
    report("bob");
    // Whether it is counted in time for the answer depends on how busy the machine is.
    let counted = eventually(seconds(60), "the same person again is counted", || {
        let twice = report("Alice");
        if twice["counted"].is_null() { Err(twice.to_string()) } else { Ok(twice["counted"].clone()) }
    });
    assert_eq!(counted, 2, "one person is one reporter, however the name is written");
    nothing_was_decided(&daemon, name);
    report("carol");
    let told = decision(seconds(60), &daemon, name, "evaluate");
    was_due_to("user_reports", &told, "user_reports", &["3 people reported a problem", "carol cannot pay"]);
    assert_eq!(bed.inspect(name)["Id"], new.as_str(), "a person decides");
}

/// Waits until the daemon knows of the new release.
#[track_caller]
fn is_seen(daemon: &Daemon, name: &str) {
    eventually(seconds(60), &format!("the new release of {name} is seen"), || {
        let current = daemon.service(name)?["current"]["reference"].clone();
        if current == "web:v2" { Ok(()) } else { Err(current.to_string()) }
    });
}

/// Waits until the app has answered so many requests since it started.
#[track_caller]
fn answers(bed: &Bed, name: &str, requests: u64) {
    eventually(seconds(400), &format!("{name} has answered {requests} requests"), || {
        let answered = bed.answered(name)?;
        if answered >= requests { Ok(()) } else { Err(answered.to_string()) }
    });
}

#[track_caller]
fn nothing_was_decided(daemon: &Daemon, name: &str) {
    let decisions = daemon.service(name).unwrap()["decisions"].clone();
    assert_eq!(decisions, Value::Array(Vec::new()), "nothing is wrong with it");
    assert!(newest_rollback(daemon, name).is_err(), "nothing was rolled back");
}
