//! What is measured in a timeline: one line is one sample of one signal.
//!
//! `unknown` in place of a value is a source that fails, `none` one that has nothing to measure.

use std::time::Duration;

use backstop::core::io::{HostState, Input};
use backstop::core::release::{ReplicaId, ServiceName};
use backstop::core::sample::{Latencies, Measurement, Part, Requests, Signal, Took};

use super::World;

/// Prometheus' default buckets, in seconds.
const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const MIB: f64 = 1024.0 * 1024.0;

impl World {
    pub(super) fn measured(&mut self, words: &[&str]) {
        match words {
            ["health", service, results @ ..] => self.results(service, "health", results),
            ["check", service, name, results @ ..] => self.results(service, name, results),
            ["dependency", service, name, result] => {
                self.sample(service, None, Signal::Dependencies, name, check(result));
            }
            ["memory", service, percent] => self.each(service, Signal::Memory, "", &level(percent)),
            ["cpu", service, percent] => self.each(service, Signal::Cpu, "", &share(percent)),
            ["requests", service, total, how @ ..] => {
                self.sample(service, None, Signal::Requests, "", requests(total, how));
            }
            ["log", service, lines] => self.each(service, Signal::Logs, "", &count(lines)),
            ["report", service, reporter] => {
                let text = "it does not load".into();
                let report = Measurement::Report { reporter: (*reporter).into(), text };
                self.sample(service, None, Signal::Reports, "", report);
            }
            ["alert", service, state @ ("firing" | "resolved"), name] => {
                let alert = Measurement::Alert {
                    firing: *state == "firing",
                    began: None,
                    summary: format!("{name}: look"),
                };
                self.sample(service, None, Signal::Alerts, name, alert);
            }
            ["unmeasured", service, signal] => self.unmeasured(service, signal),
            ["host", how @ ..] => self.host(how),
            other => panic!("a timeline cannot say {:?}", other.join(" ")),
        }
    }

    /// `health shop ok fail fail`: one result after the other, every five seconds.
    fn results(&mut self, service: &str, name: &str, results: &[&str]) {
        for (i, result) in results.iter().enumerate() {
            if i > 0 {
                self.wait_until(self.now + Duration::from_secs(5));
            }
            self.each(service, Signal::Health, name, &check(result));
        }
    }

    /// `unmeasured shop logs`: the source of a signal fails, whichever it is.
    fn unmeasured(&mut self, service: &str, signal: &str) {
        let found = Signal::ALL.into_iter().find(|s| s.name() == signal);
        let signal = found.unwrap_or_else(|| panic!("no signal {signal}"));
        let name = if signal == Signal::Health { "health" } else { "" };
        self.sample(service, None, signal, name, Measurement::Unavailable { why: "no resolver".into() });
    }

    /// `host short of memory`, `host cut off`, `host well`.
    fn host(&mut self, how: &[&str]) {
        let state = match how {
            ["short", "of", what] => {
                HostState { pressure: Some(format!("{what} is short")), ..HostState::default() }
            }
            ["cut", "off"] => HostState { cut_off: Some("no answer".into()), ..HostState::default() },
            ["well"] => HostState::default(),
            other => panic!("host {other:?}"),
        };
        self.input(Input::Host(state));
    }

    /// The same sample of every replica.
    fn each(&mut self, service: &str, signal: Signal, name: &str, measurement: &Measurement) {
        for replica in self.ids(service) {
            self.sample(service, Some(replica), signal, name, measurement.clone());
        }
    }

    fn sample(
        &mut self,
        service: &str,
        replica: Option<ReplicaId>,
        signal: Signal,
        name: &str,
        measurement: Measurement,
    ) {
        let (service, name) = (ServiceName::new(service), name.to_owned());
        self.input(Input::Sampled { service, replica, signal, name, measurement });
    }
}

/// What a source tells that has nothing to tell.
fn nothing(word: &str) -> Option<Measurement> {
    match word {
        "unknown" => Some(Measurement::Unavailable { why: "no resolver".into() }),
        "none" => Some(Measurement::NotApplicable { why: "there is none".into() }),
        _ => None,
    }
}

/// `ok`, `fail`; or `ok:20ms`, which took so long.
fn check(result: &str) -> Measurement {
    let (result, took) = result.split_once(':').unwrap_or((result, "0s"));
    let latency = humantime::parse_duration(took).unwrap();
    let check = |ok, detail: &str| Measurement::Check { ok, detail: detail.into(), latency };
    match result {
        "ok" => check(true, "200 OK"),
        "fail" => check(false, "500 Internal Server Error"),
        other => nothing(other).unwrap_or_else(|| panic!("{other} is no result of a check")),
    }
}

/// Memory in use, of a limit of 100 MiB.
fn level(percent: &str) -> Measurement {
    nothing(percent).unwrap_or_else(|| Measurement::Level {
        used: whole(percent.parse::<f64>().unwrap() * MIB),
        limit: whole(100.0 * MIB),
    })
}

/// The share of five seconds in which the CPU limit held it back.
fn share(percent: &str) -> Measurement {
    nothing(percent).unwrap_or_else(|| Measurement::Share {
        share: percent.parse::<f64>().unwrap() / 100.0,
        window: Duration::from_secs(5),
    })
}

/// Error lines in ten seconds of the log.
fn count(lines: &str) -> Measurement {
    nothing(lines).unwrap_or_else(|| Measurement::Count {
        count: lines.parse().unwrap(),
        window: Duration::from_secs(10),
        last: if lines == "0" { String::new() } else { "ERROR no connection".into() },
    })
}

/// `requests api 250 [errors=10] [p99=100ms | mean=30ms] [route=/list] [window=5s]`: what ended within the window.
fn requests(total: &str, how: &[&str]) -> Measurement {
    if let Some(nothing) = nothing(total) {
        return nothing;
    }
    let total = total.parse().unwrap();
    let mut requests = Requests { window: Duration::from_secs(5), total, ..Requests::default() };
    let mut route = None;
    for option in how {
        match option.split_once('=').unwrap() {
            ("errors", n) => requests.errors = n.parse().unwrap(),
            ("p99", p99) => {
                requests.latency = latencies(total, humantime::parse_duration(p99).unwrap().as_secs_f64());
            }
            // A summary: the sum and the count, and nothing else.
            ("mean", mean) => {
                let mean = humantime::parse_duration(mean).unwrap().as_secs_f64();
                requests.took = Took { requests: total, seconds: mean * total as f64 };
            }
            ("window", span) => requests.window = humantime::parse_duration(span).unwrap(),
            ("route", name) => route = Some(name.to_owned()),
            other => panic!("requests {other:?}"),
        }
    }
    if let Some(route) = route {
        requests.parts = vec![Part { route, total, latency: requests.latency.clone(), took: requests.took }];
    }
    Measurement::Requests(requests)
}

/// How long so many requests took, of which one in a hundred takes longer than `p99` seconds: the share of those
/// slower than `t` falls with the fourth power of it.
fn latencies(total: u64, p99: f64) -> Latencies {
    let slower = |t: f64| (0.01 * (p99 / t).powi(4)).min(1.0) * total as f64;
    let counts = BUCKETS.iter().map(|bound| total - whole(slower(*bound))).chain([total]).collect();
    Latencies { bounds: BUCKETS.to_vec(), counts }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a timeline's small numbers")]
fn whole(number: f64) -> u64 {
    number.round() as u64
}
