//! Several engines, one daemon: each one's services are judged and rolled back on their own engine, whatever becomes of the
//! others.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::bed::Own;
use crate::support::ca::Ca;
use crate::support::story::{WATCHED, images, rollback_over};
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

/// `ssh` is a script here, which runs what it is asked to run beside the engine: there is no sshd on a test machine.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn an_engine_behind_ssh_is_watched_and_rolled_back() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_EXIT_AFTER", "300ms").env("DEMO_EXIT_CODE", "3"));
    let bin = tempfile::tempdir().unwrap();
    let script = format!(
        "#!/bin/sh\necho \"$*\" >>{}/calls\nwhile [ \"$1\" != -- ]; do shift; done\nshift 2\n[ $# -gt 0 ] || exit 1\n\
         shift\nexec {} -H unix://{} \"$@\"\n",
        bin.path().display(),
        bed.client(),
        bed.socket()
    );
    fs::write(bin.path().join("ssh"), script).unwrap();
    fs::set_permissions(bin.path().join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
    let more = "[engines.east]\nhost = \"ssh://ops@east.example.com:2222\"\n";
    let mut daemon = Daemon::start_unready("/nowhere/docker.sock", None, more);
    let path = format!("{}:{}", bin.path().display(), std::env::var("PATH").unwrap());
    daemon.set("PATH", &path);
    daemon.again();
    let arguments = ["--label", "backstop.enable=true", "--restart", "always"];
    bed.deploy("web", "web:v1", &arguments);
    daemon.proved(ON_EAST);
    bed.deploy("web", "web:v2", &arguments);
    assert_eq!(rollback_over(&daemon, ON_EAST)["outcome"], "verified");
    bed.serves(seconds(60), "web", "v1");
    let calls = fs::read_to_string(bin.path().join("calls")).unwrap();
    assert!(calls.contains("-o BatchMode=yes") && calls.contains("-l ops -p 2222"), "{calls}");
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
        eventually(seconds(60), &format!("it is said that {file} is wrong"), || {
            let status = daemon.api("/api/v1/status")?;
            let said = status["engines"][engine]["error"].as_str().unwrap_or_default();
            if said.contains(&path(file).display().to_string()) && said.contains("sign") {
                Ok(())
            } else {
                Err(status["engines"].to_string())
            }
        });
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
