//! "Rollback Runbook" with its decision criteria: a backend and a frontend that are one release, as services of a Swarm.

use super::{reminders, report, step, within_minutes};
use crate::support::port::free_port_of;
use crate::support::story::{newest_rollback, rollback_over};
use crate::support::{Daemon, Image, Webhook, eventually, seconds};
use crate::swarm::Cluster;

const RELEASE: &str = r#"
    environment = "production"
    [groups]
    app = ["app-backend", "app-frontend"]
    [services.app-backend.metrics]
    port = 8080
    path = "/metrics"
    interval = "1s"
    timeout = "1s"
    [services.app-backend.rules.error_rate]
    sustained = "2m"
    [services.app-backend.hooks.smoke-test]
    phase = "before_verify"
    timeout = "90s"
    steps = [
        { url = "http://127.0.0.1:@PORT@/healthz" },
        { url = "http://127.0.0.1:@PORT@/", json = { ".version" = "{{to_tag}}" } },
    ]
"#;

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn failed_production_deployment() {
    let cluster = Cluster::start();
    let bed = cluster.bed();
    bed.image("app-backend:good", &Image::demo("good").env("DEMO_SELF_TRAFFIC", "40"));
    bed.image("app-frontend:good", &Image::demo("good"));
    bed.image(
        "app-backend:bad",
        &Image::demo("bad").env("DEMO_SELF_TRAFFIC", "40").env("DEMO_ERROR_RATE", "0.9"),
    );
    bed.image("app-frontend:bad", &Image::demo("bad"));
    let webhook = Webhook::start();
    let port = free_port_of("127.0.0.1").to_string();
    let daemon = Daemon::start(bed, Some(&webhook.url()), &RELEASE.replace("@PORT@", &port));
    let on_trial = ["--label", "backstop.trial=60s"];
    let published = format!("mode=host,published={port},target=8080");
    cluster.create("app-backend", "app-backend:good", &["--publish", &published]);
    cluster.create("app-frontend", "app-frontend:good", &[]);
    for name in ["app-backend", "app-frontend"] {
        daemon.proved(name);
    }

    step("A failed production deployment: error rate > 5% of requests");
    for name in ["app-frontend", "app-backend"] {
        let image = format!("{name}:bad");
        cluster.update(name, &["--label-add", on_trial[1], "--image", &image]);
    }

    step("Step 1: Confirm the Issue: verify which version is currently deployed");
    let record = eventually(seconds(120), "a rollback of app-backend has begun", || {
        newest_rollback(&daemon, "app-backend")
    });
    assert_eq!(record["reason"], "error_rate", "{record:#}");
    assert_eq!(record["from"]["reference"], "app-backend:bad");

    step("Step 2: Announce Rollback: environment, current version, rolling back to, reason, ETA");
    let announced = webhook.announced(seconds(60), &["ROLLBACK IN PROGRESS", "app-backend"]);
    for words in ["production", "app-backend:bad", "app-backend:good", "requests failed", "ETA"] {
        assert!(announced.to_string().contains(words), "no `{words}` in {announced:#}");
    }

    step("Step 3: Execute Rollback, Option B: update backend service; update frontend service");
    for name in ["app-backend", "app-frontend"] {
        let record = rollback_over(&daemon, name);
        assert_eq!(record["outcome"], "verified", "{record:#}");
        assert_eq!(cluster.runs(name), [format!("{name}:good")]);
    }

    step("Step 4: Verify Rollback: health checks; smoke tests; verify correct version is running");
    let record = rollback_over(&daemon, "app-backend");
    assert!(record["detail"].as_str().unwrap().contains("checks passing"), "{record:#}");

    step("Step 5: Announce Resolution: status, all health checks passing");
    webhook.announced(seconds(60), &["ROLLBACK COMPLETE", "app-backend:good", "All checks passing"]);

    step("Rollback Checklist");
    let boxes = [
        "Issue confirmed (health checks, error rates, user reports)",
        "Scope of impact determined",
        "Previous stable version identified",
        "Team notified",
        "Rollback executed",
        "Health checks passing after the rollback",
        "Smoke tests",
        "Resolution announced",
    ];
    let said = report(&daemon, &record, &boxes);
    reminders(&said, &[("ticket", "on-call"), ("Post-mortem", "team lead")]);
    within_minutes(&record, 10.0);
}
