//! The store on real disks: what it acknowledged is there after `kill -9`, and every broken disk is one clear error.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use backstop::clock::Clock;
use backstop::core::Timestamp;
use backstop::core::announcement::{Announcement, AnnouncementKind};
use backstop::core::decision::{Decision, Gate, GateAnswer, Reason, Verdict};
use backstop::core::io::RollbackRequest;
use backstop::core::ledger::{
    Flags, LedgerChange, LedgerEntry, Pause, RollbackOutcome, RollbackRecord, Standing,
};
use backstop::core::release::{ImageId, Release, ReleaseId, RollbackId, ServiceName};
use backstop::core::settings::Severity;
use backstop::runtime::Snapshot;
use backstop::store::{Delivery, DeliveryState, Matter, Store, StoreError};
use rusqlite::Connection;
use serde_json::json;

/// The database in a state directory.
const FILE: &str = "backstop.sqlite3";

/// A disk of one megabyte; it goes away with the value. None if this process may not mount.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs"])
            .arg(dir.path())
            .output()
            .is_ok_and(|o| o.status.success());
        if !mounted {
            // Not a failure of ours; `tests/run` is run as root and gets here never.
            std::io::stderr().write_all(b"skipped: mounting a small disk takes root\n").unwrap();
        }
        mounted.then_some(Self(dir))
    }

    fn remount(&self, how: &str) {
        let done = Command::new("mount")
            .args(["-o", &format!("remount,{how}")])
            .arg(self.0.path())
            .status()
            .unwrap();
        assert!(done.success(), "remount {how}");
    }

    fn fill(&self) -> std::path::PathBuf {
        let path = self.0.path().join("ballast");
        let mut ballast = std::fs::File::create(&path).unwrap();
        while ballast.write_all(&[0; 512]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a thread of the store may still be closing its file.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(secs)
}

fn service(name: &str) -> ServiceName {
    ServiceName::new(name)
}

fn release(id: &str) -> Release {
    Release {
        id: ReleaseId::new(id),
        image: ImageId::new(format!("sha256:{id}")),
        reference: format!("shop:{id}"),
        digests: vec![format!("registry/shop@sha256:{id}")],
        fingerprint: "f".into(),
        version: Some("1.2.3".into()),
    }
}

fn entry(id: &str, deployed: u64, standing: Standing) -> LedgerEntry {
    LedgerEntry {
        release: release(id),
        first_seen: at(deployed),
        deployed: at(deployed),
        standing,
        note: None,
        gone: None,
        schema: Default::default(),
    }
}

fn decision(name: &str, when: Timestamp) -> Decision {
    Decision {
        at: when,
        service: service(name),
        verdict: Verdict::Rollback,
        reason: Reason::MemoryHigh {
            used: 95,
            limit: 100,
            threshold: 0.9,
            over: Duration::from_secs(60),
            samples: 12,
        },
        rule: Some("memory".to_owned()),
        severity: Severity::Critical,
        from: Some(release("bad")),
        to: Some(release("good")),
        gates: vec![GateAnswer { gate: Gate::Cooldown, allow: true, why: "no rollback before".into() }],
        dry_run: false,
    }
}

fn record(id: &str, name: &str, started: Timestamp, outcome: RollbackOutcome) -> RollbackRecord {
    RollbackRecord {
        id: RollbackId::new(id),
        service: service(name),
        environment: "production".into(),
        from: Some(release("bad")),
        to: release("good"),
        decision: decision(name, started),
        decided_by: "backstop".into(),
        onset: Some(started.before(Duration::from_secs(10))),
        started,
        applied: Some(started + Duration::from_secs(2)),
        ended: outcome.is_over().then(|| started + Duration::from_millis(32_500)),
        outcome,
        pin: None,
        along: Vec::new(),
        approval: None,
        proof: None,
        order: None,
        request: RollbackRequest {
            id: RollbackId::new(id),
            service: service(name),
            from: Some(ReleaseId::new("bad")),
            to: release("good"),
            stop_grace: Duration::from_secs(3),
            decided: Some(started),
            vanished: false,
            why: String::new(),
            downgrade: None,
            mitigation: false,
        },
    }
}

fn announcement(key: &str, rollback: Option<&str>, when: u64) -> Announcement {
    Announcement {
        key: key.into(),
        at: at(when),
        kind: AnnouncementKind::RollbackInProgress,
        service: Some(service("shop")),
        rollback: rollback.map(RollbackId::new),
        approval: None,
        environment: "production".into(),
        title: format!("ROLLBACK IN PROGRESS: {key}"),
        fields: vec![("Reason".into(), "it's down; \"quoted\" ünï\n<b>".into())],
        next: None,
        severity: None,
        closes: None,
    }
}

/// What the `sqlite3` shell says: an operator's view, from another process.
fn shell(dir: &Path, sql: &str) -> String {
    let said = Command::new("sqlite3").arg("-readonly").arg(dir.join(FILE)).arg(sql).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).unwrap().trim().to_owned()
}

fn integrity(dir: &Path) -> String {
    let c = Connection::open(dir.join(FILE)).unwrap();
    c.pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap()
}

async fn refused(dir: &Path) -> StoreError {
    Store::open(dir).await.expect_err("this must not open")
}

#[tokio::test]
async fn what_the_core_remembers_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let now = Clock::start().now();
    let old = now.before(Duration::from_secs(31 * 24 * 3600));
    let good = entry("good", 5, Standing::KnownGood { since: at(7) });
    let bad = entry("bad", 9, Standing::Quarantined { since: at(9), why: "it failed".into() });
    let paused = Flags {
        paused: Some(Pause { by: "ann".into(), why: "freeze".into(), since: at(1), until: Some(at(99)) }),
        ..Flags::default()
    };
    let stuck = Flags { stuck: Some("breaker".into()), ..Flags::default() };
    let over = RollbackOutcome::Verified("30 samples".into());
    let entry_of =
        |entry: &LedgerEntry| LedgerChange::Entry { service: service("shop"), entry: entry.clone() };
    {
        let store = Store::open(dir.path()).await.unwrap();
        let changes = vec![
            entry_of(&good),
            entry_of(&entry("gone", 1, Standing::Trial)),
            LedgerChange::Forget { service: service("shop"), release: ReleaseId::new("gone") },
            entry_of(&bad),
            LedgerChange::Flags { service: Some(service("shop")), flags: paused.clone() },
            LedgerChange::Flags { service: None, flags: stuck.clone() },
            LedgerChange::Decided(Box::new(decision("shop", now))),
            LedgerChange::Decided(Box::new(decision("blog", now))),
            LedgerChange::RollbackOpened(Box::new(record(
                "01-open",
                "shop",
                old,
                RollbackOutcome::Executing,
            ))),
            LedgerChange::RollbackOpened(Box::new(record("02-over", "shop", old, over.clone()))),
            LedgerChange::RollbackOpened(Box::new(record("03-now", "blog", now, RollbackOutcome::Executing))),
            LedgerChange::RollbackUpdated(Box::new(record("03-now", "blog", now, over.clone()))),
        ];
        store.remember(changes).await.unwrap();
    }
    let store = Store::open(dir.path()).await.unwrap();
    let remembered = store.load(now).await.unwrap();
    assert_eq!(remembered.ledgers, [(service("shop"), vec![bad, good])]);
    assert_eq!(remembered.flags, [(None, stuck), (Some(service("shop")), paused)]);
    let ids = |records: &[RollbackRecord]| {
        records.iter().map(|r| r.id.as_str().to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(ids(&remembered.rollbacks), "01-open 03-now", "open ones and those of the last 30 days");
    assert_eq!(remembered.rollbacks[1], record("03-now", "blog", now, over));
    assert_eq!(ids(&store.rollbacks(None, None, 2).await.unwrap()), "03-now 02-over");
    let before = RollbackId::new("02-over");
    assert_eq!(ids(&store.rollbacks(Some(&service("shop")), Some(&before), 9).await.unwrap()), "01-open");
    assert_eq!(store.rollback(&before).await.unwrap().unwrap().service, service("shop"));
    assert_eq!(store.rollback(&RollbackId::new("none")).await.unwrap(), None);
    assert_eq!(store.decisions(Some(&service("blog")), 9).await.unwrap(), [decision("blog", now)]);
    assert_eq!(store.decisions(None, 1).await.unwrap(), [decision("blog", now)]);
}

/// An id is given when a replacement is prepared, which may be long before the decision.
#[tokio::test]
async fn rollbacks_are_listed_by_when_they_were_decided() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let at = Timestamp::from_secs;
    let opened = [("1", 300), ("2", 100), ("3", 200)].map(|(id, started)| {
        LedgerChange::RollbackOpened(Box::new(record(id, "shop", at(started), RollbackOutcome::Executing)))
    });
    store.remember(opened.into()).await.unwrap();
    let (mut listed, mut before) = (Vec::new(), None);
    while let Some(last) = store.rollbacks(None, before.as_ref(), 1).await.unwrap().pop() {
        listed.push(last.id.to_string());
        before = Some(last.id);
    }
    assert_eq!(listed, ["1", "3", "2"], "newest decision first, page by page");
}

#[tokio::test]
async fn specifications_and_journals_come_back_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = |name: &str| Snapshot {
        name: name.into(),
        inspect: json!({"Zulu": 1, "Alpha": {"NanoCpus": 9_007_199_254_740_993_i64, "Env": ["A=\u{1f512}"]}}),
        image: json!({"Id": "sha256:1"}),
        context: json!(null),
    };
    let (shop, good, open, closed) =
        (service("shop"), ReleaseId::new("good"), RollbackId::new("1"), RollbackId::new("0"));
    {
        let store = Store::open(dir.path()).await.unwrap();
        store.save_snapshots(&shop, &good, &[snapshot("old")]).await.unwrap();
        store.save_snapshots(&shop, &good, &[snapshot("a"), snapshot("b")]).await.unwrap();
        for n in 0..3 {
            store.append_journal(&open, &json!({"event": "started", "step": n}), false).await.unwrap();
        }
        store.append_journal(&closed, &json!("planned"), false).await.unwrap();
        store.append_journal(&closed, &json!("closed"), true).await.unwrap();
    }
    let store = Store::open(dir.path()).await.unwrap();
    let saved = store.snapshots(&shop, &good).await.unwrap();
    assert_eq!(saved, [snapshot("a"), snapshot("b")]);
    assert_eq!(saved[0].inspect.to_string(), snapshot("a").inspect.to_string(), "the order of keys too");
    store.drop_snapshots(&shop, &good).await.unwrap();
    assert_eq!(store.snapshots(&shop, &good).await.unwrap(), []);
    let events: Vec<_> = (0..3).map(|n| json!({"event": "started", "step": n})).collect();
    assert_eq!(store.unfinished_journals().await.unwrap(), [(open, events)]);
    let told = store.journal(&closed).await.unwrap();
    assert_eq!(told.iter().map(|(_, event)| event.clone()).collect::<Vec<_>>(), ["planned", "closed"]);
    assert!(told[0].0 <= told[1].0 && Clock::start().now().since(told[0].0) < Duration::from_secs(60));
}

/// A delivery that waits.
fn delivery(channel: &str) -> Delivery {
    Delivery {
        channel: channel.into(),
        message: "{}".into(),
        attempts: 0,
        next: at(10),
        state: DeliveryState::Waiting,
        last_error: None,
    }
}

async fn waiting(store: &Store) -> Vec<String> {
    let found = store.waiting(0, 9, at(99)).await.unwrap();
    found.into_iter().map(|o| o.announcement.key).collect()
}

#[tokio::test]
async fn the_outbox_keeps_the_first_words_and_how_each_channel_fared() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    for (key, rollback) in [("began", Some("r1")), ("ended", Some("r1")), ("other", None)] {
        store.enqueue(&announcement(key, rollback, 10)).await.unwrap();
    }
    let mut reworded = announcement("began", Some("r1"), 10);
    reworded.title = "other words".into();
    store.enqueue(&reworded).await.unwrap();
    assert_eq!(waiting(&store).await, ["began", "ended", "other"]);
    let found = store.waiting(0, 1, at(10)).await.unwrap();
    assert_eq!(found[0].announcement, announcement("began", Some("r1"), 10));
    assert!(!found[0].routed);

    let (id, state) = (found[0].id, "SELECT state FROM announcements WHERE title LIKE '%began%'");
    let failed = Delivery { attempts: 1, next: at(60), last_error: Some("503".into()), ..delivery("b") };
    let both = [Delivery { state: DeliveryState::Delivered(at(11)), ..delivery("a") }, failed.clone()];
    store.record(id, &both, None, at(11)).await.unwrap();
    let again = store.waiting(0, 1, at(60)).await.unwrap().remove(0);
    assert!(again.routed);
    assert_eq!(again.deliveries, both);
    assert_eq!(shell(dir.path(), state), "waiting");
    let abandoned = Delivery { state: DeliveryState::Abandoned(at(61)), ..failed };
    store.record(id, &[both[0].clone(), abandoned.clone()], None, at(61)).await.unwrap();
    assert_eq!(shell(dir.path(), state), "delivered", "somebody heard it");
    assert_eq!(waiting(&store).await, ["ended", "other"]);
    assert_eq!(
        shell(dir.path(), "SELECT channel, state, last_error FROM delivery_log"),
        "a|delivered|\nb|abandoned|503"
    );
    store.record(2, &[Delivery { channel: "a".into(), ..abandoned }], None, at(61)).await.unwrap();
    store.record(3, &[], None, at(61)).await.unwrap();
    assert_eq!(waiting(&store).await, [""; 0]);
    assert_eq!(shell(dir.path(), "SELECT state FROM announcements"), "delivered\nabandoned\ndelivered");
    store.enqueue(&announcement("other", None, 10)).await.unwrap();
    assert_eq!(waiting(&store).await, [""; 0], "what was delivered is not said again");
}

#[tokio::test]
async fn matters_are_kept_until_they_are_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    store.enqueue(&announcement("began", None, 10)).await.unwrap();
    let mut matter = Matter {
        subject: "shop".into(),
        opened: at(10),
        severity: Severity::High,
        spoken: at(10),
        rollback: None,
        told: ["a".to_owned()].into(),
        asked: Some(announcement("began", None, 10)),
        acknowledged: None,
        levels: ["first".to_owned()].into(),
        round: 0,
        closed: None,
    };
    store.record(1, &[delivery("a")], Some(&matter), at(10)).await.unwrap();
    assert_eq!(store.matters().await.unwrap(), [matter.clone()]);
    matter.acknowledged = Some(("anna".into(), at(20)));
    store.record(1, &[delivery("a")], Some(&matter), at(20)).await.unwrap();
    assert_eq!(shell(dir.path(), "SELECT acknowledged_by, closed_ms FROM matters"), "anna|");
    matter.closed = Some(at(30));
    store.record(1, &[delivery("a")], Some(&matter), at(30)).await.unwrap();
    assert_eq!(store.matters().await.unwrap(), []);
}

#[tokio::test]
async fn an_outbox_of_an_older_version_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path()).await.unwrap());
    let c = Connection::open(dir.path().join(FILE)).unwrap();
    let text =
        serde_json::to_string(&announcement("old", None, 10)).unwrap().replace(",\"severity\":null", "");
    assert!(!text.contains("severity"));
    c.execute_batch(
        "DROP VIEW delivery_log; DROP TABLE matters; DROP TRIGGER outbox_forgotten; DROP TABLE deliveries;
         DROP TABLE evidence; DROP INDEX outbox_of_rollback;
         DROP VIEW checklist_log; DROP TABLE ticks; DROP TABLE tickets; DROP INDEX rollbacks_by_end; DROP TABLE drills;
         ALTER TABLE outbox DROP COLUMN routed_ms; PRAGMA user_version = 2",
    )
    .unwrap();
    c.execute(
        "INSERT INTO outbox (key, at_ms, kind, title, attempts, next_ms, announcement, last_error)
         VALUES ('old', 10000, 'blind', 'old', 3, 99000, ?1, '503')",
        [text],
    )
    .unwrap();
    drop(c);
    let store = Store::open(dir.path()).await.unwrap();
    let found = store.waiting(0, 9, at(20)).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].announcement, found[0].routed), (&announcement("old", None, 10), false));
}

#[tokio::test]
async fn an_announcement_that_cannot_be_read_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    store.enqueue(&announcement("one", None, 10)).await.unwrap();
    store.enqueue(&announcement("two", None, 10)).await.unwrap();
    let c = Connection::open(dir.path().join(FILE)).unwrap();
    c.execute("UPDATE outbox SET announcement = '{\"kind\":\"of another version\"}' WHERE key = 'one'", [])
        .unwrap();
    assert_eq!(waiting(&store).await, ["two"]);
    assert_eq!(store.take_given_up(), 1);
    assert_eq!(shell(dir.path(), "SELECT state FROM announcements"), "waiting\nabandoned");
}

/// Not a test of its own: the process that the next test kills.
#[tokio::test]
#[ignore = "it is the child of the test below"]
async fn writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os("BACKSTOP_TEST_CRASH_DIR") else { return };
    let store = Store::open(Path::new(&dir)).await.unwrap();
    let mut stderr = std::io::stderr();
    let first = store.rollbacks(None, None, 1).await.unwrap();
    let first = first.first().map_or(0, |r| r.id.as_str().parse::<u64>().unwrap() + 1);
    for n in first.. {
        let id = format!("{n:08}");
        let open = record(&id, "shop", Clock::start().now(), RollbackOutcome::Executing);
        store
            .remember(vec![
                LedgerChange::Decided(Box::new(decision("shop", at(n)))),
                LedgerChange::RollbackOpened(Box::new(open)),
            ])
            .await
            .unwrap();
        store.append_journal(&RollbackId::new(&id), &json!(n), false).await.unwrap();
        store.enqueue(&announcement(&id, Some(&id), n)).await.unwrap();
        writeln!(stderr, "acknowledged {n}").unwrap();
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    const ROUNDS: u32 = 20;
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::writes_until_it_is_killed", "--ignored", "--nocapture"])
            .env("BACKSTOP_TEST_CRASH_DIR", dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let number = |line: String| line.strip_prefix("acknowledged ").expect(&line).to_owned();
        // Another moment in every round, at any point of the four writes.
        for _ in 0..=round * 3 {
            acknowledged.push(number(lines.next().expect("the child ended by itself").unwrap()));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.extend(lines.map_while(Result::ok).map(number));
        assert_eq!(integrity(dir.path()), "ok", "round {round}");
        for (table, column) in [
            ("rollbacks", "id"),
            ("journal", "event"),
            ("outbox", "at_ms / 1000"),
            ("decisions", "at_ms / 1000"),
        ] {
            let found = shell(dir.path(), &format!("SELECT CAST({column} AS INTEGER) FROM {table}"));
            let found: std::collections::HashSet<&str> = found.lines().collect();
            let lost: Vec<_> = acknowledged.iter().filter(|n| !found.contains(n.as_str())).collect();
            assert!(lost.is_empty(), "round {round}: {table} lost {lost:?}");
        }
    }
    assert!(acknowledged.len() > 500, "it wrote too little to mean anything: {}", acknowledged.len());
    let store = Store::open(dir.path()).await.unwrap();
    assert!(store.unfinished_journals().await.unwrap().len() >= acknowledged.len());
}

#[tokio::test]
async fn a_second_daemon_is_told_who_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let error = refused(dir.path()).await;
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    let me = format!("process {}", std::process::id());
    assert!(error.to_string().contains(&me), "{error}");
    drop(store);
    Store::open(dir.path()).await.unwrap();
}

#[tokio::test]
async fn secrets_are_readable_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("var/backstop");
    let store = Store::open(&dir).await.unwrap();
    store.probe().await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for file in std::fs::read_dir(&dir).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

/// Opens what `spoil` left of a store with content: it must be refused, and stay byte for byte as it was.
async fn spoiled(spoil: impl FnOnce(&Path)) -> StoreError {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    let store = Store::open(dir.path()).await.unwrap();
    for n in 0..50 {
        store.enqueue(&announcement(&n.to_string(), None, 10)).await.unwrap();
    }
    drop(store);
    let c = Connection::open(&path).unwrap();
    c.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(c);
    spoil(&path);
    let before = std::fs::read(&path).unwrap();
    let error = refused(dir.path()).await;
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    assert!(std::fs::read(&path).unwrap() == before, "the file was changed: {error}");
    error
}

#[tokio::test]
async fn a_damaged_file_is_named_and_left_as_it_is() {
    let garbage = spoiled(|path| {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[..100].fill(0x5a);
        std::fs::write(path, bytes).unwrap();
    });
    let half = spoiled(|path| {
        let length = std::fs::metadata(path).unwrap().len();
        std::fs::File::options().write(true).open(path).unwrap().set_len(length / 2 - 100).unwrap();
    });
    let page = spoiled(|path| {
        let mut bytes = std::fs::read(path).unwrap();
        let middle = bytes.len() / 2 / 4096 * 4096;
        bytes[middle..middle + 4096].fill(0xff);
        std::fs::write(path, bytes).unwrap();
    });
    let empty = spoiled(|path| std::fs::write(path, "").unwrap());
    for (what, error) in
        [("garbage", garbage.await), ("half", half.await), ("page", page.await), ("empty", empty.await)]
    {
        assert!(matches!(error, StoreError::Damaged { .. }), "{what}: {error}");
        assert!(error.to_string().contains("sqlite3 "), "{what}: {error}");
    }
}

#[tokio::test]
async fn a_newer_or_foreign_file_is_left_as_it_is() {
    let newer =
        spoiled(|path| Connection::open(path).unwrap().pragma_update(None, "user_version", 99).unwrap());
    assert!(matches!(newer.await, StoreError::Newer { found: 99, .. }));
    let foreign = spoiled(|path| {
        std::fs::remove_file(path).unwrap();
        Connection::open(path).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    });
    let error = foreign.await;
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
}

#[tokio::test]
async fn a_read_only_disk_is_named() {
    let Some(disk) = SmallDisk::new() else { return };
    drop(Store::open(disk.0.path()).await.unwrap());
    // The threads close their files in their own time; a disk with open files cannot become read-only.
    for _ in 0..100 {
        let done = Command::new("mount").args(["-o", "remount,ro"]).arg(disk.0.path()).output().unwrap();
        if done.status.success() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let error = refused(disk.0.path()).await;
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
    let empty = SmallDisk::new().unwrap();
    empty.remount("ro");
    let error = refused(empty.0.path()).await;
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
    empty.remount("rw");
    Store::open(empty.0.path()).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_is_named_and_the_store_comes_back_by_itself() {
    let Some(disk) = SmallDisk::new() else { return };
    let store = Store::open(disk.0.path()).await.unwrap();
    let shop = service("shop");
    store.enqueue(&announcement("before", None, 1)).await.unwrap();
    let ballast = disk.fill();
    let mut error = None;
    for n in 0..1000 {
        let change = LedgerChange::Decided(Box::new(decision("shop", at(n))));
        if let Err(e) = store.remember(vec![change]).await {
            error = Some(e);
            break;
        }
    }
    let error = error.expect("a full disk took a thousand decisions");
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert!(error.to_string().contains("df -h"), "{error}");
    assert!(matches!(store.probe().await, Err(StoreError::Full { .. })));
    assert!(store.append_journal(&RollbackId::new("1"), &json!(1), false).await.is_err());
    let known = store.decisions(Some(&shop), 1000).await.expect("reading needs no room").len();

    std::fs::remove_file(ballast).unwrap();
    store.probe().await.expect("there is room again");
    store.remember(vec![LedgerChange::Decided(Box::new(decision("shop", at(5000))))]).await.unwrap();
    assert_eq!(store.decisions(Some(&shop), 1000).await.unwrap().len(), known + 1);
    assert_eq!(integrity(disk.0.path()), "ok");
    drop(store);
    let nothing_written = SmallDisk::new().unwrap();
    let ballast = nothing_written.fill();
    let error = refused(nothing_written.0.path()).await;
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    std::fs::remove_file(ballast).unwrap();
    Store::open(nothing_written.0.path()).await.expect("half a store must not stay behind");
}

#[tokio::test]
async fn a_file_taken_away_is_noticed_before_anything_is_written_to_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let (path, aside) = (dir.path().join(FILE), dir.path().join("aside"));
    std::fs::rename(&path, &aside).unwrap();
    let error = store.probe().await.expect_err("it was moved away");
    assert!(matches!(error, StoreError::Gone { .. }), "{error}");
    assert!(store.append_journal(&RollbackId::new("1"), &json!(1), false).await.is_err());
    std::fs::rename(&aside, &path).unwrap();
    store.probe().await.expect("it is back");
}

#[tokio::test]
async fn a_shell_that_holds_the_lock_is_an_error_and_no_hang() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let c = Connection::open(dir.path().join(FILE)).unwrap();
    c.execute_batch("BEGIN IMMEDIATE").unwrap();
    let answered = tokio::time::timeout(Duration::from_secs(20), store.probe()).await.unwrap();
    let error = answered.expect_err("somebody else is writing");
    assert!(matches!(error, StoreError::Busy { .. }), "{error}");
    c.execute_batch("ROLLBACK").unwrap();
    store.probe().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sqlite3_shell_reads_the_views_while_the_daemon_writes() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let started = at(1_700_000_000);
    store
        .remember(vec![
            LedgerChange::RollbackOpened(Box::new(record(
                "1",
                "shop",
                started,
                RollbackOutcome::Verified("30 samples".into()),
            ))),
            LedgerChange::Entry { service: service("shop"), entry: entry("good", 5, Standing::Trial) },
        ])
        .await
        .unwrap();
    let writing = tokio::spawn({
        let store = store.clone();
        async move {
            for n in 0..u64::MAX {
                let a = announcement(&n.to_string(), None, n);
                store.enqueue(&a).await.unwrap();
                store.remember(vec![LedgerChange::Decided(Box::new(decision("shop", at(n))))]).await.unwrap();
            }
        }
    });
    for _ in 0..10 {
        assert_eq!(
            shell(dir.path(), "SELECT date, service, outcome, duration_s FROM rollback_log"),
            "2023-11-14 22:13:20|shop|verified|32.5"
        );
        assert_eq!(shell(dir.path(), "SELECT reference, standing FROM release_ledger"), "shop:good|trial");
        for view in ["decision_log", "announcements"] {
            shell(dir.path(), &format!("SELECT count(*) FROM {view}"));
        }
    }
    assert!(!writing.is_finished());
    writing.abort();
    let reason = shell(dir.path(), "SELECT reason FROM decision_log LIMIT 1");
    assert!(reason.starts_with("memory has been above 90 % of its limit for 1m"), "{reason}");
}

fn raw(dir: &Path) -> Connection {
    Connection::open(dir.join(FILE)).unwrap()
}

fn count(dir: &Path, what: &str) -> i64 {
    raw(dir).query_row(&format!("SELECT count(*) FROM {what}"), [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn open_rollbacks_are_always_loaded_and_closed_ones_as_long_as_they_may_count() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let now = at(1_800_000_000);
    let days = |days: u64| now.before(Duration::from_secs(days * 24 * 3600));
    let over = || RollbackOutcome::Void(String::new());
    let ended_late = RollbackRecord { ended: Some(days(29)), ..record("5", "e", days(32), over()) };
    let records = [
        record("1", "a", days(300), RollbackOutcome::Executing),
        record("2", "b", days(70), RollbackOutcome::Verifying),
        record("3", "c", days(31), over()),
        record("4", "d", days(29), RollbackOutcome::Stuck("both failed".into())),
        ended_late,
    ];
    store.remember(records.map(|r| LedgerChange::RollbackOpened(Box::new(r))).into()).await.unwrap();
    let loaded = async |now| -> Vec<String> {
        store.load(now).await.unwrap().rollbacks.iter().map(|r| r.id.to_string()).collect()
    };
    assert_eq!(loaded(now).await, ["1", "2", "5", "4"], "oldest first");
    let later = now + Duration::from_secs(365 * 24 * 3600);
    assert_eq!(loaded(later).await, ["1", "2"], "it is the time now that counts, not the newest row");
    assert_eq!(loaded(at(0)).await.len(), 5, "with a clock that is wrong, none is passed over");
}

#[tokio::test]
async fn a_flag_that_is_taken_back_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    for of in [None, Some(service("shop"))] {
        let stuck = Flags { stuck: Some("look".into()), ..Flags::default() };
        store.remember(vec![LedgerChange::Flags { service: of.clone(), flags: stuck }]).await.unwrap();
        assert_eq!(count(dir.path(), "flags"), 1);
        store.remember(vec![LedgerChange::Flags { service: of, flags: Flags::default() }]).await.unwrap();
        assert_eq!(store.load(at(1)).await.unwrap().flags, []);
        assert_eq!(count(dir.path(), "flags"), 0);
    }
}

#[tokio::test]
async fn snapshots_are_replaced_as_a_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let (shop, good) = (service("shop"), ReleaseId::new("good"));
    let snapshot =
        |v: &str| Snapshot { name: "a".into(), inspect: json!(v), image: json!(1), context: json!({}) };
    store.save_snapshots(&shop, &good, &[snapshot("old")]).await.unwrap();
    // Two of one name break the rule of the table.
    assert!(store.save_snapshots(&shop, &good, &[snapshot("x"), snapshot("y")]).await.is_err());
    assert_eq!(store.snapshots(&shop, &good).await.unwrap(), [snapshot("old")]);
}

/// A store as a power cut leaves it: the log beside it is not empty.
async fn image_of_a_crash(into: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    for n in 0..50 {
        store.remember(vec![LedgerChange::Decided(Box::new(decision("shop", at(n))))]).await.unwrap();
    }
    raw(dir.path()).query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    store.remember(vec![LedgerChange::Decided(Box::new(decision("last", at(1))))]).await.unwrap();
    for name in [FILE.to_owned(), format!("{FILE}-wal")] {
        std::fs::copy(dir.path().join(&name), into.join(&name)).unwrap();
    }
    assert!(std::fs::metadata(into.join(format!("{FILE}-wal"))).unwrap().len() > 0);
}

#[tokio::test]
async fn a_damaged_file_keeps_its_log_too() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 6] = [
        ("garbage for a header", |b| b[..100].fill(0xAA)),
        ("not a database at all", |b| *b = b"[notify]\nwebhook = 1\n".repeat(50)),
        ("a page of zeros", |b| b[4096 * 2..4096 * 3].fill(0)),
        ("a page of garbage", |b| b[4096 * 5..4096 * 6].fill(0xFF)),
        ("cut in the middle of a page", |b| b.truncate(b.len() / 2 + 100)),
        ("cut to nothing", Vec::clear),
    ];
    for (name, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        image_of_a_crash(dir.path()).await;
        let mut spoiled = std::fs::read(dir.path().join(FILE)).unwrap();
        damage(&mut spoiled);
        std::fs::write(dir.path().join(FILE), spoiled).unwrap();
        let bytes =
            || [FILE.to_owned(), format!("{FILE}-wal")].map(|n| std::fs::read(dir.path().join(n)).unwrap());
        let before = bytes();
        for _ in 0..2 {
            let e = refused(dir.path()).await;
            assert!(matches!(e, StoreError::Damaged { .. }) && !e.to_string().contains('\n'), "{name}: {e}");
            assert!(bytes() == before, "{name}: it was touched");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    image_of_a_crash(dir.path()).await;
    let store = Store::open(dir.path()).await.unwrap();
    assert_eq!(store.decisions(None, 1).await.unwrap(), [decision("last", at(1))], "undamaged, it is read");
}

#[tokio::test]
async fn a_copy_that_was_put_back_is_made_private_again() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    image_of_a_crash(dir.path()).await;
    for name in [FILE.to_owned(), format!("{FILE}-wal")] {
        std::fs::set_permissions(dir.path().join(name), PermissionsExt::from_mode(0o644)).unwrap();
    }
    let store = Store::open(dir.path()).await.unwrap();
    store.probe().await.unwrap();
    for name in [FILE.to_owned(), format!("{FILE}-wal"), format!("{FILE}-shm")] {
        let mode = std::fs::metadata(dir.path().join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_damage_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let changes =
        vec![LedgerChange::Entry { service: service("shop"), entry: entry("good", 1, Standing::Trial) }];
    store.remember(changes).await.unwrap();
    raw(dir.path()).execute("UPDATE releases SET detail = '{}'", []).unwrap();
    let e = store.load(at(1)).await.expect_err("it is not an entry");
    assert!(matches!(&e, StoreError::Damaged { why, .. } if why.contains("a row cannot be read")), "{e:?}");
}

/// `count` numbers, as a table with one column `n`.
fn numbers(count: u32) -> String {
    format!("WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count})")
}

#[tokio::test]
async fn histories_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let fill = |count: u32, insert: &str| {
        raw(dir.path()).execute(&insert.replace("NUMBERS", &numbers(count)), []).unwrap();
    };
    fill(
        20_500,
        "INSERT INTO decisions (at_ms, service, verdict, reason_kind, reason, dry_run, detail)
         NUMBERS SELECT n, 's', 'hold', 'k', 'r', 0, '{}' FROM numbers",
    );
    fill(
        10_500,
        "INSERT INTO rollbacks (id, service, environment, to_release, reason, decided_by, started_ms, outcome, resolution, detail)
         NUMBERS SELECT printf('1-%06d', n), 's', 'e', 't', 'r', 'd', n, iif(n = 1, 'executing', 'void'), '', '{}' FROM numbers",
    );
    store
        .remember(vec![
            LedgerChange::Decided(Box::new(decision("shop", at(1)))),
            LedgerChange::RollbackOpened(Box::new(record("2-1", "shop", at(1), RollbackOutcome::Executing))),
        ])
        .await
        .unwrap();
    assert_eq!(count(dir.path(), "decisions"), 20_000);
    assert_eq!(count(dir.path(), "rollbacks"), 10_000 + 1);
    assert_eq!(count(dir.path(), "rollbacks WHERE outcome = 'executing'"), 2, "an open one is never dropped");

    fill(
        10_500,
        "INSERT INTO journals_closed (rollback, at_ms) NUMBERS SELECT n, unixepoch() * 1000 - 1 FROM numbers",
    );
    fill(
        10_500,
        "INSERT INTO journal (rollback, sequence, at_ms, event) NUMBERS SELECT n, 1, 1, '1' FROM numbers",
    );
    fill(1, "INSERT INTO journals_closed VALUES ('old', (unixepoch() - 91 * 86400) * 1000)");
    fill(1, "INSERT INTO journal VALUES ('old', 1, 1, '1')");
    store.append_journal(&RollbackId::new("open"), &json!(1), false).await.unwrap();
    store.append_journal(&RollbackId::new("new"), &json!(1), true).await.unwrap();
    assert_eq!(count(dir.path(), "journals_closed"), 500);
    assert_eq!(count(dir.path(), "journal"), 500 + 1, "the open one is kept besides");
    assert_eq!(count(dir.path(), "journal WHERE rollback = 'old'"), 0);

    let outbox = "INSERT INTO outbox (key, at_ms, kind, title, next_ms, announcement, delivered_ms)";
    fill(5_500, &format!("{outbox} NUMBERS SELECT 'done' || n, 1, 'k', 't', 1, '{{}}', 1 FROM numbers"));
    fill(1_005, &format!("{outbox} NUMBERS SELECT 'waits' || n, 1, 'k', 't', 1, '{{}}', NULL FROM numbers"));
    store.enqueue(&announcement("new", None, 1)).await.unwrap();
    assert_eq!(count(dir.path(), "announcements WHERE state = 'waiting'"), 1_000);
    assert_eq!(count(dir.path(), "announcements WHERE state = 'abandoned'"), 6);
    assert_eq!(store.take_given_up(), 6);
    assert_eq!(store.take_given_up(), 0, "counted once");
    store.enqueue(&announcement("newer", None, 1)).await.unwrap();
    assert_eq!(count(dir.path(), "announcements WHERE state != 'waiting'"), 5_001);
}

/// The report of a rollback tells whom people asked before it and who took it on, and nothing of other matters.
#[tokio::test]
async fn what_was_said_of_the_same_matter_is_told_with_the_rollback() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let own =
        RollbackRecord { ended: Some(at(60)), ..record("r2", "shop", at(30), RollbackOutcome::Verifying) };
    store.remember(vec![LedgerChange::RollbackOpened(Box::new(own))]).await.unwrap();
    let say = |key: &str, kind, rollback: Option<&str>, when| Announcement {
        kind,
        title: key.into(),
        ..announcement(key, rollback, when)
    };
    use AnnouncementKind as Kind;
    let all = [
        say("of an earlier matter", Kind::Stuck, None, 5),
        say("asked", Kind::ApprovalWanted, None, 20),
        say("bob", Kind::Approval, None, 25),
        say("of another rollback", Kind::RollbackInProgress, Some("r1"), 26),
        say("no news of it", Kind::Target, None, 27),
        say("begun", Kind::RollbackInProgress, Some("r2"), 30),
        Announcement { service: Some(service("web")), ..say("of another service", Kind::Stuck, None, 40) },
        say("complete", Kind::RollbackComplete, Some("r2"), 60),
        say("later", Kind::ApprovalWanted, None, 90),
        say("of it, later", Kind::Reminder, Some("r2"), 95),
    ];
    for a in &all {
        store.enqueue(a).await.unwrap();
    }
    let matter = Matter {
        subject: "shop".into(),
        opened: at(20),
        severity: Severity::High,
        spoken: at(60),
        rollback: None,
        told: ["a".to_owned()].into(),
        asked: None,
        acknowledged: None,
        levels: Default::default(),
        round: 0,
        closed: Some(at(60)),
    };
    let taken = Delivery {
        state: DeliveryState::Delivered(at(31)),
        message: "{\"to\":\"slack\"}".into(),
        ..delivery("ops")
    };
    store.record(6, &[taken], Some(&matter), at(60)).await.unwrap();
    store.record(8, &[], None, at(61)).await.unwrap();
    let told = store.announced(&RollbackId::new("r2")).await.unwrap();
    let titles: Vec<&str> = told.iter().map(|a| a.title.as_str()).collect();
    assert_eq!(titles, ["asked", "bob", "begun", "complete", "of it, later"]);
    assert_eq!(told[2].deliveries[0].medium().as_deref(), Some("slack"));
    assert!(told[3].routed && told[3].deliveries.is_empty(), "it went to no channel");
    assert!(!told[4].routed, "nobody looked for its channels yet");
}
