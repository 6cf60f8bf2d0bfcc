//! With a real Prometheus and a real Alertmanager: they read us, and we read them.

use std::time::UNIX_EPOCH;

use serde_json::Value;

use crate::support::monitoring::{Alertmanager, Job, Prometheus};
use crate::support::port::free_address;
use crate::support::story::{
    WATCHED, decision, good_service, images, newest_rollback, service_is_back, was_due_to,
};
use crate::support::{Bed, Daemon, Image, eventually, seconds};

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn prometheus_scrapes_our_own_metrics() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    let daemon = Daemon::start(&bed, None, "");
    let prometheus = Prometheus::start(&[Job { name: "backstop", target: daemon.address() }], "", None);

    let good = good_service(&bed, &daemon, "web", &WATCHED);
    bed.deploy("web", "web:v2", &WATCHED);
    service_is_back(&bed, &daemon, "web", &good);

    prometheus.gives(seconds(60), r#"up{job="backstop"}"#, 1.0);
    eventually(seconds(60), "it is read without an error", || match &*prometheus.last_error("backstop")? {
        "" => Ok(()),
        error => Err(error.to_owned()),
    });
    prometheus.gives(seconds(60), r#"sum(backstop_rollbacks_total{service="web",outcome="verified"})"#, 1.0);
    prometheus.gives(seconds(60), r#"count(count by (service) (backstop_decisions_total))"#, 1.0);
    prometheus.gives(seconds(60), r#"backstop_service_state{service="web",state="steady"}"#, 1.0);
    let samples = prometheus.value(r#"sum(backstop_samples_total{service="web",signal="health"})"#).unwrap();
    assert!(samples > 5.0, "{samples} health samples");
}

/// How many requests there were and how many of them failed, asked of the server: the queries of the documentation.
const QUERIES: &str = r#"
interval = "2s"
timeout = "2s"
requests = 'sum(increase(http_requests_total{job="$service"}[$window]))'
errors = 'sum(increase(http_requests_total{job="$service",status=~"5.."}[$window])) or vector(0)'
latency = 'sum by (le) (increase(http_request_duration_seconds_bucket{job="$service"}[$window]))'
"#;

/// One service is judged by queries to the server, the other by the alerts that it raises and Alertmanager brings.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn a_release_is_judged_by_queries_and_by_alerts() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_ERROR_RATE", "0.2"));
    // Prometheus needs targets that stay where they are when the containers change.
    let (asked, alerted) = (free_address(), free_address());
    let jobs = [Job { name: "asked", target: &asked }, Job { name: "alerted", target: &alerted }];
    // The daemon's address is known only when it runs, and it needs to know Prometheus' when it starts.
    let watched = Daemon::start(&bed, None, "enroll = \"named\"\n[services.alerted]\n");
    let alertmanager =
        Alertmanager::start(&format!("http://{}/hooks/alertmanager", watched.address()), Daemon::TOKEN);
    let prometheus = Prometheus::start(&jobs, ALERT, Some(&alertmanager));
    let asks = format!(
        "enroll = \"named\"\n[services.asked.rules.error_rate]\nsustained = \"1m\"\n\
         [services.asked.prometheus]\nurl = \"{}\"{QUERIES}",
        prometheus.url()
    );
    let asking = Daemon::start(&bed, None, &asks);
    let published = |address: &str| format!("{address}:8080");
    let (asked, alerted) = (published(&asked), published(&alerted));
    let traffic = ["-e", "DEMO_SELF_TRAFFIC=50", "-e", "DEMO_LATENCY_MS=10"];
    let arguments = |address| [&["-p", address][..], &traffic].concat();
    let good = good_service(&bed, &asking, "asked", &arguments(&asked));
    good_service(&bed, &watched, "alerted", &arguments(&alerted));
    prometheus.gives(seconds(60), r#"sum(up{job=~"asked|alerted"})"#, 2.0);
    assert!(newest_rollback(&asking, "asked").is_err(), "nothing was rolled back");

    bed.deploy("asked", "web:v2", &arguments(&asked));
    let deployed = started_at(&bed, "asked");
    let noisy = bed.deploy("alerted", "web:v2", &arguments(&alerted));

    // A person is told, and the release stays.
    let told = decision(seconds(60), &watched, "alerted", "evaluate");
    let words = ["TooManyErrors", "more than a tenth of the requests fail"];
    was_due_to("alerts", &told, "alert_firing", &words);
    assert_eq!(bed.inspect("alerted")["Id"], noisy.as_str());
    // When it is over, Alertmanager says so too.
    bed.turn("alerted", "error_rate", "0");
    eventually(seconds(60), "no alert is firing any more", || {
        let row = watched.row("alerted", "alerts")?;
        if row["answer"] == "ok" { Ok(()) } else { Err(format!("{row}; {}", alertmanager.alerts()?)) }
    });

    let record = service_is_back(&bed, &asking, "asked", &good);
    assert_eq!(record["reason"], "error_rate", "{record:#}");
    let text = record["text"].as_str().unwrap();
    let share =
        text.split_once("requests failed (").and_then(|(_, rest)| rest.split_once(" %")?.0.parse().ok());
    assert!(share.is_some_and(|share: f64| (15.0..=25.0).contains(&share)), "a fifth of all: {text}");
    the_server_remembers(&asking, deployed);
}

/// When its container was started, in seconds since 1970: when the command for it is over may be long after that.
#[track_caller]
fn started_at(bed: &Bed, container: &str) -> u64 {
    let at = bed.inspect(container)["State"]["StartedAt"].as_str().unwrap().to_owned();
    let at = humantime::parse_rfc3339(&at).unwrap_or_else(|error| panic!("{error}: {at}"));
    at.duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// What was done is what would have been done by what the server has kept of it.
fn the_server_remembers(daemon: &Daemon, deployed: u64) {
    let (config, listed) = (daemon.configuration(), daemon.state().join("deployments"));
    std::fs::write(&listed, format!("{deployed} v2\n")).unwrap();
    let (config, listed) = (config.to_str().unwrap(), listed.to_str().unwrap());
    let (code, told) = daemon.command(&[
        "--json",
        "backtest",
        "--config",
        config,
        "--service",
        "asked",
        "--since",
        "1h",
        "--step",
        "2s",
        "--deploys",
        listed,
    ]);
    assert_eq!(code, Some(0), "{told}");
    let told: Value = serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}"));
    let one = &told["deployments"][0];
    assert_eq!(one["version"], "v2", "{told:#}");
    let decided = &one["decisions"][0];
    assert_eq!(
        (&decided["decision"], &decided["signal"]),
        (&"rollback".into(), &"error_rate".into()),
        "{told:#}"
    );
    assert!(decided["reason"].as_str().is_some_and(|why| why.contains("requests failed")), "{told:#}");
    assert_eq!(one["rows"][0]["row"], "error_rate", "{told:#}");
    assert!(one["rows"][0]["worst"].as_f64().is_some_and(|worst| worst > 0.05), "{told:#}");
}

/// As somebody else's monitoring has it.
const ALERT: &str = r#"
groups:
- name: shop
  rules:
  - alert: TooManyErrors
    expr: sum by (job) (rate(http_requests_total{job="alerted",status=~"5.."}[5s]))
      > 0.1 * sum by (job) (rate(http_requests_total{job="alerted"}[5s]))
    for: 2s
    labels: {severity: page}
    annotations: {summary: more than a tenth of the requests fail}
"#;
