//! "Rollback Procedures": images tagged `rollback` by the deployment, two Compose files, a CouchDB and a MeiliSearch.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use super::{Project, answer, reminders, report, step, watched};
use crate::support::port::free_port_of;
use crate::support::story::rollback_over;
use crate::support::{Bed, Daemon, Image, Webhook, seconds};

const OPTIONS: [&str; 4] = ["-f", "docker-compose.yml", "-f", "docker-compose.production.yml"];
const BACKEND: &str = "kompass-backend-1";
const FRONTEND: &str = "kompass-frontend-1";

/// Two services that are one release, with the stores that they depend on.
const RELEASE: &str = r#"
    [groups]
    kompass = ["kompass-backend", "kompass-frontend"]
    [services.kompass-backend.dependencies]
    couchdb = { url = "http://STORES/_up", interval = "2s" }
    meilisearch = { url = "http://STORES/health", interval = "2s" }
    [services.kompass-backend.hooks.functional-tests]
    phase = "before_verify"
    timeout = "90s"
    steps = [
        { url = "http://127.0.0.1:@PORT@/login", method = "POST", headers = { Content-Type = "application/json" }, body = '{"user": "demo", "password": "demo"}', capture = { token = ".token" } },
        { url = "http://127.0.0.1:@PORT@/me", headers = { Authorization = "Bearer {{token}}" } },
    ]
    [services.kompass-backend]
    schema = "breaking"
    [services.kompass-backend.migrations.downgrade]
    steps = [
        { url = "http://STORES/_replicate", method = "POST", headers = { Content-Type = "application/json" }, body = '{"source":"kompass_backup","target":"kompass","create_target":false}', json = { ".ok" = true } },
        { url = "http://STORES/indexes/customers", method = "DELETE" },
    ]
"#;

/// What CouchDB and MeiliSearch are asked for, and how they answer: what their documentation says.
struct Stores {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Stores {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut request, mut length) = (String::new(), 0);
                loop {
                    let mut line = String::new();
                    if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
                        break;
                    }
                    let lower = line.to_ascii_lowercase();
                    if let Some(value) = lower.strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    if request.is_empty() {
                        request = line.trim().trim_end_matches(" HTTP/1.1").to_owned();
                    }
                }
                let mut body = vec![0; length];
                let _ = reader.read_exact(&mut body);
                let (status, answer) = match request.as_str() {
                    "POST /_replicate" => ("200 OK", r#"{"ok":true,"session_id":"1","history":[]}"#),
                    "DELETE /indexes/customers" => ("202 Accepted", r#"{"taskUid":1,"status":"enqueued"}"#),
                    "GET /_up" | "GET /health" => ("200 OK", r#"{"status":"ok"}"#),
                    _ => ("404 Not Found", "{}"),
                };
                if !request.starts_with("GET") {
                    heard.lock().unwrap().push(format!("{request} {}", String::from_utf8_lossy(&body)));
                }
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    answer.len()
                );
                let _ = stream.write_all((head + answer).as_bytes());
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// The deployment's own script: what ran is tagged `rollback`, and the new image is `latest`.
fn deploy(bed: &Bed, project: &Project<'_>, version: &str) {
    for name in ["backend", "frontend"] {
        let _ = bed.try_docker(&["tag", &format!("{name}:latest"), &format!("{name}:rollback")]);
        bed.docker(&["tag", &format!("{name}:{version}"), &format!("{name}:latest")]);
    }
    project.compose(&["up", "-d", "--force-recreate"]);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn rollback_images_and_stores() {
    let bed = Bed::lease();
    for name in ["backend", "frontend"] {
        bed.image(&format!("{name}:1"), &Image::demo("1"));
    }
    bed.image("backend:2", &Image::demo("2"));
    bed.image("frontend:2", &Image::demo("2"));
    let (stores, webhook) = (Stores::start(), Webhook::start());
    let port = free_port_of("127.0.0.1").to_string();
    let more = RELEASE.replace("STORES", &stores.address).replace("@PORT@", &port);
    let daemon = Daemon::start(&bed, Some(&webhook.url()), &more);
    let base = format!(
        "services:\n{}{}",
        watched("backend", "backend:latest", &format!("    ports: ['127.0.0.1:{port}:8080']\n")),
        watched("frontend", "frontend:latest", "")
    );
    let over = "services:\n  backend:\n    environment:\n      GREETING: production\n    labels:\n      backstop.trial: 30s\n  frontend:\n    labels:\n      backstop.trial: 30s\n";
    let files = [("docker-compose.yml", base.as_str()), ("docker-compose.production.yml", over)];
    let project = Project::new(&bed, "kompass", &OPTIONS, &files);
    deploy(&bed, &project, "1");
    for name in ["kompass-backend", "kompass-frontend"] {
        daemon.proved(name);
    }

    step("Automatic Rollback, trigger: health checks fail after deployment");
    deploy(&bed, &project, "2");
    bed.serves(seconds(60), BACKEND, "2");
    bed.turn(BACKEND, "health", "error");

    step(
        "Stop new containers; restore previous Docker images (tagged as `rollback`); restart services with previous version",
    );
    for name in ["kompass-backend", "kompass-frontend"] {
        let record = rollback_over(&daemon, name);
        assert_eq!(record["outcome"], "verified", "{record:#}");
    }
    for (container, image) in [(BACKEND, "backend:1"), (FRONTEND, "frontend:1")] {
        let wanted = bed.docker(&["image", "inspect", "--format", "{{.Id}}", image]);
        assert_eq!(bed.inspect(container)["Image"], wanted.trim());
    }
    step("Tag rollback images: latest is what runs");
    for name in ["backend", "frontend"] {
        let of =
            |tag: &str| bed.docker(&["image", "inspect", "--format", "{{.Id}}", &format!("{name}:{tag}")]);
        assert_eq!(of("latest"), of("1"));
    }
    assert_eq!(bed.ask(BACKEND).unwrap()["env"]["GREETING"], "production", "by both files");

    step(
        "CouchDB Rollback: restore from backup; MeiliSearch Rollback: clear current index, restart backend to re-index",
    );
    let asked = stores.asked();
    assert_eq!(asked.len(), 2, "each once: {asked:?}");
    assert!(asked[0].starts_with("POST /_replicate") && asked[0].contains("kompass_backup"), "{asked:?}");
    assert!(asked[1].starts_with("DELETE /indexes/customers"), "{asked:?}");

    verified(&bed, &daemon, &webhook);

    step("The next deployment by the same script is a new one, and what it sets aside is the good image");
    project.compose(&["up", "-d"]);
    assert_eq!(bed.ask(BACKEND).unwrap()["version"], "1");
}

/// What a person looks at afterwards, and writes down.
#[track_caller]
fn verified(bed: &Bed, daemon: &Daemon, webhook: &Webhook) {
    step("Verification, 1. Health Checks: backend, frontend, CouchDB, MeiliSearch");
    for container in [BACKEND, FRONTEND] {
        answer(bed, container, "/healthz", 200);
    }
    let gates = rollback_over(daemon, "kompass-backend");
    assert!(gates["gates"].to_string().contains("couchdb, meilisearch ok"), "{gates:#}");

    let detail = gates["detail"].as_str().unwrap();
    assert!(detail.contains("couchdb, meilisearch ok"), "every dependency is asked again: {detail}");

    step("Alert team");
    webhook.announced(seconds(60), &["ROLLBACK COMPLETE", "kompass-backend"]);

    step(
        "Post-Rollback: what went wrong? when was it detected? who performed the rollback? root cause (if known)",
    );
    let boxes = ["Issue confirmed", "Team notified", "Smoke tests and login flow", "Incident report created"];
    let said = report(daemon, &gates, &boxes);
    for words in ["health check failed", "backstop"] {
        assert!(said.contains(words), "no `{words}` in:\n{said}");
    }
    step("2. Functional Tests: test key endpoints; test login");
    reminders(
        &said,
        &[
            ("Stakeholders informed", "on-call"),
            ("Root cause", "service owner"),
            ("test that fails without it", "service owner"),
            ("runbooks and deployment checklist updated", "team lead"),
            ("Missed warning signs reviewed", "team lead"),
            ("Scope of impact", "on-call"),
        ],
    );

    step("Rollback History: date, environment, reason, rolled back by, duration, resolution");
    let (code, log) = daemon.command(&["history", "--format", "csv"]);
    assert_eq!(code, Some(0), "{log}");
    let (head, rows) = log.split_once('\n').unwrap();
    let row = rows.lines().find(|row| row.contains("kompass-backend")).unwrap_or_else(|| panic!("{log}"));
    assert_eq!(
        head.trim(),
        "Date,Service,Environment,From,To,Reason,Decided by,Duration,Resolution,ID",
        "{log}"
    );
    for words in ["health check failed", "backstop", "verified"] {
        assert!(row.contains(words), "no `{words}` in {row}");
    }
}
