//! Rows that take minutes: those that compare with what was before the deployment, for it has to be watched for four
//! minutes first, which is the least that makes a baseline, and one that waits for five. The name of this file lets
//! libtest start the test among the first.

use crate::signals::{Case, LOGS, METRICS, Outcome, side_by_side};
use crate::support::story::images;
use crate::support::{Bed, Image};

/// So many seconds before the deployment: a little more than the least.
const BEFORE: u64 = 275;
const LATENCY: &[&str] = &["-e", "DEMO_LATENCY_MS=20"];

const CASES: &[Case] = &[
    Case {
        name: "far-too-slow",
        settings: METRICS,
        both: LATENCY,
        new: &["-e", "DEMO_LATENCY_FACTOR=5"],
        traffic: Some(BEFORE),
        outcome: Outcome::Rollback("latency_p99", "latency", &["took longer than", "2x the baseline p99"]),
    },
    // Less than twice as slow is no reason to roll back, but more than half as slow again is one to look.
    Case {
        name: "degraded",
        settings: METRICS,
        both: LATENCY,
        new: &["-e", "DEMO_LATENCY_FACTOR=1.8"],
        traffic: Some(BEFORE),
        outcome: Outcome::Evaluate(
            "latency_degraded",
            "latency",
            &["took longer than", "1.5x the baseline p99"],
        ),
    },
    // A tenth slower is nothing to anybody.
    Case {
        name: "drifting",
        settings: METRICS,
        both: LATENCY,
        new: &["-e", "DEMO_LATENCY_FACTOR=1.1"],
        traffic: Some(BEFORE),
        outcome: Outcome::Nothing(&[
            ("latency_p99", "ok", "requests above"),
            ("latency_degraded", "ok", "requests above"),
            ("latency_drift", "ok", "requests above"),
        ]),
    },
    // Four tenths slower is shown, and nobody is told.
    Case {
        name: "drifted",
        settings: METRICS,
        both: LATENCY,
        new: &["-e", "DEMO_LATENCY_FACTOR=1.4"],
        traffic: Some(BEFORE),
        outcome: Outcome::Shown(
            "latency_drift",
            "requests above",
            &[("latency_degraded", "ok", "requests above")],
        ),
    },
    Case {
        name: "slow-in-the-log",
        settings: LOGS,
        both: &["-e", "DEMO_ACCESS_LOG=json", "-e", "DEMO_LATENCY_MS=20"],
        new: &["-e", "DEMO_LATENCY_FACTOR=5"],
        traffic: Some(BEFORE),
        outcome: Outcome::Rollback("latency_p99", "latency", &["took longer than"]),
    },
    // Its requests are well, so that the row of consecutive failures doubts the check; after five minutes as shipped
    // nobody does any more.
    Case {
        name: "prolonged",
        settings: "metrics = { port = 8080, interval = \"1s\", timeout = \"1s\" }\n\
                   checks.long = { port = 8080, path = \"/healthz\", interval = \"500ms\", timeout = \"500ms\" }\n\
                   rules.health.sustained = \"10s\"\n",
        both: &[],
        new: &["-e", "DEMO_BAD=1"],
        traffic: Some(5),
        outcome: Outcome::Rollback(
            "health_prolonged",
            "health_failing",
            &["check long failed", "in a row over 5m", "(limit: 2 over 5m)", "500"],
        ),
    },
];

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn rows_that_take_minutes_act_when_they_should() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2"));
    side_by_side(&bed, CASES);
}
