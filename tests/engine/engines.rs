//! Several engines, one daemon: each one's services are judged and rolled back on their own engine, whatever becomes of the
//! others.

use crate::support::bed::Own;
use crate::support::ca::Ca;
use crate::support::sshd::{FORGED, STRANGER, Sshd};
use crate::support::story::{WATCHED, images, journal, newest_rollback, nothing_is_left, rollback_over};
use crate::support::{Bed, Daemon, Image, eventually, seconds};

const ON_EAST: &str = "east/web";

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn a_bad_release_on_either_is_rolled_back_though_the_other_is_away() {
    let (bed, east) = (Bed::lease(), Bed::start(Own::Version("20.10")));
    let bad = Image::demo("v2").env("DEMO_BAD", "1");
    images(&bed, &bad);
    images(&east, &bad);
    let more = format!("[engines.east]\nhost = \"unix://{}\"\n", east.socket());
    let daemon = Daemon::start(&bed, None, &more);
    let arguments = [&WATCHED[..], &["--restart", "always"]].concat();
    bed.deploy("web", "web:v1", &arguments);
    east.deploy("web", "web:v1", &arguments);
    daemon.proved("web");
    daemon.proved(ON_EAST);

    east.stop_engine();
    bed.deploy("web", "web:v2", &arguments);
    assert_eq!(rollback_over(&daemon, "web")["outcome"], "verified");
    bed.serves(seconds(60), "web", "v1");
    daemon.in_state(seconds(60), ON_EAST, &["blind"]);
    let ready = daemon.get("/readyz").unwrap();
    assert!(ready.status == 503 && ready.body.contains("east"), "{}", ready.body);
    let (_, status) = daemon.command(&["status"]);
    assert!(status.contains("east: "), "{status}");

    east.start_engine();
    daemon.in_state(seconds(60), ON_EAST, &["steady", "trial"]);
    daemon.proved(ON_EAST);
    east.deploy("web", "web:v2", &arguments);
    assert_eq!(rollback_over(&daemon, ON_EAST)["outcome"], "verified");
    east.serves(seconds(60), "web", "v1");
    bed.serves(seconds(60), "web", "v1");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn one_engine_under_two_names_is_watched_once() {
    let bed = Bed::lease();
    bed.image("web:v1", &Image::demo("v1"));
    let more = format!("[engines.twin]\nhost = \"unix://{}\"\n", bed.socket());
    let daemon = Daemon::start_unready(bed.socket(), None, &more);
    bed.deploy("web", "web:v1", &WATCHED);
    daemon.proved("web");
    eventually(seconds(60), "the twin is refused", || {
        let status = daemon.api("/api/v1/status")?;
        let said = status["engines"]["twin"]["error"].as_str().unwrap_or_default();
        if said.contains("is the same engine as [engine]") {
            Ok(())
        } else {
            Err(status["engines"].to_string())
        }
    });
    assert!(daemon.service("twin/web").is_err());
}

/// Through a real SSH server, whose connections are cut while the bad release is there, and while it is being rolled back.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn an_engine_behind_ssh_is_watched_and_rolled_back() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_EXIT_AFTER", "300ms").env("DEMO_EXIT_CODE", "3"));
    let mut server = Sshd::start(&bed);
    let daemon = behind_ssh(&server, &[("east", &server.url())]);
    let arguments = ["--label", "backstop.enable=true", "--restart", "always"];
    bed.deploy("web", "web:v1", &arguments);
    daemon.proved(ON_EAST);
    cut_and_back(&server, &daemon);

    server.stop();
    daemon.in_state(seconds(60), ON_EAST, &["blind"]);
    engine_says(&daemon, "east", &["not answer: ssh: connect to host 127.0.0.1 port ", "Connection refused"]);
    server.start_again();
    daemon.proved(ON_EAST);

    bed.deploy("web", "web:v2", &arguments);
    cut_and_back(&server, &daemon);
    for step in ["planned the way", "begun: stop web"] {
        eventually(seconds(120), &format!("a rollback comes to `{step}`"), || {
            let journal = journal(&daemon, &newest_rollback(&daemon, ON_EAST)?);
            if journal.contains(step) { Ok(()) } else { Err(journal) }
        });
        server.cut();
    }
    let record = rollback_over(&daemon, ON_EAST);
    assert_eq!(record["outcome"], "verified", "{record:#}");
    bed.serves(seconds(60), "web", "v1");
    nothing_is_left(&bed);
}

/// What `ssh` says last is what a person needs to know, however much the server says first.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn an_ssh_that_gets_nowhere_is_told_in_its_words() {
    let bed = Bed::lease();
    let server = Sshd::start(&bed);
    let (stranger, forged) = (server.url_by(STRANGER), server.url_by(FORGED));
    let daemon = behind_ssh(&server, &[("east", &server.url()), (STRANGER, &stranger), (FORGED, &forged)]);
    engine_says(&daemon, STRANGER, &["ssh: ", "ops@127.0.0.1: Permission denied (publickey)"]);
    engine_says(&daemon, FORGED, &["ssh: ", "Host key for [127.0.0.1]:", "Host key verification failed"]);
    eventually(seconds(60), "the one that is let in answers", || {
        let metrics = daemon.get("/metrics")?.body;
        let lines = ["{engine=\"east\"} 1", "{engine=\"stranger\"} 0", "{engine=\"forged\"} 0"];
        let is = lines.iter().all(|line| metrics.contains(&format!("\nbackstop_engine_up{line}\n")));
        if is { Ok(()) } else { Err(metrics) }
    });
    let (_, status) = daemon.command(&["status"]);
    assert!(status.contains("Permission denied (publickey)"), "{status}");
    assert!(!status.contains("@@@"), "{status}");
}

/// A daemon whose `ssh` knows the server; its own engine is not there.
fn behind_ssh(server: &Sshd, engines: &[(&str, &str)]) -> Daemon {
    let more: String =
        engines.iter().map(|(name, url)| format!("[engines.{name}]\nhost = \"{url}\"\n")).collect();
    let mut daemon = Daemon::start_unready("/nowhere/docker.sock", None, &more);
    daemon.set("PATH", &server.client_path());
    daemon.again();
    daemon
}

/// All connections are cut; others take their place, and nobody has to do anything for it.
#[track_caller]
fn cut_and_back(server: &Sshd, daemon: &Daemon) {
    let gone = server.cut();
    assert!(!gone.is_empty(), "there was no connection to cut");
    eventually(seconds(60), "there are other connections", || {
        let now = server.connections();
        if now.difference(&gone).next().is_some() { Ok(()) } else { Err(format!("{now:?}")) }
    });
    eventually(seconds(60), "the engine is there again", || {
        let engines = daemon.api("/api/v1/status")?["engines"].clone();
        if engines["east"]["error"].is_null() { Ok(()) } else { Err(engines.to_string()) }
    });
}

/// What is wrong with an engine is told with all these words.
#[track_caller]
fn engine_says(daemon: &Daemon, engine: &str, words: &[&str]) {
    eventually(seconds(60), &format!("of {engine} is said: {words:?}"), || {
        let status = daemon.api("/api/v1/status")?;
        let said = status["engines"][engine]["error"].as_str().unwrap_or_default();
        if words.iter().all(|word| said.contains(word)) { Ok(()) } else { Err(status["engines"].to_string()) }
    });
}

/// An engine of another machine, which asks for a certificate: only who knows its CA, and is known to it, gets in.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn an_engine_behind_tls_is_watched_and_rolled_back() {
    let east = Bed::start(Own::Machine);
    let files = tempfile::tempdir().unwrap();
    let path = |name: &str| files.path().join(name);
    let (ca, stranger) = (Ca::new(), Ca::new());
    ca.write(&path("ca.pem"));
    ca.server(&east.machine(), &path("server.pem"), &path("server.key"));
    ca.client(&path("cert.pem"), &path("key.pem"));
    stranger.write(&path("strange-ca.pem"));
    stranger.client(&path("strange-cert.pem"), &path("strange-key.pem"));
    east.serve_tls(files.path());
    images(&east, &Image::demo("v2").env("DEMO_EXIT_AFTER", "300ms").env("DEMO_EXIT_CODE", "3"));

    let (machine, directory) = (east.machine(), files.path().display().to_string());
    let by = |name: &str, files: [&str; 3]| {
        let [ca, cert, key] = files.map(|file| format!("{directory}/{file}"));
        format!(
            "[engines.{name}]\nhost = \"tcp://{machine}:2376\"\ntls_ca = \"{ca}\"\ntls_cert = \"{cert}\"\ntls_key = \"{key}\"\n"
        )
    };
    let more = format!(
        "[engines.east]\nhost = \"tcp://{machine}:2376\"\ncert_path = \"{directory}\"\n{}{}",
        by("duped", ["strange-ca.pem", "cert.pem", "key.pem"]),
        by("unknown", ["ca.pem", "strange-cert.pem", "strange-key.pem"])
    );
    let daemon = Daemon::start_unready("/nowhere/docker.sock", None, &more);
    for (engine, file) in [("duped", "strange-ca.pem"), ("unknown", "strange-cert.pem")] {
        engine_says(&daemon, engine, &[&path(file).display().to_string(), "sign"]);
    }
    let arguments = ["--label", "backstop.enable=true", "--restart", "always"];
    east.deploy("web", "web:v1", &arguments);
    daemon.proved(ON_EAST);
    east.deploy("web", "web:v2", &arguments);
    assert_eq!(rollback_over(&daemon, ON_EAST)["outcome"], "verified");
    east.serves(seconds(60), "web", "v1");
    let metrics = daemon.get("/metrics").unwrap().body;
    for line in ["{engine=\"east\"} 1", "{engine=\"duped\"} 0", "{engine=\"unknown\"} 0", "{engine=\"\"} 0"] {
        assert!(metrics.contains(&format!("\nbackstop_engine_up{line}\n")), "{line}: {metrics}");
    }
}
