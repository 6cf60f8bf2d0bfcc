//! The bed does what the other tests take for granted.

use crate::support::inspect::differences;
use crate::support::{Bed, Image, eventually, seconds};

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn images_serve_and_misbehave_as_told() {
    let bed = Bed::lease();
    bed.image("web:v1", &Image::demo("v1").healthcheck());
    bed.image("web:v2", &Image::demo("v2").env("DEMO_BAD", "1").healthcheck());
    let good = bed.deploy("web", "web:v1", &[]);
    bed.serves(seconds(60), "web", "v1");
    docker_health(&bed, "web", "healthy");
    let before = bed.inspect(&good);

    bed.deploy("web", "web:v2", &[]);
    bed.serves(seconds(60), "web", "v2");
    docker_health(&bed, "web", "unhealthy");
    assert!(!differences(&before, &bed.inspect("web")).is_empty());

    bed.deploy("web", "web:v1", &[]);
    assert_eq!(differences(&before, &bed.inspect("web")), Vec::<String>::new());
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn the_engine_comes_back_after_a_restart_and_a_crash() {
    let bed = Bed::lease();
    bed.image("web:v1", &Image::demo("v1"));
    bed.deploy("web", "web:v1", &["--restart", "always"]);
    bed.serves(seconds(60), "web", "v1");
    bed.restart_engine();
    bed.serves(seconds(60), "web", "v1");
    bed.crash_engine();
    bed.serves(seconds(60), "web", "v1");
}

fn docker_health(bed: &Bed, container: &str, wanted: &str) {
    eventually(seconds(60), &format!("{container} is {wanted}"), || {
        let health = bed.try_inspect(container)?["State"]["Health"]["Status"].clone();
        if health == wanted { Ok(()) } else { Err(health.to_string()) }
    });
}
