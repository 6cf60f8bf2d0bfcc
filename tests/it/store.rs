//! The store: what was acknowledged is there after a crash, and a file that is not right is never made worse.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;

use backstop::core::announcement::{Announcement, AnnouncementKind};
use backstop::core::decision::{Decision, Gate, GateAnswer, Reason, Verdict};
use backstop::core::ledger::{
    Flags, LedgerChange, LedgerEntry, Pause, RollbackOutcome, RollbackRecord, Standing,
};
use backstop::core::release::{ImageId, Release, ReleaseId, RollbackId, ServiceName};
use backstop::core::settings::Severity;
use backstop::core::{RollbackRequest, Timestamp};
use backstop::runtime::Snapshot;
use backstop::store::{Store, StoreError, Unrecorded};

/// Names the directory that a child of this test binary writes into until it is killed, and the round.
const WRITE_INTO: &str = "BACKSTOP_TEST_WRITE_INTO";
const ROUND: &str = "BACKSTOP_TEST_ROUND";
const ROUNDS: u32 = 20;

const HOUR: Duration = Duration::from_secs(60 * 60);
const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn service(name: &str) -> ServiceName {
    ServiceName::new(name)
}

fn release(n: u32) -> Release {
    Release {
        id: ReleaseId::new(format!("{n:012x}")),
        image: ImageId::new(format!("sha256:{n:064x}")),
        reference: format!("shop:v{n}"),
        digests: vec![format!("shop@sha256:{n:064x}")],
        fingerprint: format!("{n:064x}"),
        version: n.is_multiple_of(2).then(|| format!("1.{n}")),
    }
}

fn entry(n: u32, standing: Standing) -> LedgerEntry {
    let deployed = NOW + HOUR * n;
    LedgerEntry { release: release(n), first_seen: NOW, deployed, standing }
}

fn decision(name: &str, at: Timestamp) -> Decision {
    Decision {
        at,
        service: service(name),
        verdict: Verdict::Rollback,
        reason: Reason::CrashLoop { exits: 4, within: HOUR, threshold: 3, code: Some(137) },
        severity: Severity::Critical,
        from: Some(release(2)),
        to: Some(release(1)),
        gates: vec![GateAnswer {
            gate: Gate::Store, allow: true, why: "it is \"there\" – ünïcode".into()
        }],
        dry_run: false,
    }
}

fn record(id: &str, name: &str, started: Timestamp, outcome: RollbackOutcome) -> Box<RollbackRecord> {
    Box::new(RollbackRecord {
        id: RollbackId::new(id),
        service: service(name),
        environment: "production".into(),
        from: Some(release(2)),
        to: release(1),
        decision: decision(name, started),
        decided_by: "backstop".into(),
        onset: Some(started.before(HOUR)),
        started,
        applied: None,
        ended: outcome.is_over().then_some(started),
        outcome,
        request: RollbackRequest {
            id: RollbackId::new(id),
            service: service(name),
            from: Some(release(2).id),
            to: release(1),
            stop_grace: Duration::from_secs(3),
            decided: Some(started),
        },
    })
}

fn snapshot(name: &str, secret: &str) -> Snapshot {
    Snapshot {
        name: name.into(),
        inspect: json!({"Config": {"Env": [format!("PASSWORD={secret}")]}, "z": 1, "a": [null, 1.5, "\u{0}"]}),
        image: json!({"Id": "sha256:1"}),
        context: json!({"networks": {"id": "front"}}),
    }
}

fn announcement(key: &str, rollback: Option<&str>) -> Announcement {
    Announcement {
        key: key.into(),
        at: NOW,
        kind: AnnouncementKind::RollbackInProgress,
        service: Some(service("shop")),
        rollback: rollback.map(RollbackId::new),
        environment: "production".into(),
        title: format!("ROLLBACK IN PROGRESS: {key}"),
        fields: vec![("Reason".into(), "line\nline".into())],
        next: Some("backstop status".into()),
    }
}

fn file(dir: &Path) -> PathBuf {
    dir.join("backstop.sqlite3")
}

fn raw(dir: &Path) -> Connection {
    Connection::open(file(dir)).unwrap()
}

fn count(dir: &Path, what: &str) -> i64 {
    raw(dir).query_row(&format!("SELECT count(*) FROM {what}"), [], |row| row.get(0)).unwrap()
}

/// Says why a test was not done.
#[allow(clippy::print_stderr, reason = "a test that was not done must not look like one that passed")]
fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}

#[tokio::test]
async fn every_change_comes_back_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let good = entry(2, Standing::KnownGood { since: NOW + HOUR });
    let bad = entry(3, Standing::Quarantined { since: NOW, why: "it crashed".into() });
    let trial = entry(1, Standing::Trial);
    let paused = Flags {
        paused: Some(Pause { by: "ann".into(), why: "freeze".into(), since: NOW, until: Some(NOW + HOUR) }),
        stuck: None,
    };
    let tripped = Flags { paused: None, stuck: Some("5 rollbacks in an hour".into()) };
    let running = record("20270115-1", "shop", NOW, RollbackOutcome::Executing);
    let proved = Box::new(RollbackRecord {
        applied: Some(NOW + HOUR),
        ended: Some(NOW + HOUR),
        outcome: RollbackOutcome::Verified("it passed every rule".into()),
        ..(*running).clone()
    });
    let shop = service("shop");
    let entry_of = |entry: &LedgerEntry| LedgerChange::Entry { service: shop.clone(), entry: entry.clone() };
    {
        let store = Store::open(dir.path()).await.unwrap();
        let forget = LedgerChange::Forget { service: shop.clone(), release: trial.release.id.clone() };
        store
            .remember(vec![
                entry_of(&trial),
                entry_of(&entry(2, Standing::Trial)),
                entry_of(&good),
                entry_of(&bad),
                forget,
                LedgerChange::Decided(decision("shop", NOW)),
                LedgerChange::Decided(decision("other", NOW + HOUR)),
                LedgerChange::RollbackOpened(running.clone()),
                LedgerChange::Flags { service: Some(shop.clone()), flags: paused.clone() },
                LedgerChange::Flags { service: None, flags: tripped.clone() },
                LedgerChange::Flags { service: Some(service("other")), flags: paused.clone() },
                LedgerChange::Flags { service: Some(service("other")), flags: Flags::default() },
            ])
            .await
            .unwrap();
        assert_eq!(store.load(NOW).await.unwrap().rollbacks, [(*running).clone()]);
        store.remember(vec![LedgerChange::RollbackUpdated(proved.clone())]).await.unwrap();
    }

    let store = Store::open(dir.path()).await.unwrap();
    let remembered = store.load(NOW + HOUR).await.unwrap();
    assert_eq!(remembered.ledgers, [(shop.clone(), vec![bad, good])]);
    let flags: BTreeMap<_, _> = remembered.flags.into_iter().collect();
    assert_eq!(flags, BTreeMap::from([(None, tripped), (Some(shop.clone()), paused)]));
    assert_eq!(remembered.rollbacks, [(*proved).clone()]);

    assert_eq!(store.rollback(&proved.id).await.unwrap(), Some((*proved).clone()));
    assert_eq!(store.rollback(&RollbackId::new("no")).await.unwrap(), None);
    let all = [decision("other", NOW + HOUR), decision("shop", NOW)];
    assert_eq!(store.decisions(None, 10).await.unwrap(), all);
    assert_eq!(store.decisions(None, 1).await.unwrap(), all[..1]);
    assert_eq!(store.decisions(Some(&shop), 10).await.unwrap(), all[1..]);
}

#[tokio::test]
async fn open_rollbacks_are_always_loaded_and_closed_ones_for_a_day() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let verified = || RollbackOutcome::Verified(String::new());
    let ended_late = RollbackRecord {
        ended: Some(NOW.before(HOUR)),
        ..*record("5", "e", NOW.before(HOUR * 26), verified())
    };
    store
        .remember(
            [
                record("1", "a", NOW.before(HOUR * 24 * 30), RollbackOutcome::Executing),
                record("2", "b", NOW.before(HOUR * 24 * 7), RollbackOutcome::Verifying),
                record("3", "c", NOW.before(HOUR * 25), verified()),
                record("4", "d", NOW.before(HOUR * 23), RollbackOutcome::Stuck("both failed".into())),
                Box::new(ended_late),
            ]
            .map(LedgerChange::RollbackOpened)
            .into(),
        )
        .await
        .unwrap();
    let loaded = async |now| -> Vec<String> {
        store.load(now).await.unwrap().rollbacks.iter().map(|r| r.id.to_string()).collect()
    };
    assert_eq!(loaded(NOW).await, ["1", "2", "5", "4"], "oldest first");
    assert_eq!(
        loaded(NOW + HOUR * 24 * 365).await,
        ["1", "2"],
        "it is the time now that counts, not the newest row"
    );
    assert_eq!(
        loaded(Timestamp::default()).await.len(),
        5,
        "with a clock that is wrong, none is passed over"
    );

    let (a, two) = (service("a"), RollbackId::new("3"));
    let ids = |found: Vec<RollbackRecord>| found.iter().map(|r| r.id.to_string()).collect::<Vec<_>>();
    assert_eq!(ids(store.rollbacks(None, None, 3).await.unwrap()), ["5", "4", "3"]);
    assert_eq!(ids(store.rollbacks(None, Some(&two), 9).await.unwrap()), ["2", "1"]);
    assert_eq!(ids(store.rollbacks(Some(&a), None, 9).await.unwrap()), ["1"]);
}

#[tokio::test]
async fn snapshots_are_replaced_as_a_whole_and_dropped() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let (shop, one, two) = (service("shop"), release(1).id, release(2).id);
    let (old, new) = ([snapshot("shop-1", "x"), snapshot("shop-2", "x")], [snapshot("shop-2", "y\"'; --")]);
    store.save_snapshots(&shop, &one, &old).await.unwrap();
    store.save_snapshots(&shop, &two, &old).await.unwrap();
    assert_eq!(store.snapshots(&shop, &one).await.unwrap(), old);
    store.save_snapshots(&shop, &one, &new).await.unwrap();
    assert_eq!(store.snapshots(&shop, &one).await.unwrap(), new);
    let keys: Vec<_> = new[0].inspect.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["Config", "z", "a"], "the engine's own order is kept");
    // Two of one name break the rule of the table, so nothing of them is done.
    assert!(store.save_snapshots(&shop, &one, &[old[0].clone(), old[0].clone()]).await.is_err());
    assert_eq!(store.snapshots(&shop, &one).await.unwrap(), new);
    store.drop_snapshots(&shop, &one).await.unwrap();
    assert_eq!(store.snapshots(&shop, &one).await.unwrap(), []);
    assert_eq!(store.snapshots(&shop, &two).await.unwrap(), old);
}

#[tokio::test]
async fn journals_come_back_in_order_until_they_are_closed() {
    let dir = TempDir::new().unwrap();
    let (a, b) = (RollbackId::new("a"), RollbackId::new("b"));
    {
        let store = Store::open(dir.path()).await.unwrap();
        for n in 0..12 {
            store.append_journal(&b, &json!({"n": n}), false).await.unwrap();
            store.append_journal(&a, &json!({"n": n}), false).await.unwrap();
        }
    }
    let store = Store::open(dir.path()).await.unwrap();
    let events: Vec<_> = (0..12).map(|n| json!({"n": n})).collect();
    let both = [(a.clone(), events.clone()), (b.clone(), events.clone())];
    assert_eq!(store.unfinished_journals().await.unwrap(), both);
    store.append_journal(&a, &json!("closed"), true).await.unwrap();
    assert_eq!(store.unfinished_journals().await.unwrap(), both[1..]);
    let told = store.journal(&a).await.unwrap();
    assert_eq!(told.len(), 13);
    assert!(told.is_sorted_by_key(|(at, _)| *at) && told[0].0 > Timestamp::from_secs(1_700_000_000));
    assert_eq!(told[12].1, json!("closed"));
}

#[tokio::test]
async fn the_outbox_keeps_what_waits_in_order_and_says_it_once() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let none = Unrecorded::default();
    for (key, rollback) in [("1", Some("r")), ("2", Some("r")), ("3", None), ("1", Some("r"))] {
        store.enqueue(&announcement(key, rollback)).await.unwrap();
    }
    let keys = async |now, but: &Unrecorded| -> Vec<String> {
        store.due(now, 10, but).await.unwrap().into_iter().map(|o| o.announcement.key).collect()
    };
    assert_eq!(store.due(NOW, 10, &none).await.unwrap()[0].announcement, announcement("1", Some("r")));
    assert_eq!(keys(NOW, &none).await, ["1", "3"], "2 waits for 1");
    assert_eq!(keys(NOW.before(HOUR), &none).await, [""; 0]);
    assert_eq!(keys(NOW, &Unrecorded { settled: vec![1], held: vec![3] }).await, ["2"]);
    assert_eq!(keys(NOW, &Unrecorded { settled: vec![], held: vec![1] }).await, ["3"], "2 waits for 1 still");

    store.postponed(1, NOW + HOUR, "500").await.unwrap();
    assert_eq!(keys(NOW, &none).await, ["3"]);
    store.delivered(3, NOW).await.unwrap();
    assert_eq!(store.next_due(&none).await.unwrap(), Some(NOW + HOUR), "2 is not due before 1");
    assert!(store.waits(&RollbackId::new("r"), &none).await.unwrap());
    assert!(!store.waits(&RollbackId::new("s"), &none).await.unwrap());
    store.hasten(NOW).await.unwrap();
    assert_eq!(store.due(NOW, 10, &none).await.unwrap()[0].attempts, 1);
    store.abandoned(1, NOW, "410").await.unwrap();
    assert_eq!(keys(NOW, &none).await, ["2"]);
    store.delivered(2, NOW).await.unwrap();
    assert_eq!(store.next_due(&none).await.unwrap(), None);
    let states: Vec<String> = raw(dir.path())
        .prepare("SELECT state FROM announcements")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(states, ["delivered", "delivered", "abandoned"]);
}

#[tokio::test]
async fn an_announcement_that_cannot_be_read_does_not_silence_the_others() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    store.enqueue(&announcement("1", Some("r"))).await.unwrap();
    store.enqueue(&announcement("2", Some("r"))).await.unwrap();
    raw(dir.path()).execute("UPDATE outbox SET announcement = '{' WHERE id = 1", []).unwrap();
    let none = Unrecorded::default();
    assert_eq!(store.due(NOW, 10, &none).await.unwrap(), []);
    assert_eq!(store.take_given_up(), 1);
    assert_eq!(store.due(NOW, 10, &none).await.unwrap()[0].announcement.key, "2");
}

/// Not a test of its own: what the next one starts as a child, and kills.
#[tokio::test]
async fn writes_until_killed() {
    let Some(dir) = std::env::var_os(WRITE_INTO) else { return };
    let round = std::env::var_os(ROUND).unwrap().into_string().unwrap();
    let store = Store::open(Path::new(&dir)).await.unwrap();
    let journal = RollbackId::new(&round);
    for n in 0_u32.. {
        let opened = record(&format!("{round}-{n:05}"), &round, NOW, RollbackOutcome::Executing);
        let changes =
            vec![LedgerChange::Decided(decision(&round, NOW)), LedgerChange::RollbackOpened(opened)];
        store.remember(changes).await.unwrap();
        store.append_journal(&journal, &json!(n), false).await.unwrap();
        store.enqueue(&announcement(&format!("{round}-{n}"), None)).await.unwrap();
        let mut out = std::io::stdout();
        writeln!(out, "acknowledged {n}").unwrap();
        out.flush().unwrap();
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let dir = TempDir::new().unwrap();
    for round in 0..ROUNDS {
        let name = format!("round-{round:02}");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::writes_until_killed", "--nocapture"])
            .env(WRITE_INTO, dir.path())
            .env(ROUND, &name)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut acknowledged = 0;
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in lines.map_while(Result::ok).filter(|l| l.starts_with("acknowledged ")) {
            acknowledged += 1;
            assert_eq!(line, format!("acknowledged {}", acknowledged - 1));
            // What it had written before it died is still read.
            if acknowledged == 1 + round * 3 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(acknowledged > round * 3, "the child ended by itself");

        let store = Store::open(dir.path()).await.unwrap();
        let sound: String =
            raw(dir.path()).query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(sound, "ok");
        let decided = store.decisions(Some(&service(&name)), 1000).await.unwrap().len();
        let rolled_back = store.rollbacks(Some(&service(&name)), None, 1000).await.unwrap().len();
        let journal = store.journal(&RollbackId::new(&name)).await.unwrap();
        let announced = count(dir.path(), &format!("outbox WHERE key LIKE '{name}-%'"));
        assert!(decided >= acknowledged as usize, "{decided} of {acknowledged}");
        assert_eq!(decided, rolled_back, "all of a change, or nothing of it");
        let (said, expected) = (journal.iter().map(|(_, n)| n.clone()), (0..journal.len()).map(|n| json!(n)));
        assert!(said.eq(expected) && journal.len() >= acknowledged as usize);
        assert!(announced >= i64::from(acknowledged), "{announced} of {acknowledged}");
    }
}

/// A store with something in it as a power cut would leave it: the write-ahead log is there and not empty.
async fn image_of_a_crash(into: &Path) {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    for n in 0..50 {
        store.remember(vec![LedgerChange::Decided(decision("shop", NOW + HOUR * n))]).await.unwrap();
    }
    raw(dir.path()).query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    store.remember(vec![LedgerChange::Decided(decision("last", NOW))]).await.unwrap();
    for suffix in ["", "-wal"] {
        let name = format!("backstop.sqlite3{suffix}");
        std::fs::copy(dir.path().join(&name), into.join(&name)).unwrap();
    }
    assert!(std::fs::metadata(into.join("backstop.sqlite3-wal")).unwrap().len() > 0);
}

fn bytes(dir: &Path) -> [Vec<u8>; 2] {
    ["backstop.sqlite3", "backstop.sqlite3-wal"].map(|name| std::fs::read(dir.join(name)).unwrap_or_default())
}

async fn refused(dir: &Path) -> StoreError {
    let before = bytes(dir);
    let refused = Store::open(dir).await.expect_err("it must be refused");
    assert!(bytes(dir) == before, "the file was touched: {refused}");
    let again = Store::open(dir).await.expect_err("it must be refused again");
    assert_eq!(again, refused);
    refused
}

#[tokio::test]
async fn a_damaged_file_is_reported_and_left_byte_for_byte() {
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
        let dir = TempDir::new().unwrap();
        image_of_a_crash(dir.path()).await;
        let mut bytes = std::fs::read(file(dir.path())).unwrap();
        damage(&mut bytes);
        std::fs::write(file(dir.path()), bytes).unwrap();
        let e = refused(dir.path()).await;
        assert!(matches!(&e, StoreError::Damaged { path, .. } if *path == file(dir.path())), "{name}: {e:?}");
        assert!(e.to_string().contains("integrity_check") && !e.to_string().contains('\n'), "{e}");
    }
    let dir = TempDir::new().unwrap();
    image_of_a_crash(dir.path()).await;
    let store = Store::open(dir.path()).await.unwrap();
    assert_eq!(store.decisions(None, 1).await.unwrap(), [decision("last", NOW)], "undamaged, it is read");
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_damage_too() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let changes = vec![LedgerChange::Entry { service: service("shop"), entry: entry(1, Standing::Trial) }];
    store.remember(changes).await.unwrap();
    raw(dir.path()).execute("UPDATE releases SET detail = '{}'", []).unwrap();
    let e = store.load(NOW).await.expect_err("it is not an entry");
    assert!(matches!(&e, StoreError::Damaged { why, .. } if why.contains("a row cannot be read")), "{e:?}");
}

#[tokio::test]
async fn a_newer_file_and_a_foreign_one_are_left_alone() {
    let dir = TempDir::new().unwrap();
    image_of_a_crash(dir.path()).await;
    raw(dir.path()).pragma_update(None, "user_version", 99).unwrap();
    let newer = refused(dir.path()).await;
    assert_eq!(newer, StoreError::Newer { path: file(dir.path()), found: 99, known: 1 });

    let dir = TempDir::new().unwrap();
    raw(dir.path()).execute_batch("CREATE TABLE bookmarks (url TEXT)").unwrap();
    assert_eq!(refused(dir.path()).await, StoreError::Foreign { path: file(dir.path()) });
}

#[tokio::test]
async fn a_second_daemon_is_kept_out_and_let_in_afterwards() {
    let dir = TempDir::new().unwrap();
    let first = Store::open(dir.path()).await.unwrap();
    let e = Store::open(dir.path()).await.expect_err("the first one is there");
    assert_eq!(e, StoreError::Locked { path: dir.path().join("backstop.lock") });
    assert!(e.to_string().contains("systemctl status backstop"));
    drop(first);
    Store::open(dir.path()).await.unwrap();
}

#[tokio::test]
async fn nobody_else_can_read_it() {
    let outer = TempDir::new().unwrap();
    let dir = outer.path().join("var/backstop");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let store = Store::open(&dir).await.unwrap();
    store.probe().await.unwrap();
    store.decisions(None, 1).await.unwrap();
    assert_eq!(mode(&dir), 0o700);
    for name in ["backstop.sqlite3", "backstop.sqlite3-wal", "backstop.sqlite3-shm", "backstop.lock"] {
        assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
    }

    // A copy that was put back with the modes that copies have.
    let restored = TempDir::new().unwrap();
    image_of_a_crash(restored.path()).await;
    for suffix in ["", "-wal"] {
        let path = restored.path().join(format!("backstop.sqlite3{suffix}"));
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap();
    }
    let _store = Store::open(restored.path()).await.unwrap();
    for name in ["backstop.sqlite3", "backstop.sqlite3-wal", "backstop.sqlite3-shm"] {
        assert_eq!(mode(&restored.path().join(name)), 0o600, "{name}");
    }
}

/// Something that is mounted until it is dropped.
struct Mounted(TempDir);

impl Mounted {
    fn new(arguments: &[&str]) -> Option<Self> {
        let at = TempDir::new().unwrap();
        run("mount", &[arguments, &[at.path().to_str().unwrap()]].concat()).then(|| Self(at))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &["-l", self.0.path().to_str().unwrap()]);
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let quiet = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}

#[tokio::test]
async fn a_read_only_place_is_said_to_be_read_only() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let read_only = |e: StoreError, path: &Path| {
        assert!(matches!(&e, StoreError::ReadOnly { path: at, .. } if at.starts_with(path)), "{e:?}");
        assert!(e.to_string().contains("check the owner and the mount"), "{e}");
    };
    let mut tried = false;
    if let Some(mounted) = Mounted::new(&["--bind", dir.path().to_str().unwrap()]) {
        let at = mounted.0.path();
        if run("mount", &["-o", "remount,ro,bind", at.to_str().unwrap()]) {
            read_only(Store::open(at).await.expect_err("it is mounted read-only"), at);
            let missing = at.join("not/yet");
            read_only(Store::open(&missing).await.expect_err("it cannot be made"), at);
            tried = true;
        }
    }
    store.probe().await.unwrap();
    drop(store);

    let name = file(dir.path());
    if run("chattr", &["+i", name.to_str().unwrap()]) {
        let e = Store::open(dir.path()).await;
        assert!(run("chattr", &["-i", name.to_str().unwrap()]));
        read_only(e.expect_err("the file is immutable"), &name);
        tried = true;
    }
    if !tried {
        skipped("neither mount nor chattr may be used here, so nothing can be made read-only for root");
    }
    Store::open(dir.path()).await.unwrap();
}

/// Fills the file system until nothing goes any more.
fn fill(dir: &Path) -> PathBuf {
    let ballast = dir.join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while file.write_all(&[7; 512]).is_ok() {}
    ballast
}

#[tokio::test]
async fn a_full_disk_is_said_to_be_full_and_is_usable_once_there_is_room() {
    let Some(mounted) = Mounted::new(&["-t", "tmpfs", "-o", "size=1m", "tmpfs"]) else {
        return skipped("mount may not be used here, so there is no small disk to fill");
    };
    let dir = mounted.0.path().join("state");
    let store = Store::open(&dir).await.unwrap();
    store.append_journal(&RollbackId::new("r"), &json!(1), false).await.unwrap();
    let ballast = fill(mounted.0.path());
    let full = StoreError::Full { path: file(&dir) };
    assert_eq!(store.append_journal(&RollbackId::new("r"), &json!(2), false).await, Err(full.clone()));
    assert_eq!(store.remember(vec![LedgerChange::Decided(decision("shop", NOW))]).await, Err(full.clone()));
    assert_eq!(store.probe().await, Err(full));
    assert_eq!(store.journal(&RollbackId::new("r")).await.unwrap().len(), 1, "it can be read all the same");

    std::fs::remove_file(&ballast).unwrap();
    store.probe().await.unwrap();
    store.append_journal(&RollbackId::new("r"), &json!(3), false).await.unwrap();
    let events = store.unfinished_journals().await.unwrap().remove(0).1;
    assert_eq!(events, [json!(1), json!(3)]);

    let other = mounted.0.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let ballast = fill(mounted.0.path());
    let e = Store::open(&other).await.expect_err("there is no room for a new one");
    assert!(matches!(e, StoreError::Full { .. }), "{e:?}");
    std::fs::remove_file(&ballast).unwrap();
    Store::open(&other).await.expect("what was left half made does not stand in the way");
}

#[tokio::test]
async fn the_shell_reads_every_view_while_the_store_writes() {
    if !run("sqlite3", &["--version"]) {
        return skipped("there is no sqlite3 shell here");
    }
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let write = async |n: u32| {
        let changes = vec![
            LedgerChange::Entry { service: service("shop"), entry: entry(n, Standing::Trial) },
            LedgerChange::Decided(decision("shop", NOW)),
            LedgerChange::RollbackOpened(record(
                &format!("{n}"),
                "shop",
                NOW,
                RollbackOutcome::Verified("it passed".into()),
            )),
        ];
        store.remember(changes).await.unwrap();
        store.enqueue(&announcement(&format!("{n}"), None)).await.unwrap();
    };
    write(0).await;
    let path = file(dir.path());
    let written = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&written);
    let reading = tokio::task::spawn_blocking(move || {
        let views = [
            ("rollback_log", "2027-01-15 08:00:00|production|shop|shop:v2"),
            ("decision_log", "2027-01-15 08:00:00|shop|rollback|it exited 4 times"),
            ("release_ledger", "shop|shop:v"),
            ("announcements", "2027-01-15 08:00:00|rollback_in_progress|shop|ROLLBACK IN PROGRESS"),
        ];
        for (read, (view, beginning)) in views.into_iter().cycle().enumerate() {
            if read >= views.len() && done.load(Ordering::Relaxed) {
                break;
            }
            let sql = format!("SELECT * FROM {view} LIMIT 1");
            let out = Command::new("sqlite3").args([path.as_os_str(), sql.as_ref()]).output().unwrap();
            let said = String::from_utf8_lossy(&out.stdout);
            assert!(said.starts_with(beginning), "{view}: {said}{}", String::from_utf8_lossy(&out.stderr));
        }
    });
    for n in 1..40 {
        write(n).await;
    }
    written.store(true, Ordering::Relaxed);
    reading.await.unwrap();
}

/// `count` numbers, as a table with one column `n`.
fn numbers(count: u32) -> String {
    format!("WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count})")
}

#[tokio::test]
async fn histories_are_bounded() {
    let dir = TempDir::new().unwrap();
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
            LedgerChange::Decided(decision("shop", NOW)),
            LedgerChange::RollbackOpened(record("2-1", "shop", NOW, RollbackOutcome::Executing)),
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
    assert_eq!(count(dir.path(), "journals_closed"), 10_000);
    assert_eq!(count(dir.path(), "journal"), 10_000 + 1, "the open one is kept besides");
    assert_eq!(count(dir.path(), "journal WHERE rollback = 'old'"), 0);

    let outbox = "INSERT INTO outbox (key, at_ms, kind, title, next_ms, announcement, delivered_ms)";
    fill(5_500, &format!("{outbox} NUMBERS SELECT 'done' || n, 1, 'k', 't', 1, '{{}}', 1 FROM numbers"));
    fill(1_005, &format!("{outbox} NUMBERS SELECT 'waits' || n, 1, 'k', 't', 1, '{{}}', NULL FROM numbers"));
    store.enqueue(&announcement("new", None)).await.unwrap();
    assert_eq!(count(dir.path(), "announcements WHERE state = 'waiting'"), 1_000);
    assert_eq!(count(dir.path(), "announcements WHERE state = 'abandoned'"), 6);
    assert_eq!(store.take_given_up(), 6);
    assert_eq!(store.take_given_up(), 0, "counted once");
    store.enqueue(&announcement("newer", None)).await.unwrap();
    assert_eq!(count(dir.path(), "announcements WHERE state != 'waiting'"), 5_001);
}
